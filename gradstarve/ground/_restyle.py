"""Figures for a slide, a handout or another language: size, title, font and words of one that is drawn already."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gradstarve.ground import _style as style
from gradstarve.ground._text import shown

SYMBOLS = {
    "error: probability\nof the wrong label": "σ(−u)",
    "error": "σ(−u)",
    "margin": "u",
    "time": "t",
    "time t": "t",
    "time t = step size × step": "t",
    "step of descent": "k",
    "step": "k",
}
"""Words on the axes of this library's figures -> symbols that need no translation, for `restyle`."""


def restyle(
    figure: Any,
    *,
    words: Mapping[str, str] | str | None = None,
    title: str | None = None,
    figsize: Any = None,
    font: str | None = None,
    font_scale: float = 1.0,
) -> Any:
    """Change a figure that any function of this library has drawn, in place; it is returned, to be saved.

    - `words`: old text -> new text, for labels, legends, titles and everything else that is written on it; a key that is a
      whole text replaces it, and any other key the part of a text that is equal to it. Longer keys come first. "symbols"
      puts symbols, which need no translation, for the usual words on axes;
    - `title`: the line above everything; "" takes it away;
    - `figsize`: (width, height) in inches; `font`: the name of a font; `font_scale`: every size of letters times this.

    `ValueError` names what is not a figure, a size, or a number above 0.

    >>> import gradstarve as gs
    >>> curve = gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), "cross-entropy")
    >>> figure = gs.restyle(curve.plot(), words={"error": "Fehler", "time": "Zeit"}, figsize=(8, 4.5), font_scale=1.4)
    >>> figure.get_size_inches().tolist(), "Fehler" in figure.axes[0].get_ylabel()
    ([8.0, 4.5], True)
    """
    from matplotlib.text import Text

    if not hasattr(figure, "findobj") or not hasattr(figure, "axes"):
        raise ValueError(f"figure must be a Matplotlib figure, such as .plot() returns, got {shown(figure)}")
    if isinstance(font_scale, bool) or not isinstance(font_scale, int | float) or not 0 < font_scale <= 20:
        raise ValueError(f"font_scale must be a number above 0 and at most 20, got {shown(font_scale)}")
    table: Mapping[str, str] = {}
    if isinstance(words, str) and words == "symbols":
        table = SYMBOLS
    elif isinstance(words, Mapping) and all(isinstance(one, str) for one in (*words, *words.values())):
        table = words
    elif words is not None:
        raise ValueError(f"words must be a mapping of old to new texts, such as {{'error': 'Fehler'}}, got {shown(words)}")
    for name, value in (("title", title), ("font", font)):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"{name} must be a text, got {shown(value)}")
    if figsize is not None:
        figure.set_size_inches(*style.figure_size(figsize, (6.4, 4.0)))
    if title is not None:
        _set_title(figure, title)
    for text in figure.findobj(Text):
        if font_scale != 1.0:
            text.set_fontsize(text.get_fontsize() * font_scale)
        if font is not None:
            text.set_fontfamily(font)
        if table and text.get_text():
            text.set_text(_translated(text.get_text(), table))
    if font_scale != 1.0 or font is not None:
        for ax in figure.axes:  # labels of ticks are made anew at each drawing
            for axis in (ax.xaxis, ax.yaxis):
                size = axis.get_ticklabels()[0].get_fontsize() if axis.get_ticklabels() else None
                axis.set_tick_params(labelsize=size, **({} if font is None else {"labelfontfamily": font}))
    return figure


def _set_title(figure: Any, title: str) -> None:
    """Over everything, where the headline of a study is, or else over the one panel."""
    if figure.get_suptitle():
        figure.suptitle(title, x=0.012, ha="left", fontweight="bold")
        for text in [text for text in figure.texts if text.get_position()[0] == 0.012 and text.get_text() != title]:
            text.set_text("")  # the plain lines under the headline, which explained it
    elif figure.axes:
        ax = figure.axes[0]
        at = next((at for at in ("left", "center", "right") if ax.get_title(loc=at)), "center")
        ax.set_title(title, loc=at)


def _translated(text: str, words: Mapping[str, str]) -> str:
    if text in words:
        return words[text]
    for old in sorted(words, key=len, reverse=True):
        text = text.replace(old, words[old])
    return text
