"""Where features come to rest when the loss pulls back what it has pushed too far (10.1).

With spectral decoupling, or the squared loss, the residual of a sample is negative beyond some margin, and (10.1) is a
descent on the convex objective F(v) = sum_S p_S l_S(m_S), m_S = sum_{k in S} v_k, in whose metric the scales r_k and the
depth stand. So where F has one minimiser the end of training knows neither: one layer settles at the minimiser of F, and
balanced paths of N >= 2 layers, which stay above zero, at the minimiser among v >= 0.

F has one minimiser if the types that pull back determine the logits: their rows of `types` have rank K. If there are as
many types as features (and no logit would have to be below 0 at N >= 2), every type sits at its own rest, which for one
penalty is the same margin for all, g(m) = lambda m: (14.4). On the ring {1, 2}, {1, 3}, {2, 3} that means equal logits,
whatever the frequencies; for the starving pair it means v_1 = m and v_2 = 0: the penalty, made to share the work among
features, takes it away from one that is never needed.
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import ConvergenceError, HypothesisError, check_positive, is_concrete, positive_int, real_arrays
from gradstarve.problem import Hinge, Loss, SpectralDecoupling, as_loss, check_types, closed_form_of

_PATIENCE = 5e3  # of the fastest mode's times: what explicit steps get through
_MOST = 200
_HALVINGS = 60


def settled_features(types, probabilities, loss: Loss | str, depth=1) -> Float[Array, "*batch K"]:
    """The logits v_k at which features settle, [*batch, K]: the minimiser of sum_S p_S l_S(m_S), over v >= 0 if N >= 2.

    `types`: [S, K] of 0 and 1; `probabilities`: [*batch, S] > 0; `loss`: a `SpectralDecoupling` of cross-entropy,
    exponential or squared loss, with one penalty or one a type, or "squared". Independent of scales and start, by the
    head of this module; the gradient of F is below 1e-13 of its terms in float64 (2e-6 in float32). Differentiable twice
    in probabilities and penalties. `HypothesisError` where types that pull back do not determine the logits, and for the
    hinge loss inside, whose margins slide along 1.

    >>> loss = SpectralDecoupling("cross-entropy", 0.1)
    >>> [round(float(v), 3) for v in settled_features([[1, 0], [1, 1]], [0.9, 0.1], loss, depth=2)]  # 2 is given up
    [1.634, 0.0]
    """
    depth, loss = positive_int("depth", depth), as_loss(loss)
    kinds, probabilities = real_arrays(types=types, probabilities=probabilities)
    check_types(kinds)
    check_positive("probabilities", probabilities)
    if probabilities.shape[-1:] != kinds.shape[:1]:
        raise ValueError(f"probabilities must have {kinds.shape[0]} entries, one a type, got shape {probabilities.shape}")
    pulls = _pulls_back(loss, kinds.shape[0])
    if pulls is not None and is_concrete(kinds) and np.linalg.matrix_rank(np.asarray(kinds)[pulls]) < kinds.shape[1]:
        raise HypothesisError(
            "logits settle where the types that pull back determine them (section 10)",
            f"types {np.flatnonzero(pulls).tolist()} do, of rank below K = {kinds.shape[1]}",
            "feature_flow(...).features(t) at a time that is long enough",
        )
    found = _settle(kinds, probabilities.reshape(-1, kinds.shape[0]), loss, depth)
    return found.reshape(*probabilities.shape[:-1], -1)


def _settle(types, p, loss: Loss, depth: int) -> Array:
    found, reached = _minimise(types, p, loss, depth > 1)
    if is_concrete(reached) and not bool(reached.all()):
        raise ConvergenceError(f"the minimiser was not reached in {_MOST} Newton steps; use feature_flow(...).features(t)")
    return found


def check_pull(loss: Loss, count: int) -> None:
    """Raise for a penalty that (10.1) with `count` sample types can not be followed with, or that is of another size."""
    if not isinstance(loss, SpectralDecoupling):
        return
    loss.residual(jnp.zeros(count))
    if isinstance(loss.loss, Hinge):
        raise HypothesisError(
            "a residual that does not jump from push to pull (10.1)",
            "a penalised hinge loss pulls back beyond its margin, so that samples slide along m = 1",
            "simulate(...), or spectral decoupling of another loss",
        )


def until_rest(integrate, types, p, r, start, loss: Loss, depth: int, t) -> Array:
    """`integrate`(types, p, r, start, loss, depth, t), [b, times, K], but for times beyond its patience those at rest.

    `ConvergenceError` where features still move then.
    """
    arguments = (types, p, r, start, loss, depth)
    if not isinstance(loss, SpectralDecoupling) and closed_form_of(loss) != "squared":
        return integrate(*arguments, t)
    if t.size == 0 or not all(map(is_concrete, (t, p, r, start))) or not _comes_to_rest(types, loss):
        return integrate(*arguments, t)
    most = _PATIENCE / float(jnp.max(_fastest(*arguments)))
    if float(jnp.max(t)) <= most:
        return integrate(*arguments, t)
    rest = _settle(types, p, loss, depth)
    last = jnp.asarray(most, t.dtype)
    found = integrate(*arguments, jnp.append(jnp.minimum(t, last), last))
    off = float(np.max(np.abs(found[:, -1] - rest) / (1 + np.abs(rest))))
    if off > {"float64": 1e-11, "float32": 2e-5}[t.dtype.name]:
        raise ConvergenceError(
            f"at t = {most:.3g} the features are still {off:.2g} from rest, and t = {float(jnp.max(t)):.3g} is too many "
            "steps away; ask for earlier times, or for theory.settled_features(...)"
        )
    return jnp.where((t > last)[:, None], rest[:, None], found[:, :-1])


def _comes_to_rest(types, loss: Loss) -> bool:
    try:
        pulls = _pulls_back(loss, types.shape[0])
    except HypothesisError:
        return False
    return pulls is not None and int(np.linalg.matrix_rank(np.asarray(types)[pulls])) == types.shape[1]


@eqx.filter_jit
def _fastest(types, p, r, start, loss, depth):
    """A bound on the rates of (10.1) in v, or log v, while no logit is beyond 1 or its start, [b]."""

    def one(p, r, start):
        v = jnp.maximum(jnp.abs(start), 1)
        margins = types @ v
        bend = -jax.jvp(loss.residual, (0 * margins,), (jnp.ones_like(margins),))[1]
        if depth == 1:
            return jnp.max(r**2 * ((p * bend * (types @ jnp.ones_like(v))) @ types))
        return jnp.max(depth * r ** (2 / depth) * v ** (1 - 2 / depth) * ((p * bend * margins) @ types))

    return jax.vmap(one)(p, r, start)


def _pulls_back(loss: Loss, count: int) -> np.ndarray | None:
    """Which types have a loss that rises again, [S]; None where that can not be looked at."""
    inside = loss.loss if isinstance(loss, SpectralDecoupling) else loss
    if closed_form_of(inside) == "squared":
        return np.ones(count, bool)
    if not isinstance(loss, SpectralDecoupling) or isinstance(inside, Hinge):
        why = "hinge margins slide along 1" if isinstance(inside, Hinge) else "margins grow for ever"
        raise HypothesisError(
            "logits settle under a smooth loss that pulls back (section 10)",
            f"loss = {loss.name!r}: {why}",
            "SpectralDecoupling of cross-entropy, or feature_flow(...).features(t)",
        )
    loss.residual(jnp.zeros(count))  # a penalty for another number of types is an error here already
    return np.broadcast_to(np.asarray(loss.penalty) > 0, count) if is_concrete(loss.penalty) else None


@eqx.filter_jit
def _minimise(types: Array, probabilities: Array, loss: Loss, above_zero: bool) -> tuple[Array, Array]:
    """Projected Newton steps, lane by lane: [b, K], and whether each lane arrived, [b]."""
    floor = 0.0 if above_zero else -jnp.inf
    tolerance = {"float64": 1e-13, "float32": 2e-6}[types.dtype.name]

    def slopes(v, p, loss):
        """Gradient of F, its second derivatives, and the size of the terms the gradient is a sum of."""
        margins = types @ v
        residual, bend = jax.jvp(loss.residual, (margins,), (jnp.ones_like(margins),))
        hessian = jnp.einsum("sk,s,sj->kj", types, -p * bend, types)
        return -(p * residual) @ types, hessian, p @ types

    def value(v, p):
        return jnp.sum(p * loss.value(types @ v))

    def newton(v, p, loss):
        gradient, hessian, size = slopes(v, p, loss)
        held = (v <= floor) & (gradient >= 0)
        free = ~held
        pair = free[:, None] & free[None]
        matrix = jnp.where(pair, hessian, 0) + jnp.diag(held.astype(v.dtype))
        gradient = jnp.where(free, gradient, 0)
        return -jnp.linalg.solve(matrix, gradient), jnp.max(jnp.abs(gradient) / size)

    def one(p):
        def body(state):
            v, _, count = state
            step, _ = newton(v, p, loss)
            here = value(v, p)
            # The longest of the halved steps that does not raise F by more than its rounding, all tried at once.
            slack = 8 * jnp.finfo(v.dtype).eps * jnp.abs(here)
            lengths = 0.5 ** jnp.arange(_HALVINGS, dtype=v.dtype)
            tries = jnp.maximum(v + lengths[:, None] * step, floor)
            lower = jax.vmap(value, (0, None))(tries, p) <= here + slack
            after = jnp.where(lower.any(), tries[jnp.argmax(lower)], jnp.maximum(v + step, floor))
            return after, newton(after, p, loss)[1], count + 1

        start = jnp.zeros(types.shape[1], types.dtype)
        off = newton(start, p, loss)[1]
        v, off, _ = jax.lax.while_loop(lambda s: (s[1] > tolerance) & (s[2] < _MOST), body, (start, off, 0))
        return v, off <= tolerance

    def polished(p):
        v, reached = jax.lax.stop_gradient(one(jax.lax.stop_gradient(p)))
        # More steps: they change nothing but carry the derivatives, the first of them the first, the second the second.
        for _ in range(2):
            step = newton(v, p, loss)[0]
            v = v + step - jax.lax.stop_gradient(step)
        return v, reached

    return jax.vmap(polished)(probabilities)
