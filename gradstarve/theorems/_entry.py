"""The type of a theorem: a statement with its hypotheses, a sampler that tries to break it, and a tolerance."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import jax
import numpy as np

from gradstarve.ground import FILLS, LOSS_NAMES, fields_html, short_repr
from gradstarve.problem import (
    ClassDataset,
    Dataset,
    DeepReLU,
    Loss,
    Network,
    SoftmaxOneLayer,
    SoftmaxTwoLayer,
    TwoLayerReLU,
    as_loss,
    clock_of,
)
from gradstarve.special import CLOCKS, Clock

# Hypotheses of a theorem, each in words and as a predicate of a problem.


@dataclass(frozen=True, eq=False)
class Problem:
    """The subject of a theorem: `data`, one `network` before training, and the `loss`, an object or its name."""

    data: Dataset | ClassDataset
    network: Network
    loss: Loss | str

    @classmethod
    def read(cls, instance: dict[str, Any]) -> Problem | None:
        """The problem of a recorded instance, to train it again; None for an instance that is not one problem.

        A loss of the user's own is read from an instance in memory; JSON holds only its numbers.

        >>> instance = {"loss": "hinge", "points": [[1.0], [-1.0]], "labels": [1, -1], "weights": [0.5, 0.5],
        ...     "w": [[2.0]], "z": [1.0]}
        >>> Problem.read(instance).data.separability().antipodal
        True
        """
        if "points" not in instance or not isinstance(instance.get("loss"), Loss | str):
            return None
        several = "labels" not in instance
        kinds = (
            ({"layers"}, lambda **kw: DeepReLU(kw["layers"], kw.get("connections"))),
            ({"v"}, SoftmaxOneLayer),
            ({"w", "z"}, SoftmaxTwoLayer if several else TwoLayerReLU),
        )
        more = ("connections", "slope")
        for names, build in kinds:
            if names <= set(instance):
                network = build(**{name: instance[name] for name in (*names, *more) if name in instance})
                build_data, labels = (ClassDataset, "classes") if several else (Dataset, "labels")
                data = build_data(instance["points"], instance[labels], instance["weights"])
                return cls(data, network, instance["loss"])
        return None

    @cached_property
    def clock(self) -> Clock:
        """The clock of the loss."""
        return clock_of(self.loss)

    @cached_property
    def shape(self) -> Any:
        """The geometry of the data."""
        return self.data.separability() if isinstance(self.data, Dataset) else None

    @cached_property
    def margins(self) -> np.ndarray:
        """m_i at the start, [n]."""
        return np.asarray(self.data.margins(self.network(self.data.points)))

    @cached_property
    def neurons(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(active [h, n], along [h], zeta [h]) of a two-layer network: which points each neuron is active on, and for
        active neurons w . x/|x| along their longest active point, and z in the orientation of its class."""
        network: Any = self.network
        data: Any = self.data
        points, labels = np.asarray(data.points), np.asarray(data.labels)
        norms = np.linalg.norm(points, axis=-1)
        along = np.asarray(network.w) @ (points / norms[:, None]).T
        active = along > 0
        first = np.argmax(np.where(active, norms, 0), axis=-1)
        home = np.where(active.any(-1), labels[first], 0)
        return active, np.where(home != 0, along[np.arange(len(along)), first], 0), home * np.asarray(network.z)


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A hypothesis: its `statement` in words, and the predicate `holds(problem)`."""

    statement: str
    holds: Callable[[Problem], bool]

    def __str__(self) -> str:
        return self.statement


def _one_norm(p: Problem) -> bool:
    labels = np.asarray(p.data.labels)  # pyright: ignore[reportAttributeAccessIssue]
    norms = np.linalg.norm(np.asarray(p.data.points), axis=-1)
    return p.shape.shared_direction and all(np.ptp(norms[labels == y]) <= 1e-12 * norms.max() for y in np.unique(labels))


def _exclusive(p: Problem) -> bool:
    active = p.neurons[0]
    labels = np.asarray(p.data.labels)  # pyright: ignore[reportAttributeAccessIssue]
    plus, minus = active[:, labels > 0], active[:, labels < 0]
    return bool(np.all((plus.all(-1) & ~minus.any(-1)) | (minus.all(-1) & ~plus.any(-1)) | ~active.any(-1)))


def _off_manifold(p: Problem) -> bool:
    _, along, zeta = p.neurons
    return bool(np.all((along == 0) | (np.abs(along + zeta) > 1e-12 * (np.abs(along) + np.abs(zeta)))))


def of_losses(statement: str, *names: str) -> Hypothesis:
    """The hypothesis that the loss is one of `names`."""
    return Hypothesis(statement, lambda p: p.clock in [CLOCKS[name] for name in names])


SEPARABLE = Hypothesis("orthogonally separable data", lambda p: p.shape.orthogonally_separable)
ORTHOGONAL = Hypothesis("orthogonal classes", lambda p: p.shape.orthogonal)
ANTIPODAL = Hypothesis("antipodal classes", lambda p: p.shape.antipodal)
ONE_RAY = Hypothesis("each class along one direction at one norm", _one_norm)
EXCLUSIVE = Hypothesis("exclusive neurons: active on all points of one class and on none of the other", _exclusive)
STAYING = Hypothesis(
    "neurons that stay: z > -a in the orientation of their class",
    lambda p: bool(np.all((p.neurons[1] == 0) | (p.neurons[2] > -p.neurons[1]))),
)
RIGHT_SIGN = Hypothesis(
    "every neuron has the sign of its class", lambda p: bool(np.all((p.neurons[1] == 0) | (p.neurons[2] > 0)))
)
BALANCED = Hypothesis(
    "balanced neurons: z = a",
    lambda p: bool(np.allclose(p.neurons[1], p.neurons[2], rtol=1e-9, atol=0)),
)
OFF_MANIFOLD = Hypothesis("no neuron on the stable manifold z = -a, where rounding decides", _off_manifold)
BELOW_ONE = Hypothesis(
    "squared loss: margins start at 1 or below",
    lambda p: not as_loss(p.loss).pulls_back or bool(np.all(p.margins <= 1 + 1e-12)),
)
PUSHING = Hypothesis(
    "no residual is negative (squared loss: margins of at most 1)",
    lambda p: not as_loss(p.loss).pulls_back or bool(np.all(p.margins <= 1 + 1e-12)),
)
NEVER_STOPS = of_losses("a clock that gets there: cross-entropy or exponential loss", "cross-entropy", "exponential")


# Entries.

# The largest share of the trials of an entry that may end without a verdict (the simulator gave up, or training ended before
# the fate of a neuron was decided); with more, the check fails.
MOST_UNDECIDED = 0.1


@dataclass(frozen=True)
class Quote:
    """The number in which the claim fails: `quantity`, `when` it was read, its value by the `law` and the `trained` value;
    `unit` is the difference that counts as a gap of 1.

    >>> quote = Quote("the logit of class +", "at t = 3", law=0.5, trained=0.25, unit=0.5)
    >>> str(quote), quote.gap
    ('at t = 3 the logit of class + is 0.25, and 0.5 by the law (a gap of 0.5)', 0.5)
    """

    quantity: str
    when: str
    law: Any
    trained: Any
    unit: Any = 1.0

    def __post_init__(self) -> None:
        for name in ("law", "trained", "unit"):
            object.__setattr__(self, name, float(getattr(self, name)))

    @property
    def gap(self) -> float:
        """|trained - law| / unit; infinite if one of the three is not finite, or the unit is not above 0."""
        if not (np.isfinite([self.law, self.trained, self.unit]).all() and self.unit > 0):
            return float("inf")
        return abs(self.trained - self.law) / self.unit

    def __str__(self) -> str:
        trained, law = apart(self.trained, self.law)
        return f"{self.when} {self.quantity} is {trained}, and {law} by the law (a gap of {self.gap:.3g})".lstrip()


def apart(one: float, other: float) -> tuple[str, str]:
    """Two numbers as text, with enough digits, at least 4, to show two digits of their difference.

    >>> apart(0.5, 2.0), apart(1.0, 1.0000123), apart(3.0, 3.0)
    (('0.5', '2'), ('1', '1.000012'), ('3', '3'))
    """
    size, difference = max(abs(one), abs(other)), abs(one - other)
    digits = 4
    if np.isfinite(size) and 0 < difference < np.inf:
        digits = int(np.clip(np.ceil(np.log10(size / difference)) + 2, 4, 17))
    one, other = one + 0.0, other + 0.0  # no -0
    return f"{one:.{digits}g}", f"{other:.{digits}g}"


@dataclass(frozen=True)
class Counterexample:
    """An instance without one hypothesis: the claim fails by `gap`, although the entry allows only `tolerance`.

    `dropped`: the dropped hypothesis, in words; `failure`: one sentence with the numbers; `numbers`: the instance;
    `quote`: the number in which the claim fails. `of` makes a counterexample with the sentence and the gap of its quote.
    """

    dropped: str
    failure: str
    gap: float
    tolerance: float
    numbers: dict[str, Any] = field(default_factory=dict)
    quote: Quote | None = None

    @classmethod
    def of(
        cls, dropped: str, quote: Quote, tolerance: float, numbers: dict[str, Any], setting: str = "", rest: str = ""
    ) -> Counterexample:
        """A counterexample with the gap of its `quote`; its sentence is `setting`, the quote, and the `rest`."""
        told = "; ".join(part for part in (setting, str(quote), rest) if part)
        return cls(dropped, told, quote.gap, tolerance, numbers, quote)

    __repr__ = short_repr
    _repr_html_ = fields_html

    @property
    def found(self) -> bool:
        """Whether the claim fails by more than the tolerance, so that the hypothesis is needed."""
        return bool(self.gap > self.tolerance)


@dataclass(frozen=True, eq=False)
class Outcome:
    """The results of the trials of one entry.

    - `gaps`: [trials], the distance of each trial from the claim, in the units of the entry's tolerance; NaN: undecided;
    - `groups`: [trials], the kind of each trial (a loss, a geometry), for the figure;
    - `instance(i)`: every number needed to run trial i again;
    - `violations`, `undecided`: how many trials; `worst_gap` and `worst_instance`: the largest gap, and that
      trial;
    - `extra`: arrays for the figure, and counts worth a place in the report.
    """

    trials: int
    violations: int
    undecided: int
    worst_gap: float
    worst_instance: dict[str, Any]
    tolerance: float
    gaps: np.ndarray
    groups: np.ndarray
    instance: Callable[[int], dict[str, Any]] = field(repr=False)
    extra: dict[str, Any] = field(default_factory=dict)

    __repr__ = short_repr
    _repr_html_ = fields_html

    def __getstate__(self) -> dict[str, Any]:
        # `instance` is a closure over the arrays of a sampler: its results are pickled instead.
        records = self.instance
        if not isinstance(records, TrialRecords):
            records = TrialRecords(map(self.instance, range(self.trials)))
        return {**self.__dict__, "instance": records}

    def judged(self, tolerance: float) -> Outcome:
        """The same trials judged by another tolerance."""
        return replace(self, tolerance=tolerance, violations=int(np.sum(self.gaps > tolerance)))

    @property
    def ok(self) -> bool:
        """No violation, at least one trial decided, and not more than a tenth of them undecided."""
        decided = self.undecided < self.trials and self.undecided <= MOST_UNDECIDED * self.trials
        return self.violations == 0 and decided


@dataclass(frozen=True)
class Theorem:
    """One statement of the theory and the way to test it.

    - `name`: kebab-case; `equation`: this project's own number; `title` and `claim`: in plain language;
    - `meaning`: in one sentence without symbols, what a reader learns from it about training;
    - `formula`: the claim as displayed mathematics: LaTeX without dollar signs, of amsmath what latex2mathml knows (`split`
      in place of `aligned`); symbols as in the docstrings, those of one class in its orientation;
    - `hypotheses`: in words, or as a `Hypothesis` with a predicate if a single problem decides;
    - `tolerance` and `why_tolerance`: the largest gap that counts as agreement, and its reason;
    - `checked_with`: the independent simulator;
    - `check(key, trials)`: sample at least `trials` instances within the hypotheses and measure the gap of each;
    - `power`: for a claim about frequencies, its level and how surely it rejects a constant that is 2 % off;
    - `necessity`: for each hypothesis that matters, `f(key)`, which drops it and returns a counterexample, if its draw is
      one;
    - `no_drop`: for an entry without `necessity`, why no hypothesis can be dropped; an entry has one of the two;
    - `figure(outcome, ax)`: draws the outcome on Matplotlib axes;
    - `single_tolerance`: the tolerance if everything is run in float32, if larger than `tolerance`; None for a
      statement about numbers that float32 cannot represent;
    - `default_trials`, `quick_trials`: the number of trials in `verify`, by default and with `quick`;
    - `losses`, `dynamics`: the names of the losses and of the dynamics ("flow", "descent", "sgd") that the law holds for.
    """

    name: str
    equation: str
    title: str
    claim: str
    formula: str
    hypotheses: tuple[str | Hypothesis, ...]
    tolerance: float
    why_tolerance: str
    checked_with: str
    default_trials: int
    check: Callable[[Any, int], Outcome]
    figure: Callable[..., None]
    necessity: tuple[Callable[[Any], Counterexample], ...] = ()
    no_drop: str = ""
    power: str = ""
    quick_trials: int = 24
    # Next to a kink the integrator in float32 is off by up to 5e-3; a law that is 5 % off is further from it.
    single_tolerance: float | None = 1e-2
    losses: tuple[str, ...] = LOSS_NAMES
    dynamics: tuple[str, ...] = ("flow",)
    meaning: str = ""

    def __repr__(self) -> str:
        return f"Theorem({self.name!r}, {self.equation!r}, {self.title!r})"

    _repr_html_ = fields_html

    def __reduce__(self):
        from gradstarve.theorems._catalogue import CATALOGUE

        if CATALOGUE.get(self.name) is self:
            return _of_catalogue, (self.name,)
        return super().__reduce__()

    def tolerance_in(self, precision: str) -> float:
        """The tolerance if everything is run in `precision`, "float64" or "float32"."""
        if precision == "float32" and self.single_tolerance is not None:
            return max(self.single_tolerance, self.tolerance)
        return self.tolerance

    def counterexamples(self, key: Any) -> tuple[Counterexample, ...]:
        """A counterexample for each hypothesis in `necessity`: the first one of up to four draws for which the claim fails.

        A single draw may be too close to the hypothesis; without the need for a hypothesis, no draw fails.
        """
        found = []
        for i, drop in enumerate(self.necessity):
            own = jax.random.fold_in(key, 1_000_000 + i)  # no trial has this key
            one = drop(own)
            for again in range(1, 4):
                one = one if one.found else drop(jax.random.fold_in(own, again))
            found.append(one)
        return tuple(found)

    def broken(self, problem: Problem) -> list[str]:
        """The hypotheses with a predicate that do not hold for a problem."""
        return [str(h) for h in self.hypotheses if isinstance(h, Hypothesis) and not h.holds(problem)]


def _of_catalogue(name: str) -> Theorem:
    """The entry called `name`: an entry holds functions, so it is pickled by its name."""
    from gradstarve.theorems._catalogue import CATALOGUE

    return CATALOGUE[name]


class TrialRecords(list):
    """The numbers of every trial as a list; called with the number of a trial, it acts as `Outcome.instance`."""

    def __call__(self, trial: int) -> dict[str, Any]:
        return self[trial]


class TrialLog:
    """Collects the gaps of an entry's trials, batch by batch, and remembers the worst one."""

    def __init__(self, tolerance: float):
        self.tolerance = tolerance
        self._gaps: list[np.ndarray] = []
        self._groups: list[np.ndarray] = []
        self._instances: list[Callable[[int], dict[str, Any]]] = []
        self._worst = -np.inf
        self._instance: dict[str, Any] = {}

    def add(self, gaps: Any, group: Any, instance: Callable[[int], dict[str, Any]], undecided: Any = False) -> None:
        """`gaps` [b] of one batch; `instance(i)` gives the numbers of trial i; `group`, `undecided`: [b], or one for all.

        A gap that is NaN without being undecided is a violation: it counts as infinite.
        """
        gaps = np.array(gaps, np.float64).reshape(-1)
        gaps, groups = np.where(np.isnan(gaps), np.inf, gaps), np.full(gaps.shape, group)
        decided = ~np.broadcast_to(np.asarray(undecided, bool), gaps.shape)
        if decided.any():
            worst = int(np.argmax(np.where(decided, gaps, -np.inf)))
            if gaps[worst] > self._worst:
                self._worst = float(gaps[worst])
                self._instance = {"group": str(groups[worst]), **plain(instance(worst))}
        self._gaps.append(np.where(decided, gaps, np.nan))
        self._groups.append(groups)
        self._instances.append(instance)

    def outcome(self, **extra: Any) -> Outcome:
        """The `Outcome` of all batches added."""
        gaps, groups = np.concatenate(self._gaps), np.concatenate(self._groups)
        return Outcome(
            trials=gaps.size,
            violations=int(np.sum(gaps > self.tolerance)),
            undecided=int(np.sum(np.isnan(gaps))),
            worst_gap=self._worst if np.isfinite(self._worst) or self._worst > 0 else float("nan"),
            worst_instance=self._instance,
            tolerance=self.tolerance,
            gaps=gaps,
            groups=groups,
            instance=self._instance_of,
            extra=extra,
        )

    def _instance_of(self, trial: int) -> dict[str, Any]:
        """The numbers of one trial among all that were added."""
        for gaps, groups, instance in zip(self._gaps, self._groups, self._instances, strict=True):
            if trial < gaps.size:
                return {"group": str(groups[trial]), **instance(trial)}
            trial -= gaps.size
        raise IndexError(trial)


def plain(value: Any) -> Any:
    """`value` in JSON types: arrays as nested lists of Python numbers, also inside dicts, lists and tuples; a loss as its
    name and its numbers."""
    if isinstance(value, Loss):
        value = {"name": value.name, **{field.name: getattr(value, field.name) for field in fields(value)}}
    if isinstance(value, dict):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, str | bool | int | float) or value is None:
        return value
    return np.asarray(value).tolist()


# The default figure: a histogram of the gaps of the trials, and the tolerance.

COLOURS = FILLS  # black is kept for the law and for the tolerance
_FLOOR = 1e-17  # the place of gaps of exactly zero


def draw_gaps(outcome: Outcome, ax: Any, xlabel: str = "gap between law and simulation (relative)") -> None:
    """A stacked histogram of log10(gap), one colour per group of trials, and the tolerance as a dashed line.

    `outcome`: of one entry; `ax`: Matplotlib axes; `xlabel`: the meaning of the gap. The `figure` of `register` is this
    function or your own.

    >>> from matplotlib.figure import Figure
    >>> from gradstarve.theorems import verify
    >>> axes = Figure().add_subplot()
    >>> draw_gaps(verify("sign", trials=24, progress=False).rows[0].outcome, axes)
    >>> axes.get_ylabel()
    'trials'
    """
    decided = ~np.isnan(outcome.gaps)
    logs = np.log10(np.clip(outcome.gaps[decided], _FLOOR, 1e3))
    groups = outcome.groups[decided]
    names = list(dict.fromkeys(groups.tolist()))
    limit = np.log10(outcome.tolerance)
    low = min(float(logs.min(initial=limit)), limit) - 0.5
    high = max(float(logs.max(initial=limit)), limit) + 1
    bins = np.linspace(low, high, 45)
    ax.hist(
        [logs[groups == name] for name in names],
        bins=bins,
        stacked=True,
        label=names,
        color=[COLOURS[i % len(COLOURS)] for i in range(len(names))],
    )
    ax.axvline(limit, color="black", linestyle="--", linewidth=1.5, label=f"tolerance {outcome.tolerance:.0e}")
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)
    ticks = ticks[:: max(1, int(np.ceil(ticks.size / 9)))]
    ax.set_xticks(ticks, [f"$10^{{{int(t)}}}$" if t > np.log10(_FLOOR) else "0" for t in ticks])
    ax.set_xlabel(xlabel)
    ax.set_ylabel("trials")
    ax.yaxis.get_major_locator().set_params(integer=True)
    columns = 5 if sum(map(len, names)) < 50 else 3
    # The legend is under the axes, where it hides neither the trials nor the tolerance.
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=columns)
