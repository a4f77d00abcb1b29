"""Training the blocks of a sweep: on each device by its own threads, handed back in their order."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from gradstarve.problem import Dataset, StochasticGradientDescent, TwoLayerReLU, draw_two_layer
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.sweep._plan import Block, Configuration
from gradstarve.simulation.sweep._statistics import Part, part_of_block, summarise

# The number of no network: seeds end below it.
DRAWS = 2**32 - 1
# Kinds of blocks that this process has compiled, as JAX keeps them from one sweep to the next.
_COMPILED: set[Any] = set()


def key_of_draws(key: Array) -> Array:
    """The key that stochastic descent draws its points by; `simulate` given it draws the same for network i."""
    return jax.random.fold_in(key, DRAWS)


@eqx.filter_jit
def begin(
    key: Array,
    numbers: UInt[Array, " b"],
    drawn: tuple[Float[Array, "b h d"], Float[Array, "b h"]],
    dynamics: Any,
    data: Dataset,
    basis: Float[Array, "k d"] | None,
) -> tuple[reference.State, Any, Float[Array, "1 b n"]]:
    """The state of the networks `drawn`, of these `numbers`, before step 0, their dynamics [b], and their logits."""
    w, z = drawn
    if basis is not None:
        w = jnp.einsum("bhd,kd->bhk", w, basis, precision="highest")
    networks = TwoLayerReLU(w, z)
    dynamics = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.astype(w.dtype), z.shape[:1]), dynamics)
    keys = None
    if isinstance(dynamics, StochasticGradientDescent):
        keys = jax.vmap(lambda number: jax.random.fold_in(key_of_draws(key), number))(numbers)
    return reference.start(networks, dynamics, keys), dynamics, networks(data.points)[None]


class Trainer:
    """Trains one block on one device: `trainer(block, device)` is its `Part` and the records that are kept."""

    def __init__(
        self,
        found: list[Configuration],
        engine: ModuleType,
        *,
        key: Array,
        first_seed: int,
        size: int,
        steps: int,
        every: int,
        threshold: float,
        keep: str,
    ):
        self.found, self.engine, self.key, self.first_seed = found, engine, key, first_seed
        self.size, self.steps, self.every, self.threshold, self.keep = size, steps, every, threshold, keep
        self._guard = threading.Lock()
        self._compiling: dict[Any, threading.Lock] = {}
        self._here: dict[Any, Any] = {}

    def __call__(self, block: Block, device: Any) -> tuple[Part, dict[str, np.ndarray]]:
        """Two threads must not compile one program twice, so the first block of its kind goes alone."""
        one = self.found[block.configuration]
        points, moved = one.problem.points, jax.tree.structure(one.dynamics)
        kind = (device, self.engine.__name__, self.size, self.steps, self.every, points.shape, points.dtype, one.data.dim)
        kind += (one.width, one.basis is None, str(one.loss), moved)
        if kind in _COMPILED:
            return self._train(block, device)
        with self._guard:
            alone = self._compiling.setdefault(kind, threading.Lock())
        with alone:
            outcome = self._train(block, device)
        _COMPILED.add(kind)
        return outcome

    def _constants(self, number: int, device: Any) -> Any:
        """What a configuration's blocks have in common, on `device`. The few last used are kept."""
        with self._guard:
            if (number, device) not in self._here:
                one = self.found[number]
                dtype = one.problem.points.dtype
                while len(self._here) >= 64:
                    self._here.pop(next(iter(self._here)))
                given = (
                    self.key,
                    (jnp.asarray(one.scale_w, dtype), jnp.asarray(one.scale_z, dtype)),
                    one.dynamics,
                    one.problem,
                    one.basis,
                    jnp.asarray(self.threshold, dtype),
                )
                self._here[number, device] = jax.device_put(given, device)
            return self._here[number, device]

    def _train(self, block: Block, device: Any) -> tuple[Part, dict[str, np.ndarray]]:
        one = self.found[block.configuration]
        key, scales, dynamics, data, basis, threshold = self._constants(block.configuration, device)
        # The last block is filled with networks that nobody asked for.
        first = self.first_seed + block.first
        numbers = jax.device_put((first + np.arange(self.size)).astype(np.uint32), device)
        drawn = draw_two_layer(key, numbers, *scales, one.width, one.data.dim)
        state, dynamics, start = begin(key, numbers, drawn, dynamics, data, basis)
        seen = [start]
        whole, rest = divmod(self.steps, self.every)
        for records, every in ((whole, self.every), (1, rest)):
            if records and every:
                state, logits, _ = self.engine.advance(state, data, one.loss, dynamics, records, every, False)
                seen.append(logits)
        logits = jnp.concatenate(seen)
        count = jax.device_put(np.int32(block.count), device)
        found = summarise(logits, data, one.loss, threshold, count)
        kept = {}
        if self.keep != "statistics":
            kept = {name: getattr(state.networks, name) for name in ("w", "z")}
            kept["logits"] = jnp.moveaxis(logits if self.keep == "logits" else logits[-1:], 0, 1)
        found, kept = jax.device_get((found, kept))
        part = part_of_block(found, block.number, first)
        return part, {name: value[: block.count] for name, value in kept.items()}


def in_order(
    blocks: Iterable[Block], train: Callable[[Block, Any], Any], devices: list, threads: int
) -> Iterator[tuple[Block, Any]]:
    """`train(block, device)` of every block in the order given, computed by `threads` threads spread over `devices`.

    Not more than two blocks per thread are under way or waiting to be taken. When the consumer stops, for an error or an
    interrupt, blocks under way are finished and no others begun.
    """
    places: queue.SimpleQueue = queue.SimpleQueue()
    for thread in range(threads):
        places.put(devices[thread % len(devices)])
    mine = threading.local()

    def settle() -> None:
        mine.device = places.get()

    waiting: deque[tuple[Block, Future]] = deque()
    pool = ThreadPoolExecutor(threads, "sweep", initializer=settle)
    try:
        for block in blocks:
            if len(waiting) >= 2 * threads:
                done, future = waiting.popleft()
                yield done, future.result()
            waiting.append((block, pool.submit(lambda block: train(block, mine.device), block)))
        while waiting:
            done, future = waiting.popleft()
            yield done, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
