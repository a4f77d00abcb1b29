"""The first step of mini-batches with a logit, in distribution (17.5), against all draws and NumPy training."""

from itertools import product
from math import comb

import jax
import numpy as np
import pytest

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")

A, Z, NORM, SIZE = np.array([0.4, 0.05, 0.2]), np.array([0.3, -0.9, 0.5]), 1.3, 0.4  # the second one leaves at once


def trained(counts, batch_size, a=A, z=Z):
    """The logits after each step of hinge loss with these numbers of own points: [steps + 1, *draws]."""
    a, z = (np.broadcast_to(v, (*counts.shape[1:], v.size)).copy() for v in (a, z))
    logits = [NORM * np.sum(np.maximum(a, 0) * z, axis=-1)]
    for own in counts:
        push = (SIZE * NORM * own / batch_size * (logits[-1] < 1))[..., None] * (a > 0)
        a, z = a + push * z, z + push * a
        logits.append(NORM * np.sum(np.maximum(a, 0) * z, axis=-1))
    return np.stack(logits)


def wait(goal, p, batch_size, **changes):
    mode = gs.Mode(**{"frequency": p, "norm": NORM, "a": A, "z": Z} | changes)
    return gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(SIZE, batch_size=batch_size)).time_to_logit(goal)


@pytest.mark.parametrize("goal", [0.3, 0.9, 1.0, 1.25, -9.0, 50.0])
def test_every_sequence_of_draws(goal):
    """All 4^6 sequences of six steps with three points; beyond the margin only some draws get to a goal, and 50 none."""
    steps, size, p = 6, 3, 0.35
    sequences = np.array(list(product(range(size + 1), repeat=steps))).T
    chances = np.prod(np.array([comb(size, n) * p**n * (1 - p) ** (size - n) for n in range(size + 1)])[sequences], axis=0)
    over = trained(sequences, size) >= goal
    first = np.where(over.any(0), over.argmax(0), steps + 1)
    if goal == 0.9:  # the neuron that leaves would hold the logit down
        kept = trained(sequences, size, A[[0, 2]], Z[[0, 2]])
        assert (np.abs(kept[1:] - trained(sequences, size)[1:]).max(0) > 1e-3).any()
    law = wait(goal, p, size)
    exact = np.array([chances[first == k].sum() for k in range(steps + 1)])
    np.testing.assert_allclose(law.pmf(np.arange(steps + 1)), exact, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(law.cdf(np.arange(steps + 1)), np.cumsum(exact), rtol=1e-11, atol=1e-14)
    if goal == 50.0:
        assert float(law.never) == 1
        assert np.isinf(float(law.mean))
    if goal == 1.25:
        assert 0 < float(law.never) < 1


@pytest.mark.slow
def test_seeds_in_numpy():
    """200,000 seeds of batches of four: mean, variance, distribution and quantiles within four standard errors."""
    rng, seeds, size, p, goal = np.random.default_rng(0), 200_000, 4, 0.2, 0.9
    over = trained(rng.binomial(size, p, (80, seeds)), size) >= goal
    assert over[-1].all()
    first = over.argmax(0)
    law = wait(goal, p, size)
    mean, variance = float(law.mean), float(law.variance)
    assert abs(first.mean() - mean) < 4 * np.sqrt(variance / seeds)
    fourth = ((first - first.mean()) ** 4).mean()
    assert abs(first.var() - variance) < 4 * np.sqrt((fourth - variance**2) / seeds)
    cdf = np.asarray(law.cdf(np.arange(40)))
    found = np.array([(first <= k).mean() for k in range(40)])
    assert (np.abs(found - cdf) <= 4 * np.sqrt(cdf * (1 - cdf) / seeds) + 1e-12).all()
    assert float(law.never) < 1e-12
    for level in (0.01, 0.5, 0.99):
        step = int(law.quantile(level))
        assert cdf[step] >= level > cdf[step - 1]


def test_batches_of_modes_and_the_limits():
    """One point a step is (8.3), a class that is always drawn is descent, and each mode and goal has its own entry."""
    goals = np.array([0.3, 0.9])
    mode = gs.Mode([0.3, 0.7], NORM, np.stack([A, A]), np.stack([Z, Z]))
    law = gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(SIZE, batch_size=2)).time_to_logit(goals)
    assert law.mean.shape == (2, 2)
    assert law.cdf([3, 5, 9]).shape == law.quantile([0.1, 0.5, 0.9]).shape == (2, 2, 3)
    for i, p in enumerate((0.3, 0.7)):
        for j, goal in enumerate(goals):
            one = wait(goal, p, 2)
            np.testing.assert_allclose(law.cdf([3, 5, 9])[i, j], one.cdf([3, 5, 9]), rtol=1e-13)
            np.testing.assert_array_equal(law.quantile([0.1, 0.5, 0.9])[i, j], one.quantile([0.1, 0.5, 0.9]))
    always = gs.solve_mode(gs.Mode(1.0, NORM, A, Z), "hinge", gs.GradientDescent(SIZE))
    assert float(wait(0.9, 1.0, 3).mean) == float(always.time_to_logit(0.9))
    assert float(wait(0.9, 1.0, 3).quantile(0.5)) == float(always.time_to_logit(0.9))
    # Twice the batch is not half the time: the spread of the draws shrinks and the mean stays.
    assert float(wait(0.9, 0.3, 8).variance) < float(wait(0.9, 0.3, 2).variance)


def test_what_is_not_covered_is_named():
    batches = gs.StochasticGradientDescent(SIZE, batch_size=2)
    mode = gs.Mode(0.4, NORM, A, Z)
    with pytest.raises(gs.HypothesisError, match=r"the order of the draws.*cross-entropy"):
        gs.solve_mode(mode, "cross-entropy", batches).time_to_logit(0.5)
    with pytest.raises(gs.HypothesisError, match="rises in every own step"):
        gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(1.0, batch_size=2)).time_to_logit(0.5)
    with pytest.raises(ValueError, match="counts outside jit"):
        jax.jit(lambda u: gs.solve_mode(mode, "hinge", batches).time_to_logit(u).mean)(0.5)
    slow = gs.solve_mode(gs.Mode(0.4, 1.0, [1e-4], [1e-4]), "hinge", gs.StochasticGradientDescent(0.01, batch_size=8))
    with pytest.raises(ValueError, match="counts of draws do not suffice"):
        slow.time_to_logit(0.9)
    with pytest.raises(ValueError, match="level of a quantile"):
        wait(0.9, 0.4, 2).quantile(1.0)
    dead = wait(0.5, 0.4, 2, a=np.array([0.1]), z=np.array([-0.5]))
    assert float(dead.never) == 1
    assert np.isinf(float(dead.quantile(0.5)))
