"""Every object that a user can hold pickles, deep-copies, passes through jit and shows itself in a notebook."""

import copy
import inspect
import multiprocessing as mp
import pickle
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from public_calls import HOUSES, blobs, logit, problems, public, results, verified

import gradstarve as gs
from gradstarve import diagnosis as diagnose
from gradstarve import problem, special, symbolic, theorems, theory
from gradstarve.theory import jacobian, ntk


def hypothesis_error():
    with pytest.raises(gs.HypothesisError) as caught:
        gs.solve(gs.datasets.orthogonal(), gs.TwoLayerReLU([[0.3, 0.1]], [0.1]))
    return caught.value


def hinge_run():
    data, network, _ = problems()
    return gs.simulate_hinge_exact(data, network, times=[0.0, 1.0], progress=False)


def comparison():
    run, _, steps, _ = results()
    return gs.compare(steps, run)


def alignment():
    data = gs.Dataset([[1.0, 0.0], [0.0, 1.0]], [1, -1])
    return gs.early_alignment(data, gs.TwoLayerReLU([[0.3, 0.2], [0.1, 0.3]], [0.1, -0.1]))


def softmax():
    return theory.softmax_mode(0.5, 1.0, [0.1], [0.1], classes=3)


def logged():
    margins = np.outer(np.linspace(0, 4, 5), np.linspace(0.5, 1.5, 24))
    groups = ["light"] * 12 + ["dark"] * 12
    return diagnose.from_margins(margins, np.arange(5.0), groups, labels=blobs()[1], permutations=99)


def after():
    return diagnose.after_training(blobs()[3], np.full(24, 0.5))


SHARES = ([[1, 0], [1, 1]], [0.7, 0.3])


def sgd():
    return gs.solve_mode(problems()[2], "hinge", gs.StochasticGradientDescent(0.1))


def mode():
    return problems()[2]


# The name of a class under which users find it -> an object of it, and what it answers: numbers that a copy has to repeat.
OBJECTS = {
    "Alignment": (alignment, lambda o: (o.network(1.0).w, o.exit_time(0.1), o.events.of(0), str(o.groups))),
    "ClassDataset": (lambda: gs.datasets.orthogonal_classes(3), lambda o: o.points),
    "Comparison": (comparison, lambda o: (o.gap, o.theory_at(1), o.table())),
    "ConvergenceError": (lambda: gs.ConvergenceError("no"), str),
    "CrossEntropy": (gs.CrossEntropy, lambda o: o.value(jnp.ones(2))),
    "Dataset": (lambda: problems()[0], lambda o: o.points),
    "DeepReLU": (lambda: gs.DeepReLU([[[1.0, 0.0]], [2.0]], [[[1, 0]], [1]]), lambda o: o(jnp.ones((1, 2)))),
    "Derivation": (lambda: gs.derive("one-layer", "hinge"), lambda o: str(o.result)),
    "Exponential": (gs.Exponential, lambda o: o.value(jnp.ones(2))),
    "GradientDescent": (lambda: gs.GradientDescent(0.1, 0.5, True, 0.01), lambda o: (o.step_size, o.nesterov)),
    "GradientFlow": (gs.GradientFlow, repr),
    "Hinge": (gs.Hinge, lambda o: o.value(jnp.ones(2))),
    "HingeTrajectory": (hinge_run, lambda o: (o.margins(), o.logits(0.5), o.events.of())),
    "HypothesisError": (hypothesis_error, lambda o: (str(o), o.hypothesis, o.where, o.instead)),
    "Mode": (mode, lambda o: o.logit),
    "Report": (verified, lambda o: (o.table(), o.rows[0].outcome.instance(1)["w"], str(o.to_dict()))),
    "SoftmaxOneLayer": (lambda: gs.SoftmaxOneLayer([[1.0, 0.0], [0.0, 1.0]]), lambda o: o(jnp.ones((1, 2)))),
    "SoftmaxTwoLayer": (lambda: gs.SoftmaxTwoLayer([[1.0, 0.0]], [[1.0, 2.0]]), lambda o: o(jnp.ones((1, 2)))),
    "Solution": (lambda: results()[1], lambda o: (o.margins(1.0), o.network(0.5).w)),
    "SpectralDecoupling": (lambda: gs.SpectralDecoupling("hinge", 0.1), lambda o: o.value(jnp.ones(2))),
    "FlippedLabels": (lambda: gs.FlippedLabels("hinge", 0.1), lambda o: o.value(jnp.ones(2))),
    "MarginShift": (lambda: gs.MarginShift("hinge", 0.1), lambda o: o.value(jnp.ones(2))),
    "Temperature": (lambda: gs.Temperature("hinge", 2.0), lambda o: o.value(jnp.ones(2))),
    "Focal": (lambda: gs.Focal(2.0), lambda o: o.value(jnp.ones(2))),
    "SquaredMargin": (gs.SquaredMargin, lambda o: o.value(jnp.ones(2))),
    "NormalizedGradientDescent": (lambda: gs.NormalizedGradientDescent(0.1), lambda o: o.step_size),
    "SharpnessAware": (lambda: gs.SharpnessAware(0.1, 0.2), lambda o: (o.step_size, o.radius)),
    "SignDescent": (lambda: gs.SignDescent(0.1), lambda o: o.step_size),
    "problem.Schedule": (lambda: problem.Schedule(None, np.ones(3)), lambda o: o(2)),
    "StochasticGradientDescent": (lambda: gs.StochasticGradientDescent(0.1), lambda o: o.step_size),
    "SweepResult": (lambda: results()[3], lambda o: (o["error_mean"], o.network(2).w, o.table())),
    "Trajectory": (lambda: results()[0], lambda o: (o.margins(), o.final.w)),
    "TwoLayerReLU": (lambda: problems()[1], lambda o: o.w),
    "EventKind": (lambda: gs.EventKind.LEARNT, int),
    "problem.Breach": (lambda: gs.datasets.antipodal().separability().breaches["orthogonal"], lambda o: o.signed_cosine),
    "problem.Ray": (lambda: gs.datasets.antipodal().ray(1), lambda o: o.direction),
    "problem.Reduction": (lambda: gs.datasets.antipodal().reduce(), lambda o: o.data.points),
    "problem.Separability": (lambda: gs.datasets.antipodal().separability(), lambda o: o.explain()),
    "symbolic.DerivationError": (lambda: symbolic.DerivationError("no"), str),
    "symbolic.Step": (lambda: gs.derive("one-layer", "hinge").steps[0], lambda o: str(o.equations)),
    **{
        f"special.{type(one).__name__}": (lambda one=one: one, lambda o: special.clock_state(o, 0.1, 0.2, 3.0))
        for one in (*special.CLOCKS.values(), special.Softmax(9.0), special.QuadratureClock(gs.Hinge()))
    },
    "theory.NeuronEvents": (lambda: alignment().events, lambda o: (o.time, o.of(1), o.names.tolist())),
    "theory.Directions": (lambda: alignment().directions, lambda o: (o.vector, o.rate)),
    "theory.Groups": (lambda: alignment().groups, lambda o: (o.direction, o.dead)),
    "theory.PlateauExits": (
        lambda: theory.plateau_exits(exclusive_data(), exclusive_network()),
        lambda o: (o.time, o.neurons, o.rate, o.residual),
    ),
    "theory.ClockCurve": (lambda: theory.ClockCurve(results()[1].plus.clock), lambda o: o.logit(1.0)),
    "theory.DepthMode": (lambda: theory.depth_mode(0.5, 1.0, [0.1] * 3, "hinge"), lambda o: o.logit(1.0)),
    "theory.ConeBounds": (
        lambda: gs.theory.cone_bounds(gs.datasets.orthogonal(), gs.TwoLayerReLU([[1.0, -1.0]], [0.5])),
        lambda o: (o.lower(1.0), o.upper(1.0)),
    ),
    "theory.DataGap": (lambda: results()[1].on(results()[1].data).gap, lambda o: np.array([o.angle, *o.norms])),
    "theory.NearbySolution": (lambda: results()[1].on(results()[1].data), lambda o: (o.margins(1.0), o.error(0.5))),
    "theory.DescentSolution": (lambda: results()[2].plus, lambda o: o.logit(2)),
    "theory.FeatureFlow": (lambda: theory.feature_flow(*SHARES, "hinge"), lambda o: o.features(1.0)),
    "theory.KappaDistribution": (lambda: theory.KappaDistribution(3, 1.0, 0.5), lambda o: o.mean),
    "theory.LearningTime": (lambda: theory.LearningTime(0.5, 1.0, 0.5, 0.5, "hinge", 0.5), lambda o: o.rate),
    "theory.LogitDistribution": (lambda: sgd().distribution(3), lambda o: o.mean),
    "theory.MaxMargin": (lambda: theory.max_margin_direction([[2.0, 0.0], [0.0, 1.0]]), lambda o: o.direction),
    "theory.ModeDescent": (lambda: gs.solve_mode(mode(), "hinge", gs.GradientDescent(0.1)), lambda o: o.logit(2)),
    "problem.Phases": (lambda: phased()[0].phases, lambda o: (o.labels(3), o.since)),
    "theory.PhasedMode": (
        lambda: gs.solve_mode(mode(), "hinge", phases=[(5.0, 0.5), (None, -0.5)]),
        lambda o: (o.logit(7.0), o.clock_range()),
    ),
    "theory.PhasedSolution": (lambda: phased()[0], lambda o: o.error(12)),
    "PhasedTrajectory": (lambda: phased()[1], lambda o: o.error(12)),
    "theory.MixedTimeDistribution": (
        lambda: gs.solve_mode(mode(), "hinge", gs.StochasticGradientDescent(0.1, batch_size=2)).time_to_logit(0.5),
        lambda o: (o.mean, o.never, o.quantile(0.5)),
    ),
    "theory.ModeMiniBatch": (
        lambda: gs.solve_mode(mode(), "hinge", gs.StochasticGradientDescent(0.1, batch_size=2)),
        lambda o: o.distribution(3).values,
    ),
    "theory.ModeSGD": (sgd, lambda o: o.distribution(3).values),
    "theory.ModeSolution": (lambda: gs.solve_mode(mode(), "hinge"), lambda o: o.logit(1.0)),
    "theory.Reweighting": (lambda: theory.fastest_weights(*SHARES, "hinge"), lambda o: o.weights),
    "theory.SharedFeatures": (
        lambda: theory.shared_features(*SHARES, [[0.3, 0.1]], [0.2], "hinge"),
        lambda o: (o.w, o.loss_function.name),
    ),
    "theory.Shortcut": (lambda: theory.shortcut(0.9, "hinge"), lambda o: (o.features(1.0), o.error(2.0))),
    "theory.Peak": (lambda: theory.shortcut(0.9, "hinge").peak(), lambda o: o.time),
    "theory.Stop": (lambda: theory.Stop(1.0, 0.9, 0.8), lambda o: o.accuracy),
    "theory.Change": (lambda: theory.Change(1.0, 0, "learnt"), lambda o: o.what),
    "theory.SoftmaxMode": (softmax, lambda o: o.gap(1.0)),
    "theory.SoftmaxReadOut": (lambda: theory.softmax_mode(0.5, 1.0, classes=3), lambda o: o.gap(1.0)),
    "theory.StarvingPair": (lambda: theory.starving_pair(0.7, 0.3, "hinge"), lambda o: o.features(1.0)),
    "theory.TimeDistribution": (lambda: sgd().time_to_logit(0.5), lambda o: o.mean),
    "theory.ntk.RidgeOptimum": (lambda: ntk.ridge_optimum([[1.0]], 0.1), lambda o: o.margins),
    "theory.jacobian.LinearRegimeWarning": (lambda: jacobian.LinearRegimeWarning("much"), str),
    "theorems.Drop": (lambda: theorems.Drop("a small step", {"step_size": 3.0}), lambda o: (o.words, o.how["step_size"])),
    "theorems.Trials": (lambda: theorems.Trials(np.ones(30), partial(dict, seed=0)), lambda o: (o.gaps, o.worst())),
    "theorems.Counterexample": (lambda: theorems.Counterexample("a", "b", 1.0, 0.1), lambda o: o.found),
    "theorems.Outcome": (lambda: verified().rows[0].outcome, lambda o: (o.gaps, o.instance(0)["w"])),
    "theorems.Row": (lambda: verified().rows[0], lambda o: str(o.to_dict())),
    "theorems.LawFigure": (lambda: theorems.LawFigure(dict.get, np.add, "place", "height"), lambda o: (o.up, o.law(1, 2))),
    "theorems.Theorem": (lambda: theorems.CATALOGUE["sign"], lambda o: (o.name, o.tolerance)),
    "diagnose.AfterTraining": (after, lambda o: o.table()),
    "diagnose.HeldOut": (lambda: blobs()[3].heldout, lambda o: o.worst.accuracy),
    "diagnose.MarginReport": (logged, lambda o: o.table()),
    "diagnose.StarvationReport": (lambda: blobs()[3], lambda o: o.table()),
    # What is found inside of others, or given by functions of a room without a name of its own.
    "Events": (lambda: hinge_run().events, lambda o: (o.time, o.names.tolist())),
    "PhaseDiagram": (lambda: gs.phase_diagram("hinge", "neuron", pixels=4, progress=False), lambda o: o.table()),
    "datasets.ColouredDigits": (lambda: gs.datasets.coloured_digits(0.9), lambda o: o.train.points),
    "datasets.TwoDigits": (lambda: gs.datasets.digits(), lambda o: o.train.points),
    "ExclusiveMotion": (lambda: gs.solve(exclusive_data(), exclusive_network(), "hinge"), lambda o: o.network(1.0).w),
    "kernel product": (lambda: jacobian.kernel_product(logit, jnp.zeros(2), jnp.eye(2), [1, -1]), lambda o: o([1.0, 2.0])),
}
BASES = {
    *("problem.Dynamics", "problem.LearningCurve", "problem.ModeCurve", "problem.NetworkCurve", "problem.Loss"),
    *("problem.Modes", "problem.PhasedCurve", "problem.Network", "special.Clock", "Steps"),
}
# Of these a pytree would not make sense: they are errors, reports in words, or hold more than numbers.
WORDS = {"Comparison", "Derivation", "Report", "SweepResult", "EventKind", "Events", "PhaseDiagram", "datasets.TwoDigits"}
WORDS |= {"datasets.ColouredDigits"}
MODULES = [name for name in OBJECTS if name not in WORDS and not name.startswith(("diagnose", "theorems"))]


def phased():
    """A solution and a run through two phases."""
    data, network, _ = problems()
    phases = [(7, data), (None, gs.Dataset(data.points, -data.labels, data.weights))]
    problem = phases, network, "cross-entropy", gs.GradientDescent(0.1)
    return gs.solve(*problem), gs.simulate(*problem, 12)


def exclusive_data():
    return gs.datasets.orthogonal()


def exclusive_network():
    return gs.TwoLayerReLU([[0.3, -0.1], [-0.1, 0.4]], [0.2, -0.1])


@pytest.fixture(scope="module")
def made():
    """Each object once."""
    held = {}

    def make(name):
        if name not in held:
            held[name] = OBJECTS[name][0]()
        return held[name]

    return make


def same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_no_public_class_is_left_out():
    classes = {name for name, value in public().items() if inspect.isclass(value)}
    assert classes - BASES == {name for name in OBJECTS if name in classes}
    assert len(classes) > 55
    assert set(HOUSES) >= {"", "theory.", "special.", "theorems.", "diagnose."}


@pytest.mark.parametrize("name", OBJECTS)
def test_a_copy_answers_the_same(made, name):
    one, answer = made(name), OBJECTS[name][1]
    first = answer(one)
    for again in (pickle.loads(pickle.dumps(one)), copy.deepcopy(one), copy.copy(one)):
        assert type(again) is type(one)
        same(first, answer(again))
        if not isinstance(one, tuple):  # NumPy compares the arrays of a tuple one by one
            assert bool(np.all(one == again)) in (True, False)


@pytest.mark.parametrize("name", OBJECTS)
def test_it_shows_itself_in_a_notebook(made, name):
    one = made(name)
    assert len(str(one)) < (20_000 if name == "Derivation" else 1500)
    for way in ("_repr_html_", "_repr_markdown_", "_repr_latex_"):
        if hasattr(one, way):
            text = getattr(one, way)()
            assert isinstance(text, str)
            assert 10 < len(text) < 30_000
            for raw in ("Array(", "array(", "object at 0x"):
                assert raw not in text
            assert text.count("<table>") == text.count("</table>")
    assert "object at 0x" not in repr(one) or name == "kernel product"


@pytest.mark.parametrize("name", OBJECTS)
def test_its_repr_is_one_short_line(made, name):
    text = repr(made(name))
    assert name in ("Derivation", "kernel product") or ("\n" not in text and len(text) < 500)


def test_a_repr_holds_no_wall_of_numbers():
    key, many = jax.random.key(0), np.linspace(1, 2, 300)[:, None] * [[0.6, 0.8]]
    data = gs.Dataset(many, np.ones(300))
    walls = [data, data.ray(1), gs.init_deep(key, 9, (8, 8), 5), gs.DeepReLU.paths(np.ones((3, 40)), range(40), 40)]
    walls += [gs.init_two_layer(key, 99, 9, 9), data.reduce(), gs.GradientDescent(np.linspace(0.1, 1, 300))]
    for one in walls:
        assert len(repr(one)) < 200
        assert "\n" not in repr(one)
    numbers = "step_size=0.1, momentum=0, weight_decay=0, nesterov=False, read_out_step_size=None"
    assert repr(gs.GradientDescent(0.1)) == f"GradientDescent({numbers})"
    assert repr(gs.SpectralDecoupling("hinge", 0.5)) == "SpectralDecoupling(loss=Hinge, penalty=0.5, target=0, scale=1)"


@pytest.mark.parametrize("name", ["Comparison", "diagnose.StarvationReport", "Solution", "Trajectory", "Report"])
def test_results_have_a_table(made, name):
    html = made(name)._repr_html_()
    assert html.startswith(("<table>", "<p><b>", "<pre"))
    assert len(repr(made(name))) < 900


def test_what_is_shown_is_escaped(made):
    one = gs.GradientDescent(0.1)
    assert "<script>" not in gs.theorems.Counterexample("<script>", "", 1.0, 0.1)._repr_html_()
    assert "0.1" in repr(one) or "f32" in repr(one)


@pytest.mark.parametrize("name", [n for n in MODULES if n not in ("Solution", "ExclusiveMotion", "kernel product")])
def test_pytrees_pass_through_jit(made, name):
    one = made(name)
    if not isinstance(one, eqx.Module) or name == "HingeTrajectory":
        return
    leaves, tree = jax.tree.flatten(one)
    again = jax.jit(lambda thing: jax.tree.map(lambda leaf: leaf, thing))(one)
    assert jax.tree.structure(again) == tree
    same(leaves, jax.tree.leaves(again))


def test_the_rest_are_few():
    jitted = [n for n, v in public().items() if inspect.isclass(v) and issubclass(v, eqx.Module) and n not in BASES]
    assert len(jitted) > 35


def fail(_):
    gs.solve(gs.datasets.orthogonal(), gs.TwoLayerReLU([[0.3, 0.1]], [0.1]))


def test_a_pool_hands_on_the_error():
    with mp.get_context("spawn").Pool(1) as pool:
        waiting = pool.map_async(fail, [0])
        with pytest.raises(gs.HypothesisError, match="exclusive") as caught:
            waiting.get(timeout=120)
    assert caught.value.instead == hypothesis_error().instead


def test_equations_of_ones_own_are_pickled_too():
    import sympy as sp

    first = gs.derive("one-layer", "hinge")
    name = first.steps[-1].name
    changed = first.with_equation(name, sp.Eq(first.steps[-1].equations[0].lhs, sp.Integer(3)))
    again = pickle.loads(pickle.dumps(changed))
    assert again[name].equation == changed[name].equation
    assert [s.equation for s in again.steps[:-1]] == [s.equation for s in first.steps[:-1]]
    for one in (changed, again):
        with pytest.raises(symbolic.DerivationError, match="left-hand side is missing"):
            one.check_step(name)


def test_a_report_of_a_model_that_cannot_be_pickled():
    x, y, mark, _ = blobs()
    options = {"features": 0, "permutations": 99}
    report = gs.starvation_report(lambda w, x: x @ w, jnp.zeros(5), (x, y), {"mark": mark}, **options)
    again = pickle.loads(pickle.dumps(report))
    assert again.table() == report.table()
    assert again.model is None
    assert report.model is not None
    assert copy.deepcopy(report).model is not None
    measured = np.full(24, 0.5)
    assert again.after_training(measured).table() == report.after_training(measured).table()


def test_kept_records_of_a_sweep_are_pickled():
    data = gs.datasets.antipodal()
    result = gs.sweep(data, 3, steps=2, width=2, keep="final", progress=False)
    again = pickle.loads(pickle.dumps(result))
    same(result.final(), again.final())
    same(jax.random.key_data(result.key), jax.random.key_data(again.key))


def test_event_kinds_have_names(made):
    events = made("Events")
    words = {"WAKES": "wakes", "SLEEPS": "falls asleep", "LEARNT": "reaches 1"}
    for name, line in zip(events.names, events.of(), strict=False):
        assert words[str(name)] in line
        assert gs.EventKind[str(name)] in events.kind
    margins = ["LEARNT", "FORGOTTEN", "HELD", "FREED"]
    assert [kind.name for kind in gs.EventKind] == ["WAKES", "SLEEPS", *margins, "SLIDES", "REPELS"]


def test_the_package_lists_itself():
    everything: dict = {}
    exec("from gradstarve import *", everything)
    assert set(gs.__all__) <= set(everything)
    assert {*gs.__all__, "diagnose", "__version__"} <= set(dir(gs))
    assert all(getattr(gs, name) is everything[name] for name in gs.__all__)


def test_losses_and_networks_are_told_apart():
    assert gs.Hinge() == gs.Hinge()
    assert gs.Hinge() != gs.CrossEntropy()
    assert problem.as_loss("hinge") == gs.Hinge()
