"""The command line: `gradstarve overlay`, `sweep`, `starve`, `digits`, `phase`, `derive`, `verify`.

Everything heavy is imported inside the commands, so that `--help` is quick. The process is ours, so it runs in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve import cli_digits, cli_phase, cli_report, cli_starve, cli_sweep, report
from gradstarve.cli_parts import LOSSES, PRECISIONS, PROBLEMS, Seed, one_of, pair, plain_errors, use_float64

DYNAMICS = ("descent", "flow")
FORMATS = {"text": "txt", "markdown": "md", "latex": "tex"}

app = typer.Typer(
    name="gradstarve",
    help="Exact learning dynamics of two-layer ReLU networks: theory on training, derivations, checks of theorems.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Loss = Annotated[str, typer.Option(help=f"One of {', '.join(LOSSES)}.")]


def main() -> None:
    """The entry point of the `gradstarve` command."""
    app()


def _show_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"gradstarve {report.version()}")
        raise typer.Exit
    return wanted


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(epilog="Example: gradstarve overlay --loss hinge --width 8 --seeds 256 --out figures")
def overlay(
    problem: Annotated[str, typer.Option(help="Where the two classes lie: antipodal or orthogonal.")] = "antipodal",
    loss: Loss = "cross-entropy",
    dynamics: Annotated[str, typer.Option(help="descent (of gradients) or flow (its small-step limit).")] = "descent",
    width: Annotated[int, typer.Option(min=1, help="Neurons h of each network.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="How many networks are trained.")] = 512,
    steps: Annotated[int, typer.Option(min=1, help="Steps of training; a flow runs to time steps x step size.")] = 200,
    step_size: Annotated[float, typer.Option(help="Step size; time t = step size x step.")] = 0.3,
    dim: Annotated[int, typer.Option(min=1, help="Coordinates d of the data.")] = 5,
    norms: Annotated[str, typer.Option(help='Lengths r of the points of class + and -, as "1,1.5".')] = "1,1",
    frequencies: Annotated[str, typer.Option(help='Weights p of class + and -, with sum 1, as "0.7,0.3".')] = "0.7,0.3",
    scale_w: Annotated[float, typer.Option(help="Standard deviation of the first layer at the start.")] = 0.05,
    scale_z: Annotated[float, typer.Option(help="Standard deviation of the second layer at the start.")] = 0.05,
    record_every: Annotated[
        Optional[int], typer.Option(min=1, help="Steps between records. [default: about 200 records]")  # noqa: UP045
    ] = None,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Directory for overlay.png and overlay.json.")] = Path("gradstarve-out"),
) -> None:
    """Train many networks, solve the same problem in closed form, and draw one on top of the other.

    Writes the figure and a JSON file with all settings, versions and gaps, and prints the gap table. On orthogonal
    classes, neurons that see both are first made exclusive to one of them, as the theorem asks.
    """
    one_of("--problem", problem, PROBLEMS)
    one_of("--loss", loss, LOSSES)
    one_of("--dynamics", dynamics, DYNAMICS)
    pairs = {"norms": pair("--norms", norms), "frequencies": pair("--frequencies", frequencies)}
    for name, value in (("--step-size", step_size), ("--scale-w", scale_w), ("--scale-z", scale_z)):
        if not 0 < value < float("inf"):
            raise typer.BadParameter(f"{value} is not a finite number above 0", param_hint=f"'{name}'")
    every = record_every or max(1, steps // 200)
    settings = {
        "problem": problem,
        "loss": loss,
        "dynamics": dynamics,
        "width": width,
        "seeds": seeds,
        "steps": steps,
        "step_size": step_size,
        "dim": dim,
        **pairs,
        "scale_w": scale_w,
        "scale_z": scale_z,
        "record_every": every,
        "seed": seed,
    }
    with plain_errors():
        folder = report.output_directory(out)
        use_float64()
        comparison = run_overlay(settings)
        from gradstarve import text

        scales = f"σ = {text.number(scale_w)}"
        if scale_z != scale_w:
            scales = f"σ(w) = {text.number(scale_w)}, σ(z) = {text.number(scale_z)}"
        comparison.plot(path=folder / "overlay.png", note=f"start {scales}")
        result = {"settings": settings, "environment": report.environment(), "comparison": comparison.to_dict()}
        report.write_json(folder / "overlay.json", result)
    typer.echo(comparison.table())
    typer.echo(f"Wrote {folder / 'overlay.png'} and {folder / 'overlay.json'}")


def run_overlay(settings: dict[str, Any]) -> Any:
    """The `Comparison` that `gradstarve overlay` draws, for its `settings` by name (as stored in overlay.json)."""
    import jax
    import numpy as np

    from gradstarve.compare import compare
    from gradstarve.problem import GradientDescent, GradientFlow, datasets, exclusive, init_two_layer
    from gradstarve.simulate import simulate, simulate_flow
    from gradstarve.theory import solve

    s = settings
    key_data, key_network, key_side = jax.random.split(jax.random.key(s["seed"]), 3)
    make = {"antipodal": datasets.antipodal, "orthogonal": datasets.orthogonal}[s["problem"]]
    data = make(s["dim"], s["norms"], s["frequencies"], key_data)
    network = init_two_layer(key_network, s["seeds"], s["width"], s["dim"], s["scale_w"], s["scale_z"])
    if s["problem"] == "orthogonal":
        network = exclusive(network, data, key_side)
    if s["dynamics"] == "descent":
        dynamics = GradientDescent(s["step_size"])
        trajectory = simulate(data, network, s["loss"], dynamics, s["steps"], s["record_every"])
    else:
        dynamics = GradientFlow()
        steps = np.append(np.arange(0, s["steps"], s["record_every"]), s["steps"])
        trajectory = simulate_flow(data, network, s["loss"], s["step_size"] * steps)
    return compare(solve(data, network, s["loss"], dynamics), trajectory)


app.command(epilog=cli_sweep.EXAMPLE)(cli_sweep.sweep)
app.command(epilog=cli_starve.EXAMPLE)(cli_starve.starve)
app.command(epilog=cli_digits.EXAMPLE)(cli_digits.digits)
app.command(epilog=cli_phase.EXAMPLE)(cli_phase.phase)


@app.command(epilog="Example: gradstarve derive mode --loss hinge --format latex --out derivations")
def derive(
    name: Annotated[Optional[str], typer.Argument(help="The law to derive, see --list, or all of them: all.")] = None,  # noqa: UP045
    loss: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"One of {', '.join(LOSSES)}. [default: cross-entropy; for all: every loss]"),
    ] = None,
    format: Annotated[str, typer.Option(help=f"One of {', '.join(FORMATS)}.")] = "text",
    list_all: Annotated[bool, typer.Option("--list", help="List what can be derived, and exit.")] = False,
    seed: Seed = 0,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(help="Directory for a file NAME-LOSS.txt, .md or .tex; LaTeX is then a whole document."),
    ] = None,
) -> None:
    """Derive a law of learning from the network and the loss, and check every step of it.

    The derivation goes to standard output and the outcome of the checks to standard error. With the name all, every law
    is derived, and LaTeX is one document that compiles. Exit code 1 means that a step failed its check. The seed is that
    of the points at which steps without a proof are checked.
    """
    with plain_errors():
        from gradstarve.symbolic import DerivationError, available, latex_document
        from gradstarve.symbolic import derive as build

        if list_all:
            for law, of in available():
                typer.echo(f"{law} --loss {of}")
            return
        if name is None:
            raise typer.BadParameter("give the name of a law, all, or --list", param_hint="'NAME'")
        one_of("NAME", name, [*dict.fromkeys(law for law, _ in available()), "all"])
        whole = name == "all"
        wanted = loss or (None if whole else "cross-entropy")
        if wanted:
            one_of("--loss", wanted, LOSSES if whole else [of for law, of in available() if law == name])
        one_of("--format", format, list(FORMATS))
        folder = None if out is None else report.output_directory(out)
        pairs = [(law, of) for law, of in available() if (whole or law == name) and wanted in (None, of)]
        derivations, checks = [build(*pair) for pair in pairs], []
        try:
            for (law, of), derivation in zip(pairs, derivations, strict=True):
                steps = [(step.name, step.method) for step in derivation.checked_steps]
                if seed:  # the steps above were checked at the points of seed 0
                    steps = [(result.step, result.method) for result in derivation.check(seed=seed)]
                checks += [(f"{law} --loss {of}: {step}" if whole else step, method) for step, method in steps]
        except DerivationError as error:
            typer.echo(f"FAILED: {error}", err=True)
            raise typer.Exit(1) from None
        printers = {"text": str, "markdown": lambda d: d.to_markdown(), "latex": lambda d: d.to_latex()}
        shown = "\n\n".join(map(printers[format], derivations))
        document = latex_document(derivations) if format == "latex" else shown
        typer.echo(document if whole else shown)
        for count, (step, method) in enumerate(checks, start=1):
            typer.echo(f"check {count}/{len(checks)} passed: {step}: {method}", err=True)
        if folder is not None:
            path = folder / f"{name}{f'-{wanted}' if wanted else ''}.{FORMATS[format]}"
            path.write_text(document.rstrip("\n") + "\n", encoding="utf-8")
            typer.echo(f"Wrote {path}", err=True)


@app.command(epilog="Example: gradstarve verify --trials 50 --seed 1 --out verification")
def verify(
    names: Annotated[
        Optional[list[str]], typer.Argument(help="Entries of the catalogue; all by default, see --list.")  # noqa: UP045
    ] = None,
    trials: Annotated[
        Optional[int], typer.Option(min=1, help="Random problems per entry. [default: each entry's own]")  # noqa: UP045
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer random problems: all entries within three minutes.")] = False,
    precision: Annotated[str, typer.Option(help=f"One of {', '.join(PRECISIONS)}.")] = "float64",
    list_all: Annotated[bool, typer.Option("--list", help="List the catalogue, and exit.")] = False,
    seed: Seed = 0,
    out: Annotated[Path, typer.Option(help="Directory for verify.json and one figure per entry.")] = Path("gradstarve-out"),
) -> None:
    """Try to break the theorems: random problems within their hypotheses, and outside of them.

    Prints one row per entry. Exit code 1 means that a claim was violated.
    """
    with plain_errors():
        use_float64()
        from gradstarve.theorems import CATALOGUE
        from gradstarve.theorems import verify as check

        if list_all:
            rows = [("name", "equation", "claim")]
            rows += [(name, str(e.equation), " ".join(str(e.claim).split())) for name, e in CATALOGUE.items()]
            wide = [max(len(row[i]) for row in rows) for i in range(2)]
            for row in rows:
                typer.echo(f"{row[0]:<{wide[0]}}  {row[1]:<{wide[1]}}  {row[2]}")
            return
        for name in names or ():
            one_of("NAMES", name, list(CATALOGUE))
        one_of("--precision", precision, PRECISIONS)
        folder = report.output_directory(out)
        import jax
        from rich.console import Console

        outcome = check(names or "all", trials=trials, key=jax.random.key(seed), quick=quick, precision=precision)
        # Piped, a console takes 80 columns, in which the table can not be read.
        console = Console()
        Console(width=None if console.is_terminal else 140).print(outcome.table())
        if not outcome.ok:
            typer.echo(outcome.failures(), err=True)
        outcome.save(folder)
        typer.echo(f"Wrote {folder / 'verify.json'} and the figures beside it", err=True)
    if not outcome.ok:
        raise typer.Exit(1)


app.command("report", epilog=cli_report.EXAMPLE)(cli_report.page)


if __name__ == "__main__":
    main()
