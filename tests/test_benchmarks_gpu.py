"""The benchmark for GPUs, as far as a machine without one can tell: it says so, and its arithmetic is right."""

import sys
from pathlib import Path

import jax
import numpy as np
import pytest

# As in test_benchmarks.py.
sys.path.append(str(Path(__file__).parents[1]))

from benchmarks import gpu
from benchmarks.problems import Size


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_without_a_gpu_there_are_no_numbers(capsys):
    assert gpu.measure() == []
    assert "no GPU" in capsys.readouterr().out


def test_rows_say_time_ratio_and_error(monkeypatch):
    monkeypatch.setitem(gpu.PEAKS, jax.devices()[0].device_kind, (1e12, 1e11))
    size = Size("tiny", 20, 3, 2, 2, 100)
    rows = gpu.against_naive(size, turns=2)
    assert [row["engine"] for row in rows] == ["naive vmap(grad) + scan", "pallas", "simulate(engine='pallas')"]
    assert rows[0]["ratio_to_naive"] == 1
    assert rows[1]["error"] < 1e-9
    for row in rows:
        assert row["ratio_to_naive"] == pytest.approx(rows[0]["seconds"] / row["seconds"])
        assert row["net_steps_per_second"] == pytest.approx(2000 / row["seconds"])
        assert row["median_error"] < 1e-5
        assert row["distance_of_distributions"] <= 0.1
        # Nine weights twice and two logits at each of two records.
        assert row["share_of_bandwidth"] == pytest.approx(20 * (18 + 4) * 4 / row["seconds"] / 1e11)
        assert row["share_of_peak"] == pytest.approx(size.flops / row["seconds"] / 1e12)


def test_distance_of_distributions():
    assert gpu.distance(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == 0
    assert gpu.distance(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert gpu.distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 9.0])) == 0.25
