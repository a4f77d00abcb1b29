"""Neurons made exclusive to one class: which move, how far, and how many each class gets."""

import math

import jax
import numpy as np
import pytest

from gradstarve.problem import TwoLayerReLU, datasets, exclusive, init_two_layer


@pytest.mark.slow
def test_both_classes_get_their_share_and_sizes_stay(x64):
    data = datasets.orthogonal(dim=4, norms=(1.0, 2.0), key=jax.random.key(5))
    start = init_two_layer(jax.random.key(0), (50,), 80, 4)
    net = exclusive(data, start, jax.random.key(1))
    axes = np.asarray(data.points) / np.linalg.norm(data.points, axis=-1, keepdims=True)
    before, after = (np.einsum("...hd,cd->...hc", n.w, axes) for n in (start, net))
    both = (before > 0).all(axis=-1)
    assert not (after > 0).all(axis=-1).any()
    np.testing.assert_array_equal(net.w[~both], start.w[~both])
    np.testing.assert_allclose(np.abs(after), np.abs(before), atol=1e-14)
    np.testing.assert_allclose((net.w**2).sum(-1), (start.w**2).sum(-1), rtol=1e-13)
    # 4000 neurons: 3/8 see each class, within four standard deviations of a binomial count.
    assert np.abs((after > 0).mean(axis=(0, 1)) - 3 / 8).max() < 4 * math.sqrt(15 / 64 / 4000)
    smaller = exclusive(data, start[:3], jax.random.key(1))
    np.testing.assert_array_equal(smaller.w, net.w[:3])
    single = exclusive(data, start[0], jax.random.key(1))
    np.testing.assert_array_equal(single.w, net.w[0])
    with pytest.raises(ValueError, match="one direction each"):
        exclusive(datasets.cones(jax.random.key(0), dim=4), start, jax.random.key(1))
    with pytest.raises(ValueError, match="d = 2"):
        exclusive(data, TwoLayerReLU([[1.0, 0.0]], [1.0]), jax.random.key(1))


def test_antipodal_networks_are_exclusive_already(x64):
    start = init_two_layer(jax.random.key(0), (5,), 4, 2)
    np.testing.assert_array_equal(exclusive(datasets.antipodal(), start, jax.random.key(1)).w, start.w)
