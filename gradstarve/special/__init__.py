"""Special functions that JAX lacks, each with its derivative: Lambert W, Ei, and the hyperbolic clock.

Knows nothing of networks.
"""

from gradstarve.special.clock import clock_integral, clock_state, clock_time
from gradstarve.special.expint import expi, expi_scaled
from gradstarve.special.lambertw import lambertw, lambertw_exp

__all__ = ["clock_integral", "clock_state", "clock_time", "expi", "expi_scaled", "lambertw", "lambertw_exp"]
