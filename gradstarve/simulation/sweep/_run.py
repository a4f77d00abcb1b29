"""The work of a sweep in one process: chunks read from the directory, the others trained and stored, all put together."""

from __future__ import annotations

import io
import queue
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt

from gradstarve.ground import Progress
from gradstarve.problem import Dataset, StochasticGradientDescent, TwoLayerReLU, draw_two_layer
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.engines._engine import Engine
from gradstarve.simulation.sweep._plan import Block, Configuration
from gradstarve.simulation.sweep._statistics import Part, join, part_of_block, summarise
from gradstarve.simulation.sweep._store import Store

# Training the blocks of a sweep: on each device by its own threads, handed back in their order.

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
    dynamics = dynamics.spread(z.shape[:1], w.dtype)
    keys = None
    if isinstance(dynamics, StochasticGradientDescent):
        keys = jax.vmap(lambda number: jax.random.fold_in(key_of_draws(key), number))(numbers)
    return reference.start(networks, dynamics, keys), dynamics, networks(data.points)[None]


class Trainer:
    """Trains one block on one device: `trainer(block, device)` is its `Part` and the records that are kept."""

    def __init__(
        self,
        found: list[Configuration],
        engine: Engine,
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
        kind = (device, self.engine.name, self.size, self.steps, self.every, points.shape, points.dtype, one.data.dim)
        kind += (one.width, one.basis is None, str(one.loss), moved, one.phases and one.phases.until)
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
                    [data for _, data in one.stretches(self.steps)],
                    one.basis,
                    jnp.asarray(self.threshold, dtype),
                )
                self._here[number, device] = jax.device_put(given, device)
            return self._here[number, device]

    def _train(self, block: Block, device: Any) -> tuple[Part, dict[str, np.ndarray]]:
        one = self.found[block.configuration]
        key, scales, dynamics, datas, basis, threshold = self._constants(block.configuration, device)
        # The last block is filled with networks that nobody asked for.
        first = self.first_seed + block.first
        numbers = jax.device_put((first + np.arange(self.size)).astype(np.uint32), device)
        drawn = draw_two_layer(key, numbers, *scales, one.width, one.data.dim)
        state, dynamics, start = begin(key, numbers, drawn, dynamics, datas[0], basis)
        seen, recorded = [start], [1]
        for data, (steps, _) in zip(datas, one.stretches(self.steps), strict=True):
            whole, rest = divmod(steps, self.every)
            for records, every in ((whole, self.every), (1, rest)):
                if records and every:
                    state, logits, _ = self.engine.advance(state, data, one.loss, dynamics, records, every, False)
                    seen.append(logits)
            recorded.append(whole + bool(rest))
        logits = jnp.concatenate(seen)
        count = jax.device_put(np.int32(block.count), device)
        found = summarise(logits, *_answers(datas, recorded), one.loss, threshold, count)
        kept = {}
        if self.keep != "statistics":
            kept = {name: getattr(state.networks, name) for name in ("w", "z")}
            kept["logits"] = jnp.moveaxis(logits if self.keep == "logits" else logits[-1:], 0, 1)
        found, kept = jax.device_get((found, kept))
        part = part_of_block(found, block.number, first)
        return part, {name: value[: block.count] for name, value in kept.items()}


def _answers(datas: list[Dataset], recorded: list[int]) -> tuple[Array, Array]:
    """Labels and weights, [n], or of each record where they change, [records, n]; `recorded`: at the start, by phase."""
    if len(datas) == 1:
        return datas[0].labels, datas[0].weights
    phase = np.repeat(np.arange(len(datas)), [recorded[0] + recorded[1], *recorded[2:]])
    labels, weights = (jnp.stack([getattr(data, name) for data in datas])[phase] for name in ("labels", "weights"))
    return labels, weights


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


# What the processes of `jax.distributed` tell each other at the end of a sweep: their arrays, byte for byte.


def gather(arrays: dict[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The `arrays` of every process, in the order of the processes, in each of them; names and shapes may differ.

    They travel as bytes, because JAX would make float32 of float64 in its 32-bit mode.
    """
    if jax.process_count() == 1:
        return [arrays]
    from jax.experimental.multihost_utils import process_allgather

    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    mine = np.frombuffer(buffer.getvalue(), np.uint8)
    lengths = np.asarray(process_allgather(np.array([mine.size], np.uint32))).reshape(-1)
    padded = np.zeros(int(lengths.max()), np.uint8)
    padded[: mine.size] = mine
    everything = np.asarray(process_allgather(padded)).reshape(len(lengths), -1)
    found = []
    for row, length in zip(everything, lengths, strict=True):
        with np.load(io.BytesIO(row[: int(length)].tobytes())) as stored:
            found.append({name: stored[name] for name in stored.files})
    return found


# The whole of it.

Arrays = dict[str, np.ndarray]
Compute = Callable[[list[Block]], Iterator[tuple[Block, tuple[Part, Arrays]]]]


class Job:
    """The chunks of this process: every P-th of all `chunks`, P processes.

    In a chunk's arrays "3.mean" is an entry of the `Part` of configuration 3, and "3.kept.w" holds the kept records of its
    networks, [networks of the chunk, ...].
    """

    def __init__(self, chunks: list[list[Block]], configurations: int, store: Store | None):
        self.chunks, self.store = chunks, store
        self.mine = range(jax.process_index(), len(chunks), jax.process_count())
        self.total = sum(block.count for number in self.mine for block in chunks[number])
        self._parts: list[Part | None] = [None] * configurations
        self._kept: Arrays = {}
        self._stored = 0

    def run(self, compute: Compute, bar: Progress) -> None:
        """Everything of this process that is not in the directory yet."""
        todo = []
        for number in self.mine:
            arrays, wrong = self._load(number)
            if wrong and self.store and self.store.writable:
                warnings.warn(f"{wrong}; it is computed again", UserWarning, stacklevel=3)
            if arrays is None:
                todo.append(number)
            else:
                self._take(number, arrays)
        if todo and self.store:
            self.store.check_can_compute(len(todo))
        done = self._stored
        bar.update(done, fresh=False)
        place = {self.chunks[number][-1].number: number for number in todo}
        parts: dict[int, Part] = {}
        kept: dict[str, list[np.ndarray]] = {}
        with closing(compute([block for number in todo for block in self.chunks[number]])) as outcomes:  # pyright: ignore
            for block, (part, records) in outcomes:
                which = block.configuration
                parts[which] = join(parts.get(which), part)
                for name, value in records.items():
                    kept.setdefault(f"{which}.kept.{name}", []).append(value)
                done += block.count
                bar.update(done)
                if block.number in place:
                    arrays = {f"{one}.{name}": value for one, part in parts.items() for name, value in part.items()}
                    arrays |= {name: np.concatenate(values) for name, values in kept.items()}
                    number = place[block.number]
                    if self.store:
                        self.store.save(number, arrays)
                    self._take(number, arrays)
                    parts, kept = {}, {}

    def _load(self, number: int) -> tuple[Arrays | None, str | None]:
        """The arrays of a chunk that is stored and has the blocks that it should have, or what is wrong with it."""
        if self.store is None:
            return None, None
        arrays, wrong = self.store.load(number)
        if arrays is not None:
            for which in {block.configuration for block in self.chunks[number]}:
                wanted = [block.number for block in self.chunks[number] if block.configuration == which]
                found = entries(arrays, which).get("block", np.array([])).tolist()
                if found != wanted:
                    return None, f"chunk {number} holds blocks {found} of configuration {which} in place of {wanted}"
        return arrays, wrong

    def _take(self, number: int, arrays: Arrays) -> None:
        """Add a finished chunk; its kept records stay on the disk if they are there."""
        for which in {block.configuration for block in self.chunks[number]}:
            self._parts[which] = join(self._parts[which], entries(arrays, which))
        if self.store is None:
            self._kept |= {f"{number}.{name}": value for name, value in arrays.items() if ".kept." in name}
        self._stored += sum(block.count for block in self.chunks[number])

    def everything(self) -> tuple[list[Part], Callable[[int], Arrays]]:
        """One part per configuration, of all processes, and what reads the kept records of a configuration."""
        mine = {f"{i}.{name}": value for i, part in enumerate(self._parts) if part for name, value in part.items()}
        parts: list[Part | None] = [None] * len(self._parts)
        records: Arrays = {}
        for arrays in gather(mine | self._kept):
            records |= {name: value for name, value in arrays.items() if ".kept." in name}
            for which in range(len(parts)):
                part = entries(arrays, which)
                if part:
                    parts[which] = join(parts[which], part)
        return [part for part in parts if part is not None], self._reader(records)

    def _reader(self, records: Arrays) -> Callable[[int], Arrays]:
        chunks, store = self.chunks, self.store

        def read(which: int) -> Arrays:
            found: dict[str, list[np.ndarray]] = {}
            for number, chunk in enumerate(chunks):
                if all(block.configuration != which for block in chunk):
                    continue
                if store is None:
                    arrays = {n.partition(".")[2]: v for n, v in records.items() if n.startswith(f"{number}.")}
                else:
                    arrays, wrong = self._load(number)
                    if arrays is None:
                        raise ValueError(f"{wrong or f'chunk {number} is gone'}; run the same sweep again")
                for name, value in arrays.items():
                    if name.startswith(f"{which}.kept."):
                        found.setdefault(name.rpartition(".")[2], []).append(value)
            return {name: np.concatenate(values) for name, values in found.items()}

        return read

    def where_it_stands(self) -> str:
        """For whoever stopped it."""
        if self.store is None:
            return "the sweep was stopped and nothing of it is stored; with directory= it could go on from here"
        return (
            f"the sweep was stopped with {self._stored} of {self.total} networks stored in "
            f"{str(self.store.directory)!r}; run the same sweep again and it goes on from them"
        )


def entries(arrays: Arrays, which: int) -> Part:
    """The `Part` of configuration `which` among the arrays of a chunk."""
    start = f"{which}."
    return {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start) and ".kept." not in name}
