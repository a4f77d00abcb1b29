"""Reduced equations without a closed form, integrated in the logarithm of time: late times then cost little.

With t = (e^s - 1)/rate an equation dy/dt = f(y) becomes dy/ds = (1/rate + t) f(y). Logits that grow like log t are straight
lines in s, and the decay of g keeps the equation from becoming stiff, so that t = 1e300 is a few hundred steps away.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.arrays import is_concrete
from gradstarve.errors import ConvergenceError

# Local errors. Interpolating to the times that are asked for costs a digit, the steps another.
_RTOL = {"float64": 1e-13, "float32": 2e-6}
_MOST_STEPS = 4096


def follow(field: Callable[[Any, Any], Any], start: Any, problem: Any, rate: Float[Array, " b"], t: Float[Array, " times"]):
    """The states at times `t` >= 0 of d state/dt = field(state, problem), each leaf [b, times, ...].

    `start` and `problem` have [b] in front of every leaf; `rate` is how fast the start moves (1/time). Differentiable in
    reverse mode. `ConvergenceError` where the integrator gives up: with a loss that comes to rest exponentially fast in
    t (squared) a late time is many steps away.
    """
    states, arrived = _follow(field, start, problem, jax.lax.stop_gradient(rate), t)
    message = (
        "the reduced equations were not integrated up to the last time asked for "
        f"(t = {float(np.max(np.asarray(t), initial=0)) if is_concrete(t) else 't'}); ask for earlier times"
    )
    if not is_concrete(arrived):
        return jax.tree.map(lambda leaf: eqx.error_if(leaf, ~arrived.all(), message), states)
    if not bool(arrived.all()):
        raise ConvergenceError(message)
    return states


@eqx.filter_jit
def _follow(field, start, problem, rate, t):
    order = jnp.argsort(t)
    back = jnp.argsort(order)
    rising = jax.lax.stop_gradient(t)[order]

    def one(start, problem, rate):
        rate = jnp.where((rate > 0) & jnp.isfinite(rate), rate, 1)
        # A product beyond the largest float is as late as time gets.
        knots = jnp.log1p(jnp.minimum(rate * rising, jnp.finfo(t.dtype).max / 4))

        def slope(s, state, problem):
            scale = jnp.exp(s) / rate
            return jax.tree.map(lambda f: scale * f, field(state, problem))

        tolerance = _RTOL[t.dtype.name]
        run = diffrax.diffeqsolve(
            diffrax.ODETerm(slope),
            diffrax.Dopri8(),
            jnp.zeros((), t.dtype),
            knots[-1] + jnp.asarray(0.01, t.dtype),  # a start that is asked for alone is still a stretch of time
            None,
            start,
            problem,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance, norm=_largest),
            saveat=diffrax.SaveAt(ts=knots),
            max_steps=_MOST_STEPS,
            throw=False,
        )
        return run.ys, run.result == diffrax.RESULTS.successful

    states, arrived = jax.vmap(one)(start, problem, rate)
    states = jax.tree.map(lambda leaf: leaf[:, back], states)
    # The slope in t is the field itself, which is better known than the slope of an interpolation.
    ahead = t - jax.lax.stop_gradient(t)
    slopes = jax.vmap(jax.vmap(field, (0, None)))(states, problem)
    states = jax.tree.map(lambda y, f: y + jnp.where(jnp.isfinite(f), f, 0) * _behind(ahead, y.ndim), states, slopes)
    return states, arrived


def _behind(values: Float[Array, " times"], ndim: int) -> Array:
    """[times] as [1, times, 1, ...] of `ndim` axes."""
    return values.reshape(1, -1, *(1,) * (ndim - 2))


def _largest(errors: Any) -> Float[Array, ""]:
    """The largest entry; a trial step that overflows counts as too large, and not as NaN, which would stay."""
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(errors)]))
    return jnp.where(jnp.isnan(largest), jnp.inf, largest)
