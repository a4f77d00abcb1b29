"""Numbers and tables as text, for gap tables, figures and reports, and results in plain JSON types."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def number(value: Any, digits: int = 3) -> str:
    """A real number in `digits` significant digits, without trailing zeros.

    >>> number(0.70000), number(3.3751e-14), number(400.0), number(float("inf"))
    ('0.7', '3.38e-14', '400', 'inf')
    """
    value = float(value)
    if math.isfinite(value) and abs(value) < 10**6 and value == int(value):
        return str(int(value))
    text = f"{value:.{digits}g}"
    if "e" in text:
        mantissa, exponent = text.split("e")
        return f"{mantissa}e{int(exponent)}"
    return text


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of strings, the header first, as a plain table: first column to the left, the others to the right.

    >>> print(table_text([("loss", "gap"), ("hinge", "1e-14")]))
    loss     gap
    -----  -----
    hinge  1e-14
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * w for w in widths))
    return "\n".join(lines)


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
