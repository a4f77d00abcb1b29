"""Leaky networks on antipodal classes (22.1), (22.2): laws and training against NumPy descent of whole networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_descent import RESIDUALS
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve import theory
from gradstarve.theorems import Problem, record
from gradstarve.theorems._entry import plain as plain_json

pytestmark = pytest.mark.usefixtures("x64")

STEPS = 60
SLOPE = 0.2


def gradient(data, loss, w, z, slope=SLOPE):
    """dL/dw and dL/dz of one network, by hand."""
    x, y, q = (np.asarray(v, float) for v in (data.points, data.labels, data.weights))
    seen = x @ w.T
    tilt = np.where(seen > 0, 1, slope)
    pull = -q * y * RESIDUALS[loss](y * ((tilt * seen) @ z))
    return z[:, None] * ((tilt * pull[:, None]).T @ x), (tilt * seen).T @ pull


def length(parts):
    return np.sqrt(sum((part**2).sum() for part in parts))


def plain(step_size):
    return lambda k, weights, slope: [v - step_size * g for v, g in zip(weights, slope(*weights), strict=True)]


def momentum(step_size, beta, decay):
    velocity = [0.0, 0.0]

    def step(k, weights, slope):
        for i, (v, g) in enumerate(zip(weights, slope(*weights), strict=True)):
            velocity[i] = beta * velocity[i] + g + decay * v
        return [v - step_size * m for v, m in zip(weights, velocity, strict=True)]

    return step


def decayed(step_size, decay):
    return lambda k, weights, slope: [v - step_size * (g + decay * v) for v, g in zip(weights, slope(*weights), strict=True)]


def scheduled(k):
    return 0.4 / (1 + 0.1 * k)


def rates(*step_sizes):
    return lambda k, weights, slope: [v - e * g for v, e, g in zip(weights, step_sizes, slope(*weights), strict=True)]


def signs(k, weights, slope):
    return [v - 0.01 * np.sign(g) for v, g in zip(weights, slope(*weights), strict=True)]


def normalised(k, weights, slope):
    found = slope(*weights)
    return [v - 0.03 * g / length(found) for v, g in zip(weights, found, strict=True)]


def sharpness_aware(k, weights, slope):
    here = slope(*weights)
    moved = [v + 0.15 * g / length(here) for v, g in zip(weights, here, strict=True)]
    return [v - 0.2 * g for v, g in zip(weights, slope(*moved), strict=True)]


DYNAMICS = {
    "plain": (lambda: gs.GradientDescent(0.4), lambda: plain(0.4)),
    "momentum": (
        lambda: gs.GradientDescent(0.2, momentum=0.5, weight_decay=0.02),
        lambda: momentum(0.2, 0.5, 0.02),
    ),
    "decay": (lambda: gs.GradientDescent(0.4, weight_decay=0.05), lambda: decayed(0.4, 0.05)),
    "schedule": (
        lambda: gs.GradientDescent(scheduled),
        lambda: lambda k, weights, slope: plain(scheduled(k))(k, weights, slope),
    ),
    "layers": (lambda: gs.GradientDescent(0.9, read_out_step_size=0.1), lambda: rates(0.9, 0.1)),
    "normalised": (lambda: gs.NormalizedGradientDescent(0.03), lambda: normalised),
    "sharpness-aware": (lambda: gs.SharpnessAware(0.2, radius=0.15), lambda: sharpness_aware),
    "signs": (lambda: gs.SignDescent(0.01), lambda: signs),
}


def problem(seed=0, scale=0.4, slope=SLOPE):
    keys = jax.random.split(jax.random.key(seed), 2)
    data = gs.datasets.antipodal(3, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=keys[0])
    network = gs.init_two_layer(keys[1], (), 12, 3, scale, scale)
    return data, gs.TwoLayerReLU(network.w, network.z, slope)


def outputs(x, w, z, slope):
    seen = x @ w.T
    return np.where(seen > 0, seen, slope * seen) @ z


def train(data, network, loss, step, steps=STEPS):
    """Logits [steps + 1, n], the last weights, and how often a neuron has changed its side."""
    weights = [np.array(network.w, float), np.array(network.z, float)]
    x, logits, sides = np.asarray(data.points, float), [], []
    for k in range(steps + 1):
        logits.append(outputs(x, weights[0], weights[1], network.slope))
        sides.append(x[0] @ weights[0].T > 0)
        if k < steps:
            weights = step(k, weights, lambda w, z: gradient(data, loss, w, z, network.slope))
    return np.stack(logits), weights, int(np.diff(np.array(sides).astype(int), axis=0).astype(bool).sum())


def check(law, logits, weights, steps=STEPS):
    assert law.logits(np.arange(steps + 1)) == pytest.approx(logits, rel=1e-10, abs=1e-10)
    last = law.network(steps)
    assert last.slope == SLOPE
    for found, expected in zip((last.w, last.z), weights, strict=True):
        assert found == pytest.approx(expected, rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("loss", RESIDUALS)
def test_the_law_of_descent_is_training(loss):
    data, network = problem(1)
    logits, weights, crossed = train(data, network, loss, plain(0.4))
    assert crossed >= 3
    law = gs.solve(data, network, loss, gs.GradientDescent(0.4))
    check(law, logits, weights)
    margins = logits * np.asarray(data.labels)
    assert law.loss(STEPS) == pytest.approx(np.sum(data.weights * gs.problem.as_loss(loss).value(jnp.asarray(margins[-1]))))


@pytest.mark.parametrize("kind", DYNAMICS)
def test_the_law_of_any_steps_is_training(kind):
    data, network = problem()
    make, rule = DYNAMICS[kind]
    logits, weights, crossed = train(data, network, "cross-entropy", rule())
    assert crossed >= 1
    check(gs.solve(data, network, "cross-entropy", make()), logits, weights)


@pytest.mark.parametrize("label", [1, -1])
@pytest.mark.parametrize("kind", ["plain", "momentum", "sharpness-aware"])
def test_one_class_is_seen_from_behind_too(kind, label):
    data = gs.Dataset([[0.6, 0.8, 0.0]], [label])
    make, rule = DYNAMICS[kind]
    _, network = problem(3)
    logits, weights, crossed = train(data, network, "cross-entropy", rule())
    assert crossed >= 1
    check(gs.solve(data, network, "cross-entropy", make()), logits, weights)


@pytest.mark.parametrize("engine", ["reference", "fused"])
@pytest.mark.parametrize("loss", RESIDUALS)
def test_simulate_trains_leaky_networks(loss, engine):
    data, network = problem(1)
    rng = np.random.default_rng(0)
    data = gs.Dataset(rng.normal(size=(5, 3)), [1, -1, 1, 1, -1], rng.dirichlet(np.ones(5)))
    logits, weights, _ = train(data, network, loss, momentum(0.1, 0.5, 0.02))
    dynamics = gs.GradientDescent(0.1, momentum=0.5, weight_decay=0.02)
    run = gs.simulate(data, network, loss, dynamics, STEPS, engine=engine, record_every=1, record_networks=True)
    assert run.logits() == pytest.approx(logits, rel=1e-10, abs=1e-10)
    assert run.final.w == pytest.approx(weights[0], rel=1e-10, abs=1e-10)
    assert run.final.z == pytest.approx(weights[1], rel=1e-10, abs=1e-10)
    assert run.final.slope == run.networks.slope == SLOPE


@pytest.mark.slow
@pytest.mark.parametrize("points", [2, 9])
def test_fast_training_of_many_coordinates_keeps_the_slope(points):
    rng = np.random.default_rng(1)
    data = gs.Dataset(rng.normal(size=(points, 60)), rng.choice([1, -1], points))
    nets = gs.init_two_layer(0, 50, 6, 60, 0.2, 0.2)
    nets = gs.TwoLayerReLU(nets.w, nets.z, 0.3)
    runs = [gs.simulate(data, nets, "hinge", gs.GradientDescent(0.05), 20, engine=name) for name in ("reference", "fused")]
    assert runs[0].logits() == pytest.approx(np.asarray(runs[1].logits()), rel=1e-10, abs=1e-10)
    assert runs[1].final.slope == 0.3
    drawn = [
        gs.simulate(data, nets, "hinge", gs.StochasticGradientDescent(0.05), 20, key=3, engine=name).logits()
        for name in ("reference", "fused")
    ]
    assert drawn[0] == pytest.approx(np.asarray(drawn[1]), rel=1e-10, abs=1e-10)


@pytest.mark.parametrize("loss", ["cross-entropy", "exponential"])
def test_simulate_flow_integrates_leaky_networks(loss):
    data, network = problem(2)
    shape = network.w.shape

    def field(t, theta):
        w, z = theta[: -shape[0]].reshape(shape), theta[-shape[0] :]
        return -np.concatenate([part.ravel() for part in gradient(data, loss, w, z)])

    start = np.concatenate([np.asarray(network.w).ravel(), np.asarray(network.z)])
    times = [1.0, 4.0, 12.0]
    found = solve_ivp(field, (0, times[-1]), start, method="DOP853", t_eval=times, rtol=1e-12, atol=1e-13, max_step=0.02)
    x = np.asarray(data.points)
    logits = [outputs(x, y[: -shape[0]].reshape(shape), y[-shape[0] :], SLOPE) for y in found.y.T]
    run = gs.simulate_flow(data, network, loss, times)
    assert run.logits() == pytest.approx(np.array(logits), rel=1e-8, abs=1e-8)
    assert run.final.slope == SLOPE
    # A neuron has crossed its edge on the way.
    axis = x[0]
    assert (np.sign(network.w @ axis) != np.sign(run.final.w @ axis)).any()


def test_the_law_tends_to_the_flow():
    data, network = problem(2)
    flow = np.asarray(gs.simulate_flow(data, network, "cross-entropy", [3.0]).logits())[0]
    off = [
        np.abs(np.asarray(gs.solve(data, network, "cross-entropy", gs.GradientDescent(3.0 / n)).logits(n)) - flow).max()
        for n in (500, 1000)
    ]
    assert off[1] < 0.01
    assert off[0] / off[1] == pytest.approx(2, rel=0.1)


def test_sides_go_by_the_sign_of_a_plus_z_and_no_class_fails():
    data = gs.datasets.antipodal(frequencies=(0.4, 0.6))
    nets = gs.init_two_layer(5, 300, 2, 2, 0.3, 0.3)
    leaky = gs.TwoLayerReLU(nets.w, nets.z, 0.1)
    axis = np.asarray(data.points)[0] / np.linalg.norm(data.points[0])
    a = np.asarray(nets.w) @ axis
    law = gs.solve(data, leaky, "exponential", gs.GradientDescent(0.1))
    ends = np.asarray(law.network(4000).w) @ axis
    fates = np.asarray(theory.antipodal_fate(a, nets.z))
    clear = np.abs(a + np.asarray(nets.z)) > 0.01
    assert (np.sign(ends) == fates)[clear].all()
    alone = (fates > 0).all(-1) | (fates < 0).all(-1)
    assert alone.mean() == pytest.approx(2 * theory.class_failure_probability(2), abs=0.12)
    margins = np.asarray(law.margins(4000))[clear.all(-1)]
    assert (margins > 0.5).all()
    failed = np.asarray(gs.solve(data, nets, "exponential", gs.GradientDescent(0.1)).margins(4000)) <= 0
    assert failed.any(-1).sum() == pytest.approx(alone.sum(), abs=3)


def test_a_slope_of_zero_is_the_relu():
    data, network = problem(slope=0.0)
    twin = gs.TwoLayerReLU(network.w, network.z)
    assert repr(network) == repr(twin)
    assert jax.tree.structure(network) == jax.tree.structure(twin)
    assert "slope=0.2" in repr(problem()[1])
    law = gs.solve(data, twin, "hinge", gs.GradientDescent(0.4)).logits(STEPS)
    near = gs.solve(data, gs.TwoLayerReLU(twin.w, twin.z, 1e-14), "hinge", gs.GradientDescent(0.4)).logits(STEPS)
    assert law == pytest.approx(np.asarray(near), rel=1e-9)


@pytest.mark.parametrize("slope", [1.0, -0.1, float("nan"), "x", [0.1, 0.2], None])
def test_other_slopes_are_refused(slope):
    with pytest.raises(ValueError, match=r"slope must be a known number in \[0, 1\), 0 for the ReLU, got"):
        gs.TwoLayerReLU([[1.0]], [1.0], slope)


def test_what_has_no_leaky_law_says_so():
    data, network = problem()
    with pytest.raises(gs.HypothesisError, match=r"slope = 0\.2 and the classes are at cos = 0"):
        gs.solve(gs.datasets.orthogonal(3), network, "hinge", gs.GradientDescent(0.1))
    with pytest.raises(gs.HypothesisError, match=r"slope = 0\.2 and the classes are at cos = 0"):
        gs.solve(gs.datasets.orthogonal(3), network, "hinge")
    with pytest.raises(ValueError, match=r"see the points of both classes, got slope = 0\.2"):
        gs.exclusive(gs.datasets.orthogonal(3), network, 0)
    with pytest.raises(ValueError, match=r"slope 0, got slope = 0\.2"):
        gs.simulate(data, network, "hinge", gs.GradientDescent(0.1), 3, engine="pallas")


def test_networks_keep_their_slope():
    data, network = problem()
    small = data.reduce()
    assert small.reduce(network).slope == SLOPE
    assert small.restore(small.reduce(network), network).slope == SLOPE
    assert jax.tree.map(jnp.zeros_like, network).slope == SLOPE
    batch = gs.TwoLayerReLU(network.w[None], network.z[None], SLOPE)
    assert batch[0].slope == SLOPE


def test_a_recorded_network_is_read_back_with_its_slope():
    data, network = problem()
    batch = gs.TwoLayerReLU(network.w[None], network.z[None], SLOPE)
    back = Problem.read(plain_json(record(data, "hinge", batch, 0)))
    assert back is not None
    assert back.network(data.points) == pytest.approx(np.asarray(network(data.points)), rel=1e-12)
    relu = gs.TwoLayerReLU(batch.w, batch.z)
    assert "slope" not in record(data, "hinge", relu, 0)


def test_a_solution_of_a_leaky_network_under_jit_and_vmap():
    data, _ = problem()
    nets = gs.init_two_layer(3, 4, 5, 3, 0.4, 0.4)
    nets = gs.TwoLayerReLU(nets.w, nets.z, SLOPE)

    def logits(network):
        return gs.solve(data, network, "cross-entropy", gs.GradientDescent(0.3)).logits(20)

    whole = np.asarray(logits(nets))
    assert jax.jit(logits)(nets) == pytest.approx(whole, rel=1e-12)
    assert jax.vmap(logits)(nets) == pytest.approx(whole, rel=1e-12)


def test_phases_keep_the_slope():
    data, network = problem()
    flipped = gs.Dataset(data.points, -data.labels, data.weights)
    phases = [(20, data), (None, flipped)]
    law = gs.solve(phases, network, "cross-entropy", gs.GradientDescent(0.4))
    run = gs.simulate(phases, network, "cross-entropy", gs.GradientDescent(0.4), 50, record_every=10)
    assert law.logits(np.arange(0, 51, 10)) == pytest.approx(np.asarray(run.logits()), rel=1e-10, abs=1e-12)
    assert law.network(50).slope == SLOPE


def test_the_law_is_differentiable():
    data, network = problem()

    def logit(slope_of):
        net = gs.TwoLayerReLU(network.w, network.z * slope_of, SLOPE)
        return gs.solve(data, net, "cross-entropy", gs.GradientDescent(0.2)).logits(30)[0]

    step = 1e-6
    assert jax.grad(logit)(1.0) == pytest.approx(float(logit(1 + step) - logit(1 - step)) / (2 * step), rel=1e-7)
