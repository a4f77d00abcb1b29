"""A user's loss (3.5): the flow of a smoothed hinge, whose residual has no closed form in the library."""

from __future__ import annotations

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from gradstarve.problem import Loss, as_loss
from gradstarve.theorems._entry import EXCLUSIVE, ONE_RAY, SEPARABLE, STAYING, Hypothesis
from gradstarve.theorems._figure import MARGIN, of_solution
from gradstarve.theorems._register import Drop, Trials, register
from gradstarve.theorems._sampling import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, exclusive_start, two_rays
from gradstarve.theorems.laws.modes import TWO_DIRECTIONS, against_solve, two_directions


class SmoothHinge(Loss):
    """g = 1 below the margin 1 - width, then a line down to 0 at the margin 1, and 0 above."""

    width: Any
    rest: ClassVar[Any] = 1.0

    @property
    def kinks(self) -> Any:
        """The margins at which g' jumps."""
        return (1 - self.width, 1.0)

    def value(self, margin):
        """Straight below 1 - width, a parabola up to 1, then 0."""
        left = 1 - margin
        return jnp.where(left > self.width, left - self.width / 2, jnp.maximum(left, 0) ** 2 / (2 * self.width))

    def residual(self, margin):
        """(1 - m)/width between 0 and 1."""
        return jnp.clip((1 - margin) / self.width, 0, 1)


BELOW_REST = Hypothesis(
    "margins start at the rest of the loss or below",
    lambda p: bool(jnp.all(as_loss(p.loss).residual(jnp.asarray(p.margins)) >= -1e-12)),
)
_KINDS = ("antipodal", "orthogonal", "obtuse")


@register(
    name="own-loss",
    equation="3.5",
    title="The flow of a loss of one's own, from its residual alone",
    meaning="A loss of your own needs no new theory: its slope alone gives the whole learning curve.",
    claim="for a residual g that falls to 0 at a rest, time is the integral of 1/(g sqrt(kappa^2 + v^2)) over the logit, "
    "and logits and weights of the trained network are those of its inverse",
    formula=(
        r"\begin{split} 2\, p\, r\, t &= \int_{u_0}^{\,u} \frac{dv}{g(v)\, \sqrt{\kappa^2 + v^2}}, \\ "
        r"g(v) &= \min \left( 1, \frac{1 - v}{\text{width}} \right) \quad \text{if } v < 1, \quad \text{else } 0 \end{split}"
    ),
    hypotheses=(SEPARABLE, ONE_RAY, EXCLUSIVE, STAYING, BELOW_REST),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW + "; the quadrature of the law is known to 1e-10",
    checked_with=BY_FLOW,
    default_trials=144,
    rounds=tuple({"kind": kind} for kind in _KINDS),
    drops=(Drop(TWO_DIRECTIONS, lambda rng: two_directions(rng, SmoothHinge(jnp.asarray(0.5)))),),
    figure=of_solution(MARGIN),
)
def own_loss(rng: np.random.Generator, kind: str) -> Trials:
    """A smoothed hinge of random width, on antipodal, orthogonal and obtuse classes; neurons that stay."""
    loss = SmoothHinge(jnp.asarray(rng.uniform(0.2, 0.9)))
    geometry = two_rays(rng, (-1.0, 0.0, rng.uniform(-0.95, -0.05))[_KINDS.index(kind)])
    start = exclusive_start(rng, wrong_sign_learners=0.2).below(geometry, 1.0)
    return against_solve(rng, geometry, start, loss, kind)
