"""The error at which a loss stops to push, and a threshold for "has learnt" that every loss of a sweep can reach."""

from __future__ import annotations

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from gradstarve.ground import number
from gradstarve.problem import Dataset, Loss

USUAL = 0.01
_FAR = 40.0  # sigmoid(-40) is 0 beside any threshold


def error_floor(loss: Loss, data: Dataset) -> float:
    """sum_i q_i sigmoid(-m_i*), where m_i* is the lowest margin of sample i at which the residual g(m) is not above 0.

    Full-batch training pushes the margins towards m*: to 1 with the hinge and the squared loss, and without end with the
    cross-entropy and the exponential loss, whose floor is 0. A step may carry a margin a little beyond m*. The floor is 0
    too for a loss that does not take margins [r, n].

    >>> from gradstarve.problem import SpectralDecoupling, as_loss, datasets
    >>> data = datasets.antipodal()
    >>> [round(error_floor(as_loss(loss), data), 4) for loss in ("cross-entropy", "hinge", SpectralDecoupling("hinge", 2.0))]
    [0.0, 0.2689, 0.3775]
    """
    low = np.full(data.size, -_FAR)
    high = np.full(data.size, _FAR)
    for rows in (161, 65, 65, 65):
        margins = np.linspace(low, high, rows)
        try:
            push = np.asarray(loss.residual(jnp.asarray(margins, data.points.dtype)))
        except (TypeError, ValueError):
            return 0.0
        if push.shape != margins.shape or not np.isfinite(push).all():
            return 0.0
        stops = push <= 0
        ever, first = stops.any(0), stops.argmax(0)
        columns = np.arange(data.size)
        low = np.where(ever, margins[np.maximum(first - 1, 0), columns], _FAR)
        high = np.where(ever, margins[first, columns], _FAR)
    errors = np.where(high >= _FAR, 0, 1 / (1 + np.exp(high)))
    return float(np.sum(np.asarray(data.weights, np.float64) * errors))


def default_threshold(floors: Sequence[float]) -> float:
    """0.01 where every loss reaches half of it, and else between the highest floor and 1/2, the error of no network.

    >>> default_threshold([0.0]), default_threshold([0.0, 0.2689]), default_threshold([0.6])
    (0.01, 0.3, 0.01)
    """
    highest = max(floors)
    if not USUAL / 2 < highest < 0.5:
        return USUAL
    return float(f"{highest + 0.15 * (0.5 - highest):.2g}")


def note(floors: dict[str, float], threshold: float, chosen: bool) -> str:
    """A sentence on losses that stop above the threshold, or for whose sake it was `chosen`; empty if there is none.

    `floors`: by the label of the loss.

    >>> print(note({"cross-entropy": 0.0, "hinge": 0.2689}, 0.01, False))
    hinge stops pushing at an error of 0.269, above the threshold of 0.01; give a threshold above 0.269
    """
    above = {name: floor for name, floor in floors.items() if floor >= (USUAL if chosen else threshold)}
    if not above:
        return ""
    names, highest = list(above), max(above.values())
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    errors = " and ".join(dict.fromkeys(number(floor) for floor in above.values()))
    stops = f"{listed} {'stop' if len(names) > 1 else 'stops'} pushing at an error of {errors}"
    if chosen and threshold > highest:
        return f"{stops}, so the threshold is {number(threshold)} in place of {number(USUAL)}"
    stops += f", above the threshold of {number(threshold)}"
    return stops if highest >= 0.5 else f"{stops}; give a threshold above {number(highest)}"
