"""The sizes that are timed, and one random problem of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

STEP_SIZE = 0.05
RECORD_EVERY = 50


class Size(NamedTuple):
    """B networks of h neurons, n points in d dimensions, T steps of full-batch descent with cross-entropy."""

    name: str
    B: int
    h: int
    d: int
    n: int
    T: int

    @property
    def flops(self) -> int:
        """Arithmetic of a run, counted as in 4 n h d + 6 n h + 20 n + 2 h (d + 1) per network and step."""
        n, h, d = self.n, self.h, self.d
        return self.B * self.T * (4 * n * h * d + 6 * n * h + 20 * n + 2 * h * (d + 1))


S1 = Size("S1", 4096, 8, 2, 2, 2000)
S2 = Size("S2", 1024, 16, 8, 16, 1000)
S3 = Size("S3", 256, 64, 32, 64, 500)


class Problem(NamedTuple):
    """Points [n, d], labels [n], weights [n], w [B, h, d], z [B, h]; NumPy, float32 numbers whatever the dtype."""

    x: np.ndarray
    y: np.ndarray
    q: np.ndarray
    w: np.ndarray
    z: np.ndarray


def problem(size: Size, dtype: type = np.float32, seed: int = 0) -> Problem:
    """The random problem of `size`; the same numbers in float32 and float64."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(size.n, size.d)).astype(np.float32)
    y = np.where(rng.random(size.n) < 0.5, -1, 1).astype(np.float32)
    y[:2] = [1, -1][: size.n]
    q = np.full(size.n, 1 / size.n, np.float32)
    w = (0.3 * rng.normal(size=(size.B, size.h, size.d))).astype(np.float32)
    z = (0.3 * rng.normal(size=(size.B, size.h))).astype(np.float32)
    return Problem(*(values.astype(dtype) for values in (x, y, q, w, z)))
