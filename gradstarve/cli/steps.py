"""`gradstarve optimisers`: which neurons live, which die and how fast, under the usual optimisers.

Below it: `gradstarve stability`, what large steps, noise and weight decay do to kappa, and `gradstarve plasticity`, which
neurons die when labels flip.
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
    count,
    give_study,
    out_option,
    positive,
    several,
)

OPTIMISERS_EXAMPLE = "Example: gradstarve optimisers --quick --optimisers descent,sign,adam --out optimisers"
OPTIMISERS = ("descent", "normalised", "sam", "layers", "sign", "adam", "rmsprop")
OPTIMISER_PROBLEMS = ("one-class", "antipodal")


def optimisers(
    optimisers: Annotated[
        str, choice(OPTIMISERS, f"One or several of {', '.join(OPTIMISERS)}.", several=True)
    ] = ",".join(OPTIMISERS),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer networks and sizes: some twenty seconds.")] = False,
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
    given = {
        "networks": networks,
        "steps": steps,
        "ratios": None if ratios is None else _positive("--ratios", ratios),
        "dims": None if dims is None else _counts("--dims", dims),
        "widths": None if widths is None else _counts("--widths", widths),
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    give_study("optimisers", lambda: run_optimisers(settings, quick), out, figures, as_json, ("shares", "agreement"))


def run_optimisers(settings: dict[str, Any], quick: bool = False) -> Any:
    """The `OptimiserStudy` of `settings` by name, as stored in optimisers.json."""
    from gradstarve.studies.optimisers import QUICK, optimiser_study

    return optimiser_study(**((QUICK if quick else {}) | settings))


# `gradstarve stability`: what large steps, label noise and weight decay do to kappa.

STABILITY_EXAMPLE = "Example: gradstarve stability --step-size 0.5 --kappas 1.5,2,2.5 --decays 0.01,0.1"


def stability(
    step_size: Annotated[float, typer.Option(help="x = step size × p × r of the paths in the plane of kappa and u.")] = 0.4,
    kappas: Annotated[str, typer.Option(help="Where the paths start, one or several kappas.")] = "1.6,2.6,3,3.5",
    start: Annotated[float, typer.Option(help="The logit at which paths start; their rest is 1.")] = 0.9,
    step_sizes: Annotated[str, typer.Option(help="The x of which the catapult is shown, one or several.")] = "0.3,0.4,0.6",
    steps: Annotated[int, count("Steps after which the catapult is looked at.", least=10)] = 1000,
    noises: Annotated[str, typer.Option(help="Standard deviations of the noise of a label, one or several.")] = "0.3,0.6,1",
    decays: Annotated[str, typer.Option(help="Weight decays lambda, one or several.")] = "0.005,0.01,0.02",
    width: Annotated[int, count("Neurons h of each network.", least=2)] = 8,
    dim: Annotated[int, count("Coordinates d of the data.")] = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("stability.png, stability.csv and stability.json")] = DEFAULT_OUT,
) -> None:
    """Show what large steps, label noise and weight decay do to kappa, by law and on whole networks in training.

    kappa measures how lazy a mode is, and the flow keeps it. Four panels: paths that swing about the rest in the plane of
    kappa and the logit u; where the swings end, over where they start, and the edge of stability; kappa under label noise;
    and weight decay, which leads from lazy to rich. Prints for each line kappa at the end by law and trained, and the
    largest gap. Writes the figure, the table's numbers and all curves as JSON, and the curves as CSV.
    """
    for option, value in (("--step-size", step_size), ("--start", start)):
        positive(option, value)
    settings = {
        "step_size": step_size,
        "kappas": _positive("--kappas", kappas),
        "start": start,
        "step_sizes": _positive("--step-sizes", step_sizes),
        "steps": steps,
        "noises": _positive("--noises", noises),
        "decays": _positive("--decays", decays),
        "width": width,
        "dim": dim,
        "key": seed,
    }
    give_study("stability", lambda: run_stability(settings), out, figures, as_json)


def run_stability(settings: dict[str, Any]) -> Any:
    """The `StabilityStudy` of `settings` by name, as stored in stability.json."""
    from gradstarve.studies.stability import stability_study

    return stability_study(**settings)


# `gradstarve plasticity`: which neurons die when labels flip again and again, and what that costs.

PLASTICITY_EXAMPLE = "Example: gradstarve plasticity --quick --rules descent,sign --tasks 6 --out plasticity"
RULES = ("descent", "decay", "normalised", "sign", "reweighted", "antipodal")


def plasticity(
    rules: Annotated[str, choice(RULES, f"One or several of {', '.join(RULES)}.", several=True)] = ",".join(RULES),
    quick: Annotated[bool, typer.Option("--quick", help="Fewer networks, tasks and widths: about a minute.")] = False,
    dim: Annotated[int, count("Coordinates d of the data.")] = 10,
    width: Annotated[int, count("Neurons h of each network.")] = 32,
    networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option("--seeds", "--networks", min=2, help="Networks of each rule. [default: 100, with --quick 40]"),
    ] = None,
    tasks: Annotated[
        Optional[int],  # noqa: UP045
        count("Tasks, each with the labels of the one before flipped. [default: 5, with --quick 4]", least=2),
    ] = None,
    steps: Annotated[int, count("Steps of the first task; later ones have twice as many.", least=10)] = 500,
    step_size: Annotated[float, typer.Option(help="Step size of descent.")] = 0.25,
    weight_decay: Annotated[float, typer.Option(help="Weight decay lambda of the rule decay.")] = 0.002,
    goal: Annotated[float, typer.Option(help="The error at which a task is learnt.")] = 0.1,
    widths: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Widths of networks that may lose a class. [default: 1,2,4,8,16, with --quick 1,4,8]"),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("plasticity.png, plasticity.json and two tables as CSV")] = DEFAULT_OUT,
) -> None:
    """Show which neurons die when the labels of a class flip again and again, and what that costs.

    The share of neurons alive after each task, by law and trained, beside other frequencies and antipodal classes, where a
    new task kills no neuron; fates in the plane of the start, with exact boundaries; the steps that each task takes; and how
    often a network cannot learn the class any more, over its width. Prints the tables; writes the figure, the numbers as
    JSON, and plasticity-tasks.csv and plasticity-widths.csv.
    """
    for option, value in (("--step-size", step_size), ("--weight-decay", weight_decay), ("--goal", goal)):
        positive(option, value)
    settings: dict[str, Any] = {
        "rules": tuple(several("--rules", rules, RULES)),
        "dim": dim,
        "width": width,
        "steps": steps,
        "step_size": step_size,
        "weight_decay": weight_decay,
        "goal": goal,
        "key": seed,
    }
    given = {
        "networks": networks,
        "tasks": tasks,
        "widths": None if widths is None else _counts("--widths", widths),
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    give_study("plasticity", lambda: run_plasticity(settings, quick), out, figures, as_json, ("tasks", "widths"))


def run_plasticity(settings: dict[str, Any], quick: bool = False) -> Any:
    """The `PlasticityStudy` of `settings` by name, as stored in plasticity.json."""
    from gradstarve.studies.plasticity import QUICK, plasticity_study

    return plasticity_study(**((QUICK if quick else {}) | settings))


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
