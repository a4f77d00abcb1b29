"""After training: how the features of the groups fared, measured, against what the report had predicted before."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from scipy.special import expit

from gradstarve.diagnosis._classes import against, true_margins
from gradstarve.diagnosis._groups import ALARM_INDEX, GroupLaw, index_of
from gradstarve.diagnosis._presentation import told
from gradstarve.ground import as_floats, check_finite, html_lines, number, short_repr, shown, table_text, to_jsonable

# Margins are computed in 32 bits as a rule.
_ROUNDING = 4 * float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Measured:
    """One group after training, measured and predicted at the same mean loss of training.

    - `carried`: logit carried by the feature: mean of members less mean of the others, within classes, since the start;
    - `rest`: gain of the margin without the feature; `index`: 1 - rest / gain alone. The gain alone is measured where a
      run without the feature was given, else predicted; nan where it is no more than the error it is known with.
    """

    name: str
    carried: float
    carried_predicted: float
    rest: float
    rest_predicted: float
    alone: float
    index: float
    index_predicted: float
    alarm: bool
    alarm_predicted: bool


@dataclass(frozen=True, eq=False)
class AfterTraining:
    """Measured against predicted: `groups`, one `Measured` each, and how well the linearised network told the margins.

    - `time`: the predicted time at which the mean loss is the one measured (`beyond`: whether it is not reached within the
      times of the report, and the last of them is taken);
    - `error`: measured mean error; `rank_correlation`: Spearman's, of the gains of the samples, measured and predicted;
      `group_rank_correlation`: of the indices of groups, nan with fewer than three;
    - `kernel_change`: |K_after - K| / |K|, nan without a model; far above 0 the network has left the linear regime.
    """

    groups: tuple[Measured, ...]
    time: float
    beyond: bool
    error: float
    rank_correlation: float
    group_rank_correlation: float
    kernel_change: float
    measured: np.ndarray = field(repr=False)
    predicted: np.ndarray = field(repr=False)

    def rows(self) -> list[tuple[str, ...]]:
        """One row per group, header first."""
        said = "predicted"
        header = ("feature", "it carries", said, "rest gains", said, "index", said, "starves", said)
        rows: list[tuple[str, ...]] = [header]
        for g in self.groups:
            numbers = (g.carried, g.carried_predicted, g.rest, g.rest_predicted)
            indices = (told(g.index), told(g.index_predicted))
            verdicts = ("yes" if one else "no" for one in (g.alarm, g.alarm_predicted))
            rows.append((g.name, *(number(v, 3) for v in numbers), *indices, *verdicts))
        return rows

    def table(self) -> str:
        """Measured against predicted as plain text, and below it how far the prediction can be trusted."""
        lines = [table_text(self.rows())] if self.groups else []
        where = "beyond the times of the report, whose last is" if self.beyond else "as predicted for"
        lines.append(
            f"Mean error {number(self.error)}, {where} time {number(self.time)}. Gains of the samples, measured and "
            f"predicted: rank correlation {number(self.rank_correlation, 2)}."
        )
        if np.isfinite(self.kernel_change):
            trust = (
                "the linearised network is still a fair description"
                if self.kernel_change < 0.5
                else ("the network has left its linear regime; where the columns differ, trust the measured ones")
            )
            lines.append(f"The kernel changed by {100 * self.kernel_change:.0f} %: {trust}.")
        return "\n".join(lines)

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_lines(self.table())

    def to_dict(self) -> dict[str, Any]:
        """Every number in plain JSON types; inf, -inf and nan are strings of these names."""
        names = (
            "time",
            "beyond",
            "error",
            "rank_correlation",
            "group_rank_correlation",
            "kernel_change",
            "measured",
            "predicted",
        )
        return to_jsonable({"groups": [vars(g) for g in self.groups], **{name: getattr(self, name) for name in names}})


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Spearman's rank correlation of two sequences; nan where one of them is constant.

    >>> rank_correlation(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))
    0.5
    """
    from scipy import stats  # here: it takes as long to import as the rest of the room

    if min(np.ptp(first), np.ptp(second)) == 0:
        return float("nan")
    found: Any = stats.spearmanr(first, second)
    return float(round(found.statistic, 12))


def after_training(report: Any, trained: Any, *, alone: Any = None) -> AfterTraining:
    """Measured against predicted, at the predicted time of equal mean loss.

    `trained`: the parameters after training, of the same structure as those the report was made from; or the margins y f
    [n] of the training samples, in the order of the data, and of several classes their logits [n, K]. `alone`: the same of a
    network trained on the data without the feature, from the same first weights, for a starvation index without any
    prediction in it. `ValueError` where these are of the wrong shape or not finite.
    """
    if not hasattr(report, "labels") or not hasattr(report, "margins"):
        raise ValueError(f"report must be a StarvationReport, got {shown(report)}; give what starvation_report found")
    outputs, change = _outputs(report, trained, "trained")
    reference = None if alone is None else _outputs(report, alone, "alone")[0]
    times, start = report.times, report.margins[0]
    begun = start if report.classes is None else report.logits[0]
    measured = outputs if report.classes is None else true_margins(outputs, report.classes.index)
    losses = np.logaddexp(0, -report.margins).mean(1)
    loss = float(np.logaddexp(0, -measured).mean())
    at, beyond = _time_of_loss(losses, loss)

    def predicted(curve: np.ndarray) -> Any:
        return (1 - at % 1) * curve[int(at)] + (at % 1) * curve[min(int(at) + 1, len(curve) - 1)]

    margins = predicted(report.margins)
    groups = tuple(
        _measure(law, _seen(report, law, outputs - begun), predicted, _seen(report, law, reference, begun))
        for law in report.groups
    )
    several = len(groups) >= 3
    return AfterTraining(
        groups=groups,
        time=float(predicted(times)),
        beyond=beyond,
        error=float(expit(-measured).mean()),
        rank_correlation=rank_correlation(measured - start, margins - start),
        group_rank_correlation=rank_correlation(*np.array([(g.index, g.index_predicted) for g in groups]).T)
        if several
        else float("nan"),
        kernel_change=change,
        measured=measured,
        predicted=margins,
    )


def _time_of_loss(losses: np.ndarray, loss: float) -> tuple[float, bool]:
    """The (fractional) record at which the falling `losses` are at `loss`, and whether they never are."""
    below = np.flatnonzero(losses <= loss)
    if not below.size:
        return float(len(losses) - 1), True
    k = int(below[0])
    if k == 0:
        return 0.0, False
    return k - 1 + float((losses[k - 1] - loss) / (losses[k - 1] - losses[k])), False


def _seen(report: Any, law: GroupLaw, outputs: Any, start: Any = 0.0) -> Any:
    """Gains of the margins of the view of a law, [n], from margins, or from logits of several classes."""
    if outputs is None or report.classes is None:
        return None if outputs is None else outputs - start
    weights = against(report.classes.names.index(law.label), report.classes.count)
    return law.group.labels * ((outputs - start) @ weights)


def _measure(law: GroupLaw, gains: np.ndarray, predicted: Any, alone: np.ndarray | None) -> Measured:
    group, labels = law.group, law.group.labels
    mine = labels == law.favours
    rest = float((group.removal(labels) @ gains)[mine].mean())
    foretold = float(predicted(law.rest)), float(predicted(law.rest_alone))
    noise = float(predicted(law.noise))
    index_predicted = float(index_of(*foretold, noise))
    alone_gain = foretold[1] if alone is None else float(alone[mine].mean())
    if alone is not None:
        noise = _ROUNDING * float(np.abs(alone).max())
    carried = law.favours * float(group.contrast @ gains)
    index = float(index_of(rest, alone_gain, noise))
    # What training in this arithmetic carries where nothing drives it, and what is lost in the margins themselves.
    drift = max(float(predicted(law.noise_carried)), _ROUNDING * float(np.abs(group.contrast).sum() * np.abs(gains).max()))
    return Measured(
        name=law.name,
        carried=carried,
        carried_predicted=float(predicted(law.carried)),
        rest=rest,
        rest_predicted=foretold[0],
        alone=alone_gain,
        index=index,
        index_predicted=index_predicted,
        alarm=carried > drift and index >= ALARM_INDEX,
        alarm_predicted=law.alarm,
    )


def _outputs(report: Any, trained: Any, name: str) -> tuple[np.ndarray, float]:
    """Margins [n], or logits [n, K] of several classes, of parameters or as given, and the relative change of the kernel
    (nan where they are given)."""
    n = len(report.labels)
    model, classes = report.model, report.classes
    if model is not None and model.holds(trained):
        here, signs = np.arange(n), report.labels
        if classes is None:
            outputs = signs * model.logits(trained)[:n, 0]
            change = signs[:, None] * model.kernel(trained, samples=here) * signs - report.kernel
        else:
            outputs = model.logits(trained)[:n]
            change = model.kernel(trained, samples=here, alike=len(report.kernel) == n) - report.kernel
        return outputs, float(np.linalg.norm(change) / np.linalg.norm(report.kernel))
    shape = (n,) if classes is None else (n, classes.count)
    if isinstance(trained, np.ndarray | jax.Array | list | tuple):
        try:
            outputs = as_floats(name, trained)
        except ValueError:
            outputs = np.empty(0)
        if outputs.shape == shape:
            check_finite(name, outputs)
            return outputs, float("nan")
    wanted = f"{'margins y f' if classes is None else 'logits'} of shape {shape}"
    if model is not None:
        wanted = f"parameters like those the report was made from, or {wanted}"
    got = np.shape(trained) if isinstance(trained, np.ndarray | jax.Array) else type(trained).__name__
    raise ValueError(f"{name} must be {wanted}, got {got}")
