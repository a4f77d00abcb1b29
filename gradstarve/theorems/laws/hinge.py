"""The events of a hinge flow on orthogonally separable data, counted, and where it comes to rest (12.1).

Write p_i = y_i w_j.x_i. By (2.0) all p_i of a neuron rise while z_j > 0 and fall while z_j < 0, and dz_j/dt = A - B with A
the pull of the points of class + it is active on and B that of class -.

*Neurons.* With z_j > 0 and no point of class - active, B = 0: z_j and all p_i rise, so for ever after the neuron wakes on
points of class + and passes no other edge; it is at home. With z_j < 0 and class + alone active z_j rises and the p_i fall:
points of class + fall asleep, each once, until the neuron is dead, or has z_j > 0 and is at home (and may wake on them
again), or wakes on class - and is *shared*. A shared neuron that leaves one class does so with the sign of the other: it is
at home there. So a neuron is shared during one span of time at most, and passes no edge more than twice outside of it.

*Margins.* dm_i/dt has a term y_i (dz_j/dt) w_j.x_i that is negative for shared neurons alone: without them a margin never
falls, and reaches 1 once.

*Shared neurons.* Let G = |grad L|^2 = sum_ik u_i u_k K_ik, where K_ik = grad m_i . grad m_k and u_i = q_i g_i. A margin that
passes 1 upwards without being held has dm_i/dt = (K u)_i >= 0 also with u_i = 0, one that passes downwards <= 0 also with
u_i = q_i: either way G falls by q_i^2 K_ii or more. And where m_i = 1, K_ii = sum_j (z_j^2 |x_i|^2 + (w_j.x_i)^2), the sum
over the neurons active on x_i, is >= 2 |x_i| sum_j |z_j| w_j.x_i >= 2 |x_i|. Between events dG/dt <= 2 R G with
R = sum_i q_i |x_i|; an edge passed to sleep lowers G, one to wake raises it by at most R^2 z_j^2. Were there infinitely many
passages of margins before a time t*, then z_j would change sign infinitely often for some j (else edges are passed
finitely often, and G can not keep falling), so z_j = O(t* - t) and the z_j^2 at its wakings sum to O((t* - t)^2), which can
not make up for the falls. So passages of margins are finitely many in finite time; and from one to the next z_j is convex
where positive and concave where negative, so it changes sign at most once and no edge is passed more than twice. (Margins
that are held, whose u_i changes continuously, are outside of this argument: for them the count is a measurement.)

*Rest.* While a neuron at home with z_j is active on a point below 1, G >= (z_j q_i |x_i|)^2, and the integral of G over all
times is at most L(0): all points that neurons at home see are learnt in finite time.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import OFF_MANIFOLD, SEPARABLE
from gradstarve.theorems._running import train_exact
from gradstarve.theorems._sampling import (
    BATCH,
    DIM,
    PER_CLASS,
    RECORDS,
    WIDTH,
    cone_data,
    generator,
    generators,
    networks,
    record,
)
from gradstarve.theorems.laws.hinge_path import AT_LAST, HINGE_LOSS, draw_problem, followed
from gradstarve.theorems.laws.hinge_retrace import Path, retraced, slopes
from gradstarve.theorems.laws.independence import exclusive_networks

_TOLERANCE = 1e-9
_MARGINS = (Kind.LEARNT, Kind.FORGOTTEN)


def least_fall(weight: Any, norm: Any) -> Any:
    """2 q^2 |x|: by how much |grad L|^2 falls at least where the margin of a point passes 1 without being held."""
    return 2 * weight**2 * norm


def most_events(active: np.ndarray, z: np.ndarray, labels: np.ndarray, live: np.ndarray) -> int:
    """The largest number of events of a network no neuron of which is ever shared: `active` [h, n], `z` [h] and which
    margins are below 1, `live` [n], at the start."""
    total = int(live.sum())
    for on, read_out in zip(active, z, strict=True):
        if on.any():
            mine = labels == labels[np.argmax(on)]
            asleep = int((mine & ~on).sum())
            total += asleep if read_out * labels[np.argmax(on)] >= 0 else asleep + 2 * int(on.sum())
    return total


def _classes(active: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which neurons are active on class + and which on class -, [h] each."""
    return np.any(active[:, labels > 0], axis=-1), np.any(active[:, labels < 0], axis=-1)


def _excess(path: Path, data: Dataset, network: TwoLayerReLU, b: int) -> int:
    """By how many events a path is beyond what is allowed."""
    x, labels = np.asarray(data.points), np.asarray(data.labels)
    w, z = np.asarray(network.w[b]), np.asarray(network.z[b])
    first = w @ x.T > 0
    live = labels * (z @ np.where(first, w @ x.T, 0)) < 1
    spans = (plus_minus := np.logical_and(*_classes(first, labels))).astype(int)
    home, beyond, since = np.zeros(len(z)), 0, {}
    signs, changes, held = np.sign(z), np.zeros(len(z), int), False
    for moment in path.moments:
        j, i = moment.neuron, moment.point
        if j >= 0:
            # At home: the own class wakes, and nothing else happens.
            beyond += bool(home[j]) and not (moment.kind == Kind.WAKES and labels[i] == home[j])
        elif moment.kind in (Kind.FORGOTTEN, Kind.HELD):
            beyond += not plus_minus[moment.active[0][:, i]].any()
        now = np.sign(moment.z)
        changes += (now != signs) & (now != 0) & (signs != 0)
        signs = np.where(now != 0, now, signs)
        if j >= 0:
            since[j, i] = since.get((j, i), 0) + 1
        else:
            if not held:
                beyond += sum(max(count - 2, 0) for count in since.values()) + int(np.maximum(changes - 1, 0).sum())
            since, changes = {}, np.zeros(len(z), int)
        held = moment.held
        plus, minus = _classes(moment.active[1], labels)
        spans += (plus & minus) & ~plus_minus
        plus_minus = plus & minus
        home = np.where(plus & ~minus & (moment.z > 0), 1, np.where(minus & ~plus & (moment.z < 0), -1, home))
    beyond += int(np.maximum(spans - 1, 0).sum())
    if not spans.any():
        beyond += max(len(path.moments) - most_events(first, z, labels, live), 0)
    return beyond


def _falls(path: Path, data: Dataset) -> np.ndarray:
    """The least fall of |grad L|^2 at each margin passed without being held, and the fall found: [count, 2]."""
    norms, weights, found = np.linalg.norm(np.asarray(data.points), axis=-1), np.asarray(data.weights), []
    slides = {moment.time for moment in path.moments if moment.kind == Kind.HELD}
    for moment in path.moments:
        if moment.kind in _MARGINS and not moment.held and moment.time not in slides:
            each = slopes(moment.w, moment.z, moment.active[0], data)
            before, after = (float(np.sum((u @ each) ** 2)) for u in moment.pulls)
            found.append([least_fall(weights[moment.point], norms[moment.point]), before - after])
    return np.reshape(found, (-1, 2))


def check_events(key: Any, trials: int) -> Outcome:
    """Every event of networks of exclusive neurons of the right sign, and of any neurons; one trial is one network."""
    tally = Tally(_TOLERANCE)
    falls, counts = [], {}
    for k, rng in enumerate(generators(key, trials)):
        data, network, _ = draw_problem(rng)
        group = "exclusive neurons of the right sign" if k % 2 == 0 else "any neurons"
        if k % 2 == 0:
            network = exclusive_networks(rng, data)
        run = train_exact(data, network, AT_LAST)
        gaps = np.zeros(BATCH)
        for b in range(BATCH):
            path = retraced(data, network, run.events, b)
            fall = _falls(path, data)
            falls.append(fall)
            gaps[b] = max(_excess(path, data, network, b), float(np.max(1 - fall[:, 1] / fall[:, 0], initial=0)))
        gaps = np.where(followed(run) & np.asarray(run.settled), gaps, np.inf)
        counts[group] = max(counts.get(group, 0), int(np.max(run.events.count)))
        tally.add(
            gaps, group, lambda i, d=data, n=network, r=run: record(d, "hinge", n, i, events=int(r.events.count[i]))
        )
    return tally.outcome(falls=np.concatenate(falls), most=counts)


def axes_data(rng: np.random.Generator) -> tuple[Dataset, np.ndarray]:
    """Class + along e_1 and class - along e_2, one point twice as long as the other, and the shorter norms [2], class -
    four times as long. Norms and weights are powers of two, so that nothing is rounded."""
    norms = 2.0 ** rng.integers(-1, 2) * np.array([1.0, 4.0])
    points = np.repeat(norms[:, None] * np.eye(2, DIM), PER_CLASS, axis=0) * np.tile([1.0, 2.0], 2)[:, None]
    return Dataset(points, np.repeat([1.0, -1.0], PER_CLASS), np.full(2 * PER_CLASS, 0.25)), norms


def on_the_manifold(key: Any) -> Counterexample:
    """Drop "off the stable manifold": neurons with z = -a, which come nearer to the origin for ever."""
    rng = generator(key)
    data, norms = axes_data(rng)
    a = 2.0 ** rng.integers(-3, 0, (BATCH, WIDTH))
    network = TwoLayerReLU(a[..., None] * np.eye(DIM)[0], -a)
    run = train_exact(data, network, np.arange(1, RECORDS + 1) / norms[0])
    margin = np.asarray(run.recorded)[0, :, 0]
    settled = int(np.asarray(run.settled).sum()) if run.events.count.max() == 0 else BATCH
    return Counterexample.of(
        "no neuron on the stable manifold (all of them have z = -a instead)",
        Quote("the number of networks that come to rest", "with no event to come", law=BATCH, trained=settled),
        _TOLERANCE,
        record(data, "hinge", network, 0),
        rest=f"a margin goes from {float(network[0](data.points)[0]):.3g} to {margin[0]:.3g}, {margin[1]:.3g} and "
        f"{margin[3]:.3g} at t = {run.grid[0]:.3g}, {run.grid[1]:.3g} and {run.grid[3]:.3g}, towards 0 and for ever",
    )


def passages_at_an_acute_angle(key: Any) -> Counterexample:
    """Drop orthogonal separability: classes at 60 degrees, where descent passes one edge back and forth with every step."""
    rng = generator(key)
    data = cone_data(rng, opening=0.1, angle=np.pi / 3)
    network = TwoLayerReLU(*networks(rng, low=0.1, high=0.3))
    span = 6 / float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())
    counts = [_passages(data, network, span / steps, steps) for steps in (500, 1000)]
    b, j, i = (int(v) for v in np.unravel_index(np.argmax(counts[1]), counts[1].shape))
    quantity = f"the number of times that neuron {j} passes the edge of point {i}"
    return Counterexample.of(
        "orthogonally separable data (classes at an angle of 60 degrees instead)",
        Quote(quantity, f"within t = {span:.3g}, in 1000 steps of descent,", law=2, trained=max(counts[1][b, j, i], 2)),
        _TOLERANCE,
        record(data, "hinge", network, b, neuron=j, point=i),
        rest=f"by the law it is that at most; in 500 steps it is {counts[0][b, j, i]}: in the flow it has no end",
    )


def _passages(data: Dataset, network: TwoLayerReLU, size: float, steps: int) -> np.ndarray:
    """How often descent in plain NumPy passes each edge, [b, h, n]."""
    x, y, q = (np.asarray(leaf) for leaf in (data.points, data.labels, data.weights))
    w, z = np.asarray(network.w), np.asarray(network.z)
    active = w @ x.T > 0
    count = np.zeros(active.shape, int)
    for _ in range(steps):
        edge = np.where(active, w @ x.T, 0)
        pull = q * y * (y * np.einsum("bh,bhn->bn", z, edge) < 1)
        force, speed = (active * pull[:, None]) @ x, np.einsum("bhn,bn->bh", edge, pull)
        w, z = w + size * z[..., None] * force, z + size * speed
        now = w @ x.T > 0
        count, active = count + (now != active), now
    return count


def forgotten_by_shared_neurons(key: Any) -> Counterexample:
    """Drop "no neuron is shared": a learnt margin that is pulled below 1 and has to be learnt again."""
    rng = generator(key)
    data, norms = axes_data(rng)
    # One neuron on both orthogonal classes, of the wrong sign for class -: z falls until it has left, and class + with it.
    z = rng.uniform(0.9, 1.1, BATCH) / np.sqrt(norms[0])
    w = np.zeros((BATCH, WIDTH, DIM))
    w[:, 0, 0] = rng.uniform(1.02, 1.1, BATCH) / (z * norms[0])
    w[:, 0, 1] = rng.uniform(0.5, 0.8, BATCH) * z
    network = TwoLayerReLU(w, z[:, None] * np.eye(1, WIDTH))
    run = train_exact(data, network, AT_LAST)
    first = w @ np.asarray(data.points).T > 0
    live = np.asarray(network(data.points)) * np.asarray(data.labels) < 1
    allowed = most_events(first[0], np.asarray(network.z[0]), np.asarray(data.labels), live[0])
    point = np.asarray(run.events.point[0])
    told = [line.split(": ")[1] for line, i in zip(run.events.of(0), point, strict=False) if i == 0]
    return Counterexample.of(
        "neurons that see one class (one of them is active on both instead)",
        Quote("the number of events", "at the end", law=allowed, trained=max(int(run.events.count[0]), allowed)),
        _TOLERANCE,
        record(data, "hinge", network, 0),
        rest=f"by the law it is that at most; among them: {'; '.join(told)}",
    )


def draw_events(outcome: Outcome, ax: Any) -> None:
    """The fall of |grad L|^2 at every margin passed, and the least one."""
    least, found = outcome.extra["falls"].T
    ax.loglog(least, found, ".", markersize=3, color=COLOURS[0], label="margins that pass 1")
    line = np.array([least.min(), least.max()])
    ax.loglog(line, line, color="black", linestyle="--", linewidth=1.2, label="least fall: 2 q² |x|")
    ax.set_xlabel("2 q² |x|")
    ax.set_ylabel("fall of |∇L|²")
    ax.legend(frameon=False, fontsize=8, loc="upper left", markerscale=3)


FINITE_EVENTS = Theorem(
    name="finite-events",
    equation="12.1",
    title="Hinge flow comes to rest after finitely many events",
    claim="a neuron that sees one class passes edges of that class alone, each once with the right sign and at most twice "
    "with the wrong one; a margin falls only while a neuron is shared, and reaches 1 once if none is; a neuron is shared "
    "during one span at most; |grad L|^2 falls by at least 2 q^2 |x| where a margin passes 1, and between two such passages "
    "no edge is passed more than twice; every network comes to rest",
    formula=(
        r"\begin{split} &\left| \nabla L \right|^2 \text{ falls by at least } 2\, q_i^2\, \left| x_i \right| "
        r"\text{ where } m_i \text{ passes } 1, \\ "
        r"&\text{number of events} < \infty, \quad \text{and if no neuron is ever shared} \;\le\; "
        r"n_{m < 1} + \sum_j n_j^{\text{off}} + 2 \sum_{z_j y_j < 0} n_j^{\text{on}}, \\ "
        r"&\text{at } t = 0\text{:} \quad "
        r"n_{m < 1} \text{ margins below 1, neuron } j \text{ active on } n_j^{\text{on}} \text{ points of its class } "
        r"y_j \text{ and not on } n_j^{\text{off}} \end{split}"
    ),
    hypotheses=(SEPARABLE, HINGE_LOSS, OFF_MANIFOLD, "for the bound of their number: no neuron is ever shared"),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "numbers of events: 1 beyond the bound contradicts; falls of |grad L|^2 relative to the least one: rounding of a "
        "path of a dozen events"
    ),
    checked_with="simulate_hinge_exact, and the gradient in plain NumPy on weights moved there by matrix exponentials",
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    check=check_events,
    necessity=(on_the_manifold, passages_at_an_acute_angle, forgotten_by_shared_neurons),
    figure=draw_events,
    single_tolerance=None,  # in float32 a margin that leaves 1 slowly may be told to pass it again
)
