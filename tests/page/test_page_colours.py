"""The two sides of the page: the same names in both, and contrasts that WCAG 2 asks for at level AA."""

import re
from importlib import resources

import pytest

CSS = resources.files("gradstarve.page").joinpath("page.css").read_text()
BLOCK = re.compile(r"(:root[^{]*)\{([^}]*)\}")


def variables(block):
    return dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6});", block))


LIGHT, SYSTEM_DARK, CHOSEN_DARK = (variables(block) for _, block in BLOCK.findall(CSS))

TEXT = [("--ink", "--paper"), ("--ink", "--card"), ("--ink", "--bad-card"), ("--muted", "--paper"), ("--muted", "--card")]
TEXT += [("--muted", "--bad-card"), ("--bad", "--bad-card"), ("--bad", "--paper"), ("--bad", "--card")]
TEXT += [(name, ground) for name in ("--accent", "--accent-2", "--good") for ground in ("--paper", "--card")]
PARTS = [("--figure-blue", "--card"), ("--accent", "--bad-card")]  # lines and outlines


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first, second):
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_the_standard():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


def test_both_dark_sides_are_one():
    assert SYSTEM_DARK == CHOSEN_DARK
    assert set(SYSTEM_DARK) == set(LIGHT)
    assert set(re.findall(r"var\((--[\w-]+)\)", CSS)) <= {*LIGHT, "--ground"}


@pytest.mark.parametrize("side", [LIGHT, SYSTEM_DARK], ids=["light", "dark"])
def test_contrasts(side):
    worst = {pair: contrast(side[pair[0]], side[pair[1]]) for pair in TEXT}
    assert min(worst.values()) >= 4.5, worst
    assert all(contrast(side[first], side[second]) >= 3 for first, second in PARTS)
