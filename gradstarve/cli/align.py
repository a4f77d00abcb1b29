"""`gradstarve align`: where every neuron goes before anything is learnt, on a file of points or on digits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    LOSSES,
    AsJson,
    Figures,
    Seed,
    check_choice,
    choice,
    count,
    give_study,
    out_option,
    positive,
    several,
)

EXAMPLE = "Example: gradstarve align --digits 3,8 --scale 0.01 --out align"


def align(
    file: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(
            metavar="FILE",
            help="A .csv or .tsv with a header and a column label, or an .npz with points and labels; digits without it.",
            show_default=False,
        ),
    ] = None,
    digits: Annotated[str, typer.Option(help="The two digits, without a file.")] = "3,8",
    centred: Annotated[bool, typer.Option(help="Whether pixels are centred on the midpoint of the two mean images.")] = True,
    scale: Annotated[float, typer.Option(help="Standard deviation of all weights at the start.")] = 0.01,
    width: Annotated[int, count("Neurons h of the network.")] = 60,
    loss: Annotated[str, choice(LOSSES)] = "cross-entropy",
    until: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="The last time drawn. [default: when the largest output is 1]", show_default=False),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("align.png, align.csv and align.json")] = DEFAULT_OUT,
) -> None:
    """Show where every neuron goes while outputs are small: to which direction, or to its death.

    By the law of early alignment, exact for any data with two labels, and in training by gradient descent. Prints how many
    neurons end in each direction, which points those see, and how long the phase lasts; writes the figure, all numbers as
    JSON, and the angles of all neurons to the class means over time as CSV.
    """
    positive("--scale", scale)
    if until is not None:
        positive("--until", until)
    check_choice("--loss", loss, LOSSES)
    settings: dict[str, Any] = {"scale": scale, "width": width, "loss": loss, "until": until, "key": seed}
    if file is None:
        pair = several("--digits", digits)
        if len(set(pair)) != 2 or not all(one in tuple("0123456789") for one in pair):
            raise typer.BadParameter(f"{digits!r} is not two different digits, as in 3,8", param_hint="'--digits'")
        settings |= {"data": "digits", "pair": tuple(map(int, pair)), "centred": centred}
    else:
        settings |= {"data": str(file)}
    give_study("align", lambda: run_align(settings), out, figures, as_json)


def run_align(settings: dict[str, Any]) -> Any:
    """The `AlignmentStudy` of `settings` by name, as stored in align.json."""
    from gradstarve.studies.alignment import alignment_study

    return alignment_study(**settings)
