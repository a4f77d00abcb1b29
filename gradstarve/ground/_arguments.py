"""Checks of arguments that are not arrays: counts, names, flags, instances and random keys."""

from __future__ import annotations

import functools
import inspect
import pickle
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from gradstarve.ground._text import did_you_mean
from gradstarve.ground._text import shown as shown


def positive_int(name: str, value: Any, minimum: int = 1, maximum: int = 2**31 - 1) -> int:
    """`value` as an int from `minimum` to `maximum`; `ValueError` quotes any other value. 1e3 counts as 1000.

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
    except Exception:  # NaN, infinities and objects that are not numbers
        return None


def as_flag(name: str, value: Any) -> bool:
    """`value` as a bool if it is True or False, of Python or NumPy; `ValueError` for all else, such as 1 or "yes"."""
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
    """Raise a `ValueError` unless `value` is an instance of `of`; `fix` tells the user what to give.

    >>> check_instance("mode", 0.5, str, "give Mode(frequency, norm, a, z)")
    Traceback (most recent call last):
        ...
    ValueError: mode must be a str, got 0.5; give Mode(frequency, norm, a, z)
    """
    if not isinstance(value, of):
        names = " or ".join(one.__name__ for one in (of if isinstance(of, tuple) else (of,)))
        raise ValueError(f"{name} must be a {names}, got {shown(value)}; {fix}")


Init = TypeVar("Init", bound=Callable[..., None])


def suggesting(**aliases: str) -> Callable[[Init], Init]:
    """A decorator for `__init__`: the `TypeError` for an unknown keyword lists the known ones and suggests the nearest.

    `aliases`: names of arguments in other libraries, each with its name here.

    >>> class Descent:
    ...     @suggesting(lr="step_size")
    ...     def __init__(self, step_size):
    ...         self.step_size = step_size
    >>> Descent(lr=0.1)
    Traceback (most recent call last):
        ...
    TypeError: Descent has no argument 'lr', it has step_size; did you mean 'step_size'?
    """

    def decorate(init: Init) -> Init:
        names = tuple(inspect.signature(init).parameters)[1:]

        @functools.wraps(init)
        def checked(self, *args, **kwargs):
            for name in kwargs:
                if name not in names:
                    meant = f"; did you mean {aliases[name]!r}?" if name in aliases else did_you_mean(name, names)
                    text = f"{type(self).__name__} has no argument {name!r}, it has {', '.join(names)}{meant}"
                    raise TypeError(text)
            init(self, *args, **kwargs)

        return checked  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    return decorate


def one_key(key: Any) -> Any:
    """One JAX key: `key` itself (typed, or a raw uint32 array), or the key of the seed `key`, an integer >= 0.

    >>> one_key(0) == jax.random.key(0)
    Array(True, dtype=bool)
    >>> one_key(-1)
    Traceback (most recent call last):
        ...
    ValueError: key must be one JAX key such as jax.random.key(0), or an integer >= 0 as its seed, got -1
    """
    seed = _seed(key)
    if seed is not None and seed < 2**63:
        return jax.random.key(seed)
    keys = some_keys(key)
    if keys is not None and keys.shape == ():
        return keys
    wanted = "one JAX key such as jax.random.key(0), or an integer >= 0 as its seed"
    raise ValueError(f"key must be {wanted}, got {shown(key)}")


def _seed(key: Any) -> int | None:
    """`key` where it is an integer >= 0, else None."""
    seed = None if isinstance(key, float) else _whole(key)
    return seed if seed is not None and seed >= 0 else None


def some_keys(key: Any) -> Any:
    """`key`, an array of typed or raw uint32 JAX keys of any shape, as typed keys; None for anything else."""
    dtype = getattr(key, "dtype", None)
    try:
        if dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key):
            return key
    except TypeError:  # `dtype` is that of another library
        return None
    if dtype == np.uint32 and key.ndim:
        try:
            return jax.random.wrap_key_data(jnp.asarray(key))
        except TypeError:  # the last axis has not the length of a key
            return None
    return None


def as_seed(key: Any) -> int | list[int]:
    """A seed for a generator of NumPy: an integer `key` >= 0 unchanged, or the list of words of a JAX key.

    >>> as_seed(3), as_seed(jax.random.key(3))
    (3, [0, 3])
    """
    seed = _seed(key)
    if seed is not None:
        return seed
    return [int(word) for word in np.asarray(jax.random.key_data(one_key(key))).reshape(-1)]


def can_pickle(value: Any) -> bool:
    """Whether `value` can be pickled: a lambda, or an object that holds one, cannot.

    >>> can_pickle(len), can_pickle(lambda x: x)
    (True, False)
    """
    try:
        pickle.dumps(value)
    except Exception:
        return False
    return True
