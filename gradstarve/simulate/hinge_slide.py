"""Margins that stay at 1 for a while, and the way of a batch of networks through all of it (12.1).

A point whose margin falls with g_i = 0 and rises with g_i = 1 is held at m_i = 1 by the g_i in between for which
dm_i/dt = 0. For several at once, u_i = q_i g_i solve K u = -b on the held ones: dm/dt = K u + b with the kernel
K_ik = y_i y_k sum_j [both active] (z_j^2 x_i.x_k + (w_j.x_i)(w_j.x_k)) and b the push of the points below 1. Which are held
after an event is the box-constrained problem 0 <= u_i <= q_i: dm_i/dt >= 0 where u_i = 0, <= 0 where u_i = q_i, else 0.

No closed form is known for w and z then. They are integrated by extrapolated midpoint rules of order 14 to rounding;
events are looked for at the ends of steps, and approached from before.
"""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from gradstarve.simulate.hinge_run import Kind, State, Stop, Task, begin, next_time, noted, recorded, run
from gradstarve.simulate.hinge_segment import ROUNDING

# Margins held at once that are sorted out by trying every case, three a point.
MOST_HELD = 6
# Substeps of the midpoint rules, and the weights that cancel their errors in the powers of the substep's square.
_SUBSTEPS = np.arange(2, 16, 2)
_STEPS = 20_000


def _weights(substeps: np.ndarray) -> np.ndarray:
    squares = substeps.astype(float) ** 2
    return np.array([np.prod([a / (a - b) for b in squares if b != a]) for a in squares])


class Slide(NamedTuple):
    """A network of which some margins are held: the `state`, where `live` leaves out the `held` [n], and the next `step`."""

    state: State
    held: Bool[Array, " n"]
    step: Array
    count: Array
    over: Array  # whether the slide has come to an event


def kernel(w, z, active, task: Task) -> tuple[Array, Array]:
    """K [n, n] and the edges w_j.x_i of active pairs, [h, n]."""
    edge = jnp.where(active, jnp.einsum("hd,nd->hn", w, task.x, precision="highest"), 0)
    seen = jnp.where(active, z[:, None], 0)
    both = jnp.einsum("hi,hk->ik", seen, seen, precision="highest")
    close = jnp.einsum("id,kd->ik", task.x, task.x, precision="highest")
    product = jnp.einsum("hi,hk->ik", edge, edge, precision="highest")
    return jnp.outer(task.y, task.y) * (both * close + product), edge


def _pulls(w, z, active, live, held, task: Task) -> Array:
    """q_i g_i of all points, [n]."""
    k, _ = kernel(w, z, active, task)
    push = k @ jnp.where(live, task.q, 0)
    pair = held[:, None] & held[None, :]
    # Two points in one place leave it open which of them is pulled; a trace of a ridge decides, the flow is the same.
    ridge = 1e-14 * jnp.max(jnp.diagonal(k))
    system = jnp.where(pair, k, 0) + jnp.diag(jnp.where(held, ridge, 1))
    return jnp.where(held, jnp.linalg.solve(system, jnp.where(held, -push, 0)), jnp.where(live, task.q, 0))


def _leap(w, z, active, live, held, task: Task, step) -> tuple[Array, Array, Array]:
    """w, z after `step`, and how far the last two orders of extrapolation are apart."""

    def field(state):
        w, z = state
        pull = _pulls(w, z, active, live, held, task) * task.y
        force = jnp.einsum("hn,nd->hd", active * pull, task.x, precision="highest")
        return z[:, None] * force, jnp.sum(w * force, axis=1)

    def add(state, size, slope):
        return jax.tree.map(lambda a, b: a + size * b, state, slope)

    start = (w, z)
    slope = field(start)

    def midpoint(count):
        size = step / count

        def body(_, pair):
            before, now = pair
            return now, add(before, 2 * size, field(now))

        return jax.lax.fori_loop(1, count, body, (start, add(start, size, slope)))[1]

    found = jax.lax.map(midpoint, jnp.asarray(_SUBSTEPS))

    def best(weights, skip):
        # By what was gained, so that who does not move stays to the last bit.
        def one(before, leaf):
            return before + jnp.tensordot(jnp.asarray(weights, z.dtype), leaf[skip:] - before, 1)

        return jax.tree.map(one, start, found)

    fine, rough = best(_weights(_SUBSTEPS), 0), best(_weights(_SUBSTEPS[1:]), 1)
    error = jax.tree.reduce(jnp.maximum, jax.tree.map(lambda a, b: jnp.max(jnp.abs(a - b)), fine, rough))
    return *fine, error


def _gaps(w, z, state: State, held, task: Task) -> tuple[Array, Array]:
    """What is >= 0 while there is no event, [h n + 3 n]: edges, margins, g_i and 1 - g_i; and the rounding of each."""
    edge = jnp.einsum("hd,nd->hn", w, task.x, precision="highest")
    reach = jnp.linalg.norm(task.x, axis=1) * (jnp.linalg.norm(w, axis=1) + jnp.abs(z))[:, None]
    margin = task.y * jnp.sum(z[:, None] * jnp.where(state.active, edge, 0), axis=0)
    g = _pulls(w, z, state.active, state.live, held, task) / task.q
    side = jnp.where(state.live, 1, -1)
    gaps = [
        (jnp.where(state.active, edge, -edge) / jnp.where(reach > 0, reach, 1)).reshape(-1),
        jnp.where(held, 1, side * (1 - margin)),
        jnp.where(held, g, 1),
        jnp.where(held, 1 - g, 1),
    ]
    n, eps = task.y.size, jnp.finfo(z.dtype).eps
    slack = jnp.concatenate([jnp.full(gaps[0].size, 32 * eps), jnp.full(n, 32 * eps), jnp.full(2 * n, 4096 * eps)])
    return jnp.concatenate(gaps), slack


@jax.jit
@partial(jax.vmap, in_axes=(0, 0, None))
def slide(state: State, held: Bool[Array, " n"], task: Task) -> Slide:
    """A batch of networks with `held` margins, followed until something happens to each or its record is complete.

    What happened is noted in the log; whoever is held next is for `decide` to say.
    """
    shape, eps = state.active.shape, jnp.finfo(state.z.dtype).eps
    h, n = shape

    def go_on(slide: Slide):
        return ~slide.over & (slide.state.stop == Stop.RUNNING)

    def advance(slide: Slide) -> Slide:
        state = slide.state
        until = next_time(state, task) - state.time
        step = jnp.minimum(slide.step, until)
        w, z, error = _leap(state.w, state.z, state.active, state.live, held, task, step)
        scale = jnp.maximum(jnp.max(jnp.abs(w)), jnp.max(jnp.abs(z)))
        good = error <= 64 * eps * scale
        before, slack = _gaps(state.w, state.z, state, held, task)
        after, _ = _gaps(w, z, state, held, task)
        falling = (after < 0) & (after < before)
        waiting = jnp.any(state.waiting)
        touching = falling & (before <= slack)
        now = waiting | good & jnp.any(touching)
        crossed = good & jnp.any(falling) & ~now
        # Nearly to the first of the crossings, so that the next step begins closer to it.
        share = jnp.min(jnp.where(falling, before / jnp.where(falling, before - after, 1), 1))
        grow = jnp.clip(0.8 * (64 * eps * scale / jnp.maximum(error, 1e-3 * eps * scale)) ** (1 / 13), 0.2, 2)
        shorter = jnp.where(crossed, step * jnp.clip(0.999 * share, 1e-3, 0.999), step * grow)
        took = good & ~crossed & ~now
        # What is left of the way to a crossing may round to nothing: then it is now.
        now = now | crossed & (shorter <= 4 * eps * state.time)
        moved = state._replace(
            w=jnp.where(took, w, state.w),
            z=jnp.where(took, z, state.z),
            time=jnp.where(took, jnp.where(step < until, state.time + step, next_time(state, task)), state.time),
        )
        moved = recorded(moved, took & (step >= until), task)
        # What happens now: an edge that waits its turn, or what was nearest to zero before the step.
        which = jnp.argmin(jnp.where(falling, before, jnp.inf))
        which = jnp.where(waiting, jnp.argmax(state.waiting.reshape(-1)), which)
        is_edge = which < h * n
        j, i = jnp.unravel_index(jnp.minimum(which, h * n - 1), shape)
        point = jnp.where(is_edge, i, (which - h * n) % n)
        part = (which - h * n) // n  # margins, g = 0, g = 1
        kind = jnp.where(is_edge, jnp.where(state.active[j, i], Kind.SLEEPS, Kind.WAKES), Kind.LEARNT)
        below = jnp.where(part == 1, Kind.FREED, Kind.FORGOTTEN)
        kind = jnp.where(is_edge | (part == 0) & state.live[point], kind, below)
        moved = noted(moved, now, state.time, kind, jnp.where(is_edge, j, -1), point)
        active = state.active.at[j, i].set(state.active[j, i] ^ (now & is_edge))
        # Opposite points have one edge, and who leaves one of them passes to the other.
        fresh = state.waiting | touching[: h * n].reshape(shape) & (jnp.arange(h) == j)[:, None] & ~waiting
        left = jnp.where(now & is_edge, fresh.at[j, i].set(False), state.waiting)
        count = slide.count + 1
        stop = jnp.where((count >= _STEPS) & (moved.stop == Stop.RUNNING), Stop.LOST, moved.stop)
        moved = moved._replace(active=active, waiting=left, stop=jnp.asarray(stop, jnp.int32))
        # A step that was cut short by a record says nothing about how long the next may be.
        return Slide(moved, held, jnp.where(took & (step < slide.step), slide.step, shorter), count, now)

    speed = jnp.max(jnp.abs(task.q)) * jnp.max(jnp.linalg.norm(task.x, axis=1))
    first = Slide(state, held, 0.1 / speed, jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    return jax.lax.while_loop(go_on, advance, first)


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def _kernels(state: State, task: Task) -> tuple[Array, Array]:
    """K and the margins of a batch of networks."""
    k, edge = kernel(state.w, state.z, state.active, task)
    return k, task.y * (state.z @ edge)


_noted = jax.jit(jax.vmap(noted))


def decide(k: np.ndarray, margins: np.ndarray, live: np.ndarray, held: np.ndarray, q: np.ndarray) -> Any:
    """Which points are below 1 and which are held from now on, [n] each; None for too many at once.

    `k`: the kernel K [n, n]; `margins`, `live`, `held` and the weights `q`: [n]. All margins that are at 1, to the rounding
    of a run, take part.
    """
    at_one = np.flatnonzero(held | (np.abs(margins - 1) <= 1e4 * np.finfo(k.dtype).eps))
    if at_one.size > MOST_HELD:
        return None
    others = live & ~held
    others[at_one] = False
    push = k @ (q * others)
    best, least = None, np.inf
    for case in product((0, 1, 2), repeat=at_one.size):
        how = np.array(case, int)
        middle = at_one[how == 2]
        u = np.zeros_like(q)
        u[at_one] = np.where(how == 1, q[at_one], 0)
        if middle.size:
            block = k[np.ix_(middle, middle)]
            u[middle] = np.linalg.lstsq(block, -(push + k @ u)[middle], rcond=None)[0]
        speed, mine, strength = (push + k @ u)[at_one], u[at_one], np.diagonal(k)[at_one]
        outside = np.maximum(np.maximum(-mine, mine - q[at_one]) * strength, np.abs(speed))
        wrong = np.select([how == 0, how == 1], [np.maximum(-speed, 0), np.maximum(speed, 0)], outside)
        scale = strength * q[at_one]
        worst = float(np.max(wrong / np.where(scale > 0, scale, 1), initial=0))
        # The first case that fits within rounding, and points that need no holding before those that do.
        if worst < least - ROUNDING * np.finfo(k.dtype).eps:
            best, least = how, worst
    live, held = others.copy(), np.zeros_like(others)
    if best is not None:
        live[at_one], held[at_one] = best == 1, best == 2
    return live, held


def follow(networks: Any, task: Task, room: int, keep: bool) -> State:
    """A batch of networks [b] through segments and slides, to the last time or to where they can not be followed."""
    state = run(begin(networks, task, room, keep), task)
    while True:
        which = np.flatnonzero(np.asarray(state.stop) == Stop.MARGIN_SLIDES)
        if not which.size:
            return state
        # Few sizes, so that few programs are compiled: what is missing are copies of the first.
        size = next(size for power in range(64) if (size := 8**power) >= which.size)
        padded = np.concatenate([which, np.full(size - which.size, which[0])])
        part = run(_slides(_taken(state, padded), task), task)
        state = _put(state, which, part)


@jax.jit
def _taken(state: State, index: Any) -> State:
    return jax.tree.map(lambda leaf: leaf[index], state)


@jax.jit
def _put(state: State, index: Any, part: State) -> State:
    return jax.tree.map(lambda whole, new: whole.at[index].set(new[: index.shape[0]]), state, part)


def _slides(state: State, task: Task) -> State:
    """All of a batch that stopped where margins slide, followed until none is held any more."""
    q, held = np.asarray(task.q), np.zeros(state.live.shape, bool)
    undecided = np.ones(len(held), bool)
    while True:
        live, stop, before = np.array(state.live), np.array(state.stop), held.copy()
        kernels, margins = map(np.asarray, _kernels(state, task))
        for b in np.flatnonzero(undecided):
            found = decide(kernels[b], margins[b], live[b], held[b], q)
            stop[b] = Stop.HELD_TOO_MANY if found is None else Stop.RUNNING
            live[b], held[b] = (live[b], False) if found is None else found
        state = state._replace(live=jnp.asarray(live), stop=jnp.asarray(stop))
        fresh = held & ~before
        while fresh.any():
            point = fresh.argmax(1)
            same = np.zeros_like(point)
            state = _noted(state, fresh.any(1), state.time, same + Kind.HELD, same - 1, point)
            fresh[np.arange(len(fresh)), point] = False
        sliding = held.any(1) & (np.asarray(state.stop) == Stop.RUNNING)
        if not sliding.any():
            return state
        # Who is not held any more waits for the others.
        paused = jnp.where(jnp.asarray(sliding), state.stop, Stop.PAUSED)
        after = slide(state._replace(stop=jnp.asarray(paused, jnp.int32)), jnp.asarray(held), task)
        stop = jnp.where(after.state.stop == Stop.PAUSED, state.stop, after.state.stop)
        state = after.state._replace(stop=jnp.asarray(stop, jnp.int32))
        undecided = sliding & np.asarray(after.over) & (np.asarray(state.stop) == Stop.RUNNING)
        held &= undecided[:, None]
