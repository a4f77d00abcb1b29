"""The report of a training that has happened, from nothing but logged margins: for models that are not in JAX."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gradstarve.arrays import as_floats, check_finite, positive_int
from gradstarve.diagnose.groups import (
    ALARM_INDEX,
    ALARM_P,
    LOGIT,
    Group,
    held_fixed,
    make_group,
    reaches,
    without_complements,
)
from gradstarve.diagnose.tags import number_between, read_groups, read_labels, varying_classes
from gradstarve.diagnose.training import sigmoid
from gradstarve.text import html_lines, html_table, number, short_repr, table_text

ALARM_RELIANCE = 0.5


@dataclass(frozen=True, eq=False)
class MeasuredGroup:
    """How one group was learnt; curves are [T], margins in gains from the first record.

    - `members`, `others`: mean margin of the members and of the others in the class that the feature favours; `carried`:
      their difference, the logit that hangs on the feature; `reliance`: carried over the gain of the members, at the
      horizon: 1 where they are told by the feature alone, 0 where they are told as the others are;
    - `learnt_at`: times at which members and others have moved the logit by 1, inf where they have not;
    - `index`: starvation index (10.6) of the rest, nan where no run without the feature was given;
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
        """p <= 0.01 and an index of at least 0.25; where there is none, a reliance of at least 0.5 instead."""
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
            f"{100 * g.reliance:.0f} % of what its members have gained is what the others lack"
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
        """Every number, ready for `gradstarve.report.write_json`."""
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
        return {
            "times": self.times,
            "horizon": self.horizon,
            "groups": [{name: getattr(g, name) for name in names} for g in self.groups],
            "notes": list(self.notes),
        }

    def plot(self, path: Any = None) -> Any:
        """Members and others of every group over time, as a matplotlib `Figure`; saved to `path` if there is one."""
        from gradstarve.diagnose.page import margin_page

        return margin_page(self, path)


def from_margins(
    margins: Any,
    times: Any,
    groups: Any,
    *,
    labels: Any = None,
    alone: Any = None,
    until_error: Any = 0.05,
    permutations: Any = 999,
    seed: Any = 0,
) -> MarginReport:
    """Which groups were told by a feature of their own while the rest of their class starved, from logged margins.

    For a model in any framework: log m_i = y_i f(x_i) of n samples (of the training set, or better of a test set) during
    training, at T >= 2 records.

    - `margins`: [T, n]; `times`: [T], rising, in any unit (steps, epochs); the first record is the start of training;
    - `groups`: sample types [n], a mapping of names to booleans [n], or a table [n, G] of 0, 1, as in `starvation_report`;
    - `labels`: ±1, [n]: members are compared within classes; without them all samples count as one class;
    - `alone`: margins [T, n] of a run on data without the feature, for the starvation index (10.6);
    - `until_error`: reliance and index refer to the first record whose mean error sigmoid(-m) is this low, else the last.

    The rule of alarm: p <= 0.01 in a permutation test within classes, and an index of at least 0.25, or without `alone` a
    reliance of at least 0.5. `ValueError` for wrong shapes, times that do not rise, values that are not finite.

    >>> t = np.linspace(0, 4, 9)
    >>> margins = np.concatenate([np.outer(t, np.linspace(1.5, 1.7, 30)), np.outer(t, np.linspace(0.1, 0.3, 10))], axis=1)
    >>> report = from_margins(margins, t, ["light"] * 30 + ["dark"] * 10)
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
    seed = positive_int("seed", seed, minimum=0, maximum=2**63 - 1)
    if alone is not None:
        alone = _table("alone", alone)
        if alone.shape != margins.shape:
            raise ValueError(
                f"alone must be the same samples at the same times as margins {margins.shape}, got {alone.shape}"
            )
    labels = np.ones(n) if labels is None else read_labels(labels, n)
    tags = read_groups(groups, labels)
    errors = sigmoid(-margins).mean(1)
    low = np.flatnonzero(errors <= until_error)
    at = max(1, int(low[0])) if low.size else records - 1
    gains, rng = margins - margins[0], np.random.default_rng(seed)
    found, notes = [], []
    for k, name in enumerate(tags.names):
        inside = tags.members[:, k]
        others = None if tags.exclusive else np.delete(tags.members, k, 1)
        group = make_group(name, inside, labels, varying_classes(inside, labels), others)
        if group is None:
            notes.append(f"Nothing can be said about '{name}': nothing within a class tells it from the other samples.")
            continue
        found.append(_measure(group, gains, times, at, labels, others, alone, rng, permutations))
    found = without_complements(found, labels)
    found.sort(key=lambda g: (g.learnt_at[0], -g.reliance))
    return MarginReport(times, margins, float(times[at]), at, tuple(found), tuple(notes))


def _table(name: str, values: Any) -> np.ndarray:
    values = as_floats(name, values)
    if values.ndim != 2 or values.shape[1] < 2:
        raise ValueError(f"{name} must be [T, n], one row a record and one column a sample, got shape {values.shape}")
    check_finite(name, values)
    return values


def _measure(group: Group, gains, times, at, labels, others, alone, rng, permutations) -> MeasuredGroup:
    favours = group.favours(labels)
    within = labels == favours if favours in group.classes else np.isin(labels, group.classes)
    members = gains[:, within & group.members].mean(1)
    rest = gains[:, within & ~group.members].mean(1)
    basis = held_fixed(labels, others)

    def contrast(inside):
        left = inside - basis @ (basis.T @ inside)
        return favours * (left.T * labels).T / np.maximum((left**2).sum(0), 1e-300)

    carried = gains @ contrast(group.members.astype(float))
    permuted = np.tile(group.members[:, None].astype(float), permutations)
    for sign in (1, -1):
        mine = np.flatnonzero(labels == sign)
        permuted[mine] = rng.permuted(permuted[mine], axis=0)
    chance = np.abs(gains[at] @ contrast(permuted))
    total = float(members[at])
    index = float("nan")
    if alone is not None:
        full = float((alone[at] - alone[0])[within].mean())
        index = 1 - float(rest[at]) / full if full else float("nan")
    return MeasuredGroup(
        group=group,
        share=float((within & group.members).sum() / within.sum()),
        size=int(group.members.sum()),
        members=members,
        others=rest,
        carried=carried,
        reliance=float(carried[at]) / total if total > 0 else 0.0,
        learnt_at=(reaches(times - times[0], members, LOGIT), reaches(times - times[0], rest, LOGIT)),
        index=index,
        p_value=(1 + int((chance >= abs(carried[at]) * (1 - 1e-12)).sum())) / (permutations + 1),
    )
