"""The hyperbolic clock: a logit u = rise e^s - fall e^-s whose angle s obeys ds/dtau = g(u), solved both ways.

This is the whole mathematics of one mode (THEORY (3.1)-(3.8)) with the network taken out. `rise`, `fall` >= 0 are the
two halves of the logit, u(0) = rise - fall, kappa = 2 sqrt(rise fall), and tau = 2 p r t is the time of the mode. In these
coordinates kappa = 0 (fall = 0 or rise = 0) is no special case, and a large kappa causes no cancellation.

    tau = integral_0^s ds' / g(u(s')) = integral_{u(0)}^{u} dv / (g(v) sqrt(kappa^2 + v^2))                     (3.5)

Each residual g with a closed form has a class of clocks, and `CLOCKS` holds the clocks of the four losses by name. The clock
of any other residual is a quadrature (`_clock_residual`) with the same methods.

The clocks of g = 1 and g = 1 - u are elementary. The others need E(s) = integral_0^s e^u ds' (`_expint`), cut at u = -1 and
u = 1, and inverted by a bracketed Newton iteration in the variable in which tau is nearly linear: s itself where 1/g is of
order one, and e^u where e^u dominates 1/g.

Derivatives come from the implicit function theorem: with F(s; rise, fall) = tau,

    ds = g(u) [dtau - F_rise drise - F_fall dfall],   F_rise = integral h'(u) e^s ds',  h = 1/g.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from gradstarve.ground import as_number, check_least, check_normal, did_you_mean, is_concrete, shown, together
from gradstarve.special import _clock_slopes as clock_slopes
from gradstarve.special import _clock_table as clock_table
from gradstarve.special import _expint as expint
from gradstarve.special._expint import angle_at, bounded_exp, logit_at, steepness

Real = Float[Array, "*shape"]
State = tuple[Array, Array]
Pieces = Float[Array, "*batch pieces"]
Piece = Int[Array, "*batch times"]
Times = Float[Array, "*batch times"]
MANY = 8  # number of times of one clock from which on a table is faster
_by_clock = partial(jax.jit, static_argnums=0)


class Clock:
    """The clock of one residual g; its methods take arrays of one shape, and lack the checks of `clock_state`.

    `rest`: the logit at which the clock stops, inf if it never does; `pulls_back`: whether logits above the rest fall, and
    all logits only tend to it; `rounds`: whether late float32 logits lose so many digits that `error_at` is more accurate
    than sigmoid(-u).

    >>> round(float(ConstantClock().state_at(*jnp.array([0.1, 0.0, 1.0]))[1]), 4)
    0.2718
    """

    rest: ClassVar[float] = math.inf
    pulls_back: ClassVar[bool] = False
    rounds: ClassVar[bool] = False

    def time_of(self, rise: Real, fall: Real, angle: Real) -> Real:
        """tau at the angle s, as `clock_time`."""
        raise NotImplementedError

    def state_at(self, rise: Real, fall: Real, time: Real) -> State:
        """(angle, logit) at `time`, as `clock_state`."""
        raise NotImplementedError

    @_by_clock
    def arrival_of(self, rise: Real, fall: Real, u: Real) -> Real:
        """The tau at which the logit is first at least `u`: 0 if it starts there, inf if never."""
        there = rise - fall >= u
        # Elements without an answer get harmless arguments, so that they put no NaN into the derivatives of the others.
        below = (u < self.rest) if self.pulls_back else (u <= self.rest)
        reached = ~there & ((rise > 0) | (u < 0)) & jnp.isfinite(u) & below
        rise, fall, u = jnp.where(reached, rise, 0.5), jnp.where(reached, fall, 0), jnp.where(reached, u, 0.75)
        return jnp.where(reached, self._climb(rise, fall, u), jnp.where(there, 0, jnp.inf))

    def _climb(self, rise: Real, fall: Real, u: Real) -> Real:
        """The tau at which the logit reaches `u` > u(0); the clock must reach `u`."""
        return self.time_of(rise, fall, jnp.maximum(angle_at(rise, fall, u), 0))

    def states_at(self, rise: Pieces, fall: Pieces, piece: Piece, time: Times, want_angle: bool = True) -> State:
        """`state_at` for many times of each clock: (angle, logit), each [*batch, times].

        `rise`, `fall`: [*batch, pieces]; `piece`, `time`: [*batch, times], the piece of each time, and the time since its
        start. Without `want_angle` the angle may be a lone 0.
        """
        rise, fall = (jnp.take_along_axis(v, piece, axis=-1) for v in (rise, fall))
        return self.state_at(rise, fall, time)

    def end_of(self, rise: Real, fall: Real) -> Real:
        """The tau at which the logit or g overflows; inf if neither ever does, as in every closed form."""
        return jnp.full_like(rise, jnp.inf)

    def error_at(self, rise: Real, fall: Real, time: Real, u: Real, shift: float = 0.0) -> Real:
        """sigmoid(shift - u) at the logit `u` that the clock has at `time`."""
        return jax.nn.sigmoid(shift - u)


# --- public functions ------------------------------------------------------------------------------------------------


def clock_time(kind: str | Clock, rise, fall, angle) -> Float[Array, "..."]:
    """tau at which the clock reaches `angle` s, starting from s = 0: F(s) = integral_0^s ds' / g(u(s')).

    `rise`, `fall` >= 0, `angle`: broadcast together, float32 or float64. `angle` >= 0, except for "squared" with u(0) > 1,
    which runs backwards. inf where the clock never reaches the angle (hinge past u = 1, squared past u = 1) or where tau
    overflows. The error of tau times g(u), which is the resulting error in the angle, is below 1e-12. `ValueError` for
    negative and subnormal halves and angles out of range; traced values are not checked.

    >>> float(clock_time("hinge", 0.1, 0.0, 1.0))
    1.0
    """
    rise, fall, angle = _halves(rise, fall, angle=angle)
    clock = as_clock(kind)
    if is_concrete(angle) and is_concrete(rise) and is_concrete(fall):
        back = np.asarray((angle < 0) & ~((rise - fall > clock.rest) & clock.pulls_back))
        if back.any():
            found = np.asarray(angle)[back].flat[0]
            raise ValueError(f"angle must be >= 0 (below only for the squared loss from a logit above 1), got {found}")
    return clock.time_of(rise, fall, angle)


def clock_state(kind: str | Clock, rise, fall, time) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """(angle s, logit u) of the clock at `time` tau >= 0: the inverse of `clock_time`.

    Arguments broadcast together, float32 or float64. Error in s, which is |du| / sqrt(kappa^2 + u^2), below 1e-12
    (1 + s) in float64 and 1e-6 (1 + s) in float32 for every tau of the dtype, rise and fall from the smallest normal
    number to 1e6. Differentiable in rise, fall and time, to every order and at rise = 0 and fall = 0 too; late derivatives
    have full relative accuracy. `ValueError` for negative numbers and subnormal halves; traced values are not checked.

    >>> angle, logit = clock_state("hinge", 0.1, 0.0, 1.0)
    >>> float(angle), round(float(logit), 4)
    (1.0, 0.2718)
    """
    rise, fall, time = _halves(rise, fall, time=time)
    check_least("time", time, 0.0)
    return as_clock(kind).state_at(rise, fall, time)


def clock_integral(kind: str | Clock, u0, u, kappa) -> Float[Array, "..."]:
    """integral_{u0}^{u} dv / (g(v) sqrt(kappa^2 + v^2)), the tau it takes from logit u0 to u at given kappa (3.5).

    Arguments broadcast together; kappa >= 0; with kappa = 0, u0 and u must have the same sign. u >= u0, but u <= u0 for
    "squared" with u0 > 1. inf where u is never reached. `ValueError` for negative kappa and subnormal kappa or u0.

    >>> round(float(clock_integral("cross-entropy", 0.1, 1.0, 0.0)), 3)   # log 10 + Ei(1) - Ei(0.1)
    5.821
    """
    u0, u, kappa = jnp.broadcast_arrays(*together(u0=u0, u=u, kappa=kappa))
    check_least("kappa", kappa, 0.0)
    check_normal("kappa", kappa)
    check_normal("u0", u0)
    steep = jnp.hypot(kappa, u0)
    larger = (jnp.abs(u0) + steep) / 2
    smaller = jnp.where(larger > 0, (kappa / 2) * (kappa / 2 / jnp.where(larger > 0, larger, 1)), 0)
    rise, fall = jnp.where(u0 >= 0, larger, smaller), jnp.where(u0 >= 0, smaller, larger)
    clock = as_clock(kind)
    return clock.time_of(rise, fall, angle_at(rise, fall, u)) if clock.pulls_back else clock.arrival_of(rise, fall, u)


def _halves(rise, fall, **other) -> list[Array]:
    """`rise`, `fall` and one other number, broadcast together and checked."""
    arrays = together(rise=rise, fall=fall, **other)
    for name, half in zip(("rise", "fall"), arrays, strict=False):
        check_least(name, half, 0.0)
        check_normal(name, half)
    return list(jnp.broadcast_arrays(*arrays))  # a tuple in newer versions of JAX


# --- closed forms ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ConstantClock(Clock):
    """g = 1 below u = 1, where the clock stops: hinge loss.

    >>> float(clock_integral(ConstantClock(), 0.1, 5.0, 0.0))  # the clock stops at u = 1
    inf
    """

    rest = 1.0

    @_by_clock
    def time_of(self, rise: Real, fall: Real, angle: Real) -> Real:
        """tau = s up to u = 1."""
        stop = _stop(rise, fall)
        # Rounding may put an angle meant to be at the margin an ulp past it.
        slack = 8 * jnp.finfo(angle.dtype).eps * (1 + jnp.abs(stop))
        reached = (angle <= stop) | (jnp.isfinite(stop) & (angle <= stop + slack) & (stop > 0))
        return jnp.where(reached | (angle <= 0), jnp.maximum(angle, 0), jnp.inf)

    @_by_clock
    def state_at(self, rise: Real, fall: Real, time: Real) -> State:
        """s = tau up to u = 1."""
        stop = _stop(rise, fall)
        angle = jnp.minimum(time, stop)
        return angle, jnp.where((time >= stop) & (stop > 0), 1, logit_at(rise, fall, angle))

    def _climb(self, rise: Real, fall: Real, u: Real) -> Real:
        return jnp.maximum(angle_at(rise, fall, u), 0)


def _stop(rise: Real, fall: Real) -> Real:
    """The angle at which u = 1: 0 if u starts there or above, inf if rise = 0."""
    return jnp.where(rise - fall >= 1, 0, angle_at(rise, fall, jnp.ones_like(rise)))


@dataclass(frozen=True)
class LinearClock(Clock):
    """g = 1 - u, which pulls logits above 1 back: squared loss.

    >>> round(float(clock_state(LinearClock(), 3.0, 0.0, 2.0)[1]), 4)  # from u = 3 down
    1.0992
    """

    rest, pulls_back = 1.0, True

    @_by_clock
    def time_of(self, rise: Real, fall: Real, angle: Real) -> Real:
        """The tau of an angle: e^s = N/D, solved for E = e^(-w tau) (see `_linear_parts`)."""
        w, n, d = _linear_parts(rise, fall)
        excess = 4 * rise * fall / (w + 1) + 2 * rise

        def fractions(angle):
            """1 - e^(-w tau), and e^(-w tau) itself for where little of it is left."""
            x1 = jnp.expm1(angle)
            below = (x1 + 1) * d + n
            return 2 * w * x1 / below, (2 * w + n - (x1 + 1) * excess) / below

        past, decay = fractions(lax.stop_gradient(angle))
        ahead = (past > 0) & (decay > 0)
        # Angles that are never reached must not enter the derivatives: their fractions may be infinite.
        past, decay = fractions(jnp.where(ahead, angle, 0))
        early = past < 0.5
        tau = jnp.where(early, -jnp.log1p(-jnp.where(early, past, 0)), -jnp.log(jnp.where(early, 1, decay))) / w
        # Without rise the angle may grow past the floats' logarithm: tau = log((e^s + fall)/(1 + fall)).
        far = (rise == 0) & (angle > 300)
        tau, ahead = jnp.where(far, angle - jnp.log1p(fall), tau), ahead | far
        return jnp.where(ahead, tau, jnp.where(angle == 0, 0, jnp.inf))

    @_by_clock
    def state_at(self, rise: Real, fall: Real, time: Real) -> State:
        """x = e^s = N/D solves a Riccati equation; N, D, E as in `_linear_parts`."""
        w, n, d = _linear_parts(rise, fall)
        decay = jnp.exp(-w * time)
        past = -jnp.expm1(-w * time)
        top = jnp.where(n >= 0, 2 * w + n * past, 2 * w + n + (-n) * decay)
        excess = 4 * rise * fall / (w + 1) + 2 * rise  # w - 1 + 2 rise = 2w - d
        bottom = jnp.where(d >= 0, excess + d * decay, 2 * w - d * past)
        # With little or no rise the bottom is nearly d decay alone, which may underflow while its logarithm is known.
        level = (d > 0) & (excess < d * decay) | (rise == 0)
        usual, ahead = jnp.where(level, d, 1), jnp.where(level, w * time, 0)
        flat = jnp.log(usual) - ahead + jnp.log1p(jnp.where(level, excess, 0) / usual * bounded_exp(ahead))
        bottom = jnp.where(level & (bottom <= 0), 1, bottom)
        # log1p where the two are close, so that short times keep their digits.
        near = jnp.abs((n + d) * past) < 0.5 * bottom
        shift = (n + d) * past / jnp.where(near, bottom, 1)
        far = jnp.log(top) - jnp.where(level, flat, jnp.log(bottom))
        angle = jnp.where(near, jnp.log1p(jnp.where(near, shift, 0)), far)
        left = _linear_left(rise, fall, time)
        # Late in training 1 - u is of order e^(-w tau): taken directly, neither it nor its derivatives cancel.
        late = jnp.abs(left) < 0.5
        return angle, jnp.where(late, 1 - left, logit_at(rise, fall, jnp.where(late, 0, angle)))


def _linear_parts(rise, fall):
    """w, n and d of N = 2w + n (1 - E), D = 2w - d (1 - E), E = e^(-w tau)."""
    w = jnp.sqrt(1 + 4 * rise * fall)
    gap = 1 - (rise - fall)
    n = 4 * fall * gap / (1 + 2 * fall + w)  # 1 + 2 fall - w
    # w + 1 - 2 rise, from its conjugate where the difference would cancel.
    big = 2 * rise > 1
    d = jnp.where(big, 4 * rise * gap / jnp.where(big, w + 2 * rise - 1, 1), w + 1 - 2 * rise)
    return w, n, d


def _linear_left(rise: Real, fall: Real, time: Real) -> Real:
    """1 - u = 2 w^2 (n + d) E / (N D) where it is below 0.9 in size; elsewhere the constant 1, for callers to discard."""
    w, n, d = _linear_parts(rise, fall)
    decay, past = jnp.exp(-w * time), -jnp.expm1(-w * time)
    top, bottom = 2 * w + n * past, 4 * rise * fall / (w + 1) + 2 * rise + d * decay
    left = 4 * w * w * (1 - (rise - fall)) * decay
    near = (jnp.abs(left) < 0.9 * jnp.abs(top) * bottom) & (bottom > 0)
    return jnp.where(near, left / jnp.where(near, top, 1) / jnp.where(near, bottom, 1), 1)


class _Exponential(Clock):
    """1/g = (`constant` + e^u) / `pace`: a clock of 1/g = constant + e^u in the time pace tau."""

    rounds = True
    constant: float
    pace: float = 1.0

    @_by_clock
    def time_of(self, rise: Real, fall: Real, angle: Real) -> Real:
        """(constant s + E(s)) / pace."""
        return _exp_time(self.constant, rise, fall, angle) / self.pace

    @_by_clock
    def state_at(self, rise: Real, fall: Real, time: Real) -> State:
        """By Newton steps for s or u."""
        return _exp_state(self.constant, rise, fall, self._passed(time))

    def states_at(self, rise: Pieces, fall: Pieces, piece: Piece, time: Times, want_angle: bool = True) -> State:
        """By a table of each piece (`_clock_table`) for `MANY` times or more and `constant` >= 1/2, otherwise one by one.

        The two agree to 1e-12 (1 + s), in float32 to 2e-6 (1 + s).
        """
        pieces, times = rise.shape[-1], time.shape[-1]
        if self.constant < 0.5 or times < max(MANY, pieces // 4):
            return super().states_at(rise, fall, piece, time)
        flat = [jnp.reshape(v, (-1, v.shape[-1])) for v in (rise, fall, piece, self._passed(time))]
        angle, u = _exp_states(self.constant, want_angle, *flat)
        return angle.reshape(time.shape) if want_angle else angle, u.reshape(time.shape)

    def error_at(self, rise: Real, fall: Real, time: Real, u: Real, shift: float = 0.0) -> Real:
        """sigmoid(shift - u), corrected by the time for the rounding of u, which changes e^-u by 1e-6 or more."""
        error, known = jax.nn.sigmoid(shift - u), lax.stop_gradient((rise, fall, self._passed(time), u))
        more = lax.stop_gradient(clock_slopes.rounding(self.constant, *known)) - 1
        return error * (1 + more) / (1 + error * more)

    def _climb(self, rise: Real, fall: Real, u: Real) -> Real:
        return _exp_arrival(self.constant, rise, fall, u) / self.pace

    def _passed(self, time: Real) -> Real:
        """pace tau."""
        return time


@dataclass(frozen=True)
class ExponentialClock(_Exponential):
    """1/g = `constant` + e^u with `constant` >= 0: 0 for exponential loss, 1 for cross-entropy.

    >>> round(float(clock_integral(ExponentialClock(1.0), 0.1, 1.0, 0.0)), 3)  # log 10 + Ei(1) - Ei(0.1)
    5.821
    """

    constant: float

    def __post_init__(self):
        as_number("constant", self.constant, 0)


@dataclass(frozen=True)
class Softmax(_Exponential):
    """1/g = 1 + e^u/others: g is the total probability of `others` = K - 1 > 0 equal outputs, u below the true one (11.2).

    >>> round(float(clock_integral(Softmax(9.0), 0.1, 1.0, 0.0)), 3)  # log 10 + (Ei(1) - Ei(0.1))/9
    2.693
    """

    others: float

    def __post_init__(self):
        as_number("others", self.others, 0, with_low=False)

    @property
    def constant(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """others."""
        return self.others

    pace = constant  # pyright: ignore[reportAssignmentType]

    def _passed(self, time: Real) -> Real:
        return jnp.minimum(time * self.others, jnp.finfo(time.dtype).max)


CLOCKS = {
    "cross-entropy": ExponentialClock(1.0),
    "hinge": ConstantClock(),
    "exponential": ExponentialClock(0.0),
    "squared": LinearClock(),
}


def as_clock(kind: str | Clock) -> Clock:
    """`kind` itself, or the clock of that name; `ValueError` lists the names for anything else."""
    if isinstance(kind, Clock):
        return kind
    if isinstance(kind, str) and kind in CLOCKS:
        return CLOCKS[kind]
    names = ", ".join(map(repr, CLOCKS))
    raise ValueError(f"unknown clock {shown(kind)}; use one of {names} or Softmax(others){did_you_mean(kind, CLOCKS)}")


# --- integrals of e^u and their inverse ----------------------------------------------------------------------------------


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _exp_time(constant: float, rise: Real, fall: Real, angle: Real) -> Real:
    """integral_0^s (constant + e^u) ds'."""
    plain, scale = expint.plain(rise, fall, angle)
    # Past u = 5000 the panels are shorter than the spacing of floats, and the time overflows anyway.
    grown = jnp.exp(scale / 2)  # e^scale may overflow where the time does not
    total = jnp.where(scale < 5000, plain * grown * grown, jnp.inf)
    return total + constant * angle if constant else total


@_exp_time.defjvp
def _exp_time_jvp(constant, primals, tangents):
    (rise, fall, angle), (drise, dfall, dangle) = primals, tangents
    tau = _exp_time(constant, rise, fall, angle)
    # A time that overflows has no derivative; 0 keeps NaN out of the other branch of a later `where`.
    there = jnp.isfinite(tau)
    angle = jnp.where(there, angle, 0)
    decay, _, grow = clock_slopes.moments(1, rise, fall, angle)
    slope = constant + jnp.exp(jnp.where(there, logit_at(rise, fall, angle), 0))
    return tau, jnp.where(there, slope * dangle + grow * drise - decay * dfall, 0)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _exp_arrival(constant: float, rise: Real, fall: Real, u: Real) -> Real:
    """integral (constant + e^u) ds up to the logit `u` >= u(0), which the clock must reach."""
    return _exp_time(constant, rise, fall, jnp.maximum(angle_at(rise, fall, u), 0))


@_exp_arrival.defjvp
def _exp_arrival_jvp(constant, primals, tangents):
    (rise, fall, u), (drise, dfall, du) = primals, tangents
    tau = _exp_arrival(constant, rise, fall, u)
    there = jnp.isfinite(tau)
    rise, fall, u = jnp.where(there, rise, 1), jnp.where(there, fall, 0), jnp.where(there, u, 1)
    angle = jnp.maximum(angle_at(rise, fall, u), 0)
    by_rise, by_fall, by_u, top = clock_slopes.arrival_slopes(constant, rise, fall, angle, u)
    grown = jnp.exp(top / 2)  # e^top may overflow where the derivative does not
    return tau, jnp.where(there, (by_rise * drise + by_fall * dfall + by_u * du) * grown * grown, 0)


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def _exp_states(
    constant: float, want_angle: bool, rise: Pieces, fall: Pieces, piece: Int[Array, "*batch times"], time: Times
):
    return clock_table.states(constant, want_angle)(rise, fall, piece, time)


@_exp_states.defjvp
def _exp_states_jvp(constant, want_angle, primals, tangents):
    (rise, fall, piece, time), (drise, dfall, _, dtime) = primals, tangents
    angle, u = _exp_states(constant, True, rise, fall, piece, time)
    rise, fall, drise, dfall = (jnp.take_along_axis(v, piece, axis=-1) for v in (rise, fall, drise, dfall))
    dangle, du = clock_slopes.moves(constant, rise, fall, time, angle, u, drise, dfall, dtime)
    if not want_angle:
        angle = dangle = jnp.zeros((), u.dtype)
    return (angle, u), (dangle, du)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _exp_state(constant: float, rise: Real, fall: Real, time: Real) -> State:
    """(s, u) with integral_0^s (constant + e^u) ds' = time.

    The stretch from u(0) upwards is cut at u = -1 and u = 1. The region that holds the answer is found from the times at
    the cuts, and inside it F(s) - time is driven to zero by Newton steps kept in a bracket:
    - below -1 for the plain exponential, and above 1 for both, F is nearly linear in e^u: u <- u + log1p(S ds);
    - elsewhere 1/g is between 1 and 4.7 times its smallest value in the region: s <- s + ds.
    """
    eps = jnp.finfo(time.dtype).eps
    start = rise - fall

    cut = jnp.full_like(start, -1)
    angle_low = jnp.where(start < -1, angle_at(rise, fall, cut), 0)
    below = expint.below(rise, fall, start, cut) * math.exp(-1) + constant * angle_low
    time_low = jnp.where(start < -1, below, 0)
    angle_high = jnp.where(start < 1, angle_at(rise, fall, jnp.ones_like(start)), 0)
    # In the middle 1/g >= 1/e, which bounds the angle by time alone; it keeps rise = 0 (u = 1 never reached) finite.
    bound = angle_low + jnp.e * time + 1
    reachable = angle_high <= bound
    angle_high = jnp.minimum(angle_high, bound)
    high_u = jnp.where(reachable, 1, logit_at(rise, fall, angle_high))
    middle_u = jnp.clip(start, -1, 1)
    middle = expint.middle(rise, fall, angle_low, middle_u, angle_high, high_u) * jnp.exp(high_u)
    time_high = time_low + jnp.where(start < 1, middle + constant * (angle_high - angle_low), 0)

    low = (start < -1) & (time < time_low)
    high = ~low & (time >= time_high) & reachable
    base_angle = jnp.where(low, 0, jnp.where(high, angle_high, angle_low))
    base_u = jnp.where(low, start, jnp.where(high, jnp.maximum(start, 1), middle_u))
    left = time - jnp.where(low, 0, jnp.where(high, time_high, time_low))
    by_exp = high | (low & (constant == 0))

    # First guesses. In the e^u regions E ~ e^u / S, so u ~ log(E) + log S(u).
    log_left = jnp.log(jnp.maximum(left, jnp.finfo(time.dtype).tiny))
    base_steep = steepness(rise, fall, base_u)
    total = jnp.logaddexp(log_left, base_u - jnp.log(base_steep))
    guess_u = total + jnp.log(steepness(rise, fall, total))
    end_u = jnp.where(low, -1, jnp.inf)
    guess_u = jnp.clip(guess_u, base_u, end_u)
    guess = base_angle + left / (constant + jnp.exp(jnp.minimum(base_u, 1)))
    guess = jnp.minimum(guess, jnp.where(low, angle_low, angle_high))
    angle = jnp.where(by_exp, angle_at(rise, fall, guess_u), guess)
    angle = jnp.where(by_exp, jnp.maximum(angle, base_angle), angle)
    u = jnp.where(by_exp, guess_u, logit_at(rise, fall, angle))
    lower = jnp.where(by_exp, base_u, base_angle)
    upper = jnp.where(by_exp, jnp.where(low, -1, total + 800), jnp.where(low, angle_low, angle_high))

    def residual(angle, u):
        """(time - F) / max(1, e^u) and the step ds of Newton's iteration."""
        scale = jnp.where(by_exp, u, 0)
        value = expint.piece(rise, fall, base_angle, base_u, angle, u)
        spent = left - constant * (angle - base_angle)
        # Where the scale is 0 the time is used directly: a round trip through its logarithm costs digits.
        due = jnp.where(by_exp, jnp.sign(spent) * jnp.exp(jnp.log(jnp.abs(spent)) - scale), spent)
        gap = due - value * jnp.exp(u - scale)
        return gap / (constant * jnp.exp(-scale) + jnp.exp(u - scale))

    def cond(carry):
        done, count = carry[-2], carry[-1]
        return ~jnp.all(done) & (count < 80)

    def body(carry):
        angle, u, lower, upper, done, count = carry
        step = residual(angle, u)
        here = jnp.where(by_exp, u, angle)
        lower = jnp.where(step >= 0, jnp.maximum(lower, here), lower)
        upper = jnp.where(step <= 0, jnp.minimum(upper, here), upper)
        steep = steepness(rise, fall, u)
        move = jnp.where(by_exp, jnp.log1p(jnp.maximum(steep * step, -0.95)), step)
        there = here + move
        outside = (there < lower) | (there > upper) | ~jnp.isfinite(there)
        there = jnp.where(outside, (lower + upper) / 2, there)
        small = jnp.abs(there - here) <= 4 * eps * (1 + jnp.abs(here))
        new_u = jnp.where(by_exp, there, logit_at(rise, fall, there))
        new_angle = jnp.where(by_exp, angle_at(rise, fall, there), there)
        angle, u = jnp.where(done, angle, new_angle), jnp.where(done, u, new_u)
        return angle, u, lower, upper, done | small, count + 1

    # No time is left, or so little that u moves by less than its rounding.
    done = (left <= 0) | (by_exp & (log_left < base_u - 60) & (base_u > 0))
    # The first-order term in the time left does not change the value, but it is the whole derivative.
    moved = left / (constant + jnp.exp(base_u))
    angle = jnp.where(done, base_angle + moved, angle)
    u = jnp.where(done, base_u + base_steep * moved, u)
    angle, u, *_ = lax.while_loop(cond, body, (angle, u, lower, upper, done, 0))
    return angle, u


@_exp_state.defjvp
def _exp_state_jvp(constant, primals, tangents):
    (rise, fall, time), (drise, dfall, dtime) = primals, tangents
    angle, u = _exp_state(constant, rise, fall, time)
    return (angle, u), clock_slopes.moves(constant, rise, fall, time, angle, u, drise, dfall, dtime)
