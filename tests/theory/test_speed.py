"""Speed against mpmath (6.1), (6.2), and the tails (6.3) against the exact laws far out in time."""

import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.theory import confident_logit, error_tail, hinge_advantage, time_to_confidence


@pytest.mark.usefixtures("x64")
def test_time_to_confidence_is_the_integral_over_the_logit():
    p, r, error = 0.3, 1.7, 0.01
    cases = [(0.1, 0.0), (1e-9, 0.0), (-0.4, 0.5), (0.2, 30.0)]
    start, kappa = np.array(cases).T
    found = np.asarray(time_to_confidence(p, r, start, "cross-entropy", error, kappa=kappa))
    with mp.workdps(30):
        top = mp.log((1 - mp.mpf(error)) / mp.mpf(error))
        for t, (u0, k) in zip(found, cases, strict=True):
            cuts = [u0, *[c for c in (1e-6, 1e-3, 0.1, 0.5, 1, 2) if c > u0], top]
            integral = mp.quad(lambda v, k=k: (1 + mp.exp(v)) / mp.sqrt(mp.mpf(k) ** 2 + v * v), cuts)
            assert float(t) == pytest.approx(float(integral / (2 * mp.mpf(p) * mp.mpf(r))), rel=1e-12)
    assert float(confident_logit(error)) == pytest.approx(float(top), rel=1e-15)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_the_pace_is_the_product_of_frequency_and_norm():
    p, r = np.array([0.5, 0.25, 0.5]), np.array([1.0, 1.0, 4.0])
    at = np.asarray(time_to_confidence(p, r, 0.01, "cross-entropy", 0.05, kappa=0.3))
    np.testing.assert_allclose(at / at[0], [1, 2, 0.25], rtol=1e-14)
    # And it is the time of the solution with those invariants.
    a, z = 0.3, 0.2
    kappa = abs(a * a - z * z) / 2
    solution = gs.solve_mode(gs.Mode(0.5, 1.0, [a], [z]), "cross-entropy")
    ours = float(time_to_confidence(0.5, 1.0, a * z, "cross-entropy", 0.05, kappa=kappa))
    assert ours == pytest.approx(float(solution.time_to_logit(np.log(19.0))), rel=1e-12)
    # Hinge never gets to 1 %, which is u = 4.6, and the start may be there already.
    assert np.isinf(time_to_confidence(0.5, 1.0, 0.1, "hinge", 0.01))
    assert float(time_to_confidence(0.5, 1.0, 0.9, "hinge", 0.4)) == 0


@pytest.mark.usefixtures("x64")
def test_the_advantage_of_hinge_against_mpmath_from_1e_300_to_1():
    start = np.array([1e-300, 1e-100, 1e-30, 1e-8, 1e-3, 0.2, 0.37, 0.6, 0.99, 1 - 1e-9])
    found = np.asarray(hinge_advantage(start))
    with mp.workdps(60):
        exact = [float((mp.log(1 / mp.mpf(u)) + mp.ei(1) - mp.ei(mp.mpf(u))) / mp.log(1 / mp.mpf(u))) for u in start]
    np.testing.assert_allclose(found, exact, rtol=1e-13)
    assert found[0] == pytest.approx(2, abs=2e-3)
    assert found[-1] == pytest.approx(1 + np.e, rel=1e-8)
    assert (np.diff(found) > 0).all()


@pytest.mark.usefixtures("x64")
def test_the_advantage_is_the_ratio_of_the_two_solutions():
    a = 1e-6
    mode = gs.Mode(0.4, 2.0, [a], [a])
    times = [float(gs.solve_mode(mode, loss).time_to_logit(1.0)) for loss in ("cross-entropy", "hinge")]
    assert float(hinge_advantage(2.0 * a * a)) == pytest.approx(times[0] / times[1], rel=1e-12)


@pytest.mark.slow
def test_float32_keeps_its_digits():
    start = np.array([1e-30, 0.1, 0.9], np.float32)
    found = hinge_advantage(start)
    assert found.dtype == np.float32
    exact = [float(1 + (mp.ei(1) - mp.ei(mp.mpf(float(u)))) / mp.log(1 / mp.mpf(float(u)))) for u in start]
    np.testing.assert_allclose(found, exact, rtol=2e-6)
    tail = error_tail(np.float32(0.5), 1.0, "cross-entropy", np.float32(1e30))
    with mp.workdps(20):
        clock = mp.mpf(float(np.float32(1e30)))
        assert float(tail) == pytest.approx(float(mp.exp(mp.lambertw(-1 / clock, -1).real)), rel=2e-5)


def deviations(errors, t, p, r, layers):
    """(e / e_tail - 1) log(1/e), which tends to m = 2 - 2/N."""
    tail = np.asarray(error_tail(p, r, "cross-entropy", t, depth=layers))
    return (errors / tail - 1) * -np.log(errors)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("layers", [1, 2, 3, 6])
def test_the_tail_of_any_depth_against_its_integral(layers):
    """t(u) by mpmath from (7.1), at logits far up; the error itself from u."""
    p, r, power = 0.3, 1.7, 2 - mp.mpf(2) / layers
    found = []
    for u in (40, 160, 640):
        with mp.workdps(30):
            parts = [mp.mpf(1) / 10, 1, *[c for c in (u - 60, u - 25, u - 10, u - 4) if c > 1], u]
            clock = mp.quad(lambda v: (1 + mp.exp(v)) / v**power, parts)
            t = float(clock / (layers * p * mp.mpf(r) ** (mp.mpf(2) / layers)))
            error = 1 / (1 + mp.exp(u))
        found.append(float(deviations(float(error), t, p, r, layers)))
    m = float(power)
    # m + m (2m + 1)/L + ..., and nothing but rounding for one layer.
    np.testing.assert_allclose(found, m, atol=1.3 * m * (2 * m + 1) / 40 + 1e-9)
    assert abs(found[2] - m) <= abs(found[0] - m) / 10 + 1e-9


@pytest.mark.usefixtures("x64")
def test_two_layers_up_to_the_largest_times():
    t = 10.0 ** np.array([10.0, 50.0, 150.0, 300.0])
    # Balanced or not, the tail is the same.
    solution = gs.solve_mode(gs.Mode(0.3, 1.7, [[0.01], [0.5]], [[0.01], [-0.2]]), "cross-entropy")
    for errors in np.asarray(solution.error(t)):
        assert np.abs(deviations(errors, t, 0.3, 1.7, 2) - 1).max() < 0.2
        clock = 2 * 0.3 * 1.7 * t
        sharp = errors * clock * np.log(1 / errors)
        assert (np.diff(np.abs(sharp - 1)) < 0).all()
        assert sharp[-1] == pytest.approx(1, abs=2e-3)
        plain = errors / np.asarray(error_tail(0.3, 1.7, "cross-entropy", t, leading=True))
        np.testing.assert_allclose(plain, errors * clock * np.log(clock), rtol=1e-12)
        assert plain[-1] == pytest.approx(1, abs=0.02)
        assert abs(plain[0] - 1) > 0.05  # slowly


@pytest.mark.usefixtures("x64")
def test_one_layer_and_the_losses_that_stop():
    t = np.array([1e8, 1e100, 1e300])
    error = 1 / (1 + np.exp(np.asarray(gs.theory.one_layer_logit(0.3, 1.7, 0.1, "cross-entropy", t))))
    np.testing.assert_allclose(error, error_tail(0.3, 1.7, "cross-entropy", t, depth=1), rtol=1e-6)
    for loss in ("hinge", "squared"):
        np.testing.assert_allclose(error_tail(0.3, 1.7, loss, t), 1 / (1 + np.e), rtol=1e-15)


def test_bad_arguments():
    with pytest.raises(ValueError, match="where the tail begins"):
        error_tail(0.5, 1.0, "cross-entropy", 0.1)
    with pytest.raises(ValueError, match="start must be > 0 where kappa = 0"):
        time_to_confidence(0.5, 1.0, -0.1, "hinge", 0.3)
    with pytest.raises(ValueError, match=r"kappa must be >= 0, got -1\.0"):
        time_to_confidence(0.5, 1.0, 0.1, "hinge", 0.3, kappa=-1.0)
    with pytest.raises(ValueError, match="start must be below 1"):
        hinge_advantage(1.0)
    with pytest.raises(ValueError, match=r"error must be in \(0, 1\)"):
        confident_logit(1.0)
    with pytest.raises(ValueError, match="depth must be an integer >= 1"):
        error_tail(0.5, 1.0, "cross-entropy", 1e6, depth=0)
