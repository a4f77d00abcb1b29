"""Names that options take, for help and completion, which must not wait for JAX; a test holds them to the library's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
PROBLEMS = ("antipodal", "orthogonal")
PRECISIONS = ("float64", "float32")

DERIVATIONS = {
    "mode": LOSSES,
    "one-layer": LOSSES,
    "inflection": LOSSES,
    "depth": LOSSES,
    "descent": LOSSES,
    "momentum": LOSSES,
    "decay": ("cross-entropy", "exponential", "squared"),
    "starvation": LOSSES,
    "softmax": ("cross-entropy",),
    "linearised": ("cross-entropy",),
}
"""Law -> losses it is derived for."""

THEOREMS = (
    *("balance", "sign", "no-sliding-edges", "independent-modes", "clock", "hinge", "cross-entropy", "balanced-curves"),
    *("read-out", "deaths", "universality", "fates", "learning-probability", "transfer", "antipodal-fates", "waking"),
    *("waking-hinge", "inflections", "rich-to-lazy", "plateau", "wrong-signs", "confidence", "hinge-advantage", "tails"),
    *("depth", "unbalanced-depth", "exact-descent", "weight-decay-and-momentum", "sgd-distribution"),
    *("sgd-time-to-margin", "decay-threshold", "decay-curve", "features", "starving-pair", "freeze", "starvation-bounds"),
    *("deep-starvation", "starvation-index", "shared-neurons", "softmax", "softmax-clock", "hinge-exact", "finite-events"),
    *("hinge-end", "last-direction", "hinge-max-margin", "logistic-flow", "ridge-optimum", "starvation-derivatives"),
    *("spectral-decoupling", "generator-signal"),
)
"""The catalogue."""


def completion(values: Sequence[str], several: bool = False) -> Callable[[str], list[str]]:
    """What a shell offers for a word begun; of `several` values with commas between them, for the last one.

    >>> completion(LOSSES)("c"), completion(LOSSES, several=True)("hinge,e")
    (['cross-entropy'], ['hinge,exponential'])
    """

    def offered(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken = before.split(",")
        return [f"{before}{comma}{value}" for value in values if value.startswith(last) and value not in taken]

    return offered
