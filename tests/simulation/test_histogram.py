"""Quantiles read from counts, against NumPy's quantiles of the values counted."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.simulation import ERROR, MARGIN
from gradstarve.simulation.sweep._statistics import BINS, quantile

LEVELS = np.array([0.0, 0.001, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0])


def read(scale, values):
    counts = np.bincount(np.asarray(scale.index(jnp.asarray(values))), minlength=BINS)
    return quantile(scale, counts, values.min(), values.max(), LEVELS)


def margins(rng):
    return [
        rng.normal(size=1000),
        1e-4 * rng.standard_cauchy(1000),
        np.exp(rng.normal(0, 3, 500)),
        np.ones(7),
        np.array([-3.0, 5.0]),
        np.concatenate([np.full(50, -1e-3), np.full(50, 30.0)]),
    ]


@pytest.mark.parametrize("case", range(6))
def test_a_quantile_of_margins_is_within_its_bin(x64, case):
    values = margins(np.random.default_rng(0))[case]
    exact = np.quantile(values, LEVELS, method="inverted_cdf")
    width = np.sqrt(exact**2 + 0.05**2) / 32
    # Beyond the last edge nothing is promised but the extremes.
    inside = (np.abs(exact) < MARGIN.edges[-2]) | np.isin(LEVELS, [0, 1])
    assert (np.abs(read(MARGIN, values) - exact) <= 1.02 * width)[inside].all()


@pytest.mark.parametrize("spread", [0.5, 5.0])
def test_a_quantile_of_errors_is_within_its_bin(x64, spread):
    values = 1 / (1 + np.exp(np.random.default_rng(1).normal(2, spread, 2000)))
    exact = np.quantile(values, LEVELS, method="inverted_cdf")
    inside = (exact > ERROR.edges[1]) & (exact < ERROR.edges[-2]) | np.isin(LEVELS, [0, 1])
    assert inside.sum() > 5
    assert (np.abs(read(ERROR, values) - exact) <= exact * (1 - exact) / 20 * 1.03)[inside].all()


def test_open_bins_hold_what_no_bin_does():
    values = jnp.array([-1e30, 1e30, jnp.inf, -jnp.inf])
    assert MARGIN.index(values).tolist() == [0, BINS - 1, BINS - 1, 0]
    assert ERROR.index(jnp.array([0.0, 1.0])).tolist() == [0, BINS - 1]
    counts = np.zeros(BINS, int)
    counts[-1] = 3
    # Values of which only the least and the largest are known.
    assert quantile(MARGIN, counts, np.array(100.0), np.array(300.0), LEVELS)[[0, -1]].tolist() == [100, 300]


def test_edges_rise_and_nothing_counted_is_nan():
    for scale in (ERROR, MARGIN):
        assert (np.diff(scale.edges) > 0).all()
        middles = scale.value(np.arange(BINS) + 0.5)
        assert scale.index(jnp.asarray(middles, jnp.float32)).tolist() == list(range(BINS))
    empty = quantile(MARGIN, np.zeros((2, BINS), int), np.full(2, np.nan), np.full(2, np.nan), LEVELS)
    assert np.isnan(empty).all()
