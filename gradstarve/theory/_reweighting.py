"""Weights of the sample types with which every feature is learnt equally fast, computed from (10.1).

In phi, phi' = v^(2/N-2), feature k moves at the speed N r_k^(2/N) sum_{S with k} w_S g(m_S): linear in the weights w of the
sample types. At the start the margins are known, and the speeds are B w with a matrix B [K, S] >= 0.

- *As fast as possible*: the weights with the largest slowest speed are the optimal mixed strategy of a matrix game, sampler
  against features. The other player's strategy is a certificate: prices y_k >= 0 of sum 1 with sum_k y_k B_kS <= s for every
  type S, so that for any weights the slowest speed is at most sum_k y_k (B w)_k <= s.
- *Equally fast*: B w = s (1, ..., 1) has a solution w >= 0 with s > 0, or there are numbers y_k of sum 1 with
  sum_k y_k B_kS <= 0 for every S (Farkas): a bound between speeds that holds for all weights. Among all solutions
  the one closest to the data, of least sum w log(w/p), is w_S ~ p_S exp(sum_k theta_k B_kS), sum theta_k = 0.
- *At the same time*: equal speeds do not stay equal, because later g(m_S) differ: samples that show more features are
  learnt first. Weights of the same form that bring all features to one logit at one time are found along the flow.

The starving pair, types {1} and {1, 2}: with r_2 = r_1 all weight on {1, 2} is the only solution, with r_2 > r_1 the pair
has one with both types, and with r_2 < r_1 none: feature 2 is never faster than (r_2/r_1)^(2/N) times feature 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    as_floats,
    as_number,
    check_sum_is_one,
    deprecated,
    fields_html,
    is_concrete,
    positive_int,
    short_repr,
)
from gradstarve.problem import Loss, as_loss
from gradstarve.theory._features import FeatureFlow, feature_flow, rise

_STEPS = 200
_ROUNDING = 1e-12


@dataclass(frozen=True, repr=False, eq=False)
class Reweighting:
    """Weights of sample types, in NumPy float64, and the speeds dphi(v_k)/dt at the start with them.

    - `weights`: w_S >= 0, [S], of sum 1; leave a type of weight 0 out of the data;
    - `factors`: w_S/p_S, [S], by which to multiply the loss of each sample of the type;
    - `speeds`, `before`: [K], under the weights and under the given probabilities;
    - `prices`: y_k, [K], of sum 1: for any weights of sum 1 the slowest speed is at most `bound` = max_S sum_k y_k B_kS;
    - `time`: the time at which all features reach the requested logit, from `equal_time_weights`; None otherwise.
    """

    __repr__ = short_repr
    _repr_html_ = fields_html

    weights: np.ndarray
    factors: np.ndarray
    speeds: np.ndarray
    before: np.ndarray
    prices: np.ndarray
    bound: float
    time: float | None = None


@deprecated("types", "probabilities", "loss", "depth", "scales", "init")
def fastest_weights(
    types, probabilities, loss: Loss | str = "cross-entropy", *, depth=1, scales=None, init=None
) -> Reweighting:
    """The weights of sample types whose slowest feature is as fast as possible at the start (10.1), with a certificate.

    `types`: [S, K] of 0 and 1; `probabilities`: p_S > 0, [S], of the data as they are, of sum 1 as the weights are;
    `scales`: r_k, [K], default 1;
    `init`: v_k(0), [K], which gives the first margins, default 0. `min(speeds)` equals `bound` to 1e-9 of it, which proves
    that no weights do better; speeds may differ all the same. Weights may be 0, and need not be the only ones.

    >>> plan = fastest_weights([[1, 0], [1, 1], [0, 1]], [0.9, 0.09, 0.01])
    >>> plan.weights.tolist(), plan.before.round(3).tolist(), plan.speeds.tolist()
    ([0.0, 1.0, 0.0], [0.495, 0.05], [0.5, 0.5])
    """
    flow, matrix = _speeds(types, probabilities, loss, depth, scales, init)
    return _plan(flow, matrix, _game(matrix)[0])


@deprecated("types", "probabilities", "loss", "depth", "scales", "init")
def equal_speed_weights(
    types, probabilities, loss: Loss | str = "cross-entropy", *, depth=1, scales=None, init=None
) -> Reweighting:
    """The weights nearest to the data, in sum w log(w/p), under which every feature has the same speed at the start (10.1).

    Arguments as in `fastest_weights`. Speeds agree to 1e-10. Types that no such weights can use get weight 0, all others
    a positive one. `HypothesisError` where no weights equalise the speeds, with the bound between them that forbids it.

    >>> plan = equal_speed_weights([[1, 0], [1, 1], [0, 1]], [0.9, 0.09, 0.01])
    >>> plan.weights.round(3).tolist(), plan.speeds.round(3).tolist()          # as much of {1} as of {2}
    ([0.339, 0.322, 0.339], [0.33, 0.33])
    """
    flow, matrix = _speeds(types, probabilities, loss, depth, scales, init)
    return _plan(flow, matrix, _equal_speeds(matrix, np.asarray(flow.probabilities, np.float64))[1])


@deprecated("types", "probabilities", "logit", "loss", "depth", "scales", "init")
def equal_time_weights(
    types, probabilities, loss: Loss | str = "cross-entropy", *, logit=1.0, depth=1, scales=None, init=None
) -> Reweighting:
    """Weights of sample types under which all features reach `logit` at one time of the flow (10.1), which is `time`.

    Arguments as in `feature_flow` (`init` needed at depth >= 2) and `fastest_weights`. The weights are those of
    `equal_speed_weights` tilted further, w_S ~ p_S exp(sum_{k in S} theta_k), K numbers for K conditions v_k(T) = `logit`,
    which hold to 1e-8 of it. `HypothesisError` as in that function, and if `logit` is not above all v_k(0);
    `ConvergenceError` if no weights are found, for example for a logit that the loss never reaches.

    >>> plan = equal_time_weights([[1, 0], [1, 1], [0, 1]], [0.9, 0.09, 0.01], logit=2.0, scales=(1.0, 0.8))
    >>> round(plan.weights.sum().item(), 6), plan.time > 0
    (1.0, True)
    """
    if init is None and positive_int("depth", depth) > 1:
        raise ValueError(f"depth = {depth} needs init, the first logits v_k(0) > 0, which decide how long a path waits")
    flow, matrix = _speeds(types, probabilities, loss, depth, scales, init)
    logit, start = as_number("logit", logit), np.asarray(flow.start)
    if not logit > start.max():
        raise HypothesisError(
            "every feature has `logit` ahead of it", f"logit = {logit}, v(0) = {start.tolist()}", "a larger logit"
        )
    first = _equal_speeds(matrix, np.asarray(flow.probabilities, np.float64))
    weights, time = _same_time(flow, first, logit)
    return _plan(flow, matrix, weights, time)


# --- the start -------------------------------------------------------------------------------------------------------


def _speeds(types, probabilities, loss, depth, scales, init) -> tuple[FeatureFlow, np.ndarray]:
    """The problem, and B [K, S] with speeds B w."""
    depth, loss = positive_int("depth", depth), as_loss(loss)
    assumed = init
    if init is None and depth > 1:
        # Only margins matter here, and paths that have hardly moved have margins of about 0.
        assumed = np.full(as_floats("types", types).shape[-1:], 1e-3)
    flow = feature_flow(types, probabilities, loss, depth=depth, scales=scales, init=assumed)
    if flow.probabilities.ndim != 1:
        raise ValueError(f"weights are found for one problem at a time, got batch axes {flow.probabilities.shape[:-1]}")
    check_sum_is_one("probabilities", flow.probabilities)
    if is_concrete(flow.types) and (np.asarray(flow.types) < 0).any():
        raise HypothesisError(
            "every type shows its features without a sign, so that more weight means more speed (10.1)",
            "types hold -1: features that contradict the label",
            "weights of the types by hand, in feature_flow(...) or theory.shortcut(..., weights=...)",
        )
    margins = flow.types @ (flow.start if init is not None else jnp.zeros_like(flow.start))
    pushes = np.asarray(flow.loss_function.residual(margins), np.float64)
    with np.errstate(over="ignore"):
        pace = depth * np.asarray(flow.scales, np.float64) ** (2 / depth)
    if not np.isfinite(pace).all():
        raise ValueError(f"scales are too large: r^(2/N) of {np.asarray(flow.scales).max():.6g} is beyond float64")
    matrix = pace[:, None] * np.asarray(flow.types, np.float64).T * pushes
    if not (matrix.max(axis=1) > 0).all():
        still = np.flatnonzero(matrix.max(axis=1) <= 0)
        raise HypothesisError(
            "every feature is pushed forward by some type at the start (10.1)",
            f"features {still.tolist()} are not: their samples have margins {np.asarray(margins).tolist()}",
            "an init below the margin of the loss",
        )
    return flow, matrix


def _plan(flow: FeatureFlow, matrix: np.ndarray, weights: np.ndarray, time: float | None = None) -> Reweighting:
    probabilities = np.asarray(flow.probabilities, np.float64)
    prices = _game(matrix)[1]
    speeds, before, bound = matrix @ weights, matrix @ probabilities, float((prices @ matrix).max())
    return Reweighting(weights, weights / probabilities, speeds, before, prices, bound, time)


def _game(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Optimal strategies of the game with payoff `matrix` [K, S]: of the player of columns, who gains, and of the other."""
    from scipy.optimize import linprog

    unit = matrix / matrix.max()
    k, s = unit.shape
    cost = np.append(np.zeros(s), -1.0)
    rows = np.hstack([-unit, np.ones((k, 1))])
    found = linprog(
        cost, rows, np.zeros(k), np.append(np.ones(s), 0.0)[None], [1.0], [(0, None)] * s + [(None, None)], method="highs"
    )
    if not found.success:
        raise ConvergenceError(f"the linear programme of the speeds was not solved: {found.message}")
    strategies = np.maximum(found.x[:s], 0), np.maximum(-found.ineqlin.marginals, 0)
    weights, prices = (v / v.sum() for v in strategies)
    gap = (prices @ unit).max() - (unit @ weights).min()
    if gap > 1e-9:
        raise ConvergenceError(f"the weights found are {gap:.2g} from their bound, above 1e-9; scale the problem")
    return weights, prices


# --- equal speeds ----------------------------------------------------------------------------------------------------


def _equal_speeds(matrix: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The types that can be used, [S] booleans, and the weights nearest to the probabilities."""
    differences = (matrix - matrix.mean(axis=0)) / matrix.max()
    used = _usable(differences)
    if not (matrix[:, used].sum() > 0):
        _refuse(matrix)
    spread, base = differences[:, used], probabilities[used] / probabilities[used].sum()
    theta = np.zeros(len(matrix))

    def level(theta):
        exponents = theta @ spread
        top = exponents.max()
        return top + np.log(base @ np.exp(exponents - top))

    def tilted(theta):
        exponents = theta @ spread
        weights = base * np.exp(exponents - exponents.max())
        return weights / weights.sum()

    for _ in range(_STEPS):
        weights = tilted(theta)
        off = spread @ weights
        if np.abs(off).max() < _ROUNDING:
            break
        curvature = (spread * weights) @ spread.T - np.outer(off, off)
        step = -np.linalg.lstsq(curvature, off, rcond=1e-15)[0]
        here, length = level(theta), 1.0
        while level(theta + length * step) > here + 1e-4 * length * (off @ step) + 1e-15 and length > 1e-12:
            length /= 2
        theta = theta + length * step
    else:
        raise ConvergenceError(f"speeds still differ by {np.abs(off).max():.2g} of the largest after {_STEPS} Newton steps")
    whole = np.zeros(len(probabilities))
    whole[used] = weights
    return used, whole


def _usable(differences: np.ndarray) -> np.ndarray:
    """The types that have a positive weight in some w >= 0 with `differences` w = 0, [S] booleans."""
    from scipy.optimize import linprog

    k, s = differences.shape
    # x >= t, 0 <= t <= 1, D x = 0: as the solutions are a cone, t_S = 1 for each type that any of them uses.
    cost = np.concatenate([np.zeros(s), -np.ones(s)])
    limits = np.hstack([-np.eye(s), np.eye(s)])
    equal = np.hstack([differences, np.zeros((k, s))])
    found = linprog(cost, limits, np.zeros(s), equal, np.zeros(k), [(0, None)] * s + [(0, 1)] * s, method="highs")
    if not found.success:
        raise ConvergenceError(f"the linear programme of the usable types was not solved: {found.message}")
    return found.x[s:] > 0.5


def _refuse(matrix: np.ndarray) -> None:
    """`HypothesisError` with numbers y of sum 1 for which y B <= 0: whatever the weights, sum_k y_k speed_k <= 0."""
    from scipy.optimize import linprog

    k, s = matrix.shape
    # The certificate with the smallest entries.
    cost = np.ones(2 * k)
    found = linprog(
        cost, np.hstack([matrix.T, -matrix.T]), np.zeros(s), np.append(np.ones(k), -np.ones(k))[None], [1.0], method="highs"
    )
    y = found.x[:k] - found.x[k:]
    y = y / y.max()
    sides = [" + ".join(f"{abs(c):.4g} speed_{i}" for i, c in enumerate(y) if c * sign > 1e-9) or "0" for sign in (1, -1)]
    raise HypothesisError(
        "some weights of the sample types give all features one speed (10.1)",
        f"whatever the weights, {sides[0]} <= {sides[1]} (features counted from 0), which equal speeds do not obey",
        "fastest_weights(...), which makes the slowest feature as fast as can be",
    )


# --- equal times -----------------------------------------------------------------------------------------------------


def _same_time(flow: FeatureFlow, first: tuple[np.ndarray, np.ndarray], logit: float) -> tuple[np.ndarray, float]:
    from scipy.optimize import root

    used, start = first
    types = np.asarray(flow.types, np.float64)[used]
    base, size = start[used], types.shape[1]
    depth = flow.depth
    height = np.asarray(rise(flow.start, jnp.asarray(logit, flow.start.dtype), depth), np.float64)

    def unpack(x):
        # K numbers: the logarithm of time, and K - 1 tilts, because a common factor of all weights changes only the time.
        theta = np.append(x[1:], -x[1:].sum())
        exponents = types @ theta
        weights = base * np.exp(exponents - exponents.max())
        return weights / weights.sum(), float(np.exp(x[0]))

    def curve(weights, t):
        return FeatureFlow(flow.types[used], jnp.asarray(weights, flow.start.dtype), *_rest(flow)).features(t)

    def off(x):
        """phi(v_k(T)) - phi(logit), relative to phi(logit) - phi(v_k(0))."""
        weights, t = unpack(np.clip(x, -60, 60))
        here = curve(weights, t)
        return np.asarray(rise(jnp.asarray(logit, here.dtype), here, depth), np.float64) / height

    speeds = np.asarray(flow.scales, np.float64) ** (2 / depth) * depth * (base @ types)
    guess = np.append(np.log(height.max() / speeds.min() * 2), np.zeros(size - 1))
    eps = float(np.finfo(flow.start.dtype).eps)  # what `off` is rounded to, by which its differences are taken
    try:
        found: Any = root(off, guess, method="hybr", options={"xtol": 1e-12, "eps": eps})
    except ConvergenceError:
        found = None
    if found is None or not np.abs(found.fun).max() < max(1e-8, 16 * eps):
        left = "nothing was found" if found is None else f"they are {np.abs(found.fun).max():.2g} of the way apart"
        raise ConvergenceError(
            f"no weights were found that bring all features to logit {logit} at one time: {left}; use a smaller logit, or "
            "equal_speed_weights(...)"
        )
    weights, t = unpack(found.x)
    whole = np.zeros(len(start))
    whole[used] = weights
    return whole, t


def _rest(flow: FeatureFlow) -> tuple[Any, ...]:
    return flow.scales, flow.start, flow.loss_function, flow.depth
