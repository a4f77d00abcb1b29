"""Features that share samples: their laws at any depth (10.1), and how much one starves another (10.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve import theory
from gradstarve.problem import LOSSES, Dataset, DeepReLU, GradientDescent, Loss, TwoLayerReLU
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theorems._entry import COLOURS, Hypothesis, Outcome, Problem, TrialLog
from gradstarve.theorems._figure import LawFigure, Marks
from gradstarve.theorems._register import Drop, Trials, add, compared, drawn, register
from gradstarve.theorems._sampling import LOSS_NAMES, flow_rtol, generator, log_uniform, pick

# Random problems of features that share samples, trained in batches: every trial has its own data and its own loss.
#
# All have three orthogonal features in three dimensions and three sample types, so that one compiled simulator per depth
# serves all entries of section 10. The starving pair is the types {1}, {1, 2} and {3}, the last one independent of the pair.

COUNT = 128  # problems in a batch
KINDS = 3  # sample types, features and dimensions
PAIR = np.array([[1.0, 0, 0], [1, 1, 0], [0, 0, 1]])
TIMES = np.array([0.1, 0.5, 2.0, 10.0, 50.0, 250.0])
_MOST_STEPS = 3000
FRACTIONS = np.array([0.25, 0.5, 0.75, 1.0])  # of the time of `Problems.limit`
_STEPS, _LEVELS = 2048, 5


class AnyLoss(Loss):
    """The loss number `which` of `LOSS_NAMES`, plus (penalty/2) m^2: one compiled program trains with all of them."""

    name: ClassVar[str] = "any"
    which: Array
    penalty: Array | float = 0.0

    def value(self, margin):
        """l(m) of the chosen loss."""
        values = [LOSSES[name]().value(margin) for name in LOSS_NAMES]
        return jnp.select([self.which == k for k in range(len(values))], values) + self.penalty / 2 * margin**2


@dataclass(frozen=True)
class Problems:
    """A batch of problems: `points` [b, n, d], all of label +1, `weights` [b, n], `losses` [b] by name, networks [b].

    Descent adds (penalty/2) m^2 to the loss of a sample and (decay/2) |theta|^2 to the loss of the data, [b] or a number
    each.
    """

    points: np.ndarray
    weights: np.ndarray
    losses: np.ndarray
    network: Any
    decay: np.ndarray | float = 0.0
    penalty: np.ndarray | float = 0.0

    @property
    def ratio(self) -> np.ndarray:
        """q = p_1/p_12 of the starving pair, [b]."""
        return self.weights[:, 0] / self.weights[:, 1]

    def flow(self, times: np.ndarray = TIMES) -> tuple[np.ndarray, Any, np.ndarray]:
        """Gradient flow of all weights: the logits [b, times, n], the last networks, and which could not be followed [b]."""
        logits, final = _flows(tuple(times), *self._arrays())
        logits = np.asarray(logits)
        return logits, final, np.asarray(~np.isfinite(logits).all(axis=(-1, -2)))

    def descent(self, step_size: np.ndarray, steps: int, every: int) -> tuple[np.ndarray, Any]:
        """Gradient descent of all weights, `step_size` [b]: logits [b, records, n] and the networks at each record."""
        numbers = (jnp.asarray(np.broadcast_to(x, len(self.losses)), float) for x in (step_size, self.decay, self.penalty))
        logits, networks = _descents(steps, every, *self._arrays(), *numbers)
        return np.asarray(logits), networks

    def limit(self, time: np.ndarray) -> np.ndarray:
        """The logits at `FRACTIONS` of `time` [b] for ever smaller steps, extrapolated to step size 0: [b, fractions, n].

        Descent with 128, 256, ..., 2048 steps up to that time and Romberg's table of the differences, which are a power
        series in the step size where the residual is smooth. Compiles in a fraction of the time of an adaptive integrator.
        """
        every = _STEPS // (FRACTIONS.size << (_LEVELS - 1))
        table = []
        for level in range(_LEVELS):
            count = (FRACTIONS.size * every) << level
            logits, _ = self.descent(time / count, _STEPS, every)
            table.append(logits[:, (np.arange(FRACTIONS.size) + 1) << level])
        for order in range(1, _LEVELS):
            table = [fine + (fine - coarse) / (2**order - 1) for coarse, fine in pairwise(table)]
        return table[0]

    def _arrays(self):
        which = np.array([LOSS_NAMES.index(name) for name in self.losses])
        return jnp.asarray(self.points), jnp.asarray(self.weights), jnp.asarray(which), self.network

    def instance(self, index: int, **more: Any) -> dict[str, Any]:
        """Everything needed to run problem `index` again."""
        points = self.points[index]
        mine = {"points": points, "labels": np.ones(points.shape[0]), "weights": self.weights[index]}
        return {"loss": str(self.losses[index]), **mine, **pick(self.network, index), **more}

    def recorded(self, each: dict[str, Any], **same: Any) -> Callable[[int], dict[str, Any]]:
        """`numbers` of `Trials`: the instance of a problem with `each` [b, ...] at its own place, and the `same` for all."""
        return lambda i: self.instance(i, **same, **{name: value[i] for name, value in each.items()})

    def overlapping(self, cosine: float) -> Problems:
        """The pair with feature 2, of norm 1, turned towards feature 1 up to that cosine."""
        turned = self.points.copy()
        first, second = self.points[:, 0], self.points[:, 1] - self.points[:, 0]
        turned[:, 1] = first + cosine * first + np.sqrt(1 - cosine**2) * second
        return replace(self, points=turned)

    def connected(self, start: np.ndarray) -> Problems:
        """Ordinary networks of two layers with the logits `start` [b, k], whose neurons are aligned with one feature each.

        The sample {1, 2} moves w_j by z_j p_12 g (e_1 + e_2): off the feature that the neuron started with, at once.
        """
        layer = np.sqrt(start)
        return replace(self, network=TwoLayerReLU(layer[..., None] * np.eye(KINDS), layer))


def _dataset(points, weights) -> Dataset:
    return Dataset(points, np.ones(points.shape[0]), weights)


@partial(jax.jit, static_argnums=0)
def _flows(times, points, weights, which, network):
    def one(points, weights, which, network):
        data, loss = _dataset(points, weights), AnyLoss(which)
        options = {"rtol": flow_rtol(), "max_steps": _MOST_STEPS, "progress": False, "throw": False}
        run = simulate_flow(data, network, loss, np.array(times), **options)
        return run.recorded, run.final

    return jax.vmap(one)(points, weights, which, network)


@partial(jax.jit, static_argnums=(0, 1))
def _descents(steps, every, points, weights, which, network, step_size, decay, penalty):
    def one(points, weights, which, network, step_size, decay, penalty):
        data, loss = _dataset(points, weights), AnyLoss(which, penalty)
        dynamics = GradientDescent(step_size, 0.0, False, decay)
        how = {"record_every": every, "record_networks": True, "progress": False, "throw": False}
        run = simulate(data, network, loss, dynamics, steps, **how)
        return run.recorded, run.networks

    return jax.vmap(one)(points, weights, which, network, step_size, decay, penalty)


def pair_weights(rng: np.random.Generator, low: float = 1e-2, high: float = 1e2) -> np.ndarray:
    """(p_1, p_12, p_3), [b, 3]: q log-uniform, with 1, 1e-3 and 1e3 on purpose; p_3 from a thousandth to a half."""
    ratio = log_uniform(rng, low, high, COUNT)
    ratio[:3] = 1, low / 10, 10 * high
    rest = log_uniform(rng, 1e-3, 0.5, COUNT)
    return np.stack([ratio / (1 + ratio) * (1 - rest), (1 - rest) / (1 + ratio), rest], axis=-1)


def small_starts(rng: np.random.Generator, depth: int = 2) -> np.ndarray:
    """v_k(0) for paths of two layers and more, [b, 3]: log-uniform up to 0.3; the first half are equal starts.

    From 1e-3 for two layers and from 0.03 for more layers, which leave a smaller start so late and so suddenly that most
    steps of equal length would be spent on the plateau.
    """
    start = log_uniform(rng, 1e-3 if depth == 2 else 0.03, 0.3, (COUNT, KINDS))
    start[: COUNT // 2] = start[: COUNT // 2, :1]
    return start


def chosen(rng: np.random.Generator, losses: tuple[str, ...]) -> np.ndarray:
    """A loss for each problem, [b]."""
    return np.array(losses)[rng.integers(len(losses), size=COUNT)]


def split(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(v_1, v_2) from the logits of the samples {1} and {1, 2}, [..., n]."""
    return logits[..., 0], logits[..., 1] - logits[..., 0]


def frames(rng: np.random.Generator) -> np.ndarray:
    """A random orthonormal frame for each problem, rows are directions: [b, d, d]."""
    return np.linalg.qr(rng.normal(size=(COUNT, KINDS, KINDS)))[0]


def one_layer(
    rng: np.random.Generator,
    weights: np.ndarray,
    losses: np.ndarray,
    types: Any = PAIR,
    start: Any = 0.0,
    scales: Any = 1.0,
) -> Problems:
    """A linear read-out, in random frames: v_k = w . r_k e_k."""
    axes = frames(rng)
    features = axes * np.broadcast_to(scales, (COUNT, KINDS))[..., None]
    along = np.broadcast_to(start, (COUNT, KINDS)) / np.broadcast_to(scales, (COUNT, KINDS))
    network = DeepReLU.paths(np.einsum("bk,bkd->bd", along, axes)[:, None], list(range(KINDS)), KINDS)
    return Problems(np.einsum("sk,bkd->bsd", types, features), weights, losses, network)


def paths(
    depth: int,
    weights: np.ndarray,
    losses: np.ndarray,
    start: np.ndarray,
    types: Any = PAIR,
    scales: Any = 1.0,
    tilt: float = 1.0,
) -> Problems:
    """Balanced paths of `depth` layers, one per feature, along the coordinate axes: v_k = r_k b_k^N.

    `tilt` other than 1 breaks the balance: it multiplies the first layer of feature 2 and divides the last one.
    """
    scales = np.broadcast_to(scales, (COUNT, KINDS))
    layers = np.repeat(((start / scales) ** (1 / depth))[:, None], depth, axis=1)
    layers[:, 0, 1] *= tilt
    layers[:, -1, 1] /= tilt
    network = DeepReLU.paths(layers, list(range(KINDS)), KINDS)
    return Problems(np.asarray(types) * scales[:, None], weights, losses, network)


def _points(problem: Problem) -> np.ndarray:
    data: Any = problem.data
    return np.asarray(data.points)


def _is_pair(problem: Problem) -> bool:
    """Two orthonormal features in the samples {1}, {1, 2} and, if there are more, others at right angles to both."""
    points = _points(problem)
    features = np.stack([points[0], points[1] - points[0]])
    rest = points[2:] @ features.T
    return bool(np.allclose(features @ features.T, np.eye(2), atol=1e-9) and np.allclose(rest, 0, atol=1e-9))


def _from_zero(problem: Problem) -> bool:
    network: Any = problem.network
    return network.depth == 1 and not np.asarray(network.layers[0]).any()


def _aligned(problem: Problem) -> bool:
    """One layer, or separate paths whose layers are equal and whose first layers read one coordinate each."""
    network: Any = problem.network
    if network.depth == 1:
        return True
    first, *_, last = (np.asarray(layer) for layer in network.layers)
    parted = network.connections is not None and (np.sum(network.connections[0], axis=-1) == 1).all()
    return bool(parted and np.allclose(first.sum(-1), last, rtol=1e-9))


def _seen_by_all(problem: Problem) -> bool:
    network: Any = problem.network
    return bool((np.asarray(network.w) @ _points(problem).T > 0).all())


NESTED = Hypothesis("every sample with feature 2 also has feature 1, and the features are orthogonal, of norm 1", _is_pair)
FROM_ZERO = Hypothesis("one layer, started at zero", _from_zero)
ALIGNED = Hypothesis("one layer, or balanced paths of N layers that see one feature each (connections restricted)", _aligned)
SEEN_BY_ALL = Hypothesis("two layers, neurons active on every sample", _seen_by_all)


BY_FLOW_EACH = "simulate_flow: adaptive Runge-Kutta on all weights of the full network"
BY_LIMIT = "simulate: descent on all weights with 128 to 2048 steps, extrapolated to step size 0"
LIMIT_TOLERANCE = 1e-7
WHY_LIMIT = (
    "what Romberg's extrapolation leaves over the times of the sampler, 1e-9 at most, and a hundred times that for the "
    "samples that move fastest"
)


# The entries.

# One loss per depth and two rounds of them: each new pair needs a compilation.
_ROUNDS = tuple(
    {"depth": depth, "loss": loss}
    for losses in (("squared", *3 * ("cross-entropy",)), ("cross-entropy", "exponential", "exponential", "squared"))
    for depth, loss in zip((1, 2, 3, 5), losses, strict=True)
)


def _types(rng: np.random.Generator) -> np.ndarray:
    """Three sample types of three features: the starving pair, a ring, or random ones."""
    ring = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]])
    types = (PAIR, ring, rng.integers(0, 2, (KINDS, KINDS)).astype(float))[rng.integers(3)]
    return np.maximum(types, np.eye(KINDS))  # no type and no feature is empty


def _against_flow(problems: Problems, types: Any, depth: int, scales: Any, start: Any, time: Any, **more: Any) -> Trials:
    """Trained logits beside those of `theory.feature_flow`, over the largest of the law's at that time."""
    trained = problems.limit(time)
    # In units of each problem's time, which multiplies the probabilities.
    loss = str(problems.losses[0])
    law = np.asarray(
        theory.feature_flow(
            types, problems.weights * time[:, None], loss, depth=depth, scales=scales, init=start
        ).margins(FRACTIONS)
    )
    size = np.abs(law).max(-1)
    times = FRACTIONS * time[:, None]
    numbers = problems.recorded({"times": times, "trained": trained, "law": law})
    texts: dict[str, Any] = {"quantity": lambda i, k, kind: f"the logit of {('{1}', '{1, 2}', '{3}')[kind]}"}
    texts["when"] = lambda i, k, *_: f"at t = {times[i, k]:.4g}"
    return compared(trained, law, np.where(size > 0, size, 1)[..., None], numbers, **texts, **more)


def _reweighted(rng: np.random.Generator) -> Trials:
    """Three features that share samples in a ring, trained with the weights that make them equally fast at the start, make
    the slowest as fast as possible, or let all reach 1 at one time; and with other weights, which do not beat the bound."""
    types, loss, step, problems = np.array([[1.0, 1, 0], [0, 1, 1], [1, 0, 1]]), "cross-entropy", 1e-2, 2
    scales = log_uniform(rng, 0.9, 1.1, (problems, KINDS))
    given = rng.dirichlet(np.ones(KINDS), problems) + 0.05
    given /= given.sum(-1, keepdims=True)
    pairs = list(zip(given, scales, strict=True))
    equal, fast = (
        [law(types, p, loss, scales=r) for p, r in pairs] for law in (theory.equal_speed_weights, theory.fastest_weights)
    )
    timed = [theory.equal_time_weights(types, p, loss, logit=1.0, scales=r) for p, r in pairs]
    weights = np.concatenate([[plan.weights for plan in plans] for plans in (equal, fast, timed)] + [given])
    rows = np.arange(COUNT) % len(weights)
    trained = one_layer(rng, weights[rows], np.full(COUNT, loss), types, scales=np.tile(scales, (4, 1))[rows])
    parted = np.linalg.inv(types).T
    speeds = trained.descent(np.full(COUNT, step), 60, 1)[0][:, 1] @ parted / step
    time = np.array([plan.time for plan in timed])[rows % problems]
    ends = trained.limit(time)[:, -1] @ parted
    bound = np.array([plan.bound for plan in fast])[rows % problems]
    slowest = speeds.min(-1)
    claimed = np.array([plan.speeds for plan in equal])[rows % problems]
    gaps = np.select(
        [rows < problems, rows < 2 * problems, rows < 3 * problems],
        [np.abs(speeds - claimed.mean(-1, keepdims=True)).max(-1), np.abs(slowest - bound), np.abs(ends - 1).max(-1)],
        np.maximum(slowest - bound, 0),
    )
    first = slice(len(weights))
    numbers = trained.recorded({"speeds": speeds, "at_the_time_of_the_law": ends}, types=types)
    return Trials(gaps[first], numbers, group="re-weighted")


def _turned(rng: np.random.Generator) -> Trials:
    """Feature 2 at a cosine of 0.3 to feature 1."""
    problems = one_layer(rng, pair_weights(rng, 0.1, 10.0), np.full(COUNT, "squared")).overlapping(0.3)
    ones = np.ones((COUNT, KINDS))
    return _against_flow(problems, PAIR, 1, ones, 0 * ones, np.full(COUNT, 3.0))


def _unrestricted(rng: np.random.Generator) -> Trials:
    """All connections: an ordinary network whose neurons start aligned with one feature each."""
    weights, losses, start = pair_weights(rng, 0.3, 3.0), np.full(COUNT, "cross-entropy"), small_starts(rng)
    problems = paths(2, weights, losses, start).connected(start)
    ones, rest = np.ones((COUNT, KINDS)), "the neurons have mixed the features"
    return _against_flow(problems, PAIR, 2, ones, start, np.full(COUNT, 10.0), rest=rest)


def _sharing(rng: np.random.Generator, depth: int, loss: str) -> Trials:
    """Sample types, probabilities, norms and starts at random."""
    types, weights, losses = _types(rng), rng.dirichlet(np.ones(KINDS), COUNT) + 1e-3, np.full(COUNT, loss)
    weights /= weights.sum(-1, keepdims=True)
    scales = log_uniform(rng, 0.5, 2, (COUNT, KINDS))
    time = log_uniform(rng, 0.3, 10, COUNT) / scales.max(-1) ** 2
    start = rng.normal(size=(COUNT, KINDS)) * 0.2 if depth == 1 else small_starts(rng, depth)
    if depth == 1:
        problems = one_layer(rng, weights, losses, types, start, scales)
    else:
        problems = paths(depth, weights, losses, start, types, scales)
    return _against_flow(problems, types, depth, scales, start, time, group=f"N = {depth}, {loss}")


def moves_most(trial: dict[str, Any]) -> int:
    """The sample, or type of samples, whose margin moves most; for a counterexample, the one furthest from its law."""
    return int(np.argmax(np.abs(trial["off"]).max(0) if "off" in trial else np.ptp(trial["trained"], axis=0)))


def _marks(trial: dict[str, Any]) -> Marks | None:
    """Marks of deep paths only, because the recorded numbers of a read-out do not show which types share a feature."""
    if "times" not in trial or ("off" not in trial and len(trial["layers"]) == 1):
        return None
    return np.asarray(trial["times"]) / trial["times"][-1], np.asarray(trial["trained"])[:, moves_most(trial)]


def _curve(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    points, depth = np.asarray(trial["points"]), len(trial["layers"])
    types, scales = (points != 0).astype(float), points.max(0)
    start = scales * np.asarray(trial["layers"][-1]).reshape(-1) ** depth
    flow = theory.feature_flow(types, trial["weights"], trial["loss"], depth=depth, scales=scales, init=start)
    return np.asarray(flow.margins(x * trial["times"][-1]))[:, moves_most(trial)]


@register(
    name="features",
    equation="10.1",
    title="Features that share samples",
    meaning="Features that share samples compete for the same gradient, and the whole competition is one small equation "
    "per feature.",
    claim="dv_k/dt = N r_k^(2/N) v_k^(2-2/N) sum_{S with k} p_S g(m_S), whatever the sample types; weights of types that "
    "make all features equally fast, the slowest one fastest, or all reach a logit at one time do so in training",
    formula=r"\frac{dv_k}{dt} = N\, r_k^{2/N}\, v_k^{2 - 2/N} \sum_{S \ni k} p_S\, g(m_S), \qquad m_S = \sum_{k \in S} v_k",
    hypotheses=("orthogonal features", ALIGNED, "gradient flow"),
    tolerance=LIMIT_TOLERANCE,
    why_tolerance=WHY_LIMIT,
    checked_with=BY_LIMIT,
    default_trials=4 * COUNT,
    quick_trials=2 * COUNT,
    drops=(
        Drop("orthogonal features (a cosine of 0.3 between two of them instead)", _turned),
        Drop("paths that see one feature each (all connections instead, neurons aligned at the start)", _unrestricted),
    ),
    figure=LawFigure(
        _marks,
        _curve,
        "time, as a share of the run",
        "logit of one type of sample\n(the sum of its features)",
        gap="gap of all types, relative to the largest logit",
    ),
)
def check_features(key: Any, trials: int) -> Outcome:
    """Types that share features, on paths of one, two, three and five layers, and one batch that is re-weighted."""
    log = TrialLog(LIMIT_TOLERANCE)
    for found in (_reweighted(generator(key)), *drawn(_sharing, _ROUNDS, key, trials, COUNT)):
        add(log, found)
    return log.outcome()


_ALONE = (np.array([[1.0, 0, 0], [1, 0, 0], [0, 0, 1]]), np.array([[0.0, 0, 0], [0, 1, 0], [0, 0, 1]]))
_TURNS = tuple(
    {"depth": depth, "loss": loss if depth == 1 else "cross-entropy"}
    for loss in ("cross-entropy", "exponential", "squared")
    for depth in (1, 2)
)


def _indices(
    rng: np.random.Generator, weights: np.ndarray, loss: str, depth: int, time: np.ndarray, cosine: float = 0.0
) -> Trials:
    """The starvation indices of both features, trained with both and again without one, and by the law; `cosine` of feature
    2 with feature 1."""
    losses, start = np.full(COUNT, loss), small_starts(rng) if depth == 2 else np.zeros((COUNT, KINDS))
    together, first, second = (
        one_layer(rng, weights, losses, types) if depth == 1 else paths(depth, weights, losses, start, types)
        for types in (PAIR, *_ALONE)
    )
    together = together.overlapping(cosine) if cosine else together
    alone = (first.limit(time)[..., 0], second.limit(time)[..., 1])
    with_both = split(together.limit(time))
    found = np.stack([1 - v / apart for v, apart in zip(with_both, alone, strict=True)], axis=1)  # [b, 2, fractions]
    # Each problem at its own times: the law depends on p t alone, and shares are at most 1.
    shares = weights[:, :2] * (time / time.max())[:, None]
    pair = theory.starving_pair(shares[:, 0], shares[:, 1], loss, depth=depth, init=(start[:, 0], start[:, 1]))
    law = np.stack([np.asarray(index) for index in pair.index(FRACTIONS * time.max())], axis=1)
    # The index of two logits is its definition.
    defined = np.moveaxis(np.asarray(theory.starvation_index(np.stack(with_both), np.stack(alone))), 0, 1)
    law = np.where(np.abs(found - defined) < 1e2 * np.finfo(found.dtype).eps * (1 + np.abs(found)), law, np.inf)
    times = FRACTIONS * time[:, None]
    texts: dict[str, Any] = {"quantity": lambda i, feature, k: f"the starvation index of feature {feature + 1}"}
    texts["when"] = lambda i, feature, k: f"at t = {times[i, k]:.4g}"
    texts["setting"] = lambda i: f"q = {together.ratio[i]:.3g}"
    texts["group"] = f"{depth} layer{'s' if depth > 1 else ''}, {loss}"
    texts["extra"] = {"depths": np.full(COUNT, depth), "law": law[..., -1], "trained": found[..., -1]}
    return compared(found, law, 1.0, together.recorded({"times": times, "trained": found, "law": law}), **texts)


def _turned_pair(rng: np.random.Generator) -> Trials:
    """Feature 2 at an acute angle to feature 1, which learns a part of it."""
    weights = pair_weights(rng, 0.1, 10.0)
    return _indices(rng, weights, "cross-entropy", 1, np.full(COUNT, 3.0), cosine=0.3)


def draw_index(outcome: Outcome, ax: Any) -> None:
    """The starvation index of both features, trained against the law."""
    ax.plot([0, 1], [0, 1], color="0.8", linewidth=4, label="law = trained")
    for depth, colours in ((1, COLOURS[:2]), (2, COLOURS[2:4])):
        mine = outcome.extra["depths"] == depth
        for k, colour in enumerate(colours):
            if mine.any():
                name = f"{('frequent', 'rare')[k]} feature, {depth} layer{'s' if depth > 1 else ''}"
                sides = (outcome.extra[side][mine, k] for side in ("law", "trained"))
                ax.plot(*sides, ".", color=colour, markersize=4, label=name)
    ax.set_xlabel("starvation index 1 − v / v alone, law")
    ax.set_ylabel("the same, trained")
    ax.legend(frameon=False, fontsize=8, loc="upper left")


@register(
    name="starvation-index",
    equation="10.6",
    title="What a feature loses to another",
    meaning="How much of a feature another one takes away is a number that can be computed before training and measured "
    "after it.",
    claim="1 - v_k(t)/v_k^alone(t), both sides trained, is what the laws of the pair and of one feature give",
    formula=(
        r"\begin{split} I_k &= 1 - \frac{v_k(t)}{v_k^{\text{alone}}(t)}, \qquad "
        r"\frac{dv_k}{dt} = N\, v_k^{2 - 2/N} \sum_{S \ni k} p_S\, g(m_S), \\ "
        r"&\frac{dv_k^{\text{alone}}}{dt} = N\, (v_k^{\text{alone}})^{2 - 2/N}\, g(v_k^{\text{alone}}) \sum_{S \ni k} p_S "
        r"\end{split}"
    ),
    hypotheses=(ALIGNED, NESTED),
    tolerance=LIMIT_TOLERANCE,
    why_tolerance=WHY_LIMIT,
    checked_with=BY_LIMIT,
    default_trials=4 * COUNT,
    quick_trials=2 * COUNT,
    batch=COUNT,
    rounds=_TURNS,
    drops=(Drop("orthogonal features (a cosine of 0.3 between the two instead)", _turned_pair),),
    figure=draw_index,
)
def starvation_index(rng: np.random.Generator, depth: int, loss: str) -> Trials:
    """One layer and two: trained with both features, and again with either of them taken out of the samples."""
    weights = pair_weights(rng)
    return _indices(rng, weights, loss, depth, log_uniform(rng, 0.5, 12, COUNT))
