"""Classes that are narrow cones: bounds on every margin from the modes of two norms (3.12).

Points x_i of one class with 0 < k_-^2 <= x_i . x_l <= k_+^2, and neurons active on no other class. With the class's clock
tau = integral of sum_i q_i g(m_i) dt, means weighted by q_i g(m_i) lie between their smallest and largest terms, whatever
the residuals are:

    y dw.x_i/dtau lies between z k_-^2 and z k_+^2,        y dz/dtau between min_i w.x_i and max_i w.x_i

(z in the orientation of the class). So the margins of all points lie between L(tau) and U(tau), the logits of the modes of
norms k_- and k_+ that start at min_i w.x_i and max_i w.x_i, up to constants for neurons whose read-out has the wrong sign;
and g(U) <= sum q g/p <= g(L) gives the clock two bounds of its own:

    L(tau_slow(t)) <= m_i(t) <= U(tau_fast(t)),   dtau_slow/dt = p g(U(tau_slow)),   dtau_fast/dt = p g(L(tau_fast))   (3.12)

Both clocks are those of modes in closed form. For a class along one direction at one norm all of this is (3.5).

Late in training U/L grows without bound, although the ratio of margins does not. If all neurons active on a class are active
on all of its points with the right sign, every w_j.x_i rises at a rate between z_j k_-^2 and z_j k_+^2, so that from any
time on, for any two points,

    w_j . x_i >= kappa w_j . x_l,      kappa = min(k_-^2/k_+^2, min over j of the ratios of that time)

With F the least margin of the class and H <= F/kappa the largest, its kernel is K_il >= sum_j k_-^2 z_j^2 +
kappa (w_j.x_i)^2 >= 2 k_- kappa^(1/2) F for the point i of the least margin and every l, and therefore

    dF/dt >= 2 p k_- kappa^(1/2) F g(F/kappa):      m_i >= kappa V,      dV/dt = 2 p (k_- kappa^(1/2)) V g(V)      (3.12')

where V is a balanced mode (kappa V is one of the loss at the temperature kappa). The lower bound is the larger of the two.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve.ground import HypothesisError, as_goal, check_instance, is_concrete, short_repr
from gradstarve.problem import Dataset, Loss, MarginShift, Mode, TwoLayerReLU, as_loss
from gradstarve.theory._mode import ModeSolution, flow_mode
from gradstarve.theory._piecewise import check_times

_INSTEAD = "compare(solve(data.means(), network, loss).on(data), run), which measures the gap, or simulate_flow(...)"


class Bound(eqx.Module):
    """The logit of `mode` plus or minus a constant, as a function of the class's clock, and `curve`, a flow that maps the
    clock to time."""

    curve: ModeSolution
    shift: Float[Array, ""]

    @property
    def rate(self) -> Array:
        """The angle of the mode per unit of the class's clock, 2 k."""
        return 2 * self.curve.mode.norm

    def clock(self, t: Array) -> Array:
        """tau at the times t."""
        return self.curve.angle(t) / self.rate

    def at(self, tau: Array) -> Array:
        """The bound at the clocks tau, of the shape of tau."""
        mode, angle = self.curve.mode, (self.rate * tau)[..., None]
        stays = (mode.a > 0) & (angle < self.curve.leaving_angle)
        root = jnp.sqrt(mode.norm) / 2
        grown, decayed = root * (mode.a + mode.z), root * (mode.a - mode.z)
        half = jnp.where(stays, angle, 0) / 2
        each = (grown * jnp.exp(half)) ** 2 - (decayed * jnp.exp(-half)) ** 2
        return jnp.sum(jnp.where(stays, each, 0), axis=-1) + self.shift


class Late(eqx.Module):
    """kappa V(t - start) of (3.12'), a lower bound from `start` on."""

    start: Float[Array, ""]
    kappa: Float[Array, ""]
    curve: ModeSolution

    def at(self, t: Array) -> Array:
        """The bound at the times t."""
        later = t >= self.start
        since = jnp.where(later, t - jnp.where(jnp.isfinite(self.start), self.start, 0), 0)
        return jnp.where(later, self.kappa * self.curve.logit(since), -jnp.inf)

    def time_to(self, goal: Array) -> Array:
        """The time at which the bound reaches `goal`."""
        return self.start + self.curve.time_to_logit(goal / self.kappa)


class ConeClass(eqx.Module):
    """One class of one network: the two `Bound`s of its margins, `low` for L and `high` for U, and the `late` bounds."""

    low: Bound
    high: Bound
    late: tuple[Late, ...] = ()

    def lower(self, t: Array) -> Array:
        """The largest of L(tau_slow(t)) and the late bounds."""
        found = self.low.at(self.high.clock(t))
        for bound in self.late:
            found = jnp.maximum(found, bound.at(t))
        return found

    def latest(self, goal: Array) -> Array:
        """A time by which all margins have reached `goal`."""
        found = _time(self.low, self.high, goal)
        for bound in self.late:
            found = jnp.minimum(found, bound.time_to(goal))
        return found

    def upper(self, t: Array) -> Array:
        """U(tau_fast(t))."""
        return self.high.at(self.low.clock(t))


class Group(eqx.Module):
    """The bounds of one class for several `networks`, given by their numbers in the flattened batch."""

    networks: tuple[int, ...] = eqx.field(static=True)
    bounds: ConeClass


class ConeBounds(eqx.Module):
    """Bounds on the margin of every point under gradient flow, made by `cone_bounds`.

    `classes`: for each class with points, + first, the bounds of groups of networks. They hold up to the accuracy of a mode,
    1e-10 of it in float64 and 2e-5 in float32.
    """

    data: Dataset
    loss_function: Loss
    classes: tuple[tuple[Group, ...], ...]
    batch_shape: tuple[int, ...] = eqx.field(static=True)

    __repr__ = short_repr

    def lower(self, t) -> Float[Array, "..."]:
        """The lower bound of the margins at times t, [*batch, *t.shape, n]: one number for all points of a class."""
        return self._of_points(t, ConeClass.lower)

    def upper(self, t) -> Float[Array, "..."]:
        """The upper bound of the margins at times t, [*batch, *t.shape, n]."""
        return self._of_points(t, ConeClass.upper)

    def _of_points(self, t, ask) -> Array:
        t = check_times(t, self.data.points.dtype)
        found = self._of_networks(ask, t)
        place = jnp.where(self.data.labels > 0, 0, found.shape[-1] - 1)
        return found[..., place].reshape(*self.batch_shape, *t.shape, self.data.size)

    def times_to_margin(self, margin) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
        """(earliest, latest): no margin of a class reaches `margin` before `earliest`, and all have reached it by `latest`.

        Each is [*batch, *margin.shape, classes]; 0 if the bound starts there, inf if the bound never gets there.
        """
        goal = as_goal("margin", margin, self.data.points.dtype)

        def asked(time):
            found = self._of_networks(time, goal)
            return found.reshape(*self.batch_shape, *goal.shape, found.shape[-1])

        return asked(lambda c, goal: _time(c.high, c.low, goal)), asked(ConeClass.latest)

    def _of_networks(self, ask, numbers: Array) -> Array:
        """`ask(one class of one network, numbers)` for all classes and networks, [networks, *numbers.shape, classes]."""
        each = []
        for groups in self.classes:
            found = [_for_each(lambda one: ask(one, numbers), len(group.networks), group.bounds) for group in groups]
            order = np.argsort(np.concatenate([group.networks for group in groups]))
            each.append(jnp.concatenate(found)[order])
        return jnp.stack(each, axis=-1)


def _time(bound: Bound, clock: Bound, goal: Array) -> Array:
    """The time at which `clock` reaches the tau at which `bound` reaches the logit `goal`."""
    # This tau: the flow of a loss that never rests passes through every tau.
    path = flow_mode(bound.curve.mode, as_loss("exponential"))
    when = path.time_to_logit(goal - bound.shift)
    there = jnp.isfinite(when)
    tau = path.angle(jnp.where(there, when, 0)) / bound.rate
    return jnp.where(there, clock.curve.time_to_logit(clock.at(tau) - clock.shift), jnp.inf)


def cone_bounds(data: Dataset, network: TwoLayerReLU, loss: Loss | str = "cross-entropy") -> ConeBounds:
    """Bounds on the margin of every point, for classes whose points do not lie on one line (3.12).

    Under gradient flow with a residual g >= 0 that falls with the margin,

        L(tau_slow(t)) <= m_i(t) <= U(tau_fast(t))        for every point i of a class, at every time t

    where L and U are the logits of modes at the norms k_- = min sqrt(x_i . x_l) and k_+ = max |x_i| of the class. If all
    neurons active on the class are active on all of its points with the right sign, a balanced mode is another lower bound,
    tighter late in training, and `lower` is the larger of the two. The bounds coincide if the class is one direction at one
    norm; k_-/k_+ is cos(2 phi)^(1/2) for points of one norm within an angle phi of an axis.
    `solve(data.means(), network, loss)` is the law of the class means, and `.on(data)` evaluates it at these points.

    `network`: a `TwoLayerReLU` with any batch axes and slope 0; data and network must be
    known, not traced. If a neuron has a read-out of the wrong sign and the bounds cannot decide whether it learns, they are
    wider by its largest contribution.

    `HypothesisError` names a pair of points of one class without an acute angle, a pair of points of both classes at an
    acute angle, a neuron that is or may become active on both classes, or a loss whose residual is negative or rises.

    >>> from gradstarve.problem import TwoLayerReLU
    >>> data = Dataset([[1.0, 0.1], [1.0, -0.1], [-1.0, 0.0]], [1, 1, -1])
    >>> bounds = cone_bounds(data, TwoLayerReLU([[0.3, 0.1], [-0.2, 0.1]], [0.2, -0.3]))
    >>> print(bounds.lower(5.0).round(2), bounds.upper(5.0).round(2))
    [0.9  0.9  0.29] [1.04 1.04 0.29]
    """
    loss = as_loss(loss)

    networks = modes_of_cones(data, network, loss)
    found = tuple(_solved(loss, [each[k] for each in networks]) for k in range(len(networks[0])))
    return ConeBounds(data, loss, found, network.batch_shape)


# The margins of the lower bound from which late bounds start; 0 is the start of training.
_FROM = (0.0, 1.0)


class OneClass(NamedTuple):
    """One class of one network: the modes of norm k_- and k_+, each with the constant that is added to its logit; whether
    all neurons active on the class are active on all of it with the right sign; for each neuron the least and the largest
    w_j.x_i, both 0 if it is inactive, and z_j, [h]; and the least margin."""

    modes: list[tuple[Mode, float]]
    whole: bool
    least: np.ndarray
    most: np.ndarray
    z: np.ndarray
    margin: float


def _solved(loss: Loss, classes: list[OneClass]) -> tuple[Group, ...]:
    """The bounds of one class of all networks: those to which (3.12') applies together, the others one by one, because the
    shift of its logits gives each of them another loss."""
    whole = [b for b, c in enumerate(classes) if c.whole]
    groups = [whole] * bool(whole) + [[b] for b, c in enumerate(classes) if not c.whole]
    return tuple(Group(tuple(mine), _of_group(loss, [classes[b] for b in mine])) for mine in groups)


def _of_group(loss: Loss, classes: list[OneClass]) -> ConeClass:
    """One class of several networks, whose modes share frequency and norms."""
    (first, less), (last, more) = classes[0].modes
    whole, dtype = classes[0].whole, first.a.dtype

    def bound(norm: Array, a: Array, z: Array, shift: float) -> Bound:
        moved = jnp.asarray(shift, dtype)
        return Bound(flow_mode(Mode(first.frequency, norm, a, z), MarginShift(loss, -moved) if shift else loss), moved)

    def one(a_low, z_low, a_high, z_high, *values) -> ConeClass:
        low, high = bound(first.norm, a_low, z_low, less), bound(last.norm, a_high, z_high, more)
        return ConeClass(low, high, tuple(_late(loss, low, high, goal, *values) for goal in _FROM) if whole else ())

    def arrays(c: OneClass) -> tuple[Any, ...]:
        return *(leaf for mode, _ in c.modes for leaf in (mode.a, mode.z)), c.least, c.most, c.z, c.margin

    values = [jnp.asarray(np.stack(column), dtype) for column in zip(*map(arrays, classes), strict=True)]
    return _for_each(one, len(classes), *values)


def _for_each(ask: Any, networks: int, *values: Any) -> Any:
    """`ask(*values)` for every network, along the first axis of the arrays `values`; without vmap for a single network,
    which compiles faster."""
    if networks > 1:
        return eqx.filter_vmap(ask)(*values)
    first = jax.tree.map(lambda leaf: leaf[0] if eqx.is_array(leaf) else leaf, values)
    return jax.tree.map(lambda leaf: leaf[None] if eqx.is_array(leaf) else leaf, ask(*first))


def _late(loss: Loss, low: Bound, high: Bound, goal: float, least, most, z, margin) -> Late:
    """The bound (3.12') from the time at which the lower bound reaches `goal`, or from the start; from inf if never."""
    mode, k_low, k_high = low.curve.mode, low.curve.mode.norm, high.curve.mode.norm
    start, moved = jnp.zeros_like(margin), jnp.zeros_like(z)
    if goal > 0:
        when = _time(low, high, jnp.asarray(goal, z.dtype))
        start = jnp.where(goal > margin, when, jnp.inf)
        # int z_j of the mode of norm k_-, than which that of the neuron is not less.
        turned = k_low * high.clock(jnp.where(jnp.isfinite(start), start, 0))
        moved = (least / k_low * (jnp.cosh(turned) - 1) + z * jnp.sinh(turned)) / k_low
        margin = jnp.asarray(goal * (1 - 1e-6), z.dtype)
    sees = most > 0
    ratios = (least + k_low**2 * moved) / jnp.where(sees, most + k_high**2 * moved, 1)
    kappa = jnp.minimum((k_low / k_high) ** 2, jnp.min(jnp.where(sees, ratios, 1)))
    norm = k_low * jnp.sqrt(kappa)
    each = jnp.sqrt(margin / kappa / norm)[None]
    return Late(start, kappa, flow_mode(Mode(mode.frequency, norm, each, each), loss))


def modes_of_cones(data: Dataset, network: TwoLayerReLU, loss: Loss) -> list[list[OneClass]]:
    """Each class, + first, of each network, after a check of every hypothesis of `cone_bounds`; solves nothing."""
    check_instance("data", data, Dataset, "give Dataset(points, labels)")
    check_instance("network", network, TwoLayerReLU, "give TwoLayerReLU(w, z)")
    if network.slope:
        raise HypothesisError(
            "cones have bounds for networks of slope 0, whose neurons see one class (3.12)",
            f"network has slope = {network.slope:g}",
            _INSTEAD,
        )
    if network.dim != data.dim:
        raise ValueError(f"the network has d = {network.dim} inputs but the points have d = {data.dim}")
    if 0 in network.batch_shape:
        raise ValueError(f"there is no network to bound: the batch has the shape {network.batch_shape}")
    if not all(is_concrete(leaf) for leaf in jax.tree.leaves((data, network))):
        raise ValueError("data and network must be known: the bounds look at every neuron; call cone_bounds outside jit")
    points, labels = np.asarray(data.points, np.float64), np.asarray(data.labels)
    sizes = np.abs(points).max(axis=1)
    if (sizes > 1e120).any() or ((sizes > 0) & (sizes < 1e-120)).any():
        i = int(np.argmax(np.abs(np.log(np.maximum(sizes, np.finfo(float).tiny)))))
        raise ValueError(f"point {i} is of size {sizes[i]:.3g}, whose square is no float; give the points in other units")
    products = points @ points.T
    _check_cones(products, labels)
    dtype = jnp.result_type(data.points, network.w)
    w = np.asarray(network.w, np.float64).reshape(-1, network.width, network.dim)
    heights, z = w @ points.T, np.asarray(network.z, np.float64).reshape(-1, network.width)
    classes = [label for label in (1, -1) if (labels == label).any()]
    found = []
    for number, (height, read_out) in enumerate(zip(heights, z, strict=True)):
        where = f"network {number}, " if len(z) > 1 else ""
        weights = np.asarray(data.weights)
        found.append([_of_class(products, labels, weights, c, height, read_out, where, dtype) for c in classes])
    starts = [float(c.modes[0][0].logit) + c.modes[0][1] for each in found for c in each]
    _check_falls(loss, min(-20.0, *starts))
    return found


def _check_cones(products: np.ndarray, labels: np.ndarray) -> None:
    same = labels[:, None] == labels
    scale = np.sqrt(np.diag(products))
    if not scale.all():
        raise HypothesisError("a cone has no point at its tip (3.12)", f"point {int(np.argmin(scale))} is 0", _INSTEAD)
    cosines = products / np.outer(scale, scale)
    for wrong, wanted in (
        (same & (cosines <= 0), "the points of a class are at acute angles to each other (3.12)"),
        (~same & (cosines > 8 * np.finfo(np.float32).eps), "points of different classes are at no acute angle (2.1)"),
    ):
        if wrong.any():
            i, k = (int(place) for place in np.argwhere(wrong)[0])
            raise HypothesisError(wanted, f"points {i} and {k} are at cos = {cosines[i, k]:.6g}", _INSTEAD)


def _of_class(products, labels, weights, label, height, z, where: str, dtype) -> OneClass:
    mine, other = labels == label, labels != label
    inner = products[np.ix_(mine, mine)]
    low, high = np.sqrt(inner.min()), np.sqrt(inner.max())
    z = label * z
    least, most = height[:, mine].min(1), height[:, mine].max(1)
    sees = most > 0
    if other.any():
        # w . x' of the other class rises by at most max(-x . x') times the integral of |z|, which is at most most/low^2.
        reach = np.where(z < 0, np.maximum(-products[np.ix_(mine, other)].min(0), 0)[:, None] * most / low**2, 0)
        seen = height[:, other].T
        both = sees & ((seen > 0) | ((reach > 0) & (seen + reach >= -1e-6 * reach))).any(0)
        if both.any():
            j = int(np.flatnonzero(both)[0])
            at_once = (height[j, other] > 0).any()
            how = "sees both classes" if at_once else f"leaves class {label:+d} and may come to see the other"
            wanted = "every neuron sees one class only, at all times (3.12)"
            raise HypothesisError(wanted, f"{where}neuron {j} {how}", _INSTEAD)
    starts = _starts(np.where(sees, least, -1), np.where(sees, most, 0), z, low, high)
    frequency = weights[mine].sum()
    (a_low, less), (a_high, more) = starts

    def mode(norm: float, a: np.ndarray) -> Mode:
        return Mode(*(jnp.asarray(value, dtype) for value in (frequency, norm, a, np.where(a > 0, z, 0))))

    modes = [(mode(low, a_low), -less), (mode(high, a_high), more)]
    margin = float((height[sees][:, mine] * z[sees, None]).sum(0).min()) if sees.any() else 0.0
    whole = margin > 0 and bool((least[sees] > 0).all() and (z[sees] >= 0).all())
    least, most, z = (np.where(sees, leaf, 0) for leaf in (least, most, z))
    return OneClass(modes, whole, least, most, z, margin)


def _check_falls(loss: Loss, lowest: float) -> None:
    """`HypothesisError` unless the residual is >= 0 and falls with the margin, from the `lowest` margin on."""
    margins = np.linspace(lowest, 20.0, 401)
    g = np.asarray(loss.residual(jnp.asarray(margins)), np.float64)
    wrong = (g < 0) | (np.diff(g, append=g[-1]) > 1e-6 * np.abs(g))
    if wrong.any():
        raise HypothesisError(
            "the residual of the loss is >= 0 and falls with the margin (3.12)",
            f"{loss.name} has g({margins[wrong][0]:.3g}) = {g[wrong][0]:.3g}",
            _INSTEAD,
        )


def _starts(least, most, z, low, high):
    """The starts of the neurons of the modes of norm k_- = `low` and k_+ = `high`, and the shifts of their logits as
    functions of tau: ((a, less), (a, more)). All arrays are [h]; a neuron inactive on the class has most = 0.

    A neuron with z < 0 reaches z = 0 with w . x_i between `turn_low` and `turn_high`, or never; it starts on the
    hyperbola that leads there. The shift is the product of z and the largest gap of w . x_i until then.
    """
    size, wrong, whole = np.abs(z), z < 0, least > 0

    def root(square):
        return np.sqrt(np.maximum(square, 0))

    learns, may_learn = whole & (least > high * size), most > low * size
    turn_low, turn_high = root(least**2 - (high * z) ** 2), root(most**2 - (low * z) ** 2)
    spread = (high**2 - low**2) * z**2
    # The mode of norm k_-.
    dying = whole & ~may_learn
    a_low = np.where(wrong, np.where(learns, root(least**2 - spread) / low, np.where(dying, least / high, 0)), least / low)
    a_low = np.where(whole, a_low, 0)
    slow = np.where(size > 0, a_low / np.where(size > 0, size, 1), 0)
    left = np.maximum(most - low * a_low, 0) / root(np.maximum(1 - slow**2, np.finfo(float).tiny))
    # Where a point is asleep the neuron may stand still while the mode goes on to 0; what is left is max w . x_i of then.
    left = np.minimum(np.maximum(left, most - (low / high) ** 2 * least), most)
    less = np.where(learns, turn_high - turn_low, np.where(dying, left, most))
    # The mode of norm k_+.
    a_high = np.where(wrong, np.where(may_learn, root(most**2 + spread) / high, np.where(whole, most / low, 0)), most / high)
    fast = np.where(wrong & whole, least / (high * np.where(size > 0, size, 1)), 0)
    left = np.maximum(high * a_high - high * size * fast, 0) / root(np.maximum(1 - fast**2, np.finfo(float).tiny))
    more = np.where(learns, turn_high - turn_low, np.where(may_learn, high * a_high, np.minimum(left, high * a_high)))
    more = np.where(may_learn | whole, more, 0)
    each = np.where(wrong & (most > 0), size, 0)
    return (a_low, float(each @ less)), (np.where(most > 0, a_high, 0), float(each @ more))
