"""Wrong laws of depth, descent, decay, features, hinge events and linearised networks, each of which turns its entry red."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from mutants import Mutant, scaled

from gradstarve import theory
from gradstarve.problem import Mode, TwoLayerReLU
from gradstarve.theorems import hinge_counts, hinge_end, hinge_margin, hinge_path, independence, starvation


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
    return solve_mode(Mode(mode.frequency * 1.05, mode.norm, mode.a, mode.z), *rest)


def tilted(points, max_margin_direction=theory.max_margin_direction):
    """The maximum-margin direction, 3 degrees off."""
    found = max_margin_direction(points)
    off = np.asarray(found.direction) + 0.05 * np.roll(found.direction, 1, axis=-1)
    return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(off / np.linalg.norm(off, axis=-1, keepdims=True)))


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


# Entry -> (where the law lives, its name there, the wrong law).
LAWS = {
    "no-sliding-edges": [
        (hinge_path, "pushed_sign", scaled(independence.pushed_sign, -1)),
        (hinge_path, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
    ],
    "depth": [(theory, "depth_mode", lambda p, *rest, f=theory.depth_mode: f(1.05 * p, *rest))],
    "unbalanced-depth": [
        (theory, "depth_mode", lambda p, *rest, f=theory.depth_mode: f(1.05 * p, *rest)),
        (theory, "depth_mode", lambda p, r, b, loss, f=theory.depth_mode: f(p, r, b**1.05, loss)),
    ],
    "waking-hinge": [
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + 1.05 * abs(cosine) * beta <= 0),
        (theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + beta <= 0),
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
MUTANTS = {
    name: [Mutant(f"{attribute}, one of {len(laws)}", place, attribute, wrong) for place, attribute, wrong in laws]
    for name, laws in LAWS.items()
}
