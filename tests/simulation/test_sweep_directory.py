"""Sweeps that are stopped, killed, damaged and out of room, and what they are when they are called again."""

import errno
import itertools
import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from sweeps import HERE, RUN, blocks_of_64  # noqa: F401

import gradstarve as gs
from gradstarve.ground import files
from gradstarve.problem import Loss, SpectralDecoupling
from gradstarve.simulation.sweep import _claims as claims
from gradstarve.simulation.sweep import _run as sweep_blocks
from gradstarve.simulation.sweep import _store as sweep_store

SEEDS = 64 * 5 + 9  # six blocks


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
    with pytest.raises(ValueError, match=r"chunk .*-0000000128-64 is gone; run the same sweep again"):
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
    (mine,) = (tmp_path / "a").glob("chunk-*-0000000192-*")
    (other,) = (tmp_path / "b").glob("chunk-*-0000000192-*")
    mine.unlink()
    name = mine.name.rpartition("-")[0] + "-" + other.name.rpartition("-")[2]
    (tmp_path / "a" / name).write_bytes(other.read_bytes())
    with pytest.warns(UserWarning, match="belongs to another sweep; it is computed again"):
        assert same(run(tmp_path / "a"), fresh)
    assert mine.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 50, "loss": "hinge"}, r"steps: 40 there, 50 here; configurations\.0\.loss: \"CrossEntropy\(\)\" there"),
        ({"seeds": range(100, 400)}, r"seeds: \[0, 329\] there, \[100, 400\] here"),
        ({"seeds": 100, "over": {"width": [3, 4]}}, r"configurations\.1: only here; seeds: \[0, 329\] there, \[0, 100\]"),
        ({"key": 3}, "key: "),
        ({"dynamics": gs.GradientDescent(0.25)}, r"configurations\.0\.step_size: 0\.1000\d+ there, 0\.25 here"),
        ({"over": {"width": [2, 4]}}, r"configurations\.0\.width: 3 there, 2 here; configurations\.1: only here"),
        ({"data": gs.datasets.antipodal(frequencies=(0.7, 0.3))}, r"configurations\.0\.data: "),
        ({"seeds": 400, "data": gs.datasets.antipodal(frequencies=(0.7, 0.3))}, r"configurations\.0\.data: "),
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


class Own(Loss):
    """A loss of a user's, whose numbers are nowhere in its repr."""

    name = "own"

    def residual(self, margin):
        return SHARPNESS * jax.nn.sigmoid(-margin)

    def value(self, margin):
        return SHARPNESS * jax.nn.softplus(-margin)

    def __repr__(self):
        return "Own()"


SHARPNESS = 1.0


def test_every_number_of_a_loss_is_remembered(tmp_path, monkeypatch, trained):
    def penalised(penalty):
        return SpectralDecoupling("cross-entropy", penalty)

    few = {"seeds": 64}
    weak = run(tmp_path / "a", loss=penalised(0.1), **few)
    with pytest.raises(ValueError, match=r"0\.loss\.penalty: \"float32 0\.1\d+\" there, \"float32 1\.0\" here"):
        run(tmp_path / "a", loss=penalised(1.0), **few)
    assert not same(weak, run(loss=penalised(1.0), **few))
    run(tmp_path / "b", loss=Own(), **few)
    trained.clear()
    run(tmp_path / "a", loss=penalised(0.1), **few)
    run(tmp_path / "b", loss=Own(), **few)
    assert not trained
    monkeypatch.setitem(globals(), "SHARPNESS", 2.0)
    with pytest.raises(ValueError, match=r"configurations\.0\.loss\.type\.SHARPNESS: 1\.0 there, 2\.0 here"):
        run(tmp_path / "b", loss=Own(), **few)
    monkeypatch.setitem(globals(), "SHARPNESS", iter([1]))
    with pytest.raises(ValueError, match="the global 'SHARPNESS' that loss"):
        run(tmp_path / "c", loss=Own(), **few)
    assert not trained


def test_a_chunk_under_another_number_is_computed_again(tmp_path, trained):
    """Its checksum is right and it is of this sweep, but it is not that chunk."""
    over = {"step_size": [0.1, 0.3]}
    fresh = run(tmp_path, seeds=128, over=over)
    first, second, third, _ = chunks(tmp_path)
    for wrong, what in ((second, "holds 64 seeds from 64 on"), (third, "belongs to another sweep")):
        content = wrong.read_bytes()
        first.unlink()
        name = first.name.rpartition("-")[0] + "-" + wrong.name.rpartition("-")[2]
        (tmp_path / name).write_bytes(content)
        trained.clear()
        with pytest.warns(UserWarning, match=f"chunk-.* {what}; it is computed again"):
            again = run(tmp_path, seeds=128, over=over)
        assert len(trained) == 1
        assert same(again, fresh)
        assert chunks(tmp_path)[0].name == first.name


def test_blocks_that_a_chunk_says_it_has_are_compared(tmp_path, monkeypatch, trained):
    fresh = run(tmp_path, seeds=128)
    load = sweep_store.Store.load

    def mixed(self, piece):
        arrays, wrong = load(self, piece)
        return arrays and arrays | {"block": np.array([64 - piece.first])}, wrong

    with monkeypatch.context() as patch:
        patch.setattr(sweep_store.Store, "load", mixed)
        trained.clear()
        with pytest.warns(UserWarning, match=r"holds blocks that begin at \[(0|64)\] in place of \[(0|64)\]"):
            assert same(run(tmp_path, seeds=128), fresh)
    assert trained == [0, 1]


def failing(code):
    def fail(*_, **__):
        raise OSError(code, os.strerror(code))

    return fail


def test_without_flushing_of_directories_a_sweep_goes_on_with_a_warning(tmp_path, monkeypatch):
    flush = os.fsync

    def only_files(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        flush(handle)

    monkeypatch.setattr(sweep_store.os, "fsync", only_files)
    with pytest.warns(UserWarning, match="cannot flush a directory .*power failure") as told:
        run(tmp_path, seeds=128)
    assert len(told) == 1


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ENOSPC, "make room"),
        (errno.ESTALE, "mount it again"),
        (errno.EROFS, "permissions"),
        (errno.EMFILE, "ulimit"),
        (errno.EIO, "fault"),
        (errno.EINVAL, "Remove the cause"),
    ],
)
def test_the_advice_fits_the_trouble(tmp_path, monkeypatch, code, what):
    monkeypatch.setattr(files, "write_through", failing(code))
    words = rf"cannot write data-.*\.npz .*{os.strerror(code)}\. .*{what}.*same sweep again"
    with pytest.raises(OSError, match=words) as told:
        run(tmp_path, seeds=64)
    assert told.value.errno == code
    assert ("make room" in str(told.value)) == (code == errno.ENOSPC)


def test_a_finished_sweep_is_read_where_nothing_can_be_written(tmp_path, monkeypatch, trained):
    fresh = run(tmp_path, seeds=128)
    (tmp_path / f".part-gradstarve-00000000-1-{'0' * 16}-manifest.json").write_text("")
    there = sorted(path.name for path in tmp_path.iterdir())
    opened = open

    def read_only(path, mode="r", *more, **how):
        if str(path).startswith(str(tmp_path)) and mode[0] in "wax":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return opened(path, mode, *more, **how)

    monkeypatch.setattr("builtins.open", read_only)
    trained.clear()
    assert same(run(tmp_path, seeds=128), fresh)
    assert not trained
    assert sorted(path.name for path in tmp_path.iterdir()) == there
    assert same(gs.open_sweep(tmp_path), fresh)
    with pytest.raises(ValueError, match="cannot be written to, and holds a smaller sweep"):
        run(tmp_path, seeds=200)
    chunks(tmp_path)[0].unlink()
    with pytest.raises(ValueError, match=r"not complete \(1 chunks are missing\), and the directory cannot be written"):
        run(tmp_path, seeds=128)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(ValueError, match="cannot be written to, and no sweep is stored there"):
        run(tmp_path, seeds=128)


def test_files_of_others_are_left_alone(tmp_path):
    gone, here = 2**22 + 1, claims.host()
    mine = [".part-mine", ".part-0-manifest.json", ".part-gradstarve-notes.txt"]
    runs = ((here, os.getppid()), ("0" * 8, gone))
    mine += [f".part-gradstarve-{host}-{pid}-{'0' * 16}-manifest.json" for host, pid in runs]
    own = f".part-gradstarve-{here}-{gone}-{'0' * 16}-manifest.json"
    old = f".part-gradstarve-{'1' * 8}-{gone}-{'0' * 16}-manifest.json"
    for name in (*mine, own, old):
        (tmp_path / name).write_text("words")
    os.utime(tmp_path / old, (0, 0))
    run(tmp_path, seeds=64)
    assert [(tmp_path / name).exists() for name in (*mine, own, old)] == [True] * 5 + [False] * 2


@pytest.mark.parametrize(
    "content", [None, "", '{"format"', "{}", "[" * 10**5, '{"format": 3, "settings": {}, "environment": {}}']
)
def test_a_lost_manifest_is_written_again_from_sound_chunks(tmp_path, trained, content):
    fresh = run(tmp_path, seeds=128)
    path = tmp_path / "manifest.json"
    before = path.read_bytes()
    chunks(tmp_path)[0].write_bytes(b"damaged")

    def lose():
        path.unlink()
        if content is not None:
            path.write_text(content)

    lose()
    with pytest.raises(ValueError, match="belongs to this sweep; call the sweep that it was begun with"):
        run(tmp_path, seeds=128, key=1)
    trained.clear()
    with pytest.warns(UserWarning, match="written again from chunk-|computed again") as told:
        assert same(run(tmp_path, seeds=128, batch_size=None), fresh)
    assert trained == [0]
    assert ["written again from chunk-" in str(one.message) for one in told] == [True, False]
    assert path.read_bytes() == before


@pytest.mark.parametrize("directory", ["", 3, b""])
def test_what_is_no_directory_is_refused(directory):
    with pytest.raises(ValueError, match="directory must be the path of a directory"):
        run(directory, seeds=64)


def test_a_directory_in_place_of_a_chunk_is_named_before_the_work(tmp_path, trained):
    run(tmp_path, seeds=64)
    (path,) = chunks(tmp_path)
    path.unlink()
    path.mkdir()
    trained.clear()
    with pytest.raises(ValueError, match=rf"{path.name}' is not a file; move it away"):
        run(tmp_path, seeds=64)
    assert not trained


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


def test_strange_directories_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot create the directory"):
        run(tmp_path / "file")
    for name, content, message in (
        ("manifest.json", "{}", "not the manifest of a sweep"),
        ("manifest.json", '{"format"', "not the manifest of a sweep"),
        ("manifest.json", '{"format": 1, "settings": {}, "environment": {}, "sizes": {}}', "format 1, .* values of losses"),
        ("manifest.json", '{"format": 2, "settings": {}, "environment": {}, "sizes": {}}', "format 2, .* number of seeds"),
        ("manifest.json", '{"format": 99, "settings": {}, "environment": {}, "sizes": {}}', "has format 99"),
        ("chunk-000000-aa.npz", "", "has chunks but no manifest"),
        ("manifest.json", '{"format": 3, "settings": 1, "environment": {}}', "not the manifest of a sweep"),
    ):
        directory = tmp_path / str(len(list(tmp_path.iterdir())))
        directory.mkdir()
        (directory / name).write_text(content)
        with pytest.raises(ValueError, match=message):
            run(directory)


def test_a_full_disk_is_told_and_loses_nothing(tmp_path, monkeypatch):
    write = files.write_through
    room = itertools.count()

    def full(file, content):
        if next(room) >= 4:  # the data, the manifest, and two chunks
            file.write(content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(file, content)

    monkeypatch.setattr(files, "write_through", full)
    with pytest.raises(OSError, match=r"cannot write the chunk of seeds 128 to 191 .*No space left.*make room") as told:
        run(tmp_path)
    assert told.value.errno == errno.ENOSPC
    assert len(chunks(tmp_path)) == 2
    assert not list(tmp_path.glob(".part-*"))
    monkeypatch.setattr(files, "write_through", write)
    assert same(run(tmp_path), run())


def child(**task):
    task = {"block": 64, "problem": RUN | {"seeds": SEEDS, "batch_size": 64}} | task
    path = os.pathsep.join([str(Path(__file__).parents[2]), *sys.path])
    command = [sys.executable, "-m", "tests.simulation.sweep_child", json.dumps(task)]
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
    assert len(chunks(torn)) == 1  # the first files are the data and the manifest
    assert len(list(torn.glob(".part-*"))) == 1
    assert 0 < len(chunks(stopped)) < 40
    whole = run(seeds=seeds)
    for directory in (torn, stopped):
        assert same(run(directory, seeds), whole)
        assert len(chunks(directory)) == 40
        assert not list(directory.glob(".part-*"))


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt" or os.getuid() != 0, reason="mounting needs root")
def test_a_disk_that_is_really_full(tmp_path):
    """Slow: a file system of 120 kB in memory, enlarged when it is full."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=120k", "tmpfs", str(disk)], capture_output=True, text=True)
    if mount.returncode:
        pytest.skip(f"cannot mount: {mount.stderr}")
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
