"""What the problem's objects refuse, and what they promote."""

import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradstarve as gs
import gradstarve.ground._arrays
from gradstarve.problem import (
    Dataset,
    GradientDescent,
    Mode,
    StochasticGradientDescent,
    TwoLayerReLU,
    datasets,
    exclusive,
    init_deep,
    init_softmax,
    init_two_layer,
)

POINTS, LABELS = [[1.0, 0.0], [-1.0, 0.5]], [1, -1]
KEY = jax.random.key(0)
NAN, INF = float("nan"), float("inf")

BAD = [
    # Dataset
    (lambda: Dataset([1.0, 2.0], LABELS), r"points must be \[n, d\], got shape \(2,\)"),
    (lambda: Dataset(jnp.ones((2, 2, 2)), LABELS), r"points must be \[n, d\], got shape \(2, 2, 2\)"),
    (lambda: Dataset(jnp.ones((0, 2)), []), r"n >= 1 points .* got shape \(0, 2\)"),
    (lambda: Dataset(jnp.ones((2, 0)), LABELS), r"d >= 1 coordinates, got shape \(2, 0\)"),
    (lambda: Dataset([[1.0, 2.0], [3.0]], LABELS), "points has rows of different lengths"),
    (lambda: Dataset([["a", "b"]], [1]), "points must hold numbers"),
    (lambda: Dataset(None, [1]), "points must hold numbers"),
    (lambda: Dataset([[NAN, 0.0], [1.0, 1.0]], LABELS), r"points\[0, 0\] = nan is not finite"),
    (lambda: Dataset([[1.0, 0.0], [1.0, -INF]], LABELS), r"points\[1, 1\] = -inf is not finite"),
    (lambda: Dataset(np.ones((2, 2), np.float16), LABELS), r"points has dtype float16; use float32 or float64"),
    (lambda: Dataset(jnp.ones((2, 2), jnp.bfloat16), LABELS), "points has dtype bfloat16"),
    (lambda: Dataset(np.ones((2, 2), np.complex64), LABELS), "points has dtype complex64; give its real part"),
    (lambda: Dataset([[1j, 0.0], [0.0, 1.0]], LABELS), "points is complex"),
    (lambda: Dataset(POINTS, [1]), r"labels must have shape \(2,\), one per point, got \(1,\)"),
    (lambda: Dataset(POINTS, [[1], [-1]]), r"labels must have shape \(2,\).* got \(2, 1\)"),
    (lambda: Dataset(POINTS, [1, 0]), r"labels must be \+1 or -1, got labels\[1\] = 0.*give 2 \* labels - 1"),
    (lambda: Dataset(POINTS, [2, -1]), r"labels\[0\] = 2"),
    (lambda: Dataset(POINTS, [1, NAN]), r"labels\[1\] = nan is not finite"),
    (lambda: Dataset(POINTS, LABELS, [1.0]), r"weights must have shape \(2,\)"),
    (lambda: Dataset(POINTS, LABELS, [0.5, 0.6]), r"weights must sum to 1, got 1\.1.*weights / weights\.sum\(\)"),
    (lambda: Dataset(POINTS, LABELS, [1.5, -0.5]), r"weights must be > 0, got weights\[1\] = -0\.5"),
    (lambda: Dataset(POINTS, LABELS, [1.0, 0.0]), r"weights\[1\] = 0\.0; leave such points out"),
    (lambda: Dataset(POINTS, LABELS, [NAN, 0.5]), r"weights\[0\] = nan"),
    # Networks
    (lambda: TwoLayerReLU([1.0, 2.0], 1.0), r"w must be \[\*batch, h, d\]"),
    (lambda: TwoLayerReLU([[1.0, 2.0]], [1.0, 2.0]), r"got shapes \(1, 2\) and \(2,\)"),
    (lambda: TwoLayerReLU(jnp.ones((3, 2, 2)), jnp.ones(2)), "z has one entry per row of w"),
    (lambda: TwoLayerReLU(jnp.ones((0, 2)), []), r"h >= 1 neurons .* \(0, 2\)"),
    (lambda: TwoLayerReLU(jnp.ones((2, 0)), [1.0, 1.0]), r"d >= 1 inputs, got w of shape \(2, 0\)"),
    (lambda: TwoLayerReLU([[NAN, 1.0]], [1.0]), r"w\[0, 0\] = nan"),
    (lambda: TwoLayerReLU([[1.0]], [INF]), r"z\[0\] = inf"),
    (lambda: TwoLayerReLU(np.ones((1, 1), np.float16), [1.0]), "w has dtype float16"),
    (lambda: TwoLayerReLU([[1.0]], np.ones(1, np.complex64)), "z has dtype complex64"),
    (lambda: TwoLayerReLU([[1.0, 2.0]], [1.0])(jnp.ones((3, 4))), "d = 2 inputs but the points have d = 4"),
    (lambda: init_two_layer(KEY, 0, 3, 2), "batch must be an integer >= 1, got 0"),
    (lambda: init_two_layer(KEY, (2, -1), 3, 2), "batch must be an integer >= 1, got -1"),
    (lambda: init_two_layer(KEY, 2, 0, 2), "width must be an integer >= 1, got 0"),
    (lambda: init_two_layer(KEY, 2, 3, 0), "dim must be an integer >= 1, got 0"),
    (lambda: init_two_layer(KEY, 2, 3, 2, scale_w=NAN), "scale_w = nan is not finite"),
    (lambda: init_two_layer(KEY, 2, 3, 2, scale_w=-1), r"scale_w must be >= 0, got -1: it is a standard deviation"),
    (lambda: init_softmax(KEY, 2, 3, 4, 2, scale_z=-0.5), r"scale_z must be >= 0, got -0\.5"),
    (lambda: init_deep(KEY, 2, (3,), 2, scale=-1), r"scale must be >= 0, got -1:"),
    (lambda: init_deep(KEY, 2, (3,), 2, scale=0), r"scale must be > 0, got 0: it is that of every layer"),
    (lambda: init_deep(KEY, 2, (3, 0), 2), r"widths must be an integer >= 1, got 0$"),
    (lambda: init_deep(KEY, 2, (3, 2.5), 2), r"widths must be an integer >= 1, got 2\.5"),
    (lambda: init_two_layer(KEY, 2.5, 3, 2), r"batch must be an integer >= 1, got 2\.5"),
    (lambda: init_softmax(KEY, 2, 3, 1, 2), "classes must be an integer >= 2, got 1"),
    (lambda: datasets.orthogonal_classes(2.5), r"classes must be an integer >= 2, got 2\.5"),
    (lambda: datasets.orthogonal_classes(3, norm=-1), "norm must be > 0, got -1"),
    (lambda: datasets.antipodal(dim=1.5), r"dim must be an integer >= 1, got 1\.5"),
    # Points that a network is called on
    (lambda: TwoLayerReLU([[1.0, 2.0]], [1.0])(jnp.array([[1.0, NAN]])), r"points\[0, 1\] = nan is not finite"),
    (lambda: gs.DeepReLU([[[1.0, 2.0]], [1.0]])(jnp.array([[INF, 0.0]])), r"points\[0, 0\] = inf is not finite"),
    (lambda: gs.SoftmaxOneLayer([[1.0], [2.0]])(jnp.array([[NAN]])), r"points\[0, 0\] = nan"),
    (lambda: gs.SoftmaxTwoLayer([[1.0]], [[1.0, 2.0]])(jnp.array([[1.0], [NAN]])), r"points\[1, 0\] = nan"),
    # Dynamics
    (lambda: GradientDescent(0.0), r"step_size must be > 0, got 0\.0"),
    (lambda: GradientDescent(-0.1), r"step_size must be > 0, got -0\.1"),
    (lambda: GradientDescent(NAN), "step_size = nan is not finite"),
    (lambda: GradientDescent([0.1, -1.0]), r"step_size must be > 0, got -1\.0"),
    (lambda: GradientDescent("0.1"), "step_size must hold numbers"),
    (lambda: GradientDescent(0.1, momentum=1.0), r"momentum must be in \[0, 1\), got 1\.0"),
    (lambda: GradientDescent(0.1, momentum=-0.1), r"momentum must be in \[0, 1\), got -0\.1"),
    (lambda: GradientDescent(0.1, momentum=NAN), "momentum = nan"),
    (lambda: GradientDescent(0.1, weight_decay=-1e-3), r"weight_decay must be >= 0, got -0\.001"),
    (lambda: GradientDescent(0.1, weight_decay=INF), "weight_decay = inf"),
    (lambda: StochasticGradientDescent(0), r"step_size must be > 0, got 0\.0"),
    (lambda: StochasticGradientDescent(INF), "step_size = inf"),
    # Ready-made data
    (lambda: datasets.antipodal(dim=0), "dim must be an integer >= 1, got 0"),
    (lambda: datasets.antipodal(norms=(1.0, 0.0)), r"norms must be > 0, got 0\.0"),
    (lambda: datasets.antipodal(norms=(1.0,)), r"norms must be a pair .* got shape \(1,\)"),
    (lambda: datasets.antipodal(frequencies=(0.3, 0.3)), r"weights must sum to 1"),
    (lambda: datasets.orthogonal(dim=1), "dim must be an integer >= 2, got 1"),
    (lambda: datasets.orthogonal(frequencies=(1.0, 0.0)), r"weights must be > 0"),
    (lambda: datasets.cones(KEY, opening=0.8), r"opening must be in \[0, pi/4\), got 0\.8"),
    (lambda: datasets.cones(KEY, opening=-0.1), r"opening must be in \[0, pi/4\), got -0\.1"),
    (lambda: datasets.cones(KEY, opening=NAN), "opening must be in .* got nan"),
    (lambda: datasets.cones(KEY, spread=-1.0), r"spread must be >= 0 and finite, got -1\.0"),
    (lambda: datasets.cones(KEY, points_per_class=0), "points_per_class must be an integer >= 1, got 0"),
    # Modes
    (lambda: Mode(0.5, 1.0, a=[], z=[]), "h >= 1 neurons"),
    (lambda: Mode(0.5, 1.0, a=[1.0], z=[1.0, 2.0]), r"got shapes \(1,\) and \(2,\)"),
    (lambda: Mode(0.0, 1.0, a=[1.0], z=[1.0]), "frequency must be > 0"),
    (lambda: Mode(0.5, -1.0, a=[1.0], z=[1.0]), r"norm must be > 0, got -1\.0"),
    (lambda: Mode([0.5, 0.5], 1.0, a=[1.0], z=[1.0]), r"frequency of shape \(2,\) does not fit the batch axes"),
]


@pytest.mark.parametrize(("make", "message"), BAD, ids=range(len(BAD)))
def test_bad_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_integers_take_the_precision_beside_them(request):
    assert Dataset([[1, 0], [-2, 0]], LABELS).points.dtype == jnp.float32
    assert Dataset(np.array([[1, 0]], np.int8), [True]).labels.dtype == jnp.float32
    assert GradientDescent(1).step_size.dtype == jnp.float32
    request.getfixturevalue("x64")
    assert Dataset([[1, 0], [-2, 0]], LABELS).points.dtype == jnp.float64
    single = Dataset(np.ones((2, 2), np.float32), np.array(LABELS), [0.25, 0.75])
    assert {leaf.dtype.name for leaf in jax.tree.leaves(single)} == {"float32"}
    mixed = TwoLayerReLU(np.ones((1, 2), np.float32), np.ones(1, np.float64))
    assert mixed.w.dtype == mixed.z.dtype == jnp.float64
    assert init_two_layer(KEY, 1, 1, 1).w.dtype == jnp.float64
    assert init_two_layer(KEY, 1, 1, 1, jnp.float32(1)).z.dtype == jnp.float32


def test_float64_in_32_bit_mode_is_rounded_with_one_warning(monkeypatch):
    monkeypatch.setattr(gradstarve.ground._arrays, "_warned_about_x64", False)
    with pytest.warns(UserWarning, match=r'points is float64 .* jax\.config\.update\("jax_enable_x64", True\)') as seen:
        data = Dataset(np.array(POINTS), LABELS)
    assert len(seen) == 1
    assert data.points.dtype == jnp.float32
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert TwoLayerReLU(np.ones((1, 2)), np.ones(1)).w.dtype == jnp.float32


def test_weights_may_sum_to_one_up_to_their_rounding():
    for n in (3, 7, 1000, 30000):
        weights = np.random.default_rng(n).uniform(0.5, 1.5, n)
        weights = (weights / weights.sum()).astype(np.float32)
        assert Dataset(np.ones((n, 1), np.float32), np.ones(n, np.float32), weights).size == n
        with pytest.raises(ValueError, match="sum to 1"):
            Dataset(np.ones((n, 1), np.float32), np.ones(n, np.float32), weights * np.float32(1.001))


def test_objects_are_made_inside_jit():
    @jax.jit
    def make(points, eta):
        data = Dataset(points, jnp.array([1.0, -1.0]), jnp.array([0.5, 0.5]))
        return data.points.sum() + GradientDescent(eta).step_size + TwoLayerReLU(points, points[:, 0]).z.sum()

    assert float(make(jnp.array(POINTS), 0.5)) == 1.0


def test_the_warning_about_64_bits_names_the_line_that_gave_them(monkeypatch):
    monkeypatch.setattr(gradstarve.ground._arrays, "_warned_about_x64", False)
    with pytest.warns(UserWarning, match="points is float64 but JAX runs in 32-bit mode") as caught:
        Dataset(np.eye(2), np.array([1, -1]))
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("key", [-1, "seed", None, jax.random.split(jax.random.key(0), 3), np.ones((2, 2), np.uint32)])
def test_what_is_no_key_is_told(key):
    data, network = Dataset(np.eye(2, dtype=np.float32), [1, -1]), TwoLayerReLU([[1.0, 1.0]], [1.0])
    makers = [
        lambda: init_two_layer(key, 3, 4, 2),
        lambda: init_deep(key, 3, (4,), 2),
        lambda: init_softmax(key, 3, 4, 3, 2),
        lambda: datasets.cones(key),
        lambda: exclusive(data, network, key),
    ]
    makers += [lambda: datasets.antipodal(key=key)] if key is not None else []
    for make in makers:
        with pytest.raises(ValueError, match=r"key must be one JAX key .* or an integer >= 0 as its seed, got"):
            make()


def test_keys_of_both_kinds_are_taken_and_followed_through_vmap():
    for key in (jax.random.key(0), jax.random.PRNGKey(0)):
        assert init_two_layer(key, 3, 4, 2).w.shape == (3, 4, 2)
    many = jax.vmap(lambda key: init_two_layer(key, (), 4, 2).w)(jax.random.split(jax.random.key(0), 3))
    assert many.shape == (3, 4, 2)


def test_one_width_is_no_list_of_widths():
    with pytest.raises(ValueError, match=r"as in \(8, 8\), or \(\) for one layer, got 4"):
        init_deep(jax.random.key(0), 3, 4, 2)


@pytest.mark.parametrize("batch", [(), (3,)])
def test_numbers_of_a_dynamics_are_one_or_one_a_network(batch):
    network = gs.init_two_layer(jax.random.key(0), batch, 4, 2)
    modes = gs.Mode(0.5, 1.0, *np.full((2, *batch, 2), 0.1, np.float32))
    data = gs.datasets.antipodal()
    wanted = rf"has shape \(.,\), which is neither \(\) nor the batch shape {re.escape(str(batch))}"
    for dynamics in (gs.GradientDescent([0.1, 0.2]), gs.GradientDescent(0.1, momentum=[0.1, 0.2]), gs.GradientDescent([])):
        with pytest.raises(ValueError, match=wanted):
            gs.solve(data, network, "hinge", dynamics)
        with pytest.raises(ValueError, match="neither"):
            gs.solve_mode(modes, "hinge", dynamics)
    with pytest.raises(ValueError, match="step_size has shape"):
        gs.solve_mode(modes, "hinge", gs.StochasticGradientDescent([0.1, 0.2]))


@pytest.mark.parametrize("loss", ["cross-entropy", "hinge", "squared"])
def test_weights_whose_squares_are_no_floats_are_refused(loss):
    large = float(np.float32(1e30))
    with pytest.raises(ValueError, match=r"neuron 0 starts at a = .*1e\+30.*squares are no float32; give smaller weights"):
        gs.solve(gs.datasets.antipodal(), gs.TwoLayerReLU([[large, large]], [-large]), loss)
    with pytest.raises(ValueError, match=r"neuron 1 starts at a = 1e\+30, z = 1"):
        gs.solve_mode(gs.Mode(0.5, 1.0, [0.1, large], [0.1, 1.0]), loss)
    # What does not see the class has no part in its clock.
    beside = gs.solve_mode(gs.Mode(0.5, 1.0, [0.1, -1.0], [0.1, large]), loss)
    assert float(beside.logit(2.0)) == float(gs.solve_mode(gs.Mode(0.5, 1.0, [0.1, -1.0], [0.1, 0.0]), loss).logit(2.0))


def test_devices_data_and_paths_of_another_kind_are_named(tmp_path):
    data = gs.datasets.antipodal()
    for devices in (5, "a"):
        with pytest.raises(ValueError, match="devices must be a list of devices"):
            gs.sweep(data, seeds=10, steps=3, devices=devices)
    with pytest.raises(ValueError, match="data must be a Dataset, or a function that makes one, got TwoLayerReLU"):
        gs.sweep(gs.init_two_layer(jax.random.key(0), (), 4, 2), seeds=10, steps=3)
    with pytest.raises(ValueError, match="path must be a string or a path, got 3"):
        gs.solve(data, gs.init_two_layer(jax.random.key(0), (), 4, 2)).plot(3, t=np.linspace(0, 1, 5))


def test_inside_jit_nan_goes_through_a_network():
    network = TwoLayerReLU([[1.0, 2.0]], [1.0])
    assert np.isnan(jax.jit(lambda points: network(points))(jnp.array([[1.0, NAN]]))).all()


def test_whole_numbers_are_counts_whatever_their_type():
    assert init_two_layer(KEY, 2.0, np.float64(3), 2.0).w.shape == (2, 3, 2)
    assert init_two_layer(KEY, (2.0, np.int8(1)), 3, 2).w.shape == (2, 1, 3, 2)
    assert init_deep(KEY, 2.0, (3.0, np.int64(4)), 2.0).layers[1].shape == (2, 4, 3)
    assert init_softmax(KEY, 2.0, 3.0, 4.0, 2.0).z.shape == (2, 3, 4)
    assert datasets.cones(KEY, 2.0, points_per_class=3.0).size == 6


def takers_of_a_dynamics():
    """What takes (data, network, loss, dynamics) or (mode, loss, dynamics), with loss and dynamics left open."""
    data, network, mode = datasets.antipodal(), init_two_layer(KEY, (), 2, 2), Mode(0.5, 1.0, [0.1], [0.1])
    return {
        "solve": lambda loss, dynamics: gs.solve(data, network, loss, dynamics),
        "solve_mode": lambda loss, dynamics: gs.solve_mode(mode, loss, dynamics),
        "simulate": lambda loss, dynamics: gs.simulate(data, network, loss, dynamics, 3),
        "sweep": lambda loss, dynamics: gs.sweep(data, 3, steps=2, loss=loss, dynamics=dynamics),
    }


@pytest.mark.parametrize("name", ["solve", "solve_mode", "simulate", "sweep"])
def test_a_dynamics_in_the_place_of_a_loss_is_told_where_it_goes(name):
    call = takers_of_a_dynamics()[name]
    typed = name.startswith("solve")  # their annotations refuse it first, which only tests look at
    for given in (GradientDescent(0.1), GradientDescent, gs.GradientFlow(), StochasticGradientDescent(0.1)):
        kind = given.__name__ if isinstance(given, type) else type(given).__name__
        with pytest.raises(ValueError, match=rf"loss is a {kind}, which is a dynamics: .*\(data, network, loss, dynamics\)"):
            gs.problem.as_loss(given) if typed else call(given, GradientDescent(0.1))
    with pytest.raises(ValueError, match=r"is the class GradientDescent; give an instance, GradientDescent\(step_size\)"):
        call("hinge", GradientDescent)
    for loss in ("hinge", gs.Hinge()):
        with pytest.raises(ValueError, match=r"dynamics must be .*; a loss comes before the dynamics"):
            call("hinge", loss)
    with pytest.raises(ValueError, match=r"for that step size give GradientDescent\(1\)"):
        call("hinge", 1)


def test_flow_by_its_class_has_no_step_size():
    with pytest.raises(ValueError, match=r"class GradientFlow; give an instance, GradientFlow\(\)"):
        gs.solve(datasets.antipodal(), init_two_layer(KEY, (), 2, 2), "hinge", gs.GradientFlow)
    with pytest.raises(ValueError, match=r"simulate.* trains by an optimiser of optax"):
        gs.solve(datasets.antipodal(), init_two_layer(KEY, (), 2, 2), "hinge", optax.sgd(0.1))


LARGE, FAINT = float(np.float32(1e30)), float(np.float32(1e-39))


def training(network):
    """Every kind of training of a network."""
    data = datasets.antipodal()
    return [
        lambda: gs.simulate(data, network, "hinge", GradientDescent(0.1), 3, engine="reference"),
        lambda: gs.simulate_flow(data, network, "hinge", [0.0, 1.0]),
        lambda: gs.simulate_hinge_exact(data, network, [0.0, 1.0]),
    ]


@pytest.mark.slow
def test_logits_beyond_float32_are_not_blamed_on_the_step_size():
    for network, which in (
        (TwoLayerReLU([[LARGE, 0.0]], [LARGE]), "the network"),
        (TwoLayerReLU([[[1.0, 0.0]], [[LARGE, 0.0]]], [[1.0], [LARGE]]), r"network \[1\]"),
    ):
        for train in training(network):
            message = rf"the logits of {which} are beyond float32 at the start; give smaller weights or points, or float64"
            with pytest.raises(ValueError, match=message):
                train()
        with pytest.raises(ValueError, match="so large that their logits are beyond float32"):
            gs.solve(datasets.antipodal(), network, "hinge", GradientDescent(0.1)).logits([0, 1])


def test_weights_that_are_flushed_to_zero_are_not_trained():
    for train in training(TwoLayerReLU(np.array([[FAINT, 0.0]], np.float32), [0.1])):
        with pytest.raises(ValueError, match=r"max \|w\| = 1\S*e-39 is subnormal in float32"):
            train()


def test_times_beyond_float32_are_refused():
    network = TwoLayerReLU([[0.3, 0.1]], [0.2])
    data = datasets.antipodal()
    for train in (lambda t: gs.simulate_flow(data, network, "hinge", t), gs.solve(data, network).logits):
        with pytest.raises(ValueError, match=r"= 1e\+39 is beyond float32; give the problem in float64"):
            train([1.0, 1e39])


@pytest.mark.slow
def test_one_network_is_called_the_network():
    data, network = datasets.antipodal(), TwoLayerReLU([[0.3, 0.1], [-0.3, 0.1]], [0.2, -0.2])
    with pytest.raises(gs.ConvergenceError, match=r"the logits of the network are not finite at step \d"):
        gs.simulate(data, network, "squared", GradientDescent(1e10), 9)
    with pytest.raises(gs.ConvergenceError, match=r"the flow of the network did not reach"):
        gs.simulate_flow(data, network, "hinge", [9.0], max_steps=2)
    both = jax.tree.map(lambda leaf: jnp.stack([0 * leaf, leaf])[None], network)
    with pytest.raises(gs.ConvergenceError, match=r"the flow of network \[0, 1\] did not reach"):
        gs.simulate_flow(data, both, "hinge", [9.0], max_steps=20)
    with pytest.raises(gs.HypothesisError, match=r"class \+1 of the network starts at margin"):
        gs.solve(data, TwoLayerReLU([[2.0, 0.0]], [2.0]), "squared")
