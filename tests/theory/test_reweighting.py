"""Weights that equalise the speeds of features, against linear programmes, optimality conditions, and training."""

import numpy as np
import pytest
from scipy.optimize import linprog

import gradstarve as gs
from gradstarve.theory import equal_speed_weights, equal_time_weights, fastest_weights, feature_flow

TYPES, P = np.array([[1.0, 0], [1, 1], [0, 1]]), np.array([0.9, 0.09, 0.01])


def random_problem(rng, features=None):
    k = features or rng.integers(1, 6)
    s = rng.integers(1, 7)
    types = (rng.random((s, k)) < 0.5).astype(float)
    types[types.sum(1) == 0, rng.integers(k)] = 1
    types[rng.integers(s), types.sum(0) == 0] = 1
    return types, rng.dirichlet(np.ones(s)), 2.0 ** rng.uniform(-1, 1, k), int(rng.integers(1, 4))


def speeds_by_hand(types, scales, depth, push=0.5):
    """B [K, S]: of cross-entropy with margins of zero."""
    k, s = types.shape[1], types.shape[0]
    return np.array([[depth * scales[i] ** (2 / depth) * types[j, i] * push for j in range(s)] for i in range(k)])


@pytest.mark.usefixtures("x64")
def test_the_fastest_weights_prove_themselves():
    rng = np.random.default_rng(0)
    for _ in range(50):
        types, p, scales, depth = random_problem(rng)
        plan = fastest_weights(types, p, "cross-entropy", depth=depth, scales=scales)
        matrix = speeds_by_hand(types, scales, depth)
        assert plan.weights.min() >= 0
        assert plan.prices.min() >= 0
        np.testing.assert_allclose([plan.weights.sum(), plan.prices.sum()], 1, rtol=1e-12)
        # No weights do better than the prices allow, and these do as well.
        assert (matrix @ plan.weights).min() == pytest.approx((plan.prices @ matrix).max(), rel=1e-9)
        np.testing.assert_allclose(plan.speeds, matrix @ plan.weights, rtol=1e-12)
        np.testing.assert_allclose(plan.before, matrix @ p, rtol=1e-12)
        for _ in range(20):
            assert (matrix @ rng.dirichlet(np.ones(len(p)))).min() <= plan.speeds.min() * (1 + 1e-9)


@pytest.mark.usefixtures("x64")
def test_equal_speeds_exist_exactly_where_a_linear_programme_says_so_and_are_the_nearest():
    rng = np.random.default_rng(1)
    counts = {True: 0, False: 0}
    for _ in range(100):
        types, p, scales, depth = random_problem(rng)
        matrix = speeds_by_hand(types, scales, depth)
        k, s = matrix.shape
        feasible = linprog(np.zeros(s), A_eq=matrix, b_eq=np.ones(k), bounds=(0, None), method="highs-ipm").status == 0
        counts[feasible] += 1
        if not feasible:
            with pytest.raises(gs.HypothesisError, match="whatever the weights"):
                equal_speed_weights(types, p, "cross-entropy", depth=depth, scales=scales)
            continue
        plan = equal_speed_weights(types, p, "cross-entropy", depth=depth, scales=scales)
        assert plan.weights.min() >= 0
        assert np.ptp(plan.speeds) < 1e-10 * plan.speeds.max()
        np.testing.assert_allclose(plan.speeds, matrix @ plan.weights, rtol=1e-12)
        # Nearest: the gradient of sum w log(w/p) is orthogonal to every change of weights that keeps speeds equal.
        used = plan.weights > 0
        allowed = np.vstack([matrix[:, used] - matrix[:, used].mean(0), np.ones(used.sum())])
        gradient = np.log(plan.weights[used] / p[used])
        left = gradient - allowed.T @ np.linalg.lstsq(allowed.T, gradient, rcond=None)[0]
        assert np.abs(left).max() < 1e-6
        # A type of weight 0 cannot be used by any weights of equal speeds.
        for unused in np.flatnonzero(~used):
            best = linprog(-np.eye(s)[unused], A_eq=matrix, b_eq=np.ones(k), bounds=(0, None), method="highs")
            assert -best.fun < 1e-9
    assert min(counts.values()) > 20


@pytest.mark.usefixtures("x64")
def test_the_starving_pair_by_its_scales():
    pair, p = TYPES[:2], [0.9, 0.1]
    even = equal_speed_weights(pair, p)
    assert even.weights.tolist() == [0, 1]
    assert even.factors[1] == pytest.approx(10)
    stronger = equal_speed_weights(pair, p, scales=(1, 2))  # (w_1 + w_12) = 4 w_12
    np.testing.assert_allclose(stronger.weights, [0.75, 0.25], atol=1e-12)
    with pytest.raises(gs.HypothesisError, match=r"1 speed_1 <= 0\.25 speed_0"):
        equal_speed_weights(pair, p, scales=(1, 0.5))
    np.testing.assert_allclose(fastest_weights(pair, p, scales=(1, 0.5)).speeds, [0.5, 0.125], atol=1e-9)
    # Features that have a start: g(m) is that of the margins there.
    plan = equal_speed_weights(TYPES, P, "exponential", init=(2.0, 0.1))
    pushes = np.exp(-TYPES @ [2.0, 0.1]) * plan.weights
    np.testing.assert_allclose(pushes @ TYPES, np.full(2, plan.speeds[0]), rtol=1e-9)
    done = (0.2, 1.5)
    with pytest.raises(gs.HypothesisError, match=r"features \[1\] are not"):
        equal_speed_weights(TYPES, P, "hinge", init=done)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [2, pytest.param(1, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_equal_times_are_those_of_training(depth):
    start, scales, logit = np.array([0.05, 0.1]), np.array([1.0, 0.7]), 2.0
    plan = equal_time_weights(TYPES, P, "cross-entropy", logit=logit, depth=depth, scales=scales, init=start)
    assert plan.weights.min() > 0
    flow = feature_flow(TYPES, plan.weights, "cross-entropy", depth=depth, scales=scales, init=start)
    np.testing.assert_allclose(flow.features(plan.time), [logit, logit], rtol=1e-7)
    if depth != 2:
        return
    # Two balanced neurons, each of which sees its own feature only, trained by descent on samples of these weights.
    gaps = []
    for steps in (2000, 8000):
        a = z = np.sqrt(start / scales)
        for _ in range(steps):
            push = plan.time / steps * scales * ((plan.weights / (1 + np.exp(TYPES @ (scales * a * z)))) @ TYPES)
            a, z = a + push * z, z + push * a
        gaps.append(np.abs(scales * a * z - logit).max())
    assert gaps[1] < 0.3 * gaps[0] < 0.01
    # As the data were, the two were far from one another.
    plain = feature_flow(TYPES, P, "cross-entropy", depth=depth, scales=scales, init=start).features(plan.time)
    assert plain[0] > 1.5 * plain[1]


@pytest.mark.usefixtures("x64")
def test_bad_input_names_what_came():
    with pytest.raises(ValueError, match=r"weights are found for one problem at a time, got batch axes \(2,\)"):
        fastest_weights(TYPES, [P, P])
    with pytest.raises(ValueError, match=r"probabilities must be > 0, got 0\.0"):
        equal_speed_weights(TYPES, [0.5, 0.5, 0.0])
    for plan in (fastest_weights, equal_speed_weights, equal_time_weights):
        with pytest.raises(ValueError, match=r"probabilities must sum to 1, got 1\.1\d*; give probabilities / "):
            plan(TYPES, [0.5, 0.3, 0.3])
    with pytest.raises(gs.HypothesisError, match="every feature has `logit` ahead of it"):
        equal_time_weights(TYPES, P, logit=0.1, init=(0.2, 0.0))
    with pytest.raises(ValueError, match="depth = 2 needs init"):
        equal_time_weights(TYPES, P, depth=2)
    with pytest.raises(gs.ConvergenceError, match=r"bring all features to logit 2\.0 at one time"):
        equal_time_weights(TYPES, P, "hinge", logit=2.0)


def test_equal_times_in_float32():
    for often, scales in (((0.6, 0.3, 0.1), (1.0, 0.8)), ((0.2, 0.5, 0.3), (0.7, 1.3))):
        often, scales = np.array(often, np.float32), np.array(scales, np.float32)
        plan = equal_time_weights(TYPES.tolist(), often, logit=2.0, scales=scales)
        flow = feature_flow(TYPES.tolist(), np.asarray(plan.weights, np.float32), "cross-entropy", scales=scales)
        np.testing.assert_allclose(np.asarray(flow.features(plan.time)), 2.0, rtol=1e-5)
