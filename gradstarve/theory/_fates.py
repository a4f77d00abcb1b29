"""What becomes of a neuron: which class it ends in, and with what probability (4.1)-(4.4).

In the plane of a = w.xh and z the flow of a positive class runs along a^2 - z^2 = const. With a > 0: z > -a learns,
z < -a leaves at a finite angle of the clock, z = -a is the stable manifold of the saddle at the origin (4.1). The signs
are those of (8.1) too while step_size p r g < 1, so every statement here holds in discrete time as well.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import check_normal, check_normal_size, check_positive, is_concrete, positive_int, shown, together


def antipodal_fate(a, z) -> Float[Array, "*shape"]:
    """The class each neuron ends in on antipodal data: sign(a + z), a = w.x_+/|x_+| signed; any shape (4.3).

    Valid where the clock of its first class gets to the crossing: always for cross-entropy and exponential loss. With
    hinge or squared loss a class may stop first, and a neuron of the wrong sign stays where it is.

    >>> antipodal_fate([0.1, 0.1, -0.1], [0.5, -0.5, -0.5]).tolist()
    [1.0, -1.0, -1.0]
    """
    a, z = _weights(a, z)
    # Compared, not added: the sum of two floats may be too small for one.
    return jnp.where(a == 0, 0, (z > -a).astype(a.dtype) - (z < -a).astype(a.dtype))


def exclusive_fate(a, z) -> Float[Array, "*shape"]:
    """1 if a neuron exclusive to its class learns, 0 if it dies (or never saw the class); a, z in its orientation (4.1).

    >>> exclusive_fate([0.1, 0.1, -0.1], [0.5, -0.5, 0.5]).tolist()
    [1.0, 0.0, 0.0]
    """
    a, z = _weights(a, z)
    return ((a > 0) & (z > -a)).astype(a.dtype)


def _weights(a, z):
    a, z = together(a=a, z=z)
    check_normal("a", a)
    check_normal("z", z)
    return a, z


def learning_probability(scale_a=None, scale_z=None) -> Float[Array, "..."]:
    """1/2 + arctan(sigma_a / sigma_z) / pi: the chance that an exclusive Gaussian neuron learns (4.2).

    `scale_a`, `scale_z` > 0: standard deviations of w.xh and z, broadcast together. Only their ratio counts: give both, or
    neither for equal ones; `ValueError` for one alone.

    >>> float(learning_probability())
    0.75
    """
    if (scale_a is None) != (scale_z is None):
        given = f"scale_a = {shown(scale_a)}" if scale_z is None else f"scale_z = {shown(scale_z)}"
        raise ValueError(f"the chance depends on scale_a / scale_z, and only {given} was given; give both, or neither")
    scale_a, scale_z = (1.0, 1.0) if scale_a is None else (scale_a, scale_z)
    scale_a, scale_z = together(scale_a=scale_a, scale_z=scale_z)
    check_positive("scale_a", scale_a)
    check_positive("scale_z", scale_z)
    return 0.5 + jnp.arctan2(scale_a, scale_z) / jnp.pi


def class_failure_probability(width: int) -> float:
    """2^-h: the chance that a given one of two antipodal classes is never learnt, for symmetric initialisation (4.3).

    Both classes together never fail.

    >>> class_failure_probability(3)
    0.125
    """
    return 0.5 ** positive_int("width", width)


def dies_for_ever(alpha, beta, cosine) -> Array:
    """Whether a neuron of the wrong sign, exclusive to one of two classes at an obtuse angle, is dead for ever (4.4).

    `beta` = w.xh of its own class > 0, `alpha` = w.xh of the other <= 0, `cosine` of the angle in [-1, 0]: it leaves its
    class with alpha + |cosine| beta on the other, and wakes there iff that is positive. `ValueError` for numbers outside of
    these ranges; inside jit nothing is checked.

    >>> bool(dies_for_ever(-0.5, 0.4, -0.5)), bool(dies_for_ever(-0.1, 0.4, -0.5))
    (True, False)
    """
    alpha, beta, cosine = together(alpha=alpha, beta=beta, cosine=cosine)
    check_normal("alpha", alpha)
    check_positive("beta", beta)
    check_normal("cosine", cosine)
    for name, value, fine, rule in (
        ("alpha", alpha, alpha <= 0, "must be <= 0: the neuron is exclusive to the other class"),
        ("cosine", cosine, (cosine >= -1) & (cosine <= 0), "must be in [-1, 0]"),
    ):
        if is_concrete(value) and not bool(fine.all()):
            raise ValueError(f"{name} {rule}, got {np.asarray(value)[~np.asarray(fine)].flat[0]}")
    if is_concrete(beta) and is_concrete(cosine):
        with np.errstate(divide="ignore"):
            log_size = np.log(np.abs(np.asarray(cosine))) + np.log(np.asarray(beta))
        check_normal_size("cosine * beta", log_size, beta.dtype)
    return alpha + jnp.abs(cosine) * beta <= 0
