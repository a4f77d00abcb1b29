"""Pages made from the library when the build begins: laws, derivations, the command line, notebooks, the explorer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from site_parts import commands, derivations, explorer, laws, notebooks


def generate(app: Any) -> None:
    source = Path(app.srcdir)
    chains = derivations.chains(Path(app.outdir).parent / "derivations")
    texts = notebooks.texts(source.parent / "notebooks")
    pages = {
        **{f"derivations/{name}": text for name, text in derivations.pages(chains).items()},
        **{f"laws/{name}": text for name, text in laws.pages(chains, texts, draw=True).items()},
        **{f"notebooks/{name}": text for name, text in notebooks.pages(texts, source / "notebooks").items()},
        "command-line": commands.page(),
        "explorer": explorer.page(),
    }
    for name, text in pages.items():
        write(source / f"{name}.md", text)
    for folder in ("laws", "derivations", "notebooks"):
        for left in (source / folder).glob("*.md"):
            if f"{folder}/{left.stem}" not in pages:
                left.unlink()


def write(path: Path, text: str) -> None:
    """Leaves a page that has not changed alone, so that a second build is quick."""
    path.parent.mkdir(exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, bool]:
    app.connect("builder-inited", generate)
    return {"parallel_read_safe": True}
