"""The simulator for GPUs: one launch trains every network for the whole run, with the weights in registers.

A loop in XLA launches some ten kernels a step, and for small networks these launches are all the time there is: between
them every weight goes to the card's memory and comes back. Here a program, a block of threads, loads the weights of a few
networks once, does all `records * every` steps on them in registers, and writes only the logits at every record and the
weights at the end. Networks do not talk to each other, so no program ever waits for another. `kernel` says what a program
does, `tiling` how many networks it has and which thread holds what.

The kernel is written in Pallas and compiled by Triton. Where there is no GPU it is interpreted: slow, the same arithmetic,
good for trying it. JAX calls Pallas' way to Triton deprecated since 0.11; what is used of it is the same from 0.10 to 0.11
and stands in `_launch`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jaxtyping import Array, Float

from gradstarve.ground import is_concrete
from gradstarve.problem import Dataset, Loss, Network, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation._span import Lifted, dimensions
from gradstarve.simulation.engines import _fused as fused
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.engines import _threefry as threefry
from gradstarve.simulation.engines._kernel import Plan, kernel
from gradstarve.simulation.engines._lanes import rule_for
from gradstarve.simulation.engines._reference import State
from gradstarve.simulation.engines._tiling import Tiling, power_of_two, tiling


def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
    """Why this engine can not run the problem, in words, or None if it can."""
    reason = fused.unsupported(data, network, loss, dynamics)
    if reason:
        return reason
    numbers = dimensions(data, isinstance(dynamics, StochasticGradientDescent))
    dtype = jnp.result_type(data.points, network.dtype)
    found = _tiling(network.width, numbers, data.size, dtype, rule_for(dynamics).momentum)
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
    """What `reference.advance` does, to rounding, for problems that are not `unsupported`.

    Compiled once for given shapes, `records`, `every` and options; a new step size, momentum or key is no new compilation.
    Momentum that is zero for every network leaves the velocities in `state` as they were: nothing reads them. Keys of
    another generator than JAX's default, which the kernel does not know, are left to the reference. `ValueError` for
    data of too many coordinates.
    """
    if isinstance(dynamics, StochasticGradientDescent) and not threefry.knows(state.memory):
        return reference.advance(state, data, loss, dynamics, records, every, keep_networks)
    plan = plan_for(state.networks, data, loss, dynamics, records, every, keep_networks)
    return run(plan, state, data, dynamics)


def plan_for(network: Any, data: Dataset, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool) -> Plan:
    """The program for this run, to be interpreted where the networks do not lie on a GPU."""
    rule = rule_for(dynamics)
    tiles = _tiling(network.width, data.dim, data.size, network.dtype, rule.momentum)
    if isinstance(tiles, str):
        raise ValueError(f'engine="pallas" can not run this: {tiles}; use engine="auto"')
    if is_concrete(network.z):
        on_gpu = all(device.platform == "gpu" for device in network.z.devices())
    else:
        on_gpu = jax.default_backend() == "gpu"
    stochastic = isinstance(dynamics, StochasticGradientDescent)
    return Plan(tiles, loss, rule, stochastic, records, every, keep_networks, interpret=not on_gpu)


@partial(jax.jit, static_argnums=0)
def run(plan: Plan, state: State, data: Dataset, dynamics: Any) -> tuple[State, Array, Network | None]:
    """The arrays brought into the kernel's layout, the kernel, and the way back."""
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
    """The kernel over all blocks of networks; the one place that knows Pallas' back ends."""
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
