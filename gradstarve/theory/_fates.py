"""The fates of neurons: the class in which a neuron ends, and its probability (4.1)-(4.4).

In the plane of a = w.xh and z the flow of a positive class runs along a^2 - z^2 = const. With a > 0: z > -a learns,
z < -a leaves at a finite angle of the clock, z = -a is the stable manifold of the saddle at the origin (4.1). The signs
are those of (8.1) too while step_size p r g < 1, so every statement here holds in discrete time as well.

Also here: laws over seeds (5.4).
"""

from __future__ import annotations

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    as_goal,
    check_least,
    check_normal,
    check_normal_size,
    check_positive,
    check_together,
    deprecated,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
    short_repr,
    shown,
    together,
)
from gradstarve.problem import (
    Dynamics,
    GradientDescent,
    Loss,
    SignDescent,
    Steps,
    StochasticGradientDescent,
    as_loss,
    clock_of,
    no_dynamics,
    with_closed_form,
)
from gradstarve.special import Clock, expint
from gradstarve.theory._piecewise import check_times


def antipodal_fate(a, z) -> Float[Array, "*shape"]:
    """The class each neuron ends in on antipodal data: sign(a + z), a = w.x_+/|x_+| signed; any shape (4.3).

    Valid if the clock of the neuron's first class reaches the crossing: always for cross-entropy and exponential loss. With
    hinge or squared loss a class may stop first, and a neuron of the wrong sign then stays in it. A leaky ReLU of any slope
    has the same fates (22.2): a neuron ends on the side sign(a + z), and has the activity `slope` on the other class.

    >>> antipodal_fate([0.1, 0.1, -0.1], [0.5, -0.5, -0.5]).tolist()
    [1.0, -1.0, -1.0]
    """
    a, z = _weights(a, z)
    # Compared, not added: the sum of two floats may be too small for one.
    return jnp.where(a == 0, 0, (z > -a).astype(a.dtype) - (z < -a).astype(a.dtype))


def exclusive_fate(a, z) -> Float[Array, "*shape"]:
    """1 if a neuron exclusive to its class learns, 0 if it dies (or was never active); a, z in its orientation (4.1).

    >>> exclusive_fate([0.1, 0.1, -0.1], [0.5, -0.5, 0.5]).tolist()
    [1.0, 0.0, 0.0]
    """
    a, z = _weights(a, z)
    return ((a > 0) & (z > -a)).astype(a.dtype)


def _weights(a, z):
    a, z = together(a=a, z=z)
    check_normal("a", a)
    check_normal("z", z)
    return a, z


def learning_probability(scale_a=None, scale_z=None, *, dynamics=None, reach=1.0) -> Float[Array, "..."]:
    """1/2 + arctan(sigma_a / sigma_z) / pi: the chance that an exclusive Gaussian neuron learns (4.2).

    `scale_a`, `scale_z` > 0: standard deviations of w.xh and z, broadcast together. Only their ratio counts: give both, or
    neither for equal ones; `ValueError` for one alone.

    `dynamics`: the dynamics, in the limit of small steps (and radius); default: gradient flow. Steps that multiply a + z and
    a - z by two factors have the chance of the flow. `GradientDescent` with a `read_out_step_size` eta_z beside its
    step_size eta_a turns the ratio into (sigma_a / sigma_z) sqrt(eta_z / eta_a) (17.3), `SignDescent` into sigma_a / (rho
    sigma_z), `reach` rho = |x|_1 / |x|_2 >= 1 of the points (17.6). `ValueError` for a `reach` below 1, or beside other
    dynamics.

    >>> float(learning_probability())
    0.75
    >>> from gradstarve.problem import GradientDescent, SignDescent
    >>> round(float(learning_probability(dynamics=GradientDescent(0.1, read_out_step_size=0.3))), 4)
    0.8333
    >>> round(float(learning_probability(dynamics=SignDescent(0.1), reach=10.0)), 4)   # of 100 equal coordinates
    0.5317
    """
    if (scale_a is None) != (scale_z is None):
        given = f"scale_a = {shown(scale_a)}" if scale_z is None else f"scale_z = {shown(scale_z)}"
        raise ValueError(f"the chance depends on scale_a / scale_z, and only {given} was given; give both, or neither")
    if not _decides(dynamics):
        raise no_dynamics("GradientFlow(), SignDescent(...) or with a law of modes", dynamics)
    scale_a, scale_z = (1.0, 1.0) if scale_a is None else (scale_a, scale_z)
    alone = isinstance(reach, int | float) and reach == 1  # as inside jit every array is traced
    scale_a, scale_z, reach = together(scale_a=scale_a, scale_z=scale_z, reach=reach)
    check_positive("scale_a", scale_a)
    check_positive("scale_z", scale_z)
    check_least("reach", reach, 1.0)
    if isinstance(dynamics, SignDescent):
        return 0.5 + jnp.arctan2(scale_a, reach * scale_z) / jnp.pi
    if not alone and (not is_concrete(reach) or bool((reach != 1).any())):
        raise ValueError(f"reach = |x|_1 / |x|_2 counts for SignDescent only, got {shown(dynamics)}; leave reach out")
    if isinstance(dynamics, GradientDescent) and dynamics.read_out_step_size is not None:
        rates = jnp.sqrt(dynamics.read_out_step_size) / jnp.sqrt(dynamics.step_size)
        check_together(scale_a=scale_a, rates=rates)
        scale_a = scale_a * rates.astype(scale_a.dtype)
    return 0.5 + jnp.arctan2(scale_a, scale_z) / jnp.pi


def _decides(dynamics) -> bool:
    """Whether fates under small steps of these dynamics are those of (4.1), (17.3) or (17.6)."""
    if isinstance(dynamics, Steps):
        return dynamics.has_law or isinstance(dynamics, SignDescent | StochasticGradientDescent)
    return dynamics is None or isinstance(dynamics, Dynamics)


def class_failure_probability(width: int) -> float:
    """2^-h: the chance that a given one of two antipodal classes is never learnt, for symmetric initialisation (4.3).

    Both classes together never fail. For a ReLU, slope 0: neurons of a leaky ReLU are active on both classes, on one of them
    with the weight `slope`, so that the neurons of one side learn both classes and no class fails (22.2).

    >>> class_failure_probability(3)
    0.125
    """
    return 0.5 ** positive_int("width", width)


def dies_for_ever(alpha, beta, cosine) -> Array:
    """Whether a neuron of the wrong sign, exclusive to one of two classes at an obtuse angle, is dead for ever (4.4).

    `beta` = w.xh of its own class > 0, `alpha` = w.xh of the other <= 0, `cosine` of the angle in [-1, 0]: it leaves its
    class with alpha + |cosine| beta on the other class, and becomes active there iff this is positive. `ValueError` for
    numbers outside of these ranges; traced numbers are not checked.

    >>> bool(dies_for_ever(-0.5, 0.4, -0.5)), bool(dies_for_ever(-0.1, 0.4, -0.5))
    (True, False)
    """
    alpha, beta, cosine = together(alpha=alpha, beta=beta, cosine=cosine)
    check_normal("alpha", alpha)
    check_positive("beta", beta)
    check_normal("cosine", cosine)
    for name, value, fine, rule in (
        ("alpha", alpha, alpha <= 0, "must be <= 0: the neuron is exclusive to the other class"),
        ("cosine", cosine, (cosine >= -1) & (cosine <= 0), "must be in [-1, 0]"),
    ):
        if is_concrete(value) and not bool(fine.all()):
            raise ValueError(f"{name} {rule}, got {np.asarray(value)[~np.asarray(fine)].flat[0]}")
    if is_concrete(beta) and is_concrete(cosine):
        with np.errstate(divide="ignore"):
            log_size = np.log(np.abs(np.asarray(cosine))) + np.log(np.asarray(beta))
        check_normal_size("cosine * beta", log_size, beta.dtype)
    return alpha + jnp.abs(cosine) * beta <= 0


def biased_cosine(norm_plus, norm_minus, feature=1.0) -> Float[Array, "..."]:
    """cos = (beta^2 - r_+ r_-)/sqrt((beta^2 + r_+^2)(beta^2 + r_-^2)) of antipodal classes with a bias (23.1).

    `norm_plus`, `norm_minus` > 0 are the distances r_+, r_- of the classes from the origin, `feature` the finite beta of
    `Dataset.with_bias`; they broadcast. The classes are orthogonally separable iff cos <= 0, that is r_+ r_- >= beta^2.
    Absolute error a few ulp.

    >>> [round(float(biased_cosine(2.0, 1.0, beta)), 4) for beta in (0.0, 0.5, 2**0.5)]
    [-1.0, -0.7593, 0.0]
    """
    plus, minus, beta = together(norm_plus=norm_plus, norm_minus=norm_minus, feature=feature)
    check_positive("norm_plus", plus)
    check_positive("norm_minus", minus)
    check_normal("feature", beta)
    # Scaled before the squares, which may overflow or underflow.
    sides = []
    for norm in (plus, minus):
        size = jnp.maximum(norm, jnp.abs(beta))
        x, b = norm / size, beta / size
        length = jnp.sqrt(x * x + b * b)
        sides.append((x / length, b / length))
    (x, b), (y, c) = sides
    return b * c - x * y


def death_probability(cosine, scale_a=None, scale_z=None) -> Float[Array, "..."]:
    """The chance that a Gaussian neuron ends dead on two classes at an obtuse angle: 1/2 + (arcsin c - arctan x)/(2 pi).

    c = `cosine` of the angle, -1 < c <= 0, and x = scale_a / scale_z: the standard deviations of w, the same in every
    direction, and of z; give both, or neither for equal ones. Two parts die: 1/4 + arcsin(c)/(2 pi) are active on neither
    class at the start, and half of the share 1 - pi_L of (4.2) that leaves its class never joins the other one (4.4). At
    c = 0 and x = 1 they are 1/4 and 1/8. Antipodal classes, c = -1, are an exception: no neuron dies (4.3). With a bias:
    `death_probability(biased_cosine(...))` (23.1).

    Exact in the limit of small steps for losses whose residual never stops (cross-entropy, exponential), at any frequencies
    and norms. Arguments broadcast. `ValueError` for a cosine outside of [-1, 0] by more than rounding, for scales
    not > 0 and for one alone.

    >>> float(death_probability(0.0)), float(death_probability(-1.0))
    (0.375, 0.0)
    """
    learns = learning_probability(scale_a, scale_z)
    (cosine,) = real_arrays(cosine=cosine)
    if is_concrete(cosine):
        known, slack = np.asarray(cosine), 8 * float(jnp.finfo(cosine.dtype).eps)  # as `Dataset.separability` has it
        bad = ~((known >= -1 - slack) & (known <= slack))
        if bad.any():
            raise ValueError(f"cosine must be in [-1, 0], got {known[bad].flat[0]}: the classes are at an obtuse angle")
    check_together(cosine=cosine, scales=learns)
    apart = cosine > -1
    seen = jnp.arcsin(jnp.where(apart & (cosine <= 0), cosine, 0)) / (2 * jnp.pi)
    return jnp.where(apart, 0.25 + seen + (1 - learns) / 2, 0)


# Laws over seeds: the share of neurons whose sign is still wrong (5.4), the distributions of kappa and of the time to learn.
#
# Exclusive Gaussian neurons, a = |N(0, sigma_a^2)| along their class and z ~ N(0, sigma_z^2). In the plane of (a, z) the
# direction and the length are independent, and each law here is exact in one of them and averaged over the other:
#
# - a sign is right or wrong by the direction alone while the clock runs at g(0), at any scale if g is constant (5.4);
# - for equal scales a_j + z_j and a_j - z_j are independent, so that theta_0 has the density ~ sech^h, and kappa cosh
#   theta_0 = r sum (a^2 + z^2)/2 is r sigma^2 times a Gamma(h) variable that is independent of it, for any number of neurons
#   h;
# - a longer (a, z) of the same direction learns sooner, so the time to learn is known from one length per direction.


@deprecated("t", "frequency", "norm", "loss", "scale_a", "scale_z")
def wrong_sign_fraction(frequency, norm, loss: Loss | str = "cross-entropy", *, t, scale_a=1.0, scale_z=1.0) -> Array:
    """The share of the learners whose z, and so whose logit, still has the wrong sign at time t (5.4).

    One exclusive neuron (or one neuron on antipodal data), a and z Gaussian with deviations in the ratio x = scale_a /
    scale_z; learners are those with z > -a. With tau = p r g(0) t it is (arctan x - arctan(x tanh tau)) / (pi/2 + arctan x),
    for x = 1 (1/3)(1 - (4/pi) arctan tanh tau). Exact for hinge loss at any scale that keeps u < 1; for the others the
    limit of small scales. Arguments broadcast; t >= 0, the rest > 0. Relative error a few ulp at any t.

    >>> [round(float(wrong_sign_fraction(0.5, 1.0, t=t)), 4) for t in (0.0, 4.0)]
    [0.3333, 0.0571]
    """
    tau, ratio = _sign_clock(t, frequency, norm, loss, scale_a, scale_z)
    decay = jnp.exp(-2 * tau)
    # arctan x - arctan(x T) as one arctangent, with 1 - T formed without cancellation.
    left = ratio * (2 * decay / (1 + decay)) / (1 + ratio * ratio * jnp.tanh(tau))
    return jnp.arctan(left) / (jnp.pi / 2 + jnp.arctan(ratio))


@deprecated("fraction", "frequency", "norm", "loss", "scale_a", "scale_z")
def wrong_sign_time(frequency, norm, loss: Loss | str = "cross-entropy", *, fraction, scale_a=1.0, scale_z=1.0) -> Array:
    """The time at which `fraction` of the learners still have the wrong sign: the inverse of `wrong_sign_fraction` (5.4).

    0 < fraction < 1; the time is 0 if at most this fraction has it at the start. Other arguments as in that function.

    >>> round(float(wrong_sign_time(0.5, 1.0, fraction=0.05)), 4)
    4.2681
    """
    rate, ratio = _sign_clock(1.0, frequency, norm, loss, scale_a, scale_z)
    (fraction,) = real_arrays(fraction=fraction)
    _check_probability("fraction", fraction)
    edge = jnp.arctan(ratio)
    waits = fraction * (jnp.pi / 2 + edge) < edge
    left = jnp.where(waits, jnp.tan(jnp.where(waits, fraction * (jnp.pi / 2 + edge), 0)), ratio)
    # tanh tau = (x - left) / (x (1 + x left)), and artanh y = log((1 + y)/(1 - y))/2 with 1 - y formed exactly.
    above, below = ratio * (1 + ratio * left) + ratio - left, left * (1 + ratio * ratio)
    return jnp.where(waits, jnp.log(above / below), 0) / 2 / rate


def _sign_clock(t, frequency, norm, loss, scale_a, scale_z):
    """(p r g(0) t, sigma_a / sigma_z)."""
    frequency, norm, scale_a, scale_z = together(frequency=frequency, norm=norm, scale_a=scale_a, scale_z=scale_z)
    for name, value in (("frequency", frequency), ("norm", norm), ("scale_a", scale_a), ("scale_z", scale_z)):
        check_positive(name, value)
    if is_concrete(scale_a) and is_concrete(scale_z):
        limit = float(jnp.finfo(scale_a.dtype).max) ** 0.5
        with np.errstate(over="ignore"):
            ratio = np.asarray(scale_a) / np.asarray(scale_z)
        if not ((ratio < limit) & (ratio > 1 / limit)).all():
            raise ValueError(
                f"scale_a / scale_z must be between {1 / limit:.2g} and {limit:.2g}, got scale_a = {shown(scale_a)} and "
                f"scale_z = {shown(scale_z)}"
            )
    t = check_times(t, frequency.dtype)
    check_together(frequency=frequency, norm=norm, scale_a=scale_a, scale_z=scale_z, t=t)
    return frequency * norm * as_loss(loss).residual(jnp.zeros_like(frequency)) * t, scale_a / scale_z


class KappaDistribution(eqx.Module):
    """The law of kappa = r sqrt(M+ M-)/2 (3.3) over seeds: h exclusive neurons, a and z of one deviation sigma.

    For one neuron kappa = r |a^2 - z^2| / 2. `width` h >= 1; `norm` r and `scale` sigma > 0, numbers or arrays of one shape
    [*batch]. w = kappa / (r sigma^2) has the density w^(h-1) K_0(w) / (2^(h-2) Gamma(h/2)^2). Relative error of `cdf` and
    `survival` below 1e-11 in float64, 1e-5 in float32, in both tails. Neurons that will leave are counted too, as at t = 0.

    >>> law = KappaDistribution(width=1, norm=1.0, scale=1.0)
    >>> [round(float(v), 4) for v in (law.mean, law.cdf(0.5852), law.quantile(0.5))]
    [0.6366, 0.6368, 0.3652]
    """

    __repr__ = short_repr

    width: int = eqx.field(static=True)
    norm: Float[Array, "*batch"]
    scale: Float[Array, "*batch"]

    def __init__(self, width, norm, scale) -> None:
        self.width = positive_int("width", width)
        norm, scale = together(norm=norm, scale=scale)
        check_positive("norm", norm)
        check_positive("scale", scale)
        self.norm, self.scale = jnp.broadcast_arrays(norm, scale)

    @property
    def unit(self) -> Float[Array, "*batch"]:
        """r sigma^2, the unit of kappa."""
        return self.norm * self.scale**2

    @property
    def mean(self) -> Float[Array, "*batch"]:
        """E kappa = 2 r sigma^2 (Gamma((h+1)/2) / Gamma(h/2))^2, close to r sigma^2 h for wide networks."""
        half = jnp.asarray(self.width / 2, self.unit.dtype)
        return 2 * self.unit * jnp.exp(2 * (jax.lax.lgamma(half + 0.5) - jax.lax.lgamma(half)))

    def cdf(self, kappa) -> Float[Array, "..."]:
        """P(kappa <= `kappa`), broadcast against the batch; `kappa` >= 0."""
        return _kappa_law(_nodes(self.width), self.width, self._measured(kappa), "lower")

    def survival(self, kappa) -> Float[Array, "..."]:
        """P(kappa > `kappa`), also accurate where the cdf is close to 1."""
        return _kappa_law(_nodes(self.width), self.width, self._measured(kappa), "upper")

    def density(self, kappa) -> Float[Array, "..."]:
        """The probability density at `kappa` > 0."""
        w = self._measured(kappa)
        return _kappa_law(_nodes(self.width), self.width, w, "density") / (w * self.unit)

    def quantile(self, probability) -> Float[Array, "..."]:
        """The kappa whose cdf is `probability`, 0 < `probability` < 1, broadcast against the batch. Differentiable."""
        (probability,) = real_arrays(probability=probability)
        _check_probability("probability", probability)
        probability = probability.astype(self.unit.dtype)
        check_together(law=self.unit, probability=probability)
        return self.unit * _kappa_quantile(_nodes(self.width), self.width, probability)

    def _measured(self, kappa):
        kappa = as_goal("kappa", kappa, self.unit.dtype)
        if is_concrete(kappa) and not bool((kappa >= 0).all()):
            raise ValueError(f"kappa must be >= 0, got {np.asarray(kappa).min()}")
        check_together(law=self.unit, kappa=kappa)
        return kappa / self.unit


_TERMS = 12  # of the series below w = 1, whose terms fall like (1/4)^k / (k!)^2


def _nodes(width: int) -> int:
    """The number of directions theta_0 to average over: one of a few numbers, because each needs a compilation."""
    return 2 ** max(8, int(np.ceil(np.log2(4 * (np.log(2 * width) + 45 / width + 1) * np.sqrt(width)))))


@quick_jit(few=0, static_argnums=(0, 3))
def _kappa_law(count: int, width, w: Float[Array, "*shape"], part: str) -> Float[Array, "*shape"]:
    """P(kappa <= w r sigma^2), "upper": >, or "density": the derivative in log w."""
    width = jnp.asarray(width, w.dtype)
    # From w = 1 on: kappa cosh theta_0 ~ Gamma(h), averaged over theta_0 ~ sech^h. The trapezoid rule converges
    # exponentially, at a step well below the width of sech^h, out to where the incomplete gamma function is 1.
    cosh = jnp.cosh(jnp.linspace(0, jnp.log(2 * width) + 45 / width + 1, count))
    weight = (cosh**-width).at[0].multiply(0.5)
    far = w >= 1
    angles = jnp.where(far, w, 1)[..., None] * cosh
    if part == "density":
        averaged = jnp.exp(width * jnp.log(angles) - angles - jax.lax.lgamma(width))
    else:
        averaged = (jax.lax.igammac if part == "upper" else jax.lax.igamma)(width, angles)
    averaged = averaged @ (weight / weight.sum())
    # Below: K_0 = -(log(w/2) + gamma) I_0 + sum H_k (w/2)^2k / (k!)^2 against w^(h-1), term by term.
    near = jnp.where(far | (w <= 0), 0.5, w)
    total, harmonic, power = jnp.zeros_like(w), 0.0, jnp.ones_like(w)
    for k in range(_TERMS):
        order = width + 2 * k
        bessel = harmonic - np.euler_gamma - jnp.log(near / 2)
        total = total + power * (bessel if part == "density" else (bessel + 1 / order) / order)
        harmonic, power = harmonic + 1 / (k + 1), power * (near / 2 / (k + 1)) ** 2
    small = jnp.exp(width * jnp.log(near) - (width - 2) * np.log(2.0) - 2 * jax.lax.lgamma(width / 2)) * total
    small = jnp.where(w <= 0, 0, small)
    return jnp.where(far, averaged, 1 - small if part == "upper" else small)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
@quick_jit(few=0, static_argnums=0)
def _kappa_quantile(count: int, width, probability: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The w whose cdf is `probability`: by bisection in log w, then Newton steps."""
    low = jnp.full_like(probability, np.log(float(jnp.finfo(probability.dtype).tiny)))
    high = jnp.full_like(probability, 1.0) * jnp.log(2.0 * width + 80)

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        above = _kappa_law(count, width, jnp.exp(middle), "lower") > probability
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    low, high = jax.lax.fori_loop(0, 40, halve, (low, high))

    def newton(_, y):
        w = jnp.exp(y)
        return y + (probability - _kappa_law(count, width, w, "lower")) / _kappa_law(count, width, w, "density")

    return jnp.exp(jax.lax.fori_loop(0, 3, newton, (low + high) / 2))


@_kappa_quantile.defjvp
def _kappa_quantile_jvp(count, width, primals, tangents):
    w = _kappa_quantile(count, width, *primals)
    return w, w * tangents[0] / _kappa_law(count, width, w, "density")


class LearningTime(eqx.Module):
    """The law over seeds of the time at which one exclusive neuron that learns brings its class to a logit u > 0.

    a and z are Gaussian with deviations `scale_a`, `scale_z` (neurons with z > -a learn, with the probability (4.2));
    `frequency` p, `norm` r, the `loss`, and `logit` u, below 1 for squared loss and at most 1 for hinge. All numbers.
    Absolute error of the cdf below 1e-10 in float64 and 1e-5 in float32. Both methods are differentiable, in t and in
    every number of the law, except where neurons have learnt at the start.

    >>> law = LearningTime(frequency=0.5, norm=1.0, scale_a=0.1, scale_z=0.1, loss="hinge", logit=1.0)
    >>> [round(float(v), 3) for v in (law.cdf(6.0), law.quantile(0.5))]
    [0.565, 5.724]
    """

    __repr__ = short_repr

    rate: Float[Array, ""]
    norm: Float[Array, ""]
    scale_a: Float[Array, ""]
    scale_z: Float[Array, ""]
    clock: Clock = eqx.field(static=True)
    logit: Float[Array, ""]

    def __init__(self, frequency, norm, scale_a, scale_z, loss: Loss | str, logit) -> None:
        named = {"frequency": frequency, "norm": norm, "scale_a": scale_a, "scale_z": scale_z, "logit": logit}
        values = real_arrays(**named)
        for name, value in zip(named, values, strict=True):
            check_positive(name, value)
            if value.shape:
                raise ValueError(f"{name} must be one number, got shape {value.shape}; vmap over several")
        frequency, self.norm, self.scale_a, self.scale_z, self.logit = values
        loss = with_closed_form(loss)
        self.rate, self.clock = 2 * frequency * self.norm, clock_of(loss)
        # A loss that pulls back only tends to its rest.
        most = float(np.nextafter(loss.rest, 0, dtype=frequency.dtype)) if loss.pulls_back else float(loss.rest)
        if is_concrete(self.logit) and float(self.logit) > most:
            raise ValueError(f"logit must be at most {most:.6g} with {loss.name} loss, which stops there; got {self.logit}")

    def cdf(self, t) -> Float[Array, "..."]:
        """P(time <= t | the neuron learns), t >= 0 of any shape. At t = 0 it is the chance to start beyond `logit`."""
        t = check_times(t, self.rate.dtype)
        return _time_cdf(self, self.rate * t.reshape(-1)).reshape(t.shape)

    def quantile(self, probability) -> Float[Array, "..."]:
        """The time whose cdf is `probability`, 0 < `probability` < 1 of any shape; 0 up to the share learnt at the start."""
        (probability,) = real_arrays(probability=probability)
        _check_probability("probability", probability)
        flat = probability.astype(self.rate.dtype).reshape(-1)
        if flat.size == 0:
            return flat.reshape(probability.shape)
        return (_time_quantile(self, flat) / self.rate).reshape(probability.shape)

    def halves(self, length, offset) -> tuple[Array, Array]:
        """(rise, fall) of the neuron of squared half length E = (a^2/sigma_a^2 + z^2/sigma_z^2)/2 and direction `offset`.

        The direction is counted from the stable manifold z = -a, where rise is 0.
        """
        edge = jnp.arctan2(self.scale_a, self.scale_z)
        size = self.norm * (self.scale_a**2 + self.scale_z**2) / 2 * length
        return size * jnp.sin(offset) ** 2, size * jnp.sin(2 * edge - offset) ** 2


# Directions of the learners: the tanh-sinh rule, dense next to the stable manifold, where neurons take longest.
_STEPS = np.linspace(-4, 4, 193)
_PLACES = 1 / (1 + np.exp(-np.pi * np.sinh(_STEPS)))
_SHARES = np.pi * np.cosh(_STEPS) * _PLACES * (1 / (1 + np.exp(np.pi * np.sinh(_STEPS))))
_SHARES = _SHARES / _SHARES.sum()
# Of E ~ Exp(1), what lies outside of these decides nothing.
_SHORTEST, _LONGEST = 1e-18, 60.0


def _tau(law: LearningTime, length, offset):
    """2 p r times the time to the logit."""
    rise, fall = law.halves(length, offset)
    waits = law.logit > rise - fall
    angle = expint.angle_at(rise, fall, jnp.where(waits, law.logit, rise - fall))
    return jnp.where(waits, law.clock.time_of(rise, fall, jnp.where(waits, angle, 0)), 0)


def _offsets(law: LearningTime, shape) -> Array:
    """The directions of the rule, [*shape, directions]."""
    offset = (jnp.pi / 2 + jnp.arctan2(law.scale_a, law.scale_z)) * jnp.asarray(_PLACES, law.rate.dtype)
    return jnp.broadcast_to(offset, (*shape, offset.size))


@jax.custom_jvp
@quick_jit(eqx.filter_jit, few=0)
def _log_lengths(law: LearningTime, tau: Float[Array, " times"]) -> Float[Array, "times directions"]:
    """For every time and direction: log of the E that needs exactly tau, by halving; inf where none is that long."""
    offset = _offsets(law, tau.shape)
    low, high = (jnp.full_like(offset, np.log(end)) for end in (_SHORTEST, _LONGEST))

    def halve(_, ends):
        low, high = ends
        middle = (low + high) / 2
        soon = _tau(law, jnp.exp(middle), offset) <= tau[:, None]
        return jnp.where(soon, low, middle), jnp.where(soon, middle, high)

    low, high = jax.lax.fori_loop(0, 50, halve, (low, high))
    found = (low + high) / 2
    return jnp.where(found > np.log(0.999 * _LONGEST), jnp.inf, found)


@_log_lengths.defjvp
def _log_lengths_jvp(primals, tangents):
    """From tau(law, E) = tau: dlog E = (dtau - the change of tau(law, E) at fixed E) / (its derivative in log E)."""
    (law, tau), (dlaw, dtau) = primals, tangents
    found = _log_lengths(law, tau)
    inside = jnp.isfinite(found) & (found > np.log(2 * _SHORTEST))
    log_length = jnp.where(inside, found, 0)

    def needs(law, log_length):
        return _tau(law, jnp.exp(log_length), _offsets(law, tau.shape))

    ones, zeros = jnp.ones_like(log_length), jnp.zeros_like(log_length)
    _, slope = jax.jvp(lambda y: needs(law, y), (log_length,), (ones,))
    _, change = jax.jvp(needs, (law, log_length), (dlaw, zeros))
    inside &= slope < 0
    return found, jnp.where(inside, (dtau[:, None] - change) / jnp.where(inside, slope, 1), 0)


def _time_cdf(law: LearningTime, tau: Float[Array, " times"]) -> Float[Array, " times"]:
    """The average over directions of P(E > the length that needs exactly tau)."""
    found = _log_lengths(law, tau)
    there = jnp.isfinite(found)
    longer = jnp.where(there, jnp.exp(-jnp.exp(jnp.where(there, found, 0))), 0)
    return longer @ jnp.asarray(_SHARES, tau.dtype)


@jax.custom_jvp
@quick_jit(eqx.filter_jit, few=0)
def _time_quantile(law: LearningTime, probability: Float[Array, " count"]) -> Float[Array, " count"]:
    """tau, by false position in log tau (Illinois): the cdf costs too much to halve."""
    dtype = probability.dtype
    slowest = _tau(law, jnp.asarray(_SHORTEST, dtype), jnp.asarray(1e-9, dtype))
    low = jnp.full_like(probability, -30.0)
    high = jnp.full_like(probability, 1.0) * jnp.minimum(jnp.log(slowest), 600.0 if dtype == jnp.float64 else 80.0)

    def cond(carry):
        low, high, _, _, count = carry
        return jnp.any(high - low > 4 * jnp.finfo(dtype).eps * 30) & (count < 80)

    def body(carry):
        low, high, at_low, at_high, count = carry
        middle = (low * at_high - high * at_low) / (at_high - at_low)
        middle = jnp.where((count % 3 == 2) | ~((middle > low) & (middle < high)), (low + high) / 2, middle)
        value = _time_cdf(law, jnp.exp(middle)) - probability
        below = value < 0
        return (
            jnp.where(below, middle, low),
            jnp.where(below, high, middle),
            jnp.where(below, value, at_low / 2),
            jnp.where(below, at_high / 2, value),
            count + 1,
        )

    at_low, at_high = (_time_cdf(law, jnp.exp(end)) - probability for end in (low, high))
    low, high, *_ = jax.lax.while_loop(cond, body, (low, high, at_low, at_high, 0))
    return jnp.where(at_low >= 0, 0, jnp.exp((low + high) / 2))


@_time_quantile.defjvp
def _time_quantile_jvp(primals, tangents):
    (law, probability), (dlaw, dprobability) = primals, tangents
    tau = _time_quantile(law, probability)
    _, density = jax.jvp(lambda tau: _time_cdf(law, tau), (tau,), (jnp.ones_like(tau),))
    _, change = jax.jvp(lambda law: _time_cdf(law, tau), (law,), (dlaw,))
    moves = (tau > 0) & (density > 0)
    return tau, jnp.where(moves, (dprobability - change) / jnp.where(moves, density, 1), 0)


def _check_probability(name: str, value: Array) -> None:
    if is_concrete(value) and not bool(((value > 0) & (value < 1)).all()):
        raise ValueError(f"{name} must be in (0, 1), got {shown(value)}")
