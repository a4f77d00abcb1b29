"""The obvious simulator: `jax.grad` of the loss of one network, vmapped over the batch, scanned over the steps.

Slow and plain on purpose: the tests compare every faster engine with this one. Arrays are [b, ...], all batch axes in one.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from gradstarve.problem import ClassDataset, Dataset, Loss, Network, Steps, StochasticGradientDescent
from gradstarve.simulation.engines._engine import Engine
from gradstarve.simulation.engines._threefry import draw, thresholds

AnyData = Dataset | ClassDataset


class State(eqx.Module):
    """A batch of networks in the middle of a run: `networks` [b], the `memory` of their optimiser, and the step number."""

    networks: Network
    memory: Any
    step: Array


def unsupported(data: Any, network: Any, loss: Any, dynamics: Any) -> str | None:
    """Why this engine cannot run the problem: it runs every one."""
    return None


def start(networks: Network, dynamics: Any, keys: Array | None) -> State:
    """The state before step 0. `keys`: [b], for stochastic dynamics."""
    if isinstance(dynamics, StochasticGradientDescent):
        memory = keys
    elif isinstance(dynamics, Steps):
        memory = jax.vmap(dynamics.start)(networks)
    else:
        memory = jax.vmap(dynamics.init)(networks)
    return State(networks, memory, jnp.zeros((), jnp.int32))


def batch_loss(network: Network, data: AnyData, loss: Loss) -> Float[Array, ""]:
    """L = sum_i q_i l(m_i) of one network."""
    return jnp.sum(data.weights * loss.value(data.margins(network(data.points))))


def draw_point(key: Array, step: Array, weights: Float[Array, " n"]) -> Array:
    """The point i drawn at `step` with probability q_i by the network that owns `key`."""
    return draw(jax.random.bits(jax.random.fold_in(key, step), (), jnp.uint32), thresholds(weights))


def draw_points(key: Array, step: Array, weights: Float[Array, " n"], count: int) -> Array:
    """`count` points drawn at `step` with replacement, [count]; the first draw of one is that of `draw_point`."""
    if count == 1:
        return draw_point(key, step, weights)[None]
    return draw(jax.random.bits(jax.random.fold_in(key, step), (count,), jnp.uint32), thresholds(weights))


def _full_batch(network, memory, data, loss, dynamics: Steps):
    """One step by the gradient of the loss over all points; the rule is `update` of the dynamics."""
    return dynamics.update(network, memory, lambda network: jax.grad(batch_loss)(network, data, loss))


def _drawn_points(network, key, step, data, loss, dynamics: StochasticGradientDescent):
    """One step on the drawn points, all with equal weight: the weights of the data are the probabilities of the draws."""
    drawn = draw_points(key, step, data.weights, dynamics.batch_size)
    some, own = jax.tree.map(lambda leaf: leaf[drawn], data), loss.at(drawn)

    def value(network):
        return jnp.mean(own.value(some.margins(network(some.points))))

    return dynamics.update(network, None, lambda network: jax.grad(value)(network))[0]


def _optax(network, memory, data, loss, dynamics) -> tuple[Network, Any]:
    """One step of an optax optimiser, with the extra arguments that it accepts: the value and the loss function for line
    searches and Polyak steps, the gradient function for sharpness-aware steps."""
    import optax

    def value_of(network):
        return batch_loss(network, data, loss)

    value, gradient = jax.value_and_grad(value_of)(network)
    update = optax.with_extra_args_support(dynamics).update
    arguments = gradient, memory, network
    usual = {"value": value, "grad": gradient, "value_fn": value_of}
    try:
        updates, new = _with_what_it_takes(update, arguments, usual)
    except Exception:
        # Line searches refuse these further arguments; other optimisers need them.
        more = {"obj_fn": value_of, "grad_fn": lambda network, _=None: jax.grad(value_of)(network)}
        updates, new = _with_what_it_takes(update, arguments, usual | more)
    # Some optimisers change the dtype of a count or a scale, but the carry of a scan must keep its dtypes.
    new = jax.tree.map(lambda after, before: jnp.asarray(after, jnp.asarray(before).dtype), new, memory)
    trained: Any = optax.apply_updates(network, updates)
    return trained, new


def _with_what_it_takes(update: Any, arguments: tuple, extra: dict[str, Any]) -> Any:
    """`update(*arguments, **extra)` without the arguments in `extra` that `update`, or a part of it, does not accept."""
    while True:
        try:
            return update(*arguments, **extra)
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            if unknown is None or unknown[1] not in extra:
                raise
            extra = {name: value for name, value in extra.items() if name != unknown[1]}


def optax_fault(network: Network, data: AnyData, loss: Loss, dynamics: Any) -> str | None:
    """Why this optax optimiser cannot train this network, or None if it can; only shapes are computed."""

    def once(network):
        memory = dynamics.init(network)
        return memory, *_optax(network, memory, data, loss, dynamics)

    try:
        memory, trained, after = eqx.filter_eval_shape(once, network)
    except Exception as error:  # any error of an optimiser is the reason
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    for before, then in (((memory, after), "its state"), ((network, trained), "weights")):
        shapes = [[jnp.shape(leaf) for leaf in jax.tree.leaves(part)] for part in before]
        for old, new in zip(*shapes, strict=False):
            if old != new:
                return f"a step turns {then} of shape {old} into shape {new}"
    return None


def step(state: State, data: AnyData, loss: Loss, dynamics: Any) -> State:
    """All networks one step further. Hyperparameters of our own dynamics are [b]."""
    if isinstance(dynamics, Steps):
        dynamics = dynamics.at(state.step).spread(state.networks.batch_shape, state.networks.dtype)
    if isinstance(dynamics, StochasticGradientDescent):
        networks = jax.vmap(_drawn_points, in_axes=(0, 0, None, None, None, 0))(
            state.networks, state.memory, state.step, data, loss, dynamics
        )
        memory = state.memory
    elif isinstance(dynamics, Steps):
        networks, memory = jax.vmap(_full_batch, in_axes=(0, 0, None, None, 0))(
            state.networks, state.memory, data, loss, dynamics
        )
    else:
        stepped = jax.vmap(lambda network, memory: _optax(network, memory, data, loss, dynamics))
        networks, memory = stepped(state.networks, state.memory)
    return State(networks, memory, state.step + 1)


@eqx.filter_jit
@eqx.debug.assert_max_traces(max_traces=None)
def advance(
    state: State, data: AnyData, loss: Loss, dynamics: Any, records: int, every: int, keep_networks: bool
) -> tuple[State, Float[Array, "records b n ..."], Network | None]:
    """`records` times `every` steps, with the logits (and with `keep_networks` the networks) after each `every` steps.

    Compiled once for given shapes, `records` and `every`; a new step size, momentum or key needs no new compilation.
    """

    def one_step(state, _):
        return step(state, data, loss, dynamics), None

    def one_record(state, _):
        state, _ = jax.lax.scan(one_step, state, None, length=every)
        return state, (state.networks(data.points), state.networks if keep_networks else None)

    state, (logits, networks) = jax.lax.scan(one_record, state, None, length=records)
    return state, logits, networks


class Reference(Engine):
    """`jax.grad` of the loss of one network, vmapped and scanned: runs every problem."""

    name: ClassVar[str] = "reference"
    unsupported = staticmethod(unsupported)
    advance = staticmethod(advance)
