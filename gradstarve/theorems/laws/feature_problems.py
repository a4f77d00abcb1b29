"""Random problems of features that share samples, trained many at once: every trial has its own data and its own loss.

All have three orthogonal features in three dimensions and three sample types, so that one compiled simulator a depth serves
all entries of section 10. The starving pair is the types {1}, {1, 2} and {3}, the last one independent of the pair.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.problem import LOSSES, Dataset, DeepReLU, GradientDescent, Loss
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theorems._hypotheses import Hypothesis, Problem
from gradstarve.theorems._running import flow_rtol
from gradstarve.theorems._sampling import LOSS_NAMES, log_uniform, pick

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

    Descent adds (penalty/2) m^2 to the loss of a sample and (decay/2) |theta|^2 to that of the data, [b] or a number each.
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
        """Gradient flow of all weights: the logits [b, times, n], the last networks, and who was given up on [b]."""
        logits, final = _flows(tuple(times), *self._arrays())
        logits = np.asarray(logits)
        return logits, final, np.asarray(~np.isfinite(logits).all(axis=(-1, -2)))

    def descent(self, step_size: np.ndarray, steps: int, every: int) -> tuple[np.ndarray, Any]:
        """Gradient descent of all weights, `step_size` [b]: logits [b, records, n] and the networks at each record."""
        numbers = (jnp.asarray(np.broadcast_to(x, len(self.losses)), float) for x in (step_size, self.decay, self.penalty))
        logits, networks = _descents(steps, every, *self._arrays(), *numbers)
        return np.asarray(logits), networks

    def limit(self, time: np.ndarray) -> np.ndarray:
        """The logits at `FRACTIONS` of `time` [b] for ever smaller steps, extrapolated to none: [b, fractions, n].

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
        run = simulate(data, network, loss, dynamics, steps, every, record_networks=True, progress=False, throw=False)
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

    From 1e-3 for two layers and from 0.03 for more, which leave a smaller start so late and so suddenly that steps of
    equal length would waste themselves on the waiting.
    """
    start = log_uniform(rng, 1e-3 if depth == 2 else 0.03, 0.3, (COUNT, KINDS))
    start[: COUNT // 2] = start[: COUNT // 2, :1]
    return start


def chosen(rng: np.random.Generator, losses: tuple[str, ...]) -> np.ndarray:
    """A loss for each problem, [b]."""
    return np.array(losses)[rng.integers(len(losses), size=COUNT)]


def overlapping(points: np.ndarray, cosine: float) -> np.ndarray:
    """The samples [b, n, d] of the pair with feature 2, of norm 1, turned towards feature 1 up to that cosine."""
    turned = points.copy()
    first, second = points[:, 0], points[:, 1] - points[:, 0]
    turned[:, 1] = first + cosine * first + np.sqrt(1 - cosine**2) * second
    return turned


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
    """Balanced paths of `depth` layers, one a feature, along the coordinate axes: v_k = r_k b_k^N.

    `tilt` other than 1 takes the balance away: the first layer of feature 2 is that much larger, the last as much smaller.
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
    """One layer, or paths beside each other whose layers are equal and whose first ones see one coordinate each."""
    network: Any = problem.network
    if network.depth == 1:
        return True
    first, *_, last = (np.asarray(layer) for layer in network.layers)
    parted = network.connections is not None and (np.sum(network.connections[0], axis=-1) == 1).all()
    return bool(parted and np.allclose(first.sum(-1), last, rtol=1e-9))


def _seen_by_all(problem: Problem) -> bool:
    network: Any = problem.network
    return bool((np.asarray(network.w) @ _points(problem).T > 0).all())


NESTED = Hypothesis(
    "every sample with feature 2 also has feature 1, and the features are orthogonal, of norm 1", _is_pair
)
FROM_ZERO = Hypothesis("one layer, started at zero", _from_zero)
ALIGNED = Hypothesis(
    "one layer, or balanced paths of N layers that see one feature each (connections restricted)", _aligned
)
SEEN_BY_ALL = Hypothesis("two layers, neurons active on every sample", _seen_by_all)


BY_FLOW_EACH = "simulate_flow: adaptive Runge-Kutta on all weights of the full network"
BY_LIMIT = "simulate: descent on all weights with 128 to 2048 steps, extrapolated to step size 0"
LIMIT_TOLERANCE = 1e-7
WHY_LIMIT = (
    "what Romberg's extrapolation leaves over the times of the sampler, 1e-9 at most, and a hundred times that for the "
    "samples that move fastest"
)
