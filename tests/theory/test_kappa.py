"""kappa in discrete time (19.1)-(19.5) against descent of whole networks in NumPy, and against SciPy's flow with decay."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_descent import descent
from scipy.integrate import solve_ivp

from gradstarve import theory
from gradstarve.ground import ConvergenceError, HypothesisError
from gradstarve.problem import (
    Dataset,
    FlippedLabels,
    Focal,
    Loss,
    MarginShift,
    SpectralDecoupling,
    Temperature,
    TwoLayerReLU,
)

RESIDUALS = {
    "cross-entropy": lambda m: 1 / (1 + np.exp(m)),
    "hinge": lambda m: (m < 1) * 1.0,
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: 1 - m,
}
DIM, WIDTH, NORM = 3, 4, 1.7


def crowd(kappa, start, seed=0, norm=NORM):
    """A network [h, 3] with these two numbers, its neurons all in the class, |z_j| < a_j; the unit vector of the class."""
    rng = np.random.default_rng(seed)
    unit = rng.normal(size=DIM)
    unit /= np.linalg.norm(unit)
    size = np.hypot(kappa, start)
    p, q = rng.uniform(0.5, 1, (2, WIDTH))
    p *= np.sqrt(4 / norm * (size + start) / 2 / np.sum(p**2))
    q *= np.sqrt(4 / norm * (size - start) / 2 / np.sum(q**2))
    w = rng.normal(size=(WIDTH, DIM))
    return w - np.outer(w @ unit, unit) + np.outer((p + q) / 2, unit), (p - q) / 2, unit


def of_weights(w, z, unit, norm=NORM):
    """(u, kappa) of a network, from all of its weights."""
    a = w @ unit
    total, difference = norm * np.sum(a**2 + z**2) / 2, norm * np.sum(a * z)
    return difference, np.sqrt((total - difference) * (total + difference))


def trained(residual, kappa, start, step, steps, frequency=1.0, decay=0.0, targets=None):
    """(u, kappa) [2, steps + 1] of a network trained in NumPy on one point of its class."""
    w, z, unit = crowd(kappa, start)
    x = NORM * unit
    found = [of_weights(w, z, unit)]
    for k in range(steps):
        hidden = w @ x
        assert (hidden > 0).all()
        margin = z @ hidden
        pull = frequency * (residual(margin) if targets is None else targets[k] - margin)
        kept = 1 - step * decay
        w, z = kept * w + step * pull * np.outer(z, x), kept * z + step * pull * hidden
        found.append(of_weights(w, z, unit))
    return np.array(found).T


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", RESIDUALS)
@pytest.mark.parametrize("decay", [0.0, 0.04])
def test_networks_keep_to_the_two_numbers(loss, decay):
    frequency, kappa, start, steps = 0.7, 1.6, -0.3, 60
    step = 0.4 / (frequency * NORM)
    u, kappas = theory.kappa_path(frequency, NORM, kappa, start, loss, step, steps=steps, weight_decay=decay)
    expected = trained(RESIDUALS[loss], kappa, start, step, steps, frequency, decay)
    np.testing.assert_allclose([u, kappas], expected, atol=1e-10)
    assert float(kappas[-1]) < 0.9 * kappa


@pytest.mark.usefixtures("x64")
def test_the_network_of_a_dataset_with_another_class():
    """Two orthogonal classes: the mode of one of them, by the descent that other laws are held against."""
    w, z, unit = crowd(2.5, 0.4)
    other = np.cross(unit, np.roll(unit, 1))
    other /= np.linalg.norm(other)
    w = w - np.outer(w @ other + 1, other)
    data = Dataset([NORM * unit, 2 * other], [1, -1], [0.6, 0.4])
    network = TwoLayerReLU(w, z)
    u, _ = theory.kappa_path(0.6, NORM, 2.5, 0.4, "squared", 0.35, steps=40)
    for count in (1, 7, 40):
        found = descent(RESIDUALS["squared"], network, data, 0.35, count)[0]
        assert float(u[count]) == pytest.approx(found, abs=1e-10)


@pytest.mark.usefixtures("x64")
def test_label_noise():
    rng = np.random.default_rng(3)
    targets = 1 + rng.choice([-0.8, 0.8], 80)
    step = 0.15 / NORM
    u, kappa = theory.kappa_path(1.0, NORM, 2.0, 0.1, "squared", step, steps=80, targets=targets)
    np.testing.assert_allclose([u, kappa], trained(None, 2.0, 0.1, step, 80, targets=targets), atol=1e-10)
    still = theory.kappa_path(1.0, NORM, 2.0, 0.1, "squared", step, steps=80)[1]
    assert float(kappa[-1]) < 0.9 * float(still[-1])
    clean = theory.kappa_path(1.0, NORM, 2.0, 0.1, "squared", step, steps=80, targets=np.ones(80))[1]
    np.testing.assert_allclose(clean, still, rtol=1e-14)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "exponential", "squared"])
def test_flow_with_decay(loss):
    p, decay, kappa, start = 0.8, 0.13, 2.4, 0.2

    def slope(_, numbers):
        u, size = numbers[0], np.hypot(*numbers)
        return [2 * p * NORM * RESIDUALS[loss](u) * size - 2 * decay * u, -2 * decay * numbers[1]]

    w, z, unit = crowd(kappa, start)

    def of_all_weights(_, weights):
        w, z = weights[: WIDTH * DIM].reshape(WIDTH, DIM), weights[WIDTH * DIM :]
        hidden = NORM * w @ unit
        pull = p * RESIDUALS[loss](z @ hidden)
        return np.concatenate([(pull * NORM * np.outer(z, unit) - decay * w).ravel(), pull * hidden - decay * z])

    t = 6.0
    accuracy = {"rtol": 1e-11, "atol": 1e-13, "method": "DOP853"}
    end = solve_ivp(of_all_weights, (0, t), np.concatenate([w.ravel(), z]), **accuracy).y[:, -1]
    found = of_weights(end[: WIDTH * DIM].reshape(WIDTH, DIM), end[WIDTH * DIM :], unit)
    np.testing.assert_allclose(solve_ivp(slope, (0, t), [start, kappa], **accuracy).y[:, -1], found, rtol=1e-9)
    assert float(theory.decayed_kappa(kappa, decay, t)) == pytest.approx(found[1], rel=1e-9)
    # Small steps tend to it.
    gaps = [
        abs(float(theory.kappa_path(p, NORM, kappa, start, loss, t / n, steps=n, weight_decay=decay)[1][-1]) - found[1])
        for n in (1000, 2000)
    ]
    assert gaps[1] == pytest.approx(gaps[0] / 2, rel=0.02)


@pytest.mark.usefixtures("x64")
def test_time_from_lazy_to_rich():
    kappa, decay = np.array([0.1, 0.5852119533, 2.0, 30.0]), 0.07
    times = np.asarray(theory.lazy_to_rich_time(kappa, decay))
    np.testing.assert_array_equal(times[:2], 0)
    np.testing.assert_allclose(theory.decayed_kappa(kappa, decay, times)[2:], theory.kappa_critical(), rtol=1e-13)
    with pytest.raises(HypothesisError, match="hinge"):
        theory.lazy_to_rich_time(1.0, 0.1, "hinge")


@pytest.mark.usefixtures("x64")
def test_squared_gradient_norm_of_a_network():
    w, z, unit = crowd(1.3, -0.8)
    gradient = jax.grad(lambda network: network(jnp.asarray(NORM * unit)[None])[0])(TwoLayerReLU(w, z))
    total = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient))
    assert float(theory.squared_gradient_norm(NORM, 1.3, -0.8)) == pytest.approx(total, rel=1e-13)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", RESIDUALS)
def test_a_logit_above_0_rises_at_any_step_size(loss):
    start = np.geomspace(1e-3, 0.99, 5)[:, None, None]
    steps, kappa = np.geomspace(1e-2, 1e6, 9)[:, None], np.array([0.0, 0.1, 10.0])
    u, _ = theory.kappa_path(1.0, 1.0, kappa, start, loss, steps, steps=1)
    assert (u[..., 1] > u[..., 0]).all()


# --- the edge of stability ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_the_edge_of_squared_loss():
    x = np.array([0.01, 0.4, 0.999, 1.0, 3.0])
    found = np.asarray(theory.edge_of_stability(0.5, 2 * x, "squared", 1.0))
    np.testing.assert_allclose(found[:3], np.sqrt(1 / x[:3] ** 2 - 1), rtol=1e-12)
    np.testing.assert_array_equal(found[3:], 0)


class Kinked(Loss):
    """g = below (1 - m) for m < 1, above (1 - m) beyond: a kink at the rest."""

    below: float
    above: float
    rest = 1.0
    kinks = (1.0,)

    def value(self, margin):
        return jnp.where(margin < 1, self.below, self.above) * (1 - margin) ** 2 / 2

    def residual(self, margin):
        return jnp.where(margin < 1, self.below, self.above) * (1 - margin)


def smoothed():
    return FlippedLabels("cross-entropy", 0.2)


SMOOTH = {
    "smoothed": (smoothed, np.log(4), 0.16),
    "smoothed exponential": (lambda: FlippedLabels("exponential", 0.2), np.log(4) / 2, 0.8),
    "flipped squared": (lambda: FlippedLabels("squared", 0.2), 0.6, 1.0),
    "shifted": (lambda: MarginShift("squared", 0.5), 1.5, 1.0),
    "cooled": (lambda: Temperature("squared", 0.5), 0.5, 4.0),
    "warm, shifted": (lambda: MarginShift(Temperature(smoothed(), 2.0), 1.0), 1 + 2 * np.log(4), 0.04),
    "decoupled": (lambda: SpectralDecoupling("squared", 0.25), 0.8, 1.25),
    "kinked": (lambda: Kinked(1.0, 3.0), 1.0, 1.5),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("loss", "rest", "slope"), SMOOTH.values(), ids=SMOOTH)
def test_the_edge_of_other_losses(loss, rest, slope):
    """Against its formula, and against what small deviations do: they die out 2 % below it and grow 2 % above."""
    loss = loss()
    edge = float(theory.edge_of_stability(1.0, 1.0, loss, 0.3))
    assert edge == pytest.approx(np.sqrt(1 / (0.3 * slope) ** 2 - rest**2), rel=1e-12)
    start = rest + np.array([[1e-7], [-1e-7]])
    u, _ = theory.kappa_path(1.0, 1.0, edge * np.array([0.98, 1.02]), start, loss, 0.3, steps=200)
    last = np.max(np.abs(np.asarray(u)[..., -2:] - rest), axis=-1)
    assert (last[:, 0] < 1e-9).all()
    assert (last[:, 1] > 1e-6).all()


@pytest.mark.parametrize("temperature", [0.01, 1.0, 30.0])
def test_edges_in_float32(temperature):
    def edge(loss):
        return float(theory.edge_of_stability(np.float32(1.0), 1.0, Temperature(loss, temperature), 0.3 * temperature))

    rest, slope = np.log(4) * temperature, 0.16 / temperature**2
    expected = np.sqrt(1 / (0.3 * temperature * slope) ** 2 - rest**2)
    assert edge(smoothed()) == pytest.approx(expected, rel=1e-5)
    assert edge(Kinked(1.0, 3.0)) == pytest.approx(temperature * np.sqrt(1 / 0.45**2 - 1), rel=1e-5)
    assert edge("hinge") == np.inf
    assert edge(FlippedLabels("hinge", 0.2)) == 0


@pytest.mark.usefixtures("x64")
def test_edges_that_are_0_or_infinite():
    def edge(loss):
        return float(theory.edge_of_stability(1.0, 1.0, loss, 0.3))

    endless = ("cross-entropy", "exponential", Focal(2.0), FlippedLabels("cross-entropy", 0.0))
    assert {edge(loss) for loss in (*endless, "hinge", MarginShift("hinge", 0.5))} == {np.inf}
    for jumping in (FlippedLabels("hinge", 0.2), SpectralDecoupling("hinge", 0.1)):
        assert edge(jumping) == 0
        u = theory.kappa_path(1.0, 1.0, 0.01, 0.9, jumping, 0.3, steps=2000)[0][-50:]
        assert np.ptp(np.asarray(u)) > 0.1
    for kappa in (0.1, 100.0):
        u, kept = theory.catapult(1.0, 1.0, kappa, 0.01, "hinge", 0.3)
        assert float(u) >= 1
        assert float(kept) > 0.3 * kappa


# --- the catapult ------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("x64")
def test_the_catapult_ends_below_the_edge():
    kappa = np.array([2.0, 2.2, 2.5, 3.0, 3.5, 4.0])
    u, kept = (np.asarray(value) for value in theory.catapult(1.0, 1.0, kappa, 0.9, "squared", 0.4))
    np.testing.assert_allclose(kept[[0, 3, 5]], [1.9918, 1.3666, 0.0030], atol=5e-5)
    np.testing.assert_allclose(u, 1, atol=1e-13)
    assert float(theory.edge_of_stability(1.0, 1.0, "squared", 0.4)) == pytest.approx(2.2913, abs=5e-5)
    assert (kept < 2.2913).all()
    # Whole networks end there too: their kappa, their logit.
    for first, last in zip(kappa[[0, 1, 3]], kept[[0, 1, 3]], strict=True):
        found = trained(RESIDUALS["squared"], first, 0.9, 0.4 / NORM, 1500)[:, -1]
        np.testing.assert_allclose(found, [1, last], atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_period_two_just_above_the_edge():
    """The logit jumps from one side of its rest to the other, and kappa creeps down from above the edge to below it."""
    u, kappa = (np.asarray(v) for v in theory.kappa_path(1.0, 1.0, 2.4, 1.01, "squared", 0.4, steps=1500))
    sides = np.sign(u - 1)[:200]
    assert (sides[1:] == -sides[:-1]).all()
    assert abs(u[20] - 1) > 4 * abs(u[0] - 1)
    assert abs(u[60] - u[62]) < 0.1 * abs(u[60] - u[61])
    assert (np.diff(kappa[:200]) < 0).all()
    assert kappa[-1] < 2.2913 < kappa[20]
    assert abs(u[-1] - 1) < 1e-12


def test_what_does_not_hold_is_an_error():
    with pytest.raises(HypothesisError, match="no finite rest"):
        theory.catapult(1.0, 1.0, 1.0, 0.5, "cross-entropy", 0.4)
    with pytest.raises(ConvergenceError, match=r"after 20 steps; use a larger max_steps"):
        theory.catapult(1.0, 1.0, 3.0, 0.9, "squared", 0.4, max_steps=20)
    with pytest.raises(ConvergenceError, match="step_size = 40; use a smaller"):
        theory.catapult(1.0, 1.0, 3.0, 0.9, "squared", 40.0)
    with pytest.raises(ConvergenceError, match=r"at step 4 with step_size = 40; use a smaller"):
        theory.kappa_path(1.0, 1.0, 3.0, 0.9, "squared", [0.4, 40.0], steps=60)


# --- arrays, precision, derivatives, bad input -------------------------------------------------------------------------


def test_shapes_and_precision():
    p, kappa = np.full((3, 1), 0.5, np.float32), np.array([0.0, 1.0], np.float32)
    u, kept = theory.kappa_path(p, 2.0, kappa, 0.2, "cross-entropy", 0.3, steps=5, weight_decay=0.1)
    assert u.shape == kept.shape == (3, 2, 6)
    assert u.dtype == kept.dtype == np.float32
    np.testing.assert_array_equal(kept[:, 0], 0)
    noisy = theory.kappa_path(0.5, 2.0, kappa, 0.2, "squared", 0.3, steps=5, targets=np.ones((4, 1, 5), np.float32))
    assert noisy[0].shape == (4, 2, 6)
    assert [v.shape for v in theory.kappa_path(0.5, 2.0, kappa, 0.2, "squared", 0.3, steps=0)] == [(2, 1)] * 2
    assert [v.shape for v in theory.catapult(p, 2.0, kappa, 0.2, "squared", 0.3)] == [(3, 2)] * 2
    assert theory.edge_of_stability(p, 2.0, "squared", np.float32(0.3)).dtype == np.float32
    f32, f64 = np.float32, np.float64
    with jax.enable_x64(True):
        exact = theory.kappa_path(f64(0.5), 2.0, 1.0, 0.2, "cross-entropy", 0.3, steps=60)
        assert exact[0].dtype == f64
    single = theory.kappa_path(f32(0.5), 2.0, 1.0, 0.2, "cross-entropy", 0.3, steps=60)
    np.testing.assert_allclose(single, exact, rtol=2e-5)
    u, kept = theory.catapult(1.0, 1.0, np.array([2, 3], np.float32), 0.9, "squared", 0.4)
    np.testing.assert_allclose(kept, [1.9918, 1.3666], atol=2e-3)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives():
    targets = np.linspace(0.5, 1.5, 12)

    def last(numbers, **more):
        p, r, kappa, start, step, decay = numbers
        more |= {"steps": 12, "weight_decay": decay}
        u, kappa = theory.kappa_path(p, r, kappa, start, "squared", step, **more)
        return u[-1] + kappa[-1]

    def end(numbers):
        p, r, kappa, start, step, _ = numbers
        return theory.catapult(p, r, kappa, start, "squared", step, max_steps=400)[1]

    def edge(numbers):
        loss = FlippedLabels("cross-entropy", numbers[5])
        return theory.edge_of_stability(numbers[0], numbers[1], loss, numbers[4])

    at = jnp.array([0.5, 1.1, 3.0, 0.4, 0.65, 0.03])
    for law in (last, lambda numbers: last(numbers, targets=targets), end, edge):
        slope = jax.grad(law)(at)
        for i in range(6):
            step = 1e-6 * np.eye(6)[i]
            assert float(slope[i]) == pytest.approx(float(law(at + step) - law(at - step)) / 2e-6, rel=1e-5, abs=1e-8)
        np.testing.assert_allclose(jax.jit(law)(at), law(at), rtol=1e-12)
    several = jax.vmap(lambda kappa: last(at.at[2].set(kappa)))(jnp.array([0.0, 3.0]))
    assert float(several[1]) == pytest.approx(float(last(at)), rel=1e-14)


@pytest.mark.slow
@pytest.mark.parametrize(("kappa", "start"), [(0.0, 0.3), (0.0, 0.0), (0.0, -0.3), (1.0, 0.0)])
def test_derivatives_of_balanced_modes_are_finite(kappa, start):
    def last(kappa, start):
        return theory.kappa_path(0.5, 1.0, kappa, start, "cross-entropy", 0.4, steps=5)[0][-1]

    assert np.isfinite(jax.grad(last, (0, 1))(kappa, start)).all()
    assert np.isfinite(jax.grad(lambda k: theory.squared_gradient_norm(1.0, k, start))(kappa))


def test_logits_under_jit_that_do_not_hold_are_nan():
    found = jax.jit(lambda kappa: theory.catapult(1.0, 1.0, kappa, 0.9, "squared", 0.4, max_steps=20))(3.0)
    assert np.isnan(found).all()


GOOD = {"frequency": 0.5, "norm": 1.0, "kappa": 1.0, "start": 0.1, "loss": "squared", "step_size": 0.1}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"frequency": 0.0}, "frequency must be > 0, got 0"),
        ({"norm": -1.0}, "norm must be > 0, got -1"),
        ({"step_size": 0.0}, "step_size must be > 0, got 0"),
        ({"kappa": -0.5}, "kappa must be >= 0, got -0.5"),
        ({"start": np.nan}, "start = nan is not finite"),
        ({"weight_decay": -0.1}, "weight_decay must be >= 0, got -0.1"),
        ({"steps": 2.5}, r"steps must be an integer >= 0, got 2\.5"),
        ({"loss": "square"}, "did you mean 'squared'"),
        ({"kappa": [1.0, 2.0], "start": [1.0, 2.0, 3.0]}, r"must fit each other, got shapes"),
        ({"targets": [1.0] * 3}, r"targets must have shape \[\.\.\., steps\] with steps = 4, got shape \(3,\)"),
        ({"targets": [[1.0] * 4] * 3, "kappa": [1.0, 2.0]}, "must fit each other"),
        ({"targets": [1.0] * 4, "loss": "hinge"}, 'targets are for loss = "squared"'),
    ],
)
def test_bad_input(changed, message):
    with pytest.raises(ValueError, match=message):
        theory.kappa_path(**{**GOOD, "steps": 4, **changed})


def test_bad_input_of_the_others():
    with pytest.raises(ValueError, match="step_size must be > 0, got 0"):
        theory.edge_of_stability(1.0, 1.0, "squared", 0.0)
    with pytest.raises(ValueError, match="kappa must be >= 0, got -1"):
        theory.catapult(1.0, 1.0, -1.0, 0.5, "squared", 0.1)
    with pytest.raises(ValueError, match="weight_decay must be >= 0, got -1"):
        theory.decayed_kappa(1.0, -1.0, 1.0)
    with pytest.raises(ValueError, match="t = -1"):
        theory.decayed_kappa(1.0, 1.0, -1.0)
    with pytest.raises(ValueError, match="weight_decay must be > 0, got 0"):
        theory.lazy_to_rich_time(1.0, 0.0)
    with pytest.raises(ValueError, match="norm must be > 0, got 0"):
        theory.squared_gradient_norm(0.0, 1.0, 1.0)
