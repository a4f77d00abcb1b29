"""Gradient descent solved step by step without error (8.1), (8.2): an equality with training, not its small-step limit.

With p_j = a_j + z_j and q_j = a_j - z_j, one step of size eta multiplies every p_j of a class by 1 + c and every q_j by
1 - c, c = eta p r g(u), u = r (sum p_j^2 - sum q_j^2) / 4: two numbers per class move any network of any width in any
dimension. The sign of a_j = (p_j + q_j)/2 after each step decides over which neurons a class sums.

Any dynamics whose step multiplies the p_j and q_j of a class by two factors F+ and F- have a law of this kind (17):
normalised descent, sharpness-aware steps, schedules; a step size for each layer has its own (17.3).

A neuron of a leaky ReLU of slope al has the activity al on the other class: it is driven by p r g(u) of its class plus al
times that of the other one, and counts in both logits with the same weights (22.1).

Weight decay lambda makes the factors 1 - eta lambda ± c. With momentum p_j and q_j have velocities P_j and Q_j, P_j <-
momentum P_j + (lambda - c/eta) p_j, p_j <- p_j - eta P_j, and likewise Q_j with lambda + c/eta. All neurons
of a class share these recurrences, but a neuron that leaves its class keeps its velocity, coasts, and may come back: so
every neuron has its own p_j and q_j here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    as_goal,
    check_normal_size,
    is_concrete,
    log_sum,
    positive_int,
    quick_jit,
    readable,
    shown,
)
from gradstarve.problem import Hinge, Loss, Mode, ModeCurve, Modes, Steps


class StepLaw(eqx.Module):
    """The law of one class, or of several that share a step, under dynamics in discrete steps.

    `frequency`, `norm`: [classes, *batch]. Neurons have a signed coordinate a_j: class c sums over those with
    `signs`[c] a_j > 0, and with `home` [*batch, h], where neurons keep to their class, over those with `signs`[c] home_j > 0
    among them. With a leaky ReLU of this `slope` (and without `home`), the other neurons count with the weight `slope`
    (22.1). The numbers of `dynamics` are [*batch]. A subclass defines the state.
    """

    loss_function: Loss
    dynamics: Any
    frequency: Float[Array, "classes *batch"]
    norm: Float[Array, "classes *batch"]
    home: Float[Array, "*batch h"] | None
    signs: tuple[int, ...] = eqx.field(static=True)
    slope: float = eqx.field(static=True, kw_only=True, default=0.0)

    @property
    def first(self) -> tuple:
        """The state at step 0."""
        raise NotImplementedError

    def coordinates_of(self, state: tuple) -> tuple[Array, Array]:
        """(a_j, z_j), each [*batch, h], in the orientation of the signs; a state begins with them."""
        return state[:2]

    def logits_of(self, state: tuple) -> Array:
        """u = r sum a_j z_j of each class, [classes, *batch]."""
        a, z = self.coordinates_of(state)
        return self.norm * jnp.sum(self._weighed(a * z, self._members(a)), axis=-1)

    def step(self, state: tuple) -> tuple:
        """The state a step later."""
        raise NotImplementedError

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes of networks."""
        return self.norm.shape[1:]

    @property
    def dtype(self) -> Any:
        """The precision of the weights."""
        return self.norm.dtype

    def _members(self, a: Array) -> Array:
        """Whether each neuron is in each class, [classes, *batch, h]."""
        inside = [sign * a > 0 for sign in self.signs]
        if self.home is not None:
            inside = [there & (sign * self.home > 0) for there, sign in zip(inside, self.signs, strict=True)]
        return jnp.stack(inside)

    def _weighed(self, values: Array, members: Array) -> Array:
        """The `values` of neurons for each class: unchanged for its members, times `slope` for other neurons."""
        return jnp.where(members, values, self.slope * values if self.slope else 0)

    def _pull(self, logits: Array, members: Array) -> Array:
        """p r g(u) of each neuron's class (0 without a class), plus `slope` times that of the other class: [*batch, h]."""
        pull = self.frequency * self.norm * self.loss_function.residual(logits)
        return jnp.sum(self._weighed(pull[..., None], members), axis=0)

    @property
    def start(self) -> Float[Array, "*batch h"]:
        """a_j at step 0."""
        return self.coordinates_of(self.first)[0]

    def remainder(self, steps) -> Float[Array, "..."]:
        """The factor by which weight decay has shrunk a weight that no point acts on, [*batch, *steps.shape]."""
        return jnp.ones((*self.batch_shape, *check_steps(steps).shape), self.dtype)

    def tabled(self, steps: int):
        """The same law with a schedule replaced by its values at the first `steps` steps."""
        if not self.dynamics.scheduled:
            return self
        return eqx.tree_at(lambda law: law.dynamics, self, self.dynamics.tabled(steps, self.dtype))

    def at(self, steps, read):
        """`read(law, state)` after each of `steps`, stacked in front: [steps.size, ...]; `ConvergenceError`
        if any value is not finite."""
        steps = check_steps(steps).reshape(-1)
        # Every stride-th state is kept; the stride divides all requested steps.
        stride = max(int(np.gcd.reduce(steps)), 1) if steps.size else 1
        last = int(steps.max(initial=0))
        values = _record(self.tabled(last), jnp.asarray(steps // stride), stride, last // stride, read)
        for value in jax.tree.leaves(values):
            if is_concrete(value) and not np.isfinite(np.asarray(value)).all():
                sick = ~np.isfinite(np.asarray(value)).all(axis=tuple(range(1, value.ndim)))
                first = steps[sick].min()
                if first == 0:
                    kind = np.dtype(value.dtype)
                    raise ValueError(f"weights are so large that their logits are beyond {kind}; give smaller ones")
                size = ""
                if not self.dynamics.scheduled:
                    size = f" with step_size = {np.asarray(self.dynamics.step_size).max():.6g}"
                raise ConvergenceError(
                    f"gradient descent diverges: weights are not finite at step {first}{size}; use a smaller step size"
                )
        return values

    def logits(self, steps) -> Float[Array, "..."]:
        """u per class at `steps`: [classes, *batch, *steps.shape]."""
        return _behind(self.at(steps, _read_logits), np.shape(steps), offset=0)

    def coordinates(self, steps) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at `steps`, in the orientation of the signs: each [*batch, *steps.shape, h]."""
        a, z = self.at(steps, _read_coordinates)
        return _behind(a, np.shape(steps), offset=1), _behind(z, np.shape(steps), offset=1)


class DescentLaw(StepLaw):
    """The law (8.1), (8.2) for one class, for exclusive classes, or for two antipodal classes that exchange neurons.

    `grown` p_j and `decayed` q_j: [*batch, h] at step 0. The state is (p_j, q_j, velocities (P_j, Q_j) or None, step).
    """

    grown: Float[Array, "*batch h"]
    decayed: Float[Array, "*batch h"]
    has_momentum: bool = eqx.field(static=True)
    has_decay: bool = eqx.field(static=True)

    @property
    def first(self):
        """p_j, q_j and, with momentum, their velocities at step 0."""
        at_rest = (jnp.zeros_like(self.grown), jnp.zeros_like(self.decayed))
        return self.grown, self.decayed, at_rest if self.has_momentum else None, jnp.zeros((), jnp.int32)

    def coordinates_of(self, state):
        """(a_j, z_j) of (p_j, q_j)."""
        grown, decayed, *_ = state
        return (grown + decayed) / 2, (grown - decayed) / 2

    def logits_of(self, state):
        """u = r sum (p_j^2 - q_j^2) / 4 of each class."""
        return self.logits_and_members(*state[:2])[0]

    def logits_and_members(self, grown, decayed):
        """u per class, [classes, *batch], and the members of each class."""
        members = self._members((grown + decayed) / 2)
        # (p - q)(p + q) is p^2 - q^2 with one rounding less.
        product = (grown - decayed) * (grown + decayed)
        logits = self.norm * jnp.sum(self._weighed(product, members), axis=-1) / 4
        # A neuron that has overflowed is in no class; the logit of its network must not look finite.
        return jnp.where(jnp.all(jnp.isfinite(product), axis=-1), logits, jnp.nan), members

    def step(self, state):
        """One step of (p_j, q_j) by the factors of the dynamics, or, with momentum, of their velocities (P_j, Q_j) too."""
        grown, decayed, velocity, count = state
        here, modes = self.dynamics.at(count), Here(self, grown, decayed)
        if not self.has_momentum:
            plus, minus = here.factors(modes)
            for factor in (plus, minus):
                if jnp.shape(factor) not in (grown.shape, (), (*grown.shape[:-1], 1)):
                    raise ValueError(
                        f"{type(here).__name__}.factors must return two arrays of the shape {grown.shape} of the neurons, "
                        f"got {jnp.shape(factor)}; numbers of the dynamics have the batch shape: write number[..., None]"
                    )
            return grown * plus, decayed * minus, None, count + 1
        step_size, momentum = here.step_size[..., None], here.momentum[..., None]
        pushed, loses = modes.pull(), here.weight_decay[..., None]
        pull = (loses - pushed) * grown, (loses + pushed) * decayed
        velocity = tuple(momentum * v + g for v, g in zip(velocity, pull, strict=True))
        move = velocity
        if here.nesterov:
            move = tuple(g + momentum * v for v, g in zip(velocity, pull, strict=True))
        return grown - step_size * move[0], decayed - step_size * move[1], velocity, count + 1

    def remainder(self, steps) -> Float[Array, "..."]:
        """The factor by which weight decay has shrunk a weight that no point acts on, [*batch, *steps.shape]."""
        return what_decay_leaves(self, steps) if self.has_decay else super().remainder(steps)


def what_decay_leaves(law: Any, steps: Any) -> Float[Array, "..."]:
    """The factor by which weight decay shrinks a weight that no point acts on, at `steps`, [*batch, *steps.shape]."""
    # The read-out of a neuron with a = 0 is such a weight under every loss; with the same loss always, it compiles once.
    one = jnp.ones((*law.batch_shape, 1), law.dtype)
    first = law.frequency[:1], law.norm[:1], None, law.signs[:1]
    alone = DescentLaw(Hinge(), law.dynamics, *first, one, -one, law.has_momentum, True)
    return alone.coordinates(steps)[1][..., 0]


class LayerLaw(StepLaw):
    """The law (17.3) of a step size for each layer. `a`, `z`: [*batch, h] at step 0; the state is (a, z, velocities, step).

    A = a / sqrt(eta_a) and Z = z / sqrt(eta_z) move as a and z do in plain descent by sqrt(eta_a eta_z): a neuron learns iff
    Z > -A. If the step sizes are far apart the sums A ± Z lose digits, and weight decay has a different factor in each
    layer; so the law is in a and z, with e the pull p r g(u) of the class: a <- a - eta_a (lambda a - e z), and z likewise.
    """

    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]
    has_momentum: bool = eqx.field(static=True)
    has_decay: bool = eqx.field(static=True)

    @property
    def first(self):
        """a_j, z_j, with momentum their velocities, and the step number."""
        at_rest = (jnp.zeros_like(self.a), jnp.zeros_like(self.z))
        return self.a, self.z, at_rest if self.has_momentum else None, jnp.zeros((), jnp.int32)

    def step(self, state):
        """Both layers one step further, each by its own step size."""
        a, z, velocity, count = state
        here = self.dynamics
        pull = self._pull(self.logits_of(state), self._members(a))
        loses = here.weight_decay[..., None]
        gradient = loses * a - pull * z, loses * z - pull * a
        move = gradient
        if self.has_momentum:
            momentum = here.momentum[..., None]
            velocity = tuple(momentum * v + g for v, g in zip(velocity, gradient, strict=True))
            move = velocity
            if here.nesterov:
                move = tuple(g + momentum * v for v, g in zip(velocity, gradient, strict=True))
        later_a = a - here.step_size[..., None] * move[0]
        return later_a, z - here.read_out_step_size[..., None] * move[1], velocity, count + 1

    def remainder(self, steps) -> Float[Array, "..."]:
        """The factor by which weight decay has shrunk a w that no point acts on, [*batch, *steps.shape]."""
        return what_decay_leaves(self, steps) if self.has_decay else super().remainder(steps)


class Here(Modes):
    """The `Modes` of a law whose neurons have these p_j and q_j."""

    law: DescentLaw
    grown: Float[Array, "*batch h"]
    decayed: Float[Array, "*batch h"]

    def pull(self, plus: Any = 1, minus: Any = 1) -> Array:
        """The pull on each neuron after p_j and q_j are multiplied by `plus` and `minus`: [*batch, h]."""
        return self.law._pull(*self.law.logits_and_members(plus * self.grown, minus * self.decayed))

    def gradient_norm(self, pull: Array) -> Array:
        """|grad L| = sqrt(sum_j pull_j^2 (p_j^2 + q_j^2) / 2), [*batch, 1], without squares that over- or underflow."""
        parts = pull * self.grown, pull * self.decayed
        largest = jax.lax.stop_gradient(jnp.max(jnp.maximum(*map(jnp.abs, parts)), axis=-1, keepdims=True))
        there = largest > 0
        unit = jnp.where(there, largest, 1)
        total = sum(jnp.sum((part / unit) ** 2, axis=-1, keepdims=True) for part in parts)
        # The square root has no derivative at 0: where nothing pulls, the length and its derivatives are 0.
        return jnp.where(there, unit * jnp.sqrt(jnp.where(there, total, 1) / 2), 0)


def _read_logits(law: StepLaw, state):
    return law.logits_of(state)


def _read_coordinates(law: StepLaw, state):
    return law.coordinates_of(state)


def _behind(values, shape, offset):
    """[steps, *rest] -> the step axis, shaped, `offset` axes before the end."""
    values = jnp.moveaxis(values, 0, values.ndim - 1 - offset)
    head, tail = values.shape[: values.ndim - 1 - offset], values.shape[values.ndim - offset :]
    return values.reshape(*head, *shape, *tail)


@quick_jit(eqx.filter_jit, few=0)
def _record(law: StepLaw, index, stride: int, count: int, read):
    """`read` of the states number `index` in the list of states after 0, stride, 2 stride, ..., count stride steps."""

    def several(state, _):
        state = jax.lax.scan(lambda s, _: (law.step(s), None), state, length=stride)[0]
        return state, read(law, state)

    _, later = jax.lax.scan(several, law.first, length=count)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest])[index], read(law, law.first), later)


def first_step(step, value, state, goal, max_steps: int, least: int = 0):
    """The first step, from `least` on, after which `value(state)` [*batch] is at most `goal` [goals]: [*batch, goals], inf
    if not within max_steps. `step(state)` is the next state."""

    def cond(carry):
        count, _, found = carry
        return (count < max_steps) & ~jnp.all(jnp.isfinite(found))

    def body(carry):
        count, state, found = carry
        state = step(state)
        return count + 1, state, mark(count + 1, state, found)

    def mark(count, state, found):
        there = (value(state)[..., None] <= goal) & (count >= least)
        return jnp.where(~jnp.isfinite(found) & there, count, found)

    nowhere = jnp.full((*value(state).shape, goal.size), jnp.inf, goal.dtype)
    return jax.lax.while_loop(cond, body, (0, state, mark(0, state, nowhere)))[2]


def searched(law: StepLaw, max_steps: Any, search: Callable[[StepLaw, int], Array]) -> Array:
    """`search(law, max_steps)`; for a schedule, the table of step sizes grows until the search has an answer."""
    most = positive_int("max_steps", max_steps)
    if law.dynamics.scheduled:
        for enough in (1_000, 30_000):
            if enough < most:
                found = search(law.tabled(enough), enough)
                if is_concrete(found) and bool(np.isfinite(np.asarray(found)).all()):
                    return found
    return search(law.tabled(most), most)


@quick_jit(eqx.filter_jit, few=0)
def _steps_to(what: str, law: StepLaw, index, goal, max_steps: int):
    """The first step with a logit of class `index` >= `goal`, or a loss <= `goal`: [*batch, goals]."""

    def logit(state):
        return law.logits_of(state)[index]

    if what == "logit":
        return first_step(law.step, lambda s: -logit(s), law.first, -goal, max_steps)
    return first_step(law.step, lambda s: law.loss_function.value(logit(s)), law.first, goal, max_steps)


class DescentSolution(ModeCurve):
    """The learning curve of one class under gradient descent; its argument is the step number, an int or int array.

    Equal to training up to rounding: relative error of a logit about steps^(1/2) eps away from knife-edge events.
    Steps must be known when traced (not arguments of a jitted function); weights, p, r and step size may be traced.
    """

    law: StepLaw
    index: int = eqx.field(static=True)

    def logit(self, step) -> Float[Array, "..."]:
        """u after `step` steps, [*batch, *step.shape]. `ValueError` for steps that are not integers >= 0."""
        return self.law.logits(step)[self.index]

    def weights(self, step) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) after `step` steps, in the orientation of this class, each [*batch, *step.shape, h]."""
        a, z = self.law.coordinates(step)
        return (a, z) if self.law.signs[self.index] > 0 else (-a, -z)

    def remainder(self, step) -> Float[Array, "..."]:
        """The factor by which weight decay has shrunk a weight that no point acts on, [*batch, *step.shape]."""
        return self.law.remainder(step)

    def time_to_logit(self, logit, max_steps: int = 1_000_000) -> Float[Array, "..."]:
        """The first step with u >= `logit`, [*batch, *logit.shape] as floats; inf if not within `max_steps`."""
        return self._first_step("logit", as_goal("logit", logit, self.law.dtype), max_steps)

    @property
    def loss_function(self) -> Loss:
        """l(m), whose residual moves the weights."""
        return self.law.loss_function

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.law.batch_shape

    @property
    def _dtype(self) -> Any:
        return self.law.dtype

    @property
    def _unit(self) -> str:
        return "step"

    def _time_to(self, what: str, level, max_steps: int):
        return self._first_step("loss", level, max_steps)

    def _time_to_margin(self, margin, max_steps: int):
        return self.time_to_logit(margin, max_steps)

    def _first_step(self, what: str, goal, max_steps):
        index, goals = jnp.asarray(self.index), goal.reshape(-1)
        found = searched(self.law, max_steps, lambda law, most: _steps_to(what, law, index, goals, most))
        return found.reshape(*self._batch, *goal.shape)


class ModeDescent(DescentSolution):
    """The exact descent law of one `mode` (8.1), (8.2), deaths included: a neuron with a_j <= 0 is not in the class.

    Such a neuron has left for ever, unless momentum and a weight decay strong enough to oscillate bring it back.

    >>> from gradstarve.problem import GradientDescent
    >>> from gradstarve.theory import solve_mode
    >>> solution = solve_mode(Mode(1.0, 1.0, a=[0.1], z=[0.1]), "hinge", GradientDescent(0.5))
    >>> round(float(solution.logit(2)), 6)                   # (1 + eta p r)^4 * 0.01
    0.050625
    """

    mode: Mode

    def leaving_step(self, max_steps: int = 10_000) -> Float[Array, "*batch h"]:
        """The first step with a_j <= 0, [*batch, h] as floats; inf if not within `max_steps`."""
        most = positive_int("max_steps", max_steps)
        return _leaving_steps(self.law.tabled(most), most)


@quick_jit(eqx.filter_jit, few=0)
def _leaving_steps(law: StepLaw, max_steps: int):
    def body(carry, step):
        state, left = carry
        state = law.step(state)
        return (state, jnp.where(jnp.isinf(left) & (law.coordinates_of(state)[0] <= 0), step, left)), None

    left = jnp.where(law.start <= 0, 0, jnp.full_like(law.start, jnp.inf))
    steps = jnp.arange(1, max_steps + 1).astype(law.dtype)
    return jax.lax.scan(body, (law.first, left), steps)[0][1]


def descend_mode(mode: Mode, loss: Loss, dynamics: Steps) -> ModeDescent:
    """The law (8.1), (8.2), (17) of one mode."""
    return ModeDescent(new_descent_law(loss, dynamics, [mode.frequency], [mode.norm], mode.a, mode.z), 0, mode)


def new_descent_law(
    loss: Loss,
    dynamics: Steps,
    frequencies: Sequence[Any],
    norms: Sequence[Any],
    a: Array,
    z: Array,
    signs: tuple[int, ...] = (1, -1),
    home: Array | None = None,
    slope: float = 0.0,
) -> DescentLaw | LayerLaw:
    """The law for neurons `a`, `z` [*batch, h] and classes with these `signs`; `frequencies`, `norms`: a number or [*batch]
    for each class. `home`: the class of each neuron, if neurons never change it. `slope`: the slope of a leaky ReLU."""
    if is_concrete(a) and is_concrete(z):
        known = np.asarray(a, np.float64), np.asarray(z, np.float64)
        check_normal_size("|a + z|", np.where(known[0] != 0, log_sum(*known), -np.inf), a.dtype)
    has_momentum, has_decay = (may_be_nonzero(getattr(dynamics, name, 0)) for name in ("momentum", "weight_decay"))
    classes = *of_classes(loss, dynamics, frequencies, norms, a), home, signs[: len(norms)]
    if getattr(dynamics, "read_out_step_size", None) is not None:
        return LayerLaw(*classes, a, z, has_momentum, has_decay, slope=slope)
    return DescentLaw(*classes, a + z, a - z, has_momentum, has_decay, slope=slope)


def of_classes(
    loss: Loss, dynamics: Steps, frequencies: Sequence[Any], norms: Sequence[Any], a: Array
) -> tuple[Loss, Steps, Array, Array]:
    """The first fields of a `StepLaw` for neurons `a` [*batch, h]: loss, dynamics, frequencies, norms, in the right
    shapes."""
    batch = a.shape[:-1]
    dynamics.check_batch(batch)

    def per_class(values):
        return jnp.stack([jnp.broadcast_to(jnp.asarray(value, a.dtype), batch) for value in values])

    return loss, dynamics.spread(batch, a.dtype), per_class(frequencies), per_class(norms)


def may_be_nonzero(value: Any) -> bool:
    """Whether a number of the dynamics may be other than zero."""
    return not is_concrete(value) or bool(np.asarray(value).any())


_LAST_STEP = 2**31 - 1  # steps are counted in 32 bits where JAX does


def check_steps(steps) -> np.ndarray:
    """`steps` as a NumPy integer array; anything that is not a known integer >= 0 is a `ValueError`."""
    if not is_concrete(steps):
        raise ValueError("step numbers of a descent law must be known when traced; close over them instead")
    values = np.asarray(readable("steps", steps))
    if values.dtype.kind == "f":
        finite = np.isfinite(values)
        known = np.where(finite, values, 0)
        whole = np.rint(known)
        # A grid such as np.linspace(0, 700, 8) misses whole numbers by an ulp or two of its largest entry.
        slack = 4 * float(np.finfo(values.dtype).eps) * float(np.max(np.abs(known), initial=0.0))
        off = ~finite | (np.abs(known - whole) > min(slack, 1e-3))
        if off.any():
            raise ValueError(
                f"steps must be integers >= 0 (t is the step number for descent), got {values[off].flat[0]}; "
                "use np.arange, or np.rint of the grid"
            )
        values = np.clip(whole, -1, _LAST_STEP + 1).astype(np.int64)
    if values.dtype.kind not in "iu" or (values < 0).any():
        raise ValueError(f"steps must be integers >= 0 (t is the step number for descent), got {shown(steps)}")
    if (values > _LAST_STEP).any():
        raise ValueError(f"steps must be at most {_LAST_STEP}, got {shown(steps)}")
    return values.astype(np.int64)
