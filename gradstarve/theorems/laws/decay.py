"""Weight decay (9.1): the threshold p r g(0) = lambda, the logits at which modes above it settle, and the curves."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from gradstarve import theory
from gradstarve.problem import Dataset, GradientDescent, TwoLayerReLU
from gradstarve.theorems._entry import (
    BALANCED,
    BELOW_ONE,
    COLOURS,
    EXCLUSIVE,
    ONE_RAY,
    ORTHOGONAL,
    Outcome,
    of_losses,
)
from gradstarve.theorems._figure import MARGIN, TIME, LawFigure, Marks, read_run
from gradstarve.theorems._formulas import RESIDUALS, SMOOTH, steepest
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    PER_CLASS,
    WIDTH,
    ExclusiveInit,
    Geometry,
    exclusive_start,
    log_uniform,
    record,
    train,
    two_rays,
)

_STEPS = 12_000
_TOLERANCE = 1e-8
_NEAREST = 0.004


def _classes(rng: np.random.Generator) -> Geometry:
    """Orthogonal classes with p r of the second 0.3 to 1 times that of the first, so that one step size suits both."""
    first = two_rays(rng, 0.0)
    norms = first.norms[0] * np.array([1, rng.uniform(0.3, 1) * np.divide(*first.frequencies)])
    points = np.repeat(norms[:, None] * first.axes, PER_CLASS, axis=0)
    return Geometry(Dataset(points, first.data.labels, first.data.weights), first.axes, norms, first.frequencies)


def _settle(rng: np.random.Generator, loss: str, wrong_signs: float = 0.5) -> tuple[Any, ...]:
    """Train a batch, each network with its own decay: (geometry, network, decays [b], steps sizes [b], logits [b, 2])."""
    geometry = _classes(rng)
    rates = geometry.rates / 2
    # p r g(0) / lambda of the two classes: 0.1 to 300, with a third of the networks 0.4 to 3 % from the threshold of one.
    ratio = log_uniform(rng, 0.1, 300, BATCH)
    near = 1 + log_uniform(rng, _NEAREST, 0.03, BATCH) * rng.choice([-1, 1], BATCH)
    ratio = np.where(rng.uniform(size=BATCH) < 1 / 3, near, ratio)
    decay = RESIDUALS[loss](0.0) * rng.choice(rates, BATCH) / ratio
    start = exclusive_start(rng, wrong_signs, low=0.03, high=0.2)
    # One neuron a class that learns: the first two.
    for j, sign in enumerate((1, -1)):
        start.home[:, j] = sign
        start.a[:, j] = np.where(start.a[:, j] > 0, start.a[:, j], 0.1)
        start.zeta[:, j] = np.where(wrong_signs < 1, np.abs(start.zeta[:, j]), -2 * start.a[:, j])
    root = np.sqrt(geometry.norms.max())
    start = ExclusiveInit(start.home, start.a / root, start.zeta / root).below(geometry, 1.0)
    network = start.network(rng, geometry)
    # Stable at the start, where exponential loss may be steeper than at 0, and where it settles.
    margin = np.stack([r * np.prod(start.mode(y), axis=0).sum(-1) for r, y in zip(geometry.norms, (1, -1), strict=True)])
    step_size = 0.8 / np.maximum(rates.max() * steepest(loss, margin.min(axis=0)), decay)
    run = train(geometry.data, network, loss, GradientDescent(step_size, 0.0, False, decay), _STEPS, _STEPS)
    logits = np.abs(np.asarray(run.recorded)[:, -1, [0, -1]]) * np.sign(np.asarray(run.recorded)[:, -1, [0, -1]] * [1, -1])
    return geometry, network, decay, step_size, logits


def _logit_of(b: int, c: int) -> str:
    return f"the logit of class {'+-'[c]}"


def _forgotten(rng: np.random.Generator) -> Trials:
    """Every neuron starts below z = -a."""
    geometry, network, decay, step_size, found = _settle(rng, "cross-entropy", wrong_signs=1.0)
    law = np.asarray(theory.settled_logit(geometry.frequencies, geometry.norms, decay[:, None], "cross-entropy"))
    rates = geometry.rates / 2

    def numbers(b: int) -> dict[str, Any]:
        more = {"step_size": step_size[b], "weight_decay": decay[b], "steps": _STEPS}
        return record(geometry.data, "cross-entropy", network, b, **more)

    def setting(b: int) -> str:
        rate = rates[np.argmax(np.abs(found - law)[b])]
        return f"p r = {rate:.4g} is {rate / decay[b]:.3g} times the weight decay"

    return compared(found, law, 1.0, numbers, quantity=_logit_of, when=f"after {_STEPS:,} steps", setting=setting)


def _draw(outcome: Outcome, ax: Any) -> None:
    """The survival map of cross-entropy: the trained fate of every class, and the line p r = 2 lambda."""
    points = outcome.extra["points"]
    for value, name, colour in ((1, "learnt", COLOURS[0]), (0, "forgotten", COLOURS[1])):
        mine = points[points[:, 2] == value]
        ax.scatter(mine[:, 0], mine[:, 1], s=8, color=colour, linewidths=0, label=f"{name} (trained)")
    ends = np.array([points[:, 0].min(), points[:, 0].max()])
    ax.plot(ends, 2 * ends, color="black", linestyle="--", linewidth=1.2, label="law: p r = 2 λ")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(points[:, 1].min() / 1.5, points[:, 1].max() * 1.5)
    ax.set_xlabel("weight decay λ")
    ax.set_ylabel("p r, frequency times norm")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


@register(
    name="decay-threshold",
    equation="9.1",
    title="Weight decay forgets what is rare or small for ever",
    meaning="Weight decay does not only slow a class down: a class that is too rare or too small for the decay is "
    "forgotten for ever, however long training lasts.",
    claim="a class is learnt iff p r g(0) > lambda (cross-entropy: p r > 2 lambda), and settles where p r g(u) = lambda: "
    "log(p r/lambda - 1), exponential log(p r/lambda), squared 1 - lambda/(p r); otherwise its logit goes to 0",
    formula=(
        r"\begin{split} p\, r\, g(0) > \lambda: \quad &u \to u_\infty > 0, \qquad p\, r\, g(u_\infty) = \lambda, \\ "
        r"p\, r\, g(0) < \lambda: \quad &u \to 0, \\ "
        r"u_\infty = {} &\log \left( \frac{p\, r}{\lambda} - 1 \right) \text{ (cross-entropy)}, \quad "
        r"\log \left( \frac{p\, r}{\lambda} \right) \text{ (exponential)}, \quad "
        r"1 - \frac{\lambda}{p\, r} \text{ (squared)} \end{split}"
    ),
    hypotheses=(
        ORTHOGONAL,
        ONE_RAY,
        EXCLUSIVE,
        "each class has a neuron that learns: z > -a",
        "not within 0.4 % of p r g(0) = lambda, where it takes too long to tell",
        "descent with a stable step size: it settles where the flow does",
    ),
    tolerance=_TOLERANCE,
    why_tolerance="1 % from the line what is left of the start shrinks by 0.2 % a step at least, to e^-24 of it in the end; "
    "nearer only the side is told; the wrong side of the line counts as infinite",
    checked_with="simulate: 12,000 steps of gradient descent with weight decay on all weights by automatic differentiation",
    default_trials=1536,
    quick_trials=192,
    losses=("cross-entropy", "exponential", "squared"),
    dynamics=("descent",),
    batch=2 * BATCH,
    rounds=tuple({"loss": loss} for loss in ("cross-entropy", "exponential", "cross-entropy", "squared")),
    drops=(Drop("some neuron learns (all start below z = -a instead)", _forgotten),),
    figure=_draw,
)
def decay_threshold(rng: np.random.Generator, loss: str) -> Trials:
    """Orthogonal classes, any neurons with one that learns; one trial is one class of one network."""
    geometry, network, decay, step_size, found = _settle(rng, loss)
    rates = np.broadcast_to(geometry.rates / 2, found.shape)
    threshold = np.asarray(theory.decay_threshold(geometry.frequencies, geometry.norms, loss))
    law = np.asarray(theory.settled_logit(geometry.frequencies, geometry.norms, decay[:, None], loss))
    learnt = found > 1e-4
    # The distance from the threshold, p r g(0) / lambda - 1. Within 1 % training shows only whether a class is learnt, and
    # within 0.4 % not even that.
    beyond = np.abs(rates * RESIDUALS[loss](0.0) / decay[:, None] - 1)
    gaps = np.where(beyond < 0.01, 0, np.abs(found - law))
    gaps = np.where(learnt == (decay[:, None] < threshold), gaps, np.inf)
    clear = beyond >= _NEAREST
    index = np.flatnonzero(clear)

    def numbers(i: int) -> dict[str, Any]:
        b, c = divmod(int(index[i]), 2)
        more = {"step_size": step_size[b], "weight_decay": decay[b], "steps": _STEPS, "class": (1, -1)[c]}
        return record(geometry.data, loss, network, b, **more, trained=found[b, c], law=law[b, c])

    points = np.stack([np.broadcast_to(decay[:, None], found.shape), rates, learnt], axis=-1)[clear]
    return Trials(gaps[clear], numbers, group=loss, extra={"points": points} if loss == "cross-entropy" else {})


_LEVELS = 4
_FINEST = 2000
_CURVE_TOLERANCE = 1e-6
_MOVES = 0.05  # the least relative speed for a time to be compared: a logit at rest has no arrival time


def _curves(rng: np.random.Generator, loss: str, tilt: float = 1.0) -> tuple[Any, ...]:
    """Balanced neurons of any number, trained up to one time with four step sizes: (geometry, network, decays [b], times
    [b], first logits, trained logits and those of the law [b, 2]). `tilt` multiplies the first layer and divides the
    second."""
    problems = BATCH // _LEVELS
    geometry = _classes(rng)
    decay = RESIDUALS[loss](0.0) * rng.choice(geometry.rates / 2, problems) / log_uniform(rng, 0.2, 100, problems)
    logit = log_uniform(rng, 1e-4, 0.9, (problems, 2))
    home = np.where(np.arange(WIDTH) < rng.integers(1, WIDTH, (problems, 1)), 1.0, -1.0)
    a = log_uniform(rng, 0.2, 3, home.shape)
    for c, sign in enumerate((1, -1)):
        total = np.sum(np.where(home == sign, a**2, 0), axis=-1, keepdims=True)
        a = np.where(home == sign, a * np.sqrt(logit[:, c : c + 1] / geometry.norms[c] / total), a)
    network = ExclusiveInit(home, tilt * a, a / tilt).network(rng, geometry)
    time = log_uniform(rng, 0.5, 15, problems) / np.maximum(geometry.rates.max() / 2, decay)
    # The same network with T / 250, ..., T / 2000 for its step size: each is at T at one of the records.
    steps = _FINEST // 2 ** np.arange(_LEVELS)[::-1]
    crowd = TwoLayerReLU(*(np.repeat(np.asarray(leaf), _LEVELS, axis=0) for leaf in (network.w, network.z)))
    step_size = (time[:, None] / steps).reshape(-1)
    dynamics = GradientDescent(step_size, 0.0, False, np.repeat(decay, _LEVELS))
    run = train(geometry.data, crowd, loss, dynamics, _FINEST, int(steps[0]))
    record_of = np.tile(steps // steps[0], problems)
    found = np.asarray(run.recorded)[np.arange(BATCH), record_of][:, [0, -1]] * [1, -1]
    found = found.reshape(problems, _LEVELS, 2)
    # The error of a step size is a power series in it; each round removes its lowest power.
    for power in range(1, _LEVELS):
        found = found[:, 1:] + (found[:, 1:] - found[:, :-1]) / (2**power - 1)
    found = found[:, 0]
    law = theory.decayed_logit(
        geometry.frequencies, geometry.norms, logit, decay[:, None], loss, np.broadcast_to(time[:, None], logit.shape)
    )
    law = np.asarray(law)
    return geometry, network, decay, time, logit, found, law


def _off_balance(rng: np.random.Generator) -> Trials:
    """The first layer three times as large as the second, with the same logits."""
    geometry, network, decay, time, _, found, law = _curves(rng, "cross-entropy", tilt=3**0.5)
    numbers = recorded(geometry.data, "cross-entropy", network, {"weight_decay": decay, "time": time, "trained": found})
    texts: dict[str, Any] = {"quantity": _logit_of, "when": lambda b, c: f"at t = {time[b]:.4g}"}
    return compared(found, law, law, numbers, **texts)


def _decayed_run(trial: dict[str, Any]) -> tuple[float, float, float]:
    """p, r and first logit of the class of a trial."""
    run = read_run({**trial, "times": trial["time"]}, trial["class"])
    assert run is not None
    return run.rate / run.norm / 2, run.norm, float(run.problem.margins[run.point])


def _decayed_marks(trial: dict[str, Any]) -> Marks:
    p, r, _ = _decayed_run(trial)
    return [2 * p * r * trial["time"]], [trial["trained"]]


def _decayed_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    p, r, start = _decayed_run(trial)
    g, decay = RESIDUALS[trial["loss"]], trial["weight_decay"] / (p * r)
    # log u, so that a mode that is forgotten stays above 0.
    flow = solve_ivp(lambda _, v: g(np.exp(v)) - decay, (0, x[-1]), [np.log(start)], t_eval=x, rtol=1e-7)
    return np.exp(flow.y[0])


def _decayed_off_balance(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any] | None:
    """The first class of a counterexample."""
    numbers = {**numbers, "class": 1, "trained": numbers["trained"][0]}
    x, u = _decayed_marks(numbers)
    line = np.linspace(0, x[0], 60)
    return x, u, line, _decayed_law(numbers, line)


@register(
    name="decay-curve",
    equation="9.1",
    title="The learning curve under weight decay",
    meaning="Under weight decay the whole learning curve is still known before training, and so is the level at which it "
    "stops.",
    claim="a balanced mode obeys du/dt = 2 (p r g(u) - lambda) u, theory.decayed_logit is its solution and "
    "theory.decayed_time its inverse",
    formula=r"\frac{du}{dt} = 2\, (p\, r\, g(u) - \lambda)\, u",
    hypotheses=(
        ORTHOGONAL,
        ONE_RAY,
        EXCLUSIVE,
        BALANCED,
        of_losses("a smooth loss: cross-entropy, exponential or squared", *SMOOTH),
        BELOW_ONE,
    ),
    tolerance=_CURVE_TOLERANCE,
    why_tolerance="four step sizes leave of the error of descent the product of the four, step_size max(p r, lambda) being "
    "0.06, 0.03, 0.015 and 0.0075 at most: 2e-7; five times that",
    checked_with="simulate: descent with weight decay on all weights with four step sizes, extrapolated to steps of zero",
    default_trials=216,
    quick_trials=36,
    losses=("cross-entropy", "exponential", "squared"),
    rounds=tuple({"loss": loss} for loss in SMOOTH),
    batch=2 * (BATCH // _LEVELS),
    drops=(Drop("balanced neurons (a = 3 z instead)", _off_balance),),
    figure=LawFigure(
        _decayed_marks, _decayed_law, TIME, MARGIN + ", log scale", each=2, yscale="log", without=_decayed_off_balance
    ),
)
def decay_curve(rng: np.random.Generator, loss: str) -> Trials:
    """Three losses in turn; one trial is one class."""
    geometry, network, decay, time, logit, found, law = _curves(rng, loss)

    def numbers(i: int) -> dict[str, Any]:
        b, c = divmod(i, 2)
        more = {"weight_decay": decay[b], "time": time[b], "class": (1, -1)[c]}
        return record(geometry.data, loss, network, b, **more, trained=found[b, c], law=law[b, c])

    # The time at which the law reaches the trained logit, in units of a relative change: d log u/dt = 2 (p r g(u) - lambda).
    rate = np.abs(geometry.rates / 2 * RESIDUALS[loss](found) - decay[:, None])
    when = np.asarray(theory.decayed_time(geometry.frequencies, geometry.norms, logit, decay[:, None], loss, found))
    moves = 2 * rate * time[:, None] > _MOVES
    off = np.where(moves, np.abs(when - time[:, None]) * 2 * rate * found / (law + logit), 0)
    return Trials(np.maximum(np.abs(found - law) / (law + logit), off).reshape(-1), numbers, group=loss)
