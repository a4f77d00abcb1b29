"""`gradstarve verify`: the theorems, tried against training, from the command line.

Below it: `gradstarve report`, the same as one page.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    PRECISIONS,
    AsJson,
    Figures,
    Names,
    Precision,
    Quick,
    Seed,
    Trials,
    check_choice,
    command,
    conclude,
    directory,
    entries,
    hang,
    out_option,
    print_result,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS, files

EXAMPLE = "Example: gradstarve verify --trials 50 --seed 1 --out verification"


def verify(
    names: Names = None,
    trials: Trials = None,
    quick: Quick = False,
    precision: Precision = "float64",
    list_all: Annotated[bool, typer.Option("--list", help="List the catalogue, and exit.")] = False,
    wide: Annotated[bool, typer.Option("--wide", help="Print a table of claims, trials, violations and seconds.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("verify.json and one figure per entry")] = DEFAULT_OUT,
) -> None:
    """Try to break the theorems: random problems within their hypotheses, and outside of them.

    Prints one line per entry, whose bar is the worst gap on its way to the tolerance. Exit code 1 means that a claim was
    violated.
    """
    names = entries(names)
    if quick and trials is not None:
        raise typer.BadParameter("chooses the trials itself; leave out --quick or --trials", param_hint="'--quick'")
    check_choice("--precision", precision, PRECISIONS)
    check_choice("--figures", figures, FORMATS)
    if list_all:
        _list(as_json)
        return
    with command("gradstarve verify"):
        folder = files.output_directory(out)
        use_float64()
        import jax

        from gradstarve.theorems import earlier
        from gradstarve.theorems import verify as check

        earlier(folder)  # a file that is not of this command is refused before the work
        outcome = check(names or "all", trials=trials, key=jax.random.key(seed), quick=quick, precision=precision)
        outcome.save(folder, figures)
    if as_json:
        typer.echo((folder / "verify.json").read_text(encoding="utf-8"), nl=False)
    elif wide:
        from rich.console import Console

        # Piped, a console takes 80 columns, in which the table cannot be read.
        console = Console()
        Console(width=None if console.is_terminal else 140).print(outcome.rich_table())
    else:
        typer.echo(_drawn(conclude(outcome.conclusion(), outcome.brief())))
    if not outcome.ok:
        typer.echo(outcome.failures(), err=True)
    wrote(folder / "verify.json", "the figures beside it")
    if not outcome.ok:
        raise typer.Exit(1)


def _drawn(text: str) -> str:
    """`text`, with its bars in ASCII where the terminal has no other letters."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return text.translate({ord("█"): "#", ord("░"): "."})
    return text


def _list(as_json: bool) -> None:
    """The catalogue, a line an entry."""
    with command("reading the catalogue"):
        from gradstarve.theorems import CATALOGUE

        entries = [
            {"name": name, "equation": str(e.equation), "title": e.title, "claim": " ".join(str(e.claim).split())}
            for name, e in CATALOGUE.items()
        ]
    shown = ("name", "equation", "claim")
    rows = [shown, *(tuple(entry[key] for key in shown) for entry in entries)]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]}" for row in rows]
    print_result(as_json, entries, "\n".join(hang(line, sum(wide) + 4) for line in lines))


# `gradstarve report`: the theorems and their verdicts as one page in one file, to look at in a browser.

REPORT_EXAMPLE = (
    "Example: gradstarve report --quick --out site; from what verify wrote: gradstarve report --results gradstarve-out"
)


def page(
    names: Names = None,
    trials: Trials = None,
    quick: Quick = False,
    precision: Precision = "float64",
    seed: Seed = 0,
    results: Annotated[
        Optional[Path],  # noqa: UP045
        directory("Directory that gradstarve verify --out wrote; nothing is run again then."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the path and the verdicts as one JSON document.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        directory(f"Directory for report.html. [default: that of --results, else {DEFAULT_OUT}]"),
    ] = None,
) -> None:
    """Write report.html: the theorems with verdicts, formulas, figures and numbers, and an explorer of learning curves.

    One file that needs no network and opens from disk. Runs gradstarve verify, or takes what it wrote by --results. Exit
    code 1 means that a claim was violated, and the page says which.
    """
    names = entries(names)
    check_choice("--precision", precision, PRECISIONS)
    given = {"NAMES": names, "--trials": trials, "--quick": quick, "--seed": seed, "--precision": precision != "float64"}
    for name in [name for name, value in given.items() if results is not None and value]:
        raise typer.BadParameter("cannot be combined with --results, which re-uses a finished run", param_hint=f"'{name}'")
    with command("gradstarve report"):
        use_float64()
        from gradstarve.page import read_results, report_page

        if results is not None:
            found, figures = read_results(results)
            folder = files.output_directory(out or results)
        else:
            folder = files.output_directory(out or DEFAULT_OUT)
            found, figures = run(names or "all", trials, quick, precision, seed)
        path = files.write_text(folder / "report.html", report_page(found, figures))
    summary = summarise(found, path)
    bad = [f"{row['name']} ({row['equation']}): {row['verdict']}" for row in summary["theorems"] if not row["ok"]]
    good = len(summary["theorems"]) - len(bad)
    words = conclude(f"{good} of {len(summary['theorems'])} theorems hold", "\n".join(bad)).rstrip("\n")
    print_result(as_json, summary, words)
    wrote(f"{path} ({summary['bytes'] / 1e6:.1f} MB)")
    if not found["ok"]:
        raise typer.Exit(1)


def run(names: Any, trials: int | None, quick: bool, precision: str, seed: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The verification of these `names` as a dict, and its figures as SVG by name."""
    import jax

    from gradstarve.ground import Progress
    from gradstarve.page import figure_svg
    from gradstarve.theorems import verify

    outcome = verify(names, trials=trials, key=jax.random.key(seed), quick=quick, precision=precision)
    figures = {}
    with Progress(None, len(outcome.rows), "figures", "figures") as progress:
        for row in outcome.rows:
            figures[row.theorem.name] = figure_svg(row)
            progress.update(len(figures))
    return outcome.to_dict(), figures


def summarise(found: dict[str, Any], path: Path) -> dict[str, Any]:
    """What --json prints: where the page is, and the verdict on each theorem."""
    keys = ("name", "equation", "ok", "verdict", "trials", "violations", "undecided", "worst_gap", "tolerance")
    rows = [{key: row[key] for key in keys} for row in found["theorems"]]
    return {"path": str(path), "bytes": path.stat().st_size, "ok": found["ok"], "theorems": rows}
