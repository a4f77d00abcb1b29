"""The flow of leaky networks on antipodal classes (22.1): two clocks, against SciPy on all weights with events at edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy_descent import RESIDUALS
from scipy.integrate import solve_ivp

import gradstarve as gs

pytestmark = pytest.mark.usefixtures("x64")
SLOW = pytest.mark.slow


def problem(seed=0, h=8, scale=0.4, slope=0.2, frequencies=(0.3, 0.7), norms=(1.0, 1.5)):
    keys = jax.random.split(jax.random.key(seed), 2)
    data = gs.datasets.antipodal(3, norms=norms, frequencies=frequencies, key=keys[0])
    network = gs.init_two_layer(keys[1], (), h, 3, scale, scale)
    return data, gs.TwoLayerReLU(network.w, network.z, slope)


def integrated(data, network, residual, times, kinks=()):
    """Weights at `times`, how many neurons changed their side, and how often one was held at its edge.

    Between events every neuron has the side that is written down for it: 1, -1, or 0 while it is held at a = 0, where both
    sides send it back.
    """
    x, y, q = (np.asarray(v, float) for v in (data.points, data.labels, data.weights))
    w, z = np.array(network.w, float), np.array(network.z, float)
    axis = y[0] * x[0] / np.linalg.norm(x[0])
    shape, al = w.shape, network.slope
    side = np.sign(w @ axis)

    def tilts(side):
        return np.where(side[:, None] * (x @ axis) > 0, 1, al) * (side != 0)[:, None]  # [h, n]

    def margins(theta, side):
        w, z = theta[:w_size].reshape(shape), theta[w_size:]
        return y * ((tilts(side) * (w @ x.T)).T @ z)

    def pulls(theta, side, branch):
        return q * residual(margins(theta, side), branch)

    def field(theta, side, branch):
        w, z = theta[:w_size].reshape(shape), theta[w_size:]
        tilt, pull = tilts(side), pulls(theta, side, branch) * y
        return np.concatenate([(z[:, None] * ((tilt * pull) @ x)).ravel(), np.sum(tilt * pull * (w @ x.T), axis=1)])

    def sends(theta, side, branch, j, way):
        """Of which sign da_j/dt is for a neuron on side `way`."""
        other = side.copy()
        other[j] = way
        tilt = tilts(other)[j]
        return np.sign(theta[w_size + j] * ((tilt * pulls(theta, side, branch) * y) @ (x @ axis)))

    w_size = w.size
    theta, t, moves, holds, found = np.concatenate([w.ravel(), z]), 0.0, 0, 0, []
    branch = (margins(theta, side)[:, None] >= np.array(kinks)).sum(1) if kinks else np.zeros(len(y), int)
    while t < times[-1]:
        events = []

        def event(function, what, events=events):
            function.terminal, function.what = True, what
            function.direction = -1
            events.append(function)

        for j in range(len(z)):
            if side[j]:
                event(lambda t, v, j=j, s=side[j]: s * (v[:w_size].reshape(shape)[j] @ axis), ("edge", j))
            else:
                for way in (1, -1):
                    event(
                        lambda t, v, j=j, way=way, side=side, b=branch: -way * sum(
                            v[w_size + j] * (np.where(way * (x @ axis) > 0, 1, al) * pulls(v, side, b) * y) * (x @ axis)
                        ),
                        ("free", j),
                    )
        for i in range(len(y)):
            for k, kink in enumerate(kinks):
                sign = 1 if branch[i] <= k else -1
                up = (kink, sign, side)
                event(lambda t, v, i=i, up=up: up[1] * (up[0] - margins(v, up[2])[i]), ("kink", i, sign))
        run = solve_ivp(
            lambda t, v, side=side, branch=branch: field(v, side, branch), (t, times[-1]), theta, method="DOP853",
            events=events, rtol=1e-13, atol=1e-15, dense_output=True,
        )
        end = run.t[-1]
        found += [run.sol(s) for s in times if t < s <= end or (s == 0 == t)]
        t, theta = end, run.y[:, -1]
        if run.status != 1:
            break
        happened = [e.what for e, at in zip(events, run.t_events, strict=True) if len(at)]
        for what, j, *more in happened[:1]:
            side, branch = side.copy(), branch.copy()
            if what == "edge":
                theta = theta.copy()
                row = theta[:w_size].reshape(shape)[j]
                row -= (row @ axis) * axis
                goes = sends(theta, side, branch, j, -side[j]) == -side[j]
                side[j] = -side[j] if goes else 0
                moves, holds = moves + goes, holds + (not goes)
            elif what == "free":
                ways = [way for way in (1, -1) if sends(theta, side, branch, j, way) == way]
                side[j] = ways[0] if ways else 0
            else:
                branch[j] += more[0]
    return np.array(found), moves, holds


def smooth_hinge(m):
    """The residual of a hinge whose corner is a parabola from 1/2 to 3/2."""
    return np.clip(1.5 - m, 0, 1)


class SmoothHinge(gs.problem.Loss):
    kinks = (0.5, 1.5)
    rest = 1.5

    def value(self, margin):
        gap = jnp.clip(1.5 - margin, 0, 1)
        return gap**2 / 2 + jnp.maximum(0.5 - margin, 0)

    def residual(self, margin):
        return jnp.clip(1.5 - margin, 0, 1)


def smooth_branches(m, branch):
    return np.where(branch == 0, 1.0, np.where(branch == 1, 1.5 - m, 0.0))


CASES = {
    "cross-entropy": ("cross-entropy", lambda m, b: RESIDUALS["cross-entropy"](m), (), {}),
    "exponential": ("exponential", lambda m, b: RESIDUALS["exponential"](m), (), {"slope": 0.7}),
    "hinge": ("hinge", lambda m, b: np.where(b == 0, 1.0, 0.0), (1.0,), {"h": 20}),
    "squared": ("squared", lambda m, b: 1 - m, (), {}),
    "squared, held at an edge": (
        "squared", lambda m, b: 1 - m, (), {"seed": 6, "h": 10, "scale": 0.8, "frequencies": (0.05, 0.95), "slope": 0.5}
    ),
    "flipped labels": (
        lambda: gs.FlippedLabels("cross-entropy", 0.1), lambda m, b: RESIDUALS["cross-entropy"](m) - 0.1, (), {}
    ),
    "own, with kinks": (SmoothHinge, smooth_branches, (0.5, 1.5), {"seed": 3}),
}
TIMES = np.array([0.0, 0.5, 2.0, 5.0, 12.0, 30.0, 100.0])


FIRST = ("squared, held at an edge", "own, with kinks")


@pytest.mark.parametrize("case", [case if case in FIRST else pytest.param(case, marks=SLOW) for case in CASES])
def test_the_law_is_the_flow_of_all_weights(case):
    loss, residual, kinks, how = CASES[case]
    data, network = problem(**({"seed": 1} | how))
    # Where a residual is zero at a kink the margin comes to it, in the end, within rounding: no place for an event.
    times = TIMES[:5] if case == "own, with kinks" else TIMES
    weights, moves, holds = integrated(data, network, residual, times, kinks)
    assert moves >= 1
    assert (holds > 0) == (case == "squared, held at an edge")
    law = gs.solve(data, network, loss if isinstance(loss, str) else loss())
    found = law.network(times)
    size = network.w.size
    assert found.slope == network.slope
    np.testing.assert_allclose(found.w, weights[:, :size].reshape(found.w.shape), rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(found.z, weights[:, size:], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(law.logits(times), found(data.points), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("label", [pytest.param(1, marks=SLOW), -1])
def test_one_class_is_seen_from_behind_too(label):
    data = gs.Dataset([[0.6, 0.8, 0.0]], [label])
    _, network = problem(3)
    weights, moves, _ = integrated(data, network, lambda m, b: RESIDUALS["cross-entropy"](m), TIMES)
    assert moves >= 1
    law = gs.solve(data, network, "cross-entropy")
    found, size = law.network(TIMES), network.w.size
    np.testing.assert_allclose(found.w, weights[:, :size].reshape(found.w.shape), rtol=1e-10, atol=1e-10)
    only = law.plus if label > 0 else law.minus
    assert only.logit(TIMES) == pytest.approx(label * np.asarray(law.logits(TIMES))[:, 0])
    a, z = only.weights(12.0)
    assert float(only.logit(12.0)) == pytest.approx(float(jnp.sum(jnp.where(a > 0, a, 0.2 * a) * z)))


@pytest.mark.parametrize("loss", [k if k == "cross-entropy" else pytest.param(k, marks=SLOW) for k in RESIDUALS])
def test_a_slope_to_zero_is_the_relu(loss):
    data, network = problem(1, slope=0.0)
    near = gs.solve(data, gs.TwoLayerReLU(network.w, network.z, 1e-14), loss)
    law = gs.solve(data, network, loss)
    times = np.array([0.0, 1.0, 10.0, 1e3, 1e12])
    np.testing.assert_allclose(near.logits(times), law.logits(times), rtol=1e-10, atol=1e-11)
    if loss != "cross-entropy":
        np.testing.assert_allclose(near.network(10.0).w, law.network(10.0).w, rtol=1e-10, atol=1e-11)
        np.testing.assert_allclose(near.time_to_loss([0.6, 0.5]), law.time_to_loss([0.6, 0.5]), rtol=1e-9)


@SLOW
def test_a_slope_to_one_is_the_linear_network_on_one_clock():
    """Each neuron has p e^S, q e^-S; opposite points of norms r_+, r_- with one residual at equal norms are one mode."""
    data, network = problem(2, norms=(1.2, 1.2))
    linear = gs.TwoLayerReLU(network.w, network.z, float(np.nextafter(1.0, 0.0)))
    times = np.array([0.0, 1.0, 10.0, 1e3, 1e9])
    law = gs.solve(data, linear, "cross-entropy")
    axis = np.asarray(data.points)[0] / 1.2
    a = np.asarray(network.w) @ axis
    # The mode of a class of weight 1 along it, a neuron of a < 0 as its mirror image.
    sign = np.sign(a)
    mode = gs.Mode(1.0, 1.2, np.abs(a), sign * np.asarray(network.z))
    grown = np.asarray(mode.a + mode.z)
    stays = grown > 0  # the others cross a = 0, where a mode ends and a linear network goes on
    keep = gs.TwoLayerReLU(linear.w[np.flatnonzero(stays)], linear.z[np.flatnonzero(stays)], linear.slope)
    one = gs.theory.solve_mode(gs.Mode(1.0, 1.2, mode.a[stays], mode.z[stays]), "cross-entropy")
    np.testing.assert_allclose(gs.solve(data, keep, "cross-entropy").plus.logit(times), one.logit(times), rtol=1e-10)
    # All of them: the closed form kappa sinh(theta) of the whole sums, its clock by quadrature.
    p, q = a + np.asarray(network.z), a - np.asarray(network.z)
    rise, fall = 1.2 * (p**2).sum() / 4, 1.2 * (q**2).sum() / 4
    late = float(law.plus.logit(10.0))
    run = solve_ivp(
        lambda t, u: 2 * 1.2 / (1 + np.exp(u)) * np.sqrt(u**2 + 4 * rise * fall), (0, 10), [rise - fall], method="DOP853",
        rtol=1e-13, atol=1e-14,
    )
    assert late == pytest.approx(run.y[0, -1], rel=1e-10)


@pytest.mark.parametrize("loss", ["cross-entropy", pytest.param("exponential", marks=SLOW), "squared", "hinge"])
def test_late_training(loss):
    """t = 1e20 and 1e300: margins grow like log t, or rest where the loss rests."""
    data, network = problem(1)
    law = gs.solve(data, network, loss)
    early, late, last = np.asarray(law.margins([1e9, 1e20, 1e300]))
    assert np.isfinite(last).all()
    if loss in ("cross-entropy", "exponential"):
        assert (late - early) == pytest.approx(np.log(1e11), rel=0.07)
        # Both clocks: t |grad| is 1/(2 m) at most, and so m at 1e300 is below log t.
        assert (last > 690).all()
        assert (last < 300 * np.log(10) + 10).all()
    elif loss == "squared":
        assert last == pytest.approx(1, rel=1e-12)
    else:
        assert (last >= 1 - 1e-12).all()
        assert last == pytest.approx(early)


def test_faint_starts_keep_their_plateau():
    """From weights of 1e-100 both classes are learnt after log(1/scale)/rate, not never."""
    data, network = problem(1)
    faint = gs.TwoLayerReLU(1e-100 * network.w, 1e-100 * network.z, network.slope)
    law = gs.solve(data, faint, "hinge")
    assert float(law.loss(150.0)) == pytest.approx(1, abs=1e-12)
    assert float(law.time_to_loss(0.0)) < 2000
    scaled = gs.TwoLayerReLU(1e-120 * network.w, 1e-120 * network.z, network.slope)
    rate = float(jnp.max(jnp.asarray([0.3 * 1 + 0.2 * 0.7 * 1.5, 0.2 * 0.3 + 0.7 * 1.5])))
    wait = gs.solve(data, scaled, "hinge").minus.time_to_logit(0.5) - law.minus.time_to_logit(0.5)
    assert float(wait) == pytest.approx(20 * np.log(10) / rate, rel=1e-9)


@SLOW
@pytest.mark.parametrize("loss", ["hinge", "cross-entropy", "squared"])
def test_times_and_events_are_where_the_curve_says(loss):
    data, network = problem(1)
    law = gs.solve(data, network, loss)
    for ask, read, levels in (
        (law.time_to_loss, law.loss, [0.9, 0.5, 0.3]),
        (law.time_to_error, law.error, [0.49, 0.4, 0.3]),
        (law.minus.time_to_logit, law.minus.logit, [0.1, 0.5, 0.9]),
    ):
        found = np.asarray(ask(levels))
        assert np.isfinite(found).any()
        for level, t in zip(levels, found, strict=True):
            if np.isfinite(t) and t > 0:
                assert float(read(t)) == pytest.approx(level, abs=1e-11)
                sign = 1 if ask == law.minus.time_to_logit else -1
                assert sign * (float(read(t * 0.999)) - level) < 0
    assert float(law.minus.time_to_logit(-50.0)) == 0
    if loss == "hinge":
        found = law.plus.time_to_logit(1.0)
        assert float(found) == pytest.approx(float(law.time_to_loss(0.0)))
        assert float(law.plus.logit(found * 0.999)) < 1 - 1e-5
        assert np.isinf(float(law.plus.time_to_logit(1 + 1e-9)))
    assert float(law.time_to_error(1e-3)) == (np.inf if loss != "cross-entropy" else float(law.time_to_error(1e-3)))
    axis = np.asarray(data.points)[0]
    events = np.asarray(law.motion.events)
    moved = np.isfinite(events)
    assert moved.any()
    for j in np.flatnonzero(moved):
        before, after = (float(np.asarray(law.network(events[j] * by).w)[j] @ axis) for by in (1 - 1e-6, 1 + 1e-6))
        assert before * after < 0


@SLOW
def test_float32_is_the_same_to_its_rounding():
    data, network = problem(1)
    small = gs.Dataset(*(np.asarray(v, np.float32) for v in (data.points, data.labels, data.weights)))
    net = gs.TwoLayerReLU(np.float32(network.w), np.float32(network.z), network.slope)
    for loss in RESIDUALS:
        times = np.array([0.0, 2.0, 30.0, 1e15])
        found, law = (gs.solve(d, n, loss).logits(times) for d, n in ((small, net), (data, network)))
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, law, rtol=2e-5, atol=2e-5)


@SLOW
def test_batches_under_jit_and_vmap():
    data, _ = problem()
    nets = gs.init_two_layer(3, (2, 2), 5, 3, 0.4, 0.4)
    nets = gs.TwoLayerReLU(nets.w, nets.z, 0.2)

    def logits(network):
        return gs.solve(data, network, "cross-entropy").logits(jnp.array([3.0, 20.0]))

    whole = np.asarray(logits(nets))
    assert whole.shape == (2, 2, 2, 2)
    assert np.asarray(logits(nets[1][0])) == pytest.approx(whole[1, 0], rel=1e-12)
    assert jax.jit(logits)(nets) == pytest.approx(whole, rel=1e-12)
    assert jax.vmap(logits)(nets) == pytest.approx(whole, rel=1e-12)


@SLOW
def test_derivatives_pass_through_events():
    """In weights, frequency, time and a number of the loss."""
    data, network = problem(6, h=5, scale=0.8, frequencies=(0.05, 0.95), slope=0.5)

    def margin(x, loss=None):
        weights = jnp.array([0.05 + x[1], 0.95 - x[1]])
        moved = gs.Dataset(data.points, data.labels, weights)
        net = gs.TwoLayerReLU(network.w * (1 + x[0]), network.z + x[0] * network.w[:, 0], network.slope)
        law = gs.solve(moved, net, gs.FlippedLabels("cross-entropy", 0.05 + x[2]))
        return law.margins(20.0 + x[3])[0] + law.network(20.0).z[2]

    x = jnp.zeros(4)
    events = gs.solve(data, network, gs.FlippedLabels("cross-entropy", 0.05)).motion.events
    assert (np.asarray(events) < 20).any()
    slope = np.asarray(jax.grad(margin)(x))
    step = 1e-5
    for i in range(4):
        ends = [float(margin(x.at[i].set(h * step))) for h in (1, -1, 2, -2)]
        expected = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * step)
        assert slope[i] == pytest.approx(expected, rel=1e-7, abs=1e-8)


@SLOW
def test_second_derivatives_under_jit_and_vmap():
    """Forward over reverse and reverse over reverse, of a batch of points in weights, read-outs and time."""
    data, network = problem(1, h=3)

    def margin(x):
        net = gs.TwoLayerReLU(network.w * (1 + x[0]), network.z + x[1] * network.w[:, 0], network.slope)
        return gs.solve(data, net, "cross-entropy").plus.logit(x[2])

    points, step = jnp.array([[0.1, 0.2, 5.0], [0.2, 0.3, 5.1]]), 1e-4
    slope = jax.grad(margin)
    forward, reverse = (jax.jit(jax.vmap(way(slope)))(points) for way in (jax.jacfwd, jax.jacrev))
    moved = jnp.concatenate([points[:, None] + sign * step * jnp.eye(3) for sign in (1, -1)], axis=1)
    slopes = jax.jit(jax.vmap(slope))(moved.reshape(-1, 3)).reshape(2, 2, 3, 3)
    assert np.linalg.norm(forward, axis=(1, 2)).min() > 0.1
    np.testing.assert_allclose(forward, reverse, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(forward, (slopes[:, 0] - slopes[:, 1]) / (2 * step), rtol=1e-5, atol=1e-7)


@SLOW
def test_derivatives_of_times():
    data, network = problem(1, h=4)

    for loss, level in (("cross-entropy", 0.5), ("hinge", 0.4), ("hinge", 0.0)):
        def time(x, loss=loss, level=level):
            net = gs.TwoLayerReLU(network.w * (1 + x), network.z, network.slope)
            return gs.solve(data, net, loss).time_to_loss(level)

        expected = (float(time(1e-5)) - float(time(-1e-5))) / 2e-5
        assert float(jax.grad(time)(0.0)) == pytest.approx(expected, rel=1e-6)


@SLOW
def test_phases_of_the_flow_keep_the_slope():
    data, network = problem()
    flipped = gs.Dataset(data.points, -data.labels, data.weights)
    law = gs.solve([(3.0, data), (None, flipped)], network, "cross-entropy")
    half = gs.solve(data, network, "cross-entropy").network(3.0)
    assert law.logits(7.0) == pytest.approx(np.asarray(gs.solve(flipped, half, "cross-entropy").logits(4.0)))
    assert law.network(7.0).slope == network.slope


@SLOW
def test_a_margin_that_slides_along_a_jump_is_refused():
    """Flipped labels with hinge loss jump from 1 - 2e above 0 to -e below 0 at the margin 1."""
    data, network = problem(1)
    law = gs.solve(data, network, gs.FlippedLabels("hinge", 0.2))
    assert np.isfinite(np.asarray(law.logits(0.5))).all()
    with pytest.raises(gs.ConvergenceError, match=r"slides along it; ask for earlier times, or use simulate\(...\) with a"):
        law.logits(100.0)
    steps = gs.GradientDescent(0.001)
    run = gs.simulate(data, network, gs.FlippedLabels("hinge", 0.2), steps, steps=40_000, record_every=40_000)
    assert np.asarray(run.margins())[-1] == pytest.approx(1, abs=0.01)


@SLOW
@pytest.mark.parametrize("loss", ["squared", "flipped labels"])
def test_every_network_is_followed_to_its_rest(loss):
    """From scales of 0.1 to 3; among them are held neurons, and sides without neurons, whose clock stands still."""
    data, _ = problem(frequencies=(0.2, 0.8), norms=(1.0, 1.7))
    nets = gs.init_two_layer(1, 100, 10, 3, 1.0, 1.0)
    scales = np.repeat([0.1, 0.5, 1.0, 3.0], 25)
    nets = gs.TwoLayerReLU(nets.w * scales[:, None, None], nets.z * scales[:, None], 0.9)
    law = gs.solve(data, nets, "squared" if loss == "squared" else gs.FlippedLabels("cross-entropy", 0.1))
    late, last = np.moveaxis(np.asarray(law.margins([1e12, 1e20])), 1, 0)
    np.testing.assert_allclose(late, last, atol=1e-9)
    # With a residual below 0 a class may be left: all neurons of its side were held, and the others are at rest.
    rest = 1 if loss == "squared" else np.log(9)
    stuck = (np.abs(last - rest) > 1e-6).any(-1)
    assert stuck.mean() < 0.1
    empty = (np.asarray(law.network(1e20).w) @ np.asarray(data.points)[0] > 1e-12).sum(-1)
    below = (np.asarray(law.network(1e20).w) @ np.asarray(data.points)[0] < -1e-12).sum(-1)
    assert ((empty == 0) | (below == 0))[stuck].all()


def test_a_batch_may_be_empty():
    data, _ = problem()
    none = gs.TwoLayerReLU(np.zeros((2, 0, 3, 3)), np.zeros((2, 0, 3)), slope=0.2)
    solution = gs.solve(data, none, "hinge")
    assert solution.margins([1.0, 2.0]).shape == (2, 0, 2, 2)
    assert solution.time_to_error([0.1, 0.2, 0.3]).shape == (2, 0, 3)
    with pytest.raises(ValueError, match="no network to draw"):
        solution.plot()


def test_a_smooth_loss_is_at_its_least_in_no_finite_time():
    """e^(-2kt) falls below the floats, never to 0; a network that starts at rest is there at once."""
    one = gs.Dataset([[1.0, 0.0]], [1])
    below, rest = (gs.solve(one, gs.TwoLayerReLU([[a, 0.0]], [a], slope=0.2), "squared") for a in (0.5, 1.0))
    assert np.asarray(below.loss(1e3)) < 1e-30
    times = np.asarray(below.time_to_loss([0.0, 1e-12]))
    assert np.isinf(times[0])
    assert below.loss(times[1]) == pytest.approx(1e-12, rel=1e-3)
    assert np.asarray(rest.time_to_loss([0.0])).tolist() == [0.0]
