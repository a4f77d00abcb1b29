"""Points of K classes, and what a margin is for them."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import as_array, is_concrete, real_arrays
from gradstarve.problem._data import Dataset


class ClassDataset(eqx.Module):
    """Points x_i in R^d of the classes c_i in 0, ..., K-1, with weights q_i > 0 that sum to 1; for softmax networks.

    `points`: [n, d], `classes`: [n] whole numbers, `weights`: [n], or None for equal ones. K is the network's number of
    outputs, and may exceed what occurs. `ValueError` for classes that are negative or not whole, and for what `Dataset`
    refuses of points and weights.

    >>> data = ClassDataset(points=[[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], classes=[0, 1, 2])
    >>> outputs = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [3.0, 0.0, 0.0]])
    >>> data.leads(outputs).tolist()
    [2.0, 1.0, -3.0]
    """

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

        With it softmax cross-entropy is log(1 + e^-m) and the probability of the true class sigmoid(m), as for two
        classes.
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
