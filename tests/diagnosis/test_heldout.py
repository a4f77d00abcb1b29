"""Held-out prediction: against training of the linear model itself in NumPy, and what the report says of it."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import gradstarve as gs
from gradstarve.cli import main as cli
from gradstarve.diagnosis._data import Classes
from gradstarve.diagnosis._heldout import Columns, deal, hold_out


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    y = np.repeat([1, -1], 40)
    x = rng.normal(size=(80, 20))
    x[:, 0] += 0.7 * y
    spot = (y > 0) & (np.arange(80) % 8 > 0)
    x[:, 1] += 6 * spot - 3
    return x, y, spot


@pytest.fixture(scope="module")
def report(data):
    x, y, spot = data
    return gs.starvation_report.from_kernel(x @ x.T, y, groups={"spot": spot}, features=0, permutations=99)


def descent(x, y, weights, time, steps=4000):
    """Gradient descent of a linear model on the weighted, summed cross-entropy, in plain NumPy."""
    w = np.zeros(x.shape[1])
    for _ in range(steps):
        w += time / steps * x.T @ (weights * y / (1 + np.exp(y * (x @ w))))
    return w


def test_cells_are_those_of_models_that_have_not_seen_them(report, data):
    x, y, spot = data
    found, when = report.heldout, report.horizon
    cells = [(y > 0) & spot, (y > 0) & ~spot, y < 0]
    # The parts that the report deals out, by its cells in their order and its seed.
    mine = [(y < 0) & ~spot, (y > 0) & spot, (y > 0) & ~spot]
    part = deal(mine, np.ones(80, bool), 5, np.random.default_rng(0))
    right, alike = np.zeros(80, bool), np.zeros(80, bool)
    for one in range(5):
        seen = part != one
        weights = seen.astype(float)
        w = descent(x, y, weights, when)
        right[~seen] = (y * (x @ w) > 0)[~seen]
        for cell in cells:
            weights[cell & seen] = seen.sum() / 3 / (cell & seen).sum()
        w = descent(x, y, weights, when)
        alike[~seen] = (y * (x @ w) > 0)[~seen]
    plans = {plan.name: plan for plan in found.plans}
    names = ("class +, spot", "class +, no spot", "class −, no spot")
    for name, cell in zip(names, cells, strict=True):
        assert found.plain.cells[name] == pytest.approx(right[cell].mean(), abs=1 / cell.sum() + 1e-9)
        assert plans["re-weight the cells alike"].cells[name] == pytest.approx(alike[cell].mean(), abs=1 / cell.sum() + 1e-9)
    assert found.worst.name == "class +, no spot"
    assert found.worst.interval[0] <= found.plain.accuracy <= found.worst.interval[1]
    assert [plan.accuracy for plan in found.plans] == sorted((plan.accuracy for plan in found.plans), reverse=True)


def test_several_outputs_follow_the_softmax():
    rng = np.random.default_rng(2)
    x, index = rng.normal(size=(12, 4)), np.arange(12) % 3
    classes = Classes(index, ("0", "1", "2"))
    weights = np.ones((12, 1))
    weights[5] = 0
    found = []
    for kernel in (x @ x.T, np.kron(x @ x.T, np.eye(3))):
        columns = Columns(kernel, np.zeros((12, 3)), classes, np.array([0.5]))
        found.append(columns.train(weights, np.array([0.5]))[0, :, :, 0])
    np.testing.assert_allclose(*found, atol=1e-6)
    w = np.zeros((4, 3))
    for _ in range(4000):
        f = x @ w
        chance = np.exp(f) / np.exp(f).sum(1, keepdims=True)
        w += 0.5 / 4000 * x.T @ (weights * (np.eye(3)[index] - chance))
    np.testing.assert_allclose(found[0], x @ w, atol=2e-3)


def test_cells_of_one_sample_are_said(data):
    x, y, _ = data
    lone, trained, classes = np.arange(80) == 3, np.ones(80, bool), Classes((data[1] > 0).astype(int), ("−", "+"))
    groups, times, rng = (("lone",), lone[:, None], False), np.linspace(0, 1, 5), np.random.default_rng(0)
    found = hold_out(x @ x.T, np.zeros((80, 1)), classes, trained, groups, times, 4, rng=rng)
    assert found is not None
    assert "The cell 'class +, lone' has one sample" in found.notes[0]
    assert len(found.cells) == 2
    assert len(y) == 80


def test_test_samples_are_predicted(data):
    x, y, spot = data
    rng = np.random.default_rng(3)
    y_test, has = np.tile([1, -1], 50), rng.random(100) < 0.5
    x_test = rng.normal(size=(100, 20))
    x_test[:, 0] += 0.7 * y_test
    x_test[:, 1] += 6 * has - 3
    linear = (lambda w, x: x @ w, np.zeros(20, "float32"))
    test = (x_test, y_test, {"spot": has})
    report = gs.starvation_report(linear, (x, y), {"spot": spot}, test=test, features=0, permutations=99)
    right = y_test * (x_test @ descent(x, y, np.ones(80), report.horizon)) > 0
    assert report.heldout.splits == 0
    for cell in report.heldout.cells:
        mine = (y_test == (1 if cell.label == "+" else -1)) & (has == (cell.attribute == "spot"))
        assert cell.tested == mine.sum()
        assert cell.accuracy[-1] == pytest.approx(right[mine].mean(), abs=1 / mine.sum() + 1e-9)
    with pytest.raises(ValueError, match=r"give test=\(x, y, groups\)"):
        gs.starvation_report(linear, (x, y), {"spot": spot}, test=(x_test, y_test))


def test_agreement_with_the_label_is_an_attribute(data):
    _, y, _ = data
    rng = np.random.default_rng(0)
    water = np.where(y > 0, rng.random(80) < 0.9, rng.random(80) < 0.1)
    x = data[0].copy()
    x[:, 1] = 6 * water - 3 + 0.3 * rng.normal(size=80)
    options = {"features": 0, "permutations": 99}
    named = gs.starvation_report.from_kernel(x @ x.T, y, groups={"water": water}, **options)
    agree = gs.starvation_report.from_kernel(x @ x.T, y, groups={"agree": water == (y > 0)}, **options)
    types = np.where(water == (y > 0), "agree", "conflict")
    typed = gs.starvation_report.from_kernel(x @ x.T, y, groups=types, **options)
    two = gs.starvation_report.from_kernel(x @ x.T, y, groups=np.where(water, "agree", "conflict"), **options)
    for other, right in ((agree, named), (typed, two)):
        assert right.alarms
        assert not right.notes
        assert "'agree' says whether samples agree with their label" in other.notes[0]
        assert other.alarms
        assert [law.index[law.at] for law in other.alarms] == pytest.approx([law.index[law.at] for law in right.alarms])


def test_what_is_said(report, tmp_path):
    text = report.table()
    assert "Not seen in training (each of 5 parts held out in turn): the worst cell is 'class +, no spot'" in text
    assert "on the trained samples" in text
    page = report.html(tmp_path / "report.html")
    assert page == (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "Ways to train, predicted on samples not seen" in page
    json.dumps(report.to_dict(), allow_nan=False)


def test_steps_and_epochs(data):
    x, y, spot = data
    options = {"groups": {"spot": spot}, "features": 0, "permutations": 99, "times": [13.3]}
    report = gs.starvation_report.from_kernel(x @ x.T / 50, y, step_size=0.1, batch_size=20, momentum=0.5, **options)
    assert report.training.steps(13.3) == pytest.approx(13.3 * 80 * 0.5 / 0.1)
    assert report.when(13.3) == "time 13.3, 5,320 steps, 1330 epochs"


def test_the_command(data, tmp_path):
    x, y, spot = data
    np.savez(tmp_path / "data.npz", x=x.astype("float32"), y=y, spot=spot)
    (tmp_path / "model.py").write_text("import numpy as np\nnet = (lambda w, x: x @ w, np.zeros(20, 'float32'))\n")
    rest = [f"{tmp_path}/data.npz", "--out", f"{tmp_path}/out"]
    result = CliRunner().invoke(cli.app, ["diagnose", f"{tmp_path}/model.py:net", *rest, "--groups", "spot"])
    assert result.exit_code == 0, result.output
    assert "the worst cell is 'class +, no spot'" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"diagnose.html", "diagnose.json", "diagnose.png"}
    for model, groups, words in (
        ("model.py:nett", "spot", "has no 'nett'; it has np, net"),
        ("model.py:net", "spott", "has no array 'spott', it has x, y, spot; did you mean 'spot'?"),
        ("model.py", "spot", "is not FILE.py:NAME; give a file and a name in it"),
    ):
        refused = CliRunner().invoke(cli.app, ["diagnose", f"{tmp_path}/{model}", *rest, "--groups", groups])
        assert refused.exit_code == 2
        assert words in " ".join(refused.stderr.split())


def test_the_last_layer_alone_is_trained_on():
    """A sum of two linear parts: both are trained to the horizon, then the second alone on cells of the same weight."""
    rng = np.random.default_rng(5)
    y = np.repeat([1, -1], 60)
    has = np.where(y > 0, np.arange(120) % 10 > 0, np.arange(120) % 10 == 0)
    x = rng.normal(size=(120, 12)).astype("float32")
    x[:, 0] += 0.5 * y
    x[:, 6] += 0.8 * y
    x[:, 7] += 3.0 * has - 1.5
    y_test, has_test = np.tile([1, -1], 150), rng.random(300) < 0.5
    x_test = rng.normal(size=(300, 12)).astype("float32")
    x_test[:, 0] += 0.5 * y_test
    x_test[:, 6] += 0.8 * y_test
    x_test[:, 7] += 3.0 * has_test - 1.5
    params = {"body": np.zeros(6, "float32"), "head": np.zeros(6, "float32")}

    def apply(p, x):
        return x[:, :6] @ p["body"] + x[:, 6:] @ p["head"]

    test = (x_test, y_test, {"has": has_test})
    report = gs.starvation_report(
        (apply, params), (x, y), {"has": has}, test=test, last_layer=True, features=0, permutations=99, times=[3.0]
    )
    (plan,) = (plan for plan in report.heldout.plans if plan.name == "re-train the last layer, cells alike")
    when = report.horizon
    w = descent(x, y, np.ones(120), when)
    cells = [(y == sign) & (has == value) for sign in (1, -1) for value in (True, False)]
    weights = sum(cell * 30.0 / cell.sum() for cell in cells)
    head = w[6:].copy()
    for _ in range(4000):
        margins = y * (x[:, :6] @ w[:6] + x[:, 6:] @ head)
        head += when / 4000 * x[:, 6:].T @ (weights * y / (1 + np.exp(margins)))
    right = y_test * (x_test[:, :6] @ w[:6] + x_test[:, 6:] @ head) > 0
    before = y_test * (x_test @ w) > 0
    for sign, label in ((1, "+"), (-1, "−")):
        for value in (True, False):
            mine = (y_test == sign) & (has_test == value)
            found = plan.cells[f"class {label}, {'has' if value else 'no has'}"]
            assert found == pytest.approx(right[mine].mean(), abs=1 / mine.sum() + 1e-9)
    minority = (y_test > 0) & ~has_test
    assert abs(right[minority].mean() - before[minority].mean()) > 0.05  # the second phase counts
    assert plan.time == pytest.approx(2 * when)
