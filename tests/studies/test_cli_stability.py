"""`gradstarve stability` at a small size: files, numbers against NumPy, errors."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.cli import steps as cli_steps
from gradstarve.studies import stability as study


@pytest.fixture
def run(x64, tmp_path):
    return lambda *arguments: CliRunner().invoke(cli.app, ["stability", *map(str, arguments), "--out", str(tmp_path)])


def numpy_descent(w, z, unit, step_size, steps, residual, decay=0.0):
    """u and kappa of one network trained in NumPy, by the gradient of its weights, after every step."""
    found = []
    for step in range(steps + 1):
        a = w @ unit
        sees = a > 0
        u = (a * z)[sees].sum()
        squares = [((a + sign * z)[sees] ** 2).sum() for sign in (1, -1)]
        found.append((u, np.sqrt(squares[0] * squares[1]) / 2))
        pull = residual(u, step) * sees
        w, z = (
            (1 - step_size * decay) * w + step_size * (pull * z)[:, None] * unit,
            (1 - step_size * decay) * z + step_size * pull * a,
        )
    return np.array(found).T


def test_files_and_numbers(run, tmp_path):
    small = ("--kappas", "3", "--step-sizes", "0.4", "--noises", "0.5", "--decays", "0.1", "--width", 4, "--dim", 3)
    result = run(*small, "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"stability.png", "stability.csv", "stability.json"}
    stored = json.loads((tmp_path / "stability.json").read_text())
    assert json.loads(result.stdout) == stored
    assert stored["environment"]["precision"] == "float64"
    lines = {line["panel"]: line for line in stored["lines"]}
    for line in lines.values():
        line.update({name: np.array(value, float) for name, value in line.items() if isinstance(value, list)})
    assert set(lines) == set(study.PANELS)
    assert max(line["gap"] for line in lines.values()) < 1e-11
    assert stored["edge"] == pytest.approx(np.sqrt(1 / 0.4**2 - 1), rel=1e-12)
    assert stored["rich"][0] == pytest.approx(np.log(5 / 0.5852119534) / 0.2, rel=1e-6)

    # Trained again in NumPy, from the same first weights.
    kinds = {
        "paths": (3.0, 0.9, 0.4, 400, lambda u, k: 1 - u, 0.0),
        "decay": (5.0, 0.0, 0.2, 1500, lambda u, k: 1 / (1 + np.exp(u)), 0.1),
    }
    for panel, (kappa, start, size, steps, residual, decay) in kinds.items():
        network, unit = study.network_of(np.random.default_rng((0, study.PANELS.index(panel))), [kappa], start, 4, 3)
        w, z = np.asarray(network.w)[0], np.asarray(network.z)[0]
        u, found = numpy_descent(w, z, unit, size, steps, residual, decay)
        assert (u[0], found[0]) == pytest.approx((start, kappa), rel=1e-12, abs=1e-12)
        at = lines[panel]["x"].astype(int)
        np.testing.assert_allclose(lines[panel]["trained_u"], u[at], atol=1e-10)
        np.testing.assert_allclose(lines[panel]["trained_kappa"], found[at], atol=1e-10)
    assert lines["paths"]["kappa"][-1] < stored["edge"] < 3
    inside = lines["catapult"]["holds"] > 0
    assert (lines["catapult"]["kappa"][inside] < stored["edges"][0]).all()
    # (19.4): the product of 1 - (x g)^2 along the path that was trained, with the draws of the study.
    rng = np.random.default_rng((0, 2))
    study.network_of(rng, [2.0], 1.0, 4, 3)
    draws, u, kappa = rng.normal(size=400), 1.0, 2.0
    for draw in draws:
        c = 0.2 * (1 + 0.5 * draw - u)
        u, kappa = u * (1 + c**2) + 2 * c * np.hypot(kappa, u), kappa * abs(1 - c**2)
    assert lines["noise"]["trained_kappa"][-1] == pytest.approx(kappa, rel=1e-9)

    rows = list(csv.reader((tmp_path / "stability.csv").read_text().splitlines()))
    assert rows[0][:3] == ["panel", "of", "x"]
    assert len(rows) == 1 + sum(line["x"].size for line in lines.values())
    assert float(rows[1][4]) == lines["paths"]["kappa"][0]
    again = cli_steps.run_stability(stored["settings"])
    assert [line.gap for line in again.lines] == [line["gap"] for line in lines.values()]
    assert len(again.table().splitlines()) == 2 + len(lines)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--step-size", "0"), "'--step-size': 0.0 is not a finite number above 0"),
        (("--kappas", "1,1"), "names one twice"),
        (("--kappas", "one"), "'--kappas': 'one' is not one or several different numbers above 0"),
        (("--decays", "0"), "'--decays': '0' is not one or several different numbers above 0"),
        (("--width", "1"), "'1' is not a whole number of at least 2"),
        (("--steps", "5"), "'5' is not a whole number of at least 10"),
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
        ({"kappa": 2.0}, "kappa is no setting of the study of stability.*did you mean 'kappas'"),
        ({"noises": (0.1, -1)}, "noises must be a finite number above 0, got -1"),
        ({"points": 2}, "points must be an integer >= 3, got 2"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        study.stability_study(**settings)


def test_large_swings_are_told_from_those_under_the_law(x64):
    """Beyond |x g| = 1 networks die, and no number of theirs is held against the law."""
    few = {"steps": 100, "path_steps": 10, "noise_steps": 10, "decay_time": 5}
    found = study.stability_study(step_sizes=0.6, largest=5.0, points=5, **few)
    (line,) = found.of("catapult")
    assert line.holds.tolist() == [True, True, False, False, False]
    assert line.trained_kappa[-1] == 0
    assert line.gap < 1e-13
    assert "2 of 5" in found.table()
