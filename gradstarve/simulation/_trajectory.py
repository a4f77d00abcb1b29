"""The result of a simulation: the recorded logits, and the networks at the start, at the end and perhaps at all records."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from gradstarve.ground import is_concrete, readable, shown
from gradstarve.problem import ClassDataset, Dataset, Loss, NetworkCurve, PhasedCurve, Phases


class Trajectory(NetworkCurve):
    """A recorded run: f(x_i) at every entry of `grid`, for a batch of networks.

    - `grid`: [records], the step numbers 0, K, 2K, ..., steps of a descent or the times of a flow, in rising order
      (time t of the flow corresponds to step number t / step_size);
    - `recorded`: [*batch, records, n], the logits (of a softmax network [*batch, records, n, K]); `.logits()` is of this
      shape, `.margins()` is [*batch, records, n], `.error()`, `.loss()` and `.mistakes()` are [*batch, records];
    - `initial`, `final`: the networks at the start and at the last entry of `grid`;
    - `data`, `loss_function`: the problem, in the precision in which it was run;
    - `networks`: the network at every entry of `grid`, batch axes [*batch, records], or None without `record_networks`;
    - `dynamics`: the `Steps` of the run, such as `GradientDescent`; None for a flow or an optimiser of optax.

    Every method of `LearningCurve` takes t = None (the whole grid), a scalar, or an array of any shape, and gives
    [*batch, *t.shape, ...]. A t that was not recorded is a `ValueError` that names its recorded neighbours: nothing is
    interpolated, and `time_to_error`, `time_to_loss` give the first record at the level. Times match up to rounding.

    >>> from gradstarve.problem import TwoLayerReLU, datasets
    >>> from gradstarve.simulation import simulate_flow
    >>> network = TwoLayerReLU(w=[[1.0, 0.0], [-1.0, 0.0]], z=[1.0, -1.0])
    >>> run = simulate_flow(datasets.antipodal(), network, "hinge", times=[0.0, 1.0, 2.0])
    >>> run.margins(0.0).tolist(), run.error().shape, run.mistakes([0.0, 2.0]).tolist()
    ([1.0, 1.0], (3,), [0.0, 0.0])
    """

    grid: Shaped[Array | np.ndarray, " records"]
    recorded: Float[Array, "..."]
    # Networks of the class that was trained.
    initial: Any
    final: Any
    data: Dataset | ClassDataset
    loss_function: Loss
    networks: Any = None
    dynamics: Any = None

    def logits(self, t: Any = None) -> Float[Array, "..."]:
        """f(x_i) at the recorded t: [*batch, *t.shape, n], or of all, [*batch, records, n]; K classes add an axis."""
        if t is None:
            return self.recorded
        return self.recorded[(slice(None),) * len(self.initial.batch_shape) + (self._index(t),)]

    def network(self, t: Any = None) -> Any:
        """The network or networks at the recorded t: batch axes [*batch, *t.shape]; None is the whole grid.

        Without `record_networks=True` only t = 0 and the last entry of the grid are available, others are a `ValueError`.
        """
        if self.networks is not None:
            index = slice(None) if t is None else self._index(t)
            axes = len(self.initial.batch_shape)
            return jax.tree.map(lambda leaf: leaf[(slice(None),) * axes + (index,)], self.networks)
        wanted = None if t is None else self._number(t)
        if wanted is not None and wanted.ndim == 0:
            if wanted == 0:
                return self.initial
            if self._index(wanted) == self.grid.shape[0] - 1:
                return self.final
        asked = "the whole grid" if wanted is None else np.array2string(wanted, threshold=6)
        raise ValueError(
            f"the networks at t = {asked} were not kept: without record_networks=True there are only the first, "
            f".network(0), and the last, .network({self.grid[-1]})"
        )

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.initial.batch_shape

    @property
    def _dtype(self) -> Any:
        return self.recorded.dtype

    @property
    def _unit(self) -> str:
        return "time" if jnp.issubdtype(self.grid.dtype, jnp.floating) else "step"

    def _time_to(self, what: str, level: Array, max_steps: int) -> Array:
        found = self.error() if what == "error" else self.loss()
        reached = found[..., None] <= level.reshape(-1)  # [*batch, records, levels]
        first = jnp.asarray(self.grid, level.dtype)[jnp.argmax(reached, axis=-2)]
        return jnp.where(jnp.any(reached, axis=-2), first, jnp.inf).reshape(*self._batch, *level.shape)

    def _number(self, t: Any) -> np.ndarray:
        found = readable("t", t)
        if not (is_concrete(found) and is_concrete(self.grid)):
            raise ValueError("a record is looked up by t outside jit and vmap; inside them use .logits(), the whole grid")
        wanted = np.asarray(found)
        if wanted.dtype.kind == "b":
            raise ValueError(f"t must be a number or an array of numbers, got {shown(t)}")
        if np.isnan(wanted).any():
            raise ValueError(f"t must be recorded, got {shown(t)}, which is or has NaN")
        return wanted

    def _index(self, t: Any) -> np.ndarray:
        """The places of `t` in the grid, [*t.shape]."""
        wanted, grid = self._number(t), np.asarray(self.grid)
        if grid.dtype.kind == "f":
            # A time is the same after rounding to the grid's precision, or an ulp or two of arithmetic (3 * 0.1).
            slack = 4 * np.finfo(grid.dtype).eps * np.abs(wanted)
        else:
            slack = 0.0
        place = np.searchsorted(grid, wanted)
        above, below = np.minimum(place, grid.size - 1), np.maximum(place - 1, 0)
        index = np.where(np.abs(grid[below] - wanted) < np.abs(grid[above] - wanted), below, above)
        found = np.abs(grid[index] - wanted) <= slack
        if not found.all():
            first = np.unravel_index(np.argmin(found), found.shape)
            neighbours = " and ".join(str(value) for value in np.unique(grid[[below[first], above[first]]]))
            raise ValueError(
                f"t = {wanted[first]} was not recorded; recorded nearest to it: {neighbours} "
                f"(the grid holds {grid.size} values from {grid[0]} to {grid[-1]}). "
                "Ask for one of them, or record more often"
            )
        return index


class PhasedTrajectory(PhasedCurve, Trajectory):
    """The run of `simulate` or `simulate_flow` on phases [(until, data), ...]: margins, error and loss use the data at t.

    `parts`: the `Trajectory` of each phase, whose grid begins at 0; `data`: the data of the first phase.
    """

    phases: Phases = None  # pyright: ignore[reportAssignmentType]
    parts: tuple[Trajectory, ...] = ()

    def _when(self, t: Any) -> Any:
        # The t of the record: the time 3 * 0.1 belongs to the phase that ends at 0.3.
        return self.grid if t is None else np.asarray(self.grid)[self._index(t)]


def joined(phases: Phases, parts: list[Trajectory], grid: Any = None) -> PhasedTrajectory:
    """The runs of all phases, one after the other; the last record of a phase is the first record of the next.

    `grid`: for a flow, the recorded times, which sums of the phases' grids would round.
    """
    first, axes = parts[0], len(parts[0].initial.batch_shape)
    rest = (slice(None),) * axes + (slice(1, None),)

    def together(name: str) -> Any:
        runs = [getattr(part, name) for part in parts]
        if runs[0] is None:
            return None
        later = [jax.tree.map(lambda leaf: leaf[rest], run) for run in runs[1:]]
        return jax.tree.map(lambda *leaves: jnp.concatenate(leaves, axis=axes), runs[0], *later)

    grids, since = [first.grid], 0
    for before, part in pairwise(parts):
        since += int(before.grid[-1])
        grids.append(part.grid[1:] + since)
    return PhasedTrajectory(
        grid=np.concatenate(grids) if grid is None else grid,
        recorded=together("recorded"),
        initial=first.initial,
        final=parts[-1].final,
        data=first.data,
        loss_function=first.loss_function,
        networks=together("networks"),
        dynamics=first.dynamics,
        phases=phases,
        parts=tuple(parts),
    )
