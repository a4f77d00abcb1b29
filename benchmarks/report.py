"""The kernel of a report for 2,000 samples and a million parameters, beside the recipes of torch.func and of JAX.

Every row is measured in a fresh process, whose peak resident memory is that of the whole program, PyTorch and JAX included;
processes take turns. Beside the time on the clock stands that of the processors, which other work on the machine does not
change much; ratios are of these. The recipes are those of the documentation: gradients of one sample under vmap, products of
all pairs of chunks ("jacobian contraction"), and one vector product forth and back for every pair. Both do the same for
every pair of chunks or samples, and are timed on some of them and multiplied. Accuracy: against gradients of some samples in
64 bits, relative to the largest entry.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sweep import _peak_memory

SAMPLES, CHECKED, TURNS = 2000, 24, 1
CHUNK = 125  # samples whose gradients the recipes hold at a time, twice: 1 GB for a million parameters
FEW = {"vmap(jacrev), in chunks": 2 * CHUNK, "vjp and jvp of pairs": 12}  # samples on which recipes are timed
MODELS = ("torch MLP", "torch convolutional", "jax MLP")
METHODS = ("gradstarve", "vmap(jacrev), in chunks", "vjp and jvp of pairs")


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each model and method; `ratio` is the time to that of our kernel."""
    rows = []
    turns = 1 if quick else TURNS
    for model in MODELS:
        if model.startswith("torch") and find_spec("torch") is None:
            continue
        samples = 60 if quick else SAMPLES
        found: dict[str, list[dict[str, Any]]] = {method: [] for method in METHODS}
        for _ in range(turns):
            for method in METHODS:
                print(f"  {model}, {method}", flush=True)
                found[method].append(_in_a_process(model, method, samples))
        rows += compared(found)
    return rows


def compared(found: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A row for each method from its runs: medians of the times, and `ratio` of processor times to that of the first."""
    rows = []
    for runs in found.values():
        row = {key: statistics.median(one[key] for one in runs) for key in ("seconds", "processor_seconds")}
        row["peak_memory_mb"] = max(one["peak_memory_mb"] for one in runs)
        ratio = row["processor_seconds"] / (rows[0]["processor_seconds"] if rows else row["processor_seconds"])
        rows.append({**runs[0], **row, "ratio": ratio, "turns": len(runs)})
    return rows


def _in_a_process(*arguments: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.report", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1], env=dict(os.environ))
    if done.returncode:
        raise RuntimeError(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def problem(model: str, samples: int) -> tuple[Any, np.ndarray]:
    """A network of a million parameters, and samples."""
    rng = np.random.default_rng(0)
    if model == "torch convolutional":
        from torch import manual_seed, nn  # pyright: ignore[reportMissingImports]

        manual_seed(0)
        blocks = (nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        blocks += (nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
        network: Any = nn.Sequential(*blocks, nn.Linear(4096, 240), nn.ReLU(), nn.Linear(240, 1))
        x = rng.normal(size=(samples, 3, 32, 32))
    else:
        x = rng.normal(size=(samples, 256))
        if model == "torch MLP":
            from torch import manual_seed, nn  # pyright: ignore[reportMissingImports]

            manual_seed(0)
            blocks = (nn.Linear(256, 880), nn.ReLU(), nn.Linear(880, 880), nn.ReLU(), nn.Linear(880, 1))
            network = nn.Sequential(*blocks)
        else:
            import equinox as eqx
            import jax

            network = eqx.nn.MLP(256, "scalar", 880, 2, key=jax.random.key(0))
    return network, x.astype("float32")


def one(model: str, method: str, samples: int) -> dict[str, Any]:
    """The row of a model and a method, measured in this process."""
    network, x = problem(model, samples)
    _method(model, method)(network, x[:2])  # what is imported and compiled only once
    few = min(FEW.get(method, samples), samples)
    if few < samples and model.startswith("jax"):
        _method(model, method)(network, x[:few])  # compiles
    start = _peak_memory()
    clocks = (time.perf_counter, time.process_time)
    begin = [clock() for clock in clocks]
    kernel = _method(model, method)(network, x[:few])
    times = (samples / few) ** 2
    seconds, busy = (times * (clock() - first) for clock, first in zip(clocks, begin, strict=True))
    row = {"task": model, "what": method, "n": samples, "seconds": seconds, "processor_seconds": busy}
    row |= {"peak_memory_mb": _peak_memory(), "before_mb": start}
    row |= {"note": f"{few} samples, times {times:.3g}"} if few < samples else {}
    exact = _exact(network, x[:CHECKED])
    found = np.asarray(kernel, np.float64)[:CHECKED, :CHECKED]
    return row | {"worst_error": float(np.abs(found - exact).max() / np.abs(exact).max())}


def _method(model: str, method: str) -> Callable[[Any, np.ndarray], Any]:
    if method == METHODS[0]:
        from gradstarve.diagnosis._models import read_model

        return lambda network, x: read_model(network, x).kernel()
    kind = "torch" if model.startswith("torch") else "jax"
    recipes = {"torch": (torch_chunks, torch_pairs), "jax": (jax_chunks, jax_pairs)}
    return recipes[kind][METHODS.index(method) - 1]


def _exact(network: Any, x: np.ndarray) -> np.ndarray:
    """Products of gradients in 64 bits, one backward pass a sample."""
    if hasattr(network, "named_parameters"):
        import torch  # pyright: ignore[reportMissingImports]

        wide = network.double()
        rows = []
        for sample in torch.from_numpy(x).double():
            grads = torch.autograd.grad(wide(sample[None])[0, 0], list(wide.parameters()))
            rows.append(torch.cat([grad.flatten() for grad in grads]).numpy())
    else:
        import equinox as eqx
        import jax

        with jax.enable_x64(True):
            params, rest = eqx.partition(network, eqx.is_inexact_array)
            params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
            gradient = jax.jit(jax.grad(lambda p, x: eqx.combine(p, rest)(x)))
            rows = []
            for sample in x.astype(np.float64):
                leaves = jax.tree.leaves(gradient(params, sample))
                rows.append(np.concatenate([np.asarray(leaf).ravel() for leaf in leaves]))
    rows = np.array(rows)
    return rows @ rows.T


# The recipes: https://docs.pytorch.org/functorch/stable/notebooks/neural_tangent_kernels.html, and the same in JAX.


def torch_chunks(network: Any, x: np.ndarray) -> Any:
    """Jacobians of two chunks at a time, contracted leaf by leaf."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.func import functional_call, jacrev, vmap  # pyright: ignore[reportMissingImports]

    params = {name: one.detach() for name, one in network.named_parameters()}
    jacobian = vmap(jacrev(lambda p, one: functional_call(network, p, (one[None],))[0]), (None, 0))
    chunks = torch.from_numpy(x).split(CHUNK)

    def of(chunk: Any) -> list[Any]:
        return [part.flatten(2) for part in jacobian(params, chunk).values()]

    kernel = np.empty((len(x), len(x)), np.float32)
    for i, first in enumerate(chunks):
        rows = of(first)
        for j, second in enumerate(chunks):
            blocks = [torch.einsum("naf,maf->nm", a, b) for a, b in zip(rows, of(second), strict=True)]
            here = slice(i * CHUNK, i * CHUNK + len(first)), slice(j * CHUNK, j * CHUNK + len(second))
            kernel[here] = torch.stack(blocks).sum(0).numpy()
    return kernel


def torch_pairs(network: Any, x: np.ndarray) -> Any:
    """For every pair: the gradient at the one sample, pushed forward at the other."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.func import functional_call, jvp, vjp, vmap  # pyright: ignore[reportMissingImports]

    params = {name: one.detach() for name, one in network.named_parameters()}

    def pair(x1: Any, x2: Any) -> Any:
        def at(x: Any) -> Any:
            return lambda p: functional_call(network, p, (x[None],))[0]

        out, back = vjp(at(x1), params)
        return jvp(at(x2), (params,), back(torch.ones_like(out)))[1][0]

    samples = torch.from_numpy(x)
    return torch.stack([vmap(pair, (None, 0))(sample, samples) for sample in samples]).detach().numpy()


def jax_chunks(network: Any, x: np.ndarray) -> Any:
    """The same in JAX."""
    import equinox as eqx
    import jax

    params, rest = eqx.partition(network, eqx.is_inexact_array)
    jacobian = jax.jit(jax.vmap(jax.jacrev(lambda p, x: eqx.combine(p, rest)(x)), (None, 0)))

    @jax.jit
    def block(first: Any, second: Any) -> Any:
        pairs = zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True)
        return sum(a.reshape(len(a), -1) @ b.reshape(len(b), -1).T for a, b in pairs)

    chunks = [x[k : k + CHUNK] for k in range(0, len(x), CHUNK)]
    kernel = []
    for first in chunks:
        rows = jacobian(params, first)
        kernel.append(np.concatenate([np.asarray(block(rows, jacobian(params, second))) for second in chunks], 1))
    return np.concatenate(kernel)


def jax_pairs(network: Any, x: np.ndarray) -> Any:
    """The same in JAX."""
    import equinox as eqx
    import jax

    params, rest = eqx.partition(network, eqx.is_inexact_array)

    def pair(x1: Any, x2: Any) -> Any:
        tangent = jax.grad(lambda p: eqx.combine(p, rest)(x1))(params)
        return jax.jvp(lambda p: eqx.combine(p, rest)(x2), (params,), (tangent,))[1]

    row = jax.jit(jax.vmap(pair, (None, 0)))
    return np.stack([np.asarray(row(sample, x)) for sample in x])


if __name__ == "__main__":
    print(json.dumps(one(sys.argv[1], sys.argv[2], int(sys.argv[3]))))
