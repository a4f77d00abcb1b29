"""Classes that are cones: bounds on training (3.12) against SciPy on all weights, and the law of the means on the points."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_descent import RESIDUALS, downhill
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve import theory
from gradstarve.problem import Loss

pytestmark = pytest.mark.usefixtures("x64")
TIMES = np.array([0.0, 1.0, 3.0, 6.0, 10.0, 16.0, 25.0, 60.0])


def trained(data, network, loss):
    """Margins at TIMES [times, n] of the flow of all weights."""
    shape = np.shape(network.w)

    def field(t, v):
        parts = downhill(RESIDUALS[loss], data, v[: -shape[0]].reshape(shape), v[-shape[0] :])
        return np.concatenate([np.ravel(part) for part in parts])

    start = np.concatenate([np.ravel(network.w), np.ravel(network.z)])
    found = solve_ivp(field, (0, TIMES[-1]), start, method="RK45", rtol=1e-9, atol=1e-13, t_eval=TIMES).y.T
    x, y = np.asarray(data.points), np.asarray(data.labels)
    return np.stack([y * (np.maximum(x @ v[: -shape[0]].reshape(shape).T, 0) @ v[-shape[0] :]) for v in found])


def cone(rng, axis, angle, count):
    """Points within `angle` of `axis`, their norms up to e^(angle/2) from 1."""
    off = rng.normal(size=(count, axis.size))
    off -= np.outer(off @ axis, axis)
    off /= np.linalg.norm(off, axis=1, keepdims=True)
    turn = angle * rng.random((count, 1))
    return (np.cos(turn) * axis + np.sin(turn) * off) * np.exp(angle / 2 * rng.uniform(-1, 1, (count, 1)))


def drawn(rng, losses):
    """A problem of one class, or of two whose neurons see one of them: (data, network, loss, angle)."""
    angle, scale = rng.choice([0.01, 0.05, 0.1, 0.2, 0.4, 0.6]), rng.choice([0.01, 0.1, 0.5])
    d, count, h = rng.integers(2, 6), rng.integers(1, 7), 8
    axis = np.eye(d)[0]
    points, labels = cone(rng, axis, angle, count), np.full(count, rng.choice([-1.0, 1.0]))
    w, z = scale * rng.normal(size=(h, d)), scale * rng.normal(size=h)
    if rng.random() < 0.5:
        points = np.concatenate([points, cone(rng, -axis, angle, 3)])
        labels = np.concatenate([labels, -np.full(3, labels[0])])
        # Exclusive neurons with a read-out of the right sign never come to see the other class.
        seen = w @ points.T > 0
        both = seen[:, labels > 0].any(1) & seen[:, labels < 0].any(1)
        w[both] = -axis if labels[-1] > 0 else axis
        seen = w @ points.T > 0
        z = np.abs(z) * np.where(seen[:, labels > 0].any(1), 1, -1)
    weights = rng.random(labels.size) + 0.2
    data = gs.Dataset(points, labels, weights / weights.sum())
    return data, gs.TwoLayerReLU(w, z), str(rng.choice(losses)), angle


@pytest.mark.parametrize("count", [6, pytest.param(500, marks=pytest.mark.slow)])
def test_the_bounds_are_never_violated(count):
    rng, widths = np.random.default_rng(0), {}
    for number in range(count):
        data, network, loss, angle = drawn(rng, ["cross-entropy"] if count < 100 else ["cross-entropy", "exponential"])
        bounds = theory.cone_bounds(data, network, loss)
        low, high, truth = bounds.lower(TIMES), bounds.upper(TIMES), trained(data, network, loss)
        slack = 1e-7 * (1 + np.abs(truth))
        assert (low <= truth + slack).all(), (number, angle, loss)
        assert (truth <= high + slack).all(), (number, angle, loss)
        if truth[4].min() > 0.1:
            widths.setdefault(angle, []).append(float(np.max((high - low)[4] / truth[4])))
    if count > 100:
        print("width over margin at t = 10, median:", {angle: np.median(found) for angle, found in sorted(widths.items())})
        assert np.median(widths[0.01]) < 0.1 < np.median(widths[0.6])


def test_a_neuron_that_sleeps_on_one_point_may_stand_still():
    """The heavy point falls asleep first; the light one hardly pushes, and its margin stays where it is."""
    points = [[0.3, 0.45], [1.0, 0.0]]
    data = gs.Dataset(points, [1, 1], [0.02, 0.98])
    network = gs.TwoLayerReLU([np.linalg.solve(points, [1.0, 1.0])], [-2.0])
    truth = trained(data, network, "cross-entropy")
    assert (theory.cone_bounds(data, network).lower(TIMES) <= truth + 1e-7).all()


@pytest.mark.slow
def test_hinge_rests_between_the_bounds():
    rng = np.random.default_rng(3)
    data = gs.Dataset(cone(rng, np.eye(3)[0], 0.1, 5), np.ones(5))
    network = gs.TwoLayerReLU([[0.3, 0.1, 0.0], [0.2, 0.0, 0.1]], [0.2, 0.1])
    bounds = theory.cone_bounds(data, network, "hinge")
    run = gs.simulate_hinge_exact(data, network, TIMES)
    assert (bounds.lower(TIMES) <= run.recorded + 1e-9).all()
    assert (run.recorded <= bounds.upper(TIMES) + 1e-9).all()


@pytest.mark.slow
def test_a_class_on_a_line_has_one_bound():
    """Also with neurons that die, turn, or see nothing."""
    data = gs.Dataset([[1.2, 0.0]], [-1])
    network = gs.TwoLayerReLU([[0.3, 1.0], [0.2, 0.0], [0.1, 0.0], [-0.3, 0.1]], [-0.1, 0.1, 0.2, 5.0])
    bounds, law = theory.cone_bounds(data, network), gs.solve(data, network)
    for bound in (bounds.lower(TIMES), bounds.upper(TIMES)):
        np.testing.assert_allclose(bound, law.margins(TIMES), rtol=1e-9)


def test_times_are_those_of_the_curves():
    data = gs.Dataset([[1.0, 0.1], [1.0, -0.1]], [1, 1])
    bounds = theory.cone_bounds(data, gs.TwoLayerReLU([[[0.3, 0.1], [0.2, 0.1]]], [[0.2, 0.3]]))
    early, late = bounds.times_to_margin([0.5, 1.0])
    assert early.shape == late.shape == (1, 2, 1)
    assert (early < late).all()
    np.testing.assert_allclose(bounds.upper(early[0, :, 0])[0, :, 0], [0.5, 1.0], rtol=1e-8)
    np.testing.assert_allclose(bounds.lower(late[0, :, 0])[0, :, 0], [0.5, 1.0], rtol=1e-8)
    assert float(bounds.times_to_margin(-5.0)[0].max()) == 0
    again = pickle.loads(pickle.dumps(bounds))
    np.testing.assert_array_equal(again.lower(TIMES[:2]), bounds.lower(TIMES[:2]))
    assert len(repr(bounds)) < 300


def test_the_error_of_the_law_of_the_means_is_of_second_order():
    """Half the angle, a quarter of the gap."""
    gaps = []
    for angle in (0.2, 0.1, 0.05):
        rng = np.random.default_rng(5)
        data = gs.Dataset(cone(rng, np.eye(3)[0], angle, 6), np.ones(6))
        network = gs.TwoLayerReLU([[0.3, 0.1, 0.0], [0.2, 0.0, 0.1]], [0.2, 0.1])
        law = gs.solve(data.means(), network).on(data)
        mean = np.asarray(law.margins(TIMES)).mean(-1), trained(data, network, "cross-entropy").mean(-1)
        gaps.append(np.abs(mean[0] - mean[1]).max())
        assert 0 < law.gap.angle <= angle * 1.5
    np.testing.assert_allclose(np.divide(gaps[:-1], gaps[1:]), 4, rtol=0.35)


def test_compare_tells_the_gap_of_the_data():
    rng = np.random.default_rng(1)
    points = np.concatenate([cone(rng, np.eye(3)[0], 0.1, 4), cone(rng, -np.eye(3)[0], 0.1, 4)])
    data = gs.Dataset(points, [1] * 4 + [-1] * 4)
    means = data.means()
    np.testing.assert_allclose(means.points[0], points[:4].mean(0))
    network = gs.init_two_layer(jax.random.key(0), 3, 8, 3, 0.1, 0.1)
    flat = gs.Dataset(np.stack([points[:4].mean(0), -points[:4].mean(0)]), [1, -1])
    law = gs.solve(flat, network, "hinge", gs.GradientDescent(0.1)).on(data)
    found = gs.compare(law, gs.simulate(data, network, "hinge", gs.GradientDescent(0.1), 60, record_every=20))
    assert 0 < found.gap < 0.5
    assert found.data_gap == law.gap
    assert f"The law is of nearby data: {law.gap}." in found.summary()
    np.testing.assert_allclose(law.logits(40), law.network(40)(data.points))
    assert law.error(40).shape == (3,)
    with pytest.raises(gs.HypothesisError, match="no closed form"):
        law.time_to_error(0.1)
    with pytest.raises(ValueError, match="class -1"):
        gs.solve(gs.Dataset([[1.0, 0.0, 0.0]], [1]), network, "hinge", gs.GradientDescent(0.1)).on(data)


class Rising(Loss):
    def value(self, margin):
        return -(margin**2) / 2

    def residual(self, margin):
        return jnp.maximum(margin, 0.1)


def test_mistakes_are_named():
    data = gs.Dataset([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]], [1, 1, -1])
    network = gs.TwoLayerReLU([[0.3, 0.1], [-0.2, 0.1]], [0.2, -0.3])
    cases = (
        (gs.Dataset([[1.0, 0.0], [0.0, 1.0]], [1, 1]), network, "hinge", "points 0 and 1 are at cos = 0"),
        (gs.Dataset([[1.0, 0.0], [0.5, 1.0]], [1, -1]), network, "hinge", "different classes are at no acute angle"),
        (gs.Dataset([[0.0, 0.0], [0.5, 1.0]], [1, -1]), network, "hinge", "point 0 is 0"),
        (data, gs.TwoLayerReLU([[-0.05, 1.0], [-0.2, 0.1]], [0.2, -0.3]), "hinge", "neuron 0 sees both"),
        (data, gs.TwoLayerReLU([[0.3, 0.0], [-0.2, 0.0]], [0.2, 0.3]), "hinge", "neuron 1 leaves class -1 and may come"),
        (data, gs.TwoLayerReLU([[0.3, 0.1]], [0.2], 0.1), "hinge", "slope = 0.1"),
        (data, network, "squared", "squared has g"),
        (data, network, Rising(), "Rising has g"),
        (data, gs.TwoLayerReLU([[0.3]], [0.2]), "hinge", "d = 1 inputs"),
        ("digits", network, "hinge", "data must be a Dataset"),
        (gs.Dataset([[1.0], [-1.0]], [1, 1]), None, None, "a mean of length 0"),
    )
    for some, net, loss, message in cases:
        with pytest.raises(ValueError, match=message):
            theory.cone_bounds(some, net, loss) if net is not None else some.means()
    bounds = theory.cone_bounds(data, network)
    for t in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="times must be finite"):
            bounds.lower(t)


def test_a_batch_has_the_bounds_of_each_network():
    """Networks with neurons of the wrong sign between others, which are solved at once."""
    rng = np.random.default_rng(7)
    data = gs.Dataset(cone(rng, np.eye(3)[0], 0.1, 4), np.ones(4))
    w, z = rng.uniform(0.1, 0.5, (5, 2, 3)), rng.uniform(0.1, 0.5, (5, 2))
    w[..., 1:] *= 0.1
    z[[1, 3], 0] = -0.05
    both = theory.cone_bounds(data, gs.TwoLayerReLU(w, z))
    for b in (0, 1, 4):
        one = theory.cone_bounds(data, gs.TwoLayerReLU(w[b], z[b]))
        for ask in ("lower", "upper"):
            np.testing.assert_allclose(getattr(both, ask)(TIMES)[b], getattr(one, ask)(TIMES), rtol=1e-12)


def test_the_late_bound_is_the_tighter_one_late():
    """Narrow cones: without it the lower bound falls behind as the clocks of the two norms part."""
    rng = np.random.default_rng(8)
    data = gs.Dataset(cone(rng, np.eye(3)[0], 0.05, 5), np.ones(5))
    network = gs.TwoLayerReLU([[0.3, 0.01, 0.0], [0.2, 0.0, 0.01]], [0.2, 0.1])
    bounds = theory.cone_bounds(data, network)
    ((group,),) = bounds.classes
    first = np.asarray(group.bounds.low.at(group.bounds.high.clock(np.array([[1e3]]))))[0]
    late, truth = bounds.lower(1e3).min(), trained(data, network, "cross-entropy")
    assert first < late < bounds.upper(1e3).max()
    assert (bounds.lower(TIMES) <= truth + 1e-7).all()
