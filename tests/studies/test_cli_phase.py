"""`gradstarve phase` on tiny maps, what it writes, and what it says of options that make none."""

import json

import jax
import pytest
from typer.testing import CliRunner

from gradstarve.cli import studies as cli_studies
from gradstarve.cli.main import app
from gradstarve.studies.phase import plane as phase


@pytest.fixture(autouse=True)
def _precision_of_the_command():
    yield
    jax.config.update("jax_enable_x64", False)


def run(*arguments):
    return CliRunner().invoke(app, ["phase", *map(str, arguments)])


def test_a_figure_a_plane_and_all_numbers(tmp_path):
    result = run("--planes", "neuron", "--losses", "hinge", "--pixels", 8, "--json", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    printed = json.loads(result.stdout)
    assert json.loads((tmp_path / "phase.json").read_text()) == printed
    assert [d["plane"] for d in printed["diagrams"]] == ["neuron"]
    assert printed["diagrams"][0]["table"][1]["classes"] == "antipodal"
    assert printed["environment"]["precision"] == "float64"
    stored = json.loads((tmp_path / "phase.json").read_text())
    settings = stored["diagrams"][0]["settings"]
    assert len(stored["diagrams"][0]["maps"]["hinge"]["antipodal_time"]) == 8
    assert {path.name for path in tmp_path.iterdir()} == {"phase-neuron.png", "phase.json"}
    assert "phase-neuron.png" in result.stderr
    again = cli_studies.run_phase({**settings, "losses": tuple(settings["losses"])})
    assert again.maps["hinge"]["antipodal_time"].tolist() == stored["diagrams"][0]["maps"]["hinge"]["antipodal_time"]


@pytest.mark.slow
def test_all_planes(tmp_path):
    result = run("--width", 3, "--pixels", 12, "--networks", 20, "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert {path.stem for path in tmp_path.glob("*.png")} == {f"phase-{plane}" for plane in phase.PLANES}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--planes", "angles"), "is not one of neuron, angle, failure, time"),
        (("--planes", "angle,angle"), "names one twice"),
        (("--losses", "squared"), "is not one of cross-entropy, hinge, exponential"),
        (("--planes", "neuron", "--width", "3"), "is for the planes failure, time"),
        (("--width", "0"), "'0' is not a whole number of at least 1"),
        (("--networks", "3"), "greater than or equal to 10"),
        (("--planes", "angle", "--seeds", "30"), "'--seeds': is for the planes failure, time"),
    ],
)
def test_wrong_options_are_told_in_one_line(arguments, told, tmp_path):
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert told in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_way_of_the_directory(tmp_path):
    (tmp_path / "out").write_text("")
    result = run("--planes", "neuron", "--pixels", 4, "--out", tmp_path / "out")
    assert result.exit_code == 2
    assert "'--out'" in result.output


def test_the_names_in_the_help_are_those_of_the_library():
    assert tuple(phase.PLANES) == cli_studies.PLANES
    assert cli_studies.PHASE_LOSSES == phase.PASSING
