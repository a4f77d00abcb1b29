"""What a network of a sweep costs, in time and memory, from ten thousand of them to a million.

The networks are those of S1: h = 8, d = 2, n = 2, 2,000 steps of descent, a record every 50, statistics only. Every count
runs in a process of its own, whose peak resident memory is that of the whole program, in turns with the first count, so
that a disturbance meets both. Compilation is timed apart, by a sweep that is stopped after its first block.
"""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import time
from typing import Any

COUNTS = (10_000, 100_000, 1_000_000)
SEEDS_COMPARED = 256


def measure(quick: bool) -> list[dict[str, Any]]:
    """One row per count of networks; `ratio` is the cost of a network to that of one among the first count."""
    return [_in_a_process(count) for count in (COUNTS[:1] if quick else COUNTS)]


def _in_a_process(count: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.sweep", str(count)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def one(count: int) -> dict[str, Any]:
    """The row of `count` networks, measured in this process."""
    import numpy as np

    import gradstarve as gs

    data = gs.datasets.antipodal(dim=2, frequencies=(0.8, 0.2))

    def run(seeds: int, **how: Any) -> Any:
        return gs.sweep(data, seeds, steps=2000, record_every=50, width=8, dynamics=gs.GradientDescent(0.1), **how)

    def stop(done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    def timed(seeds: int, **how: Any) -> float:
        start = time.perf_counter()
        with contextlib.suppress(KeyboardInterrupt):
            run(seeds, **how)
        return time.perf_counter() - start

    times: dict[int, list[float]] = {count: [], COUNTS[0]: []}
    first = {seeds: timed(seeds, progress=stop) for seeds in times}
    for _ in range(max(2, min(9, 500_000 // count))):
        for seeds, spent in times.items():
            # As long as the longer of the two, so that a short one is not judged by one moment.
            turns = max(1, count // seeds // 10)
            spent.append(statistics.median(timed(seeds) for _ in range(turns)))
    peak = _peak_memory()
    # The same networks by the plain simulator; what differs is rounding in float32.
    compared = [run(SEEDS_COMPARED, engine=engine) for engine in ("auto", "reference")]
    cost = {seeds: statistics.median(spent) / seeds * 1e6 for seeds, spent in times.items()}
    return {
        "size": "S1",
        "networks": count,
        "engine": compared[0].engine,
        "seconds": cost[count] * count / 1e6,
        "microseconds_per_network": cost[count],
        "ratio": cost[count] / cost[COUNTS[0]],
        "turns": len(times[count]),
        "peak_memory_mb": peak,
        "first_seconds": first[count],
        "worst_error": float(np.abs(compared[0]["margin_mean"] - compared[1]["margin_mean"]).max()),
    }


def _peak_memory() -> float:
    """The most resident memory that this process has had, in MB."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/self/status", encoding="utf-8") as status:
        # Not ru_maxrss where it can be helped: a child inherits that of the process that started it.
        return next(float(line.split()[1]) for line in status if line.startswith("VmHWM")) * 1024 / 1e6
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024) / 1e6


if __name__ == "__main__":
    print(json.dumps(one(int(sys.argv[1]))))
