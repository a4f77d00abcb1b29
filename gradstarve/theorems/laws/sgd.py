"""Descent on one random point a step (8.3): the exact distribution over seeds, against tens of thousands of them."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, Mode, StochasticGradientDescent, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import EXCLUSIVE, ONE_RAY, SEPARABLE, of_losses
from gradstarve.theorems._running import train
from gradstarve.theorems._sampling import generator, generators, log_uniform, record
from gradstarve.theorems.laws.fates import MOST, PLANE

_STEPS = 100
_FEW = 4000  # seeds of a counterexample
_SHARES = 2  # points of the class, drawn with different probabilities
_KOLMOGOROV = 1.9494746  # D sqrt(n) above it has probability 0.001
_STANDARD_ERRORS = 4.0
# What is computed twice differs by rounding; two values of a distribution differ by far more.
_ROUNDING = 1e-9


def _problem(rng: np.random.Generator, antipodal: bool) -> tuple[Dataset, TwoLayerReLU, Mode, float]:
    """A class of two points in one direction and one point of the other class; exclusive neurons; the mode; a step size.

    Antipodal: neurons of the right sign. Orthogonal: of any sign, those of the wrong one die.
    """
    turn = np.linalg.qr(rng.normal(size=(PLANE, PLANE)))[0]
    axis, other = turn[0], -turn[0] if antipodal else turn[1]
    norm, p = log_uniform(rng, 0.3, 3), rng.uniform(0.1, 0.6)
    share = rng.uniform(0.2, 0.8)
    points = np.stack([norm * axis, norm * axis, other])
    data = Dataset(points, [1.0, 1.0, -1.0], [p * share, p * (1 - share), 1 - p])
    a = log_uniform(rng, 0.2, 0.5, MOST) / np.sqrt(norm)
    zeta = log_uniform(rng, 0.2, 0.5, MOST) / np.sqrt(norm)
    if not antipodal:
        zeta[-1] = -a[-1] * rng.uniform(1.2, 2)
    w = a[:, None] * (axis - (0 if antipodal else 0.5) * other)
    return data, TwoLayerReLU(w, zeta), Mode(p, norm, a, zeta), log_uniform(rng, 0.05, 0.3) / norm


def _runs(problem: Any, loss: str, seeds: int, key: Any) -> np.ndarray:
    """The logit of the class in `seeds` runs at every step, [seeds, steps + 1]."""
    data, network, _, step_size = problem
    crowd = jax.tree.map(lambda leaf: np.broadcast_to(np.asarray(leaf), (seeds, *leaf.shape)), network)
    run = train(data, TwoLayerReLU(crowd.w, crowd.z), loss, StochasticGradientDescent(step_size), _STEPS, 1, key)
    return np.asarray(run.recorded)[..., 0]


def _gap(rng: np.random.Generator, found: np.ndarray, values: np.ndarray, chances: np.ndarray) -> tuple[float, dict]:
    """The largest of three statistics over its critical value, and the three; infinite where a seed has a value that the
    law does not have at all, or where the law's probabilities do not sum to 1.

    Kolmogorov and Smirnov's, made exact for jumps by spreading each value evenly over its own jump of the cdf; and the
    distances of mean and variance, in standard errors that the law itself gives.
    """
    order = np.argsort(values)
    values, chances = values[order], chances[order]
    below = np.concatenate([[0.0], np.cumsum(chances)])
    size = _ROUNDING * (1 + np.abs(found))
    after = np.clip(np.searchsorted(values, found), 1, len(values) - 1)
    strange = np.minimum(np.abs(found - values[after - 1]), np.abs(found - values[after])) > size
    if strange.any() or abs(below[-1] - 1) > _ROUNDING:
        # No distribution, or one that has not the values that were found.
        return np.inf, {"strange": float(strange.mean()), "sum_of_probabilities": float(below[-1])}
    low, high = (below[np.searchsorted(values, found + shift)] for shift in (-size, size))
    place = np.sort(low + rng.uniform(size=found.size) * (high - low))
    steps = np.arange(found.size + 1) / found.size
    distance = np.sqrt(found.size) * max(np.max(steps[1:] - place), np.max(place - steps[:-1]))
    mean = np.sum(chances * values)
    variance, fourth = (np.sum(chances * (values - mean) ** power) for power in (2, 4))
    off = abs(found.mean() - mean) / np.sqrt(variance / found.size)
    spread = abs(np.mean((found - mean) ** 2) - variance) / np.sqrt((fourth - variance**2) / found.size)
    statistics = {"kolmogorov": distance, "mean_off": off, "variance_off": spread}
    critical = (_KOLMOGOROV, _STANDARD_ERRORS, _STANDARD_ERRORS)
    return max(s / c for s, c in zip(statistics.values(), critical, strict=True)), statistics


_LOSSES = ("cross-entropy", "hinge", "exponential", "squared", "cross-entropy")


def _draws_to(logit: float, mode: Mode, loss: str, step_size: float) -> int:
    """How many steps of descent on the class alone take a mode to a logit, in plain NumPy; at most `_STEPS`."""
    a, z, r = (np.asarray(leaf, float) for leaf in (mode.a, mode.z, mode.norm))
    residual = {"hinge": lambda u: float(u < 1), "squared": lambda u: 1 - u}[loss]
    for draws in range(_STEPS):
        on = a > 0
        u = r * np.sum(np.where(on, a * z, 0))
        if u >= logit:
            return draws
        x = step_size * r * residual(u) * on
        a, z = a + x * z, z + x * a
    return _STEPS


def _try(key: Any, trials: int, losses: tuple[str, ...], observe: Any) -> Outcome:
    """Five problems, `trials` / 5 seeds each; `observe(solution, runs, there)` gives (what was found, values, chances),
    with the step by which a seed is about half-way to its margin for `there`, if the loss has one."""
    tally = Tally(1.0)
    seeds = -(-trials // len(losses))
    curves = np.empty(len(losses), object)
    for k, (rng, loss) in enumerate(zip(generators(key, len(losses), 1), losses, strict=True)):
        problem = _problem(rng, antipodal=k % 2 == 1)
        data, network, mode, step_size = problem
        runs = _runs(problem, loss, seeds, jax.random.fold_in(key, 100 + k))
        solution = theory.solve_mode(mode, loss, StochasticGradientDescent(step_size))
        half = _draws_to(0.5, mode, loss, step_size) / float(mode.frequency) if loss in ("hinge", "squared") else _STEPS
        found, values, chances = observe(solution, runs, int(np.clip(half, 5, _STEPS)))
        gap, statistics = _gap(rng, found, values, chances)
        crowd = TwoLayerReLU(np.asarray(network.w)[None], np.asarray(network.z)[None])
        sides = record(data, loss, crowd, 0, step_size=step_size, steps=_STEPS, seeds=seeds, beside_the_law=statistics)
        name = f"{k + 1}: {loss}, p = {float(mode.frequency):.2f}"
        tally.add([gap], name, lambda i, s=sides: s)
        curves[k] = (name, found, values, chances)
    return tally.outcome(curves=curves, seeds=seeds)


def _logit(solution: Any, runs: np.ndarray, step: int) -> tuple[np.ndarray, ...]:
    """The logit after all steps, or, for losses with a target at 1, when about half of the seeds are half-way there."""
    law = solution.distribution(step)
    return runs[:, step], np.asarray(law.values), np.asarray(law.probabilities)


def _margin_time(solution: Any, runs: np.ndarray, _: int) -> tuple[np.ndarray, ...]:
    """Steps until the margin is reached; those that are not there after all steps count as one more."""
    there = runs >= 1
    found = np.where(there.any(axis=-1), there.argmax(axis=-1), _STEPS + 1)
    steps = np.arange(_STEPS + 1)
    chances = np.asarray(solution.time_to_logit(1.0).pmf(steps))
    return found.astype(float), np.append(steps, _STEPS + 1.0), np.append(chances, max(1 - chances.sum(), 0))


def _taken_up(key: Any, loss: str, observe: Any, quantity: str) -> Counterexample:
    """Drop "antipodal classes with neurons of the right sign": two neurons leave class - for class + on the way, when steps
    on class - have turned them; the mean of what is observed, in units of its critical distance."""
    problem = _problem(generator(key), antipodal=True)
    data, network, mode, step_size = problem
    w, z = np.array(network.w), np.array(network.z)
    w[1:] *= -1
    z[1:] = 4 * np.linalg.norm(w[1:], axis=-1)  # far beyond a, and of the wrong sign for class -: they leave it soon
    network = TwoLayerReLU(w, z)
    mode = Mode(mode.frequency, mode.norm, mode.a[:1], mode.z[:1])
    runs = _runs((data, network, mode, step_size), loss, _FEW, jax.random.fold_in(key, 1))
    solution = theory.solve_mode(mode, loss, StochasticGradientDescent(step_size))
    half = _draws_to(0.5, mode, loss, step_size) / float(mode.frequency) if loss == "hinge" else _STEPS
    step = int(np.clip(half, 5, _STEPS))
    found, values, chances = observe(solution, runs, step)
    mean = np.sum(chances * values)
    critical = _STANDARD_ERRORS * np.sqrt(np.sum(chances * (values - mean) ** 2) / found.size)
    return Counterexample.of(
        "antipodal classes with neurons of the right sign (two of them leave class - for class + on the way instead)",
        Quote(quantity, f"over {_FEW} seeds", law=mean, trained=found.mean(), unit=critical),
        1.0,
        record(data, loss, TwoLayerReLU(w[None], z[None]), 0, step_size=step_size, steps=_STEPS, seeds=_FEW),
        rest="steps on class - count as well",
    )


def distribution_of_taken_up(key: Any) -> Counterexample:
    """The logit of class + after 100 steps."""
    return _taken_up(key, "cross-entropy", _logit, f"the mean logit of class + after {_STEPS} steps")


def margin_time_of_taken_up(key: Any) -> Counterexample:
    """The first step at which class + is at its margin."""
    return _taken_up(key, "hinge", _margin_time, f"the mean number of steps to the margin (none: {_STEPS + 1})")


def check_distribution(key: Any, trials: int) -> Outcome:
    """The logit after up to 100 steps, in five problems of all losses."""
    return _try(key, trials, _LOSSES, _logit)


def check_margin_time(key: Any, trials: int) -> Outcome:
    """The first step at the margin, in five problems of hinge loss."""
    return _try(key, trials, ("hinge",) * len(_LOSSES), _margin_time)


def _draw(outcome: Outcome, ax: Any, xlabel: str) -> None:
    """The cdf of each problem: the law as a staircase, the seeds as dots."""
    for (name, found, values, chances), colour in zip(outcome.extra["curves"], COLOURS, strict=False):
        order = np.argsort(values)
        grid, cdf = values[order], np.cumsum(chances[order])
        shown = (cdf > 1e-4) & (cdf < 1 - 1e-4)
        ax.step(grid[shown], cdf[shown], where="post", color=colour, linewidth=1, label=name)
        levels = np.quantile(found, np.linspace(0.02, 0.98, 25))
        ax.plot(levels, [np.mean(found <= x + _ROUNDING * (1 + abs(x))) for x in levels], ".", color=colour, markersize=5)
    ax.plot([], [], ".", color="0.4", label=f"{outcome.extra['seeds']} trained seeds each")
    ax.set_xlabel(xlabel)
    ax.set_ylabel("probability of at most that")
    ax.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


_LEVEL = (
    "the Kolmogorov-Smirnov test has level 0.001 for each problem, mean and variance 6e-5 each: a true law fails one of the "
    "five with probability 0.006; "
)

DISTRIBUTION = Theorem(
    name="sgd-distribution",
    equation="8.3",
    title="SGD over seeds: the law of its own draws, at a binomial number of them",
    claim="after T one-point steps the logit of a class is that of m steps on the class alone with probability "
    "C(T, m) p^m (1 - p)^(T - m): its mean, variance and distribution over seeds are finite sums",
    formula=(
        r"\begin{split} u_T &= U_K, \qquad \text{P}(K = m) = \binom{T}{m}\, p^m\, (1 - p)^{T - m}, \\ "
        r"U_m &= \text{the logit after } m \text{ steps of descent on the class alone } (p = 1) \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "orthogonal classes, or antipodal ones with neurons of the right sign",
    ),
    tolerance=1.0,
    why_tolerance="the largest of three statistics over its critical value; ties of the discrete law are broken at random",
    checked_with="simulate: one-point descent on all weights by automatic differentiation, one key a seed",
    default_trials=5 * 20_000,
    quick_trials=5 * 4000,
    check=check_distribution,
    necessity=(distribution_of_taken_up,),
    power=_LEVEL + "with 4,000 seeds a frequency 2 % off puts the worst of the five at 3.6 critical values, with 20,000 at "
    "8; a step size that is off at all, beyond 1e-9, gives logits that no seed has, which counts as infinite",
    figure=lambda outcome, ax: _draw(outcome, ax, "logit of a class after up to 100 steps"),
    single_tolerance=None,
)

MARGIN_TIME = Theorem(
    name="sgd-time-to-margin",
    equation="8.3",
    title="The time to the margin is negative binomial",
    claim="with hinge loss the margin is reached at own draw m, which is step T with probability "
    "C(T - 1, m - 1) p^m (1 - p)^(T - m)",
    formula=(
        r"\begin{split} \text{P}(\text{first at the margin at step } T) &= \binom{T - 1}{m - 1}\, p^m\, (1 - p)^{T - m}, "
        r"\\ "
        r"m &= \text{the first step at which descent on the class alone } (p = 1) \text{ has } u \ge 1 \end{split}"
    ),
    hypotheses=(
        of_losses("hinge loss", "hinge"),
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "orthogonal classes, or antipodal ones with neurons of the right sign",
    ),
    tolerance=1.0,
    why_tolerance="the largest of three statistics over its critical value; ties of the discrete law are broken at random",
    checked_with="simulate: one-point descent on all weights by automatic differentiation, one key a seed",
    default_trials=5 * 20_000,
    quick_trials=5 * 4000,
    check=check_margin_time,
    necessity=(margin_time_of_taken_up,),
    power=_LEVEL + "with n seeds a frequency 2 % off moves the mean by 0.02 (m n/(1 - p))^(1/2) standard errors: with 4,000 "
    "the worst of the five is at about 1.3 critical values, with 20,000 at 2.8; a number of draws m that is off by one at 8 "
    "and 18",
    figure=lambda outcome, ax: _draw(outcome, ax, "step at which the margin is reached"),
)
