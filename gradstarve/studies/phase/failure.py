"""How often a network never learns class -, over its width: by law, and over random networks (4.2)-(4.4).

Four panels, each with one quantity changed:

- `angle`: Gaussian networks between classes at several cosines, small and so with neurons that do not interact:
  ((1 + D)/2)^h with D the share of neurons that die, `angle.dead_share`;
- `ratio`: sigma_z / sigma_w, orthogonal classes, each neuron exclusive to one of them (by a coin), law (1 - pi_L/2)^h (4.2);
- `share`: the frequency p_- of opposite classes, and `scale`: sigma for opposite classes, r = 1. Cross-entropy fails with
  2^-h for all values (4.3). Hinge loss fails more often: a learnt class stops, and keeps its neurons of the wrong sign.
  The clock of a class decides which neurons leave before that, so that frequencies hardly matter, but r sigma^2 does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import COLOURS, SHADE, number
from gradstarve.problem import LOSSES
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.angle import dead_share
from gradstarve.studies.phase.plane import (
    GREY,
    LEARNT,
    MARKS,
    OPEN,
    Plane,
    class_fates,
    cosines,
    counts,
    new_figure,
    positives,
    seeds,
    setting,
    two_classes,
)

PANELS = ("angle", "ratio", "share", "scale")
SMALL = 0.02  # sigma in panels that do not vary the scale
STANDARD = 1.0  # sigma where it has to be large enough for a class to stop early
CONFIDENCE = 0.95


def _shares(name: str, value: Any) -> tuple[float, ...]:
    shares = positives(name, value)
    if max(shares) >= 1:
        raise ValueError(f"{name} must be frequencies of class - below 1, got {max(shares)}")
    return shares


@dataclass(frozen=True)
class Settings(plane.Settings):
    """Networks up to `width`, `networks` of them per point, drawn from `key`; the values of each of the four panels."""

    width: int = setting(12, counts())
    cosines: tuple[float, ...] = setting((-1.0, -0.9, -0.6, -0.3), cosines)
    ratios: tuple[float, ...] = setting((0.25, 1.0, 4.0), positives)
    shares: tuple[float, ...] = setting((0.1, 0.5, 0.9), _shares)
    scales: tuple[float, ...] = setting((0.1, 0.5, 2.0), positives)
    networks: int = setting(1000, counts(2))
    key: int | tuple[int, ...] = setting(0, seeds)


def values(settings: Settings, panel: str) -> tuple[float, ...]:
    """The values of a panel."""
    return getattr(settings, {"angle": "cosines", "ratio": "ratios", "share": "shares", "scale": "scales"}[panel])


def widths(most: int) -> np.ndarray:
    """1, 2, 3, 4, 6, 8, 10, 12, ... up to `most`, and `most`."""
    some = [*range(1, min(most, 4) + 1), *range(6, most, 2), most]
    return np.unique([h for h in some if h <= most])


def steps(losses: tuple[str, ...], settings: Settings) -> int:
    """The number of calls of `advance` in `compute`."""
    return len(losses) * sum(len(values(settings, panel)) for panel in PANELS)


def compute(losses: tuple[str, ...], settings: Settings, advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per loss and panel, [values, widths]: `_failed`, how often of `networks`; `_low`, `_high`, the 95 % interval of
    Clopper and Pearson for the chance; `_law`, where there is one (NaN elsewhere); `_open`, networks left undecided.

    An undecided network counts as failed at the upper end of the interval only.
    """
    from scipy.stats import binomtest

    count, h = settings.networks, widths(settings.width)
    maps: dict[str, Any] = {}
    for loss in losses:
        found: dict[str, Any] = {}
        for p, panel in enumerate(PANELS):
            chosen = values(settings, panel)
            failed = np.zeros((len(chosen), len(h)), int)
            left = np.zeros_like(failed)
            for i, value in enumerate(chosen):
                # The same draws for every loss and value, so that equal chances give equal shares.
                rng = np.random.default_rng([*np.atleast_1d(settings.key), p])
                fates = _fates(rng, panel, value, h, count, loss)[..., 1].reshape(len(h), count)
                failed[i], left[i] = (fates != LEARNT).sum(1), (fates == OPEN).sum(1)
                failed[i] -= left[i]
                advance()
            low, high = np.zeros(failed.shape), np.ones(failed.shape)
            for place in np.ndindex(failed.shape):
                certain, open_ = int(failed[place]), int(left[place])
                low[place] = binomtest(certain, count).proportion_ci(CONFIDENCE).low
                high[place] = binomtest(certain + open_, count).proportion_ci(CONFIDENCE).high
            found |= {f"{panel}_failed": failed, f"{panel}_open": left, f"{panel}_low": low, f"{panel}_high": high}
            found[f"{panel}_law"] = np.array([[law(panel, value, int(one), loss) for one in h] for value in chosen])
        maps[loss] = found
    return {"width": h, **{panel: np.array(values(settings, panel)) for panel in PANELS}}, maps


def law(panel: str, value: float, width: int, loss: str) -> float:
    """The chance that class - is never learnt, NaN where there is no law; for `angle` that of small starts."""
    if panel == "ratio":
        return float((1 - theory.learning_probability(1.0, value) / 2) ** width)
    if panel == "angle" and value != -1:
        return float(((1 + dead_share(value)) / 2) ** width)
    if panel == "angle":
        return theory.class_failure_probability(width)
    # A loss that stops has the law for a single neuron only: beside it no other neuron can stop its class.
    return theory.class_failure_probability(width) if not LOSSES[loss].stops or width == 1 else float("nan")


def _fates(rng, panel: str, value: float, h: np.ndarray, count: int, loss: str) -> np.ndarray:
    """The fates of `count` networks of each width, [widths * count, 2]; neurons beyond the width are zero."""
    most = int(h[-1])
    used = (np.arange(most) < h[:, None])[:, None, :] & np.ones((1, count, 1), bool)
    used = used.reshape(-1, most)
    w, z = rng.normal(size=(*used.shape, 2)) * used[..., None], rng.normal(size=used.shape) * used
    frequencies, cosine, scale = (0.5, 0.5), -1.0, STANDARD
    if panel == "angle":
        cosine, scale = value, SMALL
    elif panel == "ratio":
        # On orthogonal classes each neuron is active on one of the two, drawn with equal chances.
        cosine, scale = 0.0, SMALL / np.sqrt(value)
        side = rng.integers(0, 2, used.shape)
        w = np.abs(w) * np.where(side[..., None] == np.arange(2), 1, -1)
        z = z * value
    elif panel == "share":
        frequencies = 1 - value, value
    else:
        scale = value
    # Hinge loss is trained even where a law gives the fates, so that markers test the law's line.
    data = two_classes(cosine, frequencies, (1.0, 1.0))
    return class_fates(data, scale * w, scale * z, loss, trust=not LOSSES[loss].stops)


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row for each loss, panel, value and some widths: how often class - failed, its interval, and the law."""
    h = diagram.axes["width"]
    shown = [i for i, one in enumerate(h) if one in (1, 4, 8) or i == len(h) - 1]
    table: list[tuple[str, ...]] = [("loss", "changed", "value", *(f"h = {h[i]}" for i in shown))]
    count = diagram.settings["networks"]
    for loss, found in diagram.maps.items():
        for panel in PANELS:
            for k, value in enumerate(diagram.axes[panel]):
                cells = []
                for i in shown:
                    failed, open_ = int(found[f"{panel}_failed"][k, i]), int(found[f"{panel}_open"][k, i])
                    expected = found[f"{panel}_law"][k, i]
                    text = number(failed / count) + (f" +{open_}?" if open_ else "")
                    cells.append(text if np.isnan(expected) else f"{text} ({number(expected)})")
                table.append((loss, panel, number(value), *cells))
    return table


def conclusion(diagram: Any) -> str:
    """How often the widest and the narrowest networks fail between opposite classes."""
    record = next(one for one in diagram.records() if one["changed"] == "angle")
    first, *_, last = [(name, cell) for name, cell in record.items() if name.startswith("h = ") and cell] * 2
    chances = [f"{cell.partition(' ')[0]} with {name}" for name, cell in dict.fromkeys((first, last))]
    return f"Between opposite classes the chance that class − is never learnt is {' and '.join(chances)} ({record['loss']})"


NOTES = (
    "How often class - is never learnt; in brackets the law, where there is one: 2^-h (4.3), or (1 - pi_L/2)^h of neurons\n"
    "exclusive to one of two orthogonal classes (4.2). For 'angle' it is that of\n"
    "neurons that do not feel each other, the limit of small starts. +n?: networks that cannot be followed to the end."
)


# The chance that class - is never learnt over the width: one row per loss, one column per panel.

_TITLES = {
    "angle": "Angle between the classes\n(small Gaussian start)",
    "ratio": "$σ_z/σ_w$, orthogonal classes\n(each neuron sees one of them)",
    "share": f"Frequency p₋, opposite classes\n(σ = {number(STANDARD)})",
    "scale": "Scale σ, opposite classes\n(p₋ = 1/2, r = 1)",
}
_NAMES = {"angle": "cos = {}", "ratio": "$σ_z/σ_w$ = {}", "share": "p₋ = {}", "scale": "σ = {}"}


def figure_of(diagram: Any) -> Any:
    """The figure."""
    losses, s = diagram.losses, diagram.settings
    figure = new_figure(
        13.5,
        1.9 + 3.5 * len(losses),
        "How often a network of h neurons never learns class −",
        f"Lines: law. Markers: {s['networks']} random networks with 95 % intervals; hinge trained by events, "
        "others trained where (4.1)–(4.4) do not decide. Grey: $2^{-h}$",
    )
    axes = figure.subplots(len(losses), len(PANELS), sharex=True, sharey=True, squeeze=False)
    for row, loss in zip(axes, losses, strict=True):
        for panel, name in zip(row, PANELS, strict=True):
            _panel(panel, diagram, loss, name)
        row[0].set_ylabel(f"{loss} loss\nclass − never learnt")
    for panel, name in zip(axes[0], PANELS, strict=True):
        panel.set_title(_TITLES[name], fontsize=10.5)
    for panel in axes[-1]:
        panel.set_xlabel("neurons h")
    return figure


def _panel(panel: Any, diagram: Any, loss: str, name: str) -> None:
    found, h = diagram.maps[loss], diagram.axes["width"]
    count = diagram.settings["networks"]
    panel.plot(h, 0.5**h, color=SHADE, linewidth=4.5, alpha=0.7, zorder=1, solid_capstyle="round")
    chosen = diagram.axes[name]
    for k, value in enumerate(chosen):
        colour, mark = COLOURS[k % len(COLOURS)], MARKS[k % len(MARKS)]
        law = found[f"{name}_law"][k]
        known = np.isfinite(law)
        if known.sum() > 1:
            style = (0, (5, 2)) if name == "angle" and value != -1 else "-"
            panel.plot(h[known], law[known], color=colour, linewidth=1.5, linestyle=style)
        middle = found[f"{name}_failed"][k] / count
        low, high = found[f"{name}_low"][k], found[f"{name}_high"][k]
        seen = middle > 0
        # Markers are shifted sideways so that equal values stay visible, although widths are whole numbers.
        place = h + 0.16 * (k - (len(chosen) - 1) / 2)
        bars = np.stack([middle - low, high - middle])
        look: dict[str, Any] = {"fmt": mark, "color": colour, "markersize": 5, "markerfacecolor": "white", "elinewidth": 1}
        shown = number(value).replace("-", "−")
        label = _NAMES[name].format(shown)
        panel.errorbar(place[seen], middle[seen], bars[:, seen], label=label, **look)
        panel.plot(place[~seen], high[~seen], linestyle="none", marker="v", markersize=4, color=colour)
    panel.set_yscale("log")
    panel.set_ylim(0.5 / count, 1.1)
    panel.set_xticks(widths(int(h[-1])))
    panel.legend(loc="lower left", fontsize=8.5, handletextpad=0.2)
    note = _note(loss, name)
    if note:
        panel.text(0.98, 0.97, note, transform=panel.transAxes, ha="right", va="top", fontsize=8.5, color=GREY)


def _note(loss: str, name: str) -> str:
    if name == "angle":
        return "dashed: limit of small\nstarts, $((1+D)/2)^h$"
    if name == "ratio":
        return "law $(1-π_L/2)^h$  (4.2)"
    if LOSSES[loss].stops:
        return "no law: a class that is learnt\nkeeps what it holds"
    return "law $2^{-h}$  (4.3), whatever\np, r and σ are"


PLANE = Plane(Settings, steps, compute, rows, NOTES, figure_of, conclusion)
