"""The choice of an engine. All engines do the same arithmetic; they differ in how it is laid out and compiled."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import jax

from gradstarve.ground import as_choice, is_concrete
from gradstarve.simulation.engines._engine import Engine

ENGINES = {"reference": "Reference", "fused": "Fused", "pallas": "Pallas"}
"""Name -> class, in the module of that name."""

# Seconds of `reference` below which the longer compilation of a fast engine does not pay.
WORTH_COMPILING = 0.01


def choose(name: str, data: Any, network: Any, loss: Any, dynamics: Any, steps: int | None = None) -> Engine:
    """The engine `name`; for "auto", the fastest engine for this problem on the device that holds it.

    "auto" takes "fused" on a CPU and "pallas" on an NVIDIA GPU. It takes "reference" for problems that these cannot train,
    for runs whose `steps` take a few milliseconds (None: a long run), on other devices, and inside jit, grad and vmap.
    `ValueError` for an unknown name, or an engine that cannot train the problem.
    """
    name = as_choice("engine", name, ("auto", *ENGINES))
    if name == "auto":
        if steps is not None and seconds(network, data, steps) < WORTH_COMPILING:
            return engine_of("reference")
        return _fastest(data, network, loss, dynamics)
    engine = engine_of(name)
    reason = engine.unsupported(data, network, loss, dynamics)
    if reason:
        raise ValueError(f'engine="{name}" cannot run this: {reason}; use engine="auto"')
    return engine


def seconds(network: Any, data: Any, steps: int) -> float:
    """An estimate of the seconds that `reference` takes, within a factor of ten on today's machines."""
    weights = sum(leaf.size for leaf in jax.tree.leaves(network))  # of all networks
    flops = steps * data.size * 8 * weights
    return flops / 2e9 + steps * 2e-5


def engine_of(name: str) -> Engine:
    """The engine `name`. Its module is imported on demand, because the import of Pallas takes long."""
    return getattr(import_module(f"gradstarve.simulation.engines._{name}"), ENGINES[name])()


def _fastest(data: Any, network: Any, loss: Any, dynamics: Any) -> Engine:
    reference = engine_of("reference")
    arrays = [leaf for leaf in jax.tree.leaves((data, network, dynamics)) if isinstance(leaf, jax.Array)]
    if not all(map(is_concrete, arrays)):
        return reference
    platforms = {device.platform for leaf in arrays for device in leaf.devices()}
    made_for = {("cpu",): "fused", ("gpu",): "pallas"}.get(tuple(platforms))
    if made_for is None or engine_of(made_for).unsupported(data, network, loss, dynamics):
        return reference
    return engine_of(made_for)
