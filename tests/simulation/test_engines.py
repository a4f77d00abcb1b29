"""The fast engine against the obvious one: the same networks to rounding, whatever the loss, the rule and the shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.problem import LOSSES, Dataset, GradientDescent, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.simulation._span import left_by_decay
from gradstarve.simulation.engines import _choose as engines
from gradstarve.simulation.engines import _fused as fused
from gradstarve.simulation.engines import _reference as reference

RULES = {
    "plain": lambda eta: GradientDescent(eta),
    "momentum": lambda eta: GradientDescent(eta / 4, momentum=np.linspace(0.1, 0.9, eta.size)),
    "nesterov with decay": lambda eta: GradientDescent(eta / 4, 0.8, nesterov=True, weight_decay=eta / 20),
    "one point a step": lambda eta: StochasticGradientDescent(eta / 2),
}

# Other steps, over 300 of them. Steps of one length never come to rest at the target of squared loss: they make rounding
# large.
STEPS = {
    "layers": lambda eta: GradientDescent(eta, 0.5, weight_decay=0.01, read_out_step_size=eta / 3),
    "normalised": lambda eta: gs.NormalizedGradientDescent(eta / 4),
    "normalised, a schedule": lambda eta: gs.NormalizedGradientDescent(lambda k: 0.05 / (1 + 0.1 * k)),
    "signs": lambda eta: gs.SignDescent(eta / 50),
    "sharpness-aware": lambda eta: gs.SharpnessAware(eta, radius=0.02),
}


def random_problem(seed, batch, width, dim, size, dtype=np.float64):
    rng = np.random.default_rng(seed)
    weights = rng.uniform(0.5, 1.5, size)
    points, labels = rng.normal(size=(size, dim)), np.where(rng.random(size) < 0.5, 1, -1)
    data = Dataset(points.astype(dtype), labels.astype(dtype), (weights / weights.sum()).astype(dtype))
    w, z = rng.normal(size=(batch, width, dim)), rng.normal(size=(batch, width))
    scale = 0.6 / width**0.5
    return data, TwoLayerReLU((scale * w).astype(dtype), (scale * z).astype(dtype)), rng.uniform(0.02, 0.2, batch)


def both(data, networks, loss, dynamics, steps, every, key=None, **more):
    return [
        simulate(data, networks, loss, dynamics, steps, record_every=every, key=key, engine=e, **more)
        for e in ("reference", "fused")
    ]


def key_for(rule):
    return jax.random.key(7) if rule == "one point a step" else None


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rule", RULES)
def test_engines_agree_over_two_thousand_steps(rule, loss):
    # 16 rules and losses of 63 networks: 1,008 problems, with their own step sizes and, by threes, their own data.
    for seed in range(3):
        data, networks, eta = random_problem(seed, 21, 6, 3, 6)
        slow, fast = both(data, networks, loss, RULES[rule](eta), 2000, 100, key_for(rule))
        assert slow.grid.tolist() == fast.grid.tolist()
        np.testing.assert_allclose(fast.logits(), slow.logits(), rtol=0, atol=1e-9)
        np.testing.assert_allclose(fast.final.w, slow.final.w, rtol=0, atol=1e-9)
        np.testing.assert_allclose(fast.final.z, slow.final.z, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", *(pytest.param(one, marks=pytest.mark.slow) for one in LOSSES if one != "hinge")])
@pytest.mark.parametrize("rule", STEPS)
def test_engines_agree_on_other_steps(rule, loss):
    data, networks, eta = random_problem(3, 21, 6, 3, 6)
    steps = 60 if loss == "squared" and rule in ("normalised", "sharpness-aware") else 300
    slow, fast = both(data, networks, loss, STEPS[rule](eta), steps, 50)
    np.testing.assert_allclose(fast.logits(), slow.logits(), rtol=1e-12, atol=2e-12)
    np.testing.assert_allclose(fast.final.w, slow.final.w, rtol=1e-12, atol=2e-12)
    np.testing.assert_allclose(fast.final.z, slow.final.z, rtol=1e-12, atol=2e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("batch", "width", "dim", "size"), [(3, 70, 20, 30), (130, 5, 30, 4), (1, 1, 1, 1)])
@pytest.mark.parametrize("rule", ["normalised", "signs", pytest.param("sharpness-aware", marks=pytest.mark.slow)])
def test_shapes_of_other_steps(rule, batch, width, dim, size):
    """Matrix products; fewer points than dimensions, where a sign is of a coordinate all the same; one of everything."""
    data, networks, eta = random_problem(3, batch, width, dim, size)
    slow, fast = both(data, networks, "cross-entropy", STEPS[rule](eta), 50, 25)
    np.testing.assert_allclose(fast.logits(), slow.logits(), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(fast.final.w, slow.final.w, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("rule", ["normalised", "sharpness-aware"])
def test_no_gradient_has_no_direction(rule):
    """All neurons dead: the length of the gradient is 0, and nothing moves; and one so faint that its square is 0."""
    data = Dataset([[1.0, 0.0], [1.0, 0.5]], [1, -1])
    dead = TwoLayerReLU(-np.ones((3, 2, 2)), np.ones((3, 2)))
    slow, fast = both(data, dead, "hinge", STEPS[rule](np.full(3, 0.1)), 5, 5)
    np.testing.assert_array_equal(fast.final.w, dead.w)
    np.testing.assert_array_equal(slow.final.w, dead.w)
    faint = TwoLayerReLU(1e-170 * np.ones((3, 2, 2)), 1e-170 * np.ones((3, 2)))
    alone = Dataset([[1.0, 0.0]], [1])
    slow, fast = both(alone, faint, "hinge", STEPS[rule](np.full(3, 0.1)), 5, 5)
    np.testing.assert_allclose(fast.final.w, slow.final.w, rtol=1e-12)
    assert (np.asarray(fast.final.w)[..., 0] > 0).all()


def test_subclasses_with_steps_of_their_own_are_for_the_reference():
    class Mine(gs.GradientDescent):
        def update(self, network, memory, gradient):
            return network, memory

    data, networks, _ = random_problem(0, 2, 3, 2, 4, np.float32)
    assert engines.choose("auto", data, networks, gs.problem.as_loss("hinge"), Mine(0.1), 10**6).name == "reference"
    with pytest.raises(ValueError, match=r"it knows GradientDescent, .*SharpnessAware, got Mine"):
        simulate(data, networks, "hinge", Mine(0.1), 3, engine="fused")
    with pytest.raises(ValueError, match="one step size, got SignDescent"):
        simulate(data, networks, "hinge", gs.SignDescent(0.1), 3, engine="pallas")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("batch", "width", "dim", "size"), [(1, 1, 1, 1), (3, 70, 20, 30), (130, 5, 30, 4), (6, 600, 1, 4)])
@pytest.mark.parametrize("rule", ["nesterov with decay", "one point a step"])
def test_shapes(batch, width, dim, size, rule):
    # One of everything; matrix products (30 points in 20 dimensions); fewer points than dimensions: 30 reduced to 4; so
    # wide in one dimension that XLA would share the sums between threads.
    data, networks, eta = random_problem(3, batch, width, dim, size)
    slow, fast = both(data, networks, "cross-entropy", RULES[rule](eta), 21, 7, key_for(rule), record_networks=True)
    np.testing.assert_allclose(fast.logits(), slow.logits(), rtol=0, atol=1e-11)
    for ours, theirs in zip(jax.tree.leaves(fast.networks), jax.tree.leaves(slow.networks), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-11)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_repeated_points_are_merged_but_drawn_apart():
    rng = np.random.default_rng(5)
    points = rng.normal(size=(4, 3))[[0, 1, 0, 2, 3, 1, 0]]
    labels = np.array([1, -1, 1, 1, -1, -1, 1])
    data = Dataset(points, labels, np.arange(1, 8) / 28)
    assert data.reduce().data.size == 4
    _, networks, eta = random_problem(5, 9, 3, 3, 1)
    for rule in ("momentum", "one point a step"):
        slow, fast = both(data, networks, "hinge", RULES[rule](eta), 40, 10, key_for(rule))
        np.testing.assert_allclose(fast.logits(), slow.logits(), rtol=0, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_what_decay_leaves_off_the_span():
    # One neuron, one point along the first axis: the second coordinate is pushed by decay alone.
    dynamics = GradientDescent(jnp.array([0.1, 0.3]), jnp.array([0.0, 0.7]), True, jnp.array([0.5, 0.2]))
    left = left_by_decay(dynamics, 10, 4)
    networks = TwoLayerReLU(np.array([[[1.0, 1.0]]] * 2), np.ones((2, 1)))
    run = simulate(
        Dataset([[1.0, 0.0]], [1]), networks, "hinge", dynamics, 10, record_every=4, record_networks=True, engine="reference"
    )
    np.testing.assert_allclose(left, run.networks.w[:, :, 0, 1], rtol=1e-14)
    assert left.shape == (2, 4)


@pytest.mark.slow
def test_float32_agrees_in_distribution():
    # Rounding separates networks that pass near a kink; all of them together say the same.
    data, networks, eta = random_problem(2, 2000, 8, 3, 6, np.float32)
    dynamics = GradientDescent(np.asarray(eta, np.float32))
    slow, fast = (run.margins(1000) for run in both(data, networks, "cross-entropy", dynamics, 1000, 1000))
    assert fast.dtype == jnp.float32
    np.testing.assert_allclose(np.median(np.abs(fast - slow)), 0, atol=1e-4)
    levels = np.linspace(0.02, 0.98, 25)
    # Quantiles of 2,000 networks move by about 0.01 of the distribution from sample to sample; here it is one sample.
    np.testing.assert_allclose(np.quantile(fast, levels, axis=0), np.quantile(slow, levels, axis=0), rtol=0, atol=2e-3)


@pytest.mark.usefixtures("x64")
def test_a_network_does_not_depend_on_the_batch_it_is_in():
    data, networks, eta = random_problem(4, 200, 3, 2, 4)
    whole = simulate(data, networks, "cross-entropy", GradientDescent(eta), 50, record_every=50, engine="fused")
    for where in (slice(0, 1), slice(63, 130), slice(199, 200)):
        few = simulate(
            data, networks[where], "cross-entropy", GradientDescent(eta[where]), 50, record_every=50, engine="fused"
        )
        np.testing.assert_allclose(few.logits(50), whole.logits(50)[where], rtol=0, atol=1e-14)


def test_the_choice():
    data, networks, _ = random_problem(0, 2, 3, 2, 4, np.float32)
    descent = GradientDescent(0.1)

    def name(network=networks, loss="hinge", dynamics=descent, steps=None):
        return engines.choose("auto", data, network, gs.problem.as_loss(loss), dynamics, steps).name

    assert name() == name(steps=100_000) == "fused"
    assert name(steps=10) == "reference"
    assert name(network=gs.DeepReLU((networks.w, networks.z))) == "reference"
    import optax

    assert name(dynamics=optax.adam(0.1)) == "reference"

    class Mine(gs.CrossEntropy):
        name = "mine"

    assert name(loss=Mine()) == "reference"
    # Under jit the arrays are not there yet to choose a layout by.
    chosen = []
    jax.jit(lambda network: chosen.append(name(network)) or network.w)(networks)
    assert chosen == ["reference"]


def test_an_engine_that_can_not_says_so():
    data, networks, _ = random_problem(0, 2, 3, 2, 4, np.float32)
    with pytest.raises(ValueError, match="engine must be one of 'auto', 'reference', 'fused', 'pallas', got 'fast'"):
        simulate(data, networks, "hinge", GradientDescent(0.1), 3, engine="fast")
    with pytest.raises(ValueError, match=r'engine="fused" cannot run this: it trains a TwoLayerReLU.*DeepReLU.*"auto"'):
        simulate(data, gs.DeepReLU((networks.w, networks.z)), "hinge", GradientDescent(0.1), 3, engine="fused")
    wide = Dataset(np.eye(300, dtype=np.float32), np.ones(300, np.float32))
    networks = gs.init_two_layer(jax.random.key(0), 1, 1, 300)
    with pytest.raises(ValueError, match="at most 256 dimensions, the data have 300"):
        simulate(wide, networks, "hinge", StochasticGradientDescent(0.1), 3, key=jax.random.key(0), engine="fused")


def test_new_hyperparameters_keys_and_weights_are_no_new_compilation():
    data, networks, _ = random_problem(0, 11, 3, 2, 4, np.float32)
    fused._program.cache_clear()
    for eta in (0.1, 0.2):
        simulate(data, networks, "hinge", GradientDescent(eta), 20, record_every=5, engine="fused")
        key = jax.random.key(int(10 * eta))
        simulate(data, networks, "hinge", StochasticGradientDescent(eta), 20, record_every=5, key=key, engine="fused")
    assert fused._program.cache_info().misses == 2


def test_the_marks_are_understood_here_and_change_no_number():
    # Were XLA to stop understanding them, training would still be right, and slow: this test would tell.
    assert fused.available()
    data, networks, eta = random_problem(0, 65, 3, 2, 4, np.float32)
    dynamics = GradientDescent(np.asarray(eta, np.float32))
    marked = simulate(data, networks, "cross-entropy", dynamics, 50, record_every=10, engine="fused")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "available", lambda: False)
        plain = simulate(data, networks, "cross-entropy", dynamics, 50, record_every=10, engine="fused")
    np.testing.assert_allclose(marked.logits(), plain.logits(), rtol=0, atol=1e-6)


def test_a_shape_that_xla_refuses_with_marks_is_run_without(monkeypatch):
    data, networks, eta = random_problem(0, 65, 3, 2, 4, np.float32)
    dynamics = GradientDescent(np.asarray(eta, np.float32))
    usual = simulate(data, networks, "cross-entropy", dynamics, 50, record_every=10, engine="fused")
    fused._program.cache_clear()
    asked = []

    class Refusing:
        def __init__(self, wanted):
            asked.append(wanted)
            self.wanted = wanted

        def __enter__(self):
            if self.wanted:
                raise jax.errors.JaxRuntimeError("INTERNAL: Failed to materialize symbols")
            return {}

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(fused, "marked", Refusing)
    again = simulate(data, networks, "cross-entropy", dynamics, 50, record_every=10, engine="fused")
    assert asked == [True, False]
    np.testing.assert_allclose(again.logits(), usual.logits(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("size", "dim", "unrolled"), [(20, 2, True), (24, 1, True), (40, 2, False), (150, 2, False)])
def test_sums_are_written_out_for_few_points_only(size, dim, unrolled):
    """The compiler's time grows with the square of the points: 26 s for 110 of them, whatever the run is."""
    data, networks, _ = random_problem(0, 64, 3, dim, size, np.float32)
    dynamics = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.astype(np.float32), (64,)), GradientDescent(0.1))
    for steps in (10, 100_000):
        state = reference.start(networks, dynamics, None)
        plan = fused._plan(state, data, gs.problem.as_loss("hinge"), dynamics, (1, steps, False), True)
        assert plan.unrolled == unrolled


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dynamics", "dim", "count"),
    [
        (lambda s: gs.GradientDescent(s), 2, 300),
        (lambda s: gs.GradientDescent(s, momentum=0.7, nesterov=True, weight_decay=0.01), 2, 300),
        (lambda s: gs.GradientDescent(s, weight_decay=0.01), 30, 7),  # few points in many dimensions
        (lambda s: gs.StochasticGradientDescent(s), 2, 300),
    ],
)
def test_schedules_are_the_same_to_every_engine(dynamics, dim, count):
    data = gs.datasets.antipodal(dim, frequencies=(0.3, 0.7), key=jax.random.key(0))
    networks = gs.init_two_layer(jax.random.key(1), count, 8, dim, 0.4, 0.4)
    one = dynamics(lambda k: 0.3 * jnp.minimum(k / 10, 1) / (1 + 0.05 * k))
    key = 3 if isinstance(one, gs.StochasticGradientDescent) else None
    runs = [
        gs.simulate(data, networks, "cross-entropy", one, 70, record_every=20, key=key, engine=engine)
        for engine in ("reference", "fused")
    ]
    np.testing.assert_allclose(runs[1].recorded, runs[0].recorded, atol=1e-12)
    np.testing.assert_allclose(runs[1].final.w, runs[0].final.w, atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_a_schedule_has_the_precision_of_the_run():
    """A schedule is written out once for all phases and sweeps, before the precision of the data is known."""
    data = Dataset(np.float32([[1, 0], [-1, 0]]), np.float32([1, -1]))
    networks = jax.tree.map(lambda leaf: leaf.astype(np.float32), gs.init_two_layer(jax.random.key(1), 300, 8, 2))
    dynamics = gs.GradientDescent(lambda k: 0.1 / (1 + k))
    whole = gs.simulate(data, networks, "hinge", dynamics, 12, engine="reference")
    for engine in ("reference", "fused"):
        phases = gs.simulate([(5, data), (None, data)], networks, "hinge", dynamics, 12, engine=engine)
        assert phases.recorded.dtype == phases.final.w.dtype == np.float32
        np.testing.assert_allclose(phases.final.w, whole.final.w, atol=1e-6)
        assert gs.sweep(data, 50, steps=12, dynamics=dynamics, engine=engine)["error_mean"].dtype == np.float64
