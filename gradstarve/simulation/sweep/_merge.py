"""`SweepResult.merge`: sweeps of other seeds or other values as one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from gradstarve.ground import shown
from gradstarve.simulation.sweep._plan import Configuration, columns, label_among, same_value, told
from gradstarve.simulation.sweep._remember import Forgotten, forgotten
from gradstarve.simulation.sweep._result import Records, SweepResult, finish, is_by_block
from gradstarve.simulation.sweep._statistics import Part, join


def part_of(result: SweepResult, place: int) -> Part:
    """The `Part` that a configuration's statistics were made of."""
    count, networks = len(result.configurations), len(result.seeds)
    axes = len(result.shape)
    flat = {name: array.reshape(count, *array.shape[axes:])[place] for name, array in result.statistics.items()}

    def columns_of(names: Iterable[str]) -> np.ndarray:
        single, other, of_points = (flat[name] for name in names)
        return np.concatenate([single[..., None], other[..., None], of_points], -1)

    triples = {what: (f"{what}", f"{what}_all", f"{what}_point") for what in ("learnt", "first_learnt", "never_learnt")}
    never = columns_of(triples["never_learnt"]) - flat["diverged"]
    low, high = (columns_of(f"{name}_{what}" for name in ("error", "loss", "margin")) for what in ("min", "max"))
    return result.blocks[place] | {
        "low": np.where(np.isnan(low), np.inf, low),
        "high": np.where(np.isnan(high), -np.inf, high),
        "below": np.rint(columns_of(triples["learnt"]) * networks).astype(np.int64),
        "crossed": np.concatenate([columns_of(triples["first_learnt"]), never[None]]),
        "bins": np.concatenate([flat["error_histogram"][:, None], flat["margin_histogram"]], 1),
        "diverged": np.asarray(flat["diverged"]),
        "seeds": result.seeds_diverged[place],
    }


def merged(results: list[Any]) -> SweepResult:
    """See `SweepResult.merge`."""
    first = results[0]
    for other in results:
        if not isinstance(other, SweepResult):
            raise ValueError(f"merge takes results of sweeps, got {shown(other)}")
        for name in ("threshold", "record_every", "engine", "keep", "precision"):
            one, two = getattr(first, name), getattr(other, name)
            if one != two:
                raise ValueError(f"{name} is {one!r} in the first sweep and {two!r} in another, and has to be the same")
        if not np.array_equal(first.grid, other.grid):
            ends = f"up to {first.grid[-1]} and up to {other.grid[-1]}"
            raise ValueError(f"steps are recorded {ends}, or others are; they have to be the same")
        mine, theirs = (np.asarray(jax.random.key_data(one.key)) for one in (first, other))
        if not np.array_equal(mine, theirs):
            raise ValueError("key is another one in one of the sweeps: their seeds do not mean the same networks")
        if list(first.over) != list(other.over) or set(first.statistics) != set(other.statistics):
            raise ValueError(f"{list(first.over)} is swept in the first sweep, {list(other.over)} in another")
    whole = results[0]
    for other in results[1:]:
        same = all(told(key, whole.over[key]) == told(key, other.over[key]) for key in whole.over)
        whole = _with_seeds(whole, other) if same else _with_values(whole, other)
    return whole


def _with_seeds(one: SweepResult, other: SweepResult) -> SweepResult:
    one, other = sorted((one, other), key=lambda result: result.seeds.start)
    if one.seeds.stop != other.seeds.start:
        what = "overlap" if one.seeds.stop > other.seeds.start else "leave a hole"
        raise ValueError(f"seeds {_span(one.seeds)} and {_span(other.seeds)} {what}; merge ranges that continue each other")
    for mine, theirs in zip(one.configurations, other.configurations, strict=True):
        _check_same(mine, theirs)
    seeds = range(one.seeds.start, other.seeds.stop)
    count = len(one.configurations)
    parts = [join(part_of(one, place), part_of(other, place)) for place in range(count)]
    blocks = [{name: value for name, value in part.items() if is_by_block(name)} for part in parts]
    kept = one.kept
    if one.keep != "statistics":
        both = [(one.kept(place), other.kept(place)) for place in range(count)]
        kept = Records(
            {place: {n: np.concatenate([a[n], b[n]]) for n in a} for place, (a, b) in enumerate(both)}
        )
    sick = [part["seeds"] for part in parts]
    statistics = finish(parts, one.shape, len(seeds))
    return replace(one, seeds=seeds, statistics=statistics, seeds_diverged=sick, blocks=blocks, kept=kept)


def _with_values(one: SweepResult, other: SweepResult) -> SweepResult:
    differing = [key for key in one.over if told(key, one.over[key]) != told(key, other.over[key])]
    if len(differing) > 1:
        raise ValueError(f"the sweeps have other values of {' and of '.join(map(repr, differing))}; merge along one axis")
    (key,) = differing
    if one.seeds != other.seeds:
        spans = f"{_span(one.seeds)} and {_span(other.seeds)}"
        raise ValueError(f"the sweeps have other values of {key!r} and other seeds, {spans}; one has to be the same")
    place = list(one.over).index(key)
    over = one.over | {key: [*one.over[key], *other.over[key]]}
    told(key, over[key])  # a ValueError for a value that is in both
    both = (one, other)
    sides = [np.arange(math.prod(result.shape)).reshape(result.shape) for result in both]
    order = np.concatenate([sides[0], sides[1] + sides[0].size], place).ravel()
    statistics = {name: np.concatenate([result[name] for result in both], place) for name in one.statistics}

    def picked(name: str) -> list:
        every = [*getattr(one, name), *getattr(other, name)]
        return [every[i] for i in order]

    kept = one.kept
    if one.keep != "statistics":
        count = len(one.configurations)
        kept = Records(
            {new: one.kept(int(old)) if old < count else other.kept(int(old) - count) for new, old in enumerate(order)}
        )
    lists = {name: picked(name) for name in ("configurations", "seeds_diverged", "blocks")}
    configurations = [replace(found, labels=_relabelled(found, over)) for found in lists.pop("configurations")]
    text = "; ".join(dict.fromkeys(result.note for result in both if result.note))
    return replace(one, over=over, configurations=configurations, statistics=statistics, kept=kept, note=text, **lists)


def _relabelled(one: Configuration, over: dict[Any, list]) -> dict[str, Any]:
    """Labels of the values among all that are swept now."""
    found = {}
    for key, values in over.items():
        names, shown_as = columns({key: values}), told(key, values)
        for name in names:
            found[name] = label_among(shown_as[name], name, names[name], one.swept[name])
    return found


def _check_same(one: Configuration, other: Configuration) -> None:
    for name in ("width", "scale_w", "scale_z"):
        if getattr(one, name) != getattr(other, name):
            raise ValueError(f"{name} is {getattr(one, name)} in one sweep and {getattr(other, name)} in another")
    for name in ("loss", "dynamics", "network", "data"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if isinstance(mine, Forgotten) or isinstance(theirs, Forgotten):  # read from a directory or a pickle
            pair = (part if isinstance(part, Forgotten) else forgotten(name, part) for part in (mine, theirs))
            mine, theirs = (part.told for part in pair)
        if mine is not theirs and not same_value(mine, theirs):
            raise ValueError(f"the sweeps differ in {name}; merge seeds of the same configurations")


def _span(seeds: range) -> str:
    return f"{seeds.start}..{seeds.stop - 1}"
