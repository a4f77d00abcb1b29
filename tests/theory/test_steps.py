"""Laws of steps that are two factors (17.1)-(17.4), and of sign descent (17.6), against NumPy training of whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_descent import RESIDUALS, downhill

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 60


def gradient(data, loss, w, z):
    """dL/dw and dL/dz of one network, by hand."""
    return [-part for part in downhill(RESIDUALS[loss], data, w, z)]


def length(parts):
    return np.sqrt(sum((part**2).sum() for part in parts))


def normalised(step_size):
    def step(k, weights, slope):
        found = slope(*weights)
        size = length(found)
        return [v - step_size * g / size if size else v for v, g in zip(weights, found, strict=True)]

    return step


def sharpness_aware(step_size, radius):
    def step(k, weights, slope):
        here = slope(*weights)
        size = length(here)
        moved = [v + radius * g / size if size else v for v, g in zip(weights, here, strict=True)]
        return [v - step_size * g for v, g in zip(weights, slope(*moved), strict=True)]

    return step


def signs(step_size):
    return lambda k, weights, slope: [v - step_size * np.sign(g) for v, g in zip(weights, slope(*weights), strict=True)]


def rates(*step_sizes):
    return lambda k, weights, slope: [v - e * g for v, e, g in zip(weights, step_sizes, slope(*weights), strict=True)]


def scheduled(schedule):
    return lambda k, weights, slope: [v - float(schedule(k)) * g for v, g in zip(weights, slope(*weights), strict=True)]


def scheduled_momentum(schedule, momentum, decay):
    velocity = [0.0, 0.0]

    def step(k, weights, slope):
        for i, (v, g) in enumerate(zip(weights, slope(*weights), strict=True)):
            velocity[i] = momentum * velocity[i] + g + decay * v
        return [v - float(schedule(k)) * m for v, m in zip(weights, velocity, strict=True)]

    return step


def layers_momentum(step_sizes, momentum, decay):
    """Nesterov's, each layer by its own step size."""
    velocity = [0.0, 0.0]

    def step(k, weights, slope):
        gradient = [g + decay * v for v, g in zip(weights, slope(*weights), strict=True)]
        velocity[:] = [momentum * m + g for m, g in zip(velocity, gradient, strict=True)]
        moves = [g + momentum * m for m, g in zip(velocity, gradient, strict=True)]
        return [v - e * m for v, e, m in zip(weights, step_sizes, moves, strict=True)]

    return step


def train(data, network, loss, step, steps=STEPS):
    """Logits [steps + 1, n] and the last weights of one network."""
    weights = [np.array(network.w, float), np.array(network.z, float)]
    x, logits = np.asarray(data.points, float), []
    for k in range(steps + 1):
        logits.append(np.maximum(x @ weights[0].T, 0) @ weights[1])
        if k < steps:
            weights = step(k, weights, lambda w, z: gradient(data, loss, w, z))
    return np.stack(logits), weights


COSINE = optax.warmup_cosine_decay_schedule(0.0, 0.4, 10, STEPS)
DYNAMICS = {
    "schedule": (lambda: gs.GradientDescent(COSINE), lambda: scheduled(COSINE)),
    "schedule, momentum, decay": (
        lambda: gs.GradientDescent(COSINE, momentum=0.5, weight_decay=0.02),
        lambda: scheduled_momentum(COSINE, 0.5, 0.02),
    ),
    "layers, momentum, decay": (
        lambda: gs.GradientDescent(0.3, 0.6, True, 0.02, read_out_step_size=0.1),
        lambda: layers_momentum((0.3, 0.1), 0.6, 0.02),
    ),
    "layers": (lambda: gs.GradientDescent(0.9, read_out_step_size=0.1), lambda: rates(0.9, 0.1)),
    "normalised": (lambda: gs.NormalizedGradientDescent(0.03), lambda: normalised(0.03)),
    "sharpness-aware": (lambda: gs.SharpnessAware(0.2, radius=0.15), lambda: sharpness_aware(0.2, 0.15)),
    "scheduled normalised": (
        lambda: gs.NormalizedGradientDescent(optax.linear_schedule(0.05, 0.01, STEPS)),
        lambda: lambda k, *rest: normalised(float(optax.linear_schedule(0.05, 0.01, STEPS)(k)))(k, *rest),
    ),
}


def problem(geometry, seed=0, scale=0.4):
    keys = jax.random.split(jax.random.key(seed), 3)
    data = getattr(gs.datasets, geometry)(3, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=keys[0])
    network = gs.init_two_layer(keys[1], (), 12, 3, scale, scale)
    return data, network if geometry == "antipodal" else gs.exclusive(data, network, keys[2])


@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
@pytest.mark.parametrize("kind", DYNAMICS)
def test_the_law_is_training(kind, geometry):
    loss = "hinge" if kind == "layers" else "cross-entropy"
    data, network = problem(geometry)
    make, rule = DYNAMICS[kind]
    dynamics = make()
    logits, (w, z) = train(data, network, loss, rule())
    law = gs.solve(data, network, loss, dynamics)
    found = np.asarray(law.logits(np.arange(STEPS + 1)))
    assert np.abs(found - logits).max() <= 1e-11 * (1 + np.abs(logits).max())
    final = law.network(STEPS)
    np.testing.assert_allclose(final.w, w, atol=1e-11)
    np.testing.assert_allclose(final.z, z, atol=1e-11)
    # Training of the library, by automatic differentiation, is the same.
    run = gs.simulate(data, network, loss, dynamics, STEPS)
    assert np.abs(np.asarray(run.recorded) - logits).max() <= 1e-11 * (1 + np.abs(logits).max())
    np.testing.assert_allclose(run.final.w, w, atol=1e-11)
    # Worth something only if neurons changed class or died on the way, and if something was learnt.
    points = np.asarray(data.points).T
    assert ((np.asarray(network.w) @ points > 0) != (w @ points > 0)).any()
    assert np.abs(logits[-1] - logits[0]).min() > 0.3


@pytest.mark.parametrize("loss", RESIDUALS)
@pytest.mark.parametrize("direction", [[1.0, 0.0, 0.0], [1.0, -2.0, 0.5], [3.0, 3.0, -3.0]])
def test_sign_descent_is_training(direction, loss):
    x = np.array(direction)
    data = gs.Dataset(np.stack([x, -1.4 * x]) / np.linalg.norm(x), [1, -1], [0.2, 0.8])
    network = gs.init_two_layer(jax.random.key(4), (), 16, 3, 0.3, 0.3)
    dynamics = gs.SignDescent(0.01)
    logits, (w, z) = train(data, network, loss, signs(0.01))
    law = gs.solve(data, network, loss, dynamics)
    np.testing.assert_allclose(np.asarray(law.logits(np.arange(STEPS + 1))), logits, atol=1e-12)
    final = law.network(STEPS)
    np.testing.assert_allclose(final.w, w, atol=1e-12)
    np.testing.assert_allclose(final.z, z, atol=1e-12)
    run = gs.simulate(data, network, loss, dynamics, STEPS)
    np.testing.assert_allclose(run.recorded, logits, atol=1e-12)
    assert ((np.asarray(network.w) @ x > 0) != (w @ x > 0)).any()


def test_learners_under_sign_descent_are_a_parabola():
    """u_k = r sum_j (a_j + eta k rho)(z_j + eta k), whatever the frequency and the loss, below the rest of the margin."""
    x = np.array([1.0, 2.0, -1.0])
    r, rho = 0.7 * np.linalg.norm(x), np.abs(x).sum() / np.linalg.norm(x)
    data = gs.Dataset([0.7 * x], [1])
    network = gs.TwoLayerReLU(np.outer([0.1, 0.3], x / np.linalg.norm(x)), [0.2, 0.05])
    k = np.arange(40)
    a, z = (np.array(v)[:, None] + 0.01 * k * s for v, s in (([0.1, 0.3], rho), ([0.2, 0.05], 1)))
    for loss in ("cross-entropy", "exponential"):
        law = gs.solve(data, network, loss, gs.SignDescent(0.01))
        np.testing.assert_allclose(law.logits(k)[:, 0], r * (a * z).sum(0), rtol=1e-12)


def test_a_balanced_mode_under_normalised_descent_has_no_plateau():
    """sqrt(sum a^2 + z^2) grows by eta a step, u = r (R_0 + eta k)^2 / 2, whatever the frequency and the loss (17.2)."""
    a = np.array([0.01, 0.02, 0.002])
    k = np.arange(50)
    radius = np.sqrt(2 * (a**2).sum())
    for loss, p in (("cross-entropy", 0.3), ("exponential", 0.9)):
        law = gs.solve_mode(gs.Mode(p, 1.7, a, a), loss, gs.NormalizedGradientDescent(0.02))
        np.testing.assert_allclose(law.logit(k), 1.7 * (radius + 0.02 * k) ** 2 / 2, rtol=1e-12)


@pytest.mark.slow
def test_one_class_of_either_label():
    x = np.array([[0.6, -0.8]])
    network = gs.init_two_layer(jax.random.key(1), (), 10, 2, 0.5, 0.5)
    for number, (kind, (make, rule)) in enumerate(DYNAMICS.items()):
        data = gs.Dataset(1.3 * x, [(-1) ** number])
        logits, (w, _) = train(data, network, "cross-entropy", rule())
        law = gs.solve(data, network, "cross-entropy", make())
        np.testing.assert_allclose(law.logits(np.arange(STEPS + 1)), logits, atol=1e-11, err_msg=kind)
        np.testing.assert_allclose(law.network(STEPS).w, w, atol=1e-11)


def test_obtuse_classes_share_the_length_of_a_normalised_step():
    data = gs.Dataset([[1.0, 0.0], [-0.6, 0.8]], [1, -1], [0.3, 0.7])
    network = gs.TwoLayerReLU([[0.2, -0.9], [0.3, -0.8], [-0.5, 0.1], [-0.6, 0.2]], [0.1, 0.2, -0.3, -0.1])
    dynamics = gs.NormalizedGradientDescent(0.02)
    logits, (w, _) = train(data, network, "cross-entropy", normalised(0.02))
    law = gs.solve(data, network, "cross-entropy", dynamics)
    np.testing.assert_allclose(law.logits(np.arange(STEPS + 1)), logits, atol=1e-12)
    np.testing.assert_allclose(law.network(STEPS).w, w, atol=1e-12)
    with pytest.raises(gs.HypothesisError, match="sharpness-aware"):
        gs.solve(data, network, "cross-entropy", gs.SharpnessAware(0.1, 0.1))


def test_the_optimisers_of_optax_are_these():
    data, network = problem("antipodal", seed=3)
    pairs = (
        (gs.SignDescent(0.01), optax.sign_sgd(0.01), 1e-11),
        (gs.NormalizedGradientDescent(0.03), optax.chain(optax.normalize_by_update_norm(eps=0.0), optax.sgd(0.03)), 1e-11),
        # Optax counts steps in 32 bits, and makes of them a schedule in as many.
        (gs.GradientDescent(COSINE, momentum=0.9), optax.sgd(COSINE, momentum=0.9), 1e-6),
        (
            gs.SharpnessAware(0.2, 0.1),
            optax.contrib.sam(optax.sgd(0.2), optax.chain(optax.contrib.normalize(), optax.sgd(0.1)), opaque_mode=True),
            1e-11,
        ),
    )
    for ours, theirs, tolerance in pairs:
        runs = [gs.simulate(data, network, "cross-entropy", one, STEPS).recorded for one in (ours, theirs)]
        np.testing.assert_allclose(*runs, atol=tolerance, err_msg=str(ours))


def test_a_batch_of_step_sizes():
    data, _ = problem("antipodal")
    network = gs.init_two_layer(jax.random.key(2), 4, 8, 3, 0.4, 0.4)
    for make in (gs.NormalizedGradientDescent, gs.SignDescent, lambda e: gs.GradientDescent(e, read_out_step_size=2 * e)):
        dynamics = make(jnp.linspace(0.01, 0.04, 4))
        run = gs.simulate(data, network, "exponential", dynamics, 30, record_every=30)
        law = gs.solve(data, network, "exponential", dynamics)
        np.testing.assert_allclose(law.logits([0, 30]), run.recorded, atol=1e-11)


def test_times_to_errors_are_steps_of_the_curve():
    data, network = problem("antipodal")
    for dynamics in (gs.NormalizedGradientDescent(0.03), gs.GradientDescent(COSINE), gs.SignDescent(0.01)):
        law = gs.solve(data, network, "cross-entropy", dynamics)
        errors = np.asarray(law.error(np.arange(STEPS + 1)))
        assert float(law.time_to_error(0.3, 200)) == np.argmax(errors <= 0.3)
        assert float(law.minus.time_to_logit(0.4, 200)) == np.argmax(np.asarray(law.minus.logit(np.arange(STEPS))) >= 0.4)


def test_a_neuron_that_is_looked_at_beyond_its_edge():
    """With a radius that carries a neuron over the edge of its class, it sees nothing, or the other class, there."""
    data = gs.Dataset([[1.0], [-1.3]], [1, -1], [0.4, 0.6])
    network = gs.TwoLayerReLU([[0.02], [0.4], [-0.03], [-0.5]], [-0.6, 0.3, 0.7, -0.2])
    logits, (w, _) = train(data, network, "exponential", sharpness_aware(0.1, 0.3))
    law = gs.solve(data, network, "exponential", gs.SharpnessAware(0.1, 0.3))
    np.testing.assert_allclose(law.logits(np.arange(STEPS + 1)), logits, atol=1e-11)
    np.testing.assert_allclose(law.network(STEPS).w, w, atol=1e-11)


def test_derivatives_in_the_numbers_of_the_dynamics():
    data, network = problem("antipodal")

    def later(numbers):
        makes = (
            gs.NormalizedGradientDescent(numbers[0]),
            gs.SharpnessAware(numbers[0], numbers[1]),
            gs.GradientDescent(lambda k: numbers[0] / (1 + numbers[1] * k)),
            gs.GradientDescent(numbers[0], read_out_step_size=numbers[1]),
        )
        return jnp.stack([gs.solve(data, network, "cross-entropy", dynamics).logits(20)[0] for dynamics in makes])

    at = jnp.array([0.03, 0.1])
    slope = jax.jacobian(later)(at)
    for i in range(2):
        step = 1e-6 * np.eye(2)[i]
        np.testing.assert_allclose(slope[:, i], (later(at + step) - later(at - step)) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.slow
def test_derivatives_where_the_gradient_vanishes():
    """Past the margin, where nothing moves any more, and for a network of zeros."""
    data, network = problem("antipodal")
    for dynamics in (gs.NormalizedGradientDescent(0.1), gs.SharpnessAware(0.3, 0.1)):

        def later(w, dynamics=dynamics, of=gs.solve):
            return of(data, gs.TwoLayerReLU(w, network.z), "hinge", dynamics).logits(100).sum()

        slope = jax.grad(later)(network.w)
        assert np.isfinite(slope).all()

        def trained(w, dynamics=dynamics):
            return gs.simulate(data, gs.TwoLayerReLU(w, network.z), "hinge", dynamics, 100).recorded[-1].sum()

        np.testing.assert_allclose(slope, jax.grad(trained)(network.w), atol=1e-8)
        nothing = jax.tree.map(jnp.zeros_like, network)
        zero = jax.grad(lambda net, d=dynamics: gs.solve(data, net, "hinge", d).logits(5).sum())(nothing)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(zero))


def test_rates_of_layers_that_are_far_apart_keep_their_digits():
    data, network = problem("antipodal")
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), network)
    for rate in (1e-30, 1e-7, 1e5):
        dynamics = gs.GradientDescent(np.float32(1e-6 if rate > 1 else 0.1), read_out_step_size=np.float32(rate))
        law = gs.solve(data, single, "hinge", dynamics).logits([0, 3])
        run = gs.simulate(data, single, "hinge", dynamics, 3, record_every=3).recorded
        np.testing.assert_allclose(law, run, rtol=2e-5, atol=1e-6)


def test_steps_of_ones_own():
    """Descent clipped by the length of its gradient: ten lines, trained and solved."""

    class Clipped(gs.Steps):
        most: float = 1.0

        def update(self, network, memory, gradient):
            slope = gradient(network)
            size = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(slope)))
            rate = self.step_size * jnp.minimum(1, self.most / size)
            return jax.tree.map(lambda v, g: v - rate * g, network, slope), memory

        def factors(self, modes):
            pull = modes.pull()
            step_size, most = self.step_size[..., None], self.most[..., None]
            pushed = step_size * jnp.minimum(1, most / modes.gradient_norm(pull)) * pull
            return 1 + pushed, 1 - pushed

    data, network = problem("antipodal")
    dynamics = Clipped(jnp.asarray(0.3), 0.2)
    run = gs.simulate(data, network, "cross-entropy", dynamics, STEPS, record_every=STEPS)
    law = gs.solve(data, network, "cross-entropy", dynamics)
    np.testing.assert_allclose(law.logits([0, STEPS]), run.recorded, atol=1e-11)
    crowd = gs.init_two_layer(jax.random.key(2), 4, 4, 3, 0.4, 0.4)
    several = Clipped(lambda k: 0.3 / (1 + k), jnp.array([0.01, 0.02, 0.05, 0.1]))
    run = gs.simulate(data, crowd, "cross-entropy", several, STEPS, record_every=STEPS)
    np.testing.assert_allclose(gs.solve(data, crowd, "cross-entropy", several).logits([0, STEPS]), run.recorded, atol=1e-11)
    with pytest.raises(ValueError, match="step_size"):
        Clipped(-0.1)

    class Wrong(Clipped):
        def factors(self, modes):
            return 1 + self.most * self.step_size, 1 - self.most * self.step_size

    with pytest.raises(ValueError, match="must return two arrays of the shape"):
        gs.solve(data, gs.init_two_layer(jax.random.key(2), 4, 5, 3), "hinge", Wrong(0.1)).logits(3)
    plain = gs.solve(data, network, "cross-entropy", gs.GradientDescent(0.3))
    assert np.abs(np.asarray(law.logits(STEPS) - plain.logits(STEPS))).max() > 0.1


def test_a_schedule_of_python_numbers_with_an_if():
    data, network = problem("antipodal")
    dropped = gs.GradientDescent(lambda k: 0.5 if k < 20 else 0.05)
    logits, _ = train(data, network, "cross-entropy", scheduled(lambda k: 0.5 if k < 20 else 0.05), 40)
    law = gs.solve(data, network, "cross-entropy", dropped)
    np.testing.assert_allclose(law.logits(np.arange(41)), logits, atol=1e-12)
    assert float(law.time_to_error(0.45, 40)) == np.argmax(np.asarray(law.error(np.arange(41))) <= 0.45)


def test_mistakes_are_named():
    data, network = problem("orthogonal")
    antipodal, free = problem("antipodal")
    ragged = gs.GradientDescent(lambda k: 0.1 if k < 3 else [0.1, 0.2])
    cases = (
        (lambda: gs.NormalizedGradientDescent(0.0), "step_size"),
        (lambda: gs.SharpnessAware(0.1, -1.0), "radius must be >= 0, got -1"),
        (lambda: gs.SignDescent("fast"), "step_size"),
        (lambda: gs.GradientDescent(lambda k: -0.1), "must be >= 0 at every step, got -0.1"),
        (lambda: gs.GradientDescent(lambda k: jnp.ones(2)), "takes the step number and returns one number"),
        (lambda: gs.GradientDescent(len), "at step 0 it raised TypeError: object of type 'int' has no len"),
        (lambda: gs.GradientDescent(COSINE, read_out_step_size=0.1), "is for all layers"),
        (lambda: gs.GradientDescent(0.1, read_out_step_size=-1), "read_out_step_size"),
        (lambda: gs.StochasticGradientDescent(0.1, batch_size=0), "batch_size"),
        (lambda: gs.solve(data, network, "hinge", gs.SignDescent(0.1)), "one class or antipodal"),
        (lambda: gs.GradientDescent(optax.sgd(0.1)), "an optimiser of optax"),
        (lambda: gs.SignDescent(gs.SignDescent(0.1)), "got SignDescent, dynamics"),
        (lambda: gs.simulate(antipodal, free, "hinge", gs.Steps(0.1), 5), "define update"),
        (lambda: gs.solve(antipodal, free, "hinge", COSINE), "give GradientDescent\\(schedule\\)"),
        (lambda: gs.simulate(antipodal, free, "hinge", ragged, 9), "its shape"),
        (lambda: gs.solve(antipodal, free, "hinge", gs.GradientDescent(lambda k: 0.1 - 0.01 * k)).logits(50), "at step 11"),
        (lambda: gs.simulate(antipodal, free, "hinge", gs.GradientDescent(lambda k: 0.1 - 0.01 * k), 50), "at step 11"),
        (lambda: gs.solve(antipodal, free, "hinge", gs.NormalizedGradientDescent([0.1, 0.2])), "step_size has shape"),
        (lambda: gs.simulate(antipodal, free, "hinge", gs.NormalizedGradientDescent, 5), "give an instance"),
    )
    for case, message in cases:
        with pytest.raises(ValueError, match=message):
            case()
