"""`solve_mode` for gradient flow against mpmath, over the whole stated range, in both precisions.

2000 modes in all by default; GRADSTARVE_MODES=8000 in the environment draws as many as that.
"""

import os
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.problem import Mode
from gradstarve.theory import solve_mode

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracles import ModeOracle

LOSSES = ["cross-entropy", "hinge", "exponential", "squared"]
PER_LOSS = int(os.environ.get("GRADSTARVE_MODES", "2000")) // 4
# Every number of times compiles the clock anew, so that the tests of one shape of curve share six.
SIX = np.array([0.0, 1.0, 3.0, 10.0, 30.0, 300.0])
WIDEST = 64


def random_modes(count, dtype, seed):
    """h 1..64, p r 1e-6..1e6, |u0| down to 1e-300 (1e-35), kappa 0, 1e-12..1e3, t 0..1e300 (1e36), any signs of z."""
    rng = np.random.default_rng(seed)
    double = dtype == np.float64
    smallest, latest = (-300, 300) if double else (-35, 36)
    rows = []
    for i in range(count):
        h = int(rng.choice([1, 1, 2, 3, 5, 8, 16, 32, 64]))
        p, pr = 10 ** rng.uniform(-6, 0), 10 ** rng.uniform(-6, 6)
        r = pr / p
        gauss, positive = rng.normal(size=h), np.abs(rng.normal(size=h))
        wide, tiny = 10 ** rng.uniform(-6, 0.5), 10 ** (rng.uniform(smallest, 1) / 2)
        stretch = 10 ** rng.uniform(-3, 1.4)
        a, z = [
            (tiny * rng.uniform(0.3, 1, h),) * 2,  # balanced: kappa = 0 exactly
            (wide * positive, wide * gauss),  # any signs: half of the neurons die
            (wide * positive * stretch, wide / stretch * gauss),  # lazy
            (wide * positive, wide * positive * (1 + 10 ** rng.uniform(-14, -3) * gauss)),  # kappa small, not 0
            (wide * positive, -wide * positive * (1 + 10 ** rng.uniform(-10, 0) * gauss)),  # starts at u < 0
            (tiny * positive, tiny * gauss),  # any signs and a long plateau
        ][i % 6]
        tau = [0, 10 ** rng.uniform(-3, 1.5), 10 ** rng.uniform(0, 3.3), 10 ** rng.uniform(3, latest - 4)][rng.integers(4)]
        t = 10.0**latest if rng.random() < 0.03 else min(tau / (2 * pr), 10.0**latest)
        pad = (0, WIDEST - h)  # a = z = 0 is a neuron that sees nothing
        rows.append((p, r, np.pad(a / np.sqrt(r), pad), np.pad(z / np.sqrt(r), pad), t))
    return [np.array(column, dtype) for column in zip(*rows, strict=True)]


def angle_errors(dtype, loss, seed, count):
    """|du| / sqrt(kappa^2 + u^2) of every mode (|du| where the mode has died out and the root is 0)."""
    p, r, a, z, t = random_modes(count, dtype, seed)
    law = jax.jit(jax.vmap(lambda p, r, a, z, t: solve_mode(Mode(p, r, a, z), loss).logit(t)))
    logits = np.asarray(law(p, r, a, z, t), np.float64)
    assert np.isfinite(logits).all()
    errors = []
    with mp.workprec(80):
        for i in range(count):
            if logits[i] == 0 and not ((a[i] > 0) & (a[i] + z[i] > 0)).any():
                # Everybody died: u is 0 up to what underflows, and has no angle left to compare.
                errors.append(0.0)
                continue
            exact, steep = ModeOracle(p[i], r[i], a[i], z[i], loss).logit(t[i], logits[i])
            gap = abs(exact - mp.mpf(logits[i]))
            errors.append(float(gap / steep) if steep > 1e-300 else float(gap))
    return np.array(errors)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_float64_to_1e_10(loss):
    assert angle_errors(np.float64, loss, 5, PER_LOSS).max() <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("loss", LOSSES)
def test_float32_to_2e_5(loss):
    assert angle_errors(np.float32, loss, 6, PER_LOSS // 8).max() <= 2e-5


class ExactMode(ModeOracle):
    """The oracle with arguments in mpmath, for differences far below the rounding of floats."""

    def __init__(self, h, numbers, loss):
        self.p, self.r, self.loss = numbers[0], numbers[1], loss
        self.a, self.z, self.t = numbers[2 : 2 + h], numbers[2 + h : 2 + 2 * h], numbers[-1]
        self._prepare()

    def value(self, guess):
        rate = 2 * self.p * self.r
        if self.loss == "hinge":
            return self._hinge(rate * self.t)
        if self.loss == "squared":
            return self._squared(rate * self.t)
        angle = self._angle_near(mp.mpf(guess))
        for _ in range(12):
            step = (self.t - self.time(angle)) * rate * self.residual(self.state(angle)[0])
            angle += step
            if abs(step) < mp.mpf(10) ** -11:  # and so the next would be below 1e-18
                return self.state(angle)
        raise ArithmeticError("no convergence")


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_match_differences_of_the_reference(loss):
    rng = np.random.default_rng(3)

    def law(p, r, a, z, t):
        return solve_mode(Mode(p, r, a, z), loss).logit(t)

    value_and_gradient = jax.jit(jax.value_and_grad(law, argnums=(0, 1, 2, 3, 4)))
    for i in range(max(6, 6 * PER_LOSS // 1000)):
        h, p, r = 4, 10 ** rng.uniform(-3, 0), 10 ** rng.uniform(-2, 2)
        scale = 10 ** rng.uniform(-3, 0.3) / np.sqrt(r)
        a, z = scale * np.abs(rng.normal(size=h)), scale * rng.normal(size=h)
        if i % 6 == 0:
            z = a.copy()
        if i % 6 == 1:
            a = a / a.max() * 10 ** rng.uniform(-150, -3)
            z = a.copy()
        t = 1e250 if i % 6 == 2 else 10 ** rng.uniform(-1, 3) / (2 * p * r)
        arguments = [jnp.asarray(x, jnp.float64) for x in (p, r, a, z, t)]
        value, gradient = value_and_gradient(*arguments)
        guess, ours = float(value), np.concatenate([np.ravel(g) for g in gradient])
        with mp.workprec(130):
            base = [mp.mpf(float(x)) for x in np.concatenate([np.ravel(x) for x in arguments])]
            steep = float(ExactMode(h, base, loss).value(guess)[1])
            for k, value in enumerate(base):
                step = abs(value) * mp.mpf(10) ** -12
                ends = [ExactMode(h, [*base[:k], value + s, *base[k + 1 :]], loss).value(guess)[0] for s in (step, -step)]
                exact = float((ends[0] - ends[1]) / (2 * step))
                # Relative to itself, or to what a relative change of the argument does to the angle.
                size = max(abs(exact), steep / abs(float(value)))
                assert abs(ours[k] - exact) <= 1e-6 * size


def mode(**changes):
    return Mode(**{"frequency": 0.4, "norm": 1.3, "a": [0.2, 0.3, 0.1], "z": [0.1, -0.4, 0.2], **changes})


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
class TestPhysics:
    @pytest.mark.slow
    def test_starts_where_it_starts(self, loss):
        solution = solve_mode(mode(), loss)
        assert float(solution.logit(0.0)) == pytest.approx(float(mode().logit), rel=1e-14)
        a, z = solution.weights(0.0)
        np.testing.assert_allclose(a, mode().a, rtol=1e-14)
        np.testing.assert_allclose(z, mode().z, rtol=1e-14)

    @pytest.mark.slow
    def test_array_times_equal_single_times_of_any_shape(self, loss):
        times = np.linspace(0, 30, 6).reshape(2, 3)
        solution = solve_mode(mode(), loss)
        together = solution.logit(times)
        assert together.shape == (2, 3)
        np.testing.assert_allclose(together.reshape(-1), [float(solution.logit(t)) for t in times.reshape(-1)], rtol=1e-13)

    @pytest.mark.slow
    def test_stopping_and_starting_again_changes_nothing(self, loss):
        solution = solve_mode(mode(), loss)
        a, z = solution.weights(4.0)
        again = solve_mode(mode(a=a, z=z), loss)
        np.testing.assert_allclose(again.logit(SIX), solution.logit(4 + SIX), rtol=1e-11, atol=1e-13)

    def test_the_weights_give_the_logit_and_keep_the_balance(self, loss):
        solution = solve_mode(mode(), loss)
        a, z = map(np.asarray, solution.weights(SIX))
        np.testing.assert_allclose(1.3 * (a * z * (a > 0)).sum(-1), solution.logit(SIX), rtol=1e-11)
        np.testing.assert_allclose(a**2 - z**2, np.broadcast_to(np.asarray(mode().a**2 - mode().z**2), a.shape), atol=1e-11)

    def test_rescaled_time_is_rescaled_frequency(self, loss):
        slow = solve_mode(mode(frequency=0.1), loss).logit(4 * SIX)
        np.testing.assert_allclose(slow, solve_mode(mode(), loss).logit(SIX), rtol=1e-12)

    def test_the_order_of_the_neurons_does_not_matter(self, loss):
        turned = solve_mode(mode(a=[0.1, 0.2, 0.3], z=[0.2, 0.1, -0.4]), loss)
        np.testing.assert_allclose(turned.logit(SIX), solve_mode(mode(), loss).logit(SIX), rtol=1e-13)

    def test_time_to_logit_inverts_the_curve(self, loss):
        solution = solve_mode(mode(), loss)
        targets = np.array([-0.05, 0.2, 0.9])
        np.testing.assert_allclose(solution.logit(solution.time_to_logit(targets)), targets, rtol=1e-10)
        assert float(solution.time_to_logit(-10.0)) == 0
        beyond = float(solution.time_to_logit(2.0))
        assert np.isinf(beyond) == (loss in ("hinge", "squared"))

    def test_time_to_error_is_time_to_its_logit(self, loss):
        solution = solve_mode(mode(), loss)
        np.testing.assert_allclose(solution.error(solution.time_to_error(0.3)), 0.3, rtol=1e-10)
        with pytest.raises(ValueError, match=r"\(0, 1\)"):
            solution.time_to_error(1.0)

    def test_the_wrong_sign_neuron_leaves_at_its_event(self, loss):
        solution = solve_mode(mode(), loss)
        event = float(solution.events[1])
        assert np.isfinite(event)
        assert np.isinf(np.asarray(solution.events)[[0, 2]]).all()
        before, after = solution.weights(event * (1 - 1e-6)), solution.weights(event * (1 + 1e-6))
        assert before[0][1] > 0
        assert after[0][1] == 0
        assert float(after[1][1]) == pytest.approx(-np.sqrt(0.4**2 - 0.3**2), rel=1e-9)

    def test_a_batch_is_its_members(self, loss):
        a, z = np.array([[0.2, 0.3, 0.1], [0.1, 0.5, 0.2]]), np.array([[0.1, -0.4, 0.2], [0.3, 0.2, -0.3]])
        p = np.array([0.2, 0.7])
        both = solve_mode(Mode(p, 1.0, a, z), loss).logit(SIX)
        each = [solve_mode(Mode(p[i], 1.0, a[i], z[i]), loss).logit(SIX) for i in range(2)]
        np.testing.assert_allclose(both, each, rtol=1e-13)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_balanced_hinge_is_an_exponential_until_the_margin():
    solution = solve_mode(Mode(0.5, 2.0, [0.1], [0.1]), "hinge")
    t = np.linspace(0, 1.5, 7)
    np.testing.assert_allclose(solution.logit(t), 0.02 * np.exp(2 * t), rtol=1e-13)
    assert float(solution.time_to_logit(1.0)) == pytest.approx(np.log(50) / 2, rel=1e-13)
    assert float(solution.logit(1e300)) == 1


@pytest.mark.usefixtures("x64")
def test_balanced_squared_loss_is_logistic():
    solution = solve_mode(Mode(0.5, 2.0, [0.1], [0.1]), "squared")
    t = np.linspace(0, 20, 9)
    np.testing.assert_allclose(solution.logit(t), 1 / (1 + (1 / 0.02 - 1) * np.exp(-2 * t)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_squared_loss_comes_down_to_its_target_and_loses_neurons_on_the_way():
    start = Mode(1.0, 1.0, [0.3, 2.0], [2.0, 1.9])
    solution = solve_mode(start, "squared")
    assert float(start.logit) > 1
    logits = np.asarray(solution.logit(np.linspace(0, 30, 50)))
    assert (np.diff(logits) <= 1e-12).all()
    assert logits[-1] == pytest.approx(1, abs=1e-8)
    assert np.isfinite(float(solution.events[0]))
    a, z = map(np.asarray, solution.weights(30.0))
    assert a[0] == 0
    assert (a * z)[1] == pytest.approx(1, abs=1e-8)


@pytest.mark.parametrize("t", [-1.0, float("nan"), float("inf"), [0.0, -1e-9], 1e300])
def test_bad_times_are_errors(t):
    with pytest.raises(ValueError, match=r"times must be finite and >= 0|beyond float32"):
        solve_mode(mode(), "hinge").logit(t)


def test_bad_times_inside_jit_are_errors_too():
    law = jax.jit(lambda t: solve_mode(mode(), "hinge").logit(t))
    with pytest.raises(Exception, match="times must be finite"):
        law(-1.0).block_until_ready()
