"""One page per law, from the catalogue: what it says, where it holds, and what tries, evaluates, derives and teaches it."""

from __future__ import annotations

import ast
import doctest
import html
import importlib.util
import inspect
import re
import sys
from types import ModuleType
from typing import Any

from gradstarve.ground import SECTIONS, place, text
from site_parts import figures, notebooks
from site_parts.derivations import Chain, slug
from site_parts.public import public

NUMBER = re.compile(r"(?<![\d.])(\d+)\.(\d+)(?:\)?\s?[-–]\s?\(?\1\.(\d+))?(?![\d.])")


def numbers(text: str) -> set[tuple[int, int]]:
    """Equation numbers: "3.1-3.5" is five of them."""
    found = set()
    for section, first, last in NUMBER.findall(text):
        found |= {(int(section), number) for number in range(int(first), int(last or first) + 1)}
    return found


def cited(text: str) -> set[tuple[int, int]]:
    """The equation numbers that a text names in parentheses: (3.4), (10.1)-(10.5), (14.1, 14.2)."""
    groups = re.findall(r"\((?:\d+\.\d+)(?:\)?\s?[-–]\s?\(?\d+\.\d+|[,;] (?:and )?\d+\.\d+)*\)", text)
    return set().union(*map(numbers, groups)) if groups else set()


def prose(text: str) -> str:
    """Plain text with mathematics in it, as Markdown that shows every character."""
    for character in r"\*_[]<>|$`#~{}":
        text = text.replace(character, "\\" + character)
    return text.replace("+ -", "\\+ -")


def sentence(text: str) -> str:
    """Plain text with mathematics in it as a Markdown sentence, functions of the library in it as code."""
    parts = re.split(r"(?<!\w)(simulate(?:_\w+)?(?=[:,;])|simulate_\w+)", text.strip())
    shown = "".join(f"`{part}`" if i % 2 else prose(part) for i, part in enumerate(parts))
    if not re.match(r"\S*[`_(/^=*\d]|(?!a [A-Za-z])[a-z]\b", shown):  # a formula begins as it is written
        shown = shown[:1].upper() + shown[1:]
    return shown + ("" if shown.endswith((".", "!", "?")) else ".")


def equation(theorem: Any) -> str:
    """The number of the law, with a dash where there are several."""
    return "(" + theorem.equation.replace("-", "–") + ")"


def pages(chains: list[Chain], texts: dict[str, list[Any]], draw: bool = False) -> dict[str, str]:
    """Name of a page -> its Markdown, and the index; with `draw`, figures of laws that have none yet are drawn."""
    from gradstarve.theorems import CATALOGUE

    found = {"index": index(CATALOGUE)}
    for number, entries in sections(CATALOGUE).items():
        found[f"section-{number}"] = section_page(number, entries)
    for name, theorem in CATALOGUE.items():
        drawn = figures.figure(name, theorem.title, draw=draw)
        found[name] = page(theorem, chains, texts, drawn)
    found["gallery"] = gallery(CATALOGUE)
    return found


def sections(catalogue: dict[str, Any]) -> dict[int, list[Any]]:
    """Number of a section -> its laws."""
    found: dict[int, list[Any]] = {}
    for theorem in catalogue.values():
        found.setdefault(place(theorem.equation)[0], []).append(theorem)
    return dict(sorted(found.items()))


def index(catalogue: dict[str, Any]) -> str:
    lines = [
        "# Laws",
        "",
        f"{len(catalogue)} statements, each tried against training that knows no closed form, where its hypotheses hold "
        "and, for those that matter, where they are dropped. The setting is that of "
        "[arXiv:1809.06848](https://arxiv.org/abs/1809.06848); statements and equation numbers are this project's own. "
        "Symbols are those of the [concepts](../concepts.md).",
        "",
        "```sh",
        "gradstarve verify --list",
        "gradstarve verify --quick",
        "```",
        "",
    ]
    for number, entries in sections(catalogue).items():
        lines += [f"## {number}. {SECTIONS[number]}", ""]
        lines += [f"- [{prose(t.title)}]({t.name}.md) {equation(t)}" for t in entries]
        lines.append("")
    places = ["gallery", *[f"section-{number}" for number in sections(catalogue)]]
    lines += ["```{toctree}", ":hidden:", "", *places, "```", ""]
    return "\n".join(lines)


def gallery(catalogue: dict[str, Any]) -> str:
    """A thumbnail for each law, with a link to its page."""
    lines = [
        "# Gallery of the laws",
        "",
        "A picture for each law, which leads to its page: the formula as lines, trained networks as markers, in red what "
        "happens without one hypothesis, and in the strip below the gap of every trial beside the tolerance. [The key "
        "figures](../gallery.md) are larger, and show one claim each.",
        "",
    ]
    for number, entries in sections(catalogue).items():
        lines += [f"## {number}. {SECTIONS[number]}", "", "```{raw} html", '<div class="thumbnails">']
        lines += [thumbnail(theorem) for theorem in entries]
        lines += ["</div>", "```", ""]
    return "\n".join(lines)


def thumbnail(theorem: Any) -> str:
    title = html.escape(theorem.title)
    image = f'<img loading="lazy" width="460" height="288" alt="" src="../_static/laws/{theorem.name}.svg">'
    return f'<a href="{theorem.name}.html">{image}<span>{title}</span></a>'


def section_page(number: int, entries: list[Any]) -> str:
    """The claims and formulas of one section."""
    lines = [f"# {number}. {SECTIONS[number]}", ""]
    for theorem in entries:
        lines += [f"## {prose(theorem.title)}", "", *statement(theorem)]
        lines += [f"[Where it holds, and what tries it]({theorem.name}.md)", ""]
    lines += ["```{toctree}", ":hidden:", "", *[theorem.name for theorem in entries], "```", ""]
    return "\n".join(lines)


def statement(theorem: Any) -> list[str]:
    formula = theorem.formula.strip()
    return [f"**{equation(theorem)}** {sentence(theorem.claim)}", "", *(["$$", formula, "$$", ""] if formula else [])]


def page(theorem: Any, chains: list[Chain], texts: dict[str, list[Any]], figure: str = "") -> str:
    own = numbers(theorem.equation)
    lines = [f"# {prose(theorem.title)}", "", *statement(theorem), *shown(theorem, figure)]
    lines += example(own)
    lines += ["## Where it holds", "", *[f"- {sentence(str(h))}" for h in theorem.hypotheses], ""]
    lines += trial(theorem)
    lines += evaluated(own)
    lines += derived(own, chains)
    lines += taught(theorem, own, texts)
    return "\n".join(lines)


def shown(theorem: Any, figure: str) -> list[str]:
    """The figure of the law, if there is one, and what it means."""
    from gradstarve.theorems import LawFigure

    caption = f"<figcaption>{CAPTION}{STRIP if isinstance(theorem.figure, LawFigure) else ''}</figcaption>"
    lines = ["```{raw} html", f'<figure class="law">{figure}{caption}</figure>', "```", ""] if figure else []
    return [*lines, *([f"**What it means.** {prose(theorem.meaning)}", ""] if theorem.meaning else [])]


CAPTION = "Lines: the law. Markers: training."
STRIP = (
    " Red, where it is: what happens without a hypothesis. The strip below: the gap of every trial, and the tolerance."
)


def example(own: set[tuple[int, int]]) -> list[str]:
    """The example of the function that is most about the law, with the imports that it needs."""
    for path, value in sorted(citing(own), key=lambda one: len(cited(inspect.getdoc(one[1]) or "") - own)):
        code = first_example(value)
        if code and not any("._" in line for line in code):
            more = f"{{py:obj}}`{path}` says what it takes and returns."
            return ["## An example", "", "```pycon", *code, "```", "", more, ""]
    return []


def first_example(value: Any) -> list[str]:
    """The example in the docstring of a public function or class, up to its first output, after its imports; [] if none."""
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(value) or "")
    ends = [i for i, one in enumerate(examples) if one.want.strip()]
    if not ends or ends[0] > 5:
        return []
    used = examples[: ends[0] + 1]
    lines = []
    for one in used:
        source = one.source.rstrip("\n").splitlines()
        lines += [f">>> {source[0]}", *[f"... {line}" for line in source[1:]], *one.want.rstrip("\n").splitlines()]
    return [*[f">>> {line}" for line in imports("".join(one.source for one in used), value)], *lines]


def imports(source: str, value: Any) -> list[str]:
    """The import lines that make an example of a docstring run by itself: it uses the names of its own module."""
    tree = ast.parse(source)
    own = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    own |= {alias.asname or alias.name.split(".")[0] for alias in aliases}
    own |= {argument.arg for argument in ast.walk(tree) if isinstance(argument, ast.arg)}
    names = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    there = vars(sys.modules[value.__module__])
    modules, froms, given = set(), {}, []
    for name in dict.fromkeys(names):
        if name in own or name not in there:
            continue
        if isinstance(there[name], ModuleType):
            full = there[name].__name__
            modules.add(f"import {full}" + ("" if full == name else f" as {name}"))
        else:
            home = getattr(there[name], "__module__", None) or value.__module__
            path = next((p for p, other in public().items() if other is there[name]), f"{home}.{name}")
            room = path.rpartition(".")[0]
            if importlib.util.find_spec(room) is None:  # a module under another name, as gradstarve.theory.ntk is
                modules.add("import gradstarve as gs")
                given.append(f"{name} = gs.{path.partition('.')[2]}")
            else:
                froms.setdefault(room, []).append(name)
    lines = [f"from {module} import {', '.join(sorted(some))}" for module, some in sorted(froms.items())]
    return [*sorted(modules), *given, *lines]


def trial(theorem: Any) -> list[str]:
    """How the law is tried, and the command that does it."""
    lines = [
        "## What tries it",
        "",
        "```sh",
        f"gradstarve verify {theorem.name}",
        "```",
        "",
        "Independent simulator",
        f": {sentence(theorem.checked_with)}",
        "",
        "Trials",
        f": {theorem.default_trials:,} at least, {theorem.quick_trials:,} with `--quick`, {dropped(theorem)}.",
        "",
        "Tolerance",
        f": {text.number(theorem.tolerance)}: {sentence(theorem.why_tolerance)}{single(theorem)}",
        "",
    ]
    if theorem.power:
        lines += ["Power", f": {sentence(theorem.power)}", ""]
    return lines


def dropped(theorem: Any) -> str:
    count = len(theorem.necessity)
    if not count:
        return "all within the hypotheses" + (f" ({theorem.no_drop})" if theorem.no_drop else "")
    return f"and {'one' if count == 1 else count} beside them, with a hypothesis dropped"


def single(theorem: Any) -> str:
    if theorem.single_tolerance is None:
        return " Not tried in float32, which does not have the numbers that it speaks of."
    return f" In float32: {text.number(theorem.tolerance_in('float32'))}."


def citing(own: set[tuple[int, int]]) -> list[tuple[str, Any]]:
    """The public functions and classes of theory and simulation whose documentation cites one of these equations."""
    found = []
    for path, value in public().items():
        room = getattr(value, "__module__", "").startswith(("gradstarve.theory", "gradstarve.simulation"))
        if room and not isinstance(value, ModuleType) and own & cited(inspect.getdoc(value) or ""):
            found.append((path, value))
    return found


def evaluated(own: set[tuple[int, int]]) -> list[str]:
    """A line for each function or class that evaluates or tries the law."""
    entries = []
    for path, value in citing(own):
        first = " ".join((inspect.getdoc(value) or "").partition("\n\n")[0].split())
        entries.append(f"- {{py:obj}}`{path}`: {code_and_prose(first)}")
    return ["## In the library", "", *entries, ""] if entries else []


def code_and_prose(text: str) -> str:
    return "".join(part if i % 2 else prose(part) for i, part in enumerate(re.split(r"(`[^`]+`)", text)))


def derived(own: set[tuple[int, int]], chains: list[Chain]) -> list[str]:
    """The steps of the derivations that have the law's equation numbers, each equation once."""
    lines, shown = [], set()
    for chain in chains:
        for number, step in enumerate(chain.steps, start=1):
            if not step.reference or not own & numbers(step.reference) or step.text in shown:
                continue
            shown.add(step.text)
            title = f"{step.heading.partition('. ')[2]}, {prose(chain.title[:1].lower() + chain.title[1:])}"
            lines += [f"**[{title}](#{slug(chain)}-{number}).** {step.text}", ""]
    return ["## How it is derived", "", *lines] if lines else []


def taught(theorem: Any, own: set[tuple[int, int]], texts: dict[str, list[Any]]) -> list[str]:
    """The notebooks that name the law or one of its equations."""
    found = []
    for name, cells in texts.items():
        written = notebooks.source(cells)
        named = re.search(rf"verify(?: |\(\"){re.escape(theorem.name)}\b", written)
        if named or own & cited(written):
            found.append(f"- [{notebooks.title(cells)}](../notebooks/{name}.md)")
    return ["## Where it is taught", "", *found, ""] if found else []
