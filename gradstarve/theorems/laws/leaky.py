"""Leaky networks on antipodal classes: the law of any step (22.1), and the fates of neurons (22.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import (
    Dynamics,
    GradientDescent,
    NormalizedGradientDescent,
    SharpnessAware,
    TwoLayerReLU,
    as_loss,
)
from gradstarve.theorems._entry import ANTIPODAL, COLOURS, OFF_MANIFOLD, ONE_RAY, Hypothesis, Outcome, Quote
from gradstarve.theorems._formulas import steepest
from gradstarve.theorems._register import Drop, Trials, register
from gradstarve.theorems._sampling import (
    BATCH,
    FLOW_TOLERANCE,
    ExclusiveInit,
    Geometry,
    exclusive_start,
    law_gaps,
    log_uniform,
    record,
    train,
    train_descent,
    train_flow,
    two_rays,
)
from gradstarve.theorems.laws.fates import MOST, STEPS, two_points
from gradstarve.theorems.laws.modes import flow_times

_TOLERANCE = 1e-10
_STEPS = 600
_SHOWN = 40  # records in the figure
_CROWD = 96  # networks in a batch of (22.2)


def _leaky(network: TwoLayerReLU, slope: float) -> TwoLayerReLU:
    return TwoLayerReLU(network.w, network.z, slope)


def _step_sizes(rng: np.random.Generator, geometry: Geometry, network: TwoLayerReLU, loss: str, scale: Any) -> np.ndarray:
    """Log-uniform, from a hundredth to all of a step at which no factor of the start is below 0.1: [b]."""
    margins = np.asarray(geometry.data.margins(network(geometry.data.points))).min(axis=-1)
    residual = steepest(loss, margins)
    if as_loss(loss).pulls_back:
        residual = 4 * (1 + np.abs(margins) + 2 * scale)
    return 0.9 / (geometry.rates.sum() / 2 * residual) * log_uniform(rng, 0.01, 1, BATCH)


def _dynamics(kind: str, step_size: np.ndarray, length: np.ndarray) -> Dynamics:
    """Dynamics whose step is no longer than that of plain descent; `length` [b]: the norm of weights that points push."""
    if kind == "momentum and decay":
        return GradientDescent(0.2 * step_size, momentum=0.8, weight_decay=0.02 / step_size)
    if kind == "layers":
        return GradientDescent(2 * step_size, read_out_step_size=0.1 * step_size)
    if kind == "normalised":
        return NormalizedGradientDescent(0.002 * (1 + length))
    if kind == "sharpness-aware":
        return SharpnessAware(step_size, radius=0.02 * length)
    return GradientDescent(step_size)


def _against_the_law(
    geometry: Geometry, start: ExclusiveInit, network: TwoLayerReLU, loss: str, dynamics: Any, every: int, group: str
) -> tuple[Trials, np.ndarray, np.ndarray]:
    """The trials of one batch, and its margins [b, records, 2 classes] as trained and by the law."""
    run = train(geometry.data, network, loss, dynamics, _STEPS, every)
    gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry), dynamics)
    labels = np.asarray(geometry.data.labels)
    trained, law = (np.stack([sides(i)[name] for i in range(BATCH)]) * labels for name in ("trained", "law"))
    step_size = np.asarray(dynamics.step_size)

    def numbers(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, step_size=step_size[i], **sides(i))

    first = [int(np.argmax(labels == label)) for label in (1, -1)]
    return Trials(gaps, numbers, group=group), trained[..., first], law[..., first]


def _steps(rng: np.random.Generator, loss: str, by: str, slope: float) -> Trials:
    """Neurons of both signs, half of the wrong sign for their class, so that some change side during training."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5)
    if by == "sharpness-aware":
        # Sharpness-aware steps are drawn to the origin and swing about it for ever, so no neuron starts near z = -a, which
        # leads there.
        start = start.without_edge_cases()
        near = np.abs(start.a + start.zeta) < 0.3 * start.a
        start = ExclusiveInit(start.home, start.a, np.where(near, -1.3 * start.a, start.zeta))
    network = _leaky(start.network(rng, geometry), slope)
    step_size = _step_sizes(rng, geometry, network, loss, start.scale(geometry))
    dynamics = _dynamics(by, step_size, np.sqrt(np.sum(start.a**2 + start.zeta**2, axis=-1)))
    return _against_the_law(geometry, start, network, loss, dynamics, _STEPS // 4, f"{loss}, {by}")[0]


def _flow(rng: np.random.Generator, loss: str, slope: float) -> Trials:
    """The flow: the two clocks against the integrator, with gaps in units of its own tolerance."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5)
    network = _leaky(start.network(rng, geometry), slope)
    run, lost = train_flow(geometry.data, network, loss, flow_times(rng, geometry))
    gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry))
    gaps = gaps * _TOLERANCE / FLOW_TOLERANCE
    return Trials(gaps, lambda i: record(geometry.data, loss, network, i, **sides(i)), lost, f"{loss}, flow")


def _one_side(rng: np.random.Generator, slope: float = 0.1) -> Trials:
    """Networks all of whose neurons end on one side, half of them having changed it: both classes are learnt."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, low=0.05, high=0.3)
    side = np.where(np.arange(BATCH)[:, None] % 2 == 0, 1.0, -1.0)
    used = start.home != 0
    # Half of them start on the other side, with a read-out that makes them change side.
    over = used & (rng.uniform(size=used.shape) < 0.5)
    zeta = np.where(over, -start.a * rng.uniform(1.2, 2, used.shape), np.abs(start.zeta))
    start = ExclusiveInit(np.where(used, np.where(over, -side, side), 0), start.a, zeta)
    relu = start.network(rng, geometry)
    network = _leaky(relu, slope)
    rate = geometry.rates.max() / 2
    step_size = np.full(BATCH, 0.3 / rate)
    dynamics = GradientDescent(step_size)
    found, trained, law = _against_the_law(
        geometry, start, network, "cross-entropy", dynamics, _STEPS // _SHOWN, "all neurons on one side"
    )
    twin = train(geometry.data, relu, "cross-entropy", dynamics, _STEPS, _STEPS // _SHOWN)
    margins = np.asarray(geometry.data.margins(twin.recorded))
    labels = np.asarray(geometry.data.labels)
    first = [int(np.argmax(labels == label)) for label in (1, -1)]
    learnt = (trained[:, -1] > 0).sum(axis=-1)

    def quote(i: int) -> Quote:
        return Quote("the number of classes learnt", f"after {_STEPS} steps", 2, learnt[i])

    fails = found.raised(2 - learnt)
    extra = {"trained": trained, "shown_law": law, "relu": margins[..., first], "plus": side[:, 0] > 0}
    texts: Any = {"setting": f"slope = {slope:g}", "rest": f"{int((learnt < 2).sum())} of {BATCH} networks learn one class"}
    return Trials(fails.gaps, fails.numbers, group=fails.group, quote=quote, extra=extra, **texts)


def _sides(rng: np.random.Generator, loss: str, slope: float) -> Trials:
    """Small starts, a third of the neurons within 0.1 % to 10 % of the line z = -a; one trial is one neuron."""
    data, axes, step_size = two_points(rng, -1.0)
    scale = log_uniform(rng, 1e-4, 1e-2, (_CROWD, 1))
    a, z = scale * rng.normal(size=(2, _CROWD, MOST))
    near = rng.uniform(size=a.shape) < 1 / 3
    z = np.where(near, -a * (1 + log_uniform(rng, 1e-3, 1e-1, a.shape) * rng.choice([-1, 1], a.shape)), z)
    network = TwoLayerReLU(a[..., None] * axes[0], z, slope)
    # With the push of the other class in addition, a step is up to twice as long.
    run = train_descent(data, network, loss, step_size / 2, 2 * STEPS, 2 * STEPS)
    now, read_out = np.asarray(run.final.w) @ axes[0], np.asarray(run.final.z)
    settled = np.where(now * read_out > 0, np.sign(now), 0)
    law = np.asarray(theory.antipodal_fate(a, z))
    learnt = (np.asarray(data.margins(run.recorded))[:, -1] > 0).all(-1)
    wrong = np.where(settled == law, 0.0, 1.0) + np.where(learnt | (settled == 0).any(-1), 0.0, 1.0)[:, None]

    def numbers(i: int) -> dict[str, Any]:
        b, j = (int(n) for n in np.unravel_index(i, law.shape))
        more = {"neuron": j, "step_size": step_size / 2, "steps": 2 * STEPS, "side": settled[b, j], "side_by_law": law[b, j]}
        return record(data, loss, network, b, **more)

    return Trials(wrong.reshape(-1), numbers, (settled == 0).reshape(-1), f"{loss}, sides")


_DRAWS = {"one side": _one_side, "sides": _sides, "steps": _steps, "flow": _flow}
_ROUNDS = (
    {"what": "one side"},
    {"what": "steps", "loss": "cross-entropy", "by": "plain", "slope": 0.3},
    {"what": "sides", "loss": "cross-entropy", "slope": 0.2},
    {"what": "flow", "loss": "cross-entropy", "slope": 0.3},
    {"what": "steps", "loss": "hinge", "by": "momentum and decay", "slope": 0.1},
    {"what": "steps", "loss": "squared", "by": "plain", "slope": 0.5},
    {"what": "steps", "loss": "exponential", "by": "plain", "slope": 0.01},
    {"what": "steps", "loss": "cross-entropy", "by": "layers", "slope": 0.7},
    {"what": "steps", "loss": "cross-entropy", "by": "sharpness-aware", "slope": 0.2},
    {"what": "steps", "loss": "hinge", "by": "normalised", "slope": 0.05},
    {"what": "sides", "loss": "exponential", "slope": 0.01},
    {"what": "flow", "loss": "exponential", "slope": 0.1},
    {"what": "flow", "loss": "squared", "slope": 0.5},
)


def _draw(outcome: Outcome, ax: Any) -> None:
    """Margins of a network whose neurons all end on the side of class +: lines by law, markers trained, red for a ReLU."""
    mine = np.flatnonzero(outcome.extra["plus"])
    ends = np.abs(outcome.extra["trained"][mine, -1, 1])
    i = mine[np.argsort(ends)[len(ends) // 2]]
    trained, law, relu = (outcome.extra[name][i] for name in ("trained", "shown_law", "relu"))
    steps = np.linspace(0, _STEPS, len(trained))
    for c, (name, colour) in enumerate((("class +", COLOURS[0]), ("class −", COLOURS[1]))):
        ax.plot(steps, law[:, c], color=colour, linewidth=1.2, label=f"{name}: law, slope 0.1")
        ax.plot(steps, trained[:, c], "o", color=colour, markersize=3.5, label=f"{name}: trained")
    ax.plot(steps, relu[:, 1], "x", color="red", markersize=4, label="class −: trained, slope 0")
    ax.axhline(0, color="0.7", linewidth=0.8)
    ax.set_xlabel("steps of gradient descent, cross-entropy; all neurons end on the side of class +")
    ax.set_ylabel("margin")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


def _is_leaky(p: Any) -> bool:
    return p.network.slope > 0


@register(
    name="leaky",
    equation="22.1-22.2",
    title="Leaky networks learn both classes from either side",
    meaning="With a leaky ReLU no class is left unlearnt: neurons on either side serve both classes, at different speeds.",
    claim="neurons of a leaky ReLU with a > 0 run on S_+ = p_+ r_+ g_+ + slope p_- r_- g_-, those with a < 0 on "
    "S_- = slope p_+ r_+ g_+ + p_- r_- g_-, by the factors of the dynamics, e^(± the integral of S) for the flow; "
    "each ends on the side sign(a + z), and no class "
    "is left unlearnt",
    formula=(
        r"\begin{split} a_j \,\pm\, z_j &\leftarrow (1 \,\pm\, \eta\, S_j)\, (a_j \,\pm\, z_j), \qquad "
        r"S_j = S_+ \text{ for } a_j > 0, \quad S_- \text{ for } a_j < 0, \\ "
        r"S_+ &= p_+ r_+\, g(m_+) + \alpha\, p_- r_-\, g(m_-), \qquad "
        r"S_- = \alpha\, p_+ r_+\, g(m_+) + p_- r_-\, g(m_-), \\ "
        r"m_+ &= r_+ (U_+ + \alpha\, U_-), \qquad m_- = r_- (U_- + \alpha\, U_+), \qquad "
        r"U_\pm = \sum_{\pm a_j > 0} a_j z_j, \\ "
        r"\text{side of } j \text{ in the end} &= \text{sign}(a_j(0) + z_j(0)), \qquad "
        r"m_+ > 0 \text{ and } m_- > 0 \end{split}"
    ),
    hypotheses=(
        ANTIPODAL,
        ONE_RAY,
        Hypothesis("a slope above 0", _is_leaky),
        OFF_MANIFOLD,
        "squared loss: a stable step size; sharpness-aware steps: a radius far below the weights",
        "where neurons end: cross-entropy or exponential loss, and steps of at most step_size S = 1/2",
    ),
    tolerance=_TOLERANCE,
    why_tolerance="accumulated rounding of 600 steps, at most 600 times 2e-16, made larger by up to 1e3 by neurons that "
    "start within 1e-3 of the line z = -a; a wrong side and a class that is not learnt count as 1; a gap of the flow, whose "
    "integrator is off by at most 1e-8, counts by a hundredth",
    checked_with="simulate: descent on all weights of the leaky network by automatic differentiation; simulate_flow",
    default_trials=BATCH * len(_ROUNDS),
    quick_trials=5 * BATCH,
    single_tolerance=None,
    dynamics=("flow", "descent"),
    rounds=_ROUNDS,
    drops=(Drop("a slope above 0 (0 instead, where a neuron sees one class)", {"what": "one side", "slope": 0.0}),),
    figure=_draw,
)
def leaky(rng: np.random.Generator, what: str, **how: Any) -> Trials:
    """Antipodal classes, neurons of any sign; one trial is one network, of the sides one neuron."""
    return _DRAWS[what](rng, **how)
