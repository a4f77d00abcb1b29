"""The directory of a sweep: a manifest of what is computed, and one file per chunk, each there whole or not at all.

    manifest.json                    settings, environment, sizes of blocks and chunks
    chunk-000012-<sha256>.npz        the arrays of chunk 12; the name holds the checksum of the file's bytes
    lock-0                           held by process 0 of the run that is at work here

A file is written under a temporary name, flushed to the disk and renamed, so that a process killed at any moment leaves
complete chunks and at most a temporary file, which the next run removes.

The manifest has a format number. Format 2 stores losses by `identity`, with every number and all code that is not a
library's, and each chunk has the sizes and the environment too, so that a lost manifest is written again from a chunk.
Format 1 stored the text of a loss, which hides its values; such a directory is refused. Phases stand in the settings by
their ends and the checksums of their data, in place of the one checksum; what has no phases is stored as before them.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
import re
import socket
import warnings
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from gradstarve.ground import files

FORMAT = 2

# Options of JAX that change the last bits of what it computes.
_OPTIONS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_disable_most_optimizations", "jax_numpy_dtype_promotion")

# What a file system answers where it has no such call, by the call.
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL, errno.EBADF}
_NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
_LOST = {errno.ESTALE, errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN}


def environment(device: Any) -> dict[str, str]:
    """What the last bits of a sweep depend on besides its settings."""
    found = {name: metadata.version(name) for name in ("gradstarve", "jax", "jaxlib")}
    found |= {"backend": device.platform, "device": device.device_kind, "processor": _processor()}
    for name in _OPTIONS:
        found[name] = str(getattr(jax.config, name, None))
    # How many devices there are changes nothing.
    flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag and "_dump_" not in flag]
    return found | {"XLA_FLAGS": " ".join(sorted(flags))}


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def checksum(*arrays: Any) -> str:
    """The first 16 digits of the SHA-256 of the arrays' bytes, shapes and types."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.shape} {array.dtype.str}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


class Store:
    """The chunks of one sweep in a directory, made if need be. A context manager: it holds the directory's lock.

    `settings` say what is computed and `sizes` how it is cut; both are plain JSON. A directory keeps the sizes that it was
    begun with (`.sizes`). `ValueError` if it was begun with other settings, which are named one by one, if it holds
    something else, or if another run is at work in it.

    A directory that cannot be written to is read (`.writable` is False). On a file system without locks, or without a way
    to flush a directory, the sweep runs with one warning that says which guarantee is missing.
    """

    def __init__(self, directory: Any, settings: dict[str, Any], sizes: dict[str, int], device: Any):
        if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
            raise ValueError(f"directory must be the path of a directory, got {directory!r}; give None to store nothing")
        self.directory, self.device = Path(directory), device
        self.process = jax.process_index()
        self.writable = True
        self._flushes = True
        self._lock: BinaryIO | None = None
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot create the directory {str(directory)!r}: {error.strerror}") from None
        self._locked = self._take_lock()
        try:
            # What JSON makes of them, so that what is compared has been through the same.
            settings = json.loads(json.dumps(settings))
            self.environment = environment(device)
            self.begun_in, self.sizes = self._manifest(settings, sizes)
            self._digest = _digest(settings, self.sizes)
            if self.writable:
                self._remove_leftovers()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the lock back."""
        if self._lock is not None:
            self._lock.close()

    def _take_lock(self) -> bool:
        """Whether the lock is held; it goes with the process, however that ends."""
        path = self.directory / f"lock-{self.process}"
        try:
            self._lock = open(path, "ab")  # noqa: SIM115 (held as long as the store)
        except OSError as error:
            if error.errno not in _NO_WRITING:
                raise self._failure(error, f"cannot open {path.name} in") from error
            self.writable = False
            try:
                self._lock = open(path, "rb")  # noqa: SIM115
            except OSError:  # nobody has worked here, or the file cannot be read: then there is nothing to hold
                return False
        try:
            lock(self._lock, shared=not self.writable)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                self.close()
                raise ValueError(
                    f"another sweep is at work in {str(self.directory)!r}; wait for it, or give another directory"
                ) from None
            if error.errno not in _NO_LOCKS:
                self.close()
                raise self._failure(error, f"cannot lock {path.name} in") from error
            if self.writable:
                self._warn(error, "has no locks", "two sweeps at work there do not notice each other; start one only")
            return False
        return True

    def _warn(self, error: OSError, lacks: str, meaning: str) -> None:
        text = f"the file system of {str(self.directory)!r} {lacks} ({error.strerror}): {meaning}"
        warnings.warn(text, UserWarning, stacklevel=2)

    def _failure(self, error: OSError, what: str) -> OSError:
        """`error` with what was tried, and what to do about it."""
        return OSError(error.errno, f"{what} {str(self.directory)!r}: {error.strerror}. {advice(error.errno)}")

    def _manifest(self, settings: dict[str, Any], sizes: dict[str, int]) -> tuple[dict[str, str], dict[str, int]]:
        """The environment and the sizes that the directory was begun with; those of now for a new one."""
        path = self.directory / "manifest.json"
        if not path.exists():
            if any(self.directory.glob("chunk-*")):
                return self._from_chunks(settings, f"{str(self.directory)!r} has chunks but no manifest.json")
            if not self.writable:
                raise ValueError(f"{str(self.directory)!r} cannot be written to, and no sweep is stored there")
            return self._begin(settings, sizes, self.environment)
        wrong = f"{str(path)!r} is not the manifest of a sweep"
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            form, there, begun_in, kept = (manifest[key] for key in ("format", "settings", "environment", "sizes"))
        except OSError as error:
            raise self._failure(error, "cannot read manifest.json in") from error
        except (ValueError, KeyError, TypeError, RecursionError):
            return self._from_chunks(settings, wrong)
        if form != FORMAT:
            older = "; its manifest lacks the values of losses, so that another sweep could be taken for this one"
            raise ValueError(
                f"{str(path)!r} has format {form!r}, this version reads {FORMAT}{older if form == 1 else ''}; "
                "give another directory"
            )
        if not (isinstance(there, dict) and _are_sizes(kept) and _is_environment(begun_in)):
            return self._from_chunks(settings, wrong)
        changed = differences(there, settings)
        if changed:
            raise ValueError(
                f"the sweep in {str(self.directory)!r} was begun with other settings: {'; '.join(changed)}. "
                "Give another directory, or the settings of before"
            )
        return begun_in, kept

    def _begin(
        self, settings: dict[str, Any], sizes: dict[str, int], begun_in: dict[str, str]
    ) -> tuple[dict[str, str], dict[str, int]]:
        """Write the manifest."""
        manifest = {"format": FORMAT, "settings": settings, "sizes": sizes, "environment": begun_in}
        self._write("manifest.json", files.json_text(manifest).encode(), "manifest.json")
        return begun_in, sizes

    def _from_chunks(self, settings: dict[str, Any], wrong: str) -> tuple[dict[str, str], dict[str, int]]:
        """What the manifest said, from a chunk that belongs to these settings; the manifest is written again."""
        others = 0
        for path in sorted(self.directory.glob("chunk-*.npz")):
            arrays = _read_chunk(path)[0]
            try:
                about = json.loads(str((arrays or {})["about"]))
                kept, begun_in = about["sizes"], about["environment"]
            except (ValueError, KeyError, TypeError, RecursionError):
                continue
            if not (_are_sizes(kept) and _is_environment(begun_in)):
                continue
            if str((arrays or {})["belongs_to"]) == _digest(settings, kept):
                if self.writable:
                    text = f"{wrong}; it is written again from {path.name}"
                    warnings.warn(text, UserWarning, stacklevel=2)
                    self._begin(settings, kept, begun_in)
                return begun_in, kept
            others += 1
        if others:
            raise ValueError(
                f"{wrong}, and the chunks beside it belong to a sweep with other settings; call that sweep, which writes "
                "its manifest again and keeps all chunks, or give another directory"
            )
        raise ValueError(f"{wrong}, and no sound chunk tells what it was; give another directory")

    def check_can_compute(self, chunks: int) -> None:
        """`ValueError` unless the missing `chunks` can be stored here and have the same last bits as the others.

        That takes the same versions and hardware, and a directory that can be written to.
        """
        if not self.writable:
            raise ValueError(
                f"the sweep in {str(self.directory)!r} is not complete ({chunks} chunks are missing), and the directory "
                "cannot be written to: change its permissions, or go on in a copy of it"
            )
        changed = differences(self.begun_in, self.environment)
        if changed:
            raise ValueError(
                f"the sweep in {str(self.directory)!r} is not complete and was begun elsewhere: {'; '.join(changed)}. "
                "Chunks of both would not fit together to the last bit; go on there, or give another directory"
            )

    def _remove_leftovers(self) -> None:
        """Unfinished files of runs that are over; files of others, and of other processes of this run, stay."""
        here = _host()
        for path in self.directory.glob(".part-gradstarve-*"):
            found = _PART.fullmatch(path.name)
            if found is None or path.is_dir():
                continue
            process, host, pid = int(found[1]), found[2], int(found[3])
            if process != self.process and jax.process_count() > 1:
                continue
            # The lock says that no other run is at work; without locks a process of this machine can be looked for.
            if self._locked or (host == here and not _is_running(pid)):
                path.unlink(missing_ok=True)

    def _files(self, chunk: int) -> list[Path]:
        return sorted(self.directory.glob(f"chunk-{chunk:06d}-*.npz"))

    def load(self, chunk: int) -> tuple[dict[str, np.ndarray] | None, str | None]:
        """The arrays of `chunk`, or None where there are none or they are damaged; and then what is wrong with them.

        `ValueError` where something that is no file has the name of the chunk, `OSError` where it cannot be read.
        """
        wrong = None
        for path in self._files(chunk):
            if not path.is_file():
                raise ValueError(f"{str(path)!r} is not a file; move it away and run the same sweep again")
            try:
                arrays, wrong = _read_chunk(path)
            except OSError as error:
                if error.errno != errno.EIO:
                    raise self._failure(error, f"cannot read {path.name} in") from error
                wrong = f"{path.name} cannot be read ({error.strerror})"
                continue
            if arrays is None:
                continue
            about = json.loads(str(arrays.pop("about", "{}")))
            if str(arrays.pop("belongs_to")) != self._digest:
                wrong = f"{path.name} belongs to another sweep"
            elif about.get("chunk") != chunk:
                wrong = f"{path.name} holds chunk {about.get('chunk')}"
            else:
                return arrays, None
        return None, wrong

    def save(self, chunk: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store a chunk; damaged files of the same chunk are replaced."""
        about = json.dumps({"chunk": chunk, "sizes": self.sizes, "environment": self.begun_in})
        buffer = io.BytesIO()
        own = {"belongs_to": np.array(self._digest), "about": np.array(about)}
        np.savez(buffer, allow_pickle=False, **own, **dict(arrays))
        content = buffer.getvalue()
        old = self._files(chunk)
        name = f"chunk-{chunk:06d}-{hashlib.sha256(content).hexdigest()}.npz"
        self._write(name, content, f"chunk {chunk}")
        for path in old:
            if path.name != name:
                path.unlink(missing_ok=True)

    def _write(self, name: str, content: bytes, what: str) -> None:
        """`content` under `name`, or an `OSError` that says what became of it."""
        part = f".part-gradstarve-{self.process}-{_host()}-{os.getpid()}-{name}"
        try:
            files.write_bytes(self.directory / name, content, part)
        except OSError as error:
            raise self._failure(error, f"cannot write {what} ({len(content)} bytes) to") from error
        self._flush_directory()

    def _flush_directory(self) -> None:
        """A rename is on the disk once its directory is."""
        if os.name == "nt" or not self._flushes:
            return
        try:
            handle = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _NO_FLUSH | _NO_WRITING:
                raise self._failure(error, "cannot flush") from error
            self._flushes = False
            meaning = "after a power failure the last chunks may be missing, and are computed again then"
            self._warn(error, "cannot flush a directory", meaning)


_PART = re.compile(r"\.part-gradstarve-(\d+)-([0-9a-f]{8})-(\d+)-(?:manifest\.json|chunk-\d{6}-[0-9a-f]{64}\.npz)")


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def lock(file: BinaryIO, shared: bool = False) -> None:
    """Take the lock of an open file for this process, or an `OSError`: EAGAIN where another one has it.

    Several processes may hold it `shared`, which is enough to read.
    """
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        import fcntl

        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def advice(code: int | None) -> str:
    """What to do about the `OSError` of that number, in a directory of chunks."""
    again = "run the same sweep again: it goes on from the chunks already there, which are complete"
    if code in (errno.ENOSPC, getattr(errno, "EDQUOT", None)):
        return f"Chunks already there are complete: make room and {again.partition(',')[0]}"
    if code in _NO_WRITING:
        return f"Change the permissions of the directory, then {again}"
    if code in _LOST:
        return f"The directory or its file server has gone: mount it again, then {again}"
    if code in (errno.EMFILE, errno.ENFILE):
        return f"Too many files are open: raise the limit (ulimit -n), then {again}"
    if code == errno.EIO:
        return f"The disk reports a fault: look after it, or copy the directory to another disk, then {again}"
    return f"Remove the cause, then {again}"


def _digest(settings: dict[str, Any], sizes: dict[str, int]) -> str:
    return hashlib.sha256(json.dumps([settings, sizes], sort_keys=True).encode()).hexdigest()


def _are_sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(type(value.get(key)) is int and value[key] > 0 for key in ("block", "chunk"))


def _is_environment(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(entry, str) for entry in value.values())


def _read_chunk(path: Path) -> tuple[dict[str, np.ndarray] | None, str | None]:
    """The arrays of a file, or what is wrong with it."""
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
        return None, f"{path.name} is damaged: its {len(content)} bytes do not have the checksum in its name"
    try:
        with np.load(io.BytesIO(content)) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, TypeError):
        return None, f"{path.name} is not the file of a chunk"
    return (arrays, None) if "belongs_to" in arrays else (None, f"{path.name} is not the file of a chunk")


def differences(there: Any, here: Any, name: str = "") -> list[str]:
    """What differs between two JSON values, one entry each: "steps: 2000 there, 3000 here".

    >>> differences({"steps": 1, "data": {"a": 2}}, {"steps": 1, "data": {"a": 3}})
    ['data.a: 2 there, 3 here']
    """
    if isinstance(there, dict) and isinstance(here, dict):
        names = [*there, *(key for key in here if key not in there)]
        nothing = object()
        pairs = [(key, there.get(key, nothing), here.get(key, nothing)) for key in names]
        found = []
        for key, one, other in pairs:
            path = f"{name}.{key}" if name else key
            if one is nothing or other is nothing:
                found.append(f"{path}: {'only here' if one is nothing else 'only there'}")
            else:
                found += differences(one, other, path)
        return found
    return [] if json.dumps(there) == json.dumps(here) else [f"{name}: {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
