"""Curves at many times, which come from a table of each clock: against mpmath, and against the same times one by one."""

import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mpmath as mp
import numpy as np
import pytest

from gradstarve.problem import Mode
from gradstarve.special import Softmax, as_clock
from gradstarve.special import _clock as clock
from gradstarve.special import _clock_table as clock_table
from gradstarve.theory import solve_mode

sys.path.insert(0, str(Path(__file__).parents[1]))
from oracles import ModeOracle

CLOCKS, TIMES = 3000, 24


def wide_sample(dtype, seed=0):
    """(rise, fall, tau): starts from the smallest numbers to 1e3, of any sign, kappa from 0 to 1e3, tau to the largest."""
    rng = np.random.default_rng(seed)
    least, most = (-300, 300) if dtype == np.float64 else (-35, 36)
    rise = 10 ** np.where(rng.random(CLOCKS) < 0.5, rng.uniform(least, 0, CLOCKS), rng.uniform(-4, 3, CLOCKS))
    falls = [
        np.zeros(CLOCKS),
        rise * 10 ** rng.uniform(-6, 6, CLOCKS),
        10 ** rng.uniform(-4, 3, CLOCKS),
        rise * (1 + 10 ** rng.uniform(-12, 0, CLOCKS)),
        10 ** rng.uniform(least, 1, CLOCKS),
    ]
    fall = np.choose(rng.integers(0, len(falls), CLOCKS), falls)
    rise = np.where((rng.random(CLOCKS) < 0.05) & (fall > 0), 0, rise)
    plateau = 2 * np.abs(np.log(np.maximum(rise, 10.0**least)))[:, None]
    taus = [
        10 ** rng.uniform(-3, 3.3, (CLOCKS, TIMES)),
        10 ** rng.uniform(-20, most, (CLOCKS, TIMES)),
        plateau * rng.uniform(0, 1.3, (CLOCKS, TIMES)) + 10 ** rng.uniform(-6, 2, (CLOCKS, TIMES)),
    ]
    tau = np.choose(rng.integers(0, 3, (CLOCKS, TIMES)), taus)
    tau[:, 0] = 0
    tau[:, 1] = float(np.finfo(dtype).max)
    return [jnp.asarray(x, dtype) for x in (rise, fall, tau)]


def both(kind, rise, fall, tau):
    """(angle, logit) from the tables and one by one."""
    piece = jnp.zeros(tau.shape, jnp.int32)
    rise, fall = rise[:, None], fall[:, None]
    many = as_clock(kind).states_at(rise, fall, piece, tau)
    single = as_clock(kind).state_at(jnp.broadcast_to(rise, tau.shape), jnp.broadcast_to(fall, tau.shape), tau)
    return [np.asarray(x, np.float64) for x in (*many, *single)]


@pytest.mark.parametrize(
    ("dtype", "kind", "block"),
    [
        (np.float64, "cross-entropy", 999 * TIMES),  # blocks of 992, and so the last one is padded
        pytest.param(np.float64, Softmax(9.0), 1000 * TIMES, marks=pytest.mark.slow),  # blocks of 1000 leave nothing over
        (np.float32, "cross-entropy", CLOCKS * TIMES),  # one block
    ],
)
def test_tables_and_single_times_agree_over_the_whole_range(monkeypatch, dtype, kind, block):
    monkeypatch.setattr(clock_table, "_BLOCK", block)
    clock_table.states.cache_clear()
    with jax.enable_x64(dtype == np.float64):
        rise, fall, tau = wide_sample(dtype)
        angle, logit, angle_single, logit_single = both(kind, rise, fall, tau)
    clock_table.states.cache_clear()
    assert np.isfinite(angle).all()
    assert np.isfinite(logit).all()
    rise, fall = np.asarray(rise, np.float64)[:, None], np.asarray(fall, np.float64)[:, None]
    allowed = (1e-12 if dtype == np.float64 else 2e-6) * (1 + angle_single)
    assert (np.abs(angle - angle_single) <= allowed).all()
    # With rise = 0 the logit dies out, and what of it is left before it underflows has no angle to compare.
    steep = np.hypot(2 * np.sqrt(rise) * np.sqrt(fall), logit_single)
    nothing = 1e5 * float(np.finfo(dtype).tiny)
    assert (np.abs(logit - logit_single) <= allowed * steep + nothing).all()
    np.testing.assert_allclose(logit[:, 0], (rise - fall)[:, 0], rtol=4 * float(np.finfo(dtype).eps), atol=nothing)
    order = np.argsort(np.asarray(tau), axis=1)
    assert (np.diff(np.take_along_axis(angle, order, axis=1)) >= -allowed.max(axis=1, keepdims=True)).all()


def dying_modes(count, h, seed=3):
    """p, r, a, z with any signs of z, so that half of the neurons leave."""
    rng = np.random.default_rng(seed)
    scale = 10 ** rng.uniform(-3, 0.3, (count, 1))
    p, r = 10 ** rng.uniform(-2, 0, count), 10 ** rng.uniform(-1, 1, count)
    return p, r, scale * np.abs(rng.normal(size=(count, h))), scale * rng.normal(size=(count, h))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_curves_with_deaths_against_mpmath():
    p, r, a, z = dying_modes(12, 5)
    solution = solve_mode(Mode(p, r, a, z))
    assert (np.isfinite(solution.events) & (np.asarray(solution.events) > 0)).any(axis=1).sum() >= 6
    times = np.concatenate([[0.0], np.geomspace(0.1, 1e5, 15)])
    logits, angles = np.asarray(solution.logit(times)), np.asarray(solution.angle(times))
    with mp.workprec(80):
        for i in range(12):
            oracle = ModeOracle(p[i], r[i], a[i], z[i], "cross-entropy")
            for t, u, s in zip(times, logits[i], angles[i], strict=True):
                exact, steep = oracle.logit(t, u)
                assert abs(exact - u) <= 1e-11 * steep
                assert abs(oracle.state(mp.mpf(float(s)))[0] - exact) <= 1e-11 * steep * (1 + s)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_a_batch_is_the_same_under_vmap():
    p, r, a, z = (jnp.asarray(x) for x in dying_modes(7, 3))
    times = jnp.geomspace(0.5, 300, 12)

    def law(p, r, a, z):
        return solve_mode(Mode(p, r, a, z)).logit(times)

    mapped = np.asarray(jax.jit(jax.vmap(law))(p, r, a, z))
    np.testing.assert_allclose(mapped, law(p, r, a, z), rtol=1e-12, atol=1e-14)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_derivatives_at_many_times_are_those_of_single_times():
    rise, fall = jnp.array([[0.1, 0.3], [1e-5, 2e-5]]), jnp.array([[0.0, 0.4], [2e-3, 1e-3]])
    piece = jnp.tile(jnp.array([0, 1]), (2, clock.MANY // 2))
    time = jnp.geomspace(0.3, 200, 2 * clock.MANY).reshape(2, clock.MANY)

    def single(rise, fall, time):
        return as_clock("cross-entropy").state_at(*(jnp.take_along_axis(v, piece, 1) for v in (rise, fall)), time)

    given, directions = (rise, fall, time), (0.3 * rise, -0.2 * fall, 0.1 * time)
    slope = jax.jit(partial(jax.jvp, single))(given, directions)[1][1]

    def total(rise, fall, time):
        return jnp.sum(as_clock("cross-entropy").states_at(rise, fall, piece, time, want_angle=False)[1])

    gradient = jax.jit(jax.grad(total, argnums=(0, 1, 2)))(*given)
    along = sum(jnp.sum(g * d) for g, d in zip(gradient, directions, strict=True))
    assert float(along) == pytest.approx(float(jnp.sum(slope)), rel=1e-9)


def test_few_times_make_no_table(monkeypatch):
    class Asked(Exception):
        pass

    def refuse(*_):
        raise Asked

    monkeypatch.setattr(clock_table, "states", refuse)
    one = jnp.full((1, 1), 0.1)

    def ask(kind, times):
        return as_clock(kind).states_at(one, one, jnp.zeros((1, times), jnp.int32), jnp.ones((1, times)))

    ask("cross-entropy", clock.MANY - 1)
    ask("hinge", 2 * clock.MANY)
    with pytest.raises(Asked):
        ask("cross-entropy", clock.MANY)
