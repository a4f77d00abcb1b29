"""The notebooks as pages: their text and code, and their outputs where they have been run.

Outputs are not kept in the repository. Those of the folder that GRADSTARVE_NOTEBOOKS names, or of `docs/_build/notebooks`,
are shown; CONTRIBUTING.md says how to run the notebooks. An output is shown only under the code that gave it: a notebook
whose cells have changed since stands as text and code.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Any

_MOST_LINES = 60


def texts(folder: Path) -> dict[str, list[Any]]:
    """Name of a notebook -> its cells; those that have been run have their outputs."""
    import jupytext

    store = Path(os.environ.get("GRADSTARVE_NOTEBOOKS") or folder.parent / "docs" / "_build" / "notebooks")
    found = {}
    for path in sorted(folder.glob("*.py")):
        found[path.stem] = jupytext.read(path).cells
        run = store / f"{path.stem}.ipynb"
        if run.exists():
            cells = jupytext.read(run).cells
            if [cell.source for cell in cells] == [cell.source for cell in found[path.stem]]:
                found[path.stem] = cells
    return found


def pages(notebooks: dict[str, list[Any]], pictures: Path) -> dict[str, str]:
    """Name of a page -> its Markdown, and the index; pictures of outputs are written into the folder `pictures`."""
    index = (
        "# Notebooks\n\nA course in fourteen parts. Each takes under a minute, asserts its central numbers, and ends where "
        "its law does: with a run in which a hypothesis is dropped, and with exercises. They lie as `.ipynb` and as plain "
        "Python in the folder `notebooks` of the repository.\n\n```sh\npip install '.[notebooks]'\n```\n\n"
        "```{toctree}\n:maxdepth: 1\n\n"
    )
    found = {"index": index + "\n".join(notebooks) + "\n```\n"}
    for name, cells in notebooks.items():
        pairs = [(cell_text(cell), outputs(cell, pictures, f"{name}-{k}")) for k, cell in enumerate(cells)]
        parts = [part for pair in pairs for part in pair]
        found[name] = "\n".join([*filter(None, parts), "", f"*Source: `notebooks/{name}.ipynb`.*", ""])
    return found


def cell_text(cell: Any) -> str:
    if cell.cell_type != "code":
        # Jupyter takes $$ in the middle of a paragraph; here a displayed formula is a paragraph of its own.
        return re.sub(r"^( *)\$\$(.+?)\$\$", r"\n\1$$\n\1\2\n\1$$\n", cell.source, flags=re.MULTILINE | re.DOTALL) + "\n"
    code = re.sub(r"^%matplotlib.*\n+", "", cell.source, flags=re.MULTILINE)
    return f"```python\n{code}\n```\n" if code.strip() else ""


def outputs(cell: Any, pictures: Path, name: str) -> str:
    """What a cell printed and drew, in Markdown: pictures, formulas, and text, of which long ones are cut and say so."""
    parts = []
    for k, output in enumerate(cell.get("outputs") or ()):
        data = output.get("data") or {}
        if output.output_type == "stream" and output.name == "stdout":
            parts.append(text_block(output.text))
        elif "image/png" in data:
            pictures.mkdir(parents=True, exist_ok=True)
            content = base64.b64decode(data["image/png"])
            path = pictures / f"{name}-{k}.png"
            if not path.exists() or path.read_bytes() != content:
                path.write_bytes(content)
            parts.append(f"![What the code above draws]({path.name})\n")
        elif "text/latex" in data:
            parts.append(f"$$\n{data['text/latex'].strip().strip('$').strip()}\n$$\n")
        elif "text/markdown" in data:
            parts.append(data["text/markdown"] + "\n")
        elif "text/plain" in data and not data["text/plain"].startswith("<"):
            parts.append(text_block(data["text/plain"]))
    return "\n".join(parts)


def text_block(text: str) -> str:
    lines = text.rstrip().splitlines()
    if len(lines) > _MOST_LINES:
        lines = [*lines[:_MOST_LINES], f"... and {len(lines) - _MOST_LINES} lines more"]
    return "\n".join(["````text", *lines, "````", ""])


def title(cells: list[Any]) -> str:
    return next(line for cell in cells for line in cell.source.splitlines() if line.startswith("# ")).removeprefix("# ")


def source(cells: list[Any]) -> str:
    return "\n".join(cell.source for cell in cells)
