"""Gradient descent solved step by step without error (8.1), (8.2): an equality with training, not its small-step limit.

With p_j = a_j + z_j and q_j = a_j - z_j, one step of size eta multiplies every p_j of a class by 1 + c and every q_j by
1 - c, c = eta p r g(u), u = r (sum p_j^2 - sum q_j^2) / 4: two numbers per class move any network of any width in any
dimension. Which neurons a class sums over is read off the sign of a_j = (p_j + q_j)/2 after each step.

Weight decay lambda makes the factors 1 - eta lambda ± c. With momentum p_j and q_j have velocities P_j and Q_j, in units
of a step: P_j <- momentum P_j + (eta lambda - c) p_j, p_j <- p_j - P_j, and likewise Q_j with eta lambda + c. All neurons
of a class share these recurrences, but one that leaves its class takes its velocity along, coasts, and may come back: so
every neuron has a pair of its own.
"""

from __future__ import annotations

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
    readable,
    shown,
)
from gradstarve.problem import GradientDescent, Hinge, Loss, Mode, ModeCurve


class DescentNumbers(eqx.Module):
    """The numbers of a `GradientDescent` for every network, [*batch]; None where they are known to be zero."""

    step_size: Float[Array, "*batch"]
    momentum: Float[Array, "*batch"] | None
    weight_decay: Float[Array, "*batch"] | None
    nesterov: bool = eqx.field(static=True)


class DescentLaw(eqx.Module):
    """The law (8.1), (8.2) for one class, or for two antipodal ones that pass neurons to each other.

    `grown` p_j and `decayed` q_j: [*batch, h] at step 0, in the orientation of the first class; `frequency`, `norm`:
    [classes, *batch]. Class 0 sums over a_j > 0 and class 1, if there is one, over a_j < 0. `dynamics` has its numbers
    [*batch], or None for a momentum or weight decay that is known to be zero, and then costs nothing.
    """

    loss_function: Loss
    dynamics: DescentNumbers
    frequency: Float[Array, "classes *batch"]
    norm: Float[Array, "classes *batch"]
    grown: Float[Array, "*batch h"]
    decayed: Float[Array, "*batch h"]

    def _logits(self, grown, decayed):
        """u per class, [classes, *batch], and who is in which class."""
        a = (grown + decayed) / 2
        members = jnp.stack([a > 0, a < 0])[: self.norm.shape[0]]
        # (p - q)(p + q) is p^2 - q^2 with one rounding less.
        product = (grown - decayed) * (grown + decayed)
        logits = self.norm * jnp.sum(jnp.where(members, product, 0), axis=-1) / 4
        # A neuron that has overflowed is a member of nothing; its network has no logit, and must not get a tame one.
        return jnp.where(jnp.all(jnp.isfinite(product), axis=-1), logits, jnp.nan), members

    def _step(self, grown, decayed, velocity):
        """One step of (p_j, q_j) and, with momentum, of their velocities (P_j, Q_j)."""
        logits, members = self._logits(grown, decayed)
        d = self.dynamics
        speed = d.step_size * self.frequency * self.norm * self.loss_function.residual(logits)
        speed = jnp.sum(jnp.where(members, speed[..., None], 0), axis=0)
        loses = 0 if d.weight_decay is None else (d.step_size * d.weight_decay)[..., None]
        if d.momentum is None:
            return grown * (1 - loses + speed), decayed * (1 - loses - speed), None
        pull = (loses - speed) * grown, (loses + speed) * decayed
        momentum = d.momentum[..., None]
        velocity = tuple(momentum * v + g for v, g in zip(velocity, pull, strict=True))
        move = velocity
        if d.nesterov:
            move = tuple(g + momentum * v for v, g in zip(velocity, pull, strict=True))
        return grown - move[0], decayed - move[1], velocity

    @property
    def first(self):
        """p_j, q_j and, with momentum, their velocities at step 0."""
        at_rest = (jnp.zeros_like(self.grown), jnp.zeros_like(self.decayed))
        return self.grown, self.decayed, None if self.dynamics.momentum is None else at_rest

    @property
    def start(self) -> Float[Array, "*batch h"]:
        """a_j at step 0, in the orientation of class 0."""
        return (self.grown + self.decayed) / 2

    def remainder(self, steps) -> Float[Array, "..."]:
        """What weight decay has left at `steps` of a weight that no point acts on, [*batch, *steps.shape]; 1 without it."""
        if self.dynamics.weight_decay is None:
            return jnp.ones((*self.grown.shape[:-1], *check_steps(steps).shape), self.grown.dtype)
        # The read-out of a neuron with a = 0 is such a weight, whatever the loss; with one loss for all, it compiles once.
        one = jnp.ones_like(self.grown[..., :1])
        return DescentLaw(Hinge(), self.dynamics, self.frequency[:1], self.norm[:1], one, -one).coordinates(steps)[1][..., 0]

    def at(self, steps, read):
        """`read(law, *state)` after each of `steps`, stacked in front: [steps.size, ...]; `ConvergenceError`
        if any of it is not finite."""
        steps = check_steps(steps).reshape(-1)
        # Every stride-th state is kept, where the stride divides all of the steps asked for.
        stride = max(int(np.gcd.reduce(steps)), 1) if steps.size else 1
        values = _record(self, jnp.asarray(steps // stride), stride, int(steps.max(initial=0)) // stride, read)
        for value in jax.tree.leaves(values):
            if is_concrete(value) and not np.isfinite(np.asarray(value)).all():
                sick = ~np.isfinite(np.asarray(value)).all(axis=tuple(range(1, value.ndim)))
                first = steps[sick].min()
                if first == 0:
                    kind = np.dtype(value.dtype)
                    raise ValueError(f"weights are so large that their logits are beyond {kind}; give smaller ones")
                raise ConvergenceError(
                    f"gradient descent diverges: weights are not finite at step {first} with step_size = "
                    f"{np.asarray(self.dynamics.step_size).max():.6g}; use a smaller step size"
                )
        return values

    def logits(self, steps) -> Float[Array, "..."]:
        """u per class at `steps`: [classes, *batch, *steps.shape]."""
        return _behind(self.at(steps, _read_logits), np.shape(steps), offset=0)

    def coordinates(self, steps) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at `steps`, in the orientation of class 0: each [*batch, *steps.shape, h]."""
        a, z = self.at(steps, _read_coordinates)
        return _behind(a, np.shape(steps), offset=1), _behind(z, np.shape(steps), offset=1)


def _read_logits(law: DescentLaw, grown, decayed, velocity):
    return law._logits(grown, decayed)[0]


def _read_coordinates(law: DescentLaw, grown, decayed, velocity):
    return (grown + decayed) / 2, (grown - decayed) / 2


def _behind(values, shape, offset):
    """[steps, *rest] -> the step axis, shaped, `offset` axes before the end."""
    values = jnp.moveaxis(values, 0, values.ndim - 1 - offset)
    head, tail = values.shape[: values.ndim - 1 - offset], values.shape[values.ndim - offset :]
    return values.reshape(*head, *shape, *tail)


@eqx.filter_jit
def _record(law: DescentLaw, index, stride: int, count: int, read):
    """`read` of the states numbered `index` among those after 0, stride, 2 stride, ..., count stride steps."""

    def several(state, _):
        state = jax.lax.scan(lambda s, _: (law._step(*s), None), state, length=stride)[0]
        return state, read(law, *state)

    _, later = jax.lax.scan(several, law.first, length=count)
    return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest])[index], read(law, *law.first), later)


def first_step(step, value, state, goal, max_steps: int):
    """The first step after which `value(state)` [*batch] is at most `goal` [goals]: [*batch, goals], inf if not within
    max_steps. `step(state)` is the next state."""

    def cond(carry):
        count, _, found = carry
        return (count < max_steps) & ~jnp.all(jnp.isfinite(found))

    def body(carry):
        count, state, found = carry
        state = step(state)
        return count + 1, state, mark(count + 1, state, found)

    def mark(count, state, found):
        return jnp.where(~jnp.isfinite(found) & (value(state)[..., None] <= goal), count, found)

    nowhere = jnp.full((*value(state).shape, goal.size), jnp.inf, goal.dtype)
    return jax.lax.while_loop(cond, body, (0, state, mark(0, state, nowhere)))[2]


@eqx.filter_jit
def _steps_to(what: str, law: DescentLaw, goal, max_steps: int):
    """The first step with a logit of class 0 of at least `goal`, or (`what`) a loss of at most `goal`: [*batch, goals]."""

    def logit(state):
        return law._logits(*state[:2])[0][0]

    if what == "logit":
        return first_step(lambda s: law._step(*s), lambda s: -logit(s), law.first, -goal, max_steps)
    return first_step(lambda s: law._step(*s), lambda s: law.loss_function.value(logit(s)), law.first, goal, max_steps)


class DescentSolution(ModeCurve):
    """The learning curve of one class under gradient descent; its argument is the step number, an int or int array.

    Equal to training up to rounding: relative error of a logit about steps^(1/2) eps away from knife-edge events.
    Steps must be known when traced (not arguments of a jitted function); weights, p, r and step size may be traced.
    """

    law: DescentLaw
    index: int = eqx.field(static=True)

    def logit(self, step) -> Float[Array, "..."]:
        """u after `step` steps, [*batch, *step.shape]. `ValueError` for steps that are not integers >= 0."""
        return self.law.logits(step)[self.index]

    def weights(self, step) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) after `step` steps, in the orientation of this class, each [*batch, *step.shape, h]."""
        a, z = self.law.coordinates(step)
        return (a, z) if self.index == 0 else (-a, -z)

    def remainder(self, step) -> Float[Array, "..."]:
        """What weight decay has left of a weight that no point acts on, [*batch, *step.shape]; 1 without it."""
        return self.law.remainder(step)

    def time_to_logit(self, logit, max_steps: int = 1_000_000) -> Float[Array, "..."]:
        """The first step with u >= `logit`, [*batch, *logit.shape] as floats; inf if not within `max_steps`."""
        return self._first_step("logit", as_goal("logit", logit, self.law.grown.dtype), max_steps)

    @property
    def loss_function(self) -> Loss:
        """l(m), whose residual moves the weights."""
        return self.law.loss_function

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.law.grown.shape[:-1]

    @property
    def _dtype(self) -> Any:
        return self.law.grown.dtype

    @property
    def _unit(self) -> str:
        return "step"

    def _time_to(self, what: str, level, max_steps: int):
        return self._first_step("loss", level, max_steps)

    def _time_to_margin(self, margin, max_steps: int):
        return self.time_to_logit(margin, max_steps)

    def _first_step(self, what: str, goal, max_steps):
        law = self.law if self.index == 0 else self.law_seen_from_here()
        found = _steps_to(what, law, goal.reshape(-1), positive_int("max_steps", max_steps))
        return found.reshape(*self._batch, *goal.shape)

    def law_seen_from_here(self) -> DescentLaw:
        """The same law with this class in front: classes swapped, every a_j and z_j with its sign turned."""
        m = self.law
        return DescentLaw(m.loss_function, m.dynamics, m.frequency[::-1], m.norm[::-1], -m.grown, -m.decayed)


class ModeDescent(DescentSolution):
    """The exact descent law of one `mode` (8.1), (8.2), deaths included: a neuron with a_j <= 0 is not in the class.

    It has left for good, unless momentum and a weight decay strong enough to oscillate bring it back.

    >>> from gradstarve.problem import GradientDescent
    >>> from gradstarve.theory import solve_mode
    >>> solution = solve_mode(Mode(1.0, 1.0, a=[0.1], z=[0.1]), "hinge", GradientDescent(0.5))
    >>> round(float(solution.logit(2)), 6)                   # (1 + eta p r)^4 * 0.01
    0.050625
    """

    mode: Mode

    def leaving_step(self, max_steps: int = 10_000) -> Float[Array, "*batch h"]:
        """The first step with a_j <= 0, [*batch, h] as floats; inf if not within `max_steps`."""
        return _leaving_steps(self.law, positive_int("max_steps", max_steps))


@eqx.filter_jit
def _leaving_steps(law: DescentLaw, max_steps: int):
    def body(carry, step):
        state, left = carry
        state = law._step(*state)
        return (state, jnp.where(jnp.isinf(left) & (state[0] + state[1] <= 0), step, left)), None

    left = jnp.where(law.grown + law.decayed <= 0, 0, jnp.full_like(law.grown, jnp.inf))
    steps = jnp.arange(1, max_steps + 1).astype(law.grown.dtype)
    return jax.lax.scan(body, (law.first, left), steps)[0][1]


def descend_mode(mode: Mode, loss: Loss, dynamics: GradientDescent) -> ModeDescent:
    """The law (8.1), (8.2) of one mode."""
    return ModeDescent(new_descent_law(loss, dynamics, [mode.frequency], [mode.norm], mode.a, mode.z), 0, mode)


def new_descent_law(loss: Loss, dynamics: GradientDescent, frequencies, norms, a: Array, z: Array) -> DescentLaw:
    """The law for neurons `a`, `z` [*batch, h]; `frequencies`, `norms`: a number or [*batch] for each class."""
    batch = a.shape[:-1]
    dynamics.check_batch(batch)

    def per_class(values):
        return jnp.stack([jnp.broadcast_to(jnp.asarray(value, a.dtype), batch) for value in values])

    def number(value):
        return jnp.broadcast_to(value.astype(a.dtype), batch)

    momentum, weight_decay = (
        None if is_concrete(value) and not np.asarray(value).any() else number(value)
        for value in (dynamics.momentum, dynamics.weight_decay)
    )
    if is_concrete(a) and is_concrete(z):
        known = np.asarray(a, np.float64), np.asarray(z, np.float64)
        check_normal_size("|a + z|", np.where(known[0] != 0, log_sum(*known), -np.inf), a.dtype)
    nesterov = dynamics.nesterov and momentum is not None
    numbers = DescentNumbers(number(dynamics.step_size), momentum, weight_decay, nesterov)
    return DescentLaw(loss, numbers, per_class(frequencies), per_class(norms), a + z, a - z)


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
        # A grid such as np.linspace(0, 700, 8) misses its whole numbers by an ulp or two of its largest one.
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
