"""`gradstarve report`: the theorems and their verdicts as one page in one file, to look at in a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve import files, report
from gradstarve.cli_parts import PRECISIONS, Seed, one_of, plain_errors, use_float64

EXAMPLE = "Example: gradstarve report --quick --out site, or without running anything: gradstarve report --results site"


def page(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(help="Entries of the catalogue; all by default, see gradstarve verify --list."),
    ] = None,
    trials: Annotated[
        Optional[int], typer.Option(min=1, help="Random problems per entry. [default: each entry's own]")  # noqa: UP045
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer random problems: all entries within three minutes.")] = False,
    precision: Annotated[str, typer.Option(help=f"One of {', '.join(PRECISIONS)}.")] = "float64",
    seed: Seed = 0,
    results: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory that gradstarve verify --out wrote; nothing is run again then."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the path and the verdicts as JSON.")] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory for report.html. [default: that of --results, else gradstarve-out]"),
    ] = None,
) -> None:
    """Write report.html: the theorems with verdicts, formulas, figures and numbers, and an explorer of learning curves.

    One file that needs no network and opens from disk. Runs gradstarve verify, or takes what it wrote by --results. Exit
    code 1 means that a claim was violated, and the page says which.
    """
    given = {"NAMES": names, "--trials": trials, "--quick": quick, "--seed": seed, "--precision": precision != "float64"}
    for name in [name for name, value in given.items() if results is not None and value]:
        raise typer.BadParameter("is for a run, and --results takes the numbers of one that is over", param_hint=f"'{name}'")
    with plain_errors():
        use_float64()
        from gradstarve.page import read_results, report_page
        from gradstarve.theorems import CATALOGUE

        for name in names or ():
            one_of("NAMES", name, list(CATALOGUE))
        one_of("--precision", precision, PRECISIONS)
        if results is not None:
            found, figures = read_results(results)
            folder = report.output_directory(out or results)
        else:
            folder = report.output_directory(out or "gradstarve-out")
            found, figures = run(names or "all", trials, quick, precision, seed)
        path = files.write_text(folder / "report.html", report_page(found, figures))
    summary = summarise(found, path)
    if as_json:
        typer.echo(json.dumps(report.to_jsonable(summary)))
    else:
        typer.echo("\n".join([_line(row) for row in summary["theorems"] if not row["ok"]] + [_last(summary)]))
    typer.echo(f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB)", err=as_json)
    if not found["ok"]:
        raise typer.Exit(1)


def run(names: Any, trials: int | None, quick: bool, precision: str, seed: int) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The verification of these `names` as a dict, and its figures as SVG by name."""
    import jax

    from gradstarve.page import figure_svg
    from gradstarve.progress import Progress
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


def _line(row: dict[str, Any]) -> str:
    return f"{row['name']} ({row['equation']}): {row['verdict']}"


def _last(summary: dict[str, Any]) -> str:
    rows = summary["theorems"]
    return f"{sum(row['ok'] for row in rows)} of {len(rows)} theorems hold"
