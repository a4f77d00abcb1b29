"""What a person reads: numbers, plain tables, the environment a result came from, and JSON files of results."""

from __future__ import annotations

import json
import math
import os
import platform
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def version() -> str:
    """The installed version of gradstarve."""
    return metadata.version("gradstarve")


def environment() -> dict[str, Any]:
    """What a result depends on besides its settings: versions, device and precision. No paths and no host names.

    >>> environment()["precision"] in ("float32", "float64")
    True
    """
    import equinox
    import jax
    import jaxlib

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


def to_jsonable(value: Any) -> Any:
    """`value` in what JSON knows: arrays become nested lists, and inf, -inf and nan the strings of these names.

    Mappings, lists, tuples, NumPy and JAX arrays and numbers, strings, booleans and None are taken;
    anything else is a `ValueError` that names it.

    >>> to_jsonable({"gap": np.float32(0.5), "t": np.array([1.0, np.inf])})
    {'gap': 0.5, 't': [1.0, 'inf']}
    """
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [to_jsonable(entry) for entry in value]
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
    path = Path(path)
    text = json.dumps(to_jsonable(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    # A list of numbers on one line; a line break inside brackets is never part of a string.
    text = re.sub(r"\[\n\s+([^\[\]{}]*?)\n\s+\]", lambda m: "[" + re.sub(r"\n\s+", " ", m[1]) + "]", text)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)
    return path


def output_directory(path: Any) -> Path:
    """`path` as a directory that exists and can be written to; created if need be, `ValueError` if it can not be.

    Call it before long work, so that the work is not lost to a mistyped path.
    """
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"can not create the directory {str(path)!r}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise ValueError(f"can not write to the directory {str(path)!r}: permission denied")
    return path
