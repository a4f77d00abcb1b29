"""From the mode equation to closed forms, loss by loss.

Every function here continues a chain that ends with the mode equation (3.4) and its balanced limit, and
returns the named results it adds. Cross-entropy and the exponential loss have a closed t(u) but no
elementary u(t); the hinge has both; the squared loss gives a Riccati equation, hence both as well.
"""

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from gradstarve.symbolic._chain import (
    BALANCED,
    GENERAL,
    Chain,
    du_dt,
    equal,
    inverts_flow,
    residual_at,
    solves_flow,
    while_learning,
)
from gradstarve.symbolic._checks import Domain
from gradstarve.symbolic._derivation import Known, Target
from gradstarve.symbolic._mode_squared import squared_targets
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    kappa,
    p,
    phi,
    r,
    t,
    t_of,
    t_star,
    theta,
    theta0,
    u,
    u0,
    u0_positive,
    u_of,
    u_positive,
    v_positive,
)


def smooth_targets(chain: Chain, *, loss: str) -> dict[str, Target]:
    """Cross-entropy and exponential loss: t on the angle, and with Ei in the balanced limit."""
    # v = kappa sinh(phi) takes the square root away; what then does not depend on phi integrates at once.
    inverse = sp.expand(sp.simplify(1 / residual_at(chain.known, kappa * sp.sinh(phi))))
    constant, rest = inverse.as_independent(phi, as_Add=True)
    time = constant * (theta - theta0) + sp.Integral(rest, (phi, theta0, theta))

    def verify_angle(own: Known, earlier: Known) -> list[sp.Expr]:
        rate = earlier(du_dt, GENERAL).subs(u, kappa * sp.sinh(theta)) / (kappa * sp.cosh(theta))
        return inverts_flow(own(t_of(theta)), rate, theta, theta0)

    chain.add(
        "time from angle",
        "With the angle as variable, where the logit is kappa sinh theta, the square root disappears from the time.",
        equal(t_of(theta), time / (2 * p * r)),
        verify_angle,
        reference="(3.7)" if loss == "cross-entropy" else "",
    )
    _balanced_time(chain, loss, "(3.7)" if loss == "cross-entropy" else "(3.8)")
    return {
        "t(u)": Target("time from logit", t_of(u), (u, p, r, kappa, u0)),
        "t(theta)": Target("time from angle", t_of(theta), (theta, p, r, kappa, theta0)),
        "t(u) balanced": _BALANCED_TIME,
    }


_BALANCED_TIME = Target("balanced time", t_of(u_positive), (u_positive, p, r, u0_positive), "Valid for u0, u > 0.")


def _balanced_time(chain: Chain, loss: str, reference: str) -> None:
    rate = while_learning(chain.known(du_dt, BALANCED)).subs(u_positive, v_positive)
    primitive = sp.integrate(sp.expand(2 * p * r / rate), v_positive)
    time = (primitive.subs(v_positive, u_positive) - primitive.subs(v_positive, u0_positive)) / (2 * p * r)
    chain.add(
        "balanced time",
        "In the balanced limit the time is integrated by SymPy and checked by differentiation.",
        equal(t_of(u_positive), time),
        lambda own, earlier: inverts_flow(own(t_of(u_positive)), earlier(du_dt, BALANCED), u_positive, u0_positive),
        domain=LOGIT_RANGE[loss],
        reference=reference,
    )


def hinge_targets(chain: Chain) -> dict[str, Target]:
    """Hinge loss: exponential growth of the angle until the margin is reached, then rest."""
    start = sp.asinh(u0 / kappa)
    rate = while_learning(chain.known(du_dt, GENERAL))
    primitive = sp.integrate(sp.expand(2 * p * r / rate.subs(u, v_positive)), v_positive).subs(v_positive, u)
    domain = LOGIT_RANGE["hinge"]
    chain.add(
        "closed time",
        "While the margin is not reached the residual is 1 and the integral is an inverse hyperbolic sine.",
        (equal(theta0, start), equal(t_of(u), (primitive - theta0) / (2 * p * r))),
        lambda own, earlier: inverts_flow(own(t_of(u)).subs(theta0, own(theta0)), earlier(du_dt, GENERAL), u, u0),
        domain=domain,
        reference="(3.6)",
    )
    (growth,) = sp.solve(sp.Eq(chain.known(t_of(u)), t), u)

    def with_start(expression: sp.Expr, known: Known) -> sp.Expr:
        return expression.subs(theta0, known(theta0, "closed time"))

    chain.add(
        "growth",
        "Solved for the logit: before the margin is reached the angle grows at a constant rate.",
        equal(u_of(t), growth),
        lambda own, earlier: solves_flow(with_start(own(u_of(t)), earlier), earlier(du_dt, GENERAL), u, u0),
        # Small times and low starts: these points are all on the near side of the margin.
        domain={
            u0: (-2, 0),
            t: (0, sp.Rational(1, 10)),
            kappa: (sp.Rational(1, 10), 1),
            p: (0, 1),
            r: (0, 1),
        },
        reference="(3.6)",
    )
    (arrival,) = sp.solve(sp.Eq(chain.known(t_of(u)).subs(u, 1), t_star), t_star)
    add_rest(
        chain,
        "arrival and rest",
        arrival,
        growth,
        "growth",
        GENERAL,
        (u, u0),
        with_start,
    )

    _balanced_time(chain, "hinge", "(3.6)")
    (growth,) = sp.solve(sp.Eq(chain.known(t_of(u_positive)), t), u_positive)
    chain.add(
        "balanced growth",
        "In the balanced limit the logit itself grows exponentially until the margin is reached.",
        equal(u_of(t), sp.simplify(growth)),
        lambda own, earlier: solves_flow(own(u_of(t)), earlier(du_dt, BALANCED), u_positive, u0_positive),
        domain={u0_positive: (0, sp.Rational(1, 2)), t: (0, sp.Rational(1, 4)), p: (0, 1), r: (0, 1)},
        reference="(3.6)",
    )
    arrival = chain.known(t_of(u_positive)).subs(u_positive, 1)
    add_rest(
        chain,
        "balanced arrival and rest",
        arrival,
        chain.known(u_of(t)),
        "balanced growth",
        BALANCED,
        (u_positive, u0_positive),
        lambda expression, _: expression,
    )
    general, balanced = (t, p, r, kappa, u0), (t, p, r, u0_positive)
    return {
        "t(u)": Target("closed time", t_of(u), (u, p, r, kappa, u0), "Valid for u <= 1."),
        "t*": Target("arrival and rest", t_star, (p, r, kappa, u0), "Valid for u0 <= 1."),
        "u(t)": Target("arrival and rest", u_of(t), general, "Valid for every u0; above 1 nothing moves."),
        "t(u) balanced": _BALANCED_TIME,
        "t* balanced": Target("balanced arrival and rest", t_star, (p, r, u0_positive), "Valid for 0 < u0 <= 1."),
        "u(t) balanced": Target("balanced arrival and rest", u_of(t), balanced, "Valid for u0 > 0."),
    }


def add_rest(
    chain: Chain,
    name: str,
    arrival: sp.Expr,
    growth: sp.Expr,
    growth_step: str,
    equation_step: str,
    symbols: tuple[sp.Symbol, sp.Symbol],
    with_start: Callable[[sp.Expr, Known], sp.Expr],
    domain: Domain | None = None,
    reference: str = "(3.6)",
) -> None:
    """Add the step that joins growth and rest under the hinge loss; `symbols` are the logit and its start."""
    logit, start = symbols
    # A start beyond the margin has a negative arrival time; the maximum keeps it at rest where it is.
    curve = growth.subs(t, sp.Min(t, sp.Max(0, t_star)))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        when = with_start(own(t_star), earlier)
        whole = with_start(own(u_of(t)).subs(t_star, when), earlier)
        rising = with_start(earlier(u_of(t), growth_step), earlier)
        beyond = start + 3
        return [
            rising.subs(t, when) - 1,  # the margin is reached at t*,
            whole.subs(t, when / 2) - rising.subs(t, when / 2),  # grown towards before,
            whole.subs(t, when + t) - 1,  # kept after,
            *solves_flow(whole, earlier(du_dt, equation_step), logit, start),
            whole.subs(start, beyond) - beyond,  # and never left by a start beyond it.
        ]

    chain.add(
        name,
        "The margin 1 is reached at the time t*; the residual is zero from there on and the logit stays.",
        (equal(t_star, arrival), equal(u_of(t), curve)),
        verify,
        domain={start: (sp.Rational(-3, 2) if start == u0 else sp.Rational(1, 10), sp.Rational(19, 20)), **(domain or {})},
        reference=reference,
    )


CLOSED_FORMS: dict[str, Callable[[Chain], dict[str, Target]]] = {
    "cross-entropy": lambda chain: smooth_targets(chain, loss="cross-entropy"),
    "hinge": hinge_targets,
    "exponential": lambda chain: smooth_targets(chain, loss="exponential"),
    "squared": squared_targets,
}
"""Loss -> the function that continues the chain for it."""
