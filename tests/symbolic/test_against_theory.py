"""What SymPy derived, turned into JAX, against what `theory` evaluates: two roads to one number."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradstarve as gs
from gradstarve.symbolic import available

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


@pytest.mark.slow
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
    found = np.asarray(gs.theory.error_inflections(kappa, loss))
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


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_step_of_a_leaky_network_is_the_one_theory_takes(loss):
    derivation, slope, step_size = gs.derive("leaky", loss), 0.3, 0.2
    frequencies, norms, axis = (0.3, 0.7), (1.5, 0.8), np.array([0.6, 0.8])
    data = gs.Dataset([norms[0] * axis, -norms[1] * axis], [1, -1], frequencies)
    a, z = np.array([0.4, 0.7]), np.array([0.5, -0.3])
    network = gs.TwoLayerReLU(np.array([a[0] * axis, -a[1] * axis]), z, slope)
    law = gs.solve(data, network, loss, gs.GradientDescent(step_size))
    steps = np.arange(12)
    trained = law.network(steps)
    for k in steps[1:]:
        margins = [float(derivation.to_jax(f"m_{side}")(*a, *z, slope, *norms)) for side in ("plus", "minus")]
        np.testing.assert_allclose(margins, law.margins(int(k - 1)), rtol=1e-12)
        numbers = (*a, *z, slope, *frequencies, *norms, step_size)
        later = np.array([float(derivation.to_jax(f"{name}'")(*numbers)) for name in ("a1", "a2", "z1", "z2")])
        a, z = later[:2], later[2:]
        np.testing.assert_allclose([a[0], -a[1]], trained.w[k] @ axis, rtol=1e-12)
        np.testing.assert_allclose(z, trained.z[k], rtol=1e-12)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_alignment_is_the_one_theory_follows(loss):
    derivation = gs.derive("alignment", loss)
    derived = {key: derivation.to_jax(key) for key in derivation.targets}
    g0 = float(gs.problem.as_loss(loss).residual(jnp.zeros(())))
    w, z = np.array([0.8, 0.3]), -0.2
    # One point is seen, along the first axis, and left behind the direction of another one with no weight to speak of.
    x, q, y = np.array([[2.0, 0.0], [-1.0, 5.0]]), np.array([1 - 1e-14, 1e-14]), np.array([1, -1])
    phase = gs.early_alignment(gs.Dataset(x, y, q), gs.TwoLayerReLU(w[None], [z]), loss)
    k = 2 * g0
    turn, edge = float(derived["t_turn"](k, w[0], z)), float(derived["t_edge"](k, w[0], z, w[1], -1.0, 5.0))
    np.testing.assert_allclose(phase.events.time, [turn, edge], rtol=1e-10)
    t = 0.7 * edge
    found = phase.network(t)
    np.testing.assert_allclose(found.w[0, 0], derived["a(t)"](t, k, w[0], z), rtol=1e-11)
    np.testing.assert_allclose(found.z[0], derived["z(t)"](t, k, w[0], z), rtol=1e-11)
    one = gs.early_alignment(gs.Dataset([[1.0, 0.0]], [1]), gs.TwoLayerReLU(w[None], [z]), loss)
    late = derived["t_exit"](g0, w[0], z, 0.5, 1e-5)
    np.testing.assert_allclose(one.exit_time(1e-5, level=0.5), late, rtol=1e-9)
    # The second point held beside the first one.
    x, y = np.array([[1.0, 1.0], [-0.5, 2.0]]), np.array([-1, 1])
    held = gs.early_alignment(gs.Dataset(x, y), gs.TwoLayerReLU([[2.0, 0.51]], [-1.0]), loss)
    assert held.events.of(0)[0].endswith("begins to slide along the edge of point 1")
    share = float(derived["share"](*(-g0 / 2 * x[0]), g0, *x[1], 0.5, 1.0))
    assert 0 < share < 1
    before, after = (np.asarray(held.network(s).w[0]) for s in (1.1 * held.events.time[0], 1.2 * held.events.time[0]))
    moved, push = after - before, g0 / 2 * (share * x[1] - x[0])
    np.testing.assert_allclose(moved / np.linalg.norm(moved), -push / np.linalg.norm(push), rtol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", LOSSES)
def test_the_derived_step_of_kappa_is_the_one_theory_takes(loss):
    derivation, p, r, step_size, decay = gs.derive("kappa", loss), 0.6, 1.4, 0.5, 0.2
    u, kappa = gs.theory.kappa_path(p, r, 2.5, -0.4, loss, step_size, steps=20)
    lost = gs.theory.kappa_path(p, r, 2.5, -0.4, loss, step_size, steps=20, weight_decay=decay)
    for path, ending, more in (((u, kappa), "", ()), (lost, " with decay", (decay,))):
        now = [values[:-1] for values in path]
        for letter, values in zip(("u'", "kappa'"), path, strict=True):
            found = derivation.to_jax(letter + ending)(*now, p, r, step_size, *more)
            np.testing.assert_allclose(found, values[1:], rtol=1e-12, atol=1e-13)
    size = derivation.to_jax("|grad u|^2")(u, kappa, r)
    np.testing.assert_allclose(size, gs.theory.squared_gradient_norm(r, kappa, u), rtol=1e-14)
    if loss == "squared":
        edge = gs.theory.edge_of_stability(p, r, loss, step_size)
        assert float(derivation.to_jax("kappa_edge")(p, r, step_size)) == pytest.approx(float(edge), rel=1e-13)
        noisy = gs.theory.kappa_path(p, r, 2.5, -0.4, loss, step_size, steps=1, targets=[0.3])
        for letter, values in zip(("u'", "kappa'"), noisy, strict=True):
            found = derivation.to_jax(f"{letter} with noise")(-0.4, 2.5, p, r, step_size, 0.3)
            assert float(values[1]) == pytest.approx(float(found), rel=1e-13)
    if loss != "hinge":
        critical = gs.theory.kappa_critical(loss)
        time = float(derivation.to_jax("t_rich")(2.5, critical, decay))
        assert time == pytest.approx(float(gs.theory.lazy_to_rich_time(2.5, decay, loss)), rel=1e-13)
        later = float(derivation.to_jax("kappa(t)")(time, 2.5, decay))
        assert later == pytest.approx(float(gs.theory.decayed_kappa(2.5, decay, time)), rel=1e-13)


@pytest.mark.usefixtures("x64")
def test_the_derived_linearised_network_is_the_one_theory_has():
    from gradstarve.theory import ntk

    derivation, rng = gs.derive("linearised", "cross-entropy"), np.random.default_rng(3)
    angle, strengths, ridge = 0.4, np.array([3.0, 0.7]), 0.05
    U = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    kernel = U * strengths @ U.T
    kernel[1, 0] = kernel[0, 1]
    best = ntk.ridge_optimum(kernel, ridge)
    m, alpha = np.asarray(best.margins), np.asarray(best.alpha)
    assert float(derivation.to_jax("m1*")(*alpha, *kernel[0], ridge)) == pytest.approx(m[0], rel=1e-12)
    assert float(derivation.to_jax("dalpha1/dt")(*alpha, *kernel[0], ridge)) == pytest.approx(0, abs=1e-12)
    table = np.asarray(ntk.starvation_derivatives(kernel, ridge))
    signs = np.sign(U.sum(0))  # those of `features`; the derivation takes U as it is
    for j, key in enumerate(("dz1/d(s1^2)", "dz2/d(s1^2)")):
        found = float(derivation.to_jax(key)(*m, angle, *strengths, ridge))
        assert found * signs[j] == pytest.approx(table[j, 0], rel=1e-10)
    # A short time of the flow moves by its speed.
    start, t = rng.normal(size=2), 1e-6
    moved = (np.asarray(ntk.logistic_flow(kernel, t, start)) - start) / t
    speeds = [float(derivation.to_jax(key)(*start, *row)) for key, row in zip(("dm1/dt", "dm2/dt"), kernel, strict=True)]
    np.testing.assert_allclose(moved, speeds, rtol=1e-5)
    level = float(ntk.spectral_decoupling_optimum(2, 0.2)[0])
    assert float(derivation.to_jax("penalty(m)")(level)) == pytest.approx(0.2, rel=1e-12)
    # Small errors and small penalties: what is left out is of the order of the error itself.
    few = float(ntk.ridge_optimum(1e4 * np.eye(2), 1e-3).alpha[0])
    assert float(derivation.to_jax("alpha small")(1e4, 1e-3)) == pytest.approx(few, rel=2e-6)
    level = float(ntk.spectral_decoupling_optimum(2, 1e-8)[0])
    assert float(derivation.to_jax("m small penalty")(1e-8)) == pytest.approx(level, rel=1e-6)


MODIFIED = {  # a law and its numbers -> the loss of the library
    "flipped-labels": ("share", 0.15, gs.FlippedLabels),
    "margin-shift": ("shift", 0.6, gs.MarginShift),
    "temperature": ("temperature", 1.7, gs.Temperature),
    "focal": ("gamma", 1.5, lambda loss, gamma: gs.Focal(gamma)),
}


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "loss"), [(name, loss) for name, loss in available() if name in MODIFIED])
def test_the_derived_modified_losses_are_those_of_the_library(name, loss):
    derivation, rng = gs.derive(name, loss), np.random.default_rng(4)
    letter, number, make = MODIFIED[name]
    own = make(loss, number)
    margins = jnp.linspace(-3, 3, 50)
    found = derivation.to_jax("g(m)")(margins, number)
    np.testing.assert_allclose(found, own.residual(margins), rtol=1e-12, atol=1e-15)
    p, r, a, z, kappa, u0 = random_mode(rng)
    law = gs.solve_mode(gs.Mode(p, r, a, z), own)
    numbers = {"p": p, "r": r, "kappa": kappa, letter: number}
    # The logit moves at the derived speed, and comes to the derived rest.
    pace, step = 1 / (p * r), 1e-4 / (p * r)
    before, now, after, rest = law.logit(np.array([0.3 * pace - step, 0.3 * pace, 0.3 * pace + step, 1e4 * pace]))
    speed = derivation.to_jax("du/dt")(u=now, **numbers)
    assert float(speed) == pytest.approx(float(after - before) / (2 * step), rel=1e-6)
    if "u*" in derivation.targets:
        assert float(derivation.to_jax("u*")(number)) == pytest.approx(float(rest), rel=1e-10)
    if "t(u)" in derivation.targets:
        u = np.linspace(u0, 0.6, 5)[1:]
        times = derivation.to_jax("t(u)")(u=u, u0=u0, **numbers)
        np.testing.assert_allclose(times, law.time_to_logit(u), rtol=1e-9)
    if "plateau" in derivation.targets:
        small = gs.solve_mode(gs.Mode(p, r, [1e-9], [1e-9]), own).time_to_logit(1e-7)
        plateau = derivation.to_jax("plateau")(p=p, r=r, share=number, u0=1e-18 * r / 1e-7)
        assert float(small) == pytest.approx(float(plateau), rel=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge", "exponential", "squared"])
def test_the_derived_steps_of_the_optimisers_are_those_theory_takes(loss):
    derivation, p, r, step_size, radius = gs.derive("step", loss), 0.6, 1.4, 0.1, 0.05
    a, z = np.array([0.3, 0.2, 0.4]), np.array([0.1, -0.1, 0.2])
    mode = gs.Mode(p, r, a, z)
    for dynamics, ending, more in (
        (gs.NormalizedGradientDescent(step_size), "of a given length", (step_size,)),
        (gs.SharpnessAware(step_size, radius), "elsewhere", (p, r, step_size, radius)),
    ):
        a_later, z_later = (np.asarray(v) for v in gs.solve_mode(mode, loss, dynamics).weights(1))
        sums = np.sum((a + z) ** 2), np.sum((a - z) ** 2)
        for letter, sign in (("M_plus'", 1), ("M_minus'", -1)):
            found = float(derivation.to_jax(f"{letter} {ending}")(*sums, *more))
            assert np.sum((a_later + sign * z_later) ** 2) == pytest.approx(found, rel=1e-13)
    # Next to the border a neuron of a small step lives or dies.
    border = float(derivation.to_jax("z_border")(0.3, 1e-3, 4e-3))
    layers = gs.GradientDescent(1e-3, read_out_step_size=4e-3)
    pair = gs.solve_mode(gs.Mode(p, r, [0.3, 0.3], [border + 0.02, border - 0.02]), loss, layers)
    assert np.isfinite(np.asarray(pair.leaving_step(10_000))).tolist() == [False, True]
    if loss == "hinge":
        solution = gs.solve_mode(mode, loss, gs.StochasticGradientDescent(step_size, batch_size=3))
        rise, fall = (float(derivation.to_jax(name)(p, r, step_size, 3)) for name in ("mu_plus", "mu_minus"))
        law = r / 4 * (rise**3 * np.sum((a + z) ** 2) - fall**3 * np.sum((a - z) ** 2))
        assert float(solution.expected_logit(3)) == pytest.approx(law, rel=1e-13)
