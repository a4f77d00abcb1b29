"""Balanced paths of two and more layers under losses whose residual is constant between kinks, with signed types (10.1).

In phi(v_k), phi' = v^(2/N-2), the flow is dphi_k/dt = c_k sum_S S_k w_S, c_k = N r_k^(2/N), and w_S = p_S g_S is constant
while margin S is off its kinks. So phi is linear in time until a margin comes to a kink. A margin that is held at a kink has
the w_S between its two levels that keeps the margin at rest. The integrals W_S(t) of these w_S obey

    v(t) = phi^(-1)( phi(v(0)) + c (G t + sum_held S W_S(t)) ),   types_held v(t) = kinks_held,

with G from the margins that are not held: the minimum of a convex function of W, so that no equation has to be integrated,
only solved. Events are first zeros of functions of time: a margin comes to a kink, or the w_S of a held margin to a level.
They are found by steps in which no logit changes by much. Which margins are held after an event is decided as with one
layer (`_flat`), in the metric c_k v_k^(2-2/N).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from gradstarve.theory._depth import raised
from gradstarve.theory._flat import FREE, chosen_status, forces, picked, rounding_of_speeds

_CHANGE = 0.05  # of a logit within one step of the walk
_NEGLIGIBLE = 1e-14  # of a logit beside the largest one
_MOST_WALK, _MOST_NEWTON, _MOST_PARTS, _HALVINGS = 200, 24, 300, 60
_MORE = 48  # phases that begin anew without an event
_NONE, _MARGIN, _RESIDUAL, _DEPARTURE = 0, 1, 2, 3  # how a phase ends
_TINY = 1e-5  # of a logit beside the largest one, where all that is left to happen is that it vanishes


class Paths(NamedTuple):
    """One problem: `types` [S, K], `weights` p_S g_S between the kinks [J+1, S], `kinks` [J, S], `pace` c_k [K]."""

    types: Array
    weights: Array
    kinks: Array
    pace: Array
    depth: int

    def still(self) -> Paths:
        """The problem without derivatives."""
        return Paths(*jax.lax.stop_gradient(self[:-1]), self.depth)

    def metric(self, v: Array) -> Array:
        """dv_k/dt = metric_k sum_S S_k w_S."""
        return self.pace * v ** (2 - 2 / self.depth)


class Phase(NamedTuple):
    """Between two events.

    - `held`: [K], which of the `rows` [K] are numbers of held margins;
    - `side`: [S], the kink of a margin that is at one, and for the others how many kinks are below;
    - `resting`: [S], margins at a kink that stay there though they are not held;
    - `lasts`: for how long, inf for ever;
    - `kind`: how the phase ends: margin `which` comes to the kink above (`upper`) or below it, or the w_S of row `which` to
      its upper or lower level, or the resting margin `which` has moved off its kink.
    """

    held: Array
    rows: Array
    side: Array
    resting: Array
    lasts: Array
    kind: Array
    which: Array
    upper: Array


class Motion(NamedTuple):
    """In a phase that begins at `v` [K]: the `drift` G + sum_held S w_S(0), [K]; the types of `held` margins [K, K], filled
    up with rows of zeros; the `goal`, their kinks, [K]; and which rows are `there`, [K]."""

    v: Array
    drift: Array
    held: Array
    goal: Array
    there: Array


def _is_held(phase: Phase) -> Array:
    """Which margins are held, [S]."""
    return jnp.zeros(len(phase.side), bool).at[phase.rows].max(phase.held)


def _pushes(problem: Paths, phase: Phase) -> Array:
    """w_S of margins that are not held, 0 for those that are, [S]."""
    above = jnp.where(phase.resting, phase.side + 1, phase.side)
    return jnp.where(_is_held(phase), 0, picked(problem.weights, above))


def _motion(problem: Paths, phase: Phase, v: Array) -> Motion:
    held = jnp.where(phase.held[:, None], problem.types[phase.rows], 0)
    goal = jnp.where(phase.held, picked(problem.kinks, phase.side)[phase.rows], 0)
    drift = _pushes(problem, phase) @ problem.types
    motion = Motion(v, drift, held, goal, phase.held)
    return motion._replace(drift=drift + _residuals(problem, motion, v) @ held)


def _system(problem: Paths, motion: Motion, v: Array) -> Array:
    """What sum_held S W_S does to the held margins, [K, K], and the unit matrix where none is held."""
    matrix = (motion.held * problem.metric(v)) @ motion.held.T
    ridge = 4 * jnp.finfo(v.dtype).eps * jnp.max(jnp.diag(matrix))  # where the logits that tell them apart have vanished
    return matrix + jnp.diag(jnp.where(motion.there, ridge, 1).astype(v.dtype))


def _residuals(problem: Paths, motion: Motion, v: Array) -> Array:
    """How much w_S of the held margins differ at v from those in `drift`, [K]."""
    return -jnp.linalg.solve(_system(problem, motion, v), motion.held @ (problem.metric(v) * motion.drift))


def _place(problem: Paths, motion: Motion, time: Array, gains: Array) -> Array:
    """v where the held margins have had `gains` [K] more than drift * time."""
    return raised(motion.v, problem.pace * (motion.drift * time + gains @ motion.held), problem.depth)


def _newton(problem: Paths, motion: Motion, time: Array, gains: Array) -> tuple[Array, Array]:
    """A Newton step for the gains, and by how much it would change a logit, relatively; NaN where there is none."""
    v = _place(problem, motion, time, gains)
    off = jnp.where(motion.there, motion.held @ v - motion.goal, 0)
    step = -jnp.linalg.solve(_system(problem, motion, v), off)
    change = jnp.abs(problem.pace * (step @ motion.held)) * v ** (1 - 2 / problem.depth)
    return step, jnp.max(change)


def _gains(problem: Paths, motion: Motion, begin: Array, known: Array, time: Array) -> Array:
    """What the held margins have had by `time` beyond drift * time, [K], from what they have had by `begin`; NaN where it is
    not found.

    Newton's method from there, along the slope; in shorter steps of time where it does not come to its end, as where phi has
    left its range.
    """
    longest = jnp.inf if problem.depth == 2 else 0.7  # of a relative change: phi is bounded above
    enough = float(jnp.finfo(known.dtype).eps) ** 0.6  # the step after it is right to rounding
    least = 1e-3 * jnp.max(jnp.abs(problem.weights))

    def damped(gains: Array, goal: Array) -> tuple[Array, Array]:
        step, change = _newton(problem, motion, goal, gains)
        part = jnp.minimum(jnp.log1p(change), longest) / jnp.where(change > 0, change, 1)
        return gains + jnp.where(change > 0, part, 0) * step, change

    def solved(guess: Array, goal: Array) -> tuple[Array, Array]:
        def body(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            return *damped(state[0], goal), state[2] + 1

        start = (guess, jnp.asarray(jnp.inf, guess.dtype), jnp.asarray(0))
        more = lambda state: (state[1] > enough) & (state[2] < _MOST_NEWTON)  # noqa: E731
        gains, change, _ = jax.lax.while_loop(more, body, start)
        return damped(gains, goal)[0], change <= enough

    def advance(state: tuple[Array, ...]) -> tuple[Array, ...]:
        at, gains, length, count = state
        goal = jnp.where(at + length < time, at + length, time)
        along = _residuals(problem, motion, _place(problem, motion, at, gains))
        along = jnp.where(jnp.abs(along) > least, along, 0)
        new, well = solved(gains + along * (goal - at), goal)
        well = well & jnp.isfinite(new).all()
        length = jnp.where(well, 4 * length, length / 4)
        return jnp.where(well, goal, at), jnp.where(well, new, gains), length, count + 1

    state = (begin, known, time - begin, jnp.asarray(0))
    at, gains, _, _ = jax.lax.while_loop(lambda s: (s[0] < time) & (s[3] < _MOST_PARTS), advance, state)
    return jnp.where(at < time, jnp.nan, gains)


def _at(problem: Paths, motion: Motion, time: Array) -> Array:
    """v after `time` in a phase, [K]; differentiable twice."""
    motion_, time_ = jax.lax.stop_gradient((motion, time))
    zero = jnp.zeros_like(motion_.v)
    gains = jax.lax.stop_gradient(_gains(problem.still(), motion_, zero[0], zero, time_))

    def once_more(_: Any, gains: Array) -> Array:
        step = _newton(problem, motion, time, gains)[0]
        return gains + step - jax.lax.stop_gradient(step)  # changes nothing but carries the derivatives

    return _place(problem, motion, time, jax.lax.fori_loop(0, 2, once_more, gains))


# The walk from event to event.


def _begun(problem: Paths, v: Array, side: Array, at: Array) -> tuple[Phase, Array, Array]:
    """The phase that begins at v, where a margin has `side` kinks below it, or is `at` kink number `side`; and `side` and
    `at` as they are from then on."""
    types, size = problem.types, len(problem.types)
    gram = (types * problem.metric(v)) @ types.T
    high, low = (picked(problem.weights, row) for row in (side, side + at))
    status = chosen_status(gram, problem.weights, at & (high > low), low, high)
    free = status == FREE
    _, speed = forces(gram, status, low, high)
    moving = jnp.abs(speed) > rounding_of_speeds(gram, problem.weights)
    goes = at & ~free & moving
    side = jnp.where(goes & (speed > 0), side + 1, side)
    at = at & ~goes
    rows = jnp.argsort(~free)[: types.shape[1]]
    rows = jnp.concatenate([rows, jnp.zeros(types.shape[1] - len(rows), rows.dtype)])
    held = free[rows] & (jnp.arange(types.shape[1]) < size)
    never = jnp.asarray(jnp.inf, v.dtype)
    none = jnp.asarray(_NONE)
    return Phase(held, rows, side, at & ~free, never, none, none, jnp.asarray(False)), side, at


def _gaps(problem: Paths, phase: Phase, motion: Motion, v: Array) -> tuple[Array, Array, Array]:
    """How far each of the events is, by kind: of margins to the kinks above and below them [2, S], and of the w_S of held
    ones to their levels [2, K] (upper, lower), inf where there is none; and the tolerances of the margins, [S]."""
    count = len(problem.kinks)
    margins = problem.types @ v
    tol = 64 * jnp.finfo(v.dtype).eps * (jnp.abs(problem.types) @ v + 1)
    loose = ~_is_held(phase) & ~phase.resting
    above = jnp.where(loose & (phase.side < count), picked(problem.kinks, phase.side) - margins, jnp.inf)
    below = jnp.where(loose & (phase.side > 0), margins - picked(problem.kinks, phase.side - 1), jnp.inf)
    w = _held_pushes(problem, phase, motion, v)
    high, low = (picked(problem.weights, phase.side + k)[phase.rows] for k in (0, 1))
    ends = jnp.where(phase.held, jnp.stack([high - w, w - low]), jnp.inf)
    return jnp.stack([above, below]), ends, tol


def _held_pushes(problem: Paths, phase: Phase, motion: Motion, v: Array) -> Array:
    """w_S of the held margins at v, [K]."""
    return _residuals(problem, motion._replace(drift=_pushes(problem, phase) @ problem.types), v)


def _any(events: tuple[Array, ...]) -> Array:
    return jnp.stack([event.any() for event in events]).any()


class _Walk(NamedTuple):
    time: Array
    v: Array
    gains: Array
    ended: Array  # an event has been passed
    calm: Array  # nothing is left that could lead to one
    count: Array


def _until_event(problem: Paths, phase: Phase, v: Array) -> tuple[Phase, Array, Array]:
    """`phase` with its end, the v there, and whether it was found."""
    motion = _motion(problem, phase, v)
    spread = jnp.max(jnp.abs(problem.weights))
    slack = 64 * jnp.finfo(v.dtype).eps * spread

    def speeds(v: Array) -> Array:
        """dphi/dt."""
        return problem.pace * (motion.drift + _residuals(problem, motion, v) @ motion.held)

    def approached(v: Array, gaps: Array, tol: Array) -> tuple[Array, Array]:
        """Which kinks are only approached for ever, [2, S]: those that are not passed where tiny logits vanish and nothing
        else happens. And whether these logits are negligible: the rest is the minimum of a convex function then, and events
        on the way to it change no more than them."""
        rate = speeds(v)
        tiny, moves = (rate < 0) & (v < _TINY * jnp.max(v)), jnp.abs(rate) * v ** (2 - 2 / problem.depth)
        ends = tiny.any() & (jnp.max(jnp.where(tiny, 0, moves)) <= 1e3 * jnp.sum(jnp.where(tiny, moves, 0)))
        left, along = jnp.where(tiny, 0, v), jnp.where(tiny, 0, problem.metric(v)) * motion.held
        off = jnp.where(motion.there, motion.held @ left - motion.goal, 0)
        matrix = along @ motion.held.T + jnp.diag(jnp.where(motion.there, 0, 1).astype(v.dtype))
        last = left - jnp.linalg.solve(matrix, off) @ along
        change = problem.types @ (last - v)
        last_gaps = gaps + jnp.stack([-change, change])
        ends = ends & jnp.isfinite(last).all()
        small = jnp.max(jnp.where(tiny, v, 0)) <= 5e3 * jnp.finfo(v.dtype).eps * jnp.max(v)
        return ends & (last_gaps >= -1e-6 * jnp.abs(gaps) - tol), ends & small

    def passed(before: Array, now: Array) -> tuple[Array, Array, Array]:
        """Which events lie between two places."""
        (m0, w0, tol), (m1, w1, _) = _gaps(problem, phase, motion, before), _gaps(problem, phase, motion, now)
        far_off, over = approached(before, m0, tol)
        margins = (m1 <= tol) & ((m0 > tol) | (m1 < -16 * tol)) & ~far_off
        off = problem.types @ now - picked(problem.kinks, phase.side)
        departures = phase.resting & (jnp.stack([off, -off]) > 16 * tol)
        ends = (w1 < -slack) & ((w0 > -slack) | (w1 < -16 * slack))
        return margins & ~over, ends & ~over, departures & ~over

    def length(v: Array) -> Array:
        """How long no logit that counts changes by more than a little."""
        margins, ends, tol = _gaps(problem, phase, motion, v)
        far_off, _ = approached(v, margins, tol)
        near = jnp.min(jnp.where(far_off, jnp.inf, jnp.maximum(margins, 0)))
        least = 0.01 * jnp.minimum(near, jnp.min(jnp.maximum(ends, 0)) / spread * jnp.max(v))
        least = jnp.maximum(least, _NEGLIGIBLE * jnp.max(v))
        speed = speeds(v)
        rate = jnp.abs(speed) * v ** (1 - 2 / problem.depth)
        rounding = 64 * jnp.finfo(v.dtype).eps * problem.pace * (jnp.abs(problem.types).T @ jnp.max(problem.weights, 0))
        rises, falls = speed > rounding, speed < -rounding
        far = jnp.where(v < least, jnp.log(jnp.minimum(least, jnp.max(v)) / jnp.where(v > 0, v, 1)) / 2, 0)
        change = jnp.maximum(jnp.where(rises, far, 0), _CHANGE)
        # phi(v e^change) - phi(v) over its speed: exact while that is constant
        power = 1 - 2 / problem.depth
        risen = change if problem.depth == 2 else -jnp.expm1(-power * change) / power
        wait = risen / jnp.where(rate > 0, rate, 1)
        # Held margins depend on all logits, and are the better known the less is left to vanish.
        coupled = phase.held.any() | far_off.any()
        counts = rises & (v > 0) & jnp.isfinite(least)
        floor = 2e3 * jnp.finfo(v.dtype).eps * jnp.max(v)
        counts = counts | falls & (v > jnp.where(coupled, floor, least))
        return jnp.min(jnp.where(counts & (rate > 0), wait, jnp.inf))

    def step(walk: _Walk) -> _Walk:
        wait = length(walk.v)
        # A long phase begins anew on its way, so that drift * time and what held margins add to it never cancel by much.
        calm = jnp.isinf(wait) | (walk.count >= _MOST_WALK)
        time = walk.time + jnp.where(calm, 0, wait)
        gains = _gains(problem, motion, walk.time, walk.gains, time)
        v = _place(problem, motion, time, gains)
        ended = _any(passed(walk.v, v)) & ~calm
        keep = ended | calm
        return _Walk(
            jnp.where(keep, walk.time, time),
            jnp.where(keep, walk.v, v),
            jnp.where(keep, walk.gains, gains),
            ended,
            calm,
            walk.count + 1,
        )

    zero = jnp.zeros((), v.dtype)
    begin = _Walk(zero, v, jnp.zeros_like(v), jnp.asarray(False), jnp.asarray(False), jnp.asarray(0))
    walk = jax.lax.while_loop(lambda s: ~s.ended & ~s.calm & jnp.isfinite(s.v).all(), step, begin)

    def there(time: Array) -> Array:
        return _place(problem, motion, time, _gains(problem, motion, walk.time, walk.gains, time))

    def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        late = _any(passed(walk.v, there(middle)))
        return jnp.where(late, low, middle), jnp.where(late, middle, high)

    last = walk.time + jnp.where(walk.ended, length(walk.v), 0)
    _, time = jax.lax.fori_loop(0, _HALVINGS, halve, (walk.time, last))
    time = jnp.where(walk.ended, time, walk.time)
    v = there(time)
    events = passed(walk.v, v)
    is_margin, is_residual = events[0].any(), events[1].any()
    kind = jnp.where(is_margin, _MARGIN, jnp.where(is_residual, _RESIDUAL, _DEPARTURE))
    kind = jnp.where(walk.ended, kind, _NONE)
    places, widths = (jnp.stack(x) for x in zip(*((jnp.argmax(e), jnp.asarray(e.shape[1])) for e in events), strict=True))
    place, width = places[jnp.maximum(kind - 1, 0)], widths[jnp.maximum(kind - 1, 0)]
    # A phase that nothing ends begins anew where it has become calm, so that it is described by what lasts.
    lasts = jnp.where(walk.ended | (walk.calm & (walk.time > 0)), time, jnp.inf)
    found = walk.ended | walk.calm
    return phase._replace(lasts=lasts, kind=kind, which=place % width, upper=place < width), v, found


def schedule(problem: Paths, v: Array, most: int) -> tuple[Phase, Array]:
    """The phases from v on, [most] of each, of which those behind the last one last for ever; and whether all were found. No
    derivatives."""
    margins = problem.types @ v
    side, at = jnp.sum(problem.kinks < margins, axis=0), (problem.kinks == margins).any(axis=0)
    empty, _, _ = _begun(problem, v, side, at)
    log = jax.tree.map(lambda leaf: jnp.zeros((most, *leaf.shape), leaf.dtype), empty)
    log = log._replace(lasts=jnp.full(most, jnp.inf, v.dtype))

    def body(state: Any) -> Any:
        v, side, at, log, number, _, well = state
        phase, side, at = _begun(problem, v, side, at)
        phase, v, found = _until_event(problem, phase, v)
        log = jax.tree.map(lambda whole, one: whole.at[number].set(one), log, phase)
        # margins that have come to a kink
        here = (jnp.arange(len(side)) == phase.which) & (phase.kind == _MARGIN)
        side = jnp.where(here & ~phase.upper, side - 1, side)
        # held ones that leave: at their upper level downwards
        leaves = (jnp.arange(len(side)) == phase.rows[phase.which]) & (phase.kind == _RESIDUAL)
        # and those that rested, and have moved off
        gone = (jnp.arange(len(side)) == phase.which) & (phase.kind == _DEPARTURE)
        side = jnp.where(leaves & ~phase.upper | gone & phase.upper, side + 1, side)
        at = (at | here) & ~leaves & ~gone
        return v, side, at, log, number + 1, jnp.isinf(phase.lasts), well & found

    start = (v, side, at, log, jnp.asarray(0), jnp.asarray(False), jnp.asarray(True))
    state = jax.lax.while_loop(lambda s: ~s[5] & (s[4] < most) & s[6], body, start)
    return state[3], state[5] & state[6]


def deep_phases(problem: Paths, start: Array) -> tuple[Array, Array, Phase, Array]:
    """The times [P] at which phases begin (inf: never) and v there [P, K], both differentiable twice; the phases, and up to
    which time they are known."""
    count, size = problem.kinks.shape
    most = 4 * size * count + 8 + _MORE
    phases, well = jax.lax.stop_gradient(schedule(problem.still(), jax.lax.stop_gradient(start), most))

    def follow(state: tuple[Array, Array], phase: Phase) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        v, clock = state
        motion = _motion(problem, phase, v)
        lasts = jnp.where(jnp.isfinite(phase.lasts), phase.lasts, 0)

        def gap(time: Array) -> Array:
            """What is 0 at the end of the phase."""
            now = _at(problem, motion, time)
            size = len(problem.types)
            kink = picked(problem.kinks, jnp.where(phase.upper, phase.side, phase.side - 1))
            margin = (problem.types @ now - kink)[jnp.clip(phase.which, 0, size - 1)]
            row = jnp.clip(phase.which, 0, len(phase.rows) - 1)
            level = picked(problem.weights, jnp.where(phase.upper, phase.side, phase.side + 1))[phase.rows]
            residual = (_held_pushes(problem, phase, motion, now) - level)[row]
            return jnp.where(phase.kind == _MARGIN, margin, residual)

        ends = ((phase.kind == _MARGIN) | (phase.kind == _RESIDUAL)) & jnp.isfinite(phase.lasts)

        def once_more(_: Any, time: Array) -> Array:
            value, slope = jax.jvp(gap, (time,), (jnp.ones_like(time),))
            change = jnp.where(ends, value / jnp.where(ends & (slope != 0), slope, 1), 0)
            return time - (change - jax.lax.stop_gradient(change))

        time = jax.lax.fori_loop(0, 2, once_more, lasts)
        after = jnp.where(jnp.isfinite(phase.lasts), _at(problem, motion, time), v)
        then = jnp.where(jnp.isfinite(phase.lasts), clock + time, jnp.inf)
        return (after, then), (clock, v)

    _, (clocks, states) = jax.lax.scan(follow, (start, jnp.zeros((), start.dtype)), phases)
    last = jnp.max(jnp.where(jnp.isfinite(clocks), clocks, 0))
    return clocks, states, phases, jnp.where(well, jnp.inf, last)


def deep_place(problem: Paths, clocks: Array, states: Array, phases: Phase, t: Array) -> Array:
    """v_k at one time t, [K], of what `deep_phases` has found."""
    number = jnp.sum(clocks <= t) - 1
    phase, v = jax.tree.map(lambda leaf: leaf[number], phases), states[number]
    motion = _motion(problem, phase, v)
    # What is at rest to rounding is at rest, however late.
    pushes = jnp.abs(problem.types).T @ jnp.max(jnp.abs(problem.weights), axis=0)
    rest = jnp.isinf(phase.lasts) & (jnp.abs(motion.drift) <= 1e5 * jnp.finfo(v.dtype).eps * pushes)
    motion = motion._replace(drift=jnp.where(rest, 0, motion.drift))
    return _at(problem, motion, t - clocks[number])
