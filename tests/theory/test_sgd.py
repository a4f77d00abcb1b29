"""SGD in distribution (8.3) against all sequences of draws, trained one by one, and against SciPy's distributions."""

from fractions import Fraction
from itertools import product
from math import comb

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import gradstarve as gs
from gradstarve import special, theory

LOSSES = ["cross-entropy", "hinge", "exponential", "squared"]
STEPS, OWN = 9, 0.35  # the probability that a step draws the class


def residual(loss, m):
    return {"cross-entropy": 1 / (1 + np.exp(m)), "hinge": float(m < 1), "exponential": np.exp(-m), "squared": 1 - m}[loss]


def train(loss, a, z, norm, step_size, sequence):
    """The logit of the class after descent on the drawn points, the neurons of NumPy; a 1 is a draw of the class."""
    a, z = a.copy(), z.copy()
    for own in sequence:
        if own:
            seen = a > 0
            push = step_size * norm * residual(loss, norm * np.sum(np.maximum(a, 0) * z))
            a, z = a + push * z * seen, z + push * a * seen
    return norm * np.sum(np.maximum(a, 0) * z)


A, Z = np.array([0.4, 0.3, 0.2]), np.array([0.3, -0.5, 0.6])  # the second one leaves


def law(loss="cross-entropy", frequency=OWN, **changes):
    mode = gs.Mode(**{"frequency": frequency, "norm": 1.3, "a": A, "z": Z, **changes})
    return gs.solve_mode(mode, loss, gs.StochasticGradientDescent(0.4))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_every_sequence_of_draws(loss):
    found = {}
    for sequence in product((0, 1), repeat=STEPS):
        chance = np.prod([OWN if own else 1 - OWN for own in sequence])
        value = round(train(loss, A, Z, 1.3, 0.4, sequence), 11)
        found[value] = found.get(value, 0.0) + chance
    values, chances = np.array(list(found)), np.array(list(found.values()))
    after = law(loss).distribution(STEPS)
    mean = np.sum(values * chances)
    assert float(after.mean) == pytest.approx(mean, rel=1e-9)
    assert float(after.variance) == pytest.approx(np.sum((values - mean) ** 2 * chances), rel=1e-8)
    assert float(after.error) == pytest.approx(np.sum(chances / (1 + np.exp(values))), rel=1e-9)
    middle = (np.sort(values)[1:] + np.sort(values)[:-1]) / 2
    np.testing.assert_allclose(after.cdf(middle), [chances[values < x].sum() for x in middle], rtol=1e-12)
    order = np.argsort(values)
    levels = np.array([0.05, 0.5, 0.9])
    expected = values[order][np.searchsorted(np.cumsum(chances[order]), levels)]
    np.testing.assert_allclose(after.quantile(levels), expected, rtol=1e-9)
    np.testing.assert_allclose(after.pmf(after.values), [chances[np.argmin(abs(values - u))] for u in after.values])


@pytest.mark.usefixtures("x64")
def test_the_number_of_draws_is_binomial_for_many_steps():
    after = law("hinge", frequency=0.003).distribution(20_000)
    assert float(after.probabilities.sum()) == pytest.approx(1, abs=1e-11)
    m = np.arange(20_001)
    np.testing.assert_allclose(after.probabilities[:200], stats.binom.pmf(m, 20_000, 0.003)[:200], rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_time_to_learn_is_negative_binomial():
    solution = law("hinge")
    targets = np.array([0.3, 0.9, 5.0, -9.0])
    wait = solution.time_to_logit(targets, max_draws=400)
    curve = np.array([train("hinge", A, Z, 1.3, 0.4, [1] * m) for m in range(401)])
    draws = [np.argmax(curve >= u) if (curve >= u).any() else np.inf for u in targets]
    assert wait.draws.tolist() == draws
    assert np.isinf(draws[2])
    steps, p, levels = np.arange(120), OWN, np.array([0.001, 0.3, 0.5, 0.999])
    pmf, cdf, quantiles = wait.pmf(steps), wait.cdf(steps), wait.quantile(levels)
    for j in range(2):
        exact = stats.nbinom(draws[j], p, loc=draws[j])
        np.testing.assert_allclose(pmf[j], exact.pmf(steps), rtol=1e-10, atol=1e-300)
        np.testing.assert_allclose(cdf[j], exact.cdf(steps), rtol=1e-10, atol=1e-300)
        assert float(wait.mean[j]) == pytest.approx(exact.mean())
        assert float(wait.variance[j]) == pytest.approx(exact.var())
        assert quantiles[j].tolist() == exact.ppf(levels).tolist()
    assert pmf[3].tolist() == [1.0] + [0.0] * 119  # there at the start
    assert (np.asarray(cdf[3]) == 1).all()
    assert not np.asarray(quantiles[3]).any()
    assert not np.asarray(pmf[2]).any()  # never
    assert not np.asarray(cdf[2]).any()
    assert np.isinf(np.asarray(quantiles[2])).all()
    assert np.isinf(float(wait.mean[2]))


@pytest.mark.usefixtures("x64")
def test_time_to_error_is_the_time_to_its_logit():
    solution = law()
    error = 1 / (1 + np.exp(0.9))
    assert float(solution.time_to_error(error).mean) == float(solution.time_to_logit(0.9).mean)


@pytest.mark.usefixtures("x64")
def test_a_class_that_is_always_drawn_is_descent():
    after = law(frequency=1.0).distribution(STEPS)
    assert after.probabilities.tolist() == [0.0] * STEPS + [1.0]
    descent = gs.solve_mode(gs.Mode(1.0, 1.3, A, Z), "cross-entropy", gs.GradientDescent(0.4))
    assert float(after.mean) == float(descent.logit(STEPS))
    assert float(after.variance) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_batch_is_its_members():
    a, z, p = np.stack([A, 2 * A]), np.stack([Z, Z]), np.array([0.2, 0.9])
    both = law(frequency=p, a=a, z=z)
    after, wait = both.distribution(STEPS), both.time_to_logit([0.4, 0.8])
    assert after.values.shape == after.probabilities.shape == (2, STEPS + 1)
    assert after.mean.shape == (2,)
    assert after.cdf(np.zeros((4, 5))).shape == after.quantile(np.full((4, 5), 0.5)).shape == (2, 4, 5)
    assert wait.mean.shape == (2, 2)
    assert wait.cdf(np.arange(7)).shape == wait.quantile(np.full(7, 0.5)).shape == (2, 2, 7)
    one = law(frequency=p[1], a=a[1], z=z[1])
    np.testing.assert_allclose(after.mean[1], one.distribution(STEPS).mean)
    np.testing.assert_allclose(wait.mean[1], one.time_to_logit([0.4, 0.8]).mean)


@pytest.mark.usefixtures("x64")
def test_derivatives_of_the_mean():
    def mean(numbers):
        mode = gs.Mode(numbers[0], numbers[1], A, numbers[2] * Z)
        return gs.solve_mode(mode, "cross-entropy", gs.StochasticGradientDescent(numbers[3])).distribution(STEPS).mean

    at = jnp.array([0.3, 1.3, 1.0, 0.4])
    slope = jax.grad(mean)(at)
    for i in range(4):
        step = 1e-6 * np.eye(4)[i]
        assert float(slope[i]) == pytest.approx(float(mean(at + step) - mean(at - step)) / 2e-6, rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_mistakes():
    with pytest.raises(gs.HypothesisError, match=r"frequency = 1\.5"):
        law(frequency=1.5)
    solution = law("hinge")
    for step in (-1, 2.5, "three"):
        with pytest.raises(ValueError, match="step must be an integer >= 0"):
            solution.distribution(step)
    for level in (0.0, 1.0, np.nan):
        with pytest.raises(ValueError, match=r"level of a quantile must be in \(0, 1\)"):
            solution.distribution(3).quantile(level)
    with pytest.raises(ValueError, match="steps must be integers >= 0"):
        solution.time_to_logit(0.5).pmf(1.5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("share", [Fraction(1, 2), Fraction(1, 4), Fraction(3, 4), Fraction(1, 5), Fraction(1, 10)])
def test_a_level_that_is_a_value_of_the_cdf_gives_the_step_of_it(share, dtype):
    """Exact sums of fractions, rounded once, as levels: S5's kind, one late where a computed sum is an ulp short."""
    with jax.enable_x64(dtype is np.float64):
        p = jnp.asarray(float(share), dtype)
        for count in (1, 2, 5, 20):
            chance = [comb(count, m) * share**m * (1 - share) ** (count - m) for m in range(count + 1)]
            upto = np.array([float(sum(chance[: m + 1])) for m in range(count + 1)], dtype)
            inside = upto < 1 - 8 * np.finfo(dtype).eps
            values = jnp.arange(count + 1, dtype=dtype)
            after = theory.LogitDistribution(values, jnp.exp(special.binomial_log_pmf(values, float(count), p)))
            np.testing.assert_array_equal(after.quantile(upto[inside]), np.arange(count + 1)[inside])
        for draws in (1, 2, 6):
            steps = np.arange(draws, draws + 12)
            terms = [[comb(n, k) * share**k * (1 - share) ** (n - k) for k in range(draws, n + 1)] for n in steps.tolist()]
            reached = np.array([float(sum(one)) for one in terms], dtype)
            inside = reached < 1 - 8 * np.finfo(dtype).eps
            wait = theory.TimeDistribution(jnp.asarray(draws, dtype), p)
            np.testing.assert_array_equal(wait.quantile(reached[inside]), steps[inside])
            # Between two values it is the later step.
            between = (reached[:-1] + reached[1:])[inside[1:]] / 2
            np.testing.assert_array_equal(wait.quantile(between), steps[1:][inside[1:]])


@pytest.mark.usefixtures("x64")
def test_a_sum_of_weights_that_rounding_put_above_one_is_one():
    above = law(frequency=np.float64(1 + 2**-52))
    assert above.frequency == 1
    np.testing.assert_array_equal(above.distribution(3).probabilities, law(frequency=1.0).distribution(3).probabilities)


@pytest.mark.usefixtures("x64")
def test_a_distribution_has_no_curve_and_says_what_it_has():
    for name in ("logit", "logits", "error", "weights", "plot"):
        with pytest.raises(AttributeError, match=rf"ModeSGD has no '{name}': .* a distribution; .distribution\(step\)"):
            getattr(law(), name)
    with pytest.raises(AttributeError, match="'ModeSGD' object has no attribute 'anything'"):
        _ = law().anything
    assert not hasattr(law(), "margins")
