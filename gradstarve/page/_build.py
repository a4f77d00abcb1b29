"""The page: what was verified, put into the template, with styles, scripts and figures inside."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
import math
import shlex
from collections.abc import Mapping
from importlib import resources
from typing import Any

from markupsafe import Markup

from gradstarve.ground import SECTIONS, files, place, text
from gradstarve.page._curves import explorer_data
from gradstarve.page._figures import figure_html
from gradstarve.page._mathml import mathml
from gradstarve.page._results import check
from gradstarve.theorems import CATALOGUE

# The overview's axis, gap over tolerance in powers of ten; a gap of 0 has the room at its left.
_LEAST, _MOST, _ZERO = -9, 1, 0.06
# The claims of the abstract of arXiv:1809.06848: in words, the law whose meaning says more, the laws whose figure may show
# it, and the sections about it.
CLAIMS = (
    ("The error follows a sigmoid", "inflections", ("deaths", "clock"), (1, 3, 5)),
    ("Classes are learnt independently", "independent-modes", ("independent-modes", "sign"), (2,)),
    ("Some starts fail", "antipodal-fates", ("fates", "antipodal-fates"), (4, 22, 23)),
    ("Frequency and norm set the speed", "confidence", ("universality", "confidence"), (6, 7, 9)),
    ("Hinge loss and cross-entropy differ", "hinge-advantage", ("hinge-advantage", "hinge-exact"), (12, 13, 15)),
    ("Frequent features starve rare ones", "starving-pair", ("starving-pair", "freeze"), (10, 14, 20)),
)
BEYOND = "Beyond the paper"
VERDICTS = {"violated": "violated", "unshown": "no verdict", "holds": "holds"}


def report_page(verification: Mapping[str, Any], figures: Mapping[str, bytes]) -> str:
    """One HTML page without anything outside of it: the theorems with verdicts, and the explorer of learning curves.

    - `verification`: what `theorems.Report.to_dict` gives, or `read_results` reads;
    - `figures`: by the name of the theorem, its figure as SVG (see `figure_svg`) or PNG; all of them or some.

    A theorem that is violated is told at the top, in its row and in the page's title. What the catalogue knows, formulas
    among it, is taken from there, and everything else goes in as text; the page's policy names its scripts and styles by
    their SHA-256, so that a browser runs nothing else. `ValueError` for a verification that is not one or contradicts the
    catalogue or itself, and for a figure that is neither PNG nor SVG or is more than a picture.

    >>> from gradstarve.page import figure_svg
    >>> from gradstarve.theorems import verify
    >>> found = verify("sign", trials=24, progress=False)
    >>> page = report_page(found.to_dict(), {"sign": figure_svg(found.rows[0])})
    >>> page.startswith("<!doctype html>"), "No point pushes a neuron the wrong way" in page
    (True, True)
    """
    wrong = check(verification)
    if wrong:
        raise ValueError(f"verification must be what theorems.Report.to_dict gives, but {wrong}")
    entries = [_entry(row, verification, figures.get(row["name"])) for row in verification["theorems"]]
    counts = {verdict: sum(entry["verdict"] == verdict for entry in entries) for verdict in VERDICTS}
    drops = [drop for entry in entries for drop in entry["necessity"]]
    ticks = [(f"10{_superscript(power)}" if power else "1", _along(10.0**power)) for power in range(_LEAST, _MOST, 3)]
    css = Markup("\n".join((_file("page.css"), _file("explorer.css"), *_places(entries, [along for _, along in ticks]))))
    theme, *scripts = (Markup(_file(name)) for name in ("theme.js", "table.js", "clock.js", "explorer.js"))
    return _template().render(
        entries=entries,
        claims=_claims(entries, figures),
        counts=counts,
        verdicts=VERDICTS,
        of=len(CATALOGUE),
        trials=sum(entry["trials"] for entry in entries),
        drops=len(drops),
        needed=sum(drop["found"] for drop in drops),
        headline=_headline(counts),
        ticks=ticks,
        sections=[(number, SECTIONS[number]) for number in sorted({entry["place"][0] for entry in entries})],
        run=verification,
        command=_command(_chosen(verification), verification),
        seed=_seed(verification),
        environment=verification.get("environment") or {},
        policy=_policy(css, [theme, *scripts]),
        css=css,
        theme=theme,
        scripts=scripts,
        explorer=Markup(_file("explorer.html")),
        # In a script element only "<" could end it or begin a comment.
        tables=Markup(json.dumps(explorer_data(), separators=(",", ":")).replace("<", "\\u003c")),
    )


def _claims(entries: list[dict[str, Any]], figures: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The laws tried, by the claim that they are about: its words, one figure if there is one, its laws, and how many hold.

    The last group has the laws of no claim.
    """
    found: list[dict[str, Any]] = []
    left, tried = list(entries), {entry["name"] for entry in entries}
    for words, about, shown, sections in (*CLAIMS, (BEYOND, "", (), None)):
        mine = [entry for entry in left if sections is None or entry["place"][0] in sections]
        left = [entry for entry in left if entry not in mine]
        if not mine:
            continue
        name = next((name for name in shown if name in figures and name in tried), None)
        picture = None
        if name is not None:
            picture = figure_html(figures[name], f"claim-{name}", f"Figure of theorem {name}: {CATALOGUE[name].title}")
        found.append(
            {
                "words": words,
                "meaning": CATALOGUE[about].meaning if about else "",
                "figure": picture,
                "name": name,
                "entries": mine,
                "holding": sum(entry["verdict"] == "holds" for entry in mine),
            }
        )
    return found


def _policy(css: str, scripts: list[Markup]) -> str:
    """What the page may load and run: these styles and scripts, told by their SHA-256, and images inside of it."""

    def of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return (
        f"default-src 'none'; script-src {' '.join(map(of, scripts))}; style-src {of(css)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _places(entries: list[dict[str, Any]], ticks: list[float]) -> list[str]:
    """Where the marks of the overview are: as rules, since attributes would need a policy that lets any style in."""
    marks = [f'.dot[href="#{entry["name"]}"] {{ left: {entry["along"]}%; }}' for entry in entries]
    places = [100 * _ZERO / 2, *ticks]
    return [*marks, *(f".axis i:nth-child({i}) {{ left: {along:g}%; }}" for i, along in enumerate(places, 1))]


def short(value: Any) -> str:
    """A number of a verification as people read it; infinities and NaN come as their names.

    >>> short(2.7960025e-13), short("inf"), short(1e-08)
    ('2.8e−13', '∞', '1e−8')
    """
    told = text.number(value, 2)
    return {"inf": "∞", "-inf": "−∞", "nan": "none"}.get(told, told.replace("-", "−"))


def _entry(row: Mapping[str, Any], run: Mapping[str, Any], figure: bytes | None) -> dict[str, Any]:
    """One theorem as the template wants it: the numbers of the verification, and what is told of them."""
    name = row["name"]
    theorem, limit = CATALOGUE[name], CATALOGUE[name].tolerance_in(run["precision"])
    try:
        picture = None if figure is None else figure_html(figure, name, f"Figure of theorem {name}: {row['title']}")
    except ValueError as error:
        raise ValueError(f"the figure of {name} is {error}") from None
    details = {key.replace("_", " "): value for key, value in row["details"].items()}
    return {
        **row,
        "verdict": "holds" if row["ok"] else "violated" if row["violations"] else "unshown",
        "sentence": row["verdict"],
        "place": place(row["equation"]),
        "formula": theorem.formula,
        "equation": row["equation"].replace("-", "–"),
        "mathml": Markup(mathml(theorem.formula)) if theorem.formula else None,
        "figure": picture,
        "each": row["details"].get("each"),
        "power": row.get("power", ""),
        "no_drop": theorem.no_drop,
        "meaning": theorem.meaning,
        "section": SECTIONS[place(row["equation"])[0]],
        "details": {key: files.json_text(value).strip() for key, value in details.items()},
        "fails": [drop["gap"] for drop in row["necessity"] if drop["found"]],
        "kept": sum(not drop["found"] for drop in row["necessity"]),
        "along": _along(float(row["worst_gap"]) / limit),
        "least_drop": min((float(drop["gap"]) for drop in row["necessity"]), default=math.nan),
        "necessity": [{**drop, "json": files.json_text(drop["numbers"]).strip()} for drop in row["necessity"]],
        "instance": files.json_text(row["worst_instance"]).strip(),
        "command": _command([name], run),
    }


def _along(ratio: float) -> float:
    """Where on the overview's axis a gap of `ratio` tolerances is, in percent of its width."""
    if math.isnan(ratio) or ratio <= 0:
        return 100 * _ZERO / 2
    part = (math.log10(min(max(ratio, 10.0**_LEAST), 10.0**_MOST)) - _LEAST) / (_MOST - _LEAST)
    return round(100 * (_ZERO + (1 - _ZERO) * part), 2)


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def _headline(counts: Mapping[str, int]) -> str:
    total, bad, unshown = sum(counts.values()), counts["violated"], counts["unshown"]
    none = f"{unshown}{'' if bad else f' of {total} theorems'} {'has' if unshown == 1 else 'have'} no verdict"
    if bad:
        return f"{bad} of {total} theorems {'is' if bad == 1 else 'are'} violated" + (f", {none}" if unshown else "")
    if unshown:
        return none
    return f"All {total} theorems hold" if total > 1 else "The theorem holds"


def _seed(run: Mapping[str, Any]) -> int | None:
    """The seed of the command line that gives the key of a run, None if there is none."""
    words = run["key"]
    return words[1] if len(words) == 2 and words[0] == 0 else None


def _chosen(run: Mapping[str, Any]) -> list[str]:
    """The names that a run was asked for; none for all."""
    tried = [row["name"] for row in run["theorems"]]
    names = [name for name in CATALOGUE if name in {*tried, *run["skipped"]}]
    return [] if len(names) == len(CATALOGUE) else names


def _command(names: list[str], run: Mapping[str, Any]) -> str:
    """What runs theorems again, on the same instances."""
    seed, trials = _seed(run), run.get("trials")
    if seed is None:
        how = "quick=True" if run["quick"] else f"trials={trials}"
        how += "" if run["precision"] == "float64" else f", precision={run['precision']!r}"
        return (
            f"import jax, jax.numpy as jnp, gradstarve as gs; gs.verify({names or 'all'!r}, {how}, "
            f"key=jax.random.wrap_key_data(jnp.array({list(run['key'])}, jnp.uint32)))"
        )
    words = ["gradstarve verify", *map(shlex.quote, names)]
    words += ["--quick"] if run["quick"] else []
    words += [f"--trials {trials}"] if trials is not None else []
    words += [f"--precision {run['precision']}"] if run["precision"] != "float64" else []
    return " ".join([*words, f"--seed {seed}"])


@functools.cache
def _template() -> Any:
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["short"] = short
    return environment.from_string(_file("template.html"))


def _file(name: str) -> str:
    return resources.files("gradstarve.page").joinpath(name).read_text(encoding="utf-8")
