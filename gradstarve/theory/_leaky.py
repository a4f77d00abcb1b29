"""The flow of a leaky ReLU on antipodal classes, or on one: two clocks that depend on each other (22.1).

With p_j = a_j + z_j, q_j = a_j - z_j and a_j signed along class +, a neuron on side c (+: a_j > 0, -: a_j < 0) has
p_j e^(S_c) and q_j e^(-S_c), S_c counted from where it came in, and

    dS_+/dt = p_+ r_+ g(m_+) + al p_- r_- g(m_-),   m_+ = r_+ (U_+ + al U_-),   U_c = the sum of a_j z_j over side c,

and the same with the classes exchanged: two equations, whatever the width and the dimension. A neuron changes its side at
the angle theta* = log|q_j/p_j|/2, where a_j = 0: there it goes on with the clock of the other side, and nothing else jumps.
Where that clock would send it back, it stays at a_j = 0 until one of the two turns round: only where a residual is negative,
for with g >= 0 both clocks rise and every neuron changes its side at most once.

The equations are solved in s = log(1 + rate t) by panels, each one the polynomial that obeys them at eight Radau points, as
in `_flows`: stiff relaxation and t = 1e300 cost a few panels. A panel ends where a neuron changes its side, at a kink of the
residual, and where a clock turns round. Derivatives are carried along, also those of the times of the events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradstarve.ground import ConvergenceError, as_goal, is_concrete, quick_jit
from gradstarve.problem import Loss, ModeCurve, given
from gradstarve.theory._flows import POINTS, legendre, log_time, radau_tables
from gradstarve.theory._piecewise import check_times

_TOLERANCE = {"float64": 1e-13, "float32": 2e-6}  # of the highest coefficient of a panel, in S
_LONGEST = 4.0  # panel, in s
_MOST_ITERATIONS = 16
_GRID = 16  # places of a panel at which events are looked for
_MOVES = 8  # changes of side of a neuron that are kept; 1 where residuals are >= 0
_ORDERS = 3  # of derivatives
_BISECTIONS = 26  # of a sixteenth of a panel, before Newton's method


class _Problem(NamedTuple):
    """One network: `p`, `q` [h], `push` p r and `norm` r [2], the arrays of the loss."""

    p: Array
    q: Array
    push: Array
    norm: Array
    loss: Any


class _Rules(NamedTuple):
    """What is not differentiated: the rest of the loss, the slope, and room for panels and for changes of side."""

    loss: Any
    slope: float
    most: int
    moves: int


class _Place(NamedTuple):
    """Where a panel begins: `s`, `clocks` [2], of each neuron its `side` (0, 1; 2: held at a = 0) and its `offset`, theta
    being clock + offset, and between which kinks each margin is, `cell` [2]."""

    s: Array
    clocks: Array
    side: Array
    offset: Array
    cell: Array


class _Path(NamedTuple):
    """The panels of one network: beginnings `s`, lengths, how far each holds (a share of its length), `clocks` at the
    beginning and Legendre coefficients of what they gain; the sums U and K of both sides there; for each neuron the s, the
    side and the offset from each change on; how many panels and changes there are, and where the last one ends."""

    s: Array
    length: Array
    holds: Array
    clocks: Array
    gains: Array
    sums: Array
    since: Array
    side: Array
    offset: Array
    count: Array
    moves: Array
    end: Array
    rate: Array


def _turning(p: Array, q: Array) -> Array:
    """theta*, the angle at which a = 0: [h], inf for neurons that never come to it."""
    crosses = p * q < 0
    found = (jnp.log(jnp.where(crosses, jnp.abs(q), 1)) - jnp.log(jnp.where(crosses, jnp.abs(p), 1))) / 2
    return jnp.where(crosses, found, jnp.inf)


def _path(rules: _Rules, problem: _Problem, goal: Array) -> _Path:
    """The panels from 0 to s = log(1 + rate goal)."""
    p, q, push, norm, arrays = problem
    loss: Loss = eqx.combine(arrays, rules.loss)
    dtype, slope, fixed = p.dtype, rules.slope, jax.lax.stop_gradient
    eps = jnp.finfo(dtype).eps
    tolerance = _TOLERANCE[dtype.name]
    points, _, integrals, expand = (jnp.asarray(table, dtype) for table in radau_tables())
    turning = _turning(p, q)
    crosses = jnp.isfinite(turning)
    angle_at = jnp.where(crosses, turning, 0)
    above = jnp.where(p > 0, 0, 1)  # the side of a neuron past theta*
    kinks = jnp.sort(jnp.stack([jnp.asarray(kink, dtype) for kink in loss.kinks])) if loss.kinks else None
    walls = None if kinks is None else jnp.concatenate([jnp.array([-jnp.inf], dtype), kinks, jnp.array([jnp.inf], dtype)])

    def residual(margins: Array, cell: Array) -> Array:
        """g with the branch of the kinks that each margin is between, also a little outside."""
        if walls is not None:
            low, high = walls[cell], jnp.nextafter(walls[cell + 1], -jnp.inf)
            margins = jnp.clip(margins, fixed(low), fixed(high))
        return jnp.where(push > 0, loss.residual(jnp.where(push > 0, margins, 0)), 0)

    def margins_of(gain: Array, sums: Array) -> Array:
        grown = sums[0] * jnp.cosh(2 * gain) + sums[1] * jnp.sinh(2 * gain)
        return norm * (grown + slope * grown[..., ::-1])

    def speeds(gain: Array, sums: Array, cell: Array) -> Array:
        pulls = push * residual(margins_of(gain, sums), cell)
        return pulls + slope * pulls[..., ::-1]

    both_sides = jnp.array([[1, slope], [slope, 1]], dtype)

    def speeds_and_slopes(gain: Array, sums: Array, cell: Array) -> tuple[Array, Array]:
        """dS/dt [..., 2], and its derivatives in both clocks [..., 2, 2]."""
        margins = margins_of(gain, sums)
        found, bend = jax.jvp(lambda m: residual(m, cell), (margins,), (jnp.ones_like(margins),))
        grows = 2 * (sums[0] * jnp.sinh(2 * gain) + sums[1] * jnp.cosh(2 * gain))
        slopes = both_sides @ ((push * bend * norm)[..., :, None] * both_sides) * grows[..., None, :]
        return (push * found) @ both_sides, slopes

    def sums_at(place: _Place) -> Array:
        """U and K = the sum of (a^2 + z^2)/2 of each side, [2, 2]."""
        clock = jnp.where(place.side == 0, place.clocks[0], place.clocks[1])
        angle = jnp.where(place.side == 2, angle_at, clock + place.offset)
        grown, decayed = p * jnp.exp(angle), q * jnp.exp(-angle)
        here = place.side == jnp.arange(2)[:, None]
        product = jnp.sum(jnp.where(here, (grown - decayed) * (grown + decayed), 0), axis=-1) / 4
        size = jnp.sum(jnp.where(here, grown**2 + decayed**2, 0), axis=-1) / 4
        return jnp.stack([product, size])

    def settle(place: _Place, speed: Array) -> _Place:
        """Neurons at a = 0 leave for the side to which both clocks send them, if they agree."""
        goes = (place.side == 2) & (speed[0] * speed[1] > 0)
        side = jnp.where(goes, jnp.where(speed[0] > 0, above, 1 - above), place.side)
        clock = jnp.where(side == 0, place.clocks[0], place.clocks[1])
        return place._replace(side=side, offset=jnp.where(goes, angle_at - clock, place.offset))

    nothing = jnp.zeros(2, dtype)
    side = jnp.where(p + q > 0, 0, jnp.where(p + q < 0, 1, 2))
    start = _Place(jnp.zeros((), dtype), nothing, side, jnp.zeros_like(p), jnp.zeros(2, jnp.int32))
    first = sums_at(start)
    if kinks is not None:
        start = start._replace(cell=jnp.sum(margins_of(nothing, first)[:, None] >= kinks, axis=-1, dtype=jnp.int32))
    speed = speeds(nothing, first, start.cell)
    start = settle(start, speed)
    bend = speeds_and_slopes(nothing, first, start.cell)[1]
    rate = fixed(jnp.sum(jnp.abs(speed)) + jnp.max(jnp.sum(jnp.abs(bend), axis=-1)))
    rate = jnp.where((rate > 0) & jnp.isfinite(rate), rate, 1)
    delay, last = jnp.log(rate), fixed(log_time(rate, goal))

    def moves_in(place: _Place) -> Array:
        """1 for a side with neurons, 0 for an empty one, whose clock need not run: [2]."""
        here = (place.side == jnp.arange(2)[:, None]) & ((p != 0) | (q != 0))
        return here.any(axis=-1).astype(dtype)

    def solve(place: _Place, length: Array, sums: Array) -> tuple[Array, Array]:
        """What the clocks gain at the Radau points, [points, 2], and whether Newton's method found it."""
        pace = jnp.exp(place.s + points * length - delay)[:, None]  # dt/ds
        runs = moves_in(place)

        def off_by(gain, sums, pace):
            return gain - length * integrals @ (pace * runs * speeds(gain, sums, place.cell))

        def matrix_at(gain):
            slopes = runs[:, None] * speeds_and_slopes(gain, fixed(sums), place.cell)[1]
            slopes = jnp.moveaxis(fixed(pace)[..., None] * slopes, 0, 1)
            slopes = length * integrals[:, None, :, None] * slopes[None]
            return jnp.eye(2 * POINTS, dtype=dtype) - slopes.reshape(2 * POINTS, 2 * POINTS)

        def body(state):
            gain, _, change, count = state
            off = off_by(gain, fixed(sums), fixed(pace)).reshape(-1)
            move = jnp.linalg.solve(matrix_at(gain), off).reshape(POINTS, 2)
            return gain - move, change, jnp.max(jnp.abs(move)), count + 1

        def moving(state):
            _, before, change, count = state
            settled = (change < 1e4 * eps) & (change > before / 2)
            return (change > tolerance / 20) & ~settled & (count < _MOST_ITERATIONS)

        far = jnp.asarray(jnp.inf, dtype)
        slope_now = pace[0] * runs * speeds(nothing, sums, place.cell)
        guess = fixed(jnp.clip(length * slope_now, -1, 1) * points[:, None])
        gain, before, change, _ = jax.lax.while_loop(moving, body, (guess, far, far, 0))
        good = (change <= tolerance / 20) | ((change < 1e4 * eps) & (change > before / 2))
        # For the derivatives: with a constant matrix each step makes one order more of them right.
        gain = fixed(gain)
        inverse = fixed(jnp.linalg.inv(jnp.where(good, matrix_at(gain), jnp.eye(2 * POINTS, dtype=dtype))))

        def refine(gain, _):
            return gain - (inverse @ off_by(gain, sums, pace).reshape(-1)).reshape(POINTS, 2), None

        gain = jax.lax.scan(refine, gain, length=_ORDERS)[0]
        return gain, good & jnp.all(jnp.isfinite(gain))

    def rests(place: _Place, sums: Array) -> Array:
        """Whether the clock of every side with neurons stands still, to rounding: for ever, then."""
        margins = fixed(margins_of(nothing, sums))
        found, bend = jax.jvp(lambda m: residual(m, place.cell), (margins,), (jnp.ones_like(margins),))
        size = 1 + norm * fixed(sums[1] @ both_sides)  # of the terms of a margin
        noise = 16 * eps * (push * (jnp.abs(found) + size * jnp.abs(bend))) @ both_sides
        return jnp.all((jnp.abs((push * found) @ both_sides) <= noise) | (moves_in(place) == 0))

    def levels_of(place: _Place) -> tuple[Array, Array]:
        """The next clock at which a neuron of each side comes to a = 0, upwards and downwards, [2, 2], and which: [2, 2]."""
        target = angle_at - place.offset
        here = crosses & (place.side == jnp.arange(2)[:, None])
        rising = here & (above != jnp.arange(2)[:, None])
        falling = here & (above == jnp.arange(2)[:, None])
        first, last = jnp.where(rising, target, jnp.inf), jnp.where(falling, target, -jnp.inf)
        who = jnp.stack([jnp.argmin(first, axis=-1), jnp.argmax(last, axis=-1)])
        there = jnp.stack([rising.any(-1), falling.any(-1)])
        return jnp.where(there, target[who], jnp.array([[jnp.inf], [-jnp.inf]], dtype)), who

    def events(x: Array, place: _Place, sums: Array, gains: Array, levels: Array, turns: Array) -> Array:
        """Numbers that are above 0 until something happens, at a share `x` of the panel: [8 or 12]."""
        y = 2 * x - 1
        gain = legendre(y) @ gains
        clocks = place.clocks + gain
        up = jnp.where(jnp.isfinite(levels[0]), levels[0], clocks + 1) - clocks
        down = clocks - jnp.where(jnp.isfinite(levels[1]), levels[1], clocks - 1)
        turned = jnp.where(turns != 0, turns * (jax.jvp(legendre, (y,), (jnp.ones_like(y),))[1] @ gains), 1)
        # Held neurons: the clock before theta* is at a speed above 0, the clock past it below.
        waiting = crosses & (place.side == 2)
        speed = speeds(gain, sums, place.cell)
        ways = jnp.stack([(waiting & (above == c)).any() for c in (0, 1)])
        way = jnp.where(ways[0], jnp.array([-1.0, 1.0], dtype), jnp.array([1.0, -1.0], dtype))
        freed = jnp.where(ways.any(), way * speed, 1)
        found = [up, down, freed, turned]
        if walls is not None:
            m, (low, high) = margins_of(gain, sums), (walls[place.cell], walls[place.cell + 1])
            some = push > 0
            found += [
                jnp.where(some & jnp.isfinite(low), m - jnp.where(jnp.isfinite(low), low, 0), 1),
                jnp.where(some & jnp.isfinite(high), jnp.where(jnp.isfinite(high), high, 0) - m, 1),
            ]
        return jnp.concatenate(found)

    def slack_of(place: _Place) -> Array:
        """Rounding of `events`."""
        near = 16 * eps * (1 + jnp.max(jnp.abs(place.clocks)))
        sizes = [near, near, 64 * eps * jnp.sum(push), max(100 * float(eps), 1e-11 if dtype == jnp.float64 else 1e-5)]
        if walls is not None:
            edge = 16 * eps * (1 + jnp.max(jnp.where(jnp.isfinite(walls), jnp.abs(walls), 0)))
            sizes += [edge, edge]
        return fixed(jnp.repeat(jnp.stack([jnp.asarray(size, dtype) for size in sizes]), 2))

    grid = jnp.arange(1, _GRID + 1, dtype=dtype) / _GRID

    def first_event(place: _Place, sums: Array, gains: Array, aim: Array) -> tuple[Array, Array, Array]:
        """The share of the panel after which something happens (1: nothing does), which event it is, and which neuron.

        `aim`: the event at which the panel was made to end (-1: none), which rounding may have put just behind its end.
        """
        levels, who = levels_of(place)
        slack = slack_of(place)
        slack = jnp.where(jnp.arange(slack.size) == aim, -8 * slack, slack)
        leaving = fixed((legendre(2 * grid[0] - 1) - legendre(-jnp.ones((), dtype))) @ gains)
        turns = jnp.where(jnp.abs(leaving) > 10 * eps * (1 + jnp.max(jnp.abs(fixed(gains)))), jnp.sign(leaving), 0)

        def of(x, *rest):
            return events(x, place._replace(clocks=rest[0]), rest[1], rest[2], rest[3], turns)

        inputs = place.clocks, sums, gains, levels
        held = fixed(inputs)
        over = jnp.any(jax.vmap(lambda x: of(x, *held) < -slack)(grid), axis=-1)
        happens = jnp.any(over)
        after = grid[jnp.argmax(over)]

        def halve(_, bracket):
            low, high = bracket
            middle = (low + high) / 2
            gone = jnp.any(of(middle, *held) < -slack)
            return jnp.where(gone, low, middle), jnp.where(gone, middle, high)

        low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, (after - grid[0], after))
        there = of(high, *held) + slack
        which = jnp.argmin(jnp.where(there < 0, there, jnp.inf))

        def newton(x, _):
            value, slope_of = jax.jvp(lambda x: of(x, *inputs)[which], (x,), (jnp.ones_like(x),))
            slope_of = fixed(slope_of)
            move = -jnp.where(slope_of != 0, value / jnp.where(slope_of != 0, slope_of, 1), 0)
            end = jnp.where(which == aim, 1, high)
            kept = jnp.clip(fixed(x + move), jnp.maximum(low - grid[0] / 16, 0), end)
            return kept + jnp.where(jnp.isfinite(kept), x - fixed(x) + move - fixed(move), 0), None

        x = jax.lax.scan(newton, high, length=2 + _ORDERS)[0]
        x = jnp.where(happens, x, 1)
        return x, jnp.where(happens, which, -1), who.reshape(-1)[jnp.clip(which, 0, 3)]

    def after_event(place: _Place, which: Array, who: Array, speed: Array) -> _Place:
        """`place` once event number `which` has happened to neuron `who`."""
        crossing = (which >= 0) & (which < 4)
        mine = crossing & (jnp.arange(p.size) == who)
        from_side = which % 2
        goes = speed[0] * speed[1] > 0
        side = jnp.where(mine, jnp.where(goes, 1 - from_side, 2), place.side)
        offset = jnp.where(mine, angle_at - place.clocks[1 - from_side], place.offset)
        place = place._replace(side=side, offset=offset)
        freed = settle(place, jnp.where(which // 2 == 2, _agreed(speed, which), 0))
        place = jax.tree.map(lambda now, then: jnp.where(which // 2 == 2, then, now), place, freed)
        step = jnp.where(which // 2 == 4, -1, jnp.where(which // 2 == 5, 1, 0))
        return place._replace(cell=place.cell + jnp.where(jnp.arange(2) == which % 2, step, 0).astype(place.cell.dtype))

    def _agreed(speed: Array, which: Array) -> Array:
        """The speeds where that of clock `which` % 2 passes 0, as they are just after: both have the sign of the other."""
        other = jnp.sign(speed[1 - which % 2])
        return jnp.stack([other, other])

    def attempt(state):
        place, length, cut, aim, path, tries = state
        sums = sums_at(place)
        rest = rests(place, sums)
        taken = fixed(jnp.where(rest, last - place.s, jnp.minimum(jnp.minimum(length, last - place.s), cut)))
        found, good = solve(place, taken, sums)
        gains, good = jnp.where(rest, 0, expand @ found), good | rest
        error = fixed(jnp.max(jnp.abs(gains[-1])) / tolerance)
        good = good & (error <= 1)
        factor = jnp.clip(0.8 * jnp.maximum(error, 1e-30) ** (-1 / POINTS), 0.3, 2.0)
        factor = jnp.where(good | (error > 1), factor, 0.4)  # 0.4: Newton's method failed (NaN: also)
        factor = jnp.where(jnp.isfinite(factor), factor, 0.4)
        following = jnp.where(good & (taken < length), length, jnp.minimum(taken * factor, _LONGEST))
        safe = jnp.where(good, gains, 0)
        x, which, who = first_event(place, sums, safe, aim)
        x, which = jnp.where(rest, 1, x), jnp.where(rest, -1, which)
        # Past a kink the residual is not what the polynomial took it for: the panel has to end there.
        early = fixed(x) < 1 - (1e-11 if dtype == jnp.float64 else 1e-5)
        over = good & (which // 2 >= 4) & early & (fixed(x) * taken > 1e3 * eps * (1 + place.s))
        good = good & ~over
        cut = jnp.where(over, fixed(x) * taken, jnp.where(good, jnp.inf, cut))
        aim = jnp.where(over, which, jnp.where(good, -1, aim)).astype(aim.dtype)
        following = jnp.where(over, length, following)
        end = jnp.where((which < 0) & (taken >= last - place.s), last, place.s + x * taken)
        gain = legendre(2 * x - 1) @ safe
        there = place._replace(s=end, clocks=place.clocks + gain)
        speed = fixed(speeds(gain, sums, place.cell))
        there = after_event(there, which, who, speed)
        number = jnp.where(good, path.count, rules.most).astype(jnp.int32)  # beyond the end: dropped
        kept = {"s": place.s, "length": taken, "holds": x, "clocks": place.clocks, "gains": safe, "sums": sums}
        stored = {name: getattr(path, name).at[number].set(value, mode="drop") for name, value in kept.items()}
        moved = good & (there.side != place.side)
        slot = jnp.where(moved, path.moves + 1, rules.moves + 1)
        rows = jnp.arange(p.size)
        path = path._replace(
            **stored,
            since=path.since.at[rows, slot].set(end, mode="drop"),
            side=path.side.at[rows, slot].set(there.side.astype(dtype), mode="drop"),
            offset=path.offset.at[rows, slot].set(there.offset, mode="drop"),
            count=path.count + good,
            moves=path.moves + moved,
        )
        place = jax.tree.map(lambda new, old: jnp.where(good, new, old), there, place)
        return place, following, cut, aim, path._replace(end=place.s), tries + 1

    h, most = p.size, rules.most
    log = (h, rules.moves + 1)
    path = _Path(
        s=jnp.full(most, jnp.inf, dtype),
        length=jnp.ones(most, dtype),
        holds=jnp.ones(most, dtype),
        clocks=jnp.zeros((most, 2), dtype),
        gains=jnp.zeros((most, POINTS + 1, 2), dtype),
        sums=jnp.zeros((most, 2, 2), dtype),
        since=jnp.full(log, jnp.inf, dtype).at[:, 0].set(0),
        side=jnp.zeros(log, dtype).at[:, 0].set(start.side.astype(dtype)),
        offset=jnp.zeros(log, dtype).at[:, 0].set(start.offset),
        count=jnp.zeros((), dtype),
        moves=jnp.zeros(h, jnp.int32),
        end=jnp.zeros((), dtype),
        rate=rate,
    )

    def going(state):
        place, *_, path, tries = state
        fits = jnp.all(path.moves <= rules.moves)
        return (place.s < last) & (path.count < most) & (tries < 4 * most) & fits

    begin = (start, jnp.asarray(0.5, dtype), jnp.asarray(jnp.inf, dtype), jnp.full((), -1, jnp.int32))
    path = jax.lax.while_loop(going, attempt, (*begin, path, jnp.zeros((), jnp.int32)))[4]
    arrived = (path.end >= last) & jnp.all(path.moves <= rules.moves)
    return path._replace(moves=path.moves.astype(dtype), end=jnp.where(arrived, path.end, jnp.nan))



def carried(function: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """`function(inputs [n], goal)`, one array of floats, differentiable in the inputs in both modes, where the function
    itself is in forward mode only: the derivatives in every input are carried along. None is taken in goal.

    One array, for JAX loses count of the axes of several under jit, vmap and two derivatives.
    """

    @jax.custom_jvp
    def value_of(inputs: Array, goal: Array) -> Array:
        return function(inputs, goal)

    def with_slopes(inputs: Array, goal: Array) -> Array:
        """The value and its derivatives, [1 + n, ...]."""

        def along(way: Array) -> tuple[Array, Array]:
            return jax.jvp(lambda inputs: function(inputs, goal), (inputs,), (way,))

        value, slopes = jax.vmap(along, out_axes=(None, 0))(jnp.eye(inputs.size, dtype=inputs.dtype))
        return jnp.concatenate([value[None], slopes])

    @value_of.defjvp
    def _(primals, tangents):
        found = carried(with_slopes)(*primals)
        return found[0], jnp.tensordot(tangents[0], found[1:], 1)

    return value_of


class LeakyFlow(eqx.Module):
    """The neurons of a leaky network and the two classes, class + first: `a` (signed along x_+), `z` [*batch, h],
    `frequency` (0 of a class without points), `norm` [2, *batch]. Times t as in `ClockCurve`."""

    loss_function: Loss
    frequency: Float[Array, "2 *batch"]
    norm: Float[Array, "2 *batch"]
    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]
    slope: float = eqx.field(static=True)

    @property
    def start(self) -> Float[Array, "*batch h"]:
        """a_j at the start."""
        return self.a

    def remainder(self, t) -> Float[Array, "..."]:
        """What t leaves of a weight that no point acts on: all of it, [*batch, *t.shape]."""
        return jnp.ones((*self.a.shape[:-1], *check_times(t, self.a.dtype).shape), self.a.dtype)

    def logits(self, t) -> Float[Array, "..."]:
        """u of each class at t: [2, *batch, *t.shape]."""
        t = check_times(t, self.a.dtype)
        found = self._answered(_read(self, t.reshape(-1), False))
        return jnp.moveaxis(found, -1, 0).reshape(2, *self.a.shape[:-1], *t.shape)

    def coordinates(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at t, signed along x_+, each [*batch, *t.shape, h]."""
        t = check_times(t, self.a.dtype)
        shape = (*self.a.shape[:-1], *t.shape, self.a.shape[-1])
        a, z = self._answered(_read(self, t.reshape(-1), True))
        return a.reshape(shape), z.reshape(shape)

    @property
    def events(self) -> Float[Array, "*batch h"]:
        """The time at which each neuron changes its side first, [*batch, h]; inf if never."""
        return self._answered(_changes(self)).reshape(self.a.shape)

    def first_time(self, what: str, shares: Any, level: Array) -> Array:
        """The first t at which the sum over classes of `shares` [2] times the error or the loss (`what`) is at most `level`
        [lanes], or the margins ("margin") at least: [*batch, lanes]; inf if there is none."""
        shares = jnp.asarray(shares, self.a.dtype)
        return self._answered(_first_time(self, what, shares, level)).reshape(*self.a.shape[:-1], level.size)

    def _answered(self, found: Any) -> Any:
        """The values; `ConvergenceError` (a runtime error inside jit) where some were not found."""
        values, arrived = found
        message = (
            f"the two clocks of the leaky network were not followed to the last time asked for with the loss "
            f"{self.loss_function.name}: its residual is NaN, jumps where no kink is announced, or jumps from above 0 to "
            "below 0 at a margin that then slides along it; ask for earlier times, or use simulate(...) with a small step "
            "size, whose margins go to and fro about such a jump, or simulate_flow(...) where nothing slides"
        )
        if not is_concrete(arrived):
            return jax.tree.map(lambda value: eqx.error_if(value, ~arrived.all(), message), values)
        if not bool(arrived.all()):
            raise ConvergenceError(message)
        return values


def _end_of(dtype: Any) -> Array:
    """How late it gets: 1e300, 1e37 in float32, so that neither residuals nor dt/ds leave the floats."""
    return jnp.asarray(1e300 if dtype == jnp.float64 else 1e37, dtype)


# A program of its own, so that other questions compile the small ones below only.
@quick_jit(eqx.filter_jit, few=0)
def _paths(flow: LeakyFlow, latest: Array) -> tuple[_Path, _Problem]:
    """The panels of all networks, [b, ...], until the time `latest`, and what they are of."""
    (*batch, h), dtype = flow.a.shape, flow.a.dtype
    arrays, others = eqx.partition(flow.loss_function, eqx.is_inexact_array)
    loss, rest = flow.loss_function, flow.loss_function.rest
    rises = loss.stops or (rest is not None and is_concrete(rest) and bool(np.isinf(np.asarray(rest)).all()))
    moves = 1 if rises else _MOVES
    rules = _Rules(others, flow.slope, 320 + h * moves, moves)
    b = int(np.prod(batch))

    def per_class(values):
        return jnp.broadcast_to(values, (2, *batch)).reshape(2, b).T.astype(dtype)

    push, norm = per_class(flow.frequency * flow.norm), per_class(flow.norm)
    p, q = ((flow.a + sign * flow.z).reshape(b, h) for sign in (1, -1))
    goal = jax.lax.stop_gradient(jnp.where(latest > 0, jnp.minimum(latest, _end_of(dtype)), 1))

    def one(p, q, push, norm):
        problem = _Problem(p, q, push, norm, arrays)
        inputs, unravel = ravel_pytree(problem)

        def flat(inputs, goal):
            return ravel_pytree(_path(rules, unravel(inputs), goal))[0]

        return carried(flat)(inputs, goal)

    found = jax.vmap(one)(p, q, push, norm)
    single = (jax.ShapeDtypeStruct(values.shape[1:], dtype) for values in (p, q, push, norm))  # there may be no network
    shapes = jax.eval_shape(lambda p, q, push, norm: _path(rules, _Problem(p, q, push, norm, arrays), goal), *single)
    leaves, tree = jax.tree.flatten(shapes)
    ends = np.cumsum([leaf.size for leaf in leaves])
    parts = [part.reshape(b, *leaf.shape) for part, leaf in zip(jnp.split(found, ends[:-1], axis=1), leaves, strict=True)]
    return jax.tree.unflatten(tree, parts), _Problem(p, q, push, norm, arrays)


def _at(flow: LeakyFlow, norm: Array, path: _Path, panel: Array, x: Array) -> tuple[Array, Array]:
    """The clocks and the margins, each [..., 2], at a share `x` of a panel of one network."""
    gain = jnp.einsum("...k,...kc->...c", legendre(2 * x - 1), path.gains[panel])
    sums = path.sums[panel]
    grown = sums[..., 0, :] * jnp.cosh(2 * gain) + sums[..., 1, :] * jnp.sinh(2 * gain)
    return path.clocks[panel] + gain, norm * (grown + flow.slope * grown[..., ::-1])


def _read(flow: LeakyFlow, t: Array, weights: bool) -> tuple[Any, Array]:
    """Margins [b, times, 2], or (a, z), each [b, times, h], and whether they were found."""
    latest = jnp.max(t, initial=0)
    paths, problem = _paths(flow, latest)
    return _evaluated(flow, paths, problem, t, weights), jnp.isfinite(paths.end) & (latest <= _end_of(t.dtype))


@quick_jit(eqx.filter_jit, few=0)
def _evaluated(flow: LeakyFlow, paths: _Path, problem: _Problem, t: Array, weights: bool) -> Any:
    def one(path: _Path, p, q, norm):
        s = log_time(path.rate, t)
        panel = jnp.maximum(jnp.searchsorted(path.s, s, side="right") - 1, 0)
        clocks, margins = _at(flow, norm, path, panel, (s - path.s[panel]) / path.length[panel])
        if not weights:
            return margins
        epoch = jnp.maximum(jnp.sum(path.since <= s[:, None, None], axis=-1) - 1, 0)  # [times, h]
        rows = jnp.arange(p.size)
        side, offset = path.side[rows, epoch], path.offset[rows, epoch]
        turning = _turning(p, q)
        angle = jnp.where(side == 0, clocks[:, :1], clocks[:, 1:]) + offset
        angle = jnp.where(side == 2, jnp.where(jnp.isfinite(turning), turning, 0), angle)
        grown, decayed = p * jnp.exp(angle), q * jnp.exp(-angle)
        return jnp.where(side == 2, 0, (grown + decayed) / 2), (grown - decayed) / 2

    return jax.vmap(one)(paths, problem.p, problem.q, problem.norm)


def _changes(flow: LeakyFlow) -> tuple[Array, Array]:
    paths, _ = _paths(flow, _end_of(flow.a.dtype))
    first = paths.since[..., 1]
    there = jnp.isfinite(first)
    return jnp.where(there, jnp.expm1(jnp.where(there, first, 0)) / paths.rate[:, None], jnp.inf), jnp.isfinite(paths.end)


def _first_time(flow: LeakyFlow, what: str, shares: Array, level: Array) -> tuple[Array, Array]:
    paths, problem = _paths(flow, _end_of(flow.a.dtype))
    return _searched(flow, paths, problem, what, shares, level), jnp.isfinite(paths.end)


@quick_jit(eqx.filter_jit, few=0)
def _searched(flow: LeakyFlow, paths: _Path, problem: _Problem, what: str, shares: Array, level: Array) -> Array:
    dtype, fixed = flow.a.dtype, jax.lax.stop_gradient
    loss = flow.loss_function

    def height(margins: Array, shares: Array, level: Array) -> Array:
        """At most 0 where the level is reached."""
        if what == "margin":
            return level - jnp.sum(shares * margins, axis=-1)
        there = jnp.where(shares > 0, margins, 0)
        return jnp.sum(shares * (jax.nn.sigmoid(-there) if what == "error" else loss.value(there)), axis=-1) - level

    places = jnp.linspace(0, 1, 2 * _GRID + 1, dtype=dtype)
    # A residual without a jump takes a margin to its rest in no finite time, though in floats the loss gets there.
    never = -jnp.inf
    if what == "loss" and loss.rest is not None and not loss.kinks:
        never = jnp.sum(jnp.where(shares > 0, shares * loss.value(jnp.asarray(loss.rest, dtype)), 0))

    def one(path: _Path, norm):
        every = jnp.arange(path.s.size)[:, None]
        used = every < path.count
        margins = _at(flow, norm, path, every, places * path.holds[:, None])[1].reshape(-1, 2)

        def of(level):
            # Where a margin rests at the level, it does so to rounding.
            rests = what == "margin" or bool(loss.kinks)
            slack = 16 * jnp.finfo(dtype).eps * (jnp.abs(fixed(level)) + rests)
            there = used & (height(margins, shares, level).reshape(every.size, places.size) <= slack)
            there = there & ((level > never) | (every + places == 0))  # a network may start at rest
            number = jnp.argmax(there)
            panel, place = number // places.size, number % places.size
            high = places[place] * path.holds[panel]
            low = places[jnp.maximum(place - 1, 0)] * path.holds[panel]
            held, level_held = fixed((path, norm, shares)), fixed(level)

            def value(x, path, norm, shares, level):
                return height(_at(flow, norm, path, panel, x)[1], shares, level)

            def halve(_, bracket):
                low, high = bracket
                middle = (low + high) / 2
                over = value(middle, *held, level_held) <= slack
                return jnp.where(over, low, middle), jnp.where(over, middle, high)

            low, high = jax.lax.fori_loop(0, 2 * _BISECTIONS, halve, (fixed(low), fixed(high)))

            def newton(x, _):
                now, slope = jax.jvp(lambda x: value(x, path, norm, shares, level), (x,), (jnp.ones_like(x),))
                slope = fixed(slope)
                inside = (place > 0) & (slope < 0)
                moved = jnp.where(inside, -now / jnp.where(inside, slope, 1), 0)
                return x + jnp.where(jnp.abs(fixed(moved)) > places[1], moved - fixed(moved), moved), None

            x = jax.lax.scan(newton, high, length=_ORDERS)[0]
            # At the beginning of a panel it is an event that brings the level about.
            x = jnp.where(place > 0, x, 0)
            s = path.s[panel] + x * path.length[panel]
            at_start = (panel == 0) & (place == 0)
            some = there.any() & ~at_start
            found = jnp.where(some, jnp.expm1(jnp.where(some, s, 0)) / path.rate, jnp.inf)
            return jnp.where(at_start & there.any(), 0, found)

        return jax.vmap(of)(level)

    return jax.vmap(one)(paths, problem.norm)


class LeakyCurve(ModeCurve):
    """The learning curve of one class of a leaky network under gradient flow (22.1); t is time.

    Error of a logit below 1e-10 of its size (2e-5 in float32) for t from 0 to 1e300 (1e37). Differentiable
    once in weights, p, r, t and numbers of the loss; jit and vmap work.
    """

    law: LeakyFlow
    index: int = eqx.field(static=True)

    def logit(self, t) -> Float[Array, "..."]:
        """u(t), [*batch, *t.shape]. `ValueError` for negative, NaN or infinite t."""
        return self.law.logits(given(t))[self.index]

    def weights(self, t) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at t in the orientation of this class, each [*batch, *t.shape, h]."""
        a, z = self.law.coordinates(t)
        return (-a, -z) if self.index else (a, z)

    def remainder(self, t) -> Float[Array, "..."]:
        """What the flow leaves at t of a weight that no point acts on: all of it, ones of [*batch, *t.shape]."""
        return self.law.remainder(t)

    def time_to_logit(self, logit) -> Float[Array, "..."]:
        """The first time u(t) >= `logit`, [*batch, *logit.shape]; 0 if u(0) is there, inf if it never gets there."""
        return self._first("margin", as_goal("logit", logit, self._dtype))

    @property
    def loss_function(self) -> Loss:
        """l(m), whose residual moves the weights."""
        return self.law.loss_function

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.law.a.shape[:-1]

    @property
    def _dtype(self) -> Any:
        return self.law.a.dtype

    @property
    def _unit(self) -> str:
        return "time"

    def _first(self, what: str, level):
        shares = np.eye(2)[self.index]
        return self.law.first_time(what, shares, level.reshape(-1)).reshape(*self._batch, *level.shape)

    def _time_to(self, what: str, level, max_steps: int):
        return self._first(what, level)

    def _time_to_margin(self, margin, max_steps: int):
        return self.time_to_logit(margin)


def leaky_flow(loss: Loss, rays: Any, a: Array, z: Array, slope: float) -> tuple[Any, Any, LeakyFlow]:
    """The curves of class + and class - (None for one without points) and the law of neurons `a` (along x_+), `z`."""
    batch = a.shape[:-1]

    def of(values):
        return jnp.stack([jnp.broadcast_to(jnp.asarray(value, a.dtype), batch) for value in values])

    frequency = of([0.0 if ray is None else ray.frequency for ray in rays])
    norm = of([1.0 if ray is None else ray.norm for ray in rays])
    law = LeakyFlow(loss, frequency, norm, a, z, slope)
    plus, minus = (None if ray is None else LeakyCurve(law, index) for index, ray in enumerate(rays))
    return plus, minus, law
