"""Starvation in deeper networks: balanced paths of two layers and more (10.5), and neurons that see both features (10.7)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._running import FLOW_TOLERANCE, WHY_FLOW
from gradstarve.theorems._sampling import WIDTH, generator, generators, log_uniform
from gradstarve.theorems.laws.feature_problems import (
    ALIGNED,
    BY_FLOW_EACH,
    BY_LIMIT,
    COUNT,
    FRACTIONS,
    KINDS,
    LIMIT_TOLERANCE,
    NESTED,
    PAIR,
    SEEN_BY_ALL,
    WHY_LIMIT,
    Problems,
    chosen,
    frames,
    pair_weights,
    paths,
    small_starts,
    split,
)
from gradstarve.theorems.laws.starvation import above_its_bound, climb, outside

_DEPTHS = (2, 3, 5)
_SMOOTH = ("cross-entropy", "cross-entropy", "exponential", "squared")


def _escape(weights: np.ndarray, start: np.ndarray, depth: int) -> np.ndarray:
    """About how long feature 1 waits near its start, [b]: phi(1) - phi(v_10) at the speed of g = 1/2."""
    return climb(start[:, 0], 1.0, depth) / (depth * weights[:, :2].sum(-1) / 2)


def _off_the_limit(ceiling: np.ndarray, ratio: np.ndarray, start: np.ndarray, depth: int) -> np.ndarray:
    """How far the ceiling of v_2 is from what its upper bound tends to as v_1 -> inf, in plain NumPy, [b]."""
    power = 1 - 2 / depth
    left = start[:, 1] ** -power - start[:, 0] ** -power / (1 + ratio) if depth > 2 else np.zeros(len(ratio))
    finite = left > 0
    limit = np.where(finite, left, 1) ** (-1 / power if depth > 2 else 1)
    off = np.where(finite, np.abs(np.where(finite, ceiling, limit) / limit - 1), 0)
    return np.where(finite == np.isfinite(ceiling), off, np.inf)


def check_deep(key: Any, trials: int) -> Outcome:
    """Paths of two, three and five layers: both bounds, the curve of the exponential loss, and the ceiling of N >= 3."""
    tally = Tally(LIMIT_TOLERANCE)
    shown = []
    for k, rng in enumerate(generators(key, trials, COUNT)):
        depth = _DEPTHS[k % len(_DEPTHS)]
        weights, losses, start = pair_weights(rng), chosen(rng, _SMOOTH), small_starts(rng, depth)
        problems = paths(depth, weights, losses, start)
        time = _escape(weights, start, depth) * log_uniform(rng, 0.2, 3, COUNT)
        logits = problems.limit(time)
        exponential = losses == "exponential"
        gaps = outside(problems, logits, exponential | (losses == "cross-entropy"), depth, start)
        v1, v2 = split(logits)
        pair = theory.starving_pair(weights[:, 0], weights[:, 1], "hinge", depth, (start[:, 0], start[:, 1]))
        gaps = np.maximum(gaps, np.max(v2, axis=-1) / np.asarray(pair.ceiling) - 1)
        gaps = np.maximum(gaps, _off_the_limit(np.asarray(pair.ceiling), problems.ratio, start, depth))
        tally.add(
            gaps,
            f"N = {depth}",
            lambda i, g=problems, t=time, f=logits: g.instance(i, times=FRACTIONS * t[i], trained=f[i]),
        )
        shown.append((np.full(COUNT, depth), problems.ratio, start[:, 0], start[:, 1], v1[:, -1], v2[:, -1]))
    depths, ratio, *values = (np.concatenate(part) for part in zip(*shown, strict=True))
    return tally.outcome(depths=depths, ratio=ratio, values=np.stack(values))


def deep_without(key: Any, what: str) -> Counterexample:
    """Drop one of: balanced paths, paths that see one feature each."""
    rng = generator(key)
    weights, losses, start = pair_weights(rng, 0.3, 3.0), np.full(COUNT, "cross-entropy"), small_starts(rng)
    problems = paths(2, weights, losses, start, tilt=5.0 if what == "balanced" else 1.0)
    if what == "aligned":
        layer = np.sqrt(start)
        network = TwoLayerReLU(layer[..., None] * np.eye(KINDS), layer)
        problems = Problems(problems.points, weights, losses, network)
    time = _escape(weights, start, 2)
    logits = problems.limit(time)
    names = {
        "balanced": "balanced paths (the first layer of feature 2 five times larger, the second as much smaller)",
        "aligned": "paths that see one feature each (all connections instead, neurons aligned at the start)",
    }
    return above_its_bound(names[what], problems, logits, 2, start, LIMIT_TOLERANCE, FRACTIONS * time[:, None])


def draw_deep(outcome: Outcome, ax: Any) -> None:
    """How far feature 2 has come against how far the bound lets it, in phi: all below the diagonal."""
    first, second, v1, v2 = outcome.extra["values"]
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


# --- neurons that see both features (10.7) ---------------------------------------------------------------------------------

_STEPS = 8
_LATE = np.array([1.0, 1e2, 1e4, 1e8, 1e12])


def _shared(rng: np.random.Generator, losses: np.ndarray, negative: float = 0.0, along: tuple[float, float] = (-0.3, 1.0)):
    """Two-layer networks in random frames whose neurons see every sample: (problems, components [b, h, k], axes).

    A part `negative` of the read-outs is below 0; the component along feature 2 is `along` times that along feature 1.
    """
    scale = log_uniform(rng, 0.03, 0.7, (COUNT, 1))
    parts = np.abs(rng.normal(size=(COUNT, WIDTH, KINDS))) * scale[..., None]
    parts[..., 1] = parts[..., 0] * rng.uniform(*along, (COUNT, WIDTH))
    z = np.abs(rng.normal(size=(COUNT, WIDTH))) * scale * np.where(rng.uniform(size=(COUNT, WIDTH)) < negative, -1, 1)
    axes = frames(rng)
    network = TwoLayerReLU(np.einsum("bhk,bkd->bhd", parts, axes), z)
    return Problems(np.einsum("sk,bkd->bsd", PAIR, axes), pair_weights(rng), losses, network), parts, axes


def _slopes(problems: Problems, step_size: np.ndarray, axes: np.ndarray) -> dict[str, np.ndarray]:
    """Single steps of descent: increments of alpha_j and beta_j [b, steps, h], logits before them, and who saw what."""
    logits, networks = problems.descent(step_size, _STEPS, 1)
    along = np.einsum("bthd,bkd->bthk", np.asarray(networks.w), axes)
    seen = np.einsum("bthd,bsd->bths", np.asarray(networks.w), problems.points) > 0
    moved = np.diff(along, axis=1)
    v1, v2 = split(logits[:, :-1])
    size = np.linalg.norm(along[:, :-1], axis=-1)
    return {"alpha": moved[..., 0], "beta": moved[..., 1], "v1": v1, "v2": v2, "seen": seen[:, :-1], "size": size}


def _slope_gaps(problems: Problems, steps: dict[str, np.ndarray], bound: bool = False) -> np.ndarray:
    """How far the increments are from (10.7) (or above its bound), over that of alpha_j; NaN where a step says nothing."""
    p, both = problems.weights[:, 0, None], problems.weights[:, 1, None]
    # A neuron that hardly moves has an increment of rounding, and one that has left a sample is no longer meant.
    told = np.abs(steps["alpha"]) > 1e-6 * steps["size"]
    slope = steps["beta"] / np.where(told, steps["alpha"], 1)
    share = np.asarray(theory.shared_slope(p, both, "hinge"))[..., None]
    if bound:
        return np.where(told, slope - share, np.nan)
    law = np.full_like(steps["v1"], np.nan)
    for loss in np.unique(problems.losses):
        slopes = np.asarray(theory.shared_slope(p, both, str(loss), steps["v1"], steps["v2"]))
        law = np.where((problems.losses == loss)[:, None], slopes, law)
    off = np.abs(slope - law[..., None])
    helps = np.where(steps["v2"] >= 0, 1, -1)[..., None]
    off = np.maximum(off, helps * (slope - share))
    return np.where(told & steps["seen"][..., :2].all(-1), off, np.nan)


def check_shared(key: Any, trials: int) -> Outcome:
    """Random networks: every single step of descent, read-outs of either sign; and the flow against the common boost."""
    tally = Tally(FLOW_TOLERANCE)
    shown = []
    for k, rng in enumerate(generators(key, trials, COUNT)):
        if k % 2 == 0:
            problems, _, axes = _shared(rng, chosen(rng, ("cross-entropy", "exponential")), negative=0.4)
            step_size = log_uniform(rng, 0.03, 3, COUNT)
            steps = _slopes(problems, step_size, axes)
            gaps = _slope_gaps(problems, steps)
            tally.add(
                np.nanmax(np.where(np.isnan(gaps), 0, gaps), axis=(1, 2)),
                "slope of every neuron, single steps of descent",
                lambda i, g=problems, e=step_size: g.instance(i, step_size=e[i], steps=_STEPS),
                np.isnan(gaps).all(axis=(1, 2)),
            )
            told = np.isfinite(gaps)
            ratio = steps["beta"] / np.where(told, steps["alpha"], 1) * (1 + problems.ratio[:, None, None])
            shown.append(np.stack([np.broadcast_to(steps["v2"][..., None], told.shape)[told], ratio[told]]))
            continue
        problems, parts, _ = _shared(rng, np.full(COUNT, "cross-entropy"))
        logits, _, lost = problems.flow(_LATE)
        z = np.asarray(problems.network.z)
        law = theory.shared_features(PAIR, problems.weights, "cross-entropy", parts, z)
        expected = np.asarray(law.features(_LATE)) @ PAIR.T
        gaps = np.max(np.abs(logits - expected).max(-1) / np.abs(expected).max(-1), axis=-1)
        tally.add(
            gaps,
            "one boost for all neurons: flow to t = 1e12",
            lambda i, g=problems, f=logits, w=expected: g.instance(i, times=_LATE, trained=f[i], law=w[i]),
            lost,
        )
    return tally.outcome(steps=np.concatenate(shown, axis=-1))


def shared_without(key: Any, what: str) -> Counterexample:
    """Drop one of: v_2 >= 0 (for the bound), neurons that are active on both kinds of samples."""
    rng = generator(key)
    losses = np.full(COUNT, "cross-entropy")
    if what == "sign":
        problems, parts, axes = _shared(rng, losses, along=(-0.9, -0.5))
    else:
        problems, parts, axes = _shared(rng, losses, along=(1.5, 2.0))
        parts[:, 0, 0] *= -1  # neuron 0 sees feature 1 only where feature 2 outweighs it
        network = TwoLayerReLU(np.einsum("bhk,bkd->bhd", parts, axes), problems.network.z)
        problems = Problems(problems.points, problems.weights, losses, network)
    steps = _slopes(problems, np.full(COUNT, 0.1), axes)
    gaps = _slope_gaps(problems, steps, bound=True)[:, 0]
    i, j = np.unravel_index(np.nanargmax(gaps), gaps.shape)
    slope, share = steps["beta"][i, 0, j] / steps["alpha"][i, 0, j], problems.weights[i, 1] / problems.weights[i, :2].sum()
    names = {
        "sign": "v_2 >= 0, for the bound",
        "active": "neurons active on every sample with feature 1 (one sees only those with both instead)",
    }
    when = f"in the first step, with v_2 = {steps['v2'][i, 0]:.3g},"
    return Counterexample.of(
        names[what],
        Quote(f"the slope d(beta)/d(alpha) of neuron {j}", when, law=share, trained=slope),
        FLOW_TOLERANCE,
        problems.instance(int(i), neuron=int(j), step_size=0.1),
        rest="by the law it is that at most, p_12/(p_1 + p_12)",
    )


def draw_shared(outcome: Outcome, ax: Any) -> None:
    """The slope of every neuron at every step in units of its bound, against v_2."""
    v2, ratio = outcome.extra["steps"]
    ax.plot(v2, ratio, ".", color=COLOURS[0], markersize=2, label="trained, every neuron and step")
    ax.axhline(1, color="black", linewidth=1.2, linestyle="--", label="p₁₂ / (p₁ + p₁₂)")
    ax.set_xscale("symlog", linthresh=0.1)
    ax.set_xlabel("v₂ before the step")
    ax.set_ylabel("(Δβ / Δα) (p₁ + p₁₂) / p₁₂")
    ax.legend(frameon=False, fontsize=8, loc="lower left")


DEEP = Theorem(
    name="deep-starvation",
    equation="10.5",
    title="Depth makes starvation worse",
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
    check=check_deep,
    necessity=tuple(lambda key, what=what: deep_without(key, what) for what in ("balanced", "aligned")),
    figure=draw_deep,
)

SHARED = Theorem(
    name="shared-neurons",
    equation="10.7",
    title="Neurons that see both features turn to the frequent one",
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
    check=check_shared,
    necessity=tuple(lambda key, what=what: shared_without(key, what) for what in ("sign", "active")),
    figure=draw_shared,
)
