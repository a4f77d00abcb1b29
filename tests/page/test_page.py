"""The page as a text: all inside of it, every theorem with its numbers, nothing of what it tells taken for markup."""

import base64
import dataclasses
import hashlib
import json
import re
from importlib import resources
from xml.etree import ElementTree

import made_up
import pytest
from outline import Outline

from gradstarve.ground import SECTIONS, place
from gradstarve.page import figure_svg, mathml, report_page
from gradstarve.page._build import CLAIMS, short
from gradstarve.page._figures import figure_html
from gradstarve.theorems import CATALOGUE, Counterexample

LIMIT = 90.6  # percent of the overview's axis at which a gap is its tolerance


@pytest.fixture(scope="module")
def found():
    return made_up.report()


@pytest.fixture(scope="module")
def page(found):
    return report_page(found.to_dict(), made_up.figures())


@pytest.fixture(scope="module")
def outline(page):
    return Outline(page)


def test_everything_is_inside(page, outline):
    for tag, found in outline.tags:
        for name in ("src", "srcset", "action", "data", "poster", "background"):
            assert found.get(name, "data:").startswith("data:"), (tag, found)
        link = found.get("href", found.get("xlink:href", "#"))
        assert link.startswith(("#", "data:")) or (tag == "a" and link.startswith("https://")), (tag, link)
        assert tag not in ("iframe", "object", "embed", "base")
        assert not any(name.startswith("on") for name in found), "handlers belong into the scripts"
    assert "default-src 'none'" in outline.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert not re.search(r"@import|url\(\s*['\"]?(?!#|data:)|fetch\(|XMLHttpRequest|importScripts|WebSocket", page)
    assert len(page) < 6e6


def test_the_markup_is_sound(outline):
    assert not outline.errors
    ids = [found["id"] for _, found in outline.tags if "id" in found]
    assert len(ids) == len(set(ids))
    for tag, found in outline.tags:
        for name in ("for", "aria-labelledby", "aria-describedby", "aria-controls"):
            assert set(found.get(name, "").split()) <= set(ids), (tag, name, found)
        if found.get("href", "").startswith("#"):
            assert found["href"][1:] in ids, (tag, found)
    assert len(outline.all("h1")) == len(outline.all("main")) == len(outline.all("caption")) == 1
    assert all("alt" in found for found in outline.all("img"))


def test_every_theorem_is_there_with_its_numbers(page, outline, found):
    entries = [tag["id"] for tag in outline.all("tbody")]
    assert entries == list(CATALOGUE)
    stored = found.to_dict()
    chunks = dict(zip(entries, re.split(r"<tbody", page)[1:], strict=True))
    for told in stored["theorems"]:
        values = re.findall(r'<data value="([^"]*)">', chunks[told["name"]])
        keys = ("trials", "violations", "undecided", "worst_gap", "tolerance", "seconds")
        assert [float(value) for value in values] == [told[key] for key in keys]
        text = outline.text(told["name"])
        for words in (told["title"], told["claim"], *told["hypotheses"], told["why_tolerance"], told["checked_with"]):
            assert " ".join(words.split()) in text
        assert f"Worst gap {short(told['worst_gap'])} Tolerance" in text
        assert f"gradstarve verify {told['name']} --quick --seed 7" in text
        for drop in told["necessity"]:
            assert f"Left out: {drop['dropped']}. The claim fails by {short(drop['gap'])}" in text
        instance = json.dumps(told["worst_instance"]["trial"])
        assert f'"trial": {instance}' in text
    assert f"All {len(CATALOGUE)} theorems hold" in page
    assert outline.text("run").startswith("Run gradstarve verify --quick --seed 7 Copy")
    assert all(f"{key} {value}" in outline.text("run") for key, value in made_up.ENVIRONMENT.items())


def places_of_marks(page):
    """From the rules of the style sheet: the percentage of each theorem's mark."""
    return {name: float(left) for name, left in re.findall(r'\.dot\[href="#([\w-]+)"\] \{ left: ([\d.]+)%; \}', page)}


def test_the_overview_has_a_mark_for_every_theorem(page, outline, found):
    marks = [tag for tag in outline.all("a") if tag.get("class", "").startswith("dot ")]
    places = places_of_marks(page)
    assert [tag["href"][1:] for tag in marks] == list(places) == list(CATALOGUE)
    order = sorted(found.rows, key=lambda row: row.outcome.worst_gap / row.theorem.tolerance)
    told = [places[row.theorem.name] for row in order]
    assert told == sorted(told)
    assert told[-1] < LIMIT
    css = resources.files("gradstarve.page").joinpath("page.css").read_text()
    assert f".track::before {{ content: \"\"; position: absolute; left: {LIMIT}%;" in css
    bad = made_up.report([made_up.row("sign", worst=1.01)])
    worse = report_page(bad.to_dict(), {})
    assert len([tag for tag in Outline(worse).all("a") if tag.get("class") == "dot violated"]) == 1
    assert places_of_marks(worse)["sign"] > LIMIT


def test_every_formula_is_mathml(page, outline):
    assert len(outline.all("math", display="block")) == len(CATALOGUE)
    for name, entry in CATALOGUE.items():
        root = ElementTree.fromstring(mathml(entry.formula))
        assert root.tag == "{http://www.w3.org/1998/Math/MathML}math", name
        assert mathml(entry.formula) in page


@pytest.mark.parametrize(
    ("latex", "why"),
    [
        (r"\nosuch{u}", r"\\nosuch is not known"),
        (r"\frac{1}", "an argument is missing"),
        (r"\begin{aligned} a &= b \end{aligned}", "& outside of a matrix"),
        ("x_{", "cannot be shown"),
        (r"\left( x", "cannot be shown"),
        (r"\text{<script>alert(1)</script>}", "<script> is not mathematics"),
        (r"\text{<img src='x' onerror='alert(1)'/>}", "cannot be shown"),
        (r"\text{<mi onclick='alert(1)'>x</mi>}", "cannot be shown"),
        (r"\text{<x:script xmlns:x='http://www.w3.org/1999/xhtml'>alert(1)</x:script>}", "cannot be shown"),
        (r"\href{javascript:alert(1)}{x}", "is not mathematics"),
        (r"\style{color: red}{x}", "cannot be shown"),
    ],
)
def test_formulas_that_can_not_be_shown_are_refused(latex, why):
    with pytest.raises(ValueError, match=why):
        mathml(latex)


def test_every_equation_has_a_section():
    assert {place(entry.equation)[0] for entry in CATALOGUE.values()} <= set(SECTIONS)
    order = [place(entry.equation) for entry in CATALOGUE.values()]
    assert order == sorted(order)
    with pytest.raises(ValueError, match=r"got '99\.1'"):
        place("99.1")


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}"


def test_text_is_never_markup(outline):
    drop = Counterexample(HOSTILE, HOSTILE, 1.0, 1e-12, {HOSTILE: HOSTILE})
    row = made_up.row("sign", details={HOSTILE: HOSTILE})
    report = made_up.report([made_up.dataclasses.replace(row, counterexamples=(drop,))], environment={HOSTILE: HOSTILE})
    hostile = Outline(report_page(report.to_dict(), {}))
    assert not hostile.errors
    assert not hostile.all("img")
    assert len(hostile.all("script")) == len(outline.all("script"))
    assert hostile.text("run").count("<img src=x onerror=alert(1)>\"'&amp;{{ 7*7 }}") == 2
    assert hostile.text("sign").count("{{ 7*7 }}") >= 5


def test_a_violation_is_told_everywhere():
    rows = [made_up.row("balance"), made_up.row("sign", worst=3.0), made_up.row("deaths", undecided=9)]
    report = made_up.report([*rows, made_up.row("freeze", found=False)])
    page = report_page(report.to_dict(), {})
    outline = Outline(page)
    assert "<title>VIOLATED: 1 of 4 theorems is violated, 2 have no verdict · gradstarve</title>" in page
    assert '<h1 class="bad">1 of 4 theorems is violated, 2 have no verdict</h1>' in page
    assert [tag["data-verdict"] for tag in outline.all("tbody")] == ["holds", "violated", "unshown", "unshown"]
    alarm = page[page.index('role="alert"') : page.index('class="facts"')]
    assert all(f'href="#{name}"' in alarm for name in ("sign", "deaths", "freeze"))
    assert re.search(r"(\d+) of 24 trials violate it, the worst by 3e-12 \(tolerance 1e-12\)", alarm)[1] > "0"
    assert "9 of 24 trials were undecided" in alarm
    assert 'href="#balance"' not in alarm
    assert "✗ violated" in outline.text("sign")
    assert "? no verdict" in outline.text("freeze")
    assert "not found to fail" in outline.text("freeze")
    assert "gradstarve verify balance sign deaths freeze --quick --seed 7" in outline.text("run")


def test_another_run_is_told_as_it_was():
    changes = {"key_data": (3, 9), "quick": False, "trials": 50, "precision": "float32", "skipped": ("sign",)}
    report = made_up.report([made_up.row("balance", precision="float32")], environment={}, **changes)
    outline = Outline(report_page(report.to_dict(), {}))
    again = "gs.verify(['balance', 'sign'], trials=50, precision='float32', key=jax.random.wrap_key_data(jnp.array([3, 9], "
    assert again in outline.text("run")
    assert "versions not recorded" in outline.text("run")
    assert "make no statement in float32: sign" in outline.text("theorems")
    seeded = made_up.report([made_up.row("balance", precision="float32")], **{**changes, "key_data": (0, 9)})
    told = Outline(report_page(seeded.to_dict(), {})).text("balance")
    assert "gradstarve verify balance --trials 50 --precision float32 --seed 9" in told


def test_what_no_picture_needs_is_left_out_of_an_svg():
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" style="background: red" class="alarm" data-x="1">'
        '<style>* { display: none }</style><title><script>alert(1)</script></title>'
        '<rect style="fill: #ff0000; position: fixed; stroke-width: 2" class="bar" tabindex="1" x="3"/></svg>'
    )
    (root, rect) = [attributes for _, attributes in Outline(str(figure_html(svg.encode(), "sign", "label"))).tags]
    assert root["class"] == "figure"
    assert "style" not in root
    assert "data-x" not in root
    assert rect == {"fill": "#ff0000", "stroke-width": "2", "x": "3"}


@pytest.mark.parametrize(
    "content", [b"<!DOCTYPE svg [<!ENTITY a 'aaaa'>]><svg>&a;</svg>", b"<?xml version='1.0' encoding='nosuch'?><svg/>"]
)
def test_svg_with_entities_or_in_no_coding_is_refused(content):
    with pytest.raises(ValueError, match=r"entities of its own|neither a PNG nor an SVG"):
        figure_html(content, "sign", "figure")


def test_the_policy_lets_in_what_the_page_has_and_nothing_else(page, outline):
    policy = outline.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert "unsafe" not in policy
    allowed = dict(part.split(" ", 1) for part in policy.split("; "))

    def hashes(tag):
        texts = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return [f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in texts]

    assert hashes("script") == allowed["script-src"].split()
    assert len(hashes("script")) == 4
    assert hashes("style") == [allowed["style-src"]]
    assert (allowed["default-src"], allowed["img-src"], allowed["base-uri"]) == ("'none'", "data:", "'none'")
    assert not [tag for tag, attributes in outline.tags if "style" in attributes]
    assert [attributes for attributes in outline.all("script") if attributes] == [
        {"type": "application/json", "id": "curve-tables"}
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("formula", r"\text{<script>alert(1)</script>}"),
        ("title", HOSTILE),
        ("claim", HOSTILE),
        ("hypotheses", [HOSTILE]),
        ("tolerance", 1.0),
        ("why_tolerance", HOSTILE),
        ("checked_with", HOSTILE),
        ("power", HOSTILE),
        ("equation", "1.1"),
    ],
)
def test_what_the_catalogue_knows_must_be_what_it_says(name, value):
    told = made_up.report([made_up.row("sign")]).to_dict()
    told["theorems"][0][name] = value
    with pytest.raises(ValueError, match=rf"its sign states something else than the catalogue does \({name}\)"):
        report_page(told, {})


def test_in_float32_gaps_are_held_to_the_tolerance_of_float32():
    entry = CATALOGUE["sign"]
    allowed = max(entry.single_tolerance, entry.tolerance)
    row = dataclasses.replace(made_up.row("sign", precision="float32"), counterexamples=())
    told = made_up.report([row], precision="float32").to_dict()
    assert told["ok"]
    assert told["theorems"][0]["tolerance"] == allowed
    assert places_of_marks(report_page(told, {}))["sign"] < LIMIT
    with pytest.raises(ValueError, match=r"its sign states something else than the catalogue does \(tolerance\)"):
        report_page(told | {"precision": "float64"}, {})
    told["theorems"][0]["tolerance"] = entry.tolerance
    with pytest.raises(ValueError, match="sign has 0 violations with a worst gap of"):
        report_page(told | {"precision": "float64"}, {})


def test_why_nothing_is_dropped_is_printed(monkeypatch):
    why = "the one hypothesis <is> a definition"
    silent = dataclasses.replace(CATALOGUE["sign"], necessity=(), no_drop=why)
    monkeypatch.setitem(CATALOGUE, "sign", silent)
    told = made_up.report([made_up.row("sign")]).to_dict()
    assert f"Without a hypothesis None is left out: {why}." in Outline(report_page(told, {})).text("sign")
    told["theorems"][0]["no_drop"] = HOSTILE
    with pytest.raises(ValueError, match=r"its sign states something else than the catalogue does \(no_drop\)"):
        report_page(told, {})


def test_what_is_no_verification_is_refused(found):
    with pytest.raises(ValueError, match="it has no list of theorems"):
        report_page({"ok": True}, {})
    with pytest.raises(ValueError, match="the figure of sign is neither a PNG nor an SVG"):
        report_page(found.to_dict(), {"sign": b"GIF89a"})


def test_figures_take_the_colours_of_the_page(found):
    row = next(row for row in found.rows if row.theorem.name == "sign")
    svg = str(figure_html(figure_svg(row), "sign", 'a "figure"'))
    outline = Outline(svg)
    assert not outline.errors
    root = outline.all("svg")[0]
    assert root["aria-label"] == 'a "figure"'
    assert "#000000" not in svg
    assert "#ffffff" not in svg
    assert {"currentColor", "var(--line)", "var(--figure-blue)"} <= set(re.findall(r"currentColor|var\([^)]*\)", svg))
    ids = {found["id"] for _, found in outline.tags if "id" in found}
    assert all(name.startswith("sign-") for name in ids)
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg))
    assert used
    assert used <= ids
    assert figure_svg(row) == figure_svg(row)


def test_many_markers_become_an_image(found):
    row = made_up.row("finite-events", details={"falls": made_up.np.random.default_rng(0).random((5000, 2)) + 0.1})
    svg = str(figure_html(figure_svg(row), "finite-events", "figure"))
    assert "data:image/png;base64," in svg
    assert svg.count("<use") < 300


@pytest.mark.parametrize(
    ("inside", "why"),
    [
        ("<script>alert(1)</script>", "<script>"),
        ("<foreignObject><p>x</p></foreignObject>", "<foreignObject>"),
        ('<rect onclick="alert(1)"/>', "handler onclick"),
        ('<use href="https://example.org/a.svg#b"/>', "outside"),
        ('<image href="https://example.org/a.png"/>', "outside"),
        ('<rect style="fill: url(https://example.org/a)"/>', "outside"),
        ('<rect style="fill: URL( https://example.org/a)"/>', "outside"),
        ('<rect fill="u\\72l(https://example.org/a)"/>', "outside"),
        ('<rect fill="url(#a) url(https://example.org/a)"/>', "outside"),
        ('<rect style="stroke: image-set(\'https://example.org/a\')"/>', "outside"),
        ('<image href="data:text/html,x"/>', "outside"),
        ('<image href="data:image/svg+xml;base64,PHN2Zz4="/>', "outside"),
        ('<rect ONCLICK="alert(1)"/>', "handler ONCLICK"),
        ('<animate attributeName="href" to="javascript:alert(1)"/>', "<animate>"),
        ('<set attributeName="onload" to="alert(1)"/>', "<set>"),
        ('<h:img xmlns:h="http://www.w3.org/1999/xhtml" src="x" onerror="alert(1)"/>', "<img>"),
        ('<path d="M 0 0 &quot;&gt;&lt;script&gt;"/>', "with d="),
        ("<g>" * 5000 + "</g>" * 5000, "without end"),
        ('<a href="javascript:alert(1)"><path/></a>', "<a>"),
    ],
)
def test_svg_that_is_more_than_a_picture_is_refused(inside, why):
    svg = f'<svg xmlns="http://www.w3.org/2000/svg">{inside}</svg>'
    with pytest.raises(ValueError, match=why):
        figure_html(svg.encode(), "sign", "figure")


def test_every_law_stands_with_one_claim_of_the_paper_or_beyond_it():
    sections = [section for _, _, _, some in CLAIMS for section in some]
    assert len(sections) == len(set(sections))
    assert set(sections) < set(SECTIONS)
    assert {name for _, about, shown, _ in CLAIMS for name in (about, *shown)} <= set(CATALOGUE)
    assert all(CATALOGUE[about].meaning for _, about, _, _ in CLAIMS)
