"""Training for all studies of the digits: one network per seed, all seeds together, and statistics over seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.problem import Dataset, GradientDescent, TwoDigits, datasets, init_two_layer
from gradstarve.simulation import simulate

Tell = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Runs:
    """One training run per seed. `time` [records]; margins y f(x), [seeds, records, images], of the training images, the
    test images without patch, and the test images of class + with it; `positive`, `patched` [images]: which training images
    are of class + and carry the patch; `positive_test`: which test images are of class +.
    """

    time: np.ndarray
    train: np.ndarray
    test: np.ndarray
    test_patched: np.ndarray
    positive: np.ndarray
    patched: np.ndarray
    positive_test: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether all seeds stayed finite."""
        return bool(np.isfinite(self.train).all())

    def error(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """sigmoid(-m) averaged over the training images `which`, [seeds, records]."""
        from scipy.special import expit

        return expit(-self.train[..., which]).mean(-1)

    def margin(self, which: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The margin averaged over the training images `which`, [seeds, records]."""
        return self.train[..., which].mean(-1)

    @property
    def fitted(self) -> np.ndarray:
        """Share of the training images on the right side, [seeds, records]."""
        return (self.train > 0).mean(-1)

    @property
    def clean_positive(self) -> np.ndarray:
        """Accuracy on the test images of class + without patch, [seeds, records]."""
        return (self.test[..., self.positive_test] > 0).mean(-1)

    @property
    def clean_negative(self) -> np.ndarray:
        """Accuracy on the test images of class -, [seeds, records]."""
        return (self.test[..., ~self.positive_test] > 0).mean(-1)

    @property
    def clean(self) -> np.ndarray:
        """Accuracy on the test images without patch, the mean of both classes, [seeds, records]."""
        return (self.clean_positive + self.clean_negative) / 2

    @property
    def with_patch(self) -> np.ndarray:
        """Accuracy on the test images of class + with the patch, [seeds, records]."""
        return (self.test_patched > 0).mean(-1)


def problems(settings: dict[str, Any], **options: Any) -> list[TwoDigits]:
    """`datasets.digits` of the pair, once for each seed: every seed has its own split."""
    first = settings["seed"]
    return [datasets.digits(tuple(settings["pair"]), key=first + i, **options) for i in range(settings["seeds"])]


def networks(settings: dict[str, Any], scale: float) -> Any:
    """One two-layer network per seed, all weights ~ N(0, scale^2)."""
    key = jax.random.key(settings["seed"])
    return init_two_layer(key, settings["seeds"], settings["width"], datasets.digits().train.dim, scale, scale)


def train(
    data: Sequence[TwoDigits],
    start: Any,
    loss: Any,
    step_size: float,
    time: float,
    records: int,
    weight_decay: float = 0.0,
    weights: Callable[[TwoDigits], Any] | None = None,
) -> Runs:
    """Train network i of `start` on `data`[i] by full-batch descent up to `time` (step size x step), some `records` records.

    `weights` gives new weights of the training images, [n]. Sizes must be the same for all seeds.
    """
    steps = max(1, round(time / step_size))
    every = max(1, round(steps / records))
    steps = max(1, steps // every) * every
    dtype = start.dtype

    def stack(pick):
        return jnp.stack([pick(one) for one in data]).astype(dtype)

    first = data[0]
    points, labels = stack(lambda one: one.train.points), first.train.labels.astype(dtype)
    share = stack(lambda one: one.train.weights if weights is None else jnp.asarray(weights(one)))
    unseen = stack(lambda one: jnp.concatenate([one.test.points, one.test_patched.points]))
    dynamics = GradientDescent(jnp.asarray(step_size, dtype), weight_decay=jnp.asarray(weight_decay, dtype))
    seen, outputs = _train(points, share, labels, unseen, start, loss, dynamics, steps, every)
    outputs, count = np.asarray(outputs, np.float64), first.test.size
    return Runs(
        time=np.arange(0, steps + 1, every) * step_size,
        train=np.asarray(seen, np.float64) * np.asarray(labels),
        test=outputs[..., :count] * np.asarray(first.test.labels),
        test_patched=outputs[..., count:],
        positive=np.asarray(labels) > 0,
        patched=first.patched,
        positive_test=np.asarray(first.test.labels) > 0,
    )


@eqx.filter_jit
def _train(
    points: Float[Array, "seeds n d"],
    weights: Float[Array, "seeds n"],
    labels: Float[Array, " n"],
    unseen: Float[Array, "seeds m d"],
    start: Any,
    loss: Any,
    dynamics: Any,
    steps: int,
    every: int,
) -> tuple[Float[Array, "seeds records n"], Float[Array, "seeds records m"]]:
    """Logits of the training images and of the `unseen` ones. One program serves all seeds: the splits differ in rank, so
    that engines that train in the span of the data would compile once for each split."""

    def one(points, weights, unseen, network):
        run = simulate(
            Dataset(points, labels, weights), network, loss, dynamics, steps, record_every=every, record_networks=True
        )
        return run.recorded, run.networks(unseen)

    return jax.vmap(one)(points, weights, unseen, start)


def crossing(time: np.ndarray, curves: np.ndarray, level: float) -> np.ndarray:
    """The time at which each of `curves` [..., records] first reaches `level`, interpolated; nan if it never does.

    >>> crossing(np.array([0.0, 1.0, 2.0]), np.array([[0.0, 1.0, 3.0], [0.0, 0.1, 0.2]]), 2.0).tolist()
    [1.5, nan]
    """
    above = curves >= level
    place = above.argmax(-1)
    before = np.maximum(place - 1, 0)
    low, high = (np.take_along_axis(curves, i[..., None], -1)[..., 0] for i in (before, place))
    share = np.divide(level - low, high - low, out=np.zeros(place.shape), where=(high > low) & (place > 0))
    return np.where(above.any(-1), time[before] + share * (time[place] - time[before]), np.nan)


def interval(values: Any, axis: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds with its 95 % confidence interval by Student's t: (mean, low, high). A nan makes all three nan.

    >>> [round(float(x), 3) for x in interval([1.0, 2.0, 3.0])]
    [2.0, -0.484, 4.484]
    """
    from scipy.special import stdtrit

    values = np.asarray(values, np.float64)
    count = values.shape[axis]
    mean = np.asarray(values.mean(axis))
    if count < 2:
        return mean, np.full_like(mean, -np.inf), np.full_like(mean, np.inf)
    half = stdtrit(count - 1, 0.975) * values.std(axis, ddof=1) / np.sqrt(count)
    return mean, np.asarray(mean - half), np.asarray(mean + half)


def slopes(x: Any, times: np.ndarray) -> np.ndarray:
    """The slope of log `times` [values, seeds] against log `x` [values] or [values, seeds], least squares, one per seed.

    >>> slopes([1.0, 2.0, 4.0], np.array([[8.0], [4.0], [2.0]])).round(12).tolist()
    [-1.0]
    """
    x = np.log(np.broadcast_to(np.asarray(x, np.float64).reshape(len(times), -1), times.shape))
    y = np.log(times)
    x, y = x - x.mean(0), y - y.mean(0)
    return (x * y).sum(0) / (x * x).sum(0)
