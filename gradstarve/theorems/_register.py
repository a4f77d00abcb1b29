"""The declaration of a law, `@register(...)` on the function that draws its trials, and the one loop that runs them.

A declaration states the law, the keywords of its batches (`rounds`), and the keywords of the same draw without a
hypothesis (`drops`). The draw returns the `Trials` of one batch, and this module makes outcomes and counterexamples of them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any, TypeVar

import numpy as np

from gradstarve.ground import short_repr
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Theorem, TrialLog
from gradstarve.theorems._sampling import BATCH, LOSS_NAMES, generator, generators, record

CATALOGUE: dict[str, Theorem] = {}
"""Every law that is declared, by name."""

EACH_LOSS = tuple({"loss": name} for name in LOSS_NAMES)
"""Rounds: one batch with each of the named losses in turn."""

_Function = TypeVar("_Function", bound=Callable[..., Any])
Text = str | Callable[..., str]
Rounds = Sequence[dict[str, Any]] | Callable[[int], dict[str, Any]]


def _nowhere(i: int) -> dict[str, Any]:
    """No numbers in addition to those of trial i."""
    return {}


@dataclass(frozen=True, eq=False)
class Trials:
    """One batch of trials, as the draw of a law returns it to `register`; b is the number of trials.

    - `gaps`: [b], the distance of each trial from the claim, in the units of the entry's tolerance;
    - `numbers(i)`: everything needed to run trial i again, as a dict;
    - `lost`: [b], or one bool for all: trials without a verdict;
    - `group`: the kind of these trials, one name or [b] names; the figure has a colour for each;
    - `quote(i)`: the number in which trial i is furthest from the claim, for counterexamples;
    - `place(i)`: further numbers of a counterexample: where in the trial the claim fails;
    - `setting`, `rest`: texts before and after the quote of a counterexample, or functions of i that return them;
    - `extra`: for the figure and the report: arrays are joined along their first axis, numbers are added.

    `compared` makes `Trials` from trained values and those of the law.

    >>> trials = Trials([1e-12, 3e-9, np.nan], lambda i: {"seed": i}, lost=[False, False, True])
    >>> trials.worst(), trials.numbers(trials.worst()), trials.raised(1e-10).gaps
    (1, {'seed': 1}, array([1.e-10, 3.e-09,    nan]))
    """

    __repr__ = short_repr

    gaps: Any
    numbers: Callable[[int], dict[str, Any]]
    lost: Any = False
    group: Any = ""
    quote: Callable[[int], Quote] | None = None
    place: Callable[[int], dict[str, Any]] = _nowhere
    setting: Text = ""
    rest: Text = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def raised(self, gaps: Any) -> Trials:
        """The same trials, with gaps of at least these."""
        return replace(self, gaps=np.maximum(self.gaps, gaps))

    def worst(self) -> int:
        """The trial with the largest gap among those that are finite and not lost."""
        gaps = np.asarray(self.gaps, float)
        return int(np.argmax(np.where(np.asarray(self.lost) | ~np.isfinite(gaps), -np.inf, gaps)))


def compared(
    trained: Any,
    law: Any,
    unit: Any,
    numbers: Callable[[int], dict[str, Any]],
    lost: Any = False,
    quantity: Text = "",
    when: Text = "",
    judge: Callable[[Any], Any] = np.abs,
    axes: Sequence[str] = (),
    **more: Any,
) -> Trials:
    """Trials whose gap is the largest judge(trained - law) / unit over all axes but the first; the three broadcast.

    `judge` maps the difference to a gap: by default `np.abs`; use `np.positive` if the law is an upper bound and
    `np.negative` if it is a lower bound. `quantity` and `when` describe the quoted number: texts, or functions of its index
    (trial, and the indices of the other axes); `axes` names those other axes that a counterexample records.

    >>> trained, law = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 3.5]])
    >>> found = compared(trained, law, 1.0, lambda i: {}, quantity="u", when=lambda i, k: f"at t = {k}")
    >>> found.gaps, str(found.quote(found.worst()))
    (array([0. , 0.5]), 'at t = 1 u is 4, and 3.5 by the law (a gap of 0.5)')
    """
    trained, law, unit = np.broadcast_arrays(np.asarray(trained), np.asarray(law), np.asarray(unit))
    off = judge(trained - law) / unit

    def place(i: int) -> tuple[int, ...]:
        return tuple(int(k) for k in np.unravel_index(np.argmax(off[i]), off[i].shape))

    def quote(i: int) -> Quote:
        at = (i, *place(i))
        return Quote(_text(quantity, *at), _text(when, *at), law[at], trained[at], unit[at])

    gaps = off.reshape(len(off), -1).max(axis=-1)
    return Trials(gaps, numbers, lost, quote=quote, place=lambda i: dict(zip(axes, place(i), strict=False)), **more)


def at_time(times: Any) -> Callable[..., str]:
    """`when` of `compared` for trials whose second axis is the records at `times` [records], or [b, records]."""
    return lambda i, k, *_: f"at t = {np.broadcast_to(times, (i + 1, np.shape(times)[-1]))[i, k]:.4g}"


def recorded(data: Any, loss: Any, network: Any, each: dict[str, Any] | None = None, **same: Any) -> Callable[[int], dict]:
    """`numbers` of trials that are networks [b]: data, loss, network i, the entries i of `each` [b, ...], and `same`."""
    return lambda i: record(data, loss, network, i, **same, **{name: value[i] for name, value in (each or {}).items()})


def _text(text: Text, *place: int) -> str:
    return text(*place) if callable(text) else text


@dataclass(frozen=True)
class Drop:
    """A dropped hypothesis, in `words`, and `how` the trials are drawn without it.

    `how`: keywords for the draw of the entry, or another function, of (rng) or of (key), that returns `Trials` with
    quotes. `setting` and `rest`: the texts before and after the quote, by default those of the trials. The trial with the
    largest gap is the counterexample; `verify` checks that it exceeds the tolerance.

    >>> Drop("a small step", {"step_size": 3.0}, rest="the loss rises").how
    {'step_size': 3.0}
    """

    __repr__ = short_repr

    words: str
    how: dict[str, Any] | Callable[[Any], Trials]
    setting: str = ""
    rest: str = ""


def register(
    *,
    rounds: Rounds = ({},),
    batch: int = BATCH,
    drops: Sequence[Drop | Callable[[Any], Counterexample]] = (),
    details: dict[str, Any] | None = None,
    **entry: Any,
) -> Callable[[_Function], _Function]:
    """Declare a law: add the entry that the decorated function tests to the catalogue.

    The function draws and trains one batch, `(rng, **keywords) -> Trials` (or a list of `Trials`). A function whose first
    argument is called `key` is a whole check, `(key, trials) -> Outcome`, for claims that are not tested batch by batch.
    The decorator returns the function unchanged.

    - `entry`: the fields of `Theorem`. `name`, `equation`, `title`, `losses` and `dynamics` have to be literals: the
      command line, the README and the documentation read them without running the module;
    - `rounds`: the keywords of the k-th batch: a sequence, which is repeated cyclically, or a function of k;
    - `batch`: the number of trials of a batch;
    - `drops`: the hypotheses that matter, each a `Drop` or a function `f(key)` that returns a `Counterexample`;
    - `details`: numbers for the report that are the same for all batches.

    `ValueError` for a name that another module has declared.

    >>> from gradstarve.theorems import CATALOGUE, draw_gaps, verify
    >>> texts = {"title": "Halves", "claim": "x/2 is 0.5 x", "formula": "x / 2 = 0.5 x", "hypotheses": ("x is a number",)}
    >>> texts |= {"why_tolerance": "rounding", "checked_with": "NumPy", "no_drop": "there is one hypothesis"}
    >>> @register(name="halves", equation="yours", **texts, tolerance=1e-15, default_trials=24, figure=draw_gaps)
    ... def halves(rng):
    ...     x = rng.uniform(size=24)
    ...     return Trials(np.abs(x / 2 - 0.5 * x), lambda i: {"x": x[i]})
    >>> verify("halves", progress=False).ok
    True
    >>> del CATALOGUE["halves"]
    """

    def declare(function: _Function) -> _Function:
        name, whole = entry["name"], next(iter(inspect.signature(function).parameters)) == "key"
        old = CATALOGUE.get(name)
        if old is not None and inspect.unwrap(old.check).__module__ != function.__module__:
            raise ValueError(f"{name!r} is declared twice, in {inspect.unwrap(old.check).__module__} too")
        tolerance = entry["tolerance"]
        check = function if whole else _check(function, rounds, batch, tolerance, details or {})
        necessity = tuple(_without(drop, function, tolerance) if isinstance(drop, Drop) else drop for drop in drops)
        CATALOGUE[name] = Theorem(check=check, necessity=necessity, **entry)
        return function

    return declare


def _check(draw: Callable[..., Any], rounds: Any, batch: int, tolerance: float, details: dict[str, Any]) -> Any:
    @wraps(draw)
    def check(key: Any, trials: int) -> Outcome:
        log, extra = TrialLog(tolerance), []
        for found in drawn(draw, rounds, key, trials, batch):
            add(log, found)
            extra.append(found.extra)
        return log.outcome(**details, **_joined(extra))

    return check


def drawn(draw: Callable[..., Any], rounds: Rounds, key: Any, trials: int, batch: int = BATCH) -> Iterator[Trials]:
    """The batches of at least `trials` trials in total, each drawn with the keywords of its round."""
    for k, rng in enumerate(generators(key, trials, batch)):
        how: Any = rounds(k) if callable(rounds) else rounds[k % len(rounds)]
        found = draw(rng, **how)
        yield from found if isinstance(found, list) else [found]


def add(log: TrialLog, trials: Trials) -> None:
    """Add a batch to a log."""
    log.add(trials.gaps, trials.group, trials.numbers, trials.lost)


def _joined(parts: list[dict[str, Any]]) -> dict[str, Any]:
    """The `extra` of all batches: arrays joined along their first axis, numbers added."""
    found = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = [part[name] for part in parts if name in part]
        found[name] = np.concatenate(values) if isinstance(values[0], np.ndarray) else sum(values)
    return found


def _without(drop: Drop, draw: Callable[..., Any], tolerance: float) -> Callable[[Any], Counterexample]:
    """A function of a key that returns the counterexample of `drop`: the worst trial of one batch, with its quote."""

    def counterexample(key: Any) -> Counterexample:
        if isinstance(drop.how, dict):
            found = draw(generator(key), **drop.how)
        else:
            by_key = next(iter(inspect.signature(drop.how).parameters)) == "key"
            found = drop.how(key if by_key else generator(key))
        i = found.worst()
        assert found.quote is not None, "the draw of a drop has to give quotes"
        setting, rest = drop.setting or _text(found.setting, i), drop.rest or _text(found.rest, i)
        numbers = found.numbers(i) | found.place(i)
        return Counterexample.of(drop.words, found.quote(i), tolerance, numbers, setting, rest)

    return counterexample
