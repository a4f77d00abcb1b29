"""One mode of a hidden ReLU layer: from the network and the loss to du/dt = 2 p r g(u) sqrt(kappa^2 + u^2).

The setting (arXiv:1809.06848): the points of one class share a direction xh (unit vector) and a norm r; p
is their total weight; the sign of the read-out is oriented so that the label is y = +1, so the margin
equals the logit u. Two neurons in two dimensions stand for any number of both: every sum over neurons below
is linear in the neurons, and every direction across xh behaves like the one kept here.

Equation numbers are this project's own. The closed forms that follow from the mode equation stand here
too.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from gradstarve.symbolic._derivation import (
    BALANCED,
    GENERAL,
    Chain,
    Derivation,
    Domain,
    Known,
    Target,
    du_dt,
    equal,
    expanded,
    inverts_flow,
    open_roots,
    residual_at,
    solves_flow,
    while_learning,
    without_g,
)
from gradstarve.symbolic._losses import LOSSES, SymbolicLoss, residual_of
from gradstarve.symbolic._notation import (
    ACROSS,
    DIRECTION,
    LOGIT_RANGE,
    A,
    B,
    M_minus,
    M_plus,
    P,
    Q,
    T_var,
    W,
    a,
    a_of,
    b,
    b_of,
    ell,
    g,
    kappa,
    m,
    network,
    omega,
    p,
    phi,
    r,
    s,
    s_dead,
    s_of,
    t,
    t_of,
    t_star,
    tau,
    theta,
    theta0,
    theta_of,
    u,
    u0,
    u0_positive,
    u_of,
    u_positive,
    v,
    v_positive,
    x_of,
    x_var,
    y_of,
    z,
    z_of,
)

# One mode of a hidden ReLU layer, first part: from the network and the loss to the gradient flow.
#
# Two neurons in two dimensions stand for any number of both: every sum over neurons is linear in the neurons,
# and every direction across the class behaves like the one kept here.

NEURONS = (0, 1)

NOW = {a_of[j](t): a[j] for j in NEURONS} | {b_of[j](t): b[j] for j in NEURONS} | {z_of[j](t): z[j] for j in NEURONS}
"""Coordinates at time t -> plain symbols: residuals are evaluated at an arbitrary moment of the flow."""

LATER = {symbol: function for function, symbol in NOW.items()}
"""The way back."""

NAMES = {symbol: function.func for function, symbol in NOW.items()}
"""Symbol of a coordinate -> the function of the same name."""


def add_network(chain: Chain) -> None:
    point = r * DIRECTION
    output = sum((z[j] * sp.Max(0, (W.row(j) * point)[0]) for j in NEURONS), sp.S.Zero)

    def verify_network(own: Known, _: Known) -> list[sp.Expr]:
        hidden = (W * point).applyfunc(lambda value: sp.Max(0, value))
        return [own(network) - (sp.Matrix([z]) * hidden)[0]]

    chain.add(
        "network",
        "The network is a sum over neurons of read-out times rectified input; the class lies along one "
        "direction, at angle alpha, with norm r.",
        equal(network, output),
        verify_network,
        reference="(1.1)",
    )

    split = {j: a[j] * DIRECTION + b[j] * ACROSS for j in NEURONS}
    weights = {W[j, i]: split[j][i] for j in NEURONS for i in (0, 1)}
    logit = sp.simplify(output.subs(weights))

    def verify_logit(own: Known, earlier: Known) -> list[sp.Expr]:
        rows = [sp.Matrix([own(W[j, 0]), own(W[j, 1])]) for j in NEURONS]
        substituted = earlier(network).subs({W[j, i]: rows[j][i] for j in NEURONS for i in (0, 1)})
        along = [rows[j].dot(DIRECTION) - a[j] for j in NEURONS]
        across = [rows[j].dot(ACROSS) - b[j] for j in NEURONS]
        return [substituted - own(u), *along, *across]

    chain.add(
        "active side",
        "Split each weight vector along the class (a > 0: the neuron is active) and across it (b): the logit "
        "depends on the first part only.",
        (*(equal(weight, value) for weight, value in weights.items()), equal(u, logit)),
        verify_logit,
    )


def add_loss(chain: Chain, loss: SymbolicLoss) -> None:
    chain.add("loss", loss.claim, equal(ell(m), loss.value), lambda own, _: loss.characterise(own(ell(m))))
    chain.add(
        "residual",
        "The residual is minus the slope of the loss.",
        equal(g(m), residual_of(loss.value)),
        lambda own, earlier: [own(g(m)) + sp.diff(earlier(ell(m)), m)],
    )


def add_flow(chain: Chain) -> None:
    logit = chain.known(u)

    def speed(coordinate: sp.Symbol) -> sp.Expr:
        # Chain rule on p l(u): -p l'(u) du/d(coordinate).
        return (p * g(u_of(t)) * sp.diff(logit, coordinate)).subs(LATER)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The other way round: differentiate the loss of the network itself in the weights w, then project.
        loss = p * earlier(ell(m)).subs(m, earlier(network))
        weights = {weight: earlier(weight) for weight in W}
        residuals = []
        for j in NEURONS:
            pull = sp.Matrix([-sp.diff(loss, W[j, i]) for i in (0, 1)])
            for functions, force in (
                (a_of, pull.dot(DIRECTION)),
                (b_of, pull.dot(ACROSS)),
                (z_of, -sp.diff(loss, z[j])),
            ):
                claimed = own(sp.Derivative(functions[j](t), t)).subs(NOW).subs(u_of(t), earlier(u))
                residuals.append(without_g(claimed, earlier) - force.subs(weights))
        return residuals

    chain.add(
        "gradient flow",
        "Steepest descent of the loss p l(u) in the weights: the parts along the class and the read-outs "
        "feed each other; the parts across the class do not move.",
        tuple(
            equal(sp.Derivative(functions[j](t), t), speed(symbols[j]))
            for j in NEURONS
            for functions, symbols in ((a_of, a), (b_of, b), (z_of, z))
        ),
        verify,
        reference="(1.2)",
    )


def _velocity(known: Known) -> dict[sp.Basic, sp.Expr]:
    """d/dt of every coordinate from the gradient flow, g written out, at an arbitrary moment."""
    rates = {sp.Derivative(function, t): known(sp.Derivative(function, t), "gradient flow") for function in NOW}
    return {rate: without_g(value.subs(NOW).subs(u_of(t), known(u)), known) for rate, value in rates.items()}


def logit_speed(known: Known) -> sp.Expr:
    """du/dt from the speeds of the neurons, at an arbitrary moment."""
    logit = known(u, "active side").subs(LATER)
    return sp.diff(logit, t).subs(_velocity(known)).subs(NOW)


def add_balance(chain: Chain) -> None:
    def energy(functions: bool, j: int) -> sp.Expr:
        first, across, out = (a_of[j](t), b_of[j](t), z_of[j](t)) if functions else (a[j], b[j], z[j])
        return first**2 + across**2 - out**2

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        speeds = _velocity(earlier)
        drift = [sp.diff(e.lhs, t).subs(speeds).subs(NOW) for e in own.equations]
        return drift + [e.lhs.subs(NOW) - e.rhs for e in own.equations]

    chain.add(
        "balance",
        "For each neuron the squared length of the weight vector minus the squared read-out keeps its first value.",
        tuple(equal(energy(True, j), energy(False, j)) for j in NEURONS),
        verify,
        reference="(1.3)",
    )


# From the mode equation to closed forms, squared loss: a Riccati equation, solved by linearising it.


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


# From the mode equation to closed forms, loss by loss.
#
# Every function here continues a chain that ends with the mode equation (3.4) and its balanced limit, and
# returns the named results it adds. Cross-entropy and the exponential loss have a closed t(u) but no
# elementary u(t); the hinge has both; the squared loss gives a Riccati equation, hence both as well.


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


# The derivation.


def build(loss: str) -> Derivation:
    """Derive the law of one mode for the loss of that name; see `gradstarve.symbolic.derive`."""
    chain = Chain()
    add_network(chain)
    add_loss(chain, LOSSES[loss])
    add_flow(chain)
    add_balance(chain)
    _clock(chain)
    _logit_on_the_clock(chain)
    _amplitude_and_angle(chain)
    _sums_and_differences(chain)
    _deaths(chain)
    _mode_equation(chain)
    _time_integral(chain, loss)
    _balanced_equation(chain)
    targets = {
        "kappa": Target("sums and differences", kappa, (r, M_plus, M_minus)),
        "u(s)": Target("sums and differences", u_of(s), (s, r, M_plus, M_minus)),
        "theta(s)": Target("sums and differences", theta_of(s), (s, M_plus, M_minus)),
        "death clock": Target("deaths", s_dead, (a[0], z[0]), "Valid for z1 < -a1 < 0."),
        "du/dt": Target("mode equation", du_dt, (u, p, r, kappa)),
        "t(u) integral": Target("time from logit", t_of(u), (u, p, r, kappa, u0), "Valid while g > 0 from u0 to u."),
        "du/dt balanced": Target("balanced equation", du_dt, (u_positive, p, r)),
    } | CLOSED_FORMS[loss](chain)
    return Derivation("mode", loss, f"One mode of a hidden ReLU layer, {loss} loss", chain.steps, targets)


def _clock(chain: Chain) -> None:
    exchange = sp.Matrix([[0, 1], [1, 0]])  # d/ds (a, z) = (z, a)
    rotation = sp.simplify((exchange * s).exp())
    moved = {j: rotation * sp.Matrix([a[j], z[j]]) for j in NEURONS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        tick = without_g(own(sp.Derivative(s_of(t), t)).subs(u_of(t), u), earlier)
        residuals = []
        for j in NEURONS:
            on_clock = {functions[j](t): own(functions[j](s)) for functions in (a_of, z_of)}
            for functions, start in ((a_of, a), (z_of, z)):
                rate = without_g(earlier(sp.Derivative(functions[j](t), t)).subs(u_of(t), u), earlier)
                value = own(functions[j](s))
                # Multiplied out rather than divided by the tick, which the hinge loss lets vanish.
                residuals += [rate.subs(on_clock) - tick * sp.diff(value, s), value.subs(s, 0) - start[j]]
        return residuals

    chain.add(
        "clock",
        "Measured on a clock s that ticks at rate p r g(u), every neuron obeys the same linear system, "
        "whose matrix exponential is a hyperbolic rotation; a and z without argument are the first "
        "values.",
        (
            equal(sp.Derivative(s_of(t), t), p * r * g(u_of(t))),
            *(equal(functions[j](s), moved[j][i]) for j in NEURONS for i, functions in enumerate((a_of, z_of))),
        ),
        verify,
        reference="(3.1)",
    )


def _exponential_parts(logit: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(alpha, beta) with logit = alpha e^{2s} + beta e^{-2s}."""
    power = sp.Symbol("power", positive=True)
    series = sp.expand(sp.expand(logit.rewrite(sp.exp)).subs(s, sp.log(power)))
    return series.coeff(power, 2), series.coeff(power, -2)


def _logit_on_the_clock(chain: Chain) -> None:
    logit = chain.known(u).subs({x: chain.known(NAMES[x](s)) for x in (*a, *z)}, simultaneous=True)
    rising, falling = _exponential_parts(logit)
    # alpha e^{2s} + beta e^{-2s} = (alpha + beta) cosh 2s + (alpha - beta) sinh 2s.
    first = sp.collect(sp.expand((rising + falling) / r), a)
    second = sp.expand((rising - falling) / r)

    chain.add(
        "logit on the clock",
        "Put into the logit, the hyperbolic rotation leaves two numbers of the initial weights: P and Q, "
        "sums over the neurons.",
        (
            equal(P, first),
            equal(Q, second),
            equal(u_of(s), r * (P * sp.cosh(2 * s) + Q * sp.sinh(2 * s))),
        ),
        lambda own, earlier: [
            own(u_of(s)).subs({P: own(P), Q: own(Q)})
            - earlier(u).subs({symbol: earlier(NAMES[symbol](s)) for symbol in (*a, *z)}, simultaneous=True)
        ],
        reference="(3.2)",
    )


def _sums(known: Known) -> dict[sp.Basic, sp.Expr]:
    return {P: known(P), Q: known(Q)}


def _amplitude_and_angle(chain: Chain) -> None:
    # Match kappa sinh(2s + theta0) with r (P cosh 2s + Q sinh 2s): kappa sinh theta0 = r P, kappa cosh
    # theta0 = r Q.
    sine, cosine = r * P, r * Q
    amplitude = sp.simplify(sp.sqrt(sp.factor(cosine**2 - sine**2)))
    angle = 2 * s + sp.atanh(sine / cosine)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed = own(u_of(s)).subs(theta_of(s), own(theta_of(s))).subs(kappa, own(kappa))
        return [claimed - earlier(u_of(s))]

    chain.add(
        "amplitude and angle",
        "The logit is one hyperbolic sine, of amplitude kappa and of an angle theta that advances twice "
        "as fast as the clock.",
        (
            equal(kappa, amplitude),
            equal(theta_of(s), angle),
            equal(u_of(s), kappa * sp.sinh(theta_of(s))),
        ),
        verify,
        domain={P: (-1, 1), Q: (1, 2)},  # Q > |P| always, by a^2 + z^2 >= 2 |a z|
        reference="(3.3)",
    )


def _sums_and_differences(chain: Chain) -> None:
    logit = chain.known(u).subs({x: chain.known(NAMES[x](s)) for x in (*a, *z)}, simultaneous=True)
    rising, falling = _exponential_parts(logit)

    # Match with kappa (e^theta - e^-theta)/2: the product of the two parts gives kappa, their ratio theta.
    up, down = r * M_plus / 4, r * M_minus / 4

    def squares(total: sp.Expr) -> sp.Expr:
        # Factor neuron by neuron: the sums have no cross terms.
        nothing = {j: {a[j]: 0, z[j]: 0} for j in NEURONS}
        return sum((sp.factor(total.subs(nothing[1 - j])) for j in NEURONS), sp.S.Zero)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # In two small pieces rather than one large one: M+- = 2 (Q +- P) in the weights, then P, Q in M+-.
        sums = _sums(earlier)
        halves = {P: (M_plus - M_minus) / 4, Q: (M_plus + M_minus) / 4}
        links = [own(M_plus) - 2 * (sums[Q] + sums[P]), own(M_minus) - 2 * (sums[Q] - sums[P])]
        angles = own(theta_of(s)) - 2 * s, earlier(theta_of(s)) - 2 * s
        return [
            *links,
            own(u_of(s)) - earlier(u_of(s), "logit on the clock").subs(halves),
            own(kappa) - earlier(kappa).subs(halves),
            # The exponential is one-to-one, and turns the logarithm and the artanh into fractions.
            _opened(2 * angles[0]) - _opened(2 * angles[1]).subs(halves),
        ]

    chain.add(
        "sums and differences",
        "The same in the forms to compute with, which lose no digits: M plus is the sum of (a + z) "
        "squared, M minus that of (a - z) squared.",
        (
            equal(M_plus, squares(sp.expand(4 * rising / r))),
            equal(M_minus, squares(sp.expand(-4 * falling / r))),
            equal(u_of(s), up * sp.exp(2 * s) - down * sp.exp(-2 * s)),
            equal(kappa, 2 * sp.sqrt(up * down)),
            equal(theta_of(s), 2 * s + sp.log(up / down) / 2),
        ),
        verify,
        reference="(3.3)",
    )


def _opened(angle: sp.Expr) -> sp.Expr:
    return sp.exp(sp.expand(angle.rewrite(sp.log)))


def _deaths(chain: Chain) -> None:
    ratio = sp.Symbol("ratio")
    # a cosh s + z sinh s = 0 is linear in tanh s ...
    (tangent,) = sp.solve(sp.expand(chain.known(a_of[0](s)) / sp.cosh(s)).subs(sp.sinh(s), ratio * sp.cosh(s)), ratio)
    # ... and with a = 0 the balance gives the read-out, negative because it starts below -a and cannot cross.
    left = -sp.sqrt(z[0] ** 2 - a[0] ** 2)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        moment = {s: own(s_dead)}
        return [
            earlier(a_of[0](s)).subs(moment),
            earlier(z_of[0](s)).subs(moment) - own(z_of[0](s_dead)),
        ]

    chain.add(
        "deaths",
        "A neuron whose read-out starts below -a leaves the class at the clock time where a reaches zero; "
        "P and Q are then summed over the neurons left. Written for neuron 1.",
        (equal(s_dead, sp.atanh(tangent)), equal(z_of[0](s_dead), left)),
        verify,
        domain={a[0]: (sp.Rational(1, 5), sp.Rational(19, 10)), z[0]: (-4, -2)},
        reference="(3.10)",
    )


def _mode_equation(chain: Chain) -> None:
    known = chain.known
    # du/dt = kappa cosh(theta) dtheta/dt, cosh = sqrt(1 + sinh^2), dtheta/dt = 2 ds/dt.
    ticks = sp.diff(known(theta_of(s)), s) * known(sp.Derivative(s_of(t), t)).subs(u_of(t), u)
    rate = without_g(ticks, known) * sp.sqrt(kappa**2 + u**2)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed = own(du_dt)
        # Straight from the neurons, at any moment of the flow: there P and Q are those of the moment.
        straight = logit_speed(earlier)
        amplitude = earlier(kappa, "amplitude and angle")
        through_sums = claimed.subs({u: r * P, kappa: amplitude}, simultaneous=True)
        speed = 2 * p * r**2 * Q * residual_at(earlier, r * P)  # the same number, in P and Q
        # Along the clock, where kappa is the number found at the start.
        along = kappa * sp.sinh(theta)
        tick = without_g(earlier(sp.Derivative(s_of(t), t)).subs(u_of(t), along), earlier)
        advance = sp.diff(earlier(theta_of(s)), s)
        return [
            through_sums - speed,
            speed.subs(_sums(earlier)) - straight,
            claimed.subs(u, along) - kappa * sp.cosh(theta) * advance * tick,
        ]

    chain.add(
        "mode equation",
        "The logit obeys a scalar equation of its own: any number of neurons enters through kappa and the "
        "first value only.",
        equal(du_dt, rate),
        verify,
        reference="(3.4)",
    )


def _time_integral(chain: Chain, loss: str) -> None:
    rate = while_learning(chain.known(du_dt))
    integrand = sp.simplify(2 * p * r / rate.subs(u, v))
    time = sp.Integral(integrand, (v, u0, u)) / (2 * p * r)
    chain.add(
        "time from logit",
        "Separating the variables gives the time as an integral over the logit, as long as g is positive.",
        equal(t_of(u), time),
        lambda own, earlier: inverts_flow(own(t_of(u)), earlier(du_dt), u, u0),
        domain=LOGIT_RANGE[loss],
        reference="(3.5)",
    )


def _balanced_equation(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Twice: as the limit of the mode equation, and from the flow of neurons with a = z.
        even = {z[j]: a[j] for j in NEURONS}
        limit = earlier(du_dt, "mode equation").subs({kappa: 0, u: u_positive})
        straight = logit_speed(earlier)
        claimed = own(du_dt)
        return [
            claimed - limit,
            (claimed.subs(u_positive, earlier(u)) - straight).subs(even),
            earlier(kappa, "amplitude and angle").subs(_sums(earlier)).subs(even),
        ]

    chain.add(
        "balanced equation",
        "Neurons with a = z have kappa = 0, the rich limit, and the equation loses its square root; u is positive.",
        equal(du_dt, chain.known(du_dt).subs({kappa: 0, u: u_positive})),
        verify,
        reference="(3.4)",
    )
