"""Losses made of another one in the clock of a mode and in networks: (18.1)-(18.3) by mpmath, closed forms and NumPy."""

import mpmath as mp
import numpy as np
import pytest
from numpy_descent import descent

import gradstarve as gs
from gradstarve import FlippedLabels, Focal, MarginShift, Temperature

pytestmark = pytest.mark.usefixtures("x64")


def sigmoid(m):
    return 1 / (1 + mp.exp(-m))


def focal(m, gamma=2):
    right = sigmoid(m)
    return (1 - right) ** gamma * ((1 - right) - gamma * right * mp.log(right))


LOSSES = {
    "flipped": (lambda: FlippedLabels("cross-entropy", 0.1), lambda m: sigmoid(-m) - mp.mpf(1) / 10),
    "focal": (lambda: Focal(2.0), focal),
    "shift": (lambda: MarginShift("cross-entropy", 1.5), lambda m: sigmoid(1.5 - m)),
    "temperature": (lambda: Temperature("cross-entropy", 2.0), lambda m: sigmoid(-m / 2) / 2),
}
A, Z = np.array([0.1, 0.5]), np.array([0.1, 0.2])


def start(frequency=0.7, scale=1.0):
    return gs.Mode(frequency, 1.1, A * scale, Z * scale)


def clock_time(residual, goal):
    """(3.5) by mpmath, in the angle."""
    rise, fall = (mp.mpf(1.1) * mp.mpf(((A + sign * Z) ** 2).sum()) / 4 for sign in (1, -1))
    kappa, u0 = 2 * mp.sqrt(rise * fall), rise - fall
    low, high = (mp.asinh(mp.mpf(u) / kappa) for u in (u0, goal))
    cuts = [low + (high - low) * k / 30 for k in range(31)]
    return mp.quad(lambda x: 1 / residual(kappa * mp.sinh(x)), cuts) / (2 * mp.mpf(0.7) * mp.mpf(1.1))


@pytest.mark.slow
@pytest.mark.parametrize("kind", LOSSES)
def test_the_clock_is_the_integral_over_the_residual(kind):
    make, residual = LOSSES[kind]
    solution = gs.solve_mode(start(), make())
    goals = np.array([0.3, 1.0, 2.0])
    with mp.workdps(25):
        wanted = [float(clock_time(residual, goal)) for goal in goals]
    np.testing.assert_allclose(solution.time_to_logit(goals), wanted, rtol=1e-10)
    np.testing.assert_allclose(solution.logit(np.array(wanted)), goals, rtol=1e-10)


def test_flipped_labels_make_the_plateau_longer():
    """18.1: 1/(1 - 2 e) times as long, log(1/u0)/(p r) for cross-entropy, where the start is small."""
    small = gs.Mode(0.5, 1.0, a=[1e-8], z=[1e-8])
    times = [gs.solve_mode(small, FlippedLabels("cross-entropy", share)).time_to_logit(1e-4) for share in (0.0, 0.2)]
    np.testing.assert_allclose(times[1] / times[0], 1 / (1 - 2 * 0.2), rtol=1e-4)
    np.testing.assert_allclose(times[0], np.log(1e-4 / 1e-16) / 0.5, rtol=1e-4)


@pytest.mark.slow
def test_flipped_hinge_is_a_slower_hinge_that_rests_at_one():
    """18.2."""
    share = 0.15
    own = gs.solve_mode(start(), FlippedLabels("hinge", share))
    named = gs.solve_mode(start(0.7 * (1 - 2 * share)), "hinge")
    times = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 100.0])
    np.testing.assert_allclose(own.logit(times), named.logit(times), rtol=1e-12)
    assert float(own.logit(100.0)) == 1


@pytest.mark.slow
def test_a_temperature_is_another_scale_of_logit_and_time():
    heat = 2.0
    own = gs.solve_mode(start(), Temperature("cross-entropy", heat))
    named = gs.solve_mode(start(scale=np.sqrt(1 / heat)), "cross-entropy")
    times = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 100.0])
    np.testing.assert_allclose(own.logit(times), heat * named.logit(times / heat), rtol=1e-10)


BY_HAND = {
    "flipped": lambda m: 1 / (1 + np.exp(m)) - 0.1,
    "focal": lambda m: (1 + np.exp(m)) ** -2.0 * (1 / (1 + np.exp(m)) + 2 * np.log1p(np.exp(-m)) / (1 + np.exp(-m))),
    "shift": lambda m: 1 / (1 + np.exp(m - 1.5)),
    "temperature": lambda m: 0.5 / (1 + np.exp(m / 2)),
}


@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
@pytest.mark.parametrize("kind", LOSSES)
def test_the_law_of_descent_is_an_equality_and_training_follows_it(kind, geometry):
    data = getattr(gs.datasets, geometry)(frequencies=(0.7, 0.3))
    w = np.array([[0.4, -0.1], [-0.3, 0.2], [0.2, -0.3], [-0.5, 0.1]])
    network = gs.TwoLayerReLU(w=w, z=np.array([0.2, -0.4, -0.5, 0.1]))
    loss, dynamics = LOSSES[kind][0](), gs.GradientDescent(0.2)
    wanted = descent(BY_HAND[kind], network, data, 0.2, 60)
    np.testing.assert_allclose(gs.solve(data, network, loss, dynamics).margins(60), wanted, rtol=1e-10)
    np.testing.assert_allclose(gs.simulate(data, network, loss, dynamics, steps=60).margins(60), wanted, rtol=1e-10)
