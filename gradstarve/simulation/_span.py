"""Training in fewer coordinates, with the same sign of every w_j . x_i: zero coordinates left out, repeated points merged.

A neuron that is exactly on the edge of a point, w_j . x_i = 0, is inactive on the point, and stays there as long as nothing
pushes it off. A change of coordinates must keep such zeros: rotation into the span of the data by a singular value
decomposition turns them into 1e-17, and activates the neuron. Two reductions keep them.

- *Coordinates that are zero in every point* are left out. The products w_j . x_i have the same terms as before.
- *Few points in many dimensions*, 2 n < d, such as images: a neuron is described by s_i = w_j . x_i, computed once in the
  given coordinates, and by the coefficients c_i of w_j = w_j(0) + sum_i c_i x_i. A step along
  sum_i G_i x_i changes c by G and s by K G, K_ik = x_i . x_k, and w_j . sum_i G_i x_i = sum_i s_i G_i. Where x_i . x_k is
  zero, s_i does not change. The 2 n numbers (s, c) of a neuron replace its d weights: a `Lifted` problem.

Only weight decay moves the part of w_j that no point pushes: it multiplies this part by one factor for all neurons of a
network.

Whether a sum that is zero only by rounding, such as 0.1 g - 0.1 g with inexact products, is exactly zero depends on the way
the sum is computed, in NumPy too (`@` and `einsum` differ): no engine can promise to keep such a zero.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import is_concrete
from gradstarve.problem import Dataset, GradientDescent, Network, TwoLayerReLU, distinct


class Lifted(Dataset):
    """n points as unit vectors [n, 2 n] that pick s_i from the numbers (s, c) of a neuron; `gram`: K, [n, n].

    Networks of 2 n coordinates have the right outputs on these points, but only engines that use `gram` train them rightly.
    """

    gram: Float[Array, "n n"]

    def __init__(self, labels: Any, weights: Any, gram: Float[Array, "n n"]):
        size = gram.shape[0]
        super().__init__(jnp.eye(size, 2 * size, dtype=gram.dtype), labels, weights)
        self.gram = gram


def dimensions(data: Dataset, draws: bool) -> int:
    """The number of coordinates of a neuron besides its z: those not zero in every point, or 2 n. An upper bound inside jit.

    `draws`: whether the dynamics draw points one by one, which needs the given coordinates.
    """
    used = data.dim
    if is_concrete(data.points):
        used = max(1, int(np.asarray(data.points).any(axis=0).sum()))
    return used if draws else min(used, 2 * data.size)


class Span(eqx.Module):
    """A problem in fewer coordinates: train `data` and `network`, and map the results back by `expand` and `restore`.

    `entry` [k, d] maps the d weights of a neuron to k numbers, w entry^T; `leave` [k, d] maps k numbers to weights.
    Both are None if the given coordinates are kept.
    """

    data: Dataset
    network: Network
    given: Network
    index: Array | None
    entry: Float[Array, "k d"] | None
    leave: Float[Array, "k d"] | None

    def __init__(self, data: Dataset, network: Network, draws: bool, lifts: bool = True):
        """`draws`: keep repeated points apart, for dynamics that draw one of them. `lifts`: whether (s, c) may replace
        weights, which dynamics that use the sign of each coordinate rule out."""
        assert isinstance(network, TwoLayerReLU)
        self.given, self.index = network, None
        if not draws:
            data, self.index = _merged(data)
        self.data, self.network, self.entry, self.leave = data, network, None, None
        points = np.asarray(data.points)
        used = np.flatnonzero(points.any(axis=0))
        used = used if used.size else np.arange(1)
        lifted = None if draws or not lifts or 2 * data.size >= used.size else _lifted(data)
        if lifted is not None:
            self.data = lifted
            self.entry, self.leave = (jnp.concatenate(pair) for pair in _twice(data.points))
        elif used.size < data.dim:
            self.data = Dataset(data.points[:, used], data.labels, data.weights)
            self.entry = self.leave = jnp.eye(data.dim, dtype=data.points.dtype)[used]
        if self.entry is not None:
            self.network = TwoLayerReLU(_times(network.w, self.entry.T), network.z, network.slope)

    @property
    def fewer(self) -> bool:
        """Whether networks are trained in other coordinates, so that their weights have a part that no point pushes."""
        return self.entry is not None

    def expand(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        """Logits [..., m] of the trained points as logits [..., n] of the given points."""
        return logits if self.index is None else logits[..., self.index]

    def restore(self, small: Network, left: Float[Array, "..."] | None) -> Network:
        """The networks in the given coordinates, [*batch] or [*batch, records], that belong to the trained ones `small`.

        `left`: of the same shape, the factor by which decay has shrunk the part that no point pushes; None for no decay.
        """
        if self.leave is None:
            return small
        assert isinstance(small, TwoLayerReLU)
        assert isinstance(self.given, TwoLayerReLU)
        assert isinstance(self.network, TwoLayerReLU)
        start = self.given.w
        off = start - _times(self.network.w, self.leave)
        extra = small.z.ndim - start.ndim + 1
        off = off.reshape(*start.shape[:-2], *(1,) * extra, *start.shape[-2:])
        if left is not None:
            off = left[..., None, None] * off
        return TwoLayerReLU(_times(small.w, self.leave) + off, small.z, small.slope)


def _merged(data: Dataset) -> tuple[Dataset, Array | None]:
    """The distinct labelled points, in the order of first occurrence, and the one that point i equals, [n]."""
    kept, index, weights = distinct(data)
    if kept.size == data.size:
        return data, None
    return Dataset(data.points[kept], data.labels[kept], weights), jnp.asarray(index)


def _times(numbers: Array, matrix: Array) -> Array:
    return jnp.einsum("...k,kd->...d", numbers, matrix, precision="highest")


def _twice(points: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """The two parts of `entry` and of `leave` for numbers (s, c)."""
    nothing = jnp.zeros_like(points)
    return (points, nothing), (nothing, points)


def _lifted(data: Dataset) -> Lifted | None:
    """`data` in the coordinates (s, c); None if products of points overflow or underflow their dtype."""
    points = np.asarray(data.points)
    wide = points.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        gram = np.einsum("id,kd->ik", wide, wide).astype(points.dtype)
        squares = gram.diagonal()
    least = np.finfo(points.dtype).smallest_normal / np.finfo(points.dtype).eps
    whole = np.isfinite(gram).all() and (squares[points.any(axis=1)] >= least).all()
    return Lifted(data.labels, data.weights, jnp.asarray(gram)) if whole else None


@eqx.filter_jit
def left_by_decay(dynamics: GradientDescent, steps: int, every: int) -> Float[Array, "b records"]:
    """The factor left of a weight that no point pushes, after 0, K, 2K, ... and `steps` steps of decay, K = `every`.

    A step is linear in (weight, velocity), and K steps are a power of its matrix. Hyperparameters are [b].
    """

    def one_step(weight, velocity):
        gradient = dynamics.weight_decay * weight
        velocity = dynamics.momentum * velocity + gradient
        push = gradient + dynamics.momentum * velocity if dynamics.nesterov else velocity
        return jnp.stack([weight - dynamics.step_size * push, velocity], axis=-1)

    one, zero = jnp.ones_like(dynamics.step_size), jnp.zeros_like(dynamics.step_size)
    matrix = jnp.stack([one_step(one, zero), one_step(zero, one)], axis=-1)

    def later(state, count):
        return jnp.einsum("bij,bj->bi", jnp.linalg.matrix_power(matrix, count), state, precision="highest")

    def record(state, _):
        state = later(state, every)
        return state, state[:, 0]

    whole, rest = divmod(steps, every)
    state, left = jax.lax.scan(record, jnp.stack([one, zero], axis=-1), None, length=whole)
    last = [later(state, rest)[None, :, 0]] if rest else []
    return jnp.concatenate([one[None], left, *last]).T
