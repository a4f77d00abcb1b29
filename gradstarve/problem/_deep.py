"""ReLU networks of any depth, also with some of their connections left out."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import as_floats, check_positive, is_concrete, one_key, one_number, positive_int, real_arrays, shown
from gradstarve.problem._networks import Network, batch_axes

Mask = tuple  # nested tuples of bools: hashable, so that it is part of the network's structure and never trained


class DeepReLU(Network):
    """f(x) = W_N relu(W_(N-1) ... relu(W_1 x)), no biases: N layers of weights, one logit.

    - `layers`: W_1 [*batch, h_1, d], ..., W_(N-1) [*batch, h_(N-1), h_(N-2)], and last the read-out [*batch, h_(N-1)].
      N = 1 is the linear read-out [*batch, d] alone; N = 2 is `TwoLayerReLU`;
    - `connections`: None for all, or one 0/1 array a layer, of its shape without the batch: a connection that is not
      there has weight 0 and stays so. It lets paths run beside each other without mixing (`DeepReLU.paths`).

    One float dtype. `ValueError` for shapes that do not fit, and for a weight other than 0 on an absent connection.

    >>> net = DeepReLU(([[1.0, 0.0], [0.0, 1.0]], [[1.0, 1.0]], [2.0]))
    >>> net.depth, net(jnp.array([[1.0, 3.0], [-1.0, 3.0]])).tolist()
    (3, [8.0, 6.0])
    """

    layers: tuple[Float[Array, "..."], ...]
    connections: Mask | None = eqx.field(static=True)

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
        """The axes in front: () for one network."""
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
            # Where, not times: an absent connection has no gradient either.
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
        """h paths beside each other: `weights` [*batch, N, h], path j reads the coordinate `features`[j] of `dim` only.

        Other connections are left out, so that paths stay aligned with their features (10.1). N = 1 is a read-out of
        those coordinates, each by one path at most.

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
    sizes = as_floats("widths", widths)
    if sizes.ndim != 1:
        raise ValueError(
            f"widths must be those of the hidden layers, as in (8, 8), or () for one layer, got {shown(widths)}"
        )
    widths = tuple(positive_int("widths", width) for width in sizes)
    (scale,) = real_arrays(scale=scale)
    one_number("scale", scale)
    check_positive("scale", scale)
    sizes = (positive_int("dim", dim), *widths)
    shapes = (*((out, into) for into, out in pairwise(sizes)), (sizes[-1],))
    count = int(np.prod(shape))
    drawn = _draw(one_key(key), scale, count, shapes)
    return DeepReLU(tuple(layer.reshape(*shape, *size) for layer, size in zip(drawn, shapes, strict=True)))


@partial(jax.jit, static_argnums=(2, 3))
def _draw(key, scale, count, shapes):
    def one(index):
        keys = jax.random.split(jax.random.fold_in(key, index), len(shapes))
        return [
            jax.random.normal(key, shape, scale.dtype) * scale / np.sqrt(shape[-1])
            for key, shape in zip(keys, shapes, strict=True)
        ]

    return jax.vmap(one)(jnp.arange(count))
