"""`--dynamics` of `gradstarve sweep` and `overlay`: one name for how weights move, and the numbers that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import typer

from gradstarve.cli.options import check_choice

# Name -> the class of `gradstarve`, and what it takes.
_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "descent": ("GradientDescent", ("step_size", "momentum", "weight_decay")),
    "flow": ("GradientFlow", ()),
    "normalised": ("NormalizedGradientDescent", ("step_size",)),
    "sign": ("SignDescent", ("step_size",)),
    "sam": ("SharpnessAware", ("step_size", "radius")),
    "sgd": ("StochasticGradientDescent", ("step_size",)),
    "minibatch": ("StochasticGradientDescent", ("step_size", "batch_size")),
}
SWEPT_DYNAMICS = tuple(name for name in _KINDS if name != "flow")
DRAWN_DYNAMICS = tuple(name for name in _KINDS if name not in ("sgd", "minibatch"))
"""Those with a curve to draw."""
_WHY_NOT = {
    "flow": "a flow has no steps to sweep; gradstarve overlay --dynamics flow draws one",
    "sgd": "its law is a distribution over the draws and no curve; gradstarve sweep --dynamics sgd trains it",
    "minibatch": "its law is a distribution over the draws and no curve; gradstarve sweep --dynamics minibatch trains it",
}


def check_dynamics(name: str, valid: Sequence[str]) -> None:
    """Refuse dynamics that are not among the `valid` ones, with the reason where there are such dynamics."""
    if name in _KINDS and name not in valid:
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(valid)}: {_WHY_NOT[name]}", param_hint="'--dynamics'")
    check_choice("--dynamics", name, valid)


def numbers_of(name: str) -> tuple[str, ...]:
    """The numbers that these dynamics take."""
    return _KINDS[name][1]


def check_numbers(name: str, given: Mapping[str, Any], usual: Mapping[str, Any]) -> None:
    """Refuse each `given` number that is not the `usual` one and does not go with these dynamics."""
    for number, value in given.items():
        if number not in numbers_of(name) and value != usual[number]:
            takers = " or ".join(kind for kind, (_, numbers) in _KINDS.items() if number in numbers)
            option = f"'--{number.replace('_', '-')}'"
            raise typer.BadParameter(f"is for --dynamics {takers} only, not for {name}", param_hint=option)


def dynamics_of(name: str, numbers: Mapping[str, Any]) -> Any:
    """The `Dynamics` of that name, with those of the `numbers` that it takes."""
    from gradstarve import problem

    return getattr(problem, _KINDS[name][0])(**{number: numbers[number] for number in numbers_of(name) if number in numbers})
