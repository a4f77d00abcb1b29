"""A derivation under construction, and operations on equations that the laws share."""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._derivation import Derivation, Domain, Known, Step, Verify

GENERAL = "mode equation"
BALANCED = "balanced equation"
"""Names of the two steps from which the closed forms start."""


def equal(left: sp.Basic, right: sp.Expr) -> sp.Eq:
    """The equation left = right, unevaluated; SymPy would otherwise turn some equations into `True`."""
    return sp.Eq(left, right, evaluate=False)


@dataclass(frozen=True)
class Flow:
    """The scalar law d `variable`/dt = `rate`(equations so far), from the value `start` at t = 0."""

    variable: sp.Symbol
    start: sp.Symbol
    rate: Callable[[Known], sp.Expr]


LOGIT_FLOW = Flow(n.u, n.u0, lambda known: known(n.du_dt))
"""The latest equation for du/dt."""

MODE_FLOW = Flow(n.u, n.u0, lambda known: known(n.du_dt, GENERAL))
BALANCED_FLOW = Flow(n.u_positive, n.u0_positive, lambda known: known(n.du_dt, BALANCED))
ANGLE_FLOW = Flow(
    n.theta,
    n.theta0,
    lambda known: known(n.du_dt, GENERAL).subs(n.u, n.kappa * sp.sinh(n.theta)) / (n.kappa * sp.cosh(n.theta)),
)
"""The mode equation in the angle: the logit is kappa sinh theta."""


class Chain:
    """The steps of a derivation under construction. `chain.known(label)` looks up an equation of the steps so far."""

    def __init__(self) -> None:
        self._steps: list[Step] = []

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far."""
        return tuple(self._steps)

    @property
    def known(self) -> Known:
        """The equations of the steps so far."""
        return Known((step.name, step.equations) for step in self._steps)

    def add(
        self,
        name: str,
        claim: str,
        equations: Mapping[sp.Basic, sp.Expr],
        verify: Verify | None = None,
        domain: Domain | None = None,
        reference: str = "",
        *,
        solves: Flow | None = None,
        inverts: Flow | None = None,
        through: Sequence[sp.Symbol] = (),
    ) -> None:
        """Append a step, checked in one or more of three ways.

        Args:
            name: see `Step`, as for `claim`, `domain` and `reference`.
            equations: left-hand side -> right-hand side.
            verify: a function of the step's own equations and the earlier ones, for a check of the step's own kind.
            solves: the flow that the step's u(t) must solve.
            inverts: the flow whose time to reach `variable` the step's t(variable) must be.
            through: auxiliary letters in u(t) and t(variable). The checks of flows replace them by their values, the
                last letter first, so that the value of a letter may use the letters before it.
        """

        def residuals(own: Known, earlier: Known) -> list[sp.Expr]:
            values = {letter: (own if own.has(letter) else earlier)(letter) for letter in through}
            found = []
            if solves:
                curve = expanded(own(n.u_of(n.t)), values)
                found += solves_flow(curve, solves.rate(earlier), solves.variable, solves.start)
            if inverts:
                time = expanded(own(n.t_of(inverts.variable)), values)
                found += inverts_flow(time, inverts.rate(earlier), inverts.variable, inverts.start)
            return [*found, *(verify(own, earlier) if verify else ())]

        first, *others = (equal(*sides) for sides in equations.items())
        equation = (first, *others) if others else first
        self._steps.append(Step(name, claim, equation, residuals, domain or {}, reference))

    def cite(self, source: Derivation, name: str, claim: str, labels: Sequence[sp.Basic] = ()) -> None:
        """Append the equations of step `name` of another derivation: all of them, or those for `labels`.

        No formula is typed in again, and the check compares the copy with the source.
        """
        step = source[name]
        there = Known([(name, step.equations)])
        wanted = labels or [equation.lhs for equation in step.equations]
        equations = tuple(equal(label, there(label)) for label in wanted)

        def verify(own: Known, _: Known) -> list[sp.Expr]:
            return [own(label) - there(label) for label in wanted]

        self._steps.append(Step(name, claim, equations, verify, reference=step.reference))


# Operations on equations.


def residual_at(known: Known, logit: sp.Expr) -> sp.Expr:
    """g at the given logit, from the step that found g."""
    return known(n.g(n.m)).subs(n.m, logit)


def without_g(expression: sp.Expr, known: Known) -> sp.Expr:
    """`expression` with the letter g replaced by the formula found for it."""
    return expression.replace(n.g, lambda logit: residual_at(known, logit))


def drop_empty_integrals(expression: sp.Expr) -> sp.Expr:
    """`expression` with integrals over an interval of length zero removed."""
    empty = {i: sp.S.Zero for i in expression.atoms(sp.Integral) if i.limits[0][1] == i.limits[0][2]}
    return expression.xreplace(empty)


def inverts_flow(time: sp.Expr, rate: sp.Expr, variable: sp.Symbol, start: sp.Expr) -> list[sp.Expr]:
    """Residuals of "t(variable) is the time the law d variable/dt = rate takes from `start`"."""
    return [sp.diff(time, variable) * rate - 1, drop_empty_integrals(time.subs(variable, start))]


def solves_flow(curve: sp.Expr, rate: sp.Expr, variable: sp.Symbol, start: sp.Expr) -> list[sp.Expr]:
    """Residuals of "variable = curve(t) solves d variable/dt = rate from `start`"."""
    return [sp.diff(curve, n.t) - rate.subs(variable, curve), curve.subs(n.t, 0) - start]


def expanded(expression: sp.Expr, definitions: Mapping[sp.Basic, sp.Expr]) -> sp.Expr:
    """`expression` with auxiliary symbols replaced, the last first, so that they may use earlier ones."""
    for symbol, value in reversed(list(definitions.items())):
        expression = expression.subs(symbol, value)
    return expression
