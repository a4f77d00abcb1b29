"""A loss of a user's own in the flow of one mode and of a network: quadrature of (3.5) against mpmath and closed forms."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest
from numpy_descent import descent

import gradstarve as gs
from gradstarve.problem import LOSSES, Loss

pytestmark = pytest.mark.usefixtures("x64")
NAMES = tuple(LOSSES)
TIMES = np.array([0.0, 0.1, 1.0, 4.0, 9.0, 30.0, 300.0, 1e6])


class Anew(Loss):
    """One of the four losses without its name."""

    of: str

    def value(self, margin):
        return LOSSES[self.of]().value(margin)

    def residual(self, margin):
        return LOSSES[self.of]().residual(margin)


class Smoothing(Loss):
    """Cross-entropy with a share of flipped labels (18.1)."""

    share: Any

    def value(self, margin):
        return jax.nn.softplus(-margin) + self.share * margin

    def residual(self, margin):
        return jax.nn.sigmoid(-margin) - self.share


class SmoothHinge(Loss):
    """1 - m - width/2 below 1 - width, quadratic up to 1, then 0."""

    width: Any

    def value(self, margin):
        left = 1 - margin
        return jnp.where(left > self.width, left - self.width / 2, jnp.maximum(left, 0) ** 2 / (2 * self.width))

    def residual(self, margin):
        return jnp.clip((1 - margin) / self.width, 0, 1)

    @property
    def kinks(self):
        return (1 - self.width, 1.0)


class Root(Loss):
    """g = sqrt(1 - m): at rest after a finite time, though it is continuous."""

    def value(self, margin):
        return jnp.maximum(1 - margin, 0) ** 1.5 / 1.5

    def residual(self, margin):
        return jnp.sqrt(jnp.maximum(1 - margin, 0))


def mode(dtype=np.float64):
    return gs.Mode(
        dtype(0.5), dtype(1.3), a=np.array([[0.1, 0.2], [0.3, 0.02]], dtype), z=np.array([[0.1, -0.3], [0.4, -0.01]], dtype)
    )


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", NAMES)
def test_the_four_losses_written_anew_agree_with_their_closed_forms(name, dtype):
    start = mode(dtype)
    named, own = gs.solve_mode(start, name), gs.solve_mode(start, Anew(name))
    tolerance = 1e-10 if dtype == np.float64 else 1e-5
    assert own.logit(TIMES).dtype == dtype
    for times in (TIMES, TIMES[3]):
        np.testing.assert_allclose(own.logit(times), named.logit(times), rtol=tolerance, atol=tolerance)
    for ours, theirs in zip(own.weights(TIMES), named.weights(TIMES), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
    goals = np.array([-1.0, 0.05, 0.5, 0.99, 1.0, 2.0, 6.0])
    np.testing.assert_allclose(own.time_to_logit(goals), named.time_to_logit(goals), rtol=10 * tolerance)
    np.testing.assert_allclose(own.events, named.events, rtol=tolerance)


@pytest.mark.slow
def test_above_its_rest_the_clock_runs_backwards():
    start = gs.Mode(0.5, 1.0, a=[2.0, 1.0, 0.1], z=[1.5, -0.2, 0.4])
    named, own = gs.solve_mode(start, "squared"), gs.solve_mode(start, Anew("squared"))
    np.testing.assert_allclose(own.logit(TIMES), named.logit(TIMES), rtol=1e-6)
    assert np.isfinite(own.events).any()
    np.testing.assert_allclose(own.events, named.events, rtol=1e-6)
    assert np.isinf(own.time_to_logit(4.0))
    assert float(own.time_to_logit(2.0)) == 0


@pytest.mark.parametrize("name", NAMES)
def test_the_time_to_a_loss_is_that_of_the_closed_form(name):
    start = mode()
    named, own = gs.solve_mode(start, name), gs.solve_mode(start, Anew(name))
    first = LOSSES[name]().value(named.logit(0.0))
    goals = np.concatenate([np.linspace(0.02, 1.1, 7) * float(first.max()), [0.0, 1e-3]])
    np.testing.assert_allclose(own.time_to_loss(goals), named.time_to_loss(goals), rtol=1e-8)


@pytest.mark.slow
def test_the_time_to_a_loss_from_both_sides_of_the_rest():
    share = 0.1
    start = gs.Mode(0.5, 1.0, a=[[0.3], [2.0]], z=[[0.3], [2.0]])
    solution = gs.solve_mode(start, Smoothing(share))
    least = float(Smoothing(share).value(jnp.log((1 - share) / share)))
    goals = np.array([0.6, 0.5, 0.4, least + 1e-3, least - 1e-3])
    times = np.asarray(solution.time_to_loss(goals))
    assert (times[1] == 0).sum() == 2
    assert np.isinf(times[:, -1]).all()
    found = Smoothing(share).value(solution.logit(times[:, :-1].reshape(-1))).reshape(2, 2, 4)[[0, 1], [0, 1]]
    first = Smoothing(share).value(jnp.array([0.3**2, 2.0**2]))
    np.testing.assert_allclose(found, np.minimum(goals[:-1], first[:, None]), rtol=1e-10)


class Branching(Smoothing):
    """Asks `if` of its number, which a traced one does not answer."""

    def residual(self, margin):
        return jax.nn.sigmoid(-margin) - (self.share if self.share > 0 else 0.0)


class Counting(Smoothing):
    """Counts how often its residual is asked for, which a compiled program does not do."""

    asked = []

    def residual(self, margin):
        self.asked.append(margin)
        return super().residual(margin)


@pytest.mark.slow
def test_another_number_of_a_loss_is_no_new_compilation():
    start = gs.Mode(0.5, 1.0, a=[0.3], z=[0.3])
    first = gs.solve_mode(start, Counting(0.1)).logit(3.0)
    many = len(Counting.asked)
    other = gs.solve_mode(start, Counting(0.2)).logit(3.0)
    assert len(Counting.asked) - many < many / 4
    assert float(other) < float(first) - 1e-2
    np.testing.assert_allclose(gs.solve_mode(start, Branching(0.2)).logit(3.0), other, rtol=1e-12)


@pytest.mark.slow
def test_the_derivative_of_a_time_to_a_loss_in_the_number_of_the_loss():
    def time(share):
        return gs.solve_mode(gs.Mode(0.5, 1.0, a=[0.3], z=[0.3]), Smoothing(share)).time_to_loss(0.5)

    numeric = (time(0.1 + 1e-5) - time(0.1 - 1e-5)) / 2e-5
    np.testing.assert_allclose(jax.grad(time)(0.1), numeric, rtol=1e-6)


class Bare(Loss):
    """Cross-entropy without a field of its own."""

    least = 0.0

    def value(self, margin):
        return jax.nn.softplus(-margin)

    def residual(self, margin):
        return jax.nn.sigmoid(-margin)


class NegativeTanh(Loss):
    """-tanh m, below 0 for every margin above 0."""

    def value(self, margin):
        return -jnp.tanh(margin)

    def residual(self, margin):
        return 1 / jnp.cosh(margin) ** 2


class TwoSlopes(Loss):
    """g = 1 below 0.3, 1/4 up to 1, then 0; no kink is announced."""

    def value(self, margin):
        return jnp.where(margin < 0.3, 0.475 - margin, jnp.maximum(0, 0.25 * (1 - margin)))

    def residual(self, margin):
        return jnp.where(margin < 0.3, 1.0, jnp.where(margin < 1, 0.25, 0.0))


class Announced(TwoSlopes):
    kinks = (0.3, 1.0)


def two_classes():
    return gs.datasets.antipodal(frequencies=(0.8, 0.2)), gs.TwoLayerReLU(w=[[0.3, 0.1], [-0.2, 0.4]], z=[0.2, -0.1])


@pytest.mark.slow
def test_a_loss_without_fields_is_called_by_its_class():
    assert (Bare().name, gs.SpectralDecoupling(Bare(), 0.1).name) == ("Bare", "Bare + spectral decoupling")
    own = gs.solve(*two_classes(), Bare())
    with pytest.raises(ValueError, match="the Bare loss is never below 0"):
        own.time_to_loss(-1.0)
    assert gs.sweep(two_classes()[0], 4, steps=5, width=2, loss=Bare(), progress=False).seeds == range(4)


@pytest.mark.slow
def test_the_time_to_a_loss_below_zero():
    solution = gs.solve(*two_classes(), NegativeTanh())
    for level in (-0.1, -0.2, -0.6):
        np.testing.assert_allclose(solution.loss(solution.time_to_loss(level)), level, rtol=1e-12)


def test_a_jump_that_is_not_announced_costs_no_digits():
    rng = np.random.default_rng(0)
    a = rng.uniform(0.05, 0.5, (200, 2))
    start = gs.Mode(0.6, 1.3, a, a * rng.uniform(-0.5, 0.9, (200, 2)))
    for t in (1.0, 3.0):
        own, wanted = (gs.solve_mode(start, loss).logit(t) for loss in (TwoSlopes(), Announced()))
        np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-11)
    hinge, own = (gs.solve_mode(start, loss).time_to_logit(1.0) for loss in ("hinge", Anew("hinge")))
    np.testing.assert_allclose(own, hinge, rtol=1e-12)


def oracle(residual, u0, kappa, goal, rate):
    """(3.5) by mpmath, in the angle."""
    mp.mp.dps = 30
    kappa, u0 = mp.mpf(kappa), mp.mpf(u0)
    low, high = (mp.asinh(mp.mpf(u) / kappa) for u in (u0, goal))
    cuts = [low + (high - low) * k / 40 for k in range(41)]
    return mp.quad(lambda x: 1 / residual(kappa * mp.sinh(x)), cuts) / rate


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
def test_label_smoothing_takes_the_time_of_the_integral(share):
    start = gs.Mode(0.7, 1.1, a=np.array([0.1, 0.5]), z=np.array([0.1, 0.2]))
    solution = gs.solve_mode(start, Smoothing(share))
    rest = np.log((1 - share) / share)
    a, z = np.asarray(start.a, float), np.asarray(start.z, float)
    grown, decayed = 1.1 * ((a + z) ** 2).sum() / 4, 1.1 * ((a - z) ** 2).sum() / 4
    u0, kappa = grown - decayed, 2 * np.sqrt(grown * decayed)
    for part in (0.5, 0.99, 0.999999):
        goal = u0 + part * (rest - u0)
        wanted = oracle(lambda u: 1 / (1 + mp.exp(u)) - mp.mpf(share), u0, kappa, goal, 2 * 0.7 * 1.1)
        found = float(solution.time_to_logit(goal))
        assert abs(found - wanted) < 1e-9 * wanted
        assert abs(float(solution.logit(float(wanted))) - goal) < 1e-10
    assert np.isinf(solution.time_to_logit(rest + 1e-6))
    np.testing.assert_allclose(solution.logit([1e4, 1e9, 1e300]), rest, rtol=1e-10)


@pytest.mark.slow
def test_a_smoothed_hinge_comes_to_rest_exponentially_and_a_root_in_finite_time():
    width, u0 = 0.25, 0.1
    start = gs.Mode(1.0, 1.0, a=np.array([np.sqrt(u0)]), z=np.array([np.sqrt(u0)]))
    solution = gs.solve_mode(start, SmoothHinge(width))
    # Balanced: e^(2 t) up to 1 - width, then du/dt = 2 u (1 - u)/width, a logistic curve.
    turn = np.log((1 - width) / u0) / 2
    np.testing.assert_allclose(solution.time_to_logit(1 - width), turn, rtol=1e-10)
    for later in (0.1, 1.0, 3.0):
        odds = (1 - width) / width * np.exp(2 * later / width)
        np.testing.assert_allclose(solution.logit(turn + later), odds / (1 + odds), rtol=1e-10)
    assert np.isinf(solution.time_to_logit(1.0))
    # Balanced with g = sqrt(1 - u): 2 t = 2 [artanh sqrt(1 - u0) - artanh sqrt(1 - u)].
    root = gs.solve_mode(start, Root())
    over = np.arctanh(np.sqrt(1 - u0))
    np.testing.assert_allclose(root.time_to_logit(1.0), over, rtol=1e-7)
    np.testing.assert_allclose(root.logit([over + 0.1, 100.0]), 1.0, rtol=1e-10)
    np.testing.assert_allclose(root.logit(0.5 * over), 1 - np.tanh(over / 2) ** 2, rtol=1e-10)


@pytest.mark.slow
def test_derivatives_in_the_problem_and_in_the_numbers_of_the_loss():
    width, u0, t = 0.25, 0.1, 1.3
    turn = np.log((1 - width) / u0) / 2

    @jax.jit
    def logit(size, width, t):
        start = gs.Mode(jnp.asarray(1.0), jnp.asarray(1.0), jnp.sqrt(size)[None], jnp.sqrt(size)[None])
        return gs.solve_mode(start, SmoothHinge(width)).logit(t)

    def by_hand(size, width, t):
        later = t - jnp.log((1 - width) / size) / 2
        odds = (1 - width) / width * jnp.exp(2 * later / width)
        return odds / (1 + odds)

    at = (jnp.asarray(u0), jnp.asarray(width), jnp.asarray(t))
    assert t > turn
    for transform in (jax.jacfwd, jax.grad):
        for ours, theirs in zip(transform(logit, (0, 1, 2))(*at), transform(by_hand, (0, 1, 2))(*at), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=1e-8)
    # At rest only the rest itself is left of it.
    share = jnp.asarray(0.1)
    start = gs.Mode(1.0, 1.0, [0.4], [0.4])
    late = jax.grad(lambda share: gs.solve_mode(start, Smoothing(share)).logit(1e6))(share)
    np.testing.assert_allclose(late, -1 / (0.1 * 0.9), rtol=1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["antipodal", "orthogonal"])
@pytest.mark.parametrize("own", [Smoothing(0.1), SmoothHinge(0.5)])
def test_networks_train_by_the_flow_of_ones_own_loss(kind, own):
    data = getattr(gs.datasets, kind)(frequencies=(0.7, 0.3))
    w = np.array([[0.4, -0.1], [-0.3, 0.2], [0.2, -0.3], [-0.5, 0.1]])
    network = gs.TwoLayerReLU(w=w, z=np.array([0.2, -0.4, -0.5, 0.1]))
    solution = gs.solve(data, network, own)
    t = 6.0
    # Richardson: the error of small steps is linear in the step.
    coarse, fine = (descent(lambda m: np.asarray(own.residual(m)), network, data, t / n, n) for n in (4000, 8000))
    np.testing.assert_allclose(solution.margins(t), 2 * fine - coarse, atol=2e-5)
    anew = gs.solve(data, network, Anew("cross-entropy")).margins(TIMES)
    np.testing.assert_allclose(anew, gs.solve(data, network, "cross-entropy").margins(TIMES), rtol=1e-10, atol=1e-10)


def test_antipodal_classes_above_their_rest_are_refused():
    network = gs.TwoLayerReLU(w=[[2.0, 0.0], [-1.0, 0.0]], z=[2.0, -0.1])
    with pytest.raises(gs.HypothesisError, match="its rest or below"):
        gs.solve(gs.datasets.antipodal(), network, Smoothing(0.2))


def test_a_residual_that_is_nan_is_an_error():
    class Broken(Loss):
        def residual(self, margin):
            return jnp.log(margin - 5)

    with pytest.raises(gs.ConvergenceError, match="residual is NaN"):
        gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), Broken()).logit(1.0)


class Growing(Loss):
    """g = c0 + c1 m + c2 m^2: the logit blows up in finite time where c1 or c2 > 0."""

    c: Any

    def residual(self, margin):
        c0, c1, c2 = self.c
        return c0 + margin * (c1 + margin * c2)


class Level(Loss):
    """g = 1 for ever."""

    def residual(self, margin):
        return jnp.ones_like(margin)


def in_halves(start):
    """(u(0), kappa) of a mode of one network, all of whose neurons stay."""
    grown, decayed = (float(start.norm) * np.sum(q**2) / 4 for q in (start.a + start.z, start.a - start.z))
    return float(grown - decayed), float(2 * np.sqrt(grown * decayed))


@pytest.mark.slow
@pytest.mark.parametrize("c", [(0.0, 1.0, 0.0), (1.0, 0.0, 1.0), (2.0, 0.5, 0.1)])
def test_a_flow_that_blows_up_is_right_until_then_and_an_error_afterwards(c):
    start = gs.Mode(0.7, 1.1, a=np.array([0.4, 0.5]), z=np.array([0.3, -0.1]))
    solution = gs.solve_mode(start, Growing(tuple(map(jnp.array, c))))
    u0, kappa = in_halves(start)

    def residual(u):
        return c[0] + c[1] * u + c[2] * u**2

    goals = np.array([1.0, 10.0, 1e3, 1e200])
    wanted = [oracle(residual, u0, kappa, goal, 2 * 0.7 * 1.1) for goal in goals]
    np.testing.assert_allclose(solution.time_to_logit(goals), np.array(wanted, float), rtol=1e-10)
    np.testing.assert_allclose(solution.logit(np.array(wanted[:2], float)), goals[:2], rtol=1e-9)
    end = float(wanted[-1])
    for late in (end * (1 + 1e-6), 1e6):
        with pytest.raises(gs.ConvergenceError, match=f"loss Growing leaves the floats at t = {end:.6g}.*earlier times"):
            solution.logit([0.1, late])
    with pytest.raises(gs.ConvergenceError, match="loss Growing leaves the floats"):
        solution.weights([0.1, 1e6])


def test_a_blow_up_is_an_error_inside_jit():
    solution = gs.solve_mode(gs.Mode(0.7, 1.1, a=[0.4], z=[0.3]), Growing((1.0, 1.0, 0.0)))
    with pytest.raises(RuntimeError, match="loss Growing leaves the floats before these times"):
        jax.jit(lambda t: solution.logit(t))(jnp.array([0.1, 1e6]))


@pytest.mark.slow
def test_a_residual_that_never_falls_leads_beyond_the_floats_at_no_finite_time():
    start = gs.Mode(1.0, 1.0, a=np.array([0.4]), z=np.array([0.3]))
    solution = gs.solve_mode(start, Level())
    u0, kappa = in_halves(start)
    times = np.array([0.1, 3.0, 350.0, 500.0, 1e6])
    with np.errstate(over="ignore"):
        np.testing.assert_allclose(solution.logit(times), kappa * np.sinh(np.arcsinh(u0 / kappa) + 2 * times), rtol=1e-9)
    np.testing.assert_array_equal(solution.error([500.0, 1e6]), 0)
    assert np.isfinite(solution.weights(350.0)).all()


def test_a_residual_that_is_nan_far_out_is_an_error_in_times_too():
    class Broken(Loss):
        def residual(self, margin):
            return 1 + jnp.sqrt(2 - margin)

    solution = gs.solve_mode(gs.Mode(0.5, 1.0, [0.1], [0.1]), Broken())
    assert np.isfinite(solution.time_to_logit(1.5))
    with pytest.raises(gs.ConvergenceError, match="residual is NaN"):
        solution.time_to_logit(3.0)


class Tower(Loss):
    """l = -e^m."""

    def value(self, margin):
        return -jnp.exp(margin)

    def residual(self, margin):
        return jnp.exp(margin)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_the_time_to_a_loss_next_to_the_blow_up(dtype):
    start = gs.Mode(dtype(1.0), dtype(1.0), a=np.array([0.4], dtype), z=np.array([0.3], dtype))
    u0, kappa = in_halves(start)
    wanted = [float(oracle(mp.exp, u0, kappa, np.log(-level), 2.0)) for level in (-1.5, -1e3)]
    found = gs.solve_mode(start, Tower()).time_to_loss([-1.5, -1e3])
    np.testing.assert_allclose(found, wanted, rtol=1e-10 if dtype == np.float64 else 1e-5)


def test_times_at_which_a_residual_underflows_are_an_error():
    start = mode(np.float32)
    named, own = (gs.solve_mode(start, loss) for loss in ("cross-entropy", Anew("cross-entropy")))
    times = np.float32([1e10, 1e34])
    np.testing.assert_allclose(own.logit(times), named.logit(times), rtol=1e-5)
    with pytest.raises(gs.ConvergenceError, match=r"loss Anew leaves the floats at t = \S*e\+35"):
        own.logit(np.float32([1e10, 1e37]))
