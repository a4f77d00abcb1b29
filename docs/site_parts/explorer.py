"""The explorer of learning curves as a page of the documentation, made of the same parts as that of `gradstarve report`."""

from __future__ import annotations

import json
from importlib import resources

INTRO = """# Explorer

The exact learning curve of one neuron, drawn in your browser as you move the sliders: which settings give a plateau, which a
straight fall, and which neuron never learns. `gradstarve report` writes the same explorer, beside all laws, into one file.

"""


def page() -> str:
    """The explorer in Markdown, with its styles, scripts and tables."""
    from gradstarve.page import explorer_data

    body = part("explorer.html").replace("<h2 id", '<h2 class="ex-hidden" id')
    tables = json.dumps(explorer_data(), separators=(",", ":")).replace("<", "\\u003c")
    parts = [
        f"<style>\n{part('explorer.css')}\n</style>",
        f'<div class="explorer-page">\n{body}\n</div>',
        f'<script type="application/json" id="curve-tables">{tables}</script>',
        *[f"<script>\n{part(name)}\n</script>" for name in ("clock.js", "explorer.js")],
    ]
    return INTRO + "````{raw} html\n" + "\n".join(parts) + "\n````\n"


def part(name: str) -> str:
    return resources.files("gradstarve.page").joinpath(name).read_text(encoding="utf-8")
