"""`python -m benchmarks.summary`: the tables of docs/speed.md, made from what is stored under benchmarks/results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NAIVE = {"naive vmap(grad) + scan": "`z @ relu(w @ x.T)`", "naive, relu(x @ w.T) @ z": "`relu(x @ w.T) @ z`"}
# Rows of the first answers that the README shows, and what it calls them.
SHOWN = {
    "solve_mode(one mode).logit(200 times)": "a curve of one mode",
    "simulate(512 x 16, 400 steps)": "400 steps of 512 networks",
    "ntk.logistic_flow, n = 200": "the kernel flow of 200 samples",
}
HEADING = ("task", "peer", "times faster", "seconds", "peer's", "error", "peer's")


def rows_of(part: str) -> list[dict[str, Any]]:
    """The stored rows of one part, each with its peer or method as "what"."""
    rows = json.loads((RESULTS / f"{part}.json").read_text())["rows"]
    return [{**row, "what": row.get("what", row.get("name"))} for row in rows]


def short(value: float) -> str:
    """Two digits, and whole numbers from 100 on."""
    return f"{value:.2g}" if value < 99.5 else f"{value:.0f}"


def cell(ours: dict[str, Any], peer: dict[str, Any], task: str, name: str, error: str) -> tuple[str, ...]:
    """One line: how many times faster, the seconds of both, the errors of both."""
    times = peer["seconds"] / ours["seconds"]
    seconds = [short(row["seconds"]) for row in (ours, peer)]
    errors = [f"{row[error]:.0e}".replace("e-0", "e-") for row in (ours, peer)]
    return task, name, f"**{short(times)}**", seconds[0], seconds[1], *errors


def training() -> list[tuple[str, ...]]:
    """Networks trained, against both spellings of the jitted scan of vmap(grad)."""
    lines = []
    for size in ("S1", "S2", "S3"):
        by = {row["what"]: row for row in rows_of("sizes") if row["size"] == size}
        ours = by["gradstarve"]
        task = f"{size}: train {ours['B']:,} networks of {ours['h']}, {ours['T']:,} steps"
        lines += [cell(ours, by[what], task, name, "median_error") for what, name in NAIVE.items()]
    return lines


def theory() -> list[tuple[str, ...]]:
    """Closed forms of 10,000 modes, against integrating their equation."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows_of("theory")):
        by = {row["what"]: row for row in rows_of("theory") if row["task"] == task}
        line = cell(by["gradstarve"], by["diffrax Tsit5 1e-8"], f"10,000 modes, {task}", "diffrax Tsit5, 1e-8", "error")
        lines.append(line)
    return lines


def hinge() -> list[tuple[str, ...]]:
    """Exact hinge flow, against integrators, on networks of which none slides."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows_of("hinge")):
        by = {row["what"]: row for row in rows_of("hinge") if row["task"] == task}
        ours = by["gradstarve"]
        for method in ("Dopri8", "Tsit5"):
            name = f"exact hinge flow, {ours['networks']:,} networks, {task}"
            lines.append(cell(ours, by[f"diffrax {method} 1e-8"], name, f"diffrax {method}, 1e-8", "worst_error"))
    return lines


def report() -> list[tuple[str, ...]]:
    """Kernels of a million parameters, against products of whole gradients; in seconds of processors."""
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows_of("report")):
        by = {row["what"]: {**row, "seconds": row["processor_seconds"]} for row in rows_of("report") if row["task"] == task}
        name = f"kernel of {by['gradstarve']['n']:,} samples, 10⁶ parameters, {task}"
        peer = "vmap(jacrev), in chunks"
        if peer not in by:
            continue
        lines.append(cell(by["gradstarve"], by[peer], name, f"`{peer}`", "worst_error"))
    return lines


def summary() -> str:
    """The table, in Markdown."""
    lines = [HEADING, ("---", "---", "---:", "---:", "---:", "---:", "---:"), *training(), *theory(), *hinge(), *report()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_answers() -> str:
    """What a person waits for in a fresh process, and what may be waited for, in Markdown."""
    heading = ("asked from Python", "at most, s", "first answer, s", "with a cache, s", "again, s")
    lines = [heading, ("---", *["---:"] * 4)]
    for row in rows_of("first"):
        times = [row[name] for name in ("first_seconds", "cached_seconds", "seconds")]
        lines.append((f"`{row['what']}`", f"{row['asked_seconds']:g}", *(f"{seconds:.2g}" for seconds in times)))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def first_line() -> str:
    """Three of them, as the README says it."""
    rows = {row["what"]: row for row in rows_of("first")}
    return ", ".join(f"{name} {rows[what]['first_seconds']:.2g} s" for what, name in SHOWN.items())


def ranges() -> dict[str, str]:
    """From how many to how many times as fast as its peers each kind of work is, as the README says it."""
    found = {}
    for kind in (training, theory, hinge):
        times = [line[2].strip("*") for line in kind()]
        found[kind.__name__] = f"{min(times, key=float)} to {max(times, key=float)} times as fast"
    return found


if __name__ == "__main__":
    print(first_answers())
    print(first_line())
    print(summary())
    print(ranges())
