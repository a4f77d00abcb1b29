"""The figures of the laws: vectors in the colours of the page, kept in `docs/_static/laws`.

    python docs/site_parts/figures.py [NAME...]

draws those of all laws again, or of some, from trials as in `gradstarve verify --quick`; it takes some minutes. A law that
has no figure there yet is tried and drawn when the site is built.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

# Trials of laws of which the few of a quick run are all of one kind: one depth, one angle.
MORE = {"depth": 96, "unbalanced-depth": 72, "waking": 160, "waking-hinge": 160}
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
    from gradstarve.theorems import CATALOGUE, verify

    store.mkdir(parents=True, exist_ok=True)
    wanted = names or list(CATALOGUE)
    runs = [([name for name in wanted if name not in MORE], {"quick": True})]
    runs += [([name], {"trials": MORE[name]}) for name in wanted if name in MORE]
    for some, how in runs:
        for row in verify(some, key=jax.random.key(0), **how).rows if some else ():
            (store / f"{row.theorem.name}.svg").write_text(shorter(figure_svg(row).decode()), encoding="utf-8")


def shorter(svg: str) -> str:
    """The same picture in fewer bytes: coordinates of 1 point and more to a hundredth of it, and no empty lines or comments.

    Smaller numbers are scales of letters, which need all their digits.
    """
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"(?<![\w#.])(-?\d*[1-9]\d*\.\d{2})\d+", lambda m: f"{float(m[1]):.7g}", svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


if __name__ == "__main__":
    redraw(sys.argv[1:])
