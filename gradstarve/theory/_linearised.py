"""Linearised networks (section 14): the features of any model on its data, and how fast and how far they are learnt.

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

from gradstarve.ground import (
    ConvergenceError,
    Progress,
    check_fits,
    check_positive,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
)
from gradstarve.special import invert, lambertw_exp
from gradstarve.theory._flows import ConvexFlow, follow_convex
from gradstarve.theory._piecewise import check_times

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


# The kernel K = Y Phi Phi^T Y (section 14): checks, a factor that is accurate in small rows too, and features.


def check_kernel(K: Any, **beside: Any) -> tuple[Array, ...]:
    """K and the named values as arrays of one precision; `ValueError` unless K is square, symmetric and without negative
    eigenvalues, up to the root of the rounding."""
    arrays = real_arrays(K=K, **beside)
    kernel = arrays[0]
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 0:
        raise ValueError(f"K must be a square matrix [n, n] with n >= 1, got shape {kernel.shape}")
    if is_concrete(kernel):
        values = np.asarray(kernel, np.float64)
        slack = float(np.sqrt(jnp.finfo(kernel.dtype).eps))
        off = np.abs(values - values.T)
        if off.max() > slack * np.abs(values).max():
            i, j = np.unravel_index(np.argmax(off), off.shape)
            raise ValueError(
                f"K must be symmetric, but K[{i}, {j}] = {values[i, j]:.6g} and K[{j}, {i}] = {values[j, i]:.6g}; "
                "give Y Phi Phi^T Y, or (K + K.T) / 2"
            )
        least, most = np.linalg.eigvalsh((values + values.T) / 2)[[0, -1]]
        if least < -slack * max(most, 0):
            raise ValueError(
                f"K must be positive semi-definite, but has the eigenvalue {least:.6g} (the largest is {most:.6g}); "
                "give Y Phi Phi^T Y, labels on both sides"
            )
    return (jnp.tril(kernel) + jnp.tril(kernel, -1).T, *arrays[1:])


def check_strength(name: str, value: Array) -> None:
    """Raise a `ValueError` unless `value` is one number > 0."""
    if value.ndim:
        raise ValueError(f"{name} must be one number, got shape {value.shape}; vmap over several")
    check_positive(name, value)
    if is_concrete(value) and float(value) < float(jnp.finfo(value.dtype).tiny):
        raise ValueError(f"{name} = {float(value)} is subnormal in {value.dtype}, where compiled code takes it for 0")


def factor(K: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """B with B B^T = K by Cholesky's method with pivots: columns of zeros beyond the rank.

    Rows of very different size each keep their own relative accuracy: |B B^T - K|_ij is a few n roundings of
    sqrt(K_ii K_jj). A row that equals a combination of earlier rows up to 2 n roundings of its own diagonal counts as
    dependent: it gets no new column, but entries in all columns. (A remainder that is a share e of its diagonal can still be
    sqrt(e) of its products with later rows, so its entries in their columns cannot be left out.)
    """
    size, diagonal = K.shape[0], jnp.maximum(jnp.diagonal(K), 0)
    least = 2 * size * jnp.finfo(K.dtype).eps * diagonal

    def column(k, state):
        rest, left, free, columns = state
        # The largest remainder relative to the size of its row, so that a small row does not count as dependent.
        share = jnp.where(free & (left > least), left, 0)
        pivot = jnp.argmax(share)
        height = share[pivot]
        new = jnp.where(height > 0, rest[:, pivot] / jnp.sqrt(jnp.where(height > 0, height, 1)), 0)
        new = jnp.where(free, new, 0)
        rest = rest - new[:, None] * new
        left = jnp.maximum(left - new**2, 0)
        return rest, left, free & (jnp.arange(size) != pivot), columns.at[:, k].set(new)

    return jax.lax.fori_loop(0, size, column, (K, diagonal, diagonal > 0, jnp.zeros_like(K)))[3]


def features(K) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Strengths s^2 [n], falling, and features U [n, n], one per column: K = U diag(s^2) U^T, K [n, n] = Y Phi Phi^T Y.

    The response of feature i is z_i = U[:, i] . m, m = Y f (signed outputs, labels ±1). Signs are such that U^T 1 >= 0:
    the force on z_i is positive at the start. If strengths agree (to rounding, relative to the largest) only the span of
    their features is determined, and the result is any basis of it; if the sum of a feature is zero to rounding,
    its largest entry is positive. Strengths below n roundings of the largest are 0. `ValueError` for a K that is not
    symmetric and positive semi-definite, or has entries that are not finite.

    >>> strengths, U = features([[2.0, 1.0], [1.0, 2.0]])
    >>> [round(float(s), 5) for s in strengths], [round(float(u), 4) for u in U[:, 0]]
    ([3.0, 1.0], [0.7071, 0.7071])
    """
    (kernel,) = check_kernel(K)
    return _features(kernel)


@quick_jit(few=0)
def _features(kernel: Array) -> tuple[Array, Array]:
    strengths, U = jnp.linalg.eigh(kernel)
    strengths, U = strengths[::-1], U[:, ::-1]
    noise = kernel.shape[0] * jnp.finfo(kernel.dtype).eps
    strengths = jnp.where(strengths > noise * jnp.max(jnp.abs(strengths)), strengths, 0)
    total = jnp.sum(U, axis=0)
    largest = jnp.take_along_axis(U, jnp.argmax(jnp.abs(U), axis=0)[None], axis=0)[0]
    up = jnp.where(jnp.abs(total) > noise, total, largest) >= 0
    return strengths, jnp.where(up, U, -U)


# The rest of a linearised network with a ridge or an output penalty, and which feature starves which (14.2 to 14.4).

_MOST_STEPS = 1000
_ALLOWED = {"float64": 1e-10, "float32": 1e-3}  # of the residual; beyond it something is wrong


class RidgeOptimum(eqx.Module):
    """The optimum of sum_i log(1 + e^-m_i) + (ridge/2) |theta|^2 (14.2). Made by `ridge_optimum`.

    - `alpha`: sigmoid(-m), the error of each sample, [n]; `margins`: m = K alpha / ridge, signed outputs Y f, [n];
    - `residual`: max_i |ridge m_i - (K alpha)_i| / (ridge |m_i| + (|K| alpha)_i): m is exact for entries of K and a ridge
      changed by that part of themselves.
    """

    alpha: Float[Array, " n"]
    margins: Float[Array, " n"]
    residual: Float[Array, ""]

    def response(self, U) -> Float[Array, " k"]:
        """z = U^T m, [k]: how far each feature is learnt, with U [n, k] from `features`."""
        (U,) = real_arrays(U=U)
        if U.ndim != 2 or U.shape[0] != self.margins.size:
            raise ValueError(f"U must be [n, k] with n = {self.margins.size} samples, got shape {U.shape}")
        return U.T @ self.margins


def ridge_optimum(K, ridge) -> RidgeOptimum:
    """The optimum under a ridge: m = K alpha / ridge, alpha = sigmoid(-m) (14.2).

    `K`: Y Phi Phi^T Y [n, n], symmetric and positive semi-definite, singular ones included; `ridge` > 0, one number, for
    the loss SUMMED over samples, sum_i log(1 + e^-m_i) + (ridge/2) |theta|^2. Labels ±1 are in K: m = Y f.

    Newton's method on the weights theta = B alpha / ridge, K = B B^T, by least squares, with steps short enough that the
    loss falls for sure; alpha is read off m, so that neither sigmoid(-40) nor 1 - sigmoid(-40) is lost. In float64 the
    residual is below 1e-12 for ridges from 1e-12 to 1e6 and n up to a few hundred. Differentiable in K and ridge, by the
    implicit function theorem, any number of times. `ValueError` for bad K or ridge, `ConvergenceError` if the residual
    stays above 1e-10 (1e-3 in float32).

    >>> best = ridge_optimum([[4.0]], 0.01)     # one feature: s^2 alpha / ridge = log((1 - alpha) / alpha)
    >>> round(float(best.margins[0]), 4), round(float(best.alpha[0]), 5)
    (4.4805, 0.0112)
    """
    kernel, ridge = check_kernel(K, ridge=ridge)
    check_strength("ridge", ridge)
    found = _optimum(kernel, ridge)
    allowed = _ALLOWED[kernel.dtype.name]
    advice = "give K in float64 (jax_enable_x64)" if kernel.dtype == jnp.float32 else "give a larger ridge"
    message = f"the optimum under the ridge was not found to {allowed:g}; {advice}"
    if not is_concrete(found.residual):
        return eqx.error_if(found, ~(found.residual <= allowed), message)
    if not bool(found.residual <= allowed):
        raise ConvergenceError(f"{message} (the residual is {float(found.residual):.2g})")
    return found


@quick_jit(few=0)
def _optimum(kernel: Array, ridge: Array) -> RidgeOptimum:
    m = _margins(kernel, ridge)
    alpha = jax.nn.sigmoid(-m)
    size = ridge * jnp.abs(m) + jnp.abs(kernel) @ alpha
    off = jnp.abs(ridge * m - kernel @ alpha) / jnp.where(size > 0, size, 1)
    return RidgeOptimum(alpha, m, jax.lax.stop_gradient(jnp.max(off)))


@jax.custom_jvp
def _margins(kernel: Array, ridge: Array) -> Array:
    """The margins of the optimum, [n]."""
    basis = factor(kernel)
    dtype, size, root = kernel.dtype, kernel.shape[0], jnp.sqrt(ridge)
    eps = jnp.finfo(dtype).eps

    def step(state):
        w, _, last, count = state
        m = basis @ w
        # Newton's step is a least-squares problem, whose condition number is the root of that of the Hessian.
        steep = jnp.sqrt(jax.nn.sigmoid(m) * jax.nn.sigmoid(-m))
        rows = jnp.concatenate([steep[:, None] * basis, root * jnp.eye(size, dtype=dtype)])
        wanted = jnp.concatenate([jnp.exp(-m / 2), -root * w])
        Q, R = jnp.linalg.qr(rows)
        move = jax.scipy.linalg.solve_triangular(R, Q.T @ wanted)
        change = basis @ move
        far = jnp.max(jnp.abs(change))
        # sigmoid' changes by at most e^|dm|, so that log(1 + d)/d of a step whose margins change by d lowers the loss for
        # sure; the best of this step and a few others is taken, until changes of the loss are below its rounding.
        parts = jnp.append(2.0 ** jnp.arange(3, -13, -1, dtype), jnp.log1p(far) / jnp.where(far > 0, far, 1))
        losses = jnp.sum(jax.nn.softplus(-(m + parts[:, None] * change)), axis=-1)
        losses = losses + ridge * (parts * (w @ move) + parts**2 * (move @ move) / 2)
        part = jnp.where(far > 0.1, parts[jnp.nanargmin(losses)], 1)
        return w + part * move, last, jnp.max(jnp.abs(change) / (1 + jnp.abs(m))), count + 1

    def moving(state):
        _, before, last, count = state
        noise = (last < 1e5 * eps) & (last > before / 2)
        return ~((last <= 2 * eps) | noise) & (count < _MOST_STEPS)

    far = jnp.asarray(jnp.inf, dtype)
    w, *_ = jax.lax.while_loop(moving, step, (jnp.zeros(size, dtype), far, far, 0))
    return basis @ w


@_margins.defjvp
def _(primals, tangents):
    (kernel, ridge), (dkernel, dridge) = primals, tangents
    m = _margins(kernel, ridge)
    return m, _responses(kernel, ridge, m, dkernel @ jax.nn.sigmoid(-m) - dridge * m)


def _responses(kernel: Array, ridge: Array, m: Array, forces: Array) -> Array:
    """(ridge + K D)^-1 `forces` [n] or [n, k], D = diag sigmoid'(m): R^-1 (ridge + R K R)^-1 R with R = sqrt D."""
    steep = jnp.sqrt(jax.nn.sigmoid(m) * jax.nn.sigmoid(-m))
    middle = ridge * jnp.eye(m.size, dtype=m.dtype) + steep[:, None] * kernel * steep
    lower = jax.scipy.linalg.cho_factor(middle, lower=True)
    root = steep if forces.ndim == 1 else steep[:, None]

    def solve(right):
        return jax.scipy.linalg.cho_solve(lower, root * right) / root

    found = solve(forces)
    # R^-1 enlarges the rounding of samples that are learnt well; one step of iterative refinement corrects it.
    return found + solve(forces - ridge * found - kernel @ (root**2 * found))


def starvation_derivatives(K, ridge) -> Float[Array, "n n"]:
    """[n, n], entry (j, i) is d z_j* / d(s_i^2): feature i starves feature j where it is < 0 (14.3).

    z* = U^T m* are the responses at the optimum under the ridge (14.2) and s_i^2 the strengths, both in the order of
    `features(K)`; K [n, n] = U S^2 U^T, ridge > 0 for the summed loss. From (ridge + K D) dm = u_i (u_i . alpha) d(s_i^2),
    D = diag sigmoid'(m): features U are held, strengths vary. Where strengths agree the basis U is not unique, and so are
    neither z nor these numbers. Errors as in `ridge_optimum`.

    >>> U = jnp.array([[0.75**0.5, -0.5], [0.5, 0.75**0.5]])
    >>> table = starvation_derivatives(U * jnp.array([9.0, 4.0]) @ U.T, 0.01)
    >>> bool(table[1, 0] < 0)                          # a stronger first feature takes from the second
    True
    """
    kernel, ridge = check_kernel(K, ridge=ridge)
    best = ridge_optimum(kernel, ridge)
    _, U = features(kernel)
    return _starvation(kernel, ridge, best.margins, U)


@quick_jit(few=0)
def _starvation(kernel: Array, ridge: Array, m: Array, U: Array) -> Array:
    return U.T @ _responses(kernel, ridge, m, U * (jax.nn.sigmoid(-m) @ U))


def spectral_decoupling_optimum(n, penalty) -> Float[Array, " n"]:
    """The margins [n] under (penalty/2) |f|^2 instead of a ridge: all m_i = m, sigmoid(-m) = penalty m (14.4).

    `n` samples, `penalty` > 0 for the loss summed over samples, sum_i [log(1 + e^-m_i) + (penalty/2) m_i^2], m = Y f,
    labels ±1. Holds if the outputs can take any values, that is, if K has full rank; then z* = U^T m for any strengths,
    and m ~ W(1/penalty) for small penalties. (Otherwise the optimum depends on K: `spectral_decoupling_flow`.)
    Relative error a few roundings for any penalty; differentiable in it. `ValueError` for a bad n or penalty.

    >>> [round(float(m), 4) for m in spectral_decoupling_optimum(2, 0.002)]
    [4.6651, 4.6651]
    """
    n = positive_int("n", n)
    (penalty,) = real_arrays(penalty=penalty)
    check_positive("penalty", penalty)
    check_strength("penalty", penalty)
    return jnp.broadcast_to(_decoupled(penalty), (n,))


@quick_jit(few=0)
def _decoupled(penalty: Array) -> Array:
    """log m + log(1 + e^m) = -log penalty, solved for y = log m."""

    def level(y, _):
        m = jnp.exp(y)
        return y + jax.nn.softplus(m), 1 + m * jax.nn.sigmoid(m)

    goal = -jnp.log(penalty)
    guess = jnp.log(lambertw_exp(goal))  # W(1/penalty) is above the solution, 1/(2 penalty) as well
    low = jnp.minimum(goal - jnp.log(2.0) - 1, guess) - 1
    high = jnp.minimum(guess, goal - jnp.log(jnp.asarray(2.0, penalty.dtype))) + 1e-3
    m = jnp.exp(invert(level, (), low, high, high, goal))
    # At large penalties y is a large number; sigmoid(-m) barely depends on m there.
    return jnp.where(m < 0.5, jax.nn.sigmoid(-m) / penalty, m)


# Flows.


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
    cost much. m stops where sigmoid(-m) underflows: at s^2 t = 1e307 (1e37 in float32).
    Margins are within 1e-10 (1e-4) of (1 + |m|) for K changed by its own rounding: features weaker than
    n roundings of the strongest are not in a K of that precision, and those 1e10 times weaker than it known to six digits.
    `ValueError` for bad input; `ConvergenceError` if the integration fails. Works in jit and vmap, and in forward-mode
    differentiation (`jax.jvp`, `jax.jacfwd`), twice too, in K of full rank, `start` and `times`; reverse mode is refused by
    JAX. Late derivatives, which fall as e^-m, are right to 1e-6 of their own size (1e-4 in float32).

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
    # The errors that count are those of the margins K alpha / ridge.
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
