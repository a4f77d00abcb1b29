"""The clock of one class between the events at which neurons leave or join it: a list of (3.2) pieces.

Inside a piece the logit is rise e^s - fall e^-s, s counted from its start. All times here are tau = 2 p r t.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.arrays import is_concrete
from gradstarve.special import clock, expclock


class PiecewiseClock(eqx.Module):
    """Pieces 0..K of one class: `start` tau_k (inf: never), `angle` accumulated until then, `rise`, `fall` at the start.

    All four are [*batch, K+1]; `rate` = 2 p r is [*batch]; `kind` names the loss. Pieces that never start hold zeros.
    """

    kind: str = eqx.field(static=True)
    rate: Float[Array, "*batch"]
    start: Float[Array, "*batch pieces"]
    angle: Float[Array, "*batch pieces"]
    rise: Float[Array, "*batch pieces"]
    fall: Float[Array, "*batch pieces"]

    def state(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(accumulated angle, logit) at times t, each [*batch, *t.shape]."""
        t = check_times(t, self.rate.dtype)
        tau = jnp.minimum(self.rate[..., None] * t.reshape(-1), jnp.finfo(t.dtype).max)
        piece = jnp.sum(self.start[..., None, :] <= tau[..., None], axis=-1) - 1
        start, angle, rise, fall = (
            jnp.take_along_axis(values, piece, axis=-1)
            for values in (self.start, self.angle, self.rise, self.fall)
        )
        moved, logit = clock.state_at(self.kind, rise, fall, tau - start)
        shape = (*self.rate.shape, *t.shape)
        return (angle + moved).reshape(shape), logit.reshape(shape)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """First t with a logit of at least `logit`: [*batch, *logit.shape]; 0 if it starts there, inf if never."""
        target = jnp.asarray(logit, self.rate.dtype)
        flat = jnp.broadcast_to(target.reshape(-1), (*self.rate.shape, target.size))
        at_start = jnp.where(jnp.isfinite(self.start), self.rise - self.fall, jnp.inf)
        piece = jnp.sum(at_start[..., None, :] <= flat[..., None], axis=-1) - 1
        there_at_start = piece < 0
        piece = jnp.maximum(piece, 0)
        start, rise, fall = (
            jnp.take_along_axis(values, piece, axis=-1) for values in (self.start, self.rise, self.fall)
        )
        safe = jnp.where(there_at_start, rise - fall, flat)
        angle = expclock.angle_at(rise, fall, safe)
        reachable = jnp.isfinite(angle) & ~there_at_start
        angle = jnp.maximum(jnp.where(reachable, angle, 0), 0)
        tau = start + clock.time_of(self.kind, rise, fall, angle)
        tau = jnp.where(there_at_start, 0, jnp.where(reachable, tau, jnp.inf))
        if self.kind == "squared":  # above 1 the logit falls back, so what is not reached at once never is
            above = (self.rise - self.fall)[..., :1] > 1
            tau = jnp.where(above & ~there_at_start & (safe > (self.rise - self.fall)[..., :1]), jnp.inf, tau)
        return (tau / self.rate[..., None]).reshape(*self.rate.shape, *target.shape)


def check_times(t, dtype) -> Array:
    """`t` as an array of `dtype`; negative, NaN and infinite times are a `ValueError` (a runtime error inside jit)."""
    if is_concrete(t):
        values = np.asarray(t, dtype=np.float64)
        bad = ~(np.isfinite(values) & (values >= 0))
        if bad.any():
            raise ValueError(f"times must be finite and >= 0, got t = {values[bad].flat[0]}")
        if (values > float(jnp.finfo(dtype).max)).any():
            raise ValueError(f"t = {values.max()} is beyond {np.dtype(dtype)}; give the problem in float64")
        return jnp.asarray(values, dtype)
    t = jnp.asarray(t, dtype)
    return eqx.error_if(t, ~(jnp.isfinite(t) & (t >= 0)), "times must be finite and >= 0")
