"""The laws that continue or stand beside the mode, against mpmath: numbers from definitions, not from the derivations."""

from itertools import pairwise

import mpmath
import pytest
import sympy as sp
from scipy.integrate import solve_ivp

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


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("depth", [1, 3, 5])
def test_a_balanced_path_of_any_depth_moves_as_its_layers_do(loss, depth):
    # All layers integrated as one weight, the gradient taken by hand: d(logit)/d(one weight) = r b^(depth-1).
    p, r, start = mpmath.mpf("0.6"), mpmath.mpf("1.4"), mpmath.mpf("0.2")
    with mpmath.workdps(20):
        flow = mpmath.odefun(
            lambda _, b: p * SLOPES[loss](r * b**depth) * r * b ** (depth - 1), 0, (start / r) ** (mpmath.mpf(1) / depth)
        )
        moment = mpmath.mpf("0.3")
        logit = r * flow(moment) ** depth
        assert logit < 1
        time = derive("depth", loss)["closed time"].equations[-1].rhs  # no result for the squared loss, but a step
        names = sorted(time.free_symbols, key=str)
        numbers = {"u": logit, "u0": start, "N": mpmath.mpf(depth), "p": p, "r": r}
        found = sp.lambdify(names, time, "mpmath")(*(numbers[str(name)] for name in names))
        assert abs(found - moment) < 1e-16
        if loss == "hinge":
            assert abs(law("depth", loss, "u(t)")(t=moment, u0=start, N=depth, p=p, r=r) - logit) < 1e-16
            arrival = law("depth", loss, "t*")(u0=start, N=depth, p=p, r=r)
            assert abs(law("depth", loss, "t(u)")(u=1, u0=start, N=depth, p=p, r=r) - arrival) < 1e-16
            assert abs(law("depth", loss, "u(t)")(t=arrival + 5, u0=start, N=depth, p=p, r=r) - 1) < 1e-16


def test_the_unbalanced_path_moves_as_its_layers_do():
    p, r, b = mpmath.mpf("0.6"), mpmath.mpf("1.4"), [mpmath.mpf(x) for x in ("0.3", "0.8", "1.1")]

    def layers(_, weights):
        logit = r * mpmath.fprod(weights)
        return [p * SLOPES["cross-entropy"](logit) * logit / weight for weight in weights]

    equation = derive("depth", "cross-entropy")["unbalanced equation"].equations[1].rhs
    rho, offset, depth = (next(x for x in equation.free_symbols if str(x) == name) for name in ("rho", "c", "N"))
    equation = equation.replace(sp.Function("g"), lambda logit: 1 / (1 + sp.exp(logit)))
    written = equation.subs(depth, 3).doit().subs({sp.Indexed(offset, i + 1): sp.Symbol(f"c{i}") for i in range(3)})
    speed = sp.lambdify([rho, *(sp.Symbol(f"c{i}") for i in range(3)), *sp.symbols("p r", positive=True)], written, "mpmath")
    with mpmath.workdps(20):
        first = b[0] ** 2
        moved = mpmath.odefun(layers, 0, b)(1)
        path = mpmath.odefun(lambda _, x: speed(x, *(w**2 - first for w in b), p, r), 0, first)(1)
        for weight, start in zip(moved, b, strict=True):
            assert abs(weight**2 - (path + start**2 - first)) < 1e-17


def trained(loss, steps, p, r, eta, decay=0, momentum=0, nesterov=False):
    """Three neurons (a, z) of one class after each step of descent, update rule by update rule, as mpmath numbers."""
    weights = [mpmath.mpf(x) for x in ("0.4", "0.2", "0.7", "0.3", "-0.1", "0.5")]
    velocity, states = [mpmath.mpf(0)] * 6, [weights]
    for _ in range(steps):
        logit = r * sum(a * z for a, z in zip(weights[:3], weights[3:], strict=True))
        push = p * r * SLOPES[loss](logit)
        gradient = [decay * w - push * other for w, other in zip(weights, weights[3:] + weights[:3], strict=True)]
        velocity = [momentum * v + x for v, x in zip(velocity, gradient, strict=True)]
        move = [x + momentum * v for x, v in zip(gradient, velocity, strict=True)] if nesterov else velocity
        weights = [w - eta * x for w, x in zip(weights, move, strict=True)]
        states.append(weights)
    return states


def sums(weights):
    """M plus and M minus."""
    pairs = list(zip(weights[:3], weights[3:], strict=True))
    return {"M_plus": sum((a + z) ** 2 for a, z in pairs), "M_minus": sum((a - z) ** 2 for a, z in pairs)}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_sums_of_three_neurons_move_as_descent_moves_them(loss):
    numbers = {"p": mpmath.mpf("0.6"), "r": mpmath.mpf("1.3"), "eta": mpmath.mpf("0.4")}
    with mpmath.workdps(25):
        states = trained(loss, 4, **numbers)
        for before, after in pairwise(states):
            for key in ("M_plus", "M_minus"):
                found = law("descent", loss, f"{key}'")(**sums(before), **numbers)
                assert abs(found - sums(after)[key]) < 1e-20
        shrunk = sums(trained(loss, 1, decay=mpmath.mpf("0.7"), **numbers)[1])["M_plus"]
        found = law("descent", loss, "M_plus' with decay")(**sums(states[0]), **numbers, lambda_=mpmath.mpf("0.7"))
        assert abs(found - shrunk) < 1e-20


def test_the_hinge_before_its_margin_goes_in_powers():
    numbers = {"p": mpmath.mpf("0.6"), "r": mpmath.mpf("1.3"), "eta": mpmath.mpf("0.05")}
    with mpmath.workdps(25):
        states = trained("hinge", 5, **numbers)
        for step, weights in enumerate(states):
            logit = numbers["r"] * (sums(weights)["M_plus"] - sums(weights)["M_minus"]) / 4
            assert logit < 1
            assert abs(law("descent", "hinge", "u(k)")(k=step, **sums(states[0]), **numbers) - logit) < 1e-20


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("loss", ["cross-entropy", "squared"])
def test_two_scalars_move_all_neurons_under_momentum(loss, nesterov):
    numbers = {"p": mpmath.mpf("0.6"), "r": mpmath.mpf("1.3"), "eta": mpmath.mpf("0.2")}
    decay, momentum = mpmath.mpf("0.3"), mpmath.mpf("0.8")
    names, suffix = ("F_plus", "F_minus", "V_plus", "V_minus"), " Nesterov" if nesterov else ""
    with mpmath.workdps(25):
        states = trained(loss, 6, decay=decay, momentum=momentum, nesterov=nesterov, **numbers)
        first, fixed = states[0], {**sums(states[0]), **numbers, "mu": momentum, "lambda_": decay}
        scalars = {"F_plus": 1, "F_minus": 1, "V_plus": 0, "V_minus": 0}
        for weights in states[1:]:
            scalars = {name: law("momentum", loss, f"{name}'{suffix}")(**scalars, **fixed) for name in names}
            for a, z, moved_a, moved_z in zip(first[:3], first[3:], weights[:3], weights[3:], strict=True):
                assert abs((a + z) * scalars["F_plus"] - (moved_a + moved_z)) < 1e-20
                assert abs((a - z) * scalars["F_minus"] - (moved_a - moved_z)) < 1e-20


@pytest.mark.parametrize("loss", ["cross-entropy", "exponential", "squared"])
def test_weight_decay_settles_a_mode_or_erases_it(loss):
    p, r = 0.7, 1.2
    critical, rest = (law("decay", loss, key) for key in ("lambda_c", "u*"))
    critical = critical(p=p, r=r)
    assert abs(critical - p * r * SLOPES[loss](mpmath.mpf(0))) < 1e-14

    def settled(decay):
        def flow(_, weights):
            push = p * r * float(SLOPES[loss](r * weights[0] * weights[1]))
            return [push * weights[1] - decay * weights[0], push * weights[0] - decay * weights[1]]

        a, z = solve_ivp(flow, (0, 150), [0.5, 0.4], rtol=1e-9, atol=1e-12).y[:, -1]
        return r * a * z

    decay = float(critical) * 0.6
    end = float(rest(p=p, r=r, lambda_=decay))
    assert end > 0
    assert settled(decay) == pytest.approx(end, rel=1e-7)
    assert settled(float(critical) * 1.2) < 1e-6
    assert rest(p=p, r=r, lambda_=1.2 * critical) < 0
    speed = law("decay", loss, "du/dt balanced")
    slope = mpmath.diff(lambda u: speed(u=u, p=p, r=r, lambda_=decay), end)
    assert abs(slope - law("decay", loss, "sigma(u*)")(p=p, r=r, lambda_=decay)) < 1e-8
    assert slope < 0


def starved(loss, p_one, p_both, end):
    """v1, v2 of the starving pair at time `end`, from zero, by a general solver."""

    def flow(_, v):
        alone, both = (float(SLOPES[loss](margin)) for margin in (v[0], v[0] + v[1]))
        return [p_one * alone + p_both * both, p_both * both]

    return solve_ivp(flow, (0, end), [0.0, 0.0], rtol=1e-11, atol=1e-13).y[:, -1]


@pytest.mark.parametrize(("p_one", "p_both"), [(0.9, 0.1), (0.3, 0.7)])
@pytest.mark.parametrize("loss", ["exponential", "squared"])
def test_the_second_feature_starves_as_derived(loss, p_one, p_both):
    shares = {"q": p_one / p_both, "p12": p_both} if loss == "exponential" else {"p1": p_one, "p12": p_both}
    for end in (0.5, 8.0):
        found = [float(law("starvation", loss, key)(t=end, **shares)) for key in ("v1(t)", "v2(t)")]
        assert found == pytest.approx(starved(loss, p_one, p_both, end), rel=1e-8)
    if loss == "squared":
        peak = law("starvation", loss, "t peak")(p1=p_one, p12=p_both)
        heights = [law("starvation", loss, "v2(t)")(t=peak * share, p1=p_one, p12=p_both) for share in (0.98, 1, 1.02)]
        assert heights[1] == max(heights)
    else:
        v1, v2 = starved(loss, p_one, p_both, 5.0)
        assert float(law("starvation", loss, "v2(v1)")(v1=v1, q=p_one / p_both)) == pytest.approx(v2, rel=1e-8)


def test_the_second_feature_freezes_under_the_hinge():
    shares = {"p1": 0.7, "p12": 0.3}
    step, v1, v2, rows = 1e-5, 0.0, 0.0, {}
    for count in range(1, 200001):
        alone, both = 0.7 * (v1 < 1), 0.3 * (v1 + v2 < 1)
        v1, v2 = v1 + step * (alone + both), v2 + step * both
        rows[count] = (v1, v2)
    for count in (30000, 76000, 77200, 100000, 200000):
        found = [float(law("starvation", "hinge", key)(t=count * step, **shares)) for key in ("v1(t)", "v2(t)")]
        assert found == pytest.approx(rows[count], abs=5e-5)
    assert float(law("starvation", "hinge", "v2 frozen")(q=7 / 3)) == pytest.approx(v2, abs=5e-5)
    assert float(law("starvation", "hinge", "t freeze")(**shares)) == pytest.approx(1 / 1.3)


@pytest.mark.parametrize(("p_one", "p_both"), [(0.9, 0.1), (0.3, 0.7)])
def test_cross_entropy_keeps_the_second_feature_between_the_bounds(p_one, p_both):
    for end in (0.1, 3.0, 300.0):
        v1, v2 = starved("cross-entropy", p_one, p_both, end)
        low, high = (law("starvation", "cross-entropy", key)(v1=v1, q=p_one / p_both) for key in ("v2 low", "v2 high"))
        assert low < v2 < high


def softmax_error(outputs, true):
    """Slopes of minus the loss in the outputs: one at the true class minus the probabilities."""
    weights = [mpmath.exp(f) for f in outputs]
    return [(index == true) - w / mpmath.fsum(weights) for index, w in enumerate(weights)]


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_the_gap_of_one_layer_is_that_of_all_its_weights(classes):
    p, r = mpmath.mpf("0.2"), mpmath.mpf("1.3")

    def flow(_, column):
        return [p * r * x for x in softmax_error([r * w for w in column], 0)]

    with mpmath.workdps(18):
        column = mpmath.odefun(flow, 0, [mpmath.mpf(0)] * classes)(4)
        gap = r * (column[0] - column[1])
        assert abs(law("softmax", "cross-entropy", "u(t)")(t=4, K=classes, p=p, r=r, u0=0) - gap) < 1e-14
        assert abs(law("softmax", "cross-entropy", "t(u)")(u=gap, K=classes, p=p, r=r, u0=0) - 4) < 1e-14


def test_the_gap_of_two_layers_runs_on_a_clock():
    # One neuron of one class out of four, its read-out a vector: trained by the gradient of the whole loss.
    classes, p, r = 4, mpmath.mpf("0.25"), mpmath.mpf("1.3")
    size = mpmath.sqrt(1 - mpmath.mpf(1) / classes)
    direction = [((index == 0) - mpmath.mpf(1) / classes) / size for index in range(classes)]

    def flow(_, state):
        a, read_out = state[0], state[1:]
        errors = softmax_error([r * a * x for x in read_out], 0)
        return [p * r * mpmath.fsum(x * e for x, e in zip(read_out, errors, strict=True)), *(p * r * a * e for e in errors)]

    a, z = mpmath.mpf("0.5"), mpmath.mpf("0.2")
    with mpmath.workdps(18):
        moved = mpmath.odefun(flow, 0, [a, *(z * x for x in direction)])(3)
        first, last = r * a * z * (direction[0] - direction[1]), r * moved[0] * (moved[1] - moved[2])
        sums = {"M_plus": (a + z) ** 2, "M_minus": (a - z) ** 2}
        kappa = law("softmax", "cross-entropy", "kappa")(K=classes, r=r, **sums)
        angles = {"theta": mpmath.asinh(last / kappa), "theta0": mpmath.asinh(first / kappa)}
        time = law("softmax", "cross-entropy", "t(theta) two layers")(K=classes, p=p, r=r, kappa=kappa, **angles)
        assert abs(time - 3) < 1e-13


def test_a_linearised_network_moves_and_starves_as_its_weights_do():
    """Two samples and two weights: trained weight by weight, and at rest under a ridge of two sizes of the first feature."""
    rows, ridge, step = mpmath.matrix([["1.2", "0.3"], ["-0.4", "0.9"]]), mpmath.mpf("0.1"), mpmath.mpf("1e-9")
    with mpmath.workdps(30):
        kernel = rows * rows.T

        def forces(rows, theta, decay=0):
            residuals = [SLOPES["cross-entropy"](x) for x in rows * theta]
            return rows.T * mpmath.matrix(residuals) - decay * theta

        theta = mpmath.matrix(["0.5", "-0.2"])
        margins = rows * theta
        speeds = rows * forces(rows, theta)
        given = {"m1": margins[0], "m2": margins[1], "K11": kernel[0, 0], "K12": kernel[0, 1], "K22": kernel[1, 1]}
        for i in range(2):
            assert abs(law("linearised", "cross-entropy", f"dm{i + 1}/dt")(**given) - speeds[i]) < 1e-25

        angle, strengths = mpmath.mpf("0.4"), [mpmath.mpf(3), mpmath.mpf("0.7")]
        U = mpmath.matrix([[mpmath.cos(angle), -mpmath.sin(angle)], [mpmath.sin(angle), mpmath.cos(angle)]])

        def at_rest(first):
            rows = U * mpmath.diag([mpmath.sqrt(first), mpmath.sqrt(strengths[1])])
            theta = mpmath.findroot(lambda *x: list(forces(rows, mpmath.matrix(x), ridge)), (1, 1))
            return rows * theta

        m = at_rest(strengths[0])
        given = {"m1": m[0], "m2": m[1], "psi": angle, "S1": strengths[0], "S2": strengths[1], "lambda_": ridge}
        change = U.T * (at_rest(strengths[0] + step) - at_rest(strengths[0] - step)) / (2 * step)
        for i in range(2):
            assert abs(law("linearised", "cross-entropy", f"dz{i + 1}/d(s1^2)")(**given) - change[i]) < 1e-12
