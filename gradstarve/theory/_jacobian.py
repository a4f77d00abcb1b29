"""The kernel of any JAX model on its data: exact, within a given budget of memory (section 14).

`apply(params, x)` is any JAX function that returns one logit per sample: `params` any pytree (its floating-point arrays are
trained, everything else is constant; close over arrays that are not trained), `x` an array [n, ...] or a pytree of
arrays, the result [n] or [n, 1]. Labels are ±1 and margins m = Y f, Y = diag(y). The rows of Y Phi [n, P] are the gradients
of single margins, one backward pass each; K = Y Phi Phi^T Y is computed block by block, or only multiplied with vectors
(`kernel_product`). Samples must not interact in `apply`: batch normalisation has to run in its inference mode.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float

from gradstarve.ground import Progress, any_array, as_number, is_concrete, positive_int, readable, real_arrays, shown

__all__ = [
    "LinearRegimeWarning",
    "check_linear_regime",
    "cross_kernel",
    "kernel_change",
    "kernel_product",
    "margin_jacobian",
    "margin_kernel",
    "margins",
]

_BUDGET = 2**30  # bytes
_COPIES = 4  # two blocks of rows, and the memory to compute one of them
_PROBED = 32  # the number of samples that are tested for interactions in `apply`


class LinearRegimeWarning(UserWarning):
    """The kernel of a network has changed so much that the laws of its linearisation no longer describe it."""


class _Model(eqx.Module):
    """`apply`, the structure of its trained parameters, and the constants."""

    trained: Any
    held: Any
    apply: Callable[[Any, Any], Any] = eqx.field(static=True)

    def outputs(self, trained: Any, x: Any) -> Array:
        """Logits [n] of the samples `x`."""
        found = self.apply(eqx.combine(trained, self.held), x)
        return found.reshape(found.shape[0])

    @property
    def size(self) -> int:
        return sum(leaf.size for leaf in jax.tree.leaves(self.trained))

    @property
    def itemsize(self) -> int:
        return jnp.result_type(*jax.tree.leaves(self.trained)).itemsize


def margins(apply, params, x, y) -> Float[Array, " n"]:
    """Signed outputs m = y f(x) [n] of a model; arguments and errors as in `margin_jacobian`, one class is enough.

    >>> margins(lambda w, x: x @ w, jnp.array([1.0, 2.0]), jnp.eye(2), [1, -1]).tolist()
    [1.0, -2.0]
    """
    model, x, y = _checked(apply, params, x, y, both=False)
    return _margins(model, x, y)


def margin_jacobian(apply, params, x, y, memory=None) -> Float[Array, "n P"]:
    """Y Phi [n, P]: the gradient of each margin y_i f(x_i) in all P trained numbers, one sample a row.

    Columns are in the order of `jax.flatten_util.ravel_pytree(equinox.filter(params, equinox.is_inexact_array))`.
    `memory`: bytes for the rows, default 1 GiB.

    `ValueError` for: labels `y` [n] other than ±1 or all of one class, `x` whose leaves have not n rows, a model whose
    output is not [n] or [n, 1], without trained numbers, whose samples depend on each other, a gradient that is not
    finite (with its sample), and a `memory` too small (with what is needed).

    >>> margin_jacobian(lambda w, x: x @ w, jnp.array([1.0, 2.0]), jnp.eye(2), [1, -1]).tolist()
    [[1.0, 0.0], [-0.0, -1.0]]
    """
    model, x, y = _checked(apply, params, x, y)
    count = _rows_at_once(memory, model, y.size, y.size * model.size * model.itemsize, copies=2)
    return jnp.concatenate([_block(model, x, y, first, count) for first in range(0, y.size, count)])


def margin_kernel(apply, params, x, y, memory=None) -> Float[Array, "n n"]:
    """K = Y Phi Phi^T Y [n, n], for `gradstarve.theory.ntk`: symmetric to the bit, positive semi-definite to rounding.

    `memory`: bytes for K and the current rows of Y Phi, default 1 GiB; the memory of a single backward pass, and memory that
    the C library does not return, come on top. If not all rows fit, blocks of rows are
    computed again for each pair of blocks; the result is the same up to rounding. Arguments and errors as in
    `margin_jacobian`.

    >>> x, w = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, 2.0])
    >>> margin_kernel(lambda w, x: x @ w, w, x, [1, -1]).tolist()
    [[1.0, -1.0], [-1.0, 2.0]]
    """
    model, x, y = _checked(apply, params, x, y)
    size = y.size
    count = _rows_at_once(memory, model, size, size * size * model.itemsize)
    starts = range(0, size, count)
    blocks: dict[tuple[int, int], Array] = {}
    with Progress(None, len(starts) ** 2, f"kernel of {size} samples") as bar:
        for first in starts:
            rows = _block(model, x, y, first, count)
            corner = _products(rows, rows)
            blocks[first, first] = jnp.tril(corner) + jnp.tril(corner, -1).T
            for second in starts[starts.index(first) + 1 :]:
                blocks[first, second] = _products(rows, _block(model, x, y, second, count))
                blocks[second, first] = blocks[first, second].T
                bar.update(len(blocks))
    return jnp.block([[blocks[first, second] for second in starts] for first in starts])


def cross_kernel(apply, params, x1, y1, x2, y2, memory=None) -> Float[Array, "n1 n2"]:
    """Y_1 Phi_1 Phi_2^T Y_2 [n1, n2]: the effect of a step on a sample of the second set on a margin of the first.

    With training samples second, dm_1/dt = (this) sigmoid(-m_2) for the margins m_1 of test samples. One class in a set is
    enough; arguments and errors otherwise as in `margin_kernel`.

    >>> x, w = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, 2.0])
    >>> cross_kernel(lambda w, x: x @ w, w, x[1:], [1], x, [1, -1]).tolist()
    [[1.0, -2.0]]
    """
    model, x1, y1 = _checked(apply, params, x1, y1, both=False)
    _, x2, y2 = _checked(apply, params, x2, y2, both=False)
    count = _rows_at_once(memory, model, max(y1.size, y2.size), y1.size * y2.size * model.itemsize)
    lines = []
    for first in range(0, y1.size, count):
        rows = _block(model, x1, y1, first, count)
        parts = [_products(rows, _block(model, x2, y2, second, count)) for second in range(0, y2.size, count)]
        lines.append(jnp.concatenate(parts, axis=1))
    return jnp.concatenate(lines)


def kernel_product(apply, params, x, y) -> Callable[[Any], Float[Array, "..."]]:
    """The map v -> K v, v [n] or [n, k], K = Y Phi Phi^T Y, without K or Phi: a backward and a forward pass per column.

    For models whose Jacobian is too large, in Lanczos or conjugate gradients. Memory is that of training on all n samples
    at once; `apply` must allow forward-mode differentiation. Arguments and errors as in `margin_jacobian`, except that
    gradients are not checked.

    >>> x, w = jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.array([1.0, 2.0])
    >>> kernel_product(lambda w, x: x @ w, w, x, [1, -1])([1.0, 1.0]).tolist()
    [0.0, 1.0]
    """
    model, x, y = _checked(apply, params, x, y)

    return partial(_product, model, x, y)


def _product(model: _Model, x: Any, y: Array, v: Any) -> Array:
    (v,) = real_arrays(v=v)
    if v.ndim not in (1, 2) or v.shape[0] != y.size:
        raise ValueError(f"v must be [n] or [n, k] with n = {y.size} samples, got shape {v.shape}")
    return _multiply(model, x, y, v)


def kernel_change(K0, K1) -> Float[Array, ""]:
    """|K1 - K0| / |K0| in the Frobenius norm: how far training has moved the features, 0 for a linear model.

    >>> round(float(kernel_change([[1.0, 0.0], [0.0, 1.0]], [[1.1, 0.0], [0.0, 1.1]])), 6)
    0.1
    """
    before, after = real_arrays(K0=K0, K1=K1)
    if before.shape != after.shape:
        raise ValueError(f"K0 and K1 must have one shape, got {before.shape} and {after.shape}")
    # In units of the largest entry, so that squares of large kernels are numbers.
    one, both = _unit(before), jnp.maximum(_unit(before), _unit(after))
    size = jnp.linalg.norm(before / one)
    if is_concrete(size) and float(size) == 0:
        raise ValueError("K0 is zero: a network that no weight changes has no features to compare with")
    return jnp.linalg.norm(after / both - before / both) / size * (both / one)


def _unit(kernel: Array) -> Array:
    """The size of the largest entry; 1 if all entries are 0."""
    most = jax.lax.stop_gradient(jnp.max(jnp.abs(kernel), initial=0))
    return jnp.where(most > 0, most, 1)


def check_linear_regime(K0, K1, limit=0.1) -> float:
    """`kernel_change(K0, K1)`, with a `LinearRegimeWarning` if it is above `limit` > 0.

    K0 [n, n] before training and K1 at the end, on the same samples. While the change is small the laws of
    `gradstarve.theory.ntk` describe training; for a larger change, predictions from K0 hold only for its beginning.

    >>> check_linear_regime([[1.0]], [[1.0]])
    0.0
    """
    limit = as_number("limit", limit, 0, with_low=False)
    change = float(kernel_change(K0, K1))
    if not change <= limit:
        warnings.warn(
            f"the kernel has changed by {change:.2g} of its norm (limit {limit:.2g}): the network has left the "
            "linear regime, and laws computed from its first kernel do not describe it beyond the start; take the kernel "
            "at later weights, or train wider networks or smaller steps from a larger start",
            LinearRegimeWarning,
            stacklevel=2,
        )
    return change


# --- checks ----------------------------------------------------------------------------------------------------------


def _checked(apply: Any, params: Any, x: Any, y: Any, both: bool = True) -> tuple[_Model, Any, Array]:
    """The model, its samples as arrays and its labels in the precision of the weights, or a `ValueError`."""
    if not callable(apply):
        raise ValueError(f"apply must be a function apply(params, x), got {shown(apply)}")
    if hasattr(params, "__next__"):
        raise ValueError(f"params must be arrays, or lists, dictionaries and modules of them, got {shown(params)}")
    trained, held = eqx.partition(params, eqx.is_inexact_array)
    leaves = jax.tree.leaves(trained)
    if not leaves:
        raise ValueError("params has no floating-point array, so nothing is trained; give the weights as JAX arrays")
    real_arrays(**{f"params leaf {k}": np.zeros((), leaf.dtype) for k, leaf in enumerate(leaves)})
    labels = _labels(y, both)
    if hasattr(x, "__next__"):
        raise ValueError(f"x must be an array of the samples or a pytree of them, got {shown(x)}")
    x = jax.tree.map(_samples, x)
    for leaf in jax.tree.leaves(x):
        if jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype.itemsize < 4:
            raise ValueError(f"x has dtype {leaf.dtype}; use float32 or float64, for example x.astype('float32')")
        if leaf.ndim == 0 or leaf.shape[0] != labels.size:
            raise ValueError(f"x must have one row for each of the {labels.size} labels, got an array of shape {leaf.shape}")
    if not jax.tree.leaves(x):
        raise ValueError("x has no arrays; give the samples as an array [n, ...] or a pytree of them")
    for count in {labels.size, 1}:
        some = jax.tree.map(lambda leaf: leaf[:count], x)  # noqa: B023
        try:
            shape = eqx.filter_eval_shape(lambda: apply(eqx.combine(trained, held), some))  # noqa: B023
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:200]
            raise ValueError(f"apply(params, x) raises {type(error).__name__}: {first}") from error
        if not hasattr(shape, "shape") or shape.shape not in ((count,), (count, 1)):
            got = f"shape {shape.shape}" if hasattr(shape, "shape") else f"a {type(shape).__name__}"
            raise ValueError(
                f"apply(params, x) must give one logit a sample, [n] or [n, 1], but for {count} sample{'s' * (count > 1)} "
                f"it gave {got}; for two outputs take their difference, for a function of one sample use jax.vmap"
            )
    model = _Model(trained, held, apply)
    _check_independent(model, x, labels.size)
    return model, x, jnp.asarray(labels, jnp.result_type(*leaves))


def _samples(leaf: Any) -> Array:
    """One array of the samples, of numbers of any kind."""
    return jnp.asarray(readable("x", leaf))


def _labels(y: Any, both: bool) -> np.ndarray:
    """Labels [n] of ±1; with `both`, both classes must occur."""
    values = any_array("y", y)
    if values.ndim != 1 or values.size == 0:
        raise ValueError(f"y must be labels [n] with n >= 1, got shape {values.shape}")
    if values.dtype.kind not in "iufb" or values.dtype.kind == "b":
        raise ValueError(f"y must be labels -1 and +1, got {values.dtype} such as {values[0]!r}; use 2 * y - 1 for 0 and 1")
    wrong = np.flatnonzero(~np.isin(values, (-1, 1)))
    if wrong.size:
        raise ValueError(f"y must be labels -1 and +1, got y[{wrong[0]}] = {values[wrong[0]]}; use 2 * y - 1 for 0 and 1")
    if both and np.unique(values).size == 1:
        raise ValueError(f"all {values.size} labels are {values[0]:+g}: with a single class there is nothing to tell apart")
    return values


def _check_independent(model: _Model, x: Any, count: int) -> None:
    """Raise a `ValueError` where the outputs of the first samples change when each is alone in its batch."""
    few = jax.tree.map(lambda leaf: leaf[: min(count, _PROBED)], x)
    together, alone = _together_and_alone(model, few)
    if not is_concrete(together):
        return
    together, alone = np.asarray(together, np.float64), np.asarray(alone, np.float64)
    slack = float(np.sqrt(jnp.finfo(_dtype(model)).eps)) * max(1.0, np.nanmax(np.abs(together), initial=0))
    with np.errstate(invalid="ignore"):
        off = np.abs(together - alone)
    if (off > slack).any():
        i = int(np.nanargmax(off))
        raise ValueError(
            f"the output of sample {i} is {alone[i]:.6g} alone and {together[i]:.6g} in a batch: samples must not see each "
            "other (put batch normalisation and the like into inference mode)"
        )


def _dtype(model: _Model) -> Any:
    """The widest precision of the trained numbers."""
    return jnp.result_type(*jax.tree.leaves(model.trained))


def _rows_at_once(memory: Any, model: _Model, rows: int, result: int, copies: int = _COPIES) -> int:
    """The number of rows of the Jacobian in a block, if the result takes `result` bytes."""
    memory = _BUDGET if memory is None else positive_int("memory", memory)
    row = copies * model.size * model.itemsize
    if memory < result + row:
        raise ValueError(
            f"memory = {memory} bytes is too little: the result takes {result} and one row of the Jacobian at a time {row} "
            f"more; give memory >= {result + row}, or use kernel_product, which stores neither"
        )
    return min(rows, (memory - result) // row)


# --- the numbers -----------------------------------------------------------------------------------------------------


def _block(model: _Model, x: Any, y: Array, first: int, count: int) -> Array:
    """Rows `first` to `first` + `count` of Y Phi, fewer at the end."""
    here = np.arange(first, min(first + count, y.size))
    # The last block is filled up with its last sample, so that every block runs the same program.
    some = np.minimum(np.arange(first, first + count), y.size - 1)
    rows, good = _rows(model, jax.tree.map(lambda leaf: leaf[some], x), y[some])
    if here.size < count:
        rows, good = rows[: here.size], good[: here.size]
    if is_concrete(good) and not np.asarray(good).all():
        i = int(here[np.flatnonzero(~np.asarray(good))[0]])
        raise ValueError(
            f"the gradient of the margin of sample {i} is not finite: look at its input and output, at square roots "
            "and logarithms at zero"
        )
    return rows


@eqx.filter_jit
def _rows(model: _Model, x: Any, y: Array) -> tuple[Array, Array]:
    """The gradients of the margins of a block of samples [count, P], and which of them are finite."""
    flat, unravel = ravel_pytree(model.trained)

    def margin(flat: Array, one: Any, label: Array) -> Array:
        return label * model.outputs(unravel(flat), jax.tree.map(lambda leaf: leaf[None], one))[0]

    rows = jax.vmap(jax.grad(margin), (None, 0, 0))(flat, x, y)
    return rows, jnp.all(jnp.isfinite(rows), axis=-1)


def _products(first: Array, second: Array) -> Array:
    """The products of rows, computed at once: queued work would keep its rows in memory."""
    return jax.block_until_ready(_multiplied(first, second))


@jax.jit
def _multiplied(first: Array, second: Array) -> Array:
    return jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)


@eqx.filter_jit
def _margins(model: _Model, x: Any, y: Array) -> Array:
    return y * model.outputs(model.trained, x)


@eqx.filter_jit
def _together_and_alone(model: _Model, x: Any) -> tuple[Array, Array]:
    alone = jax.vmap(lambda one: model.outputs(model.trained, jax.tree.map(lambda leaf: leaf[None], one))[0])(x)
    return model.outputs(model.trained, x), alone


@eqx.filter_jit
def _multiply(model: _Model, x: Any, y: Array, v: Array) -> Array:
    def signed(trained: Any) -> Array:
        return y * model.outputs(trained, x)

    pull = jax.vjp(signed, model.trained)[1]
    push = jax.linearize(signed, model.trained)[1]
    multiply = lambda u: push(pull(u.astype(y.dtype))[0])  # noqa: E731
    return multiply(v) if v.ndim == 1 else jax.vmap(multiply, 1, 1)(v)
