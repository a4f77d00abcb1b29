"""The end of a hinge flow and the maximum margin of each class: what they share, and how they differ (compare 13.1).

Let mu be the maximum margin of the points of one class through the origin and alpha_i its multipliers: v / mu =
sum alpha_i x_i and sum alpha_i = 1/mu^2. If all margins of class + are at least 1,

    1/mu^2 <= sum_i alpha_i m_i <= sum_{j: z_j > 0} z_j sum_i alpha_i (w_j.x_i)_+ <= sum_{j: z_j > 0} z_j |w_j| / mu,

because leaving out some of the points, which are at acute angles, makes |sum alpha_i x_i| no larger. So a network that
has learnt a class has a *path norm* sum |z_j| |w_j| over the neurons of its sign of at least 1/mu. Exclusive neurons of the
right sign move within the cone of their class: w_j(T) - w_j(0) = sum_i lambda_ji x_i with lambda_ji = q_i times the integral
of |z_j| g_i.

From a start that vanishes all neurons of a class first turn to c = sum q_i x_i and grow along it as one, until the first
point is learnt; then they move along the pull of the others. For a class along one direction, v, this ends at the maximum
margin and at the least path norm, 1/mu: sum |z_j| w_j.v is 1/mu at the end of any start, and each neuron keeps its part
off_j across v, so that the path norm exceeds 1/mu by less than sum |z_j| |off_j|^2 / (2 w_j.v). For two points x_1, learnt
first, and x_2 the flow ends at

    w = s c/|c| + (a - a_0) x_2/|x_2|,   z = (a^2 - D)^1/2,   a^2 = (D + (D^2 + 4/|x_2|^2)^1/2) / 2,

with s^2 = |c| / (c.x_1), a_0 = s c.x_2 / (|c| |x_2|) and D = a_0^2 - s^2. Point 1 then has a margin above 1 and yet
contributes to w: this is not the maximum margin, however small the start.

Also here: the limit direction of neurons under cross-entropy (13.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradstarve import theory
from gradstarve.problem import Dataset, TwoLayerReLU
from gradstarve.theorems._entry import COLOURS, EXCLUSIVE, RIGHT_SIGN, SEPARABLE, Outcome, of_losses
from gradstarve.theorems._register import Drop, Trials, compared, recorded, register
from gradstarve.theorems._sampling import (
    BATCH,
    BY_LATE,
    DIM,
    PER_CLASS,
    WIDTH,
    cone_data,
    log_uniform,
    train_exact,
    train_late,
    two_rays,
)
from gradstarve.theorems.laws.hinge import AT_LAST, HINGE_LOSS, followed
from gradstarve.theorems.laws.independence import exclusive_networks
from gradstarve.theorems.laws.modes import invariant

# The limit direction: every surviving neuron turns to the maximum-margin direction of its class (13.1).

_ANGLE_TOLERANCE = 0.5
_CLOSE = 0.02


def _clear_cut(rng: np.random.Generator, wide: bool) -> Dataset:
    """Cone data whose support is visible by t = 1e20; with `wide`, a class has two support points.

    A point at 1.02 margins pulls until then, and two support points at a small angle separate as late.
    """
    while True:
        data = cone_data(rng, rng.uniform(0.4, 0.7), norms=(0.8, 1.25)) if wide else cone_data(rng)
        points, labels = np.asarray(data.points), np.asarray(data.labels)
        if all(_is_clear(points[labels == label]) for label in (1, -1)):
            return data


def _is_clear(points: np.ndarray) -> bool:
    """Both points of a class support the margin with a share above 0.15 and are 30 degrees apart, or one of them is 50 %
    beyond it. In plain geometry: the maximum margin is the distance of the segment between the two points from 0, and their
    shares are those of the nearest point of the segment."""
    first, second = points
    across = second - first
    share = np.clip(-(first @ across) / (across @ across), 0, 1)  # of the second point
    nearest = first + share * across
    if share in (0, 1):
        other = first if share else second
        return bool(other @ nearest > 1.5 * (nearest @ nearest))
    cosine = first @ second / np.sqrt((first @ first) * (second @ second))
    return bool(min(share, 1 - share) > 0.15 and cosine < np.cos(np.deg2rad(30)))


def _turning(data: Dataset, network: TwoLayerReLU, loss: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(1 - cos to the limit of its class, smallest margin of its class): [b, records, h] each; which neurons survive: [b,
    h].

    Survivors are active on all points of one class and none of the other at all records, with its sign, and are large
    compared with their start: |w|^2 - z^2, which is constant (1.3), is within 5 % of z^2.
    """
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    run, _ = train_late(data, network, loss, 15 / float(np.max(np.linalg.norm(points, axis=-1))))
    kept: Any = run.networks
    w, z = np.asarray(kept.w)[:, 1:], np.asarray(kept.z)[:, 1:]
    margins = np.asarray(run.recorded)[:, 1:] * labels
    size = np.linalg.norm(w, axis=-1, keepdims=True)
    unit = w / np.where(size > 0, size, 1)
    active = w @ points.T > 0
    gap, reached, lives = np.zeros(z.shape), np.ones(z.shape), np.zeros(network.z.shape, bool)
    for label in (1, -1):
        limit = np.asarray(theory.max_margin_direction(points[labels == label]).direction)
        grown = np.abs(size[..., 0] ** 2 - z**2) < 0.05 * z**2
        mine = (np.sign(z) == label) & (active == (labels == label)).all(-1) & grown
        # 1 - cos from the difference of unit vectors, which keeps its digits.
        gap = np.where(mine, np.sum((unit - limit) ** 2, axis=-1) / 2, gap)
        reached = np.where(mine, margins[..., labels == label].min(-1)[..., None], reached)
        lives |= mine.all(1)
    return gap, reached, lives


def _growth(gap: np.ndarray, reached: np.ndarray, mine: np.ndarray) -> np.ndarray:
    """The growth of (1 - cos) times the margin from the first record to the last, for the neuron of a class that is
    farthest off: [b]. (While a class turns, a neuron that is ahead by chance may fall behind.) `mine`: [b, h].

    Relative to the first value, plus `_CLOSE` for neurons that are close to the limit by chance at first.
    """
    product = np.max(np.where(mine[:, None], gap * reached, 0), axis=-1)
    return np.maximum((product[:, -1] - product[:, 0]) / (product[:, 0] + _CLOSE), 0)


def _seeing_both(rng: np.random.Generator) -> Trials:
    """Classes at 60 degrees, and neurons active on all points of both."""
    data = cone_data(rng, opening=0.1, angle=np.pi / 3)
    points, labels = np.asarray(data.points), np.asarray(data.labels)
    w = rng.uniform(0.05, 0.3, (BATCH, WIDTH, labels.size)) @ points
    z = np.linalg.norm(w, axis=-1) * rng.choice([-1, 1], (BATCH, WIDTH))
    z[:, :2] = np.abs(z[:, :2]) * [1, -1]  # both classes are learnt
    network = TwoLayerReLU(w, z)
    run, _ = train_late(data, network, "cross-entropy", 15 / float(np.max(np.linalg.norm(points, axis=-1))))
    limit = np.asarray(theory.max_margin_direction(points[labels == 1]).direction)
    kept: Any = run.networks
    first = np.asarray(kept.w)[:, 1:, 0]
    gap = 1 - first @ limit / np.linalg.norm(first, axis=-1)
    margin = (np.asarray(run.recorded)[:, 1:] * labels)[..., labels == 1].min(-1)
    # By the law the product at the end is at most that of the first record; the unit is that of `_growth`.
    before, after = (gap[:, k] * margin[:, k] for k in (0, -1))
    return compared(
        after,
        before,
        before + _CLOSE,
        recorded(data, "cross-entropy", network),
        margin[:, 0] <= 8,
        "(1 - cos) times the margin, of a neuron at the end,",
        lambda i: f"while the margin of class + went from {margin[i, 0]:.3g} to {margin[i, -1]:.3g},",
        judge=np.positive,
        rest=lambda i: f"the neuron is {np.rad2deg(np.arccos(1 - gap[i, -1])):.4g} degrees off the direction of (13.1)",
    )


def draw_direction(outcome: Outcome, ax: Any) -> None:
    """1 - cos of every surviving neuron against the margin of its class, and the slope of 1/log t."""
    margin, gap = outcome.extra["points"].T
    there = gap > 0
    ax.loglog(margin[there], gap[there], ".", markersize=2, color=COLOURS[0], label="neurons (trained)")
    grid = np.geomspace(8, 60, 20)
    ax.loglog(grid, 0.3 / grid, color="black", linestyle="--", label="slope of 1/log t")
    ax.set_ylim(1e-7, 1)
    ax.set_xlabel("margin of the class, grows like log t")
    ax.set_ylabel("1 − cos(w, maximum-margin direction)")
    ax.legend(frameon=False, fontsize=8, loc="lower left", markerscale=4)


@register(
    name="last-direction",
    equation="13.1",
    title="Neurons turn to the maximum-margin direction of their class",
    meaning="Late in training the neurons of a class turn to the direction that separates it with the largest margin, but"
    " they may do so only at logarithmic speed.",
    claim="1 - cos between the surviving neurons and that direction falls like 1/log t or faster, whatever the points' "
    "weights",
    formula=(
        r"1 - \frac{w_j \cdot v}{\left| w_j \right|} = O \left( \frac{1}{\log(t)} \right), \qquad "
        r"v \text{ attains } \max\limits_{\left| v \right| = 1} \, \min\limits_{i \in \text{class}} v \cdot x_i"
    ),
    hypotheses=(
        SEPARABLE,
        of_losses("cross-entropy", "cross-entropy"),
        EXCLUSIVE,
        RIGHT_SIGN,
        "to be seen by t = 1e20: other points 50 % beyond the margin, supports 30 degrees apart",
    ),
    tolerance=_ANGLE_TOLERANCE,
    why_tolerance=(
        "(1 - cos) times the margin, which grows like log t, would grow by the ratio of the margins, 2.5 and more, if the "
        "limit were another one; on its way to a constant it was seen to grow by less than 0.2 in 4000 networks"
    ),
    checked_with=BY_LATE,
    default_trials=3 * BATCH,
    quick_trials=3 * BATCH,
    losses=("cross-entropy",),
    rounds=({"wide": True}, {"wide": False}),
    drops=(
        Drop("orthogonally separable data (classes at 60 degrees instead, neurons that see both)", _seeing_both),
    ),
    figure=draw_direction,
)
def last_direction(rng: np.random.Generator, wide: bool) -> Trials:
    """Cone data, exclusive neurons of the right sign, margins from 15 to 50; one trial is one network."""
    data = _clear_cut(rng, wide)
    network = exclusive_networks(rng, data, high=0.2)
    gap, reached, lives = _turning(data, network, "cross-entropy")
    lives &= reached[:, 0] > 8
    sign = np.sign(np.asarray(network.z))
    return Trials(
        np.maximum(*(_growth(gap, reached, lives & (sign == label)) for label in (1, -1))),
        recorded(data, "cross-entropy", network, {"one_minus_cos_by_law": gap, "margins": reached}),
        ~lives.any(-1),
        "two supports" if wide else "one support or two",
        extra={"points": np.stack([reached, gap], axis=-1)[np.broadcast_to(lives[:, None], gap.shape)]},
    )


# The end of a hinge flow (13.1).

_TOLERANCE = 1e-6
SMALL = 1e-9
GROUPS = ("one direction", "two points")


def end_of_small_start(points: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, float]:
    """(w [d], z) of the single neuron at the end of training on a class of two points [2, d], from a vanishing start."""
    pull = weights @ points
    unit = pull / np.linalg.norm(pull)
    reach = points @ unit
    first = int(np.argmax(reach))
    s = reach[first] ** -0.5
    other = points[1 - first]
    if reach[1 - first] >= reach[first] * (1 - 1e-12):  # both at once
        return s * unit, float(s)
    length = np.linalg.norm(other)
    start = s * unit @ other / length
    kept = start**2 - s**2
    a = np.sqrt((kept + np.sqrt(kept**2 + 4 / length**2)) / 2)
    return s * unit + (a - start) * other / length, float(np.sqrt(a**2 - kept))


def _path_norm(network: TwoLayerReLU, label: float) -> np.ndarray:
    """sum |z_j| |w_j| over the neurons of one sign, [b]."""
    w, z = np.asarray(network.w), np.asarray(network.z)
    return np.sum(np.where(np.sign(z) == label, np.abs(z) * np.linalg.norm(w, axis=-1), 0), axis=-1)


def _of_class(network: TwoLayerReLU, label: float) -> np.ndarray:
    """sum |z_j| w_j over the neurons of one sign, the linear function on the points of their class, [b, d]."""
    w, z = np.asarray(network.w), np.asarray(network.z)
    return np.einsum("bh,bhd->bd", np.where(np.sign(z) == label, np.abs(z), 0), w)


def _off_the_cone(points: np.ndarray, before: TwoLayerReLU, after: TwoLayerReLU, label: float) -> np.ndarray:
    """The distance of w_j(T) - w_j(0) from the cone of the points, over its length; the worst neuron, [b]."""
    from scipy.optimize import nnls

    moved, z = np.asarray(after.w) - np.asarray(before.w), np.asarray(after.z)
    gaps = np.zeros(z.shape)
    for b, j in zip(*np.nonzero(np.sign(z) == label), strict=True):
        length = np.linalg.norm(moved[b, j])
        gaps[b, j] = nnls(points.T, moved[b, j] / length)[1] if length > 0 else 0
    return gaps.max(-1)


def _relations(
    data: Dataset, before: TwoLayerReLU, after: TwoLayerReLU, group: str, small: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The distance of the end from the claim, [b], and for each class the path norm times mu at the start and, minus 1, at
    the end, [b, 2, 2]; 0 for a class without a neuron. `small` [b]: which starts vanish."""
    points, labels, weights = (np.asarray(leaf) for leaf in (data.points, data.labels, data.weights))
    sizes = np.asarray(after.z) ** 2 + np.sum(np.asarray(after.w) ** 2, axis=-1)
    drift = [invariant(np.asarray(net.w), np.asarray(net.z)) for net in (before, after)]
    gaps = np.max(np.abs(drift[1] - drift[0]) / np.where(sizes > 0, sizes, 1), axis=-1)
    found = np.zeros((len(gaps), 2, 2))
    for place, label in enumerate((1.0, -1.0)):
        mine = labels == label
        limit = theory.max_margin_direction(points[mine])
        mu, direction = float(limit.margin), np.asarray(limit.direction)
        there = _path_norm(after, label) > 0
        excess = mu * _path_norm(after, label) - 1
        vector = _of_class(after, label)
        gap = np.maximum(-excess, _off_the_cone(points[mine], before, after, label))
        w, z = end_of_small_start(points[mine], weights[mine])
        off = np.linalg.norm(vector - z * w, axis=-1) / np.linalg.norm(z * w)
        if group == GROUPS[0]:
            unit = vector / np.where(there, np.linalg.norm(vector, axis=-1), 1)[:, None]
            off = np.maximum(off, np.maximum(np.abs(excess), np.linalg.norm(unit - direction, axis=-1)))
            gap = np.maximum(gap, np.abs(mu * (vector @ direction) - 1))
        gap = np.maximum(gap, np.where(small, off, 0))
        gaps = np.maximum(gaps, np.where(there, gap, 0))
        found[:, place] = np.where(there, [mu * _path_norm(before, label), excess], 0).T
    return gaps, found


def _drawn(rng: np.random.Generator, group: str) -> tuple[Dataset, TwoLayerReLU, np.ndarray]:
    """Exclusive neurons of the right sign on both classes; every second start has the scale `SMALL`, the others one up
    to 1; and which starts are small, [b]."""
    data = two_rays(rng, rng.uniform(-0.95, 0)).data if group == GROUPS[0] else cone_data(rng)
    network = exclusive_networks(rng, data)
    margin = np.max(np.asarray(network(data.points)) * np.asarray(data.labels), axis=-1)
    small = np.arange(BATCH) % 2 == 1
    # No margin is above 1 at the start.
    scale = np.where(small, SMALL, log_uniform(rng, SMALL, 1, BATCH)) / np.sqrt(np.maximum(margin, 1))
    return data, TwoLayerReLU(network.w * scale[:, None, None], network.z * scale[:, None]), small


def _ended(data: Dataset, network: TwoLayerReLU) -> TwoLayerReLU:
    final: Any = train_exact(data, network, AT_LAST).final
    return final


def _several_points(rng: np.random.Generator) -> Trials:
    """Classes of two points: the end is not the maximum margin, however small the start."""
    cases = []
    for _ in range(6):
        data = cone_data(rng, opening=0.7)
        network = exclusive_networks(rng, data)
        network = TwoLayerReLU(network.w * SMALL, network.z * SMALL)
        final = _ended(data, network)
        points = np.asarray(data.points)[np.asarray(data.labels) > 0]
        limit = theory.max_margin_direction(points)
        excess = float(limit.margin) * _path_norm(final, 1.0) - 1
        cases.append((float(excess.max()), data, network, final, points, limit, excess))
    _, data, network, final, points, limit, excess = max(cases, key=lambda case: case[0])

    def rest(b: int) -> str:
        vector = _of_class(final, 1.0)[b]
        turned = np.rad2deg(np.arccos(vector @ np.asarray(limit.direction) / np.linalg.norm(vector)))
        pulls, alpha, margins = np.linalg.lstsq(points.T, vector)[0], np.asarray(limit.coefficients), points @ vector
        first = int(np.argmax(margins))
        return (
            f"w ends {turned:.3g} degrees off the maximum-margin direction: a point with a margin of {margins[first]:.4g} "
            f"has pulled {pulls[first] / pulls.sum():.3g} of it, where the maximum margin gives it "
            f"{alpha[first] / alpha.sum():.3g}"
        )

    return _beyond_the_least(data, network, excess, rest=rest)


def _beyond_the_least(data: Dataset, network: TwoLayerReLU, excess: np.ndarray, **more: Any) -> Trials:
    """Trials whose gap is the excess of the path norm of class + over the least one."""
    texts: dict[str, Any] = {"quantity": "the path norm of class +, in units of the least,", "when": "at the end"}
    return compared(1 + excess, 1, 1.0, recorded(data, "hinge", network), judge=np.positive, **texts, **more)


def _of_order_one(rng: np.random.Generator) -> Trials:
    """A start of order one: each neuron keeps its initial part across its class."""
    data = two_rays(rng, rng.uniform(-0.95, 0)).data
    network = exclusive_networks(rng, data)
    points = np.asarray(data.points)[np.asarray(data.labels) > 0]
    mu = float(theory.max_margin_direction(points).margin)
    excess, before = mu * _path_norm(_ended(data, network), 1.0) - 1, mu * _path_norm(network, 1.0)

    def setting(b: int) -> str:
        return f"the path norm is {before[b]:.3g} of the least at the start"

    return _beyond_the_least(data, network, np.where(before < 0.5, excess, -1), setting=setting)


def _obtuse(rng: np.random.Generator) -> Trials:
    """Two points of one class at 150 degrees, each with a neuron of its own."""
    unit = np.eye(3, DIM)
    other = np.cos(5 * np.pi / 6) * unit[0] + np.sin(5 * np.pi / 6) * unit[1]
    data = Dataset(np.stack([unit[0], other, unit[2], unit[2]]), np.repeat([1.0, -1.0], PER_CLASS), np.full(4, 0.25))
    size = rng.uniform(0.01, 0.1, BATCH)
    w = np.zeros((BATCH, WIDTH, DIM))
    w[:, :3] = size[:, None, None] * np.stack([unit[0], other, unit[2]])
    z = np.zeros((BATCH, WIDTH))
    z[:, :3] = size[:, None] * np.array([1.0, 1.0, -1.0])
    network = TwoLayerReLU(w, z)
    final = _ended(data, network)
    least = 1 / float(theory.max_margin_direction(np.asarray(data.points)[:2]).margin)
    margin = float(np.asarray(final(data.points))[0, :2].min())
    # A class that is not learnt is no counterexample.
    norm = min(_path_norm(final, 1.0)[0], least) if margin > 1 - 1e-9 else least
    rest = f"by the law it is 1/mu at least, as the class is learnt, with margins of {margin:.3g}"
    texts: dict[str, Any] = {"quantity": "the path norm of class +", "when": "at the end", "rest": rest}
    return compared([norm], least, least, recorded(data, "hinge", network), **texts)


def draw_margin(outcome: Outcome, ax: Any) -> None:
    """The excess of the path norm of every class over the least one at the end, against the path norm at the start."""
    start, excess, kind = outcome.extra["points"].T
    for value, (name, colour) in enumerate(zip(GROUPS, COLOURS, strict=False)):
        mine = kind == value
        shown = np.maximum(excess[mine], 1e-15)
        ax.loglog(start[mine], shown, ".", markersize=4, color=colour, label=f"a class of {name}")
    ticks = np.arange(-15, 1, 3)
    ax.set_ylim(3e-16, 10)
    ax.set_yticks(10.0**ticks, ["rounding", *(f"$10^{{{k}}}$" for k in ticks[1:])])
    ax.set_xlabel("path norm of a class at the start, times μ")
    ax.set_ylabel("path norm at the end, times μ, less 1")
    ax.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.5), markerscale=2)


@register(
    name="hinge-max-margin",
    equation="13.1",
    title="The end of a hinge flow and the maximum margin",
    meaning="The hinge loss never ends with less weight than the maximum margin needs; a class along one direction ends "
    "with just that from a vanishing start.",
    claim="a class that is learnt has a path norm sum |z| |w| of at least 1/mu, mu its maximum margin; neurons have moved "
    "within the cone of its points; for a class along one direction, v, sum |z| w.v ends at 1/mu, and from a start that "
    "vanishes so does the path norm, in the maximum-margin direction; a class of two points then ends where one neuron "
    "along sum q x does",
    formula=(
        r"\begin{split} &\sum_j \left| z_j \right|\, \left| w_j \right| \ge \frac{1}{\mu}, \qquad "
        r"w_j(T) - w_j(0) = \sum_i \lambda_{ji}\, x_i, \quad \lambda_{ji} \ge 0, \qquad "
        r"\mu = \max\limits_{\left| v \right| = 1} \, \min\limits_i v \cdot x_i; \\ "
        r"&\text{one direction } v: \quad \sum_j \left| z_j \right|\, w_j \cdot v = \frac{1}{\mu}, \qquad "
        r"\sum_j \left| z_j \right|\, \left| w_j \right| \to \frac{1}{\mu} \text{ for starts} \to 0; \\ "
        r"&\text{two points, } x_1 \text{ learnt first:} \quad "
        r"\sum_j \left| z_j \right|\, w_j \to \sqrt{a^2 - D} \left( s\, \hat{c} + (a - a_0)\, \hat{x}_2 \right) "
        r"\text{ for starts} \to 0, \\ "
        r"&c = \sum_i q_i x_i, \quad s^2 = \frac{1}{\hat{c} \cdot x_1}, \quad a_0 = s\, \hat{c} \cdot \hat{x}_2, \quad "
        r"D = a_0^2 - s^2, \quad a^2 = \frac{D + \sqrt{D^2 + 4 / \left| x_2 \right|^2}}{2} \end{split}"
    ),
    hypotheses=(
        SEPARABLE,
        HINGE_LOSS,
        EXCLUSIVE,
        RIGHT_SIGN,
        "for the maximum margin itself: each class along one direction, margins of at most 1 at the start, and a start that "
        "vanishes",
    ),
    tolerance=_TOLERANCE,
    why_tolerance=f"a start of {SMALL:.0e} is off its limit by as much, up to 100 times; rounding is far below",
    checked_with="plain NumPy on the last weights of simulate_hinge_exact; SciPy's non-negative least squares",
    default_trials=8 * BATCH,
    quick_trials=2 * BATCH,
    losses=("hinge",),
    rounds=tuple({"group": group} for group in GROUPS),
    drops=(
        Drop(f"each class along one direction (two points each instead, start of {SMALL:.0e})", _several_points),
        Drop("a start that vanishes (one of order 1 instead)", _of_order_one),
        Drop("orthogonally separable data (two points of one class at 150 degrees instead)", _obtuse),
    ),
    figure=draw_margin,
)
def hinge_max_margin(rng: np.random.Generator, group: str) -> Trials:
    """The end of exclusive neurons of the right sign, from any start and from one that vanishes; one trial a network."""
    data, network, small = _drawn(rng, group)
    run = train_exact(data, network, AT_LAST)
    gaps, found = _relations(data, network, run.final, group, small)
    gaps = np.where(followed(run) & np.asarray(run.settled), gaps, np.inf)
    kind = np.full((*found.shape[:2], 1), GROUPS.index(group))
    points = np.concatenate([found, kind], axis=-1)[found[..., 0] > 0]
    numbers = recorded(data, "hinge", network, {"relations_to_the_law": found})
    return Trials(gaps, numbers, group=group, extra={"points": points})
