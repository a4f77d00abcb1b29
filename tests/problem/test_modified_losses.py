"""Losses made of another loss: values and residuals against mpmath, exact rests, composition, one number a sample."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.problem import LOSSES, FlippedLabels, Focal, Hinge, MarginShift, Temperature, as_loss

pytestmark = pytest.mark.usefixtures("x64")
MARGINS = np.array([-700.0, -30.0, -3.0, -1e-9, 0.0, 0.3, 2.0, 11.0, 40.0, 340.0])
BASE = {
    "cross-entropy": (lambda m: mp.log1p(mp.exp(-m)), lambda m: 1 / (1 + mp.exp(m))),
    "hinge": (lambda m: max(mp.mpf(0), 1 - m), lambda m: mp.mpf(m < 1)),
    "exponential": (lambda m: mp.exp(-m), lambda m: mp.exp(-m)),
    "squared": (lambda m: (1 - m) ** 2 / 2, lambda m: 1 - m),
}
MADE = {
    "flipped": (
        lambda name: FlippedLabels(name, 0.15),
        lambda f, g: lambda m: 0.85 * f(m) + 0.15 * f(-m),
        lambda f, g: lambda m: 0.85 * g(m) - 0.15 * g(-m),
    ),
    "shift": (lambda name: MarginShift(name, 0.75), lambda f, g: lambda m: f(m - 0.75), lambda f, g: lambda m: g(m - 0.75)),
    "temperature": (
        lambda name: Temperature(name, 2.5),
        lambda f, g: lambda m: f(m / 2.5),
        lambda f, g: lambda m: g(m / 2.5) / 2.5,
    ),
}


def close(got, function, margins, rtol=1e-12):
    with mp.workdps(40):
        want = np.array([float(function(mp.mpf(float(m)))) for m in margins])
    np.testing.assert_allclose(got, want, rtol=rtol, atol=1e-300)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("kind", MADE)
def test_values_and_residuals_are_those_of_mpmath(kind, name):
    make, value, residual = MADE[kind]
    loss, inside = make(name), BASE[name]
    close(loss.value(jnp.asarray(MARGINS)), value(*inside), MARGINS)
    close(loss.residual(jnp.asarray(MARGINS)), residual(*inside), MARGINS)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 5.0])
def test_the_focal_loss_is_that_of_its_definition(gamma):
    def value(m):
        return -((1 / (1 + mp.exp(m))) ** gamma) * mp.log(1 / (1 + mp.exp(-m)))

    loss = Focal(gamma)
    near = jnp.asarray(MARGINS[np.abs(MARGINS) < 100])
    close(loss.value(near), value, near)
    close(loss.residual(near), lambda m: -mp.diff(value, m), near, rtol=1e-11)
    np.testing.assert_allclose(
        -jax.vmap(jax.grad(loss.value))(near), loss.residual(near), rtol=1e-12
    )
    if gamma == 0:
        np.testing.assert_array_equal(loss.residual(near), gs.CrossEntropy().residual(near))


def test_rests_are_exact():
    for share in (1e-12, 0.1, 0.4999):
        assert np.isclose(FlippedLabels("cross-entropy", share).rest, np.log((1 - share) / share), rtol=1e-14)
        assert np.isclose(FlippedLabels("exponential", share).rest, np.log((1 - share) / share) / 2, rtol=1e-14)
        assert FlippedLabels("hinge", share).rest == 1
    assert np.isinf(FlippedLabels("cross-entropy", 0.0).rest)
    assert FlippedLabels("squared", 0.1).rest is None
    assert MarginShift("hinge", -0.25).rest == 0.75
    assert np.isinf(MarginShift("cross-entropy", 2.0).rest)
    assert Temperature(FlippedLabels("cross-entropy", 0.1), 3.0).rest == 3 * FlippedLabels("cross-entropy", 0.1).rest
    for share in (0.05, 0.3):  # where nobody gives it, it is found
        found = gs.solve_mode(gs.Mode(0.5, 1.0, [0.3], [0.3]), FlippedLabels("squared", share)).logit(1e3)
        np.testing.assert_allclose(found, 1 - 2 * share, rtol=1e-12)


def test_losses_are_made_of_each_other():
    inside = MarginShift(FlippedLabels("hinge", 0.2), 0.5)
    loss = Temperature(inside, 2.0)
    assert loss.name == "hinge + flipped labels + margin shift + temperature"
    assert (float(loss.rest), [float(kink) for kink in loss.kinks]) == (3.0, [3.0, -1.0])
    margins = jnp.linspace(-5, 5, 41)
    np.testing.assert_allclose(loss.residual(margins), (0.8 * (margins < 3) - 0.2 * (margins > -1)) / 2, atol=1e-16)
    np.testing.assert_allclose(-jax.vmap(jax.grad(loss.value))(margins + 0.01), loss.residual(margins + 0.01), atol=1e-16)


@pytest.mark.parametrize("kind", ["shift", "temperature"])
@pytest.mark.parametrize("name", ["cross-entropy", "exponential", "squared"])
def test_the_facts_are_those_of_the_functions(kind, name):
    loss = MADE[kind][0](name)
    margins = jnp.linspace(-3.0, 0.9, 14)
    np.testing.assert_allclose(loss.inverse(loss.residual(margins)), margins, rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(loss.margin_at(loss.value(margins)), margins, rtol=1e-11, atol=1e-12)
    assert loss.least == 0
    assert loss.clock is None


def test_numbers_of_samples_follow_the_samples():
    labels = np.array([1, -1, -1, 1])
    loss = MarginShift.by_class("cross-entropy", labels, shift=(0.5, 2.0))
    np.testing.assert_array_equal(loss.shift, [0.5, 2.0, 2.0, 0.5])
    two = Temperature(loss, [1.0, 2.0, 1.0, 4.0])
    margins = jnp.array([0.3, -0.4, 1.0, 2.0])
    wanted = [
        gs.CrossEntropy().residual(m / t - s) / t for m, s, t in zip(margins, loss.shift, two.temperature, strict=True)
    ]
    np.testing.assert_allclose(two.residual(margins), wanted, rtol=1e-14)
    np.testing.assert_allclose(
        two.at(jnp.array([1, 3])).residual(margins[jnp.array([1, 3])]), np.array(wanted)[[1, 3]], rtol=1e-14
    )
    with pytest.raises(ValueError, match="shift is given for 4 samples but the margins are of shape"):
        loss.residual(margins[:2])


def test_a_batch_of_one_point_sees_the_number_of_its_sample():
    data = gs.Dataset([[1.0, 0.2], [-0.5, 1.0], [0.3, -1.0]], [1, -1, 1])
    net = gs.init_two_layer(0, batch=2, width=3, dim=2)
    key = jax.random.key(3)
    loss = MarginShift(FlippedLabels("cross-entropy", [0.0, 0.1, 0.2]), [0.0, 1.0, 2.0])
    step = gs.StochasticGradientDescent(0.1)
    ours, theirs = (
        gs.simulate(data, net, loss, step, steps=30, key=key, engine=engine).logits(30) for engine in ("auto", "reference")
    )
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert np.abs(ours - gs.simulate(data, net, "cross-entropy", step, steps=30, key=key).logits(30)).max() > 1e-3


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FlippedLabels("cross-entropy", 0.5), r"share must be >= 0 and below 1/2, got 0\.5"),
        (lambda: FlippedLabels("cross-entropy", -0.1), r"share must be >= 0 and below 1/2, got -0\.1"),
        (lambda: FlippedLabels("cross-entropi", 0.1), "did you mean 'cross-entropy'"),
        (lambda: Focal(-1.0), r"gamma must be >= 0, got -1\.0"),
        (lambda: Focal([1.0, 2.0]), "gamma must be one number"),
        (lambda: Temperature("hinge", 0.0), r"temperature must be > 0, got 0\.0"),
        (lambda: MarginShift("hinge", [[1.0]]), r"shift must be a number or one number a sample, \[n\], got shape \(1, 1\)"),
        (lambda: MarginShift("hinge", np.nan), "shift"),
        (lambda: MarginShift.by_class("hinge", [1, 0], shift=(0.0, 1.0)), r"labels must be \+1 or -1"),
        (lambda: MarginShift.by_class("hinge", [1, -1], shift=0.5), "shift must be a pair"),
        (lambda: as_loss(Focal), r"give an instance, Focal\(\)"),
    ],
)
def test_mistakes(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_the_losses_are_differentiable_in_their_numbers():
    def residual(share, shift, temperature):
        loss = Temperature(MarginShift(FlippedLabels("cross-entropy", share), shift), temperature)
        return loss.residual(jnp.asarray(0.3))

    at = (0.1, 0.2, 1.5)
    for argnum, slope in enumerate(jax.jit(jax.grad(residual, (0, 1, 2)))(*at)):
        step = np.eye(3)[argnum] * 1e-5
        numeric = (residual(*(at + step)) - residual(*(at - step))) / 2e-5
        np.testing.assert_allclose(slope, numeric, rtol=1e-8)
    assert isinstance(MarginShift(Hinge(), 1).rest, jax.Array)


def test_plain_numbers_are_margins():
    for loss in (FlippedLabels("hinge", 0.1), MarginShift("squared", 0.5), Temperature("cross-entropy", 2.0), Focal(2.0)):
        assert float(loss.residual(0.5)) == pytest.approx(float(loss.residual(np.float32(0.5))), rel=1e-6)
        assert float(loss.value(0.5)) == pytest.approx(float(loss.value(np.float32(0.5))), rel=1e-6)
