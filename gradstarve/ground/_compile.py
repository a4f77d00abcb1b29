"""Compiler options for XLA: for programs of many small operations, and for calls on small inputs."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground._arrays import is_concrete

try:
    from jax.extend.core import get_opaque_trace_state
except ImportError:  # jax 0.8
    from jax.core import get_opaque_trace_state  # pyright: ignore[reportAttributeAccessIssue]

Options = dict[str, Any]
# Input sizes up to which a program compiled without any optimisation (FEW), or without XLA's fusion emitters (MANY), loses
# less time in running than it saves in compiling.
FEW, MANY = 4096, 40960
# Numbers that a loop goes over, all its turns together, up to which the same is so.
FEW_PASSES = 2**18
_SPLIT = "xla_cpu_parallel_codegen_split_count"
_QUICK: Options = {"xla_cpu_use_fusion_emitters": False}
_QUICKEST: Options = _QUICK | {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True, _SPLIT: 1}


def _compiles(options: Options) -> bool:
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(jnp.sin, compiler_options=options)(np.ones(2, np.float32))
    except Exception:  # an unknown version of XLA may raise anything
        return False
    return True


@cache
def _known(*options: tuple[str, Any]) -> Options:
    """The compiler options among `options` that this version of XLA knows."""
    wanted = dict(options)
    return wanted if _compiles(wanted) else {name: value for name, value in options if _compiles({name: value})}


@cache
def _outside() -> Any:
    """The state of JAX where nothing is traced."""
    with jax.ensure_compile_time_eval():
        return get_opaque_trace_state()


def quick_to_compile() -> Options:
    """Compiler options that halve the compile time of a program of many small operations at equal speed; empty where XLA
    does not know them."""
    return _known(*_QUICK.items())


def quickest_to_compile() -> Options:
    """Compiler options that cut the compile time of such a program to a fifth, at some three times the run time; those of
    `quick_to_compile` on an accelerator."""
    return _known(*_QUICKEST.items()) if jax.default_backend() == "cpu" else quick_to_compile()


def quick_jit(
    jit: Callable[..., Any] = jax.jit, *, few: int = FEW, passes: Callable[..., int] | None = None, **keywords: Any
) -> Any:
    """A decorator: `jit` with these keywords, which compiles calls from Python on small concrete inputs quickly.

    Inputs of up to `few` numbers are compiled without optimisation, in a fifth of the time, and inputs of up to `MANY`
    numbers without XLA's newer emitters, in half of the time. Plain `jit` compiles larger inputs, calls inside jit, vmap and
    grad, calls on accelerators, and all calls where JAX's optimisations are disabled or XLA does not know these options. Set
    `few` to 0 for a function that runs long on small inputs; `passes` of the arguments is how many numbers a loop goes over,
    which count as few up to `FEW_PASSES`. Rounding differs between the three ways, so random draws, whose bits must not
    depend on their number, use plain `jit`.

    >>> double = quick_jit()(lambda x: 2 * x)
    >>> float(double(jnp.float32(3.0))), float(jax.jit(double)(3.0))
    (6.0, 6.0)
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        usual = jit(function, **keywords)
        compiled = cache(lambda *options: jit(function, compiler_options=dict(options), **keywords))

        @wraps(function)
        def answer(*args: Any, **named: Any) -> Any:
            # Compiler options are for programs of their own, and none is one while something else is traced.
            if get_opaque_trace_state() != _outside():
                return usual(*args, **named)
            arrays = [leaf for leaf in jax.tree.leaves((args, named)) if eqx.is_array(leaf)]
            size = sum(array.size for array in arrays)
            elsewhere = jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations")
            if size > MANY or elsewhere or not all(map(is_concrete, arrays)):
                return usual(*args, **named)
            quickest = size <= few or (passes is not None and passes(*args, **named) <= FEW_PASSES)
            options = _known(*(_QUICKEST if quickest else _QUICK).items())
            return compiled(*options.items())(*args, **named)

        return answer

    return decorate
