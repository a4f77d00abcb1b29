"""Compiled programs on the disk: the next process finds them, computes the same, and says nothing about it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import gradstarve as gs
from gradstarve.ground import cache

# What is compiled, what of it came from the disk, and a number that depends on every rounding.
PROGRAM = """
import sys
import gradstarve as gs
folder = gs.enable_compilation_cache({directory})
import jax
hits = []
jax.monitoring.register_event_listener(lambda name, **_: hits.append(name.rsplit("/", 1)[-1]))
data, network = gs.datasets.antipodal(dim=3), gs.init_two_layer(0, (2,), 3, 3, 0.5, 0.5)
run = gs.simulate(data, network, "cross-entropy", gs.GradientDescent(0.3), 20)
print(folder, hits.count("cache_misses"), hits.count("cache_hits"), float(run.logits(20).sum()).hex())
"""


def run(directory, **variables):
    path = os.pathsep.join(path for path in sys.path if path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("JAX_", "TF_"))}
    environment |= {"PYTHONPATH": path} | variables
    program = PROGRAM.format(directory=repr(directory))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    return *done.stdout.split(), done.stderr


def test_the_next_process_finds_the_programs(tmp_path):
    folder, misses, hits, number, said = run(None, XDG_CACHE_HOME=str(tmp_path))
    assert Path(folder).is_relative_to(tmp_path if sys.platform == "linux" else Path.home())
    assert int(misses) > 10
    again, later, found, same, silent = run(None, XDG_CACHE_HOME=str(tmp_path))
    assert (again, same) == (folder, number)
    assert int(later) == 0
    assert int(found) == int(misses) + int(hits)
    assert (said, silent) == ("", "")


def test_a_directory_that_takes_no_files_is_refused(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(ValueError, match=r"cannot be kept in .*file.*give another directory"):
        gs.enable_compilation_cache(taken)


@pytest.mark.parametrize("word", ["off", "OFF", "0", "no"])
def test_the_command_line_can_do_without(word, monkeypatch, tmp_path):
    monkeypatch.setenv("GRADSTARVE_CACHE", word)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache.enable_for_command_line()
    assert not list(tmp_path.iterdir())


def test_the_command_line_leaves_a_cache_of_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADSTARVE_CACHE", str(tmp_path / "ours"))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "theirs"))
    cache.enable_for_command_line()
    assert not (tmp_path / "ours").exists()


def test_what_was_stored_first_makes_room(tmp_path):
    for k in range(10):
        (tmp_path / f"{k}").write_bytes(bytes(100))
        os.utime(tmp_path / f"{k}", (k, k))
    cache._make_room(tmp_path, limit=1000)
    assert len(list(tmp_path.iterdir())) == 10
    cache._make_room(tmp_path, limit=999)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["6", "7", "8", "9"]
