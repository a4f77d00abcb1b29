"""Arguments that are not arrays: counts, names, flags, keys, and how an error message shows what came."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.core import Tracer

from gradstarve.text import did_you_mean


def shown(value: Any, longest: int = 60) -> str:
    """`value` on one line of an error message: its `repr`, shortened, or the shape and dtype of a larger array.

    >>> shown("abc"), shown(10**400), shown(np.zeros((3, 4)))
    ("'abc'", '1000000000000000000000000000 ... 0000000000000000000000000000', 'an array of shape (3, 4) and dtype float64')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, Tracer):
        return f"a traced array of shape {shape} and dtype {dtype}"
    if isinstance(value, BaseException):
        text = f"{type(value).__name__}: {value}"
    elif isinstance(shape, tuple) and shape and dtype is not None:
        return f"an array of shape {shape} and dtype {dtype}"
    elif isinstance(value, int) and abs(value) >= 10**longest:
        # `repr` itself refuses integers of more than some thousand digits.
        digits = int(value.bit_length() * 0.30103)
        text = f"an integer of about {digits} digits" if digits > 4000 else str(value)
    else:
        try:
            text = repr(value)
        except Exception:
            text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    half = (longest - 5) // 2 + 1
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def positive_int(name: str, value: Any, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """`value` as an int from `minimum` to `maximum`, or a `ValueError` that quotes what came. 1e3 is a thousand.

    >>> positive_int("seeds", 1e3)
    1000
    """
    whole = _whole(value)
    if whole is None or whole < minimum:
        raise ValueError(f"{name} must be an integer >= {minimum}, got {shown(value)}")
    if whole > maximum:
        raise ValueError(f"{name} must be an integer from {minimum} to {maximum}, got {shown(value)}")
    return whole


def _whole(value: Any) -> int | None:
    """`value` as an int where it is a whole number of any type, but not a truth value; else None."""
    if isinstance(value, bool | np.bool_ | complex | str | bytes | bytearray | Tracer):
        return None
    kind = getattr(getattr(value, "dtype", None), "kind", "i")
    if getattr(value, "shape", ()) != () or kind not in "iuf":
        return None
    try:
        whole = int(value)
        return whole if whole == value else None
    except Exception:  # NaN, infinities, and what is no number
        return None


def as_flag(name: str, value: Any) -> bool:
    """`value` if it is True or False, Python's or NumPy's; a `ValueError` for all else that Python would take for one."""
    if isinstance(value, bool | np.bool_):
        return bool(value)
    raise ValueError(f"{name} must be True or False, got {shown(value)}")


def as_choice(name: str, value: Any, choices: Iterable[str]) -> str:
    """`value` if it is one of the strings `choices`; else a `ValueError` that lists them and names the nearest one.

    >>> as_choice("scaling", "add", ("added", "divided"))
    Traceback (most recent call last):
        ...
    ValueError: scaling must be one of 'added', 'divided', got 'add'; did you mean 'added'?
    """
    choices = tuple(choices)
    if isinstance(value, str) and value in choices:
        return value
    meant = did_you_mean(value, choices)
    raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {shown(value)}{meant}")


def check_instance(name: str, value: Any, of: type | tuple[type, ...], fix: str) -> None:
    """Raise a `ValueError` unless `value` is an instance of a class; `fix` says what to give.

    >>> check_instance("mode", 0.5, str, "give Mode(frequency, norm, a, z)")
    Traceback (most recent call last):
        ...
    ValueError: mode must be a str, got 0.5; give Mode(frequency, norm, a, z)
    """
    if not isinstance(value, of):
        names = " or ".join(one.__name__ for one in (of if isinstance(of, tuple) else (of,)))
        raise ValueError(f"{name} must be a {names}, got {shown(value)}; {fix}")


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
    raise ValueError(f"key must be one JAX key such as jax.random.key(0), got {shown(key)}")


def can_pickle(value: Any) -> bool:
    """Whether `value` pickles: not so a lambda, and what holds one.

    >>> can_pickle(len), can_pickle(lambda x: x)
    (True, False)
    """
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
