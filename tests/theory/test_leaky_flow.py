"""The flow of leaky networks on antipodal classes (22.1): two clocks, against SciPy on all weights with events at edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_descent import RESIDUALS
from scipy.integrate import solve_ivp

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")


def problem(seed=0, h=8, scale=0.4, slope=0.2, frequencies=(0.3, 0.7), norms=(1.0, 1.5)):
    keys = jax.random.split(jax.random.key(seed), 2)
    data = gs.datasets.antipodal(3, norms=norms, frequencies=frequencies, key=keys[0])
    network = gs.init_two_layer(keys[1], (), h, 3, scale, scale)
    return data, gs.TwoLayerReLU(network.w, network.z, slope)


def integrated(data, network, residual, times, kinks=()):
    """Weights at `times`, how many neurons changed their side, and how often one was held at its edge.

    Between events every neuron has the side that is written down for it: 1, -1, or 0 while it is held at a = 0, where both
    sides send it back.
    """
    x, y, q = (np.asarray(v, float) for v in (data.points, data.labels, data.weights))
    w, z = np.array(network.w, float), np.array(network.z, float)
    axis = y[0] * x[0] / np.linalg.norm(x[0])
    shape, al = w.shape, network.slope
    side = np.sign(w @ axis)

    def tilts(side):
        return np.where(side[:, None] * (x @ axis) > 0, 1, al) * (side != 0)[:, None]  # [h, n]

    def margins(theta, side):
        w, z = theta[:w_size].reshape(shape), theta[w_size:]
        return y * ((tilts(side) * (w @ x.T)).T @ z)

    def pulls(theta, side, branch):
        return q * residual(margins(theta, side), branch)

    def field(theta, side, branch):
        w, z = theta[:w_size].reshape(shape), theta[w_size:]
        tilt, pull = tilts(side), pulls(theta, side, branch) * y
        return np.concatenate([(z[:, None] * ((tilt * pull) @ x)).ravel(), np.sum(tilt * pull * (w @ x.T), axis=1)])

    def sends(theta, side, branch, j, way):
        """Of which sign da_j/dt is for a neuron on side `way`."""
        other = side.copy()
        other[j] = way
        tilt = tilts(other)[j]
        return np.sign(theta[w_size + j] * ((tilt * pulls(theta, side, branch) * y) @ (x @ axis)))

    w_size = w.size
    theta, t, moves, holds, found = np.concatenate([w.ravel(), z]), 0.0, 0, 0, []
    branch = (margins(theta, side)[:, None] >= np.array(kinks)).sum(1) if kinks else np.zeros(len(y), int)
    while t < times[-1]:
        events = []

        def event(function, what, events=events):
            function.terminal, function.what = True, what
            function.direction = -1
            events.append(function)

        for j in range(len(z)):
            if side[j]:
                event(lambda t, v, j=j, s=side[j]: s * (v[:w_size].reshape(shape)[j] @ axis), ("edge", j))
            else:
                for way in (1, -1):
                    event(
                        lambda t, v, j=j, way=way, side=side, b=branch: -way * sum(
                            v[w_size + j] * (np.where(way * (x @ axis) > 0, 1, al) * pulls(v, side, b) * y) * (x @ axis)
                        ),
                        ("free", j),
                    )
        for i in range(len(y)):
            for k, kink in enumerate(kinks):
                sign = 1 if branch[i] <= k else -1
                event(lambda t, v, i=i, kink=kink, sign=sign, side=side: sign * (kink - margins(v, side)[i]), ("kink", i, sign))
        run = solve_ivp(
            lambda t, v, side=side, branch=branch: field(v, side, branch), (t, times[-1]), theta, method="DOP853",
            events=events, rtol=1e-13, atol=1e-15, dense_output=True,
        )
        end = run.t[-1]
        found += [run.sol(s) for s in times if t < s <= end or (s == 0 == t)]
        t, theta = end, run.y[:, -1]
        if run.status != 1:
            break
        happened = [e.what for e, at in zip(events, run.t_events, strict=True) if len(at)]
        for what, j, *more in happened[:1]:
            side, branch = side.copy(), branch.copy()
            if what == "edge":
                theta = theta.copy()
                row = theta[:w_size].reshape(shape)[j]
                row -= (row @ axis) * axis
                goes = sends(theta, side, branch, j, -side[j]) == -side[j]
                side[j] = -side[j] if goes else 0
                moves, holds = moves + goes, holds + (not goes)
            elif what == "free":
                ways = [way for way in (1, -1) if sends(theta, side, branch, j, way) == way]
                side[j] = ways[0] if ways else 0
            else:
                branch[j] += more[0]
    return np.array(found), moves, holds
