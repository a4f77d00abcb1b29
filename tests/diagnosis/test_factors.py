"""Kernels that come from the factors of gradients, against products of whole gradients, layer by layer."""

import os
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.diagnosis._models import read_model

N = 7


def whole(apply, params, x):
    """Phi Phi^T [N C, N C] from the Jacobian, sample by sample."""
    rows = []
    for i in range(len(x)):
        jacobian = jax.jacrev(lambda p, i=i: apply(p, x[i : i + 1])[0])(params)
        leaves = [np.asarray(leaf, float) for leaf in jax.tree.leaves(jacobian)]
        rows.append(np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], 1))
    rows = np.concatenate(rows)
    return rows @ rows.T


def draws(*shapes):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape) / np.sqrt(shape[0]), jnp.float32) for shape in shapes]


def plain(p, x):
    return jnp.tanh(jax.nn.relu(x @ p[0] + p[1]) @ p[2].T) @ p[3]


def nested(p, x):
    return jax.jit(plain)(p, x)


def twice(p, x):
    """The first matrix is used in two products, the second read by something else too."""
    hidden = jax.nn.relu(x @ p[0] + p[1])
    return jnp.tanh((hidden + jnp.tanh(x) @ p[0]) @ p[2].T) @ p[3] + (p[2] ** 2).sum()


def scanned(p, x):
    """A matrix that every step of a loop uses."""
    first = x @ p[0] + p[1]
    return jax.lax.scan(lambda h, _: (jnp.tanh(h @ p[2].T), None), first, None, 3)[0] @ p[3]


def tokens(p, x):
    """Several vectors a sample."""
    parts = jax.nn.relu(x.reshape(len(x), 2, -1)[..., :5] @ p[0][:5] + p[1])
    return (parts @ p[2].T).sum(1) @ p[3]


@pytest.mark.parametrize("apply", [plain, nested, twice, scanned, tokens])
@pytest.mark.parametrize("outputs", [1, 3])
def test_kernels_in_jax(apply, outputs):
    params = draws((10, 12), (12,), (12, 12), (12, outputs))
    x = np.random.default_rng(1).normal(size=(N, 10)).astype("float32")
    exact = whole(apply, params, x)
    model = read_model((apply, params), x)
    np.testing.assert_allclose(model.kernel(), exact, rtol=1e-4, atol=1e-5 * exact.max())
    if outputs == 3:
        mean = np.einsum("ikjk->ij", exact.reshape(N, 3, N, 3)) / 3
        np.testing.assert_allclose(model.kernel(alike=True), mean, rtol=1e-4, atol=1e-5 * exact.max())


def test_what_is_kept_of_a_row():
    """d + e numbers of a matrix that is used once, d e of one that is not."""
    params = draws((10, 12), (12,), (12, 12), (12, 1))
    x = np.zeros((N, 10), "float32")
    # The read-out is no longer than its factors.
    assert read_model((plain, params), x)._row_bytes == 4 * (10 + 12 + 12 + 12 + 12 + 12)
    assert read_model((twice, params), x)._row_bytes == 4 * (120 + 12 + 144 + 12)
    assert read_model((nested, params), x)._row_bytes == read_model((plain, params), x)._row_bytes


def test_equal_models_are_compiled_once():
    from gradstarve.diagnosis import _models

    x = np.zeros((N, 4), "float32")
    nets = [eqx.nn.MLP(4, "scalar", 8, 1, key=jax.random.key(k)) for k in range(2)]
    read_model(nets[0], x).kernel()
    before = _models._jax_rows._cached._cache_size()
    read_model(nets[1], x).kernel()
    assert _models._jax_rows._cached._cache_size() == before


@pytest.mark.extras
@pytest.mark.parametrize("outputs", [1, 3])
def test_kernels_in_torch(outputs):
    torch = pytest.importorskip("torch") if not os.environ.get("REQUIRE_TORCH") else __import__("torch")
    nn = torch.nn

    class Tied(nn.Module):
        """A weight used by hand as well as by its layer; a layer called twice; a layer that sees two vectors a sample."""

        def __init__(self):
            super().__init__()
            self.first, self.twice, self.tokens = nn.Linear(32, 24), nn.Linear(24, 24), nn.Linear(12, 5)
            self.last = nn.Linear(10, outputs)

        def forward(self, x):
            hidden = torch.relu(self.first(x.flatten(1))) + 0.1 * x.flatten(1) @ self.first.weight.T
            hidden = torch.tanh(self.twice(torch.tanh(self.twice(hidden))))
            return self.last(self.tokens(hidden.reshape(-1, 2, 12)).flatten(1))

    torch.manual_seed(0)
    strided = nn.Conv2d(2, 6, 3, stride=(2, 1), padding=(1, 0))
    convolutional = nn.Sequential(
        *(strided, nn.ReLU(inplace=True), nn.Conv2d(6, 4, 2, bias=False), nn.BatchNorm2d(4), nn.Flatten()),
        *(nn.LazyLinear(16), nn.Tanh(), nn.Linear(16, outputs)),
    )
    x = torch.randn(N, 2, 4, 4)
    convolutional.eval()(x)
    for net in (Tied(), convolutional.eval()):
        rows = []
        for one in x:
            for c in range(outputs):
                grads = torch.autograd.grad(net(one[None])[0, c], list(net.parameters()))
                rows.append(torch.cat([g.flatten() for g in grads]).double().numpy())
        exact = np.array(rows) @ np.array(rows).T
        model: Any = read_model(net, x.numpy())
        np.testing.assert_allclose(model.kernel(), exact, rtol=1e-4, atol=1e-5 * exact.max())
        assert all(not part._forward_hooks for part in net.modules())
        if net is convolutional:  # all but batch normalisation
            assert sum(len(names) for _, names in model._layers.layers.values()) == 7
