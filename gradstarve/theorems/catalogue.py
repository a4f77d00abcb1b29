"""The catalogue: every statement that is tried against training, in the order of their equations."""

from __future__ import annotations

from gradstarve.theorems.antipodal import ANTIPODAL, TRANSFER
from gradstarve.theorems.balance import BALANCE
from gradstarve.theorems.closed_forms import BALANCED, CROSS_ENTROPY, HINGE
from gradstarve.theorems.depth import DEPTH, READ_OUT, UNBALANCED
from gradstarve.theorems.descent import DESCENT
from gradstarve.theorems.entry import Theorem
from gradstarve.theorems.fate import FATES, PROBABILITY
from gradstarve.theorems.independence import INDEPENDENT_MODES, SIGN
from gradstarve.theorems.inflection import INFLECTIONS, PLATEAU, TRANSITION
from gradstarve.theorems.mode import CLOCK, DEATHS, UNIVERSALITY

CATALOGUE: dict[str, Theorem] = {
    theorem.name: theorem
    for theorem in (
        BALANCE,
        SIGN,
        INDEPENDENT_MODES,
        CLOCK,
        HINGE,
        CROSS_ENTROPY,
        BALANCED,
        READ_OUT,
        DEATHS,
        UNIVERSALITY,
        FATES,
        PROBABILITY,
        TRANSFER,
        ANTIPODAL,
        INFLECTIONS,
        TRANSITION,
        PLATEAU,
        DEPTH,
        UNBALANCED,
        DESCENT,
    )
}
