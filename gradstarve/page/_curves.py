"""The numbers behind the explorer of the page: the integral of the clock, tabulated for the browser to look up.

By (3.11) the logit of one mode depends on p, r and the weights only through T = 2 p r t, kappa and its start, and by (3.5)

    T = integral_{u0}^{u} dv / (g(v) S),      S = sqrt(kappa^2 + v^2).

Hinge and squared loss are elementary. The two others, 1/g = 1 + e^v and 1/g = e^v, need two functions of (kappa, u) and no
more: the remainder R once the logarithm of kappa -> 0 is split off, and below u = -1, where e^u is what counts, the tail G.

    integral_0^u e^v/S dv = arsinh(u/kappa) + R,     R = integral_0^u (e^v - 1)/S dv    (kappa = 0: Ein(u) where u > 0)
    integral_{-inf}^u e^v/S dv = e^u G / S

G, and H = R (S + kappa) / (2 (e^u - 1 - u)), stay between bounds of order one and are smooth enough for polynomials in the
coordinates of `explorer_data`.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from gradstarve.special import clock_integral
from gradstarve.theory import kappa_critical

Numbers = NDArray[np.float64]

RANGES = {"frequency": (0.01, 1.0), "norm": (0.1, 5.0), "a": (0.001, 2.0), "z": (-2.0, 2.0)}
"""How far the sliders go: 0.01 <= p <= 1, 0.1 <= r <= 5, 0.001 <= a <= 2, -2 <= z <= 2."""

# One neuron has u0 = r a z and kappa = r |a^2 - z^2| / 2.
_KAPPA_TOP = RANGES["norm"][1] * max(RANGES["a"][1], RANGES["z"][1]) ** 2 / 2
_U_LOW = RANGES["norm"][1] * RANGES["a"][1] * RANGES["z"][0]
_U_TOP = 690.0  # e^690 is nearly the largest float: no time leads further
_SCALE = 6.0  # of u > 0, chosen for the smallest error
_KAPPAS, _LOGITS = 24, 32
_DIGITS = 8


def explorer_data() -> dict[str, Any]:
    """What the explorer needs to draw (3.5) for any setting of its sliders, ready for `json.dumps`; about 25 kB.

    - "ranges": lowest and highest value of each slider.
    - "kappa_critical": for each loss kappa_c of (5.2), where rich turns into lazy; None for hinge, which has none.
    - "kappa_top", "u_low", "u_top", "scale": the numbers in the coordinates below.
    - "tables": "above" H for 0 <= u <= u_top, "middle" H for -1 <= u <= 0, "below" G for u_low <= u <= -1. Each a list of
      rows, one for each kappa, at the Chebyshev points (1 - cos(pi k/(n - 1)))/2 of the coordinates in [0, 1]

          kappa = kappa_top y^2;   above: u = scale w/(1 - w), w = x^2 u_top/(u_top + scale);   middle: u = -x;
          below: u = -|u_low|^x.

    Between them the polynomial through the rows, and then through the row, is off by less than 1e-6, and with it u(t): the
    logit that costs at most two errors of a table. Values are those of `special.clock_integral` in float64, to eight digits,
    whatever the precision set. Raises nothing.

    >>> data = explorer_data()
    >>> data["ranges"]["frequency"], data["tables"]["above"][3][0]  # R (S + kappa) / (2 (e^u - 1 - u)) tends to 1 at u = 0
    ([0.01, 1.0], 1.0)
    """
    x = _chebyshev(_LOGITS)
    kappa = _KAPPA_TOP * _chebyshev(_KAPPAS)[:, None] ** 2
    w = x**2 * _U_TOP / (_U_TOP + _SCALE)
    tables = {
        "above": _scaled_remainder(kappa, _SCALE * w / (1 - w)),
        "middle": _scaled_remainder(kappa, -x),
        "below": _tail(kappa, -(abs(_U_LOW) ** x)),
    }
    losses = ("cross-entropy", "exponential", "squared")
    with jax.enable_x64(True):
        critical: dict[str, float | None] = {loss: float(kappa_critical(loss)) for loss in losses}
    return {
        "ranges": {name: list(ends) for name, ends in RANGES.items()},
        "kappa_critical": critical | {"hinge": None},
        "kappa_top": _KAPPA_TOP,
        "u_low": _U_LOW,
        "u_top": _U_TOP,
        "scale": _SCALE,
        "tables": {name: [[float(f"{v:.{_DIGITS}g}") for v in row] for row in table] for name, table in tables.items()},
    }


def _chebyshev(count: int) -> Numbers:
    return (1 - np.cos(np.pi * np.arange(count) / (count - 1))) / 2


def _exponential(kappa: Numbers, low: Numbers, high: Numbers) -> Numbers:
    """integral_low^high e^v/S dv."""
    with jax.enable_x64(True):
        return np.asarray(clock_integral("exponential", *np.broadcast_arrays(low, high, kappa)))


def _scaled_remainder(kappa: Numbers, u: Numbers) -> Numbers:
    """H at `u` of one sign, [kappas, us]; 1 in the limit u = 0."""
    # To a float, what kappa -> 0 tends to: R is finite there, and only its two parts are not.
    kappa = np.maximum(kappa, 1e-100)
    whole = np.sign(u) * _exponential(kappa, np.minimum(u, 0), np.maximum(u, 0))
    with np.errstate(divide="ignore", invalid="ignore"):  # at u = 0
        scale = (np.hypot(kappa, u) + kappa) / (2 * (np.expm1(u) - u))
        return np.where(u == 0, 1, (whole - np.arcsinh(u / kappa)) * scale)


def _tail(kappa: Numbers, u: Numbers) -> Numbers:
    """G at `u` <= -1, [kappas, us]."""
    return np.hypot(kappa, u) * np.exp(-u) * _exponential(kappa, u - 60, u)
