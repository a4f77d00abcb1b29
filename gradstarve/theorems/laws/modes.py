"""One mode: the hyperbolic clock (3.1)-(3.5), the neurons that leave (3.10), and what the curve depends on (3.11).

Below it: the elementary closed forms (3.6)-(3.8), and balance (1.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve import special, theory
from gradstarve.problem import Dataset, Mode, TwoLayerReLU
from gradstarve.theorems._entry import (
    BALANCED,
    BELOW_ONE,
    EXCLUSIVE,
    OFF_MANIFOLD,
    ONE_RAY,
    ORTHOGONAL,
    SEPARABLE,
    STAYING,
    Counterexample,
    Outcome,
    Quote,
    TrialLog,
    draw_gaps,
)
from gradstarve.theorems._register import register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    FLOW_TOLERANCE,
    LOSS_NAMES,
    PER_CLASS,
    WHY_FLOW,
    WIDTH,
    ExclusiveInit,
    Geometry,
    any_data,
    cone_data,
    exclusive_start,
    generator,
    generators,
    law_gaps,
    log_uniform,
    networks,
    record,
    train_descent,
    train_flow,
    two_rays,
    worst_network,
)

# Four records, as everywhere, so that the simulator is compiled once for all entries.
FRACTIONS = np.array([0.1, 0.3, 0.6, 1.0])


def flow_times(rng: np.random.Generator, geometry: Geometry, low: float = 3.0, high: float = 40.0) -> np.ndarray:
    """Four times that end at 2 p r t between `low` and `high`, with p r the geometric mean of the two classes'."""
    return FRACTIONS * log_uniform(rng, low, high) / geometry.pace


def _against_solve(log: TrialLog, rng: Any, geometry: Geometry, start: ExclusiveInit, loss: str, kind: str) -> None:
    """Train one batch by the flow and compare it with `theory.solve`."""
    network = start.network(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, flow_times(rng, geometry))
    gaps, trial_record = law_gaps(geometry.data, network, loss, run, start.scale(geometry))
    log.add(gaps, kind, lambda i: record(geometry.data, loss, network, i, **trial_record(i)), lost)


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
    quote, i = worst_network("the logit of the first point", times, found, lost, law, start.scale(geometry))
    return Counterexample.of(
        "the points of a class share a direction (two points at 80 degrees instead, taken for one at their mean)",
        quote,
        FLOW_TOLERANCE,
        record(data, "cross-entropy", network, i, times=times, law=law[i], trained=found[i]),
    )


def deaths_without_orthogonality(key: Any) -> Counterexample:
    """Drop "orthogonal": antipodal classes, whose leavers do not die but join the other class."""
    rng = generator(key)
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.5).without_edge_cases()
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry, 10.0, 20.0)
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    mode = Mode(geometry.frequencies[0], geometry.norms[0], *start.mode(1))
    curve: Any = theory.solve_mode(mode, "cross-entropy")
    law = np.asarray(curve.logit(times))
    found = np.asarray(run.recorded)[..., 0]
    what = "the logit of class +, with the neurons that class - lost to it,"
    quote, i = worst_network(what, times, found, lost, law, start.scale(geometry))
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


def _neurons(rng: np.random.Generator, grown: np.ndarray, decayed: np.ndarray) -> ExclusiveInit:
    """Random neurons of class + with sum (a + z)^2 = `grown`^2 and sum (a - z)^2 = `decayed`^2, [b]; all of them stay."""
    shape = (grown.size, WIDTH)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (grown.size, 1))

    def direction(low: float) -> np.ndarray:
        values = rng.uniform(low, 1, shape) * used
        return values / np.linalg.norm(values, axis=-1, keepdims=True)

    plus, minus = grown[:, None] * direction(0.1), decayed[:, None] * direction(0.0)
    # a = (plus + minus)/2 has to be positive, so minus may be negative only where it is smaller than plus.
    minus = np.where((minus < plus) & (rng.uniform(size=shape) < 0.5), -minus, minus)
    return ExclusiveInit(np.where(used, 1.0, 0.0), (plus + minus) / 2, (plus - minus) / 2)


def _class_curve(rng: Any, geometry: Geometry, start: ExclusiveInit, loss: str, tau: np.ndarray) -> tuple[Any, Any, Any]:
    """u of class + at 2 p r t = tau [4], its network, and which runs were given up."""
    network = start.network(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, tau / geometry.rates[0])
    return np.asarray(run.recorded)[..., 0], network, lost


def _universal(loss: str, norm: Any, start: ExclusiveInit, tau: np.ndarray) -> np.ndarray:
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

    def trial_record(i: int) -> dict[str, Any]:
        return {
            "first": record(first.data, loss, network, i, logits=u[i]),
            "second": record(second.data, loss, twin_network, i, logits=other[i]),
            "two_p_r_t": tau,
            "law": law[i],
        }

    return np.stack([u, other, law]), size, lost | twin_lost, trial_record


def universality_without_kappa(key: Any) -> Counterexample:
    """Drop "the same kappa": twice as large in the second problem."""
    (u, other, _), size, lost, trial_record = _pair(generator(key), "cross-entropy", stretch=2.0, low=0.3)
    unit = np.abs(u) + size
    gaps = np.where(lost[:, None], -np.inf, np.abs(u - other) / unit)
    i, k = (int(v) for v in np.unravel_index(np.argmax(gaps), gaps.shape))
    numbers = trial_record(i)
    when = f"at 2 p r t = {numbers['two_p_r_t'][k]:.3g}"
    return Counterexample.of(
        "the same kappa (twice as large instead)",
        Quote("the logit of the second class", when, u[i, k], other[i, k], unit[i, k]),
        FLOW_TOLERANCE,
        numbers,
        setting="with theta_0 as in the first class and a kappa twice as large",
    )


_SCALE = "|u − law| / (|u| + r Σ(a² + z²)/2)"


@register(
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
    drops=(clock_without_direction,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)
def check_clock(key: Any, trials: int) -> Outcome:
    """Exclusive neurons that stay, on antipodal, obtuse and orthogonal classes; all losses; logits and weights."""
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        cosine = (-1.0, 0.0, rng.uniform(-0.95, -0.05))[(k // len(LOSS_NAMES) + k) % 3]
        geometry = two_rays(rng, cosine)
        start = exclusive_start(rng, wrong_sign_learners=0.2)
        if loss == "squared":
            start = start.below_one(geometry)
        _against_solve(log, rng, geometry, start, loss, loss)
    return log.outcome()


@register(
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
    drops=(deaths_without_orthogonality,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)
def check_deaths(key: Any, trials: int) -> Outcome:
    """Orthogonal classes, half of the neurons of the wrong sign; near the stable manifold on purpose; all losses."""
    log = TrialLog(FLOW_TOLERANCE)
    deaths = 0
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        geometry = two_rays(rng, 0.0)
        start = exclusive_start(rng, wrong_signs=0.5, crowd=True)
        _against_solve(log, rng, geometry, start, loss, loss)
        deaths += int(np.sum((start.a > 0) & (start.zeta < -start.a)))
    return log.outcome(neurons_that_leave_if_the_clock_gets_there=deaths)


@register(
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
    drops=(universality_without_kappa,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u₁ − u₂| / (|u| + r Σ(a² + z²)/2)"),
)
def check_universality(key: Any, trials: int) -> Outcome:
    """Pairs of trained networks that differ in p, r, width, weights and geometry but not in kappa and theta_0."""
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        (u, other, law), size, lost, trial_record = _pair(rng, loss)
        apart = np.maximum(np.abs(u - other), np.abs(u - law)) / (np.abs(u) + size)
        log.add(np.max(apart, axis=-1), loss, trial_record, lost)
    return log.outcome(pairs=BATCH * len(generators(key, trials)))


# The elementary closed forms: hinge (3.6), cross-entropy (3.7), exponential and squared loss (3.8), against training.


def hinge_time(rate: float, norm: float, a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """When the margin reaches 1 under hinge loss (3.6), 0 if it starts there: a, z [b, h], rate = 2 p r -> [b]."""
    kappa, theta = invariants(norm, a, z)
    u0 = norm * np.sum(a * z, axis=-1)
    balanced = np.log(1 / np.maximum(u0, 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):  # inf - inf where kappa = 0, which is not taken
        return np.maximum(np.where(kappa > 0, np.arcsinh(1 / kappa) - theta, balanced), 0) / rate


def hinge_logit(rate: float, norm: float, a: np.ndarray, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """u(t) under hinge loss (3.6): kappa sinh(theta_0 + 2 p r t) until it is 1; balanced u0 exp(2 p r t). [b, t.size]."""
    kappa, theta = (v[:, None] for v in invariants(norm, a, z))
    u0 = norm * np.sum(a * z, axis=-1)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):  # 0 times inf where kappa = 0, and past the margin: not taken
        rising = np.where(kappa > 0, kappa * np.sinh(theta + rate * t), u0 * np.exp(rate * t))
    return np.where(u0 >= 1, u0, np.where(t >= hinge_time(rate, norm, a, z)[:, None], 1, rising))


def cross_entropy_tau(u0: np.ndarray, u: np.ndarray) -> np.ndarray:
    """2 p r t from logit u0 to u, balanced, cross-entropy (3.7): log(u/u0) + Ei(u) - Ei(u0)."""
    return np.log(u / u0) + np.asarray(special.expi(u)) - np.asarray(special.expi(u0))


def exponential_tau(u0: np.ndarray, u: np.ndarray) -> np.ndarray:
    """2 p r t from logit u0 to u, balanced, exponential loss (3.8): Ei(u) - Ei(u0)."""
    return np.asarray(special.expi(u)) - np.asarray(special.expi(u0))


def squared_logit(u0: np.ndarray, tau: np.ndarray) -> np.ndarray:
    """u at 2 p r t = tau, balanced, squared loss (3.8): the logistic curve 1 / (1 + (1/u0 - 1) e^-tau)."""
    return 1 / (1 + (1 / u0 - 1) * np.exp(-tau))


# What a formula says: (the quantity, the law, what was trained, the unit of their difference), [b, times] each.
_Sides = tuple[str, np.ndarray, np.ndarray, np.ndarray]


def _each_class(
    key: Any,
    trials: int,
    loss: str,
    make: Callable[[Any], ExclusiveInit],
    compare: Callable[..., list[_Sides]],
    log: TrialLog,
) -> Quote | None:
    """Train batches by the flow and give each class to `compare(u, rate, norm, frequency, a, zeta, times)`.

    Classes without neurons are left out; the gap of a network is the largest one of its classes. The quote is that of the
    largest gap of all.
    """
    largest: Quote | None = None
    for k, rng in enumerate(generators(key, trials)):
        geometry = two_rays(rng, -1.0 if k % 2 else 0.0)
        start = make(rng)
        network = start.network(rng, geometry)
        times = flow_times(rng, geometry)
        run, lost = train_flow(geometry.data, network, loss, times)
        worst = np.zeros(lost.shape)
        for c, label in enumerate((1, -1)):
            a, zeta = start.mode(label)
            there = np.any(a, axis=-1)
            first = int(np.flatnonzero(np.asarray(geometry.data.labels) == label)[0])
            u = label * np.asarray(run.recorded)[..., first]
            # A class without neurons gets those of another network, so that no formula sees zeros; it does not count.
            some = int(np.argmax(there))
            a, zeta, u = (np.where(there[:, None], v, v[some]) for v in (a, zeta, u))
            sides = compare(u, geometry.rates[c], geometry.norms[c], geometry.frequencies[c], a, zeta, times)
            for quantity, law, trained, unit in sides:
                found = np.abs(trained - law) / unit
                worst = np.where(there, np.maximum(worst, np.max(found, axis=-1)), worst)
                found = np.where((there & ~lost)[:, None] & np.isfinite(found), found, -np.inf)
                i, j = (int(v) for v in np.unravel_index(np.argmax(found), found.shape))
                if found[i, j] > (largest.gap if largest else -np.inf):
                    neurons = ", ".join(f"({x:.3g}, {y:.3g})" for x, y in zip(a[i], zeta[i], strict=True) if y)
                    what = f"{quantity} of a class with neurons (a, z) = {neurons}"
                    largest = Quote(what, f"at t = {times[j]:.4g}", law[i, j], trained[i, j], unit[i, j])
        log.add(
            worst,
            f"{loss}, {'antipodal' if k % 2 else 'orthogonal'}",
            lambda i, d=geometry.data, n=network, t=times, r=run: record(
                d, loss, n, i, times=t, trained=np.asarray(r.recorded)[i]
            ),
            lost,
        )
    return largest


def _balanced(rng: Any) -> ExclusiveInit:
    start = exclusive_start(rng, high=1.0)
    return ExclusiveInit(start.home, start.a, start.a)


def _u0(norm: float, a: np.ndarray, zeta: np.ndarray) -> np.ndarray:
    return norm * np.sum(a * zeta, axis=-1)[:, None]


def _hinge_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    expected = hinge_logit(rate, norm, a, zeta, times)
    size = np.abs(expected) + norm * np.sum(a**2 + zeta**2, axis=-1)[:, None] / 2
    return [("the logit", expected, u, size)]


def _cross_entropy_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    u0, tau = _u0(norm, a, zeta), np.broadcast_to(rate * times, u.shape)
    kappa = invariants(norm, a, zeta)[0][:, None]
    law = np.asarray(special.clock_integral("cross-entropy", u0, u, kappa))
    balanced = (kappa == 0) & (u0 > 0)
    printed = cross_entropy_tau(np.where(balanced, u0, 1.0), np.where(balanced, u, 1.0))
    # An error in the time of g(u) times itself in the clock's angle: time is long where the clock is slow.
    slow = 1 + np.exp(u)
    return [("the time 2 p r t", law, tau, slow), ("the time 2 p r t", np.where(balanced, printed, tau), tau, slow)]


def _exponential_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    return [("the time 2 p r t", exponential_tau(_u0(norm, a, zeta), u), np.broadcast_to(rate * times, u.shape), np.exp(u))]


def _squared_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    law = squared_logit(_u0(norm, a, zeta), rate * times)
    return [("the logit", law, u, np.abs(law))]


def _without(key: Any, loss: str, make: Callable[[Any], ExclusiveInit], compare: Callable, dropped: str) -> Counterexample:
    """The worst network of one batch of starts that break a hypothesis."""
    log = TrialLog(FLOW_TOLERANCE)
    quote = _each_class(key, 1, loss, make, compare, log)
    assert quote is not None  # some class has neurons
    return Counterexample.of(dropped, quote, FLOW_TOLERANCE, log.outcome().worst_instance)


def _some_leave(rng: Any) -> ExclusiveInit:
    return exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).without_edge_cases()


def hinge_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a": half of the neurons leave, and the sums change at each of their events."""
    return _without(key, "hinge", _some_leave, _hinge_sides, _WRONG_SIGN)


def cross_entropy_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a", as for hinge."""
    return _without(key, "cross-entropy", _some_leave, _cross_entropy_sides, _WRONG_SIGN)


def balanced_without_balance(key: Any) -> Counterexample:
    """Drop "balanced": read-outs of a fifth of the first weights."""

    def make(rng):
        start = exclusive_start(rng, low=0.2, high=1.0).without_edge_cases()
        return ExclusiveInit(start.home, start.a, start.a / 5)

    return _without(key, "exponential", make, _exponential_sides, "balanced neurons (z = a/5 instead)")


_WRONG_SIGN = "neurons with z > -a (some with z < -a instead, which leave)"
_HYPOTHESES = (SEPARABLE, ONE_RAY, EXCLUSIVE, STAYING)


@register(
    name="hinge",
    equation="3.6",
    title="Hinge: a hyperbola until the margin, then nothing",
    claim="u = kappa sinh(theta_0 + 2 p r t) until u = 1 at t* = (arsinh(1/kappa) - theta_0)/(2 p r), then constant",
    formula=(
        r"\begin{split} u &= \kappa\, \sinh(\theta_0 + 2\, p\, r\, t) \quad \text{for } t \le t^*, \qquad u = 1 \quad "
        r"\text{for } t \ge t^*, \\ "
        r"t^* &= \frac{\text{arsinh}(1/\kappa) - \theta_0}{2\, p\, r} \end{split}"
    ),
    hypotheses=_HYPOTHESES,
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=192,
    drops=(hinge_without_right_sign,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (|u| + r Σ(a² + z²)/2)"),
)
def check_hinge(key: Any, trials: int) -> Outcome:
    """The printed formula against the trained curve, and against what `theory.solve_mode` says of the stopping time."""

    def compare(u, rate, norm, frequency, a, zeta, times):
        stop = np.asarray(theory.solve_mode(Mode(frequency, norm, a, zeta), "hinge").time_to_logit(1.0))[:, None]
        printed = hinge_time(rate, norm, a, zeta)[:, None]
        ends = ("the time 2 p r t*", rate * printed, rate * stop, np.ones_like(stop))
        return [*_hinge_sides(u, rate, norm, frequency, a, zeta, times), ends]

    log = TrialLog(FLOW_TOLERANCE)
    _each_class(key, trials, "hinge", lambda rng: exclusive_start(rng, wrong_sign_learners=0.2), compare, log)
    return log.outcome()


@register(
    name="cross-entropy",
    equation="3.7",
    title="Cross-entropy: time as a function of the logit",
    claim="2 p r t is the clock integral from u0 to u; for balanced neurons log(u/u0) + Ei(u) - Ei(u0)",
    formula=(
        r"\begin{split} 2\, p\, r\, t &= \int_{u_0}^{\,u} \frac{1 + e^v}{\sqrt{\kappa^2 + v^2}}\, dv \\ "
        r"&= \log \left( \frac{u}{u_0} \right) + \text{Ei}(u) - \text{Ei}(u_0) \quad "
        r"\text{if balanced, } \kappa = 0 \end{split}"
    ),
    hypotheses=_HYPOTHESES,
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=192,
    drops=(cross_entropy_without_right_sign,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "error of 2 p r t, in units of the clock's angle"),
)
def check_cross_entropy(key: Any, trials: int) -> Outcome:
    """The time formula at the logits that training reached: any start by the clock integral, balanced ones by Ei."""

    def make(rng):
        start = exclusive_start(rng, wrong_sign_learners=0.2, high=1.0)
        return start if rng.uniform() < 0.5 else ExclusiveInit(start.home, start.a, start.a)

    log = TrialLog(FLOW_TOLERANCE)
    _each_class(key, trials, "cross-entropy", make, _cross_entropy_sides, log)
    return log.outcome()


@register(
    name="balanced-curves",
    equation="3.8",
    title="Exponential and squared loss, balanced",
    claim="exponential loss: 2 p r t = Ei(u) - Ei(u0); squared loss: the logistic curve 1/(1 + (1/u0 - 1) e^(-2 p r t))",
    formula=(
        r"\begin{split} \text{exponential loss:} \quad &2\, p\, r\, t = \text{Ei}(u) - \text{Ei}(u_0), \\ "
        r"\text{squared loss:} \quad &u = \frac{1}{1 + (1/u_0 - 1)\, e^{-2\, p\, r\, t}} \end{split}"
    ),
    hypotheses=(*_HYPOTHESES, BALANCED),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=192,
    drops=(balanced_without_balance,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "error of the clock's angle (exponential), of u relative (squared)"),
)
def check_balanced(key: Any, trials: int) -> Outcome:
    """Balanced starts under exponential and squared loss, against the printed formulas."""
    log = TrialLog(FLOW_TOLERANCE)
    half = -(-trials // 2)
    _each_class(key, half, "exponential", _balanced, _exponential_sides, log)
    _each_class(key, half, "squared", _balanced, _squared_sides, log)
    return log.outcome()


# Balance: |w_j|^2 - z_j^2 is constant along the flow, for any data and any loss (1.3).


def invariant(w: np.ndarray, z: np.ndarray) -> np.ndarray:
    """|w_j|^2 - z_j^2 of every neuron (1.3): w [*batch, h, d], z [*batch, h] -> [*batch, h]."""
    return np.sum(w**2, axis=-1) - z**2


def _drift(before: TwoLayerReLU, after: TwoLayerReLU) -> np.ndarray:
    """The largest change of the invariant in units of the neurons' squared weights, per network [b]."""
    (w0, z0), (w1, z1) = ((np.asarray(net.w), np.asarray(net.z)) for net in (before, after))
    size = np.sum(w0**2, -1) + z0**2 + np.sum(w1**2, -1) + z1**2
    change = np.abs(invariant(w1, z1) - invariant(w0, z0))
    return np.max(change / np.where(size > 0, size, 1), axis=-1)


def without_flow(key: Any) -> Counterexample:
    """Drop "gradient flow": descent with a finite step moves |w|^2 - z^2 by step_size^2 (|dw|^2 - dz^2) a step."""
    rng = generator(key)
    data = cone_data(rng)
    network = TwoLayerReLU(*networks(rng, low=0.3))
    step_size, steps = 0.1, 100
    run = train_descent(data, network, "cross-entropy", step_size, steps, steps)
    drift = _drift(run.initial, run.final)
    i = int(np.argmax(drift))
    when = f"after {steps} steps of size {step_size} with cross-entropy"
    return Counterexample.of(
        "gradient flow (descent with a finite step instead)",
        Quote("the change of |w|^2 - z^2 of a neuron over its squared weights", when, 0.0, drift[i]),
        FLOW_TOLERANCE,
        record(data, "cross-entropy", network, i, step_size=step_size, steps=steps),
    )


@register(
    name="balance",
    equation="1.3",
    title="Balance of the two layers",
    claim="|w_j|^2 - z_j^2 of every neuron is constant along the gradient flow, for any data and any loss",
    formula=r"\frac{d}{dt} \left( \left| w_j \right|^2 - z_j^2 \right) = 0",
    hypotheses=("gradient flow",),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with="simulate_flow: adaptive Runge-Kutta on all weights",
    default_trials=192,
    drops=(without_flow,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "drift of |w|² − z² (relative to |w|² + z²)"),
)
def check_balance(key: Any, trials: int) -> Outcome:
    """Flow of full networks on cones and on arbitrary data; no neuron is asked to be exclusive or of the right sign."""
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        separable = (k // len(LOSS_NAMES)) % 2 == 0
        data = cone_data(rng) if separable else any_data(rng)
        network = TwoLayerReLU(*networks(rng))
        r = float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())
        times = np.array([0.1, 0.3, 0.6, 1.0]) * (5 if separable else 0.5) / r
        run, lost = train_flow(data, network, loss, times)
        log.add(
            _drift(run.initial, run.final),
            loss,
            lambda i, d=data, n=network, s=loss, t=times: record(d, s, n, i, times=t),
            lost,
        )
    return log.outcome()
