"""A cache of compiled programs on disk, so that later processes need not compile them again."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import sys
import warnings
from pathlib import Path
from typing import Any

from gradstarve.ground._files import as_path
from gradstarve.ground._text import shown

VARIABLE = "GRADSTARVE_CACHE"
"""Where the command line keeps programs: a directory, or "off"."""

_LIMIT = 500 * 2**20


def enable_compilation_cache(directory: Any = None) -> Path:
    """Keep compiled programs in `directory`, where later processes find them; returns the directory that is used.

    By default the directory is gradstarve in the user's folder for caches. It has one folder for each version of JAX and
    kind of processor, because a program compiled for another processor may not run. The directory can be deleted at any
    time. The command line calls this function itself; the environment variable GRADSTARVE_CACHE names another directory for
    the command line, or is "off".

    Call this function before JAX is imported: XLA then prints no message about the processor of each stored program. Once
    more than 500 MB are stored, the oldest programs are removed. Results do not depend on the cache.

    `ValueError` if the directory cannot be written to.

    >>> enable_compilation_cache("/dev/null")
    Traceback (most recent call last):
    ValueError: compiled programs cannot be kept in '/dev/null': Not a directory; give another directory
    """
    # Absolute: the processes of a pool may work in other folders.
    home = _users_folder() / "gradstarve" if directory is None else as_path(directory, "directory").absolute()
    folder = home / f"{_version()}-{_processor()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError("no permission to write")
    except OSError as error:
        why = f"{shown(str(home))}: {error.strerror or error}"
        raise ValueError(f"compiled programs cannot be kept in {why}; give another directory") from None
    _make_room(folder)
    # A file that a killed process left half written counts as a cache miss and needs no warning.
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache", UserWarning)
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    if "jax" in sys.modules:
        import jax

        for name, value in settings.items():
            jax.config.update(name, value)
    else:  # JAX reads these variables when it is imported, in this process and in its children
        os.environ.update({name.upper(): str(value) for name, value in settings.items()})
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    return folder


def enable_for_command_line() -> None:
    """Enable the cache of the command line, unless the user has switched it off or the disk refuses it."""
    chosen = os.environ.get(VARIABLE, "")
    if chosen.lower() not in ("off", "0", "no") and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        with contextlib.suppress(ValueError):
            enable_compilation_cache(chosen or None)


def _users_folder() -> Path:
    """Where this system keeps caches."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")


def _version() -> str:
    from importlib import metadata

    return f"jax-{metadata.version('jaxlib')}"


def _processor() -> str:
    """A short hash of the instruction set of this processor."""
    text = f"{platform.machine()} {platform.processor()}"
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        text += next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _make_room(folder: Path, limit: int = _LIMIT) -> None:
    """If `folder` holds more than `limit` bytes, remove its oldest files until at most half of `limit` is left."""
    files = []
    for entry in os.scandir(folder):
        with contextlib.suppress(OSError):  # another process has removed it
            files.append((entry.stat().st_mtime, entry.stat().st_size, entry.path))
    total = sum(size for _, size, _ in files)
    if total <= limit:
        return
    for _, size, path in sorted(files):
        if total <= limit / 2:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
        total -= size
