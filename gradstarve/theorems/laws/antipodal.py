"""Antipodal classes: neurons pass from one to the other, and every one ends in the class of sign(a + z) (4.3)."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS, draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import ANTIPODAL as ANTIPODAL_CLASSES
from gradstarve.theorems._hypotheses import EVERLASTING, OFF_MANIFOLD, ONE_RAY
from gradstarve.theorems._running import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, furthest, law_gaps, train_descent, train_flow
from gradstarve.theorems._sampling import (
    BATCH,
    PER_CLASS,
    Geometry,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)
from gradstarve.theorems.laws.fates import BY_DESCENT, CROWD, MOST, PLANE, STEPS, gaussian_pairs, two_points
from gradstarve.theorems.laws.modes import flow_times

_A_HALF = 0.5
_SIGNS = np.array(list(itertools.product((1.0, -1.0), repeat=MOST)))  # [8, MOST]


def _settled(a: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Where a neuron with a signed coordinate a along the class + axis will stay, by its weights now: a z > 0."""
    return np.where(a * z > 0, np.sign(a), 0)


def check_transfer(key: Any, trials: int) -> Outcome:
    """Antipodal classes under the flow, any signs: neurons pass between the classes, logits and weights by the law."""
    tally = Tally(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = ("cross-entropy", "hinge")[k % 2]
        geometry = two_rays(rng, -1.0)
        start = exclusive_start(rng, wrong_signs=0.5, crowd=True)
        network = start.network(rng, geometry)
        run, lost = train_flow(geometry.data, network, loss, flow_times(rng, geometry))
        gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry))
        tally.add(gaps, loss, lambda i, d=geometry.data, s=loss, n=network, f=sides: record(d, s, n, i, **f(i)), lost)
    return tally.outcome(networks=BATCH * len(generators(key, trials)))


def transfer_without_antipodes(key: Any) -> Counterexample:
    """Drop "antipodal": classes at 120 degrees, against the law of the same neurons between opposite classes."""
    rng = generator(key)
    geometry = two_rays(rng, -0.5)
    plus, p = geometry.axes[0], geometry.data.weights
    opposite = np.stack([plus, -plus])
    points = np.repeat(geometry.norms[:, None] * opposite, PER_CLASS, axis=0)
    twin = Geometry(Dataset(points, geometry.data.labels, p), opposite, geometry.norms, geometry.frequencies)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.5).usual()
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry)
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    law = np.asarray(theory.solve(twin.data, start.network(rng, twin), "cross-entropy").logits(times))[..., 0]
    found = np.asarray(run.recorded)[..., 0]
    quote, i = furthest("the logit of class +", times, found, lost, law, start.scale(geometry))
    return Counterexample.of(
        "antipodal classes (an angle of 120 degrees instead)",
        quote,
        FLOW_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, times=times, law=law[i], trained=found[i]),
        setting="the law is that of the same neurons between opposite classes",
    )


def check_antipodal(key: Any, trials: int) -> Outcome:
    """The class each neuron ends in, and how often a class is left without any, for widths 1 to 3.

    Every network is trained with each pattern of signs of its neurons (w_j, z_j): as these are equally likely, the part
    of the patterns in which a class fails is its probability given the rest, and no sampling error is left. A neuron in
    the wrong class is a gap of 1; a frequency is a gap in networks. One trial is one network, and one more each width.
    """
    tally = Tally(_A_HALF)
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
        # A third of the neurons right beside the line z = -a, on both sides.
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
        # Both classes can not fail together: some neuron is in one of them.
        wrong |= ~waiting.any(-1) & ~(found == 1).any(-1) & ~(found == -1).any(-1)

        def instance(i, d=data, s=loss, n=network, e=step_size, x=expected, y=found):
            return record(d, s, n, i, step_size=e, steps=STEPS, ends_in=y[i], law=x[i])

        tally.add(wrong, f"{loss}, each neuron", instance, waiting.any(-1))
        decided = np.repeat(~waiting.any(-1).reshape(sets, -1).any(-1), len(_SIGNS))  # with all of their patterns
        for h in range(MOST):
            mine = decided & (width == h + 1)
            totals[h] += mine.sum()
            fails[h] += (mine & ~(found == 1).any(-1)).sum()
    for h in range(MOST):
        probability = float(theory.class_failure_probability(h + 1))
        sides = {"width": h + 1, "class_plus_fails": fails[h], "networks": totals[h], "law": probability}
        gap = abs(float(fails[h]) - totals[h] * probability)
        tally.add([gap], "frequency of failure", lambda i, s=sides: s)
    return tally.outcome(
        fails=fails,
        totals=totals,
        relative_error_of_the_law_detected_at_width_1=float(_A_HALF / 0.5 / max(totals[0], 1)),
    )


def antipodal_without_angle(key: Any) -> Counterexample:
    """Drop "antipodal": classes at 120 degrees, where a neuron that leaves one class may be dead for ever."""
    rng = generator(key)
    cosine = -0.5
    data, axes, step_size = two_points(rng, cosine)
    beta = 1e-3 * np.abs(rng.normal(size=(CROWD, 1)))
    alpha = -1e-3 * np.abs(rng.normal(size=beta.shape))
    z = beta * rng.uniform(1.5, 3, beta.shape)
    w = np.stack([alpha, beta], axis=-1) @ np.linalg.pinv(axes).T
    network = TwoLayerReLU(w, z)
    # Small steps: a large one overshoots where a neuron leaves, and may wake it where the flow (4.4) would not.
    step_size, steps = step_size / 50, 20 * STEPS
    run = train_descent(data, network, "cross-entropy", step_size, steps, steps)
    dead: Any = (np.asarray(run.final.w) @ axes.T <= 0).all(-1)
    fails = dead & (np.asarray(theory.antipodal_fate(-beta, z)) == 1)
    i = int(np.argmax(fails[:, 0]))
    told = np.asarray(theory.dies_for_ever(alpha, beta, cosine))
    what = (
        f"the class (0: none) of a neuron with w.x_+/|x_+| = {alpha[i, 0]:.3g}, w.x_-/|x_-| = {beta[i, 0]:.3g}, "
        f"z = {z[i, 0]:.3g}"
    )
    return Counterexample.of(
        "antipodal classes (an angle of 120 degrees instead)",
        Quote(what, f"after {steps} steps", theory.antipodal_fate(-beta, z)[i, 0], 0.0 if dead[i, 0] else 1.0),
        _A_HALF,
        record(data, "cross-entropy", network, i, step_size=step_size, steps=steps),
        rest=f"{int(fails.sum())} of {fails.size} neurons are active on no point, and (4.4) says {int(told.sum())}",
    )


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


def antipodal_with_a_stop(key: Any) -> Counterexample:
    """Drop "the clock gets there": hinge loss, whose clock stops at the margin and leaves a neuron where it is."""
    rng = generator(key)
    data, axes, step_size = two_points(rng, -1.0)
    r = float(np.linalg.norm(np.asarray(data.points)[0]))
    # One neuron with half of the margin, and one that would need far longer to leave than the first one to reach it.
    a = np.array([[0.7, 0.1]]) / np.sqrt(r)
    z = np.array([[0.7, -0.1001]]) / np.sqrt(r)
    network = TwoLayerReLU(a[..., None] * axes[0], z)
    run = train_descent(data, network, "hinge", step_size / 50, 50 * STEPS, 50 * STEPS)
    now, z_now = np.asarray(run.final.w)[0, 1] @ axes[0], float(run.final.z[0, 1])
    what = f"the class of a neuron with a = {a[0, 1]:.4g}, z = {z[0, 1]:.4g}"
    return Counterexample.of(
        "the clock gets to the crossing (hinge loss instead, which stops at the margin)",
        Quote(what, f"after {50 * STEPS} steps", theory.antipodal_fate(a[0, 1], z[0, 1]), np.sign(now)),
        _A_HALF,
        record(data, "hinge", network, 0, step_size=step_size / 50, steps=50 * STEPS),
        rest=f"it stays at a = {now:.3g}, z = {z_now:.3g}",
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


TRANSFER = Theorem(
    name="transfer",
    equation="4.3",
    title="Antipodal classes hand neurons to each other",
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
    check=check_transfer,
    necessity=(transfer_without_antipodes,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "|u − u_law| / (|u| + r Σ(a² + z²)/2)"),
)

ANTIPODAL = Theorem(
    name="antipodal-fates",
    equation="4.3",
    title="Every neuron ends in the class of sign(a + z)",
    claim="on antipodal data nobody dies; a given class is never learnt with probability 2^-h, and never both",
    formula=(
        r"\begin{split} &\text{neuron } j \text{ ends in the class of } \text{sign}(a_j(0) + z_j(0)), \qquad "
        r"a_j = w_j \cdot x_+ / r_+, \\ "
        r"&\text{P}(\text{class} + \text{is never learnt}) = \text{P}(\text{class} - \text{is never learnt}) = 2^{-h}, "
        r"\qquad \text{P}(\text{both}) = 0 \end{split}"
    ),
    hypotheses=(
        ANTIPODAL_CLASSES,
        EVERLASTING,
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
    check=check_antipodal,
    necessity=(antipodal_without_angle, antipodal_with_a_stop, antipodal_without_symmetry),
    figure=draw_failures,
)
