"""The GPU engine: interpreted it does what the reference does, and its kernel is accepted for a GPU without one being there.

How fast it is can only be seen on a GPU: `python -m benchmarks gpu`.
"""

import inspect
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.problem import (
    LOSSES,
    CrossEntropy,
    Dataset,
    GradientDescent,
    GradientFlow,
    StochasticGradientDescent,
    TwoLayerReLU,
)
from gradstarve.simulation import simulate
from gradstarve.simulation.engines import _pallas as pallas
from gradstarve.simulation.engines import _reference as reference
from gradstarve.simulation.engines._pallas import WARP, tiling

BATCH = 13

# eta [b] -> dynamics, hyperparameters one per network.
RULES = {
    "plain": lambda eta: GradientDescent(eta),
    "momentum": lambda eta: GradientDescent(eta / 2, momentum=eta),
    "nesterov and decay": lambda eta: GradientDescent(eta / 2, momentum=4 * eta, nesterov=True, weight_decay=eta / 5),
    "decay": lambda eta: GradientDescent(eta, weight_decay=eta / 3),
    "one point a step": lambda eta: StochasticGradientDescent(eta),
}

# Rule, loss, width, d, n: every loss, rule and size once. The others are repetitions.
FIRST = (
    ("plain", "cross-entropy", 8, 2, 2),
    ("momentum", "hinge", 3, 5, 7),
    ("nesterov and decay", "exponential", 1, 1, 1),
    ("decay", "squared", 8, 1, 2),
    ("one point a step", "cross-entropy", 3, 2, 7),
)
EVERY = [
    pytest.param(*case, marks=[] if case in FIRST else pytest.mark.slow)
    for case in [
        *FIRST,
        *((rule, loss, 3, 2, 2) for rule in RULES for loss in LOSSES),
        *(("nesterov and decay", "squared", h, d, n) for h in (1, 3, 8) for d in (1, 2, 5) for n in (1, 2, 7)),
        *(("one point a step", "hinge", 3, 5, n) for n in (1, 2, 7, 33)),
        ("plain", "cross-entropy", 70, 20, 30),
    ]
]


def random_problem(width, dim, size, batch=BATCH, dtype=np.float64, seed=0):
    rng = np.random.default_rng([seed, width, dim, size])
    weights = rng.uniform(0.5, 1.5, size)
    points, labels = rng.normal(size=(size, dim)), np.where(rng.random(size) < 0.5, 1, -1)
    data = Dataset(*(jnp.asarray(v, dtype) for v in (points, labels, weights / weights.sum())))
    w, z = rng.normal(size=(batch, width, dim)), rng.normal(size=(batch, width))
    network = TwoLayerReLU(jnp.asarray(w / width**0.5, dtype), jnp.asarray(z / width**0.5, dtype))
    return data, network, jnp.asarray(rng.uniform(0.02, 0.2, batch), dtype)


def start(network, eta, rule):
    """The dynamics, and the state before step 0; hyperparameters are one per network, as every engine gets them."""
    dynamics = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, eta.shape), RULES[rule](eta))
    keys = jax.random.split(jax.random.key(5), eta.size) if rule == "one point a step" else None
    return dynamics, reference.start(network, dynamics, keys)


def assert_close(found, expected, atol):
    found, expected = jax.tree.leaves(found), jax.tree.leaves(expected)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.dtype == theirs.dtype
        if jnp.issubdtype(theirs.dtype, jax.dtypes.prng_key):
            ours, theirs = jax.random.key_data(ours), jax.random.key_data(theirs)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("rule", "loss", "width", "dim", "size"), EVERY)
def test_interpreted_it_does_what_the_reference_does(rule, loss, width, dim, size):
    data, network, eta = random_problem(width, dim, size)
    loss = LOSSES[loss]()
    dynamics, state = start(network, eta, rule)
    # Taken over from the reference in mid-run, with what it remembers, and handed back.
    state, _, _ = reference.advance(state, data, loss, dynamics, 1, 5, False)
    expected = reference.advance(state, data, loss, dynamics, 3, 20, True)
    found = pallas.advance(state, data, loss, dynamics, 3, 20, True)
    assert found[1].shape == (3, BATCH, size)
    assert found[2].w.shape == (3, BATCH, width, dim)
    assert found[0].step == 65
    if not np.any(getattr(dynamics, "momentum", 0)):
        # Nothing reads velocities that momentum multiplies by zero, and they stay what they were.
        assert_close(found[0].memory, state.memory, 0)
        expected = (reference.State(expected[0].networks, state.memory, expected[0].step), *expected[1:])
    assert float(jnp.abs(found[2].w[-1] - state.networks.w).max()) > 1e-3
    assert_close(found, expected, 1e-9)


@pytest.mark.usefixtures("x64")
def test_blocks_are_of_no_consequence():
    # The same networks to the last bit when they are trained among more, in other places of a block.
    data, network, eta = random_problem(8, 2, 2)
    dynamics, state = start(network, eta, "plain")
    block = pallas.plan_for(network, data, CrossEntropy(), dynamics, 3, 20, True).tiling.block
    assert BATCH % block
    chosen = np.r_[3:12, 0:13, 5]
    shuffled = jax.tree.map(lambda leaf: leaf[chosen] if leaf.ndim else leaf, (state, dynamics))
    few = pallas.advance(state, data, CrossEntropy(), dynamics, 3, 20, True)
    many = pallas.advance(shuffled[0], data, CrossEntropy(), shuffled[1], 3, 20, True)
    np.testing.assert_array_equal(many[1], few[1][:, chosen])
    np.testing.assert_array_equal(many[0].networks.w, few[0].networks.w[chosen])


def test_new_numbers_are_not_a_new_compilation():
    data, network, eta = random_problem(3, 1, 2, dtype=np.float32)
    dynamics, state = start(network, eta, "plain")
    first = pallas.advance(state, data, CrossEntropy(), dynamics, 2, 3, False)
    compiled = pallas.run._cache_size()
    dynamics, _ = start(network, eta / 2, "plain")
    second = pallas.advance(state, data, CrossEntropy(), dynamics, 2, 3, False)
    assert pallas.run._cache_size() == compiled
    assert first[1].dtype == second[1].dtype == jnp.float32
    assert first[2] is None
    assert float(jnp.abs(first[1] - second[1]).max()) > 1e-4
    expected = reference.advance(state, data, CrossEntropy(), dynamics, 2, 3, False)
    np.testing.assert_allclose(second[1], expected[1], atol=1e-5)


def test_simulate_runs_it():
    # Seven dimensions, spanned by two points.
    data, network, eta = random_problem(3, 7, 2, dtype=np.float32)
    runs = [
        simulate(data, network, "hinge", GradientDescent(eta), 40, record_every=20, engine=e)
        for e in ("reference", "pallas")
    ]
    np.testing.assert_allclose(runs[1].logits(), runs[0].logits(), rtol=0, atol=1e-3)
    np.testing.assert_allclose(runs[1].final.w, runs[0].final.w, atol=1e-4)


def test_keys_of_another_generator_are_left_to_the_reference():
    data, network, eta = random_problem(3, 2, 7, dtype=np.float32)
    dynamics, _ = start(network, eta, "one point a step")
    keys = jax.random.split(jax.random.key(5, impl="rbg"), BATCH)
    state = reference.start(network, dynamics, keys)
    expected = reference.advance(state, data, CrossEntropy(), dynamics, 1, 4, False)
    found = pallas.advance(state, data, CrossEntropy(), dynamics, 1, 4, False)
    np.testing.assert_array_equal(found[1], expected[1])


def test_what_does_not_fit_is_refused():
    data, network, eta = random_problem(3, 200, 200, dtype=np.float32)
    dynamics, state = start(network, eta, "plain")
    assert "d = 200" in pallas.unsupported(data, network, CrossEntropy(), dynamics)
    with pytest.raises(ValueError, match="d = 200 coordinates in float32 do not fit"):
        pallas.advance(state, data, CrossEntropy(), dynamics, 1, 1, False)
    # Two points span two dimensions, whatever they are given in.
    few, _, _ = random_problem(3, 200, 2, dtype=np.float32)
    assert pallas.unsupported(few, network, CrossEntropy(), dynamics) is None
    wide = TwoLayerReLU(jnp.ones((1, 100_000, 2)), jnp.ones((1, 100_000)))
    assert "h = 100000" in pallas.unsupported(few, wide, CrossEntropy(), dynamics)
    assert "GradientFlow" in pallas.unsupported(few, network, CrossEntropy(), GradientFlow())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("momentum", [False, True])
def test_tilings_fill_whole_warps(dtype, momentum):
    found = {}
    for h in (1, 2, 3, 8, 64, 100, 129, 1000, 2048):
        for d in (1, 2, 8, 20, 32, 64, 100):
            for n in (1, 2, 3, 8, 9, 1000):
                tiles = found[h, d, n] = tiling(h, d, n, dtype, momentum)
                if tiles is None:
                    continue
                assert h <= tiles.neurons < 2 * h
                for size in tiles:
                    assert size >= 1
                for size in (tiles.block, tiles.neurons, tiles.each, tiles.warps):
                    assert size & (size - 1) == 0
                assert tiles.block * tiles.neurons == tiles.warps * WARP * tiles.each
                assert tiles.turn <= n
    # Never too much for a small network, always for one of 100 coordinates.
    assert all(tiles is not None for (h, d, n), tiles in found.items() if d <= 8 and h <= 129)
    assert all(tiles is None for (h, d, n), tiles in found.items() if d == 100)


# Older versions of JAX have devices of no platform, and take it from `lowering_platforms` alone.
PLATFORM = {"platform": "gpu"} if "platform" in inspect.signature(jax.sharding.AbstractDevice).parameters else {}


def lowered(rule, dtype, loss=None, keep=False):
    """The program for an NVIDIA GPU: text of the whole of it, and the plan. No GPU is needed for this."""
    loss = loss or CrossEntropy()
    data, network, eta = random_problem(3, 5, 20, batch=100, dtype=dtype)
    dynamics, state = start(network, eta, rule)
    plan = pallas.plan_for(network, data, loss, dynamics, 3, 20, keep)._replace(interpret=False)
    device = jax.sharding.AbstractDevice(**{"device_kind": "NVIDIA H100", "num_cores": None} | PLATFORM)
    with jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device)):
        return pallas.run.trace(plan, state, data, dynamics).lower(lowering_platforms=("cuda",)).as_text(), plan


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("rule", "loss"), [*zip(RULES, [*LOSSES, "exponential"], strict=True)])
def test_the_kernel_lowers_for_a_gpu(rule, loss, dtype):
    text, plan = lowered(rule, dtype, LOSSES[loss](), keep=rule == "decay")
    # One launch, of as many programs as there are blocks, and no loop around it.
    launches = [line for line in text.splitlines() if "__gpu$xla.gpu.triton" in line]
    assert len(launches) == 1
    assert int(re.search(r"grid_x = (\d+)", launches[0])[1]) == -(-100 // plan.tiling.block)
    assert int(re.search(r"num_warps = (\d+)", launches[0])[1]) == plan.tiling.warps
    assert "stablehlo.while" not in text
    # What Triton is given: loops, and sums over neurons.
    assert all(word in launches[0] for word in ("train_two_layer_relu", "scf", "reduce"))


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated:DeprecationWarning")
def test_lowering_refuses_what_a_gpu_kernel_can_not_do():
    class Sorting(CrossEntropy):
        def residual(self, margin):
            return jnp.sort(margin)

    with pytest.raises(NotImplementedError, match="sort"):
        lowered("plain", np.float32, Sorting())
