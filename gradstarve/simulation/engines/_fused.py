"""The fast simulator for CPUs: networks in lanes, a chunk of lanes at a time, the whole run of a chunk in one function.

Compared with the reference, this engine saves the dispatch of every operation of every step, the passes over memory (a
chunk's weights stay in the cache for all its steps), and the padding of small axes: h, d and n of a small network do not
fill a vector, so vectors run over networks. `step` is one step; `stage` and `one_function` are the marks for XLA:CPU.
Threads distribute the chunks over the processor's cores, because XLA runs one loop on one core. Results differ from those
of the reference by rounding only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, lru_cache, partial, wraps
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import is_concrete
from gradstarve.problem import (
    LOSSES,
    Dataset,
    GradientDescent,
    Loss,
    Network,
    NormalizedGradientDescent,
    SharpnessAware,
    SignDescent,
    Steps,
    StochasticGradientDescent,
    TwoLayerReLU,
)
from gradstarve.simulation._span import Lifted, dimensions
from gradstarve.simulation.engines import _threefry as threefry
from gradstarve.simulation.engines._engine import Engine
from gradstarve.simulation.engines._reference import State, draw_point

# The marks that make XLA:CPU compile a training loop as one function, in stages that are not fused into each other.
#
# By default XLA:CPU runs a loop operation by operation, which costs microseconds each, more than the arithmetic of a
# small network; and it fuses every producer into all of its consumers, so that each weight's update computes the whole
# forward pass again. Two marks on a call prevent both. `one_function` marks the call of a loop as small enough to be
# emitted as a single function; `stage` marks a call that must not be inlined, so that its results are kept in memory. The
# marks are attributes that XLA reads, not a documented interface: `available` tries them once on a small loop, and if XLA
# does not understand them everything is compiled as usual, slower and with the same numbers.

# Compiler options that go with the marks, the best first; a version of XLA refuses options that it does not know. Wide
# vectors pay on processors that have them. XLA versions with YNNPACK fuse calls of it with neighbouring operations, which a
# single function cannot hold, so this fusion is switched off.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"xla_cpu_prefer_vector_width": 512, "xla_cpu_experimental_ynn_fusion_type": ""},
    {"xla_cpu_prefer_vector_width": 512},
    {},
)

_marking = threading.local()


def available() -> bool:
    """Whether this XLA:CPU understands the marks: a small loop compiles with them and gives the right numbers."""
    return _accepted() is not None


@cache
def _accepted() -> dict[str, Any] | None:
    """The first compiler options with which a trial succeeds."""
    for options in _OPTIONS:
        try:
            # Also inside a traced program, the trial runs at once.
            with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
                if _trial(options):
                    return options
        except Exception:  # an unknown version of XLA may raise anything; then the marks are not used
            continue
    return None


def _trial(options: dict[str, Any]) -> bool:
    def body(carry, _):
        first, second = stage(lambda a: (jnp.sin(a), jnp.cos(a)))(carry)
        return first + second, None

    def loop(start):
        return jax.lax.scan(body, start, None, length=3)[0]

    start = np.linspace(0, 1, 64, dtype=np.float32)
    with _marks(True):
        compiled = jax.jit(one_function(loop), compiler_options=options).lower(start).compile()
    expected = start
    for _ in range(3):
        expected = np.sin(expected) + np.cos(expected)
    return bool(np.allclose(np.asarray(compiled(start)), expected, atol=1e-5))


@contextmanager
def marked(wanted: bool) -> Iterator[dict[str, Any]]:
    """A context in which `stage` and `one_function` mark traced calls; it yields the compiler options for such programs.

    Outside of it, with `wanted` False, and where XLA does not understand the marks, both leave a function unchanged.
    """
    options = _accepted() if wanted else None
    with _marks(options is not None):
        yield dict(options or {})


@contextmanager
def _marks(wanted: bool) -> Iterator[None]:
    before, _marking.on = getattr(_marking, "on", False), wanted
    try:
        yield
    finally:
        _marking.on = before


def stage(function: Callable) -> Callable:
    """`function` as a separate computation: its results are computed once and stored, not fused into their consumers."""
    return _mark(function, inlineable="false")


def one_function(function: Callable) -> Callable:
    """`function`, a loop, emitted as a single function of machine code, without dispatch between its operations.

    No operation inside may be so large that XLA distributes it over threads; the compiler then fails.
    """
    return _mark(function, inlineable="false", xla_cpu_small_call="true")


def _mark(function: Callable, **marks: str) -> Callable:
    @wraps(function)
    def call(*args):
        if not getattr(_marking, "on", False):
            return function(*args)
        from jax.experimental.xla_metadata import set_xla_metadata

        leaves, tree = jax.tree.flatten(jax.jit(function)(*args))
        # A mark on a value applies to the operation that computes it, here the call.
        return jax.tree.unflatten(tree, [set_xla_metadata(leaves[0], **marks), *leaves[1:]])

    return call


# One step of two-layer ReLU networks side by side: networks lie in the last axis, the lanes of the vector units.
#
# With pre_ij = w_j . x_i, residuals r_i = q_i y_i g(y_i f_i) and G_ij = r_i [pre_ij > 0], a step needs only
# A_j = sum_i G_ij x_i: the direction of descent is z_j A_j for w_j, and w_j . A_j for z_j, because the network is
# homogeneous in w_j. There is no second pass over the points.
#
# Two layouts of the same step. *Unrolled*: one array [h, L] per coordinate of w, the sums over points and coordinates
# written out; for few points and coordinates. *Batched*: w as [d, h, L], the sums as matrix products; for many. Stochastic
# descent uses the unrolled layout with one drawn point per lane.
#
# Points may be *lifted* (see `_span`): then the numbers of a neuron are (s, c), pre is s itself, A is (K G, G), and
# sum_i s_i G_i replaces w.A.


class Rule(NamedTuple):
    """The parts of the update rule that are in use; unused parts cost nothing. `layers`: whether the read-out has its own
    step size; `turned`: the change of the gradient, "" for none, "normalised", "signs", or "sharpness-aware" (the gradient
    at perturbed weights)."""

    momentum: bool
    nesterov: bool
    decay: bool
    layers: bool = False
    turned: str = ""


_TURNED: dict[type[Steps], str] = {
    NormalizedGradientDescent: "normalised",
    SignDescent: "signs",
    SharpnessAware: "sharpness-aware",
}
_KNOWN = (GradientDescent, StochasticGradientDescent, *_TURNED)


def rule_for(dynamics: Any) -> Rule:
    """The rule of `dynamics`: a hyperparameter is in use if it is non-zero somewhere or traced."""
    if not isinstance(dynamics, GradientDescent):
        return Rule(False, False, False, turned=_TURNED.get(type(dynamics), ""))

    def there(value: Array) -> bool:
        return not is_concrete(value) or bool(np.asarray(value).any())

    layers = dynamics.read_out_step_size is not None
    return Rule(there(dynamics.momentum), dynamics.nesterov, there(dynamics.weight_decay), layers)


class Lanes(NamedTuple):
    """L networks: `w` as d arrays [h, L] or as one [d, h, L], `z` [h, L], and with momentum their velocities."""

    w: Any
    z: Array
    velocity_w: Any = None
    velocity_z: Any = None


def enter(networks: TwoLayerReLU, velocity: TwoLayerReLU | None, unrolled: bool) -> Lanes:
    """Networks of batch shape [L], and their velocities if they have any, laid out in lanes."""

    def turn(network):
        w = jnp.moveaxis(network.w, 0, 2).swapaxes(0, 1)
        return list(w) if unrolled else w, network.z.T

    return Lanes(*turn(networks), *(turn(velocity) if velocity is not None else ()))


def leave(lanes: Lanes, slope: float) -> tuple[TwoLayerReLU, TwoLayerReLU | None]:
    """The networks of batch shape [L] and of this `slope` that lie in `lanes`, and their velocities if they have any."""

    def turn(w, z):
        w = jnp.stack(w) if isinstance(w, list) else w
        return TwoLayerReLU(jnp.moveaxis(w.swapaxes(0, 1), 2, 0), z.T, slope)

    return turn(lanes.w, lanes.z), None if lanes.velocity_z is None else turn(lanes.velocity_w, lanes.velocity_z)


class Points(NamedTuple):
    """The points of a step: `x[i, k]` is coordinate k of point i, `y[i]` the label, `q[i]` the weight; each a number, or [L]
    if every lane has its own points. `gram`: [n, n], for lifted points, whose `x` is not used."""

    x: Any
    y: Any
    q: Any
    gram: Any = None


class Hyper(NamedTuple):
    """Hyperparameters, one per lane: [L]."""

    step_size: Array
    momentum: Array | None = None
    decay: Array | None = None
    read_out: Array | None = None  # the step size of the read-out
    radius: Array | None = None


def total(terms: Sequence[Array]) -> Array:
    """The sum of a few arrays, in their order."""
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


@stage
def unrolled_pre(w, x):
    """pre_i [h, L] for every point."""
    return [total([wk * x[i, k] for k, wk in enumerate(w)]) for i in range(x.shape[0])]


def activation(pre, slope: float):
    """max(pre, slope pre)."""
    return jnp.maximum(pre, slope * pre if slope else 0)


def blame_of(pre, pull, slope: float):
    """`pull` where the neuron is active, slope times it elsewhere."""
    return jnp.where(pre > 0, pull, slope * pull if slope else 0)


def unrolled_outputs(pre, z, slope: float):
    """f_i [L] for every point."""
    return stage(lambda pre, z: [jnp.sum(z * activation(p, slope), axis=0) for p in pre])(pre, z)


def batched_pre(w, x):
    """pre [n, h, L]."""
    return jnp.tensordot(x, w, 1, precision="highest")


def batched_outputs(pre, z, slope: float):
    """f [n, L]."""
    return jnp.sum(z * activation(pre, slope), axis=1)


def pre_activations(w, points: Points):
    """pre of every point, in the layout of `w`."""
    if points.gram is not None:
        return w[: points.gram.shape[0]]
    return (unrolled_pre if isinstance(w, list) else batched_pre)(w, points.x)


def _unrolled_directions(w, z, points: Points, loss: Loss, slope: float):
    """A as d arrays [h, L]."""

    @stage
    def blamed(pre, outputs, y, q):
        pulls = [q[i] * y[i] * loss.residual(y[i] * outputs[i]) for i in range(len(outputs))]
        return [blame_of(p, pull, slope) for p, pull in zip(pre, pulls, strict=True)]

    @stage
    def directions(blame, x):
        return [total([blamed * x[i, k] for i, blamed in enumerate(blame)]) for k in range(x.shape[1])]

    pre = pre_activations(w, points)
    blame = blamed(pre, unrolled_outputs(pre, z, slope), points.y, points.q)
    return directions(blame, points.x) if points.gram is None else [*directions(blame, points.gram), *blame]


def _batched_directions(w, z, points: Points, loss: Loss, slope: float):
    """A as [d, h, L]."""

    # Everything between the two products is one function; its sum is a separate stage, or every neuron would repeat it.
    @one_function
    def blamed(pre, z, y, q):
        outputs = stage(partial(batched_outputs, slope=slope))(pre, z)
        pull = q * y * loss.residual(y * outputs)
        return blame_of(pre, pull[:, None], slope)

    blame = blamed(pre_activations(w, points), z, points.y[:, None], points.q[:, None])
    if points.gram is not None:
        return jnp.concatenate([jnp.tensordot(points.gram, blame, 1, precision="highest"), blame])
    return jnp.tensordot(points.x, blame, ((0,), (0,)), precision="highest")


def step(lanes: Lanes, points: Points, loss: Loss, hyper: Hyper, rule: Rule, slope: float) -> Lanes:
    """All lanes one step further; `slope`: the slope of a leaky ReLU."""
    unrolled = isinstance(lanes.w, list)
    find = _unrolled_directions if unrolled else _batched_directions
    apart = stage if unrolled else one_function
    lifted = points.gram is not None
    directions, pushed = find(lanes.w, lanes.z, points, loss, slope), lanes
    if rule.turned == "sharpness-aware":
        pushed = apart(partial(climbed, lifted=lifted))(lanes, directions, hyper)
        directions = find(pushed.w, pushed.z, points, loss, slope)

    def update(lanes, directions, hyper, pushed):
        return moved(lanes, directions, hyper, rule, lifted, pushed)

    return apart(update)(lanes, directions, hyper, pushed)


def descents(lanes: Lanes, directions, lifted: bool) -> tuple[Any, Array]:
    """Minus the gradient of the weights of `lanes`, by the directions A: z A for w, in its layout, and w.A for z."""
    half = len(lanes.w) // 2
    partners = (lanes.w[:half], directions[half:]) if lifted else (lanes.w, directions)
    if isinstance(lanes.w, list):
        along = total([wk * ak for wk, ak in zip(*partners, strict=True)])
        return [lanes.z * ak for ak in directions], along
    return lanes.z * directions, jnp.sum(partners[0] * partners[1], axis=0)


def lengths(descent: tuple[Any, Array], lifted: bool) -> Array:
    """The length of the gradient over all weights of each network, [L], without squares that overflow or underflow.

    For lifted points, whose directions are (K G, G), |sum_i G_i x_i|^2 is the product of the two halves.
    """
    w, z = descent
    parts = [*w, z] if isinstance(w, list) else [w.reshape(-1, w.shape[-1]), z]
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(part), axis=0) for part in parts]), axis=0)
    unit = jnp.where(largest > 0, largest, 1)
    half = len(w) // 2
    firsts: Any = w[:half] if lifted else w
    seconds: Any = w[half:] if lifted else w
    if isinstance(w, list):
        pairs = [*zip(firsts, seconds, strict=True), (z, z)]
        squares = jnp.sum(total([(a / unit) * (b / unit) for a, b in pairs]), axis=0)
    else:
        squares = jnp.sum((firsts / unit) * (seconds / unit), axis=(0, 1)) + jnp.sum((z / unit) ** 2, axis=0)
    return unit * jnp.sqrt(jnp.maximum(squares, 0)) * (largest > 0)


def ratio(length: Array, norm: Array) -> Array:
    """length / norm; 0 where the norm is 0."""
    return jnp.where(norm > 0, length / jnp.where(norm > 0, norm, 1), 0)


def climbed(lanes: Lanes, directions, hyper: Hyper, lifted: bool) -> Lanes:
    """`lanes` moved by `radius` along their gradient."""
    w, z = descent = descents(lanes, directions, lifted)
    radius: Any = hyper.radius
    by = ratio(radius, lengths(descent, lifted))
    up = [wk - by * dk for wk, dk in zip(lanes.w, w, strict=True)] if isinstance(w, list) else lanes.w - by * w
    return Lanes(up, lanes.z - by * z)


def moved(lanes: Lanes, directions, hyper: Hyper, rule: Rule, lifted: bool = False, pushed: Lanes | None = None) -> Lanes:
    """`lanes` after one step by the `directions` of descent A; the update rules are those of the classes of `Steps`.

    `lifted`: whether the numbers of a neuron are (s, c), whose directions are (K G, G). `pushed`: the weights at which
    `directions` is the gradient, by default those of `lanes`.
    """
    size = hyper.step_size
    descent = descents(lanes if pushed is None else pushed, directions, lifted)
    if rule.turned == "normalised":
        size = ratio(size, lengths(descent, lifted))
    elif rule.turned == "signs":
        descent = jax.tree.map(jnp.sign, descent)

    def move(theta, descent, velocity, size):
        if not rule.momentum:
            if rule.decay:
                descent = descent - hyper.decay * theta
            return theta + size * descent, None
        gradient = hyper.decay * theta - descent if rule.decay else -descent
        velocity = hyper.momentum * velocity + gradient
        push = gradient + hyper.momentum * velocity if rule.nesterov else velocity
        return theta - size * push, velocity

    w, z, velocity_w, velocity_z = lanes
    down_w, down_z = descent
    if isinstance(w, list):
        pairs = [move(wk, dk, vk, size) for wk, dk, vk in zip(w, down_w, velocity_w or [None] * len(w), strict=True)]
        new_w, new_velocity_w = [pair[0] for pair in pairs], [pair[1] for pair in pairs] if rule.momentum else None
    else:
        new_w, new_velocity_w = move(w, down_w, velocity_w, size)
    new_z, new_velocity_z = move(z, down_z, velocity_z, hyper.read_out if rule.layers else size)
    return Lanes(new_w, new_z, new_velocity_w, new_velocity_z)


# The engine.

# Lanes of a chunk in the unrolled layout, in steps of a half vector. With fewer lanes the compiler unrolls loops that it
# should not; more lanes gain nothing.
LEAST_LANES, MOST_LANES, HALF_VECTOR = 40, 112, 8
# Bytes of the nearest cache, and the distance in bytes at which addresses compete for the same places in it.
NEAREST_CACHE, ALIAS = 2**15, 2**12
# Up to this number of networks, training one network per chunk is faster than empty lanes.
ALONE = 4
# Sums are written out for up to this many products of one coordinate and one point, and up to this many points. The time
# to compile them grows with the square of the points: 1.5 s for 24 points, 3 s for 40, 6 s for 60, 26 s for 110; matrix
# products take 0.5 s. Beyond these sizes matrix products run as fast, except in one and two dimensions, where they take up
# to twice as long. A draw among written-out points costs the compiler 0.04 s per point.
MOST_UNROLLED, MOST_POINTS_UNROLLED, MOST_POINTS_DRAWN = 256, 24, 64
# The bytes that a chunk of the batched layout may keep in the cache, and its largest number of networks.
CACHE, MOST_BATCHED = 2**18, 64
# Networks of this width fill the vectors with their own neurons, which are adjacent in memory when a chunk has one lane.
WIDE = 128
# The largest number of draws made at once.
MOST_DRAWS = 1024
# XLA distributes the only sum of a stage over threads if the sum reads and writes more bytes than this; a single function
# cannot hold such a sum.
SHARED = 2**19


def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
    """Why this engine cannot run the problem, in words, or None if it can."""
    if not isinstance(data, Dataset) or type(network) is not TwoLayerReLU:
        return f"it trains a TwoLayerReLU on a Dataset, got {type(network).__name__} on {type(data).__name__}"
    if 0 in network.batch_shape:
        return f"it trains one network or more, got a batch of shape {network.batch_shape}"
    if type(loss) not in LOSSES.values():
        return f"it knows the losses {', '.join(LOSSES)}, got {type(loss).__name__}"
    if type(dynamics) not in _KNOWN:
        return f"it knows {', '.join(known.__name__ for known in _KNOWN)}, got {type(dynamics).__name__}"
    if isinstance(dynamics, StochasticGradientDescent) and dynamics.batch_size > 1:
        return f"it draws one point a step, got batch_size = {dynamics.batch_size}"
    if isinstance(dynamics, StochasticGradientDescent) and dimensions(data, draws=True) > MOST_UNROLLED:
        have = dimensions(data, draws=True)
        return f"with one point a step it takes at most {MOST_UNROLLED} dimensions, the data have {have}"
    return None


class Plan(NamedTuple):
    """How a run is laid out and compiled; all fields are constants of the program."""

    lanes: int  # networks of a chunk
    unrolled: bool  # layout of the weights, see `lanes`
    whole: bool  # one function for the whole run of a chunk, or for the steps between two records
    marked: bool  # whether calls are marked for XLA
    draws: str  # "" for the full batch; points are drawn "lanes": at every step, or "record": for many steps at once
    records: int
    every: int
    keep: bool
    rule: Rule
    loss: type[Loss]
    slope: float

    @property
    def needs_memory(self) -> bool:
        """Whether the memory of the optimiser is used: velocities, or the keys of the draws."""
        return self.rule.momentum or bool(self.draws)


def advance(
    state: State, data: Dataset, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool
) -> tuple[State, Float[Array, "records b n"], Network | None]:
    """`reference.advance` up to rounding, for problems that are not `unsupported`.

    If momentum is zero for every network, the velocities in `state` are not updated, because nothing reads them.
    """
    leaves = jax.tree.leaves((state, data, dynamics))
    concrete = all(is_concrete(leaf) for leaf in leaves)
    on_cpu = concrete and all(device.platform == "cpu" for leaf in leaves for device in leaf.devices())
    (b,) = state.networks.batch_shape
    plan = _plan(state, data, loss, dynamics, (records, every, keep_networks), on_cpu and available())
    chunks = -(-b // plan.lanes)
    per_part = -(-chunks // (min(cores(), chunks) if on_cpu else 1))
    parts = -(-chunks // per_part)
    table = None
    if dynamics.scheduled:
        # The step sizes of a schedule are shared by all networks, and looked up at every step.
        table = dynamics.step_size.values
        dynamics = eqx.tree_at(lambda one: one.step_size, dynamics, jnp.zeros(b, state.networks.dtype))
    moving = (state.networks, state.memory if plan.needs_memory else None, dynamics)
    points = Points(data.points, data.labels, data.weights, data.gram if isinstance(data, Lifted) else None)
    fixed = (state.step, points, table)
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
    """`parts` pieces of `each` networks; the last piece is filled with zeros, which training does not change."""

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
    """The results of the pieces, joined and cut to `b` networks: networks, velocities, records, recorded networks."""

    def join(axis: int, *leaves):
        return jax.lax.slice_in_dim(jnp.concatenate(leaves, axis), 0, b, axis=axis)

    return tuple(
        jax.tree.map(partial(join, axis), *(result[index] for result in done)) for index, axis in enumerate((0, 0, 1, 1))
    )


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads for the parts of a run that the calling thread does not take; kept, because a start takes milliseconds."""
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
    small = n * d <= MOST_UNROLLED and n <= (MOST_POINTS_DRAWN if stochastic else MOST_POINTS_UNROLLED)
    lanes = _lanes(b, h * itemsize, (2 + rule.momentum) * (d + 1) + (1 if stochastic else n))
    # The numbers of terms of sums that are the only one of their stage.
    alone = [d] * (stochastic or n == 1) + [n] * (d == 1 and not stochastic)
    fits = all((terms + 1) * h * lanes * itemsize < SHARED for terms in alone)
    unrolled = stochastic or (small and (fits or not marked))
    if unrolled:
        width = 1 if b <= ALONE else lanes
    else:
        room = 1 if h >= WIDE else CACHE // (2 * n * h * itemsize)
        # A power of two, at most the next one above the number of networks.
        width = min(1 << max(0, min(MOST_BATCHED, room).bit_length() - 1), 1 << (b - 1).bit_length())
        fits = 2 * max(n, d) * h * width * itemsize < SHARED
    marked = marked and fits
    draws = ""
    if stochastic:
        draws = "lanes" if small and threefry.is_default_rng(state.memory) else "record"
    return Plan(width, unrolled, marked and unrolled and small, marked, draws, *run, rule, type(loss), state.networks.slope)


def _lanes(b: int, column: int, arrays: int) -> int:
    """Lanes of a chunk for `b` networks in the unrolled layout, which uses `arrays` arrays of `column` bytes per lane.

    As many as the nearest cache holds, without those sizes at which the arrays evict each other from it (a third of the
    speed at 16 neurons and 64 lanes), and of these a number that leaves few lanes empty when two cores share the chunks.
    """
    most = max(LEAST_LANES, min(MOST_LANES, NEAREST_CACHE // (column * arrays)))
    choices = [lanes for lanes in range(most, LEAST_LANES - 1, -1) if lanes % HALF_VECTOR == 0]
    choices = [lanes for lanes in choices if column * lanes % ALIAS] or choices
    return min(choices, key=lambda lanes: -(-b // (2 * lanes)) * lanes)


def _signature(piece: Any) -> tuple[Any, Any]:
    """Shapes, dtypes and device of the arguments of a program, in a hashable form."""
    leaves, tree = jax.tree.flatten(piece)
    device = leaves[0].devices().copy().pop()
    return tree, tuple((leaf.shape, leaf.dtype, device) for leaf in leaves)


@lru_cache(maxsize=128)
def _program(plan: Plan, tree: Any, described: tuple) -> Any:
    """The compiled run; if XLA fails on the marks for these shapes, the run is compiled without them."""
    leaves = [
        jax.ShapeDtypeStruct(shape, dtype, sharding=jax.sharding.SingleDeviceSharding(device))
        for shape, dtype, device in described
    ]
    arguments = jax.tree.unflatten(tree, leaves)
    try:
        with marked(plan.marked) as options:
            return jax.jit(partial(_run, plan), compiler_options=options).lower(*arguments).compile()
    except jax.errors.JaxRuntimeError:
        if not plan.marked:
            raise
    return _program(plan._replace(marked=False, whole=False), tree, described)


def _run(
    plan: Plan, networks: TwoLayerReLU, memory: Any, dynamics: Any, start: Array, points: Points, table: Array | None
):
    """All chunks, one after the other: networks, velocities, logits [records, b, n], recorded networks [records, b]."""
    b = networks.z.shape[0]
    count = b // plan.lanes
    everyone = jax.tree.map(lambda leaf: leaf.reshape(count, plan.lanes, *leaf.shape[1:]), (networks, memory, dynamics))

    def chunk(mine):
        networks, memory, dynamics = mine
        velocity = memory if plan.rule.momentum else None
        lanes = enter(networks, velocity, plan.unrolled)
        run = Run(plan, points, _hyper(dynamics), memory if plan.draws else None, table)
        lanes, (outputs, kept) = run(lanes, start.astype(jnp.uint32))
        trained, velocity = leave(lanes, plan.slope)
        recorded = jax.vmap(partial(leave, slope=plan.slope))(kept)[0] if plan.keep else None
        return trained, velocity, outputs, recorded

    trained, velocity, outputs, kept = jax.lax.map(chunk, everyone)
    trained, velocity = jax.tree.map(lambda leaf: leaf.reshape(b, *leaf.shape[2:]), (trained, velocity))
    # [chunks, records, n, lanes] -> [records, b, n]
    logits = jnp.moveaxis(outputs, (0, 1, 2, 3), (1, 0, 3, 2)).reshape(plan.records, b, -1)
    # [chunks, records, lanes, ...] -> [records, b, ...]
    kept = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, 1).reshape(plan.records, b, *leaf.shape[3:]), kept)
    return trained, velocity, logits, kept


def _hyper(dynamics: Any) -> Hyper:
    names = {"momentum": "momentum", "decay": "weight_decay", "read_out": "read_out_step_size", "radius": "radius"}
    return Hyper(dynamics.step_size, **{name: getattr(dynamics, field, None) for name, field in names.items()})


class Run(NamedTuple):
    """The run of one chunk of lanes."""

    plan: Plan
    points: Points
    hyper: Hyper
    keys: Any  # the keys of the draws, [L]; None for the full batch
    table: Array | None  # the step size at every step of a schedule; None for constant step sizes

    def __call__(self, lanes: Lanes, start: Array) -> tuple[Lanes, tuple[Array, Any]]:
        """The lanes after all records, the outputs [records, n, L] and, if they are kept, the lanes at every record."""
        plan = self.plan

        def record(carry, _):
            lanes, when = self._steps(*carry)
            return (lanes, when), (self._outputs(lanes), lanes if plan.keep else None)

        def all_records(lanes, start):
            (lanes, _), seen = jax.lax.scan(record, (lanes, start), None, length=plan.records)
            return lanes, seen

        return (one_function(all_records) if plan.whole else all_records)(lanes, start)

    def _outputs(self, lanes: Lanes) -> Array:
        """[n, L]"""
        if self.plan.unrolled and self.plan.whole:
            return jnp.stack(unrolled_outputs(pre_activations(lanes.w, self.points), lanes.z, self.plan.slope))
        w = jnp.stack(lanes.w) if self.plan.unrolled else lanes.w
        return batched_outputs(pre_activations(w, self.points), lanes.z, self.plan.slope)

    def _steps(self, lanes: Lanes, when: Array) -> tuple[Lanes, Array]:
        """`every` steps, from step `when` on."""
        plan = self.plan
        loss = plan.loss()

        def one(carry, drawn):
            lanes, when = carry
            points = self.points
            if plan.draws:
                points = drawn if plan.draws == "record" else self._draw_in_lanes(when)
            return (step(lanes, points, loss, self._now(when), plan.rule, plan.slope), when + 1), None

        def several(lanes, when, drawn):
            return jax.lax.scan(one, (lanes, when), drawn, length=None if plan.draws == "record" else plan.every)[0]

        if plan.marked and plan.unrolled and not plan.whole:
            several = one_function(several)
        if plan.draws != "record":
            return several(lanes, when, None)
        # The draws are made in blocks that divide the steps, or a run with few records would hold all draws at once.
        block = max(size for size in range(1, MOST_DRAWS + 1) if plan.every % size == 0)

        def blocks(carry, _):
            lanes, when = carry
            return several(lanes, when, self._draw(when + jnp.arange(block, dtype=jnp.uint32))), None

        return jax.lax.scan(blocks, (lanes, when), None, length=plan.every // block)[0]

    def _now(self, when: Array) -> Hyper:
        """The hyperparameters at step `when`."""
        if self.table is None:
            return self.hyper
        return self.hyper._replace(step_size=jnp.broadcast_to(self.table[when], self.hyper.step_size.shape))

    def _draw(self, steps: Array) -> Points:
        """The points drawn by each lane at `steps` [block], with the steps along the first axis."""
        x, y, q, _ = self.points
        draw = jax.vmap(jax.vmap(draw_point, (0, None, None)), (None, 0, None))
        drawn = draw(self.keys, steps, q)  # [block, L]
        return Points(jnp.moveaxis(x[drawn], 2, 1)[:, None], y[drawn][:, None], jnp.ones((len(steps), 1), q.dtype))

    def _draw_in_lanes(self, when: Array) -> Points:
        """The points drawn by each lane at step `when`, inside the single function."""
        words = jax.random.key_data(self.keys)
        bits = stage(threefry.fold_in_bits)(words[:, 0], words[:, 1], jnp.full(words.shape[:1], when))
        x, y, q, _ = self.points

        @stage
        def choose(bits, borders, x, y):
            def chosen(values):
                result = jnp.full(bits.shape, values[0])
                for border, value in zip(borders, values[1:], strict=True):
                    result = jnp.where(bits >= border, value, result)
                return result

            return jnp.stack([chosen(x[:, k]) for k in range(x.shape[1])])[None], chosen(y)[None]

        drawn_x, drawn_y = choose(bits, threefry.thresholds(q), x, y)
        return Points(drawn_x, drawn_y, jnp.ones((1,), q.dtype))


class Fused(Engine):
    """Hand-written gradients over lanes of networks, for CPUs."""

    name: ClassVar[str] = "fused"
    unsupported = staticmethod(unsupported)
    advance = staticmethod(advance)
