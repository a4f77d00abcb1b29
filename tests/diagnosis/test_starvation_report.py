"""`starvation_report` on patched and unpatched digits, by every way in, and against the training that follows."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagnosis.patched_digits import apply, network, train, two_digits

import gradstarve as gs
from gradstarve.diagnosis._after import rank_correlation
from gradstarve.ground._files import write_json


@pytest.fixture(scope="module")
def patched():
    """Threes and eights, nine tenths of the threes with a bright corner: data, who is patched, clean test set, weights."""
    jax.config.update("jax_enable_x64", True)
    data = two_digits(3, 8, 0.9, 1.0, seed=3, size=160)
    yield data, network(3)
    jax.config.update("jax_enable_x64", False)


@pytest.fixture(scope="module")
def report(patched):
    (x, y, members, *_), params = patched
    return gs.starvation_report(apply, params, (x, y), np.where(members, "patched", "plain"), features=0)


@pytest.fixture(scope="module")
def small(patched):
    """Fifty of the samples, with the eigenvectors of their kernel."""
    (x, y, members, *_), params = patched
    return gs.starvation_report(apply, params, (x[:50], y[:50]), np.where(members, "patched", "plain")[:50])


def test_the_patch_is_named_before_training(report, patched):
    (_, _, members, *_), _ = patched
    (law,) = report.alarms
    assert (law.name, law.size, law.p_value) == ("patched", members.sum(), 0.001)
    assert law.index[law.at] > 0.5
    feature, rest, alone = law.learnt_at
    assert max(feature, alone) < rest
    assert report.errors[report.at] == pytest.approx(0.05, abs=1e-3)
    assert "ALARM: 'patched'" in report.summary()
    assert "re-weight members and others alike" in report.table()


def test_and_without_its_name(report, patched):
    (x, y, members, *_), params = patched
    found = gs.starvation_report(apply, params, (x, y), features=0)
    (law,) = found.alarms
    assert (law.group.members == members)[y > 0].mean() > 0.94  # some threes have a bright corner of their own
    assert "Samples that have it" in found.summary()


def test_without_a_patch_there_is_no_alarm(patched):
    (_, y, members, clean, *_), params = patched
    unpatched = gs.starvation_report(apply, params, (clean, y), features=0)
    assert unpatched.groups
    assert not unpatched.alarms
    rng = np.random.default_rng(0)
    chance = gs.starvation_report(apply, params, (clean, y), {"chance": members[rng.permutation(len(y))]}, features=0)
    assert not chance.alarms
    assert "No alarm" in chance.summary()


def test_training_agrees(report, patched):
    (x, y, _, clean, x_test, y_test), params = patched
    step_size = 0.5 / np.linalg.norm(report.kernel, 2)
    steps = int(report.horizon / step_size)
    trained, alone = (train(params, images, y, step_size, steps) for images in (x, clean))
    after = report.after_training(trained, alone=alone)
    (group,) = after.groups
    assert group.index == pytest.approx(group.index_predicted, abs=0.15)
    assert group.carried == pytest.approx(group.carried_predicted, rel=0.15)
    assert after.rank_correlation > 0.9
    assert group.alarm
    assert group.alarm_predicted
    assert after.kernel_change > 0.1  # 64 neurons are far from the linear regime, and the indices agree all the same
    # The index of clean test images of the class, in which no part of the report is used.
    mine = y_test > 0
    gains = [np.mean((apply(p, x_test) - apply(params, x_test))[mine]) for p in (trained, alone)]
    assert 1 - gains[0] / gains[1] == pytest.approx(report.groups[0].index[report.at], abs=0.2)
    margins = report.after_training(y * np.asarray(apply(trained, x)))
    assert margins.groups[0].carried == pytest.approx(group.carried)
    assert np.isnan(margins.kernel_change)
    assert "patched" in after.table()
    write_margins = after.to_dict()
    assert write_margins["groups"][0]["name"] == "patched"


def test_before_training_nothing_is_learnt(report, patched):
    after = report.after_training(patched[1])
    assert after.time == pytest.approx(0, abs=1e-9)
    assert after.kernel_change == pytest.approx(0, abs=1e-12)
    assert after.groups[0].carried == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"trained must be parameters .* or margins y f of shape \(160,\), got dict"):
        report.after_training({"w": 1})
    with pytest.raises(ValueError, match=r"alone must be .* got \(3,\)"):
        report.after_training(patched[1], alone=np.zeros(3))
    with pytest.raises(ValueError, match=r"trained\[0\] = nan"):
        report.after_training(np.full(160, np.nan))


def test_a_jacobian_from_elsewhere_gives_the_same(small, patched):
    (x, y, members, *_), params = patched
    x, y, members = x[:50], y[:50], members[:50]
    gradients = jax.vmap(jax.grad(lambda p, one: apply(p, one[None])[0]), (None, 0))(params, x)
    rows = np.concatenate([np.asarray(leaf).reshape(len(y), -1) for leaf in jax.tree.leaves(gradients)], 1)
    types = np.where(members, "patched", "plain")
    other = gs.starvation_report.from_jacobian(rows, y, np.asarray(apply(params, x))[:, None], types, features=0)
    np.testing.assert_allclose(other.groups[0].index, small.groups[0].index, atol=1e-6)
    with pytest.raises(ValueError, match="trained must be margins y f"):
        other.after_training(params)


class Network(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear

    def __call__(self, x):
        return self.second(jax.nn.relu(self.first(x)))


@pytest.mark.slow
def test_an_equinox_model_and_a_function_of_it_agree(small, patched):
    (x, y, members, *_), params = patched
    x, y, members = x[:50], y[:50], members[:50]
    model = Network(eqx.nn.Linear(64, 64, key=jax.random.key(0)), eqx.nn.Linear(64, 1, key=jax.random.key(1)))
    weights = (params["w"], params["b"], params["z"][None], params["c"][None])
    where = lambda m: (m.first.weight, m.first.bias, m.second.weight, m.second.bias)  # noqa: E731
    model = eqx.tree_at(where, model, weights)
    groups = {"patched": members}
    ours = gs.starvation_report(model, None, (x, y), groups, features=0)
    np.testing.assert_allclose(ours.kernel, small.kernel, atol=1e-9)
    assert ours.after_training(model).time == pytest.approx(0, abs=1e-9)
    # A model of a batch, and flax's way: variables beside the function.
    variables = {"params": params}
    batch = gs.starvation_report(lambda v, x: apply(v["params"], x)[:, None], variables, (x, y), groups, features=0)
    np.testing.assert_allclose(batch.kernel, small.kernel, atol=1e-9)


@pytest.mark.slow
def test_little_memory_gives_the_same_kernel(small, patched):
    (x, y, *_), params = patched
    data = gs.Dataset(x[:50], y[:50])
    rows = 50 * 50 * 8 + 3 * 8 * 4225 * 17  # the kernel, and blocks of 17 samples
    few = gs.starvation_report(apply, params, data, memory=rows, features=0)
    np.testing.assert_allclose(few.kernel, small.kernel, atol=1e-10)


def test_the_eigenvectors_are_those_of_the_kernel(small):
    report, f, K = small, small.features, small.kernel
    np.testing.assert_allclose(K @ f.vectors, f.vectors * f.strength, atol=1e-8 * np.linalg.norm(K, 2))
    assert ((f.frequency > 0) & (f.frequency <= 1)).all()
    assert (np.diff(f.response) <= 0).all()
    assert (np.diag(f.starvation) > 0).all()  # who is stronger is learnt more
    for j, i in enumerate(f.starved_by):
        assert i == -1 or (i != j and f.starvation[j, i] < 0)
    half = np.isfinite(f.half_time)
    z = (report.margins - report.margins[0]) @ f.vectors
    for k in np.flatnonzero(half):
        assert np.interp(f.half_time[k], report.times, z[:, k]) == pytest.approx(f.response[k] / 2, rel=0.05)


@pytest.mark.slow
def test_what_is_written_and_drawn(small, patched, tmp_path):
    (x, y, *_), params = patched
    assert "Eigenvectors of the kernel" in small.table()
    write_json(tmp_path / "report.json", small.to_dict())
    assert '"patched"' in (tmp_path / "report.json").read_text()
    unnamed = gs.starvation_report(apply, params, (x[:50], y[:50]), features=0)
    write_json(tmp_path / "unnamed.json", unnamed.to_dict())
    for one, name in ((small, "a.png"), (unnamed, "b.png")):
        figure = one.plot(tmp_path / name)
        assert (tmp_path / name).stat().st_size > 30_000
        assert len(figure.axes) >= 5


def test_times_that_are_asked_for(patched):
    (x, y, members, *_), params = patched
    report = gs.starvation_report(apply, params, (x, y), {"patched": members}, times=[0.01, 0.001], features=0)
    assert report.times.tolist() == [0.0, 0.001, 0.01]
    assert report.horizon == 0.01


def test_a_network_that_can_not_learn_says_so():
    x = jnp.ones((20, 1))
    y = np.repeat([1, -1], [12, 8])  # the same sample with both labels
    report = gs.starvation_report(lambda w, x: x @ w, jnp.zeros(1), (x, y), {"some": np.arange(20) % 2}, features=0)
    assert "does not get to a mean error of 0.05" in report.notes[0]
    assert not report.alarms


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, 30), rng.normal(size=30)
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a, b).statistic)
    assert np.isnan(rank_correlation(np.ones(4), np.arange(4)))


class TestFromMargins:
    def test_of_a_run(self, report, patched):
        (x, y, members, clean, *_), params = patched
        step_size = 0.5 / np.linalg.norm(report.kernel, 2)
        runs = []
        for images in (x, clean):
            now, log = params, [y * apply(params, images)]
            for _ in range(6):
                now = train(now, images, y, step_size, int(report.horizon / step_size / 6))
                log.append(y * apply(now, images))
            runs.append(np.array(log))
        times = np.linspace(0, report.horizon, 7)
        types = np.where(members, "patched", "plain")
        logged = gs.starvation_report.from_margins(runs[0], times, types, labels=y, alone=runs[1])
        (group,) = logged.groups
        assert group.alarm
        assert group.index == pytest.approx(report.groups[0].index[report.at], abs=0.25)
        assert group.carried[-1] == pytest.approx(report.groups[0].carried[report.at], rel=0.4)
        assert "hangs on its feature" in logged.summary()
        assert "patched" in logged.table()

    def test_without_a_feature_no_alarm(self, tmp_path):
        rng = np.random.default_rng(0)
        margins = np.linspace(0, 4, 9)[:, None] * rng.uniform(0.5, 1.5, 60)
        report = gs.starvation_report.from_margins(margins, range(9), rng.integers(0, 3, 60), labels=np.ones(60))
        assert len(report.groups) == 3
        assert not report.alarms
        assert "No alarm" in report.table()
        write_json(tmp_path / "margins.json", report.to_dict())
        report.plot(tmp_path / "margins.png")
        assert (tmp_path / "margins.png").stat().st_size > 10_000

    def test_order_of_learning(self):
        t = np.linspace(0, 10, 101)
        rates = np.repeat([1.0, 0.2, 0.5], 10)
        types = np.repeat(["fast", "slow", "middle"], 10)
        report = gs.starvation_report.from_margins(np.outer(t, rates), t, types, labels=np.ones(30))
        assert [g.name for g in report.groups] == ["fast", "middle", "slow"]
        assert report.groups[0].learnt_at == pytest.approx((1.0, 1 / 0.35), rel=0.02)
        assert report.groups[0].carried[-1] == pytest.approx(10 * (1 - 0.35))
