"""The limit direction of the neurons of a class: the maximum-margin direction of its points (13.1).

The limit v of the directions maximises the smallest margin min_i v.x_i / |v| over the points of one class. It points to the
point of their convex hull nearest to the origin, so it solves a quadratic programme of the size of the class, here exactly:
Lawson and Hanson's least-distance form, min |E lambda - e_last| over lambda >= 0 with columns (x_i, 1), by an active set.

Also here: discriminators (15.1).
"""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradstarve.ground import (
    HypothesisError,
    as_array,
    check_positive,
    deprecated,
    did_you_mean,
    is_concrete,
    quick_jit,
    real_arrays,
    shown,
    together,
)
from gradstarve.special import lambertw
from gradstarve.theory._speed import error_tail


class MaxMargin(eqx.Module):
    """The maximum-margin direction of one class through the origin.

    - `direction`: [*batch, d], the unit vector v; `margin`: [*batch], min_i v.x_i > 0;
    - `coefficients`: [*batch, n], alpha_i >= 0 with v / margin = sum_i alpha_i x_i; sum alpha_i = 1 / margin^2;
    - `support`: [*batch, n], the points with alpha_i > 0.
    """

    direction: Float[Array, "*batch d"]
    margin: Float[Array, "*batch"]
    coefficients: Float[Array, "*batch n"]
    support: Bool[Array, "*batch n"]


def max_margin_direction(points) -> MaxMargin:
    """The direction that every surviving neuron of a class tends to, with cross-entropy or exponential loss (13.1).

    `points` [*batch, n, d]: the points of one class; for class y = -1 too, give the points themselves. Neither their weights
    nor the initial network matter. 1 - cos between w_j and v falls like 1/log t, and the angle like 1/sqrt(log t): the part
    of w_j off the span of the support is constant, while |w_j| grows like sqrt(log t). Relative error 1e-12 in
    float64 for supports at angles of 0.1 degrees and more, for any norms of the points. (Coefficients are of the
    size 1 / (|x_i| margin), and inf if they overflow.) Differentiable in the points while the support
    does not change. `HypothesisError` for points that lie in no open half-space, and for points at the origin.

    >>> limit = max_margin_direction([[2.0, 0.0], [0.0, 1.0]])
    >>> [round(float(x), 4) for x in (*limit.direction, limit.margin)]
    [0.4472, 0.8944, 0.8944]
    """
    (points,) = real_arrays(points=points)
    if points.ndim < 2 or 0 in points.shape[-2:]:
        raise ValueError(f"points must be [*batch, n, d] with n, d >= 1, got shape {points.shape}")
    flat = points.reshape(-1, *points.shape[-2:])
    found, separable = _solve_all(flat)
    if is_concrete(separable) and not bool(separable.all()):
        worst = int(np.argmin(np.asarray(separable)))
        raise HypothesisError(
            "the points of a class lie on one side of a plane through the origin (13.1)",
            f"set {worst} of {flat.shape[0]} has a convex hull that holds the origin",
            "Dataset.separability(), which says which points are in the way",
        )
    return jax.tree.map(lambda leaf: leaf.reshape(*points.shape[:-2], *leaf.shape[1:]), found)


@quick_jit(eqx.filter_jit, few=0)
def _solve_all(points: Float[Array, "b n d"]):
    return jax.vmap(_solve)(points)


def _solve(points: Float[Array, "n d"]) -> tuple[MaxMargin, Bool[Array, ""]]:
    eps, dtype = jnp.finfo(points.dtype).eps, points.dtype
    # Directions u_i and norms, without the squares of very large or very small numbers.
    scale = jax.lax.stop_gradient(jnp.max(jnp.abs(points), axis=-1, keepdims=True))
    scaled = points / jnp.where(scale > 0, scale, 1)
    lengths = jnp.linalg.norm(jnp.where(scale > 0, scaled, 1), axis=-1, keepdims=True)
    unit, norms = scaled / lengths, jnp.where(scale > 0, scale * lengths, 0)[:, 0]
    # In units of the shortest point, v.x_i >= 1 is v.u_i >= c_i: for long points c_i is small, and all rows are of size one,
    # however much the norms differ.
    least = jnp.min(norms)
    wanted = least / jnp.where(norms > 0, norms, 1)

    def shortest(active):
        """The shortest v with v.u_i = c_i on the support, and the pseudo-inverse that gives it."""
        inverse = jnp.linalg.pinv(jnp.where(active[:, None], unit, 0))
        return inverse @ jnp.where(active, wanted, 0), inverse

    def search(_, state):
        # The second time in units in which |v| is about one, so that a narrow class is as accurate as a wide one.
        _, length = state
        active = _active_set(jnp.concatenate([unit, (wanted / length)[:, None]], axis=-1))
        length = jnp.linalg.norm(shortest(active)[0])
        return active, jnp.where(jnp.isfinite(length) & (length > 0), length, 1)

    begin = (jnp.zeros(norms.shape, bool), jnp.ones((), dtype))
    held = jax.lax.stop_gradient((unit, wanted))
    unit, wanted, given = *held, (unit, wanted)
    active, _ = jax.lax.fori_loop(0, 2, search, begin)
    unit, wanted = given
    normal, inverse = shortest(active)
    alpha = jnp.where(active, normal @ inverse, 0)
    length = jnp.linalg.norm(normal)
    slack = jnp.sqrt(eps) + 10 * points.shape[-1] * eps * length
    separable = (least > 0) & active.any() & ((unit @ normal) >= wanted - slack).all() & jnp.isfinite(length)
    alpha = jnp.where(active, alpha / jnp.where(norms > 0, norms, 1) / least, 0)
    return MaxMargin(normal / length, least / length, alpha, active), separable


def _active_set(columns: Float[Array, "n k"]) -> Bool[Array, " n"]:
    """Whether lambda_i > 0 in the solution of min |sum_i lambda_i column_i - e_last| over lambda >= 0 (Lawson and
    Hanson)."""
    n = columns.shape[0]
    last = jnp.zeros_like(columns[0]).at[-1].set(1)
    tolerance = 100 * jnp.finfo(columns.dtype).eps

    def fit(active):
        held = jnp.where(active[:, None], columns, 0)
        return jnp.where(active, jnp.linalg.lstsq(held.T, last)[0], 0)

    def body(carry):
        active, weights, growing, _, count = carry
        gain = jnp.where(active, -jnp.inf, columns @ (last - weights @ columns))
        new = jnp.argmax(gain)
        done = growing & (gain[new] <= tolerance)
        active = jnp.where(growing & ~done, active | (jnp.arange(n) == new), active)
        there = fit(active)
        # On the way to the new weights the first one to reach zero leaves the active set, and the others are fitted again.
        falls = active & (there <= 0)
        part = jnp.where(falls, weights / jnp.where(falls, weights - there, 1), jnp.inf)
        step = jnp.minimum(jnp.min(part), 1)
        moved = weights + step * (there - weights)
        stays = active & ~(falls & (part <= step))
        weights = jnp.where(done, weights, jnp.where(stays, moved, 0))
        return jnp.where(done, active, stays), weights, ~falls.any(), done, count + 1

    start = (jnp.zeros(n, bool), jnp.zeros(n, columns.dtype), jnp.array(True), jnp.array(False), 0)
    active, *_ = jax.lax.while_loop(lambda carry: ~carry[3] & (carry[4] < 20 * n + 20), body, start)
    return active


# The signal from a discriminator to its generator: the slope of the generator's loss along the direction of a class (15.1).
#
# The logit f is positively homogeneous in the input, so its slope along a class direction is f/r at a point of norm r, and
# fakes of margin m = -f have the slope m/r for every width. The generator's loss multiplies this by its own slope.

GENERATOR_LOSSES = ("minimax", "non-saturating", "hinge")


@deprecated("loss", "margin", "norm", kind="loss")
def generator_signal(norm, loss: str, margin) -> Float[Array, "..."]:
    """The size of d(generator loss)/dx along the fakes' direction, at a fake of norm r classified with margin m (15.1).

    "minimax" log(1 - P): sigmoid(-m) m/r · "non-saturating" -log P: sigmoid(m) m/r · "hinge" -f: m/r, P = sigmoid(f) the
    probability of real. `margin` m (positive: seen through) and `norm` r > 0 broadcast. Holds for every network without
    biases, trained or not; the margin as a function of time is that of section 3, `solve_mode(mode, loss).logit(t)`.

    >>> [round(float(generator_signal(1.0, loss, margin=2.0)), 4) for loss in GENERATOR_LOSSES]
    [0.2384, 1.7616, 2.0]
    """
    if not isinstance(loss, str) or loss not in GENERATOR_LOSSES:
        names = f"use one of {', '.join(map(repr, GENERATOR_LOSSES))}{did_you_mean(loss, GENERATOR_LOSSES)}"
        raise ValueError(f"unknown generator loss {shown(loss)}; {names}")
    margin, norm = together(margin=margin, norm=norm)
    check_positive("norm", norm)
    slope = {"minimax": jax.nn.sigmoid(-margin), "non-saturating": jax.nn.sigmoid(margin), "hinge": 1.0}[loss]
    return slope * margin / norm


def minimax_peak() -> Float[Array, ""]:
    """The margin at which the minimax signal is largest: m sigmoid(m) = 1, that is m = 1 + W(1/e) (15.1).

    A discriminator trained with cross-entropy passes this margin, and its signal then decreases; a discriminator trained
    with hinge loss stops at m = 1, below it.

    >>> round(float(minimax_peak()), 5)
    1.27846
    """
    return 1 + lambertw(jnp.exp(-1.0))


@deprecated("t", "frequency", "norm", "depth", layers="depth")
def minimax_tail(frequency, norm, *, t, depth: int = 2) -> Float[Array, "..."]:
    """The asymptote of the minimax signal of a discriminator trained with cross-entropy: e log(1/e)/r (15.1).

    e is the error of (6.3), `error_tail`, for a discriminator of N = `depth` layers: with T = N p r^(2/N) t the signal
    falls like (log T)^(2/N - 1) / (r T): log T / T for one layer, 1/T for two. Arguments as in `error_tail`.

    >>> [round(float(minimax_tail(0.5, 1.0, t=1e6, depth=n)) * 1e6, 3) for n in (1, 2)]
    [26.245, 1.0]
    """
    error = error_tail(frequency, norm, "cross-entropy", t, depth=depth)
    return -error * jnp.log(error) / as_array("norm", norm, error.dtype)
