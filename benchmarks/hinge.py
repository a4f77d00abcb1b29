"""Exact hinge flow beside diffrax: up to 1,000 networks on one data set, followed until most are done.

An integrator gets nowhere where a margin slides at 1. So it is timed on networks of which none does, drawn from the same
initialisation, and gradstarve on those and on networks as they come. Errors are those of the logits of 20 networks, against
the flow integrated at 1e-13.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

import gradstarve as gs
from benchmarks.timing import interleaved
from gradstarve.simulation import EventKind

Row = dict[str, Any]
TIMES = np.array([2.0, 8.0, 30.0])
BASE = "diffrax Dopri8 1e-8"


class Size(NamedTuple):
    """B networks of h neurons, n points in d dimensions in two cones, weights of standard deviation `scale`."""

    B: int
    h: int
    d: int
    n: int
    scale: float


SIZES = (Size(1000, 8, 2, 2, 0.05), Size(1000, 6, 4, 6, 0.3), Size(1000, 16, 8, 8, 0.1), Size(50, 32, 20, 20, 0.05))


def measure(quick: bool) -> list[Row]:
    """Rows of every size; `quick` takes a few networks of the two smallest."""
    rows = []
    with jax.enable_x64(True):
        for size in SIZES[:2] if quick else SIZES:
            rows += one(size._replace(B=24) if quick else size, 1 if quick else 5)
    return rows


def one(size: Size, turns: int) -> list[Row]:
    """The rows of one size."""
    count = size.B
    data = gs.datasets.cones(jax.random.key(6), size.d, points_per_class=size.n // 2, opening=0.4, spread=0.3)
    drawn = gs.init_two_layer(jax.random.key(7), 2 * count, size.h, size.d, size.scale, size.scale)
    run = gs.simulate_hinge_exact(data, drawn, TIMES)
    slides = (run.events.kind == EventKind.HELD).any(-1)
    smooth = drawn[np.flatnonzero(~slides)[:count]]
    peers = {
        "gradstarve": lambda: gs.simulate_hinge_exact(data, smooth, TIMES).logits(),
        "gradstarve, networks as they come": lambda: gs.simulate_hinge_exact(data, drawn[:count], TIMES).logits(),
        BASE: integrated(data, smooth, diffrax.Dopri8()),
        "diffrax Tsit5 1e-8": integrated(data, smooth, diffrax.Tsit5()),
    }
    spent = interleaved({name: lambda run=run: jax.block_until_ready(run()) for name, run in peers.items()}, turns, 30.0)
    few = smooth[:20]
    exact = gs.simulate_flow(data, few, "hinge", TIMES, rtol=1e-13, max_steps=100_000).logits()
    events = run.events.count.reshape(-1)
    rows = []
    for name, run_it in peers.items():
        mine = slides[:count] if "as they come" in name else np.zeros(1)
        found = np.asarray(run_it())
        rows.append(
            {
                "task": f"h {size.h}, d {size.d}, n {size.n}",
                "networks": len(found),
                "name": name,
                "seconds": spent[name]["seconds"],
                "first_seconds": spent[name]["first_seconds"],
                "ratio_to_dopri8": spent[BASE]["seconds"] / spent[name]["seconds"],
                "worst_error": None if "as they come" in name else float(np.abs(found[:20] - exact).max()),
                "lost": int(np.isnan(found).any((1, 2)).sum()),
                "note": f"{int(mine.sum())} slide" if mine.any() else "none slides",
                "events": float(events.mean()),
                "least": spent[name]["least"],
                "most": spent[name]["most"],
            }
        )
    return rows


def integrated(data: Any, networks: Any, solver: Any):
    """The logits of the networks at the times, by diffrax under vmap, in one compiled call."""
    x, y, q = data.points, data.labels, data.weights

    def field(t, state, _):
        w, z = state
        edge = x @ w.T
        pull = q * y * (y * (jnp.maximum(edge, 0) @ z) < 1)
        force = pull[:, None] * (edge > 0)
        return z[:, None] * (force.T @ x), jnp.sum(pull[:, None] * jnp.maximum(edge, 0), axis=0)

    def follow(w, z):
        run = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            solver,
            0.0,
            TIMES[-1],
            None,
            (w, z),
            stepsize_controller=diffrax.PIDController(rtol=1e-8, atol=1e-8),
            saveat=diffrax.SaveAt(ts=jnp.asarray(TIMES)),
            adjoint=diffrax.ForwardMode(),
            max_steps=100_000,
            throw=False,
        )
        assert run.ys is not None
        return jax.vmap(lambda w, z: jnp.maximum(x @ w.T, 0) @ z)(*run.ys)

    compiled = jax.jit(jax.vmap(follow))
    return lambda: compiled(networks.w, networks.z)
