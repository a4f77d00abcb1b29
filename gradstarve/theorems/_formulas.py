"""The residuals of the named losses in plain NumPy, from their definitions, independent of the library's own.

Facts such as whether a loss stops at a margin, pulls back or comes to rest are read from the `Loss`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve.problem import as_loss

RESIDUALS: dict[str, Callable[[Any], Any]] = {
    "cross-entropy": lambda u: 1 / (1 + np.exp(u)),
    "hinge": lambda u: np.where(u < 1, 1.0, 0.0),
    "exponential": lambda u: np.exp(-u),
    "squared": lambda u: 1 - u,
}
"""g(u)."""

LOG_SLOPES: dict[str, Callable[[Any], Any]] = {
    "cross-entropy": lambda u: -1 / (1 + np.exp(-u)),
    "hinge": lambda u: np.zeros_like(u),
    "exponential": lambda u: -np.ones_like(u),
    "squared": lambda u: -1 / (1 - u),
}
"""g'(u)/g(u), where g is not 0."""

SMOOTH = ("cross-entropy", "exponential", "squared")
"""The losses whose residual does not jump."""


def steepest(loss: str, margin: np.ndarray) -> Any:
    """A bound on g and |g'| while margins rise from `margin`: 1, or more for a loss whose g is unbounded below margin 0.

    >>> steepest("hinge", np.array([-1.0, 1.0])), steepest("exponential", np.array([-1.0, 1.0])).round(3)
    (1.0, array([2.718, 1.   ]))
    """
    return RESIDUALS[loss](np.minimum(margin, 0)) if as_loss(loss).offset == 0 else 1.0


# Curves in plain NumPy, as accurate as a figure needs, without compilation.

_FINE = 4000


def mode_curve(residual: Callable[[Any], Any], norm: float, a: np.ndarray, zeta: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """The logit u of neurons (a, zeta) [h] that stay or leave, at 2 p r t = `tau`, by (3.2) and (3.10).

    Along the angle s of the clock: u = r sum a_j zeta_j over the neurons with s_j > s, and d tau = 2 ds / g(u). Off by less
    than 1e-3.

    >>> round(float(mode_curve(RESIDUALS["hinge"], 1.0, np.array([0.1]), np.array([0.1]), np.array([2.0]))[0]), 3)
    0.074
    """
    with np.errstate(all="ignore"):  # overflow means later than any tau
        leaves = np.where(zeta < -a, np.arctanh(a / np.maximum(np.abs(zeta), 1e-300)), np.inf)
        for reach in 2.0 ** np.arange(8):
            s = np.linspace(0, reach, _FINE)[:, None]
            products = (a * np.cosh(s) + zeta * np.sinh(s)) * (zeta * np.cosh(s) + a * np.sinh(s))
            u = norm * np.sum(np.where(s < leaves, products, 0), axis=-1)
            found = time_along(s[:, 0], 2 / np.asarray(residual(u), float))
            if found[-1] >= np.max(tau):
                break
    return read_off(tau, found, u)


def time_along(place: np.ndarray, slowness: np.ndarray) -> np.ndarray:
    """The integral of dt/dplace from the first place on; infinite from the first place that is never left."""
    good = np.isfinite(slowness) & (slowness >= 0)
    each = np.where(good[1:] & good[:-1], np.diff(place) * (slowness[1:] + slowness[:-1]) / 2, np.inf)
    return np.concatenate([[0.0], np.cumsum(each)])


def read_off(times: np.ndarray, found: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values`, known at the times `found`, interpolated at `times`; constant after the last finite time."""
    moving = np.isfinite(found) & np.isfinite(values)
    return np.interp(times, found[moving], values[moving])


def path_curve(residual: Callable[[Any], Any], norm: float, path: np.ndarray, pace: np.ndarray) -> np.ndarray:
    """The logit of one path of N positive weights at N p r^(2/N) t = `pace`, along rho of (7.2): b_l^2 = rho + c_l.

    >>> round(float(path_curve(RESIDUALS["hinge"], 1.0, np.array([0.1, 0.1]), np.array([2.0]))[0]), 3)
    0.074
    """
    N = len(path)
    with np.errstate(all="ignore"):
        rho = np.concatenate([[0.0], np.geomspace(1e-6, 1e4, _FINE)])
        size = np.sqrt(np.square(path) + rho[:, None])
        u = norm * np.prod(size, axis=-1)
        found = time_along(rho, N * norm ** (2 / N) / (2 * np.asarray(residual(u), float) * u))
    return read_off(pace, found, u)
