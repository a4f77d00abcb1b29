"""Weight decay in the flow: a mode is learnt if p r g(0) exceeds lambda, and where it settles then (9.1).

Continues `mode`. For losses whose residual falls with the margin; under the hinge it jumps, and a mode that is learnt
is held at the margin.
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
    Domain,
    Known,
    Target,
    derive,
    du_dt,
    equal,
    residual_at,
    solves_flow,
    without_g,
)
from gradstarve.symbolic._descent import COORDINATES, add_force, force
from gradstarve.symbolic._notation import (
    NOW_SUMS,
    M_minus,
    M_plus,
    a,
    g,
    growth_of,
    kappa,
    kappa_of,
    lam,
    lambda_c,
    m,
    p,
    r,
    t,
    u,
    u0_positive,
    u_of,
    u_positive,
    u_star,
    z,
)

LOSSES = ("cross-entropy", "exponential", "squared")

LEARNT: Domain = {p: (sp.Rational(1, 2), 2), r: (sp.Rational(1, 2), 2), lam: (0, sp.Rational(1, 10))}
"""Points on the side of the threshold where a mode is learnt."""


def build(loss: str) -> Derivation:
    """Derive the flow of a mode with weight decay for the loss of that name; see `gradstarve.symbolic.derive`."""
    mode, chain = derive("mode", loss), Chain()
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    add_force(chain, mode)
    _flow(chain)
    _sums(chain)
    _logit_equation(chain, mode)
    _balanced(chain, mode)
    _threshold(chain)
    _settled(chain)
    learnt = "Valid for p r g(0) > lambda: where the mode settles."
    targets = {
        "du/dt": Target(GENERAL, du_dt, (u, p, r, kappa, lam), "kappa is that of the moment."),
        "du/dt balanced": Target(BALANCED, du_dt, (u_positive, p, r, lam)),
        "lambda_c": Target("threshold", lambda_c, (p, r), "The mode is learnt if lambda is below."),
        "u*": Target("settled logit", u_star, (p, r, lam), learnt),
        "sigma(u*)": Target("stability", growth_of(u_star), (p, r, lam), "The rate at which it settles, if negative."),
    }
    if loss == "squared":
        targets |= _curve(chain)
    return Derivation("decay", loss, f"Weight decay on one mode, {loss} loss", chain.steps, targets)


def _rates(known: Known) -> dict[sp.Symbol, sp.Expr]:
    """Letters of the weights -> their speeds under force and decay, g(u) a letter."""
    return {now: known(sp.Derivative(function(t), t), "flow with decay") for function, now, _ in COORDINATES}


def _flow(chain: Chain) -> None:
    penalty = lam * sum((x**2 for x in (*a, *z)), sp.S.Zero) / 2
    rates = tuple(sp.Derivative(function(t), t) for function, _, _ in COORDINATES)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        return [
            without_g(own(rate) - force(earlier, function) + sp.diff(penalty, now), earlier)
            for rate, (function, now, _) in zip(rates, COORDINATES, strict=True)
        ]

    chain.add(
        "flow with decay",
        "Weight decay adds lambda/2 times the sum of all squared weights to the loss: every weight is also pulled to 0.",
        tuple(
            equal(rate, force(chain.known, function) - lam * now)
            for rate, (function, now, _) in zip(rates, COORDINATES, strict=True)
        ),
        verify,
        reference="(9.1)",
    )


def _drift(total: sp.Expr, known: Known) -> sp.Expr:
    """d(total)/dt along the flow with decay."""
    return sum((sp.diff(total, now) * rate for now, rate in _rates(known).items()), sp.S.Zero)


def _sums(chain: Chain) -> None:
    def speed(sums: sp.Symbol) -> sp.Expr:
        total = chain.known(sums)
        return sp.factor(sp.cancel(_drift(total, chain.known) / total)) * sums

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        return [
            without_g(own(sp.Derivative(function(t), t)).subs(sums, earlier(sums)) - _drift(earlier(sums), earlier), earlier)
            for sums, function in NOW_SUMS.items()
        ]

    chain.add(
        "sums",
        "M plus and M minus each obey an equation of their own, whatever the number of neurons.",
        tuple(equal(sp.Derivative(function(t), t), speed(sums)) for sums, function in NOW_SUMS.items()),
        verify,
    )


def _logit_equation(chain: Chain, mode: Derivation) -> None:
    root = sp.sqrt(kappa**2 + u**2)
    states = {M_plus: 2 * (root + u) / r, M_minus: 2 * (root - u) / r}

    def along(quantity: sp.Expr, known: Known) -> sp.Expr:
        speeds = {sums: known(sp.Derivative(function(t), t), "sums") for sums, function in NOW_SUMS.items()}
        drift = sum((sp.diff(quantity, sums) * speed for sums, speed in speeds.items()), sp.S.Zero)
        return without_g(drift, known).subs(states)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        square = earlier(kappa) ** 2
        return [
            own(du_dt) - along(r * (M_plus - M_minus) / 4, earlier),
            2 * kappa * own(sp.Derivative(kappa_of(t), t)) - along(square, earlier),
            square.subs(states) - kappa**2,
            own(du_dt).subs(lam, 0) - mode.result["du/dt"].rhs,
        ]

    chain.add(
        GENERAL,
        "In logit and kappa: decay takes 2 lambda u off the mode equation, and lets kappa fade at the rate 2 lambda, so "
        "that every mode becomes balanced.",
        (
            equal(du_dt, mode.result["du/dt"].rhs - 2 * lam * u),
            equal(sp.Derivative(kappa_of(t), t), -2 * lam * kappa),
        ),
        verify,
        reference="(9.1)",
    )


def _balanced(chain: Chain, mode: Derivation) -> None:
    pull = residual_at(chain.known, u_positive)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        even = {z[j]: a[j] for j in range(len(a))}
        straight = without_g(_drift(earlier(u), earlier).subs(u, earlier(u)), earlier)
        return [
            own(du_dt) - earlier(du_dt, GENERAL).subs({kappa: 0, u: u_positive}),
            (own(du_dt).subs(u_positive, earlier(u)) - straight).subs(even),
            own(du_dt).subs(lam, 0) - mode.result["du/dt balanced"].rhs,
        ]

    chain.add(
        BALANCED,
        "In the balanced limit force and decay stand side by side.",
        equal(du_dt, 2 * (p * r * pull - lam) * u_positive),
        verify,
        reference="(9.1)",
    )


def _threshold(chain: Chain) -> None:
    rate = chain.known(du_dt, BALANCED)
    growth = sp.diff(rate, u_positive).subs(u_positive, 0)
    (critical,) = sp.solve(growth, lam)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rate = earlier(du_dt, BALANCED)
        return [
            own(growth_of(0)) - sp.limit(rate / u_positive, u_positive, 0),
            own(growth_of(0)).subs(lam, own(lambda_c)),
            sp.diff(own(growth_of(0)), lam) + 2,
        ]

    chain.add(
        "threshold",
        "A small logit grows at the rate sigma(0), which is positive for lambda below p r g(0) and negative above it: "
        "rare classes and those of small norm are then erased for ever.",
        (equal(growth_of(0), sp.expand(growth)), equal(lambda_c, critical)),
        verify,
        reference="(9.1)",
    )


def _settled(chain: Chain) -> None:
    slope = sp.diff(chain.known(g(m)), m)
    (settled,) = sp.solve(residual_at(chain.known, u) - lam / (p * r), u)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rest = own(u_star)
        return [
            p * r * residual_at(earlier, rest) - lam,
            # sigma(0) is 2 p r times g(0) - g(u*): as g falls, the rest is above 0 exactly if small logits grow.
            earlier(growth_of(0)) - 2 * p * r * (residual_at(earlier, sp.S.Zero) - residual_at(earlier, rest)),
        ]

    chain.add(
        "settled logit",
        "The logit rests where p r g(u) is lambda. As g falls with the logit, that is above 0 exactly if a small logit "
        "grows; otherwise nothing is left but 0.",
        equal(u_star, settled),
        verify,
        domain=LEARNT,
        reference="(9.1)",
    )
    balance = sp.factor(sp.simplify(2 * p * r * slope.subs(m, settled)))

    def verify_stability(own: Known, earlier: Known) -> list[sp.Expr]:
        rest = earlier(u_star)
        whole = sp.diff(earlier(du_dt, BALANCED), u_positive).subs(u_positive, rest)
        return [own(growth_of(u_star)).subs(u_star, rest) - whole]

    chain.add(
        "stability",
        "Next to its rest the logit returns at the rate sigma(u*), negative while g falls and the rest is above 0.",
        equal(growth_of(u_star), balance * u_star),
        verify_stability,
        domain=LEARNT,
        reference="(9.1)",
    )


def _curve(chain: Chain) -> dict[str, Target]:
    # (p r (1 - u) - lambda) u is linear in 1/u: a logistic curve that ends at u*.
    growth = chain.known(growth_of(0))
    rest = chain.known(u_star)
    curve = rest / (1 + (rest / u0_positive - 1) * sp.exp(-growth * t))
    chain.add(
        "logit in time",
        "With the squared loss the balanced curve is a logistic function, as without decay, of another rate and end.",
        equal(u_of(t), curve),
        lambda own, earlier: solves_flow(own(u_of(t)), earlier(du_dt, BALANCED), u_positive, u0_positive),
        domain=LEARNT,
        reference="(9.1)",
    )
    note = "Valid for u0 > 0, lambda other than p r."
    return {"u(t)": Target("logit in time", u_of(t), (t, p, r, lam, u0_positive), note)}
