"""Coloured digits: the law of a shortcut with a minority (20.1) on the class means of real images, beside trained networks.

Two handwritten digits with a colour that agrees with the class on most images (`datasets.coloured_digits`). The law sees
nothing of the images but half the distance of the class means, r_c, the size of the colour, r_s, and the spread of the
images along the line between the means. A read-out of all pixels and the colour, and ordinary two-layer networks, are
trained on the images by descent; the accuracy is that on test images, in the minority cell (another colour) and on average
at the agreement of the training set. Intervals of 95 % over seeds: each seed has its own split, colours and first weights.

What came out with the default settings (20 seeds, 3 and 8, t = 30), the minority cell by law, of the read-out, of two
layers:

| p | loss | v_s, law | v_s, read-out | minority, law | read-out | 2 layers |
|---|---|---|---|---|---|---|
| 0.8 | cross-entropy | 0.791 ± 0.001 | 1.008 ± 0.039 | 92.1 ± 0.4 % | 86.2 ± 1.6 % | 84.5 ± 1.7 % |
| 0.8 | hinge | 0.000 | 0.375 ± 0.039 | 97.9 ± 0.2 % | 94.7 ± 1.2 % | 93.9 ± 1.1 % |
| 0.8 | smoothed | 0.262 ± 0.005 | 0.481 ± 0.023 | 95.9 ± 0.3 % | 90.5 ± 1.2 % | 83.1 ± 1.7 % |
| 0.95 | cross-entropy | 1.904 ± 0.007 | 2.168 ± 0.023 | 46.7 ± 1.3 % | 24.4 ± 2.0 % | 18.2 ± 3.0 % |
| 0.95 | hinge | 0.000 | 0.681 ± 0.022 | 97.9 ± 0.2 % | 77.8 ± 2.4 % | 38.0 ± 7.2 % |
| 0.95 | smoothed | 0.905 ± 0.008 | 1.140 ± 0.010 | 68.2 ± 1.3 % | 32.4 ± 2.2 % | 5.7 ± 1.8 % |

What holds: the order of the losses in what is left of the shortcut, and that losses with margin control unlearn a part of
it. What does not: the numbers. Images are not at their class means: the read-out keeps 0.2 to 0.7 more of the shortcut than
the law says, in every row, because images that lie far from their mean go on to push the colour, and the law is too hopeful
of the minority. Two layers from small weights are behind the read-out at this time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtr

from gradstarve import theory
from gradstarve.ground import Progress, number, positive_int, short_repr, table_text
from gradstarve.problem import DeepReLU, GradientDescent, datasets, init_two_layer
from gradstarve.simulation import simulate
from gradstarve.studies.digits.train import interval
from gradstarve.studies.shortcut import loss_of

_RECORDS = 20


class Reading(NamedTuple):
    """One agreement and one loss at the end of training, each a (mean, low, high) over seeds, or a number for all.

    `law_side`, `side`: v_s by the law and of the read-out; `law_worst`, `worst`, `ordinary_worst`: accuracy of the minority
    cell by the law, of the read-out and of ordinary networks; `law_peak`, `peak`: the largest v_s on the way.
    """

    agreement: float
    loss: str
    law_side: tuple[float, float, float]
    side: tuple[float, float, float]
    law_peak: tuple[float, float, float]
    peak: tuple[float, float, float]
    law_worst: tuple[float, float, float]
    worst: tuple[float, float, float]
    ordinary_worst: tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ColouredStudy:
    """What `coloured_study` found; `coloured_study(**study.settings)` computes it again."""

    settings: dict[str, Any]
    readings: tuple[Reading, ...]

    __repr__ = short_repr

    def reading(self, agreement: float, loss: str) -> Reading:
        """The reading of that agreement and loss; `KeyError` if it is not part of the study."""
        for one in self.readings:
            if (one.agreement, one.loss) == (agreement, loss):
                return one
        raise KeyError((agreement, loss))

    def table(self) -> str:
        """A row for each agreement and loss: mean, and the interval of 95 % over seeds."""
        head = ("p", "loss", "v_s, law", "v_s, read-out", "largest", "minority, law", "read-out", "2 layers")
        rows: list[tuple[str, ...]] = [head]
        for one in self.readings:
            logits = (_logit(value) for value in (one.law_side, one.side, one.peak))
            shares = (_share(value) for value in (one.law_worst, one.worst, one.ordinary_worst))
            rows.append((number(one.agreement), one.loss, *logits, *shares))
        return table_text(rows)

    def claims(self) -> list[tuple[str, bool]]:
        """What the law says of these images, and whether it holds for the trained read-outs, interval against interval."""
        found: list[tuple[str, bool]] = []
        for one in self.readings:
            name = f"p = {number(one.agreement)}, {one.loss}"
            inside = one.side[1] <= one.law_side[0] <= one.side[2]
            found.append((f"{name}: v_s of the read-out is that of the law", inside))
            unlearnt = one.side[2] < one.peak[1]
            says = one.law_side[0] < 0.95 * one.law_peak[0]
            if says:
                found.append((f"{name}: the shortcut is partly unlearnt by the end", unlearnt))
        for p in self.settings["agreements"]:
            by_loss = {name: self.reading(p, name) for name in self.settings["losses"]}
            if {"cross-entropy", "smoothed"} <= by_loss.keys():
                plain, control = by_loss["cross-entropy"], by_loss["smoothed"]
                text = f"p = {number(p)}: smoothed labels leave less of the shortcut than cross-entropy"
                found.append((text, control.side[2] < plain.side[1]))
        return found

    def notes(self) -> str:
        """The claims, each with its verdict."""
        return "\n".join(f"{'holds         ' if holds else 'does not hold '}  {text}" for text, holds in self.claims())


def coloured_study(
    agreements: Sequence[float] = (0.8, 0.95),
    losses: Sequence[str] = ("cross-entropy", "hinge", "smoothed"),
    *,
    pair: Any = (3, 8),
    colour: float = 1.5,
    time: float = 30.0,
    seeds: int = 20,
    width: int = 16,
    progress: Any = None,
) -> ColouredStudy:
    """The law on the class means of coloured digits, and networks trained on the images, for every agreement and loss.

    `losses`: those of `studies.shortcut`; `time`: when the readings are taken, step size x step; `seeds` >= 2: splits of the
    images, each with a read-out from zero and a network of `width` neurons. `ValueError` for bad numbers, `ImportError`
    without scikit-learn.
    """
    seeds = positive_int("seeds", seeds, minimum=2)
    settings = {
        **{"agreements": tuple(agreements), "losses": tuple(losses), "pair": tuple(pair), "colour": colour},
        **{"time": time, "seeds": seeds, "width": width},
    }
    readings = []
    with Progress(progress, len(settings["agreements"]) * len(settings["losses"]), "coloured digits") as bar:
        for p in settings["agreements"]:
            for name in settings["losses"]:
                found = np.array([_one(p, name, key, settings) for key in range(seeds)]).T
                spans: Any = [tuple(map(float, interval(values))) for values in found]
                readings.append(Reading(p, name, *spans))
                bar.update(len(readings))
    return ColouredStudy(settings, tuple(readings))


def _one(p: float, name: str, key: int, s: dict[str, Any]) -> tuple[float, ...]:
    """What a `Reading` is of, for one seed."""
    data = datasets.coloured_digits(p, s["pair"], key=key, colour=s["colour"])
    x, y = np.asarray(data.train.points, float), np.asarray(data.train.labels)
    means = [x[y == sign, :-1].mean(0) for sign in (1, -1)]
    half = (means[0] - means[1]) / 2
    core = float(np.linalg.norm(half))
    spread = np.mean([np.std((x[y == sign, :-1] - mean) @ half / core) for sign, mean in zip((1, -1), means, strict=True)])
    share = float(data.agrees.mean())
    law = theory.shortcut(share, loss_of(name), core=core, shortcut=s["colour"])
    v = np.asarray(law.features(np.geomspace(s["time"] / 1e3, s["time"], 61)))
    v_core, v_side = v[-1]
    law_worst = ndtr((v_core - v_side) / (spread * abs(v_core) / core))

    step = 0.5 / float((x**2).sum(1).max())
    every = max(int(np.ceil(s["time"] / step)) // _RECORDS, 1)
    test, minority = data.test, ~data.agrees_test
    how: dict[str, Any] = {"record_every": every, "record_networks": True, "progress": False}
    sides, worst = [], []
    for network in (
        DeepReLU((jnp.zeros(x.shape[1], data.train.points.dtype),)),
        init_two_layer(jax.random.key(key), 1, s["width"], x.shape[1], 0.05, 0.05)[0],
    ):
        run = simulate(data.train, network, loss_of(name), GradientDescent(step), every * _RECORDS, **how)
        margins = np.asarray(run.final(test.points)) * np.asarray(test.labels)
        worst.append(float((margins[minority] > 0).mean()))
        if not sides:
            sides = (np.asarray(run.networks.layers[0])[:, -1] * s["colour"]).tolist()
    return float(v_side), sides[-1], float(v[:, 1].max()), max(sides), float(law_worst), *worst


def _logit(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.3f} [{value[1]:.3f}, {value[2]:.3f}]"


def _share(value: tuple[float, float, float]) -> str:
    return f"{100 * value[0]:.1f} % [{100 * value[1]:.1f}, {100 * value[2]:.1f}]"
