"""Sweeps against plain NumPy on trajectories that `simulate` records, and the ways a sweep may be cut up."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy
from sweeps import HERE as RUN
from sweeps import blocks_of_64  # noqa: F401

import gradstarve as gs
from gradstarve.problem import Loss, SpectralDecoupling, as_loss
from gradstarve.simulation import ERROR
from gradstarve.simulation.sweep import _plan as sweep_plan
from gradstarve.simulation.sweep._statistics import default_threshold, error_floor, note

DATA = {"dim": 2, "frequencies": (0.8, 0.2)}

block_size = sweep_plan.block_size


def data():
    return gs.datasets.antipodal(**DATA)


def same(one, other):
    return all(np.array_equal(one[name], other[name], equal_nan=True) for name in one.statistics)


def test_statistics_are_those_of_the_trajectories(x64):
    key = jax.random.key(5)
    result = gs.sweep(data(), 150, over={"step_size": [0.5, 2.0]}, key=key, keep="logits", **RUN)
    networks = gs.init_two_layer(key, 150, 3, 2, 0.7, 1.0)
    levels = np.array([0, 0.1, 0.5, 0.9, 1])
    for i, step_size in enumerate((0.5, 2.0)):
        run = gs.simulate(
            data(), networks, "cross-entropy", gs.GradientDescent(step_size), 40, record_every=10, engine="reference"
        )
        assert np.allclose(result.logits(step_size=step_size), run.logits(), rtol=0, atol=1e-12)
        final = result.final(step_size=step_size)
        assert np.allclose(final.w, run.final.w, atol=1e-12)
        assert np.allclose(final.z, run.final.z, atol=1e-12)
        points = np.asarray(jax.nn.sigmoid(-run.margins()))
        for name, values in (("error", run.error()), ("loss", run.loss()), ("margin", run.margins())):
            values = np.asarray(values)
            for what in ("mean", "min", "max"):
                assert np.allclose(result[f"{name}_{what}"][i], getattr(values, what)(0), atol=1e-12)
            assert np.allclose(result[f"{name}_variance"][i], values.var(0), atol=1e-12)
        for name, below in (
            ("learnt", np.asarray(run.error()) < 0.3),
            ("learnt_all", (points < 0.3).all(-1)),
            ("learnt_point", points < 0.3),
        ):
            assert 0 < below[:, -1].mean() < 1, "a case that can tell something"
            assert (result[name][i] == below.mean(0)).all()
            first = [below.argmax(1) == r for r in range(5)] & below.any(1)
            assert (result[f"first_{name}"][i] == first.sum(1)).all()
            assert (result[f"never_{name}"][i] == (~below.any(1)).sum(0)).all()
            of = name.removeprefix("learnt").removeprefix("_")
            when = np.where(below.any(1), result.grid[below.argmax(1)], np.inf)
            median = np.quantile(when, 0.5, axis=0, method="inverted_cdf")
            assert (result.time_to_learn(0.5, of)[i] == median).all()
        exact = np.quantile(run.error(), levels, axis=0, method="inverted_cdf").T
        assert (np.abs(result.quantile("error", levels)[i] - exact) <= 0.06 * exact * (1 - exact)).all()
        exact = np.moveaxis(np.quantile(run.margins(), levels, axis=0, method="inverted_cdf"), 0, -1)
        width = np.sqrt(exact**2 + 0.05**2) / 32
        assert (np.abs(result.quantile("margin", levels)[i] - exact) <= 1.02 * width).all()
        counts = [np.histogram(e, ERROR.edges)[0] for e in np.asarray(run.error()).T]
        assert np.abs(result["error_histogram"][i] - counts).sum() <= 2  # a value on an edge may fall to either side


@pytest.mark.slow
def test_a_result_depends_on_nothing_but_the_problem():
    def run(**how):
        over = {"step_size": [0.5, 2.0], "scale_z": [1.0, 0.5]}
        return gs.sweep(data(), 200, over=over, keep="logits", **RUN | how)

    one = run(batch_size=64)
    assert one["error_mean"].shape == (2, 2, 5)
    for how in (
        {"devices": jax.local_devices()},
        {"devices": jax.local_devices()[1:], "batch_size": 10_000},
        {"memory": 1e7, "batch_size": 130},
    ):
        other = run(**how)
        assert same(one, other)
        for step_size, scale in ((0.5, 0.5), (2.0, 1.0)):
            chosen = {"step_size": step_size, "scale_z": scale}
            assert np.array_equal(one.logits(**chosen), other.logits(**chosen))
            assert np.array_equal(one.final(**chosen).w, other.final(**chosen).w)


@pytest.mark.slow
def test_the_network_of_a_seed_depends_on_nothing_else():
    all_seeds = gs.sweep(data(), 150, key=3, keep="logits", **RUN)
    some = gs.sweep(data(), range(70, 140), over={"momentum": [0.9, 0.0]}, key=3, keep="logits", **RUN)
    assert np.array_equal(all_seeds.logits()[70:140], some.logits(momentum=0.0))
    expected = gs.init_two_layer(jax.random.key(3), 150, 3, 2, 0.7)
    assert np.array_equal(all_seeds.network([0, 149]).w, expected.w[jnp.array([0, 149])])
    assert np.array_equal(some.network(77, momentum=0.9).z, expected.z[77])
    assert all_seeds.network(0).batch_shape == ()
    again = some.trajectory([71, 139], momentum=0.0)
    assert np.allclose(again.logits(), all_seeds.logits()[[71, 139]], atol=1e-5)
    assert some.trajectory(71, momentum=0.9).logits().shape == (5, 2)
    for seed in (150, -1, 0.5, [0, 200]):
        with pytest.raises(ValueError, match=r"seed must be among 0\.\.149"):
            all_seeds.network(seed)


@pytest.mark.slow
def test_stochastic_descent_draws_as_simulate_does(x64):
    key = jax.random.key(1)
    dynamics = gs.StochasticGradientDescent(0.5)
    result = gs.sweep(data(), 150, dynamics=dynamics, key=key, keep="final", **RUN)
    networks = gs.init_two_layer(key, 150, 3, 2, 0.7)
    draws = jax.random.fold_in(key, 2**32 - 1)
    run = gs.simulate(data(), networks, "cross-entropy", dynamics, 40, record_every=10, key=draws, engine="reference")
    assert np.allclose(result.logits()[:, 0], run.logits(40), atol=1e-12)
    assert np.allclose(result["loss_mean"], run.loss().mean(0), atol=1e-12)
    assert np.allclose(result.trajectory([3, 66]).logits(), run.logits()[jnp.array([3, 66])], atol=1e-9)


@pytest.mark.slow
def test_data_are_trained_on_in_their_span(x64):
    """Repeated points, and fewer dimensions than given; weight decay moves what lies off the span."""
    points = [[3.0, 4.0, 0, 0], [-1.0, 2.0, 0, 0], [3.0, 4.0, 0, 0]]
    repeated = gs.Dataset(points, [1, -1, 1], [0.5, 0.3, 0.2])
    dynamics = gs.GradientDescent(0.05, momentum=0.5, weight_decay=0.1)
    result = gs.sweep(repeated, 70, dynamics=dynamics, keep="logits", **RUN)
    run = gs.simulate(
        repeated,
        gs.init_two_layer(jax.random.key(0), 70, 3, 4, 0.7),
        "cross-entropy",
        dynamics,
        40,
        record_every=10,
        engine="reference",
    )
    assert np.allclose(result.logits(), run.logits(), atol=1e-11)
    assert np.allclose(result["margin_variance"], np.var(run.margins(), axis=0), atol=1e-11)
    assert result["margin_histogram"].shape == (5, 3, 512)
    assert np.allclose(result.final().w, run.final.w, atol=1e-11)


def test_networks_that_diverge_are_counted_and_named():
    over = {"step_size": [0.02, 2.0]}
    with pytest.warns(UserWarning, match=r"of 300 networks diverged .* of step_size = 2.0; see .diverged_seeds"):
        result = gs.sweep(data(), 150, over=over, loss="squared", keep="logits", **RUN)
    finite = np.isfinite(result.logits(step_size=2.0)).all((1, 2))
    assert 0 < finite.sum() < 150, "a case that can tell something"
    assert result["diverged"].tolist() == [0, 150 - finite.sum()]
    assert result.diverged_seeds(step_size=2.0).tolist() == np.flatnonzero(~finite)[:20].tolist()
    assert result.diverged_seeds(step_size=0.02).size == 0
    margins = result.logits(step_size=2.0)[finite].astype(np.float64) * [1, -1]
    assert np.allclose(result["margin_mean"][1], margins.mean(0), rtol=1e-4, atol=1e-5)
    assert np.allclose(result["margin_variance"][1], margins.var(0), rtol=1e-3)
    assert (result["margin_histogram"].sum(-1)[1] == finite.sum()).all()
    total = result["first_learnt"].sum(-1) + result["never_learnt"]
    assert total.tolist() == [150, 150]


def test_every_network_may_diverge():
    with pytest.warns(UserWarning, match="80 of 80 networks"):
        result = gs.sweep(data(), 80, dynamics=gs.GradientDescent(100.0), loss="squared", **RUN)
    assert np.isnan(result["error_mean"]).all()
    assert np.isnan(result.quantile("error", 0.5)).all()
    assert result["learnt"].max() == 0
    assert np.isinf(result.time_to_learn())
    assert "never" in result.table()


def test_sweeping_data_and_settings():
    def make(frequency, norm):
        return gs.datasets.antipodal(norms=(1.0, norm), frequencies=(frequency, 1 - frequency))

    over = {"frequency": [0.5, 0.9], "width": [2, 3], "norm": [1.0, 2.0]}
    options = {name: value for name, value in RUN.items() if name != "width"}
    result = gs.sweep(make, 20, over=over, dynamics=gs.GradientDescent(0.5, momentum=0.5), **options)
    assert result.shape == (2, 2, 2)
    one = gs.sweep(make(0.9, 2.0), 20, width=3, dynamics=gs.GradientDescent(0.5, momentum=0.5), **options)
    for name in one.statistics:
        assert np.array_equal(result[name][1, 1, 1], one[name]), name
    chosen = {"frequency": 0.9, "width": 3, "norm": 2.0}
    assert result.network(4, **chosen).width == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {"stepsize": [1]}}, "'stepsize', which is no setting of this sweep"),
        ({"over": {"step_size": []}}, "non-empty list"),
        ({"over": {"step_size": 0.1}}, "non-empty list of values, got 0.1"),
        ({"over": {"loss": "hinge"}}, "non-empty list"),
        ({"over": {"width": [2, 2]}}, "more than once"),
        ({"over": {"width": [2.5]}}, "width must be an integer"),
        ({"over": {"point": [1]}}, "another name"),
        ({"over": [1]}, "dictionary"),
        ({"over": {"step_size": [-1.0]}}, "step_size must be > 0"),
        ({"dynamics": gs.GradientFlow()}, "got GradientFlow"),
        ({"dynamics": lambda k: 0.1}, "for that schedule give GradientDescent"),
        ({"dynamics": gs.GradientDescent}, "dynamics is the class GradientDescent; give an instance"),
        ({"dynamics": gs.GradientDescent([0.1, 0.2])}, 'over={"step_size"'),
        ({"loss": "huber"}, "unknown loss"),
        ({"seeds": 0}, "seeds must be an integer >= 1"),
        ({"seeds": range(0, 10, 2)}, "with step 1"),
        ({"seeds": range(0, 2**32)}, "within"),
        ({"data": 3}, "data must be a Dataset"),
        ({"keep": "all"}, "'statistics', 'final', 'logits'"),
        ({"threshold": 0}, "threshold must be a number above 0"),
        ({"memory": 1000}, "give memory="),
        ({"memory": float("inf")}, "memory must be a number above 0 and finite, got inf"),
        ({"memory": 10**400}, "memory must be a number above 0 and finite"),
        ({"threshold": float("nan")}, "threshold must be a number above 0 and at most 1, got nan"),
        ({"over": {"step_size": [[0.1, 0.2], [0.3, 0.4]]}}, r"step_size'\] must be a list of numbers, got \[0.1, 0.2\]"),
        ({"over": {"step_size": np.full((2, 2), 0.1)}}, "must be a list of numbers"),
        ({"seeds": 1.5}, "seeds must be an integer >= 1, got 1.5"),
        ({"seeds": 10**6, "keep": "logits", "memory": 3e7}, "directory="),
        ({"key": "x"}, "one JAX key"),
        ({"devices": []}, "jax.local_devices"),
        ({"scale_w": -1.0}, "scale_w must be one number >= 0"),
        ({"engine": "warp"}, "engine must be one of"),
        ({"record_every": 0}, "record_every must be"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    good = {"data": data(), "seeds": 4} | RUN
    with pytest.raises(ValueError, match=message):
        gs.sweep(**good | arguments)


def test_data_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="same number of points"):
        gs.sweep(lambda n: gs.Dataset(np.eye(n).tolist(), np.ones(n).tolist()), 4, over={"n": [2, 3]}, **RUN)


def test_what_was_not_swept_or_kept_is_said():
    result = gs.sweep(data(), 4, over={"step_size": [0.1, 0.2]}, **RUN | {"steps": 45})
    assert result.grid.tolist() == [0, 10, 20, 30, 40, 45]
    assert result["loss_mean"].shape == (2, 6)
    for call, message in (
        (lambda: result.network(0), "which step_size"),
        (lambda: result.network(0, step_size=0.3), "there are 0.1, 0.2"),
        (lambda: result.network(0, width=3), "width was not swept"),
        (lambda: result.final(step_size=0.1), 'keep="final"'),
        (lambda: result.quantile("loss", 0.5), "'error', 'margin'"),
        (lambda: result.quantile("error", 2), r"in \[0, 1\]"),
        (lambda: result.quantile("error", np.array([True, False])), r"levels must be numbers .*, got \[True, False\]"),
        (lambda: result.time_to_learn(of="points"), "'point'"),
        (lambda: result.time_to_learn(0), "level must be"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    with pytest.raises(KeyError, match="no statistic 'mean'; there are error_mean"):
        result["mean"]


def test_xarray_has_named_axes(monkeypatch):
    xarray = pytest.importorskip("xarray")
    result = gs.sweep(data(), 6, over={"step_size": [0.1, 0.2], "loss": ["hinge", "squared"]}, **RUN)
    found = result.to_xarray()
    assert isinstance(found, xarray.Dataset)
    one = found["margin_quantile"].sel(step_size=0.2, loss="squared", step=20, point=1, quantile=0.5)
    assert float(one) == result.quantile("margin", 0.5)[1, 1, 2, 1]
    assert found["error_histogram"].dims == ("step_size", "loss", "step", "error_bin")
    assert found["never_learnt_point"].dims == ("step_size", "loss", "point")
    assert found["diverged"].dims == ("step_size", "loss")
    assert set(result.statistics) < set(found)
    assert found.attrs["width"] == 3
    monkeypatch.setitem(__import__("sys").modules, "xarray", None)
    with pytest.raises(ImportError, match=r"gradstarve\[sweep\]"):
        result.to_xarray()


def test_table_has_a_row_per_configuration():
    lines = gs.sweep(data(), 6, over={"step_size": [0.1, 5.0], "loss": ["hinge"]}, **RUN).table().splitlines()
    assert lines[0].split()[:4] == ["step_size", "loss", "networks", "diverged"]
    assert [line.split()[:3] for line in lines[2:]] == [["0.1", "hinge", "6"], ["5.0", "hinge", "6"]]


def test_progress_counts_networks(capfd):
    seen = []
    gs.sweep(data(), 150, progress=lambda done, total: seen.append((done, total)), **RUN)
    assert seen[-1] == (150, 150)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len(seen) >= 4
    gs.sweep(data(), 150, progress=True, **RUN)
    shown = capfd.readouterr().err
    assert "sweeping" in shown
    assert "networks/s" in shown


def test_figure_shows_every_configuration(tmp_path):
    result = gs.sweep(data(), 20, over={"step_size": [0.1, 5.0], "loss": ["hinge"]}, **RUN)
    figure = result.plot(path=tmp_path / "sweep.png")
    left, right = figure.axes
    assert [line.get_label() for line in right.lines] == ["step_size = 0.1, loss = hinge", "step_size = 5, loss = hinge"]
    assert np.allclose(right.lines[1].get_ydata(), 100 * result["learnt"][1, 0])
    assert np.allclose(left.lines[0].get_ydata(), result.quantile("error", 0.5)[0, 0])
    assert (tmp_path / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert len(result.plot(configurations=[1]).axes[1].lines) == 1
    with pytest.raises(ValueError, match=r"some of 0\.\.1, got \[2\]"):
        result.plot(configurations=[2])


def test_plans_fit_the_problem_and_the_memory():
    def plan(seeds, platform="cpu", points=2, keep="statistics"):
        given = gs.Dataset(np.ones((points, 2), np.float32), [1.0] * points)
        base = {"width": 8, "scale_w": 1.0, "scale_z": 1.0, "loss": "hinge", "dynamics": gs.StochasticGradientDescent(0.1)}
        _, found = sweep_plan.configurations(given, None, base)
        size = block_size(found[0], 41, seeds, platform)
        (blocks,) = sweep_plan.blocks_of(seeds, [size])
        assert sum(block.count for block in blocks) == seeds
        assert [block.first for block in blocks] == list(range(0, seeds, size))
        return size, len(blocks), sweep_plan.cost(found, [size], 41, seeds, keep)

    assert plan(10**6)[:2] == (2560, 391)
    assert plan(10**4)[0] == 2560
    assert plan(5)[:2] == (5, 1)
    # Many points: a smaller block, which takes no more than it may.
    size, _, cost = plan(10**4, points=200)
    assert size < 1000
    assert cost.block < 1.5 * sweep_plan.BLOCKS["cpu"][1]
    one = jax.local_devices()[0]
    assert sweep_plan.workers(cost, [one], 1e9, True, 10**4) == sweep_plan.cores()
    assert sweep_plan.workers(cost, [one], cost.result + 1.5 * cost.block, True, 10**4) == 1
    with pytest.raises(ValueError, match="too little"):
        sweep_plan.workers(cost, [one], cost.result + 0.9 * cost.block, True, 10**4)
    # The memory of another device is its own.
    device = SimpleNamespace(platform="gpu")
    size, _, cost = plan(10**7, "gpu")
    assert size > 4096
    assert sweep_plan.workers(cost, [device], 1e9, True, 10**7) == 2


def test_shares_are_compared_as_the_decimals_that_they_are_written_as():
    """In floats 0.07 * 100 is above 7, which made the network one too many."""
    found = gs.sweep(data(), 100, **RUN | {"steps": 6, "record_every": 1})
    order = np.zeros(found["first_learnt"].shape, int)
    counts = {0.07: 7, 0.14: 14, 0.28: 28, 0.56: 56, 0.29: 29, 0.57: 57, 0.58: 58, 1.0: 100, 0.001: 1, np.float32(0.07): 7}
    for level, wanted in counts.items():
        for learnt in (wanted - 1, wanted):
            order[:] = 0
            order[2], order[4] = learnt, 100 - learnt
            made = dataclasses.replace(found, statistics=found.statistics | {"first_learnt": order})
            assert made.time_to_learn(level) == (2 if learnt == wanted else 4), (level, learnt)
    for level in (0, 1.1, float("nan"), "half", True, None):
        with pytest.raises(ValueError, match="level must"):
            found.time_to_learn(level)


@pytest.mark.slow
def test_a_sweep_over_the_values_of_a_loss():
    losses = ["cross-entropy", *(SpectralDecoupling("cross-entropy", value) for value in (0.1, 1.0))]
    settings = RUN | {"steps": 400, "record_every": 200}
    found = gs.sweep(data(), 40, over={"loss": losses}, **settings)
    told = [f"cross-entropy + spectral decoupling (penalty = {value})" for value in ("0.1", "1")]
    assert found.to_xarray()["loss"].values.tolist() == ["cross-entropy", *told]
    assert all(text in found.table() for text in told)
    assert [entry["loss"] for entry in found.summary()] == ["cross-entropy", *told]
    alone = gs.sweep(data(), 40, loss=losses[2], **settings)
    assert np.array_equal(alone["error_mean"], found["error_mean"][2])
    assert [found.configuration(loss=loss) for loss in losses] == [0, 1, 2]
    assert found.configuration(loss=told[1]) == 2
    assert found.configuration(loss=SpectralDecoupling("cross-entropy", 0.1)) == 1
    assert found.configuration(loss=as_loss("cross-entropy")) == 0
    with pytest.raises(ValueError, match="was not swept; there are cross-entropy, "):
        found.configuration(loss=SpectralDecoupling("cross-entropy", 0.2))
    assert found["error_mean"][1, -1] < found["error_mean"][2, -1]
    twice = [SpectralDecoupling("hinge", 0.1) for _ in range(2)]
    with pytest.raises(ValueError, match="more than once"):
        gs.sweep(data(), 4, over={"loss": twice}, **settings)


def test_labels_tell_objects_apart():
    def penalised(*values, **how):
        return SpectralDecoupling("hinge", np.asarray(values, np.float32), **how)

    name = "hinge + spectral decoupling"
    near = [SpectralDecoupling("hinge", 0.1), SpectralDecoupling("hinge", 0.10001)]
    told = sweep_plan.labels("loss", near)
    assert told[0].startswith(f"{name} (penalty = 0.1000")
    assert len(set(told)) == 2
    assert sweep_plan.labels("loss", [penalised(*range(20)), penalised(*range(1, 21))]) == [f"{name} (1)", f"{name} (2)"]
    assert sweep_plan.labels("step_size", list(np.linspace(0.5, 1, 2, dtype=np.float32))) == [0.5, 1.0]
    assert sweep_plan.labels("step_size", list(jax.numpy.array([0.5, 1.0]))) == [0.5, 1.0]


def test_the_usual_threshold_can_be_reached():
    how = {"steps": 3000, "width": 3, "engine": "reference", "devices": RUN["devices"]}
    found = gs.sweep(data(), 20, over={"loss": ["hinge", "squared"]}, **how)
    assert found.threshold == 0.3
    assert found.note == "hinge and squared stop pushing at an error of 0.269, so the threshold is 0.3 in place of 0.01"
    assert found.table().endswith(found.note)
    assert (found["learnt"][:, -1] > 0.2).all()
    # The squared loss ends at the error that `error_floor` tells; a last step of the hinge loss leads beyond it.
    assert found["error_min"][1, -1] == pytest.approx(1 / (1 + np.e), abs=1e-5)
    assert found["error_min"][0, -1] > 0.15


def test_the_error_at_which_a_loss_stops():
    class Strange(Loss):
        name = "strange"

        def residual(self, margin):
            raise TypeError("one margin at a time")

    root = scipy.optimize.brentq(lambda m: scipy.special.expit(-m) - 0.1 * m, 0, 5)
    pulled = scipy.optimize.brentq(lambda m: scipy.special.expit(-m) - 2 * (m + 3), -5, 5)
    for loss, floor in (
        ("cross-entropy", 0),
        ("exponential", 0),
        ("hinge", scipy.special.expit(-1)),
        ("squared", scipy.special.expit(-1)),
        (SpectralDecoupling("cross-entropy", 0.1), scipy.special.expit(-root)),
        (SpectralDecoupling("cross-entropy", [0.1, 0.0]), 0.8 * scipy.special.expit(-root)),
        (SpectralDecoupling("cross-entropy", 2.0, target=-3.0), scipy.special.expit(-pulled)),
        (Strange(), 0),
    ):
        assert abs(error_floor(as_loss(loss), data()) - floor) < 1e-6
    assert [default_threshold([floor]) for floor in (0.0, 0.004, 0.1631, 0.2689, 0.5)] == [0.01, 0.01, 0.21, 0.3, 0.01]
    assert note({"a": 0.0}, 0.01, True) == note({"a": 0.0}, 0.3, False) == ""
    assert note({"a": 0.7, "b": 0.0}, 0.3, False) == "a stops pushing at an error of 0.7, above the threshold of 0.3"


def test_a_threshold_that_cannot_be_reached_is_told():
    found = gs.sweep(data(), 4, over={"loss": ["hinge", "exponential"]}, **RUN | {"threshold": 0.01})
    assert found.note == (
        "hinge stops pushing at an error of 0.269, above the threshold of 0.01; give a threshold above 0.269"
    )
    assert found.note in found.table()


def test_whole_numbers_count_whatever_their_type():
    found = gs.sweep(data(), 1e1, steps=4.0, record_every=np.float32(2), width=np.array(3), engine="reference")
    assert found.seeds == range(10)
    assert found.grid.tolist() == [0, 2, 4]
    assert found.configurations[0].width == 3


@pytest.mark.slow
def test_other_dynamics_are_swept_as_they_are_simulated(tmp_path):
    """A schedule, steps of one length and batches of points: the sweep's networks are those of `simulate`."""
    data = gs.datasets.antipodal(3, frequencies=(0.3, 0.7), key=jax.random.key(0))
    cases = (
        (gs.GradientDescent(lambda k: 0.5 / (1 + 0.1 * k)), None),
        (gs.NormalizedGradientDescent(0.05), {"step_size": [0.02, 0.05]}),
        (gs.SharpnessAware(0.2, 0.1), {"radius": [0.0, 0.1]}),
        (gs.StochasticGradientDescent(0.3, batch_size=4), {"batch_size": [2, 4]}),
    )
    for number, (dynamics, over) in enumerate(cases):
        settings = {"steps": 30, "dynamics": dynamics, "over": over, "keep": "final", "key": 3}
        settings["directory"] = tmp_path / str(number)
        result = gs.sweep(data, 5, **settings)
        place = {} if over is None else {name: values[-1] for name, values in over.items()}
        run = result.trajectory([1, 3], **place)
        np.testing.assert_allclose(result.final(**place).w[jnp.array([1, 3])], run.final.w, atol=1e-5)
        if "batch_size" not in place:
            again = gs.simulate(data, result.network([1, 3], **place), "cross-entropy", dynamics, 30)
            np.testing.assert_allclose(again.final.w, run.final.w, atol=1e-5)
        assert gs.sweep(data, 5, **settings).final(**place).w.shape == (5, 8, 3)
    other = gs.GradientDescent(lambda k: 0.5)
    with pytest.raises(ValueError, match="begun with other settings"):
        gs.sweep(data, 5, steps=30, dynamics=other, keep="final", key=3, directory=tmp_path / "0")
