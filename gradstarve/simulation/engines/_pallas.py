"""The simulator for GPUs: one launch trains every network for the whole run, with the weights in registers.

A loop in XLA launches some ten kernels per step, and for small networks these launches take nearly all the time: between
them every weight goes to the card's memory and comes back. Here a program, a block of threads, loads the weights of a few
networks once, does all `records * every` steps on them in registers, and writes only the logits at every record and the
weights at the end. Networks do not interact, so no program ever waits for another. `kernel` is the work of a program, and
`tiling` decides how many networks a program has and which thread holds which numbers.

The kernel is written in Pallas and compiled by Triton. Without a GPU it is interpreted: slow, with the same arithmetic,
good for tests. JAX has deprecated the Triton backend of Pallas since 0.11; the part used here, in `_launch`, is the same
from 0.10 to 0.11.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from gradstarve.ground import is_concrete
from gradstarve.problem import Dataset, Loss, Network, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation._span import Lifted, dimensions
from gradstarve.simulation.engines import _fused as fused
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.engines import _threefry as threefry
from gradstarve.simulation.engines._engine import Engine
from gradstarve.simulation.engines._fused import Hyper, Lanes, Rule, moved, rule_for, total
from gradstarve.simulation.engines._reference import State
from gradstarve.simulation.engines._threefry import fold_in_bits

# How two-layer networks are laid over the threads of a GPU so that all their numbers stay in registers.
#
# A *program* (a block of threads) holds BLOCK networks as arrays [BLOCK, H], H being the width padded to a power of two, and
# a thread holds a few neighbouring neurons of one network. Register counts below are those of 32-bit registers, of which a
# thread of an NVIDIA card can have 255 and the threads of one processor share 65,536.

# Registers: the most that a thread is planned to use, those it needs for addresses and the like, the most for the points of
# a turn, and the most for one program.
MOST_OF_A_THREAD, SPARE, MOST_OF_POINTS, MOST_OF_A_PROGRAM = 240, 24, 72, 65_536
# Up to this number of points the sums are written out in full; more points need a loop.
MOST_WRITTEN_OUT = 8
# A warp has 32 threads. Up to MANY_WARPS warps share a network before threads take more neurons instead.
WARP, MANY_WARPS, MOST_WARPS = 32, 8, 32


class Tiling(NamedTuple):
    """How networks are distributed over the threads of a program."""

    block: int  # networks of a program, BLOCK
    neurons: int  # H, the width padded to a power of two
    each: int  # neurons of a thread
    warps: int
    turn: int  # points of a turn of the loop over points; all of them, if there is no loop


def tiling(h: int, d: int, n: int, dtype: Any, momentum: bool = False) -> Tiling | None:
    """The tiling for networks of `h` neurons on `n` points of `d` coordinates; None if one does not fit into a program.

    A neuron takes 2 (d + 1) numbers, for its weights and the direction of descent, with momentum 3 (d + 1), and one for each
    point of a turn; a thread takes another d + 2 numbers for each of these points. A number is one register in float32 and
    two in float64. So a turn is all points if they are few, else 4, 2 or 1, whose sums overlap in time; and a thread has 4,
    2 or 1 neurons (2 or 1 in float64, since it loads 16 bytes at a time): the neurons of a thread share the loaded points
    and the residual of their network.

    A program is one warp when a network fits into one, BLOCK = 32 * (neurons of a thread) / H networks: no sum leaves the
    warp, and many small programs spread evenly over the card. Wider networks have a program each, with as many warps as they
    need. The tiling does not depend on the number of networks, so the result for one network does not either.

    >>> import numpy as np
    >>> tiling(8, 2, 2, np.float32)
    Tiling(block=16, neurons=8, each=4, warps=1, turn=2)
    >>> tiling(100, 2, 200, np.float64)
    Tiling(block=1, neurons=128, each=2, warps=2, turn=4)
    """
    words = np.dtype(dtype).itemsize // 4
    padded = power_of_two(h)

    def fits(turn: int) -> bool:
        return turn <= n and turn * (d + 2) * words <= MOST_OF_POINTS

    turn = n if n <= MOST_WRITTEN_OUT and fits(n) else next((few for few in (4, 2) if fits(few)), 1)

    def registers(each: int) -> int:
        return SPARE + words * (turn * (d + 2) + each * ((2 + momentum) * (d + 1) + turn))

    each = 4 // words
    while each > 1 and registers(each) > MOST_OF_A_THREAD:
        each //= 2
    while padded > WARP * each * MANY_WARPS and registers(2 * each) <= MOST_OF_A_THREAD:
        each *= 2
    warps = max(1, padded // (WARP * each))
    if registers(each) > MOST_OF_A_THREAD or warps > MOST_WARPS or WARP * warps * registers(each) > MOST_OF_A_PROGRAM:
        return None
    return Tiling(max(1, WARP * each // padded), padded, each, warps, turn)


def power_of_two(least: int) -> int:
    """The smallest power of two that is not below `least` >= 1.

    >>> [power_of_two(k) for k in (1, 2, 3, 8, 9)]
    [1, 2, 4, 8, 16]
    """
    return 1 << (least - 1).bit_length()


# What one program of the GPU simulator does: it trains its BLOCK networks for the whole run, the weights in registers.
#
# The arithmetic is that of `_fused`, with networks in the first axis instead of the last: arrays [BLOCK, H], one per
# coordinate of w and one for z, so that the neurons of a network lie side by side in the threads of a warp and sums over
# neurons are sums along the last axis. Padded neurons have w = 0 and z = 0 and keep them, padded networks have step size 0.
#
# A kernel works on references: `inputs` and `outputs` are dicts of references to this program's part of each array.
#
# - `weights`, `velocity`, `kept`: [(records,) D, BLOCK, H]; rows are w_1, ..., w_d, z and zeros up to a power of two D;
# - `step_size`, `momentum`, `decay`: [BLOCK]; `keys`: two of [BLOCK], the words of the networks' keys;
# - `x`: [n d] point by point, `y`, `q`: [n], filled with points of weight zero up to whole turns; `push`: like `x`, only for
#   lifted points (see `_span`), whose steps are along other vectors than `x`;
# - `borders`: `threefry.thresholds`, `start`: the number of the first step, `zero`: the number 0;
# - `logits`: [records, n, BLOCK].


class Plan(NamedTuple):
    """The constants of a compiled program, besides shapes."""

    tiling: Tiling
    loss: Loss
    rule: Rule
    stochastic: bool
    records: int
    every: int
    keep: bool
    interpret: bool


def kernel(plan: Plan, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    """The whole run of one program."""
    n, turn = outputs["logits"].shape[1], plan.tiling.turn
    d = inputs["x"].shape[0] // inputs["y"].shape[0]
    load, store = partial(_load, plan.tiling, inputs["zero"][0], d), partial(_store, plan.tiling, inputs["zero"][0])
    values: list[Any] = [inputs[name][:][:, None] if name in inputs else None for name in Hyper._fields]
    hyper = Hyper(*values)

    lifted = "push" in inputs

    def point(i):
        """Coordinates, label, weight and step of point i; for an array of points, [BLOCK], arrays of them."""
        x = [inputs["x"][i * d + k] for k in range(d)]
        return x, inputs["y"][i], inputs["q"][i], [inputs["push"][i * d + k] for k in range(d)] if lifted else x

    # A few points are read only once.
    held = [point(i) for i in range(n)] if turn == n and not plan.stochastic else None

    def directions(lanes, step):
        if plan.stochastic:
            x, y, *_ = point(_drawn(inputs, n, step))
            x = [coordinate[:, None] for coordinate in x]
            return _directions(plan.loss, lanes, [(x, y, 1, x)])
        if held:
            return _directions(plan.loss, lanes, held)

        def add(index, before):
            return _directions(plan.loss, lanes, [point(index * turn + k) for k in range(turn)], before)

        return _loop(inputs["y"].shape[0] // turn, add, [jnp.zeros_like(lanes.z)] * d)

    def one_record(record, lanes):
        def one_step(k, lanes):
            return moved(lanes, directions(lanes, record * plan.every + k), hyper, plan.rule, lifted)

        lanes = _loop(plan.every, one_step, lanes)

        def write(i, nothing):
            outputs["logits"][record, i, :] = _output(lanes, _pre(lanes, point(i)[0]))
            return nothing

        _loop(n, write, None)
        if plan.keep:
            store(outputs["kept"], lanes.w, lanes.z, record)
        return lanes

    velocity = load(inputs["velocity"]) if plan.rule.momentum else ()
    lanes = _loop(plan.records, one_record, Lanes(*load(inputs["weights"]), *velocity))
    store(outputs["weights"], lanes.w, lanes.z)
    if plan.rule.momentum:
        store(outputs["velocity"], lanes.velocity_w, lanes.velocity_z)


def _loop(count: int, body: Any, carry: Any) -> Any:
    """`fori_loop` with a counter of 32 bits, also where JAX would use 64."""
    return jax.lax.fori_loop(0, count, lambda k, carry: body(jnp.int32(k), carry), carry)


def _row(shape: tuple[int, ...]) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, 0)


def _load(tiling: Tiling, zero: Any, d: int, ref: Any) -> tuple[list[Array], Array]:
    """The rows of `ref` [D, BLOCK, H] as separate arrays: w as a list, and z.

    All rows are loaded at once, because Triton's compile time grows with the number of loads and stores times the square of
    the program's length. In a load, Triton gives a thread as many neighbouring neurons as the thread may load at once; the
    offset `zero`, of which Triton knows only that it is a multiple of `each`, limits that number to `each`.
    """
    packed = ref[:, :, pl.ds(zero * tiling.each, tiling.neurons)]
    rows = [jnp.sum(jnp.where(_row(packed.shape) == k, packed, 0), axis=0) for k in range(d + 1)]
    return rows[:d], rows[d]


def _store(tiling: Tiling, zero: Any, ref: Any, w: list[Array], z: Array, *front: Any) -> None:
    """The reverse of `_load`, into `ref[front]`."""
    shape = ref.shape[len(front) :]
    packed = jnp.zeros(shape, z.dtype)
    for k, row in enumerate([*w, z]):
        packed = jnp.where(_row(shape) == k, row[None], packed)
    ref[*front, :, :, pl.ds(zero * tiling.each, tiling.neurons)] = packed


def _drawn(inputs: dict[str, Any], n: int, step: Any) -> Array:
    """The point that each network draws, [BLOCK]: `threefry.draw`, with the borders counted by bisection."""
    k0, k1 = (words[:] for words in inputs["keys"])
    bits = fold_in_bits(k0, k1, inputs["start"][0] + step.astype(jnp.uint32))
    reached = jnp.zeros(bits.shape, jnp.int32)
    half = inputs["borders"].shape[0] // 2
    while half:
        further = reached + half
        # Entries beyond the last border are padding up to a power of two and do not count.
        reached = jnp.where((further < n) & (bits >= inputs["borders"][further - 1]), further, reached)
        half //= 2
    return reached


def _pre(lanes: Lanes, x: list[Any]) -> Array:
    """pre_j = w_j . x, [BLOCK, H]."""
    return total([w * coordinate for w, coordinate in zip(lanes.w, x, strict=True)])


def _output(lanes: Lanes, pre: Array) -> Array:
    """f, [BLOCK]."""
    return jnp.sum(lanes.z * jnp.maximum(pre, 0), axis=1)


def _directions(loss: Loss, lanes: Lanes, points: list[Any], before: list[Array] | None = None) -> list[Array]:
    """A_k = sum_i q_i y_i g(y_i f_i) [pre_i > 0] x_ik over `points`, d arrays [BLOCK, H], added to `before`."""
    pre = [_pre(lanes, x) for x, *_ in points]
    pulls = [q * y * loss.residual(y * _output(lanes, p)) for p, (_, y, q, _) in zip(pre, points, strict=True)]
    blame = [jnp.where(p > 0, pull[:, None], 0) for p, pull in zip(pre, pulls, strict=True)]
    terms = [[r * push[k] for r, (*_, push) in zip(blame, points, strict=True)] for k in range(len(lanes.w))]
    return [total(term if before is None else [before[k], *term]) for k, term in enumerate(terms)]


# The engine.


def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
    """Why this engine cannot run the problem, in words, or None if it can."""
    reason = fused.unsupported(data, network, loss, dynamics)
    if reason:
        return reason
    if network.slope:
        return f"it trains networks of slope 0, got slope = {network.slope:g}"
    rule = rule_for(dynamics)
    if rule.turned or rule.layers:
        what = "read_out_step_size" if rule.layers else type(dynamics).__name__
        return f"it knows plain and stochastic descent with one step size, got {what}"
    if dynamics.scheduled:
        return "it knows step sizes that stay as they are, got a schedule"
    numbers = dimensions(data, isinstance(dynamics, StochasticGradientDescent))
    dtype = jnp.result_type(data.points, network.dtype)
    found = _tiling(network.width, numbers, data.size, dtype, rule.momentum)
    return found if isinstance(found, str) else None


def _tiling(h: int, d: int, n: int, dtype: Any, momentum: bool) -> Tiling | str:
    """The tiling, or why there is none."""
    found = tiling(h, d, n, dtype, momentum)
    return found or (
        "it keeps a neuron in the registers of one thread and a network in those of one program; "
        f"h = {h} neurons of d = {d} coordinates in {jnp.dtype(dtype)}{' with momentum' if momentum else ''} do not fit"
    )


def advance(
    state: State, data: Dataset, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool
) -> tuple[State, Float[Array, "records b n"], Network | None]:
    """`reference.advance` up to rounding, for problems that are not `unsupported`.

    Compiled once for given shapes, `records`, `every` and options; a new step size, momentum or key needs no compilation.
    If momentum is zero for every network, the velocities in `state` are not updated, because nothing reads them. With keys
    of another generator than JAX's default, which the kernel lacks, the reference runs instead. `ValueError` for data of too
    many coordinates.
    """
    if isinstance(dynamics, StochasticGradientDescent) and not threefry.is_default_rng(state.memory):
        return reference.advance(state, data, loss, dynamics, records, every, keep_networks)
    plan = plan_for(state.networks, data, loss, dynamics, records, every, keep_networks)
    return run(plan, state, data, dynamics)


def plan_for(network: Any, data: Dataset, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool) -> Plan:
    """The plan of the program for this run; without a GPU that holds the networks, the program is interpreted."""
    rule = rule_for(dynamics)
    tiles = _tiling(network.width, data.dim, data.size, network.dtype, rule.momentum)
    if isinstance(tiles, str):
        raise ValueError(f'engine="pallas" cannot run this: {tiles}; use engine="auto"')
    if is_concrete(network.z):
        on_gpu = all(device.platform == "gpu" for device in network.z.devices())
    else:
        on_gpu = jax.default_backend() == "gpu"
    stochastic = isinstance(dynamics, StochasticGradientDescent)
    return Plan(tiles, loss, rule, stochastic, records, every, keep_networks, interpret=not on_gpu)


@partial(jax.jit, static_argnums=0)
def run(plan: Plan, state: State, data: Dataset, dynamics: Any) -> tuple[State, Array, Network | None]:
    """The run: arrays into the kernel's layout, the kernel, and the results back."""
    network = state.networks
    assert isinstance(network, TwoLayerReLU)
    (b, h), (n, d) = network.z.shape, data.points.shape
    absent = -b % plan.tiling.block
    extra = 0 if plan.stochastic else -n % plan.tiling.turn

    def inward(network: TwoLayerReLU) -> Array:
        """w [b, h, d] and z [b, h] as rows of one array [D, B, H], filled with zeros."""
        rows = jnp.concatenate([jnp.moveaxis(network.w, -1, 0), network.z[None]])
        return jnp.pad(rows, ((0, power_of_two(d + 1) - d - 1), (0, absent), (0, plan.tiling.neurons - h)))

    def outward(rows: Array) -> TwoLayerReLU:
        return TwoLayerReLU(jnp.moveaxis(rows[..., :d, :b, :h], -3, -1), rows[..., d, :b, :h])

    def line(values: Array) -> Array:
        return jnp.pad(values, (0, absent))

    inputs: dict[str, Any] = {
        "weights": inward(network),
        "step_size": line(dynamics.step_size),
        "x": jnp.pad(data.points, ((0, extra), (0, 0))).reshape(-1),
        "y": jnp.pad(data.labels, (0, extra)),
        "q": jnp.pad(data.weights, (0, extra)),
        "zero": jnp.zeros(1, jnp.int32),
    }
    if isinstance(data, Lifted):
        push = jnp.concatenate([data.gram, jnp.eye(n, dtype=data.gram.dtype)], axis=1)
        inputs["push"] = jnp.pad(push, ((0, extra), (0, 0))).reshape(-1)
    if plan.rule.momentum:
        inputs |= {"velocity": inward(state.memory), "momentum": line(dynamics.momentum)}
    if plan.rule.decay:
        inputs |= {"decay": line(dynamics.weight_decay)}
    if plan.stochastic:
        words = jax.random.key_data(state.memory)
        inputs |= {
            "keys": (line(words[:, 0]), line(words[:, 1])),
            "borders": jnp.pad(threefry.thresholds(data.weights), (0, power_of_two(n) - n + 1)),
            "start": state.step.astype(jnp.uint32)[None],
        }
    outputs = _launch(plan, inputs, n)
    memory = outward(outputs["velocity"]) if plan.rule.momentum else state.memory
    after = State(outward(outputs["weights"]), memory, state.step + plan.records * plan.every)
    kept = outward(outputs["kept"]) if plan.keep else None
    return after, jnp.moveaxis(outputs["logits"], 1, 2)[:, :b], kept


def _launch(plan: Plan, inputs: dict[str, Any], n: int) -> dict[str, Any]:
    """The kernel over all blocks of networks; the only function that depends on the backends of Pallas."""
    networks, dtype = inputs["weights"].shape[1], inputs["weights"].dtype
    outputs: dict[str, Any] = {
        "weights": jax.ShapeDtypeStruct(inputs["weights"].shape, dtype),
        "logits": jax.ShapeDtypeStruct((plan.records, n, networks), dtype),
    }
    if plan.rule.momentum:
        outputs["velocity"] = outputs["weights"]
    if plan.keep:
        outputs["kept"] = jax.ShapeDtypeStruct((plan.records, *inputs["weights"].shape), dtype)

    def spec(path, leaf):
        """The part of an array that a program sees: its block of networks, or everything."""
        name, shape = path[0].key, list(leaf.shape)
        if name in ("x", "push", "y", "q", "zero", "borders", "start"):
            return pl.BlockSpec(leaf.shape, lambda program: (0,) * len(shape))
        axis = len(shape) - (2 if name in ("weights", "velocity", "kept") else 1)
        shape[axis] = plan.tiling.block
        return pl.BlockSpec(tuple(shape), lambda program: tuple(program * (i == axis) for i in range(len(shape))))

    call = pl.pallas_call(
        partial(kernel, plan),
        out_shape=outputs,
        grid=(networks // plan.tiling.block,),
        in_specs=[jax.tree_util.tree_map_with_path(spec, inputs)],
        out_specs=jax.tree_util.tree_map_with_path(spec, outputs),
        interpret=plan.interpret,
        compiler_params=None if plan.interpret else triton.CompilerParams(num_warps=plan.tiling.warps, num_stages=1),
        name="train_two_layer_relu",
    )
    return call(inputs)


class Pallas(Engine):
    """One GPU kernel for a whole run, a network in the registers of one program."""

    name: ClassVar[str] = "pallas"
    unsupported = staticmethod(unsupported)
    advance = staticmethod(advance)
