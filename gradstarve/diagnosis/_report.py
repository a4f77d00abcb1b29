"""`starvation_report`: from a model, its first weights and its data to which features starve, before any training."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.special import expit

from gradstarve.diagnosis._classes import Softmax, TwoClasses, View
from gradstarve.diagnosis._data import Classes
from gradstarve.diagnosis._groups import (
    DOUBLE,
    EigenFeatures,
    Group,
    GroupLaw,
    Tags,
    as_attributes,
    eigen_features,
    group_law,
    make_group,
    number_between,
    reaches,
    read_groups,
    strength_p,
    two_clusters,
    varying_classes,
    without_complements,
)
from gradstarve.diagnosis._heldout import HeldOut, hold_out
from gradstarve.diagnosis._regime import Regime, regime_of
from gradstarve.diagnosis._remedies import Remedies, RemedyOutcome
from gradstarve.ground import (
    ConvergenceError,
    Progress,
    as_floats,
    as_seed,
    can_pickle,
    check_finite,
    html_lines,
    number,
    positive_int,
    short_repr,
)

_LONGEST = 1e5  # times 1 / largest strength: where the search for the horizon ends
_RECORDS = 60
_LATER = 10  # how far beyond the horizon the curves go


@dataclass(frozen=True, eq=False)
class Unseen:
    """What a prediction for samples that were not seen needs: `kernel` [N C, N C] and `logits` [N, C] of all samples, their
    `classes`, which may be `trained` on [N], their `groups` (names, members [N, G], exclusive), and as `edited` kernel and
    logits of the same samples without a feature; `last`: the kernel of the last layer alone; `rounding`: of the entries."""

    kernel: np.ndarray
    logits: np.ndarray
    classes: Classes
    trained: np.ndarray
    groups: tuple[tuple[str, ...], np.ndarray, bool]
    splits: int = 5
    penalty: float = 0.02
    seed: Any = 0
    edited: tuple[np.ndarray, np.ndarray] | None = None
    last: np.ndarray | None = None
    rounding: float = DOUBLE


@dataclass(frozen=True)
class UsersTraining:
    """The user's training: step size, samples in a batch and in all, momentum; for times as steps and epochs."""

    step_size: float
    batch_size: int
    samples: int
    momentum: float = 0.0

    def steps(self, time: float) -> float:
        """Steps on the mean loss of a batch until `time` of the loss summed over samples."""
        return time * self.samples * (1 - self.momentum) / self.step_size

    def said(self, time: float) -> str:
        """Steps and epochs in words."""
        steps = self.steps(time)
        return f"{steps:,.0f} steps, {number(steps * self.batch_size / self.samples)} epochs"


@dataclass(frozen=True, eq=False)
class StarvationReport:
    """What `starvation_report` found. Margins are m = y f, times those of the loss summed over samples (step size x step).

    - `groups`: one `GroupLaw` per group named, or found where none was named; `alarms`: those that starve the rest;
    - `remedies`: what each would change, for the groups with an alarm, or for the first named group where there is none;
    - `features`: the eigenvectors of K with the largest response (`EigenFeatures`);
    - `times` [T], `margins` [T, n]: the predicted training; `horizon`: the time to which indices refer, at record `at`,
      where the mean error of training is `error`;
    - `labels` [n], `kernel` [n, n]; `notes`: what could not be answered, and why;
    - `classes`: of several classes, `logits` [T, n, K] of training, `labels` are then numbers of classes, `kernel` is
      [n K, n K] (or [n, n], the mean over outputs), margins are f_y - log sum exp of the other logits, and every
      law is about one class against the others; `remedies` and `features` are left to two classes (see `heldout.plans`);
    - `heldout`: the prediction for samples that training has not seen. All the others are about the trained samples.
    """

    times: np.ndarray = field(repr=False)
    margins: np.ndarray = field(repr=False)
    horizon: float
    at: int
    error: float
    labels: np.ndarray = field(repr=False)
    kernel: np.ndarray = field(repr=False)
    groups: tuple[GroupLaw, ...] = field(repr=False)
    named: bool
    remedies: tuple[RemedyOutcome, ...] = field(repr=False)
    features: EigenFeatures | None = field(repr=False)
    notes: tuple[str, ...] = ()
    model: Any = field(default=None, repr=False)
    unseen: Unseen | None = field(default=None, repr=False)
    training: UsersTraining | None = None
    classes: Classes | None = field(default=None, repr=False)
    logits: np.ndarray | None = field(default=None, repr=False)

    @cached_property
    def heldout(self) -> HeldOut | None:
        """The prediction for samples that training has not seen: a `HeldOut`, computed when it is first asked for."""
        u = self.unseen
        if u is None:
            return None
        rng = np.random.default_rng(u.seed)
        return hold_out(
            u.kernel, u.logits, u.classes, u.trained, u.groups, self.times, self.at,
            edited=u.edited, last=u.last, splits=u.splits, penalty=u.penalty, rounding=u.rounding, rng=rng,
        )  # fmt: skip

    @cached_property
    def regime(self) -> Regime | None:
        """When training will leave the linear regime, computed when it is first asked for; None without a model."""
        return regime_of(self)

    def when(self, time: float) -> str:
        """A time in words: with `step_size` given as steps and epochs too."""
        return f"time {number(time)}" + (f", {self.training.said(time)}" if self.training else "")

    @property
    def alarms(self) -> tuple[GroupLaw, ...]:
        """The groups whose feature starves the rest of their class, the worst first."""
        return tuple(sorted((law for law in self.groups if law.alarm), key=lambda law: -law.index[law.at]))

    @property
    def errors(self) -> np.ndarray:
        """Predicted mean error sigmoid(-m) of training, [T]."""
        return expit(-self.margins).mean(1)

    def summary(self) -> str:
        """In sentences: which feature starves what, by how much, and what would help."""
        from gradstarve.diagnosis._presentation import summary

        return summary(self)

    def table(self) -> str:
        """The report as plain text: the summary, then tables of groups, remedies and features."""
        from gradstarve.diagnosis._presentation import tables

        return tables(self)

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_lines(self.table())

    def __getstate__(self) -> dict[str, Any]:
        # A model made of functions that cannot be pickled stays behind; everything that was found goes.
        if can_pickle(self.model):
            return dict(self.__dict__)
        return {**self.__dict__, "model": None, "regime": self.regime}

    def __deepcopy__(self, memo: dict[int, Any]) -> StarvationReport:
        return replace(self, **{one.name: deepcopy(getattr(self, one.name), memo) for one in fields(self)})

    def to_dict(self) -> dict[str, Any]:
        """Every number of the report in plain JSON types; inf, -inf and nan are strings of these names."""
        from gradstarve.diagnosis._presentation import as_dict

        return as_dict(self)

    def to_pandas(self, what: str = "cells") -> Any:
        """One table as a `pandas.DataFrame`: "cells" or "plans" of the prediction for samples not seen, one row a cell or a
        way to train; "groups", one row a law; or "curves", accuracies [T, cells] with the times as index."""
        from gradstarve.diagnosis._presentation import frame

        return frame(self, what)

    def html(self, path: Any = None) -> str:
        """The report as one HTML page for a colleague, with its figure inside; written to `path` if there is one."""
        from gradstarve.diagnosis._presentation import html
        from gradstarve.ground import files

        text = html(self)
        if path is not None:
            files.write_text(path, text)
        return text

    def plot(self, path: Any = None) -> Any:
        """The report on one page, as a matplotlib `Figure`; saved to `path` if there is one."""
        from gradstarve.diagnosis._presentation import page

        return page(self, path)

    def after_training(self, trained: Any, *, alone: Any = None) -> Any:
        """Measured against predicted: see `gradstarve.diagnosis._after.after_training`."""
        from gradstarve.diagnosis._after import after_training

        return after_training(self, trained, alone=alone)


def diagnose(
    kernel: np.ndarray,
    start: np.ndarray,
    labels: np.ndarray,
    groups: Any,
    *,
    until_error: Any = 0.05,
    times: Any = None,
    penalty: Any = 0.02,
    features: Any = 8,
    permutations: Any = 999,
    key: Any = 0,
    model: Any = None,
    progress: Any = None,
    unseen: Any = None,
    splits: Any = 5,
    training: UsersTraining | None = None,
    notes: tuple[str, ...] = (),
    classes: Classes | None = None,
    rounding: float = DOUBLE,
) -> StarvationReport:
    """The report from K = Y Phi Phi^T Y [n, n], the margins `start` [n] at the first weights and the labels; of several
    `classes` from Phi Phi^T [n K, n K] (or [n, n] for outputs that are alike), logits [n, K] and the number of the class.
    `rounding`: how exact the entries of the kernel are, below which nothing is told."""
    features = positive_int("features", features, minimum=0)
    permutations = positive_int("permutations", permutations, minimum=99)
    until_error = number_between("until_error", until_error, 0, 0.5)
    penalty = number_between("penalty", penalty, 0, float("inf"))
    largest = float(np.abs(kernel).max())
    if largest == 0:
        raise ValueError(
            "the Jacobian is 0 on all samples (to squares that are floats): at these parameters no step changes any logit; "
            "initialise them anew"
        )
    if not np.isfinite(largest):
        raise ValueError("products of rows of the Jacobian are beyond the floats; scale the samples, or the output, down")
    splits = positive_int("splits", splits, minimum=2)
    said: list[str] = list(notes)
    given = None if groups is None else read_groups(groups, labels)
    tags = given if given is None else as_attributes(given, _products(kernel, labels, classes), labels, said)
    network = TwoClasses(kernel, start, labels) if classes is None else Softmax(kernel, start, classes)
    with Progress(progress, 4, "training of the linearised network") as bar:
        times, at = _times(network, until_error, times, said)
        states = network.train(network.start, times)
        margins = network.margins(states)
        bar.update(1, label="groups" if tags is not None else "clusters")
        rng = np.random.default_rng(as_seed(key))
        views = network.views(states)
        laws = (
            _found(network, views, times, at, rng, said, rounding)
            if tags is None
            else _named(network, tags, views, times, at, rng, permutations, said, rounding)
        )
        outcomes, listed = (), None
        if classes is None:
            ridge = 1 / float(times[at])
            bar.update(2, label="remedies")
            remedies = Remedies(kernel, labels, margins, times, at, ridge, penalty)
            treated = [law for law in laws if law.alarm] or (laws[:1] if tags is not None else [])
            outcomes = tuple(outcome for law in treated for outcome in remedies.outcomes(law))
            bar.update(3, label="features")
            listed = _listed(kernel, margins, times, ridge, features, said, rounding) if features else None
        bar.update(4)
    return StarvationReport(
        times=times,
        margins=margins,
        horizon=float(times[at]),
        at=at,
        error=float(expit(-margins[at]).mean()),
        labels=labels,
        kernel=kernel,
        groups=tuple(laws),
        named=tags is not None,
        remedies=outcomes,
        features=listed,
        notes=tuple(said),
        model=model,
        unseen=unseen or _all_of(kernel, start, labels, classes, given, splits, penalty, as_seed(key), rounding),
        training=training,
        classes=classes,
        logits=None if classes is None else states,
    )


def _all_of(
    kernel, start, labels, classes: Classes | None, tags: Tags | None, splits: int, penalty: float, seed, rounding: float
) -> Unseen:
    """The trained samples themselves, to be held out in turn."""
    groups = ((), np.zeros((len(labels), 0), bool), False) if tags is None else (tags.names, tags.members, tags.exclusive)
    signs = labels[:, None]
    return Unseen(
        kernel=signs * kernel * signs.T if classes is None else kernel,
        logits=signs * start[:, None] if classes is None else start,
        classes=Classes((labels > 0).astype(int), ("−", "+")) if classes is None else classes,
        trained=np.ones(len(labels), bool),
        groups=groups,
        splits=splits,
        penalty=penalty,
        seed=seed,
        rounding=rounding,
    )


def _products(kernel: np.ndarray, labels: np.ndarray, classes: Classes | None) -> np.ndarray:
    """Products of the gradients of samples, [n, n], added up over outputs."""
    n = len(labels)
    if classes is None:
        return labels[:, None] * kernel * labels
    return kernel if len(kernel) == n else np.einsum("ikjk->ij", kernel.reshape(n, classes.count, n, classes.count))


def _listed(kernel, margins, times, ridge, features, notes, rounding) -> EigenFeatures | None:
    """The eigenvectors; without them, and with a note, where the optimum that they refer to is not found."""
    try:
        return eigen_features(kernel, margins, times, ridge, features, rounding)
    except ConvergenceError as error:
        notes.append(f"The eigenvectors of the kernel are left out: {error}.")
        return None


def _times(network: TwoClasses | Softmax, until_error, times, notes) -> tuple[np.ndarray, int]:
    """The times of the report, 0 first, and which of them is the horizon."""
    if times is not None:
        times = np.unique(np.atleast_1d(as_floats("times", times)))
        if times.size == 0:
            raise ValueError("times is empty; give at least one time > 0, or None for times of the report's own")
        if 0 < times[-1] < np.finfo(np.float64).tiny:
            raise ValueError(f"times end at {times[-1]}, of which 1 / t is no float; give later ones")
        check_finite("times", times)
        if times[0] < 0 or times[-1] == 0:
            raise ValueError(f"times must be >= 0 and not all 0, got {times[0]:.3g} to {times[-1]:.3g}")
        return np.concatenate([[0.0], times[times > 0]]), len(times[times > 0])
    begun = float(expit(-network.margins(network.start[None])).mean())
    if begun <= until_error:
        raise ValueError(
            f"the mean error is {begun:.3g} at these parameters, below until_error = {until_error:g}: the network has "
            "learnt the data already; give the parameters before training, or a lower until_error"
        )
    unit = 1 / network.scale
    # In pieces, because most problems are over after a thousandth of the longest time.
    state, since, found, seen = network.start, 0.0, None, []
    for stop in np.geomspace(10, _LONGEST, 5):
        piece = unit * np.geomspace(stop / 10, stop, 13)[0 if not seen else 1 :]
        states = network.train(state, piece - since)
        state, since = states[-1], float(piece[-1])
        seen += list(zip(piece, expit(-network.margins(states)).mean(1), strict=True))
        if seen[-1][1] <= until_error:
            found = reaches(np.array([t for t, _ in seen]), -np.array([e for _, e in seen]), -until_error)
            break
    if found is None:
        found = since
        notes.append(
            f"The linearised network does not get to a mean error of {until_error:g}; the horizon is where it is at "
            f"{seen[-1][1]:.3g}."
        )
    early = np.geomspace(found / 1000, found, _RECORDS * 3 // 4)
    late = np.geomspace(found, _LATER * found, _RECORDS // 4)[1:]
    return np.concatenate([[0.0], early, late]), len(early)


def _named(network, tags: Tags, views: list[View], times, at, rng, permutations, notes, rounding) -> list[GroupLaw]:
    pairs: list[tuple[View, Group]] = []
    silent: dict[str, str] = {}
    for view in views:
        here = []
        for k, tag in enumerate(tags.names):
            name, members = tags.side(k, view)
            classes = varying_classes(members, view.labels)
            others = None if tags.exclusive else np.delete(tags.members, k, 1)
            group = make_group(name, members, view.labels, classes, others, _against(tags, k, view, classes), view.strata)
            if group is None:
                if classes:
                    why = "it always comes together with other groups, so that no sample tells them apart"
                else:
                    why = "no class has two samples inside of it and two outside, so that it cannot be told from the class"
                silent.setdefault(tag, why)
            elif not view.label or (1 in classes and group.favours(view.labels) > 0):
                here.append((tag, group))
        kept = without_complements([group for _, group in here], view.labels)
        pairs += [(view, group) for group in kept]
        silent.update({tag: "" for tag, _ in here})
    notes += [f"Nothing can be said about {tag!r}: {why}." for tag, why in silent.items() if why]
    kernels = [view.kernel for view, _ in pairs]
    p_values = strength_p([group for _, group in pairs], kernels, views[0].strata, rng, permutations, rounding)
    laws = _laws(network, pairs, times, at, [{"p_value": p, "rounding": rounding} for p in p_values])
    notes += [untold(law) for law in laws if np.isnan(law.index[at])]
    return sorted(laws, key=lambda law: (-law.alarm, -np.nan_to_num(law.index[at])))


def _laws(network, pairs: list[tuple[View, Group]], times, at, more: list[dict[str, Any]]) -> list[GroupLaw]:
    views, groups = [view for view, _ in pairs], [group for _, group in pairs]
    return [
        group_law(group, view.kernel, view.labels, view.margins, times, at, label=view.label, **alone, **others)
        for view, group, alone, others in zip(views, groups, network.without(groups, views, times), more, strict=True)
    ]


def untold(law: GroupLaw) -> str:
    """Why the index of a group cannot be told at the horizon."""
    return (
        f"The starvation index of {law.name!r} cannot be told: without the feature the margin of the rest gains "
        f"{number(law.rest_alone[law.at], 2)} by the horizon, which is within the error of its computation, "
        f"{number(law.noise[law.at], 1)}, as where the same samples occur with both labels."
    )


def _against(tags: Tags, k: int, view: View, classes) -> str:
    """The names of the types that the group is compared with."""
    if not tags.exclusive:
        return "the others"
    mine = np.isin(view.labels, classes)
    names = [name for j, name in enumerate(tags.names) if j != k and tags.members[mine, j].any()]
    return ", ".join(names) if len(names) <= 3 else "the others"


def _found(network, views: list[View], times, at, rng, notes, rounding) -> list[GroupLaw]:
    """The best splits of each class, each with the orientation in which its feature helps its class."""
    pairs: list[tuple[View, Group]] = []
    gaps: list[float] = []
    for view in views:
        labels = view.labels
        for sign in view.signs:
            mine = np.flatnonzero(labels == sign)
            of = view.label or ("+" if sign > 0 else "−")
            splits = two_clusters(view.kernel[np.ix_(mine, mine)], rng, rounding=rounding)
            if not splits:
                notes.append(f"Class {of} has {len(mine)} samples, too few to look for clusters (12).")
            for rank, (inside, gap) in enumerate(splits):
                members = np.zeros(len(labels), bool)
                members[mine[inside]] = True
                name = f"cluster {of}{':' if view.label else ''}{rank + 1}"
                group = make_group(name, members, labels, (sign,), strata=view.strata)
                if group is None:
                    continue
                if sign * (group.contrast @ (view.margins[at] - view.margins[0])) < 0:
                    members = (labels == sign) & ~members
                    group = make_group(name, members, labels, (sign,), strata=view.strata)
                if group is not None:
                    pairs.append((view, group))
                    gaps.append(gap)
    laws = _laws(network, pairs, times, at, [{"separation": gap} for gap in gaps])
    return sorted(laws, key=lambda law: -law.separation)
