"""Fates on orthogonal classes: who learns (4.1), and how often (4.2)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import EVERLASTING, EXCLUSIVE, ORTHOGONAL
from gradstarve.theorems._running import train_descent
from gradstarve.theorems._sampling import generator, generators, log_uniform, record

A_NEURON = 1.0  # what counts as agreement of a number of neurons, drawn by `gaussian_pairs`, with that of a law
STEPS = 400
PLANE = 2  # dimension of the small problems: training commutes with going to the span of the data
MOST = 3  # largest width of the small problems
CROWD = 512  # networks in a batch of (4.1) and (4.3)
RATIOS = (1.0, 0.1, 0.3, 2.0, 5.0, 20.0)
BY_DESCENT = "simulate: gradient descent on all weights by automatic differentiation"


def two_points(rng: np.random.Generator, cosine: float) -> tuple[Dataset, np.ndarray, float]:
    """Two points at that angle in a random frame of the plane, their unit vectors, and a step size for them.

    step_size p r is 0.5 for the faster class and at least a tenth of that for the other, so that the signs of
    a_j + z_j are kept in discrete time too and 400 steps decide nearly every neuron.
    """
    turn = np.linalg.qr(rng.normal(size=(PLANE, PLANE)))[0]
    axes = np.array([[1.0, 0.0], [cosine, np.sqrt(1 - cosine**2)]]) @ turn
    if cosine == -1:
        axes[1] = -axes[0]
    norms = log_uniform(rng, 0.2, 5) * log_uniform(rng, 0.6, 1.7, 2)
    p = rng.uniform(0.25, 0.75)
    data = Dataset(norms[:, None] * axes, [1.0, -1.0], [p, 1 - p])
    return data, axes, 0.5 / float(np.max(norms * [p, 1 - p]))


def check_fates(key: Any, trials: int) -> Outcome:
    """Orthogonal classes; the final weights of every neuron, of descent and of the flow. One trial is one neuron."""
    tally = Tally(0.5)
    seen: list[np.ndarray] = []
    for k, rng in enumerate(generators(key, trials, CROWD)):
        loss = ("cross-entropy", "exponential")[k % 2]
        data, axes, step_size = two_points(rng, 0.0)
        scale = log_uniform(rng, 1e-5, 1e-2, (CROWD, 1))
        a = scale * np.abs(rng.normal(size=(CROWD, MOST)))
        zeta = scale * rng.normal(size=a.shape) * log_uniform(rng, 0.3, 3, (CROWD, 1))
        # A third right beside the stable manifold, on both of its sides.
        near = rng.uniform(size=a.shape) < 1 / 3
        offset = log_uniform(rng, 1e-3, 1e-1, a.shape) * rng.choice([-1, 1], a.shape)
        zeta = np.where(near, -a * (1 + offset), zeta)
        home = rng.choice([1, -1], a.shape)
        own = np.where(home[..., None] > 0, axes[0], axes[1])
        other = np.where(home[..., None] > 0, axes[1], axes[0])
        w = a[..., None] * own - (np.abs(rng.normal(size=a.shape)) * a)[..., None] * other
        network = TwoLayerReLU(w, home * zeta)
        run = train_descent(data, network, loss, step_size, STEPS, STEPS)
        now = np.sum(np.asarray(run.final.w) * own, axis=-1)
        learnt, left = (now > 0) & (home * np.asarray(run.final.z) > 0), now <= 0
        expected = np.asarray(theory.exclusive_fate(a, zeta))
        wrong = np.where(learnt, expected != 1, expected != 0).reshape(-1)

        def instance(i, d=data, s=loss, n=network, e=step_size, x=expected, y=learnt):
            network_index, neuron = np.unravel_index(i, x.shape)
            law, found = float(x[network_index, neuron]), float(y[network_index, neuron])
            return record(d, s, n, int(network_index), neuron=int(neuron), step_size=e, steps=STEPS, learns=found, law=law)

        tally.add(wrong, loss, instance, (~learnt & ~left).reshape(-1))
        verdict = np.where(learnt, 1.0, np.where(left, 0.0, 0.5))
        seen.append(np.stack([a / scale, zeta / scale, verdict], axis=-1).reshape(-1, 3))
    return tally.outcome(points=np.concatenate(seen))


def fates_without_exclusiveness(key: Any) -> Counterexample:
    """Drop "exclusive": neurons active on both of two orthogonal classes, taken for neurons of class +."""
    rng = generator(key)
    data, axes, step_size = two_points(rng, 0.0)
    a = 1e-3 * np.abs(rng.normal(size=(CROWD, MOST)))
    both = 1e-3 * np.abs(rng.normal(size=a.shape))
    z = 1e-3 * rng.normal(size=a.shape)
    network = TwoLayerReLU(a[..., None] * axes[0] + both[..., None] * axes[1], z)
    run = train_descent(data, network, "cross-entropy", step_size, STEPS, STEPS)
    now = np.asarray(run.final.w) @ axes[0]
    fails = (now <= 0) & (np.asarray(theory.exclusive_fate(a, z)) == 1)
    i, j = (int(v) for v in np.argwhere(fails)[0]) if fails.any() else (0, 0)
    what = (
        f"the fate (1: learns class +) of a neuron with w.x_+/|x_+| = {a[i, j]:.3g}, w.x_-/|x_-| = {both[i, j]:.3g}, "
        f"z = {z[i, j]:.3g}"
    )
    return Counterexample.of(
        "exclusive neurons (active on both orthogonal classes instead)",
        Quote(what, f"after {STEPS} steps", theory.exclusive_fate(a, z)[i, j], float(now[i, j] > 0)),
        0.5,
        record(data, "cross-entropy", network, i, neuron=j, step_size=step_size, steps=STEPS),
        rest=f"so do {int(fails.sum())} of {fails.size} neurons",
    )


def gaussian_pairs(rng: np.random.Generator, count: int, low: float = -np.pi / 2, high: float = np.pi / 2) -> Any:
    """`count` pairs (a, z) of independent standard normal numbers with arctan2(z, a) from `low` to `high`: [count] each.

    Box and Muller's way, their angle being uniform and independent of their length, with one angle in each of `count`
    equal parts of the range. So what a pair does, if it does it up to some angle and not beyond, is done by the number of
    pairs that probability says, to less than 1, whatever the draw: there is no sampling error of order 1/sqrt(count).
    """
    angle = low + (high - low) * (rng.permutation(count) + rng.uniform(size=count)) / count
    length = np.sqrt(-2 * np.log1p(-rng.uniform(size=count)))
    return length * np.cos(angle), length * np.sin(angle)


def _learning_rate(rng: np.random.Generator, count: int, ratio: float, fixed: bool = False) -> tuple[int, int]:
    """(learnt, decided) of `count` networks of one exclusive neuron with sigma_a / sigma_z = ratio, trained.

    The weights are Gaussian, given that the neuron sees class + and not class -: along orthogonal axes the two
    conditions are on independent symmetric coordinates, a > 0 and the other one turned below 0.
    """
    data, axes, step_size = two_points(rng, 0.0)
    # The smaller of the two scales is 1e-3 at the most, so that no logit slows the clock before the neuron decides.
    scale_z = 1e-3 / max(ratio, 1.0)
    a, z = gaussian_pairs(rng, count)
    coordinates = np.stack([a, -np.abs(rng.normal(size=count))], axis=-1) * scale_z * ratio
    z = scale_z * (np.sign(z) if fixed else z)
    network = TwoLayerReLU((coordinates @ axes)[:, None], z[:, None])
    run = train_descent(data, network, "cross-entropy", step_size, STEPS, STEPS)
    now = np.asarray(run.final.w)[:, 0] @ axes[0]
    learnt, died = (now > 0) & (np.asarray(run.final.z)[:, 0] > 0), now <= 0
    return int(learnt.sum()), int((learnt | died).sum())


def miscount(count: int, decided: int, total: int, probability: float) -> float:
    """By how many neurons a count is off the law, at the least: those that are not decided yet may have gone either way."""
    expected = probability * total
    return float(max(count - expected, expected - count - (total - decided), 0))


def check_probability(key: Any, trials: int) -> Outcome:
    """The frequency of learning for six ratios of scales, each from `trials`/6 trained networks."""
    tally = Tally(A_NEURON)
    count = -(-trials // len(RATIOS))
    rates, expected = [], []
    for k, ratio in enumerate(RATIOS):
        learnt, decided = _learning_rate(generators(key, k + 1, 1)[k], count, ratio)
        probability = float(theory.learning_probability(ratio, 1.0))
        rates.append(learnt / decided)
        expected.append(probability)
        sides = {"ratio": ratio, "learnt": learnt, "decided": decided, "networks": count, "law": probability}
        tally.add([miscount(learnt, decided, count, probability)], f"ratio {ratio:g}", lambda i, s=sides: s)
    # Two neurons off is more than the tolerance, wherever in its part of the range an angle was drawn.
    return tally.outcome(
        rates=np.array(rates),
        expected=np.array(expected),
        each=count,
        relative_error_of_the_law_detected=float(2 / 0.75 / count),
        relative_error_of_the_arctangent_detected=float(2 / 0.25 / count),
    )


def probability_without_gaussian(key: Any) -> Counterexample:
    """Drop "Gaussian z": the same standard deviation, but z = ±sigma_z."""
    count = 4000
    learnt, decided = _learning_rate(generator(key), count, 1.0, fixed=True)
    probability = float(theory.learning_probability(1.0, 1.0))
    return Counterexample.of(
        "Gaussian read-outs (z = ±sigma_z instead)",
        Quote(f"the number of {decided} neurons that learn", f"after {STEPS} steps", probability * decided, learnt),
        A_NEURON,
        {"learnt": learnt, "decided": decided, "probability": probability},
    )


def draw_plane(outcome: Outcome, ax: Any) -> None:
    """The (a, z) plane: what training made of every neuron, and the line z = -a."""
    points = outcome.extra["points"]
    points = points[(points[:, 0] < 3) & (np.abs(points[:, 1]) < 3)][:3000]
    for value, name, colour in ((1.0, "learns", COLOURS[0]), (0.0, "leaves", COLOURS[1]), (0.5, "undecided", "0.6")):
        mine = points[:, 2] == value
        if mine.any():
            ax.scatter(*points[mine, :2].T, s=5, color=colour, linewidths=0, label=f"{name} (trained)")
    ax.plot([0, 3], [0, -3], color="black", linestyle="--", linewidth=1.2, label="law: z = −a")
    ax.set_xlim(0, 3)
    ax.set_ylim(-3, 3)
    ax.set_xlabel("a / scale of the network")
    ax.set_ylabel("z / scale, in the orientation of the class")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3, markerscale=2)


def draw_probability(outcome: Outcome, ax: Any) -> None:
    """The law as a curve over the ratio of scales, and the trained frequencies."""
    grid = np.geomspace(0.05, 40, 80)
    ax.plot(grid, [float(theory.learning_probability(float(x), 1.0)) for x in grid], color="black", label="law (4.2)")
    rates, count = outcome.extra["rates"], outcome.extra["each"]
    ax.plot(RATIOS, rates, "o", color=COLOURS[0], markersize=4, label=f"trained, {count} networks each")
    ax.set_xscale("log")
    ax.set_xlabel("σ_a / σ_z, ratio of the initial scales")
    ax.set_ylabel("probability that a neuron learns")
    ax.legend(frameon=False, fontsize=8, loc="lower right")


FATES = Theorem(
    name="fates",
    equation="4.1",
    title="A neuron learns iff z > −a",
    claim="an exclusive neuron ends up learning its class iff z > -a at the start, and leaves the class otherwise",
    formula=(
        r"\begin{split} z_j(0) > {-a_j(0)}: \quad &\text{neuron } j \text{ learns its class}, \\ "
        r"z_j(0) < {-a_j(0)}: \quad &\text{it leaves the class: } a_j = 0 \text{ after a finite time} \end{split}"
    ),
    hypotheses=(ORTHOGONAL, EXCLUSIVE, EVERLASTING),
    tolerance=0.5,
    why_tolerance="yes or no: 0 agrees, 1 contradicts; a third of the neurons start within 0.1 % to 10 % of the line",
    checked_with=BY_DESCENT,
    default_trials=4 * CROWD,
    quick_trials=CROWD,
    check=check_fates,
    necessity=(fates_without_exclusiveness,),
    figure=draw_plane,
)

PROBABILITY = Theorem(
    name="learning-probability",
    equation="4.2",
    title="Three neurons in four learn",
    claim="a Gaussian exclusive neuron learns with probability 1/2 + arctan(sigma_a / sigma_z)/pi",
    formula=(
        r"\text{P}(\text{neuron } j \text{ learns}) = \frac{1}{2} + \frac{1}{\pi}\, \arctan \left( "
        r"\frac{\sigma_a}{\sigma_z} \right), \qquad \frac{3}{4} \quad \text{if } \sigma_a = \sigma_z"
    ),
    hypotheses=(ORTHOGONAL, EXCLUSIVE, "w and z independent and Gaussian, centred"),
    tolerance=A_NEURON,
    why_tolerance=(
        "in neurons: with Gaussian weights drawn by one angle in each of as many equal parts, the number that learns is "
        "that of the law to less than one; neurons that no training has decided yet may go either way"
    ),
    power=(
        "no level: a true law never fails; one that is 2 neurons off always does: with the default trials a law wrong by "
        "0.04 %, or an arctangent wrong by 0.1 % at equal scales and by 0.8 % at the ratio 0.1; with quick ones twice that"
    ),
    checked_with=BY_DESCENT,
    default_trials=6 * 8000,
    quick_trials=6 * 4000,
    check=check_probability,
    necessity=(probability_without_gaussian,),
    figure=draw_probability,
)
