"""The report of a training that has happened, from nothing but logged margins: for models that are not in JAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.special import expit

from gradstarve.diagnosis._groups import (
    ALARM_INDEX,
    ALARM_P,
    LOGIT,
    Group,
    index_of,
    make_group,
    number_between,
    permutation_p,
    reaches,
    read_groups,
    read_labels,
    varying_classes,
    without_complements,
)
from gradstarve.ground import (
    any_array,
    as_floats,
    as_seed,
    check_finite,
    deprecated,
    html_lines,
    html_table,
    number,
    positive_int,
    short_repr,
    table_text,
    to_jsonable,
)

ALARM_RELIANCE = 0.5


@dataclass(frozen=True, eq=False)
class MeasuredGroup:
    """How one group was learnt; curves are [T], margins in gains from the first record.

    - `members`, `others`: mean margin of the members and of the others in the class that the feature favours; `carried`:
      their difference, the logit that hangs on the feature; `reliance`: carried over the gain of the members, at the
      horizon: 1 where they are told by the feature alone, 0 where they are told as the others are;
    - `learnt_at`: times at which members and others have moved the logit by 1, inf where they have not;
    - `index`: starvation index (10.6) of the rest, nan where no run without the feature was given, or where the gain in
      that run is not above the rounding of the margins;
    - `p_value`: of a permutation test, within classes, whether members and others differ at the horizon.
    """

    group: Group
    share: float
    size: int
    members: np.ndarray
    others: np.ndarray
    carried: np.ndarray
    reliance: float
    learnt_at: tuple[float, float]
    index: float
    p_value: float

    @property
    def name(self) -> str:
        """The name of the group."""
        return self.group.name

    @property
    def alarm(self) -> bool:
        """p <= 0.01 and an index of at least 0.25; without a run alone, a reliance of at least 0.5 instead."""
        strong = self.reliance >= ALARM_RELIANCE if np.isnan(self.index) else self.index >= ALARM_INDEX
        return bool(self.p_value <= ALARM_P and self.reliance > 0 and strong)


@dataclass(frozen=True, eq=False)
class MarginReport:
    """What `starvation_report.from_margins` found: `groups` in the order in which they are learnt, `alarms` among them.

    `times` [T], `margins` [T, n] as given, `horizon`: the time to which reliance and index refer, at record `at`.
    """

    times: np.ndarray = field(repr=False)
    margins: np.ndarray = field(repr=False)
    horizon: float
    at: int
    groups: tuple[MeasuredGroup, ...]
    notes: tuple[str, ...] = ()

    @property
    def alarms(self) -> tuple[MeasuredGroup, ...]:
        """The groups whose feature takes the place of the rest."""
        return tuple(law for law in self.groups if law.alarm)

    def rows(self) -> list[tuple[str, ...]]:
        """One row per group, header first."""
        header = ("group", "share", "p", "members at", "others at", "it carries", "reliance", "index", "verdict")
        rows: list[tuple[str, ...]] = [header]
        for g in self.groups:
            learnt = tuple(number(t, 2) if np.isfinite(t) else "never" for t in g.learnt_at)
            index = "" if np.isnan(g.index) else number(g.index, 2)
            verdict = "starves the rest" if g.alarm else "no alarm"
            middle = (number(g.carried[self.at]), number(g.reliance, 2))
            rows.append((g.name, f"{100 * g.share:.0f} %", number(g.p_value, 2), *learnt, *middle, index, verdict))
        return rows

    def summary(self) -> str:
        """In sentences: which groups are told by their feature in place of the rest."""
        lines = [
            f"ALARM: '{g.name}' ({100 * g.share:.0f} % of its class) hangs on its feature: at time {number(self.horizon)} "
            f"the margins of its members have gained {number(g.members[self.at], 2)}, {_others(g.others[self.at])}"
            + ("." if np.isnan(g.index) else f" (starvation index of the rest {number(g.index, 2)}).")
            for g in self.alarms
        ]
        return "\n".join([*(lines or ["No alarm: no group hangs on a feature of its own."]), *self.notes])

    def table(self) -> str:
        """The summary and one row per group, as plain text."""
        return self.summary() + "\n\n" + table_text(self.rows())

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_lines(self.summary()) + html_table(self.rows())

    def to_dict(self) -> dict[str, Any]:
        """Every number in plain JSON types; inf, -inf and nan are strings of these names."""
        names = (
            "name",
            "share",
            "size",
            "members",
            "others",
            "carried",
            "reliance",
            "learnt_at",
            "index",
            "p_value",
            "alarm",
        )
        numbers = {
            "times": self.times,
            "horizon": self.horizon,
            "groups": [{name: getattr(g, name) for name in names} for g in self.groups],
            "notes": list(self.notes),
        }
        return to_jsonable(numbers)

    def plot(self, path: Any = None) -> Any:
        """Members and others of every group over time, as a matplotlib `Figure`; saved to `path` if there is one."""
        from gradstarve.diagnosis._presentation import margin_page

        return margin_page(self, path)


def _others(gain: float) -> str:
    """What the others of the class have gained, or lost."""
    if gain < 0:
        return f"those of the others in its class have lost {number(-gain, 2)}"
    return f"those of the others in its class {number(gain, 2)}"


@deprecated(seed="key")
def from_margins(
    margins: Any,
    times: Any,
    groups: Any,
    *,
    labels: Any = None,
    alone: Any = None,
    until_error: Any = 0.05,
    permutations: Any = 999,
    key: Any = 0,
) -> MarginReport:
    """Which groups were told by a feature of their own while the rest of their class starved, from logged margins.

    For a model in any framework: log m_i = y_i f(x_i) of n samples (of the training set, or better of a test set) during
    training, at T >= 2 records, f the logit: margins, not logits (multiply those by the labels) and not probabilities.

    - `margins`: [T, n]; `times`: [T], rising, in any unit (steps, epochs); the first record is the start of training;
    - `groups`: sample types [n], a mapping of names to booleans [n], or a table [n, G] of 0, 1, as in `starvation_report`;
    - `labels`: ±1, [n], needed because members are compared within classes; all the same if only one class was logged. Of K
      > 2 classes their numbers 0..K-1, and margins f_y - log sum exp of the other logits: then each group is reported class
      by class, where it is at least as frequent as in the other classes, as "name of class k";
    - `alone`: margins [T, n] of a run on data without the feature, for the starvation index (10.6);
    - `until_error`: reliance and index refer to the first record whose mean error sigmoid(-m) is this low, else the last.

    The rule of alarm: p <= 0.01 in a permutation test within classes, and an index of at least 0.25, or without `alone` a
    reliance of at least 0.5. `ValueError` for wrong shapes, times that do not rise, values that are not finite, no labels,
    and values that behave as logits or as probabilities do.

    >>> t = np.linspace(0, 4, 9)
    >>> margins = np.concatenate([np.outer(t, np.linspace(1.5, 1.7, 30)), np.outer(t, np.linspace(0.1, 0.3, 10))], axis=1)
    >>> report = from_margins(margins, t, ["light"] * 30 + ["dark"] * 10, labels=np.ones(40))
    >>> [g.name for g in report.alarms], round(report.alarms[0].reliance, 2)
    (['light'], 0.87)
    """
    margins = _table("margins", margins)
    records, n = margins.shape
    times = as_floats("times", times)
    if times.shape != (records,) or records < 2 or (np.diff(times) <= 0).any() or not np.isfinite(times).all():
        raise ValueError(
            f"times must rise, one for each of the T = {records} >= 2 records of margins, got "
            f"{np.array2string(times, threshold=6)}"
        )
    until_error = number_between("until_error", until_error, 0, 0.5)
    permutations = positive_int("permutations", permutations, minimum=99)
    if alone is not None:
        alone = _table("alone", alone)
        if alone.shape != margins.shape:
            raise ValueError(
                f"alone must be the same samples at the same times as margins {margins.shape}, got {alone.shape}"
            )
    if labels is None:
        raise ValueError(
            "labels are needed, ±1 [n]: whether members were learnt otherwise than others is asked within classes, and the "
            "answer turns round with the classes; with samples of one class only give labels=np.ones(n)"
        )
    index = _several(labels, n)
    labels = read_labels(labels, n, one_class=True) if index is None else index
    signs = labels if index is None else np.ones(n)
    _refuse_others("margins", margins, signs)
    if alone is not None:
        _refuse_others("alone", alone, signs)
    tags = read_groups(groups, labels)
    errors = expit(-margins).mean(1)
    low = np.flatnonzero(errors <= until_error)
    at = max(1, int(low[0])) if low.size else records - 1
    gains, rng = margins - margins[0], np.random.default_rng(as_seed(key))
    found, notes = [], []
    if errors[0] <= until_error:
        notes.append(
            f"At the first record the mean error is {number(errors[0], 2)}, not above until_error = {until_error:g}: gains "
            "since then say little about features learnt before it; log from the start of training."
        )
    # One view of two classes; of several each class against the others, with the members of this class alone.
    if index is None:
        views = [(labels, np.ones(n, bool), "")]
    else:
        views = [(np.where(index == k, 1.0, -1.0), index == k, f" of class {k}") for k in np.unique(index)]
    silent = dict.fromkeys(tags.names, True)
    for signs, mine, of in views:
        here = []
        for k, name in enumerate(tags.names):
            members = tags.members[:, k]
            inside = members & mine
            others = None if tags.exclusive else np.delete(tags.members, k, 1)
            group = make_group(name + of, inside, signs, varying_classes(inside, signs), others, strata=labels)
            if group is None:
                continue
            silent[name] = False
            if not of or members[signs > 0].mean() >= members[signs < 0].mean():
                here.append(group)
        found += without_complements(here, signs)
    notes += [
        f"Nothing can be said about '{name}': nothing within a class tells it from the other samples."
        for name, nothing in silent.items()
        if nothing
    ]
    p_values = permutation_p(
        found, labels, rng, permutations, [lambda contrasts: np.abs(gains[at] @ contrasts)] * len(found)
    )
    largest = np.abs(margins).max()
    found = [
        _measure(group, gains, times, at, group.labels, alone, p_value, largest)
        for group, p_value in zip(found, p_values, strict=True)
    ]
    found.sort(key=lambda g: (g.learnt_at[0], -g.reliance))
    return MarginReport(times, margins, float(times[at]), at, tuple(found), tuple(notes))


def _several(labels: Any, n: int) -> np.ndarray | None:
    """The numbers of the classes where these are 0..K-1 of K > 2 classes, else None."""
    values = any_array("labels", labels)
    if values.ndim != 1 or values.dtype.kind not in "iu" or not values.size or values.min() != 0 or values.max() < 2:
        return None
    if len(values) != n:
        raise ValueError(f"labels must be [n] = [{n}], one a sample, got {len(values)}")
    missing = np.setdiff1d(np.arange(values.max()), values)
    if missing.size:
        last = values.max()
        raise ValueError(f"labels go from 0 to {last}, but no sample is of class {missing[0]}; number the classes anew")
    return values.astype(int)


def _refuse_others(name: str, values: np.ndarray, labels: np.ndarray) -> None:
    """`ValueError` for logits f or probabilities in place of margins y f: training raises margins of both classes."""
    if values.min() >= 0 and values.max() <= 1 and values[0].min() > 0 and 0.2 < values[0].mean() < 0.8:
        raise ValueError(
            f"{name} lie between {values.min():.3g} and {values.max():.3g} from the start, as probabilities do; give "
            "labels * log(p / (1 - p)) of the probability p of class +1"
        )
    minus = labels < 0
    if minus.any() and not minus.all():
        given, turned = (np.logaddexp(0, -signs * values[[0, -1]]).mean(1) for signs in (1, labels))
        wrong = (values[-1, minus] < 0).mean()
        # Nearly all of class -1 wrong in the end, at a loss that rises, and falls with the other sign of class -1.
        if wrong > 0.9 and given[1] > given[0] and turned[1] < min(given[1], turned[0]):
            raise ValueError(
                f"{name} look like logits f and not like margins y f: {100 * wrong:.0f} % of class -1 end below 0, and the "
                f"mean cross-entropy rises from {given[0]:.3g} to {given[1]:.3g}; that of labels * {name} falls from "
                f"{turned[0]:.3g} to {turned[1]:.3g}; give those"
            )


def _table(name: str, values: Any) -> np.ndarray:
    values = as_floats(name, values)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"{name} must be [T, n], one row a record and one column a sample, got shape {values.shape}")
    check_finite(name, values)
    return values


def _measure(group: Group, gains, times, at, labels, alone, p_value, largest) -> MeasuredGroup:
    favours = group.favours(labels)
    within = labels == favours if favours in group.classes else np.isin(labels, group.classes)
    members = gains[:, within & group.members].mean(1)
    rest = gains[:, within & ~group.members].mean(1)
    carried = favours * (gains @ group.contrast)
    total = float(members[at])
    # Margins are logged in 32 bits as a rule, and what is gained is their difference.
    rounding = 4 * float(np.finfo(np.float32).eps)
    noise = rounding * float(largest)
    index = float("nan")
    if alone is not None:
        full = float((alone[at] - alone[0])[within].mean())
        index = float(index_of(rest[at], full, rounding * float(np.abs(alone[[0, at]]).max())))
    return MeasuredGroup(
        group=group,
        share=float((within & group.members).sum() / within.sum()),
        size=int(group.members.sum()),
        members=members,
        others=rest,
        carried=carried,
        reliance=float(carried[at]) / total if total > noise else 0.0,
        learnt_at=(reaches(times - times[0], members, LOGIT), reaches(times - times[0], rest, LOGIT)),
        index=index,
        p_value=p_value,
    )
