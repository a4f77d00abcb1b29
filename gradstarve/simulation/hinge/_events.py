"""`simulate_hinge_exact`: hinge gradient flow from event to event (12.1), for batches of networks.

`_slide.follow` takes the networks through stretches of closed forms (`_run`, with `_segment`) and stretches on
which margins stay at 1 (`_slide.slide`), and decides between them which margins are held.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    Progress,
    as_flag,
    html_lines,
    is_concrete,
    positive_int,
    shown,
    which_network,
)
from gradstarve.problem import Dataset, Loss, TwoLayerReLU
from gradstarve.simulation._flow import check_times
from gradstarve.simulation._simulate import check_problem, overflown
from gradstarve.simulation._trajectory import Trajectory
from gradstarve.simulation.hinge._decide import Judge
from gradstarve.simulation.hinge._run import EventKind, State, Stop, at_start
from gradstarve.simulation.hinge._slide import EventLog, follow, visits
from gradstarve.simulation.hinge._stages import Stage, stages, visited

WORDS = {
    EventKind.WAKES: "neuron {neuron} wakes on point {point}",
    EventKind.SLEEPS: "neuron {neuron} falls asleep on point {point}",
    EventKind.LEARNT: "the margin of point {point} reaches 1",
    EventKind.FORGOTTEN: "the margin of point {point} falls below 1",
    EventKind.HELD: "the margin of point {point} is held at 1",
    EventKind.FREED: "the margin of point {point} rises above 1",
    EventKind.SLIDES: "neuron {neuron} begins to slide along the edge of point {point}",
    EventKind.REPELS: "the edge of point {point}, which neuron {neuron} is on, repels it",
}


class Events(NamedTuple):
    """What happened to every network, in order: `time`, `kind` (an `EventKind` by its number; -1 behind the last), `neuron`
    j (-1 for a margin) and `point` i, all [*batch, most events], and `count`, [*batch]."""

    time: np.ndarray
    kind: np.ndarray
    neuron: np.ndarray
    point: np.ndarray
    count: np.ndarray

    @property
    def names(self) -> np.ndarray:
        """The kinds by name, [*batch, most events] strings, "" behind the last."""
        table = np.array(["", *(EventKind(k).name for k in range(1, len(EventKind) + 1))])
        return table[np.maximum(self.kind, 0)]

    def __repr__(self) -> str:
        networks = f"{self.count.size} network{'s' * (self.count.size != 1)}"
        return f"Events({networks}, {int(self.count.sum())} events; .of(index) tells them in words)"

    def _repr_html_(self) -> str:
        first = (0,) * self.count.ndim
        lines = self.of(*first)[:20] if self.count.size else []
        return html_lines("\n".join([repr(self), *lines]))

    def of(self, *index: int) -> list[str]:
        """The events of the network at `index` of the batch axes, in words."""
        count = int(self.count[index])
        rows = zip(*(leaf[index][:count].tolist() for leaf in self[:4]), strict=True)
        return [f"t = {time:.9g}: {WORDS[EventKind(kind)].format(neuron=j, point=i)}" for time, kind, j, i in rows]


class Certificate(NamedTuple):
    """The smallest gradient that the kinks leave open: its `norm` [*batch], 0 to rounding at a rest, and what makes it: the
    `residual` g_i in [0, 1] of every point [*batch, n] (1 below a margin of 1, 0 above), and the `share` s_ji in [slope, 1]
    with which neuron j feels it [*batch, h, n] (1 where it is active, the slope, for a ReLU 0, where it is not). Margins at
    1 and edges w_j.x_i = 0 have the residuals and shares that make

        d L / d w_j = -z_j sum_i s_ji q_i g_i y_i x_i,    d L / d z_j = -sum_i q_i g_i y_i phi(w_j.x_i)

    shortest.
    """

    norm: np.ndarray
    residual: np.ndarray
    share: np.ndarray


class Ends(NamedTuple):
    """How the run of every network ended: `stop`, `time` and `place`, [*batch] each; `reason` has the words."""

    stop: np.ndarray
    time: np.ndarray
    place: np.ndarray


class HingeTrajectory(Trajectory):
    """A run of `simulate_hinge_exact`: a `Trajectory` that knows every time t >= 0, not only those of its grid.

    With throw=False a network that cannot be followed has NaN in its records behind the time where it stops; `final` are
    its weights there, and `reason` says why.

    `events`: an `Events`; `settled`: [*batch], whether no gradient was left at the last time, so that nothing ever moves
    again: every margin that an active neuron could move has reached 1, or the pulls of all points cancel (`certificate`).
    """

    events: Any = None
    settled: Any = None
    room: int = eqx.field(static=True, default=0)
    ends: Any = None

    def reason(self, *index: int) -> str:
        """Why the network at `index` of the batch axes was not followed to the last time, "" if it was."""
        if len(index) != len(self.initial.batch_shape):
            raise ValueError(f"give one index for each batch axis {list(self.initial.batch_shape)}, got {shown(index)}")
        try:
            index = tuple(range(size)[i] for i, size in zip(index, self.initial.batch_shape, strict=True))
        except (TypeError, IndexError):
            sizes = list(self.initial.batch_shape)
            raise ValueError(f"give integers within the batch {sizes}, got {shown(index)}") from None
        stop, time, place = (leaf[index] for leaf in self.ends)
        if stop == Stop.DONE:
            return ""
        count = int(self.events.count[index])
        last = tuple(int(leaf[index][count - 1]) if count else -1 for leaf in self.events[1:4])
        return str(_error(Stop(int(stop)), float(time), int(place), last, "the network", self.room, self.data.size, ""))

    def certificate(self) -> Certificate:
        """How far the last weights are from rest: the smallest of the gradients that the kinks leave open there."""
        batch = self.initial.batch_shape
        data: Any = self.data
        judge, w, z = Judge(data, self.initial.slope), np.asarray(self.final.w), np.asarray(self.final.z)
        known = np.asarray(np.isfinite(w).all((-1, -2)))
        shape = z.shape[-1], self.data.size
        norm, residual, share = (np.full((*batch, *size), np.nan, z.dtype) for size in ((), shape[1:], shape))
        for b in np.ndindex(*batch):
            if known[b]:
                norm[b], residual[b], share[b] = judge.smallest(w[b], z[b], float(np.finfo(z.dtype).eps))
        return Certificate(norm, residual, share)

    def stages(self, *index: int) -> list[Stage]:
        """The plateaus of the network at `index` of the batch axes, in order: from saddle to saddle (16.5).

        From small weights the loss falls in steps. Margins that reach 1 cut the run into stretches, and a stretch is a
        plateau where the loss stands for longer than it falls: b - a > 2 D/v, with D by how much it falls on [a, b] and v
        its speed at the end, most of which is that of neurons that ended no plateau before. Each `Stage` has `start` and
        `exit`, the `loss`, `error` and `residual` of the saddle, the `rate` at which the `neurons` grow that end it, and
        the points that are `learnt` then; the last one, of a run that has `settled`, is where it rests, with exit = inf.
        `theory.plateau_exits` predicts the exits.

        >>> from gradstarve.problem import Dataset, TwoLayerReLU
        >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1], [0.75, 0.25])
        >>> run = simulate_hinge_exact(data, TwoLayerReLU(w=[[1e-3, 0.0], [0.0, 1e-3]], z=[1e-3, -1e-3]))
        >>> [(round(s.exit, 2), round(s.loss, 2), s.neurons, s.learnt) for s in run.stages()]   # log(1e6)/(2 q_i)
        [(9.21, 1.0, (0,), (0,)), (27.63, 0.25, (1,), (1,)), (inf, 0.0, (), ())]
        """
        batch = self.initial.batch_shape
        if len(index) != len(batch):
            raise ValueError(f"give one index for each batch axis {list(batch)}, got {shown(index)}")
        b = tuple(range(size)[i] for i, size in zip(index, batch, strict=True))
        one = jax.tree.map(lambda leaf: leaf[b][None], self.initial)
        data: Any = self.data
        events: Events = self.events
        mine = slice(int(events.count[b]))
        told = tuple(leaf[b][mine] for leaf in (events.time, events.kind, events.point))

        def states(times: np.ndarray):
            return visited(visits(data, one, times, self.room))

        end = max(float(told[0][-1]) if told[0].size else 0.0, 0.0)
        return stages(Judge(data, self.initial.slope), states, told, end, bool(self.settled[b]))

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
        final, _ = _followed(self.data, self.initial, grid, self.room, keep, throw=True)
        batch, back = self.initial.batch_shape, np.argsort(order)

        def shape(leaf):
            return jnp.asarray(np.asarray(leaf)[:, back].reshape(*batch, *wanted.shape, *leaf.shape[2:]))

        return final._replace(seen=shape(final.seen), weights=jax.tree.map(shape, final.weights))


def simulate_hinge_exact(
    data: Any,
    network: Any,
    times: Any = None,
    *,
    max_events: Any = None,
    record_networks: bool = False,
    throw: bool = True,
    progress: Any = None,
) -> HingeTrajectory:
    """Follow the hinge gradient flow (1.2) of two-layer ReLU networks exactly, from event to event (12.1).

    - `data`: a `Dataset` (labels ±1); `network`: a `TwoLayerReLU` with any batch axes, also none;
    - `times`: a number or a rising sequence of them, >= 0, to record; None follows every network until no gradient is left
      and records the start and the time of the last event;
    - `max_events`: room for the events of one network; by default four times the number of edges and margins;
    - `record_networks`: keep the weights at every record too;
    - `throw`: whether a network that cannot be followed raises; with False its later records are NaN, `.final` are its
      weights where it stops, and `.reason(index)` says why;
    - `progress`: as in `simulate`, in networks.

    The result is a `HingeTrajectory`: a `Trajectory` that is exact at any time, with the `.events` of each network. There is
    no step and no tolerance: weights are a cosh and a sinh between events, edges w_j.x_i = 0 are passed at roots in closed
    form, margins at roots closed in on from below, so that none is missed. Errors are those of rounding, some 1e-13 in
    float64; float32 input is followed in float32 and good to its rounding. Weights of 1e-300 have no more events than
    others, and `.stages()` lists the plateaus of the loss.

    A margin slides at 1 where neurons are shared by points of both classes: it is held there by the residuals in [0, 1] that
    leave all held margins at rest. That is no sum of exponentials; Taylor series of order 20 follow it to rounding, and its
    events are first roots of polynomials.

    A neuron with y_i z_j < 0 slides along the edge w_j.x_i = 0 where both sides lead back to it: the point pulls with the
    share in [0, 1] that leaves no force across the edge, and adds nothing to f (16.3). Between events shares are constant
    while no margin is held. Who is held, margins and edges together, is the shortest gradient that the kinks leave open. On
    orthogonally separable data no neuron slides (2.0).

    A leaky network, slope > 0, feels its slope of the pull of points that a neuron is not active on (22.1); held edges have
    shares in [slope, 1].

    Activity at the start is w_j.x_i > 0, and a neuron on an edge that its own force draws onto a point is active at once.

    Data need not be separable. A run ends where nothing moves any more, `.settled`, with margins of any size, and
    `.certificate()` has the residuals and shares that make the gradient 0 there. Many networks on such data approach their
    limit for ever: give `times`.

    Where held margins depend on each other, as those of points in one place, the motion is one and the pulls are many:
    as many are open as are independent, and the margins of the others are tied to theirs.

    `HypothesisError` names the network, neuron, point and time where the flow does not determine its way (16.4):

    - the read-out of a neuron passes 0 on an edge that holds it, which repels it from then on;
    - a neuron is on repelling edges, and another side of them leads another way: several met at once, as at w = 0, where
      it may rest on one side and leave on another, or one that it starts on to rounding (where w_j.x_i is 0 exactly the
      neuron is not active, and that is its side);
    - a neuron is on the edge of points of both labels while the margin of one of them is held, which attracts it below that
      margin and repels it above, and both staying and leaving are gradients that the kinks leave open. Where descent from
      wherever near leaves at once, at every small step, it is followed.

    Every decision about who is held is tried by the derivatives that it leads to, the second where the first is 0.
    `ConvergenceError` names the neuron or margin where it does not hold to rounding; it is also for more than `max_events`
    events and for a network that approaches a limit for ever (a neuron on the line z = -a, or held margins that come to
    rest). `ValueError` for arguments that do not fit each other.

    >>> from gradstarve.problem import TwoLayerReLU, datasets
    >>> network = TwoLayerReLU(w=[[0.5, 0.0], [0.25, 0.1]], z=[0.25, -0.5])
    >>> run = simulate_hinge_exact(datasets.antipodal(frequencies=(0.5, 0.5)), network)
    >>> [line.split(": ")[1] for line in run.events.of()][:2]
    ['neuron 1 falls asleep on point 0', 'neuron 1 wakes on point 1']
    >>> run.margins(run.grid[-1]).round(4).tolist(), bool(run.settled)
    ([1.0, 1.0], True)
    """
    data, network, loss = check_problem(data, network, "hinge")
    record_networks, throw = as_flag("record_networks", record_networks), as_flag("throw", throw)
    if not isinstance(data, Dataset) or type(network) is not TwoLayerReLU:
        raise ValueError(
            f"only a TwoLayerReLU on a Dataset is followed exactly, got {type(network).__name__} on {type(data).__name__}; "
            "use simulate_flow"
        )
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network))):
        raise ValueError("data and network must be known: events cannot be listed inside jit, grad and vmap")
    if isinstance(times, str | Loss):
        raise ValueError(
            f"times must be a number or a rising sequence of them, got {shown(times)}: the loss here is always the hinge "
            "loss; for another give simulate_flow(data, network, loss, times)"
        )
    room = 4 * (network.width + 1) * data.size + 16 if max_events is None else positive_int("max_events", max_events)
    grid = np.array([np.inf], network.dtype) if times is None else check_times(times, network.dtype)
    final, told = _followed(data, network, grid, room, record_networks, throw, progress)
    batch = network.batch_shape

    def shape(leaf):  # by NumPy: small programs of JAX take longer to compile than to run
        leaf = np.asarray(leaf)
        return leaf.reshape((*batch, *leaf.shape[1:]))

    events = Events(*map(shape, _table(told, len(final.stop), room)))
    recorded, networks = shape(final.seen), jax.tree.map(shape, final.weights)
    if times is None:
        last = events.time[events.kind > 0].max(initial=0)
        grid = np.array([0, last], network.dtype) if last > 0 else np.zeros(1, network.dtype)
        first = at_start(_in_one_row(network), data.points)[1]
        recorded = np.concatenate([shape(first)[..., None, :], recorded][: grid.size], axis=-2)
        if record_networks:
            start = jax.tree.map(lambda leaf: np.expand_dims(leaf, len(batch)), network)
            pair = [start, networks][: grid.size]
            networks = jax.tree.map(lambda *leaves: np.concatenate(leaves, len(batch)), *pair)
    return HingeTrajectory(
        grid=grid,
        recorded=jnp.asarray(recorded),
        initial=network,
        final=TwoLayerReLU(shape(final.w), shape(final.z), network.slope),
        data=data,
        loss_function=loss,
        networks=jax.tree.map(jnp.asarray, networks) if record_networks else None,
        events=events,
        settled=shape(final.settled),
        room=room,
        ends=Ends(*(shape(leaf) for leaf in (final.stop, final.time, final.arriving))),
    )


def _followed(data, network, grid, room: int, keep: bool, throw: bool, progress: Any = None) -> tuple[State, EventLog]:
    """All networks along `grid`, batch axes as one, and their events."""
    flat = _in_one_row(network)
    beyond = ~np.isfinite(at_start(flat, data.points)[1]).all(-1)
    if throw and beyond.any():
        raise overflown(int(np.argmax(beyond)), network.batch_shape, network.dtype)
    with Progress(progress, flat.batch_shape[0], "following networks", "networks") as bar:
        final, told = follow(data, flat, grid, room, keep, bar.update)
    if throw:
        _raise_if_stopped(final, told, network.batch_shape, room, data.size)
    return final, told


def _in_one_row(network: TwoLayerReLU) -> TwoLayerReLU:
    """The networks with one batch axis."""
    w, z = np.asarray(network.w), np.asarray(network.z)
    return TwoLayerReLU(w.reshape(-1, *w.shape[-2:]), z.reshape(-1, z.shape[-1]), network.slope)


def _table(told: EventLog, size: int, room: int) -> tuple[np.ndarray, ...]:
    """Time, kind, neuron and point as [networks, most events], kind -1 behind the last, and how many each has."""
    order = np.argsort(told.network, kind="stable")
    network = told.network[order]
    total = np.bincount(network, minlength=size)
    column = np.arange(network.size) - (np.cumsum(total) - total)[network]
    count = np.minimum(total, room)
    kept = column < room

    def table(values, empty):
        whole = np.full((size, int(count.max(initial=0))), empty, values.dtype)
        whole[network[kept], column[kept]] = values[order][kept]
        return whole

    return table(told.time, 0), *(table(leaf, -1) for leaf in told[2:]), count


def _raise_if_stopped(final: State, told: EventLog, batch: tuple[int, ...], room: int, size: int) -> None:
    """The error of the first network that did not get to its last time."""
    stops = np.asarray(final.stop)
    bad = np.flatnonzero(stops != Stop.DONE)
    if not bad.size:
        return
    b = int(bad[0])
    last = tuple(int(leaf[told.network == b][-1]) if (told.network == b).any() else -1 for leaf in told[2:])
    raise _error(
        Stop(int(stops[b])),
        float(final.time[b]),
        int(final.arriving[b]),
        last,
        which_network(np.unravel_index(b, batch)),
        room,
        size,
        f" ({bad.size} of {stops.size} networks cannot be followed to the end; throw=False keeps what there is)",
    )


def _error(stop: Stop, time: float, place: int, last: tuple[int, ...], which: str, room: int, size: int, others: str):
    """What is raised for a network that stopped at a `time`; `place`: its `arriving`, `last`: kind, neuron and point of its
    last event."""
    kind, neuron, point = last
    if stop == Stop.OPEN:
        what = f"{WORDS[EventKind(kind)].format(neuron=neuron, point=point)} to either side"
        if neuron < 0:
            what = f"the margin of point {point} and edges are met at once, and who is held was not found"
        if place < -1:
            what = (
                f"neuron {neuron} is on the edge of point {point} while the margin of point {-2 - place}, on the same edge, "
                "is at 1: below 1 its pull is the larger one, above 1 that of the other label, and the neuron may stay or go"
            )
        return HypothesisError(
            "the flow determines its way (an edge repels a neuron that is on it, 16.4)",
            f"in {which} at t = {time:.12g} {what}",
            f"ask for times up to t = {time:.6g}, or simulate(...), where rounding decides{others}",
        )
    if stop == Stop.DOUBTED:
        j, i = divmod(place, size)
        what = f"neuron {j - 1} on the edge of point {i}" if j else f"the margin of point {i}"
        return ConvergenceError(
            f"in {which} at t = {time:.12g} rounding hides what becomes of {what}: who is held there was decided, and does "
            f"not hold when it is tried; ask for times up to t = {time:.6g}{others}"
        )
    if stop == Stop.FULL:
        return ConvergenceError(f"{which} has more than max_events = {room} events by t = {time:.12g}; raise it{others}")
    return ConvergenceError(
        f"{which} approaches a limit after t = {time:.12g} without an event (a neuron on the line z = -a decays "
        f"for ever, and so may the force while margins are held at 1); ask for times up to t = {time:.6g}{others}"
    )
