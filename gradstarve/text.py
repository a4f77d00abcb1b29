"""Numbers and tables as text, for gap tables, figures and reports."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
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


# What other libraries call the losses.
_ALSO_CALLED = {
    "cross-entropy": ("ce", "bce", "xent", "log", "logloss", "logistic", "logistic loss", "nll", "softmax", "sigmoid"),
    "squared": ("mse", "l2", "square", "squared error", "mean squared error", "quadratic", "least squares"),
    "hinge": ("svm", "margin", "max margin"),
    "exponential": ("exp", "adaboost"),
}


def did_you_mean(given: Any, names: Iterable[str]) -> str:
    """The end of an error message about an unknown name: "; did you mean 'x'?", or "" where no name is near.

    >>> [did_you_mean(given, ["hinge", "squared"]) for given in ("Hinge_", "mse", "q")]
    ["; did you mean 'hinge'?", "; did you mean 'squared'?", '']
    """
    if not isinstance(given, str):
        return ""
    plain = " ".join(given.lower().replace("_", " ").replace("-", " ").split())
    by_plain = {name.lower().replace("_", " ").replace("-", " "): name for name in names}
    for name, others in _ALSO_CALLED.items():
        if name in by_plain.values() and plain.removesuffix(" loss") in others:
            return f"; did you mean {name!r}?"
    near = get_close_matches(plain, by_plain, n=1, cutoff=0.6)
    return f"; did you mean {by_plain[near[0]]!r}?" if near else ""


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
