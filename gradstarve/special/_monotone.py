"""Inversion of a rising function of one variable, elementwise, by Newton steps that stay in a bracket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Real = Float[Array, "*shape"]


def invert(function: Callable, parameters: Any, low: Real, high: Real, guess: Real, target: Real, most: int = 100) -> Real:
    """x in [`low`, `high`] with f(x) = `target`, where `function`(x, parameters) gives (f, df/dx) elementwise and f rises.

    One end of the bracket if the target lies outside of it. An element is done when its step is below four roundings of x,
    or when its Newton steps are small and no longer shrink (the noise of f); all elements stop after `most` steps.
    Differentiable twice in `parameters` and `target`: f(x, theta) = target gives dx = (dtarget - df) / f', which is the
    derivative of one more Newton step at the solution, and a second step gives the second derivatives.

    >>> square = lambda x, scale: (scale * x * x, 2 * scale * x)
    >>> one = jnp.float32(1.0)
    >>> round(float(invert(square, one, 0 * one, 9 * one, one, 2 * one)), 4)
    1.4142
    """
    fixed = jax.lax.stop_gradient
    eps = jnp.finfo(target.dtype).eps
    # Parameters may hold leaves that are not arrays, such as a function in a user's loss.
    held = jax.tree.map(lambda leaf: fixed(leaf) if isinstance(leaf, jax.Array) else leaf, parameters)
    goal = fixed(target)

    def body(carry):
        x, low, high, last, moving, count = carry
        value, slope = function(x, held)
        gap = goal - value
        low, high = jnp.where(gap >= 0, x, low), jnp.where(gap <= 0, x, high)
        there = x + gap / slope
        # Out of the bracket, or NaN: halve the bracket instead.
        inside = (there >= low) & (there <= high)
        there = jnp.where(inside, there, (low + high) / 2)
        there = jnp.where(moving & (gap != 0), there, x)
        step, size = jnp.abs(there - x), eps * jnp.abs(there)
        noise = inside & (step <= 1e4 * size) & (step >= last / 2)
        return there, low, high, step, moving & (step > 4 * size) & ~noise, count + 1

    def cond(carry):
        return jnp.any(carry[4]) & (carry[5] < most)

    start = (jnp.clip(guess, low, high), low, high, jnp.full_like(goal, jnp.inf), jnp.ones(goal.shape, bool), 0)
    x = fixed(jax.lax.while_loop(cond, body, fixed(start))[0])
    slope = fixed(function(x, held)[1])
    # These steps do not change the value of the solution; each one adds an order of derivatives.
    for _ in range(2):
        step = (target - function(x, parameters)[0]) / slope
        step = jnp.where(jnp.isfinite(fixed(step)), step, 0)
        x = x + step - fixed(step)
    return x
