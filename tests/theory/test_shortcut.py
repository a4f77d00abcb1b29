"""A shortcut that contradicts the label on a minority (section 20), against SciPy and against sampled test points."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp
from scipy.optimize import brentq
from scipy.special import lambertw
from scipy.stats import norm

import gradstarve as gs
from gradstarve import theory
from gradstarve.problem import FlippedLabels, Focal, Loss, MarginShift, SpectralDecoupling, Temperature, datasets
from gradstarve.theory import minority_needed, shortcut


def sigmoid(m):
    return 1 / (1 + np.exp(-m))


def of_20_1(p, rc, rs, g, times, start=(0.0, 0.0)):
    """(a, b) of (20.1) by SciPy."""
    plus, minus = rc**2 + rs**2, rc**2 - rs**2

    def slope(t, m):
        x, y = p * g(m[0]), (1 - p) * g(m[1])
        return [plus * x + minus * y, minus * x + plus * y]

    run = solve_ivp(slope, (0, max(times)), start, "DOP853", t_eval=times, rtol=3e-14, atol=1e-15)
    return run.y.T


@pytest.mark.usefixtures("x64")
def test_curves_follow_20_1_and_equal_scales_are_two_clocks():
    times = np.array([0.01, 0.5, 3.0, 40.0])
    for p, rc, rs in ((0.9, 1.0, 2.5), (0.7, 1.0, 0.4)):
        law = shortcut(p, "cross-entropy", core=rc, shortcut=rs)
        m = of_20_1(p, rc, rs, lambda m: sigmoid(-m), times)
        np.testing.assert_allclose(law.margins(times), m, atol=1e-11)
        np.testing.assert_allclose(law.features(times), np.stack([m.sum(1), m[:, 0] - m[:, 1]], -1) / 2, atol=1e-11)
        np.testing.assert_allclose(law.error(times), sigmoid(-m) @ [p, 1 - p], atol=1e-11)
        np.testing.assert_allclose(law.loss(times), np.logaddexp(0, -m) @ [p, 1 - p], atol=1e-11)
        np.testing.assert_array_equal(law.mistakes(times), (m <= 0) @ np.array([p, 1 - p]))
    C = 2 * 1.3**2 * np.array([0.8, 0.2]) * times[:, None] + 1
    law = shortcut(0.8, "cross-entropy", core=1.3, shortcut=1.3)
    np.testing.assert_allclose(law.margins(times), C - lambertw(np.exp(C)).real, atol=1e-12)  # (20.2)
    goal = float(law.error(3.0))
    assert float(law.time_to_error(goal)) == pytest.approx(3.0, rel=1e-8)
    assert float(law.time_to_loss(float(law.loss(0.5)))) == pytest.approx(0.5, rel=1e-8)


@pytest.mark.usefixtures("x64")
def test_rests_of_losses_that_go_on_for_ever():
    """(20.3): the size of the shortcut is the power of time with which v_s gets to log(p/(1-p))/2, also with two layers."""
    p = 0.85
    end = np.log(p / (1 - p)) / 2
    for rs in (0.8, 1.0, 2.5):
        for loss, rate in (("cross-entropy", 1), (Focal(2.0), 3), (Temperature("exponential", 2.0), 0.5)):
            law = shortcut(p, loss, shortcut=rs)
            assert float(law.rest[1]) == pytest.approx(end / rate, abs=1e-12)
            assert float(law.rest[0]) == np.inf
        late = shortcut(p, "cross-entropy", shortcut=rs).features(1e30)
        assert float(late[1]) == pytest.approx(end, abs=1e-9)
    v = np.asarray(shortcut(p, "exponential", shortcut=0.6).features(np.geomspace(1e-2, 1e6, 9)))
    np.testing.assert_allclose(np.sinh(end - v[:, 1]), np.sinh(end) * np.exp(-0.36 * v[:, 0]), rtol=1e-9)  # the orbit
    several = shortcut([0.9, 0.7], "cross-entropy", shortcut=[1.0, 2.0], core=[1.0, 0.5])
    np.testing.assert_allclose(several.rest[2:], np.log([9, 7 / 3]) / 2, atol=1e-10)
    weighted = shortcut(p, "cross-entropy", weights=[0.5, 0.5])
    assert float(weighted.rest[1]) == pytest.approx(0, abs=1e-12)
    with pytest.raises(gs.HypothesisError, match="at most two layers"):
        _ = shortcut(p, "cross-entropy", depth=3, init=[0.1, 0.1]).rest


@pytest.mark.usefixtures("x64")
def test_hinge_and_squared_in_closed_form():
    """(20.4), and the squared loss, whose peak SciPy finds."""
    for p, rc, rs in ((0.9, 1.0, 0.5), (0.8, 1.0, 1.0), (0.7, 0.6, 1.5)):
        law = shortcut(p, "hinge", core=rc, shortcut=rs)
        plus, minus, lead = rc**2 + rs**2, rc**2 - rs**2, 2 * p - 1
        end = lead * rs**2 * minus / (plus * (rc**2 + lead * rs**2)) if rs < rc else 0
        peak = law.peak()
        assert peak.time[0] == pytest.approx(1 / (rc**2 + lead * rs**2), rel=1e-12)
        assert float(law.features(peak.time[0])[1]) == pytest.approx(peak.height[0], rel=1e-12)
        assert float(law.rest[1]) == pytest.approx(end, abs=1e-12)
        assert float(law.features(1e200)[1]) == pytest.approx(end, abs=1e-12)
        square = shortcut(p, "squared", core=rc, shortcut=rs)
        top, high = (x[0] for x in square.peak())

        def speed(t, p=p, rc=rc, rs=rs):
            a, b = of_20_1(p, rc, rs, lambda m: 1 - m, [t])[0]
            return p * (1 - a) - (1 - p) * (1 - b)

        assert brentq(speed, top / 2, 2 * top, xtol=1e-13) == pytest.approx(top, rel=1e-9)
        assert float(square.features(top)[1]) == pytest.approx(high, rel=1e-11)
        np.testing.assert_allclose(square.rest, [1, 0], atol=1e-12)
    equal = shortcut(0.8, "hinge", core=1.5, shortcut=1.5)  # peak (2p-1)/(2p) at 1/(2 p r^2), back to 0 at 1/(2(1-p) r^2)
    assert (equal.peak().time[0], equal.peak().height[0]) == pytest.approx((1 / (1.6 * 2.25), 0.6 / 1.6))
    back = 1 / (0.4 * 2.25)
    assert float(equal.features(back)[1]) == pytest.approx(0, abs=1e-12)
    assert float(equal.features(0.99 * back)[1]) > 1e-3


@pytest.mark.usefixtures("x64")
def test_the_peak_of_cross_entropy():
    law = shortcut(0.9, "cross-entropy", core=1.0, shortcut=1.5)
    time, height = (x[0] for x in law.peak())

    def speed(t):
        a, b = of_20_1(0.9, 1.0, 1.5, lambda m: sigmoid(-m), [t])[0]
        return 0.9 * sigmoid(-a) - 0.1 * sigmoid(-b)

    assert brentq(speed, time / 2, time * 2, xtol=1e-12) == pytest.approx(time, rel=1e-8)
    assert float(law.features(time)[1]) == pytest.approx(height, rel=1e-12)
    assert height > float(law.rest[1])
    rising = shortcut(0.9, "exponential").peak()  # its orbit only rises
    assert rising.time[0] == np.inf
    assert rising.height[0] == pytest.approx(np.log(9) / 2, rel=1e-9)


@pytest.mark.usefixtures("x64")
def test_descent_of_a_read_out_tends_to_the_law():
    """Descent with 256 to 4096 steps to one time, extrapolated to none: 1e-9 of the flow."""
    data, time = datasets.shortcut(0.8, core=1.0, shortcut=1.4), 3.0
    law = np.asarray(shortcut(0.8, "cross-entropy", core=1.0, shortcut=1.4).margins(time))
    table, gaps = [], []
    for level in range(5):
        steps = 256 << level
        dynamics = gs.GradientDescent(time / steps)
        start, how = gs.DeepReLU((np.zeros(2),)), {"record_every": steps, "progress": False}
        run = gs.simulate(data, start, "cross-entropy", dynamics, steps, **how)
        table.append(np.asarray(run.margins()[-1]))
        np.testing.assert_allclose(table[-1][2:], table[-1][:2], atol=1e-13)
        gaps.append(np.abs(table[-1][:2] - law).max())
    assert 1.9 < gaps[-2] / gaps[-1] < 2.1  # first order in the step size
    for order in range(1, 5):
        table = [fine + (fine - coarse) / (2**order - 1) for coarse, fine in pairwise(table)]
    np.testing.assert_allclose(table[0][:2], law, atol=1e-9)


class Pulled(Loss):
    """A loss of one's own with the rest `goal`: g = slope (goal - m) + cube (goal - m)^3."""

    goal: float
    slope: float
    cube: float

    def value(self, margin):
        return self.slope * (self.goal - margin) ** 2 / 2 + self.cube * (self.goal - margin) ** 4 / 4

    def residual(self, margin):
        return self.slope * (self.goal - margin) + self.cube * (self.goal - margin) ** 3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_any_loss_with_a_finite_rest_forgets_the_shortcut(every):
    """(20.5) on ten random losses, by SciPy's integration (of one, or of `every` one), and its failure without a minority
    and without a rest."""
    rng, p = np.random.default_rng(0), np.array([0.8, 0.2])
    losses = [Pulled(*rng.uniform(0.3, 2, 3)) for _ in range(4)]
    losses += [FlippedLabels("cross-entropy", share) for share in rng.uniform(0.05, 0.3, 2)]
    losses += [SpectralDecoupling("exponential", penalty) for penalty in rng.uniform(0.05, 0.5, 2)]
    losses += [MarginShift("squared", 0.7), FlippedLabels(Focal(1.0), 0.2)]
    for k, loss in enumerate(losses):
        g = jax.jit(lambda m, loss=loss: loss.residual(m))
        rest = brentq(lambda m, g=g: float(g(jnp.asarray(m))), 1e-3, 30, xtol=1e-14)
        law = shortcut(0.8, loss, core=1.0, shortcut=0.5 + 0.2 * k)
        np.testing.assert_allclose(law.rest, [rest, 0], atol=1e-10)
        if k == 0 or every:
            late = [2000.0 if k > 3 else 200.0]
            end = of_20_1(0.8, 1.0, 0.5 + 0.2 * k, lambda m, g=g: float(g(jnp.asarray(m))), late)[0]
            np.testing.assert_allclose(end, rest, atol=1e-9)
    # Without a minority the shortcut keeps its part r_s^2/(r_c^2 + r_s^2) of the margin, whatever the loss.
    alone = theory.feature_flow([[1, 1]], [1.0], "squared", scales=[1.0, 2.0]).features(1e3)
    np.testing.assert_allclose(alone, [0.2, 0.8], atol=1e-12)
    assert float(shortcut(0.8, "cross-entropy").features(1e30)[1]) > 0.6  # without a rest
    starved = theory.settled_features([[1, 0], [1, 1]], p, losses[4])  # the same loss starves a rare feature
    assert abs(float(starved[1])) < 1e-12
    slow = np.asarray(shortcut(0.8, losses[4], depth=2, init=[0.1, 0.1]).features([1e3, 4e3]))[:, 1]
    assert slow[0] / slow[1] == pytest.approx(4, rel=0.05)  # two layers forget it as 1/t


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    "loss",
    [
        *("cross-entropy", "hinge"),
        *(
            pytest.param(loss, marks=pytest.mark.slow)
            for loss in (FlippedLabels("cross-entropy", 0.1), Focal(2.0), MarginShift("hinge", 0.5))
        ),
    ],
)
def test_the_accuracy_of_cells_is_that_of_sampled_points(loss):
    """10^6 test points, within 4 standard errors, along re-weighted and deferred curves."""
    rng, sigma, count = np.random.default_rng(3), 0.7, 10**6
    r = np.array([1.0, 1.6])
    law = shortcut(0.9, loss, core=r[0], shortcut=r[1], weights=[(2.0, None), (None, [0.5, 0.5])])
    times = np.array([0.3, 2.0, 6.0])
    found, v = np.asarray(law.cell_accuracy(times, sigma)), np.asarray(law.features(times))
    side = np.where(rng.uniform(size=count) < 0.9, 1, -1)
    points = np.stack([np.full(count, r[0]), side * r[1]], -1) + sigma * rng.normal(size=(count, 2))
    right = points @ (v / r).T > 0
    for k, s in enumerate((1, -1)):
        mine = right[side == s]
        error = np.sqrt(found[:, k] * (1 - found[:, k]) / len(mine))
        assert (np.abs(mine.mean(0) - found[:, k]) < 4 * error + 1e-12).all()
    mean = np.asarray(law.average_accuracy(times, sigma))
    assert (np.abs(right.mean(0) - mean) < 4 * np.sqrt(mean * (1 - mean) / count)).all()
    np.testing.assert_allclose(law.worst_accuracy(times, sigma), found.min(-1))
    np.testing.assert_allclose(law.cell_accuracy(0.0, sigma), 0.5)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", pytest.param("cross-entropy", marks=pytest.mark.slow)])
def test_training_on_a_noisy_population(loss):
    """(20.6) against SciPy's quadrature over both directions of the noise."""
    p, r, sigma = np.array([0.9, 0.1]), np.array([1.0, 1.5]), 0.8
    law = shortcut(0.9, loss, core=r[0], shortcut=r[1], noise=sigma)
    signs = np.array([[1, 1], [1, -1]])

    def slope(t, v):
        w = v / r
        size, push = np.linalg.norm(w) + 1e-100, np.zeros(2)
        for share, s in zip(p, signs, strict=True):
            m = s @ v
            if loss == "hinge":  # E g and E xi g, by parts of the normal distribution
                far = (1 - m) / (sigma * size)
                mean, along = norm.cdf(far), -norm.pdf(far)
            else:
                both = [
                    quad(lambda x, m=m, k=k: norm.pdf(x) * x**k * sigmoid(-m - sigma * size * x), -9, 9, epsabs=1e-12)[0]
                    for k in (0, 1)
                ]
                mean, along = both
            push += share * r * (mean * s * r + sigma * along * w / size)
        return push

    run = solve_ivp(slope, (0, 8), [0.0, 0.0], "DOP853", t_eval=[1.0, 8.0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(law.features([1.0, 8.0]), run.y.T, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_when_to_stop_for_the_worst_cell():
    law = shortcut(0.95, "cross-entropy", core=1.0, shortcut=1.5, noise=0.6)
    stop = law.best_stop(200.0)
    grid = np.linspace(0.01, 200.0, 4001)
    worst = np.asarray(law.worst_accuracy(grid))
    assert stop.accuracy >= worst.max() - 1e-12
    assert stop.at_the_end == pytest.approx(worst[-1])
    sizes = [law.best_stop(200.0, noise).time for noise in (0.3, 1.5)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-3)  # the noise of the test samples does not move it


@pytest.mark.usefixtures("x64")
def test_questions_to_a_batch_are_those_to_each_of_its_problems():
    agreement, sides = np.array([[0.9], [0.8]]), np.array([[1.5], [0.7]])
    batch = shortcut(agreement, "hinge", shortcut=sides, weights=[(2.0, None), (None, [0.5, 0.5])])
    peak, stop = batch.peak(), batch.best_stop(9.0, [0.3, 0.5])
    times, changes = batch.time_to_loss([0.5, 0.2]), batch.changes(0.2)
    assert (peak.time.shape, stop.time.shape, times.shape, len(changes)) == ((2, 1), (2,), (2, 2), 2)
    for k, noise in enumerate((0.3, 0.5)):
        one = shortcut(agreement[k], "hinge", shortcut=sides[k], weights=[(2.0, None), (None, [0.5, 0.5])])
        np.testing.assert_allclose([peak.time[k], peak.height[k]], one.peak(), rtol=1e-12)
        np.testing.assert_allclose([x[k] for x in stop], one.best_stop(9.0, noise), rtol=1e-12)
        np.testing.assert_allclose(times[k], one.time_to_loss([0.5, 0.2]), rtol=1e-12)
        assert [c.what for c in changes[k]] == [c.what for c in one.changes(0.2)]
    empty = shortcut(np.zeros((0, 1)) + 0.9, "hinge")
    assert empty.peak().time.shape == (0, 1)
    assert empty.best_stop(9.0, 0.3).time.shape == (0,)
    assert empty.time_to_loss([0.5, 0.2]).shape == (0, 2)
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda p: jnp.asarray(shortcut(p, "hinge").peak().time))(0.9)


@pytest.mark.usefixtures("x64")
def test_the_peak_under_deferred_re_weighting():
    """The shortcut turns where the weights change, or later; it is found by the values along a fine grid."""
    for switch in (0.2, 1.0):
        law = shortcut(0.9, "cross-entropy", shortcut=1.5, weights=[(switch, None), (None, [0.3, 0.7])])
        grid = np.linspace(1e-3, 4, 2_001)
        v = np.asarray(law.features(grid))[:, 1]
        time, height = (x[0] for x in law.peak())
        assert v.max() <= height < v.max() + 1e-3
        assert time == pytest.approx(grid[v.argmax()], abs=2e-3)
    assert time == pytest.approx(1.0, rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_how_large_the_minority_has_to_be():
    share = float(minority_needed(0.9, 100.0, "cross-entropy"))
    assert share == pytest.approx((np.log(9) + 8) / 200, rel=1e-12)
    assert float(sigmoid(shortcut(1 - share, "cross-entropy").margins(100.0)[1])) == pytest.approx(0.9, rel=1e-10)
    other = float(minority_needed(0.8, 30.0, "cross-entropy", shortcut=2.0))
    b = of_20_1(1 - other, 1.0, 2.0, lambda m: sigmoid(-m), [30.0])[0, 1]
    assert sigmoid(b) == pytest.approx(0.8, rel=1e-7)
    noisy = float(minority_needed(0.8, 30.0, "hinge", shortcut=2.0, noise=0.5))
    law = shortcut(1 - noisy, "hinge", shortcut=2.0)
    assert float(law.worst_accuracy(30.0, 0.5)) == pytest.approx(0.8, abs=1e-6)
    assert np.isnan(float(minority_needed(0.9, 0.01, "cross-entropy")))


@pytest.mark.usefixtures("x64")
def test_several_shortcuts_and_the_order_in_which_features_change():
    law = shortcut([0.95, 0.8], "squared", core=0.5, shortcut=[1.5, 1.0])
    assert law.types.shape == (4, 3)
    np.testing.assert_allclose(law.population, [0.76, 0.19, 0.04, 0.01])
    peak = law.peak()
    for k in range(2):
        near = np.asarray(law.features(peak.time[k] * np.array([0.999, 1.0, 1.001])))[:, 1 + k]
        assert near[1] == pytest.approx(peak.height[k], rel=1e-10) == near.max()
    changes = law.changes(0.3)
    assert [(c.feature, c.what) for c in changes[:1]] == [(1, "learnt")]
    assert {(c.feature, c.what) for c in changes} >= {(1, "learnt"), (1, "unlearnt"), (0, "learnt")}
    for change in changes:
        assert float(law.features(change.time)[change.feature]) == pytest.approx(0.3, abs=1e-9)
    np.testing.assert_allclose(law.rest, [1, 0, 0], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_two_layer_networks_by_events():
    """The hinge loss on a whole two-layer network, event by event: its neurons see one class of the mirrored data each, and
    those of one class move by one boost (10.7) until the majority is learnt, which here is the law of all of them."""
    data = datasets.shortcut(0.8, core=1.5, shortcut=0.5)
    assert data.separability().orthogonally_separable
    rng = np.random.default_rng(0)
    half = np.abs(rng.normal(size=(3, 2))) * 0.05 * [1, 0.1]
    w, z = np.concatenate([half, -half]), np.repeat([1.0, -1.0], 3) * np.tile(np.abs(rng.normal(size=3)) * 0.05, 2)
    run = gs.simulate_hinge_exact(data, gs.TwoLayerReLU(w, z))
    law = theory.shared_features([[1, 1], [1, -1]], [0.4, 0.1], half, z[:3], "hinge", scales=[1.5, 0.5])
    times = np.array([1.0, 3.0, 5.0, 400.0])
    m = np.asarray(run.margins(times))
    np.testing.assert_allclose(m[:, :2], np.asarray(law.features(times)) @ np.array([[1, 1], [1, -1]]).T, atol=1e-8)
    np.testing.assert_allclose(m[:, 2:], m[:, :2], atol=1e-9)
    assert (m[-1] >= 1 - 1e-9).all()


def test_data_and_bad_arguments():
    data = datasets.shortcut(0.75, core=1.0, shortcut=2.0, mirrored=False)
    np.testing.assert_array_equal(data.points, [[1, 2], [1, -2]])
    for given, text in (
        ((1.0,), "agreement must be below 1"),
        ((0.0,), "agreement must be > 0"),
        (([0.9] * 6,), "at most 6 features"),
    ):
        with pytest.raises(ValueError, match=text):
            datasets.shortcut(*given)
        with pytest.raises(ValueError, match=text):
            shortcut(*given, "hinge")
    with pytest.raises(ValueError, match="weights must sum to 1"):
        shortcut(0.9, "hinge", weights=[0.5, 0.6])
    with pytest.raises(ValueError, match="noise must be given"):
        shortcut(0.9, "hinge").cell_accuracy(1.0)
    with pytest.raises(gs.HypothesisError, match="one layer"):
        shortcut(0.9, "cross-entropy", depth=2, init=[0.1, 0.1]).cell_accuracy(1.0, 0.5)
