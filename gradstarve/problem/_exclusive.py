"""Networks whose neurons are each active on one class at most, as the theorems on independent modes require (2.1)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_instance, deprecated, one_key
from gradstarve.problem._data import Dataset
from gradstarve.problem._networks import Network, TwoLayerReLU


@deprecated("network", "data", "key")
def exclusive(data: Dataset, network: Network, key) -> TwoLayerReLU:
    """`network` with every neuron that is active on points of both classes made exclusive to one of them (2.1).

    Such a neuron has w.xh_+ > 0 and w.xh_- > 0. One of the two classes is drawn with equal chances and the component of
    w along its direction xh changes sign, w <- w - 2 (w.xh) xh, which keeps |w| and so the balance (1.3). All other
    neurons, and every z, are unchanged. For Gaussian w on orthogonal classes the sizes |w.xh| keep their distribution; then
    3/8 of the neurons are active on class +, 3/8 on class - and 1/4 on neither.

    `network`: w [*batch, h, d], with any batch axes; `data`: n points, each class along one direction, with no acute angle
    between the two directions (`ValueError` otherwise, and for a leaky network). On antipodal data every network is
    exclusive already. The draws for network i of the flattened batch depend on `key` and i alone.

    >>> from gradstarve.problem import datasets
    >>> data = datasets.orthogonal()
    >>> net = exclusive(data, TwoLayerReLU(w=[[0.3, 0.1], [0.3, -0.1]], z=[1.0, 1.0]), key=0)
    >>> abs(net.w).round(3).tolist(), bool((net.w > 0).all(axis=-1).any())
    ([[0.30000001192092896, 0.10000000149011612], [0.30000001192092896, 0.10000000149011612]], False)
    """
    check_instance("data", data, Dataset, "give Dataset(points, labels)")
    check_instance("network", network, Network, "give TwoLayerReLU(w, z)")
    if type(network) is not TwoLayerReLU:
        raise ValueError(
            f"network must be a TwoLayerReLU itself, got {type(network).__name__}, whose neurons may see other points"
        )
    if network.slope:
        raise ValueError(
            f"neurons of a leaky ReLU see the points of both classes, got slope = {network.slope:g}; use antipodal data, "
            "where leaky networks have a law (22.1)"
        )
    if network.dim != data.dim:
        raise ValueError(f"the network has d = {network.dim} inputs but the points have d = {data.dim}")
    shape = data.separability()
    for name in ("shared_direction", "orthogonally_separable"):
        breach = shape.breaches[name]
        if breach is not None:
            raise ValueError(
                f"exclusive neurons need classes along one direction each, with no acute angle between them, but {breach}"
            )
    rays = [ray for label in (1, -1) if (ray := data.ray(label)) is not None]
    if len(rays) < 2:
        return network
    axes = jnp.asarray(np.stack([ray.direction for ray in rays]), network.w.dtype)
    return TwoLayerReLU(_turn(network.w, axes, one_key(key)), network.z)


@jax.jit
def _turn(w: Float[Array, "*batch h d"], axes: Float[Array, "2 d"], key) -> Float[Array, "*batch h d"]:
    along = jnp.einsum("...hd,cd->...hc", w, axes, precision="highest")
    both = (along > 0).all(axis=-1)
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(math.prod(w.shape[:-2])))
    side = jax.vmap(lambda k: jax.random.bernoulli(k, shape=w.shape[-2:-1]))(keys).reshape(both.shape)
    turn = both[..., None] & jnp.stack([side, ~side], axis=-1)
    return w - 2 * jnp.einsum("...hc,cd->...hd", jnp.where(turn, along, 0), axes, precision="highest")
