"""The law of a group where it can be known: orthogonal features in a linear model, whose logits obey (10.1)."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import expit

from gradstarve.diagnosis import from_margins
from gradstarve.diagnosis._groups import group_law, make_group, reaches, strength_p, without_complements
from gradstarve.diagnosis._remedies import Remedies, balanced_weights
from gradstarve.diagnosis._report import diagnose
from gradstarve.diagnosis._training import train_linearised


def patched_shapes(patched, plain, shape, patch, others=12):
    """Class +: `plain` samples of the shape r_1 e_1, `patched` ones of r_1 e_1 + r_2 e_2; class -: `others` samples e_3."""
    rows = np.zeros((patched + plain + others, 3))
    rows[: patched + plain, 0] = shape
    rows[:patched, 1] = patch
    rows[patched + plain :, 2] = 1
    labels = np.repeat([1.0, -1.0], [patched + plain, others])
    members = np.arange(len(rows)) < patched
    return rows, labels, members


def reduced(patched, plain, shape, patch, times):
    """v_1 (shape) and v_2 (patch) of (10.1), one layer, the loss summed over samples."""

    def field(_, v):
        both, alone = expit(-v[0] - v[1]), expit(-v[0])
        return shape**2 * (patched * both + plain * alone), patch**2 * patched * both

    return solve_ivp(field, (0, times[-1]), [0.0, 0.0], "DOP853", times, rtol=1e-11, atol=1e-13).y


@pytest.mark.parametrize("seed", range(8))
def test_orthogonal_features_obey_10_1(seed):
    rng = np.random.default_rng(seed)
    patched, plain = int(rng.integers(2, 30)), int(rng.integers(2, 30))
    shape, patch = rng.uniform(0.2, 2, 2)
    rows, labels, members = patched_shapes(patched, plain, shape, patch)
    kernel = (labels[:, None] * rows) @ (labels[:, None] * rows).T
    times = np.concatenate([[0.0], np.geomspace(0.01, 30, 12)])
    margins = train_linearised(kernel, np.zeros(len(rows)), times)
    law = group_law(make_group("patch", members, labels, (1,)), kernel, labels, margins, times, at=12)
    together = reduced(patched, plain, shape, patch, times)
    alone = reduced(patched, plain, shape, 0.0, times)[0]
    np.testing.assert_allclose(law.rest, together[0], atol=2e-4)
    np.testing.assert_allclose(law.carried, together[1], atol=2e-4)
    np.testing.assert_allclose(law.rest_alone, alone, atol=2e-4)
    np.testing.assert_allclose(law.index[1:], 1 - together[0][1:] / alone[1:], atol=2e-3)
    # v where the patch is all there is: e^v + v = 1 + r_2^2 n t, (3.9).
    v = law.carried_alone
    np.testing.assert_allclose(v + np.exp(v) - 1, patch**2 * patched * times, rtol=2e-3, atol=1e-4)
    assert law.strength == pytest.approx(patch**2 / np.mean((rows**2).sum(1)))
    assert law.share == patched / (patched + plain)


def test_more_frequent_and_stronger_patches_starve_more():
    indices = []
    for patched, patch in ((10, 1.0), (18, 1.0), (18, 3.0)):
        rows, labels, members = patched_shapes(patched, 20 - patched, 1.0, patch)
        rows = labels[:, None] * rows
        indices.append(diagnose(rows @ rows.T, np.zeros(len(rows)), labels, {"patch": members}, features=0).groups[0])
    indices = [law.index[law.at] for law in indices]
    assert 0 < indices[0] < indices[1] < indices[2] < 1


def test_a_feature_and_the_rest_add_up_to_the_margin():
    rng = np.random.default_rng(0)
    labels, members = np.repeat([1.0, -1.0], 20), rng.random(40) < 0.5
    group = make_group("g", members, labels, (1, -1))
    margins = rng.normal(size=40)
    rest = group.removal(labels) @ margins
    v = group.contrast @ margins
    table = np.stack([members, labels > 0, labels < 0], 1)
    np.testing.assert_allclose(rest + labels * v * members, margins)
    # The contrast is the difference of means, pooled over classes, and blind to what a class has in common.
    assert abs(group.contrast @ (labels * (labels > 0))) < 1e-12
    assert v == pytest.approx(np.linalg.lstsq(table, labels * margins, rcond=None)[0][0])


def test_tags_beside_it_are_held_fixed():
    rng = np.random.default_rng(1)
    labels = np.repeat([1.0, -1.0], 30)
    first = rng.random(60) < 0.5
    second = first ^ (rng.random(60) < 0.2)  # mostly together
    rows = np.outer(first, [3.0, 0, 0]) + 0.01 * rng.normal(size=(60, 3)) + np.outer(labels, [0, 0, 1.0])
    kernel = (labels[:, None] * rows) @ (labels[:, None] * rows).T
    report = diagnose(kernel, np.zeros(60), labels, {"real": first, "shadow": second}, features=0)
    strengths = {law.name: law.strength for law in report.groups}
    assert strengths["real"] > 100 * strengths["shadow"]


def test_what_can_not_be_told_is_said():
    rng = np.random.default_rng(2)
    labels = np.repeat([1.0, -1.0], 20)
    rows = rng.normal(size=(40, 5)) * labels[:, None]
    same = rng.random(40) < 0.5
    tags = {"class": labels > 0, "one": same, "two": same}
    report = diagnose(rows @ rows.T, np.zeros(40), labels, tags, features=0)
    assert report.groups == ()
    notes = " ".join(report.notes)
    assert "Nothing can be said about 'class': no class has two samples inside of it and two outside" in notes
    assert "it always comes together with other groups" in notes
    assert "nothing can be said about starvation" in report.summary()
    assert report.plot() is not None


def test_chance_groups_have_uniform_p_values():
    rng = np.random.default_rng(3)
    labels = np.repeat([1.0, -1.0], 15)
    rows = rng.normal(size=(30, 6))
    kernel = (labels[:, None] * rows) @ (labels[:, None] * rows).T
    p = []
    for _ in range(300):
        members = np.zeros(30, bool)
        members[rng.permutation(15)[: rng.integers(3, 12)]] = True
        p += strength_p([make_group("g", members, labels, (1,))], [kernel], labels, rng, 99)
    for level in (0.05, 0.2, 0.5):
        expected = 300 * level
        assert abs((np.array(p) <= level).sum() - expected) < 4 * np.sqrt(expected * (1 - level))


def test_many_chance_groups_have_one_level():
    """The smallest of the p-values of eight groups is below a level no more often than the level says."""
    rng = np.random.default_rng(4)
    labels = np.repeat([1.0, -1.0], 20)
    rows = rng.normal(size=(40, 5)) * [4, 1, 1, 1, 1]
    kernel = (labels[:, None] * rows) @ (labels[:, None] * rows).T
    least = []
    for _ in range(200):
        groups = [make_group("g", rng.random(40) < rng.uniform(0.2, 0.8), labels, (1, -1)) for _ in range(8)]
        least.append(min(strength_p(groups, [kernel] * 8, labels, rng, 99)))
    for level in (0.05, 0.2):
        assert (np.array(least) <= level).sum() <= 200 * level + 4 * np.sqrt(200 * level * (1 - level))
        assert (np.array(least) <= level).sum() >= 200 * level - 4 * np.sqrt(200 * level * (1 - level))
    # A feature among chance groups keeps the least p-value that there is.
    rows[:, 4] += 9 * (members := rng.random(40) < 0.5)
    kernel = (labels[:, None] * rows) @ (labels[:, None] * rows).T
    groups.append(make_group("real", members, labels, (1, -1)))
    *chance, real = strength_p(groups, [kernel] * 9, labels, rng, 99)
    assert real == 0.01
    assert min(chance) > 0.01


def two_backgrounds(share_plus, share_minus, seed=0, n=120):
    """Labels, whether the ground is water, kernel: a class direction, a ground, and noise."""
    rng = np.random.default_rng(seed)
    labels = np.repeat([1.0, -1.0], n // 2)
    water = np.where(labels > 0, rng.random(n) < share_plus, rng.random(n) < share_minus)
    rows = 0.5 * rng.normal(size=(n, 20))
    rows[:, 0] += labels
    rows[:, 1] += 3.0 * (2 * water - 1)
    rows = labels[:, None] * rows
    return labels, water, rows @ rows.T


def laws_of(kernel, labels, groups):
    report = diagnose(kernel, np.zeros(len(labels)), labels, groups, features=0, permutations=199)
    return report, {law.name: law for law in report.groups}


def test_codings_of_one_attribute_give_one_law():
    """Water; agrees or conflicts; cells: named in any way, a background that agrees with the label on 90 % is found."""
    labels, water, kernel = two_backgrounds(0.9, 0.1)
    agree = water == (labels > 0)
    report, laws = laws_of(kernel, labels, {"water": water})
    index = laws["water"].index[report.at]
    assert laws["water"].alarm
    assert not report.notes
    cells = [f"{'bird' if y > 0 else 'fish'} on {'water' if w else 'land'}" for y, w in zip(labels, water, strict=True)]
    numbers = np.where(labels > 0, 2, 0) + water  # as in Waterbirds
    for groups, name, said in (
        ({"agree": agree}, "agree", "agree with their label"),
        (np.where(agree, "agree", "conflict"), "agree", "agree with their label"),
        (cells, "bird on water / fish on water", "The groups are cells"),
        (numbers, "3 / 1", "The groups are cells"),
    ):
        report, laws = laws_of(kernel, labels, groups)
        assert said in report.notes[0]
        assert laws[name].alarm
        assert laws[name].favours == 1
        assert laws[name].index[report.at] == pytest.approx(index, abs=1e-9)


def test_a_class_of_which_all_samples_agree():
    """Class - is on land throughout: agreement, conflict and the background are one and the same."""
    labels, water, kernel = two_backgrounds(0.88, 0.0)
    agree = water == (labels > 0)
    assert agree[labels < 0].all()
    report, laws = laws_of(kernel, labels, {"water": water})
    index = laws["water"].index[report.at]
    assert laws["water"].alarm
    assert not report.notes
    for groups, name in (
        ({"agree": agree}, "agree"),
        ({"conflict": ~agree}, "no conflict"),
        (np.where(agree, "agree", "conflict"), "agree"),
        ({"land": ~water}, "no land"),
    ):
        report, laws = laws_of(kernel, labels, groups)
        assert bool(report.notes) == ("land" not in groups)
        assert laws[name].alarm
        assert laws[name].favours == 1
        assert laws[name].index[report.at] == pytest.approx(index, abs=1e-9)


def test_cells_of_an_attribute_without_a_part_in_the_label_raise_no_alarm():
    """A real background, as frequent in both classes: cells are one feature that helps neither class."""
    for seed in range(3):
        labels, water, kernel = two_backgrounds(0.5, 0.5, seed)
        report, laws = laws_of(kernel, labels, np.where(labels > 0, 2, 0) + water)
        assert set(laws) <= {"3 / 1", "2 / 0"}
        assert not report.alarms
        assert min(law.p_value for law in laws.values()) <= 0.005


def test_a_type_and_its_complement_are_one_feature():
    rows, labels, members = patched_shapes(18, 4, 1.0, 2.0)
    rows = labels[:, None] * rows
    report = diagnose(rows @ rows.T, np.zeros(len(rows)), labels, np.where(members, "patched", "plain"), features=0)
    assert [law.name for law in report.groups] == ["patched"]
    assert report.groups[0].group.against == "plain"
    assert report.groups[0].favours == 1
    swapped = diagnose(rows @ rows.T, np.zeros(len(rows)), -labels, np.where(members, "patched", "plain"), features=0)
    assert swapped.groups[0].favours == -1
    np.testing.assert_allclose(swapped.groups[0].carried, report.groups[0].carried)
    assert without_complements([], labels) == []


def test_remedies_at_the_horizon():
    rows, labels, members = patched_shapes(28, 2, 1.0, 2.0)
    rows = labels[:, None] * rows
    kernel = rows @ rows.T
    report = diagnose(kernel, np.zeros(len(rows)), labels, {"patch": members}, features=0)
    law, outcomes = report.groups[0], {o.remedy: o for o in report.remedies}
    assert law.alarm
    assert outcomes["none"].index == pytest.approx(law.index[law.at])
    assert outcomes["remove the feature"].index == 0
    weighted = outcomes["re-weight members and others alike"]
    assert weighted.index < law.index[law.at] - 0.2
    weights = balanced_weights(law.group, labels)
    assert weights[members].sum() == pytest.approx(weights[~members & (labels > 0)].sum())
    assert weights[labels > 0].sum() == pytest.approx((labels > 0).sum())
    exact = train_linearised(kernel, np.zeros(len(rows)), np.array([report.horizon]), weights=weights)[0]
    assert weighted.rest == pytest.approx(exact[28], abs=1e-4)  # a plain sample of class + is all rest
    again = Remedies(kernel, labels, report.margins, report.times, report.at, 1 / report.horizon, 0.02).outcomes(law)
    assert {o.remedy: o for o in again} == outcomes


def test_when_a_curve_reaches_a_level():
    times = np.array([0.0, 1.0, 100.0])
    assert reaches(times, np.array([0.0, 1.0, 3.0]), 2.0) == pytest.approx(10.0)
    assert reaches(times, np.array([0.0, 1.0, 3.0]), 4.0) == np.inf
    assert reaches(times, np.array([5.0, 6.0, 7.0]), 4.0) == 0.0


def test_a_feature_of_both_classes_starves_each_by_its_own_sign():
    """Light on nine tenths of class + and dark on nine tenths of class -: each is the short cut of its class."""
    rng = np.random.default_rng(4)
    labels = np.repeat([1.0, -1.0], 40)
    light = np.where(labels > 0, np.arange(80) % 10 > 0, np.arange(80) % 10 == 0)
    rows = np.stack([labels > 0, labels < 0, 2.0 * light, np.ones(80)], 1) + 0.05 * rng.normal(size=(80, 4))
    rows = labels[:, None] * rows
    report = diagnose(rows @ rows.T, np.zeros(80), labels, np.where(light, "light", "dark"), features=0)
    laws = {law.name: law for law in report.groups}
    assert (laws["light"].favours, laws["dark"].favours) == (1, -1)
    assert all(law.alarm and law.share == 0.9 for law in laws.values())
    # The curves of training say the same: the dark ones of class + and the light ones of class - are left behind.
    times = np.linspace(0, report.horizon, 20)
    margins = train_linearised(rows @ rows.T, np.zeros(80), times)
    logged = from_margins(margins, times, np.where(light, "light", "dark"), labels=labels)
    assert {g.name for g in logged.alarms} == {"light", "dark"}
    for g in logged.groups:
        assert g.carried[-1] == pytest.approx(laws[g.name].carried[report.at], rel=0.01)
