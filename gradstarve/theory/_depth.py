"""One path of N layers: b_1, ..., b_N > 0 along one direction, u = r b_1 ... b_N, for every loss and any depth (7.1)-(7.2).

The squares b_l^2 keep their differences, so one number moves them all. Let x be the smallest weight and y = log(x / x(0)):

    b_l^2 = b_l(0)^2 + x(0)^2 (e^(2y) - 1),      p dt = x^2 / (u g(u)) dy,      d log u / dy = S = sum_l x^2 / b_l^2

(balanced: S = N and (7.1)). Time is an integral of smooth functions, and the state at a time its inverse. Up to a cut in u
the panels of the integral widen away from both ends and from the places where x overtakes a difference of the weights:
there x^2/u changes from one power of x to another, and between them it is a pure power. Beyond the cut the integral is
scaled by e^-u and taken over the last 48 units of u; for the squared loss it is taken over -log(1 - u). Hinge stops at its
cut, u = 1.

Also here: one layer alone (3.9).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    as_goal,
    check_fits,
    check_positive,
    check_together,
    deprecated,
    is_concrete,
    quick_jit,
    real_arrays,
    together,
)
from gradstarve.problem import Loss, ModeCurve, given, with_closed_form
from gradstarve.special import invert, lambertw_exp
from gradstarve.theory import _depth_late as depth_late
from gradstarve.theory._mode import insert_axes
from gradstarve.theory._piecewise import check_times, in_time

# One layer: only a linear read-out learns, and its logit obeys du/dt = p r^2 g(u) in closed form for every loss (3.9).


def one_layer_logit(frequency, norm, start, loss: Loss | str, t) -> Float[Array, "..."]:
    """u(t) of the read-out f(x) = v . x on a class of weight p = `frequency` at norm r = `norm`, u(0) = `start` (3.9).

    With T = p r^2 t: cross-entropy u = C - W(e^C), C = T + u(0) + e^u(0) · exponential u = log(T + e^u(0)) · hinge u(0) + T
    until 1 · squared 1 - (1 - u(0)) e^-T. All arguments broadcast, float32 or float64; t is time, finite and >= 0.
    `ValueError` for p <= 0, r <= 0, unknown losses and bad times. Relative error a few ulp of the largest term.

    >>> round(float(one_layer_logit(1.0, 1.0, 0.0, "cross-entropy", 10.0)), 4)
    2.1773
    """
    frequency, norm, start = together(frequency=frequency, norm=norm, start=start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    loss = with_closed_form(loss)
    t = check_times(t, start.dtype)
    check_together(frequency=frequency, norm=norm, start=start, t=t)
    clock = frequency * norm**2 * t
    if loss.stops:
        return jnp.where(start < 1, jnp.minimum(start + clock, 1), start)
    if loss.offset is None:
        # Late in training by 1 - u, which carries the derivative; early by u - u0.
        return jnp.where(clock < 1, start - (start - 1) * -jnp.expm1(-clock), 1 + (start - 1) * jnp.exp(-clock))
    if loss.offset == 0:
        # log(T + e^u0) as u0 plus a small rise, and for a large rise without forming e^u0, which may underflow.
        late = jnp.log(jnp.maximum(clock, jnp.finfo(clock.dtype).tiny)) > start
        rise = jnp.log1p(clock * jnp.exp(-jnp.where(late, 0, start)))
        return jnp.where(late, jnp.logaddexp(jnp.log(jnp.where(late, clock, 1)), start), start + rise)
    return lambert_logit(loss.offset, start, clock)


def lambert_logit(constant: float, start: Array, clock: Array) -> Array:
    """u with e^u + c u = T + e^u(0) + c u(0), T = `clock` >= 0: u = C - W(e^C / c), C the right-hand side over c.

    Relative error a few ulp of u(0) and u, also for u from 0 at small T, where the two terms of the formula cancel.
    """
    level = (clock + jnp.exp(start)) / constant + start
    w = lambertw_exp(level - np.log(constant))
    # W + log(c W) = C: log(c W) is the accurate form where W is all of C, and C - W where W is next to nothing.
    u = jnp.where(w > 1, jnp.log(jnp.where(w > 1, constant * w, 1)), level - w)
    rise = jnp.maximum(u - start, 0)
    # A Newton step for the rise: its error is the rounding of u, whose square is negligible.
    near = jnp.where(rise < 0.5, rise, 0)
    slope = jnp.exp(start + near) + constant
    near = near - (jnp.exp(start) * jnp.expm1(near) + constant * near - clock) / slope
    return jnp.where(rise < 0.5, start + near, u)


def lambert_error(constant: float, start: Array, clock: Array) -> Array:
    """c/(e^u + c) = 1/(1 + W) at the u of `lambert_logit`, computed without u, whose rounding would cost digits."""
    w = lambertw_exp((clock + jnp.exp(start)) / constant + start - float(np.log(constant)))
    early = jax.nn.sigmoid(float(np.log(constant)) - lambert_logit(constant, start, clock))
    return jnp.where(w > 1, 1 / (1 + w), early)


def one_layer_time(frequency, norm, start, loss: Loss | str, logit) -> Float[Array, "..."]:
    """The time at which `one_layer_logit` reaches `logit`: 0 where it starts there or above, inf where it never does.

    p r^2 t = u - u(0) + e^u - e^u(0) for cross-entropy · e^u - e^u(0) exponential · u - u(0) hinge, u <= 1 ·
    log((1 - u(0)) / (1 - u)) squared. Arguments broadcast.

    >>> round(float(one_layer_time(1.0, 1.0, 0.0, "cross-entropy", 2.1773)), 2)
    10.0
    """
    frequency, norm, start = together(frequency=frequency, norm=norm, start=start)
    check_positive("frequency", frequency)
    check_positive("norm", norm)
    loss = with_closed_form(loss)
    logit = as_goal("logit", logit, start.dtype)
    check_together(frequency=frequency, norm=norm, start=start, logit=logit)
    rise = jnp.maximum(logit - start, 0)
    if loss.stops:
        clock = jnp.where(logit <= 1, rise, jnp.inf)
    elif loss.offset is None:
        reached = logit < 1
        clock = jnp.where(reached, -jnp.log1p(-rise / jnp.where(reached, 1 - start, 1)), jnp.inf)
    else:
        clock = exponential_time(start, rise) + (loss.offset * rise if loss.offset else 0)
    return jnp.where(rise > 0, in_time(clock, frequency * norm**2), 0)


# phi(v) = integral v^(2/N-2) dv of a path of N layers, and its inverse.


def rise(before: Any, after: Any, depth: int) -> Array:
    """phi(after) - phi(before), phi(v) = integral v^(2/N-2) dv; `after` may be inf."""
    if depth == 1:
        return after - before
    if depth == 2:
        return jnp.log(after) - jnp.log(before)
    power = 1 - 2 / depth
    return (before**-power - after**-power) / power


def raised(v: Any, rise: Any, depth: int) -> Array:
    """The logit whose phi exceeds phi(v) by `rise`; inf if there is none (N >= 3: phi is bounded)."""
    if depth == 1:
        return v + rise
    if depth == 2:
        return v * jnp.exp(rise)
    power = 1 - 2 / depth
    left = 1 - power * rise * v**power
    return jnp.where(left > 0, v * jnp.where(left > 0, left, 1) ** (-1 / power), jnp.inf)


def exponential_time(start: Array, rise: Array) -> Array:
    """e^start (e^rise - 1); inf, without a derivative, if it overflows."""
    fits = jnp.maximum(start, 0) + rise < float(np.log(np.finfo(start.dtype).max)) - 1
    start, rise = jnp.where(fits, start, 0), jnp.where(fits, rise, 0)
    return jnp.where(fits, jnp.exp(start) * jnp.expm1(rise), jnp.inf)


# N layers.

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_ABOVE_CUT = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 24, 40])  # in -log(1 - u), at the end of which u is 1


class _Path(NamedTuple):
    """`log_start` log u(0), `square` x(0)^2 [...]; `shares` x(0)^2 / b_l(0)^2 [..., N], at most 1."""

    log_start: Array
    square: Array
    shares: Array

    def axes(self, count: int) -> _Path:
        """The same path with `count` axes of length 1 behind its own."""
        shape = (*self.square.shape, *(1,) * count)
        return _Path(self.log_start.reshape(shape), self.square.reshape(shape), insert_axes(self.shares, count))

    def log_logit(self, y):
        """log u."""
        return self.log_start + jnp.sum(jnp.log1p(self.shares * jnp.expm1(2 * y)[..., None]), axis=-1) / 2

    def slope(self, y):
        """S = d log u / dy, between 1 and N."""
        more = self.shares * jnp.expm1(2 * y)[..., None]
        return jnp.sum((self.shares + more) / (1 + more), axis=-1)

    @property
    def log_unit(self):
        """log of x^2 / u at the start, the unit of time: for a deep path p t itself may overflow."""
        return jnp.log(self.square) - self.log_start

    def weight(self, y):
        """x^2 / u relative to its initial value: p g(u) dt/dy in units of time."""
        return jnp.exp(2 * y + self.log_start - self.log_logit(y))

    def place(self, log_logit):
        """The y at which log u is `log_logit`."""
        distance = log_logit - self.log_start
        depth = self.shares.shape[-1]
        low, high = jnp.minimum(distance, distance / depth), jnp.maximum(distance, distance / depth)  # 1 <= S <= N
        # log u is convex in y: from the upper end Newton's steps do not overshoot.
        return invert(lambda y, path: (path.log_logit(y), path.slope(y)), self, low, high, high, log_logit)

    def moved(self, y) -> _Path:
        """The same path counted from `y` on."""
        more = 1 + self.shares * jnp.expm1(2 * y)[..., None]
        return _Path(self.log_logit(y), self.square * jnp.exp(2 * y), self.shares * jnp.exp(2 * y)[..., None] / more)


def _gauss(edges):
    """Nodes and weights [..., panels, 16] of Gauss-Legendre between the rising `edges` [..., panels + 1]."""
    half = (edges[..., 1:] - edges[..., :-1])[..., None] / 2
    centre = (edges[..., 1:] + edges[..., :-1])[..., None] / 2
    return centre + half * jnp.asarray(_NODES, edges.dtype), half * jnp.asarray(_WEIGHTS, edges.dtype)


def _cut(loss: Loss) -> float:
    """The logit of the cut: the rest of a loss that stops, half of a rest that is only approached."""
    return 0.5 if loss.pulls_back else 1.0


def _density(loss: Loss, path: _Path, y):
    """p dt/dy in units of the path, below the cut."""
    return path.weight(y) * loss.reciprocal(jnp.exp(path.log_logit(y)))


def _low(loss: Loss, path: _Path, y):
    """p t at `y` in units of the path, below the cut."""
    depth = path.shares.shape[-1]
    graded = jnp.asarray(1.2 / depth * np.concatenate([[0], 2.0 ** np.arange(12)]), y.dtype)
    # The y at which x^2 has grown to the difference b_l^2 - x^2; the start for weights without a difference.
    ratio = (1 - path.shares) / path.shares
    turns = jnp.where(ratio > 1, jnp.log(jnp.where(ratio > 1, ratio, 1)) / 2, 0)
    turns = jnp.broadcast_to(turns, (*y.shape, depth))
    marks = turns[..., None] + jnp.concatenate([-graded[:0:-1], graded])
    marks = marks.reshape(*y.shape, depth * marks.shape[-1])
    parts = (jnp.broadcast_to(graded, (*y.shape, graded.size)), y[..., None] - graded, marks)
    edges = jnp.sort(jnp.clip(jnp.concatenate(parts, axis=-1), 0, y[..., None]), axis=-1)
    nodes, weights = _gauss(edges)
    return jnp.sum(weights * _density(loss, path.axes(2), nodes), axis=(-2, -1))


def _log_rate(loss: Loss, path: _Path, y):
    """log of p dt/dy, in units of the path, where it grows as e^u."""
    u = jnp.exp(path.log_logit(y))
    return jnp.log(path.weight(y)) + (jnp.logaddexp(float(np.log(loss.offset)), u) if loss.offset else u)


def _late(path: _Path, kept: depth_late.Kept, begin, y) -> depth_late.Span:
    """From the cut, at `begin`, to `y`, in logits."""
    squares = [path.square * jnp.exp(2 * place) for place in (begin, y)]
    logits = []
    for place, square in zip((begin, y), squares, strict=True):
        # As the product it is, in which single precision is surer than in its logarithm, if that does not overflow half-way.
        u = jnp.exp(kept.log_norm) * jnp.prod(jnp.sqrt(square[..., None] + kept.differences), axis=-1)
        logits.append(jnp.where((u > 0) & jnp.isfinite(u), u, jnp.exp(path.log_logit(place))))
    return depth_late.Span(*logits, *squares)


class _Arrival(NamedTuple):
    """The squared loss near u = 1: the path counted from u = 1, y_1, S and x^2 / u there, and the q at which it begins.

    The variable is q in y - y_1 = log(1 - e^-q)/S_1, which is -log(1 - u) for constant S; time is nearly linear in it.
    """

    path: _Path
    target: Array
    slope: Array
    scale: Array
    begin: Array

    @classmethod
    def of(cls, path: _Path, begin):
        target = path.place(jnp.zeros_like(begin))
        ahead = path.moved(target)
        # Counted from there the logit is exactly 1.
        ahead = ahead._replace(log_start=jnp.zeros_like(target))
        slope = ahead.slope(jnp.zeros_like(target))
        return cls(ahead, target, slope, path.weight(target), -jnp.log1p(-jnp.exp(slope * jnp.minimum(begin - target, 0))))

    def logit(self, q):
        """u."""
        return jnp.exp(self.path.log_logit(jnp.log1p(-jnp.exp(-q)) / self.slope))

    def place(self, q):
        """y, from the start of the whole path."""
        return self.target + jnp.log1p(-jnp.exp(-q)) / self.slope

    def at_logit(self, u):
        """The q of a logit `u` < 1."""
        return -jnp.log1p(-jnp.exp(self.slope * self.path.place(jnp.log(u))))

    def density(self, q):
        """p dt/dq in units of the whole path."""
        q = jnp.minimum(q, float(_ABOVE_CUT[-1]))
        y = jnp.log1p(-jnp.exp(-q)) / self.slope
        gap = -jnp.expm1(self.path.log_logit(y))
        return self.scale * self.path.weight(y) * jnp.exp(-q) / (gap * self.slope * -jnp.expm1(-q))

    def time(self, q):
        """p t since the beginning of this part, in units of the whole path."""
        edges = jnp.minimum(self.begin[..., None] + jnp.asarray(_ABOVE_CUT, q.dtype), q[..., None])
        nodes, weights = _gauss(jnp.concatenate([edges, q[..., None]], axis=-1))
        wide = _Arrival(self.path.axes(2), *(value[..., None, None] for value in self[1:]))
        return jnp.sum(weights * wide.density(nodes), axis=(-2, -1))


def _reach(loss: Loss, path: _Path):
    """(y, p t in units of the path) at the cut; y = 0 for a start beyond it."""
    cut = jnp.full_like(path.square, float(np.log(_cut(loss))))
    y = path.place(jnp.maximum(cut, path.log_start))
    return y, jnp.where(y > 0, _low(loss, path, y), 0)


class _State(NamedTuple):
    """y and u; `late`, where x^2 is `square` and better known than from y; e^(u - exact u) - 1 where that is a digit."""

    y: Array
    logit: Array
    late: Array
    square: Array
    rounding: Array | None = None


@quick_jit(few=0, static_argnums=0)
def _state(loss: Loss, path: _Path, kept: depth_late.Kept, time) -> _State:
    """The state at p t = `time`; every array of one shape [...] (shares and differences [..., N])."""
    cut, spent = _reach(loss, path)
    tau = jnp.minimum(time * jnp.exp(-path.log_unit), jnp.finfo(time.dtype).max)
    low = tau <= spent

    def before(y, path):
        # log(unit + time) is nearly linear in y where time grows exponentially, and still linear at its start.
        unit = _density(loss, path, jnp.zeros_like(y))
        total = unit + _low(loss, path, y)
        return jnp.log(total), _density(loss, path, y) / total

    unit = _density(loss, path, jnp.zeros_like(tau))
    y = invert(before, path, 0 * cut, cut, cut / 2, jnp.log(unit + jnp.where(low, tau, 0)))
    left = jnp.maximum(tau - spent, 0)
    if loss.stops:
        y = jnp.where(low, y, cut)
    elif loss.offset is None:
        arrival = _Arrival.of(path, cut)
        last = arrival.scale / arrival.slope  # the density for q -> inf
        ahead = jnp.full_like(left, jnp.finfo(left.dtype).max)
        guess = arrival.begin + left / last
        q = invert(lambda q, way: (way.time(q), way.density(q)), arrival, arrival.begin, ahead, guess, left)
        logit = jnp.where(low, jnp.exp(path.log_logit(y)), arrival.logit(q))
        return _State(jnp.where(low, y, arrival.place(q)), logit, jnp.zeros_like(low), y)
    else:
        return _late_state(loss, path, kept, time, spent, cut, y, low)
    u = jnp.exp(path.log_logit(y))
    return _State(y, jnp.where(~low & (u < 1), 1, u), jnp.zeros_like(low), y)


def _late_state(loss: Loss, path: _Path, kept: depth_late.Kept, time, spent, cut, y, low) -> _State:
    """The state for the losses whose time grows as e^u: below the cut where `low`, by `_depth_late` above the cut."""
    constant = loss.offset
    held, stays, begin = jax.lax.stop_gradient((path, kept, cut))
    tau = jnp.minimum(time * jnp.exp(-path.log_unit), jnp.finfo(time.dtype).max)
    left = jax.lax.stop_gradient(jnp.maximum(tau - spent, 0))

    def after(y, problem):
        """log of p t, in units of the path, since a time before the cut, and its slope."""
        path, kept = problem
        rate = _log_rate(loss, path, begin)
        span = _late(path, kept, begin, y)
        passed = jnp.log(jnp.maximum(depth_late.tail(constant, depth_late.density, span, kept), limits.tiny))
        total = jnp.logaddexp(rate, passed + span.end - path.log_unit)
        return total, jnp.exp(_log_rate(loss, path, y) - total)

    limits = jnp.finfo(left.dtype)
    rate, start = _log_rate(loss, held, begin), jnp.exp(held.log_logit(begin))
    goal = jnp.logaddexp(rate, jnp.log(jnp.maximum(left, limits.tiny)))
    # The logit grows by about goal - rate, and by less than a time within the floats allows; S grows with it.
    guess = begin + jnp.log1p((goal - rate) / start) / held.slope(begin)
    ahead = begin + jnp.log1p(2 * float(np.log(limits.max)) / start)
    high = invert(after, (held, stays), begin, ahead, guess, goal)
    late = ~low & (left > 0)
    span, kept = depth_late.harmless(late, _late(held, stays, begin, high), kept)
    # A start beyond the cut moves its beginning.
    span = span._replace(begin=jnp.where(late, jnp.exp(jnp.maximum(path.log_start, float(np.log(_cut(loss))))), 1))
    time, spent, unit = (jnp.where(late, value, other) for value, other in ((time, 1), (spent, 0), (path.log_unit, 0)))
    u = depth_late.logit_after(constant, span, kept, time, spent * jnp.exp(unit))
    square = depth_late.square_at(span.end_square, u, kept)
    more = depth_late.rounding(constant, span, kept, time - spent * jnp.exp(unit)) - 1 if u.dtype == jnp.float32 else None
    y = jnp.where(low, y, jnp.where(left > 0, high, cut))
    return _State(y, jnp.where(late, u, jnp.exp(path.log_logit(jnp.where(late, cut, y)))), late, square, more)


@quick_jit(few=0, static_argnums=0)
def _time(loss: Loss, path: _Path, kept: depth_late.Kept, logit):
    """(p t in units of the path at which u = `logit`, whether u ever gets there); 0 if u starts there."""
    cut, spent = _reach(loss, path)
    start = jnp.exp(path.log_start)
    ahead = logit > start
    low = logit <= _cut(loss)
    y = path.place(jnp.log(jnp.where(ahead, logit, start)))
    before = _low(loss, path, jnp.where(low, y, cut))
    reached = jnp.ones_like(ahead)
    if loss.stops:
        after, reached = spent, low
    elif loss.offset is None:
        arrival = _Arrival.of(path, cut)
        reached, late = logit < 1, ahead & ~low & (logit < 1)
        after = arrival.time(jnp.where(late, arrival.at_logit(jnp.where(late, logit, 0.5)), arrival.begin))
        after = spent + after
    else:
        after = spent + _late_time(loss, path, kept, cut, y, logit, ahead & ~low)
    return jnp.where(ahead & reached, jnp.where(low, before, after), 0), reached | ~ahead


def _late_time(loss: Loss, path: _Path, kept: depth_late.Kept, cut, y, logit, late):
    """p t in units of the path from the cut to a `logit` above it, at `y`; 0 where it is not `late`."""
    held, stays, begin, end = jax.lax.stop_gradient((path, kept, cut, jnp.maximum(y, cut)))
    span, kept = depth_late.harmless(late, _late(held, stays, begin, end), kept)
    begins = jnp.exp(jnp.maximum(path.log_start, float(np.log(_cut(loss)))))
    span = span._replace(begin=jnp.where(late, begins, 1), end=jnp.where(late, logit, span.end))
    total = depth_late.tail(loss.offset, depth_late.density, span, kept)
    size = span.end - jnp.where(late, path.log_unit, 0)
    # A time that overflows is infinite, and a constant.
    fits = jax.lax.stop_gradient(size + jnp.log(total)) < float(np.log(np.finfo(size.dtype).max)) - 1
    half = jnp.exp(jnp.where(fits, size, 0) / 2)  # twice: its square may overflow where the time does not
    return jnp.where(late, jnp.where(fits, half * total * half, jnp.inf), 0)


def _least(start):
    """x(0): any reference works, so it is held fixed under differentiation, and has no kink where weights are equal."""
    return jax.lax.stop_gradient(jnp.min(start, axis=-1))


class DepthMode(ModeCurve):
    """The learning curve of one path of N layers; made by `depth_mode`. t is time, a scalar or an array of any shape.

    Differentiable twice in weights, p, r and t; late derivatives are right to 1e-12 of their own size (2e-6 in float32).
    jit and vmap work.
    """

    loss_function: Loss
    frequency: Float[Array, "*batch"]
    norm: Float[Array, "*batch"]
    start: Float[Array, "*batch N"]

    @property
    def depth(self) -> int:
        """N."""
        return self.start.shape[-1]

    def logit(self, t) -> Float[Array, "..."]:
        """u(t), [*batch, *t.shape]. `ValueError` for negative, NaN or infinite t."""
        return self._at(t).logit

    def error(self, t=None) -> Float[Array, "..."]:
        """sigmoid(-u(t)), the probability given to the wrong label, [*batch, *t.shape]."""
        state = self._at(given(t))
        error = jax.nn.sigmoid(-state.logit)
        return error if state.rounding is None else error * (1 + state.rounding) / (1 + error * state.rounding)

    def weights(self, t) -> Float[Array, "..."]:
        """b_1, ..., b_N at t: [*batch, *t.shape, N]."""
        t = check_times(t, self.start.dtype)
        if self.depth == 1:
            return (self.logit(t) / insert_axes(self.norm[..., None], np.ndim(t))[..., 0])[..., None]
        state = self._at(t)
        start = insert_axes(self.start, np.ndim(t))
        least, late = _least(start)[..., None], state.late[..., None]
        moved = jnp.expm1(2 * jnp.where(state.late, 0, state.y))[..., None]
        early = start * jnp.sqrt(1 + (least / start) ** 2 * moved)
        square = jnp.where(late, state.square[..., None] + self._kept(state.y).differences, 1)
        return jnp.where(late, jnp.sqrt(square), early)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """The time at which u = `logit`, [*batch, *logit.shape]; 0 if u(0) is there, inf if u never gets there."""
        target = as_goal("logit", logit, self.start.dtype)
        frequency, norm, target = self._lanes(target)
        if self.depth == 1:
            return one_layer_time(frequency, norm, norm * self._lane_start(target)[..., 0], self.loss_function, target)
        path = self._path(target)
        spent, reached = _time(self.loss_function, path, self._kept(target), target)
        unit = jnp.exp(path.log_unit / 2)  # twice, for its square may overflow where the time does not
        ever = reached & jnp.isfinite(jax.lax.stop_gradient(spent * unit / frequency * unit))
        # A time that never comes, or that overflows, has no derivative.
        spent, unit = jnp.where(ever, spent, 0), jnp.where(ever, unit, 1)
        return jnp.where(ever, spent * unit / frequency * unit, jnp.inf)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.norm.shape

    @property
    def _dtype(self) -> Any:
        return self.start.dtype

    @property
    def _unit(self) -> str:
        return "time"

    def _time_to(self, what: str, level, max_steps: int):
        if self.depth == 1 and self.loss_function.pulls_back:
            # One layer approaches u = 1 at the same rate from both sides, and its loss is the same at u and 2 - u.
            start = self.norm[..., None] * self.start
            mirrored = jnp.where(start > 1, 2 - start, start) / self.norm[..., None]
            return DepthMode(self.loss_function, self.frequency, self.norm, mirrored)._time_to_margin(
                self.loss_function.margin_at(level), max_steps
            )
        return super()._time_to(what, level, max_steps)

    def _time_to_margin(self, margin, max_steps: int):
        return self.time_to_logit(margin)

    def _at(self, t):
        """The state at t; for one layer only the logit."""
        frequency, norm, t = self._lanes(check_times(t, self.start.dtype))
        if self.depth == 1:
            u = one_layer_logit(frequency, norm, norm * self._lane_start(t)[..., 0], self.loss_function, t)
            return _State(u, u, jnp.zeros(u.shape, bool), u)
        limit = jnp.finfo(t.dtype).max
        return _state(self.loss_function, self._path(t), self._kept(t), jnp.minimum(frequency * t, limit))

    def _lanes(self, values):
        """(p, r, `values`), each [*batch, *values.shape]."""
        shape, count = (*self.norm.shape, *values.shape), values.ndim
        frequency, norm = (x.reshape(*x.shape, *(1,) * count) for x in (self.frequency, self.norm))
        return tuple(jnp.broadcast_to(x, shape) for x in (frequency, norm, values))

    def _lane_start(self, lanes):
        extra = lanes.ndim - self.norm.ndim
        return jnp.broadcast_to(insert_axes(self.start, extra), (*lanes.shape, self.depth))

    def _kept(self, lanes) -> depth_late.Kept:
        start = self._lane_start(lanes)
        least = jnp.take_along_axis(start, jnp.argmin(start, axis=-1, keepdims=True), axis=-1)
        norm = self.norm.reshape(*self.norm.shape, *(1,) * (lanes.ndim - self.norm.ndim))
        return depth_late.Kept(jnp.broadcast_to(jnp.log(norm), lanes.shape), (start - least) * (start + least))

    def _path(self, lanes) -> _Path:
        extra = lanes.ndim - self.norm.ndim
        least = _least(self.start)
        log_start = jnp.log(self.norm) + jnp.sum(jnp.log(self.start), axis=-1)
        path = _Path(log_start, least**2, (least[..., None] / self.start) ** 2).axes(extra)
        shape = lanes.shape
        return _Path(
            jnp.broadcast_to(path.log_start, shape),
            jnp.broadcast_to(path.square, shape),
            jnp.broadcast_to(path.shares, (*shape, self.depth)),
        )


@deprecated(weights="layers")
def depth_mode(frequency, norm, layers, loss: Loss | str = "cross-entropy") -> DepthMode:
    """The gradient flow of one path of N layers on a class of weight p = `frequency` at norm r = `norm` (7.1), (7.2).

    `layers` [*batch, N]: b_1, ..., b_N > 0 at the start, the scalars of each layer along the path, balanced (all equal) or
    not; `frequency`, `norm` [] or [*batch]. The logit is u = r b_1 ... b_N. N = 1 is the linear read-out of (3.9), of any
    sign; N = 2 one neuron of (3.5). The time of every logit has the relative error 1e-11 in float64 and 2e-5 in float32, for
    weights from 1e-100 to 1e3 (1e-12 to 1e3). The logit at a time is as accurate as this allows: for N >= 3 it leaves its
    plateau so fast that a relative error of 1e-16 in time is a large error in the logit. `ValueError` for shapes that do
    not fit and values that are not positive; `HypothesisError` for the squared loss from u(0) >= 1, where the flow runs
    backwards.

    >>> deep = depth_mode(frequency=1.0, norm=1.0, layers=[0.1, 0.1, 0.1], loss="hinge")
    >>> round(float(deep.time_to_logit(1.0)), 4)              # u^(-1/3) falls at rate p r^(2/3): 1/0.1 - 1
    9.0
    """
    loss = with_closed_form(loss)
    frequency, norm, layers = real_arrays(frequency=frequency, norm=norm, layers=layers)
    if layers.ndim < 1 or layers.shape[-1] == 0:
        raise ValueError(f"layers must be [*batch, N] with N >= 1 layers, got shape {layers.shape}")
    for name, value in (("frequency", frequency), ("norm", norm)):
        check_positive(name, value)
        check_fits(name, value, layers.shape[:-1], "layers")
    frequency, norm = (jnp.broadcast_to(x, layers.shape[:-1]) for x in (frequency, norm))
    if layers.shape[-1] > 1:
        check_positive("layers", layers)
        if is_concrete(layers):
            # In NumPy, which keeps the subnormal numbers that compiled code flushes to 0.
            least = np.min(np.asarray(layers), axis=-1)
            if (least < np.sqrt(np.finfo(least.dtype).tiny)).any():
                raise ValueError(
                    f"layers = {least.min()}: the square is subnormal in {least.dtype} and flushed to 0; "
                    + ("give float64, with 64 bits on in JAX" if least.dtype == np.float32 else "start from larger weights")
                )
        if loss.pulls_back and is_concrete(layers):
            start = np.asarray(norm * jnp.prod(layers, axis=-1))
            if (start >= 1).any():
                raise HypothesisError(
                    "with squared loss the depth law (7.2) starts below u = 1",
                    f"u(0) = {start[start >= 1].flat[0]:.6g}",
                    "smaller weights, or simulate_flow(...)",
                )
    return DepthMode(loss, frequency, norm, layers)
