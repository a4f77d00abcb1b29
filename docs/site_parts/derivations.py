"""One page per derivation: every step with its check, as `gradstarve.derive` gives it."""

from __future__ import annotations

import hashlib
import json
import os
import re
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import gradstarve

# The losses shown of a law whose chains differ by more than g. Of every other law the first loss is shown.
SHOWN = {
    "mode": ("cross-entropy", "hinge", "exponential", "squared"),
    "flipped-labels": ("cross-entropy", "hinge"),
    "starvation": ("exponential", "hinge", "cross-entropy"),
}


@dataclass(frozen=True)
class ShownStep:
    """One step in Markdown: its heading, its equation number or "", and what stands below the heading."""

    heading: str
    reference: str
    text: str


@dataclass(frozen=True)
class Chain:
    """One derivation in Markdown."""

    name: str
    loss: str
    title: str
    steps: tuple[ShownStep, ...]


def wanted() -> list[tuple[str, str]]:
    """The derivations shown: for each law the losses of `SHOWN`, or the first one."""
    from gradstarve.symbolic import available

    found: dict[str, list[str]] = {}
    for name, loss in available():
        found.setdefault(name, []).append(loss)
    return [(name, loss) for name, losses in found.items() for loss in SHOWN.get(name, losses[:1])]


def markdown(pair: tuple[str, str]) -> str:
    """Derives and checks one of them, and prints it in Markdown."""
    return gradstarve.derive(*pair).to_markdown()


def chains(store: Path) -> list[Chain]:
    """All derivations shown. They take half a minute, so they are kept in `store` until `gradstarve.symbolic` changes."""
    pairs = wanted()
    digest = hashlib.sha256()
    for path in sorted((Path(gradstarve.__file__).parent / "symbolic").glob("*.py")):
        digest.update(path.read_bytes())
    kept = store / f"{digest.hexdigest()[:16]}.json"
    texts: dict[str, str] = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    missing = [pair for pair in pairs if " ".join(pair) not in texts]
    if missing:
        with ProcessPoolExecutor(min(4, os.cpu_count() or 1), mp_context=get_context("spawn")) as pool:
            texts.update(zip(map(" ".join, missing), pool.map(markdown, missing), strict=True))
        store.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(texts), encoding="utf-8")
    return [read(*pair, texts[" ".join(pair)]) for pair in pairs]


def read(name: str, loss: str, text: str) -> Chain:
    """The Markdown of a derivation, taken apart at its headings."""
    title, *parts = re.split(r"^#{2,3} ", text, flags=re.MULTILINE)[1:]
    steps = []
    for part in parts:
        heading, _, below = part.partition("\n")
        reference = re.search(r"\((\d+\.\d+)\)$", heading.strip())
        steps.append(ShownStep(heading.strip(), reference[1] if reference else "", below.strip()))
    return Chain(name, loss, title.strip(), tuple(steps))


def pages(chains: list[Chain]) -> dict[str, str]:
    """Name of a page -> its Markdown, and the index."""
    intro = (
        "# Derivations\n\nNo final formula is typed in: each chain starts from the network and the loss, and each step is "
        "checked against the steps before it, by simplification to 0 or at random points to 50 digits. A step that does not "
        "follow stops the build of these pages. `derive` gives the same as an object, and also in LaTeX and as a function "
        "of JAX:\n\n```sh\ngradstarve derive --list\ngradstarve derive mode --loss hinge --format latex --out derivations\n"
        "```\n\n```{toctree}\n:maxdepth: 1\n\n"
    )
    found = {"index": intro + "\n".join(slug(chain) for chain in chains) + "\n```\n"}
    for chain in chains:
        lines = [f"# {chain.title}", "", "```sh", f"gradstarve derive {chain.name} --loss {chain.loss}", "```", ""]
        for number, step in enumerate(chain.steps, start=1):
            lines += [f"({slug(chain)}-{number})=", f"## {step.heading}", "", step.text, ""]
        found[slug(chain)] = "\n".join(lines)
    return found


def slug(chain: Chain) -> str:
    return f"{chain.name}-{chain.loss}"
