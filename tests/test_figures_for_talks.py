"""Moving pictures and figures with other words: what stands, what appears, and when."""

import io

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import gradstarve as gs
from gradstarve.ground import style


def figure():
    """A law (black line) and training (red markers) on the left, a map on the right."""
    drawn = Figure(figsize=(4, 2), dpi=100)
    left, right = drawn.subplots(1, 2)
    left.plot([0, 1], [0, 1], color="black", linewidth=3)
    left.plot(np.linspace(0, 1, 11), np.full(11, 0.5), "s", color="red", label="trained")
    right.imshow(np.zeros((4, 4)), cmap="winter", extent=(0, 1, 0, 1))
    left.set(xlabel="time", ylabel="error", title="a law")
    return drawn


def frames(path):
    found = []
    with Image.open(path) as picture:
        for k in range(picture.n_frames):
            picture.seek(k)
            found.append(np.asarray(picture.convert("RGB")).astype(int))
    return found


def where(frame, near, far=120):
    """The columns that have pixels of a colour."""
    return np.flatnonzero((np.abs(frame - near).sum(-1) < far).any(axis=0))


def test_the_law_stands_and_training_appears_from_left_to_right(tmp_path):
    shown = frames(gs.animate(figure(), tmp_path / "a.gif", frames=6, seconds=0.6))
    assert len(shown) == 6
    ink = [where(frame, (0, 0, 0)).max() for frame in shown]
    assert len(set(ink)) == 1, "the law moves"
    red = [where(frame, (255, 0, 0)) for frame in shown]
    ends = [part.max() if part.size else 0 for part in red]
    assert ends == sorted(ends)
    assert ends[0] < ends[3] < ends[-1]
    blue = [where(frame, (0, 0, 255)).size for frame in shown]
    assert blue[0] < 5 < blue[2] < blue[-1]


def test_the_last_picture_is_the_figure_and_stays(tmp_path):
    path = gs.animate(figure(), tmp_path / "a.gif", frames=3, seconds=0.3, hold=1.5, dpi=100)
    still = np.asarray(Image.open(io.BytesIO(style.png_bytes(figure(), 100))).convert("RGB")).astype(int)
    assert np.abs(frames(path)[-1] - still).mean() < 2  # the palette
    durations = []
    with Image.open(path) as picture:
        for k in range(3):
            picture.seek(k)
            durations.append(picture.info["duration"])
        assert picture.info["loop"] == 0
    assert durations == [100, 100, 1600]
    before = figure()
    gs.animate(before, tmp_path / "b.gif", frames=3, seconds=0.3, hold=1.5)
    assert all(artist.get_visible() for ax in before.axes for artist in (*ax.lines, *ax.images))
    assert (tmp_path / "b.gif").read_bytes() == path.read_bytes()


def test_what_draws_is_drawn_first(tmp_path):
    class Study:
        def plot(self, title=None):
            drawn = figure()
            drawn.suptitle(title)
            return drawn

    assert len(frames(gs.animate(Study(), tmp_path / "a.gif", frames=2, title="Ein Gesetz"))) == 2
    with pytest.raises(ValueError, match="a figure is drawn already, so that it takes no title"):
        gs.animate(figure(), tmp_path / "b.gif", title="Ein Gesetz")


@pytest.mark.parametrize(
    ("thing", "name", "how", "message"),
    [
        (figure, "a.png", {}, "saved as .gif"),
        (figure, "a.gif", {"frames": 1}, "frames must be a whole number of at least 2"),
        (figure, "a.gif", {"seconds": 0}, "seconds must be a number above 0"),
        (Figure, "a.gif", {}, "nothing in it can move"),
        (dict, "a.gif", {}, "a figure or a result with .plot"),
    ],
)
def test_what_cannot_move_is_refused(tmp_path, thing, name, how, message):
    with pytest.raises(ValueError, match=message):
        gs.animate(thing(), tmp_path / name, **how)
    assert not list(tmp_path.iterdir())


def test_figures_of_commands_move_too(tmp_path):
    path = style.save(figure(), tmp_path / "overlay.gif")
    assert len(frames(path)) > 20


def test_words_size_title_and_font_of_any_figure():
    drawn = figure()
    drawn.axes[0].legend()
    old = drawn.axes[0].xaxis.label.get_fontsize()
    words = {"time": "Zeit", "trained": "trainiert", "a law": "ein Gesetz"}
    assert gs.restyle(drawn, words=words, figsize=(8, 3), font="DejaVu Serif", font_scale=1.5) is drawn
    ax = drawn.axes[0]
    assert (ax.get_xlabel(), ax.get_ylabel(), ax.get_title()) == ("Zeit", "error", "ein Gesetz")
    assert ax.get_legend().get_texts()[0].get_text() == "trainiert"
    assert tuple(drawn.get_size_inches()) == (8, 3)
    assert ax.xaxis.label.get_fontsize() == 1.5 * old
    drawn.canvas.draw()
    assert ax.get_xticklabels()[0].get_fontsize() > 1.4 * old * 0.9
    assert ax.get_xticklabels()[0].get_fontfamily() == ["DejaVu Serif"]
    assert gs.restyle(drawn, title="Eine Klasse").axes[0].get_title() == "Eine Klasse"


def test_the_headline_of_a_study_gives_way_to_a_title():
    drawn = style.new_figure(6, 4)
    drawn.subplots()
    style.headline(drawn, "a claim", "two lines\nthat explain it")
    gs.restyle(drawn, title="eine Behauptung")
    assert drawn.get_suptitle() == "eine Behauptung"
    assert [text.get_text() for text in drawn.texts if text.get_text()] in ([], ["eine Behauptung"])


def test_symbols_need_no_translation():
    drawn = gs.restyle(figure(), words="symbols")
    assert (drawn.axes[0].get_xlabel(), drawn.axes[0].get_ylabel()) == ("t", "σ(−u)")
    with pytest.raises(ValueError, match="words must be a mapping"):
        gs.restyle(figure(), words="letters")
