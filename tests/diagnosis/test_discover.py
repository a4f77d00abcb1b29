"""The search for clusters: what it must find, and what it must not make up."""

import numpy as np

from gradstarve.diagnosis._groups import two_clusters


def test_a_small_bimodal_direction_among_large_unimodal_ones():
    rng = np.random.default_rng(0)
    for share in (0.1, 0.5, 0.9):
        rows = rng.normal(size=(120, 12)) * np.geomspace(5, 0.05, 12)
        inside = rng.random(120) < share
        rows[inside, 9] += 6.0  # less than the sizes of the leading directions, far more than its own spread
        found, gap = two_clusters(rows @ rows.T, rng)[0]
        assert max((found == inside).mean(), (found != inside).mean()) == 1
        assert gap > 25


def test_gaussian_classes_have_no_gap():
    rng = np.random.default_rng(1)
    for n, dim in ((30, 64), (130, 64), (130, 8)):
        rows = rng.normal(size=(n, dim)) * np.geomspace(3, 0.1, dim)
        assert all(gap < 9 for _, gap in two_clusters(rows @ rows.T, rng))


def test_splits_differ_and_come_widest_first():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(100, 10))
    rows[:20, 0] += 60
    rows[50:, 1] += 90
    (first, a), (second, b), *_ = two_clusters(rows @ rows.T, rng)
    assert a >= b > 20
    assert 0.1 < (first == second).mean() < 0.9


def test_shifts_and_rotations_change_nothing():
    rows = np.random.default_rng(3).normal(size=(60, 6))
    rows[:25, 2] += 20
    turned = rows @ np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0] + 7.0
    (a, gap), (b, other) = (two_clusters(r @ r.T, np.random.default_rng(5))[0] for r in (rows, turned))
    assert np.array_equal(a, b) or np.array_equal(a, ~b)
    assert abs(gap - other) < 1e-6 * gap


def test_few_samples_and_samples_all_alike_have_no_clusters():
    rng = np.random.default_rng(6)
    assert two_clusters(np.eye(11), rng) == []
    assert two_clusters(np.ones((20, 20)), rng) == []
