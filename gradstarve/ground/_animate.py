"""Moving pictures of figures: the laws stand, and training appears on them from left to right."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from gradstarve.ground import _files as files
from gradstarve.ground import _style as style
from gradstarve.ground._text import shown

FRAMES, SECONDS, HOLD = 40, 4.0, 2.0
_COLOURS = 96
_LOOKED_AT = 4000  # colours, the most frequent first


def animate(
    thing: Any,
    path: Any,
    *,
    seconds: float = SECONDS,
    hold: float = HOLD,
    frames: int = FRAMES,
    dpi: int | float = 100,
    **plot: Any,
) -> Path:
    """Save a figure as a moving picture (.gif): laws are drawn first, then training appears on them from left to right.

    - `thing`: a Matplotlib figure, or anything with `.plot()` that returns one: a `Comparison`, a curve, a study;
    - `path`: where to, ending in .gif; returned;
    - `seconds`: how long training takes to appear; `hold`: how long the whole picture stays before it begins again;
    - `frames`: how many pictures that is; `dpi`: pixels per inch;
    - `plot`: arguments for `thing.plot`, such as `title` or `figsize`.

    What appears is what stands for training in every figure of this library: markers, bands, maps and error bars. Lines
    without markers, which are laws, stay. The same figure gives the same bytes.

    `ValueError` for another ending, for a thing that draws nothing, for a figure in which nothing stands for training, and
    for numbers that are not above 0 or too large.

    >>> import tempfile
    >>> import gradstarve as gs
    >>> from matplotlib.figure import Figure
    >>> figure = Figure(figsize=(3, 2))
    >>> axes = figure.subplots()
    >>> _ = axes.plot([0, 1], [1, 0]), axes.plot([0, 0.5, 1], [1, 0.5, 0], "o")
    >>> path = gs.animate(figure, tempfile.mkdtemp() + "/fall.gif", frames=4)
    >>> path.read_bytes()[:6]
    b'GIF89a'
    """
    for name, value, most in (("seconds", seconds, 600), ("hold", hold, 600), ("frames", frames, 1000), ("dpi", dpi, 600)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
            raise ValueError(f"{name} must be a number above 0 and at most {most}, got {shown(value)}")
    if int(frames) != frames or frames < 2:
        raise ValueError(f"frames must be a whole number of at least 2, got {shown(frames)}")
    place = style.figure_path(path)
    if place.suffix.lower() != ".gif":
        raise ValueError(f"a moving picture is saved as .gif by the end of its path, got {str(path)!r}")
    content = moving(_figure_of(thing, plot), int(frames), float(seconds), float(hold), float(dpi))
    with files.whole(place) as part:
        part.write_bytes(content)
    return place


def moving(figure: Any, frames: int = FRAMES, seconds: float = SECONDS, hold: float = HOLD, dpi: int | float = 100) -> bytes:
    """The moving picture of a figure as a GIF. `ValueError` where nothing in the figure stands for training."""
    import numpy as np
    from PIL import Image

    trained = [artist for ax in figure.axes for artist in _trained(ax) if artist.get_visible()]
    if not trained:
        raise ValueError("the figure has no markers, bands or maps, so that nothing in it can move; save it as .png")
    whole = _pixels(figure, dpi)
    engine = figure.get_layout_engine()
    figure.set_layout_engine("none")  # nothing moves for what is hidden
    for artist in trained:
        artist.set_visible(False)
    try:
        bare = _pixels(figure, dpi)
    finally:
        for artist in trained:
            artist.set_visible(True)
        figure.set_layout_engine(engine)
    height, width = whole.shape[:2]
    boxes = [ax.get_position() for ax in figure.axes]
    pictures = []
    for k in range(frames):
        picture, share = bare.copy(), k / (frames - 1)
        for box in boxes:
            # A margin around the axes, for markers on their edges.
            left, right = round((box.x0 - 0.01) * width), round((box.x0 + box.width * share + 0.01 * share) * width)
            top, bottom = round((1 - box.y1 - 0.02) * height), round((1 - box.y0 + 0.02) * height)
            part = np.s_[max(0, top) : bottom, max(0, left) : right]
            picture[part] = whole[part]
        pictures.append(Image.fromarray(picture if k < frames - 1 else whole))
    palette = palette_of(pictures[-1])  # one for all pictures: else colours flicker
    first, *rest = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    each = max(20, round(1000 * seconds / frames))
    durations = [each] * (frames - 1) + [each + round(1000 * hold)]
    with io.BytesIO() as out:
        first.save(out, "GIF", save_all=True, append_images=rest, duration=durations, loop=0, optimize=True)
        return out.getvalue()


def palette_of(picture: Any, count: int = _COLOURS) -> Any:
    """A palette of at most so many colours of a picture, for it and others: the most frequent ones that are apart.

    A figure has few colours and their shades; means of colours, which other palettes are made of, would change all of them.
    """
    from PIL import Image

    counted = sorted(picture.getcolors(picture.width * picture.height), reverse=True)
    frequent = [colour for _, colour in counted[:_LOOKED_AT]]
    chosen: list[Any] = []
    for apart in (40, 24, 14, 8):  # levels of red, green or blue
        for colour in frequent:
            if len(chosen) == count:
                break
            if all(max(abs(a - b) for a, b in zip(colour, other, strict=True)) >= apart for other in chosen):
                chosen.append(colour)
    own = Image.new("P", (1, 1))
    own.putpalette([level for colour in chosen for level in colour])
    return own


def _figure_of(thing: Any, options: dict[str, Any]) -> Any:
    """The figure that a thing is, or draws."""
    if hasattr(thing, "savefig"):
        if options:
            raise ValueError(f"a figure is drawn already, so that it takes no {', '.join(options)}; give what draws it")
        return thing
    if not callable(getattr(thing, "plot", None)):
        raise ValueError(f"a figure or a result with .plot() is wanted, got {shown(thing)}")
    drawn = thing.plot(**options)
    if not hasattr(drawn, "savefig"):
        raise ValueError(f"{type(thing).__name__}.plot() returns no figure, which a moving picture is made of")
    return drawn


def _trained(ax: Any) -> list[Any]:
    """What stands for training on axes: lines with markers, bands, maps, scattered points and error bars."""
    from matplotlib.collections import LineCollection

    bars = {part for one in ax.containers for part in one.get_children() if isinstance(part, LineCollection)}
    marked = [line for line in ax.lines if line.get_marker() not in (None, "None", "", " ")]
    areas = [part for part in ax.collections if part in bars or not isinstance(part, LineCollection)]
    return [*marked, *areas, *ax.images]


def _pixels(figure: Any, dpi: int | float) -> Any:
    """The figure as an array [height, width, 3] of bytes."""
    import numpy as np
    from PIL import Image

    return np.array(Image.open(io.BytesIO(style.png_bytes(figure, dpi))).convert("RGB"))
