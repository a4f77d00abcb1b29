"""What a directory holds of the arguments of its sweep, in plain JSON and arrays: enough to compare them and to read it.

`identity` says what a value is made of, so that two can be compared; a *recipe* is what the value can be made of again. Only
modules of `gradstarve.problem` have one, which hold numbers, arrays and each other. No code is stored, and none is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from gradstarve import problem
from gradstarve.problem import Dataset, Phases, Schedule
from gradstarve.simulation.sweep._identity import digest, identity
from gradstarve.simulation.sweep._plan import Configuration, combinations, label, prepare
from gradstarve.simulation.sweep._store import checksum

_PLAIN = (bool, int, str, type(None))


@contextlib.contextmanager
def precision(name: str) -> Iterator[None]:
    """Inside, JAX has the precision "float32" or "float64", whatever this process has chosen."""
    with jax.enable_x64(name == "float64"):
        yield


def recipe(value: Any) -> Any:
    """The recipe of `value`, or None where it has none, as a loss of a user's own.

    >>> from gradstarve.problem import SpectralDecoupling
    >>> remade(recipe(SpectralDecoupling("hinge", 0.5)))
    SpectralDecoupling(loss=Hinge, penalty=0.5, target=0, scale=1)
    >>> recipe(len) is None
    True
    """
    try:
        return _recipe(value)
    except TypeError:
        return None


def _recipe(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) is float:
        return {"float": _number(value)}
    if isinstance(value, tuple):
        return {"tuple": [_recipe(entry) for entry in value]}
    if isinstance(value, np.ndarray | np.generic | jax.Array) and np.asarray(value).dtype.kind in "fiub":
        array = np.asarray(value)
        numbers = [_number(one) for one in array.ravel().tolist()]
        return {"array": numbers, "shape": list(array.shape), "dtype": array.dtype.name, "jax": isinstance(value, jax.Array)}
    name = type(value).__name__
    if isinstance(value, eqx.Module) and _class(name) is type(value):
        fields = (field.name for field in dataclasses.fields(value) if hasattr(value, field.name))  # pyright: ignore
        return {"module": name, "fields": {field: _recipe(getattr(value, field)) for field in fields}}
    raise TypeError(name)


def remade(told: Any) -> Any:
    """What `recipe` told of; `ValueError` for what is no recipe."""
    if type(told) in _PLAIN:
        return told
    try:
        if "float" in told:
            return float(told["float"])
        if "tuple" in told:
            return tuple(remade(entry) for entry in told["tuple"])
        if "array" in told:
            dtype = np.dtype(told["dtype"])
            numbers = [float(one) if dtype.kind == "f" else one for one in told["array"]]
            array = np.array(numbers, dtype).reshape(told["shape"])
            return jnp.asarray(array) if told["jax"] else array
        kind = _class(told["module"])
        if kind is None:
            raise ValueError(f"this version has no {told['module']}")
        made = object.__new__(kind)
        for name, entry in told["fields"].items():
            object.__setattr__(made, name, remade(entry))
        return made
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"it is not the recipe of a loss or of dynamics ({error})") from None


def _class(name: str) -> Any:
    found = getattr(problem, name, None)
    return found if isinstance(found, type) and issubclass(found, eqx.Module) else None


def _number(value: Any) -> Any:
    """JSON has neither NaN nor infinities."""
    return value if not isinstance(value, float) or math.isfinite(value) else str(value)


class Forgotten:
    """In the place of a loss, dynamics or a network that a directory, or a pickle, tells from others and cannot hold."""

    def __init__(self, what: str, name: str, told: str | None):
        self.what, self.name, self.told = what, name, told

    def __repr__(self) -> str:
        return self.name

    def refusal(self) -> ValueError:
        """The error for whoever needs it."""
        return ValueError(
            f"what was stored does not hold the {self.what} ({self.name}), which is code and not numbers: statistics are "
            "complete, but nothing can be trained again; call gs.sweep with its arguments, and its directory if it has one"
        )


def forgotten(what: str, value: Any) -> Forgotten:
    """In the place of this `value`."""
    try:
        told = digest(identity(value, what))
    except ValueError:
        told = None
    return Forgotten(what, str(label(value)), told)


# What decides the numbers of a configuration.


def described(found: list[Configuration], sizes: list[int]) -> dict[str, Any]:
    """The configurations in plain JSON, each with everything that decides its result; data by their checksum."""
    losses: dict[int, Any] = {}
    told = {}
    for number, (one, size) in enumerate(zip(found, sizes, strict=True)):
        if id(one.loss) not in losses:
            losses[id(one.loss)] = identity(one.loss, "loss")
        told[str(number)] = {
            "width": one.width,
            "scale_w": one.scale_w,
            "scale_z": one.scale_z,
            "loss": losses[id(one.loss)],
            **_of_dynamics(one.dynamics),
            "data": checksum_of(one.data) if one.phases is None else _of_phases(one.phases),
            **({} if one.network is None else {"network": identity(one.network, "network")}),
            "block": size,
        }
    return told


def _of_dynamics(dynamics: Any) -> dict[str, Any]:
    kind = type(dynamics)
    if not isinstance(dynamics, problem.Dynamics):
        return {"dynamics": identity(tuple(dynamics), "dynamics")}
    hyper = {name: _told(name, value) for name, value in vars(dynamics).items()}
    name = kind.__name__ if kind.__module__.startswith("gradstarve.") else identity(kind, "dynamics")
    return {"dynamics": name, **{name: value for name, value in hyper.items() if value is not None}}


def _told(name: str, value: Any) -> Any:
    """A number of the dynamics in plain JSON, None for one that is not there."""
    if value is None:
        return None
    if isinstance(value, Schedule):
        return {"schedule": identity(value.values, name)}
    return np.asarray(value).item() if np.ndim(value) == 0 else identity(value, name)


def checksum_of(data: Dataset) -> str:
    """That of its points, labels and weights."""
    return checksum(data.points, data.labels, data.weights)


def _of_phases(phases: Phases) -> dict[str, Any]:
    """By the number of the phase; the end of the last one, where it has one, changes nothing."""
    ends = (*map(int, phases.until[:-1]), "the end")
    pairs = enumerate(zip(ends, phases.data, strict=True))
    return {f"phase {number}": {"until": end, "data": checksum_of(data)} for number, (end, data) in pairs}


# What the configurations are made again of.


def datasets_of(found: list[Configuration]) -> dict[str, dict[str, np.ndarray]]:
    """The arrays of all data by their checksum."""
    every = {id(data): data for one in found for data in ((one.data,) if one.phases is None else one.phases.data)}
    names = ("points", "labels", "weights")
    return {checksum_of(data): {name: np.asarray(getattr(data, name)) for name in names} for data in every.values()}


def remembered(over: dict[Any, list], found: list[Configuration]) -> dict[str, Any]:
    """Axes and configurations as recipes, for the manifest."""
    axes = [
        {
            "names": [key] if isinstance(key, str) else list(key),
            "paired": not isinstance(key, str),
            "values": [[_of_value(one) for one in ((value,) if isinstance(key, str) else value)] for value in values],
        }
        for key, values in over.items()
    ]
    return {"over": axes, "configurations": [_of_configuration(one) for one in found]}


def _of_value(value: Any) -> Any:
    """A swept value, or its label where it has no recipe or a long one."""
    plain = np.asarray(value).item() if isinstance(value, np.generic | jax.Array) and np.ndim(value) == 0 else value
    told = None if isinstance(plain, Dataset) else recipe(plain)
    return {"label": str(label(value))} if told is None and value is not None else told


def _of_configuration(one: Configuration) -> dict[str, Any]:
    ends = None if one.phases is None else [None if np.isinf(end) else int(end) for end in one.phases.until]
    parts = {}
    for what in ("loss", "dynamics", "network"):
        value = getattr(one, what)
        made = None if what == "network" else recipe(value)
        lost = None if made is not None or value is None else vars(forgotten(what, value))
        parts[what] = {"recipe": made, "forgotten": lost}
    return parts | {
        "labels": {name: _of_value(value) for name, value in one.labels.items()},
        "width": one.width,
        "scales": [_number(one.scale_w), _number(one.scale_z)],
        "data": [checksum_of(data) for data in ((one.data,) if one.phases is None else one.phases.data)],
        "until": ends,
        "as given": one.basis is None and one.problem is one.data,
    }


def axes_of(told: list[dict[str, Any]]) -> dict[Any, list]:
    """`over` of `remembered`."""
    found = {}
    for axis in told:
        values = [tuple(_value(one) for one in row) for row in axis["values"]]
        if axis["paired"]:
            found[tuple(axis["names"])] = values
        else:
            found[axis["names"][0]] = [one for (one,) in values]
    return found


def _value(told: Any) -> Any:
    return told["label"] if isinstance(told, dict) and "label" in told else remade(told)


def configurations_of(
    told: list[dict[str, Any]], over: dict[Any, list], datasets: dict[str, Dataset]
) -> list[Configuration]:
    """The configurations of `remembered`, of all combinations of the swept values, with data by their checksum."""
    prepared: dict[Any, Any] = {}
    found = []
    every = list(combinations(over))
    if len(told) != len(every):
        raise TypeError(f"{len(told)} configurations for {len(every)} combinations of values")
    for one, (chosen, _) in zip(told, every, strict=True):
        parts: dict[str, Any] = {}
        for what in ("loss", "dynamics", "network"):
            lost = one[what]["forgotten"]
            parts[what] = remade(one[what]["recipe"]) if lost is None else Forgotten(**lost)
        which = (*one["data"], *(one["until"] or ()), type(parts["dynamics"]))
        if which not in prepared:
            data: Any = [datasets[code] for code in one["data"]]
            data = data[0] if one["until"] is None else list(zip(one["until"], data, strict=True))
            prepared[which] = prepare(data, isinstance(parts["dynamics"], problem.GradientDescent))
        labels = {name: _value(value) for name, value in one["labels"].items()}
        scale_w, scale_z = map(float, one["scales"])
        numbers = one["width"], scale_w, scale_z
        moved = parts["loss"], parts["dynamics"]
        made = Configuration(chosen, labels, *numbers, *moved, *prepared[which], network=parts["network"])
        found.append(made.as_given() if one["as given"] else made)
    return found
