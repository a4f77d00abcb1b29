"""Deep and softmax networks: outputs and gradients against plain NumPy, absent connections, and what is refused."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.problem import (
    ClassDataset,
    Dataset,
    DeepReLU,
    GradientDescent,
    SoftmaxOneLayer,
    SoftmaxTwoLayer,
    StochasticGradientDescent,
    init_deep,
    init_softmax,
    init_two_layer,
)
from gradstarve.simulation import simulate

rng = np.random.default_rng(0)
POINTS = rng.normal(size=(5, 3))
CLASSES = np.array([0, 1, 2, 1, 0])
WEIGHTS = np.array([0.1, 0.3, 0.2, 0.15, 0.25])


def ones(*shape):
    return np.ones(shape, np.float32)


def softmax(values):
    powers = np.exp(values - values.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


@pytest.mark.parametrize("widths", [(), (4,), (4, 2), (3, 4, 5)])
def test_the_output_is_that_of_the_layers_in_turn(widths, x64):
    nets = init_deep(jax.random.key(0), (2, 3), widths, 3, scale=jnp.float64(2.0))
    assert nets.depth == len(widths) + 1
    assert nets.batch_shape == (2, 3)
    found = np.asarray(nets(jnp.asarray(POINTS)))
    assert found.shape == (2, 3, 5)
    for i in np.ndindex(2, 3):
        hidden = POINTS.T
        for layer in nets.layers[:-1]:
            hidden = np.maximum(np.asarray(layer[i]) @ hidden, 0)
        np.testing.assert_allclose(found[i], np.asarray(nets.layers[-1][i]) @ hidden, rtol=1e-12)


def test_depth_two_trains_as_the_two_layer_network(x64):
    two = init_two_layer(jax.random.key(1), 4, 3, 3, jnp.float64(1.0))
    data = Dataset(POINTS, [1, -1, 1, -1, 1], WEIGHTS)
    descent = GradientDescent(0.1, momentum=0.5, weight_decay=0.01)
    first = simulate(data, two, "cross-entropy", descent, 7, progress=False)
    second = simulate(data, DeepReLU((two.w, two.z)), "cross-entropy", descent, 7, progress=False)
    np.testing.assert_allclose(first.recorded, second.recorded, rtol=1e-13, atol=1e-14)
    np.testing.assert_allclose(first.final.w, second.final.layers[0], rtol=1e-13, atol=1e-14)


def test_paths_are_products_and_absent_connections_stay_absent(x64):
    b = rng.uniform(0.5, 1.5, (2, 3, 4))  # two networks, three layers, four paths
    features = [0, 2, 2, 1]
    nets = DeepReLU.paths(b, features, dim=3)
    expected = np.einsum("bj,nj->bn", b.prod(1), np.maximum(POINTS[:, features], 0))
    np.testing.assert_allclose(nets(jnp.asarray(POINTS)), expected, rtol=1e-13)
    data = Dataset(np.abs(POINTS), [1, -1, 1, -1, 1])
    trained = simulate(data, nets, "cross-entropy", GradientDescent(0.1, weight_decay=0.1), 3, progress=False).final
    for layer, before, mask in zip(trained.layers, nets.layers, nets.connections, strict=True):
        there = np.broadcast_to(mask, layer.shape)
        assert (np.asarray(layer)[~there] == 0).all()
        assert (np.asarray(layer)[there] != np.asarray(before)[there]).all()


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_a_chain_is_the_product_of_its_weights(depth, x64):
    b, direction = rng.uniform(0.5, 2, (6, depth)), np.array([0.6, 0.0, 0.8])
    point = jnp.asarray(2 * direction[None])
    np.testing.assert_allclose(DeepReLU.chain(b, direction)(point)[:, 0], 2 * b.prod(1), rtol=1e-13)


@pytest.mark.slow
def test_softmax_descent_is_that_of_numpy(x64):
    """Two layers, by the gradient (P - 1_c) written by hand; one layer likewise; and the curve's numbers."""
    nets = init_softmax(jax.random.key(2), 3, 4, 3, 3, jnp.float64(1.0), jnp.float64(1.0))
    data = ClassDataset(POINTS, CLASSES, WEIGHTS)
    run = simulate(data, nets, "cross-entropy", GradientDescent(0.2), 5, progress=False)
    assert run.logits().shape == (3, 6, 5, 3)
    assert run.logits(3).shape == (3, 5, 3)
    w, z, record = np.asarray(nets.w), np.asarray(nets.z), []
    for _ in range(6):
        pre = np.einsum("bhd,nd->bnh", w, POINTS)
        hidden = np.maximum(pre, 0)
        outputs = np.einsum("bnh,bhk->bnk", hidden, z)
        record.append(outputs)
        slope = WEIGHTS[:, None] * (softmax(outputs) - np.eye(3)[CLASSES])
        step_w = np.einsum("bnk,bhk,bnh,nd->bhd", slope, z, (pre > 0) * 1.0, POINTS)
        z, w = z - 0.2 * np.einsum("bnk,bnh->bhk", slope, hidden), w - 0.2 * step_w
    record = np.stack(record, axis=1)
    np.testing.assert_allclose(run.recorded, record, rtol=1e-11)
    right = softmax(record)[..., np.arange(5), CLASSES]
    np.testing.assert_allclose(run.error(), np.sum(WEIGHTS * (1 - right), -1), rtol=1e-11)
    np.testing.assert_allclose(run.loss(), np.sum(-WEIGHTS * np.log(right), -1), rtol=1e-11)
    own = record[..., np.arange(5), CLASSES]
    draws_and_losses = own <= np.where(np.eye(3)[CLASSES] == 1, -np.inf, record).max(-1)
    np.testing.assert_allclose(run.mistakes(), np.sum(WEIGHTS * draws_and_losses, -1), rtol=1e-12)

    line = SoftmaxOneLayer(rng.normal(size=(3, 3)))
    v = np.asarray(line.v)
    for _ in range(4):
        v = v - 0.3 * np.einsum("nk,nd->kd", WEIGHTS[:, None] * (softmax(POINTS @ v.T) - np.eye(3)[CLASSES]), POINTS)
    trained = simulate(data, line, "cross-entropy", GradientDescent(0.3), 4, progress=False)
    np.testing.assert_allclose(trained.final.v, v, rtol=1e-11)


def test_two_classes_of_a_softmax_are_the_logistic_network(x64):
    """The gap of two outputs learns as one logit, sqrt 2 times as fast, at weights smaller by the fourth root of 2."""
    two = init_two_layer(jax.random.key(3), 2, 4, 3, jnp.float64(0.5))
    votes = np.stack([two.z, -two.z], axis=-1) / np.sqrt(2)
    data = Dataset(POINTS, 1 - 2 * (CLASSES > 0), WEIGHTS)
    classes = ClassDataset(POINTS, CLASSES > 0, WEIGHTS)
    wide = SoftmaxTwoLayer(two.w / np.sqrt(np.sqrt(2.0)), votes / np.sqrt(np.sqrt(2.0)))
    run = simulate(data, two, "cross-entropy", GradientDescent(0.3), 9, progress=False)
    pair = simulate(classes, wide, "cross-entropy", GradientDescent(0.3 / np.sqrt(2)), 9, progress=False)
    gap = np.asarray(pair.recorded)[..., 0] - np.asarray(pair.recorded)[..., 1]
    np.testing.assert_allclose(gap, run.recorded, rtol=1e-11, atol=1e-13)


@pytest.mark.slow
def test_one_drawn_point_moves_a_softmax_network(x64):
    net = init_softmax(jax.random.key(4), 20, 4, 3, 3)
    sgd = StochasticGradientDescent(0.1)
    run = simulate(ClassDataset(POINTS, CLASSES), net, "cross-entropy", sgd, 2, key=jax.random.key(0), progress=False)
    assert np.isfinite(run.recorded).all()
    assert len({float(value) for value in np.asarray(run.recorded)[:, -1, 0, 0]}) > 5


SINGLE = POINTS.astype(np.float32)


@cache
def softmax_net():
    return init_softmax(jax.random.key(0), 2, 4, 3, 3)


@cache
def deep_net():
    return init_deep(jax.random.key(0), 2, (4,), 3)


def short_run(data, net, loss="cross-entropy"):
    return simulate(data, net, loss, GradientDescent(0.1), 1)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: DeepReLU([]), "layers must be a non-empty"),
        (lambda: DeepReLU(([[1.0, 2.0]], [1.0, 2.0])), r"layers\[0\] must be \[\*batch, 2, inputs\]"),
        (lambda: DeepReLU((ones(2, 3, 4), ones(5, 3))), r"batch axes \(5,\)"),
        (lambda: DeepReLU((np.ones((0, 2), "float32"), np.ones(0, "float32"))), "no weights"),
        (lambda: DeepReLU(([[1.0, 2.0]], [1.0]), ([[1, 0]], [1])), r"layers\[0\]\[0, 1\] = 2.0 is on a connection"),
        (lambda: DeepReLU(([[1.0, 2.0]], [1.0]), ([[1, 1]],)), "one 0/1 array for each of the 2 layers"),
        (lambda: DeepReLU(([[1.0, 2.0]], [1.0]), ([[1, 2]], [1])), r"connections\[0\] must be 0 or 1"),
        (lambda: DeepReLU.paths(ones(2, 3), [0, 1, 3], 3), r"features must be in 0, ..., 2"),
        (lambda: DeepReLU.paths(ones(2, 3), [0, 1], 3), "one whole number for each"),
        (lambda: DeepReLU.paths(ones(1, 2), [1, 1], 3), "one weight a coordinate"),
        (lambda: DeepReLU.chain(ones(2, 3), 1.0), r"direction \[d\]"),
        (lambda: init_deep(jax.random.key(0), 2, (0,), 3), "widths must be an integer >= 1"),
        (lambda: init_deep(jax.random.key(0), 2, (3,), 3, scale=0.0), "scale must be > 0"),
        (lambda: SoftmaxTwoLayer(ones(4, 3), ones(4, 1)), "K >= 2"),
        (lambda: SoftmaxTwoLayer(ones(4, 3), ones(4)), "K >= 2"),
        (lambda: SoftmaxOneLayer(ones(1, 3)), "K >= 2 classes"),
        (lambda: ClassDataset(SINGLE, [0, 1, 2, -1, 0]), r"classes\[3\] = -1"),
        (lambda: ClassDataset(SINGLE, [0, 1, 0.5, 1, 0]), r"classes\[2\] = 0.5"),
        (lambda: ClassDataset(SINGLE, [0, 1]), r"classes must have shape \(5,\)"),
        (lambda: softmax_net()(jnp.ones((2, 7))), "d = 3 inputs but the points have d = 7"),
        (lambda: deep_net()(jnp.ones((2, 7))), "d = 3 inputs but the points have d = 7"),
        (lambda: short_run(Dataset(SINGLE, [1, -1, 1, -1, 1]), softmax_net()), "needs a ClassDataset"),
        (lambda: short_run(ClassDataset(SINGLE, CLASSES), deep_net()), "one output a class"),
        (lambda: short_run(ClassDataset(SINGLE, CLASSES), softmax_net(), "hinge"), "trained with the softmax"),
        (lambda: short_run(ClassDataset(SINGLE, CLASSES + 1), softmax_net()), "K = 3 outputs but the data have a class 3"),
    ],
)
def test_bad_input_is_told_what_is_wrong(call, words):
    with pytest.raises(ValueError, match=words):
        call()


@pytest.mark.slow
def test_a_larger_batch_extends_a_smaller_one():
    small, large = (init_deep(jax.random.key(5), b, (3,), 2) for b in (2, 4))
    np.testing.assert_array_equal(small.layers[0], large.layers[0][:2])
    small, large = (init_softmax(jax.random.key(5), b, 3, 4, 2) for b in (2, 4))
    np.testing.assert_array_equal(small.z, large.z[:2])
