"""What `gradstarve verify --out` wrote, read again: numbers and figures, and only if they belong together."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from gradstarve.theorems import CATALOGUE
from gradstarve.theorems.verify import FORMAT

_TEXT = ("name", "equation", "title", "claim", "why_tolerance", "checked_with", "verdict")
_COUNTS = ("trials", "violations", "undecided")
_NUMBERS = ("tolerance", "worst_gap", "seconds")
_DROPPED = {"dropped": str, "found": bool, "failure": str, "numbers": dict}


def read_results(directory: Any) -> tuple[dict[str, Any], dict[str, bytes]]:
    """What `gradstarve verify --out DIRECTORY` wrote: verify.json as a dict, and the figure of each theorem in it.

    Figures are the bytes of NAME.svg if there is one and of NAME.png if not, by the name of the theorem. `ValueError`, with
    the file and what to do, where one is missing, is not what `verify` writes, or is from another run: figures are held to
    the digests in verify.json, and theorems to the catalogue of this version.

    >>> read_results("no/such/directory")
    Traceback (most recent call last):
        ...
    ValueError: there is no file 'no/such/directory/verify.json'; write it by: gradstarve verify --out no/such/directory
    """
    folder = Path(directory)
    path = folder / "verify.json"
    again = f"gradstarve verify --out {shlex.quote(str(folder))}"
    if not path.is_file():
        raise ValueError(f"there is no file {str(path)!r}; write it by: {again}")
    try:
        found = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except ValueError as error:  # of JSON or of UTF-8
        raise ValueError(f"{str(path)!r} is broken ({error}); write it again by: {again}") from None
    wrong = check(found)
    if wrong:
        what = f"{str(path)!r} is not what this version of gradstarve verify writes"
        raise ValueError(f"{what}: {wrong}; write it again by: {again}")
    return found, {row["name"]: _figure(folder, row["name"], found.get("figures"), again) for row in found["theorems"]}


def check(found: Any) -> str:
    """What is wrong with `found` as the dict of a `theorems.Report`, in words; empty if nothing is."""
    if not isinstance(found, dict) or not isinstance(found.get("theorems"), list) or not found["theorems"]:
        return "it has no list of theorems"
    if found.get("format", FORMAT) != FORMAT:  # the first ones had none
        return f"it has format {found['format']!r}, and this version reads format {FORMAT}"
    kinds = {"ok": bool, "key": list, "quick": bool, "precision": str, "skipped": list, "seconds": (int, float)}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            return f"{name!r} is missing or of the wrong kind"
    if not all(isinstance(word, int) for word in found["key"]):
        return "'key' is not a list of integers"
    if not all(isinstance(found.get(name, {}), dict) for name in ("environment", "figures")):
        return "'environment' or 'figures' is of the wrong kind"
    for row in found["theorems"]:
        wrong = _check_row(row)
        if wrong:
            return wrong
    names = [row["name"] for row in found["theorems"]]
    if len(set(names)) < len(names):
        return "it has a theorem twice"
    return "" if found["ok"] == all(row["ok"] for row in found["theorems"]) else "'ok' is not that of its theorems"


def _check_row(row: Any) -> str:
    name = row.get("name") if isinstance(row, dict) else None
    if not isinstance(name, str):
        return "an entry has no name"
    if name not in CATALOGUE:
        return f"there is no theorem {name!r} in the catalogue"
    kinds = dict.fromkeys(_TEXT, str) | dict.fromkeys(_COUNTS, int) | {"ok": bool, "hypotheses": list, "necessity": list}
    kinds |= {"worst_instance": dict, "details": dict} | ({"formula": str} if "formula" in row else {})
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            return f"{key!r} of {name} is missing or of the wrong kind"
    for key in _NUMBERS:
        if not _is_number(row.get(key)):
            return f"{key!r} of {name} is not a number"
    for dropped in row["necessity"]:
        if not isinstance(dropped, dict) or not all(isinstance(dropped.get(key), kind) for key, kind in _DROPPED.items()):
            return f"'necessity' of {name} is not what it should be"
        if not (_is_number(dropped.get("gap")) and _is_number(dropped.get("tolerance"))):
            return f"'necessity' of {name} has a gap that is no number"
    entry = CATALOGUE[name]
    if (row["equation"], row["claim"]) != (entry.equation, entry.claim):
        return f"its {name} states something else than the catalogue does"
    return ""


def _is_number(value: Any) -> bool:
    return (isinstance(value, int | float) and not isinstance(value, bool)) or value in ("inf", "-inf", "nan")


def _figure(folder: Path, name: str, digests: dict[str, str] | None, again: str) -> bytes:
    places = [folder / f"{name}{ending}" for ending in (".svg", ".png")]
    there = [place for place in places if place.is_file() and (digests is None or place.name in digests)]
    if not there:
        raise ValueError(f"there is no figure {str(places[1])!r} beside verify.json; write it by: {again}")
    content = there[0].read_bytes()
    if digests is not None and hashlib.sha256(content).hexdigest() != digests[there[0].name]:
        raise ValueError(f"{str(there[0])!r} is not the figure of this verify.json; write both again by: {again}")
    return content


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
