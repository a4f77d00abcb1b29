"""What theory and simulation both give back: a learning curve.

Below it: the mode, one class along one direction.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    check_fits,
    check_normal,
    check_normal_size,
    check_positive,
    fields_html,
    is_concrete,
    real_arrays,
    short_repr,
)
from gradstarve.problem._data import ClassDataset, Dataset
from gradstarve.problem._losses import Loss


class LearningCurve(eqx.Module):
    """The contract of a `Solution` and a `Trajectory`: everything follows from `.logits(t)` and the data.

    t is time for flows and the step number for descent, a scalar or an array of any shape. With no argument a curve
    that was recorded gives its whole grid.
    """

    # One line, and a table in a notebook, in place of all arrays of all fields.
    __repr__ = short_repr
    _repr_html_ = fields_html

    data: eqx.AbstractVar[Dataset | ClassDataset]
    loss_function: eqx.AbstractVar[Loss]

    def logits(self, t=None) -> Float[Array, "..."]:
        """f(x_i) at t: [*batch, *t.shape, n], with one more axis of K classes for a softmax network."""
        raise NotImplementedError

    def margins(self, t=None) -> Float[Array, "..."]:
        """m_i at t: [*batch, *t.shape, n]. y_i f(x_i), and for K classes that of the true class against all others."""
        return self.data.margins(self.logits(t))

    def error(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i sigmoid(-m_i), the probability given to the wrong label: [*batch, *t.shape]."""
        return jnp.sum(self.data.weights * jax.nn.sigmoid(-self.margins(t)), axis=-1)

    def loss(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i l(m_i): [*batch, *t.shape]."""
        return jnp.sum(self.data.weights * self.loss_function.value(self.margins(t)), axis=-1)

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """The weight of the points whose label does not lead (two classes: m_i <= 0): [*batch, *t.shape]. A draw is one."""
        return jnp.sum(self.data.weights * (self.data.leads(self.logits(t)) <= 0), axis=-1)


# One mode: one class whose points share a direction, with the neurons that see it.


class Mode(eqx.Module):
    """A class of total weight p = `frequency` at norm r = `norm` along a unit vector xh, in its own orientation.

    Neuron j enters by a_j = w_j . xh and z_j (for the class y = -1 with its sign turned), so that the logit in favour
    of the class is u = r sum_j (a_j)_+ z_j. Shapes: `a` and `z` [*batch, h], `frequency` and `norm` [] or [*batch]; one
    float dtype. A neuron with a_j <= 0 does not see the class and stays where it is. Each class of orthogonal data is
    such a mode. `ValueError` for shapes that do not fit, h = 0, p <= 0, p > 1, r <= 0, and entries that are not
    finite or that are subnormal, which compiled code takes for 0, or p r is.

    >>> mode = Mode(frequency=0.5, norm=1.0, a=[0.1, 0.2], z=[0.1, -0.1])
    >>> round(float(mode.logit), 6)
    -0.01
    """

    frequency: Float[Array, "..."]
    norm: Float[Array, "..."]
    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]

    def __init__(self, frequency, norm, a, z) -> None:
        frequency, norm, a, z = real_arrays(frequency=frequency, norm=norm, a=a, z=z)
        if a.ndim < 1 or a.shape != z.shape:
            raise ValueError(f"a and z must both be [*batch, h], got shapes {a.shape} and {z.shape}")
        if a.shape[-1] == 0:
            raise ValueError(f"a mode needs h >= 1 neurons, got a of shape {a.shape}")
        for name, value in (("frequency", frequency), ("norm", norm)):
            check_positive(name, value)
            check_fits(name, value, a.shape[:-1], f"a {a.shape}")
        check_normal("a", a)
        check_normal("z", z)
        if is_concrete(frequency) and is_concrete(norm):
            check_normal_size("frequency * norm", np.log(np.asarray(frequency)) + np.log(np.asarray(norm)), a.dtype)
        if is_concrete(frequency):
            shares = np.asarray(frequency)
            # Sums of weights may exceed 1 by their rounding.
            above = shares > 1 + 64 * np.finfo(shares.dtype).eps
            if above.any():
                raise HypothesisError(
                    "frequency p is the weight of the class among all samples, at most 1 (section 3)",
                    f"frequency = {shares[above].flat[0]:.6g}",
                    "count / total for samples that are counted, or longer times for a faster clock",
                )
        self.frequency, self.norm, self.a, self.z = frequency, norm, a, z

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front of the neurons'."""
        return self.a.shape[:-1]

    @property
    def logit(self) -> Float[Array, "*batch"]:
        """u at the start: r sum_j (a_j)_+ z_j, [*batch]."""
        return self.norm * jnp.sum(jnp.maximum(self.a, 0) * self.z, axis=-1)
