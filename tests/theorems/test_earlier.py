"""Two runs of `verify` into one directory: the second one loses nothing of the first, and the same one again is pleasant."""

import dataclasses
import json
import sys
from pathlib import Path

import pytest

from gradstarve.page import read_results

sys.path.append(str(Path(__file__).parents[1] / "page"))

import made_up


def report(*names, **changes):
    precision = changes.get("precision", "float64")
    return made_up.report([made_up.row(name, precision=precision) for name in names], **changes)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_same_run_again_replaces_its_files(tmp_path, capsys):
    for seconds in (1.0, 2.0):
        again = report("balance", "sign")
        rows = tuple(dataclasses.replace(row, seconds=seconds) for row in again.rows)
        dataclasses.replace(again, rows=rows).save(tmp_path)
    assert names(tmp_path) == ["balance.png", "sign.png", "verify.json"]
    assert json.loads((tmp_path / "verify.json").read_text())["seconds"] == 4.0
    # Figures of another kind stand beside them, and both belong to the numbers.
    again.save(tmp_path, "svg")
    assert names(tmp_path) == ["balance.png", "balance.svg", "sign.png", "sign.svg", "verify.json"]
    assert set(json.loads((tmp_path / "verify.json").read_text())["figures"]) == set(names(tmp_path)) - {"verify.json"}
    assert all(content.startswith(b"<?xml") for content in read_results(tmp_path)[1].values())
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("change", [{}, {"key_data": (0, 8)}, {"trials": 24, "quick": False}, {"precision": "float32"}])
def test_another_run_puts_the_earlier_one_aside(tmp_path, capsys, change):
    report("balance", "deaths").save(tmp_path)
    (tmp_path / "notes.txt").write_text("the user's own")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    second = report("balance", "sign") if not change else report("balance", "deaths", **change)
    second.save(tmp_path)
    assert "Results of an earlier run are kept in" in capsys.readouterr().err
    aside = {path.name: path.read_bytes() for path in (tmp_path / "earlier-1").iterdir()}
    assert aside == {name: content for name, content in before.items() if name != "notes.txt"}
    kept = {f"{row.theorem.name}.png" for row in second.rows}
    assert set(names(tmp_path)) == kept | {"verify.json", "earlier-1", "notes.txt"}
    assert read_results(tmp_path / "earlier-1")[0]["key"] == [0, 7]
    assert read_results(tmp_path)[0] == second.to_dict() | {"figures": read_results(tmp_path)[0]["figures"]}
    report("deaths").save(tmp_path)
    assert {"earlier-1", "earlier-2"} <= set(names(tmp_path))


def test_files_of_the_user_are_never_removed(tmp_path):
    report("balance", "sign").save(tmp_path)
    (tmp_path / "sign.png").write_bytes(b"drawn over")
    outside = tmp_path.parent / f"{tmp_path.name}-outside.png"
    outside.write_bytes(b"x")
    path = tmp_path / "verify.json"
    found = json.loads(path.read_text())
    found["figures"][f"../{outside.name}"] = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    path.write_text(json.dumps(found))
    report("balance").save(tmp_path)
    assert (tmp_path / "sign.png").read_bytes() == b"drawn over"
    assert outside.exists()
    assert names(tmp_path / "earlier-1") == ["balance.png", "verify.json"]


@pytest.mark.parametrize("content", ["", "{}", '{"theorems": 3}', "[" * 10**5, '{"theorems": [], "figures": [1]}'])
def test_a_file_of_somebody_else_is_not_touched(tmp_path, content):
    (tmp_path / "verify.json").write_text(content)
    with pytest.raises(ValueError, match=r"verify\.json' is not what verify writes; move it away"):
        report("balance").save(tmp_path)
    assert names(tmp_path) == ["verify.json"]
    assert (tmp_path / "verify.json").read_text() == content


def test_an_empty_path_is_refused():
    with pytest.raises(ValueError, match="an empty path"):
        report("balance").save("")
