"""The command line, run in this process at small sizes: files, numbers, errors, help."""

import json
import math
import os
import sys

import jax
import numpy as np
import pytest
from typer.testing import CliRunner

import gradstarve
from gradstarve.cli import _stop as cli_stop
from gradstarve.cli import derive as cli_derive
from gradstarve.cli import main as cli
from gradstarve.cli import options as cli_options
from gradstarve.cli import sweep as cli_sweep
from gradstarve.ground import files, text
from gradstarve.problem import LOSSES, datasets
from gradstarve.simulation.engines import _choose as engines
from gradstarve.simulation.sweep import _plan as sweep_plan
from gradstarve.simulation.sweep import _run as sweep_blocks
from gradstarve.simulation.sweep import _statistics as sweep_statistics

SMALL = ("--seeds", "6", "--steps", "40", "--width", "3", "--dim", "2")


@pytest.fixture
def run(x64):
    """Run the command with these arguments; the fixture under it turns 64 bits off again."""
    return lambda *arguments: CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


def outcome(result):
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code


@pytest.mark.parametrize(
    ("problem", "dynamics", "loss"),
    [
        ("antipodal", "descent", "cross-entropy"),
        ("antipodal", "flow", "hinge"),
        ("orthogonal", "descent", "exponential"),
        ("orthogonal", "flow", "squared"),
        ("antipodal", "sam", "hinge"),
    ],
)
def test_overlay_writes_figure_and_numbers(run, tmp_path, problem, dynamics, loss):
    out = tmp_path / "new" / "folder"
    options = ("--problem", problem, "--dynamics", dynamics, "--loss", loss)
    options += ("--norms", "1,1.5", "--record-every", 20, "--seed", 3)
    result = run("overlay", *SMALL, *options, "--out", out)
    assert outcome(result) == 0, result.output
    assert (out / "overlay.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((out / "overlay.json").read_text())
    found = stored["comparison"]
    assert found["gap"] < (1e-6 if dynamics == "flow" else 1e-12)
    assert max(found["gaps"]) == found["gap"]
    assert len(found["gaps"]) == found["networks"] == 6
    assert found["records"] == 3
    assert np.array([row["norms"] for row in found["classes"]]) == pytest.approx(np.array([[1, 1], [1.5, 1.5]]))
    assert [stored["settings"][name] for name in ("problem", "dynamics", "loss")] == [problem, dynamics, loss]
    assert stored["settings"]["norms"] == [1.0, 1.5]
    assert stored["environment"]["precision"] == "float64"
    assert stored["environment"]["jax"] == jax.__version__
    assert "Worst gap" in result.stdout
    again = cli.run_overlay(stored["settings"])
    assert again.gap == found["gap"]


def test_json_is_the_file_and_names_no_place(run, tmp_path):
    result = run("overlay", *SMALL, "--json", "--figures", "svg", "--out", tmp_path)
    text = (tmp_path / "overlay.json").read_text()
    assert result.stdout == text
    assert result.stderr == f"Wrote {tmp_path / 'overlay.svg'} and {tmp_path / 'overlay.json'}\n"
    assert (tmp_path / "overlay.svg").read_text().startswith("<?xml")
    assert str(tmp_path) not in text
    assert os.uname().nodename not in json.loads(text)["environment"].values()


@pytest.mark.parametrize(
    ("arguments", "listed"),
    [
        (("overlay", "--loss", "huber"), "'huber' is not one of cross-entropy, hinge, exponential, squared"),
        (("overlay", "--problem", "moons"), "antipodal, orthogonal"),
        (("overlay", "--dynamics", "sgd"), "descent, flow"),
        (("overlay", "--dynamics", "adam"), "descent, flow, normalised, sign, sam"),
        (("derive", "mood"), "mode, one-layer"),
        (("derive", "mode", "--loss", "huber"), "cross-entropy, hinge, exponential, squared"),
        (("derive", "all", "--loss", "huber"), "cross-entropy, hinge, exponential, squared"),
        (("derive", "softmax", "--loss", "hinge"), "'hinge' is not one of cross-entropy"),
        (("derive", "mode", "--format", "html"), "text, markdown, latex"),
        (("verify", "no-such-theorem"), "balance"),
    ],
)
def test_unknown_values_list_the_valid_ones(run, arguments, listed):
    result = run(*arguments)
    assert outcome(result) == 2
    assert listed in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--seeds", "0"), "--seeds"),
        (("--width", "-1"), "--width"),
        (("--steps", "many"), "--steps"),
        (("--steps", "0"), "--steps"),
        (("--record-every", "0"), "--record-every"),
        (("--seed", "-1"), "--seed"),
        (("--step-size", "nan"), "nan is not a finite number above 0"),
        (("--step-size", "-0.1"), "-0.1 is not a finite number above 0"),
        (("--scale-w", "inf"), "inf is not a finite number above 0"),
        (("--norms", "1"), "not two numbers above 0"),
        (("--norms", "1,nan"), "not two numbers above 0"),
        (("--frequencies", "a,b"), "not two numbers above 0"),
        (("--frequencies", "0.7,0.7"), "weights must sum to 1"),
        (("--problem", "orthogonal", "--dim", "1"), "dim must be an integer >= 2"),
        (("--loss", "squared", "--step-size", "1000"), "diverged"),
    ],
)
def test_bad_values_are_one_clear_line(run, tmp_path, arguments, message):
    result = run("overlay", *SMALL, *arguments, "--out", tmp_path)
    assert outcome(result) == 2
    assert message in result.output
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_unwritable_out_is_found_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli, "run_overlay", lambda settings: pytest.fail("worked before looking at --out"))
    result = run("overlay", "--out", tmp_path / "file")
    assert outcome(result) == 2
    assert "'--out'" in result.output
    assert "is a file" in result.output


@pytest.fixture
def sweep(run, tmp_path):
    """`gradstarve sweep` of a few small networks, into a directory `out`."""
    small = ("--seeds", 6, "--steps", 40, "--width", 3, "--scale-w", 0.5, "--out", tmp_path / "out")
    return lambda *arguments: run("sweep", *small, *arguments)


def test_sweep_writes_table_figure_and_numbers(sweep, tmp_path):
    swept = ("--step-size", "0.1,0.5", "--over", "frequency=0.6,0.9", "--over", "norm=1,2")
    result = sweep(*swept, "--engine", "reference", "--directory", tmp_path / "chunks", "--seed", 4)
    assert outcome(result) == 0, result.output
    out = tmp_path / "out"
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    stored = json.loads((out / "sweep.json").read_text())
    assert stored["axes"] == ["frequency", "norm", "step_size"]
    assert stored["environment"]["engine"] == "reference"
    assert [entry["step_size"] for entry in stored["summary"]] == [0.1, 0.5] * 4
    again = cli_sweep.run_sweep(stored["settings"], engine="reference")
    assert again.shape == (2, 2, 2)
    with np.load(out / "sweep.npz") as statistics:
        assert np.array_equal(statistics["margin_mean"], again["margin_mean"])
        assert np.array_equal(statistics["step"], again.grid)
        assert statistics["margin_edges"].size == statistics["margin_histogram"].shape[-1] + 1
    assert stored["summary"] == files.to_jsonable(again.summary())
    assert again.table() in result.stdout
    assert list((tmp_path / "chunks").glob("chunk-*.npz"))
    # The same command reads what it has stored, one with more values reuses it, another one is refused.
    resumed = sweep(*swept, "--engine", "reference", "--directory", tmp_path / "chunks", "--seed", 4, "--json")
    assert outcome(resumed) == 0
    assert json.loads(resumed.stdout) == stored
    more = ("--step-size", "0.1,0.5", "--over", "frequency=0.6,0.75,0.9", "--over", "norm=1,2")
    before = {path.name for path in (tmp_path / "chunks").glob("chunk-*.npz")}
    grown = sweep(*more, "--engine", "reference", "--directory", tmp_path / "chunks", "--seed", 4)
    assert outcome(grown) == 0, grown.output
    after = {path.name for path in (tmp_path / "chunks").glob("chunk-*.npz")}
    assert before < after
    assert (len(before), len(after)) == (8, 12)
    refused = sweep(*more, "--engine", "reference", "--directory", tmp_path / "chunks", "--seed", 5)
    assert outcome(refused) == 2
    assert "begun with other settings: key:" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--loss", "hinge,huber"), "'huber' is not one of cross-entropy, hinge"),
        (("--step-size", "0.1,fast"), "'0.1,fast' is not one or several numbers"),
        (("--width", "4.5"), "'4.5' is not one or several whole numbers"),
        (("--over", "speed=1"), "NAME one of frequency, norm, loss"),
        (("--over", "width"), "'width' is not NAME=V1,V2"),
        (("--pairs", "width=3,4"), "'width=3,4' is not NAME,NAME=V:V,V:V,... with a value for each NAME"),
        (("--pairs", "width,scale-w=3:0.5,4"), "with a value for each NAME"),
        (("--pairs", "width,speed=3:0.5"), "one of frequency, norm, loss"),
        (("--pairs", "width,scale-w=3:a"), "'a' is not one or several numbers"),
        (("--pairs", "width,loss=3:huber"), "'huber' is not one of cross-entropy, hinge"),
        (("--pairs", "width,scale-w=3:0.5", "--scale-w", "1,2"), "scale_w has several values of its own too"),
        (("--pairs", "width,norm=3:1", "--pairs", "norm,frequency=1:0.5"), "a name is there twice"),
        (("--statistic", "measures"), "'measures' is not FILE.py:NAME; give a file and a name in it, such as"),
        (("--statistic", "none.py:detour:sum"), "'none.py' is no file"),
        (("--dynamics", "sgd", "--momentum", "0.9"), "for --dynamics descent only"),
        (("--dynamics", "sign", "--radius", "0.1"), "'--radius': is for --dynamics sam only, not for sign"),
        (("--batch-size", "2,4"), "'--batch-size': is for --dynamics minibatch only, not for descent"),
        (("--dynamics", "flow"), "a flow has no steps to sweep; gradstarve overlay --dynamics flow draws one"),
        (("--keep", "logits"), "needs --directory"),
        (("--keep", "all"), "statistics, final, logits"),
        (("--engine", "warp"), "auto, reference, fused, pallas"),
        (("--step-size", "-1"), "step_size must be > 0"),
        (("--memory", "1000"), "give memory="),
        (("--frequency", "1.5"), "weights must be > 0"),
    ],
)
def test_sweep_tells_what_is_wrong_in_one_line(sweep, arguments, message):
    result = sweep(*arguments)
    assert outcome(result) == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("arguments", "axis", "values"),
    [
        (("--dynamics", "sam", "--radius", "0.05,0.2"), "radius", [0.05, 0.2]),
        (("--dynamics", "minibatch", "--over", "batch-size=2,4"), "batch_size", [2, 4]),
        (("--dynamics", "sign", "--step-size", "0.01,0.02"), "step_size", [0.01, 0.02]),
        (("--dynamics", "normalised"), None, []),
    ],
)
def test_sweep_of_other_dynamics(sweep, tmp_path, arguments, axis, values):
    result = sweep(*arguments, "--engine", "reference", "--seeds", 3, "--steps", 10)
    assert outcome(result) == 0, result.output
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert stored["axes"] == ([axis] if axis else [])
    assert [entry.get(axis) for entry in stored["summary"]] == (values or [None])
    kinds = {"sam": "SharpnessAware", "minibatch": "StochasticGradientDescent", "sign": "SignDescent"}
    again = cli_sweep.run_sweep(stored["settings"], engine="reference")
    assert type(again.configurations[0].dynamics).__name__ == kinds.get(arguments[1], "NormalizedGradientDescent")
    for number in range(len(values)):
        assert float(getattr(again.configurations[number].dynamics, str(axis))) == values[number]
    assert stored["summary"] == files.to_jsonable(again.summary())


def test_sweep_over_pairs_with_statistics_of_ones_own(sweep, tmp_path):
    """The command, and the call of the library that it stands for."""
    file = tmp_path / "measures.py"
    lines = ("def detour(curve):", "    return curve.error().max() - curve.error()[0]")
    file.write_text("\n".join([*lines, "def late(curve):", "    return curve.error()[-1] > 0.1"]))
    options = ("--pairs", "width,scale-w=3:0.5,4:0.35", "--step-size", "0.1,0.5", "--engine", "reference")
    options += ("--statistic", f"{file}:detour", "--statistic", f"{file}:late:sum")
    result = sweep(*options, "--directory", tmp_path / "d")
    assert outcome(result) == 0, result.output
    stored = json.loads((tmp_path / "out" / "sweep.json").read_text())
    assert [(row["width"], row["scale_w"], row["step_size"]) for row in stored["summary"]] == [
        (width, scale, rate) for rate in (0.1, 0.5) for width, scale in ((3, 0.5), (4, 0.35))
    ]
    again = gradstarve.sweep(
        lambda: datasets.antipodal(2, frequencies=(0.7, 1 - 0.7), norms=(1.0, 1.0)),
        6,
        steps=40,
        over={"step_size": [0.1, 0.5], ("width", "scale_w"): [(3, 0.5), (4, 0.35)]},
        statistics={
            "detour": lambda curve: curve.error().max() - curve.error()[0],
            "late": (lambda curve: curve.error()[-1] > 0.1, "sum"),
        },
        engine="reference",
    )
    with np.load(tmp_path / "out" / "sweep.npz") as statistics:
        for name in ("error_mean", "detour_mean", "detour_variance", "late"):
            assert np.array_equal(statistics[name], again[name]), name
    assert again.table() in result.stdout


def test_sweep_open_reads_a_directory_without_its_options(run, sweep, tmp_path, monkeypatch):
    trained = sweep("--step-size", "0.1,0.5", "--directory", tmp_path / "chunks")
    assert outcome(trained) == 0, trained.output
    monkeypatch.setattr(sweep_blocks.Trainer, "_train", lambda *_: pytest.fail("trained"))
    result = run("sweep", "--open", tmp_path / "chunks", "--out", tmp_path / "again", "--figures", "svg")
    assert outcome(result) == 0, result.output
    assert result.stdout == trained.stdout
    with np.load(tmp_path / "out" / "sweep.npz") as one, np.load(tmp_path / "again" / "sweep.npz") as other:
        assert one.files == other.files
        for name in one.files:
            assert np.array_equal(one[name], other[name], equal_nan=True), name
    assert (tmp_path / "again" / "sweep.svg").exists()
    stored = json.loads((tmp_path / "again" / "sweep.json").read_text())
    assert stored["settings"] == {
        **{"open": str(tmp_path / "chunks"), "seeds": [0, 6], "steps": 40, "record_every": 1},
        **{"threshold": 0.01, "keep": "statistics", "precision": "float64"},
    }
    assert outcome(run("sweep", "--open", tmp_path / "none", "--out", tmp_path / "again")) == 2
    refused = run("sweep", "--open", tmp_path / "chunks", "--scale-w", 2)
    assert outcome(refused) == 2
    assert "reads the sweep that is there, which --scale-w cannot change" in " ".join(refused.output.split())


def test_sweep_stopped_says_how_to_go_on(sweep, tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep_blocks.Trainer, "_train", stopped)
    cli_stop.tell("another command, stopped before in the same process")
    result = sweep("--directory", tmp_path / "chunks")
    assert outcome(result) == 130
    assert "0 of 6 networks stored in" in result.stderr
    assert "run the same sweep again" in result.stderr
    assert cli_sweep._go_on(tmp_path / "chunks").startswith("the same command goes on from the 0 chunks stored in")
    assert "with --directory" in cli_sweep._go_on(None)


@pytest.mark.parametrize("command", ["overlay", "sweep", "starve", "derive", "verify"])
def test_every_command_has_help_with_an_example(run, command):
    result = run(command, "--help")
    assert outcome(result) == 0
    assert f"Example: gradstarve {command}" in result.output
    for option in ("--seed", "--out"):
        assert option in result.output


def test_root_help_and_version(run):
    for command in ("overlay", "sweep", "starve", "derive", "verify"):
        assert command in run("--help").output
    assert run("--version").output == f"gradstarve {files.version()}\n"


def test_names_in_the_help_are_those_of_the_library():
    from gradstarve.theorems import CATALOGUE

    assert tuple(CATALOGUE) == cli_options.theorems()
    assert tuple(LOSSES) == cli_options.LOSSES
    assert set(cli_options.PROBLEMS) <= set(dir(datasets))
    assert cli_sweep.KEEP == sweep_plan.KEEP
    assert tuple(sweep_statistics.REDUCTIONS) == cli_sweep.REDUCTIONS
    assert ("auto", *engines.ENGINES) == cli_sweep.ENGINES


@pytest.mark.parametrize(("form", "sign"), [("text", "check:"), ("markdown", "$$"), ("latex", "\\begin{")])
def test_derive_prints_steps_and_checks(run, tmp_path, form, sign):
    result = run("derive", "one-layer", "--loss", "hinge", "--format", form, "--out", tmp_path)
    assert outcome(result) == 0, result.output
    assert sign in result.stdout
    checks = [line for line in result.stderr.splitlines() if line.startswith("check ")]
    assert len(checks) >= 3
    assert all(" passed: " in line for line in checks)
    (path,) = tmp_path.iterdir()
    assert path.name == f"one-layer-hinge.{cli_derive.FORMATS[form]}"
    text = path.read_text()
    assert ("\\documentclass" in text) == (form == "latex")
    assert form == "latex" or text.strip() == result.stdout.strip()


@pytest.mark.parametrize("form", list(cli_derive.FORMATS))
def test_derive_all_is_one_document(run, tmp_path, monkeypatch, form):
    import gradstarve.symbolic as symbolic

    pairs = [("one-layer", "hinge"), ("one-layer", "exponential"), ("decay", "exponential")]
    assert set(pairs) < set(symbolic.available())
    monkeypatch.setattr(symbolic, "available", lambda: pairs)
    result = run("derive", "all", "--format", form, "--out", tmp_path)
    assert outcome(result) == 0, result.output
    titles = [symbolic.derive(*pair).title for pair in pairs]
    assert sorted(result.stdout.index(title) for title in titles) == [result.stdout.index(title) for title in titles]
    count = sum(len(symbolic.derive(*pair).steps) for pair in pairs)
    assert f"check {count}/{count} passed: decay --loss exponential: stability" in result.stderr
    path = tmp_path / f"all.{cli_derive.FORMATS[form]}"
    assert path.read_text().strip() == result.stdout.strip()
    for mark in ("\\documentclass", "\\begin{document}", "\\end{document}"):
        assert result.stdout.count(mark) == (form == "latex")
    one_loss = run("derive", "all", "--loss", "exponential", "--format", form, "--out", tmp_path)
    assert titles[0] not in one_loss.stdout
    assert titles[1] in one_loss.stdout
    assert titles[2] in one_loss.stdout
    assert (tmp_path / f"all-exponential.{cli_derive.FORMATS[form]}").exists()


def test_derive_prints_json(run):
    import sympy

    result = run("derive", "one-layer", "--loss", "hinge", "--json")
    assert outcome(result) == 0
    printed = json.loads(result.stdout)
    assert printed["sympy"] == sympy.__version__
    (derivation,) = printed["derivations"]
    assert (derivation["name"], derivation["loss"]) == ("one-layer", "hinge")
    assert [step["check"] for step in derivation["steps"]].count("simplifies to 0") >= 3
    text = derivation["result"]["u(t)"]["sympy"]
    assert str(gradstarve.derive("one-layer", "hinge").result["u(t)"]) == text
    assert len(result.stderr.splitlines()) == len(derivation["steps"])


def test_derive_lists_and_wants_a_name(run):
    lines = run("derive", "--list").stdout.splitlines()
    assert "mode --loss hinge" in lines
    listed = json.loads(run("derive", "--list", "--json").stdout)
    assert [f"{entry['name']} --loss {entry['loss']}" for entry in listed] == lines
    assert listed[0] | {"title": ""} == {"name": "mode", "loss": "cross-entropy", "equation": "3.1-3.5", "title": ""}
    result = run("derive")
    assert outcome(result) == 2
    assert "--list" in result.output


def test_derive_reports_a_step_that_fails(run, monkeypatch):
    import gradstarve.symbolic as symbolic

    good = symbolic.derive("one-layer", "hinge")
    step = good.steps[-1]
    lies = tuple(type(e)(e.lhs, e.rhs + 1) for e in step.equations)
    monkeypatch.setattr(symbolic, "derive", lambda name, loss: good.with_equation(step.name, lies))
    result = run("derive", "one-layer", "--loss", "hinge")
    assert outcome(result) == 1
    assert "FAILED" in result.stderr
    assert not result.stdout


def test_verify_lists_the_catalogue(run):
    result = run("verify", "--list")
    assert outcome(result) == 0
    from gradstarve.theorems import CATALOGUE

    names = [line.split()[0] for line in result.stdout.splitlines()]
    assert names == ["name", *CATALOGUE]
    listed = json.loads(run("verify", "--list", "--json").stdout)
    assert [(entry["name"], entry["title"]) for entry in listed] == [(name, e.title) for name, e in CATALOGUE.items()]


def test_results_go_where_the_readme_says(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert outcome(run("verify", "fates", "--trials", 8)) == 0
    assert outcome(run("overlay", *SMALL)) == 0
    written = {path.name for path in (tmp_path / "gradstarve-out").iterdir()}
    assert written == {"verify.json", "fates.png", "overlay.json", "overlay.png"}


@pytest.mark.parametrize("ok", [True, False])
def test_verify_asks_saves_and_tells_by_its_exit_code(run, tmp_path, monkeypatch, ok):
    import gradstarve.theorems as theorems

    asked = []

    class Outcome:
        def __init__(self):
            self.ok = ok

        def rich_table(self):
            return "the wide table"

        def conclusion(self):
            return "the conclusion"

        def brief(self):
            return "the table"

        def failures(self):
            return "what failed"

        def save(self, directory, figures):
            files.write_json(directory / "verify.json", {"ok": ok})

    def verify(names, trials, key, quick, precision):
        asked.append((names, trials, jax.random.key_data(key).tolist()))
        return Outcome()

    monkeypatch.setattr(theorems, "verify", verify)
    name = next(iter(theorems.CATALOGUE))
    result = run("verify", name, "--trials", 5, "--seed", 9, "--out", tmp_path)
    assert outcome(result) == (0 if ok else 1)
    assert asked == [([name], 5, [0, 9])]
    asked.clear()
    assert "the table" in result.output
    assert ("what failed" in result.output) == (not ok)
    assert "the wide table" in run("verify", name, "--wide", "--out", tmp_path / "wide").output
    assert json.loads((tmp_path / "verify.json").read_text()) == {"ok": ok}
    printed = run("verify", name, "--json", "--out", tmp_path / "another")
    assert outcome(printed) == (0 if ok else 1)
    assert json.loads(printed.stdout) == {"ok": ok}


def test_json_keeps_what_json_has_no_numbers_for(tmp_path):
    value = {"a": jax.numpy.array([1.5, np.inf]), "b": (np.int64(3), np.bool_(True), None, float("nan")), "c": -np.inf}
    path = files.write_json(tmp_path / "x.json", value)
    stored = json.loads(path.read_text())
    assert stored == {"a": [1.5, "inf"], "b": [3, True, None, "nan"], "c": "-inf"}
    assert math.isinf(float(stored["a"][1]))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.json"]
    with pytest.raises(ValueError, match="cannot write object"):
        files.write_json(tmp_path / "y.json", {"a": object()})
    assert not (tmp_path / "y.json").exists()


def test_numbers_are_short():
    assert [text.number(v) for v in (0.5, 1, 1e-300, 123456.0, 1.23456, -0.0, 1e7)] == [
        "0.5",
        "1",
        "1e-300",
        "123456",
        "1.23",
        "0",
        "1e7",
    ]


def test_help_is_quick():
    """The command line names its options without starting JAX."""
    import subprocess

    code = "import sys; import gradstarve.cli.main; print('jax' in sys.modules)"
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    # Only what the package itself imports may be loaded: nothing that this module asks for.
    package = subprocess.run(
        [sys.executable, "-c", "import sys; import gradstarve; print('jax' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        env=env,
    )
    assert result.stdout == package.stdout


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["4.1"], ["fates"]),
        (["(4.1)", "sign"], ["fates", "sign"]),
        (["3.3"], ["clock"]),
        (["3.1-3.5"], ["clock"]),
        (["sign", "sign"], ["sign"]),
        (None, None),
    ],
)
def test_entries_are_called_by_name_or_by_equation(names, found):
    assert cli_options.entries(names) == found


def test_a_section_is_all_of_its_entries():
    from gradstarve.theorems import CATALOGUE

    assert cli_options.entries(["14"]) == [name for name, entry in CATALOGUE.items() if entry.equation.startswith("14.")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("verify", "starv"), f"not one of the {len(cli_options.theorems())} entries of the catalogue; near to it: "),
        (("verify", "starv"), "starving-pair"),
        (("verify", "99.1"), "no entry of the catalogue states equation 99.1; the equations are "),
        (("verify", "xyzzy"), "entries of the catalogue (balance, sign, ...); see gradstarve verify --list"),
        (("overlay", "--problem", "xor"), "not one of antipodal, orthogonal; simulate and sweep of the Python library"),
        (("sweep", "--problem", "antipodel"), "did you mean antipodal?"),
        (("overlay", "--loss", "ce"), "did you mean cross-entropy?"),
        (("overlay", "--loss", "cross_entropy"), "did you mean cross-entropy?"),
        (("overlay", "--loss", "MSE"), "did you mean squared?"),
        (("sweep", "--memory", "inf"), "inf is not a finite number above 0"),
        (("sweep", "--threshold", "nan"), "nan is not a finite number above 0"),
        (("sweep", "--directory", ""), "an empty path"),
        (("overlay", "--out", ""), "an empty path"),
        (("sweep", "--seeds", "1.5"), "'1.5' is not a whole number of at least 1"),
        (("sweep", "--seeds", "1e400"), "'1e400' is not a whole number of at least 1"),
    ],
)
def test_errors_say_what_may_be_meant(run, arguments, message):
    result = run(*arguments)
    assert outcome(result) == 2
    assert message in " ".join(result.output.split())


def test_whole_numbers_are_taken_as_they_are_written(run, tmp_path):
    options = ("--seeds", "1e1", "--steps", "40.0", "--width", "3", "--loss", "cross-entropy,hinge", "--engine", "reference")
    result = run("sweep", *options, "--json", "--out", tmp_path)
    assert outcome(result) == 0, result.output
    stored = json.loads(result.stdout)
    assert (stored["settings"]["seeds"], stored["settings"]["steps"], stored["settings"]["threshold"]) == (10, 40, 0.3)
    assert stored["note"] == "hinge stops pushing at an error of 0.269, so the threshold is 0.3 in place of 0.01"
