"""Descent on the cross-entropy in plain NumPy, one network at a time."""

import numpy as np

from gradstarve.problem import TwoLayerReLU


def train(data, nets, steps, eta):
    x, y, q = (np.asarray(v) for v in (data.points, data.labels, data.weights))
    trained = []
    for w, z in zip(np.asarray(nets.w), np.asarray(nets.z), strict=True):
        for _ in range(steps):
            pre = x @ w.T
            hidden = np.maximum(pre, 0)
            push = q * y / (1 + np.exp(y * (hidden @ z)))
            w, z = w + eta * ((push[:, None] * (pre > 0) * z).T @ x), z + eta * (push @ hidden)
        trained.append((w, z))
    return TwoLayerReLU(*(np.stack(parts) for parts in zip(*trained, strict=True)))
