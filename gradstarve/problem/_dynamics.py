"""How the weights move: gradient flow, and dynamics in discrete steps.

Time t of the flow and step number k of descent are related by t = step_size * k. Hyperparameters are array leaves, so a
sweep over step sizes is one vmap. A step size may also be a schedule, a function of the step number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    LOSS_NAMES,
    as_flag,
    check_positive,
    is_concrete,
    positive_int,
    real_arrays,
    short_repr,
    shown,
    suggesting,
)
from gradstarve.problem._networks import Network

Scalar = Float[Array, "..."]
Same = TypeVar("Same", bound="Dynamics")
Stepping = TypeVar("Stepping", bound="Steps")

# Names of the arguments in torch, optax and papers.
_ALIASES = {name: "step_size" for name in ("lr", "learning_rate", "eta", "stepsize", "step")}
_ALIASES |= {"beta": "momentum", "mu": "momentum", "wd": "weight_decay", "decay": "weight_decay", "l2": "weight_decay"}
_ALIASES |= {"rho": "radius", "batch": "batch_size"}


class Schedule(eqx.Module):
    """A step size that changes: a `function` of the step number 0, 1, 2, ..., or its `values` at these steps.

    Every callable step size, such as a schedule of optax, becomes a `Schedule`. Solutions keep the function, and can be
    pickled if the function can; runs and sweeps keep its values.

    >>> Schedule(lambda step: 0.1 / (1 + step)).tabled(3, "float32").values.round(3).tolist()
    [0.10000000149011612, 0.05000000074505806, 0.032999999821186066]
    """

    function: Callable[[Any], Any] | None = eqx.field(static=True, default=None)
    values: Float[Array | np.ndarray, " steps"] | None = None

    __repr__ = short_repr

    def __call__(self, step: Any) -> Array:
        """The step size at `step`, an index of `values`."""
        assert self.values is not None
        return jnp.asarray(self.values)[step]

    def tabled(self, steps: int, dtype: Any) -> Schedule:
        """The schedule as its values at the first `steps` steps. `ValueError` unless every value is finite and >= 0."""
        if self.function is None:
            return self
        values = self._values(steps).astype(dtype)
        if is_concrete(values):
            known = np.asarray(values)
            off = np.flatnonzero(~(np.isfinite(known) & (known >= 0)))
            if off.size:
                raise ValueError(f"step_size, a schedule, must be >= 0 at every step, got {known[off[0]]} at step {off[0]}")
        return Schedule(None, values)

    def later(self, steps: int) -> Schedule:
        """The schedule from step number `steps` on, which becomes step 0."""
        if self.values is not None:
            return Schedule(None, self.values[steps:])
        function: Any = self.function
        return Schedule(lambda step: function(step + steps))

    def _values(self, steps: int) -> Array:
        assert self.function is not None
        count = max(steps, 1)
        try:
            values = jax.vmap(self.function)(jnp.arange(count))
        except Exception:
            # A function that needs Python numbers, such as one with an `if` on the step.
            values = jnp.stack([self._value(step) for step in range(count)])
        if getattr(values, "shape", None) != (count,):
            raise ValueError(f"step_size, a schedule, takes the step number and returns one number, got {shown(values)}")
        return values

    def _value(self, step: int) -> Array:
        assert self.function is not None
        try:
            (value,) = real_arrays(step_size=self.function(step))
            if value.shape:
                raise ValueError(f"its shape is {value.shape}")
        except Exception as error:
            why = f"at step {step} it raised {type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
            raise ValueError(f"step_size, a schedule, takes the step number and returns one number; {why}") from None
        return value


class Dynamics(eqx.Module):
    """How weights follow the gradient of the loss: the argument `dynamics` of `solve` and `simulate`."""

    __repr__ = short_repr

    def check_batch(self, batch: tuple[int, ...]) -> None:
        """`ValueError` if a field of the dynamics is neither one number nor an array with one number for each network."""
        for name in type(self).__dataclass_fields__:
            shape = getattr(getattr(self, name), "shape", ())
            if shape not in ((), batch):
                raise ValueError(f"{name} has shape {shape}, which is neither () nor the batch shape {batch} of the network")

    def spread(self: Same, shape: tuple[int, ...], dtype: Any) -> Same:
        """The same dynamics with every number broadcast to `shape` in `dtype`; a schedule stays a schedule."""

        def number(leaf: Any) -> Any:
            if not isinstance(leaf, Schedule):
                return jnp.broadcast_to(jnp.asarray(leaf, dtype), shape)
            return leaf if leaf.values is None else Schedule(None, jnp.asarray(leaf.values, dtype))

        return jax.tree.map(number, self, is_leaf=lambda leaf: isinstance(leaf, Schedule))


class Modes(eqx.Module):
    """The quantities of the modes that a step may use: the argument of `Steps.factors`, made by theory.

    Neuron j is described by a_j + z_j and a_j - z_j, with a_j the coordinate of w_j along its class.
    """

    @abstractmethod
    def pull(self, plus: Any = 1, minus: Any = 1) -> Float[Array, "*batch h"]:
        """p r g(u) of each neuron's class (0 without a class), after a_j + z_j and a_j - z_j are multiplied by these."""

    @abstractmethod
    def gradient_norm(self, pull: Float[Array, "*batch h"]) -> Float[Array, "*batch 1"]:
        """|grad L| = sqrt(sum_j pull_j^2 ((a_j + z_j)^2 + (a_j - z_j)^2)/2)."""


class Steps(Dynamics):
    """Dynamics in discrete steps. `update` is one step of the weights of a network, `factors` the same step of the modes.

    Training calls `update`, and the law (8.1) calls `factors`. To define your own dynamics, write a subclass with `update`,
    which `simulate` trains with; if it has `factors` too, it has a law, and `solve` accepts it. Fields are numbers, or
    arrays with one number for each network: `update` sees the numbers of one network, `factors` those of all networks,
    [*batch], so that `number[..., None]` broadcasts against neurons. `start(network)` is the memory of `update` at step 0.

    `step_size` > 0, or a schedule: a function of the step number, which may use `jax.numpy` or Python's `if`. `ValueError`
    otherwise.
    """

    step_size: Any = eqx.field(converter=lambda value: _step_size(value))

    @property
    def scheduled(self) -> bool:
        """Whether the step size changes."""
        return isinstance(self.step_size, Schedule)

    def tabled(self: Stepping, steps: int, dtype: Any) -> Stepping:
        """The same dynamics with a schedule replaced by its values at the first `steps` steps."""
        return self._with_schedule(lambda schedule: schedule.tabled(steps, dtype))

    def at(self: Stepping, step: Any) -> Stepping:
        """The same dynamics with the step size at `step`; a schedule must have its `values`."""
        return self._with_schedule(lambda schedule: schedule(step))

    def later(self: Stepping, steps: int) -> Stepping:
        """The same dynamics from step number `steps` on, which becomes step 0."""
        return self._with_schedule(lambda schedule: schedule.later(steps)) if steps else self

    def _with_schedule(self: Stepping, change: Callable[[Schedule], Any]) -> Stepping:
        """The same dynamics with `change(step_size)` as step size if the step size is a schedule; else unchanged."""
        if not self.scheduled:
            return self
        return eqx.tree_at(lambda dynamics: dynamics.step_size, self, change(self.step_size))

    def start(self, network: Network) -> Any:
        """The memory before step 0, such as velocities; None for dynamics without memory."""
        return None

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """The network and the memory after a step of one network; `gradient(network)` is the gradient of its loss."""
        raise ValueError(f"{type(self).__name__} says no step; define update(network, memory, gradient) in a subclass")

    def factors(self, modes: Modes) -> tuple[Float[Array, "*batch h"], Float[Array, "*batch h"]]:
        """(F+, F-), the factors by which a step multiplies a_j + z_j and a_j - z_j of every neuron (section 17)."""
        raise ValueError(f"{type(self).__name__} has no law; define factors(modes) in the class")

    @property
    def has_law(self) -> bool:
        """Whether `factors` is defined, so that `solve` accepts these dynamics."""
        return type(self).factors is not Steps.factors


class GradientFlow(Dynamics):
    """d(weights)/dt = -grad L: the limit of descent for small steps, in units t = step_size * step.

    >>> GradientFlow()
    GradientFlow()
    """


class GradientDescent(Steps):
    """Full-batch descent. With g_k = grad L + weight_decay * weights, v_k = momentum * v_(k-1) + g_k:

    weights <- weights - step_size * v_k, or with `nesterov` weights <- weights - step_size * (g_k + momentum * v_k).

    `step_size` > 0, or a schedule of the step number, such as one of optax; 0 <= `momentum` < 1; `weight_decay` >= 0;
    `read_out_step_size` > 0, the step size of the read-out z if it differs: `ValueError` otherwise. Values traced by jit,
    vmap or grad are not checked.

    >>> float(GradientDescent(0.5).step_size)
    0.5
    """

    momentum: Scalar
    weight_decay: Scalar
    nesterov: bool = eqx.field(static=True)
    read_out_step_size: Scalar | None

    @suggesting(**_ALIASES)
    def __init__(
        self,
        step_size: Any,
        momentum: Any = 0.0,
        nesterov: bool = False,
        weight_decay: Any = 0.0,
        read_out_step_size: Any = None,
    ) -> None:
        self.step_size = _step_size(step_size)
        # A known zero stays known inside jit: the laws without momentum and weight decay are cheaper and more general.
        with jax.ensure_compile_time_eval():
            (self.momentum,) = real_arrays(momentum=momentum)
            (self.weight_decay,) = real_arrays(weight_decay=weight_decay)
        self.nesterov = as_flag("nesterov", nesterov)
        if is_concrete(self.momentum) and not _within(self.momentum, 0.0, 1.0):
            raise ValueError(f"momentum must be in [0, 1), got {shown(momentum)}")
        if is_concrete(self.weight_decay) and not _within(self.weight_decay, 0.0, np.inf):
            raise ValueError(f"weight_decay must be >= 0, got {shown(weight_decay)}")
        self.read_out_step_size = None if read_out_step_size is None else _number("read_out_step_size", read_out_step_size)
        if self.read_out_step_size is not None and self.scheduled:
            raise ValueError("step_size, a schedule, is for all layers; give a number with read_out_step_size")

    def start(self, network: Network) -> Network:
        """Velocities of zero."""
        return jax.tree.map(jnp.zeros_like, network)

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the rule of the class."""
        decayed = jax.tree.map(lambda g, theta: g + self.weight_decay * theta, gradient(network), network)
        velocity = jax.tree.map(lambda v, g: self.momentum * v + g, memory, decayed)
        push = velocity
        if self.nesterov:
            push = jax.tree.map(lambda v, g: g + self.momentum * v, velocity, decayed)
        if self.read_out_step_size is None:
            return jax.tree.map(lambda theta, v: theta - self.step_size * v, network, push), velocity
        rates = network.by_layer(self.step_size, self.read_out_step_size)
        return jax.tree.map(lambda theta, rate, v: theta - rate * v, network, rates, push), velocity

    def factors(self, modes: Modes) -> tuple[Array, Array]:
        """1 - step_size weight_decay ± step_size p r g(u), without momentum and with one step size for all layers (8.1)."""
        step_size = self.step_size[..., None]
        pushed = step_size * modes.pull()
        left = 1 - step_size * self.weight_decay[..., None]
        return left + pushed, left - pushed


class NormalizedGradientDescent(Steps):
    """Steps of length step_size: weights <- weights - step_size * grad L / |grad L|, the norm over all weights of a network.

    Weights do not move if the gradient is zero. `step_size` > 0, or a schedule; `ValueError` otherwise.

    >>> float(NormalizedGradientDescent(0.5).step_size)
    0.5
    """

    @suggesting(**_ALIASES)
    def __init__(self, step_size: Any) -> None:
        self.step_size = _step_size(step_size)

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the rule above."""
        descent = gradient(network)
        scale = _ratio(self.step_size, _norm(descent))
        return jax.tree.map(lambda theta, g: theta - scale * g, network, descent), memory

    def factors(self, modes: Modes) -> tuple[Array, Array]:
        """1 ± step_size p r g(u) / |grad L| (17.2)."""
        pull = modes.pull()
        pushed = _ratio(self.step_size[..., None], modes.gradient_norm(pull)) * pull
        return 1 + pushed, 1 - pushed


class SharpnessAware(Steps):
    """Sharpness-aware minimisation: weights <- weights - step_size * grad L(weights + radius * grad L / |grad L|).

    Foret et al. (2021), arXiv:2010.01412, the norm over all weights of a network. `step_size` > 0, or a schedule; `radius`
    >= 0; `ValueError` otherwise.

    >>> float(SharpnessAware(0.5, radius=0.1).radius)
    0.10000000149011612
    """

    radius: Scalar

    @suggesting(**_ALIASES)
    def __init__(self, step_size: Any, radius: Any) -> None:
        self.step_size = _step_size(step_size)
        (self.radius,) = real_arrays(radius=radius)
        if is_concrete(self.radius) and not _within(self.radius, 0.0, np.inf):
            raise ValueError(f"radius must be >= 0, got {shown(radius)}")

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the rule above."""
        uphill = gradient(network)
        scale = _ratio(self.radius, _norm(uphill))
        there = jax.tree.map(lambda theta, g: theta + scale * g, network, uphill)
        return jax.tree.map(lambda theta, g: theta - self.step_size * g, network, gradient(there)), memory

    def factors(self, modes: Modes) -> tuple[Array, Array]:
        """1 ± step_size e (1 ∓ d): d = radius p r g(u) / |grad L|, and e = p r g at the perturbed weights (17.4)."""
        here = modes.pull()
        moved = _ratio(self.radius[..., None], modes.gradient_norm(here)) * here
        pushed = self.step_size[..., None] * modes.pull(1 - moved, 1 + moved)
        return 1 + pushed * (1 - moved), 1 - pushed * (1 + moved)


class SignDescent(Steps):
    """Every weight moves by step_size against the sign of its gradient; a weight with gradient zero does not move.

    Adam and RMSProp with beta = 0 and eps = 0. `step_size` > 0, or a schedule; `ValueError` otherwise. The law of these
    steps is (17.6); it has no two factors, because a mode grows by addition.

    >>> float(SignDescent(0.5).step_size)
    0.5
    """

    @suggesting(**_ALIASES)
    def __init__(self, step_size: Any) -> None:
        self.step_size = _step_size(step_size)

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the rule above."""
        return jax.tree.map(lambda theta, g: theta - self.step_size * jnp.sign(g), network, gradient(network)), memory


class StochasticGradientDescent(Steps):
    """Descent on `batch_size` random points a step, each drawn with probability equal to its weight, with replacement.

    weights <- weights - step_size * (the mean of grad l over the drawn points). `step_size` > 0, or a schedule; `batch_size`
    an integer >= 1: `ValueError` otherwise (a traced step size is not checked).

    >>> float(StochasticGradientDescent(0.25).step_size)
    0.25
    """

    batch_size: int = eqx.field(static=True)

    @suggesting(**_ALIASES)
    def __init__(self, step_size: Any, batch_size: int = 1) -> None:
        self.step_size = _step_size(step_size)
        self.batch_size = positive_int("batch_size", batch_size)

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the `gradient` of the drawn points."""
        return jax.tree.map(lambda theta, g: theta - self.step_size * g, network, gradient(network)), memory


def _norm(gradient: Network) -> Array:
    """|gradient| over all weights, without squares that overflow or underflow."""
    leaves = jax.tree.leaves(gradient)
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in leaves]))
    unit = jnp.where(largest > 0, largest, 1)
    return unit * jnp.sqrt(sum(jnp.sum((leaf / unit) ** 2) for leaf in leaves) + (largest <= 0)) * (largest > 0)


def _ratio(length: Array, norm: Array) -> Array:
    """length / norm; 0 where the norm is 0."""
    return jnp.where(norm > 0, length / jnp.where(norm > 0, norm, 1), 0)


def _within(values, low: float, high: float) -> bool:
    known = np.asarray(values)
    return bool(((known >= low) & (known < high)).all())


def _step_size(value: Any) -> Any:
    if isinstance(value, Schedule):
        return value
    if isinstance(value, Dynamics) or (hasattr(value, "init") and hasattr(value, "update")):
        what = "dynamics" if isinstance(value, Dynamics) else "an optimiser of optax, which simulate(...) takes itself"
        raise ValueError(f"step_size must be a number or a schedule, got {type(value).__name__}, {what}")
    if callable(value) and not hasattr(value, "shape"):
        # A module that holds arrays cannot be a static constant of a program; a function that calls the module can.
        function: Any = value
        schedule = Schedule((lambda step: function(step)) if isinstance(value, eqx.Module) else function)
        schedule.tabled(1, jnp.zeros(()).dtype)
        return schedule
    return _number("step_size", value)


def _number(name: str, value: Any) -> Array:
    with jax.ensure_compile_time_eval():
        (number,) = real_arrays(**{name: value})
    check_positive(name, number)
    return number


def no_dynamics(accepted: str, given: Any) -> ValueError:
    """The error for `given`, which is not among the `accepted` dynamics, with a guess at the intended call.

    >>> print(no_dynamics("GradientFlow() or GradientDescent(...)", 0.1))
    dynamics must be GradientFlow() or GradientDescent(...), got 0.1; for that step size give GradientDescent(0.1)
    >>> print(no_dynamics("GradientFlow() or GradientDescent(...)", GradientDescent))
    dynamics is the class GradientDescent; give an instance, GradientDescent(step_size)
    """
    if isinstance(given, type) and issubclass(given, Dynamics):
        numbers = "step_size" if hasattr(given, "step_size") or "step_size" in given.__dataclass_fields__ else ""
        return ValueError(f"dynamics is the class {given.__name__}; give an instance, {given.__name__}({numbers})")
    meant = ""
    if isinstance(given, int | float) and not isinstance(given, bool) and abs(given) < 1e6:
        meant = f"; for that step size give GradientDescent({given!r})"
    elif hasattr(given, "residual") or (isinstance(given, str) and given in LOSS_NAMES):
        meant = f"; a loss comes before the dynamics: {ORDER}"
    elif hasattr(given, "init") and hasattr(given, "update"):
        meant = "; simulate(...) trains by an optimiser of optax"
    elif callable(given):
        meant = "; for that schedule give GradientDescent(schedule)"
    return ValueError(f"dynamics must be {accepted}, got {shown(given)}{meant}")


ORDER = "the order is (data, network, loss, dynamics), of a mode (mode, loss, dynamics)"


def is_dynamics(value: Any) -> bool:
    """Whether `value` is a `Dynamics`, a class of dynamics, or an optimiser of optax."""
    if isinstance(value, type):
        return issubclass(value, Dynamics)
    return isinstance(value, Dynamics) or (hasattr(value, "init") and hasattr(value, "update"))
