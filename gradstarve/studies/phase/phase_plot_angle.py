"""The fate of one neuron over the direction of w and z/|w|: a row a loss, a column an angle; below, what moves."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.ground import COLOURS, DARK, FAINT, number
from gradstarve.studies.phase.angle import UNDECIDED, dead_share, law_lines
from gradstarve.studies.phase.phase_plot import BOX, DEAD, GREY, LIGHT_MINUS, LIGHT_PLUS, MARKS, OPEN, new_figure

_TICKS = (-4, -1, -0.5, 0, 0.5, 1, 4)  # of z/|w|
_FATES = ((1, LIGHT_PLUS), (-1, LIGHT_MINUS), (0, DEAD), (UNDECIDED, OPEN))


def figure_of(diagram: Any) -> Any:
    """The figure."""
    cosines, ratios, losses = diagram.settings["cosines"], diagram.settings["ratios"], diagram.losses
    columns = max(len(cosines), 2)
    figure = new_figure(
        1.4 + 3.3 * columns,
        2.2 + 2.5 * len(losses) + 3.4,
        "One neuron between two classes: what it learns, by the direction of w and by z/|w|",
        f"Equal areas are equal chances for a Gaussian start. |(w, z)| = {number(diagram.settings['scale'])}; "
        "black: boundaries by law (4.1), (4.3), (4.4); colours: trained, a pixel a network",
    )
    grid = figure.add_gridspec(len(losses) + 1, columns, height_ratios=[1.0] * len(losses) + [1.25])
    middle = _nearest(ratios)
    for i, loss in enumerate(losses):
        for j, cosine in enumerate(cosines):
            panel = figure.add_subplot(grid[i, j])
            _map(panel, diagram, diagram.maps[loss]["fate"][j, middle])
            for line in law_lines(cosine):
                panel.plot(line[:, 0], line[:, 1], color="black", linewidth=1.6)
            _axes(panel, i == len(losses) - 1, j == 0)
            if i == 0:
                degrees = np.degrees(np.arccos(cosine))
                panel.set_title(f"cos = {_signed(cosine)}  ({degrees:.0f}°)", fontweight="bold")
            if j == 0:
                panel.set_ylabel(f"{loss}\nz / |w|")
    half = columns // 2
    _ratios(figure.add_subplot(grid[-1, :half]), diagram)
    _dead(figure.add_subplot(grid[-1, half:]), diagram)
    _legend(figure, diagram)
    return figure


def _signed(value: float) -> str:
    return number(value).replace("-", "−")


def _nearest(ratios: Any) -> int:
    return int(np.argmin(np.abs(np.log(np.array(ratios)))))


def _map(panel: Any, diagram: Any, fate: np.ndarray) -> None:
    from matplotlib.colors import BoundaryNorm, ListedColormap

    order = sorted(_FATES)
    colours = ListedColormap([colour for _, colour in order])
    bounds = [value - 0.5 for value, _ in order] + [order[-1][0] + 0.5]
    norm = BoundaryNorm(bounds, len(order))
    panel.pcolormesh(
        diagram.axes["direction"], diagram.axes["height"], fate, cmap=colours, norm=norm, rasterized=True, zorder=0
    )


def _axes(panel: Any, low: bool, left: bool) -> None:
    panel.set_xlim(-180, 180)
    panel.set_ylim(-1, 1)
    panel.set_xticks([-135, -90, -45, 0, 45, 90, 135], ["", "−90", "", "0", "", "90", ""])
    panel.set_yticks([t / np.sqrt(1 + t * t) for t in _TICKS], [f"{t:g}".replace("-", "−") for t in _TICKS])
    panel.grid(False)
    panel.tick_params(labelbottom=low, labelleft=left)
    if low:
        panel.set_xlabel("direction of w from x₊, degrees")


def _ratios(panel: Any, diagram: Any) -> None:
    """The boundary between class + and the rest for every ratio of rates, at one angle, by the last loss."""
    cosines, ratios = diagram.settings["cosines"], diagram.settings["ratios"]
    # Far from opposite, where many neurons see both classes.
    j = max(range(len(cosines)), key=lambda k: cosines[k] if cosines[k] < 0 else -2)
    loss = diagram.losses[-1]
    fates = diagram.maps[loss]["fate"][j]
    _map(panel, diagram, fates[_nearest(ratios)])
    x, y = diagram.axes["direction"], diagram.axes["height"]
    styles = ((0, (1, 1)), "-", (0, (5, 2)), (0, (3, 1, 1, 1)))
    for k, ratio in enumerate(ratios):
        colour = DARK[k % 4]
        panel.contour(x, y, (fates[k] == 1).astype(float), [0.5], colors=colour, linestyles=[styles[k % 4]], linewidths=1.8)
        label = f"{number(ratio) if ratio >= 1 else '1/' + number(1 / ratio)}"
        panel.plot([], [], color=colour, linestyle=styles[k % 4], linewidth=1.8, label=label)
    angle = np.degrees(np.arccos(cosines[j]))
    panel.axvspan(angle - 90, 90, facecolor="none", edgecolor="white", hatch="//", linewidth=0)
    panel.text((angle - 90 + 90) / 2, 0.9, "sees both", ha="center", va="top", fontsize=9, bbox=BOX)
    panel.set_title(f"Only neurons that see both classes feel p and r  (cos = {_signed(cosines[j])}, {loss})", fontsize=10.5)
    _axes(panel, True, True)
    panel.set_ylabel("z / |w|")
    panel.legend(title="p₋r₋ / p₊r₊", loc="lower left", fontsize=8.5, title_fontsize=8.5, frameon=True, framealpha=0.9)


def _dead(panel: Any, diagram: Any) -> None:
    """The chance to die over the cosine: law, and training."""
    line = np.linspace(-1 + 1e-9, 0, 300)
    panel.plot(line, 100 * dead_share(line), color="black", linewidth=1.8, label="law: 1/8 + (π − θ)/2π, by (4.2), (4.4)")
    panel.plot(-1, 12.5, "o", color="black", markerfacecolor="white", markersize=7, clip_on=False, zorder=5)
    panel.plot(-1, 0, "o", color="black", markersize=7, clip_on=False, zorder=5, label="law at 180° (4.3): nobody dies")
    panel.fill_between(line, 0, 100 * (np.pi - np.arccos(line)) / (2 * np.pi), color=FAINT, label="never sees a class")
    more = diagram.axes["more_cosines"]
    for k, (loss, found) in enumerate(diagram.maps.items()):
        look: dict[str, Any] = {"marker": MARKS[k + 1], "color": COLOURS[2 + k], "markersize": 9 - 3 * k}
        look |= {"linestyle": "none", "markerfacecolor": "none", "markeredgewidth": 1.6}
        panel.plot(more, 100 * found["dead"], label=f"trained, {loss}", **look)
    panel.set_xlim(-1.03, 0.03)
    panel.set_ylim(0, 50)
    panel.set_xlabel("cosine of the angle between the classes")
    panel.set_ylabel("neurons dead in the end, %")
    panel.set_title("One neuron in eight, and those that never see a class, die at any angle but 180°", fontsize=10.5)
    panel.legend(loc="upper left", fontsize=8.5)


def _legend(figure: Any, diagram: Any) -> None:
    from matplotlib.patches import Patch

    shown = {int(v) for found in diagram.maps.values() for v in np.unique(found["fate"])}
    names = {1: "learns class +", -1: "learns class −", 0: "dead: active on no point for ever", UNDECIDED: "not decided"}
    handles = [Patch(facecolor=colour, edgecolor=GREY, label=names[value]) for value, colour in _FATES if value in shown]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
