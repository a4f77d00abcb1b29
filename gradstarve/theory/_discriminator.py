"""What a discriminator hands to its generator: the slope of the generator's loss along the class it discriminates (15.1).

The logit f is positively homogeneous in the input, so its slope along a class direction is f/r at a point of norm r, and
the fakes of margin m = -f have the slope m/r whatever the width. The generator's loss multiplies that by its own slope.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.ground import as_array, check_positive, did_you_mean, positive_int, shown, together
from gradstarve.special import lambertw
from gradstarve.theory._speed import error_tail

GENERATOR_LOSSES = ("minimax", "non-saturating", "hinge")


def generator_signal(kind: str, margin, norm) -> Float[Array, "..."]:
    """The size of d(generator loss)/dx along the fakes' direction, at a fake of norm r classified with margin m (15.1).

    "minimax" log(1 - P): sigmoid(-m) m/r · "non-saturating" -log P: sigmoid(m) m/r · "hinge" -f: m/r, P = sigmoid(f) the
    probability of real. `margin` m (positive: seen through) and `norm` r > 0 broadcast. Holds for every network without
    biases, trained or not; the margin as a function of time is that of section 3, `solve_mode(mode, loss).logit(t)`.

    >>> [round(float(generator_signal(kind, 2.0, 1.0)), 4) for kind in GENERATOR_LOSSES]
    [0.2384, 1.7616, 2.0]
    """
    if not isinstance(kind, str) or kind not in GENERATOR_LOSSES:
        names = f"use one of {', '.join(map(repr, GENERATOR_LOSSES))}{did_you_mean(kind, GENERATOR_LOSSES)}"
        raise ValueError(f"unknown generator loss {shown(kind)}; {names}")
    margin, norm = together(margin=margin, norm=norm)
    check_positive("norm", norm)
    slope = {"minimax": jax.nn.sigmoid(-margin), "non-saturating": jax.nn.sigmoid(margin), "hinge": 1.0}[kind]
    return slope * margin / norm


def minimax_peak() -> Float[Array, ""]:
    """The margin at which the minimax signal is largest: m sigmoid(m) = 1, that is m = 1 + W(1/e) (15.1).

    A discriminator trained with cross-entropy passes through it and hands on less and less; one trained with hinge loss
    stops at m = 1, short of it.

    >>> round(float(minimax_peak()), 5)
    1.27846
    """
    return 1 + lambertw(jnp.exp(-1.0))


def minimax_tail(t, frequency, norm, layers: int = 2) -> Float[Array, "..."]:
    """What the minimax signal of a discriminator trained with cross-entropy is asymptotic to: e log(1/e)/r (15.1).

    e is the error of (6.3), `error_tail`, for a discriminator of N = `layers` layers: with T = N p r^(2/N) t the signal
    falls like (log T)^(2/N - 1) / (r T): log T / T for one layer, 1/T for two. Arguments as in `error_tail`.

    >>> [round(float(minimax_tail(1e6, 0.5, 1.0, layers=n)) * 1e6, 3) for n in (1, 2)]
    [26.245, 1.0]
    """
    error = error_tail("cross-entropy", t, frequency, norm, positive_int("layers", layers))
    return -error * jnp.log(error) / as_array("norm", norm, error.dtype)
