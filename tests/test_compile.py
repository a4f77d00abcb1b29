"""What is asked from Python about numbers that are there compiles in another way, and says the same."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradstarve.ground import _compile, quick_jit


def made(**keywords):
    """A function of two arrays by `quick_jit`, and the compiler options with which it was compiled, in turn."""
    seen = []

    def jit(function, compiler_options=None):
        def noted(*args, **named):
            seen.append(compiler_options)
            return jax.jit(function, compiler_options=compiler_options)(*args, **named)

        return noted

    def function(x, y):
        return jnp.cumsum(jnp.exp(-x) * jnp.sin(y))

    return quick_jit(jit, **keywords)(function), function, seen


@pytest.mark.parametrize("size", [5, _compile.FEW, _compile.MANY])
def test_every_size_gets_the_same_numbers(x64, size):
    answer, _, seen = made()
    x = jnp.linspace(0.0, 1.0, size)
    expected = np.cumsum(np.exp(-np.asarray(x)) * np.sin(2.0))
    np.testing.assert_allclose(answer(x, jnp.float64(2.0)), expected, rtol=1e-12)
    assert (seen[0] is None) == (size == _compile.MANY)  # with the second number it is one above
    if size == 5:
        assert answer(x, y=jnp.float64(2.0)).shape == (5,)
        assert len(seen[0]) > len(_compile.quick_to_compile())


def test_a_loop_is_quick_to_compile_by_what_it_goes_over(x64):
    x = jnp.linspace(0.0, 1.0, _compile.FEW + 1)
    found = []
    for count in (_compile.FEW_PASSES, _compile.FEW_PASSES + 1, 0):
        answer, plain, seen = made(few=0, passes=lambda x, y: count)  # noqa: B023
        np.testing.assert_allclose(answer(x, 2.0), plain(x, 2.0), rtol=1e-12)
        found.append(len(seen[0]))
    quickest, quick, again = found
    assert quickest == again > quick == len(_compile.quick_to_compile())


def test_traced_numbers_are_compiled_as_usual(x64):
    answer, plain, seen = made()
    x = jnp.linspace(0.0, 1.0, 7)
    slope = jax.grad(lambda y: answer(x, y)[-1])(2.0)
    np.testing.assert_allclose(slope, jax.grad(lambda y: plain(x, y)[-1])(2.0), rtol=1e-13)
    jax.vmap(answer, (None, 0))(x, jnp.arange(3.0))
    jax.jit(answer)(x, 2.0)
    # Inside jit also what is there: compiler options are for programs of their own.
    inside = jax.jit(lambda y: y * answer(x, jnp.float64(2.0)))(3.0)
    np.testing.assert_allclose(inside, 3 * plain(x, 2.0), rtol=1e-13)
    assert seen == [None] * 4


def test_options_that_no_version_knows_are_left_out():
    assert _compile._known(("xla_no_such_option", 1)) == {}
    assert _compile._known(("xla_no_such_option", 1), ("xla_backend_optimization_level", 1)) == {
        "xla_backend_optimization_level": 1
    }


def test_what_is_no_array_is_part_of_the_program():
    power = quick_jit(eqx.filter_jit, few=0)(lambda x, name: x**2 if name == "square" else x)
    assert power(jnp.float32(3.0), "square") == 9
    assert power(jnp.float32(3.0), "other") == 3
