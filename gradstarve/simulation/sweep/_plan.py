"""What a sweep is to do: its configurations, and how their networks are cut into blocks and chunks.

A *configuration* is one combination of the swept values. Its networks are cut into *blocks* of one size, which is chosen
from the configuration alone (a sweep of fewer seeds is one block): a block is what is compiled and computed, so that a
network sees the same arithmetic whatever the chunks, devices and processes, and however many seeds and values are added
later. A *chunk* is a run of blocks that is stored at once; a last block that is not full is a chunk of its own, because it
is another block once there are more seeds.
"""

from __future__ import annotations

import functools
import inspect
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
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
from gradstarve.problem._dynamics import is_dynamics
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
BY_VALUE = ("data", "network", "loss", "dynamics")
"""Settings that may be functions of swept values."""
BLOCKS = {"cpu": (2560, 2**26), "other": (2**15, 2**31)}
"""By platform: the most networks of a block, and the bytes that a block may take."""
CHUNK = 16
"""The most blocks of a chunk, which is what is lost when a run is killed."""
KEEP = ("statistics", "final", "logits")


@dataclass(frozen=True, eq=False)
class Configuration:
    """One combination of swept values, `swept`, and everything it stands for.

    `labels` tell the swept values apart in tables. `data` are as given; `problem` are those that are trained on, in few
    numbers and with repeated points merged, as `Span` makes them: w `basis`^T, `basis` [k, d], are the numbers of a neuron
    (None: its weights), and point i is row `index`[i]. Where data change, they are those of the `phases`, as given, and
    `data` and `problem` those of the first one. `network` makes a network of the user's own from a key. Read from a
    directory, `loss`, `dynamics` and `network` may be `Forgotten`.
    """

    swept: dict[str, Any]
    labels: dict[str, Any]
    width: int
    scale_w: float
    scale_z: float
    loss: Any
    dynamics: Any
    data: Dataset
    problem: Dataset
    basis: Any
    index: np.ndarray
    phases: Phases | None = None
    network: Any = None

    @property
    def template(self) -> Any:
        """The shapes of a network of the user's own, None for `TwoLayerReLU`."""
        return None if self.network is None else eqx.filter_eval_shape(self.network, jax.random.key(0))

    @property
    def weights(self) -> int:
        """Numbers of one network that training moves, as it is trained."""
        if self.network is None:
            return self.width * (self.problem.points.shape[1] + 1)
        return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(self.template))

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
    if isinstance(value, Dataset):
        return "data"
    if is_dynamics(value) and not isinstance(value, Dynamics):  # of optax
        return getattr(getattr(value, "update"), "__qualname__", "optimiser").partition(".")[0]  # noqa: B009
    named = getattr(value, "name", None) or (getattr(value, "__name__", None) if callable(value) else None)
    return named or str(value)


def axis(key: Any) -> str:
    """The name of an axis: that of what is swept, or of all that is swept together."""
    return key if isinstance(key, str) else "_and_".join(key)


def columns(over: Mapping[Any, list]) -> dict[str, list]:
    """The swept values of each name, along its axis."""
    found: dict[str, list] = {}
    for key, values in over.items():
        found |= {key: values} if isinstance(key, str) else dict(zip(key, map(list, zip(*values, strict=True)), strict=True))
    return found


def combinations(over: Mapping[Any, list]) -> Iterator[tuple[dict[str, Any], tuple[int, ...]]]:
    """Every combination of swept values by name, with its places along the axes, the last name running fastest."""
    for places in itertools.product(*(range(len(values)) for values in over.values())):
        rows = {key: values[i] for (key, values), i in zip(over.items(), places, strict=True)}
        yield {name: column[0] for name, column in columns({key: [row] for key, row in rows.items()}).items()}, places


def told(key: Any, values: list) -> dict[str, list]:
    """The labels of an axis by name; settings that are swept together may have a value several times."""
    if isinstance(key, str):
        return {key: labels(key, values)}
    found = {}
    for name, column in columns({key: values}).items():
        kinds = [json.dumps(_identity(value), sort_keys=True) for value in column]
        first = [kinds.index(kind) for kind in kinds]
        distinct = sorted(set(first))
        names = dict(zip(distinct, labels(name, [column[i] for i in distinct]), strict=True))
        found[name] = [names[i] for i in first]
    rows = list(zip(*found.values(), strict=True))
    if len(set(rows)) < len(rows):
        raise ValueError(f"over[{key!r}] has {next(row for row in rows if rows.count(row) > 1)!r} more than once")
    return found


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


def same_value(one: Any, other: Any) -> bool:
    """Whether two values are made of the same numbers and code."""
    return json.dumps(_identity(one), sort_keys=True) == json.dumps(_identity(other), sort_keys=True)


def label_among(shown_as: list, name: str, values: list, wanted: Any) -> Any:
    """The label of the swept value that is `wanted`, where `values` with these labels may be there several times."""
    distinct = dict(zip(shown_as, values, strict=True))
    return list(distinct)[place_of(name, list(distinct.values()), wanted)]


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
    data: Any, over: Any, base: dict[str, Any], steps: int = 1
) -> tuple[dict[Any, list], list[Configuration]]:
    """The swept values by name, and the configurations in their order, the last name running fastest.

    `base`: width, scale_w, scale_z, loss, dynamics and network of the names that are not swept.
    """
    swept = _swept(over)
    names = list(columns(swept))
    base = {"network": None} | base | {"data": data}
    by_value = {name: columns(swept)[name][0] if name in names else base[name] for name in BY_VALUE}
    makers = {name: _takes(by_value[name], names) for name in BY_VALUE if _is_maker(name, by_value[name], names)}
    dynamics = by_value["dynamics"]
    hyper = {} if "dynamics" in makers else _hyper(dynamics)
    own = {*NETWORK_NAMES, *BY_VALUE, *hyper}
    left = [name for name in names if name not in own and not any(name in taken for taken in makers.values())]
    if isinstance(data, Network):
        raise ValueError(f"data must be a Dataset, or a function that makes one, got {type(data).__name__}")
    if left:
        raise ValueError(
            f"over has {', '.join(map(repr, left))}, which is no setting of this sweep ({', '.join(sorted(own))}); "
            "sweep over the data, the loss, the dynamics or the network with a function that makes them of it, such as "
            "data=lambda frequency: ..., loss=lambda penalty: ..."
        )
    labelled = {key: told(key, values) for key, values in swept.items()}
    made: dict[Any, Any] = {}
    found = []
    for chosen, places in combinations(swept):
        shown_as = {}
        for key, i in zip(swept, places, strict=True):
            shown_as |= {name: column[i] for name, column in labelled[key].items()}
        settings = base | {name: chosen[name] for name in chosen if name in base}
        given = {name: {one: chosen[one] for one in chosen if one in makers.get(name, ())} for name in BY_VALUE}
        # By place and not by value, since values need not be hashable.
        which = {name: (id(settings[name]), *map(id, given[name].values())) for name in BY_VALUE}
        for name in ("data", "loss", "dynamics"):
            if (name, which[name]) not in made:
                value = settings[name](**given[name]) if name in makers else settings[name]
                made[name, which[name]] = as_loss(value) if name == "loss" else value
        moved = made["dynamics", which["dynamics"]]
        changed = {name: value for name, value in chosen.items() if name in hyper and name not in given["dynamics"]}
        if changed:
            moved = type(moved)(**_hyper(moved) | changed)
        elif "dynamics" in makers:
            _hyper(moved)
        if isinstance(moved, Steps):
            moved = moved.tabled(steps, jnp.result_type(float))
        network = settings["network"]
        if network is not None and given["network"]:
            network = functools.partial(network, **given["network"])
        merges = isinstance(moved, GradientDescent)
        prepared = "problem", which["data"], merges
        if prepared not in made:
            made[prepared] = prepare(made["data", which["data"]], merges)
        width = positive_int("width", settings["width"])
        scales = _scale("scale_w", settings["scale_w"]), _scale("scale_z", settings["scale_z"])
        loss = made["loss", which["loss"]]
        one = Configuration(chosen, shown_as, width, *scales, loss, moved, *made[prepared], network=network)
        if network is not None:
            _check_network(one)
        found.append(one if network is None and isinstance(moved, Dynamics) else one.as_given())
    ends = {None if one.phases is None else one.phases.until for one in found}
    if len(ends) > 1:
        raise ValueError("every configuration must have phases with the same ends, or none; sweep them apart")
    sizes = {one.data.size for one in found}
    if len(sizes) > 1:
        raise ValueError(f"every configuration must have the same number of points, got {sorted(sizes)}; sweep them apart")
    return swept, found


def grid_of(one: Configuration, steps: int, every: int) -> np.ndarray:
    """The steps that are recorded, as `simulate` does: in each phase 0, K, 2K, ... after its beginning, and its end."""
    lengths = [length for length, _ in one.stretches(steps)]
    begins = np.cumsum([0, *lengths[:-1]])
    return np.append(np.concatenate([b + np.arange(0, n, every) for b, n in zip(begins, lengths, strict=True)]), steps)


def _is_maker(name: str, value: Any, names: list[str]) -> bool:
    """Whether a setting is a function of swept values; a function of data may be one of none."""
    if name == "data":
        return callable(value) and not isinstance(value, Dataset)
    if name == "network":
        return callable(value)
    ready = isinstance(value, Loss) if name == "loss" else is_dynamics(value)
    return callable(value) and not ready and not isinstance(value, type) and bool(_takes(value, names))


def _takes(function: Any, names: Iterable[str]) -> set[str]:
    """Those of the swept names that a function can be given."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return set(names)
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return set(names) - {*NUMBERS, *BY_VALUE}
    by_name = {one.name for one in parameters if one.kind in (one.POSITIONAL_OR_KEYWORD, one.KEYWORD_ONLY)}
    return by_name & set(names)


def _hyper(dynamics: Any) -> dict[str, Any]:
    """The numbers of our own dynamics by name; none of an optimiser of optax. `ValueError` for what is neither."""
    if not isinstance(dynamics, Steps):
        if not isinstance(dynamics, type | Dynamics) and is_dynamics(dynamics):
            return {}
        raise no_dynamics("GradientDescent(step_size), other dynamics in steps, or an optimiser of optax", dynamics)
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
    return hyper


def _check_network(one: Configuration) -> None:
    """`ValueError` unless the user's function makes single networks for the data."""
    try:
        network = one.template
    except Exception as error:  # whatever it raises is its reason
        why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
        raise ValueError(f"network must be a function that makes one network from a key; it raised {why}") from None
    if not isinstance(network, Network):
        raise ValueError(f"network must make a Network, such as DeepReLU, from a key; it made {type(network).__name__}")
    network.check_described()
    if network.batch_shape or network.outputs or network.dim != one.data.dim:
        raise ValueError(
            f"network must make one network with d = {one.data.dim} inputs and one logit; it made one with batch shape "
            f"{network.batch_shape}, d = {network.dim} and outputs {network.outputs}"
        )


def _swept(over: Any) -> dict[Any, list]:
    if over is not None and not isinstance(over, Mapping):
        raise ValueError(f'over must be a dictionary of lists such as {{"step_size": [0.1, 0.3]}}, got {shown(over)}')
    swept: dict[Any, list] = {}
    for key, values in (over or {}).items():
        names = (key,) if isinstance(key, str) else key
        if not isinstance(names, tuple) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f'over has the key {key!r}; give a name, or names of what is paired, ("width", "scale_w")')
        for name in names:
            if name in TAKEN:
                raise ValueError(f"{name!r} is an axis of every result; give what is swept another name")
            if name in columns(swept) or names.count(name) > 1:
                raise ValueError(f"over has {name!r} more than once")
        if isinstance(values, str) or np.ndim(np.asarray(values, dtype=object)) == 0 or len(values) == 0:
            raise ValueError(f"over[{key!r}] must be a non-empty list of values, got {values!r}")
        swept[key] = list(values)
        if not isinstance(key, str):
            if not all(isinstance(row, list | tuple) and len(row) == len(key) for row in swept[key]):
                raise ValueError(f"over[{key!r}] must be a list of tuples of {len(key)} values, got {shown(values)}")
            swept[key] = [tuple(row) for row in swept[key]]
        for name, column in columns({key: swept[key]}).items():
            for value in column if name in NUMBERS else ():
                if callable(value):
                    raise ValueError(f"over[{name!r}] must be a list of numbers; give one schedule by dynamics=")
                if np.ndim(value):
                    raise ValueError(f"over[{name!r}] must be a list of numbers, got {value!r} among them")
        told(key, swept[key])
    return swept


def _scale(name: str, value: Any) -> float:
    (array,) = real_arrays(**{name: value})
    if array.ndim or not float(array) >= 0:
        raise ValueError(f"{name} must be one number >= 0, got {shown(value)}")
    check_normal(name, array)
    return float(array)


def prepare(data: Any, may_merge: bool) -> tuple[Dataset, Dataset, Any, np.ndarray, Phases | None]:
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


def cost(found: list[Configuration], sizes: list[int], records: int, seeds: int, keep: str) -> Cost:
    """What a sweep in blocks of these `sizes`, one for each configuration, with `records` records, takes."""
    itemsize = found[0].problem.points.dtype.itemsize
    n = found[0].data.size
    block, outcome, kept, of_blocks = 0, 0, 0, 0
    for one, size in zip(found, sizes, strict=True):
        m = one.problem.size
        weights = one.weights
        # As drawn; weights, velocities, gradients and their copies; activations; logits and what statistics make of them.
        drawn = 3 * one.width * (one.data.dim + 1)
        network = itemsize * (drawn + 8 * weights + 4 * one.width * m + 10 * records * (m + 2))
        mine = itemsize * {"statistics": 0, "final": weights + m, "logits": weights + m * records}[keep]
        kept, outcome = max(kept, mine), max(outcome, size * mine + 8 * records * (m + 1) * BINS)
        block = max(block, size * network + outcome)
        of_blocks += 2 * 8 * records * (n + 2) * -(-seeds // size)
    result = of_blocks + len(found) * records * (4 * (n + 1) * BINS + 8 * 5 * (n + 2))
    return Cost(block, outcome, result, kept)


def block_size(one: Configuration, records: int, seeds: int, platform: str) -> int:
    """Networks of a block: from the configuration and the kind of device, for results must not depend on anything else.

    Fewer `seeds` than that are one block.
    """
    most, room = BLOCKS.get(platform, BLOCKS["other"])
    per = max(1, cost([one], [1024], records, seeds, "statistics").block // 1024)
    size = min(max(1, min(most, room // per)), seeds)
    # Whole vectors of lanes, where that adds little.
    grain = 128 if size >= 1024 else 16 if size >= 128 else 1
    return -(-size // grain) * grain


def blocks_of(seeds: int, sizes: list[int]) -> list[list[Block]]:
    """The blocks of every configuration, with blocks of these sizes; seeds are counted from 0."""
    numbers = itertools.count()
    return [
        [Block(next(numbers), which, first, min(size, seeds - first)) for first in range(0, seeds, size)]
        for which, size in enumerate(sizes)
    ]


def chunk_length(of: Cost, sizes: list[int], seeds: int, memory: float, batch_size: Any) -> int:
    """Blocks of a chunk: as many as `batch_size` asks for, or what a sixteenth of `memory` holds of kept records.

    There are at least 16 chunks, for as many processes, where there are as many blocks.
    """
    size = max(sizes)
    if batch_size is not None:
        return max(1, positive_int("batch_size", batch_size) // size)
    room = int(memory / 16) // max(of.kept * size, 1)
    share = sum(-(-seeds // size) for size in sizes) // 16
    return max(1, min(CHUNK, room, share))


def chunks_of(blocks: list[Block], size: int, length: int, stored: set[tuple[int, int]]) -> Iterator[list[Block]]:
    """The `blocks` of a configuration as chunks: those `stored`, as (first, count), and what is missing between them.

    What is missing is cut at every `length` blocks, so that tasks which begin at different times cut it alike.
    """
    ends: dict[int, set[int]] = {}
    for first, count in stored:
        ends.setdefault(first, set()).add(first + count)
    until = {block.first + block.count: place + 1 for place, block in enumerate(blocks)}
    place = 0
    while place < len(blocks):
        here = blocks[place]
        fitting = [until[end] for end in ends.get(here.first, ()) if end in until]
        stop = max(fitting, default=place)
        if not fitting:
            stop = place + 1
            while (
                stop < len(blocks)
                and stop % length
                and blocks[stop].count == size
                and not any(end in until for end in ends.get(blocks[stop].first, ()))
            ):
                stop += 1
        yield blocks[place:stop]
        place = stop


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
