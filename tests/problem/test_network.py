"""The two-layer network and its initialiser."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from gradstarve.problem import Network, TwoLayerReLU, init_two_layer


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_logits_are_the_definition(batch):
    net = init_two_layer(jax.random.key(0), batch, 5, 3)
    points = np.asarray(jax.random.normal(jax.random.key(1), (4, 3)))
    got = net(jnp.asarray(points))
    assert (net.batch_shape, net.width, net.dim, got.shape) == (batch, 5, 3, (*batch, 4))
    for index in np.ndindex(*batch):
        w, z = np.asarray(net.w)[index], np.asarray(net.z)[index]
        for i, x in enumerate(points):
            want = sum(z[j] * max(w[j] @ x, 0) for j in range(5))
            np.testing.assert_allclose(got[(*index, i)], want, rtol=0, atol=1e-5)


def test_indexing_picks_networks():
    net = init_two_layer(jax.random.key(0), (2, 3), 5, 3)
    assert net[1].batch_shape == (3,)
    assert net[:, 0].batch_shape == (2,)
    assert np.array_equal(net[1, 2].w, net.w[1, 2])
    with pytest.raises(IndexError, match="one network"):
        net[0, 0][0]


@pytest.mark.slow
def test_a_larger_batch_extends_a_smaller_one():
    key = jax.random.key(3)
    large = init_two_layer(key, 10, 4, 3, 0.5, 2.0)
    for batch in (7, (2, 3)):
        small = init_two_layer(key, batch, 4, 3, 0.5, 2.0)
        count = int(np.prod(batch))
        assert np.array_equal(small.w.reshape(count, 4, 3), large.w[:count])
        assert np.array_equal(small.z.reshape(count, 4), large.z[:count])
    assert np.array_equal(init_two_layer(key, (), 4, 3, 0.5, 2.0).w, large.w[0])


def test_weights_are_gaussian_of_the_given_scales_and_independent():
    net = init_two_layer(jax.random.key(4), 4000, 3, 2, scale_w=0.3, scale_z=5.0)
    columns = np.concatenate([np.asarray(net.w).reshape(4000, 6) / 0.3, np.asarray(net.z) / 5.0], axis=1)
    for column in columns.T:
        assert stats.kstest(column, "norm").pvalue > 1e-3
    correlation = np.corrcoef(columns.T) - np.eye(9)
    assert np.abs(correlation).max() < 5 / 4000**0.5


def test_scale_zero_and_other_keys():
    assert not np.asarray(init_two_layer(jax.random.key(0), 2, 3, 4, scale_z=0.0).z).any()
    one, other = (init_two_layer(jax.random.key(seed), 2, 3, 4).w for seed in (0, 1))
    assert not np.isclose(one, other).any()


def test_networks_pass_through_jit_and_grad():
    net = TwoLayerReLU([[1.0, -1.0]], [2.0])
    slope = jax.jit(jax.grad(lambda n: n(jnp.array([[3.0, 1.0]]))[0]))(net)
    assert slope.w.tolist() == [[6.0, 2.0]]
    assert slope.z.tolist() == [2.0]


def test_what_an_own_network_lacks_is_said():
    class Bare(Network):
        w: jax.Array

    bare = Bare(jnp.ones(2))
    point = jnp.ones((1, 2))
    for read, name in (
        (lambda: bare.dim, "dim"),
        (lambda: bare.batch_shape, "batch_shape"),
        (lambda: bare(point), "__call__"),
    ):
        with pytest.raises(NotImplementedError, match=f"Bare lacks .*{name}"):
            read()
    with pytest.raises(ValueError, match=r"Wrong\.outputs is a method; write @property"):

        class Wrong(Network):
            def outputs(self):
                return (3,)

    with pytest.raises(ValueError, match=r"Compiled\.dim is a method; write @property"):

        class Compiled(Network):
            @jax.jit
            def dim(self):
                return 3
