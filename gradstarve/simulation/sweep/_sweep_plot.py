"""The figure of a sweep: the error of all networks as a median in a band, and the share of them that has learnt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, GUIDE, new_figure, number, save, sheet

_BAND = (0.05, 0.5, 0.95)
_BANDS = 2  # more of them are a grey mass
_LINES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (5, 2, 1, 2)))


def draw(result: Any, path: Any, configurations: Sequence[int] | None) -> Any:
    """The figure of a `SweepResult`, saved to `path` too if there is one.

    Left the error over the steps, on a logarithmic axis: the median over networks and, where there are at most two
    configurations, the band of 5 to 95 % of them (more would lie on top of each other). Right the share of networks with an
    error below the threshold. `configurations` (by number, the last name of `over` running fastest) chooses what is drawn;
    by default up to seven, spread evenly.
    """
    total = len(result.configurations)
    if configurations is None:
        configurations = [int(i) for i in np.unique(np.linspace(0, total - 1, min(total, len(COLOURS))).round())]
    bad = [i for i in configurations if not 0 <= i < total]
    if bad or len(configurations) == 0:
        raise ValueError(f"configurations must be some of 0..{total - 1}, got {list(configurations)!r}")
    bands = result.quantile("error", _BAND).reshape(total, len(result.grid), 3)
    learnt = result["learnt"].reshape(total, -1)
    with sheet():
        figure = new_figure(9, 4.6)
        left, right = figure.subplots(1, 2)
        for place, which in enumerate(configurations):
            line = {
                "color": COLOURS[place % len(COLOURS)],
                "linestyle": _LINES[place % len(_LINES)],
                "linewidth": 1.9,
                "label": _name(result, which),
            }
            low, middle, high = bands[which].T
            if len(configurations) <= _BANDS:
                left.fill_between(result.grid, low, high, color=line["color"], alpha=0.16, linewidth=0)
            left.plot(result.grid, middle, **line)
            right.plot(result.grid, 100 * learnt[which], **line)
        left.axhline(result.threshold, color=GUIDE, linewidth=0.8, linestyle=":")
        left.set_yscale("log")
        what = "median, band of 5–95 %" if len(configurations) <= _BANDS else "median"
        left.set_title(f"error: {what} of networks", loc="left")
        left.set_ylabel("error σ(−m), averaged over the data")
        right.set_title(f"networks with an error below {number(result.threshold)}", loc="left")
        right.set_ylabel("share of networks (%)")
        right.set_ylim(-2, 102)
        for panel in (left, right):
            panel.set_xlabel("step k")
            panel.set_xlim(result.grid[0], result.grid[-1])
        handles, labels = left.get_legend_handles_labels()
        if total > 1:
            # As many columns as fit into nine inches.
            columns = max(1, min(4, len(labels), 110 // (max(map(len, labels)) + 8)))
            figure.legend(handles, labels, loc="outside lower center", ncols=columns)
        figure.suptitle(_title(result, len(configurations)), x=0.012, ha="left", fontsize=12, fontweight="bold")
        if path is not None:
            save(figure, path)
    return figure


def _name(result: Any, which: int) -> str:
    def shown(value: Any) -> str:
        return number(value) if isinstance(value, int | float) else str(value)

    return ", ".join(f"{name} = {shown(value)}" for name, value in result.configurations[which].labels.items())


def _title(result: Any, drawn: int) -> str:
    networks = len(result.seeds)
    text = f"{networks:,} network{'s' * (networks > 1)}"
    total = len(result.configurations)
    if total > 1:
        text += f" for each of {total} configurations" + (f", {drawn} of them shown" if drawn < total else "")
    diverged = int(result["diverged"].sum())
    return text + (f"; {diverged:,} diverged and are left out" if diverged else "")
