"""The Taylor series of hinge flow while margins are held at 1, and the first passage of a polynomial (12.1).

With u_i(t) the pulls q_i g_i of the held points and those of the others constant, dw_j/dt = z_j c_j and dz_j/dt = w_j.c_j
with c_j = sum_i [active] u_i y_i x_i. No closed form is known, but all coefficients follow one from the other: those of w
and z of order k + 1 from those up to order k, and those of u of order k from d m_i/dt = 0 on the held points, which is one
linear system with the kernel K_ik = y_i y_k sum_j [both active] (z_j^2 x_i.x_k + (w_j.x_i)(w_j.x_k)) of the first moment.
So edges, margins and pulls are polynomials on the step, whose first root can be bounded, not only sampled.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# A step of 1/e^2 of the radius of convergence meets rounding at this order, which costs least per unit of time in float64.
ORDER = 20
# Steps towards a first root; each is safe, and they close in on it quadratically.
MOST_LOOKS = 500


class Series(NamedTuple):
    """Coefficients in powers of t / unit: `w` [N + 1, h, d], `z` [N + 1, h], `edge` w_j.x_i of all pairs [N + 1, h, n],
    `margin` m_i [N + 1, n], `pull` u_i of the held points [N, held]."""

    w: Float[Array, "orders h d"]
    z: Float[Array, "orders h"]
    edge: Float[Array, "orders h n"]
    margin: Float[Array, "orders n"]
    pull: Float[Array, "orders_less held"]


def _dot(a, b):
    return jnp.matmul(a, b, precision="highest")


def series(
    w: Float[Array, "h d"],
    z: Float[Array, " h"],
    active: Bool[Array, "h n"],
    pull: Float[Array, " n"],
    place: Int[Array, " held"],
    used: Bool[Array, " held"],
    x: Float[Array, "n d"],
    y: Float[Array, " n"],
    unit: Float[Array, ""],
) -> Series:
    """The series from (w, z): `pull` is q_i g_i of the points that are not held, 0 on those that are, which are the `place`
    where `used`; `unit` is the unit of time, some 1 / max |c_j|."""
    h, dtype = z.size, z.dtype
    held_x, held_y = x[place], jnp.where(used, y[place], 0)
    sees = active[:, place] & used  # [h, held]
    force = _dot(active * (pull * y), x)  # of the points below 1, [h, d]
    edge = _dot(w, x.T)
    on_edge = jnp.where(active, edge, 0)

    # The kernel of the held points and its inverse, in the unit of time.
    seen_z, seen_edge = jnp.where(sees, z[:, None], 0), jnp.where(sees, edge[:, place], 0)
    close = _dot(held_x, held_x.T)
    kernel = jnp.outer(held_y, held_y) * (_dot(seen_z.T, seen_z) * close + _dot(seen_edge.T, seen_edge))
    # Two points in one place leave it open which of them is pulled; a trace of a ridge decides, the flow is the same.
    ridge = 1e2 * jnp.finfo(dtype).eps * jnp.max(jnp.diagonal(kernel))
    kernel = kernel + jnp.diag(jnp.where(used, ridge, 1))
    inverse = 1 / kernel if place.size == 1 else jnp.linalg.inv(kernel)

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
        back_edge = jnp.concatenate([jnp.where(sees, edge_k[:, place], 0)[None], back_edge[:-1]])
        # All that is known without u_k, which is still 0 here.
        pulled_z = jnp.sum(back_z[:, :, None] * now.pull[:, None, :], axis=0)  # (z u)_k, [h, held]
        pulled_edge = jnp.sum(back_edge * now.pull[:, None, :], axis=0)
        dw = zk[:, None] * force + _dot(jnp.where(sees, pulled_z, 0) * held_y, held_x)
        dz = jnp.sum(wk * force, axis=1) + pulled_edge @ held_y
        between = jnp.sum(back_z[:, :, None] * now.edge[1:], axis=0)  # sum over a = 1..k of z_a edge_(k+1-a), [h, n]
        between = (k + 1) * jnp.sum(jnp.where(active, between, 0), axis=0)

        def rates(dw, dz):
            d_edge = _dot(dw, x.T)
            ends = jnp.where(active, z[:, None] * d_edge + dz[:, None] * edge, 0)
            return d_edge, y * (between + jnp.sum(ends, axis=0))

        _, rate = rates(dw * unit, dz * unit)
        found = jnp.where(used, -_dot(inverse, jnp.where(used, rate[place], 0)) / unit, 0)
        dw = (dw + z[:, None] * _dot(sees * (found * held_y), held_x)) * unit
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


def slopes(coefficients: Float[Array, "orders *shape"]) -> Float[Array, "orders_less *shape"]:
    """The derivative of a polynomial."""
    order = jnp.arange(1, coefficients.shape[0], dtype=coefficients.dtype)
    return coefficients[1:] * order.reshape(-1, *[1] * (coefficients.ndim - 1))


def longest_step(now: Series, q_held: Float[Array, " held"]) -> Float[Array, ""]:
    """How far the series is good to rounding, in its unit of time: by its last two coefficients, against the network, the
    pulls and 1 for margins."""
    size = jnp.maximum(jnp.max(jnp.abs(now.w[0])), jnp.max(jnp.abs(now.z[0])))
    eps, tiny = jnp.finfo(now.z.dtype).eps, jnp.finfo(now.z.dtype).tiny

    def good(coefficients, scale, order):
        last = jnp.max(jnp.abs(coefficients[order]) / scale)
        return (eps / jnp.maximum(last, tiny)) ** (1 / order)

    steps = [
        good(leaf, scale, order)
        for leaf, scale, top in ((now.w, size, ORDER), (now.z, size, ORDER), (now.pull, q_held, ORDER - 1))
        for order in (top - 1, top)
    ]
    return jnp.min(jnp.stack(steps))


def first_root(
    coefficients: Float[Array, "orders m"], slack: Float[Array, " m"]
) -> tuple[Float[Array, ""], Int[Array, ""], Bool[Array, ""]]:
    """The first time in [0, 1] at which one of m polynomials falls through 0, which one it is (-1: none), and whether the
    search came to an end. `slack`: the rounding of each.

    From a value D with a speed V towards 0 and |f''| <= B on [0, 1] nothing can happen for the time at which
    D - V s - B s^2 / 2 = 0. All walk together by the shortest such step. One that begins at 0 and leaves it does not count.
    """
    orders = jnp.arange(coefficients.shape[0], dtype=coefficients.dtype)
    slope = slopes(coefficients)
    bend = jnp.sum((orders * (orders - 1))[:, None] * jnp.abs(coefficients), axis=0)
    eps = jnp.finfo(coefficients.dtype).eps
    noise = 64 * eps * jnp.sum(jnp.abs(slope), axis=0) + 64 * slack

    def unfinished(carry):
        t, which, count = carry
        return (which < 0) & (t < 1) & (count < MOST_LOOKS)

    def closer(carry):
        t, _, count = carry
        gap, speed = value(coefficients, t), -value(slope, t)
        beyond = gap <= slack
        gap = jnp.maximum(gap, 0)
        root = jnp.sqrt(speed**2 + 2 * bend * gap)
        # Two forms of one root, each without cancellation where the other has it.
        ahead = 2 * gap / jnp.where(speed + root > 0, speed + root, 1)
        away = jnp.where(bend > 0, (root - speed) / jnp.where(bend > 0, bend, 1), jnp.inf)
        step = jnp.where(speed > 0, ahead, away)
        # One that leaves 0 tangentially must get away from its rounding first.
        quiet = beyond & (jnp.abs(speed) <= noise)
        escape = jnp.where(bend > 0, jnp.sqrt(64 * slack / jnp.where(bend > 0, bend, 1)), 1)
        step = jnp.where(quiet, jnp.maximum(step, escape), step)
        hit = ~quiet & (speed > 0) & (beyond | (step <= 2 * eps * t))
        which = jnp.where(jnp.any(hit), jnp.argmin(jnp.where(hit, step, jnp.inf)), -1).astype(jnp.int32)
        return jnp.where(which >= 0, t, jnp.minimum(t + jnp.min(step), 1)), which, count + 1

    start = (jnp.zeros((), coefficients.dtype), jnp.full((), -1, jnp.int32), jnp.zeros((), jnp.int32))
    t, which, _ = jax.lax.while_loop(unfinished, closer, start)
    return t, which, (which >= 0) | (t >= 1)
