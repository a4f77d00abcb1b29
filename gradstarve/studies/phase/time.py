"""How long a class takes to be learnt: quantiles over random networks of the time to a margin of 1 (3.6), (3.7).

The neurons are those that see one class only, a = |N(0, sigma^2)|, z ~ N(0, sigma^2), so that the class is a mode of its
own (2.1). By (3.11) a class of frequency p and norm r is one of p = r = 1 with weights sqrt(r) times as large and a time
1/(p r) times as long: one batch of networks over r gives the whole map of frequency and norm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.ground import number, positive_int
from gradstarve.problem import Dataset, Mode, TwoLayerReLU
from gradstarve.simulation import simulate_hinge_exact
from gradstarve.studies.phase.phase_settings import positive, positives, real

QUANTILES = (0.1, 0.5, 0.9)
DEFAULTS: dict[str, Any] = {
    "width": 8,
    "scale": 0.05,
    "widths": (1, 2, 4, 8, 16),
    "scales": (0.001, 1.0),
    "networks": 120,
    "pixels": 25,
    "seed": 0,
}
_LEARNT = 3
_CHUNK = 2048


def checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, refused where they make no problem."""
    ends = positives("scales", settings["scales"])
    if len(ends) != 2 or not ends[0] < ends[1]:
        raise ValueError(f"scales must be the least and the largest of the map, got {settings['scales']!r}")
    return {
        "width": positive_int("width", settings["width"]),
        "scale": positive("scale", settings["scale"]),
        "widths": tuple(sorted({positive_int("widths", one) for one in np.ravel(np.array(settings["widths"], object))})),
        "scales": ends,
        "networks": positive_int("networks", settings["networks"], minimum=10),
        "pixels": positive_int("pixels", settings["pixels"], minimum=3),
        "seed": positive_int("seed", settings["seed"], minimum=0),
    }


def steps(losses: tuple[str, ...], settings: dict[str, Any]) -> int:
    """How often `compute` tells that it has advanced."""
    return len(losses) * 2


def compute(losses: tuple[str, ...], settings: dict[str, Any], advance: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Per loss: `norm_time` [3, frequencies, norms] and `scale_time` [3, widths, scales], the latter in units of 1/(p r).

    Quantiles 10, 50, 90 % over networks, inf where so many are not learnt; `gap` of the hinge loss to (3.6).
    """
    pixels, count = settings["pixels"], settings["networks"]
    frequencies, norms = np.geomspace(0.01, 1, pixels), np.geomspace(0.1, 10, pixels)
    scales = np.geomspace(settings["scales"][0], settings["scales"][1], pixels)
    sizes = np.array(settings["widths"])
    maps: dict[str, Any] = {}
    for loss in losses:
        rng = np.random.default_rng(settings["seed"])
        # Neurons of zeros fill up, so that both maps are one program.
        most = max(int(sizes[-1]), settings["width"])
        draw = rng.normal(size=(2, count, most)) * settings["scale"] * (np.arange(most) < settings["width"])
        small = np.sqrt(norms)[:, None, None]
        first, gap = _times(loss, np.abs(draw[0]) * small, draw[1] * small)
        advance()
        draw = rng.normal(size=(2, len(sizes), 1, count, most)) * (np.arange(most) < sizes[:, None])[:, None, None, :]
        large = scales[:, None, None]
        second, other = _times(loss, np.abs(draw[0]) * large, draw[1] * large)
        advance()
        reached = _quantiles(first)
        maps[loss] = {
            "norm_time": reached[:, None, :] / (frequencies[:, None] * norms),
            "scale_time": _quantiles(second),
            "scale_failed": np.isinf(second).mean(-1),
            "gap": max(gap, other),
        }
    return {"frequency": frequencies, "norm": norms, "width": sizes, "scale": scales}, maps


def _quantiles(times: np.ndarray) -> np.ndarray:
    """Of the last axis, [3, ...]; a quantile is one of the times, so that inf stays apart. Ranks are whole numbers."""
    ranks = [-(-round(10 * share) * times.shape[-1] // 10) - 1 for share in QUANTILES]
    return np.moveaxis(np.sort(times, axis=-1)[..., ranks], -1, 0)


def _times(loss: str, a: np.ndarray, z: np.ndarray) -> tuple[np.ndarray, float]:
    """Times to a margin of 1 with p = r = 1, of networks [..., h]; and the gap of the events to the law."""
    flat_a, flat_z = real(a.reshape(-1, a.shape[-1])), real(z.reshape(-1, z.shape[-1]))
    law = np.asarray(theory.solve_mode(Mode(1.0, 1.0, flat_a, flat_z), loss).time_to_logit(1.0))
    if loss != "hinge":
        return law.reshape(a.shape[:-1]), 0.0
    data, size = Dataset([[1.0]], [1.0], [1.0]), min(_CHUNK, len(flat_a))
    time = np.empty(len(flat_a))
    for first in range(0, len(time), size):
        part = slice(min(first, len(time) - size), min(first, len(time) - size) + size)
        run = simulate_hinge_exact(data, TwoLayerReLU(flat_a[part, :, None], flat_z[part]))
        learnt = run.events.kind == _LEARNT
        reached = np.where(learnt, run.events.time, 0).max(1, initial=0)
        margin = np.asarray(run.final(data.points))[:, 0]
        time[part] = np.where(learnt.any(1) | (margin >= 1), reached, np.inf)
    both = np.isfinite(time) & np.isfinite(law)
    agree = (np.isfinite(time) == np.isfinite(law)).all()
    gap = float(np.abs(time[both] - law[both]).max(initial=0)) if agree else float("inf")
    return time.reshape(a.shape[:-1]), gap


def rows(diagram: Any) -> list[tuple[str, ...]]:
    """A row a loss and width at the smallest and the largest scale: quantiles of the time in units of 1/(p r)."""
    table: list[tuple[str, ...]] = [("loss", "width h", "scale", "10 %", "median", "90 %", "never learnt")]
    for loss, found in diagram.maps.items():
        for i, width in enumerate(diagram.axes["width"]):
            for j in (0, -1):
                times = [number(value) for value in found["scale_time"][:, i, j]]
                lost = f"{100 * found['scale_failed'][i, j]:.1f} %"
                table.append((loss, str(width), number(diagram.axes["scale"][j]), *times, lost))
    return table


NOTES = (
    "Time until the margin of a class is 1, in units of 1/(p r): quantiles over networks of h neurons that see it only.\n"
    "Hinge from event to event, others by the clock (3.7)."
)
