"""A derivation: a chain of steps, each an equation with a check that ties it to the equations before it.

A step does not store that it is right. It stores a function, `verify`, which takes the step's own equations
and the equations of the earlier steps and returns *residuals*: expressions that vanish if the step is
right. Change a formula anywhere, and the residuals computed from it no longer vanish.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import sympy as sp

from gradstarve.ground import can_pickle, did_you_mean, shown
from gradstarve.symbolic._checks import CheckResult, Domain, defects

Equations = tuple[sp.Eq, ...]


class DerivationError(ValueError):
    """A step of a derivation does not follow from the steps before it. The message names the step."""


class Known:
    """Equations already at hand, looked up by what stands on their left.

    `known(label)` is the right-hand side of the latest equation for `label`. An equation whose left side has
    `label` as a factor or a term (say, 2 u = ...) is solved for it, so that a changed left side is noticed.
    """

    def __init__(self, steps: Iterable[tuple[str, Equations]]):
        self._steps = list(steps)

    @property
    def equations(self) -> Equations:
        """All equations, in order."""
        return tuple(equation for _, group in self._steps for equation in group)

    def __call__(self, label: sp.Basic, step: str | None = None) -> sp.Expr:
        """The value of `label`, in the step of that name or, without one, in the latest step that has it."""
        equations = [e for name, group in reversed(self._steps) if step in (None, name) for e in group]
        for equation in equations:
            if equation.lhs == label:
                return equation.rhs
        for equation in equations:
            if equation.lhs.is_Mul and label in equation.lhs.args:
                return equation.rhs / (equation.lhs / label)
            if equation.lhs.is_Add and label in equation.lhs.args:
                return equation.rhs - (equation.lhs - label)
        where = f"step {step!r}" if step else "any step so far"
        raise DerivationError(f"no equation gives {label} in {where}; its left-hand side is missing or was changed")


Verify = Callable[[Known, Known], Sequence[sp.Expr]]
"""`verify(own, earlier)`: residuals of a step, from its own equations and those of the steps before it."""


def _no_check(own: Known, earlier: Known) -> Sequence[sp.Expr]:
    raise DerivationError("a step that was pickled on its own has no check; take it from derive(name, loss)[step]")


@dataclass(frozen=True)
class Step:
    """One step of a derivation.

    Attributes:
        name: short name, unique within the derivation.
        claim: what the step says, in plain words.
        equation: one `sympy.Eq`, or a tuple of them.
        verify: `verify(own, earlier)` returns the residuals that must vanish; see `Known`.
        domain: symbol -> (low, high), where random points are drawn for the check; see `checks.sample_point`.
        reference: equation number in this project's own numbering, such as "(3.4)", or "".
        method: how the check came out: "" before it has run, then "simplifies to 0" or
            "vanishes at N random points to 50 digits".
    """

    name: str
    claim: str
    equation: sp.Eq | Equations
    verify: Verify = field(repr=False)
    domain: Domain = field(default_factory=dict, repr=False)
    reference: str = ""
    method: str = ""

    def __getstate__(self) -> dict[str, Any]:
        # The check is a function inside of another one: a step on its own is kept for its equations.
        return {**self.__dict__, "verify": self.verify if can_pickle(self.verify) else _no_check}

    def __deepcopy__(self, memo: dict[int, Any]) -> Step:
        return self

    def _repr_markdown_(self) -> str:
        lines = [f"**{self.name}** {self.reference}. {self.claim}"]
        lines += [f"$$ {sp.latex(equation)} $$" for equation in self.equations]
        return "\n\n".join(lines)

    @property
    def equations(self) -> Equations:
        """The equations as a tuple, also when there is only one."""
        return self.equation if isinstance(self.equation, tuple) else (self.equation,)


@dataclass(frozen=True)
class Target:
    """Where a named result stands: the left-hand side `label` in step `step`, as a function of `arguments`.

    Symbols of the formula that are not arguments are expanded by the definitions found in the steps up to
    `step`.
    """

    step: str
    label: sp.Basic
    arguments: tuple[sp.Symbol, ...]
    note: str = ""


@dataclass(frozen=True)
class Derivation:
    """A checked chain of equations from a network and a loss to closed forms.

    Attributes:
        name: the law derived, such as "mode".
        loss: name of the loss.
        title: one line for headings.
        steps: the steps, in order.
        targets: name of a result -> where it stands in the chain.

    Example:
        >>> from gradstarve.symbolic import derive
        >>> derivation = derive("one-layer", "cross-entropy")
        >>> all(result.passed for result in derivation.check())
        True
        >>> print(derivation.result["u(t)"].rhs)
        C - LambertW(exp(C))
    """

    name: str
    loss: str
    title: str
    steps: tuple[Step, ...]
    targets: Mapping[str, Target] = field(repr=False)

    def __reduce__(self):
        # Steps hold functions, so that a derivation is derived again by its name; equations of the user's own go along.
        if (self.name, self.loss) in available():
            first = _build(self.name, self.loss)
            if [step.name for step in first.steps] == [step.name for step in self.steps]:
                pairs = zip(first.steps, self.steps, strict=True)
                own = tuple((step.name, step.equation) for was, step in pairs if step.equation != was.equation)
                return _derive_again, (self.name, self.loss, own)
        return super().__reduce__()

    def __getitem__(self, name: str) -> Step:
        """The step of that name."""
        for step in self.steps:
            if step.name == name:
                return step
        raise ValueError(f"no step named {name!r}; steps are {', '.join(repr(step.name) for step in self.steps)}")

    @property
    def result(self) -> dict[str, sp.Eq]:
        """The final equations by name, read off the steps (never stored apart from them)."""
        found = {}
        for key, target in self.targets.items():
            value = Known([(target.step, self[target.step].equations)])(target.label)
            found[key] = sp.Eq(target.label, value, evaluate=False)
        return found

    @property
    def default_target(self) -> str:
        """The result meant when none is named: u(t) where it has a closed form, otherwise t(u)."""
        return next(key for key in ("u(t)", "t(u)", *self.targets) if key in self.targets)

    def known_before(self, name: str) -> Known:
        """The equations of the steps before step `name`, for look-up."""
        end = self.steps.index(self[name])
        return Known((step.name, step.equations) for step in self.steps[:end])

    def residuals(self, name: str) -> tuple[sp.Expr, ...]:
        """The expressions that must vanish for step `name` to hold, computed afresh from the equations."""
        step = self[name]
        own = Known([(step.name, step.equations)])
        return tuple(sp.sympify(residual) for residual in step.verify(own, self.known_before(name)))

    def with_equation(self, name: str, equation: sp.Eq | Equations) -> Derivation:
        """A copy in which step `name` claims another equation; its check then says whether that holds too."""
        self[name]  # an unknown name is an error, not a copy without a change
        steps = tuple(replace(step, equation=equation) if step.name == name else step for step in self.steps)
        return replace(self, steps=steps)

    def check_step(self, name: str, points: int = 6, digits: int = 50, seed: int = 0) -> CheckResult:
        """Check one step and report, without raising when its residuals do not vanish; see `check`."""
        residuals = self.residuals(name)
        method, failure = defects(residuals, self[name].domain, points, digits, seed)
        return CheckResult(name, failure is None, method, residuals, failure or "")

    def check(self, points: int = 6, digits: int = 50, seed: int = 0) -> list[CheckResult]:
        """Check every step against those before it.

        Args:
            points: random points per residual.
            digits: decimal digits to which a residual must vanish, relative to its largest term.
            seed: seed of the random points.

        Returns:
            One `CheckResult` per step, in order; all have passed.

        Raises:
            DerivationError: a step does not hold; the message names it and its first residual that stays.
        """
        results = []
        for step in self.steps:
            try:
                result = self.check_step(step.name, points, digits, seed)
            except DerivationError as error:
                raise DerivationError(f"{self.name} ({self.loss}), step {step.name!r}: {error}") from error
            if not result.passed:
                raise DerivationError(
                    f"{self.name} ({self.loss}), step {step.name!r} does not follow from those before "
                    f"it: {result.failure}. The step claims: {step.claim}"
                )
            results.append(result)
        return results

    @cached_property
    def checked_steps(self) -> tuple[Step, ...]:
        """The steps with `method` filled in by their checks, which run on first use of this object.

        Raises:
            DerivationError: see `check`.
        """
        pairs = zip(self.steps, self.check(), strict=True)
        return tuple(replace(step, method=result.method) for step, result in pairs)

    def definitions(self, key: str) -> list[tuple[sp.Symbol, sp.Expr]]:
        """The definitions that result `key` rests on, in an order in which they can be evaluated.

        Each pair is a symbol and its value, in terms of the result's arguments and of symbols defined
        before it.
        """
        target = self._target(key)
        end = self.steps.index(self[target.step]) + 1
        known = Known((step.name, step.equations) for step in self.steps[:end])
        arguments, ordered = set(target.arguments), {}

        def expand(expression: sp.Expr, pending: tuple[sp.Symbol, ...]) -> None:
            for symbol in sorted(expression.free_symbols - arguments - ordered.keys(), key=str):
                if symbol in pending:
                    raise DerivationError(f"result {key!r}: the definition of {symbol} goes in a circle")
                value = known(symbol)
                expand(value, (*pending, symbol))
                ordered[symbol] = value

        expand(self.result[key].rhs, ())
        return list(ordered.items())

    def _target(self, key: str) -> Target:
        if not isinstance(key, str) or key not in self.targets:
            raise ValueError(f"no result named {shown(key)} in {self.name} ({self.loss}); results are {list(self.targets)}")
        return self.targets[key]

    def to_jax(self, which: str | None = None) -> Callable[..., Any]:
        """The result `which` as a JAX function of its symbols; see `printers.to_jax`."""
        from gradstarve.symbolic._printers import to_jax

        which = self.default_target if which is None else which
        return to_jax(self, which, self._target(which))

    def to_latex(self, document: bool = False) -> str:
        """The checked steps in LaTeX: a section, or with `document` an article that compiles by itself.

        Raises:
            DerivationError: a step fails its check; nothing is printed that does not hold.
        """
        from gradstarve.symbolic._printers import to_latex

        return to_latex(self, document)

    def to_markdown(self) -> str:
        """The checked steps in Markdown, equations between $$, for notebooks; raises as `to_latex` does."""
        from gradstarve.symbolic._printers import to_markdown

        return to_markdown(self)

    def __str__(self) -> str:
        lines = [self.title]
        for number, step in enumerate(self.checked_steps, start=1):
            reference = f" {step.reference}" if step.reference else ""
            lines += ["", f"{number}. {step.name}{reference}. {step.claim}"]
            lines += [f"       {sp.sstr(equation.lhs)} = {sp.sstr(equation.rhs)}" for equation in step.equations]
            lines.append(f"   check: {step.method}")
        return "\n".join(lines)

    def _repr_markdown_(self) -> str:
        return self.to_markdown()


_LAWS = {
    "mode": "mode",
    "one-layer": "one_layer",
    "inflection": "inflection",
    "depth": "depth",
    "descent": "descent",
    "momentum": "momentum",
    "decay": "decay",
    "starvation": "starvation",
    "softmax": "softmax",
    "linearised": "linearised",
}
"""Name of a law -> module of this package that derives it, through `LOSSES` (names) and `build(loss)`."""


def available() -> list[tuple[str, str]]:
    """All (name, loss) pairs that `derive` accepts.

    Example:
        >>> from gradstarve.symbolic import available
        >>> ("mode", "hinge") in available()
        True
    """
    return [(name, loss) for name in _LAWS for loss in _law(name).LOSSES]


def derive(name: str, loss: Any) -> Derivation:
    """Derive a law of learning from its network and loss, each step with a check.

    Setting (arXiv:1809.06848): binary classification, labels y = ±1, margin m = y f(x), points of one class
    along one direction with norm r and total weight p, gradient flow in time t = step size x step.

    - "mode": one hidden ReLU layer, f = sum_j z_j relu(w_j.x). From the loss to the gradient flow, the
      conserved quantities, the hyperbolic clock, du/dt = 2 p r g(u) sqrt(kappa^2 + u^2) (3.4), t(u) for
      every loss, and u(t) for the hinge and squared losses.
    - "one-layer": linear read-out f = v.x, du/dt = p r^2 g(u); u(t) for every loss, with Lambert W for
      cross-entropy (3.9).
    - "inflection": where the error of the mode bends, e'' = 0 (5.1), and kappa^2 = K(u) there (5.2).
    - "depth": one path of N layers, balanced (7.1) and not (7.2), N being a symbol of the formulas.
    - "descent": gradient descent of the mode, exact at any step size (8.1), with weight decay (8.2).
    - "momentum": the same with heavy-ball and Nesterov momentum (8.2).
    - "decay": the flow with weight decay, its threshold and where it settles (9.1); not for the hinge.
    - "starvation": a feature on every sample and one on some of them: what the second is left with (10.1)-(10.5).
    - "softmax": K classes, K being a symbol, one layer (11.1) and two (11.2); cross-entropy only.
    - "linearised": two samples and two weights of a linearised network: the flow of its margins, optimum and dual under a
      ridge, which feature starves which, spectral decoupling (14.1)-(14.4); cross-entropy only.

    Args:
        name: the law, one of the names above.
        loss: "cross-entropy", "hinge", "exponential" or "squared", or an object whose `.name` is one of
            these.

    Returns:
        A `Derivation`. Construction derives; `.check()` checks.

    Raises:
        ValueError: unknown law or loss; the message lists the valid ones.

    Example:
        >>> from gradstarve.symbolic import derive
        >>> print(derive("mode", "hinge").result["t*"].rhs)
        (-theta0 + asinh(1/kappa))/(2*p*r)
    """
    loss_name = getattr(loss, "name", loss)
    if not isinstance(name, str) or name not in _LAWS:
        names = f"available names are {list(_LAWS)}{did_you_mean(name, _LAWS)}"
        raise ValueError(f"no derivation named {shown(name)}; {names}")
    losses = _law(name).LOSSES
    if not isinstance(loss_name, str) or loss_name not in losses:
        names = f"available losses are {list(losses)}{did_you_mean(loss_name, losses)}"
        raise ValueError(f"no derivation of {name!r} for the loss {shown(loss_name)}; {names}")
    return _build(name, loss_name)


def _derive_again(name: str, loss: str, own: tuple[tuple[str, Any], ...]) -> Derivation:
    derivation = _build(name, loss)
    for step, equation in own:
        derivation = derivation.with_equation(step, equation)
    return derivation


def _law(name: str) -> Any:
    return importlib.import_module(f"gradstarve.symbolic._{_LAWS[name]}")


@cache
def _build(name: str, loss: str) -> Derivation:
    # Safe to share: a derivation is immutable, and `check` recomputes every residual each time it is called.
    return _law(name).build(loss)
