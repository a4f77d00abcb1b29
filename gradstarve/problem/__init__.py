"""The ground floor: data, networks, losses, dynamics, and the learning-curve contract. Solves and trains nothing."""

from gradstarve.problem import datasets
from gradstarve.problem.curve import LearningCurve
from gradstarve.problem.dataset import Breach, Dataset, Ray, Reduction, Separability
from gradstarve.problem.dynamics import Dynamics, GradientDescent, GradientFlow, StochasticGradientDescent
from gradstarve.problem.exclusive import exclusive
from gradstarve.problem.losses import LOSSES, CrossEntropy, Exponential, Hinge, Loss, SquaredMargin, as_loss
from gradstarve.problem.mode import Mode
from gradstarve.problem.network import TwoLayerReLU, init_two_layer

__all__ = [
    "LOSSES",
    "Breach",
    "CrossEntropy",
    "Dataset",
    "Dynamics",
    "Exponential",
    "GradientDescent",
    "GradientFlow",
    "Hinge",
    "LearningCurve",
    "Loss",
    "Mode",
    "Ray",
    "Reduction",
    "Separability",
    "SquaredMargin",
    "StochasticGradientDescent",
    "TwoLayerReLU",
    "as_loss",
    "datasets",
    "exclusive",
    "init_two_layer",
]
