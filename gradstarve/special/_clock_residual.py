"""The hyperbolic clock of any residual: tau = integral_0^s ds'/g(u(s')), u = rise e^s - fall e^-s, by quadrature (3.5).

The panels of one clock are found by marching in s: the difference between Gauss-Lobatto on a panel and Gauss-Legendre on its
two halves decides the length of the next panel, and panels end at every kink. So panels become short next to a singularity
of 1/g, and long on a plateau. Times are inverted inside their panel, by bracketed Newton steps with implicit derivatives.

At the rest u* there are two cases. Where g has a simple zero, the approach is exponential. From the logit u* - gap on, gap =
eps^(1/4), the distance d = u* - u obeys d' = -(l d + m d^2), with l, m from g and its slope at the gap: closed form, exact
up to gap^3, for every time. Where g jumps, or goes to 0 in another way, the panels lead up to u*, which may take a finite
time.

Where g grows without bound, the logit or g may overflow after a finite time: the panels end at this time, and from then on
the angle is inf. The same holds after the time, about 1/g, at which g underflows. With a bounded g the logit may overflow
as e^tau: then the logit is inf, but its angle and its times are finite.

If the panels do not suffice, or g is NaN, the result is NaN, which callers have to check.

A clock with g(u(0)) < 0 runs backwards: it is computed as the clock of -g(-v), v = -u, with rise and fall exchanged.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.special._clock import Clock
from gradstarve.special._expint import angle_at, steepness
from gradstarve.special._monotone import invert

Real = Float[Array, "*shape"]
PANELS = 256
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_NODES, _WEIGHTS = (_NODES + 1) / 2, _WEIGHTS / 2
_HALVES = np.concatenate([_NODES / 2, (_NODES + 1) / 2])


def _lobatto(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on [0, 1] of the rule with nodes at both ends, of degree 2 count - 3."""
    last = np.polynomial.legendre.Legendre.basis(count - 1)
    nodes = np.concatenate([[-1.0], np.sort(last.deriv().roots().real), [1.0]])
    return (nodes + 1) / 2, 1 / (count * (count - 1) * last(nodes) ** 2)


# The error of a panel is judged by a rule with nodes at the ends and in the middle, where the rule of the two halves has
# none, so that the two rules disagree at an undeclared jump of g. Both rules are of degree 31.
_JUDGES, _JUDGE_WEIGHTS = _lobatto(17)
# asinh of the distances above the start at which a zero of g is searched for; beyond them the grid is coarser (`_search`).
_SEARCH = np.linspace(0, 10, 513)[1:]
_GAPS = (1.0, 1 / 32, 1 / 1024)


class Panels(NamedTuple):
    """One clock, reversed if needed so that it runs forwards: `sign` of g at the start, its `rise` and `fall`.

    `edges`, `taus`: [PANELS + 1] angles and times of the panel ends, the last one repeated. `rest`: the logit u* at which
    the clock stops; `stop`: the angle at u* - gap, where the panels end; `gap`: 0 unless g has a simple zero at u*; `slope`
    and `bend`: the l and m of the approach. `arrived`: whether the panels reach `stop`; `fled`: whether they end at an
    overflow or underflow; `enough`: whether they reach the requested time or angle.
    """

    sign: Any
    rise: Any
    fall: Any
    edges: Any
    taus: Any
    rest: Any
    stop: Any
    gap: Any
    slope: Any
    bend: Any
    arrived: Any
    fled: Any
    enough: Any


def _fixed(tree):
    """`tree` without its derivatives."""
    numbers, rest = eqx.partition(tree, eqx.is_inexact_array)
    return eqx.combine(jax.lax.stop_gradient(numbers), rest)


def _residual(law, v):
    """g(v) in the shape and dtype of v, whatever the dtype of the law's numbers is."""
    return jnp.broadcast_to(jnp.asarray(law.residual(v), v.dtype), v.shape)


def _pull(law, sign, v):
    """g in the direction in which the clock runs."""
    return sign * _residual(law, sign * v)


def _halves_at(rise, fall, x):
    """rise e^x and fall e^-x, also where e^x alone overflows."""
    half = jnp.exp(jnp.where(rise > 0, x, 0) / 2)
    return half * rise * half, fall * jnp.exp(-x)


def _logits(rise, fall, y, nodes):
    """u at the `nodes` of the panel of length y that begins where the halves are `rise`, `fall`: [*shape, nodes]."""
    move = y[..., None] * jnp.asarray(nodes, y.dtype)
    return rise[..., None] * jnp.exp(move) - fall[..., None] * jnp.exp(-move)


def _integral(law, sign, rise, fall, y):
    """integral of 1/g over the panel."""
    g = _pull(law, sign, _logits(rise, fall, y, _NODES))
    return y * jnp.sum(jnp.asarray(_WEIGHTS, y.dtype) / jnp.where(g > 0, g, 1), axis=-1)


# --- the rest ----------------------------------------------------------------------------------------------------------


def _search(law, sign, start):
    """The first logit above `start` at which g is no longer positive, on a grid and then by halving; inf if there is none,
    if g is NaN there, or if g has underflowed before."""
    dtype = start.dtype
    far = float(np.log(float(jnp.finfo(dtype).max))) - 2
    grid = jnp.asarray(np.concatenate([_SEARCH, np.linspace(10, far, 257)[1:]]), dtype)
    stopped = ~(_pull(law, sign, start + jnp.sinh(grid)) > 0)
    first = jnp.argmax(stopped)
    high = start + jnp.sinh(grid[first])
    low = jnp.where(first > 0, start + jnp.sinh(grid[jnp.maximum(first - 1, 0)]), start)

    def halve(_, ends):
        low, high = ends
        middle = low / 2 + high / 2
        runs = _pull(law, sign, middle) > 0
        return jnp.where(runs, middle, low), jnp.where(runs, high, middle)

    low, high = jax.lax.fori_loop(0, 128, halve, (low, high))
    lost = jnp.isnan(_pull(law, sign, high)) | (_pull(law, sign, low) < _faint(dtype))
    return jnp.where(stopped.any() & ~lost, high, jnp.inf)


def _rest_of(law, sign, start):
    """u*, with its derivatives; `start` itself where g is 0 there."""
    held, at = _fixed(law), jax.lax.stop_gradient(start)
    kinks = [sign * jnp.asarray(kink, start.dtype) for kink in law.kinks]
    if law.rest is None:
        found = _search(held, sign, at)
        slack = 8 * jnp.finfo(start.dtype).eps * (1 + jnp.abs(found))
        # The implicit derivative uses the slope of g just below the zero.
        near = jnp.where(jnp.isfinite(found), found, 0)
        below = near - 1e-4 * _widest(start.dtype) * (1 + jnp.abs(near))
        slope = jax.jvp(lambda v: _pull(held, sign, v), (below,), (jnp.ones_like(below),))[1]
        value = _pull(law, sign, below)
        simple = jnp.isfinite(found) & (slope < 0) & jnp.isfinite(slope)
        move = jnp.where(simple, -value / jnp.where(simple, slope, 1), 0)
        rest = jnp.where(jnp.isfinite(found), near + move - jax.lax.stop_gradient(move), jnp.inf)
        for kink in kinks:
            rest = jnp.where(jnp.abs(jax.lax.stop_gradient(kink) - found) <= slack, kink, rest)
    else:
        rest = sign * jnp.asarray(law.rest, start.dtype)
        rest = jnp.where(rest > at, rest, jnp.inf)
    return jnp.where(_pull(held, sign, at) == 0, start, rest)


def rest_after(law, start: Real) -> Real:
    """Where a logit that starts at `start` comes to rest: the first zero of g above it, or below it where g < 0 there.

    inf, or -inf, if there is none.
    """

    def one(start):
        sign = jnp.where(_residual(law, jax.lax.stop_gradient(start)) < 0, -1, jnp.ones_like(start))
        return sign * _rest_of(law, sign, sign * start)

    return jax.vmap(one)(start.reshape(-1)).reshape(start.shape)


def _faint(dtype) -> float:
    """The size of g below which a following 0 is an underflow."""
    return 16 * float(jnp.finfo(dtype).tiny)


def _widest(dtype) -> float:
    return float(jnp.finfo(dtype).eps) ** 0.25


def _tail(law, sign, rise, fall, rest, kinks):
    """(gap, l, m) of the exponential approach to the `rest`; gap = 0 where g has no simple zero there."""
    start = rise - fall
    exists = jnp.isfinite(rest) & (rest > start)
    u = jnp.where(exists, rest, start + 1)
    room = u - start
    for kink in kinks:
        room = jnp.where((kink < u) & (kink > start), jnp.minimum(room, (u - kink) / 2), room)

    def speed(distance):
        v = u - distance
        return steepness(rise, fall, v) * _pull(law, sign, v)

    def approach(share):
        """(gap, l, m) for one share of the widest gap, and whether they also fit g half-way to the rest."""
        wide = jnp.where(room < share * _widest(u.dtype), room, share * _widest(u.dtype))
        value, turn = jax.jvp(speed, (wide,), (jnp.ones_like(wide),))
        first, second = 2 * value / wide - turn, (turn * wide - value) / wide**2
        half = speed(wide / 2)
        fits = jnp.abs(half - first * wide / 2 - second * wide**2 / 4) <= loose * half
        return wide, first, second, fits & exists & (half > 0) & (first > 0) & (first + second * wide > 0)

    loose = 16 * float(jnp.finfo(u.dtype).eps) ** 0.5
    *found, fits = jax.vmap(approach)(jnp.asarray(_GAPS, u.dtype))
    widest = jnp.argmax(fits)
    gap, slope, bend = (
        jnp.where(fits.any(), values[widest], other) for values, other in zip(found, (0.0, 1.0, 0.0), strict=True)
    )
    return gap, slope, bend


# --- panels ------------------------------------------------------------------------------------------------------------


def panels_of(law, rise, fall, latest, furthest) -> Panels:
    """The panels of one clock, up to the time `latest` or the angle `furthest` (in its own direction); no batch axes."""
    dtype = rise.dtype
    start = rise - fall
    backwards = jax.lax.stop_gradient(_residual(law, start)) < 0
    sign = jnp.where(backwards, -1, 1).astype(dtype)
    rise, fall = jnp.where(backwards, fall, rise), jnp.where(backwards, rise, fall)
    start = rise - fall
    rest = _rest_of(law, sign, start)
    logits = [sign * jnp.asarray(kink, dtype) for kink in law.kinks]
    gap, slope, bend = _tail(law, sign, rise, fall, rest, logits)
    there = jnp.isfinite(rest)
    stop = angle_at(rise, fall, jnp.where(there, rest, start) - gap)
    stop = jnp.where(there, jnp.where(rest - gap > start, stop, 0), jnp.inf)
    kinks = [jnp.where(kink > start, angle_at(rise, fall, kink), jnp.inf) for kink in logits]
    kinks = [jnp.where(kink < stop, kink, jnp.inf) for kink in kinks]
    edges, arrived, fled, enough = _march(*_fixed((law, sign, rise, fall, jnp.stack([*kinks, stop]), latest, furthest)))
    # A clock that starts or stops where g is NaN has no answer.
    ends = jnp.stack([start, jnp.where(arrived & there, rest, start)])
    enough &= ~jnp.isnan(_pull(*_fixed((law, sign, ends)))).any()
    for kink in (*kinks, stop):
        same = (edges == jax.lax.stop_gradient(kink)) & (edges > 0)
        edges = jnp.where(same, jnp.where(jnp.isfinite(kink), kink, 0), edges)
    lengths = edges[1:] - edges[:-1]
    used = lengths > 0
    at = jnp.where(used, edges[:-1], 0)
    pieces = _integral(law, sign, *_halves_at(rise, fall, at), jnp.where(used, lengths, 0))
    taus = jnp.concatenate([jnp.zeros(1, dtype), jnp.cumsum(jnp.where(used, pieces, 0))])
    return Panels(sign, rise, fall, edges, taus, rest, stop, gap, slope, bend, arrived, fled, enough)


def _march(law, sign, rise, fall, ends, latest, furthest):
    """The edges of the panels, and `arrived`, `fled` and `enough` of `Panels`."""
    dtype = rise.dtype
    eps = jnp.finfo(dtype).eps
    stop = ends[-1]
    latest = jnp.minimum(latest, 0.999 * jnp.finfo(dtype).max)
    scale = jnp.minimum(1, 1 / jnp.maximum(steepness(rise, fall, rise - fall), 1))

    def body(carry):
        x, length, tau, edges, count, *_ = carry
        following = jnp.min(jnp.where(ends > x, ends, jnp.inf))
        cut = length >= following - x
        length = jnp.where(cut, following - x, length)
        here = _halves_at(rise, fall, x)
        # Not at the ends themselves, which may be kinks, but further inside than the rounding of the logit.
        inside = jnp.minimum(64 * eps * (1 + (x + scale) / length), 0.005)
        judges = jnp.clip(jnp.asarray(_JUDGES, dtype), inside, 1 - inside)
        logits = _logits(*here, length, jnp.concatenate([judges, jnp.asarray(_HALVES, dtype)]))
        pulls = _pull(law, sign, logits)
        whole, parts = pulls[: judges.size], pulls[judges.size :]
        runs = jnp.all((pulls > 0) & (pulls < jnp.inf))
        coarse = length * jnp.sum(jnp.asarray(_JUDGE_WEIGHTS, dtype) / whole)
        fine = length * jnp.sum(jnp.asarray(np.tile(_WEIGHTS, 2) / 2, dtype) / parts)
        off = jnp.abs(coarse - fine)
        # The error relative to the time, or the error in the angle at the end of the panel, whichever is smaller.
        off = jnp.minimum(off / fine, off * parts[-1]) / (16 * eps)
        # Next to a blow-up whole panels are less than the rounding of the time.
        off = jnp.where(jnp.maximum(coarse, fine) <= eps * tau / 16, 0, off)
        runs &= jnp.isfinite(off) & jnp.isfinite(tau + fine)
        least = length <= 4 * eps * (x + scale)
        good = runs & ((off <= 1) | least)
        # The error scales with the 32nd power of the length, until only rounding is left.
        shorter = jnp.where(runs, jnp.clip(0.9 * jnp.maximum(off, 1) ** (-1 / 32), 0.2, 0.5), 0.25)
        factor = jnp.where(good, jnp.where(off < 0.5, 2, 0.9), shorter)
        x = jnp.where(good, jnp.where(cut, following, x + length), x)
        tau = jnp.where(good, tau + fine, tau)
        count = count + good
        edges = edges.at[count].set(x)
        broken = least & ~runs
        fled = broken & (jnp.any((pulls == jnp.inf) | ((pulls > 0) & (pulls < _faint(dtype)))) | ~jnp.isfinite(logits).all())
        lost = broken & ~fled & jnp.isnan(pulls).any()
        return x, factor * length, tau, edges, count, broken | (x >= stop), fled, lost

    def cond(carry):
        x, _, tau, _, count, over, *_ = carry
        # With rise = 0 the logit comes to 0 from below and g is constant from there on.
        level = (rise == 0) & (x > 2000)
        return ~over & ~level & (count < PANELS) & (tau < latest) & (x < furthest)

    begin = (
        jnp.zeros((), dtype),
        0.25 * scale,
        jnp.zeros((), dtype),
        jnp.zeros(PANELS + 1, dtype),
        jnp.zeros((), jnp.int32),
        stop <= 0,
        jnp.zeros((), bool),
        jnp.zeros((), bool),
    )
    x, _, tau, edges, count, over, fled, lost = jax.lax.while_loop(cond, body, begin)
    edges = jnp.where(jnp.arange(PANELS + 1) <= count, edges, x)
    enough = (over & ~lost) | (tau >= latest) | (x >= furthest) | ((rise == 0) & (x > 2000))
    return edges, x >= stop, fled, enough


# --- states and times ---------------------------------------------------------------------------------------------------


def _look_up(law, panels: Panels, tau):
    """(angle, logit) of one clock at one time."""
    sign, rise, fall, edges, taus, rest, stop, gap, slope, bend, arrived, fled, _ = panels
    end, last = taus[-1], edges[-1]
    beyond = tau >= end
    time = jnp.where(beyond, jax.lax.stop_gradient(end), tau)
    k = jnp.clip(jnp.searchsorted(jax.lax.stop_gradient(taus), time, side="right") - 1, 0, PANELS - 1)
    x, length = edges[k], edges[k + 1] - edges[k]
    held = jax.lax.stop_gradient(length)
    numbers, constant = eqx.partition(law, eqx.is_inexact_array)

    def spent(y, parameters):
        numbers, rise, fall = parameters
        law = eqx.combine(numbers, constant)
        g = _pull(law, sign, rise * jnp.exp(y) - fall * jnp.exp(-y))
        return _integral(law, sign, rise, fall, y), 1 / jnp.where(g > 0, g, 1)

    here = _halves_at(rise, fall, x)
    lasts = jax.lax.stop_gradient(taus[k + 1] - taus[k])
    guess = held * jnp.clip(jax.lax.stop_gradient(time - taus[k]) / jnp.where(lasts > 0, lasts, 1), 0, 1)
    y = invert(spent, (numbers, *here), 0 * held, held, guess, time - taus[k])
    angle = x + y
    u = here[0] * jnp.exp(y) - here[1] * jnp.exp(-y)
    # At the rest, or on the exponential approach.
    left = jnp.where(beyond & arrived, tau - end, 0)
    near = jnp.where(gap > 0, gap, 1)
    shrunk = jnp.exp(-jnp.minimum(slope * left, -0.5 * float(np.log(jnp.finfo(tau.dtype).tiny))))
    distance = near * shrunk / (1 + bend * near / slope * (1 - shrunk))
    goal = jnp.where(jnp.isfinite(rest), rest, 0)
    settled = jnp.where(gap > 0, goal - distance, goal)
    resting = beyond & arrived & jnp.isfinite(stop)
    settled = jnp.where(resting, settled, rise - fall)
    u = jnp.where(resting, settled, u)
    at_rest = jnp.where((gap > 0) | (stop > 0), angle_at(rise, fall, settled), 0)
    angle = jnp.where(resting, at_rest, angle)
    # Without rise the logit stays at 0 and the angle goes on.
    level = beyond & (rise == 0) & (last > 2000)
    angle = jnp.where(level, last + (tau - end) * _pull(law, sign, rise * 0), angle)
    angle, u = (jnp.where(fled & beyond, jnp.inf, value) for value in (angle, u))
    angle, u = (jnp.where(panels.enough, sign * value, jnp.nan) for value in (angle, u))
    return angle, u


def _time_at(law, panels: Panels, angle, u):
    """The time of one clock at `angle` (its own direction) >= 0, where the logit is `u`; inf if it never gets there."""
    sign, rise, fall, edges, taus, rest, stop, gap, slope, bend, arrived, fled, _ = panels
    finite = jnp.isfinite(stop)
    # Rounding may put an angle meant to be at the rest an ulp past it.
    edge = jnp.where(finite, stop, 0)
    slack = 8 * jnp.finfo(angle.dtype).eps * (1 + jnp.abs(edge))
    last = edges[-1]
    inside = (angle <= last) | (arrived & (gap == 0) & (angle <= last + slack))
    at = jnp.where(inside, jnp.minimum(angle, jax.lax.stop_gradient(last)), 0)
    k = jnp.clip(jnp.searchsorted(jax.lax.stop_gradient(edges), at, side="right") - 1, 0, PANELS - 1)
    at_end = inside & (jax.lax.stop_gradient(at) >= jax.lax.stop_gradient(last))
    y = jnp.where(at_end, 0, at - edges[k])
    tau = jnp.where(at_end, taus[-1], taus[k] + _integral(law, sign, *_halves_at(rise, fall, edges[k]), y))
    # Between the gap and the rest.
    tail = ~inside & arrived & (gap > 0) & (u < rest)
    near, slope, bend = jnp.where(tail, gap, 1), jnp.where(tail, slope, 1), jnp.where(tail, bend, 0)
    distance = jnp.where(tail, jnp.where(tail, rest, 0) - jnp.where(tail, u, 0), 1)
    start, now = (jnp.log(d) - jnp.log(slope + bend * d) for d in (near, distance))
    # Where g has overflowed, the remaining angle takes no time.
    grown = fled & jnp.isfinite(u) & (_pull(law, sign, jax.lax.stop_gradient(u)) > 1)
    late = jnp.where(grown, taus[-1], jnp.inf)
    return jnp.where(inside, tau, jnp.where(tail, taus[-1] + (start - now) / slope, late))


def _each(function, law, *arrays):
    """`function(law, *numbers)` on arrays of one shape."""
    shape = arrays[0].shape
    found = jax.vmap(lambda *numbers: function(law, *numbers))(*(value.reshape(-1) for value in arrays))
    return jax.tree.map(lambda value: value.reshape(*shape, *value.shape[1:]), found)


class QuadratureClock(Clock, eqx.Module):
    """The clock of any `law`: an object, such as a `Loss`, with `residual(u)` = g(u), `rest` (the first zero of g, inf if
    there is none, None for a search) and `kinks` (logits at which g or a derivative of g jumps). Results are NaN where the
    panels do not suffice.

    >>> class Cube:
    ...     rest, kinks = 1.0, ()
    ...     def residual(self, u):
    ...         return 1 - u**3
    >>> round(float(QuadratureClock(Cube()).state_at(*jnp.array([0.1, 0.0, 2.0]))[1]), 4)
    0.6601
    """

    law: Any

    @eqx.filter_jit
    def time_of(self, rise: Real, fall: Real, angle: Real) -> Real:
        """tau at `angle`; inf for an angle against the direction of the clock."""

        def one(law, rise, fall, angle):
            sign = jnp.where(jax.lax.stop_gradient(_residual(law, rise - fall)) < 0, -1, 1).astype(angle.dtype)
            ahead = sign * angle
            panels = panels_of(law, rise, fall, jnp.asarray(jnp.inf, angle.dtype), jnp.where(jnp.isfinite(ahead), ahead, 0))
            grown, decayed = _halves_at(panels.rise, panels.fall, ahead)
            tau = _time_at(law, panels, jnp.maximum(ahead, 0), grown - decayed)
            return jnp.where(panels.enough, jnp.where(ahead >= 0, tau, jnp.inf), jnp.nan)

        return _each(one, self.law, rise, fall, angle)

    @eqx.filter_jit
    def arrival_of(self, rise: Real, fall: Real, u: Real) -> Real:
        """The tau at which the logit is first at least `u`: 0 if it starts there, inf if never."""

        def one(law, rise, fall, u):
            there = rise - fall >= u
            reached = ~there & ((rise > 0) | (u < 0)) & jnp.isfinite(u) & (_residual(law, rise - fall) > 0)
            goal = jnp.where(reached, u, rise - fall)
            angle = jnp.where(reached, jnp.maximum(angle_at(rise, fall, goal), 0), 0)
            panels = panels_of(law, rise, fall, jnp.asarray(jnp.inf, u.dtype), angle)
            tau = _time_at(law, panels, angle, goal)
            return jnp.where(panels.enough, jnp.where(reached, tau, jnp.where(there, 0, jnp.inf)), jnp.nan)

        return _each(one, self.law, rise, fall, u)

    @eqx.filter_jit
    def end_of(self, rise: Real, fall: Real) -> Real:
        """The tau at which g or the logit overflows or g underflows; inf if never, or if the logit grows only as e^tau."""

        def one(law, rise, fall):
            forever = jnp.asarray(jnp.inf, rise.dtype)
            panels = panels_of(law, rise, fall, forever, forever)
            return jnp.where(panels.fled, panels.taus[-1], jnp.inf)

        return _each(one, self.law, rise, fall)

    @eqx.filter_jit
    def state_at(self, rise: Real, fall: Real, time: Real) -> tuple[Real, Real]:
        """(angle, logit) at `time`."""

        def one(law, rise, fall, time):
            return _look_up(law, panels_of(law, rise, fall, time, jnp.asarray(jnp.inf, time.dtype)), time)

        return _each(one, self.law, rise, fall, time)

    @eqx.filter_jit
    def states_at(self, rise, fall, piece, time, want_angle: bool = True) -> tuple[Array, Array]:
        """`state_at` for many times of each clock: the panels of a piece are made once."""
        own = piece[..., None] == jnp.arange(rise.shape[-1])
        latest = jnp.max(jnp.where(own, jax.lax.stop_gradient(time)[..., None], 0), axis=-2, initial=0)
        panels = _each(panels_of, self.law, rise, fall, latest, jnp.full_like(latest, jnp.inf))

        def clock(panels, piece, time):
            def one(piece, time):
                return _look_up(self.law, jax.tree.map(lambda value: value[piece], panels), time)

            return jax.vmap(one)(piece, time)

        flat = jax.tree.map(lambda value: value.reshape(-1, *value.shape[rise.ndim - 1 :]), panels)
        found = jax.vmap(clock)(flat, *(value.reshape(-1, value.shape[-1]) for value in (piece, time)))
        return found[0].reshape(time.shape), found[1].reshape(time.shape)
