"""Sweeps that are stopped, killed, damaged and out of room, and what they are when they are called again."""

import errno
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.simulate import sweep_blocks, sweep_plan, sweep_store

RUN = {"width": 3, "steps": 40, "record_every": 10, "engine": "reference", "threshold": 0.3, "scale_w": 0.7}
HERE = RUN | {"devices": jax.local_devices()[:1]}
SEEDS = 64 * 5 + 9


@pytest.fixture(autouse=True)
def blocks_of_64(monkeypatch):
    """Six blocks, each a chunk."""
    monkeypatch.setattr(sweep_plan, "block_size", lambda *_: 64)


@pytest.fixture
def trained(monkeypatch):
    """The numbers of the blocks that were trained, and not read."""
    seen = []
    train = sweep_blocks.Trainer._train
    monkeypatch.setattr(
        sweep_blocks.Trainer, "_train", lambda self, block, device: seen.append(block.number) or train(self, block, device)
    )
    return seen


def run(directory=None, seeds=SEEDS, data=None, **how):
    data = gs.datasets.antipodal(frequencies=(0.8, 0.2)) if data is None else data
    return gs.sweep(data, seeds, directory=directory, **HERE | {"batch_size": 64} | how)


def same(one, other):
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.statistics)


def chunks(directory):
    return sorted(directory.glob("chunk-*.npz"))


def test_a_second_call_trains_nothing(tmp_path, trained):
    fresh = run(tmp_path / "a", keep="final")
    assert sorted(trained) == [0, 1, 2, 3, 4, 5]
    assert len(chunks(tmp_path / "a")) == 6
    trained.clear()
    again = run(tmp_path / "a", keep="final", batch_size=None, memory=5e8)
    assert trained == []
    assert same(fresh, again)
    assert np.array_equal(fresh.final().w, again.final().w)
    in_memory = run(keep="final")
    assert same(fresh, in_memory)
    assert np.array_equal(fresh.logits(), in_memory.logits())
    # What is read of a result later is checked too.
    chunks(tmp_path / "a")[2].unlink()
    with pytest.raises(ValueError, match="chunk 2 is gone; run the same sweep again"):
        again.final()


def test_an_interrupt_loses_no_chunk(tmp_path, trained):
    def interrupt(done, total):
        if done >= 190:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=f"128 of {SEEDS} networks stored in .* run the same sweep again"):
        run(tmp_path, progress=interrupt)
    assert len(chunks(tmp_path)) == 2
    trained.clear()
    seen = []
    resumed = run(tmp_path, progress=lambda done, total: seen.append(done))
    assert sorted(trained) == [2, 3, 4, 5]
    assert seen[:2] == [0, 128]
    assert same(resumed, run())
    with pytest.raises(KeyboardInterrupt, match="nothing of it is stored; with directory="):
        run(progress=interrupt)


def test_damaged_chunks_are_found_and_computed_again(tmp_path, trained):
    fresh = run(tmp_path)
    names = [path.name for path in chunks(tmp_path)]
    flipped, cut, empty, lost = chunks(tmp_path)[1:5]
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    cut.write_bytes(cut.read_bytes()[:-1])
    empty.write_bytes(b"")
    lost.unlink()
    trained.clear()
    with pytest.warns(UserWarning, match="computed again") as told:
        again = run(tmp_path)
    assert sorted(trained) == [1, 2, 3, 4]
    for path, warning in zip((flipped, cut, empty), told, strict=True):
        assert path.name in str(warning.message)
    assert same(fresh, again)
    # The very same bytes, so that the checksums in the names are the same.
    assert [path.name for path in chunks(tmp_path)] == names


def test_a_chunk_of_another_sweep_is_not_taken(tmp_path):
    fresh = run(tmp_path / "a")
    run(tmp_path / "b", key=1)
    (mine,) = (tmp_path / "a").glob("chunk-000003-*")
    (other,) = (tmp_path / "b").glob("chunk-000003-*")
    mine.unlink()
    (tmp_path / "a" / other.name).write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="belongs to another sweep; it is computed again"):
        assert same(run(tmp_path / "a"), fresh)
    assert mine.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 50, "loss": "hinge"}, r"steps: 40 there, 50 here; configurations\.0\.loss: \"CrossEntropy\(\)\" there"),
        ({"seeds": 100}, r"seeds: \[0, 329\] there, \[0, 100\] here"),
        ({"key": 3}, "key: "),
        ({"dynamics": gs.GradientDescent(0.25)}, r"configurations\.0\.step_size: 0\.1000\d+ there, 0\.25 here"),
        ({"over": {"width": [3, 4]}}, r"configurations\.1: only here"),
        ({"data": gs.datasets.antipodal(frequencies=(0.7, 0.3))}, r"configurations\.0\.data: "),
        ({"keep": "final"}, 'keep: "statistics" there, "final" here'),
    ],
)
def test_other_settings_are_refused(tmp_path, change, message):
    def stop(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, progress=stop)
    with pytest.raises(ValueError, match=message) as refused:
        run(tmp_path, **change)
    assert "begun with other settings" in str(refused.value)


def test_going_on_elsewhere_is_refused_and_reading_is_not(tmp_path):
    fresh = run(tmp_path)
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["environment"]["jaxlib"] = "0.0.1"
    path.write_text(json.dumps(manifest))
    assert same(run(tmp_path), fresh)
    chunks(tmp_path)[0].unlink()
    with pytest.raises(ValueError, match=r'begun elsewhere: jaxlib: "0\.0\.1" there, .* here'):
        run(tmp_path)


def test_two_sweeps_do_not_share_a_directory(tmp_path):
    refused = []

    def another(done, total):
        if not refused:
            with pytest.raises(ValueError, match="another sweep is at work"):
                run(tmp_path)
            refused.append(True)

    result = run(tmp_path, progress=another)
    assert refused
    assert same(result, run(tmp_path))


def test_strange_directories_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="can not create the directory"):
        run(tmp_path / "file")
    for name, content, message in (
        ("manifest.json", "{}", "not the manifest of a sweep"),
        ("manifest.json", '{"format"', "not the manifest of a sweep"),
        ("manifest.json", '{"format": 99, "settings": {}, "environment": {}, "sizes": {}}', "has format 99"),
        ("chunk-000000-aa.npz", "", "has chunks but no manifest"),
    ):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        (directory / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            run(directory)


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, monkeypatch):
    write = sweep_store.write_through
    room = itertools.count()

    def full(file, content):
        if next(room) >= 4:
            file.write(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, content)

    monkeypatch.setattr(sweep_store, "write_through", full)
    with pytest.raises(OSError, match=r"can not write chunk 3 .*No space left on device.*make room") as told:
        run(tmp_path)
    assert told.value.errno == errno.ENOSPC
    assert len(chunks(tmp_path)) == 3
    assert not list(tmp_path.glob(".part-*"))
    monkeypatch.setattr(sweep_store, "write_through", write)
    assert same(run(tmp_path), run())


def child(**task):
    task = {"block": 64, "problem": RUN | {"seeds": SEEDS, "batch_size": 64}} | task
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", "tests.simulate.sweep_child", json.dumps(task)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": path})


def test_killed_runs_go_on_to_the_same_result(tmp_path):
    """Killed in the middle of writing a chunk, and from outside: what is left is made complete here."""
    seeds = 64 * 40
    problem = RUN | {"seeds": seeds, "batch_size": 64}
    torn, stopped = tmp_path / "torn", tmp_path / "stopped"
    with (
        child(problem=problem | {"directory": str(torn)}, die_at=3) as first,
        child(problem=problem | {"directory": str(stopped)}) as second,
    ):
        for _ in range(random.randrange(4, 20)):
            second.stdout.readline()
        second.kill()
        first.communicate(timeout=120)
    assert first.returncode == second.returncode == -signal.SIGKILL
    assert len(chunks(torn)) == 2  # the first file is the manifest
    assert len(list(torn.glob(".part-*"))) == 1
    assert 0 < len(chunks(stopped)) < 40
    whole = run(seeds=seeds)
    for directory in (torn, stopped):
        assert same(run(directory, seeds), whole)
        assert len(chunks(directory)) == 40
        assert not list(directory.glob(".part-*"))


def test_killed_twenty_times(tmp_path):
    """Slow: each kill at a random moment, from before the first chunk to well after it."""
    problem = RUN | {"seeds": 300_000, "steps": 800, "record_every": 200, "batch_size": 512}
    problem |= {"directory": str(tmp_path / "killed")}
    kills, found = 0, []
    while kills < 20:
        with child(block=512, problem=problem) as one:
            if random.random() < 0.9:
                for _ in range(random.randrange(30)):  # the first lines come before anything is compiled
                    one.stdout.readline()
            time.sleep(random.uniform(0, 0.3))
            assert one.poll() is None, "the sweep is too short for this test"
            one.kill()
        assert one.returncode == -signal.SIGKILL
        kills += 1
        found.append(len(chunks(tmp_path / "killed")))
    print("chunks after each kill:", *found)
    assert 0 < found[-1] < 586
    for name, task in (("killed", problem), ("whole", problem | {"directory": str(tmp_path / "whole")})):
        with child(block=512, problem=task, out=str(tmp_path / f"{name}.npz")) as last:
            last.communicate(timeout=600)
        assert last.returncode == 0
    with np.load(tmp_path / "killed.npz") as one, np.load(tmp_path / "whole.npz") as other:
        assert one.files == other.files
        for name in one.files:
            assert np.array_equal(one[name], other[name], equal_nan=True), name
    # Even the files are the same, byte for byte: their names hold their checksums.
    names = [[path.name for path in chunks(tmp_path / name)] for name in ("killed", "whole")]
    assert names[0] == names[1]
    assert len(names[0]) == 586


@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path):
    """Slow: a file system of 120 kB in memory, enlarged when it is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"can not mount: {mount.stderr}")
    try:
        with pytest.raises(OSError, match="No space left on device"):
            run(disk)
        stored = len(chunks(disk))
        assert 0 < stored < 6
        assert not list(disk.glob(".part-*"))
        subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
        assert same(run(disk), run())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
