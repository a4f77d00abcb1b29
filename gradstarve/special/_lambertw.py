"""The Lambert W function on the real line, and W(e^y) without overflow.

Region map of `lambertw(x)` (W e^W = x):

| region               | branch 0                                     | branch -1                                |
|----------------------|----------------------------------------------|------------------------------------------|
| -1/e <= x <= -0.2    | Newton on v = W + 1 in 1 - (1-v) e^v = 1 + e x, both sides by series where v is small  ||
| -0.2 < x < 0         | rational-log start, two fourth-order steps   | log-log start, three fourth-order steps  |
| x >= 0               | the same as the row above                    | not real                                 |

The middle of the table is where most codes lose digits: near the branch point 1 + e x is a small difference, so it is
formed as e (x + 1/e) with 1/e carried in two words, and never from e x.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from gradstarve.ground import as_number, check_normal, is_concrete, real_arrays, shown

Real = Float[Array, "*shape"]

# 1/e = hi + lo to twice the precision of each dtype.
_INV_E_LO_64 = -1.2428753672788363e-17
_INV_E_64 = 0.36787944117144233
_SWITCH = -0.2


def lambertw(x, branch: int = 0) -> Float[Array, "..."]:
    """W_branch(x), the solution w of w e^w = x: branch 0 (w >= -1) for x >= -1/e, branch -1 (w <= -1) for -1/e <= x < 0.

    `x`: any shape, float32 or float64, result of the same shape and dtype; relative error a few ulp, also next to the branch
    point. Derivative e^-w / (1 + w), infinite at x = -1/e. `ValueError` outside the branch's domain (a runtime
    error inside jit), for NaN, infinite and subnormal x (inside jit subnormal numbers count as 0), and for branches other
    than 0 and -1.

    >>> round(float(lambertw(1.0)), 6)
    0.567143
    """
    number = as_number("branch", branch)
    if number not in (0, -1):
        raise ValueError(f"branch must be 0 or -1 (the real branches), got {shown(branch)}")
    branch = int(number)
    (x,) = real_arrays(x=x)
    check_normal("x", x)
    # The float nearest to -1/e lies a rounding error beyond the branch point, and counts as the branch point itself.
    outside = _above_branch_point(x) < -jnp.finfo(x.dtype).eps
    if branch == -1:
        outside = outside | (x >= 0)
    domain = "x >= -1/e" if branch == 0 else "-1/e <= x < 0"
    message = f"lambertw on branch {branch} needs {domain}"
    if is_concrete(x):
        if bool(outside.any()):
            raise ValueError(f"{message}, got x = {np.asarray(x)[np.asarray(outside)].flat[0]}")
    else:
        x = eqx.error_if(x, outside, message)
    # One compiled call; the loops would otherwise be dispatched operation by operation.
    return jax.jit(_w0 if branch == 0 else _wm1)(x)


def lambertw_exp(y) -> Float[Array, "..."]:
    """W_0(e^y) for any real y, the solution of w + log w = y; e^y itself is never formed where it could overflow.

    `y`: any shape, float32 or float64. Derivative w / (1 + w). Relative error a few ulp
    wherever the result is a normal number.

    >>> round(float(lambertw_exp(1.0)), 6)
    1.0
    """
    (y,) = real_arrays(y=y)
    return jax.jit(_w0_exp)(y)


def _above_branch_point(x: Real) -> Real:
    """1 + e x with full relative accuracy next to x = -1/e."""
    if x.dtype == jnp.float64:
        hi, lo = _INV_E_64, _INV_E_LO_64
    else:
        hi = float(np.float32(_INV_E_64))
        lo = _INV_E_64 - hi
    # x + hi is exact for x in [-2/e, -1/(2e)] (Sterbenz), which is where the cancellation is. Without the barrier XLA
    # would fold hi + lo into one float and lose the digits of lo.
    return np.e * (lax.optimization_barrier(x + jnp.asarray(hi, x.dtype)) + jnp.asarray(lo, x.dtype))


def _near_branch_point(x: Real, side: float) -> Real:
    """W = v - 1 from 1 - (1-v) e^v = 1 + e x =: delta; `side` +1 gives branch 0 (v > 0), -1 gives branch -1 (v < 0)."""
    delta = jnp.maximum(_above_branch_point(x), 0)
    root = side * jnp.sqrt(2 * delta)
    # Two terms of the inverse series: 7% off at worst in the region, so four Newton steps reach the last bit.
    v = root - root**2 / 3 + 11 / 72 * root**3

    def height(v):
        # sum_{n>=2} (n-1) v^n / n!, which equals 1 - (1-v) e^v without its cancellation for small v.
        total, term = jnp.zeros_like(v), v
        for n in range(2, 20):
            term = term * v / n
            total = total + (n - 1) * term
        return jnp.where(jnp.abs(v) < 0.7, total, 1 - (1 - v) * jnp.exp(v))

    for _ in range(5):
        slope = v * jnp.exp(v)
        v = v - jnp.where(slope == 0, 0, (height(v) - delta) / jnp.where(slope == 0, 1, slope))
    return v - 1


def _polish(w: Real, z: Real) -> Real:
    """One fourth-order step (Fritsch, Shafer and Crowley 1973) given z = log(x/w) - w."""
    # The q / 2 and z of that paper, both divided by 1 + w: q itself is of order w^2 and would overflow, as 2 w may.
    q = 1 + w + 2 * z / 3
    z = z / (1 + w)
    return w * (1 + z * ((q - z / 2) / (q - z)))


@jax.custom_jvp
def _w0(x: Real) -> Real:
    near = x <= _SWITCH
    safe = jnp.where(near | (x == 0), 1, x)
    logx = jnp.log1p(safe)
    w = logx * (1 - jnp.log1p(logx) / (2 + logx))
    for _ in range(2):
        w = _polish(w, jnp.log(safe / w) - w)
    w = jnp.where(x == 0, x, w)
    return jnp.where(near, _near_branch_point(jnp.where(near, x, _SWITCH), 1.0), w)


@jax.custom_jvp
def _wm1(x: Real) -> Real:
    near = x <= _SWITCH
    safe = jnp.where(near | (x >= 0), -0.1, x)
    l1 = jnp.log(-safe)
    l2 = jnp.log(-l1)
    w = l1 - l2 + l2 / l1 + l2 * (l2 - 2) / (2 * l1**2)
    for _ in range(3):
        # Two logarithms instead of the logarithm of the quotient, which is subnormal for the smallest x.
        w = _polish(w, l1 - jnp.log(-w) - w)
    return jnp.where(near, _near_branch_point(jnp.where(near, x, _SWITCH), -1.0), w)


@jax.custom_jvp
def _w0_exp(y: Real) -> Real:
    # Below 0 the exponential is accurate to an ulp, while y - log w would lose log|y| digits.
    low = _w0(jnp.exp(jnp.minimum(y, 0)))
    high_y = jnp.maximum(y, 0)
    soft = high_y + jnp.log1p(jnp.exp(-high_y))
    w = soft * (1 - jnp.log1p(soft) / (2 + soft))
    for _ in range(2):
        w = _polish(w, (high_y - w) - jnp.log(w))
    return jnp.where(y < 0, low, w)


@_w0.defjvp
def _w0_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    w = _w0(x)
    return w, jnp.exp(-w) / (1 + w) * dx


@_wm1.defjvp
def _wm1_jvp(primals, tangents):
    (x,), (dx,) = primals, tangents
    w = _wm1(x)
    # e^-w = w / x, which does not overflow where w is large and negative.
    return w, w / (x * (1 + w)) * dx


@_w0_exp.defjvp
def _w0_exp_jvp(primals, tangents):
    (y,), (dy,) = primals, tangents
    w = _w0_exp(y)
    return w, w / (1 + w) * dy
