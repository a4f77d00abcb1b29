"""Statistics of a sweep: on the device for one block of networks, and on the host for all blocks of a configuration.

A *column* is a quantity of a network at a record: column 0 is the error sum_i q_i sigmoid(-m_i), column 1 the loss
sum_i q_i l(m_i), column 2 + i the margin m_i. Counts are integers and add up exactly. Means and squared deviations are kept
block by block and combined in the order of the blocks, so that the outcome depends on neither chunks nor devices.

A network with a logit or loss that is not finite at any record has *diverged*: it is counted, its seed is kept, and it
takes no part in anything else at any record. A mean over networks that drop out one by one would compare nothing.
"""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from gradstarve.problem import Dataset, Loss
from gradstarve.simulation.sweep._histogram import BINS, ERROR, MARGIN

# Seeds of diverged networks that are kept, per configuration.
NAMED = 20

Part = dict[str, np.ndarray]
"""The statistics of some networks of one configuration, see `join`; what a chunk is made of."""


def summarise(
    logits: Float[Array, "records b n"], data: Dataset, loss: Loss, threshold: Float[Array, ""], count: Integer[Array, ""]
) -> dict[str, Array]:
    """What a block of networks comes to; the first `count` of them are real, the others fill the block."""
    found, first, bins = _reduce(logits, data, loss, threshold, count)
    # A program of its own: XLA:CPU would compute the logarithms of the scales inside the scatter, element by element.
    crossed, histograms = _tally(first, bins)
    return found | {"crossed": crossed, "bins": histograms}


@eqx.filter_jit
def _reduce(
    logits: Float[Array, "records b n"], data: Dataset, loss: Loss, threshold: Float[Array, ""], count: Integer[Array, ""]
) -> tuple[dict[str, Array], Integer[Array, "columns b"], Integer[Array, "records bins b"]]:
    """Sums and extremes; the record at which a network is first below the threshold; the bins that it is in."""
    # Networks along the last axis, where vectors run and sums are quick; few points would leave it short.
    logits = jnp.moveaxis(logits, 1, 2)  # [records, n, b]
    margins = data.labels[:, None] * logits
    point_errors = jax.nn.sigmoid(-margins)
    errors = jnp.sum(data.weights[:, None] * point_errors, 1, keepdims=True)
    losses = jnp.sum(data.weights[:, None] * loss.value(margins), 1, keepdims=True)
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


def part_of_block(found: dict[str, Any], block: int, first_seed: int) -> Part:
    """The `Part` that `summarise` found for block number `block`, whose networks begin with `first_seed`."""
    found = {name: np.asarray(value) for name, value in found.items()}
    unit = found["unit"].astype(np.float64)
    sick = np.flatnonzero(found["diverged"])
    with np.errstate(over="ignore"):  # the spread of networks whose numbers are next to the largest float
        deviations = found["deviations"] * unit**2
    return {
        "block": np.array([block]),
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
    joined = {name: one[name] + other[name] for name in ("below", "crossed", "bins", "diverged")}
    joined |= {name: np.concatenate([one[name], other[name]]) for name in ("block", "kept", "mean", "deviations")}
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
