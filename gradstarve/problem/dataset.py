"""Labelled, weighted points, and the geometry the theorems ask about."""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.arrays import as_array, as_number, is_concrete, real_arrays, shown
from gradstarve.problem.network import TwoLayerReLU


class Dataset(eqx.Module):
    """Points x_i in R^d with labels y_i = ±1 and weights q_i > 0 that sum to 1 (a repeated point is a larger weight).

    `points`: [n, d], `labels`: [n], `weights`: [n], or None for equal ones; one float dtype. Integer arrays are
    promoted to it. `ValueError` for wrong shapes, n = 0, d = 0, labels other than ±1, weights that are not positive or
    do not sum to 1, half precision, complex, NaN or infinite entries.

    >>> data = Dataset(points=[[1.0, 0.0], [-2.0, 0.0]], labels=[1, -1])
    >>> data.weights.tolist()
    [0.5, 0.5]
    """

    points: Float[Array, "n d"]
    labels: Float[Array, " n"]
    weights: Float[Array, " n"]

    def __init__(self, points, labels, weights=None):
        if weights is None:
            points, labels = real_arrays(points=points, labels=labels)
            weights = jnp.full(labels.shape, 1 / max(labels.size, 1), points.dtype)
        else:
            points, labels, weights = real_arrays(points=points, labels=labels, weights=weights)
        if points.ndim != 2:
            raise ValueError(f"points must be [n, d], got shape {points.shape}; reshape images to one row each")
        n, d = points.shape
        if n == 0 or d == 0:
            raise ValueError(f"a dataset needs n >= 1 points of d >= 1 coordinates, got shape {points.shape}")
        for name, value in (("labels", labels), ("weights", weights)):
            if value.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), one per point, got {value.shape}")
        if is_concrete(labels):
            bad = np.flatnonzero(~np.isin(np.asarray(labels), (-1, 1)))
            if bad.size:
                hint = "; for labels in {0, 1} give 2 * labels - 1" if 0 in np.asarray(labels) else ""
                raise ValueError(f"labels must be +1 or -1, got labels[{bad[0]}] = {labels[bad[0]]}{hint}")
        if is_concrete(weights):
            bad = np.flatnonzero(~(np.asarray(weights) > 0))
            if bad.size:
                raise ValueError(
                    f"weights must be > 0, got weights[{bad[0]}] = {weights[bad[0]]}; leave such points out"
                )
            total = float(np.sum(np.asarray(weights, np.float64)))
            # Rounding of n weights given in this dtype: each off by half an ulp of itself at the most.
            if abs(total - 1) > 4 * n**0.5 * float(jnp.finfo(weights.dtype).eps):
                raise ValueError(f"weights must sum to 1, got {total!r}; give weights / weights.sum()")
        self.points, self.labels, self.weights = points, labels, weights

    @property
    def size(self) -> int:
        """n, the number of points."""
        return self.points.shape[0]

    @property
    def dim(self) -> int:
        """d, the number of coordinates."""
        return self.points.shape[1]

    def margins(self, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """m_i = y_i f(x_i) of the logits `outputs` [..., n]: positive where the sign is right."""
        outputs = as_array("outputs", outputs)
        if outputs.shape[-1:] != self.labels.shape:
            raise ValueError(f"outputs must be logits [..., n] with n = {self.size}, got shape {outputs.shape}")
        return self.labels * outputs

    def leads(self, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """By how much the true label leads, [..., n]: a mistake where it is <= 0. With two classes, the margin."""
        return self.margins(outputs)

    def separability(self) -> Separability:
        """Which of the geometric hypotheses of the theorems hold, and which pair of points breaks each other one."""
        return _separability(
            np.asarray(self.points, np.float64), np.asarray(self.labels), float(jnp.finfo(self.points.dtype).eps)
        )

    def ray(self, label: int) -> Ray | None:
        """The direction of class `label` (±1), that of its longest point, and what lies on it; None without points.

        >>> Dataset([[3.0, 4.0]], [1]).ray(1).direction.round(3).tolist()
        [0.6, 0.8]
        """
        number = as_number("label", label)
        if number not in (-1, 1):
            raise ValueError(f"label must be +1 or -1, got {shown(label)}")
        label = int(number)
        mine = np.flatnonzero(np.asarray(self.labels) == label)
        if not mine.size:
            return None
        points = np.asarray(self.points, np.float64)[mine]
        norms = np.linalg.norm(points, axis=1)
        longest = int(np.argmax(norms))
        return Ray(label, norms, points[longest] / norms[longest], jnp.sum(self.weights[mine]))

    def reduce(self) -> Reduction:
        """The same problem in the fewest numbers: repeated points merged, coordinates in the span of the data.

        Training commutes with it: the part of every w_j orthogonal to the data never moves. See `Reduction`.
        """
        return _reduce(self)


@dataclass(frozen=True, eq=False)
class Ray:
    """One class: its `label`, the `norms` of its points [m] and a unit `direction` [d] in float64, and its total weight
    `frequency`. All of the class lies on the direction where `Separability.shared_direction` holds."""

    label: int
    norms: np.ndarray
    direction: np.ndarray
    frequency: Float[Array, ""]

    @property
    def norm(self) -> float:
        """The largest of `norms`: r, where they are all one."""
        return float(self.norms.max())


@dataclass(frozen=True)
class Breach:
    """A pair of points that breaks a property: their indices, and the cosine of their angle times their labels."""

    first: int
    second: int
    signed_cosine: float


@dataclass(frozen=True)
class Separability:
    """What `Dataset.separability()` found. A property holds iff its entry of `breaches` is None.

    - `orthogonally_separable`: y_i y_k x_i.x_k > 0 inside a class and <= 0 across (section 2);
    - `orthogonal`: besides, every product across the classes is 0;
    - `antipodal`: the points of each class share a direction, and the two directions are opposite;
    - `shared_direction`: the points of each class share a direction.

    Products are compared with 0 up to the rounding of the points' dtype.
    """

    orthogonally_separable: bool
    orthogonal: bool
    antipodal: bool
    shared_direction: bool
    breaches: dict[str, Breach | None]

    def explain(self) -> str:
        """One line a property: whether it holds, and the pair that breaks it.

        >>> print(Dataset([[1.0, 0.0], [-2.0, 0.0]], [1, -1]).separability().explain())
        orthogonally separable: yes
        orthogonal: no (points 0 and 1: y_i y_k cos(x_i, x_k) = 1)
        antipodal: yes
        shared direction: yes
        """
        lines = []
        for name, breach in self.breaches.items():
            verdict = "yes"
            if breach is not None:
                pair = f"points {breach.first} and {breach.second}"
                verdict = f"no ({pair}: y_i y_k cos(x_i, x_k) = {breach.signed_cosine:.6g})"
            lines.append(f"{name.replace('_', ' ')}: {verdict}")
        return "\n".join(lines)


def _separability(points: np.ndarray, labels: np.ndarray, eps: float) -> Separability:
    norms = np.linalg.norm(points, axis=1)
    unit = points / np.where(norms > 0, norms, 1)[:, None]
    signed = (unit @ unit.T) * np.outer(labels, labels)
    same = labels[:, None] == labels[None, :]
    # Rounding the d coordinates of two unit vectors to `eps` moves their inner product by at most about 2 eps.
    tol = 8 * eps

    def worst(badness: np.ndarray) -> Breach | None:
        i, k = np.unravel_index(np.argmax(badness), badness.shape)
        return Breach(int(min(i, k)), int(max(i, k)), float(signed[i, k])) if badness[i, k] > tol else None

    # Within a class the product must be > 0: `tol - signed` exceeds tol exactly where it is below 0, and a product of
    # 0 up to rounding is not positive either. Across classes y_i y_k x_i.x_k = -x_i.x_k must be >= 0, which in terms
    # of `signed` is the other sign, because y_i y_k = -1 there: x_i.x_k <= 0 is signed >= 0.
    not_separable = worst(np.where(same, np.where(signed > tol, 0.0, 2 * tol - signed), -signed))
    not_orthogonal = not_separable or worst(np.where(same, 0.0, np.abs(signed)))
    turned = np.where(same, 1 - signed, 0.0)
    # 1 - cos loses half of the digits of a small angle; the sine keeps them.
    off_axis = unit[:, None, :] - (unit @ unit.T)[:, :, None] * unit[None, :, :]
    sine = np.linalg.norm(off_axis, axis=-1)
    bent = worst(np.where(same, np.where(turned > 1, 2.0, sine), 0.0))
    not_antipodal = bent or worst(np.where(same, 0.0, np.where(signed < 0, 2.0, sine)))
    if len(np.unique(labels)) < 2:
        only = int(np.argmax(norms))
        not_antipodal = not_antipodal or Breach(only, only, float("nan"))
    breaches = {
        "orthogonally_separable": not_separable,
        "orthogonal": not_orthogonal,
        "antipodal": not_antipodal,
        "shared_direction": bent,
    }
    return Separability(**{name: breach is None for name, breach in breaches.items()}, breaches=breaches)


class Reduction(eqx.Module):
    """A problem in the span of its data, with the map back. Made by `Dataset.reduce()`.

    `data`: the distinct points in span coordinates [m, k]; `basis`: [k, d], orthonormal rows; `index`: [n], the row of
    `data` that point i became. With k = d the basis is the identity and the coordinates are the points themselves.

    >>> data = Dataset([[3.0, 4.0], [3.0, 4.0]], [1, 1])
    >>> small = data.reduce()
    >>> small.data.points.shape, small.data.weights.tolist()
    ((1, 1), [1.0])
    """

    data: Dataset
    basis: Float[Array, "k d"]
    index: Array

    def reduce(self, network: TwoLayerReLU) -> TwoLayerReLU:
        """`network` in span coordinates: w -> w basis^T, [*batch, h, k]. Same logits on the data."""
        return TwoLayerReLU(jnp.einsum("...d,kd->...k", network.w, self.basis, precision="highest"), network.z)

    def restore(self, small: TwoLayerReLU, start: TwoLayerReLU) -> TwoLayerReLU:
        """The full network that trained to `small` from `start`: the part of `start.w` off the span is kept."""
        moved = small.w - self.reduce(start).w
        return TwoLayerReLU(start.w + jnp.einsum("...k,kd->...d", moved, self.basis, precision="highest"), small.z)

    def expand(self, values: Float[Array, "*batch m"]) -> Float[Array, "*batch n"]:
        """Values per distinct point, [*batch, m], as values per original point, [*batch, n]."""
        return values[..., self.index]


def _reduce(data: Dataset) -> Reduction:
    dtype = data.points.dtype
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    keyed = np.concatenate([points, labels[:, None]], axis=1) + 0.0  # + 0.0 makes -0.0 and 0.0 the same point
    _, first, index = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)  # keep the points in the order in which they first appear
    rank_of = np.empty_like(order)
    rank_of[order] = np.arange(order.size)
    index = rank_of[index.reshape(-1)]
    kept = np.sort(first)
    weights = np.bincount(index, np.asarray(data.weights, np.float64), kept.size)
    distinct = points[kept].astype(np.float64)
    # Directions count by their size relative to the point's own, so that a tiny point keeps its direction.
    norms = np.linalg.norm(distinct, axis=1, keepdims=True)
    unit = distinct / np.where(norms > 0, norms, 1)
    _, strengths, rows = np.linalg.svd(unit, full_matrices=False)
    rank = max(1, int((strengths > max(unit.shape) * strengths[0] * float(jnp.finfo(dtype).eps)).sum()))
    basis = np.eye(data.dim) if rank == data.dim else rows[:rank]
    small = Dataset((distinct @ basis.T).astype(dtype), labels[kept], (weights / weights.sum()).astype(dtype))
    return Reduction(small, jnp.asarray(basis, dtype), jnp.asarray(index))
