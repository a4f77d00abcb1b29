"""Whether a decision holds: the conditions of (12.1) and (16.3) once more, by their definition, to second order.

`_decide` finds who is held as the smallest of the gradients that the kinks leave open. Here its answer is tried: held
margins and held edges stay, and every margin at 1 and every edge that is let go moves to the side it is booked on, by its
first derivative or, where that is 0, by its second. For these the pulls p_i of the margins held change by the p_i' that keep
them:

    w'' = z' c + z c',   z'' = w'.c + w.c',   c_j' = P_j sum_i phi'_ji p_i' y_i x_i

with P_j along the edges that neuron j is held on.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Way(NamedTuple):
    """A network and how it is about to move: `slope` of a leaky ReLU, weights, who is `active`, who `glides` with which
    `share`, who is `met`: on an edge and not held there, [h, n]; the pulls y_i p_i, and what they are to be compared with,
    `most` [n]; and of the points `at` 1, [m]: which are `held` and have an open pull, and the `side` of those let go, -1
    below and 1 above, 0 for those that stay."""

    slope: float
    w: np.ndarray
    z: np.ndarray
    active: np.ndarray
    glides: np.ndarray
    share: np.ndarray
    met: np.ndarray
    push: np.ndarray
    most: np.ndarray
    at: np.ndarray
    held: np.ndarray
    side: np.ndarray


def first_breach(x: np.ndarray, y: np.ndarray, way: Way, tol: float) -> tuple[int, int] | None:
    """The neuron (-1: none, a margin) and the point of a condition that `way` breaks, None if it breaks none; `tol`: what is
    rounding, of the terms of a sum."""
    z, push, size = way.z[:, None], way.push, np.linalg.norm(x, axis=1)
    gate = np.where(way.active, 1.0, way.slope)
    part = gate + (1 - way.slope) * way.share
    gate = np.where(way.glides, 0, gate)
    force, load = (part * push) @ x, ((np.where(way.glides | way.met, 1, part) * way.most) @ size)[:, None]
    edge = np.where(way.glides | way.met, 0, way.w @ x.T)
    on = gate * edge
    dz, far = (on @ push)[:, None], (np.abs(on) @ way.most)[:, None]
    speed, most = z * (force @ x.T), np.abs(z) * load * size

    # First derivatives: of edges held, of margins, and of edges let go.
    drifts = way.glides & (np.abs(force @ x.T) > tol * load * size)
    if drifts.any():
        return _place(drifts)
    at, sign = way.at, y[way.at]
    here, on_at = gate[:, at], on[:, at]
    rises = sign * (here * z * speed[:, at] + dz * on_at).sum(0)
    raises = (here * np.abs(z) * most[:, at] + far * np.abs(on_at)).sum(0)
    side = np.where(way.met, np.where(way.active, 1, -1), 0)
    moves, stays = np.abs(rises) > tol * raises, np.abs(speed) <= tol * most
    margins = moves & (rises * way.side <= 0)
    if margins.any():
        return -1, int(at[np.argmax(margins)])
    if not (stays & way.met).any() and (moves | (way.side == 0)).all():
        edges = speed * side < 0
        return _place(edges) if edges.any() else None

    # Where a first derivative is 0 the second one says.
    # What the open pulls have to do to keep all margins and all edges.
    along = np.broadcast_to(x[at], (z.size, *x[at].shape)).copy()
    for j in np.flatnonzero(way.glides.any(1)):
        lines = x[way.glides[j]]
        along[j] -= along[j] @ np.linalg.pinv(lines) @ lines
    slopes = np.concatenate([(here * z)[:, :, None] * along, on_at[:, :, None]], axis=2) * sign[:, None]
    slopes = slopes.transpose(1, 0, 2).reshape(at.size, z.size * (x.shape[1] + 1))
    turned, bent = dz * force, np.sum(z * force * force, axis=1, keepdims=True)  # w'' and z'' apart from the change of pulls
    bend = sign * (bent * on_at + here * (2 * dz * speed[:, at] + z * (turned @ x[at].T))).sum(0)
    bends = (np.abs(bent * on_at) + 3 * here * far * most[:, at]).sum(0)
    change, mine = np.zeros(at.size), slopes[way.held]
    if way.held.any():
        change[way.held] = np.linalg.lstsq(mine @ mine.T, -bend[way.held], rcond=tol)[0]
    bend = bend + slopes @ (slopes.T @ change)
    bends = bends + np.linalg.norm(slopes, axis=1) * (np.abs(change) @ np.linalg.norm(slopes, axis=1))
    turned = turned + z * np.einsum("hmd,hm->hd", along, here * (change * sign))
    turns = far * load * size + np.abs(z) * ((here * np.abs(change)) @ size[at])[:, None] * size

    margins = ~moves & (bend * way.side < 0) & (np.abs(bend) > np.sqrt(tol) * bends)
    if margins.any():
        return -1, int(at[np.argmax(margins)])
    turn = turned @ x.T
    edges = np.where(stays, (turn * side < 0) & (np.abs(turn) > np.sqrt(tol) * turns), speed * side < 0)
    return _place(edges) if edges.any() else None


def _place(where: np.ndarray) -> tuple[int, int]:
    j, i = np.unravel_index(np.argmax(where), where.shape)
    return int(j), int(i)
