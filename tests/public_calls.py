"""A valid call of every public function and constructor, for the walks over them, and the values they are walked with.

`CALLS`: name -> the callable and its arguments by name. What stays out has its reason in `NOT_CALLED`.
"""

import atexit
import datetime
import decimal
import fractions
import inspect
import shutil
import tempfile
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradstarve as gs
from gradstarve import diagnosis as diagnose
from gradstarve import problem, special, symbolic, theorems, theory
from gradstarve.theory import jacobian, ntk

HOUSES = {
    "": gs,
    "datasets.": problem.datasets,
    "problem.": problem,
    "symbolic.": symbolic,
    "theory.": theory,
    "theory.ntk.": ntk,
    "theory.jacobian.": jacobian,
    "special.": special,
    "theorems.": theorems,
    "diagnose.": diagnose,
}


def public():
    """Every public callable by the first name under which it is found, those of `gradstarve` before those of its rooms."""
    found = {}
    for house, module in HOUSES.items():
        names = getattr(module, "__all__", None) or [name for name in vars(module) if not name.startswith("_")]
        for name in names:
            value = getattr(module, name)
            ours = getattr(value, "__module__", "").startswith(module.__name__) or hasattr(module, "__all__")
            if callable(value) and ours and not inspect.ismodule(value) and value not in found.values():
                found[house + name] = value
    return found


RESULT = "made by a function of the library, which checks the numbers; users read it"
BASE = "a base class, which has nothing to give"


def folder():
    """A directory that goes when the process ends."""
    path = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


def picture():
    """A small figure with a line and markers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([0, 1], [0, 1], "o-", label="a")
    return figure


def table():
    """The path of a small table of points."""
    path = Path(folder()) / "points.csv"
    path.write_text("a,b,label\n1,0,1\n-1,0.5,-1\n")
    return str(path)


NOT_CALLED = dict.fromkeys(
    (
        *("Alignment", "theory.PlateauExits", "theory.Directions", "theory.Groups", "theory.NeuronEvents"),
        *("Comparison", "Derivation", "HingeTrajectory", "Report", "Solution", "SweepResult", "Trajectory"),
        *("datasets.TwoDigits", "problem.Breach", "problem.Ray", "problem.Reduction", "problem.Separability"),
        *("symbolic.Step", "theory.ClockCurve", "theory.DepthMode", "theory.DescentSolution", "theory.FeatureFlow"),
        *("problem.Schedule", "theory.LogitDistribution", "theory.MaxMargin", "theory.ModeDescent", "theory.ModeMiniBatch"),
        "theory.MixedTimeDistribution",
        *("problem.Phases", "theory.ModeSGD", "theory.ModeSolution", "theory.PhasedMode", "theory.PhasedSolution"),
        *("theory.Reweighting", "theory.SharedFeatures", "theory.SoftmaxMode", "theory.SoftmaxReadOut"),
        *("datasets.ColouredDigits", "theory.Change", "theory.Peak", "theory.Shortcut", "theory.Stop"),
        *("theory.StarvingPair", "theory.TimeDistribution", "theory.ntk.RidgeOptimum", "theory.ConeBounds"),
        *("theory.DataGap", "theory.NearbySolution"),
        *("theorems.Counterexample", "theorems.Outcome", "theorems.Row", "theorems.Theorem"),
        *("diagnose.AfterTraining", "diagnose.HeldOut", "diagnose.MarginReport", "diagnose.StarvationReport"),
    ),
    RESULT,
) | dict.fromkeys(
    (
        *(
            "problem.Dynamics",
            "problem.LearningCurve",
            "problem.ModeCurve",
            "problem.NetworkCurve",
            "problem.Loss",
            "problem.Modes",
            "problem.Network",
            "problem.PhasedCurve",
            "Steps",
        ),
        *("CrossEntropy", "Exponential", "GradientFlow", "Hinge", "SquaredMargin"),
    ),
    BASE,
)
NOT_CALLED |= dict.fromkeys(
    ("ConvergenceError", "HypothesisError", "symbolic.DerivationError", "theory.jacobian.LinearRegimeWarning"),
    "an exception, which takes any text",
)
NOT_CALLED |= dict.fromkeys(("special.Clock", "special.ConstantClock", "special.LinearClock"), "a clock without numbers")
NOT_CALLED["open_sweep"] = "it takes the directory of a sweep; test_sweep_growth has strange ones"
NOT_CALLED["special.QuadratureClock"] = "it takes an object with a residual"
NOT_CALLED["datasets.with_patch"] = "a patch on pictures as they come, whose numbers are not looked at"
NOT_CALLED |= dict.fromkeys(
    tuple(f"theorems.{name}" for name in ("register", "Trials", "Drop", "compared", "draw_gaps", "LawFigure")),
    "part of the declaration of a law, whose trials `verify` judges",
)
NOT_CALLED["EventKind"] = "an enumeration of eight numbers"
NOT_CALLED["theory.minimax_peak"] = "it takes no argument"
NOT_CALLED["symbolic.available"] = "it takes no argument"

X = np.array([[1.0, 0.2], [0.8, -0.1], [-1.0, 0.1], [-0.9, 0.3]])
Y = np.array([1, 1, -1, -1])
K = X @ X.T * np.outer(Y, Y) + 0.1 * np.eye(4)
TYPES, SHARES = [[1, 0], [1, 1]], [0.7, 0.3]


def logit(params, x):
    """A linear model."""
    return x @ params


@cache
def problems():
    """Data, network, mode, and what is made of them once."""
    data = gs.datasets.antipodal()
    network = gs.TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
    mode = gs.Mode(0.5, 1.0, [0.2, 0.3], [0.1, -0.1])
    return data, network, mode


@cache
def blobs():
    """Twelve samples a class with a mark on some of them, and a report on them."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(24, 5)), np.repeat([1, -1], 12)
    x[:, 0] += y
    mark = np.arange(24) % 12 < 8
    x[mark, 4] += 3
    report = gs.starvation_report(logit, jnp.zeros(5), (x, y), {"mark": mark}, features=2, permutations=99)
    return x, y, mark, report


@cache
def results():
    """One result of each kind whose methods take numbers."""
    data, network, _ = problems()
    descent = gs.GradientDescent(0.1)
    run = gs.simulate(data, network, "hinge", descent, 3, progress=False)
    flow = gs.solve(data, network, "hinge")
    steps = gs.solve(data, network, "hinge", descent)
    found = gs.sweep(data, 4, steps=3, width=2, progress=False)
    return run, flow, steps, found


@cache
def verified():
    """A theorem tried."""
    return gs.verify("sign", trials=2, progress=False, precision="float32")


def calls():
    """name -> (callable, arguments)."""
    data, network, mode = problems()
    x, y, mark, report = blobs()
    run, flow, steps, found = results()
    key = jax.random.key(0)
    many = {"types": TYPES, "probabilities": SHARES}
    margins = np.outer(np.linspace(0, 4, 5), np.linspace(0.5, 1.5, 24))
    w, quiet = jnp.zeros(5), {"progress": False}
    descent = {"mode": mode, "loss": "hinge", "dynamics": gs.GradientDescent(0.1), "phases": None}
    chances = gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(0.1))
    turned = gs.solve_mode(mode, "hinge", phases=[(2.0, 0.5), (None, -0.5)])
    changing = gs.solve([(5, data), (None, data)], network, "hinge", gs.GradientDescent(0.1))
    batches = gs.solve_mode(mode, "hinge", gs.StochasticGradientDescent(0.1, batch_size=2))
    kappa, wait = theory.KappaDistribution(3, 1.0, 0.5), theory.LearningTime(0.5, 1.0, 0.5, 0.5, "hinge", 0.5)
    return {
        # the ground floor
        "ClassDataset": (gs.ClassDataset, {"points": X, "classes": [0, 1, 2, 0], "weights": [0.25] * 4}),
        "Dataset": (gs.Dataset, {"points": X, "labels": Y, "weights": np.full(4, 0.25), "directions": None}),
        "DeepReLU": (gs.DeepReLU, {"layers": [[[1.0, 0.0]], [2.0]], "connections": [[[1, 1]], [1]]}),
        "GradientDescent": (
            gs.GradientDescent,
            {"step_size": 0.1, "momentum": 0.5, "nesterov": False, "weight_decay": 0.01, "read_out_step_size": 0.2},
        ),
        "NormalizedGradientDescent": (gs.NormalizedGradientDescent, {"step_size": 0.1}),
        "SharpnessAware": (gs.SharpnessAware, {"step_size": 0.1, "radius": 0.1}),
        "SignDescent": (gs.SignDescent, {"step_size": 0.1}),
        "StochasticGradientDescent": (gs.StochasticGradientDescent, {"step_size": 0.1, "batch_size": 2}),
        "Mode": (gs.Mode, {"frequency": 0.5, "norm": 1.0, "a": [0.2, 0.3], "z": [0.1, -0.1]}),
        "SoftmaxOneLayer": (gs.SoftmaxOneLayer, {"v": [[1.0, 0.0], [0.0, 1.0]]}),
        "SoftmaxTwoLayer": (gs.SoftmaxTwoLayer, {"w": [[1.0, 0.0]], "z": [[1.0, 0.0, 2.0]]}),
        "SpectralDecoupling": (
            gs.SpectralDecoupling,
            {"loss": "cross-entropy", "penalty": 0.1, "target": 0.0, "scaling": "added"},
        ),
        "SpectralDecoupling.by_class": (
            gs.SpectralDecoupling.by_class,
            {"loss": "hinge", "labels": Y, "penalty": (0.1, 0.2), "target": (0.0, 1.0), "scaling": "added"},
        ),
        "FlippedLabels": (gs.FlippedLabels, {"loss": "cross-entropy", "share": 0.1}),
        "Focal": (gs.Focal, {"gamma": 2.0}),
        "MarginShift": (gs.MarginShift, {"loss": "hinge", "shift": 0.5}),
        "MarginShift.by_class": (gs.MarginShift.by_class, {"loss": "hinge", "labels": Y, "shift": (0.1, 0.2)}),
        "Temperature": (gs.Temperature, {"loss": "cross-entropy", "temperature": 2.0}),
        "TwoLayerReLU": (gs.TwoLayerReLU, {"w": [[0.3, 0.1], [-0.2, 0.4]], "z": [0.2, -0.1], "slope": 0.1}),
        "Dataset.ray": (data.ray, {"label": 1}),
        "Dataset.with_bias": (data.with_bias, {"feature": 0.5}),
        "Solution.on": (gs.solve(data, network, "hinge", gs.GradientDescent(0.1)).on, {"data": data}),
        "Dataset.margins": (data.margins, {"outputs": np.array([0.5, 0.5])}),
        "TwoLayerReLU()": (network, {"points": X}),
        "enable_compilation_cache": (gs.enable_compilation_cache, {"directory": folder()}),
        "exclusive": (gs.exclusive, {"network": network, "data": gs.datasets.orthogonal(), "key": key}),
        "init_deep": (gs.init_deep, {"key": key, "batch": 2, "widths": (3,), "dim": 2, "scale": 1.0}),
        "init_softmax": (
            gs.init_softmax,
            {"key": key, "batch": 2, "width": 3, "classes": 2, "dim": 2, "scale_w": 1.0, "scale_z": 1.0},
        ),
        "init_two_layer": (
            gs.init_two_layer,
            {"key": key, "batch": 2, "width": 3, "dim": 2, "scale_w": 1.0, "scale_z": 1.0},
        ),
        "datasets.antipodal": (
            gs.datasets.antipodal,
            {"dim": 2, "norms": (1.0, 2.0), "frequencies": (0.5, 0.5), "key": None},
        ),
        "datasets.orthogonal": (
            gs.datasets.orthogonal,
            {"dim": 2, "norms": (1.0, 2.0), "frequencies": (0.5, 0.5), "key": key},
        ),
        "datasets.orthogonal_classes": (
            gs.datasets.orthogonal_classes,
            {"classes": 3, "norm": 1.0, "frequencies": (0.5, 0.25, 0.25)},
        ),
        "datasets.cones": (
            gs.datasets.cones,
            {"key": key, "dim": 2, "points_per_class": 2, "opening": 0.5, "spread": 0.3},
        ),
        "datasets.features": (
            gs.datasets.features,
            {**many, "dim": 2, "scales": (1.0, 2.0), "key": None, "mirrored": False},
        ),
        "datasets.starving_pair": (
            gs.datasets.starving_pair,
            {"p_frequent": 0.75, "p_both": 0.25, "dim": 2, "scales": (1.0, 1.0), "key": None, "mirrored": False},
        ),
        "datasets.shortcut": (
            gs.datasets.shortcut,
            {"agreement": 0.75, "core": 1.0, "shortcut": 2.0, "dim": 2, "key": None, "mirrored": True},
        ),
        "datasets.coloured_digits": (
            gs.datasets.coloured_digits,
            {
                **{"agreement": 0.9, "pair": (3, 8), "key": 0, "colour": 1.0, "stripes": 0.1, "stripe_agreement": 0.9},
                **{"train": 0.5},
            },
        ),
        "datasets.signed_types": (gs.datasets.signed_types, {"agreement": 0.75, "core": 1.0, "shortcut": 2.0}),
        "datasets.check_types": (gs.datasets.check_types, {"types": np.array(TYPES)}),
        "datasets.read": (gs.datasets.read, {"path": table()}),
        "datasets.digits": (
            gs.datasets.digits,
            {
                "pair": (3, 8),
                "key": 0,
                "frequencies": (0.5, 0.5),
                "brightness": (1.0, 1.0),
                "patch": 0.1,
                "patch_value": 1.0,
                "centred": False,
                "train": 0.5,
            },
        ),
        "problem.as_loss": (problem.as_loss, {"loss": "hinge"}),
        "problem.with_closed_form": (problem.with_closed_form, {"loss": "hinge"}),
        "problem.clock_of": (problem.clock_of, {"loss": problem.Hinge()}),
        # the theory
        "solve": (gs.solve, {"data": data, "network": network, "loss": "hinge", "dynamics": None}),
        "solve_mode": (gs.solve_mode, descent),
        "Solution.logits": (flow.logits, {"t": 1.0}),
        "Solution.network": (flow.network, {"t": 1.0}),
        "Solution.margins": (steps.margins, {"t": 2}),
        "Solution.time_to_error": (steps.time_to_error, {"error": 0.4, "max_steps": 100}),
        "Solution.time_to_loss": (flow.time_to_loss, {"loss": 0.4}),
        "Trajectory.time_to_error": (run.time_to_error, {"error": 0.4}),
        "Trajectory.time_to_loss": (run.time_to_loss, {"loss": 0.4}),
        "ModeSolution.logit": (flow.plus.logit, {"t": 1.0}),
        "ModeSolution.time_to_logit": (flow.plus.time_to_logit, {"logit": 0.5}),
        "ModeSolution.time_to_error": (flow.plus.time_to_error, {"error": 0.4}),
        "ModeSolution.time_to_loss": (flow.plus.time_to_loss, {"loss": 0.4}),
        "ModeDescent.logit": (steps.plus.logit, {"step": 2}),
        "ModeDescent.time_to_logit": (steps.plus.time_to_logit, {"logit": 0.5, "max_steps": 100}),
        "ModeDescent.time_to_error": (steps.plus.time_to_error, {"error": 0.4, "max_steps": 100}),
        "PhasedMode.logit": (turned.logit, {"t": 3.0}),
        "PhasedSolution.logits": (changing.logits, {"t": 3}),
        "PhasedSolution.time_to_error": (changing.time_to_error, {"error": 0.4, "max_steps": 20}),
        "theory.still_alive": (theory.still_alive, {"a": 0.1, "z": 0.2, "lowest": -1.0, "highest": 2.0}),
        "theory.alive_share": (
            theory.alive_share,
            {"lowest": -1.0, "highest": 2.0, "scale_a": 1.0, "scale_z": 0.5},
        ),
        "ModeMiniBatch.distribution": (batches.distribution, {"step": 3}),
        "ModeMiniBatch.expected_logit": (batches.expected_logit, {"step": 2}),
        "ModeMiniBatch.time_to_logit": (batches.time_to_logit, {"logit": 0.5}),
        "ModeSGD.distribution": (chances.distribution, {"step": 3}),
        "ModeDescent.time_to_loss": (steps.plus.time_to_loss, {"loss": 0.4, "max_steps": 100}),
        "ModeSGD.time_to_loss": (chances.time_to_loss, {"loss": 0.4}),
        "ModeSGD.time_to_logit": (chances.time_to_logit, {"logit": 0.5}),
        "theory.KappaDistribution": (theory.KappaDistribution, {"width": 3, "norm": 1.0, "scale": 0.5}),
        "KappaDistribution.cdf": (kappa.cdf, {"kappa": 0.5}),
        "KappaDistribution.quantile": (kappa.quantile, {"probability": 0.5}),
        "theory.LearningTime": (
            theory.LearningTime,
            {"frequency": 0.5, "norm": 1.0, "scale_a": 0.5, "scale_z": 0.5, "loss": "hinge", "logit": 0.5},
        ),
        "LearningTime.cdf": (wait.cdf, {"t": 3.0}),
        "LearningTime.quantile": (wait.quantile, {"probability": 0.5}),
        "theory.antipodal_fate": (theory.antipodal_fate, {"a": 0.1, "z": 0.2}),
        "theory.class_failure_probability": (theory.class_failure_probability, {"width": 3}),
        "theory.cone_bounds": (theory.cone_bounds, {"data": data, "network": network, "loss": "hinge"}),
        "theory.confident_logit": (theory.confident_logit, {"error": 0.1}),
        "theory.decay_threshold": (theory.decay_threshold, {"frequency": 0.5, "norm": 1.0, "loss": "hinge"}),
        "theory.decayed_logit": (
            theory.decayed_logit,
            {"frequency": 0.5, "norm": 1.0, "start": 0.1, "weight_decay": 0.1, "loss": "hinge", "t": 1.0},
        ),
        "theory.decayed_time": (
            theory.decayed_time,
            {"frequency": 0.5, "norm": 1.0, "start": 0.1, "weight_decay": 0.1, "loss": "hinge", "logit": 0.5},
        ),
        "theory.settled_logit": (
            theory.settled_logit,
            {"frequency": 0.5, "norm": 1.0, "weight_decay": 0.1, "loss": "hinge"},
        ),
        "theory.depth_mode": (
            theory.depth_mode,
            {"frequency": 0.5, "norm": 1.0, "layers": [0.1, 0.1, 0.1], "loss": "hinge"},
        ),
        "theory.biased_cosine": (theory.biased_cosine, {"norm_plus": 1.0, "norm_minus": 2.0, "feature": 0.5}),
        "theory.death_probability": (theory.death_probability, {"cosine": -0.5, "scale_a": 1.0, "scale_z": 2.0}),
        "theory.dies_for_ever": (theory.dies_for_ever, {"alpha": -0.5, "beta": 0.4, "cosine": -0.5}),
        "theory.equal_speed_weights": (
            theory.equal_speed_weights,
            {**many, "loss": "hinge", "depth": 1, "scales": (1.0, 2.0), "init": (0.1, 0.1)},
        ),
        "theory.equal_time_weights": (
            theory.equal_time_weights,
            {**many, "logit": 0.5, "loss": "hinge", "depth": 1, "scales": (1.0, 2.0), "init": (0.1, 0.1)},
        ),
        "theory.fastest_weights": (
            theory.fastest_weights,
            {**many, "loss": "hinge", "depth": 1, "scales": (1.0, 2.0), "init": (0.1, 0.1)},
        ),
        "early_alignment": (
            gs.early_alignment,
            {"data": data, "network": network, "loss": "hinge", "max_events": 100},
        ),
        "theory.plateau_exits": (
            theory.plateau_exits,
            {"data": data, "network": network, "residuals": np.ones((1, data.size))},
        ),
        "Alignment.network": (gs.early_alignment(data, network).network, {"t": 1.0, "throw": True}),
        "Alignment.exit_time": (gs.early_alignment(data, network).exit_time, {"scale": 0.1, "level": 1.0, "throw": True}),
        "Alignment.valid_until": (gs.early_alignment(data, network).valid_until, {"tolerance": 0.1, "throw": True}),
        "theory.error_inflections": (theory.error_inflections, {"loss": "hinge", "kappa": 0.5}),
        "theory.error_tail": (
            theory.error_tail,
            {"loss": "cross-entropy", "t": 1e4, "frequency": 0.5, "norm": 1.0, "depth": 2, "leading": False},
        ),
        "theory.exclusive_fate": (theory.exclusive_fate, {"a": 0.1, "z": 0.2}),
        "theory.feature_flow": (
            theory.feature_flow,
            {**many, "loss": "hinge", "depth": 1, "scales": (1.0, 1.0), "init": (0.0, 0.0)},
        ),
        "FeatureFlow.features": (
            theory.feature_flow(TYPES, SHARES, "hinge").features,
            {"t": 1.0},
        ),
        "theory.generator_signal": (theory.generator_signal, {"loss": "hinge", "margin": 1.0, "norm": 1.0}),
        "theory.hinge_advantage": (theory.hinge_advantage, {"start": 0.01}),
        "theory.catapult": (
            theory.catapult,
            {
                **{"frequency": 0.5, "norm": 1.0, "kappa": 1.0, "start": 0.1, "loss": "squared", "step_size": 0.5},
                "max_steps": 500,
            },
        ),
        "theory.decayed_kappa": (theory.decayed_kappa, {"kappa": 1.0, "weight_decay": 0.1, "t": 1.0}),
        "theory.edge_of_stability": (
            theory.edge_of_stability,
            {"frequency": 0.5, "norm": 1.0, "loss": "squared", "step_size": 0.5},
        ),
        "theory.kappa_path": (
            theory.kappa_path,
            {
                **{"frequency": 0.5, "norm": 1.0, "kappa": 1.0, "start": 0.1, "loss": "squared", "step_size": 0.5},
                **{"steps": 2, "weight_decay": 0.1, "targets": [1.0, 0.5]},
            },
        ),
        "theory.lazy_to_rich_time": (
            theory.lazy_to_rich_time,
            {"kappa": 1.0, "weight_decay": 0.1, "loss": "cross-entropy"},
        ),
        "theory.squared_gradient_norm": (theory.squared_gradient_norm, {"norm": 1.0, "kappa": 1.0, "logit": 0.5}),
        "theory.kappa_critical": (theory.kappa_critical, {"loss": "cross-entropy"}),
        "theory.learning_probability": (
            theory.learning_probability,
            {"scale_a": 1.0, "scale_z": 2.0, "dynamics": gs.SignDescent(0.1), "reach": 1.5},
        ),
        "theory.max_margin_direction": (theory.max_margin_direction, {"points": [[2.0, 0.0], [0.0, 1.0]]}),
        "theory.minimax_tail": (theory.minimax_tail, {"t": 1e4, "frequency": 0.5, "norm": 1.0, "depth": 2}),
        "theory.one_layer_logit": (
            theory.one_layer_logit,
            {"frequency": 0.5, "norm": 1.0, "start": 0.0, "loss": "hinge", "t": 1.0},
        ),
        "theory.one_layer_time": (
            theory.one_layer_time,
            {"frequency": 0.5, "norm": 1.0, "start": 0.0, "loss": "hinge", "logit": 0.5},
        ),
        "theory.plateau_length": (
            theory.plateau_length,
            {"loss": "hinge", "start": 1e-3, "frequency": 0.5, "norm": 1.0},
        ),
        "theory.settled_features": (theory.settled_features, {**many, "loss": "squared", "depth": 1}),
        "theory.shared_features": (
            theory.shared_features,
            {**many, "loss": "hinge", "w": [[0.3, 0.1]], "z": [0.2], "scales": (1.0, 1.0)},
        ),
        "theory.shared_slope": (
            theory.shared_slope,
            {"p_frequent": 0.7, "p_both": 0.3, "loss": "hinge", "frequent": 0.0, "rare": 0.0},
        ),
        "theory.shortcut": (
            theory.shortcut,
            {
                **{"agreement": 0.8, "loss": "hinge", "core": 1.0, "shortcut": 1.0, "depth": 1, "init": (0.1, 0.1)},
                **{"weights": [0.5, 0.5], "noise": None},
            },
        ),
        "theory.minority_needed": (
            theory.minority_needed,
            {
                **{"accuracy": 0.6, "t": 100.0, "loss": "hinge", "core": 1.0, "shortcut": 1.0, "noise": None},
                **{"train_noise": None},
            },
        ),
        "theory.softmax_mode": (
            theory.softmax_mode,
            {"classes": 3, "frequency": 0.5, "norm": 1.0, "a": [0.1], "z": [0.1], "start": 0.0},
        ),
        "theory.starvation_index": (theory.starvation_index, {"found": 0.5, "alone": 1.0}),
        "theory.starving_pair": (
            theory.starving_pair,
            {"p_frequent": 0.7, "p_both": 0.3, "loss": "hinge", "depth": 1, "init": (0.0, 0.0)},
        ),
        "theory.time_to_confidence": (
            theory.time_to_confidence,
            {"loss": "cross-entropy", "error": 0.1, "frequency": 0.5, "norm": 1.0, "start": 0.1, "kappa": 0.0},
        ),
        "theory.wrong_sign_fraction": (
            theory.wrong_sign_fraction,
            {"t": 1.0, "frequency": 0.5, "norm": 1.0, "loss": "hinge", "scale_a": 1.0, "scale_z": 1.0},
        ),
        "theory.wrong_sign_time": (
            theory.wrong_sign_time,
            {"fraction": 0.1, "frequency": 0.5, "norm": 1.0, "loss": "hinge", "scale_a": 1.0, "scale_z": 1.0},
        ),
        "theory.ntk.features": (ntk.features, {"K": K}),
        "theory.ntk.logistic_flow": (ntk.logistic_flow, {"K": K, "times": [0.0, 1.0], "start": np.zeros(4)}),
        "theory.ntk.ridge_dual_flow": (
            ntk.ridge_dual_flow,
            {"K": K, "ridge": 0.1, "times": [0.0, 1.0], "alpha": np.full(4, 0.5)},
        ),
        "theory.ntk.ridge_flow": (ntk.ridge_flow, {"K": K, "ridge": 0.1, "times": [0.0, 1.0]}),
        "theory.ntk.ridge_optimum": (ntk.ridge_optimum, {"K": K, "ridge": 0.1}),
        "theory.ntk.spectral_decoupling_flow": (
            ntk.spectral_decoupling_flow,
            {"K": K, "penalty": 0.1, "times": [0.0, 1.0], "start": np.zeros(4)},
        ),
        "theory.ntk.spectral_decoupling_optimum": (ntk.spectral_decoupling_optimum, {"n": 4, "penalty": 0.1}),
        "theory.ntk.starvation_derivatives": (ntk.starvation_derivatives, {"K": K, "ridge": 0.1}),
        "theory.jacobian.check_linear_regime": (jacobian.check_linear_regime, {"K0": K, "K1": K, "limit": 0.1}),
        "theory.jacobian.cross_kernel": (
            jacobian.cross_kernel,
            {"apply": logit, "params": w, "x1": x, "y1": y, "x2": x, "y2": y, "memory": None},
        ),
        "theory.jacobian.kernel_change": (jacobian.kernel_change, {"K0": K, "K1": K}),
        "theory.jacobian.kernel_product": (jacobian.kernel_product, {"apply": logit, "params": w, "x": x, "y": y}),
        "theory.jacobian.margin_jacobian": (
            jacobian.margin_jacobian,
            {"apply": logit, "params": w, "x": x, "y": y, "memory": None},
        ),
        "theory.jacobian.margin_kernel": (
            jacobian.margin_kernel,
            {"apply": logit, "params": w, "x": x, "y": y, "memory": None},
        ),
        "theory.jacobian.margins": (jacobian.margins, {"apply": logit, "params": w, "x": x, "y": y}),
        # the special functions
        "special.binomial_at_least": (special.binomial_at_least, {"successes": 2, "trials": 5, "probability": 0.5}),
        "special.binomial_log_pmf": (special.binomial_log_pmf, {"successes": 2, "trials": 5, "probability": 0.5}),
        "special.ExponentialClock": (special.ExponentialClock, {"constant": 0.5}),
        "special.Softmax": (special.Softmax, {"others": 9.0}),
        "special.clock_integral": (special.clock_integral, {"kind": "hinge", "u0": 0.1, "u": 0.5, "kappa": 0.3}),
        "special.clock_state": (special.clock_state, {"kind": "hinge", "rise": 0.3, "fall": 0.1, "time": 1.0}),
        "special.clock_time": (special.clock_time, {"kind": "hinge", "rise": 0.3, "fall": 0.1, "angle": 0.5}),
        "special.expi": (special.expi, {"x": 0.5}),
        "special.expi_scaled": (special.expi_scaled, {"x": 0.5}),
        "special.lambertw": (special.lambertw, {"x": 0.5, "branch": 0}),
        "special.lambertw_exp": (special.lambertw_exp, {"y": 0.5}),
        # derivations
        "derive": (gs.derive, {"name": "one-layer", "loss": "hinge"}),
        "Derivation.to_jax": (gs.derive("one-layer", "hinge").to_jax, {"which": "u(t)"}),
        "symbolic.latex_document": (symbolic.latex_document, {"derivations": [gs.derive("one-layer", "hinge")]}),
        # training
        "simulate": (
            gs.simulate,
            {
                "data": data,
                "network": network,
                "loss": "hinge",
                "dynamics": optax.sgd(0.1),
                "steps": 2,
                "record_every": 1,
                "key": None,
                "record_networks": False,
                "progress": False,
                "throw": True,
                "engine": "reference",
            },
        ),
        "simulate_flow": (
            gs.simulate_flow,
            {
                "data": data,
                "network": network,
                "loss": "hinge",
                "times": [0.0, 0.1],
                "rtol": 1e-6,
                "atol": 1e-6,
                "max_steps": 1000,
                "record_networks": False,
                "progress": False,
                "throw": True,
            },
        ),
        "simulate_hinge_exact": (
            gs.simulate_hinge_exact,
            {
                "data": data,
                "network": network,
                "times": [0.0, 1.0],
                "max_events": 50,
                "record_networks": False,
                "throw": True,
                **quiet,
            },
        ),
        "Trajectory.logits": (run.logits, {"t": 2}),
        "Trajectory.network": (run.network, {"t": 3}),
        "sweep": (
            gs.sweep,
            {
                "data": data,
                "seeds": 4,
                "steps": 2,
                "record_every": 1,
                "width": 2,
                "loss": "hinge",
                "dynamics": gs.GradientDescent(0.1),
                "scale_w": 1.0,
                "scale_z": 1.0,
                "over": None,
                "network": None,
                "statistics": None,
                "key": 0,
                **quiet,
            },
        ),
        "SweepResult.quantile": (found.quantile, {"name": "error", "levels": [0.1, 0.5]}),
        "SweepResult.time_to_learn": (found.time_to_learn, {"level": 0.5, "of": ""}),
        "compare": (gs.compare, {"solution": steps, "trajectory": run, "t": [0, 2], "step_size": None}),
        "phase_diagram": (
            gs.phase_diagram,
            {"losses": "hinge", "plane": "neuron", "pixels": 4, "extent": 2.0, "frequencies": (0.5, 0.5), **quiet},
        ),
        "verify": (
            gs.verify,
            {"names": "sign", "trials": 2, "key": None, "quick": False, "precision": "float32", **quiet},
        ),
        "animate": (
            gs.animate,
            {"thing": picture(), "path": f"{folder()}/a.gif", "seconds": 1.0, "hold": 1.0, "frames": 2, "dpi": 40},
        ),
        "restyle": (
            gs.restyle,
            {"figure": picture(), "words": {"a": "b"}, "title": "b", "figsize": (3, 2), "font": None, "font_scale": 1.1},
        ),
        "theorems.draw": (theorems.draw, {"row": verified().rows[0], "titled": True}),
        # the diagnosis
        "starvation_report": (
            gs.starvation_report,
            {
                "model": (logit, w),
                "data": (x, y),
                "groups": {"mark": mark},
                "attribute": None,
                "test": None,
                "edited": None,
                "last_layer": False,
                "splits": 5,
                "parameters": None,
                "step_size": 0.1,
                "batch_size": 8,
                "momentum": 0.5,
                "until_error": 0.1,
                "times": [0.0, 0.1],
                "penalty": 0.02,
                "features": 0,
                "memory": None,
                "permutations": 99,
                "key": 0,
                **quiet,
            },
        ),
        "diagnose.from_jacobian": (
            diagnose.from_jacobian,
            {"jacobian": x, "labels": y, "logits": np.zeros(24), "groups": mark, "features": 0, "permutations": 99},
        ),
        "diagnose.from_kernel": (
            diagnose.from_kernel,
            {"kernel": x @ x.T, "labels": y, "logits": np.zeros(24), "groups": mark, "features": 0, "permutations": 99},
        ),
        "diagnose.from_margins": (
            diagnose.from_margins,
            {
                "margins": margins,
                "times": np.arange(5.0),
                "groups": ["light"] * 12 + ["dark"] * 12,
                "labels": y,
                "alone": margins,
                "until_error": 0.05,
                "permutations": 99,
                "key": 0,
            },
        ),
        "diagnose.after_training": (
            diagnose.after_training,
            {"report": report, "trained": np.full(24, 0.5), "alone": np.full(24, 0.7)},
        ),
    }


class Tensor:
    """An array of another library: numbers behind `__array__`, a dtype that NumPy does not know, on a device."""

    def __init__(self, values):
        self._values, self.shape, self.dtype = np.asarray(values), np.shape(values), "torch.float64"

    def detach(self):
        """Without its derivatives."""
        return self

    def cpu(self):
        """On the host."""
        return self

    def __array__(self, dtype=None, copy=None):
        return self._values if dtype is None else self._values.astype(dtype)

    def __repr__(self):
        return f"Tensor({self._values!r})"


class Frame:
    """A table of another library, without a dtype of its own."""

    def __init__(self, values):
        self._values = np.asarray(values, object)

    def __array__(self, dtype=None, copy=None):
        return self._values if dtype is None else self._values.astype(dtype)


class Broken:
    """An object whose every conversion fails."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("Can't call numpy() on this")

    def __repr__(self):
        raise RuntimeError("no repr either")


VALUES = {
    "None": lambda: None,
    "empty string": lambda: "",
    "string": lambda: "abc",
    "bytes": lambda: b"x",
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: -float("inf"),
    "-1": lambda: -1,
    "0": lambda: 0,
    "1.5": lambda: 1.5,
    "10**400": lambda: 10**400,
    "2**70": lambda: 2**70,
    "complex": lambda: 1 + 2j,
    "True": lambda: True,
    "object": object,
    "list": list,
    "dict": dict,
    "set": set,
    "set of numbers": lambda: {1.0, 2.0},
    "empty array": lambda: np.zeros(0),
    "array of no axis": lambda: np.array(0.5),
    "row of three": lambda: np.array([0.1, 0.2, 0.3]),
    "four axes": lambda: np.ones((2, 1, 2, 1)),
    "ragged": lambda: [[1.0, 2.0], [3.0]],
    "objects": lambda: np.array([None, "a"], object),
    "strings": lambda: np.array(["a", "b"]),
    "booleans": lambda: np.array([True, False]),
    "integers": lambda: np.array([1, 2]),
    "bfloat16": lambda: jnp.ones(2, jnp.bfloat16),
    "float16": lambda: np.ones(2, np.float16),
    "complex array": lambda: np.ones(2, complex),
    "nan in an array": lambda: np.array([0.5, np.nan]),
    "inf in an array": lambda: np.array([np.inf, 0.5]),
    "subnormal": lambda: 1e-320,
    "huge": lambda: 1e300,
    "class": lambda: float,
    "function": lambda: len,
    "generator": lambda: (i for i in range(2)),
    "Decimal": lambda: decimal.Decimal("0.25"),
    "Fraction": lambda: fractions.Fraction(1, 4),
    "date": lambda: np.array(["2020-01-01"], "datetime64[D]"),
    "timedelta": lambda: datetime.timedelta(1),
    "-0.0": lambda: -0.0,
    "NumPy scalar": lambda: np.float32(0.25),
    "range": lambda: range(2),
    "JAX key": lambda: jax.random.key(1),
    "broken object": Broken,
    "long string": lambda: "x" * 10_000,
    "network": lambda: problems()[1],
    "masked": lambda: np.ma.masked_array([0.5, 0.5], [False, True]),
}


def within(valid, change):
    """`change` applied to the numbers of a valid argument, or None where it has none."""
    try:
        array = np.array(valid, np.float64)
    except (TypeError, ValueError):
        return None
    return change(array) if array.size and np.isfinite(array).all() else None


def _first(value, array):
    array.flat[0] = value
    return array


CHANGES = {
    "with a nan": partial(_first, np.nan),
    "with an inf": partial(_first, np.inf),
    "with 1e300": partial(_first, 1e300),
    "with 1e-320": partial(_first, 1e-320),
    "negated": lambda array: -array,
    "as bfloat16": lambda array: jnp.asarray(array, jnp.bfloat16),
    "as float16": lambda array: array.astype(np.float16),
    "as complex": lambda array: array + 1j,
    "as strings": lambda array: array.astype(str),
    "as objects": lambda array: array.astype(object),
    "as fractions": lambda array: np.vectorize(fractions.Fraction, otypes=[object])(array),
    "as a list": lambda array: array.tolist(),
    "as a tensor": Tensor,
    "as a frame": Frame,
    "with a mask": lambda array: np.ma.masked_array(array, np.ones(array.shape, bool)),
    "without a mask": lambda array: np.ma.masked_array(array),
    "with an axis more": lambda array: array[None],
    "with None": lambda array: _first(None, array.astype(object)),
    "with 10**400": lambda array: _first(10**400, array.astype(object)),
    "without an entry": lambda array: array[:-1] if array.ndim else array[None][:0],
}
