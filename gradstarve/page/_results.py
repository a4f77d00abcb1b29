"""What `gradstarve verify --out` wrote, read again: numbers and figures, and only if they belong together."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path
from typing import Any

from gradstarve.theorems import CATALOGUE, FORMAT, MOST_UNDECIDED

_TEXT = ("name", "equation", "title", "claim", "why_tolerance", "checked_with", "verdict")
_STATED = ("equation", "title", "claim", "formula", "hypotheses", "why_tolerance", "checked_with", "power", "no_drop")
_NOT_ALWAYS = ("formula", "power", "no_drop")
_COUNTS = ("trials", "violations", "undecided")
PRECISIONS = ("float64", "float32")
STRAY = "an instance was drawn outside of its hypotheses"
_DEEPEST = 40
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
    except (ValueError, RecursionError) as error:  # of JSON or of UTF-8, or nested without end
        raise ValueError(f"{str(path)!r} is broken ({error}); write it again by: {again}") from None
    wrong = check(found)
    if wrong:
        what = f"{str(path)!r} is not what this version of gradstarve verify writes"
        raise ValueError(f"{what}: {wrong}; write it again by: {again}")
    return found, {row["name"]: _figure(folder, row["name"], found.get("figures"), again) for row in found["theorems"]}


def check(found: Any) -> str:
    """What is wrong with `found` as the dict of a `theorems.Report`, in words; empty if nothing is.

    What the catalogue knows has to be what it says, and verdicts have to be those of the numbers beside them.
    """
    if not isinstance(found, dict) or not isinstance(found.get("theorems"), list) or not found["theorems"]:
        return "it has no list of theorems"
    if found.get("format", FORMAT) != FORMAT:  # the first ones had none
        return f"it has format {found['format']!r}, and this version reads format {FORMAT}"
    if _depth(found) > _DEEPEST:
        return "it is nested too deeply"
    kinds = {"ok": bool, "key": list, "quick": bool, "precision": str, "skipped": list}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            return f"{name!r} is missing or of the wrong kind"
    if not found["key"] or not all(_is_count(word) and word < 2**32 for word in found["key"]):
        return "'key' is not a list of integers below 2^32"
    if not _is_finite(found.get("seconds")):
        return "'seconds' is missing or of the wrong kind"
    if found["precision"] not in PRECISIONS:
        return "'precision' is neither float64 nor float32"
    if not (found.get("trials") is None or (_is_count(found["trials"]) and found["trials"] > 0)):
        return "'trials' is not a number above 0"
    if not all(isinstance(name, str) and name in CATALOGUE for name in found["skipped"]):
        return "'skipped' is not a list of theorems"
    if not all(isinstance(found.get(name, {}), dict) for name in ("environment", "figures")):
        return "'environment' or 'figures' is of the wrong kind"
    for row in found["theorems"]:
        wrong = _check_row(row, found["precision"])
        if wrong:
            return wrong
    names = [row["name"] for row in found["theorems"]]
    if len(set(names)) < len(names):
        return "it has a theorem twice"
    return "" if found["ok"] == all(row["ok"] for row in found["theorems"]) else "'ok' is not that of its theorems"


def _check_row(row: Any, precision: str) -> str:
    name = row.get("name") if isinstance(row, dict) else None
    if not isinstance(name, str):
        return "an entry has no name"
    if name not in CATALOGUE:
        return f"there is no theorem {name!r} in the catalogue"
    kinds = dict.fromkeys(_TEXT, str) | {"ok": bool, "hypotheses": list, "necessity": list}
    kinds |= {"worst_instance": dict, "details": dict}
    for key, kind in kinds.items():
        if not isinstance(row.get(key), kind):
            return f"{key!r} of {name} is missing or of the wrong kind"
    for key in _COUNTS:
        if not _is_count(row.get(key)):
            return f"{key!r} of {name} is missing or of the wrong kind"
    for key in ("worst_gap", "tolerance"):
        if not _is_number(row.get(key)):
            return f"{key!r} of {name} is not a number"
    if not _is_finite(row.get("seconds")):
        return f"'seconds' of {name} is not a number"
    if "each" in row["details"] and not _is_count(row["details"]["each"]):
        return f"'each' of {name} is not a number of trials"
    entry, allowed = CATALOGUE[name], CATALOGUE[name].tolerance_in(precision)
    stated = {key: getattr(entry, key) for key in _STATED if key in row or key not in _NOT_ALWAYS}
    stated |= {"hypotheses": [str(one) for one in entry.hypotheses], "tolerance": allowed}
    for key, value in stated.items():
        if row[key] != value:
            return f"its {name} states something else than the catalogue does ({key})"
    return _check_drops(row) or _check_verdict(row, allowed)


def _check_drops(row: dict[str, Any]) -> str:
    name = row["name"]
    for dropped in row["necessity"]:
        if not isinstance(dropped, dict) or not all(isinstance(dropped.get(key), kind) for key, kind in _DROPPED.items()):
            return f"'necessity' of {name} is not what it should be"
        if not (_is_number(dropped.get("gap")) and _is_number(dropped.get("tolerance"))):
            return f"'necessity' of {name} has a gap that is no number"
        if dropped["found"] != (float(dropped["gap"]) > float(dropped["tolerance"])):
            return f"'found' of {name} is not what the gap without a hypothesis says"
    return ""


def _check_verdict(row: dict[str, Any], allowed: float) -> str:
    """Whether the verdict is that of the numbers. Of all that makes one bad, numbers do not tell a stray instance."""
    name, trials, violations, undecided = (row[key] for key in ("name", "trials", "violations", "undecided"))
    if trials == 0 or violations + undecided > trials:
        return f"{name} has {violations} violations and {undecided} undecided trials of {trials}"
    if (violations > 0) != (float(row["worst_gap"]) > allowed):
        return f"{name} has {violations} violations with a worst gap of {row['worst_gap']} (tolerance {allowed:g})"
    decided = undecided < trials and undecided <= MOST_UNDECIDED * trials
    good = violations == 0 and decided and all(dropped["found"] for dropped in row["necessity"])
    if row["ok"] and not good:
        return f"{name} is said to hold, against its numbers"
    if row["ok"] != (row["verdict"] == "holds"):
        return f"'verdict' of {name} is not that of 'ok'"
    if good and not row["ok"] and not row["verdict"].startswith(STRAY):
        return f"{name} is said not to hold, against its numbers"
    return ""


def _depth(value: Any) -> int:
    """How deep lists and dicts lie in each other, counted without calls in each other."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        one, depth = waiting.pop()
        deepest = max(deepest, depth)
        inside = one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
        waiting += [(entry, depth + 1) for entry in inside if isinstance(entry, dict | list)]
    return deepest


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e300


def _is_number(value: Any) -> bool:
    if isinstance(value, str):
        return value in ("inf", "-inf", "nan")
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


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
