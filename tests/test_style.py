"""Figures: one style sheet, colours for the colour-blind, vectors with their text as text, files complete or absent."""

import itertools
import re
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

import gradstarve
from gradstarve.ground import style

PACKAGE = Path(gradstarve.__file__).parent

# Machado, Oliveira and Fernandes 2009, severity 1: linear RGB as it looks to who lacks a kind of cone.
SEEN = {
    "normal": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, eyes):
    """CIE L*a*b* (D65) of a colour as those eyes see it; distances of 2 are just seen when side by side."""
    srgb = np.array(mpl.colors.to_rgb(colour))
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    linear = np.clip(np.array(SEEN[eyes]) @ linear, 0, 1)
    to_xyz = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
    t = np.array(to_xyz) @ linear / [0.95047, 1.0, 1.08883]
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def nearest(colours, eyes):
    return min(np.linalg.norm(lab(a, eyes) - lab(b, eyes)) for a, b in itertools.combinations(colours, 2))


@pytest.mark.parametrize("eyes", SEEN)
def test_colours_used_together_are_told_apart(eyes):
    for colours in (style.COLOURS, style.FILLS, style.DARK, (*style.LIGHT, style.SHADE, "white")):
        assert nearest(colours, eyes) > 15
    # The two classes, in every figure of two classes.
    assert nearest(style.COLOURS[:2], eyes) > 80
    # Lines stand out from the white ground, all but the grid.
    for colour in (*style.COLOURS, *style.DARK, style.INK, style.NOTE, style.GUIDE):
        assert np.linalg.norm(lab(colour, eyes) - lab("white", eyes)) > 30


def test_the_measure_would_notice():
    assert nearest(("#2ca02c", "#d62728"), "deuteranopia") < 15 < nearest(("#2ca02c", "#d62728"), "normal")


@pytest.mark.parametrize("eyes", SEEN)
def test_colour_maps_are_read_by_lightness(eyes):
    for name in (style.MAP, style.ORDERED, "Blues", "Oranges"):
        lightness = [lab(mpl.colormaps[name](x), eyes)[0] for x in np.linspace(0, 1, 24)]
        assert (np.diff(lightness) < 0).all(), name
    signed = [lab(style.signed_map()(x), eyes) for x in np.linspace(0, 1, 25)]
    assert np.argmax([colour[0] for colour in signed]) == 12
    assert all(np.linalg.norm(signed[i] - signed[24 - i]) > 20 for i in range(9))


def test_no_figure_has_colours_sizes_or_files_of_its_own():
    colours = r"""["']#[0-9A-Fa-f]{3,8}["']|tab:|["']C\d["']|jet|rainbow"""
    stray = re.compile(colours + r"|savefig\(|rc_context|rcParams|pyplot|\bdpi=")
    own = {"_style.py", "_figures.py"}  # the page redraws figures for its light and its dark side
    found = {
        f"{path.relative_to(PACKAGE)}: {line.strip()}"
        for path in PACKAGE.rglob("*.py")
        if path.name not in own
        for line in path.read_text(encoding="utf-8").splitlines()
        if stray.search(line) and not line.strip().startswith(("#", '"""'))
    }
    assert not found


def figure():
    with style.sheet():
        drawn = style.new_figure(3, 2)
        drawn.add_subplot().plot([0, 1], [1, 0])
        drawn.axes[0].plot([0.2, 0.8], [0.8, 0.2], "o")
        drawn.axes[0].set_xlabel("time to learn")
    return drawn


def test_the_sheet_is_put_away_again():
    before = dict(mpl.rcParams)
    assert figure().axes[0].lines[0].get_color() == style.COLOURS[0]
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize("kind", style.FORMATS)
def test_files_of_every_kind(kind, tmp_path):
    path = style.save(figure(), tmp_path / f"curve.{kind}")
    content = path.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF", "gif": b"GIF89a"}[kind])
    if kind == "svg":
        assert re.search(rb"<text[^>]*>time to learn</text>", content)
    if kind == "pdf":
        assert b"/FontFile2" in content  # TrueType, whose text can be searched and edited; Type 3 is outlines
        assert b"/Type3" not in content
    assert style.save(figure(), tmp_path / f"again.{kind}").read_bytes() == content


@pytest.mark.parametrize("name", ["curve.jpeg", "curve", "curve.png.gz", "svg"])
def test_other_endings_are_refused(name, tmp_path):
    message = f".png, .svg, .pdf or .gif by the end of its path, got '{tmp_path / name}'"
    with pytest.raises(ValueError, match=re.escape(message)):
        style.save(figure(), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"there is no directory .*new.* make it first"):
        style.save(figure(), tmp_path / "new" / "curve.png")


def test_stopped_while_drawing_leaves_what_was_there(tmp_path):
    path = tmp_path / "curve.png"
    path.write_bytes(b"before")
    drawn = figure()

    def stopped(part, **_):
        Path(part).write_bytes(b"half")
        raise KeyboardInterrupt

    drawn.savefig = stopped
    with pytest.raises(KeyboardInterrupt):
        style.save(drawn, path)
    assert path.read_bytes() == b"before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["curve.png"]
