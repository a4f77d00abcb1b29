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

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradstarve import comparison as comparison
    from gradstarve import diagnosis as diagnosis
    from gradstarve import problem as problem
    from gradstarve import simulation as simulation
    from gradstarve import special, theorems, theory
    from gradstarve import studies as studies
    from gradstarve import symbolic as symbolic
    from gradstarve.comparison import Comparison, compare
    from gradstarve.diagnosis import starvation_report
    from gradstarve.ground import ConvergenceError, HypothesisError, _errors, enable_compilation_cache
    from gradstarve.ground._animate import animate
    from gradstarve.ground._restyle import restyle
    from gradstarve.problem import (
        ClassDataset,
        CrossEntropy,
        Dataset,
        DeepReLU,
        Exponential,
        FlippedLabels,
        Focal,
        GradientDescent,
        GradientFlow,
        Hinge,
        MarginShift,
        Mode,
        NormalizedGradientDescent,
        SharpnessAware,
        SignDescent,
        SoftmaxOneLayer,
        SoftmaxTwoLayer,
        SpectralDecoupling,
        SquaredMargin,
        Steps,
        StochasticGradientDescent,
        Temperature,
        TwoLayerReLU,
        datasets,
        exclusive,
        init_deep,
        init_softmax,
        init_two_layer,
    )
    from gradstarve.simulation import (
        EventKind,
        HingeTrajectory,
        SweepResult,
        Trajectory,
        open_sweep,
        simulate,
        simulate_flow,
        simulate_hinge_exact,
        sweep,
    )
    from gradstarve.studies.phase.plane import phase_diagram
    from gradstarve.symbolic import Derivation, derive
    from gradstarve.theorems import Report, verify
    from gradstarve.theory import Alignment, Solution, early_alignment, solve, solve_mode

    __version__: str
    diagnose, errors = diagnosis, _errors

# Where the public names come from. Nothing is loaded before it is asked for, so that a program waits for no room that it
# does not open, and the command line answers --help and the completion of a word before JAX has started.
_ROOMS = ("special", "problem", "symbolic", "theory", "simulation", "comparison", "theorems", "diagnosis", "studies")
_ALSO = {"diagnose": "gradstarve.diagnosis", "errors": "gradstarve.ground._errors"}
_NAMES = {
    "gradstarve.comparison": ("Comparison", "compare"),
    "gradstarve.diagnosis": ("starvation_report",),
    "gradstarve.ground._animate": ("animate",),
    "gradstarve.ground._cache": ("enable_compilation_cache",),
    "gradstarve.ground._errors": ("ConvergenceError", "HypothesisError"),
    "gradstarve.ground._restyle": ("restyle",),
    "gradstarve.problem": (
        *("ClassDataset", "CrossEntropy", "Dataset", "DeepReLU", "Exponential", "FlippedLabels", "Focal", "GradientDescent"),
        *("GradientFlow", "Hinge", "MarginShift", "Mode", "NormalizedGradientDescent", "SharpnessAware", "SignDescent"),
        *("SoftmaxOneLayer", "SoftmaxTwoLayer", "SpectralDecoupling", "SquaredMargin", "Steps", "StochasticGradientDescent"),
        *("Temperature", "TwoLayerReLU", "datasets", "exclusive", "init_deep", "init_softmax", "init_two_layer"),
    ),
    "gradstarve.simulation": (
        *("EventKind", "HingeTrajectory", "SweepResult", "Trajectory"),
        *("open_sweep", "simulate", "simulate_flow", "simulate_hinge_exact", "sweep"),
    ),
    "gradstarve.studies.phase.plane": ("phase_diagram",),
    "gradstarve.symbolic": ("Derivation", "derive"),
    "gradstarve.theorems": ("Report", "verify"),
    "gradstarve.theory": ("Alignment", "Solution", "early_alignment", "solve", "solve_mode"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [
    "Alignment",
    "ClassDataset",
    "Comparison",
    "ConvergenceError",
    "CrossEntropy",
    "Dataset",
    "DeepReLU",
    "Derivation",
    "EventKind",
    "Exponential",
    "FlippedLabels",
    "Focal",
    "GradientDescent",
    "GradientFlow",
    "Hinge",
    "HingeTrajectory",
    "HypothesisError",
    "MarginShift",
    "Mode",
    "NormalizedGradientDescent",
    "Report",
    "SharpnessAware",
    "SignDescent",
    "SoftmaxOneLayer",
    "SoftmaxTwoLayer",
    "Solution",
    "SpectralDecoupling",
    "SquaredMargin",
    "Steps",
    "StochasticGradientDescent",
    "SweepResult",
    "Temperature",
    "Trajectory",
    "TwoLayerReLU",
    "animate",
    "compare",
    "datasets",
    "derive",
    "early_alignment",
    "enable_compilation_cache",
    "exclusive",
    "init_deep",
    "init_softmax",
    "init_two_layer",
    "open_sweep",
    "phase_diagram",
    "restyle",
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
        elif name in _ROOMS or name in _ALSO:
            value = import_module(_ALSO.get(name, f"gradstarve.{name}"))
        else:
            raise AttributeError(f"module 'gradstarve' has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*__all__, *_ROOMS, *_ALSO, "__version__"})
