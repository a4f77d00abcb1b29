"""The figures of `PhaseDiagram`s: what they share. A module `phase_plot_PLANE` draws each plane.

Class + is blue, class - vermillion, dead grey, undecided white; hatches and labels say the same without colour.
Matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from importlib import import_module
from textwrap import wrap
from typing import Any

from gradstarve.ground import COLOURS, style

PLUS, MINUS, DEAD, OPEN = COLOURS[0], COLOURS[1], style.SHADE, "white"
LIGHT_PLUS, LIGHT_MINUS = style.LIGHT
GREY = style.NOTE
BOX: Any = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def draw(diagram: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.phase.plane.PhaseDiagram`, saved to `path` if there is one (.png, .svg, .pdf)."""
    with style.sheet():
        figure = import_module(f"gradstarve.studies.phase.phase_plot_{diagram.plane}").figure_of(diagram)
        if path is not None:
            style.save(figure, path)
    return figure


def new_figure(width: float, height: float, first: str, second: str) -> Any:
    """An empty figure with a bold line over plain ones, broken to its width."""
    figure = style.new_figure(width, height)
    lines = wrap(second.replace(" = ", "\u00a0=\u00a0"), int(14 * width))
    # The empty lines keep the room that the plain ones take.
    figure.suptitle(first + "\n" * len(lines), x=0.012, ha="left", fontsize=13, fontweight="bold", linespacing=1.35)
    lift = 0.35 / height
    figure.text(0.012, 1 - lift, "\n".join(lines), fontsize=10.5, color=style.INK, va="top")
    return figure
