"""Random problems for the theorems: geometry, frequencies, norms, widths and scales, with edge cases on purpose.

All problems have the same shapes, because compiling a simulator costs more than running it: networks narrower than
`WIDTH` are padded with neurons of zero weights, which never move, and classes have `PER_CLASS` points, which may be one
point repeated with different weights. NumPy makes the draws, seeded by the JAX key, so that sampling compiles nothing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from gradstarve import theory
from gradstarve.ground import LOSS_NAMES as LOSS_NAMES
from gradstarve.problem import (
    ClassDataset,
    Dataset,
    Dynamics,
    GradientDescent,
    Loss,
    Network,
    TwoLayerReLU,
    as_loss,
)
from gradstarve.simulation import Trajectory, batch_loss, simulate, simulate_flow, simulate_hinge_exact

WIDTH = 5
DIM = 5
PER_CLASS = 2
BATCH = 24
RECORDS = 4
_EDGES = 7  # rows of `exclusive_start` that are edge cases


def generator(key: Any) -> np.random.Generator:
    """NumPy's generator seeded by a JAX key."""
    return np.random.default_rng(np.asarray(jax.random.key_data(key)).reshape(-1))


def generators(key: Any, trials: int, batch: int = BATCH) -> list[np.random.Generator]:
    """One generator for each batch, enough for `trials` trials; a longer run repeats and extends a shorter one."""
    if trials < 1:
        raise ValueError(f"trials must be >= 1, got {trials}")
    return [generator(jax.random.fold_in(key, k)) for k in range(-(-trials // batch))]


def log_uniform(rng: np.random.Generator, low: Any, high: Any, shape: Any = ()) -> Any:
    """Numbers whose logarithm is uniform between those of `low` and `high`."""
    return np.exp(rng.uniform(np.log(low), np.log(high), shape))


@dataclass(frozen=True)
class Geometry:
    """A dataset of two classes along the unit vectors `axes` [2, d] (class + first), `norms` [2], `frequencies` [2]."""

    data: Dataset
    axes: np.ndarray
    norms: np.ndarray
    frequencies: np.ndarray

    @property
    def rates(self) -> np.ndarray:
        """2 p r of each class, [2]."""
        return 2 * self.frequencies * self.norms

    @property
    def pace(self) -> float:
        """The geometric mean of the two rates, the unit of 1/time."""
        return float(np.sqrt(np.prod(self.rates)))


def two_rays(rng: np.random.Generator, cosine: float) -> Geometry:
    """Two classes at the angle arccos(`cosine`) in a random frame: -1 is antipodal, 0 orthogonal.

    Frequencies 0.1 to 0.9, norms log-uniform from 0.2 to 5; each class is one point, repeated with random weights.
    """
    frame = np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T
    axes = np.stack([frame[0], cosine * frame[0] + np.sqrt(1 - cosine**2) * frame[1]])
    if cosine == -1:
        axes[1] = -axes[0]
    norms = log_uniform(rng, 0.2, 5, 2)
    p = rng.uniform(0.1, 0.9)
    frequencies = np.array([p, 1 - p])
    shares = rng.dirichlet(np.ones(PER_CLASS), 2) + 1e-3
    weights = (frequencies[:, None] * shares / shares.sum(1, keepdims=True)).reshape(-1)
    points = np.repeat(norms[:, None] * axes, PER_CLASS, axis=0)
    labels = np.repeat([1.0, -1.0], PER_CLASS)
    return Geometry(Dataset(points, labels, weights / weights.sum()), axes, norms, frequencies)


def cone_data(
    rng: np.random.Generator,
    opening: float | None = None,
    angle: float | None = None,
    norms: tuple[float, float] = (0.2, 5.0),
) -> Dataset:
    """Two cones of half-angle `opening` (random below 0.7) with axes at `angle` (random, orthogonally separable).

    Norms are log-uniform between the two of `norms` and weights random.
    """
    opening = rng.uniform(0, 0.7) if opening is None else opening
    angle = rng.uniform(np.pi / 2 + 2 * opening, np.pi) if angle is None else angle
    frame = np.linalg.qr(rng.normal(size=(DIM, 2)))[0].T
    axes = np.stack([frame[0], np.cos(angle) * frame[0] + np.sin(angle) * frame[1]])
    sides = rng.normal(size=(2, PER_CLASS, DIM))
    sides -= np.einsum("cnd,cd->cn", sides, axes)[..., None] * axes[:, None]
    sides /= np.linalg.norm(sides, axis=-1, keepdims=True)
    tilt = opening * rng.uniform(size=(2, PER_CLASS, 1))
    lengths = log_uniform(rng, *norms, (2, PER_CLASS, 1))
    points = (lengths * (np.cos(tilt) * axes[:, None] + np.sin(tilt) * sides)).reshape(-1, DIM)
    weights = rng.uniform(0.1, 1, 2 * PER_CLASS)
    return Dataset(points, np.repeat([1.0, -1.0], PER_CLASS), weights / weights.sum())


def any_data(rng: np.random.Generator) -> Dataset:
    """Gaussian points with random labels and weights, without any geometric hypothesis."""
    count = 2 * PER_CLASS
    weights = rng.uniform(0.1, 1, count)
    points = rng.normal(size=(count, DIM)) * log_uniform(rng, 0.2, 3)
    return Dataset(points, rng.choice([-1.0, 1.0], count), weights / weights.sum())


def networks(
    rng: np.random.Generator, batch: int = BATCH, low: float = 1e-3, high: float = 1.5
) -> tuple[np.ndarray, np.ndarray]:
    """(w [batch, h, d], z [batch, h]): Gaussian, with log-uniform scales of the network, of w and of z, any width."""
    scale = log_uniform(rng, low, high, (batch, 1))
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (batch, 1))
    scale_w, scale_z = scale * used, scale * used * log_uniform(rng, 0.3, 3, (batch, 1))
    return rng.normal(size=(batch, WIDTH, DIM)) * scale_w[..., None], rng.normal(size=(batch, WIDTH)) * scale_z


@dataclass(frozen=True)
class ExclusiveInit:
    """Exclusive neurons by their coordinates: `home` ±1 (0: a padding neuron), a > 0 along the home class's axis, and
    `zeta`, the read-out in the orientation of that class (zeta > 0 is the right sign). All [b, h].
    """

    home: np.ndarray
    a: np.ndarray
    zeta: np.ndarray

    def mode(self, label: int) -> tuple[np.ndarray, np.ndarray]:
        """(a, zeta) of the neurons of class `label`, zeros for the others: [b, h] each."""
        mine = self.home == label
        return np.where(mine, self.a, 0), np.where(mine, self.zeta, 0)

    def below(self, geometry: Geometry, margin: float) -> ExclusiveInit:
        """The same neurons, scaled down where a class's margin starts above `margin`."""
        margins = [r * np.prod(self.mode(y), axis=0).sum(-1) for r, y in zip(geometry.norms, (1, -1), strict=True)]
        shrink = 1 / np.sqrt(np.maximum(np.max(margins, axis=0) / margin, 1) * (1 + 1e-9))[:, None]
        return ExclusiveInit(self.home, self.a * shrink, self.zeta * shrink)

    def without_edge_cases(self) -> ExclusiveInit:
        """The neurons with the edge cases at the front replaced by others, for counterexamples that people read."""
        rows = _EDGES + np.arange(len(self.home)) % (len(self.home) - _EDGES)
        return ExclusiveInit(self.home[rows], self.a[rows], self.zeta[rows])

    def scale(self, geometry: Geometry) -> np.ndarray:
        """r sum_j (a_j^2 + z_j^2)/2 over all neurons with the larger r, [b]: the unit of logits.

        It is at least kappa, so that an error d in the clock's angle moves u by less than d times (scale + |u|).
        """
        return geometry.norms.max() * np.sum(self.a**2 + self.zeta**2, axis=-1) / 2

    def network(self, rng: np.random.Generator, geometry: Geometry) -> TwoLayerReLU:
        """The full network: a_j along the home axis, <= 0 along the other one, and anything off the plane of both."""
        plus, minus = geometry.axes
        antipodal = float(plus @ minus) == -1 or np.allclose(plus, -minus)
        own = np.where(self.home[..., None] > 0, plus, minus)
        w = self.a[..., None] * own
        span = plus[None] if antipodal else np.linalg.qr(geometry.axes.T)[0].T
        if not antipodal:
            # Away from the other class, or off its edge by more than the rounding of a tiny start grown to order 1.
            other = np.where(self.home[..., None] > 0, minus, plus)
            other = other - (plus @ minus) * own
            far = np.where(rng.uniform(size=self.a.shape) < 0.8, 1, 1e-4)
            away = (0.1 + np.abs(rng.normal(size=self.a.shape))) * far * self.a
            w = w - away[..., None] * other
        noise = rng.normal(size=w.shape)
        noise -= np.einsum("bhd,kd,ke->bhe", noise, span, span)
        w = w + noise * self.a[..., None] * rng.uniform(0, 1, (*self.a.shape, 1))
        return TwoLayerReLU(w * (self.home != 0)[..., None], self.home * self.zeta)


def exclusive_start(
    rng: np.random.Generator,
    wrong_signs: float = 0.0,
    batch: int = BATCH,
    low: float = 1e-3,
    high: float = 1.5,
    crowd: bool = False,
    wrong_sign_learners: float = 0.0,
) -> ExclusiveInit:
    """Neurons of widths 1 to `WIDTH`, scales log-uniform from `low` to `high`, a share `wrong_signs` with zeta < 0.

    The first networks of a batch are edge cases: exactly balanced (zeta = a), a start of 1e-6, one neuron alone, a
    read-out of zero, everything in one class. A share `wrong_sign_learners` has -a < zeta < 0: these neurons learn
    nevertheless. With wrong signs there is also a neuron on each side of the stable manifold z = -a, at a relative distance
    d = 1e-3 (rounding grows by 1/d there, and decides on the manifold); with `crowd` all neurons of the first two networks
    leave their class.
    """
    shape = (batch, WIDTH)
    scale = log_uniform(rng, low, high, (batch, 1))
    home = rng.choice([-1.0, 1.0], shape)
    a = scale * log_uniform(rng, 0.2, 3, shape)
    zeta = scale * log_uniform(rng, 0.1, 3, shape) * np.where(rng.uniform(size=shape) < wrong_signs, -1, 1)
    zeta = np.where(rng.uniform(size=shape) < wrong_sign_learners, -a * rng.uniform(0, 0.99, shape), zeta)
    used = np.arange(WIDTH) < rng.integers(1, WIDTH + 1, (batch, 1))
    row = 0
    if crowd:
        for sign in (1, -1):
            home[row], used[row] = sign, True
            zeta[row] = -a[row] * rng.uniform(1.05, 3, WIDTH)
            row += 1
    zeta[row] = a[row]
    a[row + 1], zeta[row + 1] = a[row + 1] * 1e-6 / scale[row + 1], zeta[row + 1] * 1e-6 / scale[row + 1]
    used[row + 2] = np.arange(WIDTH) == 0
    zeta[row + 3] = 0
    home[row + 4] = 1
    if wrong_signs:
        zeta[row + 5, 0] = -a[row + 5, 0] * (1 + 1e-3)
        zeta[row + 6, 0] = -a[row + 6, 0] * (1 - 1e-3)
    return ExclusiveInit(np.where(used, home, 0), np.where(used, a, 0), np.where(used, zeta, 0))


def pick(network: Network, index: int) -> dict[str, Any]:
    """The weights of network `index` of a batch by name, to run it again."""
    return named(jax.tree.map(lambda leaf: leaf[index], network))


def named(module: Any) -> dict[str, Any]:
    """The fields of a dataset or network by name, arrays as NumPy's."""
    fields = {field.name: (getattr(module, field.name), field.default) for field in dataclasses.fields(module)}
    # A plain number, such as a slope, is recorded only if it differs from the default.
    kept = {name: v for name, (v, usual) in fields.items() if v is not None and not (isinstance(v, float) and v == usual)}
    return {name: jax.tree.map(np.asarray, value) for name, value in kept.items()}


def record(data: Dataset | ClassDataset, loss: Loss | str, network: Network, index: int, **more: Any) -> dict[str, Any]:
    """Everything needed to run trial `index` of a batch again."""
    return {"loss": loss, **named(data), **pick(network, index), **more}


# Training for the catalogue: the independent simulators with one accuracy and one set of shapes.

FLOW_TOLERANCE = 1e-8
BY_FLOW = "simulate_flow: adaptive Runge-Kutta on all weights of the full network"
WHY_FLOW = (
    "the integrator keeps a local error of 1e-12, which thousands of steps and the crossings of activity boundaries "
    "(10 to 1000 times the local error each) turn into at most 1e-9; ten times that"
)
_MOST_STEPS = 3000


def flow_rtol() -> float:
    """The local error of the integrator. Crossing an activity boundary or a kink of hinge loss costs 10 to 1000 times it."""
    return 1e-12 if jax.config.jax_enable_x64 else 2e-6  # pyright: ignore[reportAttributeAccessIssue]


def train_flow(
    data: Dataset | ClassDataset, network: Network, loss: Loss | str, times: Any
) -> tuple[Trajectory, np.ndarray]:
    """The flow of all weights at `times` > 0, and which networks [b] the integrator could not follow (sliding)."""
    run = simulate_flow(
        data,
        network,
        loss,
        np.asarray(times, np.float64),
        rtol=flow_rtol(),
        max_steps=_MOST_STEPS,
        progress=False,
        throw=False,
    )
    gone = [np.isnan(np.asarray(leaf)) for leaf in jax.tree.leaves(run.final)]
    gone.append(~np.isfinite(np.asarray(run.recorded)))
    return run, np.any([lost.reshape(lost.shape[0], -1).any(-1) for lost in gone], axis=0)


def train_exact(data: Dataset, network: TwoLayerReLU, times: Any) -> Any:
    """The hinge flow of a batch of networks from event to event, a `HingeTrajectory`; NaN where a flow cannot be
    followed."""
    return simulate_hinge_exact(data, network, np.asarray(times, np.float64), throw=False)


def train_descent(
    data: Dataset | ClassDataset, network: Network, loss: Loss | str, step_size: Any, steps: int, every: int
) -> Trajectory:
    """Gradient descent of all weights by automatic differentiation; `step_size` a number or [b]."""
    return train(data, network, loss, GradientDescent(step_size), steps, every)


def train(
    data: Any,
    network: Network,
    loss: Loss | str,
    dynamics: Dynamics,
    steps: int,
    every: int,
    key: Any = None,
    **more: Any,
) -> Trajectory:
    """Descent with any `dynamics`, whose numbers are single or [b], on data or phases; `key` for those that draw at random.

    `more`: other options of `simulate`, such as `record_networks`.
    """
    if key is not None:
        key = jax.random.key_data(key)  # plain numbers, so that the run can be recorded and repeated
    more = {"record_every": every, "key": key, "progress": False, "throw": False, **more}
    return simulate(data, network, loss, dynamics, steps, **more)


def descent_gradient(data: Dataset, network: TwoLayerReLU, loss: Loss | str) -> TwoLayerReLU:
    """minus the gradient of the loss of each network, by automatic differentiation: the direction of the flow."""
    function = as_loss(loss)
    field = jax.vmap(jax.grad(lambda net: batch_loss(net, data, function)))(network)
    return jax.tree.map(jnp.negative, field)


def law_gaps(
    data: Any, network: TwoLayerReLU, loss: Loss | str, run: Trajectory, scale: Any, dynamics: Any = None
) -> tuple[np.ndarray, Any]:
    """The gaps between `theory.solve` and a trained `run`, [b], and a function that gives both sides of trial i.

    The larger of |u - u_law| / (|u_law| + scale) over the records and points, `scale` [b] being r sum (a^2 + z^2)/2 at
    the start, and of the last network's weights against the law's, relative to the root of their sum of squares.
    """
    grid = np.asarray(run.grid)
    solution = theory.solve(data, network, loss, dynamics)
    expected, found = np.asarray(solution.logits(grid)), np.asarray(run.recorded)
    size = np.abs(expected) + np.where(scale > 0, scale, 1)[:, None, None]
    gaps = np.max(np.abs(found - expected) / size, axis=(-1, -2))

    law = solution.network(grid)  # at all records, as the logits: one shape, one compilation
    w_law, z_law = np.asarray(law.w)[:, -1], np.asarray(law.z)[:, -1]
    final: Any = run.final
    w, z = np.asarray(final.w), np.asarray(final.z)
    length = np.sqrt(np.sum(w_law**2, axis=(-1, -2)) + np.sum(z_law**2, axis=-1))
    moved = np.maximum(np.abs(w - w_law).max(axis=(-1, -2)), np.abs(z - z_law).max(axis=-1))
    gaps = np.maximum(gaps, moved / np.where(length > 0, length, 1))

    def trial_record(i: int) -> dict[str, Any]:
        return {"times" if dynamics is None else "steps": grid, "law": expected[i], "trained": found[i]}

    return gaps, trial_record


# Training to late times: descent whose step grows with the elapsed time, so that t = 1e20 takes a few thousand steps.
#
# Late in training the speed of a logit is a constant over t, and a step of `PART` t changes it as little as a first step:
# this is Euler's method in log t. Its systematic error is a shift of time: with a speed that falls like 1/t each step is
# taken at the speed of its beginning, and the times given here are those of the flow to the next order, (1 + PART/2) t.

PART = 0.02
STEPS = 2400
BY_LATE = "simulate: descent on all weights by automatic differentiation, with steps of 2 % of the time run"


class _Growing(eqx.Module):
    """The update of an optax transformation: a step of `PART` t, and of `PART` `first` as long as t < `first`."""

    first: Float[Array, ""]

    def __call__(self, updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        size = PART * self.first * (1 + PART) ** jnp.maximum(state - 1 / PART, 0)
        return jax.tree.map(lambda leaf: -size * leaf, updates), state + 1


def _count(params: Any) -> Array:
    """The number of steps so far."""
    return jnp.zeros(())


def train_late(data: Dataset, network: Network, loss: Loss | str, first: float) -> tuple[Trajectory, np.ndarray]:
    """A run to t = 3e20 `first`, and the times [5] of its records, networks included; the first record is the start.

    `first`: the time up to which the step is constant, `PART` `first`; a few units of 1/(p r).
    """
    import optax

    steps = np.arange(STEPS)
    sizes = PART * first * (1 + PART) ** np.maximum(steps - 1 / PART, 0)
    times = np.append(0, np.cumsum(sizes))[:: STEPS // RECORDS] * (1 + PART / 2)
    dynamics = optax.GradientTransformation(_count, _Growing(jnp.asarray(first, float)))
    run = simulate(data, network, loss, dynamics, STEPS, record_every=STEPS // RECORDS, record_networks=True, progress=False)
    return run, times
