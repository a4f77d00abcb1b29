"""Training of linearised networks against SciPy's integrators and against the laws of `theory.ntk`."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import expit

from gradstarve.diagnosis._training import largest_eigenvalue, train_linearised
from gradstarve.ground import ConvergenceError
from gradstarve.theory import ntk


def random_kernel(rng, n, rank):
    rows = rng.normal(size=(n, rank)) * np.geomspace(10, 0.01, rank)
    return rows @ rows.T


@pytest.mark.parametrize("seed", range(12))
def test_every_remedy_against_an_implicit_integrator(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    kernel, start = random_kernel(rng, n, 64), rng.normal(size=n)
    how = {}
    if seed % 2:
        how = {"weights": rng.uniform(0.1, 4, n), "ridge": rng.exponential(), "penalty": 0.1 * rng.exponential()}
    weights, ridge, penalty = how.get("weights", 1.0), how.get("ridge", 0.0), how.get("penalty", 0.0)
    times = np.concatenate([[0.0], np.geomspace(1e-2, 1e4, 9) / np.linalg.norm(kernel, 2)])

    def field(_, a):
        m = start + kernel @ a
        return weights * (expit(-m) - penalty * m) - ridge * a

    exact = solve_ivp(field, (0, times[-1]), np.zeros(n), "LSODA", times, rtol=1e-11, atol=1e-13)
    found = train_linearised(kernel, start, times, **how)
    assert np.max(np.abs(found - (start + exact.y.T @ kernel)) / (1 + np.abs(found))) < 2e-4


def gap_to_theory(law, **how):
    rng = np.random.default_rng(5)
    kernel, start = random_kernel(rng, 20, 30), rng.normal(size=20)
    times = np.geomspace(1e-2, 1e4, 8) / np.linalg.norm(kernel, 2)
    return np.abs(train_linearised(kernel, start, times, **how) - np.asarray(law(kernel, times, start))).max()


@pytest.mark.slow
def test_plain_training_is_the_logistic_flow(x64):
    assert gap_to_theory(ntk.logistic_flow) < 1e-3


@pytest.mark.slow
def test_training_under_penalties_is_that_of_theory(x64):
    assert gap_to_theory(lambda k, t, m: ntk.spectral_decoupling_flow(k, 0.05, t, m), penalty=0.05) < 1e-3
    kernel = random_kernel(np.random.default_rng(6), 20, 30)
    last = train_linearised(kernel, np.zeros(20), np.array([40.0]), ridge=1.0)[0]
    np.testing.assert_allclose(last, np.asarray(ntk.ridge_optimum(kernel, 1.0).margins), atol=1e-4)


def test_tighter_tolerances_are_met():
    rng = np.random.default_rng(3)
    kernel, start = random_kernel(rng, 30, 40), rng.normal(size=30)
    times = np.array([1e3 / np.linalg.norm(kernel, 2)])
    best = train_linearised(kernel, start, times, rtol=1e-10)
    gaps = [np.abs(train_linearised(kernel, start, times, rtol=rtol) - best).max() for rtol in (1e-4, 1e-6, 1e-8)]
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5


def test_nothing_moves_where_no_weight_does():
    assert np.array_equal(train_linearised(np.zeros((3, 3)), np.arange(3.0), np.array([0.0, 5.0])), [np.arange(3.0)] * 2)


def test_the_largest_eigenvalue_is_bounded_from_above():
    for n in (3, 100):
        kernel = random_kernel(np.random.default_rng(n), n, 50)
        exact = np.linalg.eigvalsh(kernel)[-1]
        assert exact * (1 - 1e-12) <= largest_eigenvalue(kernel) <= 1.06 * exact


class Counted(np.ndarray):
    """A matrix that counts its products."""

    def __new__(cls, matrix):
        """The matrix, with a count of 0."""
        counted = matrix.view(cls)
        counted.products = 0
        return counted

    def __matmul__(self, other):
        self.products += 1
        return np.asarray(self) @ other


def test_too_few_steps_are_said():
    with pytest.raises(ConvergenceError, match=r"stopped at time .* after 3 steps"):
        train_linearised(np.eye(2), np.zeros(2), np.array([1e6]), max_steps=3)


def test_times_that_no_steps_reach_are_refused_before_the_first():
    counted = Counted(np.eye(300))
    with pytest.raises(ConvergenceError, match=r"does not get to time 1e\+21: 20000 steps end at .*; ask for earlier times"):
        train_linearised(counted, np.zeros(300), np.array([1.0, 1e21]))
    assert counted.products <= 20  # those of the largest eigenvalue
