"""The plane of one neuron, a = w.xh_+ and its read-out z: its fate, and the time it takes (4.1), (4.3), (3.6), (3.7).

The orbits a^2 - z^2 = const are the same for every loss. A neuron with z > -a learns class +. With z < -a it leaves class +:
between orthogonal classes it is dead, between opposite classes it joins class -. With hinge loss a neuron stops
on a z = 1/r, where its margin is 1; with cross-entropy it moves for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import DARK, check_sum_is_one, number
from gradstarve.problem import LOSSES, Dataset, Mode, TwoLayerReLU
from gradstarve.simulation import EventKind, simulate_hinge_exact
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import (
    BOX,
    DEAD,
    GREY,
    MINUS,
    PLUS,
    Plane,
    counts,
    new_figure,
    pair,
    positive,
    real,
    setting,
)

GEOMETRIES = ("orthogonal", "antipodal")


@dataclass(frozen=True)
class Settings(plane.Settings):
    """The problem, and the map: `extent` of a and z, `pixels` a side."""

    frequencies: tuple[float, float] = setting((0.5, 0.5), pair)
    norms: tuple[float, float] = setting((1.0, 1.0), pair)
    extent: float = setting(2.0, positive)
    pixels: int = setting(160, counts(4))

    def __post_init__(self) -> None:
        check_sum_is_one("frequencies", np.array(self.frequencies), "give p and 1 - p")
        with np.errstate(over="ignore"):
            largest = real(np.array(self.extent)) ** 2 * max(self.norms)
        if not np.isfinite(largest):
            raise ValueError(f"extent must leave room for logits of size norm extent^2, got {number(self.extent)}")


def compute(losses: tuple[str, ...], settings: Settings, advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Axes a and z of the pixels' centres, and per loss and geometry `end` (+1, -1 the class learnt, 0 dead) and `time`.

    `time` is that of a margin of 1, or of leaving where the neuron dies; NaN where it never was in a class. [z, a] each.
    """
    extent, pixels = settings.extent, settings.pixels
    grid = (2 * np.arange(pixels) + 1 - pixels) * extent / pixels
    # No centre lies on z = -a, the border between two fates.
    heights = grid + extent / pixels / 2
    a, z = (real(values.reshape(-1)) for values in np.meshgrid(grid, heights))
    maps: dict[str, Any] = {}
    for loss in losses:
        found: dict[str, Any] = {}
        for geometry in GEOMETRIES:
            if LOSSES[loss].stops:
                end, time = _by_events(geometry, a, z, settings)
            else:
                end, time = by_law(geometry, a, z, settings, loss)
            found[f"{geometry}_end"] = end.reshape(pixels, pixels)
            found[f"{geometry}_time"] = time.reshape(pixels, pixels)
            advance()
        maps[loss] = found
    return {"a": grid, "z": heights}, maps


def steps(losses: tuple[str, ...], settings: Settings) -> int:
    """The number of calls of `advance` in `compute`."""
    return len(losses) * len(GEOMETRIES)


def by_law(geometry: str, a, z, settings, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """(end, time) in closed form."""
    (p, q), (r, s) = settings.frequencies, settings.norms
    if geometry == "orthogonal":
        solution = theory.solve_mode(Mode(p, r, a[:, None], z[:, None]), loss)
        end = np.asarray(theory.exclusive_fate(a, z)).astype(int)
        time = np.where(end == 1, np.asarray(solution.time_to_logit(1.0)), np.asarray(solution.events)[:, 0])
        return end, np.where(a > 0, time, np.nan)
    data = Dataset([[r], [-s]], [1.0, -1.0], [p, q])
    solution = theory.solve(data, TwoLayerReLU(a[:, None, None], z[:, None]), loss)
    time = np.minimum(*(np.asarray(curve.time_to_logit(1.0)) for curve in (solution.plus, solution.minus)))
    return np.asarray(theory.antipodal_fate(a, z)).astype(int), time


def _by_events(geometry: str, a, z, settings) -> tuple[np.ndarray, np.ndarray]:
    """(end, time) of hinge loss, from event to event."""
    (p, q), (r, s) = settings.frequencies, settings.norms
    if geometry == "orthogonal":
        # Along the second axis the neuron is at -1, where it does not see class -.
        points, w = [[r, 0.0], [0.0, s]], np.stack([a, np.full_like(a, -1.0)], axis=-1)
    else:
        points, w = [[r, 0.0], [-s, 0.0]], np.stack([a, np.zeros_like(a)], axis=-1)
    run = simulate_hinge_exact(Dataset(points, [1.0, -1.0], [p, q]), TwoLayerReLU(w[:, None], z[:, None]), max_events=8)
    margins = np.asarray(run.final(run.data.points)) * [1, -1]
    learnt = margins > 1 - 1e-4  # at rest a margin is 1 to rounding, or 0
    end = np.where(learnt[:, 0], 1, np.where(learnt[:, 1], -1, 0))
    last = np.where(end != 0, EventKind.LEARNT, EventKind.SLEEPS)
    kinds, times = run.events.kind, run.events.time
    happened = kinds == last[:, None]
    time = np.where(happened.any(1), np.where(happened, times, 0).max(1, initial=0), 0)
    never = (end == 0) & (a <= 0)
    return end, np.where(never, np.nan, time)


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row for each loss and geometry: the share of the plane of each fate, and the median time."""
    table: list[tuple[str, ...]] = [("loss", "classes", "learns +", "learns -", "leaves, dead", "never in", "median time")]
    for loss, found in diagram.maps.items():
        for geometry in GEOMETRIES:
            end, time = found[f"{geometry}_end"], found[f"{geometry}_time"]
            never = np.isnan(time)
            parts = [end == 1, end == -1, (end == 0) & ~never, never]
            shares = [f"{100 * float(part.mean()):.1f} %" for part in parts]
            middle = number(np.median(time[~never]))
            table.append((loss, geometry, *shares, middle))
    return table


def conclusion(diagram: Any) -> str:
    """How much of the plane a neuron is lost from."""
    loss, found = next(iter(diagram.maps.items()))
    left = (found["orthogonal_end"] == 0) & ~np.isnan(found["orthogonal_time"])
    seen = ~np.isnan(found["orthogonal_time"])
    lost = 100 * float(left.sum() / seen.sum())
    first = f"Between orthogonal classes {lost:.0f} % of the starts that see a class lead to death"
    return f"{first}, between opposite ones none ({loss} loss)"


NOTES = (
    "Parts of the plane |a|, |z| <= extent; time until the margin is 1, or until the neuron leaves where it then is dead.\n"
    "Hinge from event to event, others by the clock (3.7)."
)


# The (a, z) plane of one neuron: one row per geometry, one column per loss; colour is the time, lines are orbits.

_INVARIANTS = (-2.2, -0.8, -0.15, 0.15, 0.8, 2.2)
_TOLD = {
    "orthogonal": "Orthogonal classes: who leaves is dead",
    "antipodal": "Opposite classes: who leaves is taken up",
}


def figure_of(diagram: Any) -> Any:
    """The figure, without a frame of settings around it."""
    s, losses = diagram.settings, diagram.losses
    (p, q), (r, t) = s["frequencies"], s["norms"]
    figure = new_figure(
        2.6 + 4.5 * len(losses),
        9.3,
        f"One neuron{'' if len(losses) > 1 else f', {losses[0]} loss'}: where it goes, and how long it takes",
        f"Orbits a² − z² = const are the same for every loss. Time step size × step;  class +: p = {number(p)}, "
        f"r = {number(r)};  class −: p = {number(q)}, r = {number(t)}",
    )
    axes = figure.subplots(2, len(losses), sharex=True, sharey=True, squeeze=False)
    # One scale of colours, up to what 97 % of the slowest map need, by factors of 2.
    most = max(float(np.nanquantile(m[f"{g}_time"], 0.97)) for m in diagram.maps.values() for g in _TOLD)
    most = 2.0 ** np.ceil(np.log2(max(most, 1e-9)))
    images: list[Any] = []
    for i, geometry in enumerate(_TOLD):
        for panel, loss in zip(axes[i], losses, strict=True):
            images = _map(panel, diagram, loss, geometry, most)
            _orbits(panel, diagram, loss, geometry)
            _dress(panel, diagram, loss, geometry)
            if i == 0 and len(losses) > 1:
                panel.set_title(f"{loss} loss", fontweight="bold", fontsize=12, pad=22)
            if panel is axes[i, 0]:
                panel.annotate(_TOLD[geometry], (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points")
        axes[i, 0].set_ylabel("z, read-out of the neuron")
    for panel in axes[-1]:
        panel.set_xlabel("a = w·x / |x|  along class +")
    names = ("time until the margin of class + is 1", "time until that of class − is 1,\nor until it leaves and is dead")
    for image, label in zip(images, names, strict=True):
        bar = figure.colorbar(image, ax=axes, location="right", extend="both", shrink=0.6, aspect=30, pad=0.015)
        bar.set_ticks(most / 2.0 ** np.arange(7), labels=[number(v) for v in most / 2.0 ** np.arange(7)])
        bar.ax.minorticks_off()
        bar.set_label(label)
    return figure


def _map(panel: Any, diagram: Any, loss: str, geometry: str, most: float) -> list[Any]:
    """The time in blues where class + is learnt and in oranges elsewhere, with contours; grey where nothing moves."""
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap, LogNorm

    a, z = diagram.axes["a"], diagram.axes["z"]
    found = diagram.maps[loss]
    end, time = found[f"{geometry}_end"], found[f"{geometry}_time"]
    panel.set_facecolor(DEAD)
    images = []
    levels = most / 2.0 ** np.arange(6)[::-1]
    for mine, name in ((end == 1, "Blues"), (end != 1, "Oranges")):
        colours = LinearSegmentedColormap.from_list(name, mpl.colormaps[name](np.linspace(0.08, 0.72, 128)))
        part = np.where(mine & np.isfinite(time), np.maximum(time, levels[0] / 8), np.nan)
        scale = LogNorm(levels[0] / 4, most)
        images.append(panel.pcolormesh(a, z, part, cmap=colours, norm=scale, rasterized=True))
        lines = panel.contour(a, z, part, levels, colors=GREY, linewidths=0.7, linestyles="dotted")
        # Labels lie along one ray, clear of the words.
        places = _places(lines, name == "Blues", geometry, diagram.settings["extent"])
        panel.clabel(lines, fmt=number, fontsize=8, inline_spacing=2, manual=places, colors="black")
    return images


def _places(lines: Any, blue: bool, geometry: str, extent: float) -> list[tuple[float, float]]:
    """A point of every contour, on a line across its region that carries no words."""
    column = 0.93 if blue else -0.93
    places = []
    for piece in lines.allsegs:
        points = np.concatenate([*piece, np.empty((0, 2))]) / extent
        points = points[(np.abs(points) < 0.96).all(1)]
        if not len(points):
            continue
        below = geometry == "orthogonal" and not blue
        off = np.abs(points[:, 1] + 0.62) if below else np.abs(points[:, 0] - column)
        if off.min() < 0.05:
            places.append(tuple(points[np.argmin(off)] * extent))
    return places


def _orbits(panel: Any, diagram: Any, loss: str, geometry: str) -> None:
    """Hyperbolas a^2 - z^2 = const with an arrow each, up to the curve on which hinge loss stops."""
    extent, norms = diagram.settings["extent"], diagram.settings["norms"]
    curves = []
    line = np.linspace(0, 1, 400) * extent
    for k in np.array(_INVARIANTS) * (extent / 2) ** 2:
        if k > 0:
            z = np.linspace(-extent, extent, 800)
            curves.append((1, np.sqrt(k + z * z), z))
        else:
            curves.append((1, line, np.sqrt(line**2 - k)))
            curves.append((1, line[::-1], -np.sqrt(line[::-1] ** 2 - k)))
    if geometry == "antipodal":
        curves += [(-1, -a, -z) for _, a, z in curves]
    for side, a, z in curves:
        inside = (np.abs(a) <= extent) & (np.abs(z) <= extent)
        if LOSSES[loss].stops:
            inside &= side * np.maximum(side * a, 0) * z < 1 / norms[0 if side > 0 else 1]
        if inside.sum() < 20:
            continue
        a, z = a[inside], z[inside]
        panel.plot(a, z, color="black", linewidth=0.8, alpha=0.75)
        i = int(0.55 * len(a))
        arrow = {"arrowstyle": "-|>", "color": "black", "linewidth": 0.8, "mutation_scale": 9, "shrinkA": 0, "shrinkB": 0}
        panel.annotate("", (a[i + 2], z[i + 2]), (a[i], z[i]), arrowprops=arrow)


def _dress(panel: Any, diagram: Any, loss: str, geometry: str) -> None:
    extent, norms = diagram.settings["extent"], diagram.settings["norms"]
    start = -extent if geometry == "antipodal" else 0
    panel.plot([start, extent], [-start, -extent], color="black", linewidth=2.2, linestyle=(0, (4, 1.5)))
    panel.axvline(0, color="black", linewidth=0.8)
    panel.plot(0, 0, "o", color="black", markersize=5.5, markerfacecolor="white", zorder=6)
    if LOSSES[loss].stops:
        grid = np.linspace(1e-3, extent, 600)
        for side, norm, colour in ((1, norms[0], PLUS), (-1, norms[1], MINUS)):
            if side > 0 or geometry == "antipodal":
                curve = 1 / (norm * grid)
                shown = curve <= extent
                ends = side * grid[shown], side * curve[shown]
                panel.plot(*ends, color=colour, linewidth=2.6)
                beyond: Any = {"facecolor": "none", "edgecolor": "white", "hatch": "//", "linewidth": 0}
                panel.fill_between(*ends, side * extent, **beyond)
        if norms[0] * extent**2 > 1.5:
            told = "beyond a z = 1/r\nnothing moves"
            panel.text(0.97 * extent, 0.96 * extent, told, ha="right", va="top", fontsize=9, bbox=BOX)
    told = [((0.5, 0.1), "learns +", PLUS)]
    if geometry == "orthogonal":
        told += [((0.3, -0.9), "leaves: dead", DARK[3]), ((-0.5, 0.0), "never active: dead", GREY)]
    else:
        told += [((-0.5, -0.1), "learns −", DARK[3]), ((0.32, -0.9), "leaves + for −", DARK[3])]
        told += [((-0.32, 0.9), "leaves − for +", PLUS)]
    for (x, y), text, colour in told:
        panel.text(x * extent, y * extent, text, ha="center", va="center", color=colour, fontweight="bold", bbox=BOX)
    panel.text(0.42 * extent, -0.355 * extent, "z = −a", rotation=-45, ha="center", va="center", fontsize=9.5, bbox=BOX)
    panel.text(-0.03 * extent, -0.07 * extent, "saddle", fontsize=8.5, ha="right", va="top", bbox=BOX)
    panel.set_xlim(-extent, extent)
    panel.set_ylim(-extent, extent)
    panel.set_aspect("equal")
    panel.grid(False)


PLANE = Plane(Settings, steps, compute, rows, NOTES, figure_of, conclusion)
