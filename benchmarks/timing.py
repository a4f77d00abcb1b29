"""How things are timed: candidates in turns within one process, medians of several turns, the first call apart."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


def interleaved(candidates: dict[str, Callable[[], Any]], turns: int, budget: float = 60.0) -> dict[str, dict[str, float]]:
    """Each candidate's `first_seconds` (compilation included), and median, least and most `seconds` of its later turns.

    The candidates take turns, so that a machine that slows down slows all of them. Turns end early when `budget` seconds
    are spent, after two at least. A candidate returns when its work is done.
    """
    first = {}
    for name, run in candidates.items():
        start = time.perf_counter()
        run()
        first[name] = time.perf_counter() - start
    times: dict[str, list[float]] = {name: [] for name in candidates}
    begin = time.perf_counter()
    for turn in range(turns):
        if turn >= 2 and time.perf_counter() - begin > budget:
            break
        for name, run in candidates.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {
        name: {
            "first_seconds": first[name],
            "seconds": statistics.median(spent),
            "least": min(spent),
            "most": max(spent),
            "turns": len(spent),
        }
        for name, spent in times.items()
    }


def environment() -> dict[str, Any]:
    """Versions and hardware, to be stored with every result."""
    import jax
    import numpy

    import gradstarve

    cpu = platform.processor()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as info:
            cpu = next(line.partition(":")[2].strip() for line in info if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    return {
        "gradstarve": gradstarve.__version__,
        "jax": jax.__version__,
        "numpy": numpy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "devices": [device.device_kind for device in jax.devices()],
    }
