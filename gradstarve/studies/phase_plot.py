"""The figures of `PhaseDiagram`s: what they share. A module `phase_plot_PLANE` draws each plane.

Class + is blue, class - vermillion, dead grey, undecided white; hatches and labels say the same without colour.
Matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from textwrap import wrap
from typing import Any

from gradstarve.style import COLOURS, RC

PLUS, MINUS, DEAD, OPEN = COLOURS[0], COLOURS[1], "#B9B9B9", "#FFFFFF"
LIGHT_PLUS, LIGHT_MINUS = "#8FC1E3", "#F3B08A"
GREY = "#444444"
BOX: Any = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def draw(diagram: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.phase.PhaseDiagram`, saved to `path` at 150 dpi (.png) or as vectors (.pdf, .svg)."""
    import matplotlib as mpl

    with mpl.rc_context(RC):
        figure = import_module(f"gradstarve.studies.phase_plot_{diagram.plane}").figure_of(diagram)
        if path is not None:
            figure.savefig(Path(path), dpi=150)
    return figure


def new_figure(width: float, height: float, first: str, second: str) -> Any:
    """An empty figure with a bold line over plain ones, broken to its width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, layout="constrained")
    lines = wrap(second.replace(" = ", "\u00a0=\u00a0"), int(14 * width))
    # The empty lines keep the room that the plain ones take.
    figure.suptitle(first + "\n" * len(lines), x=0.012, ha="left", fontsize=13, fontweight="bold", linespacing=1.35)
    lift = 0.35 / height
    figure.text(0.012, 1 - lift, "\n".join(lines), fontsize=10.5, color="#333333", va="top")
    return figure
