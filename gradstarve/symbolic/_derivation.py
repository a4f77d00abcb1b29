"""A derivation: a chain of steps, each an equation with a check that ties it to the equations before it.

A step does not store that it is right. It stores a function, `verify`, which takes the step's own equations
and the equations of the earlier steps and returns *residuals*: expressions that vanish if the step is
right. Change a formula anywhere, and the residuals computed from it no longer vanish.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAssignmentType=false, reportIndexIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import mpmath
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

from gradstarve.ground import can_pickle, shown
from gradstarve.symbolic import _printers as printers

# Two ways to see that an expression is zero: by algebra, and at random points in 80-digit arithmetic.
#
# A residual is first evaluated at random rational points, and where it distinguishes cases also next to the
# boundary between them: a wrong formula is caught there, at once and for certain. Only a residual that passes
# is handed to the simplifier; if that reduces it to the integer 0, the check is a proof and says so, otherwise
# the check says at how many points and to how many digits it vanished.

Domain = Mapping[sp.Symbol, tuple[Any, Any]]
Point = dict[sp.Symbol, sp.Rational]

GUARD_DIGITS = 30
"""Digits carried beyond the requested ones: cancellation inside a residual may cost this many before a check is wrong."""

SIMPLIFY_LIMIT = 120
"""Operation count above which algebra is not tried: `sympy.simplify` becomes very slow there, and the numerical check has
already passed."""

BESIDE = sp.Rational(1, 10**9)
"""Distance from a kink at which both of its sides are tested; a kink displaced by more than this is noticed."""


@dataclass(frozen=True)
class CheckResult:
    """The outcome of one step's check.

    Attributes:
        step: name of the step.
        passed: whether every residual vanished.
        method: "simplifies to 0" (a proof) or "vanishes at N random points to 50 digits".
        residuals: the expressions that had to vanish.
        failure: "" when passed, otherwise which residual did not vanish and by how much.
    """

    step: str
    passed: bool
    method: str
    residuals: tuple[sp.Expr, ...] = field(repr=False)
    failure: str = ""


def sample_point(symbols: Sequence[sp.Symbol], domain: Domain, rng: random.Random) -> Point:
    """Draw one random rational value per symbol.

    Args:
        symbols: the symbols to draw for, in a fixed order.
        domain: open interval (low, high) for some of them; the others are drawn from (1/10, 2) when they are
            declared positive or nonnegative and from (-3/2, 3/2) otherwise.
        rng: source of randomness.
    """
    point: Point = {}
    for symbol in symbols:
        low, high = _interval(symbol, domain)
        # 20 random digits: no accidental coincidence such as u = u0 or a_1 = a_2 can hide an error.
        point[symbol] = low + (high - low) * sp.Rational(rng.randrange(1, 10**20), 10**20)
    return point


def _interval(symbol: sp.Symbol, domain: Domain) -> tuple[sp.Rational, sp.Rational]:
    half = sp.Rational(3, 2)
    low, high = domain.get(symbol, (sp.Rational(1, 10), 2) if symbol.is_nonnegative else (-half, half))
    return sp.Rational(low), sp.Rational(high)


def largest_residual(residual: sp.Expr, domain: Domain, points: int, digits: int, seed: int) -> Any:
    """The largest |residual| over random points, relative to the size of its terms where that exceeds 1.

    Args:
        residual: expression that ought to vanish, free of undefined functions.
        domain: sampling intervals, see `sample_point`.
        points: number of random points; for each, the two sides of every kink are visited as well.
        digits: requested digits; the arithmetic carries `GUARD_DIGITS` more.
        seed: seed of the draw; equal seeds give equal points.

    Returns:
        An mpmath number; infinity where the residual has no value.

    Raises:
        ValueError: the residual still contains an undefined function.
    """
    if undefined := undefined_functions(residual):
        raise ValueError(f"residual has no numerical value: it contains {undefined}; substitute these first")
    # Heaviside has no mpmath counterpart; its Piecewise form has.
    residual = residual.rewrite(sp.Piecewise) if residual.has(sp.Heaviside) else residual
    symbols = sorted(residual.free_symbols, key=str)
    terms = sp.lambdify(symbols, list(sp.Add.make_args(residual)), modules="mpmath", cse=True)
    kinks = _kinks(residual)
    rng = random.Random(seed)
    worst = mpmath.mpf(0)
    with mpmath.workdps(digits + GUARD_DIGITS):
        for _ in range(points):
            point = sample_point(symbols, domain, rng)
            for place in [point, *_beside_kinks(point, kinks, domain)]:
                arguments = [mpmath.mpf(int(value.p)) / int(value.q) for value in place.values()]
                values = [mpmath.mpmathify(term) for term in terms(*arguments)]
                scale = max([mpmath.mpf(1), *(abs(value) for value in values)])
                size = abs(mpmath.fsum(values)) / scale
                if mpmath.isnan(size):
                    return mpmath.inf  # a residual without a value does not vanish
                worst = max(worst, size)
    return worst


def undefined_functions(residual: sp.Expr) -> str:
    """The undefined functions in `residual`, listed; empty if there are none."""
    return ", ".join(sorted(map(str, residual.atoms(AppliedUndef))))


def _kinks(residual: sp.Expr) -> list[sp.Expr]:
    """Expressions whose sign decides between the cases of `residual`."""
    found = {relation.lhs - relation.rhs for relation in residual.atoms(Relational)}
    for extreme in residual.atoms(sp.Max, sp.Min):
        found |= {first - second for first, second in combinations(extreme.args, 2)}
    return sorted(found, key=sp.default_sort_key)


def _beside_kinks(point: Point, kinks: Sequence[sp.Expr], domain: Domain) -> Iterator[Point]:
    """Points on both sides of every kink: points far from a kink would not show that it is in the wrong place.

    Each differs from `point` in one symbol, on which the kink depends linearly, and stays in the domain.
    """
    # Rounded, because exact powers of such rationals have millions of digits.
    rounded = {symbol: sp.Float(value, 70) for symbol, value in point.items()}
    for kink in kinks:
        for symbol, value in point.items():
            slope = sp.diff(kink, symbol)
            if slope == 0 or slope.has(symbol) or slope.has(sp.Heaviside, sp.Derivative):
                continue
            low, high = _interval(symbol, domain)
            rate = sp.N(slope.xreplace(rounded), 60)
            shift = sp.N(kink.xreplace(rounded), 60) / rate if rate != 0 else sp.nan
            if not shift.is_Number or not shift.is_finite:
                continue
            crossing = value - sp.Rational(shift)
            if low < crossing < high:
                yield from (point | {symbol: crossing + side * BESIDE} for side in (-1, 1))
                break


def open_roots(expression: sp.Expr) -> sp.Expr:
    """`expression` with the arguments of square roots factored, so that the root of a square simplifies."""
    half = sp.Rational(1, 2)
    return expression.replace(lambda e: e.is_Pow and abs(e.exp) == half, lambda e: sp.factor(e.base) ** e.exp)


def simplifies_to_zero(residual: sp.Expr) -> bool:
    """Whether algebra alone reduces `residual` to 0. `False` means "not found", never "not zero"."""
    if residual == 0:
        return True
    if residual.has(sp.Piecewise, sp.Heaviside, sp.Max, sp.Min) or sp.count_ops(residual) > SIMPLIFY_LIMIT:
        return False  # case distinctions make the simplifier slow; points on both sides are as good
    # From cheap to expensive. Writing hyperbolic functions as exponentials decides most identities on the clock.
    attempts = (
        sp.expand,
        lambda e: sp.expand(open_roots(e)),
        lambda e: sp.expand(e.rewrite(sp.exp)),
        sp.simplify,
        lambda e: sp.simplify(sp.expand(sp.expand_trig(e))),
        lambda e: sp.simplify(sp.expand(e.rewrite(sp.exp))),
    )
    return any(attempt(residual) == 0 for attempt in attempts)


def defects(residuals: Sequence[sp.Expr], domain: Domain, points: int, digits: int, seed: int) -> tuple[str, str | None]:
    """Check that all residuals vanish.

    Returns:
        (method, failure): how the residuals were seen to vanish, and `None`; or, when one does not vanish,
        the method that showed it and a sentence saying which one and by how much.
    """
    by_points = f"vanishes at {points} random points to {digits} digits"
    for index, residual in enumerate(residuals, start=1):
        which = f"residual {index} of {len(residuals)}"
        if undefined := undefined_functions(residual):
            return by_points, f"{which} contains {undefined}, which nothing before defines"
        size = largest_residual(residual, domain, points, digits, seed)
        if not size <= mpmath.mpf(10) ** -digits:
            text = sp.sstr(residual)
            text = text if len(text) < 200 else text[:197] + "..."
            return by_points, f"{which} reaches {mpmath.nstr(size, 3)}: {text}"
    if all(simplifies_to_zero(residual) for residual in residuals):
        return "simplifies to 0", None
    return by_points, None


# Derivations.

Equations = tuple[sp.Eq, ...]


class DerivationError(ValueError):
    """A step of a derivation does not follow from the steps before it. The message names the step."""


class Known:
    """The equations of earlier steps, looked up by their left-hand sides.

    `known(label)` is the right-hand side of the latest equation for `label`. An equation whose left side has
    `label` as a factor or a term (say, 2 u = ...) is solved for it, so that a changed left side is noticed.
    """

    def __init__(self, steps: Iterable[tuple[str, Equations]]):
        self._steps = list(steps)

    @property
    def equations(self) -> Equations:
        """All equations, in order."""
        return tuple(equation for _, group in self._steps for equation in group)

    def has(self, label: sp.Basic) -> bool:
        """Whether an equation gives `label`."""
        return self._value(label, None) is not None

    def __call__(self, label: sp.Basic, step: str | None = None) -> sp.Expr:
        """The value of `label`, in the step of that name or, without one, in the latest step that has it."""
        value = self._value(label, step)
        if value is None:
            where = f"step {step!r}" if step else "any step so far"
            raise DerivationError(f"no equation gives {label} in {where}; its left-hand side is missing or was changed")
        return value

    def _value(self, label: sp.Basic, step: str | None) -> sp.Expr | None:
        equations = [e for name, group in reversed(self._steps) if step in (None, name) for e in group]
        for equation in equations:
            if equation.lhs == label:
                return equation.rhs
        for equation in equations:
            if equation.lhs.is_Mul and label in equation.lhs.args:
                return equation.rhs / (equation.lhs / label)
            if equation.lhs.is_Add and label in equation.lhs.args:
                return equation.rhs - (equation.lhs - label)
        return None


Verify = Callable[[Known, Known], Sequence[sp.Expr]]
"""`verify(own, earlier)`: residuals of a step, from its own equations and those of the steps before it."""


def _no_check(own: Known, earlier: Known) -> Sequence[sp.Expr]:
    raise DerivationError("a step that was pickled on its own has no check; take it from derive(name, loss)[step]")


@dataclass(frozen=True)
class Step:
    """One step of a derivation.

    Attributes:
        name: short name, unique within the derivation.
        claim: the statement of the step, in plain words.
        equation: one `sympy.Eq`, or a tuple of them.
        verify: `verify(own, earlier)` returns the residuals that must vanish; see `Known`.
        domain: symbol -> (low, high), where random points are drawn for the check; see `sample_point`.
        reference: equation number in this project's own numbering, such as "(3.4)", or "".
        method: the outcome of the check: "" before it has run, then "simplifies to 0" or
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
        # The check is a nested function, which cannot be pickled: a pickled step keeps only its equations.
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
    """The place of a named result: the left-hand side `label` in step `step`, as a function of `arguments`.

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
        targets: name of a result -> its place in the chain.

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

    def __getitem__(self, name: str) -> Step:
        """The step of that name."""
        for step in self.steps:
            if step.name == name:
                return step
        raise ValueError(f"no step named {name!r}; steps are {', '.join(repr(step.name) for step in self.steps)}")

    @property
    def result(self) -> dict[str, sp.Eq]:
        """The final equations by name, read from the steps (they are not stored separately)."""
        found = {}
        for key, target in self.targets.items():
            value = Known([(target.step, self[target.step].equations)])(target.label)
            found[key] = sp.Eq(target.label, value, evaluate=False)
        return found

    @property
    def default_target(self) -> str:
        """The name of the default result: u(t) if it has a closed form, otherwise t(u)."""
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
        self[name]  # raises for an unknown name, instead of a copy without a change
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
        """The result `which`, by default `default_target`, compiled into a JAX function of its symbols.

        Returns:
            A function whose parameters are named like the symbols (`t`, `p`, `r`, `kappa`, `u0`, ...), in the
            order of `inspect.signature`; arrays broadcast, and jit, vmap and grad apply. It keeps the dtype of
            its arguments, and does not check their range: its docstring says where it is valid. `.source` is
            its code.

        Raises:
            NotImplementedError: the result contains something without a JAX counterpart.

        Example:
            >>> from gradstarve.symbolic import derive
            >>> logit = derive("one-layer", "cross-entropy").to_jax("u(t)")
            >>> round(float(logit(t=2.0, p=0.5, r=1.0, u0=0.0)), 3)
            0.443
            >>> print(logit.source.splitlines()[-1].strip())
            return jnp.log(special.lambertw_exp(C))
        """
        which = self.default_target if which is None else which
        target = self._target(which)
        return printers.to_jax(
            which,
            self.result[which],
            target.arguments,
            self.definitions(which),
            law=self.name,
            loss=self.loss,
            note=target.note,
        )

    def _printed(self) -> list[printers.PrintedStep]:
        steps = self.checked_steps
        return [printers.PrintedStep(s.name, s.claim, s.equations, s.reference, s.method) for s in steps]

    def to_latex(self, document: bool = False) -> str:
        """The checked steps in LaTeX, needing `amsmath`: a section, or with `document` an article that compiles by itself.

        Raises:
            DerivationError: a step fails its check; nothing is printed that does not hold.
        """
        section = printers.to_latex(self.title, self._printed())
        return printers.latex_article([section]) if document else section

    def to_markdown(self) -> str:
        """The checked steps in Markdown, equations between $$, for notebooks; raises as `to_latex` does."""
        return printers.to_markdown(self.title, self._printed())

    def __str__(self) -> str:
        return printers.to_text(self.title, self._printed())

    def _repr_markdown_(self) -> str:
        return self.to_markdown()

    def _repr_latex_(self) -> str:
        """The results, for notebooks that render only LaTeX; `to_latex` has every step."""
        rows = [sp.latex(equation).replace("=", "&=", 1) for equation in self.result.values()]
        return "$$\\begin{aligned}" + r" \\ ".join(rows) + "\\end{aligned}$$"


def latex_document(derivations: Iterable[Derivation]) -> str:
    """One article with a section for each derivation, which compiles by itself.

    Example:
        >>> from gradstarve.symbolic import derive
        >>> text = latex_document([derive("one-layer", "hinge"), derive("one-layer", "exponential")])
        >>> text.count("section*"), text.count("documentclass")
        (2, 1)
    """
    given = derivations
    try:
        derivations = list(derivations)
    except Exception:
        derivations = []
    if not derivations or not all(isinstance(one, Derivation) for one in derivations):
        raise ValueError(f"derivations must be a non-empty list of what derive(name, loss) gives, got {shown(given)}")
    return printers.latex_article(one.to_latex() for one in derivations)
