"""Which samples are in which group: what a user may pass as `groups`, as one table of members, with its errors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve.ground import any_array, as_number, shown


@dataclass(frozen=True)
class Tags:
    """`names`: [G]; `members`: [n, G] booleans; `exclusive`: whether every sample is of exactly one group, a sample type."""

    names: tuple[str, ...]
    members: np.ndarray
    exclusive: bool


def read_labels(y: Any, n: int | None = None, one_class: bool = False) -> np.ndarray:
    """The labels y_i = ±1 as float64 [n]; `ValueError` for any other, for a wrong length, and, unless `one_class`, for a
    single class."""
    y = any_array("labels", y)
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(f"labels must be [n], got shape {y.shape}")
    if n is not None and len(y) != n:
        raise ValueError(f"labels must be [n] = [{n}], one a sample, got {len(y)}")
    if y.dtype.kind not in "biuf":
        raise ValueError(f"labels must be the numbers +1 and -1, got {y.dtype} such as {shown(y.flat[0])}")
    if y.dtype.kind == "b":
        raise ValueError("labels are booleans; turn them into +1 and -1 by 2 * y - 1")
    odd = ~np.isin(y, (-1, 1))
    if odd.any():
        zeros = np.isin(np.asarray(y, np.float64), (0, 1)).all()
        fix = "; turn 0 and 1 into them by 2 * y - 1" if zeros else "; keep two classes and call them +1 and -1"
        raise ValueError(f"labels must be +1 or -1, got {y[odd][0]:g} at sample {int(np.flatnonzero(odd)[0])}{fix}")
    if len(np.unique(y)) < 2 and not one_class:
        raise ValueError(
            f"all {len(y)} labels are {y[0]:+.0f}: a single class has nothing to tell apart; add samples of the other"
        )
    return y.astype(np.float64)


def read_groups(groups: Any, labels: np.ndarray) -> Tags:
    """`groups` as a table. Takes the type of each sample, [n] strings or integers; a mapping from names to booleans [n];
    or a table [n, G] of 0 and 1. `ValueError` says what does not fit."""
    n = len(labels)
    if isinstance(groups, Mapping):
        names = tuple(str(name) for name in groups)
        if not names:
            raise ValueError("groups is empty; name at least one, or leave groups out")
        columns = [_column(name, value, n) for name, value in groups.items()]
        table = np.stack(columns, 1)
    else:
        table = any_array("groups", groups)
        if table.ndim not in (1, 2):
            raise ValueError(f"groups must be [n] types or an [n, G] table of 0 and 1, got shape {table.shape}")
        if len(table) != n:
            raise ValueError(f"groups must name {n} samples, one each, got {len(table)}; their order is that of the data")
        if table.ndim == 1:
            return _types(table, labels)
        names = tuple(f"group {k}" for k in range(table.shape[1]))
        if not names:
            raise ValueError("groups is [n, 0]; name at least one, or leave groups out")
        table = np.stack([_column(name, table[:, k], n) for k, name in enumerate(names)], 1)
    exclusive = bool((table.sum(1) == 1).all()) and table.shape[1] > 1
    return _checked(Tags(names, table, exclusive), labels)


def _types(values: np.ndarray, labels: np.ndarray) -> Tags:
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
        if bad.any():
            raise ValueError(
                f"groups[{int(np.flatnonzero(bad)[0])}] = {values[bad][0]} is no sample type; name one for every sample"
            )
    if values.dtype.kind == "O" and any(value is None for value in values):
        first = next(i for i, value in enumerate(values) if value is None)
        raise ValueError(f"groups[{first}] = None is no sample type; name one for every sample")
    if values.dtype.kind == "b":
        return _checked(Tags(("group",), values[:, None], False), labels)
    values = values.astype(str)
    names: tuple[str, ...] = tuple(sorted({str(value) for value in values}))
    if len(names) < 2:
        only = shown("".join(names))
        raise ValueError(
            f"all samples are of one type, {only}; a group needs samples outside of it to be compared with"
        )
    if len(names) > max(20, len(values) // 4):
        raise ValueError(f"groups holds {len(names)} types for {len(values)} samples; give few types with many samples each")
    return _checked(Tags(names, np.stack([values == name for name in names], 1), True), labels)


def _column(name: Any, value: Any, n: int) -> np.ndarray:
    value = any_array(f"group {name!r}", value)
    if value.shape != (n,):
        raise ValueError(f"group {name!r} must say for each of the {n} samples whether it is in, got shape {value.shape}")
    if value.dtype.kind not in "biuf" or not np.isin(value, (0, 1)).all():
        odd = value[~np.isin(value, (0, 1))] if value.dtype.kind in "iuf" else value
        raise ValueError(f"group {name!r} must hold 0 and 1 (or booleans), got {shown(odd[0])}")
    return value.astype(bool)


def _checked(tags: Tags, labels: np.ndarray) -> Tags:
    """Refuse groups of one sample, and groups with one sample left outside of them in a class that they split."""
    for name, inside in zip(tags.names, tags.members.T, strict=True):
        if inside.sum() == 0:
            raise ValueError(f"groups: group {shown(name)} has no sample; leave it out")
        for sign in (1, -1):
            mine = labels == sign
            count, rest = int((mine & inside).sum()), int((mine & ~inside).sum())
            if rest and count == 1 and inside.sum() == 1:
                raise ValueError(
                    f"groups: group {shown(name)} has 1 sample, of which no mean can be told from chance; give it more, "
                    "or leave it out"
                )
    return tags


def varying_classes(members: np.ndarray, labels: np.ndarray) -> tuple[int, ...]:
    """The classes, of +1 and -1, that hold at least two samples of the group and two outside of it."""
    found = []
    for sign in (1, -1):
        mine = labels == sign
        if min((mine & members).sum(), (mine & ~members).sum()) >= 2:
            found.append(sign)
    return tuple(found)


def number_between(name: str, value: Any, low: Any, high: Any) -> float:
    """`value` as a number strictly between `low` and `high`, or a `ValueError` that quotes what came.

    >>> number_between("penalty", 2, 0, 10)
    2.0
    """
    try:
        return as_number(name, value, low, high, with_low=False, with_high=False)
    except ValueError:
        bound = f"> {low:g}" if high == float("inf") else f"between {low:g} and {high:g}"
        raise ValueError(f"{name} must be a number {bound}, got {shown(value)}") from None
