"""The command line: `gradstarve overlay`, `sweep`, `starve`, `shortcut`, `digits`, `phase`, `figures`, `align`,
`optimisers`, `stability`, `plasticity`, `derive`, `verify`, `report`.

Everything heavy is imported inside the commands, so that `--help` and the completion of a word are quick. The process is
ours, so it runs in float64. Results go to standard output, and all other messages to standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn, Optional

import typer

from gradstarve.cli import _stop as cli_stop
from gradstarve.cli import align as cli_align
from gradstarve.cli import derive as cli_derive
from gradstarve.cli import diagnose as cli_diagnose
from gradstarve.cli import steps as cli_steps
from gradstarve.cli import studies as cli_studies
from gradstarve.cli import sweep as cli_sweep
from gradstarve.cli import verify as cli_verify
from gradstarve.cli._dynamics import DRAWN_DYNAMICS, check_dynamics, check_numbers, dynamics_of
from gradstarve.cli.options import (
    DEFAULT_OUT,
    LOSSES,
    PROBLEMS,
    AsJson,
    Figures,
    Seed,
    check_choice,
    choice,
    command,
    conclude,
    count,
    out_option,
    pair,
    positive,
    print_result,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS, cache, files, progress

app = typer.Typer(
    name="gradstarve",
    help="Exact learning dynamics of two-layer ReLU networks: theory on training, derivations, checks of theorems.",
    no_args_is_help=True,
    context_settings={"max_content_width": 110, "help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def main(program: str = "gradstarve") -> None:
    """The entry point of the command, under the name by which it is called."""
    if any(word.startswith(("--install-completion", "--show-completion")) for word in sys.argv[1:]):
        program = "gradstarve"  # shells complete the words after a command, not after `python -m`
    cli_stop.listen()
    try:
        try:
            app(prog_name=program)
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except SystemExit as exit:
        if exit.code == cli_stop.CODE:
            cli_stop.end()
        raise
    except BrokenPipeError:
        _give_up_output(1)  # `| head` has enough
    except OSError as error:  # commands report their own; what is left is the output
        print(f"error: cannot write to standard output: {error.strerror}", file=progress.Quiet(sys.stderr))
        _give_up_output(2)


def _give_up_output(code: int) -> NoReturn:
    """Leave with an exit code; what standard output did not take is not tried again by the interpreter."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"gradstarve {files.version()}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    # Figures go to files; which windows Matplotlib could open, and whether it knows the name, is no matter.
    os.environ["MPLBACKEND"] = "agg"
    cache.enable_for_command_line()


@app.command(
    epilog="Example: gradstarve overlay --loss hinge --width 8 --seeds 256 --out figures",
    short_help="Theory in closed form, drawn on top of trained networks.",
)
def overlay(
    problem: Annotated[str, choice(PROBLEMS, f"Where the two classes lie: {' or '.join(PROBLEMS)}.")] = "antipodal",
    loss: Annotated[str, choice(LOSSES)] = "cross-entropy",
    dynamics: Annotated[
        str, choice(DRAWN_DYNAMICS, f"One of {', '.join(DRAWN_DYNAMICS)}; flow is descent in the limit of small steps.")
    ] = "descent",
    width: Annotated[int, count("Neurons h of each network.")] = 16,
    seeds: Annotated[int, count("How many networks are trained.")] = 512,
    steps: Annotated[int, count("Steps of training; a flow runs to time steps x step size.")] = 200,
    step_size: Annotated[float, typer.Option(help="Step size; time t = step size x step.")] = 0.3,
    radius: Annotated[float, typer.Option(help="How far sam looks, in all weights of a network.")] = 0.05,
    dim: Annotated[int, count("Coordinates d of the data.")] = 5,
    norms: Annotated[str, typer.Option(help='Lengths r of the points of class + and -, as "1,1.5".')] = "1,1",
    frequencies: Annotated[str, typer.Option(help='Weights p of class + and -, with sum 1, as "0.7,0.3".')] = "0.7,0.3",
    scale_w: Annotated[float, typer.Option(help="Standard deviation of the first layer at the start.")] = 0.05,
    scale_z: Annotated[float, typer.Option(help="Standard deviation of the second layer at the start.")] = 0.05,
    record_every: Annotated[
        Optional[int], count("Steps between records. [default: about 200 records]")  # noqa: UP045
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("overlay.png and overlay.json")] = DEFAULT_OUT,
) -> None:
    """Train many networks, solve the same problem in closed form, and draw one on top of the other.

    Writes the figure and a JSON file with all settings, versions and gaps, and prints the gap table. On orthogonal
    classes, neurons that see both are first made exclusive to one of them, as the theorem asks.
    """
    check_choice("--problem", problem, PROBLEMS)
    check_choice("--loss", loss, LOSSES)
    check_dynamics(dynamics, DRAWN_DYNAMICS)
    check_numbers(dynamics, {"radius": radius}, {"radius": 0.05})
    check_choice("--figures", figures, FORMATS)
    pairs = {"norms": pair("--norms", norms), "frequencies": pair("--frequencies", frequencies, "0.7,0.3")}
    sizes = (("--step-size", step_size), ("--radius", radius), ("--scale-w", scale_w), ("--scale-z", scale_z))
    for name, value in sizes:
        positive(name, value)
    every = record_every or max(1, steps // 200)
    settings = {
        "problem": problem,
        "loss": loss,
        "dynamics": dynamics,
        "width": width,
        "seeds": seeds,
        "steps": steps,
        "step_size": step_size,
        **({"radius": radius} if dynamics == "sam" else {}),
        "dim": dim,
        **pairs,
        "scale_w": scale_w,
        "scale_z": scale_z,
        "record_every": every,
        "seed": seed,
    }
    with command("gradstarve overlay"):
        folder = files.output_directory(out)
        use_float64()
        comparison = run_overlay(settings)
        from gradstarve.ground import text

        scales = f"σ = {text.number(scale_w)}"
        if scale_z != scale_w:
            scales = f"σ(w) = {text.number(scale_w)}, σ(z) = {text.number(scale_z)}"
        figure = folder / f"overlay.{figures}"
        comparison.plot(path=figure, note=f"start {scales}")
        result = {"settings": settings, "environment": files.environment(), "comparison": comparison.to_dict()}
        files.write_json(folder / "overlay.json", result)
    print_result(as_json, result, conclude(comparison.conclusion(), comparison.table()))
    wrote(figure, folder / "overlay.json")


def run_overlay(settings: dict[str, Any]) -> Any:
    """The `Comparison` that `gradstarve overlay` draws, for its `settings` by name (as stored in overlay.json)."""
    import jax
    import numpy as np

    from gradstarve.comparison import compare
    from gradstarve.problem import datasets, exclusive, init_two_layer
    from gradstarve.simulation import simulate, simulate_flow
    from gradstarve.theory import solve

    s = settings
    key_data, key_network, key_side = jax.random.split(jax.random.key(s["seed"]), 3)
    make = {"antipodal": datasets.antipodal, "orthogonal": datasets.orthogonal}[s["problem"]]
    data = make(s["dim"], frequencies=s["frequencies"], norms=s["norms"], key=key_data)
    network = init_two_layer(key_network, s["seeds"], s["width"], s["dim"], s["scale_w"], s["scale_z"])
    if s["problem"] == "orthogonal":
        network = exclusive(data, network, key_side)
    dynamics = dynamics_of(s["dynamics"], s)
    if s["dynamics"] != "flow":
        trajectory = simulate(data, network, s["loss"], dynamics, s["steps"], record_every=s["record_every"])
    else:
        steps = np.append(np.arange(0, s["steps"], s["record_every"]), s["steps"])
        trajectory = simulate_flow(data, network, s["loss"], s["step_size"] * steps)
    return compare(solve(data, network, s["loss"], dynamics), trajectory)


def _add(function: Any, epilog: str, short_help: str, name: str | None = None) -> None:
    app.command(name, epilog=epilog, short_help=short_help)(function)


_add(cli_sweep.sweep, cli_sweep.EXAMPLE, "Millions of networks over hyperparameters, as statistics.")
_add(cli_studies.starve, cli_studies.STARVE_EXAMPLE, "How features that share samples starve each other, and remedies.")
_add(cli_studies.shortcut, cli_studies.SHORTCUT_EXAMPLE, "A shortcut that a minority contradicts: the worst cell over time.")
_add(cli_studies.coloured, cli_studies.COLOURED_EXAMPLE, "Digits with a shortcut: the report's prediction, and training.")
_add(cli_studies.digits, cli_studies.DIGITS_EXAMPLE, "The same laws and remedies on real handwritten digits.")
_add(cli_studies.phase, cli_studies.PHASE_EXAMPLE, "Maps of where training fails and how long it takes.")
_add(cli_studies.key_figures, cli_studies.FIGURES_EXAMPLE, "The key figures: each one claim in a picture.", "figures")
_add(cli_align.align, cli_align.EXAMPLE, "Where every neuron goes first, on your points or on digits.")
_add(cli_diagnose.diagnose, cli_diagnose.EXAMPLE, "Your own model and data: what will starve, on samples not seen.")
_add(cli_steps.optimisers, cli_steps.OPTIMISERS_EXAMPLE, "Which neurons live and die under seven optimisers, and how fast.")
_add(cli_steps.stability, cli_steps.STABILITY_EXAMPLE, "Large steps, label noise and weight decay in the plane of kappa.")
_add(cli_steps.plasticity, cli_steps.PLASTICITY_EXAMPLE, "Which neurons die when labels flip again and again.")
_add(cli_derive.derive, cli_derive.EXAMPLE, "A law derived from network and loss, every step checked.")
_add(cli_verify.verify, cli_verify.EXAMPLE, "Try to break the theorems on random problems.")
_add(cli_verify.page, cli_verify.REPORT_EXAMPLE, "The theorems and their verdicts as one page for a browser.", "report")


if __name__ == "__main__":
    main()
