"""Every hypothesis that is said to matter does: without it there is a counterexample, whatever the key."""

import jax
import pytest

from gradstarve.theorems import CATALOGUE


@pytest.mark.parametrize("name", [name for name, theorem in CATALOGUE.items() if theorem.necessity])
def test_dropping_a_hypothesis_gives_a_counterexample(name):
    with jax.enable_x64(True):
        for i, drop in enumerate(CATALOGUE[name].necessity):
            for seed in range(2):
                found = drop(jax.random.key(100 * i + seed))
                assert found.found, found.failure
                assert found.dropped
                assert found.numbers
