"""Starts next to the stable manifold z = -a, and starts whose squares are no floats: fates and times in exact numbers.

One neuron on antipodal data under hinge loss: while no margin is reached, the clock of its class is time itself, and
s = 2 p r t. With P = a + z and Q = a - z exact (as rationals of the given floats), it leaves for the other class at
s = log |Q/P| where P a < 0, and a margin (r/4)(P^2 e^s - Q^2 e^-s) reaches 1 at one s.
"""

import fractions

import jax
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs

FREQUENCIES, NORMS = (0.625, 0.375), (1.0, 1.5)


def exact(a, z):
    """(class it ends in, time of its transfer or inf, time at which that class reaches margin 1), for a > 0 or a < 0."""
    exactly = [fractions.Fraction(float(v)) for v in (a, z)]
    grown, decayed = (mp.mpf(v.numerator) / v.denominator for v in (exactly[0] + exactly[1], exactly[0] - exactly[1]))
    first = 0 if a > 0 else 1
    last, moment = first, mp.inf
    start, angle = mp.mpf(0), mp.mpf(0)
    if grown * (1 if a > 0 else -1) < 0:
        last, angle = 1 - first, mp.log(abs(decayed / grown))
        moment = start = angle / (2 * mp.mpf(FREQUENCIES[first]) * NORMS[first])
    rise, fall = (mp.mpf(NORMS[last]) / 4 * v**2 for v in (grown * mp.exp(angle / 2), decayed * mp.exp(-angle / 2)))
    growth = mp.log((1 + mp.sqrt(1 + 4 * rise * fall)) / (2 * rise))
    return last, moment, start + growth / (2 * mp.mpf(FREQUENCIES[last]) * NORMS[last])


def starts(dtype):
    """Pairs (a, z): z within some ulp of -a on either side, both signs, and scales down to the end of the range."""
    tiny, pairs = np.finfo(dtype).tiny, []
    for a in np.array([0.3, -0.7, 0.011, 1e-5], dtype):
        for ulps in (-3, -1, 1, 2, 1000):
            z = -a
            for _ in range(min(abs(ulps), 3)):
                z = np.nextafter(z, dtype(np.inf if ulps > 0 else -np.inf))
            pairs.append((a, z if abs(ulps) < 4 else -a * dtype(1 + 1e-3)))
    for scale in (1e-20, 1e-30) if dtype == np.float32 else (1e-155, 1e-170, 1e-300):
        assert scale > tiny
        pairs += [(scale, 0.5 * scale), (scale, -2 * scale), (-scale, -0.25 * scale), (-scale, 3 * scale)]
    return np.array(pairs, dtype)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_fates_and_times_are_those_of_exact_numbers(dtype):
    with jax.enable_x64(dtype is np.float64):
        pairs = starts(dtype)
        network = gs.TwoLayerReLU(pairs[:, :1, None], pairs[:, 1:])
        data = gs.datasets.antipodal(dim=1, norms=NORMS, frequencies=FREQUENCIES)
        solution = gs.solve(data, network, "hinge")
        assert solution.motion.events.dtype == dtype
        times = np.stack([solution.plus.time_to_logit(1.0), solution.minus.time_to_logit(1.0)])
        events = np.asarray(solution.motion.events)[:, 0]
        for k, (a, z) in enumerate(pairs):
            last, moment, margin = exact(a, z)
            rounding = 16 * np.finfo(dtype).eps
            np.testing.assert_allclose(events[k], float(moment), rtol=rounding, err_msg=f"{a}, {z}")
            np.testing.assert_allclose(times[last, k], float(margin), rtol=4 * rounding, err_msg=f"{a}, {z}")
            assert np.isinf(times[1 - last, k])
