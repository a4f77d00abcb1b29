"""How the weights move: gradient flow, gradient descent, and descent on one random point a step.

Time t of the flow and step number k of descent are related by t = step_size * k. Hyperparameters are array leaves, so a
sweep over step sizes is one vmap.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import LOSS_NAMES, as_flag, check_positive, is_concrete, real_arrays, short_repr, shown, suggesting

Scalar = Float[Array, "..."]

# What torch, optax and papers call them.
_ALIASES = {name: "step_size" for name in ("lr", "learning_rate", "eta", "stepsize", "step")}
_ALIASES |= {"beta": "momentum", "mu": "momentum", "wd": "weight_decay", "decay": "weight_decay", "l2": "weight_decay"}


class Dynamics(eqx.Module):
    """What `solve` and `simulate` take to say how weights follow the gradient of the loss."""

    __repr__ = short_repr

    def check_batch(self, batch: tuple[int, ...]) -> None:
        """`ValueError` where a number of the dynamics is neither one nor one a network of the `batch`."""
        for name in ("step_size", "momentum", "weight_decay"):
            shape = getattr(self, name, np.zeros(())).shape
            if shape not in ((), batch):
                raise ValueError(f"{name} has shape {shape}, which is neither () nor the batch shape {batch} of the network")


class GradientFlow(Dynamics):
    """d(weights)/dt = -grad L: the limit of descent for small steps, in units t = step_size * step.

    >>> GradientFlow()
    GradientFlow()
    """


class GradientDescent(Dynamics):
    """Full-batch descent. With g_k = grad L + weight_decay * weights, v_k = momentum * v_(k-1) + g_k:

    weights <- weights - step_size * v_k, or with `nesterov` weights <- weights - step_size * (g_k + momentum * v_k).

    `step_size` > 0, 0 <= `momentum` < 1, `weight_decay` >= 0; `ValueError` otherwise. What is traced,
    inside jit, vmap and grad, is not checked.

    >>> float(GradientDescent(0.5).step_size)
    0.5
    """

    step_size: Scalar
    momentum: Scalar
    weight_decay: Scalar
    nesterov: bool = eqx.field(static=True)

    @suggesting(**_ALIASES)
    def __init__(self, step_size: Any, momentum: Any = 0.0, nesterov: bool = False, weight_decay: Any = 0.0) -> None:
        self.step_size = _step_size(step_size)
        # A known zero stays known inside jit: the laws without momentum and weight decay are cheaper and hold for more.
        with jax.ensure_compile_time_eval():
            (self.momentum,) = real_arrays(momentum=momentum)
            (self.weight_decay,) = real_arrays(weight_decay=weight_decay)
        self.nesterov = as_flag("nesterov", nesterov)
        if is_concrete(self.momentum) and not _within(self.momentum, 0.0, 1.0):
            raise ValueError(f"momentum must be in [0, 1), got {shown(momentum)}")
        if is_concrete(self.weight_decay) and not _within(self.weight_decay, 0.0, np.inf):
            raise ValueError(f"weight_decay must be >= 0, got {shown(weight_decay)}")


class StochasticGradientDescent(Dynamics):
    """Descent on one point a step, drawn with probability equal to its weight; `step_size` > 0 (not checked where traced).

    >>> float(StochasticGradientDescent(0.25).step_size)
    0.25
    """

    step_size: Scalar

    @suggesting(**_ALIASES)
    def __init__(self, step_size) -> None:
        self.step_size = _step_size(step_size)


def _within(values, low: float, high: float) -> bool:
    known = np.asarray(values)
    return bool(((known >= low) & (known < high)).all())


def _step_size(value) -> Array:
    with jax.ensure_compile_time_eval():
        (step_size,) = real_arrays(step_size=value)
    check_positive("step_size", step_size)
    return step_size


def no_dynamics(accepted: str, given: Any) -> ValueError:
    """The error for `given`, which is none of the `accepted` dynamics, with what may be meant by it.

    >>> print(no_dynamics("GradientFlow() or GradientDescent(...)", 0.1))
    dynamics must be GradientFlow() or GradientDescent(...), got 0.1; for that step size give GradientDescent(0.1)
    >>> print(no_dynamics("GradientFlow() or GradientDescent(...)", GradientDescent))
    dynamics is the class GradientDescent; give an instance, GradientDescent(step_size)
    """
    if isinstance(given, type) and issubclass(given, Dynamics):
        numbers = "step_size" if hasattr(given, "step_size") or "step_size" in given.__dataclass_fields__ else ""
        return ValueError(f"dynamics is the class {given.__name__}; give an instance, {given.__name__}({numbers})")
    meant = ""
    if isinstance(given, int | float) and not isinstance(given, bool):
        meant = f"; for that step size give GradientDescent({given!r})"
    elif hasattr(given, "residual") or (isinstance(given, str) and given in LOSS_NAMES):
        meant = f"; a loss comes before the dynamics: {ORDER}"
    elif hasattr(given, "init") and hasattr(given, "update"):
        meant = "; simulate(...) trains by an optimiser of optax"
    return ValueError(f"dynamics must be {accepted}, got {shown(given)}{meant}")


ORDER = "the order is (data, network, loss, dynamics), of a mode (mode, loss, dynamics)"


def is_dynamics(value: Any) -> bool:
    """Whether `value` says how weights move: a `Dynamics`, one of their classes, or an optimiser of optax."""
    if isinstance(value, type):
        return issubclass(value, Dynamics)
    return isinstance(value, Dynamics) or (hasattr(value, "init") and hasattr(value, "update"))
