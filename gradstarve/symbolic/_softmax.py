"""K classes under softmax cross-entropy, K a letter: one layer with Lambert W (11.1), two layers on a clock (11.2).

The K inputs are orthogonal, of norm r and weight p each, so the classes do not meet. Within one of them the other K - 1
logits are alike by symmetry, and stay so; one of them is singled out, to see what moves it.
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
    inverts_flow,
)
from gradstarve.symbolic._mode import NEURONS
from gradstarve.symbolic._notation import (
    C,
    G_of,
    K,
    M_minus,
    M_plus,
    a,
    a_of,
    c_other,
    c_true,
    columns,
    columns_of,
    ell,
    g_other,
    g_true,
    kappa,
    logits,
    p,
    phi,
    r,
    t,
    t_of,
    theta,
    theta0,
    u,
    u0,
    u0_positive,
    u_of,
    u_positive,
    v_positive,
    z,
    z_of,
)

LOSSES = ("cross-entropy",)

CLASSES: Domain = {K: (sp.Rational(3, 2), 9)}
LOSS = ell(*logits)


def build(loss: str) -> Derivation:
    """Derive the laws of K classes under softmax cross-entropy; see `gradstarve.symbolic.derive`."""
    chain = Chain()
    _loss(chain)
    _one_layer(chain, loss)
    _curve(chain)
    _read_out(chain)
    _two_layers(chain, loss)
    _two_layer_times(chain)
    angles = (theta, K, p, r, kappa, theta0)
    balanced = (u_positive, K, p, r, u0_positive)
    targets = {
        "u(t)": Target("gap in time", u_of(t), (t, K, p, r, u0), "One layer, any first gap u0; K > 1."),
        "t(u)": Target("time from gap", t_of(u), (u, K, p, r, u0), "One layer."),
        "du/dt two layers": Target(GENERAL, du_dt, (u, K, p, r, kappa)),
        "kappa": Target(GENERAL, kappa, (K, r, M_plus, M_minus)),
        "t(theta) two layers": Target("time from angle", t_of(theta), angles),
        "t(u) two layers balanced": Target("balanced time", t_of(u_positive), balanced, "Valid for u0, u > 0."),
    }
    return Derivation("softmax", loss, "Softmax cross-entropy with K classes", chain.steps, targets)


def _loss(chain: Chain) -> None:
    true, other, rest = logits

    def verify_loss(own: Known, _: Known) -> list[sp.Expr]:
        value = own(LOSS)
        residuals = [sp.exp(-value) * total - sp.exp(true)]
        for count in (2, 3, 5):  # one term for each class
            outputs = [true, other, *[rest] * (count - 2)]
            residuals.append(sp.exp(-value.subs(K, count)) * sum(map(sp.exp, outputs)) - sp.exp(true))
        return residuals

    total = sp.exp(true) + sp.exp(other) + (K - 2) * sp.exp(rest)
    chain.add(
        "loss",
        "The loss is minus the log-probability of the true class: f0 is its logit, f1 that of one other class, and f2 "
        "that of each of the K - 2 classes left.",
        equal(LOSS, sp.log(total) - true),
        verify_loss,
        domain=CLASSES,
    )

    def slope(known: Known, index: int) -> sp.Expr:
        return -sp.diff(known(LOSS), logits[index]).subs({true: u + other, rest: other})

    chain.add(
        "residuals",
        "With all other classes alike the loss depends on the gap u, true logit minus any other, and so do its slopes: "
        "that in the true logit is the probability of an error, which the others share.",
        tuple(equal(g(u), sp.simplify(slope(chain.known, index))) for index, g in enumerate((g_true, g_other))),
        lambda own, earlier: [
            own(g_true(u)) - slope(earlier, 0),
            own(g_other(u)) - slope(earlier, 1),
            own(g_true(u)) + (K - 1) * own(g_other(u)),
        ],
        domain=CLASSES,
    )


def _one_layer(chain: Chain, loss: str) -> None:
    rates = tuple(sp.Derivative(function(t), t) for function in columns_of)
    binary = derive("one-layer", loss).result["du/dt"].rhs

    def verify_flow(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiate the loss in the weights themselves; the third stands for all that are left.
        left = sp.Symbol("w_left", real=True)
        outputs = dict(zip(logits, (r * weight for weight in (*columns, left)), strict=True))
        total = p * earlier(LOSS).subs(outputs)
        gap = r * (columns[0] - columns[1])
        return [
            own(rate).subs(u, gap) + sp.diff(total, weight).subs(left, columns[1])
            for rate, weight in zip(rates, columns, strict=True)
        ]

    chain.add(
        "gradient flow",
        "One layer: the weights from an input to the true class and to another one, of which its logits are r times.",
        tuple(equal(rate, p * r * chain.known(g(u))) for rate, g in zip(rates, (g_true, g_other), strict=True)),
        verify_flow,
        domain=CLASSES,
    )
    speed = r * (chain.known(rates[0]) - chain.known(rates[1]))

    def verify_gap(own: Known, earlier: Known) -> list[sp.Expr]:
        # Two classes are one logit, the gap, and the class seen from both outputs has the norm sqrt(2) r.
        return [
            own(du_dt) - r * (earlier(rates[0]) - earlier(rates[1])),
            own(du_dt).subs(K, 2) - binary.subs(r, sp.sqrt(2) * r),
        ]

    chain.add(
        "gap equation",
        "The gap obeys a scalar equation of its own; for K = 2 it is that of the binary loss.",
        equal(du_dt, sp.factor(speed)),
        verify_gap,
        domain=CLASSES,
        reference="(11.1)",
    )


def _curve(chain: Chain) -> None:
    rate = chain.known(du_dt)
    pace = K * p * r**2
    primitive = sp.integrate(sp.expand(sp.simplify(pace / rate)), u)
    chain.add(
        "time from gap",
        "Separating the variables gives the time as an elementary function of the gap.",
        equal(t_of(u), (primitive - primitive.subs(u, u0)) / pace),
        lambda own, earlier: inverts_flow(own(t_of(u)), earlier(du_dt), u, u0),
        domain=CLASSES,
        reference="(11.1)",
    )
    # In w = u - log(K - 1): w + e^w = C, with one letter for the rest.
    shifted = sp.Symbol("shifted", real=True)
    level = sp.expand(primitive.subs(u, shifted + sp.log(K - 1)) / (K - 1))
    moving, constant = sp.simplify(level).expand().as_independent(shifted, as_Add=True)[::-1]
    (curve,) = sp.solve(sp.Eq(moving, C), shifted)
    start = (pace * t + primitive.subs(u, u0)) / (K - 1) - constant

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # By the chain rule through C, a letter here; then the start.
        curve, level = own(u_of(t)), own(C)
        return [
            sp.diff(curve, C) * sp.diff(level, t) - earlier(du_dt).subs(u, curve),
            curve.subs(C, level.subs(t, 0)) - u0,
        ]

    chain.add(
        "gap in time",
        "Solved for the gap with Lambert W, principal branch, and put back into the gap equation.",
        (equal(C, start), equal(u_of(t), curve + sp.log(K - 1))),
        verify,
        domain={K: (2, 9)},
        reference="(11.1)",
    )


def _read_out(chain: Chain) -> None:
    size = sp.sqrt(1 - 1 / K)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        true, other = own(c_true), own(c_other)
        return [
            true**2 + (K - 1) * other**2 - 1,
            # The force on a read-out points along c, so that what lies along it stays along it.
            earlier(g_true(u)) * other - earlier(g_other(u)) * true,
            sp.Abs(true) - true,
        ]

    chain.add(
        "read-out direction",
        "Two layers: a neuron exclusive to a class pulls its read-out along one unit vector c, with one entry for the "
        "true class and another for each of the rest.",
        (equal(c_true, (1 - 1 / K) / size), equal(c_other, -1 / (K * size))),
        verify,
        domain=CLASSES,
        reference="(11.2)",
    )


def _two_layers(chain: Chain, loss: str) -> None:
    carried = sum((a[j] * z[j] for j in NEURONS), sp.S.Zero)
    entries = {letter: chain.known(letter) for letter in (c_true, c_other)}
    gain = c_true * chain.known(g_true(u)) + (K - 1) * c_other * chain.known(g_other(u))
    spread = sp.sqrt(sp.simplify((c_true - c_other).subs(entries) ** 2))
    pairs = tuple((of, now, then) for j in NEURONS for of, now, then in ((a_of[j], a[j], z[j]), (z_of[j], z[j], a[j])))

    def verify_flow(own: Known, earlier: Known) -> list[sp.Expr]:
        # Differentiate the loss of the network in its weights: all logits are c times what the neurons carry.
        true, other = (r * carried * earlier(letter) for letter in (c_true, c_other))
        total = p * earlier(LOSS).subs(dict(zip(logits, (true, other, other), strict=True)))
        residuals = [own(u) - (true - other)]
        for function, now, _ in pairs:
            claimed = own(sp.Derivative(function(t), t)).subs(G_of(u), own(G_of(u)).subs(u, true - other))
            residuals.append(claimed + sp.diff(total, now))
        return residuals

    chain.add(
        "two layers",
        "Weights along the input (a) and read-outs along c (z) feed each other, as in a mode: G takes the place of g.",
        (
            equal(u, r * spread * carried),
            equal(G_of(u), sp.simplify(gain.subs(entries))),
            *(equal(sp.Derivative(function(t), t), p * r * G_of(u) * partner) for function, _, partner in pairs),
        ),
        verify_flow,
        domain=CLASSES,
        reference="(11.2)",
    )
    mode = derive("mode", loss)
    chain.cite(mode, "sums and differences", "M plus and M minus, as in the derivation of the mode.", [M_plus, M_minus])
    root = sp.sqrt(kappa**2 + u**2)

    def verify_mode(own: Known, earlier: Known) -> list[sp.Expr]:
        scale = earlier(u) / carried
        state = {kappa: own(kappa), u: scale * (M_plus - M_minus) / 4}
        logit_speed = scale * sum(
            (sp.diff(carried, now) * earlier(sp.Derivative(function(t), t)) for function, now, _ in pairs), sp.S.Zero
        )
        sums = {M_plus: earlier(M_plus), M_minus: earlier(M_minus)}
        straight = scale * p * r * G_of(u) * (M_plus + M_minus) / 2
        written_out = {G_of(u): earlier(G_of(u))}
        return [
            own(du_dt).subs(state, simultaneous=True) - straight.subs(written_out).subs(u, state[u]),
            (straight.subs(sums) - logit_speed).subs(written_out),
            state[u].subs(sums) - earlier(u),
            own(du_dt).subs(K, 2) - mode.result["du/dt"].rhs.subs(r, sp.sqrt(2) * r),
        ]

    chain.add(
        GENERAL,
        "Again a hyperbolic clock: the mode equation with G for g. For K = 2 it is that of the binary loss.",
        (
            equal(kappa, r * spread * sp.sqrt(M_plus) * sp.sqrt(M_minus) / 2),
            equal(du_dt, 2 * p * r * chain.known(G_of(u)) * root),
        ),
        verify_mode,
        domain=CLASSES,
        reference="(11.2)",
    )


def _two_layer_times(chain: Chain) -> None:
    gain = chain.known(G_of(u))
    # 1/G is a constant and a multiple of e^u.
    inverse = sp.expand(sp.simplify(1 / gain)).subs(u, kappa * sp.sinh(phi))
    constant, rest = inverse.as_independent(phi, as_Add=True)
    multiple, wave = rest.as_independent(phi, as_Add=False)
    time = sp.simplify(constant) * (theta - theta0) + multiple * sp.Integral(wave, (phi, theta0, theta))

    def verify_angle(own: Known, earlier: Known) -> list[sp.Expr]:
        rate = earlier(du_dt, GENERAL).subs(u, kappa * sp.sinh(theta)) / (kappa * sp.cosh(theta))
        return inverts_flow(own(t_of(theta)), rate, theta, theta0)

    chain.add(
        "time from angle",
        "With the angle as variable, where the gap is kappa sinh theta, the square root disappears from the time.",
        equal(t_of(theta), time / (2 * p * r)),
        verify_angle,
        domain=CLASSES,
        reference="(11.2)",
    )
    balanced = chain.known(du_dt, GENERAL).subs({kappa: 0, u: u_positive})
    chain.add(
        BALANCED,
        "Neurons with a = z have kappa = 0, and the equation loses its square root; u is positive.",
        equal(du_dt, balanced),
        lambda own, earlier: [own(du_dt) - earlier(du_dt, GENERAL).subs({kappa: 0, u: u_positive})],
        domain=CLASSES,
        reference="(11.2)",
    )
    parts = sp.expand(sp.simplify(2 * p * r * u_positive / balanced)).subs(u_positive, v_positive)
    primitive = sp.integrate(sp.expand(parts / v_positive), v_positive)
    primitive = sp.factor(primitive)
    elapsed = primitive.subs(v_positive, u_positive) - primitive.subs(v_positive, u0_positive)
    chain.add(
        "balanced time",
        "In the balanced limit the time is integrated by SymPy and checked by differentiation.",
        equal(t_of(u_positive), elapsed / (2 * p * r)),
        lambda own, earlier: inverts_flow(own(t_of(u_positive)), earlier(du_dt, BALANCED), u_positive, u0_positive),
        domain=CLASSES,
        reference="(11.2)",
    )
