"""Descent of a two-layer network written out in NumPy, against which laws of descent and of small steps are held."""

import numpy as np

RESIDUALS = {
    "cross-entropy": lambda m: 1 / (1 + np.exp(m)),
    "hinge": lambda m: (m < 1) * 1.0,
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: 1 - m,
}


def downhill(residual, data, w, z):
    """Minus dL/dw and dL/dz of one network; `residual` is g of an array of margins."""
    x, y, q = np.array(data.points, float), np.array(data.labels, float), np.array(data.weights, float)
    seen = x @ w.T
    pull = q * y * residual(y * (np.maximum(seen, 0) @ z))
    return z[:, None] * (((seen > 0) * pull[:, None]).T @ x), np.maximum(seen, 0).T @ pull


def descent(residual, network, data, step, count):
    """The margins after `count` steps; `residual` is g of an array of margins."""
    w, z = np.array(network.w, float), np.array(network.z, float)
    for _ in range(count):
        dw, dz = downhill(residual, data, w, z)
        w, z = w + step * dw, z + step * dz
    x, y = np.array(data.points, float), np.array(data.labels, float)
    return y * (np.maximum(x @ w.T, 0) @ z)
