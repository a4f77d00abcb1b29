"""Wrong laws of balance, of one mode, of fates, of the error curve and of speed, each of which turns its entry red."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from mutants import Mutant, scaled, times

from gradstarve import problem, special, theory
from gradstarve.problem import (
    Dataset,
    FlippedLabels,
    Focal,
    GradientDescent,
    MarginShift,
    Mode,
    NormalizedGradientDescent,
    SharpnessAware,
    Temperature,
    TwoLayerReLU,
)
from gradstarve.theorems.laws import bias, independence, modes, shape
from gradstarve.theory import _cones, _descent, _sgd, _sign, _solve


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


def solve_changed(solve=theory.solve, **how):
    return lambda *problem: Changed(solve(*problem), **how)


def solve_from(change, solve=theory.solve):
    """The law of another start: `change` makes (read-outs z, who leaves) into other read-outs."""

    def changed(data, network, loss, dynamics=None):
        axes = np.asarray(data.points)
        a, z = np.asarray(network.w) @ axes.T, np.asarray(network.z)[..., None] * np.asarray(data.labels)
        leaves = ((a > 0) & (a / np.linalg.norm(axes, axis=-1) + z < 0)).any(-1)
        return solve(data, TwoLayerReLU(network.w, change(np.asarray(network.z), leaves)), loss, dynamics)

    return changed


def without_leavers(z, leaves):
    """The law that forgets (3.10) and (4.3): a neuron of the wrong sign is left out from the start."""
    return np.where(leaves, 0, z)


def leaving_sooner(z, leaves):
    """Leavers that are 1 % further from z = -a, and so leave sooner."""
    return np.where(leaves, 1.01 * z, z)


def mode_with(frequency=1.0, norm=1.0, a=1.0, solve_mode=theory.solve_mode):
    """The law of another mode, with the same logit at the start where only the frequency is another one."""

    def changed(problem, *rest):
        return solve_mode(Mode(problem.frequency * frequency, problem.norm * norm, problem.a * a, problem.z), *rest)

    return changed


def solve_of_width(factor, solve=theory.solve):
    """The law of a smoothed hinge that is `factor` times as wide."""
    return lambda data, network, loss, *rest: solve(data, network, type(loss)(factor * loss.width), *rest)


class HotterClock(Temperature):
    """A temperature whose residual is g(m/T), without the factor 1/T."""

    def residual(self, margin):
        return self.temperature * super().residual(margin)


class FlatFocal(Focal):
    """A focal loss whose factor (1 - P)^gamma is taken for a constant: g = (1 - P)^(gamma + 1)."""

    def residual(self, margin):
        return jax.nn.sigmoid(-margin) ** (self.gamma + 1)


def solve_of(kind, change, solve=theory.solve):
    """The law of another loss, which `change` makes of those of a `kind`."""
    return lambda data, network, loss, *rest: solve(data, network, change(loss) if isinstance(loss, kind) else loss, *rest)


def flipped(factor):
    return solve_of(FlippedLabels, lambda loss: eqx.tree_at(lambda one: one.share, loss, factor * loss.share))


def shifted(factor):
    return solve_of(MarginShift, lambda loss: MarginShift(loss.loss, factor * loss.shift))


def invariants_with(kappa=1.0, shift=0.0, sign=1.0, invariants=modes.invariants):
    def changed(norm, a, z):
        found, theta = invariants(norm, a, z)
        return kappa * found, sign * theta + shift

    return changed


def heavier(factor, alone=independence.alone):
    def changed(data, network, label):
        small, part, weight = alone(data, network, label)
        return small, part, weight * factor

    return changed


def one_neuron_short(data, network, label, alone=independence.alone):
    small, part, weight = alone(data, network, label)
    return small, TwoLayerReLU(part.w, part.z.at[..., 0].set(0)), weight


def unit_weight(data, network, label, alone=independence.alone):
    small, part, _ = alone(data, network, label)
    return small, part, 1.0


def tilted(points, max_margin_direction=theory.max_margin_direction):
    """The maximum-margin direction, 3 degrees off."""
    found = max_margin_direction(points)
    off = np.asarray(found.direction) + 0.05 * np.roll(found.direction, 1, axis=-1)
    return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(off / np.linalg.norm(off, axis=-1, keepdims=True)))


def towards(direction_of, max_margin_direction=theory.max_margin_direction):
    """Another direction in place of that of the maximum margin."""

    def changed(points):
        found = max_margin_direction(points)
        other = direction_of(np.asarray(points))
        return eqx.tree_at(lambda limit: limit.direction, found, jnp.asarray(other / np.linalg.norm(other)))

    return changed


def shortest(points):
    return points[np.argmin(np.linalg.norm(points, axis=-1))]


def mean_unit(points):
    return np.mean(points / np.linalg.norm(points, axis=-1, keepdims=True), axis=0)


def bent(odds=1.0, inner=1.0, steep=1.0, bend=shape.bend):
    """(5.1) with its terms 1 - 2 sigmoid(u), g'/g and u/(kappa^2 + u^2) times factors."""

    def changed(loss, u, kappa):
        law, size = bend(loss, u, kappa)
        first, third = 1 - 2 / (1 + np.exp(-u)), u / (kappa**2 + u**2)
        return odds * first + inner * (law - first - third) + steep * third, size

    return changed


def expi_sum(u0, u):
    """Ei(u) + Ei(u0), a sign wrong."""
    return np.asarray(special.expi(u)) + np.asarray(special.expi(u0))


def plateau_of_cross_entropy(frequency, norm, start, loss, f=theory.plateau_length):
    return f(frequency, norm, start, "cross-entropy")


def ratio_of(sign, u0):
    """(6.2) with the sign of Ei(u0) given."""
    u0 = np.asarray(u0)
    rest = np.asarray(special.expi(1.0)) + sign * np.asarray(special.expi(u0))
    return (np.log(1 / u0) + rest) / np.log(1 / u0)


def read_out_of(frequency=1.0, norm=1.0, start=0.0, law=theory.one_layer_logit):
    return lambda p, r, u0, *rest: law(frequency * p, norm * r, u0 + start, *rest)


def tail_with(deeper=0, law=theory.error_tail, **more):
    return lambda *rest, depth: law(*rest, depth=depth + deeper, **more)


def x_plus_z(a, z):
    """sigma_a / sigma_z upside down."""
    return 0.5 + jnp.arctan2(z, a) / jnp.pi


Z_ABOVE = {factor: (lambda a, z, f=factor: (z > -f * a).astype(float)) for factor in (1.01, 0.99)}
ENDS_IN = {factor: (lambda a, z, f=factor: np.sign(a + f * z)) for factor in (1.01, 0.99)}
DIES = {factor: (lambda alpha, beta, cosine, f=factor: alpha + f * abs(cosine) * beta <= 0) for factor in (1.01, 0.99)}

SETTING = {
    "balance": [
        Mutant("z^2 2 % too large", modes, "invariant", lambda w, z: np.sum(w**2, axis=-1) - 1.02 * z**2),
        Mutant("a sign", modes, "invariant", lambda w, z: np.sum(w**2, axis=-1) + z**2),
        Mutant("one weight of w left out", modes, "invariant", lambda w, z: np.sum(w[..., 1:] ** 2, axis=-1) - z**2),
    ],
    "sign": [
        Mutant("a sign", independence, "pushed_sign", scaled(independence.pushed_sign, -1)),
        Mutant("the label missing", independence, "pushed_sign", lambda z, labels: np.sign(z[..., None] + 0 * labels)),
        Mutant("the read-out missing", independence, "pushed_sign", lambda z, labels: np.sign(labels + 0 * z[..., None])),
    ],
    "independent-modes": [
        Mutant("weight of a class 2 % too large", independence, "alone", heavier(1.02)),
        Mutant("weight of a class missing", independence, "alone", unit_weight),
        Mutant("one neuron left out", independence, "alone", one_neuron_short),
        Mutant("frequency of the curve 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
        Mutant("norm of the curve 2 % too large", theory, "solve_mode", mode_with(norm=1.02)),
    ],
}

ONE_MODE = {
    "clock": [
        Mutant("clock 2 % too fast", theory, "solve", solve_changed(speed=1.02)),
        Mutant("the 2 of 2 p r missing", theory, "solve", solve_changed(speed=0.5)),
        Mutant("first weights 2 % too large", theory, "solve", solve_changed(weights=1.02)),
        Mutant("read-outs 2 % too large", theory, "solve", solve_from(lambda z, leaves: 1.02 * z)),
    ],
    "own-loss": [
        Mutant("width of the loss 2 % too large", theory, "solve", solve_of_width(1.02)),
        Mutant("clock 2 % too fast", theory, "solve", solve_changed(speed=1.02)),
        Mutant("first weights 2 % too large", theory, "solve", solve_changed(weights=1.02)),
        Mutant("read-outs 2 % too large", theory, "solve", solve_from(lambda z, leaves: 1.02 * z)),
    ],
    "hinge": [
        Mutant("time to the margin 2 % too long", modes, "hinge_time", scaled(modes.hinge_time, 1.02)),
        Mutant("the 2 of 2 p r missing", modes, "hinge_time", scaled(modes.hinge_time, 2)),
        Mutant("kappa 2 % too large", modes, "invariants", invariants_with(kappa=1.02)),
        Mutant("a sign of theta_0", modes, "invariants", invariants_with(sign=-1)),
        Mutant("frequency of the curve 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
    ],
    "cross-entropy": [
        Mutant("clock integral 2 % too large", special, "clock_integral", scaled(special.clock_integral, 1.02)),
        Mutant("printed time 2 % too long", modes, "cross_entropy_tau", scaled(modes.cross_entropy_tau, 1.02)),
        Mutant("a sign of Ei(u0)", modes, "cross_entropy_tau", lambda u0, u: np.log(u / u0) + expi_sum(u0, u)),
        Mutant("log(u/u0) missing", modes, "cross_entropy_tau", modes.exponential_tau),
        Mutant("kappa 2 % too large", modes, "invariants", invariants_with(kappa=1.02)),
    ],
    "balanced-curves": [
        Mutant("exponential time 2 % too long", modes, "exponential_tau", scaled(modes.exponential_tau, 1.02)),
        Mutant("a sign of Ei(u0)", modes, "exponential_tau", expi_sum),
        Mutant("squared clock 2 % too fast", modes, "squared_logit", times(modes.squared_logit, 1, 1.02)),
        Mutant("the 2 of 2 p r missing", modes, "squared_logit", times(modes.squared_logit, 1, 0.5)),
    ],
    "read-out": [
        Mutant("frequency 2 % too large", theory, "one_layer_logit", read_out_of(frequency=1.02)),
        Mutant("norm 1 % too large", theory, "one_layer_logit", read_out_of(norm=1.01)),
        Mutant("a 2 too many", theory, "one_layer_logit", read_out_of(frequency=2)),
        Mutant("logit 2 % too large", theory, "one_layer_logit", scaled(theory.one_layer_logit, 1.02)),
        Mutant("time to a logit 2 % too long", theory, "one_layer_time", scaled(theory.one_layer_time, 1.02)),
    ],
    "deaths": [
        Mutant("neurons that leave left out from the start", theory, "solve", solve_from(without_leavers)),
        Mutant("neurons leave too soon, z 1 % too large", theory, "solve", solve_from(leaving_sooner)),
        Mutant("clock 2 % too fast", theory, "solve", solve_changed(speed=1.02)),
    ],
    "universality": [
        Mutant("kappa 2 % too large", modes, "invariants", invariants_with(kappa=1.02)),
        Mutant("theta_0 0.02 too large", modes, "invariants", invariants_with(shift=0.02)),
        Mutant("a sign of theta_0", modes, "invariants", invariants_with(sign=-1)),
        Mutant("frequency of the curve 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
    ],
}

FATES = {
    "fates": [
        Mutant("line 1 % too low", theory, "exclusive_fate", Z_ABOVE[1.01]),
        Mutant("line 1 % too high", theory, "exclusive_fate", Z_ABOVE[0.99]),
        Mutant("a sign decides", theory, "exclusive_fate", lambda a, z: (z > 0).astype(float)),
    ],
    "learning-probability": [
        Mutant("probability 2 % too large", theory, "learning_probability", scaled(theory.learning_probability, 1.02)),
        Mutant(
            "arctangent 2 % too large", theory, "learning_probability", lambda a, z: 0.5 + 1.02 * jnp.arctan2(a, z) / jnp.pi
        ),
        Mutant("ratio 2 % too large", theory, "learning_probability", times(theory.learning_probability, 0, 1.02)),
        Mutant("ratio upside down", theory, "learning_probability", x_plus_z),
    ],
    "transfer": [
        Mutant("neurons that leave left out from the start", theory, "solve", solve_from(without_leavers)),
        Mutant("neurons leave too soon, z 1 % too large", theory, "solve", solve_from(leaving_sooner)),
        Mutant("clock 2 % too fast", theory, "solve", solve_changed(speed=1.02)),
    ],
    "antipodal-fates": [
        Mutant("z 1 % too large", theory, "antipodal_fate", ENDS_IN[1.01]),
        Mutant("z 1 % too small", theory, "antipodal_fate", ENDS_IN[0.99]),
        Mutant("the sign of z decides", theory, "antipodal_fate", lambda a, z: np.sign(z)),
        Mutant("2 % too likely", theory, "class_failure_probability", scaled(theory.class_failure_probability, 1.02)),
        Mutant("one neuron too many", theory, "class_failure_probability", lambda width: 0.5 ** (width + 1)),
        Mutant("both classes counted", theory, "class_failure_probability", lambda width: 2 * 0.5**width),
    ],
    "waking": [
        Mutant("cosine 1 % too large", theory, "dies_for_ever", DIES[1.01]),
        Mutant("cosine 1 % too small", theory, "dies_for_ever", DIES[0.99]),
        Mutant("the cosine missing", theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + beta <= 0),
        Mutant("a sign", theory, "dies_for_ever", lambda alpha, beta, cosine: alpha + cosine * beta <= 0),
    ],
}

SHAPE = {
    "inflections": [
        Mutant("places 0.5 % too high", theory, "error_inflections", scaled(theory.error_inflections, 1.005)),
        Mutant("kappa 2 % too large", shape, "invariants", invariants_with(kappa=1.02)),
        Mutant("1 - sigmoid for 1 - 2 sigmoid", shape, "bend", bent(odds=0.5)),
        Mutant("g'/g missing", shape, "bend", bent(inner=0)),
        Mutant("a sign of u/(kappa^2 + u^2)", shape, "bend", bent(steep=-1)),
        Mutant("u/(kappa^2 + u^2) 2 % too large", shape, "bend", bent(steep=1.02)),
    ],
    "rich-to-lazy": [
        Mutant("kappa_critical 0.5 % too large", theory, "kappa_critical", scaled(theory.kappa_critical, 1.005)),
        Mutant("kappa_critical 0.5 % too small", theory, "kappa_critical", scaled(theory.kappa_critical, 0.995)),
        Mutant("kappa_c^2 for kappa_c", theory, "kappa_critical", lambda loss, f=theory.kappa_critical: f(loss) ** 2),
        Mutant("one for all losses", theory, "kappa_critical", lambda loss, f=theory.kappa_critical: f("cross-entropy")),
    ],
    "plateau": [
        Mutant("2 % too long", theory, "plateau_length", scaled(theory.plateau_length, 1.02)),
        Mutant("2 % too short", theory, "plateau_length", scaled(theory.plateau_length, 0.98)),
        Mutant("the 2 missing", theory, "plateau_length", scaled(theory.plateau_length, 2)),
        Mutant("g(0) of cross-entropy for all", theory, "plateau_length", plateau_of_cross_entropy),
    ],
    "wrong-signs": [
        Mutant("fraction 2 % too large", theory, "wrong_sign_fraction", scaled(theory.wrong_sign_fraction, 1.02)),
        Mutant("clock 2 % too fast", theory, "wrong_sign_fraction", times(theory.wrong_sign_fraction, "t", 1.02)),
        Mutant("clock a factor of 2 too fast", theory, "wrong_sign_fraction", times(theory.wrong_sign_fraction, "t", 2)),
        Mutant("times 2 % too long", theory, "wrong_sign_time", scaled(theory.wrong_sign_time, 1.02)),
        Mutant("times 2 % too short", theory, "wrong_sign_time", scaled(theory.wrong_sign_time, 0.98)),
    ],
}

SPEED = {
    "confidence": [
        Mutant("2 % too long", theory, "time_to_confidence", scaled(theory.time_to_confidence, 1.02)),
        Mutant("the 2 of 2 p r missing", theory, "time_to_confidence", scaled(theory.time_to_confidence, 2)),
        Mutant("kappa 2 % too large", shape, "invariants", invariants_with(kappa=1.02)),
        Mutant("logit 2 % too large", theory, "confident_logit", scaled(theory.confident_logit, 1.02)),
        Mutant("a sign of the logit", theory, "confident_logit", scaled(theory.confident_logit, -1)),
    ],
    "hinge-advantage": [
        Mutant("2 % too large", theory, "hinge_advantage", scaled(theory.hinge_advantage, 1.02)),
        Mutant("a sign of Ei(u0)", theory, "hinge_advantage", lambda u0: ratio_of(1, u0)),
        Mutant("Ei(u0) missing", theory, "hinge_advantage", lambda u0: ratio_of(0, u0)),
        Mutant("frequency of the curves 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
    ],
    "tails": [
        Mutant("time 2 % too long", theory, "error_tail", times(theory.error_tail, 3, 1.02)),
        Mutant("time 2 % too short", theory, "error_tail", times(theory.error_tail, 3, 0.98)),
        Mutant("log T for log(1/e)", theory, "error_tail", tail_with(leading=True)),
        Mutant("one layer too many", theory, "error_tail", tail_with(deeper=1)),
    ],
    "last-direction": [
        Mutant("3 degrees off", theory, "max_margin_direction", tilted),
        Mutant("the mean of the points", theory, "max_margin_direction", towards(lambda points: points.mean(axis=0))),
        Mutant("the mean of the unit vectors", theory, "max_margin_direction", towards(mean_unit)),
        Mutant("the shortest point", theory, "max_margin_direction", towards(shortest)),
    ],
}

ANY_RESIDUAL = {
    "modified-loss": [
        Mutant("share 2 % too large", theory, "solve", flipped(1.02)),
        Mutant("the share for twice the share", theory, "solve", flipped(0.5)),
        Mutant("a sign of the flipped labels", theory, "solve", flipped(-1)),
        Mutant("flipped labels left out", theory, "solve", solve_of(FlippedLabels, lambda loss: loss.loss)),
        Mutant("shift 2 % too large", theory, "solve", shifted(1.02)),
        Mutant("a sign of the shift", theory, "solve", shifted(-1)),
        Mutant(
            "temperature 2 % too large",
            theory,
            "solve",
            solve_of(Temperature, lambda loss: Temperature(loss.loss, 1.02 * loss.temperature)),
        ),
        Mutant(
            "the factor 1/T missing",
            theory,
            "solve",
            solve_of(Temperature, lambda loss: HotterClock(loss.loss, loss.temperature)),
        ),
        Mutant("gamma 2 % too large", theory, "solve", solve_of(Focal, lambda loss: Focal(1.02 * loss.gamma))),
        Mutant("gamma + 1 for gamma", theory, "solve", solve_of(Focal, lambda loss: Focal(loss.gamma + 1))),
        Mutant("gamma P log P missing", theory, "solve", solve_of(Focal, lambda loss: FlatFocal(loss.gamma))),
        Mutant("first weights 2 % too large", theory, "solve", solve_changed(weights=1.02)),
    ],
}



def path_with(path=theory.kappa_path, **factors):
    """The path with numbers of the problem multiplied by factors, and a number that it is not given left at 0."""
    names = ("frequency", "norm", "kappa", "start", "loss", "step_size")

    def changed(*given, **more):
        numbers = dict(zip(names, given, strict=True)) | more
        return path(**{name: factors.get(name, 1) * value if name in factors else value for name, value in numbers.items()})

    return changed


def constant_kappa(*given, path=theory.kappa_path, **more):
    """The flow's law: kappa is kept."""
    u, kappa = path(*given, **more)
    return u, jnp.broadcast_to(kappa[..., :1], kappa.shape)


def single_factor(*given, path=theory.kappa_path, **more):
    """kappa multiplied by |1 - x g| alone, the square left out."""
    u, kappa = path(*given, **more)
    ratio = jnp.sqrt(jnp.abs(1 - kappa[..., 1:] / jnp.where(kappa[..., :-1] == 0, 1, kappa[..., :-1])))
    return u, jnp.concatenate([kappa[..., :1], kappa[..., :1] * jnp.cumprod(1 - ratio, axis=-1)], axis=-1)


def late_targets(*given, path=theory.kappa_path, **more):
    """Label noise that pulls to the target of the step before."""
    return path(*given, **more | ({"targets": np.roll(more["targets"], 1, axis=-1)} if "targets" in more else {}))


def without_noise(*given, path=theory.kappa_path, **more):
    return path(*given, **{name: value for name, value in more.items() if name != "targets"})


IN_STEPS = {
    "kappa-in-steps": [
        Mutant("step size 2 % too large", theory, "kappa_path", path_with(step_size=1.02)),
        Mutant("step size 2 % too small", theory, "kappa_path", path_with(step_size=0.98)),
        Mutant("first logit 2 % too large", theory, "kappa_path", path_with(start=1.02)),
        Mutant("kappa 2 % too large", theory, "kappa_path", path_with(kappa=1.02)),
        Mutant("kappa kept, as in the flow", theory, "kappa_path", constant_kappa),
        Mutant("|1 - x g| for |1 - (x g)^2|", theory, "kappa_path", single_factor),
        Mutant("weight decay 2 % too strong", theory, "kappa_path", path_with(weight_decay=1.02)),
        Mutant("weight decay left out", theory, "kappa_path", path_with(weight_decay=0)),
        Mutant("targets a step late", theory, "kappa_path", late_targets),
        Mutant("label noise left out", theory, "kappa_path", without_noise),
        Mutant("edge 10 % too high", theory, "edge_of_stability", scaled(theory.edge_of_stability, 1.1)),
        Mutant("edge 10 % too low", theory, "edge_of_stability", scaled(theory.edge_of_stability, 0.9)),
        Mutant("the 2 of the edge twice", theory, "edge_of_stability", times(theory.edge_of_stability, 3, 2)),
        Mutant("no catapult", theory, "catapult", lambda *given, f=theory.catapult: (f(*given)[0], given[2])),
        Mutant("a 2 too many", theory, "squared_gradient_norm", scaled(theory.squared_gradient_norm, 2)),
        Mutant(
            "squared gradient without u",
            theory,
            "squared_gradient_norm",
            lambda r, kappa, u: 2 * np.asarray(r) * np.asarray(kappa),
        ),
        Mutant("decay of the flow 2 % too fast", theory, "decayed_kappa", times(theory.decayed_kappa, 1, 1.02)),
        Mutant("the 2 of 2 lambda missing", theory, "decayed_kappa", times(theory.decayed_kappa, 1, 0.5)),
        Mutant("time to the rich regime 2 % too long", theory, "lazy_to_rich_time", scaled(theory.lazy_to_rich_time, 1.02)),
    ],
}



def with_numbers(**by):
    """The factors of dynamics whose numbers are multiplied."""

    def change(self, modes, factors):
        numbers = [factor * getattr(self, name) for name, factor in by.items()]
        return factors(eqx.tree_at(lambda dynamics: [getattr(dynamics, name) for name in by], self, numbers), modes)

    return change


class Length(problem.Modes):
    """Modes of which the gradient has another length."""

    modes: problem.Modes
    factor: float = 1.0
    own: bool = False

    def pull(self, plus=1, minus=1):
        return self.modes.pull(plus, minus)

    def gradient_norm(self, pull):
        found = self.modes.gradient_norm(pull)
        if self.own:  # that of the neurons of the first class alone
            a = (self.modes.grown + self.modes.decayed) / 2
            found = jnp.where(a > 0, self.modes.gradient_norm(jnp.where(a > 0, pull, 0)), found)
        return self.factor * found


class Unmoved(Length):
    """Modes that are looked at where they are, whatever they are moved by."""

    def pull(self, plus=1, minus=1):
        return self.modes.pull()


def wrong_factors(label, kind, change):
    wrong = partial(_changed_factors, change, kind.factors)
    return Mutant(label, kind, "factors", lambda self, modes: wrong(self, modes), inside=True)


def _changed_factors(change, factors, self, modes):
    return change(self, modes, factors)


def step_late(self, state, step=_descent.DescentLaw.step):
    """The step size of the step before."""
    grown, decayed, velocity, _ = step(self, (*state[:3], jnp.maximum(state[3] - 1, 0)))
    return grown, decayed, velocity, state[3] + 1


def law_of_layers(change, new=_solve.new_descent_law):
    """The law with other step sizes of the layers: `change(step_size, read_out_step_size)`."""

    def changed(loss, dynamics, *rest):
        if getattr(dynamics, "read_out_step_size", None) is not None:
            pair = change(dynamics.step_size, dynamics.read_out_step_size)
            dynamics = eqx.tree_at(lambda d: (d.step_size, d.read_out_step_size), dynamics, pair)
        return new(loss, dynamics, *rest)

    return changed


def law_of_signs(change, new=_solve.new_sign_law):
    """The law of sign descent after `change(frequencies, norms, a, z, reach)`."""

    def changed(loss, dynamics, frequencies, norms, a, z, signs, reach, *rest):
        norms, a, z, reach = change(norms, a, z, reach)
        return new(loss, dynamics, frequencies, norms, a, z, signs, reach, *rest)

    return changed


def size_of_pull(self, state):
    """Steps by the size of the pull, not by its sign."""
    a, z, count = state
    step_size = self.dynamics.step_size[..., None]
    pull = self._pull(self.logits_of(state), self._members(a))
    return a + step_size * self.reach * pull * jnp.sign(z), z + step_size * pull * jnp.sign(a), count + 1


def batches_with(change, distribution=_sgd.ModeMiniBatch.distribution):
    """The distribution of another frequency or batch size."""
    return lambda self, step: distribution(change(self), step)


def waits_with(change, time_to_logit=_sgd.ModeMiniBatch.time_to_logit):
    """The first step with a logit, of another frequency or batch size."""
    return lambda self, logit: time_to_logit(change(self), logit)


def waits_a_step_late(self, step, pmf=_sgd.MixedTimeDistribution.pmf):
    return jnp.where(jnp.asarray(step) > 0, pmf(self, jnp.maximum(jnp.asarray(step) - 1, 0)), 0)


def wait_of_the_fastest(self, logit):
    """The negative binomial wait for as many steps with a point of the class as need steps that draw nothing else."""
    drawn = -jnp.expm1(self.batch_size * jnp.log1p(-self.frequency))
    return _sgd.TimeDistribution(self.own.time_to_logit(logit), drawn)


def rarer(self):
    return eqx.tree_at(lambda one: one.mode.frequency, self, 0.98 * self.mode.frequency)


def larger_batch(self):
    return type(self)(self.mode, self.own, self.batch_size + 1)


def mean_with(spread, expected=_sgd.ModeMiniBatch.expected_logit):
    """The mean with `spread(B)` in the place of B under the variance."""
    return lambda self, step: expected(type(self)(self.mode, self.own, spread(self.batch_size)), step)


def batch_steps(mode, loss, dynamics, solve_mode=theory.solve_mode):
    return solve_mode(mode, loss, type(dynamics)(1.02 * dynamics.step_size, dynamics.batch_size))


STEPS = {
    "steps-of-two-factors": [
        Mutant("rates of the layers exchanged", _solve, "new_descent_law", law_of_layers(lambda a, z: (z, a))),
        wrong_factors("step size 2 % too large", GradientDescent, with_numbers(step_size=1.02)),
        Mutant("a step late in the schedule", _descent.DescentLaw, "step", step_late, inside=True),
        Mutant("one mean rate for both", _solve, "new_descent_law", law_of_layers(lambda a, z: (jnp.sqrt(a * z),) * 2)),
        Mutant("read-out 2 % too fast", _solve, "new_descent_law", law_of_layers(lambda a, z: (a, 1.02 * z))),
        wrong_factors(
            "the 1/2 of G^2 missing",
            NormalizedGradientDescent,
            lambda self, modes, factors: factors(self, Length(modes, factor=np.sqrt(2))),
        ),
        wrong_factors(
            "the length of a class alone",
            NormalizedGradientDescent,
            lambda self, modes, factors: factors(self, Length(modes, own=True)),
        ),
        wrong_factors("normalised steps 2 % too long", NormalizedGradientDescent, with_numbers(step_size=1.02)),
        wrong_factors("radius 2 % too large", SharpnessAware, with_numbers(radius=1.02)),
        wrong_factors("downhill, not uphill", SharpnessAware, with_numbers(radius=-1)),
        wrong_factors(
            "the residual of the start of the step",
            SharpnessAware,
            lambda self, modes, factors: factors(self, Unmoved(modes)),
        ),
    ],
    "sign-descent": [
        Mutant("rho 2 % too large", _solve, "new_sign_law", law_of_signs(lambda r, a, z, reach: (r, a, z, 1.02 * reach))),
        Mutant("rho left out", _solve, "new_sign_law", law_of_signs(lambda r, a, z, reach: (r, a, z, 1.0))),
        Mutant("read-outs 2 % larger", _solve, "new_sign_law", law_of_signs(lambda r, a, z, rho: (r, a, 1.02 * z, rho))),
        Mutant("the size of the residual", _sign.SignLaw, "step", size_of_pull, inside=True),
    ],
    "mini-batches": [
        Mutant("frequency 2 % too small", _sgd.ModeMiniBatch, "distribution", batches_with(rarer)),
        Mutant("a point more in each batch", _sgd.ModeMiniBatch, "distribution", batches_with(larger_batch)),
        Mutant("step size 2 % too large", theory, "solve_mode", batch_steps),
        Mutant("the variance of one point", _sgd.ModeMiniBatch, "expected_logit", mean_with(lambda size: 1)),
        Mutant("no variance", _sgd.ModeMiniBatch, "expected_logit", mean_with(lambda size: 10**9)),
        Mutant("waits of a frequency 2 % too small", _sgd.ModeMiniBatch, "time_to_logit", waits_with(rarer)),
        Mutant("waits of a point more in each batch", _sgd.ModeMiniBatch, "time_to_logit", waits_with(larger_batch)),
        Mutant("waits a step too late", _sgd.MixedTimeDistribution, "pmf", waits_a_step_late),
        Mutant("as many draws as the fastest", _sgd.ModeMiniBatch, "time_to_logit", wait_of_the_fastest),
    ],
}

def solve_with_slope(change, solve=theory.solve):
    """The law of another slope, which `change` makes of that of the network."""

    def changed(data, network, *rest):
        return solve(data, TwoLayerReLU(network.w, network.z, change(network.slope)), *rest)

    return changed


def solve_in_steps(factor, solve=theory.solve):
    """The law of steps that are longer by a factor."""

    def changed(data, network, loss, dynamics=None):
        if dynamics is not None:
            dynamics = eqx.tree_at(lambda one: one.step_size, dynamics, factor * dynamics.step_size)
        return solve(data, network, loss, dynamics)

    return changed


def solve_of_classes(plus, solve=theory.solve):
    """The law of classes whose frequencies are shifted by a factor of that of class +."""

    def changed(data, *rest):
        weights = data.weights * np.where(np.asarray(data.labels) > 0, plus, 1)
        return solve(Dataset(data.points, data.labels, weights / weights.sum()), *rest)

    return changed


def death_with(leave=1.0, blind=1.0, law=theory.death_probability):
    """The share that dies with its two parts, neurons that leave and neurons that see no class, multiplied by factors."""

    def changed(cosine, *scales):
        left = (1 - theory.learning_probability(*scales)) / 2
        return leave * left + blind * (law(cosine, *scales) - left)

    return changed


class ChangedBounds(eqx.Module):
    """Bounds at a clock of another `speed`, each times a factor."""

    inner: theory.ConeBounds
    speed: float = 1.0
    low: float = 1.0
    high: float = 1.0

    def lower(self, t):
        return self.low * self.inner.lower(np.asarray(t) * self.speed)

    def upper(self, t):
        return self.high * self.inner.upper(np.asarray(t) * self.speed)


def bounds_changed(**how):
    return lambda *problem, bounds=theory.cone_bounds: ChangedBounds(bounds(*problem), **how)


def bounds_of(change, bounds=theory.cone_bounds):
    """The bounds of other points: `change` makes points and labels into other points."""

    def changed(data, network, loss):
        x, y = np.asarray(data.points), np.asarray(data.labels)
        return bounds(Dataset(change(x, y), data.labels, data.weights), network, loss)

    return changed


def mean_of_class(x, y):
    return np.where(y[:, None] > 0, x[y > 0].mean(0), x[y < 0].mean(0))


def late_with(kappa=lambda kappa: kappa, start=lambda start: start, late=_cones._late):
    """The late bound (3.12') with another factor before V, or that is taken to hold from another time on."""

    def changed(*given):
        found = late(*given)
        begin = jnp.where(jnp.isfinite(found.start), start(found.start), jnp.inf)
        return _cones.Late(begin, jnp.asarray(kappa(found.kappa), found.kappa.dtype), found.curve)

    return changed


def late_of_the_largest_norm(loss, low, high, *given, late=_cones._late):
    """k_+ for k_-: the kernel of points that are all one."""
    return late(loss, high, high, *given)


CONES = {
    "cones": [
        Mutant("clock 2 % too fast", theory, "cone_bounds", bounds_changed(speed=1.02)),
        Mutant("clock 2 % too slow", theory, "cone_bounds", bounds_changed(speed=0.98)),
        Mutant("lower bound 2 % too high", theory, "cone_bounds", bounds_changed(low=1.02)),
        Mutant("upper bound 2 % too low", theory, "cone_bounds", bounds_changed(high=0.98)),
        Mutant("norms 2 % too large", theory, "cone_bounds", bounds_of(lambda x, y: 1.02 * x)),
        Mutant("norms 2 % too small", theory, "cone_bounds", bounds_of(lambda x, y: 0.98 * x)),
        Mutant("all points of a class at its mean", theory, "cone_bounds", bounds_of(mean_of_class)),
        Mutant("late bound 2 % too high", _cones.Late, "at", scaled(_cones.Late.at, 1.02)),
        Mutant("late bound of all margins alike", _cones, "_late", late_with(kappa=lambda kappa: 1.0)),
        Mutant("late bound with kappa^2 for kappa before V", _cones, "_late", late_with(kappa=lambda kappa: kappa**0.5)),
        Mutant("late bound of the largest norm", _cones, "_late", late_of_the_largest_norm),
        Mutant("late bound from the start", _cones, "_late", late_with(start=lambda start: 0 * start)),
    ]
}

def flow_of_slope(change, leaky_flow=_solve.leaky_flow):
    return lambda loss, rays, a, z, slope: leaky_flow(loss, rays, a, z, change(slope))


LEAKY_AND_BIAS = {
    "leaky": [
        Mutant("slope 2 % too large", theory, "solve", solve_with_slope(lambda slope: 1.02 * slope)),
        Mutant("slope 2 % too small", theory, "solve", solve_with_slope(lambda slope: 0.98 * slope)),
        Mutant("the ReLU in place of the leaky one", theory, "solve", solve_with_slope(lambda slope: 0.0)),
        Mutant("slope^2 for the slope", theory, "solve", solve_with_slope(lambda slope: slope**2)),
        Mutant("steps 2 % too long", theory, "solve", solve_in_steps(1.02)),
        Mutant("the flow of a slope 2 % too large", _solve, "leaky_flow", flow_of_slope(lambda slope: 1.02 * slope)),
        Mutant("class + 2 % too frequent", theory, "solve", solve_of_classes(1.02)),
        Mutant("last weights 2 % too large", theory, "solve", solve_changed(weights=1.02)),
        Mutant("z of the fate 1 % too large", theory, "antipodal_fate", ENDS_IN[1.01]),
        Mutant("z of the fate 1 % too small", theory, "antipodal_fate", ENDS_IN[0.99]),
        Mutant("the sign of z decides", theory, "antipodal_fate", lambda a, z: np.sign(z)),
        Mutant("neurons stay on their side", theory, "antipodal_fate", lambda a, z: np.sign(a)),
    ],
    "bias": [
        Mutant("the bias left out of the norm", bias, "biased_norm", lambda norm, feature: norm),
        Mutant("a sum for the root of squares", bias, "biased_norm", lambda norm, feature: norm + abs(feature)),
        Mutant("norm 2 % too large", theory, "solve_mode", mode_with(norm=1.02)),
        Mutant("frequency 2 % too large", theory, "solve_mode", mode_with(frequency=1.02)),
        Mutant("cosine 2 % too large", theory, "biased_cosine", scaled(theory.biased_cosine, 1.02)),
        Mutant("cosine 2 % too small", theory, "biased_cosine", scaled(theory.biased_cosine, 0.98)),
        Mutant("bias 2 % too large", theory, "biased_cosine", times(theory.biased_cosine, 2, 1.02)),
        Mutant("half of the bias", theory, "biased_cosine", times(theory.biased_cosine, 2, 0.5)),
        Mutant("the cosine of (4.4) 1 % too large", theory, "dies_for_ever", DIES[1.01]),
        Mutant("10 % more of the leavers die", theory, "death_probability", death_with(leave=1.1)),
        Mutant("10 % more see no class", theory, "death_probability", death_with(blind=1.1)),
        Mutant("3/8 at every angle", theory, "death_probability", lambda cosine, *scales: 0.375),
        Mutant("all leavers die", theory, "death_probability", death_with(leave=2)),
    ],
}

def phases_with(change, solve=theory.solve):
    """The law of other phases."""

    def changed(data, *rest):
        return solve(change(data) if isinstance(data, list) else data, *rest)

    return changed


def labels_as_before(phases):
    first = phases[0][1]
    return [(end, problem.Dataset(data.points, first.labels, data.weights)) for end, data in phases]


def weights_as_before(phases):
    first = phases[0][1]
    return [(end, problem.Dataset(data.points, data.labels, first.weights)) for end, data in phases]


def a_step_late(phases):
    return [(None if end is None else end + 1, data) for end, data in phases]


def alive_with(low, high, alive=theory.still_alive):
    return lambda a, z, lowest, highest: alive(a, z, low * lowest, high * highest)


SWITCHES = {
    "task-switches": [
        Mutant("labels of the first task", theory, "solve", phases_with(labels_as_before)),
        Mutant("weights of the first task", theory, "solve", phases_with(weights_as_before)),
        Mutant("switches a step late", theory, "solve", phases_with(a_step_late)),
        Mutant("the first task forgotten", theory, "still_alive", alive_with(1, 0)),
        Mutant("the flip forgotten", theory, "still_alive", alive_with(0, 1)),
        Mutant("half of the clock", theory, "still_alive", alive_with(0.5, 0.5)),
        Mutant("a quarter of the share", theory, "alive_share", scaled(theory.alive_share, 0.75)),
    ],
}

class Aligned:
    """A phase of alignment whose time runs at `speed`, whose weights are changed, or whose directions are."""

    def __init__(self, phase, speed=1.0, weights=lambda w, z: (w, z), rate=1.0):
        self.phase, self.speed, self.weights, self.groups = phase, speed, weights, phase.groups
        self.directions = phase.directions._replace(rate=rate * phase.directions.rate)

    def network(self, t, **how):
        found = self.phase.network(self.speed * np.asarray(t), **how)
        return eqx.tree_at(lambda net: (net.w, net.z), found, self.weights(found.w, found.z))


def aligned_with(align=theory.early_alignment, **how):
    return lambda *problem: Aligned(align(*problem), **how)


def aligned_on(change, align=theory.early_alignment):
    """The phase on other data, which `change` makes of the points, labels and weights."""
    return lambda data, *rest: align(Dataset(*change(data.points, data.labels, data.weights)), *rest)


def without_the_first(points, labels, weights):
    """As good as none of it."""
    weights = weights.at[0].multiply(1e-9)
    return points, labels, weights / weights.sum()


def aligned_from(change, align=theory.early_alignment):
    """The phase of another start, which `change` makes of w and z."""
    return lambda data, network, loss: align(data, TwoLayerReLU(*change(network.w, network.z)), loss)


def without_edges(data, network, loss, align=theory.early_alignment):
    """The law of neurons that never leave the points they see at first: one cosh and one sinh each."""
    phase = Aligned(align(data, network, loss))
    x, push = np.asarray(data.points), float(problem.as_loss(loss).residual(jnp.zeros(()))) * data.weights * data.labels
    start_w, start_z = np.asarray(network.w)[:, None], np.asarray(network.z)[:, None]
    c = ((np.asarray(network.w) @ x.T > 0) * np.asarray(push) @ x)[:, None]
    k = np.linalg.norm(c, axis=-1)
    ch = c / np.where(k > 0, k, 1)[..., None]
    a = np.sum(start_w * ch, -1)

    def straight(t, **how):
        angle = k * np.asarray(t)[:, None]
        along, z = (one * np.cosh(angle) + other * np.sinh(angle) for one, other in ((a, start_z), (start_z, a)))
        return TwoLayerReLU(start_w + (along - a)[..., None] * ch, z)

    phase.network = straight
    return phase


ALIGNMENT = {
    "early-alignment": [
        Mutant("time 5 % too fast", theory, "early_alignment", aligned_with(speed=1.05)),
        Mutant("time 5 % too slow", theory, "early_alignment", aligned_with(speed=0.95)),
        Mutant("g(0) of another loss", theory, "early_alignment", aligned_with(speed=2.0)),
        Mutant("weights 2 % too large", theory, "early_alignment", aligned_with(weights=lambda w, z: (1.02 * w, 1.02 * z))),
        Mutant("the other read-out", theory, "early_alignment", aligned_with(weights=lambda w, z: (w, -z))),
        Mutant("rates 2 % too large", theory, "early_alignment", aligned_with(rate=1.02)),
        Mutant("the first point left out", theory, "early_alignment", aligned_on(without_the_first)),
        Mutant("all labels alike", theory, "early_alignment", aligned_on(lambda x, y, q: (x, jnp.ones_like(y), q))),
        Mutant("equal weights", theory, "early_alignment", aligned_on(lambda x, y, q: (x, y, jnp.ones_like(q) / q.size))),
        Mutant("norms of one", theory, "early_alignment", aligned_on(lambda x, y, q: (x / jnp.linalg.norm(x), y, q))),
        Mutant("read-outs 5 % too large", theory, "early_alignment", aligned_from(lambda w, z: (w, 1.05 * z))),
        Mutant("no edges", theory, "early_alignment", without_edges),
    ],
}



def exits_of(change, law=theory.plateau_exits):
    """The exits, which `change` makes of them."""

    def wrong(*problem):
        found = law(*problem)
        return found._replace(time=change(found))

    return wrong


def exits_on(change, law=theory.plateau_exits):
    """The exits on other data, which `change` makes of the points, labels and weights."""
    return lambda data, *rest: law(Dataset(*change(data.points, data.labels, data.weights)), *rest)


def exits_from(change, law=theory.plateau_exits):
    """The exits of another start, which `change` makes of w and z."""
    return lambda data, network, *rest: law(data, TwoLayerReLU(*change(network.w, network.z)), *rest)


def all_push(data, network, residual=None, law=theory.plateau_exits):
    """Learnt points push as before."""
    return law(data, network, np.ones((network.width, data.size)))


def fastest(found):
    return np.array([np.nanmax(rate) for rate in found.rate])


PLATEAUS = {
    "saddle-to-saddle": [
        Mutant("exits 1 % too late", theory, "plateau_exits", exits_of(lambda found: 1.01 * found.time)),
        Mutant("the size of outputs, not of weights", theory, "plateau_exits", exits_of(lambda found: 2 * found.time)),
        Mutant("the scale made up for anew", theory, "plateau_exits", exits_of(lambda found: np.cumsum(1 / fastest(found)))),
        Mutant("no plateau before", theory, "plateau_exits", exits_of(lambda found: 1 / fastest(found))),
        Mutant("learnt points push on", theory, "plateau_exits", all_push),
        Mutant("all labels alike", theory, "plateau_exits", exits_on(lambda x, y, q: (x, jnp.ones_like(y), q))),
        Mutant("equal weights", theory, "plateau_exits", exits_on(lambda x, y, q: (x, y, jnp.ones_like(q) / q.size))),
        Mutant("norms of one", theory, "plateau_exits", exits_on(lambda x, y, q: (x / jnp.linalg.norm(x), y, q))),
        Mutant("the other read-out", theory, "plateau_exits", exits_from(lambda w, z: (w, -z))),
        Mutant("no first neuron", theory, "plateau_exits", exits_from(lambda w, z: (w.at[0].set(0), z.at[0].set(0)))),
    ],
}

MUTANTS = SETTING | ONE_MODE | FATES | SHAPE | SPEED | ANY_RESIDUAL | IN_STEPS | STEPS
MUTANTS |= SWITCHES | LEAKY_AND_BIAS | ALIGNMENT | PLATEAUS | CONES

TRIALS = {
    "sign": 96,
    "independent-modes": 144,
    "fates": 512,
    "learning-probability": 6 * 4000,
    "antipodal-fates": 4096,
    "balanced-curves": 48,
    "waking": 48,
    "wrong-signs": 6 * 4000,
    "confidence": 24,
    "hinge-advantage": 48,
    "last-direction": 48,
    "read-out": 24,
    "modified-loss": 192,
    "kappa-in-steps": 9 * 24,
    "leaky": 120,
    "cones": 48,
    "bias": 72,
    "steps-of-two-factors": 96,
    "sign-descent": 48,
    "mini-batches": 5 * 20_000,
    "task-switches": 72,
    "early-alignment": 120,
    "saddle-to-saddle": 8,
}
