"""`gradstarve digits`: the laws and the starvation of features on real handwritten digits, from the command line."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    AsJson,
    Figures,
    Seed,
    count,
    one_of,
    out_option,
    plain_errors,
    show,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS, say
from gradstarve.ground import _report as report

EXAMPLE = "Example: gradstarve digits --quick --pair 4,9 --out digits-4-9"


def digits(
    quick: Annotated[bool, typer.Option("--quick", help="Fewer seeds and values: within three minutes.")] = False,
    pair: Annotated[str, typer.Option(help='The two digits, class + and class -, as "3,8"; + gets the patch.')] = "3,8",
    seeds: Annotated[
        Optional[int],  # noqa: UP045
        count("Networks, each with its own start and split. [default: 50, with --quick 20]", least=2),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("digits.json and a figure of each part")] = DEFAULT_OUT,
) -> None:
    """Train small networks on two real digits, and tell which laws and which remedies hold on them.

    (a) the error curve, cross-entropy beside hinge; (b) learning times against frequency and norm; (c) a bright patch on
    one class starves its shape; (d) the same with a convolutional network; (e) what each remedy recovers. Bands and
    intervals are over seeds. Needs scikit-learn: pip install 'gradstarve[examples]'.
    """
    start = time.monotonic()

    def tell(text: str) -> None:
        say(f"{time.monotonic() - start:5.0f} s  {text}")

    numbers = _pair(pair)
    one_of("--figures", figures, FORMATS)
    with plain_errors("gradstarve digits"):
        folder = report.output_directory(out)
        use_float64()
        try:
            from gradstarve.studies.digits import study

            settings = study.settings(quick, numbers, seeds, seed)
            results = study.run(settings, tell)
        except ImportError as error:
            # The one import that may be missing here says itself what to install.
            raise ValueError(str(error)) from None
        stored = {"settings": settings, "environment": environment(), **study.numbers(results)}
        report.write_json(folder / "digits.json", stored)
        paths = [folder / "digits.json"]
        from gradstarve.studies.digits.plots import draw

        for name, found in results.items():
            paths.append(folder / f"digits-{name}.{figures}")
            draw(name, found, paths[-1])
        text = study.report_text(results)
    show(as_json, stored, text)
    wrote(*paths)


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
