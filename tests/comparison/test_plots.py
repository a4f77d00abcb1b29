"""The overlay figure: what is on it, that it needs no display, and that it can be read without colour."""

import subprocess
import sys
from functools import cache

import jax
import matplotlib
import numpy as np
import pytest

from gradstarve.comparison import compare
from gradstarve.comparison._overlay import overlay
from gradstarve.problem import GradientDescent, GradientFlow, datasets, init_two_layer
from gradstarve.simulation import Trajectory, simulate
from gradstarve.theory import solve

pytestmark = pytest.mark.usefixtures("x64")


@cache  # under the fixture of every test here, so in 64 bits
def comparison(batch=20, width=3, loss="cross-entropy", steps=60, every=1, flow=False, step=0.3):
    data = datasets.antipodal(dim=3, norms=(1.0, 1.5), frequencies=(0.7, 0.3))
    net = init_two_layer(jax.random.key(0), batch, width, 3, 0.2, 0.2)
    if flow:
        times = step * np.arange(0, steps + 1, every)
        theory = solve(data, net, loss, GradientFlow())
        # A figure does not mind where the record came from, and integrating is slow.
        recorded = theory.logits(times)
        run = Trajectory(
            grid=times, recorded=recorded, initial=net, final=net, data=data, loss_function=theory.loss_function
        )
        return compare(theory, run)
    dynamics = GradientDescent(step)
    return compare(solve(data, net, loss, dynamics), simulate(data, net, loss, dynamics, steps, record_every=every))


def labelled(axes, label):
    return [line for line in axes.lines if line.get_label() == label]


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_both_classes_are_on_both_panels(loss):
    found = comparison(loss=loss)
    figure = found.plot()
    assert len(figure.axes) == 2
    for axes in figure.axes:
        for sign in ("+", "−"):
            assert len(labelled(axes, f"theory {sign}")) == 1
            assert labelled(axes, f"simulation {sign}")
            assert any(band.get_label() == f"band {sign}" for band in axes.collections)
        plus, minus = (labelled(axes, f"theory {sign}")[0] for sign in ("+", "−"))
        assert plus.get_color() != minus.get_color()
        assert plus.get_linestyle() != minus.get_linestyle()
        shapes = {labelled(axes, f"simulation {sign}")[-1].get_marker() for sign in ("+", "−")}
        assert len(shapes) == 2
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert any("p = 0.7,  r = 1" in text for text in texts)
    assert any("p = 0.3,  r = 1.5" in text for text in texts)
    title = figure._suptitle.get_text() + "".join(text.get_text() for text in figure.texts)
    for part in ("antipodal classes", f"{loss} loss", "20 networks", "h = 3 neurons, d = 3", "step size 0.3", "10⁻"):
        assert part in title


def test_lines_are_theory_and_markers_are_training():
    found = comparison()
    axes = found.plot(networks=[4]).axes[1]
    learnt = (found.simulated * [1, -1])[:, -1] > 0
    for sign, point, label in (("+", 0, 1), ("−", 1, -1)):
        line, marks = labelled(axes, f"theory {sign}")[0], labelled(axes, f"simulation {sign}")[-1]
        median = label * np.median(label * label * found.theory[learnt[:, point], :, point], axis=0)
        np.testing.assert_allclose(np.interp(found.grid, *line.get_data()), median, atol=1e-12)
        simulated = label * np.median(found.simulated[learnt[:, point], :, point], axis=0)
        at = np.searchsorted(found.grid, marks.get_xdata())
        np.testing.assert_allclose(marks.get_ydata(), simulated[at], atol=1e-12)
        single = [one for one in axes.lines if one.get_linewidth() == 0.9 and one.get_color() == line.get_color()]
        np.testing.assert_allclose(single[0].get_ydata(), label * found.theory[4, :, point], atol=1e-12)


@pytest.mark.slow
def test_networks_that_do_not_learn_are_counted_and_shown():
    found = comparison(width=2)
    lost = [row.not_learnt_simulated for row in found.classes]
    assert min(lost) > 0
    figure = found.plot()
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert f"class not learnt:  + by {lost[0]},  − by {lost[1]}" in texts
    assert sum(line.get_marker() == "x" for line in figure.axes[0].lines) == 2
    assert not any("not learnt" in t.get_text() for t in comparison(width=12).plot().legends[0].get_texts())


def test_one_network_has_no_band():
    figure = comparison(batch=(), width=8).plot()
    assert not figure.axes[0].collections
    assert len(figure.axes[0].lines) == 5  # a line and its markers per class, and the level of no opinion


@pytest.mark.slow
def test_sparse_records_get_smooth_lines():
    for flow in (False, True):
        found = comparison(loss="hinge", steps=60, every=12, flow=flow)
        line = labelled(found.plot().axes[0], "theory +")[0]
        assert len(line.get_xdata()) >= 61  # every step there is
        assert set(np.asarray(found.grid, float)) <= set(line.get_xdata())


@pytest.mark.slow
def test_axis_scale_fits():
    assert comparison().plot().axes[0].get_xscale() == "linear"
    late = comparison(steps=2000, every=100)
    assert late.plot().axes[0].get_xscale() == "log"
    assert late.plot(scale="linear").axes[0].get_xscale() == "linear"
    assert "time t = 0.3 k" in late.plot().axes[0].get_xlabel()
    assert comparison(loss="hinge", steps=60, every=12, flow=True).plot().axes[0].get_xlabel() == "time t"


def test_file_is_written_and_not_empty(tmp_path):
    path = tmp_path / "overlay.png"
    comparison().plot(path=path, note="start σ = 0.2", title="A title")
    image = matplotlib.image.imread(path)
    assert image.shape[1] == 1350
    assert 0.01 < (image[..., :3].min(axis=-1) < 0.5).mean() < 0.5
    # Nothing is cut off: the border of the picture is blank.
    frame = np.concatenate([image[:3, :, :3].ravel(), image[-3:, :, :3].ravel(), image[:, -3:, :3].ravel()])
    assert frame.min() == 1


def test_classes_stay_apart_in_grey():
    found = comparison(width=12)
    axes = found.plot().axes[0]
    weights = np.array([0.299, 0.587, 0.114])
    greys = [weights @ matplotlib.colors.to_rgb(labelled(axes, f"theory {s}")[0].get_color()) for s in ("+", "−")]
    assert abs(greys[0] - greys[1]) > 0.1
    assert max(greys) < 0.6


def test_into_given_axes():
    figure = matplotlib.figure.Figure()
    pair = figure.subplots(1, 2)
    assert overlay(comparison(), ax=pair) is figure
    assert pair[1].get_legend() is not None
    with pytest.raises(ValueError, match="two axes"):
        overlay(comparison(), ax=pair[0])


def test_bad_options():
    found = comparison()
    with pytest.raises(ValueError, match=r"indices in 0\.\.19"):
        found.plot(networks=[20])
    with pytest.raises(ValueError, match="networks must be an integer >= 0"):
        found.plot(networks=-1)
    with pytest.raises(ValueError, match="scale must be 'auto', 'linear' or 'log'"):
        found.plot(scale="loglog")


def test_matplotlib_waits_until_it_is_needed():
    code = "import sys, gradstarve, gradstarve.comparison, gradstarve.cli.main; assert 'matplotlib' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(p for p in sys.path if p)})
