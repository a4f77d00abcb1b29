"""Classes that are narrow cones: bounds on every margin (3.12)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, GradientDescent, TwoLayerReLU
from gradstarve.theorems._entry import COLOURS, SEPARABLE, Hypothesis, Outcome, Quote
from gradstarve.theorems._register import Drop, Trials, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    WHY_FLOW,
    cone_data,
    log_uniform,
    record,
    train,
    train_flow,
)

_TOLERANCE = 1e-7
_TIMES = 6  # of each trial; the figure shows the trials of one batch at all of them
_ANGLE = 2.4  # between the axes of the cones: wide enough for read-outs of wrong sign to turn before they join the other


def _networks(rng: np.random.Generator, data: Dataset, width: int = 8) -> TwoLayerReLU:
    """Neurons active on one class, some of them on a part of it; half of them of the wrong sign, unless they might become
    active on the other class: w.x' rises by at most max(-x.x') max(w.x)/min(x.x_l)."""
    x, y = np.asarray(data.points), np.asarray(data.labels)
    side = rng.choice([-1.0, 1.0], (BATCH, width))
    axes = np.stack([x[y == c].mean(0) / np.linalg.norm(x[y == c].mean(0)) for c in (1, -1)])
    scale = log_uniform(rng, 0.03, 0.3, (BATCH, 1))
    noise = rng.normal(size=(BATCH, width, data.dim))
    w = scale[..., None] * (np.where(side[..., None] > 0, axes[0], axes[1]) + 0.25 * noise)
    z = scale * np.abs(rng.normal(size=side.shape)) * rng.choice([-1.0, 1.0], side.shape)
    seen, inner = w @ x.T, x @ x.T
    for c in (1.0, -1.0):
        mine = side == c
        own, other = seen[..., y == c], seen[..., y != c]
        most = np.maximum(own.max(-1), 0)
        across, within = inner[np.ix_(y == c, y != c)], inner[np.ix_(y == c, y == c)]
        reach = np.maximum(-across.min(0), 0) * most[..., None] / within.min()
        z = np.where(mine & (other + 1.01 * reach > 0).any(-1), np.abs(z), z)
        blind = mine & (other > 0).any(-1)
        w = np.where(blind[..., None], (axes[0] if c > 0 else axes[1]) * scale[..., None], w)
    return TwoLayerReLU(w, side * z)


def _of_one_class(p: Any) -> np.ndarray:
    """Which neurons are active on points of one class at most."""
    active, labels = p.neurons[0], np.asarray(p.data.labels)
    return ~(active[..., labels > 0].any(-1) & active[..., labels < 0].any(-1))


def _turned(data: Dataset, network: TwoLayerReLU, by: float) -> TwoLayerReLU:
    """Every second neuron rotated away from its class, by the share `by` of the angle to the other class."""
    x, y = np.asarray(data.points), np.asarray(data.labels)
    way = x[y > 0].mean(0) - x[y < 0].mean(0)
    way, w = way / np.linalg.norm(way), np.asarray(network.w)
    return TwoLayerReLU(w - (1 + by) * (w @ way)[..., None] * way * (np.arange(w.shape[-2]) % 2)[:, None], network.z)


def _draw(outcome: Outcome, ax: Any) -> None:
    """Trained margins between their bounds, each in units of the width of its cone's bounds: 0 is the lower, 1 the upper."""
    margins, low, high = (outcome.extra[name].reshape(-1) for name in ("margins", "low", "high"))
    room = high - low
    wide = room > 1e-6 * (1 + np.abs(margins))
    ax.fill_between([1e-3, 30], 0, 1, color=COLOURS[0], alpha=0.15, linewidth=0, label="between the bounds")
    ax.plot(room[wide], ((margins - low) / np.where(room > 0, room, 1))[wide], "o", color=COLOURS[0], markersize=2.5,
            alpha=0.5, label="trained margins")
    ax.axhline(0, color=COLOURS[0], linewidth=1.2)
    ax.axhline(1, color=COLOURS[0], linewidth=1.2)
    ax.set_xscale("log")
    ax.set_xlim(1e-3, 30)
    ax.set_ylim(-0.15, 1.15)
    ax.set_xlabel("distance of the two bounds (3.12)")
    ax.set_ylabel("place of the margin between them")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


@register(
    name="cones",
    equation="3.12",
    title="Narrow cones: every margin between two modes",
    meaning="Points need not lie exactly on a line: for a narrow cone of points, two learning curves bound every margin "
    "from above and below.",
    claim="the margins of all points of a class lie between the logits of two modes, of the norms sqrt(min x_i . x_l) and "
    "max |x_i|, each at the clock of the other; the two are one where a class is one direction at one norm",
    formula=(
        r"\begin{split} L(\tau_{\text{slow}}(t)) &\le m_i(t) \le U(\tau_{\text{fast}}(t)), \\ "
        r"\frac{d \tau_{\text{slow}}}{dt} &= p\, g(U(\tau_{\text{slow}})), \qquad "
        r"\frac{d \tau_{\text{fast}}}{dt} = p\, g(L(\tau_{\text{fast}})), \\ "
        r"L,\, U &= \text{logits of modes of norms } k_-,\, k_+ \text{ in their clock}, \qquad "
        r"k_-^2 = \min x_i \cdot x_l, \quad k_+^2 = \max |x_i|^2 \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        Hypothesis("neurons that see one class, or part of it", lambda p: bool(np.all(_of_one_class(p)))),
        "neurons of the wrong sign that turn before they see the other class",
        "a residual >= 0 that falls with the margin",
    ),
    tolerance=_TOLERANCE,
    why_tolerance=WHY_FLOW + "; wide cones leave room, cones of no angle none",
    checked_with=BY_FLOW,
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    losses=("cross-entropy", "exponential"),
    rounds=(
        {"loss": "cross-entropy", "opening": 0.0},
        {"loss": "cross-entropy", "opening": 0.1},
        {"loss": "exponential", "opening": 0.02},
        {"loss": "exponential", "opening": 0.3},
    ),
    drops=(
        Drop("the flow (descent with a large step instead)", {"loss": "cross-entropy", "opening": 0.01, "step_size": 2.0}),
        Drop("neurons that see one class (some turned over)", {"loss": "cross-entropy", "opening": 0.1, "turn": 0.5}),
    ),
    figure=_draw,
)
def cones(
    rng: np.random.Generator, loss: str, opening: float, step_size: float | None = None, turn: float = 0.0
) -> Trials:
    """Two cones, exclusive neurons; margins are compared over 1 + |m|, and for cones of no angle with both bounds."""
    spread = opening or 1e-300
    data = cone_data(rng, opening, _ANGLE, (np.exp(-spread / 2), np.exp(spread / 2)))
    network = _networks(rng, data)
    bounds = theory.cone_bounds(data, network, loss)
    trained_from = _turned(data, network, turn) if turn else network
    if step_size is None:
        times = np.array([1.0, 3.0, 8.0, 20.0, 50.0, 120.0])
        run, lost = train_flow(data, trained_from, loss, times)
        margins = np.asarray(data.margins(run.recorded))
    else:
        times = step_size * np.arange(1, _TIMES + 1)
        run = train(data, trained_from, loss, GradientDescent(step_size), _TIMES, 1)
        margins, lost = np.asarray(data.margins(run.recorded))[:, 1:], False
    low, high = np.asarray(bounds.lower(times)), np.asarray(bounds.upper(times))
    off = np.maximum(low - margins, margins - high)
    if opening == 0:
        off = np.maximum(np.abs(low - margins), np.abs(margins - high))
    off = off / (1 + np.abs(margins))

    def quote(i: int) -> Quote:
        k, n = (int(place) for place in np.unravel_index(np.argmax(off[i]), off[i].shape))
        above = margins[i, k, n] > high[i, k, n]
        bound = (high if above else low)[i, k, n]
        words = f"the margin of point {n}, beside its {'upper' if above else 'lower'} bound,"
        return Quote(words, f"at t = {times[k]:.4g}", bound, margins[i, k, n], 1 + abs(margins[i, k, n]))

    def numbers(i: int) -> dict[str, Any]:
        return record(data, loss, trained_from, i, times=times, margins=margins[i])

    group = "cones of no angle" if opening == 0 else f"half-angle {opening:g}"
    first = [int(np.argmax(np.asarray(data.labels) == label)) for label in (1, -1)]
    extra = {"margins": margins[..., first], "low": low[..., first], "high": high[..., first]}
    return Trials(np.maximum(off.reshape(BATCH, -1).max(-1), 0), numbers, lost, group, quote, extra=extra)
