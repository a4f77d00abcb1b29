"""The elementary closed forms: hinge (3.6), cross-entropy (3.7), exponential and squared loss (3.8), against training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve import special, theory
from gradstarve.problem import Mode
from gradstarve.theorems._drawing import draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import BALANCED, EXCLUSIVE, ONE_RAY, SEPARABLE, STAYING
from gradstarve.theorems._running import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, train_flow
from gradstarve.theorems._sampling import Start, exclusive_start, generators, record, two_rays
from gradstarve.theorems.laws.modes import flow_times, invariants


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
    key: Any, trials: int, loss: str, make: Callable[[Any], Start], compare: Callable[..., list[_Sides]], tally: Tally
) -> Quote | None:
    """Train batches by the flow and give each class to `compare(u, rate, norm, frequency, a, zeta, times)`.

    Classes without neurons are left out; the gap of a network is the largest one of its classes. The quote is that of the
    largest gap of all.
    """
    furthest: Quote | None = None
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
                if found[i, j] > (furthest.gap if furthest else -np.inf):
                    neurons = ", ".join(f"({x:.3g}, {y:.3g})" for x, y in zip(a[i], zeta[i], strict=True) if y)
                    what = f"{quantity} of a class with neurons (a, z) = {neurons}"
                    furthest = Quote(what, f"at t = {times[j]:.4g}", law[i, j], trained[i, j], unit[i, j])
        tally.add(
            worst,
            f"{loss}, {'antipodal' if k % 2 else 'orthogonal'}",
            lambda i, d=geometry.data, n=network, t=times, r=run: record(
                d, loss, n, i, times=t, trained=np.asarray(r.recorded)[i]
            ),
            lost,
        )
    return furthest


def _balanced(rng: Any) -> Start:
    start = exclusive_start(rng, high=1.0)
    return Start(start.home, start.a, start.a)


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


def check_hinge(key: Any, trials: int) -> Outcome:
    """The printed formula against the trained curve, and against what `theory.solve_mode` says of the stopping time."""

    def compare(u, rate, norm, frequency, a, zeta, times):
        stop = np.asarray(theory.solve_mode(Mode(frequency, norm, a, zeta), "hinge").time_to_logit(1.0))[:, None]
        printed = hinge_time(rate, norm, a, zeta)[:, None]
        ends = ("the time 2 p r t*", rate * printed, rate * stop, np.ones_like(stop))
        return [*_hinge_sides(u, rate, norm, frequency, a, zeta, times), ends]

    tally = Tally(FLOW_TOLERANCE)
    _each_class(key, trials, "hinge", lambda rng: exclusive_start(rng, doubters=0.2), compare, tally)
    return tally.outcome()


def check_cross_entropy(key: Any, trials: int) -> Outcome:
    """The time formula at the logits that training reached: any start by the clock integral, balanced ones by Ei."""

    def make(rng):
        start = exclusive_start(rng, doubters=0.2, high=1.0)
        return start if rng.uniform() < 0.5 else Start(start.home, start.a, start.a)

    tally = Tally(FLOW_TOLERANCE)
    _each_class(key, trials, "cross-entropy", make, _cross_entropy_sides, tally)
    return tally.outcome()


def check_balanced(key: Any, trials: int) -> Outcome:
    """Balanced starts under exponential and squared loss, against the printed formulas."""
    tally = Tally(FLOW_TOLERANCE)
    half = -(-trials // 2)
    _each_class(key, half, "exponential", _balanced, _exponential_sides, tally)
    _each_class(key, half, "squared", _balanced, _squared_sides, tally)
    return tally.outcome()


def _without(key: Any, loss: str, make: Callable[[Any], Start], compare: Callable, dropped: str) -> Counterexample:
    """The worst network of one batch of starts that break a hypothesis."""
    tally = Tally(FLOW_TOLERANCE)
    quote = _each_class(key, 1, loss, make, compare, tally)
    assert quote is not None  # some class has neurons
    return Counterexample.of(dropped, quote, FLOW_TOLERANCE, tally.outcome().worst_instance)


def _some_leave(rng: Any) -> Start:
    return exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).usual()


def hinge_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a": half of the neurons leave, and the sums change at each of their events."""
    return _without(key, "hinge", _some_leave, _hinge_sides, _WRONG_SIGN)


def cross_entropy_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a", as for hinge."""
    return _without(key, "cross-entropy", _some_leave, _cross_entropy_sides, _WRONG_SIGN)


def balanced_without_balance(key: Any) -> Counterexample:
    """Drop "balanced": read-outs of a fifth of the first weights."""

    def make(rng):
        start = exclusive_start(rng, low=0.2, high=1.0).usual()
        return Start(start.home, start.a, start.a / 5)

    return _without(key, "exponential", make, _exponential_sides, "balanced neurons (z = a/5 instead)")


_WRONG_SIGN = "neurons with z > -a (some with z < -a instead, which leave)"
_HYPOTHESES = (SEPARABLE, ONE_RAY, EXCLUSIVE, STAYING)

HINGE = Theorem(
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
    check=check_hinge,
    necessity=(hinge_without_right_sign,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (|u| + r Σ(a² + z²)/2)"),
)

CROSS_ENTROPY = Theorem(
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
    check=check_cross_entropy,
    necessity=(cross_entropy_without_right_sign,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "error of 2 p r t, in units of the clock's angle"),
)

BALANCED = Theorem(
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
    check=check_balanced,
    necessity=(balanced_without_balance,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "error of the clock's angle (exponential), of u relative (squared)"),
)
