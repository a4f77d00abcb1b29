"""The laws over seeds (5.4), of kappa and of the time to learn, against quadrature by SciPy and brute-force sampling."""

import jax
import numpy as np
import pytest
from scipy import integrate, special, stats

import gradstarve as gs
from gradstarve.theory import KappaDistribution, LearningTime, wrong_sign_fraction, wrong_sign_time

# Times at which cross-entropy brings neurons of scales 0.1 and 0.3 to a logit of 2; one shape, one compilation.
GRID = np.linspace(3.0, 25.0, 12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge", "exponential", "squared"])
def test_5_4_as_printed_for_equal_scales(loss):
    p, r, t = 0.3, 1.7, np.array([0.0, 0.4, 3.0])
    g0 = 0.5 if loss == "cross-entropy" else 1.0
    expected = (1 - 4 / np.pi * np.arctan(np.tanh(p * r * g0 * t))) / 3
    np.testing.assert_allclose(wrong_sign_fraction(p, r, loss, t=t), expected, rtol=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("ratio", [1e-3, 0.3, 1.0, 40.0])
def test_5_4_is_the_measure_of_directions_with_the_wrong_sign(ratio):
    # By quadrature over the ratio z/a, Cauchy distributed: learners have z/a > -1, the wrong sign z/a < -tanh.
    for tau in (0.0, 0.2, 2.0, 30.0):
        # 1 - tanh in its own form: at tau = 30 it is 1e-26.
        width = 2 / (np.exp(2 * tau) + 1)
        wrong = integrate.quad(lambda x: stats.cauchy.pdf(-ratio * (1 - x)), 0, width, epsabs=0, epsrel=1e-13)[0] * ratio
        expected = wrong / stats.cauchy.sf(-ratio)
        found = float(wrong_sign_fraction(1.0, 1.0, "hinge", t=tau, scale_a=ratio, scale_z=1.0))
        assert found == pytest.approx(expected, rel=1e-11)
        if tau > 0:
            assert float(wrong_sign_time(1.0, 1.0, "hinge", fraction=found, scale_a=ratio, scale_z=1.0)) == pytest.approx(
                tau, rel=1e-12
            )
    assert float(wrong_sign_time(1.0, 1.0, "hinge", fraction=0.999, scale_a=ratio, scale_z=1.0)) == 0


@pytest.mark.usefixtures("x64")
def test_5_4_is_exact_for_hinge_at_any_scale_that_keeps_the_margin_below_1():
    rng = np.random.default_rng(0)
    a, z = 0.9 * np.abs(rng.normal(size=100_000)), 0.3 * rng.normal(size=100_000)
    learns = z > -a
    curve = gs.solve_mode(gs.Mode(0.5, 1.0, a[learns][:, None], z[learns][:, None]), "hinge")
    t = np.array([0.05, 0.3])
    found = (np.asarray(curve.logit(t)) < 0).mean(axis=0)
    expected = np.asarray(wrong_sign_fraction(0.5, 1.0, "hinge", t=t, scale_a=0.9, scale_z=0.3))
    assert (np.abs(found - expected) < 4 * np.sqrt(expected * (1 - expected) / learns.sum())).all()


def kappa_density(width):
    """w^(h-1) K_0(w) / (2^(h-2) Gamma(h/2)^2), by SciPy."""
    log_norm = (width - 2) * np.log(2) + 2 * special.gammaln(width / 2)
    return lambda w: np.exp((width - 1) * np.log(w) - w - log_norm) * special.k0e(w)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("width", [1, 2, 3, 30])
def test_kappa_against_quadrature_in_both_tails(width):
    law = KappaDistribution(width, norm=2.0, scale=0.5)
    unit, density = 0.5, kappa_density(width)
    w = np.array([1e-8, 0.3, 0.999, 1.0, 2.0, width + 2.0, width + 8 * np.sqrt(width)])
    options = {"epsabs": 0, "epsrel": 1e-13, "limit": 300}
    below = [integrate.quad(density, 0, x, points=[x / 100, x / 2], **options)[0] for x in w]
    pairs = [[(x, x + 5), (x + 5, x + 90)] for x in w]
    above = [sum(integrate.quad(density, *ends, **options)[0] for ends in pair) for pair in pairs]
    np.testing.assert_allclose(law.cdf(w * unit), below, rtol=1e-11)
    np.testing.assert_allclose(np.asarray(law.survival(w * unit))[1:], above[1:], rtol=1e-11)
    np.testing.assert_allclose(law.density(w * unit), density(w) / unit, rtol=1e-11)
    mean = integrate.quad(lambda x: x * density(x), 0, width + 90, limit=300)[0]
    assert float(law.mean) == pytest.approx(mean * unit, rel=1e-9)
    q = np.array([1e-12, 1e-5, 0.01, 0.3, 0.5, 0.9, 0.999])
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, rtol=1e-12)
    _, slope = jax.jvp(law.quantile, (q,), (np.ones_like(q),))
    np.testing.assert_allclose(slope, 1 / (density(np.asarray(law.quantile(q)) / unit) / unit), rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_kappa_of_drawn_networks():
    width, norm, scale = 3, 1.7, 0.4
    rng = np.random.default_rng(1)
    a, z = np.abs(rng.normal(size=(100_000, width)) * scale), rng.normal(size=(100_000, width)) * scale
    drawn = norm * np.sqrt(np.sum((a + z) ** 2, axis=1) * np.sum((a - z) ** 2, axis=1)) / 2
    grid = np.geomspace(0.05, 5, 7)
    empirical = (drawn[:, None] <= grid).mean(axis=0)

    def distance(scale):
        return np.abs(empirical - np.asarray(KappaDistribution(width, norm, scale).cdf(grid))).max()

    critical = 2 / np.sqrt(len(drawn))  # Kolmogorov at level 7e-4
    assert distance(scale) < critical < distance(1.01 * scale)


@pytest.mark.usefixtures("x64")
def test_kappa_far_down_and_in_a_batch():
    norms = np.arange(1.0, 8.0)
    one, batch = KappaDistribution(1, 1.0, 1.0), KappaDistribution(1, norms, 1.0)
    np.testing.assert_allclose(batch.cdf(0.7), one.cdf(0.7 / norms), rtol=1e-15)
    # K_0 ~ log(2/w) - gamma: far below the smallest w that quadrature reaches.
    w = np.array([0.0, 1e-300, 1e-200, 1e-100, 1e-50, 1e-20, 1e-10])
    expected = [0, *(2 / np.pi * w[1:] * (1 - np.euler_gamma - np.log(w[1:] / 2)))]
    np.testing.assert_allclose(one.cdf(w), expected, rtol=1e-13)


@pytest.mark.slow
def test_float32_keeps_its_digits():
    w = np.array([1e-3, 0.1, 0.5, 0.99, 1.0, 2.0, 9.0], np.float32)
    t = np.array([1.0, 3.0, 5.0, 8.0], np.float32)
    found = KappaDistribution(3, np.float32(1), np.float32(1)).cdf(w)
    fraction = wrong_sign_fraction(np.float32(0.5), np.float32(1), t=w)
    learnt = LearningTime(np.float32(0.5), 1.3, 0.1, 0.3, "hinge", 0.8).cdf(t)
    assert found.dtype == fraction.dtype == learnt.dtype == np.float32
    with jax.enable_x64(True):
        np.testing.assert_allclose(found, KappaDistribution(3, 1.0, 1.0).cdf(w.astype(np.float64)), rtol=1e-5)
        np.testing.assert_allclose(fraction, wrong_sign_fraction(0.5, 1.0, t=w.astype(np.float64)), rtol=2e-6)
        exact = LearningTime(0.5, 1.3, 0.1, 0.3, "hinge", 0.8).cdf(t.astype(np.float64))
        np.testing.assert_allclose(learnt, exact, atol=1e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_time_to_learn_with_hinge_against_quadrature_over_the_plane():
    """With g = 1 the logit is r (P cosh + Q sinh), so that the length each direction needs is elementary."""
    p, r, sigma_a, sigma_z, u = 0.5, 1.3, 0.4, 0.2, 0.8
    law = LearningTime(p, r, sigma_a, sigma_z, "hinge", u)
    edge = np.arctan(sigma_a / sigma_z)
    t = np.array([0.0, 1.0, 3.0, 8.0])

    def learnt(psi, tau):
        a, z = sigma_a * np.cos(psi), sigma_z * np.sin(psi)
        now = r * (a * z * np.cosh(tau) + (a * a + z * z) / 2 * np.sinh(tau))  # for a length with E = 1/2
        return np.exp(-u / (2 * now)) if now > 0 else 0.0

    expected = [
        integrate.quad(learnt, -edge, np.pi / 2, args=(2 * p * r * x,), epsabs=1e-13, limit=400)[0] / (np.pi / 2 + edge)
        for x in t
    ]
    np.testing.assert_allclose(law.cdf(t), expected, atol=1e-10)
    q = np.array([0.1, 0.3, 0.5, 0.9])
    np.testing.assert_allclose(law.cdf(law.quantile(q)), q, atol=1e-12)
    # The derivative in the probability and in a number of the law at once: it goes through that of the cdf in both.
    step = 1e-6

    def moved(shift):
        return LearningTime(p, r, sigma_a + shift, sigma_z, "hinge", u).quantile(q + shift)

    _, slope = jax.jvp(moved, (0.0,), (1.0,))
    np.testing.assert_allclose(slope, (moved(step) - moved(-step)) / (2 * step), rtol=1e-6)
    np.testing.assert_array_equal(law.quantile(expected[0] * np.array([0.1, 0.3, 0.5, 0.9])), 0)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_time_to_learn_of_drawn_neurons_with_cross_entropy():
    rng = np.random.default_rng(2)
    a, z = 0.1 * np.abs(rng.normal(size=50_000)), 0.3 * rng.normal(size=50_000)
    learns = z > -a
    modes = gs.Mode(0.5, 1.3, a[learns][:, None], z[learns][:, None])
    drawn = np.asarray(gs.solve_mode(modes, "cross-entropy").time_to_logit(2.0))
    law = LearningTime(0.5, 1.3, 0.1, 0.3, "cross-entropy", 2.0)
    assert np.isfinite(drawn).all()
    cdf = np.asarray(law.cdf(GRID))
    assert cdf[0] < 0.05
    assert cdf[-1] > 0.99
    empirical = (drawn[:, None] <= GRID).mean(axis=0)
    critical = 2 / np.sqrt(drawn.size)  # Kolmogorov at level 7e-4
    assert np.abs(empirical - cdf).max() < critical
    assert np.abs(empirical - np.asarray(law.cdf(GRID / 1.05))).max() > critical


def test_bad_arguments():
    with pytest.raises(ValueError, match="width must be an integer >= 1, got 0"):
        KappaDistribution(0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"kappa must be >= 0, got -1\.0"):
        KappaDistribution(1, 1.0, 1.0).cdf([-1.0])
    with pytest.raises(ValueError, match=r"probability must be in \(0, 1\)"):
        KappaDistribution(1, 1.0, 1.0).quantile(1.0)
    with pytest.raises(ValueError, match="logit must be at most 1 with hinge loss"):
        LearningTime(0.5, 1.0, 1.0, 1.0, "hinge", 1.5)
    with pytest.raises(ValueError, match=r"scale_a must be one number, got shape \(2,\)"):
        LearningTime(0.5, 1.0, [1.0, 2.0], 1.0, "hinge", 1.0)
    with pytest.raises(ValueError, match="scale_z must be > 0"):
        wrong_sign_fraction(0.5, 1.0, t=1.0, scale_z=0.0)
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        wrong_sign_time(0.5, 1.0, fraction=1.5)
