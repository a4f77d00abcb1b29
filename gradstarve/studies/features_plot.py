"""The figure of a `FeatureStudy`: every feature alone (dotted) and together (solid), by law (lines) and training (markers).

A column a loss; a row a kind of network, with its starvation index (10.6) on a strip of its own below. All share log t.
Features differ in colour (Okabe and Ito) and in the shape of their markers. Matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, GUIDE, NOTE, new_figure, number, save, sheet

_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = NOTE
_AIMED = ("hinge", "squared")  # losses that aim at a margin of 1
_FLOOR = -1.25  # of the index: far below it is as good as there
_SMALL: Any = {"fontsize": 7.5, "color": _GREY}
_ABOVE: Any = {
    "xycoords": "axes fraction",
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 12,
    "fontweight": "bold",
}


def draw(study: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.features.FeatureStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    losses = list(dict.fromkeys(cell.loss for cell in study.cells))
    models = list(dict.fromkeys(cell.model for cell in study.cells))
    with sheet():
        size = 1.2 + 3.1 * max(len(losses), 2), 2.4 + 2.7 * len(models) + 0.2 * max(len(study.settings["scales"]) - 4, 0)
        figure = new_figure(*size)
        figure.get_layout_engine().set(h_pad=0.02, w_pad=0.04, hspace=0.0, wspace=0.02)  # pyright: ignore
        panels = figure.subplots(
            2 * len(models), len(losses), sharex=True, squeeze=False, height_ratios=[2.6, 1.25] * len(models)
        )
        for i, model in enumerate(models):
            row, strips = panels[2 * i], panels[2 * i + 1]
            cells = [study.cell(model, loss) for loss in losses]
            for cell, panel, strip in zip(cells, row, strips, strict=True):
                _curves(panel, study, cell)
                _indices(strip, study, cell, cells)
            # Losses that go on for ever share an axis; those that aim at 1 have their own, or nothing would be seen of them.
            top = [p.get_ylim() for p, loss in zip(row, losses, strict=True) if loss not in _AIMED]
            for panel, loss in zip(row, losses, strict=True):
                if loss not in _AIMED:
                    panel.set_ylim(min(low for low, _ in top), max(high for _, high in top))
            row[0].set_ylabel("logit v")
            strips[0].set_ylabel("index")
            row[0].set_title(" ", loc="left", fontsize=10.5)  # keeps the room
            name = row[0].annotate(_name(model), (0, 1), (0, 5), **_ABOVE | {"ha": "left", "fontsize": 10.5})
            name.set_in_layout(False)  # or else a name wider than its panel would push the next one away
        for j, loss in enumerate(losses):
            panels[0, j].annotate(f"{loss} loss", (0.5, 1), (0, 24), **_ABOVE)
            panels[-1, j].set_xlabel("time t = step size × step")
            panels[-1, j].set_xscale("log")
            panels[-1, j].set_xlim(study.times[0], study.times[-1] * 1.1)
        wide = len(losses) > 2
        lines = [line for part in _title(study) for line in textwrap.wrap(part, 125 if wide else 90)]
        figure.suptitle("\n".join(lines), x=0.012, ha="left", fontsize=11.5 if wide else 10, linespacing=1.5)
        handles, labels = _legend(study, wide)
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3 if wide else 2, columnspacing=2.0
        )
        if path is not None:
            save(figure, path)
    return figure


def _title(study: Any) -> tuple[str, str]:
    gaps = [cell.gap for cell in study.cells if cell.law is not None]
    worst = f", within {number(max(gaps), 2)} of the largest logit" if gaps else ""
    return (
        "Logits v of features, together and alone, and the starvation index 1 − v / v alone",
        f"Lines: law. Markers: training of all weights{worst}.",
    )


def _name(model: int | str) -> str:
    if model == 1:
        return "One layer, law (10.1)"
    if isinstance(model, int):
        return f"{_words(model)} layers, aligned paths, law (10.1)"
    return "Two layers, ordinary neurons that see all samples: law (10.7), not (10.1)"


def _words(count: int) -> str:
    words = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}
    return words.get(count, str(count))


def _style(k: int) -> tuple[str, str]:
    # Beyond the last colour the first one comes again with another marker.
    return COLOURS[k % len(COLOURS)], _MARKS[(k + k // len(COLOURS)) % len(_MARKS)]


def _curves(panel: Any, study: Any, cell: Any) -> None:
    if cell.law is None:
        panel.text(0.02, 0.97, "no law: this loss\npushes neurons back", transform=panel.transAxes, va="top", **_SMALL)
    for k in range(cell.trained.shape[1]):
        colour, mark = _style(k)
        if cell.band is not None:
            low, middle, high = cell.band[..., k]
            panel.fill_between(study.records, low, high, color=colour, alpha=0.18, linewidth=0)
            panel.plot(study.records, middle, color=colour, linewidth=0.9, linestyle=(0, (6, 2)))
        if cell.law is not None:
            panel.plot(study.times, cell.law_alone[:, k], color=colour, linewidth=1.6, linestyle=(0, (1, 1.4)))
            panel.plot(study.times, cell.law[:, k], color=colour, linewidth=1.8)
        marks = {"linestyle": "none", "color": colour, "marker": mark, "zorder": 4}
        panel.plot(study.records[::2], cell.trained[::2, k], markersize=5, markerfacecolor="white", **marks)
        panel.plot(study.records[1::2], cell.trained_alone[1::2, k], markersize=2.8, **marks)


def _indices(panel: Any, study: Any, cell: Any, row: list[Any]) -> None:
    panel.axhline(0, color=GUIDE, linewidth=0.8)
    for k in range(cell.trained.shape[1]):
        colour, mark = _style(k)
        if cell.law is not None:
            panel.plot(study.times, cell.index[:, k], color=colour, linewidth=1.8)
        marks = {"linestyle": "none", "color": colour, "marker": mark, "zorder": 4}
        panel.plot(study.records[::2], cell.trained_index[::2, k], markersize=4.2, markerfacecolor="white", **marks)
    lowest = min(float(np.min(other.trained_index)) for other in row)
    panel.set_ylim(max(1.15 * min(lowest, -0.08), _FLOOR), 1.1)
    own = float(np.min(cell.trained_index))
    if own < _FLOOR:
        text = f"below 0: helped\n(down to −{-own:.2g})"
        # At first every index is about 0 or below it, so that the upper left is free.
        panel.text(0.02, 0.95, text, transform=panel.transAxes, va="top", **_SMALL)


def _legend(study: Any, wide: bool) -> tuple[list[Any], list[str]]:
    """Handles and labels in columns: the features, the law, training."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    types, weights = np.asarray(study.settings["types"]), np.asarray(study.settings["probabilities"])
    first: list[Any] = []
    for k, scale in enumerate(study.settings["scales"]):
        colour, mark = _style(k)
        text = f"feature {k + 1}: in {100 * (weights @ types)[k]:.3g} % of the samples, r = {number(scale)}"
        first.append((Line2D([], [], color=colour, marker=mark, markerfacecolor="white", linewidth=1.8), text))
    second: list[Any] = [
        (Line2D([], [], color=_GREY, linewidth=1.8), "law, features together"),
        (Line2D([], [], color=_GREY, linewidth=1.6, linestyle=(0, (1, 1.4))), "law, the feature alone"),
    ]
    third: list[Any] = [
        (Line2D([], [], color=_GREY, marker="o", markerfacecolor="white", linestyle="none"), "training, features together"),
        (Line2D([], [], color=_GREY, marker="o", markersize=2.8, linestyle="none"), "training, the feature alone"),
    ]
    if any(cell.band is not None for cell in study.cells):
        middle = Line2D([], [], color=_GREY, linewidth=0.9, linestyle=(0, (6, 2)))
        band = (Patch(color=_GREY, alpha=0.25, linewidth=0), middle)
        third.append((band, "training from random starts, together:\nmedian and 10–90 % of networks (no law)"))
    # Matplotlib fills column by column, so the columns are made equally long.
    columns = (first, second, third) if wide else (first, second + third)
    longest = max(map(len, columns))
    empty = (Line2D([], [], alpha=0), " ")
    entries = [entry for column in columns for entry in column + [empty] * (longest - len(column))]
    return [handle for handle, _ in entries], [label for _, label in entries]
