"""What screen readers and keyboards need, and the theme leaves out: added to every page when it has been written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ADDED = {
    'role="heading">': 'role="heading" aria-level="2">',
    '<aside class="sidebar-drawer">': '<aside class="sidebar-drawer" aria-label="Pages">',
    '<aside class="toc-drawer">': '<aside class="toc-drawer" aria-label="On this page">',
    '<aside class="toc-drawer no-toc">': '<aside class="toc-drawer no-toc" aria-label="On this page">',
    # Code that is wider than a phone scrolls, which a keyboard can do only in what takes the focus.
    "<pre>": '<pre tabindex="0">',
}


def add(app: Any, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    for path in Path(app.outdir).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        more = text
        for old, new in ADDED.items():
            more = more.replace(old, new)
        if more != text:
            path.write_text(more, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("build-finished", add)
    return {"parallel_read_safe": True}
