"""Speed: the time to a confidence (6.1), hinge against cross-entropy (6.2), and the tails of the error (6.3)."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import DeepReLU, Mode, TwoLayerReLU
from gradstarve.theorems._drawing import COLOURS, draw_gaps
from gradstarve.theorems._entry import Counterexample, Outcome, Quote, Tally, Theorem
from gradstarve.theorems._hypotheses import BALANCED, ONE_RAY, STAYING, of_losses
from gradstarve.theorems._late import BY_LATE, train_late
from gradstarve.theorems._running import BY_FLOW, FLOW_TOLERANCE, WHY_FLOW, train_flow
from gradstarve.theorems._sampling import (
    BATCH,
    WIDTH,
    Geometry,
    Start,
    exclusive_start,
    generator,
    generators,
    log_uniform,
    record,
    two_rays,
)
from gradstarve.theorems.laws.modes import flow_times, invariants


def check_confidence(key: Any, trials: int) -> Outcome:
    """The errors that training reached at four times, and when the law says they are reached."""
    tally = Tally(FLOW_TOLERANCE)
    for rng in generators(key, trials):
        geometry = two_rays(rng, 0.0)
        start = exclusive_start(rng, doubters=0.3)
        start = Start(np.abs(start.home), start.a, start.zeta)  # class + alone: every trial has its curve
        network = start.network(rng, geometry)
        times = flow_times(rng, geometry)
        run, lost = train_flow(geometry.data, network, "cross-entropy", times)
        u = np.asarray(run.recorded)[..., 0]
        norm, rate = geometry.norms[0], geometry.rates[0]
        a, zeta = start.mode(1)
        kappa, u0 = invariants(norm, a, zeta)[0][:, None], norm * np.sum(a * zeta, axis=-1)[:, None]
        # An error is known to 1e-16, next to 1/2 and to 1 too.
        clear = (u > u0) & (u > -5) & (np.hypot(kappa, u) > 1e-6) & ~lost[:, None]
        error = 1 / (1 + np.exp(np.where(clear, u, u0 + 0.1)))
        law = np.asarray(theory.time_to_confidence("cross-entropy", error, geometry.frequencies[0], norm, u0, kappa))
        # In units of the clock's angle: time is long where the clock is slow.
        gaps = np.where(clear, np.abs(law - times) * rate * error, 0)
        # And the logit of that error is the one that was trained to, in the same units.
        there = np.asarray(theory.confident_logit(error))
        gaps = np.max(np.maximum(gaps, np.where(clear, np.abs(there - u) / np.hypot(kappa, u), 0)), axis=-1)
        tally.add(
            gaps,
            "cross-entropy",
            lambda i, g=geometry, n=network, t=times, f=u, v=law: record(
                g.data, "cross-entropy", n, i, times=t, trained=f[i], law=v[i]
            ),
            lost,
        )
    return tally.outcome()


def confidence_without_right_sign(key: Any) -> Counterexample:
    """Drop "every neuron stays": some leave the class on the way, which the invariants of the start do not know."""
    rng = generator(key)
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, wrong_signs=0.5, low=0.2, high=1.0).usual()
    # Next to the border they leave late, after the error that is asked for.
    start = Start(np.abs(start.home), start.a, np.where(start.zeta < -start.a, 1.5, 1) * start.zeta)
    network = start.network(rng, geometry)
    # By the clock of class + itself, however rare and short it is beside the other one.
    times = flow_times(rng, geometry, 10.0, 20.0) * geometry.pace / geometry.rates[0]
    run, lost = train_flow(geometry.data, network, "cross-entropy", times)
    u, norm = np.asarray(run.recorded)[:, -1, 0], geometry.norms[0]
    a, zeta = start.mode(1)
    kappa, u0 = invariants(norm, a, zeta)[0], norm * np.sum(a * zeta, axis=-1)
    learnt = (u > 1) & (u > u0) & ~lost
    error = 1 / (1 + np.exp(np.where(learnt, u, np.maximum(u0, 0) + 1)))
    law = np.asarray(theory.time_to_confidence("cross-entropy", error, geometry.frequencies[0], norm, u0, kappa))
    gap = np.where(learnt, np.abs(law - times[-1]) * geometry.rates[0] * error, 0)
    i = int(np.argmax(gap))
    what, unit = f"the time at which the error is {error[i]:.4g}", 1 / (geometry.rates[0] * error[i])
    return Counterexample.of(
        "every neuron stays (some with z < -a instead)",
        Quote(what, "with neurons that leave,", law[i], times[-1], unit),
        FLOW_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, times=times, error=error[i], law=law[i]),
    )


def _advantage(rng: Any, unbalance: float = 0.0) -> tuple[np.ndarray, np.ndarray, Any]:
    """One start trained with both losses up to u = 1: relative errors of the two times and of those of the two curves [b],
    lost [b], what to record."""
    geometry = two_rays(rng, 0.0)
    norm, rate = geometry.norms[0], geometry.rates[0]
    u0 = log_uniform(rng, 1e-10, 0.5)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (BATCH, 1))
    a = log_uniform(rng, 0.2, 3, (BATCH, WIDTH)) * used
    a *= np.sqrt(u0 / norm / np.sum(a**2, axis=-1, keepdims=True))
    start = Start(used.astype(float), a * np.exp(unbalance), a * np.exp(-unbalance))
    network = start.network(rng, geometry)
    hinge = np.log(1 / u0) / rate
    ratio = float(theory.hinge_advantage(u0))
    entropy = ratio * hinge
    # The curves themselves, at u = 1.
    mode = Mode(geometry.frequencies[0], norm, *start.mode(1))
    first, second = (np.asarray(theory.solve_mode(mode, loss).time_to_logit(1.0)) for loss in ("hinge", "cross-entropy"))
    curves = np.maximum(np.abs(first / hinge - 1), np.abs(second / first / ratio - 1))
    # Hinge right before it stops, and after; cross-entropy as it passes 1, where u' = 2 p r u / (1 + e^u).
    run, lost = train_flow(geometry.data, network, "hinge", hinge * np.array([0.5, 0.9, 0.98, 1.02]))
    stopped = np.asarray(run.recorded)[..., 0]
    run, also_lost = train_flow(geometry.data, network, "cross-entropy", entropy * np.array([0.5, 0.9, 0.98, 1.0]))
    passing = np.asarray(run.recorded)[..., 0]
    late = np.abs(np.log(np.maximum(stopped[:, 2], 1e-300)) / np.log(u0) - 0.02)
    late = np.where(np.abs(stopped[:, 3] - 1) > FLOW_TOLERANCE, np.inf, late)
    gaps = np.maximum(np.maximum(late, curves), np.abs(passing[:, 3] - 1) * (1 + np.e) / rate / entropy)

    def sides(i: int) -> dict[str, Any]:
        seen = {"hinge_time": hinge, "hinge": stopped[i], "cross_entropy_time": entropy, "cross_entropy": passing[i]}
        return record(geometry.data, "hinge", network, i, start=u0, by_the_law=seen)

    return gaps, lost | also_lost, sides


def check_advantage(key: Any, trials: int) -> Outcome:
    """Balanced starts from 1e-10 to 0.5, each trained with both losses."""
    tally = Tally(FLOW_TOLERANCE)
    for rng in generators(key, trials):
        gaps, lost, sides = _advantage(rng)
        tally.add(gaps, "both losses", sides, lost)
    return tally.outcome()


def advantage_without_balance(key: Any) -> Counterexample:
    """Drop "balanced": first weights e^2 times larger than the read-outs, at the same first logit."""
    gaps, lost, sides = _advantage(generator(key), unbalance=1.0)
    i = int(np.argmax(np.where(lost, -np.inf, np.where(np.isfinite(gaps), gaps, 0))))
    numbers = sides(i)
    seen = numbers["by_the_law"]
    when = f"from {numbers['start']:.3g}, at t = {seen['cross_entropy_time']:.4g}, the time of (6.2),"
    return Counterexample.of(
        "the start is balanced (a = e^2 z instead, with the same first logit)",
        Quote("the logit with cross-entropy", when, 1.0, seen["cross_entropy"][3]),
        FLOW_TOLERANCE,
        numbers,
    )


_DEPTHS = (2, 1, 3, 5)
_TAIL_TOLERANCE = 0.5
_LATE = 20.0  # the logits from which on a run counts


def far_network(rng: np.random.Generator, geometry: Geometry, layers: int) -> Any:
    """Networks [b] of N layers that see class + only: any neurons for two layers, else one path of any weights."""
    plus, minus = geometry.axes
    if layers == 2:
        start = exclusive_start(rng, doubters=0.3, low=0.03)
        # kappa^2 / (2 log(1/e)) is one of the next terms: no kappa above 1.
        shrink = 1 / np.sqrt(np.maximum(start.scale(geometry), 1))[:, None]
        return Start(np.abs(start.home), start.a * shrink, start.zeta * shrink).network(rng, geometry)
    weights = log_uniform(rng, 0.3, 1.2, (BATCH, layers)) / geometry.norms[0] ** (1 / layers)
    return DeepReLU.chain(weights, plus - (0.3 * minus if layers > 1 else 0))


def check_tails(key: Any, trials: int) -> Outcome:
    """(e / e_tail - 1) log(1/e) of trained networks, which (6.3) says is 2 - 2/N up to a multiple of 1/log(1/e)."""
    tally = Tally(_TAIL_TOLERANCE)
    seen: list[np.ndarray] = []
    for k, rng in enumerate(generators(key, trials)):
        layers = _DEPTHS[k % len(_DEPTHS)]
        geometry = two_rays(rng, 0.0)
        network = far_network(rng, geometry, layers)
        u, found, times, tail = _next_order(geometry, network, layers)
        late = u > _LATE
        gaps = np.max(np.where(late, np.abs(found - (2 - 2 / layers)), 0), axis=-1)
        seen += [np.stack([np.full(late.sum(), layers), u[late], found[late]], axis=-1)]
        tally.add(
            gaps,
            f"{layers} layer{'s' * (layers > 1)}",
            lambda i, g=geometry, n=network, f=u, t=times, v=tail: record(
                g.data, "cross-entropy", n, i, times=t, trained=f[i], error_by_law=v
            ),
            ~late[:, -1],
        )
    return tally.outcome(points=np.concatenate(seen))


def _next_order(geometry: Geometry, network: Any, layers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(u, (e / e_tail - 1) log(1/e)) of trained networks, [b, 4] each, at four times, [4], and e_tail there, [4]."""
    p, norm = float(geometry.frequencies[0]), float(geometry.norms[0])
    run, times = train_late(geometry.data, network, "cross-entropy", 15 / (p * norm ** (2 / layers)))
    u = np.asarray(run.recorded)[:, 1:, 0]
    tail = np.asarray(theory.error_tail("cross-entropy", times[1:], p, norm, layers=layers))
    return u, (1 / (1 + np.exp(u)) / tail - 1) * u, times[1:], tail


def tails_without_small_kappa(key: Any) -> Counterexample:
    """Drop "kappa below 1": the next terms, kappa^2/(2 log(1/e)) among them, are not small yet."""
    rng = generator(key)
    geometry = two_rays(rng, 0.0)
    network = far_network(rng, geometry, 2)
    # kappa grows with the square of the weights; where it is next to 0 they would have to be large.
    kappa = invariants(geometry.norms[0], np.maximum(network.w @ geometry.axes[0], 0), network.z)[0]
    factor = np.sqrt(16 / np.maximum(kappa, 0.16))[:, None]
    network = TwoLayerReLU(factor[..., None] * np.asarray(network.w), factor * np.asarray(network.z))
    u, found, times, tail = _next_order(geometry, network, 2)
    gaps = np.where(u > _LATE, np.abs(found - 1), -np.inf)
    i, k = (int(v) for v in np.unravel_index(np.argmax(gaps), gaps.shape))
    return Counterexample.of(
        "kappa below 1 (up to 16 instead)",
        Quote("(e / e_tail - 1) log(1/e)", f"at t = {times[k]:.3g}, log(1/e) = {u[i, k]:.4g},", 1.0, found[i, k]),
        _TAIL_TOLERANCE,
        record(geometry.data, "cross-entropy", network, i, times=times, trained=u[i], error_by_law=tail),
    )


def tails_of_no_learning(key: Any) -> Counterexample:
    """Drop "the class is learnt": every neuron has left it."""
    rng = generator(key)
    geometry = two_rays(rng, 0.0)
    start = exclusive_start(rng, low=0.03, high=0.3)
    start = Start(np.abs(start.home), start.a, -start.a - np.abs(start.zeta))
    network = start.network(rng, geometry)
    u, _, times, tail = _next_order(geometry, network, 2)
    return Counterexample.of(
        "the class is learnt (every neuron leaves it instead)",
        Quote("the error", f"at t = {times[-1]:.3g}", tail[-1], 1 / (1 + np.exp(u[0, -1])), tail[-1]),
        _TAIL_TOLERANCE,
        record(geometry.data, "cross-entropy", network, 0, times=times, trained=u[0], error_by_law=tail),
    )


def draw_tails(outcome: Outcome, ax: Any) -> None:
    """(e / e_tail - 1) log(1/e) against log(1/e) for each depth, and the limits 2 - 2/N."""
    points = outcome.extra["points"]
    for colour, layers in zip(COLOURS, sorted(_DEPTHS), strict=False):
        mine = points[points[:, 0] == layers]
        name = f"{layers} layer{'s' * (layers > 1)}"
        ax.scatter(mine[:, 1], mine[:, 2], s=8, color=colour, label=f"{name}, trained", linewidths=0)
        ax.axhline(2 - 2 / layers, color=colour, linewidth=1, linestyle="--")
    ax.plot([], [], color="black", linestyle="--", linewidth=1, label="limit 2 − 2/N")
    ax.set_xlabel("log(1/e), grows like log t")
    ax.set_ylabel("(e / e_tail − 1) · log(1/e)")
    ax.legend(frameon=False, fontsize=8, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.16), markerscale=2)


CONFIDENCE = Theorem(
    name="confidence",
    equation="6.1",
    title="The time to a confidence goes like 1/(p r)",
    claim="an error e is reached at log((1-e)/e)'s time of the clock from u0 at kappa, over 2 p r",
    formula=(
        r"t_e = \frac{1}{2\, p\, r} \int_{u_0}^{\,u_e} \frac{dv}{g(v)\, \sqrt{\kappa^2 + v^2}}, \qquad "
        r"u_e = \log \left( \frac{1 - e}{e} \right)"
    ),
    hypotheses=(
        ONE_RAY,
        STAYING,
        of_losses("cross-entropy, which gets to every error (hinge loss, up to its margin: (3.6))", "cross-entropy"),
    ),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=96,
    check=check_confidence,
    necessity=(confidence_without_right_sign,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "error of 2 p r t, in units of the clock's angle"),
)

ADVANTAGE = Theorem(
    name="hinge-advantage",
    equation="6.2",
    title="Hinge loss gets to the margin in about half of the time",
    claim="from a balanced u0 cross-entropy takes [log(1/u0) + Ei(1) - Ei(u0)] / log(1/u0) times as long to u = 1 as hinge",
    formula=(
        r"\frac{t_1^{\text{cross-entropy}}}{t_1^{\text{hinge}}} = \frac{\log(1/u_0) + \text{Ei}(1) - "
        r"\text{Ei}(u_0)}{\log(1/u_0)}, \qquad u(t_1) = 1"
    ),
    hypotheses=(ONE_RAY, BALANCED, "0 < u0 < 1"),
    tolerance=FLOW_TOLERANCE,
    why_tolerance=WHY_FLOW,
    checked_with=BY_FLOW,
    default_trials=96,
    check=check_advantage,
    necessity=(advantage_without_balance,),
    figure=lambda outcome, ax: draw_gaps(outcome, ax, "relative error of the time to u = 1"),
    single_tolerance=None,
)

TAILS = Theorem(
    name="tails",
    equation="6.3",
    title="Late errors fall like 1/(T (log T)^(2 - 2/N))",
    claim="with cross-entropy and T = N p r^(2/N) t, e T log(1/e)^(2-2/N) = 1 + (2 - 2/N)/log(1/e) + ..., from any start",
    formula=r"e\, T\, L^{2 - 2/N} = 1 + \frac{2 - 2/N}{L} + O(L^{-2}), \qquad L = \log(1/e), \qquad T = N\, p\, r^{2/N}\, t",
    hypotheses=(
        ONE_RAY,
        of_losses("cross-entropy", "cross-entropy"),
        "the class is learnt",
        "log(1/e) above 20 and kappa below 1",
    ),
    tolerance=_TAIL_TOLERANCE,
    why_tolerance=(
        "the next terms of (e / e_tail - 1) log(1/e) are m (2 m + 1)/log(1/e), m = 2 - 2/N, and -kappa^2/(2 log(1/e)), "
        "together below 0.34 from log(1/e) = 20 on, and Euler's steps add 0.05; a T wrong by 2 % moves it by 0.4 to 1"
    ),
    checked_with=BY_LATE,
    default_trials=4 * BATCH,
    quick_trials=4 * BATCH,
    check=check_tails,
    necessity=(tails_without_small_kappa, tails_of_no_learning),
    figure=draw_tails,
    single_tolerance=None,
)
