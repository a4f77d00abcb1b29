"""Closed forms of training, one module per law; `solve` picks the law that applies.

Never imports `gradstarve.simulation`: `gradstarve.theorems` measures the agreement of the two.
"""

from gradstarve.theory import _jacobian as jacobian
from gradstarve.theory import _linearised as ntk
from gradstarve.theory._alignment import Alignment, Directions, Groups, NeuronEvents, early_alignment
from gradstarve.theory._cones import ConeBounds, cone_bounds
from gradstarve.theory._decay import decay_threshold, decayed_logit, decayed_time, settled_logit
from gradstarve.theory._depth import DepthMode, depth_mode, one_layer_logit, one_layer_time
from gradstarve.theory._descent import DescentSolution, ModeDescent
from gradstarve.theory._direction import MaxMargin, generator_signal, max_margin_direction, minimax_peak, minimax_tail
from gradstarve.theory._fates import (
    KappaDistribution,
    LearningTime,
    antipodal_fate,
    biased_cosine,
    class_failure_probability,
    death_probability,
    dies_for_ever,
    exclusive_fate,
    learning_probability,
    wrong_sign_fraction,
    wrong_sign_time,
)
from gradstarve.theory._features import (
    FeatureFlow,
    SharedFeatures,
    feature_flow,
    settled_features,
    shared_features,
    shared_slope,
    starvation_index,
)
from gradstarve.theory._inflection import error_inflections, kappa_critical, plateau_length
from gradstarve.theory._kappa import (
    catapult,
    decayed_kappa,
    edge_of_stability,
    kappa_path,
    lazy_to_rich_time,
    squared_gradient_norm,
)
from gradstarve.theory._mode import ClockCurve, ModeSolution
from gradstarve.theory._nearby import DataGap, NearbySolution
from gradstarve.theory._phases import PhasedMode, PhasedSolution, alive_share, still_alive
from gradstarve.theory._plateaus import PlateauExits, plateau_exits
from gradstarve.theory._reweighting import Reweighting, equal_speed_weights, equal_time_weights, fastest_weights
from gradstarve.theory._sgd import LogitDistribution, MixedTimeDistribution, ModeMiniBatch, ModeSGD, TimeDistribution
from gradstarve.theory._shortcut import Change, Peak, Shortcut, Stop, minority_needed, shortcut
from gradstarve.theory._softmax import SoftmaxMode, SoftmaxReadOut, softmax_mode
from gradstarve.theory._solve import Solution, solve, solve_mode
from gradstarve.theory._speed import confident_logit, error_tail, hinge_advantage, time_to_confidence
from gradstarve.theory._starvation import StarvingPair, starving_pair

__all__ = [
    "Alignment",
    "Change",
    "ClockCurve",
    "ConeBounds",
    "DataGap",
    "DepthMode",
    "DescentSolution",
    "Directions",
    "FeatureFlow",
    "Groups",
    "KappaDistribution",
    "LearningTime",
    "LogitDistribution",
    "MaxMargin",
    "MixedTimeDistribution",
    "ModeDescent",
    "ModeMiniBatch",
    "ModeSGD",
    "ModeSolution",
    "NearbySolution",
    "NeuronEvents",
    "Peak",
    "PhasedMode",
    "PhasedSolution",
    "PlateauExits",
    "Reweighting",
    "SharedFeatures",
    "Shortcut",
    "SoftmaxMode",
    "SoftmaxReadOut",
    "Solution",
    "StarvingPair",
    "Stop",
    "TimeDistribution",
    "alive_share",
    "antipodal_fate",
    "biased_cosine",
    "catapult",
    "class_failure_probability",
    "cone_bounds",
    "confident_logit",
    "death_probability",
    "decay_threshold",
    "decayed_kappa",
    "decayed_logit",
    "decayed_time",
    "depth_mode",
    "dies_for_ever",
    "early_alignment",
    "edge_of_stability",
    "equal_speed_weights",
    "equal_time_weights",
    "error_inflections",
    "error_tail",
    "exclusive_fate",
    "fastest_weights",
    "feature_flow",
    "generator_signal",
    "hinge_advantage",
    "jacobian",
    "kappa_critical",
    "kappa_path",
    "lazy_to_rich_time",
    "learning_probability",
    "max_margin_direction",
    "minimax_peak",
    "minimax_tail",
    "minority_needed",
    "ntk",
    "one_layer_logit",
    "one_layer_time",
    "plateau_exits",
    "plateau_length",
    "settled_features",
    "settled_logit",
    "shared_features",
    "shared_slope",
    "shortcut",
    "softmax_mode",
    "solve",
    "solve_mode",
    "squared_gradient_norm",
    "starvation_index",
    "starving_pair",
    "still_alive",
    "time_to_confidence",
    "wrong_sign_fraction",
    "wrong_sign_time",
]
