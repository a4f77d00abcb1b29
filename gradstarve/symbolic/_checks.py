"""Two ways to see that an expression is zero: by algebra, and at random points in 80-digit arithmetic.

A residual is first evaluated at random rational points, and where it distinguishes cases also next to the
boundary between them: a wrong formula is caught there, at once and for certain. Only a residual that passes
is handed to the simplifier; if that reduces it to the integer 0, the check is a proof and says so, otherwise
the check says at how many points and to how many digits it vanished.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import mpmath
import sympy as sp
from sympy.core.function import AppliedUndef
from sympy.core.relational import Relational

Domain = Mapping[sp.Symbol, tuple[Any, Any]]
Point = dict[sp.Symbol, sp.Rational]

GUARD_DIGITS = 30
"""Digits carried beyond those asked for: cancellation inside a residual may eat this many before it shows."""

SIMPLIFY_LIMIT = 120
"""Operation count above which algebra is not tried: `sympy.simplify` slows down steeply there, and the
numerical check has already been passed."""

BESIDE = sp.Rational(1, 10**9)
"""Distance from a kink at which its two sides are looked at; a kink further off than this is noticed."""


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
        digits: digits wanted; the arithmetic carries `GUARD_DIGITS` more.
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
    """Points on both sides of every kink: far from it, a kink in the wrong place would not be seen.

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
    """`expression` with what stands under square roots factored, so that the root of a square opens."""
    half = sp.Rational(1, 2)
    return expression.replace(lambda e: e.is_Pow and abs(e.exp) == half, lambda e: sp.factor(e.base) ** e.exp)


def simplifies_to_zero(residual: sp.Expr) -> bool:
    """Whether algebra alone reduces `residual` to 0. `False` means "not found", never "not zero"."""
    if residual == 0:
        return True
    if residual.has(sp.Piecewise, sp.Heaviside, sp.Max, sp.Min) or sp.count_ops(residual) > SIMPLIFY_LIMIT:
        return False  # case distinctions make the simplifier slow; points on both sides do as well
    # From cheap to dear. Writing hyperbolic functions as exponentials decides most identities on the clock.
    attempts = (
        sp.expand,
        lambda e: sp.expand(open_roots(e)),
        lambda e: sp.expand(e.rewrite(sp.exp)),
        sp.simplify,
        lambda e: sp.simplify(sp.expand(sp.expand_trig(e))),
        lambda e: sp.simplify(sp.expand(e.rewrite(sp.exp))),
    )
    return any(attempt(residual) == 0 for attempt in attempts)


def defects(
    residuals: Sequence[sp.Expr], domain: Domain, points: int, digits: int, seed: int
) -> tuple[str, str | None]:
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
