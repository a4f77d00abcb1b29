"""The kernel of a model against Jacobians written out by hand and taken by JAX whole, and what it refuses."""

import os
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import gradstarve as gs
from gradstarve.theory import jacobian

pytestmark = pytest.mark.usefixtures("x64")
N, D = 7, 3


class Model(eqx.Module):
    """An equinox model with static fields, an integer array and a vector output of one entry."""

    first: eqx.nn.Linear
    last: eqx.nn.Linear
    order: jax.Array
    activation: callable = eqx.field(static=True)

    def __call__(self, x):
        return self.last(self.activation(self.first(x[self.order])))


def dictionary(params, x):
    return jnp.tanh(x["signal"] @ params["w"] + params["b"]) @ params["z"] + params["shift"] * x["offset"]


def problems():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(N, D))
    y = np.where(np.arange(N) % 2, 1, -1)
    keys = jax.random.split(jax.random.key(0), 2)
    layers = (eqx.nn.Linear(D, 5, key=keys[0], dtype=float), eqx.nn.Linear(5, 1, key=keys[1], dtype=float))
    module = Model(*layers, jnp.arange(D)[::-1], jax.nn.gelu)
    params = {"w": rng.normal(size=(D, 4)), "b": rng.normal(size=4), "z": rng.normal(size=4), "shift": 0.3}
    params = jax.tree.map(jnp.asarray, params)
    batch = {"signal": x, "offset": rng.normal(size=N)}
    network = gs.TwoLayerReLU(rng.normal(size=(6, D)), rng.normal(size=6))
    return {
        "equinox": (lambda model, x: jax.vmap(model)(x), module, x, y),
        "dictionary": (dictionary, params, batch, y),
        "TwoLayerReLU": (lambda net, x: net(x), network, x, y),
    }


def whole(apply, params, x, y):
    """Y Phi by jax.jacrev of all outputs together."""
    trained, held = eqx.partition(params, eqx.is_inexact_array)
    flat, unravel = ravel_pytree(trained)
    x = jax.tree.map(jnp.asarray, x)
    return y[:, None] * np.asarray(jax.jacrev(lambda flat: apply(eqx.combine(unravel(flat), held), x).reshape(-1))(flat))


@pytest.mark.parametrize("name", ["equinox", "dictionary", pytest.param("TwoLayerReLU", marks=pytest.mark.slow)])
def test_kernels_are_those_of_jacrev_in_any_memory(name):
    apply, params, x, y = problems()[name]
    expected = whole(apply, params, x, y)
    np.testing.assert_allclose(jacobian.margin_jacobian(apply, params, x, y), expected, rtol=1e-13, atol=1e-14)
    kernel = expected @ expected.T
    row, result = 4 * 8 * expected.shape[1], 8 * N * N
    for memory in (None, result + 3 * row + 7):
        found = np.asarray(jacobian.margin_kernel(apply, params, x, y, memory))
        np.testing.assert_allclose(found, kernel, rtol=1e-12, atol=1e-13)
        assert (found == found.T).all()
        assert np.linalg.eigvalsh(found)[0] > -1e-14 * np.abs(found).max()
        part = jax.tree.map(lambda leaf: leaf[2:4], x)
        cross = jacobian.cross_kernel(apply, params, part, y[2:4], x, y, memory)
        np.testing.assert_allclose(cross, kernel[2:4], rtol=1e-12, atol=1e-13)
    product = jacobian.kernel_product(apply, params, x, y)
    v = np.random.default_rng(1).normal(size=(N, 2))
    np.testing.assert_allclose(product(v), kernel @ v, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(product(v[:, 0]), kernel @ v[:, 0], rtol=1e-12, atol=1e-13)
    values = apply(params, jax.tree.map(jnp.asarray, x)).reshape(-1)
    np.testing.assert_allclose(jacobian.margins(apply, params, x, y), y * np.asarray(values))
    with pytest.raises(ValueError, match=rf"memory >= {result + row}"):
        jacobian.margin_kernel(apply, params, x, y, result + row - 1)


def test_two_layers_of_relu_by_hand():
    """df/dw_j = z_j 1[w_j . x > 0] x and df/dz_j = (w_j . x)_+, one neuron and one sample at a time."""
    apply, network, x, y = problems()["TwoLayerReLU"]
    w, z = np.asarray(network.w), np.asarray(network.z)
    expected = np.zeros((N, w.size + z.size))
    for i in range(N):
        for j in range(z.size):
            if w[j] @ x[i] > 0:
                expected[i, j * D : (j + 1) * D] = y[i] * z[j] * x[i]
                expected[i, w.size + j] = y[i] * (w[j] @ x[i])
    np.testing.assert_allclose(jacobian.margin_jacobian(apply, network, x, y), expected, rtol=1e-14, atol=1e-15)
    np.testing.assert_allclose(jacobian.margin_kernel(apply, network, x, y), expected @ expected.T, rtol=1e-13, atol=1e-14)


@pytest.mark.slow
def test_the_kernel_says_what_a_step_does():
    """f moves by eta K sigmoid(-m) in a small step of descent, on test samples too."""
    apply, params, x, y = problems()["dictionary"]
    x = jax.tree.map(jnp.asarray, x)
    train, test = jax.tree.map(lambda leaf: leaf[:4], x), jax.tree.map(lambda leaf: leaf[4:], x)
    loss = lambda p: jnp.sum(jax.nn.softplus(-y[:4] * apply(p, train)))  # noqa: E731
    step = 1e-5
    after = jax.tree.map(lambda p, g: p - step * g, params, jax.grad(loss)(params))
    before, moved = (np.asarray(jacobian.margins(apply, p, test, y[4:])) for p in (params, after))
    alpha = jax.nn.sigmoid(-jacobian.margins(apply, params, train, y[:4]))
    law = jacobian.cross_kernel(apply, params, test, y[4:], train, y[:4]) @ alpha
    np.testing.assert_allclose((moved - before) / step, law, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_inside_jit():
    apply, params, x, y = problems()["dictionary"]
    kernel = jacobian.margin_kernel(apply, params, x, y)
    inside = jax.jit(lambda params: jacobian.margin_kernel(apply, params, x, y))(params)
    np.testing.assert_allclose(inside, kernel, rtol=1e-12)


@pytest.mark.slow
def test_float32_stays_float32():
    x = jnp.eye(2, dtype=jnp.float32)
    kernel = jacobian.margin_kernel(lambda w, x: x @ w, jnp.ones(2, jnp.float32), x, [1, -1])
    assert kernel.dtype == np.float32


def linear(w, x):
    return x @ w


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"apply": lambda w, x: x}, r"one logit a sample, \[n\] or \[n, 1\], but for . samples? it gave shape \((4|1), 2\)"),
        ({"apply": lambda w, x: jnp.sum(x @ w)}, r"it gave shape \(\)"),
        ({"apply": lambda w, x: (x @ w, w)}, "it gave a tuple"),
        ({"apply": lambda w, x: x @ w - jnp.mean(x @ w)}, "output of sample . is .* alone and .* in a batch"),
        ({"apply": lambda w, x: jnp.sqrt(x[:, 0] * w[0])}, "gradient of the margin of sample 2 is not finite"),
        ({"y": [1, -1, 0, 1]}, r"y\[2\] = 0"),
        ({"y": [1.0, -1.0, 0.5, 1.0]}, r"y\[2\] = 0.5"),
        ({"y": [True, False, True, True]}, "got bool"),
        ({"y": [1, 1, 1, 1]}, r"all 4 labels are \+1"),
        ({"y": [1, -1, 1]}, r"x must have one row for each of the 3 labels, got an array of shape \(4, 2\)"),
        ({"y": [[1, -1, 1, 1]]}, r"y must be labels \[n\] with n >= 1, got shape \(1, 4\)"),
        ({"params": jnp.array([1, 2])}, "no floating-point array"),
        ({"params": jnp.ones(2, jnp.float16)}, "float16"),
        ({"memory": 10}, r"memory = 10 bytes is too little: .* give memory >= 192"),
        ({"memory": 0.5}, "memory must be an integer >= 1, got 0.5"),
    ],
)
def test_bad_input_is_named(change, message):
    x = jnp.array([[1.0, 2.0], [3.0, 4.0], [0.0, 1.0], [1.0, 1.0]])
    given = {"apply": linear, "params": jnp.ones(2), "x": x, "y": [1, -1, 1, 1], "memory": None} | change
    with pytest.raises(ValueError, match=message):
        jacobian.margin_kernel(**given)


def test_test_samples_may_be_of_one_class_but_must_be_labelled():
    x = jnp.eye(2)
    assert jacobian.cross_kernel(linear, jnp.ones(2), x[:1], [1], x, [1, -1]).tolist() == [[1, 0]]
    with pytest.raises(ValueError, match=r"y\[0\] = 0"):
        jacobian.cross_kernel(linear, jnp.ones(2), x[:1], [0], x, [1, -1])
    with pytest.raises(ValueError, match="memory >= 80"):
        jacobian.cross_kernel(linear, jnp.ones(2), x[:1], [1], x, [1, -1], memory=79)


def test_products_want_their_shape():
    product = jacobian.kernel_product(linear, jnp.ones(2), jnp.eye(2), [1, -1])
    with pytest.raises(ValueError, match=r"n = 2 samples, got shape \(3,\)"):
        product(np.ones(3))


def test_a_kernel_that_moves_is_a_warning():
    before, after = np.eye(2), np.diag([1.0, 1.5])
    assert float(jacobian.kernel_change(before, after)) == pytest.approx(0.5 / 2**0.5)
    with pytest.warns(jacobian.LinearRegimeWarning, match=r"changed by 0.35 of its norm \(limit 0.1\)"):
        assert jacobian.check_linear_regime(before, after) == pytest.approx(0.5 / 2**0.5)
    assert jacobian.check_linear_regime(before, after, limit=0.4) == pytest.approx(0.5 / 2**0.5)
    for call, message in (
        (lambda: jacobian.kernel_change(0 * before, after), "K0 is zero"),
        (lambda: jacobian.kernel_change(before, np.eye(3)), r"one shape, got \(2, 2\) and \(3, 3\)"),
        (lambda: jacobian.check_linear_regime(before, after, limit=-1), "limit must be a number > 0, got -1"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


MEMORY = """
import sys
import jax.numpy as jnp, numpy as np
from gradstarve.theory import jacobian
size, rows, memory = 500_000, 200, int(sys.argv[1])
rng = np.random.default_rng(0)
w = jnp.asarray(rng.normal(size=size), jnp.float32)
x = jnp.asarray(rng.integers(0, size, (rows, 3)))
y = np.where(np.arange(rows) % 2, 1, -1)
apply = lambda w, x: jnp.sum(w[x], axis=-1)
jacobian.margins(apply, w, x, y)
peak = lambda: next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
before = peak()
kernel = jacobian.margin_kernel(apply, w, x, y, memory)
print((peak() - before) * 1024, float(jnp.trace(kernel)))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the peak memory from /proc")
def test_the_memory_given_is_kept():
    """The whole Jacobian would take 400 MB, and as much again while it is made."""
    memory = 120_000_000
    # Without this the C library keeps blocks of that size for later, whoever gave them back.
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "1000000"}
    command = [sys.executable, "-c", MEMORY, str(memory)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    used, trace = map(float, run.stdout.split())
    print(f"{used / 1e6:.0f} MB of {memory / 1e6:.0f}")
    assert trace == 600
    assert 0.2 * memory < used < 1.5 * memory  # compiling takes some
