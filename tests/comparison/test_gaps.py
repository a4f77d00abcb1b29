"""`compare`: the numbers against plain NumPy, the units of t, and what is refused."""

from functools import cache
from types import SimpleNamespace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.comparison import compare
from gradstarve.problem import (
    GradientDescent,
    GradientFlow,
    StochasticGradientDescent,
    TwoLayerReLU,
    datasets,
    init_two_layer,
)
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theory import solve

pytestmark = pytest.mark.usefixtures("x64")
STEP = 0.25


@cache
def problem(batch=(2, 3), width=4, seed=0, **options):
    data = datasets.antipodal(dim=3, norms=(1.0, 1.5), frequencies=(0.7, 0.3))
    return data, init_two_layer(jax.random.key(seed), batch, width, 3, **options)


@cache  # under the fixture of every test here, so in 64 bits
def pair(batch=(2, 3), width=4, loss="cross-entropy", steps=30, every=10):
    data, net = problem(batch, width)
    dynamics = GradientDescent(STEP)
    return solve(data, net, loss, dynamics), simulate(data, net, loss, dynamics, steps, record_every=every)


@cache
def flow():
    return simulate_flow(*problem(), "cross-entropy", [0.0, 1.0, 2.0])


def moved(trajectory, index, by):
    """The trajectory with one recorded logit changed."""
    return eqx.tree_at(lambda t: t.recorded, trajectory, trajectory.recorded.at[index].add(by))


def test_numbers_are_those_of_numpy():
    solution, trajectory = pair()
    noise = 1e-3 * np.random.default_rng(0).normal(size=trajectory.recorded.shape)
    trajectory = eqx.tree_at(lambda t: t.recorded, trajectory, trajectory.recorded + noise)
    found = compare(solution, trajectory)
    theory = np.asarray(solution.logits(trajectory.grid))
    simulated = np.asarray(trajectory.logits())
    difference = np.abs(theory - simulated)
    assert found.gap == difference.max()
    np.testing.assert_array_equal(found.gaps, difference.max(axis=(-2, -1)))
    np.testing.assert_allclose(found.rms, np.sqrt((difference**2).mean()), rtol=1e-12)
    np.testing.assert_allclose(found.relative_gap, (difference / np.sqrt(1 + theory**2)).max(), rtol=1e-12)
    for row, point in zip(found.classes, (0, 1), strict=True):
        assert row.gap == difference[..., point].max()
        np.testing.assert_allclose(row.rms, np.sqrt((difference[..., point] ** 2).mean()), rtol=1e-12)
    assert [(c.label, c.frequency, c.norms) for c in found.classes] == [(1, 0.7, (1.0, 1.0)), (-1, 0.3, (1.5, 1.5))]


def test_theory_and_training_agree_to_rounding():
    found = compare(*pair())
    assert found.gap < 1e-13
    assert (found.unit, found.time_scale, found.networks) == ("step", 1.0, 6)


@pytest.mark.parametrize("batch", [(), (2, 3)])
def test_worst_is_where_it_was_put(batch):
    solution, trajectory = pair(batch)
    network = tuple(size - 1 for size in batch)
    found = compare(solution, moved(trajectory, (*network, 2, 1), 0.5))
    worst = found.worst
    assert (worst.network, worst.t, worst.point) == (network, 20, 1)
    assert worst.simulated - worst.theory == pytest.approx(0.5)
    assert found.gap == pytest.approx(0.5)
    assert "step 20, point 1" in found.summary()
    assert found.gaps.shape == batch


@pytest.mark.slow
def test_failing_classes_are_counted_on_both_sides():
    _, net = problem(batch=200, width=2)
    found = compare(*pair(batch=200, width=2, steps=400, every=100))
    fate = np.asarray(jnp.sign(net.w[..., 0] + net.z))  # (4.3)
    for row in found.classes:
        lost = int((fate != row.label).all(axis=-1).sum())
        # A neuron on its way to the other class can take its time, so there are some that are not there yet.
        assert row.not_learnt_theory == row.not_learnt_simulated >= lost > 0
        assert row.not_learnt_theory < 1.2 * lost


def test_some_steps_only():
    solution, trajectory = pair()
    found = compare(solution, trajectory, t=[10, 30])
    assert found.grid.tolist() == [10, 30]
    assert found.theory.shape == (2, 3, 2, 2)
    assert compare(solution, trajectory, t=20).grid.tolist() == [20]
    with pytest.raises(ValueError, match=r"11 was not recorded"):
        compare(solution, trajectory, t=[11])
    with pytest.raises(ValueError, match="rising"):
        compare(solution, trajectory, t=[30, 10])


@pytest.mark.slow
def test_flow_on_flow_and_flow_on_small_steps():
    data, net = problem()
    theory = solve(data, net, "cross-entropy", GradientFlow())
    found = compare(theory, flow())
    assert (found.unit, found.gap < 1e-7) == ("time", True)
    gaps = []
    for step in (0.02, 0.01):
        run = simulate(data, net, "cross-entropy", GradientDescent(step), round(2 / step), record_every=round(1 / step))
        gaps.append(compare(theory, run, step_size=step).gap)
    assert gaps[1] < 0.02
    assert gaps[0] / gaps[1] == pytest.approx(2, rel=0.25)  # first order, up to the step at which a neuron crosses


@pytest.mark.slow
def test_descent_theory_on_a_simulated_flow():
    data, net = problem()
    theory = solve(data, net, "cross-entropy", GradientDescent(0.01))
    run = flow()
    found = compare(theory, run, step_size=0.01)
    assert 0 < found.gap < 0.05
    np.testing.assert_array_equal(found.theory_at([1.0]), theory.logits(np.array([100])))
    with pytest.raises(ValueError, match=r"whole steps only, but time 1\.0 is step 33\.33"):
        compare(theory, run, step_size=0.03)


def test_units_must_be_told_apart():
    data, net = problem()
    flow_theory, descent_theory = (solve(data, net, "hinge", d) for d in (GradientFlow(), GradientDescent(STEP)))
    run = simulate(data, net, "hinge", GradientDescent(STEP), 20, record_every=5)
    with pytest.raises(ValueError, match="counts in times and the trajectory in steps"):
        compare(flow_theory, run)
    with pytest.raises(ValueError, match="leave it out"):
        compare(descent_theory, run, step_size=STEP)
    for bad in (0.0, -1.0, float("nan"), [0.1, 0.2], "fast"):
        with pytest.raises(ValueError, match="one positive number"):
            compare(flow_theory, run, step_size=bad)


def test_different_problems_are_refused():
    solution, trajectory = pair()
    data, net = problem()
    other = datasets.antipodal(dim=3, norms=(1.0, 1.25), frequencies=(0.7, 0.3))
    dynamics = GradientDescent(STEP)
    with pytest.raises(ValueError, match=r"points\[1, 0\] = -1\.5 and -1\.25"):
        compare(solution, simulate(other, net, "cross-entropy", dynamics, 30, record_every=10))
    small = TwoLayerReLU(net.w[..., :2], net.z)
    with pytest.raises(ValueError, match=r"points of shape \(2, 3\) and \(2, 2\)"):
        compare(solution, simulate(datasets.antipodal(), small, "cross-entropy", dynamics, 5))
    with pytest.raises(ValueError, match="'cross-entropy' and the trajectory for 'hinge'"):
        compare(solution, simulate(data, net, "hinge", dynamics, 5))
    with pytest.raises(ValueError, match=r"\(2, 3, 4, 2\) and the trajectory \(2, 4, 2\)"):
        compare(solution, simulate(data, net[:, 0], "cross-entropy", dynamics, 30, record_every=10))
    with pytest.raises(ValueError, match="order of the two arguments"):
        compare(trajectory, solution)
    with pytest.raises(ValueError, match="solution must be a learning curve, got int"):
        compare(3, trajectory)


@pytest.mark.slow
def test_another_start_is_refused():
    data, net = problem()
    dynamics = GradientDescent(STEP)
    solution, trajectory = pair()
    other = eqx.tree_at(lambda n: n.z, net, net.z.at[1, 2].multiply(1 + 1e-9))
    for theory, run in (
        (solve(data, other, "cross-entropy", dynamics), trajectory),
        (solution, simulate(data, other, "cross-entropy", dynamics, 30, record_every=10)),
        (solve(data, other), flow()),
    ):
        with pytest.raises(ValueError, match=r"start from different networks: at t = 0 .*\(network 1, 2, point [01]\)"):
            compare(theory, run)
    # The order of the neurons changes nothing but the rounding of sums.
    turned = TwoLayerReLU(net.w[..., ::-1, :], net.z[..., ::-1])
    assert compare(solve(data, turned, "cross-entropy", dynamics), trajectory).gap < 1e-13


@pytest.mark.slow
def test_other_dynamics_are_refused():
    data, net = problem()
    _, trajectory = pair()
    for dynamics, message in (
        (GradientDescent(0.3), r"theory has step_size = 0\.3 and the trajectory 0\.25"),
        (GradientDescent(STEP, momentum=0.5), r"theory has momentum = 0\.5 and the trajectory 0"),
        (GradientDescent(STEP, weight_decay=1e-3), r"theory has weight_decay = 0\.001 and the trajectory 0"),
    ):
        with pytest.raises(ValueError, match=message):
            compare(solve(data, net, "cross-entropy", dynamics), trajectory)
    with pytest.raises(ValueError, match=r"step_size = 0\.5 was given, but descent has the step size 0\.25"):
        compare(solve(data, net), trajectory, step_size=0.5)
    run = simulate(data, net, "cross-entropy", StochasticGradientDescent(STEP), 30, record_every=10, key=jax.random.key(0))
    with pytest.raises(ValueError, match="full-batch descent"):
        compare(pair()[0], run)
    low = jax.tree.map(lambda leaf: leaf.astype("float32"), GradientDescent(STEP))
    assert compare(solve(data, net, "cross-entropy", low), trajectory).gap < 1e-13


def test_not_finite_is_never_silent():
    solution, trajectory = pair()
    broken = moved(trajectory, (1, 2, 3, 0), np.nan)
    found = compare(solution, broken)
    assert found.gap == found.rms == found.classes[0].gap == np.inf
    assert found.classes[1].gap < 1e-12
    assert found.worst.network == (1, 2)
    assert found.classes[0].not_learnt_simulated == found.classes[0].not_learnt_theory + 1


def test_what_diverges_on_both_sides_is_left_out_and_told():
    solution, trajectory = pair()
    gone = moved(trajectory, (0, 0, 3), np.inf)
    theory = SimpleNamespace(**{name: getattr(solution, name) for name in ("data", "loss_function", "dynamics")})
    theory.logits = lambda t: solution.logits(t).at[0, 0, 3].add(np.inf)
    found = compare(theory, gone)
    assert found.both_infinite == 2
    assert found.gap < 1e-12
    assert "Left out: 2 logits" in found.table()
    theory.logits = lambda t: solution.logits(t) * np.nan
    with pytest.raises(ValueError, match="no logit is finite"):
        compare(theory, moved(trajectory, ..., np.nan))


@pytest.mark.slow
def test_precisions_may_differ():
    data, net = problem()
    low = jax.tree.map(lambda leaf: leaf.astype("float32"), (data, net))
    net = jax.tree.map(lambda leaf: leaf.astype("float64"), low[1])
    dynamics = GradientDescent(STEP)
    run = simulate(*low, "cross-entropy", dynamics, 30, record_every=10)
    assert 0 < compare(solve(data, net, "cross-entropy", dynamics), run).gap < 1e-5


def test_tables_and_dictionary():
    found = compare(*pair())
    lines = found.table().splitlines()
    assert lines[0].split()[0] == "class"
    assert [line.split()[0] for line in lines[2:5]] == ["+", "−", "all"]
    assert lines[5].startswith("Worst gap")
    assert found.rich_table().row_count == 3
    stored = found.to_dict()
    assert stored["gap"] == found.gap
    assert stored["worst"]["t"] == found.worst.t
    assert (stored["first"], stored["last"], stored["records"]) == (0, 30, 4)
    assert [row["label"] for row in stored["classes"]] == [1, -1]


def test_one_class_alone():
    data, net = problem()
    data = eqx.tree_at(lambda d: d.labels, data, jnp.array([1.0, 1.0]))
    data = eqx.tree_at(lambda d: d.points, data, jnp.abs(data.points.at[1].set(data.points[0])))
    found = compare(
        solve(data, net, "cross-entropy", GradientDescent(STEP)),
        simulate(data, net, "cross-entropy", GradientDescent(STEP), 20),
    )
    assert [row.label for row in found.classes] == [1]
    assert found.gap < 1e-13
