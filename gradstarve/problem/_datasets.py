"""Ready-made datasets: the separable geometries of section 1 in any dimension, features, handwritten digits, user files."""

from __future__ import annotations

import csv
import os
import zipfile
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import (
    as_flag,
    as_floats,
    as_number,
    as_seed,
    check_normal,
    check_positive,
    deprecated,
    is_concrete,
    one_key,
    one_number,
    positive_int,
    readable,
    real_arrays,
    shown,
)
from gradstarve.problem._data import ClassDataset, Dataset

# Two handwritten digits as a problem of two classes: 1797 real images of 8 x 8 pixels that come with scikit-learn.
#
# Frequency, brightness and a bright patch can be set for each class, to test the laws of sections 3, 6 and 10 on data that
# fulfil none of their hypotheses.

SIDE = 8
"""Pixels along an edge; images are rows of SIDE * SIDE, line by line from the top left."""
PATCH = 2
"""Edge of the bright square in the top left corner, where digits are dark."""


class TwoDigits(NamedTuple):
    """The result of `digits`: `train` and `test` share no image; class + is the first digit of the pair.

    - `train`: n images, of which `patched` [n] (bool) carry the patch, all of them of class +;
    - `test`: images without a patch, in equal weights;
    - `test_patched`: the images of class + of `test`, each with the patch;
    - `centre`: [64], the image subtracted from all images, 0 without centring.

    Points of class + come first in each dataset.
    """

    train: Dataset
    test: Dataset
    test_patched: Dataset
    patched: np.ndarray
    centre: np.ndarray

    def __repr__(self) -> str:
        sizes = f"{self.train.size} training images, {self.test.size} test images"
        return f"TwoDigits({sizes}, {int(self.patched.sum())} with the patch)"


@deprecated(
    *("pair", "key", "frequencies", "brightness", "patch", "patch_value", "centred", "train"),
    seed="key",
)
def digits(
    pair: Any = (3, 8),
    *,
    key: Any = 0,
    frequencies: Any = None,
    brightness: Any = (1.0, 1.0),
    patch: float = 0.0,
    patch_value: float = 1.0,
    centred: bool = False,
    train: float = 0.5,
) -> TwoDigits:
    """Two digits of scikit-learn's `load_digits`, some 180 images each, as labels +1 (`pair`[0]) and -1 (`pair`[1]).

    Pixels are scaled to [0, 1]; each row is an image of 64 pixels. The share `train` of each class, drawn by `key`, is the
    training set, and the other images are the test set; the sizes do not depend on the key.

    - `frequencies`: weights p of the two classes with sum 1, spread evenly over their images; None: equal over images;
    - `brightness`: a factor for the images of each class, in training and test, which multiplies their norms;
    - `patch`: share of the training images of class + whose top left 2 x 2 pixels are set to `patch_value` (1 is white);
      with the same key, the images patched at a lower share are among those patched at a higher share;
    - `centred`: subtract the midpoint of the two class means of the training images (patches included) before `brightness`
      multiplies: at equal brightness the class means are opposite, as in antipodal data, with noise around them. Brightness
      is then contrast against the midpoint.

    `ValueError` unless `pair` is two different digits, `train` is in (0, 1) and `patch` in [0, 1]; `ImportError` without
    scikit-learn. Source of the images: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI.

    >>> data = digits((3, 8), patch=0.9, centred=True)
    >>> data.train.points.shape, int(data.patched.sum()), data.test.size
    ((179, 64), 83, 178)
    """
    two = as_floats("pair", pair)
    if two.shape != (2,) or two[0] == two[1] or not np.isin(two, range(10)).all():
        raise ValueError(f"pair must be two different digits from 0 to 9, got {shown(pair)}")
    train, patch = as_number("train", train, 0, 1, with_low=False, with_high=False), as_number("patch", patch, 0, 1)
    patch_value, centred = as_number("patch_value", patch_value), as_flag("centred", centred)
    (brightness,) = real_arrays(brightness=brightness)
    if brightness.shape != (2,):
        raise ValueError(f"brightness must be a pair (class +, class -), got shape {brightness.shape}")
    check_positive("brightness", brightness)
    images, names = _load()
    draw = np.random.default_rng(as_seed(key))
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
        # In JAX's default precision, without the warning for float64 arrays: the user has not chosen float64 here.
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


class ColouredDigits(NamedTuple):
    """The result of `coloured_digits`: `train` and `test`, [n, 65], class + first in both; the two share no image.

    `agrees`, `agrees_test`: which images have the colour of their class, [n] (bool); `striped`, `striped_test`: which images
    have the stripes of their class.
    """

    train: Dataset
    test: Dataset
    agrees: np.ndarray
    agrees_test: np.ndarray
    striped: np.ndarray
    striped_test: np.ndarray

    def __repr__(self) -> str:
        return f"ColouredDigits({self.train.size} training images, {int((~self.agrees).sum())} of another colour)"


def coloured_digits(
    agreement: float,
    pair: Any = (3, 8),
    *,
    key: Any = 0,
    colour: float = 1.0,
    stripes: float = 0.0,
    stripe_agreement: float = 0.9,
    train: float = 0.5,
) -> ColouredDigits:
    """Two digits as labels +1 and -1 with a colour that agrees with the class on a share `agreement` of the training set.

    Images are those of `digits(pair, centred=True)`, 64 pixels minus the midpoint of the class means, and coordinate 64 is
    the colour: +`colour` or -`colour`, which is y `colour` where it agrees. In the test set the colour agrees on half
    of each class. With `stripes` > 0 every other column is brightened or darkened by `stripes` behind the digit (where the
    image is dark, before centring): brighter columns mark class +. The stripes mark the true class on the share
    `stripe_agreement` of the training images, drawn independently of the colour, and on half of the test images.
    `ValueError` for shares outside (0, 1), `colour` <= 0 and `stripes` < 0; `ImportError` without scikit-learn.

    >>> data = coloured_digits(0.9, colour=2.0)
    >>> data.train.points.shape, round(float(data.agrees.mean()), 2), float(abs(data.train.points[0, 64]))
    ((179, 65), 0.9, 2.0)
    """
    agreement = as_number("agreement", agreement, 0, 1, with_low=False, with_high=False)
    stripe_agreement = as_number("stripe_agreement", stripe_agreement, 0, 1, with_low=False, with_high=False)
    colour, stripes = as_number("colour", colour, 0, with_low=False), as_number("stripes", stripes, 0)
    plain = digits(pair, key=key, train=train)
    draw = np.random.default_rng((as_seed(key), 1))
    columns = np.tile(np.arange(SIDE) % 2 == 0, SIDE)

    def chosen(labels: np.ndarray, share: float) -> np.ndarray:
        found = np.zeros(labels.size, bool)
        for sign in (1, -1):
            mine = np.flatnonzero(labels == sign)
            found[draw.permutation(mine)[: round(share * mine.size)]] = True
        return found

    parts, centre = [], None
    for data, shares in ((plain.train, (agreement, stripe_agreement)), (plain.test, (0.5, 0.5))):
        images, labels = np.asarray(data.points, np.float64), np.asarray(data.labels)
        agrees, striped = (chosen(labels, share) for share in shares)
        images = images + stripes * np.where(striped, labels, -labels)[:, None] * columns * (1 - images)
        if centre is None:
            centre = sum(images[labels == sign].mean(0) for sign in (1, -1)) / 2
        points = np.concatenate([images - centre, (colour * np.where(agrees, labels, -labels))[:, None]], axis=1)
        parts.append((Dataset(points.astype(data.points.dtype), labels), agrees, striped))
    (first, agrees, striped), (second, agrees_test, striped_test) = parts
    return ColouredDigits(first, second, agrees, agrees_test, striped, striped_test)


@cache
def _load() -> tuple[np.ndarray, np.ndarray]:
    """Images [1797, 64] in [0, 1] and their digits [1797]."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise ImportError("the digits come with scikit-learn; pip install 'gradstarve[examples]'") from None
    loaded: Any = load_digits()
    return loaded.data / 16, loaded.target


# Synthetic data.


@deprecated("dim", "norms", "frequencies", "key")
def antipodal(dim=2, *, frequencies=(0.5, 0.5), norms=(1.0, 1.0), key=None) -> Dataset:
    """Two opposite points, x_- = -c x_+: class + at `norms`[0], class - at `norms`[1], weights `frequencies`.

    Norms and frequencies may be traced (inside jit, grad, vmap), alone or in a pair such as (p, 1 - p).

    `dim` >= 1. Without `key` the axis is e_1; with one it is uniform on the sphere. Point 0 is class +, point 1 class -.

    >>> antipodal(norms=(1.0, 2.0)).points.tolist()
    [[1.0, 0.0], [-2.0, -0.0]]
    """
    dim = positive_int("dim", dim)
    norms, frequencies = _pairs(norms, frequencies)
    with jax.ensure_compile_time_eval():
        axis = _frame(dim, 1, key, norms.dtype)[0]
        points = jnp.stack([norms[0] * axis, -norms[1] * axis])
        axes = jnp.stack([axis, -axis])
    return Dataset(points, np.array([1, -1]), frequencies, None if is_concrete(points) else axes)


@deprecated("dim", "norms", "frequencies", "key")
def orthogonal(dim=2, *, frequencies=(0.5, 0.5), norms=(1.0, 1.0), key=None) -> Dataset:
    """Two orthogonal points, one per class, of `norms` and weights `frequencies`, which may be traced; `dim` >= 2.

    Without `key` the axes are e_1 and e_2; with one they are a uniform orthonormal pair.

    >>> orthogonal(dim=3, frequencies=(0.25, 0.75)).weights.tolist()
    [0.25, 0.75]
    """
    dim = positive_int("dim", dim, minimum=2)
    norms, frequencies = _pairs(norms, frequencies)
    with jax.ensure_compile_time_eval():
        axes = _frame(dim, 2, key, norms.dtype)
        points = norms[:, None] * axes
    return Dataset(points, np.array([1, -1]), frequencies, None if is_concrete(points) else axes)


@deprecated("classes", "norm", "frequencies")
def orthogonal_classes(classes, *, frequencies=None, norm=1.0) -> ClassDataset:
    """K = `classes` orthogonal inputs r e_k, one per class, for softmax networks (section 11); d = K, `norm` r > 0.

    `frequencies` [K] are the weights of the classes, None for equal ones.

    >>> orthogonal_classes(3, norm=2.0).points.tolist()
    [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 2.0]]
    """
    classes = positive_int("classes", classes, minimum=2)
    (norm,) = real_arrays(norm=norm)
    one_number("norm", norm)
    check_positive("norm", norm)
    if frequencies is not None:
        (frequencies,) = real_arrays(frequencies=frequencies)
        check_normal("frequencies", frequencies)
    return ClassDataset(norm * jnp.eye(classes, dtype=norm.dtype), np.arange(classes), frequencies)


@deprecated("key", "dim", "points_per_class", "opening", "spread")
def cones(key, dim=2, *, points_per_class=4, opening=0.5, spread=0.3) -> Dataset:
    """Random orthogonally separable data: each class fills a cone of half-angle `opening` (radians, < pi/4).

    The angle between the two axes is uniform in [pi/2 + 2 opening, pi], the directions are uniform in the polar angle
    around their axis, and norms are e^(spread * N(0, 1)), spread <= 10. `dim` >= 1 (in one dimension the cones are rays).
    The first `points_per_class` points are class +.

    >>> cones(jax.random.key(0), dim=3).separability().orthogonally_separable
    True
    """
    dim = positive_int("dim", dim)
    count = positive_int("points_per_class", points_per_class)
    angle, opening = opening, np.ravel(as_floats("opening", opening))
    if opening.size != 1 or not 0 <= opening[0] < np.pi / 4:
        raise ValueError(f"opening must be in [0, pi/4), got {shown(angle)}: wider cones are not orthogonally separable")
    given, spread = spread, np.ravel(as_floats("spread", spread))
    if spread.size != 1 or not 0 <= spread[0] < np.inf:
        raise ValueError(f"spread must be >= 0 and finite, got {shown(given)}")
    if spread[0] > 10:
        raise ValueError(f"spread must be at most 10, where norms differ by e^30, got {shown(given)}")
    opening, spread = float(opening[0]), float(spread[0])
    key_frame, *keys = jax.random.split(one_key(key), 5)
    frame = jnp.eye(1) if dim == 1 else _frame(dim, 2, key_frame, jnp.result_type(float))
    points = _cone_points(frame, keys, count, opening, spread)
    return Dataset(points.reshape(2 * count, dim), jnp.repeat(jnp.array([1, -1]), count))


@deprecated("types", "probabilities", "dim", "scales", "key", "mirrored")
def features(types, probabilities, *, dim=None, scales=None, key=None, mirrored=False) -> Dataset:
    """Orthogonal features in samples of S types (section 10): type s is the point sum_k types[s, k] r_k e_k, label +1.

    `types`: [S, K] of -1, 0 and 1: the feature is present with its sign reversed, absent, or present; `probabilities`:
    [S], which sum to 1; `scales`: r_k, [K], default 1; `dim` >= K, default K.
    Without `key` feature k lies along e_k; with a key the K directions are uniform and orthonormal. With `mirrored`, half of
    each type's weight goes to the opposite point with label -1, points S, ..., 2S - 1. A linear model learns the same curve
    with and without the mirrored points; a ReLU network does not, because a neuron is active on one point of each pair.

    >>> data = features([[1, 0], [1, 1]], [0.9, 0.1], scales=(1.0, 2.0))
    >>> data.points.tolist(), data.labels.tolist()
    ([[1.0, 0.0], [1.0, 2.0]], [1.0, 1.0])
    """
    if scales is None:
        types, probabilities = real_arrays(types=types, probabilities=probabilities)
        scales = jnp.ones(types.shape[-1:], types.dtype)
    else:
        types, probabilities, scales = real_arrays(types=types, probabilities=probabilities, scales=scales)
    check_types(types)
    count, size = types.shape
    check_normal("probabilities", probabilities)
    for name, value, length in (("probabilities", probabilities, count), ("scales", scales, size)):
        if value.shape != (length,):
            raise ValueError(f"{name} must have shape ({length},) for types of shape {types.shape}, got {value.shape}")
    check_positive("scales", scales)
    mirrored = as_flag("mirrored", mirrored)
    dim = size if dim is None else positive_int("dim", dim, minimum=size)
    points = (types * scales) @ _frame(dim, size, key, types.dtype)
    if not mirrored:
        return Dataset(points, jnp.ones(count), probabilities)
    points, weights = jnp.concatenate([points, -points]), jnp.concatenate([probabilities, probabilities]) / 2
    return Dataset(points, jnp.repeat(jnp.array([1, -1]), count), weights)


@deprecated("p_frequent", "p_both", "dim", "scales", "key", "mirrored")
def starving_pair(p_frequent, p_both, *, dim=2, scales=(1.0, 1.0), key=None, mirrored=False) -> Dataset:
    """The starving pair (10.2)-(10.7): feature 1 alone with weight `p_frequent`, both features with weight `p_both`.

    Point 0 is r_1 e_1 and point 1 is r_1 e_1 + r_2 e_2, both of label +1, so that v_1 = f(x_0) and, where the features do
    not mix, v_2 = f(x_1) - f(x_0). The other arguments are those of `features`.

    >>> starving_pair(0.75, 0.25).points.tolist()
    [[1.0, 0.0], [1.0, 1.0]]
    """
    p_frequent, p_both = real_arrays(p_frequent=p_frequent, p_both=p_both)
    for name, value in (("p_frequent", p_frequent), ("p_both", p_both)):
        one_number(name, value)
        check_positive(name, value)
    probabilities = jnp.stack([p_frequent, p_both])
    types = jnp.array([[1, 0], [1, 1]])
    return features(types, probabilities, dim=dim, scales=scales, key=key, mirrored=mirrored)


def shortcut(agreement, *, core=1.0, shortcut=1.0, dim=None, key=None, mirrored=True) -> Dataset:
    """Samples y (r_c e_1 + s r_s e_2): a core feature that shows the label y, and a shortcut that mostly agrees (20.1).

    `agreement`: p, how often s = +1, 0 < p < 1; `core`: r_c; `shortcut`: r_s. Point 0 is the majority r_c e_1 + r_s e_2 and
    point 1 the minority r_c e_1 - r_s e_2, both of label +1; their opposites of label -1 follow, each with half of the
    weight, unless `mirrored` is false. The other arguments are those of `features`. For several features, arrays [L] of
    `agreement` and `shortcut` give L independent shortcuts, and an array [C] of `core` gives C cores, with one point for
    each pattern of signs, 2^L points in the order of `signed_types`.

    >>> data = shortcut(0.75, core=1.0, shortcut=2.0)
    >>> data.points.tolist(), data.weights.tolist()
    ([[1.0, 2.0], [1.0, -2.0], [-1.0, -2.0], [-1.0, 2.0]], [0.375, 0.125, 0.375, 0.125])
    """
    types, probabilities, scales = signed_types(agreement, core, shortcut)
    if probabilities.ndim != 1:
        raise ValueError(f"agreement, core and shortcut must be of one problem, got batch axes {probabilities.shape[:-1]}")
    return features(types, probabilities, dim=dim, scales=scales, key=key, mirrored=mirrored)


def signed_types(agreement, core=1.0, shortcut=1.0) -> tuple[Any, Any, Any]:
    """The sample types [S, K], probabilities [*batch, S] and scales [*batch, K] of cores and of independent shortcuts.

    `agreement` and `shortcut`: one number, or [*batch, L] for L shortcuts; `core`: one number, or [*batch, C]. Features are
    the C cores, +1 in every type, and then the L shortcuts: K = C + L <= 6, S = 2^L, from all agreeing to all contradicting,
    the last shortcut changing first. `ValueError` for numbers that are not above 0, and for an agreement of 1 or more.

    >>> types, probabilities, scales = signed_types(0.75, shortcut=2.0)
    >>> types.tolist(), probabilities.tolist(), scales.tolist()
    ([[1.0, 1.0], [1.0, -1.0]], [0.75, 0.25], [1.0, 2.0])
    """
    agreement, core, shortcut = (
        jnp.atleast_1d(value) for value in real_arrays(agreement=agreement, core=core, shortcut=shortcut)
    )
    for name, value in (("agreement", agreement), ("core", core), ("shortcut", shortcut)):
        check_positive(name, value)
    if is_concrete(agreement) and (np.asarray(agreement) >= 1).any():
        raise ValueError(
            f"agreement must be below 1, got {np.asarray(agreement).max()}: without samples that contradict it, a shortcut "
            "is a feature like any other; give it as a 1 in the types of features(...)"
        )
    cores, count = core.shape[-1], max(agreement.shape[-1], shortcut.shape[-1])
    if {agreement.shape[-1], shortcut.shape[-1]} - {1, count}:
        raise ValueError(f"agreement has {agreement.shape[-1]} shortcuts and shortcut has {shortcut.shape[-1]}")
    if cores + count > 6:
        raise ValueError(f"core and shortcut must have at most 6 features together, got {cores} and {count}")
    signs = 1 - 2.0 * ((np.arange(2**count)[:, None] >> np.arange(count)[::-1]) & 1)
    types = jnp.asarray(np.hstack([np.ones((len(signs), cores)), signs]), agreement.dtype)
    batch = jnp.broadcast_shapes(*(value.shape[:-1] for value in (agreement, core, shortcut)))
    share = jnp.broadcast_to(agreement, (*batch, count))[..., None, :]
    probabilities = jnp.prod(jnp.where(signs > 0, share, 1 - share), axis=-1)
    scales = jnp.concatenate(
        [jnp.broadcast_to(core, (*batch, cores)), jnp.broadcast_to(shortcut, (*batch, count))], axis=-1
    )
    return types, probabilities, scales


def check_types(types) -> None:
    """Raise a `ValueError` unless `types` is [S, K] of -1, 0, 1 with a feature in every type and every feature in a type."""
    types = readable("types", types)
    if types.ndim != 2 or 0 in types.shape:
        raise ValueError(f"types must be [S, K], one row a sample type and one column a feature, got shape {types.shape}")
    if not is_concrete(types):
        return
    values = np.asarray(types)
    if not np.isin(values, (-1, 0, 1)).all():
        raise ValueError(f"types must hold -1, 0 and 1, got {values[~np.isin(values, (-1, 0, 1))][0]}")
    for axis, name in ((1, "sample type"), (0, "feature")):
        empty = np.flatnonzero(~values.any(axis))
        if empty.size:
            raise ValueError(f"{name} {empty[0]} is empty: its {'row' if axis else 'column'} of types holds zeros only")


@partial(jax.jit, static_argnums=2)
def _cone_points(frame, keys, count, opening, spread):
    """Points [2, count, d] around frame[0] and around an axis in the plane of the rows of `frame` (one row: opposite)."""
    dim = frame.shape[-1]
    key_angle, key_side, key_tilt, key_norm = keys
    if dim == 1:
        axes = jnp.concatenate([frame, -frame])
    else:
        angle = jax.random.uniform(key_angle, minval=np.pi / 2 + 2 * opening, maxval=np.pi)
        axes = jnp.stack([frame[0], jnp.cos(angle) * frame[0] + jnp.sin(angle) * frame[1]])
    sides = jax.random.normal(key_side, (2, count, dim))
    sides = sides - jnp.einsum("cnd,cd->cn", sides, axes)[..., None] * axes[:, None]
    sides = sides / jnp.maximum(jnp.linalg.norm(sides, axis=-1, keepdims=True), 1e-30)
    tilt = opening * jax.random.uniform(key_tilt, (2, count, 1)) * (dim > 1)
    norms = jnp.exp(spread * jax.random.normal(key_norm, (2, count, 1)))
    return norms * (jnp.cos(tilt) * axes[:, None] + jnp.sin(tilt) * sides)


def _pairs(norms, frequencies):
    with jax.ensure_compile_time_eval():
        norms, frequencies = real_arrays(norms=norms, frequencies=frequencies)
    for name, value in (("norms", norms), ("frequencies", frequencies)):
        if value.shape != (2,):
            raise ValueError(f"{name} must be a pair (class +, class -), got shape {value.shape}")
    check_positive("norms", norms)
    check_normal("frequencies", frequencies)
    return norms, frequencies


def _frame(dim: int, count: int, key, dtype):
    """`count` orthonormal rows: the first coordinate axes, or uniform random ones."""
    if key is None:
        return jnp.eye(count, dim, dtype=dtype)
    # QR in NumPy: orthogonal to the last bit of float64, and no sign convention is needed for uniform directions.
    gaussian = np.asarray(jax.random.normal(one_key(key), (dim, count), dtype), np.float64)
    return jnp.asarray(np.linalg.qr(gaussian)[0].T, dtype)


# Files of users.


def read(path: Any) -> Dataset:
    """The `Dataset` of a file: a table (.csv, .tsv) or arrays (.npz).

    - CSV: a header and a row for each point. The column `label` (or `y`) is the label, `weight` (or `q`), if there is one,
      its weight, and all others are coordinates, in their order;
    - NPZ: `points` (or `x`) [n, d], `labels` (or `y`) [n] and, if there are any, `weights` (or `q`) [n].

    Labels of -1 and 1 are kept; of any other two labels, the larger becomes +1. Numbers are of JAX's default precision.
    `ValueError` names the column, the row and the value that is not a number; `FileNotFoundError` if there is no file.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "points.csv"
    >>> _ = path.write_text("a,b,label\\n1,0.5,1\\n-1,0,0\\n")
    >>> data = read(path)
    >>> data.points.tolist(), data.labels.tolist()
    ([[1.0, 0.5], [-1.0, 0.0]], [1.0, -1.0])
    """
    try:
        path = Path(path)
    except TypeError:
        raise ValueError(f"path must be the path of a .csv, .tsv or .npz file, got {shown(path)}") from None
    if os.path.isdir(path):
        raise ValueError(f"path must be that of a .csv, .tsv or .npz file, and {str(path)!r} is a directory")
    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {shown(str(path))}")
    ending = path.suffix.lower()
    if ending == ".npz":
        points, labels, weights = _of_arrays(path)
    elif ending in (".csv", ".tsv"):
        points, labels, weights = _of_table(path, "," if ending == ".csv" else "\t")
    else:
        raise ValueError(f"{path.name} is no .csv, .tsv or .npz file")
    labels = labels.reshape(-1)
    if np.isnan(labels).any():
        raise ValueError(f"label {int(np.argmax(np.isnan(labels)))} of {path.name} is nan; two different numbers are wanted")
    found = np.unique(labels)
    if not np.isin(found, (-1, 1)).all():
        if found.size != 2:
            listed = ", ".join(f"{value:g}" for value in found[:5])
            raise ValueError(f"{path.name} has {found.size} different labels ({listed}); two are wanted, such as -1 and 1")
        labels = np.where(labels == found[1], 1.0, -1.0)
    dtype = jnp.result_type(float)
    if weights is not None:
        if not (np.isfinite(weights).all() and weights.sum() > 0):
            raise ValueError(f"weights of {path.name} must be finite, with a sum above 0, got {shown(weights)}")
        weights = np.asarray(weights / weights.sum(), dtype)
    return Dataset(np.asarray(points, dtype), np.asarray(labels, dtype), weights)


_NAMES = {"labels": ("labels", "label", "y"), "weights": ("weights", "weight", "q"), "points": ("points", "x")}


def _of_arrays(path: Path) -> tuple[Any, Any, Any]:
    chosen: dict[str, Any] = {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            there = arrays.files
            for kind, names in _NAMES.items():
                name = next((name for name in names if name in there), None)
                chosen[kind] = None if name is None else arrays[name]
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path.name} cannot be read as NPZ: {error}") from None
    for kind in ("points", "labels", "weights"):
        array = chosen[kind]
        if array is None and kind != "weights":
            wanted = " or ".join(_NAMES[kind])
            raise ValueError(f"{path.name} has no array {wanted}, but {', '.join(there) or 'none at all'}")
        if array is not None and array.dtype.kind not in "biuf":
            raise ValueError(f"{kind} of {path.name} must be real numbers, got an array of {array.dtype}")
    points, labels, weights = (
        None if chosen[kind] is None else np.asarray(chosen[kind], np.float64) for kind in ("points", "labels", "weights")
    )
    return points, labels, weights


def _of_table(path: Path, separator: str) -> tuple[Any, Any, Any]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.reader(stream, delimiter=separator)
            rows = [(reader.line_num, row) for row in reader if row]
    except (UnicodeError, csv.Error) as error:
        raise ValueError(f"{path.name} cannot be read as a table in UTF-8: {error}") from None
    if len(rows) < 2:
        raise ValueError(f"{path.name} has no points: a header and a row for each point are wanted")
    names = rows[0][1]
    header = [name.strip().lower() for name in names]
    place = {}
    for kind in ("labels", "weights"):
        found = [k for k, name in enumerate(header) if name in _NAMES[kind]]
        if len(found) > 1:
            raise ValueError(f"{path.name} has {len(found)} columns of {kind}: {', '.join(names[k] for k in found)}")
        place[kind] = found[0] if found else None
    if place["labels"] is None:
        raise ValueError(f"{path.name} has no column label, but {', '.join(names)}")
    table = np.empty((len(rows) - 1, len(header)))
    for number, (line, row) in enumerate(rows[1:]):
        if len(row) != len(header):
            raise ValueError(f"line {line} of {path.name} has {len(row)} entries, its header has {len(header)}")
        for column, entry in enumerate(row):
            try:
                table[number, column] = float(entry)
            except ValueError:
                where = f"line {line}, column {names[column]!r} of {path.name} is {entry!r}"
                raise ValueError(f"{where}, which is no number") from None
    kept = [k for k in range(len(header)) if k not in place.values()]
    return table[:, kept], table[:, place["labels"]], None if place["weights"] is None else table[:, place["weights"]]
