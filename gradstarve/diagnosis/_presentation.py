"""One page that says what a report found: verdict, curves of the worst group, all groups, remedies, what is learnt when."""

from __future__ import annotations

import base64
import textwrap
from typing import Any

import numpy as np

from gradstarve.diagnosis._groups import ALARM_GAP, ALARM_INDEX, ALARM_P, GroupLaw
from gradstarve.diagnosis._regime import regime_lines
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    INK,
    NOTE,
    did_you_mean,
    html_table,
    new_figure,
    number,
    png_bytes,
    save,
    sheet,
    signed_map,
    table_text,
    to_jsonable,
)

# A report as text: the summary a person reads first, the tables below it, and the numbers as a dictionary.

def classes_of(law: GroupLaw) -> str:
    """The class that the feature favours, in words."""
    return f"class {law.of}"


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
            f"{number(report.error)} ({report.when(report.horizon)}), the rest has moved the logit by "
            f"{number(law.rest[at])}, where it would have moved it by {number(law.rest_alone[at])} without the feature: "
            f"starvation index {number(law.index[at], 2)}, on the trained samples."
        )
        if not report.named:
            inside, outside = (", ".join(map(str, np.flatnonzero(which)[:5])) for which in _sides(law))
            lines.append(f"  Samples that have it: {inside}, ...; of the same class without it: {outside}, ...")
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
    return "\n".join([*lines, *heldout_lines(report), *report.notes])


def heldout_lines(report: Any) -> list[str]:
    """In sentences: the worst cell on samples that were not seen, and what is predicted to help it most."""
    found = report.heldout
    if found is None:
        return []
    worst, plain = found.worst, found.plain
    how = f"each of {found.splits} parts held out in turn" if found.splits else "the test samples given"
    lines = [
        f"Not seen in training ({how}): the worst cell is '{worst.name}', of which {percent(plain.accuracy)} "
        f"{between(plain.interval)} are predicted to be right at {report.when(plain.time)} "
        f"({percent(worst.in_sample[found.at])} of the samples trained on). The mean over cells is {percent(plain.mean)}."
    ]
    best = found.plans[0]
    if best.accuracy > plain.accuracy + _WORTH:
        lines.append(
            f"  Predicted to help the worst cell most: {best.name}, {percent(best.accuracy)} {between(best.interval)}"
            f"{'' if best.worst == plain.worst else f' (then {best.worst!r} is the worst)'}, with a mean over cells of "
            f"{percent(best.mean)}, until {report.when(best.time)}. It takes {best.cost}."
        )
        if best.interval[0] <= plain.interval[1]:
            lines.append("  The two intervals overlap: with so few samples in the worst cell this is not certain.")
    else:
        lines.append(f"  No way to train that was tried is predicted to lift it by more than {100 * _WORTH:.0f} points.")
    return [*lines, *found.notes]


_WORTH = 0.02


def percent(rate: float) -> str:
    """A rate in percent."""
    return "?" if np.isnan(rate) else f"{100 * rate:.0f} %"


def between(interval: tuple[float, float]) -> str:
    """An interval of rates in percent."""
    return f"({100 * interval[0]:.0f} to {100 * interval[1]:.0f})"


def cell_rows(report: Any) -> list[tuple[str, ...]]:
    """One row per cell, the worst first, header first."""
    rows = [("cell", "trained on", "not seen", "right, not seen", "95 %", "right, of trained on")]
    for c in report.heldout.cells:
        numbers = (percent(c.accuracy[-1]), between(c.interval).strip("()"), percent(c.in_sample[-1]))
        rows.append((c.name, str(c.trained), str(c.tested), *numbers))
    return rows


def plan_rows(report: Any) -> list[tuple[str, ...]]:
    """One row per way to train, the best first, header first."""
    rows = [("way to train", "worst cell", "right", "95 %", "mean over cells", "until", "takes")]
    for p in report.heldout.plans:
        numbers = (percent(p.accuracy), between(p.interval).strip("()"), percent(p.mean))
        rows.append((p.name, p.worst, *numbers, report.when(p.time), p.cost))
    return rows


def _sides(law: GroupLaw) -> tuple[np.ndarray, np.ndarray]:
    """Members of a group, and the others of the classes that it splits."""
    members = law.group.members
    mine = law.group.labels == law.favours
    return members & mine, ~members & mine


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
        of = law.of
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
    parts = ["\n".join([summary(report), *regime_lines(report)])]
    if report.heldout is not None:
        parts.append("Predicted on samples not seen in training, the worst cell first\n" + table_text(cell_rows(report)))
        parts.append("Ways to train, predicted on samples not seen, the best first\n" + table_text(plan_rows(report)))
    if report.groups:
        title = (
            "Features of the groups" if report.named else "Clusters within classes, looked for because no groups were named"
        )
        parts.append(f"{title} (times at which the logit has moved by 1; index at time {number(report.horizon)})")
        parts[-1] += "\n" + table_text(group_rows(report))
    if report.remedies:
        title = "The index under remedies, on the trained samples (against the rest alone in the same time)"
        parts.append(f"{title}\n{table_text(remedy_rows(report))}")
    if report.classes is not None:
        parts.append(
            "The index under remedies and the eigenvectors, on the trained samples, are those of two classes and left out "
            "here; the ways to train above are predicted for all classes."
        )
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
        "classes": ["−", "+"] if report.classes is None else list(report.classes.names),
        "times": report.times,
        "errors": report.errors,
        "groups": [law_dict(law) for law in report.groups],
        "remedies": [vars(o) for o in report.remedies],
        "features": None if f is None else {name: getattr(f, name) for name in vars(f) if name != "vectors"},
        "notes": list(report.notes),
        "heldout": heldout_dict(report.heldout),
        "training": None if report.training is None else vars(report.training),
        "regime": None if report.regime is None else vars(report.regime),
    }
    return to_jsonable(numbers)


def frame(report: Any, what: str) -> Any:
    """See `StarvationReport.to_pandas`."""
    try:
        import pandas as pd
    except ImportError:
        raise ImportError("to_pandas needs pandas: pip install 'gradstarve[sweep]' (or pip install pandas)") from None
    tables = ("cells", "plans", "groups", "curves")
    if what not in tables:
        raise ValueError(f"what must be one of {', '.join(tables)}, got {what!r}{did_you_mean(str(what), tables)}")
    found = report.heldout
    if what == "groups":
        columns = ("name", "of", "share", "size", "strength", "p_value", "separation", "alarm")
        rows = [{name: getattr(law, name) for name in columns} | {"index": law.index[law.at]} for law in report.groups]
        return pd.DataFrame(rows, columns=[*columns, "index"])
    cells, plans = ((), ()) if found is None else (found.cells, found.plans)
    if what == "curves":
        times = pd.Index(report.times[:0] if found is None else found.times, name="time")
        return pd.DataFrame({cell.name: cell.accuracy for cell in cells}, index=times)
    if what == "plans":
        ends = ("name", "worst", "accuracy", "mean", "time", "cost")
        rows = [{name: getattr(plan, name) for name in ends} | _ends(plan.interval) for plan in plans]
        return pd.DataFrame(rows, columns=[*ends, "low", "high"])
    ends = ("name", "label", "attribute", "agrees", "trained", "tested")
    rows = [
        {name: getattr(cell, name) for name in ends}
        | {"accuracy": cell.accuracy[-1], "in_sample": cell.in_sample[-1]}
        | _ends(cell.interval)
        for cell in cells
    ]
    return pd.DataFrame(rows, columns=[*ends, "accuracy", "in_sample", "low", "high"])


def _ends(interval: tuple[float, float]) -> dict[str, float]:
    return {"low": interval[0], "high": interval[1]}


def heldout_dict(found: Any) -> Any:
    """The numbers of the prediction for samples not seen."""
    if found is None:
        return None
    parts = {"cells": [vars(c) for c in found.cells], "plans": [vars(p) for p in found.plans]}
    return {"times": found.times, "splits": found.splits, **parts, "notes": list(found.notes)}


def law_dict(law: GroupLaw) -> dict[str, Any]:
    """The numbers of one group."""
    curves = ("carried", "carried_alone", "rest", "rest_alone", "index", "reverse")
    return {
        "name": law.name,
        "against": law.group.against,
        "favours": law.favours,
        "class": law.of,
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


def html(report: Any) -> str:
    """The report as one HTML page without anything outside of it: summary, figure, tables. No scripts."""
    from html import escape

    image = base64.b64encode(png_bytes(page(report))).decode()
    lines = [*summary(report).splitlines(), *regime_lines(report)]
    said = "".join(f"<p>{escape(line)}</p>" for line in lines)
    parts = [
        f"<h1>Starvation report</h1>{said}",
        f'<img alt="The report as figures; its numbers are in the tables" src="data:image/png;base64,{image}">',
    ]
    if report.heldout is not None:
        parts.append("<h2>Samples that training has not seen</h2>" + html_table(cell_rows(report)))
        parts.append("<h2>Ways to train, predicted on samples not seen</h2>" + html_table(plan_rows(report)))
    if report.groups:
        parts.append("<h2>Features of the groups, on the trained samples</h2>" + html_table(group_rows(report)))
    style = (
        "body{font:16px/1.5 sans-serif;max-width:75em;margin:2em auto;padding:0 1em;color:#222}img{max-width:100%}"
        "table{border-collapse:collapse;display:block;overflow-x:auto}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;"
        "text-align:left}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Starvation report</title><style>{style}</style></head><body>{''.join(parts)}</body></html>\n"
    )


# A report as a page of figures.

_REST, _FEATURE, _QUIET = COLOURS[0], COLOURS[1], GUIDE
_MOST = 8  # rows of a panel
_CLEAR: Any = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.85}


def page(report: Any, path: Any = None) -> Any:
    """The page of a `StarvationReport`, 12.4 inches wide, as a matplotlib `Figure`; saved to `path` if there is one.

    Above: what is learnt, and the groups; then the samples not seen, cell by cell over time and by ways to train; below, of
    two classes, in-sample remedies and eigenvectors.
    """
    unseen, inner = report.heldout is not None, bool(report.remedies) or report.features is not None
    heights = [2.7, *([3.0] if unseen else []), *([2.5] if inner else [])]
    with sheet():
        total = 1.75 + sum(heights) + 0.85 * len(heights)
        figure = new_figure(12.4, total, layout=None)
        tops = total - 1.75 - np.cumsum([0.0, *heights[:-1]]) - 0.85 * np.arange(len(heights))
        rows = iter([(top / total, (top - high) / total) for top, high in zip(tops, heights, strict=True)])
        top, bottom = next(rows)
        place = {"top": top, "bottom": bottom, "left": 0.06, "right": 0.985}
        above = figure.add_gridspec(1, 2, **place, wspace=0.42, width_ratios=(1.25, 1))
        shown = (report.alarms or (report.groups if report.named else ()))[:1]
        _headline(figure, report, total)
        curves, groups = (figure.add_subplot(cell) for cell in above)
        if shown:
            _curves(curves, report, shown[0])
        else:
            _training(curves, report)
        (_groups if report.named or not report.groups else _clusters)(groups, report)
        if unseen:
            top, bottom = next(rows)
            middle = figure.add_gridspec(
                1, 2, left=0.06, right=0.985, top=top, bottom=bottom, wspace=0.62, width_ratios=(1, 0.8)
            )
            cells, ways = (figure.add_subplot(cell) for cell in middle)
            _cells(cells, report)
            _ways(ways, report)
        if inner:
            top, bottom = next(rows)
            below = figure.add_gridspec(
                1, 3, left=0.135, right=0.945, top=top, bottom=bottom, wspace=0.32, width_ratios=(1, 1.2, 1)
            )
            remedies, order, starvation = (figure.add_subplot(cell) for cell in below)
            _remedies(remedies, report, shown)
            _order(order, report, shown)
            _starvation(starvation, report)
        if path is not None:
            save(figure, path)
    return figure


def _cells(panel: Any, report: Any) -> None:
    """Predicted accuracy on samples not seen, over time: the worst cells in colour, the others quiet."""
    found = report.heldout
    seen = found.times > 0
    t = found.times[seen]
    for k, cell in reversed(list(enumerate(found.cells))):
        look = {"color": COLOURS[k], "linewidth": 2.2} if k < _LOUD else {"color": _QUIET, "linewidth": 0.9}
        name = f"{cell.name} ({cell.tested})" if k < _LOUD else None
        panel.plot(t, cell.accuracy[seen], label=name, **look)
        if k == 0:
            low, high = cell.interval
            panel.plot([t[-1]] * 2, [low, high], color=COLOURS[k], linewidth=4, alpha=0.35, solid_capstyle="butt")
            panel.plot(t, cell.in_sample[seen], color=COLOURS[k], linewidth=1.2, linestyle=":", label="the same, trained on")
    panel.set_xscale("log")
    panel.set_xlim(t[0], t[-1] * 1.04)
    panel.set_ylim(-0.03, 1.03)
    panel.set_xlabel("training time (step size × step), to the horizon")
    panel.set_ylabel("part that is right")
    panel.set_title("Samples not seen in training, by cell (number), the worst first", loc="left")
    handles, labels = panel.get_legend_handles_labels()
    panel.legend(handles[::-1], labels[::-1], loc="best", fontsize=8.5)


_LOUD = 4


def _ways(panel: Any, report: Any) -> None:
    """Ways to train by their worst cell, with intervals."""
    plans = report.heldout.plans[:9]
    rows = np.arange(len(plans))
    values = np.array([plan.accuracy for plan in plans])
    low, high = np.array([plan.interval for plan in plans]).T
    plain = next(plan for plan in report.heldout.plans if plan is report.heldout.plain)
    colours = [_FEATURE if plan is plain else COLOURS[2] if plan.accuracy > plain.accuracy else _QUIET for plan in plans]
    panel.barh(rows, values, color=colours, height=0.62)
    bars = np.stack([np.maximum(values - low, 0), np.maximum(high - values, 0)])
    panel.errorbar(values, rows, xerr=bars, fmt="none", ecolor=INK, elinewidth=0.9, capsize=2)
    panel.set_yticks(rows, [textwrap.fill(plan.name, 34) for plan in plans], fontsize=8.5)
    panel.set_ylim(max(len(plans), 4) - 0.5, -0.5)
    panel.set_xlim(0, 1.03)
    panel.axvline(plain.accuracy, color=NOTE, linewidth=0.9, linestyle="--")
    panel.grid(visible=False, axis="y")
    panel.set_xlabel("right in the worst cell, not seen in training (95 %)")
    panel.set_title("Ways to train, the best first", loc="left")


def _headline(figure: Any, report: Any, height: float) -> None:
    if report.alarms:
        law = report.alarms[0]
        first = "learns first" if law.learnt_at[0] < law.learnt_at[1] else "leans on"
        title = f"'{law.name}' will starve the rest of {classes_of(law)}"
        text = (
            f"{100 * law.share:.0f} % of {classes_of(law)} share a feature that the network {first}. When the mean error is "
            f"down to {number(report.error, 2)}, the rest of the class has moved the logit by {number(law.rest[law.at], 2)} "
            f"instead of {number(law.rest_alone[law.at], 2)} (starvation index {number(law.index[law.at], 2)}; 0 is "
            "unharmed, 1 not learnt at all, above 1 pushed to the wrong side)."
        )
        if len(report.alarms) > 1:
            text += f" {len(report.alarms) - 1} more of the groups below starve theirs."
    else:
        what = "No named feature starves" if report.named else "No feature was found that starves"
        title = f"{what} the rest of its class"
        text = report.summary().removeprefix("No alarm: ")
        text = text[:1].upper() + text[1:]
    colour = _FEATURE if report.alarms else COLOURS[2]
    figure.text(0.03, 1 - 0.38 / height, title, fontsize=15, fontweight="bold", color=colour, va="center")
    lines = textwrap.wrap(text.replace("\n", " "), 165)
    lines = [*lines[:3]] if len(lines) <= 3 else [*lines[:2], lines[2] + " …"]
    base = f"Predicted before training, {len(report.labels)} samples, from the kernel of the network at its first weights."
    figure.text(0.03, 1 - 0.6 / height, "\n".join([*lines, base]), fontsize=9.5, va="top", linespacing=1.35, color=INK)


def _curves(panel: Any, report: Any, law: GroupLaw) -> None:
    """What the logit owes to the feature and to the rest, and what the rest would be alone."""
    seen = law.times > 0
    t = law.times[seen]
    panel.plot(t, law.carried[seen], color=_FEATURE, linewidth=2, linestyle=(0, (5, 2)), label=f"'{law.name}'")
    panel.plot(t, law.rest[seen], color=_REST, linewidth=2.2, label="the rest")
    panel.plot(t, law.rest_alone[seen], color=_REST, linewidth=1.5, linestyle=":", label=f"the rest, without '{law.name}'")
    panel.fill_between(t, law.rest[seen], law.rest_alone[seen], color=_REST, alpha=0.1, linewidth=0)
    panel.axvline(report.horizon, color=NOTE, linewidth=0.9)
    panel.axhline(0, color=NOTE, linewidth=0.6)
    panel.set_xscale("log")
    panel.set_xlim(t[0], t[-1])
    panel.annotate(
        f"mean error {number(report.error, 2)}", (report.horizon, 1), (0, 3), xycoords=("data", "axes fraction"),
        textcoords="offset points", ha="center", va="bottom", fontsize=8.5, color=NOTE,
    )  # fmt: skip
    panel.set_xlabel("training time (step size × step)")
    panel.set_ylabel("logit gained")
    panel.set_title(f"What is learnt of {classes_of(law)}", loc="left")
    panel.legend(loc="upper left")


def _training(panel: Any, report: Any) -> None:
    seen = report.times > 0
    panel.plot(report.times[seen], report.errors[seen], color=_REST, linewidth=2)
    panel.set_xscale("log")
    panel.set_xlabel("training time (step size × step)")
    panel.set_ylabel("mean error")
    panel.set_title("Predicted training", loc="left")


def _groups(panel: Any, report: Any) -> None:
    """The index of every group, alarms in colour."""
    laws = report.groups[:_MOST]
    if not laws:
        return _empty(panel, "no group could be compared")
    values = np.nan_to_num([law.index[law.at] for law in laws])
    colours = [_FEATURE if law.alarm else _QUIET for law in laws]
    _bars(panel, [_name(law) for law in laws], values, colours)
    panel.axvline(ALARM_INDEX, color=NOTE, linewidth=0.9, linestyle="--")
    panel.set_xlabel("starvation index of the rest (colour: alarm)")
    panel.set_title("Which features starve the rest of their class", loc="left")
    return None


def _name(law: GroupLaw) -> str:
    name = textwrap.shorten(law.name, 18, placeholder="…")
    untold = ", index ?" if np.isnan(law.index[law.at]) else ""
    return f"{name}\n{100 * law.share:.0f} % of {classes_of(law)}, p = {number(law.p_value, 1)}{untold}"


def _clusters(panel: Any, report: Any) -> None:
    """Clusters that were found: how far they stand apart, and what they starve; alarms are in the shaded corner."""
    laws = report.groups
    gaps = np.array([law.separation for law in laws])
    values = np.clip(np.nan_to_num([law.index[law.at] for law in laws]), -0.5, 1.6)
    right, top = max(60.0, 1.5 * gaps.max()), max(0.8, 1.15 * values.max())
    panel.fill_between([ALARM_GAP, right], ALARM_INDEX, top, color=_FEATURE, alpha=0.12, linewidth=0)
    panel.text(right * 0.97, top * 0.98, "alarm", ha="right", va="top", color=_FEATURE)
    for law, x, y in zip(laws, gaps, values, strict=True):
        colour = _FEATURE if law.alarm else _QUIET
        panel.scatter([x], [y], s=20 + 160 * law.share, color=colour, linewidth=0, zorder=3)
        if y >= ALARM_INDEX:  # the harmless ones lie on each other
            words = f"{100 * law.share:.0f} % of {classes_of(law)}"
            side = 1 if x < 0.4 * right else -1
            look = {"fontsize": 8, "color": INK, "zorder": 4, "ha": "left" if side > 0 else "right"}
            panel.annotate(words, (x, y), (8 * side, 4), textcoords="offset points", **look)
    panel.axhline(0, color=NOTE, linewidth=0.6)
    panel.set_xscale("log")
    panel.set_xlim(0.8 * gaps.min(), right)
    panel.set_xticks([tick for tick in (2, 5, 10, 25, 50, 100, 200) if 0.8 * gaps.min() < tick < right])
    panel.get_xaxis().set_major_formatter("{x:g}")
    panel.minorticks_off()
    panel.set_ylim(min(-0.08, values.min() - 0.1), top)
    panel.set_xlabel("gap between the cluster and its class (sd)")
    panel.set_ylabel("starvation index of the rest")
    panel.set_title("Clusters found in the classes", loc="left")


def _remedies(panel: Any, report: Any, shown: Any) -> None:
    outcomes = [o for o in report.remedies if shown and o.group == shown[0].name]
    if not outcomes:
        return _empty(panel, "no alarm, no remedies")
    names = [o.remedy if o.remedy != "none" else "train as planned" for o in outcomes]
    colours = [_FEATURE if o.index >= ALARM_INDEX else COLOURS[2] for o in outcomes]
    _bars(panel, [textwrap.fill(name, 22) for name in names], np.nan_to_num([o.index for o in outcomes]), colours)
    panel.axvline(ALARM_INDEX, color=NOTE, linewidth=0.9, linestyle="--")
    panel.set_xlabel("starvation index that is left")
    panel.set_title(f"Remedies against '{shown[0].name}', trained samples", loc="left")
    return None


def _bars(panel: Any, names: Any, values: np.ndarray, colours: Any) -> None:
    rows = np.arange(len(names))
    shown = np.clip(values, -0.5, 1.6)
    panel.barh(rows, shown, color=colours, height=0.62)
    for row, value, end in zip(rows, values, shown, strict=True):
        side = 1 if end >= 0 else -1
        panel.annotate(
            number(value, 2), (end, row), (3 * side, 0), textcoords="offset points", va="center",
            ha="left" if side > 0 else "right", fontsize=8.5, bbox=_CLEAR,
        )  # fmt: skip
    panel.set_yticks(rows, names, fontsize=8.5)
    panel.set_ylim(max(len(names), 4) - 0.5, -0.5)  # few bars stay bars
    panel.axvline(0, color=NOTE, linewidth=0.8)
    panel.grid(visible=False, axis="y")
    low, high = min(0.0, float(shown.min())), max(0.4, float(shown.max()))
    panel.set_xlim(low - (0.3 * (high - low) if low < 0 else 0), high + 0.12 * (high - low))


def _order(panel: Any, report: Any, shown: Any) -> None:
    """What is learnt when: the eigenvectors of K by the time of their half, and the features of groups among them."""
    f = report.features
    if f is None:
        return _empty(panel, "eigenvectors not asked for")
    half = np.where(np.isfinite(f.half_time), f.half_time, report.times[-1])
    panel.scatter(
        half, f.frequency, s=20 + 330 * f.response / f.response.max(), color=_REST, alpha=0.45, linewidth=0, zorder=3
    )
    for k in np.argsort(-f.response)[:4]:
        panel.annotate(_feature(f, k), (half[k], f.frequency[k]), (9, 5), textcoords="offset points", fontsize=8.5, zorder=4)
    for law in shown:
        t = law.learnt_at[0]
        if np.isfinite(t):
            panel.scatter([t], [law.share], s=90, marker="D", color=_FEATURE, zorder=5)
            panel.annotate(
                f"'{law.name}'", (t, law.share), (-8, -14), textcoords="offset points", fontsize=8.5, color=_FEATURE,
                ha="right", bbox=_CLEAR, zorder=4,
            )
    panel.axvline(report.horizon, color=NOTE, linewidth=0.9)
    panel.set_xscale("log")
    first = min([half.min(), *(law.learnt_at[0] for law in shown)])
    panel.set_xlim(first / 2, max(half.max(), report.horizon) * 2)
    panel.set_ylim(0, 1.12)
    panel.set_xlabel("time at which half is learnt" + (" (group: logit moved by 1)" if shown else ""))
    panel.set_ylabel("share of samples")
    panel.set_title("Eigenvectors u of the kernel (size: response)", loc="left")
    return None


def _feature(f: Any, k: Any) -> str:
    return f"u{f.number[k] + 1}"


def _starvation(panel: Any, report: Any) -> None:
    """(14.3) as a table of colours: what a stronger feature (column) does to the response of another (row)."""
    f = report.features
    if f is None:
        return _empty(panel, "")
    count = len(f.number)
    shown = np.where(np.eye(count, dtype=bool), np.nan, f.starvation)
    limit = max(0.05, float(np.nanmax(np.abs(shown), initial=0)))
    image = panel.imshow(shown, cmap=signed_map(), vmin=-limit, vmax=limit)
    names = [_feature(f, k) for k in range(count)]
    panel.set_xticks(range(count), names, fontsize=8)
    panel.set_yticks(range(count), names, fontsize=8)
    panel.grid(visible=False)
    panel.set_xlabel("if this feature were stronger …")
    panel.set_ylabel("… this one would be learnt", labelpad=2)
    panel.set_title("Starved features: orange", loc="left")
    bar = panel.figure.colorbar(image, ax=panel, fraction=0.046, pad=0.03)
    bar.set_label("less        d log z* / d log s²        more", fontsize=8.5)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return None


def _empty(panel: Any, words: str) -> None:
    panel.set_axis_off()
    panel.text(0.5, 0.5, words, ha="center", va="center", transform=panel.transAxes, color=_QUIET)


def margin_page(report: Any, path: Any = None) -> Any:
    """Members and others of every group over time, one panel a group (the first six), for a `MarginReport`."""
    groups = report.groups[:6]
    columns = max(1, min(3, len(groups)))
    rows = max(1, -(-len(groups) // columns))
    with sheet():
        figure = new_figure(1.5 + 3.4 * columns, 0.9 + 3.1 * rows)
        panels = np.ravel(figure.subplots(rows, columns, squeeze=False, sharex=True))
        for panel in panels[len(groups) :]:
            panel.set_axis_off()
        for panel, group in zip(panels, groups, strict=False):
            panel.plot(
                report.times, group.members, color=_FEATURE, linestyle=(0, (5, 2)), linewidth=2, label=f"'{group.name}'"
            )
            panel.plot(report.times, group.others, color=_REST, linewidth=2, label="others of its class")
            panel.fill_between(report.times, group.members, group.others, color=_FEATURE, alpha=0.1, linewidth=0)
            panel.axvline(report.horizon, color=NOTE, linewidth=0.9)
            verdict = "ALARM: " if group.alarm else ""
            panel.set_title(f"{verdict}reliance {number(group.reliance, 2)}, p = {number(group.p_value, 1)}", loc="left")
            panel.set_xlabel("time")
            panel.set_ylabel("mean margin gained")
            panel.legend()
        if path is not None:
            save(figure, path)
    return figure
