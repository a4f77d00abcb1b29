"""One layer, a linear read-out f = v.x: du/dt = p r^2 g(u), and u(t) for every loss.

The same class as in `mode` (points along one direction, norm r, total weight p, label y = +1 after
orientation), with no hidden layer. The weights across the class do not move, so the logit alone carries the
dynamics; with cross-entropy its curve is a Lambert W function (3.9).
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportCallIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import LOGIT_FLOW, Chain, without_g
from gradstarve.symbolic._derivation import Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._opening import Neuron, add_gradient_flow, add_loss, split_weights

READ_OUT = Neuron(n.linear_weights, (n.along, n.along_of), (n.sideways, n.across_of))


@derives(name="one-layer", equation="3.9", title="One layer with a linear read-out")
def one_layer(chain: Chain, loss: str) -> dict[str, Target]:
    """Linear read-out f = v.x, du/dt = p r^2 g(u); u(t) for every loss, with Lambert W for cross-entropy."""
    _network(chain)
    split_weights(
        chain,
        [READ_OUT],
        "logit",
        "Split the weights along the class and across it: the logit depends on the first part only.",
    )
    add_loss(chain, loss)
    add_gradient_flow(chain, [READ_OUT], "Steepest descent of the loss p l(u) moves the weights along the class only.")
    _logit_equation(chain)
    _time(chain, loss)
    _curve(chain, loss)
    targets = {
        "du/dt": Target("logit equation", n.du_dt, (n.u, n.p, n.r)),
        "t(u)": Target("time from logit", n.t_of(n.u), (n.u, n.p, n.r, n.u0), "Valid while g > 0 from u0 to u."),
    }
    if loss == "hinge":
        targets["t*"] = Target("logit in time", n.t_star, (n.p, n.r, n.u0), "Valid for u0 <= 1.")
    note = "Valid for every u0; above 1 nothing moves." if loss == "hinge" else "Valid for every u0."
    return targets | {"u(t)": Target("logit in time", n.u_of(n.t), (n.t, n.p, n.r, n.u0), note)}


def _network(chain: Chain) -> None:
    weights = sp.Matrix(n.linear_weights)
    point = n.r * n.DIRECTION
    chain.add(
        "network",
        "The network is a linear read-out of the input; the class lies along one direction, at angle alpha, with norm r.",
        {n.network: sum((w * x for w, x in zip(weights, point, strict=True)), sp.S.Zero)},
        lambda own, _: [own(n.network) - weights.dot(point)],
    )


def _logit_equation(chain: Chain) -> None:
    logit = chain.known(n.u)
    rates = {n.rate(function): chain.known(n.rate(function)) for function in (n.along_of, n.across_of)}
    speed = sum(
        (sp.diff(logit, x) * rate for x, rate in zip((n.along, n.sideways), rates.values(), strict=True)),
        sp.S.Zero,
    )

    def verify_equation(own: Known, earlier: Known) -> list[sp.Expr]:
        moving = earlier(n.u).subs({n.along: n.along_of(n.t), n.sideways: n.across_of(n.t)})
        chain_rule = sp.diff(moving, n.t).subs({rate: earlier(rate) for rate in rates})
        return [own(n.du_dt) - without_g(chain_rule.subs(n.u_of(n.t), n.u), earlier)]

    chain.add(
        "logit equation",
        "The logit obeys a closed scalar equation, for any weights.",
        {n.du_dt: without_g(speed.subs(n.u_of(n.t), n.u), chain.known)},
        verify_equation,
    )


def _time(chain: Chain, loss: str) -> None:
    pace = n.p * n.r**2
    inverse = sp.expand(sp.simplify(pace / while_learning(chain.known(n.du_dt))).subs(n.u, n.v))
    if loss == "squared":
        # With the gap w = 1 - v as variable: one logarithm of a ratio, real on either side of the margin.
        gap, first, last = sp.symbols("w w0 w1", positive=True)
        time = sp.logcombine(sp.integrate(-sp.simplify(inverse.subs(n.v, 1 - gap)), (gap, first, last)))
        time = time.subs({first: 1 - n.u0, last: 1 - n.u})
    else:
        time = sp.integrate(inverse, (n.v, n.u0, n.u))
    chain.add(
        "time from logit",
        "Separating the variables gives the time as an elementary function of the logit.",
        {n.t_of(n.u): time / pace},
        domain=n.LOGIT_RANGE[loss],
        reference="(3.9)" if loss == "cross-entropy" else "",
        inverts=LOGIT_FLOW,
    )


def _curve(chain: Chain, loss: str) -> None:
    pace, time = n.p * n.r**2, chain.known(n.t_of(n.u))
    definitions: dict[sp.Symbol, sp.Expr] = {}
    claim = "Solved for the logit by SymPy, and put back into the logit equation."
    if loss == "cross-entropy":
        # u + e^u = C: solved with C as one letter, because C has four terms.
        moving = sp.expand(pace * time).as_independent(n.u, as_Add=True)
        definitions = {n.C: pace * n.t - moving[0]}
        (curve,) = sp.solve(sp.Eq(moving[1], n.C), n.u)
        claim = "Solved for the logit with Lambert W, principal branch, and put back into the logit equation."
    elif loss == "squared":
        (curve,) = map(sp.expand, sp.solve(sp.exp(sp.expand(pace * time)) - sp.exp(pace * n.t), n.u))
    else:
        (curve,) = sp.solve(sp.Eq(sp.expand(pace * time), pace * n.t), n.u)
    if loss == "hinge":
        definitions = {n.t_star: sp.factor(time.subs(n.u, 1))}
        # A start beyond the margin has a negative arrival time; the maximum keeps it at rest where it is.
        curve = curve.subs(n.t, sp.Min(n.t, sp.Max(0, n.t_star)))
        claim = "The logit grows in proportion to time until the margin 1 is reached, and stays there."

    def verify_rest(own: Known, earlier: Known) -> list[sp.Expr]:
        arrival = own(n.t_star)
        whole = own(n.u_of(n.t)).subs(n.t_star, arrival)
        return [
            earlier(n.t_of(n.u)).subs(n.u, 1) - arrival,  # the margin is reached at t*
            whole.subs(n.t, arrival + n.t) - 1,  # and kept,
            whole.subs(n.u0, n.u0 + 3) - (n.u0 + 3),  # and never left by a start beyond it.
        ]

    chain.add(
        "logit in time",
        claim,
        {**definitions, n.u_of(n.t): curve},
        verify_rest if loss == "hinge" else None,
        domain={n.u0: n.LOGIT_RANGE[loss][n.u0]},
        reference="(3.9)" if loss == "cross-entropy" else "",
        solves=LOGIT_FLOW,
        through=[*definitions],
    )
