"""`gradstarve starve`, run in this process at a small size: files, numbers, errors."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from gradstarve import theory
from gradstarve.cli import main as cli
from gradstarve.cli import studies as cli_studies
from gradstarve.studies.features import ORDINARY

SMALL = ("--types", "1 0/1 1", "--probabilities", "0.5,0.5", "--losses", "hinge", "--depths", 1, "--no-ordinary")


@pytest.fixture
def starve(x64, tmp_path):
    """Run the command with these arguments, into a directory `out`."""
    out = ("--out", str(tmp_path / "out"))
    return lambda *arguments: CliRunner().invoke(cli.app, ["starve", *map(str, arguments), *out])


def outcome(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code


def test_it_writes_a_table_a_figure_and_all_numbers(starve, tmp_path):
    result = starve(*SMALL, "--time", 100)
    assert outcome(result) == 0, result.output
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("one layer")]
    # q = 1, and feature 2 stops at 1/(2 + q) of what it reaches alone.
    assert rows[1][:6] == ["one", "layer", "hinge", "2", "0.6667", "0.6667"]
    assert [row[6:8] for row in rows] == [["1", "1.33"], ["2", "never"]]
    folder = tmp_path / "out"
    assert (folder / "starve.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((folder / "starve.json").read_text())
    assert stored["settings"]["probabilities"] == [0.5, 0.5]
    assert stored["environment"]["precision"] == "float64"
    (cell,) = stored["features"]["cells"]
    assert cell["gap"] < 1e-7
    assert cell["index_gap"] < 1e-7
    law = theory.starving_pair(0.5, 0.5, "hinge").features(np.array(stored["features"]["times"]))
    np.testing.assert_allclose(cell["law"], np.stack(law, axis=-1), atol=1e-12)
    again = cli_studies.run_starve(stored["settings"])
    assert again.cell(1, "hinge").gap == cell["gap"]
    assert again.table() in result.stdout
    with pytest.raises(KeyError):
        again.cell(ORDINARY, "hinge")
    # As JSON: the same on standard output, and nothing else there.
    result = starve(*SMALL, "--time", 100, "--json")
    assert json.loads(result.stdout) == stored


@pytest.mark.slow
def test_the_default_shows_every_network_and_loss(starve, tmp_path):
    result = starve()
    assert outcome(result) == 0, result.output
    stored = json.loads((tmp_path / "out" / "starve.json").read_text())
    assert stored["settings"]["probabilities"] == [0.8, 0.2]
    cells = {(cell["model"], cell["loss"]): cell for cell in stored["features"]["cells"]}
    assert len(cells) == 12
    assert max(cell["gap"] for cell in cells.values()) < 1e-8
    assert max(cell["index_gap"] for cell in cells.values()) < 1e-8
    for loss in ("cross-entropy", "hinge", "exponential"):
        rare = [cells[model, loss]["index"][-1][1] for model in (1, 2, 3)]
        assert rare == sorted(rare), "depth makes it worse (10.5)"
        ordinary = cells[ORDINARY, loss]
        assert ordinary["distance"] > 0.1, "ordinary neurons do not obey (10.1)"
        assert ordinary["index"][-1][1] < rare[1]
        low, _, high = np.array(ordinary["band"])
        assert np.isfinite(high).all()
        assert (low <= high).all()
        # What (10.7) says of networks that see everything is about what random ones do.
        assert low[-1, 1] < 1.2 * ordinary["law"][-1][1]
        assert high[-1, 1] > 0.5 * ordinary["law"][-1][1]
    # The exact time of the exponential loss (10.2): v_1 = v_2 + q (e^v_2 - 1) at v_2 = 1.
    reach = cells[1, "exponential"]["reach"][1]
    assert float(theory.starving_pair(0.8, 0.2, "exponential").features(reach)[1]) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--types", "1,0;1"), "'--types': '1,0;1' has types of 2, 1 features; give each a 0 or 1 per feature"),
        (("--types", "1,2"), "'2' is neither 0 nor 1 nor -1"),
        (("--types", ";"), "no type"),
        (("--types", "1,0;0,0"), "type 2 shows no feature"),
        (("--types", "1,0;1,0"), "feature 2 is in no type"),
        (("--probabilities", "0.5,0.6"), "sums to 1.1, not 1; try 0.4545,0.5455"),
        (("--probabilities", "1"), "'1' has 1 numbers for 2 sample types; give 2"),
        (("--probabilities", "0.5,half"), "'--probabilities': '0.5,half' is not one or several numbers above 0"),
        (("--scales", "1,-1"), "'--scales': '1,-1' is not one or several numbers above 0"),
        (("--scales", "1,1,1"), "'1,1,1' has 3 numbers for 2 features"),
        (("--init", "0"), "'--init': '0' is not one or several numbers above 0"),
        (("--init", "0.1,0.1,0.1"), "has 3 numbers for 2 features"),
        (("--init", "1e-60", "--depths", "3"), "error: --init must be at least"),
        (("--losses", "hinge,huber"), "'huber' is not one of cross-entropy, hinge, exponential, squared"),
        (("--losses", "hinge,hinge"), "names one twice"),
        (("--depths", "0"), "'--depths': '0' is not a number of layers"),
        (("--depths", "two"), "'two' is not a number of layers"),
        (("--time", "-1"), "-1.0 is not a finite number above 0"),
        (("--time", "inf"), "inf is not a finite number above 0"),
        (("--width", "0"), "--width"),
    ],
)
def test_bad_values_are_one_clear_line(starve, tmp_path, arguments, message):
    result = starve(*arguments)
    assert outcome(result) == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output
    assert not (tmp_path / "out" / "starve.json").exists()


def test_unwritable_out_is_found_before_the_work(x64, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli_studies, "run_starve", lambda settings: pytest.fail("worked before looking at --out"))
    result = CliRunner().invoke(cli.app, ["starve", "--out", str(tmp_path / "file")])
    assert outcome(result) == 2
    assert "'--out'" in result.output
