"""The way of a batch of networks through segments and slides, and who is held after an event (12.1).

After an event the pulls u_i = q_i g_i of the points at m_i = 1 are those in [0, q_i] with dm_i/dt >= 0 where u_i = 0, <= 0
where u_i = q_i, and 0 in between. With dm/dt = K u + b and K = J J' this is the shortest gradient among those that the kinks
leave open: the least squares of |J_held' u + J_below' q| in a box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.problem import Dataset
from gradstarve.simulation.engines import _emission as emission
from gradstarve.simulation.hinge._hinge_slide import slide
from gradstarve.simulation.hinge._run import Kind, State, Stop, Task, begin, run
from gradstarve.simulation.hinge._segment import ROUNDING

# What counts as at 1, in units of rounding.
AT_ONE = 1e4
# Calls of `slide` without an event after which nothing is expected to come.
MOST_IDLE = 20
# Networks that one program follows at a time. More of them wait for each other longer than they gain, and every other
# number is another program to compile.
CHUNK, SMALL = 64, 8


class Told(NamedTuple):
    """Events of many networks as they came: the number of the network, time, kind, neuron, point, [events] each."""

    network: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    neuron: np.ndarray
    point: np.ndarray


@cache
def _programs() -> tuple[Any, Any]:
    """`run` and `slide`, compiled in half of the time that XLA would take by itself; they run as fast."""
    options = emission.quick()
    return jax.jit(run, compiler_options=options), jax.jit(slide, static_argnums=2, compiler_options=options)


def follow(
    data: Dataset, networks: Any, times: np.ndarray, room: int, keep: bool, advance: Callable[[int], None]
) -> tuple[State, Told]:
    """A batch of networks [b] through segments and slides to the last of the rising `times`, the last of which may be inf,
    or to where they can not be followed; and their events, those of one network in order. At most `room` events each;
    `keep` whether networks are recorded too. `advance` gets how many networks are through."""
    run, slide = _programs()
    # Few numbers of rows, as each is another program to compile.
    rows = max(4, 4 ** math.ceil(math.log(times.size, 4)))
    padded = np.concatenate([times, np.full(rows - times.size, times[-1])])
    task = Task(data.points, data.labels, data.weights, jnp.asarray(padded), jnp.asarray(times.size, jnp.int32))
    state = begin(networks, task, np.int32(room), keep)
    size = SMALL if len(state.stop) <= SMALL else CHUNK
    told = [Told(np.zeros(0, int), np.zeros(0, networks.dtype), *(np.zeros(0, np.int32) for _ in range(3)))]
    idle = np.zeros(len(state.stop), int)
    while True:
        stop, held = np.asarray(state.stop), np.asarray(state.held).sum(1)
        undecided = np.flatnonzero(stop == Stop.MARGIN_SLIDES)
        if undecided.size:
            state = _decided(state, undecided, size, task, told)
            continue
        running = stop == Stop.RUNNING
        advance(int((~running).sum()))
        if not running.any():
            seen, weights = jax.tree.map(lambda leaf: leaf[:, : times.size], (state.seen, state.weights))
            return state._replace(seen=seen, weights=weights), Told(*map(np.concatenate, zip(*told, strict=True)))
        # All are sent on their way before anybody is waited for, so that they share the processor.
        sent = []
        for most in np.unique(_slots(held[running])):
            for part, padded in _chunks(np.flatnonzero(running & (_slots(held) == most)), size):
                start = _taken(state, padded)
                sent.append((part, padded, run(start, task) if most == 0 else slide(start, task, min(int(most), data.size))))
        before = np.asarray(state.record)
        for part, padded, after in sent:
            told.append(_told(after, part))
            # Many steps without an event or a record: a limit that is approached for ever.
            nothing = (np.asarray(after.count) == 0) & (np.asarray(after.record) == before[padded])
            idle[part] = np.where(nothing[: part.size], idle[part] + 1, 0)
            lost = (idle[padded] > MOST_IDLE) & (np.asarray(after.stop) == Stop.RUNNING)
            after = after._replace(stop=jnp.where(lost, jnp.int32(Stop.LOST), after.stop))
            state = _put(state, jnp.asarray(padded), after)


def _chunks(which: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`which` in parts, and each part filled up to `size` with copies of its first."""
    for first in range(0, which.size, size):
        part = which[first : first + size]
        yield part, np.concatenate([part, np.full(size - part.size, part[0])])


def _slots(held: np.ndarray) -> np.ndarray:
    """Room for so many held margins: none, 1, 4, 16, ..."""
    return np.where(held > 0, 4 ** np.ceil(np.log(np.maximum(held, 1)) / np.log(4) - 1e-9).astype(int), 0)


@jax.jit
def _taken(state: State, index: Any) -> State:
    return jax.tree.map(lambda leaf: leaf[index], state)


@jax.jit
def _put(state: State, index: Any, part: State) -> State:
    return jax.tree.map(lambda whole, new: whole.at[index].set(new), state, part)


def _told(after: State, which: np.ndarray) -> Told:
    """The logs of the first networks of `after`, which are those of number `which`."""
    log = [np.asarray(leaf)[: which.size] for leaf in after.log]
    count = np.asarray(after.count)[: which.size]
    there = np.arange(log[0].shape[1]) < count[:, None]
    network = np.broadcast_to(which[:, None], there.shape)[there]
    return Told(network, *(leaf[there] for leaf in log))


@jax.jit
@partial(jax.vmap, in_axes=(0, None))
def _speeds(state: State, task: Task) -> tuple[Array, Array]:
    """y_i d f(x_i) / d theta of a network, [n, h (d + 1)], and its margins."""
    x, y = task[:2]
    seen = jnp.where(state.active, y, 0).T  # [n, h]
    edge = jnp.einsum("hd,nd->nh", state.w, x, precision="highest")
    slopes = jnp.concatenate([(seen * state.z)[:, :, None] * x[:, None, :], (seen * edge)[:, :, None]], axis=2)
    return slopes.reshape(y.size, -1), jnp.sum(seen * edge * state.z, axis=1)


def decide(slopes: np.ndarray, margins: np.ndarray, live: np.ndarray, held: np.ndarray, q: np.ndarray):
    """Which points are below 1 and which are held from now on, [n] each.

    `slopes`: y_i d f(x_i)/d theta, [n, weights]; `margins`, `live`, `held` and the weights `q`: [n]. All margins that are at
    1, to the rounding of a run, take part.
    """
    from scipy.optimize import lsq_linear

    eps = np.finfo(slopes.dtype).eps
    at_one = np.flatnonzero(held | (np.abs(margins - 1) <= AT_ONE * eps))
    others = live & ~held
    others[at_one] = False
    mine, size = slopes[at_one], q[at_one]
    rest = (q * others) @ slopes
    strength = np.sum(mine**2, axis=1)
    if at_one.size == 1:
        share = np.clip(-(mine @ rest) / np.where(strength > 0, strength * size, 1), 0, 1)
    else:
        # In shares of q, so that the box is the same for all.
        columns = (mine * size[:, None]).T
        scale = np.max(np.abs(columns)) or 1.0
        share = lsq_linear(columns / scale, -rest / scale, (0, 1), method="bvls", tol=4 * eps).x
    least = ROUNDING * eps
    live, held = others.copy(), np.zeros_like(others)
    live[at_one], held[at_one] = share >= 1 - least, (share > least) & (share < 1 - least)
    return live, held


def _decided(state: State, which: np.ndarray, size: int, task: Task, told: list[Told]) -> State:
    """`state` where those networks that stopped for it know who is held from now on."""
    live, held, leaving, stop, left = (
        np.array(leaf) for leaf in (state.live, state.held, state.leaving, state.stop, state.left)
    )
    time, last = np.asarray(state.time), _last_margins(told, which)
    q, events, lost = np.asarray(task.q), [], []
    for part, padded in _chunks(which, size):
        slopes, margins = map(np.asarray, _speeds(_taken(state, padded), task))
        for number, b in enumerate(part):
            below, slides = decide(slopes[number], margins[number], live[b], held[b], q)
            for point in np.flatnonzero((below != live[b]) | (slides != held[b])):
                sides = map(bool, (live[b, point], held[b, point], below[point], slides[point], last.get(b) == point))
                kinds = _changes(*sides)
                events += [(b, time[b], kind, -1, point) for kind in kinds]
                left[b] -= len(kinds)
            # Pulls out of their box, and yet there are no others: rounding has the last word.
            if held[b].any() and last.get(b, -1) < 0 and (below == live[b]).all() and (slides == held[b]).all():
                lost.append(b)
            leaving[b] = ~slides & (held[b] | (np.abs(margins[number] - 1) <= AT_ONE * np.finfo(q.dtype).eps))
            live[b], held[b] = below, slides
    stop[which] = np.where(left[which] < 0, Stop.FULL, Stop.RUNNING)
    stop[lost] = Stop.LOST
    if events:
        columns = zip(*events, strict=True)
        told.append(Told(*(np.array(column, like.dtype) for column, like in zip(columns, told[0], strict=True))))
    new = {"live": live, "held": held, "leaving": leaving, "stop": stop, "left": left}
    return state._replace(**{name: jnp.asarray(leaf) for name, leaf in new.items()})


def _last_margins(told: list[Told], which: np.ndarray) -> dict[int, int]:
    """The point of the last event of each network of `which`, -1 where that was an edge."""
    found: dict[int, int] = {}
    for part in reversed(told):
        mine = np.isin(part.network, which)
        points = np.where(part.neuron < 0, part.point, -1)[mine].tolist()
        for b, point in zip(part.network[mine][::-1].tolist(), points[::-1], strict=True):
            found.setdefault(b, point)
        if len(found) == which.size:
            break
    return found


def _changes(was_live: bool, was_held: bool, live: bool, held: bool, told: bool) -> list[Kind]:
    """The events of a point that is found on another side; `told`: its arrival at 1 is in the log already."""
    if was_held:
        return [Kind.FORGOTTEN if live else Kind.FREED]
    arrival = [] if told and held else [Kind.LEARNT if was_live else Kind.FORGOTTEN]
    return arrival + [Kind.HELD] * held
