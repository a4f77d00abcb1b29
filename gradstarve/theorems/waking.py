"""Wrong-sign neurons between two classes at an obtuse angle: dead for ever, or awake on the other class (4.4)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import TwoLayerReLU
from gradstarve.theorems.drawing import COLOURS
from gradstarve.theorems.entry import Counterexample, Outcome, Tally, Theorem
from gradstarve.theorems.hypotheses import EVERLASTING, EXCLUSIVE, ONE_RAY
from gradstarve.theorems.mode import FRACTIONS
from gradstarve.theorems.running import BY_FLOW, train_flow
from gradstarve.theorems.sampling import (
    BATCH,
    DIM,
    WIDTH,
    Geometry,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)


def _leavers(
    rng: np.random.Generator, geometry: Geometry, cosine: float, wrong: tuple[float, float] = (1.02, 3.0)
) -> tuple[TwoLayerReLU, np.ndarray, np.ndarray, np.ndarray]:
    """Networks of neurons exclusive to class -, with z = beta times a number in `wrong`: (network, alpha, beta, used).

    alpha = w.xh_+ is on both sides of -|cosine| beta, a third of the time within 0.2 % to 10 % of it: closer, and the
    integrator would decide.
    """
    plus, minus = geometry.axes
    shape = (BATCH, WIDTH)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (BATCH, 1))
    beta = log_uniform(rng, 1e-2, 0.5, (BATCH, 1)) * log_uniform(rng, 0.5, 2, shape) * used
    near = 1 + log_uniform(rng, 2e-3, 0.1, shape) * rng.choice([-1, 1], shape)
    far = log_uniform(rng, 0.1, 10, shape)
    alpha = -abs(cosine) * beta * np.where(rng.uniform(size=shape) < 1 / 3, near, far)
    coordinates = np.stack([alpha, beta], axis=-1) @ np.linalg.pinv(geometry.axes).T
    noise = rng.normal(size=(*shape, DIM))
    noise -= np.einsum("bhd,kd,ke->bhe", noise, *[np.linalg.qr(np.stack([plus, minus]).T)[0].T] * 2)
    w = coordinates + noise * beta[..., None] * rng.uniform(0, 1, (*shape, 1))
    return TwoLayerReLU(w, beta * log_uniform(rng, *wrong, shape)), alpha, beta, used


def _followed(geometry: Geometry, network: TwoLayerReLU, largest: float = 60.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(now active on class +, now active on class -, lost), after a time in which every clock has run far."""
    times = 2 * FRACTIONS * largest / geometry.rates.min()
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    final: Any = run.final
    along = np.asarray(final.w) @ geometry.axes.T
    return along[..., 0] > 0, along[..., 1] > 0, lost


def check_waking(key: Any, trials: int) -> Outcome:
    """The flow of networks of leavers at random obtuse angles; one trial is one neuron."""
    tally = Tally(0.5)
    seen: list[np.ndarray] = []
    for k, rng in enumerate(generators(key, trials)):
        cosine = -0.05 - 0.9 * (k % 8 + float(rng.uniform())) / 8
        geometry = two_rays(rng, cosine)
        network, alpha, beta, used = _leavers(rng, geometry, cosine)
        plus, minus, lost = _followed(geometry, network)
        dead = np.asarray(theory.dies_for_ever(alpha, beta, cosine))
        wrong = np.where(dead, plus | minus, ~plus)
        undecided = (minus & ~plus) | lost[:, None]

        def instance(i, g=geometry, n=network, s=used, d=dead, p=plus, m=minus):
            b, j = (int(v) for v in np.argwhere(s)[i])
            more = {"neuron": j, "on_plus": bool(p[b, j]), "on_minus": bool(m[b, j]), "dies_by_law": bool(d[b, j])}
            return record(g.data, "cross-entropy", n, b, **more)

        tally.add(wrong[used], "cross-entropy", instance, undecided[used])
        fate = np.where(plus, 1.0, np.where(minus, 0.5, 0.0))
        seen.append(np.stack([np.full(fate.shape, cosine), alpha / np.where(used, beta, 1), fate], axis=-1)[used])
    return tally.outcome(points=np.concatenate(seen))


def _counterexample(
    key: Any, dropped: str, cosine: float, wrong: tuple[float, float], told: str, what: str
) -> Counterexample:
    rng = generator(key)
    geometry = two_rays(rng, cosine)
    network, alpha, beta, used = _leavers(rng, geometry, cosine, wrong)
    plus, minus, lost = _followed(geometry, network)
    dead = np.asarray(theory.dies_for_ever(alpha, beta, -abs(cosine)))
    fails = used & ~lost[:, None] & np.where(dead, plus | minus, ~plus & ~minus)
    i, j = (int(v) for v in (np.argwhere(fails)[0] if fails.any() else (0, 0)))
    return Counterexample(
        dropped,
        f"{int(fails.sum())} of {int(used.sum())} neurons {what}, one of them with w.xh_+ = {alpha[i, j]:.3g}, "
        f"w.xh_- = {beta[i, j]:.3g}, z = {float(network.z[i, j]):.3g}, which the rule says {told}",
        float(fails.any()),
        0.5,
        record(geometry.data, "cross-entropy", network, i, neuron=j),
    )


def waking_without_wrong_sign(key: Any) -> Counterexample:
    """Drop "z > beta": the read-out is of the wrong sign but too small, and the neuron learns its class all the same."""
    return _counterexample(
        key,
        "the neuron leaves its class (0 < z < beta instead)",
        -0.5,
        (0.1, 0.9),
        "dies",
        "stay on class - although alpha + |c| beta < 0",
    )


def waking_without_obtuse_angle(key: Any) -> Counterexample:
    """Drop "obtuse": at 60 degrees leaving one class moves a neuron away from the other one too."""
    return _counterexample(
        key,
        "classes at an obtuse angle (60 degrees instead)",
        0.5,
        (1.02, 3.0),
        "wakes",
        "are active on no point at the end although alpha + |c| beta > 0",
    )


def draw_waking(outcome: Outcome, ax: Any) -> None:
    """alpha/beta of every neuron over the cosine of the angle, what became of it, and the line of the law."""
    points = outcome.extra["points"]
    for value, name, colour in ((1.0, "awake on class + (trained)", COLOURS[0]), (0.0, "dead (trained)", COLOURS[1])):
        mine = points[:, 2] == value
        ax.scatter(points[mine, 0], -points[mine, 1], s=9, color=colour, linewidths=0, label=name)
    line = np.linspace(-1, 0, 50)
    ax.plot(line, -line, color="black", linestyle="--", linewidth=1.2, label="law: α + |c| β = 0")
    ax.set_xlim(-1, 0)
    ax.set_ylim(0, 1.5)
    ax.set_xlabel("c, cosine of the angle between the classes")
    ax.set_ylabel("−α / β at the start")
    ax.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=8, loc="upper right")


WAKING = Theorem(
    name="waking",
    equation="4.4",
    title="Some of the neurons that leave a class wake on the other one",
    claim="a neuron that leaves class - at an obtuse angle is dead for ever iff alpha + |c| beta < 0, else it wakes on "
    "class +",
    hypotheses=(
        ONE_RAY,
        "an angle with cosine c in (-1, 0) between the classes",
        EXCLUSIVE,
        "the neuron leaves class -: z > beta = w.xh_- > 0 >= alpha = w.xh_+",
        EVERLASTING,
    ),
    tolerance=0.5,
    why_tolerance=(
        "yes or no: 0 agrees, 1 contradicts; a third of the neurons are within 0.2 % to 10 % of the line, and "
        "the integrator's error is far below that"
    ),
    checked_with=BY_FLOW,
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    check=check_waking,
    necessity=(waking_without_wrong_sign, waking_without_obtuse_angle),
    figure=draw_waking,
)
