"""The rule of alarm on data without a shortcut, and on data with one: the study of benchmarks/alarms.py, in small."""

import math
import sys
from pathlib import Path

import numpy as np
import pytest

# Benchmarks are run from a clone and are no part of the installation; last, so that the installed package is the one tested.
sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.alarms import GROUPS, KINDS, at_most, false_alarm, found, interval, kernel, samples
from gradstarve.diagnosis._groups import ALARM_GAP, two_clusters


@pytest.mark.parametrize("kind", ["blobs 2", "moons"])
def test_points_in_two_dimensions_have_no_gap(kind):
    """Twenty directions of such a kernel, scaled alike, had gaps of 30 to 100."""
    for seed in range(4):
        rng = np.random.default_rng(seed)
        x, y = samples(kind, rng)
        products, _ = kernel(kind, x, rng)
        mine = np.flatnonzero(y > 0)
        gaps = [gap for _, gap in two_clusters(products[np.ix_(mine, mine)], rng)]
        assert max(gaps) < ALARM_GAP / 2


def test_one_shortcut_is_found_and_chance_is_not():
    assert found("digits", True, 1.0, 0)
    assert found("convolution", False, 2.0, 0)
    assert not any(false_alarm("digits", groups, 0) for groups in GROUPS)


def test_intervals_are_exact():
    """(1 - p)^300 = 0.025 where none of 300 raised an alarm."""
    low, high = interval(0, 300)
    assert low == 0
    assert (1 - high) ** 300 == pytest.approx(0.025)
    assert (1 - at_most(0, 300)) ** 300 == pytest.approx(0.05)
    assert at_most(0, 300) < 0.01 < at_most(0, 290)
    p = at_most(2, 50)  # two or fewer of 50 come up in 5 % of the cases
    chance = sum(math.comb(50, k) * p**k * (1 - p) ** (50 - k) for k in range(3))
    assert chance == pytest.approx(0.05)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_false_alarms_are_rare(kind):
    """Other data sets than those of the table: with a rate of 1 %, more than 4 of 100 come up once in 300 times."""
    for groups in GROUPS:
        count = sum(false_alarm(kind, groups, seed) for seed in range(10_000, 10_100))
        print(f"{kind}, {groups}: {count} of 100")
        assert count <= 4


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["digits", "convolution"])
def test_full_brightness_is_mostly_found(kind):
    assert sum(found(kind, True, 1.0, seed) for seed in range(10_000, 10_010)) >= 7
    assert sum(found(kind, False, 2.0, seed) for seed in range(10_000, 10_010)) >= 7
