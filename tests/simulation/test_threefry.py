"""The draws written out are those of `jax.random`, bit for bit, and pick points with the probabilities they should."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.simulation.engines._reference import draw_point
from gradstarve.simulation.engines._threefry import draw, fold_in_bits, thresholds

STEPS = np.r_[0, 1, 2, 31, 2**16, 2**31 - 1, 2**31, 2**32 - 1, np.random.default_rng(0).integers(2**32, size=192)]


def _words(keys):
    data = jax.random.key_data(keys)
    return data[..., 0], data[..., 1]


def test_bits_are_those_of_jax():
    keys = jax.random.split(jax.random.key(3), STEPS.size)
    steps = jnp.asarray(STEPS, jnp.uint32)
    expected = jax.vmap(lambda key, step: jax.random.bits(jax.random.fold_in(key, step), (), jnp.uint32))(keys, steps)
    ours = fold_in_bits(*_words(keys), steps)
    assert ours.dtype == jnp.uint32
    np.testing.assert_array_equal(ours, expected)


def test_extreme_keys_and_shapes_that_broadcast():
    words = jnp.asarray([[0, 0], [2**32 - 1, 2**32 - 1], [0x12345678, 0x9ABCDEF0]], jnp.uint32)
    steps = jnp.asarray(STEPS[:4], jnp.uint32)
    ours = jax.jit(fold_in_bits)(words[:, :1], words[:, 1:], steps[None])
    assert ours.shape == (3, 4)
    for b, key in enumerate(jax.random.wrap_key_data(words)):
        for k, step in enumerate(steps):
            assert ours[b, k] == jax.random.bits(jax.random.fold_in(key, step), (), jnp.uint32)


@pytest.mark.parametrize("weights", [[1.0], [0.5, 0.5], [0.1, 0.2, 0.3, 0.4], [1e-9, 1 - 1e-9]])
def test_a_point_is_drawn_as_often_as_it_weighs(weights):
    bits = jnp.asarray(np.random.default_rng(1).integers(2**32, size=40_000), jnp.uint32)
    drawn = draw(bits, thresholds(jnp.asarray(weights)))
    assert drawn.dtype == jnp.int32
    observed = np.bincount(drawn, minlength=len(weights)) / bits.size
    spread = np.sqrt(np.multiply(weights, np.subtract(1, weights)) / bits.size)
    assert observed.size == len(weights)
    assert np.all(np.abs(observed - weights) <= 5 * spread + 1e-6)


def test_the_borders_belong_to_the_next_point():
    borders = thresholds(jnp.array([0.25, 0.25, 0.5]))
    assert borders.tolist() == [2**30, 2**31]
    bits = jnp.array([0, 2**30 - 1, 2**30, 2**31 - 1, 2**31, 2**32 - 1], jnp.uint32)
    assert draw(bits, borders).tolist() == [0, 0, 1, 1, 2, 2]


def test_rounding_never_draws_a_point_that_is_not_there():
    # In float32 ten thousand equal weights cumulate to more than 1.
    weights = jnp.full(10_001, 1.0001e-4, jnp.float32)
    borders = thresholds(weights)
    assert jnp.cumsum(weights)[-2] > 1
    assert (np.diff(np.asarray(borders, np.int64)) >= 0).all()
    assert draw(jnp.uint32(2**32 - 1), borders) == 10_000


def test_the_reference_simulator_draws_the_same_points():
    weights = jnp.array([0.2, 0.5, 0.3])
    keys = jax.random.split(jax.random.key(9), 50)
    steps = jnp.arange(50)
    expected = jax.vmap(lambda key, step: draw_point(key, step, weights))(keys, steps)
    ours = draw(fold_in_bits(*_words(keys), steps.astype(jnp.uint32)), thresholds(weights))
    np.testing.assert_array_equal(ours, expected)
    assert set(np.unique(ours)) == {0, 1, 2}
