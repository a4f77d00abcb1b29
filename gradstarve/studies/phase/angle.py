"""The fate of one neuron between two classes at an angle: over the direction of w in their plane, and z/|w| (4.1)-(4.4).

A pixel is one network of one neuron with |(w, z)| = scale. The vertical axis is z/|(w, z)|, so that areas are probabilities
for a Gaussian start of equal deviations (in any dimension: the part of w outside of the plane of the classes has no effect).
While margins are below 1 (hinge), or small, only p_- r_- / p_+ r_+ matters, and only for neurons active on both classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import COLOURS, DARK, FAINT, number
from gradstarve.problem import LOSSES
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import (
    BLANK,
    BOX,
    DEAD,
    GREY,
    LEARNT,
    LIGHT_MINUS,
    LIGHT_PLUS,
    MARKS,
    OPEN,
    Plane,
    class_fates,
    cosines,
    counts,
    new_figure,
    positive,
    positives,
    proven,
    setting,
    two_classes,
)

UNDECIDED = 2
_MORE = 11  # the number of cosines of the curve of dead neurons
_COARSE = 90  # the pixels of the maps for this curve


@dataclass(frozen=True)
class Settings(plane.Settings):
    """Panels: `cosines` by `ratios` p_- r_- / p_+ r_+; neurons of |(w, z)| = `scale`; `pixels` of direction."""

    cosines: tuple[float, ...] = setting((0.0, -0.3, -0.7, -1.0), cosines)
    ratios: tuple[float, ...] = setting((1 / 9, 1.0, 9.0), positives)
    scale: float = setting(0.02, positive)
    pixels: int = setting(150, counts(4))


def steps(losses: tuple[str, ...], settings: Settings) -> int:
    """The number of calls of `advance` in `compute`."""
    return len(losses) * (len(settings.cosines) * len(settings.ratios) + _MORE)


def grid(pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """Centres: the direction of w from x_+, in degrees, and z/|(w, z)|; twice as many directions as heights."""
    directions = 360 * (np.arange(pixels) + 0.5) / pixels - 180
    count = pixels // 2
    return directions, 2 * (np.arange(count) + 0.5) / count - 1


def neurons(pixels: int, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """w [b, 1, 2] and z [b, 1] of all pixels, directions running fastest."""
    directions, heights = grid(pixels)
    angle, height = np.meshgrid(np.radians(directions), heights)
    flat = scale * np.sqrt(1 - height**2)
    w = np.stack([flat * np.cos(angle), flat * np.sin(angle)], axis=-1)
    return w.reshape(-1, 1, 2), scale * height.reshape(-1, 1)


def compute(losses: tuple[str, ...], settings: Settings, advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per loss: `fate` [cosines, ratios, heights, directions]: +1, -1 the class learnt, 0 dead, 2 undecided.

    `by_law`: the share of the pixels that (4.1)-(4.4) decide; `wrong`: how many of them training decides otherwise (for
    hinge loss, whose pixels are all followed from event to event); `dead` over `more_cosines`.
    """
    pixels, scale, ratios = settings.pixels, settings.scale, settings.ratios
    directions, heights = grid(pixels)
    w, z = neurons(pixels, scale)
    more, (few_w, few_z) = np.linspace(-1, 0, _MORE), neurons(min(_COARSE, pixels), scale)
    maps: dict[str, Any] = {}
    for loss in losses:
        fates, law, wrong = [], [], []
        for cosine in settings.cosines:
            for ratio in ratios:
                data = _data(cosine, ratio)
                known = _fate(proven(data, w, z, True))
                fate = _fate(class_fates(data, w, z, loss, trust=not LOSSES[loss].stops))
                fates.append(fate.reshape(len(heights), len(directions)))
                law.append(float((known != UNDECIDED).mean()))
                wrong.append(int(((known != UNDECIDED) & (known != fate) & (fate != UNDECIDED)).sum()))
                advance()
        shape = len(settings.cosines), len(ratios)
        dead = []
        for cosine in more:
            dead.append(float((_fate(class_fates(_data(cosine, 1.0), few_w, few_z, loss)) == 0).mean()))
            advance()
        maps[loss] = {
            "fate": np.array(fates).reshape(*shape, len(heights), len(directions)),
            "by_law": np.array(law).reshape(shape),
            "wrong": np.array(wrong).reshape(shape),
            "dead": np.array(dead),
        }
    return {"direction": directions, "height": heights, "more_cosines": more}, maps


def _data(cosine: float, ratio: float) -> Any:
    """Two classes with p_- r_- / p_+ r_+ = `ratio`: sqrt(ratio) by the frequencies and sqrt(ratio) by the norms."""
    root = np.sqrt(ratio)
    return two_classes(float(cosine), (1 / (1 + root), root / (1 + root)), (1.0, root))


def _fate(found: np.ndarray) -> np.ndarray:
    """+1, -1, 0, 2 for networks of one neuron."""
    fate = np.where(found[:, 0] == LEARNT, 1, np.where(found[:, 1] == LEARNT, -1, 0))
    return np.where((fate == 0) & (found == OPEN).any(1), UNDECIDED, fate)


def law_lines(cosine: float) -> list[np.ndarray]:
    """The boundaries by law, as [points, 2] of direction in degrees and height z/|(w, z)|.

    z = -a of both classes (4.1), for neurons active on one class only (all of them for opposite classes, 4.3); and, for
    neurons that leave, b + |c| a = 0, beyond which they become active on the other class (4.4).
    """
    angle = np.linspace(-180, 180, 2881)
    own = np.cos(np.radians(angle)), np.cos(np.radians(angle) - np.arccos(cosine))
    lines = []
    for k, sign in ((0, 1), (1, -1)):
        a, b = own[k], own[1 - k]
        line = -sign * a / np.sqrt(1 + a * a)
        shown = (a > 0) & (b <= 1e-9) & ((b - cosine * a <= 0) | (cosine == -1))
        lines.append(np.stack([angle, np.where(shown, line, np.nan)], axis=-1))
        if -1 < cosine < 0:
            edge = b - cosine * a
            for i in np.flatnonzero((a[:-1] > 0) & (b[:-1] <= 0) & (edge[:-1] * edge[1:] < 0)):
                where = angle[i] - edge[i] * (angle[i + 1] - angle[i]) / (edge[i + 1] - edge[i])
                lines.append(np.array([[where, line[i]], [where, -sign]]))
    return lines


def dead_share(cosine, scale_w: float = 1.0, scale_z: float = 1.0) -> Any:
    """The share of Gaussian neurons that end dead between classes at `cosine`, each alone in its network, for any loss.

    With theta = arccos c, (pi - theta)/(2 pi) of the neurons are active on no class at the start. Of those active on one
    class only, the neurons that leave it with b + |c| a <= 0 die (4.4), (1 - pi_L)/2 of all neurons for every -1 < c <= 0. A
    neuron active on both leaves a class only while z has the sign of the other one, and so never dies (2.0). At c = -1 no
    neuron dies (4.3): the limit of c -> -1, (1 - pi_L)/2, is not the value there.

    >>> [round(float(dead_share(c)), 3) for c in (0.0, -0.999999999, -1.0)]
    [0.375, 0.125, 0.0]
    """
    cosine = np.asarray(cosine, float)
    leave = float(1 - theory.learning_probability(scale_w, scale_z)) / 2
    return np.where(cosine == -1, 0.0, leave + (np.pi - np.arccos(cosine)) / (2 * np.pi))


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row for each loss, cosine and ratio: the chance of each fate, and the share that theory decides."""
    head = ("loss", "cosine", "p-r-/p+r+", "learns +", "learns -", "dead", "undecided", "law decides", "against it")
    table: list[tuple[str, ...]] = [head]
    for loss, found in diagram.maps.items():
        for i, cosine in enumerate(diagram.settings["cosines"]):
            for j, ratio in enumerate(diagram.settings["ratios"]):
                fate = found["fate"][i, j]
                shares = [f"{100 * float((fate == value).mean()):.2f} %" for value in (1, -1, 0, UNDECIDED)]
                law = f"{100 * found['by_law'][i, j]:.1f} %"
                against = str(int(found["wrong"][i, j])) if LOSSES[loss].stops else "-"
                table.append((loss, f"{cosine:g}", f"{ratio:.3g}", *shares, law, against))
    return table


def conclusion(diagram: Any) -> str:
    """How many neurons die at the smallest and the largest angle."""
    cosines = np.asarray(diagram.settings["cosines"])
    loss, found = next(iter(diagram.maps.items()))
    first, last = (100 * float((found["fate"][i, 0] == 0).mean()) for i in (np.argmax(cosines), np.argmin(cosines)))
    angles = [f"{np.degrees(np.arccos(c)):.0f} degrees" for c in (cosines.max(), cosines.min())]
    return f"{first:.0f} % of random neurons die between classes at {angles[0]}, and {last:.0f} % at {angles[1]} ({loss})"


NOTES = (
    "Chances for a Gaussian start with equal deviations: parts of the area. 'law decides': pixels that (4.1)-(4.4) settle;\n"
    "'against it': pixels of these that training from event to event decides otherwise. Others are trained."
)


# The fate of one neuron over the direction of w and z/|w|: one row per loss, one column per angle; below, changes with
# ratio.

_TICKS = (-4, -1, -0.5, 0, 0.5, 1, 4)  # of z/|w|
_FATES = ((1, LIGHT_PLUS), (-1, LIGHT_MINUS), (0, DEAD), (UNDECIDED, BLANK))


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
    panel.plot(-1, 0, "o", color="black", markersize=7, clip_on=False, zorder=5, label="law at 180° (4.3): no neuron dies")
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


PLANE = Plane(Settings, steps, compute, rows, NOTES, figure_of, conclusion)
