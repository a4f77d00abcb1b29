"""Slow: sweeps in several processes of `jax.distributed` and on several devices, against one process with one device."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = {"width": 8, "steps": 60, "record_every": 20, "threshold": 0.3, "over": {"step_size": [0.1, 0.5]}, "keep": "final"}
SEEDS = 1000


def start(flags="", **task):
    task = {"block": 128, "problem": RUN | {"seeds": SEEDS}} | task
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    env = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.simulation.sweep_child", json.dumps(task)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)


def finish(*runs):
    for one in runs:
        _, errors = one.communicate(timeout=300)
        assert one.returncode == 0, errors


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def several(tmp_path, processes, problem):
    """The statistics as each of the processes has them."""
    port = free_port()
    outs = [tmp_path / f"{processes}-{process}.npz" for process in range(processes)]
    finish(
        *(
            start(process=process, processes=processes, port=port, out=str(out), problem=problem)
            for process, out in enumerate(outs)
        )
    )
    return [dict(np.load(out)) for out in outs]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "one.npz"
    finish(start(out=str(out)))
    return dict(np.load(out))


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert np.array_equal(one[name], other[name], equal_nan=True), name


def test_two_devices_are_one(tmp_path, alone):
    out = tmp_path / "two.npz"
    finish(start(flags="--xla_force_host_platform_device_count=2", out=str(out)))
    assert_same(dict(np.load(out)), alone)


@pytest.mark.parametrize("processes", [2, 3])
def test_processes_are_one(tmp_path, alone, processes):
    for found in several(tmp_path, processes, RUN | {"seeds": SEEDS}):
        assert_same(found, alone)


def test_processes_share_a_directory(tmp_path, alone):
    problem = RUN | {"seeds": SEEDS, "directory": str(tmp_path / "shared"), "batch_size": 128}
    for found in several(tmp_path, 2, problem):
        assert_same(found, alone)
    files = sorted((tmp_path / "shared").glob("chunk-*.npz"))
    assert len(files) == 16
    # One process goes on from what two have stored.
    files[5].unlink()
    out = tmp_path / "resumed.npz"
    finish(start(out=str(out), problem=problem))
    assert_same(dict(np.load(out)), alone)
