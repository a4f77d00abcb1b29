"""Features that share samples: the laws of section 10 against the training of whole networks, for several losses and depths.

For one table of sample types over K orthogonal features, every feature is learnt twice: together with the others and alone,
the others removed from the same samples. Its loss is measured by the starvation index 1 - v_k/v_k^alone (10.6), and v_k is
measured in any network as f(r_k e_k), its logit on an input that shows only feature k. The networks are

- one layer, a read-out of all inputs: law (10.1);
- N >= 2 layers in balanced paths, each of which reads one feature and is connected to no other path: law (10.1);
- two layers of ordinary ReLU neurons with all connections. (10.1) does NOT hold for them, not even if each neuron starts
  aligned with one feature: the first sample that shows two features turns the neuron towards both. If every neuron starts
  active on every sample with a read-out above 0, (10.7) holds (`theory.shared_features`), and such networks are compared
  with it. Networks from random starts, which obey neither law exactly, are trained too, and shown as a band.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    NOTE,
    ConvergenceError,
    Progress,
    as_seed,
    check_positive,
    deprecated,
    headline,
    new_figure,
    number,
    one_key,
    positive_int,
    real_arrays,
    save,
    sheet,
    table_text,
)
from gradstarve.problem import LOSSES, Dataset, DeepReLU, GradientDescent, TwoLayerReLU, as_loss, datasets, init_two_layer
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theorems import LOSS_NAMES, AnyLoss

# A table of sample types over orthogonal features, its laws, and the training of whole networks on it.

QUANTILES = (0.1, 0.5, 0.9)
_MOST_STEPS = 100_000  # of descent from random starts
_FINE = 500  # the first steps, which are all recorded


@dataclass(frozen=True)
class FeatureTable:
    """The checked arguments of `feature_study`: the table and the settings."""

    types: np.ndarray
    probabilities: np.ndarray
    scales: np.ndarray
    losses: tuple[str, ...]
    depths: tuple[int, ...]
    init: np.ndarray
    time: float
    key: Any

    @classmethod
    def make(cls, types, probabilities, scales, losses, depths, init, time, key) -> FeatureTable:
        types, probabilities = real_arrays(types=types, probabilities=probabilities)
        datasets.check_types(types)
        size = types.shape[1]
        scales, init, time = real_arrays(scales=[1.0] * size if scales is None else scales, init=init, time=time)
        total = float(np.sum(np.asarray(probabilities)))
        if abs(total - 1) > 1e-5:
            raise ValueError(f"probabilities must sum to 1, got {total:.6g}; divide them by it")
        datasets.features(types, probabilities, scales=scales)  # checks the other arguments
        if init.shape not in ((), (size,)):
            raise ValueError(f"init must be a number or have {size} entries, one a feature, got shape {init.shape}")
        check_positive("init", init)
        if time.shape or not float(time) > 0:
            raise ValueError(f"time must be a number > 0, got {time}")
        losses, depths = list(losses), [positive_int("depths", depth) for depth in depths]
        for name, values in (("losses", losses), ("depths", depths)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each once, got {values}")
        names = tuple(as_loss(loss).name for loss in losses)
        for name in names:
            if name not in LOSS_NAMES:
                raise ValueError(f"losses must be among {', '.join(LOSS_NAMES)}, got {name!r}")
        if (np.asarray(types) < 0).any() and max(depths) > 1:
            raise ValueError(
                f"depths must be 1 for types that hold -1, got {depths}: a ReLU path does not see a feature whose sign is "
                "turned; theory.feature_flow(...) has the law of linear paths"
            )
        problem = cls(
            np.asarray(types),
            np.asarray(probabilities),
            np.asarray(scales),
            names,
            tuple(depths),
            np.broadcast_to(np.asarray(init), (size,)),
            float(time),
            one_key(key),
        )
        for depth in depths:
            problem.flow(names[0], depth)  # checks the start
        return problem

    @property
    def signed(self) -> bool:
        """Whether a type shows a feature against the label."""
        return bool((self.types < 0).any())

    def settings(self) -> dict[str, Any]:
        """Arguments of `feature_study`."""
        values = {name: getattr(self, name).tolist() for name in ("types", "probabilities", "scales", "init")}
        return values | {"losses": list(self.losses), "depths": list(self.depths), "time": self.time}

    def flow(self, loss: str, depth: int) -> theory.FeatureFlow:
        """The law (10.1)."""
        start = None if depth == 1 else self.init
        return theory.feature_flow(self.types, self.probabilities, loss, depth=depth, scales=self.scales, init=start)

    def points(self, frame: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Samples [1 + K, S, d], all features and then each as the only one, and the inputs r_k e_k [K, d]."""
        size = len(self.scales)
        apart = np.eye(size, dtype=self.scales.dtype)
        shown = np.asarray(datasets.features(apart, [1 / size] * size, scales=self.scales, key=frame).points)
        each = self.types.T[:, :, None] * shown[:, None]
        return np.concatenate([(self.types @ shown)[None], each]), shown


# --- training --------------------------------------------------------------------------------------------------------


def restricted(problem: FeatureTable, depth: int) -> tuple[Any, Any]:
    """Samples, and the networks that obey (10.1): a read-out of all inputs from zero in a random frame, or paths."""
    size = len(problem.scales)
    if depth == 1:
        return problem.points(problem.key), DeepReLU((np.zeros(size, problem.scales.dtype),))
    layers = np.tile((problem.init / problem.scales) ** (1 / depth), (depth, 1)).astype(problem.scales.dtype)
    return problem.points(), DeepReLU.paths(layers, list(range(size)), size)


def all_seeing(problem: FeatureTable, width: int) -> TwoLayerReLU:
    """Random neurons active on every sample, z > 0, whose logits v_k start at `init`: w [h, K] > 0."""
    drawn = np.asarray(jax.random.normal(jax.random.fold_in(problem.key, 1), (len(problem.scales) + 1, width)), float)
    z, w = np.abs(drawn[0]), np.abs(drawn[1:]).T
    # Both layers have the same size of weights, as in a standard initialisation.
    z = z * np.sqrt(np.mean(problem.init / problem.scales) / width)
    w = w * problem.init / (problem.scales * (z @ w))
    return TwoLayerReLU(*(part.astype(problem.scales.dtype) for part in (w, z)))


def train(problem: FeatureTable, samples: tuple[np.ndarray, np.ndarray], network: Any, records: np.ndarray) -> np.ndarray:
    """v_k of training, together and as the only feature: [losses, 2, R, K]."""
    points, shown = samples
    count, sets = len(problem.losses), len(points)
    which = np.repeat([LOSS_NAMES.index(loss) for loss in problem.losses], sets)
    repeated = np.tile(points, (count, 1, 1))
    found = _flows(tuple(records), repeated, problem.probabilities, which, network, shown)
    found = np.asarray(found).reshape(count, sets, len(records), -1)
    lost = np.argwhere(~np.isfinite(found).all(axis=(1, 2, 3)))
    if lost.size:
        loss = problem.losses[int(lost[0, 0])]
        raise ConvergenceError(f"training with the {loss} loss did not get to t = {problem.time:g}; ask for earlier times")
    alone = np.stack([found[:, 1 + k, :, k] for k in range(sets - 1)], axis=-1)
    return np.stack([found[:, 0], alone], axis=1)


@partial(jax.jit, static_argnums=0)
def _flows(records, points, probabilities, which, network, shown):
    def one(points, which):
        data = Dataset(points, [1] * points.shape[0], probabilities)
        options = {"max_steps": 20_000, "progress": False, "throw": False, "record_networks": True}
        run = simulate_flow(data, network, AnyLoss(which), np.array(records), **options)
        return run.networks(jnp.asarray(shown))

    return jax.vmap(one)(points, which)


def random_band(problem: FeatureTable, loss: str, width: int, networks: int, records: np.ndarray) -> np.ndarray:
    """Quantiles of v_k over random ordinary networks, [3, R, K]; NaN at records beyond the last step."""
    data = datasets.features(problem.types, problem.probabilities, scales=problem.scales)
    size = float(np.sqrt(np.mean(problem.init / problem.scales) / np.sqrt(width / 2)))
    start = init_two_layer(jax.random.fold_in(problem.key, 2), networks, width, len(problem.scales), size, size)
    step = 0.05 / float(np.max(problem.types**2 @ problem.scales**2))
    steps = int(min(np.ceil(problem.time / step), _MOST_STEPS))
    shown, dynamics = jnp.asarray(np.diag(problem.scales)), GradientDescent(step)
    done, logits, clock = 0, [], []
    for until in (min(steps, _FINE), steps):  # on a log t axis the first steps need denser records
        if until > done:
            every = max(1, (until - done) // 500)
            how = {"record_every": every, "record_networks": True, "progress": False}
            run = simulate(data, start, loss, dynamics, until - done, **how)
            logits.append(np.quantile(np.asarray(_probe(run.networks, shown)), QUANTILES, axis=0))
            clock.append(step * (done + np.asarray(run.grid)))
            done, start = until, run.final
    curves, clock = np.concatenate(logits, axis=1), np.concatenate(clock)
    found = np.array([[np.interp(records, clock, curve) for curve in quantile.T] for quantile in curves])
    found = np.moveaxis(found, 1, 2)
    found[:, records > clock[-1] * (1 + 1e-9)] = np.nan
    return found


@jax.jit
def _probe(networks, shown):
    return networks(shown)


# The study.

ORDINARY = "ordinary"
_LINE = 201  # times of a law's curve, from `time`/1e4 to `time`
_EVERY = 10  # every tenth of them is a record of training
_LATEST = 1e15  # the latest time in the search for a logit of 1
_EARLIEST = 1e-6  # a logit that is there by this time counts as there at 0


@dataclass(frozen=True)
class Cell:
    """One loss and one kind of network. K features, T times of the law, R records of training.

    `model`: the depth N of (10.1), or "ordinary" for two layers with all connections (10.7). `law`, `law_alone`: v_k [T, K],
    None where there is no law (ordinary neurons with squared loss or with signed types); `trained`, `trained_alone`: [R, K].
    `reach`, `reach_alone`: the law's times to a logit of 1 [K], inf if there is none up to 1e15 (squared loss, N >= 2: up
    to `time`). `gap`: the largest |trained - law| over the largest logit, `index_gap`: that of the index. `band`: quantiles
    10, 50, 90 % over random starts [3, R, K], NaN after the last step. `distance`: the distance of (10.1) from the ordinary
    network that starts with the same logits, over the largest logit.
    """

    model: int | str
    loss: str
    law: np.ndarray | None
    law_alone: np.ndarray | None
    trained: np.ndarray
    trained_alone: np.ndarray
    reach: np.ndarray | None
    reach_alone: np.ndarray | None
    gap: float
    index_gap: float
    band: np.ndarray | None = None
    distance: float | None = None

    @property
    def index(self) -> np.ndarray | None:
        """The starvation index (10.6) of the law, [T, K]."""
        return None if self.law is None else _index(self.law, self.law_alone)

    @property
    def trained_index(self) -> np.ndarray:
        """The starvation index of training, both sides trained, [R, K]."""
        return _index(self.trained, self.trained_alone)


@dataclass(frozen=True)
class FeatureStudy:
    """The result of `feature_study`; `feature_study(**study.settings)` computes it again. `times` [T], `records` [R]."""

    settings: dict[str, Any]
    times: np.ndarray
    records: np.ndarray
    cells: tuple[Cell, ...]

    def cell(self, model: int | str, loss: str) -> Cell:
        """The cell of that network and loss; `KeyError` if it is not part of the study."""
        for cell in self.cells:
            if (cell.model, cell.loss) == (model, loss):
                return cell
        raise KeyError((model, loss))

    def conclusion(self) -> str:
        """In one sentence, which feature loses most to the others, and how much."""
        return _conclusion(self)

    def table(self) -> str:
        """A row per feature: index at the end, the law's times to a logit of 1, and the gap between training and law."""
        end = number(self.settings["time"])
        rows = [("network", "loss", "feature", f"index at t = {end}", "trained", "t(v = 1) alone", "together", "gap")]
        for cell in self.cells:
            name = {1: "one layer", ORDINARY: "ordinary, 2 layers"}.get(cell.model, f"paths, {cell.model} layers")
            for k in range(cell.trained.shape[1]):
                law = "-" if cell.index is None else _four(cell.index[-1, k])
                apart, reach = (self._reached(cell, value, k) for value in (cell.reach_alone, cell.reach))
                gap = "-" if cell.law is None else number(cell.gap, 2)
                rows.append((name, cell.loss, str(k + 1), law, _four(cell.trained_index[-1, k]), apart, reach, gap))
        return table_text(rows)

    def notes(self) -> str:
        """An explanation of the table, in words."""
        lines = [
            "v is the logit f(r e) on a feature alone; index 1 - v/v_alone, below 0 where others help; gap: the largest "
            "|trained - law|",
            "over the largest logit. t = step size x step. Paths see one feature each, with no connections between them.",
        ]
        distances = [cell.distance for cell in self.cells if cell.distance is not None]
        if distances:
            lines += [
                "Ordinary neurons mix the features and obey (10.7), where they see all samples. The law (10.1) of paths",
                f"does not hold for them: from the same logits it is off by {_span(distances)} of the largest logit.",
            ]
        return "\n".join(lines)

    def _reached(self, cell: Cell, times: np.ndarray | None, k: int) -> str:
        if times is None:
            return "-"
        if np.isfinite(times[k]):
            return number(times[k])
        signed = np.min(self.settings["types"]) < 0
        latest = self.settings["time"] if signed else _latest(cell.model, cell.loss, self.settings["time"])
        return "never" if np.isfinite(LOSSES[cell.loss].rest) and latest == _LATEST else f"> {number(latest)}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        names = ("model", "loss", "law", "law_alone", "index", "trained", "trained_alone", "trained_index")
        names += ("reach", "reach_alone", "gap", "index_gap", "band", "distance")
        cells = [{name: getattr(cell, name) for name in names} for cell in self.cells]
        return {"times": self.times, "records": self.records, "quantiles": QUANTILES, "cells": cells}

    def plot(self, path: Any = None) -> Any:
        """The curves as a matplotlib `Figure`, saved to `path` if there is one; see `studies.features_plot`."""
        return draw(self, path)


@deprecated(seed="key")
def feature_study(
    types: Any,
    probabilities: Any,
    scales: Any = None,
    losses: Sequence[str] = ("cross-entropy", "hinge", "exponential"),
    depths: Sequence[int] = (1, 2, 3),
    init: Any = 0.01,
    time: Any = 1000.0,
    ordinary: bool = True,
    width: int = 16,
    networks: int = 64,
    key: Any = 0,
    progress: Any = None,
) -> FeatureStudy:
    """Laws (10.1), (10.6), (10.7) and training for a table of sample types, together and alone, per loss and depth.

    `types`: [S, K] of -1, 0 and 1; `probabilities`: [S], which sum to 1; `scales`: r_k [K], default 1; `init`: v_k(0) > 0 of
    all networks of two and more layers, a number or [K] (one layer starts at 0); `time`: the end of training, in units of
    step size x step. `ordinary` adds two layers with all connections: one network of `width` neurons active on all samples,
    started with the same logits, and `networks` random ones with a standard deviation for which logits start at about
    `init`. `progress` as in `simulate`; `key` draws the frame of the read-out and the ordinary networks.

    Networks with a law are trained by gradient flow of all their weights (`simulate_flow` with its default tolerance: use
    float64), the random ones by descent with step size 0.05 over the largest squared norm of a sample, for at most 100,000
    steps. `ValueError` for bad tables and numbers, `ConvergenceError` if a law or training does not reach `time`.

    >>> study = feature_study([[1, 0], [1, 1]], [0.8, 0.2], losses=["hinge"], depths=[1], ordinary=False, time=100)
    >>> cell = study.cell(1, "hinge")       # feature 2 stops at 1/(2 + q) = 1/6, and its index at 5/6
    >>> [round(float(v), 2) for v in (cell.law[-1, 1], cell.index[-1, 1], cell.trained_index[-1, 1])]
    [0.17, 0.83, 0.83]
    """
    problem = FeatureTable.make(types, probabilities, scales, losses, depths, init, time, key)
    width, networks = positive_int("width", width), positive_int("networks", networks)
    settings = problem.settings() | {"ordinary": bool(ordinary), "width": width, "networks": networks, "key": as_seed(key)}
    models: list[int | str] = [*problem.depths, *([ORDINARY] if ordinary else [])]
    times = np.geomspace(problem.time / 1e4, problem.time, _LINE)
    records = times[::_EVERY]
    cells = []
    with Progress(progress, len(models) * (1 + len(problem.losses)), "laws and training of features") as bar:
        for count, model in enumerate(models):
            if model == ORDINARY:
                samples, network = problem.points(), all_seeing(problem, width)
            else:
                samples, network = restricted(problem, int(model))
            trained = train(problem, samples, network, records)
            bar.update(len(cells) + count + 1)
            for loss, logits in zip(problem.losses, trained, strict=True):
                cells.append(_cell(problem, model, loss, network, logits, times, records, networks, width))
                bar.update(len(cells) + count + 1)
    return FeatureStudy(settings, times, records, tuple(cells))


# --- laws ------------------------------------------------------------------------------------------------------------


def _cell(problem, model, loss, network, logits, times, records, networks, width) -> Cell:
    (trained, trained_alone), kept = logits, slice(None, None, _EVERY)
    together, alone = _laws(problem, model, loss, network)
    latest, level = problem.time if problem.signed else _latest(model, loss, problem.time), _level(loss)
    band = random_band(problem, loss, width, networks, records) if model == ORDINARY else None
    distance = None
    if model == ORDINARY and not LOSSES[loss].pulls_back and not problem.signed:
        distance = _far(trained, np.asarray(problem.flow(loss, 2).features(times))[kept])  # times of one shape compile once
    if together is None:
        return Cell(model, loss, None, None, trained, trained_alone, None, None, np.nan, np.nan, band, distance)
    law, law_alone = together(times), alone(times)
    gap = max(_far(trained, law[kept]), _far(trained_alone, law_alone[kept]))
    off = np.abs(_index(trained, trained_alone) - _index(law, law_alone)[kept]).max()
    reach, reach_alone = (_reach(features, latest, level) for features in (together, alone))
    return Cell(model, loss, law, law_alone, trained, trained_alone, reach, reach_alone, gap, float(off), band, distance)


def _laws(problem: FeatureTable, model: int | str, loss: str, network: Any) -> tuple[Any, Any]:
    """v_k(t) together and alone as functions of times [T], giving [T, K]; None where there is no law."""
    if model != ORDINARY:
        flow = problem.flow(loss, int(model))
        return (lambda t: np.asarray(flow.features(t))), (lambda t: np.asarray(flow.alone(t)))
    if LOSSES[loss].pulls_back or problem.signed:
        return None, None
    w, z = np.asarray(network.w), np.asarray(network.z)
    shared = theory.shared_features(problem.types, problem.probabilities, w, z, loss, scales=problem.scales)
    # A batch of problems with one feature each: the same neurons, which see nothing else of a sample.
    seen = (problem.probabilities @ problem.types)[:, None]
    of_each = w.T[:, :, None], np.tile(z, (len(seen), 1))
    each = theory.shared_features([[1]], seen, *of_each, loss, scales=problem.scales[:, None])
    return (lambda t: np.asarray(shared.features(t))), (lambda t: np.asarray(each.features(t))[..., 0].T)


def _latest(model: int | str, loss: str, time: float) -> float:
    """The latest time for the law: the squared loss comes to rest, which the integrator follows step by step."""
    return time if LOSSES[loss].pulls_back and model != 1 else _LATEST


def _level(loss: str) -> float:
    """The logit that counts as learnt: 1, slightly less for a loss that stops at 1, slightly more for one that pulls
    back."""
    return 1 - 1e-12 if LOSSES[loss].stops else 1 + 1e-9 if LOSSES[loss].pulls_back else 1.0


def _reach(features: Callable, latest: float, level: float) -> np.ndarray:
    """The first time of each logit at `level`, [K], by the law: a bracket on a grid in log t, narrowed twice, then a
    chord."""
    coarse = np.geomspace(_EARLIEST, latest, _LINE)
    found = features(coarse)
    answer = np.full(found.shape[1], np.inf)
    for k in np.flatnonzero((found >= level).any(0)):
        grid, values = coarse, found[:, k]
        if values[0] >= level:
            answer[k] = 0
            continue
        for _ in range(2):
            first = int(np.argmax(values >= level))
            grid = np.geomspace(grid[first - 1], grid[first], _LINE)
            values = features(grid)[:, k].copy()
            # At the ends of the bracket the signs are known, so rounding in the logits there does not count.
            values[0], values[-1] = min(values[0], np.nextafter(level, 0)), max(values[-1], level)
        first = int(np.argmax(values >= level))
        share = (level - values[first - 1]) / (values[first] - values[first - 1])
        answer[k] = grid[first - 1] * (grid[first] / grid[first - 1]) ** share
    return answer


def _four(value: float) -> str:
    """Four digits after the point, and no minus before a zero."""
    return f"{round(float(value), 4) + 0.0:.4f}"


def _span(values: list[float]) -> str:
    """The smallest and the largest of the values in percent, one number if they agree."""
    return " to ".join(dict.fromkeys(f"{100 * value:.0f} %" for value in (min(values), max(values))))


def _index(found: np.ndarray, alone: Any) -> np.ndarray:
    return np.asarray(theory.starvation_index(found, alone))


def _far(trained: np.ndarray, law: Any) -> float:
    """The largest distance over the largest logit."""
    return float(np.abs(trained - law).max() / np.abs(law).max())


# The figure of a `FeatureStudy`: every feature alone (dotted) and together (solid), by law (lines) and training (markers).
#
# One column per loss; one row per kind of network, with its starvation index (10.6) on a strip below. All share log t.
# Features differ in colour (Okabe and Ito) and in the shape of their markers. Matplotlib is imported when a figure is drawn.

_MARKS = ("o", "s", "^", "D", "v", "P", "X")
_GREY = NOTE
_FLOOR = -1.25  # the lowest index drawn; lower values are drawn here
_SMALL: Any = {"fontsize": 7.5, "color": _GREY}
_ABOVE: Any = {
    "xycoords": "axes fraction",
    "textcoords": "offset points",
    "ha": "center",
    "fontsize": 12,
    "fontweight": "bold",
}


def draw(study: Any, path: Any = None) -> Any:
    """The `Figure` of a `studies.features.FeatureStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    losses = list(dict.fromkeys(cell.loss for cell in study.cells))
    models = list(dict.fromkeys(cell.model for cell in study.cells))
    with sheet():
        size = 1.2 + 3.1 * max(len(losses), 2), 2.4 + 2.7 * len(models) + 0.2 * max(len(study.settings["scales"]) - 4, 0)
        figure = new_figure(*size)
        figure.get_layout_engine().set(h_pad=0.02, w_pad=0.04, hspace=0.0, wspace=0.02)  # pyright: ignore
        panels = figure.subplots(
            2 * len(models), len(losses), sharex=True, squeeze=False, height_ratios=[2.6, 1.25] * len(models)
        )
        for i, model in enumerate(models):
            row, strips = panels[2 * i], panels[2 * i + 1]
            cells = [study.cell(model, loss) for loss in losses]
            for cell, panel, strip in zip(cells, row, strips, strict=True):
                _curves(panel, study, cell)
                _indices(strip, study, cell, cells)
            # Losses whose logits grow for ever share an axis; those that end at 1 have their own, to be visible.
            top = [p.get_ylim() for p, loss in zip(row, losses, strict=True) if np.isinf(LOSSES[loss].rest)]
            for panel, loss in zip(row, losses, strict=True):
                if np.isinf(LOSSES[loss].rest):
                    panel.set_ylim(min(low for low, _ in top), max(high for _, high in top))
            row[0].set_ylabel("logit v")
            strips[0].set_ylabel("index")
            row[0].set_title(" ", loc="left", fontsize=10.5)  # keeps the room
            name = row[0].annotate(_name(model), (0, 1), (0, 5), **_ABOVE | {"ha": "left", "fontsize": 10.5})
            name.set_in_layout(False)  # otherwise a name wider than its panel would push the next panel away
        for j, loss in enumerate(losses):
            panels[0, j].annotate(f"{loss} loss", (0.5, 1), (0, 24), **_ABOVE)
            panels[-1, j].set_xlabel("time t = step size × step")
            panels[-1, j].set_xscale("log")
            panels[-1, j].set_xlim(study.times[0], study.times[-1] * 1.1)
        wide = len(losses) > 2
        first, *rest = _title(study)
        headline(figure, first, "\n".join(rest))
        handles, labels = _legend(study, wide)
        figure.legend(
            handles, labels, loc="outside lower center", ncols=3 if wide else 2, columnspacing=2.0
        )
        if path is not None:
            save(figure, path)
    return figure


def _title(study: Any) -> tuple[str, str]:
    gaps = [cell.gap for cell in study.cells if cell.law is not None]
    worst = f", within {number(max(gaps), 2)} of the largest logit" if gaps else ""
    return (
        _conclusion(study),
        "Logits v of features, together and alone, and the starvation index 1 − v / v alone; shaded: what is lost. "
        f"Lines: law. Markers: training of all weights{worst}.",
    )


def _conclusion(study: Any) -> str:
    """The feature that loses most at the end, by the law, or in training if there is no law."""
    ends = [(cell.trained_index if cell.law is None else cell.index)[-1] for cell in study.cells]
    which = int(np.argmax([np.max(end) for end in ends]))
    cell, k = study.cells[which], int(np.argmax(ends[which]))
    lost = float(ends[which][k])
    if not lost > 0.05:
        return f"No feature is starved: all reach {100 * (1 - lost):.0f} % of their logit alone or more"
    model = f"{cell.model} layer{'s' * (cell.model > 1)}" if isinstance(cell.model, int) else "ordinary neurons"
    left = f"{100 * (1 - lost):.2g} %" if lost <= 1 else "less than nothing"
    end = f"beside the others it ends with {left} of its logit alone ({model}, {cell.loss} loss)"
    return f"Feature {k + 1} is starved: {end}"


def _name(model: int | str) -> str:
    if model == 1:
        return "One layer, law (10.1)"
    if isinstance(model, int):
        return f"{_words(model)} layers, aligned paths, law (10.1)"
    return "Two layers, ordinary neurons that see all samples: law (10.7), not (10.1)"


def _words(count: int) -> str:
    words = {2: "Two", 3: "Three", 4: "Four", 5: "Five", 6: "Six"}
    return words.get(count, str(count))


def _style(k: int) -> tuple[str, str]:
    # After the last colour the first one is used again with another marker.
    return COLOURS[k % len(COLOURS)], _MARKS[(k + k // len(COLOURS)) % len(_MARKS)]


def _curves(panel: Any, study: Any, cell: Any) -> None:
    if cell.law is None:
        panel.text(0.02, 0.97, "no law: neurons\nmay leave samples", transform=panel.transAxes, va="top", **_SMALL)
    for k in range(cell.trained.shape[1]):
        colour, mark = _style(k)
        if cell.band is not None:
            low, middle, high = cell.band[..., k]
            panel.fill_between(study.records, low, high, color=colour, alpha=0.18, linewidth=0)
            panel.plot(study.records, middle, color=colour, linewidth=0.9, linestyle=(0, (6, 2)))
        if cell.law is not None:
            panel.fill_between(study.times, cell.law[:, k], cell.law_alone[:, k], color=colour, alpha=0.1, linewidth=0)
            panel.plot(study.times, cell.law_alone[:, k], color=colour, linewidth=1.6, linestyle=(0, (1, 1.4)))
            panel.plot(study.times, cell.law[:, k], color=colour, linewidth=1.8)
        marks = {"linestyle": "none", "color": colour, "marker": mark, "zorder": 4}
        panel.plot(study.records[::2], cell.trained[::2, k], markersize=5, markerfacecolor="white", **marks)
        panel.plot(study.records[1::2], cell.trained_alone[1::2, k], markersize=2.8, **marks)


def _indices(panel: Any, study: Any, cell: Any, row: list[Any]) -> None:
    panel.axhline(0, color=GUIDE, linewidth=0.8)
    for k in range(cell.trained.shape[1]):
        colour, mark = _style(k)
        if cell.law is not None:
            panel.plot(study.times, cell.index[:, k], color=colour, linewidth=1.8)
        marks = {"linestyle": "none", "color": colour, "marker": mark, "zorder": 4}
        panel.plot(study.records[::2], cell.trained_index[::2, k], markersize=4.2, markerfacecolor="white", **marks)
    lowest = min(float(np.min(other.trained_index)) for other in row)
    panel.set_ylim(max(1.15 * min(lowest, -0.08), _FLOOR), 1.1)
    own = float(np.min(cell.trained_index))
    if own < _FLOOR:
        text = f"below 0: helped\n(down to −{-own:.2g})"
        # At first every index is about 0 or below it, so that the upper left is free.
        panel.text(0.02, 0.95, text, transform=panel.transAxes, va="top", **_SMALL)


def _legend(study: Any, wide: bool) -> tuple[list[Any], list[str]]:
    """Handles and labels in columns: the features, the law, training."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    types, weights = np.asarray(study.settings["types"]), np.asarray(study.settings["probabilities"])
    first: list[Any] = []
    for k, scale in enumerate(study.settings["scales"]):
        colour, mark = _style(k)
        text = f"feature {k + 1}: in {100 * (weights @ types)[k]:.3g} % of the samples, r = {number(scale)}"
        first.append((Line2D([], [], color=colour, marker=mark, markerfacecolor="white", linewidth=1.8), text))
    second: list[Any] = [
        (Line2D([], [], color=_GREY, linewidth=1.8), "law, features together"),
        (Line2D([], [], color=_GREY, linewidth=1.6, linestyle=(0, (1, 1.4))), "law, the feature alone"),
    ]
    third: list[Any] = [
        (Line2D([], [], color=_GREY, marker="o", markerfacecolor="white", linestyle="none"), "training, features together"),
        (Line2D([], [], color=_GREY, marker="o", markersize=2.8, linestyle="none"), "training, the feature alone"),
    ]
    if any(cell.band is not None for cell in study.cells):
        middle = Line2D([], [], color=_GREY, linewidth=0.9, linestyle=(0, (6, 2)))
        band = (Patch(color=_GREY, alpha=0.25, linewidth=0), middle)
        third.append((band, "training from random starts, together:\nmedian and 10–90 % of networks (no law)"))
    # Matplotlib fills column by column, so the columns are made equally long.
    columns = (first, second, third) if wide else (first, second + third)
    longest = max(map(len, columns))
    empty = (Line2D([], [], alpha=0), " ")
    entries = [entry for column in columns for entry in column + [empty] * (longest - len(column))]
    return [handle for handle, _ in entries], [label for _, label in entries]
