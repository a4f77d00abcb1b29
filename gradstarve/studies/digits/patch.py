"""A bright patch starves the shape of real digits; remedies recover some of the accuracy.

A white square in a dark corner of some images of class + shows the class as well as the shape does, and is learnt faster.
The study measures the accuracy on test images without the patch ("clean"), which depends on the shape alone; both classes
have equal weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import Dataset, SpectralDecoupling, TwoDigits, with_patch
from gradstarve.studies.digits.claims import Claim, between
from gradstarve.studies.digits.train import Runs, Tell, crossing, interval, networks, problems, train

NOT_A_REMEDY = ("no patch", "plain")
AUGMENTED = "patch on both classes"
HINDSIGHT = "early stopping, in hindsight"


def starvation(settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Part (c): accuracy on patched and on clean test images of class + over time, for every share of patched images."""
    start = networks(settings, settings["patch_scale"])
    runs = {}
    for fraction in settings["fractions"]:
        tell(f"(c) patch on {fraction:.0%} of class +")
        runs[fraction] = _patched(settings, start, fraction)
    found: dict[str, Any] = {"runs": {key: curves_of(run) for key, run in runs.items()}}
    return found | {"claims": starvation_claims(found["runs"], "c", "one hidden layer")}


def _patched(settings: dict[str, Any], start: Any, fraction: float) -> Runs:
    data = problems(settings, patch=fraction)
    return train(data, start, "cross-entropy", settings["step_size"], settings["patch_time"], settings["records"])


def curves_of(run: Runs) -> dict[str, Any]:
    """The curves of a run that are drawn and stored, [seeds, records] each, and the times to a mean margin of 1, [seeds]."""
    clean = ~run.patched & run.positive
    learnt = {"patched": run.patched, "clean": clean}
    return {
        "time": run.time,
        "clean": run.clean,
        "clean_positive": run.clean_positive,
        "clean_negative": run.clean_negative,
        "patched": run.with_patch,
        "fitted": run.fitted,
        "learnt": {name: crossing(run.time, run.margin(which), 1.0) for name, which in learnt.items() if which.any()},
        "finite": run.finite,
    }


def starvation_claims(runs: dict[float, dict[str, Any]], part: str, network: str) -> list[Claim]:
    """The claims about accuracies at several fractions of patched images, from the last record of each run."""
    fractions = sorted(runs)
    final = np.array([runs[f]["clean"][:, -1] for f in fractions])
    means = final.mean(1)
    falls = interval(final[0] - final[-1])
    claims = [
        Claim(
            part,
            f"{network}: clean accuracy falls with the patched fraction",
            " > ".join(f"{100 * m:.1f}" for m in means) + " %",
            f"at {', '.join(f'{f:g}' for f in fractions)} every mean is below the one before; the fall is above 0",
            bool((np.diff(means) < 0).all() and falls[1] > 0),
        )
    ]
    for most in [f for f in fractions if 0 < f < 1][-1:]:
        drop = interval(final[0] - runs[most]["clean"][:, -1])
        claims.append(
            Claim(
                part,
                f"{network}: accuracy still lost at the end, {most:g} patched",
                between(*drop, ".1f", percent=True),
                "the loss is above 0 with its confidence interval",
                bool(drop[1] > 0),
            )
        )
        times = runs[most]["learnt"]
        late = interval(times["clean"] / times["patched"])
        claims.append(
            Claim(
                part,
                f"{network}: clean images learnt later, {most:g} patched: clean / patched",
                between(*late, ".2f") if np.isfinite(late[0]) else "not reached by every seed",
                "the ratio of times to a mean margin of 1 is above 1 with its confidence interval",
                bool(late[1] > 1),
            )
        )
    patched = interval(runs[fractions[-1]]["patched"][:, -1])
    claims.append(
        Claim(
            part,
            f"{network}: patched images are told all the same, {fractions[-1]:g} patched",
            between(*patched, ".1f", percent=True),
            "at least 99 %",
            bool(patched[0] >= 0.99),
        )
    )
    return claims


def remedies(settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Part (e): the same patched problem under each remedy, at every fraction of `remedy_fractions`.

    Accuracy on clean images is read at two times: when training without patch has fitted 99 % of its images (on average
    over seeds), and at the end. `recovered` is (remedy - plain) / (no patch - plain)
    of the means over seeds. Early stopping is plain training at its best time so far, chosen by clean test images: an upper
    bound for every stopping rule.
    """
    start = networks(settings, settings["patch_scale"])
    step, time, records = settings["step_size"], settings["patch_time"], settings["records"]
    tables = {}
    for fraction in settings["remedy_fractions"]:
        data = problems(settings, patch=fraction)

        def go(name: str, loss: Any = "cross-entropy", data=data, step=step, fraction=fraction, **options: Any) -> Runs:
            tell(f"(e) {name}, patch on {fraction:.0%}")
            return train(data, start, loss, step, time, records, **options)

        runs = {
            "no patch": go("no patch", data=problems(settings)),
            "plain": go("plain"),
            "hinge": go("hinge", "hinge"),
            **{
                f"spectral decoupling {penalty:g}": go(
                    f"spectral decoupling {penalty:g}", SpectralDecoupling("cross-entropy", penalty)
                )
                for penalty in settings["penalties"]
            },
            **{f"weight decay {decay:g}": go(f"weight decay {decay:g}", weight_decay=decay) for decay in settings["decays"]},
            **{f"step size × {factor:g}": go(f"step size × {factor:g}", step=factor * step) for factor in settings["steps"]},
            "centred pixels": go("centred pixels", data=problems(settings, patch=fraction, centred=True)),
        }
        if fraction < 1:
            name = f"re-weighted + decoupling {max(settings['penalties']):g}"
            decoupled = SpectralDecoupling("cross-entropy", max(settings["penalties"]))
            runs |= {
                "re-weighted": go("re-weighted", weights=balanced),
                name: go(name, decoupled, weights=balanced),
                "re-weighted, centred": go(
                    "re-weighted, centred", data=problems(settings, patch=fraction, centred=True), weights=balanced
                ),
                "patched left out": go("patched left out", data=[_without(one) for one in data]),
            }
        runs[AUGMENTED] = go(AUGMENTED, data=[_on_both(one, fraction) for one in data])
        tables[fraction] = _table({name: curves_of(run) for name, run in runs.items()})
    return {"tables": tables, "claims": [claim for f, table in tables.items() for claim in _remedy_claims(f, table)]}


def balanced(data: TwoDigits) -> np.ndarray:
    """Weights with which patched and clean images of class + have equal total weight; the class keeps its weight."""
    weights = np.array(data.train.weights, np.float64)
    clean = ~data.patched & (np.asarray(data.train.labels) > 0)
    whole = weights[data.patched | clean].sum()
    for group in (data.patched, clean):
        weights[group] = whole / 2 / group.sum()
    return weights


def _without(data: TwoDigits) -> TwoDigits:
    """Only the clean training images, both classes at weight 1/2."""
    points, labels = data.train.points[~data.patched], np.asarray(data.train.labels)[~data.patched]
    weights = np.where(labels > 0, 0.5 / (labels > 0).sum(), 0.5 / (labels < 0).sum())
    return data._replace(train=Dataset(points, labels, weights), patched=data.patched[~data.patched])


def _on_both(data: TwoDigits, fraction: float) -> TwoDigits:
    """The patch on the same share of class - too, so that it carries no information, as data augmentation would do."""
    points = np.array(data.train.points)
    negative = np.flatnonzero(np.asarray(data.train.labels) < 0)
    chosen = negative[: round(fraction * negative.size)]
    points[chosen] = with_patch(points[chosen])
    return data._replace(train=Dataset(points, data.train.labels, data.train.weights))


def _table(curves: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The curves, the two times, and for each remedy the clean accuracy, [seeds], and what it recovers at both."""
    plain = curves["plain"]
    fitted = curves["no patch"]["fitted"].mean(0) >= 0.99
    course = plain["clean"].mean(0)
    # Times agree up to the rounding of the steps between records, for every step size.
    marks = {"early": int(fitted.argmax()) if fitted.any() else len(fitted) - 1, "end": len(fitted) - 1}
    rows = {}
    for name, run in [*curves.items(), (HINDSIGHT, plain)]:
        row: dict[str, Any] = {"finite": run["finite"]}
        for when, mark in marks.items():
            index = int(course[: mark + 1].argmax()) if name == HINDSIGHT else mark
            row[when] = run["clean"][:, index]
            row[f"classes {when}"] = [run[key][:, index].mean() for key in ("clean_positive", "clean_negative")]
            low, high = (curves[key]["clean"][:, mark] for key in ("plain", "no patch"))
            row[f"recovered {when}"] = _recovered(row[when], low, high)
        rows[name] = row
    times = {when: plain["time"][mark] for when, mark in marks.items()}
    return {"curves": curves, "rows": rows, "best": plain["time"][course.argmax()], **times}


def _recovered(values: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[float, float, float]:
    """(remedy - plain) / (no patch - plain) of means over seeds, with its 95 % interval by the bootstrap over seeds."""
    draws = np.random.default_rng(0).integers(0, values.size, (2000, values.size))
    gain, loss = values - low, high - low
    with np.errstate(divide="ignore", invalid="ignore"):
        share = gain[draws].mean(1) / loss[draws].mean(1)
        mean = gain.mean() / loss.mean()
    low, high = np.quantile(share, (0.025, 0.975))
    return float(mean), float(low), float(high)


def _remedy_claims(fraction: float, table: dict[str, Any]) -> list[Claim]:
    rows = {name: row for name, row in table["rows"].items() if name not in NOT_A_REMEDY}
    claims = []
    for when in ("early", "end"):
        trained = {name: row[f"recovered {when}"] for name, row in rows.items() if name != AUGMENTED and row["finite"]}
        best = max(trained, key=lambda name: trained[name][0])
        for kind, name in (("best in training", best), ("augmentation", AUGMENTED)):
            share = rows[name][f"recovered {when}"]
            claims.append(
                Claim(
                    "e",
                    f"{kind} recovers most, {fraction:g} patched, t = {table[when]:g}: {name}",
                    between(*share, form=".0f", percent=True),
                    "of the accuracy lost to the patch more than half, with its confidence interval",
                    bool(share[1] > 0.5),
                )
            )
    for name, row in rows.items():
        share = row["recovered end"]
        claims.append(
            Claim(
                "e",
                f"{name} helps, {fraction:g} patched",
                between(*share, form=".0f", percent=True) if row["finite"] else "diverged",
                "recovers something at the end, with its confidence interval",
                bool(row["finite"] and share[1] > 0),
                detail=True,
            )
        )
    return claims
