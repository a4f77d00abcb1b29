"""What cannot be told is said to be so: ratios of rounding errors raise no alarm, and parts that fail are left out."""

import json

import jax
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.diagnosis import _report as report_module
from gradstarve.diagnosis._groups import two_clusters
from gradstarve.ground import ConvergenceError

LINEAR = lambda w, x: x @ w  # noqa: E731


def mirrored(seed=0, n=40, d=10):
    """Every sample with both labels: K 1 = 0, so that no margin ever moves."""
    rng = np.random.default_rng(seed)
    y = np.repeat([1, -1], n // 2)
    x = 0.1 * rng.normal(size=(n, d))
    x[:, 0] += y * 0.5
    spot = np.zeros(n, bool)
    spot[: int(0.45 * n)] = True
    x[spot, d - 1] += 3
    return np.concatenate([x, x]).astype("float32"), np.concatenate([y, -y]), np.concatenate([spot, spot])


@pytest.mark.parametrize(("named", "seed"), [(True, 0), (True, 1), (False, 0)])
def test_no_alarm_where_labels_cancel(named, seed):
    x, y, spot = mirrored(seed)
    groups = {"spot": spot} if named else None
    report = gs.starvation_report(LINEAR, np.zeros(10, "float32"), (x, y), groups, features=3 * (seed == 1), permutations=99)
    assert report.alarms == ()
    # The products of a model in 32 bits are exact to their rounding, and so is what cancels.
    rounding = np.finfo(np.float32).eps * np.abs(report.kernel).sum(1).max() * report.times
    assert (np.abs(report.margins).max(1) <= rounding).all()
    if named:
        (law,) = report.groups
        assert np.isnan(law.index[1:]).all()
        assert law.index[0] == 0
        assert "no starvation index can be told" in report.summary()
        assert "index of 'spot' cannot be told" in report.summary()
        assert all(np.isnan(outcome.index) for outcome in report.remedies)
    assert "nan" not in report.table()
    report.plot()
    after = report.after_training(report.margins[report.at])
    assert not any(group.alarm or group.alarm_predicted for group in after.groups)
    json.dumps(report.to_dict(), allow_nan=False)
    json.dumps(after.to_dict(), allow_nan=False)


@pytest.mark.slow
def test_a_kernel_may_be_large_or_small():
    """The index does not depend on the unit of the gradients, nor does whether it can be told."""
    x, y, spot = mirrored()
    for (rows, labels, members), told in (((x, y, spot), False), ((x[:40], y[:40], spot[:40]), True)):
        found = []
        for scale in (1e-12, 1.0, 1e12):
            report = gs.starvation_report.from_jacobian(
                scale * rows.astype(float), labels, groups={"spot": members}, features=0, permutations=99
            )
            found.append(report.groups[0].index[report.at])
        assert np.isfinite(found).all() == told
        if told:
            np.testing.assert_allclose(found, found[1], rtol=1e-6)


def test_samples_that_are_all_alike_have_no_clusters():
    x = np.tile(np.random.default_rng(0).normal(size=7) / 3, (40, 1))
    assert two_clusters(x @ x.T, np.random.default_rng(0)) == []


def test_measured_margins_that_do_not_move():
    """Rounding of logged margins is no reliance and no index, whatever the group."""
    rng = np.random.default_rng(0)
    members = np.arange(60) % 3 == 0
    noise = 1e-7 * rng.normal(size=(4, 60)) + 1e-6 * members * np.arange(4)[:, None]
    margins = (3 * rng.normal(size=60) + noise).astype("float32")
    report = gs.starvation_report.from_margins(margins, range(4), {"g": members}, labels=np.ones(60), alone=margins)
    assert report.alarms == ()
    assert np.isnan(report.groups[0].index)
    assert report.groups[0].reliance == 0
    json.dumps(report.to_dict(), allow_nan=False)


def test_a_summary_of_others_who_lose():
    """Members gain 2 and the others lose 0.1: in margins, not as 105 % of anything."""
    t = np.linspace(0, 1, 5)
    margins = np.outer(t, np.r_[np.linspace(1.9, 2.1, 20), np.linspace(-0.12, -0.08, 20)])
    report = gs.starvation_report.from_margins(margins, t, ["a"] * 20 + ["b"] * 20, labels=np.ones(40))
    assert "of its members have gained 2, those of the others in its class have lost 0.1." in report.summary()
    assert "%" not in report.summary().partition("feature:")[2]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 4])
def test_blobs_of_200_points_in_32_bits(seed):
    """A kernel of few features, computed in 32 bits: has small negative eigenvalues, and rows that depend on others."""
    rng = np.random.default_rng(seed)
    y = np.repeat([1, -1], 100)
    x = (rng.normal(size=(200, 2)) * 0.5 + y[:, None] * [1, 0]).astype(np.float32)
    network = gs.init_two_layer(jax.random.key(seed), (), 64, 2)
    report = gs.starvation_report(lambda p, x: p(x), network, (x, y), features=4, permutations=99)
    assert report.features is not None
    assert report.features.response.dtype == np.float64
    assert np.isfinite(report.features.starvation).all()


def test_a_part_that_fails_is_left_out(monkeypatch):
    def fails(*_):
        raise ConvergenceError("the optimum under the ridge was not found")

    monkeypatch.setattr(report_module, "eigen_features", fails)
    x, y, spot = (part[:40] for part in mirrored())
    report = gs.starvation_report(LINEAR, np.zeros(10, "float32"), (x, y), {"spot": spot}, permutations=99)
    assert report.features is None
    assert [law.name for law in report.groups] == ["spot"]
    assert "The eigenvectors of the kernel are left out: the optimum under the ridge was not found." in report.table()


def test_what_rounding_decides_is_undecided():
    """One point with both labels: the kernel is constant, and every logit is 0 but for the order of its sums."""
    y = np.repeat([1, -1], 10)
    report = gs.starvation_report.from_kernel(0.7 * np.ones((20, 20)), y, features=0)
    assert [cell.undecided for cell in report.heldout.cells] == [1, 1]
    assert [cell.accuracy[-1] for cell in report.heldout.cells] == [0.5, 0.5]
    assert "Undecided: the logits of 100 % of the samples of the cell 'class +'" in report.summary()
    # Three classes of one point, and points that are apart.
    three = np.repeat([0, 1, 2], 5)
    report = gs.starvation_report.from_kernel(0.7 * np.ones((15, 15)), three, features=0)
    assert all(cell.undecided == 1 for cell in report.heldout.cells)
    report = gs.starvation_report.from_kernel(np.outer(y, y) + np.eye(20), y, features=0)
    assert all(cell.undecided == 0 and cell.accuracy[-1] == 1 for cell in report.heldout.cells)
    assert "Undecided" not in report.summary()
    assert len(repr(report.heldout.worst)) < 300


def test_margins_of_three_classes():
    """Class by class: of class 2 the red ones are learnt by their colour, of the others no colour is."""
    rng = np.random.default_rng(0)
    index, t = np.repeat([0, 1, 2], 30), np.linspace(0, 1, 5)
    red = np.where(index == 2, np.arange(90) % 30 < 24, np.arange(90) % 30 < 6)
    rates = 0.5 + 0.1 * rng.normal(size=90) + 4 * (red & (index == 2))
    margins = np.outer(t, rates) - np.log(2)
    report = gs.starvation_report.from_margins(margins, t, {"red": red}, labels=index)
    laws = {group.name: group for group in report.groups}
    assert set(laws) == {"red of class 2"}  # in the others it is rarer than elsewhere
    assert laws["red of class 2"].alarm
    mine = index == 2
    gap = rates[mine & red].mean() - rates[mine & ~red].mean()
    assert laws["red of class 2"].carried[-1] == pytest.approx(gap)
    assert laws["red of class 2"].share == pytest.approx(0.8)
    types = gs.starvation_report.from_margins(margins, t, np.where(red, "red", "blue"), labels=index)
    assert [group.name for group in types.alarms] == ["red of class 2"]
    with pytest.raises(ValueError, match="no sample is of class 1; number the classes anew"):
        gs.starvation_report.from_margins(margins, t, {"red": red}, labels=np.where(index == 1, 2, index))
