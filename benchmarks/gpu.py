"""A GPU, in ten minutes at most: training, a sweep, and the kernel of the report, in float32.

    python -m benchmarks gpu

S1, S2 and S3 with 4,096, 65,536 and a million networks by one kernel for the whole run, against the naive simulator on the
same card; a sweep of ten million networks; the report's kernel of 2,000 samples and ten million parameters. Accuracy stands
beside every time: training in float64 on the card against the reference engine in float64 on the processor, for the first
networks of the batch, and how far the float32 logits are from those in distribution; statistics of a sweep, and products of
gradients, against float64 on the processor.

Only a machine with a GPU can say anything here; on others `measure` gives no rows and prints why. A row is printed as soon
as it is there, the cheap ones come first, and what would be begun after `LIMIT` seconds is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Run, naive, ours
from benchmarks.problems import RECORD_EVERY, S1, S2, S3, STEP_SIZE, Problem, Size, problem
from benchmarks.timing import interleaved

Row = dict[str, Any]

BATCHES = (4_096, 65_536, 1_000_000)
# What a run may cost in arithmetic: larger batches take fewer steps, so that the naive simulator takes seconds.
MOST_FLOPS = 2e13
# Seconds after which no further part is begun; the last one begun takes less than the rest of the ten minutes.
LIMIT = 480.0
# Networks that the accuracy is judged by, and networks whose weights are drawn: a larger batch repeats them.
COMPARED, DRAWN = 512, 4_096
# Networks of the sweep, and of the one that its statistics are compared in.
SEEDS, SEEDS_COMPARED = 10_000_000, 256
# Of the report: samples, inputs, and neurons of each of two hidden layers, which make ten million parameters; bytes that it
# may take, and samples that its products are compared for.
SAMPLES, INPUTS, HIDDEN, MEMORY, SAMPLES_COMPARED = 2_000, 784, 2_800, 100 * 10**9, 16
# float32 operations and bytes of memory traffic per second at most, by the name of the card, from the makers' data sheets
# (dense, no tensor cores).
PEAKS = {
    "NVIDIA H200": (66.9e12, 4.8e12),
    "NVIDIA H100 80GB HBM3": (66.9e12, 3.35e12),
    "NVIDIA H100 PCIe": (51.2e12, 2.0e12),
    "NVIDIA A100-SXM4-80GB": (19.5e12, 2.039e12),
    "NVIDIA A100-SXM4-40GB": (19.5e12, 1.555e12),
    "NVIDIA L4": (30.3e12, 0.3e12),
    "Tesla T4": (8.1e12, 0.32e12),
    "NVIDIA GeForce RTX 4090": (82.6e12, 1.008e12),
}


def measure(quick: bool = False) -> list[Row]:
    """All rows; none where there is no GPU. `quick` takes the smallest batches, and no sweep or kernel of this size."""
    if jax.default_backend() != "gpu":
        print(f"no GPU: JAX runs on {jax.devices()[0].device_kind!r} here, and the kernel would only be interpreted")
        return []
    return run(parts(BATCHES[:1], 10_000, 200, 3) if quick else parts(BATCHES, SEEDS, SAMPLES, 5), LIMIT)


def parts(batches: tuple[int, ...], seeds: int, samples: int, turns: int) -> dict[str, Callable[[], list[Row]]]:
    """What is measured, by name, the cheap ones first."""
    found: dict[str, Callable[[], list[Row]]] = {}
    for B in batches:
        for size in (S1, S2, S3):
            found[f"{size.name}, B = {B:,}"] = partial(against_naive, short(size._replace(B=B)), turns)
        if batches[0] == B:
            found[f"sweep of {seeds:,}"] = partial(sweep, seeds)
            found[f"kernel of {samples:,}"] = partial(kernel, samples, INPUTS, HIDDEN)
    return found


def run(todo: dict[str, Callable[[], list[Row]]], limit: float) -> list[Row]:
    """The rows of all parts, each printed at once. A part that fails, as for want of memory, is a row that says why."""
    begin, rows = time.perf_counter(), []
    for name, part in todo.items():
        if time.perf_counter() - begin > limit:
            found = [{"size": name, "note": f"left out after {limit:.0f} s"}]
        else:
            try:
                found = part()
            except Exception as error:  # whatever a driver raises; the other rows are wanted all the same
                found = [{"size": name, "note": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.120}"}]
        for row in found:
            print(json.dumps(row), flush=True)
        rows += found
    return rows


def short(size: Size) -> Size:
    """With as many steps as `MOST_FLOPS` allow, in whole records, at least two of them."""
    records = min(size.T, int(MOST_FLOPS / (size.flops / size.T))) // RECORD_EVERY
    return size._replace(T=max(2, records) * RECORD_EVERY)


def drawn(size: Size, dtype: type = np.float32) -> Problem:
    """The problem of `size`, with the weights of `DRAWN` networks over and over; drawing a million takes longer than all."""
    few = problem(size._replace(B=min(size.B, DRAWN)), dtype)
    times = -(-size.B // len(few.z))
    w, z = (jnp.tile(leaf, (times, *[1] * (leaf.ndim - 1)))[: size.B] for leaf in (few.w, few.z))
    return Problem(*few[:3], w, z)  # pyright: ignore[reportArgumentType]


def against_naive(size: Size, turns: int) -> list[Row]:
    """One row for the naive simulator, the kernel as an engine, and all of `simulate` around it."""
    given = drawn(size)
    runs: dict[str, Run] = {
        "naive vmap(grad) + scan": naive(given, size),
        "pallas": engine(given, size),
        "simulate(engine='pallas')": ours(given, size, engine="pallas"),
    }
    times = interleaved(runs, turns, budget=15.0)
    error = in_float64(size)
    exact = error.pop("exact")
    rows = []
    for name, run in runs.items():
        spent = times[name]["seconds"]
        logits = np.asarray(run()[-1, : exact.shape[1]], np.float64)
        rows.append(
            {
                "size": size.name,
                "engine": name,
                **{key: getattr(size, key) for key in "BhdnT"},
                "seconds": spent,
                "compile_seconds": times[name]["first_seconds"] - spent,
                "ratio_to_naive": times["naive vmap(grad) + scan"]["seconds"] / spent,
                "net_steps_per_second": size.B * size.T / spent,
                "gflops": size.flops / spent / 1e9,
                "least": times[name]["least"],
                "most": times[name]["most"],
                "turns": times[name]["turns"],
                "median_error": float(np.median(np.abs(logits - exact[-1]))),
                "distance_of_distributions": distance(logits.ravel(), exact[-1].ravel()),
            }
            | (error if name == "pallas" else {})
            | shares(size, spent)
        )
    return rows


def sweep(seeds: int) -> list[Row]:
    """A sweep of S1 networks with all statistics; how far its means are from those of the same networks in float64."""
    import gradstarve as gs

    def data() -> Any:
        return gs.datasets.antipodal(dim=2, frequencies=(0.8, 0.2))

    def run(count: int) -> Any:
        return gs.sweep(data(), count, steps=S1.T, record_every=RECORD_EVERY, width=S1.h)

    def timed(count: int) -> float:
        start = time.perf_counter()
        run(count)
        return time.perf_counter() - start

    few = min(seeds, 100_000)
    first, seconds = timed(few), timed(seeds)
    mine = run(SEEDS_COMPARED)
    networks = [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(mine.network(np.arange(SEEDS_COMPARED)))[:2]]
    jax.config.update("jax_enable_x64", True)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            how = {"steps": S1.T, "record_every": RECORD_EVERY, "engine": "reference"}
            again = gs.simulate(data(), gs.TwoLayerReLU(*networks), "cross-entropy", gs.GradientDescent(0.1), **how)
            exact = np.asarray(again.error()).mean(0)
    finally:
        jax.config.update("jax_enable_x64", False)
    error = np.abs(mine["error_mean"] - exact).max()
    row = {"size": f"sweep of {S1.name}", "networks": seeds, "engine": mine.engine, "seconds": seconds}
    row |= {"microseconds_per_network": seconds / seeds * 1e6, "first_seconds": first, "worst_error": float(error)}
    row |= {"net_steps_per_second": seeds * S1.T / seconds, "gflops": S1._replace(B=seeds).flops / seconds / 1e9}
    return [row | shares(S1._replace(B=seeds), seconds)]


def kernel(samples: int, inputs: int, hidden: int) -> list[Row]:
    """The report's kernel of a network with two hidden layers.

    `error`: the largest of the products of `SAMPLES_COMPARED` samples, from those in float64 on the processor, in units of
    the largest product.
    """
    from gradstarve.diagnosis._models import read_model

    rng = np.random.default_rng(0)
    x = rng.normal(size=(samples, inputs)) / np.sqrt(inputs)
    sizes = (inputs, hidden, hidden, 1)
    params = [rng.normal(size=(a, b)) * np.sqrt(2 / a) for a, b in pairwise(sizes)]

    def apply(params: Any, x: Any) -> Any:
        for weights in params[:-1]:
            x = jax.nn.relu(jnp.matmul(x, weights, precision="highest"))
        return jnp.matmul(x, params[-1], precision="highest")

    def model(dtype: type, count: int) -> Any:
        return read_model((apply, [jnp.asarray(one, dtype) for one in params]), x[:count].astype(dtype), MEMORY)

    times = interleaved({"": model(np.float32, samples).kernel}, 2, budget=60.0)[""]
    count = min(samples, SAMPLES_COMPARED)
    found = model(np.float32, count).kernel()
    jax.config.update("jax_enable_x64", True)
    try:
        with jax.default_device(jax.devices("cpu")[0]):
            exact = model(np.float64, count).kernel()
    finally:
        jax.config.update("jax_enable_x64", False)
    P = sum(one.size for one in params)
    row = {"size": f"kernel, P = {P:,}", "n": samples, "engine": "report", "seconds": times["seconds"]}
    row |= {"first_seconds": times["first_seconds"], "gflops": 2 * samples * samples * P / times["seconds"] / 1e9}
    row |= {"error": float(np.abs(found - exact).max() / np.abs(exact).max())}
    peak = PEAKS.get(jax.devices()[0].device_kind)
    # Counted are the products of all pairs; every gradient written and read once.
    share = {} if peak is None else {"share_of_peak": row["gflops"] * 1e9 / peak[0]}
    share |= {} if peak is None else {"share_of_bandwidth": 8 * samples * P / times["seconds"] / peak[1]}
    return [row | share]


def engine(problem: Problem, size: Size) -> Run:
    """The kernel as an engine, from networks on the device to logits [records, B, n] on the device."""
    import gradstarve as gs
    from gradstarve.simulation.engines import _pallas as pallas
    from gradstarve.simulation.engines import _reference as reference

    data = gs.Dataset(*map(jnp.asarray, problem[:3]))
    networks = gs.TwoLayerReLU(jnp.asarray(problem.w), jnp.asarray(problem.z))
    descent = jax.tree.map(
        lambda leaf: jnp.broadcast_to(leaf, (size.B,)).astype(networks.dtype), gs.GradientDescent(STEP_SIZE)
    )
    state = reference.start(networks, descent, None)
    loss = gs.problem.CrossEntropy()

    def run():
        after, logits, _ = pallas.advance(state, data, loss, descent, size.T // RECORD_EVERY, RECORD_EVERY, False)
        jax.block_until_ready(after)
        return jax.block_until_ready(logits)

    return run


def in_float64(size: Size) -> Row:
    """`error`: the largest gap in a logit between the kernel in float64 on this device and the reference engine on the
    processor, and `exact`: the latter's logits, [records, COMPARED, n]."""
    few = size._replace(B=min(size.B, COMPARED, DRAWN))
    # Of as many networks as are drawn, since the numbers depend on how many there are.
    every = problem(size._replace(B=min(size.B, DRAWN)), np.float64)
    given = Problem(*every[:3], every.w[: few.B], every.z[: few.B])
    jax.config.update("jax_enable_x64", True)
    try:
        found = np.asarray(engine(given, few)())
        with jax.default_device(jax.devices("cpu")[0]):
            exact = np.asarray(ours(given, few, engine="reference")())
    finally:
        jax.config.update("jax_enable_x64", False)
    return {"error": float(np.abs(found - exact).max()), "exact": exact}


def distance(first: np.ndarray, second: np.ndarray) -> float:
    """The Kolmogorov-Smirnov distance of two samples: the largest difference of their distribution functions."""
    everywhere = np.sort(np.concatenate([first, second]))
    below = [np.searchsorted(np.sort(sample), everywhere, side="right") / sample.size for sample in (first, second)]
    return float(np.abs(below[0] - below[1]).max())


def shares(size: Size, seconds: float) -> Row:
    """Which shares of the card's float32 peak and memory bandwidth a run of `seconds` reached; nothing for an unknown card.

    Counted are the arithmetic of `Size.flops`, and every weight read once and written once and every logit written.
    """
    peaks = PEAKS.get(jax.devices()[0].device_kind)
    if peaks is None:
        return {}
    numbers = size.B * (2 * size.h * (size.d + 1) + size.n * (size.T // RECORD_EVERY))
    return {"share_of_peak": size.flops / seconds / peaks[0], "share_of_bandwidth": 4 * numbers / seconds / peaks[1]}
