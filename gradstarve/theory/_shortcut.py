"""A shortcut that contradicts the label on a minority (section 20): curves, rests, peaks, and the accuracy of each cell.

Samples y (r_c e_1 + s r_s e_2), s = +1 with probability p; majority a = v_c + v_s, minority b = v_c - v_s. It is (10.1) with
types of +1 and -1. With one layer

    da/dt = (r_c^2 + r_s^2) p g(a) + (r_c^2 - r_s^2)(1-p) g(b)
    db/dt = (r_c^2 - r_s^2) p g(a) + (r_c^2 + r_s^2)(1-p) g(b),                                               (20.1)

so that equal scales give two independent clocks (20.2). Cross-entropy and the exponential loss end at
v_s = log(p/(1-p))/2 for any scales, up to two layers (20.3); hinge at (20.4); any loss with a finite rest u* at v_c =
u* and v_s = 0 (20.5). The exponential loss has the orbit sinh(L - v_s) = sinh(L) e^(-(r_s/r_c)^2 v_c), L = log(p/(1-p))/2:
the size of the shortcut decides the power of time of the approach. (With three layers and more v_s stops below L.)

Samples may have Gaussian noise of standard deviation sigma in every direction. A read-out w = (v_k/r_k) then
gives a sample of type S the margin m_S + sigma |w| xi, right with probability Phi(m_S/(sigma |w|)), and training on all such
samples is, by Stein's lemma,

    dv_k/dt = r_k^2 sum_S p_S S_k E g(m_S + sigma |w| xi) + sigma^2 v_k sum_S p_S E g'(m_S + sigma |w| xi).      (20.6)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    as_number,
    check_positive,
    check_sum_is_one,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
    short_repr,
)
from gradstarve.problem import (
    Dataset,
    Exponential,
    Focal,
    LearningCurve,
    Loss,
    MarginShift,
    Temperature,
    as_loss,
    beginnings,
    ends_of,
    given,
    phase_at,
    signed_types,
)
from gradstarve.theory._depth import one_layer_time
from gradstarve.theory._features import FeatureFlow, feature_flow, least_point
from gradstarve.theory._flat import is_flat, kinks_and_levels
from gradstarve.theory._flows import follow
from gradstarve.theory._mode import insert_axes
from gradstarve.theory._phases import chosen, local
from gradstarve.theory._piecewise import check_times

_GRID, _FINE = 513, 129  # numbers of times of a search in log t
_EARLY, _LATE = 1e-6, 1e9  # the limits of a search, over the largest squared scale
_SIGN = 1e-8  # a speed below this share of its terms counts as rounding
_NODES = 257  # of the trapezoidal rule in xi, from -8 to 8: 1e-13 up to sigma |w| = 10


class Peak(NamedTuple):
    """The `time` at which each shortcut is largest, [*batch, L], and its logit there, the `height`, [*batch, L].

    A shortcut that only rises has the time inf and its rest as height.
    """

    time: np.ndarray
    height: np.ndarray


class Stop(NamedTuple):
    """The `time` at which the accuracy of the worst cell is largest, this `accuracy`, and the accuracy `at_the_end`.

    Numbers for one problem, arrays [*batch] for a batch.
    """

    time: Any
    accuracy: Any
    at_the_end: Any


class Change(NamedTuple):
    """At `time` feature `feature` is "learnt" or "unlearnt" (`what`)."""

    time: float
    feature: int
    what: str


class Shortcut(LearningCurve):
    """Cores and shortcuts under gradient flow (20.1). Made by `shortcut`; t is time, a scalar or an array of any shape.

    `parts`: the `FeatureFlow` of each phase of weights, whose t begins at 0, until `until`; `population`: the frequency of
    each cell, [*batch, S]; `cores`: C, the number of features before the shortcuts; `noise`: sigma in training, [*batch].

    Logits and margins are those of the S cells without noise, in the order of `types`: first all shortcuts agree, last all
    contradict; error, loss and mistakes are means over the population of these margins.
    """

    __repr__ = short_repr

    parts: tuple[FeatureFlow, ...]
    population: Float[Array, "*batch S"]
    noise: Float[Array, "..."]
    until: tuple[float, ...] = eqx.field(static=True)
    cores: int = eqx.field(static=True)
    noisy: bool = eqx.field(static=True)

    @property
    def types(self) -> Float[Array, "S K"]:
        """The signs of each feature in each cell."""
        return self.parts[0].types

    @property
    def scales(self) -> Float[Array, "*batch K"]:
        """r_k."""
        return self.parts[0].scales

    @property
    def depth(self) -> int:
        """Layers N."""
        return self.parts[0].depth

    @property
    def loss_function(self) -> Loss:
        """l(m)."""
        return self.parts[0].loss_function

    @property
    def data(self) -> Dataset | None:
        """The cells as points of label +1, None for a batch of problems."""
        if self._batch:
            return None
        return Dataset(self.types * self.scales, jnp.ones(self.types.shape[0], self._dtype), self.population)

    def features(self, t: Any) -> Float[Array, "..."]:
        """v_k(t), first of the cores and then of the shortcuts: [*batch, *t.shape, K]. Errors as in `FeatureFlow`."""
        if len(self.parts) == 1:
            return self._part(self.parts[0], check_times(t, self._dtype))
        when, places = local(t, self.until, False, self._dtype)
        found = [self._part(part, place) for part, place in zip(self.parts, places, strict=True)]
        return chosen(found, phase_at(self.until, when), 1)

    def _part(self, part: FeatureFlow, t: Array) -> Array:
        return _noisy_features(part, self.noise, t) if self.noisy else part.features(t)

    def logits(self, t: Any = None) -> Float[Array, "..."]:
        """f on the features of each cell, all in favour of the label: [*batch, *t.shape, S]."""
        return self.features(given(t)) @ self.types.T

    def margins(self, t: Any = None) -> Float[Array, "..."]:
        """m_S(t): [*batch, *t.shape, S]. For one shortcut a and b of (20.1)."""
        return self.logits(t)

    def error(self, t: Any = None) -> Float[Array, "..."]:
        """sum_S p_S sigmoid(-m_S), [*batch, *t.shape]."""
        return self._mean(jax.nn.sigmoid(-self.margins(t)))

    def loss(self, t: Any = None) -> Float[Array, "..."]:
        """sum_S p_S l(m_S), [*batch, *t.shape]."""
        return self._mean(self.loss_function.value(self.margins(t)))

    def mistakes(self, t: Any = None) -> Float[Array, "..."]:
        """The weight of the cells with m_S <= 0, [*batch, *t.shape]."""
        return self._mean((self.margins(t) <= 0).astype(self._dtype))

    # The cells.

    def cell_accuracy(self, t: Any, noise: Any = None) -> Float[Array, "..."]:
        """The accuracy of the read-out on each cell, [*batch, *t.shape, S]: Phi(m_S/(sigma |w|)), 1/2 at w = 0.

        `noise`: sigma > 0 of the test samples, a number or [*batch], by default that of training. `HypothesisError` at depth
        >= 2, where the network is not a linear read-out of the noise.
        """
        if self.depth > 1:
            raise HypothesisError(
                "one layer, whose margins have Gaussian noise (20.6)",
                f"depth = {self.depth}",
                "margins(t), or test samples through a trained network",
            )
        if noise is None and not self.noisy:
            raise ValueError("noise must be given, the standard deviation of the test samples, as training has none")
        (noise,) = real_arrays(noise=self.noise if noise is None else noise)
        check_positive("noise", noise)
        t = check_times(t, self._dtype)
        v = self.features(t)
        noise = jnp.broadcast_to(noise, self._batch)[..., None]
        scales, sigma = insert_axes(self.scales, t.ndim), insert_axes(noise, t.ndim)
        return _accuracy(v, v @ self.types.T, scales, sigma)

    def average_accuracy(self, t: Any, noise: Any = None) -> Float[Array, "..."]:
        """The accuracy over the population, [*batch, *t.shape]; arguments as in `cell_accuracy`."""
        return self._mean(self.cell_accuracy(t, noise))

    def worst_accuracy(self, t: Any, noise: Any = None) -> Float[Array, "..."]:
        """The accuracy on the worst cell, [*batch, *t.shape]; arguments as in `cell_accuracy`."""
        return jnp.min(self.cell_accuracy(t, noise), axis=-1)

    def best_stop(self, until: float, noise: Any = None) -> Stop:
        """The time up to `until` at which the accuracy of the worst cell is largest.

        The noise of the test samples changes the accuracy but not this time, which maximises m_S/|w| of the worst
        cell. From zero this ratio has a limit at t = 0, so that the time may be the earliest one tried, 1e-6 `until`.
        `noise`: as in `cell_accuracy`.
        """
        until = as_number("until", until, 0, with_low=False)
        if self._batch:
            self._known("best_stop")
            noises = None if noise is None else np.broadcast_to(np.asarray(noise), self._batch)
            stops = [
                self._of(index).best_stop(until, None if noises is None else noises[index])
                for index in np.ndindex(*self._batch)
            ]
            return Stop(*np.reshape(np.array(stops).T, (3, *self._batch)))
        self._known("best_stop")
        grid = np.geomspace(1e-6, 1, _GRID) * until
        last, time, best = float(self.worst_accuracy(grid[-1], noise)), 0.0, 0.0
        for _ in range(3):
            values = np.asarray(self.worst_accuracy(grid, noise))
            k = int(np.argmax(values))
            time, best = float(grid[k]), float(values[k])
            grid = np.geomspace(grid[max(k - 1, 0)], grid[min(k + 1, len(grid) - 1)], _FINE)
        return Stop(time, best, last)

    # Rest, peak and order of the features.

    @property
    def rest(self) -> Float[Array, "*batch K"]:
        """v_k for t to inf, [*batch, K], inf for cores that grow for ever (20.3)-(20.5).

        `HypothesisError` if the limit is not known: cross-entropy at depth >= 3, several cores at depth >= 2, noise, losses
        without a known tail.
        """
        last, loss = self.parts[-1], self.loss_function
        if self.noisy:
            raise HypothesisError("training without noise", "(20.6) has no closed rest", "features(t) at a late t")
        if is_flat(loss):
            return last.features(float(jnp.finfo(self._dtype).max) / 1e9)
        tail = _tail(loss, self.types.shape[0], self._dtype)
        if tail is None:
            return self._settled(last)
        if self.depth > 2:
            raise HypothesisError(
                "at most two layers, for which v_s tends to a limit of its own (20.3)",
                f"depth = {self.depth}, where v_s stops on its way, as its speed falls faster than 1/v_c",
                "features(t) at a late t",
            )
        rate, weights = tail
        shown = self.types[:, self.cores :]
        p = (last.probabilities * weights).reshape(-1, self.types.shape[0])
        found = least_point(shown, p, Exponential(), self.depth).reshape(*self._batch, -1) / rate
        return jnp.concatenate([jnp.full((*self._batch, self.cores), jnp.inf, found.dtype), found], axis=-1)

    def _settled(self, last: FeatureFlow) -> Array:
        """The settled logits; several cores act as one core, and each gets the part r_k^2 of its gain."""
        types, cores = self.types, self.cores
        if cores > 1 and self.depth > 1:
            raise HypothesisError(
                "one core, or one layer", f"{cores} cores at depth = {self.depth}", "features(t) at a late t"
            )
        joined = jnp.concatenate([types[:, :1], types[:, cores:]], axis=1)
        p = last.probabilities.reshape(-1, types.shape[0])
        found = least_point(joined, p, self.loss_function, self.depth).reshape(*self._batch, -1)
        start, squares = last.start[..., :cores], self.scales[..., :cores] ** 2
        gain = found[..., :1] - jnp.sum(start, axis=-1, keepdims=True)
        shared = start + squares / jnp.sum(squares, axis=-1, keepdims=True) * gain
        return jnp.concatenate([shared, found[..., 1:]], axis=-1)

    def peak(self) -> Peak:
        """The time and the height of the maximum of each shortcut.

        In closed form for one core and one shortcut from zero with one layer and hinge (20.4) or squared loss; otherwise
        the zero of dv_s/dt along the curve, searched in log t up to 1e9 over the largest squared scale. With phases, whose
        speeds jump, the largest v_s of that search.
        """
        self._known("peak")
        count = self.types.shape[1] - self.cores
        if self._batch:
            peaks = [self._of(index).peak() for index in np.ndindex(*self._batch)]
            return Peak(*(np.reshape([peak[i] for peak in peaks], (*self._batch, count)) for i in range(2)))
        part = self.parts[0]
        explicit = len(self.parts) == self.cores == count == self.depth == 1
        explicit = explicit and not self.noisy and not np.asarray(part.start).any()
        if explicit and self.loss_function.clock is not None and self.loss_function.offset is None:
            q = np.asarray(part.probabilities, np.float64)
            core, side = np.asarray(self.scales, np.float64) ** 2
            if q[0] > q[1]:
                law = hinge_peak if self.loss_function.stops else squared_peak
                return Peak(*(np.atleast_1d(x) for x in law(q[0], q[1], core, side)))
        grid = _grid(np.asarray(self.scales))
        v = np.asarray(self._up_to(grid))
        grid = grid[: len(v)]
        times, heights = np.full(count, np.inf), np.full(count, np.nan)
        for k in range(count):
            if len(self.parts) > 1:
                times[k], heights[k] = self._highest(self.cores + k, grid, v[:, self.cores + k])
                continue
            speed, size = self._speeds(v, self.cores + k)
            falls = np.flatnonzero(speed < -_SIGN * size)
            rises = np.flatnonzero(speed[: falls[0]] > _SIGN * size[: falls[0]]) if falls.size else falls
            if rises.size:
                times[k], heights[k] = self._top(self.cores + k, float(grid[rises[-1]]), float(grid[falls[0]]))
            else:
                heights[k] = np.asarray(self.rest)[self.cores + k]
        return Peak(times, heights)

    def _highest(self, k: int, grid: np.ndarray, values: np.ndarray) -> tuple[float, float]:
        """The largest v_k by its values alone: its time, inf if it is the last one, and its height."""
        i = int(np.argmax(values))
        if i == len(values) - 1:
            return np.inf, float(np.asarray(self.rest)[k])
        for _ in range(6):
            grid = np.geomspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], _FINE)
            inside = [end for end in self.until if grid[0] < end < grid[-1]]
            grid = np.unique(np.append(grid, inside))  # the curve has its corners there
            values = np.asarray(self.features(grid))[:, k]
            i = int(np.argmax(values))
        return float(grid[i]), float(values[i])

    def _up_to(self, grid: np.ndarray, curve: Any = None) -> np.ndarray:
        """The features, or another `curve`, at the times of `grid` that can be reached."""
        while True:
            try:
                return np.asarray((curve or self.features)(grid))
            except ConvergenceError:
                if len(grid) < 64:
                    raise
                grid = grid[: -len(grid) // 8]

    def _speeds(self, v: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """The push on feature k at the features `v`, [T], and the size of its terms."""
        part = self.parts[0]
        if self.noisy:
            push, size = _noisy_push(part, jnp.asarray(v, self._dtype), self.noise)
            return np.asarray(push)[:, k], np.asarray(size)[:, k]
        margins = jnp.asarray(v, self._dtype) @ self.types.T
        terms = np.asarray(part.probabilities * self.loss_function.residual(margins) * self.types[:, k])
        return terms.sum(-1), np.abs(terms).sum(-1)

    def _top(self, k: int, low: float, high: float) -> tuple[float, float]:
        """The time at which the speed of feature k changes its sign between two times, and v_k there."""
        for _ in range(5):
            grid = np.geomspace(low, high, _FINE)
            v = np.asarray(self.features(grid))
            if is_flat(self.loss_function):  # straight lines between events: the largest is at one of them
                i = int(np.argmax(v[:, k]))
            else:
                i = max(int(np.argmax(self._speeds(v, k)[0] <= 0)), 1)
                low, high = grid[i - 1], grid[i]
                continue
            low, high = grid[max(i - 1, 0)], grid[min(i + 1, _FINE - 1)]
        i = int(np.argmax(v[:, k]))
        return float(grid[i]), float(v[i, k])

    def changes(self, level: float) -> list[Any]:
        """All times at which a v_k crosses `level`, in order: when features are learnt and unlearnt.

        For a batch a list of such lists, one for each problem, nested as its axes are.
        """
        self._known("changes")
        level = as_number("level", level)
        if self._batch:
            return [self._of((i,)).changes(level) for i in range(self._batch[0])]
        grid = _grid(np.asarray(self.scales))
        v = self._up_to(grid)
        found = []
        for k in range(v.shape[1]):
            above = v[:, k] >= level
            for i in np.flatnonzero(above[1:] != above[:-1]):
                here = lambda t, k=k: np.asarray(self.features(t))[:, k]  # noqa: E731
                when = _crossing(here, float(grid[i]), float(grid[i + 1]), level, bool(above[i + 1]))
                found.append(Change(when, k, "learnt" if above[i + 1] else "unlearnt"))
        return sorted(found)

    # The contract of a learning curve.

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.population.shape[:-1]

    @property
    def _dtype(self) -> Any:
        return self.parts[0].start.dtype

    @property
    def _unit(self) -> str:
        return "time"

    def _mean(self, of_cells: Array) -> Array:
        return jnp.sum(insert_axes(self.population, of_cells.ndim - self.population.ndim) * of_cells, axis=-1)

    def _known(self, what: str) -> None:
        if not all(map(is_concrete, (self.population, self.scales, self.parts[0].start))):
            raise ValueError(f"{what} searches along the curve and needs known numbers; call it outside jit, grad and vmap")

    def _of(self, index: tuple[int, ...]) -> Shortcut:
        """One problem of the batch, or the problems at an index of its first axes."""
        parts = tuple(
            FeatureFlow(
                part.types, part.probabilities[index], part.scales[index], part.start[index], part.loss_function, part.depth
            )
            for part in self.parts
        )
        return Shortcut(parts, self.population[index], self.noise[index], self.until, self.cores, self.noisy)

    def _time_to(self, what: str, level: Array, max_steps: int) -> Array:
        self._known(f"time_to_{what}")
        if self._batch:
            found = [self._of(index)._time_to(what, level, max_steps) for index in np.ndindex(*self._batch)]
            return jnp.asarray(np.reshape(found, (*self._batch, *np.shape(level))), self._dtype)
        grid, curve = _grid(np.asarray(self.scales)), getattr(self, what)
        values, first = self._up_to(grid, curve), float(np.asarray(curve(0.0)))
        found = []
        for goal in np.ravel(np.asarray(level)):
            k = int(np.argmax(values <= goal)) if (values <= goal).any() else -1
            if first <= goal:
                found.append(0.0)
            elif k < 0:
                found.append(np.inf)
            else:
                low = grid[k - 1] if k else grid[0] * 1e-6
                found.append(_crossing(lambda t: -np.asarray(curve(t)), low, grid[k], -goal, True))
        return jnp.asarray(found, self._dtype).reshape(np.shape(level))


def shortcut(
    agreement: Any,
    loss: Loss | str,
    *,
    core: Any = 1.0,
    shortcut: Any = 1.0,
    depth: int = 1,
    init: Any = None,
    weights: Any = None,
    noise: Any = None,
) -> Shortcut:
    """A core feature of norm r_c and a shortcut of norm r_s that agrees with the label on a share p of the samples (20.1).

    `agreement`: p, 0 < p < 1; `core`, `shortcut`: r_c and r_s. For several features, [L] of `agreement` and `shortcut` are
    independent shortcuts, [C] of `core` are cores, C + L <= 6; [*batch, L] are several problems. `depth`, `init` as in
    `feature_flow` (features: the cores, then the shortcuts; paths of two and more layers are linear).

    `weights`: of the 2^L cells in training, [S] > 0 of sum 1, by default their frequencies; or a list of phases
    [(until, weights), ..., (None, weights)] in time, with None for the default weights: deferred re-weighting.
    `noise`: sigma > 0, the noise of the training samples (20.6), one layer; by default none.

    >>> law = shortcut(0.9, "hinge", core=2.0, shortcut=1.0)
    >>> [round(float(x), 4) for x in law.features(1e3)], [round(float(x[0]), 4) for x in law.peak()]     # (20.4)
    ([1.1, 0.1], [0.2083, 0.1667])
    >>> core, side = shortcut(0.9, "cross-entropy", shortcut=3.0).rest           # log(9)/2, whatever the scales (20.3)
    >>> float(core), round(float(side), 4)
    (inf, 1.0986)
    """
    depth, loss = positive_int("depth", depth), as_loss(loss)
    types, population, scales = signed_types(agreement, core, shortcut)
    cells = types.shape[0]
    cores = types.shape[1] - int(np.log2(cells))
    phases = weights if isinstance(weights, list | tuple) and _are_pairs(weights) else [(None, weights)]
    until, values = ends_of(phases, "weights")
    if noise is not None:
        (noise,) = real_arrays(noise=noise)
        check_positive("noise", noise)
        if depth > 1:
            raise HypothesisError("one layer (20.6)", f"noise with depth = {depth}", "simulate(...) on noisy samples")
    parts: list[FeatureFlow] = []
    start, batch = init, ()
    for number, value in enumerate(values):
        p = population if value is None else _checked(value, cells)
        part = feature_flow(types, p, loss, depth=depth, scales=scales, init=start)
        parts.append(part)
        shapes = (part.start.shape[:-1], population.shape[:-1], () if noise is None else noise.shape)
        batch = np.broadcast_shapes(batch, *shapes)
        if number < len(values) - 1:
            length = check_times(until[number] - beginnings(until)[number], part.start.dtype)
            start = part.features(length) if noise is None else _noisy_features(part, noise, length)
    dtype = parts[0].start.dtype
    spread = [_widened(part, batch) for part in parts]
    sigma = jnp.broadcast_to(jnp.zeros((), dtype) if noise is None else noise.astype(dtype), batch)
    return Shortcut(
        tuple(spread), jnp.broadcast_to(population, (*batch, cells)), sigma, until, cores, noise is not None
    )


_law = shortcut  # under a name that no argument shadows


def _widened(part: FeatureFlow, batch: tuple[int, ...]) -> FeatureFlow:
    p, r, v = (jnp.broadcast_to(leaf, (*batch, leaf.shape[-1])) for leaf in (part.probabilities, part.scales, part.start))
    return FeatureFlow(part.types, p, r, v, part.loss_function, part.depth)


def _are_pairs(weights: Any) -> bool:
    return bool(weights) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in weights)


def _checked(weights: Any, cells: int) -> Array:
    (weights,) = real_arrays(weights=weights)
    if weights.shape[-1:] != (cells,):
        raise ValueError(f"weights must have {cells} entries, one a cell, got shape {weights.shape}")
    check_positive("weights", weights)
    check_sum_is_one("weights", weights)
    return weights


# Closed forms of one core and one shortcut, one layer, from zero.


def hinge_peak(p: Any, q: Any, core: Any, side: Any) -> tuple[Any, Any]:
    """(time, v_s) at which a reaches 1 with the hinge loss (20.4); q = 1 - p, `core` = r_c^2, `side` = r_s^2."""
    time = 1 / (core * (p + q) + (p - q) * side)
    return time, (p - q) * side * time


def squared_peak(p: Any, q: Any, core: Any, side: Any) -> tuple[Any, Any]:
    """(time, v_s) at the peak with the squared loss: v_s is a difference of two exponentials with the rates l and h."""
    total = (core + side) * (p + q)
    root = np.sqrt(total**2 - 16 * p * q * core * side)
    low, high = (total - root) / 2, (total + root) / 2
    time = np.log(high / low) / root
    return time, (p - q) * side * (np.exp(-low * time) - np.exp(-high * time)) / root


def _tail(loss: Loss, cells: int, dtype: Any) -> tuple[Any, Array] | None:
    """(rate, factor of each cell) with g ~ factor e^(-rate m) for large m; None for a loss that comes to rest."""
    if loss.offset is not None:
        return 1.0, jnp.ones(cells, dtype)
    if type(loss) is Focal:
        return loss.gamma + 1, jnp.ones(cells, dtype)
    if type(loss) is MarginShift:
        inside = _tail(loss.loss, cells, dtype)
        return inside and (inside[0], inside[1] * jnp.exp(inside[0] * loss.shift))
    if type(loss) is Temperature and loss.temperature.ndim == 0:
        inside = _tail(loss.loss, cells, dtype)
        return inside and (inside[0] / loss.temperature, inside[1])
    return None


# Searches in log t.


def _grid(scales: np.ndarray) -> np.ndarray:
    return np.geomspace(_EARLY, _LATE, _GRID) / float(np.max(scales) ** 2)


def _crossing(values: Any, low: float, high: float, level: float, rising: bool) -> float:
    """The time between `low` and `high` at which `values`(times) crosses `level`: bisection in log t, then a chord."""
    for _ in range(3):
        grid = np.geomspace(low, high, _FINE)
        here = values(grid)
        there = here >= level if rising else here < level
        k = max(int(np.argmax(there)), 1) if there.any() else _FINE - 1
        low, high = grid[k - 1], grid[k]
    gap = here[k] - here[k - 1]
    share = np.clip((level - here[k - 1]) / gap, 0, 1) if gap else 0.5
    return float(low + share * (high - low))


# Noise (20.6).


@quick_jit(few=0)
def _accuracy(v: Array, margins: Array, scales: Array, sigma: Array) -> Array:
    size = jnp.sqrt(jnp.sum((v / scales) ** 2, axis=-1, keepdims=True))
    some = size > 0
    return jax.scipy.stats.norm.cdf(jnp.where(some, margins / jnp.where(some, sigma * size, 1), 0))


class _NoisyField(eqx.Module):
    """(20.6)."""

    loss_function: Loss

    def __call__(self, v: Array, problem: Any) -> Array:
        types, p, r, sigma = problem
        first, second = self.terms(v, types, p, r, sigma)
        return jnp.sum(first, axis=0) + second

    def terms(self, v: Array, types: Array, p: Array, r: Array, sigma: Array) -> tuple[Array, Array]:
        """The push of each cell, [S, K], and the pull of the noise, [K]."""
        margins = types @ v
        spread = sigma * jnp.sqrt(jnp.sum((v / r) ** 2) + jnp.finfo(v.dtype).tiny ** 0.5)
        mean, slope = _blurred(self.loss_function, margins, spread)
        return r**2 * (p * mean)[:, None] * types, sigma**2 * v * (p @ slope)


def _blurred(loss: Loss, margins: Array, spread: Array) -> tuple[Array, Array]:
    """E g(m + spread xi) and E g'(m + spread xi) of each margin [S]."""
    if is_flat(loss):
        kinks, levels = kinks_and_levels(loss, margins.shape[0], margins.dtype)
        far, jumps = (kinks - margins) / spread, levels[:-1] - levels[1:]
        mean = levels[-1] + jnp.sum(jumps * jax.scipy.stats.norm.cdf(far), axis=0)
        return mean, -jnp.sum(jumps * jax.scipy.stats.norm.pdf(far), axis=0) / spread
    if loss.kinks:
        raise HypothesisError(
            "a smooth loss, or one whose residual is constant between kinks (20.6)", f"loss = {loss.name!r}", "simulate(...)"
        )
    nodes = np.linspace(-8, 8, _NODES)
    share = jnp.asarray(np.exp(-(nodes**2) / 2) / np.exp(-(nodes**2) / 2).sum(), margins.dtype)
    at = margins + spread * jnp.asarray(nodes, margins.dtype)[:, None]
    g, slope = jax.jvp(loss.residual, (at,), (jnp.ones_like(at),))
    return share @ g, share @ slope


def _noisy_features(part: FeatureFlow, noise: Array, t: Array) -> Array:
    batch = jnp.broadcast_shapes(part.start.shape[:-1], noise.shape)
    p, r, v = (
        jnp.broadcast_to(leaf, (*batch, leaf.shape[-1])).reshape(-1, leaf.shape[-1])
        for leaf in (part.probabilities, part.scales, part.start)
    )
    sigma = jnp.broadcast_to(noise, batch).reshape(-1).astype(v.dtype)
    types = jnp.broadcast_to(part.types, (*p.shape[:1], *part.types.shape))
    found = follow(_NoisyField(part.loss_function), v, (types, p, r, sigma), t.reshape(-1))
    return found.reshape(*batch, *t.shape, -1)


@quick_jit(eqx.filter_jit, few=0)
def _noisy_push(part: FeatureFlow, v: Array, noise: Array) -> tuple[Array, Array]:
    def one(v: Array) -> tuple[Array, Array]:
        first, second = _NoisyField(part.loss_function).terms(v, part.types, part.probabilities, part.scales, noise)
        return jnp.sum(first, axis=0) + second, jnp.sum(jnp.abs(first), axis=0) + jnp.abs(second)

    return jax.vmap(one)(v)


# The minority that an accuracy needs.


def minority_needed(
    accuracy: Any,
    t: Any,
    loss: Loss | str,
    *,
    core: Any = 1.0,
    shortcut: Any = 1.0,
    noise: Any = None,
    train_noise: Any = None,
) -> Float[Array, ""]:
    """The least share 1 - p of contradicting samples with which the worst cell has `accuracy` at time t; NaN if none does.

    Without `noise` the accuracy is the probability sigmoid(b) that the network gives to the right label of the minority, and
    for equal scales it is in closed form: 2 r^2 (1-p) t = T(b), T the time of one read-out (3.9), (20.2). With `noise` sigma
    it is the share of the worst cell that is right (`cell_accuracy`), by the flow, with one layer, to 1e-9; `train_noise` is
    that of training. Only shares 1 - p up to 1/2 are considered. `ValueError` for bad numbers.

    >>> round(float(minority_needed(0.9, 100.0, "cross-entropy")), 4)          # (b + e^b - 1)/(2 t) with b = log 9
    0.051
    """
    loss = as_loss(loss)
    wanted = as_number("accuracy", accuracy, 0, 1, with_low=False, with_high=False)
    t = as_number("t", t, 0, with_low=False)
    core, side = as_number("core", core), as_number("shortcut", shortcut)
    logit = float(np.log(wanted) - np.log1p(-wanted))
    dtype = jnp.result_type(float)
    if noise is None and train_noise is None and core == side and loss.clock is not None:
        share = one_layer_time(1.0, float(np.sqrt(2) * core), 0.0, loss, logit) / t
        return jnp.asarray(jnp.where(share <= 0.5, share, jnp.nan), dtype)
    tried = np.geomspace(1e-6, 0.5, _FINE)
    tried[-1] = 0.5
    low = high = 0.5
    ends = np.array([0.0, 1.0])
    for _ in range(4):
        law = _law((1 - tried[:, None]).astype(dtype), loss, core=core, shortcut=side, noise=train_noise)
        if noise is None and train_noise is None:
            reached = np.asarray(jnp.min(law.margins(t), axis=-1)) - logit
        else:
            reached = np.asarray(law.worst_accuracy(t, noise)) - wanted
        if not (reached >= 0).any():
            return jnp.asarray(np.nan, dtype)
        k = int(np.argmax(reached >= 0))
        if k == 0:
            return jnp.asarray(tried[0], dtype)
        low, high, ends = tried[k - 1], tried[k], reached[k - 1 : k + 1]
        tried = np.linspace(low, high, _FINE)
    return jnp.asarray(low + (high - low) * ends[0] / (ends[0] - ends[1]), dtype)
