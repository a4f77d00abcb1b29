"""Which neurons live, which die, and how fast a class is learnt, under common optimisers.

Data are one class, or two opposite ones, along a random direction of d coordinates; weights start Gaussian, w with deviation
sigma_a and z with sigma_z. A neuron active on a class *keeps* it if its read-out has or takes the right sign, and otherwise
leaves it: dead with one class, joining the other with two. The border is a line z = -c a, and the chance to keep is

    descent, normalised descent, SAM     c = 1                      1/2 + arctan(sigma_a/sigma_z)/pi         (4.2)
    a step size for each layer           c = sqrt(eta_z/eta_a)      1/2 + arctan(c sigma_a/sigma_z)/pi       (17.3)
    sign descent, rho = |x|_1/|x|_2      c = 1/rho                  1/2 + arctan(c sigma_a/sigma_z)/pi       (17.6)

Adam and RMSProp (of optax, with its defaults) have no law here. Without memory and epsilon they are sign descent; the study
measures how well its law describes them with memory: the share of neurons with the predicted fate, and the time to a logit.

Results with the default settings, in 24 cells of dimension (1 to 100), width (1 to 64) and step size, with about 500
neurons active on the class in each:

- with small steps, a fortieth of the scale of the start, at least 98.0 % of the neurons have the fate of the law of signs
  under Adam, and 96.4 % under RMSProp. The law is a limit of small steps: sign descent itself is at 98.8 % or above;
- the *time* to a logit differs more. Adam needs 66 to 81 % of it: its gradients grow while a mode grows, its memory of
  their squares is long, and so its weights move by more than the step size. RMSProp, with a short memory, needs 77 to 97 %;
- SAM holds back a learner that is shorter than its radius and alone: of 100 networks at equal deviations one stays at an
  error of 1/2, by the law as in training;
- with steps ten times as large 92 to 97 % of the fates are right under Adam, 89 to 98 % under RMSProp (95 to 97 % under sign
  descent), and RMSProp needs as little as 39 % of the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from gradstarve import theory
from gradstarve.ground import (
    COLOURS,
    GUIDE,
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
from gradstarve.problem import (
    Dataset,
    GradientDescent,
    NormalizedGradientDescent,
    SharpnessAware,
    SignDescent,
    TwoLayerReLU,
)
from gradstarve.simulation import simulate
from gradstarve.studies.phase import plane
from gradstarve.studies.phase.plane import counts, positive, positives, real, seeds, setting, sizes

PROBLEMS = ("one-class", "antipodal")
OPTIMISERS = ("descent", "normalised", "sam", "layers", "sign", "adam", "rmsprop")
WITHOUT_LAW = ("adam", "rmsprop")
_BY_SIGNS = ("sign", *WITHOUT_LAW)
_TITLES = {
    "descent": "gradient descent",
    "normalised": "normalised descent",
    "sam": "SAM",
    "layers": "step size per layer",
    "sign": "sign descent",
    "adam": "Adam",
    "rmsprop": "RMSProp",
}


def _one_of(valid: tuple[str, ...]) -> Callable[[str, Any], str]:
    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or value not in valid:
            raise ValueError(f"{name} must be one of {', '.join(valid)}, got {shown(value)}{did_you_mean(value, valid)}")
        return value

    return check


def _names(name: str, value: Any) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    found = tuple(_one_of(OPTIMISERS)(name, one) for one in names)
    if not found or len(set(found)) < len(found):
        raise ValueError(f"{name} must be one or several different optimisers, got {shown(value)}")
    return found


@dataclass(frozen=True)
class OptimiserSettings(plane.Settings):
    """The settings of `optimiser_study`, checked before anything is computed.

    The share that lives: `networks` of `width` neurons in `dim` coordinates at every ratio of `ratios` = sigma_a/sigma_z,
    all with mean square `scale`^2; `step_size` of descent and SAM, and the mean of the two for layers, `layer_ratio`
    eta_z/eta_a; `radius` of SAM and the length of a normalised step, over the length of all weights at the start; `rate` of
    sign descent, Adam and RMSProp over `scale`; `steps` of each.

    The agreement with the law of signs: every one of `dims`, `widths` and `rates` (steps over `scale`), with about `neurons`
    neurons active on the class; times are those to the logit `goal`.
    """

    optimisers: tuple[str, ...] = setting(OPTIMISERS, _names)
    problem: str = setting("one-class", _one_of(PROBLEMS))
    dim: int = setting(10, counts())
    width: int = setting(16, counts())
    networks: int = setting(100, counts(2))
    ratios: tuple[float, ...] = setting((0.2, 0.5, 1.0, 2.0, 5.0), positives)
    scale: float = setting(0.02, positive)
    step_size: float = setting(0.5, positive)
    layer_ratio: float = setting(9.0, positive)
    radius: float = setting(0.1, positive)
    rate: float = setting(0.01, positive)
    steps: int = setting(2000, counts(10))
    dims: tuple[int, ...] = setting((1, 2, 10, 100), sizes)
    widths: tuple[int, ...] = setting((1, 8, 64), sizes)
    rates: tuple[float, ...] = setting((0.025, 0.25), positives)
    neurons: int = setting(512, counts(10))
    goal: float = setting(0.5, positive)
    key: int | tuple[int, ...] = setting(0, seeds)


QUICK: dict[str, Any] = {
    "networks": 40,
    "ratios": (0.2, 1.0, 5.0),
    "steps": 1200,
    "dims": (1, 10),
    "widths": (1, 8),
    "rates": (0.025,),
    "neurons": 256,
}
"""Settings of a study that takes some twenty seconds."""


class Share(NamedTuple):
    """Neurons that keep their class, of `count` active on one at the start, at sigma_a/sigma_z = `ratio`.

    `law`: the chance; `kept`: the trained share, `error` its standard error by the law; `open`: the share of neurons that
    are undecided after all steps.
    """

    optimiser: str
    ratio: float
    law: float
    kept: float
    error: float
    open: float
    count: int

    @property
    def deviation(self) -> float:
        """(kept - law) in standard errors."""
        return (self.kept - self.law) / self.error


class Curve(NamedTuple):
    """Mean error of the networks at `steps`, `trained` and by the `law` (None without one), and the worst gap of any."""

    optimiser: str
    steps: np.ndarray
    trained: np.ndarray
    law: np.ndarray | None
    gap: float | None


class Agreement(NamedTuple):
    """An optimiser against the law of sign descent: `rate` over the scale of the start, `dim`, `width`, `count` neurons.

    `right`: the share of neurons with the fate of the law; `time`: the median over networks of (steps to the goal) / (steps
    by the law); `off`: the median of |this ratio - 1|; `missed`: the share of networks in which only one of law and training
    reaches the goal.
    """

    optimiser: str
    rate: float
    dim: int
    width: int
    count: int
    right: float
    time: float
    off: float
    missed: float


@dataclass(frozen=True, eq=False)
class OptimiserStudy:
    """The result of `optimiser_study`; `optimiser_study(**study.settings)` computes it again."""

    settings: dict[str, Any]
    shares: tuple[Share, ...]
    curves: tuple[Curve, ...]
    agreement: tuple[Agreement, ...]

    __repr__ = short_repr

    def conclusion(self) -> str:
        """In one sentence, who keeps most neurons and who fewest in training, at the same start."""
        ratio = max(s.ratio for s in self.shares)
        kept = sorted((s for s in self.shares if s.ratio == ratio), key=lambda s: -s.kept)
        first = f"{100 * kept[0].kept:.0f} % of the neurons keep their class under {kept[0].optimiser}"
        last = f", and {100 * kept[-1].kept:.0f} % under {kept[-1].optimiser}" if len(kept) > 1 else ""
        return f"{first}{last}, from a start with sigma_a/sigma_z = {number(ratio)}"

    def table(self) -> str:
        """Three tables: the shares that live, gaps of whole curves, and the agreement with the law of signs."""
        tables = self.share_rows(), self._curve_rows(), self.agreement_rows()
        return "\n\n".join(table_text(rows) for rows in tables if len(rows) > 1)

    def share_rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for each optimiser and ratio."""
        rows: list[tuple[str, ...]] = [("optimiser", "sigma ratio", "law", "trained", "std. error", "undecided", "neurons")]
        for s in self.shares:
            numbers = (f"{s.law:.4f}", f"{s.kept:.4f}", f"{s.error:.4f}", f"{s.open:.4f}", str(s.count))
            rows.append((s.optimiser, number(s.ratio), *numbers))
        return rows

    def _curve_rows(self) -> list[tuple[str, ...]]:
        rows: list[tuple[str, ...]] = [("optimiser", "error at the end", "worst gap to its law")]
        for c in self.curves:
            rows.append((c.optimiser, number(c.trained[-1]), "no law" if c.gap is None else number(c.gap)))
        return rows

    def agreement_rows(self) -> list[tuple[str, ...]]:
        """The header, and a row for each optimiser, step size, dimension and width."""
        head = ("against signs", "step/scale", "d", "h", "neurons", "fates right", "time/law", "|time/law - 1|", "missed")
        rows: list[tuple[str, ...]] = [head]
        for a in self.agreement:
            sizes = (number(a.rate), str(a.dim), str(a.width), str(a.count))
            rows.append((a.optimiser, *sizes, *(f"{v:.3f}" for v in (a.right, a.time, a.off, a.missed))))
        return rows

    def number_rows(self, part: str) -> list[tuple[str, ...]]:
        """The "shares" or the "agreement" with all digits: the names of the numbers, and the rows."""
        kind = {"shares": Share, "agreement": Agreement}[part]
        return [kind._fields, *(tuple(map(str, one)) for one in getattr(self, part))]

    def notes(self) -> str:
        """An explanation of the tables, in words."""
        return (
            "law: the chance that a neuron keeps its class, (4.2), for step sizes by layer (17.3), for signs (17.6), which\n"
            "Adam and RMSProp are only compared with. sigma ratio: sigma_a/sigma_z. Time: the first step with the logit\n"
            "of the goal, median over networks; missed: networks of which only one of law and training gets there."
        )

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        named = (("shares", self.shares), ("curves", self.curves), ("agreement", self.agreement))
        return {name: [one._asdict() for one in values] for name, values in named}

    def plot(self, path: Any = None) -> Any:
        """The matplotlib `Figure`: laws as lines, training as markers; saved to `path` if there is one."""
        return draw(self, path)


def optimiser_study(*, progress: Any = None, **settings: Any) -> OptimiserStudy:
    """Which neurons live, which die and how fast, under `settings["optimisers"]`; see `OptimiserSettings` for all of them.

    Whole networks are trained by automatic differentiation. Laws are those of `theory`: `learning_probability` for the
    shares, `solve` for curves and times. Use float64. `ValueError` for invalid settings.

    >>> study = optimiser_study(optimisers="descent", networks=10, width=4, dim=3, ratios=1.0, steps=200)
    >>> [(one.optimiser, one.law) for one in study.shares], study.curves[0].gap < 1e-5
    ([('descent', 0.75)], True)
    """
    known = OptimiserSettings.__dataclass_fields__
    for name in settings:
        if name not in known:
            meant = did_you_mean(name, known)
            raise ValueError(f"{name} is no setting of the study of optimisers; it has {', '.join(known)}{meant}")
    chosen = OptimiserSettings.of(**settings)
    assert isinstance(chosen, OptimiserSettings)
    compared = [name for name in chosen.optimisers if name in _BY_SIGNS]
    cells = [(r, d, h) for r in chosen.rates for d in chosen.dims for h in chosen.widths] if compared else []
    shares, curves, agreement = [], [], []
    with Progress(progress, len(chosen.optimisers) + len(cells), "optimisers") as bar:
        starts = _Starts(chosen)
        for done, name in enumerate(chosen.optimisers, start=1):
            found, curve = starts.train(name)
            shares += found
            curves.append(curve)
            bar.update(done)
        for done, (rate, dim, width) in enumerate(cells, start=len(chosen.optimisers) + 1):
            agreement += _compare(chosen, rate, dim, width, compared)
            bar.update(done)
    order = {name: k for k, name in enumerate(chosen.optimisers)}
    agreement.sort(key=lambda one: order[one.optimiser])
    return OptimiserStudy(asdict(chosen), tuple(shares), tuple(curves), tuple(agreement))


# --- who lives ---------------------------------------------------------------------------------------------------------


def dynamics_of(name: str, settings: OptimiserSettings, rate: float | None = None) -> Any:
    """The dynamics for `simulate`: those of `gradstarve`, or an optimiser of optax."""
    import optax

    s = settings
    length = s.radius * s.scale * np.sqrt(s.width)  # relative to the approximate length of all active neurons' weights
    step = s.scale * (s.rate if rate is None else rate)
    root = np.sqrt(s.layer_ratio)
    made: dict[str, Callable[[], Any]] = {
        "descent": lambda: GradientDescent(s.step_size),
        "normalised": lambda: NormalizedGradientDescent(length),
        "sam": lambda: SharpnessAware(s.step_size, length),
        "layers": lambda: GradientDescent(s.step_size / root, read_out_step_size=s.step_size * root),
        "sign": lambda: SignDescent(step),
        "adam": lambda: optax.adam(step),
        "rmsprop": lambda: optax.rmsprop(step),
    }
    return made[name]()


def _problem(rng: np.random.Generator, kind: str, dim: int) -> tuple[Dataset, np.ndarray, float]:
    """Data along a random direction, the direction, and rho."""
    unit = rng.normal(size=dim)
    unit = unit / np.linalg.norm(unit)
    if kind == "one-class":
        data = Dataset(real(unit[None]), [1.0], [1.0])
    else:
        data = Dataset(real(np.stack([unit, -unit])), [1.0, -1.0], [0.5, 0.5])
    return data, unit, float(np.abs(unit).sum())


def _kept(kind: str, unit: np.ndarray, start: TwoLayerReLU, end: TwoLayerReLU) -> tuple[np.ndarray, ...]:
    """Which neurons are active on a class at the start, which keep it and which leave it, [*batch, h] each; and a, z.

    a and z at the start are in the orientation of the neuron's first class, so that a is positive.
    """
    a, z = np.asarray(start.w) @ unit, np.asarray(start.z)
    late_a, late_z = np.asarray(end.w) @ unit, np.asarray(end.z)
    sees = a > 0 if kind == "one-class" else a != 0
    side = np.where(a < 0, -1.0, 1.0)
    return sees, (side * late_a > 0) & (side * late_z > 0), side * late_a <= 0, side * a, side * z


class _Starts:
    """One direction and one batch of networks [ratios, networks], shared by all optimisers."""

    def __init__(self, settings: OptimiserSettings) -> None:
        s = self.settings = settings
        rng = np.random.default_rng(s.key)
        self.data, self.unit, self.reach = _problem(rng, s.problem, s.dim)
        ratios = np.array(s.ratios)
        self.scale_z = s.scale * np.sqrt(2 / (1 + ratios**2))
        self.scale_a = ratios * self.scale_z
        w = rng.normal(size=(len(ratios), s.networks, s.width, s.dim)) * self.scale_a[:, None, None, None]
        self.network = TwoLayerReLU(real(w), real(rng.normal(size=w.shape[:-1]) * self.scale_z[:, None, None]))
        self.middle = int(np.argmin(np.abs(np.log(ratios))))

    def train(self, name: str) -> tuple[list[Share], Curve]:
        """A share at every ratio, and the curve at the ratio next to 1."""
        s = self.settings
        dynamics = dynamics_of(name, s)
        every = max(1, s.steps // 400)
        run = simulate(self.data, self.network, "cross-entropy", dynamics, s.steps, record_every=every, progress=False)
        sees, kept, left, _, _ = _kept(s.problem, self.unit, self.network, run.final)
        shares = []
        for k, (ratio, law) in enumerate(zip(s.ratios, self.law(name, dynamics), strict=True)):
            count = int(sees[k].sum())
            share, neither = (float((v[k] & sees[k]).sum() / count) for v in (kept, ~kept & ~left))
            shares.append(Share(name, ratio, float(law), share, float(np.sqrt(law * (1 - law) / count)), neither, count))
        errors = np.asarray(run.error(run.grid))[self.middle]
        law, gap = self.law_curve(name, dynamics, run.grid), None
        if law is not None:
            gap = float(np.abs(errors - law).max())
            law = law.mean(0)
        return shares, Curve(name, np.asarray(run.grid), errors.mean(0), law, gap)

    def law(self, name: str, dynamics: Any) -> np.ndarray:
        """The chance at every ratio."""
        how: dict[str, Any] = {"dynamics": dynamics}
        if name in _BY_SIGNS:
            how = {"dynamics": SignDescent(1.0), "reach": self.reach}
        return np.asarray(theory.learning_probability(real(self.scale_a), real(self.scale_z), **how))

    def law_curve(self, name: str, dynamics: Any, steps: Any) -> np.ndarray | None:
        """The errors of the networks at the ratio next to 1 by their law, [networks, steps]; None if there is none."""
        if name in WITHOUT_LAW:
            return None
        network = jax.tree.map(lambda leaf: leaf[self.middle], self.network)
        return np.asarray(theory.solve(self.data, network, "cross-entropy", dynamics).error(steps))


# --- the law of signs against Adam and RMSProp -------------------------------------------------------------------------


def _compare(settings: OptimiserSettings, rate: float, dim: int, width: int, names: list[str]) -> list[Agreement]:
    """All `names` on one batch of networks."""
    s = settings
    rng = np.random.default_rng((*np.ravel(s.key).tolist(), dim, width))
    data, unit, reach = _problem(rng, "one-class", dim)
    networks = max(-(-2 * s.neurons // width), 16)
    w, z = rng.normal(size=(networks, width, dim)) * s.scale, rng.normal(size=(networks, width)) * s.scale
    start = TwoLayerReLU(real(w), real(z))
    solution = theory.solve(data, start, "cross-entropy", SignDescent(rate * s.scale))
    law = np.asarray(solution.plus.time_to_logit(s.goal, max_steps=int(20 * (1 + np.sqrt(s.goal)) / (rate * s.scale))))
    reached = np.isfinite(law)
    steps = 10 + int(1.5 * law[reached].max(initial=10.0))
    found = []
    for name in names:
        run = simulate(data, start, "cross-entropy", dynamics_of(name, s, rate), steps, progress=False)
        sees, kept, left, a, z = _kept("one-class", unit, start, run.final)
        right = np.where(z > -a / reach, kept, left)[sees]
        over = np.asarray(run.logits())[..., 0] >= s.goal
        time = np.where(over.any(-1), np.asarray(run.grid)[over.argmax(-1)], np.inf)
        both = reached & np.isfinite(time) & (law > 0)
        ratio = time[both] / law[both]
        middle, off = (float(np.median(v)) if v.size else float("nan") for v in (ratio, np.abs(ratio - 1)))
        missed = float((reached != np.isfinite(time)).mean())
        found.append(Agreement(name, rate, dim, width, int(sees.sum()), float(right.mean()), middle, off, missed))
    return found


# --- the figure --------------------------------------------------------------------------------------------------------

_COLOUR: dict[str, str] = {name: COLOURS[k] for name, k in zip(OPTIMISERS, (0, 2, 5, 3, 1, 4, 6), strict=True)}
_MARK: dict[str, str] = dict(zip(OPTIMISERS, "os^DvPX", strict=True))
_WIDTHS = "os^DvP"


def draw(study: OptimiserStudy, path: Any = None) -> Any:
    """The `Figure` of an `OptimiserStudy`, saved to `path` if there is one (.png, .svg, .pdf)."""
    with sheet():
        rows = 2 if study.agreement else 1
        figure = new_figure(11, 1.3 + 3.7 * rows)
        axes = figure.subplots(rows, 2, squeeze=False)
        _shares(axes[0, 0], study)
        _curves(axes[0, 1], study)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        columns = len(handles) if len(handles) < 6 else -(-len(handles) // 2)
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, columnspacing=1.6)
        if study.agreement:
            _agreement(axes[1], study)
        s = study.settings
        told = "one class" if s["problem"] == "one-class" else "two opposite classes"
        headline(
            figure,
            f"Which neurons keep their class, and how fast it is learnt: {told} in d = {s['dim']} coordinates",
            f"{s['networks']} networks of h = {s['width']} neurons at each ratio. Lines: laws. Markers: training",
        )
        if path is not None:
            save(figure, path)
    return figure


def _shares(panel: Any, study: OptimiserStudy) -> None:
    s = study.settings
    smooth = np.geomspace(min(s["ratios"]) / 1.5, max(s["ratios"]) * 1.5, 200)
    names = s["optimisers"]
    reach = _reach(study)
    for name, told in (("descent", "descent (4.2)"), ("layers", "layers (17.3)"), ("sign", "signs (17.6)")):
        members = {"descent": ("descent", "normalised", "sam"), "layers": ("layers",), "sign": _BY_SIGNS}[name]
        if not set(members) & set(names):
            continue
        chosen = OptimiserSettings.of(**s)
        assert isinstance(chosen, OptimiserSettings)
        how: dict[str, Any] = {} if name == "descent" else {"dynamics": dynamics_of(name, chosen)}
        how |= {"reach": reach} if name == "sign" else {}
        law = np.asarray(theory.learning_probability(real(smooth), 1.0, **how))
        panel.plot(smooth, law, color=_COLOUR[name], lw=1.6, label=f"law of {told}", zorder=2)
    for k, name in enumerate(names):
        found = [one for one in study.shares if one.optimiser == name]
        x = np.array([one.ratio for one in found]) * 1.035 ** (k - (len(names) - 1) / 2)
        y, error = np.array([one.kept for one in found]), 2 * np.array([one.error for one in found])
        look = {"color": _COLOUR[name], "mfc": "white", "ms": 5, "capsize": 2, "lw": 1.1, "zorder": 3}
        panel.errorbar(x, y, error, fmt=_MARK[name], label=_TITLES[name], **look)
    panel.set(xscale="log", xlabel="σ(a) / σ(z) of the start", ylabel="share of neurons that keep their class")
    ticks = sorted({0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0} | set(s["ratios"])) if len(s["ratios"]) < 8 else s["ratios"]
    ticks = [v for v in ticks if smooth[0] <= v <= smooth[-1]]
    panel.set_xticks(ticks, [number(v) for v in ticks])
    panel.minorticks_off()
    panel.set_ylim(0.48, 1.01)
    panel.set_title("who lives (bars: two standard errors)", loc="left", fontweight="bold")


def _reach(study: OptimiserStudy) -> float:
    """rho of the points, drawn again."""
    return _problem(np.random.default_rng(study.settings["key"]), study.settings["problem"], study.settings["dim"])[2]


def _curves(panel: Any, study: OptimiserStudy) -> None:
    ratio = min(study.settings["ratios"], key=lambda value: abs(np.log(value)))
    for k, curve in enumerate(study.curves):
        colour = _COLOUR[curve.optimiser]
        later = curve.steps > 0
        if curve.law is not None:
            panel.plot(curve.steps[later], curve.law[later], color=colour, lw=1.6, zorder=2)
        wanted = np.geomspace(curve.steps[1], curve.steps[-1], 14) * 1.08 ** (k % 3)
        some = np.unique(np.minimum(np.searchsorted(curve.steps, wanted), len(curve.steps) - 1))
        x, y = curve.steps[some], curve.trained[some]
        line = ":" if curve.law is None else "none"
        panel.plot(x, y, marker=_MARK[curve.optimiser], ls=line, lw=1, color=colour, mfc="white", ms=5, zorder=3)
    panel.set(xscale="log", yscale="log", xlabel="step", ylabel="error (mean over networks)", ylim=(3e-5, 0.9))
    panel.set_title(f"how fast, σ(a)/σ(z) = {number(ratio)} (dotted: no law)", loc="left", fontweight="bold")


def _agreement(row: Any, study: OptimiserStudy) -> None:
    s = study.settings
    fates, times = row
    names = [name for name in s["optimisers"] if name in _BY_SIGNS]
    dims = list(s["dims"])
    groups = [(rate, width) for rate in s["rates"] for width in s["widths"]]
    for k, name in enumerate(names):
        for i, (rate, width) in enumerate(groups):
            found = [a for a in study.agreement if (a.optimiser, a.rate, a.width) == (name, rate, width)]
            if not found:
                continue
            x = np.arange(len(found)) + 0.75 * ((k + (i + 0.5) / len(groups)) / len(names) - 0.5)
            filled = _COLOUR[name] if s["rates"].index(rate) == 0 else "white"
            look = {"marker": _WIDTHS[s["widths"].index(width) % len(_WIDTHS)], "ls": "none", "ms": 5.5}
            look |= {"color": _COLOUR[name], "mfc": filled}
            fates.plot(x, [100 * a.right for a in found], **look)
            times.plot(x, [a.time for a in found], **look)
    fates.axhline(100, color=GUIDE, lw=1, zorder=1)
    times.axhline(1, color=GUIDE, lw=1, zorder=1)
    for panel in row:
        panel.set_xticks(range(len(dims)), [str(d) for d in dims])
        panel.set_xlabel("d, coordinates")
        panel.set_xlim(-0.5, len(dims) - 0.5)
        panel.grid(axis="x", visible=False)
        for k in range(len(dims) - 1):
            panel.axvline(k + 0.5, color=GUIDE, lw=0.5)
    low = min(100 * a.right for a in study.agreement)
    fates.set(ylabel="neurons with that fate, %", ylim=(min(95, low - 2), 100.8))
    fates.set_title("fates as the law of signs says", loc="left", fontweight="bold")
    times.set(ylabel="steps / steps by the law, median")
    top = max([1.0, *(a.time for a in study.agreement if np.isfinite(a.time))])
    times.set_ylim(0, 1.06 * top)
    times.set_title(f"steps to the logit {number(s['goal'])}, over those of the law of signs", loc="left", fontweight="bold")
    _legends(fates, times, names, s)


def _legends(fates: Any, times: Any, names: list[str], s: dict[str, Any]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=_COLOUR[n], marker="o", ls="none", ms=5.5, label=_TITLES[n]) for n in names]
    place: dict[str, Any] = {"loc": "lower left", "fontsize": 8.5, "columnspacing": 0.9, "handletextpad": 0.2}
    place |= {"frameon": True, "framealpha": 1.0, "facecolor": "white"}
    fates.legend(handles=handles, ncols=len(names), **place)
    dots: dict[str, Any] = {"color": GUIDE, "ls": "none", "ms": 5.5}
    several = len(s["widths"]) > 1
    marks = zip(s["widths"] if several else (), _WIDTHS * len(s["widths"]), strict=False)
    handles = [Line2D([], [], marker=mark, label=f"h = {h}", **dots) for h, mark in marks]
    for k, rate in enumerate(s["rates"]):
        handles.append(Line2D([], [], marker="o", mfc="white" if k else GUIDE, label=f"step {number(rate)} σ", **dots))
    times.legend(handles=handles, ncols=len(handles), **place)
