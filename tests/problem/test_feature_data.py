"""Datasets of orthogonal features that share samples (section 10)."""

import jax
import numpy as np
import pytest

from gradstarve.problem import datasets

TYPES = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]])


@pytest.mark.usefixtures("x64")
def test_samples_are_sums_of_orthogonal_features():
    scales = np.array([0.5, 1.0, 3.0])
    data = datasets.features(TYPES, [0.5, 0.3, 0.2], dim=5, scales=scales, key=jax.random.key(0))
    np.testing.assert_allclose(data.points @ data.points.T, (TYPES * scales**2) @ TYPES.T, atol=1e-14)
    np.testing.assert_array_equal(data.labels, 1)
    np.testing.assert_allclose(data.weights, [0.5, 0.3, 0.2])
    plain = datasets.features(TYPES, [0.5, 0.3, 0.2], scales=scales)
    np.testing.assert_array_equal(plain.points, TYPES * scales)


def test_the_starving_pair():
    data = datasets.starving_pair(0.75, 0.25, dim=3, scales=(2.0, 0.5))
    np.testing.assert_array_equal(data.points, [[2, 0, 0], [2, 0.5, 0]])
    np.testing.assert_array_equal(data.weights, [0.75, 0.25])


def test_mirroring_leaves_a_linear_model_as_it_was():
    plain, mirrored = (datasets.starving_pair(0.75, 0.25, mirrored=flag) for flag in (False, True))
    np.testing.assert_array_equal(mirrored.labels, [1, 1, -1, -1])
    np.testing.assert_array_equal(mirrored.points, np.concatenate([plain.points, -np.asarray(plain.points)]))
    read_outs = []
    for data in (plain, mirrored):
        signed = np.asarray(data.labels)[:, None] * np.asarray(data.points, np.float64)
        read_out = np.array([0.1, -0.2])
        for _ in range(30):  # descent with cross-entropy
            read_out = read_out + 0.5 * (np.asarray(data.weights) / (1 + np.exp(signed @ read_out))) @ signed
        read_outs.append(read_out)
    np.testing.assert_allclose(*read_outs, rtol=1e-14)


def test_bad_arguments():
    with pytest.raises(ValueError, match="types must hold -1, 0 and 1, got 2"):
        datasets.features([[1, 2]], [1.0])
    with pytest.raises(ValueError, match="feature 1 is empty"):
        datasets.features([[1, 0]], [1.0])
    with pytest.raises(ValueError, match=r"probabilities must have shape \(3,\)"):
        datasets.features(TYPES, [0.5, 0.5])
    with pytest.raises(ValueError, match=r"scales must be > 0, got 0\.0"):
        datasets.features(TYPES, [0.5, 0.3, 0.2], scales=(1.0, 0.0, 1.0))
    with pytest.raises(ValueError, match="dim must be an integer >= 3, got 2"):
        datasets.features(TYPES, [0.5, 0.3, 0.2], dim=2)
    with pytest.raises(ValueError, match="weights must sum to 1"):
        datasets.starving_pair(0.5, 0.6)
