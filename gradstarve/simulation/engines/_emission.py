"""How XLA:CPU is asked to compile a training loop: as one function, in stages that are not fused into each other.

Left to itself XLA:CPU runs a loop operation by operation, which costs microseconds each, more than the arithmetic of a
small network; and it fuses every producer into all of its consumers, so that each weight's update computes the whole
forward pass again. Two marks on a call prevent both. `one_function` marks the call of a loop as small enough to be
emitted as a single function, `stage` one that is not to be inlined, so that its results are kept in memory. They are
attributes that XLA reads and no documented interface: `available` tries them once on a small loop, and where they are
not understood everything is compiled as usual, slower and with the same numbers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Compiler options that go with the marks, the best first; what a version does not know it refuses. Wide vectors pay on
# processors that have them. Since XLA brought YNNPACK in, it fuses calls to it with what stands around them, which a
# single function can not hold.
_OPTIONS: tuple[dict[str, Any], ...] = (
    {"xla_cpu_prefer_vector_width": 512, "xla_cpu_experimental_ynn_fusion_type": ""},
    {"xla_cpu_prefer_vector_width": 512},
    {},
)

# Half of the time of compilation, for programs of many small operations that run as fast without.
_QUICK: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}

_marking = threading.local()


def available() -> bool:
    """Whether this XLA:CPU understands the marks: a small loop compiles with them and gives the right numbers."""
    return _accepted() is not None


@cache
def _accepted() -> dict[str, Any] | None:
    """The first compiler options with which a trial succeeds."""
    for options in _OPTIONS:
        try:
            # Inside a traced program too the trial is a run of its own.
            with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
                if _trial(options):
                    return options
        except Exception:  # whatever an unknown version makes of the marks, the answer is no
            continue
    return None


def _trial(options: dict[str, Any]) -> bool:
    def body(carry, _):
        first, second = stage(lambda a: (jnp.sin(a), jnp.cos(a)))(carry)
        return first + second, None

    def loop(start):
        return jax.lax.scan(body, start, None, length=3)[0]

    start = np.linspace(0, 1, 64, dtype=np.float32)
    with _marks(True):
        compiled = jax.jit(one_function(loop), compiler_options=options).lower(start).compile()
    expected = start
    for _ in range(3):
        expected = np.sin(expected) + np.cos(expected)
    return bool(np.allclose(np.asarray(compiled(start)), expected, atol=1e-5))


@cache
def quick() -> dict[str, Any]:
    """Compiler options that cost a program of many small operations half of the time to compile; none where XLA does not
    know them."""
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(jnp.sin, compiler_options=_QUICK)(np.ones(2, np.float32))
    except Exception:  # whatever an unknown version makes of them
        return {}
    return dict(_QUICK)


@contextmanager
def marked(wanted: bool) -> Iterator[dict[str, Any]]:
    """Inside, `stage` and `one_function` mark what is traced; gives the compiler options that belong to it.

    Outside, with False, and where the marks are not understood, both leave a function as it is.
    """
    options = _accepted() if wanted else None
    with _marks(options is not None):
        yield dict(options or {})


@contextmanager
def _marks(wanted: bool) -> Iterator[None]:
    before, _marking.on = getattr(_marking, "on", False), wanted
    try:
        yield
    finally:
        _marking.on = before


def stage(function: Callable) -> Callable:
    """`function` as a computation of its own: its results are computed once and kept, not fused into what uses them."""
    return _mark(function, inlineable="false")


def one_function(function: Callable) -> Callable:
    """`function`, a loop, emitted as a single function of machine code: no dispatch between its operations.

    No operation inside may be so large that XLA wants to share it between threads; the compiler then fails.
    """
    return _mark(function, inlineable="false", xla_cpu_small_call="true")


def _mark(function: Callable, **marks: str) -> Callable:
    @wraps(function)
    def call(*args):
        if not getattr(_marking, "on", False):
            return function(*args)
        from jax.experimental.xla_metadata import set_xla_metadata

        leaves, tree = jax.tree.flatten(jax.jit(function)(*args))
        # A mark on a value goes to the operation that makes it, here the call.
        return jax.tree.unflatten(tree, [set_xla_metadata(leaves[0], **marks), *leaves[1:]])

    return call
