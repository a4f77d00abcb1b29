"""Which of two classes a network learns in the end: by what the weights prove, and by training until they prove it.

Data are one point of each class at an angle of cosine c in [-1, 0], which is orthogonally separable. A neuron exclusive to a
class (a > 0 along it, b <= 0 along the other; z in the orientation of its class) has, by (2.0), (4.1) and (4.4), whatever
the others do and the loss is,

- z > -a and b + |c| (a - sqrt(a^2 - z^2)) <= 0 where z < 0: it never sees the other class, and its own is learnt;
- z <= -a and b + |c| a <= 0, c > -1: it dies without seeing the other class.

A class is *learnt* once there is a neuron of the first sort on it, and *lost* once all neurons of the network are dead, or
will die, or are of the first sort on the other class. Between opposite points a loss that never stops decides all neurons at
once (4.3). What is open is trained, hinge loss by events and others by the flow, and asked again.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import simulate_flow, simulate_hinge_exact
from gradstarve.studies.phase.phase_settings import real

OPEN, LOST, LEARNT = -1, 0, 1
_CHUNK = 1024  # networks trained in one call, so that few programs are compiled
_SINGLES = 8192  # and single neurons
_ROUNDS = 6  # of the flow, each four times as long as the one before
_RTOL = 1e-5
_NEAR = 1e-4  # a margin that came to rest is at 1 to rounding, or well below
_STAYS, _DIES, _ANY = 1, 2, 3


def two_classes(cosine: float, frequencies: Any, norms: Any) -> Dataset:
    """One point a class at that angle, class + along the first axis.

    >>> two_classes(-1.0, (0.5, 0.5), (1.0, 2.0)).points.tolist()
    [[1.0, 0.0], [-2.0, 0.0]]
    """
    side = np.sqrt(1 - cosine**2)
    return Dataset([[norms[0], 0.0], [norms[1] * cosine, norms[1] * side]], [1.0, -1.0], frequencies)


def proven(data: Dataset, w: np.ndarray, z: np.ndarray, everlasting: bool) -> np.ndarray:
    """LEARNT, LOST or OPEN for class + and class -, [b, 2], by the weights `w` [b, h, 2] and `z` [b, h] alone."""
    axes = np.asarray(data.points) / np.linalg.norm(np.asarray(data.points), axis=1)[:, None]
    cosine = float(axes[0] @ axes[1])
    along = w @ axes.T
    if cosine == -1 and everlasting:
        side = np.where(along[..., 0] != 0, along[..., 0] + z, 0)
        helps = np.stack([side > 0, side < 0], axis=-1).any(1)
        return np.where(helps, LEARNT, np.where((side == 0).all(1)[:, None], OPEN, LOST))
    sorts = []
    for k, sign in ((0, 1), (1, -1)):
        a, b, own = along[..., k], along[..., 1 - k], sign * z
        only = (a > 0) & (b <= 0)
        lowest = np.sqrt(np.maximum(a * a - own * own, 0))
        stays = only & (own > -a) & ((own >= 0) | (b - cosine * (a - lowest) <= 0))
        dies = only & (own <= -a) & (b - cosine * a <= 0) & (cosine > -1)  # opposite classes take each other's neurons
        sorts.append(np.where(stays, _STAYS, np.where(dies, _DIES, _ANY)))
    dead = (along <= 0).all(-1)
    found = np.full((len(z), 2), OPEN)
    for k in (0, 1):
        idle = dead | (sorts[k] == _DIES) | (sorts[1 - k] != _ANY)
        found[idle.all(1), k] = LOST
        found[(sorts[k] == _STAYS).any(1), k] = LEARNT
    return found


def class_fates(data: Dataset, w: np.ndarray, z: np.ndarray, loss: str, trust: bool = True) -> np.ndarray:
    """LEARNT, LOST or OPEN for class + and -, [b, 2], of networks `w` [b, h, 2], `z` [b, h] trained as far as it takes.

    `trust`: whether (4.1), (4.3), (4.4) may decide a network before it is trained; without, all are trained. OPEN is left
    for networks that no run decides, such as those that start on the line z = -a to rounding.
    """
    everlasting = trust and loss != "hinge"
    found = proven(data, w, z, everlasting) if trust else np.full((len(z), 2), OPEN)
    todo = np.flatnonzero((found == OPEN).any(1))
    size = _CHUNK if w.shape[1] > 1 else _SINGLES
    for first in range(0, todo.size, size):
        which = todo[first : first + size]
        padded = np.zeros((size, *w.shape[1:])), np.zeros((size, w.shape[1]))
        padded[0][: which.size], padded[1][: which.size] = w[which], z[which]
        network = TwoLayerReLU(*map(real, padded))
        if loss == "hinge":
            found[which] = _by_events(data, network, found[which])
        else:
            found[which] = _by_flow(data, network, found[which], loss, everlasting)
    return found


def _merged(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.where(old == OPEN, new, old)


def _by_events(data: Dataset, network: TwoLayerReLU, known: np.ndarray) -> np.ndarray:
    """Hinge loss: from event to event until nothing moves; who can not be followed to the end keeps what weights prove."""
    run = simulate_hinge_exact(data, network, throw=False)
    count = len(known)
    settled, w, z = (np.asarray(leaf)[:count] for leaf in (run.settled, run.final.w, run.final.z))
    margins = np.asarray(run.final(data.points))[:count] * np.asarray(data.labels)
    at_rest = np.where(margins >= 1 - _NEAR, LEARNT, LOST)
    return _merged(known, np.where(settled[:, None], at_rest, proven(data, w, z, False)))


def _by_flow(data: Dataset, network: TwoLayerReLU, known: np.ndarray, loss: str, everlasting: bool) -> np.ndarray:
    """Losses that never stop: the flow in ever longer pieces, until the weights prove what comes."""
    rate = float((np.asarray(data.weights) * np.linalg.norm(np.asarray(data.points), axis=1)).min())
    time = 8 / rate
    for _ in range(_ROUNDS):
        rest = simulate_flow(data, network, loss, [time], rtol=_RTOL, max_steps=20_000, throw=False, progress=False).final
        w, z = np.array(rest.w), np.array(rest.z)
        good = np.isfinite(z).all(1) & np.isfinite(w).all((1, 2))
        w[~good], z[~good] = np.asarray(network.w)[~good], np.asarray(network.z)[~good]
        known = _merged(known, proven(data, w[: len(known)], z[: len(known)], everlasting))
        done = np.ones(len(z), bool)
        done[: len(known)] = (known != OPEN).all(1)
        if done.all():
            return known
        w[done], z[done] = 0, 0  # who is decided rests
        network, time = TwoLayerReLU(real(w), real(z)), 4 * time
    return known
