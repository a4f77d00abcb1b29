"""The settings of phase diagrams, looked at before anything is computed."""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve.ground import as_floats, as_number, as_pair, check_normal, did_you_mean, shown

LOSSES = ("cross-entropy", "hinge", "exponential")


def real(values: Any) -> np.ndarray:
    """The values in JAX's default precision."""
    return np.asarray(values, jnp.result_type(float))


def positive(name: str, value: Any) -> float:
    """A finite number above 0, or a `ValueError` that quotes what came."""
    try:
        found = as_number(name, value, 0)
    except ValueError:
        found = 0.0
    check_normal(name, np.asarray(found))
    if found == 0:
        raise ValueError(f"{name} must be a finite number above 0, got {shown(value)}")
    return found


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """One or several finite numbers, none twice."""
    try:
        result = tuple(as_floats(name, value).reshape(-1).tolist())
    except ValueError:
        result = ()
    if not result or not all(map(math.isfinite, result)) or len(set(result)) < len(result):
        raise ValueError(f"{name} must be one or several different finite numbers, got {shown(value)}")
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
    first, second = as_pair(name, value, "(class +, class -)")
    return positive(name, first), positive(name, second)


def losses(value: Any) -> tuple[str, ...]:
    """One loss or several, of those whose margins pass 1."""
    several = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    names = tuple(value) if several else (value,)
    for name in names:
        if not isinstance(name, str) or name not in LOSSES:
            why = " (its margin only tends to 1)" if isinstance(name, str) and name == "squared" else ""
            meant = did_you_mean(name, LOSSES)
            raise ValueError(f"loss must be among {', '.join(LOSSES)}, got {shown(name)}{why}{meant}")
    names = tuple(map(str, names))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"loss must be one or several different losses, got {shown(value)}")
    return names
