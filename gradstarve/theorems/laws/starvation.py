"""Gradient starvation with one layer: the pair in closed form (10.2), the freeze (10.3), the two bounds (10.4).

Also here: any depth (10.5), and neurons active on both features (10.7).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import TwoLayerReLU, as_loss
from gradstarve.theorems._entry import COLOURS, Outcome, of_losses
from gradstarve.theorems._register import Drop, Trials, compared, register
from gradstarve.theorems._sampling import FLOW_TOLERANCE, LOSS_NAMES, WHY_FLOW, WIDTH, log_uniform
from gradstarve.theorems.laws.features import (
    ALIGNED,
    BY_FLOW_EACH,
    BY_LIMIT,
    COUNT,
    FRACTIONS,
    FROM_ZERO,
    KINDS,
    LIMIT_TOLERANCE,
    NESTED,
    PAIR,
    SEEN_BY_ALL,
    TIMES,
    WHY_LIMIT,
    Problems,
    chosen,
    frames,
    one_layer,
    pair_weights,
    paths,
    small_starts,
    split,
)
from gradstarve.theory import _starvation as pair_law


def law_of(problems: Problems, loss: str, **how: Any) -> theory.StarvingPair:
    """The pair of these problems [b]."""
    return theory.starving_pair(problems.weights[:, 0], problems.weights[:, 1], loss, **how)


def distance(found: Any, law: Any) -> np.ndarray:
    """The largest |v - v_law| of both features, over v_1 + |v_2| of the law, over all times: [b]."""
    (v1, v2), (w1, w2) = found, (np.asarray(side) for side in law)
    size = np.abs(w1) + np.abs(w2)
    gap = np.maximum(np.abs(v1 - w1), np.abs(v2 - w2)) / np.where(size > 0, size, 1)
    return gap.reshape(gap.shape[0], -1).max(-1)


def beside_its_bound(problems: Problems, logits: np.ndarray, bound: np.ndarray, times: np.ndarray, most: bool) -> Trials:
    """v_2 of the problems against a `bound` given v_1, an upper one (`most`) or a lower one: bound, times [b, records]."""
    v1, v2 = split(logits)
    texts: dict[str, Any] = {"quantity": "v_2", "setting": lambda i: f"q = {problems.ratio[i]:.3g}"}
    texts["when"] = lambda i, k: f"at t = {times[i, k]:.4g}, where v_1 = {v1[i, k]:.4g},"
    texts["rest"] = f"by the law it is that at {'most' if most else 'least'}"
    numbers = problems.recorded({"times": times, "trained": logits})
    return compared(v2, bound, v1 + np.abs(v2), numbers, judge=np.positive if most else np.negative, **texts)


def most_of_rare(problems: Problems, v1: np.ndarray, depth: int = 1, start: Any = 0.0) -> np.ndarray:
    """The upper bound of v_2 given v_1, [b, records]."""
    first, second = (np.broadcast_to(start, (v1.shape[0], 3))[:, k, None] for k in (0, 1))
    return np.asarray(pair_law.upper_bound(v1, problems.ratio[:, None], first, second, depth))


def another_pair(rng: np.random.Generator, loss: str, low: float, high: float, cosine: float) -> Problems:
    """A linear read-out from zero on the pair, q from `low` to `high`; `cosine` of feature 2 with feature 1."""
    return one_layer(rng, pair_weights(rng, low, high), np.full(COUNT, loss)).overlapping(cosine)


def _with(problems: Problems, loss: str, cosine: float, rest: str = "") -> Any:
    """The description of the problem in a counterexample, before its quote."""
    what = f"a cosine of {cosine} between the features" if cosine else loss
    return lambda i: f"with {what} and q = {problems.ratio[i]:.3g}{rest}"


# --- (10.2) --------------------------------------------------------------------------------------------------------------


def _another_pair(rng: np.random.Generator, loss: str = "exponential", cosine: float = 0.0) -> Trials:
    """Another loss, or features that are not orthogonal, against the law of the exponential loss."""
    problems = another_pair(rng, loss, 0.1, 10.0, cosine)
    logits, _, _ = problems.flow()
    law = np.stack([np.asarray(side) for side in law_of(problems, "exponential").features(TIMES)], axis=1)
    numbers = problems.recorded({"trained": logits}, times=TIMES)
    texts: dict[str, Any] = {"quantity": lambda i, feature, k: f"v_{feature + 1}"}
    texts["when"] = lambda i, feature, k: f"at t = {TIMES[k]:g}"
    setting, size = _with(problems, loss, cosine), np.sum(np.abs(law), axis=1, keepdims=True)
    return compared(np.stack(split(logits), axis=1), law, size, numbers, **texts, setting=setting)


def draw_pair(outcome: Outcome, ax: Any) -> None:
    """v_1 and v_2 over time for three of the problems: the law as lines, the trained networks as markers."""
    weights = outcome.extra["weights"]
    ratio = weights[:, 0] / weights[:, 1]
    for colour, wanted in zip(COLOURS, (0.1, 1.0, 10.0), strict=False):
        i = int(np.argmin(np.abs(np.log(ratio / wanted))))
        times = np.geomspace(TIMES[0], TIMES[-1], 60)
        law = theory.starving_pair(weights[i, 0], weights[i, 1], "exponential").features(times)
        for k, (style, marker, name) in enumerate((("-", "o", "frequent"), ("--", "s", "rare"))):
            ax.plot(times, law[k], style, color=colour, label=f"v{'₁₂'[k]}, law, q = {ratio[i]:.2g}")
            ax.plot(TIMES, outcome.extra[name][i], marker, color=colour, markersize=4)
    ax.plot([], [], "o", color="0.4", markersize=4, label="v₁, trained")
    ax.plot([], [], "s", color="0.4", markersize=4, label="v₂, trained")
    ax.set_xscale("log")
    ax.set_xlabel("t = step size × step")
    ax.set_ylabel("logit of the feature")
    ax.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)


@register(
    name="starving-pair",
    equation="10.2",
    title="A rare feature beside a frequent one grows like log log t",
    meaning="Beside a frequent feature a rare one grows so slowly that it is never learnt in practice, although it is as "
    "informative.",
    claim="with the exponential loss v_2 = log[(1 + W(e^(q-1) (q^2 p_12 t + q - 1)))/q] and v_1 = v_2 + q (e^v_2 - 1)",
    formula=(
        r"\begin{split} v_2 &= \log \left( \frac{1 + W(e^{q - 1}\, (q^2\, p_{12}\, t + q - 1))}{q} \right), \qquad "
        r"q = \frac{p_1}{p_{12}}, \\ "
        r"v_1 &= v_2 + q\, (e^{v_2} - 1) \end{split}"
    ),
    hypotheses=(of_losses("exponential loss", "exponential"), FROM_ZERO, NESTED),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW_EACH,
    default_trials=8 * COUNT,
    losses=("exponential",),
    batch=COUNT,
    drops=(
        Drop("exponential loss", lambda rng: _another_pair(rng, "cross-entropy")),
        Drop("orthogonal features", lambda rng: _another_pair(rng, cosine=0.3)),
    ),
    figure=draw_pair,
)
def starving_pair(rng: np.random.Generator) -> Trials:
    """A linear read-out from zero on the pair in random frames, q from 1e-3 to 1e3, followed over four decades of time."""
    problems = one_layer(rng, pair_weights(rng), np.full(COUNT, "exponential"))
    logits, _, lost = problems.flow()
    found, law = split(logits), [np.asarray(side) for side in law_of(problems, "exponential").features(TIMES)]
    numbers = problems.recorded({"trained": logits, "law": np.stack(law, axis=1)}, times=TIMES)
    extra = {"weights": problems.weights, "frequent": found[0], "rare": found[1]}
    return Trials(distance(found, law), numbers, lost, "exponential", extra=extra)


# --- (10.3) --------------------------------------------------------------------------------------------------------------


def frozen_at(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(time, v_2) of the freeze from zero with one layer: 1/(p_1 + 2 p_12) and 1/(2 + q), [b]."""
    return 1 / (weights[:, 0] + 2 * weights[:, 1]), weights[:, 1] / (2 * weights[:, 1] + weights[:, 0])


def _goes_on(rng: np.random.Generator, loss: str = "hinge", cosine: float = 0.0) -> Trials:
    """Another loss, or features that are not orthogonal: feature 2 grows after the time of (10.3)."""
    problems = another_pair(rng, loss, 0.3, 3.0, cosine)
    logits, _, _ = problems.flow()
    _, value = frozen_at(problems.weights)
    numbers = problems.recorded({"trained": logits}, times=TIMES)
    texts: dict[str, Any] = {"quantity": "v_2", "when": f"at t = {TIMES[-1]:g}"}
    texts["setting"] = _with(problems, loss, cosine, ", so that 1/(2 + q) is meant")
    return compared(split(logits)[1][:, -1], value, value, numbers, **texts)


def draw_freeze(outcome: Outcome, ax: Any) -> None:
    """v_2 in units of 1/(2+q) over time in units of the freeze: all problems on one broken line."""
    times, rare = (outcome.extra[name].reshape(-1) for name in ("times", "rare"))
    ax.plot([1e-2, 1, 1e3], [1e-2, 1, 1], color="0.8", linewidth=6, label="law (10.3)")
    ax.plot(times, rare, ".", color=COLOURS[0], markersize=3, label="trained, all problems and records")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("t (p₁ + 2 p₁₂), time in units of the freeze")
    ax.set_ylabel("v₂ (2 + q)")
    ax.legend(frameon=False, fontsize=8, loc="lower right")


@register(
    name="freeze",
    equation="10.3",
    title="With the hinge loss the rare feature stops for ever",
    meaning="With the hinge loss the rare feature stops at an early moment and never moves again: more training does not "
    "help.",
    claim="v_2 = p_12 t until t = 1/(p_1 + 2 p_12), then 1/(2 + q) for ever, while v_1 goes on to its margin",
    formula=(
        r"\begin{split} v_2 &= p_{12}\, \min(t, t^*), \qquad t^* = \frac{1}{p_1 + 2 p_{12}}, \qquad "
        r"p_{12}\, t^* = \frac{1}{2 + q}, \\ "
        r"v_1 &= \min(1,\; p_1 t + p_{12}\, \min(t, t^*)), \qquad q = \frac{p_1}{p_{12}} \end{split}"
    ),
    hypotheses=(of_losses("hinge loss", "hinge"), FROM_ZERO, NESTED),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW_EACH,
    default_trials=8 * COUNT,
    losses=("hinge",),
    batch=COUNT,
    drops=(
        Drop("hinge loss", lambda rng: _goes_on(rng, "cross-entropy")),
        Drop("orthogonal features", lambda rng: _goes_on(rng, cosine=0.3)),
    ),
    figure=draw_freeze,
)
def freeze(rng: np.random.Generator) -> Trials:
    """The read-out with hinge loss before, at and after the freeze: v_2 = p_12 t until then and one number after it."""
    problems = one_layer(rng, pair_weights(rng), np.full(COUNT, "hinge"))
    logits, _, lost = problems.flow()
    (time, value), (frequent, rare) = frozen_at(problems.weights), split(logits)
    line = np.minimum(TIMES / time[:, None], 1) * value[:, None]
    gaps = np.max(np.abs(rare - line) / (frequent + rare), axis=-1)
    # The law for any start has to agree, and to include the growth of feature 1 to its margin.
    pair = law_of(problems, "hinge")
    gaps = np.maximum(gaps, distance(split(logits), pair.features(TIMES)))
    for ours, theirs in zip(pair.freeze, (time, value), strict=True):
        gaps = np.maximum(gaps, np.abs(np.asarray(ours) / theirs - 1))
    numbers = problems.recorded({"trained": logits, "freezes_at": time, "frozen_value": value}, times=TIMES)
    extra = {"times": TIMES / time[:, None], "rare": rare / value[:, None]}
    return Trials(gaps, numbers, lost, "hinge", extra=extra)


# --- (10.4) --------------------------------------------------------------------------------------------------------------


def climb(before: Any, after: Any, depth: int) -> np.ndarray:
    """phi(after) - phi(before) with phi' = v^(2/N - 2), in plain NumPy."""
    if depth == 1:
        return after - before
    if depth == 2:
        return np.log(after / before)
    power = 2 / depth - 1
    return (after**power - before**power) / power


def outside(problems: Problems, logits: np.ndarray, both_sides: np.ndarray, depth: int = 1, start: Any = 0.0) -> np.ndarray:
    """The distance of v_2 outside of its bounds given the trained v_1, over v_1 + v_2, at the worst record: [b].

    `start`: v_k(0), [b, 3] or a number. Where `both_sides` [b] is true (cross-entropy and the exponential loss) the lower
    bound counts, and the tightness of the upper one: g(v_1)/g(v_1 + v_2) has been at most e^(v_2), so that with the
    present v_2

        phi(most) - phi(v_20)  <=  (1 + q e^v_2)/(1 + q) [phi(v_2) - phi(v_20)],

    which is tight where v_2 is small. The lower bound is v_2 itself with the exponential loss.
    """
    v1, v2 = split(logits)
    first, second = (np.broadcast_to(start, (v1.shape[0], 3))[:, k, None] for k in (0, 1))
    ratio = problems.ratio[:, None]
    arguments = (v1, ratio, first, second, depth)
    most, least = (np.asarray(bound(*arguments)) for bound in (pair_law.upper_bound, pair_law.lower_bound))
    exact = (problems.losses == "exponential")[:, None]
    below = np.where(exact, np.abs(least - v2), least - v2)
    with np.errstate(invalid="ignore", divide="ignore"):
        room = climb(second, most, depth) - (1 + ratio * np.exp(v2)) / (1 + ratio) * climb(second, v2, depth)
    wide = np.where(np.isnan(room), 0, room) * v2 ** (2 - 2 / depth)  # as a difference of logits
    worst = np.maximum(v2 - most, np.where(both_sides[:, None], np.maximum(below, wide), 0))
    return np.max(np.maximum(worst, 0) / (v1 + np.abs(v2)), axis=-1)


def _off_the_bound(problems: Problems, logits: np.ndarray) -> np.ndarray:
    """How far v_2 is from its upper bound, over v_1 + v_2, at the worst record: [b]."""
    v1, v2 = split(logits)
    most = np.asarray(pair_law.upper_bound(v1, problems.ratio[:, None], 0.0, 0.0, 1))
    return np.max(np.abs(v2 - most) / (v1 + v2), axis=-1)


def _another(rng: np.random.Generator, types: Any = PAIR, cosine: float = 0.0, loss: str = "cross-entropy") -> Problems:
    """A read-out of other sample types, of features that are not orthogonal, or with another loss."""
    problems = one_layer(rng, pair_weights(rng, 0.3, 3.0), np.full(COUNT, loss), types)
    return problems.overlapping(cosine) if cosine else problems


def _above(rng: np.random.Generator, **how: Any) -> Trials:
    """v_2 against the upper bound of the law of the pair."""
    problems = _another(rng, **how)
    logits, _, _ = problems.flow()
    times = np.broadcast_to(TIMES, logits.shape[:2])
    return beside_its_bound(problems, logits, most_of_rare(problems, split(logits)[0]), times, most=True)


def _below(rng: np.random.Generator) -> Trials:
    """v_2 with hinge loss against the lower bound for cross-entropy."""
    problems = _another(rng, loss="hinge")
    logits, _, _ = problems.flow()
    least = np.asarray(pair_law.lower_bound(split(logits)[0], problems.ratio[:, None], 0.0, 0.0, 1))
    return beside_its_bound(problems, logits, least, np.broadcast_to(TIMES, logits.shape[:2]), most=False)


def _any_step_size(rng: np.random.Generator) -> Trials:
    """Descent: its first step is on the upper bound, whatever the loss and the step size."""
    weights, losses = pair_weights(rng), chosen(rng, ("cross-entropy", "cross-entropy", *LOSS_NAMES))
    # A step of descent is a sum of increments, each of which obeys the inequality, whatever the step size.
    problems = one_layer(rng, weights, np.where([as_loss(loss).pulls_back for loss in losses], "cross-entropy", losses))
    step_size = log_uniform(rng, 1e-2, 1e2, COUNT)
    logits = problems.descent(step_size, 60, 1)[0][:, 1:]
    gaps = np.maximum(outside(problems, logits, np.zeros(COUNT, bool)), _off_the_bound(problems, logits[:, :1]))
    numbers = problems.recorded({"step_size": step_size, "trained": logits}, steps=60)
    return Trials(gaps, numbers, group="descent, any step size")


def draw_bounds(outcome: Outcome, ax: Any) -> None:
    """The place of the trained v_2 between its two bounds, against v_1."""
    (v1, v2), ratio = split(outcome.extra["logits"]), outcome.extra["ratio"]
    arguments = (v1, ratio[:, None], 0.0, 0.0, 1)
    least, most = (np.asarray(bound(*arguments)) for bound in (pair_law.lower_bound, pair_law.upper_bound))
    room = most - least
    visible = room > 1e-6 * v1  # bounds closer together than that leave no place to show
    for colour, (low, high) in zip(COLOURS, ((1e-3, 0.1), (0.1, 1), (1, 10), (10, 1e3)), strict=False):
        mine = visible & ((ratio >= low) & (ratio < high * (1 + 1e-9)))[:, None]
        share = (v2 - least)[mine] / room[mine]
        ax.plot(v1[mine], share, ".", color=colour, markersize=3, label=f"trained, q in {low:g}–{high:g}")
    ax.axhline(1, color="black", linewidth=1.2, linestyle="--", label="upper bound, v₁ / (1 + q)")
    ax.axhline(0, color="black", linewidth=1.2, linestyle=":", label="lower bound, v₁ + q − W(q e^(q + v₁))")
    ax.set_xscale("log")
    ax.set_ylim(-0.05, 1.05)
    ax.set_xlabel("v₁, logit of the frequent feature")
    ax.set_ylabel("place of v₂ between its bounds")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


@register(
    name="starvation-bounds",
    equation="10.4",
    title="Between two curves at every time",
    meaning="However training goes, the rare feature stays between two curves that the frequent one sets.",
    claim="v_1 + q - W(q e^(q + v_1)) <= v_2 <= v_1/(1 + q) with cross-entropy; the upper bound holds for every loss, and "
    "for gradient descent with any step size",
    formula=r"v_1 + q - W(q\, e^{q + v_1}) \;\le\; v_2 \;\le\; \frac{v_1}{1 + q}, \qquad q = \frac{p_1}{p_{12}}",
    hypotheses=(FROM_ZERO, NESTED, "lower bound: cross-entropy, gradient flow"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW + "; descent obeys the upper bound up to rounding",
    checked_with=f"{BY_FLOW_EACH}; simulate: gradient descent with step sizes from 0.01 to 100",
    default_trials=16 * COUNT,
    quick_trials=2 * COUNT,
    dynamics=("flow", "descent"),
    batch=COUNT,
    rounds=({"by_descent": False}, {"by_descent": True}),
    drops=(
        Drop("orthogonal features (a cosine of 0.5 instead)", lambda rng: _above(rng, cosine=0.5)),
        Drop(
            "every sample with feature 2 has feature 1 (some show feature 2 alone instead)",
            lambda rng: _above(rng, types=np.array([[1.0, 0, 0], [1, 1, 0], [0, 1, 0]])),
        ),
        Drop("cross-entropy, for the lower bound (hinge instead)", _below),
    ),
    figure=draw_bounds,
)
def starvation_bounds(rng: np.random.Generator, by_descent: bool) -> Trials:
    """Both bounds along the flow with cross-entropy, the upper one with every loss, and with descent at any step size.

    The exponential loss stays on the lower one.
    """
    if by_descent:
        return _any_step_size(rng)
    weights, losses = pair_weights(rng), chosen(rng, ("cross-entropy", "cross-entropy", *LOSS_NAMES))
    problems = one_layer(rng, weights, losses)
    logits, _, lost = problems.flow()
    two, exponential = losses == "cross-entropy", losses == "exponential"
    gaps = outside(problems, logits, two | exponential)
    v1, v2 = split(logits)
    least, most = (np.asarray(bound) for bound in law_of(problems, "exponential").bounds(TIMES))
    off = np.max(np.maximum(np.abs(v2 - least), v2 - most) / (v1 + v2), axis=-1)
    gaps = np.maximum(gaps, np.where(exponential, off, 0))
    group = np.select(
        [two, exponential],
        ["flow, cross-entropy: both bounds", "flow, exponential loss: the lower bound itself"],
        "flow, other losses: upper bound",
    )
    numbers = problems.recorded({"trained": logits}, times=TIMES)
    return Trials(gaps, numbers, lost, group, extra={"ratio": problems.ratio[two], "logits": logits[two]})


# Starvation in deeper networks: balanced paths of two layers and more (10.5), and neurons active on both features (10.7).

_DEPTHS = (2, 3, 5)
_SMOOTH = ("cross-entropy", "cross-entropy", "exponential", "squared")


def _escape(weights: np.ndarray, start: np.ndarray, depth: int) -> np.ndarray:
    """The approximate plateau of feature 1, [b]: the time for phi(1) - phi(v_10) at the speed of g = 1/2."""
    return climb(start[:, 0], 1.0, depth) / (depth * weights[:, :2].sum(-1) / 2)


def _off_the_limit(ceiling: np.ndarray, ratio: np.ndarray, start: np.ndarray, depth: int) -> np.ndarray:
    """The distance of the ceiling of v_2 from the limit of its upper bound for v_1 -> inf, in plain NumPy, [b]."""
    power = 1 - 2 / depth
    left = start[:, 1] ** -power - start[:, 0] ** -power / (1 + ratio) if depth > 2 else np.zeros(len(ratio))
    finite = left > 0
    limit = np.where(finite, left, 1) ** (-1 / power if depth > 2 else 1)
    off = np.where(finite, np.abs(np.where(finite, ceiling, limit) / limit - 1), 0)
    return np.where(finite == np.isfinite(ceiling), off, np.inf)


def _two_layers(rng: np.random.Generator, tilt: float = 1.0, connected: bool = False) -> Trials:
    """Paths of two layers that are unbalanced by `tilt`, or `connected`, against the upper bound of v_2."""
    weights, losses, start = pair_weights(rng, 0.3, 3.0), np.full(COUNT, "cross-entropy"), small_starts(rng)
    problems = paths(2, weights, losses, start, tilt=tilt)
    problems = problems.connected(start) if connected else problems
    time = _escape(weights, start, 2)
    logits = problems.limit(time)
    most = most_of_rare(problems, split(logits)[0], 2, start)
    return beside_its_bound(problems, logits, most, FRACTIONS * time[:, None], most=True)


def draw_deep(outcome: Outcome, ax: Any) -> None:
    """The growth of feature 2 against its bound, in phi: all points are below the diagonal."""
    first, second, v1, v2 = outcome.extra["values"].T
    for colour, depth in zip(COLOURS, _DEPTHS, strict=False):
        mine = outcome.extra["depths"] == depth
        if not mine.any():
            continue
        ends = ((second, v2), (first, v1))
        gone, lead = (climb(start[mine], end[mine], depth) for start, end in ends)
        lead = lead / (1 + outcome.extra["ratio"][mine])
        ax.plot(lead, gone, ".", color=colour, markersize=4, label=f"trained, N = {depth}")
    ax.plot([1e-3, 1e2], [1e-3, 1e2], color="black", linewidth=1.2, linestyle="--", label="bound (10.5)")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(1e-4, 50)
    ax.set_ylim(1e-4, 50)
    ax.set_xlabel("[φ(v₁) − φ(v₁₀)] / (1 + q)")
    ax.set_ylabel("φ(v₂) − φ(v₂₀)")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


@register(
    name="deep-starvation",
    equation="10.5",
    title="Depth makes starvation worse",
    meaning="Each further layer starves the rare feature more; from three layers on it has a ceiling that it can never "
    "pass.",
    claim="phi(v_1) - phi(v_10) >= (1 + q) [phi(v_2) - phi(v_20)] with phi' = v^(2/N-2), for every loss; with J on the "
    "right it is <= for cross-entropy and = for the exponential loss; at N >= 3 v_2 has a ceiling for ever",
    formula=(
        r"\begin{split} \phi(v_1) - \phi(v_{10}) &\ge (1 + q)\, (\phi(v_2) - \phi(v_{20})), \\ "
        r"\phi(v_1) - \phi(v_{10}) &\le (1 + q)\, (\phi(v_2) - \phi(v_{20})) + q\, (J(v_2) - J(v_{20})) \quad "
        r"\text{with cross-entropy}, \\ "
        r"v_2^{2/N - 1} &\ge v_{20}^{2/N - 1} - \frac{v_{10}^{2/N - 1}}{1 + q} \quad \text{if } N \ge 3, \\ "
        r"\phi(v) &= \int v^{2/N - 2}\, dv, \qquad J(v) = \int (e^v - 1)\, v^{2/N - 2}\, dv, \qquad "
        r"q = \frac{p_1}{p_{12}} \end{split}"
    ),
    hypotheses=(ALIGNED, NESTED),
    tolerance=LIMIT_TOLERANCE,
    why_tolerance=WHY_LIMIT,
    checked_with=BY_LIMIT,
    default_trials=9 * COUNT,
    quick_trials=2 * COUNT,
    batch=COUNT,
    rounds=tuple({"depth": depth} for depth in _DEPTHS),
    drops=(
        Drop(
            "balanced paths (the first layer of feature 2 five times larger, the second as much smaller)",
            lambda rng: _two_layers(rng, tilt=5.0),
        ),
        Drop(
            "paths that see one feature each (all connections instead, neurons aligned at the start)",
            lambda rng: _two_layers(rng, connected=True),
        ),
    ),
    figure=draw_deep,
)
def deep_starvation(rng: np.random.Generator, depth: int) -> Trials:
    """Paths of two, three and five layers: both bounds, the curve of the exponential loss, and the ceiling of N >= 3."""
    weights, losses, start = pair_weights(rng), chosen(rng, _SMOOTH), small_starts(rng, depth)
    problems = paths(depth, weights, losses, start)
    time = _escape(weights, start, depth) * log_uniform(rng, 0.2, 3, COUNT)
    logits = problems.limit(time)
    exponential = losses == "exponential"
    gaps = outside(problems, logits, exponential | (losses == "cross-entropy"), depth, start)
    v1, v2 = split(logits)
    pair = theory.starving_pair(weights[:, 0], weights[:, 1], "hinge", depth=depth, init=(start[:, 0], start[:, 1]))
    gaps = np.maximum(gaps, np.max(v2, axis=-1) / np.asarray(pair.ceiling) - 1)
    gaps = np.maximum(gaps, _off_the_limit(np.asarray(pair.ceiling), problems.ratio, start, depth))
    numbers = problems.recorded({"times": FRACTIONS * time[:, None], "trained": logits})
    values = np.stack([start[:, 0], start[:, 1], v1[:, -1], v2[:, -1]], axis=-1)
    extra = {"depths": np.full(COUNT, depth), "ratio": problems.ratio, "values": values}
    return Trials(gaps, numbers, group=f"N = {depth}", extra=extra)


# --- neurons that see both features (10.7) ---------------------------------------------------------------------------------

_STEPS = 8
_LATE = np.array([1.0, 1e2, 1e4, 1e8, 1e12])


def _shared(rng: np.random.Generator, losses: np.ndarray, negative: float = 0.0, along: tuple[float, float] = (-0.3, 1.0)):
    """Two-layer networks in random frames whose neurons are active on every sample: (problems, components [b, h, k], axes).

    A share `negative` of the read-outs is below 0; the component along feature 2 is `along` times that along feature 1.
    """
    scale = log_uniform(rng, 0.03, 0.7, (COUNT, 1))
    parts = np.abs(rng.normal(size=(COUNT, WIDTH, KINDS))) * scale[..., None]
    parts[..., 1] = parts[..., 0] * rng.uniform(*along, (COUNT, WIDTH))
    z = np.abs(rng.normal(size=(COUNT, WIDTH))) * scale * np.where(rng.uniform(size=(COUNT, WIDTH)) < negative, -1, 1)
    axes = frames(rng)
    network = TwoLayerReLU(np.einsum("bhk,bkd->bhd", parts, axes), z)
    return Problems(np.einsum("sk,bkd->bsd", PAIR, axes), pair_weights(rng), losses, network), parts, axes


def _slopes(problems: Problems, step_size: np.ndarray, axes: np.ndarray) -> dict[str, np.ndarray]:
    """Single steps of descent: increments of alpha_j and beta_j [b, steps, h], logits before them, and activities."""
    logits, networks = problems.descent(step_size, _STEPS, 1)
    along = np.einsum("bthd,bkd->bthk", np.asarray(networks.w), axes)
    seen = np.einsum("bthd,bsd->bths", np.asarray(networks.w), problems.points) > 0
    moved = np.diff(along, axis=1)
    v1, v2 = split(logits[:, :-1])
    size = np.linalg.norm(along[:, :-1], axis=-1)
    return {"alpha": moved[..., 0], "beta": moved[..., 1], "v1": v1, "v2": v2, "seen": seen[:, :-1], "size": size}


def _slope_gaps(problems: Problems, steps: dict[str, np.ndarray], bound: bool = False) -> np.ndarray:
    """The distance of the increments from (10.7), or above its bound, over the increment of alpha_j; NaN where a neuron
    hardly moves or has left a sample."""
    p, both = problems.weights[:, 0, None], problems.weights[:, 1, None]
    # The increment of a neuron that hardly moves is rounding; the law does not hold for a neuron that has left a sample.
    moved = np.abs(steps["alpha"]) > 1e-6 * steps["size"]
    slope = steps["beta"] / np.where(moved, steps["alpha"], 1)
    share = np.asarray(theory.shared_slope(p, both, "hinge"))[..., None]
    if bound:
        return np.where(moved, slope - share, np.nan)
    law = np.full_like(steps["v1"], np.nan)
    for loss in np.unique(problems.losses):
        slopes = np.asarray(theory.shared_slope(p, both, str(loss), frequent=steps["v1"], rare=steps["v2"]))
        law = np.where((problems.losses == loss)[:, None], slopes, law)
    off = np.abs(slope - law[..., None])
    helps = np.where(steps["v2"] >= 0, 1, -1)[..., None]
    off = np.maximum(off, helps * (slope - share))
    return np.where(moved & steps["seen"][..., :2].all(-1), off, np.nan)


def _first_step(problems: Problems, axes: np.ndarray) -> Trials:
    """The slope of every neuron in the first step, against its upper bound by the law while v_2 >= 0."""
    steps = _slopes(problems, np.full(COUNT, 0.1), axes)
    gaps = _slope_gaps(problems, steps, bound=True)[:, 0]
    share = (problems.weights[:, 1] / problems.weights[:, :2].sum(-1))[:, None]
    defined = np.isfinite(gaps)
    slope = np.where(defined, steps["beta"][:, 0] / np.where(defined, steps["alpha"][:, 0], 1), -np.inf)
    texts: dict[str, Any] = {"quantity": lambda i, j: f"the slope d(beta)/d(alpha) of neuron {j}"}
    texts["when"] = lambda i, j: f"in the first step, with v_2 = {steps['v2'][i, 0]:.3g},"
    texts["rest"] = "by the law it is that at most, p_12/(p_1 + p_12)"
    return compared(slope, share, 1.0, problems.recorded({}, step_size=0.1), judge=np.positive, axes=("neuron",), **texts)


def _negative_rare(rng: np.random.Generator) -> Trials:
    """Neurons whose v_2 is below 0."""
    problems, _, axes = _shared(rng, np.full(COUNT, "cross-entropy"), along=(-0.9, -0.5))
    return _first_step(problems, axes)


def _one_sees_both(rng: np.random.Generator) -> Trials:
    """Neuron 0 is active on feature 1 only together with feature 2."""
    problems, parts, axes = _shared(rng, np.full(COUNT, "cross-entropy"), along=(1.5, 2.0))
    parts[:, 0, 0] *= -1
    network = TwoLayerReLU(np.einsum("bhk,bkd->bhd", parts, axes), problems.network.z)
    return _first_step(replace(problems, network=network), axes)


def draw_shared(outcome: Outcome, ax: Any) -> None:
    """The slope of every neuron at every step in units of its bound, against v_2."""
    v2, ratio = outcome.extra["steps"].T
    ax.plot(v2, ratio, ".", color=COLOURS[0], markersize=2, label="trained, every neuron and step")
    ax.axhline(1, color="black", linewidth=1.2, linestyle="--", label="p₁₂ / (p₁ + p₁₂)")
    ax.set_xscale("symlog", linthresh=0.1)
    ax.set_xlabel("v₂ before the step")
    ax.set_ylabel("(Δβ / Δα) (p₁ + p₁₂) / p₁₂")
    ax.legend(frameon=False, fontsize=8, loc="lower left")


def _one_boost(rng: np.random.Generator) -> Trials:
    """The flow of all neurons by the common boost, to t = 1e12."""
    problems, parts, _ = _shared(rng, np.full(COUNT, "cross-entropy"))
    logits, _, lost = problems.flow(_LATE)
    law = theory.shared_features(PAIR, problems.weights, parts, np.asarray(problems.network.z), "cross-entropy")
    expected = np.asarray(law.features(_LATE)) @ PAIR.T
    gaps = np.max(np.abs(logits - expected).max(-1) / np.abs(expected).max(-1), axis=-1)
    numbers = problems.recorded({"trained": logits, "law": expected}, times=_LATE)
    return Trials(gaps, numbers, lost, "one boost for all neurons: flow to t = 1e12")


@register(
    name="shared-neurons",
    equation="10.7",
    title="Neurons that see both features turn to the frequent one",
    meaning="A neuron that sees both features turns to the frequent one, whatever its own weights say.",
    claim="d(beta_j)/d(alpha_j) = p_12 g(v_1 + v_2)/[p_1 g(v_1) + p_12 g(v_1 + v_2)] for every neuron, whatever z_j; at "
    "most p_12/(p_1 + p_12) exactly while v_2 >= 0; one Lorentz boost moves all neurons",
    formula=(
        r"\begin{split} \frac{d\beta_j}{d\alpha_j} &= \frac{p_{12}\, g(v_1 + v_2)}{p_1\, g(v_1) + p_{12}\, g(v_1 + v_2)} "
        r"\;\le\; \frac{p_{12}}{p_1 + p_{12}} \quad \text{iff } v_2 \ge 0, \\ "
        r"(\alpha_j, \beta_j, z_j)(t) &= \Lambda(t)\, (\alpha_j, \beta_j, z_j)(0) \quad "
        r"\text{with one boost } \Lambda \text{ for all } j, \\ "
        r"\alpha_j &= w_j \cdot e_1, \qquad \beta_j = w_j \cdot e_2 \end{split}"
    ),
    hypotheses=(SEEN_BY_ALL, NESTED, "the bound: v_2 >= 0"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW + "; single steps agree up to the rounding of an increment, 1e-10",
    checked_with=f"simulate: single steps of descent; {BY_FLOW_EACH}, to t = 1e12",
    default_trials=8 * COUNT,
    quick_trials=2 * COUNT,
    losses=("cross-entropy", "exponential"),
    dynamics=("flow", "descent"),
    batch=COUNT,
    rounds=({"by_descent": True}, {"by_descent": False}),
    drops=(
        Drop("v_2 >= 0, for the bound", _negative_rare),
        Drop("neurons active on every sample with feature 1 (one sees only those with both instead)", _one_sees_both),
    ),
    figure=draw_shared,
)
def shared_neurons(rng: np.random.Generator, by_descent: bool) -> Trials:
    """Random networks: every single step of descent, read-outs of either sign; and the flow against the common boost."""
    if not by_descent:
        return _one_boost(rng)
    problems, _, axes = _shared(rng, chosen(rng, ("cross-entropy", "exponential")), negative=0.4)
    step_size = log_uniform(rng, 0.03, 3, COUNT)
    steps = _slopes(problems, step_size, axes)
    gaps = _slope_gaps(problems, steps)
    defined = np.isfinite(gaps)
    ratio = steps["beta"] / np.where(defined, steps["alpha"], 1) * (1 + problems.ratio[:, None, None])
    shown = np.stack([np.broadcast_to(steps["v2"][..., None], defined.shape)[defined], ratio[defined]], axis=-1)
    return Trials(
        np.nanmax(np.where(np.isnan(gaps), 0, gaps), axis=(1, 2)),
        problems.recorded({"step_size": step_size}, steps=_STEPS),
        np.isnan(gaps).all(axis=(1, 2)),
        "slope of every neuron, single steps of descent",
        extra={"steps": shown},
    )
