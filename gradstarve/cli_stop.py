"""Ctrl-C and SIGTERM at any time: one line, exit code 130, and nothing half-done left behind.

Python tells of a signal between two of its own instructions, and a call of a compiled program has none for as long as it
takes, be it minutes. So a thread is told too, by the pipe of `signal.set_wakeup_fd`, and ends the process if the main
thread does not.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any, NoReturn

from gradstarve import files, progress

CODE = 130
# How long the main thread may take to end by itself; after a second Ctrl-C it is not waited for.
GRACE_SECONDS = 3.0

_told = threading.Lock()


def _raise(*_: Any) -> NoReturn:
    raise KeyboardInterrupt


def listen() -> None:
    """From now on SIGINT and SIGTERM are `KeyboardInterrupt`s, and the process ends a little later in any case."""
    chosen = [number for number in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(number) is not signal.SIG_IGN]
    for number in chosen:  # one that is ignored was to be, as after `nohup`
        signal.signal(number, _raise)
    if os.name == "posix" and chosen:
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        threading.Thread(target=_wait, args=(reading,), name="stop", daemon=True).start()


def _wait(reading: int) -> None:
    """The thread: wait for a signal, then for the second one or for the end of patience."""
    import select

    os.read(reading, 1)
    select.select([reading], [], [], GRACE_SECONDS)
    end("")


def tell(words: str) -> None:
    """The one line, once, below what is on the screen; what was not finished is removed."""
    if _told.acquire(blocking=False):
        progress.stop()
        files.tidy()
        # A terminal shows ^C at the end of the line that the cursor is in.
        start = "\n" if sys.stderr.isatty() else ""
        print(f"{start}stopped: {words or 'what is written is complete, the rest is left out'}", file=sys.stderr)


def end(words: str) -> NoReturn:
    """Tell and leave at once: threads that still compute are not waited for."""
    first = _told.locked()
    tell(words)
    if first:
        time.sleep(0.1)  # the other thread is just writing
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(CODE)
