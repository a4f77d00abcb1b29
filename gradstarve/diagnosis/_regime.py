"""Whether training stays near the linearised network: the kernel at the weights to which that network says training goes.

In the linearised network the weights move by Phi^T a, with a_i the integral of the residuals of sample i, known from the
predicted training. So the kernel of the network itself can be looked at there, before any training, with one backward pass a
time: where it has changed by half, the network has left the linear regime, and curves of later times are those of another.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit, softmax

from gradstarve.ground import number, short_repr

LEFT = 0.5
"""The relative change of the kernel at which the linear regime counts as left, as in `after_training`."""
_SAMPLES, _POINTS = 48, 5


@dataclass(frozen=True, eq=False)
class Regime:
    """`times` [k] up to the horizon and `change` [k], |K(t) - K| / |K| of some samples at the weights of the linearised
    network; `left_at`: the time at which it is one half, inf where it stays below."""

    times: np.ndarray
    change: np.ndarray
    left_at: float

    __repr__ = short_repr

    @property
    def holds(self) -> bool:
        """Whether the linear regime lasts to the horizon."""
        return not self.left_at <= self.times[-1]


def regime_of(report: Any) -> Regime | None:
    """The `Regime` of a report that has its model, else None."""
    from gradstarve.diagnosis._groups import reaches

    model = report.model
    if model is None or not report.margins[report.at].any():
        return None
    a = residuals(report)
    n = len(report.labels)
    records = np.unique(np.searchsorted(report.times, report.times[report.at] * np.geomspace(1e-3, 1, _POINTS)))
    records = records[(records > 0) & (records <= report.at)]
    some = np.unique(np.linspace(0, n - 1, min(n, _SAMPLES)).astype(int))
    before = model.kernel(samples=some)
    change = []
    for record in records:
        after = model.kernel(model.moved(a[record]), samples=some)
        change.append(float(np.linalg.norm(after - before) / np.linalg.norm(before)))
    times, change = report.times[records], np.array(change)
    change[~np.isfinite(change)] = np.inf
    return Regime(times, change, reaches(np.r_[0.0, times], np.r_[0.0, change], LEFT))


def residuals(report: Any) -> np.ndarray:
    """a [T, n, C], the integral over time of what each output of each trained sample is told."""
    if report.classes is None:
        slopes = (report.labels * expit(-report.margins))[:, :, None]
    else:
        slopes = np.eye(report.classes.count)[report.labels] - softmax(report.logits, axis=-1)
    steps = np.diff(report.times)[:, None, None] * (slopes[1:] + slopes[:-1]) / 2
    return np.concatenate([np.zeros_like(slopes[:1]), np.cumsum(steps, 0)])


def regime_lines(report: Any) -> list[str]:
    """In one sentence: when the linear regime will be left, and what that does to the statement."""
    regime = report.regime
    if regime is None:
        return []
    last = f"{100 * regime.change[-1]:.0f} %" if np.isfinite(regime.change[-1]) else "more than can be computed"
    if regime.holds:
        until = report.when(report.horizon)
        return [f"Predicted change of the kernel up to {until}: {last}. The linear regime lasts that long."]
    return [
        f"The linear regime will be left at {report.when(regime.left_at)}, before the horizon of {number(report.horizon)} "
        f"(there the kernel is predicted to have changed by {last}): times after it are too long, for features that are "
        "learnt speed training up, and accuracies are those of the linearised network at equal training error. Train some "
        "steps, and compare: report.after_training(model)."
    ]
