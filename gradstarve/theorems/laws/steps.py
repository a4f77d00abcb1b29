"""Any first-order step is two factors (17.1)-(17.5), or, where only signs count, two sums (17.6)."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import (
    Dataset,
    Dynamics,
    GradientDescent,
    Hinge,
    NormalizedGradientDescent,
    SharpnessAware,
    SignDescent,
    StochasticGradientDescent,
    TwoLayerReLU,
)
from gradstarve.theorems._entry import (
    COLOURS,
    EXCLUSIVE,
    OFF_MANIFOLD,
    ONE_RAY,
    SEPARABLE,
    Counterexample,
    Outcome,
    Quote,
)
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    WIDTH,
    ExclusiveInit,
    Geometry,
    exclusive_start,
    generator,
    law_gaps,
    log_uniform,
    record,
    train,
    two_rays,
)
from gradstarve.theorems.laws.descent import (
    Drawn,
    draw_distributions,
    first_passage,
    on_both_classes,
    problem_of_draws,
    step_sizes,
    try_distributions,
)

_STEPS = 400
_RECORDS = 40
_TOLERANCE = 1e-10
_ROUNDS = tuple(
    {"kind": kind, "loss": loss, "angle": angle}
    for kind, loss, angle in (
        ("schedule", "cross-entropy", "antipodal"),
        ("layers", "hinge", "orthogonal"),
        ("normalised", "exponential", "antipodal"),
        ("sharpness-aware", "cross-entropy", "orthogonal"),
        ("schedule and momentum", "hinge", "orthogonal"),
        ("layers", "cross-entropy", "antipodal"),
        ("normalised", "cross-entropy", "obtuse"),
        ("sharpness-aware", "exponential", "antipodal"),
    )
)


def _cosine(largest: float, steps: int) -> Any:
    """A warm-up of a tenth of the steps to `largest`, and a half cosine down to a twentieth of it."""

    def schedule(step):
        ahead = (step - steps / 10) / (0.9 * steps)
        down = 0.05 + 0.95 * (1 + jnp.cos(jnp.pi * jnp.clip(ahead, 0, 1))) / 2
        return largest * jnp.minimum(step / (steps / 10), down)

    return schedule


def _dynamics(rng: np.random.Generator, kind: str, geometry: Geometry, start: ExclusiveInit, loss: str) -> Dynamics:
    """Random step sizes that suit the start: plain steps below the limit of each network, step lengths below that of its
    weights."""
    limit = step_sizes(rng, geometry, start, loss)
    size = np.sqrt(np.sum(start.a**2 + start.zeta**2, axis=-1))
    if kind == "layers":
        ratio = log_uniform(rng, 0.1, 10, BATCH)
        return GradientDescent(limit * ratio, read_out_step_size=limit / ratio)
    if kind == "normalised":
        return NormalizedGradientDescent(size * log_uniform(rng, 1e-3, 1e-2, BATCH))
    if kind == "sharpness-aware":
        return SharpnessAware(limit / 3, size * log_uniform(rng, 1e-2, 0.3, BATCH))
    schedule = _cosine(float(limit.min() * 3), _STEPS)
    return GradientDescent(schedule, 0.8, nesterov=True) if kind == "schedule and momentum" else GradientDescent(schedule)


def _shorter_than_radius(run: Any, geometry: Geometry, radius: np.ndarray) -> np.ndarray:
    """Where the weights that see a class have all become shorter than the radius, so that every step throws them about."""
    w, z = np.asarray(run.final.w), np.asarray(run.final.z)
    along = np.einsum("bhd,cd->bhc", w, geometry.axes)
    seen = along > 0
    size = np.sum(np.where(seen, along**2 + z[..., None] ** 2, 0), axis=(1, 2))
    return size < 4 * radius**2


def _draw(outcome: Outcome, ax: Any, xlabel: str, scale: str = "linear") -> None:
    """For each group, the network that learns most: the margin of class + by the law as a line, in training as markers."""
    names = list(dict.fromkeys(outcome.groups.tolist()))
    for number, name in enumerate(names):
        found = [outcome.instance(int(i)) for i in np.flatnonzero(outcome.groups == name)[:24]]
        learnt = [np.min(one["trained"][-1, 0] - one["trained"][0, 0]) for one in found]
        one = found[int(np.argmax(learnt))]
        colour = COLOURS[number % len(COLOURS)]
        ax.plot(one["steps"], one["law"][:, 0], color=colour, linewidth=1.2)
        marker = "os"[number // len(COLOURS) % 2]
        ax.plot(one["steps"][::2], one["trained"][::2, 0], marker, color=colour, markersize=3.5, label=f"{name} (trained)")
    ax.plot([], [], color="black", linewidth=1.2, label=f"lines: law; worst gap {outcome.worst_gap:.0e}")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("logit of class +")
    ax.set_yscale(scale)
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


@register(
    name="steps-of-two-factors",
    equation="17.1-17.4",
    title="Any first-order step is two factors",
    meaning="Schedules, rates per layer, normalised and sharpness-aware steps all multiply the same two numbers of a "
    "class: each has an exact law.",
    claim="a schedule, a rate for each layer, a step of given length and a sharpness-aware step multiply M+ and M- of every "
    "class by the squares of two factors, as plain descent does: logits and weights of training are those of the law",
    formula=(
        r"\begin{split} M_\pm &\leftarrow F_\pm^2\, M_\pm, \qquad e_c = p_c\, r_c\, g(u_c), \qquad "
        r"G^2 = \frac{1}{2} \sum_c e_c^2\, (M_+ + M_-)_c, \\ "
        r"\text{schedule:} \quad F_\pm &= 1 \,\pm\, \eta_k\, e_c, \\ "
        r"\text{layers:} \quad F_\pm &= 1 \,\pm\, \sqrt{\eta_a \eta_z}\, e_c \quad "
        r"\text{for } \frac{a}{\sqrt{\eta_a}} \,\pm\, \frac{z}{\sqrt{\eta_z}}, \\ "
        r"\text{normalised:} \quad F_\pm &= 1 \,\pm\, \eta\, \frac{e_c}{G}, \\ "
        r"\text{sharpness-aware:} \quad F_\pm &= 1 \,\pm\, \eta\, \tilde e_c\, (1 \mp d_c), "
        r"\quad d_c = \rho\, \frac{e_c}{G}, \\ "
        r"\tilde e_c &= p_c\, r_c\, g \left( \frac{r_c}{4} [(1 - d_c)^2 M_+ - (1 + d_c)^2 M_-]_c \right) \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "obtuse classes: normalised steps, neurons of the right sign",
        "sharpness-aware steps: weights that stay longer than the radius, below which rounding decides",
        OFF_MANIFOLD,
    ),
    tolerance=_TOLERANCE,
    why_tolerance=(
        "accumulated rounding of 400 steps, at most 400 times 2e-16, made larger by up to 1e3 by neurons that start within "
        "1e-3 of the stable manifold"
    ),
    checked_with="simulate: the update rules on all weights by automatic differentiation",
    default_trials=24 * len(_ROUNDS),
    quick_trials=96,
    single_tolerance=None,
    dynamics=("descent",),
    rounds=_ROUNDS,
    details={"steps": _STEPS},
    drops=(
        Drop(
            "exclusive neurons (each active on both classes instead)",
            lambda rng: on_both_classes(rng, lambda rate: NormalizedGradientDescent(rate / 10)),
        ),
    ),
    figure=lambda outcome, ax: _draw(outcome, ax, "steps"),
)
def steps_of_two_factors(rng: np.random.Generator, kind: str, loss: str, angle: str) -> Trials:
    """Antipodal and orthogonal classes with half of the neurons of the wrong sign; obtuse ones with the right sign."""
    geometry = two_rays(rng, {"antipodal": -1.0, "orthogonal": 0.0, "obtuse": rng.uniform(-0.95, -0.05)}[angle])
    start = exclusive_start(rng, wrong_signs=0.0 if angle == "obtuse" else 0.5)
    network = start.network(rng, geometry)
    dynamics = _dynamics(rng, kind, geometry, start, loss)
    run = train(geometry.data, network, loss, dynamics, _STEPS, _STEPS // _RECORDS)
    gaps, sides = law_gaps(geometry.data, network, loss, run, start.scale(geometry), dynamics)
    # All step sizes of the dynamics, each value of a schedule included.
    numbers: Any = {name: np.asarray(leaf) for name, leaf in vars(run.dynamics).items() if hasattr(leaf, "shape")}

    def trial_record(i: int) -> dict[str, Any]:
        own = {name: values[i] if values.shape == (BATCH,) else values for name, values in numbers.items()}
        return record(geometry.data, loss, network, i, kind=kind, **own, **sides(i))

    lost: Any = False
    if isinstance(dynamics, SharpnessAware):
        lost = _shorter_than_radius(run, geometry, np.asarray(dynamics.radius))
    return Trials(gaps, trial_record, lost, group=f"{kind}, {loss}")


# Sign descent.

_SIGN_STEPS = 200


def _signs_beside(rng: np.random.Generator) -> Trials:
    """A second class at a right angle: steps along the signs of its point also move the coordinate along the first class."""
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, low=0.1, high=0.5)
    network = start.network(rng, geometry)
    step_size, steps = 0.002, 150
    run = train(geometry.data, network, "cross-entropy", SignDescent(step_size), steps, steps)
    alone = Dataset(geometry.norms[0] * geometry.axes[:1], [1.0])
    law = np.asarray(theory.solve(alone, network, "cross-entropy", SignDescent(step_size)).logits(steps))[:, 0]
    found = np.asarray(run.recorded)[:, -1, 0]
    numbers = recorded(
        geometry.data, "cross-entropy", network, {"law": law, "trained": found}, step_size=step_size, steps=steps
    )
    texts: dict[str, Any] = {"quantity": "the logit of class +", "when": f"after {steps} steps"}
    texts["rest"] = "the law of its own class alone is meant"
    return compared(found, law, np.abs(law) + start.scale(geometry), numbers, found <= 0, **texts)


@register(
    name="sign-descent",
    equation="17.6",
    title="Sign descent: a mode grows by sums, whatever the loss and the frequency",
    meaning="Optimisers that use only signs, as Adam does without memory, learn rare and frequent classes equally fast, "
    "but kill neurons that descent would keep.",
    claim="where every weight moves by eta against the sign of its gradient, as Adam and RMSProp do without memory, a "
    "neuron moves by eta rho sign(e z) along its class, rho = |x|_1 / |x|_2, and its read-out by eta sign(e a): only the "
    "sign of the residual counts",
    formula=(
        r"a_j \leftarrow a_j + \eta\, \rho\, \text{sgn}(g(u)\, z_j), \qquad "
        r"z_j \leftarrow z_j + \eta\, \text{sgn}(g(u)\, a_j), \qquad "
        r"\rho = \frac{|x|_1}{|x|_2}, \qquad u = r \sum_{a_j > 0} a_j\, z_j"
    ),
    hypotheses=("antipodal classes, or one", ONE_RAY, "no read-out or coordinate that is zero to rounding after a step"),
    tolerance=_TOLERANCE,
    why_tolerance="accumulated rounding of 200 sums of numbers of one size, at most 200 times 2e-16, and a safety factor",
    checked_with="simulate: sign descent of all weights by automatic differentiation",
    default_trials=96,
    quick_trials=48,
    single_tolerance=None,
    dynamics=("descent",),
    rounds=tuple(
        {"loss": loss, "classes": classes}
        for loss, classes in (("cross-entropy", 2), ("hinge", 1), ("exponential", 2), ("squared", 1))
    ),
    details={"steps": _SIGN_STEPS},
    drops=(Drop("antipodal classes, or one (orthogonal classes instead)", _signs_beside),),
    figure=lambda outcome, ax: _draw(outcome, ax, "steps of sign descent", "symlog"),
)
def sign_descent(rng: np.random.Generator, loss: str, classes: int) -> Trials:
    """Random directions; neurons of both signs, half of them of the wrong sign for their class."""
    geometry = two_rays(rng, -1.0)
    start = exclusive_start(rng, wrong_signs=0.5)
    network = start.network(rng, geometry)
    data = geometry.data
    if classes == 1:
        data = Dataset(geometry.norms[0] * geometry.axes[:1], [1.0])
    size = np.sqrt(np.sum(start.a**2 + start.zeta**2, axis=-1) / WIDTH)
    step_size = size * log_uniform(rng, 1e-3, 3e-2, BATCH)
    run = train(data, network, loss, SignDescent(step_size), _SIGN_STEPS, _SIGN_STEPS // _RECORDS)
    gaps, sides = law_gaps(data, network, loss, run, start.scale(geometry), SignDescent(step_size))
    group = f"{loss}, {'one class' if classes == 1 else 'antipodal classes'}"
    return Trials(gaps, lambda i: record(data, loss, network, i, step_size=step_size[i], **sides(i)), group=group)


# Mini-batches.

_DRAWS, _SIZE = 9, 2
_GOAL, _WAIT = 0.9, 80  # the logit that defines the first step, and the largest number of steps


def _logit_of_batches(solution: Any, runs: np.ndarray, _: int) -> tuple[np.ndarray, ...]:
    """The logit after all steps."""
    law = solution.distribution(_DRAWS)
    return runs[:, _DRAWS], np.asarray(law.values), np.asarray(law.probabilities)


def _wait_for_goal(solution: Any, runs: np.ndarray, _: int) -> tuple[np.ndarray, ...]:
    """The first step at which the logit is at least `_GOAL`."""
    return first_passage(solution, runs, _GOAL)


_PROBLEMS = (
    *(Drawn(loss, _logit_of_batches, _DRAWS, _SIZE) for loss in ("cross-entropy", "hinge", "cross-entropy")),
    *(Drawn("hinge", _wait_for_goal, _WAIT, size) for size in (_SIZE, 3)),
)


def _draw_batches(outcome: Outcome, ax: Any) -> None:
    """The logits on the axis below, the first steps on an axis of their own above."""
    above = ax.twiny()
    draw_distributions(outcome, above, f"step at which the logit is {_GOAL}, with {_SIZE} and 3 points a step", slice(3, 5))
    above.get_legend().remove()
    draw_distributions(outcome, ax, f"logit of a class after {_DRAWS} steps of {_SIZE} points", slice(0, 3))
    lines = [line for part in (ax, above) for line in part.get_lines()]
    for line in above.get_lines():
        line.set_linestyle("--" if line.get_linestyle() == "-" else line.get_linestyle())
        line.set_marker("s" if line.get_marker() == "." else line.get_marker())
        line.set_markersize(3)
    named: dict[str, Any] = {}
    for line in lines:
        if not str(line.get_label()).startswith("_"):
            named.setdefault(str(line.get_label()), line)
    names = [name + (" (wait, above)" if line.axes is above and ":" in name else "") for name, line in named.items()]
    place: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": 2}
    ax.legend(list(named.values()), names, frameon=False, fontsize=8, **place)


def _without_replacement(key: Any) -> Counterexample:
    """Drop "with replacement": every batch holds both points of the data, so that all seeds give the same run."""
    data, network, mode, step_size = problem_of_draws(generator(key), antipodal=False)
    p = float(mode.frequency)
    data = Dataset(np.asarray(data.points)[[0, 2]], [1.0, -1.0], [p, 1 - p])
    # Both points of the data are in every batch: plain descent in which each point has the weight 1/2.
    halves = Dataset(data.points, data.labels, [0.5, 0.5])
    network = TwoLayerReLU(np.asarray(network.w)[None], np.asarray(network.z)[None])
    run = train(halves, network, "cross-entropy", GradientDescent(step_size), _DRAWS, _DRAWS)
    found = float(np.asarray(run.recorded)[0, -1, 0])
    law = theory.solve_mode(mode, "cross-entropy", StochasticGradientDescent(step_size, _SIZE)).distribution(_DRAWS)
    return Counterexample.of(
        "points drawn with replacement (both points of the data in every batch instead)",
        Quote("the logit of class +", f"after {_DRAWS} steps", law=float(law.mean), trained=found, unit=abs(found) + 1e-3),
        1e-3,
        record(halves, "cross-entropy", network, 0, step_size=step_size, steps=_DRAWS),
        rest="the mean of the law is meant, and every run is the same",
    )


@register(
    name="mini-batches",
    equation="17.5",
    title="Mini-batches: a finite sum over sequences of draws",
    meaning="The spread of mini-batch training over seeds is a finite sum; larger batches narrow it in a known way.",
    claim="with B points a step, drawn with replacement, the factors are 1 ± eta r g n/B with n binomial: the distribution "
    "of the logit over seeds is a finite sum; with hinge loss below its margin the mean is two powers, and the first step "
    "with a logit is a sum over counts of draws",
    formula=(
        r"\begin{split} F_\pm &= 1 \,\pm\, \eta\, r\, g(u)\, \frac{n}{B}, \qquad n \sim \text{Binomial}(B, p), \\ "
        r"\text{hinge:} \quad \text{E}\, u_T &= \frac{r}{4} \left[ \mu_+^T\, M_+ - \mu_-^T\, M_- \right], \qquad "
        r"\mu_\pm = (1 \,\pm\, \eta\, p\, r)^2 + (\eta r)^2\, \frac{p (1 - p)}{B} \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "orthogonal classes, or antipodal ones with neurons of the right sign",
        "the mean: hinge loss, no margin reached, every neuron stays; the first step: hinge loss, eta r < 1",
    ),
    tolerance=1.0,
    why_tolerance="the largest of three statistics over its critical value; ties of the discrete law are broken at random",
    checked_with="simulate: descent on B random points of all weights by automatic differentiation, one key a seed",
    default_trials=5 * 20_000,
    quick_trials=5 * 4000,
    power="as of the law of one point a step: with 20,000 seeds a frequency 2 % off is seen; a step size that is off at "
    "all, beyond 1e-9, gives logits that no seed has, which counts as infinite",
    single_tolerance=None,
    dynamics=("sgd",),
    drops=(_without_replacement,),
    figure=_draw_batches,
)
def mini_batches(key: Any, trials: int) -> Outcome:
    """Three problems compare the logit after nine steps of two points, and with hinge loss its mean (17.5) too; two more,
    with hinge loss, compare the first step at which the logit reaches a goal, with two and with three points a step."""
    return try_distributions(key, trials, _PROBLEMS, beside=_mean_beside)


def _mean_beside(solution: Any, mode: Any, runs: np.ndarray) -> float:
    """The distance of the mean over seeds from (17.5), in critical values, for hinge loss while no seed can be at the
    margin; 0 otherwise."""
    steps = _DRAWS
    fastest = np.asarray(solution.own.logit(np.arange(steps)))
    if isinstance(solution.own.loss_function, Hinge):
        steps = int(np.argmax(np.append(fastest >= 1, True)))
        leaving = np.asarray(solution.own.leaving_step(steps + 1))
        if steps and not (np.isfinite(leaving) & (np.asarray(mode.a) > 0)).any():
            found = runs[:, steps]
            off = abs(found.mean() - float(solution.expected_logit(steps)))
            return float(off / (4 * found.std() / np.sqrt(found.size)))
    return 0.0
