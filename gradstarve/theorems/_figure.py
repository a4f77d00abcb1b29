"""The figure of a law: lines from the formula, trained trials as markers, the counterexample in red, a strip of gaps.

A declared entry gives two functions of a recorded trial: `marks`, the trained values, and `law`, the values of the formula
in between. `of_solution` reads both from any trial that is one problem of `theory.solve`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from textwrap import fill
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from gradstarve import theory
from gradstarve.ground import COLOURS, short_repr, style
from gradstarve.problem import GradientDescent
from gradstarve.theorems._entry import Counterexample, Outcome, Problem
from gradstarve.theorems._formulas import RESIDUALS, mode_curve
from gradstarve.theorems._sampling import BATCH

Marks = tuple[Any, Any]
"""(x, trained values), [k] each."""
Drawn = tuple[dict[str, Any], np.ndarray, np.ndarray]
"""A trial, its x, and the trained values there."""
Name = tuple[float, float, str, str]
"""The name of a line: x, y, the text and its colour."""

_WITHOUT = COLOURS[1]
_GROUPS = (COLOURS[0], COLOURS[2], COLOURS[3], COLOURS[4])  # vermillion is kept for counterexamples
_SIGNS = "osD^"
_MOST = 24  # trials of a group from which those to draw are chosen
_DENSE = 240
_FLOOR = 1e-17  # the place of gaps of exactly zero


@dataclass(frozen=True)
class LawFigure:
    """The figure of a law, the `figure` of `register`: called with an outcome, axes, and counterexamples if there are any.

    - `marks(trial)`: the training of a recorded trial as (x, trained values), [k] each, or None for a trial that is not
      drawn; a trial without the numbers that `marks` reads is not drawn either. A trial is its recorded numbers,
      its "group", and its rows of the arrays in `extra`;
    - `law(trial, x)`: the values of the formula at `x`, for the same trial;
    - `across`, `up`: names of the x and y axes, words before symbols;
    - `each`: how many trials of a group get a line, by default four in all; `groups`: how many groups are drawn;
    - `one_line`: whether all trials of a group share one law: its line is drawn once, and every trial is marked;
    - `parts(trial)`: several curves of one trial by name, each drawn as a separate trial, in place of the groups;
    - `label(trial)`: the label of the line of a trial, by default the name of its group;
    - `span`: the two ends of the lines, if not those of the marks;
    - `dense`: the number of points of a line;
    - `xscale`, `yscale`, `xlim`, `ylim`: of the axes; `gap`: the label of the gap, under the strip;
    - `behind(ax)`: draws further objects on the axes, such as a region;
    - `without(numbers)`: (x, trained, x_law, law) of a counterexample, or None; by default `marks` and the recorded law.

    The axes are divided: the law above, and a strip below with the gap of every trial and the tolerance.

    >>> import numpy as np
    >>> from matplotlib.figure import Figure
    >>> from gradstarve.theorems import TrialLog
    >>> log, x = TrialLog(1e-9), np.linspace(0, 2, 4)
    >>> log.add([1e-12], "e^x", lambda i: {"x": x, "trained": np.exp(x)})
    >>> figure = LawFigure(lambda one: (one["x"], one["trained"]), lambda one, x: np.exp(x), "place x", "height e^x")
    >>> axes = Figure().subplots()
    >>> figure(log.outcome(), axes)
    >>> axes.get_ylabel(), len(axes.figure.axes)
    ('height e^x', 2)
    """

    marks: Callable[[dict[str, Any]], tuple[Any, Any] | None]
    law: Callable[[dict[str, Any], np.ndarray], Any]
    across: str
    up: str
    each: int | None = None
    groups: int = 4
    one_line: bool = False
    parts: Callable[[dict[str, Any]], dict[str, dict[str, Any]]] | None = None
    label: Callable[[dict[str, Any]], str] | None = None
    span: tuple[float, float] | None = None
    dense: int = _DENSE
    xscale: Any = "linear"
    yscale: Any = "linear"
    xlim: tuple[float | None, float | None] = (None, None)
    ylim: tuple[float | None, float | None] = (None, None)
    gap: str = "gap between law and training"
    behind: Callable[[Any], None] | None = None
    without: Callable[[dict[str, Any]], tuple[Any, Any, Any, Any] | None] | None = None

    __repr__ = short_repr

    def __call__(self, outcome: Outcome, ax: Any, counterexamples: tuple[Counterexample, ...] = ()) -> None:
        trials = self._trials(outcome)
        strip = _strip_below(ax)
        count = len(trials)
        labels = [name for k, (group, of) in enumerate(trials.items()) for name in self._group(ax, group, of, k, count)]
        ax.set(xscale=self.xscale, yscale=self.yscale, xlabel=self.across, ylabel=self.up)
        if self.yscale == "linear":
            # Ticks that do not follow the size: the layout knows what room their labels need.
            ax.locator_params(axis="y", nbins=6)
        if self.behind is not None:
            self.behind(ax)
        failed = next((c for c in counterexamples if self._failed(ax, c)), None)
        if self.xlim == (None, None) and self.xscale == "linear":
            _leave_out_the_long(ax, trials)
        # Limits that are not given follow all that is drawn.
        if self.xlim != (None, None):
            ax.set_xlim(self.xlim)
        if self.ylim != (None, None):
            ax.set_ylim(self.ylim)
        _name_lines(ax, labels)
        if strip is not None:
            colours = {} if self.parts else {name: _GROUPS[k % len(_GROUPS)] for k, name in enumerate(trials)}
            draw_strip(outcome, strip, self.gap, colours)
        _legend(ax if strip is None else strip, failed)

    def _trials(self, outcome: Outcome) -> dict[str, list[Drawn]]:
        """The trials that have marks, of the groups with most trials, by name; or those of their parts."""
        rows = {k: v for k, v in outcome.extra.items() if isinstance(v, np.ndarray) and len(v) == outcome.trials}
        decided = ~np.isnan(outcome.gaps)
        in_order = list(dict.fromkeys(outcome.groups[decided].tolist()))
        counts = {name: int(np.sum(decided & (outcome.groups == name))) for name in in_order}
        largest = sorted(in_order, key=lambda one: -counts[one])[: self.groups]
        chosen = [name for name in in_order if name in largest]
        found: dict[str, list[Drawn]] = {} if self.parts else {name: [] for name in chosen}
        for name in chosen:
            mine = np.flatnonzero((outcome.groups == name) & decided)
            for i in mine[np.unique(np.linspace(0, mine.size - 1, min(mine.size, _MOST)).astype(int))]:
                trial = {**outcome.instance(int(i)), **{key: value[i] for key, value in rows.items()}}
                for part, one in self._curves(name, trial).items():
                    x, y = (np.asarray(v, float) for v in one[1])
                    found.setdefault(part, []).append((one[0], x, y))
        return found

    def _curves(self, name: str, trial: dict[str, Any]) -> dict[str, tuple[dict[str, Any], Marks]]:
        """The parts of a trial that have marks, or the trial itself by the name of its group."""
        try:
            parts = self.parts(trial) if self.parts else {name: trial}
            marks = {part: (one, self.marks(one)) for part, one in parts.items()}
        except KeyError:  # an outcome without the numbers that the draw records for the figure
            return {}
        return {part: (one, of) for part, (one, of) in marks.items() if of is not None}

    def _group(self, ax: Any, name: str, trials: list[Drawn], k: int, groups: int) -> list[Name]:
        """Draw one group; where its lines are named, and how."""
        if not trials:
            return []
        colour, sign = _GROUPS[k % len(_GROUPS)], _SIGNS[k % len(_SIGNS)]
        each = self.each or max(1, round(4 / groups))
        # From those that move most down: neither all alike, nor one that stands still.
        size = np.argsort([-float(np.ptp(_scaled(y, self.yscale))) for _, _, y in trials], kind="stable")
        last = min(size.size, max(each, size.size * 3 // 4)) - 1
        lined = size[:1] if self.one_line else size[np.unique(np.linspace(0, last, each).round().astype(int))]
        look: dict[str, Any] = {"marker": sign, "linestyle": "none", "color": colour, "zorder": 4}
        look |= {"markerfacecolor": style.paper(), "markeredgewidth": 1.1}
        named = []
        for j, (trial, x, y) in enumerate(trials):
            if self.one_line or j in lined:
                ax.plot(x, y, markersize=3.6 if self.one_line else 5.5 if self.parts is None else 8 - 2.5 * k, **look)
            if j not in lined:
                continue
            every = np.concatenate([x.reshape(-1) for _, x, _ in trials]) if self.one_line else x
            line = places(every if self.span is None else np.array(self.span), self.xscale, self.dense)
            level = np.asarray(self.law(trial, line), float)
            ax.plot(line, level, color=colour, linewidth=1.6, zorder=3)
            if self.label:  # at its last mark
                named.append((float(x.reshape(-1)[-1]), float(y.reshape(-1)[-1]), self.label(trial), colour))
            elif j == lined[0]:  # groups at different heights
                spot = _at_share(_scaled(level, self.yscale), (k + 1) / (groups + 1))
                named.append((float(line[spot]), float(level[spot]), name, colour))
        return named

    def _failed(self, ax: Any, one: Counterexample) -> bool:
        """Draw a counterexample, if it records what is needed."""
        try:
            found = (self.without or self._recorded)(one.numbers)
        except (KeyError, IndexError, TypeError, ValueError):  # it records other numbers than a trial does
            return False
        if found is None:
            return False
        x, y, x_law, law = (np.asarray(v, float) for v in found)
        ax.plot(x_law, law, color=_WITHOUT, linewidth=1.4, linestyle=(0, (4, 2)), zorder=5)
        ax.plot(x, y, "X", color=_WITHOUT, markersize=6.5, markeredgecolor=style.paper(), markeredgewidth=0.6, zorder=6)
        return True

    def _recorded(self, numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any] | None:
        """Both curves of a counterexample that records "law" in the same form as "trained"."""
        if self.parts is not None:
            numbers = next(iter(self.parts(numbers).values()))
        numbers = {**numbers, "off": np.asarray(numbers["trained"], float) - np.asarray(numbers["law"], float)}
        trained, law = self.marks(numbers), self.marks({**numbers, "trained": numbers["law"]})
        return None if trained is None or law is None else (*trained, *law)


def _leave_out_the_long(ax: Any, trials: dict[str, list[Drawn]]) -> None:
    """End the axis at four times the middle length of the trials: one that is a hundred times as long hides the others."""
    ends = [float(x.max()) for group in trials.values() for _, x, _ in group if x.size]
    if ends and min(float(x.min()) for group in trials.values() for _, x, _ in group if x.size) >= 0:
        most = 4 * float(np.median(ends))
        if ax.get_xlim()[1] > 1.1 * most > 0:
            ax.set_xlim(-0.04 * most, most)


def places(x: Any, scale: str, count: int = _DENSE) -> np.ndarray:
    """The x of a line through the marks `x`, from the first of them, or from 0, to the last."""
    x = np.asarray(x, float)
    if scale == "log":
        some = x[x > 0]
        return np.geomspace(some.min() / 1.5, some.max() * 1.1, count)
    return np.linspace(min(0.0, x.min()), x.max(), count)


def draw_strip(outcome: Outcome, ax: Any, gap: str, colours: dict[str, str]) -> None:
    """The gap of every trial as a dot on a scale of powers of ten, and the tolerance."""
    decided = ~np.isnan(outcome.gaps)
    logs = np.log10(np.clip(outcome.gaps[decided], _FLOOR, 1e3))
    limit = np.log10(outcome.tolerance)
    # Alternately up and down, so that dots of equal gaps do not overlap, and the same run gives the same picture.
    height = (np.arange(logs.size) * 0.618034) % 1
    shade = [colours.get(name, style.GUIDE) for name in outcome.groups[decided].tolist()]
    ax.scatter(logs, height, s=7, c=shade, alpha=0.75, linewidths=0)
    ax.axvline(limit, color=style.foreground(), linestyle="--", linewidth=1.2)
    low, high = min(float(logs.min(initial=limit)), limit) - 0.6, max(float(logs.max(initial=limit)), limit) + 2.4
    ax.text(limit + 0.12, 0.5, f"tolerance\n{outcome.tolerance:.0e}", fontsize=style.text_size(8), va="center")
    step = max(1, int(np.ceil((high - low) / 9)))
    ticks = np.arange(np.ceil(low), np.floor(high) + 1)[::step]
    ax.set_xticks(ticks, [f"$10^{{{int(t)}}}$" if t > np.log10(_FLOOR) else "0" for t in ticks])
    ax.set(xlim=(low, high), ylim=(-0.12, 1.12), yticks=[], ylabel=f"{logs.size}\ntrials", xlabel=gap)
    ax.yaxis.label.set(rotation=0, ha="right", va="center", fontsize=style.text_size(8))
    ax.spines["left"].set_visible(False)


def _strip_below(ax: Any) -> Any:
    """New axes under `ax`, which shrinks to make room; None if the axes are not in a grid."""
    spot = ax.get_subplotspec()
    if spot is None:
        return None
    top, bottom = spot.subgridspec(2, 1, height_ratios=(5, 1))
    ax.set_subplotspec(top)
    return ax.figure.add_subplot(bottom)


def _scaled(values: np.ndarray, scale: str) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.log10(np.abs(values)) if scale == "log" else np.asarray(values, float)
    return np.where(np.isfinite(found), found, np.nanmin(np.where(np.isfinite(found), found, np.nan), initial=0.0))


def _at_share(values: np.ndarray, share: float) -> int:
    """The first index at which a line has made the given share of its change."""
    way = np.abs(values - values[0])
    return int(np.argmax(way >= share * way.max()))


def _name_lines(ax: Any, labels: list[Name]) -> None:
    """The names beside the lines, with an outline in the background colour."""
    from matplotlib.patheffects import withStroke

    for x, y, text, colour in labels:
        across, up = ax.transAxes.inverted().transform(ax.transData.transform((x, y)))
        look: dict[str, Any] = {"ha": "right" if across > 0.72 else "left", "va": "top" if up > 0.85 else "bottom"}
        shift = (-5 if across > 0.72 else 5, -3 if up > 0.85 else 3)
        look |= {"textcoords": "offset points", "color": colour, "fontsize": style.text_size(8.5), "zorder": 7}
        name = ax.annotate(text, (x, y), shift, **look)
        name.set_path_effects([withStroke(linewidth=2.5, foreground=style.paper())])


def _legend(ax: Any, failed: Counterexample | None) -> None:
    """The legend, under the axes on the left."""
    from matplotlib.lines import Line2D

    line: dict[str, Any] = {"color": style.foreground(), "linewidth": 1.6}
    mark: dict[str, Any] = {"marker": "o", "linestyle": "none", "markerfacecolor": style.paper()}
    handles: list[Any] = [Line2D([], [], label="law", **line), Line2D([], [], label="trained", **line | mark)]
    look: dict[str, Any] = {"loc": "upper left", "fontsize": style.text_size(8), "borderpad": 0, "borderaxespad": 0}
    if failed is not None:
        text = fill(f"the law fails without {failed.dropped}", 66)
        handles.append(Line2D([], [], color=_WITHOUT, marker="X", linestyle=(0, (4, 2)), label=text))
    ax.legend(handles=handles, bbox_to_anchor=(-0.12, -1.5), ncols=3, columnspacing=1.2, **look)


# Trials that are one problem: the class to draw, its time, and `theory.solve` between the records.


@dataclass(frozen=True)
class _Run:
    """One class of a recorded trial: its rate 2 p r, the times of its records, its margins there, and its first point."""

    problem: Problem
    rate: float
    times: np.ndarray
    margins: np.ndarray
    label: float
    point: int
    step: float | None

    @property
    def norm(self) -> float:
        """r of the class."""
        return float(np.linalg.norm(np.asarray(self.problem.data.points)[self.point]))

    @property
    def orthogonal(self) -> bool:
        """Whether all points of the other class are orthogonal to this one, so that neurons that leave are dead."""
        points: Any = np.asarray(self.problem.data.points)
        others = np.asarray(self.problem.data.labels) != self.label  # pyright: ignore[reportAttributeAccessIssue]
        return bool(np.all(np.abs(points[others] @ points[self.point]) < 1e-9 * self.norm**2))

    def neurons(self) -> tuple[np.ndarray, np.ndarray]:
        """a and zeta [h] of the neurons that are active on the class at the start, 0 of the others."""
        w, z = (np.asarray(getattr(self.problem.network, name)) for name in ("w", "z"))
        a = np.maximum(w @ np.asarray(self.problem.data.points)[self.point] / self.norm, 0)
        return a, np.where(a > 0, self.label * z, 0)


def read_run(trial: dict[str, Any], label: int | float | None = None) -> _Run | None:
    """The class of that label, or the one whose error changes most, of a recorded trial; None if it records no run."""
    problem = Problem.read(trial)
    if problem is None or "trained" not in trial or not ("times" in trial or "steps" in trial):
        return None
    step = None
    if "times" in trial:
        times = np.atleast_1d(np.asarray(trial["times"], float))
    else:
        step = float(np.asarray(trial.get("step_size", 1.0)))
        times = np.atleast_1d(np.asarray(trial["steps"], float)) * step
    labels, points = np.asarray(problem.data.labels), np.asarray(problem.data.points)  # pyright: ignore[reportAttributeAccessIssue]
    trained = _by_points(trial["trained"], labels)
    if trained.shape[-1] != labels.size or trained.shape[0] != times.size:
        return None
    firsts = [int(np.flatnonzero(labels == y)[0]) for y in np.unique(labels)[::-1]]
    # For a counterexample, the class that is further from its law.
    shown = _by_points(trial["off"], labels) if "off" in trial else error(labels * trained)
    size = np.abs(shown).max(0) if "off" in trial else np.ptp(shown, axis=0)
    point = max(firsts, key=lambda i: float(size[i])) if label is None else int(np.flatnonzero(labels == label)[0])
    mine = labels == labels[point]
    p = float(np.asarray(problem.data.weights)[mine].sum())
    rate = 2 * p * float(np.linalg.norm(points[point]))
    return _Run(problem, rate, times, labels[point] * trained[:, point], float(labels[point]), point, step)


def _by_points(logits: Any, labels: np.ndarray) -> np.ndarray:
    """Logits [records, n]; those of the first class alone [records] stand for all points."""
    logits = np.atleast_1d(np.asarray(logits, float))
    return logits if logits.ndim > 1 else logits[:, None] * labels[0] * labels


def error(margin: Any) -> np.ndarray:
    """The probability of the wrong label, 1/(1 + e^m)."""
    return expit(-np.asarray(margin, float))


TIME = "time of the class: 2 × frequency × norm × t  (2 p r t)"
STEPS = "steps × step size, in units of the class: 2 p r η k"
ERROR = "error: probability\nof the wrong label"
MARGIN = "margin of the class\n(its logit u)"


def solution_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """The margin of the class of `read_run` at 2 p r t = x: by (3.2) and (3.10), or for descent, and for classes that
    exchange neurons, by `theory.solve`."""
    run = read_run(trial)
    assert run is not None
    a, zeta = run.neurons()
    if run.step is None and (run.orthogonal or np.all((a == 0) | (zeta > -a))):
        return mode_curve(residual_of(run.problem.loss), run.norm, a, zeta, x)
    data, network, loss = run.problem.data, run.problem.network, run.problem.loss
    solve: Any = theory.solve  # the types do not show which kinds of data and network belong together
    if run.step is not None:
        numbers = {name: trial[name] for name in _NUMBERS if name in trial}
        dynamics = GradientDescent(**numbers, nesterov=bool(trial.get("nesterov", False)))
        law: Any = solve(data, network, loss, dynamics)
        return run.label * np.asarray(law.logits(np.rint(x / run.rate / run.step).astype(int)))[:, run.point]
    # As many networks and times as in a batch, so that the compiled law is used again.
    crowd: Any = jax.tree.map(lambda leaf: jnp.asarray(np.stack([np.asarray(leaf)] * BATCH)), network)
    law = solve(data, crowd, loss)
    count = run.times.size
    padded = np.concatenate([x, np.repeat(x[-1:], -x.size % count)]).reshape(-1, count) / run.rate
    found = np.concatenate([np.asarray(law.logits(part))[0, :, run.point] for part in padded])
    return run.label * found[: x.size]


def residual_of(loss: Any) -> Callable[[Any], Any]:
    """g of a named loss in NumPy; for any other loss its own `residual`."""
    return RESIDUALS[loss] if isinstance(loss, str) else lambda u: np.asarray(loss.residual(jnp.asarray(u)))


_NUMBERS = ("step_size", "momentum", "weight_decay")


def of_solution(up: str = ERROR, shown: Callable[[Any], Any] | None = None, **more: Any) -> LawFigure:
    """The figure of a law whose trials are problems of `theory.solve`: one class over 2 p r t.

    `up` is `ERROR`, for the error, or `MARGIN`, for the margin, or the name of `shown(margin)`; `more` are other fields of
    the figure.
    """
    shown = shown or (error if up == ERROR else np.asarray)

    def marks(trial: dict[str, Any]) -> Marks | None:
        run = read_run(trial)
        return None if run is None else (run.rate * run.times, shown(run.margins))

    def law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
        return shown(solution_law(trial, x))

    fields: dict[str, Any] = {"marks": marks, "law": law, "across": TIME, "up": up}
    if up == ERROR:
        fields["ylim"] = (-0.02, None)
    return LawFigure(**fields | more)


def diagonal(across: str, up: str, **more: Any) -> LawFigure:
    """The figure of a law of one or several numbers per trial: "trained" over "law", and the diagonal."""

    def marks(trial: dict[str, Any]) -> Marks:
        return np.reshape(trial["law"], -1), np.reshape(trial["trained"], -1)

    def without(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        x, y = marks(numbers)
        return x, y, np.sort(x), np.sort(x)

    fields: dict[str, Any] = {"marks": marks, "law": lambda trial, x: x, "across": across, "up": up}
    return LawFigure(**fields | {"one_line": True, "without": without} | more)
