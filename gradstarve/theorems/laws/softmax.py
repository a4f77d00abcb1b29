"""Several classes: the gap of one layer (11.1) and of two layers (11.2) under softmax cross-entropy."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import ClassDataset, SoftmaxOneLayer, SoftmaxTwoLayer
from gradstarve.theorems._figure import LawFigure, Marks
from gradstarve.theorems._formulas import mode_curve
from gradstarve.theorems._register import Drop, Trials, at_time, compared, recorded, register
from gradstarve.theorems._sampling import BATCH, FLOW_TOLERANCE, WHY_FLOW, log_uniform, train_flow
from gradstarve.theorems.laws.modes import FRACTIONS

_BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network, all classes at once"
CLASSES = ({"classes": 3}, {"classes": 10})
_NEURONS = 2  # of each class


def _problem(rng: np.random.Generator, classes: int, bend: float = 0.0) -> tuple[ClassDataset, np.ndarray, np.ndarray]:
    """K orthogonal inputs of random norms and weights in a random frame, their unit vectors and norms; `bend` leans the
    second input towards the first, by that cosine."""
    frame = np.linalg.qr(rng.normal(size=(classes, classes)))[0]
    frame[1] = bend * frame[0] + np.sqrt(1 - bend**2) * frame[1]
    norms = log_uniform(rng, 0.5, 2, classes)
    weights = rng.dirichlet(np.full(classes, 3.0)) + 0.2 / classes
    return ClassDataset(norms[:, None] * frame, np.arange(classes), weights / weights.sum()), frame, norms


def _apart(outputs: np.ndarray) -> np.ndarray:
    """The output of the true class minus each of the outputs [..., n, K], one point per class."""
    return np.diagonal(outputs, axis1=-2, axis2=-1)[..., None] - outputs


def _against(data: ClassDataset, network: Any, times: np.ndarray, law: Any) -> Trials:
    """Train, and compare the gaps of all pairs of classes with those of `law`, the same for all other classes."""
    run, lost = train_flow(data, network, "cross-entropy", times)
    trained, law = np.asarray(run.recorded), np.moveaxis(np.asarray(law.gap(times)), 1, 2)  # law: [b, records, K]
    numbers = recorded(data, "cross-entropy", network, {"law": law, "trained": trained}, times=times)
    found = _apart(trained)  # [b, records, n, K]; point n is of class n
    # The gap of a class to itself does not count.
    law = np.where(np.eye(found.shape[-1], dtype=bool), found, law[..., None])
    return compared(
        found,
        law,
        1e-3 + np.abs(law),
        numbers,
        lost,
        lambda i, k, own, other: f"the gap between the outputs {own} and {other} of class {own}",
        at_time(times),
        group=f"K = {found.shape[-1]}",
    )


def _pair(trial: dict[str, Any]) -> tuple[int, int]:
    """The two classes of a trial whose gap moves most; for a counterexample, whose gap is furthest from its law."""
    gaps = _apart(np.asarray(trial["trained"]))
    size = np.abs(gaps - np.asarray(trial["told"])[..., None]).max(0) if "told" in trial else np.ptp(gaps, axis=0)
    np.fill_diagonal(size, -1)
    own, other = np.unravel_index(int(np.argmax(size)), size.shape)
    return int(own), int(other)


def _pace(trial: dict[str, Any], own: int) -> tuple[float, float, float]:
    """p and r of a class, and p r^2 for one layer, 2 p r for two."""
    p, r = float(trial["weights"][own]), float(np.linalg.norm(trial["points"][own]))
    return p, r, p * r**2 if "v" in trial else 2 * p * r


def _marks(trial: dict[str, Any]) -> Marks:
    own, other = _pair(trial)
    return _pace(trial, own)[2] * trial["times"], _apart(np.asarray(trial["trained"]))[:, own, other]


def _law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    own, other = _pair(trial)
    _, r, _ = _pace(trial, own)
    point, K = np.asarray(trial["points"])[own], len(trial["points"])
    if "v" in trial:
        outputs = np.asarray(trial["v"]) @ point
        start = outputs[own] - outputs[other]
        u = np.linspace(start, max(start, 0) + 12, 4000)
        return np.interp(x, (np.exp(u) - np.exp(start) + (K - 1) * (u - start)) / K, u)
    a = np.maximum(np.asarray(trial["w"]) @ point / r, 0)
    vote = (np.eye(K)[own] - 1 / K) / np.sqrt(1 - 1 / K)
    size = np.sqrt(1 - 1 / K)  # r / r_K: the time of the clock is 2 p r_K t
    votes = np.where(a > 0, np.asarray(trial["z"]) @ vote, 0)
    return mode_curve(lambda u: 1 / (1 + np.exp(u) / (K - 1)), r / size, a, votes, x / size)


def _without(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    numbers = {**numbers, "told": numbers["law"]}
    x, gap = _marks(numbers)
    return x, gap, x, np.asarray(numbers["law"])[:, _pair(numbers)[0]]


def _figure(pace: str) -> LawFigure:
    up = "gap between the outputs of\nthe true class and another"
    return LawFigure(_marks, _law, f"time of the class: {pace}", up, xscale="log", without=_without)


@register(
    name="softmax",
    equation="11.1",
    title="One layer and K classes: every gap along Lambert's W",
    meaning="Several classes under the softmax learn like two: the gap between the right class and any other follows one "
    "formula.",
    claim="e^u + (K - 1) u = K p r^2 t + e^u(0) + (K - 1) u(0) for the gap u between the true class and any other",
    formula=(
        r"e^u + (K - 1)\, u = K\, p\, r^2\, t + e^{u_0} + (K - 1)\, u_0, \qquad "
        r"u = f_{\text{true class}} - f_{\text{any other}}"
    ),
    hypotheses=("K classes of one direction each, orthogonal", "one layer, the first gaps of a class all equal"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=96,
    losses=("cross-entropy",),
    rounds=CLASSES,
    drops=(
        Drop(
            "orthogonal inputs (two of them at 60 degrees instead)",
            {**CLASSES[0], "bend": 0.5},
            rest="(11.1) is meant, one gap for all others",
        ),
    ),
    figure=_figure("frequency × norm² × t  (p r² t)"),
)
def softmax(rng: np.random.Generator, classes: int, bend: float = 0.0) -> Trials:
    """K read-outs trained on K classes of different norms and weights, from 0 and from equal gaps of either sign."""
    data, frame, norms = _problem(rng, classes, bend)
    p = np.asarray(data.weights)
    start = rng.normal(size=(BATCH, classes)) * log_uniform(rng, 0.03, 1, (BATCH, 1))
    start[0] = 0
    # V = sum_c (u_c / r_c) (e_c - 1/K) x_c^T/|x_c|: each class has one gap to all others.
    tilt = np.eye(classes) - 1 / classes
    network = SoftmaxOneLayer(np.einsum("bc,ck,cd->bkd", start / norms, tilt, frame))
    times = FRACTIONS * log_uniform(rng, 1, 30) * classes
    return _against(data, network, times, theory.softmax_mode(p, norms, classes=classes, start=start))


@register(
    name="softmax-clock",
    equation="11.2",
    title="Two layers and K classes: a hyperbolic clock again",
    meaning="With two layers and several classes the neurons of a class again turn on one clock.",
    claim="neurons that vote along e_c - 1/K follow the clock of one mode, with the residual 1/(1 + e^u/(K - 1))",
    formula=(
        r"\begin{split} \frac{du}{dt} &= \frac{2\, p\, r_K}{1 + e^u / (K - 1)}\, \sqrt{\kappa^2 + u^2}, \qquad "
        r"u = r_K \sum_j a_j \zeta_j, \\ "
        r"r_K &= \frac{r}{\sqrt{1 - 1/K}}, \qquad \zeta_j = \frac{z_j \cdot (e_c - 1/K)}{\sqrt{1 - 1/K}}, \qquad "
        r"\kappa^2 = \frac{r_K^2}{4} \sum_j (a_j + \zeta_j)^2 \sum_j (a_j - \zeta_j)^2 \end{split}"
    ),
    hypotheses=("K classes of one direction each, orthogonal", "neurons exclusive to one class", "votes along e_c - 1/K"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=_BY_FLOW,
    default_trials=96,
    losses=("cross-entropy",),
    rounds=CLASSES,
    drops=(
        Drop(
            "votes along c = e_c - 1/K (other votes too instead)",
            {**CLASSES[0], "astray": 0.5},
            rest="(11.2) is meant, one gap for all others",
        ),
    ),
    figure=_figure("2 × frequency × norm × t  (2 p r t)"),
)
def softmax_clock(rng: np.random.Generator, classes: int, astray: float = 0.0) -> Trials:
    """All classes at once, with two neurons each, some of which vote against their class at first; `astray`: the size of
    random votes beside that for the own class."""
    data, frame, norms = _problem(rng, classes)
    p = np.asarray(data.weights)
    scale = log_uniform(rng, 0.05, 1.5, (BATCH, 1, 1))
    a = scale * np.abs(rng.normal(size=(BATCH, classes, _NEURONS)))
    # Neurons with zeta < 0 vote against their class at the start, and those with zeta < -a leave it.
    zeta = scale * rng.normal(size=a.shape)
    zeta[0] = a[0]
    votes = (np.eye(classes) - 1 / classes) / np.sqrt(1 - 1 / classes)
    # Every w points along the input of its class and away from all others, so that no rounding makes the neuron see them.
    away = scale[..., None] * np.abs(rng.normal(size=(BATCH, classes, _NEURONS, classes))) * (np.eye(classes)[:, None] - 1)
    w = np.einsum("bcjk,kd->bcjd", a[..., None] * np.eye(classes)[:, None] + away, frame)
    z = zeta[..., None] * votes[:, None] + astray * scale[..., None] * rng.normal(size=(*zeta.shape, classes))
    network = SoftmaxTwoLayer(w.reshape(BATCH, -1, classes), z.reshape(BATCH, -1, classes))
    times = FRACTIONS * log_uniform(rng, 1, 20) * classes
    return _against(data, network, times, theory.softmax_mode(p, norms, a, zeta, classes=classes))
