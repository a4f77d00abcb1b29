"""What the laws share when they write their steps: a growing chain, and a few moves on equations."""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportAssignmentType=false, reportIndexIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from gradstarve.symbolic._checks import Domain
from gradstarve.symbolic._derivation import Derivation, Equations, Known, Step, Verify
from gradstarve.symbolic._notation import g, m, t, u_of


def equal(left: sp.Basic, right: sp.Expr) -> sp.Eq:
    """The equation left = right as written; SymPy would otherwise turn some of them into `True`."""
    return sp.Eq(left, right, evaluate=False)


class Chain:
    """Steps under construction. `chain.known(label)` looks up what the steps so far have established."""

    def __init__(self, steps: tuple[Step, ...] = ()):
        self._steps = list(steps)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far."""
        return tuple(self._steps)

    @property
    def known(self) -> Known:
        """Their equations."""
        return Known((step.name, step.equations) for step in self._steps)

    def add(
        self,
        name: str,
        claim: str,
        equation: sp.Eq | Equations,
        verify: Verify,
        domain: Domain | None = None,
        reference: str = "",
    ) -> None:
        """Append a step; the arguments are the attributes of `Step`."""
        self._steps.append(Step(name, claim, equation, verify, domain or {}, reference))

    def cite(self, source: Derivation, name: str, claim: str, labels: Sequence[sp.Basic] = ()) -> None:
        """Append what step `name` of another derivation has established: all of it, or the equations for `labels`.

        Nothing is typed in again, and the check holds the copy to what that derivation says.
        """
        step = source[name]
        there = Known([(name, step.equations)])
        wanted = labels or [equation.lhs for equation in step.equations]
        self.add(
            name,
            claim,
            tuple(equal(label, there(label)) for label in wanted),
            lambda own, _: [own(label) - there(label) for label in wanted],
            reference=step.reference,
        )


du_dt = sp.Derivative(u_of(t), t)
"""Left-hand side of every scalar law; its right-hand side is written in the symbol u, not in u(t)."""

GENERAL = "mode equation"
BALANCED = "balanced equation"
"""Names of the two steps the closed forms start from."""


def residual_at(known: Known, logit: sp.Expr) -> sp.Expr:
    """g at the given logit, from the step that found g."""
    return known(g(m)).subs(m, logit)


def without_g(expression: sp.Expr, known: Known) -> sp.Expr:
    """`expression` with the letter g replaced by the formula found for it."""
    return expression.replace(g, lambda logit: residual_at(known, logit))


def while_learning(expression: sp.Expr) -> sp.Expr:
    """The branch that holds before the margin is reached, for a hinge-like case distinction."""
    return expression.replace(sp.Piecewise, lambda first, *_: first[0])


def drop_empty_integrals(expression: sp.Expr) -> sp.Expr:
    """`expression` with integrals over an interval of length zero removed."""
    empty = {i: sp.S.Zero for i in expression.atoms(sp.Integral) if i.limits[0][1] == i.limits[0][2]}
    return expression.xreplace(empty)


def inverts_flow(time: sp.Expr, rate: sp.Expr, variable: sp.Symbol, start: sp.Expr) -> list[sp.Expr]:
    """Residuals of "t(variable) is the time the law d variable/dt = rate takes from `start`"."""
    return [sp.diff(time, variable) * rate - 1, drop_empty_integrals(time.subs(variable, start))]


def solves_flow(curve: sp.Expr, rate: sp.Expr, variable: sp.Symbol, start: sp.Expr) -> list[sp.Expr]:
    """Residuals of "variable = curve(t) solves d variable/dt = rate from `start`"."""
    return [sp.diff(curve, t) - rate.subs(variable, curve), curve.subs(t, 0) - start]


def expanded(expression: sp.Expr, definitions: Mapping[sp.Basic, sp.Expr]) -> sp.Expr:
    """`expression` with auxiliary symbols replaced, the last first, so that they may use earlier ones."""
    for symbol, value in reversed(list(definitions.items())):
        expression = expression.subs(symbol, value)
    return expression
