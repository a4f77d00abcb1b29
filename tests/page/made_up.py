"""A verification of the whole catalogue with made-up trials: a page of all theorems without the minutes that they take."""

import dataclasses
import functools

import numpy as np

from gradstarve.page import figure_svg
from gradstarve.theorems import CATALOGUE, Counterexample, Report, Row, TrialLog

ENVIRONMENT = {"gradstarve": "0.1.0", "jax": "0.10.1", "precision": "float64"}
DRAWN = ("balance", "sign", "deaths")  # their figures need the gaps alone


def row(name, worst=0.5, undecided=0, found=True, trials=24, details=None, precision="float64"):
    """One theorem whose trials have gaps up to `worst` tolerances, of which the first few are `undecided`."""
    entry = CATALOGUE[name]
    limit = entry.tolerance_in(precision)
    rng = np.random.default_rng(sum(name.encode()))
    gaps = limit * np.append(worst * rng.random(trials - 1), worst)
    log = TrialLog(limit)
    log.add(gaps, "hinge", lambda i: {"trial": i, "w": rng.standard_normal((2, 3))}, np.arange(trials) < undecided)
    drops = tuple(
        Counterexample(f"hypothesis {i}", "off by much", entry.tolerance * (2.5 + i if found else 0.5), entry.tolerance)
        for i in range(len(entry.necessity))
    )
    seconds = round(float(rng.uniform(0.1, 9)), 2)
    return Row(entry, log.outcome(**(details or {})), drops, seconds)


def report(rows=None, **changes):
    """A `Report` of these rows, of the whole catalogue by default."""
    if rows is None:
        rows = [row(name, worst=0.01 * (i + 1), trials=24 + i) for i, name in enumerate(CATALOGUE)]
    made = Report(tuple(rows), (0, 7), None, True, "float64", (), ENVIRONMENT)
    return dataclasses.replace(made, **changes)


@functools.cache
def figures():
    """The figures of the theorems in `DRAWN`, by name."""
    return {name: figure_svg(row(name)) for name in DRAWN}
