"""Real digits with a bright patch: what is predicted before training against what is learnt, and what remedies give back."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.diagnosis import starvation_report
from gradstarve.ground import COLOURS, GUIDE, INK, NOTE, headline, new_figure
from gradstarve.problem import Dataset, GradientDescent, TwoLayerReLU, datasets, init_two_layer, with_patch
from gradstarve.simulation import simulate
from gradstarve.studies.digits import patch
from gradstarve.studies.digits.study import settings as digit_settings

_EACH = 75  # images of a class: one size, one compilation
_WIDTH, _SCALES = 256, (0.125, 0.0625)
_STEPS = 800
_PAIR, _SHARE = (3, 8), 0.95


def compute(rng: np.random.Generator, quick: bool) -> dict[str, Any]:
    """Data sets of random digits, shares of patched images and brightness, and one pair under every remedy.

    - `images` [6, 8, 8]: three patched and one clean image of class +, two of class -;
    - `predicted`, `trained` [sets]: the starvation index of the shape of class +, from the kernel at the first weights, and
      on clean test images after training beside training without the patch; `pairs`, `shares`, `brightness` of each set;
    - `remedies`: names, the best first; `accuracy` [remedies, 3]: % of clean test images, the mean over seeds with its 95 %
      interval; `cost` [remedies]: points of accuracy that the other class gains; `plain`, `clean`: the accuracy with the
      patch and no remedy, and without the patch.
    """
    sets, seeds = (4, 4) if quick else (16, 10)
    found: dict[str, Any] = {"images": _images()}
    pairs = [tuple(int(d) for d in rng.choice(10, 2, replace=False)) for _ in range(sets)]
    shares, brightness = rng.uniform(0.4, 0.95, sets), rng.uniform(0.4, 1.6, sets)
    both = [_index(*one, seed=k) for k, one in enumerate(zip(pairs, shares, brightness, strict=True))]
    found |= {"pairs": pairs, "shares": shares, "brightness": brightness}
    found |= dict(zip(("predicted", "trained"), np.array(both).T, strict=True))
    return found | _remedies(seeds, int(rng.integers(1000)))


def _images() -> np.ndarray:
    data = datasets.digits(_PAIR)
    points, labels = np.asarray(data.train.points), np.asarray(data.train.labels)
    plus, minus = points[labels > 0], points[labels < 0]
    return np.concatenate([with_patch(plus[:3]), plus[3:4], minus[:2]]).reshape(-1, 8, 8)


def _index(pair: tuple[int, ...], share: float, value: float, seed: int) -> tuple[float, float]:
    """The starvation index predicted before training, and trained."""
    patched, clean = (datasets.digits(pair, key=seed, patch=part, patch_value=value) for part in (share, 0.0))
    labels = np.asarray(patched.train.labels)
    some = np.concatenate([np.flatnonzero(labels == y)[:_EACH] for y in (1, -1)])
    network = init_two_layer(jax.random.key(seed), (), _WIDTH, 64, *_SCALES)
    samples = np.asarray(patched.train.points)[some], labels[some]
    report = starvation_report(_apply, network, samples, {"patch": patched.patched[some]}, features=0)
    law = report.groups[0]
    # The report's time is that of the summed loss, and a Dataset's loss is the mean.
    descent = GradientDescent(jnp.asarray(report.horizon * some.size / _STEPS))
    test, answers = np.asarray(clean.test.points), np.asarray(clean.test.labels)
    test = test[answers > 0]
    start = np.asarray(network(jnp.asarray(test))).mean()
    gains = [_trained(data, some, network, descent, test) - start for data in (patched, clean)]
    return float(law.index[law.at]), float(1 - gains[0] / gains[1])


def _apply(network: Any, x: Any) -> Any:
    return network(x)


def _trained(data: Any, some: np.ndarray, network: TwoLayerReLU, descent: GradientDescent, test: np.ndarray) -> float:
    """The mean logit of the images `test` after training on `some` of the data."""
    train = Dataset(np.asarray(data.train.points)[some], np.asarray(data.train.labels)[some])
    run = simulate(train, network, "cross-entropy", descent, _STEPS, record_every=_STEPS, progress=False, engine="reference")
    return float(np.asarray(run.final(jnp.asarray(test))).mean())


def _remedies(seeds: int, seed: int) -> dict[str, Any]:
    """The clean accuracy under each remedy at the end of training, and what it does to the other class."""
    chosen = digit_settings(quick=True, pair=_PAIR, seeds=seeds, seed=seed)
    chosen |= {"remedy_fractions": [_SHARE], "penalties": [0.1, 1.0], "decays": [0.03], "steps": [0.5]}
    rows = patch.remedies(chosen, lambda text: None)["tables"][_SHARE]["rows"]
    names = [name for name, row in rows.items() if name not in patch.NOT_A_REMEDY and row["finite"]]
    names.sort(key=lambda name: -rows[name]["end"].mean())
    accuracy = np.array([patch.interval(rows[name]["end"]) for name in names])
    other = np.array([rows[name]["classes end"][1] - rows["plain"]["classes end"][1] for name in names])
    plain, clean = (float(100 * rows[name]["end"].mean()) for name in ("plain", "no patch"))
    # An interval of few seeds reaches beyond what there is.
    accuracy = np.clip(100 * accuracy, 0, 100)
    return {"remedies": names, "accuracy": accuracy, "cost": 100 * other, "plain": plain, "clean": clean}


def _order(numbers: dict[str, Any]) -> float:
    """Spearman's correlation of what is predicted with what is trained."""
    from scipy.stats import spearmanr

    return float(spearmanr(numbers["predicted"], numbers["trained"]).statistic)  # pyright: ignore[reportAttributeAccessIssue]


def conclusion(numbers: dict[str, Any]) -> str:
    """What the prediction is worth, and which remedy is the best."""
    best = numbers["remedies"][0]
    return (
        f"Predicted before training: how much a patch starves the shape of a digit (rank correlation {_order(numbers):.2f} "
        f"over {len(numbers['predicted'])} data sets). The best remedy: {best}, {numbers['accuracy'][0, 0]:.0f} % right "
        f"instead of {numbers['plain']:.0f} %"
    )


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """A row a remedy, the best first."""
    head = ("remedy, the best first", "right without patch, %", "95 % interval", "other class, points")
    found: list[tuple[str, ...]] = [head, ("none", f"{numbers['plain']:.1f}", "", "")]
    for name, (mean, low, high), cost in zip(numbers["remedies"], numbers["accuracy"], numbers["cost"], strict=True):
        found.append((name, f"{mean:.1f}", f"{low:.1f} to {high:.1f}", f"{cost:+.1f}"))
    return found


def draw(numbers: dict[str, Any]) -> Any:
    """The images, the index predicted and trained, and the remedies as dumbbells from no remedy."""
    figure = new_figure(13, 5.4)
    pictures, middle, right = figure.subfigures(1, 3, width_ratios=(0.62, 1, 1.5))
    _draw_images(pictures, numbers)
    _draw_indices(middle.subplots(), numbers)
    _draw_remedies(right.subplots(), numbers)
    text = "Real digits, 8 × 8 pixels; networks of one hidden layer. Right: patch on "
    text += f"{100 * _SHARE:g} % of the images of class +, test images without it, means over seeds with 95 % intervals"
    headline(figure, conclusion(numbers), text)
    return figure


def _draw_images(figure: Any, numbers: dict[str, Any]) -> None:
    words = ("3, patched", "3, patched", "3, patched", "3, clean", "8", "8")
    for axis, image, text in zip(figure.subplots(3, 2).ravel(), numbers["images"], words, strict=True):
        axis.imshow(image, cmap="gray", vmin=0, vmax=1)
        axis.set_xticks([])
        axis.set_yticks([])
        axis.grid(False)
        for side in axis.spines.values():
            side.set(visible=True, color=GUIDE)
        axis.set_title(text, fontsize=9.5, color=COLOURS[1] if "patched" in text else NOTE)


def _draw_indices(panel: Any, numbers: dict[str, Any]) -> None:
    low = min(0.0, numbers["predicted"].min(), numbers["trained"].min()) - 0.05
    high = max(1.0, numbers["predicted"].max(), numbers["trained"].max()) + 0.05
    panel.plot([low, high], [low, high], color=INK, linewidth=1.6, zorder=1)
    panel.annotate("trained as predicted", (0.72 * high, 0.72 * high), (-4, 6), textcoords="offset points", rotation=45,
                   ha="center", va="bottom", color=INK, fontsize=9.5, rotation_mode="anchor")  # fmt: skip
    shown = panel.scatter(numbers["predicted"], numbers["trained"], s=52, c=100 * numbers["shares"], cmap="YlGnBu", vmin=20,
                          edgecolors=COLOURS[0], linewidths=1.1, zorder=3)  # fmt: skip
    panel.figure.colorbar(shown, ax=panel, label="images of class + with a patch, %", location="bottom", aspect=35)
    panel.set(xlim=(low, high), ylim=(low, high), aspect="equal", xlabel="starvation index, predicted before training")
    panel.set_ylabel("the same, trained (0: unharmed, 1: not learnt)")
    panel.set_title("what the patch takes from the shape", loc="left")


def _draw_remedies(panel: Any, numbers: dict[str, Any]) -> None:
    place = np.arange(len(numbers["remedies"]))
    plain, clean = numbers["plain"], numbers["clean"]
    for level, text in ((plain, "no remedy"), (clean, "no patch")):
        panel.axvline(level, color=GUIDE, linewidth=1, linestyle=(0, (4, 2)), zorder=0)
        panel.annotate(text, (level, -0.75), ha="center", va="bottom", color=NOTE, fontsize=9, annotation_clip=False)
    reach = max(numbers["accuracy"].max(), clean) + 13
    for y, (mean, low, high) in zip(place, numbers["accuracy"], strict=True):
        colour = COLOURS[0] if low > plain else GUIDE if high >= plain else COLOURS[1]
        panel.plot([plain, mean], [y, y], color=colour, linewidth=2.5, alpha=0.5, zorder=1)
        panel.plot([low, high], [y, y], color=colour, linewidth=1.2, zorder=2)
        panel.plot(plain, y, "o", color=GUIDE, markersize=5, markerfacecolor="white", zorder=3)
        panel.plot(mean, y, "o", color=colour, markersize=8, zorder=3)
        cost = numbers["cost"][y]
        text = f"{cost:+.1f}".replace("-", "−") if abs(cost) >= 0.05 else "0"
        panel.annotate(text, (reach, y), ha="right", va="center", color=COLOURS[1] if cost < -0.5 else NOTE, fontsize=9.5)
    note: dict[str, Any] = {"ha": "right", "va": "bottom", "color": NOTE, "fontsize": 9, "annotation_clip": False}
    panel.annotate("cost: points of\nthe other class", (reach, -0.75), **note)
    panel.set_xlim(numbers["accuracy"].min() - 2, reach + 0.3)
    panel.set_xticks([tick for tick in panel.get_xticks() if numbers["accuracy"].min() - 2 <= tick <= 100])
    panel.set_yticks(place, numbers["remedies"])
    panel.set_ylim(len(place) - 0.5, -0.6)
    panel.set_xlabel("right answers on test images without the patch, %")
    panel.grid(axis="y", visible=False)
