"""Numbers and tables as text, for gap tables, figures and reports, and results in plain JSON types."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from html import escape
from textwrap import wrap
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


def shown(value: Any, longest: int = 60) -> str:
    """`value` on one line of an error message: its `repr`, shortened, or the shape and dtype of a larger array.

    >>> import numpy as np
    >>> shown("abc"), shown(10**400), shown(np.zeros((3, 4)))
    ("'abc'", '1000000000000000000000000000 ... 0000000000000000000000000000', 'an array of shape (3, 4) and dtype float64')
    """
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if isinstance(value, BaseException):
        text = f"{type(value).__name__}: {value}"
    elif isinstance(shape, tuple) and shape and dtype is not None:
        return f"an array of shape {shape} and dtype {dtype}"
    elif isinstance(value, int) and abs(value) >= 10**longest:
        # `repr` itself refuses integers of more than some thousand digits.
        digits = int(value.bit_length() * 0.30103)
        text = f"an integer of about {digits} digits" if digits > 4000 else str(value)
    else:
        try:
            # A number of NumPy or JAX as a number: 2 and not np.int64(2).
            text = str(value) if shape == () and dtype is not None else repr(value)
        except Exception:
            text = f"a {type(value).__name__}"
    text = " ".join(text.split())
    half = (longest - 5) // 2 + 1
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def which_network(place: Iterable[Any]) -> str:
    """The name of the network at index `place` of the batch axes, for messages.

    >>> which_network((1, 1)), which_network(())
    ('network [1, 1]', 'the network')
    """
    indices = [int(index) for index in place]
    return f"network {indices}" if indices else "the network"


# Names of the losses in other libraries, in lower-case letters only and without "loss" at the end.
_ALSO_CALLED = {
    "cross-entropy": ("ce", "bce", "xent", "log", "logistic", "binarycrossentropy", "nll", "softmax", "softplus", "sigmoid"),
    "squared": ("mse", "l2", "square", "squarederror", "meansquarederror", "quadratic", "leastsquares", "squaredmargin"),
    "hinge": ("svm", "margin", "maxmargin"),
    "exponential": ("exp", "adaboost"),
}


def meant(given: Any, names: Iterable[str]) -> str:
    """The one of `names` that `given` may stand for, "" where no name is near.

    >>> [meant(given, ["hinge", "squared"]) for given in ("Hinge_", "mse", "q")]
    ['hinge', 'squared', '']
    """
    if not isinstance(given, str):
        return ""
    plain = _letters(given)
    by_plain = {_letters(name): name for name in names}
    for name, others in _ALSO_CALLED.items():
        if name in by_plain.values() and plain.removesuffix("loss") in others:
            return name
    near = get_close_matches(plain, by_plain, n=1, cutoff=0.6)
    return by_plain[near[0]] if near else ""


def _letters(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def did_you_mean(given: Any, names: Iterable[str]) -> str:
    """The end of an error message about an unknown name: "; did you mean 'x'?", or "" where no name is near.

    >>> [did_you_mean(given, ["hinge", "squared"]) for given in ("Hinge_", "mse", "q")]
    ["; did you mean 'hinge'?", "; did you mean 'squared'?", '']
    """
    name = meant(given, names)
    return f"; did you mean {name!r}?" if name else ""


def html_table(rows: Sequence[Sequence[str]], note: str = "") -> str:
    """`rows` of strings, the header first, as an HTML table for a notebook, with the paragraph `note` below it.

    >>> html_table([("loss",), ("<x>",)])
    '<table><thead><tr><th>loss</th></tr></thead><tbody><tr><td>&lt;x&gt;</td></tr></tbody></table>'
    """
    head, *body = ("".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for tag, row in _tagged(rows))
    lines = "".join(f"<tr>{row}</tr>" for row in body)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"
    return table + (html_lines(note) if note else "")


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[str, Sequence[str]]]:
    return [("td" if i else "th", row) for i, row in enumerate(rows)]


def html_lines(text: str) -> str:
    """Plain text of several lines as HTML in a fixed-width font, so that tables keep their columns.

    >>> html_lines("No alarm: 2 < 3.")
    '<pre style="white-space: pre-wrap">No alarm: 2 &lt; 3.</pre>'
    """
    return f'<pre style="white-space: pre-wrap">{escape(text)}</pre>'


def short_repr(self: Any) -> str:
    """A result on one line: its class and its fields. Arrays are shown by dtype and shape, other results by class.

    Assigned to `__repr__` of results whose full fields would fill a page.
    """
    parts = [f"{name}={_brief(value)}" for name, value in _public_fields(self)]
    return f"{type(self).__name__}({', '.join(parts)})"


def _public_fields(thing: Any) -> list[tuple[str, Any]]:
    """The public fields of a dataclass with their values, without class variables."""
    names = [field.name for field in fields(thing)] if is_dataclass(thing) else []
    return [(name, getattr(thing, name, None)) for name in names if not name.startswith("_")]


def _brief(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    if shape is not None and dtype is not None:
        return f"{float(value):.6g}" if shape == () and is_plain(value) else f"{dtype}{list(shape)}"
    if value is None or isinstance(value, bool | int | float | str | range):
        text = f"{value:.6g}" if isinstance(value, float) else repr(value)
        return text if len(text) <= 40 else f"{text[:36]} ..."
    if isinstance(value, list | tuple | dict):
        return f"{len(value)} entries"
    return type(value).__name__


def is_plain(value: Any) -> bool:
    """Whether an array without axes holds a known number: not a traced value, and not a random key."""
    try:
        float(value)
    except Exception:
        return False
    return True


def fields_html(thing: Any) -> str:
    """A result as an HTML table of its fields: small arrays with their numbers, larger ones with their shape.

    Assigned to `_repr_html_`.
    """
    rows = [("field", "value")]
    rows += [(name, _cell(value)) for name, value in _public_fields(thing)]
    return f"<p><b>{escape(type(thing).__name__)}</b></p>" + html_table(rows)


def _cell(value: Any) -> str:
    size = getattr(value, "size", None)
    if hasattr(value, "dtype") and isinstance(size, int) and 0 < size <= 8 and hasattr(value, "tolist"):
        try:
            return " ".join(f"{value.tolist()}".split())
        except Exception:  # traced
            return _brief(value)
    return _brief(value)


def table_text(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of strings, the header first, as a plain table: first column left-aligned, the others right-aligned.

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


_RULE = re.compile(r"-+(?:  -+)+")


def fit(text: str, width: int) -> str:
    """`text` with no line over `width` columns: tables in blocks side by side, prose and formulas broken between words.

    A table of `table_text` that is too wide is given in several, each with the columns that tell its rows apart; of one
    whose first columns alone are too wide every row becomes a list of its cells. No number and no word is cut.

    >>> print(fit(table_text([("loss", "first gap", "second gap"), ("hinge", "1e-14", "2e-14")]), 18))
    loss   first gap
    -----  ---------
    hinge      1e-14
    <BLANKLINE>
    loss   second gap
    -----  ----------
    hinge       2e-14
    >>> print(fit("the law and training differ by 1e-14", 24))
    the law and training
    differ by 1e-14
    """
    lines, found, k = text.split("\n"), [], 0
    while k < len(lines):
        if k + 1 < len(lines) and _RULE.fullmatch(lines[k + 1].rstrip()):
            end = _table_end(lines, k)
            found += _fit_table(lines[k:end], width)
        else:
            end = k + 1
            # A paragraph is broken anew as a whole, if one of its lines is too long.
            while end < len(lines) and _is_prose(lines[k]) and _is_prose(lines[end]) and not _starts_table(lines, end):
                end += 1
            found += lines[k:end] if max(map(len, lines[k:end])) <= width else _fit_prose(lines[k:end], width)
        k = end
    return "\n".join(found)


def _is_prose(line: str) -> bool:
    return bool(line) and not line.startswith(" ")


def _starts_table(lines: Sequence[str], k: int) -> bool:
    return k + 1 < len(lines) and _RULE.fullmatch(lines[k + 1].rstrip()) is not None


def _spans(rule: str) -> list[tuple[int, int]]:
    return [match.span() for match in re.finditer("-+", rule)]


def _table_end(lines: Sequence[str], start: int) -> int:
    """The first line after a table: one that is empty, or that has letters between the columns."""
    gaps = [stop for _, stop in _spans(lines[start + 1])[:-1]]
    end = start + 2
    while end < len(lines) and lines[end].strip() and all(not lines[end][gap : gap + 2].strip() for gap in gaps):
        end += 1
    return end


def _fit_table(lines: Sequence[str], width: int) -> list[str]:
    """A table in blocks of columns, each with the first columns, as many as it takes to tell the rows apart."""
    if max(map(len, lines)) <= width:
        return list(lines)
    spans = _spans(lines[1])
    rows = [[line[a:b].strip() for a, b in spans] for k, line in enumerate(lines) if k != 1]
    wide = [b - a for a, b in spans]
    keys = next((n for n in range(1, len(spans)) if len({tuple(row[:n]) for row in rows}) == len(rows)), 1)
    if any(sum(wide[:keys]) + 2 * keys + one > width for one in wide[keys:]):
        return [line for row in rows[1:] for line in _fit_row(rows[0], row, width)][:-1]
    found: list[str] = []
    block: list[int] = []
    for column in [*range(keys, len(spans)), None]:
        if column is None or sum(wide[i] + 2 for i in (*range(keys), *block, column)) - 2 > width:
            chosen = [*range(keys), *block]
            found += [*([""] if found else []), *table_text([[row[i] for i in chosen] for row in rows]).split("\n")]
            block = []
        block += [] if column is None else [column]
    return found


def _fit_row(head: Sequence[str], row: Sequence[str], width: int) -> list[str]:
    """One row of a table as lines of "name: cell", and an empty line."""
    cells = [f"{name}: {cell}" for name, cell in zip(head, row, strict=True)]
    return [line for cell in cells for line in wrap(cell, width, subsequent_indent="  ", break_long_words=False)] + [""]


def _fit_prose(lines: Sequence[str], width: int) -> list[str]:
    """A paragraph, or an indented line, broken between words; a formula without blanks behind an operator."""
    indent = lines[0][: len(lines[0]) - len(lines[0].lstrip())]
    hang = indent + ("  " if indent else "")
    how: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
    broken = wrap(" ".join(line.strip() for line in lines), width, initial_indent=indent, subsequent_indent=hang, **how)
    return [part for line in broken for part in _fit_formula(line, width, hang)]


def _fit_formula(line: str, width: int, hang: str) -> list[str]:
    """A line that has no blank to break it at, broken behind an operator or a comma."""
    found = []
    while len(line) > width:
        least = len(line) - len(line.lstrip()) + 1
        ends = [m.end() for m in re.finditer(r"\*\*|[*/+,)(&=]|(?<=\w)-(?=\D)", line[:width]) if m.end() > least]
        if not ends:
            break
        at = ends[-1]
        found.append(line[:at])
        line = hang + line[at:].lstrip()
    return [*found, line]


def csv_text(rows: Sequence[Sequence[str]]) -> str:
    """`rows` of strings, the header first, as the text of a CSV file.

    >>> csv_text([("loss", "gap"), ("hinge", "1e-14")])
    'loss,gap\\nhinge,1e-14\\n'
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def to_jsonable(value: Any) -> Any:
    """`value` in plain JSON types: arrays become nested lists, and inf, -inf and nan the strings of these names.

    Mappings, lists, tuples, NumPy and JAX arrays and numbers, strings, booleans and None are accepted;
    `ValueError` names any other type.

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
    import numpy as np  # imported here, because the help of a command needs no NumPy

    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, np.bool_):
        return bool(value)
    if hasattr(value, "__array__") and np.asarray(value).dtype.kind in "biuf":
        return to_jsonable(np.asarray(value).tolist())
    raise ValueError(f"cannot write {type(value).__name__} to JSON: {value!r}")
