"""The work of a sweep in one task: chunks read from the directory, the others trained and stored, all put together."""

from __future__ import annotations

import io
import queue
import threading
import time
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
from gradstarve.problem import Dataset, Steps, StochasticGradientDescent, TwoLayerReLU, draw_two_layer
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.engines._engine import Engine
from gradstarve.simulation.sweep._plan import Block, Configuration, chunks_of, grid_of
from gradstarve.simulation.sweep._statistics import Part, join, own_of_block, part_of_block, summarise
from gradstarve.simulation.sweep._store import Piece, Reader, Store, index

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
    networks: Any,
    dynamics: Any,
    data: Dataset,
    basis: Float[Array, "k d"] | None,
) -> tuple[reference.State, Any, Float[Array, "1 b n"]]:
    """The state of the `networks` [b] drawn, of these `numbers`, before step 0, their dynamics [b], and their logits."""
    if basis is not None:
        w = jnp.einsum("bhd,kd->bhk", networks.w, basis, precision="highest")
        networks = TwoLayerReLU(w, networks.z)
    keys = None
    if isinstance(dynamics, Steps):
        dynamics = dynamics.spread(numbers.shape, networks.dtype)
    if isinstance(dynamics, StochasticGradientDescent):
        keys = jax.vmap(lambda number: jax.random.fold_in(key_of_draws(key), number))(numbers)
    return reference.start(networks, dynamics, keys), dynamics, networks(data.points)[None]


def draw(one: Configuration, key: Array, numbers: Any, scales: tuple[Array, Array]) -> Any:
    """The networks of these `numbers`, each a function of its number, the key and the configuration alone."""
    if one.network is None:
        return TwoLayerReLU(*draw_two_layer(key, numbers, *scales, one.width, one.data.dim))
    networks = _draw_own(one.network, key, jnp.asarray(numbers))
    return jax.tree.map(lambda leaf: leaf.astype(one.data.points.dtype), networks)


@eqx.filter_jit
def _draw_own(network: Callable[[Any], Any], key: Array, numbers: UInt[Array, " b"]) -> Any:
    return eqx.filter_vmap(lambda number: network(jax.random.fold_in(key, number)))(numbers)


def leaves_of(networks: Any) -> dict[str, Any]:
    """The arrays of networks by name, such as "w" and "z"."""
    found = jax.tree_util.tree_leaves_with_path(networks)
    return {jax.tree_util.keystr(path).lstrip("."): leaf for path, leaf in found}


class Trainer:
    """Trains one block on one device: `trainer(block, device)` is its `Part` and the records that are kept.

    `recall(block)`: the records that were kept of its networks by an earlier sweep which trained them, or None. They are
    read in place of training.
    """

    def __init__(
        self,
        found: list[Configuration],
        engine: Engine,
        recall: Callable[[Block], dict[str, np.ndarray] | None] = lambda block: None,
        *,
        key: Array,
        first_seed: int,
        sizes: list[int],
        steps: int,
        every: int,
        threshold: float,
        keep: str,
        own: Any = None,
    ):
        self.found, self.engine, self.key, self.first_seed = found, engine, key, first_seed
        self.sizes, self.steps, self.every, self.threshold, self.keep = sizes, steps, every, threshold, keep
        self.own, self.recall = own or {}, recall
        self._guard = threading.Lock()
        self._compiling: dict[Any, threading.Lock] = {}
        self._here: dict[Any, Any] = {}

    def __call__(self, block: Block, device: Any) -> tuple[Part, dict[str, np.ndarray]]:
        """Two threads must not compile one program twice, so the first block of its kind goes alone."""
        one = self.found[block.configuration]
        points, moved = one.problem.points, jax.tree.structure(one.dynamics)
        size = self.sizes[block.configuration]
        kind = (device, self.engine.name, size, self.steps, self.every, points.shape, points.dtype, one.data.dim)
        kind += (one.width, one.basis is None, str(one.loss), moved, one.phases and one.phases.until, id(one.network))
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
                # An optimiser of optax is made of functions.
                arrays, others = eqx.partition(given, eqx.is_array)
                self._here[number, device] = eqx.combine(jax.device_put(arrays, device), others)
            return self._here[number, device]

    def _train(self, block: Block, device: Any) -> tuple[Part, dict[str, np.ndarray]]:
        one = self.found[block.configuration]
        key, scales, dynamics, datas, basis, threshold = self._constants(block.configuration, device)
        # The last block is filled with networks beyond those asked for.
        first = self.first_seed + block.first
        numbers = jax.device_put((first + np.arange(self.sizes[block.configuration])).astype(np.uint32), device)
        drawn = draw(one, key, numbers, scales)
        state, dynamics, start = begin(key, numbers, drawn, dynamics, datas[0], basis)
        known = self.recall(block)
        if known is None:
            networks, logits = self._advance(one, state, datas, dynamics, start)
        else:
            networks, logits = jax.device_put(_as_trained(known, state.networks, len(numbers)), device)
        count = jax.device_put(np.int32(block.count), device)
        answers = _answers(datas, [1, *(-(-steps // self.every) for steps, _ in one.stretches(self.steps))])
        found = summarise(logits, *answers, one.loss, threshold, count)
        kept = {}
        if self.keep != "statistics":
            kept = leaves_of(networks)
            kept["logits"] = jnp.moveaxis(logits if self.keep == "logits" else logits[-1:], 0, 1)
        own = {}
        if self.own:
            diverged, steps = found["diverged"], tuple(grid_of(one, self.steps, self.every).tolist())
            until = None if one.phases is None else one.phases.until
            ends = drawn, networks
            own = own_of_block(self.own, steps, until, ends, logits, datas, one.loss, diverged, count)
        found, kept, own = jax.device_get((found, kept, own))
        part = {name: wide(value)[None] for name, value in own.items()}
        part |= part_of_block(found, first)
        return part, {name: value[: block.count] for name, value in kept.items()}

    def _advance(self, one: Configuration, state: Any, datas: list[Dataset], dynamics: Any, start: Any) -> tuple[Any, Array]:
        """The networks after all steps, and the logits at all records, [records, b, n]; `start`: those before step 0."""
        seen = [start]
        for data, (steps, _) in zip(datas, one.stretches(self.steps), strict=True):
            whole, rest = divmod(steps, self.every)
            for records, every in ((whole, self.every), (1, rest)):
                if records and every:
                    state, logits, _ = self.engine.advance(state, data, one.loss, dynamics, records, every, False)
                    seen.append(logits)
        return state.networks, jnp.concatenate(seen)


def _as_trained(known: dict[str, np.ndarray], like: Any, size: int) -> tuple[Any, np.ndarray]:
    """Networks and logits [records, b, n] of kept records, filled with zeros to a block of `size`: those do not count."""

    def filled(value: np.ndarray) -> np.ndarray:
        return np.concatenate([value, np.zeros((size - len(value), *value.shape[1:]), value.dtype)])

    leaves = [filled(known[name]) for name in leaves_of(like)]
    return jax.tree.unflatten(jax.tree.structure(like), leaves), np.moveaxis(filled(known["logits"]), 1, 0)


def wide(array: Any) -> np.ndarray:
    """In 64 bits."""
    return np.asarray(array, np.int64 if np.asarray(array).dtype.kind in "iu" else np.float64)


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
Compute = Callable[[Iterable[Block]], Iterator[tuple[Block, tuple[Part, Arrays]]]]


# How long a task that has nothing left to compute waits for the chunks of others before it looks again.
_PATIENCE = (0.05, 2.0)


class Job:
    """The chunks of a sweep. Without a directory process p of P computes every P-th; with one it computes what it claims.

    In the arrays of a chunk "mean" is an entry of its `Part`, and "kept.w" holds the kept records, [networks, ...].
    """

    def __init__(self, blocks: list[list[Block]], sizes: list[int], length: int, first_seed: int, store: Reader | None):
        self.store, self.first_seed = store, first_seed
        stored = index(store.directory) if store else {}
        there: dict[str, set[tuple[int, int]]] = {}
        for sweep, first, count in stored:
            there.setdefault(sweep, set()).add((first - first_seed, count))
        self.chunks: list[list[Block]] = []
        for which, mine in enumerate(blocks):
            code = store.sweeps[which][:16] if store else ""
            spans = there.get(code, set()).copy()
            for source in store.sources[which] if store else ():
                spans |= _beside(there.get(source[:16], set()), spans)
            self.chunks += chunks_of(mine, sizes[which], length, spans)
        self._there = {n for n in range(len(self.chunks)) if store and _key(self.piece(n)) in stored}
        # What a chunk can be made of that is not there; and, of all chunks, in which one a block is.
        self._sources: dict[int, tuple[Piece, str]] = {}
        for number in set(range(len(self.chunks))) - self._there:
            piece = self.piece(number)
            for source, what in store.sources[self.chunks[number][0].configuration].items() if store else ():
                if _key(piece._replace(sweep=source)) in stored:
                    self._sources[number] = piece._replace(sweep=source), what
        self._home = {block.number: number for number, chunk in enumerate(self.chunks) for block in chunk}
        self._recalled: dict[int, Arrays | None] = {}
        self._guard = threading.Lock()
        shared = jax.process_count() if store is None else 1
        self.mine = range(jax.process_index() if shared > 1 else 0, len(self.chunks), shared)
        self.total = sum(block.count for number in self.mine for block in self.chunks[number])
        self._parts: list[Part | None] = [None] * len(blocks)
        self._kept: Arrays = {}
        self._stored = 0
        self._finished: set[int] = set()

    def piece(self, number: int) -> Piece:
        """What chunk `number` is called."""
        chunk = self.chunks[number]
        sweep = self.store.sweeps[chunk[0].configuration] if self.store else ""
        return Piece(sweep, self.first_seed + chunk[0].first, sum(block.count for block in chunk))

    def recall(self, block: Block) -> Arrays | None:
        """The records of a block that were kept by an earlier sweep of the same training; see `Trainer`."""
        number = self._home[block.number]
        if number not in self._sources or self._sources[number][1] != "logits":
            return None
        with self._guard:  # blocks come in their order, a few at a time
            if number not in self._recalled:
                while len(self._recalled) >= 2:
                    self._recalled.pop(next(iter(self._recalled)))
                self._recalled[number] = self._kept_elsewhere(number)
            arrays = self._recalled[number]
        if arrays is None:
            return None
        first = block.first - self.chunks[number][0].first
        return {name: value[first : first + block.count] for name, value in arrays.items()}

    def _kept_elsewhere(self, number: int) -> Arrays | None:
        """What was kept of all networks of a chunk, by name; None where it is damaged, so that it is trained again."""
        assert self.store is not None
        piece, _ = self._sources[number]
        arrays, _ = self.store.load(piece)
        found = {name.partition(".")[2]: value for name, value in (arrays or {}).items() if name.startswith("kept.")}
        return found if "logits" in found and all(len(value) == piece.count for value in found.values()) else None

    def _with_less_kept(self, number: int) -> Arrays | None:
        """A chunk whose statistics are those of a stored one that kept more; None where there is none, or it is damaged."""
        if number not in self._sources or self._sources[number][1] != "part":
            return None
        assert self.store is not None
        arrays, _ = self._load(number, self._sources[number][0])
        if arrays is None:
            return None
        if self.store.settings["keep"] == "statistics":
            return {name: value for name, value in arrays.items() if not name.startswith("kept.")}
        return arrays | {"kept.logits": arrays["kept.logits"][:, -1:]}

    def read(self) -> tuple[int, list[str]]:
        """Take the chunks that are stored; how many networks are missing, and what is wrong with chunks that are damaged."""
        damaged = []
        for number in self.mine if self.store else ():
            arrays, wrong = self._load(number) if number in self._there else (None, None)
            if arrays is not None:
                self._take(number, arrays)
            elif wrong:
                damaged.append(wrong)
        return self.total - self._stored, damaged

    def run(self, compute: Compute, bar: Progress) -> None:
        """Everything of this process that is not in the directory yet."""
        _, damaged = self.read()
        todo = [number for number in self.mine if number not in self._finished]
        if isinstance(self.store, Store):
            for wrong in damaged if self.store.writable else ():
                warnings.warn(f"{wrong}; it is computed again", UserWarning, stacklevel=3)
            if todo:
                self.store.check_can_compute(len(todo))
        bar.update(self._stored, fresh=False)
        patience = _PATIENCE[0]
        while todo:
            before = self._stored
            self._compute(todo, compute, bar)
            # What others compute: it comes, or they are gone and leave it to this task.
            todo = [number for number in todo if number not in self._finished]
            if todo and self._stored == before:
                time.sleep(patience)
                patience = min(2 * patience, _PATIENCE[1])

    def _compute(self, todo: list[int], compute: Compute, bar: Progress) -> None:
        """Those chunks of `todo` that no other task is at work on, or has finished."""
        claimed: list[int] = []

        def blocks() -> Iterator[Block]:
            for number in todo:
                if isinstance(self.store, Store):
                    if not self.store.claim(self.piece(number)):
                        continue
                    # Another task may have finished it, and given it back, a moment ago.
                    arrays, _ = self._load(number)
                    if arrays is None:
                        arrays = self._with_less_kept(number)
                        if arrays is not None:
                            self.store.save(self.piece(number), arrays)
                    if arrays is not None:
                        self.store.claims.release(str(self.piece(number)))
                        self._take(number, arrays)
                        bar.update(self._stored)
                        continue
                claimed.append(number)
                yield from self.chunks[number]

        parts: Part | None = None
        kept: dict[str, list[np.ndarray]] = {}
        done = 0
        with closing(compute(blocks())) as outcomes:  # pyright: ignore
            for block, (part, records) in outcomes:
                parts = join(parts, part)
                for name, value in records.items():
                    kept.setdefault(f"kept.{name}", []).append(value)
                done += block.count
                bar.update(self._stored + done)
                number = claimed[0]
                if block.number == self.chunks[number][-1].number:
                    arrays = dict(parts) | {name: np.concatenate(values) for name, values in kept.items()}
                    if isinstance(self.store, Store):
                        self.store.save(self.piece(number), arrays)
                        self.store.claims.release(str(self.piece(number)))
                    self._take(number, arrays)
                    parts, kept, done = None, {}, 0
                    claimed.pop(0)

    def _load(self, number: int, source: Piece | None = None) -> tuple[Arrays | None, str | None]:
        """The arrays of a chunk that is stored and has the blocks that it should have, or what is wrong with it.

        `source`: the chunk of the same networks that it is read from, itself by default.
        """
        assert self.store is not None
        arrays, wrong = self.store.load(source or self.piece(number))
        if arrays is not None:
            wanted = [self.first_seed + block.first for block in self.chunks[number]]
            found = arrays.get("block", np.array([])).tolist()
            if found != wanted:
                return None, f"chunk {self.piece(number)} holds blocks that begin at {found} in place of {wanted}"
        return arrays, wrong

    def _take(self, number: int, arrays: Arrays) -> None:
        """Add a finished chunk; its kept records stay on the disk if they are there."""
        which = self.chunks[number][0].configuration
        part = {name: value for name, value in arrays.items() if not name.startswith("kept.")}
        self._parts[which] = join(self._parts[which], part)
        if self.store is None:
            self._kept |= {f"{number}.{name}": value for name, value in arrays.items() if name.startswith("kept.")}
        self._stored += sum(block.count for block in self.chunks[number])
        self._finished.add(number)

    def everything(self) -> tuple[list[Part], Callable[[int], Arrays]]:
        """One part per configuration, of all processes, and what reads the kept records of a configuration."""
        if self.store is not None:
            return [part for part in self._parts if part is not None], self._reader({})
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
        def read(which: int) -> Arrays:
            found: dict[str, list[np.ndarray]] = {}
            for number, chunk in enumerate(self.chunks):
                if chunk[0].configuration != which:
                    continue
                if self.store is None:
                    arrays = {n.partition(".")[2]: v for n, v in records.items() if n.startswith(f"{number}.")}
                else:
                    arrays, wrong = self._load(number)
                    if arrays is None:
                        raise ValueError(f"{wrong or f'chunk {self.piece(number)} is gone'}; run the same sweep again")
                for name, value in arrays.items():
                    if name.startswith("kept."):
                        found.setdefault(name.partition(".")[2], []).append(value)
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


def _beside(spans: set[tuple[int, int]], taken: set[tuple[int, int]]) -> set[tuple[int, int]]:
    """Those of the `spans` (first, count) that have no seed in common with one that is `taken`."""
    return {
        (first, count)
        for first, count in spans
        if not any(first < other + size and other < first + count for other, size in taken)
    }


def _key(piece: Piece) -> tuple[str, int, int]:
    return piece.sweep[:16], piece.first, piece.count


def entries(arrays: Arrays, which: int) -> Part:
    """The `Part` of configuration `which` among the arrays of a chunk."""
    start = f"{which}."
    return {name[len(start) :]: value for name, value in arrays.items() if name.startswith(start) and ".kept." not in name}
