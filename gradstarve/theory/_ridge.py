"""Where a linearised network with a ridge or an output penalty comes to rest, and who starves whom (14.2 to 14.4)."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.ground import ConvergenceError, check_positive, is_concrete, positive_int, real_arrays
from gradstarve.special import invert, lambertw_exp
from gradstarve.theory._kernel import check_kernel, check_strength, factor, features

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
        """z = U^T m, [k]: what is learnt of each feature, U [n, k] as `features` gives it."""
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


@jax.jit
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
        # Newton's step is a least-squares problem, whose condition is the root of that of the second derivative.
        steep = jnp.sqrt(jax.nn.sigmoid(m) * jax.nn.sigmoid(-m))
        rows = jnp.concatenate([steep[:, None] * basis, root * jnp.eye(size, dtype=dtype)])
        wanted = jnp.concatenate([jnp.exp(-m / 2), -root * w])
        Q, R = jnp.linalg.qr(rows)
        move = jax.scipy.linalg.solve_triangular(R, Q.T @ wanted)
        change = basis @ move
        far = jnp.max(jnp.abs(change))
        # sigmoid' changes by at most e^|dm|, so that log(1 + d)/d of a step whose margins change by d lowers the loss for
        # sure; of this and a few others the best one is taken, until steps are so short that the loss is all rounding.
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
    # R^-1 enlarges the rounding of samples that are learnt well; once more on what is left over.
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


@jax.jit
def _starvation(kernel: Array, ridge: Array, m: Array, U: Array) -> Array:
    return U.T @ _responses(kernel, ridge, m, U * (jax.nn.sigmoid(-m) @ U))


def spectral_decoupling_optimum(n, penalty) -> Float[Array, " n"]:
    """The margins [n] under (penalty/2) |f|^2 in place of a ridge: all m_i = m, sigmoid(-m) = penalty m (14.4).

    `n` samples, `penalty` > 0 for the loss summed over samples, sum_i [log(1 + e^-m_i) + (penalty/2) m_i^2], m = Y f,
    labels ±1. Holds whenever the outputs can take any values, that is when K has full rank; then z* = U^T m, whatever the
    strengths, and m ~ W(1/penalty) for small penalties. (Otherwise the optimum depends on K: `spectral_decoupling_flow`.)
    Relative error a few roundings for any penalty; differentiable in it. `ValueError` for a bad n or penalty.

    >>> [round(float(m), 4) for m in spectral_decoupling_optimum(2, 0.002)]
    [4.6651, 4.6651]
    """
    n = positive_int("n", n)
    (penalty,) = real_arrays(penalty=penalty)
    check_positive("penalty", penalty)
    check_strength("penalty", penalty)
    return jnp.broadcast_to(_decoupled(penalty), (n,))


@jax.jit
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
