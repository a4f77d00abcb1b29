"""Several classes: against the softmax flow solved by SciPy, training in plain NumPy, and what the report says of it."""

import json

import numpy as np
import pytest
from diagnosis.test_heldout import descent
from scipy.integrate import solve_ivp
from scipy.special import logsumexp, softmax
from typer.testing import CliRunner

import gradstarve as gs
from gradstarve.cli import main as cli
from gradstarve.diagnosis._classes import Softmax, against, true_margins
from gradstarve.diagnosis._data import Classes
from gradstarve.diagnosis._groups import make_group
from gradstarve.diagnosis._heldout import Columns, deal

N, K, DIM = 120, 3, 14
OPTIONS = {"features": 0, "permutations": 99}
TIMES = np.geomspace(1e-3, 0.05, 8)


def coloured(seed, n=N, strength=2.5, share=0.85, classes=K):
    """Samples of `classes` classes, each with its direction, and a colour that agrees with the class on `share` of them."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    x = rng.normal(size=(n, DIM))
    x[np.arange(n), y] += 1.2
    colour = np.where(rng.random(n) < share, y, (y + rng.integers(1, classes, n)) % classes)
    x[np.arange(n), 5 + colour] += strength
    return x, y, colour


@pytest.fixture(scope="module")
def data():
    return coloured(0)


@pytest.fixture(scope="module")
def report(data):
    x, y, colour = data
    names = np.array(["red", "green", "blue"])[colour]
    return gs.starvation_report.from_kernel(x @ x.T, y, attribute=names, times=TIMES, **OPTIONS)


def exact(kernel, start, target, times, weights=1.0):
    """f = f_0 + Theta a, da/dt = target - softmax(f), by SciPy."""
    n, count = start.shape

    def field(_, a):
        f = start + (kernel @ a).reshape(n, count)
        return (weights * (target - softmax(f, axis=1))).ravel()

    a = solve_ivp(field, (0, times[-1]), np.zeros(n * count), "DOP853", times, rtol=1e-12, atol=1e-14).y
    return start + (kernel @ a).T.reshape(len(times), n, count)


def test_the_flow_of_all_outputs_is_that_of_scipy():
    rng = np.random.default_rng(0)
    rows, start, index = rng.normal(size=(24, 30)), rng.normal(size=(8, 3)), np.arange(8) % 3
    kernel = rows @ rows.T  # outputs that hang together
    times = np.array([0.3, 1.0]) / np.linalg.norm(kernel, 2)
    columns = Columns(kernel, start, Classes(index, ("0", "1", "2")))
    found = columns.train(np.ones((8, 1)), times, rtol=1e-12)[..., 0]
    np.testing.assert_allclose(found, exact(kernel, start, np.eye(3)[index], times), atol=1e-8)


def test_symmetric_classes_obey_11_1():
    """Orthogonal inputs, the same share of each class: e^u + (K-1) u = K r^2 t + 1 for the loss summed over samples."""
    r, times = 1.3, np.array([0.0, 0.5, 4.0, 30.0])
    network = Softmax(r * r * np.eye(4), np.zeros((4, 4)), Classes(np.arange(4), tuple("0123")))
    (view, *_) = network.views(network.train(network.start, times))
    u = view.margins[:, 0]
    np.testing.assert_allclose(np.exp(u) + 3 * u, 4 * r * r * times + 1, rtol=1e-4)


def test_a_feature_is_removed_from_all_outputs(report, data):
    """The law of a colour against SciPy's solution for the linear model on samples without its feature."""
    x, y, colour = data
    law = max(report.groups, key=lambda law: law.name == "red")
    assert (law.name, law.of, law.group.favours(law.group.labels)) == ("red", "0", 1)
    members = colour == 0
    means = np.stack([x[(y == k) & members].mean(0) - x[(y == k) & ~members].mean(0) for k in range(K)])
    counts = np.array([((y == k) & members).sum() * ((y == k) & ~members).sum() / (y == k).sum() for k in range(K)])
    delta = counts @ means / counts.sum()  # pooled within classes
    weights, mine = against(0, K), y == 0
    times = report.times[[report.at // 2, report.at]]

    def train(x):
        f = exact(np.kron(x @ x.T, np.eye(K)), np.zeros((N, K)), np.eye(K)[y], times)
        return f @ weights

    together, alone = train(x), train(x - np.outer(members, delta))
    carried = (delta @ np.linalg.pinv(x) @ together.T).T  # x has full column rank
    rest = (together - np.outer(carried, members))[:, mine].mean(1)
    records = [report.at // 2, report.at]
    np.testing.assert_allclose(law.carried[records], carried, atol=1e-3)
    np.testing.assert_allclose(law.rest[records], rest, atol=1e-3)
    np.testing.assert_allclose(law.rest_alone[records], alone[:, mine].mean(1), atol=1e-3)
    # And training on the feature alone: samples are delta for members and nothing for others.
    only = train(np.outer(members, delta))[:, members][:, 0]
    np.testing.assert_allclose(law.carried_alone[records], only, atol=1e-3)


def test_outputs_that_are_alike_need_no_pairs(report, data):
    x, y, colour = data
    full = gs.starvation_report.from_kernel(
        np.kron(x @ x.T, np.eye(K)), y, groups=np.array(["red", "green", "blue"])[colour], times=[0.02, 0.1], **OPTIONS
    )
    few = gs.starvation_report.from_kernel(
        x @ x.T, y, groups=np.array(["red", "green", "blue"])[colour], times=[0.02, 0.1], **OPTIONS
    )
    np.testing.assert_allclose(full.margins, few.margins, atol=1e-5)
    for a, b in zip(full.groups, few.groups, strict=True):
        assert (a.name, a.of, a.p_value) == (b.name, b.of, b.p_value)
        np.testing.assert_allclose(a.index, b.index, atol=1e-4)
    assert [cell.name for cell in full.heldout.cells] == [cell.name for cell in few.heldout.cells]
    assert report.classes.count == K


def test_two_classes_as_two_outputs_are_one_logit():
    """The softmax of two outputs with u = f_1 - f_0 is the logistic flow: both descriptions give one law."""
    x, y, colour = coloured(3, 60, classes=2)
    members = colour == 1
    kernel = x @ x.T
    labels, times = 2.0 * y - 1, np.array([0.0, 0.02, 0.1])
    binary = gs.starvation_report.from_kernel(2 * kernel, 2 * y - 1, groups={"c": members}, times=times, **OPTIONS)
    network = Softmax(kernel, np.zeros((60, 2)), Classes(y, ("0", "1")))
    view = network.views(network.train(network.start, times))[1]
    np.testing.assert_allclose(view.margins, binary.margins, atol=1e-4)
    group = make_group("c", members, labels, (1, -1))
    (alone,) = network.without([group], [view], times)
    law = binary.groups[0]
    mine = labels > 0
    np.testing.assert_allclose(alone["alone"][:, mine].mean(1), law.rest_alone, atol=1e-4)
    np.testing.assert_allclose(alone["carried_alone"], law.carried_alone, atol=1e-4)


def test_cells_are_those_of_models_that_have_not_seen_them(report, data):
    """Argmax accuracy of each (class, colour) cell by gradient descent of the linear model in NumPy, fold by fold."""
    x, y, colour = data
    names = np.array(["red", "green", "blue"])[colour]
    cells = [(y == k) & (names == name) for k in range(K) for name in ("blue", "green", "red")]
    cells = [cell for cell in cells if cell.any()]
    part = deal(cells, np.ones(N, bool), 5, np.random.default_rng(0))
    right = np.zeros(N, bool)
    for one in range(5):
        seen, w, time = part != one, np.zeros((DIM, K)), report.horizon
        for _ in range(3000):
            w += time / 3000 * x[seen].T @ (np.eye(K)[y[seen]] - softmax(x[seen] @ w, axis=1))
        right[~seen] = ((x @ w).argmax(1) == y)[~seen]
    for cell in report.heldout.cells:
        mine = (y == int(cell.label)) & (names == cell.attribute) & (part >= 0)
        assert cell.tested == mine.sum()
        assert cell.accuracy[-1] == pytest.approx(right[mine].mean(), abs=1 / mine.sum() + 1e-9)
        assert cell.agrees == (cell.attribute == ["red", "green", "blue"][int(cell.label)])


def test_codings_of_a_colour(report, data):
    """Agreement is read class by class, and cells are put together by their features."""
    x, y, colour = data
    options = {"times": TIMES, **OPTIONS}
    names = np.array(["red", "green", "blue"])
    for groups in ({"agree": colour == y}, np.where(colour == y, "agree", "conflict")):
        agree = gs.starvation_report.from_kernel(x @ x.T, y, groups=groups, **options)
        assert "another feature in each" in agree.notes[0]
        assert sorted((law.name, law.of) for law in agree.groups) == [("agree", "0"), ("agree", "1"), ("agree", "2")]
        shares = {law.of: law.share for law in agree.groups}
        assert shares == {law.of: law.share for law in report.groups}
    pairs = [f"{k} {names[c]}" for k, c in zip(y, colour, strict=True)]
    cells = gs.starvation_report.from_kernel(x @ x.T, y, groups=pairs, **options)
    assert "The groups are cells" in cells.notes[0]
    for law in cells.groups:
        assert len({cell.split()[1] for cell in law.name.split(" / ")}) == 1
    theirs = {law.of: law.index for law in report.groups}
    for law in cells.groups:
        np.testing.assert_allclose(law.index, theirs[law.of], atol=1e-6)


def test_errors_are_those_of_the_true_class(report):
    f = report.logits[report.at]
    chance = softmax(f, axis=1)[np.arange(N), report.labels]
    assert report.error == pytest.approx(1 - chance.mean(), abs=1e-12)
    others = np.array([logsumexp(np.delete(row, k)) for row, k in zip(f, report.labels, strict=True)])
    np.testing.assert_allclose(true_margins(f, report.labels), f[np.arange(N), report.labels] - others)


def network(seed, width=300):
    rng = np.random.default_rng(seed)
    return {
        "w": (rng.normal(size=(DIM, width)) * np.sqrt(2 / DIM)).astype("float32"),
        "v": (rng.normal(size=(width, K)) / np.sqrt(width)).astype("float32"),
    }


def apply(params, x):
    import jax

    return jax.nn.relu(x @ params["w"]) @ params["v"]


def trained(params, x, y, time, steps):
    """Gradient descent of both layers on the summed cross-entropy, in NumPy."""
    w, v = (params[name].astype(float) for name in ("w", "v"))
    for _ in range(steps):
        h = x @ w
        a = np.maximum(h, 0)
        residual = np.eye(K)[y] - softmax(a @ v, axis=1)
        w, v = w + time / steps * x.T @ ((residual @ v.T) * (h > 0)), v + time / steps * a.T @ residual
    return {"w": w.astype("float32"), "v": v.astype("float32")}


@pytest.fixture(scope="module")
def wide(data):
    x, y, colour = data
    params = network(1)
    return params, gs.starvation_report((apply, params), (x.astype("float32"), y), attribute=colour, **OPTIONS)


def test_a_trained_network_agrees(wide, data):
    params, report = wide
    x, y, _ = data
    steps = int(report.horizon * np.linalg.norm(report.kernel, 2)) + 1
    ends = trained(params, x, y, report.horizon, steps)
    after = report.after_training(ends)
    assert after.rank_correlation > 0.9
    assert after.kernel_change < 1
    assert report.regime.change[-1] == pytest.approx(after.kernel_change, rel=0.35)
    assert after.error == pytest.approx(report.error, abs=0.04)
    for group in after.groups:
        assert group.index == pytest.approx(group.index_predicted, abs=0.15)
    logits = np.maximum(x @ ends["w"], 0) @ ends["v"]
    assert report.after_training(logits).error == pytest.approx(after.error, abs=1e-4)
    with pytest.raises(ValueError, match=r"trained must be parameters .* or logits of shape \(120, 3\), got \(120,\)"):
        report.after_training(logits[:, 0])
    # Samples that it has not seen, in cells that agree with the label and cells that do not.
    x_test, y_test, c_test = coloured(99, 900)
    right = (np.maximum(x_test @ ends["w"], 0) @ ends["v"]).argmax(1) == y_test
    for agrees in (True, False):
        cells = [cell for cell in report.heldout.cells if cell.agrees == agrees]
        told = np.average([cell.accuracy[-1] for cell in cells], weights=[cell.tested for cell in cells])
        assert told == pytest.approx(right[(c_test == y_test) == agrees].mean(), abs=0.25)


def test_little_memory_takes_the_mean_over_outputs(wide, data):
    params, report = wide
    x, y, colour = data
    options = {"times": [report.horizon], "splits": 2, **OPTIONS}
    few = gs.starvation_report((apply, params), (x.astype("float32"), y), attribute=colour, memory=1_500_000, **options)
    assert few.kernel.shape == (N, N)
    assert "the mean over outputs is taken for each of them" in few.notes[0]
    mean = np.einsum("ikjk->ij", report.kernel.reshape(N, K, N, K)) / K
    np.testing.assert_allclose(few.kernel, mean, rtol=1e-4, atol=1e-4 * mean.max())


def test_what_is_said(report, tmp_path):
    text = report.table()
    assert "ALARM: " in text
    assert "of class 0) starves the rest of its class" in text
    assert "the worst cell is 'class " in text
    page = report.html(tmp_path / "report.html")
    assert "<script" not in page
    assert "class 2, blue" in page
    json.dumps(report.to_dict(), allow_nan=False)
    assert report.to_dict()["classes"] == ["0", "1", "2"]
    pytest.importorskip("pandas")
    cells = report.to_pandas()
    assert list(cells["accuracy"]) == sorted(cells["accuracy"])
    assert list(report.to_pandas("plans")["accuracy"]) == [plan.accuracy for plan in report.heldout.plans]
    assert set(report.to_pandas("groups")["of"]) == {"0", "1", "2"}
    assert report.to_pandas("curves").shape == (report.at + 1, len(cells))
    with pytest.raises(ValueError, match="what must be one of cells, plans, groups, curves, got 'cell'; did you mean"):
        report.to_pandas("cell")


def test_the_command(data, tmp_path):
    x, y, colour = data
    x, y, names = x[:45], y[:45], np.array(["red", "green", "blue"])[colour][:45]
    np.savez(tmp_path / "data.npz", x=x.astype("float32"), y=y, colour=names)
    model = f"import numpy as np\nnet = (lambda w, x: x @ w, np.zeros(({DIM}, {K}), 'float32'))\n"
    (tmp_path / "model.py").write_text(model)
    call = ["diagnose", f"{tmp_path}/model.py:net", f"{tmp_path}/data.npz", "--groups", "colour", "--out", f"{tmp_path}/out"]
    result = CliRunner().invoke(cli.app, call)
    assert result.exit_code == 0, result.output
    assert "the worst cell is 'class " in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"diagnose.html", "diagnose.json", "diagnose.png"}


LINEAR = (lambda w, x: x @ w, np.zeros((DIM, K), "float32"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda y: np.eye(K)[y], r"got shape \(120, 3\); they are one-hot: give the numbers of the classes, y.argmax\(1\)"),
        (lambda y: y + 1, "labels must be from 0 to 2 for a model of 3 outputs, got 3 at sample 2"),
        (lambda y: 2 * (y > 0) - 1, r"labels are \+1 and -1, but the model has 3 outputs; give labels 0..2"),
        (lambda y: y.astype(str), "those of the classes, 0, 1, ..., got <U21 such as 0"),
        (lambda y: 0 * y, "all 120 labels are"),
    ],
)
def test_labels_that_are_refused(data, change, words):
    x, y, _ = data
    with pytest.raises(ValueError, match=words):
        gs.starvation_report(LINEAR, (x.astype("float32"), change(y)), **OPTIONS)


def test_kernels_that_are_refused(data):
    x, y, _ = data
    with pytest.raises(ValueError, match=r"must have 360 rows, one a sample and output, or 120 .*; it has 119"):
        gs.starvation_report.from_kernel((x @ x.T)[:119, :119], y)
    with pytest.raises(ValueError, match=r"logits must be \[n, K\] = \[120, 3\], got shape \(120,\)"):
        gs.starvation_report.from_kernel(x @ x.T, y, np.zeros(N))
    with pytest.raises(ValueError, match="groups and attribute are both given"):
        gs.starvation_report.from_kernel(x @ x.T, y, groups=y > 0, attribute=y)


def test_binary_rows_are_left_as_they_were(data):
    """Labels ±1 still go with one logit a sample, and give what they gave."""
    x, y, colour = data
    sign = np.where(y > 0, 1, -1)
    report = gs.starvation_report.from_kernel(x @ x.T, sign, groups={"red": colour == 0}, times=TIMES, **OPTIONS)
    w = descent(x, sign, np.ones(N), report.horizon)
    np.testing.assert_allclose(report.margins[report.at], sign * (x @ w), atol=0.02)
