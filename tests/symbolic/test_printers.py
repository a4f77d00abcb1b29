"""Generated JAX code against mpmath, and LaTeX that is complete and well-formed."""

import inspect
import random
import re
import shutil
import subprocess

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import sympy as sp

from gradstarve import special
from gradstarve.symbolic import Derivation, available, derive, latex, latex_document
from gradstarve.symbolic._printers import SpecialJaxPrinter

x, y = sp.symbols("x y", real=True)
k = sp.Symbol("kappa", positive=True)


def quad(function, limits):
    """In pieces around 0, where the integrand of a clock is as narrow as kappa is small."""
    cuts = [sign * mpmath.mpf(10) ** -k for sign in (-1, 1) for k in range(4)]
    return mpmath.quad(function, [limits[0], *sorted(x for x in cuts if limits[0] < x < limits[1]), limits[1]])


def in_mpmath(derivation, key, arguments):
    values = dict(zip(derivation.targets[key].arguments, map(mpmath.mpf, arguments), strict=True))
    for symbol, expression in [*derivation.definitions(key), (None, derivation.result[key].rhs)]:
        values[symbol] = sp.lambdify(list(values), expression, modules=[{"quad": quad}, "mpmath"])(*values.values())
    return values[None]


def sample(derivation, key, draw):
    """One random argument list inside the result's stated range."""
    low_side = derivation.loss in ("hinge", "squared")
    symbols = derivation.targets[key].arguments
    balanced = any(symbol.name in ("u", "u0") and symbol.is_positive for symbol in symbols)
    share = draw.uniform(0.05, 0.4) if any(symbol.name == "share" for symbol in symbols) else 0.0
    top = 0.95 * (1 - 2 * share) if derivation.loss == "squared" else 0.95  # the rest of the squared loss is lower
    u0, u = sorted(draw.uniform(0.05 if balanced else -1.5, top if low_side else 3) for _ in range(2))
    choices = {
        "u0": u0, "u": u, "theta0": u0, "theta": u, "t": draw.uniform(0, 4), "s": draw.uniform(0, 2),
        "p": draw.uniform(0.05, 1), "r": draw.uniform(0.3, 3), "kappa": 10 ** draw.uniform(-2, 1),
        "K": draw.uniform(2, 9), "N": draw.uniform(2.5, 6), "k": draw.randint(1, 9),
        "eta": draw.uniform(0.05, 0.3), "mu": draw.uniform(0, 0.9),
        "F_plus": draw.uniform(1, 3), "F_minus": draw.uniform(0, 1), "V_plus": draw.uniform(-1, 0), "V_minus": draw.random(),
        "M_plus": draw.uniform(0.1, 4), "M_minus": draw.uniform(0.1, 4),
        "a1": draw.uniform(0.1, 1), "z1": draw.uniform(-3, -1.1),
    }  # fmt: skip
    choices |= {name: draw.uniform(0.1, 2) for name in ("p1", "p12", "q", "v1", "v2", "v20")}
    choices |= {name: draw.uniform(0.5, 4) for name in ("m1", "m2", "m", "K11", "K22", "S1", "S2")}
    choices |= {"K12": draw.uniform(-0.5, 0.5), "psi": draw.uniform(0, 3), "alpha1": draw.random(), "alpha2": draw.random()}
    choices |= {"share": share, "shift": draw.uniform(0, 1), "temperature": draw.uniform(1, 2), "gamma": draw.random()}
    choices |= {"xi": draw.uniform(-1, 2), "kappa_c": choices["kappa"] * draw.uniform(0.1, 0.9)}
    choices |= {"a2": draw.uniform(0.1, 1), "z2": draw.uniform(-1, 1), "slope": draw.uniform(0.05, 0.9)}
    choices |= {f"{x}_{side}": draw.uniform(0.3, 1) for x in "pr" for side in ("plus", "minus")}
    choices |= {"a": draw.uniform(0.1, 1), "b": draw.uniform(1, 2), "level": draw.uniform(0.1, 2), "scale": draw.random()}
    choices |= {"x_along": -draw.uniform(0.1, 1), "x_across": draw.uniform(1, 2), "z": -choices["a"] * draw.uniform(0, 0.9)}
    choices |= {name: draw.uniform(0.2, 1) for name in ("c1", "c2", "g0", "x21", "x22", "q2")} | {"y2": -1.0}
    choices["lambda_"] = choices["p"] * choices["r"] * draw.uniform(0.1, 0.4)
    return [choices[symbol.name] for symbol in symbols]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "loss"), available())
def test_generated_code_agrees_with_mpmath(name, loss):
    derivation = derive(name, loss)
    for key in derivation.targets:
        function = derivation.to_jax(key)
        draw = random.Random(0)
        points = [sample(derivation, key, draw) for _ in range(4)]
        with mpmath.workdps(25):
            expected = np.array([float(in_mpmath(derivation, key, point)) for point in points])
        columns = [jnp.asarray(column) for column in zip(*points, strict=True)]
        names = list(inspect.signature(function).parameters)
        by_name = function(**dict(zip(names, columns, strict=True)))
        np.testing.assert_allclose(function(*columns), expected, rtol=1e-11, atol=1e-13, err_msg=key)
        np.testing.assert_allclose(by_name, expected, rtol=1e-11, atol=1e-13, err_msg=key)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "loss"), available())
def test_generated_code_runs_under_jit_vmap_and_grad(name, loss):
    derivation = derive(name, loss)
    function = derivation.to_jax()
    point = [jnp.asarray(value) for value in sample(derivation, derivation.default_target, random.Random(5))]
    plain = function(*point)
    np.testing.assert_allclose(jax.jit(function)(*point), plain, rtol=1e-13)
    mapped = jax.vmap(function)(*(jnp.stack([value, value]) for value in point))
    np.testing.assert_allclose(mapped, [plain, plain], rtol=1e-13)
    slopes = jax.jit(jax.grad(function, tuple(range(len(point)))))(*point)
    with mpmath.workdps(30):
        for index in range(len(point)):
            number = [float(value) for value in point]

            def along(value, index=index, number=number):
                return in_mpmath(derivation, derivation.default_target, [*number[:index], value, *number[index + 1 :]])

            slope = float(mpmath.diff(along, number[index]))
            np.testing.assert_allclose(slopes[index], slope, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("name", "loss"), available())
def test_generated_code_keeps_float32(name, loss):
    derivation = derive(name, loss)
    point = [jnp.float32(value) for value in sample(derivation, derivation.default_target, random.Random(1))]
    assert derivation.to_jax()(*point).dtype == jnp.float32


def test_generated_functions_describe_themselves():
    function = derive("mode", "squared").to_jax()
    assert list(inspect.signature(function).parameters) == ["t", "p", "r", "kappa", "u0"]
    assert function.__name__ == "u_of_t"
    assert "step size x step" in function.__doc__
    assert "Valid for every u0" in function.__doc__
    assert function.source.startswith("def u_of_t(t, p, r, kappa, u0):")
    compile(function.source, "source", "exec")


def test_lambert_w_does_not_overflow():
    logit = derive("one-layer", "cross-entropy").to_jax("u(t)")
    late = logit(jnp.float32(1e10), 1.0, 1.0, 0.0)  # e^C overflows, and C - W(e^C) would have lost every digit
    assert late == pytest.approx(10 * np.log(10), rel=1e-6)


PRINTED = [
    (sp.LambertW(sp.exp(x)), "special.lambertw_exp(x)"),
    (sp.LambertW(2 * sp.exp(x + y)), "special.lambertw_exp(x + y + jnp.log(2))"),
    (sp.LambertW(k * sp.exp(x)), "special.lambertw_exp(x + jnp.log(kappa))"),
    (x - sp.LambertW(sp.exp(x)), "jnp.log(special.lambertw_exp(x))"),
    (x + y - sp.LambertW(sp.exp(x)), "y + jnp.log(special.lambertw_exp(x))"),
    (sp.LambertW(x), "special.lambertw(x, branch=0)"),
    (sp.LambertW(x, -1), "special.lambertw(x, branch=-1)"),
    (sp.LambertW(x * sp.exp(y)), "special.lambertw(x*jnp.exp(y), branch=0)"),
    (sp.Ei(x), "special.expi(x)"),
    (sp.exp(-x) * sp.Ei(x), "special.expi_scaled(x)"),
    (y * sp.exp(-x) * sp.Ei(x), "special.expi_scaled(x)*y"),
    (sp.sqrt(x**2 + k**2), "jnp.hypot(x, kappa)"),
    (sp.Piecewise((1, x < 1), (0, True)), "jnp.where(x < 1, 1, 0)"),
    (sp.Min(x, sp.Max(0, y)), "jnp.minimum(x, jnp.maximum(y, 0))"),
    (sp.asinh(x) + sp.atanh(y), "jnp.arcsinh(x) + jnp.arctanh(y)"),
    (sp.acosh(x), "jnp.arccosh(x)"),
    (sp.log(1 + sp.exp(-x)), "jax.nn.softplus(-x)"),
    ((1 + sp.exp(x)) ** -k, "jnp.exp(-kappa*jax.nn.softplus(x))"),
    (sp.hyper((x,), (y,), k), "jax.scipy.special.hyp1f1(x, y, kappa)"),
]


@pytest.mark.parametrize(("expression", "code"), PRINTED)
@pytest.mark.usefixtures("x64")
def test_the_table_of_the_jax_printer(expression, code):
    printed = SpecialJaxPrinter().doprint(expression)
    assert sorted(re.findall(r"[\w.]+|\S", printed)) == sorted(re.findall(r"[\w.]+|\S", code))
    numbers = {"x": -0.3, "y": 0.4, "kappa": 0.7}
    if expression.has(sp.acosh):
        numbers["x"] = 1.4
    if expression.has(sp.LambertW) and len(next(iter(expression.atoms(sp.LambertW))).args) == 1:
        numbers["x"] = 0.3
    found = eval(printed, {"jax": jax, "jnp": jnp, "special": special, **numbers})
    known = sp.N(expression.subs({symbol: numbers[symbol.name] for symbol in expression.free_symbols}))
    assert float(found) == pytest.approx(float(known), rel=1e-12)


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge", "exponential", "squared"])
def test_clock_integrals_are_recognised(loss):
    derivation = derive("mode", loss)
    assert f"special.clock_integral({loss!r}, u0, u, kappa)" in derivation.to_jax("t(u) integral").source


@pytest.mark.parametrize(
    "expression",
    [
        sp.Integral(sp.exp(-(x**2)), (x, 0, y)),
        sp.Integral(1 / sp.sqrt(1 + x**4), (x, 0, y)),
        sp.LambertW(x, 3),
        sp.Piecewise((1, x < 1)),
        sp.Function("h")(x),
        sp.gamma(x),
        sp.hyper((), (x,), y),
    ],
)
def test_what_cannot_be_printed_is_refused(expression):
    with pytest.raises(NotImplementedError):
        SpecialJaxPrinter().doprint(expression)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss"), [("mode", "hinge"), ("one-layer", "cross-entropy")])
def test_latex_holds_every_step(name, loss):
    derivation = derive(name, loss)
    text = derivation.to_latex(document=True)
    assert derivation.to_latex() in text
    for step in derivation.checked_steps:
        assert step.method in text
        for equation in step.equations:
            assert f"{latex(equation.lhs)} &= {latex(equation.rhs)}" in text
    assert_well_formed(text)


@pytest.mark.slow
def test_one_document_holds_every_law(monkeypatch):
    # How the steps are printed, not whether they hold: that is checked elsewhere, and takes longer.
    monkeypatch.setattr(Derivation, "checked_steps", property(lambda derivation: derivation.steps))
    derivations = [derive(name, loss) for name, loss in available()]
    text = latex_document(derivations)
    for derivation in derivations:
        assert text.count(derivation.to_latex()) == 1
    assert_well_formed(text)


def assert_well_formed(text):
    """Environments, braces and delimiters in pairs, and nothing between words that TeX would stumble on."""
    opened, closed = (re.findall(rf"\\{word}{{(\w+\*?)}}", text) for word in ("begin", "end"))
    assert sorted(opened) == sorted(closed)
    bare = re.sub(r"\\[{}]", "", text)
    depth = np.cumsum([(character == "{") - (character == "}") for character in bare])
    assert depth[-1] == 0
    assert depth.min() >= 0
    assert text.count(r"\left") == text.count(r"\right")
    # Words stand outside the equations: none of these characters may, unless escaped or between dollar signs.
    words = re.sub(
        r"\\begin{align\*}.*?\\end{align\*}|\$.*?\$|\\[&%$#_]|\\\^{}", "", text.split(r"\begin{document}")[1], flags=re.S
    )
    assert not set("<>_^&%#$") & set(words)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    path = tmp_path / "all.tex"
    path.write_text(latex_document(derive(name, loss) for name, loss in dict(reversed(available())).items()))
    command = ["pdflatex", "-draftmode", "-halt-on-error", path.name]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_names_in_latex():
    theta0, u0, m_plus = sp.symbols("theta0 u0 M_plus", positive=True)
    assert latex(sp.asinh(u0 / k)) == r"\operatorname{arsinh}\left(\frac{u_{0}}{\kappa}\right)"
    assert latex(sp.LambertW(x) + theta0) == r"\theta_{0} + W_{0}\left(x\right)"
    assert latex(sp.LambertW(x, -1) ** 2) == r"W_{-1}^{2}\left(x\right)"
    assert latex(sp.Ei(x)) == r"\operatorname{Ei}{\left(x \right)}"
    assert latex(m_plus) == "M_{+}"
    assert latex(sp.atanh(x)) == r"\operatorname{artanh}\left(x\right)"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss"), [("mode", "hinge"), ("one-layer", "cross-entropy")])
def test_markdown_and_text_hold_every_step(name, loss):
    derivation = derive(name, loss)
    markdown, text = derivation.to_markdown(), str(derivation)
    assert markdown.count("$$") == 2 * len(derivation.steps)
    assert derivation._repr_markdown_() == markdown
    for number, step in enumerate(derivation.checked_steps, start=1):
        assert step.claim in markdown
        assert f"{number}. {step.name}" in text
        assert step.claim in text
        assert f"check: {step.method}" in text


LATE = [  # of the mode and others at large logits: (law, loss, result, arguments, index of the logit)
    ("mode", "cross-entropy", "du/dt", (0.5, 1.0, 0.3), "u"),
    ("one-layer", "cross-entropy", "du/dt", (0.5, 1.0), "u"),
    ("softmax", "cross-entropy", "du/dt two layers", (10.0, 0.5, 1.0, 0.3), "u"),
    ("inflection", "cross-entropy", "K(u)", (), "u"),
    ("inflection", "squared", "K'(u)", (), "u"),
    ("inflection", "exponential", "K(u)", (), "u"),
    ("focal", "cross-entropy", "g(m)", (0.7,), "m"),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "loss", "key", "others", "logit"), LATE)
def test_printed_code_has_its_value_and_derivative_at_large_logits(name, loss, key, others, logit):
    derivation = derive(name, loss)
    function = derivation.to_jax(key)
    names = list(inspect.signature(function).parameters)
    values = dict(zip((n for n in names if n != logit), others, strict=True))
    doubles, singles = (-300.0, 30.0, 354.0, 400.0, 700.0, 1000.0), (50.0, 80.0)
    for dtype, logits, rtol in ((jnp.float64, doubles, 1e-11), (jnp.float32, singles, 1e-4)):
        given = {n: dtype(value) for n, value in values.items()}
        run = jax.jit(jax.vmap(jax.value_and_grad(lambda u, given=given: function(**given, **{logit: u}))))
        found = np.stack(run(jnp.asarray(logits, dtype)))
        with mpmath.workdps(900):
            def along(u):
                return in_mpmath(derivation, key, [u if n == logit else mpmath.mpf(values[n]) for n in names])

            exact = np.array([[float(along(u)), float(mpmath.diff(along, u))] for u in map(mpmath.mpf, logits)]).T
        # Next to 1 the derivative of a sigmoid is known to the rounding of 1, which is that of the value.
        slack = rtol * np.abs(exact) + float(jnp.finfo(dtype).eps) * np.abs(exact[0]) + float(jnp.finfo(dtype).tiny)
        assert (np.abs(found - exact) <= slack).all(), (key, dtype, found, exact)
