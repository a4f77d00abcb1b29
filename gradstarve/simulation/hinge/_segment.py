"""Hinge flow between two events, exactly: where a network is after a while, and when the next event comes (section 12).

While no neuron changes its activity and no margin passes 1, c_j = sum_i q_i y_i x_i over the points with m_i < 1 that neuron
j is active on, with a share of those whose edges hold it (16.3) and, in a leaky network, its slope of the others, does not
change, and with rho_j = |c_j|, a_j = w_j.c_j/rho_j and tau = rho_j t

    a_j(t) = a_j cosh tau + z_j sinh tau,  z_j(t) = z_j cosh tau + a_j sinh tau,  w_j(t) = w_j + (a_j(t) - a_j) c_j/rho_j.

An edge w_j.x_i = 0 is then passed where a_j(t) has one known value: a quadratic in e^tau. A margin is a sum of exponentials
of different rates; its first passage through 1 is found from below by steps that a bound of its second derivative allows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from gradstarve.simulation.hinge._passage import EDGE, FLAT, GONE, MARGIN, PARTING, RATE, Look, first_passage

# Steps towards a margin's passage are this short in the time of the fastest neuron, for the bound to be good: rho t.
LONGEST = 0.5


class Segment(NamedTuple):
    """One network between two events: `w` [h, d], `z` [h], `force` c_j/rho_j [h, d], `rate` rho_j [h], `along` a_j [h];
    `edge` w_j.x_i and `lean` x_i.c_j/rho_j, both [h, n]."""

    w: Float[Array, "h d"]
    z: Float[Array, " h"]
    force: Float[Array, "h d"]
    rate: Float[Array, " h"]
    along: Float[Array, " h"]
    edge: Float[Array, "h n"]
    lean: Float[Array, "h n"]


def segment(
    w, z, part: Float[Array, "h n"], pull: Float[Array, " n"], x: Float[Array, "n d"], glides: Bool[Array, "h n"]
) -> Segment:
    """The segment that begins at (w, z); `pull` is q_i y_i g_i, of which each neuron feels the `part` in [slope, 1]: 1 where
    it is active, the slope of a leaky ReLU where it is not, and in between on an edge that it `glides` on."""
    # The largest entry first: squares of forces of 1e-160 would vanish.
    force = jnp.einsum("hn,nd->hd", part * pull, x, precision="highest")
    # Pulls that cancel leave rounding, which must not move what is at rest.
    load = jnp.einsum("hn,nd->hd", part * jnp.abs(pull), jnp.abs(x), precision="highest")
    least = jnp.where(jnp.any(glides, axis=1, keepdims=True), EDGE, FLAT) * jnp.finfo(x.dtype).eps
    force = jnp.where(jnp.abs(force) <= least * load, 0, force)
    size = jnp.max(jnp.abs(force), axis=1, keepdims=True)
    unit = force / jnp.where(size > 0, size, 1)
    length = jnp.linalg.norm(unit, axis=1, keepdims=True)
    rate, unit = (size * length)[:, 0], unit / jnp.where(length > 0, length, 1)
    along = jnp.sum(w * unit, axis=1)
    edge = jnp.einsum("hd,nd->hn", w, x, precision="highest")
    lean = jnp.einsum("hd,nd->hn", unit, x, precision="highest")
    # Of orthogonal points rounding leaves products that must not wake anybody.
    size = jnp.linalg.norm(x, axis=1)
    lean = jnp.where(glides | (jnp.abs(lean) <= FLAT * jnp.finfo(x.dtype).eps * size), 0, lean)
    return Segment(w, z, unit, rate, along, edge, lean)


def gained(rate, along, z, t) -> tuple[Array, Array]:
    """a_j(t) - a_j and z_j(t) - z_j, without cancellation for small rho t."""
    grown = jnp.expm1(rate * t)
    half = grown / (2 * (1 + grown))  # (1 - e^-tau) / 2, by which no product overflows before a sinh does
    sinh, less = half * (2 + grown), half * grown  # less: cosh - 1
    return along * less + z * sinh, z * less + along * sinh


def moved(now: Segment, t) -> tuple[Array, Array]:
    """w, z after the time t."""
    da, dz = gained(now.rate, now.along, now.z, t)
    return now.w + da[:, None] * now.force, now.z + dz


def edge_times(now: Segment, active: Bool[Array, "h n"]) -> Float[Array, "h n"]:
    """When neuron j passes the edge of point i to the side it is not on, [h, n]; inf if never.

    Of the two roots of the quadratic only the one is wanted at which w_j.x_i moves to the other side; so the edge that was
    passed last, which rounding leaves on either side of zero, is no event again.
    """
    z, a, rate = now.z[:, None], now.along[:, None], now.rate[:, None]
    there = (now.lean != 0) & (rate > 0)
    lean = jnp.where(there, now.lean, 1)
    need = -now.edge / lean  # what a_j must gain
    # In units of a power of two, which costs no digit: squares of weights of 1e-200 are no floats.
    size = jnp.maximum(jnp.maximum(jnp.abs(z), jnp.abs(a)), jnp.abs(need))
    unit = jnp.where(size > 0, size / jnp.where(size > 0, jnp.frexp(size)[0], 1), 1)
    z, a, need = z / unit, a / unit, need / unit
    square = z**2 + need * (2 * a + need)
    side = jnp.where(active, -1.0, 1.0)  # which way w_j.x_i goes when it matters
    then = side * jnp.sign(lean) * jnp.sqrt(jnp.maximum(square, 0))  # z_j at the passage
    same = jnp.sign(then) == jnp.sign(z)
    change = jnp.where(same, need * (2 * a + need) / jnp.where(same & (then + z != 0), then + z, 1), then - z)
    rising, falling = a + z, a - z
    use_rising = jnp.abs(rising) >= jnp.abs(falling)
    below = jnp.where(use_rising, rising, falling)
    ratio = jnp.where(use_rising, need + change, need - change) / jnp.where(below != 0, below, 1)
    reached = there & (square > 0) & (below != 0) & (ratio > -1)
    tau = jnp.log1p(jnp.where(reached, ratio, 0)) * jnp.where(use_rising, 1, -1)
    times = jnp.where(reached & (tau > 0), tau / jnp.where(rate > 0, rate, 1), jnp.inf)
    # On the edge or, by rounding, a little over it, and going further: now.
    speed = jnp.where(z != 0, z, a) * now.lean * side
    return jnp.where(there & (now.edge * side >= 0) & (speed > 0), 0.0, times)


def turn_times(now: Segment) -> Float[Array, " h"]:
    """When z_j passes 0, [h]; inf if never."""
    turns = (now.z * now.along < 0) & (jnp.abs(now.along) > jnp.abs(now.z)) & (now.rate > 0)
    tau = jnp.arctanh(jnp.where(turns, -now.z / jnp.where(turns, now.along, 1), 0))
    return jnp.where(turns, tau / jnp.where(turns, now.rate, 1), jnp.inf)


def margins_at(now: Segment, gate: Float[Array, "h n"], y, t: Float[Array, " n"]) -> tuple[Array, Array, Array, Array]:
    """m_i and dm_i/dt at a time of its own for each point, [n], what rounding may have put into dm_i/dt, and a bound of
    |d2 m_i/dt2| for LONGEST/max rho more."""
    da, dz = gained(now.rate, now.along, now.z, t[:, None])  # [n, h]
    a, z = now.along + da, now.z + dz
    edge, lean = gate.T * (now.edge.T + now.lean.T * da), gate.T * now.lean.T
    rate = now.rate
    margin = y * jnp.sum(z * edge, axis=1)
    speed = y * jnp.sum(rate * (a * edge + z * z * lean), axis=1)
    noise = RATE * jnp.finfo(z.dtype).eps * jnp.sum(rate * (jnp.abs(a * edge) + z * z * jnp.abs(lean)), axis=1)
    # d2/dt2 of z p is z rho^2 (p + 3 a lean); the bounds of |z|, |a| and |p| hold for tau to come up to LONGEST.
    most = (jnp.abs(a) + jnp.abs(z)) * jnp.exp(LONGEST)
    reach = jnp.abs(edge) + jnp.abs(lean) * most * LONGEST
    bend = jnp.sum(rate**2 * most * (reach + 3 * most * jnp.abs(lean)), axis=1)
    return margin, speed, noise, bend


def margin_times(
    now: Segment, gate: Float[Array, "h n"], y, live: Bool[Array, " n"], leaving: Bool[Array, " n"], own, limit
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """When each margin first passes 1 from the side it is on (`live`: below), [n], inf if not before `limit`; and whether
    the search came to an end. Only the earliest is right; later ones are inf or as they were found. Those `leaving` 1 are
    known to go to their side, tangentially, whatever rounding makes of their first speed. `own` [n]: the speed that each
    point's own pull gives it, beside which speeds are rounding.
    """
    side = jnp.where(live, 1.0, -1.0)
    fastest = jnp.max(now.rate)
    longest = LONGEST / jnp.where(fastest > 0, fastest, 1)
    eps = jnp.finfo(now.z.dtype).eps

    def look(t):
        margin, speed, noise, bend = margins_at(now, gate, y, t)
        noise = jnp.maximum(noise, RATE * eps * own) * jnp.where(leaving & (fastest * t < GONE), PARTING, 1)
        return Look(side * (1 - margin), side * speed, bend, jnp.full_like(margin, MARGIN * eps), noise)

    start = _quiet_until(now, gate, y, side, fastest)
    return first_passage(look, jnp.minimum(start, limit), limit, longest)


def _quiet_until(now: Segment, gate: Float[Array, "h n"], y, side: Float[Array, " n"], fastest) -> Float[Array, " n"]:
    """A time before which m_i cannot come to 1, [n], but for rounding: of a neuron that moves, |z_j|, |a_j| <= (|a| + |z|)
    e^tau, so that what these neurons add to |m_i| grows by e^(2 tau) at most. From tiny weights, beside others that rest,
    this is nearly all of the way."""
    most = jnp.where(now.rate > 0, jnp.abs(now.along) + jnp.abs(now.z), 0)[:, None]
    reach = gate * (jnp.abs(now.edge) + jnp.abs(now.lean) * most)
    # In units of the largest: products of 1e-200 are no floats.
    units = [jnp.maximum(jnp.max(leaf), jnp.finfo(leaf.dtype).tiny) for leaf in (most, reach)]
    total = 2 * jnp.sum((most / units[0]) * (reach / units[1]), axis=0)
    gap = jnp.maximum(side * (1 - y * jnp.sum(now.z[:, None] * gate * now.edge, axis=0)), MARGIN * jnp.finfo(gate.dtype).eps)
    growth = jnp.log(gap) - (jnp.log(units[0]) + jnp.log(units[1]) + jnp.log(jnp.where(total > 0, total, 1)))
    return jnp.where(total > 0, jnp.maximum(growth, 0) / (2 * jnp.where(fastest > 0, fastest, 1)), jnp.inf)
