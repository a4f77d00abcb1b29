"""One path of N layers above its cut: a time that grows as e^u, and derivatives late in training without cancellation.

The flow (7.1) conserves log r and the differences D_l = b_l^2 - x^2 of the squares; with them the logit determines
everything: u^2 = r^2 prod (x^2 + D_l). As a function of the logit, time is

    p t = spent + integral_begin^u (c + e^v) k(v) dv,     k = p g dt/dv = 1 / (v^2 sum_l 1/(x^2 + D_l)),

so that du = [dt - dspent + ... - integral (c + e^v) dk dv] / ((c + e^u) k(u)), with dk at a fixed v. The other form, the
change of u with the start at fixed x plus its change with x, is a difference of terms that agree to e^-u. Equal weights that
change together leave all D_l unchanged: then dk is 0 to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

Real = Float[Array, "..."]
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(16)
_PANELS = 20
_BELOW_END = np.linspace(0, 48, _PANELS + 1)  # in u, below the end of the integral of e^u
_held = jax.lax.stop_gradient


class Kept(NamedTuple):
    """log r [...] and D_l [..., N], of which the smallest is 0."""

    log_norm: Real
    differences: Float[Array, "... N"]


@jax.custom_jvp
def square_at(known: Real, logit: Real, kept: Kept) -> Real:
    """x^2 at the logit `logit`: the value is `known`; this function supplies its derivatives."""
    return known


@square_at.defjvp
def _square_at_jvp(primals, tangents):
    (known, logit, kept), (_, dlogit, dkept) = primals, tangents
    square = square_at(known, logit, kept)
    parts = 1 / (square[..., None] + kept.differences)
    total = jnp.sum(parts, axis=-1)
    shares = parts / total[..., None]
    moved = 2 * (dlogit / logit - dkept.log_norm) / total - jnp.sum(shares * dkept.differences, axis=-1)
    return square, moved


@jax.custom_jvp
def density(known: Real, logit: Real, kept: Kept) -> Real:
    """k, at a square that is `known`."""
    square = square_at(known, logit, kept)
    return 1 / (logit**2 * jnp.sum(1 / (square[..., None] + kept.differences), axis=-1))


@density.defjvp
def _density_jvp(primals, tangents):
    (known, logit, kept), (_, dlogit, dkept) = primals, tangents
    value = density(known, logit, kept)
    parts = 1 / (square_at(known, logit, kept)[..., None] + kept.differences)
    total = jnp.sum(parts, axis=-1)
    shares = parts / total[..., None]
    # The difference of each layer from the first, then from the mean of all layers: exactly 0 for equal weights.
    more = parts * parts[..., :1] * (kept.differences[..., :1] - kept.differences)
    mean = jnp.sum(shares * more, axis=-1)
    bend = jnp.sum(shares * (more - mean[..., None]) * dkept.differences, axis=-1)
    grown = dlogit / logit
    return value, value * (2 * (parts[..., 0] + mean) / total * (grown - dkept.log_norm) - 2 * grown + bend)


def _slopes(function: Callable) -> Callable:
    """The derivatives of `function`(known, logit, kept) in log r and every D_l, along a last axis of 1 + N."""

    def each(known, logit, kept):
        def along(direction):
            tangent = Kept(direction[0] + 0 * kept.log_norm, direction[1:] + 0 * kept.differences)
            return jax.jvp(lambda kept: function(known, logit, kept), (kept,), (tangent,))[1]

        basis = jnp.eye(1 + kept.differences.shape[-1], dtype=kept.differences.dtype)
        return jnp.moveaxis(jax.vmap(along)(basis), 0, -1)

    return each


class Span(NamedTuple):
    """From the logit `begin` to `end` > `begin`, and the squares x^2 at both, which are not differentiated."""

    begin: Real
    end: Real
    begin_square: Real
    end_square: Real


def _nodes(span: Span, kept: Kept):
    """(x^2, how far v is below the end, weight) of every node, [..., nodes]."""
    square, end = span.end_square[..., None], span.end[..., None]
    steep = jnp.sum(square / (square + kept.differences), axis=-1)
    # Over w in log x^2 = log x_end^2 + 2 log(1 - w/u_end)/S_end, which is u_end - v where S is constant.
    most = -span.end * jnp.expm1(steep * (jnp.log(span.begin_square) - jnp.log(span.end_square)) / 2)
    edges = jnp.minimum(jnp.asarray(_BELOW_END, end.dtype), jnp.maximum(most, 0)[..., None])
    half = (edges[..., 1:] - edges[..., :-1])[..., None] / 2
    w = (edges[..., 1:] + edges[..., :-1])[..., None] / 2 + half * jnp.asarray(_NODES, end.dtype)
    weights = half * jnp.asarray(_WEIGHTS, end.dtype)
    w, weights = (values.reshape(*values.shape[:-2], _PANELS * _NODES.size) for values in (w, weights))
    less = jnp.expm1(2 * jnp.log1p(-w / end) / steep[..., None])  # x^2 / x_end^2 - 1
    there, below = square * (1 + less), square * less
    wide = kept.differences[..., None, :]
    below = -end * jnp.expm1(jnp.sum(jnp.log1p(below[..., None] / (square[..., None] + wide)), axis=-1) / 2)
    slope = jnp.sum(there[..., None] / (there[..., None] + wide), axis=-1)
    return there, below, weights * (end - below) * slope / (steep[..., None] * (end - w))


def tail(constant: float, function: Callable, span: Span, kept: Kept) -> Array:
    """e^-end times the integral of (c + e^v) `function` dv over `span`; [..., *what `function` gives at one v].

    `function`(known, logit, kept) is one of (square, v, kept), as `density` is.
    """

    @jax.custom_jvp
    def integral(span, kept):
        there, below, weights = _nodes(span, kept)
        end = span.end[..., None]
        wide = Kept(kept.log_norm[..., None], kept.differences[..., None, :])
        values = function(there, end - below, wide)
        weights = weights * (jnp.exp(-below) + constant * jnp.exp(-end))
        values = _like(weights, values) * values
        # Panel by panel, which in single precision is worth a digit.
        values = values.reshape(*span.end.shape, _PANELS, _NODES.size, *values.shape[weights.ndim :])
        return jnp.sum(jnp.sum(values, axis=weights.ndim), axis=span.end.ndim)

    @integral.defjvp
    def _(primals, tangents):
        (span, kept), (dspan, dkept) = primals, tangents
        value = integral(span, kept)
        at_end, at_begin = function(span.end_square, span.end, kept), function(span.begin_square, span.begin, kept)
        ending = _like((1 + constant * jnp.exp(-span.end)), at_end) * at_end - value
        beginning = _like(jnp.exp(span.begin - span.end) + constant * jnp.exp(-span.end), at_begin) * at_begin
        slopes = tail(constant, _slopes(function), span, kept)
        moved = _like(dspan.end, value) * ending - _like(dspan.begin, value) * beginning
        return value, moved + _along(slopes, dkept)

    return integral(span._replace(begin_square=_held(span.begin_square), end_square=_held(span.end_square)), kept)


def _like(values, others):
    """`values` with trailing axes of length 1, up to the number of axes of `others`."""
    return values.reshape(*values.shape, *(1,) * (others.ndim - values.ndim))


def _along(slopes, dkept: Kept):
    """The derivative along `dkept` from the slopes [..., *, 1 + N]."""
    direction = jnp.concatenate([dkept.log_norm[..., None], dkept.differences], axis=-1)
    direction = direction.reshape(*direction.shape[:-1], *(1,) * (slopes.ndim - direction.ndim), direction.shape[-1])
    return jnp.sum(slopes * direction, axis=-1)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def logit_after(constant: float, span: Span, kept: Kept, tau: Real, spent: Real) -> Real:
    """The logit at p t = `tau`, with p t = `spent` at the beginning of `span`: the value is span.end; this function supplies
    its derivatives."""
    return span.end


@logit_after.defjvp
def _logit_after_jvp(constant, primals, tangents):
    (span, kept, tau, spent), (dspan, dkept, dtau, dspent) = primals, tangents
    u = logit_after(constant, span, kept, tau, spent)
    here = span._replace(end=u)
    shrink = jnp.exp(-u) * rounding(constant, here, kept, tau - spent)
    begins = (constant * shrink + jnp.exp(span.begin - u)) * density(span.begin_square, span.begin, kept)
    slopes = tail(constant, _slopes(density), here, kept)
    moved = shrink * (dtau - dspent) + begins * dspan.begin - _along(slopes, dkept)
    return u, moved / ((1 + constant * shrink) * density(span.end_square, u, kept))


def rounding(constant: float, span: Span, kept: Kept, left: Real) -> Real:
    """e^(u - exact u), the correction for the rounding of u, from the time above the cut, which has all its digits."""
    span, kept, left = _held((span, kept, left))
    known = left * jnp.exp(-span.end)
    ratio = tail(constant, density, span, kept) / jnp.where(known > 0, known, 1)
    return jnp.where((span.end > span.begin + 3) & (jnp.abs(ratio - 1) < 0.01), ratio, 1)


def harmless(above, span: Span, kept: Kept) -> tuple[Span, Kept]:
    """`span` and `kept` in the elements `above` the cut, and harmless numbers in the others."""
    layers = kept.differences.shape[-1]
    others = Span(*(jnp.asarray(value, span.end.dtype) for value in (1.0, 2.0, 1.0, 2.0 ** (2 / layers))))
    span = Span(*(jnp.where(above, value, other) for value, other in zip(span, others, strict=True)))
    log_norm, differences = kept
    return span, Kept(jnp.where(above, log_norm, 0), jnp.where(above[..., None], differences, 0))
