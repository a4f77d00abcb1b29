"""Descent about a corner of edges and margins, seen from so near that its step is 1 (12.1).

The gradient flow is a differential inclusion. Where a neuron is on an edge that may hold it and let it go, both are
solutions; gradient descent comes to one of them as its step falls, or to none. With displacements from the corner in units
of the step, w = w_0 + step v, descent is

    v_j <- v_j + z_j c_j,   s_j <- s_j + sum_i phi'_ji p_i y_i w_j.x_i

where c_j knows of the edges at the corner by the sign of v_j.x_i and of the margins at 1 by the sign of what they change by,
y_i sum_j (z_j phi(x_i.v_j) + s_j phi(w_j.x_i)). No step is left in this: whatever lasts here lasts at every small step.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# Descents that are tried, the sizes of their first displacements in steps, and for how many steps.
_SIZES, _EACH, _STEPS = (0.3, 3.0, 30.0), 16, 3000
# The part of the way of the flow that each has to make, and how near to it, of the largest force.
_PART, _NEAR = 0.7, 0.05


class Corner(NamedTuple):
    """A network `w` [h, d], `z` [h] on edges and margins: the points `x` [n, d] with labels `y`, the `slope` of a leaky
    ReLU, the `gate` of each neuron at each point [h, n] apart from the edges it is `on` [h, n], the pulls q_i of the points
    below 1 in `pull` [n], and of those `at_one`, a list, in `open_pull`."""

    x: np.ndarray
    y: np.ndarray
    slope: float
    w: np.ndarray
    z: np.ndarray
    gate: np.ndarray
    on: np.ndarray
    pull: np.ndarray
    at_one: np.ndarray
    open_pull: np.ndarray


def goes_one_way(corner: Corner, dw: np.ndarray, dz: np.ndarray) -> bool:
    """Whether descent from wherever near to a corner moves as the flow would with the speeds `dw` [h, d] and `dz` [h]."""
    x, y, w, z, at = corner.x, corner.y, corner.w, corner.z, corner.at_one
    rng = np.random.default_rng(0)
    most = np.abs(z)[:, None] * (corner.pull.sum() + corner.open_pull.sum()) * np.abs(x).max() + np.abs(dw)
    sizes = np.repeat(_SIZES, _EACH)[:, None, None]
    v = rng.normal(size=(sizes.size, *w.shape)) * sizes * most
    s = rng.normal(size=(sizes.size, z.size)) * sizes[..., 0] * np.abs(w).max() * np.abs(most).max()
    edge = np.where(corner.on, 0, w @ x.T)
    far = corner.gate * edge
    half = v, s
    for step in range(_STEPS):
        if step == _STEPS // 2:
            half = v, s
        near = v @ x.T
        gate = np.where(corner.on & (near > 0), 1, np.where(corner.on, corner.slope, corner.gate))
        change = np.einsum("h,bhm->bm", z, (gate * near)[..., at]) + s @ far[:, at]
        pull = np.repeat(corner.pull[None], sizes.size, 0)
        pull[:, at] = corner.open_pull * (y[at] * change < 0)
        push = pull * y
        v, s = v + z[:, None] * ((gate * push[:, None]) @ x), s + push @ far.T
    lasted = _STEPS - _STEPS // 2
    way, turn = (v - half[0]) / lasted, (s - half[1]) / lasted
    reach = np.linalg.norm(most, axis=1)[:, None]
    if (np.linalg.norm(way - dw, axis=2, keepdims=True) > _NEAR * reach).any():
        return False
    if (np.abs(turn - dz) > _NEAR * (np.abs(far) @ (corner.pull + 1e-300)) + _NEAR * np.abs(far).max()).any():
        return False
    # And to the side of each edge that the flow goes to.
    speed = np.where(corner.on, dw @ x.T, 0)
    made = np.where(speed < 0, -1, 1) * (way @ x.T)
    leaves = np.abs(speed) > 1e-9 * reach * np.linalg.norm(x, axis=1)
    return bool((made >= _PART * np.abs(speed))[:, leaves].all())
