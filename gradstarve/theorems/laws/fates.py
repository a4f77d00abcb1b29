"""Fates on orthogonal classes: which neurons learn (4.1), and how often (4.2).

Also here: antipodal classes (4.3), and how often a sign is wrong (5.4).
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._entry import ANTIPODAL as ANTIPODAL_CLASSES
from gradstarve.theorems._entry import (
    COLOURS,
    EXCLUSIVE,
    NEVER_STOPS,
    OFF_MANIFOLD,
    ONE_RAY,
    ORTHOGONAL,
    Counterexample,
    Outcome,
    Quote,
    TrialLog,
)
from gradstarve.theorems._figure import of_solution
from gradstarve.theorems._formulas import RESIDUALS
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    FLOW_TOLERANCE,
    PER_CLASS,
    RECORDS,
    WHY_FLOW,
    Geometry,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    train_descent,
    two_rays,
)
from gradstarve.theorems.laws.modes import against_solve, flow_times, logit_of_plus

A_NEURON = 1.0  # the tolerance of a number of neurons drawn by `gaussian_pairs`
STEPS = 400
PLANE = 2  # dimension of the small problems: training commutes with the projection onto the span of the data
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


def _seeing_both(rng: np.random.Generator) -> Trials:
    """Neurons active on both of two orthogonal classes, treated as neurons of class +."""
    data, axes, step_size = two_points(rng, 0.0)
    a = 1e-3 * np.abs(rng.normal(size=(CROWD, MOST)))
    both = 1e-3 * np.abs(rng.normal(size=a.shape))
    z = 1e-3 * rng.normal(size=a.shape)
    network = TwoLayerReLU(a[..., None] * axes[0] + both[..., None] * axes[1], z)
    run = train_descent(data, network, "cross-entropy", step_size, STEPS, STEPS)
    now, law = np.asarray(run.final.w) @ axes[0], np.asarray(theory.exclusive_fate(a, z))
    fails = (now <= 0) & (law == 1)
    first = np.argmax(fails, axis=-1)

    def numbers(i: int) -> dict[str, Any]:
        return record(data, "cross-entropy", network, i, neuron=int(first[i]), step_size=step_size, steps=STEPS)

    def quote(i: int) -> Quote:
        j = first[i]
        what = (
            f"the fate (1: learns class +) of a neuron with w.x_+/|x_+| = {a[i, j]:.3g}, w.x_-/|x_-| = {both[i, j]:.3g}, "
            f"z = {z[i, j]:.3g}"
        )
        return Quote(what, f"after {STEPS} steps", law[i, j], float(now[i, j] > 0))

    rest = f"so do {int(fails.sum())} of {fails.size} neurons"
    return Trials(fails.any(-1), numbers, quote=quote, rest=rest)


def draw_plane(outcome: Outcome, ax: Any) -> None:
    """The (a, z) plane: the trained fate of every neuron, and the line z = -a."""
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


@register(
    name="fates",
    equation="4.1",
    title="A neuron learns iff z > −a",
    meaning="Whether a neuron will ever help its class can be read off two of its first weights; training only carries "
    "the decision out.",
    claim="an exclusive neuron ends up learning its class iff z > -a at the start, and leaves the class otherwise",
    formula=(
        r"\begin{split} z_j(0) > {-a_j(0)}: \quad &\text{neuron } j \text{ learns its class}, \\ "
        r"z_j(0) < {-a_j(0)}: \quad &\text{it leaves the class: } a_j = 0 \text{ after a finite time} \end{split}"
    ),
    hypotheses=(ORTHOGONAL, EXCLUSIVE, NEVER_STOPS),
    tolerance=0.5,
    why_tolerance="yes or no: 0 agrees, 1 contradicts; a third of the neurons start within 0.1 % to 10 % of the line",
    checked_with=BY_DESCENT,
    default_trials=4 * CROWD,
    quick_trials=CROWD,
    losses=("cross-entropy", "exponential"),
    dynamics=("flow", "descent"),
    batch=CROWD,
    rounds=({"loss": "cross-entropy"}, {"loss": "exponential"}),
    drops=(Drop("exclusive neurons (active on both orthogonal classes instead)", _seeing_both),),
    figure=draw_plane,
)
def fates(rng: np.random.Generator, loss: str) -> Trials:
    """Orthogonal classes; the final weights of every neuron after descent. One trial is one neuron."""
    data, axes, step_size = two_points(rng, 0.0)
    scale = log_uniform(rng, 1e-5, 1e-2, (CROWD, 1))
    a = scale * np.abs(rng.normal(size=(CROWD, MOST)))
    zeta = scale * rng.normal(size=a.shape) * log_uniform(rng, 0.3, 3, (CROWD, 1))
    # A third of the neurons is close to the stable manifold, on both sides.
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
    law = np.asarray(theory.exclusive_fate(a, zeta))
    wrong = np.where(learnt, law != 1, law != 0).reshape(-1)

    def numbers(i: int) -> dict[str, Any]:
        b, j = (int(n) for n in np.unravel_index(i, law.shape))
        more = {"neuron": j, "step_size": step_size, "steps": STEPS}
        return record(data, loss, network, b, **more, learns=float(learnt[b, j]), law=float(law[b, j]))

    verdict = np.where(learnt, 1.0, np.where(left, 0.0, 0.5))
    points = np.stack([a / scale, zeta / scale, verdict], axis=-1).reshape(-1, 3)
    return Trials(wrong, numbers, (~learnt & ~left).reshape(-1), loss, extra={"points": points})


def gaussian_pairs(rng: np.random.Generator, count: int, low: float = -np.pi / 2, high: float = np.pi / 2) -> Any:
    """`count` pairs (a, z) of independent standard normal numbers with arctan2(z, a) from `low` to `high`: [count] each.

    By Box and Muller's method, with the angle uniform and independent of the length, and one angle in each of `count`
    equal parts of the range. So an event that happens exactly for angles below some threshold happens for the expected
    number of pairs, to less than 1, in every draw: there is no sampling error of order 1/sqrt(count).
    """
    angle = low + (high - low) * (rng.permutation(count) + rng.uniform(size=count)) / count
    length = np.sqrt(-2 * np.log1p(-rng.uniform(size=count)))
    return length * np.cos(angle), length * np.sin(angle)


def _learning_rate(rng: np.random.Generator, count: int, ratio: float, fixed: bool = False) -> tuple[int, int]:
    """(learnt, decided) of `count` networks of one exclusive neuron with sigma_a / sigma_z = ratio, trained.

    The weights are Gaussian, given that the neuron is active on class + and not on class -: along orthogonal axes the two
    conditions are on independent symmetric coordinates, a > 0 and the other one below 0.
    """
    data, axes, step_size = two_points(rng, 0.0)
    # The smaller of the two scales is at most 1e-3, so that no logit slows the clock before the fate of a neuron is decided.
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
    """The least distance, in neurons, of a count from the law: undecided neurons may go either way."""
    expected = probability * total
    return float(max(count - expected, expected - count - (total - decided), 0))


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


@register(
    name="learning-probability",
    equation="4.2",
    title="Three neurons in four learn",
    meaning="With the usual random start one neuron in four is lost; a first layer with larger weights than the second "
    "loses fewer.",
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
    losses=("cross-entropy", "exponential"),
    dynamics=("flow", "descent"),
    drops=(probability_without_gaussian,),
    figure=draw_probability,
)
def check_probability(key: Any, trials: int) -> Outcome:
    """The frequency of learning for six ratios of scales, each from `trials`/6 trained networks."""
    log = TrialLog(A_NEURON)
    count = -(-trials // len(RATIOS))
    rates, expected = [], []
    for k, ratio in enumerate(RATIOS):
        learnt, decided = _learning_rate(generators(key, k + 1, 1)[k], count, ratio)
        probability = float(theory.learning_probability(ratio, 1.0))
        rates.append(learnt / decided)
        expected.append(probability)
        trial_record = {"ratio": ratio, "learnt": learnt, "decided": decided, "networks": count, "law": probability}
        log.add([miscount(learnt, decided, count, probability)], f"ratio {ratio:g}", lambda i, s=trial_record: s)
    # Two neurons exceed the tolerance, wherever in its part of the range an angle was drawn.
    return log.outcome(
        rates=np.array(rates),
        expected=np.array(expected),
        each=count,
        relative_error_of_the_law_detected=float(2 / 0.75 / count),
        relative_error_of_the_arctangent_detected=float(2 / 0.25 / count),
    )


# Antipodal classes: neurons change class, and every neuron ends in the class of sign(a + z) (4.3).

_A_HALF = 0.5
_SIGNS = np.array(list(itertools.product((1.0, -1.0), repeat=MOST)))  # [8, MOST]


def _settled(a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """The class in which a neuron with signed coordinate a along the class + axis stays, if a z > 0 already."""
    return np.where(a * z > 0, np.sign(a), 0)


def _oblique(rng: np.random.Generator) -> Trials:
    """Classes at 120 degrees, against the law of the same neurons between opposite classes."""
    geometry = two_rays(rng, -0.5)
    plus, p = geometry.axes[0], geometry.data.weights
    opposite = np.stack([plus, -plus])
    points = np.repeat(geometry.norms[:, None] * opposite, PER_CLASS, axis=0)
    twin = Geometry(Dataset(points, geometry.data.labels, p), opposite, geometry.norms, geometry.frequencies)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.5).without_edge_cases()
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry)
    law = np.asarray(theory.solve(twin.data, start.network(rng, twin), "cross-entropy").logits(times))[..., 0]
    setting = "the law is that of the same neurons between opposite classes"
    return logit_of_plus(geometry.data, network, times, law, start.scale(geometry), setting=setting)


@register(
    name="transfer",
    equation="4.3",
    title="Antipodal classes hand neurons to each other",
    meaning="Between opposite classes a neuron that gives up one class is not lost: it goes over to the other one.",
    claim="a neuron that leaves one class joins the other with the z it had; between the events each class is (3.2)",
    formula=(
        r"\begin{split} \frac{da_j}{dt} &= R_j z_j, \qquad \frac{dz_j}{dt} = R_j a_j, \qquad a_j = w_j \cdot x_+ / r_+, \\ "
        r"R_j &= p_+ r_+\, g(u_+) \;\text{ while } a_j > 0, \qquad R_j = p_- r_-\, g(u_-) \;\text{ while } a_j < 0, \\ "
        r"u_+ &= r_+ \sum_{a_j > 0} a_j z_j, \qquad u_- = r_- \sum_{a_j < 0} a_j z_j \end{split}"
    ),
    hypotheses=(ANTIPODAL_CLASSES, ONE_RAY, OFF_MANIFOLD),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=192,
    rounds=({"loss": "cross-entropy"}, {"loss": "hinge"}),
    drops=(Drop("antipodal classes (an angle of 120 degrees instead)", _oblique),),
    figure=of_solution(),
)
def transfer(rng: np.random.Generator, loss: str) -> Trials:
    """Antipodal classes under the flow, any signs, where neurons change class: logits and weights against the law."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5, crowd=True)
    found = against_solve(rng, geometry, start, loss)
    found.extra["networks"] = BATCH
    return found


def _at_an_angle(rng: np.random.Generator) -> Trials:
    """Classes at 120 degrees, where a neuron that leaves one class may be dead for ever."""
    cosine = -0.5
    data, axes, step_size = two_points(rng, cosine)
    beta = 1e-3 * np.abs(rng.normal(size=(CROWD, 1)))
    alpha = -1e-3 * np.abs(rng.normal(size=beta.shape))
    z = beta * rng.uniform(1.5, 3, beta.shape)
    w = np.stack([alpha, beta], axis=-1) @ np.linalg.pinv(axes).T
    network = TwoLayerReLU(w, z)
    # Small steps: a large step overshoots where a neuron leaves, and may activate it where the flow (4.4) would not.
    step_size, steps = step_size / 50, 20 * STEPS
    run = train_descent(data, network, "cross-entropy", step_size, steps, steps)
    dead: Any = (np.asarray(run.final.w) @ axes.T <= 0).all(-1)
    law = np.asarray(theory.antipodal_fate(-beta, z))
    fails = dead & (law == 1)
    told = np.asarray(theory.dies_for_ever(alpha, beta, cosine))

    def quote(i: int) -> Quote:
        what = (
            f"the class (0: none) of a neuron with w.x_+/|x_+| = {alpha[i, 0]:.3g}, w.x_-/|x_-| = {beta[i, 0]:.3g}, "
            f"z = {z[i, 0]:.3g}"
        )
        return Quote(what, f"after {steps} steps", law[i, 0], 0.0 if dead[i, 0] else 1.0)

    rest = f"{int(fails.sum())} of {fails.size} neurons are active on no point, and (4.4) says {int(told.sum())}"
    numbers = recorded(data, "cross-entropy", network, step_size=step_size, steps=steps)
    return Trials(fails[:, 0], numbers, quote=quote, rest=rest)


def antipodal_without_symmetry(key: Any) -> Counterexample:
    """Drop "(w_j, z_j) as likely as (-w_j, -z_j)": neurons that all begin on class +, with Gaussian read-outs."""
    rng = generator(key)
    data, axes, step_size = two_points(rng, -1.0)
    a, z = (1e-3 * value for value in gaussian_pairs(rng, CROWD))
    network = TwoLayerReLU(a[:, None, None] * axes[0], z[:, None])
    run = train_descent(data, network, "cross-entropy", step_size, STEPS, STEPS)
    found = _settled(np.asarray(run.final.w) @ axes[0], np.asarray(run.final.z))[:, 0]
    fails, decided = int((found == -1).sum()), int((found != 0).sum())
    law = float(theory.class_failure_probability(1)) * decided
    return Counterexample.of(
        "(w_j, z_j) as likely as (-w_j, -z_j) (every neuron begins on class + instead)",
        Quote(f"the number of {decided} neurons that leave class + unlearnt", f"after {STEPS} steps", law, fails),
        _A_HALF,
        {"fails": fails, "decided": decided, "law": law},
    )


def _stopped(rng: np.random.Generator) -> Trials:
    """Hinge loss, whose clock stops at the margin, so that a neuron stays in its class."""
    data, axes, step_size = two_points(rng, -1.0)
    r = float(np.linalg.norm(np.asarray(data.points)[0]))
    # One neuron with half of the margin, and one that would need far longer to leave than the first one to reach it.
    a = np.array([[0.7, 0.1]]) / np.sqrt(r)
    z = np.array([[0.7, -0.1001]]) / np.sqrt(r)
    network = TwoLayerReLU(a[..., None] * axes[0], z)
    step_size, steps = step_size / 50, 50 * STEPS
    run = train_descent(data, network, "hinge", step_size, steps, steps)
    now, z_now = np.asarray(run.final.w)[:, 1] @ axes[0], float(run.final.z[0, 1])
    return compared(
        np.sign(now),
        np.asarray(theory.antipodal_fate(a[:, 1], z[:, 1])),
        1.0,
        recorded(data, "hinge", network, step_size=step_size, steps=steps),
        quantity=f"the class of a neuron with a = {a[0, 1]:.4g}, z = {z[0, 1]:.4g}",
        when=f"after {steps} steps",
        rest=f"it stays at a = {now[0]:.3g}, z = {z_now:.3g}",
    )


def draw_failures(outcome: Outcome, ax: Any) -> None:
    """How often class + is left without a neuron, against 2^-h."""
    fails, totals = outcome.extra["fails"], outcome.extra["totals"]
    widths = np.arange(1, MOST + 1)
    rates = fails / totals
    law = [theory.class_failure_probability(int(h)) for h in widths]
    ax.bar(widths, rates, width=0.5, color=COLOURS[4], label="trained, with all patterns of signs")
    ax.scatter(widths, law, marker="D", color="black", s=25, zorder=3, label="law: 2^−h")
    ax.set_xticks(widths, [f"{h}\n({n} networks)" for h, n in zip(widths, totals, strict=True)])
    ax.set_xlabel("width h")
    ax.set_ylabel("frequency of: class + is never learnt")
    ax.legend(frameon=False, fontsize=8)


@register(
    name="antipodal-fates",
    equation="4.3",
    title="Every neuron ends in the class of sign(a + z)",
    meaning="With opposite classes no neuron dies, and a class is missed only if every neuron starts on the wrong side: a"
    " chance that halves with each neuron.",
    claim="on antipodal data no neuron dies; a given class is never learnt with probability 2^-h, and never both",
    formula=(
        r"\begin{split} &\text{neuron } j \text{ ends in the class of } \text{sign}(a_j(0) + z_j(0)), \qquad "
        r"a_j = w_j \cdot x_+ / r_+, \\ "
        r"&\text{P}(\text{class} + \text{is never learnt}) = \text{P}(\text{class} - \text{is never learnt}) = 2^{-h}, "
        r"\qquad \text{P}(\text{both}) = 0 \end{split}"
    ),
    hypotheses=(
        ANTIPODAL_CLASSES,
        NEVER_STOPS,
        "for the frequencies: neurons are independent, (w_j, z_j) as likely as (-w_j, -z_j)",
    ),
    tolerance=_A_HALF,
    why_tolerance=(
        "yes or no: a neuron in the wrong class counts as 1, a third of them being within 0.1 % to 10 % of the line; and "
        "with every pattern of signs trained the number of networks in which a class fails is that of the law without any "
        "sampling error"
    ),
    power=(
        "no level: a true law never fails; with the default trials a law wrong by 0.1 % at width 1 always does, with quick "
        "ones one wrong by 0.2 %"
    ),
    checked_with=BY_DESCENT,
    default_trials=2 * 4096,
    quick_trials=4096,
    losses=("cross-entropy", "exponential"),
    dynamics=("flow", "descent"),
    drops=(
        Drop("antipodal classes (an angle of 120 degrees instead)", _at_an_angle),
        Drop("the clock gets to the crossing (hinge loss instead, which stops at the margin)", _stopped),
        antipodal_without_symmetry,
    ),
    figure=draw_failures,
)
def check_antipodal(key: Any, trials: int) -> Outcome:
    """The class in which each neuron ends, and how often a class has no neuron, for widths 1 to 3.

    Every network is trained with each pattern of signs of its neurons (w_j, z_j). The patterns are equally likely, so the
    share of them in which a class fails is its probability, without sampling error. A neuron in
    the wrong class is a gap of 1; a frequency is a gap in networks. One trial is one network, plus one for each width.
    """
    log = TrialLog(_A_HALF)
    fails = np.zeros(MOST, int)
    totals = np.zeros(MOST, int)
    batch = 4096 if trials >= 4096 else CROWD
    for k, rng in enumerate(generators(key, trials, batch)):
        loss = ("cross-entropy", "exponential")[k % 2]
        data, axes, step_size = two_points(rng, -1.0)
        sets = batch // len(_SIGNS)
        width = rng.integers(1, MOST + 1, sets)
        used = np.arange(MOST) < width[:, None]
        scale = log_uniform(rng, 1e-5, 1e-3, (sets, 1))
        w = rng.normal(size=(sets, MOST, PLANE)) * scale[..., None] * used[..., None]
        z = rng.normal(size=used.shape) * scale * log_uniform(rng, 0.2, 5, (sets, 1)) * used
        # A third of the neurons is close to the line z = -a, on both sides.
        offset = log_uniform(rng, 1e-3, 1e-1, z.shape) * rng.choice([-1, 1], z.shape)
        z = np.where(rng.uniform(size=z.shape) < 1 / 3, -(w @ axes[0]) * (1 + offset), z)
        w, z = (w[:, None] * _SIGNS[..., None]).reshape(batch, MOST, PLANE), (z[:, None] * _SIGNS).reshape(batch, MOST)
        width, used = np.repeat(width, len(_SIGNS)), np.repeat(used, len(_SIGNS), axis=0)
        network = TwoLayerReLU(w, z)
        run = train_descent(data, network, loss, step_size, STEPS, STEPS)
        found = _settled(np.asarray(run.final.w) @ axes[0], np.asarray(run.final.z))
        expected = np.asarray(theory.antipodal_fate(w @ axes[0], z))
        waiting = (found == 0) & used
        wrong = np.any(used & ~waiting & (found != expected), axis=-1)
        # Both classes cannot fail together: some neuron is in one of them.
        wrong |= ~waiting.any(-1) & ~(found == 1).any(-1) & ~(found == -1).any(-1)

        def instance(i, d=data, s=loss, n=network, e=step_size, x=expected, y=found):
            return record(d, s, n, i, step_size=e, steps=STEPS, ends_in=y[i], law=x[i])

        log.add(wrong, f"{loss}, each neuron", instance, waiting.any(-1))
        decided = np.repeat(~waiting.any(-1).reshape(sets, -1).any(-1), len(_SIGNS))  # with all of their patterns
        for h in range(MOST):
            mine = decided & (width == h + 1)
            totals[h] += mine.sum()
            fails[h] += (mine & ~(found == 1).any(-1)).sum()
    for h in range(MOST):
        probability = float(theory.class_failure_probability(h + 1))
        trial_record = {"width": h + 1, "class_plus_fails": fails[h], "networks": totals[h], "law": probability}
        gap = abs(float(fails[h]) - totals[h] * probability)
        log.add([gap], "frequency of failure", lambda i, s=trial_record: s)
    return log.outcome(
        fails=fails,
        totals=totals,
        relative_error_of_the_law_detected_at_width_1=float(_A_HALF / 0.5 / max(totals[0], 1)),
    )


# Over seeds: the share of the learners with the wrong sign at a time (5.4).

# (geometry, loss, sigma_a / sigma_z); the first one of equal scales is the formula as it is usually quoted.
_CASES = (
    ("exclusive", "cross-entropy", 1.0),
    ("antipodal", "cross-entropy", 1.0),
    ("exclusive", "hinge", 1.0),
    ("antipodal", "hinge", 0.5),
    ("exclusive", "cross-entropy", 2.0),
    ("antipodal", "cross-entropy", 4.0),
)
_STEPS = 40
_ANGLE = 0.04  # the angle of the clock per step
_NEURONS = 4.0


def _wrong_signs(
    rng: np.random.Generator, count: int, case: tuple[str, str, float], scale: float
) -> tuple[np.ndarray, int, np.ndarray, dict[str, Any]]:
    """Train `count` neurons: (wrong sign among the learners at each record [5], learners, times of the records [5], and
    what else the laws are functions of).

    A step is the angle artanh(_ANGLE) of the clock: it multiplies a + z and a - z by 1 ± _ANGLE. A second run with steps
    ten times as long identifies the learners: neurons that are still active on their first class at its end.
    """
    geometry, loss, ratio = case
    data, axes, _ = two_points(rng, -1.0 if geometry == "antipodal" else 0.0)
    norm, p = float(np.linalg.norm(np.asarray(data.points)[0])), float(data.weights[0])
    scale_z = scale / max(ratio, 1.0) / np.sqrt(norm)
    along, z = gaussian_pairs(rng, count)
    along, z = along * scale_z * ratio, z * scale_z
    other = np.zeros(count) if geometry == "antipodal" else -np.abs(rng.normal(size=count)) * scale_z * ratio
    w = along[:, None] * axes[0] + other[:, None] * (axes[1] if geometry == "exclusive" else 0)
    push = p * norm * RESIDUALS[loss](0.0)
    step_size = _ANGLE / push
    run = train_descent(data, TwoLayerReLU(w[:, None], z[:, None]), loss, step_size, _STEPS, _STEPS // RECORDS)
    later = train_descent(data, run.final, loss, 10 * step_size, _STEPS, _STEPS // RECORDS)
    final: Any = later.final
    learns = (np.asarray(final.w)[:, 0] @ axes[0] > 0) & (np.asarray(final.z)[:, 0] > 0)
    wrong = (np.asarray(run.recorded)[..., 0] < 0)[learns].sum(axis=0)
    times = np.asarray(run.grid) * np.arctanh(_ANGLE) / push
    return wrong, int(learns.sum()), times, {"frequency": p, "norm": norm, "loss": loss, "scale_a": ratio, "scale_z": 1.0}


def _off_the_law(
    wrong: np.ndarray, learners: int, times: np.ndarray, problem: dict[str, Any]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distance from (5.4) of each record [5] in neurons, and both sides of it: the fractions at the times, [5], and the
    times of the fractions, [3] (without the first and the last); an error in time counts as the neurons that turn in it."""
    fractions = np.asarray(theory.wrong_sign_fraction(t=times, **problem))
    back = np.asarray(theory.wrong_sign_time(fraction=wrong[1:-1] / learners, **problem))
    turning = (wrong[:-2] - wrong[2:]) / (times[2:] - times[:-2])
    gaps = np.abs(wrong - learners * fractions)
    gaps[1:-1] = np.maximum(gaps[1:-1], np.abs(back - times[1:-1]) * turning)
    return gaps, fractions, back


def signs_without_small_scale(key: Any) -> Counterexample:
    """Drop "small": cross-entropy from a scale at which the logits are far from 0, where g is not g(0)."""
    wrong, learners, times, problem = _wrong_signs(generator(key), 4000, _CASES[0], 3.0)
    _, law, _ = _off_the_law(wrong, learners, times, problem)
    i = int(np.argmax(np.abs(wrong - learners * law)))
    what = f"the number of {learners} learners that have the wrong sign"
    return Counterexample.of(
        "small initial scales (r sigma^2 = 9 instead, cross-entropy)",
        Quote(what, f"after {_STEPS // RECORDS * i} steps", learners * law[i], wrong[i]),
        _NEURONS,
        {"wrong": wrong, "learners": learners, "law": law},
    )


def draw_signs(outcome: Outcome, ax: Any) -> None:
    """The law for three ratios over p r g(0) t, and the trained frequencies."""
    tau = np.arctanh(_ANGLE) * np.arange(0, _STEPS + 1, _STEPS // RECORDS)
    grid = np.linspace(0, tau[-1], 60)
    rates = outcome.extra["rates"]
    for k, (geometry, loss, ratio) in enumerate(_CASES):
        law = theory.wrong_sign_fraction(1.0, 1.0, "hinge", t=grid, scale_a=ratio, scale_z=1.0)
        ax.plot(grid, law, color=COLOURS[k], linewidth=1, label="law" if k == 0 else None)
        label = f"{geometry}, {loss}, σ_a/σ_z = {ratio:g}"
        ax.plot(tau + 0.006 * (k - 2.5), rates[k], "o", color=COLOURS[k], markersize=3, label=label)
    ax.set_xlabel("p r g(0) t")
    ax.set_ylabel("learners whose sign is still wrong")
    ax.legend(frameon=False, fontsize=8)


@register(
    name="wrong-signs",
    equation="5.4",
    title="A third of the learners start with the wrong sign",
    meaning="A third of the neurons that will learn start by voting for the wrong class, and the law says how fast they "
    "change their minds.",
    claim="the part of them that still has it at t is (1/3)(1 - (4/pi) arctan tanh(p r t/2)) with cross-entropy and equal "
    "scales, in general (arctan x - arctan(x tanh(p r g(0) t))) / (pi/2 + arctan x), x = sigma_a / sigma_z",
    formula=(
        r"\begin{split} \text{P}(\text{still wrong at } t) &= "
        r"\frac{\arctan(x) - \arctan(x\, \tanh(p\, r\, g(0)\, t))}{\pi/2 + \arctan(x)}, \qquad "
        r"x = \frac{\sigma_a}{\sigma_z}, \\ "
        r"\text{cross-entropy, } x = 1: \quad "
        r"&= \frac{1}{3} \left( 1 - \frac{4}{\pi}\, \arctan(\tanh(p\, r\, t / 2)) \right) \end{split}"
    ),
    hypotheses=(
        "one neuron, exclusive or on antipodal data, that learns the class it begins with",
        "w and z independent and Gaussian, centred",
        "small scales (hinge loss: any that keep the margin below 1)",
    ),
    tolerance=_NEURONS,
    why_tolerance=(
        "in neurons: with Gaussian weights drawn by one angle in each of as many equal parts, numbers of neurons are those "
        "of the law to less than one at each end of the range of angles, and so is the number that learns; a time is worth "
        "the neurons that turn in it"
    ),
    power=(
        "no level: a true law never fails; with the default trials, quick or not, a law wrong by 0.5 % is 6 neurons off and "
        "more, a clock or a time by 2 % 10 and more: all are rejected with certainty"
    ),
    checked_with=BY_DESCENT,
    default_trials=6 * 8000,
    quick_trials=6 * 4000,
    losses=("cross-entropy", "hinge"),
    dynamics=("flow", "descent"),
    drops=(signs_without_small_scale,),
    figure=draw_signs,
)
def check_signs(key: Any, trials: int) -> Outcome:
    """Five times in each of six cases, `trials`/6 networks of one neuron each; a row is one frequency."""
    log = TrialLog(_NEURONS)
    count = -(-trials // len(_CASES))
    seen = []
    for k, case in enumerate(_CASES):
        wrong, learners, times, problem = _wrong_signs(generators(key, k + 1, 1)[k], count, case, 1e-3)
        gaps, law, law_times = _off_the_law(wrong, learners, times, problem)
        geometry, loss, ratio = case
        trial_record = {
            "geometry": geometry,
            "loss": loss,
            "ratio": ratio,
            "times": times,
            "wrong": wrong,
            "learners": learners,
        }
        trial_record |= {"law": law, "law_times": law_times}
        log.add(gaps, f"{geometry}, {loss}, ratio {ratio:g}", lambda i, s=trial_record: {"record": i, **s})
        seen.append(wrong / learners)
    return log.outcome(rates=np.array(seen), each=count)
