"""The exponential integral Ei on the real line, plain and scaled by e^-x so that it never overflows.

Ei(x) = principal value of the integral of e^s / s over s from -infinity to x. Region map:

| region                | method                                                                         |
|-----------------------|--------------------------------------------------------------------------------|
| x < -1                | continued fraction of E1(-x), 120 levels from the bottom                       |
| -1 <= x <= 40         | gamma + log|x| + sum x^k / (k k!)                                              |
| 0.25 < x < 0.5        | integral of e^s / s from the zero of Ei at 0.3725, where the sum above cancels |
| x > 40                | e^x / x sum k! / x^k, whose smallest term is below e^-40                       |
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, real_arrays

Same = Float[Array, "*shape"]

# The zero of Ei in two words, so that x - zero is accurate however close x is to it.
_ZERO_HI_64, _ZERO_LO_64 = 0.3725074107813666, 1.3140183414386028e-17
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def expi(x) -> Float[Array, "..."]:
    """Ei(x) for real x, any shape, float32 or float64; -inf at 0, inf where the value exceeds the dtype.

    Relative error below 1e-13 (float64) and 1e-5 (float32), also next to the zero of Ei at 0.3725. Derivative e^x / x.
    `ValueError` for NaN, infinite and subnormal x (inside jit subnormal numbers count as 0).

    >>> round(float(expi(1.0)), 5)
    1.89512
    """
    (x,) = real_arrays(x=x)
    check_normal("x", x)
    return jax.jit(_expi)(x)


def expi_scaled(x) -> Float[Array, "..."]:
    """e^-x Ei(x) for real x, any shape, float32 or float64: ~ 1/x for large |x|, no overflow; -inf at 0.

    Derivative 1/x - e^-x Ei(x).

    >>> round(float(expi_scaled(1000.0)) * 1000, 4)
    1.001
    """
    (x,) = real_arrays(x=x)
    check_normal("x", x)
    return jax.jit(_expi_scaled)(x)


@jax.custom_jvp
def _expi(x: Same) -> Same:
    # e^x is formed in two halves, because e^x overflows before Ei(x) ~ e^x / x does.
    half = jnp.exp(x / 2)
    return jnp.where(jnp.abs(x) < 40, _unscaled(x), (_expi_scaled(x) * half) * half)


@_expi.defjvp
def _expi_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    half = jnp.exp(x / 2)  # e^x may overflow where e^x / x does not
    return _expi(x), half / x * half * dx


@jax.custom_jvp
def _expi_scaled(x: Same) -> Same:
    large = jnp.where(x > 40, x, 40.0)

    def body(k, carry):
        total, term = carry
        term = term * k / large
        return total + term, term

    total, _ = jax.lax.fori_loop(1, 40, body, (jnp.ones_like(x), jnp.ones_like(x)))
    middle = jnp.clip(x, -1, 40)
    return jnp.where(
        x > 40, total / large, jnp.where(x < -1, -_fraction(x), _unscaled(middle) * jnp.exp(-middle))
    )


@_expi_scaled.defjvp
def _expi_scaled_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    value = _expi_scaled(x)
    return value, (1 / x - value) * dx


def _fraction(x: Same) -> Same:
    """e^-x E1(-x) for x < -1: the fraction 1/(y+1-1/(y+3-4/(y+5-...))) with y = -x."""
    y = jnp.maximum(-x, 1)

    def body(i, value):
        k = (120 - i).astype(y.dtype)
        return k * k / (y + 2 * k + 1 - value)

    return 1 / (y + 1 - jax.lax.fori_loop(0, 120, body, jnp.zeros_like(y)))


def _unscaled(x: Same) -> Same:
    """Ei(x) for |x| <= 40."""
    middle = jnp.clip(x, -1, 40)

    def body(k, carry):
        total, power = carry
        power = power * middle / k
        return total + power / k, power

    series, _ = jax.lax.fori_loop(1, 170, body, (jnp.zeros_like(x), jnp.ones_like(x)))
    value = np.euler_gamma + jnp.log(jnp.abs(middle)) + series
    if x.dtype == jnp.float64:
        hi, lo = _ZERO_HI_64, _ZERO_LO_64
    else:
        hi = float(np.float32(_ZERO_HI_64))
        lo = _ZERO_HI_64 - hi
    # The barrier keeps XLA from folding hi + lo into one float.
    offset = jax.lax.optimization_barrier(x - jnp.asarray(hi, x.dtype)) - jnp.asarray(lo, x.dtype)
    near = (x > 0.25) & (x < 0.5)
    offset = jnp.where(near, offset, 0)
    s = hi + offset[..., None] * jnp.asarray((1 + _NODES) / 2, x.dtype)
    from_zero = offset * jnp.sum(jnp.asarray(_WEIGHTS / 2, x.dtype) * jnp.exp(s) / s, axis=-1)
    value = jnp.where(near, from_zero, value)
    far = jnp.clip(x, -40, -1)
    return jnp.where(x < -1, -_fraction(far) * jnp.exp(far), value)


# The integral of e^u over the angle s, for the cross-entropy and exponential clocks, and the maps between s and u.
#
# With u(s) = rise e^s - fall e^-s, S = du/ds = rise e^s + fall e^-s = sqrt(kappa^2 + u^2). The integral is scaled by
# e^-u(end), so that it does not overflow. Region map in u (the regions are summed):
#
# | region   | method                                                                                             |
# |----------|----------------------------------------------------------------------------------------------------|
# | |u| <= 1 | kappa <= 4: e^u = sum u^n/n!, and the moments of u^n by recurrence (no quadrature near u = ±i kappa); |
# |          | kappa > 4: Gauss-Legendre in u                                                                    |
# | |u| > 1  | Gauss-Legendre in u on panels that widen away from the upper end, down to 45 below it (e^-45 < eps) |

Real = Float[Array, "..."]

NODES, WEIGHTS = np.polynomial.legendre.leggauss(20)
# Distances of the panel edges below the upper end. Each panel is short compared with its distance to the singular points
# ±i kappa unless e^u makes the panel's share negligible; the worst error over all (u, kappa) is about 1e-14.
EDGES = (0.0, 2.0, 5.5, 12.0, 24.0, 45.0)
TERMS = 20  # 1/20! < 1e-18


def steepness(rise: Real, fall: Real, u: Real) -> Real:
    """S = sqrt(kappa^2 + u^2), without squares that underflow. Smooth in rise and fall at 0, where kappa is not.

    There is no custom derivative rule: partial evaluation of a scan drops the rules of the functions inside, and the
    automatic derivatives of these lines are right. The unit cancels from S, so it is a constant in them.
    """
    still_rise, still_fall, still_u = lax.stop_gradient((rise, fall, u))
    unit = jnp.maximum(2 * jnp.sqrt(still_rise) * jnp.sqrt(still_fall), jnp.abs(still_u))
    unit = jnp.where(unit > 0, unit, 1)
    # The smaller half over the unit is at most 1/2, and so the products below stay in the range of the floats.
    less = rise <= fall
    small, large = jnp.where(less, rise, fall), jnp.where(less, fall, rise)
    square = (2 * small / unit) * (2 * large) / unit + (u / unit) ** 2
    there = square > 0
    return jnp.where(there, unit * jnp.sqrt(jnp.where(there, square, 1)), 0)


def bounded_exp(angle: Real) -> Real:
    """e^s, limited to a finite float: with rise = 0 the angle grows without limit, and inf times rise would be NaN."""
    return jnp.exp(jnp.minimum(angle, np.log(np.finfo(angle.dtype).max) - 8))


@jax.custom_jvp
def logit_at(rise: Real, fall: Real, angle: Real) -> Real:
    """u = rise e^s - fall e^-s; 0 where rise = 0 meets s = inf."""
    none = rise == 0
    grown = rise * jnp.where(none, bounded_exp(angle), jnp.exp(jnp.where(none, 0, angle)))
    return grown - fall * jnp.exp(-angle)


@logit_at.defjvp
def _logit_at_jvp(primals, tangents):
    (rise, fall, angle), (drise, dfall, dangle) = primals, tangents
    grow, decay = bounded_exp(angle), jnp.exp(-angle)
    return logit_at(rise, fall, angle), grow * (drise + rise * dangle) - decay * (dfall - fall * dangle)


@jax.custom_jvp
def angle_at(rise: Real, fall: Real, u: Real) -> Real:
    """The s at which the logit is u: log((u + S)/(2 rise)), or log(2 fall/(S - u)) for u < 0. inf if never reached."""
    steep = steepness(rise, fall, u)
    up = u >= 0
    larger = (jnp.abs(u) + steep) / 2
    above, below = jnp.where(up, larger, fall), jnp.where(up, rise, larger)
    # An angle that is never reached is infinite, and a constant for every derivative of these lines.
    there = (above > 0) & (below > 0)
    never = lax.stop_gradient(jnp.log(above) - jnp.log(below))
    # Two logarithms instead of the logarithm of the quotient, which may overflow.
    return jnp.where(there, jnp.log(jnp.where(there, above, 1)) - jnp.log(jnp.where(there, below, 1)), never)


@angle_at.defjvp
def _angle_at_jvp(primals, tangents):
    (rise, fall, u), (drise, dfall, du) = primals, tangents
    angle, steep = angle_at(rise, fall, u), steepness(rise, fall, u)
    # An infinite angle, never reached, has no derivative; 0 keeps NaN out of the other branch of a later `where`.
    there = jnp.isfinite(angle) & (steep > 0)
    at = jnp.where(there, angle, 0)
    return angle, jnp.where(there, (du - bounded_exp(at) * drise + jnp.exp(-at) * dfall) / jnp.where(there, steep, 1), 0)


def plain(rise: Real, fall: Real, angle: Real) -> tuple[Real, Real]:
    """(e^-scale integral_0^angle e^u ds, scale) over all regions of u; scale = max(u(angle), u(0), 0)."""
    start, end = rise - fall, logit_at(rise, fall, angle)
    scale = jnp.maximum(jnp.maximum(end, start), 0)
    kappa2, lazy = 4 * rise * fall, is_lazy(rise, fall)

    def lowest(_):
        """The part of the integral with u < -1, and the angle at which that region ends."""
        u0, u1 = jnp.minimum(start, -1), jnp.minimum(end, -1)
        crossed = (u1 > u0) & ~lazy
        share = jnp.where(crossed, below(rise, fall, jnp.where(crossed, u0, u1), u1) * jnp.exp(u1 - scale), 0)
        left = (start < -1) & (end > -1) & ~lazy
        return share, jnp.where(left, angle_at(rise, fall, jnp.full_like(start, -1)), 0)

    nothing = jnp.zeros_like(angle)
    low, s0 = lax.cond(jnp.any(start < -1), lowest, lambda _: (nothing, nothing), 0)
    # |u| <= 1, except for large kappa, where the quadrature below covers the whole range from the start.
    u0, u1 = jnp.clip(start, -1, 1), jnp.clip(end, -1, 1)
    # Without rise and fall the logit stays at 0 while the angle grows.
    crossed = ((u1 > u0) | is_still(rise, fall)) & ~lazy
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
    lazy = is_lazy(rise, fall)
    series = _middle_sum(rise, fall, s0, u0, s1, u1)
    return jnp.where(lazy, _sweep(rise, fall, jnp.where(lazy, u0, u1), u1), series)


def piece(rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real) -> Real:
    """e^-u1 times the integral of e^u ds between two points of one region."""
    inside = (u0 >= -1) & (u0 < 1)
    top = jnp.maximum(jnp.where(inside, jnp.clip(u1, -1, 1), u1), u0)
    panels = _sweep(rise, fall, u0, top)
    series = _middle_sum(rise, fall, s0, jnp.clip(u0, -1, 1), s1, jnp.clip(top, -1, 1))
    return jnp.where(inside & ~is_lazy(rise, fall), series, panels)


def _sweep(rise: Real, fall: Real, u0: Real, u1: Real) -> Real:
    """e^-u1 integral_{u0}^{u1} e^v / S dv by 12-point Gauss-Legendre on panels below u1, as many as u0 needs.

    Error 1e-13 where |v| >= 1 or kappa > 4. 0 where u0 = u1.
    """
    kappa2 = 4 * rise * fall
    edges = jnp.asarray(EDGES, u1.dtype)
    nodes = [part.tolist() for part in np.polynomial.legendre.leggauss(12)]

    def panel(nearer, further):
        high, low = jnp.maximum(u1 - nearer, u0), jnp.maximum(u1 - further, u0)
        half, centre, total = (high - low) / 2, (high + low) / 2, 0
        for node, weight in zip(*nodes, strict=True):
            v = centre + half * node
            total = total + weight * jnp.exp(v - u1) / jnp.sqrt(kappa2 + v * v)
        return jnp.where(half > 0, half * total, 0)

    def cond(carry):
        return (carry[0] < len(EDGES) - 1) & jnp.any(u1 - edges[carry[0]] > u0)

    def body(carry):
        k, total = carry
        return k + 1, total + panel(edges[k], edges[k + 1])

    return lax.while_loop(cond, body, (2, panel(EDGES[0], EDGES[1]) + panel(EDGES[1], EDGES[2])))[1]


def is_lazy(rise, fall):
    """Whether kappa > 4: the integrand e^u / S is then smooth on the scale of a panel, also near u = 0."""
    return 4 * rise * fall > 16


def is_still(rise, fall):
    """Whether rise = fall = 0 in floats: the logit is then 0 at every angle."""
    return (rise == 0) & (fall == 0)


def _middle_sum(rise: Real, fall: Real, s0: Real, u0: Real, s1: Real, u1: Real) -> Real:
    """e^-u1 sum_n J_n / n! with J_n = integral u^n ds, by n J_n = [u^(n-1) S] - (n-1) kappa^2 J_(n-2)."""
    kappa2 = 4 * rise * fall
    power0, power1 = steepness(rise, fall, u0), steepness(rise, fall, u1)  # u^(n-1) S
    before, now = s1 - s0, power1 - power0  # J_0, J_1
    total = before + now
    for n in range(2, TERMS):
        power0, power1 = power0 * u0, power1 * u1
        before, now = now, (power1 - power0) * (1 / n) - before * kappa2 * ((n - 1) / n)
        total = total + now * (1 / math.factorial(n))
    return total * jnp.exp(-u1)
