"""Linearised networks (section 14): the features of any model on its data, and how fast and how far each is learnt.

At fixed weights a network f has the Jacobian Phi [n, P] on n samples (`gradstarve.theory.jacobian` computes it). With
Y = diag(y), labels ±1, the kernel is K = Y Phi Phi^T Y = U S^2 U^T [n, n]: columns of U are features, s_i^2 their strengths,
z = U^T m their responses, m = Y f the signed outputs (margins). While training stays close to the linearisation,

    loss sum_i log(1 + e^-m_i):        dm/dt = K sigmoid(-m)                                                (14.1)
    + (ridge/2) |theta|^2:             dm/dt = K sigmoid(-m) - ridge m, optimum m = K alpha / ridge          (14.2)
    + (penalty/2) |f|^2:               dm/dt = K (sigmoid(-m) - penalty m), optimum sigmoid(-m) = penalty m  (14.4)

The loss is SUMMED over samples: for its mean, t, ridge and penalty are n times as large. t is time, step size times step.
Setting of Pezeshki et al. 2021 (arXiv:2011.09468).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import Progress, check_fits, is_concrete
from gradstarve.theory._convex_flow import ConvexFlow, follow_convex
from gradstarve.theory._kernel import check_kernel, check_strength, factor, features
from gradstarve.theory._piecewise import check_times
from gradstarve.theory._ridge import RidgeOptimum, ridge_optimum, spectral_decoupling_optimum, starvation_derivatives

__all__ = [
    "RidgeOptimum",
    "features",
    "logistic_flow",
    "ridge_dual_flow",
    "ridge_flow",
    "ridge_optimum",
    "spectral_decoupling_flow",
    "spectral_decoupling_optimum",
    "starvation_derivatives",
]


class _Logistic(eqx.Module):
    """sigmoid(-m) - penalty m."""

    penalty: Float[Array, ""]

    def __call__(self, m: Any) -> tuple[Any, Any]:
        alpha = jax.nn.sigmoid(-m)
        return alpha - self.penalty * m, alpha * jax.nn.sigmoid(m) + self.penalty


class _LogOdds(eqx.Module):
    """log((1 - alpha)/alpha), and 1/(alpha (1 - alpha)), of the log-odds of alpha."""

    def __call__(self, odds: Any) -> tuple[Any, Any]:
        return -odds, 2 + jnp.exp(odds) + jnp.exp(-odds)


def logistic_flow(K, times, start=None) -> Float[Array, "..."]:
    """Margins m(t) [*times.shape, n] of a linearised network: dm/dt = K sigmoid(-m), m(0) = `start` (14.1).

    `K`: Y Phi Phi^T Y [n, n], symmetric positive semi-definite, singular ones and rows of zeros included; `times` >= 0 of
    any shape, in any order; `start`: [n], default 0. Signed outputs m = Y f, labels ±1, cross-entropy SUMMED over samples.

    Integrated implicitly in log t, so that neither strengths of very different size nor times up to 1e300 (1e30 in float32)
    cost much. Where sigmoid(-m) underflows m stops: strength s^2 times t reaches 1e307 (1e37 in float32), no further.
    Margins are within 1e-10 (1e-4) of (1 + |m|) for K changed by its own rounding: features weaker than
    n roundings of the strongest are not in a K of that precision, and those 1e10 times weaker than it known to six digits.
    `ValueError` for bad input; `ConvergenceError` if the integration fails. Works in jit and vmap, and in forward-mode
    differentiation (`jax.jvp`, `jax.jacfwd`) in K of full rank, `start` and `times`; reverse mode is refused by JAX.

    >>> m = logistic_flow([[1.0]], [0.0, 1.0, 100.0])      # one sample: e^m + m = t + 1
    >>> [round(float(x), 4) for x in m[:, 0]]
    [0.0, 0.4429, 4.5688]
    """
    kernel, margins = _kernel_and_start(K, start)
    return _flow(kernel, jnp.zeros((), kernel.dtype), jnp.zeros((), kernel.dtype), margins, times)


def spectral_decoupling_flow(K, penalty, times, start=None) -> Float[Array, "..."]:
    """Margins [*times.shape, n] under (penalty/2) |f|^2: dm/dt = K (sigmoid(-m) - penalty m), m(0) = `start` (14.4).

    Arguments and errors as in `logistic_flow`, `penalty` > 0 for the loss summed over samples. With K of full rank it ends
    where `spectral_decoupling_optimum` says; if Phi has not full row rank, features of strength 0 cannot move, and it
    ends where U^T (sigmoid(-m) - penalty m) = 0 for the others, which depends on U.

    >>> m = spectral_decoupling_flow([[9.0, 0.0], [0.0, 1.0]], 0.002, 1e6)
    >>> [round(float(x), 4) for x in m]
    [4.6651, 4.6651]
    """
    kernel, margins, penalty = _kernel_and_start(K, start, penalty=penalty)
    check_strength("penalty", penalty)
    return _flow(kernel, penalty, jnp.zeros((), kernel.dtype), margins, times)


def ridge_flow(K, ridge, times) -> Float[Array, "..."]:
    """Margins [*times.shape, n] under (ridge/2) |theta|^2 from theta = 0: dm/dt = K sigmoid(-m) - ridge m, m(0) = 0 (14.2).

    Arguments and errors as in `logistic_flow`, `ridge` > 0 for the loss summed over samples. Ends in `ridge_optimum`.

    >>> m = ridge_flow([[4.0]], 0.01, [1.0, 1e6])
    >>> [round(float(x), 4) for x in m[:, 0]]
    [1.3008, 4.4805]
    """
    kernel, ridge = check_kernel(K, ridge=ridge)
    check_strength("ridge", ridge)
    return _flow(kernel, jnp.zeros((), kernel.dtype), ridge, jnp.zeros(kernel.shape[:1], kernel.dtype), times)


def ridge_dual_flow(K, ridge, times, alpha=None) -> Float[Array, "..."]:
    """alpha [*times.shape, n] in the dual flow dalpha/dt = log((1 - alpha)/alpha) - K alpha / ridge (14.2).

    `alpha`: where it begins, [n], between 0 and 1, default 1/2 (margins of 0). Other arguments and errors as in
    `logistic_flow`. It ends at alpha = sigmoid(-m) of `ridge_optimum`. Errors are relative to alpha, 1e-9 and below.

    >>> a = ridge_dual_flow([[4.0]], 0.01, 1e3)
    >>> round(float(a[0]), 5)
    0.0112
    """
    kernel, ridge, alpha = check_kernel(K, ridge=ridge, alpha=0.5 if alpha is None else alpha)
    check_strength("ridge", ridge)
    check_fits("alpha", alpha, kernel.shape[:1], "K")
    if is_concrete(alpha) and not ((np.asarray(alpha) > 0) & (np.asarray(alpha) < 1)).all():
        values = np.asarray(alpha)
        raise ValueError(f"alpha must be between 0 and 1, got {values[~((values > 0) & (values < 1))].flat[0]}")
    start = jnp.broadcast_to(alpha, kernel.shape[:1])
    one = jnp.eye(kernel.shape[0], dtype=kernel.dtype)
    # What an error of alpha does to the margins K alpha / ridge is what counts.
    floor = 0.1 / (1 + jnp.diagonal(kernel) / ridge)
    flow = ConvexFlow(one, kernel / ridge, jnp.zeros_like(start), _LogOdds(), floor, odds=True)
    return _at(flow, start, times)


def _kernel_and_start(K, start, **beside) -> tuple[Array, ...]:
    kernel, margins, *others = check_kernel(K, start=0.0 if start is None else start, **beside)
    check_fits("start", margins, kernel.shape[:1], "K")
    return kernel, jnp.broadcast_to(margins, kernel.shape[:1]), *others


def _flow(kernel: Array, penalty: Array, ridge: Array, start: Array, times: Any) -> Array:
    """dw/dt = B^T (sigmoid(-m) - penalty m) - ridge w, m = start + B w, B B^T = K."""
    basis = _factor(kernel)
    one = jnp.eye(kernel.shape[0], dtype=kernel.dtype)
    flow = ConvexFlow(basis, ridge * one, start, _Logistic(penalty), jnp.ones_like(start))
    return _at(flow, jnp.zeros_like(start), times)


def _at(flow: ConvexFlow, start: Array, times: Any) -> Array:
    t = check_times(times, start.dtype)
    watched = all(is_concrete(leaf) for leaf in jax.tree.leaves((flow, start, t)))
    with Progress(None if watched else False, None, f"linearised training of {start.size} samples") as row:
        found = follow_convex(flow, start, t.reshape(-1)).reshape(*t.shape, flow.offset.size)
        return found.block_until_ready() if watched and row.wanted else found


_factor = jax.jit(factor)
