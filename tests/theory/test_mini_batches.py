"""Descent on B random points a step in distribution (17.5): NumPy over all sequences of draws, and training over seeds."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import binom

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")

A, Z = np.array([0.3, 0.2, 0.1]), np.array([0.1, -0.25, 0.3])
RESIDUALS = {"hinge": lambda u: float(u < 1), "cross-entropy": lambda u: 1 / (1 + np.exp(u))}


def outcomes(loss, p, r, eta, size, steps):
    """(probability, u) of every sequence of the numbers of own draws, by descent in NumPy."""
    for counts in itertools.product(range(size + 1), repeat=steps):
        a, z = A.copy(), Z.copy()
        for n in counts:
            on = a > 0
            pull = eta * r * RESIDUALS[loss](r * (a * z)[on].sum()) * n / size
            a, z = np.where(on, a + pull * z, a), np.where(on, z + pull * a, z)
        yield np.prod(binom.pmf(counts, size, p)), r * (a * z)[a > 0].sum()


@pytest.mark.parametrize("loss", RESIDUALS)
@pytest.mark.parametrize("size", [2, 3])
def test_every_sequence_of_draws(loss, size):
    p, r, eta, steps = 0.35, 1.4, 0.6, 5
    chances, values = np.array(list(outcomes(loss, p, r, eta, size, steps))).T
    solution = gs.solve_mode(gs.Mode(p, r, A, Z), loss, gs.StochasticGradientDescent(eta, batch_size=size))
    found = solution.distribution(steps)
    assert found.values.shape == (sum(size**m for m in range(steps + 1)),)
    assert float(found.probabilities.sum()) == pytest.approx(1, abs=1e-13)
    for level in np.quantile(values, [0.05, 0.4, 0.7, 0.99]) + 1e-9:
        assert float(found.cdf(level)) == pytest.approx(chances[values <= level].sum(), abs=1e-12)
    assert float(found.mean) == pytest.approx((chances * values).sum(), rel=1e-12)
    assert float(found.error) == pytest.approx((chances / (1 + np.exp(values))).sum(), rel=1e-12)


def test_the_mean_of_the_hinge_loss_is_two_powers():
    mode, eta = gs.Mode([0.2, 0.7], 1.3, [[0.01, 0.02], [0.01, 0.03]], [[0.02, -0.005], [0.01, 0.01]]), 0.4
    for size in (1 + 1, 4):
        solution = gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(eta, batch_size=size))
        for step in (0, 1, 4):
            law = solution.expected_logit(step)
            np.testing.assert_allclose(law, solution.distribution(step).mean, rtol=1e-12)
    # The noise is gone for large batches, and then it is the law of descent.
    whole = gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(eta, batch_size=10**9)).expected_logit(6)
    np.testing.assert_allclose(whole, gs.solve_mode(mode, "hinge", gs.GradientDescent(eta)).logit(6), rtol=1e-7)


@pytest.mark.slow
def test_training_over_a_million_seeds():
    """Two orthogonal classes, each with a neuron: the mean of the logits and their distribution within 4 standard errors."""
    seeds, steps, size = 1_000_000, 6, 3
    data = gs.Dataset([[1.0, 0.0], [0.0, 0.8]], [1, -1], [0.3, 0.7])
    one = gs.TwoLayerReLU([[0.2, -0.1], [-0.1, 0.3]], [0.15, -0.1])
    crowd = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (seeds, *leaf.shape)), one)
    dynamics = gs.StochasticGradientDescent(0.9, batch_size=size)
    run = gs.simulate(data, crowd, "cross-entropy", dynamics, steps, record_every=steps, key=5)
    for i, (p, r, a, z) in enumerate(((0.3, 1.0, 0.2, 0.15), (0.7, 0.8, 0.3, 0.1))):
        found = np.asarray(run.margins(steps))[:, i]
        law = gs.solve_mode(gs.Mode(p, r, [a], [z]), "cross-entropy", dynamics).distribution(steps)
        assert abs(found.mean() - float(law.mean)) < 4 * float(law.variance) ** 0.5 / seeds**0.5
        for level in np.quantile(found, [0.1, 0.5, 0.9]) + 1e-12:
            chance = float(law.cdf(level))
            assert abs((found <= level).mean() - chance) < 4 * (chance * (1 - chance) / seeds) ** 0.5 + 1e-9


def test_a_class_that_is_always_drawn_is_descent():
    mode = gs.Mode(1.0, 1.3, A, Z)
    found = gs.solve_mode(mode, "cross-entropy", gs.StochasticGradientDescent(0.5, batch_size=2)).distribution(5)
    certain = np.asarray(found.probabilities) > 1e-9
    law = gs.solve_mode(mode, "cross-entropy", gs.GradientDescent(0.5)).logit(5)
    np.testing.assert_allclose(np.asarray(found.values)[certain], float(law), rtol=1e-13)
    assert float(found.probabilities[certain].sum()) == pytest.approx(1)


def test_mistakes_are_named():
    solution = gs.solve_mode(gs.Mode(0.4, 1.3, A, Z), "hinge", gs.StochasticGradientDescent(0.5, batch_size=4))
    with pytest.raises(ValueError, match="more than 1048576 outcomes; give fewer steps, expected_logit"):
        solution.distribution(30)
    with pytest.raises(gs.HypothesisError, match="may leave the class"):
        solution.expected_logit(2)
    with pytest.raises(gs.HypothesisError, match="no draw leads to the margin"):
        gs.solve_mode(gs.Mode(0.4, 1.3, [0.6], [0.6]), "hinge", gs.StochasticGradientDescent(0.5, 2)).expected_logit(6)
    with pytest.raises(gs.HypothesisError, match="hinge loss"):
        gs.solve_mode(gs.Mode(0.4, 1.3, [0.6], [0.6]), "squared", gs.StochasticGradientDescent(0.5, 2)).expected_logit(1)
    with pytest.raises(AttributeError, match="make the curve a distribution"):
        solution.logit(3)
    for size in (1, 2):
        with pytest.raises(gs.HypothesisError, match="step_size is a schedule"):
            gs.solve_mode(gs.Mode(0.4, 1.3, A, Z), "hinge", gs.StochasticGradientDescent(lambda k: 0.1 / (1 + k), size))
