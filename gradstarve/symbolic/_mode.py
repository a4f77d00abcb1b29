"""One mode of a hidden ReLU layer: from the network and the loss to du/dt = 2 p r g(u) sqrt(kappa^2 + u^2).

The setting (arXiv:1809.06848): the points of one class share a direction xh (unit vector) and a norm r; p
is their total weight; the sign of the read-out is oriented so that the label is y = +1, so the margin
equals the logit u. Two neurons in two dimensions stand for any number of both: every sum over neurons below
is linear in the neurons, and every direction across xh behaves like the one written here.

Equation numbers are this project's own. The module also derives the closed forms that follow from the mode
equation.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOptionalOperand=false
# pyright: reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Sequence

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import (
    ANGLE_FLOW,
    BALANCED,
    BALANCED_FLOW,
    GENERAL,
    LOGIT_FLOW,
    MODE_FLOW,
    Chain,
    Flow,
    expanded,
    residual_at,
    solves_flow,
    without_g,
)
from gradstarve.symbolic._derivation import Domain, Known, Target, open_roots
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._opening import Neuron, add_gradient_flow, add_loss, split_weights

NEURONS = n.NEURONS
PAIR = [Neuron((n.W[j, 0], n.W[j, 1]), (n.a[j], n.a_of[j]), (n.b[j], n.b_of[j]), (n.z[j], n.z_of[j])) for j in NEURONS]
"""Two neurons in two dimensions, which stand for any number of both."""

NOW = {function(n.t): letter for neuron in PAIR for letter, function, _ in neuron.coordinates}
"""Coordinates at time t -> plain symbols: residuals are evaluated at an arbitrary moment of the flow."""

LATER = {letter: function for function, letter in NOW.items()}
"""The inverse of `NOW`."""

NAMES = {letter: function.func for function, letter in NOW.items()}
"""Letter of a coordinate -> the function of time of the same name."""


@derives(name="mode", equation="3.1-3.5", title="One mode of a hidden ReLU layer")
def mode(chain: Chain, loss: str) -> dict[str, Target]:
    """One hidden ReLU layer, f = sum_j z_j relu(w_j.x). From the loss to the gradient flow, the conserved quantities, the
    hyperbolic clock, du/dt = 2 p r g(u) sqrt(kappa^2 + u^2) (3.4), t(u) for every loss, and u(t) for the hinge and
    squared losses.
    """
    _network(chain)
    split_weights(
        chain,
        PAIR,
        "active side",
        "Split each weight vector along the class (a > 0: the neuron is active) and across it (b): the logit "
        "depends on the first part only.",
    )
    add_loss(chain, loss)
    add_gradient_flow(
        chain,
        PAIR,
        "Steepest descent of the loss p l(u) in the weights: the parts along the class and the read-outs "
        "feed each other; the parts across the class do not move.",
        "(1.2)",
    )
    _balance(chain)
    _clock(chain)
    _logit_on_the_clock(chain)
    _amplitude_and_angle(chain)
    _sums_and_differences(chain)
    _deaths(chain)
    _mode_equation(chain)
    add_time_integral(chain, "time from logit", n.LOGIT_RANGE[loss])
    _balanced_equation(chain)
    return {
        "kappa": Target("sums and differences", n.kappa, (n.r, n.M_plus, n.M_minus)),
        "u(s)": Target("sums and differences", n.u_of(n.s), (n.s, n.r, n.M_plus, n.M_minus)),
        "theta(s)": Target("sums and differences", n.theta_of(n.s), (n.s, n.M_plus, n.M_minus)),
        "death clock": Target("deaths", n.s_dead, (n.a[0], n.z[0]), "Valid for z1 < -a1 < 0."),
        "du/dt": Target("mode equation", n.du_dt, (n.u, n.p, n.r, n.kappa)),
        "t(u) integral": Target(
            "time from logit", n.t_of(n.u), (n.u, n.p, n.r, n.kappa, n.u0), "Valid while g > 0 from u0 to u."
        ),
        "du/dt balanced": Target("balanced equation", n.du_dt, (n.u_positive, n.p, n.r)),
    } | CLOSED_FORMS[loss](chain)


def _network(chain: Chain) -> None:
    point = n.r * n.DIRECTION
    output = sum((n.z[j] * sp.Max(0, (n.W.row(j) * point)[0]) for j in NEURONS), sp.S.Zero)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        hidden = (n.W * point).applyfunc(lambda value: sp.Max(0, value))
        return [own(n.network) - (sp.Matrix([n.z]) * hidden)[0]]

    chain.add(
        "network",
        "The network is a sum over neurons of read-out times rectified input; the class lies along one "
        "direction, at angle alpha, with norm r.",
        {n.network: output},
        verify,
        reference="(1.1)",
    )


def _velocity(known: Known) -> dict[sp.Basic, sp.Expr]:
    """d/dt of every coordinate from the gradient flow, g written out, at an arbitrary moment."""
    rates = {sp.Derivative(function, n.t): known(sp.Derivative(function, n.t), "gradient flow") for function in NOW}
    return {rate: without_g(value.subs(NOW).subs(n.u_of(n.t), known(n.u)), known) for rate, value in rates.items()}


def logit_speed(known: Known) -> sp.Expr:
    """du/dt from the speeds of the neurons, at an arbitrary moment."""
    logit = known(n.u, "active side").subs(LATER)
    return sp.diff(logit, n.t).subs(_velocity(known)).subs(NOW)


def _balance(chain: Chain) -> None:
    def energy(functions: bool, j: int) -> sp.Expr:
        first, across, out = (n.a_of[j](n.t), n.b_of[j](n.t), n.z_of[j](n.t)) if functions else (n.a[j], n.b[j], n.z[j])
        return first**2 + across**2 - out**2

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        speeds = _velocity(earlier)
        drift = [sp.diff(e.lhs, n.t).subs(speeds).subs(NOW) for e in own.equations]
        return drift + [e.lhs.subs(NOW) - e.rhs for e in own.equations]

    chain.add(
        "balance",
        "For each neuron the squared length of the weight vector minus the squared read-out is constant.",
        {energy(True, j): energy(False, j) for j in NEURONS},
        verify,
        reference="(1.3)",
    )


def _clock(chain: Chain) -> None:
    exchange = sp.Matrix([[0, 1], [1, 0]])  # d/ds (a, z) = (z, a)
    rotation = sp.simplify((exchange * n.s).exp())
    moved = {j: rotation * sp.Matrix([n.a[j], n.z[j]]) for j in NEURONS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        tick = without_g(own(n.rate(n.s_of)).subs(n.u_of(n.t), n.u), earlier)
        residuals = []
        for j in NEURONS:
            on_clock = {functions[j](n.t): own(functions[j](n.s)) for functions in (n.a_of, n.z_of)}
            for functions, start in ((n.a_of, n.a), (n.z_of, n.z)):
                rate = without_g(earlier(n.rate(functions[j])).subs(n.u_of(n.t), n.u), earlier)
                value = own(functions[j](n.s))
                # Multiplied out rather than divided by the tick, which the hinge loss lets vanish.
                residuals += [rate.subs(on_clock) - tick * sp.diff(value, n.s), value.subs(n.s, 0) - start[j]]
        return residuals

    chain.add(
        "clock",
        "Measured on a clock s that ticks at rate p r g(u), every neuron obeys the same linear system, "
        "whose matrix exponential is a hyperbolic rotation; a and z without argument are the initial "
        "values.",
        {
            n.rate(n.s_of): n.p * n.r * n.g(n.u_of(n.t)),
            **{functions[j](n.s): moved[j][i] for j in NEURONS for i, functions in enumerate((n.a_of, n.z_of))},
        },
        verify,
        reference="(3.1)",
    )


def _exponential_parts(logit: sp.Expr) -> tuple[sp.Expr, sp.Expr]:
    """(alpha, beta) with logit = alpha e^{2s} + beta e^{-2s}."""
    power = sp.Symbol("power", positive=True)
    series = sp.expand(sp.expand(logit.rewrite(sp.exp)).subs(n.s, sp.log(power)))
    return series.coeff(power, 2), series.coeff(power, -2)


def _logit_on_the_clock(chain: Chain) -> None:
    logit = chain.known(n.u).subs({x: chain.known(NAMES[x](n.s)) for x in (*n.a, *n.z)}, simultaneous=True)
    rising, falling = _exponential_parts(logit)
    # alpha e^{2s} + beta e^{-2s} = (alpha + beta) cosh 2s + (alpha - beta) sinh 2s.
    first = sp.collect(sp.expand((rising + falling) / n.r), n.a)
    second = sp.expand((rising - falling) / n.r)

    chain.add(
        "logit on the clock",
        "In the logit the initial weights enter through two numbers only: P and Q, sums over the neurons.",
        {
            n.P: first,
            n.Q: second,
            n.u_of(n.s): n.r * (n.P * sp.cosh(2 * n.s) + n.Q * sp.sinh(2 * n.s)),
        },
        lambda own, earlier: [
            own(n.u_of(n.s)).subs({n.P: own(n.P), n.Q: own(n.Q)})
            - earlier(n.u).subs({symbol: earlier(NAMES[symbol](n.s)) for symbol in (*n.a, *n.z)}, simultaneous=True)
        ],
        reference="(3.2)",
    )


def _sums(known: Known) -> dict[sp.Basic, sp.Expr]:
    return {n.P: known(n.P), n.Q: known(n.Q)}


def _amplitude_and_angle(chain: Chain) -> None:
    # Match kappa sinh(2s + theta0) with r (P cosh 2s + Q sinh 2s): kappa sinh theta0 = r P, kappa cosh
    # theta0 = r Q.
    sine, cosine = n.r * n.P, n.r * n.Q
    amplitude = sp.simplify(sp.sqrt(sp.factor(cosine**2 - sine**2)))
    angle = 2 * n.s + sp.atanh(sine / cosine)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed = own(n.u_of(n.s)).subs(n.theta_of(n.s), own(n.theta_of(n.s))).subs(n.kappa, own(n.kappa))
        return [claimed - earlier(n.u_of(n.s))]

    chain.add(
        "amplitude and angle",
        "The logit is one hyperbolic sine, of amplitude kappa and of an angle theta that advances twice "
        "as fast as the clock.",
        {
            n.kappa: amplitude,
            n.theta_of(n.s): angle,
            n.u_of(n.s): n.kappa * sp.sinh(n.theta_of(n.s)),
        },
        verify,
        domain={n.P: (-1, 1), n.Q: (1, 2)},  # Q > |P| always, by a^2 + z^2 >= 2 |a z|
        reference="(3.3)",
    )


def _sums_and_differences(chain: Chain) -> None:
    logit = chain.known(n.u).subs({x: chain.known(NAMES[x](n.s)) for x in (*n.a, *n.z)}, simultaneous=True)
    rising, falling = _exponential_parts(logit)

    # Match with kappa (e^theta - e^-theta)/2: the product of the two parts gives kappa, their ratio theta.
    up, down = n.r * n.M_plus / 4, n.r * n.M_minus / 4

    def squares(total: sp.Expr) -> sp.Expr:
        # Factor neuron by neuron: the sums have no cross terms.
        nothing = {j: {n.a[j]: 0, n.z[j]: 0} for j in NEURONS}
        return sum((sp.factor(total.subs(nothing[1 - j])) for j in NEURONS), sp.S.Zero)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # In two small pieces rather than one large one: M+- = 2 (Q +- P) in the weights, then P, Q in M+-.
        sums = _sums(earlier)
        halves = {n.P: (n.M_plus - n.M_minus) / 4, n.Q: (n.M_plus + n.M_minus) / 4}
        links = [own(n.M_plus) - 2 * (sums[n.Q] + sums[n.P]), own(n.M_minus) - 2 * (sums[n.Q] - sums[n.P])]
        angles = own(n.theta_of(n.s)) - 2 * n.s, earlier(n.theta_of(n.s)) - 2 * n.s
        return [
            *links,
            own(n.u_of(n.s)) - earlier(n.u_of(n.s), "logit on the clock").subs(halves),
            own(n.kappa) - earlier(n.kappa).subs(halves),
            # The exponential is one-to-one, and turns the logarithm and the artanh into fractions.
            _opened(2 * angles[0]) - _opened(2 * angles[1]).subs(halves),
        ]

    chain.add(
        "sums and differences",
        "The same numbers in forms without cancellation: M plus is the sum of (a + z) squared, M minus the "
        "sum of (a - z) squared.",
        {
            n.M_plus: squares(sp.expand(4 * rising / n.r)),
            n.M_minus: squares(sp.expand(-4 * falling / n.r)),
            n.u_of(n.s): up * sp.exp(2 * n.s) - down * sp.exp(-2 * n.s),
            n.kappa: 2 * sp.sqrt(up * down),
            n.theta_of(n.s): 2 * n.s + sp.log(up / down) / 2,
        },
        verify,
        reference="(3.3)",
    )


def _opened(angle: sp.Expr) -> sp.Expr:
    return sp.exp(sp.expand(angle.rewrite(sp.log)))


def _deaths(chain: Chain) -> None:
    ratio = sp.Symbol("ratio")
    # a cosh s + z sinh s = 0 is linear in tanh s ...
    (tangent,) = sp.solve(
        sp.expand(chain.known(n.a_of[0](n.s)) / sp.cosh(n.s)).subs(sp.sinh(n.s), ratio * sp.cosh(n.s)), ratio
    )
    # ... and with a = 0 the balance gives the read-out, negative because it starts below -a and cannot cross.
    left = -sp.sqrt(n.z[0] ** 2 - n.a[0] ** 2)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        moment = {n.s: own(n.s_dead)}
        return [
            earlier(n.a_of[0](n.s)).subs(moment),
            earlier(n.z_of[0](n.s)).subs(moment) - own(n.z_of[0](n.s_dead)),
        ]

    chain.add(
        "deaths",
        "A neuron whose read-out starts below -a leaves the class at the clock time where a reaches zero; "
        "P and Q are then summed over the neurons left. Written for neuron 1.",
        {n.s_dead: sp.atanh(tangent), n.z_of[0](n.s_dead): left},
        verify,
        domain={n.a[0]: (sp.Rational(1, 5), sp.Rational(19, 10)), n.z[0]: (-4, -2)},
        reference="(3.10)",
    )


def _mode_equation(chain: Chain) -> None:
    known = chain.known
    # du/dt = kappa cosh(theta) dtheta/dt, cosh = sqrt(1 + sinh^2), dtheta/dt = 2 ds/dt.
    ticks = sp.diff(known(n.theta_of(n.s)), n.s) * known(n.rate(n.s_of)).subs(n.u_of(n.t), n.u)
    rate = without_g(ticks, known) * sp.sqrt(n.kappa**2 + n.u**2)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        claimed = own(n.du_dt)
        # Straight from the neurons, at any moment of the flow: there P and Q are those of the moment.
        straight = logit_speed(earlier)
        amplitude = earlier(n.kappa, "amplitude and angle")
        through_sums = claimed.subs({n.u: n.r * n.P, n.kappa: amplitude}, simultaneous=True)
        speed = 2 * n.p * n.r**2 * n.Q * residual_at(earlier, n.r * n.P)  # the same number, in P and Q
        # Along the clock, where kappa is the number found at the start.
        along = n.kappa * sp.sinh(n.theta)
        tick = without_g(earlier(n.rate(n.s_of)).subs(n.u_of(n.t), along), earlier)
        advance = sp.diff(earlier(n.theta_of(n.s)), n.s)
        return [
            through_sums - speed,
            speed.subs(_sums(earlier)) - straight,
            claimed.subs(n.u, along) - n.kappa * sp.cosh(n.theta) * advance * tick,
        ]

    chain.add(
        "mode equation",
        "The logit obeys a closed scalar equation: any number of neurons enters only through kappa and the initial logit.",
        {n.du_dt: rate},
        verify,
        reference="(3.4)",
    )


def add_time_integral(chain: Chain, name: str, domain: Domain, reference: str = "(3.5)") -> None:
    """Add the step `name` with the time from one logit to another under the latest equation for du/dt."""
    rate = while_learning(chain.known(n.du_dt))
    integrand = sp.simplify(2 * n.p * n.r / rate.subs(n.u, n.v))
    time = sp.Integral(integrand, (n.v, n.u0, n.u)) / (2 * n.p * n.r)
    chain.add(
        name,
        "Separating the variables gives the time as an integral over the logit, as long as the residual is positive.",
        {n.t_of(n.u): time},
        domain=domain,
        reference=reference,
        inverts=LOGIT_FLOW,
    )


def _balanced_equation(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Twice: as the limit of the mode equation, and from the flow of neurons with a = z.
        even = {n.z[j]: n.a[j] for j in NEURONS}
        limit = earlier(n.du_dt, "mode equation").subs({n.kappa: 0, n.u: n.u_positive})
        straight = logit_speed(earlier)
        claimed = own(n.du_dt)
        return [
            claimed - limit,
            (claimed.subs(n.u_positive, earlier(n.u)) - straight).subs(even),
            earlier(n.kappa, "amplitude and angle").subs(_sums(earlier)).subs(even),
        ]

    chain.add(
        "balanced equation",
        "Neurons with a = z have kappa = 0, the rich limit, and the equation loses its square root; u is positive.",
        {n.du_dt: chain.known(n.du_dt).subs({n.kappa: 0, n.u: n.u_positive})},
        verify,
        reference="(3.4)",
    )


# From the mode equation to closed forms, loss by loss.
#
# Every function here continues a chain that ends with the mode equation (3.4) and its balanced limit, and
# returns the named results it adds. Cross-entropy and the exponential loss have a closed t(u) but no
# elementary u(t); the hinge has both; the squared loss gives a Riccati equation, hence both as well.


def smooth_targets(chain: Chain, *, loss: str) -> dict[str, Target]:
    """Cross-entropy and exponential loss: t on the angle, and with Ei in the balanced limit."""
    # v = kappa sinh(phi) takes the square root away; what then does not depend on phi integrates at once.
    inverse = sp.expand(sp.simplify(1 / residual_at(chain.known, n.kappa * sp.sinh(n.phi))))
    constant, rest = inverse.as_independent(n.phi, as_Add=True)
    time = constant * (n.theta - n.theta0) + sp.Integral(rest, (n.phi, n.theta0, n.theta))

    chain.add(
        "time from angle",
        "With the angle as variable, where the logit is kappa sinh theta, the square root disappears from the time.",
        {n.t_of(n.theta): time / (2 * n.p * n.r)},
        reference="(3.7)" if loss == "cross-entropy" else "",
        inverts=ANGLE_FLOW,
    )
    _balanced_time(chain, loss, "(3.7)" if loss == "cross-entropy" else "(3.8)")
    return {
        "t(u)": Target("time from logit", n.t_of(n.u), (n.u, n.p, n.r, n.kappa, n.u0)),
        "t(theta)": Target("time from angle", n.t_of(n.theta), (n.theta, n.p, n.r, n.kappa, n.theta0)),
        "t(u) balanced": _BALANCED_TIME,
    }


_BALANCED_TIME = Target(
    "balanced time", n.t_of(n.u_positive), (n.u_positive, n.p, n.r, n.u0_positive), "Valid for u0, u > 0."
)


def _balanced_time(chain: Chain, loss: str, reference: str) -> None:
    rate = while_learning(chain.known(n.du_dt, BALANCED)).subs(n.u_positive, n.v_positive)
    primitive = sp.integrate(sp.expand(2 * n.p * n.r / rate), n.v_positive)
    time = (primitive.subs(n.v_positive, n.u_positive) - primitive.subs(n.v_positive, n.u0_positive)) / (2 * n.p * n.r)
    chain.add(
        "balanced time",
        "In the balanced limit the time is integrated by SymPy and checked by differentiation.",
        {n.t_of(n.u_positive): time},
        domain=n.LOGIT_RANGE[loss],
        reference=reference,
        inverts=BALANCED_FLOW,
    )


def hinge_targets(chain: Chain) -> dict[str, Target]:
    """Hinge loss: exponential growth of the angle until the margin is reached, then rest."""
    start = sp.asinh(n.u0 / n.kappa)
    rate = while_learning(chain.known(n.du_dt, GENERAL))
    primitive = sp.integrate(sp.expand(2 * n.p * n.r / rate.subs(n.u, n.v_positive)), n.v_positive).subs(n.v_positive, n.u)
    chain.add(
        "closed time",
        "Before the margin is reached the residual is 1 and the integral is an inverse hyperbolic sine.",
        {n.theta0: start, n.t_of(n.u): (primitive - n.theta0) / (2 * n.p * n.r)},
        domain=n.LOGIT_RANGE["hinge"],
        reference="(3.6)",
        inverts=MODE_FLOW,
        through=[n.theta0],
    )
    (growth,) = sp.solve(sp.Eq(chain.known(n.t_of(n.u)), n.t), n.u)

    chain.add(
        "growth",
        "Solved for the logit: before the margin is reached the angle grows at a constant rate.",
        {n.u_of(n.t): growth},
        # Small times and small initial logits, so that all random points are below the margin.
        domain={
            n.u0: (-2, 0),
            n.t: (0, sp.Rational(1, 10)),
            n.kappa: (sp.Rational(1, 10), 1),
            n.p: (0, 1),
            n.r: (0, 1),
        },
        reference="(3.6)",
        solves=MODE_FLOW,
        through=[n.theta0],
    )
    (arrival,) = sp.solve(sp.Eq(chain.known(n.t_of(n.u)).subs(n.u, 1), n.t_star), n.t_star)
    add_rest(chain, "arrival and rest", "growth", arrival, MODE_FLOW, [n.theta0])

    _balanced_time(chain, "hinge", "(3.6)")
    (growth,) = sp.solve(sp.Eq(chain.known(n.t_of(n.u_positive)), n.t), n.u_positive)
    chain.add(
        "balanced growth",
        "In the balanced limit the logit itself grows exponentially until the margin is reached.",
        {n.u_of(n.t): sp.simplify(growth)},
        domain={n.u0_positive: (0, sp.Rational(1, 2)), n.t: (0, sp.Rational(1, 4)), n.p: (0, 1), n.r: (0, 1)},
        reference="(3.6)",
        solves=BALANCED_FLOW,
    )
    arrival = chain.known(n.t_of(n.u_positive)).subs(n.u_positive, 1)
    add_rest(chain, "balanced arrival and rest", "balanced growth", arrival, BALANCED_FLOW)
    general, balanced = (n.t, n.p, n.r, n.kappa, n.u0), (n.t, n.p, n.r, n.u0_positive)
    return {
        "t(u)": Target("closed time", n.t_of(n.u), (n.u, n.p, n.r, n.kappa, n.u0), "Valid for u <= 1."),
        "t*": Target("arrival and rest", n.t_star, (n.p, n.r, n.kappa, n.u0), "Valid for u0 <= 1."),
        "u(t)": Target("arrival and rest", n.u_of(n.t), general, "Valid for every u0; above 1 nothing moves."),
        "t(u) balanced": _BALANCED_TIME,
        "t* balanced": Target("balanced arrival and rest", n.t_star, (n.p, n.r, n.u0_positive), "Valid for 0 < u0 <= 1."),
        "u(t) balanced": Target("balanced arrival and rest", n.u_of(n.t), balanced, "Valid for u0 > 0."),
    }


def add_rest(
    chain: Chain,
    name: str,
    growth: str,
    arrival: sp.Expr,
    flow: Flow,
    through: Sequence[sp.Symbol] = (),
    domain: Domain | None = None,
    reference: str = "(3.6)",
) -> None:
    """Add the step that joins growth and rest under the hinge loss.

    Args:
        chain: ends with the growth.
        name: name of the step.
        growth: name of the step with u(t) before the margin is reached.
        arrival: the time at which it is.
        flow: the flow that u(t) solves.
        through: auxiliary letters in `arrival` and in u(t), of earlier steps; see `Chain.add`.
        domain: see `Step`.
        reference: see `Step`.
    """
    start = flow.start
    # A start beyond the margin has a negative arrival time; the maximum keeps it at rest where it is.
    curve = chain.known(n.u_of(n.t), growth).subs(n.t, sp.Min(n.t, sp.Max(0, n.t_star)))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        values = {letter: earlier(letter) for letter in through}
        when = expanded(own(n.t_star), values)
        whole = expanded(own(n.u_of(n.t)).subs(n.t_star, when), values)
        rising = expanded(earlier(n.u_of(n.t), growth), values)
        beyond = start + 3
        return [
            rising.subs(n.t, when) - 1,  # the margin is reached at t*,
            whole.subs(n.t, when / 2) - rising.subs(n.t, when / 2),  # grown towards before,
            whole.subs(n.t, when + n.t) - 1,  # kept after,
            *solves_flow(whole, flow.rate(earlier), flow.variable, start),
            whole.subs(start, beyond) - beyond,  # and never left by a start beyond it.
        ]

    chain.add(
        name,
        "The margin 1 is reached at the time t*; the residual is zero from there on and the logit stays.",
        {n.t_star: arrival, n.u_of(n.t): curve},
        verify,
        domain={start: (sp.Rational(-3, 2) if start == n.u0 else sp.Rational(1, 10), sp.Rational(19, 20)), **(domain or {})},
        reference=reference,
    )


# Squared loss: the mode equation is a Riccati equation, solved by linearising it.


def squared_targets(chain: Chain) -> dict[str, Target]:
    """Squared loss: a Riccati equation in x = e^{2s}, linearised, solved; a logistic curve if balanced."""
    _riccati(chain)
    _linear_solution(chain)
    _squared_curves(chain)
    _balanced_logistic(chain)
    general = (n.t, n.p, n.r, n.kappa, n.u0)
    return {
        "u(t)": Target("closed logit", n.u_of(n.t), general, "Valid for every u0, kappa > 0."),
        "t(u)": Target("closed time", n.t_of(n.u), (n.u, n.p, n.r, n.kappa, n.u0), "Valid for u0, u on one side of 1."),
        "u(t) balanced": Target("balanced logistic", n.u_of(n.t), (n.t, n.p, n.r, n.u0_positive), "Valid for u0 > 0."),
        "t(u) balanced": Target(
            "balanced logistic",
            n.t_of(n.u_positive),
            (n.u_positive, n.p, n.r, n.u0_positive),
            "Valid for u0, u > 0, both on one side of 1.",
        ),
    }


def _letters(known: Known) -> dict[sp.Basic, sp.Expr]:
    """theta0, A, B, omega, each in terms of those before it and of u0, kappa."""
    return {
        n.theta0: known(n.theta0, "exponential variable"),
        n.A: known(n.A, "exponential variable"),
        n.B: known(n.B, "exponential variable"),
    }


def _riccati(chain: Chain) -> None:
    split = sp.expand((n.kappa * sp.sinh(n.theta0 + sp.log(n.x_var))).rewrite(sp.exp))
    rising, falling = split.coeff(n.x_var, 1), -split.coeff(n.x_var, -1)

    def verify_variable(own: Known, _: Known) -> list[sp.Expr]:
        logit = own(n.u_of(n.x_var)).subs({n.A: own(n.A), n.B: own(n.B)})
        return [logit - n.kappa * sp.sinh(n.theta0 + sp.log(n.x_var)), n.kappa * sp.sinh(own(n.theta0)) - n.u0]

    chain.add(
        "exponential variable",
        "In the variable x = exp(2s), which starts at 1, the logit is a first power minus an inverse one.",
        {
            n.theta0: sp.asinh(n.u0 / n.kappa),
            n.A: rising,
            n.B: falling,
            n.u_of(n.x_var): n.A * n.x_var - n.B / n.x_var,
        },
        verify_variable,
    )

    # dx/dtau = (du/dtau) / (du/dx), tau = 2 p r t, kappa^2 = 4 A B, so kappa^2 + u^2 is the square of A x +
    # B/x.
    logit = chain.known(n.u_of(n.x_var))
    amplitude = 2 * sp.sqrt(n.A * n.B)
    speed = chain.known(n.du_dt, GENERAL).subs({n.kappa: amplitude, n.u: logit}, simultaneous=True) / (2 * n.p * n.r)
    rate = sp.expand(sp.simplify(open_roots(speed) / sp.diff(logit, n.x_var)))

    def verify_riccati(own: Known, earlier: Known) -> list[sp.Expr]:
        position = earlier(n.u_of(n.x_var))
        claimed = own(sp.Derivative(n.x_of(n.tau), n.tau)) * sp.diff(position, n.x_var) * 2 * n.p * n.r
        expected = earlier(n.du_dt, GENERAL).subs({n.u: position, n.kappa: amplitude}, simultaneous=True)
        return [claimed - expected, earlier(n.A) * earlier(n.B) - n.kappa**2 / 4]

    chain.add(
        "Riccati equation",
        "In rescaled time tau = 2 p r t the mode equation becomes a Riccati equation with constant coefficients.",
        {sp.Derivative(n.x_of(n.tau), n.tau): rate},
        verify_riccati,
    )


def _linear_solution(chain: Chain) -> None:
    y = n.y_of(n.tau)
    rate = chain.known(sp.Derivative(n.x_of(n.tau), n.tau))
    # Insert x = y'/(A y) and solve for y'': the square cancels.
    second = sp.Symbol("second")
    slope, value = sp.symbols("slope value", positive=True)
    balance = (second / (n.A * value) - slope**2 / (n.A * value**2)) - rate.subs(n.x_var, slope / (n.A * value))
    (linear,) = sp.solve(balance, second)
    linear = sp.expand(linear).subs({slope: sp.Derivative(y, n.tau), value: y}, simultaneous=True)

    def verify_linear(own: Known, earlier: Known) -> list[sp.Expr]:
        position = own(n.x_of(n.tau))
        law = earlier(sp.Derivative(n.x_of(n.tau), n.tau)).subs(n.x_var, position)
        defect = (sp.diff(position, n.tau) - law).subs(sp.Derivative(y, (n.tau, 2)), own(sp.Derivative(y, (n.tau, 2))))
        return [sp.simplify(defect.subs({sp.Derivative(y, n.tau): slope, y: value}))]

    chain.add(
        "linearisation",
        "Written as a logarithmic derivative, x turns the Riccati equation into a linear one.",
        {
            n.x_of(n.tau): sp.Derivative(y, n.tau) / (n.A * y),
            sp.Derivative(y, (n.tau, 2)): linear,
        },
        verify_linear,
    )

    # With 4 A B = omega^2 - 1 the exponents are (1 +- omega)/2.
    spread = sp.sqrt(1 + n.kappa**2)
    law = sp.Eq(sp.Derivative(y, (n.tau, 2)), linear.subs(n.B, (n.omega**2 - 1) / (4 * n.A)))
    initial = {y.subs(n.tau, 0): 1, sp.Derivative(y, n.tau).subs(n.tau, 0): n.A}
    solution = sp.dsolve(law, y, ics=initial).rhs

    def verify_solution(own: Known, earlier: Known) -> list[sp.Expr]:
        curve = own(y)
        law = earlier(sp.Derivative(y, (n.tau, 2)))
        defect = sp.diff(curve, n.tau, 2) - law.subs(sp.Derivative(y, n.tau), sp.diff(curve, n.tau)).subs(y, curve)
        slope = earlier(n.x_of(n.tau)).subs(sp.Derivative(y, n.tau), sp.diff(curve, n.tau)).subs(y, curve)
        residuals = [defect, curve.subs(n.tau, 0) - 1, slope.subs(n.tau, 0) - 1]
        return [expanded(residual, _letters(earlier) | {n.omega: own(n.omega)}) for residual in residuals]

    chain.add(
        "linear solution",
        "The linear equation has two exponents, half of 1 plus and minus omega; x starts at 1.",
        {n.omega: spread, y: solution},
        verify_solution,
    )


def _squared_curves(chain: Chain) -> None:
    known = chain.known
    solution = known(n.y_of(n.tau))
    # y'/(A y), written with T = tanh(omega tau / 2): divide both by exp(tau/2) cosh(omega tau / 2).
    grown = sp.Symbol("grown", positive=True)  # exp(omega tau), equal to (1 + T)/(1 - T)
    scale = sp.exp(-n.tau * (1 - n.omega) / 2)
    parts = [sp.expand(sp.simplify(part * scale)) for part in (sp.diff(solution, n.tau), n.A * solution)]
    parts = [part.subs(sp.exp(n.omega * n.tau), grown).subs(grown, (1 + n.T_var) / (1 - n.T_var)) for part in parts]
    fraction = [sp.expand(part * (1 - n.T_var) * 2 * n.omega / n.A) for part in map(sp.cancel, parts)]
    # Even powers of omega beyond the first are 1 + 4 A B in disguise.
    square = sp.Poly(n.omega**2 - 1 - 4 * n.A * n.B, n.omega)
    top, bottom = (sp.expand(sp.cancel(part)) for part in fraction)
    top, bottom = (sp.Poly(sp.expand(part * n.A), n.omega).rem(square).as_expr() / n.A for part in (top, bottom))
    shared = sp.gcd(sp.numer(sp.together(top)), sp.numer(sp.together(bottom)))
    top, bottom = (sp.collect(sp.expand(sp.cancel(part / shared)), n.T_var) for part in (top, bottom))
    position = top / bottom

    letters = (n.theta0, n.A, n.B, n.omega)
    chain.add(
        "closed logit",
        "The quotient of the two exponentials is a quotient of first-degree polynomials in T, a "
        "hyperbolic tangent of time; its denominator never vanishes.",
        {
            n.T_var: sp.tanh(n.omega * n.p * n.r * n.t),
            n.x_var: position,
            n.u_of(n.t): known(n.u_of(n.x_var)),
        },
        solves=MODE_FLOW,
        through=(*letters, n.T_var, n.x_var),
    )

    # Backwards: x from the angle of u, and T from x is linear.
    forward = sp.exp(sp.asinh(n.u / n.kappa) - n.theta0)
    (tangent,) = sp.solve(sp.numer(sp.together(position - n.x_var)), n.T_var)

    chain.add(
        "closed time",
        "Solved for the time: x from the logit, T from x, the time from T.",
        {
            n.x_var: forward,
            n.T_var: sp.factor(tangent),
            n.t_of(n.u): sp.atanh(n.T_var) / (n.omega * n.p * n.r),
        },
        domain=n.LOGIT_RANGE["squared"],
        inverts=MODE_FLOW,
        through=(*letters, n.x_var, n.T_var),  # T is written in x, x in A
    )


def _balanced_logistic(chain: Chain) -> None:
    # kappa -> 0 with u0 > 0: A -> u0, B -> 0, and x obeys a logistic equation, linear in 1/x.
    inverse = sp.Function("inverse")
    rate = chain.known(sp.Derivative(n.x_of(n.tau), n.tau)).subs({n.B: 0, n.A: n.u0_positive})
    linear = sp.expand(sp.simplify(-rate.subs(n.x_var, 1 / n.x_var) * n.x_var**2)).subs(n.x_var, inverse(n.tau))
    solved = sp.dsolve(sp.Eq(sp.Derivative(inverse(n.tau), n.tau), linear), inverse(n.tau), ics={inverse(0): 1}).rhs
    curve = 1 / sp.expand(sp.expand(solved / n.u0_positive).subs(n.tau, 2 * n.p * n.r * n.t))
    decay = sp.Symbol("decay", positive=True)  # exp(-2 p r t), in which 1/u is linear
    (decayed,) = sp.solve(sp.expand(1 / curve).subs(sp.exp(-2 * n.p * n.r * n.t), decay) - 1 / n.u_positive, decay)
    time = -sp.log(sp.factor(decayed)) / (2 * n.p * n.r)

    chain.add(
        "balanced logistic",
        "In the balanced limit the curve is the logistic function of Saxe, McClelland and Ganguli (2013).",
        {n.u_of(n.t): curve, n.t_of(n.u_positive): time},
        domain=n.LOGIT_RANGE["squared"],
        reference="(3.8)",
        solves=BALANCED_FLOW,
        inverts=BALANCED_FLOW,
    )


CLOSED_FORMS: dict[str, Callable[[Chain], dict[str, Target]]] = {
    "cross-entropy": lambda chain: smooth_targets(chain, loss="cross-entropy"),
    "hinge": hinge_targets,
    "exponential": lambda chain: smooth_targets(chain, loss="exponential"),
    "squared": squared_targets,
}
"""Loss -> the function that continues the chain for it."""
