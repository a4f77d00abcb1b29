"""Sign descent, what Adam and RMSProp become without memory: a mode grows by sums, not by factors (17.6).

Every weight moves by eta against the sign of its gradient. Of w_j that is eta sign(e z_j) sign(x_i), where e = p r g(u) is
the pull of the class that the neuron sees, so that its coordinate a_j along x moves by eta rho, rho = |x|_1 / |x|_2, and

    a_j <- a_j + eta rho sign(e z_j),    z_j <- z_j + eta sign(e a_j),

whatever the frequency and the loss: only the sign of g(u) counts, or, with a leaky ReLU, that of e as (22.1) has it. With
g > 0 a neuron with a_j > 0 learns iff z_j > -a_j / rho, as eta -> 0.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.theory._descent import StepLaw, of_classes


class SignLaw(StepLaw):
    """The law (17.6). `a`, `z`: [*batch, h] at step 0; `reach`: rho, of the direction that the classes share."""

    a: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]
    reach: Float[Array, ""]

    @property
    def first(self):
        """a_j, z_j and the step number."""
        return self.a, self.z, jnp.zeros((), jnp.int32)

    def step(self, state):
        """All weights one step further."""
        a, z, count = state
        step_size = self.dynamics.at(count).step_size[..., None]
        pull = self._pull(self.logits_of(state), self._members(a))
        later_a = a + step_size * self.reach * jnp.sign(pull) * jnp.sign(z)
        return later_a, z + step_size * jnp.sign(pull) * jnp.sign(a), count + 1


def new_sign_law(loss, dynamics, frequencies, norms, a, z, signs, reach, slope=0.0) -> SignLaw:
    """The law for neurons `a`, `z` [*batch, h]; `frequencies`, `norms`: a number or [*batch] for each class; `slope`:
    that of a leaky ReLU."""
    classes = of_classes(loss, dynamics, frequencies, norms, a)
    return SignLaw(*classes, None, signs, a, z, jnp.asarray(reach, a.dtype), slope=slope)
