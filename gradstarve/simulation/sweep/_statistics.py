"""Statistics of a sweep: on the device for one block of networks, and on the host for all blocks of a configuration.

A *column* is a quantity of a network at a record: column 0 is the error sum_i q_i sigmoid(-m_i), column 1 the loss
sum_i q_i l(m_i), column 2 + i the margin m_i. Counts are integers and add up exactly. Means and squared deviations are kept
block by block and combined in the order of the blocks, so that the outcome depends on neither chunks nor devices.

A network with a logit or loss that is not finite at any record has *diverged*: it is counted, its seed is kept, and it
takes no part in anything else at any record. A mean over networks that drop out one by one would compare nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Integer, Shaped
from scipy.special import expit

from gradstarve.ground import number, shown
from gradstarve.problem import Dataset, Loss, Phases
from gradstarve.simulation._trajectory import PhasedTrajectory, Trajectory

# Histograms on fixed scales, from which quantiles of any number of networks are read with a stated resolution.
#
# Counts on fixed edges add up exactly, in any order and on any device, which sorted samples do not. A value v is counted in
# bin floor((scale(v) - low) / step); the outermost bins are open, and a minimum and a maximum kept beside the counts close
# them.
#
# | scale    | scale(v)         | made for              | width of a bin at v         |
# |----------|------------------|-----------------------|-----------------------------|
# | `MARGIN` | asinh(v / 0.05)  | margins of any sign   | sqrt(v^2 + 0.05^2) / 32     |
# | `ERROR`  | log(v / (1 - v)) | errors between 0 and 1 | about v (1 - v) / 20       |

BINS = 512
# Below it |margin| is told on an even scale, above it on a logarithmic one.
_KNEE = 0.05


@dataclass(frozen=True)
class Scale:
    """`BINS` bins of width `step` in the scaled value, from `low` on. `name` is "margin" or "error"."""

    name: str
    low: float
    step: float

    def index(self, values: Float[Array, "*shape"]) -> Int[Array, "*shape"]:
        """The bin of each value; NaN in bin 0, to be left out by the caller."""
        if self.name == "margin":
            scaled = jnp.arcsinh(values / _KNEE)
        else:
            # An error of 0 or 1 belongs to an outer bin; the clipping only keeps the logarithm finite.
            tiny = jnp.finfo(values.dtype).tiny
            scaled = jnp.log(jnp.maximum(values, tiny)) - jnp.log(jnp.maximum(1 - values, tiny))
        place = jnp.floor((scaled - self.low) / self.step)
        return jnp.nan_to_num(jnp.clip(place, 0, BINS - 1)).astype(jnp.int32)

    def value(self, place: np.ndarray) -> np.ndarray:
        """The value at `place` bins from the lower end, in float64; whole numbers are the edges.

        >>> MARGIN.value(np.array([BINS / 2 - 1, BINS / 2, BINS / 2 + 32])).round(4).tolist()
        [-0.0016, 0.0, 0.0588]
        """
        scaled = self.low + self.step * np.asarray(place, np.float64)
        return _KNEE * np.sinh(scaled) if self.name == "margin" else expit(scaled)

    @property
    def edges(self) -> np.ndarray:
        """The `BINS` + 1 edges, rising; the first and the last are those of open bins."""
        return self.value(np.arange(BINS + 1))


MARGIN = Scale("margin", -8.0, 1 / 32)
ERROR = Scale("error", -19.2, 1 / 20)


def decimal(level: Any) -> Fraction | None:
    """A number exactly as its shortest decimal says, in its own precision; None for what is no finite number.

    In floats 0.07 * 100 is 7.000000000000001, and no count of 100 things is a share 0.07 of them.

    >>> decimal(0.07) * 100, decimal(np.float32(0.07)) * 100
    (Fraction(7, 1), Fraction(7, 1))
    """
    if isinstance(level, Fraction):
        return level
    if isinstance(level, bool | str | np.bool_) or np.ndim(level) != 0:
        return None
    try:
        return Fraction(str(np.asarray(level)[()]))
    except (ValueError, TypeError):
        return None


def _ranks(levels: np.ndarray, total: np.ndarray) -> np.ndarray:
    """ceil(level * total) of `total` [..., 1] for every level, [..., q], in whole numbers."""
    shares = [decimal(level) for level in levels]
    counts, place = np.unique(total, return_inverse=True)
    table = [[math.ceil(share * int(count)) for share in shares if share is not None] for count in counts]
    return np.array(table, np.int64)[place.reshape(total.shape[:-1])]


def quantile(scale: Scale, counts: np.ndarray, low: Any, high: Any, levels: np.ndarray) -> np.ndarray:
    """The smallest value with at least a share `levels` of the counted ones at or below it, to one width of its bin.

    `counts`: [..., BINS], `low`, `high`: [...], the least and the largest value counted, `levels`: [q] in [0, 1]. The
    result is [..., q] in float64, NaN where nothing was counted. Inside a bin values are taken to lie evenly. Shares are
    compared as `decimal` numbers.

    >>> counts = np.bincount(np.asarray(MARGIN.index(jnp.array([0.1, 0.2, 0.4, 0.8]))), minlength=BINS)
    >>> quantile(MARGIN, counts, np.array(0.1), np.array(0.8), np.array([0.0, 0.5, 1.0])).round(2).tolist()
    [0.1, 0.2, 0.8]
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    total = counts.sum(-1, dtype=np.int64)[..., None]
    rank = np.clip(_ranks(levels, total), 1, np.maximum(total, 1))  # of the value asked for, from 1
    upto = np.cumsum(counts, -1, dtype=np.int64)
    flat, ranks = upto.reshape(-1, BINS), rank.reshape(-1, levels.size)
    bins = np.array([np.searchsorted(row, wanted) for row, wanted in zip(flat, ranks, strict=True)])
    bins = np.minimum(bins, BINS - 1).reshape(rank.shape)
    inside = np.take_along_axis(counts, bins, -1)
    before = np.take_along_axis(upto, bins, -1) - inside
    found = scale.value(bins + (rank - before - 0.5) / np.maximum(inside, 1))
    low, high = low[..., None], high[..., None]
    # The open bins have no width to divide; the ends that were seen are all that is known there.
    found = np.where(bins == 0, low, np.where(bins == BINS - 1, high, found))
    found = np.where(rank == 1, low, np.where(rank == total, high, found))
    return np.where(total > 0, np.clip(found, low, high), np.nan)


# What is kept of a block.

# Seeds of diverged networks that are kept, per configuration.
NAMED = 20

# Entries of a part that are kept block by block, as those of own statistics are.
BY_BLOCK = ("block", "kept", "mean", "deviations")

Part = dict[str, np.ndarray]
"""The statistics of some networks of one configuration, see `join`; what a chunk is made of."""


def summarise(
    logits: Float[Array, "records b n"],
    labels: Float[Array, "*records n"],
    weights: Float[Array, "*records n"],
    loss: Loss,
    threshold: Float[Array, ""],
    count: Integer[Array, ""],
) -> dict[str, Array]:
    """What a block of networks comes to; the first `count` of them are real, the others fill the block.

    `labels`, `weights`: of the points, or of the points at each record.
    """
    found, first, bins = _reduce(logits, labels, weights, loss, threshold, count)
    # A program of its own: XLA:CPU would compute the logarithms of the scales inside the scatter, element by element.
    crossed, histograms = _tally(first, bins)
    return found | {"crossed": crossed, "bins": histograms}


@eqx.filter_jit
def _reduce(
    logits: Float[Array, "records b n"],
    labels: Float[Array, "*records n"],
    weights: Float[Array, "*records n"],
    loss: Loss,
    threshold: Float[Array, ""],
    count: Integer[Array, ""],
) -> tuple[dict[str, Array], Integer[Array, "columns b"], Integer[Array, "records bins b"]]:
    """Sums and extremes; the record at which a network is first below the threshold; the bins that it is in."""
    # Networks along the last axis, where vectors run and sums are quick; few points would leave it short.
    logits = jnp.moveaxis(logits, 1, 2)  # [records, n, b]
    margins = labels[..., None] * logits
    point_errors = jax.nn.sigmoid(-margins)
    errors = jnp.sum(weights[..., None] * point_errors, 1, keepdims=True)
    losses = jnp.sum(weights[..., None] * loss.value(margins), 1, keepdims=True)
    real = jnp.arange(logits.shape[2]) < count
    finite = jnp.isfinite(logits).all((0, 1)) & jnp.isfinite(losses).all((0, 1))
    taken = real & finite
    kept = taken.sum()

    columns = jnp.concatenate([errors, losses, margins], 1)
    low = jnp.where(taken, columns, jnp.inf).min(-1)
    high = jnp.where(taken, columns, -jnp.inf).max(-1)
    # In units of the largest one, because squares of large margins overflow in float32.
    unit = jnp.maximum(jnp.maximum(-low, high), jnp.finfo(columns.dtype).tiny)
    unit = jnp.where(kept > 0, unit, 1)
    scaled = jnp.where(taken, columns / unit[..., None], 0)
    mean = scaled.sum(-1) / jnp.maximum(kept, 1)
    deviations = jnp.where(taken, (scaled - mean[..., None]) ** 2, 0).sum(-1)

    below_points = point_errors < threshold
    below = [errors < threshold, below_points.all(1, keepdims=True), below_points]
    below = jnp.concatenate(below, 1) & taken
    records = jnp.arange(below.shape[0], dtype=jnp.int32)[:, None, None]
    first = jnp.where(below, records, len(records)).min(0)
    first = jnp.where(taken, first, len(records) + 1)

    bins = jnp.concatenate([ERROR.index(errors), MARGIN.index(margins)], 1)
    found = {
        "kept": kept,
        "diverged": real & ~finite,
        "mean": mean,
        "deviations": deviations,
        "unit": unit,
        "low": low,
        "high": high,
        "below": below.sum(-1),
    }
    return found, first, jnp.where(taken, bins, BINS)


@jax.jit
def _tally(
    first: Integer[Array, "columns b"], bins: Integer[Array, "records bins b"]
) -> tuple[Integer[Array, "moments columns"], Integer[Array, "records bins B"]]:
    return _count(first[None], bins.shape[0] + 1)[0].T, _count(bins, BINS)


def _count(index: Integer[Array, "a c b"], size: int) -> Integer[Array, "a c size"]:
    """How often each of 0, ..., size - 1 occurs along b; anything from `size` on is left out."""
    a, c, _ = index.shape
    start = (jnp.arange(a)[:, None, None] * c + jnp.arange(c)[:, None]) * size
    place = jnp.where(index < size, start + index, a * c * size)
    return jnp.zeros(a * c * size, jnp.int32).at[place.reshape(-1)].add(1, mode="drop").reshape(a, c, size)


def part_of_block(found: dict[str, Any], first_seed: int) -> Part:
    """The `Part` that `summarise` found for the block whose networks begin with `first_seed`, by which it is known."""
    found = {name: np.asarray(value) for name, value in found.items()}
    unit = found["unit"].astype(np.float64)
    sick = np.flatnonzero(found["diverged"])
    with np.errstate(over="ignore"):  # the spread of networks whose numbers are next to the largest float
        deviations = found["deviations"] * unit**2
    return {
        "block": np.array([first_seed], np.int64),
        "kept": found["kept"][None].astype(np.int64),
        "mean": (found["mean"] * unit)[None],
        "deviations": deviations[None],
        "low": found["low"].astype(np.float64),
        "high": found["high"].astype(np.float64),
        "below": found["below"].astype(np.int64),
        "crossed": found["crossed"].astype(np.int64),
        "bins": found["bins"].astype(np.uint32),
        "diverged": np.array(sick.size),
        "seeds": (first_seed + sick[:NAMED]).astype(np.int64),
    }


def join(one: Part | None, other: Part) -> Part:
    """Two parts of one configuration as one: counts added, extremes taken, what is kept per block side by side."""
    if one is None:
        return other
    joined = {name: np.asarray(one[name] + other[name]) for name in ("below", "crossed", "bins", "diverged")}
    by_block = [name for name in one if name in BY_BLOCK or name.startswith("own.")]
    joined |= {name: np.concatenate([one[name], other[name]]) for name in by_block}
    joined["low"] = np.minimum(one["low"], other["low"])
    joined["high"] = np.maximum(one["high"], other["high"])
    joined["seeds"] = np.sort(np.concatenate([one["seeds"], other["seeds"]]))[:NAMED]
    return joined


def expand(part: Part, index: np.ndarray) -> Part:
    """`part` of the distinct points as one of all points, of which point i is distinct point `index`[i]."""
    columns = np.concatenate([[0, 1], 2 + index])
    wide = {name: part[name][..., columns] for name in ("mean", "deviations", "low", "high", "below", "crossed")}
    return part | wide | {"bins": part["bins"][:, np.concatenate([[0], 1 + index])]}


def moments(part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Mean and variance (with N below, not N - 1) of every column over the networks, [records, columns]; NaN for none."""
    order = np.argsort(part["block"])
    kept, mean, deviations = (part[name][order] for name in ("kept", "mean", "deviations"))
    total = kept.sum()
    if total == 0:
        nothing = np.full(mean.shape[1:], np.nan)
        return nothing, nothing
    kept = kept[:, None, None]
    # A block without networks has a mean of 0 and no weight.
    overall = (kept * mean).sum(0) / total
    return overall, (deviations + kept * (mean - overall) ** 2).sum(0) / total


# The error at which a loss stops to push, and a threshold for "has learnt" that every loss of a sweep can reach.

USUAL = 0.01
_FAR = 40.0  # sigmoid(-40) is 0 beside any threshold


def error_floor(loss: Loss, data: Dataset) -> float:
    """sum_i q_i sigmoid(-m_i*), where m_i* is the lowest margin of sample i at which the residual g(m) is not above 0.

    Full-batch training pushes the margins towards m*: to 1 with the hinge and the squared loss, and without end with the
    cross-entropy and the exponential loss, whose floor is 0. A step may carry a margin a little beyond m*. The floor is 0
    too for a loss that does not take margins [r, n].

    >>> from gradstarve.problem import SpectralDecoupling, as_loss, datasets
    >>> data = datasets.antipodal()
    >>> [round(error_floor(as_loss(loss), data), 4) for loss in ("cross-entropy", "hinge", SpectralDecoupling("hinge", 2.0))]
    [0.0, 0.2689, 0.3775]
    """
    low = np.full(data.size, -_FAR)
    high = np.full(data.size, _FAR)
    for rows in (161, 65, 65, 65):
        margins = np.linspace(low, high, rows)
        try:
            push = np.asarray(loss.residual(jnp.asarray(margins, data.points.dtype)))
        except (TypeError, ValueError):
            return 0.0
        if push.shape != margins.shape or not np.isfinite(push).all():
            return 0.0
        stops = push <= 0
        ever, first = stops.any(0), stops.argmax(0)
        columns = np.arange(data.size)
        low = np.where(ever, margins[np.maximum(first - 1, 0), columns], _FAR)
        high = np.where(ever, margins[first, columns], _FAR)
    errors = np.where(high >= _FAR, 0, 1 / (1 + np.exp(high)))
    return float(np.sum(np.asarray(data.weights, np.float64) * errors))


def default_threshold(floors: Sequence[float]) -> float:
    """0.01 where every loss reaches half of it, and else between the highest floor and 1/2, the error of no network.

    >>> default_threshold([0.0]), default_threshold([0.0, 0.2689]), default_threshold([0.6])
    (0.01, 0.3, 0.01)
    """
    highest = max(floors)
    if not USUAL / 2 < highest < 0.5:
        return USUAL
    return float(f"{highest + 0.15 * (0.5 - highest):.2g}")


def note(floors: dict[str, float], threshold: float, chosen: bool) -> str:
    """A sentence on losses that stop above the threshold, or for whose sake it was `chosen`; empty if there is none.

    `floors`: by the label of the loss.

    >>> print(note({"cross-entropy": 0.0, "hinge": 0.2689}, 0.01, False))
    hinge stops pushing at an error of 0.269, above the threshold of 0.01; give a threshold above 0.269
    """
    above = {name: floor for name, floor in floors.items() if floor >= (USUAL if chosen else threshold)}
    if not above:
        return ""
    names, highest = list(above), max(above.values())
    listed = f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
    errors = " and ".join(dict.fromkeys(number(floor) for floor in above.values()))
    stops = f"{listed} {'stop' if len(names) > 1 else 'stops'} pushing at an error of {errors}"
    if chosen and threshold > highest:
        return f"{stops}, so the threshold is {number(threshold)} in place of {number(USUAL)}"
    stops += f", above the threshold of {number(threshold)}"
    return stops if highest >= 0.5 else f"{stops}; give a threshold above {number(highest)}"


# Statistics of the user's own: a function of one curve, reduced over the networks of a block, and the blocks in their order.

OF_EVERY_SWEEP = ("error_", "loss_", "margin_", "learnt", "first_learnt", "never_learnt", "diverged")
"""How the names of the statistics of every sweep begin."""
REDUCTIONS = {"moments": ("mean", "deviations", "min", "max"), "sum": ("sum",), "min": ("min",), "max": ("max",)}
"""What is kept of a block, by the name of the reduction."""


def as_statistics(given: Any) -> dict[str, tuple[Any, str]]:
    """Own statistics by name as pairs (function, reduction); `ValueError` for what is no such thing.

    >>> as_statistics({"late": (len, "sum"), "peak": max})
    {'late': (<built-in function len>, 'sum'), 'peak': (<built-in function max>, 'moments')}
    """
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise ValueError(f'statistics must be a dictionary such as {{"peak": lambda curve: ...}}, got {shown(given)}')
    found = {}
    for name, value in given.items():
        function, reduction = value if isinstance(value, tuple) and len(value) == 2 else (value, "moments")
        if not isinstance(name, str) or not name.isidentifier() or name.startswith(OF_EVERY_SWEEP) or name == "kept":
            raise ValueError(f"statistics has the name {name!r}; give an identifier that is no statistic of every sweep")
        if not callable(function) or reduction not in REDUCTIONS:
            raise ValueError(
                f"statistics[{name!r}] must be a function of a curve, or (function, reduction) with a reduction of "
                f"{', '.join(map(repr, REDUCTIONS))}, got {shown(value)}"
            )
        found[name] = function, reduction
    return found


@eqx.filter_jit
def own_of_block(
    own: dict[str, tuple[Any, str]],
    steps: tuple[int, ...],
    until: tuple[float, ...] | None,
    networks: tuple[Any, Any],
    logits: Float[Array, "records b n"],
    datas: list[Dataset],
    loss: Loss,
    diverged: Array,
    count: Integer[Array, ""],
) -> dict[str, Array]:
    """Each own statistic of the networks of a block that did not diverge. `networks`: at the start and at the end."""
    taken = (jnp.arange(logits.shape[1]) < count) & ~diverged
    grid = np.asarray(steps)

    def values(initial: Any, final: Any, recorded: Any) -> dict[str, Array]:
        parts: Any = {"grid": grid, "recorded": recorded, "initial": initial, "final": final}
        parts |= {"data": datas[0], "loss_function": loss}
        curve = Trajectory(**parts) if until is None else PhasedTrajectory(**parts, phases=Phases(tuple(datas), until))
        return {name: jnp.asarray(function(curve)) for name, (function, _) in own.items()}

    found = {}
    for name, each in jax.vmap(values)(*networks, jnp.moveaxis(logits, 1, 0)).items():
        numbers = each.astype(jnp.int32) if each.dtype == bool else each
        found |= {f"own.{name}.{what}": _reduced(what, numbers, taken, logits.dtype) for what in REDUCTIONS[own[name][1]]}
    return found


def _reduced(what: str, values: Shaped[Array, "b ..."], taken: Bool[Array, " b"], dtype: Any) -> Array:
    """One of the `REDUCTIONS` of the values of networks that are `taken`."""
    taken = taken.reshape(-1, *(1,) * (values.ndim - 1))
    if what == "sum":
        return jnp.where(taken, values, 0).sum(0)
    values = values if jnp.issubdtype(values.dtype, jnp.floating) else values.astype(dtype)
    if what == "min":
        return jnp.where(taken, values, jnp.inf).min(0)
    if what == "max":
        return jnp.where(taken, values, -jnp.inf).max(0)
    mean = jnp.where(taken, values, 0).sum(0) / jnp.maximum(taken.sum(), 1)
    return mean if what == "mean" else jnp.where(taken, (values - mean) ** 2, 0).sum(0)


def check_own(own: dict[str, tuple[Any, str]], *arguments: Any) -> None:
    """`ValueError` that names the statistic whose function raises, or gives no numbers, for arrays of these shapes."""
    for name, pair in own.items():
        try:
            eqx.filter_eval_shape(own_of_block, {name: pair}, *arguments)
        except Exception as error:  # whatever it raises is its reason
            why = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
            raise ValueError(f"statistics[{name!r}] takes the curve of one network and returns numbers; {why}") from None


def own_of_part(part: Part) -> dict[str, np.ndarray]:
    """The own statistics of all networks of a part: x_mean, x_variance, x_min and x_max for moments, else x."""
    order = np.argsort(part["block"])
    kept, total = part["kept"][order], part["kept"].sum()
    entries = {name[4:]: value[order] for name, value in part.items() if name.startswith("own.")}
    found: dict[str, np.ndarray] = {}
    for key, value in entries.items():
        name, what = key.rsplit(".", 1)
        if what == "mean":
            weights = kept.reshape(-1, *(1,) * (value.ndim - 1))
            overall = (weights * value).sum(0) / total if total else np.full(value.shape[1:], np.nan)
            deviations = entries[f"{name}.deviations"] + weights * (value - overall) ** 2
            found[f"{name}_mean"] = overall
            found[f"{name}_variance"] = deviations.sum(0) / total if total else overall
        elif what == "sum":
            found[name] = value.sum(0)
        elif what in ("min", "max"):
            extreme = getattr(value, what)(0)
            label = f"{name}_{what}" if f"{name}.mean" in entries else name
            found[label] = np.where(np.isfinite(extreme), extreme, np.nan)
    return {name: np.asarray(value) for name, value in found.items()}
