"""The four losses as SymPy expressions of the margin, each with a property that characterises it.

The formula of a loss is not derived from anything. So each loss has a *characterisation*: residuals that vanish for this
loss and for no other formula, which check the first step of every derivation.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import sympy as sp

from gradstarve.symbolic._notation import m


@dataclass(frozen=True)
class SymbolicLoss:
    """A loss of the margin m = y f(x), labels y = ±1.

    Attributes:
        name: the name used all over the package.
        value: l(m), an expression in the symbol `m`.
        claim: the characteristic property of the loss, in words.
        characterise: maps a candidate l(m) to residuals that vanish for the true one only.
    """

    name: str
    value: sp.Expr
    claim: str
    characterise: Callable[[sp.Expr], list[sp.Expr]]


def _squared_properties(value: sp.Expr) -> list[sp.Expr]:
    return [sp.diff(value, m, 2) - 1, sp.diff(value, m).subs(m, 1), value.subs(m, 1)]


def _hinge_properties(value: sp.Expr) -> list[sp.Expr]:
    # l(m) and its reflection l(2-m) about the margin 1 are never both above 0, and differ by the straight line 1-m.
    reflected = value.subs(m, 2 - m)
    return [value * reflected, value - reflected - (1 - m)]


LOSSES: dict[str, SymbolicLoss] = {
    loss.name: loss
    for loss in (
        SymbolicLoss(
            "cross-entropy",
            sp.log(1 + sp.exp(-m)),
            "The loss is minus the log-probability of the true label, P = sigmoid(m).",
            lambda value: [sp.exp(-value) - 1 / (1 + sp.exp(-m))],
        ),
        SymbolicLoss(
            "hinge",
            sp.Max(0, 1 - m),
            "The loss is the straight line 1 - m up to the margin 1, and zero beyond it.",
            _hinge_properties,
        ),
        SymbolicLoss(
            "exponential",
            sp.exp(-m),
            "The loss is its own decay rate and equals 1 at margin 0.",
            lambda value: [sp.diff(value, m) + value, value.subs(m, 0) - 1],
        ),
        SymbolicLoss(
            "squared",
            (1 - m) ** 2 / 2,
            "The loss has unit curvature and its minimum, zero, at margin 1.",
            _squared_properties,
        ),
    )
}


def residual_of(value: sp.Expr) -> sp.Expr:
    """The residual g(m) = -dl/dm, by differentiation, as an expression in `m`."""
    derivative = -sp.diff(value, m)
    # The hinge loss has no derivative at its kink. Any g(1) gives the same flow up to t*; with g(1) = 0 it rests there.
    derivative = derivative.replace(sp.Heaviside, lambda x, *_: sp.Piecewise((1, x > 0), (0, True)))
    return sp.simplify(derivative)


def while_learning(expression: sp.Expr) -> sp.Expr:
    """The branch that holds before the margin is reached, for a hinge-like case distinction."""
    return expression.replace(sp.Piecewise, lambda first, *_: first[0])
