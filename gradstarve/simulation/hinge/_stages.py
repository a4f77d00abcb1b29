"""From saddle to saddle: the plateaus of a hinge flow from small weights, when each is left, and by whom.

The margins that reach 1 cut a run into stretches, on which the pull of every point that is not held is constant. On such a
stretch [a, b] the loss falls by D, and at its end with the speed v, at which all of D would take the time D/v. Where the
stretch is longer than twice that, b - a > 2 D/v, the loss stands for longer than it falls: a plateau. If the loss falls
evenly, b - a is D/v; if neurons move it that grow like e^(k t), D = v (1 - e^(-2 k (b - a)))/(2 k), so that these are the
stretches on which they grow by a factor of 2.22 or more. In between are the falls, in which one margin after the other
reaches 1. A stretch like this is part of the fall too if most of its speed is of neurons that have ended a plateau before:
they still grow, and do so slowly.

While the loss stands, the neurons that have grown rest: up to the outputs of small ones a plateau is a stationary point of
the flow, a saddle, with residuals g_i in [0, 1] of its points; a small neuron grows like e^(k t), k = |c| with these
residuals (16.1), and the plateau ends when the first has grown up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from gradstarve.simulation.hinge._decide import Judge
from gradstarve.simulation.hinge._passage import MOMENT
from gradstarve.simulation.hinge._run import EventKind, State, Stop

# Of the mover's equal share 1/h, from which on a neuron counts as one that moved the loss.
_PART = 0.5


class Stage(NamedTuple):
    """A plateau of the loss, and how it is left: the loss stands from `start` to `exit`, the first margin that reaches 1
    after it (inf for the rest at the end of a run).

    - `loss`, `error`, `residual` [n]: those of the saddle, halfway through; residuals g_i are 1 below a margin of 1, 0
      above, and in between where a margin is held at 1;
    - `rate`: k = |c| of the fastest of the neurons that end it, with which it grows there; `neurons`: which they are, j;
      `share` [h], how much of the speed of the loss is each neuron's at the exit (those of 1/(2h) and more are listed);
    - `learnt`: the points whose margins reach 1 from `exit` to the next plateau, in this order.
    """

    start: float
    exit: float
    loss: float
    error: float
    residual: np.ndarray
    rate: float
    share: np.ndarray
    neurons: tuple[int, ...]
    learnt: tuple[int, ...]

    def __repr__(self) -> str:
        if np.isinf(self.exit):
            return f"Stage(from t = {self.start:.6g} on, loss {self.loss:.4g})"
        return (
            f"Stage(t = {self.start:.6g} to {self.exit:.6g}, loss {self.loss:.4g}, left at rate {self.rate:.4g} by neurons "
            f"{list(self.neurons)}, which learn points {list(self.learnt)})"
        )


class _Moment(NamedTuple):
    """A network at one time: loss, error, residuals [n], the speed of the loss and its part of each neuron [h], and the
    rate of each, |c_j| [h]."""

    loss: float
    error: float
    residual: np.ndarray
    speed: float
    parts: np.ndarray
    rates: np.ndarray


def _moment(judge: Judge, state: State, rests: bool) -> _Moment:
    w, z = (np.asarray(leaf[0], np.float64) for leaf in (state.w, state.z))
    eps = float(np.finfo(np.asarray(state.z).dtype).eps)
    live, held = np.asarray(state.live[0]), np.asarray(state.held[0])
    _, residual, share = judge.smallest(w, z, eps) if rests else judge.smallest(w, z, eps, live, np.flatnonzero(held))
    margins = judge.y * (z @ (judge.gates(w @ judge.x.T > 0) * (w @ judge.x.T)))
    force = (share * residual * judge.q * judge.y) @ judge.x
    rates = np.linalg.norm(force, axis=1)
    # In units of the largest neuron: squares of weights of 1e-200 are no floats.
    unit = max(float(np.abs(w).max()), float(np.abs(z).max())) or 1.0
    parts = (z / unit * rates) ** 2 + np.sum(w / unit * force, axis=1) ** 2
    loss, error = judge.q @ np.maximum(1 - margins, 0), judge.q @ (0.5 - 0.5 * np.tanh(margins / 2))
    return _Moment(float(loss), float(error), residual, float(parts.sum()) * unit**2, parts, rates)


def stages(judge: Judge, visits: Callable, events: tuple[np.ndarray, ...], end: float, settled: bool) -> list[Stage]:
    """The plateaus of one network. `visits(times)`: its states at rising times, a batch of one; `events`: time, kind and
    point of what happened; `end`: the last time; `settled`: whether it rests there."""
    time, kind, point = (np.asarray(leaf) for leaf in events)
    eps = np.finfo(time.dtype).eps
    learnt = kind == EventKind.LEARNT
    times, points = time[learnt].astype(float), point[learnt]
    first = np.diff(times, prepend=-np.inf) > MOMENT * eps * times
    cuts = np.concatenate([[0.0], times[first & (times > 0)]])
    # The beginning of each stretch, its middle, and the moment before its end.
    middles, befores = (cuts[:-1] + part * np.diff(cuts) for part in (0.5, 1 - np.sqrt(eps)))
    asked = np.column_stack([cuts[:-1], middles, befores]).reshape(-1)
    last = np.array([max(end, cuts[-1])] if settled else [])
    states: Iterator[State] = visits(np.maximum.accumulate(np.concatenate([asked, last])))
    seen = [_moment(judge, state, place == asked.size) for place, state in enumerate(states)]
    found: list[Stage] = []
    grown = np.zeros(seen[0].parts.size if seen else 0, bool)
    for place, (a, b) in enumerate(pairwise(cuts)):
        if len(seen) < 3 * place + 3:
            break
        begins, half, ends = seen[3 * place : 3 * place + 3]
        stands = (b - a) * ends.speed > 2 * (begins.loss - ends.loss)
        share = ends.parts / (ends.parts.sum() or 1.0)
        if stands and share[~grown].sum() > 0.5:
            movers = np.flatnonzero(share >= _PART / share.size)
            grown[movers] = True
            rate = float(half.rates[movers].max())
            found.append(Stage(float(a), float(b), *half[:3], rate, share, tuple(movers.tolist()), ()))
    if settled and len(seen) == asked.size + 1:
        rest = seen[-1]
        nothing = np.zeros(rest.rates.size)
        found.append(Stage(float(cuts[-1]), np.inf, *rest[:3], 0.0, nothing, (), ()))
    return _with_points(_merged(found, float(np.sqrt(eps))), times, points)


def _merged(found: list[Stage], slack: float) -> list[Stage]:
    """Plateaus of one height are one: a margin that small neurons have moved across 1 does not end it."""
    whole: list[Stage] = []
    for stage in found:
        if whole and abs(whole[-1].loss - stage.loss) <= slack * whole[0].loss:
            stage = stage._replace(start=whole.pop().start)
        whole.append(stage)
    return whole


def _with_points(found: list[Stage], times: np.ndarray, points: np.ndarray) -> list[Stage]:
    following = [*(stage.start for stage in found[1:]), np.inf][: len(found)]
    slack = MOMENT * np.finfo(times.dtype).eps

    def learnt(stage: Stage, until: float) -> tuple[int, ...]:
        mine = points[(times >= stage.exit * (1 - slack)) & (times <= until * (1 + slack))]
        return tuple(dict.fromkeys(mine.tolist()))

    return [stage._replace(learnt=learnt(stage, until)) for stage, until in zip(found, following, strict=True)]


def visited(states: Iterator[State]) -> Iterator[State]:
    """States up to one that cannot be followed."""
    for state in states:
        if int(state.stop[0]) != Stop.DONE:
            return
        yield state
