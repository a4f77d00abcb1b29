"""The laws that continue or stand beside the mode, against mpmath: numbers from definitions, not from the derivations."""

import mpmath
import pytest
import sympy as sp

from gradstarve.symbolic import derive

LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
SLOPES = {
    "cross-entropy": lambda v: 1 / (1 + mpmath.exp(v)),
    "hinge": lambda v: mpmath.mpf(v < 1),
    "exponential": lambda v: mpmath.exp(-v),
    "squared": lambda v: 1 - v,
}


def law(name, loss, key):
    """A result as a function of mpmath numbers, by keyword; its definitions are put in one after the other."""
    derivation = derive(name, loss)
    symbols = derivation.targets[key].arguments
    chain = [*derivation.definitions(key), (None, derivation.result[key].rhs)]

    def function(**arguments):
        values = {symbol: mpmath.mpf(arguments[symbol.name]) for symbol in symbols}
        for symbol, expression in chain:
            values[symbol] = sp.lambdify(list(values), expression, modules="mpmath")(*values.values())
        return values[None]

    return function


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize(("u", "kappa"), [("0.3", "0.4"), ("-0.7", "1.3"), ("0.9", "0.05")])
def test_the_curvature_is_that_of_the_error(loss, u, kappa):
    u, kappa = mpmath.mpf(u), mpmath.mpf(kappa)

    def rate(v):
        return SLOPES[loss](v) * mpmath.sqrt(kappa**2 + v**2)  # in time 2 p r t

    def fall(v):
        return mpmath.diff(lambda w: 1 / (1 + mpmath.exp(w)), v) * rate(v)

    with mpmath.workdps(30):
        error = 1 / (1 + mpmath.exp(u))
        bend = mpmath.diff(fall, u) * rate(u)
        found = law("inflection", loss, "chi(u)")(u=u, kappa=kappa)
        assert abs(found + bend / (error * (1 - error) * rate(u) ** 2)) < 1e-14
        level = law("inflection", loss, "K(u)")(u=u)
        # One zero in kappa^2, at K, and the same pole.
        assert abs(found * (kappa**2 + u**2) - u * (level - kappa**2) / (level + u**2)) < 1e-14


def test_the_transition_has_the_known_digits():
    level, slope = (law("inflection", "cross-entropy", key) for key in ("K(u)", "K'(u)"))
    peak = mpmath.findroot(lambda u: slope(u=u), 0.4)
    assert mpmath.nstr(mpmath.sqrt(level(u=peak)), 10) == "0.5852119534"
    balanced = mpmath.findroot(lambda u: law("inflection", "cross-entropy", "chi(u) balanced")(u=u), 0.9)
    assert mpmath.nstr(balanced, 10) == "0.8883679076"
    assert mpmath.nstr(1 / (1 + mpmath.exp(balanced)), 10) == "0.2914467488"
