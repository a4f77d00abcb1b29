"""Wrong laws of balance, of one mode, of fates, of the error curve and of speed, each of which turns its entry red."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from mutants import Mutant, scaled

from gradstarve import special, theory
from gradstarve.problem import Mode, TwoLayerReLU
from gradstarve.theorems import balance, closed_forms, independence, inflection, mode, speed


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


def slower_mode(mode: Mode, *rest, solve_mode=theory.solve_mode):
    return solve_mode(Mode(mode.frequency * 1.05, mode.norm, mode.a, mode.z), *rest)


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


LAWS = {
    "balance": [(balance, "invariant", lambda w, z: np.sum(w**2, axis=-1) - 1.05 * z**2)],
    "sign": [
        (independence, "pushed_sign", scaled(independence.pushed_sign, -1)),
        (independence, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
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
}
MUTANTS = {
    name: [Mutant(f"{attribute}, one of {len(laws)}", place, attribute, wrong) for place, attribute, wrong in laws]
    for name, laws in LAWS.items()
}
TRIALS = {}
