"""A table of sample types over orthogonal features, its laws, and the training of whole networks on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.ground import ConvergenceError, check_positive, positive_int, real_arrays
from gradstarve.problem import Dataset, DeepReLU, GradientDescent, TwoLayerReLU, as_loss, datasets, init_two_layer
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theorems import LOSS_NAMES, AnyLoss

QUANTILES = (0.1, 0.5, 0.9)
_MOST_STEPS = 100_000  # of descent from random starts
_FINE = 500  # of them, the first, are all recorded


@dataclass(frozen=True)
class FeatureTable:
    """The table and what is asked about it, checked: arguments of `feature_study`."""

    types: np.ndarray
    probabilities: np.ndarray
    scales: np.ndarray
    losses: tuple[str, ...]
    depths: tuple[int, ...]
    init: np.ndarray
    time: float
    key: Any

    @classmethod
    def make(cls, types, probabilities, scales, losses, depths, init, time, seed) -> FeatureTable:
        types, probabilities = real_arrays(types=types, probabilities=probabilities)
        datasets.check_types(types)
        size = types.shape[1]
        scales, init, time = real_arrays(scales=[1.0] * size if scales is None else scales, init=init, time=time)
        total = float(np.sum(np.asarray(probabilities)))
        if abs(total - 1) > 1e-5:
            raise ValueError(f"probabilities must sum to 1, got {total:.6g}; divide them by it")
        datasets.features(types, probabilities, scales=scales)  # which checks the rest
        if init.shape not in ((), (size,)):
            raise ValueError(f"init must be a number or have {size} entries, one a feature, got shape {init.shape}")
        check_positive("init", init)
        if time.shape or not float(time) > 0:
            raise ValueError(f"time must be a number > 0, got {time}")
        losses, depths = list(losses), [positive_int("depths", depth) for depth in depths]
        for name, values in (("losses", losses), ("depths", depths)):
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{name} must be at least one, each once, got {values}")
        names = tuple(as_loss(loss).name for loss in losses)
        for name in names:
            if name not in LOSS_NAMES:
                raise ValueError(f"losses must be among {', '.join(LOSS_NAMES)}, got {name!r}")
        problem = cls(
            np.asarray(types),
            np.asarray(probabilities),
            np.asarray(scales),
            names,
            tuple(depths),
            np.broadcast_to(np.asarray(init), (size,)),
            float(time),
            jax.random.key(seed),
        )
        for depth in depths:
            problem.flow(names[0], depth)  # which checks the start
        return problem

    def settings(self) -> dict[str, Any]:
        """Arguments of `feature_study`."""
        values = {name: getattr(self, name).tolist() for name in ("types", "probabilities", "scales", "init")}
        return values | {"losses": list(self.losses), "depths": list(self.depths), "time": self.time}

    def flow(self, loss: str, depth: int) -> theory.FeatureFlow:
        """The law (10.1)."""
        start = None if depth == 1 else self.init
        return theory.feature_flow(self.types, self.probabilities, loss, depth, self.scales, start)

    def points(self, frame: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Samples [1 + K, S, d], all features and then each as the only one, and the inputs r_k e_k [K, d]."""
        size = len(self.scales)
        apart = np.eye(size, dtype=self.scales.dtype)
        shown = np.asarray(datasets.features(apart, [1 / size] * size, scales=self.scales, key=frame).points)
        each = self.types.T[:, :, None] * shown[:, None]
        return np.concatenate([(self.types @ shown)[None], each]), shown


# --- training --------------------------------------------------------------------------------------------------------


def restricted(problem: FeatureTable, depth: int) -> tuple[Any, Any]:
    """Samples, and the networks that obey (10.1): a read-out of all inputs from zero in a random frame, or paths."""
    size = len(problem.scales)
    if depth == 1:
        return problem.points(problem.key), DeepReLU((np.zeros(size, problem.scales.dtype),))
    layers = np.tile((problem.init / problem.scales) ** (1 / depth), (depth, 1)).astype(problem.scales.dtype)
    return problem.points(), DeepReLU.paths(layers, list(range(size)), size)


def all_seeing(problem: FeatureTable, width: int) -> TwoLayerReLU:
    """Random neurons active on every sample, z > 0, whose logits v_k start at `init`: w [h, K] > 0."""
    drawn = np.asarray(jax.random.normal(jax.random.fold_in(problem.key, 1), (len(problem.scales) + 1, width)), float)
    z, w = np.abs(drawn[0]), np.abs(drawn[1:]).T
    # Both layers of one size, as from a standard initialisation.
    z = z * np.sqrt(np.mean(problem.init / problem.scales) / width)
    w = w * problem.init / (problem.scales * (z @ w))
    return TwoLayerReLU(*(part.astype(problem.scales.dtype) for part in (w, z)))


def train(problem: FeatureTable, samples: tuple[np.ndarray, np.ndarray], network: Any, records: np.ndarray) -> np.ndarray:
    """v_k of training, together and as the only feature: [losses, 2, R, K]."""
    points, shown = samples
    count, sets = len(problem.losses), len(points)
    which = np.repeat([LOSS_NAMES.index(loss) for loss in problem.losses], sets)
    repeated = np.tile(points, (count, 1, 1))
    found = _flows(tuple(records), repeated, problem.probabilities, which, network, shown)
    found = np.asarray(found).reshape(count, sets, len(records), -1)
    lost = np.argwhere(~np.isfinite(found).all(axis=(1, 2, 3)))
    if lost.size:
        loss = problem.losses[int(lost[0, 0])]
        raise ConvergenceError(f"training with the {loss} loss did not get to t = {problem.time:g}; ask for earlier times")
    alone = np.stack([found[:, 1 + k, :, k] for k in range(sets - 1)], axis=-1)
    return np.stack([found[:, 0], alone], axis=1)


@partial(jax.jit, static_argnums=0)
def _flows(records, points, probabilities, which, network, shown):
    def one(points, which):
        data = Dataset(points, [1] * points.shape[0], probabilities)
        options = {"max_steps": 20_000, "progress": False, "throw": False, "record_networks": True}
        run = simulate_flow(data, network, AnyLoss(which), np.array(records), **options)
        return run.networks(jnp.asarray(shown))

    return jax.vmap(one)(points, which)


def random_band(problem: FeatureTable, loss: str, width: int, networks: int, records: np.ndarray) -> np.ndarray:
    """Quantiles of v_k over random ordinary networks, [3, R, K]; NaN at records beyond the last step."""
    data = datasets.features(problem.types, problem.probabilities, scales=problem.scales)
    size = float(np.sqrt(np.mean(problem.init / problem.scales) / np.sqrt(width / 2)))
    start = init_two_layer(jax.random.fold_in(problem.key, 2), networks, width, len(problem.scales), size, size)
    step = 0.05 / float(np.max(problem.types @ problem.scales**2))
    steps = int(min(np.ceil(problem.time / step), _MOST_STEPS))
    shown, dynamics = jnp.asarray(np.diag(problem.scales)), GradientDescent(step)
    done, logits, clock = 0, [], []
    for until in (min(steps, _FINE), steps):  # log t wants the first steps more closely
        if until > done:
            every = max(1, (until - done) // 500)
            run = simulate(data, start, loss, dynamics, until - done, every, record_networks=True, progress=False)
            logits.append(np.quantile(np.asarray(_probe(run.networks, shown)), QUANTILES, axis=0))
            clock.append(step * (done + np.asarray(run.grid)))
            done, start = until, run.final
    curves, clock = np.concatenate(logits, axis=1), np.concatenate(clock)
    found = np.array([[np.interp(records, clock, curve) for curve in quantile.T] for quantile in curves])
    found = np.moveaxis(found, 1, 2)
    found[:, records > clock[-1] * (1 + 1e-9)] = np.nan
    return found


@jax.jit
def _probe(networks, shown):
    return networks(shown)
