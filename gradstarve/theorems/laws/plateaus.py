"""From saddle to saddle (16.5): the ends of the plateaus of a hinge flow from tiny weights."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import ConvergenceError, HypothesisError
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind
from gradstarve.theorems import _sampling as sampling
from gradstarve.theorems._entry import COLOURS, Outcome, Quote
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import log_uniform
from gradstarve.theorems.laws.hinge import HINGE_LOSS

_NETWORKS, _POINTS, _WIDTH = 8, 6, 6
_CANDIDATES, _SPARE, _DRAWS = 14, 2, 40  # networks of a data set, those run beside _NETWORKS, and data sets at most
_FLAT = 3  # the dimension of data with labels at random
_SCALES = (1e-100, 1e-150, 1e-200)
_SHOWN = (1e-2, 1e-4, 1e-8, 1e-16)
_RECORDS = 64
_TOLERANCE = 1e-6
_TOGETHER = 0.05  # exits that are closer, in units of log(1/scale), may be one at the scales of the runs
_LONG = 40.0  # the end of runs on data of any kind, in units of log(1/scale) / (the largest push)


def _problem(rng: np.random.Generator, kind: str, count: int = _NETWORKS) -> tuple[Dataset, np.ndarray, np.ndarray]:
    """Points and networks w [b, h, d], z [b, h] of size one: orthogonal points of several norms, or points in a few
    dimensions, both with labels at random."""
    if kind == "orthogonal":
        points = np.linalg.qr(rng.normal(size=(_POINTS, _POINTS)))[0] * log_uniform(rng, 0.5, 2, (_POINTS, 1))
    else:
        points = rng.normal(size=(_POINTS, _FLAT)) @ np.linalg.qr(rng.normal(size=(_POINTS, _FLAT)))[0].T
    weights = rng.uniform(0.3, 1, _POINTS)
    data = Dataset(points, rng.choice([-1.0, 1.0], _POINTS), weights / weights.sum())
    w, z = rng.normal(size=(count, _WIDTH, _POINTS)), rng.normal(size=(count, _WIDTH))
    # z^2 - |w|^2 is constant: only the first read-out may change its sign, so that (16.4) determines most neurons.
    z[:, 1:] = np.sign(z[:, 1:]) * np.sqrt(z[:, 1:] ** 2 + np.sum(w[:, 1:] ** 2, axis=-1))
    return data, w, z


def _push(data: Dataset) -> float:
    return float(np.sum(np.asarray(data.weights) * np.linalg.norm(np.asarray(data.points), axis=1)))


def _exits(data: Dataset, w: np.ndarray, z: np.ndarray, scale: float) -> list[tuple[np.ndarray, np.ndarray] | None]:
    """For each network the exits of its plateaus and their residuals, None if it cannot be followed to its rest."""
    run = sampling.train_exact(data, TwoLayerReLU(scale * w, scale * z), [_LONG * np.log(1 / scale) / _push(data)])
    found = []
    for b in range(len(z)):
        left = [stage for stage in run.stages(b) if np.isfinite(stage.exit)] if run.settled[b] else []
        found.append((np.array([s.exit for s in left]), np.array([s.residual for s in left])) if left else None)
    return found


def _rates(runs: tuple) -> np.ndarray | None:
    """The delay of exits per factor e of the scale, [2, plateaus] between three scales; None if the plateaus do not
    match."""
    if any(run is None for run in runs) or len({len(run[0]) for run in runs}) > 1:
        return None
    found = np.diff(np.stack([run[0] for run in runs]), axis=0) / np.diff(np.log(1 / np.array(_SCALES)))[:, None]
    return found if np.abs(found[1] / found[0] - 1).max() <= _TOLERANCE / 4 else None


def _followed(rng: np.random.Generator, kind: str) -> tuple[Dataset, np.ndarray, np.ndarray, list]:
    """A data set with networks that can be followed to their rest: the data, w, z, and for each network the delay of its
    exits per factor e of the scale, and their residuals. Data with too few such networks are drawn anew."""
    for _ in range(_DRAWS):
        data, w, z = _problem(rng, kind, _CANDIDATES)
        first = _exits(data, w, z, _SCALES[0])
        some = [b for b in range(_CANDIDATES) if first[b] is not None][: _NETWORKS + _SPARE]
        if len(some) < _NETWORKS + _SPARE:
            continue
        w, z = w[some], z[some]
        runs = list(zip([first[b] for b in some], *(_exits(data, w, z, scale) for scale in _SCALES[1:]), strict=True))
        rates = [_rates(one) for one in runs]
        found = [(b, rate[1], one[-1][1]) for b, (rate, one) in enumerate(zip(rates, runs, strict=True)) if rate is not None]
        if len(found) >= _NETWORKS:
            inside = [b for b, *_ in found[:_NETWORKS]]
            return data, w[inside], z[inside], [of for _, *of in found[:_NETWORKS]]
    raise ConvergenceError(f"{_DRAWS} data sets without {_NETWORKS} networks that could be followed to their rest")


def _seen(exits: np.ndarray, count: int) -> np.ndarray:
    """The exits by law; if runs have another `count` of them, exits that runs cannot separate are merged."""
    return exits if len(exits) == count else exits[np.diff(exits, prepend=-np.inf) > _TOGETHER]


def _law(data: Dataset, network: TwoLayerReLU, residual: Any = None) -> theory.PlateauExits | None:
    """The exits by law; None for a network that the flow does not determine (16.4)."""
    try:
        return theory.plateau_exits(data, network, residual)
    except HypothesisError:
        return None


def _curves(data: Dataset, w: np.ndarray, z: np.ndarray, until: float) -> tuple[np.ndarray, np.ndarray]:
    """Times in units of log(1/scale) [records], and the loss of one network there, [scales, records]."""
    times = until * np.linspace(0, 1, _RECORDS + 1)[1:]
    runs = [sampling.train_exact(data, TwoLayerReLU(s * w, s * z), times * np.log(1 / s)) for s in _SHOWN]
    return times, np.stack([np.asarray(run.loss()) for run in runs])


def _draw(outcome: Outcome, ax: Any) -> None:
    """The loss of one network from several scales, its plateaus, and the exits by law."""
    times, loss, exits, heights = (outcome.extra[name][0] for name in ("times", "loss", "exits", "heights"))
    exits, heights = exits[np.isfinite(exits)], heights[np.isfinite(heights)]
    for count, (scale, curve) in enumerate(zip(_SHOWN, loss, strict=True)):
        shade = 0.25 + 0.75 * (count + 1) / len(_SHOWN)
        ax.plot(times, curve, color=COLOURS[0], alpha=shade, linewidth=1.3, label=f"trained from weights of {scale:g}")
    for count, (start, end, height) in enumerate(zip([0, *exits[:-1]], exits, heights, strict=True)):
        label = count == 0
        ax.plot([start, end], [height, height], color="0.45", linewidth=0.8, label="plateaus by law" if label else None)
        ax.plot([end], [height], "v", color=COLOURS[1], markersize=6, label="exits by law" if label else None)
    ax.set_ylim(0, None)
    ax.set_xlabel("time / log(1/scale)")
    ax.set_ylabel("hinge loss")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


def _large(rng: np.random.Generator) -> Trials:
    """The first exit between weights of 0.4 and 0.2."""
    data, w, z = _problem(rng, "orthogonal")
    scales = np.array([0.4, 0.2])
    runs = [sampling.train_exact(data, TwoLayerReLU(s * w, s * z), [_LONG / _push(data)]) for s in scales]
    first = [np.where(run.events.kind == Kind.LEARNT, run.events.time, np.inf).min(-1) for run in runs]
    laws = [_law(data, TwoLayerReLU(*one)) for one in zip(w, z, strict=True)]
    by_law = np.array([law.time[0] if law is not None and law.time.size else np.nan for law in laws])
    with np.errstate(invalid="ignore"):
        slope = (first[1] - first[0]) / np.log(scales[0] / scales[1])
    return compared(
        slope,
        by_law,
        by_law,
        recorded(data, "hinge", TwoLayerReLU(w, z), scales=scales),
        ~np.isfinite(slope) | ~np.isfinite(by_law),
        quantity="the time by which the first exit comes later, in units of the logarithm of the ratio,",
        when="between weights of 0.4 and 0.2",
        setting="orthogonal points",
    )


@register(
    name="saddle-to-saddle",
    equation="16.5",
    title="The loss falls in steps, whose times small neurons add up to",
    meaning="From tiny weights the loss falls in steps, and the time of each step is set by how small the start was.",
    claim="from tiny weights hinge flow goes from saddle to saddle: on plateau p small neuron j grows at the rate "
    "k_j = |c_j| that the residuals of the saddle give it, and the plateau ends when the first neuron has made up for the "
    "scale, its rates added up over all plateaus",
    formula=(
        r"\begin{split} k_j^{(p)} &= |c_j^{(p)}|, \qquad c_j^{(p)} = \sum_{w_j \cdot x_i > 0} q_i\, g_i^{(p)} y_i\, x_i, \\ "
        r"T_p &= \min T : \; \max_j \Bigl[ \sum_{r < p} k_j^{(r)} (T_r - T_{r-1}) + k_j^{(p)} (T - T_{p-1}) \Bigr] = 1, "
        r"\qquad t_p = T_p \log(1/\text{scale}) + O(1) \end{split}"
    ),
    hypotheses=(HINGE_LOSS, "weights that tend to 0", "no neuron on an edge where its read-out changes sign (16.4)"),
    tolerance=_TOLERANCE,
    why_tolerance="exits from weights of 1e-100, 1e-150 and 1e-200: what they have beside T log(1/scale) is a constant, up "
    "to powers of the scale, and cancels in differences; where two neurons end a plateau almost at once the power is small: "
    "networks whose two differences differ by a quarter of the tolerance are drawn anew, and exits closer than 0.05 "
    "may be seen as one",
    checked_with="simulate_hinge_exact: hinge flow of the whole network from event to event, with the stages of its events",
    default_trials=6 * _NETWORKS,
    quick_trials=2 * _NETWORKS,
    batch=_NETWORKS,
    single_tolerance=None,
    losses=("hinge",),
    rounds=lambda k: {"kind": "any" if k % 3 == 2 else "orthogonal"},
    drops=(Drop("weights that tend to 0 (weights of 0.4 and 0.2 instead)", _large),),
    figure=_draw,
)
def saddle_to_saddle(rng: np.random.Generator, kind: str) -> Trials:
    """Networks from three tiny scales; one trial is one network, with all of its plateaus. On data of any kind the residuals
    of the saddles are those of the run."""
    data, w, z, found = _followed(rng, kind)
    gaps, lost = np.full(_NETWORKS, np.inf), np.ones(_NETWORKS, bool)
    worst = [Quote("", "", np.nan, np.nan, 1.0)] * _NETWORKS
    shown: dict[str, Any] = {}
    for b, (trained, residual) in enumerate(found):
        law = _law(data, TwoLayerReLU(w[b], z[b]), None if kind == "orthogonal" else residual)
        lost[b] = law is None
        if law is None:
            continue
        exits = _seen(law.time, len(trained))
        if len(exits) != len(trained):
            continue
        off = np.abs(trained / exits - 1)
        p = int(np.argmax(off))
        gaps[b] = off[p]
        worst[b] = Quote("exit / log(1/scale)", f"of plateau {p}", exits[p], trained[p], exits[p])
        if kind == "orthogonal" and not shown and len(trained) > 2:
            times, loss = _curves(data, w[b], z[b], 1.15 * float(law.time[-1]))
            ends = np.full((2, _WIDTH), np.nan)
            ends[:, : len(law.time)] = law.time, law.residual @ np.asarray(data.weights)
            shown = {"times": times[None], "loss": loss[None], "exits": ends[:1], "heights": ends[1:]}
    numbers = recorded(data, "hinge", TwoLayerReLU(w, z), scales=np.array(_SCALES))
    return Trials(gaps, numbers, lost, f"{kind} points", quote=worst.__getitem__, extra=shown)
