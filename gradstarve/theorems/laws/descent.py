"""Gradient descent solved exactly (8.1): the law and training differ by rounding, at any step size."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import GradientDescent, Mode
from gradstarve.theorems._drawing import draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._running import law_gaps, train_descent
from gradstarve.theorems._sampling import (
    BATCH,
    LOSS_NAMES,
    WIDTH,
    Geometry,
    Start,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)

_STEPS = 1000
DESCENT_TOLERANCE = 1e-10


def step_sizes(rng: np.random.Generator, geometry: Geometry, start: Start, loss: str) -> np.ndarray:
    """Log-uniform from a thousandth of the largest sensible step to that one, step_size p r g = 0.9 at the start: [b].

    Squared loss needs less to be stable: beyond, its orbits are chaotic and make rounding large.
    """
    limit = np.full(BATCH, np.inf)
    for r, p, y in zip(geometry.norms, geometry.frequencies, (1, -1), strict=True):
        a, zeta = start.mode(y)
        margin = r * np.sum(a * zeta, axis=-1)
        residual = np.exp(-np.minimum(margin, 0)) if loss == "exponential" else 1.0
        if loss == "squared":
            residual = 2 * (1 + np.abs(margin) + 2 * start.scale(geometry))
        limit = np.minimum(limit, 0.9 / (p * r * residual))
    return limit * log_uniform(rng, 1e-3, 1, BATCH)


def check_descent(key: Any, trials: int) -> Outcome:
    """Antipodal and orthogonal classes with half of the neurons of the wrong sign; obtuse ones with the right sign."""
    tally = Tally(DESCENT_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        kind = (k // len(LOSS_NAMES) + k) % 3
        geometry = two_rays(rng, (-1.0, 0.0, rng.uniform(-0.95, -0.05))[kind])
        start = exclusive_start(rng, wrong_signs=0.5 if kind < 2 else 0.0)
        if loss == "squared" and kind == 2:
            # Above a margin of 1 the clock runs backwards, and a neuron that leaves by it wakes on an obtuse class.
            start = start.below_one(geometry)
        network = start.network(rng, geometry)
        step_size = step_sizes(rng, geometry, start, loss)
        run = train_descent(geometry.data, network, loss, step_size, _STEPS, _STEPS // 4)
        dynamics = GradientDescent(step_size)
        gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry), dynamics)
        tally.add(
            gaps,
            loss,
            lambda i, d=geometry.data, s=loss, n=network, e=step_size, f=sides: record(d, s, n, i, step_size=e[i], **f(i)),
        )
    return tally.outcome(steps=_STEPS)


def without_exclusiveness(key: Any) -> Counterexample:
    """Drop "exclusive": neurons active on both of two orthogonal classes, each class taken for a mode of its own."""
    rng = generator(key)
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, low=0.1, high=0.5)
    network = start.network(rng, geometry)
    other = np.where(start.home[..., None] > 0, geometry.axes[1], geometry.axes[0])
    along = np.sum(np.asarray(network.w) * other, axis=-1)
    w = np.asarray(network.w) + ((0.5 * start.a - along) * (start.home != 0))[..., None] * other
    network = type(network)(w, network.z)
    step_size = 0.2 / geometry.rates.max()
    steps = 100
    run = train_descent(geometry.data, network, "cross-entropy", step_size, steps, steps)
    mode = Mode(geometry.frequencies[0], geometry.norms[0], w @ geometry.axes[0], network.z)
    law = np.asarray(theory.solve_mode(mode, "cross-entropy", GradientDescent(step_size)).logit(steps))
    found = np.asarray(run.recorded)[:, -1, 0]
    gap = np.abs(found - law) / (np.abs(law) + start.scale(geometry))
    # A network in which the law and training differ in more than that nothing is left.
    i = int(np.argmax(np.where(found > 0, gap, -np.inf)))
    return Counterexample.of(
        "exclusive neurons (each active on both classes instead)",
        Quote(
            "the logit of class +",
            f"after {steps} steps",
            law=law[i],
            trained=found[i],
            unit=np.abs(law[i]) + start.scale(geometry)[i],
        ),
        DESCENT_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, step_size=step_size, steps=steps, law=law[i], trained=found[i]),
        rest=f"the law of its mode alone is meant, {int((start.home[i] != 0).sum())} of {WIDTH} neurons are in use",
    )


DESCENT = Theorem(
    name="exact-descent",
    equation="8.1",
    title="Gradient descent in two numbers per class, exactly",
    claim="after every step M+ and M- are multiplied by (1 ± eta p r g(u))^2, for any width, dimension and step size",
    formula=(
        r"M_\pm \leftarrow (1 \,\pm\, \eta\, p\, r\, g(u))^2\, M_\pm, \qquad u = \frac{r}{4}\, (M_+ - M_-), \qquad "
        r"M_\pm = \sum_{a_j > 0} (a_j \,\pm\, z_j)^2"
    ),
    hypotheses=(
        "classes along one direction each: antipodal (any signs), orthogonal (exclusive neurons, any signs), or obtuse "
        "(exclusive neurons that stay; squared loss: margins start at 1 or below)",
        "no neuron on the stable manifold z = -a, where rounding decides",
        "plain gradient descent; squared loss: a stable step size",
    ),
    tolerance=DESCENT_TOLERANCE,
    why_tolerance=(
        "accumulated rounding of 1000 steps, at most 1000 times 2e-16, made larger by up to 1e3 by neurons that start "
        "within 1e-3 of the stable manifold"
    ),
    checked_with="simulate: gradient descent on all weights by automatic differentiation",
    default_trials=192,
    check=check_descent,
    necessity=(without_exclusiveness,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (|u| + r Σ(a² + z²)/2) over 1000 steps"),
)
