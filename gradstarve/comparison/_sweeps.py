"""Theory for the networks of a sweep: the errors that the law predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from gradstarve import theory
from gradstarve.ground import HypothesisError


def law_of_sweep(result: Any, configurations: Sequence[int], networks: int = 2048) -> np.ndarray:
    """The errors by the law, [configurations, networks, records], of the first networks of a sweep.

    `result`: a `SweepResult`; `configurations`: their numbers; for each, `theory.solve` solves the first `networks` seeds
    at the steps of `result.grid`. NaN for a configuration that theory has no law for: a network, loss or dynamics of the
    user's own, data that change, or a start outside of the hypotheses.
    """
    seeds = list(result.seeds[:networks])
    found = np.full((len(configurations), len(seeds), len(result.grid)), np.nan)
    for place, which in enumerate(configurations):
        one = result.configurations[which]
        if one.network is not None or one.phases is not None:
            continue
        try:
            with jax.enable_x64(result.precision == "float64"):
                start = result.network(seeds, **one.labels)
                law = theory.solve(one.data, start, one.loss, one.dynamics)
                found[place] = np.asarray(law.error(np.asarray(result.grid)))
        except (HypothesisError, ValueError):  # no law for this start, loss or dynamics
            continue
    return found
