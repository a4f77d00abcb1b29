"""Sign descent, the limit of Adam and RMSProp without memory: a mode grows by sums, not by factors (17.6).

Every weight moves by eta against the sign of its gradient. w_j moves by eta sign(e z_j) sign(x_i), where e = p r g(u) is
the pull of the neuron's class, so that its coordinate a_j along x moves by eta rho, rho = |x|_1 / |x|_2, and

    a_j <- a_j + eta rho sign(e z_j),    z_j <- z_j + eta sign(e a_j),

for any frequency and loss: only the sign of g(u) counts, or, with a leaky ReLU, the sign of the e of (22.1). With
g > 0 a neuron with a_j > 0 learns iff z_j > -a_j / rho, as eta -> 0.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.theory._descent import StepLaw, of_classes


class SignLaw(StepLaw):
    """The law (17.6). `a`, `z`: [*batch, h] at step 0; `reach`: rho of the line that contains all classes."""

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
    the slope of a leaky ReLU."""
    classes = of_classes(loss, dynamics, frequencies, norms, a)
    return SignLaw(*classes, None, signs, a, z, jnp.asarray(reach, a.dtype), slope=slope)
