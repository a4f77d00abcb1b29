"""Special functions that JAX lacks, each with its derivative: Lambert W, Ei, the hyperbolic clock, the binomial.

Knows nothing of networks.
"""

from gradstarve.special.binomial import binomial_at_least, binomial_log_pmf
from gradstarve.special.clock import clock_integral, clock_state, clock_time
from gradstarve.special.expint import expi, expi_scaled
from gradstarve.special.lambertw import lambertw, lambertw_exp

__all__ = [
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
