"""Without a console: standard streams that are None, closed or full, for the library and for its commands."""

import io
import os
import subprocess
import sys

import pytest

import gradstarve as gs
from gradstarve.cli import _stop as cli_stop
from gradstarve.ground import progress

PATHS = os.pathsep.join(path for path in sys.path if path)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")

    flush = write


@pytest.fixture(params=["None", "closed", "full"])
def no_streams(request, monkeypatch):
    make = {"None": lambda: None, "closed": closed, "full": Full}[request.param]
    with monkeypatch.context() as patch:
        patch.setattr(progress, "PATIENCE_SECONDS", 0.0)
        for name in ("stdout", "stderr", "__stdout__", "__stderr__"):
            patch.setattr(sys, name, make())
        yield


@pytest.mark.parametrize("choice", [None, True, False])
def test_progress_needs_no_stream(no_streams, choice):
    with progress.Progress(choice, 4, "working", "networks") as bar:
        progress.say("a [green]line[/green]", markup=True)
        for done in range(5):
            bar.update(done, label=f"step {done}")
    progress.stop()


def test_the_library_needs_no_stream(no_streams):
    data = gs.datasets.antipodal()
    for choice in (None, True):
        assert gs.sweep(data, 4, steps=3, width=2, engine="reference", progress=choice)["learnt"].shape == (4,)
    assert gs.verify("sign", trials=24, progress=True).ok


def test_a_stopped_command_needs_no_stream(no_streams):
    cli_stop.begin()
    cli_stop.tell("words")


def test_words_for_stderr_do_not_go_to_stdout(monkeypatch, capsys):
    """`print(file=None)` writes to standard output."""
    monkeypatch.setattr(sys, "stderr", None)
    cli_stop.begin()
    cli_stop.tell("words")
    assert capsys.readouterr().out == ""


def command(line, **how):
    environment = {"PYTHONPATH": PATHS, "PATH": os.environ["PATH"], "COLUMNS": "120", "MPLBACKEND": "no-such-backend"}
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=environment, check=False, **how)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device")
def test_an_output_that_is_full_is_one_line_and_an_exit_code():
    found = command(f"{sys.executable} -m gradstarve derive --list > /dev/full")
    assert (found.returncode, found.stderr) == (2, "error: cannot write to standard output: No space left on device\n")


def test_an_output_that_nobody_reads_is_no_traceback():
    found = command(f"{sys.executable} -m gradstarve derive --list | true; exit ${{PIPESTATUS[0]}}")
    assert found.stderr == ""
    assert found.returncode in (0, 1)  # 0 where it was quicker than its reader
