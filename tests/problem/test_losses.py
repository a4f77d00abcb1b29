"""The four losses against mpmath, from the smallest margins to the largest."""

import copy
from collections.abc import Callable

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.problem import (
    LOSSES,
    CrossEntropy,
    Exponential,
    Hinge,
    JitLoss,
    Loss,
    Mode,
    SpectralDecoupling,
    as_loss,
    clock_of,
)
from gradstarve.special import CLOCKS, ConstantClock
from gradstarve.theory import solve_mode

VALUES = {
    "cross-entropy": lambda m: mp.log1p(mp.exp(-m)),
    "hinge": lambda m: max(mp.mpf(0), 1 - m),
    "exponential": lambda m: mp.exp(-m),
    "squared": lambda m: (1 - m) ** 2 / 2,
}
RESIDUALS = {
    "cross-entropy": lambda m: 1 / (1 + mp.exp(m)),
    "hinge": lambda m: mp.mpf(m < 1),
    "exponential": lambda m: mp.exp(-m),
    "squared": lambda m: 1 - m,
}
MARGINS = [-700.0, -80.0, -36.5, -1.0, -1e-9, 0.0, 1e-300, 1e-3, 0.5, 1.0, 1.5, 17.0, 36.8, 80.0, 700.0, 1e5, 1e300]


def expected(function, margins, dtype):
    """The nearest numbers of `dtype`: what overflows is inf, what underflows 0."""
    with mp.workdps(60):
        wide = [function(mp.mpf(float(m))) for m in margins]
        largest = mp.mpf(float(np.finfo(dtype).max))
        return np.array([float("inf") if v > largest else -float("inf") if v < -largest else float(v) for v in wide])


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", LOSSES)
def test_values_and_residuals_are_those_of_mpmath(name, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    loss, dtype = LOSSES[name](), np.dtype(precision)
    margins = np.array([m for m in MARGINS if abs(m) < float(np.finfo(dtype).max)], dtype)
    eps, tiny = np.finfo(dtype).eps, np.finfo(dtype).tiny
    for function, table in ((loss.value, VALUES), (loss.residual, RESIDUALS)):
        got = function(jnp.asarray(margins))
        assert got.dtype == dtype
        # A relative error of |m| eps is what rounding m itself costs e^-m.
        want = expected(table[name], margins, dtype)
        rtol = 8 * eps * np.maximum(1, np.minimum(np.abs(margins), 800))
        finite = np.isfinite(want)
        gap = np.abs(np.asarray(got, np.float64)[finite] - want[finite])
        assert (gap <= (rtol[finite] * np.abs(want[finite]) + tiny)).all()
        assert np.array_equal(np.asarray(got, np.float64)[~finite], want[~finite])


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LOSSES)
def test_the_residual_is_minus_the_derivative_of_the_value(name):
    loss = LOSSES[name]()
    margins = jnp.array([m for m in MARGINS if abs(m) <= 700])
    slope = jax.vmap(jax.grad(loss.value))(margins)
    np.testing.assert_allclose(-slope, loss.residual(margins), rtol=1e-13, atol=1e-300)


def test_the_kink_of_the_hinge_belongs_to_the_flat_side():
    below = np.nextafter(np.float32(1), np.float32(0))
    assert Hinge().residual(jnp.array([below, 1.0])).tolist() == [1, 0]
    assert jax.vmap(jax.grad(Hinge().value))(jnp.array([below, 1.0])).tolist() == [-1, 0]


def test_any_shape():
    for name in LOSSES:
        for shape in ((), (3,), (2, 0, 4)):
            loss = as_loss(name)
            assert loss.value(jnp.zeros(shape)).shape == loss.residual(jnp.zeros(shape)).shape == shape


def test_a_loss_is_itself_or_its_name():
    loss = CrossEntropy()
    assert as_loss(loss) is loss
    assert {name: type(as_loss(name)) for name in LOSSES} == LOSSES
    for bad in ("logistic", "Hinge", None, 3, "", ["hinge"]):
        with pytest.raises(ValueError, match=r"unknown loss .*; use one of 'cross-entropy', 'hinge', 'exponential'"):
            as_loss(bad)
    with pytest.raises(ValueError, match=r"the class Hinge; give an instance, Hinge\(\)"):
        as_loss(Hinge)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_states_of_itself_is_true(name):
    loss = LOSSES[name]()
    margins = jnp.linspace(-20.0, 0.9, 50)
    residuals = loss.residual(margins)
    np.testing.assert_allclose(loss.reciprocal(margins), 1 / residuals, rtol=1e-13)
    if loss.stops:  # the margin at which g jumps has every value in between
        np.testing.assert_array_equal(loss.inverse(jnp.array([0.0, 0.5, 1.0])), loss.rest)
    else:
        np.testing.assert_allclose(loss.inverse(residuals), margins, rtol=1e-8, atol=1e-12)
    levels = loss.value(margins)
    np.testing.assert_allclose(loss.margin_at(levels), margins, rtol=1e-7, atol=1e-12)
    assert float(loss.margin_at(jnp.array(0.0))) == loss.rest
    assert loss.least == 0
    assert (loss.value(jnp.linspace(-30.0, 30.0, 61)) >= 0).all()
    if loss.offset is not None:
        np.testing.assert_allclose(residuals, 1 / (loss.offset + jnp.exp(margins)), rtol=1e-13)
        late = jnp.linspace(1.0, 30.0, 30)
        np.testing.assert_allclose(loss.at_error(jax.nn.sigmoid(-late)), loss.value(late), rtol=1e-13)
    beyond = loss.residual(jnp.array([1.5, 3.0]))
    assert loss.pulls_back == bool((beyond < 0).any())
    assert loss.stops == bool((beyond == 0).all())
    assert loss.clock == CLOCKS[name]
    assert (loss.clock.rest, loss.clock.pulls_back) == (loss.rest, loss.pulls_back)


class Plain(Hinge):
    pass


class Steep(Plain):
    def residual(self, margin):
        return 3 * super().residual(margin)


class Raised(CrossEntropy):
    def value(self, margin):
        return 1 + super().value(margin)


def test_a_subclass_states_nothing_of_another_residual_or_value():
    class Mixed:
        def residual(self, margin):
            return jnp.exp(-2 * margin)

    class Other(Mixed, Exponential):
        pass

    class Known(Steep):
        least = 0.0

    assert (Plain().clock, Plain().stops, Plain().least) == (ConstantClock(), True, 0.0)
    for loss in (Steep(), Raised(), Other()):
        assert (loss.clock, loss.offset, loss.least, loss.margin_at, loss.at_error) == (None,) * 5
        assert not loss.stops
        assert clock_of(loss).law is loss
    assert (Known().least, Known().clock) == (0.0, None)
    assert clock_of(Hinge()) == ConstantClock()


def test_a_clock_is_stated_as_an_object_or_by_its_name():
    class Raised(Hinge):
        clock = "hinge"

        def value(self, margin):
            return 1 + super().value(margin)

    class Unknown(Raised):
        clock = "hinges"

    assert clock_of(Raised()) == ConstantClock()
    mode = Mode(0.5, 1.0, a=[0.3], z=[0.2])
    given, plain = solve_mode(mode, Raised()), solve_mode(mode, "hinge")
    assert float(given.logit(3.0)) == float(plain.logit(3.0))
    assert float(given.loss(1.0)) == pytest.approx(1 + float(plain.loss(1.0)))
    with pytest.raises(ValueError, match="did you mean 'hinge'"):
        clock_of(Unknown())


def test_of_a_loss_in_jit_arrays_alone_are_leaves():
    class Scaled(CrossEntropy):
        scale: jax.Array
        power: float
        bend: Callable

        def residual(self, margin):
            return self.scale * self.bend(-margin) ** self.power

    def bend(margin):
        return jax.nn.sigmoid(margin)

    held = JitLoss(Scaled(jnp.array(2.0), 3, bend))
    assert len(jax.tree.leaves(held)) == 1
    assert float(jax.jit(lambda held: held.loss.residual(0.0))(held)) == 0.25
    assert jax.tree.structure(jax.tree.map(lambda leaf: "any", held)) == jax.tree.structure(held)
    again = copy.deepcopy(held)
    assert jax.tree.structure(again) == jax.tree.structure(held)
    assert jax.tree.structure(JitLoss(Scaled(jnp.array(2.0), 2, bend))) != jax.tree.structure(held)


def test_a_subclass_with_another_residual_or_value_has_the_name_of_its_class():
    class Heavy(SpectralDecoupling):
        def value(self, margin):
            return 2 * super().value(margin)

    class Titled(Raised):
        name = "title"

        def value(self, margin):
            return 2 + super().value(margin)

    class Field(Loss):
        name: str

        def residual(self, margin):
            return -margin

    class Same(Field):
        pass

    penalised = SpectralDecoupling(Steep(), 0.1)
    losses = (Plain(), Steep(), Raised(), Titled(), Field("own"), Same("mine"), penalised, Heavy("hinge", 0.1))
    names = ["hinge", "Steep", "Raised", "title", "own", "mine", "Steep + spectral decoupling", "Heavy"]
    assert [loss.name for loss in losses] == names
