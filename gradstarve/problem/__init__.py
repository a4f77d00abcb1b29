"""The ground floor: data, networks, losses, dynamics, and the learning-curve contract. Solves and trains nothing."""

from gradstarve.problem import datasets
from gradstarve.problem.classes import ClassDataset
from gradstarve.problem.curve import LearningCurve
from gradstarve.problem.dataset import Breach, Dataset, Ray, Reduction, Separability
from gradstarve.problem.deep import DeepReLU, init_deep
from gradstarve.problem.dynamics import Dynamics, GradientDescent, GradientFlow, StochasticGradientDescent
from gradstarve.problem.exclusive import exclusive
from gradstarve.problem.losses import (
    LOSSES,
    CrossEntropy,
    Exponential,
    Hinge,
    Loss,
    SquaredMargin,
    as_loss,
    closed_form_of,
    with_closed_form,
)
from gradstarve.problem.mode import Mode
from gradstarve.problem.network import Network, TwoLayerReLU, init_two_layer
from gradstarve.problem.penalty import SpectralDecoupling
from gradstarve.problem.softmax import SoftmaxOneLayer, SoftmaxTwoLayer, init_softmax

__all__ = [
    "LOSSES",
    "Breach",
    "ClassDataset",
    "CrossEntropy",
    "Dataset",
    "DeepReLU",
    "Dynamics",
    "Exponential",
    "GradientDescent",
    "GradientFlow",
    "Hinge",
    "LearningCurve",
    "Loss",
    "Mode",
    "Network",
    "Ray",
    "Reduction",
    "Separability",
    "SoftmaxOneLayer",
    "SoftmaxTwoLayer",
    "SpectralDecoupling",
    "SquaredMargin",
    "StochasticGradientDescent",
    "TwoLayerReLU",
    "as_loss",
    "closed_form_of",
    "datasets",
    "exclusive",
    "init_deep",
    "init_softmax",
    "init_two_layer",
    "with_closed_form",
]
