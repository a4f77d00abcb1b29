"""The parts of `gradstarve digits`: training, statistics, the convolutional network, claims; all of it in a slow test."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal, stats

from gradstarve.problem import Dataset, GradientDescent
from gradstarve.simulation import simulate
from gradstarve.studies.digits import patch as digits_patch
from gradstarve.studies.digits import speed as digits_speed
from gradstarve.studies.digits import study as digits
from gradstarve.studies.digits.convolution import Convolutional, convolutional
from gradstarve.studies.digits.plots import draw
from gradstarve.studies.digits.train import crossing, interval, networks, problems, slopes, train

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def small():
    """Settings of a few seconds: two seeds, narrow networks, the patch on none, most and all of class +."""
    changed = {"width": 16, "fractions": [0.0, 0.9, 1.0], "patch_time": 40.0, "records": 8, "step_size": 0.5}
    return digits.settings(quick=True, seeds=2) | changed


def test_all_seeds_at_once_are_each_seed_by_itself(small):
    data, start = problems(small, patch=0.9), networks(small, 0.1)
    run = train(data, start, "cross-entropy", 0.5, 40.0, 8, weights=digits_patch.balanced)
    np.testing.assert_allclose(run.time, np.arange(9) * 5.0)
    assert not np.array_equal(data[0].train.points, data[1].train.points)
    for i, one in list(enumerate(data))[1:]:
        weighted = Dataset(one.train.points, one.train.labels, digits_patch.balanced(one))
        alone = simulate(
            weighted,
            start[i],
            "cross-entropy",
            GradientDescent(0.5),
            80,
            record_every=10,
            record_networks=True,
            engine="reference",
        )
        np.testing.assert_allclose(run.train[i], alone.margins(), atol=1e-10)
        np.testing.assert_allclose(run.test[i], one.test.labels * alone.network()(one.test.points), atol=1e-10)
        np.testing.assert_allclose(run.test_patched[i], alone.network()(one.test_patched.points), atol=1e-10)
        right = np.asarray(alone.final(one.test.points)) * np.asarray(one.test.labels) > 0
        positive = np.asarray(one.test.labels) > 0
        assert run.clean_positive[i, -1] == right[positive].mean()
        assert run.clean[i, -1] == pytest.approx((right[positive].mean() + right[~positive].mean()) / 2)
        error = np.sum(np.asarray(jax.nn.sigmoid(-alone.margins(80))) / weighted.size)
        assert run.error()[i, -1] == pytest.approx(error)


def test_statistics_against_scipy_and_numpy():
    draw_ = np.random.default_rng(0)
    values = draw_.normal(size=(7, 3))
    mean, low, high = interval(values)
    reference = stats.t.interval(0.95, 6, values.mean(0), stats.sem(values))
    np.testing.assert_allclose((low, high), reference)
    np.testing.assert_allclose(mean, values.mean(0))
    times = np.exp(draw_.normal(size=(5, 4)))
    x = np.exp(draw_.normal(size=5))
    found = [np.polyfit(np.log(x), np.log(column), 1)[0] for column in times.T]
    np.testing.assert_allclose(slopes(x, times), found)
    grid = np.linspace(0, 3, 13)
    curves = np.stack([grid**2, 3 * grid, -grid, 5 + grid])
    level = 2.2
    expected = [np.interp(level, curves[0], grid), level / 3, np.nan, 0.0]
    np.testing.assert_allclose(crossing(grid, curves, level), expected)


def test_where_an_error_curve_bends():
    time = np.linspace(0, 10, 201)
    sigmoid = 0.5 / (1 + np.exp(2 * (time - 4)))
    lazy = 0.5 * np.exp(-time)
    twice = (0.5 / (1 + np.exp(4 * (time - 2))) + 0.5 / (1 + np.exp(4 * (time - 7)))) / 2
    start, bends, height = digits_speed.bend(time, np.stack([sigmoid, lazy, twice]))
    assert bends.tolist() == [1, 0, 3]
    assert start[0] < 0.01 < 0.9 < start[1]
    assert height[0] == pytest.approx(0.25, abs=0.01)


def test_predicted_times_are_those_of_training_on_the_two_mean_images(small):
    """The closed form on a line, for all seeds at once, against descent on the mean images themselves."""
    data = problems(small, centred=True, frequencies=(0.3, 0.7), brightness=(2.0, 1.0))
    start = networks(small, 0.05)
    predicted = digits_speed.predicted_times(data, start, "cross-entropy", 0.25)
    for i, one in enumerate(data[:1]):
        points, labels = np.asarray(one.train.points), np.asarray(one.train.labels)
        means = [points[labels == label].mean(0) for label in (1, -1)]
        pair = Dataset(means, [1, -1], [0.3, 0.7])
        margins = np.asarray(simulate(pair, start[i], "cross-entropy", GradientDescent(0.25), 400).margins())
        reached = margins[-1] >= 1
        first = np.where(reached, 0.25 * (margins >= 1).argmax(0), np.inf)
        np.testing.assert_allclose(predicted[:, i], first, atol=1e-9)


def test_the_convolutional_network_is_what_scipy_computes():
    draw_ = np.random.default_rng(3)
    first, second, read_out = (draw_.normal(size=shape) for shape in ((2, 9, 3), (2, 27, 4), (2, 16)))
    images = draw_.normal(size=(2, 64))
    outputs = Convolutional(jnp.asarray(first), jnp.asarray(second), jnp.asarray(read_out))(jnp.asarray(images))
    assert outputs.shape == (2, 2)
    for i, image in enumerate(images):
        hidden = image.reshape(8, 8, 1)
        for kernels in (first[1], second[1]):
            kernels = kernels.reshape(3, 3, hidden.shape[-1], -1)
            layer = np.zeros((*np.array(hidden.shape[:2]) // 2, kernels.shape[-1]))
            for c, k in np.ndindex(kernels.shape[2:]):
                layer[..., k] += signal.correlate2d(hidden[..., c], kernels[..., c, k], mode="same")[::2, ::2]
            hidden = np.maximum(layer, 0)
        assert outputs[1, i] == pytest.approx(hidden.reshape(-1) @ read_out[1])


@pytest.mark.slow
def test_the_convolutional_network_is_that_of_equinox():
    nets = convolutional(jax.random.key(1), 2, 4, 1.0)
    images = jax.random.normal(jax.random.key(2), (5, 64), jnp.float32)
    outputs = eqx.filter_jit(nets)(images)
    assert outputs.shape == (2, 5)
    for i in (1,):
        net = nets[i]
        layers = []
        for kernels, channels in ((net.first, 1), (net.second, 4)):
            layer = eqx.nn.Conv2d(channels, 4, 3, stride=2, padding=1, use_bias=False, key=jax.random.key(0))
            weight = kernels.reshape(3, 3, channels, 4).transpose(3, 2, 0, 1)
            layers.append(eqx.tree_at(lambda one: one.weight, layer, weight))

        def by_equinox(image, layers=layers, net=net):
            hidden = image.reshape(1, 8, 8)
            for layer in layers:
                hidden = jax.nn.relu(layer(hidden))
            return hidden.transpose(1, 2, 0).reshape(-1) @ net.read_out

        np.testing.assert_allclose(outputs[i], jax.jit(jax.vmap(by_equinox))(images), rtol=2e-5, atol=2e-6)


def test_weights_and_changed_training_sets(small):
    one = problems(small, patch=0.9)[0]
    weights, labels = digits_patch.balanced(one), np.asarray(one.train.labels)
    clean = ~one.patched & (labels > 0)
    assert weights[one.patched].sum() == pytest.approx(weights[clean].sum())
    np.testing.assert_allclose(weights[labels < 0], np.asarray(one.train.weights)[labels < 0])
    assert weights.sum() == pytest.approx(1)
    left = digits_patch._without(one)
    assert left.train.size == (~one.patched).sum()
    both = digits_patch._on_both(one, 0.9)
    corner = np.asarray(both.train.points).reshape(-1, 8, 8)[:, :2, :2].min((1, 2))
    assert (corner == 1)[labels < 0].sum() == round(0.9 * (labels < 0).sum())
    rare = digits_speed.fewer(one, 0.1)
    assert np.mean(np.asarray(rare.train.labels) > 0) == pytest.approx(0.1, abs=0.01)


def test_starvation_small_enough_for_every_day(small, tmp_path):
    told = []
    found = digits_patch.starvation(small, told.append)
    assert len(told) == 3
    runs = found["runs"]
    finals = [runs[fraction]["clean"][:, -1].mean() for fraction in small["fractions"]]
    assert finals[0] > 0.93 > finals[2]
    falls = found["claims"][0]
    assert falls.holds == bool(np.all(np.diff(finals) < 0))
    figure = draw("starvation", found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert [axes.get_ylabel() for axes in figure.axes] == ["accuracy (%)", "accuracy (%)"]
    again = digits_patch.starvation(small, told.append)
    np.testing.assert_array_equal(again["runs"][0.9]["clean"], runs[0.9]["clean"])


def made_up(final):
    """Runs that end at the accuracies `final`, by fraction, with a little noise over ten seeds."""
    noise = np.linspace(-0.002, 0.002, 10)[:, None]
    runs = {}
    for fraction, value in final.items():
        curve = np.full((10, 3), value) + noise
        learnt = {"clean": np.full(10, 20.0) + noise[:, 0], "patched": np.full(10, 5.0)}
        runs[fraction] = {"time": np.arange(3.0), "clean": curve, "patched": np.ones((10, 3)), "learnt": learnt}
    return runs


def test_verdicts_follow_the_numbers():
    holds = digits_patch.starvation_claims(made_up({0.0: 0.98, 0.9: 0.9, 1.0: 0.5}), "c", "x")
    assert [claim.verdict for claim in holds] == ["holds"] * 4
    runs = made_up({0.0: 0.9, 0.9: 0.95, 1.0: 0.5})
    runs[0.9]["learnt"]["clean"] = runs[0.9]["learnt"]["patched"] - 1
    runs[1.0]["patched"] = np.full((10, 3), 0.9)
    assert [c.verdict for c in digits_patch.starvation_claims(runs, "c", "x")] == ["does not hold"] * 4
    rows = {"label": "", "frequency": 0.5, "norm": np.ones(5)}
    spread = 1 + np.linspace(-0.01, 0.01, 5)
    for power, verdict in ((-1.0, "holds"), (-0.5, "does not hold")):
        sweep = [
            {**rows, "frequency": p, "margin": 30 * p**power * spread, "error": 40 * p**power * spread, "other": 9 * spread}
            for p in (0.5, 0.25, 0.1)
        ]
        names = ("weights", "fewer images", "brightness", "weights, raw pixels", "brightness, raw pixels")
        sweeps = {name: [dict(row, predicted=row["margin"] * 1.05) for row in sweep] for name in names}
        fits = {name: digits_speed._fits(found) for name, found in sweeps.items()}
        claims = digits_speed._speed_claims(sweeps, fits)
        assert {claim.verdict for claim in claims[:10]} == {verdict}
        assert [claim.verdict for claim in claims[10:]] == ["holds", "holds"]


def test_bad_settings():
    with pytest.raises(ValueError, match="seeds must be >= 2"):
        digits.settings(seeds=1)


MUST_HOLD = (
    "the error is sigmoidal",
    "hinge reaches margin 1 first",
    "time to margin 1 as 1/(p r), p by weights: slope",
    "time to margin 1 as 1/(p r), r by brightness: slope",
    "one hidden layer: clean accuracy falls",
    "best in training recovers most, 0.95 patched, t = 2",
    "convolutional: clean accuracy falls",
)


@pytest.mark.slow
def test_the_claims_of_the_quick_run(tmp_path):
    """Everything that `gradstarve digits --quick` says: what must hold does, and what raw pixels break is said."""
    results = digits.run(digits.settings(quick=True))
    claims = [claim for claim in digits.claims(results) if not claim.detail]
    for start in MUST_HOLD:
        found = [claim for claim in claims if claim.claim.startswith(start)]
        assert found, start
        assert all(claim.holds for claim in found), [(claim.claim, claim.measured) for claim in found]
    raw = [claim for claim in claims if claim.claim.endswith("p by weights, raw pixels: slope")]
    assert len(raw) == 2
    assert not any(claim.holds for claim in raw)
    for name, found in results.items():
        draw(name, found, tmp_path / f"{name}.png")
    text = digits.report_text(results)
    print(text)
    assert "does not hold" in text
