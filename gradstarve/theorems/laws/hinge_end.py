"""Where a hinge flow on orthogonally separable data comes to rest: every point is learnt, or seen by no neuron (12.1).

No motion is left only where every neuron has z_j c_j = 0 and w_j.c_j = 0. On orthogonally separable data |c_j|^2 is at least
the sum of (q_i |x_i|)^2 over the points below a margin of 1 that neuron j is active on, since pulls never oppose each other
(2.0). So c_j = 0 says that there is no such point; and c_j != 0 with z_j = 0 = w_j.c_j is the saddle, where neurons are
shared by both classes and which no generic start leads to. A point that nobody sees has f = 0 for ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import OFF_MANIFOLD, SEPARABLE
from gradstarve.theorems._running import descent_gradient, train_exact
from gradstarve.theorems._sampling import BATCH, DIM, PER_CLASS, RECORDS, WIDTH, generator, generators, record
from gradstarve.theorems.laws.hinge import axes_data
from gradstarve.theorems.laws.hinge_path import AT_LAST, HINGE_LOSS, draw_problem, followed

_TOLERANCE = 1e-9


def short_of_learnt(margins: np.ndarray) -> np.ndarray:
    """By how much a margin is short of being learnt."""
    return np.maximum(1 - margins, 0)


def _seen(data: Dataset, network: TwoLayerReLU) -> np.ndarray:
    """The largest cosine between a point and a neuron that does not rest at w = 0, [b, n]; -1 without any."""
    x, w = np.asarray(data.points), np.asarray(network.w)
    size = np.linalg.norm(w, axis=-1)[..., None] * np.linalg.norm(x, axis=-1)
    return np.where(size > 0, w @ x.T / np.where(size > 0, size, 1), -1).max(axis=-2)


def unfinished(data: Dataset, network: TwoLayerReLU) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How short of learnt each point is that a neuron is active on, its margin, and how well it is seen: [b, n] each."""
    seen = _seen(data, network)
    margins = np.asarray(network(data.points)) * np.asarray(data.labels)
    # Less than this is a neuron that fell asleep there.
    return np.where(seen > np.sqrt(np.finfo(margins.dtype).eps), short_of_learnt(margins), 0), margins, seen


def check_end(key: Any, trials: int) -> Outcome:
    """The last weights of networks of any activity and signs; one trial is one network."""
    tally = Tally(_TOLERANCE)
    points = []
    for rng in generators(key, trials):
        data, network, _ = draw_problem(rng)
        run = train_exact(data, network, AT_LAST)
        final: Any = run.final
        left, margins, seen = unfinished(data, final)
        gaps = np.where(followed(run) & np.asarray(run.settled), left.max(-1), np.inf)
        tally.add(gaps, "hinge", lambda i, d=data, n=network, m=margins: record(d, "hinge", n, i, margins=m[i]))
        points.append(np.stack([margins, seen], axis=-1)[followed(run)].reshape(-1, 2))
    return tally.outcome(points=np.concatenate(points))


def _rests(data: Dataset, network: TwoLayerReLU, dropped: str, told: str) -> Counterexample:
    """A start from which nothing ever moves."""
    left, margins, _ = unfinished(data, network)
    pull = descent_gradient(data, network, "hinge")
    still = not any(np.any(np.asarray(leaf)) for leaf in (pull.w, pull.z))
    i = int(np.argmax(left[0]))
    # A start that moves is not the end.
    quote = Quote(f"the margin of point {i}", "for ever", law=1, trained=margins[0, i] if still else 1)
    told, numbers = f"{told}; its gradient is {'exactly 0' if still else 'not 0'}", record(data, "hinge", network, 0)
    return Counterexample.of(dropped, quote, _TOLERANCE, numbers, told, "by the law it is that at least")


def at_the_saddle(key: Any) -> Counterexample:
    """Drop "no start at the saddle": z = 0 and both classes pull equally hard."""
    rng = generator(key)
    data, norms = axes_data(rng)
    size = 2.0 ** rng.integers(-3, 0)
    w = np.zeros((BATCH, WIDTH, DIM))
    w[:, 0, :2] = size * np.array([norms[1], norms[0]])
    network = TwoLayerReLU(w, np.zeros((BATCH, WIDTH)))
    return _rests(
        data,
        network,
        "no start at a saddle (z = 0 and w.c = 0 instead)",
        f"a neuron with w.x_+ = w.x_- = {size * norms[0] * norms[1]:.3g} and z = 0 is on both classes",
    )


def opposite_labels_in_one_place(key: Any) -> Counterexample:
    """Drop orthogonal separability altogether: points of both labels on one ray."""
    rng = generator(key)
    points = np.repeat(np.eye(1, DIM) * 2.0 ** rng.integers(-1, 2), 2 * PER_CLASS, axis=0)
    data = Dataset(points, np.repeat([1.0, -1.0], PER_CLASS), np.full(2 * PER_CLASS, 0.25))
    w = np.abs(rng.normal(size=(BATCH, WIDTH, DIM))) * 0.1
    network = TwoLayerReLU(w, 0.1 * rng.normal(size=(BATCH, WIDTH)))
    return _rests(
        data,
        network,
        "orthogonally separable data (the same point with both labels instead)",
        "the pulls of points 0 and 2 on every neuron cancel",
    )


def stopped_early(key: Any) -> Counterexample:
    """Drop "at the end": as long as a point that is seen is below 1 the flow is not over."""
    rng = generator(key)
    data, network, r = draw_problem(rng)
    run = train_exact(data, network, np.arange(1, RECORDS + 1) / (4 * r))
    final: Any = run.final
    left, margins, _ = unfinished(data, final)
    b, i = (int(v) for v in np.unravel_index(np.argmax(left), left.shape))
    return Counterexample.of(
        "the end of the flow (stopped at a finite time instead)",
        Quote(f"the margin of point {i}", f"at t = {run.grid[-1]:.3g}", law=1, trained=margins[b, i]),
        _TOLERANCE,
        record(data, "hinge", network, b),
        rest="by the law it is that at least, as a neuron is active on it; this is so in "
        f"{int((left > _TOLERANCE).any(-1).sum())} of {BATCH} networks",
    )


def draw_end(outcome: Outcome, ax: Any) -> None:
    """The last margin of every point over how well it is seen."""
    margins, seen = outcome.extra["points"].T
    learnt = margins > 0.5
    ax.plot(seen[learnt], margins[learnt], ".", markersize=3, color=COLOURS[0], label="learnt")
    ax.plot(seen[~learnt], margins[~learnt], ".", markersize=3, color=COLOURS[1], label="seen by no neuron")
    ax.axhline(1, color="black", linestyle="--", linewidth=1, label="margin 1")
    ax.set_xlim(-1.05, 1.05)
    ax.set_yscale("symlog", linthresh=1)
    high = max(10.0, float(margins.max(initial=1)))
    ticks = [0, 1, *(10.0**k for k in range(1, int(np.ceil(np.log10(high)))))]
    ax.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.set_ylim(min(-0.3, float(margins.min(initial=0))), None)
    ax.set_xlabel("largest cosine between the point and a neuron")
    ax.set_ylabel("margin at the end")
    ax.legend(frameon=False, fontsize=8, loc="upper left", markerscale=3)


HINGE_END = Theorem(
    name="hinge-end",
    equation="12.1",
    title="At the end of a hinge flow every point is learnt or dead",
    claim="where a hinge flow comes to rest, every margin is at least 1, or no neuron is active on its point: then f = 0 "
    "there, and nothing is left that could wake one",
    formula=(
        r"\text{at the end, for every } i: \quad m_i \ge 1 \quad \text{or} \quad w_j \cdot x_i \le 0 \;\text{ for all } j"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, OFF_MANIFOLD, "no start at a saddle", "the end of the flow"),
    tolerance=_TOLERANCE,
    why_tolerance="a margin of the last weights in plain NumPy: rounding of a path of a dozen events",
    checked_with="plain NumPy on the last weights of simulate_hinge_exact",
    default_trials=8 * BATCH,
    check=check_end,
    necessity=(at_the_saddle, opposite_labels_in_one_place, stopped_early),
    figure=draw_end,
)
