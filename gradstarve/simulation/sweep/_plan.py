"""What a sweep is to do: its configurations, and how their networks are cut into blocks and chunks.

A *configuration* is one combination of the swept values. Its networks are cut into *blocks* of one size, which is chosen
from the problem alone: a block is what is compiled and computed, so that a network sees the same arithmetic whatever the
chunks, devices and processes. A *chunk* is a run of blocks that is stored at once and belongs to one process.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import check_normal, number, positive_int, real_arrays, shown
from gradstarve.problem import (
    Dataset,
    Dynamics,
    GradientDescent,
    Loss,
    Network,
    Phases,
    Schedule,
    Steps,
    TwoLayerReLU,
    are_phases,
    as_loss,
    as_phases,
    no_dynamics,
)
from gradstarve.simulation._simulate import ends_within
from gradstarve.simulation._span import Span
from gradstarve.simulation.engines._fused import cores
from gradstarve.simulation.sweep._identity import identity
from gradstarve.simulation.sweep._statistics import BINS

NETWORK_NAMES = ("width", "scale_w", "scale_z")
DYNAMICS_NAMES = ("step_size", "momentum", "weight_decay", "nesterov", "read_out_step_size", "radius", "batch_size")
NUMBERS = (*NETWORK_NAMES, *DYNAMICS_NAMES)
"""Settings that are one number for each configuration."""
TAKEN = ("step", "point", "quantile", "error_bin", "margin_bin", "seed")
"""Names that the axes of a result carry besides the swept ones."""
BLOCKS = {"cpu": (4096, 2048, 2**26), "other": (2**17, 2**13, 2**31)}
"""By platform: the most networks of a block, the fewest where one would do, and the bytes that a block may take."""
KEEP = ("statistics", "final", "logits")


@dataclass(frozen=True, eq=False)
class Configuration:
    """One combination of swept values, `swept`, and everything it stands for.

    `labels` tell the swept values apart in tables. `data` are as given; `problem` are those that are trained on, in few
    numbers and with repeated points merged, as `Span` makes them: w `basis`^T, `basis` [k, d], are the numbers of a neuron
    (None: its weights), and point i is row `index`[i]. Where data change, they are those of the `phases`, as given, and
    `data` and `problem` those of the first one.
    """

    swept: dict[str, Any]
    labels: dict[str, Any]
    width: int
    scale_w: float
    scale_z: float
    loss: Loss
    dynamics: Dynamics
    data: Dataset
    problem: Dataset
    basis: Any
    index: np.ndarray
    phases: Phases | None = None

    @property
    def given(self) -> Any:
        """The data as `simulate` takes them."""
        if self.phases is None:
            return self.data
        ends = [None if np.isinf(end) else int(end) for end in self.phases.until]
        return list(zip(ends, self.phases.data, strict=True))

    def stretches(self, steps: int) -> list[tuple[int, Dataset]]:
        """For how many steps each of the data is trained on."""
        if self.phases is None:
            return [(steps, self.problem)]
        ends = [int(end) for end in ends_within(self.phases, steps, "step")]
        return list(zip(np.diff(ends, prepend=0).tolist(), self.phases.data, strict=True))

    def as_given(self) -> Configuration:
        """The same, trained on the data as given: what every engine can do."""
        return replace(self, problem=self.data, basis=None, index=np.arange(self.data.size))

    def describe(self) -> str:
        """The swept values in one line."""
        return ", ".join(f"{name} = {value}" for name, value in self.labels.items()) or "the only configuration"


class Block(NamedTuple):
    """`count` networks of a configuration, from its `first` on, seeds counted from 0; `number` counts all blocks."""

    number: int
    configuration: int
    first: int
    count: int


def label(value: Any) -> Any:
    """A swept value as a coordinate: a number or a string."""
    if isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic | np.ndarray | jax.Array) and np.ndim(value) == 0:
        return np.asarray(value).item()
    return getattr(value, "name", None) or str(value)


def labels(name: str, values: list) -> list:
    """A label for each of the swept `values`, all different: objects of one name with the numbers in which they differ.

    `ValueError` for a value that is there twice.

    >>> from gradstarve.problem import SpectralDecoupling
    >>> labels("loss", ["hinge", *(SpectralDecoupling("hinge", c) for c in (0.1, 1.0))])
    ['hinge', 'hinge + spectral decoupling (penalty = 0.1)', 'hinge + spectral decoupling (penalty = 1)']
    """
    found = [label(value) for value in values]
    for shared in [one for i, one in enumerate(found) if one in found[:i] and one not in found[: i - 1]]:
        places = [i for i, one in enumerate(found) if one == shared]
        kinds = [_identity(values[i]) for i in places]
        if len({json.dumps(kind, sort_keys=True) for kind in kinds}) < len(kinds):
            raise ValueError(f"over[{name!r}] has {shared!r} more than once")
        leaves = [dict(_leaves(kind)) for kind in kinds]
        differing = [path for path in leaves[0] if len({json.dumps(one.get(path)) for one in leaves}) > 1]
        for digits in (3, 17):
            told = [", ".join(f"{path} = {_leaf(one.get(path), digits)}" for path in differing) for one in leaves]
            if len(set(told)) == len(told):
                break
        if len(set(told)) < len(told) or max(map(len, told)) > 40 or "sha256" in "".join(told):
            told = [f"{number}" for number in range(1, len(places) + 1)]
        for i, text in zip(places, told, strict=True):
            found[i] = f"{shared} ({text})"
    return found


def place_of(name: str, values: list, wanted: Any) -> int:
    """The place among the swept `values` of the one that is `wanted`, given as itself, as an equal one, or by its label."""
    told = labels(name, values)
    if isinstance(wanted, str) or (np.ndim(wanted) == 0 and isinstance(label(wanted), bool | int | float)):
        if label(wanted) in told:
            return told.index(label(wanted))
    else:
        kind = json.dumps(_identity(wanted), sort_keys=True)
        for i, value in enumerate(values):
            if value is wanted or json.dumps(_identity(value), sort_keys=True) == kind:
                return i
            if isinstance(value, str) and value == label(wanted):
                return i
    raise ValueError(f"{name} = {label(wanted)} was not swept; there are {', '.join(map(str, told))}")


def _identity(value: Any) -> Any:
    """What a value is made of, or the object itself by its place in memory where that cannot be told."""
    try:
        return identity(value)
    except ValueError:
        return {"object": id(value)}


def _leaves(kind: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(kind, dict):
        for key, entry in kind.items():
            yield from _leaves(entry, f"{path}.{key}" if path else str(key))
    else:
        yield path, kind


def _leaf(told: Any, digits: int) -> str:
    """A leaf of an identity, such as "float32 0.5", as people read it."""
    text = told if isinstance(told, str) else json.dumps(told)
    try:
        return number(float(text.rpartition(" ")[2]), digits)
    except ValueError:
        return text


def configurations(
    data: Any, over: Any, base: dict[str, Any]
) -> tuple[dict[str, list], list[Configuration]]:
    """The swept values by name, and the configurations in their order, the last name running fastest.

    `base`: width, scale_w, scale_z, loss and dynamics of the names that are not swept.
    """
    swept = _swept(over)
    dynamics = base["dynamics"]
    if not isinstance(dynamics, Steps):
        raise no_dynamics("GradientDescent(step_size) or other dynamics in steps in a sweep", dynamics)
    hyper = {}
    for name in DYNAMICS_NAMES:
        if hasattr(dynamics, name):
            value = getattr(dynamics, name)
            if np.ndim(value):
                raise ValueError(
                    f"the dynamics of a sweep have one {name}, got shape {np.shape(value)}; "
                    f'sweep over several with over={{"{name}": [...]}}'
                )
            hyper[name] = value if value is None or isinstance(value, Schedule) else np.asarray(value).item()
    own = {*NETWORK_NAMES, "loss", *hyper}
    of_data = [name for name in swept if name not in own]
    if isinstance(data, Network):
        raise ValueError(f"data must be a Dataset, or a function that makes one, got {type(data).__name__}")
    if of_data and not callable(data):
        raise ValueError(
            f"over has {', '.join(map(repr, of_data))}, which is no setting of this sweep ({', '.join(sorted(own))}); "
            "sweep over the data with a function that makes them, data=lambda frequency: ..."
        )
    told = {name: labels(name, values) for name, values in swept.items()}
    made: dict[tuple, tuple[Dataset, Dataset, Any, np.ndarray, Phases | None]] = {}
    found = []
    for places in itertools.product(*(range(len(values)) for values in swept.values())):
        chosen = {name: values[i] for (name, values), i in zip(swept.items(), places, strict=True)}
        names = {name: values[i] for (name, values), i in zip(told.items(), places, strict=True)}
        settings = base | {name: chosen[name] for name in chosen if name in base}
        arguments = {name: chosen[name] for name in of_data}
        # By place and not by value, since values need not be hashable.
        which = tuple(id(value) for value in arguments.values())
        if which not in made:
            made[which] = _prepare(data(**arguments) if callable(data) else data, isinstance(dynamics, GradientDescent))
        width = positive_int("width", settings["width"])
        scales = _scale("scale_w", settings["scale_w"]), _scale("scale_z", settings["scale_z"])
        changed = {name: chosen[name] for name in hyper if name in chosen}
        moved = type(dynamics)(**hyper | changed) if changed else dynamics
        found.append(Configuration(chosen, names, width, *scales, as_loss(settings["loss"]), moved, *made[which]))
    ends = {None if one.phases is None else one.phases.until for one in found}
    if len(ends) > 1:
        raise ValueError("every configuration must have phases with the same ends, or none; sweep them apart")
    sizes = {one.data.size for one in found}
    if len(sizes) > 1:
        raise ValueError(f"every configuration must have the same number of points, got {sorted(sizes)}; sweep them apart")
    return swept, found


def _swept(over: Any) -> dict[str, list]:
    if over is not None and not isinstance(over, Mapping):
        raise ValueError(f'over must be a dictionary of lists such as {{"step_size": [0.1, 0.3]}}, got {shown(over)}')
    swept = {}
    for name, values in (over or {}).items():
        if name in TAKEN:
            raise ValueError(f"{name!r} is an axis of every result; give what is swept another name")
        if isinstance(values, str) or np.ndim(np.asarray(values, dtype=object)) == 0 or len(values) == 0:
            raise ValueError(f"over[{name!r}] must be a non-empty list of values, got {values!r}")
        swept[name] = list(values)
        for value in swept[name] if name in NUMBERS else ():
            if callable(value):
                raise ValueError(f"over[{name!r}] must be a list of numbers; give one schedule by dynamics=")
            if np.ndim(value):
                raise ValueError(f"over[{name!r}] must be a list of numbers, got {value!r} among them")
        labels(name, swept[name])
    return swept


def _scale(name: str, value: Any) -> float:
    (array,) = real_arrays(**{name: value})
    if array.ndim or not float(array) >= 0:
        raise ValueError(f"{name} must be one number >= 0, got {shown(value)}")
    check_normal(name, array)
    return float(array)


def _prepare(data: Any, may_merge: bool) -> tuple[Dataset, Dataset, Any, np.ndarray, Phases | None]:
    """`data`, `problem`, `basis`, `index` and `phases` of a `Configuration`."""
    if are_phases(data):
        phases = as_phases(data, whole=True)
        dtype = jnp.result_type(*(one.points.dtype for one in phases.data))
        datas: Any = jax.tree.map(lambda leaf: leaf.astype(dtype), phases.data)
        return datas[0], datas[0], None, np.arange(datas[0].size), Phases(datas, phases.until)
    if not isinstance(data, Dataset):
        raise ValueError(f"data must be a Dataset, or a function that makes one, got {type(data).__name__}")
    some = TwoLayerReLU(jnp.zeros((1, data.dim), data.points.dtype), jnp.zeros(1, data.points.dtype))
    span = Span(data, some, draws=not may_merge)
    index = np.arange(data.size) if span.index is None else np.asarray(span.index)
    return data, span.data, span.entry, index, None


class Cost(NamedTuple):
    """Bytes at most: of a block at work, of what comes out of it, of the whole result, of the records of one network."""

    block: int
    outcome: int
    result: int
    kept: int


def cost(found: list[Configuration], size: int, records: int, seeds: int, keep: str) -> Cost:
    """What a sweep in blocks of `size` networks, with `records` records, takes."""
    itemsize = found[0].problem.points.dtype.itemsize
    blocks = -(-seeds // size)
    n = found[0].data.size
    block, outcome, kept = 0, 0, 0
    for one in found:
        m, k = one.problem.points.shape
        weights = one.width * (k + 1)
        # As drawn; weights, velocities, gradients and their copies; activations; logits and what statistics make of them.
        drawn = 3 * one.width * (one.data.dim + 1)
        network = itemsize * (drawn + 8 * weights + 4 * one.width * m + 10 * records * (m + 2))
        mine = itemsize * {"statistics": 0, "final": weights + m, "logits": weights + m * records}[keep]
        kept, outcome = max(kept, mine), max(outcome, size * mine + 8 * records * (m + 1) * BINS)
        block = max(block, size * network + outcome)
    of_blocks = 2 * 8 * records * (n + 2) * blocks
    result = len(found) * (of_blocks + records * (4 * (n + 1) * BINS + 8 * 5 * (n + 2)))
    return Cost(block, outcome, result, kept)


def block_size(found: list[Configuration], records: int, seeds: int, platform: str) -> int:
    """Networks of a block: from the problem and the kind of device alone, for results must not depend on anything else."""
    most, least, room = BLOCKS.get(platform, BLOCKS["other"])
    per = max(1, (cost(found, 1024, records, seeds, "statistics").block) // 1024)
    most = max(1, min(most, room // per))
    blocks = -(-seeds // most)
    if blocks < 8:
        # A few blocks more, so that several devices have something to do.
        blocks = max(blocks, min(8, seeds // least))
    else:
        blocks = -(-blocks // 8) * 8
    size = -(-seeds // blocks)
    # Whole vectors of lanes, where that adds little.
    grain = 128 if size >= 1024 else 16 if size >= 128 else 1
    return -(-size // grain) * grain


def blocks_of(found: list[Configuration], seeds: int, size: int) -> list[Block]:
    """All blocks, configuration by configuration."""
    starts = [(c, first) for c in range(len(found)) for first in range(0, seeds, size)]
    return [Block(number, c, first, min(size, seeds - first)) for number, (c, first) in enumerate(starts)]


def chunk_length(
    found: list[Configuration], size: int, records: int, seeds: int, keep: str, memory: float, batch_size: Any
) -> int:
    """Blocks of a chunk: as many as `batch_size` asks for, or what a sixteenth of `memory` holds of kept records.

    A chunk is what is lost when the run is stopped, so it is at most 16 blocks, and there are at least four chunks for
    every process.
    """
    if batch_size is not None:
        return max(1, positive_int("batch_size", batch_size) // size)
    room = int(memory / 16) // max(cost(found, size, records, seeds, keep).kept * size, 1)
    share = len(blocks_of(found, seeds, size)) // (4 * jax.process_count())
    return max(1, min(16, room, share))


def workers(of: Cost, devices: list, memory: float, keep_in_memory: bool, networks: int) -> int:
    """Threads that compute blocks, or `ValueError` where `memory` is too little for one of them.

    Other devices than CPUs have a memory of their own, of which `BLOCKS` takes little; it is not counted.
    """
    on_cpu = devices[0].platform == "cpu"
    one = of.block if on_cpu else of.outcome
    held = of.result + (of.kept * networks if keep_in_memory else 0)
    if memory - held < one:
        advice = "record less often (record_every)"
        if keep_in_memory and of.kept:
            advice += ', give directory= so that records are kept on disk, or keep="statistics"'
        raise ValueError(
            f"memory = {memory:.3g} bytes is too little: one block takes {one:.3g} and the result {held:.3g}; "
            f"give memory={1.1 * (held + one):.2g}, or {advice}"
        )
    # Two executions on one CPU device run side by side; elsewhere one is prepared while the other runs.
    each = max(1, cores() // len(devices)) if on_cpu else 2
    return max(1, min(int((memory - held) // one), each * len(devices)))
