"""K classes under softmax cross-entropy, K a letter: one layer with Lambert W (11.1), two layers on a clock (11.2).

The K inputs are orthogonal, of norm r and weight p each, so the classes do not interact. On the input of one class the
logits of the other K - 1 classes are equal by symmetry, and stay equal; the derivation follows one of them.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import ANGLE_FLOW, BALANCED, BALANCED_FLOW, GENERAL, LOGIT_FLOW, Chain
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._opening import descends

NEURONS = n.NEURONS
CLASSES: Domain = {n.K: (sp.Rational(3, 2), 9)}
LOSS = n.ell(*n.logits)


@derives(name="softmax", equation="11.1", title="Softmax cross-entropy with K classes", losses=("cross-entropy",))
def softmax(chain: Chain, loss: str) -> dict[str, Target]:
    """K classes, K being a symbol, one layer (11.1) and two (11.2)."""
    _loss(chain)
    _one_layer(chain, loss)
    _curve(chain)
    _read_out(chain)
    _two_layers(chain, loss)
    _two_layer_times(chain)
    angles = (n.theta, n.K, n.p, n.r, n.kappa, n.theta0)
    balanced = (n.u_positive, n.K, n.p, n.r, n.u0_positive)
    gap = (n.K, n.p, n.r, n.u0)
    return {
        "u(t)": Target("gap in time", n.u_of(n.t), (n.t, *gap), "One layer, any first gap u0; K > 1."),
        "t(u)": Target("time from gap", n.t_of(n.u), (n.u, *gap), "One layer."),
        "du/dt two layers": Target(GENERAL, n.du_dt, (n.u, n.K, n.p, n.r, n.kappa)),
        "kappa": Target(GENERAL, n.kappa, (n.K, n.r, n.M_plus, n.M_minus)),
        "t(theta) two layers": Target("time from angle", n.t_of(n.theta), angles),
        "t(u) two layers balanced": Target("balanced time", n.t_of(n.u_positive), balanced, "Valid for u0, u > 0."),
    }


def _loss(chain: Chain) -> None:
    true, other, rest = n.logits

    def verify_loss(own: Known, _: Known) -> list[sp.Expr]:
        value = own(LOSS)
        residuals = [sp.exp(-value) * total - sp.exp(true)]
        for count in (2, 3, 5):  # one term for each class
            outputs = [true, other, *[rest] * (count - 2)]
            residuals.append(sp.exp(-value.subs(n.K, count)) * sum(map(sp.exp, outputs)) - sp.exp(true))
        return residuals

    total = sp.exp(true) + sp.exp(other) + (n.K - 2) * sp.exp(rest)
    chain.add(
        "loss",
        "The loss is minus the log-probability of the true class: f0 is its logit, f1 that of one other class, and f2 "
        "that of each of the K - 2 classes left.",
        {LOSS: sp.log(total) - true},
        verify_loss,
        domain=CLASSES,
    )

    def slope(known: Known, index: int) -> sp.Expr:
        return -sp.diff(known(LOSS), n.logits[index]).subs({true: n.u + other, rest: other})

    chain.add(
        "residuals",
        "With all other classes alike the loss depends on the gap u, true logit minus any other, and so do its slopes: "
        "that in the true logit is the probability of an error, which the others share.",
        {g(n.u): sp.simplify(slope(chain.known, index)) for index, g in enumerate((n.g_true, n.g_other))},
        lambda own, earlier: [
            own(n.g_true(n.u)) - slope(earlier, 0),
            own(n.g_other(n.u)) - slope(earlier, 1),
            own(n.g_true(n.u)) + (n.K - 1) * own(n.g_other(n.u)),
        ],
        domain=CLASSES,
    )


def _one_layer(chain: Chain, loss: str) -> None:
    rates = tuple(n.rate(function) for function in n.columns_of)
    binary = derive("one-layer", loss).result["du/dt"].rhs

    def verify_flow(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiate the loss in the weights themselves; the third stands for all that are left.
        left = sp.Symbol("w_left", real=True)
        outputs = dict(zip(n.logits, (n.r * weight for weight in (*n.columns, left)), strict=True))
        total = n.p * earlier(LOSS).subs(outputs)
        gap = n.r * (n.columns[0] - n.columns[1])
        pairs = zip(map(own, rates), n.columns, strict=True)
        return descends(earlier, total, pairs, {n.u: gap}, {left: n.columns[1]})

    chain.add(
        "gradient flow",
        "One layer: the weights from an input to the true class and to another one; the logits are r times these weights.",
        {rate: n.p * n.r * chain.known(g(n.u)) for rate, g in zip(rates, (n.g_true, n.g_other), strict=True)},
        verify_flow,
        domain=CLASSES,
    )
    speed = n.r * (chain.known(rates[0]) - chain.known(rates[1]))

    def verify_gap(own: Known, earlier: Known) -> list[sp.Expr]:
        # Two classes are one logit, the gap, and the class seen from both outputs has the norm sqrt(2) r.
        return [
            own(n.du_dt) - n.r * (earlier(rates[0]) - earlier(rates[1])),
            own(n.du_dt).subs(n.K, 2) - binary.subs(n.r, sp.sqrt(2) * n.r),
        ]

    chain.add(
        "gap equation",
        "The gap obeys a closed scalar equation; for K = 2 it is the equation of the binary loss.",
        {n.du_dt: sp.factor(speed)},
        verify_gap,
        domain=CLASSES,
        reference="(11.1)",
    )


def _curve(chain: Chain) -> None:
    rate = chain.known(n.du_dt)
    pace = n.K * n.p * n.r**2
    primitive = sp.integrate(sp.expand(sp.simplify(pace / rate)), n.u)
    chain.add(
        "time from gap",
        "Separating the variables gives the time as an elementary function of the gap.",
        {n.t_of(n.u): (primitive - primitive.subs(n.u, n.u0)) / pace},
        domain=CLASSES,
        reference="(11.1)",
        inverts=LOGIT_FLOW,
    )
    # In w = u - log(K - 1): w + e^w = C, with one letter for the rest.
    shifted = sp.Symbol("shifted", real=True)
    level = sp.expand(primitive.subs(n.u, shifted + sp.log(n.K - 1)) / (n.K - 1))
    moving, constant = sp.simplify(level).expand().as_independent(shifted, as_Add=True)[::-1]
    (curve,) = sp.solve(sp.Eq(moving, n.C), shifted)
    start = (pace * n.t + primitive.subs(n.u, n.u0)) / (n.K - 1) - constant

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # By the chain rule through C, a letter here; then the start.
        curve, level = own(n.u_of(n.t)), own(n.C)
        return [
            sp.diff(curve, n.C) * sp.diff(level, n.t) - earlier(n.du_dt).subs(n.u, curve),
            curve.subs(n.C, level.subs(n.t, 0)) - n.u0,
        ]

    chain.add(
        "gap in time",
        "Solved for the gap with Lambert W, principal branch, and put back into the gap equation.",
        {n.C: start, n.u_of(n.t): curve + sp.log(n.K - 1)},
        verify,
        domain={n.K: (2, 9)},
        reference="(11.1)",
    )


def _read_out(chain: Chain) -> None:
    size = sp.sqrt(1 - 1 / n.K)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        true, other = own(n.c_true), own(n.c_other)
        return [
            true**2 + (n.K - 1) * other**2 - 1,
            # The force on a read-out points along c, so that a read-out along c stays along c.
            earlier(n.g_true(n.u)) * other - earlier(n.g_other(n.u)) * true,
            sp.Abs(true) - true,
        ]

    chain.add(
        "read-out direction",
        "Two layers: a neuron exclusive to a class pulls its read-out along one unit vector c, with one entry for the "
        "true class and another for each of the rest.",
        {n.c_true: (1 - 1 / n.K) / size, n.c_other: -1 / (n.K * size)},
        verify,
        domain=CLASSES,
        reference="(11.2)",
    )


def _two_layers(chain: Chain, loss: str) -> None:
    carried = sum((n.a[j] * n.z[j] for j in NEURONS), sp.S.Zero)
    entries = {letter: chain.known(letter) for letter in (n.c_true, n.c_other)}
    gain = n.c_true * chain.known(n.g_true(n.u)) + (n.K - 1) * n.c_other * chain.known(n.g_other(n.u))
    spread = sp.sqrt(sp.simplify((n.c_true - n.c_other).subs(entries) ** 2))
    pairs = tuple(
        (of, now, then) for j in NEURONS for of, now, then in ((n.a_of[j], n.a[j], n.z[j]), (n.z_of[j], n.z[j], n.a[j]))
    )

    def verify_flow(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiate the loss of the network in its weights: all logits are c times one sum over the neurons.
        true, other = (n.r * carried * earlier(letter) for letter in (n.c_true, n.c_other))
        total = n.p * earlier(LOSS).subs(dict(zip(n.logits, (true, other, other), strict=True)))
        gain = {n.G_of(n.u): own(n.G_of(n.u)).subs(n.u, true - other)}
        rates = [(own(n.rate(function)), now) for function, now, _ in pairs]
        return [own(n.u) - (true - other), *descends(earlier, total, rates, gain)]

    chain.add(
        "two layers",
        "Weights along the input (a) and read-outs along c (z) feed each other, as in a mode, with G in place of g.",
        {
            n.u: n.r * spread * carried,
            n.G_of(n.u): sp.simplify(gain.subs(entries)),
            **{n.rate(function): n.p * n.r * n.G_of(n.u) * partner for function, _, partner in pairs},
        },
        verify_flow,
        domain=CLASSES,
        reference="(11.2)",
    )
    mode = derive("mode", loss)
    chain.cite(mode, "sums and differences", "M plus and M minus, as in the derivation of the mode.", [n.M_plus, n.M_minus])
    root = sp.sqrt(n.kappa**2 + n.u**2)

    def verify_mode(own: Known, earlier: Known) -> list[sp.Expr]:
        scale = earlier(n.u) / carried
        state = {n.kappa: own(n.kappa), n.u: scale * (n.M_plus - n.M_minus) / 4}
        logit_speed = scale * sum(
            (sp.diff(carried, now) * earlier(n.rate(function)) for function, now, _ in pairs), sp.S.Zero
        )
        sums = {n.M_plus: earlier(n.M_plus), n.M_minus: earlier(n.M_minus)}
        straight = scale * n.p * n.r * n.G_of(n.u) * (n.M_plus + n.M_minus) / 2
        written_out = {n.G_of(n.u): earlier(n.G_of(n.u))}
        return [
            own(n.du_dt).subs(state, simultaneous=True) - straight.subs(written_out).subs(n.u, state[n.u]),
            (straight.subs(sums) - logit_speed).subs(written_out),
            state[n.u].subs(sums) - earlier(n.u),
            own(n.du_dt).subs(n.K, 2) - mode.result["du/dt"].rhs.subs(n.r, sp.sqrt(2) * n.r),
        ]

    chain.add(
        GENERAL,
        "Again a hyperbolic clock: the mode equation with G for g. For K = 2 it is the equation of the binary loss.",
        {
            n.kappa: n.r * spread * sp.sqrt(n.M_plus) * sp.sqrt(n.M_minus) / 2,
            n.du_dt: 2 * n.p * n.r * chain.known(n.G_of(n.u)) * root,
        },
        verify_mode,
        domain=CLASSES,
        reference="(11.2)",
    )


def _two_layer_times(chain: Chain) -> None:
    gain = chain.known(n.G_of(n.u))
    # 1/G is a constant and a multiple of e^u.
    inverse = sp.expand(sp.simplify(1 / gain)).subs(n.u, n.kappa * sp.sinh(n.phi))
    constant, rest = inverse.as_independent(n.phi, as_Add=True)
    multiple, wave = rest.as_independent(n.phi, as_Add=False)
    time = sp.simplify(constant) * (n.theta - n.theta0) + multiple * sp.Integral(wave, (n.phi, n.theta0, n.theta))

    chain.add(
        "time from angle",
        "With the angle as variable, where the gap is kappa sinh theta, the square root disappears from the time.",
        {n.t_of(n.theta): time / (2 * n.p * n.r)},
        domain=CLASSES,
        reference="(11.2)",
        inverts=ANGLE_FLOW,
    )
    balanced = chain.known(n.du_dt, GENERAL).subs({n.kappa: 0, n.u: n.u_positive})
    chain.add(
        BALANCED,
        "Neurons with a = z have kappa = 0, and the equation loses its square root; u is positive.",
        {n.du_dt: balanced},
        lambda own, earlier: [own(n.du_dt) - earlier(n.du_dt, GENERAL).subs({n.kappa: 0, n.u: n.u_positive})],
        domain=CLASSES,
        reference="(11.2)",
    )
    parts = sp.expand(sp.simplify(2 * n.p * n.r * n.u_positive / balanced)).subs(n.u_positive, n.v_positive)
    primitive = sp.integrate(sp.expand(parts / n.v_positive), n.v_positive)
    primitive = sp.factor(primitive)
    elapsed = primitive.subs(n.v_positive, n.u_positive) - primitive.subs(n.v_positive, n.u0_positive)
    chain.add(
        "balanced time",
        "In the balanced limit the time is integrated by SymPy and checked by differentiation.",
        {n.t_of(n.u_positive): elapsed / (2 * n.p * n.r)},
        domain=CLASSES,
        reference="(11.2)",
        inverts=BALANCED_FLOW,
    )
