"""One step of two-layer ReLU networks side by side: networks lie in the last axis, the lanes of the vector units.

With pre_ij = w_j . x_i, residuals r_i = q_i y_i g(y_i f_i) and G_ij = r_i [pre_ij > 0], everything a step needs is
A_j = sum_i G_ij x_i: the direction of descent is z_j A_j for w_j, and w_j . A_j for z_j, because the network is
homogeneous in w_j; no second pass over the points.

Two layouts of the same step. *Listed*: one array [h, L] per coordinate of w, the sums over points and coordinates written
out; for few points and coordinates. *Stacked*: w as [d, h, L], the sums as matrix products; for many. A third, *drawn*, is
listed with one point per lane, that of stochastic descent.

Points may come *lifted* (see `span`): the numbers of a neuron are then (s, c), pre is s itself, A is (K G, G), and what w.A
is for weights is sum_i s_i G_i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.ground import is_concrete
from gradstarve.problem import GradientDescent, Loss, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation.engines._emission import one_function, stage


class Rule(NamedTuple):
    """What of the update rule is there at all; what is not costs nothing."""

    momentum: bool
    nesterov: bool
    decay: bool


def rule_for(dynamics: GradientDescent | StochasticGradientDescent) -> Rule:
    """What these dynamics have to them: a hyperparameter counts if it is not zero everywhere, or nobody knows yet."""
    if isinstance(dynamics, StochasticGradientDescent):
        return Rule(False, False, False)

    def there(value: Array) -> bool:
        return not is_concrete(value) or bool(np.asarray(value).any())

    return Rule(there(dynamics.momentum), dynamics.nesterov, there(dynamics.weight_decay))


class Lanes(NamedTuple):
    """L networks: `w` as d arrays [h, L] or as one [d, h, L], `z` [h, L], and their velocities where there is momentum."""

    w: Any
    z: Array
    velocity_w: Any = None
    velocity_z: Any = None


def enter(networks: TwoLayerReLU, velocity: TwoLayerReLU | None, listed: bool) -> Lanes:
    """Networks of batch shape [L], and their velocities if they have any, laid out in lanes."""

    def turn(network):
        w = jnp.moveaxis(network.w, 0, 2).swapaxes(0, 1)
        return list(w) if listed else w, network.z.T

    return Lanes(*turn(networks), *(turn(velocity) if velocity is not None else ()))


def leave(lanes: Lanes) -> tuple[TwoLayerReLU, TwoLayerReLU | None]:
    """The networks of batch shape [L] that lie in `lanes`, and their velocities if they have any."""

    def turn(w, z):
        w = jnp.stack(w) if isinstance(w, list) else w
        return TwoLayerReLU(jnp.moveaxis(w.swapaxes(0, 1), 2, 0), z.T)

    return turn(lanes.w, lanes.z), None if lanes.velocity_z is None else turn(lanes.velocity_w, lanes.velocity_z)


class Points(NamedTuple):
    """The points a step looks at: `x[i, k]` is coordinate k of point i, `y[i]` the label, `q[i]` the weight; each a number,
    or [L] where every lane has points of its own. `gram`: [n, n], of lifted points, whose `x` is not looked at."""

    x: Any
    y: Any
    q: Any
    gram: Any = None


class Hyper(NamedTuple):
    """Hyperparameters, one per lane: [L]."""

    step_size: Array
    momentum: Array | None = None
    decay: Array | None = None


def total(terms: Sequence[Array]) -> Array:
    """The sum of a few arrays, in their order."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


@stage
def listed_pre(w, x):
    """pre_i [h, L] for every point."""
    return [total([wk * x[i, k] for k, wk in enumerate(w)]) for i in range(x.shape[0])]


@stage
def listed_outputs(pre, z):
    """f_i [L] for every point."""
    return [jnp.sum(z * jnp.maximum(p, 0), axis=0) for p in pre]


def stacked_pre(w, x):
    """pre [n, h, L]."""
    return jnp.tensordot(x, w, 1, precision="highest")


def stacked_outputs(pre, z):
    """f [n, L]."""
    return jnp.sum(z * jnp.maximum(pre, 0), axis=1)


def pre_activations(w, points: Points):
    """pre of every point, in the layout of `w`."""
    if points.gram is not None:
        return w[: points.gram.shape[0]]
    return (listed_pre if isinstance(w, list) else stacked_pre)(w, points.x)


def _listed_directions(w, z, points: Points, loss: Loss):
    """A as d arrays [h, L]."""

    @stage
    def blamed(pre, outputs, y, q):
        pulls = [q[i] * y[i] * loss.residual(y[i] * outputs[i]) for i in range(len(outputs))]
        return [jnp.where(p > 0, pull, 0) for p, pull in zip(pre, pulls, strict=True)]

    @stage
    def directions(blame, x):
        return [total([blamed * x[i, k] for i, blamed in enumerate(blame)]) for k in range(x.shape[1])]

    pre = pre_activations(w, points)
    blame = blamed(pre, listed_outputs(pre, z), points.y, points.q)
    return directions(blame, points.x) if points.gram is None else [*directions(blame, points.gram), *blame]


def _stacked_directions(w, z, points: Points, loss: Loss):
    """A as [d, h, L]."""

    # All between the two products as one function; its reduction apart, or every neuron would do it again.
    @one_function
    def blamed(pre, z, y, q):
        outputs = stage(stacked_outputs)(pre, z)
        pull = q * y * loss.residual(y * outputs)
        return jnp.where(pre > 0, pull[:, None], 0)

    blame = blamed(pre_activations(w, points), z, points.y[:, None], points.q[:, None])
    if points.gram is not None:
        return jnp.concatenate([jnp.tensordot(points.gram, blame, 1, precision="highest"), blame])
    return jnp.tensordot(points.x, blame, ((0,), (0,)), precision="highest")


def step(lanes: Lanes, points: Points, loss: Loss, hyper: Hyper, rule: Rule) -> Lanes:
    """All lanes one step further."""
    listed = isinstance(lanes.w, list)
    directions = (_listed_directions if listed else _stacked_directions)(lanes.w, lanes.z, points, loss)

    def update(lanes, directions, hyper):
        return moved(lanes, directions, hyper, rule, points.gram is not None)

    return (stage if listed else one_function)(update)(lanes, directions, hyper)


def moved(lanes: Lanes, directions, hyper: Hyper, rule: Rule, lifted: bool = False) -> Lanes:
    """`lanes` after the update rule, which is written out in `GradientDescent`, by the `directions` of descent A.

    `lifted`: whether the numbers of a neuron are (s, c), whose directions are (K G, G).
    """

    def move(theta, descent, velocity):
        if not rule.momentum:
            if rule.decay:
                descent = descent - hyper.decay * theta
            return theta + hyper.step_size * descent, None
        gradient = hyper.decay * theta - descent if rule.decay else -descent
        velocity = hyper.momentum * velocity + gradient
        push = gradient + hyper.momentum * velocity if rule.nesterov else velocity
        return theta - hyper.step_size * push, velocity

    w, z, velocity_w, velocity_z = lanes
    half = len(w) // 2
    partners = (w[:half], directions[half:]) if lifted else (w, directions)
    if isinstance(w, list):
        along = total([wk * ak for wk, ak in zip(*partners, strict=True)])
        pairs = [move(wk, z * ak, vk) for wk, ak, vk in zip(w, directions, velocity_w or [None] * len(w), strict=True)]
        new_w, new_velocity_w = [pair[0] for pair in pairs], [pair[1] for pair in pairs] if rule.momentum else None
    else:
        along = jnp.sum(partners[0] * partners[1], axis=0)
        new_w, new_velocity_w = move(w, z * directions, velocity_w)
    new_z, new_velocity_z = move(z, along, velocity_z)
    return Lanes(new_w, new_z, new_velocity_w, new_velocity_z)
