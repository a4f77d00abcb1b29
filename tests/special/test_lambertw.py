"""Lambert W against mpmath: next to the branch point, at both ends of the floats, and its derivatives."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.special import lambertw, lambertw_exp

NEAREST = -0.36787944117144233  # the float64 nearest to -1/e, which lies just outside the domain


def reference(x, branch):
    return float(mp.lambertw(mp.mpf(float(x)), branch).real)


def arguments(branch, dtype):
    rng = np.random.default_rng(0)
    smallest = -300 if dtype == np.float64 else -36
    near_branch_point = -np.exp(-1.0) + 10.0 ** rng.uniform(-15.5 if dtype == np.float64 else -6.5, -0.7, 300)
    small = -(10.0 ** rng.uniform(smallest, -0.6, 200))
    large = 10.0 ** rng.uniform(smallest, -smallest, 300) if branch == 0 else []
    return np.concatenate([near_branch_point, small, large, [0.0] if branch == 0 else []]).astype(dtype)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("branch", [0, -1])
def test_float64(branch):
    x = arguments(branch, np.float64)
    x = x[(x >= np.nextafter(NEAREST, 0)) & ((x < 0) | (branch == 0))]
    with mp.workdps(40):
        expected = np.array([reference(v, branch) for v in x])
    np.testing.assert_allclose(lambertw(x, branch), expected, rtol=2e-15, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("branch", [0, -1])
def test_float32(branch):
    x = arguments(branch, np.float32)
    x = x[(x > np.float32(NEAREST)) & ((x < 0) | (branch == 0))]
    expected = np.array([reference(v, branch) for v in x])
    np.testing.assert_allclose(lambertw(x, branch), expected, rtol=2e-6, atol=0)


def test_the_float_nearest_to_the_branch_point_is_the_branch_point():
    assert float(lambertw(NEAREST)) == -1.0
    assert float(lambertw(NEAREST, -1)) == -1.0


@pytest.mark.usefixtures("x64")
def test_of_an_exponential_without_overflow():
    rng = np.random.default_rng(1)
    y = np.concatenate([rng.uniform(-700, 700, 300), 10.0 ** rng.uniform(0, 300, 200), [0.0]])
    w = np.asarray(lambertw_exp(y))
    with mp.workdps(40):
        for one, value in zip(y, w, strict=True):
            # One Newton step of w + log w = y in 40 digits from the value tells its relative error.
            v = mp.mpf(float(value))
            step = (mp.mpf(float(one)) - v - mp.log(v)) / (1 + v)
            assert abs(step) < 1e-15


@pytest.mark.slow
def test_of_an_exponential_in_float32_up_to_the_largest_float():
    y = jnp.array([-80.0, 0.0, 1e10, 1e20, 1e38], jnp.float32)
    w = np.asarray(lambertw_exp(y), np.float64)
    assert np.isfinite(w).all()
    np.testing.assert_allclose(w[1:], [0.5671432904097838, 1e10, 1e20, 1e38], rtol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("function", "x"), [(lambertw, 0.7), (lambertw, -0.2), (lambertw, -0.3), (lambertw_exp, 3.0)])
def test_derivatives_match_differences(function, x):
    h = 1e-6
    difference = (float(function(x + h)) - float(function(x - h))) / (2 * h)
    assert float(jax.grad(function)(x)) == pytest.approx(difference, rel=1e-8)
    assert float(jax.jit(jax.vmap(jax.grad(function)))(jnp.array([x]))[0]) == pytest.approx(difference, rel=1e-8)


@pytest.mark.parametrize("bad", [-0.4, -1.0, float("nan"), float("inf")])
def test_outside_the_domain_is_an_error(bad):
    with pytest.raises(ValueError, match=str(bad) if bad == bad and abs(bad) < 9 else "not finite"):
        lambertw(bad)


def test_other_branches_are_an_error():
    with pytest.raises(ValueError, match="branch must be 0 or -1"):
        lambertw(1.0, 2)
    with pytest.raises(ValueError, match="x < 0"):
        lambertw(0.5, -1)


def test_outside_the_domain_inside_jit_is_an_error_too():
    with pytest.raises(Exception, match="needs x >= -1/e"):
        jax.jit(lambertw)(-2.0).block_until_ready()
