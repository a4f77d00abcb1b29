"""The explorer in a browser: whatever the sliders are set to, its curves are those of the library."""

import copy
import json
import re
from importlib import resources
from pathlib import Path

import made_up
import numpy as np
import pytest
from browser import visit

import gradstarve as gs
from gradstarve.page import explorer_data, report_page
from gradstarve.page._curves import RANGES

DATA = explorer_data()
LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
DEAR = {"exponential", "squared"}
ALL_LOSSES = [pytest.param(loss, marks=pytest.mark.slow) if loss in DEAR else loss for loss in LOSSES]
COLOURS = "--paper:#fff;--ink:#111;--muted:#555;--line:#ccc;--card:#eee;--accent:#00f;--accent-2:#f80;--good:#080;--bad:#c00"


def write(folder, data=DATA):
    """A page that has the explorer in it and nothing else."""
    css, html, clock, view = (
        (resources.files("gradstarve.page") / name).read_text(encoding="utf-8")
        for name in ("explorer.css", "explorer.html", "clock.js", "explorer.js")
    )
    path = folder / "page.html"
    path.write_text(
        f"<!doctype html><html lang=en><meta charset=utf-8><title>t</title><link rel=icon href='data:,'>"
        f"<meta name=viewport content='width=device-width'><style>:root{{{COLOURS}}}{css}</style>{html}"
        f"<script type='application/json' id='curve-tables'>{json.dumps(data)}</script>"
        f"<script>{clock}</script><script>{view}</script>",
        encoding="utf-8",
    )
    return path


def random_settings(count, seed):
    """p, r, a, z: all sizes of each, one in two on an edge: z = ±a and next to it, z = 0, a start near 1, all at an end."""
    rng = np.random.default_rng(seed)

    def sizes(low, high):
        return np.exp(rng.uniform(np.log(low), np.log(high), count))

    p, r, a = (sizes(*RANGES[name]) for name in ("frequency", "norm", "a"))
    sign = rng.choice([-1.0, 1.0], count)
    z = np.where(rng.random(count) < 0.5, rng.uniform(*RANGES["z"], count), sign * sizes(1e-4, RANGES["z"][1]))
    near = a * (1 + rng.choice([-1.0, 1.0], count) * 10 ** rng.uniform(-9, -1, count))
    kind = rng.integers(0, 12, count)
    z = np.choose(np.minimum(kind, 4), [sign * a, sign * near, (1 + rng.uniform(-0.2, 0.2, count)) / (r * a), 0 * a, z])
    z = np.clip(z, *RANGES["z"])
    end = kind == 5
    ends = [np.where(rng.random(count) < 0.5, low, high) for low, high in RANGES.values()]
    return [np.where(end, there, value) for there, value in zip(ends, (p, r, a, z), strict=True)]


def as_objects(p, r, a, z, loss):
    names = ("frequency", "norm", "a", "z")
    return [dict(zip(names, map(float, one), strict=True), loss=loss) for one in zip(p, r, a, z, strict=True)]


def gaps(page, count, times, loss, seed):
    """Worst gap of margin, of error, and of the times at which neurons leave (relative), over random settings."""
    drawn = random_settings(count, seed)
    solution = gs.solve_mode(gs.Mode(drawn[0], drawn[1], drawn[2][:, None], drawn[3][:, None]), loss)
    want, leaves = np.asarray(solution.logit(times)), np.asarray(solution.events)[:, 0]
    found = page.evaluate(
        """([settings, times]) => settings.map(
            (s) => [gradstarveExplorer.logit(s, times), String(gradstarveExplorer.leaves(s))])""",
        [as_objects(*drawn, loss), times.tolist()],
    )
    got, gone = np.array([one[0] for one in found], float), np.array([float(one[1]) for one in found])
    assert np.isfinite(got).all()
    np.testing.assert_array_equal(np.isfinite(gone), np.isfinite(leaves))
    assert np.isfinite(gone).any()
    assert not np.isfinite(gone).all()
    late = np.isfinite(gone)
    error = np.abs(1 / (1 + np.exp(got)) - 1 / (1 + np.exp(want)))
    return np.abs(got - want).max(), error.max(), np.abs(gone[late] / leaves[late] - 1).max()


TIMES = np.concatenate([[0.0], 10.0 ** np.array([-3, -1, 0, 1, 2, 4])])


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_any_setting_gives_the_margin_of_the_library(chromium, tmp_path, loss, x64):
    with visit(chromium, write(tmp_path)) as page:
        margin, error, left = gaps(page, 240, TIMES, loss, seed=1)
    assert margin < 1e-6
    assert error < 1e-6
    assert left < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_many_settings_give_what_the_library_gives(chromium, tmp_path, loss, x64):
    times = np.concatenate([[0.0], 10.0 ** np.linspace(-9, 9, 37), [1e15, 1e60, 1e280]])
    with visit(chromium, write(tmp_path)) as page:
        margin, error, left = gaps(page, 4000, times, loss, seed=2)
        print(f"{loss}: worst gap of the margin {margin:.1e}, of the error {error:.1e}, of leaving {left:.1e}")
        assert max(margin, error, left) < 1e-6
        p, r, a, z = random_settings(1500, seed=3)
        found = page.evaluate("(all) => all.map(gradstarveExplorer.inflections)", as_objects(p, r, a, z, loss))
        bends = np.asarray(gs.solve_mode(gs.Mode(p, r, a[:, None], z[:, None]), loss).inflections())
        for one, expected in zip(found, bends, strict=True):
            np.testing.assert_allclose(one, expected[np.isfinite(expected)], rtol=1e-5, atol=1e-9)


def test_tables_that_are_off_would_be_noticed(chromium, tmp_path, x64):
    data = copy.deepcopy(DATA)
    data["tables"]["above"] = [[value * 1.02 for value in row] for row in data["tables"]["above"]]
    with visit(chromium, write(tmp_path, data)) as page:
        margin, error, _ = gaps(page, 240, TIMES, "cross-entropy", seed=1)
    assert margin > 1e-3
    assert error > 1e-3


def choose(page, value):
    page.locator(f"#explorer input[value={value}]").click()


def drawn_curve(page, plot, name="ex-curve"):
    """(times, values) of a path in a plot, from the coordinates of its points and the box of its axes; linear time."""
    find = "(svg, name) => [svg.querySelector('.' + name).getAttribute('d'), Object.entries(svg.dataset)]"
    path, box = page.eval_on_selector(f"#{plot}", find, name)
    box = {key: float(value) for key, value in box}
    points = np.array([[float(x) for x in re.findall(r"[-\d.]+", pair)] for pair in re.split("[ML]", path)[1:]])
    times = (points[:, 0] - box["left"]) / (box["right"] - box["left"]) * box["end"]
    share = (box["bottom"] - points[:, 1]) / (box["bottom"] - box["top"])
    return times, box["low"] + share * (box["high"] - box["low"]), box["high"] - box["low"]


def test_a_slider_moved_by_keys_moves_the_curve(chromium, tmp_path, x64):
    """On the page as `gradstarve report` writes it."""
    path = tmp_path / "report.html"
    path.write_text(report_page(made_up.report().to_dict(), {}), encoding="utf-8")
    with visit(chromium, path) as page:
        choose(page, "hinge")
        page.locator("#ex-frequency").focus()
        for key in ("Home", *["ArrowRight"] * 30):
            page.keyboard.press(key)
        page.locator("#ex-z").focus()
        for key in ("ArrowLeft", "PageUp"):
            page.keyboard.press(key)
        p, z = (float(page.input_value(f"#ex-{name}-number")) for name in ("frequency", "z"))
        assert 0.01 < p < 0.1
        assert z not in (0.1, 0.0)
        times, margins, height = drawn_curve(page, "ex-margin")
        solution = gs.solve_mode(gs.Mode(p, 1.0, [0.1], [z]), "hinge")
        want = np.asarray(solution.logit(times))
        assert len(times) > 300
        assert float(solution.time_to_logit(1.0)) < times[-1]  # the whole curve is seen
        assert np.abs(margins - want).max() < 1e-3 * height
        _, errors, height = drawn_curve(page, "ex-error")
        assert np.abs(errors - 1 / (1 + np.exp(want))).max() < 1e-3 * height
        # What is written under the plot, and what the Python lines say, is one number.
        lines = page.inner_text("#ex-python").splitlines()
        space = {}
        exec("\n".join([*lines[:-1], f"value = float({lines[-1]})"]), space)
        told = page.inner_text("#ex-values").split("margin ")[1].split(",")[0]
        assert float(told) == pytest.approx(space["value"], abs=1e-3)


def test_what_is_drawn_is_what_the_page_computes(chromium, tmp_path):
    """For every loss, with learners, leavers, and those that do neither."""
    with visit(chromium, write(tmp_path)) as page:
        for loss in LOSSES:
            choose(page, loss)
            for start in ("rich", "lazy", "leaves", "edge"):
                page.locator("#explorer button", has_text=start).click()
                state = {name: float(page.input_value(f"#ex-{name}-number")) for name in ("frequency", "norm", "a", "z")}
                times, margins, height = drawn_curve(page, "ex-margin")
                want = page.evaluate("([s, t]) => gradstarveExplorer.logit(s, t)", [state | {"loss": loss}, times.tolist()])
                assert np.abs(margins - np.array(want)).max() < 2e-3 * height, (loss, start)
                fate = {"leaves": "leaves at t = ", "edge": "never leaves"}.get(start, "learns")
                assert page.inner_text("#ex-fate").startswith(fate), (loss, start)


def test_pin_share_and_refuse(chromium, tmp_path):
    path = write(tmp_path)
    with visit(chromium, path) as page:
        assert page.locator(".ex-curve-pin").count() == 0
        page.locator("#ex-pin").click()
        page.fill("#ex-norm-number", "2.5")
        before, after = (drawn_curve(page, "ex-error", name) for name in ("ex-curve-pin", "ex-curve"))
        assert after[1][150] < before[1][150] - 0.01  # a larger norm learns sooner
        assert page.inner_text("#ex-key-pin") == "pinned: r = 1"
        # What cannot be is refused in words, and the curve stays.
        page.fill("#ex-a-number", "7")
        assert page.inner_text("#ex-trouble") == "a must be a number between 0.001 and 2."
        assert page.get_attribute("#ex-a-number", "aria-invalid") == "true"
        page.locator("#ex-a-number").blur()
        assert page.input_value("#ex-a-number") == "0.1"
        choose(page, "log")
        page.wait_for_function("location.hash.includes('axis=log')")
        address = page.evaluate("location.hash")
        facts, drawn = page.inner_text(".ex-details"), page.get_attribute("#ex-error .ex-curve-pin", "d")
        page.goto("about:blank")
        page.goto(path.resolve().as_uri() + address)
        assert page.inner_text(".ex-details") == facts
        assert page.get_attribute("#ex-error .ex-curve-pin", "d") == drawn
        page.locator("#ex-unpin").click()
        assert page.locator(".ex-curve-pin").count() == 0
        page.evaluate("location.hash = '#explorer?a=-3&loss=hinge'")
        page.wait_for_function("!document.getElementById('ex-trouble').hidden")
        assert "a must be between 0.001 and 2, got -3" in page.inner_text("#ex-trouble")


def test_a_phone_has_it_in_one_column(chromium, tmp_path):
    with visit(chromium, write(tmp_path), width=390, height=844, has_touch=True, is_mobile=True) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator("#ex-margin").is_hidden()
        page.locator("#explorer input[value=margin]").tap()
        assert page.locator("#ex-margin").is_visible()
        for control in page.locator("#explorer :is(button, input[type=range], input[type=number])").all():
            assert not control.is_visible() or control.bounding_box()["height"] >= 43  # a fingertip
        page.evaluate("document.getElementById('ex-z').scrollIntoView()")
        box = page.locator("#ex-margin").bounding_box()
        assert box["y"] >= 0  # the plot stays in sight of the sliders
        page.touchscreen.tap(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
        assert int(page.input_value("#ex-time")) > 400


def test_colours_are_those_of_the_page():
    for name in ("explorer.css", "explorer.html", "explorer.js"):
        text = (resources.files("gradstarve.page") / name).read_text(encoding="utf-8")
        assert not re.search(r"#[0-9a-fA-F]{3,8}\b|rgb|hsl", text), name


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_a_rare_feature_beside_a_frequent_one_is_that_of_the_library(chromium, tmp_path, loss, x64):
    """(10.1) with a balanced neuron for each feature, frequent and rare, against `theory.feature_flow`."""
    times = np.linspace(0, 60, 13)
    rare, start = 0.2, 0.05
    flow = gs.theory.feature_flow([[1, 0], [1, 1]], [1 - rare, rare], loss, depth=2, init=[start**2, start**2])
    settings = {"frequency": 1 - rare, "norm": 1.0, "a": start, "z": start, "loss": loss}
    with visit(chromium, write(tmp_path)) as page:
        found = page.evaluate("([s, rare, t]) => gradstarveExplorer.pair(s, rare, t)", [settings, rare, times.tolist()])
    np.testing.assert_allclose(found, np.asarray(flow.features(times)), atol=1e-5)


@pytest.mark.parametrize("loss", ALL_LOSSES)
def test_steps_are_those_of_descent(chromium, tmp_path, loss, x64):
    for a, z in ((0.3, 0.1), (0.2, -0.15), (0.2, -0.4)):
        settings = {"frequency": 0.7, "norm": 1.5, "a": a, "z": z, "loss": loss}
        with visit(chromium, write(tmp_path)) as page:
            found = page.evaluate("(s) => gradstarveExplorer.descent(s, 0.3, 40)", settings)
        law = gs.solve_mode(gs.Mode(0.7, 1.5, [a], [z]), loss, gs.GradientDescent(0.3)).logit(np.arange(41))
        np.testing.assert_allclose(found, np.asarray(law), atol=1e-9)


def test_what_stands_beside_the_curve_can_be_chosen_shared_and_downloaded(chromium, tmp_path):
    path = write(tmp_path)
    with visit(chromium, path, accept_downloads=True) as page:
        assert page.locator("#explorer .ex-curve-1").count() == 0
        page.locator("label:has(input[name=ex-beside][value=class])").click()
        assert page.locator("#ex-error .ex-curve-1").count() == 1
        page.locator("#ex-other-number").fill("2")
        assert "r = 2" in page.locator("#ex-key-others").inner_text()
        page.locator("label:has(input[name=ex-beside][value=feature])").click()
        assert page.locator("#ex-error path[class^=ex-curve-]").count() == 3
        page.locator("#ex-step-number").fill("3")
        assert page.locator("#ex-error .ex-step").count() > 3
        page.locator("#ex-step-number").fill("-1")
        assert page.locator("#ex-trouble").is_visible()
        page.locator("#ex-step-number").fill("3")
        page.wait_for_timeout(400)
        shared = page.evaluate("location.hash")
        assert "beside=feature" in shared
        assert "step=3" in shared
        with page.expect_download() as download:
            page.locator("#ex-download").click()
        head, *rows = Path(download.value.path()).read_text().splitlines()
    assert head.startswith('t,"margin","error","margin, frequent feature; in all samples","error, frequent feature')
    assert head.count('"margin') == 4
    numbers = np.array([row.split(",") for row in rows], float)
    assert numbers.shape[1] == 9
    np.testing.assert_allclose(numbers[:, 2], 1 / (1 + np.exp(numbers[:, 1])), atol=1e-12)
