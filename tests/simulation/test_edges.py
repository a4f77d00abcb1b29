"""Neurons that are exactly on the edge of a point, w . x = 0, stay there in every engine, as they do in plain NumPy."""

import jax
import numpy as np
import pytest
from simulation.plain import train

import gradstarve as gs
from gradstarve.problem import Dataset, GradientDescent, StochasticGradientDescent, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.simulation._span import Lifted, Span

ENGINES = ("reference", "fused", "pallas")


def on_edges(seed, count, width, dim, size, dtype=np.float64):
    """Points with zero coordinates, and neurons with w . x_i = 0 for some of them because every product is 0."""
    rng = np.random.default_rng([seed, dim, size])
    supports = (rng.permutation(dim) % size == np.arange(size)[:, None]) | (rng.random((size, dim)) < 0.2)
    points = np.where(supports, rng.normal(size=(size, dim)), 0)
    labels = np.where(rng.random(size) < 0.5, 1.0, -1.0)
    weights = rng.uniform(0.5, 1.5, size)
    w, z = rng.normal(size=(count, width, dim)), rng.normal(size=(count, width))
    for b in range(count):
        for j in range(width):
            missed = rng.permutation(size)[: rng.integers(1, size)]
            w[b, j, supports[missed].any(axis=0)] = rng.choice([0.0, -0.0])
    data = Dataset(points.astype(dtype), labels.astype(dtype), (weights / weights.sum()).astype(dtype))
    return data, TwoLayerReLU(w.astype(dtype), z.astype(dtype))


def gaps(data, networks, steps, engines, loss="cross-entropy", step_size=0.25, **rule):
    """The largest gap of each engine from NumPy, in the logits and weights of any network at the last step."""
    dynamics = GradientDescent(step_size, rule.get("momentum", 0.0), rule.get("nesterov", False), rule.get("decay", 0.0))
    logits, w, z = train(data, networks, loss, steps, step_size, **rule)
    found = []
    for engine in engines:
        run = simulate(data, networks, loss, dynamics, steps, record_every=steps, engine=engine)
        assert run.final.w.dtype == w.dtype
        pairs = (run.logits(steps), logits[:, -1]), (run.final.w, w), (run.final.z, z)
        found.append(max(np.abs(np.asarray(ours) - theirs).max() for ours, theirs in pairs))
    return found


# Points of rank below d: trained in the given coordinates, and lifted, which is for n < d / 2.
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dim", "size", "lifted"), [(4, 3, False), (7, 2, True)])
def test_two_thousand_networks_on_edges(dim, size, lifted):
    sets = [on_edges(seed, 100, 2, dim, size) for seed in range(20)]
    assert isinstance(Span(*sets[0], draws=False).data, Lifted) == lifted
    touching = [np.einsum("bhd,nd->bhn", nets.w, data.points) == 0 for data, nets in sets]
    assert np.mean([one.any(axis=(1, 2)).mean() for one in touching]) > 0.9
    for k, one in enumerate(sets):
        # The interpreted GPU kernel is slow; what it does does not depend on the data.
        assert max(gaps(*one, 200, ENGINES if k < 3 else ENGINES[:2])) < 1e-9


def test_in_float32():
    """A neuron that wakes by mistake is off by the order of 1; rounding of 60 steps is not."""
    for dim, size in ((4, 3), (7, 2)):
        for seed in range(3):
            data, networks = on_edges(seed, 50, 2, dim, size, np.float32)
            assert max(gaps(data, networks, 60, ["fused"])) < 2e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dim", "size"), [(2, 6), (9, 4)])
def test_edges_reached_on_the_way_are_met_to_the_last_bit(dim, size):
    """Small binary fractions and the hinge loss: sums are exact for some steps, so neurons come to lie on edges, and every
    engine has NumPy's numbers to the last bit. With repeated points, points at the origin, momentum and decay."""
    rng = np.random.default_rng(1)
    rule = {"momentum": 0.5, "decay": 0.125}
    met = 0
    for _ in range(8):
        points = rng.integers(-2, 3, (size, dim)).astype(float)
        points[1], points[-1] = points[0], 0
        labels = rng.choice([-1.0, 1.0], size)
        labels[1] = labels[0]
        data = Dataset(points, labels, np.full(size, 1 / size) if size == 4 else [0.25, 0.25, 0.125, 0.125, 0.125, 0.125])
        networks = TwoLayerReLU(rng.integers(-2, 3, (60, 3, dim)) / 2, rng.integers(-2, 3, (60, 3)) / 2)
        _, w, _ = train(data, networks, "hinge", 3, 0.25, **rule)
        live = np.abs(points).any(axis=1)
        met += int((np.einsum("bhd,nd->bhn", w, points[live]) == 0).sum())
        assert max(gaps(data, networks, 5, ENGINES[:2], "hinge", **rule)) == 0
    assert met > 100


@pytest.mark.usefixtures("x64")
def test_one_point_a_step_on_edges():
    key = jax.random.key(3)
    for dim, size in ((4, 3), (7, 2)):
        data, networks = on_edges(0, 50, 2, dim, size)
        runs = [
            simulate(data, networks, "hinge", StochasticGradientDescent(0.2), 100, record_every=100, key=key, engine=engine)
            for engine in ("reference", "fused")
        ]
        np.testing.assert_allclose(runs[1].logits(), runs[0].logits(), rtol=0, atol=1e-11)


@pytest.mark.usefixtures("x64")
def test_the_engine_does_not_depend_on_the_side_of_an_edge():
    """One neuron on the edge of one point and on the wrong side of the other: dead, however long the run is."""
    data = Dataset([[1.0, 0.0, 0.0], [-0.6, 0.8, 0.0]], [1, -1])
    network = TwoLayerReLU([[0.0, -1.1556314350235173, 1.8056491900002554]], [2.9833894379190955])
    for steps in (20, 2000):
        run = simulate(data, network, "cross-entropy", GradientDescent(0.1), steps, record_every=steps)
        assert run.logits(steps).tolist() == [0.0, 0.0]
        np.testing.assert_array_equal(run.final.w, network.w)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("scale", [1e-160, 1e160])
def test_points_whose_products_leave_the_range_are_not_lifted(scale):
    data, networks = on_edges(0, 5, 2, 7, 2)
    data = Dataset(scale * data.points, data.labels, data.weights)
    assert not isinstance(Span(data, networks, draws=False).data, Lifted)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_sweep_in_many_dimensions():
    """Lifted inside, with decay, and given back as they were given."""
    data, _ = on_edges(2, 1, 1, 11, 3)
    for engine in ("fused", "reference"):
        found = gs.sweep(
            data, 6, steps=30, width=2, keep="final", engine=engine, dynamics=GradientDescent(0.2, weight_decay=0.05)
        )
        start = found.network(np.arange(6))
        _, w, z = train(data, start, "cross-entropy", 30, 0.2, decay=0.05)
        np.testing.assert_allclose(found.final().w, w, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.final().z, z, rtol=0, atol=1e-12)
