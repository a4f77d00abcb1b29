"""Hinge flow of one network from event to event, exactly, until it is done or what comes next has to be decided (12.1).

Events are a neuron that passes the edge w_j.x_i = 0 of a point, and a margin that passes 1; `_segment` has what happens
between them. What comes next is decided by the signs of the derivatives on the two sides of the event. Where both lead back
to it the flow slides along it: the run stops there, and `_decide` says who is held. A neuron held on edges has a constant
force too, in which the points of these edges take part with a constant share (16.3).
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradstarve.problem import TwoLayerReLU
from gradstarve.simulation.hinge._passage import MOMENT, RATE, gates, on_one_line, passed
from gradstarve.simulation.hinge._segment import edge_times, margin_times, moved, segment, turn_times

# Events of one network that are told at a time.
LOG = 16


class EventKind(IntEnum):
    """What happens at an event of `simulate_hinge_exact`: the numbers in `run.events.kind`, by name.

    WAKES, SLEEPS: neuron j becomes active on point i, or stops being so; LEARNT, FORGOTTEN: the margin of point i reaches 1,
    or falls below it; HELD, FREED: the margin of point i begins to slide at 1, or leaves 1 upwards. SLIDES: neuron j begins
    to slide along the edge of point i, which it leaves as it WAKES or SLEEPS; REPELS: the edge of point i, which it is on,
    repels it, the flow does not determine to which side, and its run ends (16.4).

    >>> EventKind(3).name, int(EventKind.WAKES)
    ('LEARNT', 1)
    """

    WAKES = 1  # neuron j becomes active on point i
    SLEEPS = 2  # neuron j stops being active on point i
    LEARNT = 3  # the margin of point i reaches 1
    FORGOTTEN = 4  # the margin of point i falls below 1
    HELD = 5  # the margin of point i begins to slide at 1
    FREED = 6  # the margin of point i, held until now, rises above 1
    SLIDES = 7  # neuron j begins to slide along the edge of point i
    REPELS = 8  # the flow does not determine on which side neuron j leaves the edge of point i


class Stop(IntEnum):
    """How a run ended."""

    RUNNING = 0
    DONE = 1  # no gradient is left, or the last time is reached
    FULL = 2  # more events than there was room for
    OPEN = 3  # the flow does not determine the way
    UNDECIDED = 4  # who is held at an edge or at 1 has to be decided
    LOST = 5  # a search did not come to its end
    DOUBTED = 6  # what was decided does not hold, to rounding


class State(NamedTuple):
    """One network in the middle of a run; `log` and `count` begin anew with every call of `run` and `slide`."""

    w: Float[Array, "h d"]
    z: Float[Array, " h"]
    active: Bool[Array, "h n"]
    live: Bool[Array, " n"]  # below 1
    held: Bool[Array, " n"]  # sliding at 1
    tied: Bool[Array, " n"]  # held by the others that are, its own pull at its bound
    leaving: Bool[Array, " n"]  # was held until this very moment
    waiting: Bool[Array, "h n"]  # edges that are passed at this very moment, one event after the other
    glides: Bool[Array, "h n"]  # neurons held on the edge of a point, which are not active there
    share: Float[Array, "h n"]  # in [0, 1], how far such an edge counts as above: of its point's pull in the force
    parting: Bool[Array, "h n"]  # glided until this very moment
    crossed: Bool[Array, "h n"]  # edges passed at this very moment
    arriving: Int[Array, ""]  # j n + i of the edge about which the run stopped, -1 for none; -2 - i: the margin of point i
    bound: Int[Array, ""]  # 0: it is arrived at; 1, 2: its share came to its lower, upper bound
    time: Array
    record: Int[Array, ""]  # records made so far
    left: Int[Array, ""]  # events that there is still room for
    stop: Int[Array, ""]
    settled: Bool[Array, ""]  # no gradient is left
    seen: Float[Array, "rows n"]
    weights: Any  # recorded networks, or None
    count: Int[Array, ""]
    log: Any  # time, kind, neuron, point: [LOG] each


class Task(NamedTuple):
    """What all networks have in common: `x` [n, d], `y`, `q` [n], the `slope` of their leaky ReLU, and the first so many of
    `times`, rising, are to be recorded; the last of them may be inf."""

    x: Float[Array, "n d"]
    y: Float[Array, " n"]
    q: Float[Array, " n"]
    slope: Float[Array, ""]
    times: Float[Array, " rows"]
    records: Int[Array, ""]


def outputs(w, z, gate: Float[Array, "h n"], x) -> Float[Array, " n"]:
    """f(x_i) by the activities as they are booked, which rounding cannot change."""
    return jnp.einsum("h,hn->n", z, gate * jnp.einsum("hd,nd->hn", w, x, precision="highest"))


def next_time(state: State, task: Task) -> Array:
    """The next time to record."""
    return task.times[jnp.minimum(state.record, task.records - 1)]


def noted(state: State, event, time, kind, neuron, point) -> State:
    """`state` with one event more in its log, where `event` holds."""
    slot = jnp.where(event, state.count, LOG)

    def put(whole, value):
        return whole.at[slot].set(jnp.asarray(value, whole.dtype), mode="drop")

    log = tuple(map(put, state.log, (time, kind, neuron, point)))
    stop = jnp.where(event & (state.left <= 0), Stop.FULL, state.stop)
    one = jnp.asarray(event, jnp.int32)
    return state._replace(log=log, count=state.count + one, left=state.left - one, stop=jnp.asarray(stop, jnp.int32))


def emptied(state: State) -> State:
    """`state` with an empty log."""
    log = tuple(jnp.zeros_like(leaf) for leaf in state.log)
    return state._replace(log=log, count=jnp.zeros_like(state.count))


def recorded(state: State, record, task: Task) -> State:
    """`state` as it is in the next row of the record, where `record` holds; done when that was the last."""
    row = jnp.where(record, state.record, task.times.shape[0])
    seen = state.seen.at[row].set(outputs(state.w, state.z, gates(state.active, task.slope), task.x), mode="drop")
    weights = state.weights
    if weights is not None:
        now = TwoLayerReLU(state.w, state.z, weights.slope)
        weights = jax.tree.map(lambda whole, new: whole.at[row].set(new, mode="drop"), weights, now)
    made = state.record + record
    stop = jnp.where(made >= task.records, Stop.DONE, state.stop)
    return state._replace(seen=seen, weights=weights, record=made, stop=jnp.asarray(stop, jnp.int32))


def at_start(network: TwoLayerReLU, points: Any) -> tuple[np.ndarray, np.ndarray]:
    """Who is active [b, h, n] and f(x_i) [b, n] of a batch of networks as they are given: by NumPy, which has nothing to
    compile."""
    w, z, x = (np.asarray(leaf) for leaf in (network.w, network.z, points))
    with np.errstate(all="ignore"):
        edge = w @ x.T
        active = edge > 0
        hidden = np.where(active, edge, z.dtype.type(network.slope) * edge if network.slope else z.dtype.type(0))
        return active, (z[:, None] @ hidden)[:, 0]


def begin(network: TwoLayerReLU, task: Task, room: int, keep: bool) -> State:
    """The states at time 0 of a batch of networks [b], with room for so many events."""
    b, rows, n, dtype = len(network.z), task.times.shape[0], task.y.shape[0], network.z.dtype

    def full(value: Any, *shape: int, dtype: Any = dtype) -> Any:
        return np.full((b, *shape), value, dtype)

    active, f = at_start(network, task.x)
    live = np.asarray(task.y) * f < 1
    off, none, zero = np.zeros_like(active), np.zeros_like(live), full(0, dtype=np.int32)
    known: Any = (network.w, network.z, active, live, none, none, none, off)
    state = State(
        *known,
        glides=full(False, *active.shape[1:], dtype=bool),
        share=full(0, *active.shape[1:]),
        parting=full(False, *active.shape[1:], dtype=bool),
        crossed=full(False, *active.shape[1:], dtype=bool),
        arriving=zero - 1,
        bound=zero,
        time=full(0),
        record=zero,
        left=zero + np.int32(room),
        stop=zero,
        settled=full(False, dtype=bool),
        seen=full(np.nan, rows, n),
        weights=jax.tree.map(lambda leaf: full(np.nan, rows, *leaf.shape[1:]), network) if keep else None,
        count=zero,
        log=(full(0, LOG), *(full(0, LOG, dtype=np.int32) for _ in range(3))),
    )
    return jax.device_put(state)


@partial(jax.vmap, in_axes=(0, None))
def run(state: State, task: Task) -> State:
    """A batch of states [b], none of which holds a margin, followed until each has stopped or filled its log."""
    x, y, q, slope = task[:4]
    dtype, size = state.z.dtype, jnp.linalg.norm(x, axis=1)
    same = on_one_line(x)

    def go_on(state):
        return (state.stop == Stop.RUNNING) & (state.count < LOG)

    def advance(state: State) -> State:
        gate = gates(state.active, slope)
        now = segment(state.w, state.z, gate + (1 - slope) * state.share, q * y * state.live, x, state.glides)
        until = next_time(state, task) - state.time
        edges = jnp.where(state.waiting, 0, edge_times(now, state.active))
        # The edge that a neuron is held on begins to repel it where its read-out passes 0.
        on_edges = jnp.any(state.glides, axis=1)
        turns = jnp.where(on_edges, turn_times(now), jnp.inf)[:, None]
        edges = jnp.where(state.glides, turns, edges)
        # Points of one line are passed together: none of them leads back while others wait.
        edges = jnp.where(jnp.any(state.waiting) & ~state.waiting, jnp.inf, edges)
        place = jnp.argmin(edges)
        edge = jnp.min(edges)
        limit = jnp.minimum(edge, until)
        still = ~jnp.any(now.rate > 0)
        strength = gate**2 * ((state.z[:, None] * size) ** 2 + now.edge**2)  # of each neuron in K_ii
        pulls = q * jnp.sum(strength, axis=0)
        end = jnp.where(still, 0, limit)
        passages, ended = margin_times(now, gate, y, state.live, state.leaving, pulls, end)
        point, margin = jnp.argmin(passages), jnp.min(passages)
        is_margin = jnp.isfinite(margin) & (margin <= limit)
        is_edge = ~is_margin & (edge <= until) & jnp.isfinite(edge)
        lapse = jnp.where(is_margin, margin, jnp.where(still & ~jnp.isfinite(until), 0, limit))
        w, z = moved(now, jnp.where(jnp.isfinite(lapse), lapse, 0))
        time = jnp.where(is_margin | is_edge, state.time + lapse, next_time(state, task))

        # an edge
        j, i = jnp.unravel_index(place, edges.shape)
        wakes = ~state.active[j, i]
        turned = is_edge & state.glides[j, i]
        pre = jnp.einsum("hd,nd->hn", w, x, precision="highest")
        reach = size * (jnp.linalg.norm(w[j]) + jnp.abs(z[j]))
        active, waiting, meets = passed(state.active, state.waiting, j, i, pre[j], now.z[j] * now.lean[j], reach, same)
        waiting = waiting & is_edge & ~on_edges[j]
        # d(w_j.x_i)/dt after it has to lead away from the edge too.
        force = jnp.sum((gates(active[j], slope) * q * y * state.live)[:, None] * x, axis=0)
        push = jnp.where(z[j] != 0, z[j], jnp.dot(w[j], force))
        drift = push * jnp.dot(force, x[i]) * jnp.where(wakes, 1, -1)
        # One that leads back, then or after the others of this moment, is for all of them to decide together.
        crossed = state.crossed & (lapse <= MOMENT * jnp.finfo(dtype).eps * state.time)
        undecided = is_edge & (on_edges[j] | crossed[j, i] | meets | (drift < 0) & ~jnp.any(waiting)) & ~turned
        crossed = crossed.at[j, i].set(crossed[j, i] | is_edge)
        active = jnp.where(is_edge & ~undecided & ~turned, active, state.active)

        # a margin
        pull = (q * y * state.live).at[point].set(0)
        others = jnp.einsum("hn,nd->hd", gate * pull, x, precision="highest")
        mine = gate[:, point]
        without = y[point] * jnp.sum(mine * (z**2 * (others @ x[point]) + jnp.sum(w * others, axis=1) * pre[:, point]))
        own = q[point] * jnp.sum(mine**2 * (z**2 * jnp.dot(x[point], x[point]) + pre[:, point] ** 2))
        was_live = state.live[point]
        # Rounding of a sum whose terms cancel exactly must not look like a slide.
        least = RATE * jnp.finfo(dtype).eps * own
        free, falls = without >= -least, without + own <= least
        passes = jnp.where(was_live, free, falls)
        live = state.live.at[point].set(was_live ^ is_margin)

        # Another pull is another force on every neuron that an edge holds.
        undecided = undecided | is_margin & (~passes | jnp.any(state.glides))
        event = is_margin | is_edge & (~undecided | turned)
        what = jnp.where(was_live, EventKind.LEARNT, EventKind.FORGOTTEN)
        what = jnp.where(is_edge, jnp.where(wakes, EventKind.WAKES, EventKind.SLEEPS), what)
        what = jnp.where(turned, EventKind.REPELS, what)
        after = state._replace(w=w, z=z, active=active, live=live, time=time, settled=still, waiting=waiting)
        after = after._replace(leaving=state.leaving & (lapse <= 0), parting=state.parting & (lapse <= 0), crossed=crossed)
        after = after._replace(arriving=jnp.where(is_edge, place, -1).astype(jnp.int32), bound=jnp.zeros_like(state.bound))
        after = noted(after, event, time, what, jnp.where(is_edge, j, -1), jnp.where(is_edge, i, point))
        after = recorded(after, ~event & ~undecided, task)
        stop = jnp.where(undecided & (after.stop != Stop.FULL), Stop.UNDECIDED, after.stop)
        stop = jnp.where(turned & (after.stop != Stop.FULL), Stop.OPEN, stop)
        return after._replace(stop=jnp.asarray(jnp.where(ended, stop, Stop.LOST), jnp.int32))

    return jax.lax.while_loop(go_on, advance, emptied(state))
