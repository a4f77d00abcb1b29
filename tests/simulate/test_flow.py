"""The flow against SciPy and against descent of small steps, its invariants, and how it refuses bad input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from simulate.plain import gradient

from gradstarve.errors import ConvergenceError
from gradstarve.problem import LOSSES, Dataset, GradientDescent, TwoLayerReLU, datasets, init_two_layer
from gradstarve.simulate import flow, simulate, simulate_flow


def problem(batch=4, width=4, seed=0, scale=0.5):
    data = datasets.cones(jax.random.key(seed), dim=3, points_per_class=3, opening=0.4)
    return data, init_two_layer(jax.random.key(seed + 1), batch, width, 3, scale, scale)


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
@pytest.mark.parametrize("loss", ["cross-entropy", "exponential"])
def test_the_flow_is_that_of_scipy(loss):
    data, nets = problem()
    times = np.linspace(0, 6, 7)
    run = simulate_flow(data, nets, loss, times, rtol=1e-12)
    for b in range(4):
        np.testing.assert_allclose(run.logits()[b], by_scipy(data, nets[b], loss, times), rtol=0, atol=1e-8)


@pytest.mark.usefixtures("x64")
def test_hinge_on_antipodal_data_stops_at_margin_one_exactly_when_it_should():
    # One neuron a class, balanced: u = u0 e^(2 p r t) until it is 1.
    data = datasets.antipodal(norms=(1.0, 2.0), frequencies=(0.25, 0.75))
    net = TwoLayerReLU([[0.1, 0.0], [-0.2, 0.0]], [0.1, -0.2])
    times = np.linspace(0, 6, 25)
    run = simulate_flow(data, net, "hinge", times, rtol=1e-12)
    grown = np.stack([0.01 * np.exp(0.5 * times), 0.08 * np.exp(3 * times)], axis=-1)
    np.testing.assert_allclose(run.margins(), np.minimum(grown, 1), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_networks_with_random_signs_are_followed_through_their_kinks(loss):
    # Wrong neurons leave their class through the kink of the ReLU and join the other one: a tighter run is the judge.
    data = datasets.antipodal(norms=(1.0, 1.7), frequencies=(0.3, 0.7), key=jax.random.key(3))
    nets = init_two_layer(jax.random.key(0), 32, 16, 2)
    times = np.linspace(0, 40, 21)
    run, judge = (simulate_flow(data, nets, loss, times, rtol=rtol) for rtol in (1e-12, 2e-14))
    np.testing.assert_allclose(run.logits(), judge.logits(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("loss", ["cross-entropy", "hinge"])
def test_balance_is_conserved(loss, precision, request):
    if precision == "float64":
        request.getfixturevalue("x64")
    data = datasets.antipodal(dim=3, frequencies=(0.2, 0.8), key=jax.random.key(1))
    nets = init_two_layer(jax.random.key(2), 16, 6, 3)
    run = simulate_flow(data, nets, loss, np.linspace(0, 20, 5), record_networks=True)
    assert run.logits().dtype == precision
    kept = run.network()
    balance = (kept.w**2).sum(-1) - kept.z**2
    atol = {"float32": 1e-4, "float64": 1e-9}[precision]
    np.testing.assert_allclose(balance, np.broadcast_to(balance[:, :1], balance.shape), rtol=0, atol=atol)
    np.testing.assert_allclose(run.logits(), kept(run.data.points), rtol=0, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_descent_tends_to_the_flow_at_first_order():
    data, nets = problem(batch=1)
    want = simulate_flow(data, nets, "cross-entropy", 2.0).logits(2.0)
    gaps = []
    for k in (50, 100, 200, 400):
        got = simulate(data, nets, "cross-entropy", GradientDescent(2 / k), k, k).logits(k)
        gaps.append(float(jnp.abs(got - want).max()))
    orders = np.log2(np.divide(gaps[:-1], gaps[1:]))
    assert (np.abs(orders - 1) < 0.1).all(), orders


@pytest.mark.usefixtures("x64")
def test_the_error_falls_with_the_tolerance():
    data, nets = problem()
    judge = simulate_flow(data, nets, "cross-entropy", 8.0, rtol=1e-13).logits()
    for rtol in (1e-3, 1e-5, 1e-7, 1e-9, 1e-11):
        run = simulate_flow(data, nets, "cross-entropy", 8.0, rtol=rtol)
        assert float(jnp.abs(run.logits() - judge).max()) < 1000 * rtol


@pytest.mark.usefixtures("x64")
def test_going_on_is_one_run_and_time_scales_with_the_weights_of_the_loss():
    data, nets = problem()
    whole = simulate_flow(data, nets, "cross-entropy", [2.0, 5.0])
    half = simulate_flow(data, nets, "cross-entropy", 2.0)
    rest = simulate_flow(data, half.final, "cross-entropy", 3.0)
    np.testing.assert_allclose(rest.logits(3.0), whole.logits(5.0), rtol=0, atol=1e-7)
    np.testing.assert_allclose(half.logits(2.0), whole.logits(2.0), rtol=0, atol=1e-7)
    # Homogeneity: points c x, first weights / sqrt(c) and time / c give the same logits under (1.2).
    c = 4.0
    scaled = Dataset(c * data.points, data.labels, data.weights)
    small = jax.tree.map(lambda leaf: leaf / c**0.5, nets)
    np.testing.assert_allclose(
        simulate_flow(scaled, small, "cross-entropy", 5.0 / c).logits(), whole.logits([5.0]), rtol=0, atol=1e-7
    )


@pytest.mark.usefixtures("x64")
def test_neurons_and_networks_are_unordered_and_independent():
    data, nets = problem()
    run = simulate_flow(data, nets, "cross-entropy", [1.0, 4.0])
    order = jnp.array([2, 0, 3, 1])
    turned = TwoLayerReLU(nets.w[order][:, order], nets.z[order][:, order])
    other = simulate_flow(data, turned, "cross-entropy", [1.0, 4.0])
    np.testing.assert_allclose(other.logits(), run.logits()[order], rtol=0, atol=1e-8)
    one = simulate_flow(data, nets[1], "cross-entropy", [1.0, 4.0])
    assert one.logits().shape == (2, 6)
    np.testing.assert_allclose(one.logits(), run.logits()[1], rtol=0, atol=1e-10)


def test_any_batch_axes_and_any_rising_times():
    data, nets = problem(batch=(2, 3))
    for times, records in ((0, 1), (0.0, 1), ([0, 0, 2, 2], 4), (jnp.array([1.0, 3.0]), 2), ([5], 1)):
        run = simulate_flow(data, nets, "cross-entropy", times)
        assert run.logits().shape == (2, 3, records, 6)
        assert run.grid.shape == (records,)
    twice = simulate_flow(data, nets, "cross-entropy", [0, 0, 2, 2])
    assert np.array_equal(twice.logits()[:, :, 0], nets(data.points))
    assert np.array_equal(twice.logits()[:, :, 2], twice.logits()[:, :, 3])


def test_networks_on_which_nothing_happens_stay():
    data = datasets.orthogonal()
    dead = TwoLayerReLU([[[-1.0, -1.0]], [[0.0, 0.0]]], [[3.0], [0.0]])
    run = simulate_flow(data, dead, "cross-entropy", [0, 1, 1e6])
    assert not np.asarray(run.logits()).any()
    assert np.array_equal(run.final.w, dead.w)


def test_a_violent_start_is_followed():
    # Margins of -15 under the exponential loss: the first time scale is e^-15 of the last.
    data = datasets.antipodal()
    nets = TwoLayerReLU(jnp.array([[[4.0, 0.0], [-1.0, 0.1]]]), jnp.array([[-4.0, 1.0]]))
    run = simulate_flow(data, nets, "exponential", [0.0, 0.1, 10.0])
    assert np.isfinite(run.logits()).all()
    assert (run.loss(10.0) < run.loss(0.1)).all()


def test_progress_is_in_units_of_time():
    data, nets = problem(batch=1)
    calls = []
    times = np.linspace(0, 3, 31)
    shown = simulate_flow(data, nets, "cross-entropy", times, progress=lambda *a: calls.append(a))
    assert calls[0] == (0, 3.0)
    assert calls[-1] == (3.0, 3.0)
    assert len(calls) == 11
    quiet = simulate_flow(data, nets, "cross-entropy", times)
    np.testing.assert_allclose(shown.logits(), quiet.logits(), rtol=0, atol=1e-4)


def test_tolerances_are_no_new_compilation():
    data, nets = problem(batch=3)
    before = eqx.debug.get_num_traces(flow._integrate)
    for rtol, atol in ((1e-4, None), (1e-5, None), (1e-4, 1e-3)):
        simulate_flow(data, nets, "cross-entropy", [1.0, 2.0], rtol=rtol, atol=atol)
    assert eqx.debug.get_num_traces(flow._integrate) == before + 1


def test_too_few_steps_is_an_error_that_names_the_network_and_the_time():
    data, nets = problem(batch=(2, 2), scale=1.0)
    with pytest.raises(ConvergenceError, match=r"network \[\d, \d\] did not reach time \d.*max_steps = 5 .*throw=False"):
        simulate_flow(data, nets, "cross-entropy", [0.0, 0.01, 20.0], max_steps=5)
    run = simulate_flow(data, nets, "cross-entropy", [0.0, 0.01, 20.0], max_steps=5, throw=False)
    assert np.isfinite(run.logits(0.0)).all()
    assert np.isnan(run.logits(20.0)).any(-1).any()
    lost = np.isnan(run.logits(20.0)).all(-1)
    assert np.array_equal(lost, np.isnan(run.final.z).all(-1))


def test_a_sliding_margin_is_refused():
    # Two points of one class share a neuron; the far one holds the margin of the near one down at 1.
    data = Dataset([[1.0, 0.0], [-0.8, 0.6]], [1, -1])
    net = TwoLayerReLU([[0.5, 0.5]], [1.0])
    with pytest.raises(ConvergenceError, match="slides"):
        simulate_flow(data, net, "squared", 40.0, max_steps=2000)
    # One that is lost costs the others nothing.
    pair = TwoLayerReLU([[[0.5, 0.5]], [[0.5, -0.5]]], [[1.0], [0.1]])
    run = simulate_flow(data, pair, "squared", [1.0, 30.0], max_steps=2000, throw=False)
    assert np.isfinite(run.logits()[1]).all()


BAD = [
    ({"times": [0.0, 2.0, 1.0]}, r"times\[1\] = 2\.0 is followed by 1\.0; give np\.sort"),
    ({"times": [-1.0, 1.0]}, r"times must be finite and >= 0 .* got -1\.0"),
    ({"times": [0.0, float("nan")]}, "times must be finite and >= 0 .* got nan"),
    ({"times": [0.0, float("inf")]}, "times must be finite and >= 0 .* got inf"),
    ({"times": []}, "non-empty"),
    ({"times": [[0.0, 1.0]]}, "times must be a number or a non-empty sequence"),
    ({"times": "0, 1"}, "times must be a number"),
    ({"times": 1j}, "times must be a number"),
    ({"rtol": 0.0}, r"rtol must be a number between 0 and 1, got 0\.0"),
    ({"rtol": float("nan")}, "rtol must be a number between 0 and 1, got nan"),
    ({"rtol": "tight"}, "rtol must be a number between 0 and 1, got 'tight'"),
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


def test_every_loss_has_a_flow():
    data, nets = problem(batch=2, scale=0.1)
    for loss in LOSSES:
        run = simulate_flow(data, nets, loss, [0.0, 1.0])
        assert (run.loss(1.0) < run.loss(0.0)).all()
