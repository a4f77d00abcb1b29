"""A core feature and a shortcut that a minority contradicts: majority and minority, and the limit of the shortcut.

From the read-out and the loss to the pair of equations (20.1), the clocks for equal norms (20.2), and the limits for each
loss.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, without_g
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derives
from gradstarve.symbolic._opening import cite_loss, total_loss

PAIR, CELLS, CLOCKS, END, PEAK = "pair of features", "majority and minority", "equal norms", "end", "peak"
RATES = (n.rate(n.core_of), n.rate(n.side_of))
CELL_RATES = (n.rate(n.majority_of), n.rate(n.minority_of))
LETTERS = (n.core, n.side)
MARGINS = {n.majority: n.core + n.side, n.minority: n.core - n.side}
SHARES = {n.majority: n.p, n.minority: 1 - n.p}
SHARE: Domain = {n.p: (sp.Rational(11, 20), sp.Rational(19, 20))}
EARLY: Domain = SHARE | {n.core: (sp.Rational(1, 5), sp.Rational(2, 5)), n.side: (sp.Rational(1, 10), sp.Rational(1, 5))}
"""Ranges of logits below the margin of the hinge loss for every sample: beyond it all rates are 0."""
EARLY |= dict.fromkeys((n.majority, n.minority), (sp.Rational(1, 10), sp.Rational(9, 10)))
SMALLER: Domain = SHARE | {n.r_core: (1, 2), n.r_side: (sp.Rational(1, 10), 1)}
"""A shortcut smaller than the core."""
NUMBERS = (n.p, n.r_core, n.r_side)


@derives(name="shortcut", equation="20.1-20.4", title="A shortcut with a minority")
def shortcut(chain: Chain, loss: str) -> dict[str, Target]:
    """A core feature and a shortcut that a minority contradicts: majority and minority (20.1), two clocks for equal norms
    (20.2), and the peak and the limit of the shortcut (20.3), (20.4).
    """
    cite_loss(chain, loss)
    _samples(chain)
    _pair(chain)
    _cells(chain)
    _equal_norms(chain)
    return BY_LOSS[loss](chain)


def _samples(chain: Chain) -> None:
    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # Rows are samples, columns are features; the read-out has the components v/r.
        points = sp.Matrix([[n.r_core, n.r_side], [n.r_core, -n.r_side]])
        outputs = points * sp.Matrix([n.core / n.r_core, n.side / n.r_side])
        return [own(margin) - output for margin, output in zip(MARGINS, outputs, strict=True)]

    chain.add(
        "samples",
        "Samples are y (r_c e_1 + s r_s e_2) with s = +1 on a share p and s = -1 on the others; v_c and v_s are the logits "
        "that a linear read-out gives to the core and to the shortcut, a and b the margins of majority and minority.",
        MARGINS,
        verify,
    )


def _pair(chain: Chain) -> None:
    def speed(v: sp.Symbol, norm: sp.Symbol) -> sp.Expr:
        return norm**2 * sum(SHARES[m] * n.g(margin) * sp.diff(margin, v) for m, margin in MARGINS.items())

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # The read-out's component v/r descends: dv/dt = r d(v/r)/dt = -r (dL/dv) r.
        total = total_loss(earlier, SHARES)
        pairs = zip(RATES, LETTERS, (n.r_core, n.r_side), strict=True)
        return [without_g(own(rate), earlier) + norm**2 * sp.diff(total, v) for rate, v, norm in pairs]

    chain.add(
        PAIR,
        "Steepest descent: both samples push the core forward, and the minority pushes the shortcut back.",
        {rate: speed(v, norm) for rate, v, norm in zip(RATES, LETTERS, (n.r_core, n.r_side), strict=True)},
        verify,
        domain=EARLY,
    )


def _cells(chain: Chain) -> None:
    plus, minus = n.r_core**2 + n.r_side**2, n.r_core**2 - n.r_side**2
    first, second = n.p * n.g(n.majority), (1 - n.p) * n.g(n.minority)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        core, side = (earlier(rate, PAIR) for rate in RATES)
        sums = (core + side, core - side)
        return [
            without_g(own(rate).subs(MARGINS) - total, earlier) for rate, total in zip(CELL_RATES, sums, strict=True)
        ]

    chain.add(
        CELLS,
        "Sum and difference: what the majority learns helps the minority if the core is the larger feature, and harms it "
        "if the shortcut is.",
        {CELL_RATES[0]: plus * first + minus * second, CELL_RATES[1]: minus * first + plus * second},
        verify,
        domain=EARLY,
        reference="(20.1)",
    )


def _equal_norms(chain: Chain) -> None:
    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        same = {n.r_core: n.r, n.r_side: n.r}
        return [without_g(own(rate) - earlier(rate, CELLS).subs(same), earlier) for rate in CELL_RATES]

    chain.add(
        CLOCKS,
        "With equal norms the samples of majority and minority are at right angles, and learn independently.",
        {
            CELL_RATES[0]: 2 * n.r**2 * n.p * n.g(n.majority),
            CELL_RATES[1]: 2 * n.r**2 * (1 - n.p) * n.g(n.minority),
        },
        verify,
        domain=EARLY,
        reference="(20.2)",
    )


def _clocks(chain: Chain, curve: Callable[[sp.Expr], sp.Expr], claim: str) -> dict[str, Target]:
    """Both margins in time for equal norms: `curve` of the clock 2 r^2 p t."""
    clocks = {n.majority: 2 * n.r**2 * n.p * n.t, n.minority: 2 * n.r**2 * (1 - n.p) * n.t}
    functions = {n.majority: n.majority_of, n.minority: n.minority_of}

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for margin, rate in zip(clocks, CELL_RATES, strict=True):
            found = own(functions[margin](n.t))
            speed = without_g(earlier(rate, CLOCKS), earlier).subs(margin, found)
            residuals += [sp.diff(found, n.t) - speed, found.subs(n.t, 0)]
        return residuals

    equations = {functions[margin](n.t): curve(clock) for margin, clock in clocks.items()}
    chain.add("clocks", claim, equations, verify, domain=SHARE, reference="(20.2)")
    note = "Equal norms r, from zero."
    return {
        "a(t)": Target("clocks", n.majority_of(n.t), (n.t, n.p, n.r), note),
        "b(t)": Target("clocks", n.minority_of(n.t), (n.t, n.p, n.r), note),
    }


def _late(known: Known, end: sp.Expr) -> sp.Expr:
    """The speed of the shortcut at v_s = `end` over e^(-v_c), for v_c to infinity."""
    small, odds = sp.symbols("e_c e_s", positive=True)  # e^(-v_c) and e^(v_s): in them it is a rational function
    rate = without_g(known(RATES[1], PAIR), known).subs({n.core: -sp.log(small), n.side: sp.log(odds)}, simultaneous=True)
    return sp.cancel(sp.together(rate / small)).subs(small, 0).subs(odds, sp.exp(end))


def _add_end(chain: Chain) -> None:
    chain.add(
        END,
        "Late in training both residuals fall as e^-m, and the pushes on the shortcut balance where e^(2 v_s) = p/(1-p), "
        "whatever the norms.",
        {n.side_end: sp.log(n.p / (1 - n.p)) / 2},
        lambda own, earlier: [_late(earlier, own(n.side_end))],
        domain=SHARE,
        reference="(20.3)",
    )


def cross_entropy_targets(chain: Chain) -> dict[str, Target]:
    """Cross-entropy: Lambert W for equal norms, and the end."""
    targets = _clocks(
        chain,
        lambda clock: clock + 1 - sp.LambertW(sp.exp(clock + 1)),
        "Each margin obeys the law of one layer: a + e^a = C with C = 2 r^2 p t + 1, solved with Lambert W.",
    )
    _add_end(chain)
    return {"v_s end": Target(END, n.side_end, (n.p,), "One or two layers.")} | targets


def exponential_targets(chain: Chain) -> dict[str, Target]:
    """Exponential loss: logarithms for equal norms, the end, and the orbit that leads to it for any norms."""
    targets = _clocks(chain, lambda clock: sp.log(1 + clock), "Each margin obeys the law of one layer: e^a = 1 + 2 r^2 p t.")
    _add_end(chain)
    end, ratio = n.side_end, n.r_core**2 / n.r_side**2
    orbit = n.core_of(n.side)

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        found = own(orbit).subs(end, earlier(end))
        core, side = (without_g(earlier(rate, PAIR), earlier) for rate in RATES)
        slope = sp.simplify(core * sp.exp(n.core)) / sp.simplify(side * sp.exp(n.core))
        return [sp.diff(found, n.side) - slope, found.subs(n.side, 0)]

    chain.add(
        "orbit",
        "The quotient of the two equations does not contain time: sinh(v_s_end - v_s) falls as a power of e^v_c, so that "
        "the norms decide the speed of the approach and not the limit.",
        {orbit: ratio * sp.log(sp.sinh(end) / sp.sinh(end - n.side))},
        verify,
        domain=SHARE | {n.side: (sp.Rational(1, 100), sp.Rational(1, 20))},
    )
    path = Target("orbit", orbit, (n.side, n.p, n.r_core, n.r_side), "From zero, for v_s below its end.")
    return {"v_s end": Target(END, end, (n.p,), "One or two layers."), "v_c(v_s)": path} | targets


def hinge_targets(chain: Chain) -> dict[str, Target]:
    """Hinge loss: straight lines to the peak, and back to the end."""

    def speeds(known: Known, active: tuple[int, int]) -> list[sp.Expr]:
        residuals = {n.g(margin): on for margin, on in zip(MARGINS.values(), active, strict=True)}
        return [known(rate, PAIR).subs(residuals) for rate in RATES]

    lead = 2 * n.p - 1
    core, side = n.r_core**2, n.r_side**2
    time = 1 / (core + lead * side)

    def verify_peak(own: Known, earlier: Known) -> list[sp.Expr]:
        forward, sideways = speeds(earlier, (1, 1))
        return [(forward + sideways) * own(n.t_peak) - 1, sideways * own(n.t_peak) - own(n.side_peak)]

    chain.add(
        PEAK,
        "Both logits grow in proportion to time until the majority reaches its margin; then only the minority pushes.",
        {n.t_peak: time, n.side_peak: lead * side * time},
        verify_peak,
        domain=SHARE,
        reference="(20.4)",
    )

    def verify_end(own: Known, earlier: Known) -> list[sp.Expr]:
        peak = earlier(n.t_peak)
        first, alone = speeds(earlier, (1, 1)), speeds(earlier, (0, 1))
        after = own(n.t_last) - peak
        ends = [before * peak + speed * after for before, speed in zip(first, alone, strict=True)]
        return [ends[0] - ends[1] - 1, ends[1] - own(n.side_end)]

    last = time + 2 * lead * side * time / ((1 - n.p) * (core + side))
    chain.add(
        END,
        "Where the shortcut is the smaller feature, the minority reaches its margin with a part of the shortcut left; "
        "nothing moves from then on. (Where it is the larger one, the majority slides along its margin, and v_s ends at 0.)",
        {n.t_last: last, n.side_end: lead * side * (core - side) / ((core + side) * (core + lead * side))},
        verify_end,
        domain=SMALLER,
        reference="(20.4)",
    )
    note = "One layer, from zero."
    return {
        "v_s end": Target(END, n.side_end, NUMBERS, note + " For r_s <= r_c; 0 beyond."),
        "v_s peak": Target(PEAK, n.side_peak, NUMBERS, note),
        "t peak": Target(PEAK, n.t_peak, NUMBERS, note),
        "t last": Target(END, n.t_last, NUMBERS, note + " For r_s <= r_c."),
    }


def squared_targets(chain: Chain) -> dict[str, Target]:
    """Squared loss: a difference of two exponentials, with its peak and its limit."""
    total = n.r_core**2 + n.r_side**2
    root = sp.sqrt(total**2 - 16 * n.p * (1 - n.p) * n.r_core**2 * n.r_side**2)
    slow, fast = (sp.exp(-(n.S_sum + sign * n.D_root) * n.t / 2) for sign in (-1, 1))
    curve = (2 * n.p - 1) * n.r_side**2 / n.D_root * (slow - fast)

    def system(known: Known) -> tuple[sp.Matrix, sp.Matrix]:
        rates = [without_g(known(rate, PAIR), known) for rate in RATES]
        return sp.linear_eq_to_matrix(rates, LETTERS)

    chain.add(
        END,
        "Both margins end at 1, which the core alone gives.",
        {n.core_end: 1, n.side_end: 0},
        lambda own, earlier: [
            without_g(earlier(rate, PAIR), earlier).subs({n.core: own(n.core_end), n.side: own(n.side_end)}) for rate in
        RATES ],
        domain=SHARE,
        reference="(20.5)",
    )

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        found, (matrix, constant) = own(n.side_of(n.t)), system(earlier)
        letters = {n.S_sum: own(n.S_sum), n.D_root: own(n.D_root)}
        # Cayley and Hamilton, about the rest v_s = 0.
        second = sp.diff(found, n.t, 2) - matrix.trace() * sp.diff(found, n.t) + matrix.det() * found
        begin = sp.diff(found, n.t).subs(n.t, 0) + constant[1]  # linear_eq_to_matrix has the constants on the right
        return [x.subs(letters) for x in (second, begin, found.subs(n.t, 0))]

    chain.add(
        "shortcut in time",
        "Two linear equations with two decay rates, (S - D)/2 and (S + D)/2, from v_s = 0 back to v_s = 0.",
        {n.S_sum: total, n.D_root: root, n.side_of(n.t): curve},
        verify,
        domain=SHARE,
    )

    def verify_peak(own: Known, earlier: Known) -> list[sp.Expr]:
        # For any S > D > 0.
        slope = sp.diff(earlier(n.side_of(n.t)), n.t)
        return [slope.subs(n.t, own(n.t_peak))]

    chain.add(
        PEAK,
        "The shortcut rises until t_peak and is unlearnt from then on.",
        {n.t_peak: 2 / n.D_root * sp.atanh(n.D_root / n.S_sum)},
        verify_peak,
        domain=SHARE | {n.D_root: (sp.Rational(1, 10), 1), n.S_sum: (1, 2)},
    )
    note = "One layer, from zero."
    return {
        "v_s(t)": Target("shortcut in time", n.side_of(n.t), (n.t, *NUMBERS), note),
        "t peak": Target(PEAK, n.t_peak, NUMBERS, note),
        "v_s end": Target(END, n.side_end, (), "Any number of layers."),
    }


BY_LOSS: dict[str, Callable[[Chain], dict[str, Target]]] = {
    "cross-entropy": cross_entropy_targets,
    "hinge": hinge_targets,
    "exponential": exponential_targets,
    "squared": squared_targets,
}
"""Loss -> the function that continues the chain for it."""
