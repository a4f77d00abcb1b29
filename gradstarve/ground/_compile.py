"""How XLA is asked to compile: programs of many small operations, and answers to questions about few numbers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground._arrays import is_concrete

Options = dict[str, Any]
# Numbers of a question up to which its program runs in less time than it takes to make it fast, at all and by emitters.
FEW, MANY = 4096, 40960
_SPLIT = "xla_cpu_parallel_codegen_split_count"
_QUICK: Options = {"xla_cpu_use_fusion_emitters": False}
_QUICKEST: Options = _QUICK | {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True, _SPLIT: 1}


def _compiles(options: Options) -> bool:
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(jnp.sin, compiler_options=options)(np.ones(2, np.float32))
    except Exception:  # whatever an unknown version makes of them
        return False
    return True


@cache
def _known(*options: tuple[str, Any]) -> Options:
    """Those of these compiler options that XLA knows."""
    wanted = dict(options)
    return wanted if _compiles(wanted) else {name: value for name, value in options if _compiles({name: value})}


def quick_to_compile() -> Options:
    """Compiler options that cost a program of many small operations half of the time to compile, and that run as fast; none
    where XLA does not know them."""
    return _known(*_QUICK.items())


def quickest_to_compile() -> Options:
    """Compiler options that cost such a program a fifth of the time, and with which it runs some three times as long; those
    of `quick_to_compile` on an accelerator."""
    return _known(*_QUICKEST.items()) if jax.default_backend() == "cpu" else quick_to_compile()


def quick_jit(jit: Callable[..., Any] = jax.jit, *, few: int = FEW, **keywords: Any) -> Any:
    """A decorator, `jit` with these keywords, by which what is asked from Python about numbers that are there compiles soon.

    A question about up to `few` numbers is compiled without optimisation, in a fifth of the time, and one about up to `MANY`
    without XLA's newer emitters, in half of it. Beyond, inside jit, vmap and grad, on accelerators, and where JAX is told
    otherwise or XLA does not know these options, `jit` compiles as usual. `few` is 0 for what runs long on few numbers.
    Rounding differs between the three, so that random draws, whose bits must not depend on their number, keep to `jit`.

    >>> double = quick_jit()(lambda x: 2 * x)
    >>> float(double(jnp.float32(3.0))), float(jax.jit(double)(3.0))
    (6.0, 6.0)
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        usual = jit(function, **keywords)
        compiled = cache(lambda *options: jit(function, compiler_options=dict(options), **keywords))

        @wraps(function)
        def answer(*args: Any, **named: Any) -> Any:
            arrays = [leaf for leaf in jax.tree.leaves((args, named)) if eqx.is_array(leaf)]
            size = sum(array.size for array in arrays)
            elsewhere = jax.default_backend() != "cpu" or jax.config.read("jax_disable_most_optimizations")
            if size > MANY or elsewhere or not all(map(is_concrete, [*arrays, jnp.asarray(0)])):
                return usual(*args, **named)
            options = _known(*(_QUICKEST if size <= few else _QUICK).items())
            return compiled(*options.items())(*args, **named)

        return answer

    return decorate
