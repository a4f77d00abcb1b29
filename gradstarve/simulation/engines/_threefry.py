"""The random draws of stochastic descent as plain arithmetic on 32-bit words, for programs that hold many networks.

Network b draws at step k from `fold_in(key_b, k)`. JAX hashes with Threefry-2x32 (Salmon, Moraes, Dror & Shaw, "Parallel
random numbers: as easy as 1, 2, 3", SC 2011), 20 rounds of add, rotate and xor. Written out here, the hash works wherever
elementwise arithmetic works, also in a GPU kernel, which has no `jax.random`. The bits are those of JAX.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = np.uint32(0x1BD11BDA)


def is_default_rng(keys: Array) -> bool:
    """Whether the bits of JAX `keys` are those of `fold_in_bits`: the default generator, in its default way to count."""
    partitionable = jax.config.jax_threefry_partitionable  # pyright: ignore[reportAttributeAccessIssue]
    return str(jax.random.key_impl(keys)) == "threefry2x32" and partitionable


def fold_in_bits(k0: UInt32[Array, "..."], k1: UInt32[Array, "..."], step: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """32 random bits, `jax.random.bits(jax.random.fold_in(key, step), (), jnp.uint32)`, for keys given as two words.

    `k0`, `k1`: the words of `jax.random.key_data(key)` of Threefry keys; `step`: the number folded in. All uint32, of
    shapes that broadcast; elementwise. Equal bit for bit under `jax_threefry_partitionable`, JAX's default.

    >>> key = jax.random.key(5)
    >>> k0, k1 = jax.random.key_data(key)
    >>> bool(fold_in_bits(k0, k1, jnp.uint32(7)) == jax.random.bits(jax.random.fold_in(key, 7), (), jnp.uint32))
    True
    """
    zero = jnp.zeros_like(step)
    # The folded key is the hash of (0, step), and the first bits it gives are the hash of the counter (0, 0).
    high, low = _hash(*_hash(k0, k1, zero, step), zero, zero)
    return high ^ low


def _hash(k0: Array, k1: Array, x0: Array, x1: Array) -> tuple[Array, Array]:
    """Threefry-2x32 with 20 rounds: the two words (x0, x1) under the key (k0, k1)."""
    keys = (k0, k1, k0 ^ k1 ^ _PARITY)
    x0, x1 = x0 + k0, x1 + k1
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x0 = x0 + x1
            rotated = (x1 << np.uint32(rotation)) | jax.lax.shift_right_logical(x1, jnp.full_like(x1, 32 - rotation))
            x1 = x0 ^ rotated
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def thresholds(weights: Float[Array, " n"]) -> UInt32[Array, " n-1"]:
    """The borders between the bits of neighbouring points: 2^32 (q_1 + ... + q_i), i = 1, ..., n - 1, as integers.

    Bits are compared as integers, so that runs in float32 and in float64 draw the same points.

    >>> (thresholds(jnp.array([0.25, 0.25, 0.5])) / 2.0**32).tolist()
    [0.25, 0.5]
    """
    # The largest float32 below 2^32: a cumulative weight that rounds up to 1 must not overflow.
    ceiling = 4294967040.0
    return jnp.minimum(jnp.cumsum(weights)[:-1] * 2.0**32, ceiling).astype(jnp.uint32)


def draw(bits: UInt32[Array, "*shape"], thresholds: UInt32[Array, " borders"]) -> Int32[Array, "*shape"]:
    """The point drawn by random `bits`, 0 <= i < n: the number of `thresholds` that they reach; elementwise in `bits`.

    >>> draw(jnp.array([5, 2**31, 2**32 - 1], jnp.uint32), thresholds(jnp.array([0.25, 0.25, 0.5]))).tolist()
    [0, 2, 2]
    """
    return jnp.sum(bits[..., None] >= thresholds, axis=-1, dtype=jnp.int32)
