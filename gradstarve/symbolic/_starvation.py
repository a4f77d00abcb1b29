"""Gradient starvation: feature 1 on every sample, feature 2 on some of them, and how far the second feature is learnt.

From the network and the loss to the pair of equations (10.1), for a linear read-out and, with one path of N layers for
each feature, at any depth; then the consequences of the pair for each loss, (10.2) to (10.5).
Both features have norm 1.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from gradstarve.symbolic import _notation as n
from gradstarve.symbolic._chain import Chain, expanded, without_g
from gradstarve.symbolic._derivation import Domain, Known, Target
from gradstarve.symbolic._derive import derive, derives
from gradstarve.symbolic._losses import while_learning
from gradstarve.symbolic._opening import cite_loss, descends, total_loss

PAIR = "pair of features"
DEEP_PAIR = "pair at depth N"
RATES = tuple(n.rate(function) for function in n.feature_of)

FIRST, SECOND = n.feature
TIME = (n.t, n.p_one, n.p_both)

EARLY: Domain = dict.fromkeys(n.feature, (sp.Rational(1, 10), sp.Rational(9, 20)))
"""Ranges of features below the margin of the hinge loss for every sample: beyond it all rates are 0."""


@derives(name="starvation", equation="10.1", title="Gradient starvation")
def starvation(chain: Chain, loss: str) -> dict[str, Target]:
    """A feature on every sample and one on some of them: how far the second is learnt (10.1)-(10.5)."""
    _samples(chain)
    cite_loss(chain, loss)
    _pair(chain)
    _deep_pair(chain, loss)
    return BY_LOSS[loss](chain)


def _samples(chain: Chain) -> None:
    first, second = n.feature

    def verify(own: Known, _: Known) -> list[sp.Expr]:
        # Rows are samples, columns are features.
        outputs = sp.Matrix([[1, 0], [1, 1]]) * sp.Matrix(n.feature)
        return [own(margin) - output for margin, output in zip(n.margins, outputs, strict=True)]

    chain.add(
        "samples",
        "A share p1 of the samples shows feature 1 alone, a share p12 shows both; the features are orthogonal and of "
        "norm 1, and v1, v2 are the logits that a linear read-out gives to them.",
        {n.margins[0]: first, n.margins[1]: first + second},
        verify,
    )


def _pair(chain: Chain) -> None:
    weights = dict(zip(n.margins, (n.p_one, n.p_both), strict=True))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        # Steepest descent of the loss itself.
        slopes = descends(earlier, total_loss(earlier, weights), zip(map(own, RATES), n.feature, strict=True))
        return [*slopes, own(n.q) * n.p_both - n.p_one]

    def force(v: sp.Symbol) -> sp.Expr:
        terms = [share * n.g(chain.known(margin)) * sp.diff(chain.known(margin), v) for margin, share in weights.items()]
        return sum(terms, sp.S.Zero)

    chain.add(
        PAIR,
        "Steepest descent: only samples with both features drive the second one, and they drive the first one as well.",
        {**{rate: force(v) for rate, v in zip(RATES, n.feature, strict=True)}, n.q: n.p_one / n.p_both},
        verify,
        domain=EARLY,
        reference="(10.1)",
    )


def _deep_pair(chain: Chain, loss: str) -> None:
    path = while_learning(derive("depth", loss).result["du/dt"].rhs).subs(n.r, 1)
    residual = while_learning(chain.known(n.g(n.m))).subs(n.m, n.u_positive)
    # The speed of a path of N layers under the force p g(u) on its output, for a point of norm 1.
    gain = sp.simplify(path / (n.p * residual))

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for rate, v in zip(RATES, n.feature, strict=True):
            # The force on a feature, in place of p g(u), in the equation of a path.
            force = without_g(earlier(rate, PAIR), earlier)
            residual = while_learning(earlier(n.g(n.m))).subs(n.m, v)
            residuals.append(without_g(own(rate), earlier) * n.p * residual - path.subs(n.u_positive, v) * force)
        return residuals

    chain.add(
        DEEP_PAIR,
        "With one balanced path of N layers for each feature, both speeds gain the factor derived for such a path.",
        {rate: gain.subs(n.u_positive, v) * chain.known(rate, PAIR) for rate, v in zip(RATES, n.feature, strict=True)},
        verify,
        domain=EARLY | {n.N: (1, 6)},
        reference="(10.1)",
    )


# From the pair of equations to the results for each loss, (10.2) to (10.5).
#
# Every function here continues a chain that ends with the pair (10.1) at any depth, and returns the results that it adds.


def _rates(known: Known, step: str = PAIR) -> list[sp.Expr]:
    return [without_g(known(rate, step), known) for rate in RATES]


def _shares(expression: sp.Expr) -> sp.Expr:
    """`expression` in the shares of the samples alone."""
    return expression.subs(n.q, n.p_one / n.p_both)


def exponential_targets(chain: Chain) -> dict[str, Target]:
    """Exponential loss: the orbit, its inverse with Lambert W, both features in time, and two layers with Ei."""
    first, second = _rates(chain.known)
    slope = sp.expand(sp.simplify(first / second)).subs(n.p_one, n.q * n.p_both)
    orbit_slope = sp.Derivative(n.feature_of[0](SECOND), SECOND)

    def verify_slope(own: Known, earlier: Known) -> list[sp.Expr]:
        first, second = _rates(earlier)
        return [_shares(own(orbit_slope)) * second - first]

    chain.add(
        "orbit",
        "The quotient of the two equations does not contain time, and the slope depends on v2 alone.",
        {orbit_slope: slope},
        verify_slope,
        reference="(10.2)",
    )
    relation = sp.integrate(slope, (SECOND, 0, SECOND))

    chain.add(
        "relation",
        "Integrated from the zero start: feature 1 grows exponentially with feature 2, so v2 grows only as log v1.",
        {n.feature_of[0](SECOND): relation},
        lambda own, earlier: [
            sp.diff(own(n.feature_of[0](SECOND)), SECOND) - earlier(orbit_slope),
            own(n.feature_of[0](SECOND)).subs(SECOND, 0),
        ],
        reference="(10.2)",
    )
    (inverse,) = sp.solve(sp.Eq(relation, FIRST), SECOND)

    chain.add(
        "inverse relation",
        "Solved for v2, with Lambert W.",
        {n.feature_of[1](FIRST): inverse},
        lambda own, earlier: [own(n.feature_of[1](FIRST)).subs(FIRST, earlier(n.feature_of[0](SECOND))) - SECOND],
        reference="(10.2)",
    )
    # With y = e^{v2} the second equation separates: y e^{q (y - 1)} dy = p12 dt, from y = 1 on.
    pace = second.subs(FIRST, relation).subs(SECOND, sp.log(n.x_var)) * n.x_var
    primitive = sp.integrate(sp.simplify(n.p_both / pace), n.x_var)
    elapsed = sp.simplify((primitive - primitive.subs(n.x_var, 1)) * sp.exp(n.q))
    (grown,) = sp.solve(sp.Eq(sp.expand(elapsed), n.p_both * n.t * sp.exp(n.q)), n.x_var)
    along = {FIRST: relation, SECOND: sp.log(n.x_var)}

    def verify_time(own: Known, earlier: Known) -> list[sp.Expr]:
        # Along the orbit the second equation holds; the first is the orbit.
        curve, orbit = own(n.x_var), earlier(n.feature_of[0](SECOND)).subs(SECOND, sp.log(n.x_var))
        rate = sp.powsimp(_rates(earlier)[1].subs({FIRST: orbit, SECOND: sp.log(n.x_var)}, simultaneous=True)) * n.x_var
        return [
            sp.diff(curve, n.t) - rate.subs(n.x_var, curve),
            curve.subs(n.t, 0) - 1,
            sp.exp(own(n.feature_of[1](n.t))) - n.x_var,
            own(n.feature_of[0](n.t)) - orbit,
        ]

    chain.add(
        "features in time",
        "The second equation, along the orbit, is separable in x = e^v2 and solved with Lambert W: v2 grows like log log t.",
        {
            n.x_var: sp.simplify(grown),
            n.feature_of[1](n.t): along[SECOND],
            n.feature_of[0](n.t): along[FIRST].subs(SECOND, along[SECOND]),
        },
        verify_time,
        reference="(10.2)",
    )
    _two_layers(chain, slope)
    ratio = sp.log(FIRST / n.feature_start[0])
    return {
        "v2(t)": Target("features in time", n.feature_of[1](n.t), (n.t, n.q, n.p_both), "From a zero start, one layer."),
        "v1(t)": Target("features in time", n.feature_of[0](n.t), (n.t, n.q, n.p_both), "From a zero start, one layer."),
        "v1(v2)": Target("relation", n.feature_of[0](SECOND), (SECOND, n.q), "From a zero start, one layer."),
        "v2(v1)": Target("inverse relation", n.feature_of[1](FIRST), (FIRST, n.q), "From a zero start, one layer."),
        "log(v1/v10)": Target("two layers", ratio, (SECOND, n.feature_start[1], n.q), "Valid for v2, v20 > 0, two layers."),
    }


def _two_layers(chain: Chain, slope: sp.Expr) -> None:
    primitive = sp.integrate(sp.expand(slope / SECOND), SECOND)
    ratio = sp.log(FIRST / n.feature_start[0])
    relation = primitive - primitive.subs(SECOND, n.feature_start[1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        first, second = (rate.subs(n.N, 2) for rate in _rates(earlier, DEEP_PAIR))
        return [
            _shares(sp.diff(own(ratio), SECOND)) * second - sp.diff(ratio, FIRST) * first,
            own(ratio).subs(SECOND, n.feature_start[1]),
        ]

    chain.add(
        "two layers",
        "Two balanced layers: the same slope between the logarithms of the features.",
        {ratio: relation},
        verify,
        reference="(10.5)",
    )


def hinge_targets(chain: Chain) -> dict[str, Target]:
    """Hinge loss: straight lines, and a second feature that stops for ever when samples with both reach the margin."""
    letters = sp.symbols("g1 g12", nonnegative=True)

    def speeds(known: Known, active: tuple[int, int]) -> list[sp.Expr]:
        residuals = {n.g(FIRST): letters[0], n.g(FIRST + SECOND): letters[1]}
        return [known(rate, PAIR).subs(residuals).subs(dict(zip(letters, active, strict=True))) for rate in RATES]

    (first, second), (alone, _) = (speeds(chain.known, active) for active in ((1, 1), (1, 0)))
    (freeze,) = sp.solve(sp.Eq((first + second) * n.t, 1), n.t)
    frozen = sp.simplify((second * freeze).subs(n.p_one, n.q * n.p_both))
    last = sp.factor(freeze + (1 - first * freeze) / alone)
    curves = (
        first * sp.Min(n.t, n.t_freeze) + alone * (sp.Min(n.t, n.t_last) - sp.Min(n.t, n.t_freeze)),
        second * sp.Min(n.t, n.t_freeze),
    )

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        times = {n.t_freeze: own(n.t_freeze), n.t_last: own(n.t_last)}
        whole = [own(function(n.t)) for function in n.feature_of]

        def at(moment: sp.Expr) -> list[sp.Expr]:
            return [curve.subs(n.t, moment).subs(times) for curve in whole]

        share = n.x_var  # between 0 and 1
        both, single = speeds(earlier, (1, 1)), speeds(earlier, (1, 0))
        middle = n.t_freeze + share * (n.t_last - n.t_freeze)
        stop = at(n.t_freeze)
        residuals = [x - v * (share * n.t_freeze).subs(times) for x, v in zip(at(share * n.t_freeze), both, strict=True)]
        residuals += [
            x - start - v * (middle - n.t_freeze).subs(times) for x, start, v in zip(at(middle), stop, single, strict=True)
        ]
        later = [x - end for x, end in zip(at(n.t_last + n.t), at(n.t_last), strict=True)]
        # The margins: of samples with both at the freeze, of the others at the end; the frozen value.
        limits = [sum(stop) - 1, at(n.t_last)[0] - 1, stop[1] - _shares(own(n.feature_of[1](n.t_freeze)))]
        return [*residuals, *later, *limits]

    chain.add(
        "freeze",
        "Both features grow in proportion to time until the samples with both reach the margin. From then on nothing "
        "drives feature 2, and feature 1 grows alone until its own samples reach the margin.",
        {
            n.t_freeze: freeze,
            n.t_last: last,
            n.feature_of[0](n.t): curves[0],
            n.feature_of[1](n.t): curves[1],
            n.feature_of[1](n.t_freeze): frozen,
        },
        verify,
        domain={n.x_var: (sp.Rational(1, 100), sp.Rational(99, 100))},
        reference="(10.3)",
    )
    note = "From a zero start, one layer."
    return {
        "v2(t)": Target("freeze", n.feature_of[1](n.t), TIME, note),
        "v1(t)": Target("freeze", n.feature_of[0](n.t), TIME, note),
        "t freeze": Target("freeze", n.t_freeze, (n.p_one, n.p_both), note),
        "v2 frozen": Target("freeze", n.feature_of[1](n.t_freeze), (n.q,), note),
    }


def _unless_positive(expression: sp.Expr) -> sp.Expr:
    """A residual: 0 if SymPy proves `expression` positive from the signs of its letters, otherwise 1."""
    return sp.S.Zero if expression.is_positive else sp.S.One


def _in_signs(expression: sp.Expr) -> sp.Expr:
    """`expression` as a product of factors with visible signs: e^v - 1 is 2 e^{v/2} sinh(v/2)."""
    half = SECOND / 2
    return sp.factor(expression).subs(sp.exp(SECOND) - 1, 2 * sp.exp(half) * sp.sinh(half))


def _rational(expression: sp.Expr) -> sp.Expr:
    """`expression` with e^{v1} and e^{v2/2} as letters, so that it vanishes as a rational function."""
    first, second = sp.symbols("e1 e2", positive=True)
    return expression.rewrite(sp.exp).subs({FIRST: sp.log(first), SECOND: 2 * sp.log(second)})


def cross_entropy_targets(chain: Chain) -> dict[str, Target]:
    """Cross-entropy: two differences that only grow keep v2 between two curves, with one layer and with more."""
    first, second = (rate.subs(n.p_one, n.q * n.p_both) for rate in _rates(chain.known))
    gaps = (FIRST - (1 + n.q) * SECOND, SECOND + n.q * (sp.exp(SECOND) - 1) - FIRST)
    speeds = tuple(n.rate(function) for function in n.Delta_of)

    def growth(gap: sp.Expr, first: sp.Expr, second: sp.Expr) -> sp.Expr:
        return sp.diff(gap, FIRST) * first + sp.diff(gap, SECOND) * second

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, speed in zip(n.Delta_of, speeds, strict=True):
            gap = _shares(own(function(n.t)))
            residuals += [
                _rational(_shares(own(speed)) - growth(gap, *_rates(earlier))),
                gap.subs({FIRST: 0, SECOND: 0}),
                _unless_positive(own(speed)),
            ]
        # Feature 2 grows at all times, so it is positive, as the assumptions of its symbol say.
        return [*residuals, _unless_positive(_rates(earlier)[1])]

    chain.add(
        "two gaps",
        "Two differences start at 0 and only grow, because v2 > 0: each speed is a product of positive factors.",
        {
            **{function(n.t): gap for function, gap in zip(n.Delta_of, gaps, strict=True)},
            **{speed: _in_signs(growth(gap, first, second)) for speed, gap in zip(speeds, gaps, strict=True)},
        },
        verify,
        reference="(10.4)",
    )
    (high,), (low,) = (sp.solve(sp.expand(gap), SECOND) for gap in gaps)

    def verify_bounds(own: Known, earlier: Known) -> list[sp.Expr]:
        upper, lower = (earlier(function(n.t)) for function in n.Delta_of)
        falling, rising = sp.diff(upper, SECOND), sp.diff(lower, SECOND)
        return [
            upper.subs(SECOND, own(n.v2_high)),
            lower.subs(SECOND, own(n.v2_low)),
            _unless_positive(-falling),
            _unless_positive(rising),
        ]

    chain.add(
        "two bounds",
        "The first difference falls with v2 and the second rises: so v2 stays below the zero of the first and above that "
        "of the second, at every time.",
        {n.v2_high: high, n.v2_low: low},
        verify_bounds,
        reference="(10.4)",
    )
    _deep_gap(chain, growth)
    note = "From a zero start, one layer, any time."
    return {
        "v2 low": Target("two bounds", n.v2_low, (FIRST, n.q), note),
        "v2 high": Target("two bounds", n.v2_high, (FIRST, n.q), note),
    }


def _deep_gap(chain: Chain, growth: Callable[[sp.Expr, sp.Expr, sp.Expr], sp.Expr]) -> None:
    power = 2 / n.N - 1
    first, second = ((v**power - start**power) / power for v, start in zip(n.feature, n.feature_start, strict=True))
    gap = first - (1 + n.q) * second
    difference, moving = n.Delta_of[0](n.N, n.t), sp.Derivative(n.Delta_of[0](n.N, n.t), n.t)
    first, second = (rate.subs(n.p_one, n.q * n.p_both) for rate in _rates(chain.known))
    slope = n.N * _in_signs(growth(FIRST - (1 + n.q) * SECOND, first, second))
    logarithms = sp.log(FIRST / n.feature_start[0]) - (1 + n.q) * sp.log(SECOND / n.feature_start[1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        def speed(gap: sp.Expr, depth: sp.Expr) -> sp.Expr:
            # First the powers of each feature, which cancel; then g, a rational function of exponentials.
            total = sp.S.Zero
            for v, rate, shallow in zip(n.feature, RATES, _rates(earlier), strict=True):
                gain = (earlier(rate, DEEP_PAIR) / earlier(rate, PAIR)).subs(n.N, depth)
                total += sp.powsimp(sp.expand(sp.simplify(sp.diff(gap, v) * gain))) * shallow
            return total

        claimed, start = own(moving), dict(zip(n.feature, n.feature_start, strict=True))
        residuals = [_unless_positive(claimed)]
        for depth, gap in ((n.N, _shares(own(difference))), (sp.Integer(2), _shares(own(n.Delta_of[0](2, n.t))))):
            residuals += [_rational(_shares(claimed).subs(n.N, depth) - speed(gap, depth)), gap.subs(start)]
        return residuals

    chain.add(
        "depth N",
        "At depth N the same holds for powers of the features, and for their logarithms when N = 2: the difference starts "
        "at 0 and grows, so that depth makes the second feature worse off.",
        {difference: gap, n.Delta_of[0](2, n.t): logarithms, moving: slope},
        verify,
        domain={n.N: (sp.Rational(5, 2), 6)},
        reference="(10.5)",
    )


def squared_targets(chain: Chain) -> dict[str, Target]:
    """Squared loss: two linear equations; feature 2 rises, and is then unlearnt to the end."""
    matrix, constant = sp.linear_eq_to_matrix(_rates(chain.known), n.feature)
    rest = sp.simplify(matrix.LUsolve(constant))
    spread, root = -matrix.trace(), sp.sqrt(sp.factor(sp.expand(matrix.trace() ** 2 - 4 * matrix.det())))
    # Cayley and Hamilton: as A + S/2 squared is D^2/4, the exponential has two terms, with rates (S - D)/2, (S + D)/2.
    centred = sp.simplify(matrix + spread / 2 * sp.eye(2)) * 2 / n.D_root
    slow, fast = (sp.exp(-(n.S_sum + sign * n.D_root) * n.t / 2) for sign in (-1, 1))
    curves = rest - ((sp.eye(2) + centred) * slow + (sp.eye(2) - centred) * fast) * rest / 2
    curves = [sp.collect(sp.expand(curve, power_exp=False), (slow, fast)) for curve in curves]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        letters = {n.S_sum: own(n.S_sum), n.D_root: own(n.D_root)}
        whole = [expanded(own(function(n.t)), letters) for function in n.feature_of]
        place = dict(zip(n.feature, whole, strict=True))
        residuals = [
            sp.diff(curve, n.t) - rate.subs(place, simultaneous=True)
            for curve, rate in zip(whole, _rates(earlier), strict=True)
        ]
        return residuals + [curve.subs(n.t, 0) for curve in whole]

    chain.add(
        "features in time",
        "Two linear equations with two decay rates, (S - D)/2 and (S + D)/2; all the error is left to feature 1 in the end.",
        {
            n.S_sum: spread,
            n.D_root: root,
            **{function(n.t): curve for function, curve in zip(n.feature_of, curves, strict=True)},
        },
        verify,
    )

    def verify_peak(own: Known, earlier: Known) -> list[sp.Expr]:
        # For any S > D > 0.
        slope = sp.diff(earlier(n.feature_of[1](n.t)), n.t)
        return [slope.subs(n.t, own(n.t_peak)), earlier(n.S_sum) ** 2 - earlier(n.D_root) ** 2 - 4 * n.p_one * n.p_both]

    chain.add(
        "unlearning",
        "Feature 2 rises until t_peak and falls back to 0 from there: it is unlearnt.",
        {n.t_peak: 2 / n.D_root * sp.atanh(n.D_root / n.S_sum)},
        verify_peak,
        domain={n.D_root: (sp.Rational(1, 10), 1), n.S_sum: (1, 2)},
    )
    note = "From a zero start, one layer."
    return {
        "v2(t)": Target("features in time", n.feature_of[1](n.t), TIME, note),
        "v1(t)": Target("features in time", n.feature_of[0](n.t), TIME, note),
        "t peak": Target("unlearning", n.t_peak, (n.p_one, n.p_both), note),
    }


BY_LOSS: dict[str, Callable[[Chain], dict[str, Target]]] = {
    "cross-entropy": cross_entropy_targets,
    "hinge": hinge_targets,
    "exponential": exponential_targets,
    "squared": squared_targets,
}
"""Loss -> the function that continues the chain for it."""
