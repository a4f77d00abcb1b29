"""The learning-curve contract on both sides: first times against NumPy and SciPy, figures, tables and named events."""

import builtins

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.optimize import brentq

import gradstarve as gs
from gradstarve import theory
from gradstarve.problem import LearningCurve, ModeCurve, NetworkCurve

pytestmark = pytest.mark.usefixtures("x64")
LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
VALUES = {
    "cross-entropy": lambda m: np.logaddexp(0, -m),
    "hinge": lambda m: np.maximum(0, 1 - m),
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: (1 - m) ** 2 / 2,
}


def sigmoid(u):
    return 1 / (1 + np.exp(-u))


def networks(batch=3):
    return gs.init_two_layer(jax.random.key(3), (batch,), 4, 2, 0.3, 0.3)


def two_classes():
    return gs.datasets.antipodal(norms=(1.0, 1.5), frequencies=(0.7, 0.3))


def root(curve, goal, end):
    """The first time at which a falling curve is at `goal`, by bisection; inf where it is above until `end`."""
    if curve(0.0) <= goal:
        return 0.0
    return brentq(lambda t: curve(t) - goal, 0.0, end, xtol=1e-13, rtol=1e-13) if curve(end) <= goal else np.inf


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("what", ["error", "loss"])
def test_first_times_of_a_network_are_roots_of_its_curve(loss, what):
    """Against the two classes added up in NumPy, one network at a time."""
    solution, levels = gs.solve(two_classes(), networks(), loss), np.array([[0.6, 0.45], [0.36, 0.28], [0.05, 1e-3]])
    found = np.asarray(getattr(solution, f"time_to_{what}")(levels))
    assert found.shape == (3, 3, 2)

    def curve(network):
        def at(t):
            u = [float(c.logit(t)[network]) for c in (solution.plus, solution.minus)]
            phi = [sigmoid(-m) if what == "error" else VALUES[loss](m) for m in u]
            return 0.7 * phi[0] + 0.3 * phi[1]

        return at

    for network in range(2):
        expected = np.vectorize(lambda goal: root(curve(network), goal, 1e5))(levels)  # noqa: B023
        np.testing.assert_allclose(found[network], expected, rtol=1e-9, atol=1e-12)
    assert np.isfinite(found).any()


@pytest.mark.parametrize("loss", LOSSES)
def test_first_times_of_a_mode_are_in_closed_form(loss):
    """One neuron at balance, u' = 2 p r u g(u): by quadrature with SciPy, and inverted on the curve."""
    from scipy.integrate import quad

    curve = gs.solve_mode(gs.Mode(0.5, 1.2, [0.1], [0.1]), loss)
    goal = 0.3
    margin = {"cross-entropy": -np.log(np.expm1(0.3)), "hinge": 0.7, "exponential": -np.log(0.3)}
    margin["squared"] = 1 - np.sqrt(0.6)
    rate = {"cross-entropy": lambda u: sigmoid(-u), "hinge": lambda u: 1.0, "exponential": lambda u: np.exp(-u)}
    rate["squared"] = lambda u: 1 - u
    expected = quad(lambda u: 1 / (2 * 0.5 * 1.2 * u * rate[loss](u)), 0.012, margin[loss], epsabs=0, epsrel=1e-12)[0]
    assert float(curve.time_to_loss(goal)) == pytest.approx(expected, rel=1e-10)
    assert float(curve.loss(curve.time_to_loss(goal))) == pytest.approx(goal, rel=1e-10)
    assert float(curve.time_to_loss(float(curve.loss(0.0)))) == pytest.approx(0, abs=1e-10)
    never = np.isfinite(float(curve.time_to_loss(0.0)))
    assert never == (loss == "hinge")  # the only one that is at 0 in a finite time


@pytest.mark.parametrize("start", [1.5, 3.0])
def test_a_squared_loss_also_falls_from_above(start):
    """u' = 2 p r u (1 - u) from above 1 is u = 1 / (1 - (1 - 1/u0) e^(-2 p r t))."""
    a = np.sqrt(start)
    curve = gs.solve_mode(gs.Mode(0.5, 1.0, [a], [a]), "squared")
    u = 1 + np.sqrt(2 * 0.01)
    expected = np.log((1 - 1 / start) / (1 - 1 / u))
    assert float(curve.time_to_loss(0.01)) == pytest.approx(expected, rel=1e-11)
    assert float(curve.time_to_loss(10.0)) == 0
    one = theory.depth_mode(0.5, 1.0, [start], "squared")
    assert float(one.time_to_loss(0.01)) == pytest.approx(2 * np.log((start - 1) / (u - 1)), rel=1e-11)


@pytest.mark.slow
def test_the_kin_of_a_mode_keep_the_contract():
    mode = gs.Mode(0.5, 1.0, [[0.1, 0.2], [0.3, 0.1]], [[0.1, -0.1], [0.1, 0.2]])
    kin = [
        gs.solve_mode(mode, "cross-entropy"),
        gs.solve_mode(mode, "cross-entropy", gs.GradientDescent(0.1)),
        theory.depth_mode(0.5, 1.0, [[0.1, 0.2, 0.3], [0.4, 0.2, 0.3]]),
        theory.softmax_mode(0.5, 1.0, [[0.1], [0.2]], [[0.1], [0.1]], classes=3),
        theory.softmax_mode([0.5, 0.2], 1.0, classes=3),
    ]
    for curve in kin:
        assert isinstance(curve, ModeCurve)
        t = np.array([[0, 1], [5, 20], [100, 400]])
        margins = np.asarray(curve.margins(t))
        assert margins.shape == (2, 3, 2, 1)
        np.testing.assert_allclose(curve.error(t), sigmoid(-margins[..., 0]), rtol=1e-12)
        np.testing.assert_allclose(curve.loss(t), VALUES["cross-entropy"](margins[..., 0]), rtol=1e-12)
        assert curve.mistakes(t).shape == (2, 3, 2)
        assert curve.logits(t).shape[:4] == (2, 3, 2, 1)
        times = np.asarray(curve.time_to_loss([0.6, 0.5]))
        assert times.shape == (2, 2)
        if curve._unit == "time":
            for i in range(2):
                np.testing.assert_allclose(np.asarray(curve.loss(times[i]))[i], [0.6, 0.5], rtol=1e-9)
        with pytest.raises(ValueError, match="theory holds at every t"):
            curve.margins()
    softmax = kin[3]
    outputs = np.asarray(softmax.logits(2.0))[:, 0]
    np.testing.assert_allclose(np.exp(outputs)[:, 1:].sum(-1) / np.exp(outputs).sum(-1), softmax.error(2.0), rtol=1e-12)
    chances = gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), "hinge", gs.StochasticGradientDescent(0.5))
    assert float(chances.time_to_loss(0.0).mean) == float(chances.time_to_logit(1.0).mean)


@pytest.mark.parametrize("orthogonal", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_first_steps_of_descent_are_the_first_of_all(orthogonal, momentum):
    """Momentum swings: the first step that is there, and no later one."""
    data = gs.datasets.orthogonal() if orthogonal else two_classes()
    network = gs.TwoLayerReLU([[0.3, -0.1], [-0.1, 0.4]], [0.2, -0.1])
    descent = gs.GradientDescent(0.1, momentum)
    solution = gs.solve(data, network, "squared", descent)
    run = gs.simulate(data, network, "squared", descent, 300, progress=False)
    steps, levels = np.arange(301), np.array([0.45, 0.3, 0.27, 0.05, 1e-4, 1e-9])
    for what in ("error", "loss"):
        values = np.asarray(getattr(solution, what)(steps))
        first = [float(np.argmax(values <= e)) if (values <= e).any() else np.inf for e in levels]
        for curve in (solution, run):
            found = getattr(curve, f"time_to_{what}")(levels, max_steps=300)
            np.testing.assert_array_equal(found, first)
    values = np.asarray(solution.plus.loss(steps))
    first = [float(np.argmax(values <= e)) if (values <= e).any() else np.inf for e in levels]
    np.testing.assert_array_equal(solution.plus.time_to_loss(levels, max_steps=300), first)


def test_records_give_the_first_that_is_there():
    run = gs.simulate(two_classes(), networks(), "hinge", gs.GradientDescent(0.1), 60, record_every=7, progress=False)
    errors = np.asarray(run.error())
    found = np.asarray(run.time_to_error([0.4, 0.3, 0.1]))
    for i, row in enumerate(errors):
        for j, goal in enumerate((0.4, 0.3, 0.1)):
            there = np.flatnonzero(row <= goal)
            assert found[i, j] == (np.asarray(run.grid)[there[0]] if there.size else np.inf)
    assert run.time_to_loss(0.5).shape == (3,)
    np.testing.assert_array_equal(jax.jit(lambda r: r.time_to_error(0.4))(run), found[:, 0])


@pytest.mark.slow
def test_derivatives_of_a_first_time_are_those_of_the_implicit_function():
    data = two_classes()

    def time(z):
        network = gs.TwoLayerReLU(jnp.array([[0.3, 0.1], [-0.2, 0.4]]), jnp.stack([z, jnp.asarray(-0.1)]))
        return gs.solve(data, network, "hinge").time_to_error(0.33)

    z, step = 0.2, 1e-5
    slope = float(jax.jit(jax.grad(time))(z))
    assert slope == pytest.approx(float(time(z + step) - time(z - step)) / (2 * step), rel=1e-6)
    solution = gs.solve(data, networks(), "hinge")
    by_level = jax.jacfwd(lambda e: solution.time_to_error(e))(0.35)
    t = np.asarray(solution.time_to_error(0.35))
    assert np.isfinite(t).any()
    np.testing.assert_array_equal(np.asarray(by_level)[~np.isfinite(t)], 0)  # a time that never comes is a constant
    for i in np.flatnonzero(np.isfinite(t) & (t > 0)):
        speed = float(jax.grad(lambda s: solution.error(s)[i])(t[i]))  # noqa: B023
        assert float(by_level[i]) == pytest.approx(1 / speed, rel=1e-8)


@pytest.mark.parametrize("side", ["theory", "steps", "run", "mode"])
def test_what_is_no_level_is_refused_by_name(side):
    data, net = two_classes(), networks()
    curve = {
        "theory": lambda: gs.solve(data, net, "hinge"),
        "steps": lambda: gs.solve(data, net, "hinge", gs.GradientDescent(0.1)),
        "run": lambda: gs.simulate(data, net, "hinge", gs.GradientDescent(0.1), 3, progress=False),
        "mode": lambda: gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), "hinge"),
    }[side]()
    assert isinstance(curve, LearningCurve)
    assert isinstance(curve, ModeCurve if side == "mode" else NetworkCurve)
    for bad in (0.0, 1.0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"error must be in \(0, 1\)"):
            curve.time_to_error(bad)
    with pytest.raises(ValueError, match=r"loss must be >= 0, got -0\.1: the hinge loss is never below 0"):
        curve.time_to_loss(-0.1)
    with pytest.raises(ValueError, match="loss must be a level to reach"):
        curve.time_to_loss(float("nan"))
    with pytest.raises(ValueError, match="max_steps must be"):
        curve.time_to_loss(0.1, max_steps=0)
    with pytest.raises(ValueError, match=r"what must be one of .* did you mean 'margins'"):
        curve.plot(what="margin")
    with pytest.raises(ValueError, match="figsize must be a pair"):
        curve.plot(figsize=3, t=[0, 1])
    with pytest.raises(ValueError, match="ax must be matplotlib axes"):
        curve.plot(ax=3, t=[0, 1])
    with pytest.raises(ValueError, match="t must be rising"):
        curve.plot(t=[1, 0])
    with pytest.raises(ValueError, match="simulate_hinge_exact"):
        curve.to_pandas([0, 1], "events")


def test_an_error_that_does_not_fall_is_refused():
    data = gs.datasets.orthogonal()
    solution = gs.solve(data, gs.TwoLayerReLU([[2.0, -0.1], [-0.1, 0.4]], [2.0, -0.1]), "squared")
    with pytest.raises(gs.HypothesisError, match=r"class \+ starts at margin 4"):
        solution.time_to_error(0.3)
    assert np.isfinite(float(solution.time_to_loss(0.1)))


def curves():
    data, net = two_classes(), networks(5)
    descent = gs.GradientDescent(0.2)
    return [
        gs.solve(data, net, "hinge"),
        gs.solve(data, net, "hinge", descent),
        gs.simulate(data, net, "hinge", descent, 50, record_every=5, progress=False),
        gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), "hinge"),
    ]


def test_figures_of_both_sides(tmp_path):
    for place, curve in enumerate(curves()):
        for what in ("error", "loss", "mistakes", "margins"):
            figure = curve.plot(what=what)
            assert isinstance(figure, Figure)
            (panel,) = figure.axes
            assert panel.get_xlabel() == ("time t" if curve._unit == "time" else "step k")
            thick = [line for line in panel.lines if line.get_linewidth() == 2.2]
            assert len(thick) == (2 if what == "margins" and place < 3 else 1)
            x, y = thick[0].get_data()
            if what != "margins":
                values = np.asarray(getattr(curve, what)(x if place != 2 else None))
                np.testing.assert_allclose(y, np.median(values.reshape(-1, x.size), axis=0), atol=1e-12)
            assert len(panel.collections) == (len(thick) if place < 3 else 0)
        path = tmp_path / f"{place}.png"
        drawn = curve.plot(path, figsize=(4, 3), title="A title", label="one")
        assert path.read_bytes().startswith(b"\x89PNG")
        assert mpl.image.imread(path).shape[:2] == (450, 600)
        panel = drawn.axes[0]
        assert panel.get_title(loc="left") == "A title"
        assert curves()[place].plot(ax=panel, label="two") is drawn
        first, second = (line for line in panel.lines if line.get_label() in ("one", "two"))
        assert first.get_color() != second.get_color()
        assert first.get_linestyle() != second.get_linestyle()
        assert [text.get_text() for text in panel.get_legend().get_texts()] == ["one", "two"]
    assert curves()[0].plot(scale="log").axes[0].get_xscale() == "log"


def test_figures_follow_the_settings_of_the_caller():
    curve = curves()[3]
    with mpl.rc_context({"font.size": 20, "figure.figsize": (3, 2), "axes.grid": False, "lines.linewidth": 3}):
        figure = curve.plot()
        panel = figure.axes[0]
        assert tuple(figure.get_size_inches()) == (3, 2)
        assert panel.xaxis.label.get_size() == 20
        assert panel.lines[0].get_linewidth() == 4.4
    before = dict(mpl.rcParams)
    assert curve.plot().axes[0].xaxis.label.get_size() == 10
    assert dict(mpl.rcParams) == before


def test_the_overlay_has_the_same_options():
    _, law, run, _ = curves()
    found = gs.compare(law, run)
    one = Figure().subplots()
    assert found.plot(ax=one, what="margins") is one.figure
    assert one.get_ylabel() == "margin m = y f(x)"
    figure = found.plot(what="error", figsize=(5, 4))
    assert [panel.get_ylabel() for panel in figure.axes] == ["error σ(−m)"]
    assert tuple(figure.get_size_inches()) == (5, 4)
    with mpl.rc_context({"font.size": 14}):
        assert found.plot().axes[0].xaxis.label.get_size() == 14
    with pytest.raises(ValueError, match="what must be one of"):
        found.plot(what="loss")
    with pytest.raises(ValueError, match="one axes, for error, got 2"):
        found.plot(what="error", ax=Figure().subplots(1, 2))


def test_tables_have_named_axes():
    pytest.importorskip("pandas")
    law, steps, run, mode = curves()
    table = run.to_pandas()
    assert table.index.names == ["network", "step"]
    assert list(table.columns) == ["error", "loss", "mistakes"]
    np.testing.assert_array_equal(table["error"].to_numpy().reshape(5, 11), run.error())
    assert law.to_pandas([0.0, 1.0]).index.names == ["network", "time"]
    points = steps.to_pandas([0, 5], "points")
    assert points.index.names == ["network", "step", "point"]
    np.testing.assert_array_equal(points["margin"].to_numpy().reshape(5, 2, 2), steps.margins([0, 5]))
    assert points.loc[(2, 5, 1), "label"] == -1
    assert points.loc[(2, 5, 1), "weight"] == pytest.approx(0.3)
    assert mode.to_pandas(2.0, "points").index.names == ["time", "point"]
    with pytest.raises(ValueError, match="theory holds at every t"):
        law.to_pandas()
    with pytest.raises(ValueError, match=r"\[records\]"):
        law.to_pandas([[0.0, 1.0]])


def test_arrays_have_named_axes():
    pytest.importorskip("xarray")
    law, steps, run, mode = curves()
    found = run.to_xarray()
    assert found["margins"].dims == ("network", "step", "point")
    np.testing.assert_array_equal(found["error"].sel(step=20), run.error(20))
    assert found["label"].dims == ("point",)
    assert found.attrs["loss"] == "hinge"
    assert law.to_xarray(1.0)["error"].dims == ("network", "time")
    assert steps.to_xarray([0, 3]).sizes["step"] == 2
    assert mode.to_xarray([0.0])["logits"].dims == ("time", "point")
    classes = gs.datasets.orthogonal_classes(3)
    net = gs.init_softmax(jax.random.key(0), (2, 2), 4, 3, 3, 0.1, 0.1)
    many = gs.simulate(classes, net, "cross-entropy", gs.GradientDescent(0.1), 2, progress=False)
    assert many.to_xarray()["logits"].dims == ("network_0", "network_1", "step", "point", "class")
    assert {"logit_0", "logit_2"} <= set(many.to_pandas(what="points").columns)


def test_events_have_names_in_tables():
    pytest.importorskip("xarray")
    run = gs.simulate_hinge_exact(two_classes(), networks(), times=[0.0, 5.0], progress=False)
    table = run.to_pandas(what="events")
    assert table.index.names == ["network", "event"]
    assert len(table) == int(run.events.count.sum())
    assert set(table["kind"]) <= {kind.name for kind in gs.EventKind}
    assert table.loc[(1, 0), "kind"] == gs.EventKind(int(run.events.kind[1, 0])).name
    found = run.to_xarray()
    assert found["event_kind"].dims == ("network", "event")
    np.testing.assert_array_equal(found["event_time"], run.events.time)


@pytest.mark.parametrize("library", ["pandas", "xarray"])
def test_a_library_that_is_missing_is_named_with_its_extra(library, monkeypatch):
    own = builtins.__import__

    def without(name, *rest):
        if name == library:
            raise ImportError(name)
        return own(name, *rest)

    run = curves()[2]
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"needs {library}: pip install 'gradstarve\[sweep\]'"):
        getattr(run, f"to_{library}")()


def test_derivations_show_themselves_in_latex():
    text = gs.derive("one-layer", "hinge")._repr_latex_()
    assert text.startswith("$$")
    assert text.count("&=") == len(gs.derive("one-layer", "hinge").result)
