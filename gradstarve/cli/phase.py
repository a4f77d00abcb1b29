"""`gradstarve phase`: maps of where training fails and how long it takes, loss beside loss, from the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    AsJson,
    Figures,
    Seed,
    choice,
    count,
    one_of,
    out_option,
    plain_errors,
    several,
    show,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS
from gradstarve.ground import _report as report

EXAMPLE = "Example: gradstarve phase --planes neuron,failure --losses hinge --width 8 --seeds 2000"
PLANES = ("neuron", "angle", "failure", "time")
LOSSES = ("cross-entropy", "hinge", "exponential")
_TAKES = {"pixels": ("neuron", "angle", "time"), "width": ("failure", "time"), "networks": ("failure", "time")}


def phase(
    planes: Annotated[str, choice(PLANES, f"One figure each: {', '.join(PLANES)}.", several=True)] = ",".join(PLANES),
    losses: Annotated[
        str, choice(LOSSES, f"One column or row of a figure each: {', '.join(LOSSES)}.", several=True)
    ] = "cross-entropy,hinge",
    width: Annotated[
        Optional[int],  # noqa: UP045
        count("Neurons h: the most of failure, those of time. [default: 12 and 8]"),
    ] = None,
    networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--seeds", "--networks", min=10, help="Random networks a point of failure and time. [default: 1000 and 120]"
        ),
    ] = None,
    pixels: Annotated[
        Optional[int],  # noqa: UP045
        count("Pixels along a map of neuron, angle and time. [default: 160, 150 and 25]", least=4),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("a figure of each plane and phase.json")] = DEFAULT_OUT,
) -> None:
    """Map where training fails, and how long it takes: exact where there is a law, by exact events or the flow elsewhere.

    neuron: where one neuron goes in the plane of a = w.x/|x| and z, and its time to a margin of 1. angle: what it learns by
    its direction between two classes at an angle, and who dies. failure: how often a network of h neurons never learns a
    class. time: quantiles over networks of the time to learn. Prints a table each; writes a figure each, and all maps as
    JSON.
    """
    wanted, chosen = several("--planes", planes, PLANES), several("--losses", losses, LOSSES)
    one_of("--figures", figures, FORMATS)
    given = {"width": width, "networks": networks, "pixels": pixels}
    for name, value in given.items():
        if value is not None and not set(_TAKES[name]) & set(wanted):
            message = f"is for the planes {', '.join(_TAKES[name])}, none of which is among --planes {planes}"
            raise typer.BadParameter(message, param_hint=f"'--{'seeds' if name == 'networks' else name}'")
    with plain_errors("gradstarve phase"):
        from concurrent.futures import ThreadPoolExecutor

        folder = report.output_directory(out)
        use_float64()

        def one(plane):
            return run_phase(plane_settings(plane, chosen, seed, given))

        # Compiling takes most of the time, and two threads share it. The longest first, and those that run the same
        # programs one after the other.
        order = sorted(wanted, key=("failure", "neuron", "angle", "time").index)
        pool = ThreadPoolExecutor(2)
        try:
            done = dict(zip(order, pool.map(one, order), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # all is done, or nobody waits for it any more
        diagrams = [done[plane] for plane in wanted]
        paths = [folder / f"phase-{diagram.plane}.{figures}" for diagram in diagrams]
        for diagram, path in zip(diagrams, paths, strict=True):
            diagram.plot(path)
        full = [{"settings": d.settings, **d.to_dict(), "table": d.records()} for d in diagrams]
        result = {"environment": report.environment(), "diagrams": full}
        report.write_json(folder / "phase.json", result)
    show(as_json, result, "\n\n".join(f"{d.plane}\n{d.table()}\n{d.notes()}" for d in diagrams))
    wrote(*paths, folder / "phase.json")


def plane_settings(plane: str, losses: list[str], seed: int, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `phase_diagram` for a plane: of what was `given`, what the plane takes."""
    settings: dict[str, Any] = {"loss": tuple(losses), "plane": plane}
    if plane in ("failure", "time"):
        settings["seed"] = seed
    return settings | {name: value for name, value in given.items() if value is not None and plane in _TAKES[name]}


def run_phase(settings: dict[str, Any]) -> Any:
    """The `PhaseDiagram` of `settings` by name, as stored in phase.json."""
    from gradstarve.studies.phase.plane import phase_diagram

    return phase_diagram(**settings)
