"""Coloured digits: what the data are, and the law on their class means beside training."""

import numpy as np
import pytest

from gradstarve.problem import datasets
from gradstarve.studies.coloured import coloured_study


def test_the_colour_agrees_as_often_as_it_is_told():
    data = datasets.coloured_digits(0.9, colour=2.0, stripes=0.2, stripe_agreement=0.7)
    plain = datasets.coloured_digits(0.9, colour=2.0)
    for split, agrees, striped, shares in (
        (data.train, data.agrees, data.striped, (0.9, 0.7)),
        (data.test, data.agrees_test, data.striped_test, (0.5, 0.5)),
    ):
        y = np.asarray(split.labels)
        np.testing.assert_array_equal(np.asarray(split.points)[:, 64], np.where(agrees, 2 * y, -2 * y))
        for sign in (1, -1):
            count = (y == sign).sum()
            assert agrees[y == sign].sum() == round(shares[0] * count)
            assert striped[y == sign].sum() == round(shares[1] * count)
    means = [np.asarray(data.train.points)[np.asarray(data.train.labels) == sign, :64].mean(0) for sign in (1, -1)]
    np.testing.assert_allclose(means[0], -means[1], atol=1e-6)
    # Stripes are in every other column, and only there.
    change = np.asarray(data.train.points) - np.asarray(plain.train.points)
    change = change[:, :64].reshape(-1, 8, 8)
    assert np.abs(change[:, :, 1::2]).max() < 1e-6 < np.abs(change[:, :, ::2]).max()
    np.testing.assert_array_equal(data.agrees, plain.agrees)


def test_bad_numbers():
    with pytest.raises(ValueError, match="agreement"):
        datasets.coloured_digits(1.0)
    with pytest.raises(ValueError, match="colour"):
        datasets.coloured_digits(0.9, colour=0.0)
    with pytest.raises(ValueError, match="seeds must be an integer >= 2"):
        coloured_study(seeds=1)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_margin_control_unlearns_the_colour():
    study = coloured_study(agreements=(0.8,), losses=("cross-entropy", "hinge"), seeds=3, width=4, progress=False)
    plain, hinge = (study.reading(0.8, name) for name in ("cross-entropy", "hinge"))
    assert hinge.law_side[0] == pytest.approx(0, abs=1e-9)
    assert hinge.side[2] < hinge.peak[1]
    assert hinge.side[2] < plain.side[1]
    assert hinge.worst[1] > plain.worst[0]
    assert len(study.table().splitlines()) == 4
    assert ("p = 0.8, hinge: the shortcut is partly unlearnt by the end", True) in study.claims()
    assert all(not holds for text, holds in study.claims() if "is that of the law" in text)
