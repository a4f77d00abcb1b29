"""From the mode equation to closed forms, squared loss: a Riccati equation, solved by linearising it."""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalOperand=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import BALANCED, GENERAL, Chain, du_dt, equal, expanded, inverts_flow, solves_flow
from gradstarve.symbolic._checks import open_roots
from gradstarve.symbolic._derivation import Known, Target
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    A,
    B,
    T_var,
    kappa,
    omega,
    p,
    r,
    t,
    t_of,
    tau,
    theta0,
    u,
    u0,
    u0_positive,
    u_of,
    u_positive,
    x_of,
    x_var,
    y_of,
)


def squared_targets(chain: Chain) -> dict[str, Target]:
    """Squared loss: a Riccati equation in x = e^{2s}, linearised, solved; a logistic curve if balanced."""
    _riccati(chain)
    _linear_solution(chain)
    _squared_curves(chain)
    _balanced_logistic(chain)
    general = (t, p, r, kappa, u0)
    return {
        "u(t)": Target("closed logit", u_of(t), general, "Valid for every u0, kappa > 0."),
        "t(u)": Target("closed time", t_of(u), (u, p, r, kappa, u0), "Valid for u0, u on one side of 1."),
        "u(t) balanced": Target("balanced logistic", u_of(t), (t, p, r, u0_positive), "Valid for u0 > 0."),
        "t(u) balanced": Target(
            "balanced logistic",
            t_of(u_positive),
            (u_positive, p, r, u0_positive),
            "Valid for u0, u > 0, both on one side of 1.",
        ),
    }


def _letters(known: Known) -> dict[sp.Basic, sp.Expr]:
    """theta0, A, B, omega, each in terms of those before it and of u0, kappa."""
    return {
        theta0: known(theta0, "exponential variable"),
        A: known(A, "exponential variable"),
        B: known(B, "exponential variable"),
    }


def _riccati(chain: Chain) -> None:
    split = sp.expand((kappa * sp.sinh(theta0 + sp.log(x_var))).rewrite(sp.exp))
    rising, falling = split.coeff(x_var, 1), -split.coeff(x_var, -1)

    def verify_variable(own: Known, _: Known) -> list[sp.Expr]:
        logit = own(u_of(x_var)).subs({A: own(A), B: own(B)})
        return [logit - kappa * sp.sinh(theta0 + sp.log(x_var)), kappa * sp.sinh(own(theta0)) - u0]

    chain.add(
        "exponential variable",
        "In the variable x = exp(2s), which starts at 1, the logit is a first power minus an inverse one.",
        (
            equal(theta0, sp.asinh(u0 / kappa)),
            equal(A, rising),
            equal(B, falling),
            equal(u_of(x_var), A * x_var - B / x_var),
        ),
        verify_variable,
    )

    # dx/dtau = (du/dtau) / (du/dx), tau = 2 p r t, kappa^2 = 4 A B, so kappa^2 + u^2 is the square of A x +
    # B/x.
    logit = chain.known(u_of(x_var))
    amplitude = 2 * sp.sqrt(A * B)
    speed = chain.known(du_dt, GENERAL).subs({kappa: amplitude, u: logit}, simultaneous=True) / (2 * p * r)
    rate = sp.expand(sp.simplify(open_roots(speed) / sp.diff(logit, x_var)))

    def verify_riccati(own: Known, earlier: Known) -> list[sp.Expr]:
        position = earlier(u_of(x_var))
        claimed = own(sp.Derivative(x_of(tau), tau)) * sp.diff(position, x_var) * 2 * p * r
        expected = earlier(du_dt, GENERAL).subs({u: position, kappa: amplitude}, simultaneous=True)
        return [claimed - expected, earlier(A) * earlier(B) - kappa**2 / 4]

    chain.add(
        "Riccati equation",
        "In rescaled time tau = 2 p r t the mode equation becomes a Riccati equation with constant coefficients.",
        equal(sp.Derivative(x_of(tau), tau), rate),
        verify_riccati,
    )


def _linear_solution(chain: Chain) -> None:
    y = y_of(tau)
    rate = chain.known(sp.Derivative(x_of(tau), tau))
    # Insert x = y'/(A y) and solve for y'': the square cancels.
    second = sp.Symbol("second")
    slope, value = sp.symbols("slope value", positive=True)
    balance = (second / (A * value) - slope**2 / (A * value**2)) - rate.subs(x_var, slope / (A * value))
    (linear,) = sp.solve(balance, second)
    linear = sp.expand(linear).subs({slope: sp.Derivative(y, tau), value: y}, simultaneous=True)

    def verify_linear(own: Known, earlier: Known) -> list[sp.Expr]:
        position = own(x_of(tau))
        law = earlier(sp.Derivative(x_of(tau), tau)).subs(x_var, position)
        defect = (sp.diff(position, tau) - law).subs(sp.Derivative(y, (tau, 2)), own(sp.Derivative(y, (tau, 2))))
        return [sp.simplify(defect.subs({sp.Derivative(y, tau): slope, y: value}))]

    chain.add(
        "linearisation",
        "Written as a logarithmic derivative, x turns the Riccati equation into a linear one.",
        (
            equal(x_of(tau), sp.Derivative(y, tau) / (A * y)),
            equal(sp.Derivative(y, (tau, 2)), linear),
        ),
        verify_linear,
    )

    # With 4 A B = omega^2 - 1 the exponents are (1 +- omega)/2.
    spread = sp.sqrt(1 + kappa**2)
    law = sp.Eq(sp.Derivative(y, (tau, 2)), linear.subs(B, (omega**2 - 1) / (4 * A)))
    initial = {y.subs(tau, 0): 1, sp.Derivative(y, tau).subs(tau, 0): A}
    solution = sp.dsolve(law, y, ics=initial).rhs

    def verify_solution(own: Known, earlier: Known) -> list[sp.Expr]:
        curve = own(y)
        law = earlier(sp.Derivative(y, (tau, 2)))
        defect = sp.diff(curve, tau, 2) - law.subs(sp.Derivative(y, tau), sp.diff(curve, tau)).subs(y, curve)
        slope = earlier(x_of(tau)).subs(sp.Derivative(y, tau), sp.diff(curve, tau)).subs(y, curve)
        residuals = [defect, curve.subs(tau, 0) - 1, slope.subs(tau, 0) - 1]
        return [expanded(residual, _letters(earlier) | {omega: own(omega)}) for residual in residuals]

    chain.add(
        "linear solution",
        "The linear equation has two exponents, half of 1 plus and minus omega; x starts at 1.",
        (equal(omega, spread), equal(y, solution)),
        verify_solution,
    )


def _squared_curves(chain: Chain) -> None:
    known = chain.known
    solution = known(y_of(tau))
    # y'/(A y), written with T = tanh(omega tau / 2): divide both by exp(tau/2) cosh(omega tau / 2).
    grown = sp.Symbol("grown", positive=True)  # exp(omega tau), equal to (1 + T)/(1 - T)
    scale = sp.exp(-tau * (1 - omega) / 2)
    parts = [sp.expand(sp.simplify(part * scale)) for part in (sp.diff(solution, tau), A * solution)]
    parts = [part.subs(sp.exp(omega * tau), grown).subs(grown, (1 + T_var) / (1 - T_var)) for part in parts]
    fraction = [sp.expand(part * (1 - T_var) * 2 * omega / A) for part in map(sp.cancel, parts)]
    # Even powers of omega beyond the first are 1 + 4 A B in disguise.
    square = sp.Poly(omega**2 - 1 - 4 * A * B, omega)
    top, bottom = (sp.expand(sp.cancel(part)) for part in fraction)
    top, bottom = (sp.Poly(sp.expand(part * A), omega).rem(square).as_expr() / A for part in (top, bottom))
    shared = sp.gcd(sp.numer(sp.together(top)), sp.numer(sp.together(bottom)))
    top, bottom = (sp.collect(sp.expand(sp.cancel(part / shared)), T_var) for part in (top, bottom))
    position = top / bottom

    def letters(earlier: Known) -> dict[sp.Basic, sp.Expr]:
        return _letters(earlier) | {omega: earlier(omega)}

    def verify_logit(own: Known, earlier: Known) -> list[sp.Expr]:
        curve = expanded(own(u_of(t)), letters(earlier) | {T_var: own(T_var), x_var: own(x_var)})
        return solves_flow(curve, earlier(du_dt, GENERAL), u, u0)

    chain.add(
        "closed logit",
        "The quotient of the two exponentials is a quotient of first-degree polynomials in T, a "
        "hyperbolic tangent of time; its denominator never vanishes.",
        (
            equal(T_var, sp.tanh(omega * p * r * t)),
            equal(x_var, position),
            equal(u_of(t), known(u_of(x_var))),
        ),
        verify_logit,
    )

    # Backwards: x from the angle of u, and T from x is linear.
    forward = sp.exp(sp.asinh(u / kappa) - theta0)
    (tangent,) = sp.solve(sp.numer(sp.together(position - x_var)), T_var)

    def verify_time(own: Known, earlier: Known) -> list[sp.Expr]:
        values = letters(earlier) | {x_var: own(x_var), T_var: own(T_var)}
        # Order matters: T is written in x, x in A.
        values = {k: values[k] for k in (theta0, A, B, omega, x_var, T_var)}
        return inverts_flow(expanded(own(t_of(u)), values), earlier(du_dt, GENERAL), u, u0)

    chain.add(
        "closed time",
        "Solved for the time: x from the logit, T from x, the time from T.",
        (
            equal(x_var, forward),
            equal(T_var, sp.factor(tangent)),
            equal(t_of(u), sp.atanh(T_var) / (omega * p * r)),
        ),
        verify_time,
        domain=LOGIT_RANGE["squared"],
    )


def _balanced_logistic(chain: Chain) -> None:
    # kappa -> 0 with u0 > 0: A -> u0, B -> 0, and x obeys a logistic equation, linear in 1/x.
    inverse = sp.Function("inverse")
    rate = chain.known(sp.Derivative(x_of(tau), tau)).subs({B: 0, A: u0_positive})
    linear = sp.expand(sp.simplify(-rate.subs(x_var, 1 / x_var) * x_var**2)).subs(x_var, inverse(tau))
    solved = sp.dsolve(sp.Eq(sp.Derivative(inverse(tau), tau), linear), inverse(tau), ics={inverse(0): 1}).rhs
    curve = 1 / sp.expand(sp.expand(solved / u0_positive).subs(tau, 2 * p * r * t))
    decay = sp.Symbol("decay", positive=True)  # exp(-2 p r t), in which 1/u is linear
    (decayed,) = sp.solve(sp.expand(1 / curve).subs(sp.exp(-2 * p * r * t), decay) - 1 / u_positive, decay)
    time = -sp.log(sp.factor(decayed)) / (2 * p * r)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rate = earlier(du_dt, BALANCED)
        return [
            *solves_flow(own(u_of(t)), rate, u_positive, u0_positive),
            *inverts_flow(own(t_of(u_positive)), rate, u_positive, u0_positive),
        ]

    chain.add(
        "balanced logistic",
        "In the balanced limit the curve is the logistic function of Saxe, McClelland and Ganguli (2013).",
        (equal(u_of(t), curve), equal(t_of(u_positive), time)),
        verify,
        domain=LOGIT_RANGE["squared"],
        reference="(3.8)",
    )
