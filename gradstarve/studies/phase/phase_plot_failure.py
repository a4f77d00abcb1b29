"""The chance that class - is never learnt over the width: a row a loss, a column what is changed."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, SHADE, number
from gradstarve.studies.phase.failure import PANELS, STANDARD, widths
from gradstarve.studies.phase.phase_plot import GREY, MARKS, new_figure

_TITLES = {
    "angle": "Angle between the classes\n(small Gaussian start)",
    "ratio": "$σ_z/σ_w$, orthogonal classes\n(each neuron sees one of them)",
    "share": f"Frequency p₋, opposite classes\n(σ = {number(STANDARD)})",
    "scale": "Scale σ, opposite classes\n(p₋ = 1/2, r = 1)",
}
_NAMES = {"angle": "cos = {}", "ratio": "$σ_z/σ_w$ = {}", "share": "p₋ = {}", "scale": "σ = {}"}


def figure_of(diagram: Any) -> Any:
    """The figure."""
    losses, s = diagram.losses, diagram.settings
    figure = new_figure(
        13.5,
        1.9 + 3.5 * len(losses),
        "How often a network of h neurons never learns class −",
        f"Lines: law. Markers: {s['networks']} random networks with 95 % intervals; hinge trained by events, "
        "others trained where (4.1)–(4.4) do not decide. Grey: $2^{-h}$",
    )
    axes = figure.subplots(len(losses), len(PANELS), sharex=True, sharey=True, squeeze=False)
    for row, loss in zip(axes, losses, strict=True):
        for panel, name in zip(row, PANELS, strict=True):
            _panel(panel, diagram, loss, name)
        row[0].set_ylabel(f"{loss} loss\nclass − never learnt")
    for panel, name in zip(axes[0], PANELS, strict=True):
        panel.set_title(_TITLES[name], fontsize=10.5)
    for panel in axes[-1]:
        panel.set_xlabel("neurons h")
    return figure


def _panel(panel: Any, diagram: Any, loss: str, name: str) -> None:
    found, h = diagram.maps[loss], diagram.axes["width"]
    count = diagram.settings["networks"]
    panel.plot(h, 0.5**h, color=SHADE, linewidth=4.5, alpha=0.7, zorder=1, solid_capstyle="round")
    chosen = diagram.axes[name]
    for k, value in enumerate(chosen):
        colour, mark = COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]
        law = found[f"{name}_law"][k]
        known = np.isfinite(law)
        if known.sum() > 1:
            style = (0, (5, 2)) if name == "angle" and value != -1 else "-"
            panel.plot(h[known], law[known], color=colour, linewidth=1.5, linestyle=style)
        middle = found[f"{name}_failed"][k] / count
        low, high = found[f"{name}_low"][k], found[f"{name}_high"][k]
        seen = middle > 0
        # Side by side, so that equal ones can be told apart; networks of whole numbers of neurons all the same.
        place = h + 0.16 * (k - (len(chosen) - 1) / 2)
        bars = np.stack([middle - low, high - middle])
        look: dict[str, Any] = {"fmt": mark, "color": colour, "markersize": 5, "markerfacecolor": "white", "elinewidth": 1}
        shown = number(value).replace("-", "−")
        label = _NAMES[name].format(shown)
        panel.errorbar(place[seen], middle[seen], bars[:, seen], label=label, **look)
        panel.plot(place[~seen], high[~seen], linestyle="none", marker="v", markersize=4, color=colour)
    panel.set_yscale("log")
    panel.set_ylim(0.5 / count, 1.1)
    panel.set_xticks(widths(int(h[-1])))
    panel.legend(loc="lower left", fontsize=8.5, handletextpad=0.2)
    note = _note(loss, name)
    if note:
        panel.text(0.98, 0.97, note, transform=panel.transAxes, ha="right", va="top", fontsize=8.5, color=GREY)


def _note(loss: str, name: str) -> str:
    if name == "angle":
        return "dashed: limit of small\nstarts, $((1+D)/2)^h$"
    if name == "ratio":
        return "law $(1-π_L/2)^h$  (4.2)"
    if loss == "hinge":
        return "no law: a class that is learnt\nkeeps what it holds"
    return "law $2^{-h}$  (4.3), whatever\np, r and σ are"
