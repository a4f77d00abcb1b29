"""Fate and failure: which neurons learn (4.1), how often a class is never learnt (4.2), (4.3), how many die (4.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import COLOURS, GUIDE, INK, NOTE, headline, new_figure, number
from gradstarve.problem import Dataset, GradientDescent, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.studies.phase.angle import dead_share
from gradstarve.studies.phase.plane import LEARNT, OPEN, class_fates, two_classes

_SMALL = 0.02  # deviation of all weights where neurons are not to feel each other
_CONFIDENCE = 0.95
_STEPS, _STEP_SIZE, _REACH = 400, 0.05, 1.6
_WIDTHS = np.array([1, 2, 3, 4, 6, 8])
_PANELS = ("opposite classes, 180°", "classes at 107°", "at 90°, each neuron sees one class")
_COSINES = (-1.0, -0.3, 0.0)


def compute(rng: np.random.Generator, quick: bool) -> dict[str, Any]:
    """Trained neurons, networks and shares of dead neurons, each beside its law.

    - `a`, `z` [neurons, records] of single neurons under cross-entropy, one of two orthogonal classes being theirs;
    - `widths` [k]; `failed`, `low`, `high`, `chance` [3, k]: how often class - was not learnt, of `networks` drawn anew for
      every width, the interval of Clopper and Pearson, and the law;
    - `angle`, `dead`, `dead_low`, `dead_high` [m]: the share of dead neurons in the end, of `neurons` at every angle.
    """
    networks, neurons, angles = (200, 300, 4) if quick else (2000, 4000, 10)
    a, z = _orbits(rng, 40 if quick else 160)
    found: dict[str, Any] = {"a": a, "z": z, "widths": _WIDTHS, "networks": networks, "neurons": neurons}
    counts = np.array([[_failures(rng, cosine, int(h), networks) for h in _WIDTHS] for cosine in _COSINES])
    found["failed"] = counts / networks
    found["low"], found["high"] = _interval(counts, networks)
    found["chance"] = np.array([[_chance(cosine, int(h)) for h in _WIDTHS] for cosine in _COSINES])
    # Next to 180 degrees the law jumps: at 180 itself no neuron dies.
    angle = np.append(np.linspace(90, 175, angles - 1), 180.0)
    dead = np.array([_dead(rng, float(one), neurons) for one in angle])
    found |= {"angle": angle, "dead": dead / neurons}
    found["dead_low"], found["dead_high"] = _interval(dead, neurons)
    return found


def _orbits(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(a, z) [neurons, records] of single neurons that see the first of two orthogonal classes, trained by descent."""
    data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0])
    a, z = rng.uniform(0.05, _REACH, count), rng.uniform(-_REACH, _REACH, count)
    w = np.stack([a, -np.ones(count)], axis=-1)[:, None]
    descent = GradientDescent(_STEP_SIZE)
    run = simulate(
        data,
        TwoLayerReLU(w, z[:, None]),
        "cross-entropy",
        descent,
        _STEPS,
        record_every=4,
        record_networks=True,
        progress=False,
        engine="reference",
    )
    trained: Any = run.networks
    return np.asarray(trained.w)[:, :, 0, 0], np.asarray(trained.z)[:, :, 0]


def _failures(rng: np.random.Generator, cosine: float, width: int, count: int) -> int:
    """How many of `count` networks of that width, drawn now, do not learn class -."""
    w, z = rng.normal(size=(count, width, 2)), rng.normal(size=(count, width))
    if cosine == 0:  # each neuron is of one class, by a coin
        side = rng.integers(0, 2, (count, width))
        w = np.abs(w) * np.where(side[..., None] == np.arange(2), 1, -1)
    fates = class_fates(two_classes(cosine, (0.5, 0.5), (1.0, 1.0)), _SMALL * w, _SMALL * z, "cross-entropy")[:, 1]
    return int(np.sum(fates != LEARNT))


def _chance(cosine: float, width: int) -> float:
    """The law: 2^-h between opposite classes, (1 - pi_L/2)^h of exclusive neurons, ((1 + D)/2)^h from small starts."""
    if cosine == -1:
        return float(theory.class_failure_probability(width))
    if cosine == 0:
        return float((1 - theory.learning_probability(1.0, 1.0) / 2) ** width)
    return float(((1 + dead_share(cosine)) / 2) ** width)


def _dead(rng: np.random.Generator, angle: float, count: int) -> int:
    """How many of `count` Gaussian neurons, each alone between two classes at that angle, learn neither."""
    w, z = rng.normal(size=(count, 1, 2)), rng.normal(size=(count, 1))
    cosine = float(np.clip(np.cos(np.radians(angle)), -1, 0))
    data = two_classes(cosine, (0.5, 0.5), (1.0, 1.0))
    fates = class_fates(data, _SMALL * w, _SMALL * z, "cross-entropy")
    return int(np.sum((fates != LEARNT).all(1) & (fates != OPEN).any(1)))


def _interval(counts: np.ndarray, of: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval of Clopper and Pearson for each chance."""
    from scipy.stats import binomtest

    ends = [binomtest(int(k), of).proportion_ci(_CONFIDENCE) for k in counts.reshape(-1)]
    return tuple(np.reshape([getattr(end, name) for end in ends], counts.shape) for name in ("low", "high"))  # pyright: ignore


def _missed(numbers: dict[str, Any]) -> tuple[int, int]:
    """How many intervals there are, and how many of them do not hold the law."""
    off = (numbers["chance"] < numbers["low"]) | (numbers["chance"] > numbers["high"])
    law = dead_share(np.cos(np.radians(numbers["angle"])))
    off_dead = (law < numbers["dead_low"] - 1e-12) | (law > numbers["dead_high"] + 1e-12)
    return off.size + off_dead.size, int(off.sum() + off_dead.sum())


def conclusion(numbers: dict[str, Any]) -> str:
    """What is known of failure before training."""
    eight = list(numbers["widths"]).index(8)
    count, missed = _missed(numbers)
    least, most = numbers["chance"][:, eight].min(), numbers["chance"][:, eight].max()
    return (
        f"The first weights decide who fails: with 8 neurons a class is never learnt in {100 * least:.2g} to "
        f"{100 * most:.2g} % of networks; {count - missed} of {count} intervals of 95 % hold the law"
    )


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a geometry: how often class - was not learnt at each width, and by the law."""
    found: list[tuple[str, ...]] = [("class − not learnt (by the law)", *(f"h = {h}" for h in numbers["widths"]))]
    for name, failed, chance in zip(_PANELS, numbers["failed"], numbers["chance"], strict=True):
        pairs = zip(failed, chance, strict=True)
        found.append((name, *(f"{number(share)} ({number(law)})" for share, law in pairs)))
    return found


def draw(numbers: dict[str, Any]) -> Any:
    """Three panels: orbits of neurons and their fates, the chance of failure over the width, dead neurons over the angle."""
    figure = new_figure(13, 5.0)
    plane, chance, dead = figure.subplots(1, 3)
    _plane(plane, numbers)
    _chances(chance, numbers)
    _deaths(dead, numbers)
    text = f"Lines: laws. Marks: training; {numbers['networks']} networks drawn anew for every width, {numbers['neurons']} "
    headline(figure, conclusion(numbers), text + "neurons for every angle, with 95 % intervals")
    return figure


def _plane(panel: Any, numbers: dict[str, Any]) -> None:
    a, z = numbers["a"], numbers["z"]
    learns = z[:, 0] > -a[:, 0]
    panel.fill_between([0, _REACH], [0, -_REACH], -_REACH, color=COLOURS[1], alpha=0.08, linewidth=0)
    panel.fill_between([0, _REACH], _REACH, [0, -_REACH], color=COLOURS[0], alpha=0.07, linewidth=0)
    for kept in (-1.2, -0.4, -0.05, 0.05, 0.4, 1.2):  # hyperbolas a^2 - z^2
        line = np.linspace(-_REACH, _REACH, 200)
        size = np.sqrt(np.maximum(line**2 + kept, 0))
        curves = [(size, line)] if kept > 0 else [(np.abs(line), np.sign(line) * np.sqrt(line**2 - kept))]
        for x, y in curves:
            panel.plot(np.where(np.abs(x) <= _REACH, x, np.nan), y, color=GUIDE, linewidth=0.8, zorder=1)
    panel.plot([0, _REACH], [0, -_REACH], color=INK, linewidth=2, linestyle=(0, (4, 1.5)), zorder=3)
    # What training did: where it began, and the way it has gone.
    for mine, colour in ((learns, COLOURS[0]), (~learns, COLOURS[1])):
        panel.plot(a[mine].T, z[mine].T, color=colour, linewidth=0.6, alpha=0.5, zorder=2)
        panel.plot(a[mine, 0], z[mine, 0], "o", color=colour, markersize=3.5, markerfacecolor="white", zorder=4)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "boxstyle": "round,pad=0.25"}
    bold: dict[str, Any] = {"fontsize": 12, "fontweight": "bold", "ha": "center", "bbox": box, "zorder": 6}
    panel.text(0.8 * _REACH, 0.3 * _REACH, "learns", color=COLOURS[0], **bold)
    panel.text(0.3 * _REACH, -0.86 * _REACH, "leaves and dies", color=COLOURS[1], **bold)
    panel.text(0.62 * _REACH, -0.62 * _REACH, "z = −a", ha="center", va="center", fontsize=9.5, bbox=box, zorder=6)
    panel.set(xlim=(0, _REACH), ylim=(-_REACH, _REACH), xlabel="first layer a, along the class", ylabel="second layer z")
    panel.set_title("a neuron learns if z > −a at the start", loc="left")
    panel.grid(False)


def _chances(panel: Any, numbers: dict[str, Any]) -> None:
    h = numbers["widths"]
    for k in range(len(_PANELS)):
        colour = COLOURS[(0, 2, 3)[k]]
        panel.plot(h, numbers["chance"][k], color=colour, linewidth=1.8)
        bars = np.stack([numbers["failed"][k] - numbers["low"][k], numbers["high"][k] - numbers["failed"][k]])
        look: dict[str, Any] = {"fmt": "osD"[k], "color": colour, "markersize": 5.5, "markerfacecolor": "white", "lw": 1.2}
        panel.errorbar(h, numbers["failed"][k], bars, **look)
    for k, text in enumerate(("opposite classes:\n180°", "107°", "90°, each neuron\nsees one class")):
        at = (h[-1], numbers["chance"][k, -1])
        panel.annotate(text, at, (9, 0), color=COLOURS[(0, 2, 3)[k]], textcoords="offset points", va="center", fontsize=9)
    panel.set_xlim(0.6, 11.4)
    panel.set(yscale="log", xlabel="neurons h of the network", ylabel="chance that a class is never learnt", xticks=h)
    panel.set_ylim(0.3 * numbers["chance"].min(), 1.3)
    panel.set_title("wider networks fail less, by a power", loc="left")


def _deaths(panel: Any, numbers: dict[str, Any]) -> None:
    angle = np.linspace(90, 180 - 1e-6, 200)
    panel.plot(angle, 100 * dead_share(np.cos(np.radians(angle))), color=INK, linewidth=1.8)
    panel.plot(180, 12.5, "o", color=INK, markerfacecolor="white", markersize=7, zorder=2, clip_on=False)
    middle, low, high = (100 * numbers[name] for name in ("dead", "dead_low", "dead_high"))
    look: dict[str, Any] = {"fmt": "o", "color": COLOURS[0], "markersize": 5.5, "markerfacecolor": "white", "zorder": 4}
    panel.errorbar(numbers["angle"], middle, np.stack([middle - low, high - middle]), clip_on=False, **look)
    panel.annotate("law", (120, 100 * dead_share(-0.5)), (6, 6), textcoords="offset points", color=INK)
    arrow: dict[str, Any] = {"arrowprops": {"arrowstyle": "-", "color": GUIDE}, "textcoords": "offset points"}
    panel.annotate("at 180° every\nneuron is taken up", (180, 0), (-12, 14), ha="right", color=NOTE, fontsize=9.5, **arrow)
    panel.set(xlim=(88, 182), ylim=(-1, 45), xlabel="angle between the classes", ylabel="neurons dead in the end, %")
    panel.set_xticks([90, 120, 150, 180], ["90°", "120°", "150°", "180°"])
    panel.set_title("how many neurons die depends on the angle", loc="left")
