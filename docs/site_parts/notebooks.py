"""The notebooks as pages: their text and code. They are run by the continuous integration; their figures are made there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any


def texts(folder: Path) -> dict[str, list[Any]]:
    """Name of a notebook -> its cells."""
    import jupytext

    return {path.stem: jupytext.read(path).cells for path in sorted(folder.glob("*.py"))}


def pages(notebooks: dict[str, list[Any]]) -> dict[str, str]:
    """Name of a page -> its Markdown, and the index."""
    index = (
        "# Notebooks\n\nEach takes under a minute, asserts its central numbers, and ends where its law does: with a run in "
        "which a hypothesis is dropped. Here they stand as text and code, without the figures that they draw; they lie as "
        "`.ipynb` and as plain Python in the folder `notebooks` of the repository.\n\n```sh\npip install '.[notebooks]'\n```"
        "\n\n```{toctree}\n:maxdepth: 1\n\n"
    )
    found = {"index": index + "\n".join(notebooks) + "\n```\n"}
    for name, cells in notebooks.items():
        found[name] = "\n".join([*map(cell_text, cells), "", f"*Source: `notebooks/{name}.ipynb`.*", ""])
    return found


def cell_text(cell: Any) -> str:
    if cell.cell_type != "code":
        # Jupyter takes $$ in the middle of a paragraph; here a displayed formula is a paragraph of its own.
        return re.sub(r"^( *)\$\$(.+?)\$\$", r"\n\1$$\n\1\2\n\1$$\n", cell.source, flags=re.MULTILINE | re.DOTALL) + "\n"
    code = re.sub(r"^%matplotlib.*\n+", "", cell.source, flags=re.MULTILINE)
    return f"```python\n{code}\n```\n" if code.strip() else ""


def title(cells: list[Any]) -> str:
    return next(line for cell in cells for line in cell.source.splitlines() if line.startswith("# ")).removeprefix("# ")


def source(cells: list[Any]) -> str:
    return "\n".join(cell.source for cell in cells)
