"""What counts as an array here, decided in one place: precision, promotion, and the errors of bad input.

Rules. Precision follows the arrays given: float32 stays float32, float64 stays float64 when JAX runs with 64 bits.
Python numbers, lists and integer arrays take the precision of the arrays beside them, or JAX's default one where
there are none. float64 arrays given while JAX is in 32-bit mode are rounded to float32 with one warning. Half
precision and complex arrays are refused: no law of this library is accurate in the first or defined for the second.
"""

from __future__ import annotations

import sys
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

_ALLOWED = (np.dtype("float32"), np.dtype("float64"))
_INSIDE = ("gradstarve", "equinox", "jaxtyping", "beartype", "jax", "")
_warned_about_x64 = False


def is_concrete(value: Any) -> bool:
    """Whether the numbers in `value` can be looked at now (False inside jit, vmap and grad)."""
    return not isinstance(value, Tracer)


def _warn_once_about_x64(name: str) -> None:
    global _warned_about_x64
    if not _warned_about_x64:
        _warned_about_x64 = True
        # Point at the caller: the first line that is neither ours nor that of the libraries between.
        frame, depth = sys._getframe(), 1
        while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
            frame, depth = frame.f_back, depth + 1
        warnings.warn(
            f"{name} is float64 but JAX runs in 32-bit mode, so it is rounded to float32. To keep 64 bits put "
            'jax.config.update("jax_enable_x64", True) before the first array is made.',
            UserWarning,
            stacklevel=depth,
        )


def _dtype_given(name: str, value: Any) -> np.dtype | None:
    """The precision `value` asks for, or None when it has no opinion (Python numbers, lists, integers)."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or getattr(value, "weak_type", False):
        kind = np.asarray(value).dtype.kind if dtype is None else np.dtype(dtype).kind
        if kind == "c":
            raise ValueError(f"{name} is complex; give its real part (all quantities here are real)")
        if kind not in "fiub":
            raise ValueError(f"{name} must hold numbers, got {value!r}")
        return None
    dtype = np.dtype(dtype)
    if dtype.kind == "c":
        raise ValueError(f"{name} has dtype {dtype}; give its real part (all quantities here are real)")
    if dtype.kind in "iub":
        return None
    if dtype not in _ALLOWED:
        raise ValueError(f"{name} has dtype {dtype}; use float32 or float64, for example {name}.astype('float32')")
    if dtype == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        _warn_once_about_x64(name)
        return np.dtype("float32")
    return dtype


def real_arrays(**named: Any) -> tuple[Array, ...]:
    """The named values as JAX arrays of one common real dtype, in the order given.

    Raises `ValueError` for half precision, complex, non-numeric and ragged values, a lone True or False, and for NaN or
    infinite entries.

    >>> a, b = real_arrays(a=[1, 2], b=3.0)
    >>> a.dtype == b.dtype
    True
    """
    opinions = []
    for name, value in named.items():
        if isinstance(value, bool | np.bool_):
            raise ValueError(f"{name} must be a number, got {value!r}")
        try:
            dtype = _dtype_given(name, value)
        except ValueError as error:
            if "inhomogeneous" in str(error):
                raise ValueError(f"{name} has rows of different lengths; give a rectangular array") from None
            raise
        if dtype is not None:
            opinions.append(dtype)
    dtype = jnp.result_type(*opinions) if opinions else jnp.result_type(float)
    arrays = tuple(jnp.asarray(value, dtype=dtype) for value in named.values())
    for name, array in zip(named, arrays, strict=True):
        if is_concrete(array):
            check_finite(name, np.asarray(array))
    return arrays


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise a `ValueError` that names the first entry of `array` that is NaN or infinite."""
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"{name}[{', '.join(map(str, where))}]" if where else name
        raise ValueError(f"{place} = {array[where]} is not finite; clean the input ({int(bad.sum())} such entries)")


def check_positive(name: str, array: Array) -> None:
    """Raise a `ValueError` that names the first entry of `array` that is not above zero (if it can be seen)."""
    if is_concrete(array):
        values = np.asarray(array)
        bad = ~(values > 0)
        if bad.any():
            raise ValueError(f"{name} must be > 0, got {values[bad].flat[0]}")


def check_normal(name: str, array: Array) -> None:
    """Raise a `ValueError` that names the first subnormal entry of `array`, which XLA takes for 0 (if it can be seen)."""
    if is_concrete(array):
        values, least = np.asarray(array), np.finfo(array.dtype).tiny
        bad = (values != 0) & (np.abs(values) < least)
        if bad.any():
            raise ValueError(
                f"{name} = {values[bad].flat[0]} is subnormal in {array.dtype} (below {least:.4g}) and flushed to 0; "
                + ("give it as float64, with 64 bits on in JAX" if array.dtype == np.float32 else "rescale the problem")
            )


def check_least(name: str, array: Array, least: float) -> None:
    """Raise a `ValueError` that names the first entry of `array` below `least` (if it can be seen)."""
    if is_concrete(array):
        values = np.asarray(array)
        bad = ~(values >= least)
        if bad.any():
            raise ValueError(f"{name} must be >= {least:g}, got {values[bad].flat[0]}")


def check_fits(name: str, array: Array, batch: tuple[int, ...], of: str) -> None:
    """Raise a `ValueError` where `array` does not broadcast to the batch axes `batch`, which are those `of` another one."""
    try:
        fits = jnp.broadcast_shapes(array.shape, batch) == batch
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {array.shape} does not fit the batch axes {batch} of {of}")


def positive_int(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int of at least `minimum`, or a `ValueError` that quotes what came.

    Whole numbers count whatever their type is: 1e5, NumPy's, and arrays of shape ().

    >>> positive_int("seeds", 1e5), positive_int("steps", np.array(40.0))
    (100000, 40)
    """
    number = value
    if isinstance(value, np.generic | np.ndarray | Array) and np.ndim(value) == 0 and is_concrete(value):
        number = np.asarray(value).item() if np.asarray(value).dtype.kind in "iufb" else None
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or number < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {value!r}")
    return number


def one_key(key: Any) -> Any:
    """`key` if it is one JAX key, of the new kind or of the old one, and else a `ValueError` that quotes what came.

    >>> one_key(0)
    Traceback (most recent call last):
        ...
    ValueError: key must be one JAX key such as jax.random.key(0), got 0
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None:
        new = jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key) and key.shape == ()
        if new or (dtype == np.uint32 and key.ndim == 1):
            return key
    got = repr(key) if dtype is None or key.shape == () else f"an array of shape {key.shape}"
    raise ValueError(f"key must be one JAX key such as jax.random.key(0), got {got}")
