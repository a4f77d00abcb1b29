"""The flow of one neuron while outputs are small, from event to event (16.1)-(16.4), for many neurons at a time.

Points enter as *gates*. All points on one line through 0 share an edge, so that with p = w.u, u a unit vector along the
line, the push of all points is

    c = b + sum_g S_g H(p_g) u_g,    H = 1 where p_g > 0, 0 where p_g < 0 and in [0, 1] on the edge:

points along u add their strength g0 q_i y_i |x_i| to S. Points along -u add it too, because their constant push along -u,
in b, is removed where p > 0. With a leaky ReLU of slope al the push is al everywhere (b) and 1 - al through the gates. So
sliding edges, antipodal points, contradictory labels on one line and leaky neurons are one case.

Between events w = w_0 + (A - a) ch runs on a straight line, A from a = w.ch in the direction of the sign of z: the first
edge is at the smallest |p_g / (u_g.ch)|, and only its time needs the logarithm of (16.2). Where the neuron is on edges that
attract it, S_g z < 0, the flow of w is that of a convex function, and c is the shortest push over all H in [0, 1]:
least squares in a box (16.3), followed as its active set changes, one edge at a time. Edges that repel are crossed.
"""

from __future__ import annotations

from enum import IntEnum
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import quick_to_compile


class Kind(IntEnum):
    """The kind of an event of a neuron."""

    WAKES = 1
    SLEEPS = 2
    SLIDES = 3
    TURNS = 4
    STOPS = 5


class Stop(IntEnum):
    """The reason why a neuron is not followed further."""

    RUNNING = 0
    WAITING = 1  # for a later time
    ENDED = 2  # no event is left
    RESTS = 3  # no point pushes the neuron
    UNDETERMINED = 4  # (16.4): its read-out changes sign on an edge that it slides along
    MEETING = 5  # edges that attract and edges that repel meet
    CROWDED = 6  # more edges are held than there is room for


class Gates(NamedTuple):
    """The points as gates, in float64: `normal` u_g [g, k] in an orthonormal `basis` [k, d] of the span of the points,
    `strength` S_g [g] and `base` b [k] in units of `total`; `point` [g], the first point of each gate; `gate` [n], that of
    each point (-1 for one at the origin), and `side` [n], whether it is along u_g (1) or -u_g (-1)."""

    normal: np.ndarray
    strength: np.ndarray
    base: np.ndarray
    total: np.ndarray
    basis: np.ndarray
    point: np.ndarray
    gate: np.ndarray
    side: np.ndarray


def as_gates(points: np.ndarray, push: np.ndarray, slope: float, eps: float) -> Gates:
    """The gates of `points` [n, d] that push by `push` [n], g0 q_i y_i, each; float64, good to `eps`."""
    largest = np.max(np.abs(points), axis=1)
    some = np.flatnonzero(largest > 0)
    scaled = points[some] / largest[some, None]
    length = np.linalg.norm(scaled, axis=1)
    unit, strength = scaled / length[:, None], push[some] * largest[some] * length
    first, line, side = _lines(unit, 16 * eps)
    normal = unit[first]
    basis = np.eye(points.shape[1])
    if some.size:
        _, sizes, rows = np.linalg.svd(normal, full_matrices=False)
        rank = int((sizes > max(normal.shape) * sizes[0] * eps).sum())
        basis = basis if rank == points.shape[1] else rows[:rank]
    normal = normal @ basis.T
    normal = normal / np.linalg.norm(normal, axis=1, keepdims=True)

    def per_gate(values):
        return np.bincount(line, values, minlength=first.size)

    gated = (1 - slope) * per_gate(strength)
    gated = np.where(np.abs(gated) <= 8 * eps * per_gate(np.abs(strength)), 0, gated)  # labels cancel
    base = per_gate(np.where(side > 0, slope, -1) * strength) @ normal
    total = np.abs(gated).sum() + np.linalg.norm(base)
    total = total if total > 0 else 1.0
    gate, sides = np.full(len(points), -1), np.ones(len(points), int)
    gate[some], sides[some] = line, side
    return Gates(normal, gated / total, base / total, np.asarray(total), basis, some[first], gate, sides)


def _lines(unit: np.ndarray, slack: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The first vector of each line through 0 of the unit vectors [n, d]; the line of each vector, and its side (±1)."""
    n, d = unit.shape
    # Vectors of one line have the same |u.v| for a random v, so that only neighbours in this order are compared.
    number = np.abs(unit @ np.random.default_rng(0).standard_normal(d)) if n else np.zeros(0)
    order = np.argsort(number, kind="stable")
    begins = np.flatnonzero(np.diff(number[order], prepend=-np.inf) > 8 * slack * np.sqrt(d))
    head = np.arange(n)
    several = np.diff(begins, append=n) > 1
    for begin, end in zip(begins[several], np.append(begins, n)[1:][several], strict=True):
        left = np.sort(order[begin:end])
        while left.size > 1:
            same = np.minimum(*(np.max(np.abs(unit[left] - s * unit[left[0]]), axis=1) for s in (1, -1))) <= slack
            head[left[same]] = left[0]
            left = left[~same]
    first, line = np.unique(head, return_inverse=True)
    side = np.where(np.sum(unit * unit[head], axis=1) > 0, 1, -1)
    return first, line.reshape(-1), side


class Task(NamedTuple):
    """The gates on the device, filled up with gates of strength 0: `normal` [g + 1, k], the last of them 0."""

    normal: Float[Array, "rows k"]
    strength: Float[Array, " rows"]
    base: Float[Array, " k"]


class State(NamedTuple):
    """Neurons in the middle of a stretch, arrays with any batch axes in front, of NumPy or JAX.

    `w` [k] and `z`: the weights at `time`, in units of their size at the start; `sign`: of the read-out from `time` on;
    `c` [k]: the push, held edges included; `on` [rows]: H of the gates that are not held; `held` [m]: the numbers of the
    held gates (that of the last row for a free place), `share` [m]: H of each, and `inverse` [m, m]: the inverse of their
    Gram matrix; `coming`: the time of the next event of a waiting neuron; `spent`: the number of events so far; `log`:
    `count` events, each with time, kind and gate, [notes] each.
    """

    w: Any
    z: Any
    sign: Any
    time: Any
    c: Any
    on: Any
    held: Any
    share: Any
    inverse: Any
    stop: Any
    coming: Any
    spent: Any
    count: Any
    log: tuple[Any, Any, Any]


# In units of eps: speeds and distances relative to an edge that count as rounding.
STILL, ON_EDGE = 64, 64
# The size of w, in units of eps, below which it counts as 0.
NOTHING = 1000
# The least squared sine, in units of eps, between an edge and the held edges for this edge to be held too.
APART = 1000


def _noted(state: State, happens, kind, gate) -> State:
    times, kinds, gates = state.log
    places = jnp.where(happens, state.count, times.size)
    kind, gate = jnp.asarray(kind, kinds.dtype), jnp.asarray(gate, gates.dtype)
    log = (times.at[places].set(state.time, mode="drop"), kinds.at[places].set(kind, mode="drop"))
    return state._replace(log=(*log, gates.at[places].set(gate, mode="drop")), count=state.count + happens)


def _settled(state: State, task: Task) -> State:
    """Shares of the held edges that make c orthogonal to them; an edge whose share would leave [0, 1] is released (16.3)."""
    empty = task.strength.size - 1

    def attempt(carry):
        state, _ = carry
        normals = task.normal[state.held]
        taken = state.held < empty
        change = -state.inverse @ (normals @ state.c)
        step = change / jnp.where(taken, task.strength[state.held], 1)
        wanted = state.share + step
        over, under = taken & (wanted > 1), taken & (wanted < 0)
        room = jnp.where(over, 1 - state.share, jnp.where(under, -state.share, jnp.inf))
        part = jnp.where(over | under, room / jnp.where(over | under, step, 1), jnp.inf)
        place = jnp.argmin(part)
        fits = ~jnp.any(over | under)
        theta = jnp.where(fits, 1, jnp.clip(part[place], 0, 1))
        c = state.c + (theta * change) @ normals
        # Once more, to correct for the error of the inverse.
        c = jnp.where(fits, c - (state.inverse @ (normals @ c)) @ normals, c)
        state = state._replace(c=c, share=jnp.where(taken, state.share + theta * step, 0))
        left = (jnp.arange(taken.size) == place) & ~fits
        gate, wakes = state.held[place], over[place]
        column = state.inverse[:, place]
        pivot = jnp.where(fits, 1, column[place])
        smaller = state.inverse - jnp.outer(column, column) / pivot
        smaller = jnp.where(left[:, None] | left, 0, smaller)
        state = state._replace(
            on=state.on.at[jnp.where(fits, empty + 1, gate)].set(wakes, mode="drop"),
            held=jnp.where(left, empty, state.held),
            share=jnp.where(left, 0, state.share),
            inverse=jnp.where(fits, state.inverse, smaller),
        )
        return _noted(state, ~fits, jnp.where(wakes, Kind.WAKES, Kind.SLEEPS), gate), fits

    return jax.lax.while_loop(lambda carry: ~carry[1], attempt, (state, jnp.all(state.held == empty)))[0]


def _moved(state: State, task: Task, until) -> State:
    """The next event, if it comes by `until`."""
    dtype, empty = state.w.dtype, task.strength.size - 1
    eps = jnp.finfo(dtype).eps
    normals, taken = task.normal[state.held], state.held < empty
    sliding = jnp.any(taken)
    w = state.w - (state.inverse @ (normals @ state.w)) @ normals
    k = jnp.sqrt(jnp.sum(state.c**2))
    rests = (k <= STILL * eps) | (state.sign == 0)
    ch = state.c / jnp.where(rests, 1, k)
    a, z, sign = jnp.sum(w * ch), state.z, state.sign
    size = jnp.sqrt(jnp.sum(w**2))

    p, r = jnp.stack([w, ch]) @ task.normal.T
    side = jnp.where(state.on, 1, -1)
    moves = jnp.abs(r) * k > STILL * eps
    held = jnp.zeros(empty + 1, bool).at[state.held].set(True)
    comes = moves & ~held & (side * sign * r < 0)
    gap = jnp.maximum(side * p, 0) / jnp.where(comes, jnp.abs(r), 1)
    gap = jnp.where(comes, gap, jnp.inf)
    to_edge = jnp.min(gap)
    gate = jnp.min(jnp.where(gap == to_edge, jnp.arange(empty + 1), empty))
    repels = task.strength * sign > 0
    stuck = sliding & jnp.any(repels & ~held & ~moves & (jnp.abs(p) <= ON_EDGE * eps * size))

    against = (a * sign < 0) & (jnp.abs(a) > jnp.abs(z))
    least = jnp.sqrt(jnp.where(against, (jnp.abs(a) - jnp.abs(z)) * (jnp.abs(a) + jnp.abs(z)), 0))
    to_turn = jnp.where(against, jnp.abs(a) - least, jnp.inf)
    turns = to_turn <= to_edge
    by = jnp.minimum(to_edge, to_turn)
    ends = ~rests & ~stuck & jnp.isinf(by)
    by = sign * jnp.where(jnp.isinf(by) | rests | stuck, 0, by)
    later_a = a + by
    later_z = jnp.where(turns, 0, sign * jnp.sqrt(jnp.maximum(z * z + by * (a + later_a), 0)))
    both = later_z + z
    slope = jnp.where(both == 0, 0, (later_a + a) / jnp.where(both == 0, 1, both))
    # e^kt - 1 from a + z, which falls to 0 for neurons whose read-out changes sign, or e^-kt - 1 from a - z.
    falls = (a * sign < 0) & (later_a * sign <= 0)
    below = jnp.where(falls, a - z, a + z)
    grown = by * jnp.where(falls, 1 - slope, 1 + slope) / jnp.where(below == 0, 1, below)
    span = jnp.where(by == 0, 0, jnp.where(falls, -1, 1) * jnp.log1p(grown)) / jnp.where(rests, 1, k)
    ends = ends | jnp.isinf(span)  # on the line z = -a the neuron never reaches its edge
    time = state.time + span

    waits = ~rests & ~ends & ~stuck & (time > until)
    attracts = task.strength[gate] * sign < 0
    new_w = w + by * ch
    # Where w is 0 all edges meet: the neuron dies there if all of them attract; otherwise the flow does not determine it.
    nothing = (jnp.sqrt(jnp.sum(new_w**2)) <= NOTHING * eps * size) & ~turns & jnp.any(task.normal[1] != 0)
    vanishes = nothing & ~jnp.any(repels) & jnp.all(task.base == 0)
    free = jnp.argmin(taken)
    crowded = attracts & ~turns & taken[free]
    against_held = state.inverse @ (normals @ task.normal[gate])
    apart = 1 - jnp.sum((normals @ task.normal[gate]) * against_held)
    merged = attracts & ~turns & (apart <= APART * eps)

    state = state._replace(w=w, c=jnp.where(rests, 0, state.c), coming=time)
    stop = jnp.where(turns & sliding, Stop.UNDETERMINED, Stop.RUNNING)
    stop = jnp.where(nothing & ~vanishes | merged, Stop.MEETING, stop)
    stop = jnp.where(vanishes, Stop.RESTS, stop)
    happens = ~(rests | ends | waits | stuck | crowded)
    stop = jnp.where(crowded, Stop.CROWDED, stop)
    stop = jnp.where(waits, Stop.WAITING, stop)
    stop = jnp.where(stuck, Stop.MEETING, stop)
    stop = jnp.where(ends, Stop.ENDED, stop)
    stop = jnp.where(rests, Stop.RESTS, stop)
    later = state._replace(
        w=jnp.where(vanishes, 0, new_w),
        z=later_z,
        time=time,
        sign=jnp.where(turns, -sign, sign),
        c=jnp.where(vanishes, 0, state.c),
    )
    state = jax.tree.map(lambda new, old: jnp.where(happens, new, old), later, state)
    state = state._replace(stop=jnp.asarray(stop, jnp.int32), spent=state.spent + happens)
    on = state.on[gate]
    goes_on = happens & (stop == Stop.RUNNING)
    holds = goes_on & ~turns & attracts
    passes = goes_on & ~turns & ~attracts
    kind = jnp.where(holds, Kind.SLIDES, jnp.where(on, Kind.SLEEPS, Kind.WAKES))
    lost = (stop == Stop.UNDETERMINED) | (stop == Stop.MEETING)
    culprit = jnp.where(turns | (gate >= empty), jnp.min(state.held), gate)
    kind = jnp.where(lost, Kind.STOPS, jnp.where(turns, Kind.TURNS, kind))
    state = _noted(state, passes | holds | lost | happens & turns, kind, jnp.where(lost, culprit, gate))

    at_free = (jnp.arange(taken.size) == free) & holds
    border = jnp.where(at_free, -1, against_held)
    larger = state.inverse + jnp.outer(border, border) / jnp.where(holds, apart, 1)
    step = jnp.where(passes, jnp.where(on, -1, 1) * task.strength[gate], 0)
    return state._replace(
        on=state.on.at[gate].set(jnp.where(passes, ~on, on & ~holds)),
        c=state.c + step * task.normal[gate],
        held=jnp.where(at_free, jnp.asarray(gate, state.held.dtype), state.held),
        share=jnp.where(at_free, jnp.asarray(on, dtype), state.share),
        inverse=jnp.where(holds, larger, state.inverse),
    )


def _refreshed(state: State, task: Task) -> State:
    """The state with c and the inverse computed anew from the gates, without the rounding of earlier events."""
    taken = state.held < task.strength.size - 1
    normals = task.normal[state.held]
    gram = normals @ normals.T + jnp.diag(jnp.where(taken, 0, 1))
    inverse = state.inverse + jnp.diag(jnp.where(taken, 0, 1))
    inverse = inverse @ (2 * jnp.eye(taken.size, dtype=gram.dtype) - gram @ inverse)  # Newton's step for an inverse
    inverse = jnp.where(taken[:, None] & taken, (inverse + inverse.T) / 2, 0)
    pushes = jnp.where(state.on, task.strength, 0)
    c = task.base + pushes @ task.normal + (state.share * task.strength[state.held]) @ normals
    rests = state.stop == Stop.RESTS
    return state._replace(c=jnp.where(rests, state.c, c), inverse=inverse)


def _advanced(state: State, task: Task, until) -> State:
    """The neuron after its last event by `until`, or when its log is full."""
    with jax.default_matmul_precision("highest"):
        most = state.log[0].size - state.held.size - 3
        state = _refreshed(state, task)._replace(count=jnp.zeros_like(state.count))

        def go_on(state):
            return (state.stop == Stop.RUNNING) & (state.count < most)

        def body(state):
            return _moved(_settled(state, task), task, until)

        return jax.lax.while_loop(go_on, body, state)


@cache
def _program() -> Any:
    """`_advanced` for neurons [b], each with its own time."""
    return jax.jit(jax.vmap(_advanced, in_axes=(0, None, 0)), compiler_options=quick_to_compile())


# From the host.

# The number of neurons that one program follows at a time: more of them do not fit into the cache.
LANES = 32
# The initial number of places for held edges, and the events that a neuron logs (besides one for each place) before the host
# collects them.
PLACES, NOTES = 8, 88
# The number of neurons that the host processes together at the start.
_BLOCK = 1024


class Log(NamedTuple):
    """Events in the order of collection: the number of the neuron, time, kind and gate, [events] each."""

    neuron: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    gate: np.ndarray


def as_task(gates: Gates, dtype: Any) -> Task:
    """The gates in `dtype`, padded to one of a few sizes, because each size needs a compilation."""
    g, k = gates.normal.shape
    rows, columns = max(16, 2 ** int(np.ceil(np.log2(g + 1)))), max(4, 4 ** int(np.ceil(np.log(k) / np.log(4) - 1e-9)))
    normal, strength, base = np.zeros((rows, columns)), np.zeros(rows), np.zeros(columns)
    normal[:g, :k], strength[:g], base[:k] = gates.normal, gates.strength, gates.base
    return Task(jnp.asarray(normal, dtype), jnp.asarray(strength, dtype), jnp.asarray(base, dtype))


def begin(gates: Gates, task: Task, w: np.ndarray, z: np.ndarray) -> State:
    """Neurons `w` [h, k], `z` [h], in float64 and of size one, at time 0.

    A neuron on an edge that repels goes to the side to which its push leads; if the pushes on both sides lead away from the
    edge, the flow does not determine the neuron (16.4).
    """
    dtype = task.normal.dtype
    rows, (h, k) = task.strength.size, w.shape
    parts = [slice(first, first + _BLOCK) for first in range(0, h, _BLOCK)] or [slice(0)]
    sides = [_sides(gates, w[part], z[part]) for part in parts]
    on, edge, sign = (np.concatenate(leaf) for leaf in zip(*sides, strict=True))
    stop = np.zeros(h, np.int32)
    noted = (h, PLACES + NOTES)
    log = (np.zeros(noted, dtype), np.zeros(noted, np.int32), np.full(noted, rows - 1, np.int32))
    count = np.zeros(h, np.int32)
    for j in np.flatnonzero((edge & (gates.strength * sign[:, None] > 0)).any(1)):
        open_gate = _open(gates, on[j], edge[j], sign[j])
        if open_gate >= 0:
            stop[j], log[1][j, 0], log[2][j, 0], count[j] = Stop.UNDETERMINED, Kind.STOPS, open_gate, 1
    whole = np.zeros((h, rows), bool)
    whole[:, : on.shape[1]] = on
    wide = np.zeros((h, task.base.size), dtype)
    wide[:, :k] = w
    return State(
        w=wide,
        z=z.astype(dtype),
        sign=sign.astype(dtype),
        time=np.zeros(h, dtype),
        c=np.zeros((h, task.base.size), dtype),
        on=whole,
        held=np.full((h, PLACES), rows - 1, np.int32),
        share=np.zeros((h, PLACES), dtype),
        inverse=np.zeros((h, PLACES, PLACES), dtype),
        stop=stop,
        coming=np.zeros(h, dtype),
        spent=np.zeros(h, np.int32),
        count=count,
        log=log,
    )


def _sides(gates: Gates, w: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The gates that each neuron is active on and those on whose edge it is [h, g], and the sign of its read-out [h]."""
    eps = np.finfo(np.float64).eps
    p = w @ gates.normal.T
    edge = np.abs(p) <= 8 * eps * (np.abs(w) @ np.abs(gates.normal).T)
    on = (p > 0) & ~edge
    pull = np.where(on, gates.strength, 0)
    slope = w @ gates.base + np.sum(pull * p, axis=1)
    least = 8 * eps * (np.abs(w) @ np.abs(gates.base) + np.sum(np.abs(pull * p), axis=1))
    return on, edge, np.where(z != 0, np.sign(z), np.where(np.abs(slope) > least, np.sign(slope), 0))


def _open(gates: Gates, on: np.ndarray, edge: np.ndarray, sign: float) -> int:
    """An edge on which the neuron starts and which it may leave to either side; -1 if there is none, and then `on` has the
    sides of all edges. The bounds of the push hold for all shares of the other edges."""
    left = [int(g) for g in np.flatnonzero(edge & (gates.strength * sign > 0))]
    some = np.flatnonzero(edge)
    while left:
        c = gates.base + np.where(on, gates.strength, 0) @ gates.normal
        for g in left:
            others = [o for o in some if o != g and not on[o]]
            reach = gates.strength[others] * (gates.normal[others] @ gates.normal[g]) * sign
            speed = sign * (c @ gates.normal[g])
            if speed + np.minimum(reach, 0).sum() > 0:
                on[g] = True
            elif speed + np.maximum(reach, 0).sum() + abs(gates.strength[g]) >= 0:
                continue
            left.remove(g)
            some = some[some != g]
            break
        else:
            return left[0]
    return -1


def follow(state: State, task: Task, until: np.ndarray, room: int, progress: Any = None) -> tuple[State, Log]:
    """The neurons followed from their states to `until` [h], and their events, those of each neuron in order. Neurons with
    more than `room` events stay `RUNNING` at the last of these."""
    h = len(state.stop)
    logs = [_logs(state, np.arange(h), h)]
    state = jax.tree.map(np.array, state)
    state.count[:] = 0
    until, advance = until.astype(state.time.dtype), _program()
    state.stop[(state.stop == Stop.WAITING) & (state.coming <= until)] = Stop.RUNNING
    while True:
        if (state.stop == Stop.CROWDED).any():
            state = _with_places(state, 4 * state.held.shape[1], task)
        running = np.flatnonzero((state.stop == Stop.RUNNING) & (state.spent <= room))
        if progress is not None:
            progress(h - running.size)
        if not running.size:
            return state, Log(*map(np.concatenate, zip(*logs, strict=True)))
        # All blocks are started before the first result is awaited, so that they share the processor.
        sent = []
        for first in range(0, running.size, LANES):
            part = running[first : first + LANES]
            padded = np.concatenate([part, np.full(LANES - part.size, part[0])])
            sent.append((part, advance(jax.tree.map(lambda leaf, at=padded: leaf[at], state), task, until[padded])))
        for part, after in sent:
            logs.append(_logs(after, part, part.size))
            for whole, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
                whole[part] = np.asarray(new)[: part.size]


def _logs(after: State, which: np.ndarray, size: int) -> Log:
    """The logs of the first `size` neurons of `after`, whose numbers are `which`."""
    count = np.asarray(after.count)[:size]
    longest = int(count.max(initial=0))
    times, kinds, gates = (np.asarray(leaf)[:size, :longest] for leaf in after.log)
    there = np.arange(longest) < count[:, None]
    neuron = np.broadcast_to(which[:, None], there.shape)[there]
    return Log(neuron.astype(np.int32), times[there], kinds[there].astype(np.int8), gates[there].astype(np.int32))


def _with_places(state: State, places: int, task: Task) -> State:
    """`state` with room for `places` held edges."""
    more = places - state.held.shape[1]
    return state._replace(
        held=np.pad(state.held, ((0, 0), (0, more)), constant_values=task.strength.size - 1),
        share=np.pad(state.share, ((0, 0), (0, more))),
        inverse=np.pad(state.inverse, ((0, 0), (0, more), (0, more))),
        log=tuple(np.pad(leaf, ((0, 0), (0, more))) for leaf in state.log),
        stop=np.where(state.stop == Stop.CROWDED, np.int32(Stop.RUNNING), state.stop),
    )


def weights_at(w, z, c, start, time, drop=0.0) -> tuple[np.ndarray, np.ndarray]:
    """(w [h, k], z [h]) e^-drop at `time` [h] of the stretch that begins at `start` [h] with `w`, `z` and the push `c`, in
    float64 (16.1)."""
    w, z, c, time = (np.asarray(leaf, np.float64) for leaf in (w, z, c, time))
    k = np.linalg.norm(c, axis=-1)
    ch = c / np.where(k > 0, k, 1)[:, None]
    a = np.sum(ch * w, axis=-1)
    angle = k * np.maximum(time - start, 0)
    up, down, left = (a + z) / 2, (a - z) / 2, np.exp(-drop)
    with np.errstate(over="ignore"):
        rise = np.where(drop > 0, np.exp(angle - drop) - left, np.expm1(np.minimum(angle, 709.7)))
    # An amplitude of 0 stays 0, however large the other factor is.
    rise = np.where(up == 0, 0, up * rise)
    fall = down * np.expm1(-angle) * left
    return w * np.reshape(left, (-1, 1)) + (rise + fall)[:, None] * ch, z * left + rise - fall
