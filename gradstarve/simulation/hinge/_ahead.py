"""Wide networks: all edges that neurons pass before any margin can come to 1, at once (12.1).

While pulls do not change neurons do not see each other. So each goes its own way from edge to edge, all of them side by
side, up to one time; and what they can have done to each margin on their ways, at most, has to be less than what it is
away from 1. Where it is not, the time is cut, and `_run` takes the last events one by one.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from gradstarve.simulation.hinge._passage import gates, on_one_line, passed
from gradstarve.simulation.hinge._run import State, Stop, Task, next_time, outputs
from gradstarve.simulation.hinge._segment import edge_times, gained, segment, turn_times

# Edges that one neuron passes in one call; a neuron with more of them stops all.
EACH = 6
# Times that the span is cut before `run` is asked, and by what.
_CUTS, _CUT = 8, 0.25


class Ways(NamedTuple):
    """Neurons on their ways, each at its own `clock` [h]: what changes, what each margin can have changed by, [n], the edges
    passed in their order, [h, EACH], how many [h], and when the first neuron came to what `run` has to see."""

    w: Float[Array, "h d"]
    z: Float[Array, " h"]
    active: Bool[Array, "h n"]
    waiting: Bool[Array, "h n"]
    crossed: Bool[Array, "h n"]
    clock: Float[Array, " h"]
    change: Float[Array, " n"]
    times: Float[Array, "h each"]
    points: Int[Array, "h each"]
    wakes: Bool[Array, "h each"]
    count: Int[Array, " h"]
    stopped: Float[Array, ""]
    moving: Bool[Array, ""]


@partial(jax.vmap, in_axes=(0, None, 0))
def ahead(state: State, task: Task, span: Float[Array, ""]) -> tuple[State, Any, Float[Array, ""]]:
    """Running states [b] some time of up to `span` later; the edges passed (`times`, `points`, `wakes`, [b, h, EACH], and
    `count`); and the span to try next. A state that cannot go ahead is as it was, and its next span is 0."""
    x, y, q, slope = task[:4]
    size, same = jnp.linalg.norm(x, axis=1), on_one_line(x)
    pull = q * y * state.live
    margins = y * outputs(state.w, state.z, gates(state.active, slope), x)
    room = jnp.maximum(jnp.where(state.live, 1 - margins, margins - 1), 0)
    until = next_time(state, task) - state.time
    span = jnp.minimum(span, until)
    one_row = jax.vmap(passed, in_axes=(0, 0, None, 0, 0, 0, 0, None))

    def step(ways: Ways, limit) -> Ways:
        gate = gates(ways.active, slope)
        now = segment(ways.w, ways.z, gate + (1 - slope) * state.share, pull, x, state.glides)
        edges = jnp.where(ways.waiting, 0, edge_times(now, ways.active))
        on_edges = jnp.any(state.glides, axis=1)
        edges = jnp.where(state.glides, jnp.where(on_edges, turn_times(now), jnp.inf)[:, None], edges)
        edges = jnp.where(jnp.any(ways.waiting, axis=1, keepdims=True) & ~ways.waiting, jnp.inf, edges)
        i, first = jnp.argmin(edges, axis=1), jnp.min(edges, axis=1)
        goes = ways.clock + first < limit
        lapse = jnp.where(goes, first, limit - ways.clock)
        da, dz = gained(now.rate, now.along, now.z, lapse)
        w, z = now.w + da[:, None] * now.force, now.z + dz

        # |d(z p)/dt| <= rho (|a p| + z^2 |lean|), with |z|, |a| <= (|a| + |z|) e^tau on the way.
        tau = (now.rate * lapse)[:, None]
        most = (jnp.abs(now.along) + jnp.abs(now.z))[:, None] * jnp.exp(tau)
        lean = jnp.abs(now.lean)
        change = tau * most * (jnp.abs(now.edge) + lean * most * tau + lean * most)
        change = ways.change + jnp.sum(gate * change, axis=0)

        # The edge of each neuron, as in `run`.
        row = jnp.arange(z.size)
        wakes = ~ways.active[row, i]
        pre = jnp.einsum("hd,nd->hn", w, x, precision="highest")
        reach = size * (jnp.linalg.norm(w, axis=1) + jnp.abs(z))[:, None]
        speed = now.z[:, None] * now.lean
        first_row = jnp.zeros((), jnp.int32)
        active, waiting, meets = one_row(ways.active[:, None], ways.waiting[:, None], first_row, i, pre, speed, reach, same)
        active, waiting = active[:, 0], waiting[:, 0]
        force = jnp.einsum("hn,nd->hd", gates(active, slope) * pull, x, precision="highest")
        push = jnp.where(z != 0, z, jnp.sum(w * force, axis=1))
        drift = push * jnp.sum(force * x[i], axis=1) * jnp.where(wakes, 1, -1)
        crossed = ways.crossed & (lapse <= 0)[:, None]
        unclear = on_edges | crossed[row, i] | meets | (drift < 0) & ~jnp.any(waiting, axis=1) | (ways.count >= EACH)
        stopped = jnp.minimum(ways.stopped, jnp.min(jnp.where(goes & unclear, ways.clock + first, jnp.inf)))
        goes = goes & ~unclear
        place = jnp.where(goes, ways.count, EACH)

        def put(whole, value):
            return whole.at[row, place].set(value, mode="drop")

        return Ways(
            *(w, z, jnp.where(goes[:, None], active, ways.active), waiting & goes[:, None]),
            crossed.at[row, i].set(crossed[row, i] | goes),
            jnp.where(goes, ways.clock + lapse, limit),
            change,
            *(put(ways.times, ways.clock + lapse), put(ways.points, i.astype(jnp.int32)), put(ways.wakes, wakes)),
            ways.count + goes,
            stopped,
            jnp.any(goes),
        )

    h, n = state.active.shape
    dtype = state.z.dtype
    start = Ways(
        *(state.w, state.z, state.active, state.waiting, state.crossed, jnp.zeros(h, dtype), jnp.zeros(n, dtype)),
        *(jnp.zeros((h, EACH), dtype), jnp.zeros((h, EACH), jnp.int32), jnp.zeros((h, EACH), bool)),
        *(jnp.zeros(h, jnp.int32), jnp.asarray(jnp.inf, dtype), jnp.asarray(True)),
    )

    def attempt(carry):
        _, limit, _, cuts = carry
        ways = jax.lax.while_loop(lambda ways: ways.moving & (ways.stopped >= limit), lambda ways: step(ways, limit), start)
        good = jnp.all(ways.change <= room) & (ways.stopped >= limit) & (jnp.sum(ways.count) <= state.left)
        cut = jnp.where(ways.stopped < limit, ways.stopped, _CUT * limit)
        return ways, jnp.where(good, limit, cut), good, cuts + 1

    runs = (state.stop == Stop.RUNNING) & (span > 0) & jnp.isfinite(span) & ~jnp.any(state.leaving)
    first = (start, span, jnp.asarray(False), jnp.zeros((), jnp.int32))
    ways, limit, good, _ = jax.lax.while_loop(lambda c: runs & ~c[2] & (c[3] < _CUTS) & (c[1] > 0), attempt, first)

    def chosen(new, old):
        return jnp.where(good, new, old)

    count = jnp.where(good, ways.count, 0)
    after = state._replace(
        w=chosen(ways.w, state.w),
        z=chosen(ways.z, state.z),
        active=chosen(ways.active, state.active),
        waiting=chosen(ways.waiting, state.waiting),
        crossed=state.crossed & ~good,
        parting=state.parting & ~good,
        time=chosen(jnp.where(limit == until, next_time(state, task), state.time + limit), state.time),
        left=state.left - jnp.sum(count, dtype=jnp.int32),
    )
    return after, (state.time + ways.times, ways.points, ways.wakes, count), jnp.where(good, 2 * limit, 0)
