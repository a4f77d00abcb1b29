"""What the report is worth on many data sets: does its order agree with training, how often is an alarm false or missed."""

import itertools

import numpy as np
import pytest
from diagnosis.patched_digits import apply, network, train, two_digits
from scipy.stats import beta

import gradstarve as gs
from gradstarve.diagnosis._after import rank_correlation


def predicted_and_measured(seed):
    """One random data set: predicted index, and after training to the horizon, against the same network trained on the
    clean images, the index of clean test images, the accuracy they lost, and what `after_training` says."""
    rng = np.random.default_rng(1000 + seed)
    plus, minus = rng.choice(10, 2, replace=False)
    fraction, brightness = rng.uniform(0.5, 0.95), rng.uniform(0.4, 2.0)
    x, y, members, clean, x_test, y_test = two_digits(plus, minus, fraction, brightness, seed)
    params = network(seed, width=128)
    report = gs.starvation_report(apply, params, (x, y), {"patch": members}, features=0)
    step_size = 0.8 / np.linalg.norm(report.kernel, 2)
    steps = int(report.horizon / step_size)
    trained, alone = (train(params, images, y, step_size, steps) for images in (x, clean))
    first, last, best = (np.asarray(apply(p, x_test) * y_test)[y_test > 0] for p in (params, trained, alone))
    index = 1 - (last - first).mean() / (best - first).mean()
    lost = (best > 0).mean() - (last > 0).mean()
    after = report.after_training(y * np.asarray(apply(trained, x)))
    law = report.groups[0]
    return law.index[law.at], index, lost, after.groups[0].index, after.rank_correlation


@pytest.mark.slow
def test_the_predicted_order_is_the_one_of_training(x64):
    table = np.array([predicted_and_measured(seed) for seed in range(20)])
    predicted, measured, lost, after, samples = table.T
    gaps = np.abs(predicted - measured)
    print(
        f"\nSpearman over 20 data sets of the predicted index and: index of clean test images "
        f"{rank_correlation(predicted, measured):.3f}, accuracy lost {rank_correlation(predicted, lost):.3f}, "
        f"index after training {rank_correlation(predicted, after):.3f}. Gap of the indices {gaps.mean():.3f}, "
        f"worst {gaps.max():.3f}. Rank correlation of samples, worst {samples.min():.3f}."
    )
    assert rank_correlation(predicted, measured) > 0.85
    assert rank_correlation(predicted, lost) > 0.8
    assert rank_correlation(predicted, after) > 0.85
    assert gaps.mean() < 0.1
    assert samples.min() > 0.8


def alarms(seed, plus, minus, fraction=0.0, brightness=0.0, groups=None):
    x, y, members, *_ = two_digits(plus, minus, fraction, brightness, 7000 + 97 * seed + 10 * plus + minus)
    params = network(100 + seed, width=128)
    kinds = None if groups is None else groups.integers(0, 2, len(y))
    report = gs.starvation_report(apply, params, (x, y), kinds, features=0)
    hits = [(law.group.members == members)[y > 0].mean() > 0.9 for law in report.alarms]
    return len(report.alarms), any(hits)


def bound(count, of):
    """The upper end of the exact one-sided 95 % interval of a rate."""
    return float(beta.ppf(0.95, count + 1, of - count)) if count < of else 1.0


@pytest.mark.slow
@pytest.mark.parametrize("named", [False, True])
def test_unpatched_digits_raise_no_alarm(x64, named):
    pairs = list(itertools.combinations(range(10), 2))
    rng = np.random.default_rng(0)
    false = [alarms(seed, *pair, groups=rng if named else None)[0] > 0 for seed in range(2) for pair in pairs]
    what, worst = "chance groups" if named else "no groups", bound(sum(false), len(false))
    print(f"\nFalse alarms, {what}: {sum(false)} of {len(false)}, a rate below {worst:.3f} at 95 % confidence")
    assert bound(sum(false), len(false)) < 0.05


@pytest.mark.slow
def test_patches_that_nobody_named_are_mostly_found(x64):
    pairs = list(itertools.combinations(range(10), 2))
    found = {share: [alarms(0, *pair, share, 1.0) for pair in pairs] for share in (0.8, 0.9)}
    for share, outcome in found.items():
        hits = sum(hit for _, hit in outcome)
        print(f"\nPatch of brightness 1 on {share:.0%} of class +: found in {hits} of {len(outcome)} pairs")
    assert sum(hit for _, hit in found[0.9]) > 35
