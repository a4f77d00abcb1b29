"""The theorems tested against training: the catalogue, and `verify`, which runs it.

The setting is that of arXiv:1809.06848; statements and equation numbers are this project's own.
"""

from __future__ import annotations

from typing import Any

from gradstarve.ground import warn_deprecated
from gradstarve.theorems._catalogue import CATALOGUE
from gradstarve.theorems._earlier import earlier
from gradstarve.theorems._entry import (
    BELOW_ONE,
    EXCLUSIVE,
    MOST_UNDECIDED,
    ONE_RAY,
    SEPARABLE,
    STAYING,
    Counterexample,
    Hypothesis,
    Outcome,
    Problem,
    Quote,
    Theorem,
    TrialLog,
    draw_gaps,
)
from gradstarve.theorems._figure import LawFigure
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import BATCH, LOSS_NAMES, ExclusiveInit, generator, generators, record, two_rays
from gradstarve.theorems._verify import FORMAT, Report, Row, draw, verify
from gradstarve.theorems.laws.features import AnyLoss

__all__ = [
    "CATALOGUE",
    "Counterexample",
    "Drop",
    "LawFigure",
    "Outcome",
    "Report",
    "Row",
    "Theorem",
    "Trials",
    "compared",
    "draw",
    "draw_gaps",
    "register",
    "verify",
]

_OLD = {"Tally": "TrialLog", "Start": "ExclusiveInit"}


def __getattr__(name: str) -> Any:
    if name in _OLD:
        warn_deprecated(f"gradstarve.theorems.{name}", f"gradstarve.theorems.{_OLD[name]}")
        return globals()[_OLD[name]]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
