"""The path of a hinge flow from event to event, retraced in plain NumPy from the list of its events (12.1).

`retraced` takes the events as they are told, moves the weights from one to the next by matrix exponentials, and says by how
much anything is on the other side of its edge or margin than the list has it: a list that misses an event, or has it at
a wrong time, shows.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.simulation import Kind

_LOOKS = 4  # times a segment, its end included, at which activities and margins are compared with the list


class Moment(NamedTuple):
    """One event: its `time`, `kind`, `neuron` and `point`; the weights `w` [h, d] and `z` [h] then, and on either side of
    it which neurons are active on which points [h, n] and by how much each point pulls, u_i = q_i g_i [n]."""

    time: float
    kind: Kind
    neuron: int
    point: int
    w: np.ndarray
    z: np.ndarray
    active: tuple[np.ndarray, np.ndarray]
    pulls: tuple[np.ndarray, np.ndarray]
    held: bool  # whether margins are held at 1 before or after


class Path(NamedTuple):
    """A network on its way: the `moments` of its events, the weights at the last of them, and the `strain`: how far
    anything was on the wrong side of its edge (beside |w| |x| + |z| |x|) or margin, or off it at its own event."""

    moments: list[Moment]
    w: np.ndarray
    z: np.ndarray
    strain: float


class _State(NamedTuple):
    w: np.ndarray
    z: np.ndarray
    active: np.ndarray
    live: np.ndarray
    held: np.ndarray


def _numbers(data: Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.asarray(data.points, float), np.asarray(data.labels, float), np.asarray(data.weights, float)


def margins(state: Any, data: Dataset) -> np.ndarray:
    """m_i by the activities as they are booked, [n]."""
    x, y, _ = _numbers(data)
    return y * (state.z @ np.where(state.active, state.w @ x.T, 0))


def forces(active: np.ndarray, pulls: np.ndarray, data: Dataset) -> np.ndarray:
    """c_j = sum_i u_i y_i x_i over the points that neuron j is active on, [h, d]."""
    x, y, _ = _numbers(data)
    return (active * (pulls * y)) @ x


def slopes(w: np.ndarray, z: np.ndarray, active: np.ndarray, data: Dataset) -> np.ndarray:
    """The gradient of every margin in all weights, [n, h (d + 1)]."""
    x, y, _ = _numbers(data)
    seen = active.T * y[:, None]
    return np.concatenate([(z * seen)[..., None] * x[:, None], (seen * (x @ w.T))[..., None]], -1).reshape(len(y), -1)


def _pulls(state: _State, data: Dataset) -> np.ndarray:
    """u_i = q_i below a margin of 1, and what keeps the held ones there."""
    u = np.where(state.live, _numbers(data)[2], 0)
    if state.held.any():
        each = slopes(state.w, state.z, state.active, data)
        mine = each[state.held]
        u[state.held] = np.linalg.lstsq(mine @ mine.T, -mine @ (u @ each), rcond=None)[0]
    return u


def _strain(state: _State, data: Dataset) -> float:
    x = _numbers(data)[0]
    edge = state.w @ x.T
    reach = np.linalg.norm(x, axis=-1) * (np.linalg.norm(state.w, axis=-1) + np.abs(state.z))[:, None]
    over = np.where(state.active, -edge, edge) / np.where(reach > 0, reach, 1)
    m = margins(state, data)
    beyond = np.where(state.held, np.abs(m - 1), np.where(state.live, m - 1, 1 - m))
    return float(max(over.max(), beyond.max(), 0))


def _moved(state: _State, data: Dataset, span: float) -> tuple[_State, float]:
    """The state after `span` without an event, and its strain on the way."""
    if state.held.any():
        return _slid(state, data, span)
    from scipy.linalg import expm

    c = forces(state.active, _pulls(state, data), data)
    h, d = c.shape
    generator = np.zeros((h, d + 1, d + 1))
    generator[:, :d, d] = generator[:, d, :d] = c
    part = expm(generator * (span / _LOOKS))
    joined, strain = np.concatenate([state.w, state.z[:, None]], axis=-1), 0.0
    for _ in range(_LOOKS):
        joined = np.einsum("hde,he->hd", part, joined)
        state = state._replace(w=joined[:, :d], z=joined[:, d])
        strain = max(strain, _strain(state, data))
    return state, strain


def _slid(state: _State, data: Dataset, span: float) -> tuple[_State, float]:
    """The same where margins are held: no closed form, so SciPy's integrator."""
    from scipy.integrate import solve_ivp

    h, d = state.w.shape

    def parted(joined):
        return state._replace(w=joined[: h * d].reshape(h, d), z=joined[h * d :])

    def field(_, joined):
        now = parted(joined)
        moved = (_pulls(now, data) @ slopes(now.w, now.z, now.active, data)).reshape(h, d + 1)
        return np.concatenate([moved[:, :d].reshape(-1), moved[:, d]])

    start, looks = np.concatenate([state.w.reshape(-1), state.z]), np.linspace(0, span, _LOOKS + 1)[1:]
    found = solve_ivp(field, (0, span), start, "DOP853", looks, rtol=1e-12, atol=1e-13).y.T
    states = [parted(joined) for joined in found]
    return states[-1], max(_strain(each, data) for each in states)


def retraced(data: Dataset, network: TwoLayerReLU, events: Any, b: int) -> Path:
    """Network `b` of a batch along its `events`."""
    w, z = np.asarray(network.w[b], float), np.asarray(network.z[b], float)
    active = w @ _numbers(data)[0].T > 0
    state = _State(w, z, active, np.ones(data.size, bool), np.zeros(data.size, bool))
    state = state._replace(live=margins(state, data) < 1)
    rows = zip(*(leaf[b][: int(events.count[b])].tolist() for leaf in events[:4]), strict=True)
    moments, clock, strain = [], 0.0, 0.0
    for time, kind, j, i in rows:
        if time > clock:
            state, found = _moved(state, data, time - clock)
            strain = max(strain, found)
        clock = max(time, clock)
        active, live, held = state.active.copy(), state.live.copy(), state.held.copy()
        if j >= 0:
            active[j, i] = kind == Kind.WAKES
        else:
            live[i], held[i] = kind == Kind.FORGOTTEN, kind == Kind.HELD
        after = state._replace(active=active, live=live, held=held)
        # On the other side already, at its own event: off its edge or margin by as much.
        strain = max(strain, _strain(after, data))
        pulls = _pulls(state, data), _pulls(after, data)
        slides = bool(state.held.any() or held.any())
        moments.append(Moment(time, Kind(kind), j, i, state.w, state.z, (state.active, active), pulls, slides))
        state = after
    return Path(moments, state.w, state.z, strain)
