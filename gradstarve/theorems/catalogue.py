"""The catalogue: every statement that is tried against training, in the order of their equations."""

from __future__ import annotations

from gradstarve.theorems.antipodal import ANTIPODAL, TRANSFER
from gradstarve.theorems.balance import BALANCE
from gradstarve.theorems.closed_forms import BALANCED, CROSS_ENTROPY, HINGE
from gradstarve.theorems.decay import CURVE, THRESHOLD
from gradstarve.theorems.deep_starvation import DEEP, SHARED
from gradstarve.theorems.depth import DEPTH, READ_OUT, UNBALANCED
from gradstarve.theorems.descent import DESCENT
from gradstarve.theorems.direction import DIRECTION
from gradstarve.theorems.discriminator import SIGNAL
from gradstarve.theorems.ensemble import WRONG_SIGNS
from gradstarve.theorems.entry import Theorem
from gradstarve.theorems.fate import FATES, PROBABILITY
from gradstarve.theorems.features import FEATURES, INDEX
from gradstarve.theorems.hinge_counts import FINITE_EVENTS
from gradstarve.theorems.hinge_end import HINGE_END
from gradstarve.theorems.hinge_margin import HINGE_MAX_MARGIN
from gradstarve.theorems.hinge_path import HINGE_EXACT, NO_SLIDING
from gradstarve.theorems.independence import INDEPENDENT_MODES, SIGN
from gradstarve.theorems.inflection import INFLECTIONS, PLATEAU, TRANSITION
from gradstarve.theorems.linearised import DECOUPLING, LOGISTIC_FLOW, RIDGE
from gradstarve.theorems.linearised import STARVATION as LINEARISED_STARVATION
from gradstarve.theorems.mode import CLOCK, DEATHS, UNIVERSALITY
from gradstarve.theorems.momentum import MOMENTUM
from gradstarve.theorems.sgd import DISTRIBUTION, MARGIN_TIME
from gradstarve.theorems.softmax import SOFTMAX, SOFTMAX_CLOCK
from gradstarve.theorems.speed import ADVANTAGE, CONFIDENCE, TAILS
from gradstarve.theorems.starvation import BOUNDS, FREEZE, STARVING_PAIR
from gradstarve.theorems.waking import WAKING, WAKING_HINGE

CATALOGUE: dict[str, Theorem] = {
    theorem.name: theorem
    for theorem in (
        BALANCE,
        SIGN,
        NO_SLIDING,
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
        WAKING,
        WAKING_HINGE,
        INFLECTIONS,
        TRANSITION,
        PLATEAU,
        WRONG_SIGNS,
        CONFIDENCE,
        ADVANTAGE,
        TAILS,
        DEPTH,
        UNBALANCED,
        DESCENT,
        MOMENTUM,
        DISTRIBUTION,
        MARGIN_TIME,
        THRESHOLD,
        CURVE,
        FEATURES,
        STARVING_PAIR,
        FREEZE,
        BOUNDS,
        DEEP,
        INDEX,
        SHARED,
        SOFTMAX,
        SOFTMAX_CLOCK,
        HINGE_EXACT,
        FINITE_EVENTS,
        HINGE_END,
        DIRECTION,
        HINGE_MAX_MARGIN,
        LOGISTIC_FLOW,
        RIDGE,
        LINEARISED_STARVATION,
        DECOUPLING,
        SIGNAL,
    )
}
