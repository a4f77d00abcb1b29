"""Derivatives of the two-class laws in weights, p, r and hyperparameters: finite and right, forward, reverse and twice.

The values of the laws are tried against integrators and training elsewhere; here their derivatives are compared with
differences of fourth order of those values. Every case of a law runs in one program, vmapped.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")

LOSSES = ("hinge", "squared", "exponential", "cross-entropy")

# p, r_+, a_1, a_2, z_1, z_2 on antipodal data, r_- = 1.2. Times lie before, between and after transfers.
ANTIPODAL = {
    "one neuron passes": (0.8, 1.0, 0.1, 0.3, -0.3, 0.1),
    "both pass": (0.6, 1.3, 0.1, -0.15, -0.4, 0.3),
    "equal neurons pass together": (0.6, 1.0, 0.1, 0.1, -0.3, -0.3),
    "class + fails": (0.7, 1.0, 0.1, -0.2, -0.3, -0.1),
    "no neuron on class -": (0.5, 0.9, 0.2, 0.3, 0.1, 0.2),
    "balanced": (0.5, 1.0, 0.2, -0.3, 0.2, -0.3),
    "z = -a": (0.5, 1.0, 0.2, -0.3, -0.2, 0.3),
    "z = -a beside a learner": (0.4, 1.0, 0.2, 0.25, -0.2, 0.1),
    "a = 0": (0.5, 1.0, 0.0, 0.3, 0.4, -0.5),
}
TIMES = np.array([0.4, 2.5, 5.0])
COEFFICIENTS = np.array([[1.0, 0.7], [-0.4, 1.1], [0.6, 0.9]])  # of the logits at the three times


def antipodal(loss):
    def read(x):
        data = gs.datasets.antipodal(dim=1, norms=(x[1], 1.2), frequencies=(x[0], 1 - x[0]))
        solution = gs.solve(data, gs.TwoLayerReLU(x[2:4, None], x[4:]), loss)
        return jnp.sum(COEFFICIENTS * solution.logits(TIMES))

    return read


# p, r_+, w_1, w_2, z_1, z_2 on orthogonal data: each neuron sees one class, or none.
ORTHOGONAL = {
    "balanced": (0.6, 1.1, 0.3, -0.1, -0.2, 0.4, 0.3, -0.4),
    "z = -a": (0.6, 1.1, 0.3, -0.1, -0.2, 0.4, -0.3, 0.4),
    "one leaves, one class fails": (0.6, 1.1, 0.1, -0.1, -0.2, 0.4, -0.5, -0.2),
    "one neuron sees nothing": (0.6, 1.1, 0.3, -0.1, -0.2, -0.4, 0.2, 0.4),
}


def orthogonal(loss):
    def read(x):
        data = gs.datasets.orthogonal(norms=(x[1], 0.8), frequencies=(x[0], 1 - x[0]))
        solution = gs.solve(data, gs.TwoLayerReLU(x[2:6].reshape(2, 2), x[6:]), loss)
        return jnp.sum(COEFFICIENTS * solution.logits(TIMES))

    return read


# eta, momentum, weight decay, p, r_+, a_1, a_2, z_1, z_2.
DESCENT = {
    "plain numbers": (0.2, 0.5, 0.01, 0.8, 1.0, 0.1, 0.3, -0.3, 0.1),
    "balanced": (0.2, 0.3, 0.02, 0.5, 1.0, 0.2, -0.3, 0.2, -0.3),
    "z = -a": (0.2, 0.3, 0.02, 0.5, 1.0, 0.2, -0.3, -0.2, 0.3),
    "class + fails": (0.3, 0.1, 0.01, 0.7, 1.0, 0.1, -0.2, -0.3, -0.1),
}
STEPS = np.array([2, 12, 25])


def descent(loss):
    def read(x):
        data = gs.datasets.antipodal(dim=1, norms=(x[4], 1.2), frequencies=(x[3], 1 - x[3]))
        dynamics = gs.GradientDescent(x[0], momentum=x[1], weight_decay=x[2])
        solution = gs.solve(data, gs.TwoLayerReLU(x[5:7, None], x[7:]), loss, dynamics)
        return jnp.sum(COEFFICIENTS * solution.logits(STEPS))

    return read


def differences(f, points, step):
    """The derivatives of `f` in every coordinate of `points` [cases, n], by differences of fourth order, last axis."""
    n = points.shape[1]
    offsets = step * np.array([-2, -1, 1, 2])[:, None, None] * np.eye(n)  # [4, n, n]
    values = np.asarray(f(jnp.asarray(points[:, None, None] + offsets).reshape(-1, n)))
    values = values.reshape(len(points), 4, n, *values.shape[1:])
    slopes = np.tensordot(np.array([1, -8, 8, -1]) / (12 * step), values, axes=(0, 1))
    return np.moveaxis(slopes, 1, -1)


def check(read, cases, kinks=()):
    """First derivatives, reverse and forward; `kinks`: (case, coordinate) where the law has no derivative."""
    points = np.array(list(cases.values()))
    value, reverse, forward = (jax.jit(jax.vmap(f)) for f in (read, jax.grad(read), jax.jacfwd(read)))
    found, twin, expected = np.asarray(reverse(points)), np.asarray(forward(points)), differences(value, points, 3e-4)
    smooth = np.ones(found.shape, bool)
    for case, coordinate in kinks:
        smooth[list(cases).index(case), coordinate] = False
    assert np.isfinite(found).all()
    assert np.isfinite(twin).all()
    np.testing.assert_allclose(found, twin, rtol=1e-10, atol=1e-12)
    for name, *rows in zip(cases, found, expected, smooth, strict=True):
        ours, theirs, here = (np.asarray(row) for row in rows)
        assert np.abs(ours).max() > 0
        np.testing.assert_allclose(ours[here], theirs[here], rtol=1e-6, atol=1e-6 * np.abs(theirs).max(), err_msg=name)
    return reverse, points, smooth


# Two neurons that cross at one time: the third derivative jumps where their order does, and differences of the first
# derivatives are of first order in their step (hinge loss, whose clock is time itself, has no jump).
KINKED = ("equal neurons pass together",)


def check_twice(read, cases, kinks=(), kinked=KINKED):
    """Second derivatives: forward through reverse, against differences of the first ones."""
    slope, points, smooth = check(read, cases, kinks)
    found = np.asarray(jax.jit(jax.vmap(jax.jacfwd(jax.grad(read))))(points))
    expected = differences(slope, points, 3e-4)
    for name, *rows in zip(cases, found, expected, smooth, strict=True):
        close = 1e-3 if name in kinked else 1e-5
        ours, theirs, here = (np.asarray(row) for row in rows)
        assert np.isfinite(ours).all(), name
        here = np.outer(here, here)
        np.testing.assert_allclose(ours[here], theirs[here], rtol=close, atol=close * np.abs(theirs).max(), err_msg=name)


# A neuron at a = 0 joins one class or the other as a moves, and stays where it is at 0: no derivative in its a and z.
AT_THE_BORDER = (("a = 0", 2), ("a = 0", 4))


@pytest.mark.slow
def test_flow_on_antipodal_classes():
    check(antipodal("hinge"), ANTIPODAL, AT_THE_BORDER)


@pytest.mark.slow
def test_flow_on_orthogonal_classes():
    check(orthogonal("squared"), ORTHOGONAL)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_flow_twice_on_antipodal_classes(loss):
    check_twice(antipodal(loss), ANTIPODAL, AT_THE_BORDER, () if loss == "hinge" else KINKED)


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_flow_twice_on_orthogonal_classes(loss):
    check_twice(orthogonal(loss), ORTHOGONAL)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy"])
def test_descent_with_momentum_and_decay(loss):
    check_twice(descent(loss), DESCENT, kinked=())


@pytest.mark.slow
def test_slope_in_the_frequency_of_a_dataset_made_inside_jit():
    """The numbers of a user's report: one neuron passes to the other class; differences give 0.3484 at p = 0.8."""

    @jax.jit
    @jax.grad
    def slope(p):
        data = gs.Dataset([[1.0, 0.0], [-1.0, 0.0]], [1, -1], jnp.stack([p, 1 - p]))
        return gs.solve(data, gs.TwoLayerReLU([[0.1, 0.1]], [-0.3]), "hinge").loss(5.0)

    assert float(slope(0.8)) == pytest.approx(0.3484098, abs=1e-7)
