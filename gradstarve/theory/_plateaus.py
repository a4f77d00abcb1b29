"""From saddle to saddle: the ends of the plateaus of a hinge flow from small weights, to leading order in the scale (16.5).

On a plateau the neurons that have grown are at rest, so that every point pushes with the constant residual g_i in [0, 1] of
the saddle. The other neurons are small and moved only by these pushes: (16.1) with q_i g_i in place of q_i. Each aligns in a
time that does not depend on the scale and then grows at the rate k_j = |c_j|. In units of log(1/scale) the alignment takes
no time, and neither do the falls between plateaus, so that the logarithm of the size of neuron j, in these units, is

    -1 + sum over plateaus p of k_j(p) (T_p - T_(p-1)),

and plateau p ends at the T_p at which the first neuron reaches 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gradstarve.ground import HypothesisError, as_floats, html_table, is_concrete, number, shown
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theory._alignment import Alignment, early_alignment
from gradstarve.theory._solve import check_problem


class PlateauExits(NamedTuple):
    """The ends of plateaus as weights tend to 0: `time` T_p [p], in units of log(1/scale); `neurons` [p, h], whether each
    neuron has grown then; `rate` [p, h] of each neuron on each plateau (0 for a neuron at rest or dead, NaN for one that has
    grown); and the `residual` of every point [p, n]. Plateaus that no neuron ends are left out."""

    time: np.ndarray
    neurons: np.ndarray
    rate: np.ndarray
    residual: np.ndarray

    def __repr__(self) -> str:
        times = ", ".join(number(time) for time in self.time[:6])
        return f"PlateauExits({self.time.size} plateaus, which end at {times or 'no time'} x log(1/scale))"

    def _repr_html_(self) -> str:
        rows = [("plateau", "ends at t / log(1/scale)", "neurons", "rate")]
        for place in range(min(self.time.size, 20)):
            left = np.flatnonzero(self.neurons[place])
            rate = np.nanmax(self.rate[place])
            rows.append((str(place), number(self.time[place]), ", ".join(map(str, left[:8].tolist())), number(rate)))
        return html_table(rows, repr(self))


def plateau_exits(data: Dataset, network: Any, residuals: Any = None) -> PlateauExits:
    """The exits of all plateaus of the hinge flow from scale x `network`, as scale -> 0: t_p / log(1/scale) -> T_p (16.5).

    - `data`: points [n, d] of any geometry, labels ±1;
    - `network`: one `TwoLayerReLU`, no batch axes; only the initial directions of its neurons matter, not their sizes;
    - `residuals`: g_i of the successive saddles, [plateaus, n], each in [0, 1] and the first row 1, such as those
      of `HingeTrajectory.stages`. None if all points push the same way, y_i y_k x_i.x_k >= 0 for all pairs (orthogonal
      points, orthogonally separable data): then a neuron that grows learns all points on which it is active, and the
      residuals follow from the data.

    A neuron that has grown is at rest for ever in this limit: a plateau that such a neuron ends later, because points that
    it has not learnt pull weakly, is not included. A run from a finite scale differs from the limit by
    O(1/log(1/scale)). The first exit is `Alignment.exit_time(scale)` to this order.

    `HypothesisError` if residuals are missing and do not follow from the data or for a leaky network, and for a neuron
    that the flow does not determine (16.4); `ValueError` for arguments that do not fit each other and for traced ones.

    >>> data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1], [0.75, 0.25])
    >>> plateau_exits(data, TwoLayerReLU(w=[[1.0, 0.0], [0.0, 1.0]], z=[1.0, -1.0])).time.round(4).tolist()
    [1.3333, 4.0]
    """
    check_problem(data, network)
    if not isinstance(data, Dataset) or type(network) is not TwoLayerReLU or network.batch_shape:
        got = f"{type(network).__name__} of batch shape {list(network.batch_shape)} on a {type(data).__name__}"
        raise ValueError(f"plateaus end for one TwoLayerReLU on a Dataset, got a {got}; for a batch give network[index]")
    if not all(is_concrete(leaf) for leaf in (data.points, data.labels, data.weights, network.w, network.z)):
        raise ValueError("data and network must be known: plateaus cannot be listed inside jit, grad and vmap")
    rows = None if residuals is None else _as_residuals(residuals, data.size)
    if rows is None:
        _check_same_way(data, network)
    x, y, q = (np.asarray(leaf, np.float64) for leaf in (data.points, data.labels, data.weights))
    w, z = np.array(network.w, np.float64), np.array(network.z, np.float64)
    grown, log_size, time = np.zeros(z.size, bool), np.full(z.size, -1.0), 0.0
    residual = np.ones(data.size)
    found: list[tuple] = []
    while not grown.all() and (residual > 0).any():
        pull = q * residual
        pulls = np.flatnonzero(pull > 0)
        small = np.flatnonzero(~grown)
        dtype = data.points.dtype
        part = Dataset(*(leaf.astype(dtype) for leaf in (x[pulls], y[pulls], pull[pulls] / pull.sum())))
        phase = early_alignment(part, TwoLayerReLU(w[small].astype(dtype), z[small].astype(dtype), network.slope), "hinge")
        _check_determined(phase, small, len(found))
        place = phase.groups.direction
        rate = np.full(z.size, np.nan)
        rate[small] = pull.sum() * np.append(phase.directions.rate, 0)[place]
        slack = 1e3 * float(np.finfo(data.points.dtype).eps)
        with np.errstate(divide="ignore", invalid="ignore"):
            wait = np.where(rate > 0, -log_size / rate, np.inf)
        first = wait.min()
        if not np.isfinite(first):
            break
        leaves = wait <= first * (1 + slack)
        time += first
        log_size = log_size + np.nan_to_num(rate) * first
        found.append((time, leaves, rate, residual))
        w[small], z[small] = _where_they_point(phase)
        if rows is not None:
            if len(found) == len(rows):
                break
            residual = rows[len(found)]
        else:
            seen = phase.directions.activity[place[leaves[small]]] == 1
            residual = residual.copy()
            residual[pulls[seen.any(0)]] = 0
        grown = grown | leaves
    shapes = (), (z.size,), (z.size,), (data.size,)
    columns = zip(*found, strict=True) if found else [()] * 4
    return PlateauExits(*(np.array(column).reshape(-1, *shape) for column, shape in zip(columns, shapes, strict=True)))


# The size, relative to the limit direction, of the kept part of w across it. This part does not grow and is negligible late,
# but it shows the side of the neuron if the direction lies on an edge.
_ACROSS = 1e-6


def _where_they_point(phase: Alignment) -> tuple[np.ndarray, np.ndarray]:
    """w [h, d] and z [h] late in the phase, of size one for neurons that grow."""
    place, found = phase.groups.direction, phase.directions
    owner = np.repeat(np.arange(place.size), phase.events.count)
    last = np.zeros(place.size)
    np.maximum.at(last, owner, np.asarray(phase.events.time, np.float64))
    times, which = np.unique(last, return_inverse=True)
    then = phase.network(times, throw=False)
    each = np.arange(place.size)
    w, z = (np.array(leaf, np.float64)[which.reshape(-1), each] for leaf in (then.w, then.z))
    x = np.asarray(phase.data.points, np.float64)
    unit = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), np.finfo(np.float64).tiny)
    for j in np.flatnonzero(place >= 0):
        v = np.asarray(found.vector[place[j]], np.float64)
        across = w[j] - (w[j] @ v) * v
        size = np.linalg.norm(across)
        w[j], z[j] = v + _ACROSS * across / (size or 1.0), found.sign[place[j]]
        # A neuron that became inactive on an edge and stayed there, as on orthogonal points, counts as inactive from then
        # on.
        activity = found.activity[place[j]]
        on = (np.abs(unit @ w[j]) < 1e-3 * _ACROSS) & (activity < 1)
        asleep = activity[on] <= phase.initial.slope
        if asleep.any():
            w[j] -= np.linalg.lstsq(unit[on], unit[on] @ w[j] + _ACROSS * asleep, rcond=None)[0]
    return w, z


def _as_residuals(residuals: Any, size: int) -> np.ndarray:
    rows = np.asarray(as_floats("residuals", residuals), np.float64)
    if rows.ndim != 2 or rows.shape[1] != size or not len(rows):
        raise ValueError(f"residuals must be [plateaus, n] with n = {size} points, got shape {list(rows.shape)}")
    if not ((rows >= 0) & (rows <= 1)).all():
        raise ValueError(f"residuals must be in [0, 1], got {shown(residuals)}")
    if not (rows[0] == 1).all():
        raise ValueError(f"the first row of residuals must be 1, that of the saddle at 0, got {shown(rows[0])}")
    return rows


def _check_same_way(data: Dataset, network: TwoLayerReLU) -> None:
    """`HypothesisError` where the residuals of the saddles do not follow from the data."""
    where = "the residuals of the saddles, for example np.stack([stage.residual for stage in run.stages() if stage.rate])"
    if network.slope:
        raise HypothesisError(
            "residuals follow for a ReLU, whose neurons learn all points that they see",
            f"the network has slope {network.slope:g}",
            where,
        )
    signed = np.asarray(data.points, np.float64) * np.asarray(data.labels, np.float64)[:, None]
    length = np.linalg.norm(signed, axis=1)
    products = signed @ signed.T
    wrong = products < -8 * float(np.finfo(data.points.dtype).eps) * length[:, None] * length
    if wrong.any():
        i, k = (int(n) for n in np.argwhere(wrong)[0])
        raise HypothesisError(
            "residuals follow where y_i y_k x_i.x_k >= 0 for all pairs of points",
            f"points {i} and {k} have y_i y_k x_i.x_k = {products[i, k]:.4g}",
            where,
        )


def _check_determined(phase: Alignment, small: np.ndarray, plateau: int) -> None:
    lost = np.flatnonzero(phase.groups.undetermined)
    if lost.size:
        raise HypothesisError(
            "the flow determines every neuron where none is on an edge that repels it (16.4)",
            f"neuron {int(small[lost[0]])} is on such an edge on plateau {plateau} ({lost.size} of {small.size} neurons)",
            "a network without this neuron, or simulate_hinge_exact(...).stages()",
        )
