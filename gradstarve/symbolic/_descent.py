"""Gradient descent without a small-step limit: one step multiplies M plus and M minus by two numbers (8.1).

Continues `mode`, which derives the force on the weights and the sums M plus and M minus. A letter without argument is the
value before a step, and a letter with a dash the value after it.

The second half of the module derives descent with momentum (8.2).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, without_g
from gradstarve.symbolic._derivation import Derivation, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._opening import MOVED, continue_mode, force_on

NEURONS = n.NEURONS
STEP = "one step"
AFTER = dict(zip((*n.a, *n.z), (*n.a_next, *n.z_next), strict=True))
"""Letter before the step -> letter after it."""

COORDINATES = tuple((function, now, AFTER[now]) for function, now in MOVED.items())
"""(function of time, letter before the step, letter after it) of each coordinate that a step moves."""

SUMS = ((n.M_plus, n.M_plus_next, 1), (n.M_minus, n.M_minus_next, -1))
"""(sum before the step, sum after it, sign of z in it)."""


@derives(name="descent", equation="8.1", title="Gradient descent of one mode", dynamics=("descent",))
def descent(chain: Chain, loss: str) -> dict[str, Target]:
    """Gradient descent of the mode, exact at any step size (8.1), with weight decay (8.2)."""
    mode = continue_mode(chain, loss, force=True)
    _one_step(chain)
    _exact_step(chain)
    _neurons(chain)
    sums = (n.M_plus, n.M_minus, n.p, n.r, n.eta)
    targets = {
        "u'": Target("exact step", n.u_next, sums, "One step, any step size, while no neuron changes its activity."),
        "M_plus'": Target("exact step", n.M_plus_next, sums),
        "M_minus'": Target("exact step", n.M_minus_next, sums),
    }
    if loss == "hinge":
        targets |= _before_the_margin(chain)
    _weight_decay(chain)
    _small_steps(chain, mode, loss)
    return targets | {"M_plus' with decay": Target("weight decay", n.M_plus_next, (*sums, n.lam))}


def _one_step(chain: Chain) -> None:
    pushed = {n.g(n.u): n.c / (n.eta * n.p * n.r)}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, now, then in COORDINATES:
            claimed = own(then).subs(n.c, own(n.c))
            residuals.append(without_g(claimed - (now + n.eta * force_on(earlier, function)), earlier))
        return residuals

    chain.add(
        STEP,
        "A step of size eta along the force, written with the number c = eta p r g(u).",
        {
            n.c: n.eta * n.p * n.r * n.g(n.u),
            **{then: now + n.eta * force_on(chain.known, function).subs(pushed) for function, now, then in COORDINATES},
        },
        verify,
    )


def _summed(total: sp.Expr, known: Known) -> sp.Expr:
    """`total`, a sum over the neurons, after the step, written in the weights before the step."""
    return total.subs(AFTER, simultaneous=True).subs({then: known(then, STEP) for _, _, then in COORDINATES})


def _factor(moved: dict[sp.Symbol, sp.Expr], sign: int) -> sp.Expr:
    """The factor by which a step multiplies a + z, or a - z, of every neuron. Sums of their squares have its square."""
    return sp.cancel((moved[n.a_next[0]] + sign * moved[n.z_next[0]]) / (n.a[0] + sign * n.z[0]))


def _exact_step(chain: Chain) -> None:
    moved = {then: chain.known(then, STEP) for _, _, then in COORDINATES}
    logit = n.r * (n.M_plus - n.M_minus) / 4

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        sums = {n.M_plus: earlier(n.M_plus), n.M_minus: earlier(n.M_minus)}
        step = earlier(n.c, STEP)
        return [
            own(n.M_plus_next).subs(sums) - _summed(sums[n.M_plus], earlier),
            own(n.M_minus_next).subs(sums) - _summed(sums[n.M_minus], earlier),
            own(n.u).subs(sums) - earlier(n.u),
            own(n.u_next).subs({n.M_plus_next: own(n.M_plus_next), n.M_minus_next: own(n.M_minus_next)}).subs(sums)
            - _summed(earlier(n.u), earlier),
            without_g(own(n.c) - step, earlier),
        ]

    chain.add(
        "exact step",
        "Every a + z is multiplied by 1 + c and every a - z by 1 - c: two numbers move a mode of any width, without any "
        "small-step limit.",
        {
            n.u: logit,
            n.c: without_g(chain.known(n.c), chain.known),
            **{then: _factor(moved, sign) ** 2 * sums for sums, then, sign in SUMS},
            n.u_next: logit.subs({n.M_plus: n.M_plus_next, n.M_minus: n.M_minus_next}),
        },
        verify,
        reference="(8.1)",
    )


def _neurons(chain: Chain) -> None:
    first = {j: (n.a[j], n.z[j]) for j in NEURONS}
    grown = {j: n.F_plus * sum(first[j]) for j in NEURONS}
    decayed = {j: n.F_minus * (first[j][0] - first[j][1]) for j in NEURONS}
    factors = {n.F_plus: (1 + n.c) * n.F_plus, n.F_minus: (1 - n.c) * n.F_minus}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Induction: true at the start, where both products are 1, and kept by one more step.
        longer = {n.F_plus: own(n.F_plus_next), n.F_minus: own(n.F_minus_next)}
        place = {now: own(function(n.k)) for function, now, _ in COORDINATES}
        residuals = []
        for function, now, then in COORDINATES:
            value = own(function(n.k))
            stepped = earlier(then, STEP).subs(place, simultaneous=True)
            residuals += [value.subs({n.F_plus: 1, n.F_minus: 1}) - now, value.subs(longer, simultaneous=True) - stepped]
        return residuals

    chain.add(
        "neurons",
        "After k steps each neuron is known from the products of the two factors, which all neurons share; a and z are "
        "its initial values. So the step at which some a changes sign is known too.",
        {
            n.F_plus_next: factors[n.F_plus],
            n.F_minus_next: factors[n.F_minus],
            **{
                functions[j](n.k): (grown[j] + sign * decayed[j]) / 2
                for j in NEURONS
                for functions, sign in ((n.a_of, 1), (n.z_of, -1))
            },
        },
        verify,
        reference="(8.1)",
    )


POWERS = ((n.M_plus_of, n.M_plus, n.M_plus_next), (n.M_minus_of, n.M_minus, n.M_minus_next))


def _before_the_margin(chain: Chain) -> dict[str, Target]:
    push = while_learning(chain.known(n.c, "exact step"))
    moved = {then: chain.known(then, STEP).subs(n.c, push) for _, _, then in COORDINATES}
    powers = {sums: _factor(moved, sign) ** (2 * n.k) * sums for sums, _, sign in SUMS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, sums, then in POWERS:
            value = own(function(n.k))
            stepped = earlier(then).subs(n.c, while_learning(earlier(n.c, "exact step"))).subs(sums, value)
            residuals += [value.subs(n.k, n.k + 1) - stepped, value.subs(n.k, 0) - sums]
        sums = {sums: own(function(n.k)) for function, sums, _ in POWERS}
        residuals.append(own(n.u_of(n.k)) - earlier(n.u, "exact step").subs(sums, simultaneous=True))
        return residuals

    chain.add(
        "before the margin",
        "Before the margin is reached the residual of the hinge loss is 1, so every step has the same factors: powers.",
        {
            n.M_plus_of(n.k): powers[n.M_plus],
            n.M_minus_of(n.k): powers[n.M_minus],
            n.u_of(n.k): n.r * (powers[n.M_plus] - powers[n.M_minus]) / 4,
        },
        verify,
        domain={n.eta: (0, sp.Rational(1, 4))},
        reference="(8.1)",
    )
    note = "Valid up to the first step whose logit is 1 or more, for eta p r < 1."
    return {"u(k)": Target("before the margin", n.u_of(n.k), (n.k, n.M_plus, n.M_minus, n.p, n.r, n.eta), note)}


def _weight_decay(chain: Chain) -> None:
    def decayed(known: Known) -> dict[sp.Symbol, sp.Expr]:
        # Decay adds lambda/2 times the sum of all squared weights to the loss.
        penalty = n.lam * sum((x**2 for x in (*n.a, *n.z)), sp.S.Zero) / 2
        return {
            then: now + n.eta * (force_on(known, function) - sp.diff(penalty, now)) for function, now, then in COORDINATES
        }

    pushed = {then: value.subs(n.g(n.u), n.c / (n.eta * n.p * n.r)) for then, value in decayed(chain.known).items()}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        moved = decayed(earlier)
        return [
            without_g(
                own(then).subs(n.c, earlier(n.c, STEP)).subs(sums, earlier(sums, "sums and differences"))
                - earlier(sums, "sums and differences").subs(AFTER, simultaneous=True).subs(moved),
                earlier,
            )
            for sums, then, _ in SUMS
        ]

    chain.add(
        "weight decay",
        "Weight decay lambda on w and z subtracts eta lambda from both factors.",
        {then: _factor(pushed, sign) ** 2 * sums for sums, then, sign in SUMS},
        verify,
        reference="(8.2)",
    )


def _small_steps(chain: Chain, mode: Derivation, loss: str) -> None:
    rate = mode.result["du/dt"].rhs

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # u' as a function of eta, at the sums that belong to this u and kappa: M+- = 2 (sqrt(kappa^2 + u^2) +- u)/r.
        moved = earlier(n.u_next).subs({then: earlier(then, "exact step") for _, then, _ in SUMS})
        moved = moved.subs(n.c, earlier(n.c, "exact step"))
        sums = {
            n.M_plus: 2 * (sp.sqrt(n.kappa**2 + n.u**2) + n.u) / n.r,
            n.M_minus: 2 * (sp.sqrt(n.kappa**2 + n.u**2) - n.u) / n.r,
        }
        speed = sp.diff(moved, n.eta).subs(n.eta, 0).subs(sums)
        links = [
            earlier(n.kappa, "sums and differences").subs(sums) ** 2 - n.kappa**2,
            earlier(n.u, "exact step").subs(sums) - n.u,
        ]
        return [own(n.du_dt) - rate, own(n.du_dt) - speed, *links]

    chain.add(
        "small steps",
        "For small eta the change of the logit per eta is the mode equation of the flow.",
        {n.du_dt: rate},
        verify,
        domain=n.LOGIT_RANGE[loss],
        reference="(3.4)",
    )


# Gradient descent with momentum: two scalars, shared by all neurons of a mode, obey the momentum recurrence (8.2).
#
# The update rule is that of `GradientDescent`: with the gradient G of the loss and of its weight decay, the velocity goes
# to mu v + G, and the weights move by -eta times it (heavy ball) or by -eta (G + mu times it) (Nesterov).

WEIGHTS = tuple(zip((*n.a_of, *n.z_of), (*n.a, *n.z), (*n.a_next, *n.z_next), strict=True))
"""(function of the step number, letter before the step, letter after it) of each trained weight."""

SPEEDS = tuple(zip(n.velocity_of, n.velocity, n.velocity_next, strict=True))
"""The same for the velocities, in the same order."""

SCALARS = ((n.F_plus, n.V_plus, n.F_plus_next, n.V_plus_next, 1), (n.F_minus, n.V_minus, n.F_minus_next, n.V_minus_next, -1))


@derives(name="momentum", equation="8.2", title="Momentum on one mode", dynamics=("descent",))
def momentum(chain: Chain, loss: str) -> dict[str, Target]:
    """Gradient descent of the mode with heavy-ball and Nesterov momentum (8.2)."""
    continue_mode(chain, loss, force=True)
    _velocities(chain)
    _neurons_with_momentum(chain)
    _logit(chain)
    plain = derive("descent", loss)
    _step(chain, "heavy ball", nesterov=False, descent=plain)
    _two_steps(chain)
    _step(chain, "Nesterov", nesterov=True, descent=plain)
    state = (n.F_plus, n.F_minus, n.V_plus, n.V_minus, n.M_plus, n.M_minus, n.p, n.r, n.eta, n.mu, n.lam)
    first = (n.F_plus, n.F_minus, n.M_plus, n.M_minus, n.r)
    targets = {"u": Target("logit", n.u, first, "M_plus, M_minus: the initial values.")}
    for step, suffix in (("heavy ball", ""), ("Nesterov", " Nesterov")):
        targets |= {f"{then}'{suffix}": Target(step, label, state) for then, label in NAMED}
    return targets


NAMED = (("F_plus", n.F_plus_next), ("F_minus", n.F_minus_next), ("V_plus", n.V_plus_next), ("V_minus", n.V_minus_next))


def _gradient(known: Known, function: type, now: sp.Symbol) -> sp.Expr:
    """The derivative of the loss with weight decay in one coordinate, with g(u) as a letter."""
    return n.lam * now - force_on(known, function)


def _moved(known: Known, nesterov: bool) -> dict[sp.Symbol, sp.Expr]:
    """Weights and velocities after the step -> their values in terms of those before the step."""
    after = {}
    for (function, now, then), (_, _, speed_then) in zip(WEIGHTS, SPEEDS, strict=True):
        after[speed_then] = known(speed_then)
        push = _gradient(known, function, now) + n.mu * after[speed_then] if nesterov else after[speed_then]
        after[then] = now - n.eta * push
    return after


def _velocities(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for (function, now, _), (_, speed, speed_then) in zip(WEIGHTS, SPEEDS, strict=True):
            fresh = own(speed_then) - n.mu * speed  # the gain of the velocity, which must be the gradient
            residuals.append(without_g(fresh - _gradient(earlier, function, now), earlier))
        return residuals

    chain.add(
        "velocities",
        "Every weight has a velocity, which keeps its part mu and gains the gradient, of the loss and of weight decay.",
        {
            speed_then: n.mu * speed + _gradient(chain.known, function, now)
            for (function, now, _), (_, speed, speed_then) in zip(WEIGHTS, SPEEDS, strict=True)
        },
        verify,
    )


def _neurons_with_momentum(chain: Chain) -> None:
    def shared(first: sp.Expr, second: sp.Expr) -> list[sp.Expr]:
        return [
            ((n.a[j] + n.z[j]) * first + sign * (n.a[j] - n.z[j]) * second) / 2 for sign in (1, -1) for j in range(len(n.a))
        ]

    positions, speeds = shared(n.F_plus, n.F_minus), shared(n.V_plus, n.V_minus)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # True at the start, with factors 1 and velocities 0, for every value of the weights; the steps below keep it.
        start = {n.F_plus: 1, n.F_minus: 1, n.V_plus: 0, n.V_minus: 0}
        residuals = [own(function(n.k)).subs(start) - now for function, now, _ in WEIGHTS]
        residuals += [own(function(n.k)).subs(start) for function, _, _ in SPEEDS]
        # Velocities are shared in the same way as positions.
        turned = {n.F_plus: n.V_plus, n.F_minus: n.V_minus}
        pairs = zip(WEIGHTS, SPEEDS, strict=True)
        return residuals + [own(fast(n.k)) - own(slow(n.k)).subs(turned) for (slow, _, _), (fast, _, _) in pairs]

    chain.add(
        "neurons",
        "Suppose that after k steps the initial values a, z of all neurons have been multiplied by the same two scalars, "
        "a + z by F plus and a - z by F minus, with velocities V plus and V minus. This holds at the start.",
        {
            **{function(n.k): value for (function, _, _), value in zip(WEIGHTS, positions, strict=True)},
            **{function(n.k): value for (function, _, _), value in zip(SPEEDS, speeds, strict=True)},
        },
        verify,
        reference="(8.2)",
    )


def _logit(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        place = {now: earlier(function(n.k)) for function, now, _ in WEIGHTS}
        sums = {n.M_plus: earlier(n.M_plus), n.M_minus: earlier(n.M_minus)}
        return [
            own(n.u).subs(sums) - earlier(n.u).subs(place, simultaneous=True),
            own(n.c) - without_g(n.eta * n.p * n.r * n.g(n.u), earlier),
        ]

    chain.add(
        "logit",
        "Then the two scalars and the initial M plus and M minus give the logit, and with it c = eta p r g(u).",
        {
            n.u: n.r * (n.M_plus * n.F_plus**2 - n.M_minus * n.F_minus**2) / 4,
            n.c: without_g(n.eta * n.p * n.r * n.g(n.u), chain.known),
        },
        verify,
    )


def _step(chain: Chain, name: str, *, nesterov: bool, descent: Derivation) -> None:
    place = {now: chain.known(function(n.k)) for function, now, _ in (*WEIGHTS, *SPEEDS)}
    moved = _moved(chain.known, nesterov)

    def scalar(symbols: tuple[sp.Symbol, ...], sign: int) -> sp.Expr:
        # From neuron 1: the sum and the difference of its two weights after the step.
        after = [
            moved[symbol].subs(n.g(n.u), n.c / (n.eta * n.p * n.r)).subs(place, simultaneous=True) for symbol in symbols
        ]
        return sp.expand(sp.cancel((after[0] + sign * after[1]) / (n.a[0] + sign * n.z[0])))

    stepped = {}
    for _, _, then, speed_then, sign in SCALARS:
        stepped[speed_then] = scalar((n.velocity_next[0], n.velocity_next[2]), sign)
        stepped[then] = scalar((n.a_next[0], n.z_next[0]), sign)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Induction: one more step of every neuron is one more step of the scalars.
        place = {now: earlier(function(n.k)) for function, now, _ in (*WEIGHTS, *SPEEDS)}
        longer = {label: own(then) for label, _, then, _, _ in SCALARS}
        longer |= {label: own(then) for _, label, _, then, _ in SCALARS}
        moved = _moved(earlier, nesterov)
        residuals = []
        for function, _, then in (*WEIGHTS, *SPEEDS):
            stepped = moved[then].subs(n.g(n.u), n.c / (n.eta * n.p * n.r)).subs(place, simultaneous=True)
            residuals.append(sp.expand(earlier(function(n.k)).subs(longer, simultaneous=True) - stepped))
        # Without momentum and decay the step is that of plain descent.
        plain = {n.mu: 0, n.lam: 0}
        known = Known([("neurons", descent["neurons"].equations)])
        return residuals + [own(then).subs(plain) - known(then) for _, _, then, _, _ in SCALARS]

    chain.add(
        name,
        "Nesterov's rule keeps the supposition as well; the weights move by the gradient and mu times the new velocity."
        if nesterov
        else "A step of the heavy ball keeps the supposition: the scalars move as weights do, for any neurons.",
        stepped,
        verify,
        reference="(8.2)",
    )


def _two_steps(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The velocity is the last move over -eta.
        last = {n.V_plus: (n.F_plus_past - n.F_plus) / n.eta, n.V_minus: (n.F_minus_past - n.F_minus) / n.eta}
        return [own(then) - earlier(then, "heavy ball").subs(last) for _, _, then, _, _ in SCALARS]

    chain.add(
        "two-step form",
        "Without velocities: the factors of descent with decay, and mu times the last move.",
        {
            n.F_plus_next: (1 + n.c - n.eta * n.lam) * n.F_plus + n.mu * (n.F_plus - n.F_plus_past),
            n.F_minus_next: (1 - n.c - n.eta * n.lam) * n.F_minus + n.mu * (n.F_minus - n.F_minus_past),
        },
        verify,
        reference="(8.2)",
    )
