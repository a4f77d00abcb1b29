"""What one program of the GPU simulator does: it trains its BLOCK networks for the whole run, the weights in registers.

The arithmetic is that of `lanes`, with networks in the first axis instead of the last: arrays [BLOCK, H], one per coordinate
of w and one for z, so that the neurons of a network lie side by side in the threads of a warp and sums over neurons are
sums along the last axis. Padded neurons have w = 0 and z = 0 and keep them, padded networks have step size 0.

A kernel is written on references: `inputs` and `outputs` are dicts of them, each showing this program's part of an array.

- `weights`, `velocity`, `kept`: [(records,) D, BLOCK, H]; rows are w_1, ..., w_d, z and zeros up to a power of two D;
- `step_size`, `momentum`, `decay`: [BLOCK]; `keys`: two of [BLOCK], the words of the networks' keys;
- `x`: [n d] point by point, `y`, `q`: [n], filled with points of weight zero up to whole turns; `push`: like `x`, there for
  lifted points only (see `span`), whose step is along other numbers than those they are read by;
- `borders`: `threefry.thresholds`, `start`: the number of the first step, `zero`: the number 0;
- `logits`: [records, n, BLOCK].
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array

from gradstarve.problem import Loss
from gradstarve.simulation.engines._lanes import Hyper, Lanes, Rule, moved, total
from gradstarve.simulation.engines._threefry import fold_in_bits
from gradstarve.simulation.engines._tiling import Tiling


class Plan(NamedTuple):
    """Everything that the program is compiled for besides shapes."""

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

    # Few points are read once and for all.
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
    """`fori_loop`, counted in 32 bits also where JAX counts in 64."""
    return jax.lax.fori_loop(0, count, lambda k, carry: body(jnp.int32(k), carry), carry)


def _row(shape: tuple[int, ...]) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, shape, 0)


def _load(tiling: Tiling, zero: Any, d: int, ref: Any) -> tuple[list[Array], Array]:
    """The rows of `ref` [D, BLOCK, H] as arrays of their own: w as a list, and z.

    All in one load, because Triton's time to compile grows with the number of loads and stores times the square of the
    program's length. For a load it gives as many neighbouring neurons to a thread as the thread may load at once; an offset
    `zero`, which it knows as nothing but a multiple of `each`, says how many that shall be.
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
    """The point that each network draws, [BLOCK]: `threefry.draw`, the borders that the bits reach counted by halving."""
    k0, k1 = (words[:] for words in inputs["keys"])
    bits = fold_in_bits(k0, k1, inputs["start"][0] + step.astype(jnp.uint32))
    reached = jnp.zeros(bits.shape, jnp.int32)
    half = inputs["borders"].shape[0] // 2
    while half:
        further = reached + half
        # What stands beyond the last border fills it up to a power of two and counts for nothing.
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
