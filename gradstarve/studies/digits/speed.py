"""The speed of learning real digits: the shape of the error curve, cross-entropy against hinge, and the law 1/(p r).

The images are centred, so that the means of the two classes are opposite, x_- = -x_+. Theory predicts from these two mean
images and the initial weights of training; nothing is fitted.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from gradstarve.problem import Dataset, GradientDescent, TwoDigits, TwoLayerReLU, datasets
from gradstarve.studies.digits.claims import Claim, between
from gradstarve.studies.digits.train import Tell, crossing, interval, networks, problems, slopes, train
from gradstarve.theory import solve

LOSSES = ("cross-entropy", "hinge")
SIGMOIDAL = "95 % of the seeds turn once from concave to convex, and all start at less than a tenth of the steepest slope"


def error_and_loss(settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Part (a): two digits, one hidden ReLU layer, both losses, from several scales of the start.

    The error is sigmoid(-m) averaged over the training images. For each loss and scale: the curves, the time to a mean
    margin of 1, and the prediction of the closed form on the two class means.
    """
    data = problems(settings, centred=True)
    runs: dict[str, Any] = {}
    for scale in settings["scales"]:
        start = networks(settings, scale)
        for loss in LOSSES:
            tell(f"(a) {loss} from weights of scale {scale}")
            run = train(data, start, loss, settings["step_size"], settings["time"], 200)
            predicted = predicted_times(data, start, loss, settings["step_size"]).mean(0)
            runs[f"{loss} {scale}"] = {
                "time": run.time,
                "error": run.error(),
                "margin": run.margin(),
                "accuracy": (run.test > 0).mean(-1),
                "learnt": crossing(run.time, run.margin(), 1.0),
                "predicted": predicted,
            }
    found = {"runs": runs, "scales": list(settings["scales"])}
    return found | {"claims": _shape_claims(found)}


def _shape_claims(found: dict[str, Any]) -> list[Claim]:
    runs, scales = found["runs"], found["scales"]
    smallest = min(scales)
    curve = runs[f"cross-entropy {smallest}"]
    start, bends, height = bend(curve["time"], curve["error"])
    one = bends == 1
    claims = [
        Claim(
            "a",
            "the error is sigmoidal: a flat start and one bend",
            f"{one.sum()} of {one.size} seeds; starts with {start.max():.0e} of the steepest slope",
            SIGMOIDAL,
            bool(one.mean() >= 0.95 and start.max() < 0.1),
        ),
        Claim(
            "a",
            "it bends at the error 0.291, as for a single point (5.2)",
            between(*interval(height), ".3f"),
            "the mean is within 0.02",
            bool(abs(height.mean() - 0.2914467488) < 0.02),
        ),
    ]
    for scale in scales:
        ratio = interval(runs[f"cross-entropy {scale}"]["learnt"] / runs[f"hinge {scale}"]["learnt"])
        claims.append(
            Claim(
                "a",
                f"hinge reaches margin 1 first, start {scale:g}: cross-entropy / hinge",
                between(*ratio, ".2f"),
                "above 1 with its confidence interval",
                bool(ratio[1] > 1),
            )
        )
    for loss in LOSSES:
        one = runs[f"{loss} {smallest}"]
        ratio = interval(one["learnt"] / one["predicted"])
        claims.append(
            Claim(
                "a",
                f"closed form on the class means, {loss}: measured / predicted time",
                between(*ratio, ".3f"),
                "within 10 % of 1 with its confidence interval",
                bool(ratio[1] > 0.9 and ratio[2] < 1.1),
            )
        )
    return claims


def bend(time: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For error curves [seeds, records]: the slope at the start as a share of the steepest one, the number of changes
    between concave and convex (changes below 5 % of the largest curvature are not counted), and the error at the steepest
    point. All [seeds]."""
    fall = -np.diff(error, axis=-1) / np.diff(time)
    curvature = np.diff(fall, axis=-1)
    counts = []
    for row in curvature:
        strong = row[np.abs(row) > 0.05 * np.abs(row).max()]
        counts.append(int((np.diff(np.sign(strong)) != 0).sum()))
    middle = (error[:, 1:] + error[:, :-1]) / 2
    height = np.take_along_axis(middle, fall.argmax(-1)[:, None], -1)[:, 0]
    return fall[:, 0] / fall.max(-1), np.array(counts), height


def class_speed(settings: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Part (b): the time after which class + is learnt, against its frequency p and its norm r.

    p is the weight of class +, or its share of the images when images are left out; r is the norm of its mean image, from
    the midpoint of the two classes (centred) or from black (raw pixels). Learnt: the margin averaged over the training
    images of the class is at 1, or its error sigmoid(-m) at 0.1.
    """
    step, scale = settings["step_size"], settings["speed_scale"]
    start = networks(settings, scale)
    sweeps: dict[str, Any] = {}

    def measure(name: str, label: str, data: list[TwoDigits], p: float, time: float, predict: bool) -> None:
        tell(f"(b) {name}, {label}")
        run = train(data, start, "cross-entropy", step, time, 200)
        row = {
            "label": label,
            "frequency": p,
            "norm": np.array([class_norm(one) for one in data]),
            "margin": crossing(run.time, run.margin(run.positive), 1.0),
            "error": crossing(run.time, -run.error(run.positive), -0.1),
            "other": crossing(run.time, run.margin(~run.positive), 1.0),
        }
        if predict:
            row["predicted"] = predicted_times(data, start, "cross-entropy", step)[0]
        sweeps.setdefault(name, []).append(row)

    longest = settings["speed_time"]
    for p in settings["frequencies"]:
        data = problems(settings, centred=True, frequencies=(p, 1 - p))
        measure("weights", f"p = {p}", data, p, longest / p, True)
    for p in settings["rare"]:
        data = [fewer(one, p) for one in problems(settings, centred=True)]
        share = float(np.mean([np.mean(np.asarray(one.train.labels) > 0) for one in data]))
        measure("fewer images", f"p = {share:.2f}", data, share, 2 * longest / p, True)
    for factor in settings["brightness"]:
        data = problems(settings, centred=True, frequencies=(0.5, 0.5), brightness=(factor, 1.0))
        measure("brightness", f"x {factor}", data, 0.5, 2 * longest / min(settings["brightness"]), True)
    for p in settings["frequencies"]:
        data = problems(settings, frequencies=(p, 1 - p))
        measure("weights, raw pixels", f"p = {p}", data, p, 0.6 * longest / p, False)
    for factor in settings["brightness"]:
        data = problems(settings, frequencies=(0.5, 0.5), brightness=(factor, 1.0))
        measure("brightness, raw pixels", f"x {factor}", data, 0.5, 2 * longest / min(settings["brightness"]), False)
    fits = {name: _fits(rows) for name, rows in sweeps.items()}
    return {"sweeps": sweeps, "fits": fits, "claims": _speed_claims(sweeps, fits)}


def fewer(data: TwoDigits, p: float) -> TwoDigits:
    """`data` with training images of class + left out until its share of the images is p; equal weights."""
    labels = np.asarray(data.train.labels)
    others = int((labels < 0).sum())
    count = max(1, round(p / (1 - p) * others))
    kept = np.r_[: min(count, int((labels > 0).sum())), np.flatnonzero(labels < 0)]
    return data._replace(train=Dataset(data.train.points[kept], labels[kept]), patched=data.patched[kept])


def class_norm(data: TwoDigits) -> float:
    """r, the norm of the mean training image of class +."""
    return float(np.linalg.norm(_mean(data, 1)))


def predicted_times(data: list[TwoDigits], start: TwoLayerReLU, loss: str, step_size: float) -> np.ndarray:
    """The times at which the closed form (8.1) reaches a margin of 1 on the class means, from the initial weights.

    [2, seeds] in units of time, class + first. Each class is one point, its mean image, on the line through both means. All
    seeds are solved at once: as in (3.11) a class at norm r with weights (a, z) is one at norm 1 with weights sqrt(r) (a, z)
    and step size r times as large.
    """
    means = np.array([[_mean(one, 1), _mean(one, -1)] for one in data])
    axis = means[:, 0] - means[:, 1]
    axis /= np.linalg.norm(axis, axis=-1, keepdims=True)
    along = np.abs(np.einsum("scd,sd->sc", means, axis))
    # One ratio for each seed: exactly 1 for equal brightness, otherwise the ratio of the brightnesses.
    ratio = float(np.mean(along[:, 1] / along[:, 0]))
    unit = along[:, 0]
    root = jnp.asarray(np.sqrt(unit), start.dtype)[:, None]
    w = jnp.einsum("shd,sd->sh", start.w, jnp.asarray(axis, start.dtype)) * root
    frequency = float(np.asarray(data[0].train.weights)[np.asarray(data[0].train.labels) > 0].sum())
    line = datasets.antipodal(1, norms=(1.0, ratio), frequencies=(frequency, 1 - frequency))
    line = eqx.tree_at(lambda d: d.points, line, line.points.astype(start.dtype))
    dynamics = GradientDescent(jnp.asarray(step_size * unit, start.dtype))
    solution = solve(line, TwoLayerReLU(w[..., None], start.z * root), loss, dynamics)
    return np.stack([step_size * np.asarray(mode.time_to_logit(1.0), float) for mode in (solution.plus, solution.minus)])


def _mean(data: TwoDigits, label: int) -> np.ndarray:
    return np.asarray(data.train.points)[np.asarray(data.train.labels) == label].mean(0)


def _fits(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Slopes of log time against log(p r), one per seed, for measured and predicted times."""
    strength = np.array([row["frequency"] * row["norm"] for row in rows])
    names = [name for name in ("margin", "error", "predicted") if name in rows[0]]
    return {name: slopes(strength, np.array([row[name] for row in rows])) for name in names} | {
        "other": slopes(strength, np.array([row["other"] for row in rows]))
    }


def _speed_claims(sweeps: dict[str, Any], fits: dict[str, Any]) -> list[Claim]:
    words = {
        "weights": "p by weights",
        "fewer images": "p by leaving images out",
        "brightness": "r by brightness",
        "weights, raw pixels": "p by weights, raw pixels",
        "brightness, raw pixels": "r by brightness, raw pixels",
    }
    claims = []
    for name, text in words.items():
        for level, what in (("margin", "margin 1"), ("error", "error 0.1")):
            known = np.isfinite(fits[name][level])
            slope = interval(fits[name][level][known]) if known.sum() > 1 else (np.nan, np.nan, np.nan)
            few = "" if known.all() else f", {known.sum()} of {known.size} seeds learn"
            claims.append(
                Claim(
                    "b",
                    f"time to {what} as 1/(p r), {text}: slope",
                    between(*slope, ".3f") + few,
                    "95 % of the seeds learn in time, and the confidence interval of the slope is within -1 ± 0.1",
                    bool(known.mean() >= 0.95 and slope[1] > -1.1 and slope[2] < -0.9),
                )
            )
    slope = interval(fits["brightness"]["other"])
    claims.append(
        Claim(
            "b",
            "independent modes: time of class - against brightness of class +: slope",
            between(*slope, ".3f"),
            "the confidence interval is within 0 ± 0.1",
            bool(slope[1] > -0.1 and slope[2] < 0.1),
        )
    )
    ratios = np.array([row["margin"] / row["predicted"] for rows in sweeps.values() for row in rows if "predicted" in row])
    ratios = np.where(np.isfinite(ratios), ratios, np.nan)  # a seed that does not learn has no time
    ratios = np.nanmean(ratios, axis=1)
    worst = np.abs(np.log(ratios)).max()
    claims.append(
        Claim(
            "b",
            f"closed form on the class means, all {len(ratios)} centred settings",
            f"measured / predicted {ratios.min():.2f} to {ratios.max():.2f}",
            "no mean over seeds is off by more than 10 %",
            bool(worst < np.log(1.1)),
        )
    )
    return claims
