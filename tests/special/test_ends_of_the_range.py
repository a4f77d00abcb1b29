"""Special functions from the smallest normal number to the largest, in both precisions, against mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from gradstarve import special, theory

DTYPES = [np.float64, np.float32]


def grid(dtype, low=None, high=None, count=41):
    """A logarithmic grid of positive floats from `low` (the smallest normal number) to `high` (the largest)."""
    limits = np.finfo(dtype)
    ends = (float(limits.tiny) if low is None else low), (float(limits.max) if high is None else high)
    middle = np.exp(np.linspace(np.log(ends[0]), np.log(ends[1]), count)[1:-1])
    return np.array([ends[0], *middle, ends[1]], dtype)


def close(found, exact, dtype, ulps):
    exact = np.array([float(x) for x in exact])
    with np.errstate(over="ignore"):
        exact = np.where(np.abs(exact) > np.finfo(dtype).max, np.sign(exact) * np.inf, exact)
    found, tiny = np.asarray(found, np.float64), float(np.finfo(dtype).tiny)
    inside = np.isfinite(exact)
    assert (found[~inside] == exact[~inside]).all()
    off = np.abs(found[inside] - exact[inside]) / np.maximum(np.abs(exact[inside]), tiny)
    assert off.max() <= ulps * float(np.finfo(dtype).eps), (off.max(), np.argmax(off))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_lambert_w_over_all_floats(dtype):
    with mpmath.workdps(40):
        x = grid(dtype)
        close(special.lambertw(x), map(mpmath.lambertw, map(mpmath.mpf, map(float, x))), dtype, 8)
        x = -grid(dtype, high=0.3678)
        exact = [mpmath.lambertw(mpmath.mpf(float(v))).real for v in x]
        close(special.lambertw(x), exact, dtype, 8)
        exact = [mpmath.lambertw(mpmath.mpf(float(v)), -1).real for v in x]
        close(special.lambertw(x, -1), exact, dtype, 8)
        y = np.concatenate([-grid(dtype, high=float(-np.log(np.finfo(dtype).tiny)) - 1), grid(dtype)])
        with mpmath.workdps(60):
            exact = [mpmath.lambertw(mpmath.exp(float(v))) if v < 500 else _large(float(v)) for v in y]
        close(special.lambertw_exp(y), exact, dtype, 100)


def _large(y):
    """w + log w = y for large y, by Newton's iteration."""
    w = mpmath.mpf(y) - mpmath.log(y)
    for _ in range(50):
        w -= (w + mpmath.log(w) - y) / (1 + 1 / w)
    return w


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_exponential_integral_over_all_floats(dtype):
    last = float(np.log(np.finfo(dtype).max))
    with mpmath.workdps(40):
        x = np.concatenate([grid(dtype, high=last + 3), -grid(dtype, high=last - 12)])
        exact = [mpmath.ei(float(v)) for v in x]
        close(special.expi(x), exact, dtype, 300)
        slopes = jax.vmap(jax.grad(special.expi))(jnp.asarray(x))
        close(slopes, [mpmath.exp(float(v)) / float(v) for v in x], dtype, 400)
    assert np.isclose(float(jax.grad(special.expi)(710.0)), float(mpmath.exp(710) / 710), rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", DTYPES)
def test_small_starts_of_a_clock(dtype):
    """Balanced hinge clocks and those of cross-entropy from the smallest normal number on: log(1/rise), and Ei."""
    rise = grid(dtype, high=0.5, count=15)
    with mpmath.workdps(40):
        start = [mpmath.mpf(float(r)) for r in rise]
        close(special.clock_integral("hinge", rise, 1.0, 0.0), [-mpmath.log(r) for r in start], dtype, 16)
        exact = [-mpmath.log(r) + mpmath.ei(1) - mpmath.ei(r) for r in start]
        close(special.clock_integral("cross-entropy", rise, 1.0, 0.0), exact, dtype, 64)


@pytest.mark.parametrize("value", [np.float32(-1e-38), np.float32(1e-40)])
def test_subnormal_numbers_are_refused(value):
    calls = [lambda: special.lambertw(value), lambda: special.expi(value), lambda: special.expi_scaled(value)]
    calls += [lambda: special.lambertw(-abs(value), -1), lambda: special.clock_state("hinge", abs(value), 0.0, 1.0)]
    for call in calls:
        with pytest.raises(ValueError, match="subnormal"):
            call()


BAD = [
    (lambda: special.binomial_at_least(1.5, 3, 0.5), "1.5"),
    (lambda: special.clock_state("hinge", 0.1, 0.0, -1.0), "-1.0"),
    (lambda: special.clock_state("hinge", -0.1, 0.0, 1.0), "rise"),
    (lambda: special.clock_time("hinge", 0.1, -0.2, 1.0), "fall"),
    (lambda: special.clock_time("cross-entropy", 0.1, 0.0, -1.0), "angle"),
    (lambda: special.clock_integral("hinge", 0.1, 1.0, -0.5), "kappa"),
    (lambda: theory.dies_for_ever(0.5, 0.4, -0.5), "alpha"),
    (lambda: theory.dies_for_ever(-0.5, -0.4, -0.5), "beta"),
    (lambda: theory.dies_for_ever(-0.5, 0.4, 0.5), "cosine"),
    (lambda: theory.depth_mode(True, 1.0, [0.1, 0.1]), "frequency"),
    (lambda: theory.one_layer_time(0.5, 1.0, 0.0, "hinge", float("nan")), "NaN"),
]


@pytest.mark.parametrize(("call", "said"), BAD)
def test_bad_numbers_are_named(call, said):
    with pytest.raises(ValueError, match=said):
        call()
