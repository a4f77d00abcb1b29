"""kappa in discrete time: large steps, label noise and weight decay (19.1)-(19.5).

Continues `descent`, with its two sums M plus and M minus written as the logit u and kappa. A letter without a dash is
the value before a step, and a letter with a dash the value after it.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import GENERAL, Chain, residual_at
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._opening import continue_mode

STATE, STEP, DECAY, NOISE = "logit and kappa", "step of kappa", "weight decay on kappa", "label noise"
ROOT = sp.sqrt(n.kappa**2 + n.u**2)
X = n.eta * n.p * n.r
KEPT = 1 - n.eta * n.lam
STABLE: Domain = {n.eta: (sp.Rational(1, 100), sp.Rational(1, 5))}
"""Step sizes with eta p r < 1, for which some kappa is stable."""
FADING: Domain = {n.kappa: (sp.Rational(1), 2), n.kappa_c: (sp.Rational(1, 10), 1)}
"""A kappa above kappa_c."""


@derives(name="kappa", equation="19.1-19.5", title="kappa in steps of descent", dynamics=("flow", "descent"))
def kappa(chain: Chain, loss: str) -> dict[str, Target]:
    """A step of descent in logit and kappa, at any step size (19.1), (19.2), with weight decay (19.5), and the squared
    gradient of the logit (19.1). Squared loss: the kappa above which the rest is unstable (19.3), and label noise (19.4).
    Smooth losses: kappa in the flow with weight decay, and the time from lazy to rich (19.5).
    """
    continue_mode(chain, loss, force=True)
    descent = derive("descent", loss)
    chain.cite(descent, "exact step", "One step of descent, as in the derivation for descent.")
    chain.cite(descent, "weight decay", "One step of descent with weight decay lambda.")
    _states(chain)
    shrinks = "kappa is multiplied by |1 - c^2|, for every loss and any number of neurons."
    _step(chain, STEP, "exact step", shrinks, sp.S.One, "(19.1)")
    _step(chain, DECAY, "weight decay", "The same with weight decay, which subtracts eta lambda.", KEPT, "(19.5)")
    _gradient(chain)
    numbers = (n.u, n.kappa, n.p, n.r, n.eta)
    note = "Valid while no neuron changes its activity."
    targets = {
        "kappa'": Target(STEP, n.kappa_next, numbers, note),
        "u'": Target(STEP, n.u_next, numbers, note),
        "kappa' with decay": Target(DECAY, n.kappa_next, (*numbers, n.lam), note),
        "u' with decay": Target(DECAY, n.u_next, (*numbers, n.lam), note),
        "|grad u|^2": Target("squared gradient", n.squared_gradient, (n.u, n.kappa, n.r)),
    }
    if loss == "squared":
        targets |= _edge(chain) | _label_noise(chain)
    return targets if loss == "hinge" else targets | _flow(chain, loss)


def _states(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        sums = {letter: own(letter) for letter in (n.M_plus, n.M_minus)}
        return [earlier(n.u, "exact step").subs(sums) - n.u, earlier(n.kappa).subs(sums) ** 2 - n.kappa**2]

    chain.add(
        STATE,
        "M plus and M minus are known from the logit and kappa.",
        {n.M_plus: 2 * (ROOT + n.u) / n.r, n.M_minus: 2 * (ROOT - n.u) / n.r},
        verify,
    )


def _step(chain: Chain, name: str, source: str, claim: str, kept: sp.Expr, reference: str) -> None:
    """Add u and kappa after a step whose sums are those of the step `source`, with the factors `kept` + c and `kept` - c."""

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        states = {letter: earlier(letter, STATE) for letter in (n.M_plus, n.M_minus)}
        plus, minus = (earlier(letter, source).subs(states) for letter in (n.M_plus_next, n.M_minus_next))
        return [
            own(n.u_next) - n.r * (plus - minus) / 4,
            own(n.kappa_next) ** 2 - n.r**2 * plus * minus / 4,
            own(n.kappa_next) - sp.Abs(own(n.kappa_next)),
        ]

    chain.add(
        name,
        claim,
        {
            n.kappa_next: sp.Abs(kept**2 - n.c**2) * n.kappa,
            n.u_next: (kept**2 + n.c**2) * n.u + 2 * kept * n.c * ROOT,
        },
        verify,
        reference=reference,
    )


def _gradient(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        logit = earlier(n.u, "active side")
        slopes = sum((sp.diff(logit, weight) ** 2 for weight in (*n.a, *n.z)), sp.S.Zero)
        sums = {letter: earlier(letter, "sums and differences") for letter in (n.M_plus, n.M_minus)}
        inside = {n.kappa: earlier(n.kappa, "sums and differences").subs(sums), n.u: logit}
        return [own(n.squared_gradient).subs(inside, simultaneous=True) - slopes]

    chain.add(
        "squared gradient",
        "The squared gradient of the logit over all weights; weights across the class do not change the logit.",
        {n.squared_gradient: 2 * n.r * ROOT},
        verify,
        reference="(19.1)",
    )


def _edge(chain: Chain) -> dict[str, Target]:
    at_rest = {n.u: n.u_star}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rest, moved = own(n.u_star), earlier(n.u_next, STEP).subs(n.c, X * residual_at(earlier, n.u))
        slope, pull = sp.diff(moved, n.u), residual_at(earlier, n.u)
        size = earlier(n.squared_gradient).subs(at_rest) / (2 * n.r)
        return [
            residual_at(earlier, rest),
            own(n.multiplier).subs(n.u_star, rest) - slope.subs(n.u, rest),
            own(n.multiplier) - (1 + 2 * X * sp.diff(pull, n.u).subs(at_rest) * size),
            own(n.multiplier).subs({n.u_star: rest, n.kappa: own(n.kappa_edge)}) + 1,
        ]

    chain.add(
        "edge of stability",
        "A step multiplies a small deviation from the rest by this number, and leaves kappa unchanged to first order. The "
        "number is below -1 for every kappa above the edge, and for eta p r >= 1 for every kappa.",
        {
            n.u_star: sp.S.One,
            n.multiplier: 1 - 2 * X * sp.sqrt(n.kappa**2 + n.u_star**2),
            n.kappa_edge: sp.sqrt(1 / X**2 - 1),
        },
        verify,
        STABLE,
        "(19.3)",
    )
    note = "Valid for eta p r < 1."
    return {"kappa_edge": Target("edge of stability", n.kappa_edge, (n.p, n.r, n.eta), note)}


def _label_noise(chain: Chain) -> dict[str, Target]:
    value, residual = n.ell_new(n.m), n.g_new(n.m)

    def verify_loss(own: Known, earlier: Known) -> list[sp.Expr]:
        of_loss = earlier(n.g(n.m))
        return [own(residual) + sp.diff(own(value), n.m), own(residual).subs(n.xi, 1) - of_loss, own(value).subs(n.m, n.xi)]

    chain.add(
        "noisy target",
        "With label noise the squared loss pulls the margin to a target xi, a new one in each step; its residual is again "
        "minus the slope.",
        {value: (n.xi - n.m) ** 2 / 2, residual: n.xi - n.m},
        verify_loss,
        reference="(19.4)",
    )

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        push = X * earlier(residual).subs(n.m, n.u)
        return [own(letter) - earlier(letter, STEP).subs(n.c, push) for letter in (n.kappa_next, n.u_next)]

    push = X * (n.xi - n.u)
    chain.add(
        NOISE,
        "A step with this residual: because the targets differ, kappa still shrinks at the rest.",
        {n.kappa_next: sp.Abs(1 - push**2) * n.kappa, n.u_next: (1 + push**2) * n.u + 2 * push * ROOT},
        verify,
        reference="(19.4)",
    )
    numbers = (n.u, n.kappa, n.p, n.r, n.eta, n.xi)
    note = "Valid while no neuron changes its activity."
    return {
        "kappa' with noise": Target(NOISE, n.kappa_next, numbers, note),
        "u' with noise": Target(NOISE, n.u_next, numbers, note),
    }


def _flow(chain: Chain, loss: str) -> dict[str, Target]:
    fading = n.rate(n.kappa_of)
    chain.cite(derive("decay", loss), GENERAL, "The flow with weight decay lambda.", [fading])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        curve = own(n.kappa_of(n.t))
        return [
            sp.diff(curve, n.t) - earlier(fading).subs(n.kappa, curve),
            curve.subs(n.t, 0) - n.kappa,
            curve.subs(n.t, own(n.t_rich)) - n.kappa_c,
        ]

    chain.add(
        "from lazy to rich",
        "kappa decays twice as fast as a weight. Below kappa_c error curves are sigmoidal (5.2).",
        {
            n.kappa_of(n.t): n.kappa * sp.exp(-2 * n.lam * n.t),
            n.t_rich: sp.log(n.kappa / n.kappa_c) / (2 * n.lam),
        },
        verify,
        FADING,
        "(19.5)",
    )
    return {
        "kappa(t)": Target("from lazy to rich", n.kappa_of(n.t), (n.t, n.kappa, n.lam)),
        "t_rich": Target("from lazy to rich", n.t_rich, (n.kappa, n.kappa_c, n.lam), "Valid for kappa > kappa_c."),
    }
