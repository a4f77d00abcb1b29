"""Gradient starvation of a rare feature by a frequent feature that is in all of its samples (10.2)-(10.6).

The starving pair: samples show feature 1 alone with probability p_1, or both features with probability p_12; q = p_1/p_12.
With phi' = v^(2/N-2) and a margin loss of decreasing residual g,

    d phi(v_1)/d phi(v_2) = 1 + q g(v_1)/g(v_1 + v_2)  >=  1 + q             while v_2 >= 0,                   (10.4)

and the ratio of the g is at most e^(v_2) for cross-entropy, and equal to e^(v_2) for the exponential loss. So with
J(v) = integral of (e^v - 1) dphi(v), an increasing function, the curve of the exponential loss

    phi(v_1) - phi(v_10) = (1 + q) [phi(v_2) - phi(v_20)] + q [J(v_2) - J(v_20)]                               (10.5)

bounds v_2 of cross-entropy from below, and the line without J from above. One layer has J(v) = e^v - 1 - v, and then
the exponential loss is a Lambert W of time (10.2), which is evaluated without the cancellations of that formula.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    as_pair,
    check_positive,
    check_shares,
    deprecated,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
    short_repr,
    together,
)
from gradstarve.problem import Loss, as_loss, with_closed_form
from gradstarve.special import invert, lambertw_exp
from gradstarve.theory._depth import raised, rise
from gradstarve.theory._features import FeatureFlow, check_deep_start, hinge_phases, starvation_index
from gradstarve.theory._piecewise import check_times

_TYPES = ((1.0, 0.0), (1.0, 1.0))
_HIGHEST = 40.0  # the largest value of the lower bound at N >= 2, which stays a bound beyond a logit of 40
_TERMS = 160  # 40^160/160! < 1e-27


class StarvingPair(eqx.Module):
    """The logits (v_1, v_2) of the starving pair under gradient flow, r = 1. Made by `starving_pair`.

    `p_frequent`, `p_both`: p_1 and p_12, [*batch]; `start`: (v_1, v_2) at t = 0, [*batch, 2]; `depth` N. t is time, a
    scalar or an array; methods give [*batch, *t.shape]. Exponential loss with one layer: relative error 1e-12 (2e-5 in
    float32) for t to 1e300 (1e36), q from 1e-6 to 1e6. The others are as accurate as `FeatureFlow` says.
    """

    __repr__ = short_repr

    p_frequent: Float[Array, "*batch"]
    p_both: Float[Array, "*batch"]
    start: Float[Array, "*batch 2"]
    loss_function: Loss
    depth: int = eqx.field(static=True)

    @property
    def flow(self) -> FeatureFlow:
        """The same problem as one of features and sample types (10.1)."""
        probabilities = jnp.stack([self.p_frequent, self.p_both], axis=-1)
        types = jnp.asarray(_TYPES, self.start.dtype)
        return FeatureFlow(types, probabilities, jnp.ones_like(self.start), self.start, self.loss_function, self.depth)

    def features(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(v_1, v_2) at t. The margins are v_1 and v_1 + v_2."""
        if self.depth == 1 and self.loss_function.offset == 0:
            return _explicit(self, check_times(t, self.start.dtype))
        found = self.flow.features(t)
        return found[..., 0], found[..., 1]

    def index(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """The starvation index 1 - v/v_alone of feature 1 and of feature 2 (10.6); 0 where both are still 0."""
        (first, second), alone = self.features(t), self.flow.alone(t)
        return starvation_index(first, alone[..., 0]), starvation_index(second, alone[..., 1])

    def bounds(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(lower, upper) bounds of v_2 at t, given v_1 at t: (10.4) at depth 1, (10.5) for deeper networks.

        The upper bound holds for every loss. The lower one is the curve of the exponential loss, which is a bound for
        cross-entropy and the solution itself for the exponential loss; for hinge and squared loss it is 0. Both need
        v_2 >= 0 at the start (and the squared loss v_1 <= 1): `HypothesisError` otherwise.
        """
        with_closed_form(self.loss_function)
        second = self.start[..., 1]
        if is_concrete(second) and (np.asarray(second) < 0).any():
            raise HypothesisError(
                "feature 2 starts at v_2 >= 0, so that it helps feature 1's samples (10.4)",
                f"v_2(0) = {np.asarray(second).min()}",
                "features(t), which needs no sign",
            )
        return _bounds(self, self.features(t)[0])

    @property
    def ceiling(self) -> Float[Array, "*batch"]:
        """The upper bound (10.5) of v_2 for v_1 = inf, which holds for every loss at every time.

        Infinite at N = 1 and 2. At N >= 3 phi is bounded, and (1 + q)/q (v_10/v_20)^(2/N-1) > 1 makes it finite: from
        equal starts v_2 <= v_20 (1 + 1/q)^(N/(N-2)) for ever.
        """
        first, second = self.start[..., 0], self.start[..., 1]
        if self.depth < 3:
            return jnp.full_like(first, jnp.inf)
        return upper_bound(jnp.inf, self.p_frequent / self.p_both, first, second, self.depth)

    @property
    def freeze(self) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """(time, v_2) at which feature 2 stops for ever, with the hinge loss: samples with both reach their margin (10.3).

        With one layer from zero 1/(p_1 + 2 p_12) and 1/(2 + q). `HypothesisError` for losses that never stop.
        """
        if self.loss_function.clock is None or not self.loss_function.stops:
            raise HypothesisError(
                "feature 2 freezes where its samples reach a margin at which the loss is flat (10.3)",
                f"loss = {self.loss_function.name!r}",
                "features(t) and bounds(t)",
            )
        return _freeze(self.flow)


@deprecated("p_frequent", "p_both", "loss", "depth", "init")
def starving_pair(p_frequent, p_both, loss: Loss | str, *, depth=1, init=None) -> StarvingPair:
    """Two orthogonal features of norm 1: feature 1 in every sample, feature 2 in some samples (10.2)-(10.6).

    `p_frequent`: p_1 > 0, the weight of samples with feature 1 alone; `p_both`: p_12 > 0, of samples with both; their sum
    is at most 1 (less, where other samples have neither feature), and they may be arrays.

    `depth`: N layers, at N >= 2 balanced paths that see one feature each (connections
    that are not restricted mix the features, see `shared_features`). `init`: (v_1, v_2) at t = 0, default (0, 0) at depth 1
    and needed, > 0, beyond. Unit: time = step size x step. `ValueError` for bad numbers.

    >>> pair = starving_pair(0.5, 0.5, "hinge")
    >>> [round(float(v), 4) for v in pair.freeze]            # 1/(p_1 + 2 p_12) and 1/(2 + q)
    [0.6667, 0.3333]
    >>> v1, v2 = starving_pair(0.9, 0.1, "exponential").features(1e30)
    >>> round(float(v1 / v2), 1)                             # log t against log log t
    32.4
    """
    depth, loss = positive_int("depth", depth), as_loss(loss)
    if init is None:
        if depth > 1:
            raise ValueError(f"depth = {depth} needs init = (v_1, v_2) > 0 at t = 0: paths of zeros never move")
        p_frequent, p_both = together(p_frequent=p_frequent, p_both=p_both)
        first = second = jnp.zeros((), p_frequent.dtype)
    else:
        first, second = as_pair("init", init, "(v_1, v_2)")
        p_frequent, p_both, first, second = together(
            **{"p_frequent": p_frequent, "p_both": p_both, "init, v_1": first, "init, v_2": second}
        )
    check_positive("p_frequent", p_frequent)
    check_positive("p_both", p_both)
    if depth > 1:
        check_deep_start("init, v_1", first, depth)
        check_deep_start("init, v_2", second, depth)
    p_frequent, p_both, first, second = jnp.broadcast_arrays(p_frequent, p_both, first, second)
    check_shares(p_frequent=p_frequent, p_both=p_both)
    return StarvingPair(p_frequent, p_both, jnp.stack([first, second], axis=-1), loss, depth)


def _numbers(pair: StarvingPair, axes: int) -> tuple[Array, ...]:
    """(p_1, p_12, v_10, v_20), each [*batch, 1, ...] with `axes` axes for the times."""
    values = (pair.p_frequent, pair.p_both, pair.start[..., 0], pair.start[..., 1])
    return tuple(value.reshape(*value.shape, *(1,) * axes) for value in values)


# --- the exponential loss with one layer (10.2) ----------------------------------------------------------------------


@quick_jit(eqx.filter_jit, few=0)
def _explicit(pair: StarvingPair, t: Array) -> tuple[Array, Array]:
    p, both, first, second = _numbers(pair, t.ndim)
    steep = p / both * jnp.exp(second)
    # q (e^v_2 - e^v_20), the growth of v_1 - v_2.
    lead = exponential_lead(p * jnp.exp(-first) * t, steep)
    gained = jnp.log1p(lead / steep)
    return first + gained + lead, second + gained


def exponential_lead(age, steep) -> Float[Array, "..."]:
    """d = q (e^v_2 - e^v_20) of (10.2): e^d - 1 + h(d)/steep = age, with h(d) = d e^d - e^d + 1, for any `age` >= 0.

    `age` = p_1 e^(-v_10) t and `steep` = q e^(v_20), which is q from a zero start. Equivalently d = W - (steep - 1),
    W = W(e^(steep-1) (steep age + steep - 1)); v_2 = v_20 + log(1 + d/steep) and v_1 - v_10 = v_2 - v_20 + d. All terms are
    positive, so that no digit is lost next to d = 0, where W is next to steep - 1.
    """
    age, steep = jnp.broadcast_arrays(*real_arrays(age=age, steep=steep))
    return _lead(age, steep)


def _over_exp(d: Array) -> Array:
    """e^-d h(d) = d - (1 - e^-d), without its cancellation for small d."""
    small = jnp.minimum(d, 0.6)
    total, term = jnp.zeros_like(d), small
    for n in range(2, 18):
        term = -term * small / n
        total = total - term
    return jnp.where(d < 0.6, total, d + jnp.expm1(-d))


@jax.custom_jvp
@quick_jit(few=0)
def _lead(age: Array, steep: Array) -> Array:
    moves = age > 0
    age = jnp.where(moves, age, 1)
    # Every term of the series is positive: the root of its first two orders is above the solution, and near it below 1.
    root = 2 * age / (1 + jnp.sqrt(1 + 2 * (1 + 1 / steep) * age))
    product = steep * age
    level = jnp.where(jnp.isfinite(product), jnp.log(jnp.maximum(product + steep - 1, 0.05)), jnp.log(steep) + jnp.log(age))
    far = lambertw_exp(level + steep - 1) - (steep - 1)
    d = jnp.where(root < 1, root, jnp.clip(far, 0.5, jnp.log1p(age)))
    for _ in range(5):  # in logarithms, where age may be any float
        part = -jnp.expm1(-d) + _over_exp(d) / steep
        d = d - (d + jnp.log(part) - jnp.log(age)) * part / (1 + d / steep)
    return jnp.where(moves, d, 0)


@_lead.defjvp
def _lead_jvp(primals, tangents):
    (age, steep), (dage, dsteep) = primals, tangents
    d = _lead(age, steep)
    change = jnp.exp(-d) * dage + _over_exp(d) / steep * (dsteep / steep)
    return d, change / (1 + d / steep)


# --- the two bounds --------------------------------------------------------------------------------------------------


@quick_jit(eqx.filter_jit, few=0)
def _bounds(pair: StarvingPair, frequent: Array) -> tuple[Array, Array]:
    p, both, first, second = _numbers(pair, frequent.ndim - pair.p_both.ndim)
    most = upper_bound(frequent, p / both, first, second, pair.depth)
    if pair.loss_function.offset is not None:
        return lower_bound(frequent, p / both, first, second, pair.depth), most
    return jnp.zeros_like(most), most


@quick_jit(eqx.filter_jit, few=0)
def upper_bound(frequent, ratio, first, second, depth: int) -> Float[Array, "..."]:
    """The v_2 with phi(v_1) - phi(v_10) = (1 + q) [phi(v_2) - phi(v_20)], inf if there is none (10.4), (10.5).

    `frequent`: v_1, `ratio`: q, `first`, `second`: v_10 and v_20; they broadcast. From zero at depth 1 it is v_1/(1 + q).
    """
    return raised(second, rise(first, frequent, depth) / (1 + ratio), depth)


@quick_jit(eqx.filter_jit, few=0)
def lower_bound(frequent, ratio, first, second, depth: int) -> Float[Array, "..."]:
    """The v_2 of the exponential loss at v_1 = `frequent`: the solution of (10.5) with J. Arguments as in `upper_bound`.

    From zero at depth 1 it is v_1 + q - W(q e^(q + v_1)) (10.4), evaluated without cancellation. At depth >= 2 not above 40.
    """
    frequent, ratio, first, second = jnp.broadcast_arrays(frequent, ratio, first, second)
    gained = rise(first, frequent, depth)
    if depth == 1:
        return second + _behind(gained, ratio * jnp.exp(second))
    most = upper_bound(frequent, ratio, first, second, depth)
    top = jnp.maximum(jnp.minimum(most, _HIGHEST), second)
    start = _series(second, depth)

    def curve(logarithm, problem):
        ratio, second, start = problem
        v = jnp.exp(logarithm)
        value = (1 + ratio) * rise(second, v, depth) + ratio * (_series(v, depth) - start)
        return value, v ** (2 / depth - 1) * (1 + ratio * jnp.exp(v))

    low, high = (jax.lax.stop_gradient(jnp.log(end)) for end in (second, top))
    return jnp.exp(invert(curve, (ratio, second, start), low, high, high, gained))


def _behind(gained: Array, steep: Array) -> Array:
    """x >= 0 with x + steep (e^x - 1) = gained."""

    def ahead(x, steep):
        grown = steep * jnp.expm1(x)
        return x + grown, 1 + steep + grown

    # Both are above the solution of this convex equation, so that Newton's method comes down to it.
    most = jax.lax.stop_gradient(jnp.minimum(gained / (1 + steep), jnp.log1p(gained / steep)))
    return invert(ahead, steep, jnp.zeros_like(most), most, most, gained)


def _series(v: Array, depth: int) -> Array:
    """J(v) = integral_0^v (e^s - 1) s^(2/N-2) ds = v^(2/N-1) sum_k v^k / (k! (k + 2/N - 1)), for 0 <= v <= 40."""
    power = 2 / depth - 1

    def body(k, carry):
        total, term = carry
        term = term * v / k
        return total + term / (k + power), term

    total, _ = jax.lax.fori_loop(1, _TERMS, body, (jnp.zeros_like(v), jnp.ones_like(v)))
    return total * v**power


@quick_jit(eqx.filter_jit, few=0)
def _freeze(flow: FeatureFlow):
    batch = flow.start.shape[:-1]
    p, r, start = (leaf.reshape(-1, 2) for leaf in (flow.probabilities, flow.scales, flow.start))
    clocks, states, paces = jax.vmap(hinge_phases, (None, 0, 0, 0, None))(flow.types, p, r, start, flow.depth)
    # The first phase in which feature 2 has no pace.
    stops = jnp.argmax(paces[..., 1] == 0, axis=-1)[:, None]
    time, value = (jnp.take_along_axis(found, stops, axis=-1)[:, 0] for found in (clocks, states[..., 1]))
    return time.reshape(batch), value.reshape(batch)


