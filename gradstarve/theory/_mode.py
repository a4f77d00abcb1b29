"""One mode in closed form: gradient flow of any number of neurons active on one class along one direction (3.1)-(3.11).

With p_j = a_j + z_j, q_j = a_j - z_j and the accumulated angle s (twice the clock of (3.1)), p_j grows as e^(s/2) and q_j
decays as e^(-s/2) for every neuron, so u = rise e^s - fall e^-s with rise = r sum p_j^2 / 4 and fall = r sum q_j^2 / 4.
A neuron with p_j < 0 < a_j leaves at the angle log(q_j / -p_j), where a_j = 0 (3.10), and its share of rise and fall is
subtracted. These angles are known in advance, so the whole curve is a sorted list of pieces and no event search is needed.

Also here: antipodal classes, which exchange neurons (4.3).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal_product, check_normal_size, is_concrete, log_sum, quick_jit
from gradstarve.problem import JitLoss, Loss, Mode, ModeCurve, given
from gradstarve.theory._inflection import clock_inflections
from gradstarve.theory._levels import falling_time, margin_at
from gradstarve.theory._piecewise import (
    PiecewiseClock,
    answered,
    check_times,
    count_pieces,
    faint_floor,
    in_time,
    is_representable,
)


class ClockCurve(ModeCurve):
    """The learning curve of one class under gradient flow. t is time, a scalar or an array of any shape.

    u is the logit in favour of the class, which is its margin. Error |du| / sqrt(kappa^2 + u^2) below 1e-10 in float64
    and 2e-5 in float32 for t from 0 to the largest float, |u(0)| from 1e-300 (1e-36 in float32), kappa from 0 to 1e3,
    p r from 1e-6 to 1e6. Known weights whose squares underflow keep their plateau, down to a
    subnormal sqrt(r) |a_j + z_j| / 2, which is a `ValueError`; inside jit, squares that underflow are 0. Differentiable
    twice in weights, p, r and t by the implicit function theorem, also at balanced starts and on the stable manifold; a time
    that never comes is a constant. Late derivatives, also of the squared loss and of the error, have the relative error
    1e-12, 1e-6 in float32; for derivatives of the error in float32 use forward mode from t = 1e18 on, because in reverse
    mode a product underflows. jit and vmap work.
    """

    clock: PiecewiseClock

    def logit(self, t) -> Float[Array, "..."]:
        """u(t), [*batch, *t.shape]. `ValueError` for negative, NaN or infinite t. With 8 times or more, each costs
        little."""
        return self.clock.logit(t)

    def error(self, t=None) -> Float[Array, "..."]:
        """sigmoid(-u(t)), the probability given to the wrong label, [*batch, *t.shape]."""
        return self.clock.error(given(t))

    def angle(self, t) -> Float[Array, "..."]:
        """The accumulated hyperbolic angle 2 s(t) of (3.1), [*batch, *t.shape]."""
        return self.clock.state(t)[0]

    def remainder(self, t) -> Float[Array, "..."]:
        """The factor of a weight that no point acts on: ones of shape [*batch, *t.shape], because the flow has no decay."""
        t = check_times(t, self.clock.rate.dtype)
        return jnp.ones((*self.clock.rate.shape, *t.shape), t.dtype)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """The first time u(t) >= `logit`, [*batch, *logit.shape]; 0 if u(0) is there, inf if it never gets there."""
        return self.clock.time_to_logit(logit)

    def inflections(self) -> Float[Array, "*batch count"]:
        """The times at which the error curve has an inflection (5.1), rising: [*batch, count], padded with inf.

        Events at which a neuron leaves, and the margin of the hinge loss, are kinks and not counted; neither are inflections
        of a squared loss that starts above 1 and falls.
        """
        return clock_inflections(self.clock)

    @property
    def loss_function(self) -> Loss:
        """l(m), the loss of the clock."""
        return self.clock.law.loss

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.clock.rate.shape

    @property
    def _dtype(self) -> Any:
        return self.clock.rate.dtype

    @property
    def _unit(self) -> str:
        return "time"

    def _time_to(self, what: str, level, max_steps: int):
        if self.clock.law.loss.clock is None:
            start = self.clock.rise[..., 0] - self.clock.fall[..., 0]
            margins = margin_at(self.clock.law.loss, level, start)
            rising = self.clock.times_to(margins).reshape(*start.shape, *level.shape)
            return answered(falling_time(self.clock, level, rising))
        rising = super()._time_to(what, level, max_steps)
        return falling_time(self.clock, level, rising) if self.clock.law.clock.pulls_back else rising

    def _time_to_margin(self, margin, max_steps: int):
        return self.clock.time_to_logit(margin)


class ModeSolution(ClockCurve):
    """The closed form of one `mode` under gradient flow: the curve of `ClockCurve`, and the weights.

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


def flow_mode(mode: Mode, loss: Loss) -> ModeSolution:
    """The closed form of `mode` under gradient flow (3.1)-(3.11)."""
    law = JitLoss(loss)
    leaves, angle = _leaving(mode, law)
    curve, events = _pieces(mode, law, count_pieces(leaves), _may_be_faint(mode), angle)
    if loss.clock is None:
        curve, events = answered((curve, events))
    return ModeSolution(curve, mode, angle, events)


@quick_jit()
def _leaving(mode: Mode, law: JitLoss):
    """Whether each neuron leaves the class, and the accumulated angle at which it does (inf: never)."""
    grown, decayed = mode.a + mode.z, mode.a - mode.z
    leaves = (mode.a > 0) & (grown < 0)
    if law.loss.clock is None or law.clock.pulls_back:
        # Above its rest a loss runs the clock backwards, and there the neurons with q < 0 < a leave.
        backwards = law.loss.residual(mode.logit)[..., None] < 0
        leaves = jnp.where(backwards, (mode.a > 0) & (decayed < 0), leaves)
    ratio = jnp.log(jnp.where(leaves, jnp.abs(decayed), 1)) - jnp.log(jnp.where(leaves, jnp.abs(grown), 1))
    return leaves, jnp.where(leaves, ratio, jnp.inf)


def _may_be_faint(mode: Mode) -> bool:
    """Whether r p_j^2 / 4 of some neuron active on the class underflows; `ValueError` if p_j itself is too small.

    False for traced numbers.
    """
    if not (is_concrete(mode.norm) and is_concrete(mode.a) and is_concrete(mode.z)):
        return False
    norm = np.asarray(mode.norm, np.float64)[..., None]
    return _is_faint(np.asarray(mode.a) > 0, mode.a, mode.z, norm, norm)


def _is_faint(seen: np.ndarray, a, z, shortest, longest) -> bool:
    """Whether r p_j^2 / 4 underflows for some neuron that is `seen` (active), at the `shortest` norm r.

    `ValueError` if p_j itself underflows, or if the sums of squares of the clock overflow.
    """
    dtype = a.dtype
    a, z = np.asarray(a, np.float64), np.asarray(z, np.float64)
    log_sizes = np.where(seen, log_sum(a, z), -np.inf) + np.log(shortest) / 2 - np.log(2)
    check_normal_size("sqrt(norm) |a + z| / 2", log_sizes, dtype)
    largest = np.where(seen, np.maximum(np.abs(a), np.abs(z)), 0)
    log_squares = 2 * np.log(np.maximum(largest, np.finfo(np.float64).tiny)) + np.log(longest) + np.log(a.shape[-1])
    beyond = np.argwhere(log_squares > np.log(float(np.finfo(dtype).max)) - 1)
    if len(beyond):
        where = tuple(int(i) for i in beyond[0])
        raise ValueError(
            f"neuron {where[-1]} starts at a = {a[where]:.4g}, z = {z[where]:.4g}, whose squares are no {np.dtype(dtype)}; "
            "give smaller weights"
        )
    return bool(((log_sizes > -np.inf) & (log_sizes < faint_floor(dtype) / 2)).any())


@quick_jit(static_argnums=(2, 3))
def _pieces(mode: Mode, law: JitLoss, count: int, faint: bool, angle: Float[Array, "*batch h"]):
    """The clock of the class between the first `count` events, and the time of each neuron's event.

    With `faint` a piece also begins wherever the rise of the neurons left in the class has grown to a representable float.
    """
    seen = mode.a > 0
    # sqrt(r) multiplies the weights before they are squared: r a z may be representable although a z is not.
    root = jnp.sqrt(jnp.broadcast_to(mode.norm, mode.batch_shape))[..., None] / 2
    order = jnp.argsort(jnp.abs(angle), axis=-1)

    zero = jnp.zeros_like(angle[..., :1])
    ends = jnp.take_along_axis(angle, order, axis=-1)[..., :count]
    if faint:
        grown, decayed = (root * part for part in (mode.a + mode.z, mode.a - mode.z))
        sizes = jnp.log(jnp.where(seen, jnp.abs(grown), 0))
        # The sizes of the neurons left after each event; the angle at which the largest of them is representable.
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
        # The sums at the angle itself, with the factor applied before the squares: p_j^2 and e^s may under- or overflow.
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
    lasts = jnp.where(happens, law.clock.time_of(rise[..., :-1], fall[..., :-1], span), jnp.inf)
    starts = jnp.concatenate([zero, jnp.cumsum(lasts, axis=-1)], axis=-1)

    rate = 2 * jnp.broadcast_to(mode.frequency * mode.norm, mode.batch_shape)
    moments = in_time(starts[..., 1:], rate[..., None])
    if faint:
        own = jnp.argmax(jnp.abs(ends)[..., None, :] >= jnp.abs(angle)[..., None], axis=-1)
        times = jnp.where(jnp.isfinite(angle), jnp.take_along_axis(moments, own, axis=-1), jnp.inf)
    else:
        times = jnp.full_like(angle, jnp.inf).at[..., :count].set(moments)
        times = jnp.take_along_axis(times, jnp.argsort(order, axis=-1), axis=-1)
    return PiecewiseClock(law, rate, starts, angles, rise, fall), jnp.where(seen, times, 0)


def insert_axes(values: Array, count: int) -> Array:
    """`values` [*batch, h] with `count` axes of length 1 before the last."""
    return values.reshape(*values.shape[:-1], *(1,) * count, values.shape[-1])


# Two antipodal classes under gradient flow, which exchange neurons (4.3).
#
# Write every neuron as p_j = a_j + z_j, q_j = a_j - z_j with a_j signed along x_+. The angle s of the class of the neuron
# multiplies p_j by e^(s/2) and q_j by e^(-s/2). The neuron changes class where a_j = 0, at the angle log|q_j/p_j| of its
# first class, if |q_j| > |p_j|, and never again: sign(p_j) is conserved and is the class in which it ends. So only the order
# in time of the events of the two classes is not known in advance, and one pass over the events determines it.


class TransferFlow(eqx.Module):
    """`curves` of class + and class -, and the change of class of every neuron.

    `a`, `z`: [*batch, h] at the start (signed, along x_+). `leaving_angle`: the angle of the first class at the change (inf:
    no change); `joining_angle`: the accumulated angle of the other class then; `events`: the time, inf if never.
    """

    curves: tuple[ClockCurve, ClockCurve]
    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]
    leaving_angle: Float[Array, "*batch h"]
    joining_angle: Float[Array, "*batch h"]
    events: Float[Array, "*batch h"]

    @property
    def start(self) -> Float[Array, "*batch h"]:
        """a_j at the start."""
        return self.a

    def remainder(self, t) -> Float[Array, "..."]:
        """The factor of a weight that no point acts on: ones, [*batch, *t.shape]."""
        return self.curves[0].remainder(t)

    def coordinates(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at t, signed along x_+, each [*batch, *t.shape, h]."""
        plus, minus = (curve.angle(t)[..., None] for curve in self.curves)
        count = plus.ndim - self.a.ndim
        a, z, leaves, joins = (
            insert_axes(values, count) for values in (self.a, self.z, self.leaving_angle, self.joining_angle)
        )
        own, other = jnp.where(a > 0, plus, minus), jnp.where(a > 0, minus, plus)
        moved = own >= leaves
        angle = jnp.where(moved, jnp.where(moved, leaves, 0) + jnp.maximum(other - jnp.where(moved, joins, 0), 0), own)
        grown, decayed = (a + z) * jnp.exp(angle / 2), (a - z) * jnp.exp(-angle / 2)
        seen = a != 0
        return jnp.where(seen, (grown + decayed) / 2, a), jnp.where(seen, (grown - decayed) / 2, z)


def transfer_flow(loss: Loss, frequency, norm, a, z) -> TransferFlow:
    """The flow of neurons (a_j, z_j) [*batch, h] between antipodal classes with `frequency`, `norm`: [2], + first."""
    check_normal_product(a.dtype, frequency=frequency, norm=norm)
    with np.errstate(over="ignore"):
        leaves = _moves_over(np.asarray(a), np.asarray(z)) if is_concrete(a) and is_concrete(z) else _moves_over(a, z)
    count, faint = count_pieces(leaves), _may_be_faint_when_grown(norm, a, z)
    if faint:
        # One piece for each class, and one more after each leaver; for traced numbers, one is assumed to be enough.
        count += 2 + (count if is_concrete(a) else 0)
    law = JitLoss(loss)
    pieces, leaving, joining, times = _interleave_all(law, count, faint, frequency, norm, a, z)
    if loss.clock is None:
        pieces, joining, times = answered((pieces, joining, times))
    plus, minus = (ClockCurve(PiecewiseClock(law, *values)) for values in pieces)
    return TransferFlow((plus, minus), a, z, leaving, joining, times)


def _moves_over(a, z):
    """Whether a neuron changes its class. By signs: the product of two small numbers may be 0."""
    return ((a > 0) & (a + z < 0)) | ((a < 0) & (a + z > 0))


def _leaving_angle(a, z):
    """The accumulated angle at which a neuron leaves its first class, inf where it stays."""
    leaves = _moves_over(a, z)
    # |q| - |p| is 2 |a| for these, so that log |q/p| keeps its digits for any sizes of p and q.
    size, left = jnp.where(leaves, jnp.abs(a), 0), jnp.where(leaves, jnp.abs(a + z), 1)
    fits = size < left * (jnp.finfo(a.dtype).max / 4)
    near = jnp.log1p(jnp.where(fits, 2 * size, 0) / left)
    far = jnp.log(jnp.where(fits, 1, 2 * size)) - jnp.log(left)
    return jnp.where(leaves, jnp.where(fits, near, far), jnp.inf)


def _may_be_faint_when_grown(norm, a, z) -> bool:
    """Whether r p_j^2 / 4 of some neuron may underflow, so that the clock of its class needs more pieces."""
    if not (is_concrete(norm) and is_concrete(a) and is_concrete(z)):
        return True
    norms = np.asarray(norm, np.float64)
    return _is_faint(np.asarray(a) != 0, a, z, norms.min(), norms.max())


def _passes(law, count, faint, frequency, norm, a, z) -> int:
    """How many numbers the events of all networks go over."""
    return count * (a.size + z.size)


@quick_jit(static_argnums=(1, 2), passes=_passes)
def _interleave_all(law, count, faint, frequency, norm, a, z):
    """For both classes (rate, start, angle, rise, fall); of each neuron the leaving angle, the joining angle, the event."""
    rate, leaving = 2 * frequency * norm, _leaving_angle(a, z)
    one = partial(_interleave, law, count, faint, rate, norm)
    found = jax.vmap(one)(*(values.reshape(-1, values.shape[-1]) for values in (a, z, leaving)))
    batch = a.shape[:-1]
    pieces, joining, times = jax.tree.map(lambda v: v.reshape(*batch, *v.shape[1:]), found)
    classes = [(jnp.broadcast_to(rate[c], batch), *(values[..., c] for values in pieces)) for c in range(2)]
    return classes, leaving, joining, times


def _interleave(law, count, faint, rate, norm, a, z, leaving):
    """One network: the pieces of both classes at the `count` events of either, and each neuron's event.

    With `faint` a new piece also begins where the rise of a class has grown to a representable float.
    """
    grown, decayed = a + z, a - z
    first = jnp.where(a > 0, 0, 1)
    is_in = jnp.stack([a > 0, a < 0])  # [2, h]
    root = jnp.sqrt(norm)[:, None] / 2

    def sums(is_in, angle):
        rise = jnp.sum(jnp.where(is_in, (root * grown * jnp.exp(angle / 2)) ** 2, 0), axis=-1)
        fall = jnp.sum(jnp.where(is_in, (root * decayed * jnp.exp(-angle / 2)) ** 2, 0), axis=-1)
        return rise, fall

    def body(carry, _):
        time, total, angle, is_in, left, joined, when = carry
        rise, fall = sums(is_in, angle)
        piece = (jnp.full(2, time), total, rise, fall)
        # The next neuron to leave each class, and the time until then.
        waiting = jnp.isfinite(leaving) & ~left & (jnp.arange(2)[:, None] == first)
        due = jnp.where(waiting, leaving, jnp.inf)
        leaver = jnp.argmin(due, axis=-1)
        # Taken by index, because the derivative of a minimum would be shared by all equal entries.
        target = jnp.take_along_axis(due, leaver[:, None], axis=-1)[:, 0]
        crosses = jnp.ones(2, bool)
        if faint:
            logs = jnp.log(jnp.where(is_in, jnp.abs(root * grown), 0)) + angle / 2
            growth = faint_floor(a.dtype) + 1 - jax.lax.stop_gradient(2 * jnp.max(logs, axis=-1))
            emerges = total + jnp.where((growth > 1) & jnp.isfinite(growth), growth, jnp.inf)
            crosses = target <= emerges
            target = jnp.minimum(target, emerges)
        near = jnp.isfinite(target) & is_representable(rise, jnp.where(jnp.isfinite(target), target - total, 0))
        span = jnp.where(near, target, total) - total
        # Rounding may put the total an ulp past the target. Neurons of equal angles leave one after the other, 0 apart.
        span = jnp.where(span >= 0, span, 0)
        # If neurons of equal angles leave together, the span is 0 but its derivatives are not: its time is
        # span h + span^2 h'/2 + ..., with h = 1/g(u) and h' = dh/ds, enough terms for second derivatives.
        residual = law.loss.residual
        together = near & (span == 0) & (residual(rise - fall) > 0)
        there = jnp.where(together, rise - fall, 0)
        slowness, turn = jax.jvp(lambda u: 1 / residual(u), (there,), (rise + fall,))
        at_once = span * (slowness + span * turn / 2)
        lasts = law.clock.time_of(rise, fall, jnp.where(together, 0, span))
        lasts = jnp.where(together, at_once, lasts)
        # A class without any clock left (hinge at its margin) gives inf here, and so never reaches its next event. Every
        # inf is a constant: a quotient inf / rate has the derivative inf, and inf times a cotangent 0 is NaN.
        reached = near & jnp.isfinite(lasts)
        wait = jnp.where(reached, jnp.where(reached, lasts, 0) / rate, jnp.inf)
        mover = jnp.argmin(wait)
        happens = jnp.isfinite(wait[mover])
        pause = jnp.where(happens, wait[mover], 0)
        drift = law.clock.state_at(rise, fall, rate * pause)[0]
        is_mover = jnp.arange(2) == mover
        new_total = jnp.where(is_mover, jnp.where(happens, total + span, total), total + drift)
        advance = jnp.where(happens, new_total - total, 0)
        angle = angle + jnp.sum(jnp.where(is_in, advance[:, None], 0), axis=0)
        moves = happens & crosses[mover] & (jnp.arange(a.size) == leaver[mover])
        other = jnp.sum(jnp.where(is_mover, 0, new_total))
        is_in = jnp.where(moves, ~is_mover[:, None], is_in)
        # Exactly at its crossing the angle is the leaving angle of the neuron, not the accumulated sum.
        angle = jnp.where(moves, jnp.where(moves, leaving, 0), angle)
        time = jnp.where(happens, time + pause, jnp.inf)
        joined = jnp.where(moves, other, joined)
        when = jnp.where(moves, time, when)
        total = jnp.where(happens, new_total, total)
        return (time, total, angle, is_in, left | moves, joined, when), piece

    zeros = jnp.zeros_like(a)
    start = (
        jnp.zeros((), a.dtype),
        jnp.zeros(2, a.dtype),
        zeros,
        is_in,
        jnp.zeros(a.shape, bool),
        zeros,
        jnp.full_like(a, jnp.inf),
    )
    end, pieces = jax.lax.scan(body, start, length=count)
    time, total, angle, is_in, _, joined, when = end
    rise, fall = sums(is_in, angle)
    last = (jnp.full(2, time), total, rise, fall)
    pieces = jax.tree.map(lambda rest, final: jnp.concatenate([rest, final[None]]), pieces, last)
    starts, *rest = pieces
    started = jnp.isfinite(starts)
    return (jnp.where(started, jnp.where(started, starts, 0) * rate, jnp.inf), *rest), joined, when
