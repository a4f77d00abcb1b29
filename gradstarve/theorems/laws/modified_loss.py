"""Losses built on another loss (18.1)-(18.3): any residual is a clock, in the flow and in descent."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve.problem import FlippedLabels, Focal, Loss, MarginShift, Temperature
from gradstarve.theorems._entry import EXCLUSIVE, ONE_RAY, SEPARABLE, STAYING
from gradstarve.theorems._figure import of_solution
from gradstarve.theorems._register import Drop, Trials, register
from gradstarve.theorems._sampling import (
    BY_FLOW,
    FLOW_TOLERANCE,
    WHY_FLOW,
    ExclusiveInit,
    Geometry,
    exclusive_start,
    log_uniform,
    two_rays,
)
from gradstarve.theorems.laws.descent import steps_against_solve
from gradstarve.theorems.laws.modes import FRACTIONS, TWO_DIRECTIONS, against_solve, two_directions
from gradstarve.theorems.laws.own_loss import BELOW_REST

_ROUNDS = tuple(
    {"change": change, "of": of, "by": by, "kind": kind}
    for change, of, by, kind in (
        ("flipped labels", "cross-entropy", "flow", "antipodal"),
        ("shifted margin", "hinge", "descent", "orthogonal"),
        ("temperature", "cross-entropy", "descent", "antipodal"),
        ("focal loss", "cross-entropy", "flow", "obtuse"),
        ("flipped labels", "hinge", "flow", "orthogonal"),
        ("flipped labels", "squared", "descent", "antipodal"),
        ("shift and temperature", "cross-entropy", "flow", "obtuse"),
        ("focal loss", "cross-entropy", "descent", "orthogonal"),
    )
)


def _drawn(rng: np.random.Generator, change: str, of: str) -> tuple[Loss, float]:
    """A loss with random numbers, and a margin that is not above its rest."""
    share, shift, temperature = rng.uniform(0.02, 0.4), rng.uniform(-0.4, 1.5), log_uniform(rng, 0.5, 3)
    cooled = Temperature(of, jnp.asarray(temperature))
    return {
        "flipped labels": (FlippedLabels(of, jnp.asarray(share)), 1 - 2 * share),
        "shifted margin": (MarginShift(of, jnp.asarray(shift)), 1 + shift),
        "temperature": (cooled, temperature),
        "shift and temperature": (MarginShift(cooled, jnp.asarray(shift)), temperature + shift),
        "focal loss": (Focal(jnp.asarray(rng.uniform(0.3, 4))), np.inf),
    }[change]


def _times_below_one(start: ExclusiveInit, geometry: Geometry) -> np.ndarray:
    """Four times at which no margin has come to 1: with g <= 1 it is at most r sum (a^2 + z^2)/2 exp(2 p r t)."""
    return FRACTIONS * np.log(1 / start.scale(geometry).max()) / geometry.rates.max()


@register(
    name="modified-loss",
    equation="18.1-18.3",
    title="Any residual is a clock: flipped labels, shift, temperature, focal",
    meaning="Label noise, label smoothing, margins, temperatures and the focal loss only change how fast the clock runs.",
    claim="the clock and the steps of descent need no more than the residual: logits and weights of networks trained with "
    "flipped labels, a shifted margin, a temperature or the focal loss are those of the law for its residual",
    formula=(
        r"\begin{split} \frac{du}{dt} &= 2\, p\, r\, g(u)\, \sqrt{\kappa^2 + u^2}, \qquad "
        r"M_\pm \leftarrow (1 \,\pm\, \eta\, p\, r\, g(u))^2\, M_\pm, \\ "
        r"\text{share } e \text{ of labels flipped:} \quad g(u) &= (1 - e)\, g_\ell(u) - e\, g_\ell({-u}) "
        r"\quad (1 - 2 e \text{ for hinge loss and } |u| < 1), \\ "
        r"\text{shift } \delta \text{:} \quad g(u) &= g_\ell(u - \delta), \\ "
        r"\text{temperature } T \text{:} \quad g(u) &= \frac{1}{T}\, g_\ell \left( \frac{u}{T} \right), \\ "
        r"\text{focal:} \quad g(u) &= (1 - P)^\gamma\, (1 - P - \gamma\, P\, \log(P)), \qquad "
        r"P = \frac{1}{1 + e^{-u}} \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        STAYING,
        BELOW_REST,
        "descent: antipodal or orthogonal classes",
        "flipped labels with hinge loss: margins that stay below 1, where the flow slides",
    ),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW + "; the quadrature of the law is known to 1e-10, and descent differs from its law by rounding",
    checked_with=BY_FLOW + "; simulate: gradient descent on all weights by automatic differentiation",
    default_trials=24 * len(_ROUNDS),
    quick_trials=48,
    dynamics=("flow", "descent"),
    rounds=_ROUNDS,
    drops=(Drop(TWO_DIRECTIONS, lambda rng: two_directions(rng, FlippedLabels("cross-entropy", jnp.asarray(0.1)))),),
    figure=of_solution(),
)
def modified_loss(rng: np.random.Generator, change: str, of: str, by: str, kind: str) -> Trials:
    """A loss with random numbers built on another one, on antipodal, orthogonal and obtuse classes; neurons that stay."""
    geometry = two_rays(rng, {"antipodal": -1.0, "orthogonal": 0.0, "obtuse": rng.uniform(-0.95, -0.05)}[kind])
    loss, margin = _drawn(rng, change, of)
    slides = by == "flow" and change == "flipped labels" and of == "hinge"
    start = exclusive_start(rng, wrong_sign_learners=0.2, high=0.02 if slides else 1.5).below(geometry, margin)
    if by == "descent":
        return steps_against_solve(rng, geometry, start, loss, stable_for="squared", group=change)
    more: dict[str, Any] = {"times": _times_below_one(start, geometry)} if slides else {}
    return against_solve(rng, geometry, start, loss, change, **more)
