"""A stretch of the hyperbolic clock: the place at either end, and the time of the angle between them.

On it integral (c + e^u) ds is c s and Gauss-Lobatto quadrature of e^u in the angle s, or in |u| <= 1 with kappa <= 1, where
a stretch may be hundreds of s long, the power series

    integral e^u ds = alpha s + S beta(u),   from n J_n = u^(n-1) S - (n-1) kappa^2 J_(n-2),   J_n = integral u^n ds.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float
from scipy.special import roots_jacobi

Real = Float[Array, "..."]
TERMS = 20  # 1/20! < 1e-18


def _lobatto(count: int):
    """Gauss-Lobatto on [0, 1]: the nodes below the middle without 0, their weights, that of the middle, that of an end."""
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    inner = roots_jacobi(count - 2, 1, 1)[0][: count // 2 - 1]  # the zeros of its derivative
    weight = 1 / (count * (count - 1))
    # As Python's numbers, which leave the precision to the arrays.
    return ((inner + 1) / 2).tolist(), (weight / legendre(inner) ** 2).tolist(), float(weight / legendre(0.0) ** 2), weight


_INNER, _INNER_WEIGHTS, _MIDDLE_WEIGHT, _END_WEIGHT = _lobatto(7)


def series_matrix() -> np.ndarray:
    """Row m: the coefficients of kappa^(2 m) in (alpha, beta_0, beta_1, ...). The weights 1/n! of the J_n, passed down."""
    weight = np.zeros((TERMS, TERMS // 2 + 1))
    weight[:, 0] = [1 / math.factorial(n) for n in range(TERMS)]
    for n in range(TERMS - 1, 1, -1):
        weight[n - 2, 1:] -= weight[n, :-1] * (n - 1) / n
    return np.concatenate([weight[:1], weight[1:] / np.arange(1, TERMS)[:, None]]).T


class Place(NamedTuple):
    """A place on a clock: its logit u = up - down and S = up + down, each without cancellation."""

    up: Real
    down: Real
    u: Real
    steep: Real


def place(up: Real, down: Real) -> Place:
    """The place with these two halves of its logit."""
    return Place(up, down, up - down, up + down)


def knot(half: Real, u: Real) -> Place:
    """The place at the logit u of a knot; none is near 0, so that S may be taken as it stands."""
    larger = (jnp.abs(u) + jnp.sqrt(4 * half * half + u * u)) / 2
    smaller = half * (half / larger)
    up, down = jnp.where(u > 0, larger, smaller), jnp.where(u > 0, smaller, larger)
    return Place(up, down, u, larger + smaller)


def ends_of(low: Place, high: Place) -> tuple[Real, Real]:
    """Two numbers whose ratio is e^(angle between the places); high.u is not near 0."""
    rising = high.u > 0
    return jnp.where(rising, low.up, high.down), jnp.where(rising, high.up, low.down)


def horner(coefficients, x: Real) -> Real:
    """sum_n coefficients[n] x^n."""
    total = coefficients[-1]
    for one in coefficients[-2::-1]:
        total = total * x + one
    return total


def advance(low: Place, angle: Real) -> tuple[Place, Real, Real]:
    """The place `angle` further on, and e^(angle/2), e^(-angle/2). With rise = 0 the angle has no limit, and e^s must."""
    half = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5) / 2
    forth, back = jnp.exp(half), jnp.exp(-half)
    return place(low.up * forth * forth, low.down * back * back), forth, back


def spent(constant: float, series: Real, middle, low: Place, angle: Real, speed: Real) -> tuple[Real, Place]:
    """`speed` times the time of an `angle` > 0 from the place `low`, within one slot, and the place it leads to.

    By the series where `middle`. Multiplied term by term, for the time itself may overflow.
    """
    high, forth, back = advance(low, angle)
    total = _END_WEIGHT * (jnp.exp(low.u) + jnp.exp(high.u)) + _MIDDLE_WEIGHT * jnp.exp(low.up * forth - low.down * back)
    bounded = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5)
    # The nodes come in pairs x, 1 - x, and so do their exponentials.
    for node, weight in zip(_INNER, _INNER_WEIGHTS, strict=True):
        forth, back = jnp.exp(node * bounded), jnp.exp(-node * bounded)
        lower = jnp.exp(low.up * forth - low.down * back)
        upper = jnp.exp(high.up * back - high.down * forth)
        total = total + weight * (lower + upper)
    powers = high.steep * horner(series[1:], high.u) - low.steep * horner(series[1:], low.u)
    slope = jnp.where(middle, series[0], total) + constant
    return slope * speed * angle + jnp.where(middle, powers * speed, 0), high


def product(matrix: np.ndarray, values: Real) -> Real:
    """`matrix` times `values` over the first axis of it."""
    return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, 1, precision=lax.Precision.HIGHEST)
