"""Neurons that slide along the edge of a point: never on orthogonally separable data (2.0), and the force on other data
(16.3).

First the motion of neurons on both sides of every event of a hinge flow, then retraced paths along edges.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind
from gradstarve.theorems._entry import COLOURS, SEPARABLE, Outcome
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    DIM,
    PER_CLASS,
    RECORDS,
    cone_data,
    networks,
    record,
    train_descent,
    train_exact,
)
from gradstarve.theorems.laws import hinge
from gradstarve.theorems.laws.hinge import AT_LAST, HINGE_LOSS, Moment, draw_problem, followed, forces, retraced
from gradstarve.theorems.laws.independence import SIGN_TOLERANCE, pushed_sign


def _leading(moment: Moment, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Before the event and after it, the motion of w_j.x_i in the direction of (2.0), relative to the sum of all pushes:
    [h, n] each; negative is against (2.0)."""
    x, y, q = (np.asarray(leaf, float) for leaf in (data.points, data.labels, data.weights))
    lengths = np.linalg.norm(x, axis=-1)
    reach = np.abs(moment.z)[:, None] * float(q @ lengths) * lengths
    sides = []
    for active, pulls in zip(moment.active, moment.pulls, strict=True):
        motion = moment.z[:, None] * (forces(active, pulls, data) @ x.T)
        sides.append(motion * pushed_sign(moment.z, y) / np.where(reach > 0, reach, 1))
    return sides[0], sides[1]


def _against(moments: list[Moment], data: Dataset) -> tuple[float, list[list[float]]]:
    """The largest motion against (2.0) on either side of any event, 1 if an edge is crossed in the wrong direction; and for
    every crossed edge the speed of approach, the speed after it, and whether the neuron becomes active."""
    worst, passed = 0.0, []
    for moment in moments:
        sides = _leading(moment, data)
        worst = max(worst, *(float(-side.min()) for side in sides))
        j, i = moment.neuron, moment.point
        if j >= 0:
            wakes = moment.kind == Kind.WAKES
            law = pushed_sign(moment.z, np.asarray(data.labels))[j, i]
            worst = max(worst, float(law != (1 if wakes else -1)))
            passed.append([float(sides[0][j, i]), float(sides[1][j, i]), float(wakes)])
    return worst, passed


def _slides(data: Dataset, network: TwoLayerReLU) -> list[tuple[float, int, Moment, float, float, str]]:
    """The networks with a neuron held on an edge: the certainty, the network, the event, the speeds to the edge on the side
    of arrival and away from it on the other side, and the event in words."""
    r = float(np.linalg.norm(np.asarray(data.points), axis=-1).max())
    run, found = train_exact(data, network, np.arange(1, RECORDS + 1) / (4 * r)), []
    for b in map(int, np.flatnonzero((run.events.kind == Kind.SLIDES).any(-1))):
        place = int(np.argmax(run.events.kind[b] == Kind.SLIDES))
        moments = retraced(data, network, run.events, b).moments
        last = moments[place]
        j, i = last.neuron, last.point
        other = last.active[0].copy()
        other[j, i] ^= True
        last = last._replace(active=(last.active[0], other), pulls=(last.pulls[0], last.pulls[0]))
        toward = (1 if other[j, i] else -1) * pushed_sign(last.z, np.asarray(data.labels))[j, i]
        before, after = (toward * float(side[j, i]) for side in _leading(last, data))
        found.append((-after if before > 0 else before, b, last, before, after, run.events.of(b)[place].split(": ")[1]))
    return found


def _acute(rng: np.random.Generator) -> Trials:
    """Classes at 60 degrees. The event where an edge slides, and the motion beside it."""
    for _ in range(10):
        data = cone_data(rng, opening=0.1, angle=np.pi / 3)
        # Small networks, for a short time: before margins reach 1 and slide.
        network = TwoLayerReLU(*networks(rng, low=0.05, high=0.1))
        found = _slides(data, network)
        if found:
            break
    else:
        raise RuntimeError("240 networks at an acute angle, and no edge holds a neuron")
    gap, b, last, before, _, told = max(found, key=lambda case: case[0])
    return compared(
        [min(-gap, 0)],
        0,
        1.0,
        lambda _: record(data, "hinge", network, b, neuron=last.neuron, point=last.point),
        quantity="the speed of w.x away from the edge, of all pushes,",
        when=f"on the other side, at t = {last.time:.4g},",
        setting=told,
        rest=f"by the law it is that at least, and where the neuron comes from w.x moves to the edge by {before:.3g}",
    )


def draw_passages(outcome: Outcome, ax: Any) -> None:
    """The speed of approach to every edge, and the speed after it."""
    before, after, wakes = outcome.extra["passed"].T
    for value, name, colour in ((1.0, "a neuron wakes", COLOURS[0]), (0.0, "a neuron falls asleep", COLOURS[1])):
        mine = wakes == value
        ax.plot(before[mine], after[mine], ".", markersize=4, color=colour, label=name)
    low = min(0.0, float(outcome.extra["passed"].min(initial=0))) - 0.02
    ax.axvspan(low, 0, color="0.85", linewidth=0)
    ax.axhspan(low, 0, color="0.85", linewidth=0, label="back to the edge: never")
    ax.set_xlim(low, None)
    ax.set_ylim(low, None)
    ax.set_xlabel("speed of w.x before its edge is passed (of all pushes)")
    ax.set_ylabel("speed after")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, markerscale=2)


@register(
    name="no-sliding-edges",
    equation="2.0",
    title="No neuron slides along the edge of a point",
    meaning="On separable data a neuron never gets stuck on the border of a point: it passes over it.",
    claim="at every event of a hinge flow, just before it and just after, every w_j.x_i moves in the direction "
    "sign(z_j y_i), or not at all: an edge w_j.x_i = 0 is passed, and never held",
    formula=(
        r"z_j\, y_i\, \frac{d(w_j \cdot x_i)}{dt} \ge 0 \quad \text{just before and just after every event, for all } i, j"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS),
    tolerance=SIGN_TOLERANCE,
    why_tolerance="two gradients: rounding of a few sums of 4 products, relative to the sum of their sizes",
    checked_with="the gradient in plain NumPy on both sides of every event, on weights moved there by matrix exponentials",
    default_trials=8 * BATCH,
    losses=("hinge",),
    drops=(Drop("orthogonally separable data (classes at an angle of 60 degrees instead)", _acute),),
    figure=draw_passages,
)
def no_sliding_edges(rng: np.random.Generator) -> Trials:
    """The motion of every neuron along every point on both sides of every event; one trial is one network."""
    data, network, _ = draw_problem(rng)
    run = train_exact(data, network, AT_LAST)
    each = [_against(retraced(data, network, run.events, b).moments, data) for b in range(BATCH)]
    gaps = np.where(followed(run), [gap for gap, _ in each], np.inf)  # a network not followed to the end may slide
    passed = np.reshape([edge for _, edges in each for edge in edges], (-1, 3))
    return Trials(gaps, recorded(data, "hinge", network, {"against_the_law": gaps}), group="hinge", extra={"passed": passed})


# Along edges (16.3).


def any_problem(rng: np.random.Generator) -> tuple[Dataset, TwoLayerReLU, float]:
    """Points of both labels about one direction, networks of any activity and signs, and the mean norm of the points."""
    points = rng.normal(size=DIM) + 0.8 * rng.normal(size=(2 * PER_CLASS, DIM))
    weights = rng.dirichlet(np.full(2 * PER_CLASS, 4.0)) + 0.02
    data = Dataset(points, np.tile([1.0, -1.0], PER_CLASS), weights / weights.sum())
    return data, TwoLayerReLU(*networks(rng, low=0.1, high=0.7)), float(np.linalg.norm(points, axis=-1).mean())


def _by_steps(rng: np.random.Generator) -> Trials:
    return hinge.by_steps(*any_problem(rng))


def _spans(run: Any, b: int, end: float) -> list[tuple[int, int, float, float]]:
    """The spans on which network b slides along edges: neuron, point, from, to."""
    began: dict[tuple[int, int], float] = {}
    found = []
    rows = (leaf[b][: run.events.count[b]].tolist() for leaf in run.events[:4])
    for time, kind, j, i in zip(*rows, strict=True):
        if (j, i) in began and kind in (Kind.WAKES, Kind.SLEEPS):
            found.append((j, i, began.pop((j, i)), time))
        if kind == Kind.SLIDES:
            began[j, i] = time
    return found + [(j, i, time, end) for (j, i), time in began.items()]


def _draw_slides(outcome: Outcome, ax: Any) -> None:
    """Margins of the network that slides longest: from event to event, by descent with a small step and a large one, and
    the stretches on which neurons slide."""
    points, labels, weights, w, z, (end,) = (outcome.extra[name][0] for name in ("x", "y", "q", "w", "z", "end"))
    data, network = Dataset(points, labels, weights), TwoLayerReLU(w, z)
    times = end * np.arange(1, 61) / 60
    run = hinge.exact_records(data, network, times)
    spans = [_spans(run, b, end) if ok else [] for b, ok in enumerate(followed(run))]
    b = int(np.argmax([sum(until - since for _, _, since, until in found) for found in spans]))
    exact = np.asarray(data.margins(run.recorded))[b]
    trained = []
    for every in (200, 1):
        size = np.full(BATCH, end / 20 / every)
        descent = train_descent(data, network, "hinge", size, 20 * every, every)
        trained.append(np.asarray(data.margins(descent.recorded))[b, 1:])
    slid = list(dict.fromkeys(i for _, i, _, _ in spans[b]))
    shown = (slid + [i for i in range(len(labels)) if i not in slid])[:4]
    marks = end * np.arange(1, 21) / 20
    for place, i in enumerate(shown):
        ax.plot(times, exact[:, i], color=COLOURS[place], linewidth=1.4, label=f"point {i}, from event to event")
    for place, i in enumerate(shown):
        ax.plot(marks, trained[0][:, i], "o", color=COLOURS[place], markersize=3.5, markerfacecolor="white",
                label=f"descent with a step of {end / 4000:.1g}" if place == 0 else None)
        ax.plot(marks, trained[1][:, i], color="red", linewidth=0.8, alpha=0.8, zorder=1,
                label=f"counterexample: a step of {end / 20:.1g}" if place == 0 else None)
    seen = np.concatenate([exact[:, shown], *(side[:, shown] for side in trained)])
    low, row = float(seen.min()), 0.06 * float(np.ptp(seen))
    for count, (_, i, since, until) in enumerate(spans[b], start=1):
        colour = COLOURS[shown.index(i)] if i in shown else "0.5"
        ax.plot([since, until], [low - count * row] * 2, color=colour, linewidth=4, solid_capstyle="butt",
                label="while a neuron slides along its edge" if count == 1 else None)
    ax.set_ylim(low - (len(spans[b]) + 1) * row, None)
    ax.set_xlim(0, end)
    ax.set_xlabel("time")
    ax.set_ylabel("margin")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


@register(
    name="sliding-edges",
    equation="12.1",
    title="A neuron slides along an edge by a share of the pull of its point",
    meaning="On general data a neuron can be held on the border of a point and slide along it; the law says how strongly "
    "the point pulls.",
    claim="with hinge loss on any data a neuron with y_i z_j < 0 may be held on the edge w_j.x_i = 0: its point then pulls "
    "with the share in [0, 1] that leaves no force across the edge, and the path from event to event is the gradient flow",
    formula=(
        r"\begin{split} c_j &= \sum_{w_j \cdot x_i > 0} q_i\, g_i\, y_i\, x_i "
        r"+ \sum_{i \in E_j} s_{ji}\, q_i\, g_i\, y_i\, x_i, \\ "
        r"c_j \cdot x_i &= 0 \quad \text{and} \quad s_{ji} \in [0, 1] \quad \text{for all } i \in E_j \end{split}"
    ),
    hypotheses=(HINGE_LOSS, "gradient flow"),
    tolerance=1e-9,
    why_tolerance="a path retraced by matrix exponentials, which agrees to 1e-12, and by SciPy at 1e-12 where margins slide",
    checked_with="matrix exponentials from event to event, SciPy's DOP853 where margins slide, and least squares for shares",
    default_trials=4 * BATCH,
    losses=("hinge",),
    drops=(Drop("gradient flow (descent with a finite step instead)", _by_steps),),
    figure=_draw_slides,
)
def sliding_edges(rng: np.random.Generator) -> Trials:
    """Networks on data of any kind along their events; one trial is one network. Undetermined networks are left out."""
    data, network, r = any_problem(rng)
    end = 10 / r
    run = hinge.exact_records(data, network, end * np.arange(1, RECORDS + 1) / RECORDS)
    there = np.flatnonzero(followed(run))
    lost = ~followed(run) & (run.events.kind == Kind.REPELS).any(-1)
    gaps = np.where(followed(run) | lost, hinge.off_the_path(data, run, there, end), np.inf)
    slides = (run.events.kind == Kind.SLIDES).any(-1)
    group = np.where(slides, "a neuron slides along an edge", "none does")
    x, y, q = (np.asarray(leaf) for leaf in (data.points, data.labels, data.weights))
    shown = {"x": x, "y": y, "q": q, "w": np.asarray(network.w), "z": np.asarray(network.z), "end": np.array([end])}
    extra = {name: value[None] for name, value in shown.items()}
    return Trials(gaps, recorded(data, "hinge", network, end=end), lost, group, extra=extra)
