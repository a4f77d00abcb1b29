"""The clock integral against mpmath, its inverse against itself, and the errors of bad arguments."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.special import _clock_table as clock_table
from gradstarve.special import clock_integral, clock_state, clock_time

RESIDUALS = {
    "cross-entropy": lambda u: 1 / (1 + mp.exp(u)),
    "exponential": lambda u: mp.exp(-u),
    "squared": lambda u: 1 - u,
    "hinge": lambda u: mp.mpf(1),
}

PLAIN_RESIDUALS = {
    "cross-entropy": lambda u: 1 / (1 + np.exp(u)),
    "exponential": lambda u: np.exp(-u),
    "squared": lambda u: 1 - u,
    "hinge": np.ones_like,
}


def integral(kind, u0, u, kappa):
    """(3.5) in v by adaptive quadrature, cut where the integrand changes scale."""
    u0, u, kappa = (mp.mpf(float(v)) for v in (u0, u, kappa))
    cuts = [c for c in (-30, -3, -1, -kappa, 0, kappa, 0.1, 1, 3, 10, u - 30, u - 5, u - 1) if u0 < c < u]
    points = sorted({u0, *map(mp.mpf, cuts), u})
    return mp.quad(lambda v: 1 / (RESIDUALS[kind](v) * mp.sqrt(kappa**2 + v**2)), points)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", RESIDUALS)
@pytest.mark.parametrize(
    ("u0", "u", "kappa"),
    [
        (0.1, 0.9, 0.0),
        (1e-3, 0.5, 1e-6),
        (-0.5, 0.7, 0.3),
        (-5.0, 0.99, 2.0),
        (-40.0, 0.5, 1e3),
        (0.2, 0.21, 50.0),
        (-0.9, -0.1, 0.0),
    ],
)
def test_the_integral_is_that_of_3_5(kind, u0, u, kappa):
    expected = float(integral(kind, u0, u, kappa))
    assert float(clock_integral(kind, u0, u, kappa)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["cross-entropy", "exponential"])
@pytest.mark.parametrize("u", [1.5, 4.0, 9.0, 20.0, 60.0, 400.0])
@pytest.mark.parametrize("kappa", [0.0, 0.4, 1.1, 300.0])
def test_large_logits(kind, u, kappa):
    expected = float(integral(kind, 0.5, u, kappa))
    assert float(clock_integral(kind, 0.5, u, kappa)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", RESIDUALS)
def test_the_inverse_undoes_it_at_sizes_that_cross_the_compilers_blocks(kind):
    rng = np.random.default_rng(0)
    for size in (1, 2**15 + 3):
        rise = 10.0 ** rng.uniform(-300, 0, size)
        fall = np.where(rng.random(size) < 0.5, 10.0 ** rng.uniform(-300, 1, size), rise * 10.0 ** rng.uniform(-3, 3, size))
        time = 10.0 ** rng.uniform(-3, 2, size)
        angle, logit = map(np.asarray, clock_state(kind, rise, fall, time))
        back = np.asarray(clock_time(kind, rise, fall, angle))
        running = (logit < 1 - 1e-9) | (kind in ("cross-entropy", "exponential"))
        g = PLAIN_RESIDUALS[kind](logit[running])
        assert (np.abs(back - time)[running] * g <= 1e-12 * (1 + angle[running])).all()
        np.testing.assert_allclose(logit, rise * np.exp(angle) - fall * np.exp(-angle), rtol=1e-9, atol=1e-13)


def test_a_clock_without_rise_runs_for_ever_and_never_learns():
    angle, logit = clock_state("cross-entropy", 0.0, 0.5, 1e30)
    assert np.isfinite(angle)
    assert float(logit) == 0.0


def test_times_that_are_never_reached_are_infinite():
    assert np.isinf(clock_time("hinge", 0.5, 0.0, 5.0))
    assert np.isinf(clock_time("squared", 0.5, 0.0, 5.0))
    assert np.isinf(clock_time("cross-entropy", 0.5, 0.0, 9.0))


@pytest.mark.usefixtures("x64")
def test_squared_runs_backwards_above_its_target():
    angle, logit = clock_state("squared", 3.0, 0.5, 2.0)
    assert angle < 0
    assert 1 < logit < 2.5
    assert float(clock_time("squared", 3.0, 0.5, angle)) == pytest.approx(2.0, rel=1e-12)


def test_unknown_kinds_are_an_error():
    with pytest.raises(ValueError, match="'cross-entropy', 'hinge', 'exponential', 'squared'"):
        clock_time("logistic", 0.1, 0.0, 1.0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", RESIDUALS)
def test_the_derivative_of_the_logit_in_time_is_the_ode(kind):
    for rise, fall, time in [(0.1, 0.0, 1.0), (1e-5, 2e-3, 8.0), (400.0, 400.2, 0.01)]:
        angle, logit = clock_state(kind, rise, fall, time)
        speed = jax.grad(lambda t: clock_state(kind, rise, fall, t)[1])(time)  # noqa: B023
        steep = rise * jnp.exp(angle) + fall * jnp.exp(-angle)
        expected = float(RESIDUALS[kind](float(logit))) * float(steep) if kind != "hinge" or logit < 1 else 0.0
        assert float(speed) == pytest.approx(expected, rel=1e-10)


def test_the_nodes_of_a_stretch_are_those_of_lobatto():
    """Real numbers: the zeros of the derivative of P_6; the rule on [0, 1] is exact up to degree 11. Against mpmath."""
    inner, weights, middle, end = clock_table._lobatto(7)
    with mp.workdps(30):
        exact = [mp.findroot(lambda x: mp.diff(lambda y: mp.legendre(6, y), x), 2 * x - 1) for x in inner]
        np.testing.assert_allclose(inner, [float((x + 1) / 2) for x in exact], rtol=0, atol=2e-16)
    nodes = np.array([0, *inner, 0.5, *(1 - x for x in reversed(inner)), 1])
    shares = np.array([end, *weights, middle, *reversed(weights), end])
    for degree in range(12):
        np.testing.assert_allclose(shares @ nodes**degree, 1 / (degree + 1), rtol=2e-15)
