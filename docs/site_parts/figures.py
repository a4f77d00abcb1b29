"""The figures of the laws: vectors in the colours of the page, kept in `docs/_static/laws`.

    python docs/site_parts/figures.py [NAME...]

draws those of all laws again, or of some, from `gradstarve verify --quick` with seed 0; it takes some minutes. A law that
has no figure there yet is tried and drawn when the site is built.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

STORE = Path(__file__).resolve().parents[1] / "_static" / "laws"


def figure(name: str, title: str, store: Path = STORE, draw: bool = True) -> str:
    """The figure of a law as HTML; where `store` does not have it, it is drawn first, or is "" if `draw` is False."""
    from gradstarve.page._figures import figure_html

    path = store / f"{name}.svg"
    if not path.exists():
        if not draw:
            return ""
        redraw([name], store)
    return str(figure_html(path.read_bytes(), name, f"Figure of the law {name}: {title}"))


def redraw(names: list[str], store: Path = STORE) -> None:
    """Try these laws, all without names, and keep their figures in `store`."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from gradstarve.page import figure_svg
    from gradstarve.theorems import verify

    store.mkdir(parents=True, exist_ok=True)
    for row in verify(names or "all", quick=True, key=jax.random.key(0)).rows:
        (store / f"{row.theorem.name}.svg").write_text(shorter(figure_svg(row).decode()), encoding="utf-8")


def shorter(svg: str) -> str:
    """The same picture in fewer bytes: coordinates to a hundredth of a point, and no empty lines, comments or metadata."""
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(?<![\w#])(-?\d+\.\d{2})\d+", lambda m: f"{float(m[1]):g}", svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


if __name__ == "__main__":
    redraw(sys.argv[1:])
