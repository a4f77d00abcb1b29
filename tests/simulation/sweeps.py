"""The small sweep of the tests, and its blocks."""

import jax
import pytest

from gradstarve.simulation.sweep import _plan as sweep_plan

RUN = {"width": 3, "steps": 40, "record_every": 10, "engine": "reference", "threshold": 0.3, "scale_w": 0.7}
HERE = RUN | {"devices": jax.local_devices()[:1]}


@pytest.fixture(autouse=True)
def blocks_of_64(monkeypatch):
    """In a file that imports it: blocks so small that a test has several, and of one size, so that tests share what is
    compiled."""
    monkeypatch.setattr(sweep_plan, "block_size", lambda *_: 64)
