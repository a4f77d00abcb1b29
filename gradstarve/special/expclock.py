"""The integrals behind the cross-entropy and exponential clocks: of e^u, and of e^u e^s and e^u e^-s, over the angle.

With u(s) = rise e^s - fall e^-s, S = du/ds = rise e^s + fall e^-s = sqrt(kappa^2 + u^2). All are scaled by e^-u(end), so
that none overflows. Region map in u (the regions are summed):

| region   | method                                                                                             |
|----------|----------------------------------------------------------------------------------------------------|
| |u| <= 1 | kappa <= 4: e^u = sum u^n/n!, and the moments of u^n by recurrence (no quadrature near u = ±i kappa); |
|          | kappa > 4: Gauss-Legendre in u                                                                    |
| |u| > 1  | Gauss-Legendre in u on panels that widen away from the upper end, down to 45 below it (e^-45 < eps) |
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

Real = Float[Array, "..."]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
# Distances of the panel edges below the upper end. Each panel is short against its distance to the singular points
# ±i kappa wherever e^u has not yet made its share negligible; the worst error over all (u, kappa) is about 1e-14.
_EDGES = (0.0, 2.0, 5.5, 12.0, 24.0, 45.0)
_TERMS = 20  # 1/20! < 1e-18


class Integrals(NamedTuple):
    """e^-scale times the integrals of e^u (`plain`), e^u e^s (`grow`) and e^u e^-s (`decay`) over 0..s."""

    plain: Real
    grow: Real
    decay: Real
    scale: Real


def steepness(rise: Real, fall: Real, u: Real) -> Real:
    """S = sqrt(kappa^2 + u^2), without squaring what is small."""
    return jnp.hypot(2 * jnp.sqrt(rise) * jnp.sqrt(fall), u)


def bounded_exp(angle: Real) -> Real:
    """e^s held to a float: with rise = 0 the angle grows without limit, and inf times that 0 would be NaN."""
    return jnp.exp(jnp.minimum(angle, np.log(np.finfo(angle.dtype).max) - 8))


def logit_at(rise: Real, fall: Real, angle: Real) -> Real:
    """u = rise e^s - fall e^-s; 0 where rise = 0 meets s = inf."""
    grown = jnp.where(rise == 0, 0, rise * jnp.exp(jnp.where(rise == 0, 0, angle)))
    return grown - fall * jnp.exp(-angle)


def angle_at(rise: Real, fall: Real, u: Real) -> Real:
    """The s at which the logit is u: log((u + S)/(2 rise)), or log(2 fall/(S - u)) for u < 0. inf if never reached."""
    steep = steepness(rise, fall, u)
    up = u >= 0
    larger = (jnp.abs(u) + steep) / 2
    # Two logarithms and not that of the quotient, which may be no float.
    return jnp.log(jnp.where(up, larger, fall)) - jnp.log(jnp.where(up, rise, larger))


def integrals(rise: Real, fall: Real, angle: Real) -> Integrals:
    """The three integrals over the angles 0..`angle`, whatever regions that crosses; scale = max(u(angle), u(0), 0)."""
    start, end = rise - fall, logit_at(rise, fall, angle)
    scale = jnp.maximum(jnp.maximum(end, start), 0)
    plain = grow = decay = jnp.zeros_like(angle)
    for low, high in ((-jnp.inf, -1.0), (-1.0, 1.0), (1.0, jnp.inf)):
        u0, u1 = jnp.clip(start, low, high), jnp.clip(end, low, high)
        crossed = u1 > u0
        # Where the cut is an end of the stretch itself its angle is known; recomputing it would only add rounding.
        s0 = jnp.where(u0 == start, 0, angle_at(rise, fall, u0))
        s1 = jnp.where(u1 == end, angle, angle_at(rise, fall, u1))
        s0, s1 = jnp.where(crossed, s0, 0), jnp.where(crossed, s1, 0)
        if high == 1.0 and low == -1.0:
            parts = _middle(rise, fall, s0, u0, s1, u1)
        else:
            parts = _panels(rise, fall, u0, u1)
        shrink = jnp.exp(jnp.where(crossed, u1, 0) - scale)
        here = [jnp.where(crossed, part * shrink, 0) for part in parts]
        plain, grow, decay = plain + here[0], grow + here[1], decay + here[2]
    return Integrals(plain, grow, decay, scale)


def plain(rise: Real, fall: Real, angle: Real) -> tuple[Real, Real]:
    """(`plain`, `scale`) of `integrals`, at a fraction of the price: what nothing here needs is left out."""
    start, end = rise - fall, logit_at(rise, fall, angle)
    scale = jnp.maximum(jnp.maximum(end, start), 0)
    kappa2, lazy = 4 * rise * fall, _is_lazy(rise, fall)

    def lowest(_):
        """The share of u < -1, and the angle at which that ends."""
        u0, u1 = jnp.minimum(start, -1), jnp.minimum(end, -1)
        crossed = (u1 > u0) & ~lazy
        share = jnp.where(crossed, below(rise, fall, jnp.where(crossed, u0, u1), u1) * jnp.exp(u1 - scale), 0)
        left = (start < -1) & (end > -1) & ~lazy
        return share, jnp.where(left, angle_at(rise, fall, jnp.full_like(start, -1)), 0)

    nothing = jnp.zeros_like(angle)
    low, s0 = lax.cond(jnp.any(start < -1), lowest, lambda _: (nothing, nothing), 0)
    # |u| <= 1, but for large kappa: there quadrature goes on down to the start.
    u0, u1 = jnp.clip(start, -1, 1), jnp.clip(end, -1, 1)
    crossed = (u1 > u0) & ~lazy
    above_one = jnp.log((1 + jnp.sqrt(1 + kappa2)) / 2) - jnp.log(rise)
    s1 = jnp.where(crossed, jnp.where(u1 == end, angle, above_one), s0)
    inside = _middle_sum(rise, fall, s0, u0, s1, u1) * jnp.exp(u1 - scale)
    bottom = jnp.where(lazy, start, jnp.maximum(start, 1))
    top = jnp.maximum(end, bottom)
    high = jnp.where(top > bottom, _sweep(rise, fall, bottom, top) * jnp.exp(top - scale), 0)
    return low + jnp.where(crossed, inside, 0) + high, scale


def below(rise: Real, fall: Real, u0: Real, u1: Real) -> Real:
    """`piece` in the region u <= -1."""
    return _sweep(rise, fall, u0, u1)


def middle(rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real) -> Real:
    """`piece` in the region |u| <= 1."""
    lazy = _is_lazy(rise, fall)
    series = _middle_sum(rise, fall, s0, u0, s1, u1)
    return jnp.where(lazy, _sweep(rise, fall, jnp.where(lazy, u0, u1), u1), series)


def piece(rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real) -> Real:
    """e^-u1 times the integral of e^u ds between two points of one region."""
    inside = (u0 >= -1) & (u0 < 1)
    top = jnp.maximum(jnp.where(inside, jnp.clip(u1, -1, 1), u1), u0)
    panels = _sweep(rise, fall, u0, top)
    series = _middle_sum(rise, fall, s0, jnp.clip(u0, -1, 1), s1, jnp.clip(top, -1, 1))
    return jnp.where(inside & ~_is_lazy(rise, fall), series, panels)


def _sweep(rise: Real, fall: Real, u0: Real, u1: Real) -> Real:
    """e^-u1 integral_{u0}^{u1} e^v / S dv by 12-point Gauss-Legendre on panels below u1, as many as are needed here.

    Error 1e-13 where |v| >= 1 or kappa > 4. 0 where u0 = u1.
    """
    kappa2 = 4 * rise * fall
    edges = jnp.asarray(_EDGES, u1.dtype)
    nodes = [part.tolist() for part in np.polynomial.legendre.leggauss(12)]

    def panel(nearer, further):
        high, low = jnp.maximum(u1 - nearer, u0), jnp.maximum(u1 - further, u0)
        half, centre, total = (high - low) / 2, (high + low) / 2, 0
        for node, weight in zip(*nodes, strict=True):
            v = centre + half * node
            total = total + weight * jnp.exp(v - u1) / jnp.sqrt(kappa2 + v * v)
        return jnp.where(half > 0, half * total, 0)

    def cond(carry):
        return (carry[0] < len(_EDGES) - 1) & jnp.any(u1 - edges[carry[0]] > u0)

    def body(carry):
        k, total = carry
        return k + 1, total + panel(edges[k], edges[k + 1])

    return lax.while_loop(cond, body, (2, panel(_EDGES[0], _EDGES[1]) + panel(_EDGES[1], _EDGES[2])))[1]


def _panels(rise, fall, u0, u1, edges=_EDGES):
    """The three integrals by Gauss-Legendre in v = u on panels below u1; an overestimate of the region is cut at u0."""
    dtype = u1.dtype
    edges = u1[..., None] - jnp.asarray(edges, dtype)
    edges = jnp.maximum(edges, u0[..., None])
    half = (edges[..., :-1] - edges[..., 1:]) / 2
    centre = (edges[..., :-1] + edges[..., 1:]) / 2
    v = centre[..., None] + half[..., None] * jnp.asarray(_NODES, dtype)
    rise, fall = rise[..., None, None], fall[..., None, None]
    steep = steepness(rise, fall, v)
    mass = half[..., None] * jnp.asarray(_WEIGHTS, dtype) * jnp.exp(v - u1[..., None, None])
    mass = jnp.where(half[..., None] > 0, mass / jnp.where(steep > 0, steep, 1), 0)
    # e^s = (S + v)/(2 rise) = 2 fall/(S - v): the quotient without cancellation, by the sign of v.
    larger = (steep + jnp.abs(v)) / 2
    safe = jnp.where(larger > 0, larger, 1)
    grow = jnp.where(v >= 0, larger / jnp.where(rise > 0, rise, 1), fall / safe)
    decay = jnp.where(v >= 0, rise / safe, larger / jnp.where(fall > 0, fall, 1))
    return tuple(jnp.sum(part, axis=(-2, -1)) for part in (mass, mass * grow, mass * decay))


def _is_lazy(rise, fall):
    """kappa > 4: the integrand is smooth on the scale of a panel, where it is not for a small kappa."""
    return 4 * rise * fall > 16


def _middle(rise, fall, s0, u0, s1, u1):
    """The region |u| <= 1, scaled by e^-u1. It is no wider than the first panel, so quadrature is one panel there."""
    series = _middle_series(rise, fall, s0, u0, s1, u1)
    panel = _panels(rise, fall, u0, u1, _EDGES[:2])
    return tuple(jnp.where(_is_lazy(rise, fall), g, s) for g, s in zip(panel, series, strict=True))


def _middle_sum(rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real) -> Real:
    """e^-u1 sum_n J_n / n! with J_n = integral u^n ds, by n J_n = [u^(n-1) S] - (n-1) kappa^2 J_(n-2)."""
    kappa2 = 4 * rise * fall
    power0, power1 = steepness(rise, fall, u0), steepness(rise, fall, u1)  # u^(n-1) S
    before, now = s1 - s0, power1 - power0  # J_0, J_1
    total = before + now
    for n in range(2, _TERMS):
        power0, power1 = power0 * u0, power1 * u1
        before, now = now, (power1 - power0) * (1 / n) - before * kappa2 * ((n - 1) / n)
        total = total + now * (1 / math.factorial(n))
    return total * jnp.exp(-u1)


def _middle_series(rise, fall, s0, u0, s1, u1):
    """`_middle_sum`, and likewise by (n+1) int u^n e^s = [u^n e^s] - 2 fall n J_(n-1) and
    (n+1) int u^n e^-s = 2 rise n J_(n-1) - [u^n e^-s]."""
    kappa2 = 4 * rise * fall
    steep0, steep1 = steepness(rise, fall, u0), steepness(rise, fall, u1)
    before, now = s1 - s0, steep1 - steep0  # J_0, J_1
    plain = before + now
    power0, power1 = u0, u1  # u^(n-1) at n = 2
    up0, up1, down0, down1 = bounded_exp(s0), bounded_exp(s1), jnp.exp(-s0), jnp.exp(-s1)
    grow = up1 - up0 + (u1 * up1 - u0 * up0 - 2 * fall * before) / 2
    decay = down0 - down1 + (2 * rise * before - (u1 * down1 - u0 * down0)) / 2

    # A loop and not _TERMS copies of its body: this is most of what compiling a clock costs.
    def body(n, carry):
        before, now, power0, power1, over_factorial, plain, grow, decay = carry
        n = n.astype(u1.dtype)
        over_factorial = over_factorial / n
        following = (power1 * steep1 - power0 * steep0 - (n - 1) * kappa2 * before) / n
        plain = plain + following * over_factorial
        power0, power1 = power0 * u0, power1 * u1
        share = over_factorial / (n + 1)
        grow = grow + (power1 * up1 - power0 * up0 - 2 * n * fall * now) * share
        decay = decay + (2 * n * rise * now - (power1 * down1 - power0 * down0)) * share
        return now, following, power0, power1, over_factorial, plain, grow, decay

    start = (before, now, power0, power1, jnp.ones((), u1.dtype), plain, grow, decay)
    plain, grow, decay = lax.fori_loop(2, _TERMS, body, start, unroll=6)[5:]
    shrink = jnp.exp(-u1)
    return plain * shrink, grow * shrink, decay * shrink
