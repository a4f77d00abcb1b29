"""What a result is written to: JSON files that are complete or absent, in a directory that is there beforehand."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gradstarve import files
from gradstarve.environment import environment as environment
from gradstarve.environment import version as version


def to_jsonable(value: Any) -> Any:
    """`value` in what JSON knows: arrays become nested lists, and inf, -inf and nan the strings of these names.

    Mappings, lists, tuples, NumPy and JAX arrays and numbers, strings, booleans and None are taken;
    anything else is a `ValueError` that names it.

    >>> import numpy as np
    >>> to_jsonable({"gap": np.float32(0.5), "t": np.array([1.0, np.inf])})
    {'gap': 0.5, 't': [1.0, 'inf']}
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(entry) for entry in value]
    import numpy as np  # here: the help of a command does without it

    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biuf":
        return to_jsonable(np.asarray(value).tolist())
    raise ValueError(f"can not write {type(value).__name__} to JSON: {value!r}")


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
