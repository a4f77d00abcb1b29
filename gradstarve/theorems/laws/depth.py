"""Depth: the linear read-out (3.9), and paths of three to six layers, balanced (7.1) and not (7.2)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import DeepReLU, as_loss
from gradstarve.theorems._entry import (
    BELOW_ONE,
    ONE_RAY,
    ORTHOGONAL,
    Counterexample,
    Outcome,
    Quote,
    TrialLog,
    draw_gaps,
)
from gradstarve.theorems._register import register
from gradstarve.theorems._sampling import (
    BATCH,
    DIM,
    FLOW_TOLERANCE,
    LOSS_NAMES,
    WHY_FLOW,
    Geometry,
    generator,
    generators,
    log_uniform,
    record,
    train_flow,
    two_rays,
)
from gradstarve.theorems.laws.modes import FRACTIONS

_BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network of that depth"
# Each pair is a compilation: every loss once, and every depth beyond those of (3.9) and of (3.5).
_PATHS = ((3, "cross-entropy"), (4, "hinge"), (5, "squared"), (6, "exponential"))


def _read_out(rng: np.random.Generator, loss: str, cosine: float) -> tuple[np.ndarray, np.ndarray, Any]:
    """Read-outs trained on two classes: gaps [b] of both logits from the law of each, lost [b], what to record."""
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
    gaps = np.max(np.abs(trained - law) / (1e-3 + np.abs(law)), axis=(-1, -2))
    # The other way round: when trained logits are reached, while they rise; a time is worth the p r^2 g(u) of it.
    pull = np.asarray(as_loss(loss).residual(jnp.asarray(trained))) * (p * r**2)
    rising = (pull * times[:, None] > 1e-3) & (trained > start[:, None])
    back = theory.one_layer_time(p, r, start[:, None], loss, np.where(rising, trained, start[:, None] + 1e-3))
    late = np.abs(np.asarray(back) - times[:, None]) * pull / (1e-3 + np.abs(trained))
    gaps = np.maximum(gaps, np.max(np.where(rising, late, 0), axis=(-1, -2)))

    def trial_record(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, times=times, trained=trained[i], law=law[i])

    return gaps, lost, trial_record


def read_out_without_orthogonality(key: Any) -> Counterexample:
    """Drop "orthogonal classes": at 120 degrees each class teaches the other."""
    gaps, lost, trial_record = _read_out(generator(key), "cross-entropy", -0.5)
    numbers = trial_record(int(np.argmax(np.where(lost, -np.inf, gaps))))
    law, trained = np.asarray(numbers["law"]), np.asarray(numbers["trained"])
    unit = 1e-3 + np.abs(law)
    k, c = (int(v) for v in np.unravel_index(np.argmax(np.abs(trained - law) / unit), law.shape))
    what, when = f"the logit of class {'+-'[c]}", f"at t = {numbers['times'][k]:.4g}"
    return Counterexample.of(
        "orthogonal classes (at 120 degrees instead)",
        Quote(what, when, law[k, c], trained[k, c], unit[k, c]),
        FLOW_TOLERANCE,
        numbers,
    )


def _chain(geometry: Geometry, weights: np.ndarray) -> DeepReLU:
    """Networks of one neuron a layer whose path has these `weights` [b, N] along class +."""
    axis, other = geometry.axes
    chain = DeepReLU.chain(weights, axis)
    # Off the edge of the orthogonal class, on which rounding would decide whether the first neuron sees it.
    return DeepReLU((chain.layers[0] - weights[:, :1, None] * other, *chain.layers[1:]))


def _path(rng: np.random.Generator, depth: int, loss: str, spread: float, balanced_law: bool = False, read_out: float = 1.0):
    """Paths trained by the flow: gaps [b] from the law, lost [b], what to record.

    `spread` is the standard deviation of log b_l around the path's mean; `balanced_law` takes the law of equal weights
    with the same product; `read_out` multiplies the last weight of the network, and not of the law.
    """
    geometry = two_rays(rng, 0.0)
    p, r = geometry.frequencies[0], geometry.norms[0]
    # First logits from a plateau to the cut; deeper paths leave a plateau so suddenly that times from it say little.
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
    gaps = np.max(np.abs(trained - law) / law, axis=-1)

    def trial_record(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, times=times, path=weights[i], trained=trained[i], law=law[i])

    return gaps, lost, trial_record


def _check_paths(key: Any, trials: int, spread: float) -> Outcome:
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        depth, loss = _PATHS[k % len(_PATHS)]
        gaps, lost, trial_record = _path(rng, depth, loss, spread)
        log.add(gaps, f"N = {depth}, {loss}", trial_record, lost)
    return log.outcome()


def _worst_path(dropped: str, gaps: np.ndarray, lost: np.ndarray, trial_record: Any) -> Counterexample:
    """The path and the record at which the law is furthest from training."""
    numbers = trial_record(int(np.argmax(np.where(lost, -np.inf, gaps))))
    trained, law = numbers["trained"], numbers["law"]
    k = int(np.argmax(np.abs(trained - law) / law))
    return Counterexample.of(
        dropped,
        Quote("the logit of class +", f"at t = {numbers['times'][k]:.4g}", law=law[k], trained=trained[k], unit=law[k]),
        FLOW_TOLERANCE,
        numbers,
        f"from weights {', '.join(f'{b:.3g}' for b in numbers['path'])}",
    )


def path_without_balance(key: Any) -> Counterexample:
    """Drop "balanced": the law of equal weights with the same product."""
    trained = _path(generator(key), 3, "cross-entropy", 0.7, balanced_law=True)
    return _worst_path("balanced weights (different ones with the same product instead)", *trained)


def path_of_a_negative_weight(key: Any) -> Counterexample:
    """Drop "positive weights": the last one, of the read-out, starts below 0, and goes through 0 before the path learns."""
    trained = _path(generator(key), 3, "cross-entropy", 0.7, read_out=-1.0)
    return _worst_path("positive weights (the last one negative instead, with the law of their sizes)", *trained)


_ALONE = (ORTHOGONAL, ONE_RAY, BELOW_ONE)


@register(
    name="read-out",
    equation="3.9",
    title="A linear read-out learns along Lambert's W",
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
    drops=(read_out_without_orthogonality,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (0.001 + |u_law|)"),
)
def check_read_out(key: Any, trials: int) -> Outcome:
    """Linear read-outs from 0 and from random weights, two orthogonal classes at once; all losses."""
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        gaps, lost, trial_record = _read_out(rng, loss, 0.0)
        log.add(gaps, loss, trial_record, lost)
    return log.outcome()


@register(
    name="depth",
    equation="7.1",
    title="A balanced path of N layers: one equation for every depth",
    claim="du/dt = N p r^(2/N) u^(2 - 2/N) g(u) for N equal weights (tried: N = 3 to 6)",
    formula=r"\frac{du}{dt} = N\, p\, r^{2/N}\, u^{2 - 2/N}\, g(u)",
    hypotheses=(*_ALONE, "positive weights along one path, all equal"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=2 * BATCH * len(_PATHS),
    drops=(path_without_balance,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / u_law"),
)
def check_balanced(key: Any, trials: int) -> Outcome:
    """Paths of three to six equal weights."""
    return _check_paths(key, trials, 0.0)


@register(
    name="unbalanced-depth",
    equation="7.2",
    title="An unbalanced path moves along its conserved differences",
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
    drops=(path_of_a_negative_weight,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / u_law"),
)
def check_unbalanced(key: Any, trials: int) -> Outcome:
    """Paths of three to six weights that differ by factors of three and more."""
    return _check_paths(key, trials, 0.7)
