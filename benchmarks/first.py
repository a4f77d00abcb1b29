"""The first answer: what a person waits for after the import, in a process of its own, with an empty cache and a full one.

Every row is one question. Its process imports the library, makes the arrays of the question, takes the time of the first
answer and of later ones, and of a program that has nothing to do with the library, the reference: on a slower machine both
take longer, and the ratio of the two stays.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# What is asked: what stands there before it is, and the question.
QUESTIONS = {
    "solve_mode(one mode).logit(200 times)": (
        "mode = gs.Mode(0.5, 1.0, a=[0.1], z=[0.1]); times = np.linspace(0.0, 50.0, 200)",
        "gs.theory.solve_mode(mode, 'cross-entropy').logit(times)",
    ),
    "solve(antipodal, 512 x 16).logits(100 times), flow": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, 512, 16, 2); times = np.linspace(0.0, 50.0, 100)",
        "gs.solve(data, net, 'cross-entropy').logits(times)",
    ),
    "the same, descent, 40 steps recorded": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, 512, 16, 2); steps = np.arange(0, 400, 10)",
        "gs.solve(data, net, 'cross-entropy', gs.GradientDescent(0.1)).logits(steps)",
    ),
    "simulate(512 x 16, 400 steps)": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, 512, 16, 2)",
        "gs.simulate(data, net, 'cross-entropy', gs.GradientDescent(0.1), steps=400).margins",
    ),
    "simulate_flow(64 x 16, 20 times)": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, 64, 16, 2); times = np.linspace(0.0, 20.0, 20)",
        "gs.simulate_flow(data, net, 'cross-entropy', times).margins",
    ),
    "simulate_hinge_exact(64 x 16)": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, 64, 16, 2); times = np.linspace(0.0, 20.0, 20)",
        "gs.simulate_hinge_exact(data, net).margins(times)",
    ),
    "simulate_hinge_exact(one network, h = 10,000)": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, (), 10_000, 2, 0.01, 0.01)",
        "gs.simulate_hinge_exact(data, net).margins(np.linspace(0.0, 20.0, 20))",
    ),
    "solve(one network, h = 10,000), 100 times": (
        "data, net = gs.datasets.antipodal(), gs.init_two_layer(key, (), 10_000, 2, 0.01, 0.01)",
        "gs.solve(data, net, 'cross-entropy').logits(np.linspace(0.0, 20.0, 100))",
    ),
    **{
        f"ntk.logistic_flow, n = {n}": (
            f"points = np.random.default_rng(0).normal(size=({n}, 80)).astype(np.float32); kernel = points @ points.T / 80",
            "gs.theory.ntk.logistic_flow(kernel, np.linspace(0.0, 20.0, 20, dtype=np.float32))",
        )
        for n in (50, 200)
    },
    **{
        f"starvation_report.from_jacobian, n = {n}": (
            f"rng = np.random.default_rng(0); labels = np.where(np.arange({n}) % 2, -1.0, 1.0).astype(np.float32); "
            f"jacobian = rng.normal(size=({n}, 300)).astype(np.float32); groups = np.arange({n}) % 4 < 3",
            "str(gs.starvation_report.from_jacobian(jacobian, labels, groups))",
        )
        for n in (100, 400)
    },
}
# What a person may wait at most, in seconds, on two cores: each question in its order.
ASKED = dict(zip(QUESTIONS, (0.7, 2.5, 1.5, 2, 4, 3, 2, 2.5, 2, 3, 2, 4), strict=True))

CHILD = """
import json, time
import gradstarve as gs
{cache}
import jax, jax.numpy as jnp, numpy as np
import gradstarve.theory
key = jax.random.key(0)
{setup}
jax.block_until_ready(jax.tree.leaves([x for x in list(globals().values()) if isinstance(x, (jax.Array, gs.TwoLayerReLU))]))
def ask():
    begin = time.perf_counter()
    jax.block_until_ready({question})
    return time.perf_counter() - begin
first = ask()
again = ask()
def reference(x):
    for k in range(100):
        x = jnp.sort(jnp.sin(x) + k)
    return x
begin = time.perf_counter()
jax.block_until_ready(jax.jit(reference)(jnp.arange(100.0)))
print(json.dumps([first, again, time.perf_counter() - begin]))
"""


def ask(name: str, cache: str | None) -> tuple[float, float, float]:
    """(first answer, later ones, the reference program) in seconds, in a fresh process."""
    setup, question = QUESTIONS[name]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JAX_")}
    kept = f"gs.enable_compilation_cache({cache!r})" if cache else ""
    code = CHILD.format(setup=setup, question=question, cache=kept)
    here = Path(__file__).parents[1]  # a clone; what is installed comes first
    done = subprocess.run([sys.executable, "-c", code], env=environment, cwd=here, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr[-2000:]}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each question: medians of five processes without a cache, and of five that find one."""
    turns = 1 if quick else 5
    rows = []
    for name in list(QUESTIONS)[:2] if quick else QUESTIONS:
        print(f"  {name}", flush=True)
        empty = [ask(name, None) for _ in range(turns)]
        with tempfile.TemporaryDirectory() as cache:
            ask(name, cache)
            full = [ask(name, cache) for _ in range(turns)]
        first, again, reference = (statistics.median(times) for times in zip(*empty, strict=True))
        ratio = statistics.median(one / other for one, _, other in empty)
        cached = statistics.median(one for one, _, _ in full)
        rows.append(
            {"what": name, "asked_seconds": ASKED[name], "first_seconds": first, "cached_seconds": cached, "seconds": again}
            | {"times_reference": ratio, "reference_seconds": reference, "turns": turns}
        )
    return rows
