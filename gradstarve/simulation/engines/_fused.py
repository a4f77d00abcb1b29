"""The fast simulator for CPUs: networks in lanes, a chunk of lanes at a time, the whole run of a chunk in one function.

Against the reference it saves the dispatch of every operation of every step, the passes over memory (a chunk's weights
stay in the cache for all its steps), and the padding of small axes: h, d and n of a small network fill no vector, so the
vectors run over networks. `lanes` has the step, `emission` what XLA:CPU must be told. Chunks are shared out to the
processor's cores by threads, since XLA runs one loop on one core. Numbers differ from the reference's by rounding only.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache, lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.ground import is_concrete
from gradstarve.problem import (
    LOSSES,
    Dataset,
    GradientDescent,
    Loss,
    Network,
    StochasticGradientDescent,
    TwoLayerReLU,
)
from gradstarve.simulation._span import Lifted, dimensions
from gradstarve.simulation.engines import _emission as emission
from gradstarve.simulation.engines import _threefry as threefry
from gradstarve.simulation.engines._lanes import (
    Hyper,
    Lanes,
    Points,
    Rule,
    enter,
    leave,
    listed_outputs,
    pre_activations,
    rule_for,
    stacked_outputs,
    step,
)
from gradstarve.simulation.engines._reference import State, draw_point

# Lanes of a chunk in the listed layout, in steps of a half vector. With fewer the compiler unrolls what it had better not,
# more than the most gain nothing.
LEAST_LANES, MOST_LANES, HALF_VECTOR = 40, 112, 8
# Memory of the nearest cache, and the distance at which addresses compete for the same places in it, in bytes.
NEAREST_CACHE, ALIAS = 2**15, 2**12
# So few networks are better trained each by itself than beside empty lanes.
ALONE = 4
# Sums are written out for up to this many products of one coordinate and one point, and up to this many points. The time
# to compile them grows with the square of the points: 1.5 s for 24 points, 3 s for 40, 6 s for 60, 26 s for 110; matrix
# products take 0.5 s. Beyond these sizes matrix products run as fast, save in one and two dimensions, where they take up
# to twice as long. A draw among written-out points costs the compiler 0.04 s per point.
MOST_LISTED, MOST_POINTS_LISTED, MOST_POINTS_DRAWN = 256, 24, 64
# What a chunk of the stacked layout may keep in the cache, in bytes, and how many networks it has at most.
CACHE, MOST_STACKED = 2**18, 64
# Networks this wide fill the vectors with their own neurons, which lie next to each other when a lane has no neighbour.
WIDE = 128
# Draws that are made at once.
MOST_DRAWS = 1024
# The only sum of a stage, if it reads and writes more bytes than this, would be shared out to threads by XLA, which a
# single function can not hold.
SHARED = 2**19


def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
    """Why this engine can not run the problem, in words, or None if it can."""
    if not isinstance(data, Dataset) or type(network) is not TwoLayerReLU:
        return f"it trains a TwoLayerReLU on a Dataset, got {type(network).__name__} on {type(data).__name__}"
    if type(loss) not in LOSSES.values():
        return f"it knows the losses {', '.join(LOSSES)}, got {type(loss).__name__}"
    if not isinstance(dynamics, GradientDescent | StochasticGradientDescent):
        return f"it knows GradientDescent and StochasticGradientDescent, got {type(dynamics).__name__}"
    if isinstance(dynamics, StochasticGradientDescent) and dimensions(data, draws=True) > MOST_LISTED:
        have = dimensions(data, draws=True)
        return f"with one point a step it takes at most {MOST_LISTED} dimensions, the data have {have}"
    return None


class Plan(NamedTuple):
    """How a run is laid out and compiled; everything in it is a constant of the program."""

    lanes: int  # networks of a chunk
    listed: bool  # layout of the weights, see `lanes`
    whole: bool  # one function for the whole run of a chunk, or for the steps between two records
    marked: bool  # whether XLA is told
    draws: str  # "" for the full batch; who draws the point: "lanes" every step, or "record" all up to the next record
    records: int
    every: int
    keep: bool
    rule: Rule
    loss: type[Loss]

    @property
    def needs_memory(self) -> bool:
        """Whether what the optimiser remembers takes part: velocities, or the keys of the draws."""
        return self.rule.momentum or bool(self.draws)


def advance(
    state: State, data: Dataset, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool
) -> tuple[State, Float[Array, "records b n"], Network | None]:
    """What `reference.advance` does, to rounding, for problems that are not `unsupported`.

    Momentum that is zero for every network leaves the velocities in `state` as they were: nothing reads them.
    """
    leaves = jax.tree.leaves((state, data, dynamics))
    concrete = all(is_concrete(leaf) for leaf in leaves)
    on_cpu = concrete and all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())
    (b,) = state.networks.batch_shape
    plan = _plan(state, data, loss, dynamics, (records, every, keep_networks), on_cpu and emission.available())
    chunks = -(-b // plan.lanes)
    per_part = -(-chunks // (min(cores(), chunks) if on_cpu else 1))
    parts = -(-chunks // per_part)
    moving = (state.networks, state.memory if plan.needs_memory else None, dynamics)
    points = Points(data.points, data.labels, data.weights, data.gram if isinstance(data, Lifted) else None)
    fixed = (state.step, points)
    pieces: list[Any] = [(*piece, *fixed) for piece in _split(moving, parts, per_part * plan.lanes)]
    if not concrete:
        done = [_run(plan, *pieces[0])]
    else:
        program = _program(plan, *_signature(pieces[0]))
        others = [_pool().submit(lambda piece: jax.block_until_ready(program(*piece)), piece) for piece in pieces[1:]]
        done = [jax.block_until_ready(program(*pieces[0])), *(other.result() for other in others)]
    networks, velocity, logits, kept = _join(done, b)
    after = State(networks, velocity if plan.rule.momentum else state.memory, state.step + records * every)
    return after, logits, kept


@partial(jax.jit, static_argnums=(1, 2))
def _split(moving: Any, parts: int, each: int) -> list[Any]:
    """`parts` pieces of `each` networks; zeros, which training leaves alone, fill the last."""

    def cut(leaf, index):
        piece = leaf[index * each : (index + 1) * each]
        missing = each - piece.shape[0]
        if not missing:
            return piece
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jnp.concatenate([piece, jnp.broadcast_to(leaf[:1], (missing,))])
        return jnp.concatenate([piece, jnp.zeros((missing, *leaf.shape[1:]), leaf.dtype)])

    return [jax.tree.map(partial(cut, index=index), moving) for index in range(parts)]


@partial(jax.jit, static_argnums=1)
def _join(done: list[Any], b: int) -> tuple[Any, ...]:
    """The pieces' results as those of the first `b` networks: networks, velocities, records, recorded networks."""

    def join(axis: int, *leaves):
        return jax.lax.slice_in_dim(jnp.concatenate(leaves, axis), 0, b, axis=axis)

    return tuple(
        jax.tree.map(partial(join, axis), *(result[index] for result in done)) for index, axis in enumerate((0, 0, 1, 1))
    )


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for the parts of a run that the caller's own does not take; kept, because starting them takes milliseconds."""
    return ThreadPoolExecutor(max(1, cores() - 1), "gradstarve")


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _plan(state: State, data: Dataset, loss: Loss, dynamics: Any, run: tuple[int, int, bool], marked: bool) -> Plan:
    assert isinstance(state.networks, TwoLayerReLU)
    (b,), h, itemsize = state.networks.batch_shape, state.networks.width, state.networks.dtype.itemsize
    n, d = data.points.shape
    stochastic = isinstance(dynamics, StochasticGradientDescent)
    rule = rule_for(dynamics)
    small = n * d <= MOST_LISTED and n <= (MOST_POINTS_DRAWN if stochastic else MOST_POINTS_LISTED)
    lanes = _lanes(b, h * itemsize, (2 + rule.momentum) * (d + 1) + (1 if stochastic else n))
    # Sums that are the only one of their stage, by the number of their terms.
    alone = [d] * (stochastic or n == 1) + [n] * (d == 1 and not stochastic)
    fits = all((terms + 1) * h * lanes * itemsize < SHARED for terms in alone)
    listed = stochastic or (small and (fits or not marked))
    if listed:
        width = 1 if b <= ALONE else lanes
    else:
        room = 1 if h >= WIDE else CACHE // (2 * n * h * itemsize)
        # A power of two, and no more than there are networks to fill.
        width = min(1 << max(0, min(MOST_STACKED, room).bit_length() - 1), 1 << (b - 1).bit_length())
        fits = 2 * max(n, d) * h * width * itemsize < SHARED
    marked = marked and fits
    draws = ""
    if stochastic:
        draws = "lanes" if small and threefry.knows(state.memory) else "record"
    return Plan(width, listed, marked and listed and small, marked, draws, *run, rule, type(loss))


def _lanes(b: int, column: int, arrays: int) -> int:
    """Lanes of a chunk for `b` networks in the listed layout: `arrays` arrays of `column` bytes a lane are at work in turn.

    As many as the nearest cache holds, where the arrays do not lie so that they drive each other out of it (a third of the
    speed at 16 neurons and 64 lanes), and of these a number that leaves few lanes empty when two cores share the chunks.
    """
    most = max(LEAST_LANES, min(MOST_LANES, NEAREST_CACHE // (column * arrays)))
    choices = [lanes for lanes in range(most, LEAST_LANES - 1, -1) if lanes % HALF_VECTOR == 0]
    choices = [lanes for lanes in choices if column * lanes % ALIAS] or choices
    return min(choices, key=lambda lanes: -(-b // (2 * lanes)) * lanes)


def _signature(piece: Any) -> tuple[Any, Any]:
    """What a program is compiled for: shapes, types and device of its arguments, in a form that can be looked up."""
    leaves, tree = jax.tree.flatten(piece)
    device = leaves[0].devices().copy().pop()
    return tree, tuple((leaf.shape, leaf.dtype, device) for leaf in leaves)


@lru_cache(maxsize=128)
def _program(plan: Plan, tree: Any, described: tuple) -> Any:
    """The compiled run. Should XLA fail on the marks for these shapes, compiled without them."""
    leaves = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=jax.sharding.SingleDeviceSharding(device))
        for shape, dtype, device in described
    ]
    arguments = jax.tree.unflatten(tree, leaves)
    try:
        with emission.marked(plan.marked) as options:
            return jax.jit(partial(_run, plan), compiler_options=options).lower(*arguments).compile()
    except jax.errors.JaxRuntimeError:
        if not plan.marked:
            raise
    return _program(plan._replace(marked=False, whole=False), tree, described)


def _run(plan: Plan, networks: TwoLayerReLU, memory: Any, dynamics: Any, start: Array, points: Points):
    """All chunks, one after the other: networks, velocities, logits [records, b, n], recorded networks [records, b]."""
    b = networks.z.shape[0]
    count = b // plan.lanes
    everyone = jax.tree.map(lambda leaf: leaf.reshape(count, plan.lanes, *leaf.shape[1:]), (networks, memory, dynamics))

    def chunk(mine):
        networks, memory, dynamics = mine
        velocity = memory if plan.rule.momentum else None
        lanes = enter(networks, velocity, plan.listed)
        run = Run(plan, points, _hyper(dynamics), memory if plan.draws else None)
        lanes, (outputs, kept) = run(lanes, start.astype(jnp.uint32))
        trained, velocity = leave(lanes)
        return trained, velocity, outputs, jax.vmap(leave)(kept)[0] if plan.keep else None

    trained, velocity, outputs, kept = jax.lax.map(chunk, everyone)
    trained, velocity = jax.tree.map(lambda leaf: leaf.reshape(b, *leaf.shape[2:]), (trained, velocity))
    # [chunks, records, n, lanes] -> [records, b, n]
    logits = jnp.moveaxis(outputs, (0, 1, 2, 3), (1, 0, 3, 2)).reshape(plan.records, b, -1)
    # [chunks, records, lanes, ...] -> [records, b, ...]
    kept = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(plan.records, b, *leaf.shape[3:]), kept)
    return trained, velocity, logits, kept


def _hyper(dynamics: Any) -> Hyper:
    if isinstance(dynamics, StochasticGradientDescent):
        return Hyper(dynamics.step_size)
    return Hyper(dynamics.step_size, dynamics.momentum, dynamics.weight_decay)


class Run(NamedTuple):
    """The run of one chunk of lanes."""

    plan: Plan
    points: Points
    hyper: Hyper
    keys: Any  # of the draws, [L]; None for the full batch

    def __call__(self, lanes: Lanes, start: Array) -> tuple[Lanes, tuple[Array, Any]]:
        """The lanes after all records, the outputs [records, n, L] and, if they are kept, the lanes at every record."""
        plan = self.plan

        def record(carry, _):
            lanes, when = self._steps(*carry)
            return (lanes, when), (self._outputs(lanes), lanes if plan.keep else None)

        def all_records(lanes, start):
            (lanes, _), seen = jax.lax.scan(record, (lanes, start), None, length=plan.records)
            return lanes, seen

        return (emission.one_function(all_records) if plan.whole else all_records)(lanes, start)

    def _outputs(self, lanes: Lanes) -> Array:
        """[n, L]"""
        if self.plan.listed and self.plan.whole:
            return jnp.stack(listed_outputs(pre_activations(lanes.w, self.points), lanes.z))
        w = jnp.stack(lanes.w) if self.plan.listed else lanes.w
        return stacked_outputs(pre_activations(w, self.points), lanes.z)

    def _steps(self, lanes: Lanes, when: Array) -> tuple[Lanes, Array]:
        """`every` steps, from step `when` on."""
        plan = self.plan
        loss = plan.loss()

        def one(carry, drawn):
            lanes, when = carry
            points = self.points
            if plan.draws:
                points = drawn if plan.draws == "record" else self._draw_in_lanes(when)
            return (step(lanes, points, loss, self.hyper, plan.rule), when + 1), None

        def several(lanes, when, drawn):
            return jax.lax.scan(one, (lanes, when), drawn, length=None if plan.draws == "record" else plan.every)[0]

        if plan.marked and plan.listed and not plan.whole:
            several = emission.one_function(several)
        if plan.draws != "record":
            return several(lanes, when, None)
        # As many draws at a time as divide the steps, or a run with few records would hold all of its draws at once.
        block = max(size for size in range(1, MOST_DRAWS + 1) if plan.every % size == 0)

        def blocks(carry, _):
            lanes, when = carry
            return several(lanes, when, self._draw(when + jnp.arange(block, dtype=jnp.uint32))), None

        return jax.lax.scan(blocks, (lanes, when), None, length=plan.every // block)[0]

    def _draw(self, steps: Array) -> Points:
        """The points drawn at `steps` [block], each lane's own, one step along the first axis."""
        x, y, q, _ = self.points
        draw = jax.vmap(jax.vmap(draw_point, (0, None, None)), (None, 0, None))
        drawn = draw(self.keys, steps, q)  # [block, L]
        return Points(jnp.moveaxis(x[drawn], 2, 1)[:, None], y[drawn][:, None], jnp.ones((len(steps), 1), q.dtype))

    def _draw_in_lanes(self, when: Array) -> Points:
        """The points drawn at step `when`, each lane's own, without leaving the function."""
        words = jax.random.key_data(self.keys)
        bits = emission.stage(threefry.fold_in_bits)(words[:, 0], words[:, 1], jnp.full(words.shape[:1], when))
        x, y, q, _ = self.points

        @emission.stage
        def choose(bits, borders, x, y):
            def chosen(values):
                result = jnp.full(bits.shape, values[0])
                for border, value in zip(borders, values[1:], strict=True):
                    result = jnp.where(bits >= border, value, result)
                return result

            return jnp.stack([chosen(x[:, k]) for k in range(x.shape[1])])[None], chosen(y)[None]

        drawn_x, drawn_y = choose(bits, threefry.thresholds(q), x, y)
        return Points(drawn_x, drawn_y, jnp.ones((1,), q.dtype))
