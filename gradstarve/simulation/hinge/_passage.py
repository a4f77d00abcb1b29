"""What all parts of the hinge flow share: tolerances, the first passage of a curve, and the passage of an edge (12.1).

A curve that is D > 0 away from its event, with a speed V towards it and a second derivative of at most B, cannot get there
before the time s at which D - V s - B s^2 / 2 = 0. Steps of that length never pass a root and close in on it quadratically.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Every tolerance of the hinge flow, in units of the rounding (eps) of what it is a part of, and why it is so many.
FLAT = 4  # x_i.c_j of orthogonal vectors, of |x_i| |c_j|: one product of unit vectors, which must not wake a neuron
LINE = 16  # the distance of two unit vectors along one line: two norms, and all coordinates
EDGE = 64  # w_j.x_i on its edge, of |x_i| (|w_j| + |z_j|): weights have come there by a segment or a series
START = 2  # w_j.x_i of given weights, of d times the sum of its |terms|: a sum of d products, in whatever order
MARGIN = 2  # 1 - m_i at the end of a passage in closed form: the last step is below one rounding of m_i
SUM = 8  # the same of a series, of 1 + sum_j |z_j w_j.x_i|, and of edges: a sum over neurons that may cancel
PULL = 256  # u_i / q_i of a held point at 0 or at 1: the solution of a linear system with the kernel
RIDGE = 100  # the kernel of held points, of its largest entry: what is less is rounding of points that depend on each other
SPEED = 64  # the slope of a polynomial, of its terms and of the slack: a sum over the orders
RATE = 4096  # dm_i/dt, of the terms that it is a sum of: neurons and points that cancel where it is 0
PARTING = 1e6  # the same of a margin that leaves 1, of RATE: it leaves tangentially, and its speed is what rounding left
GONE = 1e-3  # rho t from which on its speed is its own
AT_ONE = 1e4  # 1 - m_i of a margin that has a part in who is held: what a long run adds up to
BOX = 4  # the shares of held points, in a decision: the least squares that they are the solution of
ESCAPE = 64  # how far a curve is from an event that it has left, of its slack: from there on its sign means something
MOMENT = 4  # the time between two events of one moment, of the time since the start: rounding of a sum
ROOT = 2  # the step towards a passage, of the time so far: a shorter one does not move the clock
JUMP = 64  # of the root of eps: u_i / q_i of a held point outside of [0, 1], beyond which it has jumped and not moved

# Steps towards a first passage, of which each at least halves what is left or is as long as the bound of the bend allows.
MOST_STEPS = 4000


class Look(NamedTuple):
    """Curves at times of their own, [m] each: how far each is from its event, how fast it approaches it, a bound of its
    second derivative, and what rounding may have put into gap and speed."""

    gap: Float[Array, " m"]
    speed: Float[Array, " m"]
    bend: Float[Array, " m"]
    slack: Float[Array, " m"]
    noise: Float[Array, " m"]


def first_passage(
    look: Callable[[Array], Look], start: Float[Array, " m"], limit: Array, longest: Array
) -> tuple[Float[Array, " m"], Bool[Array, ""]]:
    """When each of m curves first comes to its event before `limit`, [m], inf where it does not; and whether the search came
    to an end. Only the earliest is right; later ones are inf or as they were found. `start`: the times to begin at, [m];
    `longest`: for how long the bounds of the bends are good.

    A curve that is at its event and leaves it does not count.
    """
    eps = jnp.finfo(start.dtype).eps

    def unfinished(carry):
        t, found, count = carry
        end = jnp.minimum(limit, jnp.min(jnp.where(found, t, jnp.inf)))
        return jnp.any(~found & (t < end)) & (count < MOST_STEPS)

    def closer(carry):
        t, found, count = carry
        gap, speed, bend, slack, noise = look(t)
        there, gap = gap <= slack, jnp.maximum(gap, 0)
        step = _safe(gap, speed, bend)
        # One that leaves its event tangentially, as a margin that was held does, must get away from its rounding first.
        quiet = there & (jnp.abs(speed) <= noise)
        escape = jnp.where(bend > 0, jnp.sqrt(ESCAPE * slack / jnp.where(bend > 0, bend, 1)), jnp.inf)
        step = jnp.where(quiet, jnp.maximum(step, escape), step)
        hit = ~quiet & (speed >= 0) & (there | (step <= ROOT * eps * t))
        new = jnp.minimum(t + jnp.minimum(step, longest), limit)
        return jnp.where(found | hit, t, new), found | hit & (t < limit), count + 1

    first = (start, jnp.zeros(start.shape, bool), jnp.zeros((), jnp.int32))
    t, found, count = jax.lax.while_loop(unfinished, closer, first)
    return jnp.where(found, t, jnp.inf), count < MOST_STEPS


def _safe(gap, speed, bend):
    """The time before which nothing can happen; inf if never."""
    root = jnp.sqrt(speed**2 + 2 * bend * gap)
    # Two forms of one root, each without cancellation where the other has it.
    ahead = 2 * gap / jnp.where(speed + root > 0, speed + root, 1)
    away = jnp.where(bend > 0, (root - speed) / jnp.where(bend > 0, bend, 1), jnp.inf)
    return jnp.where(speed > 0, ahead, away)


def gates(active: Bool[Array, "*h n"], slope: Any) -> Float[Array, "*h n"]:
    """The slope of the activation of every neuron at every point: 1 where it is active, that of the leaky ReLU elsewhere."""
    return jnp.where(active, 1, slope)


def on_one_line(x: Float[Array, "n d"]) -> Bool[Array, "n n"]:
    """Which points have one edge w.x = 0: those that are multiples of each other, to rounding."""
    size = jnp.linalg.norm(x, axis=1, keepdims=True)
    unit = x / jnp.where(size > 0, size, 1)
    near = LINE * jnp.finfo(x.dtype).eps
    apart, across = (jnp.linalg.norm(unit[:, None] + sign * unit[None], axis=2) for sign in (-1, 1))
    return (apart <= near) | (across <= near)


def passed(
    active: Bool[Array, "h n"],
    waiting: Bool[Array, "h n"],
    j: Int[Array, ""],
    i: Int[Array, ""],
    edge: Float[Array, " n"],
    speed: Float[Array, " n"],
    reach: Float[Array, " n"],
    same: Bool[Array, "n n"],
) -> tuple[Bool[Array, "h n"], Bool[Array, "h n"], Bool[Array, ""]]:
    """Who is `active`, and which edges are `waiting` to be passed at this very moment, after neuron j has passed the edge of
    point i; and whether it meets edges of other lines at this moment, whose order may matter. `edge`: w_j.x of all points
    there, `speed`: its derivative, `reach`: |x| (|w_j| + |z_j|); `same`: `on_one_line`.

    Opposite points have one edge: a neuron that leaves one of them passes to the other, and must not stay between.
    """
    near = (jnp.abs(edge) <= EDGE * jnp.finfo(edge.dtype).eps * reach) & (reach > 0)
    leaves = (speed * jnp.where(active[j], -1, 1) > 0) & ~jnp.any(waiting)
    meets = jnp.any(near & ~same[i] & leaves)
    return active.at[j, i].set(~active[j, i]), waiting.at[j].set(waiting[j] | same[i] & leaves).at[j, i].set(False), meets
