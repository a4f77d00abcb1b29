"""`gradstarve digits` on the command line: files, numbers, errors, with one of its studies at a small size."""

import json
import os
import sys

import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.problem import _datasets as datasets
from gradstarve.studies.digits import study as digits


@pytest.fixture
def run(x64, monkeypatch):
    """The command with the study of the patch alone, in seconds."""
    settings = digits.settings
    small = {"width": 16, "fractions": [0.0, 0.9, 1.0], "patch_time": 40.0, "records": 8, "step_size": 0.5}
    monkeypatch.setattr(digits, "settings", lambda *given: settings(*given) | small)
    monkeypatch.setattr(digits, "STUDIES", {"starvation": digits.STUDIES["starvation"]})
    monkeypatch.setattr(digits, "_ORDER", ("starvation",))
    return lambda *arguments: CliRunner().invoke(cli.app, ["digits", *map(str, arguments)])


def test_files_tables_and_progress(run, tmp_path):
    out = tmp_path / "new" / "folder"
    result = run("--quick", "--pair", "3,8", "--seeds", 2, "--out", out)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == ["digits-starvation.png", "digits.json"]
    text = (out / "digits.json").read_text()
    stored = json.loads(text)
    assert stored["settings"]["seeds"] == 2
    assert stored["settings"]["pair"] == [3, 8]
    assert stored["environment"]["precision"] == "float64"
    assert "scikit-learn" in stored["environment"]
    claims = stored["claims"]
    assert {claim["verdict"] for claim in claims} <= {"holds", "does not hold"}
    for claim in claims:
        row = next(line for line in result.stdout.splitlines() if claim["claim"] in line)
        assert row.endswith(claim["verdict"])
        assert claim["measured"] in row
    ends = [stored["starvation"]["runs"][fraction]["clean"]["mean"][-1] for fraction in ("0.0", "0.9", "1.0")]
    assert " > ".join(f"{100 * end:.1f}" for end in ends) in claims[0]["measured"]
    assert "(c) patch on 90% of class +" in result.stderr
    assert str(tmp_path) not in text
    assert os.uname().nodename not in stored["environment"].values()
    printed = run("--quick", "--seeds", 2, "--out", out, "--json")
    assert json.loads(printed.stdout)["claims"] == claims


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pair", "3,3"), "two different digits"),
        (("--pair", "3"), "two different digits"),
        (("--pair", "3,12"), "two different digits"),
        (("--seeds", "1"), "seeds"),
    ],
)
def test_bad_arguments(run, tmp_path, arguments, message):
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())


def test_without_scikit_learn_one_line_says_what_to_install(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    datasets._load.cache_clear()
    result = run("--quick", "--out", tmp_path)
    assert result.exit_code == 2
    last = result.stderr.strip().splitlines()[-1]
    assert last == "error: the digits come with scikit-learn; pip install 'gradstarve[examples]'"
