"""Task switches (21.1): label flips and other frequencies, phase after phase."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, GradientDescent, Mode, TwoLayerReLU
from gradstarve.theorems._entry import COLOURS, EXCLUSIVE, ONE_RAY, SEPARABLE, Outcome
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    ExclusiveInit,
    exclusive_start,
    law_gaps,
    log_uniform,
    record,
    train,
    two_rays,
)
from gradstarve.theorems.laws.descent import DESCENT_TOLERANCE, step_sizes

_STEPS = 240
_NEURONS = 200
_TASKS = 3
_NEAR = 0.02  # relative distance from the border below which steps of descent differ from the flow


def _phases(rng: np.random.Generator, data: Dataset, parts: int) -> list[tuple[int | None, Dataset]]:
    """Phases, each with the labels of the one before flipped, and with new weights."""
    ends = [*(np.arange(1, parts) * (_STEPS // parts)), None]
    weights = [np.asarray(data.weights)] + [w / w.sum() for w in rng.uniform(0.2, 1, (parts - 1, data.size))]
    labels = [np.asarray(data.labels) * (-1) ** k for k in range(parts)]
    pairs = zip(ends, labels, weights, strict=True)
    return [(None if end is None else int(end), Dataset(data.points, y, q)) for end, y, q in pairs]


def _off_both_manifolds(start: ExclusiveInit) -> ExclusiveInit:
    """The neurons moved off the manifolds z = -a and z = a, which a flip exchanges; after small starts they are close."""
    size = np.sqrt(np.sum(start.a**2 + start.zeta**2, axis=-1, keepdims=True))
    larger = np.maximum(1, 0.2 / np.where(size > 0, size, 1))
    near = np.abs(np.abs(start.zeta) - start.a) < 0.05 * start.a
    return ExclusiveInit(start.home, larger * start.a, larger * np.where(near, 0.9 * start.zeta, start.zeta))


def _through_phases(rng: np.random.Generator, loss: str, cosine: float) -> Trials:
    geometry = two_rays(rng, cosine)
    start = _off_both_manifolds(exclusive_start(rng, wrong_signs=0.5, low=0.1, high=0.7))
    network = start.network(rng, geometry)
    phases: Any = _phases(rng, geometry.data, 3)
    dynamics = GradientDescent(step_sizes(rng, geometry, start, loss) * rng.uniform(0.2, 0.5))
    run = train(phases, network, loss, dynamics, _STEPS, _STEPS // 4)
    gaps, sides = law_gaps(phases, network, loss, run, start.scale(geometry), dynamics)
    later = {"ends": [end for end, _ in phases], "later_weights": [np.asarray(data.weights) for _, data in phases[1:]]}

    def trial_record(i: int) -> dict[str, Any]:
        return record(geometry.data, loss, network, i, step_size=np.asarray(dynamics.step_size)[i], **later, **sides(i))

    return Trials(gaps, trial_record, group=f"{loss}, {'antipodal' if cosine < 0 else 'orthogonal'}")


def _neurons(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian a > 0 and z of many small neurons, [b, h]."""
    scale = log_uniform(rng, 0.3, 1, (BATCH, 1)) / np.sqrt(_NEURONS) / 10
    ratio = log_uniform(rng, 0.5, 2, (BATCH, 1))
    return scale * np.abs(rng.normal(size=(BATCH, _NEURONS))), scale * ratio * rng.normal(size=(BATCH, _NEURONS))


def _switched(rng: np.random.Generator, others: list[list[float]]) -> tuple[np.ndarray, np.ndarray, Any, Any, Any]:
    """(a, z) of the neurons of a class whose labels flip again and again, its law and its training, and the ends of phases.

    `others`: further points, with the other label.
    """
    a, z = _neurons(rng)
    steps = (np.array([60, 75, 90]) * rng.uniform(0.7, 1.3)).astype(int)
    ends = np.cumsum(steps)
    points = np.array([[1.0, 0.0], *others])
    size, parts = 0.1, []
    for k, end in enumerate(ends):
        labels = np.array([1.0, *[-1.0] * len(others)]) * (-1) ** k
        parts.append((int(end), Dataset(points, labels)))
    network = TwoLayerReLU(np.stack([a, np.zeros_like(a)], axis=-1), z)
    run = train(parts, network, "cross-entropy", GradientDescent(size), int(ends[-1]), int(ends[-1]), record_networks=True)
    frequency = 1 / len(points)
    law = theory.solve_mode(
        Mode(frequency, 1.0, a, z),
        "cross-entropy",
        phases=[(float(size * end), frequency * (-1) ** k) for k, end in enumerate(ends)],
    )
    return a, z, law, run, ends


def _alive(rng: np.random.Generator) -> Trials:
    """The neurons alive after three tasks, trained by small steps; neurons next to the border are left out."""
    a, z, law, run, ends = _switched(rng, [])
    low, high = (np.asarray(s)[:, None] for s in law.clock_range())
    said = np.asarray(theory.still_alive(a, z, low, high))
    alive = np.asarray(run.networks.w)[:, -1, :, 0] > 0
    tilt = z / a
    near = np.abs(np.abs(tilt) * np.where(tilt < 0, np.tanh(high), np.tanh(-low)) - 1) < _NEAR
    wrong = ((said != alive) & ~near).mean(axis=-1)
    share = np.asarray(theory.alive_share(low[:, 0], high[:, 0], scale_a=1.0, scale_z=_ratio(a, z)))
    off = np.abs(alive.mean(axis=-1) - share) / np.sqrt(share * (1 - share) / _NEURONS) / 5
    numbers = {"alive": alive.mean(axis=-1), "law": share, "lowest": low[:, 0], "highest": high[:, 0]}

    def trial_record(i: int) -> dict[str, Any]:
        own = {name: float(values[i]) for name, values in numbers.items()}
        return {"a": a[i], "z": z[i], "ends": ends, **own}

    gaps = np.where(wrong > 0, 1.0, np.where(off > 1, off, 0.0))
    return Trials(gaps, trial_record, group="who is alive")


def _ratio(a: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.sqrt((z**2).mean(axis=-1) / (a**2).mean(axis=-1))


def _come_back(rng: np.random.Generator) -> Trials:
    """Antipodal classes: a neuron that leaves one joins the other, and comes back when the labels flip."""
    a, _, law, run, ends = _switched(rng, [[-1.0, 0.0]])
    low, high = (np.asarray(s) for s in law.clock_range())
    share = np.asarray(theory.alive_share(low, high))
    w = np.asarray(run.networks.w)[:, -1]
    found = (w[..., 0] != 0).mean(axis=-1)
    network = TwoLayerReLU(np.stack([a, np.zeros_like(a)], axis=-1), np.asarray(run.initial.z))
    data = Dataset([[1.0, 0.0], [-1.0, 0.0]], [1.0, -1.0])
    numbers = recorded(data, "cross-entropy", network, {"law": share, "trained": found}, ends=ends)
    texts: dict[str, Any] = {"quantity": "the share of neurons that see a class", "when": f"after {_TASKS} tasks"}
    texts["rest"] = "neurons that leave a class join the other"
    return compared(found, share, np.ones_like(share), numbers, np.zeros(share.shape, bool), **texts)


def _draw(outcome: Outcome, ax: Any) -> None:
    """The share of neurons alive against the range of the clock: the law as a line, trained networks as markers."""
    found = [outcome.instance(int(i)) for i in np.flatnonzero(outcome.groups == "who is alive")]
    law, alive = (np.array([one[name] for one in found]) for name in ("law", "alive"))
    ends = [0.95 * min(law.min(), alive.min()), 1.05 * max(law.max(), alive.max())]
    ax.plot(ends, ends, color="black", linewidth=1.2, label="law (21.1)")
    error = 2 * np.sqrt(law * (1 - law) / _NEURONS)
    name = f"trained: {_NEURONS} neurons through {_TASKS} tasks, two standard errors"
    ax.errorbar(law, alive, error, fmt="o", color=COLOURS[0], markersize=4, linewidth=1, label=name)
    ax.set_xlabel("share still alive, by the range of the clock")
    ax.set_ylabel("share still alive")
    ax.legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2)


@register(
    name="task-switches",
    equation="21.1",
    title="Task switches: a flip turns the clock of a class round",
    meaning="When labels flip again and again, neurons die of the first task and of the first flip, and of no later one.",
    claim="the law goes on through label flips and other frequencies, phase after phase; a neuron of a class is alive "
    "after them iff its read-out is between two multiples of a, given by the range of the clock: of Gaussian neurons three "
    "quarters survive a long task, two thirds of these the first flip, and all of these every later one",
    formula=(
        r"{-\frac{a}{\tanh(s_{\max})}} < z < \frac{a}{\tanh|s_{\min}|}, \qquad \text{share alive} = \frac{1}{\pi} \left[ "
        r"\arctan \left( \frac{\sigma_a}{\sigma_z} \coth(s_{\max}) \right) + "
        r"\arctan \left( \frac{\sigma_a}{\sigma_z} \coth|s_{\min}| \right) \right]"
    ),
    hypotheses=(
        SEPARABLE,
        ONE_RAY,
        EXCLUSIVE,
        "who is alive: classes that are not antipodal, whose neurons come back",
        "no neuron near the manifolds z = -a and z = a, which a flip exchanges: rounding decides there",
        "no momentum, which carries velocities into the next phase",
    ),
    tolerance=DESCENT_TOLERANCE,
    why_tolerance=(
        "the logits: accumulated rounding of 240 steps, made larger by up to 1e4 where a flip leaves neurons next to the "
        "stable manifold; who is alive: no neuron but those within 2 % of the border may be wrong, and the share is within "
        "five standard errors"
    ),
    checked_with="simulate: gradient descent on all weights by automatic differentiation, through all phases",
    default_trials=24 * 3,
    quick_trials=24 * 2,
    single_tolerance=None,
    dynamics=("flow", "descent"),
    rounds=(
        {"kind": "alive"},
        {"kind": "phases", "loss": "cross-entropy", "cosine": -1.0},
        {"kind": "phases", "loss": "hinge", "cosine": 0.0},
    ),
    details={"steps": _STEPS},
    drops=(Drop("classes that are not antipodal (antipodal ones instead)", _come_back),),
    figure=_draw,
)
def task_switches(rng: np.random.Generator, kind: str, loss: str = "", cosine: float = 0.0) -> Trials:
    """Flips and re-weighting on antipodal and orthogonal classes; many small neurons of one class through three tasks."""
    return _alive(rng) if kind == "alive" else _through_phases(rng, loss, cosine)
