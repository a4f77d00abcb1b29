"""The time at which the error or loss of several classes together reaches a level: inversion in the logarithm of time.

Each class has its own clock, and the sum over classes sum_c p_c phi(u_c(t)) falls, phi the error sigmoid(-u) or the loss
l(u). The sum is above the level before the first class reaches the level, and not above it once the last class has: these
two times are in closed form and bracket the solution.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradstarve.ground import is_concrete, quick_jit
from gradstarve.problem import Loss
from gradstarve.special import invert, rest_after
from gradstarve.theory._piecewise import PiecewiseClock, lane_logits, stacked


@quick_jit(eqx.filter_jit, few=0)
def first_time(
    what: str,
    clock: PiecewiseClock,
    shares: Float[Array, " classes"],
    level: Float[Array, "*batch lanes"],
    low: Float[Array, "*batch lanes"],
    high: Float[Array, "*batch lanes"],
) -> Float[Array, "*batch lanes"]:
    """The first t with a sum over classes of at most `level`, elementwise; `clock` is [classes, *batch].

    `what`: "error" or "loss"; no class is at the level before `low`, and all are at `high`; either may be inf. 0 if the sum
    starts at the level, inf if it never reaches it. Differentiable twice in the clocks, `shares` and `level`; a time that
    never comes is a constant.
    """
    limits, fixed = jnp.finfo(level.dtype), jax.lax.stop_gradient
    loss = clock.law.loss

    def summed(shares, values):
        return jnp.tensordot(shares, values, 1)

    # In logarithms late times are a straight line, if the sum stays above 0.
    logs = what == "error" or (loss.least is not None and loss.least >= 0)

    def phi(u):
        return jax.nn.sigmoid(-u) if what == "error" else loss.value(u)

    start = (clock.rise[..., 0] - clock.fall[..., 0])[..., None]
    there = summed(shares, phi(start)) <= level
    ends = jnp.isfinite(high)
    # If all classes arrive together, or the level is the final one of a loss that stops, such as hinge loss, no inversion
    # is needed. Elements without an inversion get harmless arguments.
    at_once = ends & (((level <= 0) & logs) | (high <= low))
    seeks = fixed(~there & jnp.isfinite(low) & ~at_once & ((level > 0) | (not logs)))

    def height(x, parameters):
        """log(level) - log(sum) at log t = x, for late times a line, and its slope."""
        clock, shares, level = parameters
        u, moved = lane_logits(clock, jnp.broadcast_to(jnp.exp(x), (*shares.shape, *x.shape)))
        slope = jax.nn.sigmoid(u) * jax.nn.sigmoid(-u) if what == "error" else loss.residual(u)
        now, rises = jnp.where(seeks, summed(shares, phi(u)), 1), summed(shares, slope * moved)
        left = jnp.log(level) - jnp.log(now) if logs else level - now
        return jnp.where(seeks, left, x), jnp.where(seeks, rises / now if logs else rises, 1)

    first = jnp.log(jnp.where(seeks, jnp.maximum(low, limits.tiny), 1))
    last = jnp.log(jnp.where(seeks, jnp.where(ends, jnp.maximum(high, limits.tiny), limits.max), 1))
    first, last = fixed(first), fixed(last)
    guess = jnp.where(ends, (first + last) / 2, jnp.minimum(first + 1, last))
    parameters = clock, shares, jnp.where(seeks, level, 1)
    x = invert(height, parameters, first, last, guess, jnp.zeros_like(level), most=200)
    # The far end of an open bracket is never reached.
    came = seeks & (ends | (fixed(x) < last - 1))
    found = jnp.exp(jnp.where(came, x, 0))
    late = jnp.where(at_once, jnp.where(ends, high, 0), jnp.inf)
    return jnp.where(there, 0, jnp.where(came, found, late))


# Distances above the start at which a level of a loss is searched for, if the loss never comes to rest.
_FAR = 1e6


@quick_jit(eqx.filter_jit, few=0)
def margin_at(loss: Loss, level: Float[Array, "..."], start: Float[Array, "*batch"]) -> Float[Array, "*batch lanes"]:
    """The margin above `start` from which on `loss` is at most `level` [...]: [*batch, level.size]; `start` if the loss is
    at most `level` there, inf if it comes to rest before. By inversion of l, which falls up to the rest; inf if
    g(start) <= 0.
    """
    fixed = jax.lax.stop_gradient
    goal = jnp.broadcast_to(level.reshape(-1), (*start.shape, level.size))
    begin = jnp.broadcast_to(start[..., None], goal.shape)
    there = loss.value(begin) <= goal
    rest = fixed(rest_after(loss, fixed(begin)))
    ends = jnp.isfinite(rest)
    far = jnp.where(ends, rest, fixed(begin) + _FAR)
    last = loss.value(far)
    # A loss that falls for ever only tends to its lowest level.
    seeks = fixed(~there & (loss.residual(begin) > 0) & jnp.where(ends, last <= goal, last < goal))
    low = fixed(begin)
    high = jnp.where(seeks, far, low + 1)

    def halve(_, ends):
        low, high = ends
        middle = low / 2 + high / 2
        above = loss.value(middle) > goal
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    # Newton's method takes steps of order one down an exponential.
    low, high = fixed(jax.lax.fori_loop(0, 24, halve, (low, high)))

    def fallen(margin, parameters):
        loss, goal = parameters
        value, residual = loss.value(margin), loss.residual(margin)
        return jnp.where(seeks, goal - value, margin - low), jnp.where(seeks, residual, 1)

    found = invert(fallen, (loss, goal), low, high, (low + high) / 2, jnp.zeros_like(goal), most=200)
    found = jnp.where(fixed(last < goal), found, far)
    return jnp.where(there, begin, jnp.where(seeks, found, jnp.inf))


def falling_time(clock: PiecewiseClock, level: Float[Array, "..."], rising: Float[Array, "..."]) -> Float[Array, "..."]:
    """The first time at which the loss of one class is at most `level`: `rising` where its margin rises, and by inversion
    where it starts above its rest and falls; both [*batch, *level.shape]."""
    above = clock.law.loss.residual(clock.rise[..., :1] - clock.fall[..., :1]) < 0
    if is_concrete(above) and not bool(np.any(above)):
        return rising
    return _falling_time(clock, level, rising, above)


@quick_jit(eqx.filter_jit, few=0)
def _falling_time(clock: PiecewiseClock, level: Array, rising: Array, above: Bool[Array, "*batch 1"]) -> Array:
    shape = (*clock.rate.shape, level.size)
    goal = jnp.broadcast_to(level.reshape(-1), shape)
    above = jnp.broadcast_to(above, shape)
    never = jnp.full(shape, jnp.inf, goal.dtype)
    one = stacked([clock])
    found = first_time("loss", one, jnp.ones(1, goal.dtype), goal, jnp.where(above, 0, never), never)
    if clock.law.loss.clock is None:  # the margin may come to rest at a larger loss
        rest = jax.lax.stop_gradient(rest_after(clock.law.loss, clock.rise[..., :1] - clock.fall[..., :1]))
        found = jnp.where(clock.law.loss.value(rest) <= goal, found, jnp.inf)
    return jnp.where(above, found, rising.reshape(shape)).reshape(rising.shape)
