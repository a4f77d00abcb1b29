"""Files that are complete or absent however a process ends, and directories that are removed again if they stay empty.

Also here: the writer of JSON, and the versions, device and precision that a result depends on besides its settings.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from gradstarve.ground._text import shown
from gradstarve.ground._text import to_jsonable as to_jsonable

_unfinished: set[Path] = set()
_numbers = itertools.count()
_made: list[Path] = []


@contextlib.contextmanager
def whole(path: Any, name: str | None = None) -> Iterator[Path]:
    """A temporary path to write to; its file is renamed to `path` when the block ends, and removed if the block fails.

    The temporary file lies in the directory of `path`, under `name` or, by default, a name that no other file has. A file
    that is already at `path` stays until the block ends.

    >>> import pathlib, tempfile
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "numbers.txt"
    >>> with whole(path) as part:
    ...     _ = part.write_text("1 2 3")
    >>> [entry.name for entry in path.parent.iterdir()]
    ['numbers.txt']
    """
    path = as_path(path)
    # A name that no other file has: it contains the number of the process and of the file, and only `whole` makes it.
    part = path.with_name(name or f".{path.name}.gradstarve-{os.getpid()}-{next(_numbers)}.part")
    _unfinished.add(part)
    try:
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):  # no file is left after success, and the directory itself may be gone
            part.unlink()
        _unfinished.discard(part)


def write_text(path: Any, text: str) -> Path:
    """Write `text` to `path` in UTF-8; the file is complete or absent (see `whole`)."""
    with whole(path) as part:
        part.write_text(text, encoding="utf-8")
    return Path(path)


def write_bytes(path: Any, content: bytes, name: str | None = None) -> Path:
    """Write `content` to `path` through `whole`, in a file called `name` until the disk has all of it."""
    with whole(path, name) as part, open(part, "wb") as file:
        write_through(file, content)
    return Path(path)


def write_through(file: BinaryIO, content: bytes) -> None:
    """Write `content` and wait until the disk has it."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


def as_path(path: Any, name: str = "path") -> Path:
    """`path` as a `Path`; `ValueError` names the argument `name` if it is neither a string nor a path."""
    if not isinstance(path, str | os.PathLike):
        raise ValueError(f"{name} must be a string or a path, got {shown(path)}")
    return Path(path)


def make_directory(path: Any) -> Path:
    """Make the directory `path` with its parents, and remember the new ones for `tidy`. `OSError` if that fails.

    `ValueError` for an empty path, which would be the current directory.
    """
    if isinstance(path, str) and not path:
        raise ValueError("the directory has an empty path; give one, or '.' for the current directory")
    path = as_path(path)
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


# What a result depends on besides its settings.


def version() -> str:
    """The installed version of gradstarve."""
    from importlib import metadata

    return metadata.version("gradstarve")


def environment() -> dict[str, Any]:
    """What a result depends on besides its settings: versions, device and precision. No paths and no host names.

    >>> environment()["precision"] in ("float32", "float64")
    True
    """
    import equinox
    import jax
    import jaxlib
    import numpy as np

    device = jax.devices()[0]
    return {
        "gradstarve": version(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "equinox": equinox.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "backend": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "precision": np.dtype(jax.numpy.result_type(float)).name,
    }


# JSON files that are complete or absent, in a directory that is made before the work starts.


def write_json(path: Any, value: Any) -> Path:
    """Write `value` (see `to_jsonable`) to `path`; the file is complete or absent, whenever the process stops."""
    return write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` (see `to_jsonable`) as the text of a JSON document, with a list of numbers on one line."""
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A line break inside brackets is never part of a string.
    return re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)


def output_directory(path: Any) -> Path:
    """`path` as a directory that exists and can be written to; created if need be, `ValueError` if that fails.

    Call this function before long work, so that the work is not lost to a mistyped path. `files.tidy` removes the directory
    again if this function made it and it stays empty.
    """
    try:
        path = make_directory(path)
    except OSError as error:
        raise ValueError(f"cannot create the directory {str(path)!r}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"cannot write to the directory {str(path)!r}: permission denied")
    return path
