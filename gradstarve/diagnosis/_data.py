"""A user's samples, labels and groups in the order in which they come: arrays, tensors, loaders of PyTorch, NPZ files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import any_array, check_finite, did_you_mean, readable, shown
from gradstarve.problem import Dataset

_X, _Y = ("x", "images", "points", "data", "inputs", "samples"), ("y", "labels", "label", "targets", "target")
_ORDERED = ("SequentialSampler", "RandomSampler")


@dataclass(frozen=True)
class Samples:
    """`x`: an array [n, ...] or a pytree of them; `y`: labels [n] as given; `groups`: what came with the data, or None."""

    x: Any
    y: np.ndarray
    groups: Any = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.y)


def read_samples(data: Any, groups: Any = None, name: str = "data") -> Samples:
    """`data` and `groups` as `Samples`. Data are a `Dataset`, (x, y) or (x, y, groups), a `Dataset` or `DataLoader` of
    PyTorch whose items are such, or the path of an NPZ file; there `groups` may be the name of one of its arrays."""
    notes: tuple[str, ...] = ()
    arrays: Mapping[str, Any] = {}
    if isinstance(data, str | os.PathLike):
        arrays = _of_file(Path(data), name)
        found = tuple(_named(arrays, names, data) for names in (_X, _Y))
    elif isinstance(data, Dataset):
        weights = np.asarray(data.weights, np.float64)
        if np.ptp(weights) > 1e-4 * weights.mean():
            raise ValueError(
                f"the weights of the points go from {weights.min():.3g} to {weights.max():.3g}, but every sample counts "
                "once here; repeat points, and give (x, y)"
            )
        found = (data.points, data.labels)
    elif _is_torch_data(data):
        found, notes = _of_loader(data, name)
    elif isinstance(data, tuple | list) and len(data) in (2, 3):
        found = tuple(data)
    else:
        got = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
        raise ValueError(
            f"{name} must be a Dataset, a pair (x, y) of samples [n, ...] and labels [n], (x, y, groups), a DataLoader or "
            f"the path of an .npz file, got {got}"
        )
    if hasattr(found[0], "__next__"):
        raise ValueError(f"x must be an array of numbers [n, ...], got {shown(found[0])}")
    x, y = jax.tree.map(_samples, found[0]), any_array("labels", found[1])
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    for leaf in jax.tree.leaves(x):
        if y.ndim == 1 and len(leaf) != len(y):
            raise ValueError(f"x has {len(leaf)} samples and y {len(y)} labels; give one label a sample")
    if groups is None:
        groups = found[2] if len(found) == 3 else None
    elif isinstance(groups, str):
        if groups not in arrays:
            raise ValueError(_no_array(groups, arrays, data if arrays else None))
        groups = {groups: arrays[groups]} if arrays[groups].dtype.kind == "b" else arrays[groups]
    return Samples(x, y, groups, notes)


def _samples(leaf: Any) -> Any:
    try:
        array = np.asarray(readable("x", leaf))
    except ValueError as error:
        raise ValueError(f"x must be an array of numbers [n, ...]: {error}") from None
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(f"x must be an array of numbers [n, ...], got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "f":
        check_finite("x", array)
        if array.dtype == np.float64:
            array = array.astype(jnp.result_type(float))
    return array


def join(first: Samples, second: Samples) -> Any:
    """The samples of both, the first before the second, as one pytree."""
    if jax.tree.structure(first.x) != jax.tree.structure(second.x):
        raise ValueError("test samples must be of the same kind as those of data: an array, or the same pytree of arrays")
    for a, b in zip(jax.tree.leaves(first.x), jax.tree.leaves(second.x), strict=True):
        if a.shape[1:] != b.shape[1:]:
            raise ValueError(f"test samples have shape {b.shape[1:]}, those of data {a.shape[1:]}")
    return jax.tree.map(lambda a, b: np.concatenate([a, b]), first.x, second.x)


# Files.


def _of_file(path: Path, name: str) -> dict[str, np.ndarray]:
    if path.suffix.lower() != ".npz":
        raise ValueError(f"{name} is the path {str(path)!r}; give the path of an .npz file with arrays x and y")
    if not path.is_file():
        raise ValueError(f"{str(path)!r} is no file; give the path of an .npz file with arrays x and y")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:
        raise ValueError(f"{str(path)!r} cannot be read as an .npz file: {shown(error)}") from None


def _named(arrays: Mapping[str, Any], names: tuple[str, ...], path: Any) -> Any:
    for name in names:
        if name in arrays:
            return arrays[name]
    raise ValueError(f"{str(path)!r} has the arrays {', '.join(arrays)}; call one of them {names[0]} ({', '.join(names)})")


def _no_array(groups: str, arrays: Mapping[str, Any], path: Any) -> str:
    if path is None:
        return f"groups = {groups!r} names an array of an .npz file; give the groups themselves, one a sample"
    return f"{str(path)!r} has no array {groups!r}, it has {', '.join(arrays)}{did_you_mean(groups, arrays)}"


# PyTorch, which is there where an object of its comes in.


def _is_torch_data(data: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(data, torch.utils.data.Dataset | torch.utils.data.DataLoader)


def batch_of(data: Any, count: int) -> int | None:
    """The batch size of a `DataLoader` of PyTorch, at most `count`; None for other data."""
    size = getattr(data, "batch_size", None) if _is_torch_data(data) else None
    return None if size is None else min(int(size), count)


def _of_loader(data: Any, name: str) -> tuple[tuple[Any, ...], tuple[str, ...]]:
    """Samples, labels and groups, if items have three parts, in the order of the data set."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.utils.data import DataLoader, IterableDataset  # pyright: ignore[reportMissingImports]

    notes: tuple[str, ...] = ()
    if not isinstance(data, DataLoader):
        data = DataLoader(data, batch_size=256)
    elif not isinstance(data.dataset, IterableDataset):
        sampler: Any = data.sampler
        size = _length(data.dataset)
        kind = type(sampler).__name__
        whole = kind == "SequentialSampler" or (not getattr(sampler, "replacement", True) and len(sampler) == size)
        if kind not in _ORDERED or not whole or type(data.batch_sampler).__name__ not in ("BatchSampler", "NoneType"):
            raise ValueError(
                f"{name} is a DataLoader that draws with {kind}, so that its order and its samples are not those of its "
                "data set; give the data set itself, or DataLoader(dataset, batch_size=..., shuffle=False)"
            )
        if kind == "RandomSampler":
            notes = (f"The loader of {name} shuffles; its data set was read in its own order.",)
        data = DataLoader(data.dataset, batch_size=data.batch_size or 256, collate_fn=data.collate_fn)
    parts: list[tuple[Any, ...]] = []
    for batch in data:
        if not isinstance(batch, tuple | list) or len(batch) not in (2, 3):
            got = f"{type(batch).__name__} of {len(batch)}" if hasattr(batch, "__len__") else type(batch).__name__
            raise ValueError(f"items of {name} must be (x, y) or (x, y, group), got a {got}; wrap the data set")
        parts.append(tuple(batch))
    if not parts:
        raise ValueError(f"{name} is empty: its data set has no items")

    def together(*leaves: Any) -> Any:
        if isinstance(leaves[0], torch.Tensor):
            return torch.cat([leaf.detach().cpu() for leaf in leaves])
        return np.concatenate([np.asarray(leaf) for leaf in leaves])

    def column(k: int) -> Any:
        first = parts[0][k]
        if isinstance(first, tuple | list) and first and isinstance(first[0], str):
            return np.array([value for part in parts for value in part[k]])
        return jax.tree.map(together, *(part[k] for part in parts))

    return tuple(column(k) for k in range(len(parts[0]))), notes


def _length(dataset: Any) -> int:
    try:
        return len(dataset)
    except TypeError:
        return -1


# Labels.


@dataclass(frozen=True)
class Classes:
    """`index` [n]: the class of each sample, 0..K-1; `names`: of the K classes, in this order."""

    index: np.ndarray
    names: tuple[str, ...]

    @property
    def count(self) -> int:
        return len(self.names)

    @property
    def signs(self) -> np.ndarray:
        """Of two classes: -1 and +1, [n]."""
        return np.where(self.index == 1, 1.0, -1.0)


def read_classes(y: Any, outputs: int, one_class: bool = False) -> Classes:
    """Labels ±1, or 0..K-1 for a model of K `outputs` (0 and 1 for one output as well)."""
    y = any_array("labels", y)
    if y.ndim != 1:
        hot = y.ndim == 2 and y.dtype.kind in "biuf" and np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all()
        fix = "; they are one-hot: give the numbers of the classes, y.argmax(1)" if hot else ""
        raise ValueError(f"labels must be [n], got shape {y.shape}{fix}")
    if y.dtype.kind == "V" or y.dtype.name == "bfloat16":
        readable("labels", y)
    if y.dtype.kind not in "iuf":
        hint = "; turn them into +1 and -1 by 2 * y - 1" if y.dtype.kind == "b" else ""
        kind = "booleans" if y.dtype.kind == "b" else f"{y.dtype} such as {shown(y.flat[0]) if y.size else '-'}"
        raise ValueError(f"labels must be the numbers +1 and -1, or those of the classes, 0, 1, ..., got {kind}{hint}")
    signed = np.isin(y, (-1, 1)).all() and (y == -1).any()
    if len(np.unique(y)) < 2 and not one_class:
        raise ValueError(
            f"all {len(y)} labels are {y.flat[0]:+.0f}: a single class has nothing to tell apart; add samples of the other"
        )
    if signed:
        if outputs > 2:
            raise ValueError(f"labels are +1 and -1, but the model has {outputs} outputs; give labels 0..{outputs - 1}")
        return Classes((y > 0).astype(int), ("−", "+"))
    count = max(outputs, 2)
    odd = ~np.isin(y, np.arange(count))
    if odd.any():
        i = int(np.flatnonzero(odd)[0])
        where = f"got {y[i]:g} at sample {i}"
        if outputs == 1:
            raise ValueError(
                f"labels must be +1 or -1 (or 0 and 1) for a model of one output, {where}; for K classes the model must "
                "give K outputs"
            )
        raise ValueError(f"labels must be from 0 to {outputs - 1} for a model of {outputs} outputs, {where}")
    return Classes(y.astype(int), tuple(str(k) for k in range(count)))
