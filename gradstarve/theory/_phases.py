"""Task switches: label flips and other frequencies, phase after phase (21.1).

The law of a phase starts from the network at the end of the one before. Flipping the labels of a class reverses its clock s.
A neuron that starts at (a > 0, z) has the coordinate a cosh s + z sinh s. If the clock has run over [lowest, highest],
lowest <= 0 <= highest, the neuron is still alive iff

    -a / tanh(highest) < z < a / tanh|lowest|.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from gradstarve.ground import (
    HypothesisError,
    check_normal,
    check_positive,
    fields_html,
    is_concrete,
    short_repr,
    shown,
    together,
)
from gradstarve.problem import Dataset, GradientFlow, Loss, PhasedCurve, Phases, TwoLayerReLU, beginnings, phase_at
from gradstarve.theory._descent import check_steps, may_be_nonzero
from gradstarve.theory._piecewise import check_times


def check_kept(dynamics: Any, phases: int) -> None:
    """`HypothesisError` for momentum: the law of a phase starts without velocities."""
    if phases > 1 and may_be_nonzero(getattr(dynamics, "momentum", 0)):
        hypothesis, instead = "a phase starts from the weights alone (21.1)", "simulate(...), or no momentum"
        raise HypothesisError(hypothesis, "momentum carries velocities into it", instead)


def local(t: Any, until: tuple[float, ...], steps: bool, dtype: Any) -> tuple[Any, list[Any]]:
    """t as an array, and t within each phase, clipped to the phase: (t, [t of phase 0, ...])."""
    counted: Any = check_steps(t) if steps else check_times(t, dtype)
    if is_concrete(counted) and np.any(np.asarray(counted) > until[-1]):
        late = np.max(np.asarray(counted))
        raise ValueError(f"the last phase ends at {until[-1]:g}, before t = {late:g}; end it with None to go on")
    module: Any = np if steps else jnp
    places = []
    for begin, end in zip(beginnings(until), until, strict=True):
        first: Any = int(begin) if steps else begin
        last: Any = None if np.isinf(end) else int(end) if steps else end
        places.append(module.clip(counted, first, last) - first)
    return counted, places


def chosen(parts: list[Any], which: Any, offset: int) -> Any:
    """The leaves of `parts`[which], whose axes of t are `offset` axes before the end, after those of a batch."""

    def pick(*leaves: Array) -> Array:
        after = leaves[0].ndim - offset
        found = leaves[0]
        for number, leaf in enumerate(leaves[1:], 1):
            here = jnp.asarray(which == number)
            found = jnp.where(here.reshape(*here.shape, *(1,) * offset) if after else here, leaf, found)
        return found

    return jax.tree.map(pick, *parts)


class PhasedSolution(PhasedCurve):
    """The exact learning curve of a network whose data change, made by `solve([(until, data), ...], network, ...)`.

    `parts`: the `Solution` of each phase, whose t begins at 0; `data`: of the first phase. t is time for the
    flow and the step number for descent.

    >>> from gradstarve.problem import datasets
    >>> from gradstarve.theory import solve
    >>> data = datasets.antipodal()
    >>> flipped = Dataset(data.points, -data.labels, data.weights)
    >>> net = TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
    >>> solution = solve([(20.0, data), (None, flipped)], net, "hinge")
    >>> solution.margins(20.0).round(3).tolist(), solution.margins(40.0).round(3).tolist()
    ([1.0, 1.0], [1.0, 1.0])
    """

    __repr__ = short_repr

    data: Dataset
    loss_function: Loss
    phases: Phases
    parts: tuple[Any, ...]
    dynamics: Any

    @property
    def start(self) -> TwoLayerReLU:
        """The network at t = 0."""
        return self.parts[0].start

    def logits(self, t=None) -> Float[Array, "..."]:
        """f(x_i) at t: [*batch, *t.shape, n]."""
        when, places = self._places(self._when(t))
        found = [part.logits(place) for part, place in zip(self.parts, places, strict=True)]
        return chosen(found, self.phases.number(when), 1)

    def network(self, t: Any) -> TwoLayerReLU:
        """The network at t, axes [*batch, *t.shape]."""
        when, places = self._places(t)
        found = [part.network(place) for part, place in zip(self.parts, places, strict=True)]
        which = self.phases.number(when)
        w, z = ([getattr(network, name) for network in found] for name in ("w", "z"))
        return TwoLayerReLU(chosen(w, which, 2), chosen(z, which, 1), self.start.slope)

    def _places(self, t: Any) -> tuple[Any, list[Any]]:
        return local(t, self.phases.until, self._unit == "step", self._dtype)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.start.batch_shape

    @property
    def _dtype(self) -> Any:
        return self.start.dtype

    @property
    def _unit(self) -> str:
        return "time" if isinstance(self.dynamics, GradientFlow) else "step"

    def _time_to(self, what: str, level: Array, max_steps: int) -> Array:
        first = jnp.full((*self._batch, *level.shape), jnp.inf, level.dtype)
        for part, begin, end in zip(self.parts, self.phases.since, self.phases.until, strict=True):
            most = max_steps if np.isinf(end) else min(max_steps, max(int(end - begin), 1))
            # At step 0 of a later phase the curve still has the data of the phase before.
            more = {"least": 1} if begin and self._unit == "step" else {}
            found = part._time_to(what, level, most, **more)
            first = jnp.minimum(first, jnp.where(found <= end - begin, begin + found, jnp.inf))
        return first


class PhasedMode(eqx.Module):
    """One `mode` with changing frequency and label flips, made by `solve_mode(..., phases=[(until, p), ...])`.

    A negative p flips the labels of the class. `parts`: the law of each phase, in its own orientation; `signs`: +1, or -1
    where labels are flipped.

    >>> from gradstarve.problem import Mode
    >>> from gradstarve.theory import solve_mode
    >>> mode = Mode(0.5, 1.0, a=[0.1], z=[0.1])
    >>> solution = solve_mode(mode, "hinge", phases=[(10.0, 0.5), (None, -0.5)])
    >>> float(solution.logit(10.0).round(3)), float(solution.logit(60.0).round(3))   # its only neuron dies of the flip
    (1.0, 0.0)
    """

    __repr__ = short_repr
    _repr_html_ = fields_html

    parts: tuple[Any, ...]
    signs: tuple[int, ...] = eqx.field(static=True)
    until: tuple[float, ...] = eqx.field(static=True)
    steps: bool = eqx.field(static=True)

    def _read(self, t: Any, read: Any, offset: int) -> Any:
        dtype = self.parts[0]._dtype
        when, places = local(t, self.until, self.steps, dtype)
        which = phase_at(self.until, when)
        found = [read(part, sign, place) for part, sign, place in zip(self.parts, self.signs, places, strict=True)]
        return chosen(found, which, offset)

    def logit(self, t: Any) -> Float[Array, "..."]:
        """u(t) in favour of the label of the first phase that has p > 0, [*batch, *t.shape]."""
        return self._read(t, lambda part, sign, place: sign * part.logit(place), 0)

    def margin(self, t: Any) -> Float[Array, "..."]:
        """The margin at t, with the label of the class at t: [*batch, *t.shape]."""
        return self._read(t, lambda part, sign, place: part.logit(place), 0)

    def weights(self, t: Any) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(a_j, z_j) at t, z_j in the orientation of `logit`: each [*batch, *t.shape, h]."""

        def read(part: Any, sign: int, place: Any) -> tuple[Array, Array]:
            a, z = part.weights(place)
            return a, sign * z

        return self._read(t, read, 1)

    def clock_range(self) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
        """(lowest, highest) s of the clock a cosh s + z sinh s over all phases with an end, each [*batch].

        `ValueError` for dynamics in steps, whose clock is a product of factors.
        """
        if self.steps:
            raise ValueError("the clock of steps is a product of factors; clock_range is of the flow, without dynamics")
        s = jnp.zeros_like(self.parts[0].angle(0.0))
        low = high = s
        for part, sign, begin, end in zip(self.parts, self.signs, beginnings(self.until), self.until, strict=True):
            if np.isfinite(end):
                s = s + sign * part.angle(end - begin) / 2
                low, high = jnp.minimum(low, s), jnp.maximum(high, s)
        return low, high


def still_alive(a: Any, z: Any, lowest: Any, highest: Any) -> Bool[Array, "..."]:
    """Whether a neuron that started at (a, z) is active on its class after the clock has run over [`lowest`, `highest`]
    (21.1):

    a > 0 and -a / tanh(highest) < z < a / tanh|lowest|. `lowest` <= 0 <= `highest`, finite (20 is a long task); all
    broadcast. `PhasedMode.clock_range` gives the two. `ValueError` for numbers outside of these ranges.

    >>> still_alive(0.1, [0.2, -0.05, -0.2], 0.0, 3.0).tolist()
    [True, True, False]
    >>> still_alive(0.1, [0.2, -0.05, -0.2], -3.0, 3.0).tolist()
    [False, True, False]
    """
    a, z, lowest, highest = together(a=a, z=z, lowest=lowest, highest=highest)
    check_normal("a", a)
    check_normal("z", z)
    _check_range(lowest, highest)
    return (a > 0) & (a + z * jnp.tanh(highest) > 0) & (a + z * jnp.tanh(lowest) > 0)


def alive_share(lowest: Any, highest: Any, *, scale_a: Any = None, scale_z: Any = None) -> Float[Array, "..."]:
    """The share of Gaussian neurons of a class still alive when its clock has run over [`lowest`, `highest`] (21.1):

    [arctan(c / tanh(highest)) + arctan(c / tanh|lowest|)] / pi, c = `scale_a` / `scale_z`, the standard deviations of w.xh
    and z (both or neither, for equal ones). Of all neurons with a > 0, 3/4 survive a long task; 2/3 of the survivors survive
    its first flip, and then all later flips. `ValueError` unless lowest <= 0 <= highest.

    >>> round(float(alive_share(0.0, 20.0)), 6), round(float(alive_share(-20.0, 20.0)), 6)
    (0.75, 0.5)
    """
    if (scale_a is None) != (scale_z is None):
        raise ValueError(f"give both scale_a and scale_z, or neither; got {shown(scale_a)} and {shown(scale_z)}")
    scales = (1.0, 1.0) if scale_a is None else (scale_a, scale_z)
    lowest, highest, scale_a, scale_z = together(lowest=lowest, highest=highest, scale_a=scales[0], scale_z=scales[1])
    check_positive("scale_a", scale_a)
    check_positive("scale_z", scale_z)
    _check_range(lowest, highest)
    low, high = (jnp.arctan2(scale_a, scale_z * jnp.tanh(jnp.abs(s))) for s in (lowest, highest))
    return (low + high) / jnp.pi


def _check_range(lowest: Array, highest: Array) -> None:
    for name, value, fine in (("lowest", lowest, lowest <= 0), ("highest", highest, highest >= 0)):
        if is_concrete(value) and not bool(np.all(fine)):
            sign = "<=" if name == "lowest" else ">="
            raise ValueError(f"{name} must be {sign} 0, got {np.asarray(value)[~np.asarray(fine)].flat[0]}")
