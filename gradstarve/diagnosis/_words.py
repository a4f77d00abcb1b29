"""A report as text: the summary a person reads first, the tables below it, and the numbers as a dictionary."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.diagnosis._groups import ALARM_GAP, ALARM_INDEX, ALARM_P, GroupLaw
from gradstarve.ground import number, table_text, to_jsonable

SIGN = {1: "+", -1: "−"}


def classes_of(law: GroupLaw) -> str:
    """The class that the feature favours, in words."""
    return f"class {SIGN[int(law.favours)]}"


def describe(law: GroupLaw) -> str:
    """The group in words: name, how much of which class."""
    return f"'{law.name}' ({100 * law.share:.0f} % of {classes_of(law)})"


def told(index: float) -> str:
    """An index in two digits, "?" for one that cannot be told."""
    return "?" if np.isnan(index) else number(index, 2)


def summary(report: Any) -> str:
    """In sentences: which feature starves what, by how much, and what would help."""
    at, lines = report.at, []
    for law in report.alarms:
        lines.append(
            f"ALARM: {describe(law)} starves the rest of its class. When training is down to a mean error of "
            f"{number(report.error)} (time {number(report.horizon)}), the rest has moved the logit by "
            f"{number(law.rest[at])}, where it would have moved it by {number(law.rest_alone[at])} without the feature: "
            f"starvation index {number(law.index[at], 2)}."
        )
        if not report.named:
            inside, outside = (", ".join(map(str, np.flatnonzero(which)[:5])) for which in _sides(report, law))
            lines.append(f"  Samples that have it: {inside}, ...; of the same class without it: {outside}, ...")
        better = [o for o in report.remedies if o.group == law.name and o.remedy not in ("none", "remove the feature")]
        best = min(better, key=lambda o: np.nan_to_num(o.index, nan=np.inf))
        if best.index < law.index[at] - 0.05:
            lines.append(f"  What would help most, short of removing it: {best.remedy} (index {number(best.index, 2)}).")
        else:
            lines.append("  No remedy tried would help, short of removing the feature.")
    if not report.alarms:
        if not report.groups:
            lines.append("No group could be compared, so nothing can be said about starvation.")
        elif all(np.isnan(law.index[at]) for law in report.groups):
            lines.append("No alarm, and no all-clear: no starvation index can be told.")
        elif report.named:
            worst = max(report.groups, key=lambda law: np.nan_to_num(law.index[at], nan=-np.inf))
            lines.append(
                "No alarm: no named group starves the rest of its class. The highest index is "
                f"{number(worst.index[at], 2)}, of {describe(worst)}, p = {number(worst.p_value, 2)}; an alarm "
                f"needs {ALARM_INDEX:g} and p ≤ {ALARM_P:g}."
            )
        else:
            widest = report.groups[0]
            lines.append(
                "No alarm: no part of a class stands apart with a feature that starves the rest. The widest gap within a "
                f"class is {number(widest.separation, 2)} standard deviations ({describe(widest)}, index "
                f"{told(widest.index[at])}); an alarm needs {ALARM_GAP:g}, and an index of "
                f"{ALARM_INDEX:g}. Faint or rare features need groups to be seen."
            )
    return "\n".join([*lines, *report.notes])


def _sides(report: Any, law: GroupLaw) -> tuple[np.ndarray, np.ndarray]:
    """Members of a group, and the others of the classes that it splits."""
    members = law.group.members
    return members, ~members & (report.labels == law.favours)


def group_rows(report: Any) -> list[tuple[str, ...]]:
    """One row per group, header first."""
    last = "p" if report.named else "gap"
    header = (
        "feature",
        "of",
        "share",
        "strength",
        last,
        "it learnt at",
        "rest at",
        "alone at",
        "index",
        "reverse",
        "verdict",
    )
    rows: list[tuple[str, ...]] = [header]
    for law in report.groups:
        learnt = tuple(number(t, 2) if np.isfinite(t) else "never" for t in law.learnt_at)
        value = number(law.p_value if report.named else law.separation, 2)
        verdict = "starves the rest" if law.alarm else "no alarm"
        index, reverse = told(law.index[report.at]), told(law.reverse[report.at])
        of = SIGN[int(law.favours)]
        rows.append(
            (law.name, of, f"{100 * law.share:.0f} %", number(law.strength, 2), value, *learnt, index, reverse, verdict)
        )
    return rows


def remedy_rows(report: Any) -> list[tuple[str, ...]]:
    """One row per remedy and group, header first."""
    rows = [("remedy", "feature", "rest gains", "index", "error of the rest", "error of training")]
    for o in report.remedies:
        rows.append((o.remedy, o.group, number(o.rest), told(o.index), number(o.rest_error), number(o.error)))
    return rows


def feature_rows(report: Any) -> list[tuple[str, ...]]:
    """One row per eigenvector of K, header first."""
    f = report.features
    rows = [
        (
            "eigenvector of K",
            "strength s²",
            "samples",
            "alignment",
            "response z*",
            "half learnt at",
            "starved most by",
            "d log z*/d log s²",
        )
    ]
    for k in range(len(f.number)):
        by = int(f.starved_by[k])
        rows.append(
            (
                f"u{f.number[k] + 1}",
                number(f.strength[k]),
                f"{100 * f.frequency[k]:.0f} %",
                number(f.alignment[k], 2),
                number(f.response[k]),
                number(f.half_time[k], 2) if np.isfinite(f.half_time[k]) else "never",
                "nobody" if by < 0 else f"u{f.number[by] + 1}",
                "" if by < 0 else number(f.starvation[k, by], 2),
            )
        )
    return rows


def tables(report: Any) -> str:
    """The summary, then tables of groups, remedies and eigenvectors."""
    parts = [summary(report)]
    if report.groups:
        title = (
            "Features of the groups" if report.named else "Clusters within classes, looked for because no groups were named"
        )
        parts.append(f"{title} (times at which the logit has moved by 1; index at time {number(report.horizon)})")
        parts[-1] += "\n" + table_text(group_rows(report))
    if report.remedies:
        title = "Remedies, predicted (index against the rest alone in the same time)"
        parts.append(f"{title}\n{table_text(remedy_rows(report))}")
    if report.features is not None:
        parts.append("Eigenvectors of the kernel with the largest response\n" + table_text(feature_rows(report)))
    return "\n\n".join(parts)


def as_dict(report: Any) -> dict[str, Any]:
    """Every number of the report in plain JSON types, inf and nan as strings."""
    f = report.features
    numbers = {
        "alarms": [law.name for law in report.alarms],
        "horizon": report.horizon,
        "error": report.error,
        "samples": len(report.labels),
        "times": report.times,
        "errors": report.errors,
        "groups": [law_dict(law) for law in report.groups],
        "remedies": [vars(o) for o in report.remedies],
        "features": None if f is None else {name: getattr(f, name) for name in vars(f) if name != "vectors"},
        "notes": list(report.notes),
    }
    return to_jsonable(numbers)


def law_dict(law: GroupLaw) -> dict[str, Any]:
    """The numbers of one group."""
    curves = ("carried", "carried_alone", "rest", "rest_alone", "index", "reverse")
    return {
        "name": law.name,
        "against": law.group.against,
        "favours": law.favours,
        "classes": list(law.group.classes),
        "size": law.size,
        "share": law.share,
        "strength": law.strength,
        "p_value": law.p_value,
        "gap": law.separation,
        "alarm": law.alarm,
        "learnt_at": list(law.learnt_at),
        "index_at_horizon": float(law.index[law.at]),
        "reverse_at_horizon": float(law.reverse[law.at]),
        **{name: getattr(law, name) for name in curves},
    }
