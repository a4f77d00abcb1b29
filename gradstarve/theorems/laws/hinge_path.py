"""Hinge flow from event to event is the flow (12.1), and no neuron ever slides along an edge (2.0)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind
from gradstarve.theorems._drawing import COLOURS, draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import SEPARABLE, of_losses
from gradstarve.theorems._running import BY_FLOW, train_descent, train_exact, train_flow
from gradstarve.theorems._sampling import BATCH, RECORDS, cone_data, generator, generators, networks, record
from gradstarve.theorems.laws.hinge_retrace import Moment, forces, retraced
from gradstarve.theorems.laws.independence import SIGN_TOLERANCE, exclusive_networks, pushed_sign

HINGE_LOSS = of_losses("hinge loss", "hinge")
# Records of a run to its end, by which whoever comes to rest has.
AT_LAST = 1e9 * np.arange(1, RECORDS + 1)
_TOLERANCE = 1e-9


def exact_records(data: Dataset, network: TwoLayerReLU, times: Any) -> Any:
    """The law of (12.1): the flow from event to event, recorded at `times`."""
    return train_exact(data, network, times)


def followed(run: Any) -> np.ndarray:
    """Which networks of a run got to its last time, [b]."""
    return np.all(np.isfinite(np.asarray(run.recorded)), axis=(-1, -2))


def _off_the_path(data: Dataset, run: Any) -> np.ndarray:
    """How far the events are from those of a path retraced, and its end from the run's, [b]."""
    gaps = np.zeros(len(run.events.count))
    for b in range(len(gaps)):
        path = retraced(data, run.initial, run.events, b)
        size = max(np.abs(path.w).max(), np.abs(path.z).max(), 1e-300)
        moved = max(np.abs(path.w - np.asarray(run.final.w[b])).max(), np.abs(path.z - np.asarray(run.final.z[b])).max())
        gaps[b] = max(path.strain, moved / size)
    return gaps


def draw_problem(rng: np.random.Generator) -> tuple[Dataset, TwoLayerReLU, float]:
    """Cone data, networks of any activity and signs, and the mean norm of the points, by which times are measured."""
    data = cone_data(rng)
    return data, TwoLayerReLU(*networks(rng)), float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())


def check_path(key: Any, trials: int) -> Outcome:
    """Networks of any activity and signs: their records beside the integrator's, their events beside a path retraced."""
    tally = Tally(_TOLERANCE)
    for rng in generators(key, trials):
        data, network, r = draw_problem(rng)
        times = np.array([0.5, 2, 6, 15]) / r
        run = exact_records(data, network, times)
        flow, lost = train_flow(data, network, "hinge", times)
        mine, theirs = np.asarray(run.recorded), np.asarray(flow.recorded)
        apart = np.max(np.abs(mine - theirs) / (1 + np.abs(theirs)), axis=(-1, -2))
        whole = exact_records(data, network, AT_LAST)
        # The integrator gets nowhere where a margin slides; the path retraced does.
        held = (whole.events.kind == Kind.HELD).any(-1)
        gaps = np.maximum(np.where(lost & held, 0, apart), _off_the_path(data, whole))
        gaps = np.where(followed(whole), gaps, np.inf)
        told = np.where(held, "a margin slides", "no margin slides")
        for name in dict.fromkeys(told.tolist()):
            mine = np.flatnonzero(told == name)
            tally.add(
                gaps[mine],
                name,
                lambda i, d=data, n=network, t=times, m=mine: record(d, "hinge", n, int(m[i]), times=t),
                (lost & ~held)[mine],
            )
    return tally.outcome()


def path_without_flow(key: Any) -> Counterexample:
    """Drop "gradient flow": descent passes its events late or early by up to a step, and is off by as much."""
    rng = generator(key)
    data, _, r = draw_problem(rng)
    network = exclusive_networks(rng, data)
    steps, size, gaps, sides = 300, 0.02 / r, [], []
    for part, row in ((1, 1), (4, 4)):
        run = train_descent(data, network, "hinge", np.full(BATCH, size / part), steps, steps // 4)
        law = exact_records(data, network, size * steps / 4 * np.arange(1, RECORDS + 1))
        sides.append((np.asarray(run.recorded)[:, row], np.asarray(law.recorded)[:, 0]))
        gaps.append(np.abs(sides[-1][0] - sides[-1][1]))
    i, j = (int(n) for n in np.unravel_index(np.argmax(gaps[0]), gaps[0].shape))
    trained, law = sides[0]
    order = np.log(gaps[0].max() / gaps[1].max()) / np.log(4)
    return Counterexample.of(
        "gradient flow (descent with a finite step instead)",
        Quote(f"the logit of point {j}", f"after {steps // 4} steps of {size:.3g}", law=law[i, j], trained=trained[i, j]),
        _TOLERANCE,
        record(data, "hinge", network, i, step_size=size, steps=steps // 4),
        rest=f"with a quarter of the step no logit is off by more than {gaps[1].max():.3g}: order {order:.2f}",
    )


def _leading(moment: Moment, data: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Before the event and after it, how w_j.x_i moves in the direction of (2.0), beside all that points could push:
    [h, n] each; negative is against it."""
    x, y, q = (np.asarray(leaf, float) for leaf in (data.points, data.labels, data.weights))
    lengths = np.linalg.norm(x, axis=-1)
    reach = np.abs(moment.z)[:, None] * float(q @ lengths) * lengths
    sides = []
    for active, pulls in zip(moment.active, moment.pulls, strict=True):
        motion = moment.z[:, None] * (forces(active, pulls, data) @ x.T)
        sides.append(motion * pushed_sign(moment.z, y) / np.where(reach > 0, reach, 1))
    return sides[0], sides[1]


def _against(moments: list[Moment], data: Dataset) -> tuple[float, list[list[float]]]:
    """How far anything moves against (2.0) on either side of any event, 1 where an edge is passed the other way; and for
    every edge passed how fast it is approached, how fast it is left, and whether the neuron wakes."""
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


def check_no_sliding(key: Any, trials: int) -> Outcome:
    """The motion of every neuron along every point on both sides of every event; one trial is one network."""
    tally = Tally(SIGN_TOLERANCE)
    seen: list[list[float]] = []
    for rng in generators(key, trials):
        data, network, _ = draw_problem(rng)
        run = train_exact(data, network, AT_LAST)
        gaps = np.zeros(BATCH)
        for b in range(BATCH):
            gaps[b], passed = _against(retraced(data, network, run.events, b).moments, data)
            seen += passed
        gaps = np.where(followed(run), gaps, np.inf)  # whoever is not followed to the end may slide
        tally.add(gaps, "hinge", lambda i, d=data, n=network, g=gaps: record(d, "hinge", n, i, against_the_law=g[i]))
    return tally.outcome(passed=np.reshape(seen, (-1, 3)))


def _slides(data: Dataset, network: TwoLayerReLU) -> list[tuple[float, int, Moment, float, float, str]]:
    """The networks whose path is refused at an edge: how surely it slides, the network, the event, the speeds to the edge
    before it and away from it after, and the event in words."""
    r = float(np.linalg.norm(np.asarray(data.points), axis=-1).max())
    run, found = train_exact(data, network, np.arange(1, RECORDS + 1) / (4 * r)), []
    for b in map(int, np.flatnonzero(~followed(run))):
        last = retraced(data, network, run.events, b).moments[-1]
        j, i = last.neuron, last.point
        toward = (1 if last.kind == Kind.WAKES else -1) * pushed_sign(last.z, np.asarray(data.labels))[j, i]
        before, after = (toward * float(side[j, i]) for side in _leading(last, data))
        found.append((-after if before > 0 else before, b, last, before, after, run.events.of(b)[-1].split(": ")[1]))
    return found


def sliding_at_an_acute_angle(key: Any) -> Counterexample:
    """Drop orthogonal separability: classes at 60 degrees. The event where an edge slides, and the motion beside it."""
    rng = generator(key)
    for _ in range(10):
        data = cone_data(rng, opening=0.1, angle=np.pi / 3)
        # Small ones, and for a short time: before margins are at 1 and slide.
        network = TwoLayerReLU(*networks(rng, low=0.05, high=0.1))
        found = _slides(data, network)
        if found:
            break
    else:
        raise RuntimeError("240 networks at an acute angle, and no edge slides")
    gap, b, last, before, _, told = max(found, key=lambda case: case[0])
    quantity = "the speed of w.x away from the edge, of all pushes,"
    return Counterexample.of(
        "orthogonally separable data (classes at an angle of 60 degrees instead)",
        Quote(quantity, f"just after t = {last.time:.4g}", law=0, trained=min(-gap, 0)),
        SIGN_TOLERANCE,
        record(data, "hinge", network, b, neuron=last.neuron, point=last.point),
        told,
        f"by the law it is that at least, and before it w.x moves to the edge by {before:.3g}: the neuron slides along it, "
        "and the path is refused",
    )


def draw_passages(outcome: Outcome, ax: Any) -> None:
    """How fast every edge is approached, and how fast it is left."""
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


HINGE_EXACT = Theorem(
    name="hinge-exact",
    equation="12.1",
    title="From event to event the hinge flow is a closed form",
    claim="with hinge loss a full network moves along a cosh and a sinh between events, edges passed and margins at 1, and "
    "the path from one to the next is the gradient flow",
    formula=(
        r"\begin{split} w_j(t + \tau) &= w_j + \left( \alpha_j\, (\cosh(k_j \tau) - 1) + z_j\, \sinh(k_j \tau) \right) "
        r"\frac{c_j}{k_j}, \\ "
        r"z_j(t + \tau) &= z_j\, \cosh(k_j \tau) + \alpha_j\, \sinh(k_j \tau), \\ "
        r"c_j &= \sum_{w_j \cdot x_i > 0,\; m_i < 1} q_i\, y_i\, x_i, \qquad k_j = \left| c_j \right|, \qquad "
        r"\alpha_j = w_j \cdot c_j / k_j \end{split}"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, "gradient flow"),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "logits beside the integrator's, whose local error is 1e-12 and 10 to 100 times that at each kink; events beside "
        "a path retraced by matrix exponentials, which agree to 1e-12"
    ),
    checked_with=f"{BY_FLOW}; matrix exponentials from event to event, and SciPy's DOP853 where margins slide",
    default_trials=4 * BATCH,
    check=check_path,
    necessity=(path_without_flow,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "gap between the event path and the flow (logits, margins, edges)"),
)

NO_SLIDING = Theorem(
    name="no-sliding-edges",
    equation="2.0",
    title="No neuron slides along the edge of a point",
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
    check=check_no_sliding,
    necessity=(sliding_at_an_acute_angle,),
    figure=draw_passages,
)
