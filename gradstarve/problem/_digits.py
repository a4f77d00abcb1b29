"""Two handwritten digits as a problem of two classes: 1797 real images of 8 x 8 pixels that come with scikit-learn.

Frequency, brightness and a bright patch can be changed for one class alone, so that the laws of sections 3, 6 and 10 meet
data that fulfil none of their hypotheses.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gradstarve.ground import as_flag, as_floats, as_number, check_positive, positive_int, real_arrays, shown
from gradstarve.problem._data import Dataset

SIDE = 8
"""Pixels along an edge; images are rows of SIDE * SIDE, line by line from the top left."""
PATCH = 2
"""Edge of the bright square in the top left corner, where digits are dark."""


class TwoDigits(NamedTuple):
    """What `digits` gives: `train` and `test` without a shared image; class + is the first digit of the pair.

    - `train`: n images, of which `patched` [n] (bool) carry the patch, all of them of class +;
    - `test`: images without a patch, in equal weights;
    - `test_patched`: the images of class + of `test`, each with the patch;
    - `centre`: [64], what was subtracted from the pixels, 0 without centring.

    Class + stands first in all of them.
    """

    train: Dataset
    test: Dataset
    test_patched: Dataset
    patched: np.ndarray
    centre: np.ndarray

    def __repr__(self) -> str:
        sizes = f"{self.train.size} training images, {self.test.size} test images"
        return f"TwoDigits({sizes}, {int(self.patched.sum())} with the patch)"


def digits(
    pair: Any = (3, 8),
    seed: int = 0,
    frequencies: Any = None,
    brightness: Any = (1.0, 1.0),
    patch: float = 0.0,
    patch_value: float = 1.0,
    centred: bool = False,
    train: float = 0.5,
) -> TwoDigits:
    """Two digits of scikit-learn's `load_digits`, some 180 images each, as labels +1 (`pair`[0]) and -1 (`pair`[1]).

    Pixels are scaled to [0, 1] and rows are images of 64. Of each class the share `train`, drawn by `seed`, is trained
    on, the rest is `test`; sizes do not depend on the seed.

    - `frequencies`: weights p of the two classes with sum 1, spread evenly over their images; None: equal over images;
    - `brightness`: factor of the images of each class, in training and test: it multiplies their norms;
    - `patch`: share of the training images of class + whose top left 2 x 2 pixels are set to `patch_value` (1 is white);
      for one seed the images patched at a lower share are among those at a higher one;
    - `centred`: subtract the midpoint of the two class means of the training images, patch and all, before `brightness`
      multiplies: at equal brightness the class means are opposite, as in antipodal data, with noise around them. Brightness
      then is contrast against the midpoint.

    `ValueError` for anything else than two different digits, shares outside (0, 1) and [0, 1]; `ImportError` without
    scikit-learn. Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI.

    >>> data = digits((3, 8), patch=0.9, centred=True)
    >>> data.train.points.shape, int(data.patched.sum()), data.test.size
    ((179, 64), 83, 178)
    """
    two = as_floats("pair", pair)
    if two.shape != (2,) or two[0] == two[1] or not np.isin(two, range(10)).all():
        raise ValueError(f"pair must be two different digits from 0 to 9, got {shown(pair)}")
    seed = positive_int("seed", seed, minimum=0, maximum=2**63 - 1)
    train, patch = as_number("train", train, 0, 1, with_low=False, with_high=False), as_number("patch", patch, 0, 1)
    patch_value, centred = as_number("patch_value", patch_value), as_flag("centred", centred)
    (brightness,) = real_arrays(brightness=brightness)
    if brightness.shape != (2,):
        raise ValueError(f"brightness must be a pair (class +, class -), got shape {brightness.shape}")
    check_positive("brightness", brightness)
    images, names = _load()
    draw = np.random.default_rng(seed)
    learn, keep = [], []
    for digit in two:
        order = draw.permutation(np.flatnonzero(names == digit))
        count = min(max(1, round(train * order.size)), order.size - 1)
        learn.append(images[order[:count]])
        keep.append(images[order[count:]])
    patched = np.arange(sum(map(len, learn))) < round(patch * len(learn[0]))
    mine = patched[: len(learn[0])]
    learn[0] = np.where(mine[:, None], with_patch(learn[0], patch_value), learn[0])
    centre = (learn[0].mean(0) + learn[1].mean(0)) / 2 if centred else np.zeros(SIDE * SIDE)
    factors = np.asarray(brightness, np.float64)

    def dataset(parts, labels, weights=None):
        points = np.concatenate([factor * (part - centre) for factor, part in zip(factors, parts, strict=False)])
        # In JAX's own precision, without the warning for float64 arrays: nobody chose the precision of these.
        points = points.astype(brightness.dtype)
        return Dataset(points, np.repeat(labels, [len(part) for part in parts]), weights)

    weights = None if frequencies is None else _weights(frequencies, [len(part) for part in learn])
    return TwoDigits(
        train=dataset(learn, [1, -1], weights),
        test=dataset(keep, [1, -1]),
        test_patched=dataset([with_patch(keep[0], patch_value)], [1]),
        patched=patched,
        centre=centre,
    )


def with_patch(images: np.ndarray, value: float = 1.0) -> np.ndarray:
    """`images` [..., 64] with the top left 2 x 2 pixels set to `value`."""
    square = np.array(images).reshape(*np.shape(images)[:-1], SIDE, SIDE)
    square[..., :PATCH, :PATCH] = value
    return square.reshape(np.shape(images))


def _weights(frequencies: Any, counts: list[int]) -> Any:
    (frequencies,) = real_arrays(frequencies=frequencies)
    if frequencies.shape != (2,):
        raise ValueError(f"frequencies must be a pair (class +, class -), got shape {frequencies.shape}")
    check_positive("frequencies", frequencies)
    return (frequencies / np.array(counts, frequencies.dtype)).repeat(np.array(counts))


@cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 64] in [0, 1] and their digits [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn; pip install 'gradstarve[examples]'") from None
    loaded: Any = load_digits()
    return loaded.data / 16, loaded.target
