"""Fails the build if a public name of gradstarve is on no page, or has no docstring."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

from sphinx.errors import ExtensionError

from site_parts.public import members, public


def left_out(names: Mapping[str, Any], documented: Iterable[str]) -> list[str]:
    """One complaint for each public name that is not among `documented`, or says nothing about itself.

    `names`: path -> object, as `public()` gives it; methods of public classes need a docstring too.
    """
    documented = set(documented)
    complaints = [f"{path} is on no page" for path in names if path not in documented]
    for path, value in names.items():
        if isinstance(value, ModuleType) or inspect.isclass(value) or callable(value):
            own = value.__doc__ if inspect.isclass(value) else inspect.getdoc(value)
            if not own or own.startswith(f"{getattr(value, '__name__', '')}("):  # what dataclasses write by themselves
                complaints.append(f"{path} has no docstring")
        if inspect.isclass(value):
            silent = [name for name, member in members(value) if not inspect.getdoc(member)]
            complaints += [f"{path}.{name} has no docstring" for name in silent]
    return complaints


def check(app: Any, env: Any) -> None:
    complaints = left_out(public(), env.domains["py"].objects)
    if complaints:
        raise ExtensionError("undocumented public names:\n  " + "\n  ".join(complaints))


def setup(app: Any) -> dict[str, bool]:
    app.connect("env-check-consistency", check)
    return {"parallel_read_safe": True}
