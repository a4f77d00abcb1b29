"""Losses built on another loss: flipped labels, a shift or a scale of the margin, a penalty on the logit; and focal loss.

| loss                          | l(m)                     | g(m)                 | rest (u*: the rest of l)     |
|-------------------------------|--------------------------|----------------------|------------------------------|
| `FlippedLabels(l, share e)`   | (1-e) l(m) + e l(-m)     | (1-e) g(m) - e g(-m) | where (1-e) g(u) = e g(-u)   |
| `MarginShift(l, shift)`       | l(m - shift)             | g(m - shift)         | u* + shift                   |
| `Temperature(l, T)`           | l(m/T)                   | g(m/T)/T             | T u*                         |
| `SpectralDecoupling(l, ...)`  | l(m) + (penalty/2) m^2   | g(m) - penalty m     | where g(u) = penalty u       |
| `Focal(gamma)`                | -(1-P)^gamma log P       | (18.3)               | none                         |

P = sigmoid(m). The first four take a loss or its name and can be nested. All work wherever a `Loss` does, and results are
differentiable in their numbers.
"""

# Facts that are class attributes of `Loss` are properties here.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import as_choice, is_concrete, one_number, real_arrays, shown
from gradstarve.problem._losses import Loss, Margin, as_loss


def _loss_and(addition: str) -> Any:
    """A property that names a modified loss after the inner loss and the `addition`, as in "hinge + margin shift"."""

    def name(loss: Any) -> str:
        """The name of the inner loss, and of the modification."""
        return f"{loss.loss.name} + {addition}"

    return property(name)


def _dtype(margin: Any) -> Any:
    """The dtype of margins; of Python numbers that of JAX."""
    return margin.dtype if hasattr(margin, "dtype") else jnp.result_type(float)


class Modified(Loss):
    """A loss built on an inner loss, `loss`. Its numbers are fields: one for all samples, or an array [n], one per sample.

    [n] is the order of the points of the `Dataset`, or of the rows of `types` for `theory.feature_flow`; the samples are the
    last axis of margins.
    """

    loss: Loss

    def at(self, index) -> Loss:
        """The loss of the samples at `index`, for margins of those samples alone."""
        numbers, others = eqx.partition(eqx.tree_at(lambda loss: loss.loss, self, None), eqx.is_array)
        own = eqx.combine(jax.tree.map(lambda value: value[index] if value.ndim else value, numbers), others)
        return eqx.tree_at(lambda loss: loss.loss, own, self.loss.at(index), is_leaf=lambda leaf: leaf is None)

    def _numbers(self, margin: Array, *names: str) -> tuple[Array, ...]:
        """The fields `names` in the dtype of `margin`; `ValueError` if a field [n] does not fit the samples of `margin`."""
        for name in names:
            value = getattr(self, name)
            if value.ndim and jnp.shape(margin)[-1:] != value.shape:
                raise ValueError(
                    f"{name} is given for {value.size} samples but the margins are of shape {jnp.shape(margin)}; "
                    "the last axis must be the samples, in the same order"
                )
        return tuple(getattr(self, name).astype(_dtype(margin)) for name in names)

    def _fact(self, name: str, made: Callable) -> Any:
        """`made(fact)` for the fact `name` of the inner loss; None if the inner loss does not state the fact."""
        fact = getattr(self.loss, name)
        return None if fact is None else made(fact)


def numbers_of_samples(**named: Any) -> tuple[Array, ...]:
    """The named values, each one number or an array [n] (one per sample, the same n), in one dtype."""
    arrays = real_arrays(**named)
    for name, value in zip(named, arrays, strict=True):
        if value.ndim > 1 or value.size == 0:
            raise ValueError(f"{name} must be a number or one number a sample, [n], got shape {value.shape}")
    sizes = {name: value.size for name, value in zip(named, arrays, strict=True) if value.ndim}
    if len(set(sizes.values())) > 1:
        (one, first), (other, second) = list(sizes.items())[:2]
        raise ValueError(f"{one} has {first} samples but {other} has {second}")
    return arrays


def _check(name: str, value: Array, allowed: Callable, text: str) -> None:
    if is_concrete(value) and not allowed(np.asarray(value)).all():
        found = np.asarray(value)[~allowed(np.asarray(value))].flat[0]
        raise ValueError(f"{name} must be {text}, got {found}")


def of_classes(labels: Any, **pairs: Any) -> tuple[Array, ...]:
    """The labels of ±1, and for each pair (value of class +, value of class -) an array [n] with a value per sample."""
    labels, *values = real_arrays(labels=labels, **pairs)
    if labels.ndim != 1 or (is_concrete(labels) and not np.isin(np.asarray(labels), (-1, 1)).all()):
        raise ValueError(f"labels must be +1 or -1, one a sample, got {shown(labels)}")
    for name, value in zip(pairs, values, strict=True):
        if value.shape != (2,):
            raise ValueError(f"{name} must be a pair (class +, class -), got shape {value.shape}")
    return (labels, *(jnp.where(labels > 0, value[0], value[1]) for value in values))


class FlippedLabels(Modified):
    """(1 - share) l(m) + share l(-m): the expected loss if a `share` of the labels is flipped at random (18.1).

    g(m) = (1 - share) g_l(m) - share g_l(-m). With cross-entropy this is label smoothing: the target of the true class is
    1 - share, g(m) = sigmoid(-m) - share, and the logit comes to rest at log((1 - share)/share). (Code that smooths by s has
    share = s/2.) With hinge loss g = 1 - 2 share between the margins -1 and 1 (18.2).

    `share`: 0 <= share < 1/2, one number or one per sample. `ValueError` otherwise: at 1/2 the true class is not learnt.

    >>> smoothed = FlippedLabels("cross-entropy", 0.1)
    >>> round(float(smoothed.rest), 4), round(float(smoothed.residual(jnp.array(0.0))), 4)
    (2.1972, 0.4)
    """

    share: Float[Array, "..."]
    name = _loss_and("flipped labels")

    def __init__(self, loss: Loss | str, share: Any) -> None:
        self.loss = as_loss(loss)
        (self.share,) = numbers_of_samples(share=share)
        _check("share", self.share, lambda share: (share >= 0) & (share < 0.5), ">= 0 and below 1/2")

    def value(self, margin: Margin) -> Margin:
        """(1 - share) l(m) + share l(-m)."""
        (share,) = self._numbers(margin, "share")
        return (1 - share) * self.loss.value(margin) + share * self.loss.value(-margin)

    def residual(self, margin: Margin) -> Margin:
        """(1 - share) g(m) - share g(-m)."""
        (share,) = self._numbers(margin, "share")
        return (1 - share) * self.loss.residual(margin) - share * self.loss.residual(-margin)

    @property
    def rest(self) -> Any:
        """log y, where e y^2 - c (1-2e) y - (1-e) = 0, for g_l = 1/(c + e^m); the rest of l if l stops; else None."""
        if self.loss.stops:
            return self.loss.rest
        if self.loss.offset is None:
            return None
        share, straight = self.share, self.loss.offset * (1 - 2 * self.share)
        some = jnp.where(share > 0, share, 1)
        root = (straight + jnp.sqrt(straight**2 + 4 * share * (1 - share))) / (2 * some)
        return jnp.where(share > 0, jnp.log(root), jnp.inf)

    @property
    def kinks(self) -> Any:
        """The kinks of l, and their negatives."""
        return (*self.loss.kinks, *(-kink for kink in self.loss.kinks))

    @property
    def least(self) -> Any:
        """The lower bound of l."""
        return self.loss.least


class MarginShift(Modified):
    """l(m - shift): the margin has to be larger by `shift` (18.3).

    g(m) = g_l(m - shift); a loss with the rest u* comes to rest at u* + shift. With a shift for each class this is logit
    adjustment (Menon et al. 2021, arXiv:2007.07314), shift = tau log(p_other/p_own), and the label-distribution-aware margin
    (Cao et al. 2019, arXiv:1906.07413), shift = C/n_own^(1/4); `by_class` takes one shift for each class.

    `shift`: one number or one per sample, of either sign.

    >>> shifted = MarginShift("hinge", 0.5)
    >>> float(shifted.rest), shifted.residual(jnp.array([1.2, 1.5])).tolist()
    (1.5, [1.0, 0.0])
    """

    shift: Float[Array, "..."]
    name = _loss_and("margin shift")

    def __init__(self, loss: Loss | str, shift: Any) -> None:
        self.loss = as_loss(loss)
        (self.shift,) = numbers_of_samples(shift=shift)

    @classmethod
    def by_class(cls, loss: Loss | str, labels: Any, shift: Any) -> MarginShift:
        """`shift`, a pair (of class +, of class -), by the `labels` of ±1, [n].

        >>> MarginShift.by_class("cross-entropy", [1, -1, 1], shift=(0.0, 2.0)).shift.tolist()
        [0.0, 2.0, 0.0]
        """
        return cls(loss, of_classes(labels, shift=shift)[1])

    def value(self, margin: Margin) -> Margin:
        """l(m - shift)."""
        return self.loss.value(margin - self._numbers(margin, "shift")[0])

    def residual(self, margin: Margin) -> Margin:
        """g(m - shift)."""
        return self.loss.residual(margin - self._numbers(margin, "shift")[0])

    @property
    def rest(self) -> Any:
        """u* + shift."""
        return self._fact("rest", self._moved)

    @property
    def kinks(self) -> Any:
        """The kinks of l, moved by the shift."""
        return tuple(map(self._moved, self.loss.kinks))

    @property
    def inverse(self) -> Any:
        """shift + the margin at which the residual of l has the given value."""
        return self._fact("inverse", lambda inverse: lambda residual: self._moved(inverse(residual)))

    @property
    def margin_at(self) -> Any:
        """shift + the margin above which l is at most the given level."""
        return self._fact("margin_at", lambda margin_at: lambda level: self._moved(margin_at(level)))

    @property
    def least(self) -> Any:
        """The lower bound of l."""
        return self.loss.least

    def _moved(self, margin: Any) -> Any:
        return margin + self.shift


class Temperature(Modified):
    """l(m/T): the margin is measured in units of `temperature` T > 0, one number or one per sample (18.3).

    g(m) = g_l(m/T)/T; a loss with the rest u* comes to rest at T u*. In v = m/T the clock (3.5) is that of l, with kappa/T
    in place of kappa and tau/T in place of tau. `ValueError` for a temperature that is not above 0.

    >>> warm = Temperature("cross-entropy", 2.0)
    >>> round(float(warm.residual(jnp.array(0.0))), 4), float(Temperature("hinge", 2.0).rest)
    (0.25, 2.0)
    """

    temperature: Float[Array, "..."]
    name = _loss_and("temperature")

    def __init__(self, loss: Loss | str, temperature: Any) -> None:
        self.loss = as_loss(loss)
        (self.temperature,) = numbers_of_samples(temperature=temperature)
        _check("temperature", self.temperature, lambda value: value > 0, "> 0")

    def value(self, margin: Margin) -> Margin:
        """l(m/T)."""
        return self.loss.value(margin / self._numbers(margin, "temperature")[0])

    def residual(self, margin: Margin) -> Margin:
        """g(m/T)/T."""
        (temperature,) = self._numbers(margin, "temperature")
        return self.loss.residual(margin / temperature) / temperature

    @property
    def rest(self) -> Any:
        """T u*."""
        return self._fact("rest", self._stretched)

    @property
    def kinks(self) -> Any:
        """T times the kinks of l."""
        return tuple(map(self._stretched, self.loss.kinks))

    @property
    def inverse(self) -> Any:
        """T times the margin at which the residual of l is T times the given value."""
        return self._fact("inverse", lambda inverse: lambda value: self._stretched(inverse(self._stretched(value))))

    @property
    def margin_at(self) -> Any:
        """T times the margin above which l is at most the given level."""
        return self._fact("margin_at", lambda margin_at: lambda level: self._stretched(margin_at(level)))

    @property
    def least(self) -> Any:
        """The lower bound of l."""
        return self.loss.least

    def _stretched(self, margin: Any) -> Any:
        return margin * self.temperature


class Focal(Loss):
    """-(1 - P)^gamma log P, P = sigmoid(m): cross-entropy with less weight on learnt samples (18.3; Lin et al. 2017).

    g(m) = (1 - P)^gamma [(1 - P) - gamma P log P], about (gamma+1) e^(-(gamma+1) m) late in training. `gamma` >= 0, one
    number; 0 is cross-entropy. `ValueError` for a negative one.

    >>> [round(float(Focal(2.0).residual(jnp.array(m))), 4) for m in (-2.0, 0.0, 2.0)]
    [1.0767, 0.2983, 0.0049]
    """

    gamma: Float[Array, ""]
    name: ClassVar[str] = "focal"
    rest: ClassVar[Any] = np.inf
    least: ClassVar[float | None] = 0.0

    def __init__(self, gamma: Any) -> None:
        (self.gamma,) = real_arrays(gamma=gamma)
        one_number("gamma", self.gamma)
        _check("gamma", self.gamma, lambda gamma: gamma >= 0, ">= 0")

    def value(self, margin: Margin) -> Margin:
        """-(1 - P)^gamma log P."""
        return self._share(margin) * jax.nn.softplus(-margin)

    def residual(self, margin: Margin) -> Margin:
        """(1 - P)^gamma [(1 - P) - gamma P log P]."""
        gamma = self.gamma.astype(_dtype(margin))
        right = jax.nn.sigmoid(margin)
        return self._share(margin) * (jax.nn.sigmoid(-margin) + gamma * right * jax.nn.softplus(-margin))

    def _share(self, margin: Margin) -> Margin:
        """(1 - P)^gamma."""
        return jnp.exp(-self.gamma.astype(_dtype(margin)) * jax.nn.softplus(margin))


# Spectral decoupling: a penalty on the logits themselves, as a loss of the margin.
#
# Labels are ±1, so that f(x)^2 = m^2, and the penalised objective of Pezeshki et al. 2021 (arXiv:2011.09468),
#
#     L + (lambda/2) sum_i q_i f(x_i)^2 = sum_i q_i [l(m_i) + (lambda/2) m_i^2],   g(m) -> g(m) - lambda m,
#
# is again a loss of the margin (section 10 of the theory): every function that takes a `Loss` takes this one.
#
# Papers and code scale the objective in different ways. With the coefficient lambda of (lambda/2) f^2 (code that writes
# c f^2 has lambda = 2 c):
#
# | scaling      | objective per sample                         | minimiser (of)    | unit of time        |
# |--------------|----------------------------------------------|-------------------|---------------------|
# | "added"      | l + (lambda/2) m^2                           | that of lambda    | that of l           |
# | "divided"    | [l + (lambda/2) m^2] / max(1, lambda)        | that of lambda    | max(1, lambda) long |
# | "multiplied" | (lambda/2) [l + m^2]                         | that of 2, always | 2/lambda long       |
#
# "added" is the formula of the paper. "divided" is the scaling of code derived from invariant risk minimisation, which keeps
# gradients in range: the minimiser of "added" at a smaller step size. "multiplied" is the scaling of the paper's code for
# coloured digits after a delay: the coefficient multiplies loss *and* penalty, so that it only scales the step size (which
# Adam undoes), and the strength of the penalty relative to the loss does not depend on it. If loss and penalty are both
# summed over n samples, lambda is the same as if both are averaged; a mean loss with a summed penalty has n lambda.

SCALINGS = ("added", "divided", "multiplied")


class SpectralDecoupling(Modified):
    """scale [l(m) + (penalty/2) (m - target)^2], with residual scale [g(m) - penalty (m - target)].

    `loss`: l, a loss or its name; `penalty`: lambda >= 0, one number, or one per sample, [n], with 0 for a sample without
    penalty; `target`: the margin the penalty pulls to, a number or [n], default 0; `scaling`: "added", "divided" (by
    max(1, lambda), of the largest lambda) or "multiplied" ((lambda/2) [l + (m - target)^2], a single lambda).

    [n] is the order of the points of the `Dataset`, or of the rows of `types` for `theory.feature_flow`; the samples are the
    last axis of margins. The fields hold the result: `penalty` and `scale` are those of the formula above. `ValueError` for
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

    penalty: Float[Array, "..."]
    target: Float[Array, "..."]
    scale: Float[Array, ""]
    name = _loss_and("spectral decoupling")

    def __init__(self, loss: Loss | str, penalty: Any, target: Any = 0.0, scaling: str = "added") -> None:
        self.loss = as_loss(loss)
        if isinstance(self.loss, SpectralDecoupling):
            raise ValueError("loss is penalised already; give its own loss, and one penalty for both")
        penalty, target = numbers_of_samples(penalty=penalty, target=target)
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
        """A penalty (lambda_y/2) (f - gamma_y)^2 with one lambda and one gamma for each class, as the paper uses for faces.

        `labels`: [n] of ±1; `penalty`, `target`: pairs (of class +, of class -), the target as a logit f, so that the
        margin of class - is pulled to -gamma_-.

        >>> loss = SpectralDecoupling.by_class("cross-entropy", [1, -1], penalty=(0.1, 0.2), target=(1.0, -3.0))
        >>> loss.penalty.round(1).tolist(), loss.target.tolist()
        ([0.10000000149011612, 0.20000000298023224], [1.0, 3.0])
        """
        labels, penalty, target = of_classes(labels, penalty=penalty, target=target)
        return cls(loss, penalty, labels * target, scaling)

    def value(self, margin: Margin) -> Margin:
        """scale [l(m) + (penalty/2) (m - target)^2]."""
        scale, penalty, target = self._numbers(margin, "scale", "penalty", "target")
        return scale * (self.loss.value(margin) + penalty * (margin - target) ** 2 / 2)

    def residual(self, margin: Margin) -> Margin:
        """scale [g(m) - penalty (m - target)]: negative, a pull back, for large margins."""
        scale, penalty, target = self._numbers(margin, "scale", "penalty", "target")
        return scale * (self.loss.residual(margin) - penalty * (margin - target))
