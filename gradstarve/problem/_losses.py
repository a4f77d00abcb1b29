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

import inspect
from functools import cached_property
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    did_you_mean,
    short_repr,
    shown,
    warn_deprecated,
)
from gradstarve.problem._dynamics import ORDER, is_dynamics
from gradstarve.special import CLOCKS, Clock, ConstantClock, ExponentialClock, LinearClock, QuadratureClock, as_clock

Margin = Float[Array, "*shape"]


_FACTS = ("least", "clock", "offset", "stops", "pulls_back", "inverse", "reciprocal", "margin_at", "at_error")


def _home(cls: type, name: str) -> type:
    """The class in the method resolution order of `cls` that defines the attribute or the field `name`."""
    # `__annotations__` of a class without annotations is that of its parent.
    return next(one for one in cls.__mro__ if name in one.__dict__ or name in inspect.get_annotations(one))


class Loss(eqx.Module):
    """A loss of the margin: `value(m)` is l(m), `residual(m)` is g(m) = -l'(m); both elementwise, any shape.

    A loss of your own needs only these two methods to work in `solve_mode`, `solve`, `simulate`, `simulate_flow` and
    `theory.feature_flow`: without a closed form, the flow is a quadrature of (3.5), as exact as the closed forms of the
    named losses. Numbers of the loss are fields, and results are differentiable in the fields that are arrays. A float field
    becomes an array, so that a new value needs no new compilation, unless a method branches on the field with `if`.
    Optional attributes:

    - `rest`: the first zero of g, where a logit comes to rest; inf if g has no zero. With None, the default, the zero is
      searched for above the start (below it where g < 0); derivatives in a rest at which g jumps need an explicit `rest`.
    - `kinks`: the margins at which g or a derivative of g jumps. A kink that is missing here costs time and digits.
    - `name`: the name in messages; by default the class name, also for a subclass with another `residual` or `value`.
    - `least`: a lower bound of l; None, the default, if no bound is known.

    Facts about g that closed forms need. A loss that states such a fact is solved by its closed form; a subclass with
    another `residual` or `value` inherits none of these facts and states its own.

    - `clock`: the clock of g, for which (3.5) is in closed form: an object such as `special.ExponentialClock(1.0)`, or its
      name in `gradstarve.special.clock_integral`; None, the default, for a quadrature;
    - `offset`: c, where g(m) = 1/(c + e^m);
    - `stops`: whether g jumps to 0 at the rest and stays there; `pulls_back`: whether g < 0 beyond the rest;
    - `inverse(residual)`: the margin at which g equals `residual`; `reciprocal(margin)`: 1/g below the rest;
    - `margin_at(level)`: the margin above which l is at most `level`; `at_error(error)`: l at the margin whose error
      sigmoid(-m) is `error` (late in training the error has more digits than the margin).

    >>> import jax
    >>> class Smoothed(Loss):
    ...     share: float
    ...     def value(self, margin):
    ...         return jax.nn.softplus(-margin) + self.share * margin
    ...     def residual(self, margin):
    ...         return jax.nn.sigmoid(-margin) - self.share
    >>> from gradstarve.theory import solve_mode
    >>> from gradstarve.problem import Mode
    >>> solution = solve_mode(Mode(0.5, 1.0, a=[0.3], z=[0.3]), Smoothed(0.1))
    >>> round(float(solution.logit(1e3)), 4)                          # comes to rest at log((1 - 0.1)/0.1)
    2.1972
    """

    __repr__ = short_repr

    name: ClassVar[str]
    rest: ClassVar[Any] = None
    kinks: ClassVar[Any] = ()
    least: ClassVar[float | None] = None
    clock: ClassVar[Clock | str | None] = None
    offset: ClassVar[Any] = None
    stops: ClassVar[bool] = False
    pulls_back: ClassVar[bool] = False
    inverse: ClassVar[Any] = None
    reciprocal: ClassVar[Any] = None
    margin_at: ClassVar[Any] = None
    at_error: ClassVar[Any] = None

    def __init_subclass__(cls, **options) -> None:
        super().__init_subclass__(**options)

        def is_foreign(fact: str) -> bool:
            """Whether the class that states `fact` has another g or l, so that the fact need not hold for `cls`."""
            stated = _home(cls, fact)
            return any(_home(cls, method) is not _home(stated, method) for method in ("residual", "value"))

        if is_foreign("name"):
            cls.name = cls.__name__
        for fact in _FACTS:
            if _home(cls, fact) is not Loss and is_foreign(fact):
                setattr(cls, fact, Loss.__dict__[fact])

    def value(self, margin: Margin) -> Margin:
        """l(m), elementwise."""
        raise NotImplementedError

    def residual(self, margin: Margin) -> Margin:
        """g(m) = -l'(m), elementwise."""
        raise NotImplementedError

    def at(self, index) -> Loss:
        """The loss of the samples at `index` alone: the loss itself, unless its numbers differ from sample to sample."""
        return self


class CrossEntropy(Loss):
    """l(m) = log(1 + e^-m), g(m) = 1/(1 + e^m): logistic loss on labels ±1, P(y=+1|x) = sigmoid(f(x)).

    >>> import jax.numpy as jnp
    >>> float(CrossEntropy().residual(jnp.array(0.0)))
    0.5
    """

    name: ClassVar[str] = "cross-entropy"
    rest: ClassVar[Any] = np.inf
    least: ClassVar[float | None] = 0.0
    clock: ClassVar[Clock | str | None] = ExponentialClock(1.0)
    offset: ClassVar[Any] = 1.0

    def value(self, margin: Margin) -> Margin:
        """log(1 + e^-m), without overflow and with full relative accuracy for large m."""
        return jax.nn.softplus(-margin)

    def residual(self, margin: Margin) -> Margin:
        """sigmoid(-m)."""
        return jax.nn.sigmoid(-margin)

    def inverse(self, residual: Margin) -> Margin:
        """log(1/g - 1)."""
        return jnp.log1p(-residual) - jnp.log(residual)

    def reciprocal(self, margin: Margin) -> Margin:
        """1 + e^m."""
        return 1 + jnp.exp(margin)

    def margin_at(self, level: Margin) -> Margin:
        """-log(e^l - 1), without overflow and without cancellation; inf at l = 0."""
        some = level > 0
        level = jnp.where(some, level, 1)
        near = level < 0.5
        small = jnp.log(jnp.expm1(jnp.where(near, level, 0.5)))
        margin = -jnp.where(near, small, level + jnp.log1p(-jnp.exp(-jnp.where(near, 0.5, level))))
        return jnp.where(some, margin, jnp.inf)

    def at_error(self, error: Margin) -> Margin:
        """-log(1 - e)."""
        return -jnp.log1p(-error)


class Hinge(Loss):
    """l(m) = max(0, 1 - m), g(m) = 1 where m < 1 and 0 from m = 1 on (the kink itself belongs to the flat side).

    >>> import jax.numpy as jnp
    >>> Hinge().residual(jnp.array([0.0, 1.0])).tolist()
    [1.0, 0.0]
    """

    name: ClassVar[str] = "hinge"
    rest: ClassVar[Any] = 1.0
    kinks: ClassVar[Any] = (1.0,)
    least: ClassVar[float | None] = 0.0
    clock: ClassVar[Clock | str | None] = ConstantClock()
    stops: ClassVar[bool] = True

    def value(self, margin: Margin) -> Margin:
        """max(0, 1 - m); its derivative at m = 1 is 0, in agreement with `residual`."""
        # jnp.maximum would give the kink the derivative -1/2, the derivative of neither side.
        return jnp.where(margin < 1, 1 - margin, 0)

    def residual(self, margin: Margin) -> Margin:
        """1 where m < 1, else 0."""
        return jnp.where(margin < 1, jnp.ones_like(margin), jnp.zeros_like(margin))

    def inverse(self, residual: Margin) -> Margin:
        """1, the margin at which g takes every value between 0 and 1."""
        return jnp.ones_like(residual)

    def reciprocal(self, margin: Margin) -> Margin:
        """1, below the rest."""
        return jnp.ones_like(margin)

    def margin_at(self, level: Margin) -> Margin:
        """1 - l; inf for a level below 0."""
        return jnp.where(level >= 0, 1 - level, jnp.inf)


class Exponential(Loss):
    """l(m) = g(m) = e^-m.

    >>> import jax.numpy as jnp
    >>> float(Exponential().value(jnp.array(0.0)))
    1.0
    """

    name: ClassVar[str] = "exponential"
    rest: ClassVar[Any] = np.inf
    least: ClassVar[float | None] = 0.0
    clock: ClassVar[Clock | str | None] = ExponentialClock(0.0)
    offset: ClassVar[Any] = 0.0

    def value(self, margin: Margin) -> Margin:
        """e^-m."""
        return jnp.exp(-margin)

    def residual(self, margin: Margin) -> Margin:
        """e^-m."""
        return jnp.exp(-margin)

    def inverse(self, residual: Margin) -> Margin:
        """-log g."""
        return -jnp.log(residual)

    def reciprocal(self, margin: Margin) -> Margin:
        """e^m."""
        return jnp.exp(margin)

    def margin_at(self, level: Margin) -> Margin:
        """-log l; inf at l = 0."""
        some = level > 0
        return jnp.where(some, -jnp.log(jnp.where(some, level, 1)), jnp.inf)

    def at_error(self, error: Margin) -> Margin:
        """e/(1 - e)."""
        return error / (1 - error)


class SquaredMargin(Loss):
    """l(m) = (1 - m)^2 / 2, g(m) = 1 - m: regression of the margin on 1. The only one of the four that pulls a margin back.

    >>> import jax.numpy as jnp
    >>> float(SquaredMargin().residual(jnp.array(3.0)))
    -2.0
    """

    name: ClassVar[str] = "squared"
    rest: ClassVar[Any] = 1.0
    least: ClassVar[float | None] = 0.0
    clock: ClassVar[Clock | str | None] = LinearClock()
    pulls_back: ClassVar[bool] = True

    def value(self, margin: Margin) -> Margin:
        """(1 - m)^2 / 2."""
        return (1 - margin) ** 2 / 2

    def residual(self, margin: Margin) -> Margin:
        """1 - m."""
        return 1 - margin

    def inverse(self, residual: Margin) -> Margin:
        """1 - g."""
        return 1 - residual

    def reciprocal(self, margin: Margin) -> Margin:
        """1/(1 - m)."""
        return 1 / (1 - margin)

    def margin_at(self, level: Margin) -> Margin:
        """1 - sqrt(2 l), the smaller of the two margins with loss l; 1 for l <= 0."""
        some = level > 0
        return jnp.where(some, 1 - jnp.sqrt(2 * jnp.where(some, level, 1)), 1)


LOSSES: dict[str, type[Loss]] = {cls.name: cls for cls in (CrossEntropy, Hinge, Exponential, SquaredMargin)}


def as_loss(loss) -> Loss:
    """`loss` itself, or the loss of that name; `ValueError` lists the names for anything else.

    >>> as_loss("hinge").name
    'hinge'
    """
    if isinstance(loss, Loss):
        return _with_arrays(loss)
    if isinstance(loss, str) and loss in LOSSES:
        return LOSSES[loss]()
    if isinstance(loss, type) and issubclass(loss, Loss):
        raise ValueError(f"loss is the class {loss.__name__}; give an instance, {loss.__name__}()")
    if is_dynamics(loss):
        name = loss.__name__ if isinstance(loss, type) else type(loss).__name__
        raise ValueError(f"loss is a {name}, which is a dynamics: {ORDER}; or give dynamics= by name")
    names = f"use one of {', '.join(map(repr, LOSSES))} or a Loss instance"
    raise ValueError(f"unknown loss {shown(loss)}; {names}{did_you_mean(loss, LOSSES)}")


def _with_arrays(loss: Loss) -> Loss:
    """`loss` with its floats as arrays, so that a new value needs no new program; unchanged if a method branches on one."""
    floats, others = eqx.partition(loss, lambda leaf: type(leaf) is float)
    if not jax.tree.leaves(floats):
        return loss
    lifted = eqx.combine(jax.tree.map(jnp.asarray, floats), others)

    def ask(loss, name, margin):
        answer = getattr(loss, name)
        if name in ("residual", "value"):
            answer(margin)

    for name in ("residual", "value", "rest", "kinks", *_FACTS):
        try:
            eqx.filter_eval_shape(ask, lifted, name, jax.ShapeDtypeStruct((), jnp.result_type(float)))
        except jax.errors.JAXTypeError:
            return loss
        except Exception:  # a method that the loss does not define, and that may never be called
            continue
    return lifted


def clock_of(loss) -> Clock:
    """The clock (3.5) of `loss`: the closed form that the loss states, or a quadrature of its residual.

    >>> class Steep(Hinge):
    ...     def residual(self, margin):
    ...         return 3 * super().residual(margin)
    >>> clock_of("hinge"), type(clock_of(Steep())).__name__
    (ConstantClock(), 'QuadratureClock')
    """
    loss = as_loss(loss)
    return QuadratureClock(loss) if loss.clock is None else as_clock(loss.clock)


@jax.tree_util.register_pytree_node_class
class JitLoss:
    """A loss as an argument of `jax.jit`: its arrays are leaves, and everything else in the loss is static.

    >>> jax.jit(lambda held: held.loss.residual(jnp.array(2.0)))(JitLoss(SquaredMargin())).item()
    -1.0
    """

    def __init__(self, loss: Loss) -> None:
        leaves, structure = jax.tree.flatten(loss)
        self.arrays = [leaf if eqx.is_array(leaf) else None for leaf in leaves]
        self.others = structure, tuple(None if eqx.is_array(leaf) else leaf for leaf in leaves)

    @cached_property
    def loss(self) -> Loss:
        """The loss itself."""
        structure, others = self.others
        pairs = zip(self.arrays, others, strict=True)
        return structure.unflatten([other if array is None else array for array, other in pairs])

    @cached_property
    def clock(self) -> Clock:
        """The clock of the loss."""
        return clock_of(self.loss)

    def tree_flatten(self) -> tuple[Any, Any]:
        """The arrays, and everything else."""
        return self.arrays, self.others

    @classmethod
    def tree_unflatten(cls, others: Any, arrays: Any) -> JitLoss:
        """The inverse of `tree_flatten`."""
        held = object.__new__(cls)
        held.arrays, held.others = arrays, others
        return held

    def __reduce__(self) -> tuple:  # the structure of a tree is not pickled
        return JitLoss, (self.loss,)

    def __repr__(self) -> str:
        return f"JitLoss({self.loss!r})"


def closed_form_of(loss) -> str | None:
    """The name of `loss.clock`; None for a loss without a closed form."""
    warn_deprecated("closed_form_of(loss)", "loss.clock")
    clock = clock_of(loss)
    return next((name for name, one in CLOCKS.items() if one == clock), None)


def with_closed_form(loss) -> Loss:
    """`as_loss(loss)`; `HypothesisError` unless its clock is in closed form, for laws that hold for such losses only.

    >>> with_closed_form("hinge").name
    'hinge'
    """
    loss = as_loss(loss)
    if clock_of(loss) not in CLOCKS.values():
        raise HypothesisError(
            f"the closed form is for the losses {', '.join(LOSSES)}",
            f"loss = {getattr(loss, 'name', '')!r} of type {type(loss).__name__}",
            "the curves of solve(...) and solve_mode(...), whose laws of flow (3.5) and descent (8.1) take any loss, "
            "theory.feature_flow (10.1), simulate(...) or simulate_flow(...)",
        )
    return loss
