"""Where the error curve bends: from the mode equation to e'' = 0 (5.1) and to kappa^2 = K(u) (5.2).

Continues `mode`: its residual, its mode equation (3.4) and the balanced limit are taken over, not typed in.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._derivation import (
    BALANCED,
    GENERAL,
    Chain,
    Derivation,
    Known,
    Target,
    derive,
    du_dt,
    equal,
    while_learning,
)
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._notation import LOGIT_RANGE, K_of, chi_of, e_of, g, kappa, m, t, u, u_of, u_positive, x_var

__all__ = ["LOSSES", "build"]


def build(loss: str) -> Derivation:
    """Derive where the error of one mode bends, for the loss of that name; see `gradstarve.symbolic.derive`."""
    mode, chain = derive("mode", loss), Chain()
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    chain.cite(mode, GENERAL, "The scalar equation of the logit, as in the derivation of the mode.")
    chain.cite(mode, BALANCED, "Its balanced limit, kappa = 0, for positive logits.")
    _error(chain, loss)
    _curvature(chain, loss)
    _level(chain, loss)
    _balanced(chain, loss)
    note = " Before the margin, u < 1." if loss == "hinge" else ""
    targets = {
        "chi(u)": Target("curvature", chi_of(u), (u, kappa), "The error is concave where it is positive." + note),
        "K(u)": Target("inflections", K_of(u), (u,), "An inflection at u if this is kappa^2." + note),
        "K'(u)": Target("transition", sp.Derivative(K_of(u), u), (u,), "Vanishes where two inflections meet." + note),
        "chi(u) balanced": Target("balanced curvature", chi_of(u_positive), (u_positive,), "Valid for u > 0." + note),
    }
    return Derivation("inflection", loss, f"Inflections of the error curve, {loss} loss", chain.steps, targets)


def _moving(logit: sp.Symbol, rate: sp.Expr, known: Known) -> tuple[sp.Expr, sp.Expr]:
    """de/dt and d2e/dt2 where d(logit)/dt = rate, by the chain rule on e(u(t))."""
    error = known(e_of(u)).subs(u, u_of(t))
    speed = rate.subs(logit, u_of(t))
    first = sp.diff(error, t).subs(sp.Derivative(u_of(t), t), speed)
    second = sp.diff(first, t).subs(sp.Derivative(u_of(t), t), speed)
    return first.subs(u_of(t), logit), second.subs(u_of(t), logit)


def _rational(expression: sp.Expr) -> sp.Expr:
    """`expression` with e^u as a letter: what then vanishes does so as a rational function, which is quick to see."""
    return expression.subs(sp.exp(u), x_var)


def _factored(expression: sp.Expr) -> sp.Expr:
    return sp.factor(_rational(sp.expand(expression))).subs(x_var, sp.exp(u))


def _error(chain: Chain, loss: str) -> None:
    (error,) = sp.solve(sp.Eq(sp.log((1 - m) / m), u), m)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        value = own(e_of(u))
        return [sp.exp(u) * value - (1 - value)]

    chain.add(
        "error",
        "The error is the probability of the wrong label; its log-odds are minus the logit.",
        equal(e_of(u), sp.simplify(error)),
        verify,
    )
    first, _ = _moving(u, while_learning(chain.known(du_dt, GENERAL)), chain.known)
    chain.add(
        "speed of the error",
        "By the chain rule the error falls as fast as the logit rises, times e (1 - e).",
        equal(sp.Derivative(e_of(t), t), _factored(first)),
        lambda own, earlier: [
            _rational(
                own(sp.Derivative(e_of(t), t))
                + earlier(e_of(u)) * (1 - earlier(e_of(u))) * while_learning(earlier(du_dt, GENERAL))
            )
        ],
        domain=LOGIT_RANGE[loss],
    )


def _bend(residual: sp.Expr, known: Known) -> sp.Expr:
    """chi: the logarithmic derivative in u of e (1 - e) g sqrt(kappa^2 + u^2), in partial fractions."""
    error = known(e_of(u))
    slopes = [sp.cancel(_rational(sp.diff(factor, u) / factor)) for factor in (error * (1 - error), residual)]
    bend = sp.expand(sum((sp.apart(slope, x_var) for slope in slopes), sp.S.Zero))
    return bend.subs(x_var, sp.exp(u)) + u / (kappa**2 + u**2)


def _curvature(chain: Chain, loss: str) -> None:
    residual = while_learning(chain.known(g(m))).subs(m, u)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiated twice in time, along the whole of the mode equation.
        error, rate = earlier(e_of(u)), while_learning(earlier(du_dt, GENERAL))
        _, second = _moving(u, rate, earlier)
        claimed = own(sp.Derivative(e_of(t), (t, 2))).subs({chi_of(u): own(chi_of(u)), e_of(u): error, du_dt: rate})
        return [_rational(claimed / rate**2 - second / rate**2)]

    chain.add(
        "curvature",
        "The second derivative has the sign of minus chi, the logarithmic derivative of that speed along the "
        "logit: the error is concave where chi is positive and convex where it is negative.",
        (
            equal(chi_of(u), _bend(residual, chain.known)),
            equal(sp.Derivative(e_of(t), (t, 2)), -chi_of(u) * e_of(u) * (1 - e_of(u)) * du_dt**2),
        ),
        verify,
        domain=LOGIT_RANGE[loss],
        reference="(5.1)",
    )


def _level(chain: Chain, loss: str) -> None:
    level = sp.Symbol("level", positive=True)
    bend = chain.known(chi_of(u)).subs(kappa**2, level)
    rest = bend - u / (level + u**2)  # free of kappa
    square = _factored(-u / rest) - u**2

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Multiplied out: chi (kappa^2 + u^2) is of first degree in kappa^2, so that there is no other zero.
        claimed = own(K_of(u))
        polynomial = sp.cancel(earlier(chi_of(u)) * (kappa**2 + u**2))
        return [_rational(polynomial.subs(kappa, sp.sqrt(claimed)))]

    chain.add(
        "inflections",
        "chi vanishes at the logit u for one kappa: the inflections are the points where K(u) is kappa squared.",
        equal(K_of(u), square),
        verify,
        domain=LOGIT_RANGE[loss],
        reference="(5.2)",
    )

    slope = sp.Derivative(K_of(u), u)

    def verify_slope(own: Known, earlier: Known) -> list[sp.Expr]:
        # Another way than the quotient rule: K keeps chi at zero, so chi_u + chi_(kappa^2) K' = 0 there.
        bend = earlier(chi_of(u)).subs(kappa**2, level)
        implicit = sp.diff(bend, u) + sp.diff(bend, level) * own(slope)
        return [_rational(implicit.subs(level, earlier(K_of(u))))]

    chain.add(
        "transition",
        "Two inflections meet where K is stationary; kappa_c, beyond which they are gone, is the root of K there.",
        equal(slope, _factored(sp.diff(square, u))),
        verify_slope,
        domain=LOGIT_RANGE[loss],
        reference="(5.2)",
    )


def _balanced(chain: Chain, loss: str) -> None:
    bend = chain.known(chi_of(u)).subs({kappa: 0, u: u_positive})

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        error, rate = earlier(e_of(u)).subs(u, u_positive), while_learning(earlier(du_dt, BALANCED))
        _, second = _moving(u_positive, rate, earlier)
        return [_rational((own(chi_of(u_positive)) * error * (1 - error) + second / rate**2).subs(u_positive, u))]

    chain.add(
        "balanced curvature",
        "With kappa = 0 one inflection is left, where chi vanishes: before it the curve is concave, after it convex.",
        equal(chi_of(u_positive), bend),
        verify,
        domain=LOGIT_RANGE[loss],
        reference="(5.1)",
    )
