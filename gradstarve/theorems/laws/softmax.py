"""Several classes: the gap of one layer (11.1) and of two layers (11.2) under softmax cross-entropy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import ClassDataset, SoftmaxOneLayer, SoftmaxTwoLayer
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, TrialLog, draw_gaps
from gradstarve.theorems._register import register
from gradstarve.theorems._sampling import (
    BATCH,
    FLOW_TOLERANCE,
    WHY_FLOW,
    generator,
    generators,
    log_uniform,
    record,
    train_flow,
)
from gradstarve.theorems.laws.modes import FRACTIONS

_BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network, all classes at once"
CLASSES = (3, 10)
_NEURONS = 2  # of each class
Trained = tuple[np.ndarray, np.ndarray, Callable[[int], dict[str, Any]]]


def _problem(rng: np.random.Generator, classes: int, bend: float = 0.0) -> tuple[ClassDataset, np.ndarray, np.ndarray]:
    """K orthogonal inputs of random norms and weights in a random frame, their unit vectors and norms; `bend` leans the
    second input towards the first, by that cosine."""
    frame = np.linalg.qr(rng.normal(size=(classes, classes)))[0]
    frame[1] = bend * frame[0] + np.sqrt(1 - bend**2) * frame[1]
    norms = log_uniform(rng, 0.5, 2, classes)
    weights = rng.dirichlet(np.full(classes, 3.0)) + 0.2 / classes
    return ClassDataset(norms[:, None] * frame, np.arange(classes), weights / weights.sum()), frame, norms


def _gaps(run: Any, law: np.ndarray) -> np.ndarray:
    """How far the trained gaps are from `law` [b, records, K], over all pairs of classes, relative to 1e-3 + law: [b]."""
    found = _apart(np.asarray(run.recorded))  # [b, records, n, K]; point n is of class n
    off = np.abs(found - law[..., None]) / (1e-3 + np.abs(law[..., None]))
    return np.max(np.where(np.eye(found.shape[-1], dtype=bool), 0, off), axis=(1, 2, 3))


def _apart(outputs: np.ndarray) -> np.ndarray:
    """The output of the own class minus each of the outputs [..., n, K], one point a class."""
    return np.diagonal(outputs, axis1=-2, axis2=-1)[..., None] - outputs


def _against(data: ClassDataset, network: Any, times: np.ndarray, law: Any) -> Trained:
    """Train and compare with the gaps of `law`: gaps [b], lost [b], what to record."""
    run, lost = train_flow(data, network, "cross-entropy", times)
    expected = np.moveaxis(np.asarray(law.gap(times)), 1, 2)  # [b, records, K]

    def trial_record(i: int) -> dict[str, Any]:
        return record(data, "cross-entropy", network, i, times=times, law=expected[i], trained=np.asarray(run.recorded)[i])

    return _gaps(run, expected), lost, trial_record


def _check(problem: Callable[[np.random.Generator, int], Trained], key: Any, trials: int) -> Outcome:
    log = TrialLog(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        classes = CLASSES[k % len(CLASSES)]
        gaps, lost, trial_record = problem(rng, classes)
        log.add(gaps, f"K = {classes}", trial_record, lost)
    return log.outcome()


def _uneven(dropped: str, equation: str, trained: Trained) -> Counterexample:
    """The worst of the trained networks, whose gaps are not the one that the law has for them all."""
    gaps, lost, trial_record = trained
    numbers = trial_record(int(np.argmax(np.where(lost, -np.inf, gaps))))
    found = _apart(numbers["trained"])
    law = np.broadcast_to(numbers["law"][..., None], found.shape)
    off = np.where(np.eye(found.shape[-1], dtype=bool), 0, np.abs(found - law) / (1e-3 + np.abs(law)))
    place = k, own, other = tuple(int(j) for j in np.unravel_index(np.argmax(off), off.shape))
    return Counterexample.of(
        dropped,
        Quote(
            f"the gap between the outputs {own} and {other} of class {own}",
            f"at t = {numbers['times'][k]:.4g}",
            law=law[place],
            trained=found[place],
            unit=1e-3 + np.abs(law[place]),
        ),
        FLOW_TOLERANCE,
        numbers,
        rest=f"({equation}) is meant, one gap for all others",
    )


def _one_layer(rng: np.random.Generator, classes: int, bend: float = 0.0) -> Trained:
    """Read-outs from gaps that are level: gaps [b], lost [b], what to record."""
    data, frame, norms = _problem(rng, classes, bend)
    p = np.asarray(data.weights)
    start = rng.normal(size=(BATCH, classes)) * log_uniform(rng, 0.03, 1, (BATCH, 1))
    start[0] = 0
    # V = sum_c (u_c / r_c) (e_c - 1/K) x_c^T/|x_c|: each class has one gap to all others.
    tilt = np.eye(classes) - 1 / classes
    network = SoftmaxOneLayer(np.einsum("bc,ck,cd->bkd", start / norms, tilt, frame))
    times = FRACTIONS * log_uniform(rng, 1, 30) * classes
    return _against(data, network, times, theory.softmax_mode(classes, p, norms, start=start))


def one_layer_without_orthogonality(key: Any) -> Counterexample:
    """Drop "orthogonal inputs": the second leans towards the first."""
    trained = _one_layer(generator(key), CLASSES[0], bend=0.5)
    return _uneven("orthogonal inputs (two of them at 60 degrees instead)", "11.1", trained)


def _two_layers(rng: np.random.Generator, classes: int, astray: float = 0.0) -> Trained:
    """Exclusive neurons voting along c (and off it by `astray`): gaps [b], lost [b], what to record."""
    data, frame, norms = _problem(rng, classes)
    p = np.asarray(data.weights)
    scale = log_uniform(rng, 0.05, 1.5, (BATCH, 1, 1))
    a = scale * np.abs(rng.normal(size=(BATCH, classes, _NEURONS)))
    # Some vote against their class at the start, and leave it if by more than a.
    zeta = scale * rng.normal(size=a.shape)
    zeta[0] = a[0]
    votes = (np.eye(classes) - 1 / classes) / np.sqrt(1 - 1 / classes)
    # Along the input of its class and away from all others, so that no rounding makes it see them.
    away = scale[..., None] * np.abs(rng.normal(size=(BATCH, classes, _NEURONS, classes))) * (np.eye(classes)[:, None] - 1)
    w = np.einsum("bcjk,kd->bcjd", a[..., None] * np.eye(classes)[:, None] + away, frame)
    z = zeta[..., None] * votes[:, None] + astray * scale[..., None] * rng.normal(size=(*zeta.shape, classes))
    network = SoftmaxTwoLayer(w.reshape(BATCH, -1, classes), z.reshape(BATCH, -1, classes))
    times = FRACTIONS * log_uniform(rng, 1, 20) * classes
    return _against(data, network, times, theory.softmax_mode(classes, p, norms, a, zeta))


def two_layers_with_stray_votes(key: Any) -> Counterexample:
    """Drop "votes along c": votes for single other classes too."""
    trained = _two_layers(generator(key), CLASSES[0], astray=0.5)
    return _uneven("votes along c = e_c - 1/K (other votes too instead)", "11.2", trained)


_SCALE = "|gap − law| / (0.001 + |law|), the worst of all pairs of classes"


@register(
    name="softmax",
    equation="11.1",
    title="One layer and K classes: every gap along Lambert's W",
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
    drops=(one_layer_without_orthogonality,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)
def check_one_layer(key: Any, trials: int) -> Outcome:
    """K read-outs trained on K classes of different norms and weights, from 0 and from level gaps of either sign."""
    return _check(_one_layer, key, trials)


@register(
    name="softmax-clock",
    equation="11.2",
    title="Two layers and K classes: a hyperbolic clock again",
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
    drops=(two_layers_with_stray_votes,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, _SCALE),
)
def check_two_layers(key: Any, trials: int) -> Outcome:
    """Two neurons a class, a third of which vote against it at first, on all classes at once."""
    return _check(_two_layers, key, trials)
