"""The starving pair (10.2)-(10.6) against mpmath: (10.2) from its Lambert W, (10.3)-(10.5) from roots and integrals."""

import jax
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve.theory import starving_pair

RNG = np.random.default_rng(0)


def exact(p, both, first, second, t):
    """(v_1, v_2) for the exponential loss with one layer, from W with the digits that its cancellations cost."""
    p, both, first, second, t = (mp.mpf(float(x)) for x in (p, both, first, second, t))
    q = p / both
    with mp.workdps(60):
        steep = q * mp.exp(second)
        # The integral of e^(v_1 + v_2) dv_2 along v_1 = v_10 + (v_2 - v_20) + q (e^v_2 - e^v_20).
        level = q * p * t * mp.exp(second - first) + steep - 1
        w = mp.lambertw(level * mp.exp(steep - 1)).real
        rare = mp.log((1 + w) / q)
        return first + rare - second + q * (mp.exp(rare) - mp.exp(second)), rare


def instances(count, top):
    for k in range(count):
        q = 10 ** RNG.uniform(-6, 6)
        start = (0.0, 0.0) if k % 2 else tuple(RNG.uniform(0, 2, 2))
        yield q / (1 + q), 1 / (1 + q), start, np.append(10 ** RNG.uniform(-9, top, 5), [0.0, 1e-12, 10.0**top])
    # Much more of feature 1: the argument of W is next to e^(q - 1) q for all early times.
    yield 1 - 1e-4, 1e-4, (0.0, 0.0), np.array([1e-6, 1.0, 10.0**top])


@pytest.mark.slow
def test_the_oracle_solves_the_equations():
    p, both = 0.6, 0.4
    slope = lambda t, v: [p * mp.exp(-v[0]) + both * mp.exp(-v[0] - v[1]), both * mp.exp(-v[0] - v[1])]  # noqa: E731
    run = mp.odefun(slope, 0, [mp.mpf("0.3"), mp.mpf("0.1")])
    for found, expected in zip(run(3), exact(p, both, 0.3, 0.1, 3), strict=True):
        assert float(found) == pytest.approx(float(expected), rel=1e-13)


@pytest.mark.parametrize(("dtype", "top", "tolerance"), [(np.float64, 300, 1e-12), (np.float32, 36, 2e-5)])
def test_exponential_loss_in_closed_form(dtype, top, tolerance):
    with jax.enable_x64(dtype is np.float64):
        for p, both, start, times in instances(6, top):
            p, both, first, second = (dtype(x) for x in (p, both, *start))
            times = times.astype(dtype)
            found = starving_pair(p, both, "exponential", init=(first, second)).features(times)
            expected = np.array([[float(v) for v in exact(p, both, first, second, t)] for t in times]).T
            assert found[0].dtype == found[1].dtype == dtype
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=1e-30, err_msg=f"{p}, {both}, {start}")


@pytest.mark.usefixtures("x64")
def test_slopes_of_the_closed_form():
    point = (0.3, 0.7, 0.4, 0.2, 5.0)

    def read(*x):
        return starving_pair(x[0], x[1], "exponential", init=(x[2], x[3])).features(x[4])[1]

    ours = jax.jit(jax.grad(read, argnums=tuple(range(5))))(*point)
    for k in range(5):
        theirs = mp.diff(lambda x, k=k: exact(*point[:k], x, *point[k + 1 :])[1], point[k], h=1e-5)
        assert float(ours[k]) == pytest.approx(float(theirs), rel=1e-7)
    # From rest: v_2 = p_12 t + ..., though no logarithm is defined there.
    assert float(jax.grad(lambda t: starving_pair(0.3, 0.7, "exponential").features(t)[1])(0.0)) == pytest.approx(0.7)


@pytest.mark.usefixtures("x64")
def test_many_pairs_at_once():
    p = np.array([[0.2, 0.5, 0.8]]).T
    times = np.array([0.0, 1.0, 1e10])
    first, second = starving_pair(p, 1 - p, "exponential").features(times)
    assert first.shape == second.shape == (3, 1, 3)
    for k in range(3):
        one = starving_pair(p[k, 0], 1 - p[k, 0], "exponential").features(times)
        np.testing.assert_allclose([first[k, 0], second[k, 0]], one, rtol=1e-15)


@pytest.mark.usefixtures("x64")
def test_hinge_freezes():
    p = RNG.uniform(0.05, 0.95, 6)
    pair = starving_pair(p, 1 - p, "hinge")
    time, value = pair.freeze
    np.testing.assert_allclose(time, 1 / (p + 2 * (1 - p)), rtol=1e-14)
    np.testing.assert_allclose(value, 1 / (2 + p / (1 - p)), rtol=1e-14)
    late = np.max(time) * np.array([1.0001, 3.0, 1e300])
    first, second = pair.features(late)
    np.testing.assert_allclose(second, np.repeat(value[:, None], 3, axis=1), rtol=1e-14)
    # Feature 1 goes on to its margin; alone feature 2 would have reached it: index 1 - 1/(2+q).
    np.testing.assert_allclose(first[:, -1], 1, rtol=1e-14)
    np.testing.assert_allclose(np.asarray(pair.index(late))[..., -1], [np.zeros(6), 1 - value], atol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [2, 5])
def test_hinge_freezes_at_any_depth(depth):
    p, both, first, second = 0.6, 0.4, 0.01, 0.03
    time, value = starving_pair(p, both, "hinge", depth=depth, init=(first, second)).freeze
    phi = lambda a, b: mp.quad(lambda v: v ** (mp.mpf(2) / depth - 2), [a, b])  # noqa: E731
    # Both move at constant speeds in phi until their sum is 1.
    expected = mp.findroot(lambda v: phi(first, 1 - v) - (1 + p / both) * phi(second, v), (second, 0.2), solver="anderson")
    assert float(value) == pytest.approx(float(expected), rel=1e-11)
    assert float(time) == pytest.approx(float(phi(second, expected) / (depth * both)), rel=1e-11)
    late = starving_pair(p, both, "hinge", depth=depth, init=(first, second)).features([float(time), 1e300])
    np.testing.assert_allclose(late[1], value, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_exponential_loss_at_depth_2_obeys_its_relation():
    """(10.5) with mpmath's Ei, at times that no integration in t would reach."""
    p, both, first, second = 0.3, 0.7, 1e-3, 4e-3
    pair = starving_pair(p, both, "exponential", depth=2, init=(first, second))
    step = 1e-4
    times = np.array([0.5, 3.0, 10.0 - step, 10.0, 10.0 + step, 1e3, 1e30, 1e300])
    found = np.asarray(pair.features(times))
    for v1, v2 in found.T:
        right = mp.log(v2 / second) + p / both * (mp.ei(v2) - mp.ei(second))
        assert float(mp.log(v1 / first)) == pytest.approx(float(right), rel=1e-11)
    # And the speed: dv_1/dt = 2 v_1 (p_1 e^-v_1 + p_12 e^-(v_1 + v_2)).
    v1, v2 = found[:, 3]
    speed = (found[0, 4] - found[0, 2]) / (2 * step)
    assert speed == pytest.approx(2 * v1 * (p * np.exp(-v1) + both * np.exp(-v1 - v2)), rel=1e-6)
    # There the lower bound is the solution.
    least, most = np.asarray(pair.bounds(times))
    np.testing.assert_allclose(least, found[1], rtol=1e-9)
    assert (most > found[1]).all()


@pytest.mark.usefixtures("x64")
def test_the_two_bounds_of_one_layer():
    for p, start in ((0.02, (0.0, 0.0)), (0.6, (0.0, 0.0)), (0.98, (0.3, 0.5))):
        q = p / (1 - p)
        times = np.array([1e-8, 0.1, 3.0, 1e4, 1e100, 1e300])
        pair = starving_pair(p, 1 - p, "cross-entropy", init=start)
        v1, v2 = np.asarray(pair.features(times))
        least, most = np.asarray(pair.bounds(times))
        assert (least <= v2 * (1 + 1e-11)).all()
        assert (v2 <= most * (1 + 1e-11)).all()
        assert (least[2:] < v2[2:] * (1 - 1e-6)).all()  # and they are not the same thing
        assert (v2[2:] < most[2:] * (1 - 1e-6)).all()
        if start == (0.0, 0.0):
            np.testing.assert_allclose(most, v1 / (1 + q), rtol=1e-14)
            with mp.workdps(400):
                below = [v + q - mp.lambertw(q * mp.exp(q + v)).real for v in map(mp.mpf, map(float, v1))]
            np.testing.assert_allclose(least, [float(v) for v in below], rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_bounds_and_ceiling_of_deep_paths():
    p, both, start = 0.4, 0.6, 0.05
    pair = starving_pair(p, both, "cross-entropy", depth=3, init=(start, start))
    times = np.array([1.0, 20.0, 1e3, 1e300])
    v1, v2 = np.asarray(pair.features(times))
    least, most = np.asarray(pair.bounds(times))
    assert (least <= v2 * (1 + 1e-9)).all()
    assert (v2 <= most * (1 + 1e-9)).all()
    assert float(pair.ceiling) == pytest.approx(start * (1 + both / p) ** 3, rel=1e-13)
    assert most[-1] <= float(pair.ceiling)
    assert v1[-1] > 600 > 1 > v2[-1]
    np.testing.assert_allclose(starving_pair(p, both, "hinge", depth=2, init=(start, start)).ceiling, np.inf)
    # Feature 2 so far ahead at the start that phi's bound does not hold it.
    assert np.isinf(float(starving_pair(p, both, "hinge", depth=3, init=(start, 1.0)).ceiling))


@pytest.mark.usefixtures("x64")
def test_squared_loss_unlearns_feature_2():
    """With one layer v_2 rises and falls back to 0: feature 1 explains everything."""
    p = 0.3
    times = np.array([0.0, 1.0, 5.0, 20.0])
    run = solve_ivp(
        lambda t, v: [p * (1 - v[0]) + (1 - p) * (1 - v[0] - v[1]), (1 - p) * (1 - v[0] - v[1])],
        (0, 20),
        [0, 0],
        "DOP853",
        t_eval=times,
        rtol=1e-13,
        atol=1e-15,
    )
    pair = starving_pair(p, 1 - p, "squared")
    np.testing.assert_allclose(pair.features(times), run.y, atol=1e-12)
    np.testing.assert_allclose(np.asarray(pair.features(1e300 * times))[:, 1:], [[1] * 3, [0] * 3], atol=1e-14)
    least, most = pair.bounds(times)
    assert (np.asarray(least) == 0).all()
    assert (run.y[1] <= np.asarray(most) + 1e-14).all()


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"p_both must be > 0, got 0\.0"):
        starving_pair(0.5, 0.0, "hinge")
    with pytest.raises(ValueError, match="depth = 3 needs init"):
        starving_pair(0.5, 0.5, "hinge", depth=3)
    with pytest.raises(ValueError, match=r"init, v_2 must be > 0, got 0\.0"):
        starving_pair(0.5, 0.5, "hinge", depth=2, init=(0.1, 0.0))
    with pytest.raises(ValueError, match=r"init must be a pair \(v_1, v_2\), got 0\.1"):
        starving_pair(0.5, 0.5, "hinge", depth=2, init=0.1)
    with pytest.raises(ValueError, match=r"init, v_2 must be at least .* for depth = 3 in float32, got 1e-20"):
        starving_pair(0.5, 0.5, "hinge", depth=3, init=(0.1, 1e-20))
    with pytest.raises(gs.HypothesisError, match="cross-entropy"):
        _ = starving_pair(0.5, 0.5, "cross-entropy").freeze
    with pytest.raises(gs.HypothesisError, match=r"v_2\(0\) = -0\.5"):
        starving_pair(0.5, 0.5, "exponential", init=(0.0, -0.5)).bounds(1.0)
    with pytest.raises(ValueError, match="times must be finite"):
        starving_pair(0.5, 0.5, "exponential").features(float("nan"))
