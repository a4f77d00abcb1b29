"""Directories that grow, that several tasks fill at once, and that are read without the arguments."""

import contextlib
import json
import os
import pickle
import threading
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest
from sweeps import HERE, blocks_of_64  # noqa: F401

import gradstarve as gs
from gradstarve.problem import Loss, SpectralDecoupling
from gradstarve.simulation.sweep import _claims as claims
from gradstarve.simulation.sweep import _plan as sweep_plan
from gradstarve.simulation.sweep import _run as sweep_blocks
from gradstarve.simulation.sweep._remember import recipe, remade

DATA = {"frequencies": (0.8, 0.2)}


@pytest.fixture
def trained(monkeypatch):
    """The (step size, first seed) of the blocks that were trained, and not read."""
    seen = []
    train = sweep_blocks.Trainer._train

    def noted(self, block, device):
        seen.append((float(self.found[block.configuration].dynamics.step_size), self.first_seed + block.first))
        return train(self, block, device)

    monkeypatch.setattr(sweep_blocks.Trainer, "_train", noted)
    return seen


def run(directory=None, seeds=200, **how):
    data = how.pop("data", None)
    data = gs.datasets.antipodal(**DATA) if data is None else data
    return gs.sweep(data, seeds, directory=directory, **HERE | {"batch_size": 128, "over": {"step_size": [0.25]}} | how)


def assert_same(one, other):
    assert one.statistics.keys() == other.statistics.keys()
    for name in one.statistics:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)
    assert one.names == other.names
    assert one.note == other.note
    assert one.table() == other.table()
    for mine, theirs in zip(one.seeds_diverged, other.seeds_diverged, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_more_seeds_and_values_reuse_what_is_there(tmp_path, trained):
    run(tmp_path)
    assert sorted(trained) == [(0.25, first) for first in (0, 64, 128, 192)]
    trained.clear()
    grown = run(tmp_path, 330, over={"step_size": [0.25, 0.5]})
    # The last block was not full, and is another one now; blocks 0, 1 and 2 are read.
    assert sorted(trained) == [(0.25, first) for first in (192, 256, 320)] + [(0.5, 64 * i) for i in range(6)]
    assert_same(grown, run(None, 330, over={"step_size": [0.25, 0.5]}))
    # Values alone.
    grown = run(tmp_path, 330, over={"step_size": [0.25, 0.5, 0.75]})
    again = gs.open_sweep(tmp_path)
    assert again.over == {"step_size": [0.25, 0.5, 0.75]}
    assert_same(again, grown)
    # The smaller sweep is a part of it, and leaves the directory as it is.
    before = (tmp_path / "manifest.json").read_bytes()
    trained.clear()
    assert_same(run(tmp_path), run())
    assert len(trained) == 4  # of the sweep in memory
    assert (tmp_path / "manifest.json").read_bytes() == before


@pytest.mark.slow
def test_settings_become_axes(tmp_path, trained):
    """Slow: values are put between others, and the width is swept that was one number."""
    run(tmp_path, 330, over={"step_size": [0.25, 0.5]})
    trained.clear()
    wide = {"width": [2, 3], "step_size": [0.5, 0.125, 0.25]}
    grown = run(tmp_path, 330, over=wide)
    assert len(trained) == 6 * 6 - 2 * 6
    assert_same(grown, run(None, 330, over=wide))


def test_seeds_in_front_are_added_where_blocks_fit(tmp_path, trained):
    run(tmp_path, range(128, 256))
    trained.clear()
    grown = run(tmp_path, range(256))
    assert sorted(first for _, first in trained) == [0, 64]
    assert_same(grown, run(None, range(256)))
    trained.clear()
    with pytest.raises(ValueError, match=r"seeds: \[0, 256\] there, \[100, 300\] here"):
        run(tmp_path, range(100, 300))
    assert not trained


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"steps": 50}, "steps: 40 there, 50 here"),
        ({"threshold": 0.2}, r"threshold: 0\.3 there, 0\.2 here"),
        ({"record_every": 20}, "record_every: 10 there, 20 here"),
        ({"keep": "final"}, 'keep: "statistics" there, "final" here'),
    ],
)
def test_what_does_not_hold_is_named_and_computed(tmp_path, trained, change, named):
    before = run(tmp_path, 70)
    with pytest.warns(UserWarning, match=f"do not hold for this sweep, which has other settings: {named}"):
        grown = run(tmp_path, 70, **change)
    assert_same(grown, run(None, 70, **change))
    trained.clear()
    # Back again. Chunks that kept more hold for less.
    with contextlib.nullcontext() if "keep" in change else pytest.warns(UserWarning, match="do not hold"):
        assert_same(run(tmp_path, 70), before)
    assert not trained  # its chunks are still there


@pytest.fixture
def advanced(monkeypatch):
    """The step sizes of the blocks that were trained step by step."""
    seen = []
    advance = sweep_blocks.Trainer._advance

    def noted(self, one, *given):
        seen.append(float(one.dynamics.step_size))
        return advance(self, one, *given)

    monkeypatch.setattr(sweep_blocks.Trainer, "_advance", noted)
    return seen


def assert_same_records(one, other, **chosen):
    np.testing.assert_array_equal(one.logits(**chosen), other.logits(**chosen))
    for mine, theirs in zip(*(jax.tree.leaves(each.final(**chosen)) for each in (one, other)), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def latest(curve):
    return curve.error()[-1]


@pytest.mark.parametrize("engine", ["reference", pytest.param("fused", marks=pytest.mark.slow)])
def test_kept_logits_hold_for_another_threshold_and_for_less(tmp_path, advanced, trained, engine):
    """Nothing is trained, nothing is warned of (warnings are errors here), and every bit is that of training anew."""
    how = {"engine": engine, "dynamics": gs.GradientDescent(0.1, momentum=0.5), "over": {"step_size": [0.25, 80.0]}}
    with pytest.warns(UserWarning, match="diverged"):
        run(tmp_path, keep="logits", loss="squared", **how)
    for change in ({"keep": "logits", "threshold": 0.2}, {"keep": "final", "threshold": 0.2}, {"threshold": 0.1}):
        advanced.clear()
        with pytest.warns(UserWarning, match="diverged"):
            read = run(tmp_path, loss="squared", **change, **how)
        assert not advanced
        with pytest.warns(UserWarning, match="diverged"):
            anew = run(None, loss="squared", **change, **how)
        assert len(advanced) == 8
        assert_same(read, anew)
        if "keep" in change:
            assert_same_records(read, anew, step_size=0.25)
    # Less of the same is a copy, for which not even statistics are computed.
    trained.clear()
    with pytest.warns(UserWarning, match="diverged"):
        run(tmp_path, loss="squared", threshold=0.2, **how)
    assert not trained
    assert_same(gs.open_sweep(tmp_path), run_quietly(None, loss="squared", threshold=0.2, **how))


def run_quietly(*given, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return run(*given, **how)


def test_kept_logits_hold_for_statistics_of_ones_own_and_more_seeds(tmp_path, advanced):
    run(tmp_path, keep="logits")
    advanced.clear()
    how = {"statistics": {"latest": latest}, "over": {"step_size": [0.25, 0.5]}}
    grown = run(tmp_path, 330, **how)
    assert advanced == [0.25] * 3 + [0.5] * 6  # of the first step size what was not there, or not full
    assert_same(grown, run(None, 330, **how))
    # A chunk that is damaged is trained again.
    for path in sorted(tmp_path.glob("chunk-*-0000000000-128-*")):
        with np.load(path) as stored:
            if "kept.logits" in stored:
                path.write_bytes(path.read_bytes()[:-1])
    advanced.clear()
    again = run(tmp_path, 330, threshold=0.1)
    assert advanced == [0.25] * 5
    assert_same(again, run(None, 330, threshold=0.1))


def test_networks_trained_in_other_numbers_are_trained_again(tmp_path, advanced):
    """Own statistics are of networks in the coordinates of the data; without them the fast engine trains in their span."""
    run(tmp_path, 70, keep="logits", engine="fused")
    advanced.clear()
    with pytest.warns(UserWarning, match="do not hold for this sweep, which has other settings: .*statistics.latest"):
        run(tmp_path, 70, engine="fused", statistics={"latest": latest})
    assert len(advanced) == 2


@pytest.mark.slow
def test_other_blocks_are_named(tmp_path, monkeypatch):
    """As where a sweep of a few seeds, which is one small block, is extended."""
    monkeypatch.setattr(sweep_plan, "block_size", lambda *_: 32)
    run(tmp_path, 70)
    monkeypatch.setattr(sweep_plan, "block_size", lambda *_: 64)
    with pytest.warns(UserWarning, match="do not hold .*: block: 32 there, 64 here"):
        assert_same(run(tmp_path, 140), run(None, 140))


def test_blocks_do_not_depend_on_the_number_of_seeds(monkeypatch):
    monkeypatch.undo()
    base = {"width": 8, "scale_w": 1.0, "scale_z": 1.0, "loss": "hinge", "dynamics": gs.GradientDescent(0.1)}
    _, (one,) = sweep_plan.configurations(gs.datasets.antipodal(), None, base)
    sizes = [sweep_plan.block_size(one, 41, seeds, "cpu") for seeds in (5, 2560, 10**4, 10**5, 10**7)]
    assert sizes == [5, 2560, 2560, 2560, 2560]


def test_what_is_stored_and_what_is_missing_are_cut_apart():
    (blocks,) = sweep_plan.blocks_of(650, [64])

    def cut(length, stored):
        chunks = list(sweep_plan.chunks_of(blocks, 64, length, stored))
        assert [block for chunk in chunks for block in chunk] == blocks
        return [(chunk[0].number, chunk[-1].number + 1) for chunk in chunks]

    assert cut(4, set()) == [(0, 4), (4, 8), (8, 10), (10, 11)]
    # Stored: two blocks, the last block of a smaller sweep, one block in the middle.
    assert cut(4, {(0, 128), (128, 30), (320, 64)}) == [(0, 2), (2, 4), (4, 5), (5, 6), (6, 8), (8, 10), (10, 11)]
    assert cut(4, {(0, 128), (0, 256), (640, 10)}) == [(0, 4), (4, 8), (8, 10), (10, 11)]
    assert cut(4, {(1, 64), (64, 32)}) == [(0, 4), (4, 8), (8, 10), (10, 11)]


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_sweep_is_opened_without_its_arguments(tmp_path, trained, engine):
    """All parts of a sweep at once: data of an axis, a loss with numbers, momentum, data in their span, kept records."""

    def data(frequency):
        return gs.Dataset([[3.0, 4.0, 0, 0], [-1.0, 2.0, 0, 0]], [1, -1], [frequency, 1 - frequency])

    over = {"frequency": [0.25, 0.5], "loss": ["hinge", "cross-entropy"]}
    dynamics = gs.GradientDescent(0.1, momentum=0.5)
    result = run(tmp_path, 70, data=data, over=over, dynamics=dynamics, keep="final", engine=engine, key=5)
    trained.clear()
    files = sorted(path.name for path in tmp_path.iterdir())
    again = gs.open_sweep(str(tmp_path))
    assert not trained
    assert sorted(path.name for path in tmp_path.iterdir()) == files
    assert_same(again, result)
    assert again.over["frequency"] == [0.25, 0.5]
    assert again.to_xarray().equals(result.to_xarray())
    for frequency in over["frequency"]:
        chosen = {"frequency": frequency, "loss": over["loss"][-1]}
        for mine, theirs in zip(*(jax.tree.leaves(one.final(**chosen)) for one in (again, result)), strict=True):
            np.testing.assert_array_equal(mine, theirs)
        np.testing.assert_array_equal(again.logits(**chosen), result.logits(**chosen))
        np.testing.assert_array_equal(again.network(7, **chosen).w, result.network(7, **chosen).w)
        np.testing.assert_array_equal(again.trajectory(7, **chosen).logits(), result.trajectory(7, **chosen).logits())
    assert_same(pickle.loads(pickle.dumps(again)), result)


@pytest.mark.slow
def test_phases_and_schedules_are_opened(tmp_path):
    first = gs.datasets.antipodal(**DATA)
    phases = [(17, first), (None, gs.Dataset(first.points, -first.labels, first.weights))]
    dynamics = gs.StochasticGradientDescent(lambda k: 0.5 / (1 + k), batch_size=2)
    loss = SpectralDecoupling("cross-entropy", 0.5)
    result = run(tmp_path, 64, data=phases, dynamics=dynamics, loss=loss, over=None)
    again = gs.open_sweep(tmp_path)
    assert_same(again, result)
    assert again.grid.tolist() == [0, 10, 17, 27, 37, 40]
    np.testing.assert_array_equal(again.trajectory(3).margins(), result.trajectory(3).margins())


@pytest.mark.slow
def test_it_is_read_in_another_precision(tmp_path, x64):
    """Here a sweep of 64 bits in a process of 32; the other way round in the next lines."""
    result = run(tmp_path / "a", 70)
    network, curve = result.network([3, 5]), result.trajectory(3).logits()
    with jax.enable_x64(False):
        again = gs.open_sweep(tmp_path / "a")
        assert_same(again, result)
        assert again.precision == "float64"
        np.testing.assert_array_equal(again.network([3, 5]).w, network.w)
        np.testing.assert_array_equal(np.asarray(again.trajectory(3).logits()), curve)
        small = run(tmp_path / "b", 70)
        weights = np.asarray(small.network([3]).w)
    again = gs.open_sweep(tmp_path / "b")
    assert_same(again, small)
    assert again.network([3]).w.dtype == np.float32
    np.testing.assert_array_equal(again.network([3]).w, weights)


class Own(Loss):
    """A loss of a user's, whose code no directory holds."""

    name = "own"

    def residual(self, margin):
        return jax.nn.sigmoid(-margin)

    def value(self, margin):
        return jax.nn.softplus(-margin)


@pytest.mark.slow
def test_code_of_a_user_is_not_stored(tmp_path):
    result = run(tmp_path, 64, over={"loss": [Own(), "hinge"]})
    again = gs.open_sweep(tmp_path)
    assert_same(again, result)
    np.testing.assert_array_equal(again.network(1, loss="own").w, result.network(1, loss="own").w)
    with pytest.raises(ValueError, match=r"does not hold the loss \(own\), which is code .*call gs.sweep with"):
        again.trajectory(1, loss="own")
    assert again.trajectory(1, loss="hinge").logits().shape == (5, 2)


def test_recipes_make_what_they_were_made_of():
    tabled = gs.GradientDescent(lambda k: 1 / (1 + k)).tabled(5, np.float32)
    nested = gs.MarginShift(SpectralDecoupling("hinge", np.array([0.1, 3.0], np.float32)), 0.5)
    plain = (3, -0.25, "hinge", None, True, (1, np.inf), np.pi)
    for value in (gs.SharpnessAware(0.5, 0.1), tabled, nested, gs.Focal(2.0), *plain):
        made = remade(json.loads(json.dumps(recipe(value))))
        assert jax.tree.structure(made) == jax.tree.structure(value)
        for one, other in zip(jax.tree.leaves(made), jax.tree.leaves(value), strict=True):
            assert type(one) is type(other)
            assert getattr(one, "dtype", None) == getattr(other, "dtype", None)
            np.testing.assert_array_equal(one, other)
    for value in (Own(), len, lambda k: k, object(), np.array(["a"])):
        assert recipe(value) is None
    for told in ({"module": "Popen", "fields": {}}, {"module": "datasets", "fields": {}}, {}, [1], {"array": 3}):
        with pytest.raises(ValueError, match=r"recipe|has no"):
            remade(told)


def test_directories_that_cannot_be_opened_are_named(tmp_path):
    for directory, message in ((tmp_path / "none", "no sweep is stored"), (tmp_path, "no sweep is stored"), (3, "the path")):
        with pytest.raises(ValueError, match=message):
            gs.open_sweep(directory)
    made = tmp_path / "made"
    run(made, 200)
    manifest = json.loads((made / "manifest.json").read_text())

    def assert_refused(message):
        with pytest.raises(ValueError, match=message):
            gs.open_sweep(made)

    first, second, *_ = sorted(made.glob("chunk-*"))
    content = first.read_bytes()
    first.write_bytes(content[:-1])
    assert_refused(r"not complete: 128 of 200 networks are missing, as chunk-.* is damaged.*call gs.sweep again")
    first.write_bytes(content)
    second.rename(tmp_path / "aside")
    assert_refused(r"not complete: \d+ of 200 networks are missing; call")
    (tmp_path / "aside").rename(second)
    (data,) = made.glob("data-*")
    content = data.read_bytes()
    for damaged in (content[:-30], b""):
        data.write_bytes(damaged)
        assert_refused("the data of the sweep, cannot be read")
    np.savez(data, points=np.eye(2), labels=[1, -1], weights=[0.5, 0.5])
    assert_refused("the data of the sweep, is damaged")
    data.unlink()
    assert_refused("cannot be read .*No such file")
    run(made, 200)  # writes it again
    gs.open_sweep(made)
    for change in ({"format": 2}, {"format": 4}):
        (made / "manifest.json").write_text(json.dumps(manifest | change))
        assert_refused(f"has format {change['format']}, this version reads 3.*another directory")
    for change in ({"over": 3}, {"configurations": [{}]}, {"configurations": []}):
        (made / "manifest.json").write_text(json.dumps(manifest | change))
        assert_refused("is damaged")
    for text in ("{", json.dumps(manifest | {"settings": {}})):
        (made / "manifest.json").write_text(text)
        assert_refused("is not the manifest of a sweep; call gs.sweep again")
    (made / "manifest.json").unlink()
    assert_refused("has chunks but no manifest")


# Several tasks in one directory.


def task_elsewhere(directory, name, **owner):
    """The claim of another task; `owner`: host and pid."""
    path = directory / f"claim-{name}"
    path.write_text(json.dumps({"host": "00000000", "pid": 1, "token": "0" * 16} | owner))
    return path


GONE = 2**22 + 1  # above every number of a process


def test_claims_are_exclusive_and_go_with_their_task(tmp_path, monkeypatch):
    mine, others = claims.Claims(tmp_path), claims.Claims(tmp_path)
    assert mine.take("a")
    assert not others.take("a")
    assert not mine.take("a")
    mine.release("a")
    assert others.take("a")
    mine.release("a")  # not its own any more
    assert not mine.take("a")
    # Of a process of this machine that has ended, at once; of one that runs, not.
    here = claims.host()
    task_elsewhere(tmp_path, "b", host=here, pid=GONE)
    task_elsewhere(tmp_path, "c", host=here, pid=os.getppid())
    task_elsewhere(tmp_path, "d", pid=GONE)
    assert [mine.take(name) for name in "bcd"] == [True, False, False]
    # Elsewhere, by the clock of who waits: as long as it is touched it lives.
    now = [0.0]
    monkeypatch.setattr(claims.time, "monotonic", lambda: now[0])
    path = task_elsewhere(tmp_path, "e", pid=GONE)
    assert not mine.take("e")
    for tick in range(1, 5):
        now[0] = 0.9 * claims.LEASE * tick
        os.utime(path, ns=(tick * 10**9, tick * 10**9))
        assert not mine.take("e")
    now[0] += 0.9 * claims.LEASE
    assert not mine.take("e")
    now[0] += 0.2 * claims.LEASE
    assert mine.take("e")
    (tmp_path / "claim-f").write_text("")  # killed while it wrote
    assert not mine.take("f")
    now[0] += 1.1 * claims.LEASE
    assert mine.take("f")
    mine.close()
    others.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["claim-c", "claim-d"]


def test_a_claim_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "BEAT", 0.01)
    mine = claims.Claims(tmp_path)
    mine.take("a")
    path = tmp_path / "claim-a"
    os.utime(path, ns=(0, 0))
    beaten = threading.Event()
    for _ in range(500):
        if path.stat().st_mtime_ns:
            beaten.set()
            break
        threading.Event().wait(0.01)
    assert beaten.is_set()
    mine.close()
    assert not path.exists()


def test_tasks_share_the_work_of_one_directory(tmp_path, trained):
    """Two at once, as threads: what one has claimed the other leaves, waits for, and reads."""
    over = {"step_size": [0.25, 0.5]}
    found = {}

    def task(name):
        found[name] = run(tmp_path, 330, over=over, batch_size=64, keep="final")

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tasks = [threading.Thread(target=task, args=(name,)) for name in "ab"]
        for one in tasks:
            one.start()
        for one in tasks:
            one.join()
    assert sorted(trained) == sorted((rate, 64 * i) for rate in over["step_size"] for i in range(6))
    whole = run(None, 330, over=over, keep="final")
    for one in found.values():
        assert_same(one, whole)
        np.testing.assert_array_equal(one.final(step_size=0.5).w, whole.final(step_size=0.5).w)
    assert not list(tmp_path.glob("claim-*"))


def test_the_chunk_of_a_killed_task_is_taken_over(tmp_path):
    run(tmp_path, 200, batch_size=64)
    names = [path.name.rpartition("-")[0].removeprefix("chunk-") for path in sorted(tmp_path.glob("chunk-*"))]
    for path in tmp_path.glob("chunk-*"):
        path.unlink()
    for name in names[:2]:
        task_elsewhere(tmp_path, name, host=claims.host(), pid=GONE)
    left = task_elsewhere(tmp_path, "of-another-sweep", host=claims.host(), pid=GONE)
    part = f".part-gradstarve-{claims.host()}-{GONE}-{'0' * 16}-manifest.json"
    (tmp_path / part).write_text("{")
    assert_same(run(tmp_path, 200, batch_size=64), run(None, 200))
    assert not left.exists()
    assert not (tmp_path / part).exists()


def test_a_task_waits_for_what_others_compute(tmp_path):
    """The other task lets go of its chunk without having computed it, as on an interrupt."""
    run(tmp_path, 200, batch_size=64)
    chunk = sorted(tmp_path.glob("chunk-*"))[1]
    claim = task_elsewhere(tmp_path, chunk.name.rpartition("-")[0].removeprefix("chunk-"))
    chunk.unlink()
    timer = threading.Timer(0.3, claim.unlink)
    timer.start()
    seen = []
    result = run(tmp_path, 200, batch_size=64, progress=lambda done, total: seen.append(done))
    timer.join()
    assert seen[0] == 0
    assert seen[-1] == 200
    assert chunk.exists()  # with the same bytes
    assert_same(result, run(None, 200))


def test_an_interrupt_gives_claims_back(tmp_path):
    def interrupt(done, total):
        if done >= 64:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 330, batch_size=64, progress=interrupt)
    assert not list(tmp_path.glob("claim-*"))
    assert Path(tmp_path / "manifest.json").exists()
