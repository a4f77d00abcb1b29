"""A shortcut that contradicts the label on a minority (20.1)-(20.5): curves, limits, and when margin control helps."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp

from gradstarve import theory
from gradstarve.problem import SpectralDecoupling
from gradstarve.theorems._entry import COLOURS, Hypothesis, Outcome, Problem, of_losses
from gradstarve.theorems._figure import LawFigure
from gradstarve.theorems._formulas import RESIDUALS
from gradstarve.theorems._register import Drop, Trials, compared, register
from gradstarve.theorems._sampling import FLOW_TOLERANCE, WHY_FLOW, log_uniform
from gradstarve.theorems.laws.features import (
    BY_FLOW_EACH,
    BY_LIMIT,
    COUNT,
    FRACTIONS,
    FROM_ZERO,
    LIMIT_TOLERANCE,
    PAIR,
    WHY_LIMIT,
    Problems,
    one_layer,
    pair_weights,
)

SIGNED = np.array([[1.0, 1, 0], [1, -1, 0], [0, 0, 1]])  # majority, minority, and a third type beside them
TOGETHER = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]])  # no minority


def _is_shortcut(problem: Problem) -> bool:
    """Two orthogonal features, of which the second has its sign turned in the second sample."""
    data: Any = problem.data
    points = np.asarray(data.points)
    core, side = (points[0] + points[1]) / 2, (points[0] - points[1]) / 2
    return bool(abs(core @ side) < 1e-9 * (core @ core + side @ side) and np.linalg.norm(side) > 0)


CONTRADICTED = Hypothesis("core and shortcut at right angles, and a minority that contradicts the shortcut", _is_shortcut)


def _weights(rng: np.random.Generator, most: float = 0.95) -> np.ndarray:
    """(p, 1 - p, rest), [b, 3], of sum 1: p from 0.55 to `most`."""
    p, rest = rng.uniform(0.55, most, COUNT), rng.uniform(0.05, 0.3, COUNT)
    return np.stack([p * (1 - rest), (1 - p) * (1 - rest), rest], axis=-1)


def _agreement(problems: Problems) -> np.ndarray:
    """p among majority and minority, [b, 1]."""
    pair = problems.weights[:, :2]
    return pair[:, :1] / pair.sum(-1, keepdims=True)


def law_of(problems: Problems, loss: Any, scales: np.ndarray, time: Any = 1.0) -> Any:
    """The `Shortcut` of these problems [b], with `time` [b] as unit of time, which multiplies the squared norms."""
    unit = np.sqrt(np.broadcast_to(time, COUNT) * problems.weights[:, :2].sum(-1))
    core, side = scales[:, 0] * unit, scales[:, 1] * unit
    return theory.shortcut(_agreement(problems), loss, core=core[:, None], shortcut=side[:, None])


def _scales(rng: np.random.Generator, low: float, high: float) -> np.ndarray:
    """r_c from 0.7 to 1.4, and r_s = r_c times a number from `low` to `high`: [b, 3]."""
    core = log_uniform(rng, 0.7, 1.4, COUNT)
    ratio = log_uniform(rng, low, high, COUNT) if high > low else np.full(COUNT, low)
    return np.stack([core, core * ratio, np.ones(COUNT)], axis=-1)


def _parted(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(v_c, v_s) of the logits of majority and minority, [..., n]."""
    a, b = logits[..., 0], logits[..., 1]
    return (a + b) / 2, (a - b) / 2


def _leaning(problems: Problems, scales: np.ndarray, cosine: float) -> Problems:
    """The shortcut rotated towards the core, with this `cosine`."""
    core, side = ((problems.points[:, 0] + sign * problems.points[:, 1]) / 2 for sign in (1, -1))
    turned = np.sqrt(1 - cosine**2) * side + cosine * core * (scales[:, 1] / scales[:, 0])[:, None]
    points = problems.points.copy()
    points[:, 0], points[:, 1] = core + turned, core - turned
    return replace(problems, points=points)


def _kinds(trial: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Majority and minority, each as a trial of its own."""
    both = {name: np.asarray(trial[name]) for name in ("trained", "law")}
    return {
        kind: {**trial, **{name: v[:, k] for name, v in both.items()}, "kind": k}
        for k, kind in enumerate(("majority", "minority, which the shortcut contradicts"))
    }


def _curve(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    """(20.1) or (20.2) for one problem; the sum of the two weights multiplies the squared norms."""
    (first, second), weights = np.asarray(trial["points"])[:2], np.asarray(trial["weights"])
    unit = np.sqrt(weights[:2].sum())
    core, side = (unit**2 * float(v @ v) / 4 for v in (first + second, first - second))
    p, g = weights[0] / weights[:2].sum(), RESIDUALS[trial["loss"]]
    turn = np.array([[core + side, core - side], [core - side, core + side]])
    end = trial["times"][-1]
    flow = solve_ivp(lambda _, m: turn @ (np.array([p, 1 - p]) * g(m)), (0, end), [0.0, 0.0], t_eval=x * end, rtol=1e-7)
    return flow.y[trial["kind"]]


def _shares(problems: Problems, scales: np.ndarray, time: np.ndarray, margin: np.ndarray) -> tuple[np.ndarray, ...]:
    """1 - p of the samples, what `minority_needed` says that a margin b of the minority at `time` takes, and 1: each
    [b, times, 1]. Of every `_EACH`th problem; the others have their own share twice."""
    share = 1 - _agreement(problems)[:, 0]
    needed, norm = share.copy(), scales[:, 0] * np.sqrt(problems.weights[:, :2].sum(-1))
    for i in range(0, COUNT, _EACH):
        accuracy, both = 1 / (1 + np.exp(-margin[i])), {"core": norm[i], "shortcut": norm[i]}
        needed[i] = float(theory.minority_needed(accuracy, time[i], problems.losses[i], **both))
    shape = COUNT, len(FRACTIONS), 1
    return tuple(np.broadcast_to(leaf[:, None, None], shape) for leaf in (share, needed, np.ones(COUNT)))


@register(
    name="shortcut",
    equation="20.1-20.2",
    title="A shortcut with a minority: majority and minority",
    meaning="A shortcut and the samples that contradict it learn along two coupled curves, and the law says how far the "
    "shortcut gets first.",
    claim="da/dt = (r_c^2 + r_s^2) p g(a) + (r_c^2 - r_s^2)(1-p) g(b), and b with the two norms changed over; equal norms "
    "are two clocks beside each other, of cross-entropy a = C - W(e^C), C = 2 r^2 p t + 1",
    formula=(
        r"\begin{split} \frac{da}{dt} &= (r_c^2 + r_s^2)\, p\, g(a) + (r_c^2 - r_s^2)\, (1 - p)\, g(b), \\ "
        r"\frac{db}{dt} &= (r_c^2 - r_s^2)\, p\, g(a) + (r_c^2 + r_s^2)\, (1 - p)\, g(b), \\ "
        r"r_c = r_s:\quad a &= C - W(e^C), \qquad C = 2 r^2 p\, t + 1 \quad \text{(cross-entropy)} \end{split}"
    ),
    hypotheses=(CONTRADICTED, FROM_ZERO, "gradient flow"),
    tolerance=LIMIT_TOLERANCE,
    why_tolerance=WHY_LIMIT,
    checked_with=BY_LIMIT,
    default_trials=4 * COUNT,
    quick_trials=2 * COUNT,
    losses=("cross-entropy", "exponential", "squared"),
    batch=COUNT,
    rounds=(
        {"loss": "cross-entropy"},
        {"loss": "cross-entropy", "equal": True},
        {"loss": "exponential"},
        {"loss": "squared"},
    ),
    drops=(
        Drop("orthogonal features (a cosine of 0.3 between core and shortcut instead)", {"loss": "squared", "cosine": 0.3}),
    ),
    figure=LawFigure(
        lambda trial: (trial["times"] / trial["times"][-1], trial["trained"]),
        _curve,
        "time, as a share of the run",
        "margin",
        parts=_kinds,
        each=2,
        gap="gap of both margins, relative to the largest",
    ),
)
def curves(rng: np.random.Generator, loss: str, equal: bool = False, cosine: float = 0.0) -> Trials:
    """Read-outs from zero, p from 0.55 to 0.95, r_s from 0.4 r_c to 2.5 r_c, and equal norms."""
    weights, scales = _weights(rng), _scales(rng, 1.0, 1.0) if equal else _scales(rng, 0.4, 2.5)
    problems = one_layer(rng, weights, np.full(COUNT, loss), SIGNED, scales=scales)
    if cosine:
        problems = _leaning(problems, scales, cosine)
    time = log_uniform(rng, 0.3, 10, COUNT) / scales.max(-1) ** 2
    trained = problems.limit(time)[..., :2]
    law = np.asarray(law_of(problems, loss, scales, time).margins(FRACTIONS))
    times, size = FRACTIONS * time[:, None], np.abs(law).max(-1, keepdims=True)
    numbers = problems.recorded({"times": times, "trained": trained, "law": law})
    if equal:  # and the other way round: the share of the minority from how far its margin has come
        shares = _shares(problems, scales, time, trained[:, -1, 1])
        both = trained, law, np.broadcast_to(size, law.shape)
        trained, law, size = (np.concatenate(pair, axis=-1) for pair in zip(both, shares, strict=True))
    names = ("the margin of the majority", "the margin of the minority", "the share of the minority that its margin tells")
    texts: dict[str, Any] = {"quantity": lambda i, k, kind: names[kind]}
    texts["when"] = lambda i, k, *_: f"at t = {times[i, k]:.4g}"
    group = f"{loss}, {'equal' if equal else 'any'} norms"
    return compared(trained, law, size, numbers, group=group, **texts)


_END = np.array([1e3, 1e11, 1e12])


def draw_ends(outcome: Outcome, ax: Any) -> None:
    """v_s at the end over p: cross-entropy on one curve for all norms, hinge loss by the ratio of the norms."""
    p = np.linspace(0.55, 0.95, 100)
    ax.plot(p, np.log(p / (1 - p)) / 2, color=COLOURS[0], label="cross-entropy, law: log(p/(1−p))/2")
    for colour, ratio in zip(COLOURS[1:], (0.4, 0.8), strict=False):
        x, lead = ratio**2, 2 * p - 1
        end = lead * x * (1 - x) / ((1 + x) * (1 + lead * x))
        ax.plot(p, end, color=colour, linestyle="--", label=f"hinge, law, r_s = {ratio} r_c")
    found, hinge = outcome.extra, outcome.extra["hinge"].astype(bool)
    ax.plot(found["agreement"][~hinge], found["trained"][~hinge], "o", color=COLOURS[0], markersize=3, label="trained")
    ax.plot(found["agreement"][hinge], found["trained"][hinge], ".", color="0.5", markersize=4, label="trained, any norms")
    ax.set_xlabel("agreement p of the shortcut with the label")
    ax.set_ylabel("logit of the shortcut in the end")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


@register(
    name="shortcut-end",
    equation="20.3-20.4",
    title="What is left of a shortcut in the end",
    meaning="Cross-entropy never lets a shortcut go completely: what is left of it is set by how rare its exceptions are.",
    claim="with cross-entropy v_s tends to log(p/(1-p))/2 whatever the norms; with the hinge loss it ends at 0 if "
    "r_s >= r_c and else at (2p-1) r_s^2 (r_c^2 - r_s^2)/((r_c^2 + r_s^2)(r_c^2 + (2p-1) r_s^2))",
    formula=(
        r"\begin{split} \text{cross-entropy:}\quad v_s &\to \frac{1}{2} \log \frac{p}{1 - p}, \\ "
        r"\text{hinge:}\quad v_s &\to "
        r"\frac{(2p - 1)\, r_s^2\, (r_c^2 - r_s^2)}{(r_c^2 + r_s^2)\,(r_c^2 + (2p - 1)\, r_s^2)} "
        r"\quad (r_s \le r_c), \qquad 0 \quad (r_s \ge r_c) \end{split}"
    ),
    hypotheses=(CONTRADICTED, FROM_ZERO, of_losses("cross-entropy or hinge loss", "cross-entropy", "hinge")),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW + "; at t = 1e12, with r_s >= r_c for cross-entropy, what is left of the way is 1e-10",
    checked_with=BY_FLOW_EACH + ", to t = 1e12",
    default_trials=4 * COUNT,
    quick_trials=2 * COUNT,
    losses=("cross-entropy", "hinge"),
    batch=COUNT,
    rounds=({"loss": "cross-entropy"}, {"loss": "hinge"}),
    drops=(
        Drop("orthogonal features (a cosine of 0.3 between core and shortcut instead)", {"loss": "hinge", "cosine": 0.3}),
    ),
    figure=draw_ends,
)
def ends(rng: np.random.Generator, loss: str, cosine: float = 0.0) -> Trials:
    """Read-outs from zero, to t = 1e12: hinge with r_s below r_c, cross-entropy with r_s above."""
    # With the hinge loss no margin slides while r_s <= r_c; cross-entropy approaches its limit as t^-(r_s/r_c)^2.
    hinge = loss == "hinge"
    weights, scales = _weights(rng), _scales(rng, 0.3, 0.99) if hinge else _scales(rng, 1.0, 2.0)
    problems = one_layer(rng, weights, np.full(COUNT, loss), SIGNED, scales=scales)
    if cosine:
        problems = _leaning(problems, scales, cosine)
    logits, _, lost = problems.flow(_END)
    v = _parted(logits)[1][:, -1]
    law = np.asarray(law_of(problems, loss, scales).rest)[:, 1]
    extra = {"agreement": _agreement(problems)[:, 0], "ratio": scales[:, 1] / scales[:, 0], "trained": v}
    extra["hinge"] = np.full(COUNT, hinge)
    numbers = problems.recorded({"trained": v, "law": law})
    texts: dict[str, Any] = {"quantity": "v_s", "when": f"at t = {_END[-1]:g}"}
    texts["setting"] = lambda i: f"with p = {extra['agreement'][i]:.3g} and r_s/r_c = {extra['ratio'][i]:.3g}"
    return compared(v, law, 1.0, numbers, lost, group=loss, extra=extra, **texts)


_STEP, _STEPS, _EVERY, _EACH = 0.1, 10_000, 10, 8  # one problem in eight is compared with its law


def _rest(types: np.ndarray, weights: np.ndarray, loss: Any) -> np.ndarray:
    """(u*, 0), the rest of both features by the law."""
    if types is PAIR:
        return np.asarray(theory.settled_features(PAIR[:2, :2], weights[:2], loss))
    p = weights[0] / (weights[0] + weights[1])
    return np.asarray(theory.shortcut(p, loss).rest)


def draw_control(outcome: Outcome, ax: Any) -> None:
    """The second feature over u* along training: a shortcut that a minority contradicts, and the rare one of the pair."""
    steps = np.arange(outcome.extra["second"].shape[1]) * _EVERY
    names = ("shortcut, with a minority: forgotten", "rare feature of the starving pair: starved")
    for colour, name, mine in zip(COLOURS, names, (False, True), strict=False):
        chosen = outcome.extra["second"][outcome.extra["pair"].astype(bool) == mine][:6]
        for k, curve in enumerate(chosen):
            ax.plot(1 + steps, curve, color=colour, linewidth=1, label=name if k == 0 else None)
    kept = theory.feature_flow([[1, 1]], [1.0], SpectralDecoupling("cross-entropy", 0.5)).features(_STEP * steps)
    law = {"color": "red", "linewidth": 1.2, "label": "no minority: kept, for equal norms as a half of u*"}
    ax.plot(1 + steps, kept[:, 1] / (2 * kept[-1, 1]), **law)
    ax.axhline(0, color="black", linewidth=1, linestyle="--", label="law: 0 in the end")
    ax.set_xscale("log")
    ax.set_xlabel("step + 1")
    ax.set_ylabel("logit of the second feature / u*")
    ax.set_ylim(-0.03, 0.75)
    ax.legend(frameon=False, fontsize=8, loc="upper left")


@register(
    name="margin-control",
    equation="20.5",
    title="Margin control helps if and only if a minority contradicts the shortcut",
    meaning="Stopping the margin at a finite value removes a shortcut if some samples contradict it, and starves the rare"
    " feature if none does.",
    claim="with any loss that has a finite rest u*, v_c tends to u* and v_s to 0; on the starving pair, where no sample "
    "contradicts the frequent feature, the same loss ends at v_1 = u* and v_2 = 0: it starves the rare one",
    formula=(
        r"g(u^*) = 0: \qquad (v_c, v_s) \to (u^*, 0) \;\text{ with a minority}, \qquad "
        r"(v_1, v_2) \to (u^*, 0) \;\text{ on the starving pair}"
    ),
    hypotheses=("a loss with a finite rest u*, convex", "one layer, started at zero", "a minority, or the starving pair"),
    tolerance=1e-8,
    why_tolerance="what 10,000 steps of descent leave of the way, 1e-11, and the rounding of the rest",
    checked_with="simulate: descent on all weights to the rest",
    default_trials=4 * COUNT // _EACH,
    quick_trials=2 * COUNT // _EACH,
    losses=("cross-entropy", "exponential", "squared"),
    dynamics=("flow", "descent"),
    batch=COUNT // _EACH,
    rounds=(
        {"types": SIGNED},
        {"types": PAIR},
        {"types": SIGNED, "loss": "exponential"},
        {"types": SIGNED, "loss": "squared"},
    ),
    drops=(
        Drop("a minority (none contradicts the shortcut instead)", {"types": TOGETHER}),
        Drop("a loss with a finite rest (cross-entropy instead)", {"types": SIGNED, "rest": False}),
    ),
    figure=draw_control,
)
def control(rng: np.random.Generator, types: np.ndarray, loss: str = "cross-entropy", rest: bool = True) -> Trials:
    """Descent with a penalty on the logits at random, from zero to the rest, on a shortcut and on the starving pair."""
    pair = types is PAIR
    weights = pair_weights(rng, 0.3, 3.0) if pair else _weights(rng, 0.85)
    scales = np.ones((COUNT, 3)) if pair else _scales(rng, 0.7, 1.6)
    penalty = log_uniform(rng, 0.2, 1.0, COUNT)
    problems = one_layer(rng, weights, np.full(COUNT, loss), types, scales=scales)
    problems = replace(problems, penalty=penalty if rest else 0.0)
    logits, _ = problems.descent(np.full(COUNT, _STEP), _STEPS, _EVERY)
    if types is TOGETHER:  # one margin, of which each feature has its part
        squares = scales[:, :2] ** 2
        v = logits[..., :1] * (squares / squares.sum(-1, keepdims=True))[:, None]
    else:
        v = logits @ np.linalg.inv(types).T
    # The rest of one problem at a time: several penalties would be those of its types.
    where = np.arange(0, COUNT, _EACH)
    law = np.stack([_rest(types, weights[i], SpectralDecoupling(loss, penalty[i])) for i in where])
    v = v[where, :, :2]
    unit = law[:, :1]

    def numbers(i: int) -> dict[str, Any]:
        return problems.instance(int(where[i]), penalty=penalty[where[i]], trained=v[i, -1], law=law[i])

    names = ("v_1", "v_2") if pair else ("v_c", "v_s")
    texts: dict[str, Any] = {"quantity": lambda i, k: names[k]}
    texts["when"] = f"after {_STEPS} steps"
    group = "starving pair" if pair else "a minority contradicts"
    second = v[:, :, 1] / unit
    extra = {"second": second, "pair": np.full(len(second), pair)}
    return compared(v[:, -1], law, unit, numbers, group=group, extra=extra, **texts)
