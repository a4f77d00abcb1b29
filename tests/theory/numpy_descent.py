"""Descent of a two-layer network written out in NumPy, against which laws of descent and of small steps are held."""

import numpy as np


def descent(residual, network, data, step, count):
    """The margins after `count` steps; `residual` is g of an array of margins."""
    w, z = np.array(network.w, float), np.array(network.z, float)
    x, y, q = np.array(data.points, float), np.array(data.labels, float), np.array(data.weights, float)
    for _ in range(count):
        hidden = x @ w.T
        on = hidden > 0
        pull = q * residual(y * (np.where(on, hidden, 0) @ z)) * y
        dw, dz = z[:, None] * ((on * pull[:, None]).T @ x), np.where(on, hidden, 0).T @ pull
        w, z = w + step * dw, z + step * dz
    return y * (np.maximum(x @ w.T, 0) @ z)
