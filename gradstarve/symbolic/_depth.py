"""Depth: one path of N layers, from the network to du/dt = N p r^{2/N} u^{2-2/N} g(u) and its closed forms (7.1), (7.2).

The network is written out for N = 1, 2 and 3 and differentiated there. One fact extends these cases to every N: the output
is of first degree in each weight, so that the gradient for the weight b_l is u/b_l times the gradient for u. From there on N
is a letter.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import BALANCED, BALANCED_FLOW, Chain, Flow, without_g
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._mode import add_rest
from gradstarve.symbolic._opening import cite_loss, descends, total_loss

WRITTEN_OUT = (1, 2, 3)
"""Depths at which the network itself is differentiated."""

POWER = 2 / n.N - 1
"""With a constant residual u^POWER grows in proportion to time; POWER is 0 for N = 2, where log u replaces the power."""

DEEP: Domain = {n.N: (sp.Rational(5, 2), 6)}

TIME = Target(
    "closed time",
    n.t_of(n.u_positive),
    (n.u_positive, n.N, n.p, n.r, n.u0_positive),
    "Valid for u0, u > 0 with g > 0 in between, and every N but 2, whose law is that of a balanced mode.",
)

ACTIVE = dict(zip(n.signed_layers, n.layers, strict=True))


@derives(name="depth", equation="7.1", title="One path of N layers")
def depth(chain: Chain, loss: str) -> dict[str, Target]:
    """One path of N layers, balanced (7.1) and not (7.2), N being a symbol of the formulas."""
    _network(chain)
    cite_loss(chain, loss)
    _flow(chain)
    _unbalanced(chain)
    _balanced(chain, loss)
    targets = {"du/dt": Target(BALANCED, n.du_dt, (n.u_positive, n.N, n.p, n.r), "Valid for u > 0.")}
    return targets | (_hinge(chain, loss) if loss == "hinge" else _hypergeometric(chain, loss))


def _network(chain: Chain) -> None:
    def output(depth: int) -> sp.Expr:
        hidden = n.r
        for weight in n.signed_layers[: depth - 1]:
            hidden = sp.Max(0, weight * hidden)
        return n.signed_layers[depth - 1] * hidden

    def verify_network(own: Known, _: Known) -> list[sp.Expr]:
        # A rectifier is the mean of a number and its size.
        one, two, three = n.signed_layers
        first = (one * n.r + sp.Abs(one * n.r)) / 2
        second = (two * first + sp.Abs(two * first)) / 2
        return [own(n.f(1)) - one * n.r, own(n.f(2)) - two * first, own(n.f(3)) - three * second]

    chain.add(
        "network",
        "One path through N layers, rectified in between, on a point of norm r in the direction that the first "
        "layer sees; written out for N = 1, 2, 3.",
        {n.f(depth): output(depth) for depth in WRITTEN_OUT},
        verify_network,
    )

    product = n.r * sp.Product(n.every_layer[n.layer_index], (n.layer_index, 1, n.N))

    def verify_logit(own: Known, earlier: Known) -> list[sp.Expr]:
        return [_at_depth(own(n.u), depth) - earlier(n.f(depth)).subs(ACTIVE) for depth in WRITTEN_OUT]

    chain.add(
        "active path",
        "With positive weights the path is active, and the logit is their product times the norm.",
        {n.u: product},
        verify_logit,
    )


def _at_depth(expression: sp.Expr, depth: int) -> sp.Expr:
    """`expression` with its products over the layers written out for N = `depth`."""
    weights = {n.every_layer[index]: symbol for index, symbol in enumerate(n.layers, start=1)}
    offsets = {n.offset[index]: symbol**2 - n.rho for index, symbol in enumerate(n.layers, start=1)}
    return expression.subs(n.N, depth).doit().subs(weights | offsets)


def _flow(chain: Chain) -> None:
    weight_speed = n.rate(n.layer_of)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Independently: differentiate the loss of the network itself in every weight, at every depth.
        residuals = []
        for depth in WRITTEN_OUT:
            total = total_loss(earlier, {n.f(depth): n.p})
            logit = earlier(n.f(depth)).subs(ACTIVE)
            rate = own(weight_speed).subs(n.u_of(n.t), logit)
            rates = [(rate.subs(n.layer_of(n.t), ACTIVE[signed]), signed) for signed in n.signed_layers[:depth]]
            residuals += descends(earlier, total, rates, at=ACTIVE)
        return residuals

    chain.add(
        "gradient flow",
        "The logit is of first degree in each weight, so its slope in the weight of layer l is u over that weight: "
        "steepest descent of p l(u).",
        {weight_speed: n.p * n.g(n.u_of(n.t)) * n.u_of(n.t) / n.layer_of(n.t)},
        verify,
    )


def _unbalanced(chain: Chain) -> None:
    square_speed = sp.Derivative(n.layer_of(n.t) ** 2, n.t)
    weight_speed = n.rate(n.layer_of)
    doubled = sp.simplify(sp.diff(n.layer_of(n.t) ** 2, n.t).subs(weight_speed, chain.known(weight_speed)))

    def verify_squares(own: Known, earlier: Known) -> list[sp.Expr]:
        moving = {n.u_of(n.t): n.u, n.layer_of(n.t): n.layer}
        chain_rule = 2 * n.layer_of(n.t) * earlier(weight_speed)
        return [without_g((own(square_speed) - chain_rule).subs(moving), earlier)]

    chain.add(
        "balance",
        "The square of every weight grows at the same speed in every layer: the differences between the squares "
        "keep their initial values.",
        {square_speed: doubled},
        verify_squares,
        reference="(1.3)",
    )

    product = sp.Product(sp.sqrt(n.rho + n.offset[n.layer_index]), (n.layer_index, 1, n.N))
    squares_speed = n.rate(n.rho_of)

    def verify_unbalanced(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for depth in WRITTEN_OUT:
            logit = earlier(n.f(depth)).subs(ACTIVE)
            speed = earlier(square_speed).subs(n.u_of(n.t), logit)
            residuals += [
                without_g(_at_depth(own(squares_speed), depth) - speed, earlier),
                _at_depth(own(n.u), depth) - logit,
            ]
        return residuals

    chain.add(
        "unbalanced equation",
        "Written as b_l^2 = rho + c_l with constants c_l, one number, rho, describes the whole path and obeys a scalar "
        "equation.",
        {n.u: n.r * product, squares_speed: doubled.subs(n.u_of(n.t), n.r * product)},
        verify_unbalanced,
        reference="(7.2)",
    )


def _balanced(chain: Chain, loss: str) -> None:
    shared = (n.u_positive / n.r) ** (1 / n.N)
    # d log u / dt is the sum over N equal layers of d log b / dt.
    per_layer = chain.known(n.rate(n.layer_of)).subs({n.u_of(n.t): n.u_positive, n.layer_of(n.t): shared}) / shared
    rate = sp.powsimp(sp.expand_power_base(without_g(n.N * n.u_positive * per_layer, chain.known)))
    shallow = {1: derive("one-layer", loss).result["du/dt"].rhs, 2: derive("mode", loss).result["du/dt balanced"].rhs}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed, shared = own(n.du_dt), own(n.layer)
        moving = {n.u_of(n.t): n.u_positive, n.layer_of(n.t): n.layer}
        weight_speed = without_g(earlier(n.rate(n.layer_of)).subs(moving), earlier)
        residuals = [
            n.r * shared**n.N - n.u_positive,
            claimed - (sp.diff(n.r * n.layer**n.N, n.layer) * weight_speed).subs(n.layer, shared),
        ]
        # The network itself, all of whose weights are equal.
        equal_weights = dict.fromkeys(n.layers, shared)
        for depth in WRITTEN_OUT:
            path = earlier(n.f(depth)).subs(ACTIVE)
            slope = sum((sp.diff(path, weight).subs(equal_weights) for weight in n.layers), sp.S.Zero)
            straight = slope * weight_speed.subs(n.layer, shared)
            residuals.append((claimed - straight).subs(n.N, depth))
        # The laws of one layer and of a balanced mode, derived from their own networks.
        residuals += [claimed.subs(n.N, depth) - known.subs(n.u, n.u_positive) for depth, known in shallow.items()]
        return residuals

    chain.add(
        BALANCED,
        "Equal weights stay equal. The logit then obeys a scalar equation: the equation of one layer for N = 1, and "
        "of a balanced mode for N = 2.",
        {n.layer: shared, n.du_dt: rate},
        verify,
        domain={n.N: (1, 6)},
        reference="(7.1)",
    )

    pace = n.N * n.p * n.r ** (2 / n.N)
    integrand = sp.powsimp(sp.expand(sp.simplify(pace / while_learning(chain.known(n.du_dt))))).subs(
        n.u_positive, n.v_positive
    )
    chain.add(
        "time from logit",
        "Separating the variables gives the time as an integral over the logit, as long as g is positive.",
        {n.t_of(n.u_positive): sp.Integral(integrand, (n.v_positive, n.u0_positive, n.u_positive)) / pace},
        domain=n.LOGIT_RANGE[loss] | {n.N: (1, 6)},
        reference="(7.1)",
        inverts=BALANCED_FLOW,
    )


def _hypergeometric(chain: Chain, loss: str) -> dict[str, Target]:
    """Losses with 1/g a power series: integrated term by term, and summed."""
    # 1/(1-u) has the series with all coefficients 1; for the other two losses 1/g is e^u plus a constant.
    inverse = sp.expand(sp.simplify(1 / chain.known(n.g(n.m)))).subs(n.m, n.u_positive)
    squared = loss == "squared"
    coefficient, constant = (sp.S.One, sp.S.Zero) if squared else (1 / sp.factorial(n.k), inverse - sp.exp(n.u_positive))
    series = sp.Sum(coefficient * n.u_positive ** (n.k + POWER) / (n.k + POWER), (n.k, 0, sp.oo))

    def verify_series(own: Known, earlier: Known) -> list[sp.Expr]:
        # For every truncation, the derivative is v^(2/N-2) times the truncated series of 1/g.
        residuals = []
        for last in (0, 1, 4):
            cut = own(n.Phi_of(n.u_positive)).xreplace({sp.oo: sp.Integer(last)}).doit()
            known = sp.series(1 / earlier(n.g(n.m)), n.m, 0, last + 1).removeO().subs(n.m, n.u_positive)
            residuals.append(sp.expand((sp.diff(cut, n.u_positive) - n.u_positive ** (POWER - 1) * known) * n.u_positive))
        return residuals

    chain.add(
        "series",
        "1/g is a power series in the logit; integrated term by term against the power of u it gives Phi, a series.",
        {n.Phi_of(n.u_positive): constant * n.u_positive**POWER / POWER + series},
        verify_series,
        domain=DEEP,
        reference="(7.1)",
    )

    kummer = sp.hyper((POWER,), (POWER + 1,), n.u_positive)
    gauss = sp.hyper((1, POWER), (POWER + 1,), n.u_positive)
    primitive = n.u_positive**POWER / POWER * (gauss if squared else constant + kummer)
    time = (primitive - primitive.subs(n.u_positive, n.u0_positive)) / (n.N * n.p * n.r ** (2 / n.N))

    chain.add(
        "closed time",
        "The series is the hypergeometric function of Gauss, an incomplete beta function."
        if squared
        else "The series is Kummer's function, an incomplete gamma function of negative argument.",
        {n.t_of(n.u_positive): time},
        domain=n.LOGIT_RANGE[loss] | DEEP,
        reference="(7.1)",
        inverts=Flow(n.u_positive, n.u0_positive, lambda known: while_learning(known(n.du_dt))),
    )
    # Gauss's function is left to mpmath: in JAX it has no derivative in N, and compiling it takes seconds.
    return {} if squared else {"t(u)": TIME}


def _hinge(chain: Chain, loss: str) -> dict[str, Target]:
    inside = n.LOGIT_RANGE[loss] | DEEP
    # The constant residual leaves a power of the logit: pace t = (u^a - u0^a)/a with a = 2/N - 1.
    time = (n.u_positive**POWER - n.u0_positive**POWER) / (sp.expand(POWER * n.N) * n.p * n.r ** (2 / n.N))
    chain.add(
        "closed time",
        "Before the margin is reached the residual is 1 and the integral is a power of the logit.",
        {n.t_of(n.u_positive): time},
        domain=inside,
        reference="(7.1)",
        inverts=BALANCED_FLOW,
    )

    def power_speed(known: Known) -> sp.Expr:
        return sp.simplify(sp.diff(n.u_positive**POWER, n.u_positive) * while_learning(known(n.du_dt)))

    line = n.u0_positive**POWER + sp.factor(power_speed(chain.known)) * n.t
    chain.add(
        "growth",
        "So a power of the logit is linear in time until the margin is reached.",
        {n.u_of(n.t) ** POWER: line, n.u_of(n.t): line ** (1 / POWER)},
        lambda own, earlier: [
            sp.diff(own(n.u_of(n.t) ** POWER), n.t) - power_speed(earlier),
            own(n.u_of(n.t) ** POWER).subs(n.t, 0) - n.u0_positive**POWER,
            own(n.u_of(n.t)) - own(n.u_of(n.t) ** POWER) ** (1 / POWER),
        ],
        # Small times, so that all random points are below the margin.
        domain=inside | {n.t: (0, sp.Rational(1, 20)), n.p: (0, 1), n.r: (0, 1), n.u0_positive: (0, sp.Rational(1, 2))},
        reference="(7.1)",
    )
    arrival = chain.known(n.t_of(n.u_positive)).subs(n.u_positive, 1)
    add_rest(chain, "arrival and rest", "growth", arrival, BALANCED_FLOW, domain=DEEP, reference="(7.1)")
    note = "Valid for u0 > 0, every N but 2; above 1 nothing moves."
    return {
        "t(u)": TIME,
        "t*": Target("arrival and rest", n.t_star, (n.N, n.p, n.r, n.u0_positive), "Valid for 0 < u0 <= 1, every N but 2."),
        "u(t)": Target("arrival and rest", n.u_of(n.t), (n.t, n.N, n.p, n.r, n.u0_positive), note),
    }
