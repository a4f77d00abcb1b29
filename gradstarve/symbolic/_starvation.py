"""Gradient starvation: feature 1 on every sample, feature 2 on some of them, and what the second is left with.

From the network and the loss to the pair of equations (10.1), for a linear read-out and, with one path of N layers for
each feature, at any depth. What follows from the pair for each loss, (10.2) to (10.5), is in `starvation_by_loss`.
Both features have norm 1.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic._chain import Chain, equal, while_learning, without_g
from gradstarve.symbolic._checks import Domain
from gradstarve.symbolic._derivation import Derivation, Known, derive
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._notation import N, ell, feature, g, m, margins, p, p_both, p_one, q, r, u_positive
from gradstarve.symbolic._starvation_by_loss import BY_LOSS, DEEP_PAIR, PAIR, RATES

__all__ = ["LOSSES", "build"]

EARLY: Domain = dict.fromkeys(feature, (sp.Rational(1, 10), sp.Rational(9, 20)))
"""Features at which no sample has reached the hinge's margin: beyond it there is nothing to compare."""


def build(loss: str) -> Derivation:
    """Derive what two features do to each other, for the loss of that name; see `gradstarve.symbolic.derive`."""
    chain = Chain()
    _samples(chain)
    single = derive("one-layer", loss)
    chain.cite(single, "loss", "The loss, as in the derivation for one layer.")
    chain.cite(single, "residual", "Its residual.")
    _pair(chain)
    _deep_pair(chain, loss)
    targets = BY_LOSS[loss](chain)
    return Derivation("starvation", loss, f"Gradient starvation, {loss} loss", chain.steps, targets)


def _samples(chain: Chain) -> None:
    first, second = feature

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # Rows are samples, columns are features.
        outputs = sp.Matrix([[1, 0], [1, 1]]) * sp.Matrix(feature)
        return [own(margin) - output for margin, output in zip(margins, outputs, strict=True)]

    chain.add(
        "samples",
        "A share p1 of the samples shows feature 1 alone, a share p12 shows both; the features are orthogonal and of "
        "norm 1, and v1, v2 are the logits that a linear read-out gives to them.",
        (equal(margins[0], first), equal(margins[1], first + second)),
        verify,
    )


def _pair(chain: Chain) -> None:
    weights = dict(zip(margins, (p_one, p_both), strict=True))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Steepest descent of the loss itself.
        total = sum((share * earlier(ell(m)).subs(m, earlier(margin)) for margin, share in weights.items()), sp.S.Zero)
        slopes = [without_g(own(rate), earlier) + sp.diff(total, v) for rate, v in zip(RATES, feature, strict=True)]
        return [*slopes, own(q) * p_both - p_one]

    def force(v: sp.Symbol) -> sp.Expr:
        terms = [
            share * g(chain.known(margin)) * sp.diff(chain.known(margin), v) for margin, share in weights.items()
        ]
        return sum(terms, sp.S.Zero)

    chain.add(
        PAIR,
        "Steepest descent: the second feature is fed by the samples with both only, and those feed the first as well.",
        (*(equal(rate, force(v)) for rate, v in zip(RATES, feature, strict=True)), equal(q, p_one / p_both)),
        verify,
        domain=EARLY,
        reference="(10.1)",
    )


def _deep_pair(chain: Chain, loss: str) -> None:
    path = while_learning(derive("depth", loss).result["du/dt"].rhs).subs(r, 1)
    residual = while_learning(chain.known(g(m))).subs(m, u_positive)
    # What a path of N layers makes of the force p g(u) on its output, for a point of norm 1.
    gain = sp.simplify(path / (p * residual))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for rate, v in zip(RATES, feature, strict=True):
            # The force on a feature, in place of p g(u), in the equation of a path.
            force = without_g(earlier(rate, PAIR), earlier)
            residual = while_learning(earlier(g(m))).subs(m, v)
            residuals.append(without_g(own(rate), earlier) * p * residual - path.subs(u_positive, v) * force)
        return residuals

    chain.add(
        DEEP_PAIR,
        "With one balanced path of N layers for each feature, both speeds gain the factor derived for such a path.",
        tuple(
            equal(rate, gain.subs(u_positive, v) * chain.known(rate, PAIR)) for rate, v in zip(RATES, feature, strict=True)
        ),
        verify,
        domain=EARLY | {N: (1, 6)},
        reference="(10.1)",
    )
