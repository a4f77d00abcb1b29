"""`key_figure`: one picture for one claim, whose lines are laws and whose marks are networks trained beside them.

A module of this room is a figure: `compute(rng, quick)` trains and evaluates the law, `conclusion(numbers)` says in a
sentence what was found, and `draw(numbers)` makes the Matplotlib figure.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from gradstarve.ground import as_flag, as_seed, did_you_mean, save, sheet, short_repr, shown, table_text

NAMES = {
    "hero": "theory drawn first, 512 networks trained on top of it, and one step size that is far from small",
    "collapse": "twelve classes of every frequency, norm and width, on one curve of 2 p r t",
    "failure": "which neurons learn, how often a class is never learnt, and how many neurons die",
    "prediction": "real digits with a bright patch: what is predicted before training, what is learnt, what helps",
}
"""Every key figure, and what it shows."""


@dataclass(frozen=True, eq=False)
class KeyFigure:
    """One key figure: its `name`, the `settings` it was made with, the `numbers` it is drawn from, its `conclusion`."""

    name: str
    settings: dict[str, Any]
    numbers: dict[str, Any]
    conclusion: str

    __repr__ = short_repr

    def plot(self, path: Any = None) -> Any:
        """The Matplotlib `Figure`, saved to `path` if there is one (.png, .svg, .pdf)."""
        with sheet():
            figure = _module(self.name).draw(self.numbers)
            if path is not None:
                save(figure, path)
        return figure

    def rows(self) -> list[tuple[str, ...]]:
        """The table behind the figure, its header first."""
        return _module(self.name).rows(self.numbers)

    def table(self) -> str:
        """The conclusion, and the table as plain text."""
        return f"{self.conclusion}.\n\n{table_text(self.rows())}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {"name": self.name, "conclusion": self.conclusion, "numbers": self.numbers}


def key_figure(name: Any, *, key: Any = 0, quick: bool = False) -> KeyFigure:
    """Train what the key figure `name` shows, beside its law.

    `name`: one of "hero", "collapse", "failure", "prediction" (which needs scikit-learn); `key`: a JAX key or an integer;
    `quick`: fewer networks. Ask for float64. `ValueError` for another name, naming those there are.

    >>> import jax
    >>> with jax.enable_x64(True):
    ...     found = key_figure("collapse", quick=True)
    >>> found.numbers["error"].shape, found.plot().axes[0].get_xlabel()
    ((4, 12), 'time t = step size × step')
    """
    if not isinstance(name, str) or name not in NAMES:
        raise ValueError(f"name must be one of {', '.join(NAMES)}, got {shown(name)}{did_you_mean(name, NAMES)}")
    quick, seed = as_flag("quick", quick), as_seed(key)
    rng = np.random.default_rng([*np.atleast_1d(seed), list(NAMES).index(name)])
    numbers = _module(name).compute(rng, quick)
    return KeyFigure(name, {"name": name, "key": seed, "quick": quick}, numbers, _module(name).conclusion(numbers))


def _module(name: str) -> Any:
    return import_module(f"gradstarve.studies.key.{name}")
