"""A bias as one more coordinate (23.1): the geometry it makes, and the neurons that die in it (4.4)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory

pytestmark = pytest.mark.usefixtures("x64")


def antipodal(r_plus, r_minus, frequencies=(0.4, 0.6)):
    axis = np.array([0.6, -0.8])
    return gs.Dataset([r_plus * axis, -r_minus * axis], [1, -1], frequencies)


def test_one_coordinate_more():
    data = antipodal(2.0, 0.5)
    biased = data.with_bias(-0.7)
    assert np.array_equal(biased.points, np.column_stack([data.points, [-0.7, -0.7]]))
    assert np.array_equal(biased.labels, data.labels)
    assert np.array_equal(biased.weights, data.weights)
    assert np.array_equal(data.with_bias().points[:, -1], [1, 1])
    flat = data.with_bias(0)
    assert flat.separability().antipodal
    assert np.array_equal(flat.points[:, :2], data.points)
    assert gs.Dataset(np.eye(2, dtype=np.float32), [1, -1]).with_bias(0.5).points.dtype == np.float32


@pytest.mark.parametrize("feature", [float("nan"), float("inf"), "x", [1.0, 2.0], None, 1j])
def test_other_features_are_refused(feature):
    with pytest.raises(ValueError, match="feature"):
        antipodal(1.0, 1.0).with_bias(feature)


@pytest.mark.slow
def test_one_class_is_the_mode_of_the_longer_norm():
    r, beta, axis = 1.2, 0.7, np.array([0.6, 0.8])
    data = gs.Dataset([r * axis, r * axis], [1, 1], [0.3, 0.7]).with_bias(beta)
    network = gs.init_two_layer(0, (), 6, 3, 0.3, 0.3)
    norm = np.hypot(r, beta)
    a = np.asarray(network.w) @ np.append(r * axis, beta) / norm
    mode = gs.Mode(1.0, norm, np.where(a > 0, a, 0), network.z)
    times = np.linspace(0, 10, 6)
    law = theory.solve_mode(mode, "cross-entropy").logit(times)
    assert theory.solve(data, network).logits(times)[:, 0] == pytest.approx(np.asarray(law), rel=1e-12, abs=1e-12)
    run = gs.simulate_flow(data, network, "cross-entropy", times)
    assert run.logits()[:, 0] == pytest.approx(np.asarray(law), rel=1e-8, abs=1e-8)


@pytest.mark.parametrize(("r_plus", "r_minus", "beta"), [(1.2, 0.9, 0.8), (3.0, 0.2, 0.5), (1.0, 1.0, 1.0), (0.4, 2.0, 1.5)])
def test_antipodal_classes_are_at_the_cosine_of_the_law(r_plus, r_minus, beta):
    data = antipodal(r_plus, r_minus).with_bias(beta)
    plus, minus = np.asarray(data.points)
    cosine = plus @ minus / np.linalg.norm(plus) / np.linalg.norm(minus)
    assert theory.biased_cosine(r_plus, r_minus, beta) == pytest.approx(cosine, abs=1e-14)
    assert data.separability().orthogonally_separable == (r_plus * r_minus >= beta**2)


def test_the_cosine_broadcasts_and_keeps_its_range():
    found = theory.biased_cosine([1e200, 1e-200], [[1.0], [1e200]], 1.0)
    assert found.shape == (2, 2)
    assert np.isfinite(found).all()
    assert theory.biased_cosine(1e200, 1e200, 1e200) == pytest.approx(0, abs=1e-15)
    with pytest.raises(ValueError, match="norm_plus must be > 0"):
        theory.biased_cosine(0.0, 1.0)


def test_a_bias_under_jit():
    points, units = np.array([[2.0, 0.0], [-1.0, 0.0]]), np.array([[1.0, 0.0], [-1.0, 0.0]])
    network = gs.TwoLayerReLU([[0.3, 0.1, -0.6]], [0.2])

    @jax.jit
    def known(weight):
        data = gs.Dataset(points, [1, -1], jnp.stack([weight, 1 - weight])).with_bias(0.5)
        return theory.solve(data, network, "hinge").logits(1.0)

    plain = gs.Dataset(points, [1, -1], [0.3, 0.7]).with_bias(0.5)
    assert known(0.3) == pytest.approx(np.asarray(theory.solve(plain, network, "hinge").logits(1.0)), rel=1e-12)

    def of_norm(feature, norm):
        data = gs.Dataset(units * jnp.stack([norm, norm])[:, None], [1, -1], directions=units).with_bias(feature)
        return data.points if feature else theory.solve(data, network, "hinge").logits(1.0)

    assert jax.jit(lambda norm: of_norm(0.5, norm))(2.0)[1].tolist() == [-2.0, 0.0, 0.5]
    same = theory.solve(gs.Dataset(2 * units, [1, -1]).with_bias(0.0), network, "hinge").logits(1.0)
    assert jax.jit(lambda norm: of_norm(0.0, norm))(2.0) == pytest.approx(np.asarray(same), rel=1e-12)

    def shape(norm):
        return gs.Dataset(norm * units, [1, -1], directions=units).with_bias(1.0).separability().antipodal

    with pytest.raises(ValueError, match="the points are traced"):
        jax.jit(shape)(2.0)
    traced = jax.jit(lambda feature: gs.Dataset(points, [1, -1]).with_bias(feature).points)(0.25)
    assert traced[:, 2].tolist() == [0.25, 0.25]


def dead_share(data, seed, scale_a, scale_z, neurons=4000, steps=3000, step_size=0.02):
    """The part of Gaussian neurons, each a network of its own, that sees no point after small steps of descent in NumPy."""
    rng = np.random.default_rng(seed)
    x, y, q = (np.asarray(v, float) for v in (data.points, data.labels, data.weights))
    w = 1e-3 * scale_a * rng.normal(size=(neurons, x.shape[1]))
    z = 1e-3 * scale_z * rng.normal(size=neurons)
    for _ in range(steps):
        seen = w @ x.T
        on = seen > 0
        # At this scale g(u) is g(0) until a neuron has decided; the pull is capped where it has.
        pull = q * y / (1 + np.exp(np.clip(y * np.where(on, seen, 0) * z[:, None], -30, 30)))
        w, z = w + step_size * z[:, None] * ((on * pull) @ x), z + step_size * np.sum(np.where(on, seen, 0) * pull, axis=-1)
    return np.mean(~(w @ x.T > 0).any(-1))


@pytest.mark.parametrize(
    ("r_plus", "r_minus", "beta", "scale_a", "scale_z"),
    [(1.0, 1.0, 1.0, 1.0, 1.0), (2.0, 1.0, 0.5, 1.0, 1.0), (1.0, 1.5, 0.8, 0.5, 1.0), (1.0, 1.0, 0.4, 1.0, 0.5)],
)
def test_neurons_die_as_often_as_the_law_says(r_plus, r_minus, beta, scale_a, scale_z):
    data = antipodal(r_plus, r_minus).with_bias(beta)
    law = float(theory.death_probability(theory.biased_cosine(r_plus, r_minus, beta), scale_a, scale_z))
    found = dead_share(data, 1, scale_a, scale_z)
    assert abs(found - law) < 4 * np.sqrt(law * (1 - law) / 4000)


def test_deaths_at_equal_norms_and_without_a_bias():
    assert theory.death_probability(theory.biased_cosine(1.0, 1.0, 1.0)) == pytest.approx(3 / 8, abs=1e-15)
    assert theory.death_probability(-1.0) == theory.death_probability(-1 - 2e-16) == 0
    assert theory.death_probability(1e-16) == 3 / 8
    assert theory.death_probability(np.nextafter(-1, 0)) == pytest.approx(1 / 8, abs=1e-7)
    slope = jax.grad(theory.death_probability)
    assert slope(-0.5) == pytest.approx(1 / (2 * np.pi * np.sqrt(0.75)), rel=1e-12)
    assert slope(-1.0) == 0
    for wrong in (-1.1, 0.1, float("nan")):
        with pytest.raises(ValueError, match="cosine"):
            theory.death_probability(wrong)
