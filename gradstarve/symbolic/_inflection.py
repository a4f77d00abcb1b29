"""The inflections of the error curve: from the mode equation to e'' = 0 (5.1) and to kappa^2 = K(u) (5.2).

Continues `mode`: its residual, its mode equation (3.4) and the balanced limit are cited, not typed in again.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import BALANCED, GENERAL, Chain
from gradstarve.symbolic._derivation import Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._opening import continue_mode


@derives(name="inflection", equation="5.1", title="Inflections of the error curve")
def inflection(chain: Chain, loss: str) -> dict[str, Target]:
    """The inflections of the error of the mode, e'' = 0 (5.1), where kappa^2 = K(u) (5.2)."""
    mode = continue_mode(chain, loss)
    chain.cite(mode, GENERAL, "The scalar equation of the logit, as in the derivation of the mode.")
    chain.cite(mode, BALANCED, "Its balanced limit, kappa = 0, for positive logits.")
    _error(chain, loss)
    _curvature(chain, loss)
    _level(chain, loss)
    _balanced(chain, loss)
    note = " Before the margin, u < 1." if loss == "hinge" else ""
    meeting = "Vanishes where two inflections meet." + note
    return {
        "chi(u)": Target("curvature", n.chi_of(n.u), (n.u, n.kappa), "The error is concave where it is positive." + note),
        "K(u)": Target("inflections", n.K_of(n.u), (n.u,), "An inflection at u if this is kappa^2." + note),
        "K'(u)": Target("transition", sp.Derivative(n.K_of(n.u), n.u), (n.u,), meeting),
        "chi(u) balanced": Target("balanced curvature", n.chi_of(n.u_positive), (n.u_positive,), "Valid for u > 0." + note),
    }


def _moving(logit: sp.Symbol, rate: sp.Expr, known: Known) -> tuple[sp.Expr, sp.Expr]:
    """de/dt and d2e/dt2 where d(logit)/dt = rate, by the chain rule on e(u(t))."""
    error = known(n.e_of(n.u)).subs(n.u, n.u_of(n.t))
    speed = rate.subs(logit, n.u_of(n.t))
    first = sp.diff(error, n.t).subs(n.rate(n.u_of), speed)
    second = sp.diff(first, n.t).subs(n.rate(n.u_of), speed)
    return first.subs(n.u_of(n.t), logit), second.subs(n.u_of(n.t), logit)


def _rational(expression: sp.Expr) -> sp.Expr:
    """`expression` with e^u as a letter: a residual then vanishes as a rational function, which is quick to check."""
    return expression.subs(sp.exp(n.u), n.x_var)


def _factored(expression: sp.Expr) -> sp.Expr:
    return sp.factor(_rational(sp.expand(expression))).subs(n.x_var, sp.exp(n.u))


def _error(chain: Chain, loss: str) -> None:
    (error,) = sp.solve(sp.Eq(sp.log((1 - n.m) / n.m), n.u), n.m)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        value = own(n.e_of(n.u))
        return [sp.exp(n.u) * value - (1 - value)]

    chain.add(
        "error",
        "The error is the probability of the wrong label; its log-odds are minus the logit.",
        {n.e_of(n.u): sp.simplify(error)},
        verify,
    )
    first, _ = _moving(n.u, while_learning(chain.known(n.du_dt, GENERAL)), chain.known)
    chain.add(
        "speed of the error",
        "By the chain rule the error falls as fast as the logit rises, times e (1 - e).",
        {n.rate(n.e_of): _factored(first)},
        lambda own, earlier: [
            _rational(
                own(n.rate(n.e_of))
                + earlier(n.e_of(n.u)) * (1 - earlier(n.e_of(n.u))) * while_learning(earlier(n.du_dt, GENERAL))
            )
        ],
        domain=n.LOGIT_RANGE[loss],
    )


def _bend(residual: sp.Expr, known: Known) -> sp.Expr:
    """chi: the logarithmic derivative in u of e (1 - e) g sqrt(kappa^2 + u^2), in partial fractions."""
    error = known(n.e_of(n.u))
    slopes = [sp.cancel(_rational(sp.diff(factor, n.u) / factor)) for factor in (error * (1 - error), residual)]
    bend = sp.expand(sum((sp.apart(slope, n.x_var) for slope in slopes), sp.S.Zero))
    return bend.subs(n.x_var, sp.exp(n.u)) + n.u / (n.kappa**2 + n.u**2)


def _curvature(chain: Chain, loss: str) -> None:
    residual = while_learning(chain.known(n.g(n.m))).subs(n.m, n.u)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiated twice in time along the full mode equation.
        error, rate = earlier(n.e_of(n.u)), while_learning(earlier(n.du_dt, GENERAL))
        _, second = _moving(n.u, rate, earlier)
        claimed = own(sp.Derivative(n.e_of(n.t), (n.t, 2))).subs(
            {n.chi_of(n.u): own(n.chi_of(n.u)), n.e_of(n.u): error, n.du_dt: rate}
        )
        return [_rational(claimed / rate**2 - second / rate**2)]

    chain.add(
        "curvature",
        "The second derivative has the sign of minus chi, the logarithmic derivative of that speed along the "
        "logit: the error is concave where chi is positive and convex where it is negative.",
        {
            n.chi_of(n.u): _bend(residual, chain.known),
            sp.Derivative(n.e_of(n.t), (n.t, 2)): -n.chi_of(n.u) * n.e_of(n.u) * (1 - n.e_of(n.u)) * n.du_dt**2,
        },
        verify,
        domain=n.LOGIT_RANGE[loss],
        reference="(5.1)",
    )


def _level(chain: Chain, loss: str) -> None:
    level = sp.Symbol("level", positive=True)
    bend = chain.known(n.chi_of(n.u)).subs(n.kappa**2, level)
    rest = bend - n.u / (level + n.u**2)  # free of kappa
    square = _factored(-n.u / rest) - n.u**2

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Multiplied out: chi (kappa^2 + u^2) is of first degree in kappa^2, so that there is no other zero.
        claimed = own(n.K_of(n.u))
        polynomial = sp.cancel(earlier(n.chi_of(n.u)) * (n.kappa**2 + n.u**2))
        return [_rational(polynomial.subs(n.kappa, sp.sqrt(claimed)))]

    chain.add(
        "inflections",
        "chi vanishes at the logit u for one kappa: the inflections are the points where K(u) is kappa squared.",
        {n.K_of(n.u): square},
        verify,
        domain=n.LOGIT_RANGE[loss],
        reference="(5.2)",
    )

    slope = sp.Derivative(n.K_of(n.u), n.u)

    def verify_slope(own: Known, earlier: Known) -> list[sp.Expr]:
        # Independent of the quotient rule: K keeps chi at zero, so chi_u + chi_(kappa^2) K' = 0 there.
        bend = earlier(n.chi_of(n.u)).subs(n.kappa**2, level)
        implicit = sp.diff(bend, n.u) + sp.diff(bend, level) * own(slope)
        return [_rational(implicit.subs(level, earlier(n.K_of(n.u))))]

    chain.add(
        "transition",
        "Two inflections meet where K is stationary; kappa_c, above which there are none, is the square root of K there.",
        {slope: _factored(sp.diff(square, n.u))},
        verify_slope,
        domain=n.LOGIT_RANGE[loss],
        reference="(5.2)",
    )


def _balanced(chain: Chain, loss: str) -> None:
    bend = chain.known(n.chi_of(n.u)).subs({n.kappa: 0, n.u: n.u_positive})

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        error, rate = earlier(n.e_of(n.u)).subs(n.u, n.u_positive), while_learning(earlier(n.du_dt, BALANCED))
        _, second = _moving(n.u_positive, rate, earlier)
        return [_rational((own(n.chi_of(n.u_positive)) * error * (1 - error) + second / rate**2).subs(n.u_positive, n.u))]

    chain.add(
        "balanced curvature",
        "With kappa = 0 one inflection is left, where chi vanishes: the curve is concave before it and convex after it.",
        {n.chi_of(n.u_positive): bend},
        verify,
        domain=n.LOGIT_RANGE[loss],
        reference="(5.1)",
    )
