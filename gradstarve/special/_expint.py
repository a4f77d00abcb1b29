"""The exponential integral Ei on the real line, plain and scaled by e^-x so that it never overflows.

Ei(x) = principal value of the integral of e^s / s over s from -infinity to x. Region map:

| region                | method                                                                         |
|-----------------------|--------------------------------------------------------------------------------|
| x < -1                | continued fraction of E1(-x), 120 levels from the bottom                       |
| -1 <= x <= 40         | gamma + log|x| + sum x^k / (k k!)                                              |
| 0.25 < x < 0.5        | integral of e^s / s from the zero of Ei at 0.3725, where the sum above cancels |
| x > 40                | e^x / x sum k! / x^k, whose smallest term is below e^-40                       |
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, real_arrays

Real = Float[Array, "*shape"]

# The zero of Ei in two words, so that x - zero is accurate however close x is to it.
_ZERO_HI_64, _ZERO_LO_64 = 0.3725074107813666, 1.3140183414386028e-17
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(12)


def expi(x) -> Float[Array, "..."]:
    """Ei(x) for real x, any shape, float32 or float64; -inf at 0, inf where the value exceeds the dtype.

    Relative error below 1e-13 (float64) and 1e-5 (float32), next to its zero at 0.3725 included. Derivative e^x / x.
    `ValueError` for NaN, infinite and subnormal x (inside jit subnormal numbers count as 0).

    >>> round(float(expi(1.0)), 5)
    1.89512
    """
    (x,) = real_arrays(x=x)
    check_normal("x", x)
    return jax.jit(_expi)(x)


def expi_scaled(x) -> Float[Array, "..."]:
    """e^-x Ei(x) for real x, any shape, float32 or float64: ~ 1/x for large |x|, no overflow; -inf at 0.

    Derivative 1/x - e^-x Ei(x).

    >>> round(float(expi_scaled(1000.0)) * 1000, 4)
    1.001
    """
    (x,) = real_arrays(x=x)
    check_normal("x", x)
    return jax.jit(_expi_scaled)(x)


@jax.custom_jvp
def _expi(x: Real) -> Real:
    # e^x is formed in two halves, because e^x overflows before Ei(x) ~ e^x / x does.
    half = jnp.exp(x / 2)
    return jnp.where(jnp.abs(x) < 40, _unscaled(x), (_expi_scaled(x) * half) * half)


@_expi.defjvp
def _expi_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    half = jnp.exp(x / 2)  # e^x may overflow where e^x / x does not
    return _expi(x), half / x * half * dx


@jax.custom_jvp
def _expi_scaled(x: Real) -> Real:
    large = jnp.where(x > 40, x, 40.0)

    def body(k, carry):
        total, term = carry
        term = term * k / large
        return total + term, term

    total, _ = jax.lax.fori_loop(1, 40, body, (jnp.ones_like(x), jnp.ones_like(x)))
    middle = jnp.clip(x, -1, 40)
    return jnp.where(
        x > 40, total / large, jnp.where(x < -1, -_fraction(x), _unscaled(middle) * jnp.exp(-middle))
    )


@_expi_scaled.defjvp
def _expi_scaled_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    value = _expi_scaled(x)
    return value, (1 / x - value) * dx


def _fraction(x: Real) -> Real:
    """e^-x E1(-x) for x < -1: the fraction 1/(y+1-1/(y+3-4/(y+5-...))) with y = -x."""
    y = jnp.maximum(-x, 1)

    def body(i, value):
        k = (120 - i).astype(y.dtype)
        return k * k / (y + 2 * k + 1 - value)

    return 1 / (y + 1 - jax.lax.fori_loop(0, 120, body, jnp.zeros_like(y)))


def _unscaled(x: Real) -> Real:
    """Ei(x) for |x| <= 40."""
    middle = jnp.clip(x, -1, 40)

    def body(k, carry):
        total, power = carry
        power = power * middle / k
        return total + power / k, power

    series, _ = jax.lax.fori_loop(1, 170, body, (jnp.zeros_like(x), jnp.ones_like(x)))
    value = np.euler_gamma + jnp.log(jnp.abs(middle)) + series
    if x.dtype == jnp.float64:
        hi, lo = _ZERO_HI_64, _ZERO_LO_64
    else:
        hi = float(np.float32(_ZERO_HI_64))
        lo = _ZERO_HI_64 - hi
    # The barrier keeps XLA from folding hi + lo into one float.
    offset = jax.lax.optimization_barrier(x - jnp.asarray(hi, x.dtype)) - jnp.asarray(lo, x.dtype)
    near = (x > 0.25) & (x < 0.5)
    offset = jnp.where(near, offset, 0)
    s = hi + offset[..., None] * jnp.asarray((1 + _NODES) / 2, x.dtype)
    from_zero = offset * jnp.sum(jnp.asarray(_WEIGHTS / 2, x.dtype) * jnp.exp(s) / s, axis=-1)
    value = jnp.where(near, from_zero, value)
    far = jnp.clip(x, -40, -1)
    return jnp.where(x < -1, -_fraction(far) * jnp.exp(far), value)
