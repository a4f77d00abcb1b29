"""The plane of one neuron: a = w.xh_+ and its read-out z, where it goes, and how long it takes (4.1), (4.3), (3.6), (3.7).

The orbits a^2 - z^2 = const are the same for every loss. Where classes are orthogonal a neuron with z > -a learns class +
and one with z < -a leaves it and is dead; where they are opposite it is taken up by class -. With hinge loss a neuron stops
on a z = 1/r, where its margin is 1; with cross-entropy it runs for ever.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import number, positive_int
from gradstarve.problem import Dataset, Mode, TwoLayerReLU
from gradstarve.simulation import simulate_hinge_exact
from gradstarve.studies.phase.phase_settings import pair, positive, real

GEOMETRIES = ("orthogonal", "antipodal")
DEFAULTS: dict[str, Any] = {"frequencies": (0.5, 0.5), "norms": (1.0, 1.0), "extent": 2.0, "pixels": 160}
_LEARNT = 3  # the event of a margin that reaches 1
_SLEEPS = 2  # and of a neuron that leaves a point


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, refused where they make no problem."""
    frequencies = pair("frequencies", settings["frequencies"])
    if abs(sum(frequencies) - 1) > 1e-9:
        raise ValueError(f"frequencies must sum to 1, got {frequencies}")
    return {
        "frequencies": frequencies,
        "norms": pair("norms", settings["norms"]),
        "extent": positive("extent", settings["extent"]),
        "pixels": positive_int("pixels", settings["pixels"], minimum=4),
    }


def compute(losses: tuple[str, ...], settings: dict[str, Any], advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Axes a and z of the pixels' centres, and per loss and geometry `end` (+1, -1 the class learnt, 0 dead) and `time`.

    `time` is that of a margin of 1, or of leaving where the neuron dies; NaN where it never was in a class. [z, a] each.
    """
    extent, pixels = settings["extent"], settings["pixels"]
    grid = (2 * np.arange(pixels) + 1 - pixels) * extent / pixels
    # No centre lies on z = -a, where a neuron decides nothing.
    heights = grid + extent / pixels / 2
    a, z = (real(values.reshape(-1)) for values in np.meshgrid(grid, heights))
    maps: dict[str, Any] = {}
    for loss in losses:
        found: dict[str, Any] = {}
        for geometry in GEOMETRIES:
            if loss == "hinge":
                end, time = _by_events(geometry, a, z, settings)
            else:
                end, time = by_law(geometry, a, z, settings, loss)
            found[f"{geometry}_end"] = end.reshape(pixels, pixels)
            found[f"{geometry}_time"] = time.reshape(pixels, pixels)
            advance()
        maps[loss] = found
    return {"a": grid, "z": heights}, maps


def steps(losses: tuple[str, ...], settings: dict[str, Any]) -> int:
    """How often `compute` tells that it has advanced."""
    return len(losses) * len(GEOMETRIES)


def by_law(geometry: str, a, z, settings, loss: str) -> tuple[np.ndarray, np.ndarray]:
    """(end, time) in closed form."""
    (p, q), (r, s) = settings["frequencies"], settings["norms"]
    if geometry == "orthogonal":
        solution = theory.solve_mode(Mode(p, r, a[:, None], z[:, None]), loss)
        end = np.asarray(theory.exclusive_fate(a, z)).astype(int)
        time = np.where(end == 1, np.asarray(solution.time_to_logit(1.0)), np.asarray(solution.events)[:, 0])
        return end, np.where(a > 0, time, np.nan)
    data = Dataset([[r], [-s]], [1.0, -1.0], [p, q])
    solution = theory.solve(data, TwoLayerReLU(a[:, None, None], z[:, None]), loss)
    time = np.minimum(*(np.asarray(curve.time_to_logit(1.0)) for curve in (solution.plus, solution.minus)))
    return np.asarray(theory.antipodal_fate(a, z)).astype(int), time


def _by_events(geometry: str, a, z, settings) -> tuple[np.ndarray, np.ndarray]:
    """(end, time) of hinge loss, from event to event."""
    (p, q), (r, s) = settings["frequencies"], settings["norms"]
    if geometry == "orthogonal":
        # Along the second axis the neuron is where it sees nothing.
        points, w = [[r, 0.0], [0.0, s]], np.stack([a, np.full_like(a, -1.0)], axis=-1)
    else:
        points, w = [[r, 0.0], [-s, 0.0]], np.stack([a, np.zeros_like(a)], axis=-1)
    run = simulate_hinge_exact(Dataset(points, [1.0, -1.0], [p, q]), TwoLayerReLU(w[:, None], z[:, None]), max_events=8)
    margins = np.asarray(run.final(run.data.points)) * [1, -1]
    learnt = margins > 1 - 1e-4  # who came to rest is at 1 to rounding, or at 0
    end = np.where(learnt[:, 0], 1, np.where(learnt[:, 1], -1, 0))
    last = np.where(end != 0, _LEARNT, _SLEEPS)
    kinds, times = run.events.kind, run.events.time
    happened = kinds == last[:, None]
    time = np.where(happened.any(1), np.where(happened, times, 0).max(1, initial=0), 0)
    never = (end == 0) & (a <= 0)
    return end, np.where(never, np.nan, time)


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row a loss and geometry: the part of the plane of each fate, and the median time there."""
    table: list[tuple[str, ...]] = [("loss", "classes", "learns +", "learns -", "leaves, dead", "never in", "median time")]
    for loss, found in diagram.maps.items():
        for geometry in GEOMETRIES:
            end, time = found[f"{geometry}_end"], found[f"{geometry}_time"]
            never = np.isnan(time)
            parts = [end == 1, end == -1, (end == 0) & ~never, never]
            shares = [f"{100 * float(part.mean()):.1f} %" for part in parts]
            middle = number(np.median(time[~never]))
            table.append((loss, geometry, *shares, middle))
    return table


NOTES = (
    "Parts of the plane |a|, |z| <= extent; time until the margin is 1, or until the neuron leaves where it then is dead.\n"
    "Hinge from event to event, others by the clock (3.7)."
)
