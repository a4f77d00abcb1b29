"""Which class a neuron ends in: theory against trained networks, and against counts over seeds."""

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import (
    antipodal_fate,
    class_failure_probability,
    dies_for_ever,
    exclusive_fate,
    learning_probability,
)


def antipodal_run(width, steps):
    """20,000 trained networks: a and z of every neuron at the start, and the side it is on at the end."""
    data = gs.datasets.antipodal(dim=2, frequencies=(0.6, 0.4), key=jax.random.key(1))
    network = gs.init_two_layer(jax.random.key(0), 20_000, width, 2, 0.5, 0.5)
    trained = gs.simulate(data, network, "cross-entropy", gs.GradientDescent(0.5), steps, record_every=steps).final
    axis = np.asarray(data.points[0])
    a, z = np.asarray(network.w) @ axis, np.asarray(network.z)
    return data, network, a, z, np.sign(np.asarray(trained.w) @ axis)


@pytest.mark.usefixtures("x64")
def test_20_000_antipodal_networks_end_where_sign_of_a_plus_z_says():
    _, _, a, z, ended = antipodal_run(width=1, steps=400)
    # Within the band a neuron creeps along the stable manifold of the saddle for as long as one likes.
    clear = np.abs(a + z) > 1e-6
    assert clear.mean() > 0.9999
    np.testing.assert_array_equal(ended[clear], np.asarray(antipodal_fate(a, z))[clear])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_in_wider_networks_no_neuron_goes_against_its_fate_and_the_law_names_those_still_on_their_way():
    # Once the others have learnt a class its clock runs like log t, so that a late leaver may take for ever in practice.
    data, network, a, z, ended = antipodal_run(width=4, steps=600)
    fate, home = np.asarray(antipodal_fate(a, z)), np.sign(a)
    assert ((ended == fate) | (ended == home)).all()
    waiting = ended != fate
    assert waiting.mean() < 0.05
    assert ((home != fate) & (ended == fate)).mean() > 0.1
    law = gs.solve(data, network, "cross-entropy", gs.GradientDescent(0.5)).network(600)
    along = np.asarray(law.w) @ np.asarray(data.points[0])
    clear = np.abs(along) > 1e-9
    np.testing.assert_array_equal(np.sign(along)[clear], ended[clear])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ratio", [1.0, 0.25, 0.5, 2.0, 4.0, 10.0])
def test_exclusive_neurons_learn_as_often_as_4_2_says(ratio):
    data = gs.datasets.orthogonal(dim=2)
    # Many neurons in few networks would share a clock; one neuron a network makes the trials independent.
    network = gs.init_two_layer(jax.random.key(int(100 * ratio)), 40_000, 1, 2, 0.5 * ratio, 0.5)
    network = gs.exclusive(data, network, jax.random.key(7))
    trained = gs.simulate(data, network, "cross-entropy", gs.GradientDescent(0.5), 600, record_every=600).final
    before, after = (np.asarray(n.w)[:, 0] @ np.asarray(data.points).T for n in (network, trained))
    sees = (before > 0).any(axis=1)
    learnt = (after > 0).any(axis=1)[sees]
    expected = float(learning_probability(ratio, 1.0))
    assert expected == pytest.approx(0.5 + np.arctan(ratio) / np.pi)
    count = sees.sum()
    # 30,000 trials: 4 standard errors are about 0.01, so 5% off in the constant is rejected for certain.
    assert abs(learnt.mean() - expected) <= 4 * np.sqrt(expected * (1 - expected) / count)
    a, z = before.max(axis=1)[sees], np.where(before[:, 0] > 0, 1, -1)[sees] * np.asarray(network.z)[sees, 0]
    np.testing.assert_array_equal(np.asarray(exclusive_fate(a, z)) == 1, learnt)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_class_fails_with_probability_2_to_the_minus_h_and_never_both():
    data = gs.datasets.antipodal()
    width, count = 3, 20_000
    network = gs.init_two_layer(jax.random.key(width), count, width, 2, 0.5, 0.5)
    failed = np.asarray(gs.solve(data, network).margins(1e6)) < 1
    expected = class_failure_probability(width)
    assert np.abs(failed.mean(axis=0) - expected).max() <= 4 * np.sqrt(expected * (1 - expected) / count)
    assert not failed.all(axis=1).any()


@pytest.mark.usefixtures("x64")
def test_wrong_sign_neurons_at_an_obtuse_angle_wake_exactly_where_4_4_says():
    cosine = -0.5
    plus, minus = np.array([1.0, 0.0]), np.array([cosine, np.sqrt(1 - cosine**2)])
    data = gs.Dataset(np.stack([plus, minus]), [1, -1])
    rng = np.random.default_rng(0)
    w = rng.normal(size=(4000, 2))
    alpha, beta = w @ plus, w @ minus
    z = np.abs(beta) * (1 + np.abs(rng.normal(size=4000)))
    chosen = (alpha < 0) & (beta > 0)
    w, z, alpha, beta = w[chosen], z[chosen], alpha[chosen], beta[chosen]
    clear = np.abs(alpha + abs(cosine) * beta) > 1e-2
    network = gs.TwoLayerReLU(w[clear][:, None], z[clear][:, None])
    trained = gs.simulate(data, network, "cross-entropy", gs.GradientDescent(0.002), 20_000, record_every=20_000).final
    awake = (np.asarray(trained.w)[:, 0] @ plus) > 0
    np.testing.assert_array_equal(~awake, np.asarray(dies_for_ever(alpha, beta, cosine))[clear])


def test_bad_arguments():
    with pytest.raises(ValueError, match="scale_a must be > 0, got 0"):
        learning_probability(0.0, 1.0)
    with pytest.raises(ValueError, match="width must be an integer >= 1, got 0"):
        class_failure_probability(0)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dynamics", "dim", "size"),
    [
        (gs.GradientDescent(0.2, read_out_step_size=1.8), 2, 0.05),
        (gs.GradientDescent(1.8, read_out_step_size=0.2), 2, 0.05),
        (gs.NormalizedGradientDescent(1e-3), 2, 0.05),
        (gs.SignDescent(2e-4), 12, 0.05),
    ],
    ids=["fast-read-out", "slow-read-out", "normalised", "sign"],
)
def test_how_many_learn_under_other_steps(dynamics, dim, size):
    """Trained neurons, one a network, within 4 standard errors of the chance, which NumPy writes again."""
    rng = np.random.default_rng(3)
    point = rng.normal(size=dim)
    unit, count = point / np.linalg.norm(point), 6_000
    w, z = rng.normal(size=(count, 1, dim)) * size * 1.5, rng.normal(size=(count, 1)) * size
    w, z = (v[(w @ unit)[:, 0] > 0] for v in (w, z))
    data = gs.Dataset(unit[None], [1.0])
    run = gs.simulate(data, gs.TwoLayerReLU(w, z), "cross-entropy", dynamics, 1_000, record_every=1_000)
    learnt = (np.asarray(run.final.w)[:, 0] @ unit > 0).mean()
    reach, ratio = np.abs(unit).sum(), 1.5
    if isinstance(dynamics, gs.SignDescent):
        law, ratio = learning_probability(1.5, 1.0, dynamics=dynamics, reach=reach), 1.5 / reach
    else:
        law = learning_probability(1.5 * size, size, dynamics=dynamics)
        if isinstance(dynamics, gs.GradientDescent):
            ratio = 1.5 * np.sqrt(float(dynamics.read_out_step_size / dynamics.step_size))
    assert float(law) == pytest.approx(0.5 + np.arctan(ratio) / np.pi, abs=1e-6)
    assert abs(learnt - float(law)) <= 4 * np.sqrt(float(law) * (1 - float(law)) / len(z))


def test_chances_of_bad_dynamics():
    with pytest.raises(ValueError, match=r"reach must be >= 1, got 0\.5"):
        learning_probability(dynamics=gs.SignDescent(0.1), reach=0.5)
    with pytest.raises(ValueError, match=r"SignDescent only, got GradientDescent\(.*leave reach out"):
        learning_probability(dynamics=gs.GradientDescent(0.1), reach=2.0)
    with pytest.raises(ValueError, match=r"dynamics must be GradientFlow\(\).*, got 0.1"):
        learning_probability(dynamics=0.1)
    with pytest.raises(ValueError, match="is the class SignDescent"):
        learning_probability(dynamics=gs.SignDescent)
    several = gs.GradientDescent([0.1, 0.4], read_out_step_size=0.1)
    np.testing.assert_allclose(learning_probability(dynamics=several), [0.75, 0.5 + np.arctan(0.5) / np.pi], rtol=1e-6)
