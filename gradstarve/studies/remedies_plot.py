"""The figure of a `RemedyStudy`: a row a remedy; how starved each feature is, how right the networks are, what it cost.

Points are medians over networks and bars reach from the 10 % to the 90 % quantile; diamonds are the law of one layer (10.1).
Features differ in colour (Okabe and Ito) and marker. Matplotlib is imported when a figure is drawn.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, FAINT, NOTE, new_figure, number, save, sheet

_MARKS = ("o", "s", "^", "D", "v", "P")
_GREY, _ALL = NOTE, COLOURS[6]
_FLOOR = -0.35  # of the index: what is below is named, not drawn to scale
_SPREAD = 0.46  # of a row, over its markers


def draw(study: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.remedies.RemedyStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    rows = len(study.outcomes)
    with sheet():
        figure = new_figure(12, 2.5 + 0.4 * rows)
        panels = figure.subplots(1, 3, sharey=True, width_ratios=[1.15, 1.15, 0.8])
        _indices(panels[0], study)
        _accuracies(panels[1], study)
        _costs(panels[2], study)
        panels[0].set_yticks(range(rows), [o.remedy.name for o in study.outcomes])
        panels[0].set_ylim(rows - 0.4, -0.6)
        for panel in panels:
            panel.grid(axis="y", visible=False)
            panel.tick_params(axis="y", length=0)
            for row in range(0, rows, 2):
                panel.axhspan(row - 0.5, row + 0.5, color=FAINT, alpha=0.4, linewidth=0, zorder=0)
        figure.suptitle(_title(study), x=0.012, ha="left", fontsize=11.5, linespacing=1.5)
        handles, labels = _legend(study)
        columns = len(handles) if len(handles) < 7 else -(-len(handles) // 2)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.8)
        if path is not None:
            save(figure, path)
    return figure


def _title(study: Any) -> str:
    s = study.settings
    types = ", ".join(
        f"{{{', '.join(str(k + 1) for k, shown in enumerate(row) if shown)}}} {number(p)}"
        for row, p in zip(s["types"], s["probabilities"], strict=True)
    )
    return (
        f"Remedies for a starved feature, on samples that show the features {types}\n"
        f"{s['networks']} ordinary ReLU networks of {s['width']} neurons under each, {s['steps']} steps of size "
        f"{s['step_size']:g}: median, and 10 to 90 % of networks. Penalty: spectral decoupling"
    )


def _offsets(count: int) -> np.ndarray:
    return _SPREAD * (np.arange(count) - (count - 1) / 2) / max(count - 1, 1)


def _point(panel: Any, row: float, spread: Any, colour: str, mark: str, scale: float = 1.0) -> None:
    low, middle, high = (float(value) * scale for value in spread)
    panel.plot([low, high], [row, row], color=colour, lw=2.2, alpha=0.45, solid_capstyle="round", zorder=2)
    edge = {"ms": 9, "mew": 2.2} if mark == "|" else {"ms": 5.5, "mec": "white", "mew": 0.5}
    panel.plot([middle], [row], marker=mark, color=colour, ls="none", zorder=3, **edge)


def _indices(panel: Any, study: Any) -> None:
    panel.set_title("starvation index", loc="left", fontweight="bold")
    panel.set_xlabel("1 − v / v alone:   0 learnt as if alone,   1 not at all")
    for row, outcome in enumerate(study.outcomes):
        size = len(outcome.index.median)
        for k, off in enumerate(_offsets(size)):
            spread = np.array([part[k] for part in outcome.index])
            if spread[1] < _FLOOR:
                # Helped by the others by more than the axis shows.
                panel.plot([_FLOOR + 0.02], [row + off], marker="<", color=COLOURS[k], ms=5.5, ls="none", zorder=3)
                panel.annotate(f"{spread[1]:.1f}", (_FLOOR + 0.05, row + off), color=COLOURS[k], fontsize=8, va="center")
            else:
                _point(panel, row + off, np.maximum(spread, _FLOOR), COLOURS[k], _MARKS[k % len(_MARKS)])
            if outcome.law_index is not None and outcome.law_index[k] > _FLOOR:
                law = {"marker": "D", "ms": 8.5, "mfc": "none", "mec": COLOURS[k], "mew": 1.0, "ls": "none", "zorder": 1.5}
                panel.plot([outcome.law_index[k]], [row + off], **law)
    panel.axvline(0, color=_GREY, lw=0.8, zorder=1)
    panel.set_xlim(_FLOOR, 1.08)


def _accuracies(panel: Any, study: Any) -> None:
    panel.set_title(f"right answers in noise {number(study.settings['noise'])}", loc="left", fontweight="bold")
    panel.set_xlabel("% of test samples")
    lowest = 50.0
    for row, outcome in enumerate(study.outcomes):
        size = len(outcome.accuracy.median)
        offsets = _offsets(size + 1)
        for k in range(size):
            spread = [part[k] for part in outcome.accuracy]
            _point(panel, row + offsets[k], spread, COLOURS[k], _MARKS[k % len(_MARKS)], 100.0)
        _point(panel, row + offsets[size], outcome.overall, _ALL, "|", 100.0)
        lowest = min(lowest, 100 * float(np.min(outcome.accuracy.low)))
    panel.axvline(100 * float(study.outcomes[0].overall.median), color=_GREY, lw=0.8, ls=(0, (4, 3)), zorder=1)
    panel.set_xlim(max(lowest - 2, 0), 101)


def _costs(panel: Any, study: Any) -> None:
    levels = study.settings["loss_levels"]
    panel.set_title("cost", loc="left", fontweight="bold")
    panel.set_xlabel("steps to that loss on the data")
    finite = [value for o in study.outcomes for value in o.cost if np.isfinite(value)]
    most = max([*finite, 10.0])
    never = most * 3
    panel.set_xscale("log")
    shades = np.linspace(0, 0.55, len(levels))
    for row, outcome in enumerate(study.outcomes):
        for off, value, shade in zip(_offsets(len(levels)), outcome.cost, shades, strict=True):
            colour = (shade, shade, shade)
            if np.isfinite(value):
                panel.plot([max(value, 1)], [row + off], marker="o", color=colour, ms=5, ls="none", zorder=3)
            else:
                panel.annotate("never", (never, row + off), color=colour, fontsize=8, ha="center", va="center")
    panel.set_xlim(min([*finite, 1e9]) / 2 if finite else 1, never * 2)
    panel.axvline(never / 1.75, color=_GREY, lw=0.6, zorder=1)


def _legend(study: Any) -> tuple[list[Any], list[str]]:
    from matplotlib.lines import Line2D

    size = len(study.outcomes[0].index.median)
    handles = [Line2D([], [], color=COLOURS[k], marker=_MARKS[k % len(_MARKS)], ls="none", ms=6) for k in range(size)]
    labels = [f"feature {k + 1}" for k in range(size)]
    if any(o.law_index is not None for o in study.outcomes):
        handles.append(Line2D([], [], color=_GREY, marker="D", mfc="none", ls="none", ms=7))
        labels.append("law of one layer (10.1)")
    handles.append(Line2D([], [], color=_ALL, marker="|", ls="none", ms=8, mew=1.6))
    labels.append("samples as in training (dashed: without remedy)")
    levels = study.settings["loss_levels"]
    for level, shade in zip(levels, np.linspace(0, 0.55, len(levels)), strict=True):
        handles.append(Line2D([], [], color=(shade, shade, shade), marker="o", ls="none", ms=5))
        labels.append(f"cross-entropy {level:g}")
    return handles, labels
