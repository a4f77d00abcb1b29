"""Linearised networks (14.1 to 14.4) against SciPy's integrators, mpmath, and networks trained by descent."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve.theory import _flows as flows
from gradstarve.theory import jacobian, ntk, one_layer_logit
from gradstarve.theory._linearised import factor

pytestmark = pytest.mark.usefixtures("x64")
FIGURE_6 = np.array([[0.75**0.5, -0.5], [0.5, 0.75**0.5]])  # the features of Pezeshki et al. 2021, Figure 6


def sigmoid(x):
    return np.where(x >= 0, 1, np.exp(np.minimum(x, 0))) / (1 + np.exp(-np.abs(x)))


def random_kernel(rng, n, kind):
    """A kernel [n, n] of one kind, and a time by which much of it has happened."""
    if kind == "wishart":
        half = rng.normal(size=(n, rng.integers(n, 3 * n))) * 10 ** rng.uniform(-1, 1)
    elif kind == "singular":
        half = rng.normal(size=(n, max(1, n // 3)))
    elif kind == "ill":  # strengths over eight powers of ten
        half = np.linalg.qr(rng.normal(size=(n, n)))[0] * 10 ** np.linspace(1, -3, n)
    elif kind == "graded":  # samples of very different size
        half = 10 ** rng.uniform(-3, 3, (n, 1)) * rng.normal(size=(n, 2 * n))
    else:  # rows of zeros, and samples that come twice
        half = rng.normal(size=(n, n)) * (rng.random((n, 1)) < 0.7)
        half[0] = half[-1] = rng.normal(size=n)
    kernel = half @ half.T
    return (kernel + kernel.T) / 2, 100 / np.abs(kernel).max()


def test_the_nodes_of_a_panel_are_those_of_radau():
    """Real numbers, zeros of P_8 - P_7 and 1, whose rule is exact up to degree 14; against mpmath."""
    points, weights, integrals, _ = flows.radau_tables()
    assert {table.dtype for table in flows.radau_tables()} == {np.dtype(np.float64)}
    assert (np.diff(points) > 0).all()
    with mpmath.workdps(30):
        polynomial = lambda x: mpmath.legendre(8, x) - mpmath.legendre(7, x)  # noqa: E731
        exact = [*(float((mpmath.findroot(polynomial, 2 * x - 1) + 1) / 2) for x in points[:-1].tolist()), 1.0]
    np.testing.assert_allclose(points, exact, rtol=0, atol=2e-16)
    for degree in range(15):
        np.testing.assert_allclose(weights @ points**degree, 1 / (degree + 1), rtol=2e-15)
    np.testing.assert_allclose(integrals @ points**7, points**8 / 8, rtol=0, atol=1e-15)


def integrated(kernel, start, times, penalty=0.0, ridge=0.0):
    """dm/dt = K (sigmoid(-m) - penalty m) - ridge m by SciPy, in s = log(1 + t), from one time to the next."""

    def slope(s, m):
        return np.exp(s) * (kernel @ (sigmoid(-m) - penalty * m) - ridge * (m - start))

    def jac(s, m):
        return -np.exp(s) * (kernel * (sigmoid(m) * sigmoid(-m) + penalty) + ridge * np.eye(m.size))

    s, m, found = 0.0, start.copy(), []
    for t in times:
        end = np.log1p(t)
        if end > s:
            run = solve_ivp(slope, (s, end), m, "Radau", jac=jac, rtol=1e-12, atol=1e-13)
            assert run.success
            s, m = end, run.y[:, -1]
        found.append(m)
    return np.array(found)


# Kinds, and how many times later than their own time they are compared at last: where data are not separable the flow comes
# to rest exponentially fast, and SciPy's steps end soon after.
SLOW = ("wishart", "singular", "ill")
KINDS = {"wishart": 1e8, "singular": 30, "ill": 1e4, "graded": 1e4, "zeros": 30}


def flow_gap(rng, n, kind):
    kernel, time = random_kernel(rng, n, kind)
    start = rng.normal(size=n) * (rng.random() < 0.5)
    times = np.array([0.01 * time, time, KINDS[kind] * time])
    found = np.asarray(ntk.logistic_flow(kernel, times, start))
    return np.max(np.abs(found - integrated(kernel, start, times)))


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in KINDS])
def test_logistic_flow_is_what_scipy_integrates(kind):
    rng = np.random.default_rng(list(KINDS).index(kind))
    assert max(flow_gap(rng, 5, kind) for _ in range(2)) < 1e-10


@pytest.mark.slow
def test_logistic_flow_on_a_hundred_kernels():
    rng = np.random.default_rng(10)
    gaps = {kind: [flow_gap(rng, n, kind) for n in (1, 2, 5, 16, 64) for _ in range(4)] for kind in KINDS}
    print({kind: f"{max(found):.1e}" for kind, found in gaps.items()})
    assert sum(map(len, gaps.values())) == 100
    assert max(map(max, gaps.values())) < 1e-9


def test_late_times_and_scales():
    """e^m + m = s^2 t + 1 for one sample; any size of kernel and time, at once with rows of zeros, in any order."""
    times = np.array([[1e30, 0.0, 1e-12], [1.0, 1e295, 1e12]])
    for scales in ((1.0, 0.0), (1e-8, 1e-3), (0.0, 1e8), (1e8, 1e-8)):
        m = np.asarray(ntk.logistic_flow(np.diag(scales), times))
        assert m.shape == (2, 3, 2)
        for k, scale in enumerate(scales):
            level = np.log(scale * times + 1)  # of e^m + m; on the logarithm, where e^m is too large
            found = np.logaddexp(m[..., k], np.log(np.maximum(m[..., k], 1e-300)))
            np.testing.assert_allclose(found, level, atol=1e-11)
    assert (np.asarray(ntk.logistic_flow(np.zeros((2, 2)), times)) == 0).all()


def test_what_cannot_be_separated_stays():
    """K = s (1, -1)(1, -1)^T moves two samples against each other: m = (0, 0) for ever, and (c, -c) relaxes to it."""
    kernel = 30 * np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert np.abs(np.asarray(ntk.logistic_flow(kernel, [1.0, 1e30]))).max() < 1e-15
    m = np.asarray(ntk.logistic_flow(kernel, [0.1, 1e30], [3.0, -3.0]))
    np.testing.assert_allclose(m.sum(-1), 0, atol=1e-14)
    np.testing.assert_allclose(m[1], 0, atol=1e-12)


def test_many_times_are_one_integration():
    kernel, time = random_kernel(np.random.default_rng(3), 5, "wishart")
    many = np.geomspace(1e-3, 1e6, 200) * time
    m = np.asarray(ntk.logistic_flow(kernel, many))
    for k in (0, 57, 113, 199):
        np.testing.assert_allclose(m[k], ntk.logistic_flow(kernel, many[k]), atol=1e-10)
    slope = np.gradient(m, np.log(many), axis=0)[1:-1]
    law = (many[:, None] * (sigmoid(-m) @ kernel))[1:-1]
    np.testing.assert_allclose(slope, law, rtol=2e-3, atol=2e-3)


def test_figure_6():
    """Pezeshki et al. 2021: y = +1, s_2 = 2, s_1 = 2..6, ridge 0.01: z_2 falls with s_1, with spectral decoupling not."""
    ridge, penalty = 0.01, 0.002
    ends, decoupled = [], []
    for first in np.linspace(2, 6, 5):
        kernel = FIGURE_6 * np.array([first**2, 4]) @ FIGURE_6.T
        best = ntk.ridge_optimum(kernel, ridge)
        alpha, m = np.asarray(best.alpha), np.asarray(best.margins)
        assert float(best.residual) < 1e-15
        assert np.abs(m - kernel @ alpha / ridge).max() < 1e-12
        assert np.abs(alpha - sigmoid(-m)).max() < 1e-15
        np.testing.assert_allclose(ntk.ridge_dual_flow(kernel, ridge, 1e9), alpha, atol=1e-8, rtol=1e-8)
        np.testing.assert_allclose(ntk.ridge_flow(kernel, ridge, 1e9), m, atol=1e-8)
        ends.append(np.asarray(best.response(FIGURE_6)))
        decoupled.append(FIGURE_6.T @ np.asarray(ntk.spectral_decoupling_flow(kernel, penalty, 1e9)))
    ends, decoupled = np.array(ends), np.array(decoupled)
    assert (np.diff(ends[:, 1]) < 0).all()
    assert (np.diff(ends[:, 0]) > 0).all()
    optimum = np.asarray(ntk.spectral_decoupling_optimum(2, penalty))
    assert np.abs(sigmoid(-optimum) - penalty * optimum).max() < 1e-15
    np.testing.assert_allclose(decoupled, np.broadcast_to(FIGURE_6.T @ optimum, decoupled.shape), atol=1e-9)


def exact_optimum(kernel, ridge, start):
    """m = K sigmoid(-m) / ridge to 40 digits by Newton's method on ridge m = K sigmoid(-m), from `start`."""
    with mpmath.workdps(60):
        K, m = mpmath.matrix(kernel.tolist()), mpmath.matrix(start.tolist())
        for _ in range(60):
            alpha = mpmath.matrix([1 / (1 + mpmath.exp(x)) for x in m])
            D = mpmath.diag([a * (1 - a) for a in alpha])
            step = mpmath.lu_solve(ridge * mpmath.eye(len(m)) + K * D, K * alpha - ridge * m)
            m += step
            if mpmath.norm(step, mpmath.inf) < mpmath.mpf(10) ** -40:
                return np.array([float(x) for x in m])
    raise AssertionError("Newton's method did not converge")


@pytest.mark.parametrize("kind", KINDS)
def test_optima_at_any_ridge(kind):
    rng = np.random.default_rng(5)
    for ridge in (1e-12, 1e-9, 1e-6, 1e-3, 1.0, 1e3, 1e6):
        kernel, _ = random_kernel(rng, 5, kind)
        best = ntk.ridge_optimum(kernel, ridge)
        assert float(best.residual) < 1e-12
        m = np.asarray(best.margins)
        np.testing.assert_allclose(best.alpha, sigmoid(-m), rtol=1e-14)
        expected = exact_optimum(kernel, ridge, m)
        # A kernel and its rounding: their margins are apart by its part that no sample moves against the ridge.
        rounding = 1e-15 * np.abs(kernel) @ sigmoid(-m) / ridge
        np.testing.assert_allclose(m, expected, rtol=1e-10, atol=1e-13 + 10 * rounding.max())


def test_one_feature_is_lambert_w():
    """U = I: s^2 alpha / ridge = log((1 - alpha)/alpha), alpha ~ (ridge / s^2) W(s^2 / ridge)."""
    strengths = np.array([1e-3, 1.0, 1e4, 1e9])
    alpha = np.asarray(ntk.ridge_optimum(np.diag(strengths), 1e-3).alpha)
    np.testing.assert_allclose(strengths * alpha / 1e-3, np.log((1 - alpha) / alpha), rtol=1e-12)
    rough = 1e-3 / strengths * np.asarray(gs.special.lambertw(strengths / 1e-3))
    np.testing.assert_allclose(alpha[2:], rough[2:], rtol=1e-6)


@pytest.mark.parametrize("n", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_dual_and_primal_end_in_one_place(n):
    rng = np.random.default_rng(6)
    for kind, ridge in (("wishart", 1e-2), ("singular", 1.0), ("graded", 10.0), ("zeros", 1e-3), ("ill", 0.1)):
        kernel, _ = random_kernel(rng, n, kind)
        best = ntk.ridge_optimum(kernel, ridge)
        np.testing.assert_allclose(ntk.ridge_flow(kernel, ridge, 1e12 / ridge), best.margins, atol=1e-8)
        for start in (None, rng.uniform(0.01, 0.99, n)):
            found = np.asarray(ntk.ridge_dual_flow(kernel, ridge, [0.0, 1e12], start))
            np.testing.assert_allclose(found[0], 0.5 if start is None else start)
            np.testing.assert_allclose(found[1], best.alpha, rtol=1e-8, atol=1e-10)


def test_the_way_of_the_dual_and_of_the_ridge():
    kernel, ridge, t = FIGURE_6 * np.array([3.0, 0.5]) @ FIGURE_6.T, 0.5, np.array([0.05, 0.5, 3.0])
    np.testing.assert_allclose(
        ntk.ridge_flow(kernel, ridge, t), integrated(kernel, np.zeros(2), t, ridge=ridge), atol=1e-10
    )
    start = np.array([0.3, -1.0])
    np.testing.assert_allclose(
        ntk.spectral_decoupling_flow(kernel, 0.2, t, start), integrated(kernel, start, t, penalty=0.2), atol=1e-10
    )
    for begin in (np.array([0.5, 0.5]), np.array([0.9, 1e-3])):
        run = solve_ivp(
            lambda s, a: np.log((1 - a) / a) - kernel @ a / ridge, (0, 3), begin, "DOP853", rtol=1e-12, atol=1e-13
        )
        np.testing.assert_allclose(ntk.ridge_dual_flow(kernel, ridge, 3.0, begin), run.y[:, -1], atol=1e-9)


def test_starvation_is_the_slope_of_the_responses():
    rng = np.random.default_rng(7)
    U, strengths, ridge = np.linalg.qr(rng.normal(size=(5, 5)))[0], np.array([30.0, 8.0, 2.0, 0.5, 0.01]), 0.1
    U *= np.where(U.sum(0) < 0, -1, 1)

    def responses(strengths):
        kernel = U * strengths @ U.T
        return np.asarray(ntk.ridge_optimum((kernel + kernel.T) / 2, ridge).response(U))

    kernel = U * strengths @ U.T
    table = np.asarray(ntk.starvation_derivatives((kernel + kernel.T) / 2, ridge))
    for i in range(5):
        step = 1e-4 * strengths[i] * np.eye(5)[i]
        slope = (responses(strengths + step) - responses(strengths - step)) / (2 * step[i])
        np.testing.assert_allclose(table[:, i], slope, rtol=1e-5, atol=1e-7)
    found, features = ntk.features((kernel + kernel.T) / 2)
    np.testing.assert_allclose(found, strengths, rtol=1e-12)
    np.testing.assert_allclose(features, U, atol=1e-12)
    assert (table < 0).any()


@pytest.mark.slow
def test_flows_inside_jit_and_their_derivatives():
    """Forward mode, against differences; strengths that are all equal, a ridge, and the dual as well."""
    rng, t = np.random.default_rng(12), np.array([0.3, 3.0])
    kernel, start = random_kernel(rng, 5, "wishart")[0], rng.normal(size=5)
    kernel *= 3 / np.abs(kernel).max()
    inside = jax.jit(jax.vmap(ntk.logistic_flow, (None, 0)))(kernel, t)
    np.testing.assert_allclose(inside, ntk.logistic_flow(kernel, t), atol=1e-10)
    equal, h = 2 * np.eye(5), 1e-5
    for function, at, along in (
        (lambda K: ntk.logistic_flow(K, t, start), kernel, equal),
        (lambda K: ntk.logistic_flow(K, t, start), equal, kernel),
        (lambda m: ntk.logistic_flow(kernel, t, m), start, np.ones(5)),
        (lambda t: ntk.logistic_flow(kernel, t), t, np.ones(2)),
        (lambda ridge: ntk.ridge_flow(kernel, ridge, t), np.array(0.3), np.array(1.0)),
        (lambda ridge: ntk.ridge_dual_flow(kernel, ridge, t), np.array(0.3), np.array(1.0)),
    ):
        slope = jax.jvp(function, (jnp.asarray(at),), (jnp.asarray(along),))[1]
        ends = [np.asarray(function(at + sign * h * along)) for sign in (1, -1)]
        np.testing.assert_allclose(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_second_derivatives_of_the_flows():
    """Forward mode, twice. One sample is the read-out (3.9) with p r^2 = K; for more, differences of the first ones."""
    at = jnp.array([1.3, 0.2, 3.0])
    one = jax.hessian(lambda x: one_layer_logit(x[0], 1.0, x[1], "cross-entropy", x[2]))(at)
    twice = jax.jit(jax.jacfwd(jax.jacfwd(lambda x: ntk.logistic_flow(x[:1, None], x[2], x[1:2])[0])))(at)
    np.testing.assert_allclose(twice, one, rtol=1e-9, atol=1e-11)
    # Late they are e^-m of what they could be the difference of, and right to their own size: dm/dm(0) = g(m)/g(m(0)).
    for dtype, t, tolerance in ((np.float32, 1e6, 1e-4), (np.float64, 1e6, 1e-6), (np.float64, 1e20, 1e-6)):
        start, t = dtype(0.2), dtype(t)
        late = jax.jacfwd(lambda m: ntk.logistic_flow(np.ones((1, 1), dtype), t, m[None])[0])  # noqa: B023
        exact = jax.grad(lambda m: one_layer_logit(1.0, 1.0, m, "cross-entropy", float(t)))  # noqa: B023
        assert float(late(start)) == pytest.approx(float(exact(float(start))), rel=tolerance)
        assert float(jax.jacfwd(late)(start)) == pytest.approx(float(jax.grad(exact)(float(start))), rel=tolerance)
    rng = np.random.default_rng(5)
    kernel, _ = random_kernel(rng, 3, "wishart")
    other, h = np.diag([1.0, 0.5, 2.0]), 1e-4

    def flows(x):
        moved = kernel + x[0] * other
        start = jnp.array([0.1, -0.2, 0.0]) + x[1]
        return jnp.concatenate([
            ntk.logistic_flow(moved, 2.0 + x[2], start),
            ntk.spectral_decoupling_flow(moved, 0.1 + x[1], 2.0 + x[2], start),
            ntk.ridge_flow(moved, 0.3 + x[1], 2.0 + x[2]),
            ntk.ridge_dual_flow(moved, 0.3 + x[1], 2.0 + x[2]),
        ])

    slope = jax.jit(jax.jacfwd(flows))
    bend = np.asarray(jax.jit(jax.jacfwd(jax.jacfwd(flows)))(jnp.zeros(3)))
    ends = [[np.asarray(slope(sign * h * unit)) for sign in (1, -1)] for unit in jnp.eye(3)]
    expected = np.stack([(ahead - back) / (2 * h) for ahead, back in ends], axis=-1)
    assert np.isfinite(bend).all()
    np.testing.assert_allclose(bend, expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())


@pytest.mark.slow
def test_derivatives_of_the_optimum():
    """By the implicit function theorem, in kernel and ridge, twice; against differences."""
    rng = np.random.default_rng(8)
    kernel, _ = random_kernel(rng, 5, "wishart")
    direction = rng.normal(size=(5, 5))
    direction += direction.T
    target = jnp.asarray(rng.normal(size=5))

    def value(s):
        return target @ ntk.ridge_optimum(kernel + s * direction, 0.3 + s).margins

    h = 1e-4
    first, second = jax.grad(value)(0.0), jax.grad(jax.grad(value))(0.0)
    ends = [float(value(s)) for s in (-h, 0.0, h)]
    assert float(first) == pytest.approx((ends[2] - ends[0]) / (2 * h), rel=1e-5)
    assert float(second) == pytest.approx((ends[2] - 2 * ends[1] + ends[0]) / h**2, rel=1e-3)
    slope = jax.grad(lambda p: ntk.spectral_decoupling_optimum(1, p)[0])(0.2)
    m = float(ntk.spectral_decoupling_optimum(1, 0.2)[0])
    assert float(slope) == pytest.approx(-m / (0.2 + sigmoid(m) * sigmoid(-m)), rel=1e-12)


def test_decoupled_margins_at_any_penalty():
    for penalty in 10.0 ** np.array([-300, -12, -3, 0, 2, 300]):
        m = float(ntk.spectral_decoupling_optimum(1, penalty)[0])
        with mpmath.workdps(340):
            # One Newton step on log m, with all digits.
            x = mpmath.mpf(m)
            off = mpmath.log(mpmath.mpf(penalty) * x) + mpmath.log(1 + mpmath.exp(x))
            assert float(abs(off / (1 + x / (1 + mpmath.exp(-x))))) < 1e-14


def test_features_of_a_kernel():
    strengths, U = ntk.features(np.diag([1.0, 3.0, 0.0]))
    np.testing.assert_allclose(strengths, [3, 1, 0], atol=1e-15)
    np.testing.assert_allclose(U, np.array([[0, 1, 0], [1, 0, 0], [0, 0, 1.0]]), atol=1e-15)
    kernel, _ = random_kernel(np.random.default_rng(9), 5, "wishart")
    strengths, U = map(np.asarray, ntk.features(kernel))
    np.testing.assert_allclose(U * strengths @ U.T, kernel, rtol=1e-12, atol=1e-12 * strengths[0])
    assert (U.sum(0) >= 0).all()
    assert (np.diff(strengths) <= 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ntk.logistic_flow(np.ones((2, 3)), 1.0), r"square matrix .* got shape \(2, 3\)"),
        (lambda: ntk.logistic_flow([[1.0, 2.0], [0.0, 1.0]], 1.0), r"symmetric, but K\[0, 1\] = 2 and K\[1, 0\] = 0"),
        (lambda: ntk.features([[1.0, 2.0], [2.0, 1.0]]), "positive semi-definite, but has the eigenvalue -1"),
        (lambda: ntk.features([[np.nan]]), r"K\[0, 0\] = nan is not finite"),
        (lambda: ntk.logistic_flow(np.eye(2), -1.0), "times must be finite and >= 0, got t = -1.0"),
        (lambda: ntk.logistic_flow(np.eye(2), 1.0, np.ones(3)), r"start of shape \(3,\) does not fit"),
        (lambda: ntk.ridge_optimum(np.eye(2), 0.0), "ridge must be > 0, got 0.0"),
        (lambda: ntk.ridge_optimum(np.eye(2), [1.0, 2.0]), r"ridge must be one number, got shape \(2,\)"),
        (lambda: ntk.ridge_optimum(np.eye(2), 1.0).response(np.ones((3, 3))), r"n = 2 samples, got shape \(3, 3\)"),
        (lambda: ntk.ridge_dual_flow(np.eye(2), 1.0, 1.0, [0.5, 1.5]), "alpha must be between 0 and 1, got 1.5"),
        (lambda: ntk.spectral_decoupling_flow(np.eye(2), -1.0, 1.0), "penalty must be > 0, got -1.0"),
        (lambda: ntk.spectral_decoupling_optimum(0, 1.0), "n must be an integer >= 1, got 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.slow
def test_float32():
    kernel, time = random_kernel(np.random.default_rng(11), 5, "wishart")
    single, t = np.float32(kernel), np.float32(time) * np.float32([0.01, 1, 1e20])
    m = ntk.logistic_flow(single, t)
    assert m.dtype == np.float32
    np.testing.assert_allclose(m, ntk.logistic_flow(np.float64(single), np.float64(t)), rtol=1e-4, atol=1e-4)
    best = ntk.ridge_optimum(single, np.float32(0.01))
    np.testing.assert_allclose(best.margins, ntk.ridge_optimum(np.float64(single), 0.01).margins, rtol=1e-4)


def wide_gaps(width, seeds=4, steps=400):
    """How far networks of that width, trained by descent, are from the flow of their first kernel: max over time, [seeds].

    Five random points; weights of size width^-1/4, which makes outputs of order 1 and K of order sqrt(width); trained until
    K t is about 4 to 100 for its features, with a step size whose own error is below 2e-3.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(5, 4))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    y = np.array([1, -1, 1, 1, -1])
    scale = width**-0.25
    networks = gs.init_two_layer(jax.random.key(width), seeds, width, 4, scale, scale)
    step_size = 40.0 / width**0.5 / steps  # of the loss summed over points; a Dataset's is its mean
    descent = gs.GradientDescent(5 * step_size)
    run = gs.simulate(gs.Dataset(x, y), networks, "cross-entropy", descent, steps, record_every=steps // 20, progress=False)
    trained, gaps = np.asarray(run.margins()), []
    for k in range(seeds):
        network = jax.tree.map(lambda leaf: leaf[k], networks)  # noqa: B023
        kernel = jacobian.margin_kernel(lambda net, x: net(x), network, x, y)
        law = np.asarray(ntk.logistic_flow(kernel, step_size * np.asarray(run.grid), trained[k, 0]))
        gaps.append(np.abs(law - trained[k]).max())
    return np.array(gaps)


def test_a_wide_network_follows_its_kernel():
    """The same by hand: a kernel written out and descent in plain NumPy."""
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(5, 4)) / 2, np.array([1, -1, 1, 1, -1])
    gaps = []
    for width in (64, 4096):
        w, z = rng.normal(size=(width, 4)), rng.normal(size=width)
        active = x @ w.T > 0
        hidden = np.where(active, x @ w.T, 0)
        kernel = (hidden @ hidden.T + (x @ x.T) * ((active * z**2) @ active.T)) / width * np.outer(y, y)
        margins = [y * (hidden @ z) / width**0.5]
        for _ in range(400):
            push = y * sigmoid(-margins[-1]) * 0.05 / width**0.5  # step size 0.05
            active = x @ w.T > 0
            w, z = w + z[:, None] * ((push * active.T) @ x), z + push @ np.maximum(x @ w.T, 0)
            margins.append(y * (np.maximum(x @ w.T, 0) @ z) / width**0.5)
        law = np.asarray(ntk.logistic_flow(kernel, [5.0, 10.0, 20.0], margins[0]))
        gaps.append(np.abs(law - np.array(margins)[[100, 200, 400]]).max())
    assert 5e-3 < gaps[1] < 0.15  # more than rounding: what is compared is a network, not its linearisation
    assert gaps[1] < gaps[0] / 2


@pytest.mark.slow
def test_the_gap_shrinks_with_width():
    widths = np.array([64, 256, 1024, 4096])
    gaps = np.array([wide_gaps(width, 8, 1000).mean() for width in widths])
    slopes = [np.polyfit(np.log(widths[first:]), np.log(gaps[first:]), 1)[0] for first in (0, 1)]
    print(dict(zip(widths.tolist(), gaps.round(4).tolist(), strict=True)), "slopes", np.round(slopes, 3))
    assert (np.diff(gaps) < 0).all()
    assert -0.9 < slopes[0] < -0.45
    assert -0.7 < slopes[1] < -0.35
    assert gaps[-1] < 0.12


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_factor_of_a_kernel_of_few_features(dtype):
    """K = J J^T of a two-layer network in two dimensions: its strengths fall over many powers of ten, and rows depend on
    others nearly, at different times. Each product is to be right relative to the two rows."""
    rng = np.random.default_rng(4)
    x, w, z = rng.normal(size=(150, 2)) * np.exp(rng.normal(size=(150, 1))), rng.normal(size=(64, 2)), rng.normal(size=64)
    on = x @ w.T > 0
    rows = np.concatenate([on * (x @ w.T), *(on * z * x[:, [k]] for k in range(2))], axis=1)
    kernel = (rows @ rows.T).astype(dtype)
    columns = np.asarray(jax.jit(factor)(jnp.asarray(kernel)), np.float64)
    size = np.sqrt(np.diagonal(kernel).astype(np.float64))
    off = np.abs(columns @ columns.T - kernel) / np.outer(size, size)
    assert off.max() < 4 * len(x) * np.finfo(dtype).eps
    assert (np.abs(columns).max(axis=0) > 0).sum() < 100
