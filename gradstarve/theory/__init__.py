"""Closed forms: what training does, without training. One module per law; `solve` picks the one that applies.

Never imports the simulator: their agreement is what `gradstarve.theorems` measures.
"""

from gradstarve.theory.descent import DescentSolution, ModeDescent
from gradstarve.theory.fate import (
    antipodal_fate,
    class_failure_probability,
    dies_for_ever,
    exclusive_fate,
    learning_probability,
)
from gradstarve.theory.features import FeatureFlow, feature_flow, starvation_index
from gradstarve.theory.inflection import error_inflections, kappa_critical, plateau_length
from gradstarve.theory.mode import ClockCurve, ModeSolution
from gradstarve.theory.one_layer import one_layer_logit
from gradstarve.theory.shared import SharedFeatures, shared_features, shared_slope
from gradstarve.theory.solve import Solution, solve, solve_mode
from gradstarve.theory.starvation import StarvingPair, starving_pair

__all__ = [
    "ClockCurve",
    "DescentSolution",
    "FeatureFlow",
    "ModeDescent",
    "ModeSolution",
    "SharedFeatures",
    "Solution",
    "StarvingPair",
    "antipodal_fate",
    "class_failure_probability",
    "dies_for_ever",
    "error_inflections",
    "exclusive_fate",
    "feature_flow",
    "kappa_critical",
    "learning_probability",
    "one_layer_logit",
    "plateau_length",
    "shared_features",
    "shared_slope",
    "solve",
    "solve_mode",
    "starvation_index",
    "starving_pair",
]
