"""The elementary closed forms: hinge (3.6), cross-entropy (3.7), exponential and squared loss (3.8), against training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve import special, theory
from gradstarve.problem import Mode
from gradstarve.theorems.drawing import draw_gaps
from gradstarve.theorems.entry import Counterexample, Outcome, Tally, Theorem
from gradstarve.theorems.hypotheses import BALANCED, EXCLUSIVE, ONE_RAY, SEPARABLE, STAYING
from gradstarve.theorems.mode import flow_times, invariants
from gradstarve.theorems.running import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, train_flow
from gradstarve.theorems.sampling import Start, exclusive_start, generators, record, two_rays


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


def _each_class(
    key: Any, trials: int, loss: str, make: Callable[[Any], Start], gap: Callable[..., np.ndarray], tally: Tally
) -> None:
    """Train batches by the flow and give each class to `gap(u, rate, norm, frequency, a, zeta, times) -> [b]`.

    Classes without neurons are left out; the gap of a network is the larger one of its classes.
    """
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
            found = gap(u, geometry.rates[c], geometry.norms[c], geometry.frequencies[c], a, zeta, times)
            worst = np.where(there, np.maximum(worst, found), worst)
        tally.add(
            worst,
            f"{loss}, {'antipodal' if k % 2 else 'orthogonal'}",
            lambda i, d=geometry.data, n=network, t=times, r=run: record(
                d, loss, n, i, times=t, trained=np.asarray(r.recorded)[i]
            ),
            lost,
        )


def _balanced(rng: Any) -> Start:
    start = exclusive_start(rng, high=1.0)
    return Start(start.home, start.a, start.a)


def _u0(norm: float, a: np.ndarray, zeta: np.ndarray) -> np.ndarray:
    return norm * np.sum(a * zeta, axis=-1)[:, None]


def _hinge_gap(u, rate, norm, frequency, a, zeta, times):
    expected = hinge_logit(rate, norm, a, zeta, times)
    size = np.abs(expected) + norm * np.sum(a**2 + zeta**2, axis=-1)[:, None] / 2
    return np.max(np.abs(u - expected) / size, axis=-1)


def _cross_entropy_gap(u, rate, norm, frequency, a, zeta, times):
    u0, tau = _u0(norm, a, zeta), rate * np.concatenate([[0.0], times])
    u = np.concatenate([u0, u], axis=-1)
    kappa = invariants(norm, a, zeta)[0][:, None]
    law = np.asarray(special.clock_integral("cross-entropy", u0, u, kappa))
    balanced = (kappa == 0) & (u0 > 0)
    printed = cross_entropy_tau(np.where(balanced, u0, 1.0), np.where(balanced, u, 1.0))
    error = np.maximum(np.abs(law - tau), np.where(balanced, np.abs(printed - tau), 0))
    # An error in the time of g(u) times itself in the clock's angle: time is long where the clock is slow.
    return np.max(error * (1 / (1 + np.exp(u))), axis=-1)


def _exponential_gap(u, rate, norm, frequency, a, zeta, times):
    error = np.abs(exponential_tau(_u0(norm, a, zeta), u) - rate * times)
    return np.max(error * np.exp(-u), axis=-1)


def _squared_gap(u, rate, norm, frequency, a, zeta, times):
    return np.max(np.abs(u / squared_logit(_u0(norm, a, zeta), rate * times) - 1), axis=-1)


def check_hinge(key: Any, trials: int) -> Outcome:
    """The printed formula against the trained curve, and against what `theory.solve_mode` says of the stopping time."""

    def gap(u, rate, norm, frequency, a, zeta, times):
        curve = _hinge_gap(u, rate, norm, frequency, a, zeta, times)
        stop = np.asarray(theory.solve_mode(Mode(frequency, norm, a, zeta), "hinge").time_to_logit(1.0))
        return np.maximum(curve, rate * np.abs(stop - hinge_time(rate, norm, a, zeta)))

    tally = Tally(FLOW_TOLERANCE)
    _each_class(key, trials, "hinge", lambda rng: exclusive_start(rng, doubters=0.2), gap, tally)
    return tally.outcome()


def check_cross_entropy(key: Any, trials: int) -> Outcome:
    """The time formula at the logits that training reached: any start by the clock integral, balanced ones by Ei."""

    def make(rng):
        start = exclusive_start(rng, doubters=0.2, high=1.0)
        return start if rng.uniform() < 0.5 else Start(start.home, start.a, start.a)

    tally = Tally(FLOW_TOLERANCE)
    _each_class(key, trials, "cross-entropy", make, _cross_entropy_gap, tally)
    return tally.outcome()


def check_balanced(key: Any, trials: int) -> Outcome:
    """Balanced starts under exponential and squared loss, against the printed formulas."""
    tally = Tally(FLOW_TOLERANCE)
    half = -(-trials // 2)
    _each_class(key, half, "exponential", _balanced, _exponential_gap, tally)
    _each_class(key, half, "squared", _balanced, _squared_gap, tally)
    return tally.outcome()


def _without(key: Any, loss: str, make: Callable[[Any], Start], gap: Callable, dropped: str, units: str) -> Counterexample:
    """The worst network of one batch of starts that break a hypothesis."""
    tally = Tally(FLOW_TOLERANCE)
    _each_class(key, 1, loss, make, gap, tally)
    outcome = tally.outcome()
    worst = outcome.worst_instance
    wide = [j for j, z in enumerate(worst["z"]) if z]
    pairs = ", ".join(f"({np.linalg.norm(worst['w'][j]):.3g}, {worst['z'][j]:.3g})" for j in wide)
    return Counterexample(
        dropped,
        f"neurons with (|w|, z) = {pairs} are off the formula by {outcome.worst_gap:.3g} ({units}) up to "
        f"t = {worst['times'][-1]:.3g}",
        outcome.worst_gap,
        FLOW_TOLERANCE,
        worst,
    )


def _some_leave(rng: Any) -> Start:
    return exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).usual()


def hinge_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a": half of the neurons leave, and the sums change at each of their events."""
    return _without(key, "hinge", _some_leave, _hinge_gap, _WRONG_SIGN, "relative to the size of the logits")


def cross_entropy_without_right_sign(key: Any) -> Counterexample:
    """Drop "z > -a", as for hinge."""
    return _without(key, "cross-entropy", _some_leave, _cross_entropy_gap, _WRONG_SIGN, "in the clock's angle")


def balanced_without_balance(key: Any) -> Counterexample:
    """Drop "balanced": read-outs of a fifth of the first weights."""

    def make(rng):
        start = exclusive_start(rng, low=0.2, high=1.0).usual()
        return Start(start.home, start.a, start.a / 5)

    return _without(key, "exponential", make, _exponential_gap, "balanced neurons (z = a/5 instead)", "in the clock's angle")


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
