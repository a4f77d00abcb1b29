"""Figures for a page with a light and a dark side: vectors whose black is the colour of the text, or images on a card."""

from __future__ import annotations

import base64
import io
import re
from typing import Any
from xml.etree import ElementTree

from markupsafe import Markup, escape

from gradstarve.ground import style
from gradstarve.theorems import Row, draw

PNG = b"\x89PNG\r\n\x1a\n"

_TAGS = {"svg", "g", "defs", "path", "use", "clipPath", "rect", "circle", "ellipse", "line", "polygon", "polyline", "image"}
_TAGS |= {"text", "tspan"}
_DROPPED = {"metadata", "style", "title", "desc"}
_GEOMETRY = {"d", "transform", "x", "y", "x1", "y1", "x2", "y2", "cx", "cy", "r", "rx", "ry", "points", "width", "height"}
_GEOMETRY |= {"viewBox", "preserveAspectRatio", "clipPathUnits"}
_PAINT = {"fill", "stroke", "opacity", "fill-opacity", "stroke-opacity", "stroke-width", "stroke-linecap", "stroke-linejoin"}
_PAINT |= {"stroke-dasharray", "stroke-dashoffset", "stroke-miterlimit", "fill-rule", "clip-path", "clip-rule", "color"}
_PAINT |= {"image-rendering", "shape-rendering", "text-anchor", "font-size", "font-family", "font-weight", "font-style"}
# More markers than this of one kind are an image within the figure: as vectors they take 60 bytes each.
_MOST_MARKERS = 600


def figure_svg(row: Row) -> bytes:
    """The figure of one theorem tried as SVG on a transparent ground, without its title, text as outlines.

    Outlines look the same everywhere; text would be set in another font where DejaVu Sans is not installed, and run out
    of its place.
    """
    import matplotlib as mpl

    figure = draw(row, titled=False)
    for ax in figure.axes:
        for artist in [*ax.lines, *ax.collections]:
            if _markers(artist) > _MOST_MARKERS:
                artist.set_rasterized(True)
    # The salt makes the names of clip paths and markers the same from run to run, and others in every figure.
    with mpl.rc_context({**style.RC, "svg.fonttype": "path", "svg.hashsalt": row.theorem.name}):
        out = io.BytesIO()
        figure.savefig(out, format="svg", transparent=True, dpi=style.DPI, metadata={"Date": None})
    return out.getvalue()


def _markers(artist: Any) -> int:
    if hasattr(artist, "get_marker"):
        return 0 if artist.get_marker() in (None, "None", "", " ") else len(artist.get_xdata())
    return len(artist.get_offsets())


def figure_html(content: bytes, name: str, label: str) -> Markup:
    """A figure as it goes into the page: SVG as an element of it, PNG as an image on a light card.

    `name` goes in front of every id, so that figures do not share any; `label` is what a screen reader says. `ValueError`
    for what is neither, and for SVG with anything in it that Matplotlib does not write: scripts, handlers, links, HTML.
    """
    if content.startswith(PNG):
        data = base64.b64encode(content).decode()
        image = Markup('<img class="figure on-light" alt="{}" loading="lazy" src="data:image/png;base64,{}">')
        return image.format(label, data)
    if b"<!ENTITY" in content:
        raise ValueError("an SVG with entities of its own, which no figure of this library has")
    try:
        root = ElementTree.fromstring(content)
    except (ElementTree.ParseError, LookupError, ValueError):  # of XML, or of an unknown coding
        raise ValueError("neither a PNG nor an SVG") from None
    if _local(root.tag) != "svg":
        raise ValueError(f"an SVG is expected, got XML that begins with <{_local(root.tag)}>")
    try:
        _clean(root, f"{name}-")
        root.attrib = {
            "viewBox": root.get("viewBox", "0 0 460.8 288"),
            "class": "figure",
            "role": "img",
            "aria-label": label,
            "fill": "currentColor",
            "stroke-linejoin": "round",  # what stood in the style sheet that was left out
        }
        return Markup(ElementTree.tostring(root, encoding="unicode"))
    except RecursionError:
        raise ValueError("an SVG of groups within groups without end") from None


def _local(tag: Any) -> str:
    return tag.rpartition("}")[2] if isinstance(tag, str) else "a processing instruction"


def _colour(found: re.Match[str]) -> str:
    """What stands for a colour of paper on a page of either side (page.css): greys change, and blue gets lighter."""
    colour = found[0].lower()
    levels = {colour[i : i + 2] for i in (1, 3, 5)}
    if colour == style.COLOURS[0].lower():
        return "var(--figure-blue)"
    if len(levels) > 1:
        return colour
    grey = int(levels.pop(), 16)
    for top, name in ((0x55, "currentColor"), (0x7F, "var(--muted)"), (0x97, colour), (0xDF, "var(--figure-shade)")):
        if grey <= top:
            return name
    return "var(--card)" if grey == 0xFF else "var(--line)"


def _clean(node: ElementTree.Element, prefix: str) -> None:
    """Namespaces go, ids get a prefix, colours of paper become those of the page; what is not a picture is refused.

    Of attributes only those stay that a picture is made of. Styles become attributes too, since the page's policy lets no
    style in that it does not know.
    """
    node.tag = _local(node.tag)
    if node.tag not in _TAGS:
        raise ValueError(f"an SVG with <{escape(node.tag)}>, which no figure of this library has")
    given = {_local(key): value for key, value in node.attrib.items()}
    for key in given:
        if key.lower().startswith("on"):
            raise ValueError(f"an SVG with the handler {key}, which no figure of this library has")
    pairs = (part.partition(":")[::2] for part in given.pop("style", "").split(";"))
    given |= {key.strip(): value.strip() for key, value in pairs}
    cleaned = {}
    for key, value in given.items():
        if key == "href":
            cleaned[key] = _reference(value, prefix)
        elif key == "id":
            cleaned[key] = prefix + value
        elif key in _GEOMETRY or key in _PAINT:
            cleaned[key] = _plain(key, value, prefix)
    node.attrib = cleaned
    for child in list(node):
        if _local(child.tag) in _DROPPED:
            node.remove(child)
        else:
            _clean(child, prefix)


def _reference(value: str, prefix: str) -> str:
    """A reference to another part of the figure, or an image inside of it."""
    if value.startswith("#"):
        return f"#{prefix}{value[1:]}"
    if not re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=\s]*", value):
        raise ValueError("an SVG that refers to something outside of it")
    return value


def _plain(key: str, value: str, prefix: str) -> str:
    """Numbers, names and colours, or one part of the figure."""
    part = re.fullmatch(r"\s*url\(#([\w.-]+)\)\s*", value)
    if part:
        return f"url(#{prefix}{part[1]})"
    if re.search(r"url|image|src|:|\\|@|//", value, re.IGNORECASE):
        raise ValueError("an SVG that refers to something outside of it")
    if not re.fullmatch(r"[\w\s#.,()%+-]*", value):
        raise ValueError(f"an SVG with {key}={value[:40]!r}, which no figure of this library has")
    return re.sub(r"#[0-9a-fA-F]{6}\b", _colour, value) if key in _PAINT else value
