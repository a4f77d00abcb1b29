"""Early alignment (16.1)-(16.5): the motion of every neuron while outputs are small, on any points with any labels."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, GradientDescent, TwoLayerReLU, as_loss
from gradstarve.theorems._entry import COLOURS, Outcome, Quote
from gradstarve.theorems._register import EACH_LOSS, Drop, Trials, register
from gradstarve.theorems._sampling import BATCH, log_uniform, record, train

_TOLERANCE = 1e-2
_POINTS, _DIM, _WIDTH = 10, 3, 5
_STEPS = 4000
_SHOWN = 20  # records that two step sizes share
_LARGE = 3.0  # weights in the figure at which outputs are not small
_SMALL = 1e-6  # weights at the start; outputs grow to some 1e-8
_LONG = 4.0  # k t of the run, for the largest push
_DRAWN = 14  # neurons in the figure


def _any_data(rng: np.random.Generator) -> Dataset:
    """Points at random with labels at random, also repeated, opposite and at the origin."""
    points = rng.normal(size=(_POINTS, _DIM)) * log_uniform(rng, 0.3, 3, (_POINTS, 1))
    points[-1] = points[0] * rng.choice([-2, -1, 0, 0.5, 1])
    weights = rng.uniform(0.1, 1, _POINTS)
    return Dataset(points, rng.choice([-1.0, 1.0], _POINTS), weights / weights.sum())


def _starts(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """w [b, h, d] and z [b, h] of size one, some read-outs small and some neurons without weights."""
    shape = (BATCH, _WIDTH)
    w, z = rng.normal(size=(*shape, _DIM)), rng.normal(size=shape) * log_uniform(rng, 0.1, 3, shape)
    z = np.where(rng.uniform(size=shape) < 0.1, 0, z)
    used = rng.uniform(size=shape) < 0.95
    return w * used[..., None], z * used


def _largest_push(data: Dataset, g0: float) -> float:
    """The largest |c| over many directions, enough for nearly all sets of points on which a neuron can be active."""
    directions = np.random.default_rng(0).normal(size=(1000, _DIM))
    seen = directions @ np.asarray(data.points).T > 0
    return float(np.linalg.norm((seen * g0 * np.asarray(data.weights * data.labels)) @ data.points, axis=1).max())


def _trained(data: Dataset, w: np.ndarray, z: np.ndarray, size: float, loss: str, until: float) -> list[tuple]:
    """(w [b, records, h, d], z [b, records, h]) by plain descent, from weights `size` times w and z with the step size and
    with twice of it, and from large ones; all in one run, at the records that they share."""
    sizes, step_size = np.repeat([size, size, _LARGE], BATCH), until / _STEPS * np.repeat([1.0, 2.0, 1.0], BATCH)
    starts = TwoLayerReLU(sizes[:, None, None] * np.tile(w, (3, 1, 1)), sizes[:, None] * np.tile(z, (3, 1)))
    run = train(data, starts, loss, GradientDescent(step_size), _STEPS, _STEPS // (2 * _SHOWN), record_networks=True)
    seen = [np.asarray(leaf).reshape(3, BATCH, 2 * _SHOWN + 1, *leaf.shape[2:]) for leaf in jax.tree.leaves(run.network())]
    places = (slice(None, None, 2), slice(None, _SHOWN + 1), slice(None, None, 2))
    return [tuple(leaf[part][:, at] for leaf in seen) for part, at in enumerate(places)]


def _off(w: np.ndarray, z: np.ndarray, other_w: np.ndarray, other_z: np.ndarray) -> np.ndarray:
    """The distance of two runs of each neuron at each record, relative to its size there and at the start, [b, records,
    h]."""
    size = np.sqrt(np.sum(w**2, -1) + z**2)
    size = size + size[:, :1]
    return np.sqrt(np.sum((w - other_w) ** 2, -1) + (z - other_z) ** 2) / np.where(size > 0, size, 1)


def _angles(w: np.ndarray, groups: Any, directions: Any) -> np.ndarray:
    """1 - cos between every neuron and its limit direction, [neurons, records]; NaN for neurons without one."""
    place = groups.direction.reshape(-1)
    w = np.moveaxis(w, 1, 2).reshape(place.size, -1, _DIM)
    size = np.linalg.norm(w, axis=-1)
    vector = directions.vector[np.maximum(place, 0)] if len(directions.vector) else np.zeros((place.size, _DIM))
    cosine = np.einsum("jtd,jd->jt", w, vector) / np.where(size > 0, size, 1)
    return np.where((place >= 0)[:, None], 1 - cosine, np.nan)


def _reproduced(data: Dataset, loss: str, phase: Any) -> np.ndarray:
    """The distance of every limit direction from the push of its active points, [b, h]; 0 for neurons without one."""
    x, found = np.asarray(data.points), phase.directions
    g0 = float(as_loss(loss).residual(jnp.zeros(())))
    seen = found.vector @ x.T
    clear = np.abs(seen) > 1e-5 * np.linalg.norm(x, axis=1)
    activity = np.where(clear, seen > 0, found.activity)
    push = (activity * g0 * np.asarray(data.weights * data.labels)) @ x
    rate = np.where(found.rate > 0, found.rate, 1)[:, None]
    off = np.linalg.norm(found.sign[:, None] * push / rate - found.vector, axis=1)
    place = phase.groups.direction
    return np.where(place >= 0, np.append(off, 0)[place], 0)


def _draw(outcome: Outcome, ax: Any) -> None:
    """1 - cos between neurons and their limit directions: lines by law, markers trained, red from a large start."""
    law, trained, large, time = (outcome.extra[name] for name in ("shown_law", "trained", "large", "time"))
    whole = np.isfinite(law).all(1) & outcome.extra["sure"]
    chosen = np.flatnonzero(whole)[:_DRAWN]
    for count, i in enumerate(chosen):
        colour = COLOURS[count % len(COLOURS)]
        label = count == 0
        shown = np.maximum(law[i], 1e-6), np.maximum(trained[i], 1e-6), np.maximum(large[i], 1e-6)
        ax.plot(time[i], shown[0], color=colour, linewidth=1.2, label="law" if label else None)
        ax.plot(time[i], shown[1], "o", color=colour, markersize=2.5, label="trained from a small start" if label else None)
        if count < 5:
            ax.plot(time[i], shown[2], "x", color="red", markersize=3, label="trained from a large start" if label else None)
    ax.set_yscale("log")
    ax.set_xlabel("time, in units of 1 / (the largest push)")
    ax.set_ylabel("1 − cos to the limit direction")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=3)


@register(
    name="early-alignment",
    equation="16.1-16.5",
    title="Neurons align before anything is learnt",
    meaning="Before a network has learnt anything, each neuron has already turned to a direction of the data, or died: "
    "the first phase decides which features training starts from.",
    claim="while outputs are small every neuron runs alone: a cosh and a sinh of k t along the push of the points that it "
    "sees, from edge to edge and along edges, whatever the labels, until it points in a direction that reproduces itself or "
    "sees no point",
    formula=(
        r"\begin{split} \dot w &= z\, c, \qquad \dot z = w \cdot c, \qquad "
        r"c = g(0) \sum_{i \,:\, w \cdot x_i > 0} q_i\, y_i\, x_i, \qquad k = |c|, \qquad \hat c = c/k, \\ "
        r"w(t) &= w - (w \cdot \hat c)\, \hat c + \hat c\, \bigl( (w \cdot \hat c) \cosh k t + z \sinh k t \bigr), \qquad "
        r"z(t) = z \cosh k t + (w \cdot \hat c) \sinh k t, \\ "
        r"c &\leftarrow c + g(0) \sum_{j \in E} \alpha_j\, q_j\, y_j\, x_j \text{ on edges } E \text{ held}, \qquad "
        r"c \cdot x_j = 0, \qquad \alpha_j \in [0, 1], \\ "
        r"\hat w(\infty) &= \pm \hat c(\hat w(\infty)), \qquad t_{\text{end}} \sim \log(1/\text{scale}) / k_{\max} "
        r"\end{split}"
    ),
    hypotheses=(
        "a start so small that outputs stay small",
        "a loss that pushes at 0, g(0) > 0",
        "a small step size",
        "no neuron on an edge where its read-out changes sign, for the flow does not determine it (16.4)",
    ),
    tolerance=_TOLERANCE,
    why_tolerance="Euler's method with k step_size of at most 0.001, which is off by (k t) k step_size / 2 = 0.2 % at the "
    "very most after k t = 4, and where edges are crossed or held by as much again; neurons on which twice the step size "
    "differs by a quarter of the tolerance are undecided, and so are those that (16.4) leaves open: a few in a hundred",
    checked_with="simulate: descent on all weights of the full network by automatic differentiation",
    default_trials=BATCH * _WIDTH * 8,
    quick_trials=BATCH * _WIDTH * 2,
    batch=BATCH * _WIDTH,
    single_tolerance=5e-2,
    dynamics=("flow", "descent"),
    rounds=EACH_LOSS,
    drops=(Drop("a start so small that outputs stay small (weights of order 1 instead)", {"loss": "hinge", "size": 1.0}),),
    figure=_draw,
)
def early_alignment(rng: np.random.Generator, loss: str, size: float = _SMALL) -> Trials:
    """Networks on points with labels at random; one trial is one neuron, at all records."""
    data = _any_data(rng)
    w, z = _starts(rng)
    network = TwoLayerReLU(size * w, size * z)
    g0 = float(as_loss(loss).residual(jnp.zeros(())))
    fastest = _largest_push(data, g0)
    until = _LONG / fastest
    times = until * np.arange(_SHOWN + 1) / _SHOWN
    (w_run, z_run), coarse, (w_large, _) = _trained(data, w, z, size, loss, until)
    unsure = (_off(w_run, z_run, *coarse) > _TOLERANCE / 4).any(1)
    phase = theory.early_alignment(data, network, loss)
    law = phase.network(times, throw=False)
    w_law, z_law = np.asarray(law.w), np.asarray(law.z)
    # A neuron whose read-out changes sign next to an edge is not determined by steps either.
    lost = unsure | (phase.groups.until < times[-1])
    gaps = _off(w_run, z_run, w_law, z_law)
    worst = np.nanmax(np.where(np.isnan(gaps), 0, gaps), axis=1)
    worst = np.maximum(np.where(np.isnan(gaps).any(1) & ~lost, np.inf, worst), _reproduced(data, loss, phase))
    when = np.argmax(np.where(np.isnan(gaps), 0, gaps), axis=1)

    def numbers(i: int) -> dict[str, Any]:
        b, j = (int(n) for n in np.unravel_index(i, lost.shape))
        more = {"neuron": j, "step_size": until / _STEPS, "times": times, "trained": w_run[b, :, j]}
        return record(data, loss, network, b, **more, law_w=w_law[b, :, j], law_z=z_law[b, :, j])

    def quote(i: int) -> Quote:
        b, j = (int(n) for n in np.unravel_index(i, lost.shape))
        k = int(when[b, j])
        pairs = ((w_law[b, k, j], z_law[b, k, j]), (w_run[b, k, j], z_run[b, k, j]), (w_run[b, 0, j], z_run[b, 0, j]))
        law_size, trained, start = (np.sqrt(np.sum(v**2) + u**2) for v, u in pairs)
        return Quote(f"the length of neuron {j}", f"at t = {times[k]:.4g}", law_size, trained, trained + start)

    extra: dict[str, Any] = {}
    if loss == "cross-entropy":
        shown = (w_run, w_law, w_large)
        small, by_law, far = (_angles(v, phase.groups, phase.directions) for v in shown)
        extra = {"trained": small, "shown_law": by_law, "large": far, "time": np.tile(times * fastest, (lost.size, 1))}
        extra["sure"] = ~lost.reshape(-1)
    return Trials(worst.reshape(-1), numbers, lost.reshape(-1), f"{loss}, any labels", quote=quote, extra=extra)
