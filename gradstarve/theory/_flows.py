"""Reduced equations without a closed form, integrated in the logarithm of time: late times then cost little.

With t = (e^s - 1)/rate, rate = |f| at the start, an equation dy/dt = f(y) becomes dy/ds = (1/rate + t) f(y). Logits that
grow like log t are straight lines in s, and the decay of g keeps the equation from becoming stiff, so that t = 1e300 is a
few hundred steps away.

The method is Gragg's: midpoint rules with 2, 4, ..., 14 substeps, whose errors are series in the square of the substep,
extrapolated to 0 (order 14). It needs no table of coefficients, and compiles in a fifth of the time of a Runge-Kutta
method of order 8, which is most of what a call costs. Derivatives are those of the equations: integrated along.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradstarve.ground import ConvergenceError, is_concrete

_TOLERANCE = {"float64": 1e-13, "float32": 2e-6}  # of one step, in each number
_MOST_STEPS = 4096
_ORDER = 7  # columns of the extrapolation


def follow(field: Callable[[Any, Any], Any], start: Float[Array, "b *n"], problem: Any, t: Float[Array, " times"]) -> Array:
    """The states at times `t` >= 0 of d state/dt = field(state, problem), [b, times, ...].

    `start` and all arrays of `problem` have [b] in front. Differentiable in start, problem and t any number of
    times. `ConvergenceError` where 4096 steps are not enough: with a loss that comes to rest exponentially fast in t
    (squared) a late time is many steps away.
    """
    if t.size == 0:
        return jnp.zeros((*start.shape[:1], 0, *start.shape[1:]), t.dtype)
    states, arrived = _follow(field, start, problem, t)
    message = (
        "the reduced equations were not integrated up to the last time asked for "
        f"(t = {float(np.max(np.asarray(t), initial=0)) if is_concrete(t) else 't'}); ask for earlier times"
    )
    if not is_concrete(arrived):
        return eqx.error_if(states, ~arrived.all(), message)
    if not bool(arrived.all()):
        raise ConvergenceError(message)
    return states


@eqx.filter_jit
def _follow(field, start, problem, t):
    order = jnp.argsort(t)
    back = jnp.argsort(order)

    def one(start, problem):
        rate = jax.lax.stop_gradient(jnp.max(jnp.abs(field(start, problem))))
        rate = jnp.where((rate > 0) & jnp.isfinite(rate), rate, 1)
        # A product beyond the largest float is as late as time gets.
        knots = jnp.log1p(jnp.minimum(rate * jax.lax.stop_gradient(t), jnp.finfo(t.dtype).max / 4))[order]
        inputs, unravel = ravel_pytree((start, problem))
        shape, size = start.shape, start.size

        def slope(state, inputs):
            return field(state.reshape(shape), unravel(inputs)[1]).reshape(-1)

        states, arrived = _solution(slope, lambda inputs: inputs[:size], inputs.size)(inputs, t[order], rate, knots)
        return states[back].reshape(-1, *shape), arrived

    return jax.vmap(one)(start, problem)


def _solution(slope, begin, count: int):
    """Of (inputs, t, rate, knots): the states at `knots`, y(0) = begin(inputs), dy/dt = slope(y, inputs), and if it arrived.

    Derivatives in the `count` inputs are states of the equations with their first variation, and so again are theirs.
    """

    @jax.custom_jvp
    def solve(inputs, t, rate, knots):
        return _integrate(lambda s, y: jnp.exp(s) / rate * slope(y, inputs), begin(inputs), knots)

    def begin_together(inputs):
        return jnp.concatenate([begin(inputs)[None], jax.jacfwd(begin)(inputs).T]).reshape(-1)

    def slope_together(y, inputs):
        """The state and its derivatives in every input, [1 + inputs, size], flat."""
        y = y.reshape(1 + count, -1)
        value, push = jax.linearize(slope, y[0], inputs)
        pushed = jax.vmap(push)(y[1:], jnp.eye(count, dtype=inputs.dtype))
        return jnp.concatenate([value, pushed.reshape(-1)])

    @solve.defjvp
    def _(primals, tangents):
        (inputs, t, rate, knots), (dinputs, dt, *_) = primals, tangents
        states, arrived = _solution(slope_together, begin_together, count)(inputs, t, rate, knots)
        states = states.reshape(knots.size, 1 + count, -1)
        speed = jax.vmap(slope, (0, None))(states[:, 0], inputs)
        moved = jnp.einsum("tij,i->tj", states[:, 1:], dinputs) + speed * dt[:, None]
        return (states[:, 0], arrived), (moved, np.zeros(arrived.shape, jax.dtypes.float0))

    return solve


def _weights(columns: int) -> np.ndarray:
    """The combination of 2, 4, ..., 2 `columns` substeps in which the errors h^2, h^4, ... cancel."""
    squares = np.arange(1.0, columns + 1) ** 2
    ratios = squares[:, None] / (squares[:, None] - squares + np.eye(columns))
    return np.prod(np.where(np.eye(columns, dtype=bool), 1, ratios), axis=1)


def _integrate(slope, start, knots):
    """The solution at the rising `knots` of dy/ds = slope(s, y) from s = 0, and whether it got to the last of them."""
    dtype = start.dtype
    tolerance = _TOLERANCE[dtype.name]
    combine = np.zeros((2, _ORDER))
    combine[0], combine[1, :-1] = _weights(_ORDER), _weights(_ORDER - 1)
    combine = jnp.asarray(combine, dtype)

    def midpoint(s, y, speed, length, count):
        """What `length` adds to y by Gragg's rule with `count` substeps, and the slope there."""
        h = length / count

        def substep(k, ends):
            before, now = ends
            return now, before + 2 * h * slope(s + k * h, y + now)

        before, now = jax.lax.fori_loop(1, count, substep, (jnp.zeros_like(y), h * speed))
        end = slope(s + length, y + now)
        return (before + now + h * end) / 2, end

    def step(state, goal):
        s, y, length, count = state
        taken = jnp.minimum(length, goal - s)
        speed = slope(s, y)
        gains, ends = jax.lax.map(lambda n: midpoint(s, y, speed, taken, n), 2 * jnp.arange(1, _ORDER + 1))
        # The last two columns differ by the error of the lower order.
        gain, lower = combine @ gains
        # All rules may stay short of a jump of the residual (hinge) that their extrapolation has passed: its slope tells.
        jump = taken * (slope(s + taken, y + gain) - combine[0] @ ends)
        off = jnp.maximum(jnp.abs(gain - lower), jnp.abs(jump) / 100)
        error = jnp.max(off / (jnp.abs(y) + jnp.abs(gain) + 1)) / tolerance
        good = error <= 1  # NaN is not
        factor = jnp.where(error > 0, 0.9 * error ** (-1 / (2 * _ORDER - 1)), 5.0)
        factor = jnp.where(jnp.isfinite(factor), jnp.clip(factor, 0.2, 5.0), 0.2)
        # A step cut short by the goal says little about how long the next one may be.
        following = jnp.where(good, jnp.maximum(taken * factor, jnp.where(taken < length, length, 0)), taken * factor)
        landed = jnp.where(taken < length, goal, s + taken)
        return jnp.where(good, landed, s), jnp.where(good, y + gain, y), following, count + 1

    def reach(state, goal):
        state = jax.lax.while_loop(lambda x: (x[0] < goal) & (x[3] < _MOST_STEPS), lambda x: step(x, goal), state)
        return state, state[1]

    begin = (jnp.zeros((), dtype), start, jnp.asarray(0.1, dtype), jnp.zeros((), jnp.int32))
    (s, *_), states = jax.lax.scan(reach, begin, knots)
    return states, s >= knots[-1]
