"""`gradstarve verify`: the theorems, tried against training, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
    entries,
    one_of,
    out_option,
    plain_errors,
    show,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS
from gradstarve.ground import _report as report

EXAMPLE = "Example: gradstarve verify --trials 50 --seed 1 --out verification"


def verify(
    names: Names = None,
    trials: Trials = None,
    quick: Quick = False,
    precision: Precision = "float64",
    list_all: Annotated[bool, typer.Option("--list", help="List the catalogue, and exit.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("verify.json and one figure per entry")] = DEFAULT_OUT,
) -> None:
    """Try to break the theorems: random problems within their hypotheses, and outside of them.

    Prints one row per entry. Exit code 1 means that a claim was violated.
    """
    names = entries(names)
    if quick and trials is not None:
        raise typer.BadParameter("chooses the trials itself; leave out --quick or --trials", param_hint="'--quick'")
    one_of("--precision", precision, PRECISIONS)
    one_of("--figures", figures, FORMATS)
    if list_all:
        _list(as_json)
        return
    with plain_errors("gradstarve verify"):
        folder = report.output_directory(out)
        use_float64()
        import jax

        from gradstarve.theorems import earlier
        from gradstarve.theorems import verify as check

        earlier(folder)  # a file that is not of this command is told before the work
        outcome = check(names or "all", trials=trials, key=jax.random.key(seed), quick=quick, precision=precision)
        outcome.save(folder, figures)
    if as_json:
        typer.echo((folder / "verify.json").read_text(encoding="utf-8"), nl=False)
    else:
        from rich.console import Console

        # Piped, a console takes 80 columns, in which the table can not be read.
        console = Console()
        Console(width=None if console.is_terminal else 140).print(outcome.rich_table())
    if not outcome.ok:
        typer.echo(outcome.failures(), err=True)
    wrote(folder / "verify.json", "the figures beside it")
    if not outcome.ok:
        raise typer.Exit(1)


def _list(as_json: bool) -> None:
    """The catalogue, a line an entry."""
    with plain_errors("reading the catalogue"):
        from gradstarve.theorems import CATALOGUE

        entries = [
            {"name": name, "equation": str(e.equation), "title": e.title, "claim": " ".join(str(e.claim).split())}
            for name, e in CATALOGUE.items()
        ]
    shown = ("name", "equation", "claim")
    rows = [shown, *(tuple(entry[key] for key in shown) for entry in entries)]
    wide = [max(len(row[i]) for row in rows) for i in range(2)]
    show(as_json, entries, "\n".join(f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]}" for row in rows))
