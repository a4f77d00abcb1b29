"""The table of laws: the name of each law and the module that declares it, read without importing JAX.

A law is declared once, by a decorator: `@derives(name=..., equation=...)` on the function that derives it, and
`@register(name=..., equation=...)` on the function that draws the problems on which the law is verified. This module finds
the declarations by reading the sources, so that the command line, its completion, the README and the documentation need no
list of their own.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parents[1]
PLACES = ("symbolic", "theorems/laws")
"""The folders that declare laws, one module for one or more of them."""

LOSS_NAMES = ("cross-entropy", "hinge", "exponential", "squared")

SECTIONS = {
    1: "Setting",
    2: "Independent modes",
    3: "The hyperbolic clock",
    4: "Fates and failed training",
    5: "The shape of the error curve",
    6: "Speed: frequency, norm, loss",
    7: "Depth",
    8: "Discrete time, solved exactly",
    9: "Weight decay",
    10: "Gradient starvation",
    11: "Several classes",
    12: "Hinge flow, event by event",
    13: "Directions in the end",
    14: "Linearised networks",
    15: "Discriminators",
    16: "Early alignment",
    17: "Any step is two factors",
    18: "Any residual is a clock",
    19: "kappa in discrete time",
    20: "A shortcut with a minority",
    21: "Task switches",
    22: "Leaky networks",
    23: "Biases",
}
"""The sections of the theory. The section of a law is the part of its equation's number before the point."""


@dataclass(frozen=True)
class Law:
    """One declaration: `name`, `equation`, `title`, the names of the `losses` and of the `dynamics` ("flow", "descent") that
    the law holds for, the `module` that declares it, and the docstring (`text`) of the decorated function."""

    name: str
    equation: str
    title: str
    losses: tuple[str, ...]
    dynamics: tuple[str, ...]
    module: str
    text: str = ""


def place(equation: str) -> tuple[int, int]:
    """The section of an equation and its place in the section; for a range of equations, those of the first.

    >>> place("10.2"), place("3.1-3.5")
    ((10, 2), (3, 1))
    """
    section, _, number = equation.partition("-")[0].partition(".")
    if not (section.isdecimal() and number.isdecimal() and int(section) in SECTIONS):
        raise ValueError(f"equation must be SECTION.NUMBER with a section of {list(SECTIONS)}, got {equation!r}")
    return int(section), int(number)


@cache
def laws(decorator: str) -> dict[str, Law]:
    """The laws declared by `decorator`, "derives" or "register", by name, in the order of their equations.

    >>> laws("derives")["decay"].losses
    ('cross-entropy', 'exponential', 'squared')
    """
    found = [law for folder in PLACES for path in sorted((PACKAGE / folder).glob("*.py")) for law in _read(path, decorator)]
    found.sort(key=lambda law: place(law.equation))
    table: dict[str, Law] = {}
    for law in found:
        if law.name in table:
            raise ValueError(f"{law.name!r} is declared twice, in {table[law.name].module} and in {law.module}")
        table[law.name] = law
    return table


def _read(path: Path, decorator: str) -> Iterator[Law]:
    text = path.read_text(encoding="utf-8")
    if f"@{decorator}(" not in text:
        return
    module = ".".join(("gradstarve", *path.relative_to(PACKAGE).with_suffix("").parts))
    for node in [node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)]:
        for call in node.decorator_list:
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == decorator:
                given = {word.arg: word.value for word in call.keywords}
                yield _law(given, module, call.lineno, ast.get_docstring(node) or "")


def _law(given: dict[str | None, ast.expr], module: str, line: int, text: str) -> Law:
    values = {"losses": LOSS_NAMES, "dynamics": ("flow",), "title": ""}
    for word in ("name", "equation", "title", "losses", "dynamics"):
        if word in given:
            try:
                values[word] = ast.literal_eval(given[word])
            except ValueError:
                message = f"{module}, line {line}: {word} must be a literal, because it is read without running the code"
                raise ValueError(message) from None
    missing = [word for word in ("name", "equation") if word not in values]
    if missing:
        raise ValueError(f"{module}, line {line}: a law needs a {' and an '.join(missing)}")
    return Law(**values, module=module, text=text)  # pyright: ignore[reportArgumentType]
