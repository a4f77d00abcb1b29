"""Two handwritten digits, a bright patch on a part of one class, and a network of one hidden layer in plain JAX."""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

IMAGES, DIGITS = load_digits(return_X_y=True)
IMAGES = IMAGES / 16


def two_digits(plus, minus, fraction, brightness, seed, size=None, test=0.3):
    """Training images (patched: a corner of 2 x 2 pixels at `brightness` on `fraction` of class +), labels, who is patched,
    the same images clean, and clean test images with their labels. `size` limits the training set."""
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero((plus == DIGITS) | (minus == DIGITS))
    rng.shuffle(chosen)
    cut = int(len(chosen) * (1 - test))
    train, rest = chosen[:cut][:size], chosen[cut:]
    y, y_rest = (np.where(DIGITS[part] == plus, 1.0, -1.0) for part in (train, rest))
    clean = IMAGES[train]
    members = (rng.random(len(train)) < fraction) & (y > 0)
    x = clean.reshape(-1, 8, 8).copy()
    x[members, :2, :2] = brightness
    return x.reshape(-1, 64), y, members, clean, IMAGES[rest], y_rest


def network(seed, width=64, dim=64):
    """Weights of a network of one hidden layer, He's initialisation, with biases."""
    keys = jax.random.split(jax.random.key(seed))
    w = jax.random.normal(keys[0], (width, dim)) * np.sqrt(2 / dim)
    return {"w": w, "b": jnp.zeros(width), "z": jax.random.normal(keys[1], (width,)) / np.sqrt(width), "c": jnp.zeros(())}


def apply(params, x):
    """Logits [n]."""
    return jax.nn.relu(x @ params["w"].T + params["b"]) @ params["z"] + params["c"]


@jax.jit
def train(params, x, y, step_size, steps):
    """Gradient descent on the summed cross-entropy, every weight."""
    gradient = jax.grad(lambda p: jnp.sum(jax.nn.softplus(-y * apply(p, x))))
    step = lambda _, p: jax.tree.map(lambda a, g: a - step_size * g, p, gradient(p))  # noqa: E731
    return jax.lax.fori_loop(0, steps, step, params)
