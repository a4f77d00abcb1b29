"""The last direction: every surviving neuron turns to the maximum-margin direction of its own class (13.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems.drawing import COLOURS
from gradstarve.theorems.entry import Counterexample, Outcome, Tally, Theorem
from gradstarve.theorems.hypotheses import SEPARABLE, of_losses
from gradstarve.theorems.independence import exclusive_networks
from gradstarve.theorems.late import BY_LATE, train_late
from gradstarve.theorems.sampling import BATCH, WIDTH, cone_data, generator, generators, networks, record

_TOLERANCE = 0.1
_NOTHING = 1e-16  # 1 - cos of a neuron that has arrived, to rounding


def _clear_cut(rng: np.random.Generator) -> Dataset:
    """Cone data whose supports are told from the rest by t = 1e20: a point at 1.02 margins pulls until then."""
    while True:
        data = cone_data(rng)
        points, labels = np.asarray(data.points), np.asarray(data.labels)
        limits = [theory.max_margin_direction(points[labels == label]) for label in (1, -1)]
        shares = np.concatenate([np.asarray(limit.coefficients * limit.margin**2) for limit in limits])
        margins = np.concatenate([points[labels == y] @ limits[y < 0].direction / limits[y < 0].margin for y in (1, -1)])
        if ((shares > 0.15) | (margins > 1.5)).all():
            return data


def _turning(data: Dataset, network: TwoLayerReLU, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1 - cos to the limit of its class, smallest margin of its class): [b, records, h] each; who survives: [b, h].

    Survivors are active on all points of one class and none of the other at the last two records, with its sign, and have
    outgrown their start: |w|^2 - z^2, which never changes (1.3), is within 5 % of z^2.
    """
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    run, _ = train_late(data, network, loss, 15 / float(np.max(np.linalg.norm(points, axis=-1))))
    kept: Any = run.networks
    w, z = np.asarray(kept.w)[:, 1:], np.asarray(kept.z)[:, 1:]
    margins = np.asarray(run.recorded)[:, 1:] * labels
    size = np.linalg.norm(w, axis=-1, keepdims=True)
    unit = w / np.where(size > 0, size, 1)
    active = w @ points.T > 0
    gap, reached, lives = np.zeros(z.shape), np.ones(z.shape), np.zeros(network.z.shape, bool)
    for label in (1, -1):
        limit = np.asarray(theory.max_margin_direction(points[labels == label]).direction)
        grown = np.abs(size[..., 0] ** 2 - z**2) < 0.05 * z**2
        mine = (np.sign(z) == label) & (active == (labels == label)).all(-1) & grown
        # 1 - cos from the difference of unit vectors, which keeps its digits.
        gap = np.where(mine, np.sum((unit - limit) ** 2, axis=-1) / 2, gap)
        reached = np.where(mine, margins[..., labels == label].min(-1)[..., None], reached)
        lives |= mine[:, -2:].all(1)
    return gap, reached, lives


def _growth(gap: np.ndarray, reached: np.ndarray) -> np.ndarray:
    """By how much (1 - cos) times the margin grew between the last two records, relative: [b, h]."""
    product = np.maximum(gap, _NOTHING) * reached
    return np.maximum(product[:, -1] / product[:, -2] - 1, 0)


def check_direction(key: Any, trials: int) -> Outcome:
    """Cone data, exclusive neurons of the right sign or any neurons; margins near 35, then near 50. A trial: a network."""
    tally = Tally(_TOLERANCE)
    seen: list[np.ndarray] = []
    for k, rng in enumerate(generators(key, trials)):
        data = _clear_cut(rng)
        network = TwoLayerReLU(*networks(rng, high=0.2)) if k % 3 == 2 else exclusive_networks(rng, data, high=0.2)
        gap, reached, lives = _turning(data, network, "cross-entropy")
        lives &= reached[:, -2] > 10
        tally.add(
            np.where(lives, _growth(gap, reached), 0).max(-1),
            "any neurons" if k % 3 == 2 else "exclusive neurons",
            lambda i, d=data, n=network, g=gap, m=reached: record(
                d, "cross-entropy", n, i, one_minus_cos=g[i], margins=m[i]
            ),
            ~lives.any(-1),
        )
        seen.append(np.stack([reached, gap], axis=-1)[np.broadcast_to(lives[:, None], gap.shape)])
    return tally.outcome(points=np.concatenate(seen))


def direction_without_separability(key: Any) -> Counterexample:
    """Drop orthogonal separability: classes at 60 degrees, and neurons active on all points of both."""
    rng = generator(key)
    data = cone_data(rng, opening=0.1, angle=np.pi / 3)
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    w = rng.uniform(0.05, 0.3, (BATCH, WIDTH, labels.size)) @ points
    z = np.linalg.norm(w, axis=-1) * rng.choice([-1, 1], (BATCH, WIDTH))
    z[:, :2] = np.abs(z[:, :2]) * [1, -1]  # both classes are learnt
    run, _ = train_late(data, TwoLayerReLU(w, z), "cross-entropy", 15 / float(np.max(np.linalg.norm(points, axis=-1))))
    limit = np.asarray(theory.max_margin_direction(points[labels == 1]).direction)
    kept: Any = run.networks
    first = np.asarray(kept.w)[:, -2:, 0]
    gap = 1 - first @ limit / np.linalg.norm(first, axis=-1)
    margin = (np.asarray(run.recorded)[:, -2:] * labels)[..., labels == 1].min(-1)
    growth = _growth(gap[..., None], margin[..., None])[:, 0]
    i = int(np.argmax(np.where(margin[:, 0] > 10, growth, -np.inf)))
    return Counterexample(
        "orthogonally separable data (classes at 60 degrees instead, neurons that see both)",
        f"while the margin of class + went from {margin[i, 0]:.3g} to {margin[i, 1]:.3g}, a neuron of its sign went from "
        f"{np.rad2deg(np.arccos(1 - gap[i, 0])):.4g} to {np.rad2deg(np.arccos(1 - gap[i, 1])):.4g} degrees off the "
        "maximum-margin direction of class +",
        float(growth[i]),
        _TOLERANCE,
        record(data, "cross-entropy", TwoLayerReLU(w, z), i),
    )


def draw_direction(outcome: Outcome, ax: Any) -> None:
    """1 - cos of every surviving neuron against the margin of its class, and the slope of 1/log t."""
    margin, gap = outcome.extra["points"].T
    there = gap > _NOTHING
    ax.loglog(margin[there], gap[there], ".", markersize=2, color=COLOURS[0], label="neurons (trained)")
    grid = np.geomspace(8, 60, 20)
    ax.loglog(grid, 0.3 / grid, color="black", linestyle="--", label="slope of 1/log t")
    ax.set_ylim(1e-7, 1)
    ax.set_xlabel("margin of the class, grows like log t")
    ax.set_ylabel("1 − cos(w, maximum-margin direction)")
    ax.legend(frameon=False, fontsize=8, loc="lower left", markerscale=4)


DIRECTION = Theorem(
    name="last-direction",
    equation="13.1",
    title="Neurons turn to the maximum-margin direction of their class",
    claim="1 - cos between a surviving neuron and that direction falls like 1/log t or faster, whatever the points' weights",
    hypotheses=(
        SEPARABLE,
        of_losses("cross-entropy", "cross-entropy"),
        "the class is learnt, and the neuron sees it to the end",
        "no point is within 50 % of the margin without supporting it (it would, but later than t = 1e20)",
    ),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "(1 - cos) times the margin, which grows like log t, would grow by the ratio of the margins, 1.3 to 1.5, if the "
        "limit were another one; corrections of relative order 1/log t let it grow by a few percent before it stands still"
    ),
    checked_with=BY_LATE,
    default_trials=3 * BATCH,
    quick_trials=3 * BATCH,
    check=check_direction,
    necessity=(direction_without_separability,),
    figure=draw_direction,
)
