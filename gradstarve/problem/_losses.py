"""The four losses l(m) of the margin m = y f(x), and their residuals g(m) = -l'(m).

| name          | l(m)            | g(m)                |
|---------------|-----------------|---------------------|
| cross-entropy | log(1 + e^-m)   | 1/(1 + e^m)         |
| hinge         | max(0, 1 - m)   | 1 if m < 1 else 0   |
| exponential   | e^-m            | e^-m                |
| squared       | (1 - m)^2 / 2   | 1 - m               |

Labels are ±1. Every loss keeps the dtype of the margin, and is finite and accurate for every margin whose loss is a
representable number (the exponential loss overflows to inf below m = -709 in float64, as it must).
"""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.ground import HypothesisError, did_you_mean, shown

Margin = Float[Array, "*shape"]


class Loss(eqx.Module):
    """A loss of the margin: `value(m)` is l(m), `residual(m)` is g(m) = -l'(m); both elementwise, any shape."""

    name: ClassVar[str]

    def value(self, margin: Margin) -> Margin:
        """l(m), elementwise."""
        raise NotImplementedError

    def residual(self, margin: Margin) -> Margin:
        """g(m) = -l'(m), elementwise."""
        raise NotImplementedError

    def at(self, index) -> Loss:
        """The loss of the samples at `index` alone: itself, but for losses with numbers of their own for each sample."""
        return self


class CrossEntropy(Loss):
    """l(m) = log(1 + e^-m), g(m) = 1/(1 + e^m): logistic loss on labels ±1, P(y=+1|x) = sigmoid(f(x)).

    >>> import jax.numpy as jnp
    >>> float(CrossEntropy().residual(jnp.array(0.0)))
    0.5
    """

    name: ClassVar[str] = "cross-entropy"

    def value(self, margin: Margin) -> Margin:
        """log(1 + e^-m), without overflow and with full relative accuracy for large m."""
        return jax.nn.softplus(-margin)

    def residual(self, margin: Margin) -> Margin:
        """sigmoid(-m)."""
        return jax.nn.sigmoid(-margin)


class Hinge(Loss):
    """l(m) = max(0, 1 - m), g(m) = 1 where m < 1 and 0 from m = 1 on (the kink itself belongs to the flat side).

    >>> import jax.numpy as jnp
    >>> Hinge().residual(jnp.array([0.0, 1.0])).tolist()
    [1.0, 0.0]
    """

    name: ClassVar[str] = "hinge"

    def value(self, margin: Margin) -> Margin:
        """max(0, 1 - m); its derivative at m = 1 is 0, as `residual` says."""
        # jnp.maximum would give the kink the derivative -1/2, which is neither side's.
        return jnp.where(margin < 1, 1 - margin, 0)

    def residual(self, margin: Margin) -> Margin:
        """1 where m < 1, else 0."""
        return jnp.where(margin < 1, jnp.ones_like(margin), jnp.zeros_like(margin))


class Exponential(Loss):
    """l(m) = g(m) = e^-m.

    >>> import jax.numpy as jnp
    >>> float(Exponential().value(jnp.array(0.0)))
    1.0
    """

    name: ClassVar[str] = "exponential"

    def value(self, margin: Margin) -> Margin:
        """e^-m."""
        return jnp.exp(-margin)

    def residual(self, margin: Margin) -> Margin:
        """e^-m."""
        return jnp.exp(-margin)


class SquaredMargin(Loss):
    """l(m) = (1 - m)^2 / 2, g(m) = 1 - m: regression of the margin on 1. The only loss that pulls a margin back.

    >>> import jax.numpy as jnp
    >>> float(SquaredMargin().residual(jnp.array(3.0)))
    -2.0
    """

    name: ClassVar[str] = "squared"

    def value(self, margin: Margin) -> Margin:
        """(1 - m)^2 / 2."""
        return (1 - margin) ** 2 / 2

    def residual(self, margin: Margin) -> Margin:
        """1 - m."""
        return 1 - margin


LOSSES: dict[str, type[Loss]] = {cls.name: cls for cls in (CrossEntropy, Hinge, Exponential, SquaredMargin)}


def as_loss(loss) -> Loss:
    """`loss` itself, or the loss of that name; `ValueError` lists the names for anything else.

    >>> as_loss("hinge").name
    'hinge'
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise ValueError(f"loss is the class {loss.__name__}; give an instance, {loss.__name__}()")
    names = f"use one of {', '.join(map(repr, LOSSES))} or a Loss instance"
    raise ValueError(f"unknown loss {shown(loss)}; {names}{did_you_mean(loss, LOSSES)}")


def closed_form_of(loss: Loss) -> str | None:
    """The name of the closed form that holds for `loss`: that of its own type, None unless the type is one of `LOSSES`.

    A subclass may have another residual under an inherited name, so the type decides and never the name.

    >>> class Steep(Hinge):
    ...     def residual(self, margin):
    ...         return 3 * super().residual(margin)
    >>> closed_form_of(Hinge()), Steep().name, closed_form_of(Steep())
    ('hinge', 'hinge', None)
    """
    return type(loss).name if type(loss) in LOSSES.values() else None


def with_closed_form(loss) -> Loss:
    """`as_loss(loss)`, and `HypothesisError` unless its type is one of `LOSSES`, the four that closed forms are written for.

    >>> with_closed_form("hinge").name
    'hinge'
    """
    loss = as_loss(loss)
    if closed_form_of(loss) is None:
        raise HypothesisError(
            f"the closed form is for the losses {', '.join(LOSSES)}",
            f"loss = {getattr(loss, 'name', '')!r} of type {type(loss).__name__}",
            "GradientDescent(step_size), whose law (8.1) takes any loss, theory.feature_flow (10.1), simulate(...) or "
            "simulate_flow(...)",
        )
    return loss
