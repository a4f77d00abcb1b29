"""Digits with a shortcut: what the images are, how outcomes are counted, and a small run of both frameworks."""

import json
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.studies import images as study
from gradstarve.studies.images import WAYS, ImageSettings, ImageStudy, Outcome, image_study, images

SMALL = {"networks": 2, "channels": 2, "train": 60, "test": 60, "steps": 60}


def test_images_are_coloured_as_told():
    train, test = images("colour", 0.9, 100, 60, 0.5, 3)
    for one, share in ((train, 0.9), (test, 0.5)):
        for sign in (1, -1):
            mine = one.y == sign
            assert (one.has == (one.y > 0))[mine].mean() == share
        pixels = one.x.reshape(-1, 8, 8, 3)
        assert pixels[one.has, ..., 1].max() == pixels[~one.has, ..., 0].max() == 0
        # Without the colour as bright as with it.
        np.testing.assert_allclose(one.clean.sum(1), one.x.sum(1), rtol=1e-5)
        np.testing.assert_array_equal(one.cells.sum(0), 1)
    assert not (train.clean[:, None] == test.clean[None]).all(-1).any()
    striped, _ = images("stripes", 0.9, 100, 60, 0.5, 3)
    behind = striped.x.reshape(-1, 8, 8, 3)[..., 2]
    assert behind[striped.has][:, :, 1::2].max() == behind[~striped.has][:, 1::2].max() == 0
    assert behind.max() == 0.5


def test_ways_are_compared():
    """Three seeds, in the first of which the order is the same, in the last turned round."""
    predicted = np.tile(np.linspace(0.1, 0.9, 9), (3, 1))
    trained = np.stack([predicted[0] + 0.05, predicted[0], predicted[0, ::-1]])
    rest = np.zeros((3, 4)), np.zeros((3, 4)), np.ones(3, bool), np.zeros(3, bool), np.ones((3, 2)), np.ones(3, bool)
    one = Outcome("jax", "colour", 0.95, predicted, trained, *rest)
    np.testing.assert_allclose(one.errors, [0.05, 0, np.abs(predicted[0] - predicted[0, ::-1]).mean()])
    np.testing.assert_allclose(one.ranks, [1, 1, -1])
    assert one.best.tolist() == [True, True, False]  # editing is not among them
    np.testing.assert_allclose(one.gained, [0.7, 0.7, -0.7])
    verdicts = dict(ImageStudy({"networks": 3}, (one,)).claims())
    assert verdicts["jax, colour 0.95: the report names the shortcut in every seed"]
    assert not verdicts["jax, colour 0.95: the way predicted to be best lifts the worst cell"]


def test_the_time_to_stop_is_chosen_on_the_other_half():
    _, test = images("colour", 0.9, 40, 40, 0.5, 0)
    right = np.zeros((3, 40), bool)
    right[1] = True
    assert study._stopped(right, test, 2) == 1
    assert study._stopped(right, test, 0) == 0
    # What is right by chance for one half at one time does not count for itself.
    half = np.zeros(40, bool)
    for cell in test.cells:
        half[np.flatnonzero(cell)[::2]] = True
    right = np.stack([half, ~half])
    assert study._stopped(right, test, 1) == 0


def test_alike_weights():
    train, _ = images("colour", 0.9, 100, 60, 0.5, 0)
    weights = study._alike(train)
    assert weights.mean() == pytest.approx(1)
    np.testing.assert_allclose([weights[cell].sum() for cell in train.cells], 25)


def made_up(framework, case, agreement, settings, tick):
    rng = np.random.default_rng(0)
    predicted, trained = rng.random((2, settings.networks, 9))
    count = settings.networks
    cells, seconds, flags = rng.random((count, 4)), np.ones((count, 2)), np.ones(count, bool)
    for _ in range(settings.networks):
        tick()
    return Outcome(framework, case, agreement, predicted, trained, cells, cells, flags, ~flags, seconds, flags)


def test_the_command(tmp_path, monkeypatch):
    """Files, tables and errors, of outcomes that are made up."""
    monkeypatch.setattr(study, "_outcome", made_up)
    small = ["--cases", "colour 0.9, clean", "--frameworks", "jax,torch", "--seeds", "3"]
    result = CliRunner().invoke(cli.app, ["coloured", *small, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} == {"coloured.png", "coloured.csv", "coloured.json"}
    stored = json.loads((tmp_path / "coloured.json").read_text())
    assert [one["framework"] for one in stored["outcomes"]] == ["jax", "jax", "torch", "torch"]
    assert np.shape(stored["outcomes"][0]["predicted"]) == (3, 9)
    assert stored["settings"]["cases"] == [["colour", 0.9], ["clean", 0.5]]
    again: Any = ImageSettings.of(**stored["settings"])
    assert again.cases == (("colour", 0.9), ("clean", 0.5))
    assert len((tmp_path / "coloured.csv").read_text().splitlines()) == 1 + 4 * 3 * 9
    assert "does not hold   jax, clean: no alarm" in result.stdout
    refusals = {"colours 0.9": "did you mean 'colour'", "colour 0.4": "above 1/2 and below 1", "colour x": "got 'colour x'"}
    for wrong, told in refusals.items():
        refused = CliRunner().invoke(cli.app, ["coloured", "--cases", wrong, "--out", str(tmp_path)])
        assert refused.exit_code == 2
        assert told in " ".join(refused.output.replace("│", " ").split())


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", pytest.param("torch", marks=pytest.mark.extras)])
def test_a_colour_is_learnt_as_predicted(framework):
    """Plain training learns the colour: cells in which it agrees are right, the others are not, and this was predicted."""
    if framework == "torch":
        pytest.importorskip("torch")
    (found,) = image_study(cases=("colour 0.9",), frameworks=(framework,), progress=False, **SMALL).outcomes
    assert found.predicted.shape == found.trained.shape == (2, len(WAYS))
    assert found.name == f"{framework}, colour 0.9"
    for cells in (found.cells.mean(0), found.trained_cells.mean(0)):
        assert min(cells[0], cells[3]) > max(cells[1], cells[2])
