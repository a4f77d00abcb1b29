"""Labelled, weighted points, and the geometric hypotheses of the theorems. Also here: points of K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    as_array,
    as_number,
    check_normal,
    check_normal_rows,
    check_sum_is_one,
    is_concrete,
    one_number,
    real_arrays,
    short_repr,
    shown,
)
from gradstarve.problem._networks import TwoLayerReLU


class Dataset(eqx.Module):
    """Points x_i in R^d with labels y_i = ±1 and weights q_i > 0 that sum to 1 (a repeated point is a larger weight).

    `points`: [n, d], `labels`: [n], `weights`: [n], or None for equal ones; one float dtype. Integer arrays are
    promoted to it. `ValueError` for wrong shapes, n = 0, d = 0, labels other than ±1, weights that are not positive or
    do not sum to 1, half precision, complex, NaN or infinite entries.

    Inside jit, grad and vmap: weights may be traced, and are checked when the program runs. Lists and NumPy arrays stay
    known there, so that the geometry of such points can be read; `jnp.array([...])` inside jit is traced. Traced points
    have a known geometry if `directions` [n, d] gives known vectors (of any length) along them, x_i = |x_i| d_i / |d_i|:
    then only the norms are traced. For known points, `directions` is checked and not kept.

    >>> data = Dataset(points=[[1.0, 0.0], [-2.0, 0.0]], labels=[1, -1])
    >>> data.weights.tolist()
    [0.5, 0.5]
    """

    __repr__ = short_repr

    points: Float[Array, "n d"]
    labels: Float[Array, " n"]
    weights: Float[Array, " n"]
    # Unit vectors along traced points, as hashable numbers (a part of the key of a compiled program); None for known points.
    directions: tuple[tuple[float, ...], ...] | None = eqx.field(static=True)

    def __init__(self, points, labels, weights=None, directions=None) -> None:
        # Under a trace of jit the conversion of a known array would be traced, and its numbers could not be read any more.
        with jax.ensure_compile_time_eval():
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
        check_normal_rows("points", points)
        check_normal("weights", weights)
        for name, value in (("labels", labels), ("weights", weights)):
            if value.shape != (n,):
                raise ValueError(f"{name} must have shape ({n},), one per point, got {value.shape}")
        if is_concrete(labels):
            bad = np.flatnonzero(~np.isin(np.asarray(labels), (-1, 1)))
            if bad.size:
                values = np.asarray(labels)
                hint = "; for labels in {0, 1} give 2 * labels - 1" if 0 in values else ""
                raise ValueError(f"labels must be +1 or -1, got labels[{bad[0]}] = {values[bad[0]]}{hint}")
        else:
            labels = eqx.error_if(labels, jnp.abs(labels) != 1, "labels must be +1 or -1")
        if is_concrete(weights):
            bad = np.flatnonzero(~(np.asarray(weights) > 0))
            if bad.size:
                value = np.asarray(weights)[bad[0]]
                raise ValueError(f"weights must be > 0, got weights[{bad[0]}] = {value}; leave such points out")
            check_sum_is_one("weights", weights)
        else:
            # A wider tolerance than for known weights: traced weights are results of a computation, and the sum is rounded.
            slack = 32 * n**0.5 * float(jnp.finfo(weights.dtype).eps)
            weights = eqx.error_if(weights, weights <= 0, "weights must be > 0; leave other points out")
            bad = jnp.abs(jnp.sum(weights) - 1) > slack
            weights = eqx.error_if(weights, bad, "weights must sum to 1; give weights / weights.sum()")
        self.directions = None
        if directions is not None:
            points, units = _check_along(points, directions)
            if not is_concrete(points):
                self.directions = tuple(map(tuple, units.tolist()))
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
        """The lead of the true label over the other one, [..., n], which is the margin: a lead <= 0 is a mistake."""
        return self.margins(outputs)

    def separability(self) -> Separability:
        """Which geometric hypotheses of the theorems hold, and the pair of points that breaks each of the others.

        `ValueError` where points or labels are traced (and the points have no known `directions`).
        """
        labels, eps = self._known_labels(), float(jnp.finfo(self.points.dtype).eps)
        return _separability(self._known_directions(), labels, eps)

    def _known_labels(self) -> np.ndarray:
        if not is_concrete(self.labels):
            raise ValueError(f"the labels are traced, but {_GEOMETRY}")
        return np.asarray(self.labels)

    def _known_directions(self) -> np.ndarray:
        """Vectors along the points [n, d], in float64: the points, or known unit vectors where the points are traced."""
        if is_concrete(self.points):
            return np.asarray(self.points, np.float64)
        if self.directions is None:
            raise ValueError(f"the points are traced, but {_GEOMETRY}")
        return np.asarray(self.directions)

    @property
    def zero_points(self) -> np.ndarray:
        """The indices of points at the origin, which have no direction, and where every output is 0 at all times."""
        return np.flatnonzero(~self._known_directions().any(axis=1))

    def ray(self, label: int) -> Ray | None:
        """The direction of class `label` (±1), taken from its longest point, with norms and weight; None for an empty class.

        `HypothesisError` for a class with all points at the origin; `ValueError` for traced points without `directions`.

        >>> Dataset([[3.0, 4.0]], [1]).ray(1).direction.round(3).tolist()
        [0.6, 0.8]
        """
        number = as_number("label", label)
        if number not in (-1, 1):
            raise ValueError(f"label must be +1 or -1, got {shown(label)}")
        label = int(number)
        mine = np.flatnonzero(self._known_labels() == label)
        if not mine.size:
            return None
        along = self._known_directions()[mine]
        lengths = row_norms(along)
        longest = int(np.argmax(lengths))
        if lengths[longest] == 0:
            raise HypothesisError(
                "a class has a direction where one of its points is not zero (section 2)",
                f"all points of class {label:+d} are at the origin",
                "simulate(...) or simulate_flow(...)",
            )
        if is_concrete(self.weights):  # a sum of numbers that are there needs no program
            frequency = jnp.asarray(np.sum(np.asarray(self.weights)[mine]))
        else:
            frequency = jnp.sum(self.weights[mine])
        norms = lengths
        if not is_concrete(self.points):
            norms = jnp.sum(self.points[mine] * jnp.asarray(along, self.points.dtype), axis=1)
        return Ray(label, norms, along[longest] / lengths[longest], frequency)

    def with_bias(self, feature=1.0) -> Dataset:
        """The same problem with one more coordinate, beta = `feature` at every point: x -> (x, beta), [n, d + 1].

        On these points a network of d + 1 inputs is a network of d inputs with a trained bias for each neuron:
        w . x + beta w_(d+1). Labels and weights are kept. `feature` is a finite number (`ValueError` otherwise), which may
        be traced; with `feature` = 0 no step moves the new weights.

        One class along one direction at distance r stays one mode, of norm sqrt(r^2 + beta^2). Antipodal classes at r_+ and
        r_- have cos = (beta^2 - r_+ r_-)/sqrt((beta^2 + r_+^2)(beta^2 + r_-^2)) between them, and are orthogonally
        separable iff r_+ r_- >= beta^2 (23.1). See `theory.biased_cosine`, and `theory.death_probability` for the share of
        neurons that die.

        Traced points keep their known directions only for `feature` = 0: otherwise the directions depend on traced norms.

        >>> data = Dataset([[2.0, 0.0], [-1.0, 0.0]], [1, -1]).with_bias(0.5)
        >>> data.points.tolist(), data.separability().orthogonally_separable
        ([[2.0, 0.0, 0.5], [-1.0, 0.0, 0.5]], True)
        """
        with jax.ensure_compile_time_eval():
            (beta,) = real_arrays(feature=feature)
            one_number("feature", beta)
            check_normal("feature", beta)
            beta = beta.astype(self.points.dtype)
            check_normal("feature", beta)
            points = jnp.concatenate([self.points, jnp.broadcast_to(beta, (self.size, 1))], axis=1)
        directions = None
        if self.directions is not None and is_concrete(beta) and float(beta) == 0:
            directions = [(*direction, 0.0) for direction in self.directions]
        return Dataset(points, self.labels, self.weights, directions)

    def means(self) -> Dataset:
        """The weighted mean of the points of each class, with the weight of the class: one point per class, class + first.

        `solve(data.means(), network, loss).on(data)` evaluates the law of the means at the original points. `ValueError` for
        traced labels; `HypothesisError` for a class whose mean is 0 up to rounding.

        >>> data = Dataset([[1.0, 1.0], [3.0, -1.0], [-1.0, 0.0]], [1, 1, -1], [0.25, 0.25, 0.5])
        >>> data.means().points.tolist(), data.means().weights.tolist()
        ([[2.0, 0.0], [-1.0, 0.0]], [0.5, 0.5])
        """
        labels = self._known_labels()
        found, weights = [], []
        kept = [label for label in (1, -1) if (labels == label).any()]
        for label in kept:
            mine = np.flatnonzero(labels == label)
            own = self.weights[mine]
            weights.append(jnp.sum(own))
            if not (is_concrete(self.points) and is_concrete(own)):
                found.append(jnp.einsum("n,nd->d", own / weights[-1], self.points[mine], precision="highest"))
            else:
                # In more digits than the points have, so that classes centred on their midpoint have opposite means.
                points, own = (np.asarray(values, np.longdouble) for values in (self.points[mine], own))
                mean = np.asarray(own @ points / own.sum(), np.float64)
                found.append(jnp.asarray(mean, self.points.dtype))
                sizes, size = row_norms(np.asarray(points, np.float64)), float(np.linalg.norm(mean))
                if size <= 8 * float(jnp.finfo(self.points.dtype).eps) * sizes.max():
                    raise HypothesisError(
                        "a class has a mean direction where its points do not cancel",
                        f"class {label:+d} has a mean of length {size:.3g}, its points up to {sizes.max():.6g}",
                        "simulate(...) or simulate_flow(...)",
                    )
        return Dataset(jnp.stack(found), jnp.asarray(kept, self.points.dtype), jnp.stack(weights))

    def reduce(self) -> Reduction:
        """The same problem in the fewest numbers: repeated points merged, coordinates in the span of the data.

        Training commutes with this reduction: the part of every w_j orthogonal to the data never moves. See `Reduction`.
        """
        return _reduce(self)


@dataclass(frozen=True, eq=False, repr=False)
class Ray:
    """One class: its `label`, the `norms` of its points [m] and a unit `direction` [d] in float64, and its total weight
    `frequency`. All points of the class lie along `direction` if `Separability.shared_direction` holds. Norms of traced
    points are traced."""

    __repr__ = short_repr

    label: int
    norms: np.ndarray | Float[Array, " m"]
    direction: np.ndarray
    frequency: Float[Array, ""]

    @property
    def norm(self) -> float | Float[Array, ""]:
        """The largest of `norms`, which is r if all of them are equal; the first one if the norms are traced."""
        return float(np.max(self.norms)) if is_concrete(self.norms) else jnp.asarray(self.norms)[0]


@dataclass(frozen=True)
class Breach:
    """A pair of points that breaks a property: their indices, and the cosine of their angle times their labels.

    `tilt`: the angle between the lines through 0 and the two points, in radians, which still separates the lines if the
    cosine rounds to 1 or -1. A point at the origin is reported as a pair with itself and cosine 0, a missing class as a pair
    of one point with itself and cosine NaN.
    """

    first: int
    second: int
    signed_cosine: float
    tilt: float = float("nan")

    def __str__(self) -> str:
        """The pair in words.

        >>> str(Breach(0, 2, 1.0, 1e-9))
        'points 0 and 2 have y_i y_k cos(x_i, x_k) = 1, with 1e-09 rad between their lines'
        """
        if self.first == self.second:
            if np.isnan(self.signed_cosine):
                return "all points have one label"
            return f"point {self.first} is at the origin (zero), where it has no direction"
        digits = 17 if 0 < 1 - abs(self.signed_cosine) < 1e-5 else 6
        text = f"points {self.first} and {self.second} have y_i y_k cos(x_i, x_k) = {self.signed_cosine + 0.0:.{digits}g}"
        nearly = self.tilt > 0 and abs(self.signed_cosine) > 1 - 1e-5
        return f"{text}, with {self.tilt:.3g} rad between their lines" if nearly else text


@dataclass(frozen=True)
class Separability:
    """What `Dataset.separability()` found. A property holds iff its entry of `breaches` is None.

    - `orthogonally_separable`: y_i y_k x_i.x_k > 0 inside a class, and x_i.x_k <= 0 across the classes (section 1);
    - `orthogonal`: in addition, x_i.x_k = 0 across the classes;
    - `antipodal`: the points of each class share a direction, and the two directions are opposite;
    - `shared_direction`: the points of each class share a direction.

    Products are compared with 0 up to the rounding of the points' dtype. No property holds if a point is at the origin.
    """

    orthogonally_separable: bool
    orthogonal: bool
    antipodal: bool
    shared_direction: bool
    breaches: dict[str, Breach | None]

    def explain(self) -> str:
        """One line per property: whether it holds, and the pair that breaks it.

        >>> print(Dataset([[1.0, 0.0], [-2.0, 0.0]], [1, -1]).separability().explain())
        orthogonally separable: yes
        orthogonal: no (points 0 and 1: y_i y_k cos(x_i, x_k) = 1)
        antipodal: yes
        shared direction: yes
        """
        lines = []
        for name, breach in self.breaches.items():
            verdict = "yes" if breach is None else f"no ({str(breach).replace(' have ', ': ', 1)})"
            lines.append(f"{name.replace('_', ' ')}: {verdict}")
        return "\n".join(lines)


_GEOMETRY = (
    "their geometry is needed. Build the dataset outside of jit, or inside it from lists or NumPy arrays; weights may be "
    "traced, and so may norms, with Dataset(norms[:, None] * units, labels, weights, directions=units) and known `units`, "
    "or datasets.antipodal(norms=...)"
)


def row_norms(points: np.ndarray) -> np.ndarray:
    """|x_i| of the rows [n], also where the squares of the coordinates overflow or underflow."""
    largest = np.max(np.abs(points), axis=1, initial=0.0)
    return largest * np.linalg.norm(_scaled(points, largest), axis=1)


def _scaled(points: np.ndarray, largest: np.ndarray) -> np.ndarray:
    return points / np.where(largest > 0, largest, 1)[:, None]


def _units(points: np.ndarray) -> np.ndarray:
    """Unit vectors along the rows; zero rows stay zero."""
    scaled = _scaled(points, np.max(np.abs(points), axis=1, initial=0.0))
    norms = np.linalg.norm(scaled, axis=1)
    return scaled / np.where(norms > 0, norms, 1)[:, None]


def _check_along(points: Array, directions) -> tuple[Array, np.ndarray]:
    """The points, checked (now or when the program runs) to lie along `directions`, and unit vectors along those."""
    with jax.ensure_compile_time_eval():
        (along,) = real_arrays(directions=directions)
    if not is_concrete(along):
        raise ValueError("directions are traced; give the directions of the points as a list or NumPy array")
    if along.shape != points.shape:
        raise ValueError(f"directions must be of the shape {points.shape} of the points, got {along.shape}")
    units = _units(np.asarray(along, np.float64))
    zero = np.flatnonzero(~units.any(axis=1))
    if zero.size:
        raise ValueError(f"directions must not be zero, got directions[{zero[0]}] = 0")
    unit = jnp.asarray(units, points.dtype)
    with jax.ensure_compile_time_eval():
        norms = jnp.sum(points * unit, axis=1, keepdims=True)
        off = jnp.max(jnp.abs(points - norms * unit), axis=1) > 16 * jnp.finfo(points.dtype).eps * norms[:, 0]
        off = off | (norms[:, 0] <= 0)
    if is_concrete(off):
        bad = np.flatnonzero(np.asarray(off))
        if bad.size:
            raise ValueError(f"points[{bad[0]}] does not lie along directions[{bad[0]}]; give the directions of the points")
        return points, units
    return eqx.error_if(points, off, "a point does not lie along its direction; give the directions of the points"), units


def _separability(points: np.ndarray, labels: np.ndarray, eps: float) -> Separability:
    norms, unit = row_norms(points), _units(points)
    if (norms == 0).any():  # a point at the origin has no direction, so no property holds
        zero = int(np.argmin(norms))
        return _found(dict.fromkeys(_PROPERTIES, Breach(zero, zero, 0.0)))
    signed = (unit @ unit.T) * np.outer(labels, labels)
    same = labels[:, None] == labels[None, :]
    # Rounding the d coordinates of two unit vectors to `eps` moves their inner product by at most about 2 eps.
    tol = 8 * eps
    # 1 - cos loses half of the digits of a small angle; the sine keeps them.
    off_axis = unit[:, None, :] - (unit @ unit.T)[:, :, None] * unit[None, :, :]
    sine = np.linalg.norm(off_axis, axis=-1)

    def worst(badness: np.ndarray) -> Breach | None:
        i, k = np.unravel_index(np.argmax(badness), badness.shape)
        if badness[i, k] <= tol:
            return None
        tilt = float(np.arctan2(sine[i, k], np.abs(signed[i, k])))
        return Breach(int(min(i, k)), int(max(i, k)), float(signed[i, k]), tilt)

    # Within a class the product must be > 0: `tol - signed` exceeds tol exactly where it is below 0, and a product of
    # 0 up to rounding is not positive either. Across classes y_i y_k x_i.x_k = -x_i.x_k must be >= 0, which in terms
    # of `signed` is the other sign, because y_i y_k = -1 there: x_i.x_k <= 0 is signed >= 0.
    not_separable = worst(np.where(same, np.where(signed > tol, 0.0, 2 * tol - signed), -signed))
    not_orthogonal = not_separable or worst(np.where(same, 0.0, np.abs(signed)))
    turned = np.where(same, 1 - signed, 0.0)
    bent = worst(np.where(same, np.where(turned > 1, 2.0, sine), 0.0))
    not_antipodal = bent or worst(np.where(same, 0.0, np.where(signed < 0, 2.0, sine)))
    if len(np.unique(labels)) < 2:
        only = int(np.argmax(norms))
        not_antipodal = not_antipodal or Breach(only, only, float("nan"))
    return _found(dict(zip(_PROPERTIES, (not_separable, not_orthogonal, not_antipodal, bent), strict=True)))


_PROPERTIES = ("orthogonally_separable", "orthogonal", "antipodal", "shared_direction")


def _found(breaches: dict[str, Breach | None]) -> Separability:
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

    __repr__ = short_repr

    data: Dataset
    basis: Float[Array, "k d"]
    index: Array

    def reduce(self, network: TwoLayerReLU) -> TwoLayerReLU:
        """`network` in span coordinates: w -> w basis^T, [*batch, h, k]. Same logits on the data."""
        w = jnp.einsum("...d,kd->...k", network.w, self.basis, precision="highest")
        return TwoLayerReLU(w, network.z, network.slope)

    def restore(self, small: TwoLayerReLU, start: TwoLayerReLU) -> TwoLayerReLU:
        """The full network that trained from `start` to `small`: the part of `start.w` orthogonal to the span is kept."""
        moved = small.w - self.reduce(start).w
        w = start.w + jnp.einsum("...k,kd->...d", moved, self.basis, precision="highest")
        return TwoLayerReLU(w, small.z, start.slope)

    def expand(self, values: Float[Array, "*batch m"]) -> Float[Array, "*batch n"]:
        """Values per distinct point, [*batch, m], as values per original point, [*batch, n]."""
        return values[..., self.index]


def distinct(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct labelled points: (their first indices, rising [m]; the one that point i equals [n]; their weights [m]).

    >>> [found.tolist() for found in distinct(Dataset([[2.0], [-1.0], [2.0]], [1, -1, 1], [0.25, 0.5, 0.25]))]
    [[0, 1], [0, 1, 0], [0.5, 0.5]]
    """
    keyed = np.concatenate([data.points, data.labels[:, None]], axis=1) + 0.0  # + 0.0 makes -0.0 and 0.0 the same point
    _, first, index = np.unique(keyed, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    index = np.argsort(order)[index.reshape(-1)]
    weights = np.bincount(index, np.asarray(data.weights, np.float64))
    return first[order], index, (weights / weights.sum()).astype(data.weights.dtype)


def _reduce(data: Dataset) -> Reduction:
    dtype = data.points.dtype
    kept, index, weights = distinct(data)
    points = np.asarray(data.points, np.float64)[kept]
    # The rank is that of the unit vectors, so that a tiny point keeps its direction.
    unit = _units(points)
    _, strengths, rows = np.linalg.svd(unit, full_matrices=False)
    rank = max(1, int((strengths > max(unit.shape) * strengths[0] * float(jnp.finfo(dtype).eps)).sum()))
    basis = np.eye(data.dim) if rank == data.dim else rows[:rank]
    small = Dataset((points @ basis.T).astype(dtype), data.labels[kept], weights.astype(dtype))
    return Reduction(small, jnp.asarray(basis, dtype), jnp.asarray(index))


# Points of K classes, and their margins.


class ClassDataset(eqx.Module):
    """Points x_i in R^d of the classes c_i in 0, ..., K-1, with weights q_i > 0 that sum to 1; for softmax networks.

    `points`: [n, d], `classes`: [n] whole numbers, `weights`: [n], or None for equal ones. K is the network's number of
    outputs, and may exceed the number of classes in the data. `ValueError` for classes that are negative or not whole, and
    for points and weights that `Dataset` refuses.

    >>> data = ClassDataset(points=[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], classes=[0, 1, 2])
    >>> outputs = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    >>> data.leads(outputs).tolist()
    [2.0, 1.0, -3.0]
    """

    __repr__ = short_repr

    points: Float[Array, "n d"]
    classes: Float[Array, " n"]
    weights: Float[Array, " n"]

    def __init__(self, points, classes, weights=None) -> None:
        (classes,) = real_arrays(classes=classes)
        (points,) = real_arrays(points=points)
        if points.ndim == 2 and classes.shape != points.shape[:1]:
            raise ValueError(f"classes must have shape {points.shape[:1]}, one per point, got {classes.shape}")
        # The rules for points and weights are those of two classes.
        plain = Dataset(points, jnp.ones(classes.shape, classes.dtype), weights)
        if is_concrete(classes):
            values = np.asarray(classes)
            bad = np.flatnonzero((values < 0) | (values != np.rint(values)))
            if bad.size:
                raise ValueError(f"classes must be whole numbers >= 0, got classes[{bad[0]}] = {values[bad[0]]}")
        self.points, self.weights = plain.points, plain.weights
        # Kept as floats, as labels are, so that the whole dataset has one dtype.
        self.classes = classes.astype(plain.points.dtype)

    @property
    def size(self) -> int:
        """n, the number of points."""
        return self.points.shape[0]

    @property
    def dim(self) -> int:
        """d, the number of coordinates."""
        return self.points.shape[1]

    def margins(self, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """m_i = f_c - log sum_(k != c) e^(f_k), [..., n], of the `outputs` [..., n, K].

        With this margin, softmax cross-entropy is log(1 + e^-m) and the probability of the true class is sigmoid(m), as for
        two classes.
        """
        own, others = self._split(outputs)
        return own - jax.nn.logsumexp(others, axis=-1)

    def leads(self, outputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """f_c - max_(k != c) f_k, [..., n], of the `outputs` [..., n, K]: a mistake where it is <= 0."""
        own, others = self._split(outputs)
        return own - jnp.max(others, axis=-1)

    def _split(self, outputs):
        """The output of the true class, and all of them with -inf in its place."""
        outputs = as_array("outputs", outputs)
        if outputs.ndim < 2 or outputs.shape[-2] != self.size:
            raise ValueError(f"outputs must be [..., n, K] with n = {self.size}, got shape {outputs.shape}")
        mine = jax.nn.one_hot(self.classes.astype(jnp.int32), outputs.shape[-1], dtype=bool)
        return jnp.sum(jnp.where(mine, outputs, 0), axis=-1), jnp.where(mine, -jnp.inf, outputs)
