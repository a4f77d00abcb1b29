"""The machinery: checks that really check, look-ups, names, and what `derive` refuses."""

from types import SimpleNamespace

import mpmath
import pytest
import sympy as sp

from gradstarve.ground import LOSS_NAMES, laws
from gradstarve.symbolic import Derivation, DerivationError, Step, available, derive
from gradstarve.symbolic._derivation import Known, Target, defects, largest_residual, simplifies_to_zero

x, y = sp.symbols("x y", positive=True)


def small_derivation(claim: sp.Expr) -> Derivation:
    first = Step("start", "A number.", sp.Eq(y, x**2), lambda own, _: [own(y) - x * x])
    second = Step(
        "root", "Its root.", sp.Eq(sp.Symbol("c"), claim), lambda own, earlier: [own(sp.Symbol("c")) ** 2 - earlier(y)]
    )
    return Derivation("test", "none", "A test", (first, second), {"c": Target("root", sp.Symbol("c"), (x,))})


def test_random_points_pass_an_identity_that_algebra_misses():
    # A true identity (Machin) which `simplify` does not see.
    machin = 16 * sp.atan(sp.Rational(1, 5)) - 4 * sp.atan(sp.Rational(1, 239)) - sp.pi
    method, failure = defects([x * machin], {}, points=3, digits=50, seed=0)
    assert failure is None
    assert method == "vanishes at 3 random points to 50 digits"


def test_algebra_is_named_when_it_decides():
    assert defects([(x + y) ** 2 - x**2 - 2 * x * y - y**2], {}, points=2, digits=50, seed=0) == (
        "simplifies to 0",
        None,
    )


@pytest.mark.parametrize("digits", [20, 49])
def test_random_points_see_an_error_in_the_last_digits(digits):
    wrong = sp.exp(x) * sp.exp(y) - sp.exp(x + y) + sp.Rational(1, 10**digits)
    method, failure = defects([wrong], {}, points=3, digits=50, seed=0)
    assert failure is not None
    assert "random points" in method


def test_a_nearly_true_identity_is_refused():
    # exp(pi sqrt(163)) misses an integer by 7.5e-13 only.
    ramanujan = sp.exp(sp.pi * sp.sqrt(163)) - 262537412640768744
    assert largest_residual(x * ramanujan, {}, 3, 50, 0) > 1e-35
    assert not simplifies_to_zero(sp.Rational(1, 10**60) * x)


def test_values_that_do_not_exist_do_not_vanish():
    assert largest_residual(x * sp.nan, {}, 1, 50, 0) == mpmath.inf


def test_undefined_functions_are_refused():
    with pytest.raises(ValueError, match=r"contains h\(x\)"):
        largest_residual(sp.Function("h")(x), {}, 1, 50, 0)


def test_a_wrong_step_is_named():
    assert [result.method for result in small_derivation(x).check()] == ["simplifies to 0"] * 2
    broken = small_derivation(x + sp.Rational(1, 10**30))
    with pytest.raises(DerivationError, match="step 'root' does not follow") as error:
        broken.check()
    assert "Its root." in str(error.value)
    assert broken.check_step("start").passed
    assert not broken.check_step("root").passed


def test_a_broken_premise_fails_later_steps_too():
    broken = small_derivation(x).with_equation("start", sp.Eq(y, x**3))
    assert not broken.check_step("start").passed
    assert not broken.check_step("root").passed


def test_a_changed_left_side_is_seen():
    known = Known([("a", (sp.Eq(2 * y, x),))])
    assert known(y) == x / 2
    with pytest.raises(DerivationError, match="no equation gives x"):
        known(x)


def test_results_and_definitions_are_read_off_the_steps():
    derivation = derive("one-layer", "cross-entropy")
    c = sp.Symbol("C", real=True)
    assert derivation.result["u(t)"].rhs == c - sp.LambertW(sp.exp(c))
    ((symbol, value),) = derivation.definitions("u(t)")
    assert symbol == c
    step = derivation["logit in time"]
    first, second = step.equations
    changed = derivation.with_equation("logit in time", (first, sp.Eq(second.lhs, second.rhs + 1)))
    assert changed.result["u(t)"].rhs == second.rhs + 1
    assert derivation.result["u(t)"].rhs == second.rhs
    assert value.free_symbols == {sp.Symbol("t", nonnegative=True), *derivation.targets["u(t)"].arguments[1:]}


def test_circular_definitions_are_refused():
    a, b = sp.symbols("a b")
    steps = (Step("loop", "A loop.", (sp.Eq(a, b), sp.Eq(b, a + 1)), lambda own, _: []),)
    derivation = Derivation("test", "none", "A loop", steps, {"a": Target("loop", a, ())})
    with pytest.raises(DerivationError, match="circle"):
        derivation.definitions("a")


def test_the_table_has_what_the_decorators_declare():
    table = laws("derives")
    assert available() == [(name, loss) for name, law in table.items() for loss in law.losses]
    assert {loss for law in table.values() for loss in law.losses} == set(LOSS_NAMES)
    for name, law in table.items():
        derivation = derive(name, law.losses[0])
        assert (derivation.name, derivation.loss) == (name, law.losses[0])
        assert derivation.title.startswith(law.title)
        assert law.losses[0] in derivation.title
        assert f"({law.equation.partition('-')[0]})" in [step.reference for step in derivation.steps]
        assert f'- "{name}" ({law.equation}): ' in derive.__doc__
    with pytest.raises(ValueError, match="for the loss 'hinge'; available losses are"):
        derive("decay", "hinge")


def test_a_loss_object_is_known_by_its_name():
    assert derive("mode", SimpleNamespace(name="hinge")) is derive("mode", "hinge")


def test_the_losses_of_the_problem_room_are_accepted():
    from gradstarve.problem import _losses as losses

    for cls in (losses.CrossEntropy, losses.Hinge, losses.Exponential, losses.SquaredMargin):
        assert derive("mode", cls()).loss == cls().name


@pytest.mark.parametrize(
    ("name", "loss", "message"),
    [
        ("modes", "hinge", "no derivation named 'modes'.*one-layer"),
        ("mode", "absolute", "for the loss 'absolute'.*cross-entropy"),
        ("mode", 3, "for the loss 3"),
    ],
)
def test_unknown_names_are_refused(name, loss, message):
    with pytest.raises(ValueError, match=message):
        derive(name, loss)


def test_unknown_steps_and_results_are_refused():
    derivation = derive("one-layer", "hinge")
    with pytest.raises(ValueError, match="no step named 'clocks'"):
        derivation["clocks"]
    with pytest.raises(ValueError, match=r"no result named 'u\(x\)'.*u\(t\)"):
        derivation.to_jax("u(x)")
