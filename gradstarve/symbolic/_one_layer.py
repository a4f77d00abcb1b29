"""One layer, a linear read-out f = v.x: du/dt = p r^2 g(u), and u(t) for every loss.

The same class as in `mode` (points along one direction, norm r, total weight p, label y = +1 after
orientation), with no hidden layer. The weights across the class do not move, so the logit alone carries the
dynamics; with cross-entropy its curve is a Lambert W function (3.9).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._derivation import (
    Chain,
    Derivation,
    Known,
    Target,
    du_dt,
    equal,
    inverts_flow,
    solves_flow,
    while_learning,
    without_g,
)
from gradstarve.symbolic._losses import LOSSES, residual_of
from gradstarve.symbolic._notation import (
    ACROSS,
    DIRECTION,
    LOGIT_RANGE,
    C,
    across_of,
    along,
    along_of,
    ell,
    g,
    linear_weights,
    m,
    network,
    p,
    r,
    sideways,
    t,
    t_of,
    t_star,
    u,
    u0,
    u_of,
    v,
)


def build(loss: str) -> Derivation:
    """Derive the law of a linear read-out for the loss of that name; see `gradstarve.symbolic.derive`."""
    chain = Chain()
    _network(chain)
    chosen = LOSSES[loss]
    chain.add("loss", chosen.claim, equal(ell(m), chosen.value), lambda own, _: chosen.characterise(own(ell(m))))
    chain.add(
        "residual",
        "The residual is minus the slope of the loss.",
        equal(g(m), residual_of(chosen.value)),
        lambda own, earlier: [own(g(m)) + sp.diff(earlier(ell(m)), m)],
    )
    _flow(chain)
    _time(chain, loss)
    targets = {
        "du/dt": Target("logit equation", du_dt, (u, p, r)),
        "t(u)": Target("time from logit", t_of(u), (u, p, r, u0), "Valid while g > 0 from u0 to u."),
    }
    _curve(chain, loss)
    if loss == "hinge":
        targets["t*"] = Target("logit in time", t_star, (p, r, u0), "Valid for u0 <= 1.")
    note = "Valid for every u0; above 1 nothing moves." if loss == "hinge" else "Valid for every u0."
    targets["u(t)"] = Target("logit in time", u_of(t), (t, p, r, u0), note)
    return Derivation("one-layer", loss, f"One layer with a linear read-out, {loss} loss", chain.steps, targets)


def _network(chain: Chain) -> None:
    weights = sp.Matrix(linear_weights)
    point = r * DIRECTION
    chain.add(
        "network",
        "The network is a linear read-out of the input; the class lies along one direction, at angle "
        "alpha, with norm r.",
        equal(network, sum((w * x for w, x in zip(weights, point, strict=True)), sp.S.Zero)),
        lambda own, _: [own(network) - weights.dot(point)],
    )
    split = along * DIRECTION + sideways * ACROSS
    substituted = dict(zip(linear_weights, split, strict=True))
    logit = sp.simplify(chain.known(network).subs(substituted))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        row = sp.Matrix([own(weight) for weight in linear_weights])
        whole = earlier(network).subs(dict(zip(linear_weights, row, strict=True)))
        return [whole - own(u), row.dot(DIRECTION) - along, row.dot(ACROSS) - sideways]

    chain.add(
        "logit",
        "Split the weights along the class and across it: the logit depends on the first part only.",
        (*(equal(weight, value) for weight, value in substituted.items()), equal(u, logit)),
        verify,
    )


def _flow(chain: Chain) -> None:
    logit = chain.known(u)
    rates = {
        sp.Derivative(function(t), t): p * g(u_of(t)) * sp.diff(logit, symbol)
        for function, symbol in ((along_of, along), (across_of, sideways))
    }

    def verify_flow(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiate the loss of the network in its weights, then project.
        loss = p * earlier(ell(m)).subs(m, earlier(network))
        pull = sp.Matrix([-sp.diff(loss, weight) for weight in linear_weights])
        weights = {weight: earlier(weight) for weight in linear_weights}
        return [
            without_g(own(rate).subs(u_of(t), earlier(u)), earlier) - pull.dot(direction).subs(weights)
            for rate, direction in zip(rates, (DIRECTION, ACROSS), strict=True)
        ]

    chain.add(
        "gradient flow",
        "Steepest descent of the loss p l(u) moves the weights along the class only.",
        tuple(equal(rate, value) for rate, value in rates.items()),
        verify_flow,
    )

    speed = sum(
        (sp.diff(logit, x) * rate for x, rate in zip((along, sideways), rates.values(), strict=True)),
        sp.S.Zero,
    )

    def verify_equation(own: Known, earlier: Known) -> list[sp.Expr]:
        moving = earlier(u).subs({along: along_of(t), sideways: across_of(t)})
        chain_rule = sp.diff(moving, t).subs({rate: earlier(rate) for rate in rates})
        return [own(du_dt) - without_g(chain_rule.subs(u_of(t), u), earlier)]

    chain.add(
        "logit equation",
        "The logit obeys a scalar equation of its own, whatever the weights.",
        equal(du_dt, without_g(speed.subs(u_of(t), u), chain.known)),
        verify_equation,
    )


def _time(chain: Chain, loss: str) -> None:
    pace = p * r**2
    inverse = sp.expand(sp.simplify(pace / while_learning(chain.known(du_dt))).subs(u, v))
    if loss == "squared":
        # With the gap w = 1 - v as variable: one logarithm of a ratio, real on either side of the margin.
        gap, first, last = sp.symbols("w w0 w1", positive=True)
        time = sp.logcombine(sp.integrate(-sp.simplify(inverse.subs(v, 1 - gap)), (gap, first, last)))
        time = time.subs({first: 1 - u0, last: 1 - u})
    else:
        time = sp.integrate(inverse, (v, u0, u))
    chain.add(
        "time from logit",
        "Separating the variables gives the time as an elementary function of the logit.",
        equal(t_of(u), time / pace),
        lambda own, earlier: inverts_flow(own(t_of(u)), earlier(du_dt), u, u0),
        domain=LOGIT_RANGE[loss],
        reference="(3.9)" if loss == "cross-entropy" else "",
    )


def _curve(chain: Chain, loss: str) -> None:
    pace, time = p * r**2, chain.known(t_of(u))
    definitions: dict[sp.Symbol, sp.Expr] = {}
    claim = "Solved for the logit by SymPy, and put back into the logit equation."
    if loss == "cross-entropy":
        # u + e^u = C: solved with C as one letter, or the solver would carry its four terms along.
        moving = sp.expand(pace * time).as_independent(u, as_Add=True)
        definitions = {C: pace * t - moving[0]}
        (curve,) = sp.solve(sp.Eq(moving[1], C), u)
        claim = "Solved for the logit with Lambert W, principal branch, and put back into the logit equation."
    elif loss == "squared":
        (curve,) = map(sp.expand, sp.solve(sp.exp(sp.expand(pace * time)) - sp.exp(pace * t), u))
    else:
        (curve,) = sp.solve(sp.Eq(sp.expand(pace * time), pace * t), u)
    if loss == "hinge":
        definitions = {t_star: sp.factor(time.subs(u, 1))}
        # A start beyond the margin has a negative arrival time; the maximum keeps it at rest where it is.
        curve = curve.subs(t, sp.Min(t, sp.Max(0, t_star)))
        claim = "The logit grows in proportion to time until the margin 1 is reached, and stays there."

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        values = {letter: own(letter) for letter in definitions}
        whole = own(u_of(t)).subs(values)
        residuals = solves_flow(whole, earlier(du_dt), u, u0)
        if loss == "hinge":
            arrival = values[t_star]
            residuals += [
                earlier(t_of(u)).subs(u, 1) - arrival,  # the margin is reached at t*
                whole.subs(t, arrival + t) - 1,  # and kept,
                whole.subs(u0, u0 + 3) - (u0 + 3),  # and never left by a start beyond it.
            ]
        return residuals

    chain.add(
        "logit in time",
        claim,
        (*(equal(letter, value) for letter, value in definitions.items()), equal(u_of(t), curve)),
        verify,
        domain={u0: LOGIT_RANGE[loss][u0]},
        reference="(3.9)" if loss == "cross-entropy" else "",
    )
