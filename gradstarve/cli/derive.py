"""`gradstarve derive`: a law of learning, derived step by step and checked, from the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    LOSSES,
    Seed,
    check_choice,
    choice,
    command,
    completion,
    directory,
    print_result,
    wrote,
)
from gradstarve.ground import Progress, files, laws, say

EXAMPLE = "Example: gradstarve derive mode --loss hinge --format latex --out derivations"
FORMATS = {"text": "txt", "markdown": "md", "latex": "tex"}


def _names() -> list[str]:
    """What NAME may be."""
    return [*laws("derives"), "all"]


def _losses(name: str) -> Sequence[str]:
    """The losses for which the law of that name is derived; all losses for another name."""
    law = laws("derives").get(name)
    return law.losses if law else LOSSES


def _complete_loss(ctx: typer.Context, incomplete: str) -> list[str]:
    """The losses for which the law on the command line is derived."""
    return completion(_losses(ctx.params.get("name") or "".join(ctx.args[:1])))(incomplete)


def derive(
    name: Annotated[
        Optional[str],  # noqa: UP045
        typer.Argument(
            help="The law to derive, see --list, or all of them: all.",
            autocompletion=completion(_names),
        ),
    ] = None,
    loss: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            help=f"One of {', '.join(LOSSES)}. [default: cross-entropy; for all: every loss]",
            autocompletion=_complete_loss,
        ),
    ] = None,
    format: Annotated[str, choice(list(FORMATS), f"Form of the derivation: {', '.join(FORMATS)}.")] = "text",
    list_all: Annotated[bool, typer.Option("--list", help="List what can be derived, and exit.")] = False,
    seed: Seed = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON document: all steps, in LaTeX and in SymPy, and their checks.")
    ] = False,
    out: Annotated[
        Optional[Path],  # noqa: UP045
        directory("Directory for a file NAME-LOSS.txt, .md or .tex; LaTeX is then a whole document. [default: none]"),
    ] = None,
) -> None:
    """Derive a law of learning from the network and the loss, and check every step of it.

    The derivation goes to standard output and the outcome of the checks to standard error. With the name all, every law
    is derived, and LaTeX is one document that compiles. Exit code 1 means that a step failed its check. The seed is that
    of the points at which steps without a proof are checked.
    """
    if list_all:
        table = laws("derives").values()
        listed = [{"name": x.name, "loss": of, "equation": x.equation, "title": x.title} for x in table for of in x.losses]
        print_result(as_json, listed, "\n".join(f"{entry['name']} --loss {entry['loss']}" for entry in listed))
        return
    if name is None:
        raise typer.BadParameter("give the name of a law, all, or --list", param_hint="'NAME'")
    check_choice("NAME", name, _names())
    whole = name == "all"
    wanted = loss or (None if whole else "cross-entropy")
    if wanted:
        check_choice("--loss", wanted, _losses(name))
    check_choice("--format", format, list(FORMATS))
    with command("gradstarve derive"):
        folder = None if out is None else files.output_directory(out)
        from gradstarve.symbolic import DerivationError, available, latex_document
        from gradstarve.symbolic import derive as build

        pairs = [(law, of) for law, of in available() if (whole or law == name) and wanted in (None, of)]
        derivations, checks = [], []
        try:
            with Progress(None, len(pairs), "deriving") as bar:
                for done, (law, of) in enumerate(pairs):
                    bar.update(done, label=f"deriving {law} --loss {of}")
                    derivations.append(build(law, of))
                    results = derivations[-1].checked_steps
                    steps = [(step.name, step.method) for step in results]
                    if seed:  # the steps above were checked at the points of seed 0
                        steps = [(result.step, result.method) for result in derivations[-1].check(seed=seed)]
                    checks.append(steps)
        except DerivationError as error:
            typer.echo(f"FAILED: {error}", err=True)
            raise typer.Exit(1) from None
        printers = {"text": str, "markdown": lambda d: d.to_markdown(), "latex": lambda d: d.to_latex()}
        shown = "\n\n".join(map(printers[format], derivations))
        document = latex_document(derivations) if format == "latex" else shown
        path = None if folder is None else folder / f"{name}{f'-{wanted}' if wanted else ''}.{FORMATS[format]}"
        if path is not None:
            files.write_text(path, document.rstrip("\n") + "\n")
        found = _document(derivations, checks, seed) if as_json else None
    print_result(as_json, found, document if whole else shown)
    total, count = sum(map(len, checks)), 0
    for (law, of), steps in zip(pairs, checks, strict=True):
        for step, method in steps:
            count += 1
            say(f"check {count}/{total} passed: {f'{law} --loss {of}: ' if whole else ''}{step}: {method}")
    if path is not None:
        wrote(path)


def _document(derivations: list[Any], checks: list[list[tuple[str, str]]], seed: int) -> dict[str, Any]:
    """What --json prints."""
    import sympy

    records = [_record(*each) for each in zip(derivations, checks, strict=True)]
    return {"gradstarve": files.version(), "sympy": sympy.__version__, "seed": seed, "derivations": records}


def _record(derivation: Any, checks: list[tuple[str, str]]) -> dict[str, Any]:
    """A derivation in what JSON knows; `checks` has the outcome of each step's check."""
    from gradstarve.symbolic import latex

    def shown(equation: Any) -> dict[str, str]:
        return {"latex": latex(equation), "sympy": str(equation)}

    steps = [
        {
            "name": step.name,
            "claim": step.claim,
            "reference": step.reference,
            "equations": [shown(equation) for equation in step.equations],
            "check": check,
        }
        for step, (_, check) in zip(derivation.steps, checks, strict=True)
    ]
    return {
        "name": derivation.name,
        "loss": derivation.loss,
        "title": derivation.title,
        "steps": steps,
        "result": {name: shown(equation) for name, equation in derivation.result.items()},
    }
