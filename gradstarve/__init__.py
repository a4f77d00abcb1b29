"""Exact learning dynamics of ReLU networks on separable data, and the training that confirms them.

    problem  ->  solve      ->  Solution    \\
    (data, network, loss, dynamics)           >  compare  ->  verify
             ->  simulate   ->  Trajectory   /
    derive   (proves, step by step, what `solve` evaluates)

Labels are ±1, weights of points sum to 1, time = step size x step. The setting is that of Tachet des Combes et al.,
On the Learning Dynamics of Deep Neural Networks (arXiv:1809.06848).

>>> import gradstarve as gs
>>> data = gs.datasets.antipodal(frequencies=(0.8, 0.2))
>>> network = gs.TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
>>> gs.solve(data, network, "hinge").margins(1000.0).tolist()
[1.0, 1.0]
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from gradstarve import special, theory
from gradstarve.compare import Comparison, compare
from gradstarve.errors import ConvergenceError, HypothesisError
from gradstarve.problem import (
    ClassDataset,
    CrossEntropy,
    Dataset,
    DeepReLU,
    Exponential,
    GradientDescent,
    GradientFlow,
    Hinge,
    Mode,
    SoftmaxOneLayer,
    SoftmaxTwoLayer,
    SpectralDecoupling,
    SquaredMargin,
    StochasticGradientDescent,
    TwoLayerReLU,
    datasets,
    exclusive,
    init_deep,
    init_softmax,
    init_two_layer,
)
from gradstarve.simulate import (
    HingeTrajectory,
    SweepResult,
    Trajectory,
    simulate,
    simulate_flow,
    simulate_hinge_exact,
    sweep,
)
from gradstarve.theory import Solution, solve, solve_mode

if TYPE_CHECKING:
    from gradstarve import theorems
    from gradstarve.diagnose import starvation_report
    from gradstarve.studies.phase import phase_diagram
    from gradstarve.symbolic import Derivation, derive
    from gradstarve.theorems import Report, verify

# These rooms stand on SymPy and on everything else, and most programs never open them.
_LAZY = {
    "Derivation": "gradstarve.symbolic",
    "derive": "gradstarve.symbolic",
    "phase_diagram": "gradstarve.studies.phase",
    "Report": "gradstarve.theorems",
    "starvation_report": "gradstarve.diagnose",
    "verify": "gradstarve.theorems",
}

__version__ = version("gradstarve")

__all__ = [
    "ClassDataset",
    "Comparison",
    "ConvergenceError",
    "CrossEntropy",
    "Dataset",
    "DeepReLU",
    "Derivation",
    "Exponential",
    "GradientDescent",
    "GradientFlow",
    "Hinge",
    "HingeTrajectory",
    "HypothesisError",
    "Mode",
    "Report",
    "SoftmaxOneLayer",
    "SoftmaxTwoLayer",
    "Solution",
    "SpectralDecoupling",
    "SquaredMargin",
    "StochasticGradientDescent",
    "SweepResult",
    "Trajectory",
    "TwoLayerReLU",
    "compare",
    "datasets",
    "derive",
    "exclusive",
    "init_deep",
    "init_softmax",
    "init_two_layer",
    "phase_diagram",
    "simulate",
    "simulate_flow",
    "simulate_hinge_exact",
    "solve",
    "solve_mode",
    "special",
    "starvation_report",
    "sweep",
    "theorems",
    "theory",
    "verify",
]


def __getattr__(name: str):
    if name == "theorems":
        return import_module("gradstarve.theorems")
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'gradstarve' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
