"""Which directions of a user's own data are features, how fast each is learnt, and which of them starve."""

from gradstarve.diagnose.after import AfterTraining, after_training
from gradstarve.diagnose.entry import from_jacobian, starvation_report
from gradstarve.diagnose.margins import MarginReport, from_margins
from gradstarve.diagnose.report import StarvationReport

__all__ = [
    "AfterTraining",
    "MarginReport",
    "StarvationReport",
    "after_training",
    "from_jacobian",
    "from_margins",
    "starvation_report",
]
