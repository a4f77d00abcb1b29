"""Reducing a problem to the span of its data changes nothing that training can see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problem.descent import train

from gradstarve.problem import Dataset, TwoLayerReLU, init_two_layer


def random_problem(seed, n=8, dim=7, rank=3, repeats=3):
    """Data of the given rank with repeated points, in a random frame, and three networks."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, rank)) @ np.linalg.qr(rng.normal(size=(dim, rank)))[0].T
    points[n - repeats :] = points[:repeats]
    labels = np.sign(rng.normal(size=n))
    labels[n - repeats :] = labels[:repeats]
    weights = rng.uniform(0.5, 1.5, n)
    dtype = jnp.result_type(float)
    data = Dataset(*(jnp.asarray(v, dtype) for v in (points, labels, weights / weights.sum())))
    return data, init_two_layer(jax.random.key(seed), 3, 4, dim, 0.7, 0.7)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", range(5))
def test_training_commutes_with_reducing(seed):
    data, nets = random_problem(seed)
    small = data.reduce()
    start = small.reduce(nets)
    assert small.data.points.shape == (5, 3)
    assert small.basis.shape == (3, 7)
    np.testing.assert_allclose(small.basis @ small.basis.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(small.data.points @ small.basis, data.points[:5], atol=1e-13)
    np.testing.assert_allclose(small.expand(start(small.data.points)), nets(data.points), atol=1e-13)
    full, reduced = train(data, nets, 50, 0.2), train(small.data, start, 50, 0.2)
    np.testing.assert_allclose(small.expand(reduced(small.data.points)), full(data.points), atol=1e-12)
    restored = small.restore(reduced, nets)
    np.testing.assert_allclose(restored.w, full.w, atol=1e-12)
    np.testing.assert_allclose(restored.z, full.z, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 2**31))
def test_the_rank_is_that_of_the_data_in_any_frame(rank, dim, seed):
    rank = min(rank, dim)
    rng = np.random.default_rng(seed)
    # Norms from 1e-6 to 1e6: a tiny point has a direction too.
    inner = np.concatenate([np.eye(rank), rng.normal(size=(4, rank))]) * 10.0 ** rng.uniform(-6, 6, (rank + 4, 1))
    frame = np.linalg.qr(rng.normal(size=(dim, rank)))[0].T
    data = Dataset((inner @ frame).astype(np.float32), np.ones(rank + 4, np.float32))
    small = data.reduce()
    assert small.data.dim == small.basis.shape[0] == rank
    if rank == dim:
        assert np.array_equal(small.basis, np.eye(dim))
        assert np.array_equal(small.data.points, data.points)


def test_repeated_points_become_one_with_their_weight():
    points = [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0], [1.0, 0.0], [-0.0, 2.0]]
    small = Dataset(points, [1, -1, 1, -1, -1], [0.1, 0.2, 0.3, 0.15, 0.25]).reduce()
    # (1, 0) with both labels is two points; -0.0 is 0.0.
    assert small.data.points.tolist() == [[1.0, 0.0], [0.0, 2.0], [1.0, 0.0]]
    assert small.data.labels.tolist() == [1, -1, -1]
    np.testing.assert_allclose(small.data.weights, [0.4, 0.45, 0.15], rtol=1e-6)
    assert small.index.tolist() == [0, 1, 0, 2, 1]
    assert small.expand(jnp.array([[5.0, 6.0, 7.0]])).tolist() == [[5.0, 6.0, 5.0, 7.0, 6.0]]


def test_reducing_twice_is_reducing_once():
    data, _ = random_problem(3)
    once = data.reduce().data
    twice = once.reduce().data
    assert np.array_equal(once.points, twice.points)
    np.testing.assert_allclose(once.weights, twice.weights, rtol=1e-6)


def test_points_at_the_origin_only():
    small = Dataset([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [1, -1]).reduce()
    assert small.data.dim == 1
    assert not np.asarray(small.data.points).any()
    net = TwoLayerReLU([[1.0, 2.0, 3.0]], [1.0])
    assert not np.asarray(small.reduce(net)(small.data.points)).any()
