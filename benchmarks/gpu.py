"""Simulation on a GPU: one kernel for the whole run against the naive simulator on the same card, in float32.

Only a machine with a GPU can say anything here; on others `measure` gives no rows and prints why. Accuracy stands beside
every time: the same kernel in float64 on the card against the reference engine in float64 on the processor, for the first
networks of the batch, and how far the float32 logits are from those in distribution.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import Run, naive, ours
from benchmarks.problems import RECORD_EVERY, S1, S2, S3, STEP_SIZE, Problem, Size, problem
from benchmarks.timing import interleaved

Row = dict[str, Any]

SIZES = (S1, S1._replace(B=65_536), S1._replace(B=1_000_000), S2, S3)
# Networks that the accuracy is judged by.
COMPARED = 512
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
    """Rows for S1 with 4,096, 65,536 and a million networks, S2 and S3; none where there is no GPU."""
    if jax.default_backend() != "gpu":
        print(f"no GPU: JAX runs on {jax.devices()[0].device_kind!r} here, and the kernel would only be interpreted")
        return []
    rows = []
    for size in SIZES[::3] if quick else SIZES:
        rows += against_naive(size, turns=3 if quick else 11)
    return rows


def against_naive(size: Size, turns: int) -> list[Row]:
    """One row for the naive simulator, the kernel as an engine, and all of `simulate` around it."""
    given = problem(size)
    runs: dict[str, Run] = {
        "naive vmap(grad) + scan": naive(given, size),
        "pallas": engine(given, size),
        "simulate(engine='pallas')": ours(given, size, engine="pallas"),
    }
    times = interleaved(runs, turns)
    error = in_float64(size)
    exact = error.pop("exact")
    rows = []
    for name, run in runs.items():
        time = times[name]["seconds"]
        logits = np.asarray(run()[-1, : exact.shape[1]], np.float64)
        rows.append(
            {
                "size": size.name,
                "engine": name,
                "B": size.B,
                "seconds": time,
                "compile_seconds": times[name]["first_seconds"] - time,
                "ratio_to_naive": times["naive vmap(grad) + scan"]["seconds"] / time,
                "net_steps_per_second": size.B * size.T / time,
                "gflops": size.flops / time / 1e9,
                "least": times[name]["least"],
                "most": times[name]["most"],
                "turns": times[name]["turns"],
                "median_error": float(np.median(np.abs(logits - exact[-1]))),
                "distance_of_distributions": distance(logits.ravel(), exact[-1].ravel()),
            }
            | (error if name == "pallas" else {})
            | shares(size, time)
        )
    return rows


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
    few = size._replace(B=min(size.B, COMPARED))
    all_of_them = problem(size, np.float64)
    given = Problem(*all_of_them[:3], all_of_them.w[: few.B], all_of_them.z[: few.B])
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
