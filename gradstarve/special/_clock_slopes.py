"""Derivatives of the clocks with 1/g = c + e^u in their start (rise, fall), of every order and without cancellation.

Two families of integrals are closed under differentiation, so each has a rule for its derivative, and no quadrature is
differentiated:

    I_k = integral_0^s e^(u + k s') ds'                    dI_k = e^(u + k s) ds + I_(k+1) drise - I_(k-1) dfall
    K_n = integral_{u_c}^u (c + e^v) / S^n dv              dK_n = [(c + e^v)/S^n dv]_{u_c}^u - n K_(n+2) d(kappa^2) / 2

with kappa^2 = 4 rise fall. The time tau(u) to a fixed logit u is c s_c + I_0(s_c) up to the cut u_c = max(1, u(0)), reached
at the angle s_c, plus K_1 above the cut:

    dtau/drise = I_1(s_c) - (c + e^u_c) e^s_c / S_c - 2 fall K_3
    dtau/dfall = -I_-1(s_c) + (c + e^u_c) e^-s_c / S_c - 2 rise K_3

Late in training this form is the accurate one: at a fixed time the logit moves by du = g(u) S (dtau - ...), while the other
form, du = e^s drise - e^-s dfall + S ds, is a difference of terms that agree to e^-u. The other form is used up to the cut.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradstarve.special._expint import (
    EDGES,
    NODES,
    TERMS,
    WEIGHTS,
    angle_at,
    bounded_exp,
    is_lazy,
    is_still,
    logit_at,
    steepness,
)

Real = Float[Array, "..."]


# --- I_k ---------------------------------------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def moments(order: int, rise: Real, fall: Real, angle: Real) -> tuple[Real, ...]:
    """(I_-order, ..., I_order) from s = 0 to `angle` >= 0, on arrays of one shape.

    >>> low, middle, high = moments(1, jnp.float32(0.5), jnp.float32(0.0), jnp.float32(1.0))
    >>> round(float(high), 5)                                        # (e^(e/2) - e^(1/2)) / 0.5
    4.48825
    """
    start, end = rise - fall, logit_at(rise, fall, angle)
    u0 = jnp.stack([jnp.clip(start, low, high) for low, high in _REGIONS])
    u1 = jnp.stack([jnp.clip(end, low, high) for low, high in _REGIONS])
    panels = _panels(order, rise, fall, u0, u1)
    s0 = jnp.where(start > -1, 0, angle_at(rise, fall, jnp.full_like(start, -1)))
    s1 = jnp.where(end < 1, angle, angle_at(rise, fall, jnp.ones_like(start)))
    crossed = (u1[1] > u0[1]) | is_still(rise, fall)
    # e^s at u = 1 as a quotient: the exponential of the rounded angle would be less accurate.
    larger = (1 + steepness(rise, fall, jnp.ones_like(start))) / 2
    leaves = crossed & (end > 1 - 8 * jnp.finfo(rise.dtype).eps) & (rise > larger * jnp.finfo(rise.dtype).tiny)
    grown = jnp.where(leaves, larger / jnp.where(leaves, rise, 1), bounded_exp(jnp.where(crossed, s1, 0)))
    series = _series(order, rise, fall, jnp.where(crossed, s0, 0), u0[1], jnp.where(crossed, s1, 0), u1[1], grown)
    lazy = is_lazy(rise, fall)
    found = []
    for panel, part in zip(panels, series, strict=True):
        inside = jnp.where(crossed, jnp.where(lazy, panel[1], part), 0)
        found.append(jnp.where(u1[0] > u0[0], panel[0], 0) + inside + jnp.where(u1[2] > u0[2], panel[2], 0))
    return tuple(found)


@moments.defjvp
def _moments_jvp(order, primals, tangents):
    (rise, fall, angle), (drise, dfall, dangle) = primals, tangents
    wide = moments(order + 1, rise, fall, angle)
    end = jnp.exp(logit_at(rise, fall, angle))
    moves = tuple(
        end * _power(angle, k) * dangle + wide[k + order + 2] * drise - wide[k + order] * dfall
        for k in range(-order, order + 1)
    )
    return wide[1:-1], moves


_REGIONS = ((-jnp.inf, -1.0), (-1.0, 1.0), (1.0, jnp.inf))


def _power(angle: Real, k: int) -> Real:
    """e^(k s), limited to a finite float."""
    return bounded_exp(k * angle)


def _panels(order: int, rise: Real, fall: Real, u0: Real, u1: Real) -> list[Real]:
    """The moments over u0..u1 by Gauss-Legendre in u, on panels that widen away from the upper end."""
    edges = jnp.maximum(u1[..., None] - jnp.asarray(EDGES, u1.dtype), u0[..., None])
    half = (edges[..., :-1] - edges[..., 1:])[..., None] / 2
    v = (edges[..., :-1] + edges[..., 1:])[..., None] / 2 + half * jnp.asarray(NODES, u1.dtype)
    rise, fall = rise[..., None, None], fall[..., None, None]
    steep = steepness(rise, fall, v)
    mass = half * jnp.asarray(WEIGHTS, u1.dtype) * jnp.exp(v)
    mass = jnp.where(half > 0, mass / jnp.where(steep > 0, steep, 1), 0)
    # e^s = (S + v)/(2 rise) = 2 fall/(S - v): the sign of v decides which quotient has no cancellation.
    larger = (steep + jnp.abs(v)) / 2
    safe = jnp.where(larger > 0, larger, 1)
    grow = jnp.where(v >= 0, larger / jnp.where(rise > 0, rise, 1), fall / safe)
    decay = jnp.where(v >= 0, rise / safe, larger / jnp.where(fall > 0, fall, 1))
    found = {0: mass}
    for k in range(1, order + 1):
        found[k], found[-k] = found[k - 1] * grow, found[1 - k] * decay
    return [jnp.sum(found[k], axis=(-2, -1)) for k in range(-order, order + 1)]


def _series(order: int, rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real, grown: Real) -> list[Real]:
    """The moments over |u| <= 1 by e^u = sum u^n / n!, with e^s1 = `grown`. With A(n, k) = integral u^n e^(k s) ds, k > 0,

    n A(n, 0) = [u^(n-1) S] - (n-1) kappa^2 A(n-2, 0),      (n+k) A(n, k) = [u^n e^(k s)] - 2 fall n A(n-1, k-1),
    (n+k) A(n, -k) = 2 rise n A(n-1, 1-k) - [u^n e^(-k s)].
    """
    kappa2 = 4 * rise * fall
    steep0, steep1 = steepness(rise, fall, u0), steepness(rise, fall, u1)
    orders = range(-order, order + 1)
    most = bounded_exp(jnp.full_like(grown, jnp.inf))
    ends = {k: (_power(s0, k), jnp.minimum(grown**k, most) if k > 0 else 1 / grown**-k) for k in orders}
    before = jnp.zeros_like(u1)  # A(n-2, 0)
    now = {k: (s1 - s0) if k == 0 else (ends[k][1] - ends[k][0]) / k for k in orders}
    total = now
    power0, power1 = jnp.ones_like(u0), jnp.ones_like(u1)  # u^(n-1)

    def body(n, carry):
        before, now, total, power0, power1, over_factorial = carry
        n = n.astype(u1.dtype)
        over_factorial = over_factorial / n
        following = {0: (power1 * steep1 - power0 * steep0 - (n - 1) * kappa2 * before) / n}
        power0, power1 = power0 * u0, power1 * u1
        for k in range(1, order + 1):
            (low, high), (small, smaller) = ends[k], ends[-k]
            following[k] = (power1 * high - power0 * low - 2 * fall * n * now[k - 1]) / (n + k)
            following[-k] = (2 * rise * n * now[1 - k] - (power1 * smaller - power0 * small)) / (n + k)
        total = {k: total[k] + following[k] * over_factorial for k in orders}
        return now[0], following, total, power0, power1, over_factorial

    start = (before, now, total, power0, power1, jnp.ones((), u1.dtype))
    # A loop instead of TERMS copies of its body, which would be most of the time to compile a clock.
    total = jax.lax.fori_loop(1, TERMS, body, start, unroll=4 if order < 2 else 1)[2]
    return [total[k] for k in orders]


# --- K_n ---------------------------------------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def tail(constant: float, n: int, rise: Real, fall: Real, begin: Real, u: Real) -> Real:
    """e^-u K_n from the logit `begin` >= 1 to `u` >= begin, on arrays of one shape."""
    edges = jnp.maximum(u[..., None] - jnp.asarray(EDGES, u.dtype), begin[..., None])
    half = (edges[..., :-1] - edges[..., 1:])[..., None] / 2
    v = (edges[..., :-1] + edges[..., 1:])[..., None] / 2 + half * jnp.asarray(NODES, u.dtype)
    steep = steepness(rise[..., None, None], fall[..., None, None], v)
    top = u[..., None, None]
    mass = jnp.asarray(WEIGHTS, u.dtype) * (jnp.exp(v - top) + constant * jnp.exp(-top))
    return jnp.sum(half * mass / steep**n, axis=(-2, -1))


@tail.defjvp
def _tail_jvp(constant, n, primals, tangents):
    (rise, fall, begin, u), (drise, dfall, dbegin, du) = primals, tangents
    value = tail(constant, n, rise, fall, begin, u)
    at_end = (1 + constant * jnp.exp(-u)) / steepness(rise, fall, u) ** n
    at_begin = (jnp.exp(begin - u) + constant * jnp.exp(-u)) / steepness(rise, fall, begin) ** n
    curved = 2 * n * tail(constant, n + 2, rise, fall, begin, u)
    return value, (at_end - value) * du - at_begin * dbegin - curved * (fall * drise + rise * dfall)


# --- derivatives of the state and of the arrival time ------------------------------------------------------------------


class Late(NamedTuple):
    """The part of a clock above its cut, on arrays of one shape; harmless numbers in the elements that are not `above`.

    `begin` u_c and `angle` s_c: the logit and the angle of the cut.
    """

    above: Bool[Array, "..."]
    rise: Real
    fall: Real
    begin: Real
    u: Real
    angle: Real

    @classmethod
    def of(cls, rise: Real, fall: Real, u: Real) -> Late:
        """The elements with u > 1."""
        above = u > 1
        rise, fall, u = jnp.where(above, rise, 1), jnp.where(above, fall, 0), jnp.where(above, u, 2)
        start = rise - fall
        begin = jnp.maximum(start, 1)
        return cls(above, rise, fall, begin, u, jnp.where(start >= 1, 0, angle_at(rise, fall, jnp.ones_like(u))))

    def slopes(self, constant: float, low: Real, high: Real, shrink: Real) -> tuple[Real, Real]:
        """(dtau/drise, dtau/dfall) at fixed u, in units of e^u, with I_-1 = `low` and I_1 = `high` up to the cut."""
        steep = steepness(self.rise, self.fall, self.begin)
        here = (constant * shrink + jnp.exp(self.begin - self.u)) / steep
        curved = 2 * tail(constant, 3, self.rise, self.fall, self.begin, self.u)
        # e^s as a quotient: the exponential of the rounded angle would be less accurate.
        larger = (self.begin + steep) / 2
        by_rise = high * shrink - here * larger / self.rise - self.fall * curved
        by_fall = -low * shrink + here * self.rise / larger - self.rise * curved
        return by_rise, by_fall


def moves(
    constant: float, rise: Real, fall: Real, time: Real, angle: Real, u: Real, drise: Real, dfall: Real, dtime: Real
) -> tuple[Real, Real]:
    """(ds, du) of the state (angle, u) at `time`, on arrays of one shape."""
    late = Late.of(rise, fall, u)
    above = late.above
    below, plain, grow = moments(1, rise, fall, jnp.where(above, late.angle, angle))
    # Up to the cut.
    low, high = jnp.where(above, 0, below), jnp.where(above, 0, grow)
    early_angle, early_u = jnp.where(above, 0, angle), jnp.where(above, 0, u)
    early_ds = (dtime - high * drise + low * dfall) / (constant + jnp.exp(early_u))
    early_du = bounded_exp(early_angle) * drise - jnp.exp(-early_angle) * dfall + steepness(rise, fall, early_u) * early_ds
    # Above the cut.
    low, high = jnp.where(above, below, 0), jnp.where(above, grow, 0)
    shrink = jnp.exp(-late.u) * _sharper(constant, late, time - _before(constant, late, plain))
    by_rise, by_fall = late.slopes(constant, low, high, shrink)
    steep = steepness(late.rise, late.fall, late.u)
    late_du = steep * (shrink * dtime - by_rise * drise - by_fall * dfall) / (1 + constant * shrink)
    late_angle = jnp.where(above, angle, 0)
    late_ds = (late_du - bounded_exp(late_angle) * drise + jnp.exp(-late_angle) * dfall) / steep
    return jnp.where(above, late_ds, early_ds), jnp.where(above, late_du, early_du)


def _sharper(constant: float, late: Late, left: Real) -> Real:
    """The factor that corrects e^-u for the rounding of u, from the time above the cut, which has all its digits."""
    late, left = jax.lax.stop_gradient((late, left))
    known = left * jnp.exp(-late.u)
    ratio = tail(constant, 1, late.rise, late.fall, late.begin, late.u) / jnp.where(known > 0, known, 1)
    # Next to the cut, where the time above it is short, u itself is more accurate.
    return jnp.where(late.above & (late.u > late.begin + 3) & (jnp.abs(ratio - 1) < 0.01), ratio, 1)


def rounding(constant: float, rise: Real, fall: Real, time: Real, u: Real) -> Real:
    """e^(u - v), v the exact logit at `time`: 1 up to rounding; late in float32 the factor restores a digit of e^-u."""
    late = Late.of(rise, fall, u)
    before = _before(constant, late, moments(0, late.rise, late.fall, late.angle)[0])
    return _sharper(constant, late, jnp.where(late.above, time, 0) - before)


def _before(constant: float, late: Late, plain: Real) -> Real:
    """The time up to the cut."""
    return constant * late.angle + jnp.where(late.above, plain, 0)


def arrival_slopes(constant: float, rise: Real, fall: Real, angle: Real, u: Real) -> tuple[Real, Real, Real, Real]:
    """e^-top times the derivatives of the time to the logit u in (rise, fall, u), and top = max(u, 0)."""
    late = Late.of(rise, fall, u)
    above = late.above
    low, _, high = moments(1, rise, fall, jnp.where(above, late.angle, angle))
    early_u, early_angle = jnp.where(above, 0, u), jnp.where(above, 0, angle)
    steep = steepness(rise, fall, early_u)
    here = (constant + jnp.exp(early_u)) / jnp.where(steep > 0, steep, 1)
    early_rise = jnp.where(above, 0, high) - here * bounded_exp(early_angle)
    early_fall = -jnp.where(above, 0, low) + here * jnp.exp(-early_angle)
    down = jnp.exp(-jnp.maximum(early_u, 0))
    shrink = jnp.exp(-late.u)
    by_rise, by_fall = late.slopes(constant, jnp.where(above, low, 0), jnp.where(above, high, 0), shrink)
    by_u = (constant * shrink + 1) / steepness(late.rise, late.fall, late.u)
    top = jnp.maximum(u, 0)
    return (
        jnp.where(above, by_rise, early_rise * down),
        jnp.where(above, by_fall, early_fall * down),
        jnp.where(above, by_u, here * down),
        top,
    )
