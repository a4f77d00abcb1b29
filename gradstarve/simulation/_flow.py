"""`simulate_flow`: gradient flow of all weights by an adaptive Runge-Kutta method, without any closed form."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.ground import (
    ConvergenceError,
    Progress,
    as_flag,
    as_number,
    is_concrete,
    positive_int,
    readable,
    shown,
    which_network,
)
from gradstarve.problem import Phases, are_phases, as_phases
from gradstarve.simulation._simulate import check_problem, ends_within, overflown
from gradstarve.simulation._trajectory import PhasedTrajectory, Trajectory, joined
from gradstarve.special import rest_after

_DEFAULT_RTOL = {"float32": 1e-5, "float64": 1e-10}


def simulate_flow(
    data: Any,
    network: Any,
    loss: Any,
    times: Any,
    *,
    rtol: Any = None,
    atol: Any = None,
    max_steps: Any = 20_000,
    record_networks: bool = False,
    progress: Any = None,
    throw: bool = True,
) -> Trajectory:
    """Integrate the gradient flow (1.2) of L = sum_i q_i l(y_i f(x_i)), labels ±1, from time 0, and record `times`.

    - `data`: a `Dataset` of n points, or a `ClassDataset` for a softmax network; or phases [(until, data), ...] as in
      `simulate`, each until a time (21.1): the ends of phases are recorded too;
    - `network`: any `Network` of `gradstarve` (`TwoLayerReLU`, `DeepReLU`, `SoftmaxTwoLayer`, ...), with or without batch
      axes;
    - `loss`: a `Loss` or its name;
    - `times`: a number or a rising sequence of them, >= 0 (a time of the flow is step_size * step of descent);
    - `rtol`, `atol`: every weight is integrated to the local error atol + rtol * |weight|. Default rtol is 1e-10 in
      float64 and 1e-5 in float32; default atol is rtol times the root mean square of the network's initial weights, so
      that small initial weights are followed as accurately as large ones;
    - `max_steps`: the most steps of the integrator per network, rejected steps included;
    - `record_networks`, `progress`: as in `simulate`, progress in units of time;
    - `throw`: whether a network that needs more steps raises an error; with False its missing records are NaN.

    The result is a `Trajectory` whose `grid` is `times`: logits [*batch, records, n], in the wider precision of `data`
    and `network`. The method is of order 8 (of order 5 for rtol above 1e-6) and steps onto each recorded time.

    The field jumps where a neuron passes w_j.x_i = 0 and, for the hinge loss, where a margin passes 1. The step size
    there falls until the jump costs no more than the tolerance, which takes some forty steps per crossing; the global error
    is 10 to 1000 times rtol. Where the flow on both sides points back to the jump, the flow slides along it, and the
    integrator stalls: `ConvergenceError`. On orthogonally separable data neurons do not slide under a loss with g >= 0
    (2.0); under the squared loss neurons of a class with margins above 1 can slide, and under the hinge loss a margin can.

    `ValueError` for arguments that do not fit each other, for times that are negative, unsorted or not finite, and for
    an rtol below ten roundings of the precision; `ConvergenceError` when `max_steps` do not suffice.

    >>> from gradstarve.problem import datasets, init_two_layer
    >>> nets = init_two_layer(jax.random.key(0), batch=5, width=4, dim=2)
    >>> run = simulate_flow(datasets.antipodal(), nets, "cross-entropy", times=[0, 1, 4])
    >>> run.logits().shape, run.error(4.0).shape
    ((5, 3, 2), (5,))
    >>> w, z = run.final.w, run.final.z  # |w_j|^2 - z_j^2 is conserved (1.3)
    >>> drift = (w**2).sum(-1) - z**2 - ((nets.w**2).sum(-1) - nets.z**2)
    >>> bool(abs(drift).max() < 1e-3)
    True
    """
    phases = as_phases(data, whole=False) if are_phases(data) else None
    for one in [data] if phases is None else phases.data:
        _, network, loss = check_problem(one, network, loss)
    dtype = network.dtype
    grid = check_times(times, dtype)
    rtol = _check_tolerance("rtol", _DEFAULT_RTOL[dtype.name] if rtol is None else rtol)
    least = 10 * float(jnp.finfo(dtype).eps)
    if rtol < least:
        advice = "; use float64" if dtype == np.float32 else ""
        raise ValueError(f"rtol must be at least {least:.2g} in {dtype.name}, got {rtol}{advice}")
    max_steps = positive_int("max_steps", max_steps)
    record_networks, throw = as_flag("record_networks", record_networks), as_flag("throw", throw)
    axes = len(network.batch_shape)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), network)
    if atol is None:
        leaves = jax.tree.leaves(flat)
        squares = sum(jnp.sum(leaf**2, tuple(range(1, leaf.ndim))) for leaf in leaves)
        scale = jnp.sqrt(squares / sum(math.prod(leaf.shape[1:]) for leaf in leaves))
        # A network of zeros does not move, so that any positive number will do.
        atols = rtol * jnp.where(scale > 0, scale, 1)
    else:
        atols = jnp.full(flat.batch_shape, _check_tolerance("atol", atol), dtype)
    how = (rtol, atols, max_steps, record_networks, progress, throw)
    used = jnp.zeros(flat.batch_shape, jnp.int32)
    if phases is None:
        return _integrate(check_problem(data, network, loss)[0], network, loss, grid, used, *how)[0]
    return _through_phases(phases, network, loss, grid, used, *how)


def _through_phases(
    phases: Phases, network: Any, loss: Any, grid: np.ndarray, used: Array, *how: Any
) -> PhasedTrajectory:
    """The runs of the phases, each from the final network of the one before."""
    ends = np.asarray(ends_within(phases, float(grid[-1]), "time"), grid.dtype)
    # The ends in the precision of the grid: the last bits decide which phase a record belongs to.
    phases = Phases(phases.data, (*map(float, ends[:-1]), phases.until[-1]))
    grid = np.sort(np.append(grid, ends[~np.isin(ends, grid)]))
    datas = [check_problem(data, network, loss)[0] for data in phases.data]
    parts, begin = [], ends[0] * 0
    for number, (data, end) in enumerate(zip(datas, ends, strict=True)):
        own = grid[(grid <= end) & (grid > begin)] - begin if number else grid[grid <= end]
        part, used = _integrate(data, network, loss, np.append(0 * own[:1], own) if number else own, used, *how)
        parts.append(part)
        network, begin = part.final, end
    return joined(phases, parts, grid)


def _integrate(
    data: Any,
    network: Any,
    loss: Any,
    grid: np.ndarray,
    used: Array,
    rtol: float,
    atols: Array,
    max_steps: int,
    record_networks: bool,
    progress: Any,
    throw: bool,
) -> tuple[Trajectory, Array]:
    """The run, and the steps of the integrator that each network has `used` so far."""
    # Importing diffrax takes as long as all other imports, and only a flow needs it.
    from gradstarve.simulation._integrator import integrate

    dtype = network.dtype
    batch, axes = network.batch_shape, len(network.batch_shape)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), network)
    knots, place = np.unique(grid, return_inverse=True)  # the integrator wants each time once
    logits, networks = [], []
    if knots[0] == 0:
        logits.append(flat(data.points)[:, None])
        networks.append(jax.tree.map(lambda leaf: leaf[:, None], flat))
    knots = knots[knots > 0]
    watched = all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network)))
    last = flat
    with Progress(progress if watched else False, float(grid[-1]), "integrating") as report:
        per = -(-max(knots.size, 1) // report.pieces(_GUESS_SECONDS, most=10))
        for first in range(0, knots.size, per):
            piece = knots[first : first + per]
            since = knots[first - 1] if first else np.zeros((), dtype)
            last, seen, nets, taken = integrate(
                last,
                data,
                loss,
                since,
                piece,
                jnp.asarray(rtol, dtype),
                atols,
                rtol > 1e-6,
                max_steps,
                record_networks,
                not watched,
            )
            used = used + taken
            if watched and throw:
                _raise_if_stuck(flat, data, seen, used, piece, batch, max_steps)
                _raise_if_faded(flat, data, loss, seen, piece, batch)
            logits.append(seen)
            networks.append(nets)
            report.update(float(piece[-1]))

    def gather(parts):
        """[b, distinct times, ...] in parts -> [*batch, records, ...]"""
        whole = jnp.concatenate(parts, axis=1)[:, place]
        return whole.reshape(*batch, *whole.shape[1:])

    run = Trajectory(
        grid=grid,
        recorded=gather(logits),
        initial=network,
        final=jax.tree.map(lambda leaf: leaf.reshape(*batch, *leaf.shape[1:]), last),
        data=data,
        loss_function=loss,
        networks=jax.tree.map(lambda *parts: gather(parts), *networks) if record_networks else None,
    )
    return run, used


# A run takes from a second to hours, which cannot be predicted, so the run is always cut into pieces for the bar.
_GUESS_SECONDS = 2.5


def check_times(times: Any, dtype: Any) -> np.ndarray:
    """The recorded times, [records], in the precision of the run."""
    wanted = "times must be a number or a non-empty sequence of them"
    try:
        found = readable("times", times)
    except ValueError as error:
        raise ValueError(f"{wanted}, got {shown(times)}") from error
    if not is_concrete(found):
        raise ValueError("times must be known outside jit and vmap; close over them instead of passing them in")
    values = np.asarray(found)
    if values.dtype.kind == "b" or values.ndim > 1 or values.size == 0:
        raise ValueError(f"{wanted}, got {shown(times)}")
    values = np.atleast_1d(values).astype(np.float64)
    if not np.isfinite(values).all() or (values < 0).any():
        bad = values[~np.isfinite(values) | (values < 0)][0]
        raise ValueError(f"times must be finite and >= 0 (the network given is the one at time 0), got {bad}")
    falls = np.flatnonzero(np.diff(values) < 0)
    if falls.size:
        i = falls[0]
        raise ValueError(
            f"times must not fall, but times[{i}] = {values[i]} is followed by {values[i + 1]}; give np.sort(times)"
        )
    with np.errstate(over="ignore"):
        cast = values.astype(dtype)
    if not np.isfinite(cast).all():
        raise ValueError(f"times = {values[~np.isfinite(cast)][0]} is beyond {np.dtype(dtype)}; give the problem in float64")
    return cast


def _check_tolerance(name: str, value: Any) -> float:
    try:
        return as_number(name, value, 0, 1, with_low=False, with_high=False)
    except ValueError:
        raise ValueError(f"{name} must be a number between 0 and 1, got {shown(value)}") from None


def _raise_if_stuck(
    start: Any, data: Any, seen: Array, used: Array, times: np.ndarray, batch: tuple[int, ...], max_steps: int
) -> None:
    """`ConvergenceError` that names the first network that did not reach the end of the piece, and how far it got."""
    missing = np.asarray(np.isnan(np.asarray(seen)).any(axis=tuple(range(2, seen.ndim))))  # [b, records]
    missing[np.asarray(used) > max_steps, -1] = True
    if not missing.any():
        return
    network = int(np.flatnonzero(missing.any(-1))[0])
    if not np.isfinite(np.asarray(start[network](data.points))).all():
        raise overflown(network, batch, seen.dtype)
    which = which_network(np.unravel_index(network, batch))
    raise ConvergenceError(
        f"the flow of {which} did not reach time {times[missing[network]][0]} in max_steps = {max_steps} "
        f"steps ({int(missing.any(-1).sum())} of {missing.shape[0]} networks so far). If a margin of the hinge loss or "
        "the edge of a neuron slides, no step is small enough: use simulate with a small step size; otherwise raise "
        "max_steps or rtol, or keep what there is with throw=False"
    )


def _raise_if_faded(start: Any, data: Any, loss: Any, seen: Array, times: np.ndarray, batch: tuple[int, ...]) -> None:
    """`ConvergenceError` if a residual that is never 0 has underflowed while it would still move the weights."""
    kind = jnp.finfo(seen.dtype)
    late = times * float(kind.tiny) * float(jnp.max(jnp.sum(data.points**2, axis=-1))) > float(kind.eps)
    rest = loss.rest
    if not late.any() or any(map(np.ndim, jax.tree.leaves((loss, rest)))):
        return
    if rest is None:
        rest = rest_after(loss, data.margins(start(data.points)))[:, None]
    # q_i g_i is the first factor of a weight's derivative to underflow.
    pulls = data.weights * loss.residual(data.margins(seen))
    gone = np.asarray(jnp.any((pulls < 16 * kind.tiny) & (rest == jnp.inf), axis=-1)) & late
    if gone.any():
        network, record = np.argwhere(gone)[0]
        which = which_network(np.unravel_index(network, batch))
        wider = ", use float64" if seen.dtype == np.float32 else ""
        raise ConvergenceError(
            f"by time {times[record]} a residual of {which} is below the smallest {seen.dtype}, so that its slow growth is "
            f"lost; ask for earlier times{wider}, or keep what there is with throw=False"
        )
