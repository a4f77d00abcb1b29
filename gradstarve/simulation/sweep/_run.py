"""The work of a sweep in one process: chunks read from the directory, the others trained and stored, all put together."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import closing

import jax
import numpy as np

from gradstarve.ground import Progress
from gradstarve.simulation.sweep._plan import Block
from gradstarve.simulation.sweep._statistics import Part, join
from gradstarve.simulation.sweep._store import Store
from gradstarve.simulation.sweep._sweep_processes import gather

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
