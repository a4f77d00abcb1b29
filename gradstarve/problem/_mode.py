"""One mode: one class whose points share a direction, with the neurons that see it."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    check_fits,
    check_normal,
    check_normal_size,
    check_positive,
    is_concrete,
    real_arrays,
)


class Mode(eqx.Module):
    """A class of total weight p = `frequency` at norm r = `norm` along a unit vector xh, in its own orientation.

    Neuron j enters by a_j = w_j . xh and z_j (for the class y = -1 with its sign turned), so that the logit in favour
    of the class is u = r sum_j (a_j)_+ z_j. Shapes: `a` and `z` [*batch, h], `frequency` and `norm` [] or [*batch]; one
    float dtype. A neuron with a_j <= 0 does not see the class and stays where it is. Each class of orthogonal data is
    such a mode. `ValueError` for shapes that do not fit, h = 0, p <= 0, p > 1, r <= 0, and entries that are not
    finite or that are subnormal, which compiled code takes for 0, or p r is.

    >>> mode = Mode(frequency=0.5, norm=1.0, a=[0.1, 0.2], z=[0.1, -0.1])
    >>> round(float(mode.logit), 6)
    -0.01
    """

    frequency: Float[Array, "..."]
    norm: Float[Array, "..."]
    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]

    def __init__(self, frequency, norm, a, z) -> None:
        frequency, norm, a, z = real_arrays(frequency=frequency, norm=norm, a=a, z=z)
        if a.ndim < 1 or a.shape != z.shape:
            raise ValueError(f"a and z must both be [*batch, h], got shapes {a.shape} and {z.shape}")
        if a.shape[-1] == 0:
            raise ValueError(f"a mode needs h >= 1 neurons, got a of shape {a.shape}")
        for name, value in (("frequency", frequency), ("norm", norm)):
            check_positive(name, value)
            check_fits(name, value, a.shape[:-1], f"a {a.shape}")
        check_normal("a", a)
        check_normal("z", z)
        if is_concrete(frequency) and is_concrete(norm):
            check_normal_size("frequency * norm", np.log(np.asarray(frequency)) + np.log(np.asarray(norm)), a.dtype)
        if is_concrete(frequency):
            shares = np.asarray(frequency)
            # Sums of weights may exceed 1 by their rounding.
            above = shares > 1 + 64 * np.finfo(shares.dtype).eps
            if above.any():
                raise HypothesisError(
                    "frequency p is the weight of the class among all samples, at most 1 (section 3)",
                    f"frequency = {shares[above].flat[0]:.6g}",
                    "count / total for samples that are counted, or longer times for a faster clock",
                )
        self.frequency, self.norm, self.a, self.z = frequency, norm, a, z

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """The axes in front of the neurons'."""
        return self.a.shape[:-1]

    @property
    def logit(self) -> Float[Array, "*batch"]:
        """u at the start: r sum_j (a_j)_+ z_j, [*batch]."""
        return self.norm * jnp.sum(jnp.maximum(self.a, 0) * self.z, axis=-1)
