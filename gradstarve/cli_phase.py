"""`gradstarve phase`: maps of where training fails and how long it takes, loss beside loss, from the command line."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve import report
from gradstarve.cli_parts import Seed, one_of, plain_errors, use_float64

EXAMPLE = "Example: gradstarve phase --planes neuron,failure --losses hinge --width 8 --networks 2000"
PLANES = ("neuron", "angle", "failure", "time")
LOSSES = ("cross-entropy", "hinge", "exponential")
_TAKES = {"pixels": ("neuron", "angle", "time"), "width": ("failure", "time"), "networks": ("failure", "time")}


def phase(
    planes: Annotated[str, typer.Option(help=f"One figure each: {', '.join(PLANES)}.")] = ",".join(PLANES),
    losses: Annotated[str, typer.Option(help=f"One column or row each: {', '.join(LOSSES)}.")] = "cross-entropy,hinge",
    width: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=1, help="Neurons h: the most of failure, those of time. [default: 12 and 8]"),
    ] = None,
    networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=10, help="Random networks a point of failure and time. [default: 1000 and 120]"),
    ] = None,
    pixels: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=4, help="Pixels along a map of neuron, angle and time. [default: 160, 150 and 25]"),
    ] = None,
    seed: Seed = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the tables as JSON.")] = False,
    out: Annotated[Path, typer.Option(help="Directory for phase-*.png and phase.json.")] = Path("gradstarve-out"),
) -> None:
    """Map where training fails, and how long it takes: exact where there is a law, by exact events or the flow elsewhere.

    neuron: where one neuron goes in the plane of a = w.x/|x| and z, and its time to a margin of 1. angle: what it learns by
    its direction between two classes at an angle, and who dies. failure: how often a network of h neurons never learns a
    class. time: quantiles over networks of the time to learn. Prints a table each; writes a figure each, and all maps as
    JSON.
    """
    wanted, chosen = _several("--planes", planes, PLANES), _several("--losses", losses, LOSSES)
    given = {"width": width, "networks": networks, "pixels": pixels}
    for name, value in given.items():
        if value is not None and not set(_TAKES[name]) & set(wanted):
            message = f"is for the planes {', '.join(_TAKES[name])}, none of which is among --planes {planes}"
            raise typer.BadParameter(message, param_hint=f"'--{name}'")
    with plain_errors():
        folder = report.output_directory(out)
        use_float64()

        def one(plane):
            return run_phase(plane_settings(plane, chosen, seed, given))

        # Compiling takes most of the time, and two threads share it. The longest first, and those that run the same
        # programs one after the other.
        order = sorted(wanted, key=("failure", "neuron", "angle", "time").index)
        with ThreadPoolExecutor(2) as pool:
            done = dict(zip(order, pool.map(one, order), strict=True))
        diagrams = [done[plane] for plane in wanted]
        written = []
        for diagram in diagrams:
            path = folder / f"phase-{diagram.plane}.png"
            diagram.plot(path)
            written.append(str(path))
        head = {"environment": report.environment()}
        full = [{"settings": d.settings, **d.to_dict()} for d in diagrams]
        report.write_json(folder / "phase.json", head | {"diagrams": full})
        written.append(str(folder / "phase.json"))
    if as_json:
        short = [{"settings": d.settings, "plane": d.plane, "table": d.records()} for d in diagrams]
        typer.echo(json.dumps(report.to_jsonable(head | {"diagrams": short})))
    else:
        typer.echo("\n\n".join(f"{d.plane}\n{d.table()}\n{d.notes()}" for d in diagrams))
    typer.echo(f"Wrote {', '.join(written[:-1])} and {written[-1]}", err=as_json)


def plane_settings(plane: str, losses: list[str], seed: int, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `phase_diagram` for a plane: of what was `given`, what the plane takes."""
    settings: dict[str, Any] = {"loss": tuple(losses), "plane": plane}
    if plane in ("failure", "time"):
        settings["seed"] = seed
    return settings | {name: value for name, value in given.items() if value is not None and plane in _TAKES[name]}


def run_phase(settings: dict[str, Any]) -> Any:
    """The `PhaseDiagram` of `settings` by name, as stored in phase.json."""
    from gradstarve.studies.phase import phase_diagram

    return phase_diagram(**settings, progress=False)


def _several(option: str, text: str, valid: tuple[str, ...]) -> list[str]:
    values = [part.strip() for part in text.split(",")]
    for value in values:
        one_of(option, value, valid)
    if len(set(values)) < len(values):
        raise typer.BadParameter(f"{text!r} names one twice", param_hint=f"'{option}'")
    return values
