"""`sweep`: thousands to millions of seeds, for every combination of hyperparameters, as statistics."""

from __future__ import annotations

import sys
import warnings
from contextlib import ExitStack
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import Progress, as_choice, one_key, positive_int, shown
from gradstarve.problem import GradientDescent, Steps, TwoLayerReLU
from gradstarve.simulation.engines import _choose as engines
from gradstarve.simulation.sweep import _plan as sweep_plan
from gradstarve.simulation.sweep._identity import identity
from gradstarve.simulation.sweep._plan import grid_of
from gradstarve.simulation.sweep._remember import datasets_of, described, remembered
from gradstarve.simulation.sweep._result import SweepResult, made
from gradstarve.simulation.sweep._run import DRAWS, Job, Trainer, draw, in_order
from gradstarve.simulation.sweep._statistics import as_statistics, check_own, default_threshold, error_floor, note
from gradstarve.simulation.sweep._store import Store, as_directory


def sweep(
    data: Any,
    seeds: Any,
    *,
    steps: Any,
    record_every: Any = None,
    width: Any = 8,
    loss: Any = "cross-entropy",
    dynamics: Any = None,
    scale_w: Any = 1.0,
    scale_z: Any = 1.0,
    network: Any = None,
    over: Any = None,
    key: Any = 0,
    keep: str = "statistics",
    threshold: Any = None,
    memory: Any = 1e9,
    batch_size: Any = None,
    devices: Any = None,
    directory: Any = None,
    progress: Any = None,
    engine: str = "auto",
    statistics: Any = None,
) -> SweepResult:
    """Train `seeds` random `TwoLayerReLU` networks for every combination of swept values, and keep their statistics.

    - `data`: a `Dataset`, or a function that makes one from names in `over`, such
      as `lambda frequency: datasets.antipodal(frequencies=(frequency, 1 - frequency))`; or phases [(until, data), ...] in
      place of either, as in `simulate` (21.1), with the same ends in all configurations: errors, losses, margins and what is
      learnt are then those by the data at that step, and the ends of phases are recorded too;
    - `seeds`: how many, 0, 1, ..., or a `range` of them with step 1; at most 2^32 - 2;
    - `steps`, `record_every`: as in `simulate`; by default there are about 40 records;
    - `width`, `scale_w`, `scale_z`: of the networks, as in `init_two_layer`; `loss`; `dynamics`: `GradientDescent` (by
      default with step size 0.1) or others in steps, with one value of each hyperparameter, or a schedule of step sizes,
      or an optimiser of optax; `network`: a function that makes one network of your own from a key, in place of
      `init_two_layer`. The last two are trained by the reference engine;
    - `over`: lists of values by name, swept in all combinations: "width", "scale_w", "scale_z", "step_size", "momentum",
      "weight_decay", "nesterov" and what else the dynamics have ("read_out_step_size", "radius", "batch_size"), "data",
      "loss", "dynamics" and "network" by value, and arguments of these where they are functions: `loss=lambda penalty: ...`.
      A tuple of names is one axis of tuples of values, {("width", "scale_w"): [(4, 0.5), (8, 0.35)]};
    - `key`: a JAX key or an integer seed of one. The network of seed s is number s of `init_two_layer(key, ...)`, and
      stochastic descent draws as `simulate(..., key=fold_in(key, 2^32 - 1))` does: both depend on the key, s and the width
      alone, so that configurations of one width train the same networks. `SweepResult.network` gives them back. Of your
      own `network` it is network(fold_in(key, s));
    - `keep`: "statistics"; "final" to keep the trained networks and their logits too; "logits" for those at every record;
    - `threshold`: a network has learnt when its error sum_i q_i sigmoid(-m_i) is below it. By default 0.01, or one that
      every loss of the sweep can reach: the hinge and the squared loss drive margins to 1, an error of 0.269, for which it
      is 0.3. `SweepResult.note` and the table say so, and name losses that cannot reach the threshold given;
    - `memory`: bytes that the sweep may take for its work and its result, beside the program itself (some 0.3 GB);
    - `batch_size`: networks that are stored at once, rounded down to whole blocks; by default up to 16 blocks;
    - `devices`: the devices to use, by default all of this process. With `jax.distributed` every process calls `sweep` with
      the same arguments, trains its share, and gets the whole result;
    - `directory`: makes the sweep durable. Finished chunks are stored there; the same sweep called again goes on from them,
      however it ended, with the same result to the last bit. More seeds or values reuse the chunks that are there, and so
      do another threshold, own statistics and a smaller `keep` where the chunks have keep="logits"; where other steps,
      records or more to keep make them not hold, a warning says so and new ones are computed. Several processes may call
      the same sweep with one directory at the same time: they share the work, and take over what a killed one has left.
      `open_sweep(directory)` reads it without the arguments.
      Damaged chunks are computed again. Settings that do not extend those there, or work to do with other versions or
      hardware, are refused with what differs. Everything that decides the result is compared: data, the numbers in the
      loss and in the dynamics, and of code of your own the code with the values that it closes over (of the same version
      of Python). What cannot be compared is refused;
    - `progress`: None shows a bar on a terminal when it takes more than two seconds, True and False force, and a callable
      gets (done_networks, total_networks);
    - `engine`: as in `simulate`;
    - `statistics`: of your own, by name: functions of the `Trajectory` of one network that return a number or an array, as
      {"worst": lambda curve: curve.error().max()}, or pairs (function, reduction). The reduction over networks that did not
      diverge is "moments" (`result["worst_mean"]`, `_variance`, `_min`, `_max`), "sum", "min" or "max" (`result["worst"]`).

    The result is bit-identical for any `memory`, `batch_size`, number of devices and of processes. Networks are trained in
    the precision of the data. One that diverges is counted, named in a warning, and left out of the statistics.

    `ValueError` for arguments that do not fit, and where `memory` is too little; `OSError` when the disk is full, with all
    stored chunks intact.

    >>> from gradstarve.problem import datasets
    >>> result = sweep(datasets.antipodal(), 100, steps=200, over={"step_size": [0.1, 0.5]})
    >>> result["error_mean"].shape, result["learnt"][:, -1].round(1).tolist()
    ((2, 41), [0.2, 1.0])
    >>> result.network(seed=7, step_size=0.5).w.shape
    (8, 2)
    """
    dynamics = GradientDescent(0.1) if dynamics is None else dynamics
    steps = positive_int("steps", steps)
    base = {"width": width, "scale_w": scale_w, "scale_z": scale_z, "loss": loss, "network": network}
    swept, found = sweep_plan.configurations(data, over, base | {"dynamics": dynamics}, steps)
    numbers = _check_seeds(seeds)
    every = max(1, steps // 40) if record_every is None else positive_int("record_every", record_every)
    if keep not in sweep_plan.KEEP:
        raise ValueError(f"keep must be one of {', '.join(map(repr, sweep_plan.KEEP))}, got {keep!r}")
    floors = _floors(found)
    chosen = threshold is None
    threshold = default_threshold(list(floors.values())) if chosen else _number("threshold", threshold, 1)
    memory = _number("memory", memory, float("inf"))
    key = one_key(key)
    places = _check_devices(devices)
    trainer = _engine(engine, found, places[0])
    if trainer.name == "reference":
        found = [one.as_given() for one in found]
    own = as_statistics(statistics)
    if own:
        found = [one.as_given() for one in found]
        _check_statistics(own, found, key, steps, every)
    grid = grid_of(found[0], steps, every)
    settings = {
        "seeds": [numbers.start, numbers.stop],
        "steps": steps,
        "record_every": every,
        "threshold": threshold,
        "keep": keep,
        "statistics": {},
        "key": [str(jax.random.key_impl(key)), *np.asarray(jax.random.key_data(key)).tolist()],
        "engine": trainer.name,
        "precision": found[0].problem.points.dtype.name,
        "partitionable_random_bits": bool(jax.config.jax_threefry_partitionable),  # pyright: ignore
    }
    sizes = [sweep_plan.block_size(one, len(grid), len(numbers), places[0].platform) for one in found]
    cost = sweep_plan.cost(found, sizes, len(grid), len(numbers), keep)
    length = sweep_plan.chunk_length(cost, sizes, len(numbers), memory, batch_size)
    told = note(floors, threshold, chosen)

    with ExitStack() as stack:
        store = None
        if directory is not None:
            as_directory(directory)
            told_of = {name: [identity(one, f"statistics[{name!r}]"), how] for name, (one, how) in own.items()}
            settings |= {"statistics": told_of, "configurations": described(found, sizes)}
            manifest = {"settings": settings, "note": told, **remembered(swept, found)}
            store = stack.enter_context(Store(directory, manifest, datasets_of(found), places[0]))
        threads = sweep_plan.workers(cost, places, memory, directory is None, len(numbers) * len(found))
        job = Job(sweep_plan.blocks_of(len(numbers), sizes), sizes, length, numbers.start, store)
        train = Trainer(
            found,
            trainer,
            job.recall,
            key=key,
            first_seed=numbers.start,
            sizes=sizes,
            steps=steps,
            every=every,
            threshold=threshold,
            keep=keep,
            own=own,
        )
        bar = stack.enter_context(Progress(progress, job.total, "sweeping", "networks"))
        try:
            job.run(lambda todo: in_order(todo, train, places, threads), bar)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(job.where_it_stands()) from None
        parts, kept = job.everything()
    result = made(
        parts,
        over=swept,
        configurations=found,
        grid=grid,
        seeds=numbers,
        key=key,
        threshold=threshold,
        record_every=every,
        engine=settings["engine"],
        keep=keep,
        kept=kept,
        note=told,
    )
    _warn_if_diverged(found, result["diverged"], result.seeds_diverged, len(numbers))
    return result


def _check_statistics(own: Any, found: list[sweep_plan.Configuration], key: Any, steps: int, every: int) -> None:
    for one in {one.template is None: one for one in found}.values():
        records, dtype = tuple(grid_of(one, steps, every).tolist()), one.data.points.dtype
        scales = jnp.ones(2, dtype)
        networks = eqx.filter_eval_shape(lambda: draw(one, key, np.zeros(2, np.uint32), (scales[0], scales[1])))  # noqa: B023
        shape = jax.ShapeDtypeStruct
        logits, diverged = shape((len(records), 2, one.data.size), dtype), shape((2,), bool)
        until, datas = None if one.phases is None else one.phases.until, [data for _, data in one.stretches(steps)]
        check_own(own, records, until, (networks, networks), logits, datas, one.loss, diverged, shape((), jnp.int32))


def _check_seeds(seeds: Any) -> range:
    numbers = seeds if isinstance(seeds, range) else range(positive_int("seeds", seeds))
    if not len(numbers) or numbers.step != 1 or numbers.start < 0 or numbers.stop > DRAWS:
        raise ValueError(f"seeds must be a number of them or a range with step 1 within 0..{DRAWS - 1}, got {shown(seeds)}")
    return numbers


def _number(name: str, value: Any, most: int | float) -> float:
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    # An integer may be larger than any float.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= min(most, sys.float_info.max):
        limit = f" and at most {most}" if most < float("inf") else " and finite"
        raise ValueError(f"{name} must be a number above 0{limit}, got {shown(value)}")
    return float(value)


def _check_devices(devices: Any) -> list:
    if devices is None:
        return jax.local_devices()
    if not isinstance(devices, list | tuple) or not all(isinstance(device, jax.Device) for device in devices):
        raise ValueError(f"devices must be a list of devices, such as jax.local_devices()[:1], got {shown(devices)}")
    here = jax.local_devices(backend=devices[0].platform) if len(devices) else []
    strange = [device for device in devices if device not in here]
    if not here or strange or len({device.id for device in devices}) < len(devices):
        raise ValueError(f"devices must be different ones of jax.local_devices(), got {devices!r}")
    return list(devices)


def _engine(name: str, found: list[sweep_plan.Configuration], device: Any) -> Any:
    """The engine that trains all configurations on `device`: for "auto" the fast one where it can train each of them."""
    fitting = {}
    for one in found:
        if one.network is not None or not isinstance(one.dynamics, Steps):
            reason = "it has networks of your own" if one.network is not None else "its dynamics are those of optax"
            if name not in ("auto", "reference"):
                as_choice("engine", name, ("auto", *engines.ENGINES))
                raise ValueError(f'engine="{name}" cannot run this: {reason}; use engine="auto"')
            fitting["reference"] = engines.engine_of("reference")
            continue
        d, dtype = one.problem.dim, one.problem.points.dtype
        given = one.problem, TwoLayerReLU(jnp.zeros((1, 1, d), dtype), jnp.zeros((1, 1), dtype))
        data, network, dynamics = jax.device_put((*given, one.dynamics), device)
        engine = engines.choose(name, data, network, one.loss, dynamics)
        fitting[engine.name] = engine
    return fitting.get("reference") or next(iter(fitting.values()))


def _floors(found: list[sweep_plan.Configuration]) -> dict[str, float]:
    """By the label of each loss the highest error at which it stops; see `error_floor`."""
    floors: dict[str, float] = {}
    known: dict[tuple[int, int], float] = {}
    for one in found:
        which = id(one.loss), id(one.data)
        if which not in known:
            datas = (one.data,) if one.phases is None else one.phases.data
            known[which] = max(error_floor(one.loss, data) for data in datas)
        name = str(one.labels.get("loss", one.loss.name))
        floors[name] = max(floors.get(name, 0.0), known[which])
    return floors


def _warn_if_diverged(
    found: list[sweep_plan.Configuration], diverged: np.ndarray, seeds: list[np.ndarray], networks: int
) -> None:
    sick = np.flatnonzero(diverged.ravel())
    if sick.size:
        first = int(sick[0])
        shown = ", ".join(map(str, seeds[first][:5]))
        more = f" and {sick.size - 1} more configurations" if sick.size > 1 else ""
        warnings.warn(
            f"{int(diverged.sum())} of {networks * len(found)} networks diverged and are left out of the statistics: "
            f"seeds {shown}{', ...' if diverged.ravel()[first] > 5 else ''} of {found[first].describe()}{more}; "
            "see .diverged_seeds()",
            UserWarning,
            stacklevel=3,
        )
