"""The binomial distribution against mpmath, up to a million trials and far into its tails."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.special import binomial_at_least, binomial_log_pmf


def cases(dtype, count, most, seed=0):
    """(k, n, p): n log-uniform, p near 0, in the middle and near 1, k up to 25 standard deviations from the mean."""
    rng = np.random.default_rng(seed)
    n = np.floor(10 ** rng.uniform(0, most, count))
    small, close = 10 ** rng.uniform(-8, 0, count), 1 - 10 ** rng.uniform(-12 if dtype == np.float64 else -6, -0.01, count)
    p = np.where(rng.uniform(size=count) < 0.5, small, close).astype(dtype)
    spread = np.sqrt(n * p * (1 - p)) + 1
    k = np.clip(np.rint(n * p + spread * rng.normal(size=count) * rng.choice([1, 5, 15], count)), 0, n)
    k[:20], k[20:40] = 0, n[20:40]
    return k.astype(dtype), n.astype(dtype), p


def log_pmf(k, n, p):
    k, n, p = int(k), int(n), mp.mpf(float(p))
    ways = mp.loggamma(n + 1) - mp.loggamma(k + 1) - mp.loggamma(n - k + 1)
    return ways + (k * mp.log(p) if k else 0) + ((n - k) * mp.log(1 - p) if k < n else 0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dtype", "most", "floor", "tolerance"),
    [(np.float64, 6, -690, 1e-11), (np.float32, 4, -69, 5e-4)],
    ids=["float64", "float32"],
)
def test_pmf_against_mpmath(dtype, most, floor, tolerance):
    k, n, p = cases(dtype, 1000, most)
    found = np.asarray(binomial_log_pmf(k, n, p))
    assert found.dtype == dtype
    with mp.workdps(40):
        exact = [log_pmf(*case) for case in zip(k, n, p, strict=True)]
        errors = [float(mp.expm1(mp.mpf(float(f)) - e)) for f, e in zip(found, exact, strict=True) if e > floor]
    assert len(errors) > 850
    assert np.abs(errors).max() <= tolerance


def tail(k, n, p):
    """sum of the pmf from k up, in mpmath, by the ratio of neighbours from the likeliest of them outwards."""
    k, n, p = int(k), int(n), mp.mpf(float(p))
    top = max(k, min(int(n * p), n))
    first = mp.exp(log_pmf(top, n, p))
    total = first
    for stop, ratio in ((n, lambda j: (n - j) * p / ((j + 1) * (1 - p))), (k, lambda j: j * (1 - p) / ((n - j + 1) * p))):
        j, term = top, first
        while j != stop and term > total * mp.mpf(10) ** -20:
            term *= ratio(j)
            total += term
            j += 1 if stop == n else -1
    return total


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-11), (np.float32, 5e-4)], ids=["float64", "float32"])
def test_tail_against_mpmath(dtype, tolerance):
    k, n, p = cases(dtype, 200, 4, seed=1)
    found = np.asarray(binomial_at_least(k, n, p))
    with mp.workdps(30):
        exact = [tail(*case) for case in zip(k, n, p, strict=True)]
        floor = 1e-290 if dtype == np.float64 else 1e-28
        errors = [float(mp.mpf(float(f)) / e - 1) for f, e in zip(found, exact, strict=True) if e > floor]
    assert len(errors) > 180
    assert np.abs(errors).max() <= tolerance


@pytest.mark.usefixtures("x64")
def test_tail_of_a_million_trials():
    k = np.full(8, 500_000.0) + 1000 * np.arange(-4, 4)
    found = np.asarray(binomial_at_least(k, np.full(8, 1e6), np.full(8, 0.5)))
    with mp.workdps(30):
        for i in (0, 4, 7):
            assert float(mp.mpf(float(found[i])) / tail(k[i], 10**6, 0.5) - 1) == pytest.approx(0, abs=1e-11)


@pytest.mark.usefixtures("x64")
def test_certain_and_impossible():
    k, n, p = np.array([-1, 0, 1, 2, 3, 1.5, 0, 1]), np.array([2, 2, 2, 2, 2, 2, 0, 0]), np.array([1.0] * 6 + [0.3] * 2)
    assert np.exp(binomial_log_pmf(k, n, p)).tolist() == [0, 0, 0, 1, 0, 0, 1, 0]
    at_least = np.asarray(binomial_at_least(np.where(k == 1.5, 2, k), n, p))
    assert at_least.tolist() == [1, 1, 1, 1, 0, 1, 1, 0]


@pytest.mark.usefixtures("x64")
def test_derivatives_in_the_probability():
    k, n, p, step = jnp.arange(8.0), jnp.full(8, 7.0), jnp.full(8, 0.3), 1e-6
    for function in (lambda p: jnp.exp(binomial_log_pmf(k, n, p)), lambda p: binomial_at_least(k, n, p)):
        slope = jax.jvp(function, (p,), (jnp.ones(8),))[1]
        difference = (function(p + step) - function(p - step)) / (2 * step)
        np.testing.assert_allclose(slope, difference, atol=1e-9)


@pytest.mark.parametrize("p", [0.0, -0.1, 1.1])
def test_bad_probabilities(p):
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\]"):
        binomial_log_pmf(1, 2, p)


def test_bad_trials():
    with pytest.raises(ValueError, match="trials must be integers >= 0"):
        binomial_at_least(1, 2.5, 0.5)
