"""The adaptive Runge-Kutta integration behind `simulate_flow`, and the step control that suits a field with kinks."""

from __future__ import annotations

from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from gradstarve.ground import quick_jit
from gradstarve.problem import Loss, Network
from gradstarve.simulation.engines._reference import AnyData, batch_loss


@quick_jit(eqx.filter_jit, few=0)
@eqx.debug.assert_max_traces(max_traces=None)
def integrate(
    start: Network,
    data: AnyData,
    loss: Loss,
    since: Any,
    times: Float[Array | np.ndarray, " records"],
    rtol: Float[Array, ""],
    atols: Float[Array, " b"],
    loose: bool,
    max_steps: int,
    keep_networks: bool,
    reversible: bool,
) -> tuple[Network, Float[Array, "b records n ..."], Network | None, Int[Array, " b"]]:
    """The networks [b] at the last of the rising `times`, all above `since`; the logits (and with `keep_networks` the
    networks) at each of them; and the steps that each network took. Records not reached in `max_steps` are NaN. `loose`
    selects a method of order 5 instead of 8; without `reversible` there is no reverse-mode derivative, and compilation
    takes a third less time.
    """
    times = jnp.asarray(times)

    def field(t, network, _):
        return jax.tree.map(jnp.negative, jax.grad(batch_loss)(network, data, loss))

    def one(network, atol):
        # A network that failed in an earlier piece is set to 0, where nothing moves, so that it takes few steps here.
        lost = jnp.stack([jnp.isnan(leaf).any() for leaf in jax.tree.leaves(network)]).any()
        network = jax.tree.map(lambda leaf: jnp.where(lost, 0, leaf), network)
        controller = _Controller(rtol=rtol, atol=atol, norm=_largest, dtmin=jnp.zeros_like(times[-1]))

        def keep(t, network, _):
            return network(data.points), network if keep_networks else None

        run = diffrax.diffeqsolve(
            diffrax.ODETerm(field),
            diffrax.Tsit5() if loose else diffrax.Dopri8(),
            since,
            times[-1],
            None,
            network,
            # Steps end at the records: interpolation to the records was measured to lose a digit, for 10 % fewer steps.
            stepsize_controller=diffrax.ClipStepSizeController(controller, step_ts=times),
            saveat=diffrax.SaveAt(subs=(diffrax.SubSaveAt(ts=times, fn=keep), diffrax.SubSaveAt(t1=True))),
            adjoint=diffrax.RecursiveCheckpointAdjoint() if reversible else diffrax.ForwardMode(),
            max_steps=max_steps,
            throw=False,
        )
        assert run.ys is not None  # for the type checker: something was saved
        seen, last = run.ys
        lost_now = lost | (run.result != diffrax.RESULTS.successful)
        last = jax.tree.map(lambda leaf: jnp.where(lost_now, jnp.nan, leaf[0]), last)
        # The integrator leaves inf in the records that it did not reach.
        seen = jax.tree.map(lambda leaf: jnp.where(lost | ~jnp.isfinite(leaf), jnp.nan, leaf), seen)
        return last, *seen, jnp.asarray(run.stats["num_steps"], jnp.int32)

    return jax.vmap(one)(start, atols)


class _Controller(diffrax.PIDController):
    """A PID controller whose smallest step is a few ulps of the present time.

    The controller crosses a jump of the field with a step of this size at the latest. A fixed smallest step would not do:
    at late times it must exceed an ulp of t, and near t = 0 a network with large residuals moves faster than that.
    """

    def adapt_step_size(self, t0, t1, *args, **kwargs):
        """As in the parent, with `dtmin` set to four ulps of the present time."""
        least = 4 * jnp.finfo(jnp.result_type(t1)).eps * t0
        here = eqx.tree_at(lambda controller: controller.dtmin, self, least)
        return diffrax.PIDController.adapt_step_size(here, t0, t1, *args, **kwargs)


def _largest(errors: Any) -> Float[Array, ""]:
    """The largest entry, so that each single weight meets the tolerance, however many dead neurons there are.

    A trial step that overflows gives NaN, which counts as an infinite error: otherwise the next step size of the
    controller, and all later ones, would be NaN.
    """
    largest = jnp.max(jnp.stack([jnp.max(jnp.abs(leaf)) for leaf in jax.tree.leaves(errors)]))
    return jnp.where(jnp.isnan(largest), jnp.inf, largest)
