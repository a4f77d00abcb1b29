"""What may be swept, what may be measured, and what becomes of the numbers: axes, own statistics, merging, tables."""

import csv
import pickle
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sweeps import HERE, blocks_of_64  # noqa: F401

import gradstarve as gs
from gradstarve.problem import Network, SpectralDecoupling


def data(frequency=0.8):
    return gs.datasets.antipodal(frequencies=(frequency, 1 - frequency))


def run(seeds=70, given=None, **how):
    return gs.sweep(data() if given is None else given, seeds, **HERE | how)


def assert_equal(one, other, place=()):
    for name in other.statistics:
        np.testing.assert_array_equal(one[name][place], other[name], err_msg=name)


# Axes.


@pytest.mark.slow
def test_functions_of_swept_values_make_every_part(tmp_path):
    over = {"penalty": [0.1, 1.0], "frequency": [0.5, 0.8], "rate": [0.1, 0.3]}
    given = {
        "given": data,
        "loss": lambda penalty: SpectralDecoupling("cross-entropy", penalty),
        "dynamics": lambda rate: gs.GradientDescent(rate, momentum=0.5),
    }
    result = run(over=over, directory=tmp_path, **given)
    loss, dynamics = SpectralDecoupling("cross-entropy", 1.0), gs.GradientDescent(0.3, momentum=0.5)
    assert_equal(result, run(given=data(0.5), loss=loss, dynamics=dynamics), (1, 0, 1))
    assert result.configuration(penalty=1.0, frequency=0.5, rate=0.3) == 5
    again = gs.open_sweep(tmp_path)
    assert_equal(again, result)
    assert again.over == over
    curves = [one.trajectory(3, penalty=1.0, frequency=0.5, rate=0.3).logits() for one in (again, result)]
    np.testing.assert_array_equal(*curves)


@pytest.mark.slow
def test_parts_are_swept_by_value():
    over = {"data": [data(0.8), data(0.5)], "dynamics": [gs.GradientDescent(0.3), gs.NormalizedGradientDescent(0.05)]}
    result = run(given=data(), over=over)
    assert result.shape == (2, 2)
    assert_equal(result, run(given=data(0.5), dynamics=gs.NormalizedGradientDescent(0.05)), (1, 1))
    assert result.configuration(data=over["data"][1], dynamics=over["dynamics"][0]) == 2
    assert [entry["data"] for entry in result.summary()] == ["data (1)", "data (1)", "data (2)", "data (2)"]


def test_settings_are_swept_in_pairs(tmp_path):
    pytest.importorskip("xarray")
    over = {("scale_z", "scale_w"): [(2.0, 0.7), (1.0, 0.7), (1.0, 0.5)], "step_size": [0.1, 0.3]}
    result = run(over=over, directory=tmp_path)
    assert result.shape == (3, 2)
    assert result.names == ["scale_z", "scale_w", "step_size"]
    assert_equal(result, run(scale_z=1.0, scale_w=0.5, over={"step_size": [0.1, 0.3]}), 2)
    chosen = {"scale_z": 1.0, "scale_w": 0.5, "step_size": 0.3}
    assert result.configuration(**chosen) == 5
    assert result.configuration(scale_z=2.0, step_size=0.3) == 1
    assert [row.split()[:3] for row in result.table().splitlines()[2:4]] == [["2.0", "0.7", "0.1"], ["2.0", "0.7", "0.3"]]
    for chosen, message in (
        ({"scale_z": 1.0}, "which scale_w.*one of 0.7, 0.5"),
        ({"scale_z": 2.0, "scale_w": 0.5}, "no scale_z, scale_w is swept together so; there are 2.0, 0.7; 1.0, 0.7; "),
        ({"scale_z": 4.0}, "scale_z = 4.0 was not swept; there are 2.0, 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            result.configuration(step_size=0.1, **chosen)
    again = gs.open_sweep(tmp_path)
    assert again.over == over
    assert_equal(again, result)
    found = result.to_xarray()
    assert found["error_mean"].dims == ("scale_z_and_scale_w", "step_size", "step")
    assert found["scale_w"].values.tolist() == [0.7, 0.7, 0.5]
    for bad, message in (
        ({("width", "scale_w"): [(2, 0.7), (2, 0.7)]}, "more than once"),
        ({("width", "scale_w"): [(2, 0.7, 3)]}, "list of tuples of 2 values"),
        ({("width", "scale_w"): [2, 3]}, "list of tuples of 2 values"),
        ({("width", "step_size"): [(2, 0.1)], "step_size": [0.1]}, "'step_size' more than once"),
        ({(): [1]}, "give a name"),
        ({3: [1]}, "give a name"),
    ):
        with pytest.raises(ValueError, match=message):
            run(over=bad)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"over": {"penalty": [1]}, "loss": lambda rate: "hinge"}, "'penalty', which is no setting of this sweep"),
        ({"loss": lambda penalty: "hinge"}, "unknown loss"),
        ({"over": {"penalty": [1]}, "loss": lambda penalty: penalty}, "unknown loss"),
        ({"over": {"rate": [1]}, "dynamics": lambda rate: rate}, "dynamics must be"),
        ({"network": 3}, "network must be a function"),
        ({"network": lambda key: key}, "network must make a Network"),
        ({"network": lambda: 3}, "network must be a function that makes one network from a key; it raised TypeError"),
        ({"network": lambda key: gs.init_two_layer(key, 2, 3, 2)}, r"batch shape \(2,\)"),
        ({"network": lambda key: gs.init_two_layer(key, (), 3, 5)}, "d = 5"),
        ({"network": lambda key: gs.init_two_layer(key, (), 3, 2), "engine": "fused"}, "networks of your own; use engine"),
        ({"dynamics": optax.sgd(0.1), "engine": "fused"}, "those of optax; use engine"),
    ],
)
def test_bad_parts_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        run(4, **arguments)


# Optimisers of optax, and networks of one's own.


@pytest.mark.slow
def test_optax_is_swept_as_it_is_simulated(tmp_path):
    over = {"rate": [0.01, 0.1]}
    result = run(dynamics=lambda rate: optax.adam(rate), over=over, keep="final", directory=tmp_path)
    networks = gs.init_two_layer(jax.random.key(0), 70, 3, 2, 0.7)
    known = gs.simulate(data(), networks, "cross-entropy", optax.adam(0.1), 40, record_every=10, engine="reference")
    np.testing.assert_allclose(result["error_mean"][1], np.asarray(known.error()).mean(0), atol=1e-6)
    np.testing.assert_allclose(result.final(rate=0.1).w, known.final.w, atol=1e-5)
    again = gs.open_sweep(tmp_path)
    assert_equal(again, result)
    for stored in (again, pickle.loads(pickle.dumps(result))):
        with pytest.raises(ValueError, match="does not hold the dynamics"):
            stored.trajectory(1, rate=0.1)
    with pytest.raises(ValueError, match=r"begun with other settings: configurations\.\d\.dynamics"):
        run(dynamics=lambda rate: optax.adam(rate, b1=0.5), over=over, keep="final", directory=tmp_path)


class Tanh(Network):
    """f(x) = z . tanh(W x)."""

    w: jax.Array
    z: jax.Array
    power: Callable = eqx.field(static=True)

    @property
    def batch_shape(self):
        return self.z.shape[:-1]

    @property
    def dim(self):
        return self.w.shape[-1]

    def __call__(self, points):
        return jnp.einsum("...h,...hn->...n", self.z, self.power(jnp.einsum("...hd,nd->...hn", self.w, points)))


def uniform(key, width=3):
    first, second = jax.random.split(key)
    return Tanh(jax.random.uniform(first, (width, 2), minval=-1), jax.random.uniform(second, (width,), minval=-1), jnp.tanh)


@pytest.mark.slow
def test_own_networks_are_swept_as_they_are_simulated(tmp_path):
    how = {"network": uniform, "dynamics": gs.GradientDescent(0.3), "keep": "final", "directory": tmp_path, "key": 2}
    result = run(over={"width": [2, 3]}, **how)
    keys = jax.vmap(lambda seed: jax.random.fold_in(jax.random.key(2), seed))(jnp.arange(70))
    networks = jax.vmap(uniform)(keys)
    np.testing.assert_array_equal(result.network(range(70), width=3).w, networks.w)
    known = gs.simulate(data(), networks, "cross-entropy", gs.GradientDescent(0.3), 40, record_every=10)
    np.testing.assert_allclose(result["error_mean"][1], np.asarray(known.error()).mean(0), atol=1e-6)
    final = result.final(width=3)
    assert type(final) is Tanh
    np.testing.assert_allclose(final.w, known.final.w, atol=1e-5)
    np.testing.assert_allclose(result.trajectory(5, width=3).logits(), known.logits()[5], atol=1e-5)
    again = gs.open_sweep(tmp_path)
    assert_equal(again, result)
    with pytest.raises(ValueError, match="does not hold the network"):
        again.network(3, width=2)


# Own statistics.


def test_own_statistics_are_those_of_the_curves(tmp_path):
    """Against NumPy on the runs of `simulate`; a mean, a count, an array, and what needs the networks."""
    own = {
        "worst": lambda curve: curve.error().max(),
        "falls": (lambda curve: (jnp.diff(curve.loss()) < 0).sum(), "sum"),
        "peak": (lambda curve: jnp.abs(curve.margins()).max(0), "max"),
        "moved": lambda curve: jnp.abs(curve.final.w - curve.initial.w).max(),
        "ever": (lambda curve: (curve.mistakes() == 0).any(), "sum"),
    }
    over = {"step_size": [0.1, 0.5]}
    result = run(130, over=over, statistics=own, directory=tmp_path)
    known = result.trajectory(range(130), step_size=0.5)
    errors, losses, margins = (np.asarray(getattr(known, name)()) for name in ("error", "loss", "margins"))
    moved = np.abs(np.asarray(known.final.w) - np.asarray(known.initial.w)).max((1, 2))
    np.testing.assert_allclose(result["worst_mean"][1], errors.max(1).mean(), rtol=1e-5)
    np.testing.assert_allclose(result["worst_variance"][1], errors.max(1).var(), rtol=1e-4)
    np.testing.assert_allclose(result["worst_min"][1], errors.max(1).min(), rtol=1e-5)
    np.testing.assert_allclose(result["peak"][1], np.abs(margins).max((0, 1)), rtol=1e-5)
    np.testing.assert_allclose(result["moved_max"][1], moved.max(), rtol=1e-4)
    assert result["falls"][1] == (np.diff(losses) < 0).sum()
    assert result["ever"][1] == (np.asarray(known.mistakes()) == 0).any(1).sum()
    assert result["peak"].shape == (2, 2)
    assert result["falls"].dtype.kind == "i"
    # The others are as they are without; a directory, other chunks and another task change nothing.
    assert_equal(result, run(130, over={"step_size": [0.5]}), np.s_[1:])
    assert_equal(gs.open_sweep(tmp_path), result)
    assert_equal(run(130, over=over, statistics=own, batch_size=64), result)
    with pytest.warns(UserWarning, match=r"do not hold .*statistics\.worst: only there"):
        run(130, over=over, statistics={}, directory=tmp_path)


@pytest.mark.slow
def test_own_statistics_of_phases_and_of_networks_that_diverge():
    flipped = gs.Dataset(data().points, -data().labels, data().weights)
    own = {"turn": lambda curve: curve.error()[curve.grid.tolist().index(20) + 1], "count": (lambda curve: 1, "sum")}
    result = run(given=[(20, data()), (None, flipped)], statistics=own)
    np.testing.assert_allclose(result["turn_mean"], result["error_mean"][result.grid.tolist().index(30)], rtol=1e-5)
    assert result["count"] == 70
    own |= {"turn": lambda curve: curve.loss()[-1]}
    with pytest.warns(UserWarning, match="diverged"):
        result = run(loss="squared", dynamics=gs.GradientDescent(2.0), statistics=own)
    assert 0 < result["count"] == 70 - result["diverged"]
    np.testing.assert_allclose(result["turn_mean"], result["loss_mean"][-1], rtol=1e-4)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ([1], "must be a dictionary"),
        ({"error_mean": max}, "has the name 'error_mean'"),
        ({"a b": max}, "has the name 'a b'"),
        ({"x": 3}, r"statistics\['x'\] must be a function"),
        ({"x": (max, "median")}, "a reduction of 'moments', 'sum', 'min', 'max'"),
        ({"x": lambda curve: curve.nothing}, r"statistics\['x'\] takes the curve .*AttributeError"),
        ({"x": lambda curve: "words"}, r"statistics\['x'\] takes the curve .* returns numbers; TypeError"),
    ],
)
def test_bad_statistics_are_named(statistics, message):
    with pytest.raises(ValueError, match=message):
        run(4, statistics=statistics)


# Merging.


def test_merged_seeds_are_one_sweep():
    how = {"over": {"step_size": [0.1, 0.5]}, "keep": "final", "statistics": {"worst": lambda curve: curve.error().max()}}
    whole = run(200, **how)
    parts = [run(range(*ends), **how) for ends in ((0, 64), (128, 200), (64, 128))]
    merged = parts[0].merge(parts[2], parts[1])
    assert_equal(merged, whole)
    assert merged.seeds == range(200)
    assert merged.table() == whole.table()
    np.testing.assert_array_equal(merged.final(step_size=0.5).w, whole.final(step_size=0.5).w)
    with pytest.raises(ValueError, match=r"seeds 0\.\.63 and 128\.\.199 leave a hole"):
        parts[0].merge(parts[1])
    with pytest.raises(ValueError, match=r"seeds 0\.\.63 and 0\.\.63 overlap"):
        parts[0].merge(parts[0])
    # Where blocks do not coincide, to rounding.
    uneven = run(range(50), **how).merge(run(range(50, 200), **how))
    for name in whole.statistics:
        np.testing.assert_allclose(uneven[name], whole[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_merged_values_are_one_sweep():
    how = {"over": {"step_size": [0.1, 0.5], "width": [2, 3]}, "keep": "final"}
    whole = run(**how)
    parts = [run(**how | {"over": {"step_size": [0.1, 0.5], "width": [width]}}) for width in (2, 3)]
    merged = parts[0].merge(parts[1])
    assert merged.over == whole.over
    assert_equal(merged, whole)
    assert merged.table() == whole.table()
    for width in (2, 3):
        np.testing.assert_array_equal(merged.final(step_size=0.5, width=width).w, whole.final(step_size=0.5, width=width).w)
    for other, message in (
        (whole, "'?width'?.*more than once"),
        (run(**how | {"over": {"step_size": [0.2], "width": [3]}}), "merge along one axis"),
        (run(60, **how | {"over": {"step_size": [0.1, 0.5], "width": [3]}}), "other values of 'width' and other seeds"),
        (run(**how | {"over": {"step_size": [0.1, 0.5]}}), "is swept in the first sweep"),
        (run(**how | {"threshold": 0.2}), "threshold is 0.3 in the first sweep and 0.2 in another"),
        (run(**how | {"steps": 30}), "steps are recorded"),
        (run(**how | {"key": 1}), "key is another one"),
        (run(range(70, 80), **how | {"loss": "hinge"}).merge(), "differ in loss"),
        (3, "merge takes results of sweeps, got 3"),
    ):
        with pytest.raises(ValueError, match=message):
            (whole if "differ" in message else parts[0]).merge(other)


# Tables.


def test_tables_hold_every_number(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    over = {"step_size": [0.1, 0.5], ("width", "scale_w"): [(3, 0.5), (3, 0.7)]}
    result = run(over=over, statistics={"worst": lambda curve: curve.error().max()})
    curve = result.to_pandas()
    assert curve.index.names == ["step_size", "width", "scale_w", "step"]
    assert curve.loc[(0.5, 3, 0.7, 20), "error_mean"] == result["error_mean"][1, 1, 2]
    assert curve.loc[(0.5, 3, 0.5, 40), "first_learnt"] == result["first_learnt"][1, 0, 4]
    assert curve.loc[(0.1, 3, 0.7, 10), "error_quantile_0.95"] == result.quantile("error", 0.95)[0, 1, 1]
    points = result.to_pandas("points")
    assert points.loc[(0.5, 3, 0.7, 20, 1), "margin_variance"] == result["margin_variance"][1, 1, 2, 1]
    summary = result.to_pandas("summary")
    assert summary.loc[(0.5, 3, 0.7), "worst_mean"] == result["worst_mean"][1, 1]
    assert summary["median_step"].tolist() == result.time_to_learn(0.5).ravel().tolist()
    for what, table in (("curve", curve), ("points", points), ("summary", summary)):
        path = result.to_csv(tmp_path / f"{what}.csv", what)
        head, *rows = csv.reader(path.read_text().splitlines())
        assert head == [*table.index.names, *table.columns]
        assert np.array_equal(np.array(rows, float), table.reset_index().to_numpy(float), equal_nan=True)
    # Without a swept name, and without pandas.
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    path = run(4).to_csv(tmp_path / "one.csv", "summary")
    assert len(list(csv.reader(path.read_text().splitlines()))) == 2
    with pytest.raises(ImportError, match=r"to_pandas needs pandas: pip install 'gradstarve\[sweep\]'"):
        result.to_pandas()
    with pytest.raises(ImportError, match="to_parquet needs pandas and pyarrow"):
        result.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="what must be one of"):
        result.to_csv(tmp_path / "b.csv", "all")


def test_parquet_needs_pyarrow(tmp_path, monkeypatch):
    pandas = pytest.importorskip("pandas")
    result = run(4)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(ImportError, match="to_parquet needs pyarrow: pip install pyarrow"):
        result.to_parquet(tmp_path / "a.parquet")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    pytest.importorskip("pyarrow")
    read = pandas.read_parquet(result.to_parquet(tmp_path / "a.parquet"))
    assert read["error_mean"].tolist() == result["error_mean"].tolist()
