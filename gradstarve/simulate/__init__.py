"""Training by brute force: what a network does when it is trained, whatever the hypotheses of the theorems.

Nothing here knows a closed form, so that an agreement with `gradstarve.theory` is worth something.
"""

from gradstarve.simulate.flow import simulate_flow
from gradstarve.simulate.hinge_events import HingeTrajectory, simulate_hinge_exact
from gradstarve.simulate.hinge_run import EventKind
from gradstarve.simulate.simulate import simulate
from gradstarve.simulate.sweep import sweep
from gradstarve.simulate.sweep_result import SweepResult
from gradstarve.simulate.trajectory import Trajectory

__all__ = [
    "EventKind",
    "HingeTrajectory",
    "SweepResult",
    "Trajectory",
    "simulate",
    "simulate_flow",
    "simulate_hinge_exact",
    "sweep",
]
