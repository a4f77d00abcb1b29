"""Gradient starvation: feature 1 on every sample, feature 2 on some of them, and what the second is left with.

From the network and the loss to the pair of equations (10.1), for a linear read-out and, with one path of N layers for
each feature, at any depth. What follows from the pair for each loss, (10.2) to (10.5), stands here too.
Both features have norm 1.
"""

# SymPy's inline types are coarser than its values: Basic for an Expr, unions for what `dsolve` returns.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportReturnType=false

from __future__ import annotations

from collections.abc import Callable

import sympy as sp

from gradstarve.symbolic._derivation import (
    Chain,
    Derivation,
    Domain,
    Known,
    Target,
    derive,
    equal,
    expanded,
    while_learning,
    without_g,
)
from gradstarve.symbolic._losses import LOSSES
from gradstarve.symbolic._notation import (
    D_root,
    Delta_of,
    N,
    S_sum,
    ell,
    feature,
    feature_of,
    feature_start,
    g,
    m,
    margins,
    p,
    p_both,
    p_one,
    q,
    r,
    t,
    t_freeze,
    t_last,
    t_peak,
    u_positive,
    v2_high,
    v2_low,
    x_var,
)

__all__ = ["LOSSES", "build"]


# From the pair of equations of two features to what each loss makes of it, (10.2) to (10.5).
#
# Every function here continues a chain that ends with the pair (10.1) at any depth, and returns the results it adds.

PAIR = "pair of features"
DEEP_PAIR = "pair at depth N"
RATES = tuple(sp.Derivative(function(t), t) for function in feature_of)

FIRST, SECOND = feature
TIME = (t, p_one, p_both)


def _rates(known: Known, step: str = PAIR) -> list[sp.Expr]:
    return [without_g(known(rate, step), known) for rate in RATES]


def _shares(expression: sp.Expr) -> sp.Expr:
    """`expression` in the shares of the samples alone."""
    return expression.subs(q, p_one / p_both)


def exponential_targets(chain: Chain) -> dict[str, Target]:
    """Exponential loss: the orbit, its inverse with Lambert W, both features in time, and two layers with Ei."""
    first, second = _rates(chain.known)
    slope = sp.expand(sp.simplify(first / second)).subs(p_one, q * p_both)
    orbit_slope = sp.Derivative(feature_of[0](SECOND), SECOND)

    def verify_slope(own: Known, earlier: Known) -> list[sp.Expr]:
        first, second = _rates(earlier)
        return [_shares(own(orbit_slope)) * second - first]

    chain.add(
        "orbit",
        "Divided by each other, the two equations lose the time, and the slope depends on v2 alone.",
        equal(orbit_slope, slope),
        verify_slope,
        reference="(10.2)",
    )
    relation = sp.integrate(slope, (SECOND, 0, SECOND))

    chain.add(
        "relation",
        "Integrated from the zero start: feature 1 grows exponentially with feature 2, so v2 only with log v1.",
        equal(feature_of[0](SECOND), relation),
        lambda own, earlier: [
            sp.diff(own(feature_of[0](SECOND)), SECOND) - earlier(orbit_slope),
            own(feature_of[0](SECOND)).subs(SECOND, 0),
        ],
        reference="(10.2)",
    )
    (inverse,) = sp.solve(sp.Eq(relation, FIRST), SECOND)

    chain.add(
        "inverse relation",
        "Solved for v2, with Lambert W.",
        equal(feature_of[1](FIRST), inverse),
        lambda own, earlier: [own(feature_of[1](FIRST)).subs(FIRST, earlier(feature_of[0](SECOND))) - SECOND],
        reference="(10.2)",
    )
    # With y = e^{v2} the second equation separates: y e^{q (y - 1)} dy = p12 dt, from y = 1 on.
    pace = second.subs(FIRST, relation).subs(SECOND, sp.log(x_var)) * x_var
    primitive = sp.integrate(sp.simplify(p_both / pace), x_var)
    elapsed = sp.simplify((primitive - primitive.subs(x_var, 1)) * sp.exp(q))
    (grown,) = sp.solve(sp.Eq(sp.expand(elapsed), p_both * t * sp.exp(q)), x_var)
    along = {FIRST: relation, SECOND: sp.log(x_var)}

    def verify_time(own: Known, earlier: Known) -> list[sp.Expr]:
        # Along the orbit the second equation holds; the first is the orbit.
        curve, orbit = own(x_var), earlier(feature_of[0](SECOND)).subs(SECOND, sp.log(x_var))
        rate = sp.powsimp(_rates(earlier)[1].subs({FIRST: orbit, SECOND: sp.log(x_var)}, simultaneous=True)) * x_var
        return [
            sp.diff(curve, t) - rate.subs(x_var, curve),
            curve.subs(t, 0) - 1,
            sp.exp(own(feature_of[1](t))) - x_var,
            own(feature_of[0](t)) - orbit,
        ]

    chain.add(
        "features in time",
        "The second equation, along the orbit, is separable in x = e^v2 and solved with Lambert W: v2 grows like log log t.",
        (
            equal(x_var, sp.simplify(grown)),
            equal(feature_of[1](t), along[SECOND]),
            equal(feature_of[0](t), along[FIRST].subs(SECOND, along[SECOND])),
        ),
        verify_time,
        reference="(10.2)",
    )
    _two_layers(chain, slope)
    ratio = sp.log(FIRST / feature_start[0])
    return {
        "v2(t)": Target("features in time", feature_of[1](t), (t, q, p_both), "From a zero start, one layer."),
        "v1(t)": Target("features in time", feature_of[0](t), (t, q, p_both), "From a zero start, one layer."),
        "v1(v2)": Target("relation", feature_of[0](SECOND), (SECOND, q), "From a zero start, one layer."),
        "v2(v1)": Target("inverse relation", feature_of[1](FIRST), (FIRST, q), "From a zero start, one layer."),
        "log(v1/v10)": Target("two layers", ratio, (SECOND, feature_start[1], q), "Valid for v2, v20 > 0, two layers."),
    }


def _two_layers(chain: Chain, slope: sp.Expr) -> None:
    primitive = sp.integrate(sp.expand(slope / SECOND), SECOND)
    ratio = sp.log(FIRST / feature_start[0])
    relation = primitive - primitive.subs(SECOND, feature_start[1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        first, second = (rate.subs(N, 2) for rate in _rates(earlier, DEEP_PAIR))
        return [
            _shares(sp.diff(own(ratio), SECOND)) * second - sp.diff(ratio, FIRST) * first,
            own(ratio).subs(SECOND, feature_start[1]),
        ]

    chain.add(
        "two layers",
        "Two balanced layers: the same slope between the logarithms of the features.",
        equal(ratio, relation),
        verify,
        reference="(10.5)",
    )


def hinge_targets(chain: Chain) -> dict[str, Target]:
    """Hinge loss: straight lines, and a second feature that stops for ever when the samples with both reach the margin."""
    letters = sp.symbols("g1 g12", nonnegative=True)

    def speeds(known: Known, active: tuple[int, int]) -> list[sp.Expr]:
        residuals = {g(FIRST): letters[0], g(FIRST + SECOND): letters[1]}
        return [known(rate, PAIR).subs(residuals).subs(dict(zip(letters, active, strict=True))) for rate in RATES]

    (first, second), (alone, _) = (speeds(chain.known, active) for active in ((1, 1), (1, 0)))
    (freeze,) = sp.solve(sp.Eq((first + second) * t, 1), t)
    frozen = sp.simplify((second * freeze).subs(p_one, q * p_both))
    last = sp.factor(freeze + (1 - first * freeze) / alone)
    curves = (
        first * sp.Min(t, t_freeze) + alone * (sp.Min(t, t_last) - sp.Min(t, t_freeze)),
        second * sp.Min(t, t_freeze),
    )

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        times = {t_freeze: own(t_freeze), t_last: own(t_last)}
        whole = [own(function(t)) for function in feature_of]

        def at(moment: sp.Expr) -> list[sp.Expr]:
            return [curve.subs(t, moment).subs(times) for curve in whole]

        share = x_var  # between 0 and 1
        both, single = speeds(earlier, (1, 1)), speeds(earlier, (1, 0))
        middle = t_freeze + share * (t_last - t_freeze)
        stop = at(t_freeze)
        residuals = [x - v * (share * t_freeze).subs(times) for x, v in zip(at(share * t_freeze), both, strict=True)]
        residuals += [
            x - start - v * (middle - t_freeze).subs(times) for x, start, v in zip(at(middle), stop, single, strict=True)
        ]
        later = [x - end for x, end in zip(at(t_last + t), at(t_last), strict=True)]
        # The margins: of samples with both at the freeze, of the others at the end; the frozen value.
        limits = [sum(stop) - 1, at(t_last)[0] - 1, stop[1] - _shares(own(feature_of[1](t_freeze)))]
        return [*residuals, *later, *limits]

    chain.add(
        "freeze",
        "Both features grow in proportion to time until the samples with both reach their margin. From then on nothing "
        "feeds feature 2, and feature 1 goes on alone until its own samples reach theirs.",
        (
            equal(t_freeze, freeze),
            equal(t_last, last),
            equal(feature_of[0](t), curves[0]),
            equal(feature_of[1](t), curves[1]),
            equal(feature_of[1](t_freeze), frozen),
        ),
        verify,
        domain={x_var: (sp.Rational(1, 100), sp.Rational(99, 100))},
        reference="(10.3)",
    )
    note = "From a zero start, one layer."
    return {
        "v2(t)": Target("freeze", feature_of[1](t), TIME, note),
        "v1(t)": Target("freeze", feature_of[0](t), TIME, note),
        "t freeze": Target("freeze", t_freeze, (p_one, p_both), note),
        "v2 frozen": Target("freeze", feature_of[1](t_freeze), (q,), note),
    }


def _unless_positive(expression: sp.Expr) -> sp.Expr:
    """A residual: 0 if SymPy proves `expression` positive from the signs of its letters, otherwise 1."""
    return sp.S.Zero if expression.is_positive else sp.S.One


def _in_signs(expression: sp.Expr) -> sp.Expr:
    """`expression` as a product of factors whose signs show: e^v - 1 is 2 e^{v/2} sinh(v/2)."""
    half = SECOND / 2
    return sp.factor(expression).subs(sp.exp(SECOND) - 1, 2 * sp.exp(half) * sp.sinh(half))


def _rational(expression: sp.Expr) -> sp.Expr:
    """`expression` with e^{v1} and e^{v2/2} as letters: what then vanishes does so as a rational function."""
    first, second = sp.symbols("e1 e2", positive=True)
    return expression.rewrite(sp.exp).subs({FIRST: sp.log(first), SECOND: 2 * sp.log(second)})


def cross_entropy_targets(chain: Chain) -> dict[str, Target]:
    """Cross-entropy: two gaps that never close hold v2 between two curves, at one layer and deeper."""
    first, second = (rate.subs(p_one, q * p_both) for rate in _rates(chain.known))
    gaps = (FIRST - (1 + q) * SECOND, SECOND + q * (sp.exp(SECOND) - 1) - FIRST)
    speeds = tuple(sp.Derivative(function(t), t) for function in Delta_of)

    def growth(gap: sp.Expr, first: sp.Expr, second: sp.Expr) -> sp.Expr:
        return sp.diff(gap, FIRST) * first + sp.diff(gap, SECOND) * second

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        residuals = []
        for function, speed in zip(Delta_of, speeds, strict=True):
            gap = _shares(own(function(t)))
            residuals += [
                _rational(_shares(own(speed)) - growth(gap, *_rates(earlier))),
                gap.subs({FIRST: 0, SECOND: 0}),
                _unless_positive(own(speed)),
            ]
        # Feature 2 grows at all times, so that it is positive, as the letters say.
        return [*residuals, _unless_positive(_rates(earlier)[1])]

    chain.add(
        "two gaps",
        "Two differences start at 0 and only grow, because v2 > 0: each speed is a product of positive factors.",
        (
            *(equal(function(t), gap) for function, gap in zip(Delta_of, gaps, strict=True)),
            *(equal(speed, _in_signs(growth(gap, first, second))) for speed, gap in zip(speeds, gaps, strict=True)),
        ),
        verify,
        reference="(10.4)",
    )
    (high,), (low,) = (sp.solve(sp.expand(gap), SECOND) for gap in gaps)

    def verify_bounds(own: Known, earlier: Known) -> list[sp.Expr]:
        upper, lower = (earlier(function(t)) for function in Delta_of)
        falling, rising = sp.diff(upper, SECOND), sp.diff(lower, SECOND)
        return [
            upper.subs(SECOND, own(v2_high)),
            lower.subs(SECOND, own(v2_low)),
            _unless_positive(-falling),
            _unless_positive(rising),
        ]

    chain.add(
        "two bounds",
        "The first difference falls with v2 and the second rises: so v2 stays below the zero of the first and above that "
        "of the second, at every time.",
        (equal(v2_high, high), equal(v2_low, low)),
        verify_bounds,
        reference="(10.4)",
    )
    _deep_gap(chain, growth)
    note = "From a zero start, one layer, any time."
    return {
        "v2 low": Target("two bounds", v2_low, (FIRST, q), note),
        "v2 high": Target("two bounds", v2_high, (FIRST, q), note),
    }


def _deep_gap(chain: Chain, growth: Callable[[sp.Expr, sp.Expr, sp.Expr], sp.Expr]) -> None:
    power = 2 / N - 1
    first, second = ((v**power - start**power) / power for v, start in zip(feature, feature_start, strict=True))
    gap = first - (1 + q) * second
    difference, moving = Delta_of[0](N, t), sp.Derivative(Delta_of[0](N, t), t)
    first, second = (rate.subs(p_one, q * p_both) for rate in _rates(chain.known))
    slope = N * _in_signs(growth(FIRST - (1 + q) * SECOND, first, second))
    logarithms = sp.log(FIRST / feature_start[0]) - (1 + q) * sp.log(SECOND / feature_start[1])

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        def speed(gap: sp.Expr, depth: sp.Expr) -> sp.Expr:
            # First the powers of each feature, which cancel; then g, a rational function of exponentials.
            total = sp.S.Zero
            for v, rate, shallow in zip(feature, RATES, _rates(earlier), strict=True):
                gain = (earlier(rate, DEEP_PAIR) / earlier(rate, PAIR)).subs(N, depth)
                total += sp.powsimp(sp.expand(sp.simplify(sp.diff(gap, v) * gain))) * shallow
            return total

        claimed, start = own(moving), dict(zip(feature, feature_start, strict=True))
        residuals = [_unless_positive(claimed)]
        for depth, gap in ((N, _shares(own(difference))), (sp.Integer(2), _shares(own(Delta_of[0](2, t))))):
            residuals += [_rational(_shares(claimed).subs(N, depth) - speed(gap, depth)), gap.subs(start)]
        return residuals

    chain.add(
        "depth N",
        "At depth N the same holds for powers of the features, and for their logarithms when N = 2: the difference starts "
        "at 0 and grows, so that depth makes the second feature worse off.",
        (equal(difference, gap), equal(Delta_of[0](2, t), logarithms), equal(moving, slope)),
        verify,
        domain={N: (sp.Rational(5, 2), 6)},
        reference="(10.5)",
    )


def squared_targets(chain: Chain) -> dict[str, Target]:
    """Squared loss: two linear equations; feature 2 rises, and is then unlearnt to the end."""
    matrix, constant = sp.linear_eq_to_matrix(_rates(chain.known), feature)
    rest = sp.simplify(matrix.LUsolve(constant))
    spread, root = -matrix.trace(), sp.sqrt(sp.factor(sp.expand(matrix.trace() ** 2 - 4 * matrix.det())))
    # Cayley and Hamilton: as A + S/2 squared is D^2/4, the exponential has two terms, with rates (S - D)/2, (S + D)/2.
    centred = sp.simplify(matrix + spread / 2 * sp.eye(2)) * 2 / D_root
    slow, fast = (sp.exp(-(S_sum + sign * D_root) * t / 2) for sign in (-1, 1))
    curves = rest - ((sp.eye(2) + centred) * slow + (sp.eye(2) - centred) * fast) * rest / 2
    curves = [sp.collect(sp.expand(curve, power_exp=False), (slow, fast)) for curve in curves]

    def verify(own: Known, earlier: Known) -> list[sp.Expr]:
        letters = {S_sum: own(S_sum), D_root: own(D_root)}
        whole = [expanded(own(function(t)), letters) for function in feature_of]
        place = dict(zip(feature, whole, strict=True))
        residuals = [
            sp.diff(curve, t) - rate.subs(place, simultaneous=True)
            for curve, rate in zip(whole, _rates(earlier), strict=True)
        ]
        return residuals + [curve.subs(t, 0) for curve in whole]

    chain.add(
        "features in time",
        "Two linear equations with two decay rates, (S - D)/2 and (S + D)/2; all the error is left to feature 1 in the end.",
        (
            equal(S_sum, spread),
            equal(D_root, root),
            *(equal(function(t), curve) for function, curve in zip(feature_of, curves, strict=True)),
        ),
        verify,
    )

    def verify_peak(own: Known, earlier: Known) -> list[sp.Expr]:
        # Whatever S and D are, and S is the larger.
        slope = sp.diff(earlier(feature_of[1](t)), t)
        return [slope.subs(t, own(t_peak)), earlier(S_sum) ** 2 - earlier(D_root) ** 2 - 4 * p_one * p_both]

    chain.add(
        "unlearning",
        "Feature 2 rises until t_peak and falls back to 0 from there: what it had learnt is taken away.",
        equal(t_peak, 2 / D_root * sp.atanh(D_root / S_sum)),
        verify_peak,
        domain={D_root: (sp.Rational(1, 10), 1), S_sum: (1, 2)},
    )
    note = "From a zero start, one layer."
    return {
        "v2(t)": Target("features in time", feature_of[1](t), TIME, note),
        "v1(t)": Target("features in time", feature_of[0](t), TIME, note),
        "t peak": Target("unlearning", t_peak, (p_one, p_both), note),
    }


BY_LOSS: dict[str, Callable[[Chain], dict[str, Target]]] = {
    "cross-entropy": cross_entropy_targets,
    "hinge": hinge_targets,
    "exponential": exponential_targets,
    "squared": squared_targets,
}
"""Loss -> the function that continues the chain for it."""


# The derivation.

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
