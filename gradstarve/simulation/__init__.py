"""Training by brute force: numerical simulation of networks, without the hypotheses of the theorems.

Nothing here uses a closed form of `gradstarve.theory`, so that agreement between the two is evidence.
"""

from gradstarve.simulation._flow import simulate_flow
from gradstarve.simulation._simulate import simulate
from gradstarve.simulation._trajectory import PhasedTrajectory, Trajectory
from gradstarve.simulation.engines._reference import batch_loss
from gradstarve.simulation.hinge._events import HingeTrajectory, simulate_hinge_exact
from gradstarve.simulation.hinge._run import EventKind
from gradstarve.simulation.hinge._run import EventKind as Kind
from gradstarve.simulation.sweep._open import open_sweep
from gradstarve.simulation.sweep._result import SweepResult, drawn_configurations
from gradstarve.simulation.sweep._statistics import ERROR, MARGIN
from gradstarve.simulation.sweep._sweep import sweep

__all__ = [
    "EventKind",
    "HingeTrajectory",
    "PhasedTrajectory",
    "SweepResult",
    "Trajectory",
    "open_sweep",
    "simulate",
    "simulate_flow",
    "simulate_hinge_exact",
    "sweep",
]
