"""Signatures as they are written in the source: `Float[Array, "*batch h"]`, and defaults by their names."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields, is_dataclass
from typing import Any


def parsed(value: Any) -> Any:
    """The definition of a function or class as a syntax tree."""
    return ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]


def of_function(function: Any, bound: bool) -> tuple[str, str | None]:
    """`(arguments)` and the annotation of the result; `bound` leaves out self or cls."""
    node = parsed(inspect.unwrap(function))
    positional = node.args.posonlyargs or node.args.args
    if bound and positional:
        positional.pop(0)
    return f"({ast.unparse(node.args)})", None if node.returns is None else ast.unparse(node.returns)


def of_fields(value: type) -> str:
    """The arguments of a dataclass, equinox module or named tuple: its fields."""
    written: dict[str, str] = {}
    for base in reversed(value.__mro__):
        if not base.__module__.startswith("gradstarve"):
            continue
        for node in parsed(base).body:
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                written[node.target.id] = ast.unparse(node)
    names = [field.name for field in fields(value) if field.init] if is_dataclass(value) else list(value._fields)  # type: ignore
    return f"({', '.join(shown(written[name]) for name in names)})"


def shown(text: str) -> str:
    """A field as an argument: what its default is behind `field(...)` is the library's affair, that there is one is not."""
    name, *options = re.split(r" = (?:\w+\.)?field\(", text)
    return name + (" = ..." if options and "default" in options[0] else "")


def process(app: Any, what: str, name: str, obj: Any, options: Any, signature: str, returns: str) -> Any:
    if what in ("function", "method"):
        function = obj.__func__ if isinstance(obj, classmethod | staticmethod) else obj
        function = getattr(function, "__func__", function)
        if inspect.isfunction(inspect.unwrap(function)) and has_source(function):
            return of_function(function, bound=what == "method" and not is_static(name, obj))
    if what in ("class", "exception"):
        if "__init__" in vars(obj) and inspect.isfunction(obj.__init__) and has_source(obj.__init__):
            return of_function(obj.__init__, bound=True)[0], None
        if is_dataclass(obj) or hasattr(obj, "_fields"):
            return of_fields(obj), None
    return None


def has_source(function: Any) -> bool:
    """Whether the function is written in a file: what `dataclass` makes is not."""
    return "<" not in inspect.unwrap(function).__code__.co_filename


def is_static(name: str, obj: Any) -> bool:
    """Whether a method is a function without self, by its definition."""
    node = parsed(inspect.unwrap(getattr(obj, "__func__", obj)))
    return any(isinstance(item, ast.Name) and item.id == "staticmethod" for item in node.decorator_list)


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-signature", process)
    return {"parallel_read_safe": True}
