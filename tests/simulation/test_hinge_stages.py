"""Plateaus of hinge flow from small weights: closed forms, the law of their exits, descent, and weights of 1e-300."""

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory
from gradstarve.simulation import simulate_hinge_exact

pytestmark = pytest.mark.usefixtures("x64")

SCALES = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)


def left(run, *index):
    """The plateaus that are left, and the rest."""
    found = run.stages(*index)
    assert [np.isinf(stage.exit) for stage in found] == [False] * (len(found) - 1) + [bool(run.settled[index])]
    return found[:-1], found[-1]


@pytest.mark.parametrize("scale", [1e-2, 1e-8, 1e-300])
def test_one_neuron_for_each_point(scale):
    # Balanced neurons on orthogonal points: u = scale^2 e^(2 q r t) (3.6), each by itself, and none is in the others' way.
    q, r, y = np.array([0.5, 0.14, 0.25, 0.06, 0.05]), np.array([1.0, 2.0, 0.7, 1.3, 0.5]), np.array([1, -1, 1, -1, 1])
    data = gs.Dataset(np.diag(r), y, q)
    run = simulate_hinge_exact(data, gs.TwoLayerReLU(scale * (1.1 * np.eye(5) - 0.1), scale * y))
    found, rest = left(run)
    exits = (2 * np.log(1 / scale) - np.log(r)) / (2 * q * r)
    order = np.argsort(exits)
    np.testing.assert_allclose([stage.exit for stage in found], exits[order], rtol=1e-13)
    np.testing.assert_allclose([stage.start for stage in found], [0, *exits[order][:-1]], rtol=1e-13)
    np.testing.assert_allclose([stage.rate for stage in found], (q * r)[order], rtol=1e-13)
    assert [stage.neurons for stage in found] == [stage.learnt for stage in found] == [(i,) for i in order]
    for place, stage in enumerate([*found, rest]):
        learnt = np.isin(np.arange(5), order[:place])
        assert stage.residual.tolist() == (~learnt).tolist()
        half = 0.5 * (stage.start + stage.exit) if stage.rate else stage.start
        margins = np.exp(np.minimum(2 * np.log(scale) + np.log(r) + 2 * q * r * half, 0))
        np.testing.assert_allclose(stage.loss, q @ (1 - margins), rtol=1e-9, atol=1e-13)
        np.testing.assert_allclose(stage.error, q @ (1 / (1 + np.exp(margins))), rtol=1e-9)
    # The law of the limit, and the constant beside it.
    law = theory.plateau_exits(data, run.initial)
    np.testing.assert_allclose(law.time, 1 / (q * r)[order], rtol=1e-13)
    np.testing.assert_array_equal(law.neurons, np.eye(5)[order])
    np.testing.assert_array_equal(law.residual, [stage.residual for stage in found])


def accumulated(learns, pushes):
    """When plateaus end on orthogonal points, by hand: neuron j sees the points `learns[j]` of its sign, at the rate
    |pushes| of those that are not learnt, and needs 1 in all."""
    sees = [np.array([i in mine for i in range(len(pushes))]) for mine in learns]
    size, open_, time, found = np.zeros(len(sees)), np.ones(len(pushes), bool), 0.0, []
    while True:
        rate = np.array([np.linalg.norm(pushes[mine & open_]) for mine in sees])
        wait = np.where((rate > 0) & (size < 1), (1 - size) / np.where(rate > 0, rate, 1), np.inf)
        if not np.isfinite(wait.min()):
            return np.array(found)
        first = int(np.argmin(wait))
        time, size = time + wait[first], np.minimum(size + rate * wait[first], 1)
        open_ &= ~sees[first]
        size[first] = 2
        found.append(time)


def test_rates_add_up_over_the_plateaus():
    # Points of one label on the axes, some neurons with several of them: what one learns, others do not grow by any more.
    q, r = np.array([0.3, 0.25, 0.2, 0.15, 0.1]), np.array([1.0, 1.2, 0.9, 0.6, 0.5])
    data = gs.Dataset(np.diag(r), [1, 1, 1, 1, 1], q)
    learns = [(0, 1), (1, 2), (2, 3), (0, 4), (3, 4)]
    w = np.where([[i in mine for i in range(5)] for mine in learns], 1.0, -1.0) * np.linspace(0.5, 1, 5)
    z = np.linspace(1.0, 1.2, 5)
    law = theory.plateau_exits(data, gs.TwoLayerReLU(w, z))
    by_hand = accumulated(learns, q * r)
    assert len(by_hand) == 4
    np.testing.assert_allclose(law.time, by_hand, rtol=1e-12)
    gaps, scales = [], (*SCALES[1:], 1e-100)  # from 1e-2 two plateaus are too short to be seen
    for scale in scales:
        found, _ = left(simulate_hinge_exact(data, gs.TwoLayerReLU(scale * w, scale * z)))
        gaps.append(np.array([stage.exit for stage in found]) / np.log(1 / scale) - law.time)
        assert [stage.neurons[0] for stage in found] == [0, 1, 2, 3]
    # The gap falls like 1/log(1/scale): what is beside the law is a constant.
    constant = np.array(gaps) * np.log(1 / np.array(scales))[:, None]
    np.testing.assert_allclose(constant[-2], constant[-1], rtol=1e-2)
    np.testing.assert_allclose(constant[0], constant[-1], rtol=0.4)
    assert (np.diff(np.abs(gaps), axis=0) < 0).all()


def any_data():
    """Points of a plane with labels at random: margins are held at saddles, and neurons slide along edges."""
    rng = np.random.default_rng(5)
    data = gs.Dataset(np.pad(rng.normal(size=(5, 2)), ((0, 0), (0, 3))), rng.choice([-1.0, 1.0], 5))
    return data, rng.normal(size=(5, 5)), rng.normal(size=5)


def test_labels_at_random_from_many_scales():
    data, w, z = any_data()
    scales = (*SCALES, 1e-100, 1e-200, 1e-290)
    networks = gs.TwoLayerReLU(*(np.stack([s * leaf for s in scales]) for leaf in (w, z)))
    run = simulate_hinge_exact(data, networks, 1e5)
    stages = [left(run, b)[0] for b in range(len(scales))]
    logs = np.log(1 / np.array(scales))
    residual = np.stack([stage.residual for stage in stages[-1]])
    law = theory.plateau_exits(data, gs.TwoLayerReLU(w, z), residual)
    assert len(law.time) == 3
    assert (run.events.kind == gs.EventKind.HELD).any(-1).all()
    assert (run.events.kind == gs.EventKind.SLIDES).any(-1).all()
    constant = np.array([[stage.exit for stage in found] for found in stages]) - logs[:, None] * law.time
    # A constant beside the law, at all scales and so also the slope between them.
    assert np.ptp(constant, axis=0).max() < 1e-2
    assert np.ptp(constant[-3:], axis=0).max() < 1e-6
    np.testing.assert_allclose([[s.rate for s in found] for found in stages[-3:]], [np.nanmax(law.rate, 1)] * 3, rtol=1e-9)
    # The exit of the first is the end of early alignment, as long as f(x_i) = 1 is a margin of 1.
    phase = gs.early_alignment(data, gs.TwoLayerReLU(w, z), "hinge")
    for scale, found in zip(scales[2:5], stages[2:5], strict=True):
        assert abs(float(phase.exit_time(scale)) - found[0].exit) < 1.0
    # No creep: as many events from weights of 1e-290 as from 1e-4.
    assert run.events.count.max() < 1.3 * run.events.count.min()


def test_a_faint_neuron_grows_while_a_margin_is_held():
    # Point e_1 has both labels, .5 and .3: its majority is held at 1, with g = .6. A neuron on e_2 grows all the while.
    x = np.eye(5)[[0, 0, 1, 2, 3]]
    data = gs.Dataset(x, [1.0, -1.0, 1.0, 1.0, 1.0], [0.5, 0.3, 0.1, 0.05, 0.05])
    for scale in (1e-3, 1e-30, 1e-250):
        sizes = np.array([0.5, scale, 0, 0, 0])
        run = simulate_hinge_exact(data, gs.TwoLayerReLU(np.diag(sizes), sizes), 1e5)
        learnt = run.events.time[(run.events.kind == gs.EventKind.LEARNT) & (run.events.point == 2)]
        np.testing.assert_allclose(learnt[0], np.log(1 / scale) / 0.1, rtol=1e-11)
        found, _ = left(run)
        np.testing.assert_allclose(found[-1].residual, [0.6, 1.0, 1.0, 1.0, 1.0], rtol=0, atol=1e-12)
        np.testing.assert_allclose(found[-1].loss, 0.3 * 2 + 0.2, rtol=1e-3)
        assert found[-1].neurons == (1,)
        np.testing.assert_allclose(found[-1].rate, 0.1, rtol=1e-13)


def test_descent_stands_as_high_and_as_long():
    # A feature that most samples have and one that comes along on some: the plateau of plain descent in NumPy.
    x = np.array([[1.0, 0, 0, 0, 0], [1.0, 1.0, 0, 0, 0], [1.1, 0.1, 0, 0, 0], [0, 0, 0.8, 0, 0], [0, 0, 0.7, 0.2, 0]])
    y, q = np.array([1.0, 1.0, 1.0, -1.0, -1.0]), np.array([0.4, 0.2, 0.1, 0.2, 0.1])
    data, scale, step = gs.Dataset(x, y, q), 1e-4, 1e-3
    rng = np.random.default_rng(1)
    w, z = scale * np.abs(rng.normal(size=(5, 5))), scale * np.array([1, -1, 0.5, -0.6, 0.7])
    found, _ = left(simulate_hinge_exact(data, gs.TwoLayerReLU(w, z)))
    assert len(found) == 2
    times = [0.5 * (found[1].start + found[1].exit), found[1].exit]
    heights, first = [], {}
    for k in range(int(times[1] / step) + 200):
        edge = w @ x.T
        margins = y * (z @ np.maximum(edge, 0))
        for i in np.flatnonzero(margins >= 1):
            first.setdefault(int(i), k * step)
        heights.append(q @ np.maximum(1 - margins, 0))
        pull = q * y * (margins < 1)
        w, z = w + step * z[:, None] * ((edge > 0) * pull @ x), z + step * np.maximum(edge, 0) @ pull
    np.testing.assert_allclose(found[1].loss, heights[int(times[0] / step)], rtol=1e-2)
    np.testing.assert_allclose([stage.exit for stage in found], [first[stage.learnt[0]] for stage in found], rtol=5e-3)


def test_clusters_are_learnt_one_after_the_other():
    # Three clusters about orthogonal directions: all points of one are learnt in one fall.
    rng = np.random.default_rng(0)
    cluster = np.array([0, 0, 1, 1, 2])
    x = np.eye(5)[cluster] + 0.1 * rng.normal(size=(5, 1)) * np.eye(5)[[3, 3, 4, 4, 2]]
    data = gs.Dataset(x, [1.0, 1.0, -1.0, -1.0, 1.0], [0.3, 0.25, 0.15, 0.15, 0.15])
    w, z = 1e-8 * (1.1 * np.eye(5) - 0.1), 1e-8 * np.array([1, -1, 1, 1, 1])
    found, _ = left(simulate_hinge_exact(data, gs.TwoLayerReLU(w, z), 2e3))
    points = [sorted({int(cluster[i]) for i in stage.learnt}) for stage in found]
    assert points == [[0], [1], [2]]
    assert [len(stage.learnt) for stage in found] == [2, 2, 1]


@pytest.mark.slow
def test_large_weights_have_no_plateau():
    data = gs.Dataset(np.eye(5), [1.0, -1.0, 1.0, -1.0, 1.0])
    run = simulate_hinge_exact(data, gs.init_two_layer(jax.random.key(0), 4, 5, 5, 0.9, 0.9))
    for b in range(4):
        assert [stage.exit for stage in run.stages(b)] == [np.inf]
    with pytest.raises(ValueError, match=r"one index for each batch axis \[4\]"):
        run.stages()


def test_what_is_not_covered_is_refused():
    data, w, z = any_data()
    network = gs.TwoLayerReLU(w, z)
    with pytest.raises(gs.HypothesisError, match=r"y_i y_k x_i.x_k >= 0 for all pairs of points: points 0 and"):
        theory.plateau_exits(data, network)
    with pytest.raises(gs.HypothesisError, match=r"the network has slope 0\.1"):
        theory.plateau_exits(gs.datasets.orthogonal(), gs.TwoLayerReLU(np.eye(2), np.ones(2), 0.1))
    with pytest.raises(ValueError, match=r"residuals must be \[plateaus, n\] with n = 5 points, got shape \[5\]"):
        theory.plateau_exits(data, network, np.ones(5))
    with pytest.raises(ValueError, match="residuals must be in"):
        theory.plateau_exits(data, network, 2 * np.ones((1, 5)))
    with pytest.raises(ValueError, match="first row of residuals must be 1"):
        theory.plateau_exits(data, network, np.zeros((1, 5)))
    with pytest.raises(ValueError, match="for a batch give"):
        theory.plateau_exits(data, gs.TwoLayerReLU(w[None], z[None]), np.ones((1, 5)))
    with pytest.raises(ValueError, match="known"):
        jax.jit(lambda w: theory.plateau_exits(data, gs.TwoLayerReLU(w, z), np.ones((1, 5))).time)(w)
    # A network of the dead leaves no plateau.
    dead = theory.plateau_exits(gs.datasets.orthogonal(), gs.TwoLayerReLU(-np.ones((1, 2)), np.ones(1)))
    assert dead.time.size == 0
    assert "0 plateaus" in repr(dead)


@pytest.mark.slow
def test_digits_leave_their_plateau_by_the_law():
    # Threes against eights in eight principal components: some 290 events from any scale.
    two = gs.datasets.digits()
    rng = np.random.default_rng(0)
    pick = rng.choice(two.train.size, 40, replace=False)
    x, y = (np.asarray(leaf, float)[pick] for leaf in (two.train.points, two.train.labels))
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    data = gs.Dataset((u * s)[:, :8] / s[0] * 3, y)
    w, z = rng.normal(size=(16, 8)), rng.normal(size=16)
    law = theory.plateau_exits(data, gs.TwoLayerReLU(w, z), np.ones((1, 40)))
    constant, counts = [], []
    for scale in (1e-4, 1e-8, 1e-30, 1e-100):
        run = simulate_hinge_exact(data, gs.TwoLayerReLU(scale * w, scale * z), 400 + 20 * np.log(1 / scale))
        found, rest = left(run)
        assert rest.loss == pytest.approx(0, abs=1e-12)
        constant.append(found[0].exit - law.time[0] * np.log(1 / scale))
        counts.append(int(run.events.count))
        assert found[0].rate == pytest.approx(np.nanmax(law.rate[0]), rel=1e-9)
    print(constant, counts)
    assert np.ptp(constant) < 2
    assert max(counts) < 1.2 * min(counts)
