"""`gradstarve optimisers` at a small size: files, numbers against NumPy, errors."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.cli import steps as cli_steps
from gradstarve.studies import optimisers as study

SMALL = ("--networks", 30, "--width", 8, "--dim", 3, "--ratios", "1", "--steps", 400, "--dims", "2", "--widths", "4")


@pytest.fixture
def run(x64, tmp_path):
    return lambda *arguments: CliRunner().invoke(cli.app, ["optimisers", *map(str, arguments), "--out", str(tmp_path)])


def numpy_problem(key, dim):
    """The direction of the points, and the generator after it."""
    rng = np.random.default_rng(key)
    unit = rng.normal(size=dim)
    return unit / np.linalg.norm(unit), rng


def check_share(share, key, rule):
    """The law by its formula, and the count by the rule z > -c a of each neuron, from weights drawn again."""
    unit, rng = numpy_problem(key, 3)
    w, z = rng.normal(size=(30, 8, 3)) * 0.02, rng.normal(size=(30, 8)) * 0.02
    a, line = w @ unit, rule(unit)
    assert share["count"] == (a > 0).sum()
    assert share["law"] == pytest.approx(0.5 + np.arctan(line) / np.pi, abs=1e-12)
    assert share["error"] == pytest.approx(np.sqrt(share["law"] * (1 - share["law"]) / share["count"]))
    assert abs(share["kept"] - share["law"]) < 4 * share["error"]
    assert abs(share["kept"] - (z > -line * a)[a > 0].mean()) < 0.02


def test_files_and_numbers(run, tmp_path):
    result = run(*SMALL, "--quick", "--optimisers", "sign", "--seed", 5, "--json")
    assert result.exit_code == 0, result.output
    names = {"optimisers.png", "optimisers.json", "optimisers-shares.csv", "optimisers-agreement.csv"}
    assert {path.name for path in tmp_path.iterdir()} == names
    stored = json.loads((tmp_path / "optimisers.json").read_text())
    assert json.loads(result.stdout) == stored
    assert stored["environment"]["precision"] == "float64"

    (share,), (curve,) = stored["shares"], stored["curves"]
    check_share(share, key=5, rule=lambda unit: 1 / np.abs(unit).sum())
    assert curve["gap"] < 1e-12
    assert len(curve["law"]) == len(curve["trained"]) == len(curve["steps"])

    # Agreement: sign descent against its own law, in NumPy.
    (found,) = stored["agreement"]
    assert (found["optimiser"], found["dim"], found["width"], found["time"]) == ("sign", 2, 4, 1.0)
    rows = list(csv.reader((tmp_path / "optimisers-agreement.csv").read_text().splitlines()))
    assert rows == [list(found), [str(value) for value in found.values()]]
    assert found["right"] > 0.97


def test_a_step_size_for_each_layer(x64):
    settings = {"networks": 30, "width": 8, "dim": 3, "ratios": 1.0, "steps": 400, "layer_ratio": 4.0, "key": 7}
    found = study.optimiser_study(optimisers="layers", **settings)
    assert not found.agreement
    assert found.curves[0].gap < 1e-12
    check_share(found.shares[0]._asdict(), key=7, rule=lambda unit: 2.0)


def test_an_optimiser_without_a_law_is_measured_against_that_of_signs(x64):
    """Adam in NumPy, one neuron a network: the time to the goal and the fates that the study tells."""
    settings = {"optimisers": ("adam",), "networks": 2, "ratios": 1.0, "steps": 20, "dims": 1, "widths": 1, "rates": 0.05}
    found = study.optimiser_study(**settings, neurons=40, key=1)
    assert found.curves[0].law is None
    (cell,) = found.agreement
    unit, rng = numpy_problem((1, 1, 1), 1)
    a = (rng.normal(size=(80, 1, 1)) * 0.02)[:, 0] @ unit
    z, step = rng.normal(size=(80, 1))[:, 0] * 0.02, 0.001
    weights = np.stack([a, z])
    start, mean, square = weights.copy(), np.zeros_like(weights), np.zeros_like(weights)
    reached = np.full(80, np.inf)
    for count in range(1, 1500):
        a, z = weights
        pull = np.where(a > 0, 1 / (1 + np.exp(np.maximum(a, 0) * z)), 0)
        gradient = -pull * np.stack([z, a])
        mean, square = 0.9 * mean + 0.1 * gradient, 0.999 * square + 0.001 * gradient**2
        weights = weights - step * (mean / (1 - 0.9**count)) / (np.sqrt(square / (1 - 0.999**count)) + 1e-8)
        logit = np.maximum(weights[0], 0) * weights[1]
        reached = np.where((logit >= 0.5) & np.isinf(reached), count, reached)
    sees, learns = start[0] > 0, start[1] > -start[0]
    assert cell.count == sees.sum()
    right = np.where(learns, (weights > 0).all(0), weights[0] <= 0)[sees].mean()
    assert cell.right == pytest.approx(right, abs=1e-12)
    # By the law of signs a and z grow by a step each.
    k = np.ceil((-start.sum(0) + np.sqrt(np.diff(start, axis=0)[0] ** 2 + 2)) / (2 * step))
    ok = sees & learns & np.isfinite(reached) & (start[1] > 0)
    assert cell.time == pytest.approx(np.median(reached[ok] / k[ok]), abs=0.02)
    assert 0.5 < cell.time < 0.8


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--optimisers", "adm"), "'adm' is not one of descent, normalised"),
        (("--optimisers", "sign,sign"), "names one twice"),
        (("--problem", "two"), "'two' is not one of one-class, antipodal"),
        (("--ratios", "1,-1"), "'--ratios': '1,-1' is not one or several different numbers above 0"),
        (("--dims", "1.5"), "'--dims': '1.5' is not one or several whole numbers"),
        (("--widths", "0"), "'--widths': '0' is not one or several whole numbers"),
        (("--steps", "3"), "'3' is not a whole number of at least 10"),
        (("--seeds", "1"), "greater than or equal to 2"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, tmp_path, arguments, told):
    result = run(*arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"optimiser": "adam"}, "optimiser is no setting of the study of optimisers.*did you mean 'optimisers'"),
        ({"optimisers": ()}, "optimisers must be one or several different optimisers"),
        ({"problem": "orthogonal"}, "problem must be one of one-class, antipodal, got 'orthogonal'"),
        ({"scale": 0}, "scale must be a finite number above 0, got 0"),
        ({"widths": (1, 0)}, "widths must be an integer >= 1, got 0"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        study.optimiser_study(**settings)


def test_the_names_in_the_help_are_those_of_the_library():
    assert (cli_steps.OPTIMISERS, cli_steps.OPTIMISER_PROBLEMS) == (study.OPTIMISERS, study.PROBLEMS)


@pytest.mark.slow
def test_two_classes_and_all_optimisers(run, tmp_path):
    result = run("--quick", "--problem", "antipodal", "--dims", "1", "--widths", "1", "--steps", 600)
    assert result.exit_code == 0, result.output
    stored = json.loads((tmp_path / "optimisers.json").read_text())
    assert {curve["optimiser"]: curve["law"] is None for curve in stored["curves"]} == {
        name: name in study.WITHOUT_LAW for name in study.OPTIMISERS
    }
    for share in stored["shares"]:
        assert abs(share["kept"] - share["law"]) < 4 * share["error"]
