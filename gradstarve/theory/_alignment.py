"""Early alignment: the motion of every neuron while outputs are small, on any data with any labels (16).

While |f| is small every point pushes with g(0), so that neurons do not interact: each moves alone, on stretches of cosh
and sinh, from edge to edge and along edges that attract it, until it points in a direction that reproduces itself. The
integration of one neuron is in `_alignment_flow`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    as_flag,
    as_floats,
    as_number,
    html_lines,
    html_table,
    is_concrete,
    number,
    positive_int,
    shown,
    which_network,
)
from gradstarve.problem import Dataset, Loss, Network, TwoLayerReLU, as_loss, given
from gradstarve.theory._alignment_flow import (
    Gates,
    Kind,
    Log,
    State,
    Stop,
    Task,
    as_gates,
    as_task,
    begin,
    follow,
    weights_at,
)
from gradstarve.theory._solve import check_problem

_WORDS = {
    Kind.WAKES: "wakes on point {}",
    Kind.SLEEPS: "falls asleep on point {}",
    Kind.SLIDES: "begins to slide along the edge of point {}",
    Kind.TURNS: "its read-out passes 0",
    Kind.STOPS: "on the edge of point {}: from here on the flow does not determine it",
}
_OPEN = (Stop.UNDETERMINED, Stop.MEETING)


class NeuronEvents(NamedTuple):
    """The events of every neuron, neuron by neuron, each in order of time.

    `time`, `kind` (1 becomes active on a point, 2 becomes inactive on it, 3 begins to slide along its edge, 4 the read-out
    passes 0, 5 the flow does not determine what follows) and `point` i (-1 for the read-out), all [events]; `count`
    [*batch, h], the number of events of each neuron.

    Points on one line through 0 share an edge: `point` is the first of them; on points on the other side of 0 a neuron
    becomes inactive where it becomes active on `point`.
    """

    time: np.ndarray
    kind: np.ndarray
    point: np.ndarray
    count: np.ndarray

    @property
    def names(self) -> np.ndarray:
        """The kinds by name, [events] strings."""
        return np.array(["", *(kind.name for kind in Kind)])[self.kind]

    def __repr__(self) -> str:
        neurons = f"{self.count.size} neuron{'s' * (self.count.size != 1)}"
        return f"NeuronEvents({neurons}, {int(self.count.sum())} events; .of(index) tells them in words)"

    def _repr_html_(self) -> str:
        lines = self.of(*(0,) * self.count.ndim)[:20] if self.count.size else []
        return html_lines("\n".join([repr(self), *lines]))

    def of(self, *index: int) -> list[str]:
        """The events of the neuron at `index` of the axes [*batch, h], in words."""
        ends = np.cumsum(self.count).reshape(self.count.shape)
        mine = slice(int(ends[index]) - int(self.count[index]), int(ends[index]))
        rows = zip(*(leaf[mine].tolist() for leaf in self[:3]), strict=True)
        return [f"t = {time:.9g}: {_WORDS[Kind(kind)].format(i)}" for time, kind, i in rows]


class Directions(NamedTuple):
    """Directions that reproduce themselves (16.5), the fastest first: `vector` v [m, d], `rate` k [m], `sign` [m] of the
    read-out, `activity` [m, n] on every point, with sign k v = g0 sum_i activity_i q_i y_i x_i, and `neurons` [m], how many
    neurons tend to it. The activity is 1 on an active point, 0 (or the slope) on an inactive one, and in between if the
    direction lies on the edge of the point. Directions without neurons are found by iteration."""

    vector: np.ndarray
    rate: np.ndarray
    sign: np.ndarray
    activity: np.ndarray
    neurons: np.ndarray

    def __repr__(self) -> str:
        fastest = f", fastest rate {number(self.rate[0])}" if self.rate.size else ""
        return f"Directions({self.rate.size} directions for {int(self.neurons.sum())} neurons{fastest})"

    def _repr_html_(self) -> str:
        rows = [("direction", "rate", "read-out", "points it sees", "neurons")]
        for place in range(min(self.rate.size, 20)):
            sees = int((self.activity[place] == 1).sum())
            numbers = number(self.rate[place]), "+" if self.sign[place] > 0 else "-"
            rows.append((str(place), *numbers, str(sees), str(int(self.neurons[place]))))
        return html_table(rows, repr(self))


class Groups(NamedTuple):
    """The fate of every neuron, each [*batch, h]: `direction`, its row of `Directions` (-1 for none); `dead`, inactive on
    all points for ever; `rests`, at rest otherwise, because its points do not push it or its weights fall to 0; and
    `undetermined` (16.4), from time `until` (inf for the others) on the edge of `point` (-1)."""

    direction: np.ndarray
    dead: np.ndarray
    rests: np.ndarray
    undetermined: np.ndarray
    until: np.ndarray
    point: np.ndarray

    def __repr__(self) -> str:
        parts = [f"{int((self.direction >= 0).sum())} in a direction"]
        parts += [f"{int(getattr(self, name).sum())} {name}" for name in ("dead", "rests", "undetermined")]
        return f"Groups({self.dead.size} neurons: {', '.join(parts)})"

    def _repr_html_(self) -> str:
        return html_lines(repr(self))


class _Ends(NamedTuple):
    """The last stretch of every neuron, [neurons, ...]: w, z and c at its beginning, in units of the engine."""

    w: Any
    z: Any
    c: Any
    time: Any


class Alignment(eqx.Module):
    """Every neuron of a network while outputs are small; made by `early_alignment`.

    - `.network(t)`, `.logits(t)`: exact at any time t >= 0, axes [*batch, *t.shape];
    - `.events`: the events of each neuron, `.events.of(j)` in words (16.2), (16.3);
    - `.directions`: the limit directions (16.5), and `.groups`: the direction of each neuron, the neurons that die, and
      those that the flow does not determine (16.4);
    - `.exit_time(scale)`, `.valid_until(tolerance)`: the time at which outputs are no longer small.

    A neuron is followed up to the time `.groups.until` at which the flow stops to determine it. Its later weights do not
    exist: a request for them raises a `HypothesisError` that names neuron, point and time, or gives NaN with `throw=False`.
    """

    data: Dataset
    initial: TwoLayerReLU
    loss_function: Loss
    events: NeuronEvents
    directions: Directions
    groups: Groups
    _ends: Any
    _room: int = eqx.field(static=True)

    def __repr__(self) -> str:
        networks = "" if not self.initial.batch_shape else f" of networks {list(self.initial.batch_shape)}"
        return f"Alignment({self.groups!r}{networks} on {self.data.size} points, {self.directions.rate.size} directions)"

    def _repr_html_(self) -> str:
        return self.directions._repr_html_() + html_lines(repr(self))

    def network(self, t, *, throw: bool = True) -> TwoLayerReLU:
        """The network at t >= 0, a number or an array: axes [*batch, *t.shape] (16.1).

        `throw`: whether a neuron that the flow no longer determines at t raises a `HypothesisError`; with False its
        weights are NaN. `ValueError` for a t that is negative or not finite, and for a t at which weights overflow.

        >>> network = TwoLayerReLU(w=[[0.3, 0.1]], z=[0.2])
        >>> start = early_alignment(Dataset([[1.0, 0.0]], [1]), network).network(0.0)
        >>> bool(jnp.allclose(start.w, network.w))
        True
        """
        t = given(t)
        times, throw = _as_times(t), as_flag("throw", throw)
        gates, task = _gates(self.data, self.initial, self.loss_function)
        w0, z0, size, off = _neurons(self.initial, gates)
        flat, place = np.unique(times.reshape(-1), return_inverse=True)
        whole = _States(self, gates, task, w0, z0)
        h, d = size.size, self.initial.dim
        w, z = np.empty((flat.size, h, d)), np.empty((flat.size, h))
        for row, time in enumerate(flat * gates.total):
            small_w, small_z = whole.at(np.full(h, time))
            w[row], z[row] = off + size[:, None] * (small_w @ gates.basis), size * small_z
        self._check_determined(flat[-1] if flat.size else 0.0, throw)
        late = self.groups.until.reshape(-1) < flat[:, None]
        dtype = self.initial.dtype
        beyond = ~(np.isfinite(w).all(-1) & (np.maximum(np.abs(w).max(-1), np.abs(z)) <= np.finfo(dtype).max))
        if (beyond & ~late).any():
            time = flat[int(np.argmax((beyond & ~late).any(1)))]
            raise ValueError(f"t = {time:.6g}: weights are beyond {dtype} there, long after the phase; see valid_until()")
        w[late], z[late] = np.nan, np.nan

        def shaped(leaf):
            leaf = leaf[place.reshape(-1)].reshape(*times.shape, *self.initial.z.shape, *leaf.shape[2:])
            batch, count = len(self.initial.batch_shape), times.ndim
            return jnp.asarray(np.moveaxis(leaf, range(count), range(batch, batch + count)), dtype)

        return _as_network(shaped(w), shaped(z), self.initial.slope)

    def logits(self, t, *, throw: bool = True) -> Float[Array, "..."]:
        """f(x_i) at t along the phase, [*batch, *t.shape, n]; `throw` as in `network`."""
        return self.network(t, throw=throw)(self.data.points)

    def exit_time(self, scale: Any = 1.0, *, level: Any = 1.0, throw: bool = True) -> Float[Array, "..."]:
        """The first time at which max_i |f(x_i)| of the phase reaches `level`, for the network with all weights times
        `scale`: [*batch, *scale.shape]; inf if it never does (16.5).

        Late in the phase f grows like e^(2 k t), k the largest rate of the neurons, so that this time is
        log(1/scale)/k_max plus a constant that depends on all amplitudes. Relative error 1e-12 in float64. |f| is evaluated
        each time that it has grown by a factor of about e; an excursion between two evaluations is missed. A neuron that the
        flow does not determine up to the result raises a `HypothesisError`; with `throw=False` it does not count from its
        time on. `ValueError` for numbers that are not > 0.

        >>> network = TwoLayerReLU(w=[[0.3, 0.1]], z=[0.3])
        >>> phase = early_alignment(Dataset([[1.0, 0.0]], [1]), network)
        >>> round(float(phase.exit_time(1e-3)), 4)                          # f = scale^2 0.09 e^t
        16.2235
        """
        scales = as_floats("scale", scale)
        if not bool((np.isfinite(scales) & (scales > 0)).all()):
            raise ValueError(f"scale must be > 0 and finite, got {shown(scale)}")
        level = as_number("level", level, 0, with_low=False)

        def excess(outputs, height, log_scale):
            return height + 2 * log_scale - np.log(level)

        return self._first_times(excess, np.asarray(np.log(scales)), as_flag("throw", throw))

    def valid_until(self, tolerance: Any = 0.1, *, throw: bool = True) -> Float[Array, "..."]:
        """The first time at which the residual of some point is off by `tolerance`: |g(m_i) - g0| > tolerance g0 with the
        outputs of the phase, [*batch, *tolerance.shape]; inf if there is no such time.
        `throw` as in `exit_time`.

        >>> phase = early_alignment(Dataset([[1.0, 0.0]], [1]), TwoLayerReLU(w=[[0.01, 0.0]], z=[0.01]))
        >>> round(float(phase.valid_until(0.1)), 3)                         # where tanh(f/2) = 0.1, f = 1e-4 e^t
        7.604
        """
        tolerances = as_floats("tolerance", tolerance)
        if not bool((np.isfinite(tolerances) & (tolerances > 0)).all()):
            raise ValueError(f"tolerance must be > 0 and finite, got {shown(tolerance)}")
        g0 = _residual(self.loss_function, self.data)

        def excess(outputs, height, wanted):
            margins = np.clip(outputs, -_FAR, _FAR) * np.asarray(self.data.labels)
            found = np.asarray(self.loss_function.residual(jnp.asarray(margins, self.data.points.dtype)), np.float64)
            off = np.max(np.abs(found - g0) / g0, axis=-1)
            return np.where(np.isnan(off), np.inf, off) - wanted

        return self._first_times(excess, tolerances, as_flag("throw", throw), np.log(_FAR))

    def _check_determined(self, time: Any, throw: bool) -> None:
        """`HypothesisError` for a neuron that is not determined up to `time`, a number or [*batch, 1]."""
        late = self.groups.until < time
        if not (throw and late.any()):
            return
        index = tuple(int(i) for i in np.argwhere(late)[np.argmin(self.groups.until[late])])
        until, point = float(self.groups.until[index]), int(self.groups.point[index])
        of = f" of {which_network(index[:-1])}" if index[:-1] else ""
        raise HypothesisError(
            "the flow determines every neuron where none is on an edge that repels it (16.4)",
            f"neuron {index[-1]}{of} is on the edge of point {point} at t = {until:.12g}, and either side leads away from "
            f"it ({int(late.sum())} of {late.size} neurons)",
            "an earlier time, throw=False, or simulate(...), where rounding decides",
        )

    def _first_times(self, excess: Callable, wanted: np.ndarray, throw: bool, highest: float = np.inf) -> Array:
        """The first time at which excess(outputs, log max |f|, wanted) >= 0, [*batch, *wanted.shape]; `highest`: the log
        max |f| beyond which it does not change any more."""
        gates, task = _gates(self.data, self.initial, self.loss_function)
        w0, z0, size, _ = _neurons(self.initial, gates)
        batch, h = self.initial.batch_shape, self.initial.width
        nets = int(np.prod(batch, dtype=int))
        points = np.asarray(self.data.points, np.float64) @ gates.basis.T
        until = np.asarray(self.groups.until, np.float64).reshape(-1) * gates.total
        found = np.empty((nets, wanted.size))
        for column, goal in enumerate(wanted.reshape(-1)):
            whole = _States(self, gates, task, w0, z0)

            def look(time, whole=whole, goal=goal):
                """The excess and log max |f| of each network at `time` [nets]."""
                lanes = np.repeat(time, h)
                drop = np.repeat(np.maximum(whole.angles(lanes).reshape(nets, h).max(-1) - 300, 0), h)
                w, z = whole.at(lanes, drop)
                z = np.where(lanes > until, 0, z)
                unit = size.reshape(nets, h).max(-1)
                unit = np.where(unit > 0, unit, 1)
                part = (size.reshape(nets, h) / unit[:, None])[..., None]
                both = zip(part * w.reshape(nets, h, -1), part[..., 0] * z.reshape(nets, h), strict=True)
                outputs = np.stack([_outputs(one_w, one_z, points, self.initial.slope) for one_w, one_z in both])
                with np.errstate(divide="ignore", over="ignore"):
                    height = np.log(np.max(np.abs(outputs), axis=-1)) + 2 * np.log(unit) + 2 * drop[::h]
                    outputs = outputs * np.exp(np.minimum(2 * np.log(unit) + 2 * drop[::h], 600))[:, None]
                return excess(outputs, height, goal), height

            found[:, column] = _march(look, whole, nets, h, until, highest)
        found = found / gates.total
        self._check_determined(np.max(found, axis=-1, initial=0).reshape((*batch, 1)), throw)
        return jnp.asarray(found.reshape((*batch, *wanted.shape)), self.initial.dtype)


class _States:
    """The states of all neurons at a time: followed from the start before their last stretch, in closed form on it."""

    def __init__(self, phase: Alignment, gates: Gates, task: Task, w0: np.ndarray, z0: np.ndarray) -> None:
        self.ends, self.task, self.room = phase._ends, task, phase._room
        self.gates, self.w0, self.z0 = gates, w0, z0
        self.last = np.asarray(self.ends.time)
        # Neurons that are followed, where they are.
        self.which = np.zeros(0, int)
        self.state: Any = None

    def at(self, time: np.ndarray, drop: Any = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """(w, z) e^-drop at `time` [neurons], which is not before the time of the last call; in units of the engine."""
        early = np.flatnonzero(self.last > time)
        k = self.w0.shape[1]
        if self.state is None:
            self.which = early
            self.state = begin(self.gates, self.task, self.w0[early], self.z0[early])
        w, z, c, start = (np.array(leaf) for leaf in self.ends)
        if self.which.size:
            self.state, _ = follow(self.state, self.task, time[self.which], self.room)
            still = self.last[self.which] > time[self.which]
            mine = self.which[still]
            for whole, part in zip((w, z, c, start), _stretch(self.state), strict=True):
                whole[mine] = part[still]
        w, z = weights_at(w, z, c, start, time, drop)
        return w[:, :k], z

    def angles(self, time: np.ndarray) -> np.ndarray:
        """The progress of each neuron on its last stretch, k (t - start); 0 before it."""
        return np.linalg.norm(self.ends.c, axis=-1) * np.maximum(time - self.last, 0)


def _stretch(state: State) -> _Ends:
    return _Ends(state.w, state.z, state.c, state.time)


# The most evaluations of |f| until a level is reached, and an output that counts as infinite for a residual.
_MOST_LOOKS, _FAR = 20_000, 1e30


def _march(look: Callable, whole: _States, nets: int, h: int, until: np.ndarray, highest: float) -> np.ndarray:
    """The first time of each network with an excess >= 0, inf if there is none. `until`: the time up to which each neuron
    counts; `highest`: the log max |f| at which the search in a network stops."""
    stays = np.isfinite(until) | (_amplitude(whole.ends) <= 0)
    still = stays.reshape(nets, h).all(-1)
    last = np.where(np.isfinite(until), until, whole.last).reshape(nets, h).max(-1)
    low = np.zeros(nets)
    below, height = look(low)
    found = np.where(below >= 0, 0.0, np.inf)
    step = np.full(nets, 0.1)
    # A bracket of each time, with the excess at its ends.
    high, above = np.full(nets, np.nan), np.full(nets, np.nan)
    seeks = below < 0
    for _ in range(_MOST_LOOKS):
        if not seeks.any():
            break
        time = np.where(seeks, low + step, low)
        checkpoint = whole.state
        now, tall = look(time)
        here = seeks & (now >= 0)
        high, above = np.where(here, time, high), np.where(here, now, above)
        # States of the networks that have their bracket go back to its beginning.
        whole.state = _chosen(np.repeat(here, h)[whole.which], checkpoint, whole.state)
        seeks = seeks & ~here & ~(still & (time > last)) & ~(tall > highest)
        with np.errstate(invalid="ignore"):
            change = np.abs(np.where(np.isfinite(tall) & np.isfinite(height), tall - height, 0.5))
        step = np.where(seeks, np.where(change > 1, step / 2, np.where(change < 0.3, step * 2, step)), step)
        low, below, height = (np.where(seeks, new, old) for new, old in ((time, low), (now, below), (tall, height)))
    else:
        raise ConvergenceError(f"no answer after {_MOST_LOOKS} looks at the outputs; ask for a lower level or tolerance")
    return _closed_in(look, whole, h, low, high, below, above, found)


def _closed_in(look, whole, h, low, high, below, above, found) -> np.ndarray:
    """The times between `low` and `high` (NaN for networks without a bracket) at which the excess passes 0."""
    seeks = np.isfinite(high)
    high, slack = np.where(seeks, high, low), 4 * np.finfo(whole.task.base.dtype).eps
    for turn in range(100):
        open_ = seeks & (high - low > slack * high)
        if not open_.any():
            break
        finite = np.isfinite(above) & np.isfinite(below)
        part = np.where(finite, -below / np.where(finite & (above > below), above - below, 1), 0.5)
        part = np.where((turn % 3 == 2) | ~(part > 0) | ~(part < 1), 0.5, part)
        time = np.where(open_, low + part * (high - low), low)
        checkpoint = whole.state
        now, _ = look(time)
        here = open_ & (now >= 0)
        whole.state = _chosen(np.repeat(here, h)[whole.which], checkpoint, whole.state)
        there = open_ & ~here
        low, below = np.where(there, time, low), np.where(there, now, below)
        high, above = np.where(here, time, high), np.where(here, now, above)
    return np.where(seeks, high, found)


def _chosen(first: np.ndarray, one: Any, other: Any) -> Any:
    """The elements of `one` where `first` is true, otherwise of `other`; the two may differ in places for held edges."""
    if not first.any():
        return other
    mixed = []
    for new, old in zip(jax.tree.leaves(other), jax.tree.leaves(one), strict=True):
        whole = np.array(new)
        if old.shape != new.shape:
            pad = [(0, a - b) for a, b in zip(new.shape, old.shape, strict=True)]
            fill = other.on.shape[1] - 1 if new is other.held else 0
            old = np.pad(old, pad, constant_values=fill)
        whole[first] = old[first]
        mixed.append(whole)
    return jax.tree.unflatten(jax.tree.structure(other), mixed)


def _amplitude(ends: _Ends) -> np.ndarray:
    """|(a + z)/2|, the amplitude with which each neuron grows on its last stretch."""
    w, z, c = (np.asarray(leaf, np.float64) for leaf in ends[:3])
    k = np.linalg.norm(c, axis=-1)
    a = np.sum(w * c, axis=-1) / np.where(k > 0, k, 1)
    return np.where(k > 0, np.abs(a + z) / 2, 0)


def early_alignment(
    data: Dataset, network: Network, loss: Loss | str = "cross-entropy", *, max_events: Any = None
) -> Alignment:
    """The exact motion of every neuron as |f| -> 0, on any data with any labels, and its limit direction (16).

    While outputs are small every point pushes with g0 = g(0) (1/2 for cross-entropy, 1 for hinge, exponential and squared
    loss), so that dw/dt = z c, dz/dt = w.c with c = g0 sum_i q_i y_i x_i over the points on which the neuron is active
    (16.1). Events are in closed form (16.2), neurons slide along edges that attract them (16.3), and the limit directions
    reproduce themselves (16.5).

    - `data`: points [n, d] of any geometry, labels ±1, contradictory labels included; points at the origin do not push;
    - `network`: a `TwoLayerReLU`, ReLU or leaky, with any batch axes, w [*batch, h, d]; weights of any size, because the
      law of each neuron does not depend on their size;
    - `loss`: any `Loss` with g(0) > 0, also with a number for each point;
    - `max_events`: the most events of one neuron, by default 20 n + 1000.

    t is time, step size x step. The phase ends where outputs are no longer small: `.valid_until(tolerance)`. Event times and
    weights are accurate to rounding, some 1e-13 in float64; a neuron that passes close to the line z = -a along its push
    loses as many digits as the sum a + z does.
    At the start a neuron is active on the points with w.x > 0; a neuron on an edge goes to the side to which its push leads.
    `HypothesisError` for a loss with g(0) <= 0 and for networks of other kinds, `ConvergenceError` for more
    than `max_events` events, `ValueError` for arguments that do not fit each other and for traced ones.

    >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1])
    >>> phase = early_alignment(data, TwoLayerReLU(w=[[0.3, 0.2], [0.1, 0.3]], z=[0.1, -0.1]))
    >>> [line.split(": ")[1] for line in phase.events.of(0)]
    ['begins to slide along the edge of point 1']
    >>> phase.directions.vector[phase.groups.direction].tolist()
    [[1.0, 0.0], [0.0, 1.0]]
    """
    check_problem(data, network)
    assert isinstance(network, TwoLayerReLU)
    loss = as_loss(loss)
    if network.dim != data.dim:
        raise ValueError(f"the network has d = {network.dim} inputs but the points have d = {data.dim}")
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network, loss))):
        raise ValueError("data, network and loss must be known: events cannot be listed inside jit, grad and vmap")
    room = 20 * data.size + 1000 if max_events is None else positive_int("max_events", max_events)
    gates, task = _gates(data, network, loss)
    w, z, _, _ = _neurons(network, gates)
    state, log = follow(begin(gates, task, w, z), task, np.full(z.size, np.inf), room)
    still = np.flatnonzero((state.stop == Stop.RUNNING) | (state.spent > room))
    shape = network.z.shape
    if still.size:
        index = np.unravel_index(int(still[0]), shape)
        of = f" of {which_network(index[:-1])}" if index[:-1] else ""
        raise ConvergenceError(
            f"neuron {int(index[-1])}{of} has more than max_events = {room} events by "
            f"t = {float(state.time[still[0]] / gates.total):.6g}; raise it ({still.size} of {z.size} neurons)"
        )
    events = _as_events(log, gates, shape, state.time.dtype)
    last = np.where(np.isin(state.stop, _OPEN), np.inf, state.time)
    ends = _stretch(state)._replace(time=last)
    directions, groups = _where(data, network, gates, state, ends, events)
    return Alignment(data, network, loss, events, directions, groups, ends, room)


def _as_times(t: Any) -> np.ndarray:
    times = as_floats("t", t)
    if not bool((np.isfinite(times) & (times >= 0)).all()):
        raise ValueError(f"t must be >= 0 and finite, got {shown(t)}; where neurons point in the end is .directions")
    return times


def _outputs(w: np.ndarray, z: np.ndarray, points: np.ndarray, slope: float) -> np.ndarray:
    """f(x_i), [n]."""
    seen = w @ points.T
    return z @ np.where(seen > 0, seen, slope * seen)


def _as_network(w, z, slope: float) -> TwoLayerReLU:
    """A network whose weights may be NaN."""
    empty = TwoLayerReLU(jnp.zeros_like(w), jnp.zeros_like(z), slope)
    return eqx.tree_at(lambda net: (net.w, net.z), empty, (w, z))


def _residual(loss: Loss, data: Dataset) -> np.ndarray:
    """g(0) of every point, [n]; `HypothesisError` unless it is positive."""
    found = np.asarray(loss.residual(jnp.zeros(data.size, data.points.dtype)), np.float64)
    found = np.broadcast_to(found, (data.size,))
    if not (np.isfinite(found) & (found > 0)).all():
        i = int(np.argmax(~(np.isfinite(found) & (found > 0))))
        raise HypothesisError(
            "in early alignment every point pushes towards its label, g(0) > 0 (16)",
            f"{loss.name} loss has g(0) = {found[i]:.6g} at point {i}",
            "a loss whose residual(0) is > 0, or simulate(...)",
        )
    return found


def _gates(data: Dataset, network: TwoLayerReLU, loss: Loss) -> tuple[Gates, Task]:
    points, labels, weights = (np.asarray(leaf, np.float64) for leaf in (data.points, data.labels, data.weights))
    dtype = jnp.result_type(data.points, network.w)
    eps = float(jnp.finfo(data.points.dtype).eps)
    gates = as_gates(points, _residual(loss, data) * weights * labels, network.slope, eps)
    return gates, as_task(gates, dtype)


def _neurons(network: TwoLayerReLU, gates: Gates) -> tuple[np.ndarray, ...]:
    """w [neurons, k] in the span and z, both in units of a power of two; this power; and the part of w off the span [.,
    d]."""
    w = np.asarray(network.w, np.float64).reshape(-1, network.dim)
    z = np.asarray(network.z, np.float64).reshape(-1)
    inside = w @ gates.basis.T
    off = w - inside @ gates.basis if len(gates.basis) < network.dim else np.zeros_like(w)
    _, power = np.frexp(np.maximum(np.abs(inside).max(-1), np.abs(z)))
    return np.ldexp(inside, -power[:, None]), np.ldexp(z, -power), np.ldexp(1.0, power), off


def _as_events(log: Log, gates: Gates, shape: tuple[int, ...], dtype: Any) -> NeuronEvents:
    order = np.argsort(log.neuron, kind="stable")
    neuron, time, kind, gate = (leaf[order] for leaf in log)
    # A neuron that takes an edge and leaves it at the same time has crossed it.
    gone = np.zeros(kind.size, bool)
    slides = np.flatnonzero(kind == Kind.SLIDES)
    ahead, left = slides, np.ones(slides.size, bool)
    while left.any():
        ahead = np.minimum(ahead + 1, kind.size - 1)
        left = left & (ahead > slides) & (neuron[ahead] == neuron[slides]) & (time[ahead] == time[slides])
        same = left & (gate[ahead] == gate[slides]) & (kind[ahead] <= Kind.SLEEPS)
        gone[slides[same]] = True
        left = left & ~same & (ahead < kind.size - 1)
    neuron, time, kind, gate = (leaf[~gone] for leaf in (neuron, time, kind, gate))
    points = np.append(gates.point, np.full(1, -1))
    point = np.where(kind == Kind.TURNS, -1, points[np.minimum(gate, gates.point.size)]).astype(np.int32)
    count = np.bincount(neuron, minlength=int(np.prod(shape))).reshape(shape)
    return NeuronEvents((time / gates.total).astype(dtype), kind, point, count)


def _where(data, network, gates: Gates, state: State, ends: _Ends, events: NeuronEvents) -> tuple[Directions, Groups]:
    """The limit directions, and the fate of each neuron."""
    shape, k = network.z.shape, gates.basis.shape[0]
    undetermined = np.isin(state.stop, _OPEN)
    directed = (state.stop == Stop.ENDED) & (_amplitude(ends) > 0)
    count = gates.strength.size
    level = state.on[:, :count].astype(np.float64)
    lane, slot = np.nonzero(state.held < state.on.shape[1] - 1)
    level[lane, state.held[lane, slot]] = state.share[lane, slot]
    seen = np.zeros((state.z.size, data.size), bool)
    some = gates.gate >= 0
    seen[:, some] = np.where(gates.side[some] > 0, level[:, gates.gate[some]] > 0, level[:, gates.gate[some]] < 1)
    dead = (state.stop == Stop.RESTS) & ~seen.any(-1)
    found: list[tuple] = []
    place = np.full(state.z.size, -1, np.int32)
    slack = 1e3 * float(jnp.finfo(state.w.dtype).eps)

    def add(c, sign, level) -> int:
        """The row of the direction sign c/|c|, which is added if it is new."""
        for row, (other, other_sign, _) in enumerate(found):
            if other_sign == sign and np.linalg.norm(other - c) <= slack * np.linalg.norm(c):
                return row
        found.append((c, sign, level))
        return len(found) - 1

    packed, held = np.packbits(state.on, axis=1), np.sort(state.held, axis=1)
    rows: dict[Any, int] = {}
    for j in np.flatnonzero(directed):
        key = packed[j].tobytes(), held[j].tobytes(), float(state.sign[j])
        if key not in rows:
            rows[key] = add(np.asarray(state.c[j, :k], np.float64), key[2], level[j])
        place[j] = rows[key]
    for c, sign, levels in _by_iteration(gates, slack):
        add(c, sign, levels)
    rate = np.array([np.linalg.norm(c) for c, *_ in found])
    order = np.argsort(-rate, kind="stable")
    rank = np.empty(order.size, np.int32)
    rank[order] = np.arange(order.size)
    dtype = network.dtype
    vector = np.array([sign * c / np.linalg.norm(c) for c, sign, _ in found]).reshape(-1, k)[order] @ gates.basis
    share = np.array([levels for _, _, levels in found]).reshape(len(found), count)[order]
    activity = np.zeros((order.size, data.size))
    activity[:, some] = np.where(gates.side[some] > 0, share[:, gates.gate[some]], 1 - share[:, gates.gate[some]])
    activity = network.slope + (1 - network.slope) * activity
    directions = Directions(
        vector.astype(dtype),
        (rate[order] * gates.total).astype(dtype),
        np.array([sign for _, sign, _ in found], dtype)[order],
        activity.astype(dtype),
        np.bincount(place[place >= 0], minlength=order.size).astype(np.int32)[order],
    )
    stopped = events.kind == Kind.STOPS
    owner = np.repeat(np.arange(state.z.size), events.count.reshape(-1))[stopped]
    until, point = np.full(state.z.size, np.inf, dtype), np.full(state.z.size, -1, np.int32)
    until[owner], point[owner] = events.time[stopped], events.point[stopped]
    until[undetermined & ~np.isfinite(until)] = 0
    place = np.where(place >= 0, rank[np.maximum(place, 0)] if rank.size else -1, -1).astype(np.int32)
    rests = ~(directed | dead | undetermined)
    parts = (place, dead, rests, undetermined, until, point)
    return directions, Groups(*(np.asarray(part).reshape(shape) for part in parts))


# The number of starts of the iteration, and of its rounds.
_SEEDS, _ROUNDS = 64, 64


def _by_iteration(gates: Gates, slack: float):
    """Directions off all edges that reproduce themselves, (c, sign, H of the gates) each: v <- sign c(A(v)) / |c|."""
    seeds = gates.normal[:_SEEDS]
    for sign in (1.0, -1.0):
        v = np.concatenate([seeds, -seeds])
        level = np.zeros((len(v), gates.strength.size))
        for _ in range(_ROUNDS):
            before, level = level, (v @ gates.normal.T > 0).astype(np.float64)
            c = gates.base + (level * gates.strength) @ gates.normal
            size = np.linalg.norm(c, axis=1, keepdims=True)
            v = np.where(size > slack, sign * c / np.where(size > slack, size, 1), 0)
            if (before == level).all():
                break
        kept = (before == level).all(1) & (size[:, 0] > slack) & (np.abs(v @ gates.normal.T) > slack).all(1)
        _, first = np.unique(level[kept], axis=0, return_index=True)
        yield from ((c[kept][i], sign, level[kept][i]) for i in first)
