"""Every entry holds, and a wrong constant in the law it tries turns it red: the mutation test of the whole catalogue."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure

from gradstarve import special, theory
from gradstarve.problem import Mode, TwoLayerReLU
from gradstarve.theorems import (
    CATALOGUE,
    balance,
    closed_forms,
    hinge_counts,
    hinge_end,
    hinge_margin,
    hinge_path,
    hinge_retrace,
    independence,
    inflection,
    mode,
    running,
    speed,
    starvation,
)
from gradstarve.theorems.verify import strays

# Few trials: compiling costs the same for all of them, and a wrong law is wrong everywhere.
TRIALS = {
    "sign": 96,
    "fates": 512,
    "learning-probability": 6 * 12_000,
    "antipodal-fates": 4096,
    "balanced-curves": 48,
    "exact-descent": 48,
    "weight-decay-and-momentum": 48,
    "sgd-distribution": 5 * 4000,
    "sgd-time-to-margin": 5 * 4000,
    "decay-threshold": 192,
    "decay-curve": 36,
    "waking": 48,
    "no-sliding-edges": 24,
    "waking-hinge": 48,
    "hinge-exact": 24,
    "finite-events": 48,
    "hinge-end": 24,
    "hinge-max-margin": 48,
    "wrong-signs": 6 * 40_000,
    "confidence": 24,
    "hinge-advantage": 48,
    "last-direction": 48,
    "generator-signal": 48,
    "read-out": 24,
    "features": 256,
    "shared-neurons": 256,
    "softmax": 24,
    "softmax-clock": 24,
    "depth": 24,
    "unbalanced-depth": 24,
}


def remembered(train):
    """`train`, which trains (or retraces) what it has before only once: a wrong law changes no training."""
    results = {}

    def again(*problem, **options):
        leaves, shape = jax.tree.flatten((problem, options))
        key = (str(shape), *(np.asarray(leaf).tobytes() if hasattr(leaf, "dtype") else leaf for leaf in leaves))
        if key not in results:
            results[key] = train(*problem, **options)
        return results[key]

    return again


@pytest.fixture(autouse=True)
def _train_once(monkeypatch):
    for name in ("simulate", "simulate_flow", "simulate_hinge_exact"):
        monkeypatch.setattr(running, name, remembered(getattr(running, name)))
    retraced = remembered(hinge_retrace.retraced)
    for module in (hinge_counts, hinge_path):
        monkeypatch.setattr(module, "retraced", retraced)


def outcome(name, trials=None):
    with jax.enable_x64(True):
        return CATALOGUE[name].check(jax.random.key(2), trials or TRIALS.get(name, 96))


class Changed(eqx.Module):
    """A solution whose clock runs at `speed`, or whose weights are off by a factor."""

    inner: theory.Solution
    speed: float = 1.0
    weights: float = 1.0

    def logits(self, t):
        return self.inner.logits(np.asarray(t) * self.speed)

    def network(self, t):
        found = self.inner.network(np.asarray(t) * self.speed)
        return TwoLayerReLU(found.w * self.weights, found.z)


def solve_changed(**how):
    solve = theory.solve
    return lambda *problem: Changed(solve(*problem), **how)


def solve_without_deaths(data, network, loss, dynamics=None, solve=theory.solve):
    """The law that forgets (3.10) and (4.3): a neuron of the wrong sign is left out from the start."""
    axes = np.asarray(data.points)
    a, z = np.asarray(network.w) @ axes.T, np.asarray(network.z)[..., None] * np.asarray(data.labels)
    r = np.linalg.norm(axes, axis=-1)
    leaves = ((a > 0) & (a / r + z < 0)).any(-1)
    return solve(data, TwoLayerReLU(network.w, jnp.where(leaves, 0, network.z)), loss, dynamics)


def slower_step(data, network, loss, dynamics=None, solve=theory.solve):
    """The exact law with step_size taken 5 % too large."""
    if dynamics is not None:
        dynamics = type(dynamics)(dynamics.step_size * 1.05)
    return solve(data, network, loss, dynamics)


def other_descent(momentum=1.0, weight_decay=1.0):
    """The exact law of descent with another momentum or decay."""
    solve = theory.solve

    def changed(data, network, loss, d):
        other = type(d)(d.step_size, momentum * d.momentum, d.nesterov, weight_decay * d.weight_decay)
        return solve(data, network, loss, other)

    return changed


def more_decay(p, r, start, weight_decay, *rest, decayed_logit=theory.decayed_logit):
    return decayed_logit(p, r, start, 1.05 * weight_decay, *rest)


def longer_draw(mode, loss, dynamics, solve_mode=theory.solve_mode):
    return solve_mode(mode, loss, type(dynamics)(dynamics.step_size * 1.05))


def slower_mode(mode: Mode, *rest, solve_mode=theory.solve_mode):
    return solve_mode(Mode(mode.frequency * 0.95, mode.norm, mode.a, mode.z), *rest)


def larger_kappa(norm, a, z, invariants=mode.invariants):
    kappa, theta = invariants(norm, a, z)
    return kappa * 1.05, theta


def shifted_theta(norm, a, z, invariants=mode.invariants):
    kappa, theta = invariants(norm, a, z)
    return kappa, theta + 0.05


def heavier(data, network, label, alone=independence.alone):
    small, part, weight = alone(data, network, label)
    return small, part, weight * 1.05


def one_neuron_short(data, network, label, alone=independence.alone):
    small, part, weight = alone(data, network, label)
    return small, TwoLayerReLU(part.w, part.z.at[..., 0].set(0)), weight


def tilted(points, max_margin_direction=theory.max_margin_direction):
    """The maximum-margin direction, 3 degrees off."""
    found = max_margin_direction(points)
    off = np.asarray(found.direction) + 0.05 * np.roll(found.direction, 1, axis=-1)
    return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(off / np.linalg.norm(off, axis=-1, keepdims=True)))


def mean_direction(points, max_margin_direction=theory.max_margin_direction):
    """The direction of the mean of the points, where training starts to turn."""
    mean = np.mean(points, axis=0)
    found = max_margin_direction(points)
    return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(mean / np.linalg.norm(mean)))


def faster_tail(loss, t, *rest, error_tail=theory.error_tail, **options):
    return error_tail(loss, 1.05 * t, *rest, **options)


def late(data, network, times, exact_records=hinge_path.exact_records):
    """A path whose rates are 5 % too large."""
    return exact_records(data, network, 1.05 * np.asarray(times))


def beyond_one(data, network, times, exact_records=hinge_path.exact_records):
    """A path on which a point is learnt at a margin of 1.05: that of weights scaled down, scaled up again."""
    run = exact_records(data, TwoLayerReLU(network.w / 1.05**0.5, network.z / 1.05**0.5), times)
    return eqx.tree_at(lambda run: run.recorded, run, run.recorded * 1.05)


def one_event_short(data, network, times, exact_records=hinge_path.exact_records):
    """A path whose first event goes untold."""
    run = exact_records(data, network, times)
    told = run.events
    less = told._replace(count=np.maximum(told.count - 1, 0), **{n: getattr(told, n)[:, 1:] for n in told._fields[:4]})
    return eqx.tree_at(lambda run: run.events, run, less)


def wider(points, max_margin_direction=theory.max_margin_direction):
    """The maximum margin 5 % too small."""
    found = max_margin_direction(points)
    return eqx.tree_at(lambda limit: limit.margin, found, found.margin * 0.95)


def likelier(law, place):
    """`law` with the probability at `place` of its arguments 5 % too large."""
    return lambda *given, **more: law(*given[:place], 1.05 * given[place], *given[place + 1 :], **more)


def scaled(function, factor):
    return lambda *arguments: factor * function(*arguments)


# Entry -> (where the law lives, its name there, the wrong law).
MUTATIONS = {
    "balance": [(balance, "invariant", lambda w, z: np.sum(w**2, axis=-1) - 1.05 * z**2)],
    "sign": [
        (independence, "pushed_sign", scaled(independence.pushed_sign, -1)),
        (independence, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
    ],
    "no-sliding-edges": [
        (hinge_path, "pushed_sign", scaled(independence.pushed_sign, -1)),
        (hinge_path, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
    ],
    "independent-modes": [(independence, "alone", heavier), (independence, "alone", one_neuron_short)],
    "clock": [(theory, "solve", solve_changed(speed=1.05)), (theory, "solve", solve_changed(weights=1.05))],
    "hinge": [
        (closed_forms, "hinge_time", scaled(closed_forms.hinge_time, 1.05)),
        (closed_forms, "invariants", larger_kappa),
        (theory, "solve_mode", slower_mode),
    ],
    "cross-entropy": [
        (special, "clock_integral", scaled(special.clock_integral, 1.05)),
        (closed_forms, "cross_entropy_tau", scaled(closed_forms.cross_entropy_tau, 1.05)),
        (closed_forms, "invariants", larger_kappa),
    ],
    "balanced-curves": [
        (closed_forms, "exponential_tau", scaled(closed_forms.exponential_tau, 1.05)),
        (closed_forms, "squared_logit", lambda u0, tau, f=closed_forms.squared_logit: f(u0, 1.05 * tau)),
    ],
    "read-out": [
        (theory, "one_layer_logit", lambda p, *rest, f=theory.one_layer_logit: f(1.05 * p, *rest)),
        (theory, "one_layer_logit", scaled(theory.one_layer_logit, 1.05)),
    ],
    "depth": [(theory, "depth_mode", lambda p, *rest, f=theory.depth_mode: f(1.05 * p, *rest))],
    "unbalanced-depth": [
        (theory, "depth_mode", lambda p, *rest, f=theory.depth_mode: f(1.05 * p, *rest)),
        (theory, "depth_mode", lambda p, r, b, loss, f=theory.depth_mode: f(p, r, b**1.05, loss)),
    ],
    "deaths": [(theory, "solve", solve_without_deaths), (theory, "solve", solve_changed(speed=1.05))],
    "universality": [(mode, "invariants", larger_kappa), (mode, "invariants", shifted_theta)],
    "fates": [
        (theory, "exclusive_fate", lambda a, z: (z > -1.05 * a).astype(float)),
        (theory, "exclusive_fate", lambda a, z: (z > 0).astype(float)),
    ],
    "learning-probability": [
        (theory, "learning_probability", scaled(theory.learning_probability, 1.05)),
        (theory, "learning_probability", lambda a, z: 0.5 + jnp.arctan2(z, a) / jnp.pi),
    ],
    "transfer": [(theory, "solve", solve_without_deaths), (theory, "solve", solve_changed(speed=1.05))],
    "antipodal-fates": [
        (theory, "antipodal_fate", lambda a, z: np.sign(a + 1.05 * z)),
        (theory, "class_failure_probability", lambda width: 0.6**width),
    ],
    "waking": [
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + 1.05 * abs(cosine) * beta <= 0),
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + beta <= 0),
    ],
    "waking-hinge": [
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + 1.05 * abs(cosine) * beta <= 0),
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + beta <= 0),
    ],
    "inflections": [
        (theory, "error_inflections", scaled(theory.error_inflections, 1.05)),
        (inflection, "invariants", larger_kappa),
    ],
    "rich-to-lazy": [(theory, "kappa_critical", scaled(theory.kappa_critical, 1.05))],
    "plateau": [(theory, "plateau_length", scaled(theory.plateau_length, 1.05))],
    "wrong-signs": [
        (theory, "wrong_sign_fraction", scaled(theory.wrong_sign_fraction, 1.05)),
        (theory, "wrong_sign_fraction", lambda t, *rest, f=theory.wrong_sign_fraction: f(1.05 * t, *rest)),
    ],
    "confidence": [
        (theory, "time_to_confidence", scaled(theory.time_to_confidence, 1.05)),
        (speed, "invariants", larger_kappa),
    ],
    "hinge-advantage": [(theory, "hinge_advantage", scaled(theory.hinge_advantage, 1.05))],
    "tails": [
        (theory, "error_tail", faster_tail),
        (theory, "error_tail", lambda *rest, layers, f=theory.error_tail: f(*rest, layers=layers, leading=True)),
    ],
    "last-direction": [
        (theory, "max_margin_direction", tilted),
        (theory, "max_margin_direction", mean_direction),
    ],
    "hinge-exact": [
        (hinge_path, "exact_records", late),
        (hinge_path, "exact_records", beyond_one),
        (hinge_path, "exact_records", one_event_short),
    ],
    "finite-events": [
        (hinge_counts, "least_fall", scaled(hinge_counts.least_fall, 1.05)),
        (hinge_counts, "most_events", lambda *start, f=hinge_counts.most_events: f(*start) - 1),
    ],
    "hinge-end": [(hinge_end, "short_of_learnt", lambda margins: np.maximum(1.05 - margins, 0))],
    "hinge-max-margin": [
        (theory, "max_margin_direction", tilted),
        (theory, "max_margin_direction", wider),
        (hinge_margin, "end_of_small_start", lambda x, q, f=hinge_margin.end_of_small_start: f(x, q * [1.05, 1])),
    ],
    "generator-signal": [
        (theory, "generator_signal", scaled(theory.generator_signal, 1.05)),
        (theory, "minimax_peak", scaled(theory.minimax_peak, 1.05)),
        (theory, "minimax_tail", scaled(theory.minimax_tail, 1.05)),
    ],
    "features": [(theory, "feature_flow", likelier(theory.feature_flow, 1))],
    "starving-pair": [
        (theory, "starving_pair", likelier(theory.starving_pair, 0)),
        (theory, "starving_pair", likelier(theory.starving_pair, 1)),
    ],
    "freeze": [
        (starvation, "frozen_at", lambda weights, f=starvation.frozen_at: (1.05 * f(weights)[0], f(weights)[1])),
        (starvation, "frozen_at", lambda weights, f=starvation.frozen_at: (f(weights)[0], 1.05 * f(weights)[1])),
        (theory, "starving_pair", likelier(theory.starving_pair, 1)),
    ],
    "starvation-bounds": [
        (theory.starvation, "upper_bound", scaled(theory.starvation.upper_bound, 0.95)),
        (theory.starvation, "lower_bound", scaled(theory.starvation.lower_bound, 1.05)),
    ],
    "deep-starvation": [
        (theory.starvation, "upper_bound", scaled(theory.starvation.upper_bound, 0.95)),
        (theory.starvation, "lower_bound", scaled(theory.starvation.lower_bound, 1.05)),
    ],
    "starvation-index": [
        (theory, "starving_pair", likelier(theory.starving_pair, 0)),
        (theory, "starving_pair", likelier(theory.starving_pair, 1)),
    ],
    "shared-neurons": [
        (theory, "shared_slope", scaled(theory.shared_slope, 1.05)),
        (theory, "shared_features", likelier(theory.shared_features, 1)),
    ],
    "softmax": [
        (theory, "softmax_mode", lambda k, p, *rest, f=theory.softmax_mode, **more: f(k, 1.05 * p, *rest, **more)),
        (theory, "softmax_mode", lambda k, *rest, f=theory.softmax_mode, **more: f(k + 1, *rest, **more)),
    ],
    "softmax-clock": [
        (theory, "softmax_mode", lambda k, p, *rest, f=theory.softmax_mode: f(k, 1.05 * p, *rest)),
        (theory, "softmax_mode", lambda k, p, r, a, zeta, f=theory.softmax_mode: f(k, p, r, 1.05 * a, zeta)),
    ],
    "exact-descent": [(theory, "solve", slower_step), (theory, "solve", solve_without_deaths)],
    "weight-decay-and-momentum": [
        (theory, "solve", other_descent(momentum=0.95)),
        (theory, "solve", other_descent(weight_decay=1.05)),
    ],
    "sgd-distribution": [(theory, "solve_mode", slower_mode), (theory, "solve_mode", longer_draw)],
    "sgd-time-to-margin": [(theory, "solve_mode", slower_mode)],
    "decay-threshold": [
        (theory, "settled_logit", scaled(theory.settled_logit, 1.05)),
        (theory, "decay_threshold", scaled(theory.decay_threshold, 1.05)),
    ],
    "decay-curve": [(theory, "decayed_logit", more_decay)],
    "logistic-flow": [
        (theory.ntk, "logistic_flow", lambda K, *rest, f=theory.ntk.logistic_flow: f(1.05 * K, *rest)),
        (theory.ntk, "logistic_flow", lambda K, t, start, f=theory.ntk.logistic_flow: f(K, t, 1.05 * start)),
    ],
    "ridge-optimum": [
        (theory.ntk, "ridge_optimum", lambda K, ridge, f=theory.ntk.ridge_optimum: f(K, 1.05 * ridge)),
        (theory.ntk, "ridge_dual_flow", lambda K, ridge, t, f=theory.ntk.ridge_dual_flow: f(K, 1.05 * ridge, t)),
    ],
    "starvation-derivatives": [
        (theory.ntk, "starvation_derivatives", scaled(theory.ntk.starvation_derivatives, 1.05)),
        (theory.ntk, "starvation_derivatives", lambda *given, f=theory.ntk.starvation_derivatives: f(*given).T),
    ],
    "spectral-decoupling": [
        (theory.ntk, "spectral_decoupling_optimum", lambda n, p, f=theory.ntk.spectral_decoupling_optimum: f(n, 1.05 * p))
    ],
}


def test_the_catalogue_is_covered():
    assert set(MUTATIONS) == set(CATALOGUE)
    assert all(MUTATIONS.values())


# How many statements each section of the theory has, and where the first of them is tried.
SECTIONS = {1: (3, 3), 2: (0, 1), 3: (1, 11), 4: (1, 4), 5: (1, 4), 6: (1, 3), 7: (1, 2), 8: (1, 3), 9: (1, 1), 10: (1, 7)}
SECTIONS |= {11: (1, 2), 12: (1, 1), 13: (1, 1), 14: (1, 4), 15: (1, 1)}


def test_every_statement_has_an_entry():
    tried = set()
    for theorem in CATALOGUE.values():
        first, _, last = theorem.equation.partition("-")
        section, low = map(int, first.split("."))
        high = int(last.split(".")[1]) if last else low
        tried |= {(section, number) for number in range(low, high + 1)}
    assert tried == {(s, n) for s, (low, high) in SECTIONS.items() for n in range(low, high + 1)}


def test_the_catalogue_is_in_order_and_complete():
    numbers = [tuple(map(int, t.equation.split("-")[0].split("."))) for t in CATALOGUE.values()]
    assert numbers == sorted(numbers)
    for name, theorem in CATALOGUE.items():
        assert name == theorem.name == name.lower()
        assert theorem.hypotheses
        assert all([theorem.title, theorem.claim, theorem.why_tolerance, theorem.checked_with])
        assert theorem.tolerance > 0


def draw(theorem, true):
    ax = Figure().add_subplot()
    with jax.enable_x64(True):
        theorem.figure(true, ax)
    assert ax.get_xlabel()
    assert ax.get_ylabel()
    assert ax.get_legend() is not None


@pytest.mark.parametrize("name", CATALOGUE)
def test_entry_holds_and_a_wrong_law_turns_it_red(name, monkeypatch):
    """One test a name, so that what is compiled for the true law serves the wrong ones."""
    true = outcome(name)
    assert true.ok, (true.violations, true.undecided, true.worst_gap, true.worst_instance)
    with jax.enable_x64(True):
        assert not strays(CATALOGUE[name], true)
    draw(CATALOGUE[name], true)
    for place, attribute, wrong in MUTATIONS[name]:
        with monkeypatch.context() as patch:
            patch.setattr(place, attribute, wrong)
            changed = outcome(name)
        assert changed.violations > 0, (place.__name__, attribute, changed.worst_gap)
        assert changed.worst_gap > true.worst_gap


@pytest.mark.parametrize("name", [name for name, theorem in CATALOGUE.items() if theorem.necessity])
def test_dropping_a_hypothesis_gives_a_counterexample(name):
    """Every hypothesis that is said to matter does, whatever the key. Beside the entries, whose programs it runs again."""
    with jax.enable_x64(True):
        for i, drop in enumerate(CATALOGUE[name].necessity):
            for seed in range(2):
                found = drop(jax.random.key(100 * i + seed))
                assert found.found, found.failure
                assert found.dropped
                assert found.numbers
