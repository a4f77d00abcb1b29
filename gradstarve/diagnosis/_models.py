"""A user's model as the report needs it: logits, and the kernel of its gradients, whatever the model is written in.

A `Model` gives logits f [N, C] of its samples and blocks of rows of its Jacobian, one a sample and output, in parts whose
products add up: the gradients of a parameter array, or the two factors of them (`_factors`). The kernel is gathered from
pairs of blocks, so that no more of the Jacobian is ever held than fits the memory given.
"""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.diagnosis._factors import TorchLayers, jax_parts, same_gradient, stacked
from gradstarve.ground import Progress, positive_int, shown
from gradstarve.theory import jacobian

_BUDGET = 2**30  # bytes
_BLOCK = 128  # samples whose gradients are computed together, at most
_FORWARD = 256  # samples whose logits are computed together


class Model:
    """`x`: all samples, a pytree of NumPy arrays [N, ...]; `outputs`: C; `params`: the parameters the report is about."""

    params: Any
    x: Any
    outputs: int
    memory: Any
    notes: tuple[str, ...] = ()

    def logits(self, params: Any = None) -> np.ndarray:
        """f [N, C] in float64; `ValueError` where one is not finite. Two outputs of two classes are their difference."""
        found = np.asarray(self._logits(self.params if params is None else params), np.float64)
        bad = np.flatnonzero(~np.isfinite(found).all(1))
        if bad.size:
            raise ValueError(
                f"the model gives {found[bad[0]][~np.isfinite(found[bad[0]])][0]} for sample {bad[0]} ({bad.size} such "
                "samples): check its parameters and the scale of x"
            )
        return found

    def kernel(
        self, params: Any = None, samples: Any = None, progress: Any = None, alike: bool = False
    ) -> np.ndarray:
        """Phi Phi^T in float64, [N C, N C]; of `samples` alone if given; where outputs are taken to be `alike`, [N, N], the
        mean over outputs."""
        params = self.params if params is None else params
        chosen = np.arange(len(self)) if samples is None else np.asarray(samples)
        outputs = 1 if alike else self.outputs

        def rows(here: np.ndarray) -> list[Any]:
            return stacked(self._rows(params, chosen[here]), len(here) * outputs, outputs)

        row_bytes = self._row_bytes * (self.outputs // outputs)
        return gather(rows, len(chosen), outputs, row_bytes, self.budget, progress) / (self.outputs // outputs)

    @property
    def budget(self) -> int:
        """Bytes for the kernel and the gradients at hand."""
        return _BUDGET if self.memory is None else positive_int("memory", self.memory)

    @property
    def fits(self) -> bool:
        """Whether the kernel of all pairs of outputs takes no more than half of the memory."""
        return (len(self) * self.outputs) ** 2 * 16 <= self.budget

    def __len__(self) -> int:
        return len(jax.tree.leaves(self.x)[0])

    def holds(self, trained: Any) -> bool:
        """Whether `trained` are parameters of this model."""
        raise NotImplementedError

    def moved(self, steps: np.ndarray) -> Any:
        """The parameters moved by sum_ic steps_ic d f_c(x_i) / d theta, for `steps` [n, C] of the first n samples."""
        raise NotImplementedError

    @property
    def _row_bytes(self) -> int:
        """Of the parts of one row, a sample and output."""
        raise NotImplementedError

    @property
    def rounding(self) -> float:
        """Of the coarsest of the parameters: how exact gradients and their products are."""
        raise NotImplementedError

    def _logits(self, params: Any) -> np.ndarray:
        raise NotImplementedError

    def _rows(self, params: Any, samples: np.ndarray) -> list[tuple[Any, ...]]:
        """Parts of the gradients, each of one factor or of two, arrays [len(samples), C or 1, width]."""
        raise NotImplementedError


def gather(
    rows: Callable[[np.ndarray], list[tuple[Any, ...]]],
    count: int,
    outputs: int,
    row_bytes: int,
    memory: int,
    progress: Any = None,
) -> np.ndarray:
    """The products of all pairs of rows, [count * outputs, count * outputs] in float64, in about `memory` bytes.

    `rows(samples)` is a list of parts, whose products add up; each is a tuple of blocks [len(samples) * outputs, width],
    whose products are multiplied. A part of the rows that fits is kept, and the others are computed once for each such part.
    """
    size = count * outputs
    result = size * size * 8
    one = outputs * row_bytes
    if memory < result + 4 * one:
        raise ValueError(
            f"memory = {memory} bytes is too little: the kernel takes {result} and the gradients of one sample at a time "
            f"{4 * one} more; give memory >= {result + 4 * one}"
        )
    block = int(np.clip((memory - result) // (8 * one), 1, _BLOCK))
    # Beside the rows kept there is the block at hand, and what making it takes.
    kept = max(1, (memory - result - 4 * block * one) // (block * one)) * block
    kernel = np.empty((size, size))
    starts = range(0, count, kept)
    total = sum(count - first for first in starts)
    with Progress(progress, total, f"kernel of {count} samples", "samples") as bar:
        done = 0
        for first in starts:
            last = min(first + kept, count)
            held: list[Any] = []
            for begin in range(first, count, block):
                end = min(begin + block, last if begin < last else count)
                found = _finite(rows(np.arange(begin, end)), begin, outputs)
                here = slice(begin * outputs, end * outputs)
                if begin < last:
                    if not held:
                        held = [tuple(_Kept(one, (last - first) * outputs) for one in part) for part in found]
                    for kept_rows, part in zip(held, found, strict=True):
                        for some, one in zip(kept_rows, part, strict=True):
                            some.put(slice((begin - first) * outputs, (end - first) * outputs), one)
                    known = slice(first * outputs, end * outputs)
                else:
                    known = slice(first * outputs, last * outputs)
                stored = known.stop - known.start
                with np.errstate(over="ignore", invalid="ignore"):  # looked at by the caller
                    products = sum(_products(kept_rows, stored, part) for kept_rows, part in zip(held, found, strict=True))
                kernel[known, here] = products
                kernel[here, known] = np.asarray(products).T
                done += end - begin
                bar.update(done)
    # Both of a pair to the bit, also within a block.
    lower = np.tril_indices(size, -1)
    kernel[lower[::-1]] = kernel[lower]
    return kernel


class _Kept:
    """One factor of the rows that are kept: an array that is filled or, as JAX fills none, blocks one after the other."""

    def __init__(self, like: Any, rows: int):
        shape = rows, like.shape[1]
        self.blocks: list[Any] = []
        self.whole = None
        if not isinstance(like, jax.Array):
            self.whole = np.empty(shape, like.dtype) if isinstance(like, np.ndarray) else like.new_empty(shape)

    def put(self, where: slice, rows: Any) -> None:
        """Keep the `rows`, which come in order."""
        if self.whole is None:
            self.blocks.append(rows)
        else:
            self.whole[where] = rows

    def gram(self, stored: int, rows: Any) -> np.ndarray:
        """The products of the first `stored` rows that are kept with `rows`, where these are and in all their bits."""
        if self.whole is None:
            return np.concatenate([_float64(jnp.matmul(block, rows.T, precision="highest")) for block in self.blocks])
        return _float64(self.whole[:stored] @ rows.T)


def _products(kept: tuple[_Kept, ...], stored: int, part: tuple[Any, ...]) -> np.ndarray:
    """Of the first `stored` rows that are kept with those of one part, in float64."""
    grams = [one.gram(stored, rows) for one, rows in zip(kept, part, strict=True)]
    return grams[0] if len(grams) == 1 else grams[0] * grams[1]


def _float64(products: Any) -> np.ndarray:
    if isinstance(products, jax.Array):
        return np.asarray(products, np.float64)
    return np.asarray(products if isinstance(products, np.ndarray) else products.cpu().numpy(), np.float64)


def _finite(found: list[tuple[Any, ...]], begin: int, outputs: int) -> list[tuple[Any, ...]]:
    with np.errstate(over="ignore", invalid="ignore"):
        sums = sum(_float64(abs(one).sum(1)) for part in found for one in part)
    bad = np.flatnonzero(~np.isfinite(sums))
    if bad.size:
        raise ValueError(
            f"the gradient of the margin of sample {begin + bad[0] // outputs} is not finite: look at its input and output, "
            "at square roots and logarithms at zero"
        )
    return found


# What of a model's output is a logit.


def outputs_of(shape: Any, count: int) -> int | None:
    """C of an output of `shape` for `count` samples, or None where it is no logit a sample and class."""
    if len(shape) == 1 and shape[0] == count:
        return 1
    if len(shape) == 2 and shape[0] == count and shape[1] >= 1:
        return int(shape[1])
    return None


def _wrong_shape(count: int, got: str) -> ValueError:
    return ValueError(
        f"the model must give one logit a sample, [{count}] or [{count}, 1], or one a sample and class, [{count}, K], "
        f"but {got}"
    )


# Which parameters.


def chosen_names(names: list[str], parameters: Any) -> list[str]:
    """The `names` that `parameters` chooses: None all, "last" the last layer, a prefix, a list of these, or a function of
    the name.

    >>> chosen_names(["a.weight", "a.bias", "head.weight", "head.bias"], "last")
    ['head.weight', 'head.bias']
    """
    if parameters is None:
        return names
    if callable(parameters):
        found = [name for name in names if parameters(name)]
    else:
        wanted = [parameters] if isinstance(parameters, str) else parameters
        if not isinstance(wanted, list | tuple) or not all(isinstance(one, str) for one in wanted):
            raise ValueError(
                "parameters must be a prefix of names, 'last', a list of these, or a function of the name, got "
                f"{shown(parameters)}"
            )
        starts = [_last_layer(names) if one == "last" and "last" not in names else one for one in wanted]
        found = [name for name in names if any(start == "" or f"{name}.".startswith(f"{start}.") for start in starts)]
    if not found:
        raise ValueError(
            f"parameters = {shown(parameters)} chooses none of the model's parameters: {', '.join(names[:12])}"
            f"{', ...' if len(names) > 12 else ''}; give a prefix of such names, 'last', or a function of the name"
        )
    return found


_OF_A_LAYER = {"weight", "bias", "kernel", "scale", "w", "b"}


def _last_layer(names: list[str]) -> str:
    """The prefix of the last layer: of the last name all but its end; the last name itself where its siblings are no parts
    of a layer, but layers.

    >>> _last_layer(["net.first", "net.read_out"]), _last_layer(["0.weight", "0.bias"]), _last_layer(["weight", "bias"])
    ('net.read_out', '0', '')
    """
    layer = names[-1].rpartition(".")[0] if names else ""
    start = f"{layer}." if layer else ""
    parts = {name.removeprefix(start) for name in names if name.startswith(start)}
    return layer if parts <= _OF_A_LAYER else names[-1]


# JAX.


class JaxModel(Model):
    """`apply(params, x)` of a batch; `spec`: which leaves of params the kernel is of."""

    def __init__(self, apply: Any, params: Any, x: Any, outputs: int, memory: Any, parameters: Any, pair: bool = False):
        self.apply, self.params, self.x, self.outputs, self.memory = apply, params, x, outputs, memory
        self.parameters, self.pair = parameters, pair
        self.unwrap: Callable[[Any], Any] = _as_given

    def _parts(self, params: Any) -> tuple[Any, Any]:
        leaves = jax.tree_util.tree_leaves_with_path(params)
        names = [_name(path) for path, leaf in leaves if eqx.is_inexact_array(leaf)]
        inside = set(chosen_names(_in_order(names) if self.parameters is not None else names, self.parameters))
        spec = jax.tree_util.tree_map_with_path(
            lambda path, leaf: eqx.is_inexact_array(leaf) and _name(path) in inside, params
        )
        return eqx.partition(params, spec)

    @property
    def _row_bytes(self) -> int:
        trained, held = self._parts(self.params)
        some = jax.tree.map(lambda leaf: leaf[:1], self.x)
        parts = jax.tree.leaves(eqx.filter_eval_shape(_jax_rows, self._out, trained, held, some))
        return sum(int(np.prod(part.shape)) * part.dtype.itemsize for part in parts) // self.outputs

    @property
    def rounding(self) -> float:
        leaves = jax.tree.leaves(self._parts(self.params)[0])
        return max(float(jnp.finfo(jax.dtypes.canonicalize_dtype(leaf.dtype)).eps) for leaf in leaves)

    def holds(self, trained: Any) -> bool:
        return same_structure(self._inner(trained), self.params)

    def _inner(self, trained: Any) -> Any:
        return trained if trained is self.params or same_structure(trained, self.params) else self.unwrap(trained)

    def moved(self, steps: np.ndarray) -> Any:
        trained, held = self._parts(self.params)
        for first in range(0, len(steps), _FORWARD):
            # Blocks of one size: the last is filled up with samples that count nothing.
            here = np.minimum(np.arange(first, first + min(_FORWARD, len(self))), len(steps) - 1)
            weights = np.where((np.arange(len(here)) + first < len(steps))[:, None], steps[here], 0.0)
            some = jax.tree.map(lambda leaf: leaf[here], self.x)  # noqa: B023
            moved = _jax_moved(self._out, self._parts(self.params)[0], held, some, weights)
            trained = jax.tree.map(lambda a, b: a + b, trained, moved)
        return eqx.combine(trained, held)

    @property
    def _out(self) -> _Out:
        return _Out(self.apply, self.pair)

    def _logits(self, params: Any) -> np.ndarray:
        count, parts, params = len(self), [], self._inner(params)
        for first in range(0, count, _FORWARD):
            here = np.minimum(np.arange(first, first + min(_FORWARD, count)), count - 1)
            some = jax.tree.map(lambda leaf: leaf[here], self.x)  # noqa: B023
            parts.append(np.asarray(_jax_logits(self._out, params, some))[: count - first])
        return np.concatenate(parts)

    def _rows(self, params: Any, samples: np.ndarray) -> list[tuple[Any, ...]]:
        trained, held = self._parts(self._inner(params))
        # Blocks of a few sizes, so that few programs are compiled.
        wide = min(len(self), 2 ** int(np.ceil(np.log2(len(samples)))))
        here = np.concatenate([samples, np.full(max(0, wide - len(samples)), samples[-1])])
        some = jax.tree.map(lambda leaf: leaf[here], self.x)
        parts = _jax_rows(self._out, trained, held, some)
        return [tuple((np.asarray(one) if _in_memory(one) else one)[: len(samples)] for one in part) for part in parts]


def _in_memory(leaf: Any) -> bool:
    """Whether NumPy reads an array where it is. Gradients on an accelerator stay there; their products alone leave it."""
    return all(device.platform == "cpu" for device in leaf.devices())


class _Mixture:
    """A mixture of the outputs that every one of them changes, [n]: what is checked where there are several. Equal for equal
    functions, as `_Out`, whatever they hold."""

    def __init__(self, model: JaxModel):
        self.out, self.outputs = model._out, model.outputs

    def __call__(self, params: Any, x: Any) -> Any:
        found = self.out(params, x)
        return found @ np.linspace(1, 2, self.outputs).astype(found.dtype)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Mixture) and hash(self) == hash(other) and self.out.apply is other.out.apply

    def __hash__(self) -> int:
        return hash((id(self.out.apply), self.out.pair, self.outputs))


class _Out(eqx.Module):
    """Logits [n, C] of a batch; equal for equal functions, so that a second report compiles nothing."""

    apply: Any
    pair: bool = eqx.field(static=True)

    def __call__(self, params: Any, x: Any) -> Any:
        found = self.apply(params, x)
        found = found.reshape(found.shape[0], -1)
        return found[:, 1:] - found[:, :1] if self.pair else found


@eqx.filter_jit
def _jax_logits(out: Any, params: Any, x: Any) -> Any:
    return out(params, x)


@eqx.filter_jit
def _jax_rows(out: Any, trained: Any, held: Any, x: Any) -> list[tuple[Any, ...]]:
    def one(trained: Any, x: Any) -> Any:
        return out(eqx.combine(trained, held), jax.tree.map(lambda leaf: leaf[None], x))[0]

    return jax_parts(one, trained, x)


@eqx.filter_jit
def _jax_moved(out: Any, trained: Any, held: Any, x: Any, steps: Any) -> Any:
    def total(trained: Any) -> Any:
        found = out(eqx.combine(trained, held), x)
        return (steps.astype(found.dtype) * found).sum()

    return jax.grad(total)(trained)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _in_order(names: list[str]) -> list[str]:
    """Layers 0, 1, ..., 10 in this order, where the keys of dictionaries come as 0, 1, 10, 2; all else stays as it is.

    >>> _in_order(["first.w", "d_0.w", "d_10.w", "d_2.w", "a.w"])
    ['first.w', 'd_0.w', 'd_2.w', 'd_10.w', 'a.w']
    """
    pieces = [re.split(r"(\d+)", name) for name in names]
    rank: dict[str, int] = {}
    for one in pieces:
        for piece in one:
            rank.setdefault(piece, len(rank))
    keys = [[int(piece) if piece.isdigit() else rank[piece] for piece in one] for one in pieces]
    return [names[k] for k in sorted(range(len(names)), key=keys.__getitem__)]


def same_structure(trained: Any, params: Any) -> bool:
    """Whether `trained` is a pytree like `params`, with arrays of the same shapes."""
    if hasattr(trained, "__next__"):  # JAX would take it for a leaf, with a warning
        return False
    ours, theirs = jax.tree.flatten(params), jax.tree.flatten(trained)
    return ours[1] == theirs[1] and all(np.shape(a) == _shape(b) for a, b in zip(ours[0], theirs[0], strict=True))


def _shape(leaf: Any) -> Any:
    """The shape of an array or of a number; None for what is neither."""
    try:
        return np.shape(leaf)
    except Exception:
        return None


def _as_given(trained: Any) -> Any:
    return trained


def _linen_params(trained: Any) -> Any:
    """The parameters in the variables of a linen module, which hold other collections too."""
    return trained["params"] if hasattr(trained, "keys") and "params" in trained else trained


def _nnx_params(trained: Any) -> Any:
    """The parameters of an nnx module."""
    return _nnx(trained)[1] if _is_flax(trained, "nnx.Module") else trained


def on_each(model: Any, x: Any) -> Any:
    """A model of one sample on a batch."""
    return jax.vmap(model)(x)


def on_batch(model: Any, x: Any) -> Any:
    """A model of a batch."""
    return model(x)


# PyTorch.


class TorchModel(Model):
    """A `torch.nn.Module` at the parameters it has, in evaluation mode, on the device it is on."""

    def __init__(self, module: Any, x: Any, outputs: int, memory: Any, parameters: Any, pair: bool = False):
        self.module, self.x, self.outputs, self.memory, self.pair = module, x, outputs, memory, pair
        everything = dict(module.named_parameters())
        trained = [name for name, one in everything.items() if one.requires_grad and one.is_floating_point()]
        self.names = chosen_names(trained, parameters)
        self.params = {name: one.detach().clone() for name, one in everything.items()}
        self._batched = True
        self._layers: TorchLayers | None = None

    @property
    def _row_bytes(self) -> int:
        parts = self._rows(self.params, np.arange(1))
        return sum(one.nbytes for part in parts for one in part) // self.outputs

    @property
    def rounding(self) -> float:
        import torch  # pyright: ignore[reportMissingImports]

        return max(float(torch.finfo(self.params[name].dtype).eps) for name in self.names)

    def holds(self, trained: Any) -> bool:
        found = _torch_state(trained)
        return found is not None and all(
            name in found and tuple(found[name].shape) == tuple(one.shape) for name, one in self.params.items()
        )

    def moved(self, steps: np.ndarray) -> Any:
        import torch  # pyright: ignore[reportMissingImports]

        state = self._state(self.params)
        weights = {name: state[name].clone().requires_grad_() for name in self.names}
        with evaluating(self.module):
            for first in range(0, len(steps), _FORWARD):
                here = np.arange(first, min(first + _FORWARD, len(steps)))
                found = self._out({**state, **weights}, self._some(here))
                told = torch.from_numpy(steps[here]).to(found)
                rows = torch.autograd.grad((told * found).sum(), list(weights.values()), allow_unused=True)
                for name, row in zip(self.names, rows, strict=True):
                    state[name] = state[name] if row is None else state[name] + row
        return state

    def _state(self, params: Any) -> dict[str, Any]:
        """Parameters and, of a trained module, its buffers, where the running means of batch normalisation are."""
        found, like = _torch_state(params), next(iter(self.params.values()))
        assert found is not None
        return {name: one.detach().to(like.device) for name, one in found.items()}

    def _out(self, state: Any, x: Any) -> Any:
        from torch.func import functional_call  # pyright: ignore[reportMissingImports]

        args, named = (tuple(x), {}) if isinstance(x, tuple | list) else ((), x) if isinstance(x, dict) else ((x,), {})
        found = functional_call(self.module, state, args, named)
        found = getattr(found, "logits", found)
        found = found.reshape(found.shape[0], -1)
        return found[:, 1:] - found[:, :1] if self.pair else found

    def _some(self, samples: Any) -> Any:
        import torch  # pyright: ignore[reportMissingImports]

        like = next(iter(self.params.values()))

        def tensor(leaf: np.ndarray) -> Any:
            found = torch.from_numpy(np.ascontiguousarray(leaf[samples])).to(like.device)
            return found.to(like.dtype) if found.is_floating_point() else found

        return jax.tree.map(tensor, self.x)

    def _logits(self, params: Any) -> np.ndarray:
        import torch  # pyright: ignore[reportMissingImports]

        state, parts = self._state(params), []
        with evaluating(self.module), torch.no_grad():
            for first in range(0, len(self), _FORWARD):
                found = self._out(state, self._some(np.arange(first, min(first + _FORWARD, len(self)))))
                parts.append(found.cpu().numpy())
        return np.concatenate(parts)

    def _rows(self, params: Any, samples: np.ndarray) -> list[tuple[Any, ...]]:
        state = self._state(params)
        x = self._some(samples)
        with evaluating(self.module):
            apart = self._apart(state, x, len(samples))
            full = self._full([name for name in self.names if name not in apart], state, x, len(samples))
        found = [*apart.values(), *((part,) for part in full)]
        return [tuple(one.numpy() if one.device.type == "cpu" else one for one in part) for part in found]

    def _apart(self, state: Any, x: Any, count: int) -> dict[str, tuple[Any, ...]]:
        """The factors of the gradients of layers, where they are found to be right for two samples."""
        if self._layers is None:
            self._layers = TorchLayers(self.module, self.names)
            layers, some = self._layers.layers, min(2, len(self))
            two = self._some(np.arange(some))
            found = self._layers.parts(lambda: self._out(state, two), some) or {}
            full = dict(zip(found, self._full(list(found), state, two, some), strict=True))
            right = {name for name, factors in found.items() if same_gradient(factors, full[name])}
            kept = {prefix: [name for name in own if prefix + name in right] for prefix, (_, own) in layers.items()}
            self._layers.layers = {prefix: (layers[prefix][0], own) for prefix, own in kept.items() if own}
        found = self._layers.parts(lambda: self._out(state, x), count) if self._layers.layers else {}
        if found is None:
            self._layers.layers = {}
        return found or {}

    def _full(self, names: list[str], state: Any, x: Any, count: int) -> list[Any]:
        """Gradients [N, C, P_l] of the parameters of these names."""
        if not names:
            return []
        trained = {name: state[name] for name in names}
        held = {name: one for name, one in state.items() if name not in trained}
        leaves = self._together(trained, held, x) if self._batched else None
        if leaves is None:
            leaves = self._one_by_one(trained, held, x, count)
        return [leaf.detach().reshape(count, self.outputs, -1) for leaf in leaves]

    def _together(self, trained: Any, held: Any, x: Any) -> Any:
        from torch.func import grad, jacrev, vmap  # pyright: ignore[reportMissingImports]

        def one(trained: Any, x: Any) -> Any:
            found = self._out({**held, **trained}, jax.tree.map(lambda leaf: leaf[None], x))[0]
            return found[0] if self.outputs == 1 else found

        try:
            rows = vmap(grad(one) if self.outputs == 1 else jacrev(one), (None, 0))(trained, x)
            return list(rows.values())
        except (RuntimeError, NotImplementedError, ValueError, TypeError):
            # Operations that torch.func cannot batch: one backward pass a sample and output.
            self._batched = False
            return None

    def _one_by_one(self, trained: Any, held: Any, x: Any, count: int) -> Any:
        import torch  # pyright: ignore[reportMissingImports]

        weights = {name: one.clone().requires_grad_() for name, one in trained.items()}
        leaves = [one.new_empty((count, self.outputs, one.numel())) for one in weights.values()]
        for i in range(count):
            found = self._out({**held, **weights}, jax.tree.map(lambda leaf: leaf[i : i + 1], x))[0]  # noqa: B023
            for c in range(self.outputs):
                rows = torch.autograd.grad(found[c], list(weights.values()), retain_graph=True, allow_unused=True)
                for leaf, row in zip(leaves, rows, strict=True):
                    leaf[i, c] = 0 if row is None else row.reshape(-1)
        return leaves


def _torch_state(trained: Any) -> dict[str, Any] | None:
    """The tensors by name of a module or of its state; None for all else."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if isinstance(trained, torch.nn.Module):
        return dict(trained.named_parameters()) | dict(trained.named_buffers())
    if isinstance(trained, dict) and trained and all(isinstance(one, torch.Tensor) for one in trained.values()):
        return dict(trained)
    return None


@contextlib.contextmanager
def evaluating(module: Any) -> Iterator[None]:
    """`module` and its parts in evaluation mode, each as before afterwards."""
    before = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in before:
            part.training = mode


def _read_torch(module: Any, x: Any, memory: Any, parameters: Any, classes: int | None) -> Model:
    import torch  # pyright: ignore[reportMissingImports]

    weights = [(name, one) for name, one in module.named_parameters()]
    if not any(one.requires_grad and one.is_floating_point() for _, one in weights):
        raise ValueError("the model has no parameters that are trained (requires_grad); switch it on for some of them")
    for name, one in weights:
        if one.device.type == "meta":
            raise ValueError(f"parameter {name!r} is on device 'meta' and has no numbers; load the model's parameters")
        if one.is_floating_point() and one.element_size() < 4:
            raise ValueError(f"parameter {name!r} has dtype {one.dtype}; use float32: model.float()")
        if not bool(torch.isfinite(one.detach()).all()):
            raise ValueError(f"parameter {name!r} is not finite; initialise the model anew")
    found = TorchModel(module, x, 1, memory, parameters)
    some = min(len(found), 3)
    with evaluating(module), torch.no_grad():
        try:
            state = found._state(found.params)
            args = found._some(np.arange(some))
            raw = _raw(found, state, args)
            alone = torch.cat([_raw(found, state, found._some(np.arange(i, i + 1))).reshape(1, -1) for i in range(some)])
        except Exception as error:
            first = (str(error).splitlines() or [""])[0][:200]
            raise ValueError(f"the model raises {type(error).__name__} on the samples: {first}") from error
    outputs = outputs_of(raw.shape, some)
    if outputs is None:
        raise _wrong_shape(len(found), f"for {some} samples it gives shape {tuple(raw.shape)}")
    gap = float((alone - raw.reshape(some, -1)).abs().max())
    if gap > 1e-3 * max(1.0, float(raw.abs().max())):
        raise ValueError(
            f"the outputs of samples change by {gap:.3g} when each is alone in its batch: samples must not see each other; "
            "use batch normalisation with running statistics (track_running_stats=True)"
        )
    found.pair = outputs == 2
    found.outputs = 1 if outputs == 2 else outputs
    modes = (torch.nn.modules.dropout._DropoutNd, torch.nn.modules.batchnorm._BatchNorm)
    changes = sorted({type(part).__name__ for part in module.modules() if part.training and isinstance(part, modes)})
    if changes:
        found.notes = (
            f"The model is in training mode with {' and '.join(changes)}; the report is about its evaluation mode, in which "
            "dropout is off and batch normalisation uses its running statistics.",
        )
    return found


def _raw(model: TorchModel, state: Any, x: Any) -> Any:
    from torch.func import functional_call  # pyright: ignore[reportMissingImports]

    args, named = (tuple(x), {}) if isinstance(x, tuple | list) else ((), x) if isinstance(x, dict) else ((x,), {})
    found = functional_call(model.module, state, args, named)
    found = getattr(found, "logits", found)
    if not hasattr(found, "shape"):
        raise ValueError(f"it gives a {type(found).__name__}, and a tensor of logits is wanted")
    return found


# Whatever comes.


def read_model(model: Any, x: Any, memory: Any = None, parameters: Any = None) -> Model:
    """The `model` of `starvation_report` on the samples `x`; its outputs are counted, two are taken as their difference."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(model, torch.nn.Module):
        return _read_torch(model, x, memory, parameters, None)
    notes: tuple[str, ...] = ()
    unwrap: Callable[[Any], Any] = _as_given
    if isinstance(model, tuple | list) and len(model) == 2 and (callable(model[0]) or hasattr(model[0], "apply")):
        apply, params = model
        if hasattr(params, "__next__"):
            raise ValueError(f"params must be arrays, or lists, dictionaries and modules of them, got {shown(params)}")
        if _is_flax(apply, "linen.Module"):
            (apply, params), unwrap = _linen(apply, params), _linen_params
        ways = [(apply, "")]
    elif _is_flax(model, "nnx.Module"):
        (apply, params), unwrap = _nnx(model), _nnx_params
        ways = [(apply, "")]
    elif not callable(model):
        got = f"{type(model).__name__} {shown(model)}"
        raise ValueError(f"model must be a torch.nn.Module, an equinox or flax model, or (apply, params), got {got}")
    elif not jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array)):
        raise ValueError("the model holds no parameters itself; give (apply, params), or an equinox, flax or PyTorch model")
    else:
        params, still = model, eqx.nn.inference_mode(model)
        if not eqx.tree_equal(still, model):
            params = still
            notes = ("The model is in training mode; the report is about its inference mode, in which dropout is off.",)
        ways = [(on_each, "one sample at a time"), (on_batch, "the batch")]
    x = jax.tree.map(np.asarray, x)
    found, fails = None, []
    for apply, way in ways:
        made = JaxModel(apply, params, x, 1, memory, parameters)
        made._parts(params)  # the parameters that are chosen
        try:
            shape = eqx.filter_eval_shape(lambda p, s, apply=apply: apply(p, s), params, x).shape
        except Exception as error:
            if not way:
                first = (str(error).splitlines() or [""])[0][:200]
                raise ValueError(f"apply(params, x) raises {type(error).__name__}: {first}") from error
            fails.append(f"called on {way} it raises {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")
            continue
        outputs = outputs_of(shape, len(made))
        if outputs is not None:
            made.pair, made.outputs = outputs == 2, 1 if outputs == 2 else outputs
            found = made
            break
        fails.append(f"called on {way} it gives shape {shape}" if way else f"it gives shape {shape}")
    if found is None:
        raise _wrong_shape(len(made), "; ".join(fails))
    found.notes, found.unwrap = notes, unwrap
    # Whether samples see each other, half precision, and what else can be wrong with a function.
    few = jax.tree.map(lambda leaf: leaf[:64], found.x)
    jacobian.margins(_Mixture(found), found.params, few, np.ones(min(64, len(found))))
    return found


def _is_flax(model: Any, kind: str) -> bool:
    package, _, name = kind.partition(".")
    module = sys.modules.get(f"flax.{package}")
    return module is not None and isinstance(model, getattr(module, name))


def _linen(module: Any, variables: Any) -> tuple[Any, Any]:
    """apply(params, x) of a linen module; batch statistics and other collections are held."""
    if not hasattr(variables, "keys") or "params" not in variables:
        raise ValueError("give (module, variables) with the variables that module.init returns, {'params': ...}")
    held = {name: value for name, value in variables.items() if name != "params"}
    return lambda params, x: module.apply({**held, "params": params}, x), variables["params"]


def _nnx(model: Any) -> tuple[Any, Any]:
    """apply(params, x) of an nnx module in evaluation mode, on a copy."""
    from flax import nnx  # pyright: ignore[reportMissingImports]

    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def apply(params: Any, x: Any) -> Any:
        one = nnx.merge(graph, params, rest)
        one.eval()
        return one(x)

    return apply, nnx.to_pure_dict(params)
