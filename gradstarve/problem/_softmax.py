"""Networks with K outputs, for softmax cross-entropy on K classes."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, one_key, one_number, positive_int, real_arrays
from gradstarve.problem._networks import Network, batch_axes


class SoftmaxOneLayer(Network):
    """f(x) = V x in R^K: `v` [*batch, K, d], K >= 2 linear read-outs of one float dtype; P(c|x) = softmax(f(x))_c.

    >>> SoftmaxOneLayer(v=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])(jnp.array([[2.0, 3.0]])).tolist()
    [[2.0, 3.0, 0.0]]
    """

    v: Float[Array, "*batch K d"]

    def __init__(self, v) -> None:
        (v,) = real_arrays(v=v)
        if v.ndim < 2 or v.shape[-2] < 2 or v.shape[-1] == 0:
            raise ValueError(f"v must be [*batch, K, d] with K >= 2 classes and d >= 1 inputs, got shape {v.shape}")
        self.v = v

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front: () for one network."""
        return self.v.shape[:-2]

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        return self.v.shape[-1]

    @property
    def outputs(self) -> tuple[int, ...]:
        """(K,)."""
        return self.v.shape[-2:-1]

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n K"]:
        """The outputs f(x_i), [*batch, n, K], of the `points` [n, d]."""
        points = self.check_dim(points)
        return jnp.einsum("...kd,nd->...nk", self.v, points, precision="highest")


class SoftmaxTwoLayer(Network):
    """f(x) = sum_j z_j (w_j . x)_+ in R^K, no biases; P(c|x) = softmax(f(x))_c.

    `w`: [*batch, h, d] and `z`: [*batch, h, K], K >= 2, of one float dtype: neuron j reads along w_j and votes by z_j.
    `ValueError` for shapes that do not fit.

    >>> net = SoftmaxTwoLayer(w=[[1.0, 0.0], [0.0, 1.0]], z=[[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]])
    >>> net(jnp.array([[1.0, 3.0]])).tolist()
    [[1.0, 6.0, -1.0]]
    """

    w: Float[Array, "*batch h d"]
    z: Float[Array, "*batch h K"]

    def __init__(self, w, z) -> None:
        w, z = real_arrays(w=w, z=z)
        if w.ndim < 2 or z.ndim != w.ndim or z.shape[:-1] != w.shape[:-1] or z.shape[-1] < 2:
            raise ValueError(
                f"w must be [*batch, h, d] and z [*batch, h, K] with K >= 2, got shapes {w.shape} and {z.shape}; "
                "z has one row of votes per row of w"
            )
        if w.shape[-2] == 0 or w.shape[-1] == 0:
            raise ValueError(f"a network needs h >= 1 neurons and d >= 1 inputs, got w of shape {w.shape}")
        self.w, self.z = w, z

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front: () for one network."""
        return self.w.shape[:-2]

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        return self.w.shape[-1]

    @property
    def outputs(self) -> tuple[int, ...]:
        """(K,)."""
        return self.z.shape[-1:]

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n K"]:
        """The outputs f(x_i), [*batch, n, K], of the `points` [n, d]."""
        points = self.check_dim(points)
        hidden = jax.nn.relu(jnp.einsum("...hd,nd->...nh", self.w, points, precision="highest"))
        return jnp.einsum("...nh,...hk->...nk", hidden, self.z, precision="highest")


def init_softmax(key, batch, width, classes, dim, scale_w=1.0, scale_z=1.0) -> SoftmaxTwoLayer:
    """`batch` random networks: w_j ~ N(0, scale_w^2 I), z_j ~ N(0, scale_z^2 I) in R^K, K = `classes`, independent.

    Network i of the flattened batch depends on `key` and i alone. The dtype is JAX's default float, or the scales'.

    >>> init_softmax(jax.random.key(0), batch=3, width=4, classes=10, dim=2).z.shape
    (3, 4, 10)
    """
    shape = batch_axes(batch)
    width, dim, classes = positive_int("width", width), positive_int("dim", dim), positive_int("classes", classes, 2)
    scale_w, scale_z = real_arrays(scale_w=scale_w, scale_z=scale_z)
    one_number("scale_w", scale_w)
    one_number("scale_z", scale_z)
    check_normal("scale_w", scale_w)
    check_normal("scale_z", scale_z)
    w, z = _draw(one_key(key), scale_w, scale_z, int(np.prod(shape)), width, dim, classes)
    return SoftmaxTwoLayer(w.reshape(*shape, width, dim), z.reshape(*shape, width, classes))


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _draw(key, scale_w, scale_z, count, width, dim, classes):
    def one(index):
        key_w, key_z = jax.random.split(jax.random.fold_in(key, index))
        w = jax.random.normal(key_w, (width, dim), scale_w.dtype)
        return w * scale_w, jax.random.normal(key_z, (width, classes), scale_z.dtype) * scale_z

    return jax.vmap(one)(jnp.arange(count))
