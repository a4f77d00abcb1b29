"""Gradient descent without a small-step limit: one step multiplies M plus and M minus by two numbers (8.1).

Continues `mode`: the force on the weights is the one derived there, and so are the sums M plus and M minus. Here a
letter without argument is the value before a step, and a letter with a dash the value after it.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import Chain, du_dt, equal, while_learning, without_g
from gradstarve.symbolic._derivation import Derivation, Known, Target, derive
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._mode_flow import NEURONS, NOW
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    F_minus,
    F_minus_next,
    F_plus,
    F_plus_next,
    M_minus,
    M_minus_next,
    M_minus_of,
    M_plus,
    M_plus_next,
    M_plus_of,
    a,
    a_next,
    a_of,
    c,
    eta,
    g,
    k,
    kappa,
    lam,
    p,
    r,
    t,
    u,
    u_next,
    u_of,
    z,
    z_next,
    z_of,
)

__all__ = ["LOSSES", "build"]

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
