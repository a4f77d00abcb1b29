"""Hypotheses as predicates: what a theorem asks of a problem, in words and as a function that says whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradstarve.problem import (
    ClassDataset,
    Dataset,
    DeepReLU,
    Network,
    SoftmaxOneLayer,
    SoftmaxTwoLayer,
    TwoLayerReLU,
)


@dataclass(frozen=True, eq=False)
class Problem:
    """What a theorem speaks of: `data`, one `network` before training, and the name of the `loss`."""

    data: Dataset | ClassDataset
    network: Network
    loss: str

    @classmethod
    def read(cls, instance: dict[str, Any]) -> Problem | None:
        """The problem of a recorded instance, to train it again; None for an instance that is not one problem.

        >>> instance = {"loss": "hinge", "points": [[1.0], [-1.0]], "labels": [1, -1], "weights": [0.5, 0.5],
        ...     "w": [[2.0]], "z": [1.0]}
        >>> Problem.read(instance).data.separability().antipodal
        True
        """
        if "points" not in instance or "loss" not in instance:
            return None
        several = "labels" not in instance
        kinds = (
            ({"layers"}, lambda **kw: DeepReLU(kw["layers"], kw.get("connections"))),
            ({"v"}, SoftmaxOneLayer),
            ({"w", "z"}, SoftmaxTwoLayer if several else TwoLayerReLU),
        )
        for names, build in kinds:
            if names <= set(instance):
                network = build(**{name: instance[name] for name in (*names, "connections") if name in instance})
                build_data, labels = (ClassDataset, "classes") if several else (Dataset, "labels")
                data = build_data(instance["points"], instance[labels], instance["weights"])
                return cls(data, network, instance["loss"])
        return None

    @cached_property
    def shape(self) -> Any:
        """The geometry of the data."""
        return self.data.separability() if isinstance(self.data, Dataset) else None

    @cached_property
    def margins(self) -> np.ndarray:
        """m_i at the start, [n]."""
        return np.asarray(self.data.margins(self.network(self.data.points)))

    @cached_property
    def neurons(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(active [h, n], along [h], zeta [h]) of a two-layer network: which points each neuron is active on, and for
        those that see a point, w . x/|x| along the longest point they see and z in the orientation of its class."""
        network: Any = self.network
        data: Any = self.data
        points, labels = np.asarray(data.points), np.asarray(data.labels)
        norms = np.linalg.norm(points, axis=-1)
        along = np.asarray(network.w) @ (points / norms[:, None]).T
        active = along > 0
        first = np.argmax(np.where(active, norms, 0), axis=-1)
        home = np.where(active.any(-1), labels[first], 0)
        return active, np.where(home != 0, along[np.arange(len(along)), first], 0), home * np.asarray(network.z)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What has to hold, as a `statement`, and `holds(problem)`, whether it does."""

    statement: str
    holds: Callable[[Problem], bool]

    def __str__(self) -> str:
        return self.statement


def _one_norm(p: Problem) -> bool:
    labels = np.asarray(p.data.labels)  # pyright: ignore[reportAttributeAccessIssue]
    norms = np.linalg.norm(np.asarray(p.data.points), axis=-1)
    return p.shape.shared_direction and all(np.ptp(norms[labels == y]) <= 1e-12 * norms.max() for y in np.unique(labels))


def _exclusive(p: Problem) -> bool:
    active = p.neurons[0]
    labels = np.asarray(p.data.labels)  # pyright: ignore[reportAttributeAccessIssue]
    plus, minus = active[:, labels > 0], active[:, labels < 0]
    return bool(np.all((plus.all(-1) & ~minus.any(-1)) | (minus.all(-1) & ~plus.any(-1)) | ~active.any(-1)))


def _off_manifold(p: Problem) -> bool:
    _, along, zeta = p.neurons
    return bool(np.all((along == 0) | (np.abs(along + zeta) > 1e-12 * (np.abs(along) + np.abs(zeta)))))


def of_losses(statement: str, *names: str) -> Hypothesis:
    """The hypothesis that the loss is one of `names`."""
    return Hypothesis(statement, lambda p: p.loss in names)


SEPARABLE = Hypothesis("orthogonally separable data", lambda p: p.shape.orthogonally_separable)
ORTHOGONAL = Hypothesis("orthogonal classes", lambda p: p.shape.orthogonal)
ANTIPODAL = Hypothesis("antipodal classes", lambda p: p.shape.antipodal)
ONE_RAY = Hypothesis("each class along one direction at one norm", _one_norm)
EXCLUSIVE = Hypothesis("exclusive neurons: active on all points of one class and on none of the other", _exclusive)
STAYING = Hypothesis(
    "neurons that stay: z > -a in the orientation of their class",
    lambda p: bool(np.all((p.neurons[1] == 0) | (p.neurons[2] > -p.neurons[1]))),
)
RIGHT_SIGN = Hypothesis(
    "every neuron has the sign of its class", lambda p: bool(np.all((p.neurons[1] == 0) | (p.neurons[2] > 0)))
)
BALANCED = Hypothesis(
    "balanced neurons: z = a",
    lambda p: bool(np.allclose(p.neurons[1], p.neurons[2], rtol=1e-9, atol=0)),
)
OFF_MANIFOLD = Hypothesis("no neuron on the stable manifold z = -a, where rounding decides", _off_manifold)
BELOW_ONE = Hypothesis(
    "squared loss: margins start at 1 or below", lambda p: p.loss != "squared" or bool(np.all(p.margins <= 1 + 1e-12))
)
PUSHING = Hypothesis(
    "no residual is negative (squared loss: margins of at most 1)",
    lambda p: p.loss != "squared" or bool(np.all(p.margins <= 1 + 1e-12)),
)
EVERLASTING = of_losses("a clock that gets there: cross-entropy or exponential loss", "cross-entropy", "exponential")
