"""The way of a batch of networks through segments and slides, and who is held after an event (12.1).

After an event the pulls u_i = q_i g_i of the points at m_i = 1 are those in [0, q_i] with dm_i/dt >= 0 where u_i = 0, <= 0
where u_i = q_i, and 0 in between. With dm/dt = K u + b and K = J J' this is the shortest gradient among those that the kinks
leave open: the least squares of |J_held' u + J_below' q| in a box.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache, partial, wraps
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from gradstarve.ground import MANY, quick_to_compile, quickest_to_compile
from gradstarve.problem import Dataset
from gradstarve.simulation.hinge._ahead import ahead
from gradstarve.simulation.hinge._decide import Judge, tell
from gradstarve.simulation.hinge._passage import (
    AT_ONE,
    JUMP,
    MOMENT,
    PULL,
    RIDGE,
    SPEED,
    SUM,
    Look,
    first_passage,
    gates,
    on_one_line,
    passed,
)
from gradstarve.simulation.hinge._run import (
    LOG,
    EventKind,
    State,
    Stop,
    Task,
    begin,
    emptied,
    next_time,
    noted,
    recorded,
    run,
)

# The Taylor series of hinge flow while margins are held at 1, and the first passage of a polynomial (12.1).
#
# With u_i(t) the pulls q_i g_i of the held points and those of the others constant, dw_j/dt = z_j c_j and dz_j/dt = w_j.c_j
# with c_j = sum_i phi'_ji u_i y_i x_i, where phi'_ji is 1 if neuron j is active on point i and the slope if it is not. No
# closed form is known, but all coefficients follow one from the other: those of w and z of order k + 1 from those up to
# order k, and those of u of order k from d m_i/dt = 0 on the held points, which is one linear system with the kernel
# K_ik = y_i y_k sum_j phi'_ji phi'_jk (z_j^2 x_i.x_k + (w_j.x_i)(w_j.x_k)) of the first moment. So edges, margins and pulls
# are polynomials on the step, whose first root can be bounded, not only sampled.

# A step of 1/e^2 of the radius of convergence meets rounding at this order, which costs least per unit of time in float64.
ORDER = 20


class Series(NamedTuple):
    """Coefficients in powers of t / unit: `w` [N + 1, h, d], `z` [N + 1, h], `edge` w_j.x_i of all pairs [N + 1, h, n],
    `margin` m_i [N + 1, n], `pull` u_i of the held points [N, held]."""

    w: Float[Array, "orders h d"]
    z: Float[Array, "orders h"]
    edge: Float[Array, "orders h n"]
    margin: Float[Array, "orders n"]
    pull: Float[Array, "orders_less held"]


class Rails(NamedTuple):
    """The edges that neurons are held on while margins are held. With X_j the points of the edges of neuron j, one for each
    line, and c_j the force of all the others, these points push with -`dual`_j c_j + `offset`_j times their x, where `dual`
    [h, n, d] has the rows of the pseudo-inverse of X_j', 0 for all other points; `offset` [h, n] is not 0 only where points
    depend on each other."""

    dual: Float[Array, "h n d"]
    offset: Float[Array, "h n"]


def _dot(a, b):
    return jnp.matmul(a, b, precision="highest")


def series(
    w: Float[Array, "h d"],
    z: Float[Array, " h"],
    gate: Float[Array, "h n"],
    pull: Float[Array, " n"],
    place: Int[Array, " held"],
    used: Bool[Array, " held"],
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    unit: Float[Array, ""],
    rails: Rails | None = None,
) -> Series:
    """The series from (w, z): `pull` is q_i g_i of the points that are not held, 0 on those that are, which are the `place`
    where `used`; `unit` is the unit of time, some 1 / max |c_j|; `rails`: the edges that neurons are held on."""
    h, dtype = z.size, z.dtype
    held_x, held_y = x[place], jnp.where(used, y[place], 0)
    sees = gate[:, place] * used  # [h, held]

    def along(dw):  # of a motion of neurons [h, d], what the edges leave of it
        return dw if rails is None else dw - jnp.einsum("hnd,hd,ne->he", rails.dual, dw, x, precision="highest")

    force = _dot(gate * (pull * y), x)  # of the points below 1, [h, d]
    edge = _dot(w, x.T)
    on_edge = gate * edge

    # The kernel of the held points and its inverse, in the unit of time.
    seen_z, seen_edge = sees * z[:, None], sees * edge[:, place]
    close = _dot(seen_z.T, seen_z) * _dot(held_x, held_x.T)
    if rails is not None:
        on_rails = jnp.einsum("hnd,kd->hnk", rails.dual, held_x, precision="highest")
        close = close - jnp.einsum("hi,hk,in,hnk->ik", seen_z, seen_z, _dot(held_x, x.T), on_rails, precision="highest")
    kernel = jnp.outer(held_y, held_y) * (close + _dot(seen_edge.T, seen_edge))
    top = jnp.max(jnp.diagonal(kernel))
    if place.size == 1:
        inverse = 1 / jnp.where(kernel > 0, kernel, 1)
    else:
        # Two points in one place leave it open which of them is pulled: the least pulls decide, the flow is the same.
        each, basis = jnp.linalg.eigh(kernel + jnp.diag(jnp.where(used, 0, top)))
        large = each > RIDGE * jnp.finfo(dtype).eps * top
        inverse = _dot(basis * jnp.where(large, 1 / jnp.where(large, each, 1), 0), basis.T)

    whole = jnp.zeros((ORDER + 1, h, x.shape[0]), dtype).at[0].set(edge)
    start = Series(
        jnp.zeros((ORDER + 1, *w.shape), dtype).at[0].set(w),
        jnp.zeros((ORDER + 1, h), dtype).at[0].set(z),
        whole,
        jnp.zeros((ORDER + 1, y.size), dtype).at[0].set(y * _dot(z, on_edge)),
        jnp.zeros((ORDER, place.size), dtype),
    )
    # Z and the edges of the held points backwards, the latest order first: then a convolution is one sum of products.
    back_z = jnp.zeros((ORDER, h), dtype)
    back_edge = jnp.zeros((ORDER, h, place.size), dtype)

    def order(k, carry):
        now, back_z, back_edge = carry
        wk, zk, edge_k = now.w[k], now.z[k], now.edge[k]
        back_z = jnp.concatenate([zk[None], back_z[:-1]])
        back_edge = jnp.concatenate([(sees * edge_k[:, place])[None], back_edge[:-1]])
        # All that is known without u_k, which is still 0 here.
        pulled_z = jnp.sum(back_z[:, :, None] * now.pull[:, None, :], axis=0)  # (z u)_k, [h, held]
        pulled_edge = jnp.sum(back_edge * now.pull[:, None, :], axis=0)
        dw = along(zk[:, None] * force + _dot(sees * pulled_z * held_y, held_x))
        dz = jnp.sum(wk * force, axis=1) + pulled_edge @ held_y
        between = jnp.sum(back_z[:, :, None] * now.edge[1:], axis=0)  # sum over a = 1..k of z_a edge_(k+1-a), [h, n]
        between = (k + 1) * jnp.sum(gate * between, axis=0)

        def rates(dw, dz):
            d_edge = _dot(dw, x.T)
            ends = gate * (z[:, None] * d_edge + dz[:, None] * edge)
            return d_edge, y * (between + jnp.sum(ends, axis=0))

        _, rate = rates(dw * unit, dz * unit)
        found = jnp.where(used, -_dot(inverse, jnp.where(used, rate[place], 0)) / unit, 0)
        dw = (dw + along(z[:, None] * _dot(sees * (found * held_y), held_x))) * unit
        dz = (dz + seen_edge @ (found * held_y)) * unit
        d_edge, rate = rates(dw, dz)
        held = jnp.zeros(y.shape, bool).at[place].max(used)
        now = Series(
            now.w.at[k + 1].set(dw / (k + 1)),
            now.z.at[k + 1].set(dz / (k + 1)),
            now.edge.at[k + 1].set(d_edge / (k + 1)),
            now.margin.at[k + 1].set(jnp.where(held, 0, rate / (k + 1))),
            now.pull.at[k].set(found),
        )
        return now, back_z, back_edge

    return jax.lax.fori_loop(0, ORDER, order, (start, back_z, back_edge))[0]


def value(coefficients: Float[Array, "orders *shape"], t) -> Float[Array, "*shape"]:
    """The polynomial at `t`."""
    powers = jnp.concatenate([jnp.ones(1, coefficients.dtype), jnp.cumprod(jnp.full(coefficients.shape[0] - 1, t))])
    return jnp.tensordot(powers, coefficients, 1, precision="highest")


def _each_at(coefficients: Float[Array, "orders m"], t: Float[Array, " m"]) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
    """Polynomials at times of their own, and their derivatives, by Horner's rule."""
    found, slope = coefficients[-1], jnp.zeros_like(t)
    for order in coefficients[-2::-1]:
        found, slope = found * t + order, slope * t + found
    return found, slope


def slopes(coefficients: Float[Array, "orders *shape"]) -> Float[Array, "orders_less *shape"]:
    """The derivative of a polynomial."""
    order = jnp.arange(1, coefficients.shape[0], dtype=coefficients.dtype)
    return coefficients[1:] * order.reshape(-1, *[1] * (coefficients.ndim - 1))


def longest_step(now: Series, q_held: Float[Array, " held"]) -> Float[Array, ""]:
    """How far the series is good to rounding, in its unit of time: by its last two coefficients, against each neuron, for
    faint ones have digits too, and the pulls."""
    size = jnp.maximum(jnp.max(jnp.abs(now.w[0]), axis=1), jnp.abs(now.z[0]))
    size = jnp.where(size > 0, size, 1)
    eps, tiny = jnp.finfo(now.z.dtype).eps, jnp.finfo(now.z.dtype).tiny

    def good(coefficients, scale, order):
        last = jnp.max(jnp.abs(coefficients[order]) / scale)
        return (eps / jnp.maximum(last, tiny)) ** (1 / order)

    steps = [
        good(leaf, scale, order)
        for leaf, scale, top in ((now.w, size[:, None], ORDER), (now.z, size, ORDER), (now.pull, q_held, ORDER - 1))
        for order in (top - 1, top)
    ]
    return jnp.min(jnp.stack(steps))


def first_root(
    coefficients: Float[Array, "orders m"], slack: Float[Array, " m"]
) -> tuple[Float[Array, ""], Int[Array, ""], Bool[Array, ""]]:
    """The first time in [0, 1] at which one of m polynomials falls through 0 (1: none does), which one it is (-1: none), and
    whether the search came to an end. `slack`: the rounding of each. One that begins at 0 and leaves it does not count."""
    orders = jnp.arange(coefficients.shape[0], dtype=coefficients.dtype)
    bend = jnp.sum((orders * (orders - 1))[:, None] * jnp.abs(coefficients), axis=0)
    eps = jnp.finfo(coefficients.dtype).eps
    noise = SPEED * (eps * jnp.sum(jnp.abs(slopes(coefficients)), axis=0) + slack)

    def look(t):
        gap, rise = _each_at(coefficients, t)
        return Look(gap, -rise, bend, slack, noise)

    times, ended = first_passage(look, jnp.zeros_like(slack), jnp.ones((), slack.dtype), jnp.ones((), slack.dtype))
    first = jnp.min(times)
    which = jnp.where(first < jnp.inf, jnp.argmin(times), -1).astype(jnp.int32)
    return jnp.minimum(first, 1), which, ended


# Margins that stay at 1 for a while, followed by Taylor series from event to event (12.1).
#
# A point whose margin falls with g_i = 0 and rises with g_i = 1 is held at m_i = 1 by the g_i in between for which
# dm_i/dt = 0. `series` has the way of network and pulls then, to rounding; events are the first roots of polynomials:
# edges, the margins of the others, and the pulls of the held points where they come to 0 or q_i. Who is held after an event
# at which pulls jump is for `follow` to say.

# Steps of one call; who needs more is taken up again.
_STEPS = 256


class Slide(NamedTuple):
    """A network in the middle of a slide: its `state`, which of the held places are still `used`, and the steps so far."""

    state: State
    used: Bool[Array, " held"]
    steps: Int[Array, ""]


@partial(jax.vmap, in_axes=(0, None, None, 0))
def slide(state: State, task: Task, most: int, rails: Rails | None) -> State:
    """A batch of states [b] that hold between one and `most` margins, and edges if there are `rails`, followed until none is
    held any more, pulls have to be worked out anew (`Stop.UNDECIDED`), or the log is full."""
    x, y, q, slope = task[:4]
    n, h = y.size, state.z.size
    dtype = state.z.dtype
    eps = jnp.finfo(dtype).eps
    same = on_one_line(x)
    place = jnp.nonzero(state.held & ~state.tied, size=most, fill_value=n - 1)[0]
    ties = jnp.any(state.tied)
    size = jnp.linalg.norm(x, axis=1)
    # No force is larger than this.
    fastest = q @ size
    unit = 1 / jnp.where(fastest > 0, fastest, 1)

    def go_on(slide: Slide):
        state = slide.state
        return (state.stop == Stop.RUNNING) & (state.count < LOG) & jnp.any(slide.used) & (slide.steps < _STEPS)

    def advance(slide: Slide) -> Slide:
        state, used = slide.state, slide.used
        pull = jnp.where(state.live, q, 0)
        gate = gates(state.active, slope)
        now = series(state.w, state.z, gate, pull, place, used, x, y, unit, rails)
        share = jnp.where(used, now.pull[0] / q[place], 0.5)
        # Within rounding of 0 and 1 the search below sees what happens; beyond it the pulls have jumped.
        tolerance = JUMP * jnp.sqrt(eps)
        jumped = jnp.any((share < -tolerance) | (share > 1 + tolerance))
        # Nobody pushes any more: what held the margins is gone, and no event would ever tell.
        early = jnp.max(jnp.abs(now.pull[:3]), axis=0) / q[place]
        jumped = jumped | ~jnp.any(used & (early > PULL * eps))
        until = next_time(state, task) - state.time
        longest = longest_step(now, q[place]) * unit
        span = jnp.minimum(longest, until)
        now = _stretched(now, span / unit)
        gaps, slack = _gaps(now, state, gate, used, place, q)
        if rails is not None:
            more, its_slack = _rail_gaps(now, state, used, place, task, rails)
            jumped = jumped | jnp.any(more[0] < -tolerance)
            gaps, slack = jnp.concatenate([gaps, more], axis=1), jnp.concatenate([slack, its_slack])
        t, which, ended = first_root(gaps, slack)
        waiting = jnp.any(state.waiting)
        which = jnp.where(waiting, jnp.argmax(state.waiting.reshape(-1)), which)
        t = jnp.where(waiting | jumped, 0, t)
        hit = (which >= 0) & ~jumped
        complete = ~hit & ~jumped & (until <= longest)
        moved = state._replace(
            w=value(now.w, t),
            z=value(now.z, t),
            time=jnp.where(complete, next_time(state, task), state.time + t * span),
            leaving=state.leaving & (t <= 0),
            parting=state.parting & (t <= 0),
        )
        moved = recorded(moved, complete, task)

        rail = which - h * n - 3 * n
        is_rail = hit & (rail >= 0)  # a share at its lower bound, one at its upper, or z_j at 0
        bound, on_rail = jnp.divmod(rail, h * n)
        turned = is_rail & (bound == 2)
        is_edge = hit & (which < h * n)
        place_of_edge = jnp.where(is_rail, on_rail, jnp.clip(which, 0, h * n - 1))
        j, i = jnp.unravel_index(place_of_edge, (h, n))
        part, number = jnp.divmod(which - h * n, n)  # margins, pulls at 0, pulls at q
        spot = place[jnp.minimum(number, most - 1)]
        is_margin = hit & ~is_edge & ~is_rail & (part == 0)
        is_pull = hit & ~is_edge & ~is_rail & (part > 0)
        # The same edge once more at the same moment: either side leads back to it. So do edges that others may depend on.
        crossed = state.crossed & (t * span <= MOMENT * eps * state.time)
        # So do those of points of both labels, one of which is held: they may attract and repel (16.4).
        line = same[i] & (size > 0)
        mixed = jnp.any(line & state.held) & jnp.any(line & (y > 0)) & jnp.any(line & (y < 0))
        mine = now.edge[:, j]
        reach = size * (jnp.linalg.norm(moved.w[j]) + jnp.abs(moved.z[j]))
        edge, speed = value(mine, t), value(slopes(mine), t)
        active, waiting_now, meets = passed(state.active, state.waiting, j, i, edge, speed, reach, same)
        undecided_edge = is_edge & (jnp.any(state.glides[j]) | crossed[j, i] | mixed | meets)
        crossed = crossed.at[j, i].set(crossed[j, i] | is_edge)
        is_edge = is_edge & ~undecided_edge
        point = jnp.where(is_edge | is_rail, i, jnp.where(is_pull, spot, number))
        wakes = ~state.active[j, i]
        kind = jnp.where(is_edge, jnp.where(wakes, EventKind.WAKES, EventKind.SLEEPS), EventKind.FORGOTTEN)
        kind = jnp.where(is_margin & state.live[point], EventKind.LEARNT, kind)
        kind = jnp.where(is_pull & (part == 1), EventKind.FREED, kind)
        kind = jnp.where(turned, EventKind.REPELS, kind)
        # Where margins are tied another pull may take over: whether this one has left 1 is not known yet.
        told = is_edge | is_margin | is_pull & ~ties | turned
        moved = noted(moved, told, moved.time, kind, jnp.where(is_edge | turned, j, -1), point)

        active, waiting_now = jnp.where(is_edge, active, state.active), jnp.where(is_edge, waiting_now, state.waiting)

        freed = is_pull & (jnp.arange(most) == number)
        forgotten = is_pull & (part == 2)
        live = state.live.at[point].set(forgotten | (state.live[point] ^ is_margin))
        live = jnp.where(is_pull & ties, state.live, live)
        leaving = moved.leaving.at[point].set(moved.leaving[point] | is_pull & ~ties)
        held = state.held.at[point].set(state.held[point] & ~(is_pull & ~ties))
        undecided = jumped | is_margin | undecided_edge | is_rail | is_pull & (ties | jnp.any(state.glides)) | is_edge & ties
        stop = jnp.where(undecided & (moved.stop == Stop.RUNNING), Stop.UNDECIDED, moved.stop)
        stop = jnp.where(turned & (stop == Stop.UNDECIDED), Stop.OPEN, stop)
        stop = jnp.where(ended & (longest > 0) | jumped | waiting, stop, Stop.LOST)
        moved = moved._replace(
            arriving=jnp.where(undecided_edge | is_rail, place_of_edge, -1).astype(jnp.int32),
            bound=jnp.where(is_rail, bound + 1, 0).astype(jnp.int32),
            crossed=crossed,
            active=active, waiting=waiting_now, live=live, leaving=leaving, held=held, stop=jnp.asarray(stop, jnp.int32)
        )
        return Slide(moved, used & ~freed, slide.steps + 1)

    used, zero = jnp.arange(most) < jnp.sum(state.held & ~state.tied), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(go_on, advance, Slide(emptied(state), used, zero)).state


def _stretched(now: Series, unit) -> Series:
    """`now` in a unit of time that is `unit` times as long."""
    powers = jnp.concatenate([jnp.ones(1, now.z.dtype), jnp.cumprod(jnp.full(ORDER, unit))])

    def stretch(leaf):
        return leaf * powers[: leaf.shape[0]].reshape(-1, *[1] * (leaf.ndim - 1))

    return Series(*(stretch(leaf) for leaf in now))


def _gaps(now: Series, state: State, gate, used, place, q) -> tuple[Array, Array]:
    """What is > 0 while there is no event, as polynomials [N + 1, h n + 3 n]: edges, margins, g_i and 1 - g_i of the held
    points; and the rounding of each."""
    n, h = q.size, state.z.size
    eps = jnp.finfo(now.z.dtype).eps
    # An edge in units of its neuron: a network of 1e-160 has events too.
    reach = jnp.max(jnp.abs(now.edge[0]), axis=1, keepdims=True) + jnp.abs(state.z)[:, None]
    edges = now.edge * jnp.where(state.active, 1, -1) / jnp.where(reach > 0, reach, 1)
    edges = edges.at[:2].set(jnp.where(state.parting, jnp.maximum(edges[:2], 0), edges[:2]))
    idle = jnp.zeros(n, now.z.dtype)
    one = jnp.zeros((ORDER + 1, 1), now.z.dtype).at[0].set(1)
    edges = jnp.where(state.glides, one[:, None], edges)
    margins = (one - now.margin) * jnp.where(state.live, 1, -1)
    held = idle.astype(bool).at[place].max(used)
    # Those that leave 1 do so tangentially, to their side, whatever rounding makes of their first moments.
    leaving = state.leaving & (jnp.abs(margins[0]) <= AT_ONE * eps)
    margins = margins.at[:2].set(jnp.where(leaving, jnp.maximum(margins[:2], 0), margins[:2]))
    margins = jnp.where(held | state.tied, one, margins)
    shares = jnp.concatenate([now.pull, jnp.zeros_like(now.pull[:1])]) / q[place]
    rest = jnp.tile(one, (1, n - place.size))
    down, up = jnp.where(used, shares, one), jnp.where(used, one - shares, one)
    size = jnp.sum(gate * jnp.abs(now.edge[0] * state.z[:, None]), axis=0)
    slack = [jnp.full(h * n, SUM * eps), SUM * eps * (1 + size), jnp.full(2 * n, PULL * eps)]
    return jnp.concatenate([edges.reshape(ORDER + 1, -1), margins, down, rest, up, rest], axis=1), jnp.concatenate(slack)


def _rail_gaps(now: Series, state: State, used, place, task: Task, rails: Rails) -> tuple[Array, Array]:
    """The same of held edges, [N + 1, 3 h n]: how far the push of an edge is above its lower bound and below its upper, both
    in units of the pull of its line, and z_j on its side of 0. The bounds are the pushes of the points of the line that are
    active on either side."""
    x, y, q, slope = task[:4]
    eps = jnp.finfo(now.z.dtype).eps
    scale = jnp.sum(x**2, axis=1)
    along = jnp.where(on_one_line(x), _dot(x, x.T) / jnp.where(scale > 0, scale, 1)[:, None], 0)  # x_k in units of x_i
    pull = jnp.zeros((ORDER + 1, q.size), now.z.dtype).at[0].set(jnp.where(state.live, q, 0))
    pull = pull.at[:ORDER, place].add(jnp.where(used, now.pull, 0))
    ahead, behind = jnp.maximum(along, 0), jnp.minimum(along, 0)
    above, below = (_dot(pull * y, part.T) for part in (ahead + slope * behind, behind + slope * ahead))
    upper = jnp.where(above[0] >= below[0], 1, -1)
    low, high = jnp.where(upper > 0, below, above), jnp.where(upper > 0, above, below)
    others = jnp.where(state.glides, 0, gates(state.active, slope))
    force = jnp.einsum("ki,hi,id->khd", pull * y, others, x, precision="highest")
    push = (-jnp.einsum("hnd,khd->khn", rails.dual, force, precision="highest")).at[0].add(rails.offset)
    unit = _dot(jnp.abs(along), q)
    there = jnp.any(rails.dual != 0, axis=2)
    one = jnp.zeros((ORDER + 1, 1, 1), now.z.dtype).at[0].set(1)
    size = jnp.max(jnp.abs(now.edge[0]), axis=1) + jnp.abs(state.z)
    turn = (now.z * jnp.where(state.z < 0, -1, 1) / jnp.where(size > 0, size, 1))[:, :, None]
    gaps = [(push - low[:, None]) / unit, (high[:, None] - push) / unit, jnp.broadcast_to(turn, push.shape)]
    gaps = jnp.concatenate([jnp.where(there, gap, one).reshape(ORDER + 1, -1) for gap in gaps], axis=1)
    return gaps, jnp.full(gaps.shape[1], PULL * eps)


# Who is held, and from event to event.

# Calls of `slide` without an event after which nothing is expected to come.
MOST_IDLE = 20
# Networks that one program follows at a time. More of them wait for each other longer than they gain, and every other
# number is another program to compile.
CHUNK, SMALL = 64, 8
# Room for held margins beside a single one, as every other number is another program to compile.
FEW = 8
# Rows of records at least: the end of a run and a curve of up to so many times are one program then. Of many networks all
# of these rows would take too much memory.
ROWS, MOST_NUMBERS = 64, 2**21
# Pairs of a neuron and a point from which on networks are followed one by one, and `ahead` is asked first.
WIDE = 2048
# Edges that one of two calls of `ahead` has to pass for another one to take less time than `run` would.
WORTH = 4


class EventLog(NamedTuple):
    """Events of many networks as they came: the number of the network, time, kind, neuron, point, [events] each."""

    network: np.ndarray
    time: np.ndarray
    kind: np.ndarray
    neuron: np.ndarray
    point: np.ndarray


class Programs(NamedTuple):
    """`run`, `slide` and `ahead` as they are compiled."""

    run: Callable[..., State]
    slide: Callable[..., State]
    ahead: Callable[..., Any]


@cache
def _programs(wide: bool, small: bool) -> Programs:
    """The programs of many networks, or of one that is `wide`: without a batch, which costs a quarter of the compilation.
    XLA takes half of its own time for them, and they run as fast; where one network has `small` arrays its `run`, which is
    called a few times, takes a fifth, and runs twice as long."""
    options = quick_to_compile()
    slides = jax.jit(slide, static_argnums=2, compiler_options=options)
    if not wide:
        return Programs(jax.jit(run, compiler_options=options), slides, jax.jit(ahead, compiler_options=options))
    runs = jax.jit(_of_one(run), compiler_options=quickest_to_compile() if small else options)
    return Programs(runs, slides, jax.jit(_of_one(ahead), compiler_options=options))


def _of_one(program: Any) -> Callable[..., Any]:
    """`program`, which is mapped over a batch of states, for a batch of one."""

    @wraps(program)
    def answer(state: State, task: Task, *more: Array) -> Any:
        first, *others = jax.tree.map(lambda leaf: leaf[0], (state, *more))
        return jax.tree.map(lambda leaf: leaf[None], program.__wrapped__(first, task, *others))

    return answer


def follow(
    data: Dataset, networks: Any, times: np.ndarray, room: int, keep: bool, advance: Callable[[int], None]
) -> tuple[State, EventLog]:
    """A batch of networks [b] through segments and slides to the last of the rising `times`, the last of which may be inf,
    or to where they cannot be followed; and their events, those of one network in order. At most `room` events each;
    `keep` whether networks are recorded too. `advance` gets how many networks are through."""
    many = len(networks.z) * ROWS * data.size > MOST_NUMBERS
    task = as_task(data, networks, times, 4 if keep or many else ROWS)
    state, told = _followed(begin(networks, task, room, keep), task, Judge(data, networks.slope), advance)
    seen, weights = jax.tree.map(lambda leaf: np.asarray(leaf)[:, : times.size], (state.seen, state.weights))
    return state._replace(seen=seen, weights=weights), told


def visits(data: Dataset, networks: Any, times: np.ndarray, room: int) -> Iterator[State]:
    """The states of a batch of networks [b] at each of the rising `times`, by the programs that follow them to one."""
    judge, state = Judge(data, networks.slope), None
    for time in times:
        task = as_task(data, networks, np.asarray(time, networks.dtype).reshape(1), 4)
        if state is None:
            state = begin(networks, task, room, False)
        else:
            again = jnp.where(state.stop == Stop.DONE, jnp.int32(Stop.RUNNING), state.stop)
            state = state._replace(stop=again, record=jnp.zeros_like(state.record))
        state, _ = _followed(state, task, judge, lambda _: None)
        yield state


def as_task(data: Dataset, networks: Any, times: np.ndarray, least: int) -> Task:
    """What the networks have in common, with `least` rows of records or more."""
    # Few numbers of rows, as each is another program to compile.
    rows = max(least, 4 ** math.ceil(math.log(times.size, 4)))
    padded = np.concatenate([times, np.full(rows - times.size, times[-1])])
    shared = data.points, data.labels, data.weights, jnp.asarray(networks.slope, networks.dtype)
    return Task(*shared, jnp.asarray(padded), jnp.asarray(times.size, jnp.int32))


def _followed(state: State, task: Task, judge: Judge, advance: Callable[[int], None]) -> tuple[State, EventLog]:
    """States [b] to their last records or to where they cannot be followed, and their events."""
    n, h = task.y.size, state.z.shape[-1]
    wide = h * n >= WIDE
    run, slide, ahead = _programs(wide, h * n <= MANY)
    size = 1 if wide else SMALL if len(state.stop) <= SMALL else CHUNK
    told = [EventLog(np.zeros(0, int), np.zeros(0, state.z.dtype), *(np.zeros(0, np.int32) for _ in range(3)))]
    if not np.asarray(state.time).any():
        state, open_ways = judge.starts(state)
        if open_ways:
            tell(told, open_ways)
            state = _with_starts(state, task)
    idle = np.zeros(len(state.stop), int)
    # The time in which the strongest force could turn a neuron, by which `ahead` begins.
    span = 1 / max(float(np.abs(judge.q @ judge.size)), 1e-300)
    while True:
        stop, held = np.asarray(state.stop), (np.asarray(state.held) & ~np.asarray(state.tied)).sum(1)
        undecided = np.flatnonzero(stop == Stop.UNDECIDED)
        if undecided.size:
            state = judge.decided(state, undecided, told)
            continue
        running = stop == Stop.RUNNING
        advance(int((~running).sum()))
        if not running.any():
            return state, EventLog(*map(np.concatenate, zip(*told, strict=True)))
        # All are sent on their way before anybody is waited for, so that they share the processor.
        sent = []
        gliding = (held > 0) & np.asarray(state.glides).any((1, 2))
        for most, on_edges in sorted(set(zip(_slots(held[running]), gliding[running], strict=True))):
            mine = running & (_slots(held) == most) & (gliding == on_edges)
            for part, padded in _chunks(np.flatnonzero(mine), size):
                start = _taken(state, padded) if len(stop) > 1 or len(padded) > 1 else state
                if most == 0 and wide:
                    start = _gone_ahead(ahead, start, part, task, span, told)
                rails = Rails(*map(jnp.asarray, judge.rails(start))) if on_edges else None
                room_held = int(most) if most == 1 and not on_edges else min(max(int(most), FEW), n)
                after = run(start, task) if most == 0 else slide(start, task, room_held, rails)
                sent.append((part, padded, after))
        before = np.asarray(state.record)
        for part, padded, after in sent:
            told.append(_told(after, part))
            # Many steps without an event or a record: a limit that is approached for ever.
            nothing = (np.asarray(after.count) == 0) & (np.asarray(after.record) == before[padded])
            idle[part] = np.where(nothing[: part.size], idle[part] + 1, 0)
            lost = (idle[padded] > MOST_IDLE) & (np.asarray(after.stop) == Stop.RUNNING)
            if lost.any():
                after = after._replace(stop=jnp.where(lost, jnp.int32(Stop.LOST), after.stop))
            state = _put(state, jnp.asarray(padded), after) if len(stop) > 1 or len(padded) > 1 else after


def _gone_ahead(ahead: Any, start: State, part: np.ndarray, task: Task, first: float, told: list[EventLog]) -> State:
    """`start` as far ahead as many edges are passed at once; they are told."""
    span, few = jnp.full(start.time.shape, first, start.z.dtype), 0
    while few < 2 and np.asarray(span).any():
        start, log, span = ahead(start, task, span)
        time, point, wakes, count = (np.asarray(leaf)[: part.size] for leaf in log)
        b, j, place = np.nonzero(np.arange(time.shape[-1]) < count[..., None])
        order = np.lexsort((time[b, j, place], b))
        b, j, place = b[order], j[order], place[order]
        kind = np.where(wakes[b, j, place], EventKind.WAKES, EventKind.SLEEPS).astype(np.int32)
        told.append(EventLog(part[b], time[b, j, place], kind, j.astype(np.int32), point[b, j, place]))
        few = few + 1 if b.size < WORTH * part.size else 0
    return start


def _chunks(which: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """`which` in parts, and each part filled up to `size` with copies of its first."""
    for first in range(0, which.size, size):
        part = which[first : first + size]
        yield part, np.concatenate([part, np.full(size - part.size, part[0])])


def _slots(held: np.ndarray) -> np.ndarray:
    """Room for so many held margins: none, 1, 4, 16, ..."""
    return np.where(held > 0, 4 ** np.ceil(np.log(np.maximum(held, 1)) / np.log(4) - 1e-9).astype(int), 0)


@jax.jit
def _with_starts(state: State, task: Task) -> State:
    """States [b] at time 0, those that stop there with their records of it."""
    rows = (task.times <= 0) & (jnp.arange(task.times.size) < task.records)

    def put(one: State) -> State:
        made = recorded(one._replace(record=jnp.zeros_like(one.record)), one.stop != Stop.RUNNING, task)

        def all_rows(whole, new):
            first = rows.reshape(-1, *[1] * (whole.ndim - 1)) & (one.stop != Stop.RUNNING)
            return jnp.where(first, new[0], whole)

        weights = None if one.weights is None else jax.tree.map(all_rows, one.weights, made.weights)
        return one._replace(seen=all_rows(one.seen, made.seen), weights=weights)

    return jax.vmap(put)(state)


@jax.jit
def _taken(state: State, index: Any) -> State:
    return jax.tree.map(lambda leaf: leaf[index], state)


@jax.jit
def _put(state: State, index: Any, part: State) -> State:
    return jax.tree.map(lambda whole, new: whole.at[index].set(new), state, part)


def _told(after: State, which: np.ndarray) -> EventLog:
    """The logs of the first networks of `after`, which are those of number `which`."""
    log = [np.asarray(leaf)[: which.size] for leaf in after.log]
    count = np.asarray(after.count)[: which.size]
    there = np.arange(log[0].shape[1]) < count[:, None]
    network = np.broadcast_to(which[:, None], there.shape)[there]
    return EventLog(network, *(leaf[there] for leaf in log))
