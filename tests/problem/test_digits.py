"""Two digits as a dataset, against the images as scikit-learn gives them."""

import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from gradstarve.problem import _datasets as module
from gradstarve.problem import datasets

pytestmark = pytest.mark.usefixtures("x64")


def rows(points):
    return sorted(map(tuple, np.asarray(points).round(12)))


def test_the_images_are_those_of_the_pair_each_once():
    loaded = load_digits()
    data = datasets.digits((4, 9), key=3, train=0.25)
    for label, digit in ((1, 4), (-1, 9)):
        mine = [part.points[np.asarray(part.labels) == label] for part in (data.train, data.test)]
        assert rows(np.concatenate(mine)) == rows(loaded.data[loaded.target == digit] / 16)
        assert len(mine[0]) == round(0.25 * (loaded.target == digit).sum())
    np.testing.assert_allclose(data.train.weights, 1 / data.train.size)
    other = datasets.digits((4, 9), key=4, train=0.25)
    assert other.train.points.shape == data.train.points.shape
    assert rows(other.train.points) != rows(data.train.points)
    np.testing.assert_array_equal(datasets.digits((4, 9), key=3, train=0.25).train.points, data.train.points)


def test_frequency_brightness_and_centre_of_one_class():
    plain = datasets.digits(centred=True)
    data = datasets.digits(frequencies=(0.1, 0.9), brightness=(2.0, 1.0), centred=True)
    positive = np.asarray(data.train.labels) > 0
    np.testing.assert_allclose(np.asarray(data.train.weights)[positive].sum(), 0.1)
    assert np.ptp(np.asarray(data.train.weights)[positive]) < 1e-15
    np.testing.assert_allclose(data.train.points[positive], 2 * plain.train.points[positive])
    np.testing.assert_array_equal(data.train.points[~positive], plain.train.points[~positive])
    means = [np.asarray(plain.train.points)[side].mean(0) for side in (positive, ~positive)]
    np.testing.assert_allclose(means[0], -means[1], atol=1e-14)
    raw = datasets.digits()
    np.testing.assert_allclose(raw.test.points, plain.test.points + plain.centre)


def test_the_patch_is_on_its_share_of_class_plus_and_nowhere_else():
    plain, previous = datasets.digits(), np.zeros(179, bool)
    for share in (0.0, 0.5, 0.9, 1.0):
        data = datasets.digits(patch=share, patch_value=2.0)
        positive = np.asarray(data.train.labels) > 0
        assert data.patched.sum() == round(share * positive.sum())
        assert not data.patched[~positive].any()
        assert (data.patched >= previous).all()  # nested
        previous = data.patched
        images = np.asarray(data.train.points).reshape(-1, 8, 8)
        assert (images[data.patched, :2, :2] == 2).all()
        outside = np.ones((8, 8), bool)
        outside[:2, :2] = False
        original = np.asarray(plain.train.points).reshape(-1, 8, 8)
        np.testing.assert_array_equal(images[:, outside], original[:, outside])
        np.testing.assert_array_equal(images[~data.patched], original[~data.patched])
        np.testing.assert_array_equal(data.test.points, plain.test.points)
        assert (np.asarray(data.test_patched.points).reshape(-1, 8, 8)[:, :2, :2] == 2).all()
        assert data.test_patched.size == (np.asarray(data.test.labels) > 0).sum()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pair": (3, 3)}, "two different digits from 0 to 9"),
        ({"pair": (3, 10)}, r"got \(3, 10\)"),
        ({"pair": 3}, "two different digits"),
        ({"patch": 1.5}, r"patch must be a number in \[0, 1\], got 1.5"),
        ({"train": 1.0}, r"train must be a number in \(0, 1\)"),
        ({"brightness": 2.0}, "brightness must be a pair"),
        ({"brightness": (0.0, 1.0)}, "brightness must be > 0"),
        ({"frequencies": (0.3, 0.3)}, "weights must sum to 1"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.digits(**arguments)


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    module._load.cache_clear()
    with pytest.raises(ImportError, match=r"pip install 'gradstarve\[examples\]'"):
        datasets.digits()
    monkeypatch.undo()
    assert datasets.digits().train.size == 179
