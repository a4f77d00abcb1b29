"""What the commands share: names for the help, options, and errors in one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

# Named here too, because the help must not wait for JAX; a test holds these to the library's own lists.
LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
PROBLEMS = ("antipodal", "orthogonal")
PRECISIONS = ("float64", "float32")

Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]


def use_float64() -> None:
    """64 bits for the whole process, which is ours."""
    import jax

    jax.config.update("jax_enable_x64", True)


def one_of(option: str, value: str, valid: Any) -> None:
    """Refuse a value that is not among the valid ones, which are listed."""
    if value not in valid:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(valid)}", param_hint=f"'{option}'")


def pair(option: str, text: str) -> Sequence[float]:
    """Two numbers, for class + and class -, with a comma or a blank between them."""
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) != 2 or not all(0 < value < float("inf") for value in values):
        raise typer.BadParameter(
            f'{text!r} is not two numbers above 0, for class + and class -, such as "1,1.5"', param_hint=f"'{option}'"
        )
    return values


@contextlib.contextmanager
def plain_errors() -> Iterator[None]:
    """What the library refuses is told in one line, with exit code 2; a traceback is kept for what nobody foresaw."""
    from gradstarve.errors import ConvergenceError

    try:
        yield
    except (ValueError, ConvergenceError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        raise typer.Exit(2) from None
