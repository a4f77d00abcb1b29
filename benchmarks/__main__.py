"""`python -m benchmarks [PART ...]`: times every part, prints its table, and stores both under benchmarks/results."""

from __future__ import annotations

import argparse
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import timing

HERE = Path(__file__).parent
# Columns that a table shows, with their headings; everything else is in the JSON file.
COLUMNS = {
    "size": "size",
    "task": "task",
    "grows": "what grows",
    "value": "to",
    "B": "B",
    "h": "h",
    "d": "d",
    "n": "n",
    "T": "T",
    "networks": "networks",
    "what": "what",
    "name": "what",
    "engine": "engine",
    "seconds": "seconds",
    "processor_seconds": "processor s",
    "exponent": "exponent",
    "stated": "stated",
    "times_naive": "× naive",
    "ratio": "ratio",
    "ratio_to_naive": "× naive",
    "ratio_to_tsit5": "× Tsit5",
    "ratio_to_dopri8": "× Dopri8",
    "gflops": "GFLOP/s",
    "share_of_peak": "of the peak",
    "share_of_bandwidth": "of the bandwidth",
    "net_steps_per_second": "network steps/s",
    "microseconds_per_network": "µs/network",
    "peak_memory_mb": "peak MB",
    "asked_seconds": "asked, first call s",
    "first_seconds": "first call s",
    "cached_seconds": "first call s, from the cache",
    "times_reference": "first call × reference program",
    "compile_seconds": "compile s",
    "median_error": "median error",
    "worst_error": "worst error",
    "error": "error",
    "note": "note",
}


# Every part: its module and the function of `quick` that gives rows. Imported when asked for, as some need the extra bench.
PARTS = {
    "first": ("first", "measure"),
    "sizes": ("simulation", "sizes"),
    "grid": ("simulation", "grid"),
    "growth": ("growth", "measure"),
    "theory": ("theory", "measure"),
    "hinge": ("hinge", "measure"),
    "sweep": ("sweep", "measure"),
    "report": ("report", "measure"),
    "gpu": ("gpu", "measure"),
}


def measure(name: str, quick: bool) -> list[dict[str, Any]]:
    """The rows of one part."""
    module, function = PARTS[name]
    return getattr(import_module(f"benchmarks.{module}"), function)(quick)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    shown = [key for key in COLUMNS if any(row.get(key) not in (None, "") for row in rows)]
    lines = ["| " + " | ".join(COLUMNS[key] for key in shown) + " |", "|" + " --- |" * len(shown)]
    lines += ["| " + " | ".join(cell(row.get(key)) for key in shown) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """A number with three digits, anything else as it is."""
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return "" if value is None else str(value)


def main(arguments: list[str]) -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of {', '.join(PARTS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="short runs: whether it works, not how fast it is")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder for PART.json and PART.md")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.parts if name not in PARTS]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    environment = timing.environment() | {"quick": options.quick}
    for name in options.parts or PARTS:
        print(f"## {name}", flush=True)
        rows = measure(name, options.quick)
        if not rows:
            print("nothing to measure here\n", flush=True)
            continue
        text = table(rows)
        print(text + "\n", flush=True)
        result = {"environment": environment, "rows": rows}
        (options.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        heading = ", ".join(f"{key} {environment[key]}" for key in ("cpu", "cores", "jax", "python"))
        (options.out / f"{name}.md").write_text(f"# {name}\n\n{heading}\n\n{text}\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
