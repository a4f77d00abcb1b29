"""Slow: sweeps in several processes, of `jax.distributed` or of a job array, against one process with one device."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

RUN = {"width": 8, "steps": 60, "record_every": 20, "threshold": 0.3, "over": {"step_size": [0.1, 0.5]}, "keep": "final"}
SEEDS = 1000


def start(flags="", wide=False, **task):
    task = {"block": 128, "problem": RUN | {"seeds": SEEDS}} | task
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    env = os.environ | {"PYTHONPATH": path, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": str(int(wide))}
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


@pytest.mark.slow
def test_two_devices_are_one(tmp_path, alone):
    out = tmp_path / "two.npz"
    finish(start(flags="--xla_force_host_platform_device_count=2", out=str(out)))
    assert_same(dict(np.load(out)), alone)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_processes_are_one(tmp_path, alone, processes):
    for found in several(tmp_path, processes, RUN | {"seeds": SEEDS}):
        assert_same(found, alone)


@pytest.mark.slow
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


def wait_for(one, networks):
    """Until a run has told that it has so many networks."""
    for line in one.stdout:
        if int(line) >= networks:
            return
    raise AssertionError(one.stderr.read())


@pytest.mark.slow
def test_a_sweep_grows_by_four_tasks_one_of_which_is_killed(tmp_path):
    """10,000 seeds, then 100,000 and two more step sizes by a job array: one run, to the last bit, in any precision."""
    directory = tmp_path / "grows"
    problem = {"width": 8, "steps": 20_000, "record_every": 2000, "threshold": 0.3, "seeds": 10_000}
    problem |= {"over": {"step_size": [0.1]}, "directory": str(directory)}
    finish(start(block=None, problem=problem))
    begun = {path.name: path.stat().st_mtime_ns for path in directory.glob("chunk-*")}
    assert len(begun) == 4  # three blocks, and one that is not full

    larger = problem | {"seeds": 100_000, "over": {"step_size": [0.05, 0.1, 0.3]}}
    outs = [tmp_path / f"task-{task}.npz" for task in range(4)]
    tasks = [start(block=None, problem=larger, out=str(out)) for out in outs]
    wait_for(tasks[1], 30_000)
    tasks[1].kill()
    tasks[1].communicate()
    assert tasks[1].returncode == -signal.SIGKILL
    unfinished = [one for one in tasks if one.poll() is None]
    assert len(unfinished) == 3, "the sweep is too short for this test"
    tasks[1] = start(block=None, problem=larger, out=str(outs[1]))
    finish(*tasks)
    assert not list(directory.glob("claim-*"))
    assert not list(directory.glob(".part-*"))
    now = {path.name: path.stat().st_mtime_ns for path in directory.glob("chunk-*")}
    assert all(now[name] == when for name, when in begun.items())

    whole, opened = tmp_path / "whole.npz", tmp_path / "opened.npz"
    finish(start(block=None, problem=larger | {"directory": None}, out=str(whole)))
    finish(start(wide=True, open=str(directory), out=str(opened)))
    expected = dict(np.load(whole))
    assert expected["error_mean"].shape == (3, 11)
    for out in (*outs, opened):
        assert_same(dict(np.load(out)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 4])
def test_a_process_of_a_cluster_is_killed(tmp_path, processes):
    """The others finish its work without it; the job that is queued again finds all of it done."""
    directory = tmp_path / "shared"
    problem = RUN | {"seeds": SEEDS, "directory": str(directory), "batch_size": 128}
    port = free_port()
    outs = [tmp_path / f"{process}.npz" for process in range(processes)]
    slower = problem | {"steps": 40_000, "record_every": 10_000, "engine": "reference"}
    runs = [
        start(process=process, processes=processes, port=port, out=str(out), problem=slower)
        for process, out in enumerate(outs)
    ]
    wait_for(runs[-1], 1)
    runs[-1].kill()
    runs[-1].communicate()
    for out in outs[:-1]:
        for _ in range(3000):
            if out.exists():
                break
            time.sleep(0.1)
        assert out.exists()
    for one in runs[:-1]:  # at their ends they wait for the one that is gone
        one.kill()
        one.communicate()
    again = several(tmp_path, processes, slower)
    for found in again:
        for out in outs[:-1]:
            assert_same(found, dict(np.load(out)))
