"""What commands print on a terminal of 80 columns: the conclusion first, no line too wide, no word and no number cut."""

import re

import pytest
from typer.testing import CliRunner

from gradstarve.cli import main as cli
from gradstarve.ground import text

WIDE = {
    "overlay": ["overlay", "--seeds", "6", "--steps", "40", "--width", "3", "--dim", "2"],
    "derive": ["derive", "one-layer", "--loss", "cross-entropy"],
    "verify": ["verify", "sign", "fates", "--trials", "8"],
    "report": ["report", "sign", "--trials", "8"],
}
STARVE = ["starve", "--losses", "cross-entropy", "--depths", "1", "--time", "5", "--no-ordinary"]
SLOW = {
    "derive mode": ["derive", "mode", "--loss", "cross-entropy"],
    "sweep": ["sweep", "--seeds", "6", "--steps", "40", "--width", "2,3", "--step-size", "0.1,0.5", "--engine", "reference"],
    "remedies": [*STARVE, "--remedies", "--seeds", "2", "--width", "4"],
    "shortcut": ["shortcut", "--agreements", "0.9", "--losses", "hinge", "--seeds", "1", "--pixels", "5", "--time", "2"],
    "phase": ["phase", "--planes", "failure", "--losses", "hinge", "--width", "2", "--seeds", "10"],
    "figures": ["figures", "collapse", "--quick"],
    "align": ["align", "--width", "4", "--until", "0.5"],
    "optimisers": ["optimisers", "--quick", "--optimisers", "descent,sign", "--seeds", "2", "--steps", "10", "--dims", "1"],
    "stability": ["stability", "--kappas", "2", "--step-sizes", "0.4", "--steps", "10", "--width", "2"],
    "plasticity": ["plasticity", "--quick", "--rules", "descent", "--tasks", "2", "--steps", "10", "--seeds", "2"],
    "digits": ["digits", "--quick", "--seeds", "2"],
    "starve": STARVE,
}
CASES = [*WIDE, *[pytest.param(name, marks=pytest.mark.slow) for name in SLOW]]


def letters(words):
    """What is written, without blanks, and the rules of tables, which are drawn anew."""
    return re.sub(r"\s|-{2,}", "", words)


@pytest.mark.parametrize("name", CASES)
def test_a_command_fits_into_80_columns(name, x64, tmp_path, monkeypatch):
    if name in ("align", "digits"):
        pytest.importorskip("sklearn")
    monkeypatch.setenv("COLUMNS", "80")
    seen = []
    whole = text.fit
    monkeypatch.setattr(text, "fit", lambda words, width: seen.append((words, width)) or whole(words, width))
    result = CliRunner().invoke(cli.app, [*(WIDE | SLOW)[name], "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if len(line) > 80]
    first = " ".join(result.stdout.partition("\n\n")[0].split())
    assert re.fullmatch(r"[A-Z0-9'].*\.", first), first
    assert len(first) < 240
    for words, width in seen:
        assert width == 80
        kept = whole(words, width)
        cells = [cell for line in words.splitlines() for cell in re.split(r"\s{2,}", line.strip()) if not set(cell) <= {"-"}]
        assert all(letters(cell) in letters(kept) for cell in cells)


@pytest.mark.parametrize("arguments", [["verify", "--list"], ["derive", "--list"], ["--help"], ["starve", "--help"]])
def test_lists_and_help_fit(arguments, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0
    assert not [line for line in result.stdout.splitlines() if len(line) > 80]


def test_what_goes_to_a_file_keeps_its_lines(x64, tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    result = CliRunner().invoke(cli.app, [*WIDE["overlay"], "--out", str(tmp_path)])
    assert max(map(len, result.stdout.splitlines())) > 80


TABLE = text.table_text(
    [
        ("loss", "p", "first number", "second number", "third number"),
        ("hinge", "0.5", "1.25e-14", "2", "never"),
        ("hinge", "0.9", "3", "", "5"),
        ("cross-entropy", "0.5", "-7", "8", "9"),
    ]
)


@pytest.mark.parametrize("width", [44, 50, 64, 200])
def test_tables_in_blocks_keep_every_cell_beside_its_row(width):
    fitted = text.fit(TABLE, width)
    assert max(map(len, fitted.splitlines())) <= width
    blocks = [block.splitlines() for block in fitted.split("\n\n")]
    found = {}
    for head, _, *rows in blocks:
        names = re.split(r"\s{2,}", head)
        for line in rows:
            cells = line[: len("cross-entropy")].strip(), line[len("cross-entropy") :].split()
            for name, cell in zip(names[2:], cells[1][1:], strict=False):
                found[cells[0], cells[1][0], name] = cell
    assert found["hinge", "0.5", "first number"] == "1.25e-14"
    assert found["cross-entropy", "0.5", "third number"] == "9"
    assert found["hinge", "0.5", "third number"] == "never"
    assert (max(map(len, TABLE.splitlines())) <= width) == (fitted == TABLE)


def test_a_table_whose_first_columns_are_too_wide_becomes_a_list():
    wide = text.table_text([("who", "what"), ("a" * 30, "a word"), ("b" * 30, "2")])
    assert text.fit(wide, 36).splitlines() == ["who: " + "a" * 30, "what: a word", "", "who: " + "b" * 30, "what: 2"]


def test_prose_is_broken_between_words_and_formulas_behind_operators():
    prose = "Medians over 64 ordinary ReLU networks of 16 neurons,\nafter 2000 steps of 0.2; index 1 - v/v_alone;"
    fitted = text.fit(prose, 40)
    assert max(map(len, fitted.splitlines())) <= 40
    assert fitted.split() == prose.split()
    formula = "       u(t) = exp(2*p*r*t)*kappa*sinh(theta_0)*Derivative(a1(t),t)+LambertW(exp(C))"
    fitted = text.fit(formula, 40)
    assert max(map(len, fitted.splitlines())) <= 40
    assert letters(fitted) == letters(formula)
    assert not re.search(r"[a-z0-9]\n\s*[a-z0-9]", fitted.replace(" = ", "="))
    assert text.fit(prose, 200) == prose
