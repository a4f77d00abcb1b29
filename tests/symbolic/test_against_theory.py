"""What SymPy derived, turned into JAX, against what `theory` evaluates: two roads to one number."""

import numpy as np
import pytest

import gradstarve as gs

LOSSES = ["cross-entropy", "hinge", "exponential", "squared"]


def random_mode(rng):
    """One or more right-sign neurons, with the numbers the derived formulas speak of."""
    h = int(rng.integers(1, 5))
    scale = 10 ** rng.uniform(-2, -0.5)
    a = scale * np.abs(rng.normal(size=h)) + 1e-3
    z = scale * np.abs(rng.normal(size=h)) + 1e-3
    p, r = rng.uniform(0.05, 1), 10 ** rng.uniform(-0.5, 0.5)
    kappa = r * np.sqrt(np.sum((a + z) ** 2) * np.sum((a - z) ** 2)) / 2
    return p, r, a, z, kappa, r * np.sum(a * z)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_clock_is_the_one_theory_runs(loss):
    rng = np.random.default_rng(0)
    time_of = gs.derive("mode", loss).to_jax("t(u)")
    for _ in range(20):
        p, r, a, z, kappa, u0 = random_mode(rng)
        u = u0 + (0.95 - u0) * rng.uniform(0.05, 1)
        law = gs.solve_mode(gs.Mode(p, r, a, z), loss)
        t = float(time_of(u=u, p=p, r=r, kappa=kappa, u0=u0))
        assert t == pytest.approx(float(law.time_to_logit(u)), rel=1e-9)
        assert float(law.logit(t)) == pytest.approx(u, rel=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["hinge", "squared"])
def test_the_derived_logit_is_the_one_theory_gives(loss):
    rng = np.random.default_rng(1)
    logit_of = gs.derive("mode", loss).to_jax("u(t)")
    for _ in range(20):
        p, r, a, z, kappa, u0 = random_mode(rng)
        t = 10 ** rng.uniform(-1, 1) / (p * r)
        law = gs.solve_mode(gs.Mode(p, r, a, z), loss)
        assert float(logit_of(t=t, p=p, r=r, kappa=kappa, u0=u0)) == pytest.approx(float(law.logit(t)), rel=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_inflections_are_the_ones_theory_finds(loss):
    level, slope = (gs.derive("inflection", loss).to_jax(key) for key in ("K(u)", "K'(u)"))
    kappa = np.array([0.05, 0.3, 0.5])
    found = np.asarray(gs.theory.error_inflections(loss, kappa))
    u, width = (x[np.isfinite(found) & (found > 0)] for x in (found, np.broadcast_to(kappa[:, None], found.shape)))
    assert u.size >= (3 if loss != "hinge" else 0)
    np.testing.assert_allclose(level(u), width**2, rtol=1e-12, atol=1e-13)
    if loss != "hinge":
        # Up to kappa_c and down again: the derived slope changes sign where theory finds the transition.
        grid = np.linspace(0.01, 0.8 if loss == "cross-entropy" else 0.5, 2001)
        top = np.flatnonzero(np.diff(np.sign(slope(grid))))
        assert top.size == 1
        assert float(np.max(level(grid))) == pytest.approx(gs.theory.kappa_critical(loss) ** 2, abs=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_step_of_descent_is_the_one_theory_takes(loss):
    rng = np.random.default_rng(2)
    results = [gs.derive("descent", loss).to_jax(key) for key in ("u'", "M_plus'", "M_minus'")]
    p, r, a, z, _, _ = random_mode(rng)
    step_size = 0.3 / (p * r)
    logits = gs.solve_mode(gs.Mode(p, r, a, z), loss, gs.GradientDescent(step_size)).logit(np.arange(30))
    plus, minus = np.sum((a + z) ** 2), np.sum((a - z) ** 2)
    for step in range(1, 30):
        found, plus, minus = (float(result(plus, minus, p, r, step_size)) for result in results)
        assert float(logits[step]) == pytest.approx(found, rel=1e-11)
