"""The time until a class is learnt: quantiles over random networks of the time to a margin of 1 (3.6), (3.7).

All neurons are active on one class only, a = |N(0, sigma^2)|, z ~ N(0, sigma^2), so that the class is an independent mode
(2.1). By (3.11) a class of frequency p and norm r behaves as one of p = r = 1 with weights sqrt(r) times as large and times
1/(p r) times as long: one batch of networks over r gives the whole map of frequency and norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import COLOURS, DARK, MAP, number, positive_int
from gradstarve.problem import LOSSES, Dataset, Mode, TwoLayerReLU
from gradstarve.simulation import simulate_hinge_exact
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import (
    BOX,
    GREY,
    MARKS,
    Plane,
    counts,
    new_figure,
    positive,
    positives,
    real,
    seeds,
    setting,
)

QUANTILES = (0.1, 0.5, 0.9)
_LEARNT = 3
_CHUNK = 2048


def _ends(name: str, value: Any) -> tuple[float, ...]:
    ends = positives(name, value)
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"{name} must be the least and the largest of the map, got {value!r}")
    return ends


def _widths(name: str, value: Any) -> tuple[int, ...]:
    return tuple(sorted({positive_int(name, one) for one in np.ravel(np.array(value, object))}))


@dataclass(frozen=True)
class Settings(plane.Settings):
    """`width` and `scale` of the map of frequency and norm; `widths` and the ends of the `scales` of the other map."""

    width: int = setting(8, counts())
    scale: float = setting(0.05, positive)
    widths: tuple[int, ...] = setting((1, 2, 4, 8, 16), _widths)
    scales: tuple[float, ...] = setting((0.001, 1.0), _ends)
    networks: int = setting(120, counts(10))
    pixels: int = setting(25, counts(3))
    key: int | tuple[int, ...] = setting(0, seeds)


def steps(losses: tuple[str, ...], settings: Settings) -> int:
    """The number of calls of `advance` in `compute`."""
    return len(losses) * 2


def compute(losses: tuple[str, ...], settings: Settings, advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per loss: `norm_time` [3, frequencies, norms] and `scale_time` [3, widths, scales], the latter in units of 1/(p r).

    Quantiles 10, 50, 90 % over networks, inf if too many networks never learn; `gap` of the hinge loss to (3.6).
    """
    pixels, count = settings.pixels, settings.networks
    frequencies, norms = np.geomspace(0.01, 1, pixels), np.geomspace(0.1, 10, pixels)
    scales = np.geomspace(settings.scales[0], settings.scales[1], pixels)
    sizes = np.array(settings.widths)
    maps: dict[str, Any] = {}
    for loss in losses:
        rng = np.random.default_rng(settings.key)
        # Padded with neurons of zeros, so that both maps use one compiled program.
        most = max(int(sizes[-1]), settings.width)
        draw = rng.normal(size=(2, count, most)) * settings.scale * (np.arange(most) < settings.width)
        small = np.sqrt(norms)[:, None, None]
        first, gap = _times(loss, np.abs(draw[0]) * small, draw[1] * small)
        advance()
        draw = rng.normal(size=(2, len(sizes), 1, count, most)) * (np.arange(most) < sizes[:, None])[:, None, None, :]
        large = scales[:, None, None]
        second, other = _times(loss, np.abs(draw[0]) * large, draw[1] * large)
        advance()
        reached = _quantiles(first)
        maps[loss] = {
            "norm_time": reached[:, None, :] / (frequencies[:, None] * norms),
            "scale_time": _quantiles(second),
            "scale_failed": np.isinf(second).mean(-1),
            "gap": max(gap, other),
        }
    return {"frequency": frequencies, "norm": norms, "width": sizes, "scale": scales}, maps


def _quantiles(times: np.ndarray) -> np.ndarray:
    """Quantiles over the last axis, [3, ...]; each is one of the times, so that inf does not mix with finite times."""
    ranks = [-(-round(10 * share) * times.shape[-1] // 10) - 1 for share in QUANTILES]
    return np.moveaxis(np.sort(times, axis=-1)[..., ranks], -1, 0)


def _times(loss: str, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float]:
    """Times to a margin of 1 with p = r = 1, of networks [..., h]; and the gap of the events to the law."""
    flat_a, flat_z = real(a.reshape(-1, a.shape[-1])), real(z.reshape(-1, z.shape[-1]))
    law = np.asarray(theory.solve_mode(Mode(1.0, 1.0, flat_a, flat_z), loss).time_to_logit(1.0))
    if not LOSSES[loss].stops:
        return law.reshape(a.shape[:-1]), 0.0
    data, size = Dataset([[1.0]], [1.0], [1.0]), min(_CHUNK, len(flat_a))
    time = np.empty(len(flat_a))
    for first in range(0, len(time), size):
        part = slice(min(first, len(time) - size), min(first, len(time) - size) + size)
        run = simulate_hinge_exact(data, TwoLayerReLU(flat_a[part, :, None], flat_z[part]))
        learnt = run.events.kind == _LEARNT
        reached = np.where(learnt, run.events.time, 0).max(1, initial=0)
        margin = np.asarray(run.final(data.points))[:, 0]
        time[part] = np.where(learnt.any(1) | (margin >= 1), reached, np.inf)
    both = np.isfinite(time) & np.isfinite(law)
    agree = (np.isfinite(time) == np.isfinite(law)).all()
    gap = float(np.abs(time[both] - law[both]).max(initial=0)) if agree else float("inf")
    return time.reshape(a.shape[:-1]), gap


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row for each loss and width at the smallest and the largest scale: quantiles of the time in units of 1/(p r)."""
    table: list[tuple[str, ...]] = [("loss", "width h", "scale", "10 %", "median", "90 %", "never learnt")]
    for loss, found in diagram.maps.items():
        for i, width in enumerate(diagram.axes["width"]):
            for j in (0, -1):
                times = [number(value) for value in found["scale_time"][:, i, j]]
                lost = f"{100 * found['scale_failed'][i, j]:.1f} %"
                table.append((loss, str(width), number(diagram.axes["scale"][j]), *times, lost))
    return table


def conclusion(diagram: Any) -> str:
    """How much longer small starts take."""
    record, other = diagram.records()[:2]
    times = f"{record['median']}/(p r) from the scale {record['scale']} and {other['median']}/(p r) from {other['scale']}"
    return f"The median time to a margin of 1 is {times} (width {record['width h']}, {record['loss']})"


NOTES = (
    "Time until the margin of a class is 1, in units of 1/(p r): quantiles over networks of h neurons that see it only.\n"
    "Hinge from event to event, others by the clock (3.7)."
)


# Maps of the time to learn: one column per loss; median over frequency and norm, over width and scale, and its spread.

_RUST = DARK[3]


def figure_of(diagram: Any) -> Any:
    """The figure."""
    s, losses = diagram.settings, diagram.losses
    figure = new_figure(
        2.6 + 4.3 * len(losses),
        11.6,
        "How long a class takes to be learnt (margin 1)",
        f"Over {s['networks']} networks whose neurons see that class only, weights N(0, σ²). Time: step size × step",
    )
    axes = figure.subplots(3, len(losses), sharey="row", sharex="row", squeeze=False, height_ratios=[1, 1, 0.85])
    _norms(figure, axes[0], diagram)
    _scales(figure, axes[1], diagram)
    _spread(axes[2], diagram)
    for panel, loss in zip(axes[0], losses, strict=True):
        panel.set_title(f"{loss} loss\n", fontweight="bold", fontsize=12)
        sub = f"median of networks of h = {s['width']}, σ = {number(s['scale'])}"
        above: Any = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "center", "fontsize": 9.5}
        panel.annotate(sub, (0.5, 1), (0, 5), **above)
    return figure


def _norms(figure: Any, row: Any, diagram: Any) -> None:
    """Over frequency and norm, with lines of equal 1/(p r)."""
    from matplotlib.colors import LogNorm

    p, r = diagram.axes["frequency"], diagram.axes["norm"]
    maps = [np.maximum(diagram.maps[loss]["norm_time"][1], 1e-2) for loss in diagram.losses]
    finite = np.concatenate([m[np.isfinite(m)] for m in maps])
    scale = LogNorm(max(finite.min(), 0.1), finite.max())
    levels = 10.0 ** np.arange(-1, 5)
    image = None
    for panel, found in zip(row, maps, strict=True):
        image = panel.pcolormesh(r, p, found, cmap=MAP, norm=scale, rasterized=True)
        lines = panel.contour(r, p, found, levels, colors="black", linewidths=1.6)
        low, high = r[0] * 1.15, r[-1] / 1.15
        for level, piece in zip(levels, lines.allsegs, strict=True):
            points = np.concatenate([*piece, np.empty((0, 2))])
            if len(points):
                # At the point nearest to a line through the corners without other labels.
                at = points[np.argmin(np.abs(np.log(points[:, 1] / p[0]) - 0.62 * np.log(points[:, 0] / r[0])))]
                panel.text(*at, f"t = {number(level)}", ha="center", va="center", fontsize=8.5, bbox=BOX)
        for level in levels:
            line = np.geomspace(max(low, 1 / (level * p[-1])), min(high, 1 / (level * p[0])), 50)
            if line[0] < line[-1]:
                panel.plot(line, 1 / (level * line), color=_RUST, linewidth=1.3, linestyle=(0, (4, 2)))
                at = line[0] ** 0.8 * line[-1] ** 0.2
                told = f"1/(p r) = {number(level)}"
                panel.text(at, 1 / (level * at), told, ha="center", va="center", fontsize=8, color=_RUST, bbox=BOX)
        panel.set_xlim(r[0], r[-1])
        panel.set_ylim(p[0], p[-1])
        _logarithmic(panel, "r, norm of the class")
    row[0].set_ylabel("p, frequency of the class")
    figure.colorbar(image, ax=row, location="right", label="median time", aspect=22, pad=0.015, extend="min")


def _scales(figure: Any, row: Any, diagram: Any) -> None:
    """Over width and scale, in units of 1/(p r)."""
    from matplotlib.colors import LogNorm

    h, sigma = diagram.axes["width"], diagram.axes["scale"]
    maps = [np.maximum(diagram.maps[loss]["scale_time"][1], 1e-3) for loss in diagram.losses]
    finite = np.concatenate([m[np.isfinite(m)] for m in maps])
    scale = LogNorm(0.1, max(finite.max(), 1))
    image = None
    edges = np.sqrt(h[1:] * h[:-1]) if len(h) > 1 else np.array([])
    edges = np.concatenate([[h[0] / 1.4], edges, [h[-1] * 1.4]])
    ratio = np.sqrt(sigma[1] / sigma[0])
    sides = np.concatenate([[sigma[0] / ratio], sigma * ratio])
    for panel, found in zip(row, maps, strict=True):
        image = panel.pcolormesh(sides, edges, np.where(np.isfinite(found), found, np.nan), cmap=MAP, norm=scale)
        if len(h) > 1:
            lines = panel.contour(sigma, h, found, [0.25, 0.5, 1, 2, 4, 6, 8, 12, 16], colors="black", linewidths=1.2)
            panel.clabel(lines, fmt=number, fontsize=8.5)
        _logarithmic(panel, "σ, scale of the start (r = 1)")
        panel.set_yticks(h, [str(v) for v in h])
        panel.minorticks_off()
    row[0].set_ylabel("h, neurons that see the class")
    figure.colorbar(image, ax=row, location="right", label="median time × p r", aspect=22, pad=0.015, extend="min")


def _spread(row: Any, diagram: Any) -> None:
    """Median and 10 to 90 % for some widths; the plateau of small starts (5.3)."""
    h, sigma = diagram.axes["width"], diagram.axes["scale"]
    shown = sorted({0, len(h) // 2, len(h) - 1})
    tops = [m["scale_time"][:, shown] for m in diagram.maps.values()]
    top = 1.08 * max(float(t[np.isfinite(t)].max()) for t in tops)
    for panel, loss in zip(row, diagram.losses, strict=True):
        found = diagram.maps[loss]["scale_time"]
        for k, i in enumerate(shown):
            low, middle, high = np.where(np.isfinite(found[:, i]), found[:, i], 2 * top)
            panel.fill_between(sigma, low, high, color=COLOURS[k], alpha=0.2 if k else 0.1, linewidth=0)
            look: dict[str, Any] = {"marker": MARKS[k], "markersize": 4, "markevery": 3, "markerfacecolor": "white"}
            panel.plot(sigma, middle, color=COLOURS[k], linewidth=1.7, label=f"h = {h[i]}", **look)
        rate = 1 if LOSSES[loss].stops else 2  # plateau log(1/u_0)/(p r), half of it for the hinge loss (5.3)
        panel.plot(sigma, rate * np.log(1 / sigma), color=GREY, linestyle=(0, (4, 2)), linewidth=1.2)
        at = int(0.25 * len(sigma))
        word = "log(1/σ)" if rate == 1 else "2 log(1/σ)"
        away = (8, 22) if rate == 1 else (-70, -30)
        at = sigma[at], rate * np.log(1 / sigma[at])
        panel.annotate(word, at, away, textcoords="offset points", fontsize=9, bbox=BOX)
        panel.set_ylim(0, top)
        panel.set_xscale("log")
        panel.set_xlabel("σ, scale of the start (r = 1)")
        if not np.isfinite(found[2, shown[0]]).all():
            told = f"h = {h[shown[0]]}: more than 10 % never learn"
            panel.text(0.97, 0.61, told, transform=panel.transAxes, ha="right", fontsize=8.5, color=COLOURS[0])
        panel.legend(loc="upper right", title="median, 10–90 %", title_fontsize=8.5)
    row[0].set_ylabel("time × p r")


def _logarithmic(panel: Any, label: str) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel(label)
    panel.grid(False)


PLANE = Plane(Settings, steps, compute, rows, NOTES, figure_of, conclusion)
