"""`simulate_flow` and `sweep` through phases (21.1): against phases by hand, SciPy, and the runs of `simulate`."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from simulation.plain import gradient

import gradstarve as gs
from gradstarve.simulation.sweep import _plan as sweep_plan


def data():
    first = gs.datasets.antipodal(2, norms=(1.0, 1.5), frequencies=(0.3, 0.7), key=jax.random.key(3))
    flipped = gs.Dataset(first.points, -first.labels, first.weights)
    other = gs.Dataset(first.points, -first.labels, first.weights[::-1])
    return first, flipped, other


def network(data):
    """Neurons that stay in their classes for the times below, so that the field is smooth."""
    axis = np.asarray(data.points)[0] / np.linalg.norm(data.points[0])
    w, z = np.outer([0.3, 0.2, -0.4, -0.2], axis), np.array([0.2, 0.1, -0.3, -0.05])
    return gs.TwoLayerReLU(*(jnp.asarray(part, data.points.dtype) for part in (w, z)))


@pytest.mark.slow
def test_a_flow_goes_on_from_phase_to_phase(x64):
    first, flipped, _ = data()
    start, reweighted = network(first), gs.Dataset(first.points, first.labels, [0.8, 0.2])
    phases, ends = [(0.3, first), (1.0, reweighted), (None, flipped)], (0.3, 1.0, 1.4)
    run = gs.simulate_flow(phases, start, "cross-entropy", [0.1, 0.3, 0.7, 1.2, 1.4], record_networks=True)
    assert run.grid.tolist() == [0.1, 0.3, 0.7, 1.0, 1.2, 1.4]  # the end of the second phase too
    now, begin, found = np.concatenate([np.ravel(start.w), np.ravel(start.z)]), 0.0, []
    for end, some in zip(ends, (first, reweighted, flipped), strict=True):

        def field(t, v, some=some):
            uphill = gradient(some, v[:8].reshape(1, 4, 2), v[None, 8:], "cross-entropy")[:2]
            return -np.concatenate([np.ravel(part) for part in uphill])

        at = [t for t in (0.1, 0.3, 0.7, 1.0, 1.2, 1.4) if begin < t <= end]
        ys = solve_ivp(field, (begin, end), now, method="DOP853", t_eval=at, rtol=1e-12, atol=1e-14).y.T
        found += list(ys)
        now, begin = ys[-1], end
    x = np.asarray(first.points)
    logits = np.array([np.maximum(x @ v[:8].reshape(4, 2).T, 0) @ v[8:] for v in found])
    np.testing.assert_allclose(run.logits(), logits, atol=1e-8)
    np.testing.assert_allclose(run.networks.w[-1], found[-1][:8].reshape(4, 2), atol=1e-8)
    # At the end of a phase labels and weights are still its own, also where 3 * 0.1 asks for it.
    y = np.array([*[first.labels] * 4, *[flipped.labels] * 2])
    q = np.array([*[first.weights] * 2, *[reweighted.weights] * 2, *[flipped.weights] * 2])
    np.testing.assert_allclose(run.margins(), y * logits, atol=1e-8)
    np.testing.assert_allclose(run.error(), (q / (1 + np.exp(y * logits))).sum(-1), atol=1e-8)
    assert float(run.error(3 * 0.1)) == float(run.error(0.3)) == float(run.error()[1])
    for part, length in zip(run.parts, (0.3, 0.7, 0.4), strict=True):
        assert float(part.grid[-1]) == pytest.approx(length)
    # One phase cut in two is one phase, a time may be asked for twice, and none but the last need be asked for.
    halves = [(0.5, first), (None, first)]
    cut = gs.simulate_flow(halves, start, "cross-entropy", [0.2, 0.7, 1.0, 1.0], record_networks=True)
    assert cut.grid.tolist() == [0.2, 0.5, 0.7, 1.0, 1.0]
    np.testing.assert_allclose(cut.logits(), gs.solve(first, start, "cross-entropy").logits(cut.grid), atol=1e-8)


@pytest.mark.slow
def test_a_flow_in_single_precision_knows_its_phases():
    """0.1 is no float of 32 bits: the end of a phase is the time as it was recorded."""
    first, flipped, _ = data()
    batch = gs.init_two_layer(jax.random.key(0), batch=(2, 3), width=4, dim=2, scale_w=0.3, scale_z=0.3)
    run = gs.simulate_flow([(0.1, first), (None, flipped)], batch, "cross-entropy", [0.0, 0.2])
    assert run.grid.tolist() == np.array([0.0, 0.1, 0.2], np.float32).tolist()
    labels = np.array([first.labels, first.labels, flipped.labels])
    np.testing.assert_array_equal(run.margins(), labels * run.logits())
    np.testing.assert_array_equal(run.margins(0.1), labels[1] * run.logits(0.1))
    assert run.error().shape == (2, 3, 3)
    assert run.final.w.shape == (2, 3, 4, 2)


@pytest.mark.parametrize(
    ("phases", "times", "message"),
    [
        ([(2.0, 0), (None, 1)], [1.0, 2.0], "the last phase begins at time 2, and the run ends at 2"),
        ([(1.0, 0), (2.0, 1)], [3.0], "the last phase ends at time 2, before 3"),
        ([(-1.0, 0), (None, 1)], [3.0], "a phase ends at a number > 0, got -1"),
    ],
)
def test_phases_that_do_not_fit_a_flow_are_named(phases, times, message):
    parts = data()
    with pytest.raises(ValueError, match=message):
        gs.simulate_flow([(end, parts[k]) for end, k in phases], network(parts[0]), "hinge", times)


@pytest.fixture
def blocks_of_64(monkeypatch):
    monkeypatch.setitem(sweep_plan.BLOCKS, "cpu", (64, 2**26))


ENDS = (7, 20)


def phases(frequency=0.3):
    first = gs.datasets.antipodal(2, frequencies=(frequency, 1 - frequency))
    flipped = gs.Dataset(first.points, -first.labels, first.weights)
    other = gs.Dataset(first.points, -first.labels, first.weights[::-1])
    return [(ENDS[0], first), (ENDS[1], flipped), (None, other)]


def settings():
    return {"steps": 30, "record_every": 5, "width": 3, "dynamics": gs.GradientDescent(0.3), "key": 4}


@pytest.mark.parametrize("engine", ["reference", "fused"])
def test_a_sweep_is_the_runs_of_simulate(x64, blocks_of_64, engine):
    result = gs.sweep(phases(), 100, **settings(), engine=engine, threshold=0.45)
    run = gs.simulate(phases(), result.network(range(100)), "cross-entropy", gs.GradientDescent(0.3), 30, record_every=5)
    assert result.grid.tolist() == run.grid.tolist() == [0, 5, 7, 12, 17, 20, 25, 30]
    errors, losses, margins = (np.asarray(getattr(run, name)()) for name in ("error", "loss", "margins"))
    for name, values in (("error", errors), ("loss", losses), ("margin", margins)):
        np.testing.assert_allclose(result[f"{name}_mean"], values.mean(0), atol=1e-12)
        np.testing.assert_allclose(result[f"{name}_variance"], values.var(0), atol=1e-12)
        np.testing.assert_allclose(result[f"{name}_min"], values.min(0), atol=1e-12)
    np.testing.assert_allclose(result["learnt"], (errors < 0.45).mean(0), atol=1e-12)
    again = result.trajectory(7)
    np.testing.assert_allclose(again.error(), errors[7], atol=1e-12)
    # By hand, in NumPy: the first network through all three.
    w, z = (np.array(leaf[:1]) for leaf in (run.initial.w, run.initial.z))
    for k in range(30):
        some = phases()[np.searchsorted(ENDS, k, side="right")][1]
        grad_w, grad_z, _ = gradient(some, w, z, "cross-entropy")
        w, z = w - 0.3 * grad_w, z - 0.3 * grad_z
    np.testing.assert_allclose(run.final.w[:1], w, atol=1e-12)


def test_a_directory_remembers_its_phases(x64, blocks_of_64, tmp_path):
    whole = gs.sweep(phases(), 100, **settings())
    swept = {"frequency": [0.3, 0.6]}
    result = gs.sweep(phases, 100, **settings(), over=swept, directory=tmp_path, keep="final", batch_size=64)
    np.testing.assert_array_equal(result["error_mean"][0], whole["error_mean"])
    told = json.loads((tmp_path / "manifest.json").read_text())["settings"]["configurations"]["0"]["data"]
    assert [told[f"phase {k}"]["until"] for k in range(3)] == [*ENDS, "the end"]
    # Killed after some chunks: the same call goes on and comes to the same bits.
    chunks = sorted(tmp_path.glob("chunk-*.npz"))
    assert len(chunks) > 1
    chunks[1].unlink()
    resumed = gs.sweep(phases, 100, **settings(), over=swept, directory=tmp_path, keep="final", batch_size=64)
    for name, values in result.statistics.items():
        np.testing.assert_array_equal(resumed[name], values)
    np.testing.assert_array_equal(resumed.final(frequency=0.6).w, result.final(frequency=0.6).w)
    # Other ends, other labels in one phase, or no phases at all are another sweep.
    others = {
        "until": lambda frequency: [(8, phases(frequency)[0][1]), *phases(frequency)[1:]],
        "phase 1.data": lambda frequency: [phases(frequency)[0], (20, phases(frequency)[0][1]), phases(frequency)[2]],
        "data": lambda frequency: phases(frequency)[0][1],
    }
    for named, changed in others.items():
        with pytest.raises(ValueError, match=f"begun with other settings: .*{named}"):
            gs.sweep(changed, 100, **settings(), over=swept, directory=tmp_path, keep="final", batch_size=64)


def test_phases_that_do_not_fit_a_sweep_are_named():
    first, flipped, _ = data()
    few = {"steps": 20, "width": 2}
    with pytest.raises(ValueError, match="phases with the same ends"):
        gs.sweep(lambda until: [(until, first), (None, flipped)], 4, over={"until": [5, 6]}, **few)
    with pytest.raises(ValueError, match="the last phase begins at step 25, and the run ends at 20"):
        gs.sweep([(25, first), (None, flipped)], 4, **few)
    with pytest.raises(ValueError, match=r"whole steps, got 2\.5"):
        gs.sweep([(2.5, first), (None, flipped)], 4, **few)
    assert jnp.result_type(float) == jnp.float32
