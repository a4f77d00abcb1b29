"""One path of N layers against quadrature in mpmath, the full ODE in SciPy, the clock, and training."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from gradstarve.ground import HypothesisError
from gradstarve.problem import Dataset, DeepReLU, GradientDescent, Mode
from gradstarve.simulation import simulate
from gradstarve.theory import depth_mode, one_layer_logit, solve_mode

LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
INVERSE = {
    "cross-entropy": lambda u: 1 + mp.e**u,
    "exponential": lambda u: mp.e**u,
    "hinge": lambda u: mp.mpf(1),
    "squared": lambda u: 1 / (1 - u),
}


def exact_time(p, r, b, loss, logit):
    """The time at which r prod b_l = logit, by the integral over the log of the smallest weight, in 25 digits."""
    with mp.workdps(25):
        b, p, r, logit = [mp.mpf(float(x)) for x in b], mp.mpf(float(p)), mp.mpf(float(r)), mp.mpf(float(logit))
        square = min(b) ** 2

        def u(y):
            return r * mp.fprod(mp.sqrt(x * x + square * mp.expm1(2 * y)) for x in b)

        bound = mp.log(logit / u(0))
        end = mp.findroot(lambda y: mp.log(u(y) / logit), (bound / len(b), bound), tol=1e-22)
        turns = [mp.log(x * x / square - 1) / 2 for x in b if x * x > 2 * square]
        near = [end - mp.mpf(10) ** -k for k in range(4)]
        marks = [y for y in (*turns, *near, *map(mp.mpf, range(2, 60, 4))) if 0 < y < end]
        ends = sorted({0, *marks, end})
        return mp.quad(lambda y: square * mp.e ** (2 * y) / u(y) * INVERSE[loss](u(y)), ends, method="gauss-legendre") / p


# (p, r, weights): balanced and not, from deep in the plateau and from beside the cut. Times come in fours, and most paths
# have three layers, because every shape is compiled anew.
THREE = [
    (0.7, 1.3, [0.05, 0.05, 0.05]),
    (0.2, 0.4, [0.9, 1e-4, 0.3]),
    (1.0, 2.0, [3.0, 1e-8, 0.5]),
    (0.9, 1.0, [0.97, 0.8, 0.99]),
]
TOPS = {True: np.array([0.3, 0.8, 0.99, 1 - 1e-5]), False: np.array([0.3, 0.99, 1.5, 688.0])}


def check_times(p, r, b, loss, logits):
    law = depth_mode(p, r, b, loss)
    times = np.asarray(law.time_to_logit(logits))
    for u, found in zip(logits, times, strict=True):
        if u <= r * np.prod(b):
            assert found == 0
        else:
            assert abs(found / float(exact_time(p, r, b, loss, u)) - 1) < 1e-11, (b, u)
    back = np.asarray(law.logit(times))
    ahead = times > 0
    # Up to what a rounding of the time is worth; on leaving a plateau, that is a lot.
    there, around = np.asarray(law.logit(times * (1 + 1e-15))), np.asarray(law.logit(times * (1 - 1e-15)))
    np.testing.assert_array_less(np.abs(back - logits)[ahead], (2e-12 * logits + 3 * np.abs(there - around))[ahead])
    np.testing.assert_allclose(law.logit(np.zeros(4)), r * np.prod(b), rtol=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_times_are_those_of_mpmath(loss, x64):
    stops = loss in ("hinge", "squared")
    for p, r, b in THREE if loss == "cross-entropy" else THREE[1:3]:
        check_times(p, r, b, loss, TOPS[stops])
    late = depth_mode(*THREE[1], loss).logit(np.array([1e20, 1e100, 1e200, 1e300]))
    if stops:
        np.testing.assert_array_equal(late, 1)
        np.testing.assert_array_equal(depth_mode(*THREE[1], loss).time_to_logit(TOPS[False] + 1), np.inf)
    else:
        assert abs(float(exact_time(*THREE[1], loss, late[-1])) / 1e300 - 1) < 1e-11
        assert (np.diff(late) > 180).all()


@pytest.mark.slow
@pytest.mark.parametrize("b", [[0.3] * 6, [0.9, 1e-3, 0.5, 0.5, 0.2, 2.0], [1e-8, 3.0]])
def test_times_at_other_depths(b, x64):
    check_times(0.6, 1.7, b, "cross-entropy", TOPS[False])


@pytest.mark.parametrize("loss", LOSSES)
def test_weights_follow_the_full_equations(loss, x64):
    """db_l/dt = p r g(u) prod of the others, all N of them, in SciPy."""
    p, r, b = 0.6, 1.5, np.array([0.7, 0.2, 0.4])
    residual = {
        "cross-entropy": lambda u: 1 / (1 + np.exp(u)),
        "hinge": lambda u: float(u < 1),
        "exponential": lambda u: np.exp(-u),
        "squared": lambda u: 1 - u,
    }[loss]

    def field(t, b):
        return p * r * residual(r * b.prod()) * np.array([np.delete(b, k).prod() for k in range(3)])

    law = depth_mode(p, r, b, loss)
    end = 0.999 * float(law.time_to_logit(np.ones(4))[0]) if loss == "hinge" else 40.0
    times = end * np.array([0.1, 0.3, 0.6, 1.0])
    run = solve_ivp(field, (0, end), b, "DOP853", times, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(law.weights(times), run.y.T, rtol=1e-9)
    np.testing.assert_allclose(law.logit(times), r * run.y.prod(0), rtol=1e-9)


@pytest.mark.slow
def test_two_layers_are_the_clock_and_one_is_the_read_out(x64):
    t = np.array([0.0, 0.3, 20.0, 1e200])
    for loss in ("cross-entropy", "squared"):
        two = depth_mode(0.4, 2.0, [0.3, 0.05], loss)
        clock = solve_mode(Mode(0.4, 2.0, [0.3], [0.05]), loss)
        np.testing.assert_allclose(two.logit(t), clock.logit(t), rtol=1e-12)
        np.testing.assert_allclose(two.weights(t)[..., 0], clock.weights(t)[0][..., 0], rtol=1e-12)
    for loss in LOSSES:
        one = depth_mode(0.4, 2.0, [-0.3], loss)
        np.testing.assert_array_equal(one.logit(t), one_layer_logit(0.4, 2.0, -0.6, loss, t))
        np.testing.assert_allclose(one.weights(t)[..., 0] * 2, one.logit(t), rtol=1e-15)
        np.testing.assert_allclose(one.logit(one.time_to_logit(0.5)), 0.5, rtol=1e-13)


def test_deep_hinge_is_a_straight_line_in_a_power_of_the_logit(x64):
    law = depth_mode(0.3, 2.0, [0.2] * 3, "hinge")
    t = np.array([0.0, 0.3, 0.7, 0.99]) * float(law.time_to_logit(np.ones(4))[0])
    power = 2 / 3 - 1
    line = (2 * 0.2**3) ** power + 3 * 0.3 * 2 ** (2 / 3) * power * t
    np.testing.assert_allclose(np.asarray(law.logit(t)) ** power, line, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_derivatives_are_those_of_differences(loss, x64):
    b, t = jnp.array([0.6, 0.3, 0.5]), jnp.array([0.5, 9.0, 60.0, 300.0])

    def total(p, r, b, t):
        return jnp.sum(depth_mode(p, r, b, loss).logit(t) * jnp.array([1.0, 2.0, 3.0, 4.0]))

    arguments = (jnp.float64(0.7), jnp.float64(1.1), b, t)
    grads = jax.grad(total, (0, 1, 2, 3))(*arguments)
    for i, grad in enumerate(grads):
        for place in np.ndindex(grad.shape):
            unit = jnp.zeros(grad.shape).at[place].set(1e-5)
            ahead, back = (total(*arguments[:i], arguments[i] + s * unit, *arguments[i + 1 :]) for s in (1, -1))
            assert abs(float(grad[place] - (ahead - back) / 2e-5)) < 1e-7 * max(1, abs(float(grad[place]))), (i, place)


@pytest.mark.slow
def test_float32_to_2e_5():
    t = np.array([0.1, 2.0, 50.0, 1e30], np.float32)
    for loss in ("cross-entropy", "squared"):
        for p, r, b in (THREE[1], THREE[3]):
            single = np.asarray(depth_mode(np.float32(p), np.float32(r), np.array(b, np.float32), loss).logit(t))
            assert single.dtype == np.float32
            with jax.enable_x64(True):
                double = np.asarray(depth_mode(p, r, b, loss).logit(t.astype(float)))
            np.testing.assert_allclose(single, double, rtol=2e-5)


@pytest.mark.parametrize("depth", range(1, 7))
def test_descent_tends_to_the_law_at_first_order(depth, x64):
    """Chains of full networks: half the step size, half the gap, which is below 2 % of the logit at the larger one."""
    b = np.linspace(0.5, 0.9, depth)[None]
    direction = np.array([0.6, 0.8])
    data = Dataset(1.3 * direction[None], [1.0])
    law = float(depth_mode(1.0, 1.3, b[0], "cross-entropy").logit(np.full(4, 8.0))[0])
    # Both step sizes in one run: the larger one is at the time of the smaller one's end after half of the steps.
    descent, chains = GradientDescent(jnp.array([0.04, 0.02])), DeepReLU.chain(np.repeat(b, 2, axis=0), direction)
    run = simulate(data, chains, "cross-entropy", descent, 400, record_every=200, progress=False)
    gaps = np.abs(np.array([run.recorded[0, 1, 0], run.recorded[1, 2, 0]]) - law)
    assert gaps[0] < 0.02 * law
    assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.03


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ((0.5, 1.0, []), ValueError, r"N >= 1 layers"),
        ((0.5, 1.0, [0.1, 0.0]), ValueError, "layers must be > 0"),
        ((0.5, 1.0, [0.1, -0.3]), ValueError, "layers must be > 0, got -0.3"),
        ((0.0, 1.0, [0.1, 0.1]), ValueError, "frequency must be > 0"),
        ((0.5, [1.0, 2.0], [0.1, 0.1]), ValueError, r"norm of shape \(2,\) does not fit"),
        ((0.5, 1.0, [0.1, 0.1], "log"), ValueError, "unknown loss"),
        ((0.5, 1.0, [1.1, 1.1], "squared"), HypothesisError, r"u\(0\) = 1.21"),
    ],
)
def test_bad_input_is_told_what_is_wrong(arguments, error, words):
    with pytest.raises(error, match=words):
        depth_mode(*arguments)
    with pytest.raises(ValueError, match="finite and >= 0"):
        depth_mode(0.5, 1.0, [0.1, 0.1]).logit(-1.0)
