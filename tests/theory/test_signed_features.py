"""Signed features (section 20): types of -1, 0 and 1 under every loss, against SciPy's integration and minimisers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import lsq_linear
from scipy.special import lambertw

from gradstarve.problem import FlippedLabels, Hinge, MarginShift, SpectralDecoupling, Temperature
from gradstarve.theory import feature_flow, settled_features

PAIR = np.array([[1.0, 1], [1, -1]])
TYPES = np.array([[1.0, 1, 0], [1, -1, 1], [0, 1, -1], [1, 0, 1]])
P, SCALES = np.array([0.5, 0.2, 0.1, 0.2]), np.array([1.0, 1.7, 0.6])
TIMES = np.array([3.0, 0.0, 0.01, 30.0, 0.3])
RESIDUALS = {
    "cross-entropy": lambda m: 1 / (1 + np.exp(m)),
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: 1 - m,
}


def integrated(types, p, scales, g, start, times, depth=1):
    """(10.1) with signs, by SciPy."""

    def slope(t, v):
        return depth * scales ** (2 / depth) * np.abs(v) ** (2 - 2 / depth) * ((p * g(types @ v)) @ types)

    order = np.unique(times)
    run = solve_ivp(slope, (0, order[-1]), start, "DOP853", t_eval=order, rtol=3e-14, atol=1e-15, max_step=0.5)
    return run.y.T[np.searchsorted(order, times)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("loss", "depth"), [("cross-entropy", 1), ("exponential", 2), ("squared", 1)])
def test_every_smooth_loss_follows_10_1_with_signs(loss, depth):
    start = np.array([0.02, 0.1, 0.05])
    expected = integrated(TYPES, P, SCALES, RESIDUALS[loss], start, TIMES, depth)
    flow = feature_flow(TYPES, P, loss, depth=depth, scales=SCALES, init=start)
    np.testing.assert_allclose(flow.features(TIMES), expected, atol=1e-12, rtol=1e-11)
    if depth == 1:
        alone = [integrated(TYPES[:, [k]], P, SCALES[[k]], RESIDUALS[loss], start[[k]], TIMES)[:, 0] for k in range(3)]
        np.testing.assert_allclose(flow.alone(TIMES), np.stack(alone, -1), atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_types_at_right_angles_have_clocks_of_their_own():
    """(20.2): a = C - W(e^C), and b with 1 - p, by SciPy's Lambert W; a third type of both norms beside them."""
    p, r = np.array([0.7, 0.2, 0.1]), 1.3
    types, scales = np.array([[1.0, 1, 0], [1, -1, 0], [0, 0, -1]]), np.array([r, r, 0.4])
    flow = feature_flow(types, p, "cross-entropy", scales=scales)
    clocks = 1 + p * np.array([2 * r**2, 2 * r**2, 0.16]) * TIMES[:, None]
    expected = clocks - lambertw(np.exp(clocks)).real
    np.testing.assert_allclose(flow.margins(TIMES), expected, atol=1e-13)
    assert np.isfinite(flow.features(1e300)).all()
    other = feature_flow(types, p, "cross-entropy", scales=scales * [1, 1.01, 1])  # not at right angles: integrated
    off = integrated(types, p, scales * [1, 1.01, 1], RESIDUALS["cross-entropy"], np.zeros(3), TIMES)
    np.testing.assert_allclose(other.features(TIMES), off, atol=1e-12)
    slope = jax.grad(lambda r: feature_flow(PAIR, [0.7, 0.3], "cross-entropy", scales=r).features(5.0)[1])
    step = np.array([1e-5, 0])
    ends = [feature_flow(PAIR, [0.7, 0.3], "cross-entropy", scales=1 + s * step).features(5.0)[1] for s in (1, -1)]
    assert slope(np.ones(2))[0] == pytest.approx(float(ends[0] - ends[1]) / 2e-5, rel=1e-6)


def slowest(types, p, scales, low, high):
    """The speeds v' of the flow whose residuals lie in [low, high] with the least |v'| in the metric of the scales."""
    matrix = (types.T * p) * scales[:, None]
    loose = high > low
    if not loose.any():
        return scales * (matrix @ low)
    given = -(matrix[:, ~loose] @ low[~loose])
    found = lsq_linear(matrix[:, loose], given, (low[loose], high[loose]), tol=1e-14, method="bvls")
    g = low.copy()
    g[loose] = found.x
    return scales * (matrix @ g)


def stepped(types, p, scales, kinks, levels, start, end):
    """The flow event by event in plain NumPy, with SciPy's bounded least squares for what slides: [(t, v), ...]."""
    t, v, path = 0.0, start.copy(), [(0.0, start.copy())]
    for _ in range(200):
        m = types @ v
        low = np.array([levels[np.sum(k <= x + 1e-10), s] for s, (x, k) in enumerate(zip(m, kinks.T, strict=True))])
        high = np.array([levels[np.sum(k < x - 1e-10), s] for s, (x, k) in enumerate(zip(m, kinks.T, strict=True))])
        pace = slowest(types, p, scales, low, high)
        speed = types @ pace
        waits = [
            (k - x) / d
            for x, d, row in zip(m, speed, kinks.T, strict=True)
            for k in row
            if abs(d) > 1e-11 and (k - x) / d > 1e-11 and abs(k - x) > 1e-10
        ]
        wait = min(waits, default=np.inf)
        if np.abs(pace).max() < 1e-11 or t + wait > end:
            path.append((end, v + (end - t) * (pace if np.abs(pace).max() > 1e-11 else 0)))
            return path
        t, v = t + wait, v + wait * pace
        path.append((t, v))
    raise AssertionError("no end")


FLAT = {
    "hinge": (Hinge(), [[1.0] * 4], [[1.0] * 4, [0.0] * 4]),
    "shifted": (MarginShift("hinge", [0.0, 0.5, 1, 0.2]), [[1, 1.5, 2, 1.2]], [[1.0] * 4, [0.0] * 4]),
    "flipped": (FlippedLabels("hinge", 0.1), [[-1.0] * 4, [1.0] * 4], [[0.9] * 4, [0.8] * 4, [-0.1] * 4]),
    "warm": (Temperature("hinge", 2.0), [[2.0] * 4], [[0.5] * 4, [0.0] * 4]),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["hinge", "flipped", pytest.param("shifted", marks=pytest.mark.slow), "warm"])
def test_margins_that_are_pushed_back_slide_along_their_kink(name):
    loss, kinks, levels = FLAT[name]
    rng, slid = np.random.default_rng(0), 0
    kinks, levels = np.array(kinks), np.array(levels)
    for trial in range(6):
        types = TYPES if trial % 2 else rng.integers(-1, 2, (4, 3)).astype(float)
        types[np.arange(3), np.arange(3)] = 1
        types[3, 0] = -1 if trial == 2 else types[3, 0] or 1
        p, scales, start = rng.dirichlet(np.ones(4)), rng.uniform(0.5, 2, 3), rng.normal(size=3) * 0.5
        path = stepped(types, p, scales, kinks, levels, start, 60.0)
        flow = feature_flow(types, p, loss, scales=scales, init=start)
        times = np.array([t for t, _ in path])
        found = np.asarray(flow.features(np.append(times, np.zeros(24 - len(times)))))[: len(times)]
        np.testing.assert_allclose(found, [v for _, v in path], atol=5e-8)  # the oracle's own: it looks 1e-10 ahead
        slid += len(path) > 5
    assert slid > 0


@pytest.mark.usefixtures("x64")
def test_hinge_slopes_at_signed_types():
    def read(x):
        return feature_flow(TYPES, x[:4], "hinge", scales=x[4:7], init=x[7:10]).features(x[10])[1]

    rng, point = np.random.default_rng(1), np.concatenate([P, SCALES, [0.1, 0.0, -0.1], [4.0]])
    ours = jax.jit(jax.grad(read))(point)
    value = jax.jit(read)
    for _ in range(3):
        way = rng.normal(size=11)
        assert ours @ way == pytest.approx(float(value(point + 1e-6 * way) - value(point - 1e-6 * way)) / 2e-6, rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_signed_features_settle_at_the_minimiser():
    for loss in (FlippedLabels("cross-entropy", 0.1), SpectralDecoupling("exponential", 0.2)):
        v = np.asarray(settled_features(PAIR, [0.8, 0.2], loss))
        assert v[1] == pytest.approx(0, abs=1e-12)  # (20.5)
        assert float(loss.residual(jnp.asarray(v[0]))) == pytest.approx(0, abs=1e-12)
        late = feature_flow(PAIR, [0.8, 0.2], loss, scales=[1.0, 2.0]).features(1e200)
        np.testing.assert_allclose(late, v, atol=1e-10)
