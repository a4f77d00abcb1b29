"""How XLA is asked to compile programs of many small operations."""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_QUICK: dict[str, Any] = {"xla_cpu_use_fusion_emitters": False}


@cache
def quick_to_compile() -> dict[str, Any]:
    """Compiler options that cost a program of many small operations half of the time to compile, and that run as fast; none
    where XLA does not know them."""
    try:
        with jax.ensure_compile_time_eval(), jax.default_device(jax.local_devices(backend="cpu")[0]):
            jax.jit(jnp.sin, compiler_options=_QUICK)(np.ones(2, np.float32))
    except Exception:  # whatever an unknown version makes of them
        return {}
    return dict(_QUICK)
