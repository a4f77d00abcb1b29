"""Speed: time to a given confidence (6.1), hinge against cross-entropy (6.2), and the tail of the error (6.3).

With T = N p r^(2/N) t and m = 2 - 2/N a balanced chain of N layers has du/dt = N p r^(2/N) u^m g(u), and for the losses
with g ~ e^-u nearly all the time is spent at the end: T ~ e^u / u^m. With L = log(1/e) ~ u this is e T L^m -> 1, which
Lambert's W solves; L ~ log T gives the simpler e ~ 1/(T (log T)^m), which is off by the factor (log T / L)^m.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    as_flag,
    check_positive,
    check_together,
    deprecated,
    is_concrete,
    positive_int,
    real_arrays,
    together,
)
from gradstarve.problem import Loss, clock_of, error_to_logit, with_closed_form
from gradstarve.special import clock_integral, lambertw
from gradstarve.theory._piecewise import check_times, in_time

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def confident_logit(error) -> Float[Array, "..."]:
    """u = log((1 - e)/e), the logit at which a class is given its wrong label with probability e = `error` (6.1).

    0 < error < 1, any shape.

    >>> round(float(confident_logit(0.01)), 4)
    4.5951
    """
    (error,) = real_arrays(error=error)
    return error_to_logit(error, error.dtype)


@deprecated("loss", "error", "frequency", "norm", "start", "kappa")
def time_to_confidence(frequency, norm, start, loss: Loss | str, error, *, kappa: Any = 0.0) -> Float[Array, "..."]:
    """The time at which a mode from the logit u0 = `start` has at most `error`: a function of (u0, kappa) over 2 p r (6.1).

    `frequency` p > 0, `norm` r > 0, `kappa` >= 0 (0: balanced, and then start > 0), 0 < error < 1; all broadcast. 0 if the
    start has at most `error`, inf if the loss never gets there (hinge and squared loss stop at u = 1). Unit: time =
    step size x step. Twice the frequency or twice the norm, at the same u0 and kappa, halves the time.

    >>> round(float(time_to_confidence(0.5, 1.0, 0.01, "hinge", error=0.3)), 4)   # log(log(7/3) / 0.01)
    4.4395
    """
    error, frequency, norm, start, kappa = together(error=error, frequency=frequency, norm=norm, start=start, kappa=kappa)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    if is_concrete(kappa) and (np.asarray(kappa) < 0).any():
        raise ValueError(f"kappa must be >= 0, got {np.asarray(kappa).min()}")
    if is_concrete(start) and is_concrete(kappa) and bool(((start <= 0) & (kappa == 0)).any()):
        raise ValueError("start must be > 0 where kappa = 0: a balanced mode never leaves u <= 0")
    target = error_to_logit(error, start.dtype)
    waits = target > start
    tau = clock_integral(clock_of(with_closed_form(loss)), start, jnp.where(waits, target, start), kappa)
    return in_time(jnp.where(waits, tau, 0), 2 * frequency * norm)


def hinge_advantage(start) -> Float[Array, "..."]:
    """The time of a balanced mode to u = 1 with cross-entropy over that with hinge loss, from u0 = `start` (6.2).

    [log(1/u0) + Ei(1) - Ei(u0)] / log(1/u0), for any p and r; the ratio falls from 1 + e at u0 = 1 to 2 as u0 -> 0, the
    ratio of g(0) = 1 to 1/2. 0 < u0 < 1, any shape; relative error a few ulp down to the smallest float.

    >>> [round(float(hinge_advantage(u0)), 4) for u0 in (0.5, 1e-30)]
    [3.0788, 2.0191]
    """
    (start,) = real_arrays(start=start)
    check_positive("start", start)
    if is_concrete(start) and (np.asarray(start) >= 1).any():
        raise ValueError(f"start must be below 1, got {np.asarray(start).max()}: the margin of hinge loss is reached")
    # Ei(1) - Ei(u0) = log(1/u0) + integral of (e^v - 1)/v: the logarithms, which are large, are kept out of the quotient.
    nodes = start[..., None] + (1 - start[..., None]) * jnp.asarray((1 + _NODES) / 2, start.dtype)
    rest = (1 - start) * jnp.sum(jnp.asarray(_WEIGHTS / 2, start.dtype) * jnp.expm1(nodes) / nodes, axis=-1)
    return 2 - rest / jnp.log(start)


@deprecated("loss", "t", "frequency", "norm", "depth", "leading", layers="depth")
def error_tail(frequency, norm, loss: Loss | str, t, *, depth: int = 2, leading: bool = False) -> Float[Array, "..."]:
    """The asymptote of the error of a mode late in training, for a network of N = `depth` layers (6.3).

    Cross-entropy and exponential loss: the solution e of e T log(1/e)^m = 1, T = N p r^(2/N) t, m = 2 - 2/N, and the true
    error is e (1 + m/L + O(1/L^2)) with L = log(1/e). With `leading` the simpler 1/(T (log T)^m), whose relative error is
    m^2 log L / L, which hardly falls. One layer: 1/(p r^2 t) in both. Hinge and squared loss stop at sigmoid(-1).

    The asymptote holds from any start of the right sign, balanced or not. t, `frequency`, `norm` broadcast, all > 0.
    `ValueError` for T < (e/m)^m, where the tail has not begun.

    >>> [round(float(error_tail(0.5, 1.0, "cross-entropy", 1e6, depth=n)) * 1e6, 4) for n in (1, 2, 3)]
    [2.0, 0.0601, 0.014]
    """
    frequency, norm = together(frequency=frequency, norm=norm)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    t = check_times(t, frequency.dtype)
    check_positive("t", t)
    check_together(frequency=frequency, norm=norm, t=t)
    leading = as_flag("leading", leading)
    depth = positive_int("depth", depth)
    loss = with_closed_form(loss)
    clock = jnp.log(frequency) + 2 / depth * jnp.log(norm) + jnp.log(t) + np.log(depth)
    if loss.offset is None:
        return jnp.broadcast_to(jax.nn.sigmoid(-jnp.ones_like(clock)), clock.shape)
    power = 2 - 2 / depth
    if power == 0:
        return jnp.exp(-clock)
    begins = power * (1 - np.log(power))
    if is_concrete(clock) and bool((clock < begins).any()):
        least, found = np.exp(begins), np.exp(float(clock.min()))
        raise ValueError(f"N p r^(2/N) t must be at least {least:.4g}, where the tail begins, got {found:.4g}")
    if leading:
        return jnp.exp(-clock - power * jnp.log(clock))
    # e T L^m = 1 is -(L/m) e^(-L/m) = -T^(-1/m)/m.
    return jnp.exp(power * lambertw(-jnp.exp(-clock / power) / power, -1))
