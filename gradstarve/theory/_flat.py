"""One layer under losses whose residual is constant between kinks: hinge, shifted, scaled or with flipped labels (10.1).

F(v) = sum_S p_S l_S(m_S), m = types v, is convex and piecewise linear, and v' = -R^2 grad F, R the scales. Between events
the speed is constant. A margin at a kink takes the residual, between those of both sides, that makes the speed shortest
in the metric R^-2 (the right derivative of a gradient flow of a convex function): the margin slides along the kink if
possible, and leaves it otherwise. Signed types need this, because learning one type can push the margin of another back to
its kink.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradstarve.problem import FlippedLabels, Hinge, Loss, MarginShift, Temperature

LOW, FREE, HIGH = 0, 1, 2  # of the residual of a margin at a kink
_MOST_PIVOTS = 200


def is_flat(loss: Loss) -> bool:
    """Whether the residual is constant between the kinks of the loss.

    >>> is_flat(MarginShift("hinge", 0.5)), is_flat(FlippedLabels("cross-entropy", 0.1))
    (True, False)
    """
    if type(loss) in (FlippedLabels, MarginShift, Temperature):
        return is_flat(loss.loss)  # pyright: ignore[reportAttributeAccessIssue]
    return type(loss) is Hinge


def kinks_and_levels(loss: Loss, count: int, dtype: Any) -> tuple[Array, Array]:
    """The kinks of a flat loss, rising, [J, count], and its residuals below, between and above them, [J + 1, count]."""
    kinks = jnp.stack([jnp.broadcast_to(jnp.asarray(kink, dtype), (count,)) for kink in loss.kinks])
    kinks = jnp.sort(kinks, axis=0)
    between = jnp.concatenate([kinks[:1] - 1, (kinks[1:] + kinks[:-1]) / 2, kinks[-1:] + 1])
    return kinks, loss.residual(between)


def picked(values: Array, row: Array) -> Array:
    """values[row_S, S] of every margin, [S]; rows beyond the ends are the ends."""
    return jnp.take_along_axis(values, jnp.clip(row, 0, len(values) - 1)[None], axis=0)[0]


def rounding_of_speeds(gram: Array, weights: Array) -> Array:
    """Speeds of margins that are rounding of their terms, [S]."""
    return 256 * jnp.finfo(gram.dtype).eps * (jnp.abs(gram) @ jnp.max(jnp.abs(weights), axis=0))


def forces(gram: Array, status: Array, low: Array, high: Array) -> tuple[Array, Array]:
    """w_S = p_S g_S, and the speeds of the margins, with those at rest whose residual is free."""
    free = status == FREE
    fixed = jnp.where(free, 0, jnp.where(status == HIGH, high, low))
    matrix = jnp.where(free[:, None] & free, gram, 0) + jnp.diag(jnp.where(free, 0.0, 1.0).astype(gram.dtype))
    w = jnp.where(free, jnp.linalg.solve(matrix, jnp.where(free, -(gram @ fixed), 0)), fixed)
    return w, jnp.where(free, 0, gram @ w)


def chosen_status(gram: Array, weights: Array, jumps: Array, low: Array, high: Array) -> Array:
    """Which margins at a kink leave it, the linear complementarity problem of the speeds, by pivots of least index: `FREE`
    stays. `jumps`: which margins are at a kink, `low` and `high` the bounds of their w_S, [S]."""
    size, small = len(gram), rounding_of_speeds(gram, weights)
    slack = 64 * jnp.finfo(gram.dtype).eps * jnp.max(jnp.abs(weights))

    def wrong(status: Array) -> Array:
        w, speed = forces(gram, status, low, high)
        lifted = (status == LOW) & (speed < -small) | (status == HIGH) & (speed > small)
        return jumps & (lifted | (status == FREE) & ((w < low - slack) | (w > high + slack)))

    def pivot(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        status, off, tries = state
        w, _ = forces(gram, status, low, high)
        held = jnp.where(w > high, HIGH, LOW)
        here = jnp.arange(size) == jnp.argmax(off)
        after = jnp.where(here, jnp.where(status == FREE, held, FREE), status)
        return after, wrong(after), tries + 1

    begin = jnp.full(size, LOW)
    state = (begin, wrong(begin), jnp.asarray(0))
    status, _, _ = jax.lax.while_loop(lambda s: s[1].any() & (s[2] < _MOST_PIVOTS), pivot, state)
    return status


def flat_phases(
    types: Array, probabilities: Array, scales: Array, start: Array, kinks: Array, levels: Array
) -> tuple[Array, Array, Array, Array]:
    """One problem: the times [P+1] at which phases start (inf: never), v_k and dv_k/dt [P+1, K] there, and whether the last
    of them is the end."""
    count, size = kinks.shape
    gram = (types * scales**2) @ types.T
    weights = levels * probabilities
    small = rounding_of_speeds(gram, weights)

    def phase(state: tuple[Array, ...], _: None) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        # A margin `at` a kink is at kink number `side`; any other margin has `side` kinks below it.
        v, side, at, clock = state
        high, low = picked(weights, side), jnp.where(at, picked(weights, side + 1), picked(weights, side))
        held = jax.tree.map(jax.lax.stop_gradient, (at & (high > low), low, high))
        w, speed = forces(gram, chosen_status(gram, weights, *held), low, high)
        speed = jnp.where(jnp.abs(speed) > small, speed, 0)
        moving = speed != 0
        side, at = jnp.where(at & (speed > 0), side + 1, side), at & ~moving
        ahead = jnp.where(speed > 0, side, side - 1)  # the kink that it moves to
        there = moving & (ahead >= 0) & (ahead < count)
        way = picked(kinks, ahead) - types @ v
        waits = jnp.where(there, jnp.maximum(way / jnp.where(there, speed, 1), 0), jnp.inf)
        wait = jnp.min(waits)
        pace = jnp.where(moving.any(), scales**2 * (w @ types), 0)
        after = v + pace * jnp.where(jnp.isfinite(wait), wait, 0)
        reached = there & (waits <= wait)
        state = (after, jnp.where(reached, ahead, side), at | reached, clock + wait)
        return state, (clock, v, pace)

    margins = types @ start
    begin = (start, jnp.sum(kinks < margins, axis=0), (kinks == margins).any(axis=0), jnp.zeros((), start.dtype))
    most = 4 * size * count + 8
    (_, _, _, clock), (clocks, states, paces) = jax.lax.scan(phase, begin, None, length=most)
    return clocks, states, paces, jnp.isinf(clock)
