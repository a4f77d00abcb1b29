"""Gaps of several classes against mpmath, the clock of two classes, and descent of full networks."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.problem import GradientDescent, SoftmaxOneLayer, SoftmaxTwoLayer, datasets
from gradstarve.simulation import simulate
from gradstarve.special import Softmax, clock_integral, clock_state
from gradstarve.theory import softmax_mode

TIMES = np.array([0.0, 1e-12, 0.3, 7.0, 2e3, 1e20, 1e300])


@pytest.mark.parametrize("classes", [2, 3, 10, 1000])
def test_one_layer_against_mpmath(classes, x64):
    for start in (0.0, -3.0, 5.0):
        law = softmax_mode(0.2, 1.7, classes=classes, start=start)
        found = np.asarray(law.gap(TIMES))
        with mp.workdps(400):  # e^u0 is next to 1e300
            for t, u in zip(TIMES, found, strict=True):
                u0, others = mp.mpf(start), classes - 1
                level = (classes * mp.mpf(0.2) * mp.mpf(1.7) ** 2 * mp.mpf(t) + mp.e**u0) / others + u0
                log_argument = level - mp.log(others)
                guess = mp.log(max(log_argument, mp.mpf("0.5"))) if log_argument > 1 else mp.e**log_argument
                w = mp.findroot(lambda w, c=log_argument: mp.log(w) + w - c, guess)
                exact = level - w
                assert abs(u - float(exact)) <= 1e-13 * (abs(float(exact)) + abs(start)), (start, t)
        np.testing.assert_allclose(law.gap(law.time_to_gap(np.array([6.0, 30.0]))), [6.0, 30.0], rtol=1e-13)


@pytest.mark.parametrize("others", [2.0, 9.0, 999.0])
def test_the_clock_of_a_softmax_is_its_integral(others, x64):
    """integral of (1 + e^v/others) / sqrt(kappa^2 + v^2), and back."""
    for u0, u, kappa in [(0.01, 0.5, 0.3), (-4.0, 3.0, 2.0), (1e-8, 40.0, 1e-3), (0.5, 8.0, 0.0), (2.0, 600.0, 30.0)]:
        with mp.workdps(20):
            k = mp.mpf(kappa)
            marks = sorted({u0, u, *(x for x in (0.0, 1e-3, 0.1, 1.0, 5.0, u - 30, u - 3) if u0 < x < u)})
            exact = mp.quad(lambda v, k=k: (1 + mp.e**v / others) / mp.sqrt(k * k + v * v), marks)
        tau = clock_integral(Softmax(others), u0, u, kappa)
        assert abs(float(tau) / float(exact) - 1) < 1e-12, (u0, u, kappa)
        steep = np.hypot(kappa, u0)
        back = clock_state(Softmax(others), (steep + u0) / 2, (steep - u0) / 2 if kappa else 0.0, tau)[1]
        assert abs(float(back) - u) < 1e-11 * max(u, 1), (u0, u, kappa)


def test_one_other_class_is_cross_entropy(x64):
    rise, fall, tau = np.array([0.2, 1e-3, 3.0]), np.array([0.1, 0.0, 8.0]), np.array([3.0, 1e20, 0.1])
    two, plain = (clock_state(kind, rise, fall, tau) for kind in (Softmax(1.0), "cross-entropy"))
    np.testing.assert_array_equal(two, plain)


@pytest.mark.slow
def test_derivatives(x64):
    arguments = (jnp.float64(0.3), jnp.float64(0.1), jnp.float64(8.0))
    for along in np.eye(3):
        slope = jax.jvp(lambda *x: clock_state(Softmax(9.0), *x)[1], arguments, tuple(map(jnp.float64, along)))[1]
        ahead, back = (clock_state(Softmax(9.0), *np.array(arguments) + h * along)[1] for h in (1e-6, -1e-6))
        np.testing.assert_allclose(slope, (ahead - back) / 2e-6, rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_descent_tends_to_the_law_at_first_order(classes, x64):
    """Full networks of one and of two layers on all classes at once: half the step size, half the gap (below 3 %)."""
    p = np.random.default_rng(classes).dirichlet(np.full(classes, 5.0))
    data = datasets.orthogonal_classes(classes, norm=jnp.float64(1.3), frequencies=p)
    eye = np.eye(classes)
    votes = (eye - 1 / classes) / np.sqrt(1 - 1 / classes)
    a, zeta = np.array([[0.5, 0.2], [0.1, 0.4]])[:, :, None] * np.linspace(0.5, 1.5, classes)
    # Neurons in pairs, one pair a class, off the edges of the other classes.
    wide = SoftmaxTwoLayer(
        np.concatenate([x[:, None] * (2 * eye - 1) for x in a]),
        np.concatenate([x[:, None] * votes for x in zeta]),
    )
    for network, law in (
        (SoftmaxOneLayer(0 * eye), softmax_mode(p, 1.3, classes=classes)),
        (wide, softmax_mode(p, 1.3, a.T, zeta.T, classes=classes)),
    ):
        # Both step sizes in one run: the larger one is at the time of the smaller one's end after half of the steps.
        steps = 80 * classes
        pair = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), network)
        descent = GradientDescent(jnp.array([0.1, 0.05]))
        run = simulate(data, pair, "cross-entropy", descent, steps, record_every=steps // 2, progress=False)
        last = np.stack([run.recorded[0, 1], run.recorded[1, 2]])  # [step sizes, n, K]
        found = np.diagonal(last, axis1=1, axis2=2) - last[:, np.arange(classes), np.arange(classes) - 1]
        expected = np.asarray(law.gap(4.0 * classes))
        gaps = np.max(np.abs(found - expected), axis=-1)
        assert gaps[0] < 0.03 * np.max(expected)
        assert abs(np.log2(gaps[0] / gaps[1]) - 1) < 0.05
        np.testing.assert_allclose(run.error(steps)[1], np.sum(p * law.error(4.0 * classes)), rtol=0.05)


def test_float32_to_2e_5():
    t = np.array([0.5, 30.0, 1e10, 1e30], np.float32)
    with jax.enable_x64(True):
        exact = np.asarray(softmax_mode(0.1, 1.2, classes=10).gap(t.astype(float)))
    np.testing.assert_allclose(softmax_mode(np.float32(0.1), np.float32(1.2), classes=10).gap(t), exact, rtol=2e-5)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((0.5, 1.0), {"classes": 1}, "classes must be an integer >= 2"),
        ((0.0, 1.0), {"classes": 3}, "frequency must be > 0"),
        ((0.5, -1.0), {"classes": 3}, "norm must be > 0"),
        ((0.5, 1.0, [0.1]), {"classes": 3}, "belong together"),
        ((0.5, 1.0, [0.1], [0.1]), {"classes": 3, "start": 1.0}, "leave it out"),
        (([0.5, 0.2], [1.0, 1.0, 1.0]), {"classes": 3}, "must fit each other"),
        ((0.5, 1.0, [0.1, 0.2], [0.1]), {"classes": 3}, r"\[\*batch, h\]"),
    ],
)
def test_bad_input_is_told_what_is_wrong(arguments, options, words):
    with pytest.raises(ValueError, match=words):
        softmax_mode(*arguments, **options)
    with pytest.raises(ValueError, match="others must be"):
        Softmax(0.0)
    with pytest.raises(ValueError, match="error must be in"):
        softmax_mode(0.5, 1.0, classes=3).time_to_error(1.5)
