"""`solve`: find the law whose hypotheses hold for a problem, or name the hypothesis that fails."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, overload

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import (
    HypothesisError,
    check_instance,
    check_normal,
    check_normal_rows,
    is_concrete,
    is_subnormal,
    laws,
    quick_jit,
    which_network,
)
from gradstarve.problem import (
    Dataset,
    Dynamics,
    GradientDescent,
    GradientFlow,
    Loss,
    Mode,
    Network,
    NetworkCurve,
    Ray,
    SharpnessAware,
    SignDescent,
    Steps,
    StochasticGradientDescent,
    TwoLayerReLU,
    are_phases,
    as_loss,
    as_phases,
    frequencies_of,
    given,
    no_dynamics,
)
from gradstarve.theory._cones import modes_of_cones
from gradstarve.theory._descent import (
    DescentSolution,
    ModeDescent,
    StepLaw,
    descend_mode,
    first_step,
    may_be_nonzero,
    new_descent_law,
    searched,
)
from gradstarve.theory._leaky import LeakyFlow, leaky_flow
from gradstarve.theory._levels import first_time
from gradstarve.theory._mode import ModeSolution, flow_mode, insert_axes, transfer_flow
from gradstarve.theory._nearby import NearbySolution, put_on
from gradstarve.theory._phases import PhasedMode, PhasedSolution, check_kept
from gradstarve.theory._piecewise import PiecewiseClock, stacked
from gradstarve.theory._sgd import ModeMiniBatch, ModeSGD, sgd_mode
from gradstarve.theory._sign import new_sign_law

_MADE_BY = {"flow": "GradientFlow()", "descent": "GradientDescent(step_size)"}


def _with_laws() -> str:
    """The dynamics that the table of laws has derivations for, with their equations."""
    found = []
    for kind, made in _MADE_BY.items():
        equations = dict.fromkeys(law.equation for law in laws("derives").values() if kind in law.dynamics)
        found.append(f"{made} ({', '.join(equations)})")
    return " or ".join(found) + " or others in steps, such as SignDescent(step_size)"


@overload
def solve_mode(mode: Mode, loss: Loss | str = ..., dynamics: GradientFlow | None = ...) -> ModeSolution: ...
@overload
def solve_mode(mode: Mode, loss: Loss | str, dynamics: StochasticGradientDescent) -> ModeSGD | ModeMiniBatch: ...
@overload
def solve_mode(mode: Mode, loss: Loss | str, dynamics: Steps) -> ModeDescent: ...
@overload
def solve_mode(
    mode: Mode, loss: Loss | str = ..., dynamics: Any = ..., *, phases: Sequence[tuple[Any, Any]]
) -> PhasedMode: ...
def solve_mode(
    mode: Mode, loss: Loss | str = "cross-entropy", dynamics: Any = None, *, phases: Any = None
) -> ModeSolution | ModeDescent | ModeSGD | ModeMiniBatch | PhasedMode:
    """The exact learning curve of one mode: (3.1)-(3.11) for `GradientFlow()` (the default), (8.1), (8.2) for descent.

    `loss` is a loss or its name. The argument of the solution is time for the flow and the step number for descent, with
    any momentum, weight decay and schedule, or a step size for each layer (17.3); time = step_size * step. The same holds
    for `NormalizedGradientDescent` (17.2), `SharpnessAware` (17.4) and `SignDescent` (17.6, a point on a coordinate axis).
    For `StochasticGradientDescent` the result is the distribution over the draws (8.3), (17.5): `.distribution(step)`,
    `.time_to_logit(u)`.

    `phases` [(until, p), ...] replace the frequency of the mode by p until a time or a step, the last one until None; a
    negative p flips the labels of the class (21.1). The result is a `PhasedMode`.

    >>> solution = solve_mode(Mode(frequency=1.0, norm=1.0, a=[0.1, 0.2], z=[0.1, -0.3]), "cross-entropy")
    >>> solution.logit([0.0, 50.0]).shape
    (2,)
    """
    check_instance("mode", mode, Mode, "give Mode(frequency, norm, a, z)")
    loss = _one_for_all(loss)
    if phases is not None:
        return _mode_phases(mode, loss, _check_dynamics(dynamics), phases)
    if isinstance(dynamics, StochasticGradientDescent):
        return sgd_mode(mode, loss, dynamics)
    dynamics = _check_dynamics(dynamics)
    if isinstance(dynamics, GradientFlow):
        return flow_mode(mode, loss)
    if isinstance(dynamics, SignDescent):
        law = new_sign_law(loss, dynamics, [mode.frequency], [mode.norm], mode.a, mode.z, (1,), 1.0)
        return ModeDescent(law, 0, mode)
    return descend_mode(mode, loss, dynamics)


def _mode_phases(mode: Mode, loss: Loss, dynamics: Any, phases: Any) -> PhasedMode:
    """The laws of the phases, each from the weights at the end of the one before, in the orientation of the phase."""
    steps = isinstance(dynamics, Steps)
    ends, frequencies = frequencies_of(phases, whole=steps)
    check_kept(dynamics, len(ends))
    parts, signs = [], []
    a, z, begin = mode.a, mode.z, 0
    for end, frequency in zip(ends, frequencies, strict=True):
        sign = 1 if frequency > 0 else -1
        own = Mode(jnp.asarray(abs(frequency), a.dtype), mode.norm, a, sign * z)
        part: Any = solve_mode(own, loss, dynamics.later(int(begin)) if steps else dynamics)
        parts.append(part)
        signs.append(sign)
        if np.isfinite(end):
            a, z = part.weights(int(end - begin) if steps else end - begin)
            z, begin = sign * z, end
    return PhasedMode(tuple(parts), tuple(signs), ends, steps)


def _one_for_all(loss: Loss | str) -> Loss:
    """The loss, which must be the same for every point: the laws of descent (8.1) take any g(u)."""
    loss = as_loss(loss)
    if any(np.ndim(leaf) for leaf in jax.tree.leaves(loss)):
        raise HypothesisError(
            "one loss for all points (8.1)",
            f"loss = {getattr(loss, 'name', type(loss).__name__)!r} with a number for each",
            "simulate(...), or one number",
        )
    return loss


class Solution(NetworkCurve):
    """The exact learning curves of a network on two classes; made by `solve`.

    `plus`, `minus`: the curve of each class (`.logit`, `.error`, `.time_to_logit`, ...), None for one without points.
    t is time for the flow and the step number for descent.
    """

    data: Dataset
    loss_function: Loss
    start: TwoLayerReLU
    dynamics: Dynamics
    plus: Any
    minus: Any
    # The coordinates (a_j, z_j) of every neuron along its own axis, `.coordinates(t)`, with a_j at `.start`, and what
    # weight decay leaves of all other weights, `.remainder(t)`.
    motion: Any
    axes: Float[Array, "*batch h d"]

    def logits(self, t=None) -> Float[Array, "..."]:
        """f(x_i) at t: [*batch, *t.shape, n]. `ValueError` without a t: theory has no grid of its own."""
        given(t)
        if isinstance(self.motion, LeakyFlow):  # solves both classes together
            both = self.motion.logits(t)
            return self._of_points([both[curve.index] for curve in self._curves])
        # Labels are traced if the solution is an argument of jit or vmap, so they select by `where`.
        return self._of_points([curve.logit(t) for curve in self._curves])

    @property
    def _curves(self) -> list[Any]:
        """The curves of the classes in the data, + first."""
        return [curve for curve in (self.plus, self.minus) if curve is not None]

    def _of_points(self, logits: list[Array]) -> Array:
        """f(x_i), [..., n], from the logit of each class in its favour, [...]."""
        if len(logits) == 1:
            return self.data.labels * logits[0][..., None]
        return _by_label(self.data.labels, *logits)

    @property
    def _batch(self) -> tuple[int, ...]:
        return self.start.batch_shape

    @property
    def _dtype(self) -> Any:
        return self.start.dtype

    @property
    def _unit(self) -> str:
        return "time" if isinstance(self.dynamics, GradientFlow) else "step"

    def _time_to(self, what: str, level: Array, max_steps: int, least: int = 0) -> Array:
        if self._unit == "step":
            goals = level.reshape(-1)
            found = searched(self.motion, max_steps, lambda law, most: _first_step(self, law, what, goals, most, least))
            return found.reshape(*self._batch, *level.shape)
        curves, lanes = self._curves, (*self._batch, level.size)
        goals = level.reshape(-1)
        if isinstance(self.motion, LeakyFlow):
            return self.motion.first_time(what, self._shares(), goals).reshape(*self._batch, *level.shape)
        ask = "time_to_error" if what == "error" else "time_to_loss"
        times = [jnp.broadcast_to(getattr(curve, ask)(goals), lanes) for curve in curves]
        if len(curves) == 1:
            return times[0].reshape(*self._batch, *level.shape)
        both = stacked([curve.clock for curve in curves])
        if what == "error" and both.law.clock.pulls_back:
            both = _check_rising(both)
        shares = self._shares().astype(level.dtype)
        low, high = jnp.minimum(*times), jnp.maximum(*times)
        found = first_time(what, both, shares, jnp.broadcast_to(goals, lanes), low, high)
        return found.reshape(*self._batch, *level.shape)

    def _shares(self) -> Array:
        """The weight of each class, + first: [2]."""
        labels, weights = self.data.labels, self.data.weights
        return jnp.stack([jnp.sum(jnp.where(sign * labels > 0, weights, 0)) for sign in (1, -1)])

    def error(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i sigmoid(-m_i), the probability given to the wrong label: [*batch, *t.shape]."""
        if t is None or not self._rounds():
            return super().error(t)
        return jnp.sum(self.data.weights * self._errors(t), axis=-1)

    def loss(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i l(m_i): [*batch, *t.shape]."""
        loss = self.loss_function
        if t is None or not self._rounds() or loss.at_error is None:
            return super().loss(t)
        error = self._errors(t)
        # Where the loss is large, the margin is accurate enough.
        late = error < 0.25
        little = loss.at_error(jnp.where(late, error, 0.1))
        return jnp.sum(self.data.weights * jnp.where(late, little, loss.value(self.margins(t))), axis=-1)

    def _rounds(self) -> bool:
        """Whether the curves give e^-m late in training with more digits than the rounded margins have."""
        flows = isinstance(self.dynamics, GradientFlow) and not self.start.slope
        return self.start.z.dtype == jnp.float32 and flows

    def _errors(self, t):
        """sigmoid(-m_i), [*batch, *t.shape, n]."""
        plus, minus = (None if curve is None else curve.error(t)[..., None] for curve in (self.plus, self.minus))
        if plus is None or minus is None:
            only: Any = minus if plus is None else plus
            return jnp.broadcast_to(only, (*only.shape[:-1], self.data.labels.size))
        return jnp.where(self.data.labels > 0, plus, minus)

    def on(self, data: Dataset) -> NearbySolution:
        """This law at other points: the curve of its networks on `data`, for example the law of the class means at all
        points, `solve(data.means(), network, loss).on(data)`. Its `.gap` is the distance of the points from those of the
        law.

        `ValueError` for points of a class that is missing in the law, and for traced points.
        """
        return put_on(self, data)

    def network(self, t) -> TwoLayerReLU:
        """The network at t, axes [*batch, *t.shape]: w_j moves along its own axis only; its other part only decays."""
        a, z = self.motion.coordinates(t)
        left = self.motion.remainder(t)[..., None]
        count = a.ndim - self.start.z.ndim
        moved = a - left * insert_axes(self.motion.start, count)
        batch, (h, d) = self.start.batch_shape, self.start.w.shape[-2:]
        spread = (*batch, *(1,) * count, h, d)
        w = left[..., None] * self.start.w.reshape(spread) + moved[..., None] * self.axes.reshape(spread)
        return TwoLayerReLU(w, z, self.start.slope)


@quick_jit()
def _by_label(labels, plus, minus):
    return jnp.where(labels > 0, plus[..., None], -minus[..., None])


def _check_rising(clock: PiecewiseClock) -> PiecewiseClock:
    """`clock` [2, *batch]; `HypothesisError` if a class approaches its target from above, so that its error rises."""
    hypothesis = "the error of a network falls where no margin of squared loss starts above 1"
    instead = "time_to_loss, for the loss always falls, or .plus.time_to_error and .minus.time_to_error"
    starts = clock.rise[..., 0] - clock.fall[..., 0]
    if not is_concrete(starts):
        return eqx.error_if(clock, (starts > 1).any(), f"HypothesisError: {hypothesis}. Use instead: {instead}.")
    if bool((starts > 1).any()):
        first, *network = np.argwhere(np.asarray(starts) > 1)[0].tolist()
        which = f" of network {tuple(network)}" if network else ""
        margin = float(starts[(first, *network)])
        raise HypothesisError(hypothesis, f"class {'+-'[first]}{which} starts at margin {margin:.6g}", instead)
    return clock


@quick_jit(eqx.filter_jit, few=0)
def _first_step(solution: Solution, law: StepLaw, what: str, goal: Array, max_steps: int, least: int) -> Array:
    """The first step with an error or a loss of at most `goal` [goals]: [*batch, goals]."""

    def value(state):
        logits = solution._of_points(list(law.logits_of(state)))
        return solution._measured(what, solution.data.margins(logits))

    return first_step(law.step, value, law.first, goal, max_steps, least)


@overload
def solve(data: Dataset, network: Network, loss: Loss | str = ..., dynamics: Any = ...) -> Solution: ...
@overload
def solve(
    data: Sequence[tuple[Any, Dataset]], network: Network, loss: Loss | str = ..., dynamics: Any = ...
) -> PhasedSolution: ...
def solve(data: Any, network: Network, loss: Loss | str = "cross-entropy", dynamics: Any = None) -> Any:
    """The exact training of `network` on `data`, every neuron of it, in closed form.

    The law is chosen by what holds:

    - antipodal classes: neurons pass between the classes (4.3), any signs, any width;
    - other orthogonally separable classes, each along one direction (orthogonal classes among them): exclusive neurons,
      two independent modes (2.1) with deaths (3.10);
    - one class only: one mode.

    A leaky network (`slope` > 0) has the law (22.1) on antipodal classes and on one class. Its neurons see both classes:
    other classes are a `HypothesisError`. Its flow is two clocks that depend on each other, integrated with the events of
    all neurons: logits to 1e-10 of their size (2e-5 in float32), t up to 1e300 (1e37), derivatives of first order; with
    `.motion.events`, the time at which each neuron changes its side. `ConvergenceError` where a margin slides along a jump
    of the residual from above 0 to below it.

    `dynamics`: `GradientFlow()` (default; t is time), or step by step (t is the step; equality up to rounding):
    `GradientDescent(step_size, ...)` with momentum and weight decay (8.2), a schedule or a step size for each layer (17.1),
    (17.3), `NormalizedGradientDescent` (17.2), `SharpnessAware` on orthogonal and antipodal classes (17.4), `SignDescent` on
    antipodal ones (17.6), and `Steps` of your own that have `factors`. `network`: a `TwoLayerReLU` itself, no subclass, with
    any batch axes. Any `Loss` will do: the flow is in closed form for the four of the library and a quadrature of (3.5) for
    others.
    `HypothesisError` names the hypothesis that fails, where it fails, and what to use instead.

    `data` may change: [(until, data), ...] are phases with the same points, each until a time or a step, the last one until
    None; other labels are a task switch, other weights a re-weighting (21.1). The result is a `PhasedSolution`.

    Weights of the network, frequencies, norms and hyperparameters may be traced, by jit, grad and vmap; directions of the
    points and labels must be known (see `Dataset`).

    (Weight decay also shrinks the distance of an exclusive neuron to the other class; after
    so many steps that rounding is larger, training departs from the law of real numbers.)

    >>> from gradstarve.problem import datasets
    >>> net = TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])
    >>> solution = solve(datasets.antipodal(), net, "hinge")
    >>> solution.margins(1000.0).tolist()
    [1.0, 1.0]
    """
    if are_phases(data):
        return _solve_phases(data, network, loss, _check_dynamics(dynamics))
    check_instance("data", data, Dataset, "give Dataset(points, labels)")
    check_instance("network", network, Network, "give TwoLayerReLU(w, z)")
    check_problem(data, network)
    assert isinstance(network, TwoLayerReLU)
    loss, dynamics = _one_for_all(loss), _check_dynamics(dynamics)
    if network.dim != data.dim:
        raise ValueError(f"the network has d = {network.dim} inputs but the points have d = {data.dim}")
    dtype = jnp.result_type(data.points, network.w)
    zero = data.zero_points
    if zero.size:
        raise HypothesisError(
            "modes need a direction for every point (section 2)",
            f"point {zero[0]} is at the origin: x_{zero[0]} = 0",
            "the other points, with weights that sum to 1 again and a longer time: a zero point moves no weight; or "
            "simulate(...) or simulate_flow(...)",
        )
    shape = data.separability()
    if not shape.shared_direction or not shape.orthogonally_separable:
        name = "shared_direction" if shape.orthogonally_separable else "orthogonally_separable"
        breach = shape.breaches[name]
        assert breach is not None
        wanted = {
            "shared_direction": "closed forms need the points of a class to share a direction (section 3)",
            "orthogonally_separable": "modes are independent on orthogonally separable data only (2.1)",
        }[name]
        raise HypothesisError(wanted, str(breach), _on_these_points(data, network, loss, dynamics))
    check_normal_rows("w", network.w)
    check_normal("z", network.z)
    rays = [data.ray(label) for label in (1, -1)]
    for ray in rays:
        _check_along(network, ray)
    network = TwoLayerReLU(network.w.astype(dtype), network.z.astype(dtype), network.slope)
    for ray in rays:
        network = network if ray is None else _check_norms(ray, network, 8 * float(jnp.finfo(dtype).eps))
    opposite = shape.antipodal
    if network.slope:
        _check_leaky(network, rays, shape.antipodal)
        opposite = True
    build = _antipodal if opposite else _exclusive
    plus, minus, motion, axes = build(rays, network, loss, dynamics)
    return Solution(data, loss, network, dynamics, plus, minus, motion, axes)


_ANY_DATA = (
    "early_alignment(data, network, loss) for where every neuron goes first, simulate_hinge_exact(data, network) for hinge "
    "loss without a step, or simulate(...) or simulate_flow(...)"
)


def _on_these_points(data: Dataset, network: TwoLayerReLU, loss: Loss, dynamics: Any) -> str:
    """The functions for points that do not lie on one line per class, for error messages."""
    if network.slope:
        return "early_alignment(data, network, loss) for where neurons go first, or simulate(...) or simulate_flow(...)"
    others = []
    if is_concrete(data.points):
        with contextlib.suppress(HypothesisError):
            if data.means().separability().antipodal:
                others.append("solve(data.means(), network, loss).on(data), the law of the means, whose gap compare() has")
        if isinstance(dynamics, GradientFlow):
            with contextlib.suppress(ValueError):
                modes_of_cones(data, network, loss)
                others.append("theory.cone_bounds(data, network, loss) for classes in narrow cones")
    return "; ".join([*others, _ANY_DATA])


def _check_leaky(network: TwoLayerReLU, rays: list[Ray | None], antipodal: bool) -> None:
    """The law (22.1) is of one direction."""
    where = f"network has slope = {network.slope:g}"
    there = [ray.direction for ray in rays if ray is not None]
    if len(there) == 2 and not antipodal:
        cosine = float(there[0] @ there[1])
        raise HypothesisError(
            "a leaky network has a law on antipodal classes or one class: its neurons see both classes (22.1)",
            f"{where} and the classes are at cos = {cosine:.6g}",
            "simulate(...), or slope = 0 with exclusive neurons",
        )


def _solve_phases(phases: Any, network: Network, loss: Loss | str, dynamics: Any) -> PhasedSolution:
    """The laws of the phases, each from the network at the end of the one before."""
    steps = isinstance(dynamics, Steps)
    changing = as_phases(phases, whole=steps)
    check_kept(dynamics, len(changing.data))
    parts: list[Any] = []
    for data, begin, end in zip(changing.data, changing.since, changing.until, strict=True):
        part = solve(data, network, loss, dynamics.later(int(begin)) if steps else dynamics)
        parts.append(part)
        if np.isfinite(end):
            network = part.network(int(end - begin) if steps else end - begin)
    return PhasedSolution(changing.data[0], parts[0].loss_function, changing, tuple(parts), dynamics)


def check_problem(data: Any, network: Any) -> None:
    """Check the types: closed forms hold for `TwoLayerReLU` itself, not for subclasses with the same weights."""
    if not isinstance(data, Dataset):
        raise ValueError(f"data must be a Dataset with labels ±1, got {type(data).__name__}; give Dataset(points, labels)")
    if type(network) is TwoLayerReLU:
        return
    if not isinstance(network, Network):
        raise ValueError(f"network must be a TwoLayerReLU, got {type(network).__name__}; give TwoLayerReLU(w, z)")
    raise HypothesisError(
        "the closed forms are for f(x) = sum_j z_j (w_j . x)_+, the network TwoLayerReLU itself (1.1)",
        f"network is of type {type(network).__name__}",
        "simulate(...) or simulate_flow(...), which train any Network, or TwoLayerReLU(w, z) if this is the function meant",
    )


def _check_norms(ray: Ray, network: TwoLayerReLU, slack: float) -> TwoLayerReLU:
    """`HypothesisError` unless all points of a class have the same norm."""
    hypothesis, instead = "the closed form (3.5) is for points of one norm per class", "simulate(...) or simulate_flow(...)"
    if not is_concrete(ray.norms):
        low, high = jnp.min(ray.norms), jnp.max(ray.norms)
        message = f"HypothesisError: {hypothesis}. Use instead: {instead}."
        return network if len(ray.norms) == 1 else eqx.error_if(network, high - low > slack * high, message)
    if np.ptp(np.asarray(ray.norms)) > slack * ray.norm:
        where = f"class {ray.label:+d} has norms from {np.min(ray.norms):.6g} to {ray.norm:.6g}"
        raise HypothesisError(hypothesis, where, instead)
    return network


def _check_dynamics(dynamics) -> GradientFlow | Steps:
    if dynamics is None or isinstance(dynamics, GradientFlow):
        return GradientFlow()
    if isinstance(dynamics, StochasticGradientDescent):
        raise HypothesisError(
            "the curve of a network is one curve; descent on random points has a distribution of them (8.3)",
            "dynamics = StochasticGradientDescent",
            "solve_mode(mode, loss, dynamics) for the distribution of each class, or simulate(...)",
        )
    if not isinstance(dynamics, Steps):
        raise no_dynamics(_with_laws(), dynamics)
    name = type(dynamics).__name__
    if not dynamics.has_law and not isinstance(dynamics, SignDescent):
        raise HypothesisError(
            "a step has a law where it multiplies a_j + z_j and a_j - z_j by two factors (17)",
            f"{name} has no `factors`",
            "simulate(...), or define factors(modes) in the class",
        )
    return dynamics


def _check_along(network: TwoLayerReLU, ray: Ray | None) -> None:
    """`ValueError` if w_j . xh is only a subnormal entry of w_j, lost beside larger ones, which decides the activity."""
    if ray is None or not is_concrete(network.w):
        return
    w = np.asarray(network.w)
    faint = is_subnormal(w) & (ray.direction != 0)
    alone = faint.any(-1) & (np.where(faint, 0, w) @ ray.direction == 0)
    if alone.any():
        check_normal("w", w[alone][0][faint[alone][0]])


def _along(network: TwoLayerReLU, direction) -> Array:
    return jnp.einsum("...hd,d->...h", network.w, jnp.asarray(direction, network.w.dtype), precision="highest")


def _margin(network: TwoLayerReLU, ray: Ray) -> Array:
    """The margin of the class on `ray` at the start, [*batch]."""
    coordinate = _along(network, ray.direction)
    return ray.norm * ray.label * jnp.sum(jnp.maximum(coordinate, 0) * network.z, axis=-1)


def _antipodal(rays, network, loss, dynamics):
    """One signed coordinate per neuron, along x_+; the two classes exchange neurons."""
    if isinstance(dynamics, Steps):
        return _stepping(rays, network, loss, dynamics)
    if network.slope:
        there = next(ray for ray in rays if ray is not None)
        axis = jnp.asarray(there.label * there.direction, network.w.dtype)
        plus, minus, flow = leaky_flow(loss, rays, _along(network, axis), network.z, network.slope)
        return plus, minus, flow, jnp.broadcast_to(axis, network.w.shape)
    network = _check_below_rest(rays, network, loss)
    axis = jnp.asarray(rays[0].direction, network.w.dtype)
    a, z = _along(network, axis), network.z
    frequencies, norms = [ray.frequency for ray in rays], [ray.norm for ray in rays]
    frequency, norm = (_together(values, a.dtype) for values in (frequencies, norms))
    flow = transfer_flow(loss, frequency, norm, a, z)
    return flow.curves[0], flow.curves[1], flow, jnp.broadcast_to(axis, network.w.shape)


def _together(values: list[Any], dtype: Any) -> Array:
    """Numbers of the classes as one array; where they are there, without a program."""
    if all(map(is_concrete, values)):
        return jnp.asarray(np.stack([np.asarray(value, dtype) for value in values]))
    return jnp.stack([jnp.asarray(value, dtype) for value in values])


def _stepping(rays, network, loss, dynamics, home=None):
    """The classes on `rays` in discrete steps, as one law, because the step of a class may depend on the others. `home`: +1,
    -1 or 0, the class of each neuron, or None for antipodal classes or a single class."""
    there = [ray for ray in rays if ray is not None]
    signs = tuple(ray.label for ray in there)
    frequencies, norms = [ray.frequency for ray in there], [ray.norm for ray in there]
    if home is None:
        axis = jnp.asarray(there[0].label * there[0].direction, network.w.dtype)
        a, axes = _along(network, axis), jnp.broadcast_to(axis, network.w.shape)
    else:
        a, axes = jnp.zeros_like(network.z), jnp.zeros_like(network.w)
        for ray in there:
            mine = home == ray.label
            a = jnp.where(mine, ray.label * _along(network, ray.direction), a)
            axes = jnp.where(mine[..., None], jnp.asarray(ray.label * ray.direction, axes.dtype), axes)
    if isinstance(dynamics, SignDescent):
        reach = np.abs(there[0].direction).sum()
        law = new_sign_law(loss, dynamics, frequencies, norms, a, network.z, signs, reach, network.slope)
        axes = jnp.sign(axes) / law.reach
    else:
        law = new_descent_law(loss, dynamics, frequencies, norms, a, network.z, signs, home, network.slope)
    places = {ray.label: DescentSolution(law, index) for index, ray in enumerate(there)}
    return places.get(1), places.get(-1), law, axes


def _check_below_rest(rays, network: TwoLayerReLU, loss: Loss) -> TwoLayerReLU:
    """`HypothesisError` if a margin starts above its rest: its clock runs backwards, and other neurons change class."""
    named = loss.clock is not None
    if named and np.isinf(loss.rest):
        return network
    hypothesis = f"with {loss.name} loss the transfer law (4.3) needs both margins to start at "
    hypothesis += f"{loss.rest:g} or below" if named else "its rest or below, where its residual is >= 0"
    instead = "simulate_flow(...), or a smaller initialisation"
    for ray in rays:
        margin = _margin(network, ray)
        above = loss.residual(margin) < 0
        if not is_concrete(above):
            # A closed form with traced numbers is not checked.
            if not named:
                message = f"HypothesisError: {hypothesis}. Use instead: {instead}."
                network = eqx.error_if(network, above, message)
        elif bool(np.any(above)):
            where = tuple(int(i) for i in np.argwhere(np.asarray(above))[0])
            found = f"class {ray.label:+d} of {which_network(where)} starts at margin {np.asarray(margin)[where]:.6g}"
            raise HypothesisError(hypothesis, found, instead)
    return network


class ExclusiveMotion(eqx.Module):
    """Coordinates of neurons that each belong to one class, or to none: `home` +1, -1 or 0, `start` a_j, [*batch, h]."""

    plus: Any
    minus: Any
    home: Float[Array, "*batch h"]
    start: Float[Array, "*batch h"]
    z: Float[Array, "*batch h"]

    def coordinates(self, t):
        """(w.axis, z) at t, each [*batch, *t.shape, h]; w.axis is 0 for a neuron active on no class."""
        left = self.remainder(t)[..., None]
        extra = left.ndim - self.z.ndim
        home, z = insert_axes(self.home, extra), insert_axes(self.z, extra)
        a, z = jnp.zeros_like(z), z * left
        for sign, solution in ((1, self.plus), (-1, self.minus)):
            if solution is not None:
                own_a, own_z = solution.weights(t)
                a, z = jnp.where(home == sign, own_a, a), jnp.where(home == sign, sign * own_z, z)
        return a, z

    def remainder(self, t):
        """The factor by which weight decay has shrunk a weight that no point acts on: [*batch, *t.shape]."""
        solution = self.minus if self.plus is None else self.plus
        return solution.remainder(t)


def _exclusive(rays, network, loss, dynamics):
    """Two independent modes: every neuron is active on one class at most, and a neuron that leaves is dead for ever."""
    steps = isinstance(dynamics, Steps)
    if steps and may_be_nonzero(getattr(dynamics, "weight_decay", 0)):
        network = _check_decay(network, dynamics)
    if None not in rays:
        network = _check_exclusive(rays, network, loss, dynamics)
    home = start = jnp.zeros_like(network.z)
    axes = jnp.zeros_like(network.w)
    solutions: list[Any] = []
    for ray in rays:
        if ray is None:
            solutions.append(None)
            continue
        coordinate = _along(network, ray.direction)
        mine = coordinate > 0
        home, start = jnp.where(mine, ray.label, home), jnp.where(mine, coordinate, start)
        axes = jnp.where(mine[..., None], jnp.asarray(ray.direction, axes.dtype), axes)
        if steps:
            continue
        frequency, norm = (jnp.asarray(value, home.dtype) for value in (ray.frequency, ray.norm))
        mode = Mode(frequency, norm, jnp.where(mine, coordinate, 0), ray.label * network.z)
        solutions.append(solve_mode(mode, loss, dynamics))
    if steps:
        return _stepping(rays, network, loss, dynamics, home)
    plus, minus = solutions
    return plus, minus, ExclusiveMotion(plus, minus, home, start, network.z), axes


def _largest_step(dynamics: Any, dtype: Any) -> Array:
    """The step size; for a schedule, the largest one of its first 100,000 steps."""
    if not dynamics.scheduled:
        return dynamics.step_size
    values = dynamics.step_size.tabled(100_000, dtype).values
    assert values is not None
    return jnp.max(values)


def _check_decay(network, dynamics):
    """`HypothesisError` if weight decay can change the sign of weights: inactive neurons could become active."""
    with jax.ensure_compile_time_eval():
        step_size, momentum = _largest_step(dynamics, network.dtype), dynamics.momentum
        product = step_size * dynamics.weight_decay
        # Where the roots of their recurrence are real.
        limit = ((1 - momentum) / (1 + momentum)) ** 2 if dynamics.nesterov else (1 - jnp.sqrt(momentum)) ** 2
        broken = product > limit
    hypothesis = "weight decay that does not oscillate: step_size * weight_decay up to (1 - sqrt(momentum))^2 (8.2)"
    if dynamics.nesterov:
        hypothesis = hypothesis.replace("(1 - sqrt(momentum))^2", "((1 - momentum)/(1 + momentum))^2")
    instead = "a smaller weight_decay or step_size, simulate(...), or antipodal data, where it does not matter"
    if not is_concrete(broken):
        return eqx.error_if(network, broken, f"HypothesisError: {hypothesis}. Use instead: {instead}.")
    if bool(broken.any()):
        worst = np.argmax(np.asarray(product - limit))
        product, limit = (float(np.broadcast_to(v, broken.shape).flat[worst]) for v in (product, limit))
        raise HypothesisError(hypothesis, f"step_size * weight_decay = {product:.6g} is above {limit:.6g}", instead)
    return network


def _check_exclusive(rays, network, loss, dynamics):
    """`HypothesisError` unless every neuron is active on one class at most (2.1), and none that leaves joins the other."""
    plus, minus = (_along(network, ray.direction) for ray in rays)
    both = (plus > 0) & (minus > 0)
    cosine = float(rays[0].direction @ rays[1].direction)
    if isinstance(dynamics, SignDescent):
        raise HypothesisError(
            "sign descent moves weights along the signs of a point: its law is of one class or antipodal ones (17.6)",
            f"the classes are at cos = {cosine:.6g}",
            "simulate(...)",
        )
    if isinstance(dynamics, SharpnessAware) and abs(cosine) > 8 * float(jnp.finfo(plus.dtype).eps):
        raise HypothesisError(
            "sharpness-aware steps look where a neuron may see the other class, unless classes are orthogonal or antipodal "
            "(17.4)",
            f"the classes are at cos = {cosine:.6g}",
            "simulate(...)",
        )
    wakes = jnp.zeros_like(both)
    if abs(cosine) > 8 * float(jnp.finfo(plus.dtype).eps):
        own, other = jnp.maximum(plus, minus), jnp.minimum(plus, minus)
        toward = jnp.where(plus > 0, network.z, -network.z)
        general = loss.clock is None
        if general or loss.pulls_back:
            # A margin above its rest falls: then neurons of the right sign are pushed out.
            above = [loss.residual(_margin(network, ray))[..., None] < 0 for ray in rays]
            toward = jnp.where(jnp.where(plus > 0, above[0], above[1]), -toward, toward)
        wakes = (own > 0) & (toward < 0)
        if isinstance(dynamics, Steps):
            # Steps overshoot, so that a neuron pushed out may wake where the flow would not; and so may any, where
            # momentum swings a margin past the target of the squared loss and back, or a penalty pulls it back.
            plain = isinstance(dynamics, GradientDescent) and not may_be_nonzero(dynamics.momentum)
            if general or (loss.pulls_back and not plain):
                wakes = own > 0
        else:
            # On the hyperbola a^2 - z^2 = const it comes down to `lowest`, and the push out of one class is |cos| of
            # it into the other: (4.4) for those that leave, lowest = 0.
            lowest = jnp.sqrt(jnp.maximum((own - toward) * (own + toward), 0))
            wakes = wakes & (other + abs(cosine) * (own - lowest) > 0)
    rules = (
        (both, "exclusive neurons: each is active on one class at most (2.1)", "is active on both classes"),
        (
            wakes,
            "neurons that are pushed out of their class do not wake on the other (4.4)",
            "is pushed out of its class and may wake on the other",
        ),
    )
    instead = (
        "exclusive(data, network, key), whose neurons see one class each; antipodal data, where neurons may change class; "
        + _ANY_DATA
    )
    for broken, hypothesis, verdict in rules:
        if not is_concrete(broken):
            network = eqx.error_if(network, broken, f"HypothesisError: {hypothesis}. Use instead: {instead}.")
        elif bool(broken.any()):
            where = tuple(int(i) for i in np.argwhere(np.asarray(broken))[0])
            which = f"neuron {where[-1]}" + (f" of network {where[:-1]}" if len(where) > 1 else "")
            numbers = f"w.x_+/|x_+| = {plus[where]:.6g}, w.x_-/|x_-| = {minus[where]:.6g}, z = {network.z[where]:.6g}"
            raise HypothesisError(hypothesis, f"{which} {verdict} ({numbers})", instead)
    return network
