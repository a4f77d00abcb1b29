"""The law of a group: how much of the rest of its class the feature of the group starves, in the linearised network.

The feature of a group is the direction delta in which, within a class, its members differ from the others in the mean
(other tags held fixed): delta = sum_i c_i dF(x_i)/dtheta. In signed outputs m = Y f, with b = Y c, what the network
carries along it is v = b.m, the mean logit of members less that of the others. Without the feature a member is moved by
-delta, so that all margins without it are A m, A = 1 - (Y 1_members) b^T, and the kernel of the data without it is
A K A^T. This splits training as (10.1) does, rest = A m and m_i = rest_i + y_i v for members, and the starvation index
(10.6) of the rest is 1 - (gain of A m in training on the data) / (gain of the margins in training on A K A^T), both
averaged over the class that the feature favours, at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve.diagnosis._training import TOLERANCE, train_linearised

LOGIT = 1.0
"""A part of the network is called learnt when it has moved the logit by this much."""


ALARM_INDEX, ALARM_P, ALARM_GAP = 0.25, 0.01, 25.0
"""An alarm needs this index, and this p-value of a group that was named or this gap of one that was found."""


@dataclass(frozen=True, eq=False)
class Group:
    """A group and the contrast that is its feature: `members` [n], `contrast` b [n], `classes` whose members it splits."""

    name: str
    against: str
    members: np.ndarray
    contrast: np.ndarray
    classes: tuple[int, ...]

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

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.group.name

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


def noise_of(kernel: np.ndarray, times: np.ndarray, margins: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """How far a mean margin may be off, [times], in training on `kernel` [n, n] that gave `margins` [times, n].

    What is added up in m = m_0 + K a, with |a_i| <= w_i t, is exact to rounding; and each step of the integrator is exact to
    its tolerance, of which ten are allowed for, relative to the largest gain of any margin.
    """
    rounding = 4 * np.finfo(np.float64).eps * float((np.abs(kernel) @ np.broadcast_to(weights, len(kernel))).max()) * times
    return rounding + 10 * TOLERANCE * np.abs(margins - margins[0]).max(1)


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
    name: str, members: np.ndarray, labels: np.ndarray, classes, others=None, against: str = "the others"
) -> Group | None:
    """The group with the contrast of its mean, the class means and the tags `others` [n, H] held fixed; None where these
    leave nothing of it (every sample of its classes in the group, or tags that always come together)."""
    basis = held_fixed(labels, others)
    left = members - basis @ (basis.T @ members)
    size = float(left @ left)
    if not classes or size < 1e-6 * max(members.sum(), 1):
        return None
    return Group(name, against, members, labels * left / size, tuple(classes))


def without_complements(laws: list, labels: np.ndarray) -> list:
    """`laws` (with .group) without the complements of others: where light and dark differ in one class only, they are one
    feature with two signs, and dark favours a class in which nothing is compared. Where both classes hold light and dark
    each of them favours a class, and both stay."""

    def compared(law):
        return law.group.favours(labels) in law.group.classes

    def opposite(law, other):
        b = law.group.contrast
        return np.allclose(b, -other.group.contrast, atol=1e-9 * np.abs(b).max())

    return [law for law in laws if compared(law) or not any(compared(other) and opposite(law, other) for other in laws)]


def held_fixed(labels: np.ndarray, others) -> np.ndarray:
    """Orthonormal columns that span the class means and the tags `others`."""
    columns = [labels > 0, labels < 0, *(np.asarray(others).T if others is not None else ())]
    left, strengths, _ = np.linalg.svd(np.stack(columns, 1).astype(np.float64), full_matrices=False)
    return left[:, strengths > 1e-9 * strengths[0]]


def permutation_p(
    group: Group, kernel: np.ndarray, labels: np.ndarray, others, rng: np.random.Generator, rounds: int
) -> float:
    """Part of the permutations of the members within each class whose |delta|^2 is as large: exact at every level."""
    basis = held_fixed(labels, others)
    permuted = np.empty((len(labels), rounds))
    for sign in (1, -1):
        mine = np.flatnonzero(labels == sign)
        for r in range(rounds):
            permuted[mine, r] = rng.permutation(group.members[mine])
    left = permuted - basis @ (basis.T @ permuted)
    size = (left**2).sum(0)
    contrasts = labels[:, None] * left / np.where(size > 0, size, 1)
    squares = np.einsum("ir,ir->r", contrasts, kernel @ contrasts)
    mine, noise = _square(group, kernel)
    # A feature of no length is that of every permutation.
    return (1 + int((squares >= mine * (1 - 1e-12) - noise).sum())) / (rounds + 1)


def _square(group: Group, kernel: np.ndarray) -> tuple[float, float]:
    """|delta|^2 = b^T K b, and how far it may be off by the rounding of its terms."""
    b = group.contrast
    terms = float(np.abs(b) @ np.abs(kernel) @ np.abs(b))
    return float(b @ kernel @ b), 16 * np.finfo(np.float64).eps * terms


def group_law(
    group: Group,
    kernel: np.ndarray,
    labels: np.ndarray,
    margins: np.ndarray,
    times: np.ndarray,
    at: int,
    p_value: float = float("nan"),
    separation: float = float("nan"),
) -> GroupLaw:
    """The law of `group` given the training on all of the data, `margins` [times, n] with margins[0] at times[0] = 0."""
    removal, b = group.removal(labels), group.contrast
    favours = group.favours(labels)
    mine = labels == favours
    rest = (margins - margins[0]) @ removal[mine].mean(0)
    kernel_alone = removal @ kernel @ removal.T
    alone = train_linearised(kernel_alone, removal @ margins[0], times)
    # Entries that cancel in A K A^T are off by roundings of those of K.
    rows = np.abs(removal).sum(1).max() ** 2
    noise = noise_of(kernel_alone, times, alone) + noise_of(rows * kernel, times, margins[:1])
    strength, least = _square(group, kernel)
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
        noise_carried=np.abs(b).sum() * noise_of(kernel, times, margins),
        separation=separation,
    )


def _carried_alone(group: Group, strength: float, labels: np.ndarray, times: np.ndarray) -> np.ndarray:
    """v where samples are y_i delta for members and nothing for others: a kernel of rank one, its two signs summed up."""
    counts = np.array([float((group.members & (labels == sign)).sum()) for sign in (1, -1)])
    kernel = strength * np.array([[1.0, -1.0], [-1.0, 1.0]])
    return train_linearised(kernel, np.zeros(2), times, weights=counts)[:, 0]
