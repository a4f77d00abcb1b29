"""`gradstarve optimisers`: which neurons live, which die and how fast, under the usual optimisers.

Below it: `gradstarve stability`, what large steps, noise and weight decay do to kappa.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    AsJson,
    Figures,
    Seed,
    check_choice,
    choice,
    command,
    count,
    out_option,
    print_result,
    several,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS, csv_text, files

OPTIMISERS_EXAMPLE = "Example: gradstarve optimisers --quick --optimisers descent,sign,adam --out optimisers"
OPTIMISERS = ("descent", "normalised", "sam", "layers", "sign", "adam", "rmsprop")
OPTIMISER_PROBLEMS = ("one-class", "antipodal")


def optimisers(
    optimisers: Annotated[
        str, choice(OPTIMISERS, f"One or several of {', '.join(OPTIMISERS)}.", several=True)
    ] = ",".join(OPTIMISERS),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer networks and sizes: within twenty seconds.")] = False,
    problem: Annotated[str, choice(OPTIMISER_PROBLEMS, "one-class, or antipodal: two opposite classes.")] = "one-class",
    dim: Annotated[int, count("Coordinates d of the data.")] = 10,
    width: Annotated[int, count("Neurons h of each network.")] = 16,
    networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--seeds", "--networks", min=2, help="Networks at each ratio. [default: 100, with --quick 40]"),
    ] = None,
    ratios: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Deviations of a over those of z. [default: 0.2,0.5,1,2,5, with --quick 0.2,1,5]"),
    ] = None,
    steps: Annotated[
        Optional[int],  # noqa: UP045
        count("Steps of each training. [default: 2000, with --quick 1200]", least=10),
    ] = None,
    dims: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Dimensions where optimisers meet the law of signs. [default: 1,2,10,100, with --quick 1,10]"),
    ] = None,
    widths: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Widths where they meet it. [default: 1,8,64, with --quick 1,8]"),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("optimisers.png, optimisers.json and two tables as CSV")] = DEFAULT_OUT,
) -> None:
    """Show which neurons live, which die, and how fast a class is learnt, under seven optimisers.

    The share of neurons that keep their class over the ratio of the deviations of a and z at the start, by law and trained;
    error curves by law and trained; and how well sign descent, Adam and RMSProp agree with the law of sign descent in fates
    and in time, over dimension, width and step size. Prints the tables; writes the figure, the numbers as JSON, and
    optimisers-shares.csv and optimisers-agreement.csv.
    """
    settings: dict[str, Any] = {
        "optimisers": tuple(several("--optimisers", optimisers, OPTIMISERS)),
        "problem": problem,
        "dim": dim,
        "width": width,
        "key": seed,
    }
    check_choice("--problem", problem, OPTIMISER_PROBLEMS)
    check_choice("--figures", figures, FORMATS)
    given = {
        "networks": networks,
        "steps": steps,
        "ratios": None if ratios is None else _positive("--ratios", ratios),
        "dims": None if dims is None else _counts("--dims", dims),
        "widths": None if widths is None else _counts("--widths", widths),
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    with command("gradstarve optimisers"):
        folder = files.output_directory(out)
        use_float64()
        study = run_optimisers(settings, quick)
        paths = [folder / f"optimisers.{figures}"]
        study.plot(paths[0])
        paths += _tables(folder, "optimisers", {"shares": study.share_rows(), "agreement": study.agreement_rows()})
        result = {"settings": study.settings, "environment": files.environment()} | study.to_dict()
        files.write_json(folder / "optimisers.json", result)
    print_result(as_json, result, f"{study.table()}\n\n{study.notes()}")
    wrote(*paths, folder / "optimisers.json")


def run_optimisers(settings: dict[str, Any], quick: bool = False) -> Any:
    """The `OptimiserStudy` of `settings` by name, as stored in optimisers.json."""
    from gradstarve.studies.optimisers import QUICK, optimiser_study

    return optimiser_study(**((QUICK if quick else {}) | settings))


def _tables(folder: Path, name: str, tables: dict[str, Any]) -> list[Path]:
    """A CSV file of each table that has rows."""
    paths = []
    for part, rows in tables.items():
        if len(rows) > 1:
            paths.append(files.write_text(folder / f"{name}-{part}.csv", csv_text(rows)))
    return paths


def _positive(option: str, text: str) -> tuple[float, ...]:
    """Different numbers above 0 with commas between them."""
    try:
        values = [float(part) for part in several(option, text)]
    except ValueError:
        values = [math.nan]
    if not all(0 < value < math.inf for value in values) or len(set(values)) < len(values):
        message = f"{text!r} is not one or several different numbers above 0, as in 0.5,1,2"
        raise typer.BadParameter(message, param_hint=f"'{option}'")
    return tuple(values)


def _counts(option: str, text: str) -> tuple[int, ...]:
    """Whole numbers of at least 1 with commas between them."""
    values = several(option, text)
    if not all(value.isdecimal() and int(value) for value in values):
        message = f"{text!r} is not one or several whole numbers of at least 1, as in 1,8,64"
        raise typer.BadParameter(message, param_hint=f"'{option}'")
    return tuple(map(int, values))
