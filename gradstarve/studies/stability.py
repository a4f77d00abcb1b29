"""The effect of large steps, label noise and weight decay on kappa: laws of one mode against training (19.1)-(19.5).

A mode is described by its logit u and its laziness kappa = r sqrt(M+ M-)/2, M± = sum_j (a_j ± z_j)^2. The flow conserves
kappa; steps with x = eta p r do not,

    kappa <- |(1 - eta lambda)^2 - (x g(u))^2| kappa.

Four panels, each with the law as a line and networks trained by automatic differentiation as markers, p = r = 1:

- paths: squared loss in the plane of kappa and u. Beyond the edge of stability, kappa = sqrt(1/x^2 - 1), the logit swings
  about its rest u = 1, and every swing lowers kappa until the rest is stable (19.3);
- catapult: kappa after `steps` steps over kappa at the start, for several x. No end lies above its edge;
- noise: squared loss with targets 1 + noise * N(0, 1), drawn anew in each step: kappa falls like the noise squared (19.4);
- decay: cross-entropy with weight decay lambda: kappa falls like e^(-2 lambda t), and passes from lazy to rich at
  t = log(kappa_0/kappa_c)/(2 lambda) (19.5).

The law holds while no neuron changes its activity, which |x g| < 1 in every step ensures. Results with the default
settings: under this condition training agrees with the law to 2e-14, relative. With larger swings most networks die: all
their neurons leave the class in one step, and kappa = u = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

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
    table_text,
)
from gradstarve.problem import Dataset, GradientDescent, Network, Schedule, Steps, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import BOX, counts, positive, positives, real, seeds, setting

PANELS = ("paths", "catapult", "noise", "decay")


@dataclass(frozen=True)
class StabilitySettings(plane.Settings):
    """The settings of `stability_study`, checked before anything is computed. Step sizes are x = eta p r, with p = r = 1.

    Networks of `width` neurons in `dim` coordinates. Paths: `step_size`, the `kappas` and the logit `start`, `path_steps`.
    Catapult: `step_sizes`, `points` values of kappa up to `largest`, `steps`. Noise: `noises`, the deviations of a target,
    at `noise_step_size` from `noise_kappa`, `noise_steps`. Decay: `decays` lambda, from `decay_kappa`, to `decay_time` in
    steps of `decay_step_size`.
    """

    width: int = setting(8, counts(2))
    dim: int = setting(5, counts())
    step_size: float = setting(0.4, positive)
    kappas: tuple[float, ...] = setting((1.6, 2.6, 3.0, 3.5), positives)
    start: float = setting(0.9, positive)
    path_steps: int = setting(400, counts(10))
    step_sizes: tuple[float, ...] = setting((0.3, 0.4, 0.6), positives)
    largest: float = setting(5.0, positive)
    points: int = setting(25, counts(3))
    steps: int = setting(1000, counts(10))
    noises: tuple[float, ...] = setting((0.3, 0.6, 1.0), positives)
    noise_step_size: float = setting(0.2, positive)
    noise_kappa: float = setting(2.0, positive)
    noise_steps: int = setting(400, counts(10))
    decays: tuple[float, ...] = setting((0.005, 0.01, 0.02), positives)
    decay_step_size: float = setting(0.2, positive)
    decay_kappa: float = setting(5.0, positive)
    decay_time: float = setting(300.0, positive)
    key: int | tuple[int, ...] = setting(0, seeds)


class Line(NamedTuple):
    """One law and its training: `panel`, the number `value` that names it, steps or kappas `x`, and u and kappa of both.

    `u`, `kappa`: by the law, NaN where it diverges; `trained_u`, `trained_kappa`: of the network trained; `holds`: whether
    |x g| < 1 in every step until then, so that no neuron leaves; all like `x`.
    """

    panel: str
    value: float
    x: np.ndarray
    u: np.ndarray
    kappa: np.ndarray
    trained_u: np.ndarray
    trained_kappa: np.ndarray
    holds: np.ndarray

    @property
    def gap(self) -> float:
        """The largest |law - trained| of u and kappa where the law holds, over the largest sqrt(kappa^2 + u^2) there."""
        inside = self.holds
        if not inside.any():
            return float("nan")
        found = np.maximum(np.abs(self.u - self.trained_u), np.abs(self.kappa - self.trained_kappa))[inside]
        return float(found.max() / np.hypot(self.u, self.kappa)[inside].max())


_WHAT = {"paths": "kappa_0", "catapult": "x", "noise": "noise", "decay": "lambda"}


@dataclass(frozen=True, eq=False)
class StabilityStudy:
    """The result of `stability_study`; `stability_study(**study.settings)` computes it again.

    `edges`: the edge of stability at every step size of `settings["step_sizes"]`; `edge`: that of the paths; `rich`: the
    times at which each decay brings kappa to `kappa_critical`.
    """

    settings: dict[str, Any]
    lines: tuple[Line, ...]
    edge: float
    edges: tuple[float, ...]
    rich: tuple[float, ...]

    __repr__ = short_repr

    def of(self, panel: str) -> list[Line]:
        """The lines of a panel."""
        return [line for line in self.lines if line.panel == panel]

    def rows(self) -> list[tuple[str, ...]]:
        """The header, and a row per line."""
        head = ("panel", "of", "threshold", "kappa at the end", "trained", "gap", "law holds")
        rows: list[tuple[str, ...]] = [head]
        thresholds = {"paths": [self.edge] * len(self.of("paths")), "catapult": self.edges, "decay": self.rich}
        for panel in PANELS:
            for k, line in enumerate(self.of(panel)):
                level = number(thresholds[panel][k], 5) if panel in thresholds else ""
                last = np.flatnonzero(line.holds)[-1] if line.holds.any() else 0
                ends = (number(line.kappa[last], 5), number(line.trained_kappa[last], 5))
                inside = f"{int(line.holds.sum())} of {line.holds.size}"
                rows.append((panel, f"{_WHAT[panel]} = {number(line.value)}", level, *ends, number(line.gap), inside))
        return rows

    def conclusion(self) -> str:
        """In one sentence, how close training is to the laws."""
        worst = number(max(line.gap for line in self.lines), 2)
        first = "Large steps, label noise and weight decay change kappa as the laws say"
        return f"{first}: in {len(self.lines)} runs no gap is over {worst}"

    def table(self) -> str:
        """A row per line: its threshold, kappa at the end by law and trained, and their largest gap."""
        return table_text(self.rows())

    def notes(self) -> str:
        """An explanation of the table, in words."""
        return (
            "threshold: the edge of stability (paths, catapult), or the time at which kappa gets to kappa_c (decay).\n"
            "kappa: after the last step, in catapult of the largest start, at which the law holds: |x g| < 1 so far, so\n"
            "that no neuron leaves. gap: of u and kappa over all that, relative to the largest."
        )

    def number_rows(self) -> list[tuple[str, ...]]:
        """The header, and a row per point: the step of paths, noise and decay, or kappa at the start of catapult."""
        head = ["panel", "of", "x", "u law", "kappa law", "u trained", "kappa trained"]
        rows: list[tuple[str, ...]] = [(*head, "law holds")]
        for line in self.lines:
            columns = (line.x, line.u, line.kappa, line.trained_u, line.trained_kappa)
            for *values, inside in zip(*columns, line.holds, strict=True):
                numbers = (repr(float(v)) for v in values)
                rows.append((line.panel, repr(line.value), *numbers, "yes" if inside else "no"))
        return rows

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        lines = [line._asdict() | {"gap": line.gap} for line in self.lines]
        return {"edge": self.edge, "edges": self.edges, "rich": self.rich, "lines": lines}

    def plot(self, path: Any = None) -> Any:
        """The matplotlib `Figure`: laws as lines, training as markers; saved to `path` if there is one."""
        return draw(self, path)


def stability_study(*, progress: Any = None, **settings: Any) -> StabilityStudy:
    """The effect of large steps, label noise and weight decay on kappa; the settings are those of `StabilitySettings`.

    Laws are `theory.kappa_path`, `edge_of_stability` and `lazy_to_rich_time`. Use float64: swings beyond the edge
    enlarge rounding. `ValueError` for invalid settings.

    >>> study = stability_study(points=3, steps=50, path_steps=20, noise_steps=20, decay_time=10.0)
    >>> [round(edge, 4) for edge in study.edges], study.of("paths")[0].gap < 1e-4
    ([3.1798, 2.2913, 1.3333], True)
    """
    known = StabilitySettings.__dataclass_fields__
    for name in settings:
        if name not in known:
            meant = did_you_mean(name, known)
            raise ValueError(f"{name} is no setting of the study of stability; it has {', '.join(known)}{meant}")
    s = StabilitySettings.of(**settings)
    assert isinstance(s, StabilitySettings)
    lines: list[Line] = []
    with Progress(progress, len(PANELS), "stability") as bar:
        for done, compute in enumerate((_paths, _catapult, _noise, _decay), start=1):
            lines += compute(s)
            bar.update(done)
    edges = np.asarray(theory.edge_of_stability(1.0, 1.0, "squared", real(s.step_sizes)), np.float64)
    edge = float(theory.edge_of_stability(1.0, 1.0, "squared", real(s.step_size)))
    rich = np.asarray(theory.lazy_to_rich_time(s.decay_kappa, real(s.decays)), np.float64)
    return StabilityStudy(asdict(s), tuple(lines), edge, tuple(edges.tolist()), tuple(rich.tolist()))


class LabelNoise(Steps):
    """Descent on (xi_k - m)^2/2 with the target xi_k = 1 + noise * draws(k) of step k in place of 1; one class at `point`.

    `step_size`, `noise`: numbers, or one per network; `draws`: a `Schedule` of values.
    """

    noise: Any
    draws: Any
    point: tuple[float, ...] = eqx.field(static=True)

    def at(self, step: Any) -> LabelNoise:
        """The same dynamics with the draw of this `step`."""
        return eqx.tree_at(lambda dynamics: dynamics.draws, self, self.draws(step))

    def update(self, network: Network, memory: Any, gradient: Callable[[Network], Network]) -> tuple[Network, Any]:
        """One step by the gradient of the loss with the target of this step."""
        target = 1 + self.noise * self.draws

        def value(network: Network) -> Array:
            return (target - network(jnp.asarray(self.point, network.dtype)[None])[0]) ** 2 / 2

        return jax.tree.map(lambda theta, g: theta - self.step_size * g, network, jax.grad(value)(network)), memory


# --- networks of a given mode, and their training ----------------------------------------------------------------------


def network_of(rng: np.random.Generator, kappa: Any, u: Any, width: int, dim: int) -> tuple[TwoLayerReLU, np.ndarray]:
    """Random networks with these `kappa` and logits `u`, [batch] each, and the unit vector of their class.

    All a_j + z_j and a_j - z_j are positive, so that every neuron is active on the class.
    """
    kappa, u = np.broadcast_arrays(np.asarray(kappa, np.float64), np.asarray(u, np.float64))
    unit = rng.normal(size=dim)
    unit = unit / np.linalg.norm(unit)
    halves = rng.uniform(0.5, 1.5, size=(2, *kappa.shape, width))
    # M± = 2 (sqrt(kappa^2 + u^2) ± u).
    sizes = np.stack([np.sqrt(2 * (np.hypot(kappa, u) + sign * u)) for sign in (1, -1)])
    grown, decayed = halves / np.linalg.norm(halves, axis=-1, keepdims=True) * sizes[..., None]
    w = rng.normal(size=(*kappa.shape, width, dim)) * 0.3
    w = w + ((grown + decayed) / 2 - w @ unit)[..., None] * unit
    return TwoLayerReLU(real(w), real((grown - decayed) / 2)), unit


def mode_of(network: Any, unit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(u, kappa) of the neurons of networks that are active on the class along `unit`."""
    a, z = np.asarray(network.w, np.float64) @ unit, np.asarray(network.z, np.float64)
    sees = a > 0
    with np.errstate(over="ignore", invalid="ignore"):
        plus, minus = (np.where(sees, (a + sign * z) ** 2, 0).sum(-1) for sign in (1, -1))
        return np.where(sees, a * z, 0).sum(-1), np.sqrt(plus) * np.sqrt(minus) / 2


def _train(network: TwoLayerReLU, unit: np.ndarray, loss: str, dynamics: Any, steps: int, every: int = 1) -> Any:
    """(steps recorded, u, kappa), the latter [networks, records]."""
    data = Dataset(real(unit[None]), [1.0], [1.0])
    run = simulate(
        data,
        network,
        loss,
        dynamics,
        steps,
        record_every=every,
        record_networks=True,
        throw=False,
        engine="reference",
        progress=False,
    )
    return np.asarray(run.grid), *mode_of(run.networks, unit)




def _law(kappa: Any, start: Any, loss: str, step_size: Any, steps: int, **more: Any) -> tuple[np.ndarray, ...]:
    """(u, kappa) by `theory.kappa_path`, not finite after it diverges, and whether |x g| < 1 in every step before."""

    def path(kappa: Any, start: Any, step_size: Any, more: Any) -> Any:
        return theory.kappa_path(1.0, 1.0, kappa, start, loss, step_size, steps=steps, **more)

    more = {name: real(value) for name, value in more.items()}
    x = np.broadcast_to(step_size, np.broadcast_shapes(np.shape(step_size), np.shape(kappa)))
    found = jax.jit(path)(real(kappa), real(start), real(step_size), more)
    u, kappa = (np.asarray(v, np.float64) for v in found)
    aims = np.append(more["targets"], np.ones((len(u), 1)), axis=-1) if "targets" in more else 1.0
    with np.errstate(over="ignore", invalid="ignore"):
        pull = aims - u if loss == "squared" else 1 / (1 + np.exp(u))
        mild = np.abs(x[..., None] * pull) < 1
    # The step after record k does not affect record k.
    before = np.concatenate([np.ones((*u.shape[:-1], 1), bool), mild[..., :-1]], axis=-1)
    return u, kappa, np.logical_and.accumulate(before, axis=-1) & np.isfinite(u)


def _lines(panel: str, values: Any, x: Any, law: Any, trained: Any) -> list[Line]:
    u, kappa, holds = law
    return [Line(panel, value, x, *(v[k] for v in (u, kappa, *trained, holds))) for k, value in enumerate(values)]


def _rng(s: StabilitySettings, panel: str) -> np.random.Generator:
    return np.random.default_rng((*np.ravel(s.key).tolist(), PANELS.index(panel)))


def _paths(s: StabilitySettings) -> list[Line]:
    network, unit = network_of(_rng(s, "paths"), s.kappas, s.start, s.width, s.dim)
    steps, *trained = _train(network, unit, "squared", GradientDescent(s.step_size), s.path_steps)
    return _lines("paths", s.kappas, steps, _law(s.kappas, s.start, "squared", s.step_size, s.path_steps), trained)


def _catapult(s: StabilitySettings) -> list[Line]:
    starts = np.linspace(s.largest / s.points, s.largest, s.points)
    kappa, x = (v.ravel() for v in np.meshgrid(starts, s.step_sizes))
    network, unit = network_of(_rng(s, "catapult"), kappa, s.start, s.width, s.dim)
    _, *trained = _train(network, unit, "squared", GradientDescent(real(x)), s.steps, s.steps)
    law = _law(kappa, s.start, "squared", x, s.steps)
    law, trained = ([v[:, -1].reshape(len(s.step_sizes), -1) for v in found] for found in (law, trained))
    return _lines("catapult", s.step_sizes, starts, law, trained)


def _noise(s: StabilitySettings) -> list[Line]:
    rng, noises = _rng(s, "noise"), np.array(s.noises)
    network, unit = network_of(rng, np.full(len(noises), s.noise_kappa), 1.0, s.width, s.dim)
    draws, every = rng.normal(size=s.noise_steps), max(1, s.noise_steps // 100)
    dynamics = LabelNoise(real(s.noise_step_size), real(noises), Schedule(None, real(draws)), tuple(unit.tolist()))
    steps, *trained = _train(network, unit, "squared", dynamics, s.noise_steps, every)
    targets = 1 + noises[:, None] * draws
    kappas = np.full(len(noises), s.noise_kappa)
    law = _law(kappas, 1.0, "squared", s.noise_step_size, s.noise_steps, targets=targets)
    return _lines("noise", s.noises, steps, [v[:, steps] for v in law], trained)


def _decay(s: StabilitySettings) -> list[Line]:
    decays = np.array(s.decays)
    kappas = np.full(len(decays), s.decay_kappa)
    network, unit = network_of(_rng(s, "decay"), kappas, 0.0, s.width, s.dim)
    count = max(1, round(s.decay_time / s.decay_step_size))
    dynamics = GradientDescent(s.decay_step_size, weight_decay=real(decays))
    steps, *trained = _train(network, unit, "cross-entropy", dynamics, count, max(1, count // 100))
    law = _law(kappas, 0.0, "cross-entropy", s.decay_step_size, count, weight_decay=decays)
    return _lines("decay", s.decays, steps, [v[:, steps] for v in law], trained)


# --- the figure --------------------------------------------------------------------------------------------------------

_MARKS = "os^DvPX"
_DASH: Any = (0, (4, 2))
_FRAME: dict[str, Any] = {"frameon": True, "framealpha": 1.0, "facecolor": "white"}


def draw(study: StabilityStudy, path: Any = None) -> Any:
    """The `Figure` of a `StabilityStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    with sheet():
        figure = new_figure(11, 9)
        axes = figure.subplots(2, 2)
        for panel, axis in zip((_draw_paths, _draw_catapult, _draw_noise, _draw_decay), axes.ravel(), strict=True):
            panel(axis, study)
        s = study.settings
        headline(
            figure,
            "What large steps, label noise and weight decay do to κ (one class, p = r = 1)",
            f"Lines: laws of a mode. Markers: networks of h = {s['width']} neurons in d = {s['dim']}, trained",
        )
        if path is not None:
            save(figure, path)
    return figure


def _look(k: int) -> dict[str, Any]:
    return {"color": COLOURS[k % 6], "marker": _MARKS[k % 7], "mfc": "white", "ms": 4.5, "ls": "none", "zorder": 3}


def _draw_paths(panel: Any, study: StabilityStudy) -> None:
    s = study.settings
    for k, line in enumerate(study.of("paths")):
        panel.plot(line.kappa, line.u, color=COLOURS[k % 6], lw=0.7, alpha=0.7, zorder=2)
        panel.plot(line.trained_kappa, line.trained_u, label=f"κ₀ = {number(line.value)}", **_look(k))
        panel.plot(line.kappa[-1:], line.u[-1:], marker=_MARKS[k % 7], color=COLOURS[k % 6], ms=8, zorder=4)
    panel.axhline(1, color=GUIDE, lw=0.8, zorder=1)
    if study.edge > 0:
        panel.axvline(study.edge, color=INK, lw=1.2, ls=_DASH, zorder=1)
        told = f"edge of stability\nκ = {number(study.edge, 4)}"
        panel.annotate(told, (study.edge, 0.02), (5, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                       fontsize=9, va="bottom", bbox=BOX)  # fmt: skip
    panel.set(xlabel="κ", ylabel="logit u")
    title = f"swings about the rest, squared loss, x = {number(s['step_size'])} (full: end)"
    panel.set_title(title, loc="left", fontweight="bold")
    panel.legend(loc="upper left", **_FRAME)


def _draw_catapult(panel: Any, study: StabilityStudy) -> None:
    s = study.settings
    for k, (line, edge) in enumerate(zip(study.of("catapult"), study.edges, strict=True)):
        dense = np.linspace(0, s["largest"], 300)
        _, kappa, holds = (v[:, -1] for v in _law(dense, s["start"], "squared", line.value, s["steps"]))
        panel.plot(dense, np.where(holds, kappa, np.nan), color=COLOURS[k % 6], lw=1.2, zorder=2)
        inside = line.holds
        told = f"x = {number(line.value)}, edge {number(edge, 4)}"
        panel.plot(line.x[inside], line.trained_kappa[inside], label=told, **_look(k))
        panel.plot(line.x[~inside], line.trained_kappa[~inside], **_look(k) | {"marker": "x", "color": GUIDE})
        panel.axhline(edge, color=COLOURS[k % 6], lw=1, ls=_DASH, zorder=1)
    top = s["largest"]
    panel.plot([0, top], [0, top], color=GUIDE, lw=0.8, zorder=1)
    panel.set(xlabel="κ₀ at the start", ylabel=f"κ after {s['steps']} steps", xlim=(0, 1.02 * top))
    panel.set_ylim(0, 1.35 * max([*study.edges, 1e-3]))
    panel.set_title("catapult: no end above the edge (dashed)", loc="left", fontweight="bold")
    if any(not line.holds.all() for line in study.of("catapult")):
        panel.plot([], [], ls="none", marker="x", color=GUIDE, ms=4.5, label="neurons may leave: no law")
    panel.legend(loc="upper left", **_FRAME)


def _draw_noise(panel: Any, study: StabilityStudy) -> None:
    s = study.settings
    for k, line in enumerate(study.of("noise")):
        panel.plot(line.x, line.kappa, color=COLOURS[k % 6], lw=1.4, zorder=2)
        some = slice(None, None, max(1, len(line.x) // 20))
        panel.plot(line.x[some], line.trained_kappa[some], label=f"noise {number(line.value)}", **_look(k))
    panel.set(xlabel="step", ylabel="κ", yscale="log")
    panel.set_title(f"label noise, squared loss, x = {number(s['noise_step_size'])}", loc="left", fontweight="bold")
    panel.legend(loc="lower left")


def _draw_decay(panel: Any, study: StabilityStudy) -> None:
    s = study.settings
    critical = float(theory.kappa_critical("cross-entropy"))
    for k, (line, time) in enumerate(zip(study.of("decay"), study.rich, strict=True)):
        t = line.x * s["decay_step_size"]
        panel.plot(t, line.kappa, color=COLOURS[k % 6], lw=1.4, zorder=2)
        some = slice(None, None, max(1, len(line.x) // 20))
        panel.plot(t[some], line.trained_kappa[some], label=f"λ = {number(line.value)}", **_look(k))
        if time < t[-1]:
            panel.plot([time, time], [0, critical], color=COLOURS[k % 6], lw=1, ls=_DASH, zorder=1)
    panel.axhline(critical, color=INK, lw=1.2, ls=_DASH, zorder=1)
    at: dict[str, Any] = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "fontsize": 8.5, "bbox": BOX}
    panel.annotate("lazy", (0.015, critical), (0, 5), va="bottom", **at)
    panel.annotate(f"rich: κ < {number(critical)}", (0.015, critical), (0, -5), va="top", **at)
    panel.set(xlabel="time t = step size × step", ylabel="κ", yscale="log")
    panel.set_title("weight decay λ, cross-entropy: from lazy to rich", loc="left", fontweight="bold")
    panel.legend(loc="lower left", **_FRAME)
