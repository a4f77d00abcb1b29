"""Which directions of a user's own data are features, how fast each is learnt, and which of them starve."""

from gradstarve.diagnosis._after import AfterTraining, Measured, after_training
from gradstarve.diagnosis._entry import from_jacobian, from_kernel, starvation_report
from gradstarve.diagnosis._groups import EigenFeatures, GroupLaw
from gradstarve.diagnosis._heldout import Cell, HeldOut, Plan
from gradstarve.diagnosis._margins import MarginReport, MeasuredGroup, from_margins
from gradstarve.diagnosis._regime import Regime
from gradstarve.diagnosis._report import StarvationReport, UsersTraining

__all__ = [
    "AfterTraining",
    "HeldOut",
    "MarginReport",
    "StarvationReport",
    "after_training",
    "from_jacobian",
    "from_kernel",
    "from_margins",
    "starvation_report",
]
