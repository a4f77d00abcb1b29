"""The settings of phase diagrams, looked at before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

LOSSES = ("cross-entropy", "hinge", "exponential")


def real(values: Any) -> np.ndarray:
    """The values in JAX's default precision."""
    return np.asarray(values, jnp.result_type(float))


def positive(name: str, value: Any) -> float:
    """A finite number above 0, or a `ValueError` that quotes what came."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        result = math.nan
    if isinstance(value, bool) or not 0 < result < math.inf:
        raise ValueError(f"{name} must be a finite number above 0, got {value!r}")
    return result


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """One or several finite numbers, none twice."""
    values = np.atleast_1d(np.asarray(value, dtype=object)).reshape(-1)
    try:
        result = tuple(float(one) for one in values)
    except (TypeError, ValueError):
        result = ()
    if not result or not all(map(math.isfinite, result)) or len(set(result)) < len(result):
        raise ValueError(f"{name} must be one or several different finite numbers, got {value!r}")
    return result


def positives(name: str, value: Any) -> tuple[float, ...]:
    """One or several different numbers above 0."""
    return tuple(positive(name, one) for one in numbers(name, value))


def cosines(value: Any) -> tuple[float, ...]:
    """Cosines in [-1, 0] of the angle between the classes."""
    result = numbers("cosines", value)
    for one in result:
        if not -1 <= one <= 0:
            raise ValueError(f"cosines must be in [-1, 0], where classes are orthogonally separable, got {one}")
    return tuple(one + 0.0 for one in result)


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers above 0, of class + and class -."""
    if np.shape(value) != (2,):
        raise ValueError(f"{name} must be a pair (class +, class -), got {value!r}")
    return positive(name, value[0]), positive(name, value[1])


def losses(value: Any) -> tuple[str, ...]:
    """One loss or several, of those whose margins pass 1."""
    names = (value,) if isinstance(value, str) else tuple(value)
    for name in names:
        if name not in LOSSES:
            why = " (its margin only tends to 1)" if name == "squared" else ""
            raise ValueError(f"loss must be among {', '.join(LOSSES)}, got {name!r}{why}")
    if not names or len(set(names)) < len(names):
        raise ValueError(f"loss must be one or several different losses, got {value!r}")
    return names
