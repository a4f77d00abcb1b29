"""One mode: the hyperbolic clock (3.1)-(3.5), the neurons that leave (3.10), and the parameters of the curve (3.11).

Also here: the elementary closed forms (3.6)-(3.8), and balance (1.3).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve import special, theory
from gradstarve.problem import Dataset, Mode, TwoLayerReLU, as_loss
from gradstarve.theorems._entry import (
    BALANCED,
    BELOW_ONE,
    EXCLUSIVE,
    OFF_MANIFOLD,
    ONE_RAY,
    ORTHOGONAL,
    SEPARABLE,
    STAYING,
    Problem,
    Quote,
)
from gradstarve.theorems._figure import MARGIN, TIME, LawFigure, Marks, error, of_solution, read_run
from gradstarve.theorems._formulas import RESIDUALS, mode_curve, time_along
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, at_time, compared, recorded, register
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
    generators,
    law_gaps,
    log_uniform,
    networks,
    record,
    train_descent,
    train_flow,
    two_rays,
)

# Four records, as in the other entries, so that the simulator is compiled once for all of them.
FRACTIONS = np.array([0.1, 0.3, 0.6, 1.0])


def flow_times(rng: np.random.Generator, geometry: Geometry, low: float = 3.0, high: float = 40.0) -> np.ndarray:
    """Four times that end at 2 p r t between `low` and `high`, with p r the geometric mean over the two classes."""
    return FRACTIONS * log_uniform(rng, low, high) / geometry.pace


def against_solve(
    rng: Any, geometry: Geometry, start: ExclusiveInit, loss: Any, group: str = "", times: Any = None
) -> Trials:
    """Train one batch by the flow and compare it with `theory.solve`; the group is the loss by default."""
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry) if times is None else times
    run, lost = train_flow(geometry.data, network, loss, times)
    gaps, trial_record = law_gaps(geometry.data, network, loss, run, start.scale(geometry))
    return Trials(gaps, lambda i: record(geometry.data, loss, network, i, **trial_record(i)), lost, group or loss)


def logit_of_plus(
    data: Dataset, network: Any, times: np.ndarray, law: np.ndarray, unit: Any, loss: Any = "cross-entropy", **texts: Any
) -> Trials:
    """Train one batch by the flow and compare the logit of the first point with a `law` [b, records]."""
    run, lost = train_flow(data, network, loss, times)
    found = np.asarray(run.recorded)[..., 0]
    numbers = recorded(data, loss, network, {"law": law, "trained": found}, times=times)
    texts = {"quantity": "the logit of class +", **texts}
    return compared(found, law, np.abs(law) + unit[:, None], numbers, lost, when=at_time(times), **texts)


def two_directions(rng: np.random.Generator, loss: Any = "cross-entropy") -> Trials:
    """Two points of class +, 80 degrees apart, treated as one point at their mean."""
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
    mode = Mode(geometry.frequencies[0], r * np.cos(angle), *start.mode(1))
    law = np.asarray(theory.solve_mode(mode, loss).logit(times))
    return logit_of_plus(data, network, times, law, start.scale(geometry), loss, quantity="the logit of the first point")


def _joined_by_leavers(rng: np.random.Generator) -> Trials:
    """Antipodal classes, where neurons that leave join the other class, against the law of each class by itself."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.5).without_edge_cases()
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry, 10.0, 20.0)
    mode = Mode(geometry.frequencies[0], geometry.norms[0], *start.mode(1))
    law = np.asarray(theory.solve_mode(mode, "cross-entropy").logit(times))
    what = "the logit of class +, with the neurons that class - lost to it,"
    return logit_of_plus(geometry.data, network, times, law, start.scale(geometry), quantity=what)


TWO_DIRECTIONS = "the points of a class share a direction (two points at 80 degrees instead, taken for one at their mean)"


@register(
    name="clock",
    equation="3.1-3.5",
    title="All neurons of a class share one hyperbolic clock",
    meaning="All neurons of a class turn together, like hands on one clock: a network of any width learns a class along a"
    " single curve.",
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
    rounds=lambda k: {"loss": LOSS_NAMES[k % len(LOSS_NAMES)], "kind": (k // len(LOSS_NAMES) + k) % 3},
    drops=(Drop(TWO_DIRECTIONS, two_directions),),
    figure=of_solution(),
)
def clock(rng: np.random.Generator, loss: str, kind: int) -> Trials:
    """Exclusive neurons that stay, on antipodal, orthogonal and obtuse classes; all losses; logits and weights."""
    geometry = two_rays(rng, (-1.0, 0.0, rng.uniform(-0.95, -0.05))[kind])
    start = exclusive_start(rng, wrong_sign_learners=0.2)
    if as_loss(loss).pulls_back:
        start = start.below(geometry, 1.0)
    return against_solve(rng, geometry, start, loss)


@register(
    name="deaths",
    equation="3.10",
    title="Neurons of the wrong sign leave at a known angle",
    meaning="A neuron with the wrong sign leaves its class at a moment that is known in advance, and the others go on as "
    "if it had never been there.",
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
    rounds=EACH_LOSS,
    drops=(Drop("orthogonal classes (antipodal ones instead, each taken by itself)", _joined_by_leavers),),
    figure=of_solution(),
)
def deaths(rng: np.random.Generator, loss: str) -> Trials:
    """Orthogonal classes, half of the neurons of the wrong sign; near the stable manifold on purpose; all losses."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, wrong_signs=0.5, crowd=True)
    found = against_solve(rng, geometry, start, loss)
    leave = int(np.sum((start.a > 0) & (start.zeta < -start.a)))
    found.extra["neurons_that_leave_if_the_clock_gets_there"] = leave
    return found


def invariants(norm: Any, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(kappa, theta_0) of a mode (3.3): kappa = r sqrt(M+ M-)/2, theta_0 = log(M+/M-)/2. a, z: [*batch, h]."""
    grown, decayed = np.sum((a + z) ** 2, axis=-1), np.sum((a - z) ** 2, axis=-1)
    with np.errstate(divide="ignore"):  # exact balance means theta_0 = inf
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
    """u of class + at 2 p r t = tau [4], its network, and which runs could not be followed."""
    network = start.network(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, tau / geometry.rates[0])
    return np.asarray(run.recorded)[..., 0], network, lost


def _universal(loss: str, norm: Any, start: ExclusiveInit, tau: np.ndarray) -> np.ndarray:
    """U(tau, kappa, theta_0) of (3.11) for the kappa and theta_0 of these neurons: [b, 4].

    From the simplest class that has them, one neuron with p = 1/2 and r = 1, whose time is tau.
    """
    kappa, theta = invariants(norm, *start.mode(1))
    grown, decayed = np.sqrt(2 * kappa) * np.exp(theta / 2), np.sqrt(2 * kappa) * np.exp(-theta / 2)
    mode = Mode(0.5, 1.0, ((grown + decayed) / 2)[:, None], ((grown - decayed) / 2)[:, None])
    curve: Any = theory.solve_mode(mode, loss)
    return np.asarray(curve.logit(tau))


def _pair(trial: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Both problems of a pair, each with its trained values."""
    return {f"{which} class of a pair": {**trial, "trained": trial[which]["logits"]} for which in ("first", "second")}


def _pair_marks(trial: dict[str, Any]) -> Marks:
    return trial["two_p_r_t"], trial["trained"]


def _pair_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """The one curve of both: that of the kappa and theta_0 of the first."""
    problem = Problem.read(trial["first"])
    assert problem is not None
    _, a, zeta = problem.neurons
    network: Any = problem.network
    on = np.asarray(network.w) @ np.asarray(problem.data.points)[0] > 0
    norm = float(np.linalg.norm(np.asarray(problem.data.points)[0]))
    kappa, theta = (v[0] for v in invariants(norm, np.where(on, a, 0)[None], np.where(on, zeta, 0)[None]))
    # The simplest class that has them: one neuron at r = 1.
    grown, decayed = np.sqrt(2 * kappa) * np.exp(theta / 2), np.sqrt(2 * kappa) * np.exp(-theta / 2)
    one = np.array([grown + decayed]) / 2, np.array([grown - decayed]) / 2
    return mode_curve(RESIDUALS[str(problem.loss)], 1.0, *one, x)


def _other_kappa(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    tau = numbers["two_p_r_t"]
    return tau, numbers["second"]["logits"], tau, numbers["first"]["logits"]


@register(
    name="universality",
    equation="3.11",
    title="The curve depends on 2 p r t, kappa and theta_0 only",
    meaning="Frequency and norm of a class only set its speed: on a common time axis all classes with the same start "
    "learn along one curve.",
    claim="two classes with the same kappa and theta_0 have the same logit at the same 2 p r t, that of a class of one "
    "neuron with this kappa and theta_0",
    formula=r"u(t) = U(2\, p\, r\, t,\; \kappa,\; \theta_0) \quad \text{with one function } U \text{ for each loss}",
    hypotheses=("one loss, one direction per class, exclusive neurons that stay", "the same kappa and theta_0"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW + ", of both problems of a pair",
    default_trials=192,
    rounds=EACH_LOSS,
    drops=(
        Drop(
            "the same kappa (twice as large instead)",
            {"loss": "cross-entropy", "stretch": 2.0, "low": 0.3},
            "with theta_0 as in the first class and a kappa twice as large",
        ),
    ),
    figure=LawFigure(_pair_marks, _pair_law, TIME, MARGIN, parts=_pair, each=3, xscale="log", without=_other_kappa),
)
def universality(rng: np.random.Generator, loss: str, stretch: float = 1.0, low: float = 1e-3) -> Trials:
    """Pairs of trained networks that differ in p, r, width, weights and geometry but not in kappa and theta_0.

    `stretch` multiplies r M_+ and r M_- of the second one, and so its kappa. Both are trained to the same 2 p r t.
    """
    first, second = two_rays(rng, -1.0), two_rays(rng, 0.0)
    scale = np.sqrt(WIDTH) * log_uniform(rng, low, 1.5, BATCH)
    # theta_0 from -1.4, far from learnt, to 5, nearly balanced.
    grown, decayed = scale, scale * np.exp(-rng.uniform(-0.7, 2.5, BATCH) * np.where(np.arange(BATCH) % 4, 1, 2))
    if as_loss(loss).pulls_back:  # a margin of at most r (M_+ - M_-)/4 < 1
        shrink = 2 / np.sqrt(np.maximum(first.norms[0] * grown**2, 4) * (1 + 1e-9))
        grown, decayed = grown * shrink, decayed * shrink
    ratio = np.sqrt(first.norms[0] / second.norms[0] * stretch)
    start, twin = _neurons(rng, grown, decayed), _neurons(rng, grown * ratio, decayed * ratio)
    tau = FRACTIONS * log_uniform(rng, 3, 30)
    u, network, lost = _class_curve(rng, first, start, loss, tau)
    other, twin_network, twin_lost = _class_curve(rng, second, twin, loss, tau)
    law = _universal(loss, float(first.norms[0]), start, tau)
    unit = np.abs(u) + start.scale(first)[:, None]

    def numbers(i: int) -> dict[str, Any]:
        return {
            "first": record(first.data, loss, network, i, logits=u[i]),
            "second": record(second.data, loss, twin_network, i, logits=other[i]),
            "two_p_r_t": tau,
            "law": law[i],
        }

    texts: dict[str, Any] = {"quantity": "the logit of the second class", "when": lambda i, k: f"at 2 p r t = {tau[k]:.3g}"}
    found = compared(other, u, unit, numbers, lost | twin_lost, **texts, group=loss, extra={"pairs": BATCH})
    return found.raised(np.max(np.abs(u - law) / unit, axis=-1))


# The elementary closed forms: hinge (3.6), cross-entropy (3.7), exponential and squared loss (3.8), against training.


def hinge_time(rate: float, norm: float, a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The time, [b], at which the margin reaches 1 with hinge loss (3.6), 0 if it starts there; a, z [b, h], rate 2 p r."""
    kappa, theta = invariants(norm, a, z)
    u0 = norm * np.sum(a * z, axis=-1)
    balanced = np.log(1 / np.maximum(u0, 1e-300))
    with np.errstate(divide="ignore", invalid="ignore"):  # inf - inf where kappa = 0, a value that np.where discards
        return np.maximum(np.where(kappa > 0, np.arcsinh(1 / kappa) - theta, balanced), 0) / rate


def hinge_logit(rate: float, norm: float, a: np.ndarray, z: np.ndarray, t: np.ndarray) -> np.ndarray:
    """u(t) under hinge loss (3.6): kappa sinh(theta_0 + 2 p r t) until it is 1; balanced u0 exp(2 p r t). [b, t.size]."""
    kappa, theta = (v[:, None] for v in invariants(norm, a, z))
    u0 = norm * np.sum(a * z, axis=-1)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):  # np.where discards 0 times inf at kappa = 0, and values past 1
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


# A comparison with a formula: (the quantity, the law, the trained value, the unit of their difference), [b, times] each.
_Sides = tuple[str, np.ndarray, np.ndarray, np.ndarray]


def _each_class(
    rng: np.random.Generator,
    loss: str,
    cosine: float,
    make: Callable[[Any], ExclusiveInit],
    compare: Callable[..., list[_Sides]],
) -> Trials:
    """Train one batch by the flow and give each class to `compare(u, rate, norm, frequency, a, zeta, times)`.

    Classes without neurons are left out; the gap of a network is the largest one of its classes.
    """
    geometry = two_rays(rng, cosine)
    start = make(rng)
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry)
    run, lost = train_flow(geometry.data, network, loss, times)
    gaps, parts = np.zeros(lost.shape), []
    for c, label in enumerate((1, -1)):
        a, zeta = start.mode(label)
        there = np.any(a, axis=-1)
        first = int(np.flatnonzero(np.asarray(geometry.data.labels) == label)[0])
        u = label * np.asarray(run.recorded)[..., first]
        # A class without neurons gets those of another network, so that no formula has zeros as input; it does not count.
        some = int(np.argmax(there))
        a, zeta, u = (np.where(there[:, None], v, v[some]) for v in (a, zeta, u))
        sides = compare(u, geometry.rates[c], geometry.norms[c], geometry.frequencies[c], a, zeta, times)
        for quantity, law, trained, unit in sides:
            texts: dict[str, Any] = {"quantity": _of_neurons(quantity, a, zeta), "when": at_time(times)}
            part = compared(trained, law, unit, lambda i: {}, **texts)
            gaps = np.where(there, np.maximum(gaps, part.gaps), gaps)
            parts.append((np.where(there & np.isfinite(part.gaps), part.gaps, -np.inf), part.quote))

    def quote(i: int) -> Quote:
        return max(parts, key=lambda part: part[0][i])[1](i)

    numbers = recorded(geometry.data, loss, network, {"trained": np.asarray(run.recorded)}, times=times)
    group = f"{loss}, {'antipodal' if cosine else 'orthogonal'}"
    return Trials(gaps, numbers, lost, group, quote)


def _of_neurons(quantity: str, a: np.ndarray, zeta: np.ndarray) -> Callable[..., str]:
    def told(i: int, *_: int) -> str:
        neurons = ", ".join(f"({x:.3g}, {y:.3g})" for x, y in zip(a[i], zeta[i], strict=True) if y)
        return f"{quantity} of a class with neurons (a, z) = {neurons}"

    return told


def _staying(rng: np.random.Generator) -> ExclusiveInit:
    return exclusive_start(rng, wrong_sign_learners=0.2)


def _any_or_balanced(rng: np.random.Generator) -> ExclusiveInit:
    start = exclusive_start(rng, wrong_sign_learners=0.2, high=1.0)
    return start if rng.uniform() < 0.5 else ExclusiveInit(start.home, start.a, start.a)


def _balanced(rng: np.random.Generator) -> ExclusiveInit:
    start = exclusive_start(rng, high=1.0)
    return ExclusiveInit(start.home, start.a, start.a)


def _off_balance(rng: np.random.Generator) -> ExclusiveInit:
    """Read-outs of a fifth of the first weights."""
    start = exclusive_start(rng, low=0.2, high=1.0).without_edge_cases()
    return ExclusiveInit(start.home, start.a, start.a / 5)


def _some_leave(rng: np.random.Generator) -> ExclusiveInit:
    """Half of the neurons leave, and the sums change at each of their events."""
    return exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).without_edge_cases()


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
    # An error in time is multiplied by g(u), which makes it an error in the clock's angle.
    slow = 1 + np.exp(u)
    return [("the time 2 p r t", law, tau, slow), ("the time 2 p r t", np.where(balanced, printed, tau), tau, slow)]


def _exponential_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    return [("the time 2 p r t", exponential_tau(_u0(norm, a, zeta), u), np.broadcast_to(rate * times, u.shape), np.exp(u))]


def _squared_sides(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    law = squared_logit(_u0(norm, a, zeta), rate * times)
    return [("the logit", law, u, np.abs(law))]


def _hinge_sides_and_end(u, rate, norm, frequency, a, zeta, times) -> list[_Sides]:
    stop = np.asarray(theory.solve_mode(Mode(frequency, norm, a, zeta), "hinge").time_to_logit(1.0))[:, None]
    printed = hinge_time(rate, norm, a, zeta)[:, None]
    ends = ("the time 2 p r t*", rate * printed, rate * stop, np.ones_like(stop))
    return [*_hinge_sides(u, rate, norm, frequency, a, zeta, times), ends]


def _first(key: Any) -> np.random.Generator:
    return generators(key, 1)[0]


def _with_leavers(numbers: dict[str, Any], shown: Any = np.asarray) -> tuple[Any, Any, Any, Any]:
    """The class with the most neurons that leave, and the formula of all its initial neurons."""
    runs = [run for run in (read_run(numbers, label) for label in (1, -1)) if run is not None]
    run = max(runs, key=lambda one: int(np.sum(one.neurons()[1] < -one.neurons()[0])))
    a, zeta = (v[None] for v in run.neurons())
    if run.problem.loss == "hinge":
        tau = np.linspace(0, run.rate * run.times[-1], 200)
        law = hinge_logit(run.rate, run.norm, a, zeta, tau / run.rate)[0]
        return run.rate * run.times, shown(run.margins), tau, shown(law)
    kappa, u0 = invariants(run.norm, a, zeta)[0][0], float(run.norm * np.sum(a * zeta))
    u = np.linspace(u0, u0 + 15, 4000)
    tau = time_along(u, 1 / RESIDUALS[str(run.problem.loss)](u) / np.hypot(kappa, u))
    seen = tau <= run.rate * run.times[-1]
    return run.rate * run.times, shown(run.margins), tau[seen], shown(u[seen])


def _as_if_balanced(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any] | None:
    """A class off balance under exponential loss, and the formula of balanced neurons with its initial logit."""
    run = read_run(numbers)
    if run is None:
        return None
    a, zeta = run.neurons()
    u0 = float(run.norm * np.sum(a * zeta))
    u = np.linspace(u0, float(run.margins.max()), 4000)
    return run.rate * run.times, run.margins, time_along(u, 1 / RESIDUALS["exponential"](u) / u), u


_TURNS = ({"cosine": 0.0}, {"cosine": -1.0})
_WRONG_SIGN = "neurons with z > -a (some with z < -a instead, which leave)"
_HYPOTHESES = (SEPARABLE, ONE_RAY, EXCLUSIVE, STAYING)


@register(
    name="hinge",
    equation="3.6",
    title="Hinge: a hyperbola until the margin, then nothing",
    meaning="With the hinge loss a class is learnt at a known moment, and then stops completely.",
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
    losses=("hinge",),
    rounds=_TURNS,
    drops=(Drop(_WRONG_SIGN, lambda key: _each_class(_first(key), "hinge", 0.0, _some_leave, _hinge_sides)),),
    figure=of_solution(MARGIN, without=_with_leavers),
)
def hinge(rng: np.random.Generator, cosine: float) -> Trials:
    """The printed formula against the trained curve, and against the stopping time of `theory.solve_mode`."""
    return _each_class(rng, "hinge", cosine, _staying, _hinge_sides_and_end)


@register(
    name="cross-entropy",
    equation="3.7",
    title="Cross-entropy: time as a function of the logit",
    meaning="With cross-entropy learning never stops: the formula gives the time to any logit, however late.",
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
    losses=("cross-entropy",),
    rounds=_TURNS,
    drops=(
        Drop(
            _WRONG_SIGN, lambda key: _each_class(_first(key), "cross-entropy", 0.0, _some_leave, _cross_entropy_sides)
        ),
    ),
    figure=of_solution(without=lambda numbers: _with_leavers(numbers, error)),
)
def cross_entropy(rng: np.random.Generator, cosine: float) -> Trials:
    """The time formula at the logits that training reached: any start by the clock integral, balanced ones by Ei."""
    return _each_class(rng, "cross-entropy", cosine, _any_or_balanced, _cross_entropy_sides)


@register(
    name="balanced-curves",
    equation="3.8",
    title="Exponential and squared loss, balanced",
    meaning="For balanced starts the curves are textbook functions: a logistic curve for the squared loss, the "
    "exponential integral for the exponential loss.",
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
    losses=("exponential", "squared"),
    rounds=_TURNS,
    batch=2 * BATCH,
    drops=(
        Drop(
            "balanced neurons (z = a/5 instead)",
            lambda key: _each_class(_first(key), "exponential", 0.0, _off_balance, _exponential_sides),
        ),
    ),
    figure=of_solution(MARGIN, without=_as_if_balanced),
)
def balanced_curves(rng: np.random.Generator, cosine: float) -> list[Trials]:
    """Balanced starts under exponential and squared loss, the same ones for both, against the printed formulas."""
    again = copy.deepcopy(rng)
    return [
        _each_class(rng, "exponential", cosine, _balanced, _exponential_sides),
        _each_class(again, "squared", cosine, _balanced, _squared_sides),
    ]


# Balance: |w_j|^2 - z_j^2 is constant along the flow, for any data and any loss (1.3).


def invariant(w: np.ndarray, z: np.ndarray) -> np.ndarray:
    """|w_j|^2 - z_j^2 of every neuron (1.3): w [*batch, h, d], z [*batch, h] -> [*batch, h]."""
    return np.sum(w**2, axis=-1) - z**2


def _lengths(before: TwoLayerReLU, after: TwoLayerReLU) -> dict[str, np.ndarray]:
    """|z| and |w| of the neuron that grows most, before and after training, for the figure: [*batch, 2] each."""
    z = np.stack([np.abs(net.z) for net in (before, after)], axis=-1)
    w = np.stack([np.linalg.norm(net.w, axis=-1) for net in (before, after)], axis=-1)
    most = np.argmax(np.abs(np.diff(z, axis=-1)), axis=-2)[..., None]
    return {name: np.take_along_axis(v, most, axis=-2)[..., 0, :] for name, v in (("read_out", z), ("first_layer", w))}


def _drift(before: TwoLayerReLU, after: TwoLayerReLU) -> np.ndarray:
    """The largest change of the invariant in units of the squared weights of the neurons, for each network [b]."""
    (w0, z0), (w1, z1) = ((np.asarray(net.w), np.asarray(net.z)) for net in (before, after))
    size = np.sum(w0**2, -1) + z0**2 + np.sum(w1**2, -1) + z1**2
    change = np.abs(invariant(w1, z1) - invariant(w0, z0))
    return np.max(change / np.where(size > 0, size, 1), axis=-1)


def _by_descent(rng: np.random.Generator) -> Trials:
    """Descent with a finite step, which changes |w|^2 - z^2 by step_size^2 (|dw|^2 - dz^2) per step."""
    data = cone_data(rng)
    network = TwoLayerReLU(*networks(rng, low=0.3))
    step_size, steps = 0.1, 100
    run = train_descent(data, network, "cross-entropy", step_size, steps, steps)
    numbers = recorded(data, "cross-entropy", network, step_size=step_size, steps=steps)
    what = "the change of |w|^2 - z^2 of a neuron over its squared weights"
    when = f"after {steps} steps of size {step_size} with cross-entropy"
    return compared(_drift(run.initial, run.final), 0.0, 1.0, numbers, quantity=what, when=when)


def _hyperbola(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """|w| over |z| with the initial |w|^2 - z^2."""
    kept = trial["first_layer"][0] ** 2 - trial["read_out"][0] ** 2
    return np.sqrt(np.where(x**2 + kept >= 0, x**2 + kept, np.nan))


def _drifted(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The neuron that descent with a finite step moves most."""
    # As many networks as in a batch, so that the compiled program is used again.
    problem = Problem.read({**numbers, **{name: np.stack([numbers[name]] * BATCH) for name in ("w", "z")}})
    steps = numbers["steps"]
    assert problem is not None
    assert isinstance(problem.network, TwoLayerReLU)
    run = train_descent(problem.data, problem.network, problem.loss, numbers["step_size"], steps, steps)
    found = {name: value[0] for name, value in _lengths(problem.network, run.final).items()}  # pyright: ignore[reportArgumentType]
    line = np.linspace(found["read_out"].min(), found["read_out"].max(), 50)
    return found["read_out"], found["first_layer"], line, _hyperbola(found, line)


@register(
    name="balance",
    equation="1.3",
    title="Balance of the two layers",
    meaning="What one layer gains the other gains too: the difference between them never changes, and so the start "
    "decides how rich or lazy learning is.",
    claim="|w_j|^2 - z_j^2 of every neuron is constant along the gradient flow, for any data and any loss",
    formula=r"\frac{d}{dt} \left( \left| w_j \right|^2 - z_j^2 \right) = 0",
    hypotheses=("gradient flow",),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with="simulate_flow: adaptive Runge-Kutta on all weights",
    default_trials=192,
    rounds=lambda k: {"loss": LOSS_NAMES[k % len(LOSS_NAMES)], "separable": (k // len(LOSS_NAMES)) % 2 == 0},
    drops=(Drop("gradient flow (descent with a finite step instead)", _by_descent),),
    figure=LawFigure(
        lambda trial: (trial["read_out"], trial["first_layer"]),
        _hyperbola,
        "second layer: size of the read-out weight |z| of a neuron",
        "first layer: length |w|\nof the same neuron",
        label=lambda trial: f"|w|² − z² = {trial['first_layer'][0] ** 2 - trial['read_out'][0] ** 2:.2g}",
        gap="drift of |w|² − z², relative to |w|² + z²",
        without=_drifted,
    ),
)
def balance(rng: np.random.Generator, loss: str, separable: bool) -> Trials:
    """Flow of full networks on cones and on arbitrary data, with neurons of any activity and sign."""
    data = cone_data(rng) if separable else any_data(rng)
    network = TwoLayerReLU(*networks(rng))
    r = float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())
    times = np.array([0.1, 0.3, 0.6, 1.0]) * (5 if separable else 0.5) / r
    run, lost = train_flow(data, network, loss, times)
    extra = _lengths(run.initial, run.final)
    return Trials(_drift(run.initial, run.final), recorded(data, loss, network, times=times), lost, loss, extra=extra)
