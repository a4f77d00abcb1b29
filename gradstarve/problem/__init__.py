"""The ground floor: data, networks, losses, dynamics, and the learning-curve contract. Solves and trains nothing."""

from gradstarve.problem import _datasets as datasets
from gradstarve.problem._curve import (
    LearningCurve,
    Mode,
    ModeCurve,
    NetworkCurve,
    error_to_logit,
    given,
)
from gradstarve.problem._data import Breach, ClassDataset, Dataset, Ray, Reduction, Separability, distinct
from gradstarve.problem._datasets import SIDE, TwoDigits, check_types, with_patch
from gradstarve.problem._dynamics import Dynamics, GradientDescent, GradientFlow, StochasticGradientDescent, no_dynamics
from gradstarve.problem._exclusive import exclusive
from gradstarve.problem._losses import (
    LOSSES,
    CrossEntropy,
    Exponential,
    Hinge,
    JitLoss,
    Loss,
    SquaredMargin,
    as_loss,
    clock_of,
    closed_form_of,
    with_closed_form,
)
from gradstarve.problem._modified import FlippedLabels, Focal, MarginShift, SpectralDecoupling, Temperature
from gradstarve.problem._networks import (
    DeepReLU,
    Network,
    SoftmaxOneLayer,
    SoftmaxTwoLayer,
    TwoLayerReLU,
    draw_two_layer,
    init_deep,
    init_softmax,
    init_two_layer,
)

__all__ = [
    "LOSSES",
    "Breach",
    "ClassDataset",
    "CrossEntropy",
    "Dataset",
    "DeepReLU",
    "Dynamics",
    "Exponential",
    "FlippedLabels",
    "Focal",
    "GradientDescent",
    "GradientFlow",
    "Hinge",
    "LearningCurve",
    "Loss",
    "MarginShift",
    "Mode",
    "ModeCurve",
    "Network",
    "NetworkCurve",
    "Ray",
    "Reduction",
    "Separability",
    "SoftmaxOneLayer",
    "SoftmaxTwoLayer",
    "SpectralDecoupling",
    "SquaredMargin",
    "StochasticGradientDescent",
    "Temperature",
    "TwoLayerReLU",
    "as_loss",
    "clock_of",
    "datasets",
    "exclusive",
    "init_deep",
    "init_softmax",
    "init_two_layer",
    "with_closed_form",
]
