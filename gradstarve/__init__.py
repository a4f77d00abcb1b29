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

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # From the modules that define them: `simulate`, `sweep` and `verify` are also names of modules in their rooms.
    from gradstarve import diagnose as diagnose
    from gradstarve import errors as errors
    from gradstarve import problem as problem
    from gradstarve import special, theorems, theory
    from gradstarve import studies as studies
    from gradstarve import symbolic as symbolic
    from gradstarve.compare.gaps import Comparison, compare
    from gradstarve.diagnose.entry import starvation_report
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
        init_deep,
        init_softmax,
        init_two_layer,
    )
    from gradstarve.problem.exclusive import exclusive
    from gradstarve.simulate.flow import simulate_flow
    from gradstarve.simulate.hinge_events import HingeTrajectory, simulate_hinge_exact
    from gradstarve.simulate.hinge_run import EventKind
    from gradstarve.simulate.simulate import simulate
    from gradstarve.simulate.sweep import sweep
    from gradstarve.simulate.sweep_result import SweepResult
    from gradstarve.simulate.trajectory import Trajectory
    from gradstarve.studies.phase import phase_diagram
    from gradstarve.symbolic.derivation import Derivation, derive
    from gradstarve.theorems.verify import Report, verify
    from gradstarve.theory.solve import Solution, solve, solve_mode

    __version__: str

# Where the public names come from. Nothing is loaded before it is asked for, so that a program waits for no room that it
# does not open, and the command line answers --help and the completion of a word before JAX has started.
_ROOMS = ("special", "problem", "symbolic", "theory", "simulate", "compare", "theorems", "diagnose", "studies", "errors")
_NAMES = {
    "gradstarve.compare": ("Comparison", "compare"),
    "gradstarve.diagnose": ("starvation_report",),
    "gradstarve.errors": ("ConvergenceError", "HypothesisError"),
    "gradstarve.problem": (
        *("ClassDataset", "CrossEntropy", "Dataset", "DeepReLU", "Exponential", "GradientDescent", "GradientFlow", "Hinge"),
        *("Mode", "SoftmaxOneLayer", "SoftmaxTwoLayer", "SpectralDecoupling", "SquaredMargin", "StochasticGradientDescent"),
        *("TwoLayerReLU", "datasets", "exclusive", "init_deep", "init_softmax", "init_two_layer"),
    ),
    "gradstarve.simulate": (
        *("EventKind", "HingeTrajectory", "SweepResult", "Trajectory"),
        *("simulate", "simulate_flow", "simulate_hinge_exact", "sweep"),
    ),
    "gradstarve.studies.phase": ("phase_diagram",),
    "gradstarve.symbolic": ("Derivation", "derive"),
    "gradstarve.theorems": ("Report", "verify"),
    "gradstarve.theory": ("Solution", "solve", "solve_mode"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "ClassDataset",
    "Comparison",
    "ConvergenceError",
    "CrossEntropy",
    "Dataset",
    "DeepReLU",
    "Derivation",
    "EventKind",
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


if not TYPE_CHECKING:  # for which every name would be there, of type Any

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            from importlib.metadata import version

            value: Any = version("gradstarve")
        elif name in _HOME:
            value = getattr(import_module(_HOME[name]), name)
        elif name in _ROOMS:
            value = import_module(f"gradstarve.{name}")
        else:
            raise AttributeError(f"module 'gradstarve' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, "__version__"})


class _Package(ModuleType):
    """This package, in which `simulate` and `compare` are the functions although there are rooms of these names."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Importing a room sets it as an attribute of the package.
        if isinstance(value, ModuleType) and name in _HOME:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
