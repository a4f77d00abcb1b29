"""Single modes whose start is so small that the squares of its weights are no floats: how long the plateau lasts.

The exact numbers come from P = a + z and Q = a - z as rationals of the given floats, in mpmath: the clock is at the logit
1 at the angle s with rise e^s - fall e^-s = 1, rise = r P^2 / 4, fall = r Q^2 / 4, and its time is the integral of 1/g.
"""

import fractions

import jax
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import solve_mode
from gradstarve.theory.decay import decayed_time
from gradstarve.theory.depth import depth_mode
from gradstarve.theory.softmax import softmax_mode

P, R = 0.625, 1.5
INVERSE = {
    "hinge": lambda u: 1,
    "squared": lambda u: 1 / (1 - u),
    "exponential": mp.exp,
    "cross-entropy": lambda u: 1 + mp.exp(u),
    "softmax": lambda u: 1 + mp.exp(u) / 4,
}


def exact(kind, a, z, goal, norm=R):
    """Time at which one neuron that stays in its class brings the logit to `goal`."""
    with mp.workdps(40):
        exactly = [fractions.Fraction(float(v)) for v in (a, z)]
        grown, decayed = (mp.mpf(v.numerator) / v.denominator for v in (exactly[0] + exactly[1], exactly[0] - exactly[1]))
        rise, fall = norm * grown**2 / 4, norm * decayed**2 / 4
        end = mp.log((goal + mp.sqrt(goal**2 + 4 * rise * fall)) / (2 * rise))
        inverse = INVERSE[kind]
        # Up to the last 60 of the angle the logit is below 1e-25, and 1/g is that of 0.
        assert end > 60
        rest = mp.quad(lambda s: inverse(rise * mp.exp(s) - fall * mp.exp(-s)), mp.linspace(end - 60, end, 13))
        return float((inverse(mp.mpf(0)) * (end - 60) + rest) / (2 * mp.mpf(P) * norm))


def scales(dtype):
    return (1e-17, 1e-20, 1e-30) if dtype == np.float32 else (1e-150, 1e-155, 1e-170, 1e-300)


def starts(dtype):
    pairs = [(scale, share * scale) for scale in scales(dtype) for share in (1, 0.5, -0.25)]
    return np.array(pairs, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("kind", ["hinge", "squared", "exponential", "cross-entropy", "softmax"])
def test_plateau_of_one_neuron(kind, dtype):
    goal = 0.75
    with jax.enable_x64(dtype is np.float64):
        pairs = starts(dtype)
        p, r = (np.full(len(pairs), v, dtype) for v in (P, R))
        if kind == "softmax":
            solution = softmax_mode(5, p, r, pairs[:, :1], pairs[:, 1:])
            found, norm = solution.time_to_gap(goal), R / mp.sqrt(mp.mpf(4) / 5)
        else:
            solution = solve_mode(gs.Mode(p, r, pairs[:, :1], pairs[:, 1:]), kind)
            found, norm = solution.time_to_logit(goal), R
        assert found.dtype == dtype
        expected = [exact(kind, a, z, goal, norm) for a, z in pairs]
        np.testing.assert_allclose(found, expected, rtol=64 * np.finfo(dtype).eps)


@pytest.mark.usefixtures("x64")
def test_events_beside_faint_neurons():
    """A neuron leaves and a faint one is left; a faint one leaves beside another; a faint one stays beside a large one.

    Under hinge loss the clock is time itself, so that neurons leave at log |Q/P| and the margin is reached at one angle.
    """
    cases = np.array([[[0.1, -0.3], [1e-170, 2e-170]], [[1e-170, -3e-170], [3e-170, 1e-170]], [[0.1, 0.2], [1e-200, 0.0]]])
    solution = solve_mode(gs.Mode(np.float64(P), np.float64(R), cases[..., 0], cases[..., 1]), "hinge")
    rate = 2 * P * R
    np.testing.assert_allclose(solution.events[:, 0], [np.log(2) / rate, np.log(2) / rate, np.inf], rtol=1e-13)
    assert np.isinf(np.asarray(solution.events[:, 1])).all()
    margins = []
    for pairs, stays in zip(cases, ([1], [1], [0, 1]), strict=True):
        rise, fall = (
            mp.mpf(R) / 4 * sum((mp.mpf(pairs[j, 0]) + sign * mp.mpf(pairs[j, 1])) ** 2 for j in stays) for sign in (1, -1)
        )
        margins.append(float(mp.log((1 + mp.sqrt(1 + 4 * rise * fall)) / (2 * rise)) / rate))
    np.testing.assert_allclose(solution.time_to_logit(1.0), margins, rtol=1e-13)
    a, z = solution.weights(np.array(margins))
    logits = R * np.sum(np.maximum(a, 0) * z, axis=-1)
    np.testing.assert_allclose(np.diagonal(logits), 1, rtol=1e-10)
    # Up to the margin rise e^s = 1, and there the slope of the time in the logit is 1 / rate.
    slope = jax.jit(jax.grad(lambda u: solution.time_to_logit(u)[0]))(1.0)
    assert float(slope) == pytest.approx(1 / rate, rel=1e-12)


@pytest.mark.usefixtures("x64")
def test_starts_below_the_normal_numbers_are_named():
    with pytest.raises(ValueError, match=r"subnormal.*rescale"):
        solve_mode(gs.Mode(0.5, 1.0, np.array([3e-308]), np.array([-2.9e-308])), "hinge")
    with pytest.raises(ValueError, match=r"subnormal.*float64"):
        solve_mode(gs.Mode(*(np.float32(v) for v in (0.5, 1.0)), np.float32([3e-39]), np.float32([0.0])), "hinge")
    with pytest.raises(ValueError, match=r"1e-170.*subnormal.*larger"):
        depth_mode(0.5, 1.0, np.array([0.1, 1e-170]), "hinge")
    with pytest.raises(ValueError, match=r"start = 1e-310 is subnormal"):
        decayed_time(0.5, 1.0, np.float64(1e-310), 0.1, "hinge", 1.0)
    assert float(depth_mode(0.5, 1.0, np.full(2, 1e-150), "hinge").time_to_logit(1.0)) == pytest.approx(300 * np.log(10))
