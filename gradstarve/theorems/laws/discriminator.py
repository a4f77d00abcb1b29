"""The signal from a discriminator to its generator (15.1): the slope of the generator's loss along the fakes."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import Mode, TwoLayerReLU
from gradstarve.theorems._entry import (
    EXCLUSIVE,
    ONE_RAY,
    SEPARABLE,
    STAYING,
    Outcome,
    TrialLog,
    of_losses,
)
from gradstarve.theorems._figure import LawFigure
from gradstarve.theorems._register import Drop, Trials, add, compared, drawn, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_FLOW,
    BY_LATE,
    FLOW_TOLERANCE,
    PER_CLASS,
    WHY_FLOW,
    WIDTH,
    ExclusiveInit,
    Geometry,
    descent_gradient,
    exclusive_start,
    train_flow,
    train_late,
    two_rays,
)
from gradstarve.theorems.laws.modes import flow_times
from gradstarve.theorems.laws.shape import far_network

# The generators' losses of the logit f of a fake, from their definitions.
_LOSSES = {
    "minimax": lambda f: jnp.log1p(-jax.nn.sigmoid(f)),
    "non-saturating": lambda f: -jnp.log(jax.nn.sigmoid(f)),
    "hinge": lambda f: -f,
}


_LOSS = "cross-entropy"
_LATE_TOLERANCE = 0.5
_PEAK_TOLERANCE = 1e-3


@partial(jax.jit, static_argnums=2)
def _slope(network: Any, fake: Any, kind: str, along: Any = None):
    """d(generator loss)/dx along the unit vector of `fake`, or `along`, by automatic differentiation: [b]."""
    unit = fake / jnp.linalg.norm(fake) if along is None else along
    return jax.vmap(lambda net: jax.grad(lambda x: _LOSSES[kind](net(x[None])[0]))(fake) @ unit)(network)


def _with_a_bias(rng: np.random.Generator) -> Trials:
    """The last input is the same for all points; the generator makes the others."""
    geometry = two_rays(rng, -1.0)
    network = exclusive_start(rng, low=0.1, high=0.5).without_edge_cases().network(rng, geometry)
    fake = np.asarray(geometry.data.points)[PER_CLASS]
    generated = np.append(fake[:-1], 0)
    norm = float(np.linalg.norm(generated))
    found = np.asarray(_slope(network, fake, "hinge", generated / norm))
    margin = -np.asarray(network(geometry.data.points))[:, PER_CLASS]
    law = np.asarray(theory.generator_signal(norm, "hinge", margin))
    beside = f"at a fake of norm {norm:.3g} beside its constant input {fake[-1]:.3g}, with margin"
    texts: dict[str, Any] = {"quantity": "the slope of the hinge loss", "when": lambda i: f"{beside} {margin[i]:.3g},"}
    unit = np.where(margin > 0, np.abs(law), 1) * FLOW_TOLERANCE
    each = {"at": margin, "signal": norm * found, "law": norm * law}
    return compared(found, law, unit, recorded(geometry.data, _LOSS, network, each), margin <= 0, **texts)


def _peak(geometry: Geometry) -> float:
    """The margin at which the minimax signal stops rising along the flow, found by training at margins of a grid.

    The rate of the signal goes through 0 there: first a grid of margins from 0.5 to 2.5, then one between the last that
    rises and the first that falls, and a line between the two beside 0; NaN where it changes its sign not once.
    """
    low, high = 0.5, 2.5
    for _ in range(2):
        margins = np.linspace(low, high, BATCH)
        rates = _rates(geometry, margins)
        turns = np.flatnonzero((rates[:-1] > 0) != (rates[1:] > 0))
        if len(turns) != 1 or rates[0] <= 0:
            return np.nan
        i = int(turns[0])
        low, high = margins[i], margins[i + 1]
    return low + (high - low) * rates[i] / (rates[i] - rates[i + 1])


def _rates(geometry: Geometry, margins: np.ndarray) -> np.ndarray:
    """The rate of the minimax signal along the flow, over |dz/dt|, with one neuron on the fakes at given margins: [b]."""
    norm, fake = geometry.norms[1], np.asarray(geometry.data.points)[PER_CLASS]
    first = np.arange(WIDTH) == 0
    a = np.sqrt(margins / norm)[:, None] * np.geomspace(0.3, 3, BATCH)[:, None] * first
    zeta = np.where(first, margins[:, None] / norm / np.where(first, a, 1), 0)
    network = ExclusiveInit(-1.0 * np.broadcast_to(first, a.shape), a, zeta).network(np.random.default_rng(0), geometry)
    moves = descent_gradient(geometry.data, network, _LOSS)
    speed = np.max(np.abs(np.asarray(moves.z)), axis=-1)
    step = 1e-6 / speed
    ahead, behind = (
        np.asarray(
            _slope(TwoLayerReLU(network.w + s[:, None, None] * moves.w, network.z + s[:, None] * moves.z), fake, "minimax")
        )
        for s in (step, -step)
    )
    return ahead - behind


def _signal(rng: np.random.Generator, cosine: float) -> Trials:
    """Discriminators trained by the flow, reals as class + and fakes as class -."""
    geometry = two_rays(rng, cosine)
    start = exclusive_start(rng, wrong_sign_learners=0.2, low=0.03)
    network = start.network(rng, geometry)
    times = flow_times(rng, geometry)
    run, lost = train_flow(geometry.data, network, _LOSS, times)
    norm, p, fake = geometry.norms[1], geometry.frequencies[1], np.asarray(geometry.data.points)[PER_CLASS]
    a, zeta = start.mode(-1)
    there = np.any(a, axis=-1)
    # A class without neurons has the margin 0 and gives no signal; the law needs a positive margin.
    some = int(np.argmax(there))
    a, zeta = (np.where(there[:, None], v, v[some]) for v in (a, zeta))
    curve: Any = theory.solve_mode(Mode(p, norm, a, zeta), _LOSS)
    margin = np.asarray(curve.logit(times))[:, -1] * there
    size = (np.abs(margin) + start.scale(geometry)) / norm
    gaps, seen = np.zeros(BATCH), [margin]
    for kind in _LOSSES:
        found = np.asarray(_slope(run.final, fake, kind))
        seen.append(norm * found)
        gaps = np.maximum(gaps, np.abs(found - np.asarray(theory.generator_signal(norm, kind, margin))) / size)
    gaps = np.maximum(gaps / FLOW_TOLERANCE, abs(float(theory.minimax_peak()) / _peak(geometry) - 1) / _PEAK_TOLERANCE)
    numbers = recorded(geometry.data, _LOSS, network, times=times)
    return Trials(gaps, numbers, lost, "antipodal" if cosine else "orthogonal", extra={"seen": np.stack(seen, axis=-1)})


def _tail(rng: np.random.Generator, layers: int) -> Trials:
    """(signal / tail - 1) log(1/e), which (6.3) makes tend to m = 2 - 2/N; the law for the points of class +."""
    geometry = two_rays(rng, 0.0)
    network = far_network(rng, geometry, layers)
    p, norm = float(geometry.frequencies[0]), float(geometry.norms[0])
    run, times = train_late(geometry.data, network, _LOSS, 15 / (p * norm ** (2 / layers)))
    u = np.asarray(run.recorded)[:, -1, 0]
    # The fakes are class -: the same network with its read-out turned, which comes last in both kinds.
    *inner, read_out = jax.tree.leaves(run.final)
    turned = jax.tree.unflatten(jax.tree.structure(run.final), [*inner, -read_out])
    found = np.asarray(_slope(turned, np.asarray(geometry.data.points)[0], "minimax"))
    tail = float(theory.minimax_tail(p, norm, t=times[-1], depth=layers))
    gaps = np.abs((found / tail - 1) * u - (2 - 2 / layers)) / _LATE_TOLERANCE
    sides = {"frequency": p, "norm": norm, "time": times[-1], "law": tail}
    group = f"tail, {layers} layer{'s' * (layers > 1)}"
    return Trials(gaps, lambda i: {**sides, "signal": found[i], "margin": u[i]}, u < 20, group)


def _beside_an_input(numbers: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
    """The signal with a constant input, and the law."""
    at, signal = [numbers["at"]], [numbers["signal"]]
    return at, signal, at * 2, [*signal, numbers["law"]]


def _three_losses(trial: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The signal of each of the generator's losses at the margin reached, as a trial of its own."""
    margin, *signals = np.asarray(trial["seen"])
    return {kind: {"kind": kind, "at": margin, "signal": signal} for kind, signal in zip(_LOSSES, signals, strict=True)}


@register(
    name="generator-signal",
    equation="15.1",
    title="A discriminator trained too well hands on nothing",
    meaning="A discriminator that is trained too far hands almost no slope to its generator under the minimax loss; under"
    " the hinge loss or the non-saturating one it still does.",
    claim="the generator's slope along the fakes is sigmoid(-m) m/r (minimax), sigmoid(m) m/r (non-saturating), m/r "
    "(hinge), at the margin m(t) of section 3; the minimax one peaks at m sigmoid(m) = 1 and dies like (log T)^(2/N - 1)/T",
    formula=(
        r"\begin{split} \text{minimax:} \quad &\frac{m}{r}\, \text{sigmoid}({-m}), \qquad "
        r"\text{largest where } m\, \text{sigmoid}(m) = 1, \; m = 1.27846, \\ "
        r"&\frac{m}{r}\, \text{sigmoid}({-m}) \cdot r\, T\, (\log(T))^{1 - 2/N} \to 1, \qquad T = N\, p\, r^{2/N}\, t, \\ "
        r"\text{non-saturating:} \quad &\frac{m}{r}\, \text{sigmoid}(m), \qquad \text{hinge:} \quad "
        r"\frac{m}{r} \end{split}"
    ),
    hypotheses=(
        "no biases",
        of_losses("cross-entropy (with hinge loss the margin stops at 1, (3.6), and the signals with it)", "cross-entropy"),
        ONE_RAY,
        SEPARABLE,
        EXCLUSIVE,
        STAYING,
        "the tail: log(1/e) above 20 and kappa below 1, one or two layers",
    ),
    tolerance=1.0,
    why_tolerance=(
        f"gaps are in units of {FLOW_TOLERANCE:g} for the signal ({WHY_FLOW}), and of {_LATE_TOLERANCE:g} for the tail's "
        f"(signal / tail - 1) log(1/e) - (2 - 2/N), as in (6.3), and of {_PEAK_TOLERANCE:g} for the margin of the peak, "
        "found by a line between two margins 0.004 apart"
    ),
    checked_with=f"{BY_FLOW}; late: {BY_LATE}; the generator's loss differentiated by the input",
    default_trials=96,
    quick_trials=48,
    single_tolerance=None,
    losses=("cross-entropy",),
    drops=(Drop("no biases (a constant input instead)", _with_a_bias),),
    figure=LawFigure(
        lambda trial: (trial["at"], trial["signal"]) if np.isfinite(trial["at"]) and trial["at"] < 6 else None,
        lambda trial, x: np.asarray(theory.generator_signal(1.0, trial["kind"], x)),
        "margin of the discriminator on the fakes",
        "what the generator receives:\nslope × norm",
        parts=_three_losses,
        one_line=True,
        gap="gap, in units of its tolerance",
        without=_beside_an_input,
    ),
)
def check_signal(key: Any, trials: int) -> Outcome:
    """The signal at some time of training; and far out, where it dies."""
    log, seen = TrialLog(1.0), []
    for found in drawn(_signal, ({"cosine": 0.0}, {"cosine": -1.0}), key, trials):
        add(log, found)
        seen.append(found.extra["seen"])
    late = min(trials, 2 * BATCH)
    for found in drawn(_tail, ({"layers": 2}, {"layers": 1}), jax.random.fold_in(key, 1), late):
        add(log, found)
        seen.append(np.full((len(found.gaps), 1 + len(_LOSSES)), np.nan))
    return log.outcome(seen=np.concatenate(seen))
