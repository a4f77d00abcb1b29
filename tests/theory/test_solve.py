"""`solve` against training: equality for descent, closeness for the flow, and errors that say what fails and where."""

from functools import cache

import jax
import numpy as np
import pytest

import gradstarve as gs

LOSSES = ["cross-entropy", "hinge", "exponential", "squared"]
# Compiling is most of what these tests cost, so that they share 16 networks of 8 neurons and 7 times where they can.
TIMES = np.linspace(0, 12, 7)


def problem(geometry, batch=16, width=8, scale=0.3, dim=5):
    keys = jax.random.split(jax.random.key(0), 3)
    data = getattr(gs.datasets, geometry)(dim, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=keys[0])
    network = gs.init_two_layer(keys[1], batch, width, dim, scale, scale)
    return data, network if geometry == "antipodal" else gs.exclusive(data, network, keys[2])


@cache  # under the fixture of every test that asks for it, so in 64 bits
def flow_law(geometry, loss="cross-entropy"):
    return gs.solve(*problem(geometry), loss)


def plain_descent(data, network, loss, step_size, steps):
    """Full-network descent in NumPy, gradients by hand; logits after every step, [batch, steps + 1, n]."""
    x, y, q = (np.asarray(v) for v in (data.points, data.labels, data.weights))
    w, z = np.asarray(network.w), np.asarray(network.z)
    logits = []
    for _ in range(steps + 1):
        hidden = np.einsum("bhd,nd->bhn", w, x)
        active = hidden > 0
        f = np.einsum("bh,bhn->bn", z, hidden * active)
        logits.append(f)
        m = y * f
        pull = {"cross-entropy": 1 / (1 + np.exp(m)), "hinge": (m < 1) * 1.0, "exponential": np.exp(-m), "squared": 1 - m}
        c = q * pull[loss] * y
        grad_w = np.einsum("bn,bh,bhn,nd->bhd", c, z, active, x)
        z = z + step_size * np.einsum("bn,bhn->bh", c, hidden * active)
        w = w + step_size * grad_w
    return np.stack(logits, axis=1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_descent_is_an_equality(geometry, loss):
    data, network = problem(geometry, scale=0.4)
    law = gs.solve(data, network, loss, gs.GradientDescent(0.3))
    trained = plain_descent(data, network, loss, 0.3, 200)
    assert np.abs(np.asarray(law.logits(np.arange(201))) - trained).max() <= 1e-12


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_descent_of_512_full_networks_over_10_000_steps(geometry):
    data, network = problem(geometry, 512, 32, scale=0.15)
    trajectory = gs.simulate(data, network, "cross-entropy", gs.GradientDescent(0.3), 10_000, record_every=200)
    law = gs.solve(data, network, "cross-entropy", gs.GradientDescent(0.3))
    gaps = np.abs(np.asarray(law.logits(trajectory.grid)) - np.asarray(trajectory.logits())).max(axis=(1, 2))
    assert gaps.shape == (512,)
    assert gaps.max() <= 1e-10
    # The case is worth something only if neurons really die and change class in it.
    final = law.network(10_000)
    along = np.asarray(network.w) @ np.asarray(data.points).T, np.asarray(final.w) @ np.asarray(data.points).T
    assert ((along[0] > 0) != (along[1] > 0)).any(axis=(0, 1)).all()
    np.testing.assert_allclose(final.w, trajectory.final.w, atol=1e-11)
    np.testing.assert_allclose(final.z, trajectory.final.z, atol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_flow_of_256_antipodal_networks():
    data, network = problem("antipodal", 256, 16, dim=2)
    trained = gs.simulate_flow(data, network, "cross-entropy", TIMES, rtol=1e-12)
    law = gs.solve(data, network, "cross-entropy")
    assert np.abs(np.asarray(law.logits(TIMES)) - np.asarray(trained.logits())).max() <= 1e-8
    np.testing.assert_allclose(law.network(TIMES).w[:, -1], trained.final.w, atol=1e-8)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_flow_with_the_hinge_loss(geometry):
    """The other losses are those of the entries "clock" and "transfer"."""
    trained = gs.simulate_flow(*problem(geometry), "hinge", TIMES, rtol=1e-12)
    assert np.abs(np.asarray(flow_law(geometry, "hinge").logits(TIMES)) - np.asarray(trained.logits())).max() <= 1e-8


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_descent_tends_to_the_flow_at_first_order(geometry):
    data, network = problem(geometry)
    sizes, horizon = 0.1 / 2.0 ** np.arange(4), 8.0
    flow = np.asarray(flow_law(geometry).logits(TIMES))[:, horizon == TIMES][:, 0]
    gaps = []
    for size in sizes:
        step = round(horizon / size)
        law = gs.solve(data, network, "cross-entropy", gs.GradientDescent(size)).logits(step)
        gaps.append(np.sqrt(np.mean((np.asarray(law) - flow) ** 2)))
    slope = np.polyfit(np.log(sizes), np.log(gaps), 1)[0]
    assert slope == pytest.approx(1, abs=0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_classes_at_an_obtuse_angle_are_independent_modes():
    data = gs.Dataset([[1.0, 0.0], [-0.6, 0.8]], [1, -1], [0.4, 0.6])
    # Two right signs, one wrong sign that dies for ever (4.4), one neuron that sees nothing.
    network = gs.TwoLayerReLU([[0.5, -0.3], [-0.2, 0.4], [0.2, -0.9], [-0.5, -0.9]], [0.3, -0.2, -0.4, 0.7])
    times = np.linspace(0, 15, 6)
    trained = gs.simulate_flow(data, network, "hinge", times, rtol=1e-12)
    law = gs.solve(data, network, "hinge")
    assert np.abs(np.asarray(law.logits(times)) - np.asarray(trained.logits())).max() <= 1e-9
    np.testing.assert_allclose(law.network(times).w[-1], trained.final.w, atol=1e-9)


@pytest.mark.usefixtures("x64")
def test_one_class_alone_and_repeated_points():
    data = gs.Dataset([[0.6, 0.8], [0.6, 0.8]], [1, 1], [0.25, 0.75])
    network = gs.init_two_layer(jax.random.key(0), 5, 4, 2, 0.5, 0.5)
    law = gs.solve(data, network, "hinge", gs.GradientDescent(0.1))
    trained = plain_descent(data, network, "hinge", 0.1, 60)
    assert np.abs(np.asarray(law.logits(np.arange(61))) - trained).max() <= 1e-12


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_does_not_touch_the_data_does_not_move():
    data, network = problem("antipodal")
    later = flow_law("antipodal").network(TIMES)
    assert later.w.shape == (16, 7, 8, 5)
    np.testing.assert_allclose(later.w[:, 0], network.w, atol=1e-16)
    axis = np.asarray(data.points[0])
    axis = axis / np.linalg.norm(axis)
    off_axis = np.eye(5) - np.outer(axis, axis)
    np.testing.assert_allclose(np.asarray(later.w[:, -1]) @ off_axis, np.asarray(network.w) @ off_axis, atol=1e-15)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_the_rebuilt_network_gives_the_logits(geometry):
    data, network = problem(geometry)
    descent = gs.solve(data, network, "cross-entropy", gs.GradientDescent(0.2))
    for law, t in ((flow_law(geometry), TIMES), (descent, np.arange(0, 70, 10))):
        np.testing.assert_allclose(law.network(t)(data.points), law.logits(t), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_curves_of_the_classes_and_their_sums(loss):
    law = flow_law("antipodal", loss)
    t = TIMES[None]
    margins = np.asarray(law.margins(t))
    assert margins.shape == (16, 1, 7, 2)
    np.testing.assert_allclose(margins[..., 0], law.plus.logit(t))
    np.testing.assert_allclose(margins[..., 1], law.minus.logit(t))
    np.testing.assert_allclose(law.error(t), (np.array([0.3, 0.7]) / (1 + np.exp(margins))).sum(-1), rtol=1e-12)
    np.testing.assert_allclose(law.mistakes(t), (np.array([0.3, 0.7]) * (margins <= 0)).sum(-1))
    target = np.asarray(law.plus.time_to_logit(np.linspace(0.2, 0.8, 7)))[:, 3]
    reached = np.flatnonzero(np.isfinite(target))[:7]
    assert reached.size == 7
    np.testing.assert_allclose(np.asarray(law.plus.logit(target[reached]))[reached].diagonal(), 0.5, rtol=1e-9)


@pytest.mark.usefixtures("x64")
def test_descent_times_are_first_steps():
    data, network = problem("antipodal")
    law = gs.solve(data, network, "hinge", gs.GradientDescent(0.3))
    for curve in (law.plus, law.minus):
        steps = np.asarray(curve.time_to_logit([0.5, 5.0], max_steps=2000))
        logits = np.asarray(curve.logit(np.arange(2001)))
        first = [np.argmax(row >= 0.5) if (row >= 0.5).any() else np.inf for row in logits]
        np.testing.assert_array_equal(steps[:, 0], first)
        assert np.isinf(steps[:, 1]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_gradients_of_the_whole_solution_exist_and_are_right():
    data, network = problem("antipodal")

    def later(scale):
        scaled = gs.TwoLayerReLU(network.w * scale, network.z)
        return gs.solve(data, scaled, "hinge").logits(TIMES)[:, 3].sum()

    slope = float(jax.grad(later)(1.0))
    difference = (float(later(1 + 1e-6)) - float(later(1 - 1e-6))) / 2e-6
    assert np.isfinite(slope)
    assert slope == pytest.approx(difference, rel=1e-6)


def breach(data, network, dynamics=None, loss="cross-entropy"):
    with pytest.raises(gs.HypothesisError) as caught:
        gs.solve(data, network, loss, dynamics)
    error = caught.value
    assert "Use instead" in str(error)
    return error


def test_data_that_are_not_orthogonally_separable():
    data = gs.Dataset([[1.0, 0.0], [0.2, 1.0], [-1.0, 0.5]], [1, -1, -1])
    error = breach(data, gs.TwoLayerReLU([[1.0, 1.0]], [1.0]))
    assert "points 0 and 1" in error.where
    assert "(2.1)" in error.hypothesis


def test_data_whose_classes_spread_over_directions():
    data = gs.Dataset([[1.0, 0.0], [0.9, 0.3], [-1.0, 0.0]], [1, 1, -1])
    error = breach(data, gs.TwoLayerReLU([[1.0, 1.0]], [1.0]))
    assert "points 0 and 1" in error.where
    assert "share a direction" in error.hypothesis


def test_data_with_several_norms_on_a_direction():
    data = gs.Dataset([[1.0, 0.0], [2.0, 0.0], [-1.0, 0.0]], [1, 1, -1])
    assert "norms from 1 to 2" in breach(data, gs.TwoLayerReLU([[1.0, 1.0]], [1.0])).where


def test_neurons_active_on_both_classes_are_named():
    network = gs.TwoLayerReLU([[[1.0, -1.0], [0.5, -0.1]], [[1.0, -1.0], [0.3, 0.4]]], [[1.0, 1.0], [1.0, 1.0]])
    error = breach(gs.datasets.orthogonal(), network)
    assert "neuron 1 of network (1,)" in error.where
    assert "exclusive" in error.hypothesis


def test_neurons_that_would_wake_on_the_other_class_are_named():
    data = gs.Dataset([[1.0, 0.0], [-0.6, 0.8]], [1, -1])
    network = gs.TwoLayerReLU([[0.5, 0.3]], [-0.9])
    assert "(4.4)" in breach(data, network).hypothesis


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_neurons_that_wake_on_the_other_class_before_they_turn_are_named():
    """-a < z < 0: it learns its class in the end, but on its way the other class gets to see it."""
    data = gs.Dataset([[1.0, 0.0], [-0.9, 0.19**0.5]], [1, -1])
    w = np.linalg.solve(np.asarray(data.points), [[1.0, 1.0], [-0.01, -0.9]]).T  # w.x_- = -0.01 and -0.9
    near, far = (gs.TwoLayerReLU(row[None], [-0.9]) for row in w)
    for dynamics in (gs.GradientFlow(), gs.GradientDescent(0.1)):
        assert "neuron 0" in breach(data, near, dynamics).where
    # sqrt(a^2 - z^2) = 0.436 is the lowest it gets, which is not far enough for the second one to wake.
    law, trained = gs.solve(data, far), gs.simulate_flow(data, far, "cross-entropy", TIMES)
    np.testing.assert_allclose(law.logits(TIMES), trained.logits(), atol=1e-5)


def test_neurons_that_a_margin_above_the_squared_target_would_wake_are_named():
    data = gs.Dataset([[1.0, 0.0], [-0.58, (1 - 0.58**2) ** 0.5]], [1, -1])
    w = np.array([[-0.05, 0.3], [-1.16, 2.0]]) @ np.linalg.inv(np.asarray(data.points)).T
    network = gs.TwoLayerReLU(w.astype(np.float32), [-1.0, -2.0])
    for dynamics in (gs.GradientFlow(), gs.GradientDescent(0.001)):
        assert "neuron 0" in breach(data, network, dynamics, loss="squared").where
    gs.solve(data, network, "hinge")


def test_dynamics_without_a_law():
    data, network = gs.datasets.antipodal(), gs.TwoLayerReLU([[1.0, 1.0]], [1.0])
    assert "StochasticGradientDescent" in breach(data, network, gs.StochasticGradientDescent(0.1)).where
    with pytest.raises(ValueError, match="dynamics must be GradientFlow"):
        gs.solve(data, network, "hinge", 0.1)


def test_squared_loss_above_its_target_on_antipodal_data():
    error = breach(gs.datasets.antipodal(), gs.TwoLayerReLU([[2.0, 0.0]], [2.0]), loss="squared")
    assert "class +1" in error.where


def test_plain_mistakes():
    data, network = gs.datasets.antipodal(dim=3), gs.TwoLayerReLU([[1.0, 1.0]], [1.0])
    with pytest.raises(ValueError, match="d = 2 inputs but the points have d = 3"):
        gs.solve(data, network)
    network = gs.TwoLayerReLU([[1.0, 1.0, 0.0]], [1.0])
    with pytest.raises(ValueError, match="unknown loss 'logistic'; use one of 'cross-entropy'"):
        gs.solve(data, network, "logistic")
    with pytest.raises(ValueError, match="give t"):
        gs.solve(data, network).logits()
    law = gs.solve(data, network, "hinge", gs.GradientDescent(0.1))
    for steps in (-1, 1.5, [0, -2], "three", float("nan")):
        with pytest.raises(ValueError, match=r"steps must (be integers >= 0|hold numbers, got 'three')"):
            law.logits(steps)
