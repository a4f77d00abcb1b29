"""Docstrings are written in a plain Markdown; Sphinx reads reStructuredText. This translates what they use of it.

Paragraphs, lists, `code`, indented formulas, tables and `>>>` examples; what looks like markup but is mathematics,
[*batch, n] or |w|, is kept as it stands. Sections such as "Args:" become a bold word and a list.
"""

from __future__ import annotations

import re
import textwrap
from typing import Any

BULLET = re.compile(r"(?:[-*]|\d+\.) ")
SECTION = re.compile(r"(Args|Returns|Raises|Example|Attributes):$")
CODE = re.compile(r"(``?)(.+?)\1", re.DOTALL)


def inline(text: str) -> str:
    """One paragraph: code in double backticks, everything else free of markup."""
    parts, end = [], 0
    for code in CODE.finditer(text):
        # Where code touches a letter or a bracket, as in `pair`[0], a space that does not show has to part them.
        after = "\\ " if re.match(r"[^\s'\")\]}>\-/:.,;!?]", text[code.end() :]) else ""
        before = "\\ " if re.search(r"[^\s'\"(\[{<\-/:]$", text[: code.start()]) else ""
        parts += [plain(text[end : code.start()]), f"{before}``{' '.join(code[2].split())}``{after}"]
        end = code.end()
    return "".join([*parts, plain(text[end:])])


def plain(text: str) -> str:
    return re.sub(r"([\\*_|`])", r"\\\1", text)


def table(rows: list[str]) -> list[str]:
    """A table as a list-table, or as it stands if a cell has a bar of its own."""
    cells = [[cell.strip() for cell in row.strip().strip("|").split("|")] for row in rows]
    if len({len(row) for row in cells}) > 1:
        return [".. code-block:: text", "", *[f"    {row}" for row in rows]]
    head, body = cells[0], cells[2:]
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in (head, *body):
        lines += [f"   {'* -' if i == 0 else '  -'} {inline(cell)}" for i, cell in enumerate(row)]
    return lines


def indent_of(line: str) -> int:
    return len(line) - len(line.lstrip())


def blocks(lines: list[str]) -> list[list[str]]:
    """The parts between blank lines; a table, a list or an indented formula is a part even without one."""
    found: list[list[str]] = [[]]
    for line in lines:
        if not line.strip():
            found.append([])
            continue
        before = found[-1]
        bullet, row = BULLET.match(line.lstrip()), line.lstrip().startswith("|") and line.rstrip().endswith("|")
        if before and not before[0].lstrip().startswith(">>>"):
            table_ends = is_table(before) and not row
            starts = bullet and not is_table(before)
            if table_ends or starts or (row and not is_table(before)):
                found.append([])
        found[-1].append(line)
    return [block for block in found if block]


def is_table(block: list[str]) -> bool:
    return all(line.lstrip().startswith("|") and line.rstrip().endswith("|") for line in block)


def section(title: str, block: list[str]) -> list[str]:
    """A section of "name: text" entries as a list, of examples as they stand, and of other text as a paragraph."""
    block = textwrap.dedent("\n".join(block)).split("\n")
    if block[0].startswith(">>>"):
        return ["", *block, ""]
    entries: list[str] = []
    for line in block:
        if title == "Returns" or line.startswith(" "):
            entries[-1:] = [" ".join([*entries[-1:], line.strip()])]
        else:
            entries.append(line)
    out = ["", f"**{title}**", ""]
    for entry in entries:
        name, colon, text = entry.partition(": ")
        out += [f"- ``{name}``: {inline(text)}" if colon and title != "Returns" else inline(entry), ""]
    return out


def translate(lines: list[str]) -> list[str]:
    """The lines of a docstring in reStructuredText."""
    out: list[str] = []
    # The column where text of the list item at hand begins: what is further in is a formula.
    column = 0
    for block in blocks(lines):
        indent, first = indent_of(block[0]), block[0].lstrip()
        pad = " " * indent
        if indent == 0:
            column = 0
        if first.startswith(">>>"):
            out += ["", *block, ""]
        elif title := SECTION.match(block[0].strip()):
            out += section(title[1], block[1:])
        elif is_table(block) and len(block) > 2:
            out += ["", *[pad + line for line in table([line[indent:] for line in block])], ""]
        elif bullet := BULLET.match(first):
            column = indent + len(bullet[0])
            text = [line.strip() for line in block]
            rest = inline("\n".join([text[0][len(bullet[0]) :], *text[1:]])).split("\n")
            out += ["", f"{pad}{bullet[0]}{rest[0]}", *[" " * column + line for line in rest[1:]]]
        elif indent >= column + (2 if column else 4):
            formula = [" " * (column + 4) + line[indent:] for line in block]
            out += ["", " " * column + ".. code-block:: text", "", *formula, ""]
        else:
            out += ["", *inline("\n".join(block)).split("\n"), ""]
    return out


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = translate(lines)


def no_members_of_modules(app: Any, what: str, *others: Any) -> bool | None:
    """The pages list what a module has; the default of `inherited-members`, meant for classes, would list it again."""
    return True if what == "module" else None


def setup(app: Any) -> dict[str, bool]:
    app.connect("autodoc-process-docstring", process)
    app.connect("autodoc-skip-member", no_members_of_modules)
    return {"parallel_read_safe": True}
