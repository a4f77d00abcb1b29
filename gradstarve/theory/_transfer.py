"""Two antipodal classes under gradient flow, passing neurons to each other (4.3).

Write every neuron as p_j = a_j + z_j, q_j = a_j - z_j with a_j signed along x_+. In whichever class it is, its class's
angle s multiplies p_j by e^(s/2) and q_j by e^(-s/2). It changes class where a_j = 0, at the angle log|q_j/p_j| of its
first class, if |q_j| > |p_j|, and never again: sign(p_j) is conserved and names the class it ends in. So the only thing
not known beforehand is how the events of the two classes interleave in time, and one pass over them settles it.
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal_size, is_concrete, log_sum
from gradstarve.problem import LOSSES
from gradstarve.special import clock
from gradstarve.theory._mode import ClockCurve, insert_axes
from gradstarve.theory._piecewise import PiecewiseClock, count_pieces, faint_floor, is_representable


class TransferFlow(eqx.Module):
    """`curves` of class + and class -, and for every neuron when it changes class.

    `a`, `z`: [*batch, h] at the start (signed, along x_+). `leaving_angle`: of its first class (inf: stays);
    `joining_angle`: what the other class had accumulated by then; `events`: the time of it, inf if never.
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
        """What t leaves of a weight that no point acts on: all of it, [*batch, *t.shape]."""
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


def transfer_flow(kind: str, frequency, norm, a, z) -> TransferFlow:
    """The flow of neurons (a_j, z_j) [*batch, h] between antipodal classes with `frequency`, `norm`: [2], + first."""
    if is_concrete(frequency) and is_concrete(norm):
        check_normal_size("frequency * norm", np.log(np.asarray(frequency)) + np.log(np.asarray(norm)), a.dtype)
    # By signs: the product of two small numbers may be 0.
    leaves = ((a > 0) & (a + z < 0)) | ((a < 0) & (a + z > 0))
    # |q| - |p| is 2 |a| for these, so that log |q/p| keeps its digits for any sizes of p and q.
    size, left = jnp.where(leaves, jnp.abs(a), 0), jnp.where(leaves, jnp.abs(a + z), 1)
    fits = size < left * (jnp.finfo(a.dtype).max / 4)
    near = jnp.log1p(jnp.where(fits, 2 * size, 0) / left)
    far = jnp.log(jnp.where(fits, 1, 2 * size)) - jnp.log(left)
    leaving = jnp.where(leaves, jnp.where(fits, near, far), jnp.inf)
    flat = [values.reshape(-1, values.shape[-1]) for values in (a, z, leaving)]
    rate = 2 * frequency * norm
    count, faint = count_pieces(leaves), _may_be_faint(norm, a, z)
    if faint:
        # Each class once, and once more after each leaver; where that cannot be seen, room for the first is enough.
        count += 2 + (count if is_concrete(a) else 0)
    pieces, joining, times = _interleave_all(kind, count, faint, rate, norm, *flat)
    batch = a.shape[:-1]
    pieces, joining, times = jax.tree.map(lambda v: v.reshape(*batch, *v.shape[1:]), (pieces, joining, times))
    rates = jnp.broadcast_to(rate, (*batch, 2))
    plus, minus = (
        ClockCurve(PiecewiseClock(kind, rates[..., c], *(values[..., c] for values in pieces))) for c in range(2)
    )
    return TransferFlow((plus, minus), a, z, leaving, joining, times)


def _may_be_faint(norm, a, z) -> bool:
    """Whether r p_j^2 / 4 of some neuron may be too small for a float, so that the clock of its class needs more pieces."""
    if not (is_concrete(norm) and is_concrete(a) and is_concrete(z)):
        return True
    a, z, dtype = np.asarray(a, np.float64), np.asarray(z, np.float64), a.dtype
    log_sizes = np.where(a != 0, log_sum(a, z), -np.inf) + np.log(float(np.min(norm))) / 2 - np.log(2)
    check_normal_size("sqrt(norm) |a + z| / 2", log_sizes, dtype)
    return bool(((log_sizes > -np.inf) & (log_sizes < faint_floor(dtype) / 2)).any())


@partial(jax.jit, static_argnums=(0, 1, 2))
def _interleave_all(kind, count, faint, rate, norm, a, z, leaving):
    one = partial(_interleave, kind, count, faint, rate, norm)
    return jax.vmap(one)(a, z, leaving)


def _interleave(kind, count, faint, rate, norm, a, z, leaving):
    """One network: the pieces of both classes at the `count` events of either, and each neuron's event.

    With `faint` a new piece also begins where a class has grown from below the floats to a rise that is one.
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
        # The next to leave each class, and how long its class's clock takes to get there.
        waiting = jnp.isfinite(leaving) & ~left & (jnp.arange(2)[:, None] == first)
        due = jnp.where(waiting, leaving, jnp.inf)
        who = jnp.argmin(due, axis=-1)
        # Of the first alone: the derivative of a minimum is shared by all that are equal.
        target = jnp.take_along_axis(due, who[:, None], axis=-1)[:, 0]
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
        # Where neurons of equal angles leave together the span is 0, its derivatives are not: its time is
        # span h + span^2 h'/2 + ..., with h = 1/g(u) and h' = dh/ds, and second derivatives see no more of it.
        residual = LOSSES[kind]().residual
        together = near & (span == 0) & (residual(rise - fall) > 0)
        there = jnp.where(together, rise - fall, 0)
        slowness, turn = jax.jvp(lambda u: 1 / residual(u), (there,), (rise + fall,))
        at_once = span * (slowness + span * turn / 2)
        lasts = clock.time_of(kind, rise, fall, jnp.where(together, 0, span))
        lasts = jnp.where(together, at_once, lasts)
        # A class without any clock left (hinge at its margin) gives inf here, and so never reaches its next event. Every
        # inf is a constant: a quotient inf / rate has the derivative inf, and inf times a cotangent 0 is NaN.
        reached = near & jnp.isfinite(lasts)
        wait = jnp.where(reached, jnp.where(reached, lasts, 0) / rate, jnp.inf)
        mover = jnp.argmin(wait)
        happens = jnp.isfinite(wait[mover])
        pause = jnp.where(happens, wait[mover], 0)
        drift = clock.state_at(kind, rise, fall, rate * pause)[0]
        is_mover = jnp.arange(2) == mover
        new_total = jnp.where(is_mover, jnp.where(happens, total + span, total), total + drift)
        advance = jnp.where(happens, new_total - total, 0)
        angle = angle + jnp.sum(jnp.where(is_in, advance[:, None], 0), axis=0)
        moves = happens & crosses[mover] & (jnp.arange(a.size) == who[mover])
        other = jnp.sum(jnp.where(is_mover, 0, new_total))
        is_in = jnp.where(moves, ~is_mover[:, None], is_in)
        # Exactly at its crossing the angle is the neuron's own, not the sum that led there.
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
