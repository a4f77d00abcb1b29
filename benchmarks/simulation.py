"""Simulation: our engines against what others would write, on three sizes and a grid of sizes."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np

from benchmarks.peers import PEERS, naive, ours, torch_one_by_one
from benchmarks.problems import S1, S2, S3, Problem, Size, problem
from benchmarks.timing import interleaved

Row = dict[str, Any]

# h, d, n of the grid; B and T follow so that the naive simulator takes some tenths of a second.
GRID = [
    *product((1, 4, 8, 32, 128), (1, 2, 8), (2, 8)),
    (8, 32, 32),
    (16, 8, 16),
    (16, 16, 24),
    (64, 16, 4),
    (64, 32, 64),
    (256, 2, 2),
    (256, 32, 64),
]
# Batch sizes at which the vector units are not full, or one core has nothing to do.
BATCHES = (1, 3, 17, 65, 200)


def sizes(quick: bool) -> list[Row]:
    """S1, S2 and S3 by everything that is installed, with the error of each against our reference engine in float64."""
    rows = []
    for size in (S1, S2, S3):
        shown = size._replace(T=size.T // 10) if quick else size
        given = problem(shown)
        runs = {name: peer(given, shown) for name, peer in PEERS.items()}
        present = {name: run for name, run in runs.items() if run is not None}
        times = interleaved(present, turns=3 if quick else 11, budget=90)
        exact = truth(shown)
        for name, run in present.items():
            rows.append(row(shown, name, times[name], times["naive vmap(grad) + scan"]) | errors(run(), exact))
        few = shown._replace(B=2)
        alone = torch_one_by_one(Problem(*given[:3], given.w[:2], given.z[:2]), few)
        if alone is not None:
            time = interleaved({"one": alone}, turns=2)["one"]
            scaled = {key: value * shown.B / 2 for key, value in time.items()}
            rows.append(row(shown, "torch one by one (2 timed, scaled up)", scaled, times["naive vmap(grad) + scan"]))
    return rows


def grid(quick: bool) -> list[Row]:
    """Default `simulate` against the naive simulator wherever it might lose."""
    found = []
    chosen = [Size("", B_for(h, d, n), h, d, n, 400) for h, d, n in GRID]
    chosen += [Size("", B, 8, 2, 2, 40_000) for B in BATCHES]
    for size in chosen[::6] if quick else chosen:
        found += against_naive(size, turns=3 if quick else 7)
    return found


def B_for(h: int, d: int, n: int) -> int:
    """Networks enough for a quarter of a second or so of the naive simulator."""
    return int(np.clip(2**22 // (h * d * n + 4 * h + 10 * n), 64, 4096))


def against_naive(size: Size, turns: int) -> list[Row]:
    """The rows of one size for the two naive simulators and ours, against the faster of the two.

    `median_error` is the median gap of the final logits from those of the first.
    """
    given = problem(size)
    runs: dict[str, Callable] = {
        "naive vmap(grad) + scan": naive(given, size),
        "naive, relu(x @ w.T) @ z": naive(given, size, points_first=True),
        "gradstarve": ours(given, size),
    }
    times = interleaved(runs, turns, budget=10)
    fastest = min(list(times.values())[:2], key=lambda spent: spent["seconds"])
    final = {name: np.asarray(run())[-1] for name, run in runs.items()}
    gap = {name: float(np.median(np.abs(last - final["naive vmap(grad) + scan"]))) for name, last in final.items()}
    return [row(size, name, times[name], fastest) | {"median_error": gap[name]} for name in runs]


def truth(size: Size) -> np.ndarray:
    """The logits of our reference engine in float64, [records, B, n]."""
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        return np.asarray(ours(problem(size, np.float64), size, engine="reference")())
    finally:
        jax.config.update("jax_enable_x64", False)


def errors(found: Any, exact: np.ndarray) -> Row:
    """Median and worst |error| of the logits over networks, points and records, and the share of networks beyond 1e-4."""
    gap = np.abs(np.asarray(found, np.float64) - exact)
    beyond = (gap.max(axis=(0, 2)) > 1e-4).mean()
    return {"median_error": float(np.median(gap)), "worst_error": float(gap.max()), "networks_beyond_1e-4": float(beyond)}


def row(size: Size, name: str, time: dict[str, float], against: dict[str, float]) -> Row:
    """One measured row."""
    return {
        "size": size.name,
        **{key: getattr(size, key) for key in "BhdnT"},
        "what": name,
        "seconds": time["seconds"],
        "least": time["least"],
        "most": time["most"],
        "first_seconds": time["first_seconds"],
        "times_naive": against["seconds"] / time["seconds"],
        "gflops": size.flops / time["seconds"] / 1e9,
        "turns": time.get("turns", 0),
    }
