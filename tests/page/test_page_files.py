"""From what `verify` wrote to the page: files that belong together make one, others are refused by name with what to do."""

import json
import os

import made_up
import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.cli import options as cli_options
from gradstarve.cli import verify as cli_verify
from gradstarve.ground import files
from gradstarve.page import read_results, report_page
from gradstarve.theorems import CATALOGUE


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What `Report.save` wrote of three theorems: name to content."""
    folder = tmp_path_factory.mktemp("written")
    made_up.report([made_up.row(name) for name in made_up.DRAWN]).save(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(written, tmp_path):
    for name, content in written.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.fixture
def run(x64):
    return lambda *arguments: CliRunner().invoke(cli.app, ["report", *map(str, arguments)])


def change(folder, **values):
    path = folder / "verify.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_what_verify_wrote_is_read(folder):
    found, figures = read_results(folder)
    assert found == json.loads((folder / "verify.json").read_text())
    assert figures == {name: (folder / f"{name}.png").read_bytes() for name in made_up.DRAWN}
    page = report_page(found, figures)
    assert page.partition('<section id="theorems"')[2].count('src="data:image/png;base64,') == 3
    # Once more with the claims that they stand for, where they do.
    assert page.count('src="data:image/png;base64,') == 5


def test_older_results_without_digests_are_taken(folder):
    found, _ = read_results(folder)
    for name in ("figures", "environment", "format"):
        del found[name]
    for row in found["theorems"]:
        del row["formula"]
    (folder / "verify.json").write_text(json.dumps(found))
    (folder / "sign.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"><path d="M 0 0"/></svg>')
    found, figures = read_results(folder)
    assert figures["sign"].startswith(b"<svg")
    page = report_page(found, figures)
    assert page.count("<math") == 3
    assert 'aria-label="Figure of theorem sign' in page


def broken(name, value):
    def do(folder):
        found, _ = read_results(folder)
        found["theorems"][1][name] = value
        change(folder, theorems=found["theorems"])

    return do


def nested(depth):
    return {} if depth == 0 else {"in": nested(depth - 1)}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "verify.json").unlink(), r"there is no file '.*verify\.json'"),
        (lambda folder: (folder / "verify.json").write_text('{"ok": true,'), r"verify\.json' is broken \(Expecting"),
        (lambda folder: (folder / "verify.json").write_bytes(b"\xff\xfe"), r"verify\.json' is broken"),
        (lambda folder: (folder / "verify.json").write_text("[1]"), "it has no list of theorems"),
        (lambda folder: (folder / "verify.json").write_text('{"settings": {}}'), "it has no list of theorems"),
        (lambda folder: change(folder, key="0"), "'key' is missing or of the wrong kind"),
        (lambda folder: change(folder, format=99), "it has format 99, and this version reads format 1;"),
        (lambda folder: change(folder, ok=False), "'ok' is not that of its theorems"),
        (broken("name", "signs"), "there is no theorem 'signs' in the catalogue"),
        (broken("name", "balance"), "its balance states something else"),
        (broken("tolerance", 0), r"its sign states something else than the catalogue does \(tolerance\)"),
        (broken("tolerance", "inf"), r"its sign states something else than the catalogue does \(tolerance\)"),
        (broken("violations", 999), "sign has 999 violations and 0 undecided trials of 24"),
        (broken("violations", 3), "sign has 3 violations with a worst gap of"),
        (broken("worst_gap", 1e9), "sign has 0 violations with a worst gap of 1000000000.0"),
        (broken("undecided", 9), "sign is said to hold, against its numbers"),
        (broken("verdict", "9 of 9 are bad"), "'verdict' of sign is not that of 'ok'"),
        (broken("trials", True), "'trials' of sign is missing or of the wrong kind"),
        (broken("trials", -1), "'trials' of sign is missing or of the wrong kind"),
        (broken("trials", 0), "sign has 0 violations and 0 undecided trials of 0"),
        (broken("seconds", "nan"), "'seconds' of sign is not a number"),
        (broken("worst_gap", 10**400), "'worst_gap' of sign is not a number"),
        (broken("details", {"each": "<b>"}), "'each' of sign is not a number of trials"),
        (broken("worst_instance", nested(60)), "nested too deeply"),
        (lambda folder: (folder / "verify.json").write_text("[" * 10**5), r"verify\.json' is broken"),
        (lambda folder: change(folder, skipped=[[1]]), "'skipped' is not a list of theorems"),
        (lambda folder: change(folder, skipped=["<script>"]), "'skipped' is not a list of theorems"),
        (lambda folder: change(folder, key=[0, "<script>"]), "'key' is not a list of integers"),
        (lambda folder: change(folder, precision="<script>"), "'precision' is neither"),
        (lambda folder: change(folder, trials="many"), "'trials' is not a number above 0"),
        (lambda folder: change(folder, seconds="inf"), "'seconds' is missing or of the wrong kind"),
        (broken("claim", "pigs fly"), "its sign states something else than the catalogue does"),
        (broken("trials", "many"), "'trials' of sign is missing or of the wrong kind"),
        (broken("worst_gap", None), "'worst_gap' of sign is not a number"),
        (broken("necessity", [{"dropped": "x"}]), "'necessity' of sign is not what it should be"),
        (lambda folder: (folder / "sign.png").unlink(), r"there is no figure '.*sign\.png' beside verify\.json"),
        (lambda folder: (folder / "sign.png").write_bytes(b"\x89PNG\r\n\x1a\n"), r"sign\.png' is not the figure of this"),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(run, folder, spoil, message):
    spoil(folder)
    with pytest.raises(ValueError, match=message) as refused:
        read_results(folder)
    assert str(refused.value).endswith(f"by: gradstarve verify --out {folder}")
    result = run("--results", folder)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (folder / "report.html").exists()


def test_results_to_page(run, folder, tmp_path):
    result = run("--results", folder)
    assert (result.exit_code, result.stdout) == (0, "3 of 3 theorems hold.\n")
    page = (folder / "report.html").read_text()
    assert "All 3 theorems hold" in page
    assert str(folder) not in page
    assert f"report.html ({len(page.encode()) / 1e6:.1f} MB)" in result.stderr
    elsewhere = tmp_path / "new" / "site"
    told = json.loads(run("--results", folder, "--out", elsewhere, "--json").stdout)
    assert (elsewhere / "report.html").read_text() == page
    assert told["path"] == str(elsewhere / "report.html")
    assert told["ok"] is True
    stored = json.loads((folder / "verify.json").read_text())
    assert [(row["name"], row["worst_gap"]) for row in told["theorems"]] == [
        (row["name"], row["worst_gap"]) for row in stored["theorems"]
    ]


@pytest.fixture
def no_trials(monkeypatch):
    """`verify` gives made-up rows, and remembers what it was asked for."""
    asked = []

    def verify(names, **options):
        asked.append((names, options))
        return made_up.report([made_up.row("balance"), made_up.row("sign", worst=2.0)])

    monkeypatch.setattr("gradstarve.theorems.verify", verify)
    return asked


def test_a_violation_is_the_exit_code(run, tmp_path, no_trials):
    result = run("balance", "sign", "--quick", "--seed", 7, "--out", tmp_path / "site")
    assert result.exit_code == 1
    assert "trials violate it" in result.stdout
    assert "1 of 2 theorems hold" in result.stdout
    page = (tmp_path / "site" / "report.html").read_text()
    assert "<title>VIOLATED" in page
    assert page.partition('<section id="theorems"')[2].count('class="figure"') == 2
    (names, options), *_ = no_trials
    assert names == ["balance", "sign"]
    assert (options["quick"], options["trials"], options["precision"]) == (True, None, "float64")
    told = run("--json", "--out", tmp_path)
    assert told.exit_code == 1
    assert [row["ok"] for row in json.loads(told.stdout)["theorems"]] == [True, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("signs",), f"'signs' is not one of the {len(CATALOGUE)} entries of the catalogue; near to it: wrong-signs, sign"),
        (("--results", ""), "an empty path"),
        (("--results", "here", "--quick"), "'--quick'"),
        (("--results", "here", "sign"), "'NAMES'"),
        (("--results", "here", "--seed", "3"), "re-uses a finished run"),
        (("--precision", "float16"), "'float16' is not one of float64, float32"),
        (("--trials", "0"), "--trials"),
        (("--quick", "--trials", "5"), "quick chooses the trials itself"),
    ],
)
def test_bad_arguments_are_one_line(run, tmp_path, arguments, message):
    result = run(*arguments, "--out", tmp_path)
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())
    assert not list(tmp_path.iterdir())


def test_an_empty_place_is_an_error_before_the_work(run, monkeypatch):
    monkeypatch.setattr(cli_verify, "run", lambda *_: pytest.fail("worked before looking at --out"))
    result = run("--out", "")
    assert (result.exit_code, "an empty path" in result.output) == (2, True)


def test_an_unwritable_place_is_found_before_the_work(run, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cli_verify, "run", lambda *_: pytest.fail("worked before looking at --out"))
    assert run("--out", tmp_path / "file" / "site").exit_code == 2


def test_a_page_is_complete_or_absent(run, folder, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    (folder / "report.html").write_text("the page before")
    with monkeypatch.context() as patch:
        patch.setattr(files.os, "replace", stopped)
        assert run("--results", folder).exit_code == 130
    assert (folder / "report.html").read_text() == "the page before"
    assert not [name for name in os.listdir(folder) if name.endswith(".part")]


def test_names_are_those_of_the_catalogue():
    assert tuple(CATALOGUE) == cli_options.theorems()
