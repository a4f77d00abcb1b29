"""Training, as the catalogue does it: the independent simulators with one accuracy and one set of shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import ClassDataset, Dataset, Dynamics, GradientDescent, Network, TwoLayerReLU, as_loss
from gradstarve.simulation import Trajectory, batch_loss, simulate, simulate_flow, simulate_hinge_exact
from gradstarve.theorems._entry import Quote

FLOW_TOLERANCE = 1e-8
BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network"
WHY_FLOW = (
    "the integrator keeps a local error of 1e-12, which thousands of steps and the crossings of activity boundaries "
    "(10 to 1000 times the local error each) turn into at most 1e-9; ten times that"
)
_MOST_STEPS = 3000


def flow_rtol() -> float:
    """Local error of the integrator. Crossing an activity boundary or the hinge's kink costs 10 to 1000 times as much."""
    return 1e-12 if jax.config.jax_enable_x64 else 2e-6  # pyright: ignore[reportAttributeAccessIssue]


def train_flow(data: Dataset | ClassDataset, network: Network, loss: str, times: Any) -> tuple[Trajectory, np.ndarray]:
    """The flow of all weights at `times` > 0, and which networks [b] the integrator gave up on (sliding boundaries)."""
    run = simulate_flow(
        data,
        network,
        loss,
        np.asarray(times, np.float64),
        rtol=flow_rtol(),
        max_steps=_MOST_STEPS,
        progress=False,
        throw=False,
    )
    gone = [np.isnan(np.asarray(leaf)) for leaf in jax.tree.leaves(run.final)]
    gone.append(~np.isfinite(np.asarray(run.recorded)))
    return run, np.any([lost.reshape(lost.shape[0], -1).any(-1) for lost in gone], axis=0)


def train_exact(data: Dataset, network: TwoLayerReLU, times: Any) -> Any:
    """The hinge flow of a batch of networks from event to event, a `HingeTrajectory`; NaN for what can not be followed."""
    return simulate_hinge_exact(data, network, np.asarray(times, np.float64), throw=False)


def train_descent(
    data: Dataset | ClassDataset, network: Network, loss: str, step_size: Any, steps: int, every: int
) -> Trajectory:
    """Gradient descent of all weights by automatic differentiation; `step_size` a number or [b]."""
    return train(data, network, loss, GradientDescent(step_size), steps, every)


def train(
    data: Dataset | ClassDataset, network: Network, loss: str, dynamics: Dynamics, steps: int, every: int, key: Any = None
) -> Trajectory:
    """Descent with any `dynamics`, whose numbers are single or [b]; `key` for those that draw at random."""
    if key is not None:
        key = jax.random.key_data(key)  # plain numbers, by which a run can be known again
    return simulate(data, network, loss, dynamics, steps, every, key, progress=False, throw=False)


def descent_gradient(data: Dataset, network: TwoLayerReLU, loss: str) -> TwoLayerReLU:
    """minus the gradient of the loss of each network, by automatic differentiation: the direction of the flow."""
    function = as_loss(loss)
    field = jax.vmap(jax.grad(lambda net: batch_loss(net, data, function)))(network)
    return jax.tree.map(jnp.negative, field)


def furthest(
    quantity: str, times: Any, found: np.ndarray, lost: np.ndarray, law: np.ndarray, scale: Any
) -> tuple[Quote, int]:
    """What to quote of trained logits `found` [b, records] where they are furthest from `law`, and of which network: the
    gap is |u - u_law| / (|u_law| + scale), as in `law_gaps`, `scale` [b]; what was `lost` [b] counts for nothing."""
    unit = np.abs(law) + np.asarray(scale)[:, None]
    gap = np.where(lost[:, None], -np.inf, np.abs(found - law) / unit)
    i, k = (int(v) for v in np.unravel_index(np.argmax(gap), gap.shape))
    return Quote(quantity, f"at t = {times[k]:.4g}", law[i, k], found[i, k], unit[i, k]), i


def law_gaps(
    data: Dataset, network: TwoLayerReLU, loss: str, run: Trajectory, scale: Any, dynamics: Any = None
) -> tuple[np.ndarray, Any]:
    """How far `theory.solve` is from a trained `run`, [b], and a function giving both sides of trial i.

    The larger of |u - u_law| / (|u_law| + scale) over the records and points, `scale` [b] being r sum (a^2 + z^2)/2 at
    the start, and of the last network's weights against the law's, relative to the root of their sum of squares.
    """
    grid = np.asarray(run.grid)
    solution = theory.solve(data, network, loss, dynamics)
    expected, found = np.asarray(solution.logits(grid)), np.asarray(run.recorded)
    size = np.abs(expected) + np.where(scale > 0, scale, 1)[:, None, None]
    gaps = np.max(np.abs(found - expected) / size, axis=(-1, -2))

    law = solution.network(grid)  # at all records, as the logits: one shape, one compilation
    w_law, z_law = np.asarray(law.w)[:, -1], np.asarray(law.z)[:, -1]
    final: Any = run.final
    w, z = np.asarray(final.w), np.asarray(final.z)
    length = np.sqrt(np.sum(w_law**2, axis=(-1, -2)) + np.sum(z_law**2, axis=-1))
    moved = np.maximum(np.abs(w - w_law).max(axis=(-1, -2)), np.abs(z - z_law).max(axis=-1))
    gaps = np.maximum(gaps, moved / np.where(length > 0, length, 1))

    def sides(i: int) -> dict[str, Any]:
        return {"times" if dynamics is None else "steps": grid, "law": expected[i], "trained": found[i]}

    return gaps, sides
