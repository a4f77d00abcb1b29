"""Leaky networks on antipodal classes: two speeds, one for each side, and the factors of a step of descent (22.1).

Two neurons stand for any number on each side: neuron 1 is on the side of class +, with the coordinate a1 along it, neuron 2
on that of class -, with the coordinate -a2.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, without_g
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._opening import cite_loss, descends

SIGNS = (1, -1)
"""Of the classes, and of the coordinates of the neurons on their sides."""

RANGE: Domain = {n.slope: (0, sp.Rational(9, 10)), **dict.fromkeys(n.r_sides, (sp.Rational(1, 10), 2))}
PUSHES, STEP, FACTORS = "speed of each side", "one step", "factors"
COORDINATES = tuple(sign * letter for sign, letter in zip(SIGNS, n.a, strict=True))
AFTER = tuple(sign * letter for sign, letter in zip(SIGNS, n.a_next, strict=True))


@derives(name="leaky", equation="22.1", title="Leaky networks on antipodal classes", dynamics=("flow", "descent"))
def leaky(chain: Chain, loss: str) -> dict[str, Target]:
    """A leaky ReLU of any slope below 1 on two antipodal classes: margins, the speed of the neurons of each side, and the
    factors by which a step of descent multiplies a + z and a - z of a neuron (22.1).
    """
    _network(chain)
    cite_loss(chain, loss)
    _sides(chain)
    _pushes(chain)
    _step(chain)
    _factors(chain)
    numbers = (*n.a, *n.z, n.slope, *n.p_sides, *n.r_sides)
    note = "Before the step; neurons 1 and 2 are on the sides of class + and class -."
    targets = {str(letter): Target("sides", letter, (*n.a, *n.z, n.slope, *n.r_sides), note) for letter in n.m_sides}
    targets |= {str(letter): Target(FACTORS, letter, numbers, note) for letter in n.S_sides}
    moved = (*n.a, *n.z)
    after = {f"{now}'": Target(FACTORS, then, (*numbers, n.eta)) for now, then in zip(moved, _LATER, strict=True)}
    return targets | after


_LATER = (*n.a_next, *n.z_next)


def _along(j: int) -> sp.Expr:
    """w_j . xh, xh the direction of class +."""
    return (n.W.row(j) * n.DIRECTION)[0]


def _network(chain: Chain) -> None:
    """The outputs on a point of each class, at r_+ xh and -r_- xh."""
    outputs = {}
    for output, norm, sign in zip(n.f_sides, n.r_sides, SIGNS, strict=True):
        seen = [sign * norm * _along(j) for j in n.NEURONS]
        outputs[output] = sum((n.z[j] * sp.Max(seen[j], n.slope * seen[j]) for j in n.NEURONS), sp.S.Zero)

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # Between opposite points the even part of the activation is (1 - slope)|s|, the odd part (1 + slope) s.
        plus, minus = (own(output) / norm for output, norm in zip(n.f_sides, n.r_sides, strict=True))
        even = sum((n.z[j] * (1 - n.slope) * sp.Abs(_along(j)) for j in n.NEURONS), sp.S.Zero)
        odd = sum((n.z[j] * (1 + n.slope) * _along(j) for j in n.NEURONS), sp.S.Zero)
        return [plus + minus - even, plus - minus - odd]

    chain.add(
        "network",
        "Two neurons of a leaky ReLU max(s, slope s), their outputs on a point of each of two antipodal classes.",
        outputs,
        verify,
        domain=RANGE,
        reference="(22.1)",
    )


def _sides(chain: Chain) -> None:
    vectors = [COORDINATES[j] * n.DIRECTION + n.b[j] * n.ACROSS for j in n.NEURONS]
    values = {weight: part for j in n.NEURONS for weight, part in zip(n.W.row(j), vectors[j], strict=True)}
    sums = {letter: COORDINATES[j] * n.z[j] for j, letter in enumerate(n.U_sides)}
    margins = {n.m_sides[c]: n.r_sides[c] * (n.U_sides[c] + n.slope * n.U_sides[1 - c]) for c in n.NEURONS}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        weights = {weight: own(weight) for weight in values}
        whole = [own(margin).subs({letter: own(letter) for letter in sums}) for margin in margins]
        outputs = [sign * earlier(output).subs(weights) for sign, output in zip(SIGNS, n.f_sides, strict=True)]
        split = []
        for j in n.NEURONS:
            vector = sp.Matrix([own(weight) for weight in n.W.row(j)])
            split += [vector.dot(n.DIRECTION) - COORDINATES[j], vector.dot(n.ACROSS) - n.b[j]]
        return [*(margin - output for margin, output in zip(whole, outputs, strict=True)), *split]

    chain.add(
        "sides",
        "Neuron 1 is on the side of class +, neuron 2 on that of class -; each side counts in the other's margin with the "
        "weight slope.",
        {**values, **sums, **margins},
        verify,
        domain=RANGE,
        reference="(22.1)",
    )


def _weight(known: Known, letters: tuple[sp.Symbol, ...]) -> dict[sp.Symbol, sp.Expr]:
    return {letter: known(letter) for letter in letters}


def _in_weights(expression: sp.Expr, known: Known) -> sp.Expr:
    """`expression` with the letters of the margins and of the two sums replaced by their values, and g by its formula."""
    for letters in (n.m_sides, n.U_sides):
        expression = expression.subs({letter: known(letter, "sides") for letter in letters}, simultaneous=True)
    return without_g(expression, known)


def _pushes(chain: Chain) -> None:
    pulls = [p * r * n.g(m) for p, r, m in zip(n.p_sides, n.r_sides, n.m_sides, strict=True)]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Minus the slope of the loss of the network in z_j, which is a_j times the speed, and along the class.
        total = sp.S.Zero
        for p, sign, output in zip(n.p_sides, SIGNS, n.f_sides, strict=True):
            total += p * earlier(n.ell(n.m)).subs(n.m, sign * earlier(output))
        weights = _weight(earlier, tuple(n.W))
        rates = []
        for j in n.NEURONS:
            push = _in_weights(own(n.S_sides[j]), earlier)
            way = dict(zip(n.W.row(j), n.DIRECTION, strict=True))
            rates += [(push * COORDINATES[j], n.z[j]), (push * n.z[j], way)]
        return descends(earlier, total, rates, at=weights)

    chain.add(
        PUSHES,
        "The class in front pulls a neuron with p r g, the class behind it with slope times that: the neurons of a side run "
        "at one speed, da/dt = S z and dz/dt = S a.",
        {n.S_sides[c]: pulls[c] + n.slope * pulls[1 - c] for c in n.NEURONS},
        verify,
        domain=RANGE,
        reference="(22.1)",
    )


def _step(chain: Chain) -> None:
    moved = {}
    for j in n.NEURONS:
        moved[n.a_next[j]] = n.a[j] + SIGNS[j] * n.eta * n.S_sides[j] * n.z[j]
        moved[n.z_next[j]] = n.z[j] + n.eta * n.S_sides[j] * COORDINATES[j]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The step is eta times the flow, whose sums and differences grow at the speed S of the side, and fall at it.
        residuals = []
        for j in n.NEURONS:
            push, now = n.eta * n.S_sides[j], (COORDINATES[j], n.z[j])
            then = (SIGNS[j] * own(n.a_next[j]), own(n.z_next[j]))
            residuals += [then[0] + s * then[1] - (now[0] + s * now[1]) * (1 + s * push) for s in (1, -1)]
        return residuals

    chain.add(STEP, "A step of size eta of descent.", moved, verify)


def _factors(chain: Chain) -> None:
    names = tuple(zip(n.F_grow, n.F_fall, n.S_sides, strict=True))
    factors = {letter: 1 + s * n.eta * push for grow, fall, push in names for letter, s in ((grow, 1), (fall, -1))}
    margins = {letter: without_g(chain.known(letter, PUSHES), chain.known) for letter in n.S_sides}
    after = {}
    for j in n.NEURONS:
        grown = n.F_grow[j] * (COORDINATES[j] + n.z[j])
        fallen = n.F_fall[j] * (COORDINATES[j] - n.z[j])
        after |= {n.a_next[j]: SIGNS[j] * (grown + fallen) / 2, n.z_next[j]: (grown - fallen) / 2}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = [own(letter) - without_g(earlier(letter, PUSHES), earlier) for letter in n.S_sides]
        for j in n.NEURONS:
            place = {letter: own(letter) for letter in (n.F_grow[j], n.F_fall[j])}
            for letter in (n.a_next[j], n.z_next[j]):
                residuals.append(own(letter).subs(place) - earlier(letter, STEP))
            for letter, s in ((n.F_grow[j], 1), (n.F_fall[j], -1)):
                now = COORDINATES[j] + s * n.z[j]
                then = SIGNS[j] * earlier(n.a_next[j], STEP) + s * earlier(n.z_next[j], STEP)
                residuals.append(own(letter) * now - then)
        return residuals

    chain.add(
        FACTORS,
        "So a step multiplies a + z of every neuron of a side by 1 + eta S and a - z by 1 - eta S, a being its coordinate "
        "along class +: two numbers for each side, whatever the width. While eta S < 1 the sign of a + z is kept.",
        {**margins, **factors, **after},
        verify,
        domain=RANGE,
        reference="(22.1)",
    )
