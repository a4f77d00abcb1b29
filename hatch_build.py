"""What the build adds to pyproject.toml: README.md as a package index can show it, where relative links lead nowhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

try:
    from hatchling.metadata.plugin.interface import MetadataHookInterface
except ImportError:  # outside of a build, where only the text below is wanted
    MetadataHookInterface = object  # type: ignore[assignment, misc]

_FENCES = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)
_PICTURE = re.compile(r"<picture>.*?(<img [^>]*>)\s*</picture>", re.DOTALL)
_IMG = re.compile(r"<img ([^>]*)src=\"([^\"]+)\"([^>]*)>")
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")
_LINK = re.compile(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)")


def readme_for_an_index(text: str, source: str | None, version: str) -> str:
    """`text` with links and pictures at `source`, the address of the repository, as they are in its tag v`version`.

    Without an address relative links become their words, and pictures are left out; <picture> always becomes its <img>,
    because indexes show no other. Blocks of code stay as they are.
    """

    def at(kind: str, target: str) -> str:
        return f"{(source or '').rstrip('/')}/{kind}/v{version}/{target}"

    def elsewhere(target: str) -> bool:
        return target.startswith(("http://", "https://", "mailto:", "#"))

    def img(m: re.Match[str]) -> str:
        if elsewhere(m[2]):
            return m[0]
        return f'<img {m[1]}src="{at("raw", m[2])}"{m[3]}>' if source else ""

    def image(m: re.Match[str]) -> str:
        if elsewhere(m[2]):
            return m[0]
        return f"![{m[1]}]({at('raw', m[2])})" if source else ""

    def link(m: re.Match[str]) -> str:
        if elsewhere(m[2]):
            return m[0]
        return f"[{m[1]}]({at('blob', m[2])})" if source else m[1]

    parts = _FENCES.split(text)  # every second one is a block of code
    for index in range(0, len(parts), 2):
        part = _PICTURE.sub(r"\1", parts[index])
        part = _LINK.sub(link, _IMAGE.sub(image, _IMG.sub(img, part)))
        parts[index] = part if source else re.sub(r"\n{3,}", "\n\n", part)
    return "".join(parts)


class CustomMetadataHook(MetadataHookInterface):
    """Fills `readme`, which pyproject.toml declares as dynamic."""

    def update(self, metadata: dict[str, Any]) -> None:
        """Called by hatchling with the static part of [project]."""
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        source = metadata.get("urls", {}).get("Source")
        shown = readme_for_an_index(text, source, metadata["version"])
        metadata["readme"] = {"content-type": "text/markdown", "text": shown}
