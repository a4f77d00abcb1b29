"""How time grows with each size: `simulate`, `solve`, `simulate_hinge_exact` and the starvation report, one at a time.

Times are those of the processor, of all threads together, which other programs beside this one change little: the least
of several turns, without compilation. `exponent` is the slope of log(time) over log(value) between the two largest
values, where what does not grow counts least; `stated` is the exponent that the algorithm has, which the slope may reach
and not exceed but for noise.

- `simulate`: a step of a network takes 4 n h d operations, and there are B T of them.
- `solve`: on antipodal classes a quarter of the neurons changes its class, and each such event looks at all of them (h^2).
  After that every time takes work for each class and network, whose pieces are searched; the logits of n points are n
  numbers.
- `simulate_hinge_exact`: an event looks at h n (neuron, point) pairs of d coordinates. Neurons and points cross in turn, so
  that there are more events with more of either.
- the report: an eigenbasis of [n, n] takes n^3, and the products of gradients n^2 P.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradstarve as gs

Row = dict[str, Any]
TURNS = 5
# Seconds after which a value is not timed again.
BUDGET = 3.0


class Task(NamedTuple):
    """What is timed: `make(**sizes)` gives the call; `base` sizes; for each size that grows its values and its exponent."""

    make: Callable[..., Callable[[], Any]]
    base: dict[str, int]
    grows: dict[str, tuple[tuple[int, ...], int]]


def _networks(B: int, h: int, d: int, scale: float) -> Any:
    return gs.init_two_layer(jax.random.key(1), B, h, d, scale, scale)


def _line(n: int, d: int) -> Any:
    """n points of two antipodal classes, which all have one place for each class."""
    direction = np.random.default_rng(0).normal(size=d)
    signs = np.where(np.arange(n) % 2, -1.0, 1.0)
    points = signs[:, None] * direction / np.linalg.norm(direction)
    return gs.Dataset(points.astype(np.float32), signs.astype(np.float32))


def _simulate(B: int, h: int, d: int, n: int, T: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    data = gs.Dataset(rng.normal(size=(n, d)).astype(np.float32), np.where(np.arange(n) % 2, -1, 1))
    networks, descent = _networks(B, h, d, 0.3), gs.GradientDescent(0.05)
    return lambda: gs.simulate(data, networks, "cross-entropy", descent, T, record_every=50).recorded


def _solve(B: int, h: int, d: int, n: int, T: int) -> Callable[[], Any]:
    data, networks = _line(n, d), _networks(B, h, d, 0.05)
    times = np.linspace(0.0, 50.0, T)
    return lambda: gs.solve(data, networks, "cross-entropy").logits(times)


def _hinge(B: int, h: int, d: int, n: int) -> Callable[[], Any]:
    data = gs.datasets.cones(jax.random.key(6), d, points_per_class=n // 2, opening=0.4, spread=0.3)
    networks = _networks(B, h, d, 0.05)
    return lambda: gs.simulate_hinge_exact(data, networks, [30.0]).logits()


def _report(n: int, P: int) -> Callable[[], Any]:
    rng = np.random.default_rng(0)
    labels = np.where(np.arange(n) % 2, -1.0, 1.0)
    jacobian = rng.normal(size=(n, P)).astype(np.float32)
    groups = np.arange(n) % 4 < 3
    return lambda: gs.starvation_report.from_jacobian(jacobian, labels, groups).times


TASKS = {
    "simulate": Task(
        _simulate,
        {"B": 512, "h": 16, "d": 4, "n": 8, "T": 500},
        {
            "B": ((512, 2048, 8192), 1),
            "h": ((16, 64, 256), 1),
            "d": ((4, 16, 64), 1),
            "n": ((8, 32, 128), 1),
            "T": ((500, 2500, 12_500), 1),
        },
    ),
    "solve": Task(
        _solve,
        {"B": 8, "h": 64, "d": 8, "n": 4, "T": 100},
        {
            "B": ((64, 512, 4096), 1),
            "h": ((250, 1000, 4000), 2),
            "d": ((8, 64, 512), 1),
            "n": ((4, 64, 1024), 1),
            "T": ((100, 1000, 10_000), 1),
        },
    ),
    "simulate_hinge_exact": Task(
        _hinge,
        {"B": 32, "h": 8, "d": 8, "n": 8},
        {"B": ((32, 256, 2048), 1), "h": ((8, 16, 32, 64), 2), "d": ((8, 32, 128), 1), "n": ((4, 8, 16), 3)},
    ),
    "starvation_report": Task(
        _report, {"n": 100, "P": 300}, {"n": ((100, 200, 400), 3), "P": ((1000, 10_000, 100_000), 1)}
    ),
}


def measure(quick: bool) -> list[Row]:
    """A row for each task, size that grows, and value; the last one of each has the exponents."""
    with jax.enable_x64(False):
        return [row for name, task in TASKS.items() for size in task.grows for row in grown(name, task, size, quick)]


def grown(name: str, task: Task, size: str, quick: bool) -> list[Row]:
    """The rows of one size of a task."""
    values, stated = task.grows[size]
    rows = []
    for value in values[:2] if quick else values:
        seconds = least(task.make(**task.base | {size: value}), 2 if quick else TURNS)
        rows.append({"task": name, "grows": size, "value": value, "processor_seconds": seconds})
    return [*rows[:-1], rows[-1] | {"exponent": exponent(rows[-2:]), "stated": stated}]


def least(run: Callable[[], Any], turns: int) -> float:
    """Seconds of the processor for the cheapest of several calls, after one that compiles."""
    jax.block_until_ready(jnp.asarray(run()))
    found, begin = [], time.perf_counter()
    while len(found) < turns and (not found or time.perf_counter() - begin < BUDGET):
        start = time.process_time()
        jax.block_until_ready(jnp.asarray(run()))
        found.append(time.process_time() - start)
    return min(found)


def exponent(rows: list[Row]) -> float:
    """The slope of log(time) over log(value) between two rows."""
    first, last = rows
    return math.log(last["processor_seconds"] / first["processor_seconds"]) / math.log(last["value"] / first["value"])
