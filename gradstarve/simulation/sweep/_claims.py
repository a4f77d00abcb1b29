"""Which task computes which chunk, where several fill one directory without a coordinator.

A task that begins a chunk makes the file claim-<chunk>, which one task alone can make (O_EXCL, on network file systems
too), and touches it every `BEAT` seconds. A claim is *gone* when its process was one of this machine and has ended, or when
nothing has touched it for `LEASE` seconds by the watcher's own clock; it is taken over then.

Claims only save work. A chunk is the same bits whoever computes it, and is there whole or not at all, so that two tasks at
work on one chunk, as after a long sleep of one of them, do no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import socket
import threading
import time
from pathlib import Path

BEAT = 5.0
LEASE = 60.0


def host() -> str:
    """Eight digits for this machine, or for this container: where the numbers of processes mean the same."""
    with contextlib.suppress(OSError):
        return _digits(f"{socket.gethostname()} {os.readlink('/proc/self/ns/pid')}")
    return _digits(socket.gethostname())


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def is_running(pid: int) -> bool:
    """Whether this machine has a process of that number."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


class Claims:
    """The claims of one task in a directory.

    >>> import tempfile
    >>> directory = Path(tempfile.mkdtemp())
    >>> mine, others = Claims(directory), Claims(directory)
    >>> mine.take("0"), others.take("0")
    (True, False)
    >>> mine.release("0")
    >>> others.take("0")
    True
    >>> others.close()
    """

    def __init__(self, directory: Path):
        self.directory = directory
        self.token = secrets.token_hex(8)
        self._me = {"host": host(), "pid": os.getpid(), "token": self.token}
        self._held: set[str] = set()
        self._seen: dict[str, tuple[object, float]] = {}
        self._guard = threading.Lock()
        self._over = threading.Event()
        self._heart: threading.Thread | None = None

    def _path(self, name: str) -> Path:
        return self.directory / f"claim-{name}"

    def take(self, name: str) -> bool:
        """Whether the chunk is this task's now. `OSError` where the claim cannot be written."""
        if not self._make(name):
            if not self._is_gone(name):
                return False
            self._remove(name)
            if not self._make(name):  # another task was quicker
                return False
        with self._guard:
            self._held.add(name)
            if self._heart is None:
                self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)
                self._heart.start()
        return True

    def _make(self, name: str) -> bool:
        path = self._path(name)
        try:
            handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        except FileExistsError:
            return False
        try:
            os.write(handle, json.dumps(self._me).encode())
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
        return True

    def _is_gone(self, name: str) -> bool:
        """Whether the task that claimed the chunk is."""
        path = self._path(name)
        try:
            text, touched = path.read_text(encoding="utf-8"), path.stat().st_mtime_ns
        except OSError:  # it was released just now
            return False
        try:
            owner = json.loads(text)
            if owner["host"] == self._me["host"] and not is_running(owner["pid"]):
                return True
        except (ValueError, KeyError, TypeError, OverflowError):  # in the middle of being written, or damaged
            pass
        state, now = (text, touched), time.monotonic()
        before, since = self._seen.get(name, (None, now))
        if before != state:
            self._seen[name] = state, now
            return False
        return now - since > LEASE

    def _remove(self, name: str) -> None:
        """Remove the claim of a task that is gone; of several that try, one renames it."""
        aside = self.directory / f".part-gradstarve-{self._me['host']}-{os.getpid()}-{self.token}-claim"
        with contextlib.suppress(OSError):
            os.replace(self._path(name), aside)
            aside.unlink()
        self._seen.pop(name, None)

    def release(self, name: str) -> None:
        """Give the chunk back, computed or not."""
        with self._guard:
            self._held.discard(name)
        with contextlib.suppress(OSError, ValueError, KeyError):
            if json.loads(self._path(name).read_text(encoding="utf-8"))["token"] == self.token:
                self._path(name).unlink()

    def close(self) -> None:
        """Give all chunks back."""
        self._over.set()
        for name in list(self._held):
            self.release(name)

    def clear(self) -> None:
        """Remove claims that ended processes of this machine have left."""
        for path in self.directory.glob("claim-*"):
            name = path.name.removeprefix("claim-")
            if self._is_gone(name):
                self._remove(name)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            with self._guard:
                held = list(self._held)
            for name in held:
                with contextlib.suppress(OSError):
                    os.utime(self._path(name))
