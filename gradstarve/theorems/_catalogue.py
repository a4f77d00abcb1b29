"""The catalogue: every statement that is tried against training, in the order of their equations."""

from __future__ import annotations

from gradstarve.theorems._entry import Theorem
from gradstarve.theorems.laws.decay import CURVE, THRESHOLD
from gradstarve.theorems.laws.depth import DEPTH, READ_OUT, UNBALANCED
from gradstarve.theorems.laws.descent import DESCENT, DISTRIBUTION, MARGIN_TIME, MOMENTUM
from gradstarve.theorems.laws.discriminator import SIGNAL
from gradstarve.theorems.laws.fates import ANTIPODAL, FATES, PROBABILITY, TRANSFER, WRONG_SIGNS
from gradstarve.theorems.laws.features import FEATURES, INDEX
from gradstarve.theorems.laws.hinge import FINITE_EVENTS, HINGE_END, HINGE_EXACT, NO_SLIDING
from gradstarve.theorems.laws.independence import INDEPENDENT_MODES, SIGN
from gradstarve.theorems.laws.linearised import DECOUPLING, LOGISTIC_FLOW, RIDGE
from gradstarve.theorems.laws.linearised import STARVATION as LINEARISED_STARVATION
from gradstarve.theorems.laws.margins import DIRECTION, HINGE_MAX_MARGIN
from gradstarve.theorems.laws.modes import BALANCE, BALANCED, CLOCK, CROSS_ENTROPY, DEATHS, HINGE, UNIVERSALITY
from gradstarve.theorems.laws.shape import ADVANTAGE, CONFIDENCE, INFLECTIONS, PLATEAU, TAILS, TRANSITION
from gradstarve.theorems.laws.softmax import SOFTMAX, SOFTMAX_CLOCK
from gradstarve.theorems.laws.starvation import BOUNDS, DEEP, FREEZE, SHARED, STARVING_PAIR
from gradstarve.theorems.laws.waking import WAKING, WAKING_HINGE

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
