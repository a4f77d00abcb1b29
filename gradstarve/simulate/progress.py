"""Progress of a long run, shown from the host between two pieces of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

# A run shorter than this needs no bar: it would flash by.
PATIENCE_SECONDS = 2.0


class Progress:
    """Where a run of `total` units tells how far it is; a context manager.

    `choice` is what the user said: True or False, a callable taking (done, total), or None for a bar on stderr if it is
    a terminal and the run turns out to take more than two seconds. With `unit`, such as "networks", the bar tells how many
    of them are done a second.
    """

    def __init__(self, choice: Any, total: int | float, label: str, unit: str = ""):
        if not (choice is None or isinstance(choice, bool) or callable(choice)):
            raise ValueError(f"progress must be None, True, False or a callable (done, total), got {choice!r}")
        self.total, self.label, self.unit = total, label, unit
        self._call: Callable | None = choice if callable(choice) else None
        self._wanted = choice is True or (choice is None and sys.stderr.isatty())
        self._patience = 0.0 if choice is True else PATIENCE_SECONDS
        self._forced = choice is True or self._call is not None
        self._bar: Any = None
        self._task: Any = None
        self._start = self._since = time.monotonic()
        self._begun: int | float = 0

    def pieces(self, seconds: float, most: int = 50) -> int:
        """How many pieces to cut a run into that is thought to take `seconds`: one when nobody is looking."""
        if not (self._wanted or self._call is not None):
            return 1
        worth = int(seconds / 0.25)
        return max(1, min(most, max(worth, 10) if self._forced else worth))

    def __enter__(self) -> Progress:
        if self._forced:
            self.update(0)
        return self

    def update(self, done: int | float, fresh: bool = True) -> None:
        """`done` units are finished; those finished when `fresh` was last False cost no time and say nothing of the rate."""
        if not fresh:
            self._begun, self._since = done, time.monotonic()
        if self._call is not None:
            self._call(done, self.total)
        elif self._wanted:
            if self._bar is None and time.monotonic() - self._start >= self._patience and done < self.total:
                self._open()
            if self._bar is not None:
                self._bar.update(self._task, completed=done, rate=self._rate(done))

    def _rate(self, done: int | float) -> str:
        seconds = max(time.monotonic() - self._since, 1e-9)
        return f"{(done - self._begun) / seconds:,.0f} {self.unit}/s" if done > self._begun else ""

    def _open(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        columns: list[Any] = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()]
        if self.unit:
            columns.append(TextColumn("{task.fields[rate]}"))
        columns.append(TimeRemainingColumn())
        # On a terminal the bar goes when the run is over; in a log file its last state is the only line there is.
        console = Console(stderr=True)
        self._bar = RichProgress(*columns, console=console, transient=console.is_terminal)
        self._bar.start()
        self._task = self._bar.add_task(self.label, total=self.total, completed=self._begun, rate="")

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
