"""Descent with momentum and weight decay (8.2) against plain NumPy descent of all weights, gradients by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs

# (momentum, nesterov, weight_decay): each alone, and together. One batch trains a network with each of the numbers.
KINDS = {
    "decay": {"weight_decay": np.linspace(0.0, 0.4, 16)},
    "heavy ball": {"momentum": np.linspace(0.0, 0.95, 16)},
    "both, Nesterov": {"momentum": np.linspace(0.0, 0.7, 16), "weight_decay": np.linspace(0.1, 0, 16), "nesterov": True},
}
STEPS = 200


def residual(loss, m):
    if loss == "cross-entropy":
        return 1 / (1 + np.exp(m))
    return {"hinge": (m < 1) * 1.0, "exponential": np.exp(-m), "squared": 1 - m}[loss]


def descend(data, network, loss, dynamics, steps):
    """(logits [batch, steps + 1, n], w, z): every weight its own velocity, as the docstring of GradientDescent says."""
    x, y, q = (np.asarray(v) for v in (data.points, data.labels, data.weights))
    shape = np.shape(network.z)[:1]
    eta, mu, decay = (
        np.broadcast_to(v, shape)[:, None] for v in (dynamics.step_size, dynamics.momentum, dynamics.weight_decay)
    )
    weights = [np.asarray(network.w), np.asarray(network.z)]
    velocity = [np.zeros_like(v) for v in weights]
    logits = []
    for _ in range(steps + 1):
        w, z = weights
        hidden = np.maximum(np.einsum("bhd,nd->bhn", w, x), 0)
        f = np.einsum("bh,bhn->bn", z, hidden)
        logits.append(f)
        c = -q * y * residual(loss, y * f)
        gradient = [np.einsum("bn,bh,bhn,nd->bhd", c, z, hidden > 0, x), np.einsum("bn,bhn->bh", c, hidden)]
        for i, g in enumerate(gradient):
            step_size, momentum, shrink = (v.reshape(-1, *(1,) * (g.ndim - 1)) for v in (eta, mu, decay))
            g = g + shrink * weights[i]
            velocity[i] = momentum * velocity[i] + g
            weights[i] = weights[i] - step_size * (g + momentum * velocity[i] if dynamics.nesterov else velocity[i])
    return np.stack(logits, axis=1), w, z


def problem(geometry, scale=0.4):
    keys = jax.random.split(jax.random.key(0), 3)
    data = getattr(gs.datasets, geometry)(3, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=keys[0])
    network = gs.init_two_layer(keys[1], 16, 8, 3, scale, scale)
    return data, network if geometry == "antipodal" else gs.exclusive(data, network, keys[2])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("geometry", "loss", "kind"),
    [
        ("antipodal", "hinge", "decay"),
        ("antipodal", "cross-entropy", "heavy ball"),
        ("antipodal", "squared", "both, Nesterov"),
        ("orthogonal", "exponential", "both, Nesterov"),
    ],
)
def test_the_law_is_an_equality(geometry, loss, kind):
    data, network = problem(geometry)
    dynamics = gs.GradientDescent(0.05 if loss == "squared" else 0.2, **KINDS[kind])
    if geometry == "orthogonal":  # where weights that no point acts on must keep their signs
        dynamics = gs.GradientDescent(0.2, dynamics.momentum, dynamics.nesterov, dynamics.weight_decay / 20)
    logits, w, z = descend(data, network, loss, dynamics, STEPS)
    law = gs.solve(data, network, loss, dynamics)
    assert np.abs(np.asarray(law.logits(np.arange(STEPS + 1))) - logits).max() <= 1e-12 * (1 + np.abs(logits).max())
    final = law.network(STEPS)
    np.testing.assert_allclose(final.w, w, atol=1e-12)
    np.testing.assert_allclose(final.z, z, atol=1e-12)
    # Worth something only if neurons changed class or died on the way.
    points = np.asarray(data.points).T
    assert ((np.asarray(network.w) @ points > 0) != (w @ points > 0)).any()


@pytest.mark.usefixtures("x64")
def test_what_sees_nothing_decays_all_the_same():
    data = gs.datasets.orthogonal(2)
    network = gs.TwoLayerReLU([[0.5, -0.4], [-0.3, -0.2]], [0.3, 0.7])
    dynamics = gs.GradientDescent(0.1, weight_decay=0.5)
    final = gs.solve(data, network, "hinge", dynamics).network(20)
    np.testing.assert_allclose(final.w[1], 0.95**20 * network.w[1], rtol=1e-13)
    assert float(final.z[1]) == pytest.approx(0.7 * 0.95**20, rel=1e-13)
    assert float(final.w[0, 1]) == pytest.approx(-0.4 * 0.95**20, rel=1e-13)


@pytest.mark.usefixtures("x64")
def test_a_neuron_that_left_comes_back_where_decay_oscillates():
    mode = gs.Mode(1.0, 1.0, [0.2, 0.5], [-0.9, 0.1])
    dynamics = gs.GradientDescent(0.5, momentum=0.95, weight_decay=0.3)
    law = gs.solve_mode(mode, "hinge", dynamics)
    a, z = map(np.asarray, law.weights(np.arange(101)))
    crossings = np.flatnonzero(np.diff(a[:, 0] > 0))
    assert crossings.size >= 2
    assert float(law.leaving_step()[0]) == crossings[0] + 1
    network = gs.TwoLayerReLU(np.asarray(mode.a)[None, :, None], np.asarray(mode.z)[None])
    logits, *_ = descend(gs.Dataset([[1.0]], [1]), network, "hinge", dynamics, 100)
    np.testing.assert_allclose(law.logit(np.arange(101)), logits[0, :, 0], atol=1e-12)
    np.testing.assert_allclose(((a > 0) * a * z).sum(-1), logits[0, :, 0], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_no_momentum_and_no_decay_cost_nothing():
    mode = gs.Mode(0.4, 1.3, [0.2, 0.3], [0.1, -0.4])
    plain = gs.solve_mode(mode, "hinge", gs.GradientDescent(0.1)).law
    assert not plain.has_momentum
    assert not plain.has_decay
    assert len(jax.tree.leaves(plain.first)) == 3  # p_j, q_j and the step number


@pytest.mark.usefixtures("x64")
def test_derivatives_in_every_number_of_the_dynamics():
    def later(numbers):
        dynamics = gs.GradientDescent(numbers[0], momentum=numbers[1], weight_decay=numbers[2])
        return gs.solve_mode(gs.Mode(0.4, 1.3, [0.2, 0.3], [0.1, -0.4]), "cross-entropy", dynamics).logit(60)

    at = jnp.array([0.1, 0.6, 0.02])
    slope = jax.grad(later)(at)
    for i, size in enumerate((1e-7, 1e-7, 1e-7)):
        step = size * np.eye(3)[i]
        difference = (later(at + step) - later(at - step)) / (2 * size)
        assert float(slope[i]) == pytest.approx(float(difference), rel=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("nesterov", "limit"), [(False, (1 - 0.9**0.5) ** 2), (True, (0.1 / 1.9) ** 2)], ids=["heavy ball", "Nesterov"]
)
def test_decay_that_oscillates_is_refused_where_it_could_wake_neurons(nesterov, limit):
    data, network = gs.datasets.orthogonal(2), gs.TwoLayerReLU([[0.5, -0.4], [-0.3, -0.2]], [0.3, 0.7])
    gs.solve(data, network, "hinge", gs.GradientDescent(1.0, 0.9, nesterov, 0.99 * limit))
    with pytest.raises(gs.HypothesisError, match="does not oscillate"):
        gs.solve(data, network, "hinge", gs.GradientDescent(1.0, 0.9, nesterov, 1.01 * limit))
    gs.solve(gs.datasets.antipodal(2), network, "hinge", gs.GradientDescent(1.0, 0.9, nesterov, 1.01 * limit))


def test_the_refusal_is_at_the_limit():
    """A weight that no point acts on keeps its sign for ever below the limit, and changes it above."""
    for nesterov, limit in ((False, (1 - 0.9**0.5) ** 2), (True, (0.1 / 1.9) ** 2)):
        for factor, changes in ((0.97, False), (1.2, True)):
            weight, velocity, smallest = 1.0, 0.0, 1.0
            for _ in range(200):
                g = factor * limit * weight
                velocity = 0.9 * velocity + g
                weight -= g + 0.9 * velocity if nesterov else velocity
                smallest = min(smallest, weight)
            assert (smallest < 0) == changes


@pytest.mark.usefixtures("x64")
def test_squared_loss_that_swings_at_an_obtuse_angle_is_refused():
    data = gs.Dataset([[1.0, 0.0], [-0.6, 0.8]], [1, -1])
    network = gs.TwoLayerReLU([[0.5, -0.3], [-0.2, 0.4]], [0.3, -0.2])
    gs.solve(data, network, "squared", gs.GradientDescent(0.1))
    gs.solve(data, network, "hinge", gs.GradientDescent(0.1, momentum=0.9))
    with pytest.raises(gs.HypothesisError, match=r"\(4.4\)"):
        gs.solve(data, network, "squared", gs.GradientDescent(0.1, momentum=0.9))


@pytest.mark.usefixtures("x64")
def test_obtuse_angles_with_momentum():
    data = gs.Dataset([[1.0, 0.0], [-0.6, 0.8]], [1, -1], [0.4, 0.6])
    network = gs.TwoLayerReLU([[[0.5, -0.3], [-0.2, 0.4], [-0.5, -0.9]]], [[0.3, -0.2, 0.7]])
    dynamics = gs.GradientDescent(0.2, momentum=0.7, weight_decay=0.02)
    logits, w, _ = descend(data, network, "cross-entropy", dynamics, 100)
    law = gs.solve(data, network, "cross-entropy", dynamics)
    np.testing.assert_allclose(law.logits(np.arange(101)), logits, atol=1e-12)
    np.testing.assert_allclose(law.network(100).w, w, atol=1e-12)
