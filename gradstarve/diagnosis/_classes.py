"""The linearised network as the laws of groups see it: one class against the others.

Of two classes there is one margin, m = y f, and training is (14.1). Of K classes the logits f [n, K] obey the softmax flow

    f = f_0 + Theta a,   da_i/dt = e_{y_i} - softmax(f_i),   Theta = Phi Phi^T [n K, n K]

and class k is seen through u_k = f_k - (mean of the other logits). It is linear in f: so a feature and the rest add up in
it as they do in f of two classes, the margins of the view are +u_k for samples of class k and -u_k for all others, and the
kernel of the view is c^T Theta c with the weights c of u_k. Data without a feature are trained with all of their outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special

from gradstarve.diagnosis._data import Classes
from gradstarve.diagnosis._groups import Group
from gradstarve.diagnosis._heldout import Columns
from gradstarve.diagnosis._training import TOLERANCE, largest_eigenvalue, train_linearised


@dataclass(frozen=True, eq=False)
class View:
    """One class against the others: `labels` ±1 [n] and `strata` [n], the classes; `kernel` [n, n] and `margins` [T, n];
    `signs`: which of the two sides the view is about; `label`: the class on side +1, "" where the sides are the classes."""

    labels: np.ndarray
    strata: np.ndarray
    kernel: np.ndarray
    margins: np.ndarray
    signs: tuple[int, ...] = (1, -1)
    label: str = ""


class TwoClasses:
    """(14.1): `kernel` [n, n] and margins `start` [n] in signed outputs, `labels` ±1. States are margins [T, n]."""

    def __init__(self, kernel: np.ndarray, start: np.ndarray, labels: np.ndarray):
        self.kernel, self.start, self.labels = kernel, start, labels
        self.scale = largest_eigenvalue(kernel)

    def train(self, start: np.ndarray, times: np.ndarray) -> np.ndarray:
        """States at `times`."""
        return train_linearised(self.kernel, start, times)

    def margins(self, states: np.ndarray) -> np.ndarray:
        """Of the true class, [T, n]."""
        return states

    def views(self, states: np.ndarray) -> list[View]:
        """The one view that there is."""
        return [View(self.labels, self.labels, self.kernel, states)]

    def without(self, groups: list[Group], views: list[View], times: np.ndarray) -> list[dict[str, Any]]:
        """Nothing that `group_law` does not compute itself."""
        return [{} for _ in groups]


class Softmax:
    """The softmax flow: `kernel` Theta [n K, n K], or [n, n] for outputs that are alike, logits `start` [n, K]."""

    def __init__(self, kernel: np.ndarray, start: np.ndarray, classes: Classes):
        self.kernel, self.start, self.classes = kernel, start, classes
        self.flow = Columns(kernel, start, classes)
        self.scale = self.flow.scale

    def train(self, start: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Logits [T, n, K]."""
        return _one(self.flow, start[:, :, None], times)[..., 0]

    def margins(self, states: np.ndarray) -> np.ndarray:
        """f_y - log sum exp of the others [T, n], of which sigmoid(-m) is the probability of a wrong class."""
        return true_margins(states, self.classes.index)

    def views(self, states: np.ndarray) -> list[View]:
        """Each class that samples have against the others."""
        return [self._view(int(k), states) for k in np.unique(self.classes.index)]

    def _view(self, k: int, states: np.ndarray) -> View:
        index, count = self.classes.index, self.classes.count
        n, weights = len(index), against(k, count)
        signs = np.where(index == k, 1.0, -1.0)
        if len(self.kernel) == n:
            kernel = self.kernel * (weights @ weights)
        else:
            half = (self.kernel.reshape(-1, count) @ weights).reshape(n, count, n)
            kernel = np.einsum("ikj,k->ij", half, weights)
        kernel = signs[:, None] * (kernel + kernel.T) / 2 * signs
        return View(signs, index, kernel, signs * (states @ weights), (1,), self.classes.names[k])

    def without(self, groups: list[Group], views: list[View], times: np.ndarray) -> list[dict[str, Any]]:
        """For each group, seen in its view, the margins [T, n] in training without its feature, and what a member gains of
        u_k [T] in training on nothing else."""
        found = []
        for first in range(0, len(groups), _TOGETHER):
            some = groups[first : first + _TOGETHER]
            states = self._without(some, times)
            for r, (group, view) in enumerate(zip(some, views[first:], strict=False)):
                weights = against(self.classes.names.index(view.label), self.classes.count)
                alone = view.labels * (states[..., r] @ weights)
                found.append({"alone": alone, "carried_alone": self._only(group, times) @ weights})
        return found

    def _without(self, groups: list[Group], times: np.ndarray) -> np.ndarray:
        """Logits [T, n, K, R] of training without the feature of each of R groups."""
        flow = _Removed(self.kernel, self.start, self.classes, groups)
        return _one(flow, flow.remove(np.repeat(self.start[:, :, None], len(groups), 2)), times)

    def _only(self, group: Group, times: np.ndarray) -> np.ndarray:
        """Logits [T, K] of a member in training on samples that are the feature of `group`, or nothing."""
        count, n = self.classes.count, len(self.start)
        b = group.labels * group.contrast
        if len(self.kernel) == n:
            products = float(b @ self.kernel @ b) * np.eye(count)
        else:
            half = (b @ self.kernel.reshape(n, -1)).reshape(count, n, count)
            products = np.einsum("kjl,j->kl", half, b)
        counts = np.bincount(self.classes.index, group.members, count)
        one_each = Classes(np.arange(count), self.classes.names)
        flow = Columns(np.kron(np.ones((count, count)), products), np.zeros((count, count)), one_each)
        return _one(flow, np.zeros((count, count, 1)), times, counts)[:, 0, :, 0]


class _Removed(Columns):
    """Columns of one flow, each of samples from which the feature of another group is removed: A Theta A^T."""

    def __init__(self, kernel: np.ndarray, start: np.ndarray, classes: Classes, groups: list[Group]):
        self.members = np.stack([group.members for group in groups], 1).astype(float)
        self.contrasts = np.stack([group.labels * group.contrast for group in groups], 1)
        super().__init__(kernel, start, classes)
        vector = np.abs(np.random.default_rng(0).normal(size=(*start.shape, len(groups))))
        size = np.ones(len(groups))
        for _ in range(20):
            vector = self.product(vector / np.where(size > 0, size, 1))
            size = np.sqrt((vector**2).sum((0, 1)))
        self.scale = 1.05 * float(size.max())

    def remove(self, f: np.ndarray) -> np.ndarray:
        """A f, [n, K, R]: logits without the feature."""
        return f - self.members[:, None] * np.einsum("nr,nkr->kr", self.contrasts, f)

    def product(self, a: np.ndarray) -> np.ndarray:
        """A Theta A^T a."""
        moved = a - self.contrasts[:, None] * np.einsum("nr,nkr->kr", self.members, a)
        return self.remove(super().product(moved))


_TOGETHER = 16  # groups without which networks are trained at the same time


def _one(flow: Columns, start: np.ndarray, times: np.ndarray, weights: Any = None) -> np.ndarray:
    """Logits [T, n, K, R] from `start` [n, K, R], every sample counted once, or `weights` [n] times."""
    n, _, count = start.shape
    weights = np.repeat((np.ones(n) if weights is None else weights)[:, None], count, 1)
    return flow.train(weights, times, start=start, rtol=TOLERANCE)


def against(k: int, count: int) -> np.ndarray:
    """The weights of u_k, the logit of class k less the mean of the others.

    >>> against(1, 3).tolist()
    [-0.5, 1.0, -0.5]
    """
    weights = np.full(count, -1 / (count - 1))
    weights[k] = 1
    return weights


def true_margins(logits: np.ndarray, index: np.ndarray) -> np.ndarray:
    """f_y - log sum exp of the other logits, [..., n] for logits [..., n, K] and classes [n].

    >>> true_margins(np.zeros((2, 3)), np.array([0, 2])).round(3).tolist()
    [-0.693, -0.693]
    """
    mine = np.take_along_axis(logits, np.broadcast_to(index[:, None], (*logits.shape[:-1], 1)), -1)[..., 0]
    others = np.where(np.arange(logits.shape[-1]) == index[:, None], -np.inf, logits)
    return mine - special.logsumexp(others, axis=-1)
