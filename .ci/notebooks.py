"""Text and notebook of a pair have the same cells, and no outputs are kept. Needs jupytext."""

from pathlib import Path

import jupytext

for text in sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.py")):
    pair = [jupytext.read(path).cells for path in (text, text.with_suffix(".ipynb"))]
    first, second = ([(cell.cell_type, cell.source) for cell in cells] for cells in pair)
    if first != second:
        raise SystemExit(f"{text.name} and its .ipynb differ; run: jupytext --sync notebooks/{text.name}")
    if any(cell.get("outputs") for cell in pair[1]):
        raise SystemExit(f"the .ipynb of {text.name} keeps outputs; run: jupytext --to ipynb notebooks/{text.name}")
