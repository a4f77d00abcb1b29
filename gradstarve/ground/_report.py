"""What a result is written to: JSON files that are complete or absent, in a directory that is there beforehand."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from gradstarve.ground import _files as files
from gradstarve.ground._environment import environment as environment
from gradstarve.ground._environment import version as version
from gradstarve.ground._text import to_jsonable as to_jsonable


def write_json(path: Any, value: Any) -> Path:
    """Write `value` (see `to_jsonable`) to `path`; the file is complete or absent, whenever the process stops."""
    return files.write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """`value` (see `to_jsonable`) as the text of a JSON document, with a list of numbers on one line."""
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A line break inside brackets is never part of a string.
    return re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)


def output_directory(path: Any) -> Path:
    """`path` as a directory that exists and can be written to; created if need be, `ValueError` if it can not be.

    Call it before long work, so that the work is not lost to a mistyped path. `files.tidy` removes it again if it is made
    here and stays empty.
    """
    try:
        path = files.make_directory(path)
    except OSError as error:
        raise ValueError(f"can not create the directory {str(path)!r}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"can not write to the directory {str(path)!r}: permission denied")
    return path
