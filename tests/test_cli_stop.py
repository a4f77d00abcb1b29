"""Ctrl-C and SIGTERM: one line, exit code 130, nothing half-done; progress, and files that are whole or not there."""

import io
import signal
import subprocess
import sys
import time

import pytest
import typer

from gradstarve.cli import _stop as cli_stop
from gradstarve.cli import options as cli_parts
from gradstarve.ground import files, progress

STARTED = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # it may be ignored where the tests run
    "from gradstarve.cli.main import main; main()"
)


@pytest.mark.parametrize(
    ("number", "command"),
    [
        (signal.SIGINT, ("derive", "all")),
        (signal.SIGTERM, ("overlay", "--seeds", "4096", "--steps", "100000")),
    ],
)
def test_a_signal_ends_a_command(number, command, tmp_path):
    out = tmp_path / "new" / "folder"
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED, *command, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    start = time.monotonic()
    while not out.exists():  # the work begins after that
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() - start < 120
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(number)
    printed, told = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed == ""
    assert told == "stopped: what is written is complete, and the rest is not there\n"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(autouse=True)
def _told_anew(monkeypatch):
    monkeypatch.setattr(cli_stop, "_told", cli_stop.threading.Lock())


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (KeyboardInterrupt("12 of 20 networks are stored"), 130, "stopped: 12 of 20 networks are stored\n"),
        (ValueError("width must be >= 1,\n   got 0"), 2, "error: width must be >= 1, got 0\n"),
        (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
        (MemoryError(), 2, "error: there is not enough memory"),
        (RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"), 2, "error: there is not enough memory"),
    ],
)
def test_what_ends_a_command_leaves_one_line_and_no_debris(error, code, told, tmp_path, capsys):
    def work():
        folder = files.make_directory(tmp_path / "new" / "folder")
        with cli_parts.command(), files.whole(folder / "numbers.json") as part:
            part.write_text("[1, 2")
            raise error

    with pytest.raises(typer.Exit) as ended:
        work()
    assert ended.value.exit_code == code
    captured = capsys.readouterr()
    assert captured.err.startswith(told)
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


def test_results_and_what_was_there_before_stay(tmp_path):
    (tmp_path / "empty").mkdir()
    files.make_directory(tmp_path / "empty")  # it was there
    files.write_text(files.make_directory(tmp_path / "full") / "first.txt", "done")
    with pytest.raises(typer.Exit), cli_parts.command():
        raise KeyboardInterrupt
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["empty", "first.txt", "full"]


def test_what_nobody_foresaw_keeps_its_traceback(tmp_path):
    files.make_directory(tmp_path / "new")
    with pytest.raises(KeyError), cli_parts.command():
        raise KeyError("a mistake of ours")
    assert not (tmp_path / "new").exists()


def test_a_pipe_that_closes_is_no_error():
    with pytest.raises(BrokenPipeError), cli_parts.command():
        raise BrokenPipeError


class Terminal(io.StringIO):
    """A standard error that says that somebody looks at it."""

    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", 0.1)
    monkeypatch.setenv("TERM", "xterm")

    def open_it():  # from within the test: pytest sets stderr anew between a fixture and its test
        monkeypatch.setattr(sys, "stderr", Terminal())
        return sys.stderr

    return open_it


def wait_for(screen, words):
    end = time.monotonic() + 20
    while words not in screen.getvalue() and time.monotonic() < end:
        time.sleep(0.02)


def test_a_row_shows_itself_while_the_work_is_in_one_call(terminal):
    screen = terminal()
    with progress.Progress(None, None, "compiling"):
        wait_for(screen, "compiling")
    assert "compiling" in screen.getvalue()
    assert sys.stderr is screen
    assert progress._display.console is None


def test_rows_of_works_within_works_share_the_screen(terminal):
    screen = terminal()
    with progress.Progress(None, None, "gradstarve overlay"), progress.Progress(None, 10, "training", "networks") as row:
        wait_for(screen, "training")
        row.update(5, label="training still")
        progress.say("a line [of text]")
        wait_for(screen, "training still")
    shown = screen.getvalue()
    for part in ("gradstarve overlay", "training", "training still", "5/10", "networks/s", "a line [of text]"):
        assert part in shown


def test_short_work_and_pipes_show_nothing(terminal, monkeypatch):
    screen = terminal()
    with progress.Progress(None, 3, "training") as row:
        row.update(2)
    with progress.Progress(False, 3, "training"):
        time.sleep(0.3)
    pipe = io.StringIO()
    monkeypatch.setattr(sys, "stderr", pipe)
    with progress.Progress(None, 3, "training"):
        time.sleep(0.3)
    assert screen.getvalue() == pipe.getvalue() == ""


def test_times_are_short():
    assert [progress._time(s) for s in (0.4, 59.2, 61, 3599, 3720)] == ["0 s", "59 s", "1:01 min", "59:59 min", "1:02 h"]
