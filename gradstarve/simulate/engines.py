"""Which engine trains a problem. All engines do the same arithmetic; they differ in how it is laid out and compiled."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

import jax

from gradstarve.arrays import is_concrete

ENGINES = ("reference", "fused", "pallas")


def choose(name: str, data: Any, network: Any, loss: Any, dynamics: Any) -> ModuleType:
    """The module of the engine `name`, or for "auto" of the fastest one for this problem on the device it lies on.

    "auto" takes "fused" on a CPU, "pallas" on an NVIDIA GPU, and "reference" for everything they do not train, on other
    devices, and inside jit, grad and vmap. `ValueError` for an unknown name, or an engine that can not train the problem.
    """
    if name == "auto":
        return _fastest(data, network, loss, dynamics)
    if name not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(map(repr, ('auto', *ENGINES)))}, got {name!r}")
    engine = _module(name)
    reason = engine.unsupported(data, network, loss, dynamics)
    if reason:
        raise ValueError(f'engine="{name}" can not run this: {reason}; use engine="auto"')
    return engine


def _module(name: str) -> ModuleType:
    # Only when it is asked for: Pallas takes its time to import.
    return import_module(f"gradstarve.simulate.{name}")


def _fastest(data: Any, network: Any, loss: Any, dynamics: Any) -> ModuleType:
    reference = _module("reference")
    arrays = [leaf for leaf in jax.tree.leaves((data, network, dynamics)) if isinstance(leaf, jax.Array)]
    if not all(map(is_concrete, arrays)):
        return reference
    platforms = {device.platform for leaf in arrays for device in leaf.devices()}
    made_for = {("cpu",): "fused", ("gpu",): "pallas"}.get(tuple(platforms))
    if made_for is None or _module(made_for).unsupported(data, network, loss, dynamics):
        return reference
    return _module(made_for)
