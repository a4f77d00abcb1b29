"""What the commands share: options, JSON on standard output, errors in one line, and how a command is stopped."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli import _stop as cli_stop
from gradstarve.ground import FORMATS, LOSS_NAMES, Progress, csv_text, files, laws, meant, text

# Names that options take, for help and completion, which must not wait for JAX; a test holds them to the library's own.

LOSSES = LOSS_NAMES
PROBLEMS = ("antipodal", "orthogonal")
PRECISIONS = ("float64", "float32")


def theorems() -> tuple[str, ...]:
    """The names of the catalogue, in its order."""
    return tuple(laws("register"))


def completion(
    values: Sequence[str] | Callable[[], Sequence[str]], several: bool = False
) -> Callable[[str], list[str]]:
    """What a shell offers for a word begun; of `several` values with commas between them, for the last one.

    `values` that take time to find are a function, which is called when a word is completed.

    >>> completion(LOSSES)("c"), completion(LOSSES, several=True)("hinge,e")
    (['cross-entropy'], ['hinge,exponential'])
    """

    def offered(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken, valid = before.split(","), values() if callable(values) else values
        return [f"{before}{comma}{value}" for value in valid if value.startswith(last) and value not in taken]

    return offered


# The options.

DEFAULT_OUT = Path("gradstarve-out")


def choice(valid: Sequence[str], help: str = "", several: bool = False) -> Any:
    """An option that takes one of the `valid` names, or `several` with commas between them; a shell completes them."""
    metavar = "NAME,..." if several else "NAME"
    words = help or f"One of {', '.join(valid)}."
    return typer.Option(help=words, metavar=metavar, autocompletion=completion(valid, several))


def out_option(what: str) -> Any:
    """`--out`, the directory for `what`, with `DEFAULT_OUT` as its default."""
    return directory(f"Directory for {what}; made if it is not there.")


def directory(help: str, *names: str) -> Any:
    """An option that takes the path of a directory. An empty one, as of a variable that is not set, is an error."""

    def read(text: Any) -> Path:
        if not str(text):
            raise typer.BadParameter("an empty path; give the path of a directory, or . for the current one")
        if Path(text).is_file():
            raise typer.BadParameter(f"{str(text)!r} is a file, and a directory is wanted")
        return Path(text)

    return typer.Option(*names, help=help, parser=read, metavar="DIRECTORY")


def count(help: str, least: int = 1) -> Any:
    """An option that takes a whole number of at least `least`, as 100000 or 1e5."""

    def read(text: Any) -> int:
        value = None
        with contextlib.suppress(ValueError, OverflowError):
            number = float(str(text))
            # As it is written where it is an integer, for those above 2^53.
            value = int(str(text)) if re.fullmatch(r"[+-]?\d+", str(text).strip()) else int(number)
            value = value if number.is_integer() else None
        if value is None or value < least:
            raise typer.BadParameter(f"{str(text)!r} is not a whole number of at least {least}")
        return value

    return typer.Option(help=help, parser=read, metavar="INTEGER")


Seed = Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Seed of everything random.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of tables.")]
Figures = Annotated[str, choice(FORMATS, "Figure format: png, svg or pdf (vectors), or gif (training appears on the laws).")]
Precision = Annotated[str, choice(PRECISIONS)]

# What is tried, for the commands that verify.
Names = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(
        help="Entries of the catalogue by name or equation; all by default, see gradstarve verify --list.",
        autocompletion=completion(theorems),
    ),
]
Trials = Annotated[
    Optional[int], count("Random problems per entry. [default: each entry's own]")  # noqa: UP045
]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer random problems: all entries within three minutes.")]


def use_float64() -> None:
    """64 bits for the whole process, which is ours."""
    import jax

    jax.config.update("jax_enable_x64", True)


_OTHER_DATA = {
    "--problem": "; simulate and sweep of the Python library train on other data: gradstarve.Dataset(points, labels)"
}


def check_choice(option: str, value: str, valid: Any) -> None:
    """Refuse a value that is not among the valid ones, which are listed; the one that may be meant is named."""
    if value not in valid:
        near = meant(value, valid)
        hint = f"; did you mean {near}?" if near else _OTHER_DATA.get(option, "")
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(valid)}{hint}", param_hint=f"'{option}'")


def entries(names: Sequence[str] | None) -> list[str] | None:
    """The entries of the catalogue called `names`: by name, or by the number of an equation that they state, such as 4.1.

    A name that is not there is refused with those near to it. None is all of them.
    """
    found: list[str] = []
    valid = theorems() if names else ()
    for name in names or ():
        if name in valid:
            found.append(name)
        elif re.fullmatch(r"\(?\d+(\.\d+(-\d+\.\d+)?)?\)?", name):
            found += _of_equation(name.strip("()"))
        else:
            begun = [one for one in valid if name and name.lower() in one]
            near = list(dict.fromkeys([*begun[:6], *difflib.get_close_matches(name.lower(), valid, n=3, cutoff=0.5)]))
            meant = f"; near to it: {', '.join(near)}" if near else f" ({', '.join(valid[:2])}, ...)"
            raise typer.BadParameter(
                f"{name!r} is not one of the {len(valid)} entries of the catalogue{meant}; see gradstarve verify --list",
                param_hint="'NAMES'",
            )
    return list(dict.fromkeys(found)) or None


def _of_equation(number: str) -> list[str]:
    """The entries that state an equation, or all equations of a section; numbers as THEORY has them, "3.1-3.5" too."""

    def key(text: str) -> tuple[int, ...]:
        return tuple(map(int, text.split(".")))

    found = []
    for name, entry in laws("register").items():
        first, _, last = entry.equation.partition("-")
        low, high = key(first), key(last or first)
        if entry.equation == number or ("-" not in number and low[: number.count(".") + 1] <= key(number) <= high):
            found.append(name)
    if not found:
        numbers = list(dict.fromkeys(entry.equation for entry in laws("register").values()))
        raise typer.BadParameter(
            f"no entry of the catalogue states equation {number}; the equations are {', '.join(numbers)}",
            param_hint="'NAMES'",
        )
    return found


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
    """The values of a list with commas, each once, and each one of the `valid` ones if there are any."""
    values = [part.strip() for part in text.split(",")]
    for value in values:
        if valid is not None:
            check_choice(option, value, valid)
    if len(set(values)) < len(values):
        raise typer.BadParameter(f"{text!r} names one twice", param_hint=f"'{option}'")
    return values


def from_file(text: str, example: str) -> Any:
    """The object that FILE.py:NAME names, after the file has run."""
    import runpy
    import sys

    path, _, name = text.rpartition(":")
    if not path or not name:
        raise ValueError(f"{text!r} is not FILE.py:NAME; give a file and a name in it, such as {example}")
    if not Path(path).is_file():
        raise ValueError(f"{path!r} is no file; give a Python file, as in {example}")
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        made = runpy.run_path(path)
    except Exception as error:
        raise ValueError(f"{path!r} raises {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    if name not in made:
        found = ", ".join(one for one in made if not one.startswith("_"))
        raise ValueError(f"{path!r} has no {name!r}; it has {found}")
    return made[name]


def print_result(as_json: bool, value: Any, text: Any) -> None:
    """On standard output the JSON document of `value`, and nothing else, or the `text`, which fits the terminal."""
    typer.echo(files.json_text(value).rstrip("\n") if as_json else fit_terminal(str(text)))


def terminal_width() -> int | None:
    """The columns of the terminal, or those that the environment's COLUMNS asks for; None where results go elsewhere."""
    given = os.environ.get("COLUMNS", "")
    if not given.isdecimal() and not (sys.stdout is not None and sys.stdout.isatty()):
        return None
    return max(40, shutil.get_terminal_size().columns)


def fit_terminal(words: str) -> str:
    """`words` without a line that is wider than the terminal; as they are where they go to a file or another program."""
    width = terminal_width()
    return words if width is None else text.fit(words, width)


def hang(line: str, indent: int) -> str:
    """A line of a list, broken to the terminal with the lines that follow under its last column."""
    width = terminal_width()
    if width is None or len(line) <= width:
        return line
    below = " " * min(indent, width // 2)
    return "\n".join(textwrap.wrap(line, width, subsequent_indent=below, break_long_words=False, break_on_hyphens=False))


def conclude(sentence: str, words: str) -> str:
    """What a command prints: its conclusion as a sentence of its own, and below it the tables."""
    return f"{sentence.rstrip('.')}.\n\n{words}"


def wrote(*paths: Any) -> None:
    """Tell on stderr what was written, so that standard output is the result alone."""
    *first, last = map(str, paths)
    typer.echo(f"Wrote {', '.join(first)} and {last}" if first else f"Wrote {last}", err=True)


def give_study(
    name: str, run: Callable[[], Any], out: Path, figures: str, as_json: bool, parts: Sequence[str] = ("",)
) -> None:
    """Run a study as the command `name`; print what it found, and write its figure, its tables and all numbers.

    The study gives a figure (`plot`), the rows of each of its `parts` (`number_rows`; "" is the one table of a study without
    parts), all numbers (`settings`, `to_dict`), and the text that is printed (`conclusion`, `table`, `notes`). A part
    without rows is not written.
    """
    check_choice("--figures", figures, FORMATS)
    with command(f"gradstarve {name}"):
        folder = files.output_directory(out)
        use_float64()
        study = run()
        paths = [folder / f"{name}.{figures}"]
        study.plot(paths[0])
        for part in parts:
            rows = study.number_rows(part) if part else study.number_rows()
            if len(rows) > 1:
                paths.append(files.write_text(folder / f"{name}{part and '-'}{part}.csv", csv_text(rows)))
        result = {"settings": study.settings, "environment": files.environment()} | study.to_dict()
        paths.append(folder / f"{name}.json")
        files.write_json(paths[-1], result)
    print_result(as_json, result, conclude(study.conclusion(), f"{study.table()}\n\n{study.notes()}"))
    wrote(*paths)


@contextlib.contextmanager
def command(label: str = "working") -> Iterator[None]:
    """What the library refuses becomes one line, with exit code 2; a traceback is kept for faults of the library.

    On a terminal a row called `label` shows that the command is at work, if it takes longer than two seconds. However it
    ends, unfinished files go, and directories that were made for results and have none.
    """
    from gradstarve.ground import ConvergenceError

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
