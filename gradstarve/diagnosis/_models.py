"""A user's model and data as the report needs them: margins and kernels, whatever the model is written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.diagnosis._groups import read_labels
from gradstarve.ground import check_finite, readable, shown
from gradstarve.problem import Dataset
from gradstarve.theory import jacobian


@dataclass(eq=False)
class Model:
    """`apply(params, x)` on the samples `x` with labels ±1 [n], at the parameters `params` the report is about."""

    apply: Any
    params: Any
    x: Any
    labels: np.ndarray
    memory: Any
    _kernel: np.ndarray | None = field(default=None, repr=False)

    def margins(self, params: Any) -> np.ndarray:
        """y f [n] in float64; `ValueError` where one is not finite."""
        values = np.asarray(jacobian.margins(self.apply, params, self.x, self.labels), np.float64)
        bad = np.flatnonzero(~np.isfinite(values))
        if bad.size:
            raise ValueError(
                f"the model gives {self.labels[bad[0]] * values[bad[0]]} for sample {bad[0]} ({bad.size} such samples): "
                "check its parameters and the scale of x"
            )
        return values

    def kernel(self) -> np.ndarray:
        """K [n, n] in float64, at `params`."""
        if self._kernel is None:
            self._kernel = self._kernel_at(self.params)
        return self._kernel

    def kernel_change(self, params: Any) -> float:
        """|K(params) - K| / |K|."""
        return float(np.linalg.norm(self._kernel_at(params) - self.kernel()) / np.linalg.norm(self.kernel()))

    def _kernel_at(self, params: Any) -> np.ndarray:
        return np.asarray(jacobian.margin_kernel(self.apply, params, self.x, self.labels, self.memory), np.float64)


def read_model(apply: Any, params: Any, data: Any, memory: Any) -> Model:
    """The arguments of `starvation_report` as a `Model`. With params None `apply` is the model itself: an equinox module or
    another callable pytree, of one sample (as is usual there) or of a batch."""
    if not callable(apply):
        got = f"{type(apply).__name__} {shown(apply)}"
        raise ValueError(f"apply must be a function apply(params, x), or a model to call, got {got}")
    x, labels = _read_data(data)
    if params is not None:
        return Model(apply, params, x, labels, memory)
    if not jax.tree.leaves(eqx.filter(apply, eqx.is_inexact_array)):
        raise ValueError(
            "params is None, but apply holds no parameters itself; give apply(params, x) and params, or an equinox model"
        )
    fails = []
    for way, what in ((_on_each, "one sample at a time"), (_on_batch, "the batch")):
        try:
            shape = eqx.filter_eval_shape(way, apply, x).shape
        except Exception as error:
            fails.append(f"called on {what} it raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            continue
        if shape in ((len(labels),), (len(labels), 1)):
            return Model(way, apply, x, labels, memory)
        fails.append(f"called on {what} it gives shape {shape}")
    raise ValueError(
        f"the model must give one logit a sample, [{len(labels)}] or [{len(labels)}, 1] in all, but {'; '.join(fails)}"
    )


def _on_each(model: Any, x: Any) -> Any:
    return jax.vmap(model)(x)


def _on_batch(model: Any, x: Any) -> Any:
    return model(x)


def _read_data(data: Any) -> tuple[Any, np.ndarray]:
    if isinstance(data, Dataset):
        weights = np.asarray(data.weights, np.float64)
        if np.ptp(weights) > 1e-4 * weights.mean():
            raise ValueError(
                f"the weights of the points go from {weights.min():.3g} to {weights.max():.3g}, but every sample counts "
                "once here; repeat points, and give (x, y)"
            )
        return data.points, read_labels(data.labels)
    if not isinstance(data, tuple | list) or len(data) != 2:
        got = f"{type(data).__name__} of {len(data)}" if isinstance(data, tuple | list) else type(data).__name__
        raise ValueError(f"data must be a Dataset or a pair (x, y) of samples [n, ...] and labels ±1 [n], got {got}")
    if hasattr(data[0], "__next__"):
        raise ValueError(f"x must be an array of numbers [n, ...], got {shown(data[0])}")
    x = jax.tree.map(_samples, data[0])
    labels = read_labels(data[1])
    for leaf in jax.tree.leaves(x):
        if len(leaf) != len(labels):
            raise ValueError(f"x has {len(leaf)} samples and y {len(labels)} labels; give one label a sample")
    return x, labels


def _samples(leaf: Any) -> Any:
    try:
        array = np.asarray(readable("x", leaf))
    except ValueError as error:
        raise ValueError(f"x must be an array of numbers [n, ...]: {error}") from None
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(f"x must be an array of numbers [n, ...], got {array.dtype} of shape {array.shape}")
    if array.dtype.kind == "f":
        check_finite("x", array)
        if array.dtype == np.float64:
            array = array.astype(jnp.result_type(float))
    return jnp.asarray(array)
