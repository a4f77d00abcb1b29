"""kappa in discrete time: large steps, label noise and weight decay (19.1)-(19.5).

A mode is two numbers, rise = r sum (a_j + z_j)^2 / 4 and fall = r sum (a_j - z_j)^2 / 4: u = rise - fall is its logit and
kappa = 2 sqrt(rise fall) its distance from balance. With c = eta p r g(u) and d = 1 - eta lambda, a step of gradient
descent multiplies rise by (d + c)^2 and fall by (d - c)^2, hence

    kappa <- |d^2 - c^2| kappa,    u <- (d^2 + c^2) u + 2 d c sqrt(kappa^2 + u^2).

The flow conserves kappa. Each step lowers it by the share x^2 g^2, x = eta p r, which matters if g does not decay: while the
logit oscillates about its rest u*, where a step multiplies a small deviation by 1 + 2 x g'(u*) sqrt(kappa^2 + u*^2). For a
large kappa this factor is below -1, the edge of stability, and the oscillation lowers kappa until the rest is stable.

All of this holds while no neuron changes its activity: while a_j + c z_j > 0 in every step, which for |c| < 1 is true for
all neurons with |z_j| < a_j at the start.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    ConvergenceError,
    HypothesisError,
    check_least,
    check_normal,
    check_positive,
    check_together,
    is_concrete,
    positive_int,
    quick_jit,
    real_arrays,
    together,
)
from gradstarve.problem import Loss, as_loss, clock_of
from gradstarve.special import LinearClock, rest_after
from gradstarve.theory._inflection import kappa_critical
from gradstarve.theory._piecewise import check_times

Real = Float[Array, "..."]


def kappa_path(
    frequency: Any,
    norm: Any,
    kappa: Any,
    start: Any,
    loss: Loss | str,
    step_size: Any,
    *,
    steps: Any,
    weight_decay: Any = 0.0,
    targets: Any = None,
) -> tuple[Float[Array, "*batch steps"], Float[Array, "*batch steps"]]:
    """The logit u_k and kappa_k of one mode after 0, 1, ..., `steps` steps of gradient descent (19.1), (19.2), (19.5).

    kappa is multiplied by |(1 - eta lambda)^2 - (x g_k)^2| in step k, x = eta p r and g_k = g(u_k), for every loss, any
    number of neurons and any step size. Without decay, a logit u > 0 with g > 0 rises however large the step is.

    `frequency` p > 0, `norm` r > 0, `kappa` >= 0 and `start` (the logit u_0 in favour of the class, which is the margin of a
    label of ±1), `step_size` eta > 0 and `weight_decay` lambda >= 0 broadcast to the shape *batch. Returns (u, kappa), each
    [*batch, steps + 1], in float32 or float64 as the arguments; step k is at the time step_size * k. Exact but for rounding,
    about sqrt(steps) eps relative to sqrt(kappa^2 + u^2) at steps at which descent is stable. Valid while no neuron changes
    its activity, see the head of the module. Differentiable in all numbers; `steps` is an int.

    `targets` [*batch, steps]: descent with label noise, for squared loss: step k pulls the margin to xi_k, so that
    g_k = xi_k - u_k (19.4).

    `ValueError` for bad input and for targets of another loss; `ConvergenceError` where a number leaves the floats.

    >>> u, kappa = kappa_path(1.0, 1.0, 3.0, 0.9, "squared", 0.4, steps=2)     # 1 - (0.4 * 0.1)^2 = 0.9984
    >>> [round(float(k), 4) for k in kappa], [round(float(v), 4) for v in u]
    ([3.0, 2.9952, 2.9841], [0.9, 1.152, 0.766])
    """
    loss = as_loss(loss)
    steps = positive_int("steps", steps, minimum=0)
    named = {"frequency": frequency, "norm": norm, "kappa": kappa, "start": start, "step_size": step_size}
    named |= {"weight_decay": weight_decay}
    if targets is None:
        numbers, noise = together(**named), None
    else:
        if clock_of(loss) != LinearClock():
            raise ValueError(f'targets are for loss = "squared", got {loss!r}; leave the targets out')
        *numbers, noise = real_arrays(**named, targets=targets)
        if noise.shape[-1:] != (steps,):
            raise ValueError(f"targets must have shape [..., steps] with steps = {steps}, got shape {noise.shape}")
        check_together(**dict(zip(named, numbers, strict=True)), targets=noise[..., 0] if steps else noise.sum(-1))
    frequency, norm, kappa, start, step_size, weight_decay = numbers
    _check(frequency, norm, kappa, step_size)
    check_normal("start", start)
    check_least("weight_decay", weight_decay, 0.0)
    shape = jnp.broadcast_shapes(*(value.shape for value in numbers), () if noise is None else noise.shape[:-1])
    x, kept = step_size * frequency * norm, 1 - step_size * weight_decay
    x, kappa, start, kept = (jnp.broadcast_to(value, shape) for value in (x, kappa, start, kept))
    if noise is not None:
        noise = jnp.moveaxis(jnp.broadcast_to(noise, (*shape, steps)), -1, 0)
    u, kappa = _path(loss, x, kappa, start, kept, noise, steps)
    _check_finite(np.moveaxis(np.asarray(u + kappa), -1, 0) if is_concrete(u) else None, step_size)
    return u, kappa


def edge_of_stability(frequency: Any, norm: Any, loss: Loss | str, step_size: Any) -> Float[Array, "..."]:
    """The kappa below which the rest u* of the loss is stable under gradient descent, and above which it is not (19.3).

    Stable iff x |g'(u*)| sqrt(kappa^2 + u*^2) < 1, x = eta p r: step_size times the largest curvature of the loss at u* is
    below 2. Squared loss: sqrt(1/x^2 - 1). The edge is 0 if the rest is stable for no kappa, and inf if it is stable for all
    kappa: for hinge loss, whose residual is 0 from the margin on, so that a logit stays where it lands. It is also inf for a
    loss without a finite rest (cross-entropy, exponential), where it has no meaning. At a kink |g'| is the harmonic mean of
    the slopes on both sides, infinite for a jump: a rest at which g jumps from above 0 to below 0 (hinge loss with flipped
    labels) is never stable, and its edge is 0.

    `frequency` p, `norm` r and `step_size` eta, all > 0, broadcast. The rest is `loss.rest`, or, for a loss that does not
    name it, the first zero of g from 0 on. Relative error a few ulp, away from an edge of 0. Differentiable. `ValueError`
    for numbers that are not > 0. Source: the linear stability of descent at a minimum, with |grad u|^2 from (19.1).

    >>> from gradstarve.problem import FlippedLabels
    >>> [round(float(edge_of_stability(1.0, 1.0, loss, 0.4)), 4) for loss in ("squared", "hinge", "cross-entropy")]
    [2.2913, inf, inf]
    >>> [round(float(edge_of_stability(1.0, 1.0, FlippedLabels(loss, 0.2), 0.4)), 4) for loss in ("cross-entropy", "hinge")]
    [15.5634, 0.0]
    """
    frequency, norm, step_size = together(frequency=frequency, norm=norm, step_size=step_size)
    for name, value in (("frequency", frequency), ("norm", norm), ("step_size", step_size)):
        check_positive(name, value)
    x = step_size * frequency * norm
    return _edge(as_loss(loss), x)


def catapult(
    frequency: Any,
    norm: Any,
    kappa: Any,
    start: Any,
    loss: Loss | str,
    step_size: Any,
    *,
    max_steps: Any = 10_000,
) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """The logit and the kappa at which gradient descent with large steps comes to rest, (u, kappa) (19.3).

    Above `edge_of_stability` the logit oscillates about its rest, which lowers kappa by (19.1) as long as |x g| < sqrt(2),
    until the rest is stable. This function runs the recurrence of `kappa_path` until steps change u by rounding only. Far
    above the edge descent diverges instead. A logit that starts at its rest stays there, stable or not.

    `frequency` p > 0, `norm` r > 0, `kappa` >= 0, `start` (the logit u_0 in favour of the class) and `step_size` eta > 0
    broadcast; both results have their common shape and dtype. The logit is off its rest by at most 8 eps
    sqrt(kappa^2 + u^2) / (x |g'|); oscillations far above the edge are chaotic and enlarge rounding. Differentiable. Valid
    while no neuron changes its activity, see the head of the module.

    `ConvergenceError` if it does not come to rest within `max_steps` or overflows (NaN under jit); `HypothesisError` for
    a loss whose logits grow for ever; `ValueError` for bad input. Named after Lewkowycz et al. 2020 (arXiv:2003.02218).

    >>> u, kappa = catapult(1.0, 1.0, [2.0, 3.0], 0.9, "squared", 0.4)         # the edge is 2.2913
    >>> u.round(4).tolist(), [round(float(k), 3) for k in kappa]
    ([1.0, 1.0], [1.992, 1.367])
    """
    loss = as_loss(loss)
    max_steps = positive_int("max_steps", max_steps)
    named = {"frequency": frequency, "norm": norm, "kappa": kappa, "start": start, "step_size": step_size}
    frequency, norm, kappa, start, step_size = together(**named)
    _check(frequency, norm, kappa, step_size)
    check_normal("start", start)
    rest = _rest(loss, start.dtype)
    if is_concrete(rest) and np.isposinf(np.asarray(rest)).all():
        raise HypothesisError(
            "the logit comes to rest (19.3)", f"loss = {loss!r} has no finite rest", "kappa_path(..., steps=...)"
        )
    x, kappa, start = jnp.broadcast_arrays(step_size * frequency * norm, kappa, start)
    u, kappa, held = _run(loss, x, kappa, start, max_steps)
    if is_concrete(held) and not np.asarray(held).all():
        gone = ~np.isfinite(np.asarray(u))
        if gone.any():
            raise ConvergenceError(_diverged(step_size, f"within {max_steps} steps"))
        loose = float(np.asarray(jnp.where(held, 0, jnp.abs(x * loss.residual(u)))).max())
        raise ConvergenceError(
            f"the oscillation still has |x g(u)| = {loose:.3g} after {max_steps} steps; use a larger max_steps, or a kappa "
            "that is not next to edge_of_stability(...)"
        )
    return jnp.where(held, u, jnp.nan), jnp.where(held, kappa, jnp.nan)


def decayed_kappa(kappa: Any, weight_decay: Any, t: Any) -> Float[Array, "..."]:
    """kappa(t) = kappa e^(-2 lambda t) of a mode under gradient flow with weight decay lambda, for every loss (19.5).

    `kappa` >= 0 at t = 0, `weight_decay` lambda >= 0, and `t` >= 0 in time (step size x step), finite; all broadcast. The
    logit obeys du/dt = 2 p r g(u) sqrt(kappa(t)^2 + u^2) - 2 lambda u. Relative error a few ulp of 1 + 2 lambda t.
    `ValueError` for numbers below 0.

    >>> round(float(decayed_kappa(2.0, 0.1, 5.0)), 6)                           # 2/e
    0.735759
    """
    kappa, weight_decay = together(kappa=kappa, weight_decay=weight_decay)
    for name, value in (("kappa", kappa), ("weight_decay", weight_decay)):
        check_normal(name, value)
        check_least(name, value, 0.0)
    t = check_times(t, kappa.dtype)
    check_together(kappa=kappa, weight_decay=weight_decay, t=t)
    return kappa * jnp.exp(-2 * weight_decay * t)


def lazy_to_rich_time(kappa: Any, weight_decay: Any, loss: Loss | str = "cross-entropy") -> Float[Array, "..."]:
    """The time log(kappa/kappa_c) / (2 lambda) at which weight decay has brought a lazy mode to the rich regime (19.5).

    kappa_c is `kappa_critical(loss)`, below which an error curve without decay is sigmoidal (5.2). 0 if `kappa`, the value
    at the start, is at most kappa_c. `kappa` >= 0 and `weight_decay` lambda > 0 broadcast; the unit is time, step size x
    step. `HypothesisError` for hinge loss and losses without a kappa_c, `ValueError` for bad numbers.

    >>> round(float(lazy_to_rich_time(5.852119534, 0.1)), 4)                    # log(10) / 0.2
    11.5129
    """
    kappa, weight_decay = together(kappa=kappa, weight_decay=weight_decay)
    check_normal("kappa", kappa)
    check_least("kappa", kappa, 0.0)
    check_positive("weight_decay", weight_decay)
    lazy = kappa / jnp.asarray(kappa_critical(loss), kappa.dtype)
    return jnp.log(jnp.maximum(lazy, 1)) / (2 * weight_decay)


def squared_gradient_norm(norm: Any, kappa: Any, logit: Any) -> Float[Array, "..."]:
    """|grad u|^2 = 2 r sqrt(kappa^2 + u^2), over all weights: the neural tangent kernel of a mode with itself (19.1).

    `norm` r > 0, `kappa` >= 0 and `logit` u broadcast. p |g'(u*)| times it is the largest curvature of the loss at a rest
    u*, its sharpness. Relative error a few ulp. `ValueError` for a norm that is not > 0 or a kappa below 0.

    >>> float(squared_gradient_norm(0.5, 3.0, 4.0))
    5.0
    """
    norm, kappa, logit = together(norm=norm, kappa=kappa, logit=logit)
    check_positive("norm", norm)
    check_normal("kappa", kappa)
    check_least("kappa", kappa, 0.0)
    check_normal("logit", logit)
    return 2 * norm * _size(kappa, logit)


def _check(frequency: Real, norm: Real, kappa: Real, step_size: Real) -> None:
    for name, value in (("frequency", frequency), ("norm", norm), ("step_size", step_size)):
        check_positive(name, value)
    check_normal("kappa", kappa)
    check_least("kappa", kappa, 0.0)


def _diverged(step_size: Real, when: str) -> str:
    largest = f"step_size = {np.asarray(step_size).max():.6g}" if is_concrete(step_size) else "this step size"
    return f"gradient descent diverges {when} with {largest}; use a smaller step size"


def _check_finite(values: np.ndarray | None, step_size: Real) -> None:
    """`ConvergenceError` that names the first step, axis 0 of `values`, with a number that is not finite."""
    if values is not None and not np.isfinite(values).all():
        first = int(np.argmax(~np.isfinite(values.reshape(len(values), -1)).all(axis=-1)))
        raise ConvergenceError(_diverged(step_size, f"at step {first}"))


def _size(kappa: Real, u: Real) -> Real:
    """sqrt(kappa^2 + u^2), with the derivative 0 at 0."""
    zero = (kappa == 0) & (u == 0)
    return jnp.where(zero, 0, jnp.hypot(jnp.where(zero, 1, kappa), u))


def _halves(kappa: Real, u: Real) -> tuple[Real, Real]:
    """(rise, fall), neither by a difference."""
    large = (_size(kappa, u) + jnp.abs(u)) / 2
    small = kappa / 2 * (kappa / jnp.where(large > 0, 2 * large, 1))
    return jnp.where(u >= 0, large, small), jnp.where(u >= 0, small, large)


def _step(state: tuple[Real, Real, Real], c: Real, kept: Real | float = 1.0) -> tuple[Real, Real, Real]:
    """(rise, fall, kappa) after a step with c = x g(u)."""
    rise, fall, kappa = state
    grown, shrunk = kept + c, kept - c
    return rise * grown**2, fall * shrunk**2, kappa * jnp.abs(grown * shrunk)


@quick_jit(eqx.filter_jit, few=0)
def _path(loss: Loss, x: Real, kappa: Real, start: Real, kept: Real, noise: Real | None, steps: int):
    def step(state, target):
        u = state[0] - state[1]
        state = _step(state, x * (loss.residual(u) if target is None else target - u), kept)
        return state, (state[0] - state[1], state[2])

    _, later = jax.lax.scan(step, (*_halves(kappa, start), kappa), noise, length=steps)
    whole = (jnp.concatenate([first[None], rest]) for first, rest in zip((start, kappa), later, strict=True))
    u, kappa = (jnp.moveaxis(value, 0, -1) for value in whole)
    return u, kappa


@quick_jit(eqx.filter_jit, few=0)
def _run(loss: Loss, x: Real, kappa: Real, start: Real, max_steps: int):
    """The state after `max_steps`, and whether it is at rest. A scan, so that both modes of derivatives work.

    A state that changes by rounding only is no longer updated. Next to the edge, rounding causes somewhat larger changes.
    """
    eps = float(jnp.finfo(x.dtype).eps)

    def step(carry, _):
        state, _ = carry
        rise, fall, kappa = state
        then = _step(state, x * loss.residual(rise - fall))
        moved = jnp.abs((then[0] - then[1]) - (rise - fall))

        def holds(slack):
            return (moved <= slack * (rise + fall)) & (jnp.abs(then[2] - kappa) <= slack * kappa)

        state = tuple(jnp.where(holds(16 * eps), old, new) for old, new in zip(state, then, strict=True))
        return (state, holds(eps**0.75)), None

    begin = (*_halves(kappa, start), kappa)
    (state, held), _ = jax.lax.scan(step, (begin, jnp.zeros(x.shape, bool)), length=max_steps)
    return state[0] - state[1], state[2], held


# --- the edge ----------------------------------------------------------------------------------------------------------


def _rest(loss: Loss, dtype: Any) -> Real:
    """u*, inf if there is none: the rest that the loss names, or the first zero of g from 0 on."""
    if loss.rest is None:
        return rest_after(loss, jnp.zeros((), dtype))
    return jnp.asarray(loss.rest, dtype)


@quick_jit(eqx.filter_jit, few=0)
def _edge(loss: Loss, x: Real) -> Real:
    found = _rest(loss, x.dtype)
    some = jnp.isfinite(found)
    rest = jnp.where(some, found, 0)

    def slope(u):
        return -jax.jvp(loss.residual, (u,), (jnp.ones_like(u),))[1]

    # A jump of g, or of its slope, is as large 16 times nearer to the rest.
    near = jnp.finfo(x.dtype).eps ** 0.5
    reach = near * (1 + jnp.abs(rest))
    far, close = ([rest - part * reach, rest + part * reach] for part in (1, 1 / 16))
    jumps = [jnp.abs(loss.residual(v)) > jnp.abs(loss.residual(u)) / 2 for u, v in zip(far, close, strict=True)]
    wide = jnp.abs(slope(far[1]) - slope(far[0]))
    below, above = (jnp.where(jump, 0, slope(v)) for jump, v in zip(jumps, close, strict=True))
    total = jnp.where(below + above == 0, 1, below + above)
    bend = jnp.abs(below - above)
    bends = (bend > wide / 2) & (bend > near * jnp.abs(total))
    steep = jnp.where(bends, 2 * below * above / total, slope(rest))
    steep = jnp.where(jumps[0] ^ jumps[1], 2 * (below + above), steep)
    wild = jumps[0] & jumps[1]
    # (1/(x g') - u*)(1/(x g') + u*), without the overflow of squares and without their cancellation.
    flat = (steep == 0) & ~wild
    reach = 1 / (x * jnp.where(steep == 0, 1, jnp.abs(steep)))
    size = jnp.abs(rest)
    stable = some & ~flat & ~wild & (reach > size) & (steep > 0)
    edge = jnp.sqrt(jnp.where(stable, reach - size, 1)) * jnp.sqrt(jnp.where(stable, reach + size, 1))
    return jnp.where(~some | flat, jnp.inf, jnp.where(stable, edge, 0))

