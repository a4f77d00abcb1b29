"""Gradient descent without a small-step limit: one step multiplies M plus and M minus by two numbers (8.1).

Continues `mode`: the force on the weights is the one derived there, and so are the sums M plus and M minus. Here a
letter without argument is the value before a step, and a letter with a dash the value after it.

Below it: the same with momentum (8.2).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._derivation import Chain, Derivation, Known, Target, derive, du_dt, equal, while_learning, without_g
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._mode import NEURONS, NOW
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    F_minus,
    F_minus_next,
    F_minus_past,
    F_plus,
    F_plus_next,
    F_plus_past,
    M_minus,
    M_minus_next,
    M_minus_of,
    M_plus,
    M_plus_next,
    M_plus_of,
    V_minus,
    V_minus_next,
    V_plus,
    V_plus_next,
    a,
    a_next,
    a_of,
    c,
    eta,
    g,
    k,
    kappa,
    lam,
    mu,
    p,
    r,
    t,
    u,
    u_next,
    u_of,
    velocity,
    velocity_next,
    velocity_of,
    z,
    z_next,
    z_of,
)

__all__ = ["LOSSES", "build", "build_momentum"]


STEP = "one step"
COORDINATES = tuple(
    (functions[j], now[j], then[j])
    for j in NEURONS
    for functions, now, then in ((a_of, a, a_next), (z_of, z, z_next))
)
"""(function of time, letter before the step, letter after it) of what a step moves."""

AFTER = dict(zip((*a, *z), (*a_next, *z_next), strict=True))

SUMS = ((M_plus, M_plus_next, 1), (M_minus, M_minus_next, -1))
"""(sum before the step, sum after it, sign of z in it)."""


def build(loss: str) -> Derivation:
    """Derive the exact law of gradient descent for the loss of that name; see `gradstarve.symbolic.derive`."""
    mode, chain = derive("mode", loss), Chain()
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    add_force(chain, mode)
    _one_step(chain)
    _exact_step(chain)
    _neurons(chain)
    sums = (M_plus, M_minus, p, r, eta)
    targets = {
        "u'": Target("exact step", u_next, sums, "One step, any step size, while no neuron changes its activity."),
        "M_plus'": Target("exact step", M_plus_next, sums),
        "M_minus'": Target("exact step", M_minus_next, sums),
    }
    if loss == "hinge":
        targets |= _before_the_margin(chain)
    _weight_decay(chain)
    _small_steps(chain, mode, loss)
    targets["M_plus' with decay"] = Target("weight decay", M_plus_next, (*sums, lam))
    return Derivation("descent", loss, f"Gradient descent of one mode, {loss} loss", chain.steps, targets)


def add_force(chain: Chain, mode: Derivation) -> None:
    """Cite the force on the weights along the class and on the read-outs, the logit, and its two sums."""
    chain.cite(mode, "active side", "The logit of the mode, in its weights along the class and its read-outs.", [u])
    chain.cite(
        mode,
        "gradient flow",
        "Minus the gradient of the loss, as the flow follows it; weights across the class do not move.",
        [sp.Derivative(function(t), t) for function, _, _ in COORDINATES],
    )
    chain.cite(
        mode,
        "sums and differences",
        "M plus and M minus, sums over the neurons; two neurons stand for any number, as all sums are linear in them.",
        [M_plus, M_minus, kappa],
    )


def force(known: Known, function: type) -> sp.Expr:
    """Minus the slope of the loss in the coordinate `function`, at the present weights; u and g stay letters."""
    return known(sp.Derivative(function(t), t)).subs(NOW).subs(u_of(t), u)


def _one_step(chain: Chain) -> None:
    pushed = {g(u): c / (eta * p * r)}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, now, then in COORDINATES:
            claimed = own(then).subs(c, own(c))
            residuals.append(without_g(claimed - (now + eta * force(earlier, function)), earlier))
        return residuals

    chain.add(
        STEP,
        "A step of size eta along the force, written with c, the one number of the step.",
        (
            equal(c, eta * p * r * g(u)),
            *(equal(then, now + eta * force(chain.known, function).subs(pushed)) for function, now, then in COORDINATES),
        ),
        verify,
    )


def _summed(total: sp.Expr, known: Known) -> sp.Expr:
    """`total`, a sum over the neurons, after the step: in the weights before it."""
    return total.subs(AFTER, simultaneous=True).subs({then: known(then, STEP) for _, _, then in COORDINATES})


def _factor(moved: dict[sp.Symbol, sp.Expr], sign: int) -> sp.Expr:
    """By what a step multiplies a + z or a - z of a neuron: the same for all, so that the sum over them has its square."""
    return sp.cancel((moved[a_next[0]] + sign * moved[z_next[0]]) / (a[0] + sign * z[0]))


def _exact_step(chain: Chain) -> None:
    moved = {then: chain.known(then, STEP) for _, _, then in COORDINATES}
    logit = r * (M_plus - M_minus) / 4

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        sums = {M_plus: earlier(M_plus), M_minus: earlier(M_minus)}
        step = earlier(c, STEP)
        return [
            own(M_plus_next).subs(sums) - _summed(sums[M_plus], earlier),
            own(M_minus_next).subs(sums) - _summed(sums[M_minus], earlier),
            own(u).subs(sums) - earlier(u),
            own(u_next).subs({M_plus_next: own(M_plus_next), M_minus_next: own(M_minus_next)}).subs(sums)
            - _summed(earlier(u), earlier),
            without_g(own(c) - step, earlier),
        ]

    chain.add(
        "exact step",
        "Every a + z is multiplied by 1 + c and every a - z by 1 - c: two numbers move a mode of any width, without any "
        "small-step limit.",
        (
            equal(u, logit),
            equal(c, without_g(chain.known(c), chain.known)),
            *(equal(then, _factor(moved, sign) ** 2 * sums) for sums, then, sign in SUMS),
            equal(u_next, logit.subs({M_plus: M_plus_next, M_minus: M_minus_next})),
        ),
        verify,
        reference="(8.1)",
    )


def _neurons(chain: Chain) -> None:
    first = {j: (a[j], z[j]) for j in NEURONS}
    grown = {j: F_plus * sum(first[j]) for j in NEURONS}
    decayed = {j: F_minus * (first[j][0] - first[j][1]) for j in NEURONS}
    factors = {F_plus: (1 + c) * F_plus, F_minus: (1 - c) * F_minus}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Induction: true at the start, where both products are 1, and kept by one more step.
        longer = {F_plus: own(F_plus_next), F_minus: own(F_minus_next)}
        place = {now: own(function(k)) for function, now, _ in COORDINATES}
        residuals = []
        for function, now, then in COORDINATES:
            value = own(function(k))
            stepped = earlier(then, STEP).subs(place, simultaneous=True)
            residuals += [value.subs({F_plus: 1, F_minus: 1}) - now, value.subs(longer, simultaneous=True) - stepped]
        return residuals

    chain.add(
        "neurons",
        "After k steps each neuron is known from the products of the two factors, which all neurons share; a and z are "
        "its first values. So the step at which some a changes sign is known too.",
        (
            equal(F_plus_next, factors[F_plus]),
            equal(F_minus_next, factors[F_minus]),
            *(
                equal(functions[j](k), (grown[j] + sign * decayed[j]) / 2)
                for j in NEURONS
                for functions, sign in ((a_of, 1), (z_of, -1))
            ),
        ),
        verify,
        reference="(8.1)",
    )


POWERS = ((M_plus_of, M_plus, M_plus_next), (M_minus_of, M_minus, M_minus_next))


def _before_the_margin(chain: Chain) -> dict[str, Target]:
    push = while_learning(chain.known(c, "exact step"))
    moved = {then: chain.known(then, STEP).subs(c, push) for _, _, then in COORDINATES}
    powers = {sums: _factor(moved, sign) ** (2 * k) * sums for sums, _, sign in SUMS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, sums, then in POWERS:
            value = own(function(k))
            stepped = earlier(then).subs(c, while_learning(earlier(c, "exact step"))).subs(sums, value)
            residuals += [value.subs(k, k + 1) - stepped, value.subs(k, 0) - sums]
        sums = {sums: own(function(k)) for function, sums, _ in POWERS}
        residuals.append(own(u_of(k)) - earlier(u, "exact step").subs(sums, simultaneous=True))
        return residuals

    chain.add(
        "before the margin",
        "While the margin is not reached the hinge's residual is 1 and so every step has the same factors: powers.",
        (
            equal(M_plus_of(k), powers[M_plus]),
            equal(M_minus_of(k), powers[M_minus]),
            equal(u_of(k), r * (powers[M_plus] - powers[M_minus]) / 4),
        ),
        verify,
        domain={eta: (0, sp.Rational(1, 4))},
        reference="(8.1)",
    )
    note = "Valid up to the first step whose logit is 1 or more, for eta p r < 1."
    return {"u(k)": Target("before the margin", u_of(k), (k, M_plus, M_minus, p, r, eta), note)}


def _weight_decay(chain: Chain) -> None:
    def decayed(known: Known) -> dict[sp.Symbol, sp.Expr]:
        # Decay adds lambda/2 times the sum of all squared weights to the loss.
        penalty = lam * sum((x**2 for x in (*a, *z)), sp.S.Zero) / 2
        return {
            then: now + eta * (force(known, function) - sp.diff(penalty, now)) for function, now, then in COORDINATES
        }

    pushed = {then: value.subs(g(u), c / (eta * p * r)) for then, value in decayed(chain.known).items()}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        moved = decayed(earlier)
        return [
            without_g(
                own(then).subs(c, earlier(c, STEP)).subs(sums, earlier(sums, "sums and differences"))
                - earlier(sums, "sums and differences").subs(AFTER, simultaneous=True).subs(moved),
                earlier,
            )
            for sums, then, _ in SUMS
        ]

    chain.add(
        "weight decay",
        "Weight decay lambda on w and z takes eta lambda off both factors.",
        tuple(equal(then, _factor(pushed, sign) ** 2 * sums) for sums, then, sign in SUMS),
        verify,
        reference="(8.2)",
    )


def _small_steps(chain: Chain, mode: Derivation, loss: str) -> None:
    rate = mode.result["du/dt"].rhs

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # u' as a function of eta, at the sums that belong to this u and kappa: M+- = 2 (sqrt(kappa^2 + u^2) +- u)/r.
        moved = earlier(u_next).subs({then: earlier(then, "exact step") for _, then, _ in SUMS})
        moved = moved.subs(c, earlier(c, "exact step"))
        sums = {M_plus: 2 * (sp.sqrt(kappa**2 + u**2) + u) / r, M_minus: 2 * (sp.sqrt(kappa**2 + u**2) - u) / r}
        speed = sp.diff(moved, eta).subs(eta, 0).subs(sums)
        links = [
            earlier(kappa, "sums and differences").subs(sums) ** 2 - kappa**2,
            earlier(u, "exact step").subs(sums) - u,
        ]
        return [own(du_dt) - rate, own(du_dt) - speed, *links]

    chain.add(
        "small steps",
        "For small eta the change of the logit per eta is the mode equation of the flow.",
        equal(du_dt, rate),
        verify,
        domain=LOGIT_RANGE[loss],
        reference="(3.4)",
    )


# Gradient descent with momentum: two scalars, shared by all neurons of a mode, obey the momentum recurrence (8.2).
#
# The update rule is that of `GradientDescent`: with the gradient G of the loss and of its weight decay, the velocity goes
# to mu v + G, and the weights move by -eta times it (heavy ball) or by -eta (G + mu times it) (Nesterov).

WEIGHTS = tuple(zip((*a_of, *z_of), (*a, *z), (*a_next, *z_next), strict=True))
"""(function of the step number, letter before the step, letter after it) of what is trained."""

SPEEDS = tuple(zip(velocity_of, velocity, velocity_next, strict=True))
"""The same of the velocities, in the same order."""

SCALARS = ((F_plus, V_plus, F_plus_next, V_plus_next, 1), (F_minus, V_minus, F_minus_next, V_minus_next, -1))


def build_momentum(loss: str) -> Derivation:
    """Derive descent with momentum for the loss of that name; see `gradstarve.symbolic.derive`."""
    mode, chain = derive("mode", loss), Chain()
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    add_force(chain, mode)
    _velocities(chain)
    _neurons_with_momentum(chain)
    _logit(chain)
    _step(chain, "heavy ball", nesterov=False, descent=derive("descent", loss))
    _two_steps(chain)
    _step(chain, "Nesterov", nesterov=True, descent=derive("descent", loss))
    state = (F_plus, F_minus, V_plus, V_minus, M_plus, M_minus, p, r, eta, mu, lam)
    targets = {"u": Target("logit", u, (F_plus, F_minus, M_plus, M_minus, r), "M_plus, M_minus: the first values.")}
    for step, suffix in (("heavy ball", ""), ("Nesterov", " Nesterov")):
        targets |= {f"{then}'{suffix}": Target(step, label, state) for then, label in NAMED}
    return Derivation("momentum", loss, f"Momentum on one mode, {loss} loss", chain.steps, targets)


NAMED = (("F_plus", F_plus_next), ("F_minus", F_minus_next), ("V_plus", V_plus_next), ("V_minus", V_minus_next))


def _gradient(known: Known, function: type, now: sp.Symbol) -> sp.Expr:
    """Slope of the loss and of its weight decay in one coordinate, g(u) written as a letter."""
    return lam * now - force(known, function)


def _moved(known: Known, nesterov: bool) -> dict[sp.Symbol, sp.Expr]:
    """Weights and velocities after the step -> in those before it."""
    after = {}
    for (function, now, then), (_, _, speed_then) in zip(WEIGHTS, SPEEDS, strict=True):
        after[speed_then] = known(speed_then)
        push = _gradient(known, function, now) + mu * after[speed_then] if nesterov else after[speed_then]
        after[then] = now - eta * push
    return after


def _velocities(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for (function, now, _), (_, speed, speed_then) in zip(WEIGHTS, SPEEDS, strict=True):
            fresh = own(speed_then) - mu * speed  # what a velocity forgets at the rate mu, it gains from the gradient
            residuals.append(without_g(fresh - _gradient(earlier, function, now), earlier))
        return residuals

    chain.add(
        "velocities",
        "Every weight has a velocity, which keeps its part mu and gains the gradient, of the loss and of weight decay.",
        tuple(
            equal(speed_then, mu * speed + _gradient(chain.known, function, now))
            for (function, now, _), (_, speed, speed_then) in zip(WEIGHTS, SPEEDS, strict=True)
        ),
        verify,
    )


def _neurons_with_momentum(chain: Chain) -> None:
    def shared(first: sp.Expr, second: sp.Expr) -> list[sp.Expr]:
        return [
            ((a[j] + z[j]) * first + sign * (a[j] - z[j]) * second) / 2 for sign in (1, -1) for j in range(len(a))
        ]

    positions, speeds = shared(F_plus, F_minus), shared(V_plus, V_minus)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # True at the start, with factors 1 and velocities 0, for every value of the weights; the steps below keep it.
        start = {F_plus: 1, F_minus: 1, V_plus: 0, V_minus: 0}
        residuals = [own(function(k)).subs(start) - now for function, now, _ in WEIGHTS]
        residuals += [own(function(k)).subs(start) for function, _, _ in SPEEDS]
        # A velocity is shared in the way a position is.
        turned = {F_plus: V_plus, F_minus: V_minus}
        pairs = zip(WEIGHTS, SPEEDS, strict=True)
        return residuals + [own(fast(k)) - own(slow(k)).subs(turned) for (slow, _, _), (fast, _, _) in pairs]

    chain.add(
        "neurons",
        "Suppose that after k steps the first values a, z of all neurons have been multiplied by the same two scalars, "
        "a + z by F plus and a - z by F minus, with velocities V plus and V minus. It is so at the start.",
        (
            *(equal(function(k), value) for (function, _, _), value in zip(WEIGHTS, positions, strict=True)),
            *(equal(function(k), value) for (function, _, _), value in zip(SPEEDS, speeds, strict=True)),
        ),
        verify,
        reference="(8.2)",
    )


def _logit(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        place = {now: earlier(function(k)) for function, now, _ in WEIGHTS}
        sums = {M_plus: earlier(M_plus), M_minus: earlier(M_minus)}
        return [
            own(u).subs(sums) - earlier(u).subs(place, simultaneous=True),
            own(c) - without_g(eta * p * r * g(u), earlier),
        ]

    chain.add(
        "logit",
        "Then the logit is known from the two scalars and the first M plus and M minus, and with it c = eta p r g(u).",
        (
            equal(u, r * (M_plus * F_plus**2 - M_minus * F_minus**2) / 4),
            equal(c, without_g(eta * p * r * g(u), chain.known)),
        ),
        verify,
    )


def _step(chain: Chain, name: str, *, nesterov: bool, descent: Derivation) -> None:
    place = {now: chain.known(function(k)) for function, now, _ in (*WEIGHTS, *SPEEDS)}
    moved = _moved(chain.known, nesterov)

    def scalar(symbols: tuple[sp.Symbol, ...], sign: int) -> sp.Expr:
        # Read off neuron 1: the sum and the difference of what its two weights have become.
        after = [moved[symbol].subs(g(u), c / (eta * p * r)).subs(place, simultaneous=True) for symbol in symbols]
        return sp.expand(sp.cancel((after[0] + sign * after[1]) / (a[0] + sign * z[0])))

    rows = []
    for _, _, then, speed_then, sign in SCALARS:
        rows += [
            equal(speed_then, scalar((velocity_next[0], velocity_next[2]), sign)),
            equal(then, scalar((a_next[0], z_next[0]), sign)),
        ]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Induction: one more step of every neuron is one more step of the scalars.
        place = {now: earlier(function(k)) for function, now, _ in (*WEIGHTS, *SPEEDS)}
        longer = {label: own(then) for label, _, then, _, _ in SCALARS}
        longer |= {label: own(then) for _, label, _, then, _ in SCALARS}
        moved = _moved(earlier, nesterov)
        residuals = []
        for function, _, then in (*WEIGHTS, *SPEEDS):
            stepped = moved[then].subs(g(u), c / (eta * p * r)).subs(place, simultaneous=True)
            residuals.append(sp.expand(earlier(function(k)).subs(longer, simultaneous=True) - stepped))
        # Without momentum and decay it is the law of plain descent.
        plain = {mu: 0, lam: 0}
        known = Known([("neurons", descent["neurons"].equations)])
        return residuals + [own(then).subs(plain) - known(then) for _, _, then, _, _ in SCALARS]

    chain.add(
        name,
        "Nesterov's rule keeps the supposition as well; the weights move by the gradient and mu times the new velocity."
        if nesterov
        else "A step of the heavy ball keeps the supposition: the scalars move as weights do, whatever the neurons.",
        tuple(rows),
        verify,
        reference="(8.2)",
    )


def _two_steps(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The velocity is the last move over -eta.
        last = {V_plus: (F_plus_past - F_plus) / eta, V_minus: (F_minus_past - F_minus) / eta}
        return [own(then) - earlier(then, "heavy ball").subs(last) for _, _, then, _, _ in SCALARS]

    chain.add(
        "two-step form",
        "Without velocities: the factors of descent with decay, and mu times the last move.",
        (
            equal(F_plus_next, (1 + c - eta * lam) * F_plus + mu * (F_plus - F_plus_past)),
            equal(F_minus_next, (1 - c - eta * lam) * F_minus + mu * (F_minus - F_minus_past)),
        ),
        verify,
        reference="(8.2)",
    )
