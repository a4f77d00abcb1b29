"""What a wrong law is: a name of the library replaced by something a few per cent, a sign or a factor of 2 off."""

from typing import Any, NamedTuple


class Mutant(NamedTuple):
    """A wrong law: `label` says in plain words what is wrong ("kappa_critical 1 % too large"); `wrong` takes the place of
    `attribute` of the module or class `place`.

    `inside`: whether compiled programs have `attribute` in them, and must be forgotten for `wrong` to count.

    `red`: whether its entry turns red; if not, `reason` is the statistical reason, with the power that there is.
    """

    label: str
    place: Any
    attribute: str
    wrong: Any
    red: bool = True
    reason: str = ""
    inside: bool = False


def scaled(function, factor):
    """`function` times `factor`."""
    return lambda *given, **more: factor * function(*given, **more)


def times(law, place, factor):
    """`law` with the argument at `place`, a number or a name, multiplied by `factor`."""
    if isinstance(place, str):
        return lambda *given, **more: law(*given, **more | {place: factor * more[place]})
    return lambda *given, **more: law(*given[:place], factor * given[place], *given[place + 1 :], **more)
