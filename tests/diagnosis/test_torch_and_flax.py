"""Models as users have them: the same network in PyTorch, equinox and flax gives the same report."""

import copy
import os
import re
import subprocess
import sys
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diagnosis.shortcut_images import bars, torch_network, train

import gradstarve as gs
from gradstarve.diagnosis._data import batch_of

pytestmark = pytest.mark.extras
if os.environ.get("REQUIRE_TORCH"):
    import flax.linen  # noqa: F401
    import torch
else:
    torch = pytest.importorskip("torch")
DIM, WIDTH, N = 12, 32, 60
OPTIONS = {"features": 0, "permutations": 99}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(N, DIM)).astype("float32"), np.repeat([1, -1], N // 2)
    x[:, 0] += y
    mark = (y > 0) & (np.arange(N) % 5 > 0)
    x[mark, 5] += 4
    return x, y, mark


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    nn = torch.nn
    return nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))


@pytest.fixture(scope="module")
def report(network, data):
    x, y, mark = data
    return gs.starvation_report(network, (torch.from_numpy(x), torch.from_numpy(y)), {"mark": mark}, **OPTIONS)


def same(one, other):
    np.testing.assert_allclose(one.kernel, other.kernel, atol=1e-4 * np.abs(other.kernel).max())
    np.testing.assert_allclose(one.groups[0].index, other.groups[0].index, atol=1e-4)
    assert one.horizon == pytest.approx(other.horizon, rel=1e-4)
    for plan, again in zip(one.heldout.plans, other.heldout.plans, strict=True):
        assert (plan.name, plan.worst) == (again.name, again.worst)
        assert plan.accuracy == pytest.approx(again.accuracy, abs=1e-4)
        assert plan.interval == pytest.approx(again.interval, abs=1e-4)


def weights_of(network):
    return [one.detach().numpy().copy() for one in network.parameters()]


def nnx_network(w, b, v, c):
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = nnx.Linear(DIM, WIDTH, rngs=rngs), nnx.Linear(WIDTH, len(v), rngs=rngs)

        def __call__(self, x):
            return self.second(nnx.relu(self.first(x)))

    model = Network(nnx.Rngs(0))
    for layer, kernel, bias in ((model.first, w.T, b), (model.second, v.T, c)):
        layer.kernel[...], layer.bias[...] = jnp.asarray(kernel), jnp.asarray(bias)
    return model


def test_equinox_and_pytorch_agree(report, network, data):
    x, y, mark = data
    keys = jax.random.split(jax.random.key(0))
    layers = [eqx.nn.Linear(DIM, WIDTH, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(WIDTH, 1, key=keys[1])]
    model = eqx.tree_at(
        lambda m: (m[0].weight, m[0].bias, m[2].weight, m[2].bias), eqx.nn.Sequential(layers), weights_of(network)
    )
    same(gs.starvation_report(model, (x, y), {"mark": mark}, **OPTIONS), report)


def test_flax_and_pytorch_agree(report, network, data):
    x, y, mark = data
    linen = pytest.importorskip("flax.linen")

    w, b, v, c = weights_of(network)
    module = linen.Sequential([linen.Dense(WIDTH), linen.relu, linen.Dense(1)])
    variables = {"params": {"layers_0": {"kernel": w.T, "bias": b}, "layers_2": {"kernel": v.T, "bias": c}}}
    same(gs.starvation_report((module, variables), (x, y), {"mark": mark}, **OPTIONS), report)

    model = nnx_network(w, b, v, c)
    same(gs.starvation_report(model, (x, y), {"mark": mark}, **OPTIONS), report)


def test_several_classes_agree_in_all_frameworks(data):
    """Three outputs, a colour that agrees with the class: one report from PyTorch, equinox, linen, nnx and plain JAX."""
    linen = pytest.importorskip("flax.linen")
    x, rng = data[0].copy(), np.random.default_rng(4)
    y = np.arange(N) % 3
    colour = np.where(rng.random(N) < 0.8, y, (y + 1) % 3)
    x[np.arange(N), y] += 1
    x[np.arange(N), 6 + colour] += 2
    nn = torch.nn
    torch.manual_seed(1)
    network = nn.Sequential(nn.Linear(DIM, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 3))
    w, b, v, c = weights_of(network)
    keys = jax.random.split(jax.random.key(0))
    layers = [eqx.nn.Linear(DIM, WIDTH, key=keys[0]), eqx.nn.Lambda(jax.nn.relu), eqx.nn.Linear(WIDTH, 3, key=keys[1])]
    where = lambda m: (m[0].weight, m[0].bias, m[2].weight, m[2].bias)  # noqa: E731
    module = linen.Sequential([linen.Dense(WIDTH), linen.relu, linen.Dense(3)])
    variables = {"params": {"layers_0": {"kernel": w.T, "bias": b}, "layers_2": {"kernel": v.T, "bias": c}}}

    model = nnx_network(w, b, v, c)
    plain = (lambda p, x: jax.nn.relu(x @ p[0].T + p[1]) @ p[2].T + p[3], [w, b, v, c])
    options = {"attribute": np.array(["red", "green", "blue"])[colour], **OPTIONS}
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.from_numpy(x), torch.from_numpy(y)))
    report = gs.starvation_report(network, loader, **options)
    assert report.kernel.shape == (3 * N, 3 * N)
    assert {law.of for law in report.groups} == {"0", "1", "2"}
    for other in (eqx.tree_at(where, eqx.nn.Sequential(layers), [w, b, v, c]), (module, variables), model, plain):
        again = gs.starvation_report(other, (x, y), **options)
        same(again, report)
        for law, theirs in zip(again.groups, report.groups, strict=True):
            assert (law.name, law.of, law.alarm) == (theirs.name, theirs.of, theirs.alarm)
    # Trained parameters as each framework has them.
    assert gs.starvation_report((module, variables), (x, y), **options).after_training(variables).kernel_change == 0
    assert gs.starvation_report(model, (x, y), **options).after_training(model).kernel_change == 0
    assert report.after_training(network).kernel_change == pytest.approx(0, abs=1e-6)


def test_progress_reaches_the_kernel(network, data):
    x, y, mark = data
    seen = []
    gs.starvation_report(network, (x, y), {"mark": mark}, progress=lambda done, total: seen.append((done, total)), **OPTIONS)
    assert (N, N) in seen  # samples of the kernel
    assert (4, 4) in seen  # parts of the report


def test_the_kernel_is_that_of_backward_passes(network, data, report):
    """By the oldest way of PyTorch, one `backward` a sample, and by the gradients of the last layer alone."""
    x, y, mark = data
    model, rows = copy.deepcopy(network), []
    for one in torch.from_numpy(x):
        model.zero_grad()
        model(one[None])[0, 0].backward()
        rows.append(np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]))
    rows = y[:, None] * np.array(rows, float)
    np.testing.assert_allclose(report.kernel, rows @ rows.T, rtol=1e-4, atol=1e-4)
    last = gs.starvation_report(network, (x, y), {"mark": mark}, parameters="last", **OPTIONS)
    np.testing.assert_allclose(last.kernel, rows[:, -WIDTH - 1 :] @ rows[:, -WIDTH - 1 :].T, rtol=1e-4, atol=1e-4)
    few = gs.starvation_report(network, (x, y), {"mark": mark}, memory=8 * N * N + 4 * 4 * 500 * 9, **OPTIONS)
    np.testing.assert_allclose(few.kernel, report.kernel, rtol=1e-5, atol=1e-5)
    rows = y[:, None] * rows
    other = gs.starvation_report.from_kernel(rows @ rows.T, y, groups={"mark": mark}, **OPTIONS)
    np.testing.assert_allclose(other.kernel, report.kernel, rtol=1e-4, atol=1e-4)


def test_loaders_keep_their_order_or_are_refused(report, network, data):
    x, y, mark = data
    from torch.utils.data import DataLoader, TensorDataset, WeightedRandomSampler

    parts = TensorDataset(torch.from_numpy(x), torch.from_numpy((y > 0).astype(int)))
    for loader in (parts, DataLoader(parts, batch_size=7), DataLoader(parts, batch_size=7, shuffle=True, drop_last=True)):
        found = gs.starvation_report(network, loader, {"mark": mark}, **OPTIONS)
        np.testing.assert_allclose(found.kernel, report.kernel, rtol=1e-5, atol=1e-5)
    assert "The loader of data shuffles; its data set was read in its own order." in found.notes
    assert batch_of(DataLoader(parts, batch_size=7), N) == 7
    assert batch_of(DataLoader(parts, batch_size=9 * N), N) == N
    assert batch_of(parts, N) is None
    drawn = DataLoader(parts, sampler=WeightedRandomSampler([1.0] * N, N))
    with pytest.raises(ValueError, match=r"draws with WeightedRandomSampler.*shuffle=False"):
        gs.starvation_report(network, drawn)
    three = TensorDataset(torch.from_numpy(x), torch.from_numpy(y), torch.from_numpy(mark.astype(int)))
    assert len(gs.starvation_report(network, three, **OPTIONS).groups) == 1


def test_training_mode_is_said_and_restored(data):
    x, y, mark = data
    nn = torch.nn
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(DIM, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 2))
    found = gs.starvation_report(model, (x, (y > 0).astype(int)), {"mark": mark}, **OPTIONS)
    assert "training mode with BatchNorm1d and Dropout" in found.notes[0]
    assert all(part.training for part in model.modules())
    assert found.after_training(model).time == pytest.approx(0, abs=1e-9)
    still = gs.starvation_report(model.eval(), (x, y), {"mark": mark}, **OPTIONS)
    assert not still.notes
    np.testing.assert_allclose(still.kernel, found.kernel)


def test_after_training_takes_the_trained_module(network, data, report):
    x, y, _ = data
    trained, _, _ = train(network, x, y, until=0.1, step_size=0.2)
    after = report.after_training(trained)
    with torch.no_grad():
        margins = y * trained(torch.from_numpy(x))[:, 0].numpy()
    np.testing.assert_allclose(after.measured, margins, rtol=1e-5, atol=1e-5)
    assert 0 < after.kernel_change < 5
    assert after.rank_correlation > 0.8
    assert report.after_training(trained.state_dict()).kernel_change == pytest.approx(after.kernel_change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.half(), r"parameter '0.weight' has dtype torch.float16; use float32: model.float\(\)"),
        (lambda m: m.to("meta"), "parameter '0.weight' is on device 'meta' and has no numbers"),
        (lambda m: m.requires_grad_(False), "no parameters that are trained"),
        (lambda m: m.append(torch.nn.Linear(1, 3)), r"labels are \+1 and -1, but the model has 3 outputs; give labels 0..2"),
        (lambda m: m.append(torch.nn.Flatten(0)).append(torch.nn.Unflatten(0, (1, -1))), "must give one logit a sample"),
        (lambda m: m.append(torch.nn.Linear(7, 1)), "the model raises RuntimeError on the samples"),
        (lambda m: m.append(torch.nn.BatchNorm1d(1, track_running_stats=False)), "Expected more than 1 value"),
    ],
)
def test_models_that_are_refused(network, data, change, words):
    with pytest.raises(ValueError, match=words):
        gs.starvation_report(change(copy.deepcopy(network)), data[:2], **OPTIONS)


def test_samples_that_are_refused(network, data):
    x, y, _ = data
    holed = torch.from_numpy(x.copy())
    holed[3, 2] = float("nan")
    with pytest.raises(ValueError, match=r"x\[3, 2\] = nan is not finite"):
        gs.starvation_report(network, (holed, y))
    with pytest.raises(ValueError, match=r"x has dtype .*float16; use float32"):
        gs.starvation_report(network, (torch.from_numpy(x).half(), y))
    with pytest.raises(ValueError, match=r"chooses none of the model's parameters: 0.weight, 0.bias"):
        gs.starvation_report(network, (x, y), parameters="head")


def test_a_module_that_torch_func_cannot_batch(data):
    """Values that decide the way of a sample: one backward pass after another in place of vmap."""
    x, y, mark = data

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(DIM, 1)

        def forward(self, x):
            found = self.layer(x)
            return found * (2.0 if found.sum().item() > 1e9 else 1.0)

    torch.manual_seed(0)
    found = gs.starvation_report(Network(), (x, y), {"mark": mark}, **OPTIONS)
    np.testing.assert_allclose(found.kernel, np.outer(y, y) * (x @ x.T + 1), rtol=1e-4, atol=1e-4)


def test_the_script_of_the_readme_runs(tmp_path, monkeypatch):
    """From a module and a loader to the page, in at most 12 lines."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```text\n(import torch\n.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    assert len(script.splitlines()) <= 12
    monkeypatch.chdir(tmp_path)
    exec(script, {})
    assert "the worst cell is" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_library_does_not_load_torch():
    code = "import gradstarve as gs, sys; gs.starvation_report; print('torch' in sys.modules, 'flax' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


CASES = (("patch", 0.9), ("background", 0.95), ("none", 0.5))
COMPARED = ("stopped", "re-weighted", "re-weighted, stopped", "removed")
ALIKE = 0.06
"""Changes of the worst cell below this, the mean over three seeds, are none: two standard errors of a rate of 300 images."""


def worst_cell(right, y, has):
    cells = [(y == sign) & (has == value) for sign in (1, -1) for value in (True, False)]
    return min(right[cell].mean() for cell in cells if cell.any())


def best_on_the_other_half(path, y, has):
    """The worst cell of right [T, n] where each half of the test images is read at the time that is best for the other."""
    found, half = np.zeros(len(y)), np.arange(len(y)) % 2 == 0
    for mine in (half, ~half):
        rates = [worst_cell(right[~mine], y[~mine], has[~mine]) + 0.01 * right[~mine].mean() for right in path]
        found[mine] = path[int(np.argmax(rates))][mine]
    return worst_cell(found, y, has)


def predicted_and_trained(shortcut, share, seed):
    """Accuracy of the worst cell of plain training and of `COMPARED`, each predicted and trained, [5, 2]; and the report."""
    x, y, has, clean = bars(seed, 300, shortcut, share)
    test, y_test, has_test, clean_test = bars(seed + 100, 400, shortcut, 0.5)
    network = torch_network(seed)
    kinds = [np.where(one, "bright", "plain") for one in (has, has_test)]
    edited = np.concatenate([clean, clean_test])
    report = gs.starvation_report(network, (x, y), kinds[0], test=(test, y_test, kinds[1]), edited=edited, features=0)
    cells = [(y == sign) & (has == value) for sign in (1, -1) for value in (True, False)]
    cells = [cell for cell in cells if cell.any()]
    alike = sum(cell * len(y) / len(cells) / cell.sum() for cell in cells)
    plans = {plan.name.partition(" at time")[0]: plan.accuracy for plan in report.heldout.plans}
    names = ("train as planned", "stop", "re-weight the cells alike", "re-weight the cells alike and stop")
    told = [plans[name] for name in (*names, "train and test on the edited samples")]
    seen = []
    for images, weights, unseen in ((x, None, test), (x, alike, test), (clean, None, clean_test)):
        trained, path, _ = train(network, images, y, weights, test=unseen, every=20)
        with torch.no_grad():
            right = y_test * trained(torch.from_numpy(unseen))[:, 0].numpy() > 0
        seen.append(worst_cell(right, y_test, has_test))
        seen.append(best_on_the_other_half(np.concatenate([y_test * path > 0, right[None]]), y_test, has_test))
    return np.array([told, seen[:5]]).T, report


@pytest.mark.slow
@pytest.mark.parametrize(("shortcut", "share"), CASES)
def test_predicted_against_trained_worst_cell(shortcut, share):
    """Three cases with a known truth, three seeds each: plain training, early stopping, re-weighting with and without it,
    and images without the shortcut. Every comparison with plain training has the predicted sign, in the mean over seeds."""
    runs = [predicted_and_trained(shortcut, share, seed) for seed in range(3)]
    found = np.array([run for run, _ in runs])
    for seed, run in enumerate(found):
        print(shortcut, seed, " ".join(f"{a:.2f}/{b:.2f}" for a, b in run))
    gaps = np.abs(found[..., 0] - found[..., 1])
    changes = (found[:, 1:] - found[:, :1]).mean(0)
    print(f"{shortcut}: mean error {gaps.mean():.3f}; predicted and trained change of the worst cell:")
    for name, (told, seen) in zip(COMPARED, changes, strict=True):
        print(f"  {name}: {told:+.2f} {seen:+.2f}")
    for name, (told, seen) in zip(COMPARED, changes, strict=True):
        small = max(abs(told), abs(seen)) < ALIKE
        assert small or told * seen > 0, f"{name}: {told:+.3f} is predicted and {seen:+.3f} trained"
    assert gaps.mean() < 0.15
    assert all(bool(report.alarms) == (shortcut != "none") for _, report in runs)
