"""One mode of a hidden ReLU layer, first part: from the network and the loss to the gradient flow.

Two neurons in two dimensions stand for any number of both: every sum over neurons is linear in the neurons,
and every direction across the class behaves like the one kept here.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import Chain, equal, without_g
from gradstarve.symbolic._derivation import Known
from gradstarve.symbolic._losses import SymbolicLoss, residual_of
from gradstarve.symbolic._notation import (
    ACROSS,
    DIRECTION,
    W,
    a,
    a_of,
    b,
    b_of,
    ell,
    g,
    m,
    network,
    p,
    r,
    t,
    u,
    u_of,
    z,
    z_of,
)

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
