"""`gradstarve shortcut` and signed types in `gradstarve starve`, at a small size: files, numbers, errors."""

import json

import numpy as np
import pytest
from scipy.stats import norm
from typer.testing import CliRunner

from gradstarve import theory
from gradstarve.cli import main as cli
from gradstarve.studies.shortcut import shortcut_study

SMALL = ("--agreements", "0.8", "--losses", "hinge", "--shortcut", 0.5, "--time", 20, "--seeds", 2, "--width", 4)
SMALL += ("--pixels", 5)


@pytest.fixture
def run(x64, tmp_path):
    return lambda *arguments: CliRunner().invoke(cli.app, [*map(str, arguments), "--out", str(tmp_path)])


def test_files_and_numbers(run, tmp_path):
    result = run("shortcut", *SMALL, "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"shortcut.png", "shortcut.json"}
    stored = json.loads((tmp_path / "shortcut.json").read_text())
    assert json.loads(result.stdout) == stored
    (panel,) = stored["panels"]
    p, core, side = 0.8, 1.0, 0.25  # (20.4)
    lead = 2 * p - 1
    assert panel["rest"] == pytest.approx(lead * side * (core - side) / ((core + side) * (core + lead * side)), abs=1e-12)
    assert panel["peak"] == pytest.approx([1 / (core + lead * side), lead * side / (core + lead * side)])
    # At the end: v_c = 1 + v_s, as the minority has reached its margin.
    v = 1 + panel["rest"], panel["rest"]
    worst = norm.cdf((v[0] - v[1]) / (0.6 * np.hypot(v[0], v[1] / 0.5)))
    assert panel["worst"][-1] == pytest.approx(worst, rel=1e-9)
    assert panel["gap"] < 5
    assert np.shape(stored["maps"]) == (1, 5, 5)


def test_signed_types_starve(run, tmp_path):
    result = run("starve", "--types", "1,1/1,-1", "--probabilities", "0.9,0.1", "--losses", "squared", "--no-ordinary")
    assert result.exit_code == 0, result.output
    (cell,) = json.loads((tmp_path / "starve.json").read_text())["features"]["cells"]
    assert cell["model"] == 1
    assert cell["gap"] < 1e-7
    side = np.array(cell["law"])[:, 1]
    assert side.max() == pytest.approx(theory.shortcut(0.9, "squared").peak().height[0], rel=1e-2)
    assert abs(side[-1]) < 1e-9  # unlearnt (20.5)
    result = run("starve", "--types", "1,1/1,-1", "--depths", "1,2")
    assert result.exit_code == 2
    assert "depths must be 1 for types that hold -1" in result.output


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--agreements", "0.4"), "agreements must be above 1/2 and below 1, got 0.4"),
        (("--losses", "hinges"), "did you mean hinge"),
        (("--noise", "0"), "'--noise': 0.0 is not a finite number above 0"),
    ],
)
def test_wrong_options_are_told_in_one_line(run, tmp_path, arguments, told):
    result = run("shortcut", *arguments)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_wrong_settings_are_named():
    with pytest.raises(ValueError, match=r"agreement is no setting of the study of shortcuts.*did you mean 'agreements'"):
        shortcut_study(agreement=0.9)
    with pytest.raises(ValueError, match="losses must be among"):
        shortcut_study(losses=("none",))
