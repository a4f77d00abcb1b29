"""`gradstarve sweep`: many networks for every combination of hyperparameters, as statistics, from the command line."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli import _stop as cli_stop
from gradstarve.cli._dynamics import SWEPT_DYNAMICS, check_dynamics, check_numbers, dynamics_of, numbers_of
from gradstarve.cli.options import (
    DEFAULT_OUT,
    LOSSES,
    PRECISIONS,
    PROBLEMS,
    AsJson,
    Figures,
    Precision,
    Seed,
    check_choice,
    choice,
    command,
    completion,
    conclude,
    count,
    from_file,
    out_option,
    positive,
    print_result,
    use_float64,
    wrote,
)
from gradstarve.cli.options import directory as store_option
from gradstarve.ground import FORMATS, files

EXAMPLE = "Example: gradstarve sweep --seeds 10000 --step-size 0.1,0.3 --over frequency=0.5,0.9 --directory runs/first"
KEEP = ("statistics", "final", "logits")
REDUCTIONS = ("moments", "sum", "min", "max")
ENGINES = ("auto", "reference", "fused", "pallas")
# Numbers of some dynamics, as they are where they are not given.
_USUAL: dict[str, list[Any]] = {"momentum": [0.0], "weight_decay": [0.0], "radius": [0.05], "batch_size": [8]}
# What may be a list of values, which are then swept, and how one of them is read.
SWEPT: dict[str, Callable[[str], Any]] = {
    "frequency": float,
    "norm": float,
    "loss": str,
    "width": int,
    "step_size": float,
    "momentum": float,
    "weight_decay": float,
    "radius": float,
    "batch_size": int,
    "scale_w": float,
    "scale_z": float,
}


def sweep(
    problem: Annotated[str, choice(PROBLEMS, f"Where the two classes lie: {' or '.join(PROBLEMS)}.")] = "antipodal",
    dim: Annotated[int, count("Coordinates d of the data.")] = 2,
    frequency: Annotated[str, typer.Option(help="Weight p of class +; class - has 1 - p. *")] = "0.7",
    norm: Annotated[str, typer.Option(help="Length r of the point of class -; that of class + is 1. *")] = "1",
    loss: Annotated[str, choice(LOSSES, f"One of {', '.join(LOSSES)}. *", several=True)] = "cross-entropy",
    width: Annotated[str, typer.Option(help="Neurons h of each network. *")] = "8",
    dynamics: Annotated[
        str, choice(SWEPT_DYNAMICS, f"One of {', '.join(SWEPT_DYNAMICS)}; sgd draws one point a step, minibatch several.")
    ] = "descent",
    step_size: Annotated[str, typer.Option(help="Step size. *")] = "0.1",
    momentum: Annotated[str, typer.Option(help="Momentum of descent. *")] = "0",
    weight_decay: Annotated[str, typer.Option(help="Weight decay of descent. *")] = "0",
    radius: Annotated[str, typer.Option(help="How far sam looks, in all weights of a network. *")] = "0.05",
    batch_size: Annotated[str, typer.Option(help="Points that minibatch draws for each step. *")] = "8",
    scale_w: Annotated[str, typer.Option(help="Standard deviation of the first layer at the start. *")] = "1",
    scale_z: Annotated[str, typer.Option(help="Standard deviation of the second layer at the start. *")] = "1",
    over: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            help="NAME=V1,V2,... sweeps over an option marked *; may be given several times.",
            autocompletion=completion([f"{name}=" for name in SWEPT]),
        ),
    ] = None,
    pairs: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="NAME,NAME=V:V,...",
            help="Sweeps over options marked * together, as in width,scale-w=4:0.5,8:0.35; may be given several times. "
            "[default: none]",
        ),
    ] = None,
    seeds: Annotated[int, count("How many networks are trained for each combination.")] = 1000,
    steps: Annotated[int, count("Steps of training.")] = 2000,
    record_every: Annotated[
        Optional[int], count("Steps between records. [default: about 40 records]")  # noqa: UP045
    ] = None,
    threshold: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(help="A network has learnt when its error is below it. [default: 0.01, or what every loss can reach]"),
    ] = None,
    keep: Annotated[str, choice(KEEP, f"One of {', '.join(KEEP)}; needs --directory beyond the first.")] = "statistics",
    memory: Annotated[float, typer.Option(help="Bytes for work and result.", show_default="1e9")] = 1e9,
    directory: Annotated[
        Optional[Path],  # noqa: UP045
        store_option(
            "Directory for finished parts: the same command goes on from them, one with more seeds or values reuses them, "
            "and several at once share the work. [default: none]"
        ),
    ] = None,
    statistic: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(
            metavar="FILE.py:NAME",
            help=f"A function of one learning curve, for sweep.npz; with :{', :'.join(REDUCTIONS[1:])} behind it, what is "
            "kept over the networks in place of moments. May be given several times; only run files that you trust. "
            "[default: none]",
        ),
    ] = None,
    open_: Annotated[
        Optional[Path],  # noqa: UP045
        store_option(
            "Trains nothing: tell, write and draw the sweep in this directory, of the command or of gs.sweep. "
            "Goes without the options of a sweep. [default: none]",
            "--open",
        ),
    ] = None,
    engine: Annotated[str, choice(ENGINES)] = "auto",
    precision: Precision = "float64",
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("sweep.json, sweep.npz and sweep.png")] = DEFAULT_OUT,
) -> None:
    """Train many networks for every combination of hyperparameters, and show how their errors are spread.

    Options marked * take several values, as in 0.1,0.3; all combinations are trained. Prints a row per combination, and
    writes all statistics over the steps to sweep.npz, what the table has to sweep.json, and a figure.
    """
    given = locals()
    check_choice("--figures", figures, FORMATS)
    if open_ is not None:
        _refuse_beside_open(given)
        with command("gradstarve sweep"):
            folder = files.output_directory(out)
            result = _opened(open_)
            contents = _write(result, folder, _settings_of(result, open_), figures)
        _tell(result, contents, folder, figures, as_json)
        return
    check_choice("--problem", problem, PROBLEMS)
    check_dynamics(dynamics, SWEPT_DYNAMICS)
    check_choice("--keep", keep, KEEP)
    check_choice("--engine", engine, ENGINES)
    check_choice("--precision", precision, PRECISIONS)
    positive("--memory", memory)
    if threshold is not None:
        positive("--threshold", threshold)
    values = {name: _values(f"--{name.replace('_', '-')}", name, given[name]) for name in SWEPT}
    for text in over or ():
        name, equals, list_of = text.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or name not in SWEPT:
            names = ", ".join(SWEPT)
            raise typer.BadParameter(f"{text!r} is not NAME=V1,V2,... with NAME one of {names}", param_hint="'--over'")
        values[name] = _values("--over", name, list_of)
    together = [_pairs(text) for text in pairs or ()]
    for name in (name for one in together for name in one["names"]):
        if len(values[name]) > 1:
            raise typer.BadParameter(f"{name} has several values of its own too", param_hint="'--pairs'")
    paired = {name: [row[i] for row in one["values"]] for one in together for i, name in enumerate(one["names"])}
    if len(paired) < sum(len(one["names"]) for one in together):
        raise typer.BadParameter("a name is there twice", param_hint="'--pairs'")
    for value in (*values["loss"], *paired.get("loss", ())):
        check_choice("--loss", value, LOSSES)
    check_numbers(dynamics, {name: paired.get(name, values[name]) for name in _USUAL}, _USUAL)
    for name in set(_USUAL) - set(numbers_of(dynamics)):
        del values[name]
    if keep != "statistics" and directory is None:
        raise typer.BadParameter(f"--keep {keep} needs --directory for what is kept", param_hint="'--keep'")
    plain = ("problem", "dim", "dynamics", "seeds", "steps", "record_every", "threshold", "keep", "precision", "seed")
    settings = {name: given[name] for name in plain} | values
    settings |= {"pairs": together} if together else {}
    settings |= {"statistic": list(statistic)} if statistic else {}
    with command("gradstarve sweep"):
        folder = files.output_directory(out)
        if precision == "float64":
            use_float64()
        cli_stop.advise(lambda: _go_on(directory))
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
            result = run_sweep(settings, memory=memory, directory=directory, engine=engine)
        contents = _write(result, folder, settings | {"threshold": result.threshold}, figures)
    _tell(result, contents, folder, figures, as_json, *([f"chunks in {directory}"] if directory else []))


def _tell(result: Any, contents: dict[str, Any], folder: Path, figures: str, as_json: bool, *more: str) -> None:
    print_result(as_json, contents, conclude(result.conclusion(), result.table()))
    wrote(*(folder / f"sweep.{end}" for end in ("json", "npz", figures)), *more)


def _refuse_beside_open(given: dict[str, Any]) -> None:
    """What is in the directory is what was asked for there."""
    for name, parameter in inspect.signature(sweep).parameters.items():
        if name not in ("open_", "figures", "out", "as_json") and given[name] != parameter.default:
            option = f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"reads the sweep that is there, which {option} cannot change", param_hint="'--open'")


def _opened(directory: Path) -> Any:
    from gradstarve.simulation import open_sweep

    return open_sweep(directory)


def _settings_of(result: Any, directory: Path) -> dict[str, Any]:
    """What is known of a sweep that was read."""
    told = {name: getattr(result, name) for name in ("record_every", "threshold", "keep", "precision")}
    return {"open": str(directory), "seeds": [result.seeds.start, result.seeds.stop], "steps": int(result.grid[-1])} | told


def _go_on(directory: Path | None) -> str:
    """The advice for a user who stops the command; the library's own message is for those who call `sweep`."""
    if directory is None:
        return "nothing of the sweep is stored; with --directory it could go on from here"
    count = len(list(directory.glob("chunk-*.npz")))
    return f"the same command goes on from the {count} chunks stored in {str(directory)!r}"


def run_sweep(settings: dict[str, Any], **how: Any) -> Any:
    """The `SweepResult` of `settings` by name, as stored in sweep.json; `how` are arguments that do not change it."""
    import jax

    from gradstarve.problem import datasets
    from gradstarve.simulation import sweep

    s = settings
    make = {"antipodal": datasets.antipodal, "orthogonal": datasets.orthogonal}[s["problem"]]
    first = {name: s[name][0] for name in SWEPT if name in s}
    over: dict[Any, list] = {name: s[name] for name in first if len(s[name]) > 1}
    for one in s.get("pairs", ()):
        over[tuple(one["names"])] = [tuple(row) for row in one["values"]]
        first |= dict(zip(one["names"], one["values"][0], strict=True))

    def data(frequency=first["frequency"], norm=first["norm"]):
        return make(s["dim"], frequencies=(frequency, 1 - frequency), norms=(1.0, norm))

    return sweep(
        data,
        s["seeds"],
        steps=s["steps"],
        record_every=s["record_every"],
        **{name: first[name] for name in ("width", "loss", "scale_w", "scale_z")},
        dynamics=dynamics_of(s["dynamics"], first),
        over=over,
        key=jax.random.key(s["seed"]),
        keep=s["keep"],
        threshold=s["threshold"],
        statistics=_statistics(s.get("statistic", ())),
        **how,
    )


def _write(result: Any, folder: Path, settings: dict[str, Any], figures: str) -> dict[str, Any]:
    """The three files; what is in sweep.json."""
    import numpy as np

    from gradstarve.comparison import law_of_sweep
    from gradstarve.simulation import ERROR, MARGIN, drawn_configurations

    shown = drawn_configurations(result)
    result.plot(folder / f"sweep.{figures}", shown, law_of_sweep(result, shown))
    edges = {"error_edges": ERROR.edges, "margin_edges": MARGIN.edges}
    with files.whole(folder / "sweep.npz") as part, part.open("wb") as stream:  # given a path, NumPy adds an ending
        np.savez_compressed(stream, allow_pickle=False, step=result.grid, **edges, **result.statistics)
    environment = files.environment() | {"engine": result.engine}
    contents = {"settings": settings, "environment": environment, "axes": list(result.over), "summary": result.summary()}
    contents |= {"note": result.note} if result.note else {}
    files.write_json(folder / "sweep.json", contents)
    return contents


def _statistics(given: Sequence[str]) -> dict[str, Any] | None:
    """The functions by name, each with how it is reduced over the networks."""
    found = {}
    for text in given:
        place, _, last = text.rpartition(":")
        reduction = last if last in REDUCTIONS and ":" in place else REDUCTIONS[0]
        place = place if reduction == last else text
        found[place.rpartition(":")[2]] = from_file(place, "measures.py:detour"), reduction
    return found or None


def _pairs(text: str) -> dict[str, Any]:
    """The names and the rows of values of "width,scale-w=4:0.5,8:0.35"."""
    names, equals, rows = text.partition("=")
    found = [name.strip().replace("-", "_") for name in names.split(",")]
    cells = [row.split(":") for row in rows.split(",")]
    wrong = [name for name in found if name not in SWEPT]
    if not equals or wrong or len(found) < 2 or any(len(row) != len(found) for row in cells):
        what = f"{text!r} is not NAME,NAME=V:V,V:V,... with a value for each NAME, one of {', '.join(SWEPT)}"
        raise typer.BadParameter(what, param_hint="'--pairs'")
    columns = zip(*cells, strict=True)
    read = [_values("--pairs", name, ",".join(column)) for name, column in zip(found, columns, strict=True)]
    return {"names": found, "values": [list(row) for row in zip(*read, strict=True)]}


def _values(option: str, name: str, text: str) -> list:
    """The values of a list with commas, each as `SWEPT` reads them."""
    kind = SWEPT[name]
    try:
        values = [kind(part.strip()) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or "" in values:
        what = {float: "numbers", int: "whole numbers", str: "names"}[kind]
        raise typer.BadParameter(f"{text!r} is not one or several {what}, as in V1,V2", param_hint=f"'{option}'")
    return values
