"""Weight decay in the flow: a mode is learnt only above a threshold of frequency times norm (9.1).

With decay lambda on w and z every p_j = a_j + z_j and q_j = a_j - z_j of a mode has a factor e^-lambda t:
p_j(t) = p_j e^(s - lambda t), q_j(t) = q_j e^(-s - lambda t) with one clock ds/dt = p r g(u) for all. The
q_j die out, and the mode becomes balanced from any start:

    du/dt = 2 (p r g(u) - lambda) u.

The logit grows from a small start iff p r g(0) > lambda, and settles at the u* with p r g(u*) = lambda. With T = 2 lambda t
and B = e^u*, cross-entropy and exponential loss have dT = c(v) / (B e^-v - 1) dv/v, c = 1 + e^-v and
c = 1. In a variable x in which T is a straight line at both ends, T is an integral of a smooth positive function:

| B     | start   | v                 | dT/dx                                  |
|-------|---------|-------------------|----------------------------------------|
| B > 1 | below u* | u* sigmoid(x)     | c(v) f(u* - v) / u*,  f(y) = y/(e^y - 1) |
| B > 1 | above u* | u* (1 + e^-x)     | c(v) f(u* - v) / v                     |
| B <= 1 |         | e^-x              | c(v) / (1 - B e^-v)                    |
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradstarve.ground import as_goal, check_normal, check_positive, check_together, is_concrete, quick_jit, together
from gradstarve.problem import Loss, as_loss, with_closed_form
from gradstarve.special import invert
from gradstarve.theory._piecewise import check_times

Real = Float[Array, "..."]

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(20)
_PANELS = 56
# Beyond |x| = 42 the part of T that is not linear in x is below the rounding of float64; for v below e^-37, e^-v = 1 - v.
_CORE, _SMALL = 42.0, 37.0


def decay_threshold(frequency, norm, loss: Loss | str = "cross-entropy") -> Float[Array, "..."]:
    """p r g(0), the weight decay above which a mode is not learnt from a small start (9.1): p r / 2 for cross-entropy.

    `frequency` p and `norm` r > 0 broadcast. With exponential, hinge and squared loss it is p r.

    >>> float(decay_threshold(0.1, 2.0))
    0.10000000149011612
    """
    rate = _rate(frequency, norm)
    return rate * as_loss(loss).residual(jnp.zeros_like(rate))


def settled_logit(frequency, norm, weight_decay, loss: Loss | str = "cross-entropy") -> Float[Array, "..."]:
    """The logit at which a mode settles under weight decay lambda > 0, from any start with a neuron that learns (9.1).

    For p r g(0) > lambda: log(p r / lambda - 1) for cross-entropy, log(p r / lambda) exponential, 1 hinge,
    1 - lambda / (p r) squared; 0 otherwise: the mode is forgotten. Arguments broadcast.

    >>> round(float(settled_logit(0.5, 1.0, 0.1)), 6)        # log(5 - 1)
    1.386294
    """
    rate, _, weight_decay = jnp.broadcast_arrays(*_numbers(frequency, norm, 1.0, weight_decay))
    return jnp.maximum(_settled(with_closed_form(loss), rate, weight_decay), 0)


def decayed_logit(frequency, norm, start, weight_decay, loss: Loss | str, t) -> Float[Array, "..."]:
    """u(t) of a balanced mode (a_j = z_j) under gradient flow with weight decay lambda > 0, from u(0) = `start` > 0 (9.1).

    Hinge and squared loss in closed form; cross-entropy and exponential by quadrature and its inverse. Arguments
    broadcast, float32 or float64; t is time, finite and >= 0. |du| / (u (1 + 2 |p r g(u) - lambda| t)) below 1e-11 in
    float64 for p r / lambda from 1e-6 to 1e12, starts from 1e-300 to 100 and any t. Differentiable in all. For unbalanced
    starts there is `solve_mode(mode, loss, GradientDescent(step_size, weight_decay=...))`, which is exact.

    >>> round(float(decayed_logit(0.5, 1.0, 0.01, 0.1, "cross-entropy", 100.0)), 4)     # settled at log 4
    1.3863
    """
    rate, start, weight_decay = _numbers(frequency, norm, start, weight_decay)
    t = check_times(t, rate.dtype)
    check_together(problem=rate * start * weight_decay, t=t)
    rate, start, weight_decay, t = jnp.broadcast_arrays(rate, start, weight_decay, t)
    return _logit(with_closed_form(loss), rate, start, weight_decay, t)


def decayed_time(frequency, norm, start, weight_decay, loss: Loss | str, logit) -> Float[Array, "..."]:
    """The time at which `decayed_logit` reaches `logit` on its way from `start` to the settled logit (9.1).

    0 if the logit starts at or beyond `logit`, inf if it never gets there. Arguments broadcast.

    >>> round(float(decayed_time(0.5, 1.0, 0.01, 0.1, "hinge", 1.0)), 4)                # log(100) / (2 (0.5 - 0.1))
    5.7565
    """
    rate, start, weight_decay = _numbers(frequency, norm, start, weight_decay)
    logit = as_goal("logit", logit, rate.dtype)
    check_normal("logit", logit)
    check_together(problem=rate * start * weight_decay, logit=logit)
    return _time(with_closed_form(loss), *jnp.broadcast_arrays(rate, start, weight_decay, logit))


def _rate(frequency, norm):
    frequency, norm = together(frequency=frequency, norm=norm)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    return frequency * norm


def _numbers(frequency, norm, start, weight_decay):
    """p r, u(0) and lambda, all checked to be positive."""
    names = ("frequency", "norm", "start", "weight_decay")
    arrays = together(**dict(zip(names, (frequency, norm, start, weight_decay), strict=True)))
    for name, value in zip(names, arrays, strict=True):
        check_positive(name, value)
    rate, decay = arrays[0] * arrays[1], arrays[3]
    if is_concrete(rate) and is_concrete(decay) and not np.isfinite(_divided(np.asarray(rate), np.asarray(decay))).all():
        raise ValueError(
            f"weight_decay = {np.asarray(decay).min()} is no number beside p r = {np.asarray(rate).max()}: their ratio is "
            f"beyond {rate.dtype}; leave the decay out with solve_mode(mode, loss)"
        )
    return rate, arrays[2], decay


def _divided(rate, decay):
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        return rate / decay


def _excess(loss: Loss, rate: Real, weight_decay: Real) -> Real:
    """B - 1 for the losses with B = e^u*."""
    return (rate - (1 + loss.offset) * weight_decay) / weight_decay


def _settled(loss: Loss, rate: Real, weight_decay: Real) -> Real:
    """The u with p r g(u) = lambda; a value <= 0 if no u > 0 solves this."""
    if loss.stops:
        return jnp.where(rate > weight_decay, 1, jnp.zeros_like(rate))
    if loss.offset is None:
        return (rate - weight_decay) / rate
    return jnp.log1p(jnp.maximum(_excess(loss, rate, weight_decay), 0))


@quick_jit(few=0, static_argnums=0)
def _logit(loss: Loss, rate: Real, start: Real, weight_decay: Real, t: Real) -> Real:
    settled = _settled(loss, rate, weight_decay)
    if loss.stops:
        # Above the margin 1 only the decay acts; if p r > lambda the logit then stays at 1.
        above = jnp.where(start > 1, jnp.log(jnp.maximum(start, 1)) / (2 * weight_decay), 0)
        growth = 2 * (rate - weight_decay) * jnp.maximum(t - above, 0)
        free = jnp.minimum(start, 1) * jnp.exp(jnp.minimum(growth, jnp.log(jnp.finfo(t.dtype).max)))
        return jnp.where(t < above, start * jnp.exp(-2 * weight_decay * t), jnp.minimum(free, 1))
    if loss.offset is None:
        # Logistic; with phi = (e^ct - 1)/c it is u0 e^ct / (1 + 2 p r u0 phi), here in e^-|c|t.
        c = 2 * (rate - weight_decay)
        shrunk = jnp.exp(-jnp.abs(c) * t)
        phi = jnp.where(c == 0, t, -jnp.expm1(-jnp.abs(c) * t) / jnp.where(c == 0, 1, jnp.abs(c)))
        growing = start / (shrunk + 2 * rate * start * phi)
        return jnp.where(c > 0, growing, start * shrunk / (1 + 2 * rate * start * phi))
    path = Path(_excess(loss, rate, weight_decay), settled, start < settled)
    total = 2 * jnp.minimum(weight_decay * t, jnp.finfo(t.dtype).max / 8)
    begin = _position(path, start)
    # The least slope of T, for a bracket of x.
    slowest = jnp.where(path.rises, _ratio(settled) / jnp.where(settled > 0, settled, 1), 0.5 / jnp.maximum(settled, 1))
    slowest = jnp.where(path.excess > 0, slowest, 1)
    high = begin + jnp.minimum(total / slowest, jnp.finfo(t.dtype).max / 4) + 1

    def clock(x, parameters):
        path, begin = parameters
        return _passed(loss, path, begin, x), _slope(loss, path, x)

    x = invert(clock, (path, begin), begin, high, begin + total / _slope(loss, path, begin), total)
    # A start at the settled logit stays there; its x would be infinite.
    return jnp.where(start == settled, start, _place(path, x))


@quick_jit(few=0, static_argnums=0)
def _time(loss: Loss, rate: Real, start: Real, weight_decay: Real, logit: Real) -> Real:
    settled = _settled(loss, rate, weight_decay)
    settled = jnp.maximum(settled, 0)
    rises = start < settled
    ahead = jnp.where(rises, logit > start, logit < start)
    reached = jnp.where(rises, logit < settled, logit > settled)
    if loss.stops:
        reached |= (settled == 1) & (logit == 1)
        goal = jnp.where(ahead & reached, logit, start)
        ratio = jnp.log(jnp.minimum(goal, 1)) - jnp.log(jnp.minimum(start, 1))
        free = ratio / jnp.where(ratio == 0, 1, 2 * (rate - weight_decay))
        time = jnp.abs(free) + (jnp.log(jnp.maximum(start, 1)) - jnp.log(jnp.maximum(goal, 1))) / (2 * weight_decay)
        return jnp.where(ahead, jnp.where(reached, time, jnp.inf), 0)
    goal = jnp.where(ahead & reached, logit, start)
    if loss.offset is None:
        # From 1/u, which obeys a linear equation: e^-ct = (1/u - b)/(1/u0 - b), b = 2 p r / c.
        c = 2 * (rate - weight_decay)
        shift = (1 / goal - 1 / start) / (1 - c / (2 * rate) / start) / (2 * rate)
        time = jnp.where(c == 0, shift, -jnp.log1p(-c * shift) / jnp.where(c == 0, 1, c))
        return jnp.where(ahead, jnp.where(reached, time, jnp.inf), 0)
    path = Path(_excess(loss, rate, weight_decay), settled, rises)
    passed = _passed(loss, path, _position(path, start), _position(path, goal))
    return jnp.where(ahead, jnp.where(reached, passed / (2 * weight_decay), jnp.inf), 0)


# --- cross-entropy and exponential: x, the variable of the table -------------------------------------------------------


class Path(NamedTuple):
    """The row of the table: `excess` B - 1, `settled` max(u*, 0), `rises`: whether the logit starts below `settled`."""

    excess: Real
    settled: Real
    rises: Bool[Array, "..."]


def _ratio(y: Real) -> Real:
    """f(y) = y / (e^y - 1)."""
    zero = y == 0
    return jnp.where(zero, 1, y / jnp.expm1(jnp.where(zero, 1, jnp.minimum(y, 80))))


def _position(path: Path, u: Real) -> Real:
    """x at the logit u."""
    gap = jnp.where(u == path.settled, 1, jnp.abs(path.settled - u))
    toward = jnp.where(path.rises, u, jnp.where(path.settled > 0, path.settled, 1))
    return jnp.where(path.excess > 0, jnp.log(toward) - jnp.log(gap), -jnp.log(u))


def _place(path: Path, x: Real) -> Real:
    """The logit at x."""
    learning = path.settled * jnp.where(path.rises, jax.nn.sigmoid(x), 1 + jnp.exp(-x))
    return jnp.where(path.excess > 0, learning, jnp.exp(-x))


def _slope(loss: Loss, path: Path, x: Real) -> Real:
    """dT/dx > 0."""
    v = _place(path, x)
    weight = 1 + loss.offset * jnp.exp(-v) if loss.offset else jnp.ones_like(v)
    left = path.settled * jnp.where(path.rises, jax.nn.sigmoid(-x), -jnp.exp(-x))  # u* - v
    learnt = path.excess > 0
    learning = _ratio(jnp.where(learnt, left, 0)) / jnp.where(learnt, jnp.where(path.rises, path.settled, v), 1)
    forgetting = -path.excess * jnp.exp(-v) - jnp.expm1(-v)
    return weight * jnp.where(learnt, learning, 1 / jnp.where(learnt, 1, forgetting))


def _passed(loss: Loss, path: Path, begin: Real, end: Real) -> Real:
    """T from x = `begin` to `end`: quadrature in the middle, closed forms beyond."""
    learnt = path.excess > 0
    low, high = jnp.where(learnt, -_CORE, -_SMALL), jnp.where(learnt, _CORE, _SMALL)
    low, high = low.astype(begin.dtype), high.astype(begin.dtype)
    a, b = jnp.clip(begin, low, high), jnp.clip(end, low, high)
    width = (b - a) / _PANELS
    offsets = (np.arange(_PANELS)[:, None] + (1 + _NODES) / 2).reshape(-1)
    weights = jnp.asarray(np.tile(_WEIGHTS / 2, _PANELS), begin.dtype)
    x = a[..., None] + width[..., None] * jnp.asarray(offsets, begin.dtype)
    total = width * jnp.sum(weights * _slope(loss, jax.tree.map(lambda v: v[..., None], path), x), axis=-1)
    before = jnp.minimum(end, low) - jnp.minimum(begin, low)
    after = jnp.maximum(end, high) - jnp.maximum(begin, high)
    straight = before * _slope(loss, path, low) + after * _slope(loss, path, high)
    # B <= 1: 1 - B e^-v = (1 - B) + v there, which gives c(0) log(1 + (1 - B)/v) / (1 - B).
    largest = float(np.log(np.finfo(begin.dtype).max)) - 1
    since, until = (jnp.exp(jnp.clip(edge, high, largest)) for edge in (begin, end))
    past, less = until - since, jnp.maximum(-path.excess, 0)
    curved = jnp.log1p(less * past / (1 + less * since)) / jnp.where(less > 0, less, 1)
    at_zero = 1 + loss.offset
    return total + jnp.where(learnt, straight, at_zero * jnp.where(less > 0, curved, past))
