"""Task switches and re-weighting (21.1): NumPy training through the phases, SciPy flow, and Gaussian neurons."""

import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from numpy_descent import RESIDUALS, downhill
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve import theory

pytestmark = pytest.mark.usefixtures("x64")

ENDS, STEPS = (30, 55), 90


def train(phases, network, loss, step_size, momentum=0.0):
    w, z = np.array(network.w, float), np.array(network.z, float)
    velocity, logits = [0.0, 0.0], []
    for k in range(STEPS + 1):
        data = next(data for until, data in phases if until is None or k < until)
        logits.append(np.maximum(np.asarray(data.points) @ w.T, 0) @ z)
        velocity = [momentum * v + g for v, g in zip(velocity, downhill(RESIDUALS[loss], data, w, z), strict=True)]
        eta = step_size(k) if callable(step_size) else step_size
        if k < STEPS:
            w, z = w + eta * velocity[0], z + eta * velocity[1]
    return np.stack(logits), w, z


def changing(geometry, key=0):
    keys = jax.random.split(jax.random.key(key), 3)
    data = getattr(gs.datasets, geometry)(3, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=keys[0])
    flipped = gs.Dataset(data.points, -data.labels, data.weights)
    other = gs.Dataset(data.points, -data.labels, data.weights[::-1])
    network = gs.init_two_layer(keys[1], (), 12, 3, 0.4, 0.4)
    network = network if geometry == "antipodal" else gs.exclusive(data, network, keys[2])
    return [(ENDS[0], data), (ENDS[1], flipped), (None, other)], network


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
@pytest.mark.parametrize("geometry", ["antipodal", "orthogonal"])
def test_steps_through_three_phases(geometry, loss):
    phases, network = changing(geometry)
    schedule = optax.cosine_decay_schedule(0.3, STEPS)
    plain, changed = gs.GradientDescent(0.2), gs.GradientDescent(schedule)
    for dynamics, step_size in ((plain, 0.2), (changed, lambda k: float(schedule(k)))):
        logits, w, z = train(phases, network, loss, step_size)
        law = gs.solve(phases, network, loss, dynamics)
        steps = np.arange(STEPS + 1)
        np.testing.assert_allclose(law.logits(steps), logits, atol=1e-11)
        np.testing.assert_allclose(law.network(STEPS).w, w, atol=1e-11)
        np.testing.assert_allclose(law.network(steps).z[-1], z, atol=1e-11)
        run = gs.simulate(phases, network, loss, dynamics, STEPS, record_every=7, record_networks=True)
        assert run.grid.tolist() == [*range(0, 30, 7), 30, 37, 44, 51, 55, 62, 69, 76, 83, 90]
        np.testing.assert_allclose(run.recorded, logits[run.grid], atol=1e-11)
        np.testing.assert_allclose(run.networks.w[-1], w, atol=1e-11)
    # Margins, error and loss are those of the data at t; at the end of a phase still its own.
    y = np.stack([np.asarray(data.labels) for _, data in phases])[np.searchsorted(ENDS, steps)]
    q = np.stack([np.asarray(data.weights) for _, data in phases])[np.searchsorted(ENDS, steps)]
    for curve, t in ((law, steps), (run, None)):
        at = steps if t is not None else run.grid
        margins = (y * logits)[at]
        np.testing.assert_allclose(curve.margins(t), margins, atol=1e-10)
        np.testing.assert_allclose(curve.error(t), (q[at] / (1 + np.exp(margins))).sum(-1), atol=1e-10)
        np.testing.assert_allclose(curve.mistakes(t), (q[at] * (margins <= 0)).sum(-1), atol=1e-12)
    errors = np.asarray(law.error(steps))
    assert float(law.time_to_error(0.4, 500)) == np.argmax(errors <= 0.4)


def test_velocities_and_optimisers_go_on():
    phases, network = changing("antipodal")
    logits, *_ = train(phases, network, "cross-entropy", 0.1, momentum=0.8)
    run = gs.simulate(phases, network, "cross-entropy", gs.GradientDescent(0.1, 0.8), STEPS)
    np.testing.assert_allclose(run.recorded, logits, atol=1e-11)
    theirs = gs.simulate(phases, network, "cross-entropy", optax.sgd(0.1, 0.8), STEPS)
    np.testing.assert_allclose(theirs.recorded, logits, atol=1e-11)
    with pytest.raises(gs.HypothesisError, match="momentum carries velocities"):
        gs.solve(phases, network, "cross-entropy", gs.GradientDescent(0.1, 0.8))
    # Draws go on too: one phase cut in two is one phase.
    data = phases[0][1]
    whole = gs.simulate(data, network, "hinge", gs.StochasticGradientDescent(0.1), 40, key=3)
    cut = gs.simulate([(15, data), (None, data)], network, "hinge", gs.StochasticGradientDescent(0.1), 40, key=3)
    np.testing.assert_allclose(cut.recorded, whole.recorded, atol=1e-13)


def flow_between_crossings(data, residual, w, z, begin, end):
    """((w, z) at `end`, how many neurons passed between the antipodal classes), by SciPy, which stops at each passage.

    The field jumps there: integrated across, it is right to 1e-7 only.
    """
    x, y, q = (np.asarray(part) for part in (data.points, data.labels, data.weights))
    axis, shape, crossings = x[0] / np.linalg.norm(x[0]), w.shape, 0
    side = w @ axis > 0
    now = np.concatenate([np.ravel(w), z])
    while begin < end:
        seen = (x @ axis > 0)[:, None] == side  # until the next passage, also where w . x is 0 to rounding

        def field(t, v, seen=seen):
            active = np.where(seen, x @ v[: -shape[0]].reshape(shape).T, 0)
            pull = q * y * residual(y * (active @ v[-shape[0] :]))
            return np.concatenate([np.ravel(v[-shape[0] :, None] * ((seen.T * pull) @ x)), active.T @ pull])

        signs = np.where(side, 1, -1)

        def heights(v, signs=signs):
            return signs * (v[: -shape[0]].reshape(shape) @ axis)

        def passage(t, v, heights=heights):
            return heights(v).min()

        passage.terminal, passage.direction = True, -1.0
        run = solve_ivp(field, (begin, end), now, method="DOP853", rtol=1e-12, atol=1e-14, events=passage)
        begin, now = run.t[-1], run.y[:, -1]
        if run.status == 1:
            j = np.argmin(heights(now))
            side[j] = ~side[j]
            crossings += 1
    return (now[: -shape[0]].reshape(shape), now[-shape[0] :]), crossings


@pytest.mark.slow
def test_the_flow_is_that_of_scipy():
    loss = "cross-entropy"
    phases, network = changing("antipodal", key=2)
    phases = [(2.0, phases[0][1]), (5.0, phases[1][1]), (None, phases[2][1])]
    law = gs.solve(phases, network, loss)
    now, crossings = (np.array(network.w), np.array(network.z)), 0
    for begin, end, (_, data) in zip((0.0, 2.0, 5.0), (2.0, 5.0, 9.0), phases, strict=True):
        now, crossed = flow_between_crossings(data, RESIDUALS[loss], *now, begin, end)
        crossings += crossed
        w, z = now
        np.testing.assert_allclose(law.logits(end), np.maximum(np.asarray(data.points) @ w.T, 0) @ z, rtol=1e-9)
        np.testing.assert_allclose(law.network(end).w, w, atol=1e-10)
    assert crossings
    assert np.asarray(law.logits([1.0, 2.0, 7.0])).shape == (3, 2)
    when = float(law.time_to_error(0.45))
    assert float(law.error(when)) <= 0.45 + 1e-9
    grid = np.linspace(0, when, 400)[:-1]
    assert (np.asarray(law.error(grid)) > 0.45 - 1e-9).all()


def test_a_mode_with_signed_frequencies():
    a, z, r = np.array([0.3, 0.2, 0.1]), np.array([0.1, -0.15, 0.3]), 1.3
    mode, loss = gs.Mode(0.4, r, a, z), "cross-entropy"
    # The rest of the weight lies on a point across, which no neuron sees.
    network = gs.TwoLayerReLU(np.stack([a, -np.ones(3)], -1), z)
    frequencies, steps = [(30, 0.4), (55, -0.9), (None, 0.2)], np.arange(STEPS + 1)
    points = [[r, 0.0], [0.0, 1.0]]
    data = [(end, gs.Dataset(points, [np.sign(p), 1], [abs(p), 1 - abs(p)])) for end, p in frequencies]
    logits, _, trained = train(data, network, loss, 0.2)
    law = gs.solve_mode(mode, loss, gs.GradientDescent(0.2), phases=frequencies)
    np.testing.assert_allclose(law.logit(steps), logits[:, 0], atol=1e-12)
    np.testing.assert_allclose(law.weights(STEPS)[1], trained, atol=1e-12)
    signs = np.array([1, -1, 1])[np.searchsorted(ENDS, steps)]
    np.testing.assert_allclose(law.margin(steps), signs * law.logit(steps), rtol=1e-12)
    with pytest.raises(ValueError, match="a product of factors"):
        law.clock_range()
    # The flow of a class alone, by the law of the network.
    whole = [(end, gs.Dataset([[r]], [sign])) for end, sign in ((3.0, 1), (8.0, -1), (None, 1))]
    found = gs.solve(whole, gs.TwoLayerReLU(a[:, None], z), loss)
    law = gs.solve_mode(mode, loss, phases=[(3.0, 1.0), (8.0, -1.0), (None, 1.0)])
    times = np.linspace(0, 15, 11)
    np.testing.assert_allclose(law.logit(times), found.logits(times)[:, 0], rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(law.weights(times)[1], found.network(times).z, rtol=1e-10, atol=1e-12)
    low, high = law.clock_range()
    assert float(low) < 0 < float(high)


@pytest.mark.parametrize("ends", [[(6.0, 0.5), (30.0, -0.5)], [(2.0, -0.5), (4.0, 0.5), (9.0, -0.5), (16.0, 0.5)]])
def test_who_is_alive_after_the_switches(ends):
    """20,000 neurons, each right: the law of the clock's range against the neurons that have left."""
    rng = np.random.default_rng(1)
    a, z = 0.02 * np.abs(rng.normal(size=20_000)), 0.02 * rng.normal(size=20_000)
    mode = gs.Mode(0.5, 1.0, a / 20, z / 20)
    law = gs.solve_mode(mode, "cross-entropy", phases=ends)
    low, high = law.clock_range()
    alive = np.asarray(law.weights(ends[-1][0])[0]) > 0
    said = np.asarray(theory.still_alive(mode.a, mode.z, low, high))
    assert (alive == said).all()
    share = float(theory.alive_share(low, high))
    assert abs(alive.mean() - share) < 4 * np.sqrt(share * (1 - share) / alive.size)


def test_shares_of_the_brackets():
    """Three quarters survive the first task, two thirds of those the first flip, all of those every later one."""
    first, both = float(theory.alive_share(0.0, 30.0)), float(theory.alive_share(-30.0, 30.0))
    assert first == pytest.approx(0.75, abs=1e-12)
    assert both / first == pytest.approx(2 / 3, abs=1e-12)
    rng = np.random.default_rng(2)
    a, z = 1.5 * np.abs(rng.normal(size=1_000_000)), 0.5 * rng.normal(size=1_000_000)
    share = float(theory.alive_share(-0.7, 0.4, scale_a=1.5, scale_z=0.5))
    found = np.asarray(theory.still_alive(a, z, -0.7, 0.4)).mean()
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / 1e6)
    assert np.isfinite(jax.grad(lambda s: theory.alive_share(-s, s))(0.5))


@pytest.mark.slow
def test_batches_jit_and_pickles():
    phases, _ = changing("antipodal")
    network = gs.init_two_layer(jax.random.key(2), 4, 8, 3, 0.4, 0.4)
    law = gs.solve(phases, network, "hinge", gs.GradientDescent(jnp.linspace(0.1, 0.2, 4)))
    run = gs.simulate(phases, network, "hinge", gs.GradientDescent(jnp.linspace(0.1, 0.2, 4)), 60, record_every=20)
    np.testing.assert_allclose(law.logits(run.grid), run.recorded, atol=1e-11)
    np.testing.assert_allclose(law.network(run.grid).w[:, -1], run.final.w, atol=1e-11)
    assert run.time_to_error(0.4).shape == law.time_to_error([0.4, 0.3], 100)[:, 0].shape == (4,)
    for curve, t in ((law, [0, 60]), (run, None)):
        again = pickle.loads(pickle.dumps(curve))
        np.testing.assert_array_equal(again.error(t), curve.error(t))
        assert len(repr(curve)) < 500


@pytest.mark.slow
def test_the_flow_under_jit_and_its_slopes():
    phases, _ = changing("antipodal")
    network = gs.init_two_layer(jax.random.key(2), 4, 8, 3, 0.4, 0.4)
    one = jax.tree.map(lambda leaf: leaf[0], network)
    flow = [(2.0, phases[0][1]), (None, phases[1][1])]
    traced = jax.jit(lambda net, t: gs.solve(flow, net, "hinge").logits(t))(one, jnp.array([1.0, 3.0]))
    np.testing.assert_allclose(traced, gs.solve(flow, one, "hinge").logits([1.0, 3.0]), rtol=1e-12)
    slope = jax.grad(lambda net: gs.solve(flow, net, "cross-entropy").logits(3.0)[0])(one)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(slope))


@pytest.mark.slow
def test_times_to_errors_are_those_of_training():
    """At a switch the error is still that of the old data."""
    data = gs.datasets.antipodal(frequencies=(0.8, 0.2))
    network = gs.TwoLayerReLU([[0.3, 0.1], [-0.2, 0.4], [0.1, 0.1]], [0.2, -0.1, 0.3])
    phases = [(7, data), (None, gs.Dataset(data.points, data.labels, [0.99, 0.01]))]
    dynamics = gs.SignDescent(0.0217)
    law = gs.solve(phases, network, "cross-entropy", dynamics)
    run = gs.simulate(phases, network, "cross-entropy", dynamics, 20)
    assert float(law.time_to_error(0.4329031)) == float(run.time_to_error(0.4329031)) == 8
    assert float(law.time_to_loss(0.55)) == float(run.time_to_loss(0.55))
    # Each phase of a schedule is compared with its own part.
    slower = gs.GradientDescent(lambda k: 0.3 / (1 + 0.1 * k))
    law, run = gs.solve(phases, network, "hinge", slower), gs.simulate(phases, network, "hinge", slower, 20)
    for one, other in zip(law.parts, run.parts, strict=True):
        assert gs.compare(one, other).gap < 1e-12
    assert jax.jit(lambda curve: curve.error())(run).shape == run.grid.shape


def test_mistakes_are_named():
    phases, network = changing("antipodal")
    data, other = phases[0][1], gs.datasets.orthogonal(3)
    descent = gs.GradientDescent(0.1)
    run = gs.simulate(phases, network, "hinge", descent, 60)
    cases = (
        (lambda: gs.solve([], network, "hinge"), "data must be a Dataset"),
        (lambda: gs.solve([data, (None, data)], network, "hinge"), "phases are a list of pairs"),
        (lambda: gs.solve([(5, data)], network, "hinge", descent).logits([5, 100]), "ends at 5, before t = 100"),
        (lambda: gs.solve_mode(gs.Mode(0.4, 1, [0.1], [0.1]), phases=[(2, 0.5)]).logit(4.0), "ends at 2, before t = 4"),
        (lambda: gs.solve([(5, data), (5, data)], network, "hinge"), "phase 1 ends at 5"),
        (lambda: gs.solve([(-1, data), (None, data)], network, "hinge"), "a phase ends at a number > 0, got -1"),
        (lambda: gs.solve([(None, data), (9, data)], network, "hinge"), "a phase ends at a number > 0, got None"),
        (lambda: gs.solve([(1.5, data), (None, data)], network, "hinge", descent), "whole steps, got 1.5"),
        (lambda: gs.solve([(5, data), (None, other)], network, "hinge"), "the same points, and phase 1 has others"),
        (lambda: gs.simulate([(50, data), (None, data)], network, "hinge", descent, 50), "begins at step 50"),
        (lambda: gs.simulate([(5, data), (9, data)], network, "hinge", descent, 50), "ends at step 9, before 50"),
        (lambda: gs.solve_mode(gs.Mode(0.4, 1, [0.1], [0.1]), "hinge", phases=[(5, 0.0)]), "frequency of phase 0"),
        (lambda: theory.still_alive(0.1, 0.1, 1.0, 2.0), "lowest must be <= 0, got 1"),
        (lambda: theory.alive_share(-1.0, -2.0), "highest must be >= 0, got -2"),
        (lambda: theory.alive_share(-1.0, 2.0, scale_a=1.0), "give both scale_a and scale_z"),
        (lambda: gs.compare(gs.solve(phases, network, "hinge", descent), run), "each phase"),
    )
    for case, message in cases:
        with pytest.raises(ValueError, match=message):
            case()


def test_the_flow_of_neurons_that_stay_is_that_of_scipy_to_1e_9():
    """Re-weighting, and a flip so short that nobody leaves: a smooth field in each phase."""
    data = gs.datasets.antipodal(2, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=jax.random.key(3))
    axis = np.asarray(data.points)[0] / np.linalg.norm(data.points[0])
    network = gs.TwoLayerReLU(np.outer([0.3, 0.2, -0.4, -0.2], axis), [0.2, 0.1, -0.3, -0.05])
    other = gs.Dataset(data.points, data.labels, [0.8, 0.2])
    flipped = gs.Dataset(data.points, -data.labels, [0.5, 0.5])
    phases = [(2.0, data), (5.0, other), (5.5, flipped), (None, data)]
    law, shape, begin = gs.solve(phases, network, "cross-entropy"), np.shape(network.w), 0.0
    now = np.concatenate([np.ravel(network.w), np.ravel(network.z)])
    for end, some in ((2.0, data), (5.0, other), (5.5, flipped), (9.0, data)):

        def field(t, v, some=some):
            parts = downhill(RESIDUALS["cross-entropy"], some, v[: -shape[0]].reshape(shape), v[-shape[0] :])
            return np.concatenate([np.ravel(part) for part in parts])

        now = solve_ivp(field, (begin, end), now, method="DOP853", rtol=1e-13, atol=1e-15).y[:, -1]
        begin, w = end, now[: -shape[0]].reshape(shape)
        logits = np.maximum(np.asarray(data.points) @ w.T, 0) @ now[-shape[0] :]
        np.testing.assert_allclose(law.logits(end), logits, rtol=1e-9)
        np.testing.assert_allclose(law.network(end).w, w, atol=1e-10)
