"""Momentum and weight decay in discrete time (8.2): still two numbers a neuron, still exact."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import GradientDescent, Mode
from gradstarve.theorems._drawing import draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import EXCLUSIVE, OFF_MANIFOLD, ONE_RAY, SEPARABLE
from gradstarve.theorems._running import law_gaps, train
from gradstarve.theorems._sampling import (
    BATCH,
    LOSS_NAMES,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)
from gradstarve.theorems.laws.descent import DESCENT_TOLERANCE, step_sizes

_STEPS = 1000
# What each loss is tried with, 0 antipodal, 1 orthogonal, 2 obtuse: every combination is a compilation.
_KINDS = {"cross-entropy": (1, 2), "hinge": (0,), "exponential": (0,), "squared": (0,)}


def _dynamics(rng: np.random.Generator, limit: np.ndarray, nesterov: bool, exclusive: bool) -> GradientDescent:
    """A third of the networks without momentum, a third without decay; decays up to 1/2 a step.

    Exclusive neurons bear less: not so much that the distance to the other class would shrink to its rounding, where
    training is not the law of real numbers any more.
    """
    momentum = np.where(rng.uniform(size=BATCH) < 1 / 3, 0, 1 - log_uniform(rng, 0.02, 0.9, BATCH))
    decay = np.where(rng.uniform(size=BATCH) < 1 / 3, 0, log_uniform(rng, 1e-5, 0.5, BATCH))
    if exclusive:
        calm = ((1 - momentum) / (1 + momentum)) ** 2 if nesterov else (1 - np.sqrt(momentum)) ** 2
        decay = np.minimum(decay, np.minimum(0.9 * calm, 12 * (1 - momentum) / _STEPS))
    # Momentum makes a step 1/(1 - momentum) times as long.
    step_size = limit * (1 - momentum)
    return GradientDescent(step_size, momentum, nesterov, decay / step_size)


def check_momentum(key: Any, trials: int) -> Outcome:
    """Antipodal and orthogonal classes with half of the neurons of the wrong sign; obtuse ones with the right sign."""
    tally = Tally(DESCENT_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        number = k % len(LOSS_NAMES)
        loss, nesterov = LOSS_NAMES[number], number % 2 == 0
        kind = _KINDS[loss][k // len(LOSS_NAMES) % len(_KINDS[loss])]
        geometry = two_rays(rng, (-1.0, 0.0, rng.uniform(-0.95, -0.05))[kind])
        start = exclusive_start(rng, wrong_signs=0.5 if kind < 2 else 0.0)
        network = start.network(rng, geometry)
        dynamics = _dynamics(rng, step_sizes(rng, geometry, start, loss), nesterov, exclusive=kind > 0)
        run = train(geometry.data, network, loss, dynamics, _STEPS, _STEPS // 4)
        gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry), dynamics)
        tally.add(
            gaps,
            f"{loss}, {'Nesterov' if nesterov else 'heavy ball'}",
            lambda i, d=geometry.data, s=loss, n=network, e=dynamics, f=sides: record(d, s, n, i, **_numbers(e, i), **f(i)),
        )
    return tally.outcome(steps=_STEPS)


def _numbers(dynamics: GradientDescent, i: int) -> dict[str, Any]:
    names = ("step_size", "momentum", "weight_decay")
    return {"nesterov": dynamics.nesterov, **{name: np.asarray(getattr(dynamics, name))[i] for name in names}}


def without_calm(key: Any) -> Counterexample:
    """Drop "weight decay that does not oscillate": what class + does not see swings to its side."""
    rng = generator(key)
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, low=0.1, high=0.5).usual()
    network = start.network(rng, geometry)
    step_size = 0.4 / geometry.rates.max()
    every = np.ones(BATCH)
    dynamics = GradientDescent(step_size * every, 0.9 * every, weight_decay=0.006 / step_size * every)
    run = train(geometry.data, network, "cross-entropy", dynamics, _STEPS, _STEPS // 4)
    a, zeta = start.mode(1)
    mode = Mode(geometry.frequencies[0], geometry.norms[0], a, zeta)
    grid = np.asarray(run.grid)
    law = np.asarray(theory.solve_mode(mode, "cross-entropy", dynamics).logit(grid))
    found = np.asarray(run.recorded)[..., 0]
    size = np.abs(law) + start.scale(geometry)[:, None]
    i, k = (int(j) for j in np.unravel_index(np.argmax(np.abs(found - law) / size), law.shape))
    return Counterexample.of(
        "weight decay that does not oscillate (step_size * weight_decay = 0.006 with momentum 0.9 instead)",
        Quote("the logit of class +", f"after {grid[k]} steps", law=law[i, k], trained=found[i, k], unit=size[i, k]),
        DESCENT_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, **_numbers(dynamics, i), law=law[i], trained=found[i]),
        rest="the law of its own neurons alone is meant",
    )


MOMENTUM = Theorem(
    name="weight-decay-and-momentum",
    equation="8.2",
    title="Momentum and weight decay, solved exactly as well",
    claim="with heavy-ball or Nesterov momentum and weight decay, p_j = a_j + z_j and q_j = a_j - z_j of every neuron obey "
    "the scalar recurrence of their class, velocities kept by neurons that leave; all other weights decay by one factor",
    formula=(
        r"\begin{split} G_j^\pm &= (\eta \lambda \mp \eta\, p\, r\, g(u))\, (a_j \,\pm\, z_j), \qquad "
        r"V_j^\pm \leftarrow \mu\, V_j^\pm + G_j^\pm, \\ "
        r"\text{heavy ball:} \quad a_j \,\pm\, z_j &\leftarrow a_j \,\pm\, z_j - V_j^\pm, \\ "
        r"\text{Nesterov:} \quad a_j \,\pm\, z_j &\leftarrow a_j \,\pm\, z_j - G_j^\pm - \mu\, V_j^\pm \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "at an obtuse angle neurons of the right sign only, and not squared loss, whose margins swing past 1 and back",
        "unless antipodal: step_size * weight_decay at most (1 - sqrt(m))^2, Nesterov ((1 - m)/(1 + m))^2, m the momentum, "
        "and not so many steps that decay leaves of a neuron's distance to the other class no more than rounding",
        OFF_MANIFOLD,
        "squared loss: a stable step size",
    ),
    tolerance=DESCENT_TOLERANCE,
    why_tolerance=(
        "accumulated rounding of 1000 steps, at most 1000 times 2e-16, made larger by up to 1e3 by neurons that start "
        "within 1e-3 of the stable manifold"
    ),
    checked_with="simulate: gradient descent with momentum and weight decay on all weights by automatic differentiation",
    default_trials=288,
    quick_trials=48,
    check=check_momentum,
    necessity=(without_calm,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (|u| + r Σ(a² + z²)/2) over 1000 steps"),
    single_tolerance=None,
)
