"""Data that change during training: phases with flipped labels or other frequencies, one after the other (21.1)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Integer

from gradstarve.ground import as_number, is_concrete, short_repr, shown
from gradstarve.problem._curve import NetworkCurve, given
from gradstarve.problem._data import Dataset


class Phases(eqx.Module):
    """Phase k trains on `data`[k] until t = `until`[k], in steps or in time; the last phase runs to the end.

    All phases have the same points. At t = `until`[k] the data are still those of phase k.
    """

    __repr__ = short_repr

    data: tuple[Dataset, ...]
    until: tuple[float, ...] = eqx.field(static=True)

    @property
    def since(self) -> tuple[float, ...]:
        """The t at which each phase begins."""
        return beginnings(self.until)

    def number(self, t: Any) -> Integer[Array | np.ndarray, "..."]:
        """The number of the phase at t, of the shape of t."""
        return phase_at(self.until, t)

    def labels(self, t: Any) -> Float[Array, "... n"]:
        """y_i at t, [*t.shape, n]."""
        return jnp.stack([data.labels for data in self.data])[self.number(t)]

    def weights(self, t: Any) -> Float[Array, "... n"]:
        """q_i at t, [*t.shape, n]."""
        return jnp.stack([data.weights for data in self.data])[self.number(t)]


def beginnings(until: tuple[float, ...]) -> tuple[float, ...]:
    """The t at which each phase begins."""
    return (0.0, *until[:-1])


def phase_at(until: tuple[float, ...], t: Any) -> Any:
    """The number of the phase at t, of the shape of t; `until`[k] belongs to phase k."""
    ends = np.asarray(until[:-1])
    return np.asarray(np.searchsorted(ends, np.asarray(t))) if is_concrete(t) else jnp.searchsorted(jnp.asarray(ends), t)


def are_phases(data: Any) -> bool:
    """Whether `data` describe phases: a list or tuple that contains a pair (until, Dataset)."""

    def is_pair(value: Any) -> bool:
        return isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], Dataset)

    return isinstance(data, list | tuple) and any(map(is_pair, data))


def as_phases(phases: Any, *, whole: bool) -> Phases:
    """`Phases` from a list of pairs (until, data); `until` of the last pair may be None, for the end of training.

    `whole`: whether t counts steps. `ValueError` for anything but such a list, for ends that do not rise, and for phases
    with different points.
    """
    wanted = "phases are a list of pairs such as [(100, data), (None, flipped)], of Datasets with the same points"
    pairs = _pairs(phases, wanted)
    if not pairs or not all(isinstance(data, Dataset) for _, data in pairs):
        raise ValueError(f"{wanted}, got {shown(phases)}")
    ends = _ends([until for until, _ in pairs], whole, wanted)
    points = [data.points for _, data in pairs]
    for number, some in enumerate(points):
        same = some.shape == points[0].shape
        if not same or (is_concrete(some) and is_concrete(points[0]) and not np.array_equal(some, points[0])):
            raise ValueError(
                f"all phases must have the same points, and phase {number} has others; give points that a phase leaves out "
                "a small weight, or train the phases one after the other"
            )
    return Phases(tuple(data for _, data in pairs), ends)


def frequencies_of(phases: Any, *, whole: bool) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """The ends and the frequencies of a list of pairs (until, p), p from -1 to 1 and not 0, negative for flipped labels."""
    wanted = "phases of a mode are a list of pairs such as [(100, 0.3), (None, -0.3)]"
    try:
        pairs = [(until, float(p)) for until, p in phases]
    except jax.errors.ConcretizationTypeError:
        raise ValueError("frequencies of phases must be known when traced; close over them instead") from None
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {shown(phases)}") from None
    if not pairs:
        raise ValueError(f"{wanted}, got none")
    for number, (_, p) in enumerate(pairs):
        if not 0 < abs(p) <= 1:
            raise ValueError(f"{wanted}; the frequency of phase {number} must be from -1 to 1 and not 0, got {p}")
    return _ends([until for until, _ in pairs], whole, wanted), tuple(p for _, p in pairs)


def ends_of(phases: Any, what: str) -> tuple[tuple[float, ...], tuple[Any, ...]]:
    """The ends in time and the values of a list of pairs (until, value); `until` of the last pair may be None.

    >>> ends_of([(10, 1.0), (None, 2.0)], "weights")
    ((10.0, inf), (1.0, 2.0))
    """
    wanted = f"phases of {what} are a list of pairs (until, {what}), such as [(100, ...), (None, ...)]"
    pairs = _pairs(phases, wanted)
    if not pairs:
        raise ValueError(f"{wanted}, got none")
    return _ends([until for until, _ in pairs], False, wanted), tuple(value for _, value in pairs)


def _pairs(phases: Any, wanted: str) -> list[tuple[Any, Any]]:
    try:
        return [(until, value) for until, value in phases]
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {shown(phases)}") from None


def _ends(given_ends: list[Any], whole: bool, wanted: str) -> tuple[float, ...]:
    """The ends as rising floats; None for the last one becomes infinity."""
    ends: list[float] = []
    for number, until in enumerate(given_ends):
        last = number == len(given_ends) - 1
        end = np.inf if until is None and last else _end(until, whole, wanted)
        if end <= (ends[-1] if ends else 0):
            raise ValueError(f"phases must end later and later, after t = 0; phase {number} ends at {shown(until)}")
        ends.append(end)
    return tuple(ends)


def _end(until: Any, whole: bool, wanted: str) -> float:
    try:
        end = as_number("until", until, 0)
    except ValueError:
        raise ValueError(f"{wanted}; a phase ends at a number > 0, got {shown(until)}") from None
    if whole and end != int(end):
        raise ValueError(f"phases of dynamics in steps end at whole steps, got {shown(until)}")
    return end


class PhasedCurve(NetworkCurve):
    """The learning curve of a network whose data change: margins, error and loss use the labels and weights at t."""

    phases: eqx.AbstractVar[Phases]

    def _when(self, t: Any) -> Any:
        return given(t)

    def margins(self, t=None) -> Float[Array, "..."]:
        """m_i = y_i f(x_i) with the labels at t: [*batch, *t.shape, n]."""
        return self.phases.labels(self._when(t)) * self.logits(t)

    def error(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i sigmoid(-m_i) with labels and weights at t: [*batch, *t.shape]."""
        return self._measured("error", self.margins(t), self.phases.weights(self._when(t)))

    def loss(self, t=None) -> Float[Array, "..."]:
        """sum_i q_i l(m_i) with labels and weights at t: [*batch, *t.shape]."""
        return self._measured("loss", self.margins(t), self.phases.weights(self._when(t)))

    def mistakes(self, t=None) -> Float[Array, "..."]:
        """The weight of the points with m_i <= 0, labels and weights at t: [*batch, *t.shape]."""
        return jnp.sum(self.phases.weights(self._when(t)) * (self.margins(t) <= 0), axis=-1)
