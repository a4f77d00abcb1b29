"""Special functions that JAX lacks, each with its derivative: Lambert W, Ei, the hyperbolic clock, the binomial."""

from gradstarve.special import _expint as expint
from gradstarve.special._binomial import binomial_at_least, binomial_log_pmf, pmf
from gradstarve.special._clock import (
    CLOCKS,
    Clock,
    ConstantClock,
    ExponentialClock,
    LinearClock,
    Softmax,
    as_clock,
    clock_integral,
    clock_state,
    clock_time,
)
from gradstarve.special._clock_residual import QuadratureClock, rest_after
from gradstarve.special._expint import expi, expi_scaled
from gradstarve.special._lambertw import lambertw, lambertw_exp
from gradstarve.special._monotone import invert

__all__ = [
    "Clock",
    "ConstantClock",
    "ExponentialClock",
    "LinearClock",
    "QuadratureClock",
    "Softmax",
    "binomial_at_least",
    "binomial_log_pmf",
    "clock_integral",
    "clock_state",
    "clock_time",
    "expi",
    "expi_scaled",
    "lambertw",
    "lambertw_exp",
]
