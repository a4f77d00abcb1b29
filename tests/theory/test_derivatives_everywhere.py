"""Every differentiable law has its first and second derivatives where square roots and branches meet.

The points are those at which a law in other coordinates would have no derivative: balanced starts (a = z, kappa = 0), the
stable manifold (z = -a), a member that never learns beside others, times before and after an event. Hessians are
jacfwd(jacrev(f)) under jit and vmap; both orders are compared with central differences at points of the same program.

To add a law: a row of `SCALARS` or `LAWS` (a function of one vector and the points to try it at) or of `OF_A_MODE`, and its
name in `ROWS`; a public name without a row has its reason in `WITHOUT`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import special, theory
from gradstarve.problem import FlippedLabels
from gradstarve.theory import solve_mode

# What has no derivative, by mathematics, and is not tried.
KINKS = {
    "events": "at the time of an event the speed jumps: a left and a right derivative",
    "hinge": "at u = 1 the logit stops, and a time to a logit above 1 does not exist",
    "kappa_critical": "at kappa_c two inflections merge like a square root",
    "expi": "0, where Ei has a logarithm; lambertw: -1/e, the branch point, and error_inflections at kappa = 0 in kappa < 0",
    "fates": "antipodal_fate, exclusive_fate and dies_for_ever are steps",
}

# --- functions of one mode ---------------------------------------------------------------------------------------------

T = 4.0
OF_A_MODE = {
    "logit": lambda s: s.logit(T)[None],
    "error": lambda s: s.error(T)[None],
    "weights": lambda s: jnp.concatenate(s.weights(T)),
    "time_to_logit": lambda s: s.time_to_logit(0.5)[None],
    "time_to_error": lambda s: s.time_to_error(0.35)[None],
    "inflections": lambda s: s.inflections(),
    "events": lambda s: s.events,
}
# a_1, a_2, z_1, z_2
STARTS = {
    "balanced": (0.3, 0.2, 0.3, 0.2),
    "balanced but for one on the stable manifold": (0.3, 0.2, 0.3, -0.2),
    "none learns, on the stable manifold": (0.3, 0.2, -0.3, -0.2),
    "none learns": (0.3, 0.2, -0.5, -0.4),
    "late event": (0.4, 0.3, 0.3, -0.36),
    "early event": (0.4, 0.3, 0.3, -0.9),
    "lazy": (1.5, 1.0, 0.1, -0.2),
}
STEP = 1e-4


def finite(values):
    """What never happens counts as the constant it is."""
    return jnp.where(jnp.isfinite(values), values, 0)


def orders(function):
    """(f, Jacobian, Hessian) of each point, reverse mode inside and forward mode outside, in one program."""

    def at(x):
        return function(x), jax.jacrev(function)(x), jax.jacfwd(jax.jacrev(function))(x)

    return jax.jit(jax.vmap(at))


def against_differences(function, points, tolerance, names=None):
    """Compare the derivatives at `points` [n, d] with central differences of the order below."""
    points = np.asarray(points, float)
    moves = STEP * np.concatenate([np.zeros((1, points.shape[1])), np.eye(points.shape[1]), -np.eye(points.shape[1])])
    count = points.shape[1]
    value, slope, bend = map(np.asarray, orders(function)(jnp.asarray((points[:, None] + moves).reshape(-1, count))))
    value, slope, bend = (x.reshape(len(points), len(moves), *x.shape[1:]) for x in (value, slope, bend))
    assert np.isfinite(slope[:, 0]).all(), (names, slope[:, 0])
    assert np.isfinite(bend[:, 0]).all(), (names, bend[:, 0])
    np.testing.assert_allclose(bend[:, 0], np.swapaxes(bend[:, 0], -1, -2), rtol=1e-6, atol=1e-6)
    # A time that comes or goes within the step has no difference to compare with.
    exists = ((value == 0) == (value[:, :1] == 0)).all(axis=1)
    ahead, back = slice(1, count + 1), slice(count + 1, None)
    for found, below in ((slope, value), (bend, slope)):
        difference = np.moveaxis((below[:, ahead] - below[:, back]) / (2 * STEP), 1, -1)
        size = 1 + np.abs(difference).max(axis=tuple(range(2, difference.ndim)), keepdims=True)
        off = np.abs(found[:, 0] - difference) / size
        off = off.reshape(*exists.shape, -1).max(axis=-1) * exists
        assert (off < tolerance).all(), (names, np.argwhere(off >= tolerance).tolist(), off.max())
    return value[:, 0], slope[:, 0], bend[:, 0]


def of_a_mode(loss, laws, x):
    solution = solve_mode(gs.Mode(x[4], x[5], x[:2], x[2:4]), loss)
    return jnp.concatenate([finite(OF_A_MODE[law](solution)) for law in laws])


# A Hessian of everything at once is a minute of compiling for the losses with an integral, so the rest of theirs is slow.
QUICK = (("hinge", "every"), ("cross-entropy", "time_to_logit"))
TRIED = [
    pytest.param(loss, law, marks=[] if (loss, law) in QUICK else [pytest.mark.slow])
    for loss in ("cross-entropy", "hinge", "exponential", "squared")
    for law in (["every"] if loss == "hinge" else OF_A_MODE)
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("loss", "law"), TRIED)
def test_a_mode_has_its_derivatives_at_every_start(loss, law):
    points = [(*start, 0.6, 1.3) for start in STARTS.values()]
    laws = tuple(OF_A_MODE) if law == "every" else (law,)
    against_differences(functools.partial(of_a_mode, loss, laws), points, 2e-5, names=list(STARTS))


# --- functions of numbers ----------------------------------------------------------------------------------------------

SCALARS = {
    "lambertw": (lambda x: special.lambertw(x[0]), [(0.0,), (-0.25,), (5.0,)]),
    "lambertw, branch -1": (lambda x: special.lambertw(x[0], -1), [(-0.1,), (-0.25,)]),
    "lambertw_exp": (lambda x: special.lambertw_exp(x[0]), [(-3.0,), (0.0,), (30.0,)]),
    "expi": (lambda x: special.expi(x[0]), [(-2.0,), (0.3725,), (5.0,)]),
    "expi_scaled": (lambda x: special.expi_scaled(x[0]), [(-2.0,), (0.3725,), (50.0,)]),
    "binomial_at_least": (lambda x: special.binomial_at_least(3, 10, x[0]), [(0.3,), (0.7,)]),
    "binomial_log_pmf": (lambda x: special.binomial_log_pmf(3, 10, x[0]), [(0.3,), (0.7,)]),
    "one_layer_logit": (lambda x: theory.one_layer_logit(x[0], x[1], x[2], "cross-entropy", T), [(0.5, 1.0, 0.0)]),
    "one_layer_time": (lambda x: finite(theory.one_layer_time(x[0], x[1], x[2], "hinge", 0.8)), [(0.5, 1.0, 0.0)]),
    "settled_logit": (lambda x: theory.settled_logit(x[0], x[1], x[2]), [(0.5, 1.0, 0.1), (0.1, 1.0, 0.4)]),
    "plateau_length": (lambda x: theory.plateau_length(x[1], x[2], x[0], "hinge"), [(0.1, 0.5, 1.0)]),
    "error_inflections": (lambda x: jnp.sum(finite(theory.error_inflections(x[0], "cross-entropy"))), [(0.3,), (0.8,)]),
    "hinge_advantage": (lambda x: theory.hinge_advantage(x[0]), [(0.2,), (0.9,)]),
    "error_tail": (lambda x: 1e6 * theory.error_tail(x[0], x[1], "cross-entropy", 1e6), [(0.5, 1.0)]),
    "generator_signal": (lambda x: theory.generator_signal(x[1], "minimax", x[0]), [(1.2, 1.0), (0.0, 2.0)]),
    "wrong_sign_fraction": (lambda x: theory.wrong_sign_fraction(x[0], x[1], t=T), [(0.5, 1.0)]),
    "wrong_sign_time": (lambda x: theory.wrong_sign_time(x[0], x[1], fraction=x[2]), [(0.5, 1.0, 0.1), (0.5, 1.0, 0.6)]),
    "biased_cosine": (lambda x: theory.biased_cosine(x[0], x[1], x[2]), [(1.0, 2.0, 0.5), (1.0, 1.0, 1.0)]),
    "death_probability": (lambda x: theory.death_probability(x[0], x[1], x[2]), [(-0.5, 1.0, 2.0)]),
    "alive_share": (lambda x: theory.alive_share(-x[0], x[1]), [(0.5, 1.5)]),
    "learning_probability": (lambda x: theory.learning_probability(x[0], x[1]), [(1.0, 1.0)]),
    "shared_slope": (
        lambda x: theory.shared_slope(x[0], x[1], "cross-entropy", frequent=x[2], rare=x[3]),
        [(0.7, 0.3, 1.0, 0.2)],
    ),
}


SERIES = ("lambertw", "expi", "binomial", "error_", "hinge_")  # loops, whose Hessians take long to compile


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loops", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_functions_of_numbers_have_their_derivatives(loops):
    names = [name for name in SCALARS if name.startswith(SERIES) == loops]
    wide = max(len(point) for name in names for point in SCALARS[name][1])

    count = max(len(SCALARS[name][1]) for name in names)
    points = np.array([[[*p, *[0.5] * (wide - len(p))] for p in (SCALARS[n][1] * count)[:count]] for n in names])
    def each(x):
        """Value, gradient and Hessian of every function, [names, ...]."""
        one = [SCALARS[name][0] for name in names]
        slopes = jnp.stack([jax.grad(f)(x[k]) for k, f in enumerate(one)])
        bends = jnp.stack([jax.jacfwd(jax.grad(f))(x[k]) for k, f in enumerate(one)])
        return jnp.stack([f(x[k]) for k, f in enumerate(one)]), slopes, bends

    run = jax.jit(jax.vmap(each))
    moves = STEP * np.concatenate([np.zeros((1, wide)), np.eye(wide), -np.eye(wide)])
    grid = np.swapaxes(points, 0, 1)[:, None] + moves[None, :, None]
    tried = run(grid.reshape(-1, len(names), wide))
    value, slope, bend = (np.asarray(x).reshape(count, len(moves), *x.shape[1:]) for x in tried)
    ahead, back = slice(1, wide + 1), slice(wide + 1, None)
    for found, below in ((slope, value), (bend, slope)):
        difference = np.moveaxis((below[:, ahead] - below[:, back]) / (2 * STEP), 1, -1)
        for k, name in enumerate(names):
            assert np.isfinite(found[:, 0, k]).all(), (name, found[:, 0, k])
            scale = 1 + np.abs(difference[:, k]).max()
            assert np.abs(found[:, 0, k] - difference[:, k]).max() < 3e-5 * scale, (name, found[:, 0, k], difference[:, k])


# --- laws of several numbers: flows of features, decay, depth, softmax, starvation, ensembles, clocks ---------------------

CHAIN, TWINS, EACH = [[1, 0], [1, 1]], [[1, 1], [1, 1]], [[1, 0], [0, 1]]
PENALISED = gs.SpectralDecoupling("cross-entropy", 0.1)
FEATURES = (0.4, 0.5, 1.0, 1.2, 0.1, 0.2, 2.0)


def flow_of(types, loss, depth, x):
    # As inside jit, where nothing is known of the types.
    types = jnp.asarray(types, x.dtype)
    flow = theory.FeatureFlow(types, x[:2], x[2:4], x[4:6], gs.problem.as_loss(loss), depth)
    return flow.features(x[6])


def linear_flow(x):
    """Features of which none is like another, and those that only occur together and move along one line."""
    return jax.vmap(lambda types: flow_of(types, "squared", 1, x))(jnp.asarray([CHAIN, EACH, TWINS])).reshape(-1)


def pair_of(loss, depth, x):
    pair = theory.starving_pair(x[0], x[1], loss, depth=depth, init=(x[2], x[3]))
    return jnp.stack([*pair.features(x[4]), *pair.index(x[4]), *pair.bounds(x[4])])


def frozen(depth, x):
    pair = theory.starving_pair(x[0], x[1], "hinge", depth=depth, init=(x[2], x[3]))
    return jnp.stack([*pair.freeze, finite(pair.ceiling)])


def deep(loss, x):
    law = theory.depth_mode(x[0], x[1], x[2:5], loss)
    return jnp.concatenate([jnp.stack([law.logit(x[5]), law.error(x[5]), law.time_to_logit(0.5)]), law.weights(x[5])])


def softmax(x):
    law = theory.softmax_mode(x[0], x[1], x[2:4], x[4:6], classes=4)
    return jnp.concatenate([jnp.stack([law.gap(x[6]), law.error(x[6]), finite(law.time_to_gap(1.0))]), finite(law.events)])


def read_out(x):
    law = theory.softmax_mode(x[0], x[1], classes=4, start=x[2])
    return jnp.stack([law.gap(x[3]), law.error(x[3]), law.time_to_gap(1.0), law.time_to_error(0.3)])


def kappas(x):
    law = theory.KappaDistribution(2, x[0], x[1])
    return jnp.stack([law.mean, law.cdf(x[2]), law.survival(x[2]), law.density(x[2]), law.quantile(x[3])])


def learning_time(loss, x):
    law = theory.LearningTime(x[0], x[1], x[2], x[3], loss, x[4])
    return jnp.stack([law.cdf(x[5]), law.quantile(x[6])])


def shared(x):
    law = theory.shared_features(CHAIN, x[:2], loss="cross-entropy", w=x[2:4][None], z=x[4:5])
    return law.features(x[5])


def contradicted(x):
    law = theory.shortcut(x[0], "cross-entropy", core=x[1], shortcut=x[2])
    return jnp.concatenate([law.margins(x[3]), law.cell_accuracy(x[3], x[4])])


def decayed(loss, x):
    logit = theory.decayed_logit(x[0], x[1], x[2], x[3], loss, x[4])
    return jnp.stack([logit, finite(theory.decayed_time(x[0], x[1], x[2], x[3], loss, 0.3))])


def clocks(kind, x):
    return jnp.stack([
        special.clock_time(kind, x[0], x[1], x[2]),
        *special.clock_state(kind, x[0], x[1], x[3]),
        special.clock_integral(kind, x[4], x[5], x[6]),
    ])


def discriminator(x):
    signals = [theory.generator_signal(x[1], kind, x[0]) for kind in ("minimax", "non-saturating", "hinge")]
    return jnp.stack([*signals, theory.minimax_tail(x[3], x[1], t=x[2]), theory.confident_logit(x[4])])


def in_steps(x):
    u, kappa = theory.kappa_path(x[0], x[1], x[2], x[3], "cross-entropy", x[4], steps=6, weight_decay=x[5])
    return jnp.stack([u[-1], kappa[-1], theory.squared_gradient_norm(x[1], kappa[2], u[2])])


def after_steps(x):
    smoothed = FlippedLabels("cross-entropy", x[5])
    edge = theory.edge_of_stability(x[0], x[1], smoothed, x[4])
    return jnp.stack([edge, *theory.catapult(x[0], x[1], x[2], x[3], smoothed, x[4], max_steps=2000)])


def under_decay(x):
    return jnp.stack([theory.decayed_kappa(x[0], x[1], x[2]), theory.lazy_to_rich_time(x[0], x[1])])


SAME = (0.5, 0.5, 1.0, 1.0, 0.2, 0.2, 0.3)
DEEP = [(0.5, 1.0, 0.5, 0.5, 0.5, 1.0), (0.5, 1.0, 0.5, 0.6, 0.7, 3.0)]
LEARNING = [(0.5, 1.0, 0.3, 0.2, 0.5, 6.0, 0.6), (0.5, 1.0, 0.3, 0.3, 0.5, 4.0, 0.4)]
LINEAR = [FEATURES, (0.5, 0.5, 1.0, 1.0, 0.0, 0.0, 2.0), (0.5, 0.4, 1.0, 1.2, 0.1, 0.2, 900.0)]
SETTLED = [(0.4, 0.3, 0.3), (0.3, 0.3, 0.3)]
DECAYED = [(0.5, 1.0, 0.05, 0.1, 20.0), (0.1, 1.0, 0.4, 0.3, 2.0), (0.5, 1.0, 0.7, 0.1, 3.0)]
CLOCK = [(0.8, 0.3, 0.2, 0.3, -0.3, 0.4, 0.5), (0.5, 0.5, 0.3, 0.2, 0.1, 0.4, 0.3), (0.3, 0.01, 0.1, 0.2, 0.2, 0.6, 0.01)]
PAIRS = [(0.6, 0.3, 0.1, 0.2, 3.0), (0.4, 0.4, 0.2, 0.2, 1.0)]
LAWS = {
    "feature flow, linear": (linear_flow, LINEAR),
    "settled features": (lambda x: theory.settled_features([*CHAIN, [0, 1]], x, PENALISED), SETTLED),
    "decay, squared": (functools.partial(decayed, "squared"), DECAYED),
    "softmax, one layer": (read_out, [(0.3, 1.0, 0.0, 5.0), (0.3, 1.0, 0.4, 50.0)]),
    "pair, exponential": (functools.partial(pair_of, "exponential", 1), [*PAIRS, (0.6, 0.3, 0.0, 0.1, 3.0)]),
    "clocks, hinge": (functools.partial(clocks, "hinge"), CLOCK),
    "discriminator": (discriminator, [(1.2, 1.0, 1e3, 0.5, 0.1), (0.0, 2.0, 1e2, 0.5, 0.5)]),
    "pair frozen": (functools.partial(frozen, 3), [(0.6, 0.3, 0.1, 0.2), (0.4, 0.4, 0.2, 0.2)]),
    "feature flow, hinge": (functools.partial(flow_of, CHAIN, "hinge", 2), [FEATURES, SAME]),
    "feature flow, integrated": (functools.partial(flow_of, CHAIN, "cross-entropy", 1), [FEATURES]),
    "feature flow, deep": (functools.partial(flow_of, CHAIN, "cross-entropy", 2), [FEATURES, SAME]),
    "decay, hinge": (functools.partial(decayed, "hinge"), DECAYED),
    "decay, cross-entropy": (functools.partial(decayed, "cross-entropy"), DECAYED),
    "softmax, two layers": (softmax, [(0.3, 1.0, 0.3, 0.2, 0.3, 0.2, 3.0), (0.3, 1.0, 0.3, 0.2, 0.1, -0.4, 3.0)]),
    "pair, deep": (functools.partial(pair_of, "exponential", 2), PAIRS),
    "depth, hinge": (functools.partial(deep, "hinge"), [(*start[:5], 1.0) for start in DEEP]),
    "depth, cross-entropy": (functools.partial(deep, "cross-entropy"), DEEP),
    "kappa": (kappas, [(1.0, 1.2, 0.5, 0.3), (1.0, 0.7, 2.0, 0.8)]),
    "learning time, hinge": (functools.partial(learning_time, "hinge"), LEARNING),
    "learning time": (functools.partial(learning_time, "cross-entropy"), LEARNING[:1]),
    "shared features": (shared, [(0.5, 0.4, 0.2, 0.3, 0.2, 3.0), (0.5, 0.5, 0.2, 0.2, 0.2, 3.0)]),
    "shortcut": (contradicted, [(0.8, 1.0, 1.5, 3.0, 0.5), (0.7, 1.0, 1.0, 2.0, 1.0)]),
    "clocks, cross-entropy": (functools.partial(clocks, "cross-entropy"), CLOCK),
    "clocks, exponential": (functools.partial(clocks, "exponential"), CLOCK),
    "clocks, squared": (functools.partial(clocks, "squared"), CLOCK),
    "kappa in steps": (in_steps, [(0.5, 1.0, 0.8, 0.3, 0.5, 0.1), (0.5, 1.0, 0.0, 0.3, 0.5, 0.0)]),
    "kappa after steps": (after_steps, [(0.9, 1.0, 3.0, 0.3, 2.0, 0.2)]),
    "kappa under decay": (under_decay, [(2.0, 0.1, 3.0)]),
    "time to confidence": (
        lambda x: theory.time_to_confidence(x[1], x[2], x[3], "cross-entropy", x[0], kappa=x[4])[None],
        [(0.1, 0.5, 1.0, 0.1, 0.3), (0.1, 0.5, 1.0, -0.1, 0.3)],
    ),
}
QUICK_LAWS = ("feature flow, linear", "settled features", "pair, exponential", "discriminator")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", [pytest.param(n, marks=[] if n in QUICK_LAWS else [pytest.mark.slow]) for n in LAWS])
def test_laws_of_several_numbers_have_their_derivatives(name):
    function, points = LAWS[name]
    against_differences(function, points, 2e-5, names=name)


# --- no public name without a row or a reason ----------------------------------------------------------------------------

ROWS = {
    "ClockCurve": "logit", "ModeSolution": "weights", "solve_mode": "logit", "FeatureFlow": "feature flow, linear",
    "feature_flow": "pair, deep", "DepthMode": "depth, hinge", "depth_mode": "depth, hinge", "decayed_logit": "decay, hinge",
    "decayed_time": "decay, hinge", "KappaDistribution": "kappa", "LearningTime": "learning time",
    "SharedFeatures": "shared features", "shared_features": "shared features", "SoftmaxMode": "softmax, two layers",
    "SoftmaxReadOut": "softmax, one layer", "softmax_mode": "softmax, two layers", "StarvingPair": "pair, exponential",
    "starving_pair": "pair, exponential", "settled_features": "settled features", "confident_logit": "discriminator",
    "minimax_tail": "discriminator", "time_to_confidence": "time to confidence", "starvation_index": "pair, exponential",
    "kappa_path": "kappa in steps", "squared_gradient_norm": "kappa in steps", "edge_of_stability": "kappa after steps",
    "catapult": "kappa after steps", "decayed_kappa": "kappa under decay", "lazy_to_rich_time": "kappa under decay",
    "Shortcut": "shortcut", "shortcut": "shortcut",
    "ConstantClock": "clocks, hinge", "LinearClock": "clocks, squared", "ExponentialClock": "clocks, cross-entropy",
    "Softmax": "softmax, two layers",
    "clock_time": "clocks, hinge", "clock_state": "clocks, hinge", "clock_integral": "clocks, hinge",
}
STEPS = "counts steps, and its derivatives at whole steps have tests beside the march itself"
WITHOUT = {
    "DescentSolution": STEPS, "ModeDescent": STEPS, "ModeSGD": STEPS,
    "LogitDistribution": "its quantiles are steps; its sums are those of binomial_log_pmf",
    "TimeDistribution": "counts steps", "MixedTimeDistribution": "counts steps",
    "Solution": "reads one ModeSolution a class; test_derivatives_of_solve", "solve": "as Solution",
    "MaxMargin": "the support is a choice of points; test_direction", "max_margin_direction": "as MaxMargin",
    "Peak": "NumPy numbers of a search", "Stop": "as Peak", "Change": "as Peak", "minority_needed": "a search in NumPy",
    "Reweighting": "NumPy arrays of a linear programme, with corners", "fastest_weights": "as Reweighting",
    "equal_speed_weights": "as Reweighting", "equal_time_weights": "as Reweighting",
    "antipodal_fate": "a step", "exclusive_fate": "a step", "dies_for_ever": "a step",
    "class_failure_probability": "of a whole number", "minimax_peak": "a number", "kappa_critical": "a number",
    "decay_threshold": "a product", "jacobian": "a module of arrays, test_jacobian",
    "ntk": "a module of matrices, once differentiable in forward mode, test_ntk",
    "PhasedMode": "the laws of its phases, test_phases", "PhasedSolution": "as PhasedMode", "still_alive": "a step",
    "early_alignment": "follows numbers, test_alignment", "Alignment": "as early_alignment",
    "Directions": "as early_alignment", "Groups": "as early_alignment", "NeuronEvents": "as early_alignment",
    "plateau_exits": "follows numbers, test_hinge_stages", "PlateauExits": "as plateau_exits",
    "cone_bounds": "looks at numbers; each bound is a ModeSolution", "ConeBounds": "as cone_bounds",
    "NearbySolution": "networks of a Solution on other points", "DataGap": "numbers that are measured",
    "ModeMiniBatch": "powers of factors, and the law of descent in every outcome",
    "Clock": "what all clocks have in common", "QuadratureClock": "test_own_loss",
}


@pytest.mark.parametrize("module", [theory, special])
def test_every_public_name_has_a_row_or_a_reason(module):
    tried = {**OF_A_MODE, **SCALARS, **LAWS}
    assert all(row in tried for row in ROWS.values())
    assert not (ROWS.keys() | SCALARS.keys()) & WITHOUT.keys()
    assert set(module.__all__) - ROWS.keys() - SCALARS.keys() - WITHOUT.keys() == set()
    assert not (ROWS.keys() | WITHOUT.keys()) - set(theory.__all__) - set(special.__all__)


# --- beside a member that never learns ---------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", "cross-entropy"])
def test_a_member_that_never_learns_leaves_the_others_their_derivatives(loss):
    """Every time of a mode is c / p, so its derivative in p is -time / p; that of a time that never comes is 0."""

    def times(p):
        solution = solve_mode(gs.Mode(p, 1.0, a=jnp.array([[0.2], [0.3]]), z=jnp.array([[-0.5], [0.1]])), loss)
        return jnp.stack([solution.time_to_logit(0.5), solution.time_to_error(0.35), solution.events[:, 0]])

    value, slope = jax.jit(lambda p: (times(p), jax.jacrev(lambda p: finite(times(p)))(p)))(0.5)
    assert np.isinf(np.asarray(value)).any(axis=1).all()
    np.testing.assert_allclose(slope, -np.asarray(finite(value)) / 0.5, rtol=1e-12)


# --- descent and draws --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_descent_from_faint_starts_has_its_derivatives(dtype):
    """Where the squares of the weights are no floats a step is linear: p_j grows and q_j falls by 1 ± eta p r / 2."""
    faint = 1e-25 if dtype == np.float32 else 1e-170

    def weights(x):
        dynamics = gs.GradientDescent(x[4])
        return jnp.stack(solve_mode(gs.Mode(x[2], x[3], x[0:1], x[1:2]), "cross-entropy", dynamics).weights(20))[:, 0]

    starts = np.array([(faint, share * faint, 0.6, 1.3, 0.2) for share in (1, 0.5, -0.25, -1)], dtype)
    slope, bend = jax.jit(jax.vmap(lambda x: (jax.jacrev(weights)(x), jax.jacfwd(jax.jacrev(weights))(x))))(starts)
    assert np.isfinite(slope).all()
    assert np.isfinite(bend).all()
    step = 0.2 * 0.6 * 1.3 / 2
    up, down = (1 + step) ** 20, (1 - step) ** 20
    exact = np.array([[up + down, up - down], [up - down, up + down]]) / 2
    np.testing.assert_allclose(slope[:, :, :2], np.broadcast_to(exact, (4, 2, 2)), rtol=200 * np.finfo(dtype).eps)


def mean_after(x):
    dynamics = gs.StochasticGradientDescent(x[4])
    after = solve_mode(gs.Mode(x[2], x[3], x[0:1], x[1:2]), "cross-entropy", dynamics).distribution(6)
    return jnp.stack([after.mean, after.variance, after.error])


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_draws_have_their_derivatives():
    starts = ((0.3, 0.3, 0.6), (0.3, -0.3, 0.6), (0.3, -0.5, 0.4))
    against_differences(mean_after, [(*start, 1.3, 0.2) for start in starts], 2e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_certain_draws_have_their_derivatives_in_the_frequency():
    """At p = 1 all draws are own ones, but below there are others: sum_m C(6, m) p^m (1 - p)^(6 - m) u_m, a polynomial."""
    start = jnp.array([0.3, 0.3, 1.0, 1.3, 0.2])
    solution = solve_mode(gs.Mode(0.6, 1.3, start[:1], start[1:2]), "cross-entropy", gs.StochasticGradientDescent(0.2))
    u = np.asarray(solution.own.logit(np.arange(7)))
    found = jax.grad(lambda p: mean_after(start.at[2].set(p))[0])
    assert float(found(1.0)) == pytest.approx(6 * (u[6] - u[5]), rel=1e-12)
    assert float(jax.jacfwd(found)(1.0)) == pytest.approx(30 * (u[6] - 2 * u[5] + u[4]), rel=1e-11)
    # I_p(k, n - k + 1) at p = 1, twice: only k = n and k = n - 1 move.
    for k, slope, bend in ((6, 6.0, 30.0), (5, 0.0, -30.0), (4, 0.0, 0.0)):
        tail = jax.grad(lambda p, k=k: special.binomial_at_least(k, 6, p))
        assert float(tail(1.0)) == pytest.approx(slope, abs=1e-12)
        assert float(jax.jacfwd(tail)(1.0)) == pytest.approx(bend, abs=1e-11)
