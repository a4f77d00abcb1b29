"""The shape of the error curve: its inflections (5.1), the transition from rich to lazy (5.2), the plateau (5.3).

Also here: speed and tails (6.1)-(6.3).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import numpy as np

from gradstarve import theory
from gradstarve.ground import GUIDE
from gradstarve.problem import Dataset, DeepReLU, Mode, TwoLayerReLU, as_loss
from gradstarve.theorems._entry import (
    BALANCED,
    BELOW_ONE,
    COLOURS,
    EXCLUSIVE,
    ONE_RAY,
    STAYING,
    Outcome,
    Quote,
    of_losses,
)
from gradstarve.theorems._figure import LawFigure, Marks, error, of_solution
from gradstarve.theorems._formulas import LOG_SLOPES, RESIDUALS, SMOOTH, mode_curve
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    BY_LATE,
    FLOW_TOLERANCE,
    WHY_FLOW,
    WIDTH,
    ExclusiveInit,
    Geometry,
    descent_gradient,
    exclusive_start,
    log_uniform,
    record,
    train_flow,
    train_late,
    two_rays,
)
from gradstarve.theorems.laws.modes import FRACTIONS, flow_times, invariants

_FLOW = "simulate_flow on all weights; e'' of the trained network by two automatic derivatives along its own gradient"


def _curvature(geometry: Geometry, network: TwoLayerReLU, loss: str) -> tuple[np.ndarray, ...]:
    """(u, e', e'') of class + along the flow, each [b]: derivatives in time of sigmoid(-f(x_+)), by autodiff alone."""
    return tuple(np.asarray(value) for value in _derivatives(geometry.data, network, loss))


@partial(jax.jit, static_argnums=2)
def _derivatives(data: Dataset, network: TwoLayerReLU, loss: str):
    def forward(function):
        """d/dt of a function of the networks along the flow."""
        return lambda net: jax.jvp(function, (net,), (descent_gradient(data, net, loss),))[1]

    def logit(net):
        return jax.vmap(lambda one: one(data.points[:1])[0])(net)

    speed = forward(lambda net: jax.nn.sigmoid(-logit(net)))
    return logit(network), speed(network), forward(speed)(network)


def bend(loss: str, u: np.ndarray, kappa: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e''/(e' u') of (5.1), and the sum of the sizes of its terms, the unit of its gap."""
    odds = 1 - 2 / (1 + np.exp(-u))
    inner = LOG_SLOPES[loss](u)
    steep = u / (kappa**2 + u**2)
    return odds + inner + steep, np.abs(odds) + np.abs(inner) + np.abs(steep)


def _trained(
    rng: Any, loss: str, wrong_signs: float = 0.0
) -> tuple[Geometry, TwoLayerReLU, np.ndarray, np.ndarray, np.ndarray, tuple[np.ndarray, ...]]:
    """A batch trained to the last of `times`: (geometry, initial networks, kappa of class + at the start, times, lost, (u,
    whether u moves, e''/(e' u')) at the end)."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, wrong_signs, low=1e-2, wrong_sign_learners=0.3)
    start = ExclusiveInit(np.abs(start.home), start.a, start.zeta)  # class + alone: every trial has its curve
    if as_loss(loss).pulls_back:
        start = start.below(geometry, 1.0)
    network = start.network(rng, geometry)
    kappa, _ = invariants(geometry.norms[0], *start.mode(1))
    times = FRACTIONS * log_uniform(rng, 0.5, 8) / geometry.rates[0]
    run, lost = train_flow(geometry.data, network, loss, times)
    u, speed, second = _curvature(geometry, run.final, loss)  # pyright: ignore[reportArgumentType]
    # A reached hinge margin is constant, and next to its target the squared loss has no accurate digits left.
    moving = (speed != 0) & ~lost
    if as_loss(loss).pulls_back:
        moving &= u < as_loss(loss).rest - 1e-3
    # du/dt from de/dt = -sigmoid(u) sigmoid(-u) du/dt.
    rise = -speed / (jax.nn.sigmoid(u) * jax.nn.sigmoid(-u))
    return geometry, network, kappa, times, lost, (u, moving, second / np.where(moving, speed * rise, 1))


def _one_neuron(geometry: Geometry, kappa: np.ndarray, u: np.ndarray) -> TwoLayerReLU:
    """Networks of one neuron on class + with logits u and invariants kappa, [b]; padded to the common width."""
    norm, (axis, other) = geometry.norms[0], geometry.axes
    steep = np.hypot(kappa, u)
    grown, decayed = np.sqrt(2 * (steep + u) / norm), np.sqrt(2 * np.maximum(steep - u, 0) / norm)
    w, z = np.zeros((u.size, WIDTH, axis.size)), np.zeros((u.size, WIDTH))
    # w.x of the other class is clearly below 0; at 0, rounding would decide whether the neuron is active on it.
    w[:, 0], z[:, 0] = ((grown + decayed) / 2)[:, None] * (axis - other), (grown - decayed) / 2
    return TwoLayerReLU(w, z)


def _misplaced(geometry: Geometry, loss: str, kappa: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """1 if e'' of a network of this kappa does not change sign within 0.1 % of a predicted inflection, else 0: [b]."""
    single = np.isinf(upper) & (not as_loss(loss).stops)  # a balanced curve has the upper inflection alone
    lower, upper = np.where(single, np.inf, lower), np.where(single, lower, upper)
    with np.errstate(invalid="ignore"):  # inf - inf if there is no inflection
        apart = ~(upper - lower < 0.05)
    wrong = np.zeros(kappa.shape, bool)
    for place, into in ((lower, 1), (upper, -1)):
        # A logit far below kappa is a difference of squares of weights that rounding destroys.
        there = (place > 1e-10 * kappa) & (place > 0) & (place < 0.99) & apart
        u = np.where(there, place, 0.5)
        before, after = (_curvature(geometry, _one_neuron(geometry, kappa, u * f), loss)[2] for f in (0.999, 1.001))
        wrong |= there & ~((into * before > 0) & (into * after < 0))
    return wrong.astype(float)


def _some_leave(rng: np.random.Generator) -> Trials:
    """Some neurons leave during training, and the kappa of the start is not that of the remaining neurons."""
    geometry, network, kappa, times, _, (u, moving, found) = _trained(rng, "cross-entropy", wrong_signs=0.5)
    law, size = bend("cross-entropy", u, kappa)
    each = {"trained": found, "law": law, "logit": u}
    numbers = recorded(geometry.data, "cross-entropy", network, each, times=times)
    texts: dict[str, Any] = {"quantity": lambda i: f"e''/(e' u') at the logit {u[i]:.4g}", "when": f"at t = {times[-1]:.4g}"}
    return compared(found, law, size, numbers, ~moving, **texts)


_TALL = 2.0  # of the figure


def _bent_elsewhere(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The curvature of a class that neurons left, within the limits of the figure."""
    found, law = np.clip([numbers["trained"], numbers["law"]], -_TALL, _TALL)
    return [numbers["logit"]], [found], [numbers["logit"]] * 2, [found, law]


@register(
    name="inflections",
    equation="5.1",
    title="Where the error curve bends",
    meaning="The error curve is a sigmoid with bends at known heights: a slow start, a fast middle and a slow end.",
    claim="e'' = 0 exactly where 1 - 2 sigmoid(u) + g'/g + u/(kappa^2 + u^2) = 0, for cross-entropy 1 - 3 sigmoid(u) + ...; "
    "the curve is concave between the places that theory.error_inflections gives",
    formula=(
        r"\begin{split} \frac{d^2 e}{dt^2} = 0 \quad &\Longleftrightarrow \quad "
        r"1 - 2\, \text{sigmoid}(u) + \frac{g'(u)}{g(u)} + \frac{u}{\kappa^2 + u^2} = 0, \\ "
        r"\text{cross-entropy:} \quad &\Longleftrightarrow \quad "
        r"1 - 3\, \text{sigmoid}(u) + \frac{u}{\kappa^2 + u^2} = 0 \end{split}"
    ),
    hypotheses=(ONE_RAY, EXCLUSIVE, STAYING, BELOW_ONE),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_FLOW,
    default_trials=384,
    rounds=EACH_LOSS,
    drops=(Drop("neurons that stay (some with z < -a instead, which leave)", _some_leave),),
    figure=LawFigure(
        lambda trial: (trial["logit"], trial["trained"]) if trial["moving"] and abs(trial["trained"]) < _TALL else None,
        lambda trial, x: bend(trial["loss"], x, np.asarray(trial["kappa"]))[0],
        "margin of the class (its logit u); the error curve bends where a line passes 0",
        "curvature of the error\ne'' / (e' u')",
        label=lambda trial: f"κ = {trial['kappa']:.2g}",
        span=(-1.0, 4.0),
        xlim=(-1.0, 4.0),
        ylim=(-_TALL, _TALL),
        behind=lambda ax: ax.axhline(0, color=GUIDE, linewidth=0.8),
        gap="gap of the curvature, relative to its terms",
        without=_bent_elsewhere,
    ),
)
def inflections(rng: np.random.Generator, loss: str) -> Trials:
    """e'' of trained networks against (5.1), and its sign against the places `theory.error_inflections` gives."""
    geometry, network, kappa, times, lost, (u, moving, found) = _trained(rng, loss)
    law, size = bend(loss, u, kappa)
    found = np.where(moving, found, 0)
    gaps = np.where(moving, np.abs(found - law) / size, 0)
    lower, upper = np.asarray(theory.error_inflections(kappa, loss)).T
    # For u >= 0: concave up to the only inflection of a balanced curve, and between the two of any other curve.
    if as_loss(loss).stops:
        inside = (u > 0) & (u < upper) & (kappa**2 < 2)
    else:
        inside = np.where(np.isinf(upper), u < lower, (u > lower) & (u < upper)) & np.isfinite(lower)
    wrong = moving & (u >= 0) & ((found > 0) != inside)
    gaps = np.maximum(gaps, np.where(wrong, np.abs(found) / size, 0))
    gaps = np.maximum(gaps, _misplaced(geometry, loss, kappa, lower, upper))
    numbers = recorded(geometry.data, loss, network, {"trained": found, "law": law}, times=times)
    extra = {"concave": int(np.sum(moving & inside)), "logit": u, "kappa": kappa, "moving": moving}
    return Trials(gaps, numbers, lost, loss, extra=extra)


_PLACES = 64
# Approximate kappa_c in plain numbers, independent of the law. The steps on both sides are relative; from 0.15 % on the two
# inflections are further apart than the places at which e'' is computed.
_ABOUT = {"cross-entropy": 0.5852, "exponential": 0.4195, "squared": 0.3314}
_NEAR = np.concatenate([sign * np.geomspace(0.0016, 0.06, BATCH // 4) for sign in (-1, 1)])


def _bends(geometry: Geometry, loss: str, kappa: np.ndarray, low: float, high: float) -> np.ndarray:
    """The number of sign changes of e'' between the logits `low` and `high`, at `_PLACES` logits: [b]."""
    starts = (_one_neuron(geometry, kappa, np.full(kappa.size, u)) for u in np.linspace(low, high, _PLACES))
    second = np.stack([_curvature(geometry, network, loss)[2] for network in starts], axis=-1)
    return np.sum(second[:, 1:] * second[:, :-1] < 0, axis=-1)


def _two_bends(rng: np.random.Generator, loss: str, kappa: tuple[float, float], low: float, high: float) -> Trials:
    """Networks with kappa between the two numbers `kappa`; the law below kappa_c gives 2 inflections."""
    geometry = two_rays(rng, 0.0)
    values = rng.uniform(*kappa, BATCH)
    found = _bends(geometry, loss, values, low, high)
    where = f"for 0 < u < 1 with {loss} loss" if as_loss(loss).stops else f"from u = {low:g} on with {loss}"

    def numbers(i: int) -> dict[str, Any]:
        return {"loss": loss, "kappa": values[i], "inflections": found[i], "law": 2}

    texts: dict[str, Any] = {"quantity": f"the number of inflections {where}"}
    texts["when"] = lambda i: f"at kappa = {values[i]:.3g}"
    return compared(found, 2, 1.0, numbers, **texts)


def _miscounted(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    kappa, found = numbers["kappa"], numbers["inflections"]
    return [kappa], [found], [kappa, kappa], [found, numbers["law"]]


@register(
    name="rich-to-lazy",
    equation="5.2",
    title="Two inflections below kappa_c, none above",
    meaning="Small starts give a plateau and then a sigmoid; beyond a critical size of the start the plateau disappears "
    "and the error falls at once.",
    claim="from u = 0 on the error curve has two inflections for kappa < kappa_c and is convex for kappa > kappa_c "
    "(cross-entropy 0.585, each loss its own)",
    formula=(
        r"\begin{split} \kappa < \kappa_c: \quad &\text{two inflections of } e(t) \text{ where } u > 0, \\ "
        r"\kappa > \kappa_c: \quad &\text{none,} \quad \frac{d^2 e}{dt^2} > 0, \\ "
        r"\kappa_c = {} &0.58521 \text{ (cross-entropy)}, \quad 0.41950 \text{ (exponential)}, \quad "
        r"0.33144 \text{ (squared)} \end{split}"
    ),
    hypotheses=(ONE_RAY, of_losses("cross-entropy, exponential or squared loss", *SMOOTH), "kappa > 0, u >= 0"),
    tolerance=0.5,
    why_tolerance="a difference of counts; a kappa_c that is off by 0.5 % counts wrong at one of the kappa next to it",
    checked_with="two automatic derivatives of the error along the network's own gradient, at 64 logits",
    default_trials=288,
    losses=("cross-entropy", "exponential", "squared"),
    rounds=tuple({"loss": loss} for loss in SMOOTH),
    drops=(
        Drop(
            # With hinge loss a curve has one inflection at u = 0 and one above it.
            "a loss that does not stop at a margin (hinge loss instead)",
            lambda rng: _two_bends(rng, "hinge", (0.45, 0.55), 1e-3, 0.99),
        ),
        # A curve that starts below u = 0 has a third inflection.
        Drop("u >= 0 (a start at u = -2 instead)", lambda rng: _two_bends(rng, "cross-entropy", (0.2, 0.5), -2.0, 2.0)),
    ),
    figure=LawFigure(
        lambda trial: (trial["kappa"], trial["inflections"]),
        lambda trial, x: np.where(x < float(theory.kappa_critical(trial["loss"])), 2.0, 0.0),
        "κ of the start: rich on the left, lazy on the right",
        "inflections of\nthe error curve",
        one_line=True,
        xscale="log",
        ylim=(-0.3, 3.4),
        gap="difference in the number of inflections",
        without=_miscounted,
    ),
)
def rich_to_lazy(rng: np.random.Generator, loss: str) -> Trials:
    """How often e'' of a network changes sign between u = 0 and far up, for kappa on both sides of the transition."""
    geometry = two_rays(rng, 0.0)
    # Half of the trials are 0.15 % to 6 % off the transition, on both sides, in equal steps of the logarithm.
    near = log_uniform(rng, 0.95, 1.05, _NEAR.size) * _NEAR
    kappa = np.concatenate([_ABOUT[loss] * (1 + near), log_uniform(rng, 0.1, 2, BATCH - near.size)])
    found = _bends(geometry, loss, kappa, 1e-3, min(2.0, 0.99 * as_loss(loss).rest))
    expected = np.where(kappa < theory.kappa_critical(loss), 2, 0)

    def numbers(i: int) -> dict[str, Any]:
        return {"loss": loss, "kappa": kappa[i], "inflections": found[i], "law": expected[i]}

    return Trials(np.abs(found - expected), numbers, group=loss)


_SMALL = (1e-10, 1e-8)
_PLATEAU_TOLERANCE = 1e-3
_OFF_BALANCE = "the start is balanced (a = e^2 z instead, with the same first logit)"


def _class_of(trial: dict[str, Any]) -> tuple[float, float]:
    """p and r of the first class."""
    mine = np.asarray(trial["labels"]) == np.asarray(trial["labels"])[0]
    return float(np.asarray(trial["weights"])[mine].sum()), float(np.linalg.norm(np.asarray(trial["points"])[0]))


def _plateau_marks(trial: dict[str, Any]) -> Marks:
    p, r = _class_of(trial)
    return p * r * trial["by_the_law"]["times"][:3], trial["by_the_law"]["trained"][:3]


def _plateau_missed(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    x, u = _plateau_marks(numbers)
    return x, u, x, numbers["start"] * np.exp(2 * RESIDUALS[numbers["loss"]](0.0) * x)


@register(
    name="plateau",
    equation="5.3",
    title="A small start waits log(1/u0) / (p r), half of that for hinge",
    meaning="The wait at the start grows like the logarithm of how small the weights are, and the hinge loss waits half "
    "as long.",
    claim="a balanced mode from u0 << 1 is at sqrt(u0) after half of the plateau and of order one at its end",
    formula=(
        r"T = \frac{\log(1/u_0)}{2\, p\, r\, g(0)}, \qquad u(T/2) = \sqrt{u_0}\, (1 + O(\sqrt{u_0})), \qquad u(T) = O(1)"
    ),
    hypotheses=(ONE_RAY, EXCLUSIVE, BALANCED, "u0 << 1"),
    tolerance=_PLATEAU_TOLERANCE,
    why_tolerance="the next term is of relative order sqrt(u0) <= 1e-4; ten times that",
    checked_with=BY_FLOW,
    default_trials=96,
    rounds=EACH_LOSS,
    drops=(Drop(_OFF_BALANCE, {"loss": "cross-entropy", "unbalance": 1.0}),),
    figure=LawFigure(
        _plateau_marks,
        lambda trial, x: trial["start"] * np.exp(2 * RESIDUALS[trial["loss"]](0.0) * x),
        "time of the class: frequency × norm × t  (p r t)",
        "margin of the class\n(its logit u)",
        each=1,
        yscale="log",
        gap="distance from √u₀ at half of the plateau, relative",
        without=_plateau_missed,
    ),
)
def plateau(rng: np.random.Generator, loss: str, unbalance: float = 0.0) -> Trials:
    """Balanced neurons of any number at logits of 1e-10 to 1e-8, followed through the plateau.

    `unbalance` enlarges first-layer weights and shrinks read-outs by the same factor, at the same initial logit.
    """
    geometry = two_rays(rng, 0.0)
    norm, p = geometry.norms[0], geometry.frequencies[0]
    start = log_uniform(rng, *_SMALL)
    network = _of_logit(rng, geometry, start, unbalance).network(rng, geometry)
    length = float(theory.plateau_length(p, norm, start, loss))
    times = length * np.array([0.25, 0.5, 0.75, 1.0])
    run, lost = train_flow(geometry.data, network, loss, times)
    u = np.asarray(run.recorded)[..., 0]
    # On the plateau u grows like e^(2 p r g(0) t): half of the way up, on the logarithmic scale, at half of the time.
    halfway = np.abs(u[:, 1] / np.sqrt(start) - 1)
    # At the end of the plateau the error has left 1/2: the logit is between 0.3 and the margin 1, whatever the start was.
    arrived = np.maximum(0.3 - u[:, 3], u[:, 3] - 1 - FLOW_TOLERANCE)

    def numbers(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, start=start, by_the_law={"times": times, "trained": u[i]})

    def quote(i: int) -> Quote:
        when, law = f"at t = {times[1]:.4g}, half of the plateau of (5.3),", np.sqrt(start)
        return Quote("the logit of class +", when, law, u[i, 1], law)

    return Trials(np.where(arrived > 0, np.inf, halfway), numbers, lost, loss, quote)


# Speed: the time to a confidence (6.1), hinge against cross-entropy (6.2), and the tails of the error (6.3).


def _some_leave_late(rng: np.random.Generator) -> Trials:
    """Some neurons leave the class during training, so that the invariants of the start no longer hold."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).without_edge_cases()
    # Neurons next to the border would leave late, after the error that is compared, so they are moved away from it.
    start = ExclusiveInit(np.abs(start.home), start.a, np.where(start.zeta < -start.a, 1.5, 1) * start.zeta)
    network = start.network(rng, geometry)
    # Times in units of the clock of class +, however rare or short this class is beside the other.
    times = flow_times(rng, geometry, 10.0, 20.0) * geometry.pace / geometry.rates[0]
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    u, norm = np.asarray(run.recorded)[:, -1, 0], geometry.norms[0]
    a, zeta = start.mode(1)
    kappa, u0 = invariants(norm, a, zeta)[0], norm * np.sum(a * zeta, axis=-1)
    learnt = (u > 1) & (u > u0) & ~lost
    error = 1 / (1 + np.exp(np.where(learnt, u, np.maximum(u0, 0) + 1)))
    law = np.asarray(theory.time_to_confidence(geometry.frequencies[0], norm, u0, "cross-entropy", error, kappa=kappa))
    numbers = recorded(geometry.data, "cross-entropy", network, {"error": error, "law": law}, times=times)
    texts: dict[str, Any] = {"quantity": lambda i: f"the time at which the error is {error[i]:.4g}"}
    texts["when"] = "with neurons that leave,"
    return compared(times[-1], law, 1 / (geometry.rates[0] * error), numbers, ~learnt, **texts)


def _left_late(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """One error at the last time of a run, and the time at which the law of all initial neurons reaches it."""
    p, r = _class_of(numbers)
    return [2 * p * r * numbers["times"][-1]], [numbers["error"]], [2 * p * r * numbers["law"]], [numbers["error"]]


@register(
    name="confidence",
    equation="6.1",
    title="The time to a confidence goes like 1/(p r)",
    meaning="Rare or short samples take longer to learn in exact proportion: half the frequency, twice the time.",
    claim="an error e is reached at log((1-e)/e)'s time of the clock from u0 at kappa, over 2 p r",
    formula=(
        r"t_e = \frac{1}{2\, p\, r} \int_{u_0}^{\,u_e} \frac{dv}{g(v)\, \sqrt{\kappa^2 + v^2}}, \qquad "
        r"u_e = \log \left( \frac{1 - e}{e} \right)"
    ),
    hypotheses=(
        ONE_RAY,
        STAYING,
        of_losses("cross-entropy, which gets to every error (hinge loss, up to its margin: (3.6))", "cross-entropy"),
    ),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=96,
    losses=("cross-entropy",),
    drops=(Drop("every neuron stays (some with z < -a instead)", _some_leave_late),),
    figure=of_solution(
        "error, log scale: probability\nof the wrong label", error, yscale="log", without=_left_late
    ),
)
def confidence(rng: np.random.Generator) -> Trials:
    """The errors that training reached at four times, against the times by law of these errors."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, wrong_sign_learners=0.3)
    start = ExclusiveInit(np.abs(start.home), start.a, start.zeta)  # class + alone: every trial has its curve
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry)
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    u = np.asarray(run.recorded)[..., 0]
    norm, rate = geometry.norms[0], geometry.rates[0]
    a, zeta = start.mode(1)
    kappa, u0 = invariants(norm, a, zeta)[0][:, None], norm * np.sum(a * zeta, axis=-1)[:, None]
    # Errors have an absolute accuracy of 1e-16, also those near 1/2 and near 1.
    clear = (u > u0) & (u > -5) & (np.hypot(kappa, u) > 1e-6) & ~lost[:, None]
    error = 1 / (1 + np.exp(np.where(clear, u, u0 + 0.1)))
    law = np.asarray(theory.time_to_confidence(geometry.frequencies[0], norm, u0, "cross-entropy", error, kappa=kappa))
    # The unit is that of the clock's angle, because a small change of the error takes long where the clock is slow.
    gaps = np.where(clear, np.abs(law - times) * rate * error, 0)
    # The logit of each error must be the trained logit, in the same unit.
    there = np.asarray(theory.confident_logit(error))
    gaps = np.max(np.maximum(gaps, np.where(clear, np.abs(there - u) / np.hypot(kappa, u), 0)), axis=-1)
    numbers = recorded(geometry.data, "cross-entropy", network, {"trained": u, "law": law}, times=times)
    return Trials(gaps, numbers, lost, "cross-entropy")


def _of_logit(rng: np.random.Generator, geometry: Geometry, start: float, unbalance: float) -> ExclusiveInit:
    """Neurons of class +, any number, with the first logit `start`; balanced, or off balance by e^(2 unbalance)."""
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (BATCH, 1))
    a = log_uniform(rng, 0.2, 3, (BATCH, WIDTH)) * used
    a *= np.sqrt(start / geometry.norms[0] / np.sum(a**2, axis=-1, keepdims=True))
    return ExclusiveInit(used.astype(float), a * np.exp(unbalance), a * np.exp(-unbalance))


def _both_losses(trial: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The trained margins of each loss, with time in units of that of hinge loss."""
    seen, found = trial["by_the_law"], {}
    for name, last in (("hinge", 1.02), ("cross-entropy", 1.0)):
        of = name.replace("-", "_")
        at = seen[f"{of}_time"] * np.array([0.5, 0.9, 0.98, last]) / seen["hinge_time"]
        found[name] = {**trial, "loss": name, "at": at, "trained": seen[of], "unit": seen["hinge_time"]}
    return found


def _to_the_margin(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """The curve of a balanced class from the first logit."""
    p, r = _class_of(trial)
    each = np.sqrt([trial["start"] / r])
    return mode_curve(RESIDUALS[trial["loss"]], r, each, each, 2 * p * r * x * trial["unit"])


def _not_at_the_margin(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    one = _both_losses(numbers)["cross-entropy"]
    line = np.linspace(0, one["at"][-1], 60)
    return one["at"], one["trained"], line, _to_the_margin(one, line)


@register(
    name="hinge-advantage",
    equation="6.2",
    title="Hinge loss gets to the margin in about half of the time",
    meaning="The hinge loss reaches the margin in about half of the time of cross-entropy, because its push does not "
    "weaken on the way.",
    claim="from a balanced u0 cross-entropy takes [log(1/u0) + Ei(1) - Ei(u0)] / log(1/u0) times as long to u = 1 as hinge",
    formula=(
        r"\frac{t_1^{\text{cross-entropy}}}{t_1^{\text{hinge}}} = \frac{\log(1/u_0) + \text{Ei}(1) - "
        r"\text{Ei}(u_0)}{\log(1/u_0)}, \qquad u(t_1) = 1"
    ),
    hypotheses=(ONE_RAY, BALANCED, "0 < u0 < 1"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=96,
    single_tolerance=None,
    losses=("hinge", "cross-entropy"),
    drops=(Drop(_OFF_BALANCE, {"unbalance": 1.0}),),
    figure=LawFigure(
        lambda trial: (trial["at"], trial["trained"]),
        _to_the_margin,
        "time, in units of what hinge loss needs to a margin of 1",
        "margin of the class\n(its logit u)",
        parts=_both_losses,
        each=1,
        yscale="log",
        gap="relative error of the time to u = 1",
        without=_not_at_the_margin,
    ),
)
def hinge_advantage(rng: np.random.Generator, unbalance: float = 0.0) -> Trials:
    """Balanced starts from 1e-10 to 0.5, each trained with both losses up to u = 1: the relative errors of the two times,
    and those of the two curves."""
    geometry = two_rays(rng, 0.0)
    norm, rate = geometry.norms[0], geometry.rates[0]
    u0 = log_uniform(rng, 1e-10, 0.5)
    start = _of_logit(rng, geometry, u0, unbalance)
    network = start.network(rng, geometry)
    hinge = np.log(1 / u0) / rate
    ratio = float(theory.hinge_advantage(u0))
    entropy = ratio * hinge
    # The laws of the two curves, at u = 1.
    mode = Mode(geometry.frequencies[0], norm, *start.mode(1))
    first, second = (np.asarray(theory.solve_mode(mode, loss).time_to_logit(1.0)) for loss in ("hinge", "cross-entropy"))
    curves = np.maximum(np.abs(first / hinge - 1), np.abs(second / first / ratio - 1))
    # Training: hinge loss just before and after it stops; cross-entropy where u passes 1, with u' = 2 p r u / (1 + e^u).
    run, lost = train_flow(geometry.data, network, "hinge", hinge * np.array([0.5, 0.9, 0.98, 1.02]))
    stopped = np.asarray(run.recorded)[..., 0]
    run, also_lost = train_flow(geometry.data, network, "cross-entropy", entropy * np.array([0.5, 0.9, 0.98, 1.0]))
    passing = np.asarray(run.recorded)[..., 0]
    late = np.abs(np.log(np.maximum(stopped[:, 2], 1e-300)) / np.log(u0) - 0.02)
    late = np.where(np.abs(stopped[:, 3] - 1) > FLOW_TOLERANCE, np.inf, late)
    gaps = np.maximum(np.maximum(late, curves), np.abs(passing[:, 3] - 1) * (1 + np.e) / rate / entropy)

    def numbers(i: int) -> dict[str, Any]:
        seen = {"hinge_time": hinge, "hinge": stopped[i], "cross_entropy_time": entropy, "cross_entropy": passing[i]}
        return record(geometry.data, "hinge", network, i, start=u0, by_the_law=seen)

    def quote(i: int) -> Quote:
        when = f"from {u0:.3g}, at t = {entropy:.4g}, the time of (6.2),"
        return Quote("the logit with cross-entropy", when, 1.0, passing[i, 3])

    return Trials(gaps, numbers, lost | also_lost, "both losses", quote)


_DEPTHS = (2, 1, 3, 5)
_TAIL_TOLERANCE = 0.5
_LATE = 20.0  # the tail is compared above this logit


def far_network(rng: np.random.Generator, geometry: Geometry, layers: int) -> Any:
    """Networks [b] of N layers that see class + only: any neurons for two layers, else one path of any weights."""
    plus, minus = geometry.axes
    if layers == 2:
        start = exclusive_start(rng, wrong_sign_learners=0.3, low=0.03)
        # No kappa is above 1, because kappa^2 / (2 log(1/e)) is one of the next terms.
        shrink = 1 / np.sqrt(np.maximum(start.scale(geometry), 1))[:, None]
        return ExclusiveInit(np.abs(start.home), start.a * shrink, start.zeta * shrink).network(rng, geometry)
    weights = log_uniform(rng, 0.3, 1.2, (BATCH, layers)) / geometry.norms[0] ** (1 / layers)
    return DeepReLU.chain(weights, plus - (0.3 * minus if layers > 1 else 0))


def _next_order(geometry: Geometry, network: Any, layers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(u, (e / e_tail - 1) log(1/e)) of trained networks, [b, 4] each, at four times, [4], and e_tail there, [4]."""
    p, norm = float(geometry.frequencies[0]), float(geometry.norms[0])
    run, times = train_late(geometry.data, network, "cross-entropy", 15 / (p * norm ** (2 / layers)))
    u = np.asarray(run.recorded)[:, 1:, 0]
    tail = np.asarray(theory.error_tail(p, norm, "cross-entropy", times[1:], depth=layers))
    return u, (1 / (1 + np.exp(u)) / tail - 1) * u, times[1:], tail


def _of_large_kappa(rng: np.random.Generator) -> Trials:
    """Networks with a large kappa, for which the next terms, such as kappa^2/(2 log(1/e)), are not small yet."""
    geometry = two_rays(rng, 0.0)
    network = far_network(rng, geometry, 2)
    # kappa grows with the square of the weights; a kappa near 0 would need a factor that is too large.
    kappa = invariants(geometry.norms[0], np.asarray(network.w) @ geometry.axes[0], np.asarray(network.z))[0]
    factor = np.sqrt(16 / np.maximum(kappa, 0.16))[:, None]
    network = TwoLayerReLU(factor[..., None] * np.asarray(network.w), factor * np.asarray(network.z))
    u, found, times, tail = _next_order(geometry, network, 2)
    numbers = recorded(geometry.data, "cross-entropy", network, {"trained": u}, times=times, error_by_law=tail)
    texts: dict[str, Any] = {"quantity": "(e / e_tail - 1) log(1/e)"}
    texts["when"] = lambda i, k: f"at t = {times[k]:.3g}, log(1/e) = {u[i, k]:.4g},"
    return compared(np.where(u > _LATE, found, 1), 1.0, 1.0, numbers, **texts)


def _never_learnt(rng: np.random.Generator) -> Trials:
    """Every neuron has left the class."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, low=0.03, high=0.3)
    start = ExclusiveInit(np.abs(start.home), start.a, -start.a - np.abs(start.zeta))
    network = start.network(rng, geometry)
    u, _, times, tail = _next_order(geometry, network, 2)
    numbers = recorded(geometry.data, "cross-entropy", network, {"trained": u}, times=times, error_by_law=tail)
    error = 1 / (1 + np.exp(u[:, -1]))
    return compared(error[:1], tail[-1], tail[-1], numbers, quantity="the error", when=f"at t = {times[-1]:.3g}")


def draw_tails(outcome: Outcome, ax: Any) -> None:
    """(e / e_tail - 1) log(1/e) against log(1/e) for each depth, and the limits 2 - 2/N."""
    points = outcome.extra["points"]
    for colour, layers in zip(COLOURS, sorted(_DEPTHS), strict=False):
        mine = points[points[:, 0] == layers]
        name = f"{layers} layer{'s' * (layers > 1)}"
        ax.scatter(mine[:, 1], mine[:, 2], s=8, color=colour, label=f"{name}, trained", linewidths=0)
        ax.axhline(2 - 2 / layers, color=colour, linewidth=1, linestyle="--")
    ax.plot([], [], color="black", linestyle="--", linewidth=1, label="limit 2 − 2/N")
    ax.set_xlabel("log(1/e), grows like log t")
    ax.set_ylabel("(e / e_tail − 1) · log(1/e)")
    ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), markerscale=2)


@register(
    name="tails",
    equation="6.3",
    title="Late errors fall like 1/(T (log T)^(2 - 2/N))",
    meaning="Late in training with cross-entropy, each further halving of the error takes about twice as long as the one "
    "before.",
    claim="with cross-entropy and T = N p r^(2/N) t, e T log(1/e)^(2-2/N) = 1 + (2 - 2/N)/log(1/e) + ..., from any start",
    formula=r"e\, T\, L^{2 - 2/N} = 1 + \frac{2 - 2/N}{L} + O(L^{-2}), \qquad L = \log(1/e), \qquad T = N\, p\, r^{2/N}\, t",
    hypotheses=(
        ONE_RAY,
        of_losses("cross-entropy", "cross-entropy"),
        "the class is learnt",
        "log(1/e) above 20 and kappa below 1",
    ),
    tolerance=_TAIL_TOLERANCE,
    why_tolerance=(
        "the next terms of (e / e_tail - 1) log(1/e) are m (2 m + 1)/log(1/e), m = 2 - 2/N, and -kappa^2/(2 log(1/e)), "
        "together below 0.34 from log(1/e) = 20 on, and Euler's steps add 0.05; a T wrong by 2 % moves it by 0.4 to 1"
    ),
    checked_with=BY_LATE,
    default_trials=4 * BATCH,
    quick_trials=4 * BATCH,
    single_tolerance=None,
    losses=("cross-entropy",),
    rounds=tuple({"layers": layers} for layers in _DEPTHS),
    drops=(
        Drop("kappa below 1 (up to 16 instead)", _of_large_kappa),
        Drop("the class is learnt (every neuron leaves it instead)", _never_learnt),
    ),
    figure=draw_tails,
)
def tails(rng: np.random.Generator, layers: int) -> Trials:
    """(e / e_tail - 1) log(1/e) of trained networks, which (6.3) says is 2 - 2/N up to a multiple of 1/log(1/e)."""
    geometry = two_rays(rng, 0.0)
    network = far_network(rng, geometry, layers)
    u, found, times, tail = _next_order(geometry, network, layers)
    late = u > _LATE
    gaps = np.max(np.where(late, np.abs(found - (2 - 2 / layers)), 0), axis=-1)
    points = np.stack([np.full(late.sum(), layers), u[late], found[late]], axis=-1)
    numbers = recorded(geometry.data, "cross-entropy", network, {"trained": u}, times=times, error_by_law=tail)
    return Trials(gaps, numbers, ~late[:, -1], f"{layers} layer{'s' * (layers > 1)}", extra={"points": points})
