"""Linearised networks (14.1 to 14.4): trained read-outs of random features, against the laws of their kernel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, DeepReLU, GradientDescent, SpectralDecoupling, TwoLayerReLU
from gradstarve.simulation import simulate
from gradstarve.theorems._entry import Hypothesis, Problem
from gradstarve.theorems._figure import LawFigure, Marks, diagonal
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import log_uniform, train, train_descent
from gradstarve.theorems.laws.features import (
    BY_LIMIT,
    COUNT,
    FRACTIONS,
    KINDS,
    LIMIT_TOLERANCE,
    PAIR,
    WHY_LIMIT,
    Problems,
    moves_most,
)

_EQUAL = np.full((COUNT, KINDS), 1 / KINDS)  # a Dataset's loss is the mean: the summed one runs KINDS times as fast
_STEPS = 1024
_MOST = 300.0  # the largest ratio of the fastest to the slowest rate of a problem
_REST_TOLERANCE = 1e-10
_SLOPE_TOLERANCE = 1e-5
_APART = 1e-3  # relative change of a strength
_UNITS = 16  # neurons of the networks of two layers
_SETTLED = 4  # problems of a batch that are compared with the settled features of section 10 too
_WHY_REST = "accelerated descent has contracted to rounding, which weak features may enlarge up to 1e4 times; ten times that"
_WHY_PATH = f"; on the way there {LIMIT_TOLERANCE:g}: {WHY_LIMIT}"
_BY_REST = "simulate: accelerated descent on all weights until nothing moves"


def _is_linear(problem: Problem) -> bool:
    return isinstance(problem.network, DeepReLU) and problem.network.depth == 1


def _full_rank(problem: Problem) -> bool:
    data: Any = problem.data
    points = np.asarray(data.points)
    return bool(np.linalg.matrix_rank(points) == points.shape[0])


LINEAR = Hypothesis("outputs linear in the weights (one layer, or the linearisation of any network)", _is_linear)
FULL_RANK = Hypothesis("the Jacobian Phi has full row rank", _full_rank)


def _read_outs(points: np.ndarray, start: np.ndarray, ridge: Any = 0.0, penalty: Any = 0.0) -> Problems:
    """One problem per row: signed samples y_i x_i [b, n, d], initial weights [b, d], ridge and penalty of the summed
    loss."""
    network = DeepReLU.paths(start[:, None], list(range(KINDS)), KINDS)
    return Problems(points, _EQUAL, np.full(COUNT, "cross-entropy"), network, ridge / KINDS, penalty)


def _on_the_way(rng: np.random.Generator, points: np.ndarray, law: Any, ridge: Any = 0.0, penalty: Any = 0.0):
    """The distance of margins trained from weights of zero from `law`(K, i, times), before they come to rest, [b]."""
    kernels = _symmetric(_kernels(points))
    pace = np.linalg.eigvalsh(kernels)[:, -1] * (0.25 + penalty) + ridge
    time = log_uniform(rng, 0.3, 10, COUNT) / pace
    trained = _read_outs(points, np.zeros((COUNT, KINDS)), ridge, penalty).limit(KINDS * time)
    laws = np.asarray(jnp.stack([law(K, i, FRACTIONS * t) for i, (K, t) in enumerate(zip(kernels, time, strict=True))]))
    return np.max(np.abs(trained - laws) / (1 + np.abs(laws)), axis=(1, 2))


def _kernels(points: np.ndarray) -> np.ndarray:
    """K = Y Phi Phi^T Y of read-outs, whose Jacobian is their samples, [b, n, n]."""
    return np.einsum("bid,bjd->bij", points, points)


def _off_the_kernel(points: np.ndarray, weights: np.ndarray) -> float:
    """The distance of the results of `theory.jacobian` for a read-out from its signed samples [n, d] and their products."""
    labels = np.array([1.0, -1.0, 1.0])
    given = (_read_out, jnp.asarray(weights), jnp.asarray(labels[:, None] * points), labels)
    kernel, size = points @ points.T, np.abs(points @ points.T).max()
    moved = theory.jacobian.margin_kernel(_read_out, given[1] + 1, *given[2:])
    trial_record = (
        (theory.jacobian.margins(*given), points @ weights),
        (theory.jacobian.margin_jacobian(*given), points),
        (theory.jacobian.margin_kernel(*given), kernel),
        (theory.jacobian.cross_kernel(*given, *given[2:]), kernel),
        (theory.jacobian.kernel_product(*given)(np.eye(KINDS)), kernel),
        (theory.jacobian.kernel_change(kernel, moved), 0.0),  # linear: the kernel is constant
    )
    return max(float(np.max(np.abs(np.asarray(found) - law))) for found, law in trial_record) / (1 + size)


def _read_out(weights: Any, x: Any) -> Any:
    return x @ weights


def _two_layers(rng: np.random.Generator, width: int = _UNITS, count: int = 4) -> tuple[Dataset, TwoLayerReLU]:
    """Three samples, and networks of two layers of moderate width, which are not linear."""
    data = Dataset(rng.normal(size=(KINDS, KINDS)), np.array([1.0, -1.0, 1.0]))
    scale = width**-0.25
    w = rng.normal(size=(count, width, KINDS)) * scale / np.sqrt(KINDS)
    return data, TwoLayerReLU(w, rng.normal(size=(count, width)) * scale)


_NOT_LINEAR = f"outputs linear in the weights (two layers of {_UNITS} neurons instead)"


def _learning_features(rng: np.random.Generator) -> Trials:
    """A network of two layers and 16 neurons, against the flow of the kernel it starts with."""
    data, network = _two_layers(rng)
    steps = np.array([50, 500])
    times = 0.01 * steps
    run = train_descent(data, network, "cross-entropy", 0.01, 500, 50)  # whose own error is a hundredth, not a half
    trained = np.asarray(run.margins(steps))
    laws = []
    for k in range(len(trained)):
        given = (_apply, TwoLayerReLU(network.w[k], network.z[k]), data.points, data.labels)
        kernel, start = theory.jacobian.margin_kernel(*given), theory.jacobian.margins(*given)
        laws.append(np.asarray(theory.ntk.logistic_flow(kernel, times / KINDS, start)))
    numbers = recorded(data, "cross-entropy", network, {"trained": trained, "law": laws}, times=times)
    texts: dict[str, Any] = {"quantity": lambda k, j, i: f"the margin of point {i}"}
    texts["when"] = lambda k, j, i: f"at t = {times[j]:g}"
    return compared(trained, np.stack(laws), 1.0, numbers, **texts, rest="features are learnt as well")


def _apply(network: Any, x: Any) -> Any:
    return network(x)


def _flow_marks(trial: dict[str, Any]) -> Marks:
    return np.asarray(trial["times"]) / trial["times"][-1], np.asarray(trial["trained"])[:, moves_most(trial)]


def _flow_law(trial: dict[str, Any], x: np.ndarray) -> np.ndarray:
    points = np.asarray(trial["points"])
    kernel, start = points @ points.T, points @ np.ravel(trial["layers"][0])
    return np.asarray(theory.ntk.logistic_flow(kernel, x * trial["times"][-1] / KINDS, start))[:, moves_most(trial)]


@register(
    name="logistic-flow",
    equation="14.1",
    title="Linearised networks",
    meaning="For a linearised network the kernel at the start decides the margin of every sample at every time.",
    claim="signed outputs obey dm/dt = K sigmoid(-m), K = Y Phi Phi^T Y, for the loss summed over samples",
    formula=r"\frac{dm}{dt} = K\, \text{sigmoid}({-m}), \qquad m = Y f, \qquad K = Y \Phi \Phi^T Y",
    hypotheses=(LINEAR, "gradient flow"),
    tolerance=LIMIT_TOLERANCE,
    why_tolerance=WHY_LIMIT,
    checked_with=BY_LIMIT,
    default_trials=2 * COUNT,
    losses=("cross-entropy",),
    batch=COUNT,
    drops=(Drop(_NOT_LINEAR, _learning_features),),
    figure=LawFigure(
        _flow_marks, _flow_law, "time, as a share of the run", "margin of one sample", gap="gap of all margins, relative"
    ),
)
def logistic_flow(rng: np.random.Generator) -> Trials:
    """Random samples, a third of them in a plane, so that K is singular, some that contradict each other; any start."""
    points = rng.normal(size=(COUNT, KINDS, KINDS)) * log_uniform(rng, 0.2, 1, (COUNT, KINDS, 1))
    flat, against = np.arange(COUNT) % 3 == 1, np.arange(COUNT) % 6 == 2
    points[flat, :, -1] = 0
    points[against, 1] = -log_uniform(rng, 0.3, 3, (against.sum(), 1)) * points[against, 0]
    start = rng.normal(size=(COUNT, KINDS)) * (rng.random((COUNT, 1)) < 0.7)
    kernels = _kernels(points)
    time = KINDS * log_uniform(rng, 1, 15, COUNT) / np.trace(kernels, axis1=1, axis2=2)
    problems = _read_outs(points, start)
    trained = problems.limit(time)
    begin = np.einsum("bid,bd->bi", points, start)
    laws = [theory.ntk.logistic_flow(K, FRACTIONS * t / KINDS, m) for K, t, m in zip(kernels, time, begin, strict=True)]
    law = np.array(jnp.stack(laws))
    law[0] += _off_the_kernel(points[0], start[0])
    numbers = problems.recorded({"times": FRACTIONS * time[:, None], "trained": trained, "law": law})
    group = np.select([flat, against], ["singular", "contradictory"], "full rank")
    return compared(trained, law, 1 + np.abs(law), numbers, group=group)


# --- the end of training ---------------------------------------------------------------------------------------------


@partial(jax.jit, static_argnums=0)
def _ends(steps, points, step_size, momentum, decay, penalty):
    def one(points, step_size, momentum, decay, penalty):
        network = DeepReLU.paths(jnp.zeros((1, KINDS), points.dtype), list(range(KINDS)), KINDS)
        data = Dataset(points, np.ones(KINDS), _EQUAL[0])
        loss = SpectralDecoupling("cross-entropy", penalty)
        descent = GradientDescent(step_size, momentum, True, decay)
        return simulate(data, network, loss, descent, steps, record_every=steps, progress=False, throw=False).recorded[-1]

    return jax.vmap(one)(points, step_size, momentum, decay, penalty)


def _trained(points: np.ndarray, ridge: np.ndarray, penalty: np.ndarray) -> np.ndarray:
    """The margins [b, n] at which descent on sum_i [log(1 + e^-m_i) + (penalty/2) m_i^2] + (ridge/2) |theta|^2 ends.

    Nesterov's method with the step size and momentum of the problem's curvature, from weights of zero; in units of the mean
    loss.
    """
    curvature = np.linalg.eigvalsh(np.swapaxes(points, 1, 2) @ points)
    fast = (curvature[:, -1] * (0.25 + penalty) + ridge) / KINDS
    slow = (np.maximum(curvature[:, 0], 0) * penalty + ridge) / KINDS
    ratio = np.sqrt(np.minimum(fast / np.maximum(slow, fast / 1e6), 2 * _MOST))
    momentum = (ratio - 1) / (ratio + 1)
    return np.asarray(_ends(_STEPS, *map(jnp.asarray, (points, 1 / fast, momentum, ridge / KINDS, penalty))))


def _features(rng: np.random.Generator, ratio: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """U [b, n, n], strengths s^2 [b, n] that fall by `ratio` to 3 `ratio` each, and frames V [b, d, d]."""
    U, frames = (np.linalg.qr(rng.normal(size=(COUNT, KINDS, KINDS)))[0] for _ in range(2))
    U *= np.where(U.sum(1, keepdims=True) < 0, -1, 1)
    falls = np.concatenate([np.ones((COUNT, 1)), ratio * log_uniform(rng, 1, 3, (COUNT, KINDS - 1))], axis=1)
    return U, log_uniform(rng, 1, 20, (COUNT, 1)) / np.cumprod(falls, axis=1), frames


def _samples(U: np.ndarray, strengths: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """Signed samples U S V^T, [b, n, d]."""
    return (U * np.sqrt(strengths)[:, None]) @ np.swapaxes(frames, 1, 2)


def _symmetric(kernel: np.ndarray) -> np.ndarray:
    return (kernel + np.swapaxes(kernel, -1, -2)) / 2


def _instances(points: np.ndarray, each: dict[str, Any]) -> Callable[[int], dict[str, Any]]:
    """`numbers` of read-outs from zero on the signed samples [b, n, d], with `each` [b, ...] at i."""
    same = {"loss": "cross-entropy", "labels": np.ones(KINDS), "weights": _EQUAL[0], "layers": [np.zeros((1, KINDS))]}
    return lambda i: {**same, "points": points[i], **{name: value[i] for name, value in each.items()}}


def _moving_features(rng: np.random.Generator) -> Trials:
    """Two layers and 16 neurons under weight decay, whose features move with their weights."""
    data, network = _two_layers(rng)
    decay, steps = 0.01, 6000
    dynamics = GradientDescent(0.1, 0.0, False, decay)
    run = train(data, network, "cross-entropy", dynamics, steps, steps)
    trained = np.asarray(run.margins(np.array([steps])))[:, 0]
    laws = []
    for k in range(len(trained)):
        one = TwoLayerReLU(network.w[k], network.z[k])
        kernel = theory.jacobian.margin_kernel(_apply, one, data.points, data.labels)
        laws.append(np.asarray(theory.ntk.ridge_optimum(kernel, KINDS * decay).margins))
    numbers = recorded(data, "cross-entropy", network, {"trained": trained, "law": laws}, weight_decay=decay)
    texts: dict[str, Any] = {"quantity": lambda k, i: f"the margin of point {i}", "when": f"after {steps} steps of 0.1"}
    return compared(trained, np.stack(laws), 1.0, numbers, **texts, rest="the ridge of its first kernel is meant")


@register(
    name="ridge-optimum",
    equation="14.2",
    title="Where a ridge stops a linearised network",
    meaning="Weight decay on a linearised network has one resting point, and it says which samples stay under-fitted.",
    claim="dm/dt = K sigmoid(-m) - ridge m from weights of zero, which ends at m = K alpha / ridge, alpha = sigmoid(-m), "
    "where the dual flow of alpha ends as well",
    formula=(
        r"\frac{dm}{dt} = K \alpha - \lambda m, \qquad "
        r"m \to \frac{1}{\lambda} K \alpha, \quad \alpha = \text{sigmoid}({-m}), \qquad \text{as with} \quad "
        r"\frac{d\alpha}{dt} = \log \left( \frac{1 - \alpha}{\alpha} \right) - \frac{1}{\lambda} K \alpha"
    ),
    hypotheses=(LINEAR,),
    tolerance=_REST_TOLERANCE,
    why_tolerance=_WHY_REST + _WHY_PATH,
    checked_with=f"{_BY_REST}; on the way {BY_LIMIT}",
    default_trials=2 * COUNT,
    losses=("cross-entropy",),
    dynamics=("flow", "descent"),
    batch=COUNT,
    drops=(Drop(_NOT_LINEAR, _moving_features),),
    figure=diagonal(
        "margin at the end, by the law: K α / ridge",
        "margin at the end,\ntrained",
        xscale="symlog",
        yscale="symlog",
        gap="|m − m_law| and |alpha − alpha_dual| at the end of training",
    ),
)
def ridge_optimum(rng: np.random.Generator) -> Trials:
    """Random features of any strength, every third kernel singular; ridges from a 300th of the strongest to ten times it."""
    U, strengths, frames = _features(rng, 1.0)
    strengths[::3, -1] = 0
    points = _samples(U, strengths, frames)
    ridge = strengths[:, 0] * log_uniform(rng, 1 / _MOST, 10, COUNT)
    trained = _trained(points, ridge, np.zeros(COUNT))
    laws, duals = [], []
    for kernel, strength in zip(_symmetric(_kernels(points)), ridge, strict=True):
        laws.append(theory.ntk.ridge_optimum(kernel, strength).margins)
        duals.append(theory.ntk.ridge_dual_flow(kernel, strength, 1e6))
    law, dual = np.asarray(jnp.stack(laws)), np.asarray(jnp.stack(duals))
    off = np.maximum(np.abs(trained - law), np.abs(1 / (1 + np.exp(trained)) - dual))
    before = _on_the_way(rng, points, lambda K, i, t: theory.ntk.ridge_flow(K, ridge[i], t), ridge=ridge)
    off = np.maximum(off.max(-1), before * (_REST_TOLERANCE / LIMIT_TOLERANCE))
    group = np.where(np.arange(COUNT) % 3 > 0, "full rank", "singular")
    return Trials(off, _instances(points, {"trained": trained, "law": law, "ridge": ridge}), group=group)


@register(
    name="starvation-derivatives",
    equation="14.3",
    title="Who starves whom in a linearised network",
    meaning="Make one feature a little stronger, and the law says which other features lose.",
    claim="dz_j/d(s_i^2) at the optimum under a ridge is what follows from m = K alpha / ridge; negative where i starves j",
    formula=(
        r"\begin{split} \frac{\partial z_j}{\partial (s_i^2)} &= u_j^T\, (\lambda I + K D)^{-1}\, u_i\, (u_i^T \alpha), "
        r"\qquad K = U S^2 U^T, \\ "
        r"z &= U^T m, \qquad m = \frac{1}{\lambda} K \alpha, \qquad \alpha = \text{sigmoid}({-m}), \qquad "
        r"D = \text{diag}(\alpha\, (1 - \alpha)) \end{split}"
    ),
    hypotheses=(LINEAR, "strengths all different"),
    tolerance=_SLOPE_TOLERANCE,
    why_tolerance="differences over a thousandth of a strength, which are off by its square times a third derivative",
    checked_with=f"{_BY_REST}, twice for each slope",
    default_trials=2 * COUNT,
    losses=("cross-entropy",),
    dynamics=("flow", "descent"),
    batch=COUNT,
    drops=(
        Drop(
            "strengths all different (the first two agree instead)",
            {"equal": True},
            rest="any basis of their space is one of features",
        ),
    ),
    figure=diagonal(
        "by the law: slope of a response in a strength (below 0: starved)",
        "the same, by training twice",
        xscale="symlog",
        yscale="symlog",
        gap="slopes, trained − law, over 1 + the largest, in units of 1/sum s^2",
    ),
)
def starvation_derivatives(rng: np.random.Generator, equal: bool = False) -> Trials:
    """Features of any strength, at least 1.3 times apart; the slope of every response, from two trainings with one strength
    a thousandth up and down. With the first two strengths `equal` the kernel does not determine the basis of their span."""
    U, strengths, frames = _features(rng, 1.3)
    if equal:
        strengths[:, 1] = strengths[:, 0]
    ridge, moved = strengths[:, 0] * log_uniform(rng, 1 / _MOST, 1, COUNT), rng.integers(KINDS, size=COUNT)
    change = _APART * strengths * np.eye(KINDS)[moved]
    ends = [_trained(_samples(U, strengths + sign * change, frames), ridge, np.zeros(COUNT)) for sign in (1, -1)]
    responses = np.einsum("bnk,bn->bk", U, ends[0] - ends[1])
    trained = responses / (2 * change.sum(-1, keepdims=True)) * strengths.sum(-1, keepdims=True)
    points = _samples(U, strengths, frames)
    tables = [theory.ntk.starvation_derivatives(*x) for x in zip(_symmetric(_kernels(points)), ridge, strict=True)]
    law = np.asarray(jnp.stack(tables))[np.arange(COUNT), :, moved] * strengths.sum(-1, keepdims=True)
    numbers = _instances(points, {"trained": trained, "law": law, "ridge": ridge, "feature": moved})
    texts: dict[str, Any] = {"group": "slope of z in s^2", "when": "at the optimum"}
    texts["quantity"] = lambda i, j: (
        f"the slope of response {j + 1} in strength {moved[i] + 1}, times the sum of strengths,"
    )
    return compared(trained, law, 1 + np.abs(law).max(-1, keepdims=True), numbers, **texts)


def _in_a_plane(rng: np.random.Generator) -> Trials:
    """Samples in a plane. The missing feature cannot be learnt, and margins differ."""
    U, strengths, frames = _features(rng, 1.0)
    strengths[:, -1] = 0
    points, penalty = _samples(U, strengths, frames), np.full(COUNT, 0.1)
    trained = _trained(points, np.zeros(COUNT), penalty)
    law = np.broadcast_to(theory.ntk.spectral_decoupling_optimum(KINDS, 0.1), trained.shape)
    numbers = _instances(points, {"trained": trained, "law": law, "penalty": penalty})
    texts: dict[str, Any] = {"quantity": lambda i, j: f"the margin of point {j}", "when": "at the end of training"}
    return compared(trained, law, 1.0, numbers, **texts, rest=lambda i: f"all margins: {np.round(trained[i], 3).tolist()}")


_WEAK = np.geomspace(0.05, 0.3)


def _settled_marks(trial: dict[str, Any]) -> Marks:
    """Three margins at one penalty."""
    trained = np.asarray(trial["trained"])
    return np.full(trained.size, np.min(trial["penalty"])), trained


def _settled_margin(penalty: np.ndarray) -> np.ndarray:
    """The m with sigmoid(-m) = penalty m, from a table of penalty = sigmoid(-m)/m."""
    m = np.geomspace(1e-3, 30, 4000)[::-1]
    return np.interp(penalty, 1 / (1 + np.exp(m)) / m, m)


@register(
    name="spectral-decoupling",
    equation="14.4",
    title="Spectral decoupling",
    meaning="A penalty on the outputs in place of the weights brings all margins to the same height, so that strong "
    "features no longer starve weak ones.",
    claim="under (penalty/2)|f|^2 dm/dt = K (sigmoid(-m) - penalty m), and every margin ends at sigmoid(-m) = penalty m, "
    "whatever the strengths of the features",
    formula=(
        r"\frac{dm}{dt} = K\, (\text{sigmoid}({-m}) - \lambda\, m), \qquad "
        r"m_i \to m, \qquad \text{sigmoid}({-m}) = \lambda\, m \quad \text{for all } i"
    ),
    hypotheses=(LINEAR, FULL_RANK),
    tolerance=_REST_TOLERANCE,
    why_tolerance=_WHY_REST + _WHY_PATH,
    checked_with=f"{_BY_REST}; on the way {BY_LIMIT}",
    default_trials=2 * COUNT,
    losses=("cross-entropy",),
    dynamics=("flow", "descent"),
    batch=COUNT,
    drops=(Drop("Phi of full row rank (three samples in a plane instead)", _in_a_plane),),
    figure=LawFigure(
        _settled_marks,
        lambda trial, x: _settled_margin(x),
        "strength of the penalty on outputs",
        "margin of each sample\nafter training",
        one_line=True,
        xscale="log",
        gap="|m − m_law| at the end of training",
        without=lambda numbers: (*_settled_marks(numbers), _WEAK, _settled_margin(_WEAK)),
    ),
)
def spectral_decoupling(rng: np.random.Generator) -> Trials:
    """Features of any strength up to ten times apart, penalties from 0.05 to 5; all margins end at one number."""
    points = _samples(*_features(rng, 1.0))
    penalty = log_uniform(rng, 0.05, 5, COUNT)
    trained = _trained(points, np.zeros(COUNT), penalty)
    law = np.array(jnp.stack([theory.ntk.spectral_decoupling_optimum(KINDS, x) for x in penalty]))
    flow = theory.ntk.spectral_decoupling_flow
    before = _on_the_way(rng, points, lambda K, i, t: flow(K, penalty[i], t), penalty=penalty)
    for i in range(_SETTLED):
        # Features that share samples settle too, and all margins settle at the same value.
        loss = SpectralDecoupling("cross-entropy", penalty[i])
        law[i] = theory.settled_features(PAIR, _EQUAL[0], loss) @ PAIR.T
    numbers = _instances(points, {"trained": trained, "law": law, "penalty": penalty})
    found = compared(trained, law, 1.0, numbers, group="full rank")
    return found.raised(before * (_REST_TOLERANCE / LIMIT_TOLERANCE))
