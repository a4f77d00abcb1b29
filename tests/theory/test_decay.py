"""The flow with weight decay (9.1) against mpmath's quadrature, and against descent of two numbers with small steps."""

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve import theory

QUADRATURE = ["cross-entropy", "exponential"]
COUNT = 48


def problems(dtype, seed=0):
    """(p r, lambda, u0): ratios p r / lambda 1e-6..1e12 with many next to 1 and 2, starts 1e-300 (1e-30) to 100."""
    rng = np.random.default_rng(seed)
    ratio = 10 ** rng.uniform(-6, 12, COUNT)
    ratio[:14] = 10 ** rng.uniform(-1, 1.2, 14)
    near = 1 + 10 ** rng.uniform(-9 if dtype == np.float64 else -4, -1, 14) * rng.choice([-1, 1], 14)
    ratio[14:28], ratio[28:30] = near * rng.choice([1, 2], 14), [1, 2]
    start = 10 ** rng.uniform(-12, 2, COUNT)
    start[::6] = 10 ** rng.uniform(-300 if dtype == np.float64 else -30, -12, COUNT // 6)
    rate = 10 ** rng.uniform(-2, 2, COUNT)
    return rate.astype(dtype), (rate / ratio).astype(dtype), start.astype(dtype)


def clock(kind, rate, decay):
    """dt/dlog u as a function of log u, without cancellation next to where it settles, and log of that place."""
    rate, decay = mp.mpf(float(rate)), mp.mpf(float(decay))
    excess = rate / decay - (2 if kind == "cross-entropy" else 1)

    def function(y):
        v = mp.exp(y)
        return (mp.exp(v) + (kind == "cross-entropy")) / ((excess - mp.expm1(v)) * 2 * decay)

    return function, mp.log(mp.log1p(excess)) if excess > 0 else None


def exact_time(kind, rate, decay, start, end):
    """The integral from one logit to another, on panels that shrink towards the pole where the mode settles."""
    function, pole = clock(kind, rate, decay)
    y, last = mp.log(mp.mpf(float(start))), mp.log(mp.mpf(float(end)))
    edges = [y]
    while True:
        step = 2 * mp.sign(last - y)
        if pole is not None and abs(pole - y) < 4:
            step = (pole - y) / 2
        y += step
        if abs(last - edges[-1]) <= abs(step):
            break
        edges.append(y)
    return sum((mp.quad(function, pair) for pair in zip(edges, [*edges[1:], last], strict=True)), mp.mpf(0)), function(last)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "dtype", "tolerance"),
    [("cross-entropy", np.float64, 1e-12), ("exponential", np.float64, 1e-12), ("cross-entropy", np.float32, 2e-5)],
)
def test_curve_against_quadrature(loss, dtype, tolerance):
    rate, decay, start = problems(dtype)
    rng = np.random.default_rng(1)
    pace = np.abs(rate * (0.5 if loss == "cross-entropy" else 1) - decay) + 1e-6 * rate
    t = (10 ** rng.uniform(-3, 1.5, COUNT) / pace).astype(dtype)
    u = np.asarray(theory.decayed_logit(rate, dtype(1), start, decay, loss, t))
    back = np.asarray(theory.decayed_time(rate, dtype(1), start, decay, loss, u))
    settled = np.asarray(theory.settled_logit(rate, dtype(1), decay, loss))
    assert u.dtype == dtype
    close = np.abs(u - settled) <= 50 * tolerance * settled
    checked = 0
    for i in np.flatnonzero(~close & (u > np.finfo(dtype).tiny) & (u != start)):
        with mp.workdps(20):
            exact, slope = exact_time(loss, rate[i], decay[i], start[i], u[i])
            # An error in t as the relative error in u that it is, next to what a rounding of t or p r does to u.
            size = abs(slope) + abs(exact)
            assert abs(exact - mp.mpf(float(t[i]))) / size <= tolerance
            assert abs(exact - mp.mpf(float(back[i]))) / size <= tolerance
        checked += 1
    assert checked > COUNT / 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", "squared", *QUADRATURE])
def test_small_steps_of_the_equation(loss):
    """All branches: learnt from below and above, forgotten from below and above the margin."""
    rate, decay = np.array([1.0, 1.0, 1.0, 1.0]), np.array([0.3, 0.3, 1.4, 1.4])
    start, t = np.array([0.05, 2.5, 0.05, 2.5]), 3.0
    pull = {
        "hinge": lambda u: (u < 1) * 1.0,
        "squared": lambda u: 1 - u,
        "exponential": lambda u: np.exp(-u),
        "cross-entropy": lambda u: 1 / (1 + np.exp(u)),
    }[loss]
    u, step = start.copy(), t / 4000
    for _ in range(4000):
        middle = u * (1 + step * (rate * pull(u) - decay))
        u = u + 2 * step * (rate * pull(middle) - decay) * middle
    tolerance = 2e-3 if loss == "hinge" else 1e-6
    np.testing.assert_allclose(theory.decayed_logit(rate, 1.0, start, decay, loss, t), u, atol=tolerance)
    back = np.asarray(theory.decayed_time(rate, 1.0, start, decay, loss, u))
    moving = slice(2, None) if loss == "hinge" else slice(None)  # the other two are at the margin
    np.testing.assert_allclose(back[moving], t, rtol=tolerance)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", "squared", *QUADRATURE])
def test_times_to_where_it_goes_and_beyond(loss):
    settled = float(theory.settled_logit(1.0, 1.0, 0.2, loss))
    u = np.array([0.05, 0.5 * settled, settled, 1.1 * settled])
    times = np.asarray(theory.decayed_time(1.0, 1.0, 0.1, 0.2, loss, u))
    assert times[0] == 0
    assert 0 < times[1] < np.inf
    assert np.isfinite(times[2]) == (loss == "hinge")
    assert times[3] == np.inf
    t = np.array([times[1], 1e300, 1e300, 1e300])
    ends = theory.decayed_logit(1.0, 1.0, [0.1, 3.0, settled, 0.1], [0.2, 0.2, 0.2, 1.2], loss, t)
    np.testing.assert_allclose(ends[:3], [u[1], settled, settled], rtol=1e-12)
    assert float(ends[3]) < 1e-300


@pytest.mark.usefixtures("x64")
def test_thresholds_and_where_modes_settle():
    for loss, g, inverse in (
        ("cross-entropy", 0.5, lambda ratio: np.log(ratio - 1)),
        ("exponential", 1, np.log),
        ("squared", 1, lambda ratio: 1 - 1 / ratio),
        ("hinge", 1, np.ones_like),
    ):
        assert float(theory.decay_threshold(0.3, 2.0, loss)) == pytest.approx(0.6 * g)
        ratio = np.array([1.001 / g, 5.0, 1e6])
        np.testing.assert_allclose(theory.settled_logit(ratio, 1.0, 1.0, loss), inverse(ratio), rtol=1e-12)
        assert float(theory.settled_logit(0.999 / g, 1.0, 1.0, loss)) == 0


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", "squared", *QUADRATURE])
def test_derivatives(loss):
    def law(numbers):
        return theory.decayed_logit(numbers[:, 0], 1.0, numbers[:, 1], numbers[:, 2], loss, numbers[:, 3])

    # Learnt, forgotten, from above, and at the threshold of cross-entropy.
    at = jnp.array([[1.0, 0.05, 0.2, 1.5], [1.0, 0.05, 1.4, 1.5], [1.0, 2.5, 0.2, 0.7], [1.0, 0.3, 0.5, 2.0]])
    slope = jax.grad(lambda numbers: law(numbers).sum())(at)
    for i in range(4):
        step = 1e-6 * np.eye(4)[i]
        np.testing.assert_allclose(slope[:, i], (law(at + step) - law(at - step)) / 2e-6, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", ["frequency", "norm", "start", "weight_decay"])
def test_numbers_must_be_positive(name):
    numbers = {"frequency": 1.0, "norm": 1.0, "start": 0.1, "weight_decay": 0.1, name: 0.0}
    with pytest.raises(ValueError, match=f"{name} must be > 0, got 0"):
        theory.decayed_logit(**numbers, loss="hinge", t=1.0)
