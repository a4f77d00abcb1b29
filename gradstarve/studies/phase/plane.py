"""`phase_diagram`: maps of the failures and the times of training, exact where there is a law, trained elsewhere.

Four planes, one module each: `neuron` (a, z) of one neuron, `angle` of w between two classes, `failure` of whole networks
over their width, and `time` to learn. Each shows the losses side by side; hinge loss is followed from event to event (12.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from importlib import import_module
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradstarve.ground import (
    COLOURS,
    Progress,
    as_floats,
    as_number,
    as_pair,
    as_seed,
    check_normal,
    deprecated,
    did_you_mean,
    html_table,
    positive_int,
    short_repr,
    shown,
    style,
    table_text,
)
from gradstarve.problem import LOSSES, Dataset, TwoLayerReLU
from gradstarve.simulation import simulate_flow, simulate_hinge_exact

# The settings of phase diagrams, checked before anything is computed.


def setting(default: Any, check: Callable[[str, Any], Any]) -> Any:
    """A field of `Settings`: its default, and `check(name, value)`, which converts a value or raises `ValueError`."""
    return field(default=default, metadata={"check": check})


@dataclass(frozen=True)
class Settings:
    """The settings of a plane, made by `of`. Each plane has a subclass whose fields are `setting`s."""

    @classmethod
    def of(cls, **given: Any) -> Settings:
        """The settings `given`, and the defaults of the others, each converted by its check."""
        return cls(**{one.name: one.metadata["check"](one.name, given.get(one.name, one.default)) for one in fields(cls)})


PASSING = tuple(name for name, loss in LOSSES.items() if not loss.pulls_back)


def real(values: Any) -> np.ndarray:
    """The values in JAX's default precision."""
    return np.asarray(values, jnp.result_type(float))


def positive(name: str, value: Any) -> float:
    """A finite number above 0; `ValueError` quotes any other value."""
    try:
        found = as_number(name, value, 0)
    except ValueError:
        found = 0.0
    check_normal(name, np.asarray(found))
    if found == 0:
        raise ValueError(f"{name} must be a finite number above 0, got {shown(value)}")
    return found


def numbers(name: str, value: Any) -> tuple[float, ...]:
    """One or several different finite numbers."""
    try:
        result = tuple(as_floats(name, value).reshape(-1).tolist())
    except ValueError:
        result = ()
    if not result or not all(map(math.isfinite, result)) or len(set(result)) < len(result):
        raise ValueError(f"{name} must be one or several different finite numbers, got {shown(value)}")
    return result


def positives(name: str, value: Any) -> tuple[float, ...]:
    """One or several different numbers above 0."""
    return tuple(positive(name, one) for one in numbers(name, value))


def counts(minimum: int = 1) -> Callable[[str, Any], int]:
    """The check of a whole number of at least `minimum`."""
    return lambda name, value: positive_int(name, value, minimum=minimum)


def sizes(name: str, value: Any) -> tuple[int, ...]:
    """One or several whole numbers of at least 1, sorted, each once."""
    return tuple(sorted({counts()(name, one) for one in np.ravel(np.array(value, object))}))


def seeds(_: str, value: Any) -> Any:
    """The seed of the draws: an integer, or the numbers of a JAX key."""
    return as_seed(value)


def choices(valid: tuple[str, ...]) -> Callable[[str, Any], tuple[str, ...]]:
    """The check of one or several different names among `valid`."""

    def check(name: str, value: Any) -> tuple[str, ...]:
        found = (value,) if isinstance(value, str) else tuple(value)
        for one in found:
            if one not in valid:
                raise ValueError(f"{name} must be among {', '.join(valid)}, got {one!r}{did_you_mean(one, valid)}")
        if not found or len(set(found)) < len(found):
            raise ValueError(f"{name} must be at least one, each once, got {list(found)}")
        return found

    return check


def cosines(name: str, value: Any) -> tuple[float, ...]:
    """Cosines in [-1, 0] of the angle between the classes."""
    result = numbers(name, value)
    for one in result:
        if not -1 <= one <= 0:
            raise ValueError(f"{name} must be in [-1, 0], where classes are orthogonally separable, got {one}")
    return tuple(one + 0.0 for one in result)


def pair(name: str, value: Any) -> tuple[float, float]:
    """Two numbers above 0, of class + and class -."""
    first, second = as_pair(name, value, "(class +, class -)")
    return positive(name, first), positive(name, second)


def checked_losses(value: Any) -> tuple[str, ...]:
    """One loss or several, among those whose margins reach 1."""
    several = isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim > 0)
    names = tuple(value) if several else (value,)
    for name in names:
        if not isinstance(name, str) or name not in PASSING:
            why = " (its margin only tends to 1)" if isinstance(name, str) and name in LOSSES else ""
            meant = did_you_mean(name, PASSING)
            raise ValueError(f"loss must be among {', '.join(PASSING)}, got {shown(name)}{why}{meant}")
    names = tuple(map(str, names))
    if not names or len(set(names)) < len(names):
        raise ValueError(f"loss must be one or several different losses, got {shown(value)}")
    return names


# Which of two classes a network learns in the end: proven by the weights, or trained until the weights prove it.
#
# Data are one point of each class at an angle of cosine c in [-1, 0], which is orthogonally separable. A neuron exclusive to
# a class (a > 0 along it, b <= 0 along the other; z in the orientation of its class) has a proven fate in two cases, by
# (2.0), (4.1) and (4.4), for any loss and any other neurons:
#
# - z > -a, and b + |c| (a - sqrt(a^2 - z^2)) <= 0 if z < 0: it never joins the other class, and its class is learnt;
# - z <= -a and b + |c| a <= 0, c > -1: it dies without joining the other class.
#
# A class is *learnt* once there is a neuron of the first kind on it, and *lost* once all neurons of the network are dead, or
# will die, or are of the first kind on the other class. Between opposite points, with a loss that never stops, all fates are
# known at the start (4.3). Open networks are trained, hinge loss by events and others by the flow, and tested again.

OPEN, LOST, LEARNT = -1, 0, 1
_CHUNK = 1024  # networks trained in one call, so that few programs are compiled
_SINGLES = 8192  # the same for networks of a single neuron
_ROUNDS = 6  # rounds of the flow, each four times as long as the one before
_RTOL = 1e-5
_NEAR = 1e-4  # a margin at rest is 1 up to rounding, or well below 1
_STAYS, _DIES, _ANY = 1, 2, 3


def two_classes(cosine: float, frequencies: Any, norms: Any) -> Dataset:
    """One point a class at that angle, class + along the first axis.

    >>> two_classes(-1.0, (0.5, 0.5), (1.0, 2.0)).points.tolist()
    [[1.0, 0.0], [-2.0, 0.0]]
    """
    side = np.sqrt(1 - cosine**2)
    return Dataset([[norms[0], 0.0], [norms[1] * cosine, norms[1] * side]], [1.0, -1.0], frequencies)


def proven(data: Dataset, w: np.ndarray, z: np.ndarray, never_stops: bool) -> np.ndarray:
    """LEARNT, LOST or OPEN for class + and class -, [b, 2], by the weights `w` [b, h, 2] and `z` [b, h] alone."""
    axes = np.asarray(data.points) / np.linalg.norm(np.asarray(data.points), axis=1)[:, None]
    cosine = float(axes[0] @ axes[1])
    along = w @ axes.T
    if cosine == -1 and never_stops:
        side = np.where(along[..., 0] != 0, along[..., 0] + z, 0)
        helps = np.stack([side > 0, side < 0], axis=-1).any(1)
        return np.where(helps, LEARNT, np.where((side == 0).all(1)[:, None], OPEN, LOST))
    sorts = []
    for k, sign in ((0, 1), (1, -1)):
        a, b, own = along[..., k], along[..., 1 - k], sign * z
        only = (a > 0) & (b <= 0)
        lowest = np.sqrt(np.maximum(a * a - own * own, 0))
        stays = only & (own > -a) & ((own >= 0) | (b - cosine * (a - lowest) <= 0))
        dies = only & (own <= -a) & (b - cosine * a <= 0) & (cosine > -1)  # opposite classes exchange neurons instead
        sorts.append(np.where(stays, _STAYS, np.where(dies, _DIES, _ANY)))
    dead = (along <= 0).all(-1)
    found = np.full((len(z), 2), OPEN)
    for k in (0, 1):
        idle = dead | (sorts[k] == _DIES) | (sorts[1 - k] != _ANY)
        found[idle.all(1), k] = LOST
        found[(sorts[k] == _STAYS).any(1), k] = LEARNT
    return found


def class_fates(data: Dataset, w: np.ndarray, z: np.ndarray, loss: str, trust: bool = True) -> np.ndarray:
    """LEARNT, LOST or OPEN for class + and -, [b, 2], of networks `w` [b, h, 2], `z` [b, h], trained as long as needed.

    `trust`: whether (4.1), (4.3), (4.4) may decide a network before training; if not, all are trained. Networks that no run
    decides, such as those that start on the line z = -a up to rounding, stay OPEN.
    """
    never_stops = trust and not LOSSES[loss].stops
    found = proven(data, w, z, never_stops) if trust else np.full((len(z), 2), OPEN)
    todo = np.flatnonzero((found == OPEN).any(1))
    size = _CHUNK if w.shape[1] > 1 else _SINGLES
    for first in range(0, todo.size, size):
        which = todo[first : first + size]
        padded = np.zeros((size, *w.shape[1:])), np.zeros((size, w.shape[1]))
        padded[0][: which.size], padded[1][: which.size] = w[which], z[which]
        network = TwoLayerReLU(*map(real, padded))
        if LOSSES[loss].stops:
            found[which] = _by_events(data, network, found[which])
        else:
            found[which] = _by_flow(data, network, found[which], loss, never_stops)
    return found


def _merged(old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.where(old == OPEN, new, old)


def _by_events(data: Dataset, network: TwoLayerReLU, known: np.ndarray) -> np.ndarray:
    """Hinge loss: from event to event until nothing moves; networks that cannot be followed keep their proven verdicts."""
    run = simulate_hinge_exact(data, network, throw=False)
    count = len(known)
    settled, w, z = (np.asarray(leaf)[:count] for leaf in (run.settled, run.final.w, run.final.z))
    margins = np.asarray(run.final(data.points))[:count] * np.asarray(data.labels)
    at_rest = np.where(margins >= 1 - _NEAR, LEARNT, LOST)
    return _merged(known, np.where(settled[:, None], at_rest, proven(data, w, z, False)))


def _by_flow(data: Dataset, network: TwoLayerReLU, known: np.ndarray, loss: str, never_stops: bool) -> np.ndarray:
    """Losses that never stop: the flow in ever longer pieces, until the weights prove the fates."""
    rate = float((np.asarray(data.weights) * np.linalg.norm(np.asarray(data.points), axis=1)).min())
    time = 8 / rate
    for _ in range(_ROUNDS):
        rest = simulate_flow(data, network, loss, [time], rtol=_RTOL, max_steps=20_000, throw=False, progress=False).final
        w, z = np.array(rest.w), np.array(rest.z)
        good = np.isfinite(z).all(1) & np.isfinite(w).all((1, 2))
        w[~good], z[~good] = np.asarray(network.w)[~good], np.asarray(network.z)[~good]
        known = _merged(known, proven(data, w[: len(known)], z[: len(known)], never_stops))
        done = np.ones(len(z), bool)
        done[: len(known)] = (known != OPEN).all(1)
        if done.all():
            return known
        w[done], z[done] = 0, 0  # decided networks are not trained any further
        network, time = TwoLayerReLU(real(w), real(z)), 4 * time
    return known


# The diagram.


@dataclass(frozen=True, eq=False)
class Plane:
    """The contract of a plane: its settings, the maps computed from them, the rows of its table, and its figure.

    A new plane is a module of this package with a `PLANE`, and its name in `PLANES`.

    - `settings`: its subclass of `Settings`;
    - `compute(losses, settings, advance)`: axes by name, and for each loss its maps by name; it calls `advance()`
      `steps(losses, settings)` times;
    - `rows(diagram)`: the table, its header first; `notes`: how to read the table; `figure(diagram)`: the maps as a
      matplotlib `Figure`; `conclusion(diagram)`: one sentence.
    """

    settings: type[Settings]
    steps: Callable[[tuple[str, ...], Any], int]
    compute: Callable[[tuple[str, ...], Any, Any], tuple[dict[str, Any], dict[str, Any]]]
    rows: Callable[[Any], list[tuple[str, ...]]]
    notes: str
    figure: Callable[[Any], Any]
    conclusion: Callable[[Any], str]


PLANES = ("neuron", "angle", "failure", "time")


def plane_of(name: str) -> Plane:
    """The plane called `name`."""
    return import_module(f"gradstarve.studies.phase.{name}").PLANE


@dataclass(frozen=True, eq=False)
class PhaseDiagram:
    """The result of `phase_diagram`; `phase_diagram(**diagram.settings)` computes it again.

    `axes`: name -> values; `maps`: loss -> name -> array, documented in the module `studies.phase.PLANE`.
    """

    settings: dict[str, Any]
    axes: dict[str, Any]
    maps: dict[str, dict[str, Any]]

    @property
    def plane(self) -> str:
        """The name of the plane."""
        return self.settings["plane"]

    @property
    def losses(self) -> tuple[str, ...]:
        """The losses, side by side."""
        return tuple(self.maps)

    def conclusion(self) -> str:
        """In one sentence, what the maps show."""
        return plane_of(self.plane).conclusion(self)

    def table(self) -> str:
        """The numbers behind the maps in a few rows."""
        return table_text(plane_of(self.plane).rows(self))

    __repr__ = short_repr

    def _repr_html_(self) -> str:
        return html_table(plane_of(self.plane).rows(self), self.notes())

    def records(self) -> list[dict[str, str]]:
        """The rows of the table by the names of its columns."""
        head, *rest = plane_of(self.plane).rows(self)
        return [dict(zip(head, row, strict=True)) for row in rest]

    def notes(self) -> str:
        """An explanation of the table, in words."""
        return plane_of(self.plane).notes

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return {"plane": self.plane, "axes": self.axes, "maps": self.maps}

    def plot(self, path: Any = None) -> Any:
        """The maps as a matplotlib `Figure`, saved to `path` if there is one; see `draw`."""
        return draw(self, path)


@deprecated(loss="losses", seed="key")
def phase_diagram(losses: Any = "hinge", plane: str = "neuron", *, progress: Any = None, **settings: Any) -> PhaseDiagram:
    """The phase diagram of training two classes at an angle of cosine c in [-1, 0], for one loss or several side by side.

    `losses`: "cross-entropy", "hinge", "exponential" or a sequence of them. `plane` and its `settings`:

    - "neuron": the fate and time to learn of one neuron over a = w.xh_+ and z (4.1), (4.3), (3.6), (3.7): `frequencies` and
      `norms` of class + and -, `extent` of a and z, `pixels` a side;
    - "angle": the fate of one neuron over the direction of w in the plane of the classes and z/|w| (4.1)-(4.4): `cosines`,
      `ratios` p_- r_- / p_+ r_+, `scale` = |(w, z)|, `pixels`;
    - "failure": the chance that class - of a network is never learnt (4.2), (4.3), over the largest `width`: `cosines`,
      `ratios` sigma_z/sigma_w, `rates` p_- r_- / p_+ r_+, `scales` sigma, `networks` a point, `key`;
    - "time": quantiles over networks of the time to a margin of 1 (3.6), (3.7): `width`, `scale`, `widths`, `scales`,
      `networks`, `pixels`, `key`.

    Exact where there is a law, and for the hinge loss from event to event (`simulate_hinge_exact`); cross-entropy and
    exponential loss by the closed form or by `simulate_flow` until the weights prove the outcome. t = step size x step. Use
    float64. `ValueError` for invalid settings.

    >>> diagram = phase_diagram("hinge", "neuron", pixels=8)
    >>> diagram.maps["hinge"]["antipodal_end"][0].tolist()        # z = -1.625, all a: z < -a ends in class -
    [-1, -1, -1, -1, -1, -1, -1, 1]
    """
    names = checked_losses(losses)
    if not isinstance(plane, str) or plane not in PLANES:
        raise ValueError(f"plane must be one of {', '.join(PLANES)}, got {shown(plane)}{did_you_mean(plane, PLANES)}")
    made = plane_of(plane)
    known = [one.name for one in fields(made.settings)]
    unknown = sorted(set(settings) - set(known))
    if unknown:
        meant = did_you_mean(unknown[0], known)
        raise ValueError(f"{unknown[0]} is no setting of the plane {plane!r}; it has {', '.join(known)}{meant}")
    chosen = made.settings.of(**settings)
    with Progress(progress, made.steps(names, chosen), f"phase diagram: {plane}") as bar:
        done = 0

        def advance():
            nonlocal done
            done += 1
            bar.update(done)

        axes, maps = made.compute(names, chosen, advance)
    return PhaseDiagram({"losses": names, "plane": plane, **asdict(chosen)}, axes, jax.tree.map(_plain, maps))


def _plain(value: Any) -> Any:
    return np.asarray(value) if isinstance(value, jax.Array) else value


# The common parts of the figures of `PhaseDiagram`s. The module of a plane draws its figure.
#
# Class + is blue, class - vermillion, dead grey, undecided white; hatches and labels show the same without colour.
# Matplotlib is imported when a figure is drawn.

PLUS, MINUS, DEAD, BLANK = COLOURS[0], COLOURS[1], style.SHADE, "white"
LIGHT_PLUS, LIGHT_MINUS = style.LIGHT
GREY = style.NOTE
BOX: Any = {"boxstyle": "round,pad=0.25", "facecolor": "white", "edgecolor": "none", "alpha": 0.8}
MARKS = ("o", "s", "^", "D", "v", "P", "X")


def draw(diagram: Any, path: Any = None) -> Any:
    """The `Figure` of a `PhaseDiagram`, saved to `path` if there is one (.png, .svg, .pdf)."""
    with style.sheet():
        figure = plane_of(diagram.plane).figure(diagram)
        if path is not None:
            style.save(figure, path)
    return figure


def new_figure(width: float, height: float, first: str, second: str) -> Any:
    """An empty figure with a bold line over plain lines, wrapped to its width."""
    figure = style.new_figure(width, height)
    style.headline(figure, first, second)
    return figure
