"""Gradient descent with momentum: two scalars, shared by all neurons of a mode, obey the momentum recurrence (8.2).

The update rule is that of `GradientDescent`: with the gradient G of the loss and of its weight decay, the velocity goes
to mu v + G, and the weights move by -eta times it (heavy ball) or by -eta (G + mu times it) (Nesterov).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import Chain, equal, without_g
from gradstarve.symbolic._derivation import Derivation, Known, Target, derive
from gradstarve.symbolic._descent import add_force, force
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._notation import (
    F_minus,
    F_minus_next,
    F_minus_past,
    F_plus,
    F_plus_next,
    F_plus_past,
    M_minus,
    M_plus,
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
    lam,
    mu,
    p,
    r,
    u,
    velocity,
    velocity_next,
    velocity_of,
    z,
    z_next,
    z_of,
)

__all__ = ["LOSSES", "build"]

WEIGHTS = tuple(zip((*a_of, *z_of), (*a, *z), (*a_next, *z_next), strict=True))
"""(function of the step number, letter before the step, letter after it) of what is trained."""

SPEEDS = tuple(zip(velocity_of, velocity, velocity_next, strict=True))
"""The same of the velocities, in the same order."""

SCALARS = ((F_plus, V_plus, F_plus_next, V_plus_next, 1), (F_minus, V_minus, F_minus_next, V_minus_next, -1))


def build(loss: str) -> Derivation:
    """Derive descent with momentum for the loss of that name; see `gradstarve.symbolic.derive`."""
    mode, chain = derive("mode", loss), Chain()
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    add_force(chain, mode)
    _velocities(chain)
    _neurons(chain)
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


def _neurons(chain: Chain) -> None:
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
