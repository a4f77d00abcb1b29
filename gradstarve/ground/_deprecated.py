"""Deprecated names and orders of arguments: they work for one more version, with a warning that shows the new form."""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable
from numbers import Integral
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

# Arguments recognised by their value: no number or array can be mistaken for one of them.
_IS = {
    "loss": lambda value: isinstance(value, str) or hasattr(value, "residual"),
    "data": lambda value: hasattr(value, "points") and hasattr(value, "weights"),
    "network": lambda value: callable(value) and hasattr(value, "batch_shape"),
    "classes": lambda value: isinstance(value, Integral),
}


_INSIDE = ("gradstarve", "equinox", "jaxtyping", "beartype", "jax", "")


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Issue a warning that points at the first calling line outside this library and the libraries of `_INSIDE`."""
    frame, depth = sys._getframe(), 1
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] in _INSIDE:
        frame, depth = frame.f_back, depth + 1
    warnings.warn(message, category, stacklevel=depth)


def warn_deprecated(old: str, new: str) -> None:
    """Issue a `DeprecationWarning` that names `new`, at the user's line that uses `old`."""
    warn_at_caller(f"{old} is deprecated and will go in the next version; use {new}", DeprecationWarning)


def deprecated(*order: str, **names: str) -> Callable[[Function], Function]:
    """A decorator for a function whose arguments once had another `order`, or other `names` (old=new).

    A call counts as old if it gives more positional arguments than the function takes, if the argument in the place of
    `data`, `network` or `loss` is of another kind, or if it gives a keyword-only argument by position. An old call is
    carried out, with a `DeprecationWarning` that shows the new form.

    >>> import warnings
    >>> @deprecated("loss", "t", "norm", layers="depth")
    ... def tail(norm, loss, t, *, depth=2):
    ...     return norm, loss, t, depth
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     tail("hinge", 5.0, 1.0, layers=3)
    (1.0, 'hinge', 5.0, 3)
    >>> [str(warning.message) for warning in caught]
    ['tail(loss, t, norm) is deprecated and will go in the next version; use tail(norm, loss, t, *, depth)']
    """

    def decorate(function: Function) -> Function:
        parameters = inspect.signature(function).parameters
        by_place = [name for name, one in parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
        starred = [name for name, one in parameters.items() if one.kind is one.KEYWORD_ONLY]
        needed = {name for name, one in parameters.items() if one.default is one.empty}
        call = ", ".join([*by_place, *(["*"] if starred else []), *starred])
        title = function.__name__

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            given = [old for old in names if old in kwargs]
            for old in given:
                if names[old] in kwargs:
                    raise TypeError(f"{title}() got {old!r} and {names[old]!r}, which are one argument")
                kwargs[names[old]] = kwargs.pop(old)
            if order and _is_old(args, kwargs, by_place, order, needed):
                warn_deprecated(f"{title}({', '.join(order)})", f"{title}({call})")
                kwargs, args = dict(zip(order, args, strict=False)) | kwargs, ()
            elif given:
                warn_deprecated(f"{title}(..., {given[0]})", f"{title}(..., {names[given[0]]})")
            return function(*args, **kwargs)

        return called  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    return decorate


def _is_old(
    args: tuple[Any, ...], kwargs: dict[str, Any], by_place: list[str], order: tuple[str, ...], needed: set[str]
) -> bool:
    if len(args) > len(order) or set(order[: len(args)]) & set(kwargs):
        return False  # not an old call: the function itself reports the mistake
    if len(args) > len(by_place) or set(by_place[: len(args)]) & set(kwargs):
        return True

    def fits(names: Any) -> bool:
        pairs = zip(names, args, strict=False)
        return all(_IS[name](value) if name in _IS else not isinstance(value, str) for name, value in pairs)

    # Arguments that are keyword-only now and were given by position.
    moved = (needed - set(by_place)) & set(order[: len(args)])
    if moved:
        return fits(order) and needed <= set(order[: len(args)]) | set(kwargs)
    return not fits(by_place) and fits(order)
