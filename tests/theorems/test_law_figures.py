"""The figures of laws: lines are the formula, markers what was trained, the counterexample is red, gaps are below."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from scipy.integrate import solve_ivp

from gradstarve.ground import COLOURS
from gradstarve.theorems import CATALOGUE, Counterexample, LawFigure, TrialLog, draw, verify
from gradstarve.theorems._figure import read_run
from gradstarve.theorems._formulas import RESIDUALS, mode_curve, path_curve

X = np.linspace(0.5, 2, 4)
RATES = (0.5, 1.0, -0.3, 0.1)


def outcome(groups=("grows",) * 4, lost=False):
    """Four trials of e^(c x), trained without an error, whose gaps are made up."""
    log = TrialLog(1e-9)
    log.add([1e-12, 1e-11, 3e-12, 0.0], groups, lambda i: {"c": RATES[i], "trained": np.exp(RATES[i] * X)}, lost)
    return log.outcome(rate=np.array(RATES))


def drawn(figure, found=None, counterexamples=()):
    axes = Figure().subplots()
    figure(outcome() if found is None else found, axes, counterexamples)
    return axes, axes.figure.axes[1]


# Its counterexample is descent in logits of all points at one time, and no margin over time.
UNMARKED = {"hinge-exact"}

EXPONENTIAL = LawFigure(
    lambda trial: (X, trial["trained"]),
    lambda trial, x: np.exp(trial["c"] * x),
    "place",
    "height",
    label=lambda trial: f"c = {trial['c']}",
)


def solid(axes):
    return [line for line in axes.lines if line.get_linestyle() == "-"]


def marked(axes):
    return [line for line in axes.lines if line.get_marker() in tuple("osD^")]


def test_lines_are_the_formula_and_markers_what_was_trained():
    axes, strip = drawn(EXPONENTIAL)
    assert len(solid(axes)) == len(marked(axes)) == 4
    slopes = sorted(float(np.polyfit(line.get_xdata(), np.log(line.get_ydata()), 1)[0]) for line in solid(axes))
    assert slopes == pytest.approx(sorted(RATES))
    assert sorted(float(np.log(line.get_ydata()[0]) / X[0]) for line in marked(axes)) == pytest.approx(sorted(RATES))
    assert {text.get_text() for text in axes.texts} == {f"c = {c}" for c in RATES}
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("place", "height")
    # Each gap is a dot in the strip, 0 at its floor, and the tolerance is a line.
    places = np.asarray(strip.collections[0].get_offsets())[:, 0]
    assert sorted(places) == pytest.approx(sorted([-12, -11, np.log10(3e-12), -17]))
    assert strip.lines[0].get_xdata()[0] == pytest.approx(-9)


def test_the_law_has_three_quarters_of_the_figure():
    axes, strip = drawn(EXPONENTIAL)
    assert axes.get_position().height / (axes.get_position().height + strip.get_position().height) > 0.75


def test_groups_have_colours_and_names_of_their_own_and_undecided_trials_are_not_drawn():
    figure = LawFigure(EXPONENTIAL.marks, EXPONENTIAL.law, "place", "height")
    axes, strip = drawn(figure, outcome(("one", "one", "two", "two"), [False, False, False, True]))
    assert {text.get_text() for text in axes.texts} == {"one", "two"}
    assert len({line.get_color() for line in solid(axes)}) == 2
    assert len(marked(axes)) == 3
    assert len(strip.collections[0].get_offsets()) == 3


def test_one_line_for_all_trials_of_a_group():
    figure = LawFigure(lambda trial: ([trial["rate"]], [trial["rate"]]), lambda trial, x: x, "law", "trained", one_line=True)
    axes, _ = drawn(figure)  # the rate is a row of an array beside the trials
    assert len(solid(axes)) == 1
    assert sorted(float(line.get_xdata()[0]) for line in marked(axes)) == sorted(RATES)


def test_parts_of_a_trial_are_curves_of_their_own():
    halves = {"first": 1.0, "second": 2.0}

    def parts(trial):
        return {name: {**trial, "c": c, "trained": np.exp(c * X)} for name, c in halves.items()}

    axes, _ = drawn(LawFigure(EXPONENTIAL.marks, EXPONENTIAL.law, "place", "height", parts=parts, each=1))
    assert {text.get_text() for text in axes.texts} == set(halves)
    ends = sorted(float(line.get_ydata()[-1]) for line in solid(axes))
    assert ends == pytest.approx([np.exp(2), np.exp(4)])


@pytest.mark.parametrize("numbers", [{"c": 1.0, "trained": X, "law": 2 * X}, {"something": "else"}])
def test_the_counterexample_is_red_and_stands_on_the_same_axes(numbers):
    one = Counterexample("a hypothesis (left out)", "it fails", 1.0, 1e-9, numbers)
    axes, strip = drawn(EXPONENTIAL, counterexamples=(one,))
    red = [line for line in axes.lines if to_hex(line.get_color()).upper() == COLOURS[1]]
    text = " ".join(entry.get_text() for entry in strip.get_legend().get_texts())
    if "law" in numbers:
        law, trained = red
        np.testing.assert_allclose(law.get_ydata(), 2 * X)
        np.testing.assert_allclose(trained.get_ydata(), X)
        assert "fails without a hypothesis (left out)" in text
    else:  # it records other numbers than the trials do
        assert not red
        assert "fails" not in text


def test_the_figure_takes_the_colours_of_the_caller():
    row = verify("plateau", trials=24, progress=False).rows[0]
    with mpl.rc_context({"axes.facecolor": "black", "axes.edgecolor": "white"}):
        axes, strip = draw(row).axes
    assert {to_hex(line.get_markerfacecolor()) for line in marked(axes)} == {"#000000"}
    assert to_hex(strip.lines[0].get_color()) == "#ffffff"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, entry in CATALOGUE.items() if isinstance(entry.figure, LawFigure)])
def test_every_law_has_lines_and_marks(name):
    row = verify(name, quick=True, key=7, progress=False).rows[0]
    axes, strip = draw(row).axes
    assert solid(axes)
    assert marked(axes)
    assert len(strip.collections[0].get_offsets()) == row.outcome.trials - row.outcome.undecided
    red = any(to_hex(line.get_color()).upper() == COLOURS[1] for line in axes.lines)
    assert red or name in UNMARKED


def test_no_entry_is_a_histogram_of_gaps():
    def is_histogram(figure):
        return not isinstance(figure, LawFigure) and "draw_gaps" in getattr(figure, "__code__", None).co_names

    assert not [name for name, entry in CATALOGUE.items() if is_histogram(entry.figure)]


def test_the_curve_of_the_clock_is_that_of_its_differential_equation(x64):
    """The line of an entry of `theory.solve`, against SciPy on ds/dt = p r g(u) with all neurons of the class."""
    report = verify("cross-entropy", trials=24, progress=False)
    row = report.rows[0]
    figure, trial = CATALOGUE["cross-entropy"].figure, row.outcome.instance(9)
    run = read_run(trial)
    a, zeta = run.neurons()

    def field(_, joined):
        a, z = np.split(joined, 2)
        pull = 0.5 / (1 + np.exp(run.norm * np.sum(a * z)))  # of 2 p r t
        return np.concatenate([pull * z, pull * a])

    x = np.linspace(0, run.rate * run.times[-1], 5)
    states = solve_ivp(field, (0, x[-1]), np.concatenate([a, zeta]), "DOP853", x, rtol=1e-11, atol=1e-13).y
    u = run.norm * np.sum(states[: a.size] * states[a.size :], axis=0)
    np.testing.assert_allclose(figure.law(trial, x), 1 / (1 + np.exp(u)), atol=2e-4)  # as much as a picture shows
    at, error = figure.marks(trial)
    np.testing.assert_allclose(error, figure.law(trial, at), atol=2e-4)
    # The counterexample: neurons that leave, off the law of all of them.
    axes = draw(row).axes[0]
    assert any(to_hex(line.get_color()).upper() == COLOURS[1] for line in axes.lines)


@pytest.mark.parametrize("loss", RESIDUALS)
def test_curves_in_numpy_are_those_of_the_differential_equations(loss):
    """Neurons one of which leaves its class, and an unbalanced path, against SciPy on their weights."""
    a, zeta, path, tau = np.array([0.3, 0.1]), np.array([-0.4, 0.35]), np.array([0.2, 0.5, 0.9]), np.linspace(0, 9, 7)
    g = RESIDUALS[loss]

    def neurons(_, joined):
        a, z = joined.reshape(2, -1)
        seen = a > 0
        pull = g(1.3 * np.sum(np.where(seen, a * z, 0))) / 2
        return np.concatenate([np.where(seen, pull * z, 0), np.where(seen, pull * a, 0)])

    states = solve_ivp(neurons, (0, 9), np.concatenate([a, zeta]), "RK45", tau, rtol=1e-8, atol=1e-10, max_step=0.01).y
    u = 1.3 * np.sum(np.where(states[:2] > 0, states[:2] * states[2:], 0), axis=0)
    np.testing.assert_allclose(mode_curve(g, 1.3, a, zeta, tau), u, atol=5e-3)

    def layers(_, b):
        return g(1.3 * np.prod(b)) * 1.3 * np.prod(b) / b / (3 * 1.3 ** (2 / 3))

    b = solve_ivp(layers, (0, 9), path, "RK45", tau, rtol=1e-8, atol=1e-10, max_step=0.01).y
    np.testing.assert_allclose(path_curve(g, 1.3, path, tau), 1.3 * np.prod(b, axis=0), atol=5e-3)


def test_a_run_shows_the_class_whose_error_moves_most_or_the_one_asked_for():
    trial = {"loss": "hinge", "points": [[1.0, 0], [0, 2.0]], "labels": [1, -1], "weights": [0.3, 0.7]}
    trial |= {"w": [[1.0, -1]], "z": [1.0], "times": [1.0, 2], "trained": [[1.0, -0.1], [1.1, -0.9]]}
    assert (read_run(trial).rate, read_run(trial).label) == (pytest.approx(2 * 0.7 * 2), -1)
    np.testing.assert_allclose(read_run(trial).margins, [0.1, 0.9])
    assert read_run(trial, 1).rate == pytest.approx(0.6)
    assert read_run({**trial, "off": np.array([[0.5, 0.1], [0, 0]])}).label == 1
    assert read_run({"loss": "hinge"}) is None
