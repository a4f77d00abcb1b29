"""Training in the fewest numbers: in the span of the data, with repeated points merged, and the way back.

No point pushes the part of w_j orthogonal to the data, so that images of d = 784 pixels cost their rank. Only weight decay
moves it: it scales it, by a factor that is the same for all neurons of a network.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.problem import Dataset, GradientDescent, Network, Reduction, TwoLayerReLU


class Span(eqx.Module):
    """A problem in the span of its data: `data` and `network` are to be trained, `expand` and `restore` lead back.

    With nothing to save (`reduction` None) they are the given ones.
    """

    data: Dataset
    network: Network
    given: Network
    reduction: Reduction | None
    merged: bool = eqx.field(static=True)

    def __init__(self, data: Dataset, network: Network, keep_points: bool):
        """`keep_points`: leave repeated points apart, for dynamics that draw one of them."""
        reduction = data.reduce()
        self.merged = reduction.data.size < data.size and not keep_points
        flat = reduction.data.dim < data.dim
        self.reduction = reduction if flat or self.merged else None
        self.data, self.network, self.given = data, network, network
        if self.reduction is not None:
            assert isinstance(network, TwoLayerReLU)
            self.network = reduction.reduce(network) if flat else network
            small = reduction.data
            # The points as they were, each in the coordinates of the one it was merged into.
            self.data = small if self.merged else Dataset(small.points[reduction.index], data.labels, data.weights)

    @property
    def flat(self) -> bool:
        """Whether the data span less than the space they are given in, so that networks have a part off the span."""
        return self.reduction is not None and self.reduction.data.dim < self.given.dim

    def expand(self, logits: Float[Array, "..."]) -> Float[Array, "..."]:
        """Logits [..., m] of the points trained on as those of the given ones, [..., n]."""
        return self.reduction.expand(logits) if self.reduction is not None and self.merged else logits

    def restore(self, small: Network, left: Float[Array, "..."] | None) -> Network:
        """The networks, [*batch] or [*batch, records], that the given ones became when those trained became `small`.

        `left`: of this shape, what decay has left of their part off the span; None is all of it.
        """
        if self.reduction is None or not self.flat:
            return small
        assert isinstance(small, TwoLayerReLU)
        assert isinstance(self.given, TwoLayerReLU)
        assert isinstance(self.network, TwoLayerReLU)
        start, basis = self.given.w, self.reduction.basis

        def back(w):
            return jnp.einsum("...k,kd->...d", w, basis, precision="highest")

        off = start - back(self.network.w)
        extra = small.z.ndim - start.ndim + 1
        off = off.reshape(*start.shape[:-2], *(1,) * extra, *start.shape[-2:])
        if left is not None:
            off = left[..., None, None] * off
        return TwoLayerReLU(back(small.w) + off, small.z)


@eqx.filter_jit
def left_by_decay(dynamics: GradientDescent, steps: int, every: int) -> Float[Array, "b records"]:
    """What decay leaves of a weight that no point pushes, after 0, K, 2K, ... and `steps` steps, K = `every`.

    The step is linear in (weight, velocity); K of them are a power of its matrix. Hyperparameters are [b].
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
