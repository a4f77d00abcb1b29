"""The logits of orthogonal features that share samples (10.1), and how much they starve each other (10.6).

A sample type is a set S of features with probability p_S; v_k is the logit that feature k carries, m_S = sum_{k in S} v_k
the margin of a sample. With one layer, or balanced paths of N layers each of which sees one feature, and r_k the norm of
feature k in a sample,

    dv_k/dt = N r_k^(2/N) v_k^(2-2/N) sum_{S with k} p_S g(m_S),                                              (10.1)

so phi(v_k), phi' = v^(2/N-2), moves at a speed that only g changes. With the hinge loss that speed is constant until a
margin is reached; margins never fall, so that there is one event a type and the solution is exact (`hinge_phases`).
With one layer and sample types of which any two are equal or share nothing, each type is a read-out of its own (3.9).
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, check_positive, is_concrete, positive_int, real_arrays, together
from gradstarve.problem import Loss, as_loss, check_types, closed_form_of
from gradstarve.special import invert
from gradstarve.theory._flows import follow
from gradstarve.theory._mode import insert_axes
from gradstarve.theory._one_layer import one_layer_logit
from gradstarve.theory._piecewise import check_times
from gradstarve.theory._settled import check_pull, until_rest


class FeatureFlow(eqx.Module):
    """K features under gradient flow (10.1). t is time, a scalar or an array of any shape. Made by `feature_flow`.

    `types`: [S, K] of 0 and 1, `probabilities`: [*batch, S], `scales` and `start`: [*batch, K], `depth` N >= 1. Labels do
    not matter: v_k is the logit in favour of the right one.

    Closed forms: hinge; one layer of squared loss; one layer of types of which any two are equal or share no feature
    (3.9), which needs types that are known outside jit. The others are integrated in log t, also where a closed form
    exists: the starving pair of the exponential loss (10.2) (`starving_pair` has it) and features that share nothing at
    N >= 2 (`depth_mode`). There both agree to 1e-14 at N = 1 to 3 and 1e-13 at 5, and integration is the cheaper one.

    Either way the error is below 1e-11 of the largest logit (2e-5 in float32), times the condition of v(t), which for
    N >= 3 is that of an explosion, start^(2/N-1); for t up to 1e300 (1e30). The squared loss at N >= 2 and
    spectral decoupling come to rest: late times are answered by `settled_features` where all features have, and are a
    `ConvergenceError` where some still move after some 1e3 of the fastest one's times.
    """

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
        kind, flat = closed_form_of(self.loss_function), t.reshape(-1)
        if self.depth == 1 and kind is not None and _is_apart(self.types):
            return _read_outs(self, t)
        if kind == "hinge":
            found = _hinge_at(self.types, p, r, start, self.depth, flat)
        elif kind == "squared" and self.depth == 1:
            found = _linear_at(self.types, p, r, start, flat)
        else:
            found = until_rest(_integrated, self.types, p, r, start, self.loss_function, self.depth, flat)
        return found.reshape(*batch, *t.shape, count)

    def margins(self, t) -> Float[Array, "..."]:
        """m_S(t) of every sample type, [*batch, *t.shape, S]."""
        return self.features(t) @ self.types.T

    def alone(self, t) -> Float[Array, "..."]:
        """v_k(t) if the other features were removed from the same samples, [*batch, *t.shape, K] (10.6)."""
        if closed_form_of(self.loss_function) is None:
            return self._each_alone(t)
        seen = self.probabilities @ self.types
        apart = jnp.eye(self.types.shape[1], dtype=self.types.dtype)
        flow = FeatureFlow(apart, seen, self.scales, self.start, self.loss_function, self.depth)
        return _read_outs(flow, check_times(t, self.start.dtype)) if self.depth == 1 else flow.features(t)

    def _each_alone(self, t):
        """`alone` for losses that tell the samples apart: K problems of one feature each, on the samples as they are."""
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
    """1 - v/v_alone, 0 where v_alone = 0: which part of its logit a feature lost to the others (10.6).

    >>> starvation_index([0.5, 0.0], [2.0, 0.0]).tolist()
    [0.75, 0.0]
    """
    found, alone = together(found=found, alone=alone)
    check_normal("alone", alone)
    return _index(found, alone)


@jax.jit
def _index(found: Array, alone: Array) -> Array:
    return jnp.where(alone == 0, 0, 1 - found / jnp.where(alone == 0, 1, alone))


def feature_flow(types, probabilities, loss: Loss | str, depth=1, scales=None, init=None) -> FeatureFlow:
    """K orthogonal features learnt from samples of S types (10.1), by one layer or balanced paths of `depth` layers.

    `types`: [S, K] of 0 and 1, every type with a feature and every feature in a type; `probabilities`: [*batch, S] > 0;
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
    leaves = (probabilities, scales, start)
    batch = jnp.broadcast_shapes(*(leaf.shape[:-1] for leaf in leaves))
    return FeatureFlow(kinds, *(jnp.broadcast_to(leaf, (*batch, leaf.shape[-1])) for leaf in leaves), loss, depth)


def check_deep_start(name: str, start: Array, depth: int) -> None:
    """Raise a `ValueError` for first logits that are not above zero, or so small that no float tells when they escape.

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


def _is_apart(types: Array) -> bool:
    """Whether any two sample types are equal or share no feature; False where that can not be seen, inside jit."""
    if not is_concrete(types):
        return False
    shown = np.asarray(types)
    shared, sizes = shown @ shown.T, shown.sum(-1)
    return bool(((shared == 0) | ((shared == sizes) & (shared == sizes[:, None]))).all())


@eqx.filter_jit
def _read_outs(flow: FeatureFlow, t: Array) -> Array:
    """One layer, types that are equal or share nothing: each is a read-out at the norm of its samples (3.9).

    Feature k's part of what the margin gains is r_k^2 over the square of that norm.
    """
    twins = (flow.types.T @ flow.types > 0).astype(t.dtype)  # feature by feature, each its own twin
    seen, squares = flow.probabilities @ flow.types, flow.scales**2 @ twins
    numbers = (seen, jnp.sqrt(squares), flow.start @ twins, flow.scales**2 / squares, flow.start)
    seen, norms, first, part, start = (insert_axes(leaf, t.ndim) for leaf in numbers)
    return start + part * (one_layer_logit(seen, norms, first, flow.loss_function, t[..., None]) - first)


# --- phi and its inverse ---------------------------------------------------------------------------------------------


def rise(before: Any, after: Any, depth: int) -> Array:
    """phi(after) - phi(before), phi(v) = integral v^(2/N-2) dv; `after` may be inf."""
    if depth == 1:
        return after - before
    if depth == 2:
        return jnp.log(after) - jnp.log(before)
    power = 1 - 2 / depth
    return (before**-power - after**-power) / power


def raised(v: Any, rise: Any, depth: int) -> Array:
    """The logit whose phi lies `rise` above that of `v`; inf where there is none (N >= 3: phi is bounded)."""
    if depth == 1:
        return v + rise
    if depth == 2:
        return v * jnp.exp(rise)
    power = 1 - 2 / depth
    left = 1 - power * rise * v**power
    return jnp.where(left > 0, v * jnp.where(left > 0, left, 1) ** (-1 / power), jnp.inf)


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
    """How long each type needs to reach margin 1 from v while its features keep their pace, [S]; done types: anything."""
    mine = types > 0
    if depth == 1:
        speed = types @ pace
        return jnp.maximum(1 - types @ v, 0) / jnp.where(speed > 0, speed, 1)
    # Together its features get there before the first of them would alone.
    below = mine & (v < 1) & (pace > 0)
    single = rise(jnp.where(below, v, 0.5), 1.0, depth) / jnp.where(below, pace, 1)
    longest = jnp.min(jnp.where(below, single, jnp.inf), axis=-1)
    longest = jax.lax.stop_gradient(jnp.where(jnp.isfinite(longest), longest, 0))

    def margin(wait, problem):
        v, pace = problem
        now = jnp.where(mine, raised(v, jnp.where(mine, pace, 0) * wait[:, None], depth), 0)
        return jnp.sum(now, axis=-1), jnp.sum(jnp.where(mine, pace, 0) * now ** (2 - 2 / depth), axis=-1)

    return invert(margin, (v, pace), jnp.zeros_like(longest), longest, longest, jnp.ones_like(longest))


@eqx.filter_jit
def _hinge_at(types, p, r, start, depth, t):
    def one(p, r, start):
        clocks, states, paces = hinge_phases(types, p, r, start, depth)
        phase = jnp.sum(clocks[None] <= t[:, None], axis=-1) - 1
        since = t - jnp.where(jnp.isfinite(clocks), clocks, 0)[phase]
        return raised(states[phase], paces[phase] * since[:, None], depth)

    return jax.vmap(one)(p, r, start)


# --- squared loss, one layer: a linear equation ----------------------------------------------------------------------


@eqx.filter_jit
def _linear_at(types, p, r, start, t):
    """v = v(0) + r^2 Z x with Z a basis of the features that the types span, and x' linear in x. Twice differentiable.

    In y = C^T x, C C^T = Z^T r^2 Z: dy/dt = N^T (sqrt p (1 - m(0)) - N y), N = sqrt(p) types Z C. What the types do not
    span never moves, however p and r change.
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
    """A basis [K, K] of what the types span, and which of its columns count, [K]: all features if they span them all."""
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
    """`_relaxed` in the eigenvectors of N^T N, and with what it has of derivatives up to `order`.

    The basis is held fixed, so that a change of the problem couples the modes. The coupling is zero here and its slope is
    not, so that its powers up to `order` are what counts; unlike slopes of eigenvectors they are finite where eigenvalues
    agree: exp(-(D + E) t) = exp(-D t) - int exp(-D (t-s)) E exp(-D s) ds + ...
    """
    size = matrix.shape[1]
    basis = jnp.linalg.svd(jax.lax.stop_gradient(matrix), full_matrices=True)[2].T
    turned = matrix @ basis
    # Columns that are not there are the last singular vectors; they are inert at any rate.
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
    # Chosen, not minimum and maximum: at a tie either order has the right slopes, and the mean of both does not.
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
    """(10.1) in the coordinates v, or log v at depth >= 2: one compiled program for all of those depths."""

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
