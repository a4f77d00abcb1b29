"""What the linearised network will do on samples that it has not seen, cell by cell, under every remedy.

A cell is a class and what its samples have: (label, attribute). In the linearised network the logits of all samples, trained
or not, are f = f_0 + K a, K = Phi Phi^T, where a moves on trained samples alone: da_i/dt = w_i (target_i - P_i). So a sample
with w_i = 0 is held out, and what the network says about it comes out beside the training; K between held-out and trained
samples is the cross-kernel. Every split and every remedy is one more column of the same product.

Where no test samples are given, each cell is dealt out to `splits` parts, and each part is held out in turn: every sample is
predicted by a network that has not seen it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special, stats

from gradstarve.diagnosis._data import Classes
from gradstarve.diagnosis._training import integrate, largest_eigenvalue
from gradstarve.ground import number, short_repr

SMOOTHING = 0.1
"""Of margin control: targets are this far from 0 and 1, so that margins come to rest."""
_RTOL = 1e-4  # of logits, of which the sign is asked
_TIE = 0.01  # what the mean over cells counts beside the worst cell, where a time to stop is chosen


@dataclass(frozen=True, eq=False)
class Cell:
    """Held-out samples of one class and one value of the attribute.

    - `label`, `attribute`, `name`; `trained`: samples in training; `tested`: samples predicted by networks that did not see
      them; `accuracy` [T]: theirs, over the times of the report; `interval`: of 95 %, at the horizon;
    - `in_sample` [T]: accuracy on the trained samples themselves, which training raises in any case;
    - `undecided`: the part of its samples whose logits, at the horizon, are within the rounding of the kernel, as where
      samples with both labels are alike: they count as half right in the accuracy;
    - `agrees`: whether the attribute is the most frequent one of its class in training; None without attributes.
    """

    name: str
    label: str
    attribute: str
    trained: int
    tested: int
    accuracy: np.ndarray
    interval: tuple[float, float]
    in_sample: np.ndarray
    agrees: bool | None = None
    undecided: float = 0.0

    __repr__ = short_repr


@dataclass(frozen=True)
class Plan:
    """One way to train, predicted on held-out samples.

    - `accuracy`: that of the `worst` cell, in `interval` with 95 % confidence; `mean`: over the cells; `cells`: accuracies
      by name; `time`: when training ends; `cost`: what it takes.
    """

    name: str
    worst: str
    accuracy: float
    interval: tuple[float, float]
    mean: float
    cells: dict[str, float]
    time: float
    cost: str

    __repr__ = short_repr


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The prediction for held-out samples: `cells`, the worst first, and `plans`, the best first by its worst cell.

    `times` [T]; `at`: the record of the horizon; `splits`: parts held out in turn, 0 where test samples were given.
    """

    times: np.ndarray = field(repr=False)
    at: int
    cells: tuple[Cell, ...]
    plans: tuple[Plan, ...]
    splits: int
    notes: tuple[str, ...] = ()

    __repr__ = short_repr

    @property
    def worst(self) -> Cell:
        """The cell with the lowest held-out accuracy at the horizon."""
        return self.cells[0]

    @property
    def plain(self) -> Plan:
        """Training as planned, to the horizon."""
        return next(plan for plan in self.plans if plan.name == PLAIN)


PLAIN = "train as planned"


# Cells.


def cells_of(classes: Classes, names: tuple[str, ...], members: np.ndarray, exclusive: bool) -> list[tuple[str, str, Any]]:
    """(label, attribute, booleans [N]) of every cell with a sample: class and type, or class and group in and out."""
    found = []
    for k, label in enumerate(classes.names):
        mine = classes.index == k
        if not names:
            parts = [("", mine)]
        else:
            parts = [(name, mine & members[:, j]) for j, name in enumerate(names)]
        if not exclusive:
            parts += [(f"no {name}", mine & ~members[:, j]) for j, name in enumerate(names)]
        found += [(label, attribute, inside) for attribute, inside in parts if inside.any()]
    return found


def _called(label: str, attribute: str) -> str:
    return f"class {label}, {attribute}" if attribute else f"class {label}"


def _agrees(cells: list[tuple[str, str, Any]], label: str, attribute: str, trained: np.ndarray, exclusive: bool) -> Any:
    """Whether no other value of the attribute is more frequent in this class; a group has the values in and out."""
    if not attribute:
        return None
    counts = {name: int((cell & trained).sum()) for of, name, cell in cells if of == label}
    rivals = counts if exclusive else {attribute, f"no {attribute}", attribute.removeprefix("no ")} & set(counts)
    return counts[attribute] >= max(counts[name] for name in rivals)


def deal(cells: list[np.ndarray], trained: np.ndarray, splits: int, rng: np.random.Generator) -> np.ndarray:
    """The part of each trained sample, 0..splits-1, each cell dealt out evenly; -1 for cells of one sample and untrained."""
    part = np.full(len(trained), -1)
    kinds = np.stack([cell & trained for cell in cells], 1)
    _, kind = np.unique(kinds, axis=0, return_inverse=True)
    for one in np.unique(kind[trained]):
        mine = rng.permutation(np.flatnonzero((kind.reshape(-1) == one) & trained))
        if len(mine) > 1:
            part[mine] = (np.arange(len(mine)) + rng.integers(splits)) % splits
    return part


# The engine: columns of one flow.


class Columns:
    """Training of many networks at once: `kernel` [N C, N C], or [N, N] for all outputs alike, `start` [N, C]."""

    def __init__(self, kernel: np.ndarray, start: np.ndarray, classes: Classes, times: np.ndarray | None = None):
        self.kernel, self.start, self.times = kernel, start, times
        self.count, self.outputs = start.shape
        self.scale = largest_eigenvalue(kernel)
        self.index = classes.index
        hot = np.eye(classes.count)[classes.index]
        self.target = hot[:, 1:] if self.outputs == 1 else hot

    def product(self, a: np.ndarray) -> np.ndarray:
        """K a for a [N, C, R]."""
        if len(self.kernel) == self.count:
            return (self.kernel @ a.reshape(self.count, -1)).reshape(a.shape)
        return (self.kernel @ a.reshape(self.count * self.outputs, -1)).reshape(a.shape)

    def train(
        self,
        weights: np.ndarray,
        times: np.ndarray,
        *,
        start: np.ndarray | None = None,
        smoothing: Any = 0.0,
        penalty: Any = 0.0,
        rtol: float = _RTOL,
    ) -> np.ndarray:
        """Logits [T, N, C, R] at `times` for `weights` [N, R]; `smoothing`, `penalty` [R]; `start` [N, C, R]."""
        count = weights.shape[1]
        begin = np.repeat(self.start[:, :, None], count, 2) if start is None else start
        smoothing, penalty = (np.broadcast_to(np.asarray(v, float), (count,)) for v in (smoothing, penalty))
        rest = 0.5 if self.outputs == 1 else 1 / self.outputs
        target = self.target[:, :, None] * (1 - 2 * smoothing) + 2 * rest * smoothing

        def field(a: np.ndarray, f: np.ndarray) -> np.ndarray:
            chance = special.expit(f) if self.outputs == 1 else special.softmax(f, axis=1)
            return weights[:, None, :] * (target - chance - penalty * f)

        curvature = 0.25 if self.outputs == 1 else 0.5
        radius = self.scale * float(weights.max()) * (curvature + float(penalty.max()))
        return integrate(self.product, begin, times, field, radius, rtol=rtol)

    def right(self, f: np.ndarray, noise: Any = 0.0) -> np.ndarray:
        """1 where logits [T, N, C, R] name the class of the sample, 0 where another one, [T, N, R]; 1/2 where they leave it
        open: they, or those of two classes, are within `noise` of each other."""
        if self.outputs == 1:
            margin = np.where(self.index == 1, 1, -1)[:, None] * f[..., 0, :]
        else:
            others = np.where((np.arange(self.outputs) == self.index[:, None])[:, :, None], -np.inf, f).max(-2)
            mine = np.broadcast_to(self.index[:, None, None], (*f.shape[:-3], self.count, 1, f.shape[-1]))
            margin, noise = np.take_along_axis(f, mine, -2)[..., 0, :] - others, 2 * np.asarray(noise)
        return np.where(np.abs(margin) <= noise, 0.5, (margin > 0).astype(float))

    def noise(self, weights: np.ndarray, f: np.ndarray, times: np.ndarray, rounding: float) -> np.ndarray:
        """How far the logits f [T, N, C, R] at `times` from 0 on may be off, [T, N, R], because the entries of the kernel
        are exact to `rounding` of the lengths of the two gradients: each is multiplied with the integral of a residual."""
        chance = special.expit(f) if self.outputs == 1 else special.softmax(f, axis=-2)
        residual = np.abs(self.target[:, :, None] - chance).sum(-2) * weights
        if len(times) > 1:
            pieces = np.diff(times)[:, None, None] * np.maximum(residual[1:], residual[:-1])
            told = np.concatenate([times[0] * weights[None], times[0] * weights + np.cumsum(pieces, 0)])
        else:
            told = times[:, None, None] * weights
        lengths = np.sqrt(np.maximum(np.diag(self.kernel), 0)).reshape(self.count, -1).max(1)
        moved = lengths[:, None] * np.einsum("n,tnr->tr", lengths, told)[:, None]
        return 4 * rounding * (moved + np.abs(self.start).max(1)[:, None])


def _interval(hits: np.ndarray, parts: np.ndarray) -> tuple[float, float]:
    """95 % for the rate of `hits` [m]: Wilson's, or Student's over the `parts` [m] if that is wider."""
    m, rate, z = len(hits), float(hits.mean()), 1.96
    centre, wide = rate + z * z / (2 * m), z * np.sqrt(rate * (1 - rate) / m + z * z / (4 * m * m))
    low, high = (centre - wide) / (1 + z * z / m), (centre + wide) / (1 + z * z / m)
    rates = [hits[parts == part].mean() for part in np.unique(parts)]
    if len(rates) > 1:
        spread = float(stats.t.ppf(0.975, len(rates) - 1) * np.std(rates, ddof=1) / np.sqrt(len(rates)))
        low, high = min(low, rate - spread), max(high, rate + spread)
    return max(0.0, float(low)), min(1.0, float(high))


def hold_out(
    kernel: np.ndarray,
    start: np.ndarray,
    classes: Classes,
    trained: np.ndarray,
    groups: tuple[tuple[str, ...], np.ndarray, bool],
    times: np.ndarray,
    at: int,
    *,
    edited: tuple[np.ndarray, np.ndarray] | None = None,
    last: np.ndarray | None = None,
    splits: int = 5,
    penalty: float = 0.02,
    rounding: float = 0.0,
    rng: np.random.Generator,
) -> HeldOut | None:
    """The `HeldOut` of logits `start` [N, C] and their kernel; `trained` [N]: which samples may be trained on, the others
    are tested. `groups`: names, members [N, G], and whether they exclude each other; `edited`: kernel and logits of the same
    samples without a feature; `last`: the kernel of the last layer alone; `rounding`: of the kernel's entries, within which
    nothing is decided. None where no cell can be held out."""
    # Nothing is asked beyond the horizon.
    times = times[: at + 1]
    columns = Columns(kernel, start, classes, times)
    cells = cells_of(classes, *groups)
    given = not trained.all()
    notes = []
    if given:
        folds, part = 1, np.where(trained, -1, 0)
        weights = trained[:, None].astype(float)
        halves = deal([cell for *_, cell in cells], ~trained, 2, rng)
        judges = np.where(trained, -1, np.maximum(halves, 0))
    else:
        folds = splits
        part = deal([cell for *_, cell in cells], trained, splits, rng)
        weights = (part[:, None] != np.arange(splits)).astype(float)
        judges = part
    usable = []
    for label, attribute, cell in cells:
        tested = cell & (part >= 0)
        if tested.sum() and ((cell & trained).any() or given):
            usable.append((label, attribute, cell, tested))
        else:
            why = "has no test sample" if given else "has one sample, which cannot be trained on and held out"
            notes.append(f"The cell '{_called(label, attribute)}' {why}; nothing is predicted for it.")
    if not usable:
        return None
    tested = part >= 0
    which = np.where(tested, part, 0)

    def predicted(right: np.ndarray, first: int = 0) -> np.ndarray:
        """[..., N, R] of one plan, whose columns begin at `first`, on samples that it had not seen, [..., N]."""
        return np.take_along_axis(right, (first + which).reshape((1,) * (right.ndim - 2) + (-1, 1)), -1)[..., 0]

    masks = np.stack([mask for *_, mask in usable])
    names = [_called(label, attribute) for label, attribute, *_ in usable]

    def rates(hits: np.ndarray) -> np.ndarray:
        """Accuracies of the cells, [..., cells]."""
        return hits.astype(float) @ (masks.T / masks.sum(1))

    def plan(name: str, hits: np.ndarray, time: float, cost: str) -> Plan:
        values = rates(hits)
        worst = int(np.argmin(values))
        interval = _interval(hits[masks[worst]], judges[masks[worst]])
        by_name = dict(zip(names, map(float, values), strict=True))
        return Plan(name, names[worst], float(values[worst]), interval, float(values.mean()), by_name, float(time), cost)

    # Every way to train whose columns differ in weights, targets and penalties alone, at once.
    alike = _alike(weights, [cell & trained for *_, cell in cells])
    ways = [(weights, 0.0, 0.0), (alike, 0.0, 0.0), (weights, SMOOTHING, 0.0), (weights, 0.0, penalty)]
    told = np.concatenate([w for w, *_ in ways], 1)
    f = columns.train(
        told,
        times,
        smoothing=np.repeat([s for _, s, _ in ways], folds),
        penalty=np.repeat([p for *_, p in ways], folds),
    )
    noise = columns.noise(told, f, times, rounding)
    right, late_noise = columns.right(f, noise), noise[at]
    open_ = predicted(right[at, :, :folds] == 0.5)
    plain, weighted, smooth, decoupled = (predicted(right, k * folds) for k in range(4))
    ends = f[at]  # [N, C, R], for what goes on from there
    seen = (right[..., :folds] * weights).sum(-1) / np.maximum(weights.sum(1), 1)
    del f
    label_cost = "the attribute of every training sample"
    plans = [
        plan(PLAIN, plain[at], times[at], "nothing"),
        plan("re-weight the cells alike", weighted[at], times[at], label_cost),
        plan(f"margin control (targets {SMOOTHING:g} and {1 - SMOOTHING:g})", smooth[at], times[at], "nothing"),
        plan(f"spectral decoupling {penalty:.2g}", decoupled[at], times[at], "one number to be tuned"),
    ]
    for name, hits, cost in (("", plain, ""), ("re-weight the cells alike and ", weighted, f"{label_cost}, and ")):
        hits, record = _stopped(hits, judges, masks, rates)
        cost += "held-out samples with their attribute"
        plans.append(plan(f"{name}stop at time {times[record]:.2g}".strip(), hits, times[record], cost))
    # What goes on from the horizon, and what needs the worst cell to be known.
    late_noise = late_noise[None, :, :folds]
    later = columns.train(alike, times[[at]], start=ends[..., :folds])
    late = predicted(columns.right(later, late_noise + columns.noise(alike, later, times[[at]], rounding))[0])
    plans.append(plan("re-weight from the horizon on", late, 2 * times[at], f"{label_cost}, twice the time"))
    if last is not None:
        layer = Columns(last, start, classes, times).train(alike, times[[at]], start=ends[..., :folds])
        hits = predicted(columns.right(layer, late_noise)[0])
        plans.append(plan("re-train the last layer, cells alike", hits, 2 * times[at], f"{label_cost}, twice the time"))
    plans += _more(columns, plans[0], usable, weights, trained, times[at], predicted, plan)
    if edited is not None:
        other = Columns(*edited, classes, times)
        clean = other.train(weights, times[[at]])
        hits = predicted(columns.right(clean, other.noise(weights, clean, times[[at]], rounding))[0])
        plans.append(plan("train and test on the edited samples", hits, times[at], "editing every sample"))
    outcomes = []
    for (label, attribute, cell, mask), name in zip(usable, names, strict=True):
        hits = plain[:, mask]
        inside = cell & (weights.sum(1) > 0)
        unclear = float(open_[mask].mean())
        if unclear:
            notes.append(
                f"Undecided: the logits of {100 * unclear:.0f} % of the samples of the cell '{name}' are 0 within the "
                "rounding of the kernel at the horizon, as where the same samples occur with both labels; they count as "
                "half right."
            )
        outcomes.append(
            Cell(
                name=name,
                label=label,
                attribute=attribute,
                trained=int((cell & trained).sum()),
                tested=int(mask.sum()),
                accuracy=hits.mean(1),
                interval=_interval(hits[at], judges[mask]),
                in_sample=seen[:, inside].mean(1) if inside.any() else np.full(len(times), np.nan),
                agrees=_agrees(cells, label, attribute, trained, groups[2]),
                undecided=unclear,
            )
        )
    outcomes.sort(key=lambda one: float(one.accuracy[at]))
    # Of plans that are equal the cheaper first, which is the order in which they were made.
    plans.sort(key=lambda one: -one.accuracy)
    return HeldOut(times, at, tuple(outcomes), tuple(plans), 0 if given else splits, tuple(notes))


def _alike(weights: np.ndarray, cells: list[np.ndarray]) -> np.ndarray:
    """`weights` [N, R] with every cell of a column of the same total, and the column's total as before."""
    kinds = np.unique(np.stack(cells, 1), axis=0, return_inverse=True)[1].reshape(-1)
    found = weights.copy()
    for column in found.T:
        counts = np.bincount(kinds, column)
        column *= np.where(column > 0, column.sum() / ((counts > 0).sum() * np.maximum(counts[kinds], 1e-300)), 0)
    return found


def _stopped(hits: np.ndarray, judges: np.ndarray, masks: np.ndarray, rates: Any) -> tuple[np.ndarray, int]:
    """Accuracy where the time to stop is chosen on the other parts, so that no sample chooses for itself: hits [N], and the
    record chosen by all."""

    def best(of: np.ndarray) -> int:
        counts = (masks & of).sum(1)
        told = counts > 0
        values = (hits[:, of].astype(float) @ (masks[told][:, of].T / counts[told])) if told.any() else np.zeros((1, 1))
        return int(np.argmax(values.min(1) + _TIE * values.mean(1)))

    parts = np.unique(judges[judges >= 0])
    found = hits[0].copy()
    for one in parts:
        others = (judges >= 0) & (judges != one)
        mine = judges == one
        found[mine] = hits[best(others if others.any() else mine), mine]
    return found, best(judges >= 0)


def _more(columns: Columns, plain: Plan, usable, weights, trained, time, predicted, plan) -> list[Plan]:
    """More samples of the worst cell, from what half of them does."""
    k = next(i for i, (label, attribute, *_) in enumerate(usable) if _called(label, attribute) == plain.worst)
    mine = np.flatnonzero(usable[k][2] & trained)
    if len(mine) < 8:
        return []
    fewer = weights.copy()
    # Every second one of each column.
    for column in fewer.T:
        kept = [i for i in mine if column[i] > 0]
        column[kept[::2]] = 0
    half = predicted(columns.right(columns.train(fewer, np.array([time])))[0])
    less = plan("", half, time, "").cells[plain.worst]
    count, whole = len(mine), plain.accuracy
    step = special.logit(_inside(whole, count)) - special.logit(_inside(less, count))
    gained = float(special.expit(special.logit(_inside(whole, count)) + max(step, 0.0)))
    cells = {**plain.cells, plain.worst: max(gained, whole)}
    worst = min(cells, key=lambda name: cells[name])
    shift = cells[worst] - whole
    low, high = plain.interval
    return [
        Plan(
            name="twice as many samples of the worst cell",
            worst=worst,
            accuracy=cells[worst],
            interval=(min(1.0, low + shift), min(1.0, high + shift)),
            mean=float(np.mean(list(cells.values()))),
            cells=cells,
            time=float(time),
            cost=f"{count} more samples (extrapolated: half of them gives {number(less, 2)})",
        )
    ]


def _inside(rate: float, count: int) -> float:
    return float(np.clip(rate, 1 / (2 * count), 1 - 1 / (2 * count)))
