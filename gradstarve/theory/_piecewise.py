"""The clock of one class between the events at which neurons leave or join it: a list of (3.2) pieces.

Inside a piece the logit is rise e^s - fall e^-s, s counted from its start. All times here are tau = 2 p r t.
"""

from __future__ import annotations

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradstarve.ground import ConvergenceError, as_goal, is_concrete, quick_jit, readable
from gradstarve.problem import JitLoss, Loss


class PiecewiseClock(eqx.Module):
    """Pieces 0..K of one class: `start` tau_k (inf: never), `angle` accumulated until then, `rise`, `fall` at the start.

    All four are [*batch, K+1]; `rate` = 2 p r is [*batch]; `law` is the loss and its clock. Pieces never started hold zeros.
    """

    law: JitLoss
    rate: Float[Array, "*batch"]
    start: Float[Array, "*batch pieces"]
    angle: Float[Array, "*batch pieces"]
    rise: Float[Array, "*batch pieces"]
    fall: Float[Array, "*batch pieces"]

    def state(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(accumulated angle, logit) at times t, each [*batch, *t.shape]."""
        t = check_times(t, self.rate.dtype)
        angle, logit = self._at(t, True)
        shape = (*self.rate.shape, *t.shape)
        return angle.reshape(shape), logit.reshape(shape)

    def logit(self, t) -> Float[Array, "..."]:
        """The logit at times t, [*batch, *t.shape], as in `state` but without the cost of the angle."""
        t = check_times(t, self.rate.dtype)
        return self._at(t, False)[1].reshape(*self.rate.shape, *t.shape)

    def error(self, t, shift: float = 0.0) -> Float[Array, "..."]:
        """sigmoid(shift - u) at times t, [*batch, *t.shape]."""
        if self.rate.dtype != jnp.float32 or not self.law.clock.rounds:
            return jax.nn.sigmoid(shift - self.logit(t))
        t = check_times(t, self.rate.dtype)
        return _error(self, t.reshape(-1), shift).reshape(*self.rate.shape, *t.shape)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """First t with a logit of at least `logit`: [*batch, *logit.shape]; 0 if it starts there, inf if never."""
        logit = as_goal("logit", logit, self.rate.dtype)
        lanes = jnp.broadcast_to(logit.reshape(-1), (*self.rate.shape, logit.size))
        return self.times_to(lanes).reshape(*self.rate.shape, *logit.shape)

    def times_to(self, logits: Float[Array, "*batch lanes"]) -> Float[Array, "*batch lanes"]:
        """`time_to_logit` with separate logits for each network."""
        return self._answered(_times_to(self, logits))

    def _at(self, t, want_angle: bool):
        """`_state` at the times `t`; `ConvergenceError` for times at which a law has overflowed."""
        angle, logit = self._answered(_state(self, t.reshape(-1), want_angle))
        if self.law.loss.clock is not None:
            return angle, logit
        gone = jnp.isinf(angle)
        if not is_concrete(gone):
            logit = eqx.error_if(logit, gone, _gone(self.law.loss, "before these times"))
        elif bool(gone.any()):
            ends = self.start + self.law.clock.end_of(self.rise, self.fall)
            first = jnp.min(in_time(jnp.min(ends, axis=-1), self.rate))
            raise ConvergenceError(_gone(self.law.loss, f"at t = {float(first):.6g}"))
        return angle, logit

    def _answered(self, values):
        """`values`; `ConvergenceError` where a quadrature gave NaN."""
        return answered(values) if self.law.loss.clock is None else values


_FAR = (
    "the clock of this loss was not solved: its residual is NaN, or jumps or turns where no kink is announced, or its "
    "events lie too close, or its digits cancel; name such margins in the `kinks` of the loss, and write a residual that "
    "keeps its relative precision, such as 1/cosh(m)^2 for 1 - tanh(m)^2"
)


def _gone(loss: Loss, when: str) -> str:
    return f"the flow of the loss {loss.name} leaves the floats {when}; ask for earlier times"


def answered(values):
    """`values`, arrays; `ConvergenceError` (a runtime error inside jit) where one of them is NaN."""
    lost = jnp.any(
        jnp.stack([jnp.isnan(value).any() for value in jax.tree.leaves(eqx.filter(values, eqx.is_inexact_array))])
    )
    if not is_concrete(lost):
        return eqx.error_if(values, lost, _FAR)
    if bool(lost):
        raise ConvergenceError(_FAR)
    return values


def lane_logits(pieces: PiecewiseClock, t: Float[Array, "*batch lanes"]) -> tuple[Array, Array]:
    """The logit u of every network at its own times, and t du/dt = t rate g(u) sqrt(u^2 + 4 rise fall) there."""
    logit = _state(pieces, t, False)[1]
    piece, tau = _place(pieces, t)
    rise, fall = (_of(values, piece) for values in (pieces.rise, pieces.fall))
    speed = pieces.law.loss.residual(logit) * jnp.hypot(logit, 2 * jnp.sqrt(rise) * jnp.sqrt(fall))
    return logit, tau * speed


def stacked(clocks: Sequence[PiecewiseClock]) -> PiecewiseClock:
    """Clocks of one kind stacked into one, [classes, *batch]; missing pieces are filled with pieces that never start."""
    most = max(clock.start.shape[-1] for clock in clocks)

    def padded(values, fill):
        return jnp.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, most - values.shape[-1])], constant_values=fill)

    fills = {"start": jnp.inf, "angle": 0.0, "rise": 0.0, "fall": 0.0}
    leaves = [jnp.stack([padded(getattr(clock, name), fill) for clock in clocks]) for name, fill in fills.items()]
    return PiecewiseClock(clocks[0].law, jnp.stack([clock.rate for clock in clocks]), *leaves)


def _of(values: Float[Array, "*batch pieces"], piece: Int[Array, "*batch times"]) -> Float[Array, "*batch times"]:
    """The value of each time's piece; without a gather if there is only one piece."""
    if values.shape[-1] == 1:
        return jnp.broadcast_to(values, piece.shape)
    return jnp.take_along_axis(values, piece, axis=-1)


def _place(pieces: PiecewiseClock, t: Float[Array, "... times"]):
    """The piece of each time, and the time tau."""
    tau = jnp.minimum(pieces.rate[..., None] * t, jnp.finfo(t.dtype).max)
    piece = jnp.sum(pieces.start[..., None, :] <= tau[..., None], axis=-1, dtype=jnp.int32) - 1
    return piece, tau


_TURNS = 32  # of the search for a state, about


def _passes(pieces: PiecewiseClock, t: Array, want_angle: bool) -> int:
    """How many numbers the search for the states at `t`, and the tables for it, go over."""
    lanes = pieces.rate.size * t.shape[-1]
    return _TURNS * (max(lanes, t.size) + pieces.start.size)


@quick_jit(static_argnums=2, passes=_passes)
def _state(pieces: PiecewiseClock, t: Float[Array, "... times"], want_angle: bool):
    piece, tau = _place(pieces, t)
    since = tau - _of(pieces.start, piece)
    moved, logit = pieces.law.clock.states_at(pieces.rise, pieces.fall, piece, since, want_angle)
    return _of(pieces.angle, piece) + moved, logit


@quick_jit(static_argnums=2)
def _error(pieces: PiecewiseClock, t: Float[Array, "... times"], shift: float):
    piece, tau = _place(pieces, t)
    since = tau - _of(pieces.start, piece)
    logit = pieces.law.clock.states_at(pieces.rise, pieces.fall, piece, since, False)[1]
    rise, fall = (_of(values, piece) for values in (pieces.rise, pieces.fall))
    return pieces.law.clock.error_at(rise, fall, since, logit, shift)


@quick_jit()
def _times_to(pieces: PiecewiseClock, target: Float[Array, "*batch lanes"]):
    at_start = jnp.where(jnp.isfinite(pieces.start), pieces.rise - pieces.fall, jnp.inf)
    piece = jnp.sum(at_start[..., None, :] <= target[..., None], axis=-1) - 1
    there_at_start = at_start[..., :1] >= target
    piece = jnp.maximum(piece, 0)
    start, rise, fall = (_of(values, piece) for values in (pieces.start, pieces.rise, pieces.fall))
    tau = pieces.law.clock.arrival_of(rise, fall, jnp.where(there_at_start, -jnp.inf, target))
    never = tau == jnp.inf
    if pieces.law.clock.pulls_back:  # a logit above its rest falls, so it never reaches a higher one
        never |= at_start[..., :1] > pieces.law.clock.rest
    tau = jnp.where(there_at_start, 0, jnp.where(never, jnp.inf, start + jnp.where(never, 0, tau)))
    return in_time(tau, pieces.rate[..., None])


def count_pieces(leaves: Bool[Array | np.ndarray, "*batch h"]) -> int:
    """The number of pieces for the events of every network: the largest number of leavers, or all neurons if traced.

    Rounded up to a multiple of 8, so that other draws of the same problem find the compiled program again.
    """
    width = leaves.shape[-1]
    if not is_concrete(leaves):
        return width
    return min(width, -(-int(np.max(np.sum(np.asarray(leaves), axis=-1), initial=0)) // 8) * 8)


def is_representable(rise, angle) -> Bool[Array, "..."]:
    """Whether rise e^angle is a finite float. If not, the event comes later than the largest float."""
    limits = jnp.finfo(rise.dtype)
    return jnp.log(jnp.maximum(rise, limits.tiny)) + angle < jnp.log(limits.max) - 4


def faint_floor(dtype) -> float:
    """log of the rise above which neurons that underflow are below its rounding."""
    limits = jnp.finfo(dtype)
    return float(np.log(float(limits.tiny)) - np.log(float(limits.eps))) + 2


def in_time(tau: Array, rate: Array) -> Array:
    """`tau` / `rate`, inf where tau is inf: only finite times are divided, because the derivative of inf / rate is NaN.

    >>> float(jax.grad(lambda rate: jnp.sum(in_time(jnp.array([jnp.inf, 2.0]), rate)[1:]))(jnp.float32(1.0)))
    -2.0
    """
    never = tau == jnp.inf
    return jnp.where(never, jnp.inf, jnp.where(never, 0, tau) / rate)


def check_times(t, dtype) -> Array:
    """`t` as an array of `dtype`; negative, NaN and infinite times are a `ValueError` (a runtime error inside jit)."""
    array = readable("t", t)
    if is_concrete(array):
        values = np.asarray(array, np.float64)
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            raise ValueError(f"times must be finite and >= 0, got t = {values[bad].flat[0]}")
        if (values > float(jnp.finfo(dtype).max)).any():
            raise ValueError(f"t = {values.max()} is beyond {np.dtype(dtype)}; give the problem in float64")
        return jnp.asarray(values, dtype)
    t = jnp.asarray(array, dtype)
    return eqx.error_if(t, ~(jnp.isfinite(t) & (t >= 0)), "times must be finite and >= 0")
