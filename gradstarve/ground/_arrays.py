"""Conversion of inputs to arrays, in one place: precision, promotion, and the errors for bad input.

Rules. Precision follows the arrays given: float32 stays float32, float64 stays float64 when JAX runs with 64 bits.
Python numbers, lists and integer arrays take the precision of the arrays beside them, or JAX's default one where
there are none. float64 arrays given while JAX is in 32-bit mode are rounded to float32 with one warning. Half
precision and complex arrays are refused: no law of this library is accurate in half precision or defined for complex
numbers.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array

from gradstarve.ground._arguments import as_choice as as_choice
from gradstarve.ground._arguments import as_flag as as_flag
from gradstarve.ground._arguments import can_pickle as can_pickle
from gradstarve.ground._arguments import check_instance as check_instance
from gradstarve.ground._arguments import one_key as one_key
from gradstarve.ground._arguments import positive_int as positive_int
from gradstarve.ground._arguments import shown as shown
from gradstarve.ground._deprecated import warn_at_caller

_ALLOWED = (np.dtype("float32"), np.dtype("float64"))
_warned_about_x64 = False


def is_concrete(value: Any) -> bool:
    """Whether the numbers in `value` are known now; False for a value that jit, vmap or grad traces."""
    return not isinstance(value, Tracer)


def _warn_once_about_x64(name: str) -> None:
    global _warned_about_x64
    if not _warned_about_x64:
        _warned_about_x64 = True
        warn_at_caller(
            f"{name} is float64 but JAX runs in 32-bit mode, so it is rounded to float32. To keep 64 bits put "
            'jax.config.update("jax_enable_x64", True) before the first array is made.',
            UserWarning,
        )


def _opinion(name: str, value: Any, array: Any) -> np.dtype | None:
    """The precision that `value` determines, or None if it determines none (Python numbers, lists, integers).

    `array` is `readable(name, value)`.
    """
    dtype = np.dtype(array.dtype)
    if dtype.kind in "iub" or getattr(value, "weak_type", False):
        return None
    if not hasattr(value, "__array__") or not hasattr(value, "dtype"):
        return None  # lists, and tables with a type for each column
    if getattr(getattr(value, "dtype", None), "kind", "") == "O":
        return None  # an array of Python numbers, converted one by one
    if dtype == np.float64 and not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        _warn_once_about_x64(name)
        return np.dtype("float32")
    return dtype


def readable(name: str, value: Any) -> Any:
    """`value` as an array of real numbers: a JAX array (traced or not) unchanged, anything else as a NumPy array.

    Fractions and decimals become float64, tensors of other libraries are copied to the host. `ValueError` for
    values without numbers, a truth value, ragged lists, masked entries, complex numbers and half precision.
    """
    if isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be a number, got {value!r}")
    if isinstance(value, jax.Array):
        if jnp.issubdtype(value.dtype, jax.dtypes.extended):
            raise ValueError(f"{name} must hold numbers, got {shown(value)}, which is made of random keys")
        return _check_dtype(name, value, value)
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise ValueError(f"{name} has {int(np.ma.getmaskarray(value).sum())} masked entries; fill them or leave them out")
    if isinstance(value, list | tuple) and any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        return _stacked(name, value)
    source: Any = value
    if hasattr(source, "detach") and hasattr(source, "cpu"):
        source = source.detach().cpu()
    if hasattr(source, "__dlpack__") and not hasattr(source, "__array__"):
        source = np.from_dlpack(source)
    try:
        array = np.asarray(source)
    except Exception as error:
        if "inhomogeneous" in str(error):
            raise ValueError(f"{name} has rows of different lengths; give a rectangular array") from None
        if "float16" in str(getattr(source, "dtype", "")):
            raise _half(name, source.dtype) from None
        raise ValueError(f"{name} must hold numbers, got {shown(value)}, which is no array: {shown(error)}") from None
    if array.dtype.kind == "O":
        array = np.array([_real(name, entry, value) for entry in array.reshape(-1)], np.float64).reshape(array.shape)
    return _check_dtype(name, value, array)


def _stacked(name: str, value: Any) -> Array:
    """A nested list with traced numbers in it as one array."""
    try:
        return _check_dtype(name, value, jnp.asarray(value))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a rectangular list of numbers: {shown(error)}") from None


def _check_dtype(name: str, value: Any, array: Any) -> Any:
    """`array` unchanged; `ValueError` if its dtype is complex, half precision or not numeric."""
    dtype = np.dtype(array.dtype)
    if dtype.kind == "c":
        what = f"has dtype {dtype}" if hasattr(value, "dtype") else f"is complex, {shown(value)}"
        raise ValueError(f"{name} {what}; give its real part (all quantities here are real)")
    if dtype in _ALLOWED or dtype.kind in "iub":
        return array
    if dtype.kind == "f" or "float" in dtype.name:
        raise _half(name, dtype)
    raise ValueError(f"{name} must hold numbers, got {shown(value)}")


def _half(name: str, dtype: Any) -> ValueError:
    return ValueError(f"{name} has dtype {dtype}; use float32 or float64, for example {name}.astype('float32')")


def _real(name: str, entry: Any, value: Any) -> float:
    """`entry`, an object found in `value`, as a float: an int of any size, a fraction, a decimal."""
    if isinstance(entry, complex | np.complexfloating):
        raise ValueError(f"{name} is complex, {shown(entry)}; give its real part (all quantities here are real)")
    if not hasattr(type(entry), "__float__"):
        inside = "" if entry is value else f" in {shown(value)}"
        raise ValueError(f"{name} must hold numbers, got {shown(entry)}{inside}")
    try:
        return float(entry)
    except OverflowError:
        raise ValueError(f"{name} = {shown(entry)} is too large for a float") from None
    except Exception as error:
        raise ValueError(f"{name} must hold numbers, got {shown(entry)}: {shown(error)}") from None


def real_arrays(**named: Any) -> tuple[Array, ...]:
    """The named values as JAX arrays of one common real dtype, in the order given.

    Numbers are those of Python (fractions and decimals too), NumPy, JAX and tensors of other libraries, alone, in lists or
    in arrays. Raises `ValueError` for half precision, complex, non-numeric, masked and ragged values, for a lone True or
    False, for NaN or infinite entries, and for numbers beyond the common dtype.

    >>> a, b = real_arrays(a=[1, 2], b=3.0)
    >>> a.dtype == b.dtype
    True
    """
    found = {name: readable(name, value) for name, value in named.items()}
    opinions = [_opinion(name, named[name], array) for name, array in found.items()]
    opinions = [dtype for dtype in opinions if dtype is not None]
    dtype = jnp.result_type(*opinions) if opinions else jnp.result_type(float)
    return tuple(_of_dtype(name, array, dtype) for name, array in found.items())


def _of_dtype(name: str, array: Any, dtype: Any) -> Array:
    """`array` cast to `dtype`; `ValueError` unless known numbers are finite before and after the cast."""
    if not is_concrete(array):
        return jnp.asarray(array, dtype=dtype)
    values = np.asarray(array)
    check_finite(name, values)
    with np.errstate(over="ignore", under="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"{name} = {values[~np.isfinite(cast)].flat[0]} is beyond {np.dtype(dtype)}; use float64")
    return jnp.asarray(array, dtype=dtype) if isinstance(array, jax.Array) else jnp.asarray(cast)


def as_array(name: str, value: Any, dtype: Any = None) -> Array:
    """`value`, known or traced, as a JAX array of floats; NaN and infinities are allowed, unlike in `real_arrays`.

    >>> as_array("outputs", [1, float("inf")]).tolist()
    [1.0, inf]
    """
    array = readable(name, value)
    wanted = _opinion(name, value, array) if dtype is None else dtype
    return jnp.asarray(array, dtype=jnp.result_type(float) if wanted is None else wanted)


def one_number(name: str, array: Array) -> None:
    """Raise a `ValueError` unless `array` has no axes."""
    if array.shape != ():
        raise ValueError(f"{name} must be one number, got an array of shape {array.shape}")


def as_floats(name: str, value: Any) -> np.ndarray:
    """`value`, which must be known (not traced), as a NumPy array of float64; NaN and infinities are allowed.

    >>> as_floats("levels", [1, 0.5]).tolist()
    [1.0, 0.5]
    """
    return np.asarray(_known(name, value), np.float64)


def _known(name: str, value: Any) -> np.ndarray:
    array = readable(name, value)
    if not is_concrete(array):
        raise ValueError(f"{name} must be known here, got {shown(value)}; keep it outside of jit, vmap and grad")
    return np.asarray(array)


def any_array(name: str, value: Any) -> np.ndarray:
    """`value` as a NumPy array of any dtype, for labels and names; `ValueError` if NumPy cannot convert it."""
    if isinstance(value, jax.Array) or hasattr(value, "detach"):
        return np.asarray(_known(name, value))
    try:
        return np.asarray(value)
    except Exception as error:
        if "inhomogeneous" in str(error):
            raise ValueError(f"{name} has rows of different lengths; give a rectangular array") from None
        raise ValueError(f"{name} must be an array, got {shown(value)}: {shown(error)}") from None


def as_number(
    name: str,
    value: Any,
    low: int | float = -np.inf,
    high: int | float = np.inf,
    *,
    with_low: bool = True,
    with_high: bool = True,
) -> float:
    """`value` as one finite float from `low` to `high`, each end included unless its flag is False; else a `ValueError`.

    >>> as_number("level", 1, 0, 1)
    1.0
    >>> as_number("level", 1, 0, 1, with_high=False)
    Traceback (most recent call last):
        ...
    ValueError: level must be a number in [0, 1), got 1
    """
    numbers = _known(name, value)
    number = float(numbers) if numbers.ndim == 0 and numbers.dtype.kind != "b" else np.nan
    above = number >= low if with_low else number > low
    below = number <= high if with_high else number < high
    if above and below and np.isfinite(number):
        return number
    if low == -np.inf and high == np.inf:
        where = "finite number"
    elif high == np.inf:
        where = f"number {'>=' if with_low else '>'} {low:g}"
    else:
        where = f"number in {'[' if with_low else '('}{low:g}, {high:g}{']' if with_high else ')'}"
    raise ValueError(f"{name} must be a {where}, got {shown(value)}")


def check_finite(name: str, array: np.ndarray) -> None:
    """Raise a `ValueError` that names the first entry of `array` that is NaN or infinite."""
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(int(i) for i in np.argwhere(bad)[0])
        place = f"{name}[{', '.join(map(str, where))}]" if where else name
        raise ValueError(f"{place} = {array[where]} is not finite; clean the input ({int(bad.sum())} such entries)")


def check_positive(name: str, array: Array) -> None:
    """Raise a `ValueError` that names the first entry of `array` that is not above 0, or that XLA flushes to 0."""
    check_normal(name, array)
    if is_concrete(array):
        values = np.asarray(array)
        bad = ~(values > 0)
        if bad.any():
            raise ValueError(f"{name} must be > 0, got {values[bad].flat[0]}")


def is_subnormal(values: np.ndarray) -> np.ndarray:
    """Which entries of a float array are subnormal: not 0, and smaller than the smallest normal number.

    The bits are read, because a comparison is wrong where a library has set the processor to flush subnormal numbers to 0.
    """
    kind = np.finfo(values.dtype)
    bits = values.view(f"u{values.dtype.itemsize}")
    exponent = (bits >> kind.nmant) & ((1 << kind.nexp) - 1)
    return np.asarray((exponent == 0) & (bits << 1 != 0))


def check_normal(name: str, array: Array | np.ndarray) -> None:
    """Raise a `ValueError` that names the first subnormal entry of a known `array`: XLA flushes such entries to 0."""
    if is_concrete(array):
        values = np.asarray(array)
        bad = is_subnormal(values)
        if bad.any():
            raise _is_flushed(f"{name} = {values[bad].flat[0]}", values.dtype)


def check_normal_rows(name: str, array: Array | np.ndarray) -> None:
    """`check_normal` for the largest entry of each row, beside which smaller entries are lost in every sum."""
    if is_concrete(array):
        values = np.asarray(array)
        # Of two magnitudes, the larger one has the larger bits.
        bits = np.max(values.view(f"u{values.dtype.itemsize}") << 1 >> 1, axis=-1)
        largest = np.asarray(bits).view(values.dtype)
        bad = np.argwhere(is_subnormal(largest))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            place = f"{name}[{', '.join(map(str, where))}]" if where else name
            raise _is_flushed(f"max |{place}| = {largest[where]}", values.dtype)


def check_normal_size(name: str, log_sizes: np.ndarray | np.floating, dtype) -> None:
    """`check_normal` for numbers that are given by their logarithms (-inf for 0) and will be computed in `dtype`."""
    log_sizes = np.asarray(log_sizes)
    bad = (log_sizes < np.log(float(np.finfo(dtype).tiny))) & (log_sizes > -np.inf)
    if bad.any():
        digits = log_sizes[bad].flat[0] / np.log(10)
        power = np.floor(digits)
        raise _is_flushed(f"{name} = {10 ** (digits - power):.4g}e{power:.0f}", dtype)


def check_normal_product(dtype, **factors: Array) -> None:
    """`check_normal` for the product of known numbers > 0, such as frequency and norm."""
    if all(is_concrete(factor) for factor in factors.values()):
        log_sizes = sum(np.log(np.asarray(factor)) for factor in factors.values())
        check_normal_size(" * ".join(factors), np.asarray(log_sizes), dtype)


def log_sum(a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """log |a + z|, -inf where it is 0; finite where the sum itself is too small for a float."""
    _, power = np.frexp(np.maximum(np.abs(a), np.abs(z)))
    part = np.abs(np.ldexp(a, -power) + np.ldexp(z, -power))
    return np.log(np.where(part > 0, part, 1)) + np.where(part > 0, power * np.log(2), -np.inf)


def _is_flushed(value: str, dtype) -> ValueError:
    return ValueError(
        f"{value} is subnormal in {np.dtype(dtype)} (below {np.finfo(dtype).tiny:.4g}) and flushed to 0; "
        + ("give it as float64, with 64 bits on in JAX" if dtype == np.float32 else "rescale the problem")
    )


def check_least(name: str, array: Array, least: float) -> None:
    """Raise a `ValueError` that names the first entry of a known `array` below `least`."""
    if is_concrete(array):
        values = np.asarray(array)
        bad = ~(values >= least)
        if bad.any():
            raise ValueError(f"{name} must be >= {least:g}, got {values[bad].flat[0]}")


def check_fits(name: str, array: Array, batch: tuple[int, ...], of: str) -> None:
    """Raise a `ValueError` if `array` does not broadcast to the batch axes `batch`; `of` describes the owner of the axes."""
    try:
        fits = jnp.broadcast_shapes(array.shape, batch) == batch
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(f"{name} of shape {array.shape} does not fit the batch axes {batch} of {of}")


def check_together(**named: Any) -> None:
    """Raise a `ValueError` that names all shapes where the named arrays do not broadcast together.

    >>> check_together(p=np.ones(2), r=np.ones(3))
    Traceback (most recent call last):
        ...
    ValueError: p and r must fit each other, got shapes (2,) and (3,)
    """
    shapes = [tuple(array.shape) for array in named.values()]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError:
        *names, last = named
        *first, end = map(str, shapes)
        message = f"{', '.join(names)} and {last} must fit each other, got shapes {', '.join(first)} and {end}"
        raise ValueError(message) from None


def check_sum_is_one(name: str, array: Array | np.ndarray, fix: str | None = None) -> None:
    """Raise a `ValueError` that names the sum if a known `array` does not sum to 1 along its last axis.

    The tolerance covers rounding: each of the n numbers may be off by half an ulp of itself.

    >>> check_sum_is_one("weights", np.array([0.5, 0.6]))
    Traceback (most recent call last):
        ...
    ValueError: weights must sum to 1, got 1.1; give weights / weights.sum()
    """
    if is_concrete(array):
        values = np.asarray(array)
        totals = np.asarray(np.sum(values, axis=-1, dtype=np.float64))
        bad = ~(np.abs(totals - 1) <= 4 * values.shape[-1] ** 0.5 * float(np.finfo(values.dtype).eps))
        if bad.any():
            total = float(totals[bad].flat[0])
            raise ValueError(f"{name} must sum to 1, got {total!r}; {fix or f'give {name} / {name}.sum()'}")


def check_shares(**named: Any) -> None:
    """Raise a `ValueError` if the named shares of the samples are known and sum to more than 1.

    >>> check_shares(p_frequent=np.float64(0.8), p_both=np.float64(0.3))
    Traceback (most recent call last):
        ...
    ValueError: p_frequent + p_both must be at most 1, all samples, got 0.8 + 0.3; divide both by 1.1
    """
    if not all(is_concrete(share) for share in named.values()):
        return
    shares = np.broadcast_arrays(*map(np.asarray, named.values()))
    total = np.asarray(sum(shares))
    above = total > 1 + 64 * np.finfo(shares[0].dtype).eps
    if above.any():
        got = " + ".join(f"{share[above].flat[0]:.6g}" for share in shares)
        factor = f"{total[above].flat[0]:.6g}"
        raise ValueError(f"{' + '.join(named)} must be at most 1, all samples, got {got}; divide both by {factor}")


def together(**named: Any) -> tuple[Array, ...]:
    """`real_arrays` of values whose shapes must broadcast together; the arrays keep their shapes."""
    arrays = real_arrays(**named)
    check_together(**dict(zip(named, arrays, strict=True)))
    return arrays


def as_pair(name: str, value: Any, of: str) -> tuple[Any, Any]:
    """The two entries of `value`, a sequence or an array of two; `of` names the entries in the `ValueError`."""
    if isinstance(value, list | tuple):
        entries = tuple(value)
    else:
        array = readable(name, value)
        entries = tuple(array) if array.ndim else ()
    if len(entries) != 2:
        raise ValueError(f"{name} must be a pair {of}, got {shown(value)}")
    return entries


def as_goal(name: str, value: Any, dtype: Any) -> Array:
    """`value`, a level that a curve may reach, as an array of `dtype`: infinities are allowed, NaN is a `ValueError`."""
    array = as_array(name, value, dtype)
    if is_concrete(array) and np.isnan(np.asarray(array)).any():
        raise ValueError(f"{name} must be a level to reach, got {shown(value)}, which is or has NaN")
    return array
