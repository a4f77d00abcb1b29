"""Weight decay in the flow: a mode is learnt if p r g(0) exceeds lambda, and the logit at which it settles (9.1).

Continues `mode`. The law holds for losses whose residual falls with the margin. The residual of the hinge loss jumps
instead, and a learnt mode stays at the margin 1.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import BALANCED, BALANCED_FLOW, GENERAL, Chain, residual_at, without_g
from gradstarve.symbolic._derivation import Derivation, Domain, Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._opening import MOVED, continue_mode, force_on

LEARNT: Domain = {n.p: (sp.Rational(1, 2), 2), n.r: (sp.Rational(1, 2), 2), n.lam: (0, sp.Rational(1, 10))}
"""Ranges of the random points: the side of the threshold on which a mode is learnt."""


@derives(name="decay", equation="9.1", title="Weight decay on one mode", losses=("cross-entropy", "exponential", "squared"))
def decay(chain: Chain, loss: str) -> dict[str, Target]:
    """The flow with weight decay, its threshold, and the logit at which it settles (9.1)."""
    mode = continue_mode(chain, loss, force=True)
    _flow(chain)
    _sums(chain)
    _logit_equation(chain, mode)
    _balanced(chain, mode)
    _threshold(chain)
    _settled(chain)
    learnt = "Valid for p r g(0) > lambda: where the mode settles."
    settling = "The rate at which it settles, if negative."
    targets = {
        "du/dt": Target(GENERAL, n.du_dt, (n.u, n.p, n.r, n.kappa, n.lam), "kappa is that of the moment."),
        "du/dt balanced": Target(BALANCED, n.du_dt, (n.u_positive, n.p, n.r, n.lam)),
        "lambda_c": Target("threshold", n.lambda_c, (n.p, n.r), "The mode is learnt if lambda is below."),
        "u*": Target("settled logit", n.u_star, (n.p, n.r, n.lam), learnt),
        "sigma(u*)": Target("stability", n.growth_of(n.u_star), (n.p, n.r, n.lam), settling),
    }
    return targets | (_curve(chain) if loss == "squared" else {})


def _rates(known: Known) -> dict[sp.Symbol, sp.Expr]:
    """Letters of the weights -> their derivatives in time under force and decay, with g(u) as a letter."""
    return {now: known(n.rate(function), "flow with decay") for function, now in MOVED.items()}


def _flow(chain: Chain) -> None:
    penalty = n.lam * sum((x**2 for x in (*n.a, *n.z)), sp.S.Zero) / 2
    rates = tuple(n.rate(function) for function in MOVED)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        return [
            without_g(own(rate) - force_on(earlier, function) + sp.diff(penalty, now), earlier)
            for rate, (function, now) in zip(rates, MOVED.items(), strict=True)
        ]

    chain.add(
        "flow with decay",
        "Weight decay adds lambda/2 times the sum of all squared weights to the loss, which pulls every weight to 0.",
        {
            rate: force_on(chain.known, function) - n.lam * now
            for rate, (function, now) in zip(rates, MOVED.items(), strict=True)
        },
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
            without_g(own(n.rate(function)).subs(sums, earlier(sums)) - _drift(earlier(sums), earlier), earlier)
            for sums, function in n.NOW_SUMS.items()
        ]

    chain.add(
        "sums",
        "M plus and M minus each obey a separate equation, for any number of neurons.",
        {n.rate(function): speed(sums) for sums, function in n.NOW_SUMS.items()},
        verify,
    )


def _logit_equation(chain: Chain, mode: Derivation) -> None:
    root = sp.sqrt(n.kappa**2 + n.u**2)
    states = {n.M_plus: 2 * (root + n.u) / n.r, n.M_minus: 2 * (root - n.u) / n.r}

    def along(quantity: sp.Expr, known: Known) -> sp.Expr:
        speeds = {sums: known(n.rate(function), "sums") for sums, function in n.NOW_SUMS.items()}
        drift = sum((sp.diff(quantity, sums) * speed for sums, speed in speeds.items()), sp.S.Zero)
        return without_g(drift, known).subs(states)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        square = earlier(n.kappa) ** 2
        return [
            own(n.du_dt) - along(n.r * (n.M_plus - n.M_minus) / 4, earlier),
            2 * n.kappa * own(n.rate(n.kappa_of)) - along(square, earlier),
            square.subs(states) - n.kappa**2,
            own(n.du_dt).subs(n.lam, 0) - mode.result["du/dt"].rhs,
        ]

    chain.add(
        GENERAL,
        "In logit and kappa: decay subtracts 2 lambda u in the mode equation, and kappa decays at the rate 2 lambda, so "
        "that every mode becomes balanced.",
        {
            n.du_dt: mode.result["du/dt"].rhs - 2 * n.lam * n.u,
            n.rate(n.kappa_of): -2 * n.lam * n.kappa,
        },
        verify,
        reference="(9.1)",
    )


def _balanced(chain: Chain, mode: Derivation) -> None:
    pull = residual_at(chain.known, n.u_positive)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        even = {n.z[j]: n.a[j] for j in range(len(n.a))}
        straight = without_g(_drift(earlier(n.u), earlier).subs(n.u, earlier(n.u)), earlier)
        return [
            own(n.du_dt) - earlier(n.du_dt, GENERAL).subs({n.kappa: 0, n.u: n.u_positive}),
            (own(n.du_dt).subs(n.u_positive, earlier(n.u)) - straight).subs(even),
            own(n.du_dt).subs(n.lam, 0) - mode.result["du/dt balanced"].rhs,
        ]

    chain.add(
        BALANCED,
        "In the balanced limit the rate is the difference of force and decay.",
        {n.du_dt: 2 * (n.p * n.r * pull - n.lam) * n.u_positive},
        verify,
        reference="(9.1)",
    )


def _threshold(chain: Chain) -> None:
    rate = chain.known(n.du_dt, BALANCED)
    growth = sp.diff(rate, n.u_positive).subs(n.u_positive, 0)
    (critical,) = sp.solve(growth, n.lam)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rate = earlier(n.du_dt, BALANCED)
        return [
            own(n.growth_of(0)) - sp.limit(rate / n.u_positive, n.u_positive, 0),
            own(n.growth_of(0)).subs(n.lam, own(n.lambda_c)),
            sp.diff(own(n.growth_of(0)), n.lam) + 2,
        ]

    chain.add(
        "threshold",
        "A small logit grows at the rate sigma(0), which is positive for lambda below p r g(0) and negative above it: "
        "rare classes and those of small norm are then erased for ever.",
        {n.growth_of(0): sp.expand(growth), n.lambda_c: critical},
        verify,
        reference="(9.1)",
    )


def _settled(chain: Chain) -> None:
    slope = sp.diff(chain.known(n.g(n.m)), n.m)
    (settled,) = sp.solve(residual_at(chain.known, n.u) - n.lam / (n.p * n.r), n.u)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        rest = own(n.u_star)
        return [
            n.p * n.r * residual_at(earlier, rest) - n.lam,
            # sigma(0) is 2 p r times g(0) - g(u*): because g falls, the rest is above 0 exactly if small logits grow.
            earlier(n.growth_of(0)) - 2 * n.p * n.r * (residual_at(earlier, sp.S.Zero) - residual_at(earlier, rest)),
        ]

    chain.add(
        "settled logit",
        "The logit rests where p r g(u) = lambda. Because g falls with the logit, this rest is above 0 exactly if a small "
        "logit grows; otherwise every logit decays to 0.",
        {n.u_star: settled},
        verify,
        domain=LEARNT,
        reference="(9.1)",
    )
    balance = sp.factor(sp.simplify(2 * n.p * n.r * slope.subs(n.m, settled)))

    def verify_stability(own: Known, earlier: Known) -> list[sp.Expr]:
        rest = earlier(n.u_star)
        whole = sp.diff(earlier(n.du_dt, BALANCED), n.u_positive).subs(n.u_positive, rest)
        return [own(n.growth_of(n.u_star)).subs(n.u_star, rest) - whole]

    chain.add(
        "stability",
        "A small deviation from the rest decays at the rate sigma(u*), negative while g falls and the rest is above 0.",
        {n.growth_of(n.u_star): balance * n.u_star},
        verify_stability,
        domain=LEARNT,
        reference="(9.1)",
    )


def _curve(chain: Chain) -> dict[str, Target]:
    # (p r (1 - u) - lambda) u is linear in 1/u: a logistic curve that ends at u*.
    growth = chain.known(n.growth_of(0))
    rest = chain.known(n.u_star)
    curve = rest / (1 + (rest / n.u0_positive - 1) * sp.exp(-growth * n.t))
    chain.add(
        "logit in time",
        "With the squared loss the balanced curve is a logistic function, as without decay, with another rate and limit.",
        {n.u_of(n.t): curve},
        domain=LEARNT,
        reference="(9.1)",
        solves=BALANCED_FLOW,
    )
    note = "Valid for u0 > 0, lambda other than p r."
    return {"u(t)": Target("logit in time", n.u_of(n.t), (n.t, n.p, n.r, n.lam, n.u0_positive), note)}
