"""Formulas as MathML, written at build time: the pages need no script and no network."""

from __future__ import annotations

import html
from typing import Any

from docutils import nodes
from sphinx.util import logging

from gradstarve.page import mathml as converted

logger = logging.getLogger(__name__)


def mathml(node: nodes.Element, display: str) -> str:
    """The formula of a node; one that cannot be shown is a warning that names it, and so stops a strict build."""
    latex = node.astext().strip()
    for end in ("begin", "end"):  # the same environment, under the name that the converter knows
        latex = latex.replace(f"\\{end}{{aligned}}", f"\\{end}{{split}}")
    try:
        return converted(latex, display)
    except ValueError as error:
        logger.warning("%s", error, location=node)
        return f"<code>{html.escape(latex)}</code>"


def visit_math(writer: Any, node: nodes.math) -> None:
    writer.body.append(mathml(node, "inline"))
    raise nodes.SkipNode


def visit_displaymath(writer: Any, node: nodes.math_block) -> None:
    # An overlong formula scrolls by itself, which a keyboard can do only in a box that takes the focus.
    writer.body.append(f'<div class="formula" tabindex="0">{mathml(node, "block")}</div>')
    raise nodes.SkipNode


def setup(app: Any) -> dict[str, bool]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
