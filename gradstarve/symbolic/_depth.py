"""Depth: one path of N layers, from the network to du/dt = N p r^{2/N} u^{2-2/N} g(u) and its closed forms (7.1), (7.2).

The network is written out for N = 1, 2 and 3 and differentiated there. In between stands the one fact that depth
needs, and that holds for every N: the output is of first degree in each weight, so that the gradient for the weight
b_l is u/b_l times that for u. From there on N is a letter.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false
# pyright: reportIndexIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._derivation import (
    BALANCED,
    Chain,
    Derivation,
    Domain,
    Known,
    Target,
    derive,
    du_dt,
    equal,
    inverts_flow,
    while_learning,
    without_g,
)
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._mode import add_rest
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    N,
    Phi_of,
    ell,
    every_layer,
    f,
    g,
    k,
    layer,
    layer_index,
    layer_of,
    layers,
    m,
    offset,
    p,
    r,
    rho,
    rho_of,
    signed_layers,
    t,
    t_of,
    t_star,
    u,
    u0_positive,
    u_of,
    u_positive,
    v_positive,
)

__all__ = ["LOSSES", "build"]

WRITTEN_OUT = (1, 2, 3)
"""Depths at which the network itself is differentiated."""

POWER = 2 / N - 1
"""u^POWER is what a constant residual lets grow in proportion to time; it is 0 for N = 2, where log u takes its place."""

DEEP: Domain = {N: (sp.Rational(5, 2), 6)}

TIME = Target(
    "closed time",
    t_of(u_positive),
    (u_positive, N, p, r, u0_positive),
    "Valid for u0, u > 0 with g > 0 in between, and every N but 2, whose law is that of a balanced mode.",
)

ACTIVE = dict(zip(signed_layers, layers, strict=True))


def build(loss: str) -> Derivation:
    """Derive the law of one path of N layers for the loss of that name; see `gradstarve.symbolic.derive`."""
    chain = Chain()
    _network(chain)
    single = derive("one-layer", loss)
    chain.cite(single, "loss", "The loss, as in the derivation for one layer.")
    chain.cite(single, "residual", "Its residual.")
    _flow(chain)
    _unbalanced(chain)
    _balanced(chain, loss)
    targets = {"du/dt": Target(BALANCED, du_dt, (u_positive, N, p, r), "Valid for u > 0.")}
    if loss == "hinge":
        targets |= _hinge(chain, loss)
    else:
        targets |= _hypergeometric(chain, loss)
    return Derivation("depth", loss, f"One path of N layers, {loss} loss", chain.steps, targets)


def _network(chain: Chain) -> None:
    def output(depth: int) -> sp.Expr:
        hidden = r
        for weight in signed_layers[: depth - 1]:
            hidden = sp.Max(0, weight * hidden)
        return signed_layers[depth - 1] * hidden

    def verify_network(own: Known, _: Known) -> list[sp.Expr]:
        # A rectifier is the mean of a number and its size.
        one, two, three = signed_layers
        first = (one * r + sp.Abs(one * r)) / 2
        second = (two * first + sp.Abs(two * first)) / 2
        return [own(f(1)) - one * r, own(f(2)) - two * first, own(f(3)) - three * second]

    chain.add(
        "network",
        "One path through N layers, rectified in between, on a point of norm r in the direction that the first "
        "layer sees; written out for N = 1, 2, 3.",
        tuple(equal(f(depth), output(depth)) for depth in WRITTEN_OUT),
        verify_network,
    )

    product = r * sp.Product(every_layer[layer_index], (layer_index, 1, N))

    def verify_logit(own: Known, earlier: Known) -> list[sp.Expr]:
        return [_at_depth(own(u), depth) - earlier(f(depth)).subs(ACTIVE) for depth in WRITTEN_OUT]

    chain.add(
        "active path",
        "With positive weights the path is active, and the logit is their product times the norm.",
        equal(u, product),
        verify_logit,
    )


def _at_depth(expression: sp.Expr, depth: int) -> sp.Expr:
    """`expression` with its products over the layers written out for N = `depth`."""
    weights = {every_layer[index]: symbol for index, symbol in enumerate(layers, start=1)}
    offsets = {offset[index]: symbol**2 - rho for index, symbol in enumerate(layers, start=1)}
    return expression.subs(N, depth).doit().subs(weights | offsets)


def _flow(chain: Chain) -> None:
    weight_speed = sp.Derivative(layer_of(t), t)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The other way round: differentiate the loss of the network itself in every weight, at every depth.
        residuals = []
        for depth in WRITTEN_OUT:
            loss = p * earlier(ell(m)).subs(m, earlier(f(depth)))
            logit = earlier(f(depth)).subs(ACTIVE)
            for signed in signed_layers[:depth]:
                claimed = own(weight_speed).subs({u_of(t): logit, layer_of(t): ACTIVE[signed]})
                residuals.append(without_g(claimed, earlier) + sp.diff(loss, signed).subs(ACTIVE))
        return residuals

    chain.add(
        "gradient flow",
        "The logit is of first degree in each weight, so its slope in the weight of layer l is u over that weight: "
        "steepest descent of p l(u).",
        equal(weight_speed, p * g(u_of(t)) * u_of(t) / layer_of(t)),
        verify,
    )


def _unbalanced(chain: Chain) -> None:
    square_speed = sp.Derivative(layer_of(t) ** 2, t)
    weight_speed = sp.Derivative(layer_of(t), t)
    doubled = sp.simplify(sp.diff(layer_of(t) ** 2, t).subs(weight_speed, chain.known(weight_speed)))

    def verify_squares(own: Known, earlier: Known) -> list[sp.Expr]:
        moving = {u_of(t): u, layer_of(t): layer}
        chain_rule = 2 * layer_of(t) * earlier(weight_speed)
        return [without_g((own(square_speed) - chain_rule).subs(moving), earlier)]

    chain.add(
        "balance",
        "The square of every weight grows at the same speed, whatever the layer: the differences between the squares "
        "keep their first values.",
        equal(square_speed, doubled),
        verify_squares,
        reference="(1.3)",
    )

    product = sp.Product(sp.sqrt(rho + offset[layer_index]), (layer_index, 1, N))
    squares_speed = sp.Derivative(rho_of(t), t)

    def verify_unbalanced(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for depth in WRITTEN_OUT:
            logit = earlier(f(depth)).subs(ACTIVE)
            speed = earlier(square_speed).subs(u_of(t), logit)
            residuals += [
                without_g(_at_depth(own(squares_speed), depth) - speed, earlier),
                _at_depth(own(u), depth) - logit,
            ]
        return residuals

    chain.add(
        "unbalanced equation",
        "Written as b_l^2 = rho + c_l with constants c_l, one number moves the whole path; it obeys a scalar equation.",
        (equal(u, r * product), equal(squares_speed, doubled.subs(u_of(t), r * product))),
        verify_unbalanced,
        reference="(7.2)",
    )


def _balanced(chain: Chain, loss: str) -> None:
    shared = (u_positive / r) ** (1 / N)
    # d log u / dt is the sum over N equal layers of d log b / dt.
    per_layer = chain.known(sp.Derivative(layer_of(t), t)).subs({u_of(t): u_positive, layer_of(t): shared}) / shared
    rate = sp.powsimp(sp.expand_power_base(without_g(N * u_positive * per_layer, chain.known)))
    shallow = {1: derive("one-layer", loss).result["du/dt"].rhs, 2: derive("mode", loss).result["du/dt balanced"].rhs}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed, shared = own(du_dt), own(layer)
        moving = {u_of(t): u_positive, layer_of(t): layer}
        weight_speed = without_g(earlier(sp.Derivative(layer_of(t), t)).subs(moving), earlier)
        residuals = [r * shared**N - u_positive, claimed - (sp.diff(r * layer**N, layer) * weight_speed).subs(layer, shared)]
        # The network itself, all of whose weights are equal.
        equal_weights = dict.fromkeys(layers, shared)
        for depth in WRITTEN_OUT:
            path = earlier(f(depth)).subs(ACTIVE)
            slope = sum((sp.diff(path, weight).subs(equal_weights) for weight in layers), sp.S.Zero)
            straight = slope * weight_speed.subs(layer, shared)
            residuals.append((claimed - straight).subs(N, depth))
        # Laws derived elsewhere, from networks of their own.
        residuals += [claimed.subs(N, depth) - known.subs(u, u_positive) for depth, known in shallow.items()]
        return residuals

    chain.add(
        BALANCED,
        "Equal weights stay equal. The logit then obeys a scalar equation, which is that of one layer for N = 1 and "
        "that of a balanced mode for N = 2.",
        (equal(layer, shared), equal(du_dt, rate)),
        verify,
        domain={N: (1, 6)},
        reference="(7.1)",
    )

    pace = N * p * r ** (2 / N)
    integrand = sp.powsimp(sp.expand(sp.simplify(pace / while_learning(chain.known(du_dt))))).subs(u_positive, v_positive)
    chain.add(
        "time from logit",
        "Separating the variables gives the time as an integral over the logit, as long as g is positive.",
        equal(t_of(u_positive), sp.Integral(integrand, (v_positive, u0_positive, u_positive)) / pace),
        lambda own, earlier: inverts_flow(own(t_of(u_positive)), earlier(du_dt), u_positive, u0_positive),
        domain=LOGIT_RANGE[loss] | {N: (1, 6)},
        reference="(7.1)",
    )


def _hypergeometric(chain: Chain, loss: str) -> dict[str, Target]:
    """Losses with 1/g a power series: integrated term by term, and summed."""
    # 1/(1-u) has the series of ones; for the other two losses 1/g is e^u and a constant.
    inverse = sp.expand(sp.simplify(1 / chain.known(g(m)))).subs(m, u_positive)
    squared = loss == "squared"
    coefficient, constant = (sp.S.One, sp.S.Zero) if squared else (1 / sp.factorial(k), inverse - sp.exp(u_positive))
    series = sp.Sum(coefficient * u_positive ** (k + POWER) / (k + POWER), (k, 0, sp.oo))

    def verify_series(own: Known, earlier: Known) -> list[sp.Expr]:
        # Cut off after any term, the derivative is v^(2/N-2) times 1/g cut off there.
        residuals = []
        for last in (0, 1, 4):
            cut = own(Phi_of(u_positive)).xreplace({sp.oo: sp.Integer(last)}).doit()
            known = sp.series(1 / earlier(g(m)), m, 0, last + 1).removeO().subs(m, u_positive)
            residuals.append(sp.expand((sp.diff(cut, u_positive) - u_positive ** (POWER - 1) * known) * u_positive))
        return residuals

    chain.add(
        "series",
        "1/g is a power series in the logit; integrated term by term against the power of u it gives Phi, a series.",
        equal(Phi_of(u_positive), constant * u_positive**POWER / POWER + series),
        verify_series,
        domain=DEEP,
        reference="(7.1)",
    )

    kummer = sp.hyper((POWER,), (POWER + 1,), u_positive)
    gauss = sp.hyper((1, POWER), (POWER + 1,), u_positive)
    primitive = u_positive**POWER / POWER * (gauss if squared else constant + kummer)
    time = (primitive - primitive.subs(u_positive, u0_positive)) / (N * p * r ** (2 / N))

    def verify_time(own: Known, earlier: Known) -> list[sp.Expr]:
        return inverts_flow(own(t_of(u_positive)), while_learning(earlier(du_dt)), u_positive, u0_positive)

    chain.add(
        "closed time",
        "The series is a hypergeometric function: that of Gauss, an incomplete beta function."
        if squared
        else "The series is Kummer's function, an incomplete gamma function of negative argument.",
        equal(t_of(u_positive), time),
        verify_time,
        domain=LOGIT_RANGE[loss] | DEEP,
        reference="(7.1)",
    )
    # Gauss's function is left to mpmath: in JAX it has no derivative in N, and compiling it takes seconds.
    return {} if squared else {"t(u)": TIME}


def _hinge(chain: Chain, loss: str) -> dict[str, Target]:
    inside = LOGIT_RANGE[loss] | DEEP
    # The constant residual leaves a power of the logit: pace t = (u^a - u0^a)/a with a = 2/N - 1.
    time = (u_positive**POWER - u0_positive**POWER) / (sp.expand(POWER * N) * p * r ** (2 / N))
    chain.add(
        "closed time",
        "While the margin is not reached the residual is 1 and the integral is a power of the logit.",
        equal(t_of(u_positive), time),
        lambda own, earlier: inverts_flow(own(t_of(u_positive)), earlier(du_dt), u_positive, u0_positive),
        domain=inside,
        reference="(7.1)",
    )

    def power_speed(known: Known) -> sp.Expr:
        return sp.simplify(sp.diff(u_positive**POWER, u_positive) * while_learning(known(du_dt)))

    line = u0_positive**POWER + sp.factor(power_speed(chain.known)) * t
    chain.add(
        "growth",
        "So a power of the logit is linear in time until the margin is reached.",
        (equal(u_of(t) ** POWER, line), equal(u_of(t), line ** (1 / POWER))),
        lambda own, earlier: [
            sp.diff(own(u_of(t) ** POWER), t) - power_speed(earlier),
            own(u_of(t) ** POWER).subs(t, 0) - u0_positive**POWER,
            own(u_of(t)) - own(u_of(t) ** POWER) ** (1 / POWER),
        ],
        # Small times: these points are all on the near side of the margin.
        domain=inside | {t: (0, sp.Rational(1, 20)), p: (0, 1), r: (0, 1), u0_positive: (0, sp.Rational(1, 2))},
        reference="(7.1)",
    )
    arrival = chain.known(t_of(u_positive)).subs(u_positive, 1)
    add_rest(
        chain,
        "arrival and rest",
        arrival,
        chain.known(u_of(t)),
        "growth",
        BALANCED,
        (u_positive, u0_positive),
        lambda expression, _: expression,
        domain=DEEP,
        reference="(7.1)",
    )
    note = "Valid for u0 > 0, every N but 2; above 1 nothing moves."
    return {
        "t(u)": TIME,
        "t*": Target("arrival and rest", t_star, (N, p, r, u0_positive), "Valid for 0 < u0 <= 1, every N but 2."),
        "u(t)": Target("arrival and rest", u_of(t), (t, N, p, r, u0_positive), note),
    }
