"""Files that are complete or absent however a process ends, and directories that go again if nothing comes of them."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_unfinished: set[Path] = set()
_numbers = itertools.count()
_made: list[Path] = []


@contextlib.contextmanager
def whole(path: Any) -> Iterator[Path]:
    """A path to write to, which becomes `path` when the block ends, and is removed if the block fails or is stopped.

    It lies in the same directory under a name that nothing else has. What was at `path` stays until then.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with whole(path) as part:
    ...     _ = part.write_text("1 2 3")
    >>> [entry.name for entry in path.parent.iterdir()]
    ['numbers.txt']
    """
    path = Path(path)
    # Nobody's file: with the number of the process and of the file in it, and made by `whole` alone.
    part = path.with_name(f".{path.name}.gradstarve-{os.getpid()}-{next(_numbers)}.part")
    _unfinished.add(part)
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)  # there is none when all went well
        _unfinished.discard(part)


def write_text(path: Any, text: str) -> Path:
    """Write `text` to `path` in UTF-8 by way of `whole`."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def make_directory(path: Any) -> Path:
    """Make the directory `path` with those above it, and remember what was made, for `tidy`. `OSError` if it can not be.

    `ValueError` for an empty path, which would be the current directory.
    """
    if not os.fspath(path):
        raise ValueError("the directory has an empty path; give one, or '.' for the current directory")
    path = Path(path)
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    path.mkdir(parents=True, exist_ok=True)
    _made.extend(missing[::-1])
    return path


def tidy() -> None:
    """Remove what a stopped command leaves: unfinished files, and directories of `make_directory` that are still empty."""
    for part in list(_unfinished):
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    for folder in reversed(_made):
        with contextlib.suppress(OSError):  # it holds something, or is gone
            folder.rmdir()
    _made.clear()
