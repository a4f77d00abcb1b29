"""`derive(name, loss)`, and the decorator that declares a derivation."""

from __future__ import annotations

import copyreg
import importlib
import textwrap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from gradstarve.ground import LOSS_NAMES, did_you_mean, laws, shown
from gradstarve.symbolic._chain import Chain
from gradstarve.symbolic._derivation import Derivation, Target

Build = Callable[[Chain, str], Mapping[str, Target]]
"""A function of (chain, loss name) that writes the steps of a law into an empty chain and returns the named results."""

_BUILDS: dict[str, Build] = {}


def derives(
    *, name: str, equation: str, title: str, losses: Sequence[str] = LOSS_NAMES, dynamics: Sequence[str] = ("flow",)
) -> Callable[[Build], Build]:
    """Declare a derivation: the decorated function writes its steps, and its docstring describes the law in one paragraph.

    The arguments must be literals, because `gradstarve.ground.laws` reads them, and the docstring, from the source. The
    module is imported when the law is derived for the first time.

    Args:
        name: the name of the law for `derive`.
        equation: number of the law's equation, or a range of numbers; the table is in this order.
        title: heading of the derivation; the name of the loss is added where the title does not have it.
        losses: names of the losses for which the law is derived.
        dynamics: "flow", "descent", or both.
    """

    def declare(build: Build) -> Build:
        _BUILDS[name] = build
        return build

    return declare


def available() -> list[tuple[str, str]]:
    """All (name, loss) pairs that `derive` accepts, in the order of the laws' equations.

    Example:
        >>> from gradstarve.symbolic import available
        >>> ("mode", "hinge") in available()
        True
    """
    return [(law.name, loss) for law in laws("derives").values() for loss in law.losses]


def derive(name: str, loss: Any) -> Derivation:
    """Derive a law of learning from its network and loss, each step with a check.

    Setting (arXiv:1809.06848): binary classification, labels y = ±1, margin m = y f(x), points of one class
    along one direction with norm r and total weight p, gradient flow in time t = step size x step.

    {laws}

    Args:
        name: the law, one of the names above.
        loss: "cross-entropy", "hinge", "exponential" or "squared", or an object whose `.name` is one of
            these.

    Returns:
        A `Derivation`. Construction derives; `.check()` checks.

    Raises:
        ValueError: unknown law or loss; the message lists the valid ones.

    Example:
        >>> from gradstarve.symbolic import derive
        >>> print(derive("mode", "hinge").result["t*"].rhs)
        (-theta0 + asinh(1/kappa))/(2*p*r)
    """
    loss_name, table = getattr(loss, "name", loss), laws("derives")
    if not isinstance(name, str) or name not in table:
        names = f"available names are {list(table)}{did_you_mean(name, table)}"
        raise ValueError(f"no derivation named {shown(name)}; {names}")
    losses = table[name].losses
    if not isinstance(loss_name, str) or loss_name not in losses:
        names = f"available losses are {list(losses)}{did_you_mean(loss_name, losses)}"
        raise ValueError(f"no derivation of {name!r} for the loss {shown(loss_name)}; {names}")
    return _derived(name, loss_name)


def _described() -> str:
    """The list of laws for the docstring of `derive`, from the docstrings of the functions that derive them."""
    items = []
    for law in laws("derives").values():
        paragraph = law.text.partition("\n\n")[0]
        limited = "" if law.losses == LOSS_NAMES else f" Only for {', '.join(law.losses)}."
        item = f'- "{law.name}" ({law.equation}): {" ".join(paragraph.split())}{limited}'
        items.append(textwrap.fill(item, 108, subsequent_indent="  ", break_on_hyphens=False))
    return textwrap.indent("\n".join(items), "    ").strip()


if derive.__doc__:  # python -OO has none
    derive.__doc__ = derive.__doc__.replace("{laws}", _described())


@cache
def _derived(name: str, loss: str) -> Derivation:
    # Safe to share: a derivation is immutable, and `check` recomputes every residual each time it is called.
    law, chain = laws("derives")[name], Chain()
    importlib.import_module(law.module)
    targets = _BUILDS[name](chain, loss)
    title = law.title if loss in law.title else f"{law.title}, {loss} loss"
    return Derivation(name, loss, title, chain.steps, targets)


def _derived_again(name: str, loss: str, own: tuple[tuple[str, Any], ...]) -> Derivation:
    derivation = _derived(name, loss)
    for step, equation in own:
        derivation = derivation.with_equation(step, equation)
    return derivation


def _reduced(derivation: Derivation) -> Any:
    """The pickled form of a derivation: its name and any changed equations, because steps hold functions."""
    if (derivation.name, derivation.loss) in available():
        first = _derived(derivation.name, derivation.loss)
        if [step.name for step in first.steps] == [step.name for step in derivation.steps]:
            pairs = zip(first.steps, derivation.steps, strict=True)
            own = tuple((step.name, step.equation) for was, step in pairs if step.equation != was.equation)
            return _derived_again, (derivation.name, derivation.loss, own)
    return derivation.__reduce_ex__(2)


copyreg.pickle(Derivation, _reduced)
