"""What our engines are compared with: the same training as others would write it, from the obvious to the bound.

Every peer is a factory: of a problem and a size it makes a function that trains all networks and returns their logits at
every record, [records, B, n] as NumPy, or None where its tool is not installed.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import RECORD_EVERY, STEP_SIZE, Problem, Size

Run = Callable[[], Any]


def naive(problem: Problem, size: Size, points_first: bool = False) -> Run:
    """What a JAX user writes: vmap of grad, scanned over the steps, jitted.

    z @ relu(w @ x.T) and relu(x @ w.T) @ z are one formula and, batched, two programs: each is the faster one somewhere.
    """
    x, y, q = map(jnp.asarray, (problem.x, problem.y, problem.q))

    def outputs(theta):
        w, z = theta
        return jax.nn.relu(x @ w.T) @ z if points_first else z @ jax.nn.relu(w @ x.T)

    def loss(theta):
        return jnp.sum(q * jax.nn.softplus(-y * outputs(theta)))

    def step(theta, _):
        gradient = jax.vmap(jax.grad(loss))(theta)
        return jax.tree.map(lambda a, g: a - STEP_SIZE * g, theta, gradient), None

    def record(theta, _):
        theta, _ = jax.lax.scan(step, theta, None, length=RECORD_EVERY)
        return theta, jax.vmap(outputs)(theta)

    @jax.jit
    def train(w, z):
        return jax.lax.scan(record, (w, z), None, length=size.T // RECORD_EVERY)[1]

    w, z = jnp.asarray(problem.w), jnp.asarray(problem.z)
    return lambda: jax.block_until_ready(train(w, z))


def ours(problem: Problem, size: Size, engine: str = "auto") -> Run:
    """`gradstarve.simulate` as a user calls it."""
    import gradstarve as gs

    data = gs.Dataset(problem.x, problem.y, problem.q)
    networks = gs.TwoLayerReLU(problem.w, problem.z)
    descent = gs.GradientDescent(STEP_SIZE)

    def run():
        trajectory = gs.simulate(data, networks, "cross-entropy", descent, size.T, record_every=RECORD_EVERY, engine=engine)
        return jnp.moveaxis(jax.block_until_ready(trajectory.logits()), 1, 0)[1:]

    return run


def numpy_batched(problem: Problem, size: Size) -> Run:
    """NumPy over the whole batch, gradient by hand."""
    x, y, q = problem.x, problem.y, problem.q

    def run():
        w, z, seen = problem.w.copy(), problem.z.copy(), []
        for step in range(1, size.T + 1):
            pre = w @ x.T
            active = np.maximum(pre, 0)
            f = np.einsum("bh,bhn->bn", z, active)
            pull = STEP_SIZE * q * y / (1 + np.exp(y * f))
            z_step = np.einsum("bn,bhn->bh", pull, active)
            w += z[..., None] * (np.where(pre > 0, pull[:, None], 0) @ x)
            z += z_step
            if step % RECORD_EVERY == 0:
                seen.append(np.einsum("bh,bhn->bn", z, np.maximum(w @ x.T, 0)))
        return np.stack(seen)

    return run


def torch_bmm(problem: Problem, size: Size, compiled: bool = False) -> Run | None:
    """torch with batched products and autograd over the summed loss of all networks; perhaps through torch.compile."""
    try:
        import torch
    except ImportError:
        return None
    x, y, q = (torch.from_numpy(values) for values in (problem.x, problem.y, problem.q))

    def outputs(w, z):
        return torch.einsum("bh,bhn->bn", z, torch.relu(w @ x.T))

    def step(w, z):
        loss = (q * torch.nn.functional.softplus(-y * outputs(w, z))).sum()
        grad_w, grad_z = torch.autograd.grad(loss, (w, z))
        return grad_w, grad_z

    step = torch.compile(step) if compiled else step

    def run():
        w = torch.tensor(problem.w, requires_grad=True)
        z = torch.tensor(problem.z, requires_grad=True)
        seen = []
        for count in range(1, size.T + 1):
            grad_w, grad_z = step(w, z)
            with torch.no_grad():
                w -= STEP_SIZE * grad_w
                z -= STEP_SIZE * grad_z
                if count % RECORD_EVERY == 0:
                    seen.append(outputs(w, z).numpy().copy())
        return np.stack(seen)

    return run


def torch_vmap(problem: Problem, size: Size) -> Run | None:
    """torch.func: vmap of grad of one network's loss."""
    try:
        import torch
        from torch.func import grad, vmap
    except ImportError:
        return None
    x, y, q = (torch.from_numpy(values) for values in (problem.x, problem.y, problem.q))

    def loss(w, z):
        return (q * torch.nn.functional.softplus(-y * (z @ torch.relu(w @ x.T)))).sum()

    gradient = vmap(grad(loss, argnums=(0, 1)))

    def run():
        w, z, seen = torch.tensor(problem.w), torch.tensor(problem.z), []
        for count in range(1, size.T + 1):
            grad_w, grad_z = gradient(w, z)
            w, z = w - STEP_SIZE * grad_w, z - STEP_SIZE * grad_z
            if count % RECORD_EVERY == 0:
                seen.append(torch.einsum("bh,bhn->bn", z, torch.relu(w @ x.T)).numpy().copy())
        return np.stack(seen)

    return run


def torch_one_by_one(problem: Problem, size: Size) -> Run | None:
    """torch, each network by itself. For a few networks: who times it multiplies."""
    try:
        import torch
    except ImportError:
        return None
    x, y, q = (torch.from_numpy(values) for values in (problem.x, problem.y, problem.q))

    def run():
        result = []
        for w0, z0 in zip(problem.w, problem.z, strict=True):
            w, z, seen = torch.tensor(w0, requires_grad=True), torch.tensor(z0, requires_grad=True), []
            descent = torch.optim.SGD([w, z], lr=STEP_SIZE)
            for count in range(1, size.T + 1):
                descent.zero_grad()
                (q * torch.nn.functional.softplus(-y * (z @ torch.relu(w @ x.T)))).sum().backward()
                descent.step()
                if count % RECORD_EVERY == 0:
                    seen.append((z @ torch.relu(w @ x.T)).detach().numpy())
            result.append(np.stack(seen))
        return np.stack(result, axis=1)

    return run


def c_bound(problem: Problem, size: Size, lanes: bool) -> Run | None:
    """The C kernel of bound.c in one of its two layouts, where there is a compiler and the size fits the layout."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    fits = size.B % 16 == 0 if lanes else size.h % 16 == 0 and size.d % 4 == 0 and size.n % 4 == 0
    if compiler is None or not fits or problem.w.dtype != np.float32:
        return None
    folder = Path(tempfile.mkdtemp(prefix="gradstarve-bound-"))
    compiled, library = folder / "bound.o", folder / "bound.so"
    shape = [f"-D{name}={value}" for name, value in (("H", size.h), ("D", size.d), ("N", size.n), ("LANES", int(lanes)))]
    flags = ["-O3", "-march=native", "-mprefer-vector-width=512", "-ffast-math", "-fopenmp", "-fPIC"]
    source = Path(__file__).with_name("bound.c")
    # Linked apart: a library that is linked with fast mathematics makes this thread take subnormal numbers for 0.
    for command in (
        [*flags, *shape, "-c", str(source), "-o", str(compiled)],
        ["-shared", "-fopenmp", str(compiled), "-o", str(library), "-lm"],
    ):
        if subprocess.run([compiler, *command], capture_output=True).returncode:
            shutil.rmtree(folder)
            return None
    train = ctypes.CDLL(str(library)).train
    shutil.rmtree(folder)
    records = size.T // RECORD_EVERY

    def pointer(array):
        return array.ctypes.data_as(ctypes.c_void_p)

    def run():
        w, z = problem.w.copy(), problem.z.copy()
        out = np.empty((size.B, records, size.n), np.float32)
        fixed = [pointer(values) for values in (problem.x, problem.y, problem.q)]
        train(size.B, size.T, RECORD_EVERY, ctypes.c_float(STEP_SIZE), pointer(w), pointer(z), *fixed, pointer(out))
        return out.transpose(1, 0, 2)

    return run


PEERS: dict[str, Callable[[Problem, Size], Run | None]] = {
    "naive vmap(grad) + scan": naive,
    "naive, relu(x @ w.T) @ z": partial(naive, points_first=True),
    "gradstarve, reference engine": partial(ours, engine="reference"),
    "gradstarve": ours,
    "NumPy batched": numpy_batched,
    "torch autograd, batched": torch_bmm,
    "torch autograd, compiled": partial(torch_bmm, compiled=True),
    "torch vmap(grad)": torch_vmap,
    "C, networks in lanes": partial(c_bound, lanes=True),
    "C, neurons in lanes": partial(c_bound, lanes=False),
}
