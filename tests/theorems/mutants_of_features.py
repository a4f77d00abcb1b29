"""Wrong laws of depth, descent, decay, features, hinge events and linearised networks, each of which turns its entry red."""

import dataclasses

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from mutants import Mutant, scaled, times

from gradstarve import theory
from gradstarve.problem import TwoLayerReLU
from gradstarve.theorems.laws import hinge, independence, sliding
from gradstarve.theorems.laws import margins as hinge_margin
from gradstarve.theory import _direction as direction
from gradstarve.theory import _sgd as sgd
from gradstarve.theory import _starvation as pair_law


class Changed(eqx.Module):
    """A solution that takes a step number or a time for another one."""

    inner: theory.Solution
    shift: int

    def logits(self, t):
        return self.inner.logits(np.asarray(t) + self.shift)

    def network(self, t):
        return self.inner.network(np.asarray(t) + self.shift)


def solve_later(shift, solve=theory.solve):
    return lambda *problem: Changed(solve(*problem), shift)


def solve_without_deaths(data, network, loss, dynamics=None, solve=theory.solve):
    """The law that forgets (3.10) and (4.3): a neuron of the wrong sign is left out from the start."""
    axes = np.asarray(data.points)
    a, z = np.asarray(network.w) @ axes.T, np.asarray(network.z)[..., None] * np.asarray(data.labels)
    r = np.linalg.norm(axes, axis=-1)
    leaves = ((a > 0) & (a / r + z < 0)).any(-1)
    return solve(data, TwoLayerReLU(network.w, jnp.where(leaves, 0, network.z)), loss, dynamics)


def descent_with(step_size=1.0, momentum=1.0, weight_decay=1.0, swapped=False, solve=theory.solve):
    """The exact law of descent with other numbers, or with the other kind of momentum."""

    def changed(data, network, loss, d):
        numbers = (step_size * d.step_size, momentum * d.momentum, d.nesterov != swapped, weight_decay * d.weight_decay)
        return solve(data, network, loss, type(d)(*numbers))

    return changed


# --- paths of several layers (7.1), (7.2) ---------------------------------------------------------------------------------


def path_with(frequency=1.0, norm=1.0, change=lambda p, r, b: (p, r, b), depth_mode=theory.depth_mode):
    """The law of a path with another frequency or norm, or with what `change` makes of frequency, norm and weights."""

    def changed(p, r, weights, loss):
        p, r, weights = change(frequency * p, norm * r, np.asarray(weights))
        return depth_mode(p, r, weights, loss)

    return changed


def whole_norm(p, r, weights):
    """r in place of r^(2/N), with the logit's own r as it is."""
    return p * r ** (1 - 2 / weights.shape[-1]), r, weights


def without_depth(p, r, weights):
    return p / weights.shape[-1], r, weights


def half_speed(p, r, weights):
    return p / 2, r, weights


def one_mean(p, r, weights):
    """Equal weights of the same product."""
    return p, r, np.broadcast_to(np.prod(weights, -1, keepdims=True) ** (1 / weights.shape[-1]), weights.shape)


def spread(p, r, weights):
    """Weights 2 % further from their mean, with the same product."""
    mean = np.prod(weights, -1, keepdims=True) ** (1 / weights.shape[-1])
    return p, r, mean * (weights / mean) ** 1.02


PATHS = {
    "depth": [
        Mutant("frequency 2 % too large", theory, "depth_mode", path_with(frequency=1.02)),
        Mutant("norm 2 % too large", theory, "depth_mode", path_with(norm=1.02)),
        Mutant("r in place of r^(2/N)", theory, "depth_mode", path_with(change=whole_norm)),
        Mutant("the factor N missing", theory, "depth_mode", path_with(change=without_depth)),
    ],
    "unbalanced-depth": [
        Mutant("frequency 2 % too large", theory, "depth_mode", path_with(frequency=1.02)),
        Mutant("differences of the weights 2 % too large", theory, "depth_mode", path_with(change=spread)),
        Mutant("the 2 of drho/dt missing", theory, "depth_mode", path_with(change=half_speed)),
        Mutant("the balanced path of the same product", theory, "depth_mode", path_with(change=one_mean)),
    ],
}

# --- descent, step by step (8.1) to (8.3) ---------------------------------------------------------------------------------


def mode_with(frequency=1.0, step_size=1.0, solve_mode=theory.solve_mode):
    def changed(mode, loss, dynamics):
        other = type(mode)(frequency * mode.frequency, mode.norm, mode.a, mode.z)
        return solve_mode(other, loss, type(dynamics)(step_size * dynamics.step_size))

    return changed


def one_step_more(self, step, distribution=sgd.ModeSGD.distribution):
    return distribution(self, step + 1)


def one_draw_more(self, step, distribution=sgd.ModeSGD.distribution):
    """The probability of m draws for the logit after m + 1 of them."""
    found = distribution(self, step)
    return type(found)(self.own.logit(np.arange(1, step + 2)), found.probabilities)


def larger_logits(self, step, distribution=sgd.ModeSGD.distribution):
    found = distribution(self, step)
    return type(found)(1.0001 * found.values, found.probabilities)


def one_draw_later(self, draws, wait=sgd.ModeSGD._wait):
    return wait(self, draws + 1)


def one_step_earlier(self, step, pmf=sgd.TimeDistribution.pmf):
    return pmf(self, np.asarray(step) + 1)


def any_order(self, step, pmf=sgd.TimeDistribution.pmf):
    """C(T, m) in place of C(T - 1, m - 1): the last draw need not be one of the class."""
    return pmf(self, step) * np.maximum(step, 1) / np.asarray(self.draws)


DESCENT = {
    "exact-descent": [
        Mutant("step size 2 % too large", theory, "solve", descent_with(step_size=1.02)),
        Mutant("no neuron of the wrong sign is counted", theory, "solve", solve_without_deaths),
        Mutant("one step more", theory, "solve", solve_later(1)),
    ],
    "weight-decay-and-momentum": [
        Mutant("momentum 2 % too small", theory, "solve", descent_with(momentum=0.98)),
        Mutant("weight decay 2 % too large", theory, "solve", descent_with(weight_decay=1.02)),
        Mutant("heavy ball for Nesterov and the reverse", theory, "solve", descent_with(swapped=True)),
        Mutant("half of the weight decay", theory, "solve", descent_with(weight_decay=0.5)),
        Mutant("one step more", theory, "solve", solve_later(1)),
    ],
    "sgd-distribution": [
        Mutant("frequency 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
        Mutant("frequency 2 % too small", theory, "solve_mode", mode_with(frequency=0.98)),
        Mutant("step size 2 % too large", theory, "solve_mode", mode_with(step_size=1.02)),
        Mutant("one step more", sgd.ModeSGD, "distribution", one_step_more),
        Mutant("one draw more", sgd.ModeSGD, "distribution", one_draw_more),
        Mutant("logits 0.01 % too large", sgd.ModeSGD, "distribution", larger_logits),
    ],
    "sgd-time-to-margin": [
        Mutant("frequency 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
        Mutant("frequency 2 % too small", theory, "solve_mode", mode_with(frequency=0.98)),
        Mutant("one draw more", sgd.ModeSGD, "_wait", one_draw_later),
        Mutant("one step less", sgd.TimeDistribution, "pmf", one_step_earlier),
        Mutant("C(T, m) for C(T - 1, m - 1)", sgd.TimeDistribution, "pmf", any_order),
    ],
}

# --- weight decay (9.1) ---------------------------------------------------------------------------------------------------


def plus_one(p, r, weight_decay, loss, settled_logit=theory.settled_logit):
    """log(p r/lambda + 1) in place of log(p r/lambda - 1)."""
    found = settled_logit(p, r, weight_decay, loss)
    return jnp.where(found > 0, jnp.log(jnp.exp(found) + 2), found) if loss == "cross-entropy" else found


DECAY = {
    "decay-threshold": [
        Mutant("settled logit 2 % too large", theory, "settled_logit", scaled(theory.settled_logit, 1.02)),
        Mutant("threshold 1 % too large", theory, "decay_threshold", scaled(theory.decay_threshold, 1.01)),
        Mutant("threshold 1 % too small", theory, "decay_threshold", scaled(theory.decay_threshold, 0.99)),
        Mutant("threshold p r in place of p r g(0)", theory, "decay_threshold", lambda p, r, loss: np.asarray(p) * r),
        Mutant("a sign in the settled logit", theory, "settled_logit", plus_one),
    ],
    "decay-curve": [
        Mutant("weight decay 2 % too large", theory, "decayed_logit", times(theory.decayed_logit, 3, 1.02)),
        Mutant("frequency 2 % too large", theory, "decayed_logit", times(theory.decayed_logit, 0, 1.02)),
        Mutant("the 2 missing", theory, "decayed_logit", times(theory.decayed_logit, 5, 0.5)),
        Mutant("time to a logit 2 % too late", theory, "decayed_time", scaled(theory.decayed_time, 1.02)),
    ],
}

# --- features that share samples (10.1) to (10.7) -------------------------------------------------------------------------


def flow_with(change, feature_flow=theory.feature_flow):
    """`feature_flow` of the problem that `change` makes of (types, probabilities, depth, scales)."""

    def changed(types, probabilities, loss, *, depth, scales, init):
        types, probabilities, scales = change(types, probabilities, depth, scales)
        return feature_flow(types, probabilities, loss, depth=depth, scales=scales, init=init)

    return changed


def by_value(law, ratio=1.0, value=1.0):
    """A bound of (10.4) and (10.5) at another q, or times a factor."""

    def changed(frequent, q, first, second, depth):
        return value * law(frequent, ratio * q, first, second, depth)

    return changed


def planned(law, **factors):
    """A plan of weights with some of its numbers multiplied; `weights` of the first type, and the sum is 1 again."""

    def changed(*given, **more):
        plan = law(*given, **more)
        first = factors.get("weights", 1.0)
        weights = plan.weights * np.array([first, *np.ones(len(plan.weights) - 1)])
        others = {name: factor * getattr(plan, name) for name, factor in factors.items() if name != "weights"}
        return dataclasses.replace(plan, weights=weights / weights.sum(), **others)

    return changed


def rare_too_large(pair, t, explicit=pair_law._explicit):
    frequent, rare = explicit(pair, t)
    return frequent, 1.01 * rare


def frozen(time=1.0, value=1.0, freeze=pair_law._freeze):
    def changed(flow):
        found = freeze(flow)
        return time * found[0], value * found[1]

    return changed


def no_partner(pair, ceiling=pair_law.StarvingPair.ceiling.fget):
    """The ceiling of a feature that has no partner: q = 0."""
    return ceiling(eqx.tree_at(lambda pair: pair.p_frequent, pair, 0 * pair.p_frequent))


CEILING = pair_law.StarvingPair.ceiling.fget
INDEX = pair_law.StarvingPair.index


def share(self, t):
    """What a feature keeps in place of what it loses."""
    return tuple(1 - part for part in INDEX(self, t))


def shared_with(probability=1.0, read_out=1.0, shared_features=theory.shared_features):
    def changed(types, probabilities, w, z, loss):
        return shared_features(types, probability * probabilities, w, read_out * z, loss)

    return changed


def swapped_residuals(p, both, loss, *, frequent=0.0, rare=0.0, slope=theory.shared_slope):
    """g(v_1) for g(v_1 + v_2) and the reverse."""
    return slope(p, both, loss, frequent=np.asarray(frequent) + rare, rare=-np.asarray(rare))


UPPER, LOWER = pair_law.upper_bound, pair_law.lower_bound
BOUNDS = [
    Mutant("upper bound 2 % too small", pair_law, "upper_bound", by_value(UPPER, value=0.98)),
    Mutant("upper bound 2 % too large", pair_law, "upper_bound", by_value(UPPER, value=1.02)),
    Mutant("lower bound 2 % too small", pair_law, "lower_bound", by_value(LOWER, value=0.98)),
    Mutant("lower bound 2 % too large", pair_law, "lower_bound", by_value(LOWER, value=1.02)),
    Mutant("p_1 2 % too large in the upper bound", pair_law, "upper_bound", by_value(UPPER, ratio=1.02)),
    Mutant("p_1 2 % too small in the upper bound", pair_law, "upper_bound", by_value(UPPER, ratio=0.98)),
    Mutant("p_1 2 % too large in the lower bound", pair_law, "lower_bound", by_value(LOWER, ratio=1.02)),
    Mutant("p_1 2 % too small in the lower bound", pair_law, "lower_bound", by_value(LOWER, ratio=0.98)),
]

class Ended(eqx.Module):
    """A shortcut whose rest is another one."""

    inner: theory.Shortcut
    change: object = eqx.field(static=True)

    @property
    def rest(self):
        return self.change(self.inner)


def shortcut_with(p=1.0, core=1.0, side=1.0, sign=1, shortcut=theory.shortcut):
    """The law of a shortcut with another agreement or norm, or with core and shortcut changed over."""

    def changed(agreement, loss, *, core_=core, **more):
        more = {"core": 1.0, "shortcut": 1.0} | more
        norms = (core_ * more["core"], side * more["shortcut"])[::sign]
        return shortcut(p * agreement, loss, core=norms[0], shortcut=norms[1])

    return changed


def ending(change, shortcut=theory.shortcut):
    return lambda *given, **more: Ended(shortcut(*given, **more), change)


def without_way(law):
    """The hinge loss as if the minority had no say after the peak: v_s stays where a has reached its margin."""
    shares, squares = np.asarray(law.population), np.asarray(law.scales) ** 2
    top = (shares[..., 0] - shares[..., 1]) * squares[..., 1]
    top = top / (squares[..., 0] + top)
    rest = np.asarray(law.rest).copy()
    rest[..., 1] = np.where(np.isinf(rest[..., 0]), rest[..., 1], top)
    return rest


SHORTCUT = {
    "shortcut": [
        Mutant("p 1 % too small", theory, "shortcut", shortcut_with(p=0.99)),
        Mutant("r_s 2 % too large", theory, "shortcut", shortcut_with(side=1.02)),
        Mutant("r_c 2 % too small", theory, "shortcut", shortcut_with(core=0.98)),
        Mutant("core and shortcut changed over", theory, "shortcut", shortcut_with(sign=-1)),
        Mutant("half as many contradicting samples needed", theory, "minority_needed", scaled(theory.minority_needed, 0.5)),
        Mutant("1 % more contradicting samples needed", theory, "minority_needed", scaled(theory.minority_needed, 1.01)),
    ],
    "shortcut-end": [
        Mutant("log(p/(1-p)), without the half", theory, "shortcut", ending(lambda law: 2 * law.rest)),
        Mutant("p 1 % too small", theory, "shortcut", shortcut_with(p=0.99)),
        Mutant("the hinge's peak in place of its end", theory, "shortcut", ending(without_way)),
        Mutant("core and shortcut changed over", theory, "shortcut", shortcut_with(sign=-1)),
    ],
    "margin-control": [
        Mutant("v_s of cross-entropy", theory, "shortcut", ending(lambda law: law.rest + np.array([0, 0.01]))),
        Mutant("u* 1 % too large", theory, "shortcut", ending(lambda law: 1.01 * law.rest)),
        Mutant(
            "the rare feature keeps 1 % of u*",
            theory,
            "settled_features",
            lambda *given, f=theory.settled_features: f(*given) @ np.array([[1, 0.01], [0, 1]]),
        ),
    ],
}

FEATURES = {
    "features": [
        Mutant(
            "probabilities 2 % too large",
            theory,
            "feature_flow",
            flow_with(lambda types, p, depth, scales: (types, 1.02 * p, scales)),
        ),
        Mutant(
            "scales 2 % too large",
            theory,
            "feature_flow",
            flow_with(lambda types, p, depth, scales: (types, p, 1.02 * scales)),
        ),
        Mutant(
            "each feature in a sample of its own",
            theory,
            "feature_flow",
            flow_with(lambda types, p, depth, scales: (np.eye(len(types)), p, scales)),
        ),
        Mutant(
            "r_k in place of r_k^(2/N)",
            theory,
            "feature_flow",
            flow_with(lambda types, p, depth, scales: (types, p, scales ** (depth / 2))),
        ),
        Mutant("speeds 2 % too large", theory, "equal_speed_weights", planned(theory.equal_speed_weights, speeds=1.02)),
        Mutant(
            "the largest slowest speed 2 % too large", theory, "fastest_weights", planned(theory.fastest_weights, bound=1.02)
        ),
        Mutant("the one time 2 % too late", theory, "equal_time_weights", planned(theory.equal_time_weights, time=1.02)),
    ],
    "starving-pair": [
        Mutant("p_1 2 % too small", theory, "starving_pair", times(theory.starving_pair, 0, 0.98)),
        Mutant("p_12 2 % too small", theory, "starving_pair", times(theory.starving_pair, 1, 0.98)),
        Mutant(
            "p_1 and p_12 swapped", theory, "starving_pair", lambda p, both, *rest, f=theory.starving_pair: f(both, p, *rest)
        ),
        Mutant("v_2 1 % too large", pair_law, "_explicit", rare_too_large),
    ],
    "freeze": [
        Mutant("p_1 2 % too small", theory, "starving_pair", times(theory.starving_pair, 0, 0.98)),
        Mutant("p_12 2 % too small", theory, "starving_pair", times(theory.starving_pair, 1, 0.98)),
        Mutant("freeze 1 % too late", pair_law, "_freeze", frozen(time=1.01)),
        Mutant("freeze 1 % too early", pair_law, "_freeze", frozen(time=0.99)),
        Mutant("frozen logit 1 % too large", pair_law, "_freeze", frozen(value=1.01)),
    ],
    "starvation-bounds": [
        *BOUNDS,
        Mutant("p_1 2 % too small", theory, "starving_pair", times(theory.starving_pair, 0, 0.98)),
        Mutant("p_12 2 % too small", theory, "starving_pair", times(theory.starving_pair, 1, 0.98)),
    ],
    "deep-starvation": [
        *BOUNDS,
        Mutant(
            "the ceiling 2 % too large",
            pair_law.StarvingPair,
            "ceiling",
            property(lambda self, f=CEILING: 1.02 * f(self)),
        ),
        Mutant("the ceiling without q", pair_law.StarvingPair, "ceiling", property(no_partner)),
        Mutant(
            "one layer more",
            pair_law,
            "lower_bound",
            lambda frequent, q, first, second, depth: LOWER(frequent, q, first, second, depth + 1),
        ),
    ],
    "starvation-index": [
        Mutant("p_1 2 % too small", theory, "starving_pair", times(theory.starving_pair, 0, 0.98)),
        Mutant("p_12 2 % too small", theory, "starving_pair", times(theory.starving_pair, 1, 0.98)),
        Mutant("what is kept for what is lost", pair_law.StarvingPair, "index", share),
    ],
    "shared-neurons": [
        Mutant("slope 2 % too large", theory, "shared_slope", scaled(theory.shared_slope, 1.02)),
        Mutant("p_1 2 % too large in the slope", theory, "shared_slope", times(theory.shared_slope, 0, 1.02)),
        Mutant("g(v_1) for g(v_1 + v_2) and the reverse", theory, "shared_slope", swapped_residuals),
        Mutant("probabilities 2 % too large in the boost", theory, "shared_features", shared_with(probability=1.02)),
        Mutant("read-outs 2 % too large in the boost", theory, "shared_features", shared_with(read_out=1.02)),
    ],
}

# --- several classes (11.1), (11.2) ---------------------------------------------------------------------------------------


def softmax_with(further=0, frequency=1.0, inputs=1.0, share=lambda k: 1.0, softmax_mode=theory.softmax_mode):
    def changed(p, r, *neurons, classes, **more):
        neurons = (inputs * neurons[0], *neurons[1:]) if neurons else ()
        return softmax_mode(frequency * share(classes) * p, r, *neurons, classes=classes + further, **more)

    return changed


SEVERAL = {
    "softmax": [
        Mutant("frequency 2 % too large", theory, "softmax_mode", softmax_with(frequency=1.02)),
        Mutant("one class too many", theory, "softmax_mode", softmax_with(further=1)),
        Mutant("the factor K missing", theory, "softmax_mode", softmax_with(share=lambda k: 1 / k)),
    ],
    "softmax-clock": [
        Mutant("frequency 2 % too large", theory, "softmax_mode", softmax_with(frequency=1.02)),
        Mutant("first layer 2 % too large", theory, "softmax_mode", softmax_with(inputs=1.02)),
        Mutant("one class too many", theory, "softmax_mode", softmax_with(further=1)),
        Mutant(
            "sqrt(1 - 1/K) missing in the norm", theory, "softmax_mode", softmax_with(share=lambda k: np.sqrt(1 - 1 / k))
        ),
    ],
}

# --- hinge loss from event to event (2.0), (4.4), (12.1), (13.1) ----------------------------------------------------------


def late(data, network, times, exact_records=hinge.exact_records):
    """A path whose rates are 2 % too large."""
    return exact_records(data, network, 1.02 * np.asarray(times))


def learnt_at(margin, exact_records=hinge.exact_records):
    """A path on which a point is learnt at another margin: that of weights scaled down, scaled up again."""

    def changed(data, network, times):
        run = exact_records(data, TwoLayerReLU(network.w / margin**0.5, network.z / margin**0.5), times)
        return eqx.tree_at(lambda run: run.recorded, run, run.recorded * margin)

    return changed


def one_event_short(data, network, times, exact_records=hinge.exact_records):
    """A path whose first event goes untold."""
    run = exact_records(data, network, times)
    told = run.events
    less = told._replace(count=np.maximum(told.count - 1, 0), **{n: getattr(told, n)[:, 1:] for n in told._fields[:4]})
    return eqx.tree_at(lambda run: run.events, run, less)


def awake_beyond(factor):
    return lambda alpha, beta, cosine: alpha + factor * abs(cosine) * beta <= 0


def tilted(points, max_margin_direction=theory.max_margin_direction):
    """The maximum-margin direction, 1 degree off."""
    found = max_margin_direction(points)
    off = np.asarray(found.direction) + 0.02 * np.roll(found.direction, 1, axis=-1)
    return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(off / np.linalg.norm(off, axis=-1, keepdims=True)))


def wider(points, max_margin_direction=theory.max_margin_direction):
    """The maximum margin 2 % too small."""
    found = max_margin_direction(points)
    return eqx.tree_at(lambda limit: limit.margin, found, found.margin * 0.98)


HINGE = {
    "no-sliding-edges": [
        Mutant("a sign", sliding, "pushed_sign", scaled(independence.pushed_sign, -1)),
        Mutant("the label missing", sliding, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
    ],
    "sliding-edges": [
        Mutant("rates 2 % too large", hinge, "exact_records", late),
        Mutant("the first event untold", hinge, "exact_records", one_event_short),
    ],
    "waking-hinge": [
        Mutant("cosine 2 % too large", theory, "dies_for_ever", awake_beyond(1.02)),
        Mutant("cosine 2 % too small", theory, "dies_for_ever", awake_beyond(0.98)),
        Mutant("the cosine missing", theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + beta <= 0),
    ],
    "hinge-exact": [
        Mutant("rates 2 % too large", hinge, "exact_records", late),
        Mutant("learnt at a margin of 1.01", hinge, "exact_records", learnt_at(1.01)),
        Mutant("the first event untold", hinge, "exact_records", one_event_short),
    ],
    "finite-events": [
        Mutant("least fall 2 % too large", hinge, "least_fall", scaled(hinge.least_fall, 1.02)),
        Mutant("one event less", hinge, "most_events", lambda *start, f=hinge.most_events: f(*start) - 1),
    ],
    "hinge-end": [
        Mutant("learnt at a margin of 1.01", hinge, "short_of_learnt", lambda margins: np.maximum(1.01 - margins, 0)),
    ],
    "hinge-max-margin": [
        Mutant("direction 1 degree off", theory, "max_margin_direction", tilted),
        Mutant("margin 2 % too small", theory, "max_margin_direction", wider),
        Mutant(
            "weight of a point 2 % too large",
            hinge_margin,
            "end_of_small_start",
            lambda x, q, f=hinge_margin.end_of_small_start: f(x, q * [1.02, 1]),
        ),
    ],
}

# --- linearised networks (14.1) to (14.4), and what a generator is handed (15.1) -------------------------------------------

ntk = theory.ntk


def minus_signal(norm, loss, margin, f=theory.generator_signal):
    """sigmoid(m) for sigmoid(-m) and the reverse."""
    other = {"minimax": "non-saturating", "non-saturating": "minimax"}
    return f(norm, other.get(loss, loss), margin)


LINEAR = {
    "logistic-flow": [
        Mutant("K 2 % too large", ntk, "logistic_flow", times(ntk.logistic_flow, 0, 1.02)),
        Mutant("start 2 % too large", ntk, "logistic_flow", lambda K, t, start, f=ntk.logistic_flow: f(K, t, 1.02 * start)),
        Mutant("kernels 2 % too large", theory.jacobian, "margin_kernel", scaled(theory.jacobian.margin_kernel, 1.02)),
        Mutant(
            "the mean for the sum", ntk, "logistic_flow", lambda K, t, *rest, f=ntk.logistic_flow: f(K, t / len(K), *rest)
        ),
    ],
    "ridge-optimum": [
        Mutant("ridge 2 % too large", ntk, "ridge_optimum", times(ntk.ridge_optimum, 1, 1.02)),
        Mutant("ridge 2 % too large in the dual flow", ntk, "ridge_dual_flow", times(ntk.ridge_dual_flow, 1, 1.02)),
        Mutant("ridge |theta|^2 in place of (ridge/2) |theta|^2", ntk, "ridge_optimum", times(ntk.ridge_optimum, 1, 2.0)),
        Mutant("1 - alpha for alpha", ntk, "ridge_dual_flow", lambda *given, f=ntk.ridge_dual_flow: 1 - f(*given)),
        Mutant("ridge 2 % too large in the flow", ntk, "ridge_flow", times(ntk.ridge_flow, 1, 1.02)),
    ],
    "starvation-derivatives": [
        Mutant("slopes 2 % too large", ntk, "starvation_derivatives", scaled(ntk.starvation_derivatives, 1.02)),
        Mutant("a sign", ntk, "starvation_derivatives", scaled(ntk.starvation_derivatives, -1)),
        Mutant(
            "who starves for whom", ntk, "starvation_derivatives", lambda *given, f=ntk.starvation_derivatives: f(*given).T
        ),
    ],
    "spectral-decoupling": [
        Mutant("penalty 2 % too large", ntk, "spectral_decoupling_optimum", times(ntk.spectral_decoupling_optimum, 1, 1.02)),
        Mutant(
            "penalty |f|^2 in place of (penalty/2) |f|^2",
            ntk,
            "spectral_decoupling_optimum",
            times(ntk.spectral_decoupling_optimum, 1, 2.0),
        ),
        Mutant(
            "penalty 2 % too large in the flow",
            ntk,
            "spectral_decoupling_flow",
            times(ntk.spectral_decoupling_flow, 1, 1.02),
        ),
        Mutant("settled logits 2 % too large", theory, "settled_features", scaled(theory.settled_features, 1.02)),
        Mutant("K 2 % too large in the flow", ntk, "spectral_decoupling_flow", times(ntk.spectral_decoupling_flow, 0, 1.02)),
    ],
    "generator-signal": [
        Mutant("signal 2 % too large", theory, "generator_signal", scaled(theory.generator_signal, 1.02)),
        Mutant("a sign in the sigmoid", theory, "generator_signal", minus_signal),
        Mutant("peak 0.5 % too late", theory, "minimax_peak", scaled(theory.minimax_peak, 1.005)),
        Mutant("tail 2 % too large", theory, "minimax_tail", scaled(theory.minimax_tail, 1.02)),
        Mutant(
            "the norm missing in the tail", theory, "minimax_tail", lambda p, norm, **rest: norm * TAIL(p, norm, **rest)
        ),
    ],
}
TAIL = direction.minimax_tail

# Two rounds of every batch that takes turns.
TRIALS = {"starvation-bounds": 256, "deep-starvation": 256, "sgd-time-to-margin": 5 * 4000}

MUTANTS = PATHS | DESCENT | DECAY | FEATURES | SHORTCUT | SEVERAL | HINGE | LINEAR
