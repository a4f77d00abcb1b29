"""One mode: the hyperbolic clock (3.1)-(3.5), the neurons that leave (3.10), and what the curve depends on (3.11)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, Mode
from gradstarve.theorems._drawing import draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import BELOW_ONE, EXCLUSIVE, OFF_MANIFOLD, ONE_RAY, ORTHOGONAL, SEPARABLE, STAYING
from gradstarve.theorems._running import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, furthest, law_gaps, train_flow
from gradstarve.theorems._sampling import (
    BATCH,
    LOSS_NAMES,
    PER_CLASS,
    WIDTH,
    Geometry,
    Start,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)

# Four records, as everywhere, so that the simulator is compiled once for all entries.
FRACTIONS = np.array([0.1, 0.3, 0.6, 1.0])


def flow_times(rng: np.random.Generator, geometry: Geometry, low: float = 3.0, high: float = 40.0) -> np.ndarray:
    """Four times that end at 2 p r t between `low` and `high`, with p r the geometric mean of the two classes'."""
    return FRACTIONS * log_uniform(rng, low, high) / geometry.pace


def _against_solve(tally: Tally, rng: Any, geometry: Geometry, start: Start, loss: str, kind: str) -> None:
    """Train one batch by the flow and compare it with `theory.solve`."""
    network = start.network(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, flow_times(rng, geometry))
    gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry))
    tally.add(gaps, kind, lambda i: record(geometry.data, loss, network, i, **sides(i)), lost)


def check_clock(key: Any, trials: int) -> Outcome:
    """Exclusive neurons that stay, on antipodal, obtuse and orthogonal classes; all losses; logits and weights."""
    tally = Tally(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        cosine = (-1.0, 0.0, rng.uniform(-0.95, -0.05))[(k // len(LOSS_NAMES) + k) % 3]
        geometry = two_rays(rng, cosine)
        start = exclusive_start(rng, doubters=0.2)
        if loss == "squared":
            start = start.below_one(geometry)
        _against_solve(tally, rng, geometry, start, loss, loss)
    return tally.outcome()


def clock_without_direction(key: Any) -> Counterexample:
    """Drop "the points of the class share a direction": two of them, 80 degrees apart, taken for one at their mean."""
    rng = generator(key)
    geometry = two_rays(rng, -1.0)
    plus, r = geometry.axes[0], geometry.norms[0]
    side = rng.normal(size=plus.shape)
    side -= (side @ plus) * plus
    side /= np.linalg.norm(side)
    angle = np.deg2rad(40)
    pair = r * np.stack([np.cos(angle) * plus + np.sin(angle) * side, np.cos(angle) * plus - np.sin(angle) * side])
    points = np.concatenate([pair, np.asarray(geometry.data.points)[PER_CLASS:]])
    data = Dataset(points, geometry.data.labels, geometry.data.weights)
    start = exclusive_start(rng, low=0.1, high=0.5)
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry, 3.0, 4.0)
    run, lost = train_flow(data, network, "cross-entropy", times)
    a, zeta = start.mode(1)
    mode = Mode(geometry.frequencies[0], r * np.cos(angle), a, zeta)
    law = np.asarray(theory.solve_mode(mode, "cross-entropy").logit(times))
    found = np.asarray(run.recorded)[..., 0]
    quote, i = furthest("the logit of the first point", times, found, lost, law, start.scale(geometry))
    return Counterexample.of(
        "the points of a class share a direction (two points at 80 degrees instead, taken for one at their mean)",
        quote,
        FLOW_TOLERANCE,
        record(data, "cross-entropy", network, i, times=times, law=law[i], trained=found[i]),
    )


def check_deaths(key: Any, trials: int) -> Outcome:
    """Orthogonal classes, half of the neurons of the wrong sign; near the stable manifold on purpose; all losses."""
    tally = Tally(FLOW_TOLERANCE)
    deaths = 0
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        geometry = two_rays(rng, 0.0)
        start = exclusive_start(rng, wrong_signs=0.5, crowd=True)
        _against_solve(tally, rng, geometry, start, loss, loss)
        deaths += int(np.sum((start.a > 0) & (start.zeta < -start.a)))
    return tally.outcome(neurons_that_leave_if_the_clock_gets_there=deaths)


def deaths_without_orthogonality(key: Any) -> Counterexample:
    """Drop "orthogonal": antipodal classes, whose leavers do not die but join the other class."""
    rng = generator(key)
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.5).usual()
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry, 10.0, 20.0)
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    mode = Mode(geometry.frequencies[0], geometry.norms[0], *start.mode(1))
    curve: Any = theory.solve_mode(mode, "cross-entropy")
    law = np.asarray(curve.logit(times))
    found = np.asarray(run.recorded)[..., 0]
    what = "the logit of class +, with the neurons that class - lost to it,"
    quote, i = furthest(what, times, found, lost, law, start.scale(geometry))
    return Counterexample.of(
        "orthogonal classes (antipodal ones instead, each taken by itself)",
        quote,
        FLOW_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, times=times, law=law[i], trained=found[i]),
    )


def invariants(norm: Any, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kappa, theta_0) of a mode (3.3): kappa = r sqrt(M+ M-)/2, theta_0 = log(M+/M-)/2. a, z: [*batch, h]."""
    grown, decayed = np.sum((a + z) ** 2, axis=-1), np.sum((a - z) ** 2, axis=-1)
    with np.errstate(divide="ignore"):  # exact balance is at theta_0 = inf
        return norm * np.sqrt(grown * decayed) / 2, np.log(grown / decayed) / 2


def _neurons(rng: np.random.Generator, grown: np.ndarray, decayed: np.ndarray) -> Start:
    """Random neurons of class + with sum (a + z)^2 = `grown`^2 and sum (a - z)^2 = `decayed`^2, [b]; all of them stay."""
    shape = (grown.size, WIDTH)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (grown.size, 1))

    def direction(low: float) -> np.ndarray:
        values = rng.uniform(low, 1, shape) * used
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    plus, minus = grown[:, None] * direction(0.1), decayed[:, None] * direction(0.0)
    # a = (plus + minus)/2 has to be positive, so minus may be negative only where it is smaller than plus.
    minus = np.where((minus < plus) & (rng.uniform(size=shape) < 0.5), -minus, minus)
    return Start(np.where(used, 1.0, 0.0), (plus + minus) / 2, (plus - minus) / 2)


def _class_curve(rng: Any, geometry: Geometry, start: Start, loss: str, tau: np.ndarray) -> tuple[Any, Any, Any]:
    """u of class + at 2 p r t = tau [4], its network, and which runs were given up."""
    network = start.network(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, tau / geometry.rates[0])
    return np.asarray(run.recorded)[..., 0], network, lost


def _universal(loss: str, norm: Any, start: Start, tau: np.ndarray) -> np.ndarray:
    """U(tau, kappa, theta_0) of (3.11) for the kappa and theta_0 of these neurons: [b, 4].

    As the curve of the simplest class that has them, one neuron with p = 1/2 and r = 1, whose time is tau.
    """
    kappa, theta = invariants(norm, *start.mode(1))
    grown, decayed = np.sqrt(2 * kappa) * np.exp(theta / 2), np.sqrt(2 * kappa) * np.exp(-theta / 2)
    mode = Mode(0.5, 1.0, ((grown + decayed) / 2)[:, None], ((grown - decayed) / 2)[:, None])
    curve: Any = theory.solve_mode(mode, loss)
    return np.asarray(curve.logit(tau))


def _pair(rng: Any, loss: str, stretch: float = 1.0, low: float = 1e-3) -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """Two problems with the same r M_+ and r M_- (times `stretch`), and so the same kappa and theta_0, trained to the same
    2 p r t: trained logits and those of the law [3, b, 4], what they are measured by [b, 1], lost [b], what to record."""
    first, second = two_rays(rng, -1.0), two_rays(rng, 0.0)
    scale = np.sqrt(WIDTH) * log_uniform(rng, low, 1.5, BATCH)
    # Unequal on both sides: theta_0 from -1.4, far from learnt, to 5, all but balanced.
    grown, decayed = scale, scale * np.exp(-rng.uniform(-0.7, 2.5, BATCH) * np.where(np.arange(BATCH) % 4, 1, 2))
    if loss == "squared":  # a margin of at most r (M_+ - M_-)/4 < 1
        shrink = 2 / np.sqrt(np.maximum(first.norms[0] * grown**2, 4) * (1 + 1e-9))
        grown, decayed = grown * shrink, decayed * shrink
    ratio = np.sqrt(first.norms[0] / second.norms[0] * stretch)
    start, twin = _neurons(rng, grown, decayed), _neurons(rng, grown * ratio, decayed * ratio)
    tau = FRACTIONS * log_uniform(rng, 3, 30)
    u, network, lost = _class_curve(rng, first, start, loss, tau)
    other, twin_network, twin_lost = _class_curve(rng, second, twin, loss, tau)
    law = _universal(loss, float(first.norms[0]), start, tau)
    size = start.scale(first)[:, None]

    def sides(i: int) -> dict[str, Any]:
        return {
            "first": record(first.data, loss, network, i, logits=u[i]),
            "second": record(second.data, loss, twin_network, i, logits=other[i]),
            "two_p_r_t": tau,
            "law": law[i],
        }

    return np.stack([u, other, law]), size, lost | twin_lost, sides


def check_universality(key: Any, trials: int) -> Outcome:
    """Pairs of trained networks that differ in p, r, width, weights and geometry but not in kappa and theta_0."""
    tally = Tally(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        (u, other, law), size, lost, sides = _pair(rng, loss)
        apart = np.maximum(np.abs(u - other), np.abs(u - law)) / (np.abs(u) + size)
        tally.add(np.max(apart, axis=-1), loss, sides, lost)
    return tally.outcome(pairs=BATCH * len(generators(key, trials)))


def universality_without_kappa(key: Any) -> Counterexample:
    """Drop "the same kappa": twice as large in the second problem."""
    (u, other, _), size, lost, sides = _pair(generator(key), "cross-entropy", stretch=2.0, low=0.3)
    unit = np.abs(u) + size
    gaps = np.where(lost[:, None], -np.inf, np.abs(u - other) / unit)
    i, k = (int(v) for v in np.unravel_index(np.argmax(gaps), gaps.shape))
    numbers = sides(i)
    when = f"at 2 p r t = {numbers['two_p_r_t'][k]:.3g}"
    return Counterexample.of(
        "the same kappa (twice as large instead)",
        Quote("the logit of the second class", when, u[i, k], other[i, k], unit[i, k]),
        FLOW_TOLERANCE,
        numbers,
        setting="with theta_0 as in the first class and a kappa twice as large",
    )


_SCALE = "|u − law| / (|u| + r Σ(a² + z²)/2)"

CLOCK = Theorem(
    name="clock",
    equation="3.1-3.5",
    title="All neurons of a class share one hyperbolic clock",
    claim="logits and weights of the trained network are those of the closed form, for any number of neurons and any loss",
    formula=(
        r"\begin{split} \frac{ds}{dt} &= p\, r\, g(u), \qquad u = r \sum_j a_j z_j = \kappa\, \sinh(\theta_0 + 2 s), \\ "
        r"\frac{du}{dt} &= 2\, p\, r\, g(u)\, \sqrt{\kappa^2 + u^2}, \\ "
        r"a_j &= a_j(0)\, \cosh(s) + z_j(0)\, \sinh(s), \qquad z_j = z_j(0)\, \cosh(s) + a_j(0)\, \sinh(s), \\ "
        r"\kappa &= \frac{r}{2} \sqrt{M_+ M_-}, \qquad "
        r"\theta_0 = \frac{1}{2}\, \log \left( \frac{M_+}{M_-} \right), \qquad "
        r"M_\pm = \sum_j (a_j(0) \,\pm\, z_j(0))^2 \end{split}"
    ),
    hypotheses=(SEPARABLE, ONE_RAY, EXCLUSIVE, STAYING, BELOW_ONE),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=288,
    check=check_clock,
    necessity=(clock_without_direction,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)

DEATHS = Theorem(
    name="deaths",
    equation="3.10",
    title="Neurons of the wrong sign leave at a known angle",
    claim="a neuron with z < -a leaves its class when the clock stands at artanh(a/|z|), and the rest go on without it",
    formula=(
        r"\begin{split} a_j &= 0 \quad \text{and} \quad z_j = {-\sqrt{z_j(0)^2 - a_j(0)^2}} \quad "
        r"\text{from } s = s_j \text{ on}, \\ "
        r"s_j &= \text{artanh} \left( \frac{a_j(0)}{\left| z_j(0) \right|} \right) \quad "
        r"\text{if } z_j(0) < {-a_j(0)}, \quad \text{else } s_j = \infty, \\ "
        r"u &= r \sum_{s_j > s} a_j z_j, \qquad \frac{ds}{dt} = p\, r\, g(u) \end{split}"
    ),
    hypotheses=(ORTHOGONAL, ONE_RAY, EXCLUSIVE, OFF_MANIFOLD),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=288,
    check=check_deaths,
    necessity=(deaths_without_orthogonality,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)

UNIVERSALITY = Theorem(
    name="universality",
    equation="3.11",
    title="The curve depends on 2 p r t, kappa and theta_0 only",
    claim="two classes with the same kappa and theta_0 have the same logit at the same 2 p r t, that of a class of one "
    "neuron with this kappa and theta_0",
    formula=r"u(t) = U(2\, p\, r\, t,\; \kappa,\; \theta_0) \quad \text{with one function } U \text{ for each loss}",
    hypotheses=("one loss, one direction per class, exclusive neurons that stay", "the same kappa and theta_0"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW + ", of both problems of a pair",
    default_trials=192,
    check=check_universality,
    necessity=(universality_without_kappa,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u₁ − u₂| / (|u| + r Σ(a² + z²)/2)"),
)
