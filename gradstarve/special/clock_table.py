"""Many times of one clock: the times at fixed logits once per clock, and every other time from the nearest of them below.

Solves integral_0^s (c + e^u) ds' = tau, u = rise e^s - fall e^-s, c > 0, for many tau at one (rise, fall): what `clock.py`
does one time at a time. Knots lie at fixed logits (`KNOTS`), so that their exponentials are constants. Times at knots are
sums over the stretches between them, and a time between two knots gets

1. a guess: the stretch is gone through as if log(c + e^u) were linear in s, corrected to the right slope at both ends;
2. the time of the guess, counted from the knot below, by Gauss-Lobatto quadrature in s over that part of the stretch, or in
   |u| <= 1 with kappa <= 1 (where a stretch may be hundreds of s long) by the power series

       integral e^u ds = alpha s + S beta(u),   from n J_n = u^(n-1) S - (n-1) kappa^2 J_(n-2),   J_n = integral u^n ds;

3. the step that four terms of the inverse series give. The guess is good to about 1e-3 in u, and one step leaves 1e-14;
   where the step was large another one follows.

Above the last knot integral e^u ds = e^u sum_n n! P_n(u/S) / S^(n+1), the multipole expansion of 1/S, whose terms have
fallen to 1e-16 there before they grow; the logarithm of it is solved by Newton steps, left out if no clock is late.

Arrays are [..., clocks] inside, clocks last, so that loops over few times run over many clocks; they are taken in blocks
that stay in the caches.
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

from gradstarve.special.expclock import angle_at, steepness

Real = Float[Array, "..."]

_LAST = 46.0
_BELOW = (-36.0, -24.0, -16.2, -11.5, -8.2, -5.9, -4.2, -2.9, -2.0, -1.4, -1.0, -0.5, -0.2, -0.05)
_ABOVE = (0.05, 0.2, 0.5, 1.0, 1.5, 2.2, 3.1, 4.1, 5.2, 6.4, 7.8, 9.4, *np.linspace(11.0, _LAST, 21))
KNOTS = np.array([*_BELOW, *_ABOVE])
_SLOTS = len(KNOTS) + 1
# Where each slot begins, if the clock starts below that: slot 0 at the start, slot k at KNOTS[k-1].
_FLOORS = np.array([-1e30, *KNOTS])
_CORE = len(_BELOW)  # the slot that crosses u = 0
_FIRST, _END = (int(np.flatnonzero(u == KNOTS)[0]) for u in (-1.0, 1.0))  # knots between which the series serves
_TERMS = 20  # 1/20! < 1e-18
_MULTIPOLES = 26
_BLOCK = 2**16  # numbers in the arrays of one block


def _lobatto(count: int):
    """Gauss-Lobatto on [0, 1]: the nodes below the middle without 0, their weights, that of the middle, that of an end."""
    legendre = np.polynomial.legendre.Legendre.basis(count - 1)
    inner = np.sort(legendre.deriv().roots().real)[: count // 2 - 1]
    weight = 1 / (count * (count - 1))
    # As Python's numbers, which leave the precision to the arrays.
    return ((inner + 1) / 2).tolist(), (weight / legendre(inner) ** 2).tolist(), float(weight / legendre(0.0) ** 2), weight


_INNER, _INNER_WEIGHTS, _MIDDLE_WEIGHT, _END_WEIGHT = _lobatto(7)
_GAUSS = np.polynomial.legendre.leggauss(8)


def _series_matrix() -> np.ndarray:
    """Row m: the coefficients of kappa^(2 m) in (alpha, beta_0, beta_1, ...). The weights 1/n! of the J_n, passed down."""
    weight = np.zeros((_TERMS, _TERMS // 2 + 1))
    weight[:, 0] = [1 / math.factorial(n) for n in range(_TERMS)]
    for n in range(_TERMS - 1, 1, -1):
        weight[n - 2, 1:] -= weight[n, :-1] * (n - 1) / n
    return np.concatenate([weight[:1], weight[1:] / np.arange(1, _TERMS)[:, None]]).T


class Table(NamedTuple):
    """Clocks [pieces, clocks], kappa = 2 `half`, with the `time` [knots, pieces, clocks] of the knots, on a scale of its own
    on which the start, `below` of the knots or at them, has the time `start`. `series`: alpha, beta_0.. [terms, ...].

    A clock that starts above the last knot below u = 0 has that and the next one at the same time, and what is below it at
    no time of meaning: for kappa = 0 there is no way from there, and for a small one a long way that would cost digits.
    """

    rise: Real
    fall: Real
    half: Real
    series: Real
    time: Real
    below: Int[Array, "..."]
    start: Real


class Place(NamedTuple):
    """A place on a clock: its logit u = up - down and S = up + down, each without cancellation."""

    up: Real
    down: Real
    u: Real
    steep: Real


def _place(up: Real, down: Real) -> Place:
    return Place(up, down, up - down, up + down)


def _knot(half: Real, u: Real) -> Place:
    """The place at the logit u of a knot; none is near 0, so that S may be taken as it stands."""
    larger = (jnp.abs(u) + jnp.sqrt(4 * half * half + u * u)) / 2
    smaller = half * (half / larger)
    up, down = jnp.where(u > 0, larger, smaller), jnp.where(u > 0, smaller, larger)
    return Place(up, down, u, larger + smaller)


def _ends_of(low: Place, high: Place) -> tuple[Real, Real]:
    """Two numbers whose ratio is e^(angle between the places); high.u is not near 0."""
    rising = high.u > 0
    return jnp.where(rising, low.up, high.down), jnp.where(rising, high.up, low.down)


def _horner(coefficients, x: Real) -> Real:
    total = coefficients[-1]
    for one in coefficients[-2::-1]:
        total = total * x + one
    return total


def _advance(low: Place, angle: Real) -> tuple[Place, Real, Real]:
    """The place `angle` further on, and e^(angle/2), e^(-angle/2). With rise = 0 the angle has no limit, and e^s must."""
    half = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5) / 2
    forth, back = jnp.exp(half), jnp.exp(-half)
    return _place(low.up * forth * forth, low.down * back * back), forth, back


def _spent(constant: float, series: Real, middle, low: Place, angle: Real, speed: Real) -> tuple[Real, Place]:
    """`speed` times the time of an `angle` > 0 from the place `low`, within one slot, and the place it leads to.

    By the series where `middle`. Multiplied term by term, for the time itself may overflow.
    """
    high, forth, back = _advance(low, angle)
    total = _END_WEIGHT * (jnp.exp(low.u) + jnp.exp(high.u)) + _MIDDLE_WEIGHT * jnp.exp(low.up * forth - low.down * back)
    bounded = jnp.minimum(angle, math.log(float(jnp.finfo(angle.dtype).max)) - 0.5)
    # The nodes come in pairs x, 1 - x, and so do their exponentials.
    for node, weight in zip(_INNER, _INNER_WEIGHTS, strict=True):
        forth, back = jnp.exp(node * bounded), jnp.exp(-node * bounded)
        lower = jnp.exp(low.up * forth - low.down * back)
        upper = jnp.exp(high.up * back - high.down * forth)
        total = total + weight * (lower + upper)
    powers = high.steep * _horner(series[1:], high.u) - low.steep * _horner(series[1:], low.u)
    slope = jnp.where(middle, series[0], total) + constant
    return slope * speed * angle + jnp.where(middle, powers * speed, 0), high


def _written(function: Callable, number: Real, *arguments: Any) -> Any:
    """`function`(*arguments), written to memory, where XLA on CPU would compute it again for each of its uses.

    What leaves a loop is written. This one has one turn, as `number` >= 0, but XLA must not know (another would change
    nothing).
    """
    shapes = jax.eval_shape(function, *arguments)
    empty = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    turns = jnp.where(number < 0, 2, 1)
    return lax.while_loop(lambda c: c[0] < turns, lambda c: (c[0] + 1, function(*arguments)), (0, empty))[1]


def _count(floors: Real, value: Real) -> Int[Array, "..."]:
    """How many of `floors` [n, ...] are <= `value`."""
    return sum((floor <= value).astype(jnp.int32) for floor in floors)


def _product(matrix: np.ndarray, values: Real) -> Real:
    """`matrix` times `values` over the first axis of it."""
    return jnp.tensordot(jnp.asarray(matrix, values.dtype), values, 1, precision=lax.Precision.HIGHEST)


def build(constant: float, rise: Real, fall: Real) -> Table:
    """The table of the clocks (rise, fall) [pieces, clocks] for 1/g = `constant` + e^u."""
    dtype, spread = rise.dtype, (slice(None), None, None)
    half = jnp.sqrt(rise) * jnp.sqrt(fall)
    kappa2 = 4 * half * half
    small = kappa2 <= 1
    matrix = _series_matrix()
    tame = jnp.minimum(kappa2, 1)
    series = _product(matrix.T, jnp.stack([tame**m for m in range(len(matrix))]))

    # Whole stretches, by Gauss-Legendre in u: all but S is a constant. Row i ends at KNOTS[i], and row 0 is empty.
    lower = np.concatenate([KNOTS[:1], KNOTS[:-1]])
    centre, width = (KNOTS + lower) / 2, (KNOTS - lower) / 2
    whole = 0
    for node, weight in zip(*_GAUSS, strict=True):
        v = centre + width * node
        mass = weight * width * (constant + np.exp(v))
        whole = whole + jnp.asarray(mass, dtype)[spread] / jnp.sqrt(kappa2 + jnp.asarray(v * v, dtype)[spread])
    # Those of the middle by the series where kappa <= 1.
    knots = KNOTS[_FIRST : _END + 1]
    places = _knot(half, jnp.asarray(knots, dtype)[spread])
    level = places.steep * _product(knots[:, None] ** np.arange(_TERMS - 1), series[1:])
    less, more = _ends_of(*(Place(*(jnp.broadcast_to(x, level.shape)[part] for x in places)) for part in (_LOWER, _UPPER)))
    crossed = (constant + series[0]) * jnp.log(more / less) + level[1:] - level[:-1]

    crossed = jnp.where(jnp.isfinite(crossed), crossed, 0)
    row, slot = np.arange(_SLOTS - 1), np.arange(_SLOTS - 1)[:, None]
    inside = (row > _FIRST) & (row <= _END)
    whole = jnp.where(small & inside[spread], 0, whole)
    crossed = jnp.where(small & ~((knots[1:] == KNOTS[_CORE])[spread] & (rise - fall > KNOTS[_CORE])), crossed, 0)
    time = _product(slot >= row, whole) + _product((slot >= row)[:, inside], crossed)
    begin = _written(partial(_start, constant), rise[0, 0], rise, fall, half, series, time)
    return Table(rise, fall, half, series, time, *begin)


def _start(constant: float, rise: Real, fall: Real, half: Real, series: Real, time: Real):
    """How many knots are at the start or below it, and its time on their scale, from the first knot above it."""
    start = _place(rise, fall)
    spread = (slice(None), None, None)
    ahead = _count(jnp.asarray(KNOTS, rise.dtype)[spread], start.u)
    target = _knot(half, jnp.asarray(KNOTS, rise.dtype).at[ahead].get(mode="clip"))
    less, more = _ends_of(start, target)
    angle = jnp.where(less > 0, jnp.maximum(jnp.log(more / jnp.where(less > 0, less, 1)), 0), 0)
    middle = (half <= 0.5) & (ahead > _FIRST) & (ahead <= _END)
    until = _spent(constant, series, middle, start, angle, jnp.ones_like(rise))[0]
    there = jnp.take_along_axis(time, ahead[None], axis=0, mode="clip")[0]
    return ahead, there - jnp.where((less > 0) & (ahead < len(KNOTS)), until, 0)


_LOWER, _UPPER = slice(None, -1), slice(1, None)


def _guess(constant: float, low: Place, high: Place, exp: Real, left: Real, lasts: Real) -> Real:
    """The angle after the time `left` of the `lasts` between two places, to about 1e-3 / S.

    If log(c + e^u) were linear in the angle; the cubic puts the slopes right at both ends, which are off by one factor.
    """
    less, more = _ends_of(low, high)
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
    return 2 * t * _horner([1 / n for n in range(1, 20, 2)], t * t)


def _step(constant: float, series: Real, middle, low: Place, left: Real, angle: Real) -> Real:
    """The angle after the time `left`, by the inverse series of the time at `angle`."""
    speed = 1 / (constant + jnp.exp(low.u))
    spent, high = _spent(constant, series, middle, low, angle, speed)
    exp = jnp.exp(high.u)
    share = exp / (constant + exp)
    y = (left * speed - spent) * ((constant + jnp.exp(low.u)) / (constant + exp))
    square = high.steep * high.steep
    a2 = high.steep * share / 2
    a3 = (high.u + square) * share / 6
    a4 = high.steep * (1 + 3 * high.u + square) * share / 24
    move = y * (1 - y * (a2 - y * (2 * a2 * a2 - a3 + y * (5 * a2 * (a3 - a2 * a2) - a4))))
    return jnp.maximum(angle + move, 0)


def look_up(constant: float, table: Table, piece: Int[Array, "..."], time: Real, want_angle: bool = True):
    """(angle s, logit u) at `time` [times, clocks] of the clock `piece` of `table`; only u without `want_angle`."""
    pieces, clocks = table.rise.shape
    which = jnp.arange(clocks, dtype=jnp.int32)

    def of_piece(values: Real) -> Real:
        """`values` [..., pieces, clocks] of the piece in hand."""
        if pieces == 1:
            return values
        flat = values.reshape(*values.shape[:-2], -1)
        return flat.at[..., piece * clocks + which].get(mode="promise_in_bounds")

    rise, fall, half, series = map(of_piece, (table.rise, table.fall, table.half, table.series))
    start, below, knots = of_piece(table.start), of_piece(table.below), of_piece(table.time)
    slot = _written(lambda knots, time: _count(knots, time), table.rise[0, 0], knots, time + start)
    slot = jnp.maximum(jnp.where(rise == 0, jnp.minimum(slot, _CORE), slot), below)
    late = slot == _SLOTS - 1
    following = jnp.minimum(slot + 1, _SLOTS - 1)
    times = table.time.reshape(-1)

    def begin(slot):
        return times.at[((slot - 1) * pieces + piece) * clocks + which].get(mode="clip")

    floors, exps = jnp.asarray(_FLOORS, time.dtype), jnp.asarray(np.exp(_FLOORS), time.dtype)
    floor, top = (floors.at[k].get(mode="promise_in_bounds") for k in (slot, following))
    at_start = slot == below
    knot = _knot(half, floor)
    low = _place(jnp.where(at_start, rise, knot.up), jnp.where(at_start, fall, knot.down))
    passed = jnp.where(at_start, 0, begin(slot) - start)
    lasts, rest = begin(following) - start - passed, time - passed
    left = jnp.where(late, 0, rest)
    # Where 1/g is level, however long the slot is: before the first knot, and around u = 0.
    level = (slot == 0) | (slot == _CORE)
    flat = left / (constant + jnp.where(slot == 0, 0, 1))
    exp = exps.at[following].get(mode="promise_in_bounds")
    curved = _guess(constant, low, _knot(half, top), exp, left, lasts)
    guess = jnp.where(level, flat, jnp.where(lasts > 0, curved, 0))
    middle = (half <= 0.5) & (slot > _FIRST) & (slot <= _END)

    # A loop, for what leaves it is written to memory once, where XLA on CPU would compute it again for each use.
    def cond(carry):
        angle, before, count = carry
        return (count == 0) | (jnp.any(jnp.abs(angle - before) * low.steep > 0.03) & (count < 8))

    def body(carry):
        angle, _, count = carry
        return _step(constant, series, middle, low, left, angle), angle, count + 1

    angle = lax.while_loop(cond, body, (guess, guess, 0))[0]
    u = _advance(low, angle)[0].u
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
    """(angle, u) with those put right that are `late`: `left` past the last knot, or past the start above it."""
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

    The angle is a lone 0 without `want_angle`. vmap adds to the clocks, so that the blocks are the same with and without.
    """

    def block(arguments):
        rise, fall, piece, time = (values.T for values in arguments)
        angle, u = look_up(constant, build(constant, rise, fall), piece, time, want_angle)
        return angle.T, u.T

    @jax.custom_batching.custom_vmap
    def solve(rise, fall, piece, time):
        clocks, times = time.shape
        if rise.shape[1] == 1:
            piece = piece[:, :1]
        limit = max(8, _BLOCK // max(times, 2 * rise.shape[1]) // 8 * 8)
        if clocks <= limit:
            return block((rise, fall, piece, time))
        # Blocks that fill the clocks exactly, if there are such of a good size, spare a copy of everything.
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
