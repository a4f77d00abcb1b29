"""Reduced equations without a closed form, integrated in the logarithm of time, so that late times cost little.

With t = (e^s - 1)/rate, rate = |f| at the start, an equation dy/dt = f(y) becomes dy/ds = (1/rate + t) f(y). Logits that
grow like log t are straight lines in s, and the decay of g keeps the equation from becoming stiff, so that t = 1e300 is a
few hundred steps away.

The method is Gragg's: midpoint rules with 2, 4, ..., 14 substeps, whose errors are series in the square of the substep,
extrapolated to 0 (order 14). It needs no table of coefficients, and compiles in a fifth of the time of a Runge-Kutta
method of order 8; compilation is most of the cost of a call. Derivatives are integrated along with the equations.

Also here: the flow of a linearised network, which is convex.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from scipy.special import roots_jacobi

from gradstarve.ground import ConvergenceError, is_concrete, quick_jit

_TOLERANCE = {"float64": 1e-13, "float32": 2e-6}  # of one step, in each number
_MOST_STEPS = 4096
_ORDER = 7  # columns of the extrapolation


def follow(field: Callable[[Any, Any], Any], start: Float[Array, "b *n"], problem: Any, t: Float[Array, " times"]) -> Array:
    """The states at times `t` >= 0 of d state/dt = field(state, problem), [b, times, ...].

    `start` and all arrays of `problem` have [b] in front. Differentiable in start, problem and t any number of
    times. `ConvergenceError` if 4096 steps do not suffice: with a loss that comes to rest exponentially fast in t
    (squared) a late time needs many steps.
    """
    if t.size == 0:
        return jnp.zeros((*start.shape[:1], 0, *start.shape[1:]), t.dtype)
    states, arrived = _follow(field, start, problem, t)
    message = (
        "the reduced equations were not integrated up to the last time asked for "
        f"(t = {float(np.max(np.asarray(t), initial=0)) if is_concrete(t) else 't'}): they blow up, come to rest too fast, "
        "or slide along a margin at which the residual jumps from above 0 to below it; ask for earlier times"
    )
    if not is_concrete(arrived):
        return eqx.error_if(states, ~arrived.all(), message)
    if not bool(arrived.all()):
        raise ConvergenceError(message)
    return states


@quick_jit(eqx.filter_jit, few=0)
def _follow(field, start, problem, t):
    order = jnp.argsort(t)
    back = jnp.argsort(order)

    def one(start, problem):
        rate = jax.lax.stop_gradient(jnp.max(jnp.abs(field(start, problem))))
        rate = jnp.where((rate > 0) & jnp.isfinite(rate), rate, 1)
        # A product that overflows counts as the latest time.
        knots = jnp.log1p(jnp.minimum(rate * jax.lax.stop_gradient(t), jnp.finfo(t.dtype).max / 4))[order]
        inputs, unravel = ravel_pytree((start, problem))
        shape, size = start.shape, start.size

        def slope(state, inputs):
            return field(state.reshape(shape), unravel(inputs)[1]).reshape(-1)

        states, arrived = _solution(slope, lambda inputs: inputs[:size], inputs.size)(inputs, t[order], rate, knots)
        return states[back].reshape(-1, *shape), arrived

    return jax.vmap(one)(start, problem)


def _solution(slope, begin, count: int):
    """Of (inputs, t, rate, knots): the states at `knots`, y(0) = begin(inputs), dy/dt = slope(y, inputs), and if it arrived.

    Derivatives in the `count` inputs are states of the equations with their first variation, and so again are theirs.
    """

    @jax.custom_jvp
    def solve(inputs, t, rate, knots):
        return _integrate(lambda s, y: jnp.exp(s) / rate * slope(y, inputs), begin(inputs), knots)

    def begin_together(inputs):
        return jnp.concatenate([begin(inputs)[None], jax.jacfwd(begin)(inputs).T]).reshape(-1)

    def slope_together(y, inputs):
        """The state and its derivatives in every input, [1 + inputs, size], flat."""
        y = y.reshape(1 + count, -1)
        value, push = jax.linearize(slope, y[0], inputs)
        pushed = jax.vmap(push)(y[1:], jnp.eye(count, dtype=inputs.dtype))
        return jnp.concatenate([value, pushed.reshape(-1)])

    @solve.defjvp
    def _(primals, tangents):
        (inputs, t, rate, knots), (dinputs, dt, *_) = primals, tangents
        states, arrived = _solution(slope_together, begin_together, count)(inputs, t, rate, knots)
        states = states.reshape(knots.size, 1 + count, -1)
        speed = jax.vmap(slope, (0, None))(states[:, 0], inputs)
        moved = jnp.einsum("tij,i->tj", states[:, 1:], dinputs) + speed * dt[:, None]
        return (states[:, 0], arrived), (moved, np.zeros(arrived.shape, jax.dtypes.float0))

    return solve


def _weights(columns: int) -> np.ndarray:
    """The combination of 2, 4, ..., 2 `columns` substeps in which the errors h^2, h^4, ... cancel."""
    squares = np.arange(1.0, columns + 1) ** 2
    ratios = squares[:, None] / (squares[:, None] - squares + np.eye(columns))
    return np.prod(np.where(np.eye(columns, dtype=bool), 1, ratios), axis=1)


def _integrate(slope, start, knots):
    """The solution at the rising `knots` of dy/ds = slope(s, y) from s = 0, and whether it got to the last of them."""
    dtype = start.dtype
    tolerance = _TOLERANCE[dtype.name]
    combine = np.zeros((2, _ORDER))
    combine[0], combine[1, :-1] = _weights(_ORDER), _weights(_ORDER - 1)
    combine = jnp.asarray(combine, dtype)

    def midpoint(s, y, speed, length, count):
        """The change of y over `length` by Gragg's rule with `count` substeps, and the slope there."""
        h = length / count

        def substep(k, ends):
            before, now = ends
            return now, before + 2 * h * slope(s + k * h, y + now)

        before, now = jax.lax.fori_loop(1, count, substep, (jnp.zeros_like(y), h * speed))
        end = slope(s + length, y + now)
        return (before + now + h * end) / 2, end

    def step(state, goal):
        s, y, length, count = state
        taken = jnp.minimum(length, goal - s)
        speed = slope(s, y)
        gains, ends = jax.lax.map(lambda n: midpoint(s, y, speed, taken, n), 2 * jnp.arange(1, _ORDER + 1))
        # The last two columns differ by the error of the lower order.
        gain, lower = combine @ gains
        # All rules may stop before a jump of the residual (hinge) that their extrapolation has passed: its slope shows this.
        last = slope(s + taken, y + gain)
        jump = taken * (last - combine[0] @ ends)
        off = jnp.maximum(jnp.abs(gain - lower), jnp.abs(jump) / 10)
        # Or their substeps jump to and fro over it and cancel: a number that moves one way at both ends has to move.
        least = taken * jnp.minimum(jnp.abs(speed), jnp.abs(last))
        still = (speed * last > 0) & (gain * jnp.sign(speed) < least / 10)
        off = jnp.where(still, jnp.maximum(off, least), off)
        error = jnp.max(off / (jnp.abs(y) + jnp.abs(gain) + 1)) / tolerance
        good = error <= 1  # NaN is not
        factor = jnp.where(error > 0, 0.9 * error ** (-1 / (2 * _ORDER - 1)), 5.0)
        factor = jnp.where(jnp.isfinite(factor), jnp.clip(factor, 0.2, 5.0), 0.2)
        # A step shortened by the goal says little about the length of the next one.
        following = jnp.where(good, jnp.maximum(taken * factor, jnp.where(taken < length, length, 0)), taken * factor)
        landed = jnp.where(taken < length, goal, s + taken)
        return jnp.where(good, landed, s), jnp.where(good, y + gain, y), following, count + 1

    def reach(state, goal):
        state = jax.lax.while_loop(lambda x: (x[0] < goal) & (x[3] < _MOST_STEPS), lambda x: step(x, goal), state)
        return state, state[1]

    begin = (jnp.zeros((), dtype), start, jnp.asarray(0.1, dtype), jnp.zeros((), jnp.int32))
    (s, *_), states = jax.lax.scan(reach, begin, knots)
    return states, s >= knots[-1]


# Flows down a convex function, stiff and slow at once: implicit collocation in the logarithm of time.
#
#     dw/dt = B^T g(offset + B w) - C w,        g elementwise and falling, C symmetric and positive semi-definite
#
# The logistic flow (14.1), with a ridge or a penalty on the outputs, and the dual flow (14.2) all have this form. Features
# differ in strength by many powers of ten: a strong one, pushed up by some samples and down by others, relaxes at once,
# while weak ones are learnt later and margins grow like log t for ever. In s = log(1 + rate t) that is a hundred units of
# time, divided into panels. On each panel the solution is the polynomial that obeys the equation at the eight Radau points
# (order 15 at the end of a panel, and no step is too long for fast relaxation), found by Newton's method. The slope is
# symmetric, so that its eigenvectors decouple the panel into 8 x 8 systems; its change along the panel is kept on their
# diagonal. Within a panel the solution is that polynomial, so that more times cost almost nothing.

POINTS = 8
_MOST_PANELS = 1000
_MOST_ITERATIONS = 16
_PANEL_TOLERANCE = {"float64": 1e-12, "float32": 2e-6}  # of the highest coefficient of a panel


class ConvexFlow(eqx.Module):
    """dw/dt = B^T g(u) - C w with u = offset + B w: `matrix` B [n, k], `constant` C [k, k], `offset` [n].

    `pull(u)` gives g and -g' >= 0 elementwise. Errors are measured in u, against |u| + `floor` [n].
    `odds`: u = w are numbers between 0 and 1 and g = log((1 - u)/u); Newton's method then solves for -g, the argument of
    `pull`, so that u stays between 0 and 1 and may be arbitrarily small.
    """

    matrix: Float[Array, "n k"]
    constant: Float[Array, "k k"]
    offset: Float[Array, " n"]
    pull: Callable[[Any], tuple[Any, Any]]
    floor: Float[Array, " n"]
    odds: bool = eqx.field(static=True, default=False)

    def outputs(self, w: Float[Array, "... k"]) -> Float[Array, "... n"]:
        """u = offset + B w."""
        return self.offset + w @ self.matrix.T

    def encode(self, w: Float[Array, "... k"]) -> Float[Array, "... k"]:
        """The unknown of Newton's method: the log-odds of w, or the gain of w, which is 0 at first.

        (The gain and not w itself, so that late derivatives of u are not differences of those of offset and w.)
        """
        return jnp.log(w) - jnp.log1p(-w) if self.odds else jnp.zeros_like(w)

    def gain(self, v: Float[Array, "... k"], w: Float[Array, " k"]) -> Float[Array, "... k"]:
        """The gain of w that belongs to the unknown `v`."""
        return jax.nn.sigmoid(v) - w if self.odds else v

    def terms(self, v: Float[Array, "... k"], w: Float[Array, " k"], u: Float[Array, " n"]) -> tuple[Array, Array]:
        """dw/dt and -g' at `v`, counted from `w`, where the outputs are `u`."""
        g, fall = self.pull(v if self.odds else u + v @ self.matrix.T)
        return g @ self.matrix - (w + self.gain(v, w)) @ self.constant, fall


def follow_convex(flow: ConvexFlow, start: Float[Array, " k"], t: Float[Array, " times"]) -> Float[Array, "times n"]:
    """u at the times `t` >= 0, in any order, from w(0) = `start`. `ConvergenceError` where a panel cannot be solved."""
    if t.size == 0:
        return jnp.zeros((0, flow.offset.size), t.dtype)
    found, arrived = _follow_panels(flow, start, t)
    message = (
        "the flow was not integrated up to the last time asked for: the numbers of the problem (strengths against each "
        "other, against the ridge) are further apart than its precision allows; use float64, or a less extreme ridge"
    )
    if not is_concrete(arrived):
        return eqx.error_if(found, ~arrived, message)
    if not bool(arrived):
        raise ConvergenceError(message)
    return found


def radau_tables() -> tuple[np.ndarray, ...]:
    """Radau points c [s] in (0, 1], weights, integrals A [s, s], and the Legendre coefficients of a polynomial of degree s
    that vanishes at 0, from its values at c, [s + 1, s]."""
    legendre = np.polynomial.legendre
    # The zeros of P_s - P_(s-1), which is (1 - x) times a Jacobi polynomial: as eigenvalues of a symmetric matrix, so real.
    points = np.append(roots_jacobi(POINTS - 1, 1, 0)[0], 1.0)
    values = legendre.legvander(points, POINTS)
    orders = np.arange(1, POINTS)
    integrals = np.empty((POINTS, POINTS))
    integrals[:, 0] = (points + 1) / 2
    integrals[:, 1:] = (values[:, 2:] - values[:, :-2]) / (2 * (2 * orders + 1))
    integrals = integrals @ np.linalg.inv(values[:, :-1])
    coefficients = np.linalg.inv(legendre.legvander(np.concatenate([[-1.0], points]), POINTS))[:, 1:]
    return (points + 1) / 2, integrals[-1], integrals, coefficients


def legendre(x: Array) -> Array:
    """P_0(x), ..., P_s(x), [*x.shape, s + 1]."""
    values = [jnp.ones_like(x), x]
    for k in range(1, POINTS):
        values.append(((2 * k + 1) * x * values[k] - k * values[k - 1]) / (k + 1))
    return jnp.stack(values, axis=-1)


def _follow_panels(flow: ConvexFlow, start: Array, t: Array) -> tuple[Array, Array]:
    # Two programs, so that another number of times compiles the small one only.
    # The solution does not depend on the choice of panels, which is held fixed under differentiation.
    panels, reached = _panels(flow, start, jax.lax.stop_gradient(jnp.max(t)))
    return _evaluate(flow, start, panels, t), reached


def log_time(rate: Array, t: Array) -> Array:
    """s = log(1 + rate t), also where the product overflows."""
    late = jnp.logaddexp(0, jnp.log(rate) + jnp.log(jnp.where(t > 0, t, 1)))
    return jnp.where(rate * t < 1, jnp.log1p(rate * jnp.minimum(t, 1 / rate)), late)


@quick_jit(eqx.filter_jit, few=0)
def _evaluate(flow: ConvexFlow, start: Array, panels: tuple[Array, ...], t: Array) -> Array:
    rate, knots, lengths, begins, coefficients = panels
    clock = log_time(rate, t)
    panel = jnp.clip(jnp.searchsorted(knots, clock, side="right") - 1, 0, _MOST_PANELS - 1)
    place = 2 * (clock - knots[panel]) / lengths[panel] - 1
    moved = jnp.einsum("tk,tkn->tn", legendre(place), coefficients[panel])
    moved = begins[panel] + moved @ flow.matrix.T
    return jnp.where((clock > 0)[:, None], moved, flow.outputs(start))


@quick_jit(eqx.filter_jit, few=0)
def _panels(flow: ConvexFlow, start: Array, latest: Array) -> tuple[tuple[Array, ...], Array]:
    """The rate of the clock, where the panels begin and how long they are [panels], u there [panels, n], and the Legendre
    coefficients of what w gains [panels, s + 1, k]; and whether the last of them ends at `latest`. Unused ones begin at
    inf."""
    dtype, size = start.dtype, start.size
    speed, fall = flow.terms(flow.encode(start), start, flow.outputs(start))
    stiffness = (flow.matrix.T * fall) @ flow.matrix + flow.constant
    stiffest = jnp.max(jnp.sum(jnp.abs(stiffness), axis=-1))
    # No slower than the fastest relaxation or motion at the start, so that the first panel has little to do.
    rate = jnp.maximum(stiffest, jnp.max(jnp.abs(speed @ flow.matrix.T)))
    rate = jax.lax.stop_gradient(jnp.where((rate > 0) & jnp.isfinite(rate), rate, 1))
    slope, delay, goal = speed / rate, jnp.log(rate), log_time(rate, latest)
    points, weights, integrals, expand = (jnp.asarray(table, dtype) for table in radau_tables())
    tolerance, eps = _PANEL_TOLERANCE[dtype.name], jnp.finfo(dtype).eps
    orders = jnp.arange(POINTS + 1, dtype=dtype)

    def distance(change, scale):
        return jnp.max(jnp.abs(change @ flow.matrix.T) / scale)

    def linearised(fall, pace, length):
        """-g' at the Radau points, eigenvectors of the average slope, and the inverses [k, s, s] along them."""
        if flow.odds:
            # Faster relaxation is as good as instantaneous, and beside it eigenvectors would lose the slow part.
            fall = jnp.minimum(fall, 1e9 * stiffest)
        average = weights @ (pace * fall)
        curvature = (flow.matrix.T * average) @ flow.matrix + (weights @ pace) * flow.constant
        # These only guide Newton's method to the solution: no derivative passes through them, nor through eigenvectors.
        fall, pace, curvature = jax.lax.stop_gradient((fall, pace, curvature))
        _, basis = jnp.linalg.eigh(curvature)
        matrix, constant = jax.lax.stop_gradient((flow.matrix, flow.constant))
        diagonal = (pace * fall) @ (matrix @ basis) ** 2 + pace * jnp.sum(basis * (constant @ basis), axis=0)
        systems = jnp.eye(POINTS, dtype=dtype) + length * integrals * diagonal.T[:, None, :]
        return fall, basis, jnp.linalg.inv(systems)

    def solve(s, length, encoded, begin, level, slope):
        """w, encoded, at the Radau points of a panel, [s, k], and whether Newton's method found it."""
        pace = jnp.exp(s + points * length - delay)[:, None]  # dt/ds
        guess = encoded + (0 if flow.odds else length * slope) * points[:, None]
        outputs = level + flow.gain(guess, begin) @ flow.matrix.T
        scale = flow.floor + jnp.maximum(jnp.max(jnp.abs(outputs), axis=0), jnp.abs(level))
        held = None if flow.odds else linearised(flow.terms(guess, begin, level)[1], pace, length)

        def body(state):
            now, _, last, count = state
            speed, fall = flow.terms(now, begin, level)
            # Odds change by powers of ten: their slope is computed anew each time.
            fall, basis, inverses = held or linearised(fall, pace, length)
            off = flow.gain(now, begin) - length * integrals @ (pace * speed)
            change = -jnp.einsum("kij,jk->ik", inverses, off @ basis) @ basis.T
            after = now + (change * fall if flow.odds else change)
            return after, last, distance(flow.gain(after, begin) - flow.gain(now, begin), scale), count + 1

        def moving(state):
            _, before, last, count = state
            noise = (last < 1e4 * eps) & (last > before / 2)
            return (last > tolerance / 20) & ~noise & (count < _MOST_ITERATIONS)

        far = jnp.asarray(jnp.inf, dtype)
        found, before, last, _ = jax.lax.while_loop(moving, body, (guess, far, far, 0))
        good = (last <= tolerance / 20) | ((last < 1e4 * eps) & (last > before / 2))
        return found, good & jnp.all(jnp.isfinite(found))

    def attempt(state):
        s, length, (encoded, begin, level), slope, count, tries, stores = state
        taken = jnp.minimum(length, goal - s)
        found, good = solve(s, taken, encoded, begin, level, slope)
        gain = flow.gain(found, begin)
        coefficients = expand @ gain
        moved = level + gain @ flow.matrix.T
        scale = flow.floor + jnp.max(jnp.abs(moved), axis=0)
        error = jax.lax.stop_gradient(distance(coefficients[-1], scale) / tolerance)
        good = good & (error <= 1)
        factor = jnp.clip(0.8 * jnp.maximum(error, 1e-30) ** (-1 / POINTS), 0.3, 2.0)
        factor = jnp.where(good | (error > 1), factor, 0.4)  # 0.4: Newton's method failed (NaN: also)
        factor = jnp.where(jnp.isfinite(factor), factor, 0.4)
        following = jnp.where(good & (taken < length), length, jnp.minimum(taken * factor, 4))
        record = (s, taken, level, coefficients)
        kept = jnp.where(good, count, _MOST_PANELS)  # beyond the end: dropped
        stores = tuple(store.at[kept].set(value, mode="drop") for store, value in zip(stores, record, strict=True))
        end = jnp.where(taken < length, goal, s + taken)
        leaving = orders * (orders + 1) @ coefficients / taken  # the slope of the polynomial at its end
        pick = lambda new, old: jnp.where(good, new, old)  # noqa: E731
        there = (encoded, begin + gain[-1], moved[-1])
        if flow.odds:  # u may be arbitrarily small, so it is never computed as a sum
            there = (found[-1], jax.nn.sigmoid(found[-1]), jax.nn.sigmoid(found[-1]))
        place = tuple(pick(new, old) for new, old in zip(there, (encoded, begin, level), strict=True))
        return pick(end, s), following, place, pick(leaving, slope), count + good, tries + 1, stores

    stores = (
        jnp.full(_MOST_PANELS, jnp.inf, dtype),
        jnp.ones(_MOST_PANELS, dtype),
        jnp.zeros((_MOST_PANELS, flow.offset.size), dtype),
        jnp.zeros((_MOST_PANELS, POINTS + 1, size), dtype),
    )
    place = (flow.encode(start), start, flow.outputs(start))
    begin = (jnp.zeros((), dtype), jnp.asarray(0.5, dtype), place, slope, 0, 0, stores)
    state = jax.lax.while_loop(
        lambda x: (x[0] < goal) & (x[4] < _MOST_PANELS) & (x[5] < 4 * _MOST_PANELS), attempt, begin
    )
    return (rate, *state[-1]), state[0] >= goal
