"""Late in training derivatives are e^-u, or e^-t, of the terms they could be the difference of, and have all their digits.

The cases to think of are the exponential tails at t = 1e6 in float32 and t = 1e20 in float64. What is expected comes from
the implicit equations of the laws, never from differences.
"""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import theory
from gradstarve.theory import solve_mode


def late_slopes(loss, p, r, a, z, t):
    """u and du/d(p, r, a, z, t) from the implicit equation (3.5), in high precision."""
    p, r, a, z, t = map(mpmath.mpf, (p, r, a, z, t))
    more, less, first, clock = (a + z) ** 2, (a - z) ** 2, r * a * z, 2 * p * r * t
    square = r * r * more * less / 4
    inverse = mpmath.exp if loss == "exponential" else (lambda v: 1 + mpmath.exp(v))

    def integral(u, power):
        edges = [first, *(x for x in (0.5, 1, 2, 4, 8, 16, 32) if first < x < u), u]
        return mpmath.quad(lambda v: inverse(v) / mpmath.sqrt(square + v * v) ** power, edges)

    u = mpmath.log(clock) + mpmath.log(mpmath.log(clock))
    for _ in range(40):
        step = (clock - integral(u, 1)) * mpmath.sqrt(square + u * u) / inverse(u)
        u += step
        if abs(step) < mpmath.mpf(10) ** -20:
            break
    speed = mpmath.sqrt(square + u * u) / inverse(u)
    at_first, bend = inverse(first) / mpmath.sqrt(square + first**2), integral(u, 3) / 2

    def move(dsquare, dfirst, dclock):
        return speed * (dclock + at_first * dfirst + bend * dsquare)

    along, across = (a + z) * less, (a - z) * more
    by_a, by_z = r * r / 2 * (along + across), r * r / 2 * (along - across)
    by_r = move(2 * square / r, first / r, 2 * p * t)
    return u, [move(0, 0, 2 * r * t), by_r, move(by_a, r * z, 0), move(by_z, r * a, 0), move(0, 0, 2 * p * r)]


LATE = [
    pytest.param(loss, dtype, t, marks=[pytest.mark.slow] if loss == "exponential" else [])
    for loss in ("cross-entropy", "exponential")
    for dtype, t in ((np.float32, 1e6), (np.float64, 1e20))
]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("loss", "dtype", "t"), LATE)
def test_late_derivatives_have_their_digits(loss, dtype, t):
    """They are e^-u of the terms they could be the difference of: 1e-7 and 1e-22 here."""
    starts = np.array([(0.6, 1.3, 0.3, 0.3, t), (0.6, 1.3, 0.5, -0.2, t)], dtype)

    def late(x):
        solution = solve_mode(gs.Mode(x[0], x[1], x[2:3], x[3:4]), loss)
        # In float64 cross-entropy the error is a sigmoid of the logit, and half of what compiling costs.
        quick = loss == "cross-entropy" and dtype == np.float64
        return jnp.stack([solution.logit(x[4])] if quick else [solution.logit(x[4]), solution.error(x[4])])

    found = np.asarray(jax.jit(jax.vmap(jax.jacrev(late)))(jnp.asarray(starts)))
    tolerance = 10 * np.finfo(dtype).eps if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, late_exactly(loss, starts)[1][:, : found.shape[1]], rtol=tolerance)


def late_exactly(loss, starts):
    """(u, error) [starts, 2] and their derivatives [starts, 2, 5]."""
    values, slopes = [], []
    with mpmath.workdps(40):
        for start in starts:
            u, by = late_slopes(loss, *map(float, start))
            error = 1 / (1 + mpmath.exp(u))
            values.append([float(u), float(error)])
            slopes.append([list(map(float, by)), [float(-error * (1 - error) * move) for move in by]])
    return np.array(values), np.array(slopes)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_single_precision_ends_where_its_floats_do():
    """At t = 1e20 the derivative of the error in t is 1e-42: 0. The others are right in forward mode; backwards those in p
    and r, 1e-22, pass through 1e-44, and are 0 or less than they are."""
    start = np.array([0.6, 1.3, 0.5, -0.2, 1e20], np.float32)

    def error(x):
        return solve_mode(gs.Mode(x[0], x[1], x[2:3], x[3:4]), "cross-entropy").error(x[4])

    values, slopes = late_exactly("cross-entropy", [start])
    np.testing.assert_allclose(error(start), values[0, 1], rtol=1e-6)
    forward, back = (np.asarray(jax.jit(f(error))(jnp.asarray(start))) for f in (jax.jacfwd, jax.jacrev))
    np.testing.assert_allclose(forward[:4], slopes[0, 1, :4], rtol=10 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(back[2:4], slopes[0, 1, 2:4], rtol=10 * np.finfo(np.float32).eps)
    assert abs(slopes[0, 1, 4]) < np.finfo(np.float32).tiny
    assert forward[4] == back[4] == 0
    assert (np.abs(back[:2]) <= np.abs(forward[:2])).all()


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "exponential"])
@pytest.mark.parametrize(("dtype", "t"), [(np.float32, 1e6), (np.float64, 1e6), (np.float64, 1e20)])
def test_late_derivatives_of_deep_paths_have_their_digits(loss, dtype, t):
    """Two layers are a neuron; of three equal ones (7.1) says du/du(0) = s(u)/s(u(0)) and du/dt = p s(u), s the speed."""
    start = np.array([0.6, 1.3, 0.5, 0.2, t], dtype)

    def two(x):
        law = theory.depth_mode(x[0], x[1], x[2:4], loss)
        return jnp.stack([law.logit(x[4]), law.error(x[4])])

    found = jax.jit(jax.jacrev(two))(jnp.asarray(start))
    tolerance = 2e-6 if dtype == np.float32 else 1e-12
    np.testing.assert_allclose(found, late_exactly(loss, [start])[1][0], rtol=tolerance)

    def three(scale, t):
        law = theory.depth_mode(start[0], start[1], scale * jnp.full(3, 0.4, dtype), loss)
        return jnp.concatenate([law.logit(t)[None], law.weights(t)])

    one, t = dtype(1), dtype(t)
    by_scale, by_t = jax.jit(jax.jacfwd(three, (0, 1)))(one, t)
    p, r, b = map(float, (start[0], start[1], np.float32(0.4) if dtype == np.float32 else 0.4))
    with jax.enable_x64(True):
        u = float(theory.depth_mode(p, r, np.full(3, b), loss).logit(float(t)))
    first = r * b**3

    def speed(u):
        return 3 * r ** (2 / 3) * u ** (4 / 3) * (np.exp(-u) if loss == "exponential" else 1 / (1 + np.exp(u)))

    to_u, to_b = 3 * first * speed(u) / speed(first), (u / r) ** (1 / 3) / (3 * u)
    np.testing.assert_allclose(by_scale, to_u * np.array([1, *[to_b] * 3]), rtol=tolerance)
    np.testing.assert_allclose(by_t, p * speed(u) * np.array([1, *[to_b] * 3]), rtol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_late_derivatives_of_the_squared_loss_have_their_digits(dtype):
    """What is left of 1 - u, e^(-2 t) here, is the size of every derivative: u = u_0/(u_0 + (1 - u_0) e^(-2t)) at a = z."""
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    for t in map(dtype, (12.0, 25.0)):

        def logit(a, t):
            one = jnp.ones((), dtype)
            return solve_mode(gs.Mode(one, one, a[None], a[None]), "squared").logit(t)

        a = dtype(0.5)
        by_a, by_t = jax.jit(jax.grad(logit, (0, 1)))(a, t)
        twice = jax.jit(jax.jacfwd(jax.grad(logit)))(a, t)
        left, u0 = np.exp(-2 * float(t)), 0.25
        whole = u0 + (1 - u0) * left
        np.testing.assert_allclose(by_a, left / whole**2, rtol=tolerance)
        np.testing.assert_allclose(by_t, 2 * left * u0 * (1 - u0) / whole**2, rtol=tolerance)
        np.testing.assert_allclose(twice, 2 * left / whole**2 - 2 * left * (1 - left) / whole**3, rtol=tolerance)
        alone = jax.grad(lambda u0, t: theory.one_layer_logit(dtype(1), dtype(1), u0, "squared", t))(a, t)
        np.testing.assert_allclose(alone, np.exp(-float(t)), rtol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("dtype", "t"), [pytest.param(np.float32, 1e6, marks=pytest.mark.slow), (np.float64, 1e20)])
def test_late_errors_of_a_softmax_have_their_digits(dtype, t):
    """e^u + 3 u = 4 p r^2 t + e^u(0) + 3 u(0), so du/du(0) = (e^u(0) + 3)/(e^u + 3) and P' = -P (1 - P) u'."""
    start, one = dtype(0.1), dtype(1)

    def error(start):
        return theory.softmax_mode(one, one, classes=4, start=start).error(dtype(t))

    value, slope = jax.value_and_grad(error)(jnp.asarray(start))
    with mpmath.workdps(40):
        first = mpmath.mpf(float(start))
        whole = 4 * mpmath.mpf(float(dtype(t))) + mpmath.exp(first) + 3 * first
        u = mpmath.findroot(lambda u: mpmath.exp(u) + 3 * u - whole, mpmath.log(whole))
        wrong = 3 / (mpmath.exp(u) + 3)
        expected = -wrong * (1 - wrong) * (mpmath.exp(first) + 3) / (mpmath.exp(u) + 3)
        np.testing.assert_allclose(value, float(wrong), rtol=1e-6 if dtype == np.float32 else 1e-13)
        np.testing.assert_allclose(slope, float(expected), rtol=1e-6 if dtype == np.float32 else 1e-13)
