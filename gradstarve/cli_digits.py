"""`gradstarve digits`: the laws and the starvation of features on real handwritten digits, from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve import report
from gradstarve.cli_parts import Seed, plain_errors, use_float64

EXAMPLE = "Example: gradstarve digits --quick --pair 4,9 --out digits-4-9"


def digits(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and values: within three minutes.")] = False,
    pair: Annotated[str, typer.Option(help='The two digits, class + and class -, as "3,8"; + gets the patch.')] = "3,8",
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(min=2, help="Networks, each with its own start and split. [default: 50, with --quick 20]"),
    ] = None,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="Print all numbers as JSON instead of the tables.")] = False,
    out: Annotated[
        Path, typer.Option(help="Directory for digits.json and a figure of each part.")
    ] = Path("gradstarve-out"),
) -> None:
    """Train small networks on two real digits, and tell which laws and which remedies hold on them.

    (a) the error curve, cross-entropy beside hinge; (b) learning times against frequency and norm; (c) a bright patch on
    one class starves its shape; (d) the same with a convolutional network; (e) what each remedy recovers. Bands and
    intervals are over seeds. Needs scikit-learn: pip install 'gradstarve[examples]'.
    """
    start = time.monotonic()

    def tell(text: str) -> None:
        typer.echo(f"{time.monotonic() - start:5.0f} s  {text}", err=True)

    with plain_errors():
        numbers = _pair(pair)
        folder = report.output_directory(out)
        use_float64()
        try:
            from gradstarve.studies import digits as study

            settings = study.settings(quick, numbers, seeds, seed)
            results = study.run(settings, tell)
        except ImportError as error:
            # The one import that may be missing here says itself what to install.
            raise ValueError(str(error)) from None
        stored = {"settings": settings, "environment": environment(), **study.numbers(results)}
        report.write_json(folder / "digits.json", stored)
        names = ["digits.json"]
        from gradstarve.studies.digits_plots import draw

        for name, found in results.items():
            draw(name, found, folder / f"digits-{name}.png")
            names.append(f"digits-{name}.png")
    typer.echo((folder / "digits.json").read_text(encoding="utf-8") if json else study.report_text(results))
    typer.echo(f"Wrote {', '.join(names)} to {folder} after {time.monotonic() - start:.0f} s", err=True)


def environment() -> dict[str, Any]:
    """That of every report, and the version of scikit-learn, whose images these are."""
    from importlib import metadata

    return report.environment() | {"scikit-learn": metadata.version("scikit-learn")}


def _pair(text: str) -> tuple[int, int]:
    """Two digits with a comma or a blank between them."""
    parts = text.replace(",", " ").split()
    if len(parts) != 2 or parts[0] == parts[1] or not all(part in "0123456789" and len(part) == 1 for part in parts):
        raise typer.BadParameter(f'{text!r} is not two different digits, such as "3,8"', param_hint="'--pair'")
    return int(parts[0]), int(parts[1])
