"""The benchmark for GPUs, as far as a machine without one can tell: it says so, and its arithmetic is right."""

import json
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_dry_run_goes_through_every_part(monkeypatch, capsys):
    """All that a GPU is asked, in small: the kernel interpreted, the sweep by the engine that is there."""
    for size in ("S1", "S2", "S3"):
        monkeypatch.setattr(gpu, size, getattr(gpu, size)._replace(h=3, d=2, n=2, T=100))
    for name, value in {"DRAWN": 5, "SEEDS_COMPARED": 20, "INPUTS": 6, "HIDDEN": 8, "MEMORY": 10**6}.items():
        monkeypatch.setattr(gpu, name, value)
    todo = gpu.parts((6, 12), seeds=40, samples=24, turns=2)
    assert list(todo) == [
        *("S1, B = 6", "S2, B = 6", "S3, B = 6", "sweep of 40", "kernel of 24"),
        *(f"S{i}, B = 12" for i in (1, 2, 3)),
    ]
    todo = {name: part for name, part in todo.items() if name not in ("S2, B = 6", "S3, B = 6", "S1, B = 12", "S2, B = 12")}

    def fails():
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory\nand more")

    rows = gpu.run(todo | {"too large": fails}, limit=1e9)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == rows
    by = {(row["size"], row.get("engine"), row.get("B")): row for row in rows}
    assert len(by) == len(rows) == 3 + 1 + 1 + 3 + 1
    for B in (6, 12):
        kernel = by["S1" if B == 6 else "S3", "pallas", B]
        assert kernel["error"] < 1e-9
        assert kernel["median_error"] < 1e-5
    swept = rows[3]
    assert (swept["networks"], swept["size"]) == (40, "sweep of S1")
    assert 0 < swept["worst_error"] < 1e-5
    report = rows[4]
    assert report["size"] == f"kernel, P = {6 * 8 + 8 * 8 + 8}"
    assert 0 < report["error"] < 1e-5
    assert rows[-1]["note"] == "RuntimeError: RESOURCE_EXHAUSTED: out of memory"
    assert gpu.run({"late": fails}, limit=-1.0) == [{"size": "late", "note": "left out after -1 s"}]


def test_large_batches_take_fewer_steps():
    assert gpu.short(gpu.S1) == gpu.S1
    for size in (gpu.S1, gpu.S2, gpu.S3):
        for B in gpu.BATCHES:
            short = gpu.short(size._replace(B=B))
            assert short.T % gpu.RECORD_EVERY == 0
            assert 100 <= short.T <= size.T
            assert short.flops <= max(gpu.MOST_FLOPS, 100 * size._replace(B=B, T=1).flops)


def test_distance_of_distributions():
    assert gpu.distance(np.array([1.0, 2.0]), np.array([2.0, 1.0])) == 0
    assert gpu.distance(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert gpu.distance(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 3.0, 9.0])) == 0.25
