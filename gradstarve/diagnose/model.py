"""A user's model as one function of parameters and samples that gives one logit a sample, whatever it was written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from gradstarve.arrays import check_finite
from gradstarve.diagnose.tags import read_labels
from gradstarve.problem import Dataset


def read_data(data: Any) -> tuple[Array, np.ndarray]:
    """Inputs [n, ...] and labels ±1 [n] of a `Dataset` or a pair (x, y), checked."""
    if isinstance(data, Dataset):
        weights = np.asarray(data.weights, np.float64)
        if np.ptp(weights) > 1e-4 * weights.mean():
            raise ValueError(
                f"the weights of the points go from {weights.min():.3g} to {weights.max():.3g}, but every sample counts once "
                "here; repeat points, and give (x, y)"
            )
        return data.points, read_labels(data.labels)
    if not isinstance(data, tuple | list) or len(data) != 2:
        raise ValueError(f"data must be a Dataset or a pair (x, y) of samples [n, ...] and labels ±1 [n], got {type(data).__name__}")
    x = np.asarray(data[0])
    if x.dtype.kind not in "biuf" or x.ndim == 0:
        raise ValueError(f"x must be an array of numbers [n, ...], got {x.dtype} of shape {x.shape}")
    if x.dtype.kind == "f":
        check_finite("x", x)
        x = x.astype(jnp.result_type(float)) if x.dtype.itemsize == 8 else x
    return jnp.asarray(x), read_labels(data[1], len(x))


def as_function(apply: Any, params: Any, x: Array) -> tuple[Callable[[Any, Array], Array], Any]:
    """f(params, x) -> [n] and its parameters. `apply(params, x)` takes a batch; with params None `apply` is the model itself, an
    equinox module or another callable pytree, of one sample (as is usual there) or of a batch. `ValueError` for other shapes."""
    if not callable(apply):
        raise ValueError(f"apply must be a function apply(params, x) or a model to call, got {type(apply).__name__}")
    if params is not None:
        shape = _shape_of(lambda p: apply(p, x), params, f"apply(params, x) with x of shape {x.shape}")
        _check_output(shape, len(x), "apply(params, x)")
        return lambda p, x: apply(p, x).reshape(len(x)), params
    leaves, static = eqx.partition(apply, eqx.is_inexact_array)
    if not jax.tree.leaves(leaves):
        raise ValueError(
            "params is None, but apply holds no parameters itself; give apply(params, x) and params, or an equinox model"
        )

    def each(p, x):
        return jax.vmap(eqx.combine(p, static))(x)

    def batch(p, x):
        return eqx.combine(p, static)(x)

    failures = []
    for function, what in ((each, "the model, called on one sample at a time,"), (batch, "the model, called on the batch,")):
        try:
            shape = _shape_of(lambda p, f=function: f(p, x), leaves, what)
            _check_output(shape, len(x), what)
        except ValueError as error:
            failures.append(str(error))
            continue
        return lambda p, x, f=function: f(p, x).reshape(len(x)), leaves
    raise ValueError("; ".join(failures))


def _shape_of(function: Callable, params: Any, what: str) -> tuple[int, ...]:
    try:
        out = jax.eval_shape(function, params)
    except Exception as error:
        raise ValueError(f"{what} fails: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}") from error
    if not hasattr(out, "shape"):
        raise ValueError(f"{what} must give an array of logits, got {type(out).__name__}; return the logits alone")
    return out.shape


def _check_output(shape: tuple[int, ...], n: int, what: str) -> None:
    if shape not in ((n,), (n, 1)):
        fix = "reduce the other axes"
        if len(shape) == 2 and shape[0] == n:
            fix = "for two classes give the difference of their logits" if shape[1] == 2 else "keep two classes, and give one logit"
        raise ValueError(f"{what} must give one logit a sample, [{n}] or [{n}, 1], got shape {shape}; {fix}")


def logits(function: Callable[[Any, Array], Array], params: Any, x: Array) -> np.ndarray:
    """f(params, x) as float64 [n]; `ValueError` where it is not finite."""
    values = np.asarray(function(params, x), np.float64)
    bad = ~np.isfinite(values)
    if bad.any():
        first = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"the model gives {values[first]} at sample {first} ({int(bad.sum())} such samples); check its parameters and the "
            "scale of x"
        )
    return values
