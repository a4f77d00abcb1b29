"""The last direction: every surviving neuron turns to the maximum-margin direction of its own class (13.1)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import EXCLUSIVE, RIGHT_SIGN, SEPARABLE, of_losses
from gradstarve.theorems._late import BY_LATE, train_late
from gradstarve.theorems._sampling import BATCH, WIDTH, cone_data, generator, generators, record
from gradstarve.theorems.laws.independence import exclusive_networks

_TOLERANCE = 0.5
_CLOSE = 0.02


def _clear_cut(rng: np.random.Generator, wide: bool) -> Dataset:
    """Cone data whose supports have shown themselves by t = 1e20; `wide`, so that a class has two of them.

    A point at 1.02 margins pulls until then; and two supports at a small angle are told apart as late.
    """
    while True:
        data = cone_data(rng, rng.uniform(0.4, 0.7), norms=(0.8, 1.25)) if wide else cone_data(rng)
        points, labels = np.asarray(data.points), np.asarray(data.labels)
        if all(_is_clear(points[labels == label]) for label in (1, -1)):
            return data


def _is_clear(points: np.ndarray) -> bool:
    """Both points of a class support the margin with a share above 0.15 and are 30 degrees apart, or one of them is 50 %
    beyond it. In plain geometry: the maximum margin is the distance of the segment between the two points from 0, and their
    shares are those of the nearest point of the segment."""
    first, second = points
    across = second - first
    share = np.clip(-(first @ across) / (across @ across), 0, 1)  # of the second point
    nearest = first + share * across
    if share in (0, 1):
        other = first if share else second
        return bool(other @ nearest > 1.5 * (nearest @ nearest))
    cosine = first @ second / np.sqrt((first @ first) * (second @ second))
    return bool(min(share, 1 - share) > 0.15 and cosine < np.cos(np.deg2rad(30)))


def _turning(data: Dataset, network: TwoLayerReLU, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1 - cos to the limit of its class, smallest margin of its class): [b, records, h] each; who survives: [b, h].

    Survivors are active on all points of one class and none of the other at all records, with its sign, and have
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
        lives |= mine.all(1)
    return gap, reached, lives


def _growth(gap: np.ndarray, reached: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """By how much (1 - cos) times the margin grew from the first record to the last, for the neuron of a class that is
    farthest off: [b]. (While a class turns, one that was by chance ahead may fall behind.) `mine`: [b, h].

    Relative to where it was, plus `_CLOSE` for those that were there by chance and have yet to find their own constant.
    """
    product = np.max(np.where(mine[:, None], gap * reached, 0), axis=-1)
    return np.maximum((product[:, -1] - product[:, 0]) / (product[:, 0] + _CLOSE), 0)


def check_direction(key: Any, trials: int) -> Outcome:
    """Cone data, exclusive neurons of the right sign, margins from 15 to 50; one trial is one network."""
    tally = Tally(_TOLERANCE)
    seen: list[np.ndarray] = []
    for k, rng in enumerate(generators(key, trials)):
        data = _clear_cut(rng, wide=k % 2 == 0)
        network = exclusive_networks(rng, data, high=0.2)
        gap, reached, lives = _turning(data, network, "cross-entropy")
        lives &= reached[:, 0] > 8
        sign = np.sign(np.asarray(network.z))
        tally.add(
            np.maximum(*(_growth(gap, reached, lives & (sign == label)) for label in (1, -1))),
            "one support or two" if k % 2 else "two supports",
            lambda i, d=data, n=network, g=gap, m=reached: record(
                d, "cross-entropy", n, i, one_minus_cos_by_law=g[i], margins=m[i]
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
    first = np.asarray(kept.w)[:, 1:, 0]
    gap = 1 - first @ limit / np.linalg.norm(first, axis=-1)
    margin = (np.asarray(run.recorded)[:, 1:] * labels)[..., labels == 1].min(-1)
    growth = _growth(gap[..., None], margin[..., None], np.ones((BATCH, 1), bool))
    i = int(np.argmax(np.where(margin[:, 0] > 8, growth, -np.inf)))
    # That of the first record or less, the law says; a unit as in `_growth`.
    before, after = (float(gap[i, k] * margin[i, k]) for k in (0, -1))
    when = f"while the margin of class + went from {margin[i, 0]:.3g} to {margin[i, -1]:.3g},"
    return Counterexample.of(
        "orthogonally separable data (classes at 60 degrees instead, neurons that see both)",
        Quote("(1 - cos) times the margin, of a neuron at the end,", when, before, after, before + _CLOSE),
        _TOLERANCE,
        record(data, "cross-entropy", TwoLayerReLU(w, z), i),
        rest=f"the neuron is {np.rad2deg(np.arccos(1 - gap[i, -1])):.4g} degrees off the direction of (13.1)",
    )


def draw_direction(outcome: Outcome, ax: Any) -> None:
    """1 - cos of every surviving neuron against the margin of its class, and the slope of 1/log t."""
    margin, gap = outcome.extra["points"].T
    there = gap > 0
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
    claim="1 - cos between the surviving neurons and that direction falls like 1/log t or faster, whatever the points' "
    "weights",
    formula=(
        r"1 - \frac{w_j \cdot v}{\left| w_j \right|} = O \left( \frac{1}{\log(t)} \right), \qquad "
        r"v \text{ attains } \max\limits_{\left| v \right| = 1} \, \min\limits_{i \in \text{class}} v \cdot x_i"
    ),
    hypotheses=(
        SEPARABLE,
        of_losses("cross-entropy", "cross-entropy"),
        EXCLUSIVE,
        RIGHT_SIGN,
        "to be seen by t = 1e20: other points 50 % beyond the margin, supports 30 degrees apart",
    ),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "(1 - cos) times the margin, which grows like log t, would grow by the ratio of the margins, 2.5 and more, if the "
        "limit were another one; on its way to a constant it was seen to grow by less than 0.2 in 4000 networks"
    ),
    checked_with=BY_LATE,
    default_trials=3 * BATCH,
    quick_trials=3 * BATCH,
    check=check_direction,
    necessity=(direction_without_separability,),
    figure=draw_direction,
)
