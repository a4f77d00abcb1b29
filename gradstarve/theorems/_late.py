"""Training far out in time: descent whose step grows with the time run, so that t = 1e20 is a few thousand steps away.

Late in training a logit moves by a constant over t, and a step of `PART` t moves it as little as a first step does: this is
Euler's method in log t. Its one systematic error is a clock that is slow: with a speed that falls like 1/t each step is
taken at the speed of its beginning, and the times given here are those of the flow to the next order, (1 + PART/2) t.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.problem import Dataset, Network
from gradstarve.simulation import Trajectory
from gradstarve.theorems import _running as running
from gradstarve.theorems._sampling import RECORDS

PART = 0.02
STEPS = 2400
BY_LATE = "simulate: descent on all weights by automatic differentiation, with steps of 2 % of the time run"


class _Growing(eqx.Module):
    """The update of an optax transformation: a step of `PART` t, and of `PART` `first` as long as t < `first`."""

    first: Float[Array, ""]

    def __call__(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        size = PART * self.first * (1 + PART) ** jnp.maximum(state - 1 / PART, 0)
        return jax.tree.map(lambda leaf: -size * leaf, updates), state + 1


def _count(params: Any) -> Array:
    """How many steps there have been."""
    return jnp.zeros(())


def train_late(data: Dataset, network: Network, loss: str, first: float) -> tuple[Trajectory, np.ndarray]:
    """A run to t = 3e20 `first`, and the times [5] of its records, networks included; the first record is the start.

    `first` is a time by which descent of step `PART` `first` has left the start behind: a few units of 1/(p r).
    """
    import optax

    steps = np.arange(STEPS)
    sizes = PART * first * (1 + PART) ** np.maximum(steps - 1 / PART, 0)
    times = np.append(0, np.cumsum(sizes))[:: STEPS // RECORDS] * (1 + PART / 2)
    dynamics = optax.GradientTransformation(_count, _Growing(jnp.asarray(first, float)))
    run = running.simulate(data, network, loss, dynamics, STEPS, STEPS // RECORDS, record_networks=True, progress=False)
    return run, times
