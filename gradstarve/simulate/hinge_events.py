"""`simulate_hinge_exact`: hinge gradient flow from event to event, with no time step at all (12.1).

Events are a neuron that passes the edge w_j.x_i = 0 of a point, and a margin that passes 1; `hinge_segment` has what happens
between them. What comes next is decided by the signs of the derivatives on the two sides of the event: where both lead
back to it the flow slides along it, which no closed form follows, and the run stops with the event named.
"""

from __future__ import annotations

from enum import IntEnum
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradstarve.arrays import is_concrete, positive_int
from gradstarve.errors import ConvergenceError, HypothesisError
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulate.flow import check_times
from gradstarve.simulate.hinge_segment import edge_times, margin_times, moved, segment
from gradstarve.simulate.simulate import check_problem
from gradstarve.simulate.trajectory import Trajectory


class Kind(IntEnum):
    """What happens at an event."""

    WAKES = 1  # neuron j becomes active on point i
    SLEEPS = 2  # neuron j stops being active on point i
    LEARNT = 3  # the margin of point i reaches 1
    FORGOTTEN = 4  # the margin of point i falls below 1


class Stop(IntEnum):
    """How a run ended."""

    RUNNING = 0
    DONE = 1  # no gradient is left, or the last time is reached
    FULL = 2  # more events than there was room for
    EDGE_SLIDES = 3
    MARGIN_SLIDES = 4
    LOST = 5  # a search did not come to its end


WORDS = {
    Kind.WAKES: "neuron {neuron} wakes on point {point}",
    Kind.SLEEPS: "neuron {neuron} falls asleep on point {point}",
    Kind.LEARNT: "the margin of point {point} reaches 1",
    Kind.FORGOTTEN: "the margin of point {point} falls below 1",
}


class Events(NamedTuple):
    """What happened to every network, in order: `time`, `kind` (a `Kind`; -1 behind the last), `neuron` j (-1 for a margin)
    and `point` i, all [*batch, most events], and `count`, [*batch]."""

    time: np.ndarray
    kind: np.ndarray
    neuron: np.ndarray
    point: np.ndarray
    count: np.ndarray

    def of(self, *index: int) -> list[str]:
        """The events of the network at `index` of the batch axes, in words."""
        count = int(self.count[index])
        rows = zip(*(leaf[index][:count].tolist() for leaf in self[:4]), strict=True)
        return [f"t = {time:.9g}: {WORDS[Kind(kind)].format(neuron=j, point=i)}" for time, kind, j, i in rows]


class HingeTrajectory(Trajectory):
    """A run of `simulate_hinge_exact`: a `Trajectory` that knows every time t >= 0, not only those of its grid.

    `events`: an `Events`; `settled`: [*batch], whether no gradient was left at the last time: every margin that an active
    neuron could move has reached 1, and nothing ever moves again.
    """

    events: Any = None
    settled: Any = None
    room: int = eqx.field(static=True, default=0)

    def logits(self, t: Any = None) -> Float[Array, "..."]:
        """f(x_i) at any t >= 0, [*batch, *t.shape, n]; what was not recorded is followed once more. None is the grid."""
        try:
            return super().logits(t)
        except ValueError:
            return self._followed(t, False).seen

    def network(self, t: Any = None) -> Any:
        """The network or networks at any t >= 0, batch axes [*batch, *t.shape]; None is the grid."""
        try:
            return super().network(t)
        except ValueError:
            return self._followed(self.grid if t is None else t, True).weights

    def _followed(self, t: Any, keep: bool) -> State:
        wanted = self._number(t)
        order = np.argsort(wanted, axis=None)
        grid = check_times(wanted.reshape(-1)[order], self.initial.dtype)
        final = _followed(self.data, self.initial, grid, self.room, keep, throw=True)
        batch, back = self.initial.batch_shape, np.argsort(order)

        def shape(leaf):
            return leaf[:, back].reshape(*batch, *wanted.shape, *leaf.shape[2:])

        return final._replace(seen=shape(final.seen), weights=jax.tree.map(shape, final.weights))


class State(NamedTuple):
    """One network in the middle of a run."""

    w: Float[Array, "h d"]
    z: Float[Array, " h"]
    active: Bool[Array, "h n"]
    live: Bool[Array, " n"]
    time: Array
    record: Int[Array, ""]  # records made so far
    count: Int[Array, ""]  # events so far
    stop: Int[Array, ""]
    seen: Float[Array, "records n"]
    weights: Any  # recorded networks, or None
    log: Any  # time, kind, neuron, point: [max_events] each
    settled: Bool[Array, ""]  # no gradient is left
    waiting: Bool[Array, "h n"]  # edges that are passed at this very moment, one event after the other


def _outputs(w, z, active, x):
    return jnp.einsum("h,hn->n", z, jnp.where(active, jnp.einsum("hd,nd->hn", w, x, precision="highest"), 0))


@partial(jax.jit, static_argnums=(5, 6))
@partial(jax.vmap, in_axes=(0, None, None, None, None, None, None))
def _run(network, x, y, q, times, room: int, keep: bool) -> State:
    """One network along `times` [records], rising; the last may be inf."""
    n, records = y.shape[0], times.shape[0]
    dtype, size = network.z.dtype, jnp.linalg.norm(x, axis=1)

    def start():
        active = jnp.einsum("hd,nd->hn", network.w, x, precision="highest") > 0
        live = y * _outputs(network.w, network.z, active, x) < 1
        zero = jnp.zeros((), jnp.int32)
        log = (jnp.zeros(room, dtype), *(jnp.full(room, -1, jnp.int32) for _ in range(3)))
        weights = jax.tree.map(lambda leaf: jnp.zeros((records, *leaf.shape), dtype), network) if keep else None
        seen = jnp.full((records, n), jnp.nan, dtype)
        begin = (network.w, network.z, active, live, jnp.zeros((), dtype), zero, zero, zero)
        return State(*begin, seen, weights, log, jnp.zeros((), bool), jnp.zeros_like(active))

    def go_on(state):
        return state.stop == Stop.RUNNING

    def advance(state: State) -> State:
        now = segment(state.w, state.z, state.active, q * y * state.live, x)
        until = times[jnp.minimum(state.record, records - 1)] - state.time
        edges = jnp.where(state.waiting, 0, edge_times(now, state.active))
        place = jnp.argmin(edges)
        edge = jnp.min(edges)
        limit = jnp.minimum(edge, until)
        still = ~jnp.any(now.rate > 0)
        passages, ended = margin_times(now, state.active, y, state.live, jnp.where(still, 0, limit))
        point, margin = jnp.argmin(passages), jnp.min(passages)
        is_margin = jnp.isfinite(margin) & (margin <= limit)
        is_edge = ~is_margin & (edge <= until) & jnp.isfinite(edge)
        passed = jnp.where(is_margin, margin, jnp.where(still & ~jnp.isfinite(until), 0, limit))
        w, z = moved(now, jnp.where(jnp.isfinite(passed), passed, 0))
        time = jnp.where(is_margin | is_edge, state.time + passed, times[jnp.minimum(state.record, records - 1)])

        # an edge
        j, i = jnp.unravel_index(place, edges.shape)
        wakes = ~state.active[j, i]
        flipped = state.active.at[j, i].set(jnp.where(is_edge, wakes, state.active[j, i]))
        # Opposite points have one edge: who leaves one of them passes to the other, and must not stay between.
        pre = jnp.einsum("hd,nd->hn", w, x, precision="highest")
        touching = jnp.abs(pre[j]) <= 32 * jnp.finfo(dtype).eps * size * (jnp.linalg.norm(state.w[j]) + jnp.abs(state.z[j]))
        crossing = now.z[j] * now.lean[j] * jnp.where(state.active[j], -1, 1) > 0
        together = state.waiting.at[j].set(state.waiting[j] | touching & crossing & ~jnp.any(state.waiting))
        waiting = together.at[j, i].set(False) & is_edge
        # d(w_j.x_i)/dt after it has to lead away from the edge too.
        force = jnp.sum((flipped[j] * q * y * state.live)[:, None] * x, axis=0)
        drift = z[j] * jnp.dot(force, x[i]) * jnp.where(wakes, 1, -1)
        edge_slides = is_edge & (drift < 0) & ~jnp.any(waiting)

        # a margin
        pull = (q * y * state.live).at[point].set(0)
        pre = jnp.where(state.active, pre, 0)
        others = jnp.einsum("hn,nd->hd", state.active * pull, x, precision="highest")
        mine = jnp.where(state.active[:, point], 1.0, 0.0).astype(dtype)
        without = y[point] * jnp.sum(mine * (z**2 * (others @ x[point]) + jnp.sum(w * others, axis=1) * pre[:, point]))
        own = q[point] * jnp.sum(mine * (z**2 * jnp.dot(x[point], x[point]) + pre[:, point] ** 2))
        was_live = state.live[point]
        # Rounding of a sum whose terms cancel exactly must not look like a slide.
        least = 64 * jnp.finfo(dtype).eps * own
        free, falls = without >= -least, without + own <= least
        margin_slides = is_margin & ~free & ~falls
        live = state.live.at[point].set(jnp.where(is_margin, ~free, was_live))
        # Nothing changed although an event was found: no progress, and no way to tell what happens.
        margin_slides = margin_slides | is_margin & (live[point] == was_live)

        event = is_margin | is_edge
        kind = jnp.where(
            is_edge,
            jnp.where(wakes, Kind.WAKES, Kind.SLEEPS),
            jnp.where(was_live, Kind.LEARNT, Kind.FORGOTTEN),
        )
        entry = (time, kind, jnp.where(is_edge, j, -1), jnp.where(is_edge, i, point))
        slot = jnp.where(event, state.count, room)

        def put(whole, value):
            return whole.at[slot].set(jnp.asarray(value, whole.dtype), mode="drop")

        log = tuple(map(put, state.log, entry))
        count = state.count + event

        # a record
        record = ~event
        row = jnp.where(record, state.record, records)
        seen = state.seen.at[row].set(_outputs(w, z, state.active, x), mode="drop")
        weights = state.weights
        if keep:
            weights = jax.tree.map(lambda whole, new: whole.at[row].set(new, mode="drop"), weights, TwoLayerReLU(w, z))
        made = state.record + record

        stop = jnp.where(made >= records, Stop.DONE, Stop.RUNNING)
        stop = jnp.where(event & (count >= room), Stop.FULL, stop)
        stop = jnp.where(edge_slides, Stop.EDGE_SLIDES, stop)
        stop = jnp.where(margin_slides, Stop.MARGIN_SLIDES, stop)
        stop = jnp.where(~ended, Stop.LOST, stop)
        stop = jnp.asarray(stop, jnp.int32)
        return State(w, z, flipped, live, time, made, count, stop, seen, weights, log, still, waiting)

    return jax.lax.while_loop(go_on, advance, start())


def simulate_hinge_exact(
    data: Any, network: Any, times: Any = None, *, max_events: Any = None, record_networks: bool = False, throw: bool = True
) -> HingeTrajectory:
    """Follow the hinge gradient flow (1.2) of two-layer ReLU networks exactly, from event to event (12.1).

    - `data`: a `Dataset` (labels ±1); `network`: a `TwoLayerReLU` with any batch axes, also none;
    - `times`: a number or a rising sequence of them, >= 0, to record; None follows every network until no gradient is left
      and records the start and the time of the last event;
    - `max_events`: room for the events of one network; by default four times the number of edges and margins;
    - `record_networks`: keep the weights at every record too;
    - `throw`: whether a network that can not be followed raises; with False its later records are NaN.

    The result is a `HingeTrajectory`: a `Trajectory` that is exact at any time, with the `.events` of each network. There is
    no step and no tolerance: weights are a cosh and a sinh between events, edges w_j.x_i = 0 are passed at roots in closed
    form, margins at roots closed in on from below, so that none is missed. Errors are those of rounding, some 1e-13 in
    float64; float32 input is followed in float32 and good to its rounding.

    Activity at the start is w_j.x_i > 0, and a neuron on an edge that its own force draws onto a point is active at once.
    On orthogonally separable data no edge slides (2.0). A margin slides at 1 where neurons are shared by points of both
    classes; sliding is no sum of exponentials and is refused.

    `HypothesisError` names the network, event, neuron, point and time where a margin or an edge begins to slide;
    `ConvergenceError` for more than `max_events` events and for a network that approaches a limit for ever (a neuron on the
    line z = -a); `ValueError` for arguments that do not fit each other.

    >>> from gradstarve.problem import TwoLayerReLU, datasets
    >>> network = TwoLayerReLU(w=[[0.5, 0.0], [0.25, 0.1]], z=[0.25, -0.5])
    >>> run = simulate_hinge_exact(datasets.antipodal(frequencies=(0.5, 0.5)), network)
    >>> [line.split(": ")[1] for line in run.events.of()][:2]
    ['neuron 1 falls asleep on point 0', 'neuron 1 wakes on point 1']
    >>> run.margins(run.grid[-1]).round(4).tolist(), bool(run.settled)
    ([1.0, 1.0], True)
    """
    data, network, loss = check_problem(data, network, "hinge")
    if not isinstance(data, Dataset) or type(network) is not TwoLayerReLU:
        raise ValueError(
            f"only a TwoLayerReLU on a Dataset is followed exactly, got {type(network).__name__} on {type(data).__name__}; "
            "use simulate_flow"
        )
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network))):
        raise ValueError("data and network must be known: events can not be listed inside jit, grad and vmap")
    room = 4 * (network.width + 1) * data.size + 16 if max_events is None else positive_int("max_events", max_events)
    grid = np.array([np.inf], network.dtype) if times is None else check_times(times, network.dtype)
    final = _followed(data, network, grid, room, record_networks, throw)
    batch = network.batch_shape

    def shape(leaf):
        return leaf.reshape((*batch, *leaf.shape[1:]))

    count = np.asarray(final.count)
    most = min(int(count.max()), room)
    time, kind, neuron, point = (shape(np.asarray(leaf)[:, :most]) for leaf in final.log)
    events = Events(time, kind, neuron, point, shape(np.minimum(count, room)))
    recorded, networks = shape(final.seen), jax.tree.map(shape, final.weights)
    if times is None:
        last = events.time[events.kind > 0].max(initial=0)
        grid = np.array([0, last], network.dtype) if last > 0 else np.zeros(1, network.dtype)
        both = [network(data.points)[..., None, :], recorded][: grid.size]
        recorded = jnp.concatenate(both, axis=-2)
        if record_networks:
            start = jax.tree.map(lambda leaf: jnp.expand_dims(leaf, len(batch)), network)
            pair = [start, networks][: grid.size]
            networks = jax.tree.map(lambda *leaves: jnp.concatenate(leaves, len(batch)), *pair)
    return HingeTrajectory(
        grid=grid,
        recorded=recorded,
        initial=network,
        final=TwoLayerReLU(shape(final.w), shape(final.z)),
        data=data,
        loss_function=loss,
        networks=networks if record_networks else None,
        events=events,
        settled=shape(np.asarray(final.settled)),
        room=room,
    )


def _followed(data, network, grid, room: int, keep: bool, throw: bool) -> State:
    """All networks along `grid`, batch axes as one."""
    axes = len(network.batch_shape)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), network)
    final = _run(flat, data.points, data.labels, data.weights, jnp.asarray(grid), room, keep)
    if throw:
        _raise_if_stopped(final, network.batch_shape, room)
    return final


def _raise_if_stopped(final: State, batch: tuple[int, ...], room: int) -> None:
    """The error of the first network that did not get to its last time."""
    stops = np.asarray(final.stop)
    bad = np.flatnonzero(stops != Stop.DONE)
    if not bad.size:
        return
    b = int(bad[0])
    where = ", ".join(str(int(i)) for i in np.unravel_index(b, batch)) if batch else ""
    stop, time = Stop(int(stops[b])), float(final.time[b])
    others = f"({bad.size} of {stops.size} networks can not be followed to the end; throw=False keeps what there is)"
    if stop in (Stop.EDGE_SLIDES, Stop.MARGIN_SLIDES):
        kind, neuron, point = (int(np.asarray(leaf)[b, int(final.count[b]) - 1]) for leaf in final.log[1:])
        event = WORDS[Kind(kind)].format(neuron=neuron, point=point)
        what = "margin" if stop == Stop.MARGIN_SLIDES else "edge"
        raise HypothesisError(
            f"no {what} slides",
            f"in network [{where}], when at t = {time:.12g} {event}, the gradients on both sides drive it back",
            f"simulate with a small step size, or neurons that are active on one class only {others}",
        )
    if stop == Stop.FULL:
        raise ConvergenceError(
            f"network [{where}] has more than max_events = {room} events by t = {time:.12g}; raise it {others}"
        )
    raise ConvergenceError(
        f"network [{where}] approaches a limit after t = {time:.12g} without an event (a neuron on the line z = -a decays "
        f"for ever); ask for times that end earlier {others}"
    )
