"""A public name in `code` leads to its documentation, and so does one in a signature."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.transforms import SphinxTransform

from site_parts.public import public, short_names

# Names in annotations whose documentation is elsewhere,
ELSEWHERE = {
    *("Any", "Array", "Bool", "Callable", "Equality", "Expr", "Float", "Int", "Integer", "Iterable", "Iterator", "Mapping"),
    *("Num", "Path", "Sequence", "Shaped", "Symbol", "ndarray", "AbstractVar", "Basic", "Eq"),
}
# and those that only the library itself makes and reads.
INTERNAL = {
    *("CheckResult", "Domain", "Equations", "Known", "Target", "Verify"),
    *("Piece", "Pieces", "Real", "Rounds", "Same", "Settings", "State", "Stepping", "Times", "_Function"),
    *(
        "Classes",
        "Group",
        "StepLaw",
        "Margin",
        "PiecewiseClock",
        "Certificate",
        "ConeClass",
        "Configuration",
        "RemedyOutcome",
        "Spread",
        "Stage",
        "Table",
        "Tell",
        "Unseen",
    ),
}


class LinkNames(SphinxTransform):
    """Turns `solve` into a link to `gradstarve.solve`, outside titles and links."""

    default_priority = 400

    def apply(self, **options: Any) -> None:
        for node in list(self.document.findall(nodes.literal)):
            text = node.astext()
            target = short_names().get(text.removesuffix("()"))
            if target is None or any(isinstance(up, nodes.reference | pending_xref | nodes.title) for up in ancestors(node)):
                continue
            attributes = {"refdomain": "py", "reftype": "obj", "reftarget": target, "refexplicit": True, "refwarn": True}
            link = pending_xref(text, refdoc=self.env.docname, **attributes)
            node.replace_self(link)
            link += node


class LongNames(SphinxTransform):
    """Gives the types in signatures, which are written short there, the one path that each is documented under."""

    default_priority = 401

    def apply(self, **options: Any) -> None:
        for node in list(self.document.findall(pending_xref)):
            if node.get("refdomain") == "py" and node["reftype"] == "class":
                name = node["reftarget"].rpartition(".")[2]
                beside = f"{node.get('py:module')}.{name}"
                node["reftarget"] = beside if beside in public() else short_names().get(name, node["reftarget"])


def ancestors(node: nodes.Node) -> list[nodes.Node]:
    found = []
    while (node := node.parent) is not None:
        found.append(node)
    return found


def elsewhere(app: Any, env: Any, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Names of other libraries, and of this one's insides, stand as they are."""
    if node.get("refdomain") == "py" and node["reftarget"].rpartition(".")[2] in ELSEWHERE | INTERNAL:
        return content
    return None


def setup(app: Any) -> dict[str, bool]:
    app.add_transform(LinkNames)
    app.add_transform(LongNames)
    app.connect("missing-reference", elsewhere)
    return {"parallel_read_safe": True}
