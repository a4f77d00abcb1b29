"""The maximum-margin direction against SciPy's optimisers, and its degenerate cases (13.1)."""

import jax
import mpmath as mp
import numpy as np
import pytest
from scipy.optimize import minimize, nnls

import gradstarve as gs
from gradstarve.theory.direction import max_margin_direction


def by_nnls(points):
    """The least-distance form by SciPy: min |E lambda - e_last|, the direction of its residual, scaled to margin 1."""
    target = np.append(np.zeros(points.shape[1]), 1)
    columns = np.vstack([points.T, np.ones(len(points))])
    weights, _ = nnls(columns, target)
    residual = columns @ weights - target
    return -residual[:-1] / residual[-1]


def clouds(seed, count, n, d):
    """Sets of points of one half-space with norms that spread, a repeated point and a shorter one on the same ray."""
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, n, d)) + 3 * np.eye(d)[0]
    points *= np.sign(points[..., :1]) * np.exp(rng.normal(size=(count, n, 1)))
    if n > 4:
        points[:, 3], points[:, 4] = points[:, 2], 0.5 * points[:, 2]
    return points


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("n", "d"), [(2, 5), (12, 3), (20, 12)])
def test_direction_margin_and_coefficients(n, d):
    points = clouds(n, 60, n, d)
    found = max_margin_direction(points)
    for k, x in enumerate(points):
        v = by_nnls(x)
        np.testing.assert_allclose(found.direction[k], v / np.linalg.norm(v), atol=1e-11)
        np.testing.assert_allclose(found.margin[k], 1 / np.linalg.norm(v), rtol=1e-11)
    alpha = np.asarray(found.coefficients)
    assert (alpha >= 0).all()
    np.testing.assert_array_equal(alpha > 0, found.support)
    combined = np.einsum("bn,bnd->bd", alpha, points) * np.asarray(found.margin)[:, None]
    np.testing.assert_allclose(combined, found.direction, atol=1e-11)
    np.testing.assert_allclose(alpha.sum(-1), np.asarray(found.margin) ** -2.0, rtol=1e-11)


@pytest.mark.usefixtures("x64")
def test_it_maximises_the_margin():
    """Straight from the definition, by SciPy's SLSQP."""
    x = clouds(5, 1, 6, 3)[0]
    found = max_margin_direction(x)
    best = minimize(
        lambda v: v @ v / 2,
        by_nnls(x) * 1.5 + 0.1,
        jac=lambda v: v,
        constraints={"type": "ineq", "fun": lambda v: x @ v - 1, "jac": lambda v: x},
        options={"ftol": 1e-14, "maxiter": 300},
    ).x
    np.testing.assert_allclose(found.direction, best / np.linalg.norm(best), atol=1e-6)
    rng = np.random.default_rng(0)
    others = rng.normal(size=(2000, 3)) * 0.1 + np.asarray(found.direction)
    others /= np.linalg.norm(others, axis=1, keepdims=True)
    assert (others @ x.T).min(axis=1).max() <= float(found.margin) * (1 + 1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("angle", [0.1, 2e-3])
def test_two_points_close_to_each_other(angle):
    """The point of their segment next to the origin, in 40 digits."""
    rng = np.random.default_rng(1)
    frames = np.linalg.qr(rng.normal(size=(20, 5, 2)))[0]
    lengths = 1.3 * (1 + 0.3 * angle**2 * rng.normal(size=20))
    second = lengths[:, None] * (np.cos(angle) * frames[..., 0] + np.sin(angle) * frames[..., 1])
    points = np.stack([1.3 * frames[..., 0], second], axis=1)
    found = np.asarray(max_margin_direction(points).direction)
    with mp.workdps(40):
        for (x, y), v in zip(points, found, strict=True):
            x, y = mp.matrix(x.tolist()), mp.matrix(y.tolist())
            part = min(max(-mp.fdot(x, y - x) / mp.norm(y - x) ** 2, 0), 1)
            nearest = x + part * (y - x)
            np.testing.assert_allclose(v, np.array(nearest / mp.norm(nearest), float).reshape(-1), atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_scale_and_slope():
    x = clouds(7, 1, 4, 3)[0]
    found, large = max_margin_direction(x), max_margin_direction(1e150 * x)
    np.testing.assert_allclose(large.direction, found.direction, atol=1e-13)
    np.testing.assert_allclose(large.margin, 1e150 * found.margin, rtol=1e-12)
    step, towards = 1e-6, np.random.default_rng(2).normal(size=x.shape)
    _, slope = jax.jvp(lambda p: max_margin_direction(p).direction, (x,), (towards,))
    ahead, behind = (max_margin_direction(x + s * towards).direction for s in (step, -step))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), atol=1e-7)


def test_float32():
    points = clouds(3, 40, 2, 5)
    found = max_margin_direction(points.astype(np.float32))
    assert found.direction.dtype == np.float32
    for k, x in enumerate(points):
        v = by_nnls(x)
        np.testing.assert_allclose(found.direction[k], v / np.linalg.norm(v), atol=2e-5)


def test_bad_arguments():
    with pytest.raises(gs.HypothesisError, match="set 1 of 2 has a convex hull that holds the origin"):
        max_margin_direction([[[1.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [-1.0, 0.0]]])
    with pytest.raises(ValueError, match=r"points must be \[\*batch, n, d\]"):
        max_margin_direction([1.0, 2.0])
