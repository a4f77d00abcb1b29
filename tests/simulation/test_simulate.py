"""Descent against plain NumPy and optax, its record, its randomness, and how it refuses bad input."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy import stats
from simulation.plain import gradient, train

import gradstarve as gs
from gradstarve.ground import ConvergenceError
from gradstarve.problem import (
    LOSSES,
    Dataset,
    GradientDescent,
    GradientFlow,
    StochasticGradientDescent,
    TwoLayerReLU,
    datasets,
    init_two_layer,
)
from gradstarve.simulation import simulate
from gradstarve.simulation.engines import _reference as reference

ATOL = {"float32": 2e-5, "float64": 1e-12}


def same_weights(got, want, atol=0.0):
    np.testing.assert_allclose(got.w, want.w, rtol=atol, atol=atol)
    np.testing.assert_allclose(got.z, want.z, rtol=atol, atol=atol)


def problem(batch=7, width=5, dim=3, seed=0, scale=0.5):
    """Random data, not separable in any way, so that nothing but the definition of training helps."""
    points = jax.random.normal(jax.random.key(seed), (6, dim))
    weights = jnp.arange(1.0, 7.0) / 21
    data = Dataset(points, [1, -1, 1, 1, -1, -1], weights)
    return data, init_two_layer(jax.random.key(seed + 1), batch, width, dim, scale, scale)


def pick(precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")


@pytest.mark.parametrize(("loss", "precision"), [*((loss, "float64") for loss in LOSSES), ("hinge", "float32")])
def test_plain_descent_is_the_numpy_loop(loss, precision, request):
    pick(precision, request)
    data, nets = problem()
    run = simulate(data, nets, loss, GradientDescent(0.1), steps=60)
    want, w, z = train(data, nets, loss, 60, 0.1)
    assert run.logits().dtype == precision
    np.testing.assert_allclose(run.logits(), want, rtol=0, atol=ATOL[precision])
    np.testing.assert_allclose(run.final.w, w, rtol=0, atol=ATOL[precision])
    np.testing.assert_allclose(run.final.z, z, rtol=0, atol=ATOL[precision])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("momentum", "nesterov", "decay"), [(0.9, False, 0.0), (0.0, False, 0.03), (0.9, True, 0.0), (0.7, True, 0.01)]
)
def test_momentum_and_decay_are_numpy_and_optax(momentum, nesterov, decay):
    data, nets = problem()
    ours = simulate(data, nets, "cross-entropy", GradientDescent(0.2, momentum, nesterov, decay), 50)
    want, *_ = train(data, nets, "cross-entropy", 50, 0.2, momentum, nesterov, decay)
    np.testing.assert_allclose(ours.logits(), want, rtol=0, atol=1e-12)
    chain = optax.chain(optax.add_decayed_weights(decay), optax.sgd(0.2, momentum, nesterov))
    theirs = simulate(data, nets, "cross-entropy", chain, 50)
    np.testing.assert_allclose(ours.logits(), theirs.logits(), rtol=0, atol=1e-12)


def test_the_crossing_of_two_to_the_fourteen_and_fifteen():
    # Compilers pick other code for large batches, and have picked wrong code.
    data = datasets.antipodal(dim=2, norms=(1.0, 1.5), frequencies=(0.25, 0.75), key=jax.random.key(2))
    many = init_two_layer(jax.random.key(3), 2**15 + 3, 2, 2, 0.5, 0.5)
    for size in (2**14 + 1, 2**15 + 3):
        nets = many[:size]
        run = simulate(data, nets, "cross-entropy", GradientDescent(0.3), steps=6, record_every=6)
        want, *_ = train(data, nets, "cross-entropy", 6, 0.3)
        np.testing.assert_allclose(run.logits(6), want[:, -1], rtol=0, atol=5e-5)


def test_every_network_has_its_own_hyperparameters():
    data, nets = problem(batch=(2, 3))
    eta = jnp.array([[0.01, 0.1, 0.2], [0.3, 0.4, 0.5]])
    momentum = jnp.array([[0.0, 0.9, 0.5], [0.1, 0.2, 0.3]])
    run = simulate(data, nets, "cross-entropy", GradientDescent(eta, momentum), 20, record_every=10)
    assert run.logits().shape == (2, 3, 3, 6)
    for index in ((0, 1), (1, 2)):
        one = simulate(data, nets[index], "cross-entropy", GradientDescent(eta[index], momentum[index]), 20, record_every=10)
        assert one.logits().shape == (3, 6)
        np.testing.assert_allclose(run.logits()[index], one.logits(), rtol=0, atol=2e-6)


def test_record_every_and_progress_change_nothing_but_the_grid():
    data, nets = problem()
    dynamics, key = StochasticGradientDescent(0.1), jax.random.key(9)
    full = simulate(data, nets, "hinge", dynamics, 30, record_every=1, key=key)
    assert full.grid.tolist() == list(range(31))
    for every, grid in ((7, [0, 7, 14, 21, 28, 30]), (50, [0, 30])):
        calls = []
        part = simulate(
            data, nets, "hinge", dynamics, 30, record_every=every, key=key, progress=lambda *a, c=calls: c.append(a)
        )
        assert part.grid.tolist() == grid
        np.testing.assert_allclose(part.logits(), full.logits(grid), rtol=0, atol=1e-6)
        done = [d for d, _ in calls]
        assert done == sorted(done)
        assert (done[0], done[-1]) == (0, 30)
        assert len(done) > 5
        assert {total for _, total in calls} == {30}


@pytest.mark.slow
def test_stopping_and_going_on_is_one_run():
    data, nets = problem()
    dynamics = GradientDescent(0.1)
    whole = simulate(data, nets, "cross-entropy", dynamics, 40, record_every=20)
    half = simulate(data, nets, "cross-entropy", dynamics, 20, record_every=20)
    rest = simulate(data, half.final, "cross-entropy", dynamics, 20, record_every=20)
    np.testing.assert_allclose(half.logits(20), rest.logits(0), rtol=0, atol=1e-6)
    np.testing.assert_allclose(rest.logits(20), whole.logits(40), rtol=0, atol=1e-6)
    same_weights(rest.final, whole.final, atol=1e-6)


def test_the_order_of_neurons_and_points_does_not_matter_and_signs_flip_together():
    data, nets = problem()
    order, shuffle = jnp.array([3, 0, 4, 1, 2]), jnp.array([5, 2, 0, 3, 1, 4])
    turned = TwoLayerReLU(nets.w[:, order], nets.z[:, order])
    mixed = Dataset(data.points[shuffle], data.labels[shuffle], data.weights[shuffle])
    run = simulate(data, nets, "cross-entropy", GradientDescent(0.1), 40, record_every=20)
    other = simulate(mixed, turned, "cross-entropy", GradientDescent(0.1), 40, record_every=20)
    np.testing.assert_allclose(run.logits()[..., shuffle], other.logits(), rtol=0, atol=2e-6)
    flipped = Dataset(data.points, -data.labels, data.weights)
    other = simulate(flipped, TwoLayerReLU(nets.w, -nets.z), "cross-entropy", GradientDescent(0.1), 40, record_every=20)
    np.testing.assert_array_equal(run.logits(), -other.logits())
    np.testing.assert_array_equal(run.error(), other.error())


def test_networks_are_recorded_when_asked_for():
    data, nets = problem(batch=(2, 2))
    run = simulate(data, nets, "cross-entropy", GradientDescent(0.1), 25, record_every=10, record_networks=True)
    assert run.network().w.shape == (2, 2, 4, 5, 3)
    assert run.network([[0, 25], [10, 20]]).z.shape == (2, 2, 2, 2, 5)
    assert run.network(10).w.shape == (2, 2, 5, 3)
    np.testing.assert_allclose(run.network()(data.points), run.logits(), rtol=0, atol=2e-6)
    same_weights(run.network(0), nets)
    same_weights(run.network(25), run.final)


@pytest.mark.usefixtures("x64")
def test_stochastic_descent_is_the_numpy_loop_on_its_draws():
    data, nets = problem(batch=(3, 2))
    key = jax.random.key(4)
    run = simulate(data, nets, "cross-entropy", StochasticGradientDescent(0.2), 40, key=key)
    draws = draw(key, 6, 40, data.weights)
    flat = jax.tree.map(lambda leaf: leaf.reshape(6, *leaf.shape[2:]), nets)
    want, *_ = train(data, flat, "cross-entropy", 40, 0.2, draws=np.asarray(draws))
    np.testing.assert_allclose(run.logits().reshape(6, 41, 6), want, rtol=0, atol=1e-12)


@functools.partial(jax.jit, static_argnums=(1, 2))
def draw(key, networks, steps, weights):
    """The points drawn, [networks, steps]."""
    keys = jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(networks, dtype=jnp.uint32))
    one = jax.vmap(reference.draw_point, in_axes=(None, 0, None))
    return jax.vmap(one, in_axes=(0, None, None))(keys, jnp.arange(steps), weights)


def test_points_are_drawn_with_their_weights():
    weights = jnp.array([0.5, 0.25, 0.2, 0.04, 0.01])
    draws = np.asarray(draw(jax.random.key(5), 200, 500, weights))
    counts = np.bincount(draws.ravel(), minlength=5)
    assert stats.chisquare(counts, np.asarray(weights, float) / float(weights.sum()) * draws.size).pvalue > 1e-3
    # And independently: pairs of successive steps, and of neighbouring networks.
    for first, second in ((draws[:, :-1], draws[:, 1:]), (draws[:-1], draws[1:])):
        table = np.histogram2d(first.ravel(), second.ravel(), bins=(range(6), range(6)))[0]
        assert stats.chi2_contingency(table).pvalue > 1e-3


def test_draws_do_not_depend_on_the_precision(request):
    weights = np.array([0.3, 0.3, 0.4])
    single = draw(jax.random.key(6), 4, 200, jnp.asarray(weights, jnp.float32))
    request.getfixturevalue("x64")
    assert np.array_equal(single, draw(jax.random.key(6), 4, 200, jnp.asarray(weights)))


def test_a_single_point_is_always_drawn_and_a_rare_one_sometimes():
    assert not np.asarray(draw(jax.random.key(0), 3, 100, jnp.ones(1))).any()
    rare = draw(jax.random.key(0), 100, 2000, jnp.array([1e-3, 0.999]))
    assert 120 < (rare == 0).sum() < 290


def test_network_b_draws_the_same_in_every_batch():
    data, nets = problem(batch=6)
    key, dynamics = jax.random.key(7), StochasticGradientDescent(0.1)
    whole = simulate(data, nets, "hinge", dynamics, 20, record_every=20, key=key)
    part = simulate(data, nets[:2], "hinge", dynamics, 20, record_every=20, key=key)
    np.testing.assert_allclose(part.logits(), whole.logits()[:2], rtol=0, atol=1e-6)
    # Keys given one by one are used as they are: a sweep can cut its batch where it likes.
    keys = jax.vmap(lambda b: jax.random.fold_in(key, b))(jnp.arange(6))
    tail = simulate(data, nets[4:], "hinge", dynamics, 20, record_every=20, key=keys[4:])
    np.testing.assert_allclose(tail.logits(), whole.logits()[4:], rtol=0, atol=1e-6)
    # Old-style keys are keys too.
    legacy = simulate(data, nets, "hinge", dynamics, 20, record_every=20, key=jax.random.PRNGKey(7))
    np.testing.assert_allclose(legacy.logits(), whole.logits(), rtol=0, atol=1e-6)


def test_the_mean_of_one_stochastic_step_is_the_full_step():
    data, nets = problem(batch=1)
    many = jax.tree.map(lambda leaf: jnp.repeat(leaf, 20000, axis=0), nets)
    noisy = simulate(data, many, "cross-entropy", StochasticGradientDescent(0.1), 1, key=jax.random.key(8))
    full = simulate(data, nets, "cross-entropy", GradientDescent(0.1), 1)
    spread = np.asarray(noisy.final.w).std(0) / 20000**0.5
    assert (np.abs(np.asarray(noisy.final.w).mean(0) - np.asarray(full.final.w[0])) <= 5 * spread + 1e-6).all()


@pytest.mark.parametrize(
    "optimiser",
    [
        optax.adam(0.05),
        optax.polyak_sgd(),
        optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(max_backtracking_steps=5)),
        optax.sgd(optax.cosine_decay_schedule(0.3, 40)),
        optax.chain(optax.clip_by_global_norm(0.1), optax.sgd(0.5)),
    ],
    ids=["adam", "polyak", "linesearch", "schedule", "clipped"],
)
def test_any_optax_optimiser_is_optax_on_each_network(optimiser):
    data, nets = problem(batch=3)
    run = simulate(data, nets, "cross-entropy", optimiser, 8, record_every=4)
    extended = optax.with_extra_args_support(optimiser)

    def value(network):
        return jnp.sum(data.weights * jax.nn.softplus(-data.labels * network(data.points)))

    @jax.jit
    def step(network, state):
        level, grad = jax.value_and_grad(value)(network)
        updates, state = extended.update(grad, state, network, value=level, grad=grad, value_fn=value)
        return optax.apply_updates(network, updates), state

    for b in range(3):
        network, state = nets[b], optimiser.init(nets[b])
        for _ in range(8):
            network, state = step(network, state)
        np.testing.assert_allclose(run.logits(8)[b], network(data.points), rtol=1e-4, atol=1e-4)
    assert (run.loss(8) < run.loss(0)).all()


def test_new_hyperparameters_keys_and_weights_are_no_new_compilation():
    data, nets = problem(batch=11, width=3)
    before = eqx.debug.get_num_traces(reference.advance)
    for eta, momentum in ((0.1, 0.0), (0.2, 0.5), (0.3, 0.9)):
        simulate(data, nets, "cross-entropy", GradientDescent(eta, momentum), 20, record_every=5, engine="reference")
    assert eqx.debug.get_num_traces(reference.advance) == before + 1
    for eta, seed in ((0.1, 0), (0.2, 1)):
        key = jax.random.key(seed)
        simulate(
            data, nets, "cross-entropy", StochasticGradientDescent(eta), 20, record_every=5, key=key, engine="reference"
        )
    assert eqx.debug.get_num_traces(reference.advance) == before + 2


@pytest.mark.usefixtures("x64")
def test_training_is_differentiable_in_the_step_size():
    data, nets = problem(batch=2)

    def final_loss(eta):
        return simulate(data, nets, "cross-entropy", GradientDescent(eta), 10, record_every=10).loss()[:, -1].sum()

    slope = (final_loss(0.1 + 1e-6) - final_loss(0.1 - 1e-6)) / 2e-6
    np.testing.assert_allclose(jax.grad(final_loss)(jnp.array(0.1)), slope, rtol=1e-6)


def test_precision_follows_the_wider_of_data_and_network(request):
    data, nets = problem()
    assert simulate(data, nets, "hinge", GradientDescent(0.1), 3).logits().dtype == jnp.float32
    request.getfixturevalue("x64")
    assert simulate(data, nets, "hinge", GradientDescent(0.1), 3).logits().dtype == jnp.float32
    wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), data)
    run = simulate(wide, nets, "hinge", GradientDescent(jnp.float32(0.1)), 3)
    assert run.logits().dtype == run.final.w.dtype == run.initial.w.dtype == jnp.float64
    run = simulate(data, jax.tree.map(lambda leaf: leaf.astype(jnp.float64), nets), "hinge", GradientDescent(0.1), 3)
    assert run.error().dtype == run.data.points.dtype == jnp.float64


def test_divergence_is_named():
    data, nets = problem(batch=(2, 3))
    eta = jnp.full((2, 3), 0.01).at[1, 1].set(50.0)
    with pytest.raises(ConvergenceError, match=r"network \[1, 1\] .* step \d+.*1 of 6.*step size below 50\b") as caught:
        simulate(data, nets, "squared", GradientDescent(eta), 60, record_every=10)
    run = simulate(data, nets, "squared", GradientDescent(eta), 60, record_every=10, throw=False)
    sick = ~np.isfinite(run.logits()).all(-1)
    assert sick[1, 1].any()
    assert sick.sum() == sick[1, 1].sum()
    step = int(run.grid[np.argmax(sick[1, 1])])
    assert f"at step {step}," in str(caught.value)
    with pytest.raises(ConvergenceError, match=r"smaller step size"):
        simulate(data, nets[0, 0], "squared", optax.sgd(50.0), 60, record_every=10)


def test_the_bar_appears_on_request_only(capsys):
    data, nets = problem(batch=1)
    simulate(data, nets, "hinge", GradientDescent(0.1), 40, record_every=10)
    assert capsys.readouterr().err == ""
    simulate(data, nets, "hinge", GradientDescent(0.1), 40, record_every=10, progress=True)
    simulate(data, nets, "hinge", GradientDescent(0.1), 40, record_every=10, progress=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "training" in captured.err


GOOD = {"data": None, "network": None, "loss": "hinge", "dynamics": GradientDescent(0.1), "steps": 4}
BAD = [
    ({"data": [[1.0, 0.0, 0.0]]}, "data must be a Dataset, got list"),
    ({"network": (1, 2)}, "network must be a TwoLayerReLU or another Network, got tuple"),
    ({"network": TwoLayerReLU([[1.0, 2.0]], [1.0])}, "d = 2 inputs but the data have d = 3"),
    ({"loss": "logistic"}, "unknown loss 'logistic'; use one of 'cross-entropy'"),
    ({"dynamics": GradientFlow()}, "use simulate_flow"),
    ({"dynamics": GradientDescent}, r"give an instance, GradientDescent\(step_size\)"),
    ({"dynamics": 0.1}, r"GradientDescent, another dynamics in steps, or an optax.GradientTransformation, got 0\.1"),
    ({"dynamics": StochasticGradientDescent(0.1)}, r"give key=jax\.random\.key"),
    ({"dynamics": StochasticGradientDescent(0.1), "key": -3}, r"key must be one JAX key .* got -3"),
    ({"dynamics": StochasticGradientDescent(0.1), "key": np.array([0.5, 1.0])}, "key must be one JAX key"),
    ({"dynamics": StochasticGradientDescent(0.1), "key": jax.random.split(jax.random.key(0), 3)}, r"shape \(3,\)"),
    ({"key": jax.random.key(0)}, "GradientDescent draws nothing"),
    ({"dynamics": GradientDescent([0.1, 0.2])}, r"step_size has shape \(2,\).*batch shape \(7,\)"),
    ({"dynamics": GradientDescent(0.1, momentum=[[0.1]])}, r"momentum has shape \(1, 1\)"),
    ({"steps": 0}, "steps must be an integer >= 1, got 0"),
    ({"steps": 10.5}, r"steps must be an integer >= 1, got 10\.5"),
    ({"steps": True}, "steps must be an integer >= 1, got True"),
    ({"record_every": 0}, "record_every must be an integer >= 1, got 0"),
    ({"record_every": -3}, "record_every must be"),
    ({"progress": "yes"}, "progress must be None, True, False or a callable"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused(change, message):
    data, nets = problem()
    with pytest.raises(ValueError, match=message):
        simulate(**GOOD | {"data": data, "network": nets} | change)


class TestOptimisersThatAskForMore:
    """One network on two points, each optimiser against its rule in NumPy, or against the loss falling."""

    data = Dataset([[1.0, 0.2], [-0.5, 1.0]], [1, -1])
    network = TwoLayerReLU([[0.3, 0.1], [-0.2, 0.4]], [0.2, -0.3])

    def sharp(self, steps, rho=0.01, eta=0.1):
        """Sharpness-aware descent: the gradient is taken at weights + rho * gradient."""
        w, z = np.asarray(self.network.w)[None], np.asarray(self.network.z)[None]
        for _ in range(steps):
            grad_w, grad_z, _ = gradient(self.data, w, z, "cross-entropy")
            grad_w, grad_z, _ = gradient(self.data, w + rho * grad_w, z + rho * grad_z, "cross-entropy")
            w, z = w - eta * grad_w, z - eta * grad_z
        return gradient(self.data, w, z, "cross-entropy")[2][0]

    def test_sharpness_aware(self):
        inner = optax.sgd(0.1), optax.sgd(0.01)
        opaque = simulate(self.data, self.network, "cross-entropy", optax.contrib.sam(*inner, opaque_mode=True), 6)
        open_to_see = simulate(self.data, self.network, "cross-entropy", optax.contrib.sam(*inner), 12, record_every=2)
        for k in (1, 6):
            np.testing.assert_allclose(opaque.logits(k), self.sharp(k), atol=1e-6)
            np.testing.assert_allclose(open_to_see.logits(2 * k), self.sharp(k), atol=1e-6)

    def test_in_a_chain(self):
        clipped = optax.chain(optax.clip(10.0), optax.contrib.sam(optax.sgd(0.1), optax.sgd(0.01), opaque_mode=True))
        run = simulate(self.data, self.network, "cross-entropy", clipped, 6)
        np.testing.assert_allclose(run.logits(6), self.sharp(6), atol=1e-6)

    @pytest.mark.parametrize(
        "optimiser",
        [
            pytest.param(optax.polyak_sgd(0.5), id="polyak"),
            pytest.param(optax.contrib.momo(0.3), id="momo", marks=pytest.mark.slow),
            pytest.param(optax.contrib.sophia(0.02), id="sophia", marks=pytest.mark.slow),
        ],
    )
    def test_others(self, optimiser):
        run = simulate(self.data, self.network, "cross-entropy", optimiser, 40, record_every=40)
        assert run.loss(40) < 0.9 * run.loss(0)

    def test_an_array_of_step_sizes_is_refused_by_name(self):
        networks = gs.init_two_layer(jax.random.key(0), 5, 2, 2)
        with pytest.raises(ValueError, match=r"optax optimiser '\w+' cannot train this.* GradientDescent\(step_sizes\)"):
            simulate(self.data, networks, "hinge", optax.sgd(np.full(5, 0.1)), 3)

    def test_what_nobody_gives_is_named(self):
        def update(updates, state, params=None, *, curvature):
            return updates, state

        needs = optax.GradientTransformationExtraArgs(lambda params: optax.EmptyState(), update)
        with pytest.raises(ValueError, match=r"cannot train this: TypeError: .*curvature"):
            simulate(self.data, self.network, "hinge", needs, 3)


def test_networks_that_do_not_say_what_they_are():
    class Own(gs.problem.Network):
        w: jax.Array

        @property
        def batch_shape(self):
            return self.w.shape[:-1]

        def __call__(self, points):
            return jnp.einsum("...d,nd->...n", self.w, points)

    data = Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1])
    with pytest.raises(ValueError, match=r"Own must have a property dim, the number of inputs; got no such property"):
        simulate(data, Own(jnp.ones(2)), "hinge", GradientDescent(0.1), 2)
    with pytest.raises(ValueError, match=r"Method.outputs is a method; write @property above it"):

        class Method(Own):
            def outputs(self):
                return ()


def test_progress_says_nothing_twice():
    said = []
    gs.sweep(gs.datasets.antipodal(), 8, steps=4, width=2, progress=lambda *where: said.append(where))
    assert said == [(0, 8), (8, 8)]
