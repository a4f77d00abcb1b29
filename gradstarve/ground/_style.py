"""How every figure looks: sizes, grid and spines, and colours that the colour-blind can tell apart (Okabe and Ito).

A module that draws takes its settings from `sheet`, its `Figure` from `new_figure`, its colours from the names below, and
ends with `save`. Matplotlib is imported only when a figure is drawn.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import Any

from gradstarve.ground import _files as files
from gradstarve.ground._text import shown

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Blue, vermillion, green, purple, orange, sky blue, black: for lines, in this order."""

INK = "#333333"
"""Text beside a figure's title, and lines that matter without being data."""
NOTE = "#444444"
"""Titles of panels and text inside panels."""
GUIDE = "#8A8A8A"
"""Lines at a threshold or an aim, and data that is there for comparison."""
SHADE = "#B9B9B9"
"""Areas and lines of excluded cases and dead neurons."""
FAINT = "#E4E4E4"
"""The grid, and areas behind everything."""

FILLS = (COLOURS[0], COLOURS[4], COLOURS[2], COLOURS[3], COLOURS[5], COLOURS[1], "#F0E442")
"""The same colours, and Okabe and Ito's yellow in place of black, for areas and dots beside black lines."""
LIGHT = ("#8FC1E3", "#F3B08A")
"""Light blue and vermillion, for areas with lines and words on them."""
DARK = ("#000000", "#5B1A8B", "#004D40", "#A34700")
"""Black, plum, pine and rust, for lines and words on such areas."""

MAP = "YlGnBu"
"""Colour map of a quantity, light to dark, readable by lightness alone."""
ORDERED = "viridis_r"
"""Colour map of lines that belong to ordered values, light to dark."""

DPI = 150
FORMATS = ("png", "svg", "pdf", "gif")
"""File formats of a figure, chosen by the ending of its path."""

RC: Any = {
    "font.size": 10,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "legend.fontsize": 9.5,
    "legend.frameon": False,
    "legend.edgecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlecolor": NOTE,
    "axes.grid": True,
    "axes.prop_cycle": f"cycler('color', {list(COLOURS)})",
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    # Text stays text: it can be searched, and edited in a drawing program.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # The names of clip paths in an SVG are random otherwise.
    "svg.hashsalt": "gradstarve",
}
"""Settings for `matplotlib.rc_context`."""
_SIZES = ("axes.titlesize", "axes.labelsize", "xtick.labelsize", "ytick.labelsize", "legend.fontsize")


@contextlib.contextmanager
def sheet(own: bool = False) -> Iterator[None]:
    """Draw with the settings of this library, and restore the caller's settings afterwards.

    With `own`, every setting that the caller has changed from Matplotlib's default keeps the caller's value.
    """
    import matplotlib as mpl

    settings = RC
    if own:
        plain = mpl.rcParamsDefault
        settings = {name: value for name, value in RC.items() if mpl.rcParams[name] == plain[name]}
        if mpl.rcParams["font.size"] != plain["font.size"]:
            # Sizes in points scale with the font size, as Matplotlib's sizes in words ("large") do.
            factor = mpl.rcParams["font.size"] / RC["font.size"]
            settings |= {name: RC[name] * factor for name in _SIZES if name in settings}
    with mpl.rc_context(settings):
        yield


def figure_size(figsize: Any, default: tuple[int | float, int | float]) -> tuple[int | float, int | float]:
    """`figsize` in inches; if None, the size that the caller has set in `rcParams`, or else `default`.

    `ValueError` unless it is a pair of positive numbers.
    """
    import matplotlib as mpl

    if figsize is None:
        wanted = mpl.rcParams["figure.figsize"]
        return default if wanted == mpl.rcParamsDefault["figure.figsize"] else tuple(wanted)
    try:
        width, height = (float(side) for side in figsize)
        good = 0 < width < float("inf") and 0 < height < float("inf")
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"figsize must be a pair (width, height) in inches, both positive, got {shown(figsize)}")
    return width, height


def line_width(width: int | float) -> float:
    """`width` in points, scaled by the caller's line width over Matplotlib's default."""
    import matplotlib as mpl

    return width * mpl.rcParams["lines.linewidth"] / mpl.rcParamsDefault["lines.linewidth"]


def text_size(size: int | float) -> float:
    """`size` in points, scaled by the caller's font size over Matplotlib's default."""
    import matplotlib as mpl

    return size * mpl.rcParams["font.size"] / mpl.rcParamsDefault["font.size"]


def paper() -> Any:
    """The caller's background colour of axes, which fills open markers."""
    import matplotlib as mpl

    return mpl.rcParams["axes.facecolor"]


def foreground() -> Any:
    """The caller's colour of the frame of axes, for lines that matter without being data."""
    import matplotlib as mpl

    return mpl.rcParams["axes.edgecolor"]


def axes_for(ax: Any, size: tuple[int | float, int | float]) -> tuple[Any, Any]:
    """(figure, axes): those of `ax`, or, if `ax` is None, those of a new figure of `size` inches."""
    if ax is None:
        figure = new_figure(*size)
        return figure, figure.subplots()
    if not hasattr(ax, "plot") or not hasattr(ax, "figure"):
        raise ValueError(f"ax must be matplotlib axes to draw into, got {shown(ax)}; give one, or None for a new figure")
    return ax.figure, ax


def new_figure(width: int | float, height: int | float, layout: Any = "constrained") -> Any:
    """An empty matplotlib `Figure` of `width` by `height` inches, made without pyplot: its windows belong to the caller."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout=layout)


def headline(figure: Any, first: str, second: str = "", size: int | float = 13) -> None:
    """Write the bold title `first` and the plain lines `second` above a figure, both wrapped to its width."""
    width, height = figure.get_size_inches()
    bold = wrap(first.replace(" = ", "\u00a0=\u00a0"), int(9.6 * width * 13 / size))
    plain = [line for part in second.splitlines() for line in wrap(part.replace(" = ", "\u00a0=\u00a0"), int(12.8 * width))]
    # The empty lines reserve the space of the plain lines.
    text = "\n".join(bold) + "\n" * len(plain)
    figure.suptitle(text, x=0.012, ha="left", fontsize=size, fontweight="bold", linespacing=1.35)
    below = (0.11 + len(bold) * size * 1.35 / 72) / height
    figure.text(0.012, 1 - below, "\n".join(plain), fontsize=10.5, color=INK, va="top", linespacing=1.2)


def signed_map() -> Any:
    """Colours of a quantity of either sign: vermillion below 0, white at 0, blue above."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("signed", [COLOURS[1], "#FFFFFF", COLOURS[0]])


def figure_path(path: Any) -> Path:
    """`path` as a `Path` that a figure can be saved to; `ValueError` for an unknown ending or a missing directory.

    >>> figure_path("error.jpeg")
    Traceback (most recent call last):
        ...
    ValueError: a figure is saved as .png, .svg, .pdf or .gif by the end of its path, got 'error.jpeg'
    """
    place = files.as_path(path)
    if place.suffix.lower().removeprefix(".") not in FORMATS:
        raise ValueError(f"a figure is saved as .png, .svg, .pdf or .gif by the end of its path, got {str(path)!r}")
    if not place.parent.is_dir():
        raise ValueError(f"there is no directory {str(place.parent)!r} for the figure {place.name!r}; make it first")
    return place


def save(figure: Any, path: Any, dpi: int | float = DPI) -> Path:
    """Save `figure` to `path`, which ends in .png (at `dpi`), in .svg or .pdf for vectors with their text as text, or in
    .gif for a moving picture (see `animate`).

    The file is complete or absent whenever the process stops, and the same figure gives the same bytes. `ValueError` for
    other endings and for a missing directory.
    """
    place = figure_path(path)
    kind = place.suffix.lower().removeprefix(".")
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
    with sheet(), files.whole(place) as part:
        if kind == "gif":
            from gradstarve.ground._animate import moving

            part.write_bytes(moving(figure))
        else:
            figure.savefig(part, format=kind, dpi=dpi, metadata=undated.get(kind))
    return place


def png_bytes(figure: Any, dpi: int | float = DPI) -> bytes:
    """`figure` as a PNG at `dpi`, for a page with embedded images."""
    with sheet(), io.BytesIO() as part:
        figure.savefig(part, format="png", dpi=dpi)
        return part.getvalue()
