"""Training of the linearised network (14.1) under every remedy that is linear in the network, without a network.

With psi_i = y_i dF(x_i)/dtheta and K = psi psi^T the weights move by sum_i a_i psi_i, and all of training is in a, [n]:

    m = m_0 + K a,    da_i/dt = w_i (sigmoid(-m_i) - penalty m_i) - ridge a_i

w_i = 1, penalty = ridge = 0 is (14.1); weights re-weight the samples, `penalty` is that of spectral decoupling and
`ridge` that of weight decay towards the first weights, as in (14.2). The flow is stiff (strengths span many powers of
ten) with real eigenvalues <= 0, for which the stabilised explicit Runge-Kutta-Chebyshev method of second order was made
(Sommeijer, Shampine and Verwer, J. Comput. Appl. Math. 88, 1998): s stages reach steps of 0.65 s^2 over the largest
eigenvalue, and all it needs are products with K, so that hundreds of samples take milliseconds and nothing is compiled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from scipy.special import expit

from gradstarve.ground import ConvergenceError

_DAMPING = 2 / 13
_MOST_STAGES = 400
TOLERANCE = 1e-6  # of a step, relative to 1 + |m|


def train_linearised(
    kernel: np.ndarray,
    start: np.ndarray,
    times: np.ndarray,
    *,
    weights: np.ndarray | float = 1.0,
    ridge: float = 0.0,
    penalty: float = 0.0,
    rtol: float = TOLERANCE,
    max_steps: int = 20_000,
) -> np.ndarray:
    """Margins [times, n] at the rising `times` >= 0, from `start` [n] at time 0, for the loss summed over samples.

    `kernel` [n, n] is symmetric and positive semi-definite. Each step keeps the local error of the margins below
    rtol (1 + |m|). `ConvergenceError` where `max_steps` do not reach the last time, before the first step if none of them
    can be long enough.

    >>> m = train_linearised(np.eye(1), np.zeros(1), np.array([0.0, 2.0]))  # (3.9): m + e^m = t + 1
    >>> bool(abs(m[1, 0] + np.exp(m[1, 0]) - 3) < 1e-4)
    True
    """
    weights = np.broadcast_to(np.asarray(weights, np.float64), start.shape)

    def field(a, m):
        return weights * (expit(-m) - penalty * m) - ridge * a

    # sigmoid' is at most 1/4.
    radius = largest_eigenvalue(kernel) * weights.max() * (0.25 + penalty) + ridge
    return integrate(kernel.__matmul__, start, times, field, radius, rtol=rtol, max_steps=max_steps)


def integrate(
    product: Callable[[np.ndarray], np.ndarray],
    start: np.ndarray,
    times: np.ndarray,
    field: Callable[[np.ndarray, np.ndarray], np.ndarray],
    radius: float,
    *,
    rtol: float = TOLERANCE,
    max_steps: int = 20_000,
) -> np.ndarray:
    """m = start + product(a) [times, *shape] of da/dt = field(a, m), a = 0 at time 0, for arrays of any shape.

    `radius` is at least the largest eigenvalue, in size, of the derivative of the right-hand side. Errors as in
    `train_linearised`.
    """
    if radius == 0:
        return np.broadcast_to(start, (len(times), *start.shape)).copy()
    a, m, t = np.zeros(start.shape), start.astype(np.float64), 0.0
    slope = field(a, m)
    most = 0.65 * (_MOST_STAGES**2 - 1) / radius
    if times[-1:].sum() > max_steps * most:
        raise ConvergenceError(
            f"the linearised training does not get to time {times[-1]:.3g}: {max_steps} steps end at {max_steps * most:.3g} "
            "at the latest; ask for earlier times"
        )
    step = 0.05 / radius
    records, steps = np.empty((len(times), *start.shape)), 0
    for k, until in enumerate(times):
        while t < until:
            if steps >= max_steps:
                raise ConvergenceError(
                    f"the linearised training stopped at time {t:.3g} of {times[-1]:.3g} after {max_steps} steps; ask for "
                    "earlier times"
                )
            step = min(step, most)
            last = until - t <= step * 1.0000001
            h = until - t if last else step
            new = _stages(product, start, field, a, slope, h, radius)
            new_m = start + product(new)
            new_slope = field(new, new_m)
            error = product(0.8 * (a - new) + 0.4 * h * (slope + new_slope))
            ratio = float(np.max(np.abs(error) / (1 + np.abs(new_m)))) / rtol
            steps += 1
            factor = min(5.0, max(0.1, 0.8 * max(ratio, 1e-12) ** (-1 / 3)))
            if ratio <= 1:
                a, m, slope, t = new, new_m, new_slope, (until if last else t + h)
                step = step if last and h < 0.5 * step and factor > 1 else h * factor
            else:
                step = h * min(factor, 0.9)
        records[k] = m
    return records


def largest_eigenvalue(kernel: np.ndarray) -> float:
    """An upper bound by some per cent: twenty power iterations, or the exact value where the matrix is small."""
    n = len(kernel)
    if n <= 64:
        return float(np.linalg.eigvalsh(kernel)[-1]) if n else 0.0
    vector = np.abs(kernel).sum(1) + 1e-300
    value = 0.0
    for _ in range(20):
        vector = kernel @ (vector / np.linalg.norm(vector))
        value = float(np.linalg.norm(vector))
        if value == 0:
            return 0.0
    return 1.05 * value


@lru_cache(maxsize=512)
def _coefficients(stages: int):
    """mu, nu, mu~, gamma~ of the method, [stages + 1] each (entries 0 and 1 of the first two unused), and mu~_1."""
    w0 = 1 + _DAMPING / stages**2
    t, dt, ddt = np.zeros((3, stages + 1))
    t[0], t[1], dt[1] = 1, w0, 1
    for j in range(2, stages + 1):
        t[j] = 2 * w0 * t[j - 1] - t[j - 2]
        dt[j] = 2 * t[j - 1] + 2 * w0 * dt[j - 1] - dt[j - 2]
        ddt[j] = 4 * dt[j - 1] + 2 * w0 * ddt[j - 1] - ddt[j - 2]
    w1 = dt[stages] / ddt[stages]
    b = np.empty(stages + 1)
    b[2:] = ddt[2:] / dt[2:] ** 2
    b[0] = b[1] = b[2]
    mu, nu, mu_tilde, gamma = np.zeros((4, stages + 1))
    mu_tilde[1] = b[1] * w1
    for j in range(2, stages + 1):
        mu[j], nu[j] = 2 * b[j] * w0 / b[j - 1], -b[j] / b[j - 2]
        mu_tilde[j] = 2 * b[j] * w1 / b[j - 1]
        gamma[j] = -(1 - b[j - 1] * t[j - 1]) * mu_tilde[j]
    return mu, nu, mu_tilde, gamma


def _stages(product, start, field, a, slope, h, radius):
    """One step of size h from a."""
    stages = max(2, int(np.ceil(np.sqrt(1 + h * radius / 0.65))))
    mu, nu, mu_tilde, gamma = _coefficients(stages)
    before, now = a, a + mu_tilde[1] * h * slope
    for j in range(2, stages + 1):
        field_now = field(now, start + product(now))
        following = (1 - mu[j] - nu[j]) * a + mu[j] * now + nu[j] * before
        following += mu_tilde[j] * h * field_now + gamma[j] * h * slope
        before, now = now, following
    return now
