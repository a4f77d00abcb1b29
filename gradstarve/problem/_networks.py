"""What a network is here, and the two-layer ReLU network f(x) = sum_j z_j (w_j . x)_+ with its initialiser (1.1)."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from gradstarve.ground import as_array, check_normal, one_key, one_number, positive_int, real_arrays, shown

Same = TypeVar("Same", bound="Network")


# What a network says of itself without being called.
_DESCRIBED = {
    "batch_shape": "the axes in front, () for one network",
    "dim": "the number of inputs",
    "outputs": "the shape of the output for one point, () for a logit",
}


class Network(eqx.Module):
    """Weights, and outputs of points that they give; a batch of independent networks when axes stand in front.

    Every array leaf is a weight that training moves. Subclasses say by `batch_shape` how many of a leaf's axes are the
    batch's, by `dim` how many coordinates a point has, and by `outputs` the shape of the output for one point.
    """

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front: () for one network."""
        raise NotImplementedError(f"{type(self).__name__} lacks the property `batch_shape`: return () for one network")

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        raise NotImplementedError(f"{type(self).__name__} lacks the property `dim`: return the coordinates of a point, d")

    @property
    def outputs(self) -> tuple[int, ...]:
        """The shape of the output for one point: () for a logit, (K,) for the logits of K classes."""
        return ()

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "..."]:
        """The outputs f(x_i), [*batch, n, *outputs], of the `points` [n, d]."""
        raise NotImplementedError(f"{type(self).__name__} lacks `__call__(points)`: return [*batch, n, *outputs]")

    def __init_subclass__(cls, **options):
        super().__init_subclass__(**options)
        for name in _DESCRIBED:
            if callable(vars(cls).get(name)):
                raise ValueError(f"{cls.__name__}.{name} is a method; write @property above it, it is read without a call")

    @property
    def dtype(self) -> np.dtype:
        """The precision of the weights."""
        return jax.tree.leaves(self)[0].dtype

    def __getitem__(self: Same, index) -> Same:
        """The network or networks at `index` of the batch axes."""
        if not self.batch_shape:
            raise IndexError("this is one network, not a batch of networks")
        return jax.tree.map(lambda leaf: leaf[index], self)

    def check_described(self) -> None:
        """`ValueError` where a network of a class of the user's own does not say what it is."""
        for name, meaning in _DESCRIBED.items():
            try:
                value = getattr(self, name)
            except NotImplementedError:
                value = None
            given = isinstance(value, int | np.integer) if name == "dim" else isinstance(value, tuple)
            if not given:
                got = "no such property" if value is None else shown(value)
                raise ValueError(
                    f"{type(self).__name__} must have a property {name}, {meaning}; got {got}. "
                    f"Define it with @property in the class"
                )

    def check_dim(self, points: Any) -> Float[Array, "n d"]:
        """The `points` as an array [n, d]; `ValueError` for another number of axes or coordinates."""
        points = as_array("points", points)
        if points.ndim != 2:
            raise ValueError(f"points must be [n, d], got shape {points.shape}; give one point as [[x_1, ..., x_d]]")
        if points.shape[-1] != self.dim:
            raise ValueError(f"the network has d = {self.dim} inputs but the points have d = {points.shape[-1]}")
        return points


class TwoLayerReLU(Network):
    """f(x) = sum_j z_j (w_j . x)_+, no bias, h neurons; P(y=+1|x) = sigmoid(f(x)) (1.1).

    `w`: [*batch, h, d] and `z`: [*batch, h] of one float dtype. Axes in front are a batch of independent networks.
    `ValueError` for shapes that do not fit, h = 0, d = 0, half precision, complex, NaN or infinite weights.

    >>> net = TwoLayerReLU(w=[[1.0, 0.0], [0.0, 1.0]], z=[2.0, -1.0])
    >>> net(jnp.array([[1.0, 3.0]])).tolist()
    [-1.0]
    """

    w: Float[Array, "*batch h d"]
    z: Float[Array, "*batch h"]

    def __init__(self, w, z) -> None:
        w, z = real_arrays(w=w, z=z)
        if w.ndim < 2 or z.shape != w.shape[:-1]:
            raise ValueError(
                f"w must be [*batch, h, d] and z [*batch, h], got shapes {w.shape} and {z.shape}; "
                "z has one entry per row of w"
            )
        if w.shape[-2] == 0 or w.shape[-1] == 0:
            raise ValueError(f"a network needs h >= 1 neurons and d >= 1 inputs, got w of shape {w.shape}")
        self.w, self.z = w, z

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n"]:
        """The logits f(x_i), [*batch, n], of the `points` [n, d]."""
        points = self.check_dim(points)
        hidden = jax.nn.relu(jnp.einsum("...hd,nd->...hn", self.w, points, precision="highest"))
        return jnp.einsum("...h,...hn->...n", self.z, hidden, precision="highest")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front: () for one network."""
        return self.z.shape[:-1]

    @property
    def width(self) -> int:
        """h, the number of neurons."""
        return self.z.shape[-1]

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        return self.w.shape[-1]


def init_two_layer(key, batch, width, dim, scale_w=1.0, scale_z=1.0) -> TwoLayerReLU:
    """`batch` random networks: w_j ~ N(0, scale_w^2 I), z_j ~ N(0, scale_z^2), independent.

    `batch` is an int or a tuple of ints, () for one network. Network i of the flattened batch depends on `key` and i
    alone, so a larger batch extends a smaller one. The dtype is JAX's default float, or the scales' if they are arrays.
    The standard deviations of (4.2) are sigma_a = scale_w and sigma_z = scale_z.

    >>> nets = init_two_layer(jax.random.key(0), batch=3, width=4, dim=2)
    >>> nets.w.shape, nets.z.shape
    ((3, 4, 2), (3, 4))
    """
    shape = batch_axes(batch)
    width, dim = positive_int("width", width), positive_int("dim", dim)
    scale_w, scale_z = real_arrays(scale_w=scale_w, scale_z=scale_z)
    one_number("scale_w", scale_w)
    one_number("scale_z", scale_z)
    check_normal("scale_w", scale_w)
    check_normal("scale_z", scale_z)
    w, z = draw_two_layer(one_key(key), jnp.arange(math.prod(shape)), scale_w, scale_z, width, dim)
    return TwoLayerReLU(w.reshape(*shape, width, dim), z.reshape(*shape, width))


def batch_axes(batch) -> tuple[int, ...]:
    """`batch`, an int or a tuple of ints, as the tuple of axes it stands for."""
    shape = batch if isinstance(batch, tuple) else (batch,)
    return tuple(positive_int("batch", size) for size in shape)


@partial(jax.jit, static_argnums=(4, 5))
def draw_two_layer(
    key,
    numbers: Integer[Array | np.ndarray, " b"],
    scale_w: Float[Array, "..."],
    scale_z: Float[Array, "..."],
    width: int,
    dim: int,
) -> tuple[Float[Array, "b h d"], Float[Array, "b h"]]:
    """The weights of the networks of these `numbers` among those of `key`, each a function of the two alone."""

    def one(number):
        key_w, key_z = jax.random.split(jax.random.fold_in(key, number))
        w = jax.random.normal(key_w, (width, dim), scale_w.dtype)
        z = jax.random.normal(key_z, (width,), scale_w.dtype)
        return w * scale_w, z * scale_z

    return jax.vmap(one)(jnp.asarray(numbers))
