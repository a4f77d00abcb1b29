"""A shortcut that contradicts the label on a minority: the accuracy of the worst cell and the average, law and training.

Samples y (r_c e_1 + s r_s e_2) + noise, s = +1 on a share p. Training samples have no noise, and test samples have
Gaussian noise. A panel for each agreement p and each loss: the law (20.1) of one layer as lines, and as markers
networks trained by descent, whose accuracy is counted on sampled test points: a read-out of all inputs, for which the law
holds, and two layers of ReLU neurons from random starts, for which it does not. Below: the accuracy of the worst cell at the
end of training, over the agreement and the size of the shortcut.

Results with the default settings: the read-out agrees with the law within the error of the counts. Ordinary networks behave
the same way later, because their neurons have to grow first, and end with the losses in the same order. The hinge loss
leaves most of a shortcut that is smaller than the core, and smoothed labels, whose margins have a rest, leave none of any
shortcut (20.5).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    Progress,
    did_you_mean,
    headline,
    new_figure,
    number,
    save,
    sheet,
    short_repr,
    table_text,
)
from gradstarve.problem import (
    LOSSES,
    DeepReLU,
    FlippedLabels,
    Focal,
    GradientDescent,
    Loss,
    MarginShift,
    as_loss,
    datasets,
    init_two_layer,
)
from gradstarve.simulation import simulate
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import choices, counts, positive, positives, real, seeds, setting

KINDS = (*LOSSES, "smoothed", "focal", "shifted")
_LINE = 121  # times of a law's curve
_RECORDS = 40


def loss_of(name: str) -> Loss:
    """The loss called `name`: one of the four, "smoothed" (by a tenth), "focal" (gamma 2), "shifted" (by 2)."""
    made = {
        "smoothed": lambda: FlippedLabels("cross-entropy", 0.1),
        "focal": lambda: Focal(2.0),
        "shifted": lambda: MarginShift("cross-entropy", 2.0),
    }
    return made[name]() if name in made else as_loss(name)


def _agreements(name: str, value: Any) -> tuple[float, ...]:
    found = positives(name, value)
    for one in found:
        if not 0.5 < one < 1:
            raise ValueError(f"{name} must be above 1/2 and below 1, got {one:g}")
    return found


@dataclass(frozen=True)
class ShortcutSettings(plane.Settings):
    """The settings of `shortcut_study`, checked before anything is computed.

    `agreements` p; `losses` of `KINDS`; `core` and `shortcut`, the norms r_c and r_s; `noise`, the standard deviation of
    test samples; `time`, the end of training; `samples` test points of each cell; `networks` ordinary networks of `width`
    neurons, with initial weights of `scale`; `pixels` along the maps, whose shortcuts are up to `largest` times the core.
    """

    agreements: tuple[float, ...] = setting((0.7, 0.9, 0.98), _agreements)
    losses: tuple[str, ...] = setting(("cross-entropy", "hinge", "smoothed"), choices(KINDS))
    core: float = setting(1.0, positive)
    shortcut: float = setting(1.5, positive)
    noise: float = setting(0.6, positive)
    time: float = setting(100.0, positive)
    samples: int = setting(10_000, counts(100))
    width: int = setting(32, counts(2))
    networks: int = setting(8, counts())
    scale: float = setting(0.1, positive)
    pixels: int = setting(41, counts(5))
    largest: float = setting(3.0, positive)
    key: int | tuple[int, ...] = setting(0, seeds)


class Panel(NamedTuple):
    """One agreement and one loss.

    Accuracies of the worst cell and on average: by law [T], of the trained read-out [R], and of ordinary networks, quantiles
    10, 50, 90 % [3, R]; `clock`: the times of the records [R]. `gap`: the largest distance of the read-out from the law, in
    standard errors of the count. `rest`: v_s in the end, `peak`: (time, v_s) of its peak.
    """

    agreement: float
    loss: str
    worst: np.ndarray
    average: np.ndarray
    clock: np.ndarray
    trained_worst: np.ndarray
    trained_average: np.ndarray
    ordinary_worst: np.ndarray
    ordinary_average: np.ndarray
    gap: float
    rest: float
    peak: tuple[float, float]


@dataclass(frozen=True, eq=False)
class ShortcutStudy:
    """The result of `shortcut_study`; `shortcut_study(**study.settings)` computes it again.

    `times` [T] of the laws; `maps` [losses, pixels, pixels]: the worst cell at the end over `map_agreements` (columns) and
    `map_ratios` r_s/r_c (rows).
    """

    settings: dict[str, Any]
    times: np.ndarray
    panels: tuple[Panel, ...]
    map_agreements: np.ndarray
    map_ratios: np.ndarray
    maps: np.ndarray

    __repr__ = short_repr

    def panel(self, agreement: float, loss: str) -> Panel:
        """The panel of that agreement and loss; `KeyError` if it is not part of the study."""
        for panel in self.panels:
            if (panel.agreement, panel.loss) == (agreement, loss):
                return panel
        raise KeyError((agreement, loss))

    def conclusion(self) -> str:
        """In one sentence, what the law says of the worst cell at the end, where it is worst."""
        panel = min(self.panels, key=lambda one: float(one.worst[-1]))
        worst, average = (f"{100 * float(curve[-1]):.0f} %" for curve in (panel.worst, panel.average))
        where = f"where the shortcut agrees with {100 * panel.agreement:g} % of the labels ({panel.loss} loss)"
        right = f"{worst} are right in the worst cell and {average} on average"
        return f"At t = {number(self.settings['time'])} {right}, {where}"

    def table(self) -> str:
        """A row per panel: worst cell and average at the end, by law and trained, the peak of the shortcut and its end."""
        head = ("p", "loss", "worst cell", "trained", "2 layers", "average", "v_s peak", "at t", "v_s end", "gap/s.e.")
        rows: list[tuple[str, ...]] = [head]
        for panel in self.panels:
            at = "-" if np.isinf(panel.peak[0]) else number(panel.peak[0], 3)
            ends = (panel.worst[-1], panel.trained_worst[-1], panel.ordinary_worst[1, -1], panel.average[-1])
            first = (number(panel.agreement), panel.loss, *(f"{100 * end:.1f} %" for end in ends))
            rows.append((*first, number(panel.peak[1], 3), at, f"{panel.rest + 0:.3g}", number(panel.gap, 2)))
        return table_text(rows)

    def notes(self) -> str:
        """An explanation of the table, in words."""
        return (
            "Accuracies on test samples with noise; worst cell: the minority, as a rule. 2 layers: the median ordinary\n"
            "network, for which (20.1) is no law. v_s: logit of the shortcut in the read-out. gap: trained read-out from\n"
            "law, in standard errors of the counted samples, the largest over the records of both curves."
        )

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        names = ("times", "map_agreements", "map_ratios", "maps")
        return {name: getattr(self, name) for name in names} | {"panels": [panel._asdict() for panel in self.panels]}

    def plot(self, path: Any = None) -> Any:
        """The figure, saved to `path` if there is one (.png, .svg, .pdf)."""
        return draw(self, path)


def shortcut_study(progress: Any = None, **settings: Any) -> ShortcutStudy:
    """Worst cell and average over time for every agreement and loss, and maps of the end; settings: `ShortcutSettings`.

    `ValueError` for bad settings.

    >>> study = shortcut_study(agreements=0.9, losses="hinge", samples=1000, networks=1, pixels=5, time=20.0)
    >>> abs(study.panel(0.9, "hinge").rest) < 1e-6
    True
    """
    s = _settings(settings)
    times = np.geomspace(s.time / 1e3, s.time, _LINE)
    points, signs = _test_points(s)
    panels = []
    with Progress(progress, len(s.agreements) * len(s.losses) + len(s.losses), "a shortcut with a minority") as bar:
        for p in s.agreements:
            for name in s.losses:
                panels.append(_panel(s, p, name, times, points, signs))
                bar.update(len(panels))
        agreements, ratios = np.linspace(0.505, 0.995, s.pixels), np.linspace(s.largest / s.pixels, s.largest, s.pixels)
        maps = []
        for name in s.losses:
            maps.append(_map(s, name, agreements, ratios))
            bar.update(len(panels) + len(maps))
    return ShortcutStudy(asdict(s), times, tuple(panels), agreements, ratios, np.array(maps))


def _settings(given: dict[str, Any]) -> ShortcutSettings:
    names = ShortcutSettings.__dataclass_fields__
    for name in given:
        if name not in names:
            raise ValueError(f"{name} is no setting of the study of shortcuts{did_you_mean(name, names)}")
    made: Any = ShortcutSettings.of(**given)
    return made


def _test_points(s: ShortcutSettings) -> tuple[jax.Array, np.ndarray]:
    """Test points of label +1, [2 samples, 2], and whether the shortcut agrees on each, [2 samples]: on half of them."""
    rng = np.random.default_rng((*np.atleast_1d(s.key), 1))
    signs = np.repeat([1.0, -1.0], s.samples)
    points = np.stack([np.full(signs.size, s.core), signs * s.shortcut], axis=-1)
    return jnp.asarray(points + s.noise * rng.normal(size=points.shape)), signs > 0


def _panel(s: ShortcutSettings, p: float, name: str, times: np.ndarray, points: Any, agrees: np.ndarray) -> Panel:
    loss = loss_of(name)
    law = theory.shortcut(p, loss, core=s.core, shortcut=s.shortcut)
    weights = np.array([p, 1 - p])
    data = datasets.shortcut(p, core=s.core, shortcut=s.shortcut)
    step = 0.05 / (s.core**2 + s.shortcut**2)
    clock, trained = _accuracies(data, DeepReLU((jnp.zeros(2),)), loss, step, s.time, points, agrees)
    start = init_two_layer(jax.random.key(int(np.atleast_1d(s.key)[0])), s.networks, s.width, 2, s.scale, s.scale)
    _, ordinary = _accuracies(data, start, loss, step, s.time, points, agrees)
    cells = np.asarray(law.cell_accuracy(np.concatenate([times, clock]), s.noise))
    cells, exact = cells[: len(times)], cells[len(times) :]
    error = np.sqrt(np.maximum(exact * (1 - exact), 1 / s.samples) / s.samples)
    return Panel(
        p, name, cells.min(-1), cells @ weights, clock, trained.min(-1), trained @ weights,
        np.quantile(ordinary.min(-1), (0.1, 0.5, 0.9), axis=0), np.quantile(ordinary @ weights, (0.1, 0.5, 0.9), axis=0),
        float(np.max(np.abs(trained - exact) / error)), round(float(law.rest[1]), 12) + 0.0, _peak(law),
    )  # fmt: skip


def _peak(law: theory.Shortcut) -> tuple[float, float]:
    found = law.peak()
    return float(found.time[0]), float(found.height[0])


def _accuracies(
    data: Any, start: Any, loss: Loss, step: float, time: float, points: Any, agrees: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Times [R], and the accuracy on each cell, averaged over both labels: [*batch, R, 2]."""
    clock, found, done, axes = [], [], 0, len(start.batch_shape)
    whole = max(int(np.ceil(time / step)), 4 * _RECORDS)
    early = max(whole // 50, 2 * _RECORDS)
    for count in (early, whole - early):  # on a log t axis the first steps need denser records
        every = count // _RECORDS
        run = simulate(data, start, loss, GradientDescent(step), every * _RECORDS, record_every=every,
                       record_networks=True, progress=False)  # fmt: skip
        for k in np.unique(np.rint(np.geomspace(1, _RECORDS, _RECORDS // 2)).astype(int)):
            if clock and done + every * k < 1.1 * clock[-1] / step and k < _RECORDS:
                continue
            network = jax.tree.map(lambda leaf, k=k: leaf[(slice(None),) * axes + (k,)], run.networks)
            right = np.asarray(_right(network, points))
            found.append(np.stack([right[..., agrees].mean(-1), right[..., ~agrees].mean(-1)], axis=-1))
            clock.append(step * (done + every * k))
        start, done = run.final, done + every * _RECORDS
    return np.array(clock), np.stack(found, axis=-2)


@jax.jit
def _right(network: Any, points: jax.Array) -> jax.Array:
    """The accuracy on each test point of label +1 and its opposite of label -1: 0, 1/2 or 1."""
    return ((network(points) > 0).astype(float) + (network(-points) < 0)) / 2


def _map(s: ShortcutSettings, name: str, agreements: np.ndarray, ratios: np.ndarray) -> np.ndarray:
    """The worst cell at the end, [ratios, agreements]."""
    p, side = map(real, np.meshgrid(agreements, ratios * s.core))
    law = theory.shortcut(p[..., None], loss_of(name), core=s.core, shortcut=side[..., None])
    return np.asarray(law.worst_accuracy(s.time, s.noise))


_WORST, _AVERAGE = COLOURS[1], COLOURS[0]


def draw(study: ShortcutStudy, path: Any = None) -> Any:
    """The figure of the study: one row per agreement, one column per loss, and a row of maps."""
    s = study.settings
    count = len(s["losses"])
    with sheet():
        figure = new_figure(1.2 + 3.4 * max(count, 2), 2.0 + 2.4 * len(s["agreements"]) + 3.0)
        axes = figure.subplots(len(s["agreements"]) + 1, count, squeeze=False)
        for row, p in zip(axes, s["agreements"], strict=False):
            for axis, name in zip(row, s["losses"], strict=True):
                _draw_panel(axis, study, study.panel(p, name))
            row[0].set_ylabel(f"p = {number(p)}\naccuracy")
            for axis in row[1:]:
                axis.set_yticklabels([])
        for axis, name in zip(axes[0], s["losses"], strict=True):
            axis.set_title(f"{name} loss", fontweight="bold")
        for axis in axes[-2]:
            axis.set_xlabel("time t = step size × step")
        shown = None
        for axis, values in zip(axes[-1], study.maps, strict=True):
            shown = axis.pcolormesh(study.map_agreements, study.map_ratios, values, vmin=0, vmax=1, cmap="cividis")
            lines = axis.contour(study.map_agreements, study.map_ratios, values, [0.5, 0.9], colors="white", linewidths=0.9)
            axis.clabel(lines, fmt=lambda value: f"{100 * value:.0f} %", fontsize=7.5)
            axis.axhline(1, color="white", lw=0.8, ls=":")
            axis.set_xlabel("agreement p")
        axes[-1][0].set_ylabel("size of the shortcut / core")
        figure.colorbar(shown, ax=list(axes[-1]), label=f"worst cell at t = {number(s['time'])}")
        _legend(figure)
        headline(
            figure,
            "A shortcut that a minority contradicts: accuracy of the worst cell and on average",
            f"Law (20.1) of one layer as lines, networks trained by descent as markers. "
            f"r_c = {number(s['core'])}, r_s = {number(s['shortcut'])}, noise {number(s['noise'])}",
        )
        if path is not None:
            save(figure, path)
    return figure


def _draw_panel(axis: Any, study: ShortcutStudy, panel: Panel) -> None:
    pairs = (
        (_WORST, panel.worst, panel.trained_worst, panel.ordinary_worst),
        (_AVERAGE, panel.average, panel.trained_average, panel.ordinary_average),
    )
    for colour, law, trained, (low, middle, high) in pairs:
        axis.fill_between(panel.clock, low, high, color=colour, alpha=0.15, lw=0)
        axis.plot(panel.clock, middle, "s", color=colour, ms=2.8, alpha=0.8, zorder=3)
        axis.plot(study.times, law, color=colour, lw=1.8, zorder=4)
        axis.plot(panel.clock[::2], trained[::2], "o", color=colour, mfc="white", ms=4.5, zorder=5)
    axis.axhline(0.5, color=GUIDE, lw=0.8, ls=":")
    axis.set(xscale="log", ylim=(-0.02, 1.02), xlim=(study.times[0], study.times[-1] * 1.1))


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D

    grey: dict[str, Any] = {"color": "0.35"}
    handles = [
        Line2D([], [], color=_WORST, lw=3, label="worst cell"),
        Line2D([], [], color=_AVERAGE, lw=3, label="average"),
        Line2D([], [], lw=1.8, label="law, one layer", **grey),
        Line2D([], [], ls="none", marker="o", mfc="white", label="trained, one layer", **grey),
        Line2D([], [], ls="none", marker="s", ms=4, label="trained, two layers (ReLU): median, 10–90 %", **grey),
    ]
    # In one row where the figure has three columns or more.
    figure.legend(handles=handles, loc="outside lower center", ncols=5 if figure.get_figwidth() > 10 else 2)
