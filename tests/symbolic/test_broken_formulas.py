"""Break one formula on purpose, in every place: its check fails."""

import pytest
import sympy as sp

from gradstarve.symbolic import DerivationError, available, derive


def changed_expressions(expression):
    """The expression with one of its parts 1 % larger, for every part; zero becomes 1/100."""
    factor = sp.Rational(101, 100)
    if expression == 0:
        return [sp.Rational(1, 100)]
    changed = [expression * factor]
    bound = {variable for derivative in expression.atoms(sp.Derivative) for variable in derivative.variables}
    bound |= {whole.limits[0][0] for whole in expression.atoms(sp.Integral, sp.Sum, sp.Product)}
    for part in set(sp.preorder_traversal(expression)) - bound - {expression}:
        if isinstance(part, sp.Expr) and not part.is_number:
            mark = sp.Dummy(positive=True)
            candidate = expression.xreplace({part: mark}).xreplace({mark: part * factor})
            if candidate != expression:
                changed.append(candidate)
    return changed


def changed_equations(step, thorough):
    """Tuples of equations that differ from the step's own in one place."""
    for index, equation in enumerate(step.equations):
        variants = changed_expressions(equation.rhs)
        variants = variants if thorough else variants[:1]
        candidates = [sp.Eq(equation.lhs, rhs, evaluate=False) for rhs in variants]
        if equation.rhs != 0:
            candidates.append(sp.Eq(2 * equation.lhs, equation.rhs, evaluate=False))
        for candidate in candidates:
            yield (*step.equations[:index], candidate, *step.equations[index + 1 :])


def surviving_changes(derivation, steps, thorough):
    survivors = []
    for step in steps:
        for equations in changed_equations(step, thorough):
            broken = derivation.with_equation(step.name, equations)
            try:
                passed = broken.check_step(step.name, points=1).passed
            except DerivationError:
                passed = False
            if passed:
                survivors.append((step.name, equations))
    return survivors


@pytest.mark.parametrize(("name", "loss"), available())
def test_every_changed_equation_fails(name, loss):
    derivation = derive(name, loss)
    assert surviving_changes(derivation, derivation.steps, thorough=False) == []


@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_every_changed_part_of_one_layer_fails(loss):
    derivation = derive("one-layer", loss)
    assert surviving_changes(derivation, derivation.steps, thorough=True) == []


@pytest.mark.parametrize(
    ("loss", "names"),
    [
        ("cross-entropy", ["amplitude and angle", "mode equation", "balanced time"]),
        ("hinge", ["residual", "growth", "arrival and rest"]),
        ("exponential", ["balance", "logit on the clock", "deaths", "balanced equation"]),
        ("squared", ["exponential variable", "Riccati equation", "linearisation", "balanced logistic"]),
    ],
)
def test_every_changed_part_of_a_mode_fails(loss, names):
    derivation = derive("mode", loss)
    assert surviving_changes(derivation, [derivation[name] for name in names], thorough=True) == []


@pytest.mark.slow
def test_check_names_the_broken_step():
    derivation = derive("mode", "cross-entropy")
    equation = derivation["mode equation"].equations[0]
    broken = derivation.with_equation("mode equation", sp.Eq(equation.lhs, equation.rhs / 2, evaluate=False))
    with pytest.raises(DerivationError, match=r"mode \(cross-entropy\), step 'mode equation' does not follow"):
        broken.check()
    with pytest.raises(DerivationError):
        broken.to_latex()  # what does not hold is not printed either


def test_a_kink_a_little_off_is_seen():
    derivation = derive("mode", "hinge")
    equation = derivation["residual"].equations[0]
    m = next(iter(equation.rhs.free_symbols))
    moved = sp.Piecewise((1, m < 1 + sp.Rational(1, 10**6)), (0, True))
    assert not derivation.with_equation("residual", sp.Eq(equation.lhs, moved)).check_step("residual").passed
