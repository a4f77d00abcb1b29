"""Signed features of two and more layers under losses with kinks, against SciPy's integration from event to event."""

from itertools import count

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import lsq_linear

from gradstarve.problem import FlippedLabels, Hinge, MarginShift, Temperature
from gradstarve.theory import feature_flow, shortcut

TYPES = np.array([[1.0, 1, 0], [1, -1, 1], [0, 1, -1], [1, 0, 1]])
PAIR = np.array([[1.0, 1], [1, -1]])
P, SCALES, START = np.array([0.5, 0.2, 0.1, 0.2]), np.array([1.0, 1.7, 0.6]), np.array([0.1, 0.2, 0.05])
FLAT = {
    "hinge": (Hinge(), [1.0], [1.0, 0.0]),
    "flipped": (FlippedLabels("hinge", 0.1), [-1.0, 1.0], [0.9, 0.8, -0.1]),
    "warm": (Temperature("hinge", 2.0), [2.0], [0.5, 0.0]),
}


class Oracle:
    """(10.1) in log v: between events by DOP853, held margins by the linear system that keeps them at rest. Bounded least
    squares, the shortest speed in the metric of the paths, say which margins are held."""

    def __init__(self, types, p, scales, kinks, levels, depth):
        self.types, self.p, self.kinks, self.levels = types, p, np.array(kinks), np.array(levels)
        self.pace, self.power = depth * scales ** (2 / depth), 2 - 2 / depth

    def metric(self, v):
        return self.pace * v**self.power

    def decided(self, v, side, at):
        """The speeds of the margins, and which w_S are free."""
        rows = self.types * np.sqrt(self.metric(v))
        high, low = self.p * self.levels[side], self.p * self.levels[side + at]
        w, loose = low.copy(), high > low
        if loose.any():
            rest = -(rows[~loose].T @ w[~loose])
            w[loose] = lsq_linear(rows[loose].T, rest, (low[loose], high[loose]), method="bvls", tol=1e-15).x
        free = loose & (w > low + 1e-9 * self.p) & (w < high - 1e-9 * self.p)
        return rows @ (rows.T @ w), free

    def pushes(self, v, fixed, held):
        w = fixed.copy()
        if held.size:
            gram = (self.types * self.metric(v)) @ self.types.T
            w[held] = np.linalg.solve(gram[np.ix_(held, held)], -(gram[held] @ fixed))
        return w

    def follow(self, start, times):
        """v at the rising `times`, and how many phases there were."""
        v, t, found = start, 0.0, {}
        margins = self.types @ v
        side, at = (self.kinks[:, None] < margins).sum(0), np.zeros(len(margins), bool)
        for phases in count(1):
            speed, free = self.decided(v, side, at)
            goes = at & ~free & (np.abs(speed) > 1e-9)
            side, at = np.where(goes & (speed > 0), side + 1, side), at & ~goes
            fixed, held = np.where(free, 0, self.p * self.levels[side + at]), np.flatnonzero(free)

            def slope(t, x, fixed=fixed, held=held):
                v = np.exp(x)
                return self.metric(v) / v * (self.pushes(v, fixed, held) @ self.types)

            events, names = [], []

            def watch(what, *name, events=events, names=names):
                what.terminal, what.direction = True, -1
                events.append(what)
                names.append(name)

            for s in range(len(side)):
                if free[s]:
                    for sign, end in ((1, side[s] + 1), (-1, side[s])):
                        level = self.p[s] * self.levels[end]
                        now = lambda x, s=s, fixed=fixed, held=held: self.pushes(np.exp(x), fixed, held)[s]  # noqa: E731
                        watch(lambda t, x, now=now, sign=sign, level=level: sign * (now(x) - level), s, "leaves", sign > 0)
                elif not at[s]:
                    for sign, k in ((1, side[s]), (-1, side[s] - 1)):
                        if 0 <= k < len(self.kinks):
                            kink, row = self.kinks[k], self.types[s]
                            gap = lambda t, x, sign=sign, kink=kink, row=row: sign * (kink - row @ np.exp(x))  # noqa: E731
                            watch(gap, s, "arrives", sign < 0)
            still = np.abs(slope(t, np.log(v))).max() < 1e-12
            if not still:
                here = [time for time in times if t <= time]
                run = solve_ivp(
                    slope, (t, times[-1]), np.log(v), "DOP853", here, False, events, rtol=3e-13, atol=1e-13, max_step=0.5
                )
                found |= dict(zip(run.t, np.exp(np.reshape(run.y, (len(v), -1)).T), strict=True))
            hits = [] if still else [i for i, when in enumerate(run.t_events) if len(when)]
            if not hits:
                return np.array([found.get(time, v) for time in times]), phases
            first = min(hits, key=lambda i: run.t_events[i][0])
            s, what, up = names[first]
            t, v = run.t_events[first][0], np.exp(run.y_events[first][0])
            at[s] = what == "arrives"
            side[s] += up if what == "leaves" else -int(up)
            assert phases < 60


def random(seed):
    """A problem: its name, types, probabilities, scales, start and depth."""
    rng = np.random.default_rng(seed)
    types = TYPES if seed % 2 else PAIR
    p, scales = rng.dirichlet(np.ones(len(types))), rng.uniform(0.6, 1.8, types.shape[1])
    return list(FLAT)[seed % 3], types, p, scales, rng.uniform(0.05, 0.5, types.shape[1]), (2, 3, 2, 5)[seed % 4]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seeds", [[3], pytest.param(range(80), marks=pytest.mark.slow)])
def test_every_event_of_deep_paths(seeds):
    times, most = np.geomspace(0.1, 60, 9), 0
    for seed in seeds:
        name, types, p, scales, start, depth = random(seed)
        loss, kinks, levels = FLAT[name]
        expected, phases = Oracle(types, p, scales, kinks, levels, depth).follow(start, times)
        flow = feature_flow(types, p, loss, depth=depth, scales=scales, init=start)
        np.testing.assert_allclose(flow.features(times), expected, atol=1e-11)
        most = max(most, phases)
    assert most > 4


def reading(depth):
    def read(x):
        return feature_flow(TYPES, x[:4], "hinge", depth=depth, scales=x[4:7], init=x[7:10]).features(x[10])[1]

    return read


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [2, 3])
def test_derivatives_and_second_derivatives(depth):
    """In probabilities, scales, start and time; before, between and behind the events."""
    read, rng = reading(depth), np.random.default_rng(0)
    value, slope, bend = jax.jit(read), jax.jit(jax.grad(read)), jax.jit(jax.hessian(read))
    for time in (0.4, 1.0, 2.5, 6.0):
        point, way = np.concatenate([P, SCALES, START, [time]]), rng.normal(size=11)
        step = 1e-6 * way
        ends = float(value(point + step) - value(point - step)) / 2e-6
        assert float(slope(point) @ way) == pytest.approx(ends, rel=1e-7, abs=1e-8)
        ends = float((slope(point + step) - slope(point - step)) @ way) / 2e-6
        assert float(way @ bend(point) @ way) == pytest.approx(ends, rel=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depths", [(1, 2), (3, 4)])
def test_the_end_of_deep_paths(depths):
    """What margins settle at, however late; at the last place of a path nothing moves."""
    flow = feature_flow(TYPES, P, "hinge", depth=2, scales=SCALES, init=START)
    late = np.asarray(flow.features([1e3, 1e10, 1e300]))
    np.testing.assert_allclose(late, np.broadcast_to(late[0], late.shape), rtol=1e-12)
    assert (np.asarray(flow.margins(1e3))[[0, 1, 3]] > 1 - 1e-12).all()
    # Whatever the depth v_s is held while a is, and then forgotten as far as the hinge asks for.
    for depth in depths:
        law = shortcut(0.9, "hinge", depth=depth, init=[0.1, 0.1], shortcut=2.0)
        a, b = np.asarray(law.margins(1e4))
        assert a >= 1 - 1e-12
        assert b >= 1 - 1e-9
        assert law.peak().height[0] > 0.5
        np.testing.assert_allclose(law.rest, law.features(1e4), atol=1e-9)


@pytest.mark.slow
def test_float32_and_batches():
    types, p, scales, start = (np.float32(leaf) for leaf in (TYPES, np.stack([P, P[::-1]]), SCALES, START))
    many = feature_flow(types, p, "hinge", depth=2, scales=scales, init=start)
    found = np.asarray(many.features(np.float32([0.5, 4.0])))
    assert many.features(np.zeros(0, np.float32)).shape == (2, 0, 3)
    with jax.enable_x64(True):
        for p, curve in zip((P, P[::-1]), found, strict=True):
            exact = feature_flow(TYPES, p, "hinge", depth=2, scales=SCALES, init=START).features(np.array([0.5, 4.0]))
            np.testing.assert_allclose(curve, exact, atol=5e-5)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_what_vanishes_and_what_is_there_twice():
    """A feature that falls for ever, kinks that are only approached, and types that are equal."""
    alone = feature_flow([[-1.0]], [0.6], "hinge", depth=2, init=[0.5]).features([1.0, 1e3, 1e300])
    np.testing.assert_allclose(alone[:, 0], [0.5 * np.exp(-1.2), 0, 0], rtol=1e-12, atol=1e-300)
    late = np.array([60.0, 300.0, 1e3, 1e6, 1e300])
    for depth in (2, 3):
        rest = feature_flow([[1, 1], [-1, 1]], [0.67, 0.33], FLAT["flipped"][0], depth=depth, init=[1.9, 0.05])
        v = np.asarray(rest.features(late))
        assert (np.diff(v[:, 0]) <= 0).all()
        np.testing.assert_allclose(v[:, 1], 1 + v[:, 0], atol=1e-12)
    loss = FlippedLabels(MarginShift("hinge", 0.3), 0.1)
    options = {"depth": 5, "scales": [0.85, 0.85], "init": [1.94, 0.0456]}
    twice = feature_flow([[1, 1], [-1, 1], [1, 1]], [0.36, 0.33, 0.31], loss, **options).features(late)
    once = feature_flow([[1, 1], [-1, 1]], [0.67, 0.33], loss, **options).features(late)
    np.testing.assert_allclose(twice, once, rtol=1e-9, atol=1e-14)
    assert float(once[0, 0]) == pytest.approx(0.00545, abs=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("seed", [0, 2, 3, 4, 5])
def test_the_loss_never_rises(seed):
    """On 60 random problems, to t = 1e300: it is a gradient flow, whatever is held."""
    rng = np.random.default_rng(seed)
    tables = [PAIR, TYPES, np.array([[1.0, 1], [-1, 1]]), np.array([[1.0, 1], [1, -1], [1, 0], [1, 1]])]
    types, (loss, *_), depth = tables[seed % 4], list(FLAT.values())[seed % 3], (2, 3, 5)[seed // 2 % 3]
    p, scales = rng.dirichlet(np.ones(len(types)), 60), rng.uniform(0.5, 2, (60, types.shape[1]))
    start = np.exp(rng.uniform(np.log(3e-3), np.log(2), scales.shape))
    times = np.concatenate([np.geomspace(1e-2, 1e2, 60), [1e3, 1e4, 1e6, 1e9, 1e20, 1e100, 1e300]])
    margins = np.asarray(feature_flow(types, p, loss, depth=depth, scales=scales, init=start).margins(times))
    risk = np.einsum("bs,bts->bt", p, np.asarray(loss.value(margins)))
    assert np.diff(risk, axis=1).max() < 1e-9
