"""Margins that stay at 1 for a while, followed by Taylor series from event to event (12.1).

A point whose margin falls with g_i = 0 and rises with g_i = 1 is held at m_i = 1 by the g_i in between for which
dm_i/dt = 0. `hinge_series` has the way of network and pulls then, to rounding; events are the first roots of polynomials:
edges, the margins of the others, and the pulls of the held points where they come to 0 or q_i. Who is held after an event
at which pulls jump is for `hinge_follow` to say.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from gradstarve.simulation.hinge._hinge_series import ORDER, Series, first_root, longest_step, series, slopes, value
from gradstarve.simulation.hinge._run import LOG, Kind, State, Stop, Task, emptied, next_time, noted, on_one_line, recorded

# Steps of one call; who needs more is taken up again.
_STEPS = 256


class Slide(NamedTuple):
    """A network in the middle of a slide: its `state`, which of the held places are still `used`, the edge passed last
    (-1: none since the clock moved), and the steps so far."""

    state: State
    used: Bool[Array, " held"]
    edge: Int[Array, ""]
    steps: Int[Array, ""]


@partial(jax.vmap, in_axes=(0, None, None))
def slide(state: State, task: Task, most: int) -> State:
    """A batch of states [b] that hold between one and `most` margins, followed until none is held any more, pulls have to
    be worked out anew (`Stop.MARGIN_SLIDES`), or the log is full."""
    x, y, q = task[:3]
    n, h = y.size, state.z.size
    dtype = state.z.dtype
    eps = jnp.finfo(dtype).eps
    same = on_one_line(x)
    place = jnp.nonzero(state.held, size=most, fill_value=n - 1)[0]
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
        now = series(state.w, state.z, state.active, pull, place, used, x, y, unit)
        share = jnp.where(used, now.pull[0] / q[place], 0.5)
        # Within rounding of 0 and 1 the search below sees what happens; beyond it the pulls have jumped.
        tolerance = 64 * jnp.sqrt(eps)
        jumped = jnp.any((share < -tolerance) | (share > 1 + tolerance))
        # Nobody pushes any more: what held the margins is gone, and no event would ever tell.
        early = jnp.max(jnp.abs(now.pull[:3]), axis=0) / q[place]
        jumped = jumped | ~jnp.any(used & (early > 256 * eps))
        until = next_time(state, task) - state.time
        longest = longest_step(now, q[place]) * unit
        span = jnp.minimum(longest, until)
        now = _stretched(now, span / unit)
        gaps, slack = _gaps(now, state, used, place, q)
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
        )
        moved = recorded(moved, complete, task)

        is_edge = hit & (which < h * n)
        j, i = jnp.unravel_index(jnp.clip(which, 0, h * n - 1), (h, n))
        part, number = jnp.divmod(which - h * n, n)  # margins, pulls at 0, pulls at q
        spot = place[jnp.minimum(number, most - 1)]
        is_margin = hit & ~is_edge & (part == 0)
        is_pull = hit & ~is_edge & (part > 0)
        point = jnp.where(is_edge, i, jnp.where(is_pull, spot, number))
        wakes = ~state.active[j, i]
        kind = jnp.where(is_edge, jnp.where(wakes, Kind.WAKES, Kind.SLEEPS), Kind.FORGOTTEN)
        kind = jnp.where(is_margin & state.live[point], Kind.LEARNT, kind)
        kind = jnp.where(is_pull & (part == 1), Kind.FREED, kind)
        moved = noted(moved, hit, moved.time, kind, jnp.where(is_edge, j, -1), point)

        # Opposite points have one edge, and who leaves one of them passes to the other.
        mine = now.edge[:, j]
        edge, speed = value(mine, t), value(slopes(mine), t)
        reach = size * (jnp.linalg.norm(moved.w[j]) + jnp.abs(moved.z[j]))
        touching = (same[i] | (jnp.abs(edge) <= 64 * eps * reach)) & (speed * jnp.where(state.active[j], -1, 1) > 0)
        fresh = state.waiting.at[j].set(state.waiting[j] | touching & ~waiting)
        waiting_now = jnp.where(is_edge, fresh.at[j, i].set(False), state.waiting)
        active = state.active.at[j, i].set(jnp.where(is_edge, wakes, state.active[j, i]))
        # The same edge once more at the same moment: either side leads back to it.
        edge_slides = is_edge & (which == slide.edge) & (t * span <= 4 * eps * state.time)

        freed = is_pull & (jnp.arange(most) == number)
        forgotten = is_pull & (part == 2)
        live = state.live.at[point].set(forgotten | (state.live[point] ^ is_margin))
        leaving = moved.leaving.at[point].set(moved.leaving[point] | is_pull)
        held = state.held.at[point].set(state.held[point] & ~is_pull)
        stop = jnp.where((jumped | is_margin) & (moved.stop == Stop.RUNNING), Stop.MARGIN_SLIDES, moved.stop)
        stop = jnp.where(edge_slides, Stop.EDGE_SLIDES, stop)
        stop = jnp.where(ended & (longest > 0) | jumped | waiting, stop, Stop.LOST)
        moved = moved._replace(
            active=active, waiting=waiting_now, live=live, leaving=leaving, held=held, stop=jnp.asarray(stop, jnp.int32)
        )
        last = jnp.where(is_edge, which, jnp.where(t * span > 0, -1, slide.edge))
        return Slide(moved, used & ~freed, jnp.asarray(last, jnp.int32), slide.steps + 1)

    used, zero = jnp.arange(most) < jnp.sum(state.held), jnp.zeros((), jnp.int32)
    first = Slide(emptied(state), used, zero - 1, zero)
    return jax.lax.while_loop(go_on, advance, first).state


def _stretched(now: Series, unit) -> Series:
    """`now` in a unit of time that is `unit` times as long."""
    powers = jnp.concatenate([jnp.ones(1, now.z.dtype), jnp.cumprod(jnp.full(ORDER, unit))])

    def stretch(leaf):
        return leaf * powers[: leaf.shape[0]].reshape(-1, *[1] * (leaf.ndim - 1))

    return Series(*(stretch(leaf) for leaf in now))


def _gaps(now: Series, state: State, used, place, q) -> tuple[Array, Array]:
    """What is > 0 while there is no event, as polynomials [N + 1, h n + 3 n]: edges, margins, g_i and 1 - g_i of the held
    points; and the rounding of each."""
    n, h = q.size, state.z.size
    eps = jnp.finfo(now.z.dtype).eps
    # An edge in units of its neuron: a network of 1e-160 has events too.
    reach = jnp.max(jnp.abs(now.edge[0]), axis=1, keepdims=True) + jnp.abs(state.z)[:, None]
    edges = now.edge * jnp.where(state.active, 1, -1) / jnp.where(reach > 0, reach, 1)
    idle = jnp.zeros(n, now.z.dtype)
    one = jnp.zeros((ORDER + 1, 1), now.z.dtype).at[0].set(1)
    margins = (one - now.margin) * jnp.where(state.live, 1, -1)
    held = idle.astype(bool).at[place].max(used)
    # Those that leave 1 do so tangentially, to their side, whatever rounding makes of their first moments.
    leaving = state.leaving & (jnp.abs(margins[0]) <= 1e4 * eps)
    margins = margins.at[:2].set(jnp.where(leaving, jnp.maximum(margins[:2], 0), margins[:2]))
    margins = jnp.where(held, one, margins)
    shares = jnp.concatenate([now.pull, jnp.zeros_like(now.pull[:1])]) / q[place]
    rest = jnp.tile(one, (1, n - place.size))
    down, up = jnp.where(used, shares, one), jnp.where(used, one - shares, one)
    size = jnp.sum(jnp.where(state.active, jnp.abs(now.edge[0] * state.z[:, None]), 0), axis=0)
    slack = [jnp.full(h * n, 8 * eps), 8 * eps * (1 + size), jnp.full(2 * n, 256 * eps)]
    return jnp.concatenate([edges.reshape(ORDER + 1, -1), margins, down, rest, up, rest], axis=1), jnp.concatenate(slack)
