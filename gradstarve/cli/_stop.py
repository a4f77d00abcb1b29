"""Ctrl-C and SIGTERM at any time: one line, exit code 130, and nothing half-done left behind.

A `KeyboardInterrupt` does not do for a command. Python raises it between two of its own instructions, of which a call of a
compiled program has none for as long as it takes, be it minutes; and raised while JAX is loading it can bring the process
down. So a thread waits for the signal, by the pipe of `signal.set_wakeup_fd`, and ends the process.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from gradstarve.ground import files, progress

CODE = 130
_told = threading.Lock()
_advice: list[Callable[[], str]] = []
_listening = threading.Event()


def listen() -> None:
    """From now on SIGINT and SIGTERM end the process at once, wherever it is."""
    if _listening.is_set():
        return
    _listening.set()
    chosen = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    # One that is ignored was to be, as after `nohup`. Where there is no such pipe, it is KeyboardInterrupt after all.
    piped = os.name == "posix"
    for number in chosen:
        signal.signal(number, _leave_it if piped else _raise)
    if piped and chosen:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_wait, args=(reading,), name="stop", daemon=True).start()


def _leave_it(*_: Any) -> None:
    """A signal needs a function of Python's to be written to the pipe."""


def _raise(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def _wait(reading: int) -> None:
    os.read(reading, 1)
    end()


def begin() -> None:
    """A command begins, not the first one where a program calls several: no message is waiting, and there is no advice."""
    global _told
    _told = threading.Lock()
    _advice.clear()


def advise(words: Callable[[], str]) -> None:
    """The advice for a user who stops the command now: how it can go on."""
    _advice.append(words)


def tell(words: str = "") -> None:
    """The one line, once, below what is on the screen; what was not finished is removed."""
    if _told.acquire(blocking=False):
        progress.stop()
        files.tidy()
        if not words and _advice:
            words = _advice[-1]()
        # A terminal shows ^C at the end of the line that the cursor is in.
        start = "\n" if progress.is_terminal(sys.stderr) else ""
        words = words or "what is written is complete, and the rest is not there"
        print(f"{start}stopped: {words}", file=progress.Quiet(sys.stderr))


def end() -> NoReturn:
    """Tell and leave at once: threads that still compute are not waited for."""
    tell()
    for stream in (sys.stdout, sys.stderr):
        progress.Quiet(stream).flush()
    files.tidy()  # what was begun meanwhile
    os._exit(CODE)
