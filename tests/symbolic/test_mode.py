"""The derived laws: all checks pass, and the closed forms agree with mpmath."""

import random

import mpmath
import pytest
import sympy as sp

from gradstarve.symbolic import available, derive
from gradstarve.symbolic._derivation import largest_residual
from gradstarve.symbolic._notation import s

LOSSES = ("cross-entropy", "hinge", "exponential", "squared")
SLOPES = {
    "cross-entropy": lambda v: 1 / (1 + mpmath.exp(v)),
    "hinge": lambda v: mpmath.mpf(v < 1),
    "exponential": lambda v: mpmath.exp(-v),
    "squared": lambda v: 1 - v,
}


def value(derivation, key, **arguments):
    """A result in mpmath arithmetic, its definitions put in one after the other."""
    symbols = derivation.targets[key].arguments
    values = {symbol: arguments[symbol.name] for symbol in symbols}
    for symbol, expression in [*derivation.definitions(key), (None, derivation.result[key].rhs)]:
        number = sp.lambdify(list(values), expression, modules="mpmath")(*values.values())
        values[symbol] = number
    return values[None]


@pytest.mark.parametrize(("name", "loss"), available())
def test_every_step_holds(name, loss):
    derivation = derive(name, loss)
    results = derivation.check()
    assert [result.step for result in results] == [step.name for step in derivation.steps]
    for result in results:
        assert result.passed
        assert result.residuals
        assert result.method in ("simplifies to 0", "vanishes at 6 random points to 50 digits")
    assert len({step.name for step in derivation.steps}) == len(derivation.steps)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "loss"), available())
def test_other_random_points_agree(name, loss):
    # More draws: no step hangs on lucky points.
    derivation = derive(name, loss)
    for step in derivation.steps:
        for residual in derivation.residuals(step.name):
            assert largest_residual(residual, step.domain, 3, 50, seed=1) < 1e-50


def setting(seed, loss):
    """Random p, r, kappa, u0 and an end point u on the same side of the margin, as mpmath numbers."""
    draw = random.Random(seed)
    low, high = (-1.5, 0.9) if loss in ("hinge", "squared") else (-3, 4)
    start, end = sorted(draw.uniform(low, high) for _ in range(2))
    p, r, kappa = draw.uniform(0.05, 1), draw.uniform(0.3, 3), 10 ** draw.uniform(-2, 1)
    return {"p": mpmath.mpf(p), "r": mpmath.mpf(r), "kappa": mpmath.mpf(kappa)}, mpmath.mpf(start), mpmath.mpf(end)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("seed", range(3))
def test_time_of_a_mode_is_the_integral(loss, seed):
    derivation = derive("mode", loss)
    numbers, start, end = setting(seed, loss)
    p, r, kappa = (numbers[name] for name in ("p", "r", "kappa"))
    with mpmath.workdps(30):
        panels = mpmath.linspace(start, end, 9)

        def time(width):
            speed = 2 * p * r
            return mpmath.quad(lambda v: 1 / (SLOPES[loss](v) * mpmath.sqrt(width**2 + v**2)), panels) / speed

        found = value(derivation, "t(u)", u=end, u0=start, **numbers)
        assert abs(found - time(kappa)) < 1e-14 * (1 + abs(found))
        if "t(theta)" in derivation.result:
            angles = {"theta": mpmath.asinh(end / kappa), "theta0": mpmath.asinh(start / kappa)}
            assert abs(value(derivation, "t(theta)", **angles, **numbers) - found) < 1e-14 * (1 + abs(found))
        start, panels = mpmath.mpf("0.1"), mpmath.linspace(mpmath.mpf("0.1"), mpmath.mpf("0.9"), 9)
        balanced = value(derivation, "t(u) balanced", u=mpmath.mpf("0.9"), u0=start, p=p, r=r)
        assert abs(balanced - time(0)) < 1e-14 * (1 + abs(balanced))


@pytest.mark.parametrize("loss", ["hinge", "squared"])
@pytest.mark.parametrize(("seed", "start"), [(0, "-0.7"), (1, "0.3"), (2, "1.6")])
def test_logit_of_a_mode_solves_its_equation(loss, seed, start):
    derivation = derive("mode", loss)
    numbers, _, _ = setting(seed, loss)
    start = mpmath.mpf(start)
    with mpmath.workdps(20):
        rate = 2 * numbers["p"] * numbers["r"]
        flow = mpmath.odefun(
            lambda _, u: rate * SLOPES["squared"](u) * mpmath.sqrt(numbers["kappa"] ** 2 + u**2), 0, start
        )
        if loss == "hinge":
            flow = mpmath.odefun(lambda _, u: rate * mpmath.sqrt(numbers["kappa"] ** 2 + u**2), 0, start)
            arrival = max(value(derivation, "t*", u0=start, **numbers), 0)
        for moment in ("0.1", "0.4", "1.5"):
            moment = mpmath.mpf(moment) / rate
            known = flow(min(moment, arrival)) if loss == "hinge" else flow(moment)
            found = value(derivation, "u(t)", t=moment, u0=start, **numbers)
            assert abs(found - known) < 1e-15 * (1 + abs(known))


@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_balanced_logit_is_the_limit_of_small_kappa(loss):
    derivation = derive("mode", loss)
    numbers = {"t": mpmath.mpf("1.3"), "p": mpmath.mpf("0.4"), "r": mpmath.mpf("1.1"), "u0": mpmath.mpf("0.2")}
    general = value(derivation, "u(t)", kappa=mpmath.mpf("1e-8"), **numbers)
    assert abs(general - value(derivation, "u(t) balanced", **numbers)) < 1e-14


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("start", ["-1.2", "0.4"])
def test_one_layer_solves_its_equation(loss, start):
    derivation = derive("one-layer", loss)
    numbers = {"p": mpmath.mpf("0.3"), "r": mpmath.mpf("1.7"), "u0": mpmath.mpf(start)}
    with mpmath.workdps(20):
        speed = numbers["p"] * numbers["r"] ** 2
        end = mpmath.mpf("0.9")
        time = mpmath.quad(lambda v: 1 / (speed * SLOPES[loss](v)), [numbers["u0"], end])
        assert abs(value(derivation, "t(u)", u=end, **numbers) - time) < 1e-17 * (1 + time)
        assert abs(value(derivation, "u(t)", t=time, **numbers) - end) < 1e-17
    if loss == "hinge":
        late = value(derivation, "t*", **numbers) + 3
        assert abs(value(derivation, "u(t)", t=late, **numbers) - 1) < 1e-14


def test_the_clock_moves_the_neurons_as_gradient_flow_does():
    # The whole network, integrated numerically, against the derived clock at the time it shows.
    derivation = derive("mode", "cross-entropy")
    p, r = mpmath.mpf("0.6"), mpmath.mpf("1.3")
    a, z = [mpmath.mpf("0.4"), mpmath.mpf("0.9")], [mpmath.mpf("0.3"), mpmath.mpf("-0.5")]

    def flow(_, state):
        logit = r * (state[0] * state[2] + state[1] * state[3])
        push = p * r * SLOPES["cross-entropy"](logit)
        return [push * state[2], push * state[3], push * state[0], push * state[1], push]

    with mpmath.workdps(20):
        *_, clock = final = mpmath.odefun(flow, 0, [*a, *z, mpmath.mpf(0)])(mpmath.mpf(2))
        step = derivation["clock"]
        names = {"a1": a[0], "a2": a[1], "z1": z[0], "z2": z[1]}
        for equation, moved in zip(step.equations[1:], (final[0], final[2], final[1], final[3]), strict=True):
            symbols = sorted(equation.rhs.free_symbols - {s}, key=str)
            claimed = sp.lambdify([s, *symbols], equation.rhs, "mpmath")(clock, *(names[x.name] for x in symbols))
            assert abs(claimed - moved) < 1e-15
        sums = {
            "M_plus": sum((x + y) ** 2 for x, y in zip(a, z, strict=True)),
            "M_minus": sum((x - y) ** 2 for x, y in zip(a, z, strict=True)),
        }
        logit = r * (final[0] * final[2] + final[1] * final[3])
        assert abs(value(derivation, "u(s)", s=clock, r=r, **sums) - logit) < 1e-15
        kappa = value(derivation, "kappa", r=r, **sums)
        first = r * (a[0] * z[0] + a[1] * z[1])
        assert abs(value(derivation, "t(u)", u=logit, u0=first, p=p, r=r, kappa=kappa) - 2) < 1e-15


def test_known_closed_forms_come_out():
    assert str(derive("mode", "squared").result["u(t) balanced"].rhs).count("exp(-2*p*r*t)") == 2
    assert derive("mode", "cross-entropy").result["t(u) balanced"].rhs.has(sp.Ei)
    assert derive("mode", "exponential").result["t(u) balanced"].rhs.has(sp.Ei)
    assert derive("one-layer", "cross-entropy").result["u(t)"].rhs.has(sp.LambertW)
    assert derive("mode", "hinge").default_target == "u(t)"
    assert derive("mode", "cross-entropy").default_target == "t(u)"
