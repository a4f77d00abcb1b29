"""The law of a group: how much of the rest of its class the feature of the group starves, in the linearised network.

The feature of a group is the direction delta in which, within a class, its members differ from the others in the mean
(other tags held fixed): delta = sum_i c_i dF(x_i)/dtheta. In signed outputs m = Y f, with b = Y c, what the network
carries along it is v = b.m, the mean logit of members less that of the others. Without the feature a member is moved by
-delta, so that all margins without it are A m, A = 1 - (Y 1_members) b^T, and the kernel of the data without it is
A K A^T. This splits training as (10.1) does, rest = A m and m_i = rest_i + y_i v for members, and the starvation index
(10.6) of the rest is 1 - (gain of A m in training on the data) / (gain of the margins in training on A K A^T), both
averaged over the class that the feature favours, at the same time.

Below it: groups that are named, groups that are found, and features without a group.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.diagnosis._training import TOLERANCE, train_linearised
from gradstarve.ground import any_array, as_number, shown
from gradstarve.theory import ntk

DOUBLE = float(np.finfo(np.float64).eps)
"""The rounding of a kernel whose products were taken in 64 bits."""

LOGIT = 1.0
"""A part of the network is called learnt when it has moved the logit by this much."""


_CROSSED = -0.3
"""Features of a group in the two classes with a cosine below this are one attribute, crossed with the label."""

_COMMON = 0.2
"""Features of a group in several classes with a mean cosine above this are one attribute that all classes share."""

_RESEMBLES = 0.3
"""Samples of a class without a split resemble a side whose mean is this near, in units of the feature."""

ALARM_INDEX, ALARM_P, ALARM_GAP = 0.25, 0.01, 25.0
"""An alarm needs this index, and this p-value of a group that was named or this gap of one that was found."""


@dataclass(frozen=True, eq=False)
class Group:
    """A group and the contrast that is its feature: `members` [n], `contrast` b [n], `classes` whose members it splits,
    `labels` [n]: ±1, those of its contrast, `held`: the tags [n, H] that are held fixed beside the class means."""

    name: str
    against: str
    members: np.ndarray
    contrast: np.ndarray
    classes: tuple[int, ...]
    labels: np.ndarray
    held: np.ndarray | None = None

    def favours(self, labels: np.ndarray) -> float:
        """The class, +1 or -1, in which members are more frequent: the one for which the feature can be a short cut."""
        shares = [self.members[labels == sign].mean() if (labels == sign).any() else 0.0 for sign in (1, -1)]
        return 1.0 if shares[0] >= shares[1] else -1.0

    def removal(self, labels: np.ndarray) -> np.ndarray:
        """A, [n, n]: margins to margins without the feature."""
        return np.eye(len(labels)) - np.outer(labels * self.members, self.contrast)


@dataclass(frozen=True, eq=False)
class GroupLaw:
    """What the linearised network does with the feature of one group; curves are [times], gains from the start.

    - `name`, `against`, `classes`, `share`: the group, what it is compared with, the classes that it splits, and which part
      of the class `favours` it makes up; `size`: its samples;
    - `strength`: |delta|^2 over the mean |dF(x_i)/dtheta|^2; `p_value`: of a permutation test whether delta is not 0;
    - `carried`: v, counted in favour of the class `favours` with the larger share of members; `rest`, `rest_alone`: the
      margin of the rest of this class, beside the feature and without it; `carried_alone`: v where the feature is all;
    - `index`: the starvation index (10.6) of the rest by the feature, `reverse`: of the feature by the rest; nan where the
      gain alone is not above `noise` or `noise_reverse`, the errors of its computation;
      `noise_carried`: the error of `carried`, which has to be above it for an alarm;
    - `at`: the record at the horizon;
    - `learnt_at`: times at which (feature, rest, rest alone) have moved the logit by 1, inf where they have not;
    - `separation`: for groups that were found and not given, gap of the two clusters in standard deviations within them.
    """

    group: Group
    favours: float
    share: float
    size: int
    strength: float
    p_value: float
    times: np.ndarray
    at: int
    carried: np.ndarray
    carried_alone: np.ndarray
    rest: np.ndarray
    rest_alone: np.ndarray
    noise: np.ndarray
    noise_reverse: np.ndarray
    noise_carried: np.ndarray
    separation: float = float("nan")
    label: str = ""

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.group.name

    @property
    def of(self) -> str:
        """The class that the feature favours."""
        return self.label or ("+" if self.favours > 0 else "−")

    @property
    def alarm(self) -> bool:
        """Whether the feature starves the rest, by the rule of `starvation_report`."""
        certain = self.p_value <= ALARM_P if np.isnan(self.separation) else self.separation >= ALARM_GAP
        learnt = self.carried[self.at] > self.noise_carried[self.at]
        return bool(certain and learnt and self.index[self.at] >= ALARM_INDEX)

    @property
    def index(self) -> np.ndarray:
        """Starvation index (10.6) of the rest by the feature, [times]; 0 at time 0, nan where it cannot be told."""
        return index_of(self.rest, self.rest_alone, self.noise)

    @property
    def reverse(self) -> np.ndarray:
        """Starvation index of the feature by the rest, [times]; 0 at time 0, nan where it cannot be told."""
        return index_of(self.carried, self.carried_alone, self.noise_reverse)

    @property
    def learnt_at(self) -> tuple[float, float, float]:
        """Times at which the feature, the rest, and the rest alone have moved the logit by 1."""
        return tuple(reaches(self.times, curve, LOGIT) for curve in (self.carried, self.rest, self.rest_alone))  # type: ignore


def index_of(together: Any, alone: Any, noise: Any) -> np.ndarray:
    """1 - together / alone; nan where |alone| is not above `noise`, the error it is computed with, and 0 where both are 0.

    >>> index_of(np.array([0.0, 1.0, 3e-16]), np.array([0.0, 2.0, 1e-16]), np.array([0.0, 1e-9, 1e-9])).tolist()
    [0.0, 0.5, nan]
    """
    together, alone, noise = np.broadcast_arrays(*(np.asarray(value, np.float64) for value in (together, alone, noise)))
    told = np.abs(alone) > noise
    index = 1 - together / np.where(told, alone, 1)
    # At time 0 nothing has been gained and nothing lost, and no error made.
    return np.where(told, index, np.where((together == 0) & (alone == 0) & (noise == 0), 0.0, np.nan))


def rounding_of(kernel: np.ndarray) -> float:
    """How exact the entries of a kernel are that was made elsewhere: to 32 bits if all of them are such numbers.

    >>> rounding_of(np.array([[0.1]])) < 1e-15 < rounding_of(np.array([[0.1]], np.float32))
    True
    """
    with np.errstate(over="ignore"):
        single = (kernel == kernel.astype(np.float32)).all()
    return float(np.finfo(np.float32).eps) if single else DOUBLE


def noise_of(kernel: np.ndarray, times: np.ndarray, margins: np.ndarray, rounding: float = DOUBLE) -> np.ndarray:
    """How far a mean margin may be off, [times], in training on `kernel` [n, n] that gave `margins` [times, n].

    What is added up in m = m_0 + K a, with |a_i| <= t, is exact to the `rounding` of the entries of K; and each step of the
    integrator is exact to its tolerance, of which ten are allowed for, relative to the largest gain of any margin.
    """
    added = 4 * rounding * float(np.abs(kernel).sum(1).max()) * times
    return added + 10 * TOLERANCE * np.abs(margins - margins[0]).max(1)


def reaches(times: np.ndarray, curve: np.ndarray, level: float) -> float:
    """The first time at which `curve` is at `level`, by straight lines in log t, inf if it is not."""
    above = np.flatnonzero(curve >= level)
    if not above.size:
        return float("inf")
    k = int(above[0])
    if k == 0 or times[k - 1] <= 0:
        return float(times[k])
    part = (level - curve[k - 1]) / (curve[k] - curve[k - 1])
    return float(times[k - 1] * (times[k] / times[k - 1]) ** part)


def make_group(
    name: str, members: np.ndarray, labels: np.ndarray, classes, others=None, against: str = "the others", strata=None
) -> Group | None:
    """The group with the contrast of its mean, the class means and the tags `others` [n, H] held fixed; None where these
    leave nothing of it (every sample of its classes in the group, or tags that always come together). `strata` [n]: the
    classes, where they are more than the two of `labels`."""
    basis = held_fixed(labels if strata is None else strata, others)
    left = members - basis @ (basis.T @ members)
    size = float(left @ left)
    if not classes or size < 1e-6 * max(members.sum(), 1):
        return None
    return Group(name, against, members, labels * left / size, tuple(classes), labels, others)


def without_complements(groups: list[Group], labels: np.ndarray) -> list[Group]:
    """`groups` without the complements of others: where light and dark differ in one class only, they are one feature with
    two signs, and dark favours a class in which nothing is compared. Where both classes hold light and dark each of them
    favours a class, and both stay."""

    def compared(group: Group) -> bool:
        return group.favours(labels) in group.classes

    def opposite(group: Group, other: Group) -> bool:
        b = group.contrast
        return np.allclose(b, -other.contrast, atol=1e-9 * np.abs(b).max())

    return [one for one in groups if compared(one) or not any(compared(two) and opposite(one, two) for two in groups)]


def held_fixed(labels: np.ndarray, others) -> np.ndarray:
    """Orthonormal columns that span the class means and the tags `others`."""
    columns = [*(labels == one for one in np.unique(labels)), *(np.asarray(others).T if others is not None else ())]
    left, strengths, _ = np.linalg.svd(np.stack(columns, 1).astype(np.float64), full_matrices=False)
    return left[:, strengths > 1e-9 * strengths[0]]


def permutation_p(
    groups: Sequence[Group],
    strata: np.ndarray,
    rng: np.random.Generator,
    rounds: int,
    sizes: Sequence[Callable[[np.ndarray], np.ndarray]],
    noises: Sequence[float] | None = None,
) -> list[float]:
    """For each of `groups`, the part of the permutations of the samples within `strata` (classes, [n]) in which the largest
    of all the groups, each over its mean by chance, is as large as this one (Westfall and Young's step of the maximum).

    So the chance that any group without a feature gets p <= level is at most `level`, however many groups there are; of one
    group it is the permutation test itself, exact at every level. `sizes[g]` of the contrasts [n, m] of m groups is [m];
    `noises[g]`: the rounding of that of the group.
    """
    if not groups:
        return []
    order = np.empty((len(strata), rounds), int)
    for one in np.unique(strata)[::-1]:
        mine = np.flatnonzero(strata == one)
        for r in range(rounds):
            order[mine, r] = rng.permutation(mine)
    most, ratios = np.zeros(rounds), []
    for k, (group, size) in enumerate(zip(groups, sizes, strict=True)):
        basis = held_fixed(strata, group.held)
        permuted = group.members[order]
        left = permuted - basis @ (basis.T @ permuted)
        squares = (left**2).sum(0)
        chance = size(group.labels[:, None] * left / np.where(squares > 0, squares, 1))
        # A feature of no size is that of every permutation.
        own = float(size(group.contrast[:, None])[0]) * (1 - 1e-12) - (0.0 if noises is None else noises[k])
        mean = float(chance.mean())
        ratios.append(own / mean if mean > 0 else -np.inf)
        most = np.maximum(most, chance / mean if mean > 0 else 0.0)
    return [(1 + int((most >= ratio).sum())) / (rounds + 1) for ratio in ratios]


def strength_p(
    groups: Sequence[Group],
    kernels: Sequence[np.ndarray],
    strata: np.ndarray,
    rng: np.random.Generator,
    rounds: int,
    rounding: float = DOUBLE,
) -> list[float]:
    """`permutation_p` of |delta|^2, in the kernel [n, n] of each group."""
    sizes = [lambda contrasts, kernel=kernel: np.einsum("ir,ir->r", contrasts, kernel @ contrasts) for kernel in kernels]
    noises = [_square(group, kernel, rounding)[1] for group, kernel in zip(groups, kernels, strict=True)]
    return permutation_p(groups, strata, rng, rounds, sizes, noises)


def _square(group: Group, kernel: np.ndarray, rounding: float) -> tuple[float, float]:
    """|delta|^2 = b^T K b, and how far it may be off by the rounding of its terms."""
    b = group.contrast
    terms = float(np.abs(b) @ np.abs(kernel) @ np.abs(b))
    return float(b @ kernel @ b), 16 * rounding * terms


def group_law(
    group: Group,
    kernel: np.ndarray,
    labels: np.ndarray,
    margins: np.ndarray,
    times: np.ndarray,
    at: int,
    p_value: float = float("nan"),
    separation: float = float("nan"),
    label: str = "",
    alone: np.ndarray | None = None,
    carried_alone: np.ndarray | None = None,
    rounding: float = DOUBLE,
) -> GroupLaw:
    """The law of `group` given the training on all of the data, `margins` [times, n] with margins[0] at times[0] = 0.

    `rounding`: how exact the entries of `kernel` are.

    Of several classes all is about the class called `label` against the others; `alone` [times, n] are then the margins
    without the feature, and `carried_alone` [times] what is carried where the feature is all.
    """
    removal, b = group.removal(labels), group.contrast
    favours = group.favours(labels)
    mine = labels == favours
    rest = (margins - margins[0]) @ removal[mine].mean(0)
    kernel_alone = removal @ kernel @ removal.T
    if alone is None:
        alone = train_linearised(kernel_alone, removal @ margins[0], times)
    # Entries that cancel in A K A^T are off by roundings of those of K.
    rows = np.abs(removal).sum(1).max() ** 2
    noise = noise_of(kernel_alone, times, alone) + noise_of(rows * kernel, times, margins[:1], rounding)
    strength, least = _square(group, kernel, rounding)
    if carried_alone is None:
        carried_alone = _carried_alone(group, strength, labels, times)
    return GroupLaw(
        group=group,
        favours=favours,
        share=float(group.members[mine].mean()),
        size=int(group.members.sum()),
        strength=strength / float(np.trace(kernel) / len(labels)),
        p_value=p_value,
        times=times,
        at=at,
        carried=favours * ((margins - margins[0]) @ b),
        carried_alone=favours * carried_alone,
        rest=rest,
        rest_alone=(alone - alone[0])[:, mine].mean(1),
        noise=noise,
        noise_reverse=10 * TOLERANCE * np.abs(carried_alone) + least * group.members.sum() * times,
        noise_carried=np.abs(b).sum() * noise_of(kernel, times, margins, rounding),
        separation=separation,
        label=label,
    )


def _carried_alone(group: Group, strength: float, labels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """v where samples are y_i delta for members and nothing for others: a kernel of rank one, its two signs summed up."""
    counts = np.array([float((group.members & (labels == sign)).sum()) for sign in (1, -1)])
    kernel = strength * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return train_linearised(kernel, np.zeros(2), times, weights=counts)[:, 0]


# Which samples are in which group: what a user may pass as `groups`, as one table of members, with its errors.


@dataclass(frozen=True)
class Tags:
    """`names`: [G]; `members`: [n, G] booleans; `exclusive`: whether every sample is of exactly one group, a sample type;
    `agree`: groups that say whether samples agree with their label, one feature in each class."""

    names: tuple[str, ...]
    members: np.ndarray
    exclusive: bool
    agree: frozenset[int] = frozenset()

    def side(self, k: int, view: Any) -> tuple[str, np.ndarray]:
        """Name and members [n] of group k, from the side on which it can be a short cut for the class of a view: of several
        classes the side more frequent in this class than in the others, of two the one more frequent in a class that it
        splits."""
        members, mine = self.members[:, k], view.labels > 0
        if k in self.agree:
            return self.names[k], members & mine
        if view.label:
            turned = members[mine].mean() < members[~mine].mean()
        else:
            split = varying_classes(members, view.labels)
            turned = len(split) == 1 and members[view.labels == split[0]].mean() < members[view.labels != split[0]].mean()
        return (f"no {self.names[k]}", ~members) if turned and not self.exclusive else (self.names[k], members)


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
    """Refuse groups of one sample, but for cells, which are put together with those of other classes."""
    cells = _homes(tags, labels)
    for name, inside in zip(tags.names, tags.members.T, strict=True):
        if inside.sum() == 0:
            raise ValueError(f"groups: group {shown(name)} has no sample; leave it out")
        for one in np.unique(labels):
            mine = labels == one
            count, rest = int((mine & inside).sum()), int((mine & ~inside).sum())
            if rest and count == 1 and inside.sum() == 1 and cells is None:
                raise ValueError(
                    f"groups: group {shown(name)} has 1 sample, of which no mean can be told from chance; give it more, "
                    "or leave it out"
                )
    return tags


# What groups mean: attributes that samples have, cells of label and attribute, or agreement with the label.


def as_attributes(tags: Tags, products: np.ndarray, labels: np.ndarray, notes: list[str]) -> Tags:
    """`tags` as attributes that samples of all classes may have, told from `products` [n, n] of the gradients of samples.

    - Cells, types that occur in one class each: cells of different classes whose features are alike are one attribute.
    - "Agrees with the label": the features of the group point different ways in different classes. Of two classes the
      attribute is that of members of class + and of those of class - that are no members; of more, each class has its own.
    - A class of two of which all samples agree: its samples are on the side whose mean they resemble.
    """
    return _agreement(_cells(tags, products, labels, notes), products, labels, notes)


def _features(members: np.ndarray, labels: np.ndarray, classes) -> np.ndarray:
    """Weights [n, classes] of the mean of members less that of the others, in each class."""
    columns = []
    for one in classes:
        mine = labels == one
        left = np.where(mine, members - members[mine].mean(), 0.0)
        columns.append(left / (left @ left))
    return np.stack(columns, 1)


def _homes(tags: Tags, labels: np.ndarray) -> np.ndarray | None:
    """The class, by its rank from the last label down, in which each type occurs, where types are cells: each occurs in one
    class only, and at least two classes have several. None where they are not."""
    counts = np.stack([tags.members[labels == one].sum(0) for one in np.unique(labels)[::-1]])
    home = counts.argmax(0)
    cells = tags.exclusive and ((counts > 0).sum(0) == 1).all() and len(tags.names) <= len(labels) // 2
    return home if cells and (np.bincount(home) >= 2).sum() >= 2 else None


def _cells(tags: Tags, products: np.ndarray, labels: np.ndarray, notes: list[str]) -> Tags:
    from scipy.optimize import linear_sum_assignment  # here: it takes long to import

    values = np.unique(labels)[::-1]
    home = _homes(tags, labels)
    if home is None:
        return tags
    first = int(np.argmax(np.bincount(home)))
    sets = [[int(j)] for j in np.flatnonzero(home == first)]

    def means(k: int) -> tuple[np.ndarray, np.ndarray]:
        inside, mine = tags.members[:, home == k].astype(float), (labels == values[k]).astype(float)
        return np.flatnonzero(home == k), inside / inside.sum(0) - mine[:, None] / mine.sum()

    reference = means(first)[1]
    for k in range(len(values)):
        cells, weights = means(k)
        if k == first:
            continue
        alike = reference.T @ products @ weights
        if len(cells) == 1:  # the class has no other: nothing to be matched by
            sets.append([int(cells[0])])
            continue
        for row, column in zip(*linear_sum_assignment(-alike), strict=True):
            sets[row].append(int(cells[column]))
    names = tuple(" / ".join(tags.names[j] for j in one) for one in sets)
    members = np.stack([tags.members[:, one].any(1) for one in sets], 1)
    notes.append(
        "The groups are cells, each of one class; those whose features are alike in different classes are read as one "
        f"attribute: {'; '.join(shown(name) for name in names)}."
    )
    return Tags(names, members, True)


def _agreement(tags: Tags, products: np.ndarray, labels: np.ndarray, notes: list[str]) -> Tags:
    pair = len(tags.names) == 2 and tags.exclusive
    values = np.unique(labels)[::-1]  # class + first
    table, agree = tags.members.copy(), set()
    for k in range(1 if pair else len(tags.names)):
        members, name = tags.members[:, k], tags.names[k]
        split = [one for one in values if min((labels == one)[members].sum(), (labels == one)[~members].sum()) >= 2]
        if len(split) >= 2:
            features = _features(members, labels, split)
            gram = features.T @ products @ features
            sizes = np.sqrt(np.maximum(np.diag(gram), np.finfo(float).tiny))
            off = ~np.eye(len(split), dtype=bool)
            cosine = float((gram / np.outer(sizes, sizes))[off].mean())
            # Of several classes: what most of every class has is a short cut for none, unless it is another thing in each.
            most = min(members[labels == one].mean() for one in values) > 0.5
            if len(values) == 2 and cosine < _CROSSED:
                table[:, k] = members == (labels == values[0])
                notes.append(
                    f"{name!r} says whether samples agree with their label (the features of its members in the two "
                    f"classes have cosine {cosine:.2f}); it is read as the attribute of those of class + that are "
                    f"{name!r} and of those of class − that are not."
                )
            elif len(values) > 2 and most and cosine < _COMMON:
                agree.add(k)
                notes.append(
                    f"{name!r} holds most samples of every class, with another feature in each (their mean cosine is "
                    f"{cosine:.2f}), as where it says whether samples agree with their label; it is read class by class."
                )
        elif len(split) == 1:
            one = labels != split[0]
            # Where the samples of the other class lie between the two means, 0 at others and 1 at members.
            feature = _features(members, labels, split)[:, 0]
            outside = ~members & ~one
            place = feature @ products @ (one / one.sum() - outside / outside.sum()) / (feature @ products @ feature)
            has = bool(members[one].all())
            if members[one].all() != members[one].any() or abs(place - (not has)) > _RESEMBLES:
                continue
            table[one, k] = not has
            notes.append(
                f"In one class alone {name!r} differs from sample to sample; the other samples are {'' if has else 'not '}"
                f"{name!r}, and they resemble those of that class that are {'not ' if has else ''}{name!r}: the group is "
                "read as saying whether samples agree with their label."
            )
    if pair and agree:
        return Tags(tags.names[:1], table[:, :1], False, frozenset(agree))
    if pair:
        table[:, 1] = ~table[:, 0]
    return Tags(tags.names, table, tags.exclusive, frozenset(agree))


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


# Groups that the user has not named: a class falls into two clusters with a gap between that ordinary variation lacks.
#
# A feature that some samples of a class have and others lack makes two clusters in feature space, however small it is beside
# the rest of the variation, as long as it varies on its own. So the search looks in the leading directions of the centred
# kernel of a class, each scaled to variance 1, for the direction along which the class splits best: two means along a
# direction, the direction of the difference of their means, and over again, from many starts. What it gives is the gap of
# the two means in standard deviations within clusters, |mean - mean| / sd. Nothing is learnt from labels or from training.

_LEADING, _HELD = 20, 0.95
"""The directions of a class in which is looked: those that hold this part of its variation, at most so many. What lies
beyond is next to nothing of what the network sees, and scaled to variance 1 a few samples stand far out in it: points in two
dimensions, whose kernel has three directions that count, had gaps of 100 among twenty."""
_STARTS = 200
_ROUNDS = 60
_SMALLEST = 0.03
"""A cluster has at least this part of its class, and three samples."""


def two_clusters(
    kernel: np.ndarray, rng: np.random.Generator, most: int = 3, rounding: float = DOUBLE
) -> list[tuple[np.ndarray, float]]:
    """The splits of n samples with centred or uncentred `kernel` [n, n], best first, at most `most` that differ: pairs of
    booleans [n] and the gap in standard deviations within clusters. Empty for fewer than 12 samples.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(60, 5))
    >>> x[:20, 3] += 40
    >>> inside, gap = two_clusters(x @ x.T, rng)[0]
    >>> sorted({int(inside[:20].sum()), int(inside[20:].sum())}), gap > 30
    ([0, 20], True)
    """
    n = len(kernel)
    if n < 12:
        return []
    centred = kernel - kernel.mean(0)
    centred = centred - centred.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    # Variation within the rounding of the kernel does not count: samples that are all alike have no directions.
    noise = 4 * n * rounding * np.abs(kernel).max()
    kept = values > max(1e-9 * values[-1], noise)
    if not kept.any():
        return []
    parts = np.cumsum(values[kept][::-1]) / values[kept].sum()
    count = min(1 + int(np.searchsorted(parts, _HELD)), _LEADING, n // 5)
    scores = vectors[:, kept][:, ::-1][:, :count] * np.sqrt(n)
    # The samples themselves are good starts: those of a rare cluster point to its mean.
    some = rng.permutation(n)[:_STARTS]
    starts = np.concatenate([np.eye(scores.shape[1]), scores[some], rng.normal(size=(_STARTS, scores.shape[1]))]).T
    along = scores @ starts
    cuts = np.concatenate([_cuts(along), np.quantile(along, 0.08, 0), np.quantile(along, 0.92, 0)])
    insides, gaps = _settle(scores, np.tile(along, (1, 3)) > cuts)
    found: list[tuple[np.ndarray, float]] = []
    order = np.argsort(-gaps)
    explained = gaps**2 * insides.mean(0) * (1 - insides.mean(0))
    left = gaps > 0
    for k in order:
        if len(found) == most:
            break
        if left[k]:
            # A part of a cluster may stand further apart than all of it: of splits that nearly agree take the one that
            # explains most of the variance.
            agree = (insides == insides[:, [k]]).mean(0)
            alike = left & (np.maximum(agree, 1 - agree) > 0.9)
            best = int(np.argmax(np.where(alike, explained, -1)))
            found.append((insides[:, best], float(gaps[best])))
            left &= ~alike
    return sorted(found, key=lambda pair: -pair[1])


def _settle(scores: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two means along their difference, over and over, for all columns of `inside` [n, S] at once; and the gaps [S]."""
    for _ in range(_ROUNDS):
        along = _project(scores, inside)
        following = along > _cuts(along)
        if (following == inside).all():
            break
        inside = following
    along = _project(scores, inside)
    p, low = inside.mean(0), ~inside
    p = np.clip(p, 1 / len(inside), 1 - 1 / len(inside))
    means = (along * inside).mean(0) / p, (along * low).mean(0) / (1 - p)
    within = ((along - np.where(inside, *means)) ** 2).mean(0)
    gaps = np.abs(means[0] - means[1]) / np.sqrt(np.maximum(within, 1e-300))
    return inside, np.where(inside.any(0) & low.any(0), gaps, 0.0)


def _project(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The samples along the difference of the two means of each split, [n, S]; the scores have mean 0."""
    return scores @ (scores.T @ (inside - inside.mean(0)))


def _cuts(along: np.ndarray) -> np.ndarray:
    """Where to cut columns of numbers so that the variance within the two parts is least (Otsu's threshold), [S]."""
    ordered = np.sort(along, 0)
    n = len(ordered)
    least = max(3, int(np.ceil(_SMALLEST * n)))
    sums = np.cumsum(ordered, 0)
    low = np.arange(least, n - least + 1)[:, None]
    below = sums[low[:, 0] - 1]
    between = low * (n - low) * (below / low - (sums[-1] - below) / (n - low)) ** 2
    best = low[np.argmax(between, 0), 0]
    columns = np.arange(along.shape[1])
    return (ordered[best - 1, columns] + ordered[best, columns]) / 2


# The features of the data to a network at its first weights: eigenvectors of K, what each is worth, who starves whom.
#
# K = Y Phi Phi^T Y = U S^2 U^T (section 14): column u_i of U is a feature, s_i^2 its strength, z_i = u_i^T m its response.


@dataclass(frozen=True, eq=False)
class EigenFeatures:
    """The `k` features of largest response z* under the ridge, largest first; arrays are [k], `starvation` is [k, k].

    - `number`: rank of the feature by strength, 0 the strongest; `strength`: s_i^2; `frequency`: part of the samples that
      carry it, 1 / (n sum_j u_ij^4), 1 where all do alike; `alignment`: |u_i . 1| / sqrt(n), 1 where it tells all alone;
    - `response`: z_i*, all made positive, at the ridge optimum (14.2); `half_time`: when z_i gets to half of it in training
      (14.1), inf where it does not within the times of the report;
    - `starvation`: [j, i] = d log z_j* / d log s_i^2 (14.3): below 0 where feature i starves feature j; nan where z_j* is
      zero to rounding;
    - `starved_by`: the i with the lowest entry of row j, or -1 where none is below -0.01.
    """

    number: np.ndarray
    strength: np.ndarray
    frequency: np.ndarray
    alignment: np.ndarray
    response: np.ndarray
    half_time: np.ndarray
    starvation: np.ndarray
    starved_by: np.ndarray
    vectors: np.ndarray


def _cleaned(kernel: np.ndarray, rounding: float) -> np.ndarray:
    """`kernel` [n, n] without its eigenvalues below the rounding of its entries."""
    values, vectors = np.linalg.eigh((kernel + kernel.T) / 2)
    least = len(kernel) * rounding * values[-1]
    root = vectors[:, values > least] * np.sqrt(values[values > least])
    return root @ root.T


def eigen_features(
    kernel: np.ndarray, margins: np.ndarray, times: np.ndarray, ridge: float, count: int, rounding: float = DOUBLE
) -> EigenFeatures:
    """The `count` features of largest response; `margins` [times, n] are those of training from the first weights.

    `ConvergenceError` where the optimum under the ridge is not found. Always in 64 bits, and without the directions of K
    that are rounding: a kernel of fewer features than samples, computed in 32 bits, has negative eigenvalues.
    """
    with jax.enable_x64(True):
        K, strength = jnp.asarray(_cleaned(kernel, rounding), jnp.float64), jnp.asarray(ridge, jnp.float64)
        strengths, vectors = map(np.asarray, ntk.features(K))
        best = np.asarray(ntk.ridge_optimum(K, strength).margins)
        derivatives = np.asarray(ntk.starvation_derivatives(K, strength))
    responses = vectors.T @ best
    chosen = np.argsort(-np.abs(responses), kind="stable")[: min(count, len(kernel))]
    derivatives = derivatives[np.ix_(chosen, chosen)]
    z, s, u = responses[chosen], strengths[chosen], vectors[:, chosen] * np.where(responses[chosen] < 0, -1, 1)
    told = np.abs(z) > len(kernel) * np.finfo(np.float64).eps * np.abs(best).max(initial=0)
    starvation = np.where(told[:, None], derivatives * s / np.where(told, z, 1)[:, None], np.nan)
    others = np.where(np.eye(len(z), dtype=bool) | ~told[:, None], np.inf, starvation)
    lowest = others.argmin(1)
    curves = (margins - margins[0]) @ u
    return EigenFeatures(
        number=chosen,
        strength=s,
        frequency=1 / (len(kernel) * (u**4).sum(0)),
        alignment=np.abs(u.sum(0)) / np.sqrt(len(kernel)),
        response=np.abs(z),
        half_time=np.array(
            [
                reaches(times, curve, abs(end) / 2) if clear else np.inf
                for curve, end, clear in zip(curves.T, z, told, strict=True)
            ]
        ),
        starvation=starvation,
        starved_by=np.where(others.min(1) < -0.01, lowest, -1),
        vectors=u,
    )
