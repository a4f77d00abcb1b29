"""One mode of a hidden ReLU layer: from the network and the loss to du/dt = 2 p r g(u) sqrt(kappa^2 + u^2).

The setting (arXiv:1809.06848): the points of one class share a direction xh (unit vector) and a norm r; p
is their total weight; the sign of the read-out is oriented so that the label is y = +1, so the margin
equals the logit u. Two neurons in two dimensions stand for any number of both: every sum over neurons below
is linear in the neurons, and every direction across xh behaves like the one kept here.

Equation numbers are this project's own. The closed forms that follow from the mode equation are in
`mode_closed_forms`.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import Chain, du_dt, equal, inverts_flow, residual_at, while_learning, without_g
from gradstarve.symbolic._derivation import Derivation, Known, Target
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._mode_closed_forms import CLOSED_FORMS
from gradstarve.symbolic._mode_flow import NAMES, NEURONS, add_balance, add_flow, add_loss, add_network, logit_speed
from gradstarve.symbolic._notation import (
    LOGIT_RANGE,
    M_minus,
    M_plus,
    P,
    Q,
    a,
    a_of,
    g,
    kappa,
    p,
    r,
    s,
    s_dead,
    s_of,
    t,
    t_of,
    theta,
    theta_of,
    u,
    u0,
    u_of,
    u_positive,
    v,
    z,
    z_of,
)


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
