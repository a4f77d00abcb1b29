"""The directory of a sweep: a manifest of what is computed, and one file per chunk, each there whole or not at all.

    manifest.json                    settings, environment, data checksums, sizes of blocks and chunks
    chunk-000012-<sha256>.npz        the arrays of chunk 12; the name holds the checksum of the file's bytes
    lock-0                           held by process 0 of the run that is at work here

A file is written under a temporary name, flushed to the disk and renamed, so that a process killed at any moment leaves
complete chunks and at most a temporary file, which the next run removes.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

FORMAT = 1


def environment(device: Any) -> dict[str, str]:
    """What the last bits of a sweep depend on besides its settings."""
    found = {name: metadata.version(name) for name in ("gradstarve", "jax", "jaxlib")}
    return found | {"backend": device.platform, "device": device.device_kind, "processor": _processor()}


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
    """

    def __init__(self, directory: Any, settings: dict[str, Any], sizes: dict[str, int], device: Any):
        self.directory, self.device = Path(directory), device
        self.process = jax.process_index()
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"can not create the directory {str(directory)!r}: {error.strerror}") from None
        self._lock = self._take_lock()
        try:
            # What JSON makes of them, so that what is compared has been through the same.
            settings = json.loads(json.dumps(settings))
            self.environment = environment(device)
            self.begun_in, self.sizes = self._manifest(settings, sizes)
            self._digest = hashlib.sha256(json.dumps([settings, self.sizes], sort_keys=True).encode()).hexdigest()
            self._remove_leftovers()
        except BaseException:
            self._lock.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.close()

    def _take_lock(self) -> BinaryIO:
        """The lock goes with the process, however that ends."""
        lock = open(self.directory / f"lock-{self.process}", "ab")  # noqa: SIM115 (held as long as the store)
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
            else:
                import fcntl

                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.close()
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            raise ValueError(
                f"another sweep is at work in {str(self.directory)!r}; wait for it, or give another directory"
            ) from None
        return lock

    def _manifest(self, settings: dict[str, Any], sizes: dict[str, int]) -> tuple[dict[str, str], dict[str, int]]:
        """The environment and the sizes that the directory was begun with; those of now for a new one."""
        path = self.directory / "manifest.json"
        if not path.exists():
            strangers = [p.name for p in self.directory.iterdir() if not p.name.startswith(("lock-", ".part-"))]
            if any(name.startswith("chunk-") for name in strangers):
                raise ValueError(f"{str(self.directory)!r} has chunks but no manifest.json; give another directory")
            manifest = {"format": FORMAT, "settings": settings, "sizes": sizes, "environment": self.environment}
            self._write(path.name, (json.dumps(manifest, indent=1) + "\n").encode(), "manifest.json")
            return self.environment, sizes
        try:
            manifest = json.loads(path.read_text(encoding="utf-8"))
            there, form = manifest["settings"], manifest["format"]
            begun_in, kept = manifest["environment"], manifest["sizes"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{str(path)!r} is not the manifest of a sweep; give another directory") from None
        if form != FORMAT:
            raise ValueError(f"{str(path)!r} has format {form}, this version reads {FORMAT}; give another directory")
        changed = differences(there, settings)
        if changed:
            raise ValueError(
                f"the sweep in {str(self.directory)!r} was begun with other settings: {'; '.join(changed)}. "
                "Give another directory, or the settings of before"
            )
        return begun_in, kept

    def check_environment(self) -> None:
        """`ValueError` unless what is computed now has the same last bits as what was: same versions, same hardware."""
        changed = differences(self.begun_in, self.environment)
        if changed:
            raise ValueError(
                f"the sweep in {str(self.directory)!r} is not complete and was begun elsewhere: {'; '.join(changed)}. "
                "Chunks of both would not fit together to the last bit; go on there, or give another directory"
            )

    def _remove_leftovers(self) -> None:
        # Those of other processes may be in the making, unless there are none.
        mine = "*" if jax.process_count() == 1 else f"{self.process}-*"
        for path in self.directory.glob(f".part-{mine}"):
            path.unlink(missing_ok=True)

    def _files(self, chunk: int) -> list[Path]:
        return sorted(self.directory.glob(f"chunk-{chunk:06d}-*.npz"))

    def load(self, chunk: int) -> tuple[dict[str, np.ndarray] | None, str | None]:
        """The arrays of `chunk`, or None where there are none or they are damaged; and then what is wrong with them."""
        wrong = None
        for path in self._files(chunk):
            content = path.read_bytes()
            if hashlib.sha256(content).hexdigest() != path.stem.rpartition("-")[2]:
                wrong = f"{path.name} is damaged: its {len(content)} bytes do not have the checksum in its name"
                continue
            with np.load(io.BytesIO(content)) as stored:
                arrays = {name: stored[name] for name in stored.files}
            if str(arrays.pop("belongs_to")) == self._digest:
                return arrays, None
            wrong = f"{path.name} belongs to another sweep"
        return None, wrong

    def save(self, chunk: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Store a chunk; damaged files of the same chunk are replaced."""
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, belongs_to=np.array(self._digest), **dict(arrays))
        content = buffer.getvalue()
        old = self._files(chunk)
        name = f"chunk-{chunk:06d}-{hashlib.sha256(content).hexdigest()}.npz"
        self._write(name, content, f"chunk {chunk}")
        for path in old:
            if path.name != name:
                path.unlink(missing_ok=True)

    def _write(self, name: str, content: bytes, what: str) -> None:
        """`content` under `name`, or an `OSError` that says what became of it."""
        part = self.directory / f".part-{self.process}-{name}"
        try:
            with open(part, "wb") as file:
                write_through(file, content)
            os.replace(part, self.directory / name)
            self._flush_directory()
        except OSError as error:
            part.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"can not write {what} ({len(content)} bytes) to {str(self.directory)!r}: {error.strerror}. Chunks "
                "already there are complete: make room and run the same sweep again, it goes on from them",
            ) from error

    def _flush_directory(self) -> None:
        """A rename is on the disk once its directory is."""
        if os.name != "nt":
            handle = os.open(self.directory, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def write_through(file: BinaryIO, content: bytes) -> None:
    """Write `content` and wait until the disk has it."""
    file.write(content)
    file.flush()
    os.fsync(file.fileno())


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
    return [] if there == here else [f"{name}: {_short(there)} there, {_short(here)} here"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
