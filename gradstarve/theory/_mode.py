"""One mode in closed form: gradient flow of any number of neurons that see one class along one direction (3.1)-(3.11).

With p_j = a_j + z_j, q_j = a_j - z_j and the accumulated angle s (twice the clock of (3.1)), p_j grows as e^(s/2) and q_j
decays as e^(-s/2) for every neuron, so u = rise e^s - fall e^-s with rise = r sum p_j^2 / 4 and fall = r sum q_j^2 / 4.
A neuron with p_j < 0 < a_j leaves at the angle log(q_j / -p_j), where a_j = 0 (3.10); it takes its share of rise and fall
with it. Those angles are known beforehand, so the whole curve is a sorted list of pieces and no event search is needed.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal_size, is_concrete, log_sum, readable, shown
from gradstarve.problem import Mode
from gradstarve.special import Kind, clock
from gradstarve.theory._inflection import clock_inflections
from gradstarve.theory._piecewise import PiecewiseClock, check_times, count_pieces, faint_floor, in_time, is_representable


class ClockCurve(eqx.Module):
    """The learning curve of one class under gradient flow. t is time, a scalar or an array of any shape.

    u is the logit in favour of the class, which is its margin. Error |du| / sqrt(kappa^2 + u^2) below 1e-10 in float64
    and 2e-5 in float32 for t from 0 to the largest float, |u(0)| from 1e-300 (1e-36 in float32), kappa from 0 to 1e3,
    p r from 1e-6 to 1e6. Weights keep their plateau where their squares are no floats and the numbers can be seen, down to a
    subnormal sqrt(r) |a_j + z_j| / 2, which is a `ValueError`; inside jit, what underflows counts as 0. Differentiable twice
    in weights, p, r and t by the implicit function theorem, also at balanced starts and on the stable manifold; a time that
    never comes is a constant. Late derivatives of cross-entropy and exponential loss have all their digits. jit and vmap
    work.
    """

    clock: PiecewiseClock

    def logit(self, t) -> Float[Array, "..."]:
        """u(t), [*batch, *t.shape]. `ValueError` for negative, NaN or infinite t. From 8 times on each costs little."""
        return self.clock.logit(t)

    def error(self, t) -> Float[Array, "..."]:
        """sigmoid(-u(t)), the probability given to the wrong label, [*batch, *t.shape]."""
        return self.clock.error(t)

    def angle(self, t) -> Float[Array, "..."]:
        """The accumulated hyperbolic angle 2 s(t) of (3.1), [*batch, *t.shape]."""
        return self.clock.state(t)[0]

    def remainder(self, t) -> Float[Array, "..."]:
        """What the flow leaves at t of a weight that no point acts on: all of it, ones of [*batch, *t.shape]."""
        t = check_times(t, self.clock.rate.dtype)
        return jnp.ones((*self.clock.rate.shape, *t.shape), t.dtype)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """The first time u(t) >= `logit`, [*batch, *logit.shape]; 0 if u(0) is there, inf if it never gets there."""
        return self.clock.time_to_logit(logit)

    def inflections(self) -> Float[Array, "*batch count"]:
        """The times at which the error curve has an inflection (5.1), rising: [*batch, count], inf in the places left over.

        Events at which a neuron leaves, and the margin of the hinge loss, are kinks and not counted; neither is the way
        down of a squared loss that starts above 1.
        """
        return clock_inflections(self.clock)

    def time_to_error(self, error) -> Float[Array, "..."]:
        """The first time the error is at most `error`, 0 < error < 1: `time_to_logit(log((1 - e)/e))` (6.1).

        Hinge and squared loss stop at u = 1, an error of 0.269: below it the time is inf.
        """
        return self.clock.time_to_logit(error_to_logit(error, self.clock.rate.dtype))


class ModeSolution(ClockCurve):
    """The closed form of one `mode` under gradient flow: the curve of `ClockCurve`, and the weights behind it.

    `events`: [*batch, h], the time at which each neuron leaves the class (a_j = 0); inf if never, 0 if it was never in.

    >>> from gradstarve.theory import solve_mode
    >>> solution = solve_mode(Mode(0.5, 1.0, a=[0.1], z=[0.1]), "hinge")
    >>> round(float(solution.time_to_logit(1.0)), 4)         # log(1/u0) / (2 p r) = log 100
    4.6052
    """

    mode: Mode
    leaving_angle: Float[Array, "*batch h"]
    events: Float[Array, "*batch h"]

    def weights(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at t, each [*batch, *t.shape, h]. A neuron that has left keeps a_j = 0 and its last z_j."""
        angle = self.angle(t)
        a, z, leaves = (
            insert_axes(values, angle.ndim - len(self.mode.batch_shape))
            for values in (self.mode.a, self.mode.z, self.leaving_angle)
        )
        gone = jnp.abs(angle[..., None]) >= jnp.abs(leaves)
        half = jnp.where(gone, jnp.where(jnp.isfinite(leaves), leaves, 0), angle[..., None]) / 2
        grown, decayed = (a + z) * jnp.exp(half), (a - z) * jnp.exp(-half)
        now_a = jnp.where(gone, 0, (grown + decayed) / 2)
        seen = a > 0
        return jnp.where(seen, now_a, a), jnp.where(seen, (grown - decayed) / 2, z)


def flow_mode(mode: Mode, kind: Kind) -> ModeSolution:
    """The closed form of `mode` under gradient flow (3.1)-(3.11); `kind` of clock: the name of the loss, or a softmax."""
    leaves, angle = _leaving(mode, kind)
    curve, events = _pieces(mode, kind, count_pieces(leaves), _may_be_faint(mode), angle)
    return ModeSolution(curve, mode, angle, events)


@partial(jax.jit, static_argnums=1)
def _leaving(mode: Mode, kind: Kind):
    """Who leaves the class, and at which accumulated angle (inf: never)."""
    grown, decayed = mode.a + mode.z, mode.a - mode.z
    leaves = (mode.a > 0) & (grown < 0)
    if kind == "squared":
        # Above its target the squared loss runs the clock backwards, and there the neurons with q < 0 < a leave.
        backwards = mode.logit[..., None] > 1
        leaves = jnp.where(backwards, (mode.a > 0) & (decayed < 0), leaves)
    ratio = jnp.log(jnp.where(leaves, jnp.abs(decayed), 1)) - jnp.log(jnp.where(leaves, jnp.abs(grown), 1))
    return leaves, jnp.where(leaves, ratio, jnp.inf)


def _may_be_faint(mode: Mode) -> bool:
    """Whether r p_j^2 / 4 of some neuron that sees the class is too small for a float: `ValueError` if p_j itself is.

    Where numbers cannot be seen they are taken not to be.
    """
    if not (is_concrete(mode.norm) and is_concrete(mode.a) and is_concrete(mode.z)):
        return False
    dtype = mode.a.dtype
    a, z, norm = (np.asarray(values, np.float64) for values in (mode.a, mode.z, mode.norm))
    log_sizes = np.where(a > 0, log_sum(a, z), -np.inf) + np.log(norm)[..., None] / 2 - np.log(2)
    check_normal_size("sqrt(norm) |a + z| / 2", log_sizes, dtype)
    return bool(((log_sizes > -np.inf) & (log_sizes < faint_floor(dtype) / 2)).any())


@partial(jax.jit, static_argnums=(1, 2, 3))
def _pieces(mode: Mode, kind: Kind, count: int, faint: bool, angle: Float[Array, "*batch h"]):
    """The clock of the class between the first `count` events, and the time of each neuron's event.

    With `faint` a piece also begins wherever the neurons left in the class have grown from below the floats to a rise
    that is one.
    """
    seen = mode.a > 0
    # sqrt(r) goes in before the squares are taken: r a z may be a float where a z is not.
    root = jnp.sqrt(jnp.broadcast_to(mode.norm, mode.batch_shape))[..., None] / 2
    order = jnp.argsort(jnp.abs(angle), axis=-1)

    zero = jnp.zeros_like(angle[..., :1])
    ends = jnp.take_along_axis(angle, order, axis=-1)[..., :count]
    if faint:
        grown, decayed = (root * part for part in (mode.a + mode.z, mode.a - mode.z))
        sizes = jnp.log(jnp.where(seen, jnp.abs(grown), 0))
        # The sizes of those still in after each event; the angle at which the largest of them is a float.
        ranked = jnp.take_along_axis(sizes, order, axis=-1)
        largest = jax.lax.cummax(ranked, axis=ranked.ndim - 1, reverse=True)[..., : count + 1]
        growth = faint_floor(angle.dtype) + 1 - 2 * jax.lax.stop_gradient(largest)
        # A clock that runs backwards starts above its target: its rise is a float, and all its angles are negative.
        forwards = jnp.all(angle > 0, axis=-1, keepdims=True)
        emerges = jnp.where(forwards & (growth > 1) & jnp.isfinite(growth), growth, jnp.inf)
        ends = jnp.concatenate([ends, emerges], axis=-1)
        ends = jnp.take_along_axis(ends, jnp.argsort(jnp.abs(ends), axis=-1), axis=-1)
    else:

        def suffix_sums(values):
            values = jnp.take_along_axis(values, order, axis=-1)
            sums = jnp.cumsum(values[..., ::-1], axis=-1)[..., ::-1]
            return jnp.concatenate([sums, jnp.zeros_like(sums[..., :1])], axis=-1)[..., : count + 1]

        rise = suffix_sums(jnp.where(seen, (root * (mode.a + mode.z)) ** 2, 0))
        fall = suffix_sums(jnp.where(seen, (root * (mode.a - mode.z)) ** 2, 0))
    if faint:
        # The sums at the angle itself, before the squares are taken: neither p_j^2 nor e^s need be a float.
        at = jnp.concatenate([zero, jnp.where(jnp.isfinite(ends), ends, 0)], axis=-1)
        inside = seen[..., None, :] & (jnp.abs(angle)[..., None, :] > jnp.abs(at)[..., None])
        half = at[..., None] / 2
        rise = jnp.sum(jnp.where(inside, (grown[..., None, :] * jnp.exp(half)) ** 2, 0), axis=-1)
        fall = jnp.sum(jnp.where(inside, (decayed[..., None, :] * jnp.exp(-half)) ** 2, 0), axis=-1)
        lengths = at[..., 1:] - at[..., :-1]
        happens = jnp.cumprod(jnp.isfinite(ends) & is_representable(rise[..., :-1], lengths), axis=-1).astype(bool)
        angles = jnp.concatenate([zero, jnp.where(happens, ends, 0)], axis=-1)
    else:
        happens = jnp.cumprod(jnp.isfinite(ends) & is_representable(rise[..., :-1], ends), axis=-1).astype(bool)
        angles = jnp.concatenate([zero, jnp.where(happens, ends, 0)], axis=-1)
        rise, fall = rise * jnp.exp(angles), fall * jnp.exp(-angles)
    span = jnp.where(happens, angles[..., 1:] - angles[..., :-1], 0)
    lasts = jnp.where(happens, clock.time_of(kind, rise[..., :-1], fall[..., :-1], span), jnp.inf)
    starts = jnp.concatenate([zero, jnp.cumsum(lasts, axis=-1)], axis=-1)

    rate = 2 * jnp.broadcast_to(mode.frequency * mode.norm, mode.batch_shape)
    moments = in_time(starts[..., 1:], rate[..., None])
    if faint:
        own = jnp.argmax(jnp.abs(ends)[..., None, :] >= jnp.abs(angle)[..., None], axis=-1)
        times = jnp.where(jnp.isfinite(angle), jnp.take_along_axis(moments, own, axis=-1), jnp.inf)
    else:
        times = jnp.full_like(angle, jnp.inf).at[..., :count].set(moments)
        times = jnp.take_along_axis(times, jnp.argsort(order, axis=-1), axis=-1)
    return PiecewiseClock(kind, rate, starts, angles, rise, fall), jnp.where(seen, times, 0)


def error_to_logit(error, dtype) -> Array:
    """log((1 - e)/e), after checking 0 < e < 1."""
    given, error = error, readable("error", error)
    if not is_concrete(error):
        error = jnp.asarray(error, dtype)
        return jnp.log1p(-error) - jnp.log(error)
    # Numbers that can be looked at are few, and NumPy is done with them before JAX has begun.
    values = np.asarray(error, dtype)
    if not bool(((values > 0) & (values < 1)).all()):
        raise ValueError(f"error must be in (0, 1), got {shown(given)}")
    return jnp.asarray(np.log1p(-values) - np.log(values))


def insert_axes(values: Array, count: int) -> Array:
    """`values` [*batch, h] with `count` axes of length 1 before the last."""
    return values.reshape(*values.shape[:-1], *(1,) * count, values.shape[-1])
