"""The logits of orthogonal features that share samples (10.1), and how much they starve each other (10.6).

A sample type S has probability p_S and S_k = 1 for the features that it shows, -1 for those that it shows with reversed
sign, and 0 for the others; v_k is the logit that feature k carries, m_S = sum_k S_k v_k the margin of a sample. With one
layer, or balanced paths of N layers each of which sees one feature, and r_k the norm of feature k in a sample,

    dv_k/dt = N r_k^(2/N) v_k^(2-2/N) sum_S p_S S_k g(m_S),                                       (10.1), section 20

so phi(v_k), phi' = v^(2/N-2), moves at a speed that only g changes. With the hinge loss that speed is constant until a
margin is reached. Without signs margins never fall, so that there is one event per type and the solution is exact
(`hinge_phases`); with signs they may be pushed back and slide along 1 (`_flat`, and `_flat_deep` at two and more layers).
With one layer and sample types of which any two are equal or at right angles, each type obeys the law of one layer (3.9).

Also here: the logits at which features settle, and neurons active on several features (10.7).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    check_normal,
    check_normal_rows,
    check_normal_size,
    check_positive,
    check_shares,
    deprecated,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
    short_repr,
    shown,
    together,
)
from gradstarve.problem import Hinge, Loss, SpectralDecoupling, as_loss, check_types, with_closed_form
from gradstarve.special import invert
from gradstarve.theory._depth import one_layer_logit, raised, rise
from gradstarve.theory._flat import flat_phases, is_flat, kinks_and_levels
from gradstarve.theory._flat_deep import Paths, deep_phases, deep_place
from gradstarve.theory._flows import follow
from gradstarve.theory._mode import insert_axes
from gradstarve.theory._piecewise import check_times

# The rest of features under a loss that pulls back margins that are too large (10.1).
#
# With spectral decoupling, or the squared loss, the residual of a sample is negative beyond some margin, and (10.1) is a
# descent on the convex objective F(v) = sum_S p_S l_S(m_S), m_S = sum_{k in S} v_k. The scales r_k and the depth enter only
# through the metric. So if F has one minimiser, the end of training does not depend on them: one layer settles at the
# minimiser of F, and balanced paths of N >= 2 layers, which stay above zero, at the minimiser among v >= 0.
#
# F has one minimiser if the types that pull back determine the logits: their rows of `types` have rank K. If there are as
# many types as features (and no logit would have to be below 0 at N >= 2), every type is at its own rest, which for one
# penalty is the same margin for all, g(m) = lambda m: (14.4). On the ring {1, 2}, {1, 3}, {2, 3} that means equal logits
# for any frequencies; for the starving pair it means v_1 = m and v_2 = 0: the penalty, meant to share the work among
# features, removes a feature that is never needed.

_PATIENCE = 5e3  # the longest time for explicit steps, in units of the time of the fastest mode
_MOST = 200
_LATE = 1e4  # a margin beyond all rests
_HALVINGS = 60


@deprecated("types", "probabilities", "loss", "depth")
def settled_features(types, probabilities, loss: Loss | str, *, depth=1) -> Float[Array, "*batch K"]:
    """The logits v_k at which features settle, [*batch, K]: the minimiser of sum_S p_S l_S(m_S), over v >= 0 if N >= 2.

    `types`: [S, K] of -1, 0 and 1; `probabilities`: [*batch, S] > 0, of which only the ratios matter, so that they need not
    sum to 1; `loss`: a smooth loss that pulls back, such as "squared", `FlippedLabels` of cross-entropy, or a
    `SpectralDecoupling` with one penalty or one a type. Independent of scales and start, by the
    head of this module; the gradient of F is below 1e-13 of its terms in float64 (2e-6 in float32). Differentiable twice
    in probabilities and penalties. `HypothesisError` where types that pull back do not determine the logits, and for the
    hinge loss inside, whose margins slide along 1.

    >>> loss = SpectralDecoupling("cross-entropy", 0.1)
    >>> [round(float(v), 3) for v in settled_features([[1, 0], [1, 1]], [0.9, 0.1], loss, depth=2)]  # 2 is given up
    [1.634, 0.0]
    """
    depth, loss = positive_int("depth", depth), as_loss(loss)
    kinds, probabilities = real_arrays(types=types, probabilities=probabilities)
    check_types(kinds)
    check_positive("probabilities", probabilities)
    if probabilities.shape[-1:] != kinds.shape[:1]:
        raise ValueError(f"probabilities must have {kinds.shape[0]} entries, one a type, got shape {probabilities.shape}")
    pulls = _pulls_back(loss, kinds.shape[0])
    if pulls is not None and is_concrete(kinds) and np.linalg.matrix_rank(np.asarray(kinds)[pulls]) < kinds.shape[1]:
        raise HypothesisError(
            "logits settle where the types that pull back determine them (section 10)",
            f"types {np.flatnonzero(pulls).tolist()} do, of rank below K = {kinds.shape[1]}",
            "feature_flow(...).features(t) at a time that is long enough",
        )
    found = least_point(kinds, probabilities.reshape(-1, kinds.shape[0]), loss, depth)
    return found.reshape(*probabilities.shape[:-1], -1)


def least_point(types, p, loss: Loss, depth: int) -> Array:
    """The minimiser of sum_S p_S l_S(m_S), over v >= 0 at depth >= 2: types [S, K], p [b, S], [b, K]."""
    found, reached = _minimise(types, p, loss, depth > 1)
    if is_concrete(reached) and not bool(reached.all()):
        raise ConvergenceError(f"the minimiser was not reached in {_MOST} Newton steps; use feature_flow(...).features(t)")
    return found


def check_pull(loss: Loss, count: int) -> None:
    """Raise for a penalty that (10.1) with `count` sample types cannot be followed with, or that is of another size."""
    if not isinstance(loss, SpectralDecoupling):
        return
    loss.residual(jnp.zeros(count))
    if isinstance(loss.loss, Hinge):
        raise HypothesisError(
            "a residual that does not jump from push to pull (10.1)",
            "a penalised hinge loss pulls back beyond its margin, so that samples slide along m = 1",
            "simulate(...), or spectral decoupling of another loss",
        )


def until_rest(integrate, types, p, r, start, loss: Loss, depth: int, t) -> Array:
    """`integrate`(types, p, r, start, loss, depth, t), [b, times, K]; beyond `_PATIENCE`, the features at rest.

    `ConvergenceError` if features still move at that time.
    """
    arguments = (types, p, r, start, loss, depth)
    if t.size == 0 or not all(map(is_concrete, (t, p, r, start))) or not _comes_to_rest(types, loss):
        return integrate(*arguments, t)
    most = _PATIENCE / max(float(jnp.max(_fastest(*arguments))), 1e-30)
    if float(jnp.max(t)) <= most:
        return integrate(*arguments, t)
    rest = least_point(types, p, loss, depth)
    last = jnp.asarray(most, t.dtype)
    found = integrate(*arguments, jnp.append(jnp.minimum(t, last), last))
    off = float(np.max(np.abs(found[:, -1] - rest) / (1 + np.abs(rest))))
    if off > {"float64": 1e-11, "float32": 2e-5}[t.dtype.name]:
        raise ConvergenceError(
            f"at t = {most:.3g} the features are still {off:.2g} from rest, and t = {float(jnp.max(t)):.3g} is too many "
            "steps away; ask for earlier times, or for theory.settled_features(...)"
        )
    return jnp.where((t > last)[:, None], rest[:, None], found[:, :-1])


def _comes_to_rest(types, loss: Loss) -> bool:
    try:
        pulls = _pulls_back(loss, types.shape[0])
    except HypothesisError:
        return False
    return pulls is not None and int(np.linalg.matrix_rank(np.asarray(types)[pulls])) == types.shape[1]


@quick_jit(eqx.filter_jit, few=0)
def _fastest(types, p, r, start, loss, depth):
    """A bound on the rates of (10.1) in v, or log v, while no logit exceeds 1 or its start, [b]."""

    def one(p, r, start):
        v = jnp.maximum(jnp.abs(start), 1)
        shown = jnp.abs(types)
        margins = shown @ v
        bend = -jax.jvp(loss.residual, (0 * margins,), (jnp.ones_like(margins),))[1]
        if depth == 1:
            return jnp.max(r**2 * ((p * bend * (shown @ jnp.ones_like(v))) @ shown))
        return jnp.max(depth * r ** (2 / depth) * v ** (1 - 2 / depth) * ((p * bend * margins) @ shown))

    return jax.vmap(one)(p, r, start)


def _pulls_back(loss: Loss, count: int) -> np.ndarray | None:
    """Whether the loss of each type rises for large margins, [S]; None if this is unknown, inside jit."""
    inside = loss.loss if isinstance(loss, SpectralDecoupling) else loss
    if inside.pulls_back:
        return np.ones(count, bool)
    if not isinstance(loss, SpectralDecoupling) and not loss.kinks:
        late = loss.residual(jnp.full(count, _LATE))
        if not is_concrete(late):
            return None
        pulls = np.asarray(late) < 0
        if pulls.any():
            return pulls
    if not isinstance(loss, SpectralDecoupling) or isinstance(inside, Hinge):
        why = "hinge margins slide along a kink" if is_flat(inside) else "margins grow for ever"
        raise HypothesisError(
            "logits settle under a smooth loss that pulls back (section 10)",
            f"loss = {loss.name!r}: {why}",
            "SpectralDecoupling of cross-entropy, or feature_flow(...).features(t)",
        )
    loss.residual(jnp.zeros(count))  # a penalty for another number of types is an error here already
    return np.broadcast_to(np.asarray(loss.penalty) > 0, count) if is_concrete(loss.penalty) else None


@quick_jit(eqx.filter_jit, few=0)
def _minimise(types: Array, probabilities: Array, loss: Loss, above_zero: bool) -> tuple[Array, Array]:
    """Projected Newton steps for each problem: the minimisers [b, K], and whether each has converged, [b]."""
    floor = 0.0 if above_zero else -jnp.inf
    tolerance = {"float64": 1e-13, "float32": 2e-6}[types.dtype.name]

    def slopes(v, p, loss):
        """Gradient of F, its second derivatives, and the size of the terms the gradient is a sum of."""
        margins = types @ v
        residual, bend = jax.jvp(loss.residual, (margins,), (jnp.ones_like(margins),))
        hessian = jnp.einsum("sk,s,sj->kj", types, -p * bend, types)
        return -(p * residual) @ types, hessian, p @ jnp.abs(types)

    def value(v, p):
        return jnp.sum(p * loss.value(types @ v))

    def newton(v, p, loss):
        gradient, hessian, size = slopes(v, p, loss)
        held = (v <= floor) & (gradient >= 0)
        free = ~held
        pair = free[:, None] & free[None]
        matrix = jnp.where(pair, hessian, 0) + jnp.diag(held.astype(v.dtype))
        gradient = jnp.where(free, gradient, 0)
        return -jnp.linalg.solve(matrix, gradient), jnp.max(jnp.abs(gradient) / size)

    def one(p):
        def body(state):
            v, _, count = state
            step, _ = newton(v, p, loss)
            here = value(v, p)
            # All halved steps are tried at once; the longest one that does not raise F by more than rounding is taken.
            slack = 8 * jnp.finfo(v.dtype).eps * jnp.abs(here)
            lengths = 0.5 ** jnp.arange(_HALVINGS, dtype=v.dtype)
            tries = jnp.maximum(v + lengths[:, None] * step, floor)
            lower = jax.vmap(value, (0, None))(tries, p) <= here + slack
            after = jnp.where(lower.any(), tries[jnp.argmax(lower)], jnp.maximum(v + step, floor))
            return after, newton(after, p, loss)[1], count + 1

        start = jnp.zeros(types.shape[1], types.dtype)
        off = newton(start, p, loss)[1]
        v, off, _ = jax.lax.while_loop(lambda s: (s[1] > tolerance) & (s[2] < _MOST), body, (start, off, 0))
        return v, off <= tolerance

    def polished(p):
        v, reached = jax.lax.stop_gradient(one(jax.lax.stop_gradient(p)))
        # Two more steps do not change the value; the first carries the first derivatives, the second the second ones.
        for _ in range(2):
            step = newton(v, p, loss)[0]
            v = v + step - jax.lax.stop_gradient(step)
        return v, reached

    return jax.vmap(polished)(probabilities)


# The flow of features.


class FeatureFlow(eqx.Module):
    """K features under gradient flow (10.1). t is time, a scalar or an array of any shape. Made by `feature_flow`.

    `types`: [S, K] of -1, 0 and 1, `probabilities`: [*batch, S], `scales` and `start`: [*batch, K], `depth` N >= 1. Labels
    do not matter: v_k is the logit in favour of the true label.

    Closed forms: hinge, also with a margin shift, a temperature or flipped labels, from event to event; one layer of squared
    loss; one layer of types of which any two are equal or at right angles, sum_k r_k^2 S_k S'_k = 0 (3.9), (20.2), which
    needs types and scales that are known outside jit. The others are integrated in log t, also in two cases that have closed
    forms elsewhere: the starving pair of the exponential loss (10.2) (`starving_pair`) and features that share no sample at
    N >= 2 (`depth_mode`). There the two agree to 1e-14 at N = 1 to 3 and 1e-13 at 5, and integration is cheaper.

    The error is below 1e-11 of the largest logit (2e-5 in float32), times the condition number of v(t), which for
    N >= 3 is that of an explosion, start^(2/N-1); for t up to 1e300 (1e30). The squared loss at N >= 2 and
    spectral decoupling come to rest: late times give `settled_features` if all features have settled, and a
    `ConvergenceError` if some still move after some 1e3 times of the fastest feature. Derivatives of integrated logits
    fall as e^-m late in training, with a relative error of 1e-9 (1e-4 in float32, whose margins are rounded).
    """

    __repr__ = short_repr

    types: Float[Array, "S K"]
    probabilities: Float[Array, "*batch S"]
    scales: Float[Array, "*batch K"]
    start: Float[Array, "*batch K"]
    loss_function: Loss
    depth: int = eqx.field(static=True)

    def features(self, t) -> Float[Array, "..."]:
        """v_k(t), [*batch, *t.shape, K]. `ValueError` for bad times, `ConvergenceError` if a late one is out of reach."""
        t = check_times(t, self.start.dtype)
        batch, count = self.start.shape[:-1], self.start.shape[-1]
        p, r, start = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (self.probabilities, self.scales, self.start))
        loss, flat = self.loss_function, t.reshape(-1)
        signed = _may_be_signed(self.types)
        if self.depth == 1 and loss.clock is not None and _is_apart(self.types, self.scales):
            return _read_outs(self, t)
        if is_flat(loss) and (signed or not isinstance(loss, Hinge)):
            if self.depth > 1:
                phases = _deep_phases(self.types, p, r, start, loss, self.depth)
                found, ended = _deep_at(self.types, p, r, loss, self.depth, phases, flat)
            else:
                found, ended = _flat_at(self.types, p, r, start, loss, flat)
            found = _ended(found, ended)
        elif loss.clock is not None and loss.stops:
            found = _hinge_at(self.types, p, r, start, self.depth, flat)
        elif loss.clock is not None and loss.pulls_back and self.depth == 1:
            found = _linear_at(self.types, p, r, start, flat)
        else:
            found = until_rest(_integrated, self.types, p, r, start, loss, self.depth, flat)
        return found.reshape(*batch, *t.shape, count)

    def margins(self, t) -> Float[Array, "..."]:
        """m_S(t) of every sample type, [*batch, *t.shape, S]."""
        return self.features(t) @ self.types.T

    def alone(self, t) -> Float[Array, "..."]:
        """v_k(t) if the other features were removed from the same samples, [*batch, *t.shape, K] (10.6)."""
        if self.loss_function.clock is None or _may_be_signed(self.types):
            return self._each_alone(t)
        seen = self.probabilities @ self.types
        apart = jnp.eye(self.types.shape[1], dtype=self.types.dtype)
        flow = FeatureFlow(apart, seen, self.scales, self.start, self.loss_function, self.depth)
        return _read_outs(flow, check_times(t, self.start.dtype)) if self.depth == 1 else flow.features(t)

    def _each_alone(self, t):
        """`alone` for losses that differ between samples: K problems of one feature each, on the same samples."""
        size = self.types.shape[1]
        curves = []
        for k in range(size):
            one = (self.types[:, k : k + 1], self.probabilities, self.scales[..., k : k + 1], self.start[..., k : k + 1])
            curves.append(FeatureFlow(*one, self.loss_function, self.depth).features(t))
        return jnp.concatenate(curves, axis=-1)

    def index(self, t) -> Float[Array, "..."]:
        """The starvation index 1 - v_k(t)/v_k^alone(t), [*batch, *t.shape, K] (10.6); 0 where both are still 0."""
        return starvation_index(self.features(t), self.alone(t))


def starvation_index(found, alone) -> Float[Array, "..."]:
    """1 - v/v_alone, 0 where v_alone = 0: the part of its logit that a feature loses to the others (10.6).

    >>> starvation_index([0.5, 0.0], [2.0, 0.0]).tolist()
    [0.75, 0.0]
    """
    found, alone = together(found=found, alone=alone)
    check_normal("alone", alone)
    return _index(found, alone)


@quick_jit(few=0)
def _index(found: Array, alone: Array) -> Array:
    return jnp.where(alone == 0, 0, 1 - found / jnp.where(alone == 0, 1, alone))


@deprecated("types", "probabilities", "loss", "depth", "scales", "init")
def feature_flow(types, probabilities, loss: Loss | str, *, depth=1, scales=None, init=None) -> FeatureFlow:
    """K orthogonal features learnt from samples of S types (10.1), by one layer or balanced paths of `depth` layers.

    `types`: [S, K] of -1, 0 and 1, every type with a feature and every feature in a type; -1 is a feature that contradicts
    the label (section 20; at depth >= 2 the paths are linear); `probabilities`: [*batch, S] > 0,
    which need not sum to 1: samples without a feature take no part, and a common factor is one of the unit of time;
    `scales`: r_k, [*batch, K] > 0, default 1; `init`: v_k(0), [*batch, K], default 0 at depth 1, where any number will do,
    and needed at depth >= 2, where it must be > 0 (at 0 a path never moves). `ValueError` otherwise.

    >>> flow = feature_flow([[1, 0], [1, 1]], [0.5, 0.5], "hinge")
    >>> [round(float(v), 4) for v in flow.features(100.0)]   # feature 2 stops at 1/3, though it could do its samples alone
    [1.0, 0.3333]
    """
    depth, loss = positive_int("depth", depth), as_loss(loss)
    given = {"types": types, "probabilities": probabilities}
    given |= {name: value for name, value in (("scales", scales), ("init", init)) if value is not None}
    arrays = dict(zip(given, real_arrays(**given), strict=True))
    kinds, probabilities = arrays["types"], arrays["probabilities"]
    check_types(kinds)
    check_pull(loss, kinds.shape[0])
    sizes = (("probabilities", kinds.shape[0]), ("scales", kinds.shape[1]), ("init", kinds.shape[1]))
    for name, size in sizes:
        if name in arrays and arrays[name].shape[-1:] != (size,):
            raise ValueError(
                f"{name} must have {size} entries in the last axis for types of shape {kinds.shape}, "
                f"got shape {arrays[name].shape}"
            )
    check_positive("probabilities", probabilities)
    scales = arrays.get("scales", jnp.ones(kinds.shape[1:], kinds.dtype))
    check_positive("scales", scales)
    start = arrays.get("init", jnp.zeros(kinds.shape[1:], kinds.dtype))
    if depth > 1:
        if init is None:
            raise ValueError(f"depth = {depth} needs init, the first logits v_k(0) > 0: paths of zeros never move")
        check_deep_start("init", start, depth)
    batch = jnp.broadcast_shapes(*(leaf.shape[:-1] for leaf in (probabilities, scales, start)))
    p, s, v = (jnp.broadcast_to(leaf, (*batch, leaf.shape[-1])) for leaf in (probabilities, scales, start))
    return FeatureFlow(kinds, p, s, v, loss, depth)


def check_deep_start(name: str, start: Array, depth: int) -> None:
    """Raise a `ValueError` for initial logits that are not above zero, or so small that their escape time has no digits.

    At N >= 3 a path waits for start^(2/N-1) and then explodes within a time of order 1.
    """
    check_positive(name, start)
    if depth > 2 and is_concrete(start):
        least = float((1e3 * jnp.finfo(start.dtype).eps) ** (1 / (1 - 2 / depth)))
        smallest = float(jnp.min(start))
        if smallest < least:
            raise ValueError(
                f"{name} must be at least {least:.2g} for depth = {depth} in {start.dtype}, got {smallest:.3g}: paths from "
                "smaller logits escape at a time that no float is close enough to"
            )


def _may_be_signed(types: Array) -> bool:
    """Whether a type shows a feature with reversed sign; True if the types are traced."""
    return not is_concrete(types) or bool((np.asarray(types) < 0).any())


def _is_apart(types: Array, scales: Array) -> bool:
    """Whether any two sample types are equal or at right angles; False if this is unknown, inside jit.

    Types that share no feature are at right angles whatever the scales; with signs it is a matter of the scales.
    """
    if not is_concrete(types):
        return False
    shown = np.asarray(types)
    equal = (shown[:, None] == shown).all(-1)
    share = np.abs(shown) @ np.abs(shown).T > 0
    if not (share & ~equal).any():
        return True
    if not is_concrete(scales):
        return False
    squares = np.asarray(scales)[..., None, :] ** 2
    products, sizes = (shown * squares) @ shown.T, (np.abs(shown) * squares) @ np.abs(shown).T
    return bool(((np.abs(products) <= 4 * np.finfo(shown.dtype).eps * sizes) | equal).all())


@quick_jit(eqx.filter_jit, few=0)
def _read_outs(flow: FeatureFlow, t: Array) -> Array:
    """One layer, types that are equal or at right angles: each obeys (3.9) at the norm of its samples.

    Feature k's part of what the margin gains is S_k r_k^2 over the square of that norm.
    """
    equal = (flow.types[:, None] == flow.types).all(-1).astype(t.dtype)
    squares = flow.scales**2 @ (flow.types**2).T
    squares = jnp.where(squares > 0, squares, 1)  # a type without features contributes to none
    numbers = (flow.probabilities @ equal, jnp.sqrt(squares), flow.start @ flow.types.T, squares, flow.scales**2, flow.start)
    seen, norms, first, squares, parts, start = (insert_axes(leaf, t.ndim) for leaf in numbers)
    gained = (one_layer_logit(seen, norms, first, flow.loss_function, t[..., None]) - first) / squares
    return start + parts * (gained @ (flow.types / jnp.sum(equal, axis=-1, keepdims=True)))


# --- hinge: piece by piece -------------------------------------------------------------------------------------------


def hinge_phases(types, probabilities, scales, start, depth: int) -> tuple[Array, Array, Array]:
    """One problem: the times [S+1] at which the phases start (inf: never), and v_k and dphi(v_k)/dt [S+1, K] there."""

    def phase(state, _):
        v, done, clock = state
        pace = depth * scales ** (2 / depth) * (jnp.where(done, 0, probabilities) @ types)
        waits = jnp.where(done, jnp.inf, _waits(types, v, pace, depth))
        wait = jnp.min(waits)
        after = raised(v, pace * jnp.where(jnp.isfinite(wait), wait, 0), depth)
        return (after, done | (waits <= wait), clock + wait), (clock, v, pace)

    begin = (start, types @ start >= 1, jnp.zeros((), start.dtype))
    (v, _, clock), (clocks, states, paces) = jax.lax.scan(phase, begin, None, length=types.shape[0])
    ends = (jnp.append(clocks, clock), jnp.concatenate([states, v[None]]), jnp.concatenate([paces, 0 * paces[:1]]))
    return ends


def _waits(types, v, pace, depth):
    """The time each type needs to reach margin 1 from v at constant pace, [S]; arbitrary for types that are done."""
    mine = types > 0
    if depth == 1:
        speed = types @ pace
        return jnp.maximum(1 - types @ v, 0) / jnp.where(speed > 0, speed, 1)
    # The features of a type together get there before the fastest of them alone.
    below = mine & (v < 1) & (pace > 0)
    single = rise(jnp.where(below, v, 0.5), 1.0, depth) / jnp.where(below, pace, 1)
    longest = jnp.min(jnp.where(below, single, jnp.inf), axis=-1)
    longest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(longest), longest, 0))

    def margin(wait, problem):
        v, pace = problem
        now = jnp.where(mine, raised(v, jnp.where(mine, pace, 0) * wait[:, None], depth), 0)
        return jnp.sum(now, axis=-1), jnp.sum(jnp.where(mine, pace, 0) * now ** (2 - 2 / depth), axis=-1)

    return invert(margin, (v, pace), jnp.zeros_like(longest), longest, longest, jnp.ones_like(longest))


@quick_jit(eqx.filter_jit, few=0)
def _hinge_at(types, p, r, start, depth, t):
    def one(p, r, start):
        clocks, states, paces = hinge_phases(types, p, r, start, depth)
        phase = jnp.sum(clocks[None] <= t[:, None], axis=-1) - 1
        since = t - jnp.where(jnp.isfinite(clocks), clocks, 0)[phase]
        return raised(states[phase], paces[phase] * since[:, None], depth)

    return jax.vmap(one)(p, r, start)


@quick_jit(eqx.filter_jit, few=0)
def _flat_at(types, p, r, start, loss, t):
    kinks, levels = kinks_and_levels(loss, types.shape[0], types.dtype)

    def one(p, r, start):
        clocks, states, paces, ended = flat_phases(types, p, r, start, kinks, levels)
        phase = jnp.sum(clocks[None] <= t[:, None], axis=-1) - 1
        since = t - jnp.where(jnp.isfinite(clocks), clocks, 0)[phase]
        return states[phase] + paces[phase] * since[:, None], ended | (jnp.max(t, initial=0) <= clocks[-1])

    return jax.vmap(one)(p, r, start)


def _paths(types, p, r, loss, depth) -> Paths:
    kinks, levels = kinks_and_levels(loss, types.shape[0], types.dtype)
    return Paths(types, levels * p, kinks, depth * r ** (2 / depth), depth)


@quick_jit(eqx.filter_jit, few=0)
def _deep_phases(types, p, r, start, loss, depth):
    return jax.vmap(lambda p, r, start: deep_phases(_paths(types, p, r, loss, depth), start))(p, r, start)


@quick_jit(eqx.filter_jit, few=0)
def _deep_at(types, p, r, loss, depth, phases, t):
    def one(p, r, found):
        clocks, states, log, known = found
        problem = _paths(types, p, r, loss, depth)
        places = jax.vmap(lambda t: deep_place(problem, clocks, states, log, t))(t)
        return places, (jnp.max(t, initial=0) <= known) & jnp.isfinite(places).all()

    return jax.vmap(one)(p, r, phases)


def _ended(found: Array, ended: Array) -> Array:
    """`found`; `ConvergenceError` if there were more events than the arrays hold."""
    message = (
        "margins meet their kinks more often than there is room for, or rounding hides which of them are held; ask for "
        "earlier times"
    )
    if not is_concrete(ended):
        return eqx.error_if(found, ~ended.all(), message)
    if not bool(ended.all()):
        raise ConvergenceError(message)
    return found


# --- squared loss, one layer: a linear equation ----------------------------------------------------------------------


@quick_jit(eqx.filter_jit, few=0)
def _linear_at(types, p, r, start, t):
    """v = v(0) + r^2 Z x with Z a basis of the features that the types span, and x' linear in x. Twice differentiable.

    In y = C^T x, C C^T = Z^T r^2 Z: dy/dt = N^T (sqrt p (1 - m(0)) - N y), N = sqrt(p) types Z C. The part of v outside of
    the span of the types never moves, for any p and r.
    """
    spanned, moving = _spanned(jax.lax.stop_gradient(types))

    def one(p, r, start):
        spread = jnp.where(moving, spanned * r[:, None] ** 2, 0).T @ spanned
        spread = jnp.where(moving[:, None] & moving, spread, jnp.eye(r.size, dtype=r.dtype))
        factor = jnp.linalg.cholesky(spread)
        root = jnp.sqrt(p)
        matrix = jnp.where(moving, root[:, None] * (types @ spanned) @ factor, 0)
        gained = _relaxed(matrix, root * (1 - types @ start), moving, t)
        x = jax.scipy.linalg.solve_triangular(factor.T, gained.T)
        return start + (jnp.where(moving, spanned * r[:, None] ** 2, 0) @ x).T

    return jax.vmap(one)(p, r, start)


def _spanned(types):
    """A basis [K, K] of the span of the types, and which of its columns count, [K]; the unit vectors if they span all."""
    _, sizes, rows = jnp.linalg.svd(types, full_matrices=True)
    sizes = jnp.concatenate([sizes, jnp.zeros(types.shape[1] - sizes.size, sizes.dtype)])
    moving = sizes > 10 * max(types.shape) * jnp.finfo(types.dtype).eps * sizes[0]
    return jnp.where(moving.all(), jnp.eye(types.shape[1], dtype=types.dtype), rows.T), moving


@jax.custom_jvp
def _relaxed(matrix, target, moving, t):
    """y(t) from y(0) = 0, dy/dt = N^T (target - N y), [times, K]; N has full rank in its columns `moving`, 0 elsewhere."""
    return _expanded(matrix, target, moving, t, 0)


@_relaxed.defjvp
def _(primals, tangents):
    (matrix, target, moving, t), (dmatrix, dtarget, _, dt) = primals, tangents

    def moved(matrix, target, t):
        return _expanded(matrix, target, moving, t, 2)

    return jax.jvp(moved, (matrix, target, t), (dmatrix, dtarget, dt))


def _expanded(matrix, target, moving, t, order: int):
    """`_relaxed` in the eigenvectors of N^T N, differentiable up to `order`.

    The basis is held fixed, so that a change of the problem couples the modes. The coupling E is zero but its derivatives
    are not, so that its powers up to `order` are needed; unlike derivatives of eigenvectors they are finite where
    eigenvalues agree: exp(-(D + E) t) = exp(-D t) - int exp(-D (t-s)) E exp(-D s) ds + ...
    """
    size = matrix.shape[1]
    basis = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=True)[2].T
    turned = matrix @ basis
    # Columns that do not count are the last singular vectors; they have no effect at any rate.
    inert = jnp.arange(size) >= jnp.sum(moving)
    rates = jnp.sum(turned**2, axis=0)
    rates = jnp.where(inert, jax.lax.stop_gradient(jnp.max(rates)), rates)
    pull = jnp.where(inert, 0, target @ turned)
    if order == 0:
        return (-jnp.expm1(-rates * t[:, None]) * (pull / rates)) @ basis.T
    gram = turned.T @ turned
    apart = ~jnp.eye(size, dtype=bool) & ~inert & ~inert[:, None]
    coupling = jnp.where(apart, gram - jax.lax.stop_gradient(gram), 0)
    steady = jnp.linalg.solve(jnp.diag(rates) + coupling, pull)

    def at(t):
        once = _decays(rates[:, None], rates, t)
        three = jnp.stack(jnp.broadcast_arrays(rates[:, None, None], rates[:, None], rates))
        twice = jax.lax.stop_gradient(_twice_decays(three, t))
        bent = (once * coupling) @ steady - jnp.einsum("ijk,ij,jk,k->i", twice, coupling, coupling, steady)
        return -jnp.expm1(-rates * t) * steady + bent

    return jax.lax.map(at, t) @ basis.T


def _decays(first, second, t):
    """The integral of exp(-first (t-s) - second s) over s from 0 to t, differentiable also where both rates agree."""
    # `where`, not minimum and maximum: at a tie either order has the right derivatives, but their mean has not.
    slow, fast = jnp.where(first <= second, first, second), jnp.where(first <= second, second, first)
    gap = fast - slow
    close = gap * t < 1
    near, total, term = jnp.where(close, gap * t, 0), 0.0, 1.0
    for n in range(1, 20):
        total, term = total + term, -term * near / (n + 1)
    return jnp.exp(-slow * t) * jnp.where(close, t * total, -jnp.expm1(-gap * t) / jnp.where(close, 1, gap))


def _twice_decays(rates, t):
    """The integral of exp(-a (t-s) - b (s-w) - c w) over 0 < w < s < t, (a, b, c) along the first axis of `rates`."""
    low, middle, high = jnp.sort(rates, axis=0)
    gap = high - low
    close = gap * t < 1
    one, other = (jnp.where(close, (rate - low) * t, 0) for rate in (middle, high))
    # Complete symmetric polynomials of the two gaps: h_n = one h_(n-1) + other^n.
    total, symmetric, power, factorial = 0.0, jnp.ones_like(one), jnp.ones_like(one), 2.0
    for n in range(19):
        total = total + (-1) ** n * symmetric / factorial
        power = power * other
        symmetric, factorial = one * symmetric + power, factorial * (n + 3)
    near = (t * jnp.exp(-low * t / 2)) ** 2 * total
    return jnp.where(close, near, (_decays(low, middle, t) - _decays(middle, high, t)) / jnp.where(close, 1, gap))


# --- everything else -------------------------------------------------------------------------------------------------


class _Field(eqx.Module):
    """(10.1) in the coordinates v, or log v at depth >= 2, with one compiled program for all depths >= 2."""

    loss_function: Loss
    linear: bool = eqx.field(static=True)

    def __call__(self, state, problem):
        types, p, r, depth = problem
        v = state if self.linear else jnp.exp(state)
        push = (p * self.loss_function.residual(types @ v)) @ types
        return r**2 * push if self.linear else depth * r ** (2 / depth) * v ** (1 - 2 / depth) * push


def _integrated(types, p, r, start, loss, depth, t):
    linear = depth == 1
    field, count = _Field(loss, linear), p.shape[:1]
    problem = (jnp.broadcast_to(types, (*count, *types.shape)), p, r, jnp.full(count, depth, p.dtype))
    found = follow(field, start if linear else jnp.log(start), problem, t)
    return found if linear else jnp.exp(found)


# Neurons active on every sample (10.7): two layers, any number of neurons, all of them moved by one Lorentz boost.
#
# For neurons active on all samples let alpha_jk be the component of w_j along feature k, c_k = r_k sum_{S with k} p_S
# g(m_S). Then d(alpha_jk)/dt = z_j c_k and dz_j/dt = sum_k alpha_jk c_k, the same linear equations for every neuron: the
# vectors (alpha_j, z_j) of R^(K+1) are all multiplied by one matrix, a product of boosts along c, which depends on the
# neurons only through their second moments. (One feature: the hyperbolic clock (3.1).) For the starving pair
#
#     d(beta_j)/d(alpha_j) = p_12 g(v_1 + v_2) / [p_1 g(v_1) + p_12 g(v_1 + v_2)]                                (10.7)
#
# for every neuron at every time and for any z_j; this slope is at most p_12/(p_1 + p_12) while v_2 >= 0, and at least
# p_12/(p_1 + p_12) while v_2 <= 0.


class SharedFeatures(eqx.Module):
    """Two-layer neurons that are all active on all samples, under gradient flow. Made by `shared_features`; t is time.

    Fields as in `shared_features`; error 1e-9 of the largest weight, for t to 1e300 (float32: 2e-5, to 1e30). The same
    holds for derivatives: late ones, which fall as e^-m, have no correct digits once they are below this error.
    """

    __repr__ = short_repr

    types: Float[Array, "S K"]
    probabilities: Float[Array, "*batch S"]
    scales: Float[Array, "*batch K"]
    w: Float[Array, "*batch h K"]
    z: Float[Array, "*batch h"]
    loss_function: Loss

    def boost(self, t) -> Float[Array, "..."]:
        """The matrix that takes every neuron's (alpha_j, z_j) from 0 to t: [*batch, *t.shape, K+1, K+1]."""
        t = check_times(t, self.z.dtype)
        batch, size = self.z.shape[:-1], self.types.shape[1] + 1
        found = _boosts(self, t.reshape(-1))
        return found.reshape(*batch, *t.shape, size, size)

    def weights(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(alpha_jk, z_j) at t: [*batch, *t.shape, h, K] and [*batch, *t.shape, h]."""
        moved = self.boost(t)
        start = jnp.concatenate([self.w, self.z[..., None]], axis=-1)
        axes = moved.ndim - self.z.ndim - 1
        start = start.reshape(*self.z.shape[:-1], *(1,) * axes, *start.shape[-2:])
        now = jnp.einsum("...ab,...hb->...ha", moved, start, precision="highest")
        return now[..., :-1], now[..., -1]

    def features(self, t) -> Float[Array, "..."]:
        """v_k = r_k sum_j alpha_jk z_j at t, [*batch, *t.shape, K]."""
        w, z = self.weights(t)
        axes = z.ndim - self.z.ndim
        scales = self.scales.reshape(*self.scales.shape[:-1], *(1,) * axes, self.scales.shape[-1])
        return scales * jnp.einsum("...hk,...h->...k", w, z, precision="highest")


@deprecated("types", "probabilities", "loss", "w", "z", "scales")
def shared_features(types, probabilities, w, z, loss: Loss | str, *, scales=None) -> SharedFeatures:
    """K orthogonal features learnt by h neurons active on every sample (10.7).

    `types`: [S, K], `probabilities`: [*batch, S], `scales`: [*batch, K] as in `feature_flow`; `w`: [*batch, h, K], the
    components alpha_jk along the features' unit directions, `z`: [*batch, h]. Every neuron needs z_j >= 0 and w_j.x > 0 on
    all samples, which then holds at all times; or all its weights are 0. `HypothesisError` otherwise, and for the squared
    loss, which pulls back margins above 1.

    >>> law = shared_features([[1, 0], [1, 1]], [0.5, 0.5], w=[[0.1, 0.1]], z=[0.1], loss="cross-entropy")
    >>> v1, v2 = law.features(1e30)
    >>> bool(v2 / v1 < 0.2)
    True
    """
    loss = with_closed_form(loss)
    w, z = real_arrays(w=w, z=z)
    if w.ndim < 2 or z.shape != w.shape[:-1]:
        raise ValueError(f"w must be [*batch, h, K] and z [*batch, h], got shapes {w.shape} and {z.shape}")
    flow = feature_flow(types, probabilities, loss, scales=scales, init=jnp.zeros((*z.shape[:-1], w.shape[-1]), z.dtype))
    if loss.pulls_back:
        raise HypothesisError(
            "every neuron stays active on all samples (10.7)",
            "the squared loss pushes margins above 1 back, and neurons with them",
            "simulate_flow",
        )
    _check_squares(w, z)
    _check_cone(flow)
    if is_concrete(w) and is_concrete(z):
        seen = np.einsum("...hk,sk->...hs", np.asarray(w * flow.scales[..., None, :]), np.asarray(flow.types))
        empty = (np.asarray(w) == 0).all(-1) & (np.asarray(z) == 0)
        bad = np.argwhere(~(((seen > 0).all(-1) & (np.asarray(z) >= 0)) | empty))
        if bad.size:
            where = tuple(int(i) for i in bad[0])
            raise HypothesisError(
                "every neuron has z >= 0 and is active on all samples (10.7)",
                f"neuron {list(where)}: z = {float(z[where]):.6g}, w.x = {seen[where].tolist()}",
                "simulate_flow",
            )
    batch = flow.start.shape[:-1]
    w, z = jnp.broadcast_to(w, (*batch, *w.shape[-2:])), jnp.broadcast_to(z, (*batch, z.shape[-1]))
    return SharedFeatures(flow.types, flow.probabilities, flow.scales, w, z, loss)


def _check_cone(flow: FeatureFlow) -> None:
    """`HypothesisError` for samples at obtuse angles (possible with signs), which may make neurons inactive."""
    if not is_concrete(flow.scales) or not _may_be_signed(flow.types) or not is_concrete(flow.types):
        return
    types, squares = np.asarray(flow.types), np.asarray(flow.scales)[..., None, :] ** 2
    products, sizes = (types * squares) @ types.T, (np.abs(types) * squares) @ np.abs(types).T
    if (products < -1e-6 * sizes).any():
        raise HypothesisError(
            "every neuron stays active on all samples (10.7)",
            f"two sample types are at an angle above 90 degrees: x.x' = {products.min():.6g}",
            "simulate_flow, or feature_flow(...) for one layer",
        )


def _check_squares(w: Array, z: Array) -> None:
    """`ValueError` if the second moments of a network underflow: as zeros they would keep it at the origin."""
    if is_concrete(w) and is_concrete(z):
        every = np.concatenate([np.asarray(w).reshape(*z.shape[:-1], -1), np.asarray(z)], axis=-1)
        check_normal_rows("w, z", every)
        with np.errstate(divide="ignore"):
            log_sizes = 2 * np.log(np.max(np.abs(every), axis=-1))
        check_normal_size("max |w, z|^2", log_sizes, every.dtype)


@deprecated("p_frequent", "p_both", "loss", "frequent", "rare")
def shared_slope(p_frequent, p_both, loss: Loss | str, *, frequent: Any = 0.0, rare: Any = 0.0) -> Float[Array, "..."]:
    """d(beta_j)/d(alpha_j) of (10.7) at logits v_1 = `frequent` and v_2 = `rare`, for any neuron that sees both features.

    `p_frequent`: p_1 > 0 and `p_both`: p_12 > 0, of sum at most 1, as in `starving_pair`. Without logits, or with
    v_2 = 0, it is p_12/(p_1 + p_12), which it exceeds only where v_2 < 0. All arguments broadcast.
    The increments of one step of gradient descent obey it exactly, at any step size.

    >>> float(shared_slope(0.75, 0.25, "hinge"))
    0.25
    """
    p_frequent, p_both, frequent, rare = together(p_frequent=p_frequent, p_both=p_both, frequent=frequent, rare=rare)
    check_positive("p_frequent", p_frequent)
    check_positive("p_both", p_both)
    check_shares(p_frequent=p_frequent, p_both=p_both)
    residual = as_loss(loss).residual
    both = p_both * residual(frequent + rare)
    total = p_frequent * residual(frequent) + both
    if is_concrete(total) and bool((total == 0).any()):
        raise HypothesisError(
            "some sample still moves the neurons (10.7)",
            f"no residual is left at v_1 = {shown(frequent)}, v_2 = {shown(rare)} with loss {as_loss(loss).name!r}",
            "logits below the margin of the loss",
        )
    return both / total


class _Boost(eqx.Module):
    """dM/dt = G M, with G the boost along c, which depends on the moments M C M^T."""

    loss_function: Loss

    def __call__(self, boost, problem):
        types, p, r, moments = problem
        now = boost @ moments @ boost.T
        push = r * ((p * self.loss_function.residual(types @ (r * now[:-1, -1]))) @ types)
        return jnp.concatenate([push[:, None] * boost[-1], (push @ boost[:-1])[None]])


def _boosts(law: SharedFeatures, t: Array) -> Array:
    p, r, z = (leaf.reshape(-1, leaf.shape[-1]) for leaf in (law.probabilities, law.scales, law.z))
    neurons = jnp.concatenate([law.w.reshape(-1, *law.w.shape[-2:]), z[..., None]], axis=-1)
    moments = jnp.einsum("bha,bhc->bac", neurons, neurons, precision="highest")
    start = jnp.broadcast_to(jnp.eye(neurons.shape[-1], dtype=t.dtype), moments.shape)
    problem = (jnp.broadcast_to(law.types, (*p.shape[:1], *law.types.shape)), p, r, moments)
    return follow(_Boost(law.loss_function), start, problem, t)
