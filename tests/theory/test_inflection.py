"""Inflections of the error against mpmath and against the curves themselves (5.1)-(5.3)."""

import jax
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import error_inflections, kappa_critical, plateau_length

LOSSES = ["cross-entropy", "hinge", "exponential", "squared"]
RESIDUALS = {
    "cross-entropy": lambda u: 1 / (1 + mp.exp(u)),
    "exponential": lambda u: mp.exp(-u),
    "squared": lambda u: 1 - u,
    "hinge": lambda u: mp.mpf(1),
}


def speed(loss, kappa):
    """-de/dt / (2 p r) as a function of u."""
    return lambda u: mp.exp(u) / (1 + mp.exp(u)) ** 2 * RESIDUALS[loss](u) * mp.sqrt(kappa**2 + u * u)


def by_scanning(loss, kappa, low, high, count=400):
    """All sign changes of the derivative of the speed in (low, high), refined."""
    slope = lambda u: mp.diff(speed(loss, kappa), u)  # noqa: E731
    grid = [low * (mp.mpf(high) / low) ** (mp.mpf(k) / count) for k in range(count)]  # as fine at 0 as far from it
    values = [slope(u) for u in grid]
    pairs = [(grid[i], grid[i + 1]) for i in range(len(grid) - 1) if values[i] * values[i + 1] < 0]
    return [float(mp.findroot(slope, pair, solver="anderson", tol=1e-25)) for pair in pairs]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_every_inflection_is_found_and_no_other(loss):
    top = {"cross-entropy": 6, "exponential": 6, "hinge": 1, "squared": 1}[loss]
    for kappa in (0.05, 0.3, 0.55, 0.7, 1.1, 1.2, 1.5):
        with mp.workdps(30):
            expected = by_scanning(loss, mp.mpf(kappa), mp.mpf(10) ** -4, top)
        found = np.asarray(error_inflections(kappa, loss))
        if loss == "hinge":
            assert found[0] == 0
            found = found[1:]
        np.testing.assert_allclose(found[np.isfinite(found)], expected, rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_constants_of_5_2_to_ten_digits():
    with mp.workdps(30):
        balanced = mp.findroot(lambda u: u * (3 / (1 + mp.exp(-u)) - 1) - 1, 0.9)
        level = lambda u: u / (3 / (1 + mp.exp(-u)) - 1) - u * u  # noqa: E731
        critical = mp.sqrt(level(mp.findroot(lambda u: mp.diff(level, u), 0.4)))
    assert float(balanced) == pytest.approx(0.8883679076, abs=1e-10)
    assert float(critical) == pytest.approx(0.5852119534, abs=1e-10)
    found = error_inflections(0.0, "cross-entropy")
    assert float(found[0]) == pytest.approx(float(balanced), rel=1e-14)
    assert np.isinf(found[1])
    assert kappa_critical() == pytest.approx(float(critical), rel=1e-14)
    assert 1 / (1 + np.exp(float(found[0]))) == pytest.approx(0.2914467488, abs=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "exponential", "squared"])
def test_two_below_the_critical_kappa_and_none_above(loss):
    critical = kappa_critical(loss)
    below, above = np.asarray(error_inflections(critical * np.array([1 - 1e-9, 1 + 1e-9]), loss))
    assert below[0] < below[1] < 2
    assert below[1] - below[0] < 1e-3
    assert np.isinf(above).all()


@pytest.mark.usefixtures("x64")
def test_extreme_kappa():
    found = np.asarray(error_inflections([1e-300, 1e-100, 1e-8, 1e8, 1e300], "cross-entropy"))
    # For small kappa: K(u) = 2 u + ..., so the lower one is at kappa^2/2.
    np.testing.assert_allclose(found[1:3, 0], [5e-201, 5e-17], rtol=1e-12)
    np.testing.assert_allclose(found[:3, 1], float(error_inflections(0.0, "cross-entropy")[0]), rtol=1e-12)
    assert np.isinf(found[3:]).all()


def test_float32_keeps_its_digits():
    kappa = np.array([0.0, 0.1, 0.5, 0.7], np.float32)
    found = error_inflections(kappa, "cross-entropy")
    assert found.dtype == np.float32
    with jax.enable_x64(True):
        exact = np.asarray(error_inflections(kappa.astype(np.float64), "cross-entropy"))
    np.testing.assert_allclose(found, exact, rtol=2e-5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_slope_in_kappa(loss):
    for kappa in (0.2, 0.45, 1.2):
        found = np.asarray(error_inflections(kappa, loss))
        for k in np.flatnonzero(np.isfinite(found) & (found > 0)):
            ours = float(jax.grad(lambda x, k=k: error_inflections(x, loss)[k])(kappa))
            step = 1e-6
            ends = [float(error_inflections(kappa + s, loss)[k]) for s in (step, -step)]
            assert ours == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_curves_bend_where_the_solution_says(loss):
    # A start below 0 with a neuron that leaves, one from the plateau, and a lazy one.
    a = np.array([[1.3, 0.9, 0.0], [1e-2, 2e-2, 1e-2], [1.2, 0.9, 0.4]])
    z = np.array([[-1.25, -1.6, 0.1], [1e-2, 1e-2, 3e-2], [-0.3, 0.2, 0.3]])
    solution = gs.solve_mode(gs.Mode(0.5, 1.0, a, z), loss)
    times = np.asarray(solution.inflections())
    np.testing.assert_array_equal(times, np.sort(times, axis=-1))
    grid = np.linspace(0, 30, 6001)
    bends = 0
    for mode in range(3):
        error = np.asarray(solution.error(grid))[mode]
        second = np.diff(error, 2)
        flips = grid[1:-2][second[:-1] * second[1:] < 0]
        # A death and the margin are kinks of their own, and where nothing moves any more there is only rounding.
        events = np.asarray(solution.events)[mode]
        kinks = np.append(events[np.isfinite(events)], float(np.asarray(solution.time_to_logit(1 - 1e-9))[mode]))

        def clear(values, kinks=kinks, second=second):
            speed = np.interp(values, grid[1:-1][10:], np.abs(second)[10:] + np.abs(second)[:-10])
            return values[(np.abs(values[:, None] - kinks).min(axis=1) > 0.05) & (speed > 1e-9) & (values < 29)]

        ours = times[mode][np.isfinite(times[mode])]
        np.testing.assert_allclose(clear(ours), clear(flips), atol=0.011)
        bends += len(clear(ours))
    assert bends >= 2


@pytest.mark.usefixtures("x64")
def test_a_start_on_the_stable_manifold():
    # z = -a: u = -r a^2 exp(-2 p r t) with hinge, which bends where coth(u/2) = u on its way to 0.
    p, r, a = 0.25, 5.0, 2.0
    u = float(mp.findroot(lambda u: mp.coth(u / 2) - u, -1.5))
    times = gs.solve_mode(gs.Mode(p, r, [a], [-a]), "hinge").inflections()
    np.testing.assert_allclose(times, [np.log(r * a**2 / -u) / (2 * p * r), np.inf, np.inf], rtol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_plateau_lasts_as_long_as_5_3_says(loss):
    start, p, r = 1e-12, 0.3, 1.7
    length = float(plateau_length(p, r, start, loss))
    assert length == pytest.approx(np.log(1 / start) / (p * r) / (1 if loss == "cross-entropy" else 2), rel=1e-14)
    a = np.sqrt(start / r)
    solution = gs.solve_mode(gs.Mode(p, r, [a], [a]), loss)
    assert float(solution.logit(length / 2)) == pytest.approx(np.sqrt(start), rel=1e-5)
    assert 0.3 < float(solution.logit(length)) <= 1.0 + 1e-9


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"kappa must be >= 0, got -1\.0"):
        error_inflections([0.5, -1.0], "hinge")
    with pytest.raises(ValueError, match="kappa"):
        error_inflections(float("nan"), "hinge")
    with pytest.raises(ValueError, match="unknown loss 'mse'"):
        error_inflections(0.1, "mse")
    with pytest.raises(gs.HypothesisError, match="hinge"):
        kappa_critical("hinge")
    with pytest.raises(ValueError, match=r"start must be below 1, got 2\.0"):
        plateau_length(0.5, 1.0, 2.0, "hinge")
    with pytest.raises(ValueError, match="start must be > 0"):
        plateau_length(0.5, 1.0, 0.0, "hinge")
