"""How margins at 1 that depend on each other share their pull (12.1).

While activities stay a margin is a linear function of the products z_j w_j: m_i = y_i sum_j phi'_ji x_i.(z_j w_j). Where the
rows (y_i phi'_ji x_i)_j of points at 1 depend on each other the motion of the network is one, and the pulls that make it are
many. Those of independent points, inside of their bounds, are let free; the others rest at a bound of theirs and their
margins are tied to 1, until a free pull comes to its own bound or an activity changes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# How far inside of its bounds a share is wanted at most; the solver of linear programs takes less than this for 0.
_WIDE, _NONE = 0.1, 1e-5


class Slacks(NamedTuple):
    """What has to stay >= 0 besides, as `at` + `by` (share - those known): by [r, m], at [r]."""

    by: np.ndarray
    at: np.ndarray


class Split(NamedTuple):
    """The `share` of every margin at 1, which of them are `free`, and which are `tied` to those, [m] each."""

    share: np.ndarray
    free: np.ndarray
    tied: np.ndarray


def nullspace(rows: np.ndarray, tol: float) -> np.ndarray:
    """The combinations of unit `rows` [m, k] that vanish, as columns [m, ...]."""
    if not rows.shape[0]:
        return np.zeros((0, 0))
    # More rows than columns leave combinations beyond the first so many; the other factor of a wide network is too large.
    left, size, _ = np.linalg.svd(rows, full_matrices=rows.shape[0] > rows.shape[1])
    rank = int((size > tol * max(size.max(initial=0), 1)).sum())
    return left[:, rank:]


def split(
    rows: np.ndarray, strength: np.ndarray, share: np.ndarray, idle: np.ndarray, slacks: Slacks, tol: float
) -> Split | None:
    """Another split of the same pull. `rows` [m, k] of length 1, of the pull of which a whole share has the `strength` [m];
    `idle` [m]: margins that do not move. None if there is none inside of the bounds and of `slacks`."""
    loose, none = idle.copy(), np.zeros(share.size, bool)
    share = np.clip(share, 0, 1)
    share = np.where(share <= tol, 0, np.where(share >= 1 - tol, 1, share))
    while True:
        ways = np.zeros((share.size, 0))
        null = nullspace(rows[loose], tol)
        if null.size:
            ways = np.zeros((share.size, null.shape[1]))
            ways[loose] = null / strength[loose, None]
            ways = ways / np.abs(ways).max(0)
        moves = np.abs(ways).max(1, initial=0) > tol
        if not moves.any():
            break
        inner = _innermost(share, ways, moves, slacks)
        if inner is None:
            return None
        forced = moves & (np.minimum(inner, 1 - inner) <= _NONE)
        if not forced.any():
            share, slacks = inner, slacks._replace(at=slacks.at + slacks.by @ (inner - share))
            break
        loose &= ~forced
    free = (share > tol) & (share < 1 - tol)
    while (null := nullspace(rows[free], tol)).size:
        way = np.zeros(share.size)
        way[free] = null[:, 0] / strength[free]
        ends = [end for sign in (-1, 1) if (end := _to_a_bound(share, sign * way / np.abs(way).max(), free, slacks, tol))]
        if not ends:
            return None
        _, new, free = max(ends, key=lambda end: end[0])
        share, slacks = new, slacks._replace(at=slacks.at + slacks.by @ (new - share))
    rest = rows - rows @ np.linalg.pinv(rows[free]) @ rows[free] if free.any() else rows
    tied = ~free & (np.linalg.norm(rest, axis=1) <= tol * np.sqrt(share.size)) if free.any() else none
    return Split(share, free, tied)


def _innermost(share: np.ndarray, ways: np.ndarray, moves: np.ndarray, slacks: Slacks) -> np.ndarray | None:
    """The shares share + ways a with the largest sum of distances to all bounds, none of which counts beyond `_WIDE`."""
    from scipy.optimize import linprog

    by = np.concatenate([ways[moves], -ways[moves], slacks.by @ ways])
    at = np.concatenate([share[moves], 1 - share[moves], np.maximum(slacks.at, 0)])
    size, many = ways.shape[1], at.size
    found = linprog(
        np.concatenate([np.zeros(size), -np.ones(many)]),
        np.hstack([-by, np.eye(many)]),
        at,
        bounds=[(None, None)] * size + [(min(have, _WIDE) / 2, _WIDE) for have in at],
    )
    return share + ways @ found.x[:size] if found.status == 0 else None


def _to_a_bound(share, way, free, slacks: Slacks, tol: float) -> tuple[float, np.ndarray, np.ndarray] | None:
    """Along `way` to where the first share is at its bound: how far the others are from theirs (0 where two come there at
    once), the shares, and who is free; None where something else is at its bound before."""
    room = np.where(way > tol, (1 - share) / np.where(way > tol, way, 1), np.inf)
    room = np.where(way < -tol, share / np.where(way < -tol, -way, 1), room)
    room = np.where(free, room, np.inf)
    step = room.min()
    if (slacks.at + step * (slacks.by @ way) < 0).any():
        return None
    there = free & (room <= step * (1 + tol))
    new = share + step * way
    new[there] = np.round(new[there])
    left = free & ~there
    return float(np.minimum(new, 1 - new)[left].min(initial=1)) if there.sum() == 1 else 0.0, new, left
