"""The residuals of the named losses in plain NumPy, from their definitions: laws are not tried with those of the library.

Whether a loss stops at a margin, pulls back or comes to rest, a draw asks the `Loss`, which states these facts.
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
    """A bound on g and |g'| while margins rise from `margin`: 1, and more for a loss of which g is unbounded below 0.

    >>> steepest("hinge", np.array([-1.0, 1.0])), steepest("exponential", np.array([-1.0, 1.0])).round(3)
    (1.0, array([2.718, 1.   ]))
    """
    return RESIDUALS[loss](np.minimum(margin, 0)) if as_loss(loss).offset == 0 else 1.0
