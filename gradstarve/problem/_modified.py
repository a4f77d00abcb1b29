"""Losses made of another loss: spectral decoupling."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import as_choice, is_concrete, real_arrays, shown
from gradstarve.problem._losses import Loss, Margin, as_loss

# Spectral decoupling: a penalty on the logits themselves, as a loss of the margin.
#
# Labels are ±1, so that f(x)^2 = m^2, and the penalised objective of Pezeshki et al. 2021 (arXiv:2011.09468),
#
#     L + (lambda/2) sum_i q_i f(x_i)^2 = sum_i q_i [l(m_i) + (lambda/2) m_i^2],   g(m) -> g(m) - lambda m,
#
# is again a loss of the margin (section 10 of the theory): whatever takes a `Loss` takes this one.
#
# Papers and code scale the objective in different ways. With the coefficient lambda of (lambda/2) f^2 (code that writes
# c f^2 has lambda = 2 c):
#
# | scaling      | objective per sample                         | minimiser         | unit of time        |
# |--------------|----------------------------------------------|-------------------|---------------------|
# | "added"      | l + (lambda/2) m^2                           | that of lambda    | that of l           |
# | "divided"    | [l + (lambda/2) m^2] / max(1, lambda)        | that of lambda    | max(1, lambda) long |
# | "multiplied" | (lambda/2) [l + m^2]                         | that of 2, always | 2/lambda long       |
#
# "added" is the formula of the paper. "divided" is what code that grew out of invariant risk minimisation does to keep
# gradients in range: the minimiser of "added" at a smaller step size. "multiplied" is what the paper's code for coloured
# digits does after a delay: the coefficient stands before loss *and* penalty, so that it is a factor of the step size alone
# (which Adam undoes) and the strength of the penalty is 1 whatever it is. A loss summed over n samples with a penalty
# summed over them has the same lambda as both averaged; a mean loss with a summed penalty has n lambda.

SCALINGS = ("added", "divided", "multiplied")


class SpectralDecoupling(Loss):
    """scale [l(m) + (penalty/2) (m - target)^2], with residual scale [g(m) - penalty (m - target)].

    `loss`: l, a loss or its name; `penalty`: lambda >= 0, one number, or one a sample, [n], with 0 where a sample is left
    alone; `target`: the margin the penalty pulls to, a number or [n], default 0; `scaling`: "added", "divided" or
    "multiplied", see the head of the module. `divided` takes the largest penalty, `multiplied` needs a single one.

    [n] is the order of the points of the `Dataset`, or of the rows of `types` for `theory.feature_flow`; margins have it
    as their last axis. The fields hold the result: `penalty` and `scale` are those of the formula above. `ValueError` for
    negative penalties, shapes that do not fit, unknown scalings.

    >>> import jax.numpy as jnp
    >>> penalised = SpectralDecoupling("cross-entropy", 0.1)
    >>> [round(float(penalised.residual(jnp.array(m))), 4) for m in (0.0, 1.0, 3.0)]    # it pulls back from 1.64 on
    [0.5, 0.1689, -0.2526]
    >>> for scaling in ("added", "divided", "multiplied"):
    ...     variant = SpectralDecoupling("cross-entropy", 4.0, scaling=scaling)
    ...     print(scaling, float(variant.scale), float(variant.penalty))
    added 1.0 4.0
    divided 0.25 4.0
    multiplied 2.0 2.0
    """

    loss: Loss
    penalty: Float[Array, "..."]
    target: Float[Array, "..."]
    scale: Float[Array, ""]

    def __init__(self, loss: Loss | str, penalty: Any, target: Any = 0.0, scaling: str = "added") -> None:
        self.loss = as_loss(loss)
        if isinstance(self.loss, SpectralDecoupling):
            raise ValueError("loss is penalised already; give its own loss, and one penalty for both")
        penalty, target = real_arrays(penalty=penalty, target=target)
        for name, value in (("penalty", penalty), ("target", target)):
            if value.ndim > 1 or value.size == 0:
                raise ValueError(f"{name} must be a number or one number a sample, [n], got shape {value.shape}")
        if penalty.ndim == target.ndim == 1 and penalty.shape != target.shape:
            raise ValueError(f"penalty has {penalty.size} samples but target has {target.size}")
        if is_concrete(penalty) and (np.asarray(penalty) < 0).any():
            raise ValueError(f"penalty must be >= 0, got {np.asarray(penalty).min()}; a negative one has no minimiser")
        as_choice("scaling", scaling, SCALINGS)
        scale = jnp.ones((), penalty.dtype)
        if scaling == "divided":
            scale = 1 / jnp.maximum(jnp.max(penalty), scale)
        if scaling == "multiplied":
            if penalty.ndim:
                raise ValueError(
                    'scaling = "multiplied" needs a single penalty: a factor for each sample before loss and penalty alike '
                    "is a weight of the sample; give it to Dataset(weights=...)"
                )
            if is_concrete(penalty) and float(penalty) == 0:
                raise ValueError('penalty must be > 0 for scaling = "multiplied", which has it before the loss, got 0')
            scale, penalty = penalty / 2, jnp.full_like(penalty, 2)
        self.penalty, self.target, self.scale = penalty, target, scale

    @classmethod
    def by_class(
        cls, loss: Loss | str, labels: Any, penalty: Any, target: Any = (0.0, 0.0), scaling: str = "added"
    ) -> SpectralDecoupling:
        """A penalty (lambda_y/2) (f - gamma_y)^2 with numbers of its own for each class, as the paper has for faces.

        `labels`: [n] of ±1; `penalty`, `target`: pairs (of class +, of class -), the target as a logit f, so that the
        margin of class - is pulled to -gamma_-.

        >>> loss = SpectralDecoupling.by_class("cross-entropy", [1, -1], penalty=(0.1, 0.2), target=(1.0, -3.0))
        >>> loss.penalty.round(1).tolist(), loss.target.tolist()
        ([0.10000000149011612, 0.20000000298023224], [1.0, 3.0])
        """
        labels, penalty, target = real_arrays(labels=labels, penalty=penalty, target=target)
        if labels.ndim != 1 or (is_concrete(labels) and not np.isin(np.asarray(labels), (-1, 1)).all()):
            raise ValueError(f"labels must be +1 or -1, one a sample, got {shown(labels)}")
        for name, value in (("penalty", penalty), ("target", target)):
            if value.shape != (2,):
                raise ValueError(f"{name} must be a pair (class +, class -), got shape {value.shape}")
        positive = labels > 0
        of_class = jnp.where(positive, penalty[0], penalty[1])
        return cls(loss, of_class, labels * jnp.where(positive, target[0], target[1]), scaling)

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What tells it from the loss inside, such as "cross-entropy + spectral decoupling"."""
        return f"{self.loss.name} + spectral decoupling"

    def value(self, margin: Margin) -> Margin:
        """scale [l(m) + (penalty/2) (m - target)^2]."""
        scale, penalty, off = self._numbers(margin)
        return scale * (self.loss.value(margin) + penalty * off**2 / 2)

    def residual(self, margin: Margin) -> Margin:
        """scale [g(m) - penalty (m - target)]: negative, a pull back, for large margins."""
        scale, penalty, off = self._numbers(margin)
        return scale * (self.loss.residual(margin) - penalty * off)

    def at(self, index) -> SpectralDecoupling:
        """The loss of the samples at `index`, for margins of those samples alone."""

        def leaf(value):
            return value[index] if value.ndim else value

        numbers = (leaf(self.penalty), leaf(self.target))
        return eqx.tree_at(lambda loss: (loss.penalty, loss.target), self, numbers)

    def _numbers(self, margin):
        """Scale, penalty and m - target in the precision of the margin."""
        for name, value in (("penalty", self.penalty), ("target", self.target)):
            if value.ndim and margin.shape[-1:] != value.shape:
                raise ValueError(
                    f"{name} is given for {value.size} samples but the margins are of shape {margin.shape}; "
                    "the last axis must be the samples, in the same order"
                )
        scale, penalty, target = (leaf.astype(margin.dtype) for leaf in (self.scale, self.penalty, self.target))
        return scale, penalty, margin - target
