"""A bias, as one more coordinate (23.1): one class stays a mode, antipodal classes open an angle, and neurons die."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, GradientDescent, Mode, TwoLayerReLU
from gradstarve.theorems._entry import COLOURS, ONE_RAY, SEPARABLE, Outcome
from gradstarve.theorems._formulas import steepest
from gradstarve.theorems._register import Drop, Trials, compared, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    DIM,
    FLOW_TOLERANCE,
    PER_CLASS,
    ExclusiveInit,
    Geometry,
    exclusive_start,
    log_uniform,
    record,
    train_descent,
)
from gradstarve.theorems.laws.waking import followed_to_the_end, leavers

_STEPS = 400
_NEURONS = 1024  # the neurons of a measured share
_CLOSE = 0.01  # the tolerance of a share of this number of neurons, spread evenly over the sphere
_OPENINGS = np.array([0.05, 0.2, 0.4, 0.6, 0.8, 0.94])  # beta^2 / (r_+ r_-) of the shares


def biased_norm(norm: Any, feature: Any) -> Any:
    """The distance of a class from the origin, sqrt(r^2 + beta^2)."""
    return np.hypot(norm, feature)


def _biased(rng: np.random.Generator, opening: float, one: bool = False) -> tuple[Geometry, np.ndarray, float]:
    """Antipodal classes (or `one` class) with a bias of beta^2 = `opening` r_+ r_-; their norms without it; and beta."""
    frame = np.linalg.qr(rng.normal(size=(DIM - 1, 1)))[0][:, 0]
    norms = log_uniform(rng, 0.3, 3) * log_uniform(rng, 0.6, 1.7, 2)
    p = rng.uniform(0.3, 0.7)
    frequencies = np.array([p, 1 - p])
    feature = float(rng.choice([-1, 1]) * np.sqrt(opening * norms.prod()))
    shares = rng.dirichlet(np.ones(PER_CLASS), 2) + 1e-3
    weights = (frequencies[:, None] * shares / shares.sum(1, keepdims=True)).reshape(-1)
    points = np.repeat(norms[:, None] * np.array([frame, -frame]), PER_CLASS, axis=0)
    labels = np.repeat([1.0, -1.0], PER_CLASS)
    if one:
        points, labels, weights = points[:PER_CLASS], labels[:PER_CLASS], weights[:PER_CLASS]
        frequencies = np.array([1.0, 0.0])
    data = Dataset(points, labels, weights / weights.sum()).with_bias(feature)
    # The angle is computed from the points, so that the draw does not use the law.
    whole = np.column_stack([norms[:, None] * np.array([frame, -frame]), [feature, feature]])
    lengths = np.linalg.norm(whole, axis=-1)
    return Geometry(data, whole / lengths[:, None], lengths, frequencies), norms, feature


def _away_from_the_other(geometry: Geometry, start: ExclusiveInit, network: TwoLayerReLU) -> TwoLayerReLU:
    """The same coordinates along the neuron's class, and w.xh = -a/10 along the other one, also at an acute angle."""
    w, cosine = np.asarray(network.w), geometry.axes[0] @ geometry.axes[1]
    own = np.where(start.home[..., None] > 0, geometry.axes[0], geometry.axes[1])
    other = np.where(start.home[..., None] > 0, geometry.axes[1], geometry.axes[0])
    size = (np.sum(w * other, axis=-1) + start.a / 10) / (1 - cosine**2)
    return TwoLayerReLU(w - (size * (start.home != 0))[..., None] * (other - cosine * own), network.z)


def _curves(rng: np.random.Generator, loss: str, one: bool, opening: float = 0.0) -> Trials:
    """Logits of exclusive neurons of the right sign (of one class, of any sign) against the modes of the longer norms."""
    opening = opening or rng.uniform(0.05, 1)
    geometry, norms, feature = _biased(rng, opening, one)
    start = exclusive_start(rng, wrong_signs=0.5 if one else 0.0, low=0.05, high=0.5).without_edge_cases()
    if one:
        start = ExclusiveInit(np.abs(start.home), start.a, start.zeta)
    network = start.network(rng, geometry)
    if opening > 1:
        network = _away_from_the_other(geometry, start, network)
    step_size = 0.2 / geometry.rates.max() * np.ones(BATCH)
    if loss == "exponential":
        lowest = -geometry.norms.max() * np.sum(start.a * np.abs(start.zeta), axis=-1)
        step_size = step_size / steepest(loss, lowest)
    run = train_descent(geometry.data, network, loss, step_size, _STEPS, _STEPS // 4)
    grid = np.asarray(run.grid)
    law = []
    for label in (1, -1)[: 1 if one else 2]:
        c = 0 if label > 0 else 1
        a, zeta = start.mode(label)
        mode = Mode(geometry.frequencies[c], biased_norm(norms[c], feature), a, zeta)
        law.append(label * np.asarray(theory.solve_mode(mode, loss, GradientDescent(step_size)).logit(grid)))
    law = np.repeat(np.stack(law, axis=-1), PER_CLASS, axis=-1)
    more = {"feature": feature, "steps": _STEPS}

    def numbers(i: int) -> dict[str, Any]:
        each = {"step_size": step_size[i], "law": law[i], "trained": np.asarray(run.recorded)[i]}
        return record(geometry.data, loss, network, i, **more, **each)

    found = compared(
        run.recorded,
        law,
        np.abs(law) + start.scale(geometry)[:, None, None],
        numbers,
        group=f"{loss}, {'one class' if one else 'two classes'}",
        quantity=lambda i, k, n: f"the logit of point {n}",
        when=lambda i, k, n: f"after {grid[k]} steps",
        setting=f"r_+ = {norms[0]:.4g}, r_- = {norms[1]:.4g}, beta = {feature:.4g}",
    )
    if one:
        return found
    cosine = float(theory.biased_cosine(norms[0], norms[1], feature))
    return found.raised(abs(cosine - geometry.axes[0] @ geometry.axes[1]))


def _fates(rng: np.random.Generator) -> Trials:
    """Neurons of class - with read-outs of the wrong sign, on both sides of the border of (4.4): some join class +, some
    die."""
    geometry, norms, feature = _biased(rng, rng.uniform(0.05, 0.95))
    network, alpha, beta, used = leavers(rng, geometry, float(geometry.axes[0] @ geometry.axes[1]))
    plus, minus, lost = followed_to_the_end(geometry, network)
    cosine = theory.biased_cosine(norms[0], norms[1], feature)
    dead = np.asarray(theory.dies_for_ever(alpha, np.where(used, beta, 1), cosine))
    wrong = used & np.where(dead, plus | minus, ~plus | minus)

    def numbers(i: int) -> dict[str, Any]:
        return record(geometry.data, "cross-entropy", network, i, feature=feature, on_plus=plus[i], dies_by_law=dead[i])

    return Trials(np.where(wrong.any(-1), 1.0, 0.0), numbers, lost, group="who dies")


def _sphere(rng: np.random.Generator) -> np.ndarray:
    """Directions in three dimensions, spread evenly and turned at random: [neurons, 3]."""
    k = np.arange(_NEURONS) + 0.5
    height, angle = 1 - 2 * k / _NEURONS, np.pi * (1 + np.sqrt(5)) * k
    radius = np.sqrt(1 - height**2)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle), height], axis=-1)
    return points @ np.linalg.qr(rng.normal(size=(3, 3)))[0]


def _shares(rng: np.random.Generator, ratio: float) -> Trials:
    """How many neurons die at each of several biases, each a network of its own; one trial is one bias."""
    told, found, problems = [], [], []
    for opening in _OPENINGS:
        geometry, norms, feature = _biased(rng, opening)
        plane = np.linalg.qr(geometry.axes.T)[0].T
        directions = 1e-7 * _sphere(rng)
        network = TwoLayerReLU((ratio * directions[:, None, :2]) @ plane, directions[:, 2:])
        # So small that a neuron leaves its class by less than a share of so many neurons can tell.
        step_size = 0.04 / geometry.rates.max()
        run = train_descent(geometry.data, network, "cross-entropy", step_size, 2000, 2000)
        seen = np.asarray(run.final.w)[:, 0] @ geometry.axes.T
        found.append((seen <= 0).all(-1).mean())
        cosine = theory.biased_cosine(norms[0], norms[1], feature)
        told.append([cosine, theory.death_probability(cosine, ratio, 1.0)])
        problems.append((geometry, network, {"feature": feature, "step_size": step_size, "steps": 2000}))
    cosines, law = np.array(told, float).T
    share = np.array(found)
    off = np.abs(share - law)

    def numbers(i: int) -> dict[str, Any]:
        geometry, network, more = problems[i]
        return record(geometry.data, "cross-entropy", network, 0, **more, share=share[i], share_by_law=law[i])

    extra = {"cosine": cosines, "share": share, "ratio": np.full(share.shape, ratio)}
    return Trials(np.where(off <= _CLOSE, 0.0, off), numbers, group="how many die", extra=extra)


_DRAWS = {"curves": _curves, "fates": _fates, "shares": _shares}
_ROUNDS = (
    {"what": "curves", "loss": "cross-entropy", "one": False},
    {"what": "fates"},
    {"what": "shares", "ratio": 1.0},
    {"what": "curves", "loss": "hinge", "one": True},
    {"what": "curves", "loss": "exponential", "one": False},
    {"what": "shares", "ratio": 0.5},
    {"what": "curves", "loss": "cross-entropy", "one": True},
    {"what": "shares", "ratio": 1.0},
)


def _draw(outcome: Outcome, ax: Any) -> None:
    """The share of Gaussian neurons that die against the angle that a bias makes of antipodal classes."""
    ratios = outcome.extra["ratio"]
    cosines = np.linspace(-1 + 1e-6, 0, 200)
    for k, ratio in enumerate(np.unique(ratios)):
        colour, mine = COLOURS[k], ratios == ratio
        law = np.asarray(theory.death_probability(cosines, ratio, 1.0))
        ax.plot(cosines, law, color=colour, linewidth=1.2, label=f"law, σ_w = {ratio:g} σ_z")
        found = (outcome.extra[name][mine] for name in ("cosine", "share"))
        ax.plot(*found, "o", color=colour, markersize=4, label="trained")
    ax.plot([-1], [0], "x", color="red", markersize=7, label="no bias: antipodal, no neuron dies (4.3)", clip_on=False)
    ax.set_xlim(-1.02, 0.02)
    ax.set_ylim(-0.02, None)
    ax.set_xlabel("cosine of the classes, (β² − r₊ r₋) / √((β² + r₊²)(β² + r₋²))")
    ax.set_ylabel("share of neurons that die")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


@register(
    name="bias",
    equation="23.1",
    title="A bias brings death to antipodal classes",
    meaning="Opposite classes lose no neurons, but a bias tilts them towards each other in the eyes of a neuron, and then"
    " up to three neurons in eight die.",
    claim="with a bias of input feature beta one class is the mode of norm sqrt(r^2 + beta^2); antipodal classes are at "
    "cos = (beta^2 - r_+ r_-)/sqrt((beta^2 + r_+^2)(beta^2 + r_-^2)), orthogonally separable iff r_+ r_- >= beta^2, and of "
    "Gaussian neurons 1/2 + (arcsin cos - arctan(sigma_w/sigma_z))/(2 pi) die there: 3/8 at r_+ = r_- = beta",
    formula=(
        r"\begin{split} r &\to \sqrt{r^2 + \beta^2}, \qquad "
        r"c = \frac{\beta^2 - r_+ r_-}{\sqrt{(\beta^2 + r_+^2)\, (\beta^2 + r_-^2)}}, \\ "
        r"P(\text{dead}) &= \frac{1}{2} + \frac{1}{2 \pi} \left( \arcsin(c) - \arctan \left( "
        r"\frac{\sigma_w}{\sigma_z} \right) \right), \qquad -1 < c \leq 0 \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        "curves: exclusive neurons of the right sign (of one class: any signs)",
        "deaths: cross-entropy, a small start and small steps",
    ),
    tolerance=FLOW_TOLERANCE,
    why_tolerance="curves differ by the rounding of 400 steps, at most 1e-12; a neuron with the wrong fate counts as 1; "
    "shares of 1024 neurons spread evenly over the sphere of directions count where they are more than 0.01 off",
    checked_with="simulate: gradient descent on all weights by automatic differentiation; " + BY_FLOW,
    power="a share that is 10 % off is found at every bias",
    default_trials=BATCH * len(_ROUNDS),
    quick_trials=3 * BATCH,
    single_tolerance=None,
    losses=("cross-entropy", "hinge", "exponential"),
    dynamics=("flow", "descent"),
    rounds=_ROUNDS,
    drops=(
        Drop(
            "orthogonally separable data (beta^2 = 3 r_+ r_- instead)",
            {"what": "curves", "loss": "cross-entropy", "one": False, "opening": 3.0},
        ),
    ),
    figure=_draw,
)
def bias(rng: np.random.Generator, what: str, **how: Any) -> Trials:
    """Antipodal classes and single classes with one more coordinate; one trial is one network, or one share."""
    return _DRAWS[what](rng, **how)
