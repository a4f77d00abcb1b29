"""`simulate`: gradient descent and its relatives, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.ground import (
    ConvergenceError,
    Progress,
    as_flag,
    check_normal_rows,
    deprecated,
    is_concrete,
    one_key,
    positive_int,
    some_keys,
    which_network,
)
from gradstarve.problem import (
    ClassDataset,
    CrossEntropy,
    Dataset,
    Dynamics,
    GradientDescent,
    GradientFlow,
    Loss,
    Network,
    Phases,
    Schedule,
    SignDescent,
    Steps,
    StochasticGradientDescent,
    are_phases,
    as_loss,
    as_phases,
    no_dynamics,
)
from gradstarve.simulation._span import Span, left_by_decay
from gradstarve.simulation._trajectory import PhasedTrajectory, Trajectory, joined
from gradstarve.simulation.engines import _choose as engines
from gradstarve.simulation.engines import _reference as reference


@deprecated("data", "network", "loss", "dynamics", "steps", "record_every", "key")
def simulate(
    data: Any,
    network: Any,
    loss: Any,
    dynamics: Any,
    steps: Any,
    *,
    record_every: Any = 1,
    key: Any = None,
    record_networks: bool = False,
    progress: Any = None,
    throw: bool = True,
    engine: str = "auto",
) -> Trajectory:
    """Train every network of a batch for `steps` steps by the gradient of L = sum_i q_i l(m_i), m_i = y_i f(x_i) (1.2).

    - `data`: a `Dataset` of n points (labels ±1), or a `ClassDataset` for a softmax network; or phases [(until, data), ...]
      with the same points, each until a step, the last one until None: task switches and re-weighting (21.1). Velocities,
      optimisers and schedules continue from phase to phase, the ends of phases are recorded too, and margins, error and
      loss are those of the data at t;
    - `network`: any `Network` of `gradstarve` (`TwoLayerReLU`, `DeepReLU`, `SoftmaxTwoLayer`, ...), with or without batch
      axes;
    - `loss`: a `Loss` or its name; for a `ClassDataset` "cross-entropy", which is then softmax cross-entropy;
    - `dynamics`: `GradientDescent`, `NormalizedGradientDescent`, `SharpnessAware`, `SignDescent`, other `Steps` of your own,
      `StochasticGradientDescent` (needs `key`), or an `optax.GradientTransformation` for
      descent on the full batch. Hyperparameters of `Steps` may be arrays of the batch shape, one value per network.
      With step size eta, step k is time eta k of the flow. A step is one update of the optimiser, which gets value, grad,
      value_fn, grad_fn and obj_fn if its update accepts them (`optax.contrib.sam` outside opaque mode leaves its path at
      every other step);
    - `record_every`: K; the steps 0, K, 2K, ... are recorded, and always the last one, `steps`;
    - `key`: one JAX key or an integer (network b of the flattened batch then draws from `fold_in(key, b)`), or keys of
      the batch shape. The draws of network b at step k depend on the key, b and k alone, not on batch size, K or precision;
    - `record_networks`: record the weights too;
    - `progress`: None shows a bar on a terminal if the run takes more than two seconds, True always, False never, and a
      callable gets (done_steps, total_steps);
    - `throw`: whether logits that are not finite raise an error; with False they stay in the record;
    - `engine`: "reference" (autodiff; any network, loss and optimiser), "fused" (`TwoLayerReLU`, the four losses, `Steps` of
      this library with at most one drawn point per step; made for CPUs), "pallas" (as "fused", but slope 0, and
      `GradientDescent` with one step size or one drawn point per step: one GPU kernel for the whole run), or "auto", the
      fastest one that can run the problem. Engines differ by rounding only: all of them treat neurons that are exactly on
      the edge of a point, w . x = 0, in the same way.

    The result is a `Trajectory`: logits [*batch, records, n], for K classes [*batch, records, n, K]. The run has the
    wider precision of `data` and `network` (float64 if one of them is float64); hyperparameters are cast to it.
    Inside jit, grad and vmap there is no progress bar and no check for logits that are not finite.

    `ValueError` for arguments that do not fit each other; `ConvergenceError` for training that diverges.

    >>> from gradstarve.problem import GradientDescent, datasets, init_two_layer
    >>> data = datasets.antipodal(dim=2)
    >>> nets = init_two_layer(jax.random.key(0), batch=100, width=8, dim=2)
    >>> run = simulate(data, nets, "cross-entropy", GradientDescent(0.1), steps=200, record_every=50)
    >>> run.grid.tolist(), run.logits().shape, run.error(200).shape
    ([0, 50, 100, 150, 200], (100, 5, 2), (100,))
    >>> bool((run.loss(200) < run.loss(0)).all())
    True
    """
    steps, every = positive_int("steps", steps), positive_int("record_every", record_every)
    record_networks, throw = as_flag("record_networks", record_networks), as_flag("throw", throw)
    options = {"record_networks": record_networks, "progress": progress, "throw": throw, "engine": engine}
    if are_phases(data):
        return _simulate_phases(data, network, loss, dynamics, steps, every, key, options)
    return _train(data, network, loss, dynamics, steps, every, key, options)[0]


def _simulate_phases(
    given: Any, network: Any, loss: Any, dynamics: Any, steps: int, every: int, key: Any, options: dict[str, Any]
) -> PhasedTrajectory:
    """The runs of the phases, each from the final state of the one before: weights, optimiser state and step number."""
    phases = as_phases(given, whole=True)
    ends = [int(end) for end in ends_within(phases, steps, "step")]
    if isinstance(dynamics, Steps):
        dynamics = dynamics.tabled(steps, jnp.result_type(float))
    parts, state, begin = [], None, 0
    for data, end in zip(phases.data, ends, strict=True):
        part, state = _train(data, network, loss, dynamics, end - begin, every, key, options, state, kept=True)
        if isinstance(dynamics, Steps):
            part = replace(part, dynamics=dynamics.later(begin))
        parts.append(part)
        network, begin = part.final, end
    return joined(phases, parts)


def ends_within(phases: Phases, last: int | float, unit: str) -> list[float]:
    """The end of each phase of a run until `last`, in steps or time; `ValueError` unless the phases fit the run."""
    if phases.until[-2:-1] and phases.until[-2] >= last:
        begins = f"the last phase begins at {unit} {phases.until[-2]:g}"
        raise ValueError(f"{begins}, and the run ends at {last:g}; let it go on for longer")
    if np.isfinite(phases.until[-1]) and phases.until[-1] < last:
        ends_at = f"the last phase ends at {unit} {phases.until[-1]:g}"
        raise ValueError(f"{ends_at}, before {last:g}, where the run does; end it with None")
    return [float(min(end, last)) for end in phases.until]


def _train(
    data: Any,
    network: Any,
    loss: Any,
    dynamics: Any,
    steps: int,
    every: int,
    key: Any,
    options: dict[str, Any],
    state: Any = None,
    kept: bool = False,
) -> tuple[Trajectory, Any]:
    """The run, and the state at its end. `state`: the state to continue from; `kept`: whether a later run continues this."""
    record_networks, throw = options["record_networks"], options["throw"]
    data, network, loss = check_problem(data, network, loss)
    as_given = dynamics if isinstance(dynamics, Dynamics) else None
    if isinstance(dynamics, Steps):
        as_given = dynamics = dynamics.tabled(steps, network.dtype)
    dynamics, keys = _check_dynamics(dynamics, network, key)

    batch, axes = network.batch_shape, len(network.batch_shape)
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[axes:]), network)
    if not isinstance(dynamics, Dynamics):
        _check_optax(flat[0], data, loss, dynamics)
    watched = all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network, dynamics, keys)))
    chosen = engines.choose(options["engine"], data, flat, loss, dynamics, steps)
    span = None
    # A run that continues keeps the given coordinates, because the span of the data may differ between phases.
    if chosen.name != "reference" and watched and not kept:
        span = Span(data, flat, draws=keys is not None, lifts=not isinstance(dynamics, SignDescent))
    decays = span is not None and span.fewer and isinstance(dynamics, GradientDescent) and np.any(dynamics.weight_decay)
    if decays and isinstance(dynamics, Steps) and dynamics.scheduled:
        span = None  # under a schedule, the decay of weights that no point pushes is no power of one matrix
    problem, trained = (data, flat) if span is None else (span.data, span.network)
    state = reference.start(trained, dynamics, keys) if state is None else state
    logits = [_outputs(trained, problem.points)]
    networks = [jax.tree.map(lambda leaf: leaf[None], trained)]
    grid = np.append(np.arange(0, steps, every), steps)
    with Progress(options["progress"] if watched else False, steps, "training") as report:
        if watched and throw:
            _raise_if_diverged(logits[0], grid[:1], batch, dynamics)
        done, recorded = 0, 1
        for records, inner, keep in _plan(steps, every, report.pieces(engines.seconds(trained, problem, steps))):
            state, seen, nets = chosen.advance(state, problem, loss, dynamics, records, inner, record_networks)
            done += records * inner
            if keep:
                logits.append(seen)
                networks.append(nets)
                if watched and throw:
                    _raise_if_diverged(seen, grid[recorded : recorded + records], batch, dynamics)
                recorded += records
            report.update(done)

    left = None
    if span is not None and decays and isinstance(dynamics, GradientDescent):
        left = left_by_decay(dynamics, steps, every)

    def shape(leaf):
        """[b, ...] -> [*batch, ...]"""
        return leaf.reshape(*batch, *leaf.shape[1:])

    final, seen = state.networks, _gather(logits)
    history = _gather(networks) if record_networks else None
    if span is not None:
        final, seen = span.restore(final, None if left is None else left[:, -1]), span.expand(seen)
        history = None if history is None else span.restore(history, left)
    run = Trajectory(
        grid=grid,
        recorded=shape(seen),
        initial=network,
        final=jax.tree.map(shape, final),
        data=data,
        loss_function=loss,
        networks=jax.tree.map(shape, history),
        dynamics=as_given,
    )
    return run, state


@eqx.filter_jit
def _outputs(network: Network, points: Array) -> Array:
    """The first record, [1, b, n, ...]."""
    return network(points)[None]


@eqx.filter_jit
def _gather(parts: list[Any]) -> Any:
    """[records, b, ...] in parts -> [b, records, ...], of every leaf."""
    return jax.tree.map(lambda *leaves: jnp.moveaxis(jnp.concatenate(leaves), 0, 1), *parts)


def check_problem(data: Any, network: Any, loss: Any) -> tuple[reference.AnyData, Network, Loss]:
    """Data and network in one dtype, checked to fit each other, and the loss as a `Loss`."""
    loss = as_loss(loss)
    if not isinstance(data, Dataset | ClassDataset):
        raise ValueError(f"data must be a Dataset, got {type(data).__name__}; give Dataset(points, labels)")
    if not isinstance(network, Network):
        raise ValueError(
            f"network must be a TwoLayerReLU or another Network, got {type(network).__name__}; give TwoLayerReLU(w, z)"
        )
    network.check_described()
    if isinstance(data, ClassDataset):
        _check_classes(data, network, loss)
    elif network.outputs:
        raise ValueError(
            f"a network of {network.outputs[0]} classes needs a ClassDataset(points, classes), got a Dataset with labels ±1"
        )
    if network.dim != data.dim:
        raise ValueError(f"the network has d = {network.dim} inputs but the data have d = {data.dim} coordinates")
    _check_sizes(network)
    dtype = jnp.result_type(data.points, network.dtype)
    data, network = jax.tree.map(lambda leaf: leaf.astype(dtype), (data, network))
    return data, network, loss


def _check_sizes(network: Network) -> None:
    """`ValueError` if all weights of a layer are subnormal: compiled code flushes them to 0, where nothing moves."""
    axes = len(network.batch_shape)
    for path, leaf in jax.tree_util.tree_leaves_with_path(network):
        if is_concrete(leaf) and leaf.size and jnp.issubdtype(leaf.dtype, jnp.floating):
            rows = np.asarray(leaf).reshape(*leaf.shape[:axes], -1)
            check_normal_rows(jax.tree_util.keystr(path).lstrip("."), rows)


def _check_classes(data: ClassDataset, network: Network, loss: Loss) -> None:
    if not network.outputs:
        raise ValueError(
            f"a ClassDataset needs a network with one output a class, such as SoftmaxTwoLayer, got {type(network).__name__}"
        )
    if type(loss) is not CrossEntropy:
        raise ValueError(
            'several classes are trained with the softmax, loss "cross-entropy", got '
            f"{getattr(loss, 'name', '')!r} of type {type(loss).__name__}"
        )
    if is_concrete(data.classes) and np.asarray(data.classes).max() >= network.outputs[0]:
        raise ValueError(
            f"the network has K = {network.outputs[0]} outputs but the data have a class "
            f"{int(np.asarray(data.classes).max())}; classes are 0, ..., K - 1"
        )


def _check_dynamics(dynamics: Any, network: Network, key: Any) -> tuple[Any, Array | None]:
    """The dynamics with one value of each hyperparameter per network, [b], and one key per network for random draws."""
    accepted = "GradientDescent, another dynamics in steps, or an optax.GradientTransformation"
    batch = network.batch_shape
    if isinstance(dynamics, GradientFlow):
        raise ValueError("dynamics is GradientFlow, which has no steps; use simulate_flow(data, network, loss, times)")
    if isinstance(dynamics, type):
        raise no_dynamics(accepted, dynamics)
    stochastic = isinstance(dynamics, StochasticGradientDescent)
    if not stochastic and key is not None:
        raise ValueError(f"key was given, but {type(dynamics).__name__} draws nothing at random; leave it out")
    if isinstance(dynamics, Steps):
        dynamics.check_batch(batch)
        dynamics = _flat(dynamics.spread(batch, network.dtype), int(np.prod(batch)))
        return dynamics, _keys(key, batch) if stochastic else None
    import optax

    if not isinstance(dynamics, optax.GradientTransformation):
        raise no_dynamics(accepted, dynamics)
    return dynamics, None


def _flat(dynamics: Steps, size: int) -> Steps:
    """Numbers of the batch shape as [b]."""

    def flat(leaf: Any) -> Any:
        return leaf if isinstance(leaf, Schedule) else leaf.reshape(size)

    return jax.tree.map(flat, dynamics, is_leaf=lambda leaf: isinstance(leaf, Schedule))


def _check_optax(network: Network, data: reference.AnyData, loss: Loss, dynamics: Any) -> None:
    fault = reference.optax_fault(network, data, loss, dynamics)
    if fault:
        name = getattr(dynamics.update, "__qualname__", "an optimiser").partition(".")[0]
        raise ValueError(
            f"the optax optimiser {name!r} cannot train this: {fault}. It is called with the gradient, its state and "
            "the weights of one network, and with value, grad, value_fn, grad_fn and obj_fn where it takes them; for one "
            "step size per network give GradientDescent(step_sizes)"
        )


def _keys(key: Any, batch: tuple[int, ...]) -> Array:
    """One key per network of the flattened batch, [b]."""
    if key is None:
        raise ValueError("StochasticGradientDescent draws points at random: give key=jax.random.key(seed)")
    found = some_keys(key)
    if found is None or found.shape == ():
        key = one_key(key)
        return jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(int(np.prod(batch)), dtype=jnp.uint32))
    if found.shape != batch:
        raise ValueError(f"key must be one key or an array of them of the batch shape {batch}, got shape {found.shape}")
    return found.reshape(-1)


def _plan(steps: int, every: int, pieces: int) -> list[tuple[int, int, bool]]:
    """The run in about `pieces` parts: (records, steps per record, whether to keep the records).

    There are as few different pairs (records, steps per record) as possible, because each pair needs a compilation.
    """
    whole, rest = divmod(steps, every)
    target = -(-steps // pieces)
    plan = []
    if target >= every:
        per = min(max(1, target // every), max(whole, 1))
        plan += [(per, every, True)] * (whole // per)
        plan += [(whole % per, every, True)] * (whole % per > 0)
        plan += [(1, rest, True)] * (rest > 0)
        return plan
    for length in [every] * whole + [rest] * (rest > 0):
        part = min(target, length)
        inner = [part] * (length // part) + [length % part] * (length % part > 0)
        plan += [(1, count, False) for count in inner[:-1]] + [(1, inner[-1], True)]
    return plan


@eqx.filter_jit
def _sick(logits: Array) -> Array:
    """Whether some logit is not finite, [records, b]."""
    return ~jnp.isfinite(logits).all(axis=tuple(range(2, logits.ndim)))


def overflown(network: int, batch: tuple[int, ...], dtype: Any) -> ValueError:
    """The error for a network whose logits overflow before any step."""
    which = which_network(np.unravel_index(network, batch))
    fix = "give smaller weights or points" + (", or float64" if dtype == np.float32 else "")
    return ValueError(f"the logits of {which} are beyond {np.dtype(dtype)} at the start; {fix}")


def _raise_if_diverged(logits: Array, grid: np.ndarray, batch: tuple[int, ...], dynamics: Any) -> None:
    """`ConvergenceError` that names the first network of [records, b, n] whose logits are not finite."""
    sick = np.asarray(_sick(logits))
    if not sick.any():
        return
    record, network = np.argwhere(sick)[0]
    if grid[record] == 0:
        raise overflown(int(network), batch, logits.dtype)
    advice = "use a smaller step size"
    if getattr(getattr(dynamics, "step_size", None), "ndim", 0):
        advice = f"use a step size below {np.asarray(dynamics.step_size)[network]:.6g}"
    which = which_network(np.unravel_index(network, batch))
    raise ConvergenceError(
        f"training diverged: the logits of {which} are not finite at step {grid[record]}, the first such "
        f"record ({int(sick.any(axis=0).sum())} of {sick.shape[1]} networks so far); {advice}, "
        "or keep the record as it is with throw=False"
    )
