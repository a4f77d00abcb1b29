"""`gradstarve digits`: the laws and the starvation of features on real handwritten digits, from the command line.

Below it: `gradstarve starve`, `gradstarve shortcut`, `gradstarve coloured`, `gradstarve phase` and `gradstarve figures`.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from gradstarve.cli.options import (
    DEFAULT_OUT,
    LOSSES,
    AsJson,
    Figures,
    Seed,
    check_choice,
    choice,
    command,
    conclude,
    count,
    give_study,
    out_option,
    positive,
    print_result,
    several,
    use_float64,
    wrote,
)
from gradstarve.ground import FORMATS, files, say

DIGITS_EXAMPLE = "Example: gradstarve digits --quick --pair 4,9 --out digits-4-9"


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
    """Train small networks on two real digits, and show which laws and which remedies hold on them.

    (a) the error curve, cross-entropy beside hinge; (b) learning times against frequency and norm; (c) a bright patch on
    one class starves its shape; (d) the same with a convolutional network; (e) what each remedy recovers. Bands and
    intervals are over seeds. Needs scikit-learn: pip install 'gradstarve[examples]'.
    """
    start = time.monotonic()

    def tell(text: str) -> None:
        say(f"{time.monotonic() - start:5.0f} s  {text}")

    numbers = _pair(pair)
    check_choice("--figures", figures, FORMATS)
    with command("gradstarve digits"):
        folder = files.output_directory(out)
        use_float64()
        try:
            from gradstarve.studies.digits import study

            settings = study.settings(quick, numbers, seeds, seed)
            results = study.run(settings, tell)
        except ImportError as error:
            # The one import that may be missing here says itself what to install.
            raise ValueError(str(error)) from None
        stored = {"settings": settings, "environment": environment(), **study.numbers(results)}
        files.write_json(folder / "digits.json", stored)
        paths = [folder / "digits.json"]
        from gradstarve.studies.digits.plots import draw

        for name, found in results.items():
            paths.append(folder / f"digits-{name}.{figures}")
            draw(name, found, paths[-1])
        text = study.report_text(results)
    print_result(as_json, stored, conclude(study.conclusion(results), text))
    wrote(*paths)


def environment() -> dict[str, Any]:
    """That of every report, and the version of scikit-learn, whose images these are."""
    from importlib import metadata

    return files.environment() | {"scikit-learn": metadata.version("scikit-learn")}


def _pair(text: str) -> tuple[int, int]:
    """Two digits with a comma or a blank between them."""
    parts = text.replace(",", " ").split()
    if len(parts) != 2 or parts[0] == parts[1] or not all(part in "0123456789" and len(part) == 1 for part in parts):
        raise typer.BadParameter(f'{text!r} is not two different digits, such as "3,8"', param_hint="'--pair'")
    return int(parts[0]), int(parts[1])


# `gradstarve starve`: how features that share samples starve each other, by law and in training, from the command line.

STARVE_EXAMPLE = 'Example: gradstarve starve --types "1,1,0;1,0,1;0,1,1" --probabilities 0.5,0.3,0.2 --depths 1,2 --time 300'
_PAIR, _OFTEN, _DEPTHS = "1,0;1,1", "0.8,0.2", "1,2,3"


def starve(
    types: Annotated[
        str, typer.Option(help="Sample types with ; or / between them, each a 1 or 0 per feature, -1 against the label.")
    ] = _PAIR,
    probabilities: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help=f"How often each type is, with sum 1. [default: {_OFTEN} for the default types, or all equal]"),
    ] = None,
    scales: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(help="Norm r of each feature in a sample. [default: all 1]"),
    ] = None,
    losses: Annotated[
        str, choice(LOSSES, f"One column of the figure each: {', '.join(LOSSES)}.", several=True)
    ] = "cross-entropy,hinge,exponential",
    depths: Annotated[
        str, typer.Option(help="Layers N of aligned paths, one row of the figure each; 1 is a read-out.")
    ] = _DEPTHS,
    init: Annotated[
        str, typer.Option(help="First logit v(0) of each feature, one for all or one each; a read-out starts at 0.")
    ] = "0.01",
    time: Annotated[float, typer.Option(help="Until when, in step size x step.")] = 1000.0,
    ordinary: Annotated[
        bool, typer.Option(help="Also two layers of ordinary ReLU neurons, with all connections and from random starts.")
    ] = True,
    width: Annotated[int, count("Neurons h of an ordinary network.")] = 16,
    networks: Annotated[
        int, typer.Option("--seeds", "--networks", min=1, help="How many ordinary networks start at random.")
    ] = 64,
    remedies: Annotated[
        bool, typer.Option("--remedies", help="Also train ordinary networks under remedies, compared in remedies.png.")
    ] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("the figures and starve.json")] = DEFAULT_OUT,
) -> None:
    """Show how features that share samples starve each other: the exact laws, and whole networks trained.

    Every feature is learnt alone and together with the others, by a read-out, by deeper paths that see one feature each, and
    by ordinary neurons, which mix the features and so obey another law. Prints a row per network, loss and feature: the
    starvation index 1 - v/v_alone of its logit v at the end, by law and trained; the law's time to v = 1 alone and together;
    and the gap of training to the law over the largest logit. Writes the figure, and all curves as JSON. With --remedies a
    second table and figure: what logit penalties, weight decay, other weights of the samples, the hinge loss, early stopping
    and the step size do to each feature, at what cost.
    """
    table = _types(types)
    if probabilities is None:
        often = _numbers("--probabilities", _OFTEN, 2) if table == _types(_PAIR) else [1 / len(table)] * len(table)
    else:
        often = _numbers("--probabilities", probabilities, len(table), "sample types")
        if abs(sum(often) - 1) > 2e-3:  # thirds in three digits are meant to be thirds
            fixed = ",".join(f"{value / sum(often):.4g}" for value in often)
            message = f"{probabilities!r} sums to {sum(often):.6g}, not 1; try {fixed}"
            raise typer.BadParameter(message, param_hint="'--probabilities'")
        often = [value / sum(often) for value in often]
    count = len(table[0])
    norms = [1.0] * count if scales is None else _numbers("--scales", scales, count, "features")
    first = _numbers("--init", init, None if "," not in init else count, "features")
    first = first * count if len(first) == 1 else first
    check_choice("--figures", figures, FORMATS)
    chosen = several("--losses", losses, LOSSES)
    layers = []
    for text in several("--depths", depths):
        if not text.isdecimal() or not int(text):
            raise typer.BadParameter(f"{text!r} is not a number of layers, 1, 2, 3, ...", param_hint="'--depths'")
        layers.append(int(text))
    if depths == _DEPTHS and min(map(min, table)) < 0:
        layers = [1]  # a ReLU path does not see a feature whose sign is turned
    positive("--time", time)
    settings = {
        "types": table,
        "probabilities": often,
        "scales": norms,
        "losses": chosen,
        "depths": layers,
        "init": first,
        "time": time,
        "ordinary": ordinary,
        "width": width,
        "networks": networks,
        "key": seed,
    }
    with command("gradstarve starve"):
        folder = files.output_directory(out)
        use_float64()
        study = _run_named(settings)
        written, text = [f"starve.{figures}"], conclude(study.conclusion(), f"{study.table()}\n\n{study.notes()}")
        study.plot(folder / written[0])
        result = {"settings": study.settings, "environment": files.environment(), "features": study.to_dict()}
        if remedies:
            names = ("types", "probabilities", "scales", "width", "networks", "key")
            compared = run_remedies({name: settings[name] for name in names})
            written.append(f"remedies.{figures}")
            compared.plot(folder / written[-1])
            result["remedies"] = {"settings": compared.settings} | compared.to_dict()
            text += "\n\n" + conclude(compared.conclusion(), f"{compared.table()}\n\n{compared.notes()}")
        files.write_json(folder / "starve.json", result)
    print_result(as_json, result, text)
    wrote(*(folder / name for name in written), folder / "starve.json")


def run_starve(settings: dict[str, Any]) -> Any:
    """The `FeatureStudy` of `settings` by name, as stored in starve.json."""
    from gradstarve.studies.features import feature_study

    return feature_study(**settings)


def run_remedies(settings: dict[str, Any]) -> Any:
    """The `RemedyStudy` of `settings` by name, as stored under "remedies" in starve.json."""
    from gradstarve.studies.remedies import remedy_study

    return remedy_study(**settings)


def _run_named(settings: dict[str, Any]) -> Any:
    """`run_starve`, with errors in the names of the options."""
    from gradstarve.ground import ConvergenceError

    try:
        return run_starve(settings)
    except ConvergenceError as error:
        raise ConvergenceError(f"{error}: a smaller --time") from None
    except ValueError as error:
        named = str(error).split(" ", 1)[0] in settings
        raise ValueError(f"{'--' if named else ''}{error}") from None


def _types(text: str) -> list[list[int]]:
    """The rows of "1,0;1,1", all of one length, none empty, every feature in some row."""
    hint = "'--types'"
    # A slash too, which no shell needs quotes for.
    rows = [row.replace(",", " ").split() for row in text.replace("/", ";").split(";") if row.strip()]
    for row in rows:
        for part in row:
            if part not in ("0", "1", "-1"):
                message = f'{part!r} is neither 0 nor 1 nor -1; two types of two features are "{_PAIR}"'
                raise typer.BadParameter(message, param_hint=hint)
    if not rows or len({len(row) for row in rows}) > 1:
        shape = f"types of {', '.join(str(len(row)) for row in rows)} features" if rows else "no type"
        raise typer.BadParameter(f'{text!r} has {shape}; give each a 0 or 1 per feature, as in "{_PAIR}"', param_hint=hint)
    table = [[int(part) for part in row] for row in rows]
    for s, row in enumerate(table, start=1):
        if not any(row):
            raise typer.BadParameter(f"type {s} shows no feature; leave it out", param_hint=hint)
    for k, column in enumerate(zip(*table, strict=True), start=1):
        if not any(column):
            raise typer.BadParameter(f"feature {k} is in no type; leave its column out", param_hint=hint)
    return table


def _numbers(option: str, text: str, count: int | None, of: str = "") -> list[float]:
    """Numbers above 0 with commas between them, `count` of them."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if not values or not all(0 < value < math.inf for value in values):
        raise typer.BadParameter(f"{text!r} is not one or several numbers above 0, as in 0.8,0.2", param_hint=f"'{option}'")
    if count is not None and len(values) != count:
        message = f"{text!r} has {len(values)} numbers for {count} {of}; give {count}"
        raise typer.BadParameter(message, param_hint=f"'{option}'")
    return values


# `gradstarve shortcut`: a shortcut that contradicts the label on a minority, worst cell and average, law and training.

SHORTCUT_EXAMPLE = "Example: gradstarve shortcut --agreements 0.8,0.95 --losses hinge,focal --shortcut 0.8 --time 50"
SHORTCUT_LOSSES = (*LOSSES, "smoothed", "focal", "shifted")


def shortcut(
    agreements: Annotated[
        str, typer.Option(help="How often the shortcut agrees with the label, above 1/2: one row of the figure each.")
    ] = "0.7,0.9,0.98",
    losses: Annotated[
        str, choice(SHORTCUT_LOSSES, f"One column of the figure each: {', '.join(SHORTCUT_LOSSES)}.", several=True)
    ] = "cross-entropy,hinge,smoothed",
    core: Annotated[float, typer.Option(help="Norm r_c of the core feature.")] = 1.0,
    shortcut: Annotated[float, typer.Option(help="Norm r_s of the shortcut.")] = 1.5,
    noise: Annotated[float, typer.Option(help="Standard deviation of the noise of test samples.")] = 0.6,
    time: Annotated[float, typer.Option(help="Until when, in step size x step.")] = 100.0,
    width: Annotated[int, count("Neurons h of an ordinary network.", least=2)] = 32,
    networks: Annotated[
        int, typer.Option("--seeds", "--networks", min=1, help="How many ordinary networks start at random.")
    ] = 8,
    pixels: Annotated[int, count("Pixels along a map.", least=5)] = 41,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("shortcut.png and shortcut.json")] = DEFAULT_OUT,
) -> None:
    """Show what a shortcut that a minority contradicts does to the worst cell, by law and in training.

    Each agreement beside each loss: the accuracy of the worst cell (label x shortcut) and on average over time, by the law
    of one layer, of a trained read-out, and of ordinary two-layer networks from random starts; and maps of the worst cell at
    the end over agreement and size of the shortcut. Prints a row each, with the peak of the shortcut and what is left of it.
    smoothed: cross-entropy with a tenth of the labels flipped; focal: gamma 2; shifted: cross-entropy with its margin
    shifted by 2. Writes the figure, and all curves as JSON.
    """
    for option, value in (("--core", core), ("--shortcut", shortcut), ("--noise", noise), ("--time", time)):
        positive(option, value)
    settings = {
        "agreements": _numbers("--agreements", agreements, None),
        "losses": several("--losses", losses, SHORTCUT_LOSSES),
        "core": core,
        "shortcut": shortcut,
        "noise": noise,
        "time": time,
        "width": width,
        "networks": networks,
        "pixels": pixels,
        "key": seed,
    }
    give_study("shortcut", lambda: run_shortcut(settings), out, figures, as_json, ())


def run_shortcut(settings: dict[str, Any]) -> Any:
    """The `ShortcutStudy` of `settings` by name, as stored in shortcut.json."""
    from gradstarve.studies.shortcut import shortcut_study

    return shortcut_study(**settings)


# `gradstarve coloured`: real images with a shortcut, what the report predicts for them, and networks trained.

COLOURED_EXAMPLE = 'Example: gradstarve coloured --cases "colour 0.95,stripes 0.9,clean" --frameworks jax,torch --seeds 20'


def coloured(
    cases: Annotated[
        str, typer.Option(help="colour or stripes with the share on which they agree with the class, and clean.")
    ] = "colour 0.95,stripes 0.95,clean",
    frameworks: Annotated[
        str, choice(("jax", "torch"), "What networks are written in and trained with: jax, torch.", several=True)
    ] = "jax",
    networks: Annotated[int, typer.Option("--seeds", "--networks", min=2, help="Networks, each with its own images.")] = 20,
    channels: Annotated[int, count("Channels of both convolutions.", least=2)] = 8,
    train: Annotated[int, count("Training images.", least=40)] = 150,
    steps: Annotated[int, count("Steps of training, at most.", least=30)] = 300,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("coloured.png, coloured.csv and coloured.json")] = DEFAULT_OUT,
) -> None:
    """Compare what the starvation report predicts for coloured digits, before training, with networks that were trained.

    Handwritten digits 0-4 against 5-9 whose colour, or stripes behind them, agrees with the class on most images: the
    accuracy of the worst cell on test images under nine ways to train, predicted from a convolutional network's first
    weights, and trained. Prints how far and in which order, alarms, and seconds of both; writes the figure and all numbers.
    Needs scikit-learn: pip install 'gradstarve[examples]'.
    """
    settings = {
        "cases": [one.strip() for one in cases.split(",")],
        "frameworks": several("--frameworks", frameworks, ("jax", "torch")),
        "networks": networks,
        "channels": channels,
        "train": train,
        "steps": steps,
        "key": seed,
    }
    give_study("coloured", lambda: run_coloured(settings), out, figures, as_json)


def run_coloured(settings: dict[str, Any]) -> Any:
    """The `ImageStudy` of `settings` by name, as stored in coloured.json."""
    try:
        from gradstarve.studies.images import image_study

        return image_study(**settings)
    except ImportError as error:
        # The imports that may be missing here say themselves what to install.
        raise ValueError(str(error)) from None


# `gradstarve phase`: maps of where training fails and how long it takes, loss beside loss, from the command line.

PHASE_EXAMPLE = "Example: gradstarve phase --planes neuron,failure --losses hinge --width 8 --seeds 2000"
PLANES = ("neuron", "angle", "failure", "time")
PHASE_LOSSES = ("cross-entropy", "hinge", "exponential")
_TAKES = {"pixels": ("neuron", "angle", "time"), "width": ("failure", "time"), "networks": ("failure", "time")}


def phase(
    planes: Annotated[str, choice(PLANES, f"One figure each: {', '.join(PLANES)}.", several=True)] = ",".join(PLANES),
    losses: Annotated[
        str, choice(PHASE_LOSSES, f"One column or row of a figure each: {', '.join(PHASE_LOSSES)}.", several=True)
    ] = "cross-entropy,hinge",
    width: Annotated[
        Optional[int],  # noqa: UP045
        count("Neurons h: the most of failure, those of time. [default: 12 and 8]"),
    ] = None,
    networks: Annotated[
        Optional[int],  # noqa: UP045
        typer.Option(
            "--seeds", "--networks", min=10, help="Random networks a point of failure and time. [default: 1000 and 120]"
        ),
    ] = None,
    pixels: Annotated[
        Optional[int],  # noqa: UP045
        count("Pixels along a map of neuron, angle and time. [default: 160, 150 and 25]", least=4),
    ] = None,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("a figure of each plane and phase.json")] = DEFAULT_OUT,
) -> None:
    """Map where training fails, and how long it takes: exact where there is a law, by exact events or the flow elsewhere.

    neuron: where one neuron goes in the plane of a = w.x/|x| and z, and its time to a margin of 1. angle: what it learns by
    its direction between two classes at an angle, and which neurons die. failure: how often a network of h neurons never
    learns a class. time: quantiles over networks of the time to learn. Prints a table each; writes a figure each, and all
    maps as JSON.
    """
    wanted, chosen = several("--planes", planes, PLANES), several("--losses", losses, PHASE_LOSSES)
    check_choice("--figures", figures, FORMATS)
    given = {"width": width, "networks": networks, "pixels": pixels}
    for name, value in given.items():
        if value is not None and not set(_TAKES[name]) & set(wanted):
            message = f"is for the planes {', '.join(_TAKES[name])}, none of which is among --planes {planes}"
            raise typer.BadParameter(message, param_hint=f"'--{'seeds' if name == 'networks' else name}'")
    with command("gradstarve phase"):
        from concurrent.futures import ThreadPoolExecutor

        folder = files.output_directory(out)
        use_float64()

        def one(plane):
            return run_phase(plane_settings(plane, chosen, seed, given))

        # Compiling takes most of the time, and two threads share it. The longest first, and those that run the same
        # programs one after the other.
        order = sorted(wanted, key=("failure", "neuron", "angle", "time").index)
        pool = ThreadPoolExecutor(2)
        try:
            done = dict(zip(order, pool.map(one, order), strict=True))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # all is done, or the run was stopped
        diagrams = [done[plane] for plane in wanted]
        paths = [folder / f"phase-{diagram.plane}.{figures}" for diagram in diagrams]
        for diagram, path in zip(diagrams, paths, strict=True):
            diagram.plot(path)
        full = [{"settings": d.settings, **d.to_dict(), "table": d.records()} for d in diagrams]
        result = {"environment": files.environment(), "diagrams": full}
        files.write_json(folder / "phase.json", result)
    print_result(as_json, result, "\n\n".join(conclude(d.conclusion(), f"{d.table()}\n\n{d.notes()}") for d in diagrams))
    wrote(*paths, folder / "phase.json")


def plane_settings(plane: str, losses: list[str], seed: int, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `phase_diagram` for a plane: of what was `given`, what the plane takes."""
    settings: dict[str, Any] = {"losses": tuple(losses), "plane": plane}
    if plane in ("failure", "time"):
        settings["key"] = seed
    return settings | {name: value for name, value in given.items() if value is not None and plane in _TAKES[name]}


def run_phase(settings: dict[str, Any]) -> Any:
    """The `PhaseDiagram` of `settings` by name, as stored in phase.json."""
    from gradstarve.studies.phase.plane import phase_diagram

    return phase_diagram(**settings)


# `gradstarve figures`: the key figures, each a claim in one picture.

FIGURES_EXAMPLE = "Example: gradstarve figures collapse failure --figures svg --out key"
KEY_FIGURES = ("hero", "collapse", "failure", "prediction")


def key_figures(
    names: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Argument(
            metavar="[NAME]...",
            help=f"Which: {', '.join(KEY_FIGURES)}; all without a name. prediction needs scikit-learn.",
            show_default=False,
            autocompletion=lambda incomplete: [name for name in KEY_FIGURES if name.startswith(incomplete)],
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer networks: some seconds for each.")] = False,
    seed: Seed = 0,
    as_json: AsJson = False,
    figures: Figures = "png",
    out: Annotated[Path, out_option("one picture a figure, and figures.json")] = DEFAULT_OUT,
) -> None:
    """Draw the key figures: each shows one claim, with laws as lines and networks trained beside them as marks.

    hero: 512 networks on the curves that were drawn before they were trained. collapse: twelve classes on one curve.
    failure: which neurons learn, and how often a class is never learnt. prediction: what a patch on real digits starves, and
    what helps. Prints the conclusion of each and the numbers behind it.
    """
    wanted = list(dict.fromkeys(names or KEY_FIGURES))
    for name in wanted:
        check_choice("NAME", name, KEY_FIGURES)
    check_choice("--figures", figures, FORMATS)
    with command("gradstarve figures"):
        folder = files.output_directory(out)
        use_float64()
        from gradstarve.studies.key.figures import key_figure

        found, paths = [], []
        try:
            for name in wanted:
                found.append(key_figure(name, key=seed, quick=quick))
                paths.append(folder / f"{name}.{figures}")
                found[-1].plot(paths[-1])
        except ImportError as error:
            # The one import that may be missing here says itself what to install.
            raise ValueError(str(error)) from None
        settings = {"names": wanted, "quick": quick, "seed": seed}
        stored = {"settings": settings, "environment": files.environment(), "figures": [one.to_dict() for one in found]}
        paths.append(folder / "figures.json")
        files.write_json(paths[-1], stored)
    print_result(as_json, stored, "\n\n".join(one.table() for one in found))
    wrote(*paths)
