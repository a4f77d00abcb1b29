"""The picture of the library: a network, the law drawn first, 512 networks trained on top of it, and a large step."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import numpy as np

from gradstarve import theory
from gradstarve.ground import COLOURS, GUIDE, INK, NOTE, headline, new_figure
from gradstarve.problem import Dataset, GradientDescent, Mode, TwoLayerReLU, datasets, init_two_layer
from gradstarve.simulation import simulate

_WIDTH, _DIM, _SIGMA, _STEP_SIZE, _STEPS = 8, 5, 0.12, 0.25, 240
_FREQUENCIES = (0.75, 0.25)
_BAND = (0.1, 0.5, 0.9)
_LARGE, _LARGE_STEPS = 1.8, 12  # a first step multiplies a + z by 1 + 1.8 p r / 2
_NAMES = ("frequent class", "rare class")


def compute(rng: np.random.Generator, quick: bool) -> dict[str, Any]:
    """512 networks on opposite classes, trained by descent, and the law of each; one network with a step far from small.

    - `steps` [k]; `law`, `trained` [3, k, 2]: quantiles 10, 50 and 90 % over networks of the errors of both classes;
    - `gap` [k]: the largest difference of a margin between training and law;
    - `large_law`, `large_trained` at `large_steps`: logits of one class with a large step; `flow` at `large_dense`: those of
      the flow that small steps would follow.
    """
    networks = 64 if quick else 512
    keys = jax.random.split(jax.random.key(int(rng.integers(2**31))), 3)
    data = datasets.antipodal(dim=_DIM, frequencies=_FREQUENCIES, key=keys[0])
    start = init_two_layer(keys[1], networks, _WIDTH, _DIM, _SIGMA, _SIGMA)
    descent = GradientDescent(_STEP_SIZE)
    steps = np.arange(_STEPS + 1)
    law = np.asarray(theory.solve(data, start, "cross-entropy", descent).margins(steps))
    run = simulate(data, start, "cross-entropy", descent, _STEPS, record_every=1, progress=False)
    trained = np.asarray(run.margins())
    learnt = (law[:, -1] > 0).all(-1)
    errors = [np.quantile(1 / (1 + np.exp(margins[learnt])), _BAND, axis=0) for margins in (law, trained)]
    return {
        "networks": networks,
        "learnt": int(learnt.sum()),
        "steps": steps,
        "law": errors[0],
        "trained": errors[1],
        "gap": np.abs(law - trained).max((0, 2)),
        **_large_step(rng),
    }


def _large_step(rng: np.random.Generator) -> dict[str, Any]:
    """One class of p = r = 1 by few large steps: the law of the steps, training, and the flow."""
    a, z = 0.3 * rng.uniform(0.5, 1, 4), 0.3 * rng.uniform(-0.3, 0.3, 4)
    axis = np.eye(_DIM)[0]
    data = Dataset(axis[None], [1.0])
    network = TwoLayerReLU(a[:, None] * axis, z)
    steps = np.arange(_LARGE_STEPS + 1)
    run = simulate(data, network, "cross-entropy", GradientDescent(_LARGE), _LARGE_STEPS, record_every=1, progress=False)
    mode, dense = Mode(1.0, 1.0, a, z), np.linspace(0, _LARGE_STEPS, 200)
    exact: Any = theory.solve_mode(mode, "cross-entropy", GradientDescent(_LARGE))
    flow: Any = theory.solve_mode(mode, "cross-entropy")
    return {
        "large_steps": steps,
        "large_law": np.asarray(exact.logit(steps)),
        "large_trained": np.asarray(run.recorded)[:, 0],
        "large_dense": dense,
        "flow": np.asarray(flow.logit(_LARGE * dense)),
    }


def conclusion(numbers: dict[str, Any]) -> str:
    """How far training is from the law."""
    return (
        f"Known before training: the learning curves of {numbers['networks']} networks, at every step, "
        f"within {numbers['gap'].max():.0e} of a logit"
    )


def rows(numbers: dict[str, Any]) -> list[tuple[str, ...]]:
    """The median errors at a few steps, by the law and trained."""
    columns = (f"{name}, {side}" for name in _NAMES for side in ("law", "trained"))
    found: list[tuple[str, ...]] = [("step", *columns, "largest gap")]
    for k in np.linspace(0, _STEPS, 7).astype(int):
        errors = [f"{numbers[side][1, k, c]:.4g}" for c in range(2) for side in ("law", "trained")]
        found.append((str(k), *errors, f"{numbers['gap'][k]:.0e}"))
    return found


def draw(numbers: dict[str, Any]) -> Any:
    """The network, the errors with the gaps under them, and the large step."""
    figure = new_figure(13, 5.0)
    grid = figure.add_gridspec(2, 3, height_ratios=(4, 1), width_ratios=(0.62, 1.5, 1))
    _sketch(figure.add_subplot(grid[:, 0]))
    main = figure.add_subplot(grid[0, 1])
    strip = figure.add_subplot(grid[1, 1], sharex=main)
    _errors(main, numbers)
    strip.plot(numbers["steps"], np.maximum(numbers["gap"], 1e-17), color=NOTE, linewidth=1.4)
    strip.set(yscale="log", ylim=(1e-17, 1e-11), yticks=[1e-16, 1e-14, 1e-12])
    strip.set(xlabel="step of descent", ylabel="largest gap\nof a logit")
    _large(figure.add_subplot(grid[:, 2]), numbers)
    text = f"Lines: closed form, computed before training. Markers and bands: {numbers['networks']} networks of {_WIDTH} "
    headline(figure, conclusion(numbers), text + f"neurons in {_DIM} dimensions, all weights trained by gradient descent")
    return figure


def _sketch(panel: Any) -> None:
    """Inputs, neurons, output, with the paths of two neurons in the colours of the classes they learn."""
    places = [(0.0, np.linspace(-0.7, 0.7, 5)), (1.0, np.linspace(-1, 1, 8)), (2.0, np.zeros(1))]
    colours = {1: COLOURS[0], 2: COLOURS[0], 4: COLOURS[0], 6: COLOURS[1], 7: COLOURS[1]}
    for (x, ys), (to, targets) in pairwise(places):
        for i, y in enumerate(ys):
            for j, target in enumerate(targets):
                colour = colours.get(j if to == 1.0 else i, GUIDE)
                panel.plot([x, to], [y, target], color=colour, linewidth=0.7 if to == 1.0 else 1.4, alpha=0.55, zorder=1)
    for x, ys in places:
        shades = [colours.get(j, "white") if x == 1.0 else "white" for j in range(len(ys))]
        panel.scatter(np.full(len(ys), x), ys, s=110, c=shades, edgecolors=INK, linewidths=1.1, zorder=2)
    for x, text in ((0, "input"), (1, "neurons"), (2, "output")):
        panel.text(x, -1.2, text, ha="center", va="top", fontsize=9.5)
    panel.text(1, -1.42, "f(x) = Σ z ReLU(w·x)", ha="center", va="top", fontsize=9.5)
    panel.text(1, 1.2, "neurons of the frequent class,\nof the rare one, and dead ones", ha="center", fontsize=9, color=NOTE)
    panel.set(xlim=(-0.45, 2.4), ylim=(-1.6, 1.5))
    panel.set_axis_off()


def _errors(panel: Any, numbers: dict[str, Any]) -> None:
    steps, some = numbers["steps"], slice(None, None, 16)
    for k, name in enumerate(_NAMES):
        colour = COLOURS[k]
        low, middle, high = numbers["trained"][..., k]
        panel.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
        panel.plot(steps, numbers["law"][1, :, k], color=colour, linewidth=2)
        for edge in (0, 2):
            panel.plot(steps, numbers["law"][edge, :, k], color=colour, linewidth=0.8)
        panel.plot(steps[some], middle[some], "os"[k], color=colour, markerfacecolor="white", markersize=6, zorder=4)
        level = (0.13, 0.27)[k]
        at = int(np.argmax(numbers["law"][1, :, k] < level))
        panel.annotate(name, (steps[at], level), (8, 2), textcoords="offset points", color=colour, fontweight="bold")
    panel.tick_params(labelbottom=False)
    panel.set(ylim=(0, 0.53), xlim=(0, _STEPS), ylabel="error: probability of the wrong label")
    panel.set_title("median network, and 10 to 90 % of them", loc="left")


def _large(panel: Any, numbers: dict[str, Any]) -> None:
    steps = numbers["large_steps"]
    panel.plot(numbers["large_dense"], numbers["flow"], color=GUIDE, linewidth=1.6, linestyle=(0, (4, 2)))
    panel.plot(steps, numbers["large_law"], color=COLOURS[0], linewidth=1.8)
    panel.plot(steps, numbers["large_trained"], "o", color=COLOURS[0], markerfacecolor="white", markersize=6.5, zorder=4)
    at, middle = 8, len(numbers["flow"]) // 3
    near: dict[str, Any] = {"textcoords": "offset points"}
    exact = (steps[at], numbers["large_law"][at])
    panel.annotate("law of the steps,\nand training", exact, (4, -34), color=COLOURS[0], **near)
    flow = (numbers["large_dense"][middle], numbers["flow"][middle])
    panel.annotate("small-step limit\n(gradient flow)", flow, (-8, 14), ha="right", color=NOTE, **near)
    panel.set(xlabel="step of descent", ylabel="logit of one class", xlim=(0, _LARGE_STEPS))
    panel.set_title(f"a step far from small: step size {_LARGE:g}", loc="left")
