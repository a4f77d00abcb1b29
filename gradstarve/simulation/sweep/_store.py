"""The directory of sweeps: a manifest of what was asked for last, and one file per chunk, each there whole or not at all.

    manifest.json                                        settings, axes, environment; what losses and dynamics are made of
    data-<checksum>.npz                                  a dataset that was trained on
    chunk-<sweep>-<first seed>-<seeds>-<sha256>.npz      the arrays of a chunk; the name ends with the checksum of its bytes
    claim-<sweep>-<first seed>-<seeds>                   a task is at work on that chunk; see `Claims`

A chunk is known by what it is: <sweep> is a digest of everything that decides the numbers of one configuration, whatever
else is swept beside it. So a directory is *extended* by asking for more in it: chunks that hold are read, the others are
computed. Several processes may do so at the same time.

Threshold and own statistics are read off the logits, and decide nothing of the training. So a chunk that kept its logits
holds the training of one with another threshold, other statistics, or less to keep: such a chunk is made of it, by the
program that makes it after training, and has the same bits. The manifest lists under "earlier" what the directory was asked
for before.

A file is written under a temporary name, flushed to the disk and renamed, so that a process killed at any moment leaves
complete chunks and at most a temporary file, which the next run removes.

The manifest has a format number. Format 3 knows chunks by what they are, and blocks by the problem alone. Formats 1 and 2
cut blocks by the number of seeds, so that their chunks hold for no other number; such a directory is refused.
"""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import platform
import re
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstarve.ground import files
from gradstarve.simulation.sweep._claims import Claims, host, is_running

FORMAT = 3

# Options of JAX that change the last bits of what it computes.
_OPTIONS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_disable_most_optimizations", "jax_numpy_dtype_promotion")

# What a file system answers where it has no such call, by the call.
_NO_FLUSH = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EBADF, errno.EISDIR}
_NO_WRITING = {errno.EROFS, errno.EACCES, errno.EPERM}
_LOST = {errno.ESTALE, errno.ENOENT, errno.ENOTCONN, errno.ENODEV, errno.ENXIO, errno.ETIMEDOUT, errno.EHOSTDOWN}

# Settings that every chunk of a directory has in common, and settings by which chunks hold or do not.
_FIXED = ("key", "engine", "precision", "partitionable_random_bits")
_REDONE = ("steps", "record_every", "threshold", "keep", "statistics")
# Those of them that training does not depend on, and what is kept, by how much it is.
_READ_OFF = ("threshold", "keep", "statistics")
_KEPT = ("statistics", "final", "logits")


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


class Piece(NamedTuple):
    """The networks of one chunk: of the configuration with digest `sweep`, `count` seeds from `first` on."""

    sweep: str
    first: int
    count: int

    def __str__(self) -> str:
        return f"{self.sweep[:16]}-{self.first:010d}-{self.count}"


class Reader:
    """A directory that is read: `manifest`, its `settings`, and the digests of its configurations, `sweeps`.

    `sources`: for each configuration the digests of those of whose chunks missing ones can be made, and of what of them, see
    `made_of`; none where nothing is made.

    `ValueError` where no sweep is stored there.
    """

    def __init__(self, directory: Path):
        self.directory = directory
        manifest, wrong = read_manifest(directory)
        if manifest is None:
            chunks = any(directory.glob("chunk-*"))
            name = repr(str(directory))
            lost = f"{name} has chunks but no manifest.json" if chunks else f"no sweep is stored in {name}"
            again = "; call gs.sweep again with its arguments, which writes it anew" if chunks or wrong else ""
            raise ValueError(f"{wrong or lost}{again}")
        self.manifest, self.settings = manifest, manifest["settings"]
        self.sweeps = digests(self.settings)
        self.sources: list[dict[str, str]] = [{} for _ in self.sweeps]

    def load(self, piece: Piece) -> tuple[dict[str, np.ndarray] | None, str | None]:
        """The arrays of a chunk, or None where there are none or they are damaged; and then what is wrong with them.

        `ValueError` where something that is no file has the name of the chunk, `OSError` where it cannot be read.
        """
        return load(self.directory, piece, self.directory.glob(f"chunk-{piece}-*.npz"))


class Store(Reader):
    """The chunks in a directory, made if need be. A context manager: at its end the claims of this task go.

    `manifest` has "settings", which say what is computed, and what else is to be remembered, all in plain JSON; `datasets`
    are arrays by checksum. `ValueError` if the directory holds something else, or was begun with settings that these do not
    extend, which are named one by one. What cannot be used of a directory that is extended is named in a warning.

    A directory that cannot be written to is read. On a file system without a way to flush a directory the sweep runs with
    one warning.
    """

    def __init__(self, directory: Any, manifest: dict[str, Any], datasets: dict[str, dict[str, Any]], device: Any):
        self.directory, self.device = as_directory(directory), device
        self._flushes = True
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot create the directory {str(directory)!r}: {error.strerror}") from None
        self.claims = Claims(self.directory)
        # What JSON makes of it, so that what is compared has been through the same.
        self.settings = json.loads(json.dumps(manifest["settings"]))
        self.sweeps = digests(self.settings)
        self.environment = environment(device)
        self._writable: bool | None = None
        self._earlier: list[dict[str, Any]] = []
        self.begun_in = self._settle(manifest | {"settings": self.settings}, datasets)
        self.sources = [{} for _ in self.sweeps]
        for earlier in self._earlier:
            what = made_of(earlier, self.settings)
            if what is not None:
                for known, code in zip(self.sources, digests(self.settings | earlier), strict=True):
                    known[code] = what

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.claims.close()

    @property
    def writable(self) -> bool:
        """Whether files can be made here; tried once, when it matters."""
        if self._writable is None:
            path = self.directory / f"{self._part}probe"
            try:
                open(path, "ab").close()
                path.unlink(missing_ok=True)
                self._writable = True
            except OSError as error:
                if error.errno not in _NO_WRITING:
                    raise self._failure(error, "cannot write to") from error
                self._writable = False
        return self._writable

    def _failure(self, error: OSError, what: str) -> OSError:
        return failure(self.directory, error, what)

    def _settle(self, manifest: dict[str, Any], datasets: dict[str, dict[str, Any]]) -> dict[str, str]:
        """The environment that the directory was begun in; its manifest is written where it changes."""
        there, wrong = read_manifest(self.directory)
        if there is None and any(self.directory.glob("chunk-*")):
            there, wrong = read_manifest(self.directory)  # another task may have begun it in between
        name = repr(str(self.directory))
        begun_in = self.environment
        if there is None and any(self.directory.glob("chunk-*")):
            begun_in = self._from_chunks(wrong or f"{name} has chunks but no manifest.json")
        elif there is None and wrong:
            raise ValueError(f"{wrong}, and no sound chunk tells what it was; give another directory")
        elif there is None and not self.writable:
            raise ValueError(f"{name} cannot be written to, and no sweep is stored there")
        elif there is not None:
            begun_in = there["environment"]
            self._earlier = _earlier_of(there)
            refused, redone, smaller = compare(there["settings"], self.settings)
            if refused:
                raise ValueError(
                    f"the sweep in {name} was begun with other settings: {'; '.join(refused)}. "
                    "Give another directory, or what it was begun with and more: seeds, values, steps"
                )
            if smaller or there["settings"] == self.settings:
                self._keep_datasets(datasets)
                return begun_in
            known = any(made_of(earlier, self.settings) for earlier in self._earlier)
            if redone and not (known and set(redone) == set(_differing(there["settings"], self.settings, _REDONE))):
                warnings.warn(
                    f"the chunks in {name} do not hold for this sweep, which has other settings: {'; '.join(redone)}. "
                    "They stay there, and new ones are computed",
                    UserWarning,
                    stacklevel=4,
                )
        if self.writable:
            self._keep_datasets(datasets)
            whole = {"format": FORMAT, **manifest, "earlier": self._earlier, "environment": begun_in}
            self._write("manifest.json", files.json_text(whole).encode(), "manifest.json")
        elif there is not None:
            raise ValueError(f"{name} cannot be written to, and holds a smaller sweep; go on in a copy of it")
        return begun_in

    def _keep_datasets(self, datasets: dict[str, dict[str, Any]]) -> None:
        for code, arrays in datasets.items():
            name = f"data-{code}.npz"
            if not (self.directory / name).exists() and self.writable:
                buffer = io.BytesIO()
                np.savez(buffer, allow_pickle=False, **arrays)
                self._write(name, buffer.getvalue(), name)

    def _from_chunks(self, wrong: str) -> dict[str, str]:
        """The environment of a sound chunk that belongs to these settings, for a manifest that is lost."""
        for (sweep, *_), paths in sorted(index(self.directory).items()):
            if sweep not in {code[:16] for code in self.sweeps}:
                continue
            for path in paths:
                about = _about(_read_chunk(path)[0])
                if about.get("sweep") in self.sweeps and _is_environment(about.get("environment")):
                    if self.writable:
                        warnings.warn(f"{wrong}; it is written again from {path.name}", UserWarning, stacklevel=5)
                    return about["environment"]
        raise ValueError(
            f"{wrong}, and no sound chunk beside it belongs to this sweep; call the sweep that it was begun with, which "
            "writes its manifest again and keeps all chunks, or give another directory"
        )

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
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        """Unfinished files and claims of processes that are over; files of others stay."""
        here, now = host(), time.time()
        for path in self.directory.glob(".part-gradstarve-*"):
            found = _PART.match(path.name)
            if found is None or path.is_dir():
                continue
            with _ignoring_absence():
                # Nobody writes a file for a day.
                if not is_running(int(found[2])) if found[1] == here else now - path.stat().st_mtime > 86_400:
                    path.unlink()
        self.claims.clear()

    def claim(self, piece: Piece) -> bool:
        """Whether this task may compute the chunk now."""
        try:
            return self.claims.take(str(piece))
        except OSError as error:
            raise self._failure(error, "cannot write a claim to") from error

    def save(self, piece: Piece, arrays: Mapping[str, np.ndarray]) -> None:
        """Store a chunk; damaged files of the same chunk are replaced."""
        about = json.dumps({**piece._asdict(), "environment": self.begun_in})
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, about=np.array(about), **dict(arrays))
        content = buffer.getvalue()
        old = list(self.directory.glob(f"chunk-{piece}-*.npz"))
        name = f"chunk-{piece}-{hashlib.sha256(content).hexdigest()}.npz"
        self._write(name, content, f"the chunk of seeds {piece.first} to {piece.first + piece.count - 1}")
        for path in old:
            if path.name != name:
                path.unlink(missing_ok=True)

    @property
    def _part(self) -> str:
        return f".part-gradstarve-{host()}-{os.getpid()}-{self.claims.token}-"

    def _write(self, name: str, content: bytes, what: str) -> None:
        """`content` under `name`, or an `OSError` that says what became of it."""
        try:
            files.write_bytes(self.directory / name, content, self._part + name)
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
            warnings.warn(
                f"the file system of {str(self.directory)!r} cannot flush a directory ({error.strerror}): after a power "
                "failure the last chunks may be missing, and are computed again then",
                UserWarning,
                stacklevel=2,
            )


_PART = re.compile(r"\.part-gradstarve-([0-9a-f]{8})-(\d+)-[0-9a-f]{16}-")
_CHUNK = re.compile(r"chunk-([0-9a-f]{16})-(\d{10})-(\d+)-[0-9a-f]{64}\.npz")


def as_directory(directory: Any) -> Path:
    """`directory` as a path; `ValueError` for what is not a path."""
    if not isinstance(directory, str | os.PathLike) or not os.fspath(directory):
        raise ValueError(f"directory must be the path of a directory, got {directory!r}; give None to store nothing")
    return Path(directory)


def digests(settings: dict[str, Any]) -> list[str]:
    """For each configuration the digest of all that decides the numbers of its chunks."""
    common = {name: value for name, value in settings.items() if name not in ("seeds", "configurations")}
    told = settings["configurations"].values()
    return [hashlib.sha256(json.dumps([common, one], sort_keys=True).encode()).hexdigest() for one in told]


def index(directory: Path) -> dict[tuple[str, int, int], list[Path]]:
    """The files of chunks by (first digits of the sweep, first seed, number of seeds)."""
    found: dict[tuple[str, int, int], list[Path]] = {}
    for path in directory.glob("chunk-*.npz"):
        parts = _CHUNK.fullmatch(path.name)
        if parts:
            found.setdefault((parts[1], int(parts[2]), int(parts[3])), []).append(path)
    return found


def read_manifest(directory: Path) -> tuple[dict[str, Any] | None, str | None]:
    """The manifest, or None and what is wrong with it (None where there is none).

    `ValueError` for one of another format, `OSError` where it cannot be read.
    """
    path = directory / "manifest.json"
    wrong = f"{str(path)!r} is not the manifest of a sweep"
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        form, settings, begun_in = (manifest[key] for key in ("format", "settings", "environment"))
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        raise failure(directory, error, "cannot read manifest.json in") from error
    except (ValueError, KeyError, TypeError, RecursionError):
        return None, wrong
    if form != FORMAT:
        older = {
            1: "; its manifest lacks the values of losses, so that another sweep could be taken for this one",
            2: "; its blocks depend on the number of seeds, so that its chunks hold for no other sweep",
        }
        raise ValueError(
            f"{str(path)!r} has format {form!r}, this version reads {FORMAT}{older.get(form, '')}; "
            "give another directory, where the same sweep writes it anew"
        )
    needed = ("seeds", *_FIXED, *_REDONE, "configurations")
    sound = isinstance(settings, dict) and all(name in settings for name in needed) and _is_environment(begun_in)
    seeds = settings["seeds"] if sound else None
    sound = isinstance(seeds, list) and len(seeds) == 2 and all(type(seed) is int for seed in seeds)
    configurations = settings["configurations"] if sound else None
    sound = isinstance(configurations, dict) and all(isinstance(one, dict) for one in configurations.values())
    return (manifest, None) if sound else (None, wrong)


def compare(there: dict[str, Any], here: dict[str, Any]) -> tuple[list[str], list[str], bool]:
    """What of the settings `here` contradicts those `there`; what makes chunks not hold; whether here is a part of there.

    Seeds and configurations may all be there, or all of those there be here.
    """
    refused, redone = (_differing(there, here, names) for names in (_FIXED, _REDONE))
    theirs, mine = ({_apart(one): one for one in side["configurations"].values()} for side in (there, here))
    (a, b), (c, d) = here["seeds"], there["seeds"]
    more = a <= c and d <= b
    smaller = c <= a and b <= d and mine.keys() <= theirs.keys()
    if not (smaller or (more and theirs.keys() <= mine.keys())):
        left = [
            {number: one for number, one in side["configurations"].items() if _apart(one) not in others}
            for side, others in ((there, mine), (here, theirs))
        ]
        refused += differences({"configurations": left[0]}, {"configurations": left[1]})
        refused += [] if more else differences({"seeds": there["seeds"]}, {"seeds": here["seeds"]})
    blocks = [({"block": theirs[one].get("block")}, {"block": mine[one].get("block")}) for one in theirs if one in mine]
    redone += dict.fromkeys(text for pair in blocks for text in differences(*pair))
    return (redone + refused if refused else []), redone, smaller and not redone


def made_of(earlier: dict[str, Any], here: dict[str, Any]) -> str | None:
    """Of what of a chunk of `earlier` settings one of the settings `here` can be made, None where it cannot.

    "part": of its statistics, with less of what it kept; "logits": of what it kept of the training.

    >>> here = {"steps": 9, "record_every": 3, "threshold": 0.1, "keep": "final", "statistics": {}, "engine": "fused"}
    >>> [made_of(here | {"threshold": 0.2, "keep": keep}, here) for keep in ("statistics", "final", "logits")]
    [None, None, 'logits']
    >>> [made_of(here | {"keep": keep}, here) for keep in ("statistics", "logits")]
    [None, 'part']
    >>> made_of(here | {"steps": 6, "keep": "logits"}, here) is None
    True
    """
    differing = {name for name in _REDONE if json.dumps(earlier[name]) != json.dumps(here[name])}
    if differing == {"keep"} and _KEPT.index(earlier["keep"]) > _KEPT.index(here["keep"]):
        return "part"
    # With own statistics networks are trained on the data as given, as the reference engine always does.
    as_given = here["engine"] == "reference" or bool(earlier["statistics"]) == bool(here["statistics"])
    holds = bool(differing) and differing <= set(_READ_OFF) and earlier["keep"] == "logits" and as_given
    return "logits" if holds else None


def _earlier_of(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    """What the directory was asked for until now, last what its manifest says; what cannot be read is left out."""
    told = manifest.get("earlier")
    sound = [
        {name: one[name] for name in _REDONE}
        for one in (told if isinstance(told, list) else [])
        if isinstance(one, dict) and all(name in one for name in _REDONE) and one["keep"] in _KEPT
    ]
    last = {name: manifest["settings"][name] for name in _REDONE}
    return [*(one for one in sound if one != last), last]


def _differing(there: dict[str, Any], here: dict[str, Any], names: Sequence[str]) -> list[str]:
    return differences({name: there[name] for name in names}, {name: here[name] for name in names})


def _apart(configuration: dict[str, Any]) -> str:
    """A configuration as text, without how its networks are cut."""
    return json.dumps({name: value for name, value in configuration.items() if name != "block"}, sort_keys=True)


def load(directory: Path, piece: Piece, paths: Any) -> tuple[dict[str, np.ndarray] | None, str | None]:
    """See `Store.load`: the first sound one of these files."""
    wrong = None
    for path in sorted(paths):
        if path.exists() and not path.is_file():
            raise ValueError(f"{str(path)!r} is not a file; move it away and run the same sweep again")
        try:
            arrays, wrong = _read_chunk(path)
        except FileNotFoundError:  # replaced by another task just now
            continue
        except OSError as error:
            if error.errno != errno.EIO:
                raise failure(directory, error, f"cannot read {path.name} in") from error
            wrong = f"{path.name} cannot be read ({error.strerror})"
            continue
        if arrays is None:
            continue
        about = _about(arrays)
        if about.get("sweep") != piece.sweep:
            wrong = f"{path.name} belongs to another sweep"
        elif (about.get("first"), about.get("count")) != piece[1:]:
            wrong = f"{path.name} holds {about.get('count')} seeds from {about.get('first')} on"
        else:
            del arrays["about"]
            return arrays, None
    return None, wrong


def _about(arrays: dict[str, np.ndarray] | None) -> dict[str, Any]:
    try:
        about = json.loads(str((arrays or {})["about"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return about if isinstance(about, dict) else {}


class _ignoring_absence:
    """A file that another task has removed in the meantime is no trouble."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, *_: object) -> bool:
        return kind is not None and issubclass(kind, FileNotFoundError)


def failure(directory: Path, error: OSError, what: str) -> OSError:
    """`error` with what was tried, and what to do about it."""
    return OSError(error.errno, f"{what} {str(directory)!r}: {error.strerror}. {advice(error.errno)}")


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
    return (arrays, None) if "about" in arrays else (None, f"{path.name} is not the file of a chunk")


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
