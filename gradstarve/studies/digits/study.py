"""Gradient starvation and the laws of learning on real handwritten digits: settings, and the five studies in one run.

Each study is a function of `settings` that returns numbers, curves and claims: `speed.error_and_loss` (a) and
`class_speed` (b), `patch.starvation` (c) and `remedies` (e), `convolution.convolution` (d). `plots` draws
the figures. The verdict on a claim is computed from the numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from gradstarve.ground import table_text
from gradstarve.studies.digits.claims import claims_table
from gradstarve.studies.digits.convolution import convolution
from gradstarve.studies.digits.patch import NOT_A_REMEDY, remedies, starvation
from gradstarve.studies.digits.speed import class_speed, error_and_loss
from gradstarve.studies.digits.train import Tell, interval

STUDIES: dict[str, Callable[[dict[str, Any], Tell], dict[str, Any]]] = {
    "error": error_and_loss,
    "speed": class_speed,
    "starvation": starvation,
    "convolution": convolution,
    "remedies": remedies,
}
"""The parts (a) to (e), by name."""
# The longest first, so that no thread has to run a long one alone at the end.
_ORDER = ("speed", "remedies", "convolution", "starvation", "error")


def settings(quick: bool = False, pair: Any = (3, 8), seeds: int | None = None, seed: int = 0) -> dict[str, Any]:
    """The settings of `run` by name; time is step size x step. With `quick`, a run takes two minutes.

    `ValueError` for fewer than two seeds, which have no spread.

    >>> settings(quick=True)["seeds"], settings()["seeds"]
    (20, 50)
    """
    seeds = (20 if quick else 50) if seeds is None else seeds
    if seeds < 2:
        raise ValueError(f"seeds must be >= 2, because bands and intervals are over seeds, got {seeds}")
    return {
        "pair": list(pair),
        "quick": quick,
        "seeds": seeds,
        "seed": seed,
        "width": 32,
        "step_size": 0.25,
        # (a)
        "scales": [0.1, 0.01, 0.001],
        "time": 75.0,
        # (b)
        "speed_scale": 0.001,
        "speed_time": 30.0,
        "frequencies": [0.5, 0.25, 0.1, 0.05] if quick else [0.5, 0.35, 0.25, 0.15, 0.1, 0.05, 0.03],
        "rare": [0.25, 0.1, 0.05] if quick else [0.4, 0.25, 0.15, 0.1, 0.05, 0.03],
        "brightness": [0.5, 1.0, 2.0] if quick else [0.35, 0.5, 0.7, 1.0, 1.4, 2.0],
        # (c), (e)
        "patch_scale": 0.01,
        "patch_time": 150.0 if quick else 300.0,
        "records": 150,
        "fractions": [0.0, 0.5, 0.75, 0.9, 0.95, 1.0],
        "remedy_fractions": [0.95, 1.0] if quick else [0.9, 0.95, 1.0],
        "penalties": [0.01, 0.1, 1.0],
        "decays": [0.003, 0.03],
        "steps": [0.5, 4.0],
        # (d)
        "channels": 8,
        "convolutional_scale": 0.3,
        "convolutional_step_size": 0.5,
        "convolutional_time": 100.0,
        "convolutional_frequencies": [0.5, 0.25, 0.1] if quick else [0.5, 0.35, 0.25, 0.15, 0.1, 0.05],
        "convolutional_fractions": [0.0, 0.75, 0.95, 1.0] if quick else [0.0, 0.5, 0.75, 0.9, 0.95, 1.0],
    }


def run(settings: dict[str, Any], tell: Tell = lambda text: None, threads: int = 2) -> dict[str, Any]:
    """All studies: their results by name, in the order of `STUDIES`. `tell` gets a line of progress at a time."""
    lock = threading.Lock()

    def say(text: str) -> None:
        with lock:
            tell(text)

    with ThreadPoolExecutor(threads) as pool:
        futures = {name: pool.submit(STUDIES[name], settings, say) for name in _ORDER}
        try:
            return {name: futures[name].result() for name in STUDIES}
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def claims(results: dict[str, Any]) -> list[Any]:
    """The claims of all studies, in the order of the parts."""
    return sorted((claim for found in results.values() for claim in found["claims"]), key=lambda claim: claim.part)


def conclusion(results: dict[str, Any]) -> str:
    """In one sentence, how many claims of the theory hold on these digits."""
    found = [claim for claim in claims(results) if not claim.detail]
    return f"{sum(claim.holds for claim in found)} of {len(found)} claims of the theory hold on these real digits"


def report_text(results: dict[str, Any]) -> str:
    """The tables that the command prints: learning times, remedies, and the claims with their verdicts."""
    parts = []
    if "speed" in results:
        head = "Learning times of class +, means over seeds (time = step size x step)\n\n"
        parts.append(head + _speed_table(results["speed"]))
    if "remedies" in results:
        for fraction, table in results["remedies"]["tables"].items():
            helps = {claim.claim: claim.verdict for claim in results["remedies"]["claims"] if claim.detail}
            parts.append(_remedy_table(fraction, table, helps))
    found = [claim for claim in claims(results) if not claim.detail]
    parts.append(
        "Claims: mean over seeds, 95 % confidence interval in brackets; clean: test images without patch\n\n"
        + claims_table(found)
    )
    return "\n\n".join(parts)


def _speed_table(found: dict[str, Any]) -> str:
    rows: list[Any] = [("changed", "value", "p", "r", "margin 1", "closed form", "error 0.1", "other class")]
    for name, sweep in found["sweeps"].items():
        for row in sweep:
            cells = [row[key].mean() if key in row else None for key in ("margin", "predicted", "error", "other")]
            numbers = ["" if cell is None else f"{cell:.1f}" for cell in cells]
            rows.append((name, row["label"], f"{row['frequency']:.2f}", f"{row['norm'].mean():.2f}", *numbers))
    return table_text(rows)


def _remedy_table(fraction: float, table: dict[str, Any], helps: dict[str, str]) -> str:
    early, end = table["early"], table["end"]
    head = (
        f"Patch on {100 * fraction:g} % of class +: accuracy on clean test images (%), and what is recovered of the loss "
        f"(%), at t = {early:g},\nas long as it takes without patch, and at t = {end:g}; there also the two classes apart, "
        "and whether the remedy helps\n\n"
    )
    rows: list[Any] = [("remedy", f"t = {early:g}", "recovered", f"t = {end:g}", "recovered", "class +", "class -", "helps")]
    for name, row in table["rows"].items():
        cells = []
        for when in ("early", "end"):
            mean, low, high = interval(row[when])
            share = "" if name in NOT_A_REMEDY else "{:.0f} ({:.0f} to {:.0f})".format(
                *(100 * np.array(row[f"recovered {when}"]))
            )
            cells += [f"{100 * mean:.1f} ± {50 * (high - low):.1f}", share]
        verdict = {"holds": "yes", "does not hold": "no"}.get(helps.get(f"{name} helps, {fraction:g} patched", ""), "")
        classes = [f"{100 * value:.1f}" for value in row["classes end"]]
        rows.append((name + ("" if row["finite"] else " (diverged)"), *cells, *classes, verdict))
    return head + table_text(rows)


def numbers(results: dict[str, Any]) -> dict[str, Any]:
    """The stored results: every claim and every number; curves over time as mean, low and high of the 95 % interval."""
    stored = {"claims": [claim.to_dict() for claim in claims(results)]}
    for name, found in results.items():
        stored[name] = _store({key: value for key, value in found.items() if key != "claims"})
    return stored


def _store(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _store(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray) and value.ndim == 2:  # [seeds, records]
        return dict(zip(("mean", "low", "high"), (part.round(6) for part in interval(value)), strict=True))
    if isinstance(value, list | tuple):
        return [_store(entry) for entry in value]
    return value
