"""Depth: the linear read-out (3.9), and paths of three to six layers, balanced (7.1) and not (7.2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import DeepReLU, as_loss
from gradstarve.theorems._entry import BELOW_ONE, ONE_RAY, ORTHOGONAL
from gradstarve.theorems._figure import ERROR, LawFigure, Marks, error, read_run
from gradstarve.theorems._formulas import RESIDUALS, path_curve
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, at_time, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    DIM,
    FLOW_TOLERANCE,
    WHY_FLOW,
    Geometry,
    log_uniform,
    train_flow,
    two_rays,
)
from gradstarve.theorems.laws.modes import FRACTIONS

_BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network of that depth"
# Each pair is a compilation: every loss once, and every depth beyond those of (3.9) and of (3.5).
_PATHS = tuple(
    {"depth": depth, "loss": loss}
    for depth, loss in ((3, "cross-entropy"), (4, "hinge"), (5, "squared"), (6, "exponential"))
)


def _read_out_run(trial: dict[str, Any]) -> tuple[Any, float]:
    """The class of a trial that moves most, and its p r^2."""
    labels = np.asarray(trial["labels"])
    # From one margin for each class to the logits of all points.
    which = np.where(labels > 0, 0, 1)
    logits = {name: np.asarray(trial[name])[:, which] * labels for name in ("trained", "off") if name in trial}
    run = read_run({**trial, **logits})
    assert run is not None
    return run, run.rate * run.norm / 2


def _read_out_marks(trial: dict[str, Any]) -> Marks:
    run, pace = _read_out_run(trial)
    return pace * run.times, error(run.margins)


def _read_out_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    run, pace = _read_out_run(trial)
    start = run.label * float(np.asarray(trial["points"])[run.point] @ np.ravel(trial["layers"][0]))
    p = pace / run.norm**2
    return error(theory.one_layer_logit(p, run.norm, start, trial["loss"], x / pace))


@register(
    name="read-out",
    equation="3.9",
    title="A linear read-out learns along Lambert's W",
    meaning="A network with one layer learns fast at first and then ever more slowly; it has no plateau, because its "
    "first step is already its fastest.",
    claim="with one layer du/dt = p r^2 g(u): for cross-entropy u = C - W(e^C), C = p r^2 t + u(0) + e^u(0)",
    formula=(
        r"\begin{split} \frac{du}{dt} &= p\, r^2\, g(u), \\ "
        r"\text{cross-entropy:} \quad u &= C - W(e^C), \qquad C = p\, r^2\, t + u_0 + e^{u_0} \end{split}"
    ),
    hypotheses=(ORTHOGONAL, ONE_RAY, "no hidden layer"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=96,
    rounds=EACH_LOSS,
    drops=(Drop("orthogonal classes (at 120 degrees instead)", {"loss": "cross-entropy", "cosine": -0.5}),),
    figure=LawFigure(
        _read_out_marks, _read_out_law, "time of the class: frequency × norm² × t  (p r² t)", ERROR, ylim=(-0.02, None)
    ),
)
def read_out(rng: np.random.Generator, loss: str, cosine: float = 0.0) -> Trials:
    """Linear read-outs from 0 and from random weights, two classes together; both logits, and the times of the law."""
    geometry = two_rays(rng, cosine)
    v = log_uniform(rng, 1e-3, 2, (BATCH, 1)) * rng.normal(size=(BATCH, DIM))
    v[0] = 0
    pace = np.sqrt(np.prod(geometry.frequencies * geometry.norms**2))
    times = FRACTIONS * log_uniform(rng, 0.5, 30) / pace
    network = DeepReLU((v,))
    run, lost = train_flow(geometry.data, network, loss, times)
    trained = np.asarray(run.recorded)[..., [0, -1]] * [1, -1]
    start = v @ geometry.axes.T * geometry.norms * [1, -1]
    p, r = geometry.frequencies, geometry.norms
    law = np.asarray(theory.one_layer_logit(p, r, start[:, None], loss, times[:, None]))
    numbers = recorded(geometry.data, loss, network, {"trained": trained, "law": law}, times=times)
    texts: dict[str, Any] = {"quantity": lambda i, k, c: f"the logit of class {'+-'[c]}", "when": at_time(times)}
    found = compared(trained, law, 1e-3 + np.abs(law), numbers, lost, **texts, group=loss)
    # The inverse: the times of trained logits while they rise; an error in time counts times p r^2 g(u).
    pull = np.asarray(as_loss(loss).residual(jnp.asarray(trained))) * (p * r**2)
    rising = (pull * times[:, None] > 1e-3) & (trained > start[:, None])
    back = theory.one_layer_time(p, r, start[:, None], loss, np.where(rising, trained, start[:, None] + 1e-3))
    late = np.abs(np.asarray(back) - times[:, None]) * pull / (1e-3 + np.abs(trained))
    return found.raised(np.max(np.where(rising, late, 0), axis=(-1, -2)))


def _chain(geometry: Geometry, weights: np.ndarray) -> DeepReLU:
    """Networks of one neuron a layer whose path has these `weights` [b, N] along class +."""
    axis, other = geometry.axes
    chain = DeepReLU.chain(weights, axis)
    # Off the edge of the orthogonal class, on which rounding would decide whether the first neuron sees it.
    return DeepReLU((chain.layers[0] - weights[:, :1, None] * other, *chain.layers[1:]))


def _path(
    rng: np.random.Generator, depth: int, loss: str, spread: float, balanced_law: bool = False, read_out: float = 1.0
) -> Trials:
    """Paths trained by the flow, against the law.

    `spread` is the standard deviation of log b_l around the path's mean; `balanced_law` takes the law of equal weights
    with the same product; `read_out` multiplies the last weight of the network, and not of the law.
    """
    geometry = two_rays(rng, 0.0)
    p, r = geometry.frequencies[0], geometry.norms[0]
    # Initial logits from a plateau to the cut; deeper paths leave a plateau so suddenly that they start later.
    start = log_uniform(rng, 0.02, 0.9, BATCH)
    mean = (start / r) ** (1 / depth)
    turn = rng.normal(size=(BATCH, depth)) * spread
    weights = mean[:, None] * np.exp(turn - turn.mean(-1, keepdims=True))
    pace = depth * p * r ** (2 / depth)
    times = FRACTIONS * log_uniform(rng, 0.3, 30) / pace
    network = _chain(geometry, weights * np.append(np.ones(depth - 1), read_out))
    run, lost = train_flow(geometry.data, network, loss, times)
    trained = np.asarray(run.recorded)[..., 0]
    assumed = np.repeat(mean[:, None], depth, axis=1) if balanced_law else weights
    law = np.asarray(theory.depth_mode(p, r, assumed, loss).logit(times))
    numbers = recorded(geometry.data, loss, network, {"path": weights, "trained": trained, "law": law}, times=times)
    texts: dict[str, Any] = {"quantity": "the logit of class +", "when": at_time(times), "group": f"N = {depth}, {loss}"}
    texts["setting"] = lambda i: f"from weights {', '.join(f'{b:.3g}' for b in weights[i])}"
    return compared(trained, law, law, numbers, lost, **texts)


def _path_of(trial: dict[str, Any]) -> tuple[float, float, float]:
    """p and r of class +, and N p r^(2/N)."""
    mine = np.asarray(trial["labels"]) > 0
    p, r = float(np.asarray(trial["weights"])[mine].sum()), float(np.linalg.norm(np.asarray(trial["points"])[mine][0]))
    layers = len(trial["path"])
    return p, r, layers * p * r ** (2 / layers)


def _path_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return path_curve(RESIDUALS[trial["loss"]], _path_of(trial)[1], np.asarray(trial["path"]), x)


_CURVES = LawFigure(
    lambda trial: (_path_of(trial)[2] * trial["times"], trial["trained"]),
    _path_law,
    "time of the class: depth × frequency × norm^(2/N) × t",
    "margin of the class\n(its logit u)",
)
_ALONE = (ORTHOGONAL, ONE_RAY, BELOW_ONE)
_TRIED = {"depth": 3, "loss": "cross-entropy", "spread": 0.7}


@register(
    name="depth",
    equation="7.1",
    title="A balanced path of N layers: one equation for every depth",
    meaning="A deeper network waits longer on its plateau and then learns more suddenly; one equation covers every depth.",
    claim="du/dt = N p r^(2/N) u^(2 - 2/N) g(u) for N equal weights (tried: N = 3 to 6)",
    formula=r"\frac{du}{dt} = N\, p\, r^{2/N}\, u^{2 - 2/N}\, g(u)",
    hypotheses=(*_ALONE, "positive weights along one path, all equal"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=2 * BATCH * len(_PATHS),
    rounds=_PATHS,
    drops=(Drop("balanced weights (different ones with the same product instead)", _TRIED | {"balanced_law": True}),),
    figure=_CURVES,
)
def depth(rng: np.random.Generator, depth: int, loss: str, spread: float = 0.0, balanced_law: bool = False) -> Trials:
    """Paths of three to six equal weights."""
    return _path(rng, depth, loss, spread, balanced_law)


@register(
    name="unbalanced-depth",
    equation="7.2",
    title="An unbalanced path moves along its conserved differences",
    meaning="Layers that start with different weights keep their differences for ever, and these few numbers are all that"
    " the curve needs of the start.",
    claim="b_l^2 = rho + c_l with drho/dt = 2 p r g(u) prod sqrt(rho + c_l), for any positive weights of a path",
    formula=(
        r"b_l^2 = \rho + c_l, \qquad \frac{d\rho}{dt} = 2\, p\, r\, g(u) \prod_{l=1}^{N} \sqrt{\rho + c_l}, \qquad "
        r"u = r \prod_{l=1}^{N} \sqrt{\rho + c_l}"
    ),
    hypotheses=(*_ALONE, "positive weights along one path"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=2 * BATCH * len(_PATHS),
    rounds=_PATHS,
    drops=(
        Drop(
            "positive weights (the last one negative instead, with the law of their sizes)",
            # The read-out goes through 0 before the path learns.
            _TRIED | {"read_out": -1.0},
        ),
    ),
    figure=_CURVES,
)
def unbalanced_depth(
    rng: np.random.Generator, depth: int, loss: str, spread: float = 0.7, read_out: float = 1.0
) -> Trials:
    """Paths of three to six weights that differ by factors of three and more."""
    return _path(rng, depth, loss, spread, read_out=read_out)
