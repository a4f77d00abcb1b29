"""Looking up a record by its step or time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.problem import GradientDescent, datasets, init_two_layer
from gradstarve.simulation import Trajectory, simulate, simulate_flow


@pytest.fixture(scope="module")
def descent():
    nets = init_two_layer(jax.random.key(0), (2, 3), 4, 2)
    return simulate(datasets.antipodal(), nets, "cross-entropy", GradientDescent(0.1), 45, record_every=10)


@pytest.fixture(scope="module")
def flow():
    nets = init_two_layer(jax.random.key(0), 3, 4, 2)
    return simulate_flow(datasets.antipodal(), nets, "cross-entropy", np.arange(8) * 0.1)


def test_shapes_follow_t(descent):
    assert isinstance(descent, Trajectory)
    for t, shape in ((None, (6,)), (20, ()), ([10], (1,)), (np.array([[0, 45], [40, 10]]), (2, 2))):
        assert descent.logits(t).shape == (2, 3, *shape, 2)
        for quantity in (descent.error, descent.loss, descent.mistakes):
            assert quantity(t).shape == (2, 3, *shape)


def test_an_array_of_t_is_a_loop_over_t(descent):
    grid = descent.grid
    assert np.array_equal(descent.logits(grid), descent.logits())
    assert np.array_equal(descent.logits(jnp.asarray(grid)), descent.logits())
    for k in grid:
        assert np.array_equal(descent.logits(int(k)), descent.logits()[..., list(grid).index(k), :])
        assert np.array_equal(descent.logits(float(k)), descent.logits(int(k)))


def test_curves_are_their_definitions(descent):
    margins = np.asarray(descent.logits()) * np.array([1, -1])
    np.testing.assert_array_equal(descent.margins(), margins)
    np.testing.assert_allclose(descent.error(), (0.5 / (1 + np.exp(margins))).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(descent.loss(), (0.5 * np.log1p(np.exp(-margins))).sum(-1), rtol=1e-5)
    np.testing.assert_allclose(descent.mistakes(), (margins <= 0).mean(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("t", "message"),
    [
        (15, r"t = 15 was not recorded; recorded nearest to it: 10 and 20 .*6 values from 0 to 45"),
        (-1, "t = -1 was not recorded; recorded nearest to it: 0 "),
        (46, "t = 46 was not recorded; recorded nearest to it: 45 "),
        ([0, 43], "t = 43 was not recorded; recorded nearest to it: 40 and 45"),
        (10.5, r"t = 10\.5 was not recorded"),
        (float("nan"), "t must be recorded, got nan"),
        (float("inf"), "t = inf was not recorded"),
        ("10", "t must hold numbers, got '10'"),
        (10j, "t is complex, 10j"),
        (True, "t must be a number"),
    ],
)
def test_what_was_not_recorded_is_refused(descent, t, message):
    with pytest.raises(ValueError, match=message):
        descent.logits(t)
    with pytest.raises(ValueError):
        descent.error(t)


def test_times_match_up_to_rounding(flow):
    assert flow.grid.dtype == np.float32
    for i, t in enumerate((0, 0.1, 0.2, 3 * 0.1, 0.4, np.float32(0.5), 0.6, 0.7)):
        assert np.array_equal(flow.logits(t), flow.logits()[:, i])
    with pytest.raises(ValueError, match=r"t = 0\.3001 was not recorded"):
        flow.logits(0.3001)


def test_networks_that_were_not_kept(descent):
    assert descent.network(0) is descent.initial
    assert descent.network(45) is descent.final
    assert descent.network(45.0) is descent.final
    for t in (20, None, [0, 45]):
        with pytest.raises(ValueError, match=r"record_networks=True .*\.network\(0\), and the last, \.network\(45\)"):
            descent.network(t)
    with pytest.raises(ValueError, match="t = 46 was not recorded"):
        descent.network(46)


def test_a_trajectory_passes_through_jit(descent):
    again = jax.jit(lambda run: run)(descent)
    assert np.array_equal(again.error([10, 45]), descent.error([10, 45]))
    assert np.array_equal(jax.jit(lambda run: run.error())(descent), descent.error())
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda run: run.error(10))(descent)
