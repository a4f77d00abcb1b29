"""LaTeX to MathML, by latex2mathml, and a clear error for what that cannot do.

latex2mathml passes over much that it does not know: a command without a meaning becomes an identifier with a backslash, a
missing argument an element with a child too few. Browsers show either as nonsense, so both are refused here.
"""

from __future__ import annotations

from xml.etree import ElementTree

_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
# What latex2mathml makes of mathematics. Its \text and \href let through any markup of whoever writes the LaTeX.
_TAGS = {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "ms", "mfrac", "msqrt", "mroot", "mstyle", "mpadded"}
_TAGS |= {"mphantom"}
_TAGS |= {"menclose", "msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd", "mlabeledtr"}
_ATTRIBUTES = {"display", "displaystyle", "scriptlevel", "stretchy", "fence", "form", "accent", "accentunder"}
_ATTRIBUTES |= {"linethickness"}
_ATTRIBUTES |= {"minsize", "maxsize", "lspace", "rspace", "width", "height", "depth", "voffset", "mathvariant", "largeop"}
_ATTRIBUTES |= {"movablelimits", "separator", "symmetric", "columnalign", "rowspacing", "columnspacing", "columnlines"}
_ATTRIBUTES |= {"rowlines", "frame", "notation", "linebreak", "bevelled"}
_CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "msubsup": 3, "mover": 2, "munder": 2, "munderover": 3}


def mathml(latex: str, display: str = "block") -> str:
    """The formula `latex`, without dollars, as a `<math>` element of MathML Core; `display` is "block" or "inline".

    `ValueError` for what cannot be told in MathML: unknown commands, `aligned` and other environments with & that are not
    matrices or cases, missing arguments, links, styles and markup.

    >>> mathml(r"e^{u}", "inline")
    '<math xmlns="http://www.w3.org/1998/Math/MathML" display="inline"><mrow><msup><mi>e</mi><mrow><mi>u</mi></mrow></msup></mrow></math>'
    >>> mathml(r"\\nosuch u")
    Traceback (most recent call last):
        ...
    ValueError: LaTeX that cannot be shown as MathML: \\nosuch is not known, in '\\\\nosuch u'
    """  # noqa: E501
    from latex2mathml.converter import convert

    if display not in ("block", "inline"):
        raise ValueError(f'display must be "block" or "inline", got {display!r}')
    try:
        root = ElementTree.fromstring(convert(latex, display=display))
    except ElementTree.ParseError:
        raise _refusal("& outside of a matrix, cases or array", latex) from None
    except Exception as error:  # its errors have no common ancestor, and often no message
        raise _refusal(str(error) or type(error).__name__, latex) from None
    for node in root.iter():
        tag, content = str(node.tag).removeprefix(_NAMESPACE), node.text or ""
        strange = [key for key in node.attrib if key not in _ATTRIBUTES]
        if tag not in _TAGS or strange:
            raise _refusal(f"<{tag}>{f' with {strange[0]}' if strange else ''} is not mathematics", latex)
        node.tag = tag
        if "\\" in content and tag != "mtext":
            raise _refusal(f"{content} is not known", latex)
        if content == "&":
            raise _refusal("& outside of a matrix, cases or array", latex)
        if len(node) != _CHILDREN.get(tag, len(node)):
            raise _refusal("an argument is missing", latex)
    # Written anew from what was looked at, since a browser reads HTML by other rules than XML.
    root.attrib = {"xmlns": _NAMESPACE[1:-1], **root.attrib}
    return ElementTree.tostring(root, encoding="unicode")


def _refusal(why: str, latex: str) -> ValueError:
    return ValueError(f"LaTeX that cannot be shown as MathML: {why}, in {latex!r}")
