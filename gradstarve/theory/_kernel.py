"""What a kernel K = Y Phi Phi^T Y is made of (section 14): checks, a factor accurate in small rows too, its features."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_positive, is_concrete, real_arrays


def check_kernel(K: Any, **beside: Any) -> tuple[Array, ...]:
    """K and the named values as arrays of one precision; `ValueError` unless K is square, symmetric and without negative
    eigenvalues, up to the root of the rounding."""
    arrays = real_arrays(K=K, **beside)
    kernel = arrays[0]
    if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1] or kernel.shape[0] == 0:
        raise ValueError(f"K must be a square matrix [n, n] with n >= 1, got shape {kernel.shape}")
    if is_concrete(kernel):
        values = np.asarray(kernel, np.float64)
        slack = float(np.sqrt(jnp.finfo(kernel.dtype).eps))
        off = np.abs(values - values.T)
        if off.max() > slack * np.abs(values).max():
            i, j = np.unravel_index(np.argmax(off), off.shape)
            raise ValueError(
                f"K must be symmetric, but K[{i}, {j}] = {values[i, j]:.6g} and K[{j}, {i}] = {values[j, i]:.6g}; "
                "give Y Phi Phi^T Y, or (K + K.T) / 2"
            )
        least, most = np.linalg.eigvalsh((values + values.T) / 2)[[0, -1]]
        if least < -slack * max(most, 0):
            raise ValueError(
                f"K must be positive semi-definite, but has the eigenvalue {least:.6g} (the largest is {most:.6g}); "
                "give Y Phi Phi^T Y, labels on both sides"
            )
    return (jnp.tril(kernel) + jnp.tril(kernel, -1).T, *arrays[1:])


def check_strength(name: str, value: Array) -> None:
    """Raise a `ValueError` unless `value` is one number > 0."""
    if value.ndim:
        raise ValueError(f"{name} must be one number, got shape {value.shape}; vmap over several")
    check_positive(name, value)
    if is_concrete(value) and float(value) < float(jnp.finfo(value.dtype).tiny):
        raise ValueError(f"{name} = {float(value)} is subnormal in {value.dtype}, where compiled code takes it for 0")


def factor(K: Float[Array, "n n"]) -> Float[Array, "n n"]:
    """B with B B^T = K by Cholesky's method with pivots: columns of zeros beyond the rank.

    Rows of very different size each keep their own relative accuracy: |B B^T - K|_ij is a few n roundings of
    sqrt(K_ii K_jj). A row that the rows before it explain up to 2 n roundings of its own diagonal is taken to depend on
    them: it gets no column of its own, but entries in all columns. (A remainder of a part e of its diagonal can still be
    sqrt(e) of its products with rows that come later, so its entries in their columns cannot be left out.)
    """
    size, diagonal = K.shape[0], jnp.maximum(jnp.diagonal(K), 0)
    least = 2 * size * jnp.finfo(K.dtype).eps * diagonal

    def column(k, state):
        rest, left, free, columns = state
        # The largest remainder, each against the size of its row: a small row is not mistaken for a dependent one.
        share = jnp.where(free & (left > least), left, 0)
        pivot = jnp.argmax(share)
        height = share[pivot]
        new = jnp.where(height > 0, rest[:, pivot] / jnp.sqrt(jnp.where(height > 0, height, 1)), 0)
        new = jnp.where(free, new, 0)
        rest = rest - new[:, None] * new
        left = jnp.maximum(left - new**2, 0)
        return rest, left, free & (jnp.arange(size) != pivot), columns.at[:, k].set(new)

    return jax.lax.fori_loop(0, size, column, (K, diagonal, diagonal > 0, jnp.zeros_like(K)))[3]


def features(K) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """Strengths s^2 [n], falling, and features U [n, n], one a column: K = U diag(s^2) U^T, K [n, n] = Y Phi Phi^T Y.

    The response of feature i is z_i = U[:, i] . m, m = Y f (signed outputs, labels ±1). Signs are such that U^T 1 >= 0:
    the force on z_i is up at the start. Where strengths agree (to rounding, relative to the largest) only the space that
    their features span is determined, and any basis of it may come back; where the sum of a feature is zero to rounding,
    its largest entry is positive. Strengths below n roundings of the largest are 0. `ValueError` for a K that is not
    symmetric and positive semi-definite, or has entries that are not finite.

    >>> strengths, U = features([[2.0, 1.0], [1.0, 2.0]])
    >>> [round(float(s), 5) for s in strengths], [round(float(u), 4) for u in U[:, 0]]
    ([3.0, 1.0], [0.7071, 0.7071])
    """
    (kernel,) = check_kernel(K)
    return _features(kernel)


@jax.jit
def _features(kernel: Array) -> tuple[Array, Array]:
    strengths, U = jnp.linalg.eigh(kernel)
    strengths, U = strengths[::-1], U[:, ::-1]
    noise = kernel.shape[0] * jnp.finfo(kernel.dtype).eps
    strengths = jnp.where(strengths > noise * jnp.max(jnp.abs(strengths)), strengths, 0)
    total = jnp.sum(U, axis=0)
    largest = jnp.take_along_axis(U, jnp.argmax(jnp.abs(U), axis=0)[None], axis=0)[0]
    up = jnp.where(jnp.abs(total) > noise, total, largest) >= 0
    return strengths, jnp.where(up, U, -U)
