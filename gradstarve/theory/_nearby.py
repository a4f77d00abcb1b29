"""The law of nearby data, evaluated at other points: `Solution.on`."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import HypothesisError, check_instance, is_concrete, number, short_repr
from gradstarve.problem import Dataset, Dynamics, Loss, NetworkCurve, Steps, TwoLayerReLU, given


class DataGap(NamedTuple):
    """The distance of points from those of a law.

    - `angle`: the largest angle, in radians, between a point and the point of its class in the law;
    - `norms`: the smallest and the largest ratio |x_i| to the norm in the law;
    - `frequency`: the largest difference between the weights of a class;
    - `activity`: the share of (neuron, point) pairs, weighted by the points, for which the initial neuron is active on the
      point but not on the corresponding point of the law, or the reverse.
    """

    angle: float
    norms: tuple[float, float]
    frequency: float
    activity: float

    def __str__(self) -> str:
        """In words.

        >>> print(DataGap(0.5, (0.9, 1.2), 0.0, 0.125))
        angles up to 28.6 degrees, norms 0.9 to 1.2 times those of the law, 12.5 % of activities other
        """
        low, high = self.norms
        norms = f"norms {number(low)} to {number(high)} times those of the law"
        parts = [f"angles up to {number(np.degrees(self.angle))} degrees", norms]
        if self.frequency > 1e-6:
            parts.append(f"weights of classes up to {number(self.frequency)} apart")
        return ", ".join([*parts, f"{number(100 * self.activity)} % of activities other"])


class NearbySolution(NetworkCurve):
    """The networks of a law, evaluated at points that are not those of the law; made by `Solution.on(data)`.

    `law`: the `Solution`; `data`: the points; `gap`: the distance of the two data sets. This is an approximation; `compare`
    measures its error beside `gap`, and for classes that are narrow cones `theory.cone_bounds` bounds the true margins.
    """

    data: Dataset
    loss_function: Loss
    law: Any
    gap: DataGap = eqx.field(static=True)

    __repr__ = short_repr

    @property
    def start(self) -> TwoLayerReLU:
        """The network at t = 0."""
        return self.law.start

    @property
    def dynamics(self) -> Dynamics:
        """The dynamics of the law."""
        return self.law.dynamics

    def network(self, t) -> TwoLayerReLU:
        """The network of the law at t, batch axes [*batch, *t.shape]."""
        return self.law.network(t)

    def logits(self, t=None) -> Float[Array, "..."]:
        """f(x_i) at t, of the network of the law: [*batch, *t.shape, n]."""
        return self.law.network(given(t))(self.data.points)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.start.batch_shape

    @property
    def _dtype(self) -> Any:
        return self.start.dtype

    @property
    def _unit(self) -> str:
        return "step" if isinstance(self.dynamics, Steps) else "time"

    def _time_to(self, what: str, level, max_steps: int):
        raise HypothesisError(
            "the first time at which a law on other points has that error has no closed form",
            f"the law is of {self.law.data.size} points and the curve of {self.data.size}",
            "the times of .law, which are those of its own points, or the times of a run of simulate(...)",
        )


def put_on(law: Any, data: Dataset) -> NearbySolution:
    """`law` evaluated at the points of `data`, with the gap of the two data sets."""
    check_instance("data", data, Dataset, "give Dataset(points, labels)")
    if data.dim != law.start.dim:
        raise ValueError(f"the network has d = {law.start.dim} inputs but the points have d = {data.dim}")
    if not all(is_concrete(leaf) for leaf in (data.points, data.labels, law.data.points, law.data.labels, law.start.w)):
        raise ValueError("data and law must be known, for their gap is measured; call .on(data) outside jit, grad and vmap")
    points, of_law = (np.asarray(some.points, np.float64) for some in (data, law.data))
    labels, labels_of_law = np.asarray(data.labels), np.asarray(law.data.labels)
    absent = np.setdiff1d(labels, labels_of_law)
    if absent.size:
        raise ValueError(f"data has points of class {absent[0]:+g}, of which the law has none; solve data.means()")
    place = np.array([int(np.flatnonzero(labels_of_law == label)[0]) for label in labels])
    theirs = of_law[place]
    norms, norms_of_law = np.linalg.norm(points, axis=1), np.linalg.norm(theirs, axis=1)
    ratios = norms / norms_of_law
    unit = points / np.where(norms > 0, norms, 1)[:, None]
    angles = 2 * np.arctan2(*(np.linalg.norm(unit + s * theirs / norms_of_law[:, None], axis=1) for s in (-1, 1)))
    weights, weights_of_law = (np.asarray(some.weights, np.float64) for some in (data, law.data))
    apart = [abs(weights[labels == c].sum() - weights_of_law[labels_of_law == c].sum()) for c in np.unique(labels_of_law)]
    w = np.asarray(law.start.w, np.float64).reshape(-1, law.start.dim)
    other = (w @ points.T > 0) != (w @ theirs.T > 0)
    gap = DataGap(
        float(angles.max()), (float(ratios.min()), float(ratios.max())), float(max(apart)), float((other @ weights).mean())
    )
    return NearbySolution(data, law.loss_function, law, gap)
