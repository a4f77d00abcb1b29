"""Groups that nobody named: classes that fall into two clusters with a gap between them that ordinary variation lacks.

A feature that some samples of a class have and others lack makes two clusters in feature space, however small it is beside
the rest of the variation, as long as it varies on its own. So the search looks in the leading directions of the centred
kernel of a class, each scaled to variance 1, for the direction along which the class splits best: two means along a
direction, the direction of the difference of their means, and over again, from many starts. What it gives is the gap of the
two means in standard deviations within clusters, |mean - mean| / sd. Nothing is learnt from labels or from training.
"""

from __future__ import annotations

import numpy as np

_LEADING = 20
"""Directions of a class in which is looked; in images of digits they hold nine tenths of the variation."""
_STARTS = 200
_ROUNDS = 60
_SMALLEST = 0.03
"""A cluster has at least this part of its class, and three samples."""


def two_clusters(kernel: np.ndarray, rng: np.random.Generator, most: int = 3) -> list[tuple[np.ndarray, float]]:
    """The splits of n samples with centred or uncentred `kernel` [n, n], best first, at most `most` that differ: pairs of
    booleans [n] and the gap in standard deviations within clusters. Empty for fewer than 12 samples.

    >>> rng = np.random.default_rng(0)
    >>> x = rng.normal(size=(60, 5))
    >>> x[:20, 3] += 40
    >>> inside, gap = two_clusters(x @ x.T, rng)[0]
    >>> sorted({int(inside[:20].sum()), int(inside[20:].sum())}), gap > 30
    ([0, 20], True)
    """
    n = len(kernel)
    if n < 12:
        return []
    centred = kernel - kernel.mean(0)
    centred = centred - centred.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    # Variation that is rounding of the kernel is none: samples that are all alike have no directions.
    noise = 4 * n * np.finfo(np.float64).eps * np.abs(kernel).max()
    kept = values > max(1e-9 * values[-1], noise)
    scores = vectors[:, kept][:, ::-1][:, : min(_LEADING, n // 5)] * np.sqrt(n)
    if not scores.shape[1]:
        return []
    # The samples themselves are good starts: those of a rare cluster point to its mean.
    some = rng.permutation(n)[:_STARTS]
    starts = np.concatenate([np.eye(scores.shape[1]), scores[some], rng.normal(size=(_STARTS, scores.shape[1]))]).T
    along = scores @ starts
    cuts = np.concatenate([_cuts(along), np.quantile(along, 0.08, 0), np.quantile(along, 0.92, 0)])
    insides, gaps = _settle(scores, np.tile(along, (1, 3)) > cuts)
    found: list[tuple[np.ndarray, float]] = []
    order = np.argsort(-gaps)
    explained = gaps**2 * insides.mean(0) * (1 - insides.mean(0))
    left = gaps > 0
    for k in order:
        if len(found) == most:
            break
        if left[k]:
            # A part of a cluster may stand further apart than all of it: of splits that nearly agree take the one that
            # explains most of the variance.
            agree = (insides == insides[:, [k]]).mean(0)
            alike = left & (np.maximum(agree, 1 - agree) > 0.9)
            best = int(np.argmax(np.where(alike, explained, -1)))
            found.append((insides[:, best], float(gaps[best])))
            left &= ~alike
    return sorted(found, key=lambda pair: -pair[1])


def _settle(scores: np.ndarray, inside: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two means along their difference, over and over, for all columns of `inside` [n, S] at once; and the gaps [S]."""
    for _ in range(_ROUNDS):
        along = _project(scores, inside)
        following = along > _cuts(along)
        if (following == inside).all():
            break
        inside = following
    along = _project(scores, inside)
    p, low = inside.mean(0), ~inside
    p = np.clip(p, 1 / len(inside), 1 - 1 / len(inside))
    means = (along * inside).mean(0) / p, (along * low).mean(0) / (1 - p)
    within = ((along - np.where(inside, *means)) ** 2).mean(0)
    gaps = np.abs(means[0] - means[1]) / np.sqrt(np.maximum(within, 1e-300))
    return inside, np.where(inside.any(0) & low.any(0), gaps, 0.0)


def _project(scores: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The samples along the difference of the two means of each split, [n, S]; the scores have mean 0."""
    return scores @ (scores.T @ (inside - inside.mean(0)))


def _cuts(along: np.ndarray) -> np.ndarray:
    """Where to cut columns of numbers so that the variance within the two parts is least (Otsu's threshold), [S]."""
    ordered = np.sort(along, 0)
    n = len(ordered)
    least = max(3, int(np.ceil(_SMALLEST * n)))
    sums = np.cumsum(ordered, 0)
    low = np.arange(least, n - least + 1)[:, None]
    below = sums[low[:, 0] - 1]
    between = low * (n - low) * (below / low - (sums[-1] - below) / (n - low)) ** 2
    best = low[np.argmax(between, 0), 0]
    columns = np.arange(along.shape[1])
    return (ordered[best - 1, columns] + ordered[best, columns]) / 2
