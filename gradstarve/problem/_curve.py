"""What theory and simulation both give back: a learning curve."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.ground import fields_html, short_repr
from gradstarve.problem._classes import ClassDataset
from gradstarve.problem._data import Dataset
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
