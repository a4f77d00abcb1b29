"""One layer: only a linear read-out learns, and its logit obeys du/dt = p r^2 g(u) in closed form for every loss (3.9)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import as_goal, check_positive, check_together, together
from gradstarve.problem import Loss, with_closed_form
from gradstarve.special import lambertw_exp
from gradstarve.theory._piecewise import check_times, in_time


def one_layer_logit(frequency, norm, start, loss: Loss | str, t) -> Float[Array, "..."]:
    """u(t) of the read-out f(x) = v . x on a class of weight p = `frequency` at norm r = `norm`, u(0) = `start` (3.9).

    With T = p r^2 t: cross-entropy u = C - W(e^C), C = T + u(0) + e^u(0) · exponential u = log(T + e^u(0)) · hinge u(0) + T
    until 1 · squared 1 - (1 - u(0)) e^-T. All arguments broadcast, float32 or float64; t is time, finite and >= 0.
    `ValueError` for p <= 0, r <= 0, unknown losses and bad times. Relative error a few ulp of the largest term.

    >>> round(float(one_layer_logit(1.0, 1.0, 0.0, "cross-entropy", 10.0)), 4)
    2.1773
    """
    frequency, norm, start = together(frequency=frequency, norm=norm, start=start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    kind = with_closed_form(loss).name
    t = check_times(t, start.dtype)
    check_together(frequency=frequency, norm=norm, start=start, t=t)
    clock = frequency * norm**2 * t
    if kind == "hinge":
        return jnp.where(start < 1, jnp.minimum(start + clock, 1), start)
    if kind == "squared":
        # Late in training by what is left, which is the whole derivative; early by what has been gained.
        return jnp.where(clock < 1, start - (start - 1) * -jnp.expm1(-clock), 1 + (start - 1) * jnp.exp(-clock))
    if kind == "exponential":
        # log(T + e^u0) by what it adds to u0 while that is little, and otherwise without forming e^u0, which may be 0.
        late = jnp.log(jnp.maximum(clock, jnp.finfo(clock.dtype).tiny)) > start
        rise = jnp.log1p(clock * jnp.exp(-jnp.where(late, 0, start)))
        return jnp.where(late, jnp.logaddexp(jnp.log(jnp.where(late, clock, 1)), start), start + rise)
    if kind == "cross-entropy":
        return lambert_logit(1.0, start, clock)
    raise ValueError(f"no one-layer law for the loss {kind!r}")


def lambert_logit(constant: float, start: Array, clock: Array) -> Array:
    """u with e^u + c u = T + e^u(0) + c u(0), T = `clock` >= 0: u = C - W(e^C / c), C the right-hand side over c.

    Relative error a few ulp of u(0) and u, also for u from 0 at small T, where the two terms of the formula cancel.
    """
    level = (clock + jnp.exp(start)) / constant + start
    w = lambertw_exp(level - np.log(constant))
    # W + log(c W) = C: log(c W) is the accurate form where W is all of C, and C - W where W is next to nothing.
    u = jnp.where(w > 1, jnp.log(jnp.where(w > 1, constant * w, 1)), level - w)
    rise = jnp.maximum(u - start, 0)
    # A Newton step for the rise: what it is off by is the rounding of u, whose square is nothing.
    near = jnp.where(rise < 0.5, rise, 0)
    slope = jnp.exp(start + near) + constant
    near = near - (jnp.exp(start) * jnp.expm1(near) + constant * near - clock) / slope
    return jnp.where(rise < 0.5, start + near, u)


def lambert_error(constant: float, start: Array, clock: Array) -> Array:
    """c/(e^u + c) = 1/(1 + W) at the u of `lambert_logit`, whose rounding would be worth digits of it."""
    w = lambertw_exp((clock + jnp.exp(start)) / constant + start - float(np.log(constant)))
    early = jax.nn.sigmoid(float(np.log(constant)) - lambert_logit(constant, start, clock))
    return jnp.where(w > 1, 1 / (1 + w), early)


def one_layer_time(frequency, norm, start, loss: Loss | str, logit) -> Float[Array, "..."]:
    """The time at which `one_layer_logit` reaches `logit`: 0 where it starts there or above, inf where it never does.

    p r^2 t = u - u(0) + e^u - e^u(0) for cross-entropy · e^u - e^u(0) exponential · u - u(0) hinge, u <= 1 ·
    log((1 - u(0)) / (1 - u)) squared. Arguments broadcast.

    >>> round(float(one_layer_time(1.0, 1.0, 0.0, "cross-entropy", 2.1773)), 2)
    10.0
    """
    frequency, norm, start = together(frequency=frequency, norm=norm, start=start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    kind = with_closed_form(loss).name
    logit = as_goal("logit", logit, start.dtype)
    check_together(frequency=frequency, norm=norm, start=start, logit=logit)
    if kind not in ("hinge", "squared", "exponential", "cross-entropy"):
        raise ValueError(f"no one-layer law for the loss {kind!r}")
    rise = jnp.maximum(logit - start, 0)
    if kind == "hinge":
        clock = jnp.where(logit <= 1, rise, jnp.inf)
    elif kind == "squared":
        reached = logit < 1
        clock = jnp.where(reached, -jnp.log1p(-rise / jnp.where(reached, 1 - start, 1)), jnp.inf)
    else:
        clock = exponential_time(start, rise) + (rise if kind == "cross-entropy" else 0)
    return jnp.where(rise > 0, in_time(clock, frequency * norm**2), 0)


def exponential_time(start: Array, rise: Array) -> Array:
    """e^start (e^rise - 1); inf, without a derivative, where it is no float."""
    fits = jnp.maximum(start, 0) + rise < float(np.log(np.finfo(start.dtype).max)) - 1
    start, rise = jnp.where(fits, start, 0), jnp.where(fits, rise, 0)
    return jnp.where(fits, jnp.exp(start) * jnp.expm1(rise), jnp.inf)
