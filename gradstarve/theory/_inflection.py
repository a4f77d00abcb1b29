"""Inflections of the learning curve, the error sigmoid(-u), and the plateau before them (5.1)-(5.3).

Along the clock (3.4) the error falls at the rate sigmoid'(u) 2 p r g(u) S with S^2 = kappa^2 + u^2, so e'' = 0 where the
logarithmic derivative of that vanishes,

    1 - 2 sigmoid(u) + g'(u)/g(u) + u/(kappa^2 + u^2) = 0,      cross-entropy: 1 - 3 sigmoid(u) + u/(kappa^2 + u^2) = 0.

Solved for kappa it is explicit: kappa^2 = K(u) = u/slope(u) - u^2 with slope = 2 sigmoid(u) - 1 - g'(u)/g(u). For u > 0 K
rises from 0 to one maximum kappa_c^2 and falls to 0 at the inflection of the balanced curve: two inflections below
kappa_c, none above. (Hinge differs: its K falls all the way, and by symmetry u = 0 is an inflection for every kappa > 0.)
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradstarve.ground import (
    HypothesisError,
    check_normal,
    check_positive,
    deprecated,
    is_concrete,
    quick_jit,
    real_arrays,
    together,
)
from gradstarve.problem import Loss, with_closed_form
from gradstarve.special import invert
from gradstarve.theory._piecewise import PiecewiseClock, in_time

# A u < 0 at which K is below 0: the far end of the branch u < 0.
_FAR_BELOW = -3.0


def _far_above(loss: Loss) -> float:
    """A u > 0 at which K is below 0: the far end of the branches above 0."""
    return 1.0 + (loss.offset or 0.0)


def _slope(loss: Loss, u, xp=jnp):
    """2 sigmoid(u) - 1 - g'(u)/g(u)."""
    if loss.offset == 1:
        return 3 / (1 + xp.exp(-u)) - 1
    if loss.offset == 0:
        return 2 / (1 + xp.exp(-u))
    return xp.tanh(u / 2) + (0 if loss.stops else 1 / (1 - u))


def _level(loss: Loss, u, xp=jnp):
    """K(u), the kappa^2 at which u is an inflection."""
    if loss.stops:
        ratio = xp.where(u == 0, 2, u / xp.where(u == 0, 1, _slope(loss, u, xp)))
        return ratio - u * u
    return u / _slope(loss, u, xp) - u * u


@cache
def _top(loss: Loss) -> tuple[float, float]:
    """(u, kappa_c) at the maximum of K over u > 0, in float64: where K' changes sign."""

    def rise(u: float) -> float:
        # K' = (slope - u slope')/slope^2 - 2 u, slope' written out as sigmoid' = sigmoid (1 - sigmoid).
        s = 1 / (1 + np.exp(-u))
        bend = (2 + (loss.offset or 0)) * s * (1 - s)
        bend += 1 / (1 - u) ** 2 if loss.offset is None else 0
        slope = _slope(loss, u, np)
        return float((slope - u * bend) / slope**2 - 2 * u)

    peak = _zero(rise, 0.0, 0.99 * _far_above(loss))
    return peak, float(np.sqrt(_level(loss, np.float64(peak), np)))


def _zero(function, low: float, high: float) -> float:
    """The point at which a function changes its sign, to the last digits of float64."""
    from scipy.optimize import brentq  # imported on demand: rarely needed, and slow to import

    found: Any = brentq(function, low, high, xtol=1e-300, rtol=4 * np.finfo(np.float64).eps)
    return float(found)


def kappa_critical(loss: Loss | str = "cross-entropy") -> float:
    """kappa_c: the error of one mode is convex from u = 0 on above it, and has two inflections below it (5.2).

    The transition from rich (a plateau, then a sigmoid) to lazy. Computed to the last digits of float64, not stored.
    `HypothesisError` for hinge, whose curves are cut off at u = 1 and have no such transition.

    >>> round(kappa_critical(), 10)
    0.5852119534
    """
    loss = with_closed_form(loss)
    if loss.stops:
        raise HypothesisError(
            "the pair of inflections that meets at kappa_c belongs to losses that do not stop at a margin (5.2)",
            f"loss = {loss.name!r}",
            "error_inflections(kappa, loss), which gives what inflections there are",
        )
    return _top(loss)[1]


@deprecated("loss", "kappa")
def error_inflections(kappa, loss: Loss | str = "cross-entropy") -> Float[Array, "*batch 2"]:
    """The logits u >= 0 of the inflections of one mode's error, in rising order, inf for missing ones (5.1), (5.2).

    `kappa` >= 0 of any shape, float32 or float64; the result has two entries for each. Cross-entropy, exponential and
    squared loss (u < 1): for kappa = 0 one, up to which the curve is concave; for 0 < kappa < kappa_c two, between which it
    is concave; none beyond, where it is convex. Hinge (u < 1): u = 0 for every kappa > 0, and one more for kappa^2 between
    coth(1/2) - 1 and 2, concave in between. (Starts below u = 0 may meet one more: `ModeSolution.inflections` has those.)
    Relative error a few ulp, except next to kappa_c, where two roots merge. Differentiable in kappa. `ValueError` for a
    kappa that is negative or not finite.

    >>> [round(float(u), 3) for u in error_inflections(0.0)]
    [0.888, inf]
    """
    loss = with_closed_form(loss)
    (kappa,) = real_arrays(kappa=kappa)
    check_normal("kappa", kappa)
    if is_concrete(kappa) and (np.asarray(kappa) < 0).any():
        raise ValueError(f"kappa must be >= 0, got {np.asarray(kappa).min()}")
    found = _inflections(loss, kappa * kappa, kappa > 0)[..., 1:]
    # In rising order; for the balanced curve, whose lower one is 0, it is left out.
    return jnp.sort(found, axis=-1)


@quick_jit(few=0, static_argnums=0)
def _inflections(loss: Loss, level: Float[Array, "*batch"], curved: Bool[Array, "*batch"]) -> Float[Array, "*batch 3"]:
    """(the inflection below 0, the lower and the upper one above 0) at kappa^2 = `level`; inf for a missing one.

    `curved`: whether kappa > 0, because its square may underflow.
    """
    never = jnp.full_like(level, jnp.inf)

    def solved(exists, far, near):
        return jnp.where(exists, _root(loss, far, near, jnp.where(exists, level, 0.5)), never)

    if loss.stops:
        below = level < 2
        upper = solved(below & (level > float(_level(loss, np.float64(1), np))), 1.0, 0.0)
        lower = jnp.where(curved, 0, never)
        return jnp.stack([solved(below, _FAR_BELOW, 0.0), lower, upper], axis=-1)
    peak, critical = _top(loss)
    two = level < critical**2
    lower, upper = solved(two & curved, 0.0, peak), solved(two, _far_above(loss), peak)
    below = never if loss.offset == 0 else solved(level >= 0, _FAR_BELOW, _pole(loss))
    return jnp.stack([below, lower, upper], axis=-1)


@cache
def _pole(loss: Loss) -> float:
    """The u < 0 at which the slope vanishes, a little below it: K falls from inf there to 0 further down."""
    u = _zero(lambda u: float(_slope(loss, u, np)), _FAR_BELOW, 0.0)
    while _slope(loss, u, np) >= 0:
        u = float(np.nextafter(u, -np.inf))
    return u


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def _root(loss: Loss, far: float, near: float, level: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """The u between `far`, where K is below `level`, and `near`, where it is above."""
    sign = 1.0 if near > far else -1.0  # K rises in sign u

    def height(x, _):
        value, rise = jax.jvp(partial(_level, loss), (sign * x,), (jnp.ones_like(x),))
        return value, sign * rise

    low, high = (jnp.full_like(level, sign * end) for end in (far, near))
    return sign * invert(height, (), low, high, (low + high) / 2, level)


@_root.defjvp
def _root_jvp(loss, far, near, primals, tangents):
    (level,), (dlevel,) = primals, tangents
    u = _root(loss, far, near, level)
    rise = jax.jvp(partial(_level, loss), (u,), (jnp.ones_like(u),))[1]
    return u, dlevel / rise


def clock_inflections(pieces: PiecewiseClock) -> Float[Array, "*batch count"]:
    """The times of the inflections of a class's error, rising, inf for missing ones: three for each piece.

    `HypothesisError` for the clock of a loss without a closed form.
    """
    with_closed_form(pieces.law.loss)
    return _clock_inflections(pieces)


@quick_jit(eqx.filter_jit, few=0)
def _clock_inflections(pieces: PiecewiseClock) -> Float[Array, "*batch count"]:
    # From kappa^2, which is smooth in rise and fall at 0.
    curved = (pieces.rise > 0) & (pieces.fall > 0)
    u = _inflections(pieces.law.loss, 4 * pieces.rise * pieces.fall, curved)  # [*batch, pieces, 3]
    starts = jnp.where(jnp.isfinite(pieces.start), pieces.rise - pieces.fall, jnp.inf)
    ends = jnp.concatenate([starts[..., 1:], jnp.full_like(starts[..., :1], jnp.inf)], axis=-1)
    there = (u > starts[..., None]) & (u < ends[..., None])
    rise, fall = (jnp.broadcast_to(value[..., None], u.shape) for value in (pieces.rise, pieces.fall))
    tau = pieces.law.clock.arrival_of(rise, fall, jnp.where(there, u, -jnp.inf))
    there = there & jnp.isfinite(tau)
    start = jnp.where(jnp.isfinite(pieces.start), pieces.start, 0)[..., None]
    tau = jnp.where(there, start + jnp.where(there, tau, 0), jnp.inf)
    times = in_time(tau, pieces.rate[..., None, None])
    return jnp.sort(times.reshape(*times.shape[:-2], -1), axis=-1)


@deprecated("loss", "start", "frequency", "norm")
def plateau_length(frequency, norm, start, loss: Loss | str = "cross-entropy") -> Float[Array, "..."]:
    """log(1/u0) / (2 p r g(0)), the length of the plateau of a balanced mode near error 1/2 from u0 = `start` (5.3).

    2 g(0) is 1 for cross-entropy and 2 for hinge, exponential and squared loss: hinge waits half as long. The time to
    u = 1 is longer by a constant over p r, which a small start makes negligible. Arguments broadcast; 0 < u0 < 1, p > 0,
    r > 0; unit: time = step size x step.

    >>> round(float(plateau_length(0.5, 2.0, 1e-3)), 4)
    6.9078
    """
    start, frequency, norm = together(start=start, frequency=frequency, norm=norm)
    check_positive("start", start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    if is_concrete(start) and (np.asarray(start) >= 1).any():
        raise ValueError(f"start must be below 1, got {np.asarray(start).max()}: there is no plateau above")
    loss = with_closed_form(loss)
    return -jnp.log(start) / (2 * frequency * norm * loss.residual(jnp.zeros_like(start)))
