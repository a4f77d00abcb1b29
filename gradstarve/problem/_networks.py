"""Networks: the base class, the two-layer ReLU network (1.1), ReLU networks of any depth, and networks with K outputs."""

from __future__ import annotations

import math
from functools import partial
from itertools import pairwise
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from gradstarve.ground import (
    as_array,
    as_floats,
    as_number,
    check_finite,
    check_normal,
    is_concrete,
    one_key,
    one_number,
    positive_int,
    real_arrays,
    short_repr,
    shown,
)

Same = TypeVar("Same", bound="Network")


# The properties that a class of networks must define, and their meaning.
_DESCRIBED = {
    "batch_shape": "the axes in front, () for one network",
    "dim": "the number of inputs",
    "outputs": "the shape of the output for one point, () for a logit",
}


class Network(eqx.Module):
    """A function of points with trainable weights; weights with leading axes are a batch of independent networks.

    Every array leaf is a weight that training moves. Subclasses define `batch_shape`, the batch axes in front of every leaf,
    `dim`, the number of coordinates of a point, and `outputs`, the shape of the output for one point.
    """

    __repr__ = short_repr

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes, in front of the weights' own: () for one network."""
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

    def by_layer(self: Same, hidden: Any, read_out: Any) -> Same:
        """The tree of weights with `read_out` in place of those of the last layer, and `hidden` in place of all others."""
        raise ValueError(f"{type(self).__name__} does not say which weights are its read-out; leave out read_out_step_size")

    def check_described(self) -> None:
        """`ValueError` if a user's class of networks lacks one of the properties `batch_shape`, `dim` and `outputs`."""
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
        """The `points` as an array [n, d]; `ValueError` for another number of axes or coordinates, and for known entries
        that are not finite."""
        points = as_array("points", points)
        if is_concrete(points):
            check_finite("points", np.asarray(points))
        if points.ndim != 2:
            raise ValueError(f"points must be [n, d], got shape {points.shape}; give one point as [[x_1, ..., x_d]]")
        if points.shape[-1] != self.dim:
            raise ValueError(f"the network has d = {self.dim} inputs but the points have d = {points.shape[-1]}")
        return points


def _last_apart(self: Same, hidden: Any, read_out: Any) -> Same:
    """`Network.by_layer` for a class whose last leaf holds the weights of the read-out."""
    leaves, tree = jax.tree.flatten(self)
    return jax.tree.unflatten(tree, [hidden] * (len(leaves) - 1) + [read_out])


class TwoLayerReLU(Network):
    """f(x) = sum_j z_j (w_j . x)_+, no bias, h neurons; P(y=+1|x) = sigmoid(f(x)) (1.1).

    `w`: [*batch, h, d] and `z`: [*batch, h] of one float dtype. Axes in front are a batch of independent networks.
    `slope`: the slope of a leaky ReLU, f(x) = sum_j z_j phi(w_j . x) with phi(s) = max(s, slope s) (22.1): a known number,
    0 <= slope < 1, the same for all neurons and not trained. At s = 0 a neuron is inactive: phi'(0) = slope. `ValueError`
    for another slope, shapes that do not fit, h = 0, d = 0, half precision, complex, NaN or infinite weights.

    >>> net = TwoLayerReLU(w=[[1.0, 0.0], [0.0, 1.0]], z=[2.0, -1.0])
    >>> net(jnp.array([[1.0, 3.0]])).tolist()
    [-1.0]
    >>> TwoLayerReLU(net.w, net.z, slope=0.5)(jnp.array([[-1.0, 3.0]])).tolist()
    [-4.0]
    """

    w: Float[Array, "*batch h d"]
    z: Float[Array, "*batch h"]
    slope: float = eqx.field(static=True, default=0.0)

    by_layer = _last_apart

    def __repr__(self) -> str:
        text = short_repr(self)
        return text if self.slope else text.replace(", slope=0)", ")")

    def __init__(self, w, z, slope: Any = 0.0) -> None:
        w, z = real_arrays(w=w, z=z)
        if w.ndim < 2 or z.shape != w.shape[:-1]:
            raise ValueError(
                f"w must be [*batch, h, d] and z [*batch, h], got shapes {w.shape} and {z.shape}; "
                "z has one entry per row of w"
            )
        if w.shape[-2] == 0 or w.shape[-1] == 0:
            raise ValueError(f"a network needs h >= 1 neurons and d >= 1 inputs, got w of shape {w.shape}")
        self.w, self.z, self.slope = w, z, _slope(slope)

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n"]:
        """The logits f(x_i), [*batch, n], of the `points` [n, d]."""
        points = self.check_dim(points)
        hidden = jnp.einsum("...hd,nd->...hn", self.w, points, precision="highest")
        hidden = jnp.where(hidden > 0, hidden, self.slope * hidden) if self.slope else jax.nn.relu(hidden)
        return jnp.einsum("...h,...hn->...n", self.z, hidden, precision="highest")

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes, in front of the weights' own: () for one network."""
        return self.z.shape[:-1]

    @property
    def width(self) -> int:
        """h, the number of neurons."""
        return self.z.shape[-1]

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        return self.w.shape[-1]


def _slope(value: Any) -> float:
    """The slope of a leaky ReLU, 0 <= slope < 1, as a Python number, which is a constant of compiled programs."""
    wanted = "slope must be a known number in [0, 1), 0 for the ReLU"
    try:
        slope = as_number("slope", value)
    except ValueError:
        raise ValueError(f"{wanted}, got {shown(value)}") from None
    if not 0 <= slope < 1:
        more = "; a network of slope 1 is linear, and one of a larger slope is another one with w turned round"
        raise ValueError(f"{wanted}, got {shown(value)}{more if slope >= 1 else ''}")
    return slope


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
    scale_w, scale_z = _deviations(scale_w=scale_w, scale_z=scale_z)
    w, z = draw_two_layer(one_key(key), jnp.arange(math.prod(shape)), scale_w, scale_z, width, dim)
    return TwoLayerReLU(w.reshape(*shape, width, dim), z.reshape(*shape, width))


def batch_axes(batch) -> tuple[int, ...]:
    """`batch`, a count or a tuple of counts, as a tuple of axes."""
    shape = batch if isinstance(batch, tuple) else (batch,)
    return tuple(positive_int("batch", size) for size in shape)


def _deviations(**named) -> tuple[Array, ...]:
    """Standard deviations >= 0 of random weights, one number each, of one dtype."""
    scales = real_arrays(**named)
    for (name, given), scale in zip(named.items(), scales, strict=True):
        one_number(name, scale)
        if is_concrete(scale) and scale < 0:
            raise ValueError(f"{name} must be >= 0, got {shown(given)}: it is a standard deviation")
        check_normal(name, scale)
    return scales


@partial(jax.jit, static_argnums=(4, 5))
def draw_two_layer(
    key,
    numbers: Integer[Array | np.ndarray, " b"],
    scale_w: Float[Array, "..."],
    scale_z: Float[Array, "..."],
    width: int,
    dim: int,
) -> tuple[Float[Array, "b h d"], Float[Array, "b h"]]:
    """The weights of networks `numbers` of the sequence that `key` defines; each depends on `key` and its number alone."""

    def one(number):
        key_w, key_z = jax.random.split(jax.random.fold_in(key, number))
        w = jax.random.normal(key_w, (width, dim), scale_w.dtype)
        z = jax.random.normal(key_z, (width,), scale_w.dtype)
        return w * scale_w, z * scale_z

    return jax.vmap(one)(jnp.asarray(numbers))


# ReLU networks of any depth, with optional masks of their connections.

Mask = tuple  # nested tuples of bools: hashable, so that it is part of the network's structure and never trained


class DeepReLU(Network):
    """f(x) = W_N relu(W_(N-1) ... relu(W_1 x)), no biases: N layers of weights, one logit.

    - `layers`: W_1 [*batch, h_1, d], ..., W_(N-1) [*batch, h_(N-1), h_(N-2)], and last the read-out [*batch, h_(N-1)].
      N = 1 is the linear read-out [*batch, d] alone; N = 2 is `TwoLayerReLU`;
    - `connections`: None for all, or one 0/1 array for each layer, of its shape without the batch: an absent connection
      (0) has weight 0 and is not trained. With masks, paths run side by side without mixing (`DeepReLU.paths`).

    One float dtype. `ValueError` for shapes that do not fit, and for a weight other than 0 on an absent connection.

    >>> net = DeepReLU(([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]], [2.0]))
    >>> net.depth, net(jnp.array([[1.0, 3.0], [-1.0, 3.0]])).tolist()
    (3, [8.0, 6.0])
    """

    layers: tuple[Float[Array, "..."], ...]
    connections: Mask | None = eqx.field(static=True)

    by_layer = _last_apart

    def __init__(self, layers, connections=None) -> None:
        if not isinstance(layers, list | tuple) or not layers:
            raise ValueError(f"layers must be a non-empty sequence of arrays, got {shown(layers)}")
        layers = real_arrays(**{f"layers[{i}]": layer for i, layer in enumerate(layers)})
        batch = layers[-1].shape[:-1]
        for i, (layer, after) in enumerate(pairwise(layers)):
            if layer.ndim != len(batch) + 2 or layer.shape[:-2] != batch or layer.shape[-2] != after.shape[-1]:
                raise ValueError(
                    f"layers[{i}] must be [*batch, {after.shape[-1]}, inputs] with batch axes {batch} to fit the layer "
                    f"after it, got shape {layer.shape}"
                )
        if any(0 in layer.shape[len(batch) :] for layer in layers):
            raise ValueError(f"a layer has no weights: shapes {[layer.shape for layer in layers]}")
        self.layers = layers
        self.connections = None if connections is None else _as_mask(connections, layers, len(batch))

    @property
    def depth(self) -> int:
        """N, the number of layers of weights."""
        return len(self.layers)

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The batch axes, in front of the weights' own: () for one network."""
        return self.layers[-1].shape[:-1]

    @property
    def dim(self) -> int:
        """d, the number of inputs."""
        return self.layers[0].shape[-1]

    def __call__(self, points: Float[Array, "n d"]) -> Float[Array, "*batch n"]:
        """The logits f(x_i), [*batch, n], of the `points` [n, d]."""
        points = self.check_dim(points)
        layers = self.layers
        if self.connections is not None:
            # `where` rather than a product: an absent connection must have no gradient either.
            layers = [jnp.where(np.asarray(mask), w, 0) for w, mask in zip(layers, self.connections, strict=True)]
        hidden = jnp.swapaxes(points, -1, -2)
        for layer in layers[:-1]:
            hidden = jax.nn.relu(jnp.einsum("...ij,...jn->...in", layer, hidden, precision="highest"))
        return jnp.einsum("...j,...jn->...n", layers[-1], hidden, precision="highest")

    @classmethod
    def chain(cls, weights, direction) -> DeepReLU:
        """One path: `weights` [*batch, N], the scalars b_1, ..., b_N of section 7, the first along `direction` [d].

        On a class along that (unit) direction at norm r the logit is r b_1 ... b_N (7.1).

        >>> DeepReLU.chain([2.0, 3.0, 0.5], [0.0, 1.0])(jnp.array([[0.0, 1.0]])).tolist()
        [3.0]
        """
        weights, direction = real_arrays(weights=weights, direction=direction)
        if weights.ndim < 1 or direction.ndim != 1:
            raise ValueError(
                f"weights must be [*batch, N] and direction [d], got shapes {weights.shape} and {direction.shape}"
            )
        depth = weights.shape[-1]
        if depth == 1:
            return cls((weights * direction,))
        first = weights[..., :1, None] * direction
        return cls((first, *(weights[..., i : i + 1, None] for i in range(1, depth - 1)), weights[..., -1:]))

    @classmethod
    def paths(cls, weights, features, dim) -> DeepReLU:
        """h paths side by side: `weights` [*batch, N, h]; path j reads coordinate `features`[j] of the `dim` inputs alone.

        All other connections are absent, so that paths stay aligned with their features (10.1). N = 1 is a linear read-out
        of these coordinates, with at most one path for each.

        >>> net = DeepReLU.paths([[1.0, 2.0], [3.0, 4.0]], features=[0, 1], dim=3)
        >>> net(jnp.array([[1.0, 1.0, 5.0]])).tolist()
        [11.0]
        """
        (weights,) = real_arrays(weights=weights)
        dim = positive_int("dim", dim)
        given, features = features, as_floats("features", features)
        whole = bool((features == np.rint(features)).all())
        if weights.ndim < 2 or not whole or features.shape != weights.shape[-1:]:
            raise ValueError(
                f"weights must be [*batch, N, h] and features one whole number for each of the h paths, got shape "
                f"{weights.shape} and {shown(given)}"
            )
        features = features.astype(int)
        if (features < 0).any() or (features >= dim).any():
            raise ValueError(f"features must be in 0, ..., {dim - 1} (dim = {dim}), got {features.tolist()}")
        depth, width = weights.shape[-2:]
        reads = np.eye(dim, dtype=bool)[features]  # [h, d]
        if depth == 1:
            if len(set(features.tolist())) < width:
                raise ValueError(f"one layer has one weight a coordinate, got features {features.tolist()}")
            return cls((weights[..., 0, :] @ reads.astype(weights.dtype),), (reads.any(0),))
        own = np.eye(width, dtype=bool)
        first = jnp.where(reads, weights[..., 0, :, None], 0)
        middle = [jnp.where(own, weights[..., i, :, None], 0) for i in range(1, depth - 1)]
        masks = (reads, *[own] * (depth - 2), np.ones(width, bool))
        return cls((first, *middle, weights[..., -1, :]), masks)


def _as_mask(connections, layers, axes: int) -> Mask:
    if not isinstance(connections, list | tuple) or len(connections) != len(layers):
        wanted = f"one 0/1 array for each of the {len(layers)} layers"
        raise ValueError(f"connections must have {wanted}, got {shown(connections)}")
    nested = []
    for i, (mask, layer) in enumerate(zip(connections, layers, strict=True)):
        mask = as_floats(f"connections[{i}]", mask)
        if mask.shape != layer.shape[axes:] or not np.isin(mask, (0, 1)).all():
            raise ValueError(f"connections[{i}] must be 0 or 1 of shape {layer.shape[axes:]}, got {shown(mask)}")
        mask = mask.astype(bool)
        if is_concrete(layer):
            stray = np.argwhere(~mask & (np.asarray(layer) != 0))
            if stray.size:
                where = tuple(int(k) for k in stray[0])
                raise ValueError(
                    f"layers[{i}]{list(where)} = {layer[where]} is on a connection that is not there; set it to 0"
                )
        nested.append(_tuples(mask.tolist()))
    return tuple(nested)


def _tuples(values):
    return tuple(map(_tuples, values)) if isinstance(values, list) else values


def init_deep(key, batch, widths, dim, scale=1.0) -> DeepReLU:
    """`batch` random networks of hidden `widths` (h_1, ..., h_(N-1)): W ~ N(0, scale^2 / inputs of the layer).

    `widths` () is one layer. Network i of the flattened batch depends on `key` and i alone. The dtype is JAX's default
    float, or that of `scale`.

    >>> init_deep(jax.random.key(0), batch=3, widths=(4, 5), dim=2).layers[1].shape
    (3, 5, 4)
    """
    shape = batch_axes(batch)
    if as_floats("widths", widths).ndim != 1:
        raise ValueError(
            f"widths must be those of the hidden layers, as in (8, 8), or () for one layer, got {shown(widths)}"
        )
    widths = tuple(positive_int("widths", width) for width in np.asarray(widths, object))
    given = scale
    (scale,) = _deviations(scale=scale)
    if is_concrete(scale) and scale == 0:
        raise ValueError(f"scale must be > 0, got {shown(given)}: it is that of every layer, and zeros are never trained")
    sizes = (positive_int("dim", dim), *widths)
    shapes = (*((out, into) for into, out in pairwise(sizes)), (sizes[-1],))
    count = int(np.prod(shape))
    drawn = _draw_layers(one_key(key), scale, count, shapes)
    return DeepReLU(tuple(layer.reshape(*shape, *size) for layer, size in zip(drawn, shapes, strict=True)))


@partial(jax.jit, static_argnums=(2, 3))
def _draw_layers(key, scale, count, shapes):
    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), len(shapes))
        return [
            jax.random.normal(key, shape, scale.dtype) * scale / np.sqrt(shape[-1])
            for key, shape in zip(keys, shapes, strict=True)
        ]

    return jax.vmap(one)(jnp.arange(count))


# Networks with K outputs, for softmax cross-entropy on K classes.


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
        """The batch axes, in front of the weights' own: () for one network."""
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

    by_layer = _last_apart

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
        """The batch axes, in front of the weights' own: () for one network."""
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
    scale_w, scale_z = _deviations(scale_w=scale_w, scale_z=scale_z)
    w, z = _draw_softmax(one_key(key), scale_w, scale_z, int(np.prod(shape)), width, dim, classes)
    return SoftmaxTwoLayer(w.reshape(*shape, width, dim), z.reshape(*shape, width, classes))


@partial(jax.jit, static_argnums=(3, 4, 5, 6))
def _draw_softmax(key, scale_w, scale_z, count, width, dim, classes):
    def one(index):
        key_w, key_z = jax.random.split(jax.random.fold_in(key, index))
        w = jax.random.normal(key_w, (width, dim), scale_w.dtype)
        return w * scale_w, jax.random.normal(key_z, (width, classes), scale_z.dtype) * scale_z

    return jax.vmap(one)(jnp.arange(count))
