"""What the commands share: options, JSON on standard output, errors in one line, and how a command is stopped."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve import cli_stop, files, report
from gradstarve.cli_names import LOSSES as LOSSES
from gradstarve.cli_names import PRECISIONS as PRECISIONS
from gradstarve.cli_names import PROBLEMS as PROBLEMS
from gradstarve.cli_names import THEOREMS, completion
from gradstarve.progress import Progress
from gradstarve.style import FORMATS

DEFAULT_OUT = Path("gradstarve-out")


def choice(valid: Sequence[str], help: str = "", several: bool = False) -> Any:
    """An option that takes one of the `valid` names, or `several` with commas between them; a shell completes them."""
    metavar = "NAME,..." if several else "NAME"
    words = help or f"One of {', '.join(valid)}."
    return typer.Option(help=words, metavar=metavar, autocompletion=completion(valid, several))


def out_option(what: str) -> Any:
    """`--out`, the directory for `what`, with `DEFAULT_OUT` as its default."""
    return typer.Option(help=f"Directory for {what}; made if it is not there.", file_okay=False)


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document, what the file has, in place of the tables.")]
Figures = Annotated[str, choice(FORMATS, "Kind of the figures: png, or svg or pdf, which are vectors.")]
Precision = Annotated[str, choice(PRECISIONS)]

# What is tried, for the commands that verify.
Names = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        help="Entries of the catalogue; all by default, see gradstarve verify --list.", autocompletion=completion(THEOREMS)
    ),
]
Trials = Annotated[
    Optional[int], typer.Option(min=1, help="Random problems per entry. [default: each entry's own]")  # noqa: UP045
]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer random problems: all entries within three minutes.")]


def use_float64() -> None:
    """64 bits for the whole process, which is ours."""
    import jax

    jax.config.update("jax_enable_x64", True)


def one_of(option: str, value: str, valid: Any) -> None:
    """Refuse a value that is not among the valid ones, which are listed; of many, the one that may be meant is named."""
    if value not in valid:
        near = difflib.get_close_matches(value, valid, n=1)
        meant = f"; did you mean {near[0]}?" if near and len(valid) > 8 else ""
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(valid)}{meant}", param_hint=f"'{option}'")


def positive(option: str, value: float) -> None:
    """Refuse a number that is not finite and above 0."""
    if not 0 < value < float("inf"):
        raise typer.BadParameter(f"{value} is not a finite number above 0", param_hint=f"'{option}'")


def pair(option: str, text: str, example: str = "1,1.5") -> Sequence[float]:
    """Two numbers, for class + and class -, with a comma or a blank between them."""
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != 2 or not all(0 < value < float("inf") for value in values):
        raise typer.BadParameter(
            f'{text!r} is not two numbers above 0, for class + and class -, such as "{example}"', param_hint=f"'{option}'"
        )
    return values


def several(option: str, text: str, valid: Sequence[str] | None = None) -> list[str]:
    """The values of a list with commas, each once, and each one of the `valid` ones if those are told."""
    values = [part.strip() for part in text.split(",")]
    for value in values:
        if valid is not None:
            one_of(option, value, valid)
    if len(set(values)) < len(values):
        raise typer.BadParameter(f"{text!r} names one twice", param_hint=f"'{option}'")
    return values


def show(as_json: bool, value: Any, text: Any) -> None:
    """On standard output the JSON document of `value`, and nothing else, or the `text`."""
    typer.echo(report.json_text(value).rstrip("\n") if as_json else text)


def wrote(*paths: Any) -> None:
    """Tell on stderr what was written, so that standard output is the result alone."""
    *first, last = map(str, paths)
    typer.echo(f"Wrote {', '.join(first)} and {last}" if first else f"Wrote {last}", err=True)


@contextlib.contextmanager
def plain_errors(label: str = "working") -> Iterator[None]:
    """What the library refuses is told in one line, with exit code 2; a traceback is kept for what nobody foresaw.

    On a terminal a row called `label` tells that the command is at work, if it takes longer than two seconds. However it
    ends, unfinished files go, and directories that were made for results and have none.
    """
    from gradstarve.errors import ConvergenceError

    cli_stop.begin()
    try:
        with Progress(None, None, label):
            yield
    except KeyboardInterrupt as stop:
        cli_stop.tell(str(stop))
        raise typer.Exit(cli_stop.CODE) from None
    except BrokenPipeError:
        raise  # `| head` has enough, which is no error
    except (ValueError, ConvergenceError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        typer.echo("error: there is not enough memory; ask for fewer networks, steps or records at a time", err=True)
        raise typer.Exit(2) from None
    finally:
        files.tidy()
