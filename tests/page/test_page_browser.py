"""The page in Chromium, opened from disk: it sorts, filters, opens, changes sides, copies, and fits a phone."""

import importlib.util
import json
import math
from pathlib import Path

import made_up
import pytest
from browser import missing, until, visit

from gradstarve.ground import place
from gradstarve.page import report_page
from gradstarve.theorems import CATALOGUE

ALL = len(CATALOGUE)
BAD = {"freeze": {"worst": 2.0}, "tails": {"undecided": 9}}


@pytest.fixture(scope="module")
def rows():
    """Made-up rows with ties, a violation, an undecided one, and a gap that is no number."""
    usual = [{"worst": 0.01 * (i % 7 + 1), "trials": 24 + i % 5} for i in range(len(CATALOGUE))]
    rows = [made_up.row(name, **(numbers | BAD.get(name, {}))) for name, numbers in zip(CATALOGUE, usual, strict=True)]
    return made_up.report(rows).to_dict()["theorems"]


@pytest.fixture(scope="module")
def path(tmp_path_factory, rows):
    verification = made_up.report().to_dict() | {"theorems": rows, "ok": False}
    rows[-1]["worst_gap"] = "nan"
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(report_page(verification, made_up.figures()))
    return path


@pytest.fixture(scope="module")
def page(chromium, path):
    """One window for the tests that only read or put back what they change."""
    with visit(chromium, path) as page:
        yield page


def order(page):
    return page.eval_on_selector_all("tbody", "all => all.map(one => one.id)")


def shown(page):
    return page.eval_on_selector_all("tbody:not([hidden])", "all => all.map(one => one.id)")


KEYS = {
    "theorem": lambda row: row["name"],
    "eq.": lambda row: place(row["equation"]),
    "verdict": lambda row: 2 if row["ok"] else 0 if row["violations"] else 1,
    "trials": lambda row: row["trials"],
    "violations": lambda row: row["violations"],
    "undecided": lambda row: row["undecided"],
    "worst gap": lambda row: float(row["worst_gap"]),
    "tolerance": lambda row: row["tolerance"],
    "without a hypothesis": lambda row: min((drop["gap"] for drop in row["necessity"]), default=math.nan),
    "seconds": lambda row: row["seconds"],
}


PRESS = """(column) => {
  const header = document.querySelectorAll("thead th")[column];
  header.querySelector("button").click();
  const sorted = [...document.querySelectorAll("th[aria-sort]")];
  return [sorted.length === 1 && sorted[0] === header, header.getAttribute("aria-sort"),
          [...document.querySelectorAll("tbody")].map((one) => one.id)];
}"""


def test_every_column_sorts_both_ways(page, rows):
    headers = page.eval_on_selector_all("thead th", "all => all.map(one => one.textContent.trim())")
    assert headers == list(KEYS)
    assert page.locator("th[aria-sort]").inner_text() == "eq."
    numbers = {row["name"]: row for row in rows}
    for column, key in enumerate(KEYS.values()):
        ways = set()
        for _ in range(2):
            alone, way, names = page.evaluate(PRESS, column)
            ways.add(way)
            assert alone, "another column still says that it is sorted by"
            values = [key(numbers[name]) for name in names]
            told = [value for value in values if value == value]
            assert told == sorted(told, reverse=way == "descending")
            assert all(value != value for value in values[len(told) :]), "NaN comes last"
            assert sorted(names) == sorted(CATALOGUE)
        assert ways == {"ascending", "descending"}
    button = page.get_by_role("columnheader", name="theorem", exact=True).get_by_role("button")
    button.press("Enter")
    assert order(page) == sorted(CATALOGUE)
    assert page.locator("#told").inner_text() == "Sorted by theorem, smallest first"


def test_filters(page):
    search, count = page.get_by_role("searchbox", name="Search"), page.locator("#shown")
    try:
        search.fill("HINGE margin")
        found = shown(page)
        assert {"hinge", "hinge-max-margin"} <= set(found)
        assert "softmax" not in found
        assert count.inner_text() == f"{len(found)} of {ALL} shown"
        search.fill("3.1-3.5")
        assert shown(page) == ["clock"]
        search.fill("")
        page.get_by_label("Section").select_option("10")
        assert shown(page) == [name for name in order(page) if CATALOGUE[name].equation.startswith("10.")]
        page.get_by_label("Verdict").select_option("violated")
        assert shown(page) == ["freeze"]
        page.get_by_label("Section").select_option("")
        page.get_by_label("Verdict").select_option("unshown")
        assert shown(page) == ["tails"]
        search.fill("no such theorem")
        assert page.locator("#nothing").is_visible()
        assert not page.locator("#table").is_visible()
    finally:
        search.fill("no such theorem")
        page.get_by_role("button", name="Show all").click()
    assert len(shown(page)) == ALL
    assert count.inner_text() == f"{ALL} of {ALL} shown"


def test_the_violation_is_seen_first(page):
    assert page.title().startswith(f"VIOLATED: 1 of {ALL}")
    assert page.get_by_role("heading", level=1).inner_text() == f"1 of {ALL} theorems is violated, 1 has no verdict"
    page.evaluate("scrollTo(0, 0)")
    alarm = page.get_by_role("alert")
    box = alarm.bounding_box()
    assert 0 < box["y"] < 500
    assert "freeze" in alarm.inner_text()
    alarm.get_by_role("link", name="freeze").click()
    assert page.locator("#freeze details").first.evaluate("one => one.open")
    until(page, "Math.abs(document.getElementById('freeze').getBoundingClientRect().top - 64) < 2")  # below the bar


def test_an_entry_opens_by_keyboard(page):
    summary = page.locator("#sign > .more summary").first
    body = page.locator("#sign .body")
    assert not body.is_visible()
    summary.focus()
    page.keyboard.press("Enter")
    assert body.is_visible()
    assert page.locator("#sign math").bounding_box()["width"] > 50
    assert page.locator("#sign svg.figure").bounding_box()["width"] > 300
    page.keyboard.press("Tab")
    focused = page.evaluate("document.activeElement.className")
    assert focused == "formula"
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    summary.focus()
    page.keyboard.press("Space")
    assert not body.is_visible()


def test_open_all_and_close_all(page):
    page.get_by_role("button", name="Open all").click()
    assert page.locator("details:not(.data):not([open]) >> css=.body").count() == 0
    assert page.locator("#softmax .body").is_visible()
    page.get_by_role("button", name="Close all").click()
    assert not page.locator("#softmax .body").is_visible()


def test_the_tab_key_reaches_everything_from_the_top(chromium, path):
    with visit(chromium, path) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Skip to the theorems"
        assert page.locator(".skip").bounding_box()["x"] >= 0
        seen = []
        for _ in range(200):  # the links of the claims and the explorer come before the table
            page.keyboard.press("Tab")
            seen.append(page.evaluate("(document.activeElement.textContent || document.activeElement.id).trim()"))
        assert {"Explorer", "Dark", "search", "theorem", "seconds"} <= set(seen)
        assert page.locator("html").get_attribute("lang") == "en"


@pytest.mark.parametrize("width", [pytest.param(1280, marks=pytest.mark.slow), 390])
def test_axe_finds_nothing(chromium, path, width):
    if importlib.util.find_spec("axe_playwright_python") is None:
        missing("the rules of axe are not installed: pip install '.[browser]'")
    import axe_playwright_python as axe

    with visit(chromium, path, width=width) as page:
        for name in ("sign", "freeze"):
            page.evaluate(f"document.querySelector('#{name} details').open = true")
        page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
        found = page.evaluate("axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21aa', 'wcag22aa', 'best-practice']})")
        assert [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in found["violations"]] == []
        assert len(found["passes"]) > 20


def ground(page):
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


def test_the_sides(chromium, path):
    with visit(chromium, path, scheme="dark") as page:
        assert ground(page) == "rgb(20, 23, 28)"
        page.get_by_role("button", name="Switch to the light side").press("Enter")
        assert ground(page) == "rgb(255, 255, 255)"
        page.reload()
        assert ground(page) == "rgb(255, 255, 255)", "it is remembered"
        page.get_by_role("button", name="Switch to the dark side").click()
        assert ground(page) == "rgb(20, 23, 28)"
        page.evaluate("location.hash = '#balance'")
        svg = page.locator("#balance svg.figure")
        assert svg.evaluate("one => getComputedStyle(one).fill") == "rgb(230, 232, 235)"
        page.emulate_media(media="print")
        assert ground(page) == "rgb(255, 255, 255)", "paper is white"
        assert not page.locator(".bar").is_visible()


def test_the_address_opens_a_theorem_that_was_filtered_out(page):
    page.get_by_role("searchbox", name="Search").fill("softmax")
    page.evaluate("location.hash = '#depth'")
    page.wait_for_selector("#depth .body", state="visible")
    assert len(shown(page)) == ALL
    page.locator("#depth .line .name").click()
    assert not page.locator("#depth .body").is_visible()


def test_commands_are_copied(chromium, path):
    with visit(chromium, path, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.get_by_role("button", name="Copy the command of this run").click()
        until(page, "document.getElementById('told').textContent === 'Copied'")
        assert page.evaluate("navigator.clipboard.readText()") == "gradstarve verify --quick --seed 7"
    with visit(chromium, path) as page:
        page.evaluate("Object.defineProperty(navigator, 'clipboard', {value: undefined})")
        page.get_by_role("button", name="Copy the command of this run").click()
        assert page.evaluate("String(getSelection())") == "gradstarve verify --quick --seed 7"


def test_a_phone(chromium, path):
    with visit(chromium, path, width=390, height=844, has_touch=True, is_mobile=True) as page:
        page.get_by_role("button", name="Open all").tap()
        for summary in page.locator("#sign details.data summary").all():
            summary.click()
        wide = "[...document.querySelectorAll('main *')].filter(one => one.getBoundingClientRect().right > 391)"
        inside = f"{wide}.filter(one => !one.closest('.formula, pre, svg, .hidden')).map(one => one.outerHTML.slice(0, 90))"
        assert page.evaluate(inside) == []
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate("innerWidth") == 390
        # What a screen reader takes the cards for is still a table.
        assert page.get_by_role("row").count() == 1 + 2 * ALL
        assert page.get_by_role("rowheader", name="softmax", exact=True).count() == 1
        small = "[...document.querySelectorAll('main button, main select, main summary')].filter(one => one.offsetParent"
        assert page.evaluate(f"{small} && one.getBoundingClientRect().height < 24).map(one => one.outerHTML)") == []


def test_it_is_read_without_scripts(chromium, path):
    with visit(chromium, path, java_script_enabled=False) as page:
        assert not page.locator("#filters").is_visible()
        page.locator("#sign > .more summary").first.click()
        assert page.locator("#sign .body").is_visible()
        assert "VIOLATED" in page.title()


def test_the_numbers_are_those_of_the_verification(page, rows):
    told = page.eval_on_selector_all("tbody", "all => all.map(one => [one.id, one.querySelector('.worst data').value])")
    assert {name: value for name, value in told} == {row["name"]: json.dumps(row["worst_gap"]).strip('"') for row in rows}


INJECTED = "<img src=x onerror='window.struck = 1'><script>window.struck = 1</script>"


def test_what_a_foreign_run_says_does_not_run(chromium, tmp_path):
    """Every text that the catalogue does not know is markup here; with it comes a figure full of handlers."""
    told = made_up.report([made_up.row("sign", details={INJECTED: INJECTED})], environment={INJECTED: INJECTED}).to_dict()
    row = told["theorems"][0]
    row["worst_instance"] = {INJECTED: [INJECTED]}
    row["necessity"] = [
        dict.fromkeys(("dropped", "failure"), INJECTED)
        | {"numbers": {INJECTED: INJECTED}, "found": True, "gap": 1.0, "tolerance": 0.5}
    ]
    path = tmp_path / "report.html"
    path.write_text(report_page(told, made_up.figures()), encoding="utf-8")
    with visit(chromium, path) as page:
        page.get_by_role("button", name="Open all").click()
        assert page.evaluate("window.struck") is None
        assert page.locator("img").count() == 0
        assert page.locator("#run").inner_text().count(INJECTED) == 2


@pytest.mark.parametrize(
    "markup",
    [
        "<script>window.struck = 1</script>",
        '<img src="x" onerror="window.struck = 1">',
        '<svg><animate onbegin="window.struck = 1" attributeName="x" dur="1s"/></svg>',
        '<iframe srcdoc="<script>parent.struck = 1</script>"></iframe>',
        '<a id="there" href="javascript:window.struck = 1">there</a>',
        '<p style="color: rgb(1, 2, 3)" id="styled">x</p>',
        "<style>h1 { color: rgb(1, 2, 3) }</style>",
    ],
)
def test_the_policy_holds_even_where_markup_got_in(chromium, tmp_path, markup):
    """Beside the escaping, which is tried above: scripts, handlers and styles that the page's policy does not name."""
    content = report_page(made_up.report([made_up.row("sign")]).to_dict(), {})
    path = tmp_path / "report.html"
    path.write_text(content.replace("<main>", f"<main>{markup}"), encoding="utf-8")
    context = chromium.new_context()
    page = context.new_page()
    refused = []
    page.on("console", lambda message: refused.append(message.text))
    try:
        page.goto(path.resolve().as_uri())
        if page.locator("#there").count():
            page.locator("#there").click()
        page.wait_for_timeout(60)
        assert page.evaluate("window.struck") is None
        assert page.evaluate("getComputedStyle(document.querySelector('#styled, h1')).color") != "rgb(1, 2, 3)"
        assert any("Content Security Policy" in text for text in refused), refused
        assert page.locator("#filters").is_visible()  # the page's own scripts do run
    finally:
        context.close()
