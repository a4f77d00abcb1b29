"""Ei against mpmath, across its regions and next to its zero."""

import jax
import mpmath as mp
import numpy as np
import pytest

from gradstarve.special import expi, expi_scaled


def arguments(top):
    rng = np.random.default_rng(0)
    near_zero_of_ei = 0.37250741078136663 + 10.0 ** rng.uniform(-15, -1, 50) * rng.choice([-1, 1], 50)
    return np.concatenate(
        [10.0 ** rng.uniform(-10, top, 300), -(10.0 ** rng.uniform(-10, top, 300)), near_zero_of_ei, [1.0, -1.0, 40.0]]
    )


@pytest.mark.usefixtures("x64")
def test_float64():
    x = arguments(2.8)
    with mp.workdps(40):
        plain = np.array([float(mp.ei(mp.mpf(float(v)))) for v in x])
        scaled = np.array([float(mp.ei(mp.mpf(float(v))) * mp.exp(-mp.mpf(float(v)))) for v in x])
    # Below -700 the plain value is a denormal, of which XLA keeps nothing.
    np.testing.assert_allclose(expi(x), plain, rtol=1e-13, atol=1e-307)
    np.testing.assert_allclose(expi_scaled(x), scaled, rtol=1e-13, atol=0)


def test_float32():
    x = arguments(1.9).astype(np.float32)
    plain = np.array([float(mp.ei(mp.mpf(float(v)))) for v in x])
    np.testing.assert_allclose(np.asarray(expi(x), np.float64), plain, rtol=1e-5, atol=1e-37)


@pytest.mark.usefixtures("x64")
def test_the_scaled_form_never_overflows():
    x = 10.0 ** np.linspace(3, 300, 30)
    np.testing.assert_allclose(expi_scaled(x) * x, 1 + 1 / x, rtol=1e-5)
    np.testing.assert_allclose(expi_scaled(-x) * -x, 1 - 1 / x, rtol=1e-5)
    assert np.isinf(expi(1e4))
    assert float(expi(-1e4)) == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("x", [-30.0, -0.5, 0.3, 2.0, 60.0])
def test_derivatives_match_differences(x):
    for function in (expi, expi_scaled):
        h = 1e-5 * abs(x)
        difference = (float(function(x + h)) - float(function(x - h))) / (2 * h)
        assert float(jax.grad(function)(x)) == pytest.approx(difference, rel=1e-7)
