"""The geometric hypotheses against their definitions."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradstarve.problem import Dataset, datasets

PROPERTIES = ("orthogonally_separable", "orthogonal", "antipodal", "shared_direction")


def by_definition(points, labels):
    """The four properties of integer points, by exact arithmetic on every pair."""
    points = [[int(c) for c in x] for x in points]
    dot = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in points] for x in points]
    pairs = [(i, k) for i in range(len(labels)) for k in range(len(labels))]
    same = [(i, k) for i, k in pairs if labels[i] == labels[k]]
    cross = [(i, k) for i, k in pairs if labels[i] != labels[k]]
    separable = all(dot[i][k] > 0 for i, k in same) and all(dot[i][k] <= 0 for i, k in cross)
    orthogonal = separable and all(dot[i][k] == 0 for i, k in cross)
    # Equality in Cauchy-Schwarz, with a positive product: the same direction.
    shared = all(dot[i][k] > 0 and dot[i][k] ** 2 == dot[i][i] * dot[k][k] for i, k in same)
    opposite = all(dot[i][k] < 0 and dot[i][k] ** 2 == dot[i][i] * dot[k][k] for i, k in cross)
    return separable, orthogonal, shared and opposite and bool(cross), shared


def found(data):
    separability = data.separability()
    return tuple(getattr(separability, name) for name in PROPERTIES)


small = st.integers(-3, 3)


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 3).flatmap(lambda d: st.lists(st.tuples(*[small] * d).filter(any), min_size=1, max_size=4)),
    st.data(),
)
def test_random_points_on_a_lattice(points, draw):
    labels = draw.draw(st.lists(st.sampled_from([-1, 1]), min_size=len(points), max_size=len(points)))
    data = Dataset(np.array(points, np.float32), np.array(labels, np.float32))
    assert found(data) == by_definition(points, labels)


def test_breaches_name_a_pair_that_breaks_the_property():
    rng = np.random.default_rng(0)
    for _ in range(50):
        points, labels = rng.normal(size=(5, 2)).astype(np.float32), rng.choice([-1, 1], 5)
        separability = Dataset(points, labels).separability()
        for name in PROPERTIES:
            breach = separability.breaches[name]
            assert (breach is None) == getattr(separability, name)
        breach = separability.breaches["orthogonally_separable"]
        if breach is not None:
            i, k = breach.first, breach.second
            assert i < k
            product = labels[i] * labels[k] * float(points[i] @ points[k])
            assert (product <= 0) if labels[i] == labels[k] else (product < 0)
            assert f"no (points {i} and {k}:" in separability.explain().splitlines()[0]


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("dim", [2, 40])
def test_rounding_in_a_random_frame_hides_no_property(dim, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    for seed in range(12):
        key = jax.random.key(seed)
        assert found(datasets.antipodal(dim, norms=(1e-3, 40.0), key=key)) == (True, False, True, True)
        assert found(datasets.orthogonal(dim, norms=(1e-3, 40.0), key=key)) == (True, True, False, True)
        assert datasets.cones(key, dim, opening=0.5).separability().orthogonally_separable
        rays = datasets.cones(key, dim, opening=0.0).separability()
        assert rays.orthogonally_separable
        assert rays.shared_direction


@pytest.mark.parametrize(("precision", "angle"), [("float32", 1e-4), ("float64", 1e-12)])
def test_a_small_angle_is_seen(precision, angle, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    c, s = np.cos(angle), np.sin(angle)
    frame = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 2)))[0].T

    def rotated(points, labels):
        return Dataset((np.array(points) @ frame).astype(precision), np.array(labels, precision))

    assert found(rotated([[1, 0], [-s, c]], [1, -1])) == (True, False, False, True)
    assert found(rotated([[1, 0], [s, c]], [1, -1])) == (False, False, False, True)
    assert found(rotated([[1, 0], [-c, s]], [1, -1])) == (True, False, False, True)
    assert found(rotated([[1, 0], [c, s], [-1, 0]], [1, 1, -1])) == (True, False, False, False)


def test_one_class_only():
    assert found(Dataset([[1.0, 0.0], [1.0, 1.0]], [1, 1])) == (True, True, False, False)
    assert found(Dataset([[1.0, 0.0], [2.0, 0.0]], [1, 1])) == (True, True, False, True)
    assert found(Dataset([[1.0]], [-1])) == (True, True, False, True)


def test_a_point_at_the_origin_is_separable_from_nothing():
    separability = Dataset([[0.0, 0.0], [1.0, 0.0]], [1, -1]).separability()
    assert not separability.orthogonally_separable


@pytest.mark.parametrize("dim", [1, 2, 6])
def test_cones_fill_their_opening(dim):
    data = datasets.cones(jax.random.key(2), dim, points_per_class=50, opening=0.7, spread=0.0)
    assert data.points.shape == (100, dim)
    np.testing.assert_allclose(np.linalg.norm(data.points, axis=1), 1, rtol=1e-5)
    assert data.separability().orthogonally_separable
    if dim > 1:
        unit = np.asarray(data.points)[:50]
        assert 0.7 < np.arccos(np.clip(unit @ unit.T, -1, 1)).max() <= 1.4 + 1e-3


@pytest.mark.parametrize(
    "points",
    [
        ([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]], [1, 1, -1]),
        ([[1.0, 0.0], [0.0, 0.0]], [1, -1]),
        ([[-1.0, 0.0], [0.0, -0.0], [0.0, 0.0]], [1, -1, 1]),
        ([[1.0, 0.0], [0.0, 0.0]], [1, 1]),
    ],
    ids=["beside others of its class", "a class of its own", "two classes", "one class"],
)
def test_with_a_point_at_the_origin_nothing_holds_and_it_is_the_point_named(points):
    """Whatever stands beside it: it has no direction, so that no class shares one and no two are opposite."""
    found = Dataset(*points).separability()
    assert not any((found.orthogonally_separable, found.orthogonal, found.antipodal, found.shared_direction))
    assert {(breach.first, breach.second) for breach in found.breaches.values()} == {(1, 1)}
    assert found.explain().count("no (point 1 is at the origin (zero), where it has no direction)") == 4
