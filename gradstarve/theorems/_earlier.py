"""Results of an earlier `verify` in the output directory of a new one: they are moved aside, so that nothing is lost."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

from gradstarve.ground import files

_RUN = ("key", "trials", "quick", "precision", "skipped", "environment")


def earlier(folder: Path) -> dict[str, Any] | None:
    """The contents of verify.json in `folder`, None without one; `ValueError` for a file that `verify` did not write."""
    path = folder / "verify.json"
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        figures = found.get("figures", {})
        sound = all(isinstance(row["name"], str) for row in found["theorems"])
        sound = sound and isinstance(figures, dict) and all(isinstance(value, str) for value in figures.values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        sound = False
    if not sound:
        raise ValueError(f"{str(path)!r} is not what verify writes; move it away, or give another directory")
    return found


def is_same_run(found: dict[str, Any], numbers: dict[str, Any]) -> bool:
    """Whether two results belong to the same run: the same theorems, seed, trials, precision, versions and device."""
    names = [[row["name"] for row in one["theorems"]] for one in (found, numbers)]
    return names[0] == names[1] and all(found.get(name) == json.loads(json.dumps(numbers[name])) for name in _RUN)


def put_aside(folder: Path, found: dict[str, Any]) -> Path:
    """Copy the earlier results, verify.json last, to the first free "earlier-N" in `folder`, which is returned."""
    number = 1
    while (folder / f"earlier-{number}").exists():
        number += 1
    place = files.make_directory(folder / f"earlier-{number}")
    for name in [*own_figures(folder, found), "verify.json"]:
        with files.whole(place / name) as part:
            shutil.copyfile(folder / name, part)
    return place


def remove_figures(folder: Path, found: dict[str, Any], kept: set[str]) -> None:
    """Remove the figures of earlier results that have been put aside, except for the names in `kept`."""
    for name in own_figures(folder, found):
        if name not in kept:
            (folder / name).unlink()


def own_figures(folder: Path, found: dict[str, Any]) -> dict[str, str]:
    """The figures named in verify.json that are unchanged since, with their digests; a name is never a path."""
    own = {}
    for name, digest in found.get("figures", {}).items():
        path = folder / name
        plain = Path(name).name == name and path.is_file()
        if plain and hashlib.sha256(path.read_bytes()).hexdigest() == digest:
            own[name] = digest
    return own
