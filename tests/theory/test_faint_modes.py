"""Single modes whose start is so small that the squares of its weights are no floats: how long the plateau lasts.

The exact numbers come from P = a + z and Q = a - z as rationals of the given floats, in mpmath: the clock is at the logit
1 at the angle s with rise e^s - fall e^-s = 1, rise = r P^2 / 4, fall = r Q^2 / 4, and its time is the integral of 1/g.
"""

import contextlib
import ctypes
import fractions
import platform
import re
import sys

import jax
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve import special, theory
from gradstarve.theory import decayed_time, depth_mode, softmax_mode, solve_mode

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
            solution = softmax_mode(p, r, pairs[:, :1], pairs[:, 1:], classes=5)
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


def mode(a, z, dynamics=None, loss="hinge", p=0.5, r=1.0):
    numbers = (np.asarray(v, np.float64) for v in (p, r, a, z))
    return solve_mode(gs.Mode(*numbers), loss, dynamics)


def pair(w, z, dynamics=None, points=((1, 0), (0, 1))):
    data = gs.Dataset(np.array(points, float), [1, -1])
    return gs.solve(data, gs.TwoLayerReLU(np.array([w]), np.array([z])), "hinge", dynamics)


def shared(w, z):
    return theory.shared_features([[1.0, 1.0]], [1.0], np.array([[w, w]]), np.array([z]), "hinge")


DESCENT, TINY, BESIDE = gs.GradientDescent(0.1), 1e-310, (3e-308, -2.9e-308)
OBTUSE = ((1, 0), (-1, 0))
FAINT = {
    "a weight": (lambda: mode([TINY], [0.5]), "a = 1e-310 is subnormal"),
    "a read-out": (lambda: mode([0.5], [-TINY]), "z = -1e-310 is subnormal"),
    "a sum": (lambda: mode(*([v] for v in BESIDE)), "subnormal.*rescale"),
    "a sum in descent": (lambda: mode(*([v] for v in BESIDE), DESCENT), r"\|a \+ z\| = 1e-309 is subnormal.*rescale"),
    "a sum in one-point descent": (
        lambda: mode(*([v] for v in BESIDE), gs.StochasticGradientDescent(0.1)),
        r"\|a \+ z\| = 1e-309 is subnormal",
    ),
    "a sum between classes": (lambda: pair([3e-308, 0], -2.9e-308, DESCENT, OBTUSE), r"\|a \+ z\| = 1e-309 is subnormal"),
    "a frequency": (lambda: mode([0.1], [0.1], p=TINY), "frequency = 1e-310 is subnormal"),
    "a norm": (lambda: mode([0.1], [0.1], r=TINY), "norm = 1e-310 is subnormal"),
    "their product": (lambda: mode([0.1], [0.1], p=1e-160, r=1e-150), r"frequency \* norm = 1e-310 is subnormal"),
    "their product between classes": (
        lambda: gs.solve(
            gs.Dataset(np.array([[1e-150, 0], [-1, 0]]), [1, -1], np.array([1e-160, 1.0])),
            gs.TwoLayerReLU(np.array([[0.1, 0.1]]), np.array([0.1])),
        ),
        r"frequency \* norm = 1e-310 is subnormal",
    ),
    "a step size": (lambda: gs.GradientDescent(TINY), "step_size = 1e-310 is subnormal"),
    "a row of weights": (lambda: pair([TINY, -TINY], 0.5), r"max \|w\[0\]\| = 1e-310 is subnormal"),
    "a coordinate": (lambda: pair([TINY, -0.5], 0.5), "w = 1e-310 is subnormal"),
    "a point": (lambda: gs.Dataset(np.array([[TINY, 0], [0, 1.0]]), [1, -1]), r"max \|points\[0\]\| = 1e-310 is subnormal"),
    "a share of a class": (lambda: gs.datasets.antipodal(frequencies=(TINY, 1.0)), "frequencies = 1e-310 is subnormal"),
    "a share": (lambda: gs.Dataset(np.eye(2), [1, -1], np.array([TINY, 1.0])), "weights = 1e-310 is subnormal"),
    "a scale of a start": (lambda: gs.init_two_layer(jax.random.key(0), 2, 2, 2, TINY), "scale_w = 1e-310 is subnormal"),
    "a square": (lambda: depth_mode(0.5, 1.0, np.array([0.1, 1e-170]), "hinge"), "1e-170.*subnormal.*larger"),
    "a layer": (lambda: depth_mode(0.5, 1.0, np.array([0.1, TINY]), "hinge"), "layers = 1e-310 is subnormal"),
    "a start under decay": (lambda: decayed_time(0.5, 1.0, TINY, 0.1, "hinge", 1.0), "start = 1e-310 is subnormal"),
    "a vote": (lambda: softmax_mode(0.5, 1.0, [0.1], [TINY], classes=3), "z = 1e-310 is subnormal"),
    "a frequency of one layer": (lambda: theory.one_layer_time(TINY, 1.0, 0.0, "hinge", 1.0), "frequency = 1e-310 is sub"),
    "a start on the plateau": (lambda: theory.plateau_length(0.5, 1.0, TINY, "hinge"), "start = 1e-310 is subnormal"),
    "a start ahead": (lambda: theory.hinge_advantage(TINY), "start = 1e-310 is subnormal"),
    "an invariant": (lambda: theory.error_inflections(TINY, "hinge"), "kappa = 1e-310 is subnormal"),
    "a scale": (lambda: theory.KappaDistribution(1, 1.0, TINY), "scale = 1e-310 is subnormal"),
    "a feature": (lambda: theory.feature_flow([[1.0]], [1.0], "hinge", depth=2, init=[TINY]), "init = 1e-310 is subnormal"),
    "a share of samples": (lambda: theory.feature_flow([[1.0]], [TINY], "hinge"), "probabilities = 1e-310 is subnormal"),
    "a rare feature": (
        lambda: theory.starving_pair(0.5, 0.5, "hinge", depth=2, init=(0.1, TINY)),
        "init, v_2 = 1e-310 is subnormal",
    ),
    "a share of a pair": (lambda: theory.starving_pair(0.5, TINY, "hinge"), "p_both = 1e-310 is subnormal"),
    "a neuron of all": (lambda: shared(TINY, TINY), r"max \|w, z\| = 1e-310 is subnormal"),
    "its square": (lambda: shared(1e-160, 1e-170), r"max \|w, z\|\^2 = 1e-320 is subnormal"),
    "a logit alone": (lambda: theory.starvation_index(0.5, TINY), "alone = 1e-310 is subnormal"),
    "a goal under decay": (lambda: decayed_time(0.1, 1.0, 0.1, 1.0, "hinge", TINY), "logit = 1e-310 is subnormal"),
    "a scale of a sweep": (
        lambda: gs.sweep(gs.datasets.antipodal(), 4, steps=2, width=2, scale_z=TINY),
        "scale_z = 1e-310 is subnormal",
    ),
    "a plane": (lambda: gs.phase_diagram("hinge", "neuron", pixels=4, extent=TINY), "extent = 1e-310 is subnormal"),
    "a count": (lambda: special.binomial_at_least(TINY, 3, 0.5), "successes = 1e-310 is subnormal"),
    "a fate": (lambda: theory.exclusive_fate(TINY, 0.2), "a = 1e-310 is subnormal"),
    "a fate between classes": (lambda: theory.antipodal_fate(TINY, 0.2), "a = 1e-310 is subnormal"),
    "an angle": (lambda: theory.dies_for_ever(0.0, 0.4, -TINY), "cosine = -1e-310 is subnormal"),
    "a push": (lambda: theory.dies_for_ever(0.0, 1e-160, -1e-150), r"cosine \* beta = 1e-310 is subnormal"),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("what", FAINT)
def test_what_compiled_code_takes_for_zero_is_named(what):
    """It would decide: a mode that learns would never, a neuron of a class see none, a sign be none."""
    call, message = FAINT[what]
    with pytest.raises(ValueError, match=message):
        call()


@contextlib.contextmanager
def flushing():
    """Arithmetic of this thread takes subnormal numbers for 0 and makes none, as some libraries leave it."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the flag of another processor")
    lib, state = ctypes.CDLL("libm.so.6"), (ctypes.c_uint32 * 8)()
    lib.fegetenv(state)
    before = state[7]  # MXCSR
    state[7] = before | 0x8040
    lib.fesetenv(state)
    try:
        yield
    finally:
        state[7] = before
        lib.fesetenv(state)


@pytest.mark.usefixtures("x64")
def test_they_are_named_also_where_numpy_takes_them_for_zero():
    calls = list(FAINT.items())
    with flushing():
        assert np.array([TINY])[0] * 1.0 == 0
        said = {}
        for what, (call, message) in calls:
            try:
                said[what] = (message, repr(call()))
            except ValueError as error:
                said[what] = (message, str(error))
    assert not {what: text for what, (message, text) in said.items() if not re.search(message.split(" = ")[0], text)}
    assert all("subnormal" in text for _, text in said.values()), said


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_starts_next_to_the_subnormal_numbers_have_their_law():
    with pytest.raises(ValueError, match=r"subnormal.*float64"):
        solve_mode(gs.Mode(*(np.float32(v) for v in (0.5, 1.0)), np.float32([3e-39]), np.float32([0.0])), "hinge")
    assert float(depth_mode(0.5, 1.0, np.full(2, 1e-150), "hinge").time_to_logit(1.0)) == pytest.approx(300 * np.log(10))
    # One feature of two equal parts, v = 2 w z e^(2 sqrt(2) t) / 2 late: each neuron is a boost along (1, 1)/sqrt(2).
    late = theory.shared_features([[1.0]], [1.0], [[1e-150]], [1e-150], "hinge").features(150 * np.log(10) - 1)
    assert float(late[0]) == pytest.approx(np.exp(-2), rel=1e-9)
    # The sums of these are subnormal, and their signs are not asked of them.
    assert theory.antipodal_fate(*BESIDE) == 1
    assert theory.antipodal_fate(BESIDE[0], -3.1e-308) == -1
    assert theory.antipodal_fate(BESIDE[0], -BESIDE[0]) == 0
    assert theory.exclusive_fate(*BESIDE) == 1
    # Beside larger entries those of a point or of a neuron are lost in every sum, and may be.
    turned = ((0.6, 0.8), (-0.6, -0.8))
    assert (pair([TINY, 0.5], 0.5, points=turned).margins(1.0) == pair([0.0, 0.5], 0.5, points=turned).margins(1.0)).all()
    assert gs.Dataset(np.array([[TINY, 1.0]]), [1]).zero_points.size == 0
