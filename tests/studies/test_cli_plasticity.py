"""`gradstarve plasticity` at a small size: files, numbers against NumPy training, errors."""

import csv
import json

import numpy as np
import pytest
from typer.testing import CliRunner

import gradstarve as gs
from gradstarve.cli import main as cli
from gradstarve.cli import steps as cli_steps
from gradstarve.studies import plasticity as study


@pytest.fixture
def run(x64, tmp_path):
    return lambda *arguments: CliRunner().invoke(cli.app, ["plasticity", *map(str, arguments), "--out", str(tmp_path)])


def numpy_tasks(w, z, unit, ends, step, opposite=False):
    """a = w . x of every neuron after each task, and the errors of the class at every step; labels flip after a task.

    `step(descent of w, descent of z, w, z)` is the change of both. `opposite`: a class of the other label at -x too.
    """
    found, errors, k = [], [], 0
    for task, end in enumerate(ends):
        label = (-1) ** task
        while True:
            a = w @ unit
            seen, behind = np.maximum(a, 0), np.maximum(-a, 0)
            margins = [label * (seen * z).sum(-1), -label * (behind * z).sum(-1)]
            wrong = [1 / (1 + np.exp(m)) for m in margins]
            errors.append(wrong[0])
            if k == end:
                break
            push = label * wrong[0][:, None] * (a > 0)
            pull_z = push * seen
            if opposite:
                away = -label * wrong[1][:, None] * (a < 0)
                push, pull_z = (push - away) / 2, (pull_z + away * behind) / 2
            changes = step((push * z)[..., None] * unit, pull_z, w, z)
            w, z, k = w + changes[0], z + changes[1], k + 1
        errors.pop()
        found.append(w @ unit)
    return found, np.array(errors)


RULES = {
    "descent": lambda dw, dz, w, z: (0.25 * dw, 0.25 * dz),
    "antipodal": lambda dw, dz, w, z: (0.25 * dw, 0.25 * dz),
    "decay": lambda dw, dz, w, z: (0.25 * (dw - 0.002 * w), 0.25 * (dz - 0.002 * z)),
    "sign": lambda dw, dz, w, z: (0.0015 * np.sign(dw), 0.0015 * np.sign(dz)),
}


@pytest.mark.parametrize("rules", ["descent,antipodal", pytest.param(",".join(study.RULES), marks=pytest.mark.slow)])
def test_files_and_numbers(run, tmp_path, rules):
    small = ("--seeds", 8, "--width", 6, "--dim", 3, "--tasks", 3, "--widths", "3", "--quick", "--rules", rules)
    result = run(*small, "--json")
    assert result.exit_code == 0, result.output
    names = ("plasticity.png", "plasticity.json", "plasticity-tasks.csv", "plasticity-widths.csv")
    assert {path.name for path in tmp_path.iterdir()} == set(names)
    stored = json.loads((tmp_path / "plasticity.json").read_text())
    assert json.loads(result.stdout) == stored
    assert stored["environment"]["precision"] == "float64"
    tasks = {(one["rule"], one["task"]): one for one in stored["tasks"]}
    assert set(tasks) == {(rule, k) for rule in rules.split(",") for k in (1, 2, 3)}

    # Laws: 3/4, then 1/2 for ever; by signs arctan(1/rho); no neuron dies of frequencies, nor on antipodal classes.
    slope = np.arctan(1 / stored["reach"]) / np.pi
    laws = {"descent": (0.75, 0.5, 0.5), "sign": (0.5 + slope, 2 * slope, 2 * slope)}
    laws |= {"decay": laws["descent"], "normalised": laws["descent"], "reweighted": (0.75,) * 3, "antipodal": (1.0,) * 3}
    for rule, shares in ((rule, laws[rule]) for rule in rules.split(",")):
        assert [tasks[rule, k]["law"] for k in (1, 2, 3)] == pytest.approx(shares, abs=1e-12)
    # Training is the law: of every neuron, and of the steps that a task takes.
    for one in tasks.values():
        assert one["right"] == 1, one
        assert one["alive"] == one["exact"]
        assert one["learns"] == pytest.approx(one["trained"]), one
    for one in stored["tasks"] + stored["widths"]:
        # The law of signs is one of small steps.
        off = 0.06 if one["rule"] == "sign" and one["task"] > 1 else 1e-12
        assert abs(one.get("alive", one["trained"]) - one["law"]) <= 4 * one["error"] + off, one

    # Trained again in NumPy, from the same first weights.
    settings = study.PlasticitySettings.of(**stored["settings"])
    unit, start = study._unit(settings), study._start(settings, 8, 6, 1)
    w, z, ends = np.asarray(start.w), np.asarray(start.z), [500, 1500, 2500]
    for rule, step in ((rule, RULES[rule]) for rule in rules.split(",") if rule in RULES):
        found, errors = numpy_tasks(w, z, unit, ends, step, rule == "antipodal")
        sees = w @ unit > 0
        for k, (a, begin) in enumerate(zip(found, (0, *ends), strict=False), start=1):
            alive = (a != 0).mean() if rule == "antipodal" else (a > 0)[sees].mean()
            assert tasks[rule, k]["alive"] == pytest.approx(alive)
            # The error at a beginning is still that of the old labels.
            there = errors[begin + (k > 1) : ends[k - 1]] <= 0.1
            took = (there.argmax(0) + (k > 1))[there.any(0)]
            # JSON has no NaN, and where no network gets there, there is no median.
            assert tasks[rule, k]["lost"] == pytest.approx(1 - len(took) / 8)
            assert tasks[rule, k]["trained"] == (pytest.approx(np.median(took)) if len(took) else "nan"), (rule, k)

    # The plane: fates of NumPy training, and exact borders.
    plane = {name: np.array(value) for name, value in stored["plane"].items()}
    assert (plane["died"] == plane["said"]).all()
    assert set(plane["died"]) == {0, 1, 2, 3}
    np.testing.assert_allclose(plane["highest"][[0, 2]], settings.clocks[::2], atol=0.02)
    np.testing.assert_allclose(plane["lowest"], [0, settings.clocks[1], settings.clocks[1]], atol=0.02)
    for task, lived in enumerate((plane["died"] != 1, (plane["died"] == 0) | (plane["died"] == 3), plane["died"] == 0)):
        above = plane["z"] > -plane["a"] / np.tanh(plane["highest"][task])
        below = plane["lowest"][task] == 0 or plane["z"] < plane["a"] / np.tanh(-plane["lowest"][task])
        np.testing.assert_array_equal(lived, above & below)

    # A class of h neurons is lost with (1 - share/2)^h.
    for one in stored["widths"]:
        share = laws[one["rule"]][one["task"] - 1]
        assert one["law"] == pytest.approx((1 - share / 2) ** one["width"])
    rows = list(csv.reader((tmp_path / "plasticity-tasks.csv").read_text().splitlines()))
    assert rows[0] == list(study.Task._fields)
    assert len(rows) == 1 + len(tasks)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--rules", "adam"), "'adam' is not one of descent, decay, normalised, sign, reweighted, antipodal"),
        (("--step-size", "0"), "'--step-size': 0.0 is not a finite number above 0"),
        (("--tasks", "1"), "'1' is not a whole number of at least 2"),
        (("--widths", "0,2"), "'0,2' is not one or several whole numbers of at least 1"),
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
        ({"width_": 2}, "width_ is no setting of the study of plasticity.*did you mean 'width'"),
        ({"rules": ("descent", "sing")}, "rules must be among descent, .*got 'sing'.*did you mean 'sign'"),
        ({"clocks": (0.9, 0.4)}, "clocks must be by turns above and below 0"),
        ({"goal": 0.0}, "goal must be a finite number above 0, got 0"),
    ],
)
def test_wrong_settings_are_named(settings, told):
    with pytest.raises(ValueError, match=told):
        study.plasticity_study(**settings)


def test_signs_do_not_go_back_the_way_they_came(x64):
    """Where z passes 0 and comes back to where it was, a neuron has lost 2 eta rho of its a."""
    unit, eta = np.array([0.6, 0.8]), 0.01
    data = gs.Dataset(unit[None], [1.0])
    flipped = gs.Dataset(unit[None], [-1.0])
    start = gs.TwoLayerReLU([(0.9 * unit).tolist()], [0.055])
    run = gs.simulate([(10, flipped), (None, data)], start, "cross-entropy", gs.SignDescent(eta), 20, record_every=20)
    assert float(run.final.z[0]) == pytest.approx(0.055, abs=1e-14)
    assert float(run.final.w[0] @ unit) == pytest.approx(0.9 - 2 * eta * 1.4, abs=1e-14)


def test_names_are_those_of_the_study():
    assert cli_steps.RULES == study.RULES
