"""Gradients that need not be formed: of a matrix that a sample meets in one product, they are outer products.

Where a weight matrix W enters a network by W x alone, and x is one vector a sample, d f / d W = b x^T with the gradient b of
f in the product. So its part of the kernel is the product of two small Gram matrices, entry by entry,

    <d f_i / d W, d f_j / d W> = (x_i . x_j) (b_i . b_j),

and a layer of d times e weights costs d + e numbers a sample. Here x and b are found: in JAX from the program itself, in
which the one product is looked for; in PyTorch from hooks on `nn.Linear`, and on `nn.Conv2d`, whose gradients are sums over
places of b x^T and cheap to add up. What hooks find is compared with the gradients of autograd for two samples first. What
is used in any other way keeps its gradients in full.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

_SAVES = 2
"""A gradient is taken apart where that makes it shorter by at least this factor."""


def shorter(shape: tuple[int, ...]) -> bool:
    """Whether the gradient of a matrix of this shape is much longer than its two factors.

    >>> shorter((100, 200)), shorter((1, 200))
    (True, False)
    """
    return len(shape) == 2 and shape[0] * shape[1] >= _SAVES * (shape[0] + shape[1])


# JAX: the program of one sample, walked from operation to operation.


@dataclass
class _Weight:
    """A matrix on its way to its product: which leaf it is, and its value, perhaps turned."""

    leaf: int
    value: Any


class _Walk:
    """One evaluation of a program, in which every matrix of `chosen` meets its vector: `seen`, and `shapes` of products.

    With `shifts` the product of leaf k has shifts[k] added, whose gradient is b. `spoilt`: leaves used in any other way.
    """

    def __init__(self, shifts: dict[int, Any] | None = None):
        self.shifts = {} if shifts is None else shifts
        self.seen: dict[int, Any] = {}
        self.shapes: dict[int, Any] = {}
        self.spoilt: set[int] = set()

    def run(self, jaxpr: Any, consts: Any, inputs: list[Any]) -> list[Any]:
        """The outputs of `jaxpr`."""
        known: dict[Any, Any] = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *inputs], strict=True))

        def read(var: Any) -> Any:
            return var.val if isinstance(var, core.Literal) else known[var]

        for step in jaxpr.eqns:
            given = [read(var) for var in step.invars]
            found = self._step(step, given)
            known.update(zip(step.outvars, found, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _step(self, step: Any, given: list[Any]) -> list[Any]:
        weights = [one for one in given if isinstance(one, _Weight)]
        name = step.primitive.name
        if weights and name in ("jit", "pjit"):
            inner = step.params["jaxpr"]
            return self.run(inner.jaxpr, inner.consts, given)
        if weights and name == "transpose":
            (one,) = given
            return [_Weight(one.leaf, self._bind(step, [one.value])[0])]
        values = [one.value if isinstance(one, _Weight) else one for one in given]
        found = self._bind(step, values)
        if not weights:
            return found
        if name == "dot_general" and len(weights) == 1:
            one = weights[0]
            side = next(i for i, value in enumerate(given) if value is one)
            contracted, batched = step.params["dimension_numbers"]
            other, (axis, *more) = values[1 - side], contracted[1 - side]
            vector = not more and not any(batched) and other.size == other.shape[axis]
            if vector and one.leaf not in self.seen:
                self.seen[one.leaf] = other.reshape(-1)
                self.shapes[one.leaf] = jax.ShapeDtypeStruct(found[0].shape, found[0].dtype)
                shift = self.shifts.get(one.leaf)
                return found if shift is None else [found[0] + shift]
        self.spoilt.update(one.leaf for one in weights)
        return found

    @staticmethod
    def _bind(step: Any, values: list[Any]) -> list[Any]:
        options = step.primitive.get_bind_params(step.params)
        functions, options = options if isinstance(options, tuple) else ((), options)  # before jax 0.10 a pair
        found = step.primitive.bind(*functions, *values, **options)
        return list(found) if step.primitive.multiple_results else [found]


def _walked(program: Any, leaves: list[Any], x: Any, chosen: list[int], walk: _Walk) -> Any:
    inputs = [_Weight(k, leaf) if k in chosen else leaf for k, leaf in enumerate(leaves)]
    (found,) = walk.run(program.jaxpr, program.consts, [*inputs, *jax.tree.leaves(x)])
    if isinstance(found, _Weight):
        walk.spoilt.add(found.leaf)
        found = found.value
    return found


def jax_parts(one: Callable[[Any, Any], Any], trained: Any, x: Any) -> list[tuple[Any, ...]]:
    """The gradients of the outputs one(trained, x_i) [C] of samples x [N, ...], as parts whose products add up: each a tuple
    of arrays [N, C or 1, width], of which the Gram matrices are multiplied entry by entry."""
    leaves, structure = jax.tree.flatten(trained)
    first = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), x)

    def flat(leaves: list[Any], x: Any) -> Any:
        return one(jax.tree.unflatten(structure, leaves), x)

    program = jax.make_jaxpr(flat)(leaves, first)
    large = [k for k, leaf in enumerate(leaves) if shorter(leaf.shape)]
    look = _Walk()
    jax.eval_shape(lambda leaves, x: _walked(program, leaves, x, large, look), leaves, first)
    chosen = [k for k in large if k in look.seen and k not in look.spoilt]
    rest = [k for k in range(len(leaves)) if k not in chosen]

    def of_sample(x: Any) -> Any:
        def shifted(shifts: dict[int, Any], others: dict[int, Any]) -> Any:
            walk = _Walk(shifts)
            found = _walked(program, [others.get(k, leaf) for k, leaf in enumerate(leaves)], x, chosen, walk)
            return found, {k: walk.seen[k] for k in chosen}

        shifts = {k: jnp.zeros(look.shapes[k].shape, look.shapes[k].dtype) for k in chosen}
        others = {k: leaves[k] for k in rest}
        (back, full), seen = jax.jacrev(shifted, (0, 1), has_aux=True)(shifts, others)
        outputs = program.out_avals[0].shape[0]
        return (
            {k: (seen[k][None], back[k].reshape(outputs, -1)) for k in chosen},
            {k: full[k].reshape(outputs, -1) for k in rest},
        )

    apart, whole = jax.vmap(of_sample)(x)
    return [*apart.values(), *((part,) for part in whole.values())]


# PyTorch: hooks on the layers.


class TorchLayers:
    """The linear layers and convolutions of `module` whose parameters, `names` [names of weight and bias], are met once in a
    forward pass and by nothing else."""

    def __init__(self, module: Any, names: list[str]):
        from torch import nn  # pyright: ignore[reportMissingImports]

        owners: dict[int, int] = {}
        for part in module.modules():
            for one in part.parameters(recurse=False):
                owners[id(one)] = owners.get(id(one), 0) + 1
        self.layers: dict[str, tuple[Any, list[str]]] = {}
        for path, part in module.named_modules():
            plain = type(part) is nn.Linear or (
                type(part) is nn.Conv2d and part.groups == 1 and part.padding_mode == "zeros" and part.padding != "same"
            )
            if not plain or "forward" in vars(part):
                continue
            prefix = f"{path}." if path else ""
            own = dict(part.named_parameters(recurse=False))
            found = [name for name, one in own.items() if prefix + name in names and owners[id(one)] == 1]
            if found and set(own) <= {"weight", "bias"}:
                self.layers[prefix] = (part, found)

    def parts(self, out: Callable[[], Any], samples: int) -> dict[str, tuple[Any, ...]] | None:
        """The factors of the gradients by name, arrays [N, C or 1, width], for out() [N, C]; None where a layer is not met
        once, by one vector or image a sample."""
        import torch  # pyright: ignore[reportMissingImports]

        seen: dict[str, tuple[Any, Any]] = {}
        wrong: list[str] = []

        def hook(prefix: str, layer: Any) -> Any:
            axes = 2 if type(layer) is torch.nn.Linear else 4

            def called(_: Any, given: Any, found: Any) -> Any:
                if prefix in seen or found.ndim != axes or given[0].ndim != axes or len(found) != samples:
                    wrong.append(prefix)
                    return found
                shift = torch.zeros_like(found, requires_grad=True)
                seen[prefix] = (given[0].detach(), shift)
                return found + shift

            return called

        handles = [layer.register_forward_hook(hook(prefix, layer)) for prefix, (layer, _) in self.layers.items()]
        try:
            with torch.enable_grad():
                found = out()
        finally:
            for handle in handles:
                handle.remove()
        if wrong or len(seen) < len(self.layers) or found.shape[0] != samples:
            return None
        shifts = [shift for _, shift in seen.values()]
        columns = []
        for c in range(found.shape[1]):
            last = c == found.shape[1] - 1
            back = torch.autograd.grad(found[:, c].sum(), shifts, retain_graph=not last, allow_unused=True)
            columns.append([torch.zeros_like(s) if b is None else b for s, b in zip(shifts, back, strict=True)])
        gradients: dict[str, tuple[Any, ...]] = {}
        with torch.no_grad():
            for (prefix, (x, _)), *backs in zip(seen.items(), *columns, strict=True):
                layer, names = self.layers[prefix]
                of = _of_linear if type(layer) is torch.nn.Linear else _of_convolution
                parts = of(layer, x, torch.stack(backs, 1))
                gradients |= {prefix + name: parts[name] for name in names}
        return gradients


def _of_linear(_: Any, x: Any, back: Any) -> dict[str, tuple[Any, ...]]:
    """Of x [N, d] and b [N, C, e]."""
    return {"weight": (x[:, None], back), "bias": (back,)}


def _of_convolution(layer: Any, x: Any, back: Any) -> dict[str, tuple[Any, ...]]:
    """Of images [N, d, ., .] and b [N, C, e, ., .]: sums over the places at which the kernel stands."""
    from torch.nn.functional import unfold  # pyright: ignore[reportMissingImports]

    padding = (0, 0) if layer.padding == "valid" else layer.padding
    seen = unfold(x, layer.kernel_size, layer.dilation, padding, layer.stride)
    back = back.flatten(3)
    return {"weight": ((back @ seen[:, None].transpose(2, 3)).flatten(2),), "bias": (back.sum(3),)}


def same_gradient(factors: tuple[Any, ...], full: Any) -> bool:
    """Whether the gradient of one factor, or b x^T of two, is `full` [N, C, P_l], to rounding."""
    found = factors[0] if len(factors) == 1 else (factors[1][..., :, None] * factors[0][..., None, :]).flatten(2)
    return float(abs(found - full).max()) <= 1e-4 * float(abs(full).max())


def _broadcast(part: Any, shape: tuple[int, ...]) -> Any:
    if isinstance(part, np.ndarray):
        return np.broadcast_to(part, shape)
    return jnp.broadcast_to(part, shape) if isinstance(part, jax.Array) else part.expand(shape)


def stacked(parts: list[tuple[Any, ...]], rows: int, outputs: int) -> list[tuple[Any, ...]]:
    """Parts [N, C or 1, width] as [rows, width] each: a row a sample and output, or one of all outputs of a sample side by
    side where `outputs` is 1, so that products are sums over outputs."""

    def flat(part: Any) -> Any:
        samples = len(part)
        if part.shape[1] == 1 and outputs > 1:
            wide = (samples, outputs, part.shape[2])
            part = _broadcast(part, wide)
        return part.reshape(rows, -1)

    return [tuple(flat(part) for part in factors) for factors in parts]
