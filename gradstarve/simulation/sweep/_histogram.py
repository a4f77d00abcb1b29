"""Histograms on fixed scales, from which quantiles of any number of networks are read with a stated resolution.

Counts on fixed edges add up exactly, in any order and on any device, which sorted samples do not. A value v is counted in
bin floor((scale(v) - low) / step); the outermost bins are open, and a minimum and a maximum kept beside the counts close
them.

| scale    | scale(v)         | made for              | width of a bin at v         |
|----------|------------------|-----------------------|-----------------------------|
| `MARGIN` | asinh(v / 0.05)  | margins of any sign   | sqrt(v^2 + 0.05^2) / 32     |
| `ERROR`  | log(v / (1 - v)) | errors between 0 and 1 | about v (1 - v) / 20       |
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy.special import expit

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
