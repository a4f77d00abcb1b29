"""Training in plain NumPy with the gradient written by hand: what the simulators are held to."""

import numpy as np
from scipy.special import expit

RESIDUALS = {
    "cross-entropy": lambda m: expit(-m),
    "hinge": lambda m: (m < 1).astype(m.dtype),
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: 1 - m,
}


def gradient(data, w, z, loss, drawn=None):
    """dL/dw [b, h, d], dL/dz [b, h] and the logits [b, n]; with `drawn` [b] of that point's loss instead."""
    x, y = np.asarray(data.points).astype(w.dtype), np.asarray(data.labels).astype(w.dtype)
    q = np.asarray(data.weights).astype(w.dtype)
    pre = np.einsum("bhd,nd->bhn", w, x)
    logits = np.einsum("bh,bhn->bn", z, np.maximum(pre, 0))
    q = np.broadcast_to(q, logits.shape) if drawn is None else np.eye(len(y), dtype=w.dtype)[drawn]
    push = q * RESIDUALS[loss](y * logits) * y
    grad_w = -z[..., None] * np.einsum("bn,bhn,nd->bhd", push, (pre > 0).astype(w.dtype), x)
    return grad_w, -np.einsum("bn,bhn->bh", push, np.maximum(pre, 0)), logits


def train(data, network, loss, steps, step_size, momentum=0.0, nesterov=False, decay=0.0, draws=None):
    """The logits after 0, 1, ..., steps steps, [b, steps + 1, n], and the last weights."""
    w, z = np.asarray(network.w), np.asarray(network.z)
    momentum, decay = w.dtype.type(momentum), w.dtype.type(decay)
    eta = np.broadcast_to(np.asarray(step_size, w.dtype), z.shape[:1])
    velocity = [np.zeros_like(w), np.zeros_like(z)]
    record = []
    for k in range(steps + 1):
        *grads, logits = gradient(data, w, z, loss, None if draws is None or k == steps else draws[:, k])
        record.append(logits)
        if k == steps:
            break
        new = []
        for i, (theta, g) in enumerate(zip((w, z), grads, strict=True)):
            g = g + decay * theta
            velocity[i] = momentum * velocity[i] + g
            push = g + momentum * velocity[i] if nesterov else velocity[i]
            new.append(theta - eta.reshape(-1, *[1] * (theta.ndim - 1)) * push)
        w, z = new
    return np.stack(record, axis=1), w, z
