"""The binomial distribution with full relative accuracy, far into its tails and for millions of trials.

With lgamma the logarithm of C(n, k) is a small difference of numbers of size n log n, and a million trials cost seven
digits. Here everything large is cancelled by hand (Loader's saddle-point form): for 0 < k < n and q = 1 - p

    log P(k) = log(n / (2 pi k (n - k))) / 2 + delta(n) - delta(k) - delta(n - k) - D(k, n p) - D(n - k, n q)

with delta(n) = log n! - Stirling's formula, and the deviance D(x, mu) = x log(x/mu) - x + mu >= 0.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, is_concrete, shown, together

Real = Float[Array, "*shape"]

_HALF_LOG_2PI = math.log(2 * math.pi) / 2
# delta(0), ..., delta(15); from 16 on its asymptotic series has all digits.
_SMALL = np.array([0.0, *(math.lgamma(n + 1) - (n + 0.5) * math.log(n) + n - _HALF_LOG_2PI for n in range(1, 16))])
_SERIES = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)


def binomial_log_pmf(successes, trials, probability) -> Float[Array, "..."]:
    """log P(k successes in n trials), each with `probability` p in (0, 1]; -inf where k is not an integer in 0..n.

    Arguments broadcast; `trials` n are integers >= 0. Relative error of P itself below 1e-11 in float64 for n up to 1e6
    wherever P > 1e-300; in float32 below 5e-4 for n up to 1e4 wherever P > 1e-30. Differentiable in p. `ValueError` for
    p outside (0, 1] and n that are not integers >= 0.

    >>> round(float(jnp.exp(binomial_log_pmf(2, 4, 0.5))), 6)
    0.375
    """
    return jax.jit(_log_pmf)(*_check(successes, trials, probability))


def binomial_at_least(successes, trials, probability) -> Float[Array, "..."]:
    """P(at least k successes in n trials), each with `probability` p in (0, 1]: the regularised beta I_p(k, n - k + 1).

    Arguments broadcast; `successes` k and `trials` n are integers >= 0. Relative error as for `binomial_log_pmf`, also
    where the probability is tiny. Differentiable in p. `ValueError` for p outside (0, 1], n not an integer >= 0 and k not an
    integer; traced values are not checked.

    >>> round(float(binomial_at_least(2, 4, 0.5)), 6)
    0.6875
    """
    k, n, p = _check(successes, trials, probability)
    if is_concrete(k) and not bool((k == jnp.rint(k)).all()):
        raise ValueError(f"successes must be integers, got {successes!r}")
    return jax.jit(_at_least)(k, n, p)


def _check(successes, trials, probability):
    k, n, p = together(successes=successes, trials=trials, probability=probability)
    check_normal("successes", k)
    check_normal("trials", n)
    if is_concrete(p) and not bool(((p > 0) & (p <= 1)).all()):
        raise ValueError(f"probability must be in (0, 1], got {shown(probability)}")
    if is_concrete(n) and not bool(((n >= 0) & (n == jnp.rint(n))).all()):
        raise ValueError(f"trials must be integers >= 0, got {shown(trials)}")
    if is_concrete(n) and bool((n > 2.0**53).any()):
        raise ValueError(f"trials must be at most 2^53, beyond which floats are not all integers, got {shown(trials)}")
    return jnp.broadcast_arrays(k, n, p)


@jax.custom_jvp
def _log_pmf(k: Real, n: Real, p: Real) -> Real:
    inside = (k > 0) & (k < n) & (k == jnp.rint(k))
    many, some = jnp.where(inside, n, 2), jnp.where(inside, k, 1)
    rest = many - some
    value = jnp.log(many / some / rest) / 2 - _HALF_LOG_2PI + _delta(many) - _delta(some) - _delta(rest)
    value = value - _deviance(some, many * p) - _deviance(rest, many * (1 - p))
    # With no trials, k = 0 has probability 1, but 0 log 0 is NaN.
    none = jnp.where(n > 0, n * jnp.log1p(-p), 0)
    ends = jnp.where(k == 0, none, jnp.where(k == n, n * jnp.log(p), -jnp.inf))
    return jnp.where(inside, value, ends)


@_log_pmf.defjvp
def _log_pmf_jvp(primals, tangents):
    (k, n, p), (_, _, dp) = primals, tangents
    value = _log_pmf(k, n, p)
    certain = p == 1
    slope = jnp.where(certain, k, (k - n * p) / (p * jnp.where(certain, 1, 1 - p)))
    return value, jnp.where(jnp.isfinite(value), slope, 0) * dp


@jax.custom_jvp
def _pmf(k: Real, n: Real, p: Real) -> Real:
    """exp(`binomial_log_pmf`) without its checks, on arrays of one shape; differentiable in p also at p = 1."""
    return jnp.exp(_log_pmf(k, n, p))


@_pmf.defjvp
def _pmf_jvp(primals, tangents):
    (k, n, p), (_, _, dp) = primals, tangents
    value = _pmf(k, n, p)
    certain = p == 1
    # The derivative n (P(k - 1 of n - 1) - P(k of n - 1)), which is also right where P(k of n) = 0 at p = 1.
    fewer = jnp.maximum(n - 1, 0)
    at_one = n * (_pmf(k - 1, fewer, p) - _pmf(k, fewer, p))
    slope = value * (k - n * p) / (p * jnp.where(certain, 1, 1 - p))
    return value, jnp.where(certain, at_one, slope) * dp


pmf = jax.jit(_pmf)


def _delta(n: Real) -> Real:
    """log n! - ((n + 1/2) log n - n + log(2 pi)/2) for integers n >= 1."""
    small = jnp.asarray(_SMALL, n.dtype)[jnp.clip(n, 0, 15).astype(int)]
    large = jnp.maximum(n, 16)
    return jnp.where(n < 16, small, jnp.polyval(jnp.asarray(_SERIES[::-1], n.dtype), 1 / large**2) / large)


def _deviance(x: Real, mean: Real) -> Real:
    """x log(x/mu) - x + mu for x > 0, mu >= 0."""
    v = (x - mean) / (x + mean)
    near = jnp.abs(v) < 0.1
    # log(x/mu) = 2 artanh v by its series, whose first term is combined with mu - x to avoid cancellation.
    small = jnp.where(near, v, 0)
    powers = jnp.asarray([1 / (2 * j + 1) for j in range(9, 0, -1)], x.dtype)
    series = small * (x - mean) + 2 * x * small**3 * jnp.polyval(powers, small**2)
    return jnp.where(near, series, x * (jnp.log(x) - jnp.log(mean)) - x + mean)


@jax.custom_jvp
def _at_least(k: Real, n: Real, p: Real) -> Real:
    # The smaller one of the two tails: from k up, or from k - 1 down with p and q exchanged.
    inside = (k > 0) & (k <= n) & (p < 1)
    many, some, x = jnp.where(inside, n, 1), jnp.where(inside, k, 1), jnp.where(inside, p, 0.5)
    upper = x < (some + 1) / (many + 3)
    a, b = jnp.where(upper, some, many - some + 1), jnp.where(upper, many - some + 1, some)
    first = jnp.exp(_log_pmf(jnp.where(upper, some, some - 1), many, x))
    tail = first * jnp.where(upper, 1 - x, x) * _fraction(a, b, jnp.where(upper, x, 1 - x))
    return jnp.where(inside, jnp.where(upper, tail, 1 - tail), (k <= 0) | ((p == 1) & (k <= n)))


@_at_least.defjvp
def _at_least_jvp(primals, tangents):
    (k, n, p), (_, _, dp) = primals, tangents
    density = jnp.where(k > 0, k * _pmf(k, n, p) / p, 0)
    return _at_least(k, n, p), density * dp


def _fraction(a: Real, b: Real, x: Real) -> Real:
    """The continued fraction of the incomplete beta function for x <= (a+1)/(a+b+2), by Lentz's method: O(sqrt n) terms."""
    eps = jnp.finfo(x.dtype).eps

    def term(carry, factor):
        c, d, value = carry
        d = 1 / (1 + factor * d)
        c = 1 + factor / c
        return c, d, value * c * d

    def body(carry):
        m, *parts, done = carry
        before = parts[2]
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        c, d, value = term(term(parts, even), odd)
        # Converged elements stop: the terms that other elements still need would only add rounding.
        value = jnp.where(done, before, value)
        return m + 1, c, d, value, done | (jnp.abs(value - before) <= 2 * eps * jnp.abs(value))

    def cond(carry):
        return ~jnp.all(carry[-1]) & (carry[0] < 100_000)

    d = 1 / (1 - (a + b) * x / (a + 1))
    one = jnp.ones_like(x)
    return jax.lax.while_loop(cond, body, (jnp.ones((), x.dtype), one, d, d, jnp.zeros(x.shape, bool)))[3]
