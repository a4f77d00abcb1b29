"""The maximum-margin direction against SciPy's optimisers, and its degenerate cases (13.1)."""

import itertools

import jax
import mpmath as mp
import numpy as np
import pytest
from scipy.optimize import minimize, nnls

import gradstarve as gs
from gradstarve.theory import max_margin_direction


def by_nnls(points):
    """The least-distance form by SciPy: min |E lambda - e_last|, the direction of its residual, scaled to margin 1."""
    target = np.append(np.zeros(points.shape[1]), 1)
    columns = np.vstack([points.T, np.ones(len(points))])
    weights, _ = nnls(columns, target)
    residual = columns @ weights - target
    return -residual[:-1] / residual[-1]


def by_active_sets(points):
    """The shortest v with v.x_i >= 1, in 60 digits: every support is tried for v = sum alpha_i x_i with alpha >= 0."""
    n, d = points.shape
    with mp.workdps(60):
        rows = [mp.matrix(row) for row in points.tolist()]
        best = None
        for size in range(1, min(n, d) + 1):
            for support in itertools.combinations(range(n), size):
                gram = mp.matrix(size, size)
                for i, j in itertools.product(range(size), repeat=2):
                    gram[i, j] = mp.fdot(rows[support[i]], rows[support[j]])
                try:
                    alpha = mp.lu_solve(gram, mp.matrix([1] * size))
                except ZeroDivisionError:
                    continue
                v = mp.matrix(d, 1)
                for i, a in zip(support, alpha, strict=True):
                    v += a * rows[i]
                feasible = all(mp.fdot(v, row) >= 1 - mp.mpf(10) ** -30 for row in rows)
                if min(alpha) >= 0 and feasible and (best is None or mp.norm(v) < best[0]):
                    best = mp.norm(v), v
        length, v = best
        return np.array([float(x / length) for x in v]), float(1 / length)


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


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("norms", ["1e-12 to 1e12", "tiny", "huge", "one short point"])
def test_norms_of_any_size(dtype, norms, request):
    """Points in a half-space wide enough for supports of one, two and three points, of norms far apart."""
    single = dtype == np.float32
    if not single:
        request.getfixturevalue("x64")
    rng = np.random.default_rng(8)
    points = rng.normal(size=(40, 6, 3))
    points[..., 0] = np.abs(points[..., 0]) + 0.1
    points /= np.linalg.norm(points, axis=-1, keepdims=True)
    far = 10 ** rng.uniform(-12, 12, (40, 6, 1))
    tiny, huge = (1e-35, 1e35) if single else (1e-150, 1e150)
    short = np.where(np.arange(6)[:, None] == 2, 1e-12, 1.0)
    points *= {"1e-12 to 1e12": far, "tiny": tiny, "huge": huge, "one short point": short}[norms]
    points = points.astype(dtype)
    found = max_margin_direction(points)
    supports = set()
    for k, x in enumerate(points.astype(np.float64)):
        v, margin = by_active_sets(x)
        np.testing.assert_allclose(found.direction[k], v, atol=3e-5 if single else 1e-12)
        np.testing.assert_allclose(found.margin[k], margin, rtol=3e-5 if single else 1e-12)
        supports.add(int(found.support[k].sum()))
    assert {2, 3} <= supports
    if norms == "1e-12 to 1e12":
        # What the coefficients stand for, each product against the size of its point.
        combined = np.einsum("bn,bnd->bd", found.coefficients, points) * np.asarray(found.margin)[:, None]
        np.testing.assert_allclose(combined, found.direction, atol=1e-4 if single else 1e-11)


@pytest.mark.usefixtures("x64")
def test_points_far_apart_that_no_half_space_holds():
    for points in ([[1e-12, 0.0], [-1e12, 0.0]], [[1e150, 0.0], [0.0, 0.0]], [[1.0, 0.0], [-1e-9, 1e-9], [0.0, -1e9]]):
        with pytest.raises(gs.HypothesisError, match="convex hull that holds the origin"):
            max_margin_direction(points)


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
