"""Derivations as LaTeX, Markdown and plain text, and as JAX source code.

SymPy's JAX printer has neither Lambert W nor Ei, and cannot print an integral without a closed form. The
table here maps them to `gradstarve.special`, in a form that does not overflow if there is one.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false, reportAttributeAccessIssue=false, reportReturnType=false

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import sympy as sp
from sympy.printing.latex import LatexPrinter
from sympy.printing.numpy import JaxPrinter
from sympy.printing.precedence import PRECEDENCE

from gradstarve.symbolic._losses import LOSSES, residual_of, while_learning
from gradstarve.symbolic._notation import LATEX_NAMES, m


@runtime_checkable
class JaxFunction(Protocol):
    """A generated function: callable with arrays that broadcast, by position or by keyword.

    Attributes:
        source: the Python code it was compiled from; `jnp` is `jax.numpy`, `special` is `gradstarve.special`.
    """

    source: str

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


class sigmoid(sp.Function):
    """1/(1 + e^-x), unevaluated; only the printer of code creates it."""

    nargs = 1


class softplus(sp.Function):
    """log(1 + e^x), unevaluated; only the printer of code creates it."""

    nargs = 1


def bounded(expression: sp.Expr) -> sp.Expr:
    """`expression` with its quotients of polynomials in e^x written in sigmoid(x) and sigmoid(-x), which never overflow.

    Logarithms and non-integer powers of 1 + e^x are written in softplus(x).

    With e^x = sigmoid(x)/sigmoid(-x), a polynomial of degree k in e^x is homogeneous in the two, over sigmoid(-x)^k. So
    1/(1 + e^x) becomes sigmoid(-x), whose derivative is a product of bounded numbers, not inf/inf where e^x overflows.

    >>> u = sp.Symbol("u", real=True)
    >>> bounded((1 + sp.exp(u)) / (2 * sp.exp(u) - 1))
    1/(-sigmoid(-u) + 2*sigmoid(u))
    """
    if isinstance(expression, sp.log) and (x := _one_plus_exp(expression.args[0])) is not None:
        return softplus(x)
    if expression.is_Pow and not expression.exp.is_Integer and (x := _one_plus_exp(expression.base)) is not None:
        return sp.exp(expression.exp * softplus(x))
    if expression.is_Mul or expression.is_Pow:
        rewritten = _quotient_in_sigmoids(sp.Mul.make_args(expression))
        if rewritten is not None:
            return rewritten
    if not expression.args or isinstance(expression, sp.Integral):
        return expression
    return expression.func(*(bounded(part) if isinstance(part, sp.Expr) else part for part in expression.args))


def _one_plus_exp(expression: sp.Expr) -> sp.Expr | None:
    """x if `expression` is 1 + e^x."""
    power = expression - 1
    return power.args[0] if isinstance(power, sp.exp) else None


def _quotient_in_sigmoids(factors: Iterable[sp.Expr]) -> sp.Expr | None:
    """The product of `factors` for `bounded`; None unless it is a quotient with a sum of growing exponentials."""
    sums, exponentials, others = [], [], []
    for factor in factors:
        base, power = (factor, sp.S.One) if isinstance(factor, sp.exp) else factor.as_base_exp()
        if isinstance(factor, sp.exp):
            exponentials.append(factor)
        elif base.is_Add and power.is_Integer and base.has(sp.exp):
            sums.append((base, int(power)))
        else:
            others.append(factor)
    inside = [e.args[0] for base, _ in sums for e in base.atoms(sp.exp)]
    if not inside or all(argument.is_nonpositive for argument in inside):
        return None
    if not exponentials and all(power > 0 for _, power in sums):
        return None
    x = inside[0].as_coeff_Mul()[1]
    polynomials = []
    for base, power in (*sums, *((e, 1) for e in exponentials)):
        polynomial = _powers_of_exp(base, x)
        if polynomial is None:
            return None
        polynomials.append((polynomial, power))
    up, down = sigmoid(x), sigmoid(-x)
    result, ups, downs = sp.Mul(*map(bounded, others)), 0, 0
    for polynomial, power in polynomials:
        low, high = min(polynomial), max(polynomial)
        ups, downs = ups + low * power, downs - high * power
        if high - low == 1 and polynomial[low] == polynomial[high]:
            form = polynomial[low]  # the two add up to 1
        else:
            form = sp.Add(*(c * up ** (n - low) * down ** (high - n) for n, c in polynomial.items()))
        result = result * form**power
    return result * up**ups * down**downs


def _powers_of_exp(expression: sp.Expr, x: sp.Expr) -> dict[int, sp.Expr] | None:
    """{n: c} if `expression` is sum c e^(n x) with integers n and c without exponentials."""
    found: dict[int, sp.Expr] = {}
    for term in sp.Add.make_args(sp.expand(expression, power_exp=False)):
        power, rest = sp.S.Zero, sp.S.One
        for factor in sp.Mul.make_args(term):
            if isinstance(factor, sp.exp):
                power += factor.args[0] / x
            else:
                rest *= factor
        power = sp.simplify(power)
        if not power.is_Integer or rest.has(sp.exp):
            return None
        found[int(power)] = found.get(int(power), sp.S.Zero) + rest
    return found


class SpecialJaxPrinter(JaxPrinter):
    """SymPy's JAX printer with the special functions of `gradstarve.special` added.

    | SymPy | code |
    |---|---|
    | LambertW(c e^y), c > 0 | `special.lambertw_exp(y + log c)`: e^y is never formed |
    | C - LambertW(e^C) | `jnp.log(special.lambertw_exp(C))`: the same, without cancellation |
    | LambertW(x, k) | `special.lambertw(x, branch=k)` |
    | e^-x Ei(x) | `special.expi_scaled(x)` |
    | Ei(x) | `special.expi(x)` |
    | Kummer's M(a; b; x) | `jax.scipy.special.hyp1f1(a, b, x)` |
    | Integral of 1/(g(v) sqrt(kappa^2+v^2)), or of 1/g(kappa sinh v) | `special.clock_integral(loss, ...)` |
    | sqrt(x^2+y^2) | `jnp.hypot(x, y)`: squares are never formed |
    | quotients of polynomials in e^x | `jax.nn.sigmoid(x)`, `jax.nn.sigmoid(-x)`: nothing overflows, see `bounded` |
    | log(1 + e^x), (1 + e^x)^c | `jax.nn.softplus(x)`, `jnp.exp(c*jax.nn.softplus(x))` |
    | Piecewise, Min, Max, Abs | nested `jnp.where`, `jnp.minimum`, `jnp.maximum`, `jnp.abs` |

    Anything it cannot print raises `NotImplementedError` with the expression.
    """

    def __init__(self) -> None:
        super().__init__({"allow_unknown_functions": False, "strict": True})

    def doprint(self, expr: Any, assign_to: Any = None) -> Any:
        """The code of `expr`, rewritten by `bounded`."""
        return super().doprint(bounded(expr) if isinstance(expr, sp.Expr) else expr, assign_to)

    def _print_sigmoid(self, expr: sp.Expr) -> str:
        return f"jax.nn.sigmoid({self._print(expr.args[0])})"

    def _print_softplus(self, expr: sp.Expr) -> str:
        return f"jax.nn.softplus({self._print(expr.args[0])})"

    def _module_format(self, fqn: str, register: bool = True) -> str:
        # SymPy falls back on Python's `math` for functions that JAX lacks; they cannot be traced.
        if not fqn.startswith(("jax.", "jnp")):
            raise NotImplementedError(f"no JAX counterpart: the printer would need {fqn}")
        return super()._module_format(fqn, register).replace("jax.numpy.", "jnp.")

    def _print_LambertW(self, expr: sp.Expr) -> str:
        argument, branch = expr.args[0], expr.args[1] if len(expr.args) > 1 else sp.S.Zero
        factors = sp.Mul.make_args(argument)
        exponent = sum((factor.args[0] for factor in factors if isinstance(factor, sp.exp)), sp.S.Zero)
        rest = sp.Mul(*(factor for factor in factors if not isinstance(factor, sp.exp)))
        if branch == 0 and exponent != 0 and exponent.is_extended_real and rest.is_positive:
            return f"special.lambertw_exp({self._print(exponent + sp.log(rest))})"
        if branch not in (0, -1):
            raise NotImplementedError(f"only the real branches 0 and -1 of Lambert W can be printed, got {branch}")
        return f"special.lambertw({self._print(argument)}, branch={branch})"

    def _print_Ei(self, expr: sp.Expr) -> str:
        return f"special.expi({self._print(expr.args[0])})"

    def _print_hyper(self, expr: Any) -> str:
        if (len(expr.ap), len(expr.bq)) != (1, 1):
            raise NotImplementedError(f"only Kummer's function of its kind can be printed, got {expr}")
        return f"jax.scipy.special.hyp1f1({', '.join(map(self._print, (*expr.ap, *expr.bq, expr.argument)))})"

    def _print_Mul(self, expr: sp.Mul) -> str:
        for factor in expr.args:
            if isinstance(factor, sp.Ei) and (decay := sp.exp(-factor.args[0])) in expr.args:
                scaled = sp.Symbol(f"special.expi_scaled({self._print(factor.args[0])})")
                return self._print(sp.Mul(scaled, *(f for f in expr.args if f not in (factor, decay))))
        return super()._print_Mul(expr)

    def _print_Add(self, expr: sp.Add, order: str | None = None) -> str:
        # W e^W = e^C gives C - W(e^C) = log W(e^C), which does not cancel for large C.
        for term in expr.args:
            power = (-term).args[0] if isinstance(-term, sp.LambertW) and len((-term).args) == 1 else None
            if isinstance(power, sp.exp) and power.args[0].is_real and power.args[0] in expr.args:
                logarithm = sp.Symbol(f"jnp.log({self._print(-term)})")
                others = (other for other in expr.args if other not in (term, power.args[0]))
                return self._print(sp.Add(logarithm, *others))
        return super()._print_Add(expr, order)

    def _print_Pow(self, expr: sp.Pow, rational: bool = False) -> str:
        base, exponent = expr.as_base_exp()
        legs = [sp.sqrt(term) for term in base.args] if base.is_Add and len(base.args) == 2 else []
        if abs(exponent) == sp.Rational(1, 2) and legs and all(leg.is_Symbol or _is_abs(leg) for leg in legs):
            sides = [self._print(leg.args[0] if _is_abs(leg) else leg) for leg in legs]
            hypotenuse = f"jnp.hypot({', '.join(sides)})"
            return hypotenuse if exponent > 0 else f"{hypotenuse}**(-1)"
        return super()._print_Pow(expr, rational=rational)

    def _print_Piecewise(self, expr: sp.Expr) -> str:
        *cases, (last, condition) = expr.args
        if condition != sp.true:
            raise NotImplementedError(f"a case distinction needs a last case that always applies, got {expr}")
        code = self._print(last)
        for value, condition in reversed(cases):
            code = f"jnp.where({self._print(condition)}, {self._print(value)}, {code})"
        return code

    def _print_Relational(self, expr: Any) -> str:
        left, right = (self.parenthesize(side, PRECEDENCE["Relational"]) for side in (expr.lhs, expr.rhs))
        return f"{left} {expr.rel_op} {right}"

    def _print_Abs(self, expr: sp.Expr) -> str:
        return f"jnp.abs({self._print(expr.args[0])})"

    def _print_Min(self, expr: sp.Expr) -> str:
        return self._nested("jnp.minimum", expr.args)

    def _print_Max(self, expr: sp.Expr) -> str:
        return self._nested("jnp.maximum", expr.args)

    def _nested(self, name: str, arguments: tuple[sp.Expr, ...]) -> str:
        # Numbers last: the first argument then carries the dtype. SymPy's own order is arbitrary.
        *others, code = map(self._print, sorted(arguments, key=lambda e: (e.is_number, sp.default_sort_key(e))))
        for argument in reversed(others):
            code = f"{name}({argument}, {code})"
        return code

    def _print_Integral(self, expr: sp.Integral) -> str:
        call = _clock_integral(expr)
        if call is None:
            raise NotImplementedError(f"no function of gradstarve.special computes {expr}")
        kind, start, end, width = call
        return f"special.clock_integral({kind!r}, {', '.join(self._print(x) for x in (start, end, width))})"


def _is_abs(expression: sp.Expr) -> bool:
    return isinstance(expression, sp.Abs) and expression.args[0].is_Symbol


def _clock_integral(integral: sp.Integral) -> tuple[str, sp.Expr, sp.Expr, sp.Expr] | None:
    """(loss, u0, u, kappa) if `integral` is the time of a mode as an integral over the logit or the angle."""
    if len(integral.limits) != 1 or len(integral.limits[0]) != 3:
        return None
    variable, low, high = integral.limits[0]
    integrand = integral.function
    for root in integrand.atoms(sp.Pow):
        square = sp.expand(root.base - variable**2)
        if root.exp != -sp.Rational(1, 2) or square.has(variable) or not square.is_positive:
            continue
        if kind := _loss_with(sp.simplify(integrand / root), variable):
            return kind, low, high, sp.sqrt(square)
    for sine in integrand.atoms(sp.sinh):
        if sine.args[0] != variable:
            continue
        for multiple in integrand.atoms(sp.Mul):
            width = multiple / sine
            if not width.has(variable) and width.is_positive:
                logit = sp.Symbol("logit", real=True)
                if kind := _loss_with(integrand.subs(multiple, logit), logit):
                    return kind, width * sp.sinh(low), width * sp.sinh(high), width
    return None


def _loss_with(inverse: sp.Expr, logit: sp.Symbol) -> str | None:
    """The loss whose 1/g is `inverse`, a function of `logit`."""
    for name, loss in LOSSES.items():
        residual = while_learning(residual_of(loss.value)).subs(m, logit)
        if sp.simplify(inverse * residual - 1) == 0:
            return name
    return None


def to_jax(
    which: str,
    equation: sp.Eq,
    arguments: Sequence[sp.Symbol],
    definitions: Iterable[tuple[sp.Symbol, sp.Expr]],
    *,
    law: str,
    loss: str,
    note: str = "",
) -> JaxFunction:
    """Compile the result `which` of a derivation into a function of its symbols; see `Derivation.to_jax`.

    Args:
        which: name of the result, such as "u(t)".
        equation: the result; the function computes its right-hand side.
        arguments: the symbols that become parameters, in this order.
        definitions: every other symbol and its value, in an order in which they can be evaluated.
        law: name of the derivation, for the docstring.
        loss: name of the loss, for the docstring.
        note: where the result is valid, for the docstring.

    Raises:
        NotImplementedError: the result contains something without a JAX counterpart.
    """
    printer = SpecialJaxPrinter()
    formula = f"{sp.sstr(equation.lhs)} = {sp.sstr(equation.rhs)}"
    name = _identifier(which)
    lines = [
        f"def {name}({', '.join(symbol.name for symbol in arguments)}):",
        f'    """{which} of {law!r} with the {loss} loss: {formula}.',
        "",
        "    Arrays broadcast. Times are step size x step; logits refer to the class oriented as y = +1.",
        *([f"    {note}"] if note else []),
        '    """',
        *(f"    {symbol.name} = {printer.doprint(value)}" for symbol, value in definitions),
        f"    return {printer.doprint(equation.rhs)}",
    ]
    source = "\n".join(lines) + "\n"

    import jax
    import jax.numpy as jnp
    import jax.scipy.special  # `jax.scipy` loads this submodule only on demand

    from gradstarve import special

    namespace: dict[str, Any] = {"jax": jax, "jnp": jnp, "special": special, "__name__": __name__}
    exec(compile(source, f"<{law} {loss} {which}>", "exec"), namespace)
    function = namespace[name]
    function.source = source
    return function


def _identifier(which: str) -> str:
    """A function name for a result: "t(u) balanced" -> "t_of_u_balanced"."""
    spoken = which.replace("*", "_star").replace("/", "_").replace("'", "_prime").replace("(", "_of_")
    return re.sub(r"\W+", "_", spoken).strip("_")


class DerivationLatexPrinter(LatexPrinter):
    """SymPy's LaTeX printer with the names of `notation.LATEX_NAMES`, arsinh, artanh, W with its branch."""

    def _print_Symbol(self, expr: sp.Symbol, style: str = "plain") -> str:
        return LATEX_NAMES.get(expr.name) or super()._print_Symbol(expr, style)

    def _hprint_Function(self, func: str) -> str:
        return LATEX_NAMES.get(func) or super()._hprint_Function(func)

    def _named(self, name: str, expr: sp.Expr, exp: str | None) -> str:
        power = f"^{{{exp}}}" if exp is not None else ""
        return rf"{name}{power}\left({self._print(expr.args[0])}\right)"

    def _print_asinh(self, expr: sp.Expr, exp: str | None = None) -> str:
        return self._named(r"\operatorname{arsinh}", expr, exp)

    def _print_atanh(self, expr: sp.Expr, exp: str | None = None) -> str:
        return self._named(r"\operatorname{artanh}", expr, exp)

    def _print_LambertW(self, expr: sp.Expr, exp: str | None = None) -> str:
        branch = self._print(expr.args[1]) if len(expr.args) > 1 else "0"
        return self._named(f"W_{{{branch}}}", expr, exp)


def latex(expression: sp.Basic) -> str:
    """One expression in LaTeX, in the notation of the derivations.

    Example:
        >>> import sympy
        >>> print(latex(sympy.asinh(sympy.Symbol("u0"))))
        \\operatorname{arsinh}\\left(u_{0}\\right)
    """
    return DerivationLatexPrinter().doprint(expression)


_ESCAPES = {c: f"\\{c}" for c in "&%$#_{}"} | {c: f"${c}$" for c in "<>=+*"} | {"^": r"\^{}", "~": r"\~{}"}


def _plain(text: str) -> str:
    """Plain text as LaTeX text."""
    return "".join(_ESCAPES.get(character, character) for character in text)


class PrintedStep(NamedTuple):
    """The fields of a `Step` that the printers need; `method` is the outcome of its check."""

    name: str
    claim: str
    equations: tuple[sp.Eq, ...]
    reference: str
    method: str


def _rows(step: PrintedStep) -> str:
    return " \\\\\n".join(f"{latex(equation.lhs)} &= {latex(equation.rhs)}" for equation in step.equations)


def _heading(step: PrintedStep, number: int, escape: Callable[[str], str] = str) -> str:
    reference = f" {step.reference}" if step.reference else ""
    return f"{number}. {escape(step.name[:1].upper() + step.name[1:])}{reference}"


def to_latex(title: str, steps: Sequence[PrintedStep]) -> str:
    """A section in LaTeX, needing `amsmath`."""
    lines = [rf"\section*{{{_plain(title)}}}", ""]
    for number, step in enumerate(steps, start=1):
        lines += [
            rf"\paragraph{{{_heading(step, number, _plain)}.}} {_plain(step.claim)}",
            r"\begin{align*}",
            _rows(step),
            r"\end{align*}",
            rf"\emph{{Check: {_plain(step.method)}.}}",
            "",
        ]
    return "\n".join(lines)


def latex_article(sections: Iterable[str]) -> str:
    """An article of the sections that `to_latex` prints, which compiles by itself."""
    preamble = [
        r"\documentclass[a4paper]{article}",
        r"\usepackage[T1]{fontenc}",
        r"\usepackage[margin=20mm]{geometry}",
        r"\usepackage{amsmath}",
        r"\usepackage{amssymb}",
        r"\allowdisplaybreaks",
        r"\begin{document}",
    ]
    return "\n".join([*preamble, *sections, r"\end{document}", ""])


def to_markdown(title: str, steps: Sequence[PrintedStep]) -> str:
    """Markdown; equations stand between double dollar signs."""
    lines = [f"## {title}", ""]
    for number, step in enumerate(steps, start=1):
        lines += [
            f"### {_heading(step, number)}",
            "",
            step.claim,
            "",
            "$$",
            rf"\begin{{aligned}}{chr(10)}{_rows(step)}{chr(10)}\end{{aligned}}",
            "$$",
            "",
            f"*Check: {step.method}.*",
            "",
        ]
    return "\n".join(lines)


def to_text(title: str, steps: Sequence[PrintedStep]) -> str:
    """Plain text, equations as SymPy writes them."""
    lines = [f"{title}: derived in {len(steps)} steps, each of them checked."]
    for number, step in enumerate(steps, start=1):
        reference = f" {step.reference}" if step.reference else ""
        lines += ["", f"{number}. {step.name}{reference}. {step.claim}"]
        lines += [f"       {sp.sstr(equation.lhs)} = {sp.sstr(equation.rhs)}" for equation in step.equations]
        lines.append(f"   check: {step.method}")
    return "\n".join(lines)
