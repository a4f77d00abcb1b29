"""Descent on random points, in distribution over the draws: one point per step (8.3), or several (17.5).

A step that draws a point of another class does not change a mode, and a step that draws a point of the mode's class (an own
draw) is a step of descent on that class alone. So after m own draws the mode is in the state of the deterministic law (8.1)
with p = 1 after m steps, deaths included, and the number of own draws among T is binomial: the whole distribution over seeds
is a finite sum. The time at which the deterministic law has made m steps becomes the time of the m-th own draw, which is
negative binomial.

With B points per step the factors are 1 ± eta r g(u) n/B, n ~ Binomial(B, p), and a step with n = 0 does not change the
mode: the distribution is a sum over the sequences of the n > 0, of which there are B^m of length m. For hinge loss below its
margin g = 1, and the mean over all of them is two powers.

The first step with u >= goal is the time of own step number m (a step with n > 0), with the probability that m own steps are
needed. Where g = 1 the factors commute, so that the state depends only on how often each n was drawn: the chance that
m own steps do not suffice is a sum over a lattice of counts k_1 + ... + k_B = m, each with its multinomial chance. A logit
rises in every own step if eta r < 1, so that the counts that do not suffice have no gaps and are found from m - 1 to m.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import gammaln

from gradstarve.ground import (
    HypothesisError,
    as_array,
    as_goal,
    fields_html,
    is_concrete,
    positive_int,
    quick_jit,
    short_repr,
    shown,
)
from gradstarve.problem import GradientDescent, Hinge, Loss, Mode, StochasticGradientDescent
from gradstarve.special import binomial_at_least, pmf
from gradstarve.theory._descent import ModeDescent, descend_mode, new_descent_law
from gradstarve.theory._mode import insert_axes

# The error of a cdf in roundings of the smaller one of its two tails: 150 to 200 were seen, for up to 3000 steps.
_ROUNDINGS = 256
# Attributes of a learning curve that a distribution over draws does not have.
_CURVE = ("logit", "logits", "margins", "error", "loss", "mistakes", "weights", "plot", "to_pandas", "to_xarray")


class LogitDistribution(eqx.Module):
    """The distribution over seeds of the logit after a number of steps: entry m belongs to m own draws.

    `values` u_m and `probabilities`, each [*batch, steps + 1], m = 0, ..., steps. Values may repeat (hinge at its margin).
    """

    values: Float[Array, "*batch outcomes"]
    probabilities: Float[Array, "*batch outcomes"]

    @property
    @quick_jit(eqx.filter_jit, few=0)
    def mean(self) -> Float[Array, "*batch"]:
        """E u, [*batch]."""
        return jnp.sum(self.probabilities * self.values, axis=-1)

    @property
    @quick_jit(eqx.filter_jit, few=0)
    def variance(self) -> Float[Array, "*batch"]:
        """E (u - E u)^2, [*batch]."""
        return jnp.sum(self.probabilities * (self.values - self.mean[..., None]) ** 2, axis=-1)

    @property
    @quick_jit(eqx.filter_jit, few=0)
    def error(self) -> Float[Array, "*batch"]:
        """E sigmoid(-u), the expected probability given to the wrong label, [*batch]."""
        return jnp.sum(self.probabilities * jax.nn.sigmoid(-self.values), axis=-1)

    def cdf(self, logit) -> Float[Array, "..."]:
        """P(u <= `logit`), [*batch, *logit.shape]."""
        return self._sum(as_goal("logit", logit, self.values.dtype), jnp.less_equal)

    def pmf(self, logit) -> Float[Array, "..."]:
        """P(u = `logit`), [*batch, *logit.shape]: 0 unless `logit` equals a value to the last bit."""
        return self._sum(as_goal("logit", logit, self.values.dtype), jnp.equal)

    @quick_jit(eqx.filter_jit, few=0)
    def _sum(self, logit, relation):
        values, probabilities = (insert_axes(v, logit.ndim) for v in (self.values, self.probabilities))
        return jnp.sum(jnp.where(relation(values, logit[..., None]), probabilities, 0), axis=-1)

    def quantile(self, level) -> Float[Array, "..."]:
        """The smallest value u with P(u' <= u) >= `level`, [*batch, *level.shape]; `ValueError` unless 0 < level < 1.

        A level that is one of these probabilities to their rounding counts as that: 3/4 for fair draws in two steps.
        """
        return self._quantile(_check_level(level, self.values.dtype))

    @quick_jit(eqx.filter_jit, few=0)
    def _quantile(self, level):
        order = jnp.argsort(self.values, axis=-1)
        values = jnp.take_along_axis(self.values, order, axis=-1)
        chances = jnp.take_along_axis(self.probabilities, order, axis=-1)
        below = jnp.cumsum(chances, axis=-1)
        after = jnp.concatenate([chances[..., 1:], jnp.zeros_like(chances[..., :1])], axis=-1)
        above = jnp.cumsum(after[..., ::-1], axis=-1)[..., ::-1]
        below = jnp.where(below < 0.5, below, 1 - above)
        short = insert_axes(below, level.ndim) < _least(level)[..., None]
        index = jnp.minimum(jnp.sum(short, axis=-1), values.shape[-1] - 1)
        return jnp.take_along_axis(insert_axes(values, level.ndim), index[..., None], axis=-1)[..., 0]


class TimeDistribution(eqx.Module):
    """The distribution over seeds of the number of steps until own draw number `draws`; a draw is own with probability p.

    Negative binomial; `draws` m [*batch, ...] as floats, 0: at once, inf: never; `frequency` p [*batch, ...].
    """

    draws: Float[Array, "..."]
    frequency: Float[Array, "..."]

    @property
    def mean(self) -> Float[Array, "..."]:
        """m / p."""
        return self.draws / self.frequency

    @property
    def variance(self) -> Float[Array, "..."]:
        """m (1 - p) / p^2."""
        return self.draws * (1 - self.frequency) / self.frequency**2

    def pmf(self, step) -> Float[Array, "..."]:
        """P(it takes exactly `step` steps) = C(step - 1, m - 1) p^m (1 - p)^(step - m), [..., *step.shape]."""
        return self._pmf(_check_step(step, self.draws.dtype))

    @quick_jit(eqx.filter_jit, few=0)
    def _pmf(self, step):
        step, draws, frequency = self._spread(step)
        # The last step must be an own draw: a share m / step of the binomial probability.
        ratio = jnp.where(step > 0, jnp.where(jnp.isfinite(draws), draws, 0) / jnp.maximum(step, 1), draws == 0)
        return ratio * pmf(jnp.where(jnp.isfinite(draws), draws, -1), step, frequency)

    def cdf(self, step) -> Float[Array, "..."]:
        """P(it takes at most `step` steps), [..., *step.shape]."""
        return self._cdf(_check_step(step, self.draws.dtype))

    @quick_jit(eqx.filter_jit, few=0)
    def _cdf(self, step):
        step, draws, frequency = self._spread(step)
        finite = jnp.isfinite(draws)
        return jnp.where(finite, binomial_at_least(jnp.where(finite, draws, 1), step, frequency), 0)

    def _spread(self, values):
        """`values`, draws and frequencies, all of [..., *values.shape]."""
        shape = (*self.draws.shape, *(1,) * values.ndim)
        return jnp.broadcast_arrays(values, self.draws.reshape(shape), self.frequency.reshape(shape))

    def quantile(self, level) -> Float[Array, "..."]:
        """The smallest number of steps with a cdf of at least `level`, [..., *level.shape], as floats; inf if m is.

        `ValueError` unless 0 < level < 1. A level that is a value of the cdf to its rounding counts as that.
        """
        return _wait_quantile(*self._spread(_check_level(level, self.draws.dtype)))


class MixedTimeDistribution(eqx.Module):
    """The distribution over seeds of the number of steps, if the number m of own steps depends on the draws too (17.5).

    `chances`: the probability that m = 0, 1, 2, ... own steps are needed, [*batch, ..., own steps]; the probability missing
    from 1 belongs to draws that never suffice.
    `frequency`: of a step with a point of the class, [*batch, ...]. The step number of own step m is negative binomial.

    >>> from gradstarve.theory import solve_mode
    >>> solution = solve_mode(Mode(0.5, 1.0, a=[0.1], z=[0.1]), "hinge", StochasticGradientDescent(0.5, batch_size=2))
    >>> wait = solution.time_to_logit(0.02)   # one step with both points, or two with one
    >>> wait.chances.shape, float(wait.quantile(0.5))
    ((3,), 2.0)
    """

    chances: Float[Array, "... own"]
    frequency: Float[Array, "..."]

    @property
    def never(self) -> Float[Array, "..."]:
        """The probability that the event never happens."""
        return jnp.maximum(1 - jnp.sum(self.chances, axis=-1), 0)

    @property
    def _is_sure(self) -> Array:
        """Whether the probability of `never` is no more than rounding."""
        return self.never <= _ROUNDINGS * jnp.finfo(self.chances.dtype).eps

    @property
    def _own(self) -> Array:
        return jnp.arange(self.chances.shape[-1], dtype=self.chances.dtype)

    @property
    def mean(self) -> Float[Array, "..."]:
        """E m / f, f the `frequency`; inf if the event may never happen."""
        return jnp.where(self._is_sure, jnp.sum(self.chances * self._own, axis=-1) / self.frequency, jnp.inf)

    @property
    def variance(self) -> Float[Array, "..."]:
        """E m (1 - f) / f^2 + var m / f^2; inf if the event may never happen."""
        mean = jnp.sum(self.chances * self._own, axis=-1)
        spread = jnp.sum(self.chances * (self._own - mean[..., None]) ** 2, axis=-1)
        return jnp.where(self._is_sure, (mean * (1 - self.frequency) + spread) / self.frequency**2, jnp.inf)

    @property
    def _waits(self) -> TimeDistribution:
        """The wait for each number of own steps."""
        frequency = jnp.broadcast_to(self.frequency[..., None], self.chances.shape)
        return TimeDistribution(jnp.broadcast_to(self._own, self.chances.shape), frequency)

    def pmf(self, step) -> Float[Array, "..."]:
        """P(it takes exactly `step` steps), [..., *step.shape]."""
        return self._mixed(self._waits.pmf(step))

    def cdf(self, step) -> Float[Array, "..."]:
        """P(it takes at most `step` steps), [..., *step.shape]."""
        return self._mixed(self._waits.cdf(step))

    def _mixed(self, found: Array) -> Array:
        """[..., own steps, *step.shape] -> [..., *step.shape]"""
        axis = self.chances.ndim - 1
        weights = self.chances.reshape(*self.chances.shape, *(1,) * (found.ndim - axis - 1))
        return jnp.sum(weights * found, axis=axis)

    def quantile(self, level) -> Float[Array, "..."]:
        """The smallest number of steps with a cdf of at least `level`, [..., *level.shape], as floats; inf if there is none.

        `ValueError` unless 0 < level < 1. A level that is a value of the cdf to its rounding counts as that.
        """
        level = _check_level(level, self.chances.dtype)
        shape = (*self.frequency.shape, *level.shape)
        own = self.chances.reshape(*self.frequency.shape, *(1,) * level.ndim, -1)
        least = jnp.broadcast_to(_least(level), shape)
        frequency = jnp.broadcast_to(self.frequency.reshape(*self.frequency.shape, *(1,) * level.ndim), shape)
        return _mixed_quantile(least, jnp.broadcast_to(own, (*shape, own.shape[-1])), frequency)


class DrawnMode(eqx.Module):
    """One `mode` under descent on random points, and `own`, the deterministic law in its own draws."""

    __repr__ = short_repr

    mode: Mode
    own: ModeDescent

    def __getattr__(self, name: str):
        kind = type(self).__name__
        if name in _CURVE:
            raise AttributeError(
                f"{kind} has no {name!r}: the draws make the curve a distribution; .distribution(step) has that of "
                "the logit, with .mean, .variance, .quantile(level) and .error; .own is the law of its own draws"
            )
        raise AttributeError(f"{kind!r} object has no attribute {name!r}")

    @property
    def frequency(self) -> Float[Array, "*batch"]:
        """The probability that a draw is of this class, [*batch]; 1 for weights whose sum is rounded up."""
        p = self.mode.frequency
        return jnp.broadcast_to(jnp.where(p > 1, 1, p), self.mode.batch_shape)


class ModeSGD(DrawnMode):
    """One `mode` under one-point descent: the distribution over the draws of its logit, and of the time to learn (8.3).

    `own`: the deterministic law, whose step number counts own draws: `own.logit(m)`, `own.weights(m)`, ...

    >>> from gradstarve.theory import solve_mode
    >>> solution = solve_mode(Mode(0.5, 1.0, a=[0.1], z=[0.1]), "hinge", StochasticGradientDescent(0.5))
    >>> after = solution.distribution(2)
    >>> after.probabilities.tolist(), round(float(after.mean), 6)
    ([0.25, 0.5, 0.25], 0.026406)
    >>> float(solution.time_to_logit(1.0).mean)              # 6 draws of probability 1/2
    12.0
    """

    def distribution(self, step) -> LogitDistribution:
        """The logit after `step` >= 0 steps, over the draws: step + 1 values and their probabilities."""
        step = positive_int("step", step, 0)
        draws = np.arange(step + 1)
        p = self.frequency[..., None]
        probabilities = pmf(*jnp.broadcast_arrays(jnp.asarray(draws, p.dtype), jnp.asarray(step, p.dtype), p))
        return LogitDistribution(self.own.logit(draws), probabilities)

    def time_to_logit(self, logit, max_draws: int = 100_000) -> TimeDistribution:
        """The first step with u >= `logit`, over the draws; its arrays are [*batch, *logit.shape].

        Never (inf draws) if `max_draws` own draws do not suffice.
        """
        return self._wait(self.own.time_to_logit(logit, max_draws))

    def time_to_error(self, error, max_draws: int = 100_000) -> TimeDistribution:
        """The first step with an error of at most `error`, 0 < error < 1, over the draws.

        Never (inf draws) if `max_draws` do not suffice: hinge and squared loss end near u = 1, an error of 0.269.
        """
        return self._wait(self.own.time_to_error(error, max_draws))

    def time_to_loss(self, loss, max_draws: int = 100_000) -> TimeDistribution:
        """The first step with a loss of at most `loss`, over the draws; never if `max_draws` do not suffice."""
        return self._wait(self.own.time_to_loss(loss, max_draws))

    def _wait(self, draws):
        p = self.frequency.reshape(*self.mode.batch_shape, *(1,) * (draws.ndim - len(self.mode.batch_shape)))
        return TimeDistribution(draws, jnp.broadcast_to(p, draws.shape))


# The largest number of outcomes that a distribution lists one by one.
_MOST_OUTCOMES = 2**20


class ModeMiniBatch(DrawnMode):
    """One `mode` under descent on B points a step, drawn with replacement: the distribution over the draws (17.5).

    `own`: the deterministic law of steps that draw points of this class alone, the fastest of all.

    >>> from gradstarve.theory import solve_mode
    >>> mode = Mode(0.5, 1.0, a=[0.1], z=[0.1])
    >>> solution = solve_mode(mode, "hinge", StochasticGradientDescent(0.5, batch_size=2))
    >>> after = solution.distribution(1)
    >>> after.probabilities.tolist(), round(float(after.mean), 5), round(float(solution.expected_logit(1)), 5)
    ([0.25, 0.5, 0.25], 0.01594, 0.01594)
    """

    _repr_html_ = fields_html

    batch_size: int = eqx.field(static=True)

    def distribution(self, step) -> LogitDistribution:
        """The logit after `step` >= 0 steps, over the draws: 1 + B + B^2 + ... + B^step values and their probabilities.

        `ValueError` for more than 2^20 of them.
        """
        step, most = positive_int("step", step, 0), self.batch_size
        if sum(most**m for m in range(step + 1)) > _MOST_OUTCOMES:
            raise ValueError(
                f"{step} steps with {most} points each have more than {_MOST_OUTCOMES} outcomes; give fewer steps, "
                "expected_logit(step) for the mean of the hinge loss, or simulate(...)"
            )
        return LogitDistribution(*_outcomes(self, step))

    def time_to_logit(self, logit) -> MixedTimeDistribution:
        """The first step with u >= `logit`, over the draws, exact for the hinge loss with eta r < 1: [*batch, *logit.shape].

        A logit above 1 is reached only by draws that step over the margin, and never by others.

        `HypothesisError` for another loss, where the state depends on the order of the draws, and for eta r >= 1;
        `ValueError` where more than 2^20 counts of draws do not suffice, and for numbers that are traced.
        """
        law = self.own.law
        goal = as_goal("logit", logit, self.mode.a.dtype)
        numbers = (self.mode.a, self.mode.z, self.mode.norm, law.dynamics.step_size, self.frequency, goal)
        if not all(map(is_concrete, numbers)):
            raise ValueError("time_to_logit of mini-batches counts outside jit, grad and vmap; give numbers that are known")
        if not isinstance(law.loss_function, Hinge):
            raise HypothesisError(
                "the order of the draws is no matter where the residual is constant: hinge loss (17.5)",
                f"loss = {getattr(law.loss_function, 'name', type(law.loss_function).__name__)!r}",
                "distribution(step).cdf(u), or simulate(...)",
            )
        a, z, norm, size, p, _ = (np.asarray(value, np.float64) for value in numbers)
        batch = self.mode.batch_shape
        norm, pushed, p = (np.broadcast_to(v, batch) for v in (norm, size * norm, p))
        if not (pushed < 1).all():
            where = f"step_size * norm = {pushed.max():.6g}"
            raise HypothesisError("the logit rises in every own step: eta r < 1 (17.5)", where, "a smaller step size")
        goals = np.asarray(goal, np.float64)
        pairs = [(i, u) for i in np.ndindex(batch) for u in goals.ravel()]
        found = [_enough(a[i], z[i], norm[i], pushed[i], p[i], self.batch_size, u) for i, u in pairs]
        chances = np.zeros((len(found), max(map(len, found), default=1)))
        for row, own in zip(chances, found, strict=True):
            row[: len(own)] = own
        shape = (*batch, *goals.shape)
        with np.errstate(divide="ignore"):
            drawn = -np.expm1(self.batch_size * np.log1p(-p))
        drawn = np.broadcast_to(drawn.reshape((*batch, *(1,) * goals.ndim)), shape)
        dtype = self.mode.a.dtype
        chances = chances.reshape((*shape, chances.shape[1]))
        return MixedTimeDistribution(jnp.asarray(chances, dtype), jnp.asarray(drawn, dtype))

    def expected_logit(self, step) -> Float[Array, "*batch"]:
        """E u after `step` >= 0 steps of the hinge loss, while no draw can have led to the margin, [*batch]:

        (r/4) (mu_+^step M_+ - mu_-^step M_-), mu_± = (1 ± x)^2 + (eta r)^2 p (1 - p)/B, x = eta p r.

        `HypothesisError` for another loss, where a margin may have been reached, and where a neuron may have left its class.
        """
        step = positive_int("step", step, 0)
        loss, law = self.own.law.loss_function, self.own.law
        if not isinstance(loss, Hinge):
            raise HypothesisError(
                "the mean over the draws is two powers where the residual is constant: hinge loss (17.5)",
                f"loss = {getattr(loss, 'name', type(loss).__name__)!r}",
                "distribution(step).mean",
            )
        if step:
            fastest = self.own.logit(step - 1)
            left = self.own.leaving_step(step)
            leaves = jnp.isfinite(left) & (self.mode.a > 0)
            if is_concrete(fastest) and not (np.asarray(fastest) < 1).all():
                where = f"the fastest draws have a logit of {float(np.max(np.asarray(fastest))):.6g} at step {step - 1}"
                raise HypothesisError("no draw leads to the margin before the step (17.5)", where, "distribution(step).mean")
            if is_concrete(leaves) and bool(leaves.any()):
                where = f"neuron {int(np.argwhere(np.asarray(leaves))[0][-1])} may leave the class"
                raise HypothesisError("every neuron stays in the class (17.5)", where, "distribution(step).mean")
        p, norm, pushed = self.frequency, self.mode.norm, law.dynamics.step_size * self.mode.norm
        spread = pushed**2 * p * (1 - p) / self.batch_size
        seen = self.mode.a > 0
        grown, decayed = (
            jnp.sum(jnp.where(seen, part**2, 0), axis=-1) for part in (self.mode.a + self.mode.z, self.mode.a - self.mode.z)
        )
        rises, falls = (1 + pushed * p) ** 2 + spread, (1 - pushed * p) ** 2 + spread
        return norm / 4 * (rises**step * grown - falls**step * decayed)


def _enough(a: np.ndarray, z: np.ndarray, norm: Any, pushed: Any, p: Any, most: int, goal: float) -> np.ndarray:
    """The chance that own step m = 0, 1, ... is the first with u >= `goal`, for one mode, hinge loss and `pushed` < 1.

    A count [most] is how often n = 1, ..., most points of the class were drawn. The counts with u < 1 and u < goal have
    no gaps, and each is generated once: from the count without its largest n.
    """
    drawn = np.arange(1, most + 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        others = np.where(drawn < most, (most - drawn) * np.log1p(-p), 0)
        logs = gammaln(most + 1) - gammaln(drawn + 1) - gammaln(most - drawn + 1) + drawn * np.log(p) + others
        logs = logs - np.log(-np.expm1(most * np.log1p(-p)))  # given that there is one
    grown, decayed = (a + z)[a > 0], (a - z)[a > 0]
    rises, falls = np.log1p(pushed * drawn / most), np.log1p(-pushed * drawn / most)

    def logit(up: np.ndarray, down: np.ndarray) -> np.ndarray:
        """u where a + z has risen by e^up and a - z fallen by e^down; neurons with a <= 0 have left."""
        total = np.zeros_like(up)
        for one, other in zip(grown, decayed, strict=True):
            plus, minus = one * np.exp(up), other * np.exp(down)
            total += np.where(plus + minus > 0, plus**2 - minus**2, 0)
        return norm / 4 * total

    counts = np.zeros((1, most))
    u = logit(np.zeros(1), np.zeros(1))[0]
    if u >= goal:
        return np.ones(1)
    found, seen = [0.0], 1
    if u >= 1 or not (grown > 0).any():  # where nothing grows, it never comes to it
        return np.zeros(1)
    while len(counts):
        m = len(found)  # of the step that is taken
        chance = np.exp(gammaln(m) - gammaln(counts + 1).sum(-1) + counts @ np.where(np.isfinite(logs), logs, 0))
        chance = np.where((counts * ~np.isfinite(logs)).any(-1), 0, chance)
        later = logit((counts @ rises)[:, None] + rises, (counts @ falls)[:, None] + falls)
        found.append(float(np.sum(chance[:, None] * np.exp(logs) * (later >= goal))))
        largest = np.where(counts.any(-1), most - 1 - (counts[:, ::-1] > 0).argmax(-1), 0)
        on = (later < min(goal, 1.0)) & (np.arange(most) >= largest[:, None])
        rows, added = np.nonzero(on)
        counts = counts[rows]
        counts[np.arange(len(rows)), added] += 1
        seen += len(rows)
        if seen > _MOST_OUTCOMES:
            raise ValueError(
                f"more than {_MOST_OUTCOMES} counts of draws do not suffice for a logit of {goal:.6g}; take larger steps or "
                "smaller batches, or simulate(...)"
            )
    return np.array(found)


@quick_jit(eqx.filter_jit, few=0)
def _outcomes(of: ModeMiniBatch, step: int) -> tuple[Array, Array]:
    """The logits and probabilities of all sequences of draws, each [*batch, outcomes]."""
    law, mode, most, p = of.own.law, of.mode, of.batch_size, of.frequency
    counts = np.arange(1, most + 1)
    drawn = -jnp.expm1(most * jnp.log1p(-p))  # the chance that n > 0
    chances = pmf(*_spread(counts, most, p)) / drawn[..., None]
    # [*batch, sequences] of m steps with n > 0, the states with their neurons behind.
    norm = jnp.broadcast_to(mode.norm, mode.batch_shape)[..., None]
    a, z = mode.a[..., None, :], mode.z[..., None, :]
    chance = jnp.ones((*mode.batch_shape, 1), p.dtype)
    lengths = pmf(*_spread(np.arange(step + 1), step, drawn))
    values, weights = [], []
    for m in range(step + 1):
        if m:
            sequences = a.shape[-2]
            a, z = (jnp.repeat(part, most, axis=-2) for part in (a, z))
            share = jnp.broadcast_to(jnp.asarray(np.tile(counts / most, sequences), p.dtype), a.shape[:-1])
            step_size = jnp.broadcast_to(law.dynamics.step_size[..., None], share.shape)
            once = new_descent_law(law.loss_function, GradientDescent(step_size), [share], [norm], a, z)
            a, z = once.coordinates_of(once.step(once.first))
            chance = (chance[..., None] * chances[..., None, :]).reshape(*chance.shape[:-1], -1)
        values.append(norm * jnp.sum(jnp.where(a > 0, a * z, 0), axis=-1))
        weights.append(chance * lengths[..., m : m + 1])
    return jnp.concatenate(values, axis=-1), jnp.concatenate(weights, axis=-1)


def _spread(counts, of: int, p):
    """`counts`, the number of draws and their probability, each [*p.shape, counts]."""
    return jnp.broadcast_arrays(jnp.asarray(counts, p.dtype), jnp.asarray(of, p.dtype), p[..., None])


def sgd_mode(mode: Mode, loss: Loss, dynamics: StochasticGradientDescent) -> ModeSGD | ModeMiniBatch:
    """The law (8.3), (17.5) of one mode."""
    if dynamics.scheduled:
        raise HypothesisError(
            "the law of random points is of one step size: which draws of a schedule are own ones changes the steps (8.3)",
            "step_size is a schedule",
            "simulate(...), or a step size that is a number",
        )
    alone = Mode(jnp.ones_like(mode.frequency), mode.norm, mode.a, mode.z)
    own = descend_mode(alone, loss, GradientDescent(dynamics.step_size))
    return ModeSGD(mode, own) if dynamics.batch_size == 1 else ModeMiniBatch(mode, own, dynamics.batch_size)


def _check_step(step, dtype):
    step = as_goal("step", step, dtype)
    if is_concrete(step) and not bool(((step >= 0) & (step == jnp.rint(step))).all()):
        raise ValueError(f"steps must be integers >= 0, got {shown(step)}")
    return step


def _check_level(level, dtype):
    level = as_array("level", level, dtype)
    if is_concrete(level) and not bool(((level > 0) & (level < 1)).all()):
        raise ValueError(f"the level of a quantile must be in (0, 1), got {shown(level)}")
    return level


def _least(level: Array) -> Array:
    """A lower bound of the computed value of a cdf whose exact value is `level`."""
    roundings = _ROUNDINGS * jnp.minimum(level, 1 - level) + jnp.where(level < 0.5, 0, 2)  # and those of a number next to 1
    return level - roundings * jnp.finfo(level.dtype).eps


def _least_integer(enough, low, high):
    """The least integer at which `enough` holds, elementwise, by bisection: it holds at `high`, and not at `low`."""

    def halve(ends):
        low, high = ends
        middle = jnp.floor((low + high) / 2)
        there = enough(middle)
        return jnp.where(there, low, middle), jnp.where(there, middle, high)

    return jax.lax.while_loop(lambda ends: ~jnp.all(ends[1] - ends[0] <= 1), halve, (low, high))[1]


@quick_jit(few=0)
def _wait_quantile(level, draws, frequency):
    """The first step at which the chance of `draws` draws of a class of `frequency` is at least `level`, elementwise."""
    m = jnp.where(jnp.isfinite(draws), draws, 1)

    def enough(step):
        return binomial_at_least(m, step, frequency) >= _least(level)

    def further(high):
        return jnp.where(enough(high), high, 2 * high)

    high = jax.lax.while_loop(lambda high: ~jnp.all(enough(high)), further, jnp.ceil(m / frequency) + 1)
    least = _least_integer(enough, m - 1, high)
    return jnp.where(draws == 0, 0, jnp.where(jnp.isfinite(draws), least, jnp.inf))


@quick_jit(few=0)
def _mixed_quantile(least, chances, frequency):
    """As `_wait_quantile`, of a mixture: `chances` [..., own steps]; `least` and `frequency` [...]."""
    m = jnp.broadcast_to(jnp.arange(chances.shape[-1], dtype=chances.dtype), chances.shape)

    def enough(step):
        waits = binomial_at_least(m, *(jnp.broadcast_to(v[..., None], m.shape) for v in (step, frequency)))
        return jnp.sum(chances * waits, axis=-1) >= least

    possible = jnp.sum(chances, axis=-1) >= least

    def further(high):
        return jnp.where(enough(high) | ~possible, high, 2 * high)

    start = jnp.full_like(frequency, chances.shape[-1])
    high = jax.lax.while_loop(lambda high: ~jnp.all(enough(high) | ~possible), further, start)
    return jnp.where(possible, _least_integer(enough, -jnp.ones_like(high), high), jnp.inf)
