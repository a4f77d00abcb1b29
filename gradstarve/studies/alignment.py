"""Early alignment on data of the user: the phase of small outputs by law and in training (16).

A network with Gaussian weights of deviation `scale` is trained on any two classes. While its outputs are small every neuron
moves alone, by an exact law, to a direction that reproduces itself, or dies. The figure shows the angles of all neurons to
the mean of class + over time, the paths of their directions in a plane, and the progress of the phase: max |f|, its end, and
the distance of training from the law.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    INK,
    Progress,
    as_flag,
    as_number,
    headline,
    new_figure,
    number,
    one_key,
    positive_int,
    save,
    sheet,
    short_repr,
    table_text,
)
from gradstarve.problem import Dataset, GradientDescent, datasets, init_two_layer
from gradstarve.simulation import simulate

_RECORDS = 24
_STEPS = 1200
_SHOWN = 60  # the most neurons with markers


@dataclass(frozen=True, eq=False)
class AlignmentStudy:
    """The result of `alignment_study`; m classes, R times, h neurons.

    `times` [R]; `angles`, `trained_angles` [R, h, m]: of w_j to the mean of each class, in degrees, NaN where a neuron is
    not determined; `outputs`, `trained_outputs` [R]: max |f|; `off` [R]: the largest
    1 - cos of w_j by law and trained; `phase`: the `Alignment`; `exit_time`, `valid_until`: when max |f| of the law is 1,
    and when its assumption is off by a tenth; `shadows` [R, h, 2]: of w_j/|w_j| by law, along the difference of the class
    means and along the direction in which the points vary most beside it.
    """

    settings: dict[str, Any]
    data: Dataset
    phase: Any
    times: np.ndarray
    angles: np.ndarray
    trained_angles: np.ndarray
    outputs: np.ndarray
    trained_outputs: np.ndarray
    off: np.ndarray
    exit_time: float
    valid_until: float
    shadows: np.ndarray

    __repr__ = short_repr

    @property
    def axes(self) -> list[str]:
        """The names of the axes that angles are measured from, one for each class."""
        return [name for name, _ in _axes(self.data)]

    def rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for every direction that neurons end in, for the dead and for what is not determined."""
        directions, groups = self.phase.directions, self.phase.groups
        names = [f"angle to the {name}" for name in self.axes]
        rows: list[tuple[str, ...]] = [("neurons", "end", "rate", "points seen", *names)]
        unit = np.stack([vector for _, vector in _axes(self.data)])
        for place in np.argsort(-directions.neurons, kind="stable"):
            if not directions.neurons[place]:
                continue
            cosine = np.clip(unit @ directions.vector[place], -1, 1)
            angles = [f"{np.degrees(np.arccos(c)):.1f}°" for c in cosine]
            sees = f"{int((directions.activity[place] == 1).sum())} of {self.data.size}"
            sign = "+" if directions.sign[place] > 0 else "−"
            count, rate = int(directions.neurons[place]), number(directions.rate[place])
            rows.append((str(count), f"direction {place}, z {sign}", rate, sees, *angles))
        others = {"dead": "inactive on all points", "rests": "at rest", "undetermined": "not determined (16.4)"}
        for name, fate in others.items():
            count = int(getattr(groups, name).sum())
            if count:
                rows.append((str(count), fate, "", "", *[""] * len(names)))
        return rows

    def conclusion(self) -> str:
        """In one sentence, where the neurons end before anything is learnt."""
        used = int((np.asarray(self.phase.directions.neurons) > 0).sum())
        turned, dead = int(np.asarray(self.phase.directions.neurons).sum()), int(np.asarray(self.phase.groups.dead).sum())
        ways = f"{used} direction{'s' * (used != 1)}"
        return f"Before anything is learnt, {turned} of {self.settings['width']} neurons turn to {ways}, and {dead} die"

    def table(self) -> str:
        """The fates of neurons: how many in each direction, its rate, its active points, and its angles to the class
        means."""
        return table_text(self.rows())

    def notes(self) -> str:
        """The length of the phase and the distance of training from its law, in words."""
        inside = self.times <= self.valid_until
        worst = number(np.nanmax(self.off[inside], initial=0))
        return (
            f"Residuals are off by a tenth at t = {number(self.valid_until)}, and max |f| is 1 at "
            f"t = {number(self.exit_time)}. Until the first of them w_j by law and trained "
            f"differ by 1 - cos = {worst} at most; at the last time drawn, "
            f"t = {number(self.times[-1])}, by {number(self.off[-1])}."
        )

    def number_rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for every time and neuron: angles to the class means by law and trained, in degrees."""
        signs = [name[-1] for name in self.axes]
        head = ("t", "neuron", *(f"law {s}" for s in signs), *(f"trained {s}" for s in signs), "direction")
        group = np.asarray(self.phase.groups.direction)
        rows: list[tuple[str, ...]] = [head]
        for r, t in enumerate(self.times):
            for j, place in enumerate(group):
                both = (*self.angles[r, j], *self.trained_angles[r, j])
                rows.append((repr(float(t)), str(j), *(repr(float(v)) for v in both), str(int(place))))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        directions, groups = self.phase.directions, self.phase.groups
        return {
            "exit_time": self.exit_time,
            "valid_until": self.valid_until,
            "times": self.times,
            "angles": self.angles,
            "trained_angles": self.trained_angles,
            "outputs": self.outputs,
            "trained_outputs": self.trained_outputs,
            "off": self.off,
            "shadows": self.shadows,
            "rates": directions.rate,
            "neurons": directions.neurons,
            "signs": directions.sign,
            "group": groups.direction,
            "dead": groups.dead,
            "undetermined": groups.undetermined,
        }

    def plot(self, path: Any = None) -> Any:
        """The matplotlib `Figure`: law as lines, training as markers; saved to `path` if given."""
        return draw(self, path)


def alignment_study(
    data: Any = "digits",
    *,
    pair: Any = (3, 8),
    centred: bool = True,
    scale: Any = 0.01,
    width: Any = 60,
    loss: Any = "cross-entropy",
    until: Any = None,
    key: Any = 0,
    progress: Any = None,
) -> AlignmentStudy:
    """The early alignment of every neuron, by law and in training.

    - `data`: a `Dataset`, the path of a .csv, .tsv or .npz file (`datasets.read`), or "digits": all images of the `pair` of
      handwritten digits, `centred` on the midpoint of their means;
    - `scale`: the deviation of all weights at the start; `width` h; `key` of the draw;
    - `until`: the last time drawn; by default the time at which max |f| of the law is 1.

    `ValueError` names an unknown setting. Use float64.

    >>> study = alignment_study(Dataset([[1.0, 0.2], [-0.8, 0.1]], [1, -1]), width=5, scale=1e-3)
    >>> study.angles.shape, bool(study.off[0] < 1e-5)
    ((24, 5, 2), True)
    """
    scale, width = as_number("scale", scale, 0, with_low=False), positive_int("width", width)
    settings: dict[str, Any] = {"data": "data of one's own"}
    if isinstance(data, str) and data == "digits":
        settings = {"data": data, "pair": tuple(map(int, pair)), "centred": as_flag("centred", centred)}
        two = datasets.digits(pair)
        points = np.concatenate([two.train.points, two.test.points])
        labels = np.concatenate([two.train.labels, two.test.labels])
        data = Dataset(points, labels)
        if settings["centred"]:
            data = Dataset(points - np.mean(data.means().points, axis=0), labels)
    elif not isinstance(data, Dataset):
        settings, data = {"data": str(data)}, datasets.read(data)
    network = init_two_layer(one_key(key), (), width, data.dim, scale, scale)
    network = jax.tree.map(lambda leaf: leaf.astype(data.points.dtype), network)
    with Progress(progress, 3, "alignment") as bar:
        phase = theory.early_alignment(data, network, loss)
        bar.update(1)
        exit_time, valid = (float(found(throw=False)) for found in (phase.exit_time, phase.valid_until))
        last = exit_time if until is None else as_number("until", until, 0, with_low=False)
        if not np.isfinite(last):
            raise ValueError("outputs stay small for ever: no neuron that is left grows; give until, the last time drawn")
        if last == 0:
            raise ValueError(f"outputs are not small at the start with scale = {number(scale)}; give a smaller scale")
        step_size, every = last / _STEPS, _STEPS // (_RECORDS - 1)
        run = simulate(
            data,
            network,
            loss,
            GradientDescent(step_size),
            every * (_RECORDS - 1),
            record_every=every,
            record_networks=True,
            progress=False,
        )
        bar.update(2)
        times = step_size * np.asarray(run.grid, np.float64)
        law = phase.network(times, throw=False)
        bar.update(3)
    w, trained = (np.asarray(some.w, np.float64) for some in (law, run.networks))
    cosines = np.sum(_units(w) * _units(trained), axis=-1)
    unit = np.stack([vector for _, vector in _axes(data)])

    def angles(w: np.ndarray) -> np.ndarray:
        return np.degrees(np.arccos(np.clip(_units(w) @ unit.T, -1, 1)))

    with np.errstate(invalid="ignore"):
        off = np.nanmax(1 - cosines, axis=-1)
    settings |= {"scale": scale, "width": width, "loss": phase.loss_function.name, "until": last, "key": key}
    outputs = np.abs(np.asarray(phase.logits(times, throw=False), np.float64))
    outputs = np.where(np.isnan(outputs).any(-1), np.nan, outputs.max(-1))
    found = np.abs(np.asarray(run.recorded, np.float64)).max(-1)
    shadows = np.einsum("rhd,kd->rhk", _units(w), _plane(data))
    off = np.maximum(off, 0)
    both = (angles(w), angles(trained))
    return AlignmentStudy(settings, data, phase, times, *both, outputs, found, off, exit_time, valid, shadows)


def _axes(data: Dataset) -> list[tuple[str, np.ndarray]]:
    """A name and a unit vector for each class: its mean, or the direction of most variance if its points cancel."""
    found = []
    for (length, vector), label in zip(_lengths(data), (1, -1), strict=False):
        sign = "+" if label > 0 and (np.asarray(data.labels) > 0).any() else "−"
        found.append((f"{'mean' if length else 'main direction'} of class {sign}", vector))
    return found


def _lengths(data: Dataset) -> list[tuple[float, np.ndarray]]:
    """The length of the mean of each class and its direction; length 0 and the main direction if its points cancel."""
    found = []
    for label in (1, -1):
        mine = np.asarray(data.labels) == label
        if mine.any():
            points, weights = np.asarray(data.points, np.float64)[mine], np.asarray(data.weights, np.float64)[mine]
            mean = weights @ points / weights.sum()
            length, size = np.linalg.norm(mean), np.linalg.norm(points, axis=1).max()
            cancel = length <= 1e-6 * size
            found.append((0.0, np.linalg.svd(points)[2][0]) if cancel else (float(length), mean / length))
    return found


def _plane(data: Dataset) -> np.ndarray:
    """Two orthonormal directions [2, d]: the difference of the class means, and the direction of most variance across it."""
    points = np.asarray(data.points, np.float64)
    first, *others = (length * vector for length, vector in _lengths(data))
    first = first - others[0] if others else first
    size = np.linalg.norm(first)
    first = first / size if size > 0 else np.linalg.svd(points, full_matrices=False)[2][0]
    rest = points - np.outer(points @ first, first)
    second = (
        np.linalg.svd(rest, full_matrices=False)[2][0] if np.linalg.norm(rest) > 1e-9 * np.linalg.norm(points) else 0 * first
    )
    return np.stack([first, second])


def _units(vectors: np.ndarray) -> np.ndarray:
    sizes = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(sizes > 0, sizes, np.nan)


# --- the figure --------------------------------------------------------------------------------------------------------


def _looks(study: AlignmentStudy) -> list[tuple[str, np.ndarray, str]]:
    """The kinds of neurons: (name, which [h], colour)."""
    directions, groups = study.phase.directions, study.phase.groups
    ends = np.asarray(groups.direction)
    sign = np.where(ends >= 0, np.asarray(directions.sign)[np.maximum(ends, 0)] if directions.rate.size else 0, 0)
    rest = (ends < 0) & ~np.asarray(groups.dead)
    kinds = (
        ("read-out > 0 in the end", sign > 0, COLOURS[0]),
        ("read-out < 0 in the end", sign < 0, COLOURS[1]),
        ("dies", np.asarray(groups.dead), INK),
        ("at rest or not determined", rest, GUIDE),
    )
    return [kind for kind in kinds if kind[1].any()]


_DOT: dict[str, Any] = {"ms": 2.2, "alpha": 0.7, "zorder": 3}


def draw(study: AlignmentStudy, path: Any = None) -> Any:
    """The `Figure` of an `AlignmentStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    names = study.axes
    with sheet():
        figure = new_figure(12.5, 4.6)
        over_time, plane, size = figure.subplots(1, 3, width_ratios=(1.15, 1, 1))
        marked = np.arange(study.angles.shape[1]) % max(1, study.angles.shape[1] // _SHOWN) == 0
        for name, mine, colour in _looks(study):
            over_time.plot(study.times, study.angles[:, mine, 0], color=colour, lw=0.7, alpha=0.6, zorder=2)
            shown = np.flatnonzero(mine & marked)
            over_time.plot(study.times[::3], study.trained_angles[::3][:, shown, 0], "o", color=colour, **_DOT)
            over_time.plot([], [], color=colour, lw=2, label=f"{name}: {int(mine.sum())}")
            plane.plot(study.shadows[:, mine, 0], study.shadows[:, mine, 1], color=colour, lw=0.8, alpha=0.7, zorder=2)
            (first, last), look = study.shadows[[0, -1]][:, mine], {"color": colour, "ls": "none"}
            plane.plot(first[:, 0], first[:, 1], marker="o", ms=3, mfc="white", zorder=3, **look)
            plane.plot(last[:, 0], last[:, 1], marker="D", ms=4, zorder=4, **look)
        over_time.set(xlabel="time", ylabel=f"angle to the {names[0]}, degrees", ylim=(-4, 184), yticks=range(0, 181, 45))
        over_time.set_title("where every neuron turns", loc="left", fontweight="bold")
        over_time.legend(fontsize=8, loc="best", frameon=True, framealpha=0.9)
        circle = np.linspace(0, 2 * np.pi, 200)
        plane.plot(np.cos(circle), np.sin(circle), color=GUIDE, lw=0.8, zorder=1)
        axis = "difference of the class means" if len(names) > 1 else "mean of the class"
        plane.set(xlabel=f"along the {axis}", ylabel="along the next principal direction")
        plane.set(aspect="equal", xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), xticks=(-1, 0, 1), yticks=(-1, 0, 1))
        plane.set_title("directions, start (ring) to end (diamond)", loc="left", fontweight="bold")
        _draw_size(size, study)
        s = study.settings
        name = "digits {} and {}".format(*s["pair"]) if "pair" in s else s["data"]
        headline(
            figure,
            f"Before anything is learnt: {s['width']} neurons on {study.data.size} points in d = {study.data.dim} "
            f"({name}), {s['loss']}",
            f"Lines: law of early alignment. Markers: gradient descent, weights of deviation {number(s['scale'])}",
        )
        if path is not None:
            save(figure, path)
    return figure


def _draw_size(panel: Any, study: AlignmentStudy) -> None:
    """max |f| by law and trained, the end of the phase, and the distance of training from the law."""
    panel.plot(study.times, study.outputs, color=COLOURS[2], lw=1.4, label="max |f|, law")
    panel.plot(study.times, study.trained_outputs, "o", ms=3, color=COLOURS[2], label="max |f|, trained")
    off = np.where(study.off > 1e-12, study.off, np.nan)
    panel.plot(study.times, off, "s", ms=3, color=COLOURS[3], label="worst 1 − cos of law and training")
    panel.set_yscale("log")
    if study.valid_until <= study.times[-1]:
        panel.axvline(study.valid_until, color=GUIDE, lw=1, ls=(0, (4, 2)))
        panel.annotate("residuals off\nby a tenth", (study.valid_until, 0.97), (-4, 0), xycoords=("data", "axes fraction"),
                       textcoords="offset points", fontsize=8, ha="right", va="top")  # fmt: skip
    panel.set(xlabel="time")
    panel.set_title("how far the phase has come", loc="left", fontweight="bold")
    low, high = panel.get_ylim()
    panel.set_ylim(low / 300, high * 30)  # room for the legend and the note
    panel.legend(fontsize=8, loc="lower right", frameon=True, framealpha=0.9)
