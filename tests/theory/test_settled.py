"""Where features settle under a loss that pulls back, against SciPy's minimisers and integration."""

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq, minimize

import gradstarve as gs
from gradstarve.problem import SpectralDecoupling
from gradstarve.theory import feature_flow, settled_features

TYPES = np.array([[1.0, 0], [1, 1], [0, 1]])
P, SCALES = np.array([0.6, 0.3, 0.1]), np.array([1.0, 0.5])
LOSSES = {
    "cross-entropy": (lambda m: np.logaddexp(0, -m), lambda m: 1 / (1 + np.exp(m))),
    "exponential": (lambda m: np.exp(-m), lambda m: np.exp(-m)),
    "squared": (lambda m: (1 - m) ** 2 / 2, lambda m: 1 - m),
}
PENALTIES = np.array([0.1, 0.02, 0.3])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("inside", "depth"),
    [
        ("cross-entropy", 2),
        ("cross-entropy", 1),
        *(pytest.param(loss, depth, marks=pytest.mark.slow) for loss in ("exponential", "squared") for depth in (1, 2)),
    ],
)
def test_features_settle_at_the_minimiser(inside, depth):
    p = np.random.default_rng(0).dirichlet(np.ones(3), 5)
    found = np.asarray(settled_features(TYPES, p, SpectralDecoupling(inside, PENALTIES), depth=depth))
    for row, v in zip(p, found, strict=True):

        def objective(v, row=row):
            m = TYPES @ v
            return row @ (LOSSES[inside][0](m) + PENALTIES * m**2 / 2)

        bounds = [(0 if depth > 1 else None, None)] * 2
        best = minimize(objective, [0.1, 0.1], method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-10})
        assert objective(v) <= best.fun * (1 + 1e-14)
        np.testing.assert_allclose(v, best.x, atol=1e-5)
        slope = (row * (LOSSES[inside][1](TYPES @ v) - PENALTIES * (TYPES @ v))) @ TYPES
        assert ((np.abs(slope) < 1e-12) | ((v == 0) & (slope < 0) & (depth > 1))).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_one_penalty_gives_every_type_one_margin_and_takes_the_second_feature_of_the_starving_pair():
    for penalty in (1e-3, 0.1, 5.0):
        rest = brentq(lambda m, k=penalty: 1 / (1 + np.exp(m)) - k * m, 0, 100, xtol=1e-15)  # (14.4)
        for depth in (1, 2):
            v = settled_features(TYPES[:2], P[:2], SpectralDecoupling("cross-entropy", penalty), depth=depth)
            np.testing.assert_allclose(v, [rest, 0], atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives_are_those_of_the_implicit_function():
    def first(p, penalty):
        return settled_features(TYPES, p, SpectralDecoupling("cross-entropy", penalty))[0]

    slopes = jax.grad(first, (0, 1))(jax.numpy.asarray(P), jax.numpy.asarray(PENALTIES))
    for slope, which in zip(slopes, (0, 1), strict=True):
        for k in range(3):
            ends = []
            for sign in (1, -1):
                arguments = [P.copy(), PENALTIES.copy()]
                arguments[which][k] += sign * 1e-5
                ends.append(float(first(*arguments)))
            assert float(slope[k]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)])
def test_the_penalised_flow_follows_10_1_and_comes_to_rest(depth):
    start, times = np.array([0.05, 0.1]), np.array([1.0, 10.0, 300.0])

    def slope(t, v, types=TYPES):
        margins = types @ v
        push = (P * (LOSSES["cross-entropy"][1](margins) - PENALTIES * margins)) @ types
        return depth * SCALES ** (2 / depth) * np.abs(v) ** (2 - 2 / depth) * push

    flow = feature_flow(TYPES, P, SpectralDecoupling("cross-entropy", PENALTIES), depth=depth, scales=SCALES, init=start)
    options = {"method": "DOP853", "t_eval": times, "rtol": 3e-14, "atol": 1e-15}
    np.testing.assert_allclose(flow.features(times), solve_ivp(slope, (0, 300), start, **options).y.T, rtol=1e-11)
    for k in range(2):
        own = TYPES * np.eye(2)[k]
        run = solve_ivp(lambda t, v, own=own: slope(t, v, own), (0, 300), start, **options)
        np.testing.assert_allclose(flow.alone(times)[:, k], run.y[k], rtol=1e-11)
    rest = settled_features(TYPES, P, SpectralDecoupling("cross-entropy", PENALTIES), depth=depth)
    np.testing.assert_allclose(flow.features([1e5, 1e300]), np.broadcast_to(rest, (2, 2)), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_what_still_moves_at_late_times_says_so():
    flow = feature_flow(TYPES, P, SpectralDecoupling("cross-entropy", [0.1, 0, 0]))
    with pytest.raises(gs.ConvergenceError, match="ask for earlier times"):
        flow.features(1e300)
    with pytest.raises(gs.HypothesisError, match=r"types \[0\] do, of rank below K = 2"):
        settled_features(TYPES, P, SpectralDecoupling("cross-entropy", [0.1, 0, 0]))
    with pytest.raises(gs.HypothesisError, match="margins grow for ever"):
        settled_features(TYPES, P, "cross-entropy")
    for call in (settled_features, feature_flow):
        with pytest.raises(gs.HypothesisError, match="slide along"):
            call(TYPES, P, SpectralDecoupling("hinge", 0.1))
        with pytest.raises(ValueError, match="penalty is given for 2 samples"):
            call(TYPES, P, SpectralDecoupling("cross-entropy", [0.1, 0.2]))
    with pytest.raises(ValueError, match="probabilities must have 3 entries"):
        settled_features(TYPES, P[:2], SpectralDecoupling("cross-entropy", 0.1))
