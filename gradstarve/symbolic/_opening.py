"""The first steps of derivations: from the network and the loss to the gradient flow, or citations of another derivation.

The points of one class share a direction xh (unit vector) and a norm r; p is their total weight. In two dimensions one
direction along the class and one across it stand for all.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, without_g
from gradstarve.symbolic._derivation import Derivation, Known
from gradstarve.symbolic._derive import derive
from gradstarve.symbolic._losses import LOSSES, residual_of

Coordinate = tuple[sp.Symbol, Any]
"""A coordinate of a neuron: its letter, and the function of time of the same name."""


@dataclass(frozen=True)
class Neuron:
    """A neuron active on the class: its weights in the plane, their parts along and across the class, its read-out."""

    weights: tuple[sp.Symbol, sp.Symbol]
    along: Coordinate
    across: Coordinate
    read_out: Coordinate | None = None

    @property
    def coordinates(self) -> list[tuple[sp.Symbol, Any, dict[sp.Symbol, sp.Expr]]]:
        """(letter, function of time, direction in the weights) of each coordinate."""
        found = [
            (*self.along, dict(zip(self.weights, n.DIRECTION, strict=True))),
            (*self.across, dict(zip(self.weights, n.ACROSS, strict=True))),
        ]
        if self.read_out:
            found.append((*self.read_out, {self.read_out[0]: sp.S.One}))
        return found


def split_weights(chain: Chain, neurons: Sequence[Neuron], name: str, claim: str) -> None:
    """Add the step that splits weights into parts along and across the class, with the logit in terms of these parts."""
    values = {}
    for neuron in neurons:
        vector = neuron.along[0] * n.DIRECTION + neuron.across[0] * n.ACROSS
        values |= dict(zip(neuron.weights, vector, strict=True))
    logit = sp.simplify(chain.known(n.network).subs(values))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        vectors = [sp.Matrix([own(weight) for weight in neuron.weights]) for neuron in neurons]
        whole = earlier(n.network).subs({weight: own(weight) for weight in values})
        pairs = list(zip(vectors, neurons, strict=True))
        along = [vector.dot(n.DIRECTION) - neuron.along[0] for vector, neuron in pairs]
        across = [vector.dot(n.ACROSS) - neuron.across[0] for vector, neuron in pairs]
        return [whole - own(n.u), *along, *across]

    chain.add(name, claim, {**values, n.u: logit}, verify)


def add_loss(chain: Chain, loss: str) -> None:
    """Add the loss and its residual."""
    chosen = LOSSES[loss]
    chain.add("loss", chosen.claim, {n.ell(n.m): chosen.value}, lambda own, _: chosen.characterise(own(n.ell(n.m))))
    chain.add(
        "residual",
        "The residual is minus the slope of the loss.",
        {n.g(n.m): residual_of(chosen.value)},
        lambda own, earlier: [own(n.g(n.m)) + sp.diff(earlier(n.ell(n.m)), n.m)],
    )


def add_gradient_flow(chain: Chain, neurons: Sequence[Neuron], claim: str, reference: str = "") -> None:
    """Add the gradient flow of the parts of the weights and of the read-outs, from the logit as their function."""
    logit = chain.known(n.u)
    coordinates = [coordinate for neuron in neurons for coordinate in neuron.coordinates]
    now = {function(n.t): letter for letter, function, _ in coordinates}
    later = {letter: function for function, letter in now.items()}
    # Chain rule on p l(u): -p l'(u) du/d(coordinate).
    speeds = {
        n.rate(function): (n.p * n.g(n.u_of(n.t)) * sp.diff(logit, letter)).subs(later)
        for letter, function, _ in coordinates
    }

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Independently: differentiate the loss of the network itself in the weights, then project.
        total = total_loss(earlier, {n.network: n.p})
        weights = {weight: earlier(weight) for neuron in neurons for weight in neuron.weights}
        ways = [direction for _, _, direction in coordinates]
        rates = [own(speed).subs(now) for speed in speeds]
        return descends(earlier, total, zip(rates, ways, strict=True), {n.u_of(n.t): earlier(n.u)}, weights)

    chain.add("gradient flow", claim, speeds, verify, reference=reference)


def total_loss(known: Known, weights: Mapping[sp.Basic, sp.Expr]) -> sp.Expr:
    """The loss of samples with the given total `weights`, a mapping from the letters of their margins."""
    losses = (weight * known(n.ell(n.m)).subs(n.m, known(margin)) for margin, weight in weights.items())
    return sum(losses, sp.S.Zero)


def descends(
    known: Known,
    total: sp.Expr,
    rates: Iterable[tuple[sp.Expr, sp.Symbol | Mapping[sp.Symbol, sp.Expr]]],
    moving: Mapping[sp.Basic, sp.Expr] | None = None,
    at: Mapping[sp.Basic, sp.Expr] | None = None,
) -> list[sp.Expr]:
    """Residuals of "the rates are those of steepest descent of `total`", a loss in the weights of the network.

    Args:
        known: the equations so far; g is replaced by the formula in them.
        total: the loss, see `total_loss`.
        rates: (rate, weight) pairs; in place of a weight, a direction is a mapping from weights to components.
        moving: replacements in the rates, such as the logit at time t by its value.
        at: replacements in the slopes of the loss.
    """
    residuals = []
    for rate, way in rates:
        direction = way if isinstance(way, Mapping) else {way: sp.S.One}
        slope = sum((part * sp.diff(total, weight) for weight, part in direction.items()), sp.S.Zero)
        residuals.append(without_g(rate.subs(moving or {}), known) + slope.subs(at or {}))
    return residuals


# Derivations that continue another one.


def cite_loss(chain: Chain, loss: str, remark: str = "") -> None:
    """Cite the loss and its residual from the derivation for one layer."""
    single = derive("one-layer", loss)
    chain.cite(single, "loss", f"The loss, as in the derivation for one layer{remark}.")
    chain.cite(single, "residual", "Its residual.")


def continue_mode(chain: Chain, loss: str, *, force: bool = False) -> Derivation:
    """Cite the residual from the derivation of the mode, which is returned.

    With `force`, cite also the force on the weights along the class and on the read-outs, the logit, and its two sums.
    """
    mode = derive("mode", loss)
    chain.cite(mode, "residual", "The residual of the loss, as in the derivation of the mode.")
    if force:
        chain.cite(mode, "active side", "The logit of the mode, in its weights along the class and its read-outs.", [n.u])
        chain.cite(
            mode,
            "gradient flow",
            "Minus the gradient of the loss, which the flow follows; weights across the class do not move.",
            [n.rate(function) for function in MOVED],
        )
        chain.cite(
            mode,
            "sums and differences",
            "M plus and M minus, sums over the neurons; two neurons stand for any number, as all sums are linear in them.",
            [n.M_plus, n.M_minus, n.kappa],
        )
    return mode


MOVED = {functions[j]: letters[j] for j in n.NEURONS for functions, letters in ((n.a_of, n.a), (n.z_of, n.z))}
"""Function of time -> letter, for the coordinates of the two neurons of a mode that move."""


def force_on(known: Known, function: Any) -> sp.Expr:
    """Minus the slope of the loss in the coordinate `function`, at the present weights; u and g stay letters."""
    now = {moving(n.t): letter for moving, letter in MOVED.items()}
    return known(n.rate(function)).subs(now).subs(n.u_of(n.t), n.u)
