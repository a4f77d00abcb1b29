"""Features that share samples: the laws of section 10 on the training of whole networks, loss beside loss, depth by depth.

For one table of sample types over K orthogonal features, every feature is learnt twice: together with the others and alone,
the others removed from the same samples. What it lost is the starvation index 1 - v_k/v_k^alone (10.6), and v_k is measured
in any network as f(r_k e_k), its logit on an input that shows feature k and nothing else. The networks are

- one layer, a read-out of all inputs: law (10.1);
- N >= 2 layers in balanced paths, each of which reads one feature and is connected to no other path: law (10.1);
- two layers of ordinary ReLU neurons with all connections. (10.1) does NOT hold for them, not even where each neuron starts
  aligned with one feature: the first sample that shows two features turns it towards both. What holds is (10.7), if every
  neuron starts active on every sample with a read-out above 0 (`theory.shared_features`), and such networks are trained
  against it. Random starts, which obey neither law exactly, are trained beside them, as a band over networks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import Progress, number, positive_int, table_text
from gradstarve.studies.feature_table import QUANTILES, FeatureTable, all_seeing, random_band, restricted, train

ORDINARY = "ordinary"
_LINE = 201  # times of a law's curve, from `time`/1e4 to `time`
_EVERY = 10  # of them is a record of training
_LATEST = 1e15  # how late a logit of 1 is looked for
_EARLIEST = 1e-6  # and a logit that has it by then has it at 0
_LEVEL = {"hinge": 1 - 1e-12, "squared": 1 + 1e-9}  # which is where the first stops, and what the second may only pass


@dataclass(frozen=True)
class Cell:
    """One loss and one kind of network. K features, T times of the law, R records of training.

    `model`: the depth N of (10.1), or "ordinary" for two layers with all connections (10.7). `law`, `law_alone`: v_k [T, K],
    None where there is no law (ordinary neurons, squared loss); `trained`, `trained_alone`: [R, K]. `reach`, `reach_alone`:
    the law's times to a logit of 1 [K], inf where there is none up to 1e15 (squared loss, N >= 2: up to `time`). `gap`: the
    largest |trained - law| over the largest logit, `index_gap`: of the index. `band`: quantiles 10, 50, 90 % over random
    starts [3, R, K], NaN after the last step, and `distance`: how far (10.1) is from the ordinary network that starts with
    the same logits, over the largest logit.
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
    """What `feature_study` found. `feature_study(**study.settings)` computes it again; `times` [T], `records` [R]."""

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

    def table(self) -> str:
        """A row a feature: index at the end, the law's times to a logit of 1, and how far training is from the law."""
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
        """In words, what the table is to be read with."""
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
        latest = _latest(cell.model, cell.loss, self.settings["time"])
        return "never" if cell.loss in _LEVEL and latest == _LATEST else f"> {number(latest)}"

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        names = ("model", "loss", "law", "law_alone", "index", "trained", "trained_alone", "trained_index")
        names += ("reach", "reach_alone", "gap", "index_gap", "band", "distance")
        cells = [{name: getattr(cell, name) for name in names} for cell in self.cells]
        return {"times": self.times, "records": self.records, "quantiles": QUANTILES, "cells": cells}

    def plot(self, path: Any = None) -> Any:
        """The curves as a matplotlib `Figure`, saved to `path` if there is one; see `studies.features_plot`."""
        from gradstarve.studies.features_plot import draw

        return draw(self, path)


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
    seed: int = 0,
    progress: Any = None,
) -> FeatureStudy:
    """Laws (10.1), (10.6), (10.7) and training for a table of sample types, together and alone, per loss and depth.

    `types`: [S, K] of 0 and 1; `probabilities`: [S], which sum to 1; `scales`: r_k [K], default 1; `init`: v_k(0) > 0 of all
    networks of two and more layers, a number or [K] (one layer starts at 0); `time`: until when, in units of step size x
    step. `ordinary` adds two layers with all connections: one network of `width` neurons active on all samples, started with
    the same logits, and `networks` random ones of a standard deviation that lets the logit of norm 1 start at about `init`.
    `progress` as in `simulate`; `seed` is that of the read-out's frame and of ordinary networks.

    Networks with a law are trained by gradient flow of all their weights (`simulate_flow` to its default tolerance: ask for
    float64), the random ones by descent with step size 0.05 over the largest squared norm of a sample, for at most 100,000
    steps. `ValueError` for bad tables and numbers, `ConvergenceError` where a law or training does not get to `time`.

    >>> study = feature_study([[1, 0], [1, 1]], [0.8, 0.2], losses=["hinge"], depths=[1], ordinary=False, time=100)
    >>> cell = study.cell(1, "hinge")       # feature 2 stops at 1/(2 + q) = 1/6, and its index at 5/6
    >>> [round(float(v), 2) for v in (cell.law[-1, 1], cell.index[-1, 1], cell.trained_index[-1, 1])]
    [0.17, 0.83, 0.83]
    """
    problem = FeatureTable.make(types, probabilities, scales, losses, depths, init, time, seed)
    width, networks = positive_int("width", width), positive_int("networks", networks)
    settings = problem.settings() | {"ordinary": bool(ordinary), "width": width, "networks": networks, "seed": seed}
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
    latest, level = _latest(model, loss, problem.time), _LEVEL.get(loss, 1.0)
    band = random_band(problem, loss, width, networks, records) if model == ORDINARY else None
    distance = None
    if model == ORDINARY and loss != "squared":
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
    if loss == "squared":
        return None, None
    w, z = np.asarray(network.w), np.asarray(network.z)
    shared = theory.shared_features(problem.types, problem.probabilities, loss, w, z, problem.scales)
    # A batch of problems with one feature each: the same neurons, which see nothing else of a sample.
    seen = (problem.probabilities @ problem.types)[:, None]
    each = theory.shared_features([[1]], seen, loss, w.T[:, :, None], np.tile(z, (len(seen), 1)), problem.scales[:, None])
    return (lambda t: np.asarray(shared.features(t))), (lambda t: np.asarray(each.features(t))[..., 0].T)


def _latest(model: int | str, loss: str, time: float) -> float:
    """How late the law can tell a logit: the squared loss comes to rest, which the integrator follows step by step."""
    return time if loss == "squared" and model != 1 else _LATEST


def _reach(features: Callable, latest: float, level: float) -> np.ndarray:
    """When each logit first is at `level`, [K], by the law: a bracket on a grid in log t, narrowed twice, then a chord."""
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
            # The ends are the bracket's, whatever the last digit says.
            values[0], values[-1] = min(values[0], np.nextafter(level, 0)), max(values[-1], level)
        first = int(np.argmax(values >= level))
        share = (level - values[first - 1]) / (values[first] - values[first - 1])
        answer[k] = grid[first - 1] * (grid[first] / grid[first - 1]) ** share
    return answer


def _four(value: float) -> str:
    """Four digits after the point, and no minus before a zero."""
    return f"{round(float(value), 4) + 0.0:.4f}"


def _span(values: list[float]) -> str:
    """The least and the most of the values in percent, once if they agree."""
    return " to ".join(dict.fromkeys(f"{100 * value:.0f} %" for value in (min(values), max(values))))


def _index(found: np.ndarray, alone: Any) -> np.ndarray:
    return np.asarray(theory.starvation_index(found, alone))


def _far(trained: np.ndarray, law: Any) -> float:
    """The largest distance over the largest logit."""
    return float(np.abs(trained - law).max() / np.abs(law).max())
