"""The flow against SciPy and against descent of small steps, its invariants, and how it refuses bad input.

Compiling an integrator takes seconds: the tests share one shape, 4 networks at 2 times, wherever they can.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from simulation.plain import gradient

from gradstarve.ground import ConvergenceError
from gradstarve.problem import Dataset, GradientDescent, Loss, TwoLayerReLU, datasets, init_two_layer
from gradstarve.simulation import _integrator as integrator
from gradstarve.simulation import simulate, simulate_flow
from gradstarve.theory import solve


def problem(seed=0, scale=0.5):
    data = datasets.cones(jax.random.key(seed), dim=3, points_per_class=3, opening=0.4)
    return data, init_two_layer(jax.random.key(seed + 1), 4, 4, 3, scale, scale)


def run_flow(times=(2.0, 6.0), **options):
    return simulate_flow(*problem(), "cross-entropy", times, **options)


def by_scipy(data, network, loss, times):
    """The logits of one network, [records, n]."""
    shape, size = network.w.shape, network.w.size

    def field(t, theta):
        w, z = theta[:size].reshape(1, *shape), theta[size:][None]
        grad_w, grad_z, _ = gradient(data, w, z, loss)
        return -np.concatenate([grad_w.ravel(), grad_z.ravel()])

    first = np.concatenate([np.ravel(network.w), np.ravel(network.z)])
    run = solve_ivp(field, (0, times[-1]), first, "DOP853", times, rtol=1e-12, atol=1e-13)
    w, z = run.y[:size].T.reshape(-1, *shape), run.y[size:].T
    return gradient(data, w, z, loss)[2]


@pytest.mark.usefixtures("x64")
def test_the_flow_is_that_of_scipy():
    data, nets = problem()
    run = run_flow(rtol=1e-12)
    for b in range(2):
        want = by_scipy(data, nets[b], "cross-entropy", (2.0, 6.0))
        np.testing.assert_allclose(run.logits()[b], want, rtol=0, atol=1e-8)


def antipodal():
    return datasets.antipodal(norms=(1.0, 1.7), frequencies=(0.3, 0.7))


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_networks_with_random_signs_are_followed_through_their_kinks(loss):
    # Wrong neurons leave their class through the kink of the ReLU and join the other one: a tighter run is the judge.
    nets = init_two_layer(jax.random.key(0), 8, 16, 2)
    times = np.linspace(0.5, 20, 5)
    run, judge = (simulate_flow(antipodal(), nets, loss, times, rtol=rtol) for rtol in (1e-12, 1e-13))
    np.testing.assert_allclose(run.logits(), judge.logits(), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
def test_hinge_stops_each_class_when_its_margin_is_one():
    # One balanced neuron a class: u = u0 e^(2 p r t) until it is 1. The other neurons are zero and stay so.
    data, times = antipodal(), np.array([0.5, 1.0, 2.0, 5.0, 9.0])
    w, z = np.zeros((8, 16, 2)), np.zeros((8, 16))
    w[:, :2, 0], z[:, :2] = (0.1, -0.1), (0.1, -0.1)
    run = simulate_flow(data, TwoLayerReLU(w, z), "hinge", times, rtol=1e-12)
    grown = np.stack([0.01 * np.exp(0.6 * times), 0.017 * np.exp(2 * 0.7 * 1.7 * times)], axis=-1)
    np.testing.assert_allclose(run.margins()[0], np.minimum(grown, 1), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-4), ("float64", 1e-9)])
def test_balance_is_conserved(precision, atol, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    run = run_flow()
    assert run.logits().dtype == precision
    before, after = ((net.w**2).sum(-1) - net.z**2 for net in (run.initial, run.final))
    np.testing.assert_allclose(after, before, rtol=0, atol=atol)
    np.testing.assert_allclose(run.final(run.data.points), run.logits(6.0), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_descent_tends_to_the_flow_at_first_order():
    data, nets = problem()
    want = run_flow().logits(2.0)
    gaps = []
    for pieces in (2, 4, 8):
        net = nets
        for _ in range(pieces):
            net = simulate(data, net, "cross-entropy", GradientDescent(2 / (50 * pieces)), 50, record_every=50).final
        gaps.append(float(jnp.abs(net(data.points) - want).max()))
    orders = np.log2(np.divide(gaps[:-1], gaps[1:]))
    assert (np.abs(orders - 1) < 0.2).all(), orders


@pytest.mark.usefixtures("x64")
def test_the_error_falls_with_the_tolerance():
    judge = run_flow(rtol=1e-13).logits()
    for rtol in (1e-7, 1e-9, 1e-11):
        assert float(jnp.abs(run_flow(rtol=rtol).logits() - judge).max()) < 1000 * rtol


@pytest.mark.usefixtures("x64")
def test_going_on_is_one_run_and_points_set_the_unit_of_time():
    data, _ = problem()
    half, whole = run_flow([1.0, 2.0]), run_flow([2.0, 6.0])
    rest = simulate_flow(data, half.final, "cross-entropy", [1.0, 4.0])
    np.testing.assert_allclose(rest.logits(4.0), whole.logits(6.0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(half.logits(2.0), whole.logits(2.0), rtol=0, atol=1e-7)
    # Points c x, first weights / sqrt(c) and times / c give the same logits under (1.2).
    scaled = Dataset(4 * data.points, data.labels, data.weights)
    small = jax.tree.map(lambda leaf: leaf / 2, half.initial)
    other = simulate_flow(scaled, small, "cross-entropy", [0.5, 1.5])
    np.testing.assert_allclose(other.logits(), whole.logits(), rtol=0, atol=1e-7)


@pytest.mark.usefixtures("x64")
def test_neurons_and_networks_are_unordered():
    data, nets = problem()
    order = jnp.array([2, 0, 3, 1])
    turned = TwoLayerReLU(nets.w[order][:, order], nets.z[order][:, order])
    other = simulate_flow(data, turned, "cross-entropy", [2.0, 6.0], rtol=1e-12)
    np.testing.assert_allclose(other.logits(), run_flow(rtol=1e-12).logits()[order], rtol=0, atol=1e-8)


@pytest.mark.slow
def test_any_batch_axes_and_any_times():
    data, nets = problem()
    square = jax.tree.map(lambda leaf: leaf.reshape(2, 2, *leaf.shape[1:]), nets)
    start = simulate_flow(data, square, "cross-entropy", 0)
    assert start.logits().shape == (2, 2, 1, 6)
    np.testing.assert_array_equal(start.logits(0), square(data.points))
    twice = simulate_flow(data, square, "cross-entropy", jnp.array([0, 0, 2, 2, 6]))
    assert twice.logits().shape == (2, 2, 5, 6)
    for i, k in ((0, 1), (2, 3)):
        np.testing.assert_array_equal(twice.logits()[:, :, i], twice.logits()[:, :, k])
    np.testing.assert_allclose(twice.logits([2, 6]).reshape(4, 2, 6), run_flow().logits(), rtol=0, atol=1e-3)
    one = simulate_flow(data, nets[1], "cross-entropy", 6, record_networks=True)
    assert one.logits().shape == (1, 6)
    assert one.network().w.shape == (1, 4, 3)
    np.testing.assert_allclose(one.network(6).w, one.final.w, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.logits(6), run_flow().logits(6)[1], rtol=0, atol=1e-3)


@pytest.mark.slow
def test_networks_on_which_nothing_happens_stay():
    data, nets = problem()
    still = jax.tree.map(jnp.zeros_like, nets)
    run = simulate_flow(data, still, "cross-entropy", [1, 1e6])
    assert not np.asarray(run.logits()).any()


@pytest.mark.slow
def test_a_violent_start_is_followed():
    # Margins down to -12 under the exponential loss: the first time scale is e^-12 of the last.
    data, nets = problem(scale=2.0)
    assert float((nets(data.points) * data.labels).min()) < -12
    run = simulate_flow(data, nets, "exponential", [0.1, 10.0])
    assert np.isfinite(run.logits()).all()
    assert (run.loss(10.0) < run.loss(0.1)).all()
    assert (run.margins(0.1) > -12).all()


@pytest.mark.usefixtures("x64")
def test_progress_is_in_units_of_time_and_changes_nothing():
    calls = []
    times = np.linspace(0, 6, 21)
    rtol = 1e-12
    shown = run_flow(times, rtol=rtol, progress=lambda *a: calls.append(a))
    assert calls[0] == (0, 6.0)
    assert calls[-1] == (6.0, 6.0)
    assert len(calls) == 11
    # The integrator starts anew at each piece and takes other steps: each of the two runs is off by 1000 rtol at most.
    plain = run_flow((3.0, 6.0), rtol=rtol)
    np.testing.assert_allclose(shown.logits([times[10], 6.0]), plain.logits(), rtol=0, atol=2 * 1000 * rtol)


def test_tolerances_and_times_are_no_new_compilation():
    run_flow()
    before = eqx.debug.get_num_traces(integrator.integrate)
    for rtol, atol in ((1e-4, None), (1e-5, None), (1e-4, 1e-3)):
        run_flow((1.0, 2.0 + rtol), rtol=rtol, atol=atol)
    assert eqx.debug.get_num_traces(integrator.integrate) == before


# Sliding, where no integrator gets on. Squared loss: the first neuron holds the margin of class + above 1, which
# drives the second one out of the class, and class - drives it back. Hinge: the second point holds the margin of the
# first at 1.
SLIDES = [
    ("squared", [[1.0, 0.0], [-1.0, 0.0]], (0.5, 0.5), [[3.0, 0.0], [0.01, 0.0]], [1.0, 1.0]),
    ("hinge", [[1.0, 0.0], [0.8, 0.6]], (0.7, 0.3), [[0.5, 0.5], [0.0, 0.0]], [1.0, 0.0]),
]


@pytest.mark.parametrize(("loss", "points", "weights", "w", "z"), SLIDES, ids=["squared", "hinge"])
def test_a_flow_that_slides_is_refused_and_costs_its_neighbour_nothing(loss, points, weights, w, z):
    data = Dataset(points, [1, -1], weights)
    nets = TwoLayerReLU(jnp.array([[[-0.3, -0.1], [0.0, 0.0]], w]), jnp.array([[0.3, 0.0], z]))
    options = {"times": [0.0, 0.001, 20.0], "max_steps": 1000}
    with pytest.raises(
        ConvergenceError, match=r"network \[1\] did not reach time 20\.0 in max_steps = 1000.*slides.*throw=False"
    ):
        simulate_flow(data, nets, loss, **options)
    run = simulate_flow(data, nets, loss, **options, throw=False)
    assert np.isfinite(run.logits()[0]).all()
    assert np.isfinite(run.logits([0.0, 0.001])).all()
    assert np.isnan(run.logits(20.0)[1]).all()
    assert np.isnan(run.final.z).tolist() == [[False, False], [True, True]]


BAD = [
    ({"times": [0.0, 2.0, 1.0]}, r"times\[1\] = 2\.0 is followed by 1\.0; give np\.sort"),
    ({"times": [-1.0, 1.0]}, r"times must be finite and >= 0 .* got -1\.0"),
    ({"times": [0.0, float("nan")]}, "times must be finite and >= 0 .* got nan"),
    ({"times": [0.0, float("inf")]}, "times must be finite and >= 0 .* got inf"),
    ({"times": []}, "non-empty"),
    ({"times": [[0.0, 1.0]]}, "times must be a number or a non-empty sequence"),
    ({"times": [[0.0], [0.0, 1.0]]}, "times must be a number or a non-empty sequence"),
    ({"times": "0, 1"}, "times must be a number"),
    ({"times": 1j}, "times must be a number"),
    ({"times": True}, "times must be a number"),
    ({"rtol": 0.0}, r"rtol must be a number between 0 and 1, got 0\.0"),
    ({"rtol": float("nan")}, "rtol must be a number between 0 and 1, got nan"),
    ({"rtol": "tight"}, "rtol must be a number between 0 and 1, got 'tight'"),
    ({"rtol": [1e-3, 1e-4]}, "rtol must be a number between 0 and 1"),
    ({"rtol": 1e-12}, "rtol must be at least 1.2e-06 in float32, got 1e-12; use float64"),
    ({"atol": -1e-3}, "atol must be"),
    ({"max_steps": 0}, "max_steps must be an integer >= 1, got 0"),
    ({"loss": "mse"}, "unknown loss 'mse'"),
    ({"data": "digits"}, "data must be a Dataset"),
    ({"network": TwoLayerReLU([[1.0]], [1.0])}, "d = 1 inputs but the data have d = 3"),
    ({"progress": 3}, "progress must be"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused(change, message):
    data, nets = problem()
    with pytest.raises(ValueError, match=message):
        simulate_flow(**{"data": data, "network": nets, "loss": "hinge", "times": [0.0, 1.0]} | change)


class Own(Loss):
    """Cross-entropy without its name."""

    def value(self, margin):
        return jax.nn.softplus(-margin)

    def residual(self, margin):
        return jax.nn.sigmoid(-margin)


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross-entropy", "exponential", Own()], ids=str)
def test_residuals_that_are_no_floats_any_more_are_told(loss):
    data, network = datasets.antipodal(), TwoLayerReLU([[0.3, 0.1], [-0.2, 0.4]], [0.2, -0.1])
    late = simulate_flow(data, network, loss, [1.0, 1e30])
    np.testing.assert_allclose(late.logits(1e30), solve(data, network, loss).logits(1e30), rtol=1e-4)
    with pytest.raises(ConvergenceError, match=r"by time 3\S*e\+38 a residual of the network is below the smallest"):
        simulate_flow(data, network, loss, [1.0, 3e38])
    # What is learnt to e^-80 from the start has no growth to lose.
    simulate_flow(data, TwoLayerReLU([[10.0, 0.0], [-10.0, 0.0]], [10.0, -10.0]), loss, [1.0])
