"""`solve` accepts a problem by what it is: the types of network and loss, and points with directions."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.problem import Network
from gradstarve.theory._solve import check_problem

DATA = gs.datasets.antipodal()
NET = gs.TwoLayerReLU([[0.3, 0.1]], [0.1])


class Leaky(Network):
    """f(x) = sum_j z_j leaky(w_j . x): weights of the same names, another function."""

    w: jax.Array
    z: jax.Array
    batch_shape = ()
    dim = 2

    def __call__(self, points):
        return jax.nn.leaky_relu(points @ self.w.T, 0.1) @ self.z


class Biased(gs.TwoLayerReLU):
    """A subclass with a bias of the output."""

    bias: jax.Array

    def __init__(self, w, z, bias):
        super().__init__(w, z)
        self.bias = jnp.asarray(bias)

    def __call__(self, points):
        return super().__call__(points) + self.bias


class Steep(gs.problem.Hinge):
    """Three times the residual of the hinge loss, under its name."""

    def value(self, margin):
        return 3 * super().value(margin)

    def residual(self, margin):
        return 3 * super().residual(margin)


@pytest.mark.parametrize("network", [Leaky(NET.w, NET.z), Biased(NET.w, NET.z, 0.5), gs.DeepReLU(([[0.3, 0.1]], [0.1]))])
def test_other_networks_are_refused_by_type(network):
    with pytest.raises(gs.HypothesisError, match=rf"type {type(network).__name__}.*simulate\(") as error:
        gs.solve(DATA, network, "hinge")
    assert type(network).__name__ in error.value.where
    with pytest.raises(ValueError, match=f"TwoLayerReLU itself, got {type(network).__name__}"):
        gs.exclusive(gs.datasets.orthogonal(), network, jax.random.key(0))


def test_what_is_no_network_or_no_dataset():
    with pytest.raises(ValueError, match="network must be a TwoLayerReLU, got float"):
        check_problem(DATA, 0.3)
    with pytest.raises(ValueError, match="data must be a Dataset with labels ±1, got list"):
        check_problem([[1.0]], NET)


MODE = gs.Mode(0.5, 1.0, [0.3], [0.1])


@pytest.mark.slow
def test_a_subclass_of_a_loss_is_not_solved_as_its_parent():
    refused = (
        lambda: gs.theory.depth_mode(0.5, 1.0, [0.3, 0.3], Steep()),
        lambda: gs.theory.one_layer_logit(0.5, 1.0, 0.0, Steep(), 1.0),
        lambda: gs.theory.decayed_logit(0.5, 1.0, 0.1, 0.1, Steep(), 1.0),
        lambda: gs.theory.starving_pair(0.5, 0.5, Steep()).freeze,
    )
    for call in refused:
        with pytest.raises(gs.HypothesisError):
            call()
    # The flow takes any residual: this one is three times as fast.
    times = np.array([0.0, 0.4, 1.1, 3.0, 40.0])
    faster, plain = gs.solve_mode(MODE, Steep()).logit(times), gs.solve_mode(MODE, "hinge").logit(3 * times)
    np.testing.assert_allclose(faster, plain, rtol=1e-5)


def test_descent_takes_the_residual_of_any_loss():
    descent = gs.GradientDescent(0.1)
    law = gs.solve(DATA, NET, Steep(), descent).logits(np.arange(13))
    run = gs.simulate(DATA, NET, Steep(), descent, 12, engine="reference").logits()
    np.testing.assert_allclose(law, run, rtol=1e-5, atol=1e-6)
    plain = gs.solve(DATA, NET, "hinge", gs.GradientDescent(0.3)).logits(np.arange(13))  # three times the step instead
    np.testing.assert_allclose(law, plain, rtol=1e-5)
    assert np.abs(np.asarray(law - gs.solve(DATA, NET, "hinge", descent).logits(np.arange(13)))).max() > 0.01


def test_steps_of_a_rounded_grid_are_whole():
    curve = gs.solve(DATA, NET, "hinge", gs.GradientDescent(0.1)).plus
    grid = np.linspace(0, 21, 8) * (1 + 2e-16)
    np.testing.assert_array_equal(curve.logit(grid), curve.logit(np.arange(0, 22, 3)))
    for bad in (2.5, np.array([1.0, 2.0001]), np.nan, np.inf, -1.0):
        with pytest.raises(ValueError, match="steps must be integers >= 0"):
            curve.logit(bad)


def test_points_at_the_origin_are_named_without_warnings():
    for points in ([[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [1.0, 0.0]]):
        data = gs.Dataset(points, [1, -1])
        zero = int(np.argmin(np.linalg.norm(points, axis=1)))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(gs.HypothesisError, match=f"point {zero} is at the origin"):
                gs.solve(data, NET)
            assert f"point {zero} is at the origin" in data.separability().explain()
    with pytest.raises(gs.HypothesisError, match="all points of class -1 are at the origin"):
        gs.Dataset([[1.0, 0.0], [0.0, 0.0]], [1, -1]).ray(-1)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("angle", [1e-4, 1e-7, 1e-12])
def test_points_near_one_line_are_told_apart(angle):
    data = gs.Dataset([[1.0, 0.0], [np.cos(angle), np.sin(angle)], [-1.0, 0.0]], [1, 1, -1])
    with pytest.raises(gs.HypothesisError, match="points 0 and 1 have") as error:
        gs.solve(data, NET)
    assert f"{angle:.3g} rad between their lines" in error.value.where


@pytest.mark.usefixtures("x64")
def test_tiny_points_have_a_direction():
    data = gs.Dataset([[3e-180, 4e-180], [-3e-180, -4e-180]], [1, -1])
    assert data.separability().antipodal
    np.testing.assert_allclose(data.ray(1).direction, [0.6, 0.8], rtol=1e-15)
    np.testing.assert_allclose(data.ray(1).norm, 5e-180, rtol=1e-15)


def test_datasets_inside_jit():
    axes = np.array([[0.6, 0.8], [-0.6, -0.8]], np.float32)

    def error(p, r, plain):
        weights, norms = jnp.stack([p, 1 - p]), jnp.stack([r, 2 * r])
        data = gs.Dataset(axes if plain else norms[:, None] * axes, [1, -1], weights, directions=axes)
        return gs.solve(data, NET, "hinge").error(2.0)

    for plain in (True, False):
        norms = (1.0, 1.0) if plain else (1.5, 3.0)
        known = gs.Dataset(np.array(norms, np.float32)[:, None] * axes, [1, -1], [0.25, 0.75])
        found = jax.jit(error, static_argnums=2)(0.25, 1.5, plain)
        np.testing.assert_allclose(found, gs.solve(known, NET, "hinge").error(2.0), rtol=1e-5)


def test_traced_geometry_says_how_to_give_it():
    def traced(points):
        return gs.solve(gs.Dataset(points, [1, -1]), NET, "hinge").error(1.0)

    with pytest.raises(ValueError, match=r"points are traced.*lists or NumPy arrays.*directions=units"):
        jax.jit(traced)(DATA.points)
    with pytest.raises(ValueError, match="labels are traced"):
        jax.jit(lambda labels: gs.solve(gs.Dataset([[1.0, 0.0], [-1.0, 0.0]], labels), NET).error(1.0))(DATA.labels)
    with pytest.raises(ValueError, match="directions must not be zero"):
        gs.Dataset(DATA.points, [1, -1], directions=[[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match=r"points\[1\] does not lie along"):
        gs.Dataset(DATA.points, [1, -1], directions=[[1.0, 0.0], [1.0, 0.0]])


@pytest.mark.parametrize(
    ("weights", "scale", "message"),
    [
        ((0.5, 0.6), 1.0, "weights must sum to 1"),
        ((1.5, -0.5), 1.0, "weights must be > 0"),
        ((0.5, 0.5), -1.0, "not lie along"),
    ],
)
def test_traced_numbers_are_checked_when_the_program_runs(weights, scale, message):
    @eqx.filter_jit
    def total(weights, scale):
        data = gs.Dataset(scale * jnp.array([[1.0, 0.0], [-1.0, 0.0]]), [1, -1], weights, [[1.0, 0.0], [-1.0, 0.0]])
        return jnp.sum(data.weights) + jnp.sum(data.points)

    with pytest.raises(eqx.EquinoxRuntimeError, match=message):
        total(jnp.array(weights), jnp.array(scale))


def test_frequencies_are_shares():
    with pytest.raises(ValueError, match=r"at most 1.*frequency = 50"):
        gs.Mode(50.0, 1.0, [0.1], [0.1])
    with pytest.raises(ValueError, match=r"p_frequent \+ p_both must be at most 1.*0\.8 \+ 0\.3"):
        gs.theory.starving_pair(0.8, 0.3, "hinge")
    with pytest.raises(ValueError, match="weights must sum to 1"):
        gs.datasets.starving_pair(0.8, 0.3)
