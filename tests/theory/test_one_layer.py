"""(3.9) against mpmath and against what SymPy derives."""

import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import one_layer_logit

RESIDUALS = {
    "cross-entropy": lambda u: 1 / (1 + mp.exp(u)),
    "hinge": lambda u: mp.mpf(u < 1),
    "exponential": lambda u: mp.exp(-u),
    "squared": lambda u: 1 - u,
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", RESIDUALS)
@pytest.mark.parametrize("start", [-20.0, -0.5, 0.0, 0.3])
def test_time_to_the_logit_is_the_integral_of_one_over_g(loss, start):
    p, r = 0.3, 1.7
    for t in (1e-6, 0.2, 1.0):
        u = float(one_layer_logit(p, r, start, loss, t))
        with mp.workdps(30):
            clock = mp.quad(lambda v: 1 / RESIDUALS[loss](v), mp.linspace(start, u, 8))
            # du = g(u) dT turns the error of the time into that of the logit.
            assert abs(clock - mp.mpf(p * r**2 * t)) * RESIDUALS[loss](mp.mpf(u)) <= 1e-12 * (1 + abs(u))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", RESIDUALS)
def test_from_zero_every_digit_is_kept(loss):
    first = one_layer_logit(0.5, 2.0, 0.0, loss, np.array([1e-300, 1e-12, 1e-5]))
    with mp.workdps(30):
        for t, u in zip((1e-300, 1e-12, 1e-5), first, strict=True):
            u = mp.mpf(float(u))
            back = u * mp.quad(lambda x, u=u: 1 / RESIDUALS[loss](u * x), [0, 1]) / 2  # p r^2 = 2
            assert abs(back / mp.mpf(t) - 1) < 1e-14


@pytest.mark.usefixtures("x64")
def test_far_in_time():
    logit = float(one_layer_logit(1.0, 1.0, 0.0, "cross-entropy", 1e300))
    assert logit == pytest.approx(300 * np.log(10), rel=1e-14)
    assert float(one_layer_logit(1.0, 1.0, 0.0, "exponential", 1e300)) == pytest.approx(300 * np.log(10), rel=1e-14)
    assert float(one_layer_logit(1.0, 1.0, 0.5, "hinge", 1e300)) == 1
    assert float(one_layer_logit(1.0, 1.0, 3.0, "squared", 1e300)) == 1


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", RESIDUALS)
def test_it_is_what_sympy_derives(loss):
    derived = gs.derive("one-layer", loss).to_jax("u(t)")
    for p, r, start, t in [(0.3, 1.7, -0.4, 0.5), (1.0, 0.5, 0.2, 9.0), (0.1, 3.0, -2.0, 0.0)]:
        ours = float(one_layer_logit(p, r, start, loss, t))
        assert float(derived(t=t, p=p, r=r, u0=start)) == pytest.approx(ours, rel=1e-12, abs=1e-13)


def test_bad_arguments():
    with pytest.raises(ValueError, match="norm must be > 0, got -1"):
        one_layer_logit(0.5, -1.0, 0.0, "hinge", 1.0)
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        one_layer_logit(0.5, 1.0, 0.0, "mse", 1.0)
    with pytest.raises(ValueError, match="times must be finite"):
        one_layer_logit(0.5, 1.0, 0.0, "hinge", -1.0)
