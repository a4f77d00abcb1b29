"""Many times of one clock: the times at fixed logits (knots) once per clock, and every state from the nearest knot below.

Solves integral_0^s (c + e^u) ds' = tau, u = rise e^s - fall e^-s, c > 0, for many tau at one (rise, fall): what `_clock`
does one time at a time. Knots lie at fixed logits (`KNOTS`), so that their exponentials are constants. Times at knots are
sums over the stretches between them, as far up as the largest time needs, and a time between two knots gets

1. a guess: the stretch is gone through as if log(c + e^u) were linear in s, corrected to the right slope at both ends;
2. the time of the guess, counted from the knot below (`Place`);
3. the step that four terms of the inverse series give. The guess is good to about 1e-3 in u, and one step leaves 1e-14;
   where the step was large another one follows.

Above the last knot integral e^u ds = e^u sum_n n! P_n(u/S) / S^(n+1), the multipole expansion of 1/S, whose terms fall to
1e-16 there before they grow; its logarithm is inverted by Newton steps, which are skipped if no time is that late.

Arrays are [..., clocks] inside, clocks last, so that loops over few times run over many clocks; the clocks are processed in
blocks that fit into the caches.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float, Int
from scipy.special import roots_jacobi

from gradstarve.special._expint import angle_at, steepness

# A stretch of the hyperbolic clock: the places at its two ends, and the time that the angle between them takes.
#
# On it integral (c + e^u) ds is c s and Gauss-Lobatto quadrature of e^u in the angle s, or in |u| <= 1 with kappa <= 1,
# where a stretch may be hundreds of s long, the power series
#
#     integral e^u ds = alpha s + S beta(u),   from n J_n = u^(n-1) S - (n-1) kappa^2 J_(n-2),   J_n = integral u^n ds.

Real = Float[Array, "..."]
TERMS = 20  # 1/20! < 1e-18


def _lobatto(count: int):
    """Gauss-Lobatto on [0, 1]: the nodes below the middle without 0, their weights, that of the middle, that of an end."""
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    inner = roots_jacobi(count - 2, 1, 1)[0][: count // 2 - 1]  # the zeros of its derivative
    weight = 1 / (count * (count - 1))
    # As Python numbers, which take the precision of the arrays.
    return ((inner + 1) / 2).tolist(), (weight / legendre(inner) ** 2).tolist(), float(weight / legendre(0.0) ** 2), weight


_INNER, _INNER_WEIGHTS, _MIDDLE_WEIGHT, _END_WEIGHT = _lobatto(7)


def series_matrix() -> np.ndarray:
    """Row m: the coefficients of kappa^(2 m) in (alpha, beta_0, beta_1, ...), from the weights 1/n! by the recurrence."""
    weight = np.zeros((TERMS, TERMS // 2 + 1))
    weight[:, 0] = [1 / math.factorial(n) for n in range(TERMS)]
    for n in range(TERMS - 1, 1, -1):
        weight[n - 2, 1:] -= weight[n, :-1] * (n - 1) / n
    return np.concatenate([weight[:1], weight[1:] / np.arange(1, TERMS)[:, None]]).T


class Place(NamedTuple):
    """A place on a clock: its logit u = up - down and S = up + down, each without cancellation."""

    up: Real
    down: Real
    u: Real
    steep: Real


def place(up: Real, down: Real) -> Place:
    """The place whose logit has the halves `up` and `down`."""
    return Place(up, down, up - down, up + down)


def place_of(half: Real, u: Real) -> Place:
    """The place at the logit u of a knot; no knot is near 0, so that S needs no special care."""
    larger = (jnp.abs(u) + jnp.sqrt(4 * half * half + u * u)) / 2
    smaller = half * (half / larger)
    up, down = jnp.where(u > 0, larger, smaller), jnp.where(u > 0, smaller, larger)
    return Place(up, down, u, larger + smaller)


def ends_of(low: Place, high: Place) -> tuple[Real, Real]:
    """Two numbers whose ratio is e^(angle between the places); high.u is not near 0."""
    rising = high.u > 0
    return jnp.where(rising, low.up, high.down), jnp.where(rising, high.up, low.down)


def horner(coefficients, x: Real) -> Real:
    """sum_n coefficients[n] x^n."""
    total = coefficients[-1]
    for one in coefficients[-2::-1]:
        total = total * x + one
    return total


def advance(low: Place, angle: Real) -> tuple[Place, Real, Real]:
    """The place `angle` further on, and e^(angle/2), e^(-angle/2), limited to finite floats (rise = 0 allows any angle)."""
    half = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5) / 2
    forth, back = jnp.exp(half), jnp.exp(-half)
    return place(low.up * forth * forth, low.down * back * back), forth, back


def time_spent(constant: float, series: Real, middle, low: Place, angle: Real, speed: Real) -> tuple[Real, Place]:
    """`speed` times the time of an `angle` > 0 from the place `low`, within one slot, and the place at its end.

    By the series where `middle` is true. `speed` multiplies term by term, because the time itself may overflow.
    """
    high, forth, back = advance(low, angle)
    total = _END_WEIGHT * (jnp.exp(low.u) + jnp.exp(high.u)) + _MIDDLE_WEIGHT * jnp.exp(low.up * forth - low.down * back)
    bounded = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5)
    # The nodes come in pairs x, 1 - x, and so do their exponentials.
    for node, weight in zip(_INNER, _INNER_WEIGHTS, strict=True):
        forth, back = jnp.exp(node * bounded), jnp.exp(-node * bounded)
        lower = jnp.exp(low.up * forth - low.down * back)
        upper = jnp.exp(high.up * back - high.down * forth)
        total = total + weight * (lower + upper)
    powers = high.steep * horner(series[1:], high.u) - low.steep * horner(series[1:], low.u)
    slope = jnp.where(middle, series[0], total) + constant
    return slope * speed * angle + jnp.where(middle, powers * speed, 0), high


def product(matrix: np.ndarray, values: Real) -> Real:
    """The product of `matrix` with the first axis of `values`."""
    return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, 1, precision=lax.Precision.HIGHEST)


# The table.

_LAST = 46.0
_LOW = (-36.0, -24.0, -16.2, -11.5, -8.2, -5.9, -4.2, -2.9, -2.0, -1.4, -1.0)
_MIDDLE = (-0.5, -0.2, -0.05, 0.05, 0.2, 0.5, 1.0)
_HIGH = (1.5, 2.2, 3.1, 4.1, 5.2, 6.4, 7.8, 9.4, *np.linspace(11.0, _LAST, 22))
KNOTS = np.array([*_LOW, *_MIDDLE, *_HIGH])
_CHUNK = 10  # stretches of the high part that are computed at a time
_FIRST, _END = len(_LOW), len(_LOW) + len(_MIDDLE)
# Slot 0 lies below KNOTS[0], slot k begins at KNOTS[k-1]; the core is the slot that contains u = 0.
_FLOORS = np.array([-1e30, *KNOTS])
_CORE = int(np.searchsorted(KNOTS, 0))
_MULTIPOLES = 26
_BLOCK = 2**16  # numbers in the arrays of one block


def _stretches(count: int) -> tuple[np.ndarray, np.ndarray]:
    """v^2 and e^0, e^v times the weights of Gauss-Legendre in v = u: [knots, count] and [2, knots, count].

    Row i is the stretch that ends at KNOTS[i], and row 0 is empty.
    """
    nodes, weights = np.polynomial.legendre.leggauss(count)
    lower = np.concatenate([KNOTS[:1], KNOTS[:-1]])
    centre, width = (KNOTS + lower)[:, None] / 2, (KNOTS - lower)[:, None] / 2
    v = centre + width * nodes
    return v * v, np.stack([weights * width, weights * width * np.exp(v)])


_SQUARES, _MASSES = _stretches(7)


class Clocks(NamedTuple):
    """Clocks [pieces, clocks] with kappa = 2 `half`; `below`: the number of knots at or below their start; `until`: the time
    to the first knot above the start; `series`: alpha, beta_0, .. [terms, pieces, clocks], valid where kappa <= 1.
    """

    rise: Real
    fall: Real
    half: Real
    series: Real
    below: Int[Array, "..."]
    until: Real


def _written(function: Callable, number: Real, *arguments: Any) -> Any:
    """`function`(*arguments), written to memory once; XLA on CPU would otherwise compute it again for each use.

    The results of a loop are written to memory. This loop has one iteration, because `number` >= 0, but XLA cannot know that
    (a second iteration would change nothing).
    """
    shapes = jax.eval_shape(function, *arguments)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    turns = jnp.where(number < 0, 2, 1)
    return lax.while_loop(lambda c: c[0] < turns, lambda c: (c[0] + 1, function(*arguments)), (0, empty))[1]


def prepare(constant: float, rise: Real, fall: Real) -> Clocks:
    """The clocks (rise, fall) [pieces, clocks] of 1/g = `constant` + e^u."""
    half = jnp.sqrt(rise) * jnp.sqrt(fall)
    tame = jnp.minimum(4 * half * half, 1)
    matrix = series_matrix()
    series = product(matrix.T, jnp.stack([tame**m for m in range(len(matrix))]))
    return Clocks(rise, fall, half, series, *_written(partial(_start, constant), rise[0, 0], rise, fall, half, series))


def _start(constant: float, rise: Real, fall: Real, half: Real, series: Real) -> tuple[Int[Array, "..."], Real]:
    """`below` and `until` of the clocks."""
    start = place(rise, fall)
    below = sum(((start.u >= knot).astype(jnp.int32) for knot in KNOTS.tolist()), jnp.zeros((), jnp.int32))
    target = place_of(half, jnp.asarray(KNOTS, rise.dtype).at[below].get(mode="clip"))
    less, more = ends_of(start, target)
    angle = jnp.where(less > 0, jnp.maximum(jnp.log(more / jnp.where(less > 0, less, 1)), 0), 0)
    middle = (half <= 0.5) & (below >= _FIRST) & (below < _END)
    return below, time_spent(constant, series, middle, start, angle, jnp.ones_like(rise))[0]


class Found(NamedTuple):
    """For every time [times, clocks]: its `slot`, and the times at which the slot `begins` and `ends` (inf if unknown)."""

    slot: Int[Array, "..."]
    begins: Real
    ends: Real


def _whole(constant: float, kappa2: Real, squares: Real, masses: Real) -> Real:
    """The times that the stretches take, [stretches, pieces, clocks]. Everything but S is constant."""
    total = jnp.zeros((), masses.dtype)
    for k in range(squares.shape[-1]):
        square, mass = squares[:, k], constant * masses[0, :, k] + masses[1, :, k]
        total = total + mass[:, None, None] / jnp.sqrt(kappa2 + square[:, None, None])
    return total


def _sums(clocks: Clocks, whole: Real, first: Any, base: Real) -> Real:
    """The times at the ends of the stretches `first`, .., from the time `base` at their beginning; only the parts above
    the start of a clock count."""
    row = first + jnp.arange(whole.shape[0])[:, None, None]
    gone = jnp.where(row > clocks.below, whole, jnp.where(row == clocks.below, clocks.until, 0))
    return base + product(np.tri(whole.shape[0]), gone)


def _meet(found: Found, rows: Real, time: Real, alive: Any = True) -> Found:
    """`found`, updated by the knots whose times are `rows` [knots, ...]."""
    slot, begins, ends = found
    for row in rows:
        passed = (row <= time) & alive
        slot = slot + passed.astype(jnp.int32)
        begins = jnp.where(passed, row, begins)
        ends = jnp.where(passed, ends, jnp.minimum(ends, row))
    return Found(slot, begins, ends)


def search(constant: float, clocks: Clocks, of_piece: Callable[[Array], Array], time: Real) -> Found:
    """The slots of `time` [times, clocks]. Knots below every start, or above every time, are not computed."""
    dtype = time.dtype
    kappa2 = 4 * clocks.half * clocks.half
    small = kappa2 <= 1
    squares, masses = jnp.asarray(_SQUARES, dtype), jnp.asarray(_MASSES, dtype)
    zero = jnp.zeros_like(clocks.rise)
    alive = of_piece(clocks.rise) > 0
    nothing = Found(jnp.full(time.shape, _FIRST, jnp.int32), jnp.zeros_like(time), jnp.full_like(time, jnp.inf))

    def low(_):
        whole = _whole(constant, kappa2, squares[:_FIRST], masses[:, :_FIRST])
        rows = _sums(clocks, whole, 0, zero)
        return _meet(nothing._replace(slot=jnp.zeros_like(nothing.slot)), of_piece(rows), time), rows[-1]

    found, base = lax.cond(jnp.any(clocks.below < _FIRST), low, lambda _: (nothing, zero), 0)

    # The middle by the series where kappa <= 1. With rise = 0 no clock leaves the core, however long it takes.
    part = slice(_FIRST, _END)
    knots = KNOTS[_FIRST - 1 : _END]
    places = place_of(clocks.half, jnp.asarray(knots, dtype)[:, None, None])
    level = places.steep * product(knots[:, None] ** np.arange(TERMS - 1), clocks.series[1:])
    places = [jnp.broadcast_to(x, level.shape) for x in places]
    lower, upper = (Place(*(x[cut] for x in places)) for cut in (np.s_[:-1], np.s_[1:]))
    less, more = ends_of(lower, upper)
    crossed = (constant + clocks.series[0]) * jnp.log(more / less) + level[1:] - level[:-1]
    crossed = jnp.where(jnp.isfinite(crossed), crossed, 0)
    crossed = jnp.where(small, crossed, _whole(constant, kappa2, squares[part], masses[:, part]))
    rows = _sums(clocks, crossed, _FIRST, base)
    shown, core = of_piece(rows), _CORE - _FIRST
    found = _meet(_meet(found, shown[:core], time), shown[core:], time, alive)

    def more_to_do(carry):
        k, _, found = carry
        return (k < len(_HIGH) // _CHUNK) & jnp.any((found.ends == jnp.inf) & alive)

    def high(carry):
        k, base, found = carry
        first = _END + k * _CHUNK
        cut = lax.dynamic_slice_in_dim(squares, first, _CHUNK, 0), lax.dynamic_slice_in_dim(masses, first, _CHUNK, 1)
        rows = _sums(clocks, _whole(constant, kappa2, *cut), first, base)
        return k + 1, rows[-1], _meet(found, of_piece(rows), time, alive)

    return lax.while_loop(more_to_do, high, (0, rows[-1], found))[2]


def _guess(constant: float, low: Place, high: Place, exp: Real, left: Real, lasts: Real) -> Real:
    """The angle after the time `left` of the time `lasts` between two places, to about 1e-3 / S.

    Exact if log(c + e^u) is linear in the angle; a cubic corrects the slopes at both ends, which are off by one factor.
    """
    less, more = ends_of(low, high)
    whole = _rough_log(less, more)
    f0, f1 = constant + jnp.exp(low.u), constant + exp
    grow = _rough_log(f0, f1)
    share = jnp.clip(left / lasts, 0, 1)
    flat = grow < 1e-3
    x = jnp.where(flat, share, _rough_log(f0, f0 + (f1 - f0) * share) / jnp.where(flat, 1, grow))
    excess = jnp.where(flat, 1, lasts * grow / (whole * jnp.where(flat, 1, f1 - f0))) - 1
    return whole * (x + excess * x * (1 - x) * (1 - 2 * x))


def _rough_log(less: Real, more: Real) -> Real:
    """log(more/less) to 1e-4 for ratios from 1 to 8: 2 artanh by its power series."""
    t = (more - less) / (more + less)
    return 2 * t * horner([1 / n for n in range(1, 20, 2)], t * t)


def _step(constant: float, series: Real, middle, low: Place, left: Real, angle: Real) -> Real:
    """The angle after the time `left`, by the inverse series of the time at `angle`."""
    speed = 1 / (constant + jnp.exp(low.u))
    spent, high = time_spent(constant, series, middle, low, angle, speed)
    exp = jnp.exp(high.u)
    share = exp / (constant + exp)
    y = (left * speed - spent) * ((constant + jnp.exp(low.u)) / (constant + exp))
    square = high.steep * high.steep
    a2 = high.steep * share / 2
    a3 = (high.u + square) * share / 6
    a4 = high.steep * (1 + 3 * high.u + square) * share / 24
    move = y * (1 - y * (a2 - y * (2 * a2 * a2 - a3 + y * (5 * a2 * (a3 - a2 * a2) - a4))))
    return jnp.maximum(angle + move, 0)


def look_up(constant: float, clocks: Clocks, piece: Int[Array, "..."], time: Real, want_angle: bool = True):
    """(angle s, logit u) at `time` [times, clocks] of the `piece` of each clock; a lone 0 for s without `want_angle`."""
    pieces, count = clocks.rise.shape

    def of_piece(values: Array) -> Array:
        """The `values` [..., pieces, clocks] at the piece of each time."""
        if pieces == 1:
            return values
        flat = values.reshape(*values.shape[:-2], -1)
        return flat.at[..., piece * count + jnp.arange(count, dtype=jnp.int32)].get(mode="promise_in_bounds")

    slot, begins, ends = search(constant, clocks, of_piece, time)
    rise, fall, half, series, below, _ = map(of_piece, clocks)
    late, following = slot == len(KNOTS), jnp.minimum(slot + 1, len(KNOTS))
    floors, exps = jnp.asarray(_FLOORS, time.dtype), jnp.asarray(np.exp(_FLOORS), time.dtype)
    floor, top, exp = (
        values.at[k].get(mode="promise_in_bounds") for values, k in ((floors, slot), (floors, following), (exps, following))
    )
    at_start = slot == below
    knot = place_of(half, floor)
    low = place(jnp.where(at_start, rise, knot.up), jnp.where(at_start, fall, knot.down))
    rest = time - jnp.where(at_start, 0, begins)
    lasts, left = ends - jnp.where(at_start, 0, begins), jnp.where(late, 0, rest)
    # 1/g is nearly constant over the slot below the first knot and over the core, however long they are.
    level = (slot == 0) | (slot == _CORE)
    flat = left / (constant + jnp.where(slot == 0, 0, 1))
    curved = _guess(constant, low, place_of(half, top), exp, left, lasts)
    guess = jnp.where(level, flat, jnp.where(lasts > 0, curved, 0))
    middle = (half <= 0.5) & (slot >= _FIRST) & (slot < _END)

    # A loop, because its results are written to memory once; XLA on CPU would otherwise compute them again for each use.
    def cond(carry):
        angle, before, count = carry
        return (count == 0) | (jnp.any(jnp.abs(angle - before) * low.steep > 0.03) & (count < 8))

    def body(carry):
        angle, _, count = carry
        return _step(constant, series, middle, low, left, angle), angle, count + 1

    angle = lax.while_loop(cond, body, (guess, guess, 0))[0]
    u = advance(low, angle)[0].u
    if want_angle:
        base = jnp.where(low.u > 0, jnp.log(low.up) - jnp.log(rise), jnp.log(fall) - jnp.log(low.down))
        angle = jnp.where(at_start, 0, base) + angle
    else:
        angle = jnp.zeros((), time.dtype)
    rise, fall, half = (jnp.broadcast_to(x, time.shape) for x in (rise, fall, half))
    return lax.cond(jnp.any(late), _late, lambda angle, u, *_: (angle, u), angle, u, late, rest, rise, fall, half)


def _multipoles(half: Real, u: Real) -> tuple[Real, Real]:
    """S e^-u integral_{-inf}^u e^v / S dv = sum_n n! P_n(u/S) / S^n for S not below the last knot; and S."""
    steep = jnp.sqrt(4 * half * half + u * u)
    cosine, size = u / steep, 1 / steep
    before, now, power = jnp.ones_like(u), cosine, size
    total = 1 + now * power
    for n in range(1, _MULTIPOLES):
        before, now = now, ((2 * n + 1) * cosine * now - n * before) / (n + 1)
        power = power * ((n + 1) * size)
        total = total + now * power
    return total, steep


def _late(angle: Real, u: Real, late: Bool[Array, "..."], left: Real, rise: Real, fall: Real, half: Real):
    """(angle, u), replaced where `late`: the time `left` after the last knot, or after a start above the last knot."""
    base = jnp.maximum(rise - fall, _LAST)
    amount, steep = _multipoles(half, base)
    start = base + jnp.log(amount / steep)
    goal = jnp.logaddexp(jnp.log(jnp.maximum(left, jnp.finfo(left.dtype).tiny)), start)

    def newton(_, v):
        amount, steep = _multipoles(half, v)
        return jnp.maximum(v + (goal - v - jnp.log(amount / steep)) * amount, base)

    v = lax.fori_loop(0, 5, newton, jnp.maximum(goal + jnp.log(steepness(rise, fall, goal)), base))
    return jnp.where(late, angle_at(rise, fall, v), angle) if angle.ndim else angle, jnp.where(late, v, u)


@cache
def states(constant: float, want_angle: bool):
    """The function (rise, fall [clocks, pieces], piece, time [clocks, times]) -> (angle, u), each [clocks, times].

    The angle is a lone 0 without `want_angle`. vmap merges its axis into the clocks, so that the blocks are the same.
    """

    def block(arguments):
        rise, fall, piece, time = (values.T for values in arguments)
        angle, u = look_up(constant, prepare(constant, rise, fall), piece, time, want_angle)
        return angle.T, u.T

    @jax.custom_batching.custom_vmap
    def solve(rise, fall, piece, time):
        clocks, times = time.shape
        if rise.shape[1] == 1:
            piece = piece[:, :1]
        limit = max(8, _BLOCK // max(times, 2 * rise.shape[1]) // 8 * 8)
        if clocks <= limit:
            return block((rise, fall, piece, time))
        # Blocks of a good size that divide the clocks exactly, if there are any, avoid a copy of all arrays.
        exact = [size for size in range(limit, limit // 2, -8) if clocks % size == 0]
        size = exact[0] if exact else limit
        count = -(-clocks // size)
        given = rise, fall, piece, time
        if not exact:
            given = [jnp.pad(v, ((0, count * size - clocks), (0, 0)), mode="edge") for v in given]
        angle, u = lax.map(block, tuple(v.reshape(count, size, -1) for v in given))
        angle = angle.reshape(-1, times)[:clocks] if want_angle else angle[0]
        return angle, u.reshape(-1, times)[:clocks]

    @solve.def_vmap
    def _(axis_size, in_batched, *arguments):
        full = [
            v if batched else jnp.broadcast_to(v, (axis_size, *v.shape))
            for v, batched in zip(arguments, in_batched, strict=True)
        ]
        clocks = full[0].shape[1]
        angle, u = solve(*(v.reshape(axis_size * clocks, -1) for v in full))
        shape = (axis_size, clocks, u.shape[-1])
        return (angle.reshape(shape) if want_angle else angle, u.reshape(shape)), (want_angle, True)

    return solve
