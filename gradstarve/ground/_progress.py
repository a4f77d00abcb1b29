"""Progress bars for long work: one display on stderr, with a row for each running task.

A row appears once its task has run for two seconds. A timer opens the row, not the task, so that rows appear during
compilation and other long calls too. Unless requested, rows appear only on a terminal, so that logs and pipes stay clean.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gradstarve.ground._text import shown

# Work shorter than this needs no row: it would flash by.
PATIENCE_SECONDS = 2.0


def is_terminal(stream: Any) -> bool:
    """Whether `stream`, such as `sys.stderr`, is a terminal; None and a closed stream, as without a console, are not.

    >>> is_terminal(None)
    False
    """
    try:
        return stream is not None and bool(stream.isatty())
    except (AttributeError, OSError, ValueError):  # not a stream of a file, or closed
        return False


class Quiet:
    """A wrapper of a stream whose writes never fail: text is dropped where the stream is None, closed or full.

    >>> print("lost", file=Quiet(None))
    """

    def __init__(self, stream: Any):
        self._stream = stream

    @property
    def encoding(self) -> str:
        """The encoding of the stream, which decides the characters of a progress bar."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def write(self, text: str) -> int:
        """Write `text` if the stream takes it."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the stream if possible."""
        with contextlib.suppress(AttributeError, OSError, ValueError):
            self._stream.flush()

    def isatty(self) -> bool:
        """See `is_terminal`."""
        return is_terminal(self._stream)

    def fileno(self) -> int:
        """The number of the stream's file."""
        return self._stream.fileno()


class Progress:
    """A context manager that reports the progress of a task of `total` units; with `total` None, only that it is running.

    `choice` is the user's setting: True or False, a callable taking (done, total), or None for a row on stderr if stderr is
    a terminal and the task takes more than two seconds. With `unit`, such as "networks", the row shows the number of
    units finished per second.
    """

    def __init__(self, choice: Any, total: int | float | None, label: str, unit: str = ""):
        if not (choice is None or isinstance(choice, bool) or callable(choice)):
            raise ValueError(f"progress must be None, True, False or a callable (done, total), got {shown(choice)}")
        self.total, self.label, self.unit = total, label, unit
        self._call: Callable | None = choice if callable(choice) else None
        self._wanted = choice is True or (choice is None and is_terminal(sys.stderr))
        self._forced = choice is True or self._call is not None
        self._row: Any = None
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()
        self._start = self._since = time.monotonic()
        self._begun: int | float = 0
        self._done: int | float = 0
        self._said: int | float | None = None

    @property
    def wanted(self) -> bool:
        """Whether progress is reported at all: in a row, or to a callable."""
        return self._wanted or self._call is not None

    def pieces(self, seconds: float, most: int = 50) -> int:
        """How many pieces to cut a run of about `seconds` into, at most `most`; one if no progress is reported."""
        if not self.wanted:
            return 1
        worth = int(seconds / 0.25)
        return max(1, min(most, max(worth, 10) if self._forced else worth))

    def __enter__(self) -> Progress:
        if self._wanted and self._forced:
            self._open()
        elif self._wanted:
            self._timer = threading.Timer(PATIENCE_SECONDS, self._open)
            self._timer.daemon = True
            self._timer.start()
        if self._forced:
            self.update(0)
        return self

    def update(self, done: int | float, fresh: bool = True, label: str | None = None) -> None:
        """Report that `done` units are finished; those finished at the last call with `fresh` False are not in the rate.

        `fresh` is False for units that took no time, such as stored ones. `label` replaces the label of the row.
        """
        if not fresh:
            self._begun, self._since = done, time.monotonic()
        if self._call is not None:
            if done != self._said:
                self._said = done
                self._call(done, self.total)
        elif self._wanted:
            self.label, self._done = label or self.label, done
            if self._row is not None:
                _display.update(self._row, completed=done, description=self.label, rate=self._rate())

    def _rate(self) -> str:
        seconds = max(time.monotonic() - self._since, 1e-9)
        known = self.unit and self._done > self._begun
        return f"{(self._done - self._begun) / seconds:,.0f} {self.unit}/s" if known else ""

    def _open(self) -> None:
        with self._lock:
            if self._wanted:
                self._row = _display.add(self.label, total=self.total, completed=self._done, rate="", since=self._start)

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._wanted = False
            if self._row is not None:
                _display.remove(self._row)
                self._row = None


def say(line: str, markup: bool = False) -> None:
    """Print a line on stderr, above the rows if there are any; with `markup`, rich's tags become colours."""
    from rich.console import Console

    console = _display.console or Console(file=_to_stderr())
    console.print(line, markup=markup, highlight=False, soft_wrap=True)


def _to_stderr() -> Any:
    return Quiet(sys.stderr)  # has all methods of a file that rich uses


def stop() -> None:
    """Remove all rows, for a process that is about to end."""
    _display.stop()


class _Display:
    """The display of all rows; it exists while it has at least one row."""

    def __init__(self):
        self._lock = threading.Lock()
        self._rich: Any = None
        self._rows: set[Any] = set()

    @property
    def console(self) -> Any:
        """The console that prints lines above the rows; None while there are no rows."""
        rich = self._rich
        return None if rich is None else rich.console

    def add(self, label: str, **fields: Any) -> Any:
        with self._lock:
            if self._rich is None:
                self._rich = _rich_display()
                self._rich.start()
            row = self._rich.add_task(label, **fields)
            self._rows.add(row)
            return row

    def update(self, row: Any, **fields: Any) -> None:
        with self._lock:
            if row in self._rows:
                self._rich.update(row, **fields)

    def remove(self, row: Any) -> None:
        with self._lock:
            self._rows.discard(row)
            if self._rich is not None and not self._rows:
                # In a log file the last state of a requested row is the only line printed.
                self._rich.stop()
                self._rich = None
            elif self._rich is not None:
                self._rich.remove_task(row)

    def stop(self) -> None:
        # With a timeout, because the thread that is to be stopped may hold the lock.
        if self._lock.acquire(timeout=0.5):
            try:
                if self._rich is not None:
                    self._rows.clear()
                    self._rich.stop()
                    self._rich = None
            finally:
                self._lock.release()


_display = _Display()


def _rich_display() -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, TextColumn
    from rich.progress import Progress as RichProgress
    from rich.text import Text

    class Count(ProgressColumn):
        def render(self, task: Any) -> Text:
            if task.total is None:
                return Text("")
            shown = [f"{value:,}" if isinstance(value, int) else f"{value:.4g}" for value in (task.completed, task.total)]
            return Text("/".join(shown))

    class Clock(ProgressColumn):
        def render(self, task: Any) -> Text:
            left = task.time_remaining if task.total is not None else None
            words = f", {_time(left)} left" if left else ""
            return Text(f"{_time(time.monotonic() - task.fields['since'])}{words}")

    name, rate = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[rate]}"))
    console = Console(file=_to_stderr())
    # Output to a terminal is printed above the rows; output to a file or a pipe is left alone.
    on_screen = is_terminal(sys.stdout)
    columns = name, BarColumn(bar_width=24), Count(), rate, Clock()
    return RichProgress(*columns, console=console, transient=console.is_terminal, redirect_stdout=on_screen)


def _time(seconds: int | float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
