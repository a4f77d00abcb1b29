"""Loss of plasticity: which neurons die when the labels of a class flip again and again, and what that costs (21.1).

Data are one class along a random direction of d coordinates, whose labels flip after every task; weights start Gaussian, w
with the same deviation as z. A flip reverses the clock of the class. A neuron that started at (a > 0, z) survives a long
task iff z > -c a, and its flip iff z < c a too; c = 1 for all steps of two factors (descent, with or without weight decay,
and normalised descent), c = 1/rho, rho = |x|_1/|x|_2, for sign descent, which returns on the same path. So of the neurons
active on the class

    after the first task    1/2 + arctan(c)/pi    survive (4.2), (17.6), three quarters for c = 1,
    after the first flip    2 arctan(c)/pi        two thirds of these,
    after every later one   the same              because the clock stays in the same range,

and a network of h neurons, each active on the class with chance 1/2, can no longer learn the class with chance
(1 - share/2)^h. Two changes kill no neuron that survives the first task: other frequencies, which do not reverse the clock,
and an opposite class, antipodal to the first, which every neuron that leaves joins (4.3).

Four panels: the shares after each task; the plane (a, z) of the start with exact boundaries z = -a/tanh(highest) and z =
a/tanh|lowest| of tasks so short that these are no diagonals; the steps to learn each task; and the chance that a class is
lost, over the width. Laws are lines and trained networks markers.

Results with the default settings: every trained neuron has the fate of the exact law of its steps, `theory.solve`. Steps of
finite size cost more than the law of long tasks predicts. Each flip lowers kappa by the factors 1 - (x g)^2 of
(19.1), with x g close to x, so that relearning takes longer with every flip even if no neuron dies; weight decay lowers
kappa further (19.5). Sign descent with finite steps does not return on the same path: where z passes 0 a neuron loses
2 eta rho of its a, so that a few more neurons die in every flip, and more classes are lost than by the law of small steps:
of 1000 networks of 8 neurons 41.5 % after the flip and 42.7 % after the flip back, where the law gives 36.9 % and its
borders 39.9 % of these starts. Under descent the borders predict each of these networks correctly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    GUIDE,
    INK,
    Progress,
    did_you_mean,
    headline,
    new_figure,
    number,
    save,
    sheet,
    short_repr,
    shown,
    table_text,
)
from gradstarve.problem import Dataset, GradientDescent, NormalizedGradientDescent, SignDescent, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import BOX, counts, positive, real, seeds, setting, sizes

CONTRASTS = ("reweighted", "antipodal")
"""Descent where no neuron dies of a new task: other frequencies instead of flips, and opposite classes that both flip."""
RULES = ("descent", "decay", "normalised", "sign", *CONTRASTS)
"""The update rules that train a class whose labels flip, and the contrasts."""
_TITLES = {
    "descent": "descent",
    "decay": "weight decay",
    "normalised": "normalised descent",
    "sign": "sign descent",
    "reweighted": "other frequencies, no flip",
    "antipodal": "antipodal classes",
}
_LONG = 20.0  # the reading of the clock after a long task


def _names(name: str, value: Any) -> tuple[str, ...]:
    given = (value,) if isinstance(value, str) else tuple(value)
    for one in given:
        if not isinstance(one, str) or one not in RULES:
            raise ValueError(f"{name} must be among {', '.join(RULES)}, got {shown(one)}{did_you_mean(one, RULES)}")
    if not given or len(set(given)) < len(given):
        raise ValueError(f"{name} must be one or several different ones of {', '.join(RULES)}, got {shown(value)}")
    return tuple(map(str, given))


def _clocks(name: str, value: Any) -> tuple[float, ...]:
    """The clock after each task, alternately above and below 0."""
    found = plane.numbers(name, value)
    turns = all(one * other < 0 for one, other in pairwise(found))
    if found[0] <= 0 or not turns or max(map(abs, found)) > 5:
        wanted = "by turns above and below 0, at most 5 from it, as 0.9,-0.6,1.4"
        raise ValueError(f"{name} must be {wanted}, got {shown(value)}")
    return found


@dataclass(frozen=True)
class PlasticitySettings(plane.Settings):
    """The settings of `plasticity_study`, checked before anything is computed.

    `rules` train `networks` of `width` neurons in `dim` coordinates, weights of deviation `scale`, through `tasks`, the
    first of `steps` steps and each later one, which has to unlearn first, of twice as many steps. `step_size` of descent;
    `weight_decay` of "decay"; `length` of a normalised step, over the length of all weights at the start; `rate` of sign
    descent, over `scale`. A task is learnt at an error of `goal`.

    The plane has `neurons` neurons of one network; its clock runs to each of `clocks` in turn. The chance that a class is
    lost is counted over `starts` networks of each of `widths`.
    """

    rules: tuple[str, ...] = setting(RULES, _names)
    dim: int = setting(10, counts())
    width: int = setting(32, counts())
    networks: int = setting(100, counts(2))
    tasks: int = setting(5, counts(2))
    steps: int = setting(500, counts(10))
    scale: float = setting(0.1, positive)
    step_size: float = setting(0.25, positive)
    weight_decay: float = setting(0.002, positive)
    length: float = setting(0.02, positive)
    rate: float = setting(0.015, positive)
    goal: float = setting(0.1, positive)
    neurons: int = setting(600, counts(10))
    clocks: tuple[float, ...] = setting((0.9, -0.6, 1.4), _clocks)
    widths: tuple[int, ...] = setting((1, 2, 4, 8, 16), sizes)
    starts: int = setting(1000, counts(10))
    key: int | tuple[int, ...] = setting(0, seeds)


QUICK: dict[str, Any] = {"networks": 40, "tasks": 4, "widths": (1, 4, 8), "starts": 300, "neurons": 300}
"""Settings of a study that takes about a minute."""


class Task(NamedTuple):
    """The neurons alive after `task` 1, 2, ... under a `rule`, of `count` neurons active on the class at the start.

    `law`: the share alive after long tasks; `exact`: the share in these networks by `theory.solve`, `alive` in training and
    `error` its standard error by the law; `right`: the share of neurons for which both agree. `learns`: the steps from
    the beginning of the task to an error of the goal, median over the networks that reach it, by the law
    and `trained`; `lost`: the share of networks that do not reach it.
    """

    rule: str
    task: int
    law: float
    exact: float
    alive: float
    error: float
    right: float
    learns: float
    trained: float
    lost: float
    count: int


class Plane(NamedTuple):
    """The neurons of one network at the start, `a` > 0 and `z`: `died`, the task 1, 2, ... of death in training, 0 if alive.

    `said`: the same by the boundaries; `lowest`, `highest`: the range of the clock up to the end of each task.
    """

    a: np.ndarray
    z: np.ndarray
    died: np.ndarray
    said: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray


class Width(NamedTuple):
    """The share of `count` networks of `width` neurons that cannot learn the class after `task`, by `law` and `trained`."""

    rule: str
    task: int
    width: int
    law: float
    trained: float
    error: float
    count: int


@dataclass(frozen=True, eq=False)
class PlasticityStudy:
    """The result of `plasticity_study`; `plasticity_study(**study.settings)` computes it again. `reach`: rho of the
    points."""

    settings: dict[str, Any]
    reach: float
    tasks: tuple[Task, ...]
    plane: Plane
    widths: tuple[Width, ...]

    __repr__ = short_repr

    def of(self, rule: str) -> list[Task]:
        """The tasks of a rule, in order."""
        return [one for one in self.tasks if one.rule == rule]

    def rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for each rule and task."""
        head = ("rule", "task", "alive, law", "trained", "std. error", "fates right", "steps, law", "trained", "not learnt")
        rows: list[tuple[str, ...]] = [head]
        for t in self.tasks:
            shares = (f"{t.law:.4f}", f"{t.alive:.4f}", f"{t.error:.4f}", f"{t.right:.4f}")
            steps = (number(t.learns), number(t.trained), f"{t.lost:.2f}")
            rows.append((t.rule, str(t.task), *shares, *steps))
        return rows

    def width_rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for each rule, task and width."""
        rows: list[tuple[str, ...]] = [("class lost under", "after task", "h", "law", "trained", "std. error")]
        for w in self.widths:
            rows.append((w.rule, str(w.task), str(w.width), *(f"{v:.4f}" for v in (w.law, w.trained, w.error))))
        return rows

    def conclusion(self) -> str:
        """In one sentence, how many neurons are left after the last task of the first rule."""
        last = self.of(self.settings["rules"][0])[-1]
        shares = f"{100 * last.alive:.0f} % of the neurons are alive in training, {100 * last.law:.0f} % by the law"
        return f"After {last.task} tasks {shares} (rule {last.rule})"

    def table(self) -> str:
        """Two tables: the neurons alive after each task, and how often a class is lost."""
        return "\n\n".join(table_text(rows) for rows in (self.rows(), self.width_rows()) if len(rows) > 1)

    def notes(self) -> str:
        """An explanation of the tables, in words."""
        right = float((self.plane.died == self.plane.said).mean())
        return (
            "alive: of the neurons that see the class at the start, the share that still does; law: after long tasks\n"
            "(21.1). fates right: neurons of which theory.solve and training say the same. steps: from the beginning of a\n"
            "task to the error of the goal, median over networks. class lost: no neuron sees it any more.\n"
            f"In the plane the boundaries say the fate of {100 * right:.1f} % of {self.plane.a.size} neurons."
        )

    def number_rows(self, part: str) -> list[tuple[str, ...]]:
        """The "tasks" or the "widths" with all digits: the names of the numbers, and the rows."""
        kind = {"tasks": Task, "widths": Width}[part]
        return [kind._fields, *(tuple(map(str, one)) for one in getattr(self, part))]

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        named = {name: [one._asdict() for one in getattr(self, name)] for name in ("tasks", "widths")}
        return {"reach": self.reach} | named | {"plane": self.plane._asdict()}

    def plot(self, path: Any = None) -> Any:
        """The matplotlib `Figure`: laws as lines, training as markers; saved to `path` if there is one."""
        return draw(self, path)


def plasticity_study(*, progress: Any = None, **settings: Any) -> PlasticityStudy:
    """Which neurons die when labels flip again and again, and what that costs; see `PlasticitySettings` for the settings.

    Whole networks are trained by automatic differentiation, with phases. Laws are `theory.alive_share`, `still_alive` and
    `solve`. Use float64. `ValueError` for invalid settings.

    >>> study = plasticity_study(rules="descent", networks=10, width=4, dim=3, tasks=2, neurons=20, widths=1, starts=10)
    >>> [round(one.law, 4) for one in study.of("descent")], [one.right for one in study.of("descent")]
    ([0.75, 0.5], [1.0, 1.0])
    """
    known = PlasticitySettings.__dataclass_fields__
    for name in settings:
        if name not in known:
            meant = did_you_mean(name, known)
            raise ValueError(f"{name} is no setting of the study of plasticity; it has {', '.join(known)}{meant}")
    s = PlasticitySettings.of(**settings)
    assert isinstance(s, PlasticitySettings)
    unit = _unit(s)
    lasting = [rule for rule in s.rules if rule in ("descent", "sign")]
    tasks: list[Task] = []
    widths: list[Width] = []
    with Progress(progress, len(s.rules) + 1 + len(lasting) * len(s.widths), "plasticity") as bar:
        for done, rule in enumerate(s.rules, start=1):
            tasks += _train(s, rule, unit)
            bar.update(done)
        drawn = _plane(s, unit)
        bar.update(len(s.rules) + 1)
        cells = [(rule, width) for rule in lasting for width in s.widths]
        for done, (rule, width) in enumerate(cells, start=len(s.rules) + 2):
            widths += _lost(s, rule, unit, width)
            bar.update(done)
    return PlasticityStudy(asdict(s), float(np.abs(unit).sum()), tuple(tasks), drawn, tuple(widths))


# --- tasks, and networks trained through them --------------------------------------------------------------------------


def _rng(s: PlasticitySettings, *more: int) -> np.random.Generator:
    return np.random.default_rng((*np.ravel(s.key).tolist(), *more))


def _unit(s: PlasticitySettings) -> np.ndarray:
    """The direction of the class."""
    unit = _rng(s, 0).normal(size=s.dim)
    return unit / np.linalg.norm(unit)


def _start(s: PlasticitySettings, networks: int, width: int, *which: int, across: bool = False) -> TwoLayerReLU:
    """Gaussian networks; with `across`, one more coordinate, in which no neuron has a positive weight."""
    rng = _rng(s, *which)
    w, z = rng.normal(size=(networks, width, s.dim)), rng.normal(size=(networks, width))
    w = np.concatenate([w, -np.ones((*z.shape, 1))], axis=-1) if across else w
    return TwoLayerReLU(real(w * s.scale), real(z * s.scale))


def dynamics_of(rule: str, s: PlasticitySettings, width: int) -> Any:
    """The dynamics of a `rule` for networks of `width` neurons."""
    made: dict[str, Callable[[], Any]] = {
        "decay": lambda: GradientDescent(s.step_size, weight_decay=s.weight_decay),
        # About the length of the weights of the neurons that see the class.
        "normalised": lambda: NormalizedGradientDescent(s.length * s.scale * np.sqrt(width)),
        "sign": lambda: SignDescent(s.rate * s.scale),
    }
    return made.get(rule, lambda: GradientDescent(s.step_size))()


def ends_of(s: PlasticitySettings, tasks: int) -> list[int]:
    """The last step of each task."""
    return [s.steps * (1 + 2 * task) for task in range(tasks)]


def phases_of(rule: str, unit: np.ndarray, ends: list[int]) -> list[tuple[int | None, Dataset]]:
    """One class, or two opposite ones, with flipped labels in every task; for "reweighted" with another frequency.

    The remaining weight is on a point in a separate coordinate, on which no neuron of `_start` is active.
    """
    phases: list[tuple[int | None, Dataset]] = []
    for task, end in enumerate(ends):
        sign, points, labels, weights = (-1) ** task, unit[None], np.ones(1), [1.0]
        if rule == "antipodal":
            points, labels, weights = np.stack([unit, -unit]), np.array([1.0, -1.0]), [0.5, 0.5]
        if rule == "reweighted":
            share = (0.5, 0.25, 0.75)[0 if task == 0 else 1 + task % 2]
            points = np.stack([np.append(unit, 0), np.append(0 * unit, 1)])
            sign, labels, weights = 1, np.array([1.0, -1.0]), [share, 1 - share]
        until = None if task == len(ends) - 1 else end
        phases.append((until, Dataset(real(points), real(sign * labels), real(weights))))
    return phases


def _c(rule: str, unit: np.ndarray) -> float:
    """The slope of the line z = -c a."""
    return 1 / float(np.abs(unit).sum()) if rule == "sign" else 1.0


def share_alive(rule: str, task: int, c: float) -> float:
    """The share alive after long tasks (21.1)."""
    if rule == "antipodal":
        return 1.0
    lowest = 0.0 if task == 1 or rule == "reweighted" else -_LONG
    return float(theory.alive_share(lowest, _LONG, scale_a=c, scale_z=1.0))


def _train(s: PlasticitySettings, rule: str, unit: np.ndarray) -> list[Task]:
    """One rule on the networks that all rules share."""
    start, ends = _start(s, s.networks, s.width, 1, across=rule == "reweighted"), ends_of(s, s.tasks)
    phases, dynamics = phases_of(rule, unit, ends), dynamics_of(rule, s, s.width)
    axis = np.asarray(phases[0][1].points)[0]
    run: Any = simulate(phases, start, "cross-entropy", dynamics, ends[-1], engine="reference", progress=False)
    law: Any = theory.solve(phases, start, "cross-entropy", dynamics)
    first = np.asarray(start.w) @ axis
    sees = np.ones_like(first, bool) if rule == "antipodal" else first > 0
    found = []
    lengths = np.diff(ends, prepend=0)
    for task, (part, solved, length) in enumerate(zip(run.parts, law.parts, lengths, strict=True), start=1):
        share = share_alive(rule, task, _c(rule, unit))
        later = law.parts[task].start if task < len(law.parts) else solved.network(int(length))
        now, said = (np.asarray(network.w) @ axis for network in (part.final, later))
        alive, exact = ((a != 0 if rule == "antipodal" else a > 0)[sees] for a in (now, said))
        # Point 0 is of the class that the study follows.
        there = np.asarray(part.margins())[..., 0] >= np.log(1 / s.goal - 1)
        took = np.where(there.any(-1), there.argmax(-1), np.inf)
        curve = solved.plus if float(part.data.labels[0]) > 0 else solved.minus
        says = np.asarray(curve.time_to_error(s.goal, int(length)), np.float64)
        learns, trained = (float(np.median(v[np.isfinite(v)])) if np.isfinite(v).any() else np.nan for v in (says, took))
        error = float(np.sqrt(share * (1 - share) / alive.size))
        shares = (share, float(exact.mean()), float(alive.mean()), error, float((alive == exact).mean()))
        found.append(Task(rule, task, *shares, learns, trained, float(np.isinf(took).mean()), alive.size))
    return found


def _lost(s: PlasticitySettings, rule: str, unit: np.ndarray, width: int) -> list[Width]:
    """How often no neuron is active on the class after the first task, its flip and the flip back."""
    ends = ends_of(s, 3)
    start, phases = _start(s, s.starts, width, 2, width), phases_of(rule, unit, ends)
    run: Any = simulate(
        phases, start, "cross-entropy", dynamics_of(rule, s, width), ends[-1], record_every=ends[-1],
        engine="reference", progress=False,
    )  # fmt: skip
    found = []
    for task, part in enumerate(run.parts, start=1):
        law = (1 - share_alive(rule, task, _c(rule, unit)) / 2) ** width
        gone = float((np.asarray(part.final.w) @ unit <= 0).all(-1).mean())
        found.append(Width(rule, task, width, law, gone, float(np.sqrt(law * (1 - law) / s.starts)), s.starts))
    return found


# --- the plane of the start --------------------------------------------------------------------------------------------

_SMALL = 0.02  # step size of the plane
_TINY = 1e-3  # the scale of its weights: outputs stay close to 0, so that the clock runs with g(0) = 1/2


def _plane(s: PlasticitySettings, unit: np.ndarray) -> Plane:
    """The neurons of one wide network in short tasks, which move its clock to each of `clocks` in turn."""
    rng = _rng(s, 3)
    w, z = rng.normal(size=(s.neurons, s.dim)) * _TINY, rng.normal(size=s.neurons) * _TINY
    start = TwoLayerReLU(real(w), real(z))
    ran = np.abs(np.diff((0.0, *s.clocks)))
    ends = np.cumsum(np.maximum(np.rint(ran / (_SMALL / 2)), 1)).astype(int).tolist()
    phases, dynamics = phases_of("descent", unit, ends), GradientDescent(_SMALL)
    run: Any = simulate(phases, start, "cross-entropy", dynamics, ends[-1], engine="reference", progress=False)
    first = w @ unit
    alive = np.stack([np.asarray(part.final.w) @ unit > 0 for part in run.parts])[:, first > 0]
    a, z = first[first > 0], z[first > 0]
    law: Any = theory.solve(phases, start, "cross-entropy", dynamics)
    clock = _clock(law.parts, np.diff(ends, prepend=0), unit, int(np.flatnonzero(first > 0)[np.argmin(np.abs(z) / a)]))
    lowest, highest = (np.array([pick(clock[: end + 1]) for end in ends]) for pick in (np.min, np.max))
    said = np.asarray(theory.still_alive(real(a), real(z), real(lowest[:, None]), real(highest[:, None])))
    died, by_law = (np.where(ever.all(0), 0, 1 + (~ever).argmax(0)) for ever in (alive, said))
    return Plane(a / _TINY, z / _TINY, died, by_law, lowest, highest)


def _clock(parts: Any, lengths: np.ndarray, unit: np.ndarray, safe: int) -> np.ndarray:
    """s = log[(a + z)/(a - z) now / at the start]/2 at every step, from the neuron `safe`, which is far from any border."""
    ratios = []
    for part, length in zip(parts, lengths, strict=True):
        later = part.network(np.arange(1 - (not ratios), length + 1))
        a, z = np.asarray(later.w, np.float64)[:, safe] @ unit, np.asarray(later.z, np.float64)[:, safe]
        ratios.append((a + z) / (a - z))
    ratio = np.concatenate(ratios)
    return np.log(ratio / ratio[0]) / 2


# --- the figure --------------------------------------------------------------------------------------------------------

_COLOUR: dict[str, str] = dict(zip(RULES, (*(COLOURS[k] for k in (0, 3, 2, 1)), INK, GUIDE), strict=True))
_MARK: dict[str, str] = dict(zip(RULES, "o^sDvP", strict=True))
_FATES = (COLOURS[0], COLOURS[4], COLOURS[1], COLOURS[3], COLOURS[5], COLOURS[2])
_FATE_MARKS = "o^sDvP"


def draw(study: PlasticityStudy, path: Any = None) -> Any:
    """The `Figure` of a `PlasticityStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    with sheet():
        figure = new_figure(11.5, 9)
        axes = figure.subplots(2, 2)
        for panel, axis in zip((_shares, _regions, _times, _losses), axes.ravel(), strict=True):
            panel(axis, study)
        s = study.settings
        headline(
            figure,
            "Loss of plasticity: the labels of a class flip after every task, and a flip turns its clock round (21.1)",
            f"Lines: laws. Markers: {s['networks']} networks of h = {s['width']} neurons in d = {s['dim']}, trained",
        )
        if path is not None:
            save(figure, path)
    return figure


def _look(rule: str) -> dict[str, Any]:
    return {"color": _COLOUR[rule], "marker": _MARK[rule], "mfc": "white", "ms": 5.5, "ls": "none", "zorder": 3}


def _beside(panel: Any, labels: list[tuple[float, str, str]], x: float, gap: float) -> None:
    """Write the labels (height, text, colour) to the right of x, at least `gap` of the height of the panel apart."""
    low, high = panel.get_ylim()
    log = panel.get_yscale() == "log"

    def part(y: float) -> float:
        return float(np.log(y / low) / np.log(high / low)) if log else (y - low) / (high - low)

    ordered = sorted((part(y), text, colour) for y, text, colour in labels)
    heights = np.array([height for height, *_ in ordered])
    for _ in range(200):  # neighbours that are too near push each other away
        short = np.maximum(gap - np.diff(heights), 0) / 2
        if not short.any():
            break
        heights[:-1] -= short
        heights[1:] += short
    for height, (_, text, colour) in zip(heights, ordered, strict=True):
        panel.annotate(text, (x, height), (9, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                       color=colour, va="center", fontsize=9, annotation_clip=False)  # fmt: skip


def _shares(panel: Any, study: PlasticityStudy) -> None:
    s = study.settings
    rules = s["rules"]
    labels: dict[float, list[str]] = {}
    for k, rule in enumerate(rules):
        found = study.of(rule)
        x, law = np.array([t.task for t in found]), np.array([t.law for t in found])
        panel.plot(np.append(0, x), np.append(1, law), color=_COLOUR[rule], lw=1.3, zorder=2)
        if rule == "sign":
            panel.plot(x, [t.exact for t in found], color=_COLOUR[rule], lw=1.3, ls=":", zorder=2)
        apart = x + 0.09 * (k - (len(rules) - 1) / 2)
        bars = {"yerr": 2 * np.array([t.error for t in found]), "capsize": 2, "lw": 1.1}
        panel.errorbar(apart, [t.alive for t in found], **bars, **_look(rule))
        labels.setdefault(round(float(law[-1]), 6), []).append(rule)
    last = s["tasks"]
    panel.set(xlabel="task, each with the labels of the one before flipped", ylabel="share of neurons alive", ylim=(0, 1.06))
    panel.set_xlim(-0.1, last + 0.3)
    panel.set_xticks(range(last + 1), ["start", *map(str, range(1, last + 1))])
    texts = [(law, ",\n".join(_TITLES[rule] for rule in same), _COLOUR[same[0]]) for law, same in labels.items()]
    _beside(panel, texts, last + 0.3, 0.1)
    if "sign" in rules:
        panel.annotate("dotted: exact law of steps of this size", (0.02, 0.03), xycoords="axes fraction", fontsize=8.5,
                       color=_COLOUR["sign"])  # fmt: skip
    panel.set_title("who is left after each task (bars: two standard errors)", loc="left", fontweight="bold")


def _regions(panel: Any, study: PlasticityStudy) -> None:
    found = study.plane
    reach = 2.6
    tasks = len(found.highest)
    panel.axhline(0, color=GUIDE, lw=0.8, zorder=1)
    for fate in range(tasks + 1):
        here = (found.died == fate) & (found.a < reach) & (np.abs(found.z) < reach)
        panel.plot(found.a[here], found.z[here], ls="none", marker=_FATE_MARKS[fate % 6], ms=3.6, mew=0.8,
                   color=_FATES[fate % 6], mfc=_FATES[fate % 6] if fate else "white", zorder=2)  # fmt: skip
    line = np.array([0, reach])
    edges: dict[int, float] = {}
    for task in range(tasks):
        # A task moves one of the two borders: the border of the end to which the clock runs.
        side, clock = (-1, found.highest[task]) if task % 2 == 0 else (1, -found.lowest[task])
        if clock > 0:
            edges[task] = side / np.tanh(clock)
            panel.plot(line, edges[task] * line, color=INK, lw=1.5, zorder=3)
    panel.set(xlim=(0, reach), ylim=(-reach, reach))
    panel.set(xlabel="a at the start, over its deviation", ylabel="z at the start, over its deviation")
    panel.annotate("alive after all tasks", (0.97, 0.5), (0, 6), xycoords="axes fraction", textcoords="offset points",
                   ha="right", fontsize=9, color=_FATES[0], bbox=BOX, zorder=5)  # fmt: skip
    for task, slope in edges.items():
        clock = number(found.highest[task] if slope < 0 else found.lowest[task], 3)
        colour = _FATES[(task + 1) % 6]
        look: dict[str, Any] = {"fontsize": 9, "color": colour, "va": "center", "annotation_clip": False, "zorder": 5}
        text = f"dies in task {task + 1}\n(clock to {clock})"
        earlier = [other for k, other in edges.items() if k < task and other * slope > 0]
        if not earlier:
            panel.annotate(text, (0.06, 0.84 * reach * np.sign(slope)), bbox=BOX, **look)
            continue
        # A wedge is too narrow for text, which is placed beside the panel.
        middle = (slope + min(earlier, key=abs)) / 2
        x = min(0.97 * reach, 0.9 * reach / abs(middle))
        arrow = {"arrowstyle": "-", "color": colour, "lw": 0.8}
        height = 0.75 * np.sign(slope) * reach
        panel.annotate(text, (x, middle * x), (1.04 * reach, height), arrowprops=arrow, **look)
    panel.set_title("fates after short tasks (lines: exact borders)", loc="left", fontweight="bold")


def _times(panel: Any, study: PlasticityStudy) -> None:
    s = study.settings
    labels = []
    for rule in (rule for rule in s["rules"] if rule not in CONTRASTS):
        found = study.of(rule)
        x = [t.task for t in found]
        law, trained = (np.array([getattr(t, name) for t in found]) for name in ("learns", "trained"))
        panel.plot(x, law, color=_COLOUR[rule], lw=1.3, zorder=2)
        panel.plot(x, trained, **_look(rule))
        if np.isfinite(law).any():
            labels.append((float(law[np.isfinite(law)][-1]), _TITLES[rule], _COLOUR[rule]))
    panel.set(xlabel="task", ylabel="steps until it is learnt, median", yscale="log", xlim=(0.7, s["tasks"] + 0.3))
    panel.set_xticks(range(1, s["tasks"] + 1))
    _plain(panel)
    _beside(panel, labels, s["tasks"] + 0.3, 0.06)
    panel.set_title(f"what it costs: steps to an error of {number(s['goal'])}", loc="left", fontweight="bold")


def _losses(panel: Any, study: PlasticityStudy) -> None:
    s = study.settings
    rules = list(dict.fromkeys(w.rule for w in study.widths))
    if not rules:
        panel.axis("off")
        return
    smooth = np.linspace(min(s["widths"]), max(s["widths"]), 200)
    fewest, labels = 1.0, []
    for rule in rules:
        for task, dash in ((1, (0, (4, 2))), (2, "-"), (3, "-")):
            found = [w for w in study.widths if (w.rule, w.task) == (rule, task)]
            share = share_alive(rule, task, 1 / study.reach if rule == "sign" else 1.0)
            law = (1 - share / 2) ** smooth
            if task < 3:
                panel.plot(smooth, law, color=_COLOUR[rule], lw=1.3, ls=dash, zorder=2)
                when = "first task" if task == 1 else "a flip, or more"
                labels.append((law[-1], f"{_TITLES[rule]},\n{when}", _COLOUR[rule]))
            seen = [w for w in found if w.trained > 0]
            apart = 1 + 0.025 * (task - 2)
            # On a logarithmic axis a bar cannot reach 0.
            error = np.array([[min(2 * w.error, 0.9 * w.trained) for w in seen], [2 * w.error for w in seen]])
            look = _look(rule) | {"mfc": "white" if task < 3 else _COLOUR[rule], "ms": 5.5 if task < 3 else 3.5}
            panel.errorbar([w.width * apart for w in seen], [w.trained for w in seen], error, capsize=2, lw=1, **look)
            fewest = min([fewest, law[-1], *(w.trained for w in seen)])
    panel.set(xscale="log", yscale="log", xlabel="h, neurons", ylabel="share of networks without a living neuron")
    panel.set_ylim(max(0.5 * fewest, 2e-4), 1.3)
    panel.set_xticks(s["widths"], [str(h) for h in s["widths"]])
    _plain(panel)
    panel.minorticks_off()
    edge = 1.12 * max(s["widths"])
    panel.set_xlim(0.9 * min(s["widths"]), edge)
    _beside(panel, labels, edge, 0.12)
    told = "full marks: after the flip back"
    told = f"lines: small steps; those of signs lose more\n{told}" if "sign" in rules else told
    panel.annotate(told, (0.02, 0.03), xycoords="axes fraction", fontsize=8.5, color=INK)
    panel.set_title("a class lost for ever: no neuron sees it", loc="left", fontweight="bold")


def _plain(panel: Any) -> None:
    """1, 2 and 5 times powers of ten up a logarithmic axis, written as numbers."""
    low, high = panel.get_ylim()
    ticks = [digit * 10.0**power for power in range(-6, 7) for digit in (1, 2, 5)]
    ticks = [tick for tick in ticks if low <= tick <= high]
    panel.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
    panel.set_yticks([], minor=True)
