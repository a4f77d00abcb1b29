"""`gradstarve align` on a small file: files, numbers against NumPy descent, errors; and `datasets.read`."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import gradstarve as gs
from gradstarve.cli import main as cli


@pytest.fixture
def run(x64, tmp_path):
    return lambda *arguments: CliRunner().invoke(cli.app, ["align", *map(str, arguments), "--out", str(tmp_path / "out")])


def points_file(path):
    rng = np.random.default_rng(4)
    points, labels = rng.normal(size=(9, 3)), rng.integers(0, 2, 9)
    lines = [",".join(map(str, (*point, label))) for point, label in zip(points, labels, strict=True)]
    path.write_text("\n".join(["a,b,c,label", *lines]) + "\n")
    return points, 2 * labels - 1


def test_files_and_numbers(run, tmp_path):
    points, labels = points_file(tmp_path / "points.csv")
    result = run(tmp_path / "points.csv", "--width", 7, "--scale", 1e-4, "--json")
    assert result.exit_code == 0, result.output
    folder = tmp_path / "out"
    assert {path.name for path in folder.iterdir()} == {"align.png", "align.csv", "align.json"}
    stored = json.loads((folder / "align.json").read_text())
    assert json.loads(result.stdout) == stored
    # Trained again in NumPy: the angles drawn are those of descent, and the law comes close to them.
    network = gs.init_two_layer(0, (), 7, 3, 1e-4, 1e-4)
    w, z = np.array(network.w), np.array(network.z)
    times, trained = np.array(stored["times"], float), np.array(stored["trained_angles"], float)
    step, mean = times[1] / (1200 // 23), points[labels > 0].mean(0)
    for k in range(1200 // 23 * 23 + 1):
        if k % (1200 // 23) == 0:
            cosine = w @ mean / np.linalg.norm(w, axis=1) / np.linalg.norm(mean)
            np.testing.assert_allclose(trained[k // (1200 // 23), :, 0], np.degrees(np.arccos(cosine)), atol=1e-5)
        seen = w @ points.T
        pull = labels / 9 / (1 + np.exp(labels * (z @ np.maximum(seen, 0))))
        w, z = w + step * z[:, None] * ((seen > 0) * pull) @ points, z + step * np.maximum(seen, 0) @ pull
    law = np.array(stored["angles"], float)
    known = np.isfinite(law)
    assert known.mean() > 0.7
    early = times < 0.6 * stored["valid_until"]
    assert np.abs(law - trained)[early][known[early]].max() < 0.6
    assert sum(stored["neurons"]) + sum(stored["dead"]) + sum(stored["undetermined"]) <= 7
    rows = list(csv.reader((folder / "align.csv").read_text().splitlines()))
    assert len(rows) == 1 + 24 * 7


def test_mistakes_are_named(run, tmp_path):
    points_file(tmp_path / "points.csv")
    (tmp_path / "empty.csv").write_text("a,label\n")
    for arguments, message in (
        ((tmp_path / "absent.csv",), "there is no file"),
        ((tmp_path / "empty.csv",), "has no points"),
        (("--digits", "3,x"), "two different digits"),
        (("--scale", -1), "--scale"),
        (("--loss", "hinges"), "hinge"),
    ):
        result = run(*arguments)
        assert result.exit_code != 0
        assert message in result.output.replace("\n", " ")


def test_files_of_points(x64, tmp_path):
    points, labels = points_file(tmp_path / "points.csv")
    data = gs.datasets.read(tmp_path / "points.csv")
    np.testing.assert_array_equal(data.points, points)
    np.testing.assert_array_equal(data.labels, labels)
    np.savez(tmp_path / "points.npz", x=points, y=labels, q=np.arange(1.0, 10.0))
    data = gs.datasets.read(str(tmp_path / "points.npz"))
    np.testing.assert_allclose(data.weights, np.arange(1, 10) / 45, rtol=1e-15)
    np.savez(tmp_path / "other.npz", z=points)
    (tmp_path / "broken.npz").write_text("no archive")
    for name, text, message in (
        ("a.csv", "a,b\n1,2\n", "no column label, but a, b"),
        ("a.csv", "a,label\n1,x\n", "line 2, column 'label' of a.csv is 'x'"),
        ("a.csv", "a,label\n1\n", "line 2 of a.csv has 1 entries"),
        ("a.csv", "a,label\n1,0\n2,1\n3,2\n", "3 different labels"),
        ("a.tsv", "a\tlabel\n1\tnan\n2\t1\n", "label 0 of a.tsv is nan"),
        ("a.csv", "a,label,y\n1,0,1\n", "2 columns of labels: label, y"),
        ("a.csv", "a,label,q\n1,0,0\n1,1,0\n", "a sum above 0"),
        ("a.txt", "", "no .csv, .tsv or .npz"),
        ("other.npz", None, "no array points or x, but z"),
        ("broken.npz", None, "cannot be read as NPZ"),
    ):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=message):
            gs.datasets.read(tmp_path / name)
    (tmp_path / "b.csv").write_bytes("a,label\n1,\xe9\n".encode("latin-1"))
    np.savez(tmp_path / "complex.npz", x=points + 1j, y=labels)
    (tmp_path / "empty.npz").write_bytes(b"")
    for name, message in (
        ("b.csv", "b.csv cannot be read as a table in UTF-8"),
        ("complex.npz", "points of complex.npz must be real numbers, got an array of complex128"),
        ("empty.npz", "empty.npz cannot be read as NPZ"),
        (".", "is a directory"),
    ):
        with pytest.raises(ValueError, match=message):
            gs.datasets.read(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        gs.datasets.read(tmp_path / "absent.csv")
    with pytest.raises(ValueError, match="path must be"):
        gs.datasets.read(3)
