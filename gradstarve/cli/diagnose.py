"""`gradstarve diagnose`: the starvation report of a model in a Python file and of data in an NPZ file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    AsJson,
    Figures,
    Seed,
    check_choice,
    command,
    count,
    from_file,
    out_option,
    positive,
    print_result,
    wrote,
)
from gradstarve.ground import FORMATS, files

EXAMPLE = "Example: gradstarve diagnose model.py:net data.npz --groups background --step-size 0.1 --out report"


def diagnose(
    model: Annotated[str, typer.Argument(metavar="FILE.py:NAME", help="A Python file and the name of the model in it.")],
    data: Annotated[Path, typer.Argument(metavar="FILE.npz", help="Arrays x (samples) and y (labels), and groups.")],
    groups: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="NAME", help="The array of the file that says what samples have. [default: none]"),
    ] = None,
    parameters: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="PREFIX", help="Of which parameters the kernel is: a prefix of names, or last. [default: all]"),
    ] = None,
    step_size: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="Step size of your training on the mean loss, to have times as steps. [default: none]"),
    ] = None,
    batch_size: Annotated[
        Optional[int],  # noqa: UP045
        count("Samples in a batch, to have times as epochs. [default: all]"),
    ] = None,
    momentum: Annotated[float, typer.Option(help="Momentum of your training, for times as steps.")] = 0.0,
    last_layer: Annotated[bool, typer.Option("--last-layer", help="Predict re-training of the last layer too.")] = False,
    splits: Annotated[int, count("Parts of the data that are held out in turn.", least=2)] = 5,
    memory: Annotated[int, count("Bytes for the kernel and the gradients at hand.")] = 2**30,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("diagnose.html, the figure and diagnose.json")] = DEFAULT_OUT,
) -> None:
    """Tell, before training, which features of your data starve the rest, and what happens on samples not seen.

    The model is what `gradstarve.starvation_report` takes: a torch.nn.Module, an equinox or flax model, or (apply, params)
    at the parameters that it has after the file has run. Only run files that you trust. Writes the report as a page, a
    figure and JSON, and prints its tables.
    """
    check_choice("--figures", figures, FORMATS)
    if step_size is not None:
        positive("--step-size", step_size)
    with command("gradstarve diagnose"):
        network = from_file(model, "model.py:net")
        folder = files.output_directory(out)
        from gradstarve.diagnosis import starvation_report

        report = starvation_report(
            network,
            data,
            groups,
            parameters=parameters,
            step_size=step_size,
            batch_size=batch_size,
            momentum=momentum,
            last_layer=last_layer,
            splits=splits,
            memory=memory,
            key=seed,
        )
        report.plot(folder / f"diagnose.{figures}")
        report.html(folder / "diagnose.html")
        settings = {"model": model, "data": str(data), "groups": groups, "splits": splits, "seed": seed}
        result = {"settings": settings, "environment": files.environment(), "report": report.to_dict()}
        files.write_json(folder / "diagnose.json", result)
    print_result(as_json, result, report.table())
    wrote(*(folder / f"diagnose.{end}" for end in ("html", figures, "json")))
