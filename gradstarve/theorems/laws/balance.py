"""Balance: |w_j|^2 - z_j^2 is constant along the flow, for any data and any loss (1.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve.problem import TwoLayerReLU
from gradstarve.theorems._drawing import draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._running import FLOW_TOLERANCE, WHY_FLOW, train_descent, train_flow
from gradstarve.theorems._sampling import LOSS_NAMES, any_data, cone_data, generator, generators, networks, record


def invariant(w: np.ndarray, z: np.ndarray) -> np.ndarray:
    """|w_j|^2 - z_j^2 of every neuron (1.3): w [*batch, h, d], z [*batch, h] -> [*batch, h]."""
    return np.sum(w**2, axis=-1) - z**2


def _drift(before: TwoLayerReLU, after: TwoLayerReLU) -> np.ndarray:
    """The largest change of the invariant in units of the neurons' squared weights, per network [b]."""
    (w0, z0), (w1, z1) = ((np.asarray(net.w), np.asarray(net.z)) for net in (before, after))
    size = np.sum(w0**2, -1) + z0**2 + np.sum(w1**2, -1) + z1**2
    change = np.abs(invariant(w1, z1) - invariant(w0, z0))
    return np.max(change / np.where(size > 0, size, 1), axis=-1)


def check_balance(key: Any, trials: int) -> Outcome:
    """Flow of full networks on cones and on arbitrary data; no neuron is asked to be exclusive or of the right sign."""
    tally = Tally(FLOW_TOLERANCE)
    for k, rng in enumerate(generators(key, trials)):
        loss = LOSS_NAMES[k % len(LOSS_NAMES)]
        separable = (k // len(LOSS_NAMES)) % 2 == 0
        data = cone_data(rng) if separable else any_data(rng)
        network = TwoLayerReLU(*networks(rng))
        r = float(np.linalg.norm(np.asarray(data.points), axis=-1).mean())
        times = np.array([0.1, 0.3, 0.6, 1.0]) * (5 if separable else 0.5) / r
        run, lost = train_flow(data, network, loss, times)
        tally.add(
            _drift(run.initial, run.final),
            loss,
            lambda i, d=data, n=network, s=loss, t=times: record(d, s, n, i, times=t),
            lost,
        )
    return tally.outcome()


def without_flow(key: Any) -> Counterexample:
    """Drop "gradient flow": descent with a finite step moves |w|^2 - z^2 by step_size^2 (|dw|^2 - dz^2) a step."""
    rng = generator(key)
    data = cone_data(rng)
    network = TwoLayerReLU(*networks(rng, low=0.3))
    step_size, steps = 0.1, 100
    run = train_descent(data, network, "cross-entropy", step_size, steps, steps)
    drift = _drift(run.initial, run.final)
    i = int(np.argmax(drift))
    when = f"after {steps} steps of size {step_size} with cross-entropy"
    return Counterexample.of(
        "gradient flow (descent with a finite step instead)",
        Quote("the change of |w|^2 - z^2 of a neuron over its squared weights", when, 0.0, drift[i]),
        FLOW_TOLERANCE,
        record(data, "cross-entropy", network, i, step_size=step_size, steps=steps),
    )


BALANCE = Theorem(
    name="balance",
    equation="1.3",
    title="Balance of the two layers",
    claim="|w_j|^2 - z_j^2 of every neuron is constant along the gradient flow, for any data and any loss",
    formula=r"\frac{d}{dt} \left( \left| w_j \right|^2 - z_j^2 \right) = 0",
    hypotheses=("gradient flow",),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with="simulate_flow: adaptive Runge-Kutta on all weights",
    default_trials=192,
    check=check_balance,
    necessity=(without_flow,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "drift of |w|² − z² (relative to |w|² + z²)"),
)
