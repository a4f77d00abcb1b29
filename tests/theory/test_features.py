"""Features that share samples (10.1), and neurons that share features (10.7), against SciPy's integration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

import gradstarve as gs
from gradstarve.problem import Loss
from gradstarve.theory import feature_flow, one_layer_logit, shared_features, shared_slope

RESIDUALS = {
    "cross-entropy": lambda m: 1 / (1 + np.exp(m)),
    "hinge": lambda m: 1.0 * (m < 1),
    "exponential": lambda m: np.exp(-m),
    "squared": lambda m: 1 - m,
}
TYPES = np.array([[1.0, 0, 0], [1, 1, 0], [0, 1, 1]])
P, SCALES = np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.7, 2.0])
TIMES = np.array([3.0, 0.0, 0.01, 30.0, 0.3, 3.0])  # in any order, also twice


def integrated(slope, start, times):
    order = np.unique(times)
    run = solve_ivp(slope, (0, order[-1]), start, "DOP853", t_eval=order, rtol=3e-14, atol=1e-15, max_step=0.5)
    return run.y.T[np.searchsorted(order, times)]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("loss", "depth"), [("cross-entropy", 1), ("squared", 1), ("exponential", 3), ("squared", 2), ("exponential", 2)]
)
def test_every_smooth_loss_follows_10_1(loss, depth):
    start = np.array([0.02, 0.1, 0.05]) if depth > 1 else np.array([0.0, 0.1, -0.2])

    def slope(t, v):
        push = (P * RESIDUALS[loss](TYPES @ v)) @ TYPES
        return depth * SCALES ** (2 / depth) * np.abs(v) ** (2 - 2 / depth) * push

    expected = integrated(slope, start, TIMES)
    flow = feature_flow(TYPES, P, loss, depth=depth, scales=SCALES, init=start)
    found = np.asarray(flow.features(TIMES))
    np.testing.assert_allclose(found, expected, atol=1e-12, rtol=1e-11)
    np.testing.assert_allclose(flow.margins(TIMES), expected @ TYPES.T, atol=1e-12, rtol=1e-11)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_hinge_moves_from_margin_to_margin(depth):
    """Each phase by SciPy with constant residuals, ended by its own event search."""
    start = np.array([0.02, 0.1, 0.05])

    def slope(v, open_types):
        return depth * SCALES ** (2 / depth) * v ** (2 - 2 / depth) * ((P * open_types) @ TYPES)

    now, v, open_types, pieces = 0.0, start, np.ones(3, bool), []
    while open_types.any():
        events = [lambda t, v, k=k: TYPES[k] @ v - 1 for k in np.flatnonzero(open_types)]
        for event in events:
            event.terminal = True
        run = solve_ivp(
            lambda t, v, o=open_types: slope(v, o),
            (now, 1e3),
            v,
            "DOP853",
            rtol=3e-14,
            atol=1e-15,
            events=events,
            dense_output=True,
        )
        pieces.append((now, run.t[-1], run.sol))
        now, v = run.t[-1], run.y[:, -1]
        open_types = open_types & (TYPES @ v < 1 - 1e-12)
    flow = feature_flow(TYPES, P, "hinge", depth=depth, scales=SCALES, init=start)
    for begin, end, piece in pieces:
        times = np.linspace(begin, end, 4)
        np.testing.assert_allclose(flow.features(times), piece(times).T, rtol=1e-9)
    np.testing.assert_allclose(flow.features([now, 1e300]), [v, v], rtol=1e-9)
    assert len(pieces) == 3


@pytest.mark.slow
def test_float32_keeps_its_digits():
    p, init = np.array([0.3, 0.7], np.float32), np.array([0.01, 0.04], np.float32)
    times = np.array([0.01, 1.0, 10.0, 1e3, 1e30], np.float32)
    for loss, depth in (("exponential", 2), ("hinge", 2)):
        single = feature_flow([[1, 0], [1, 1]], p, loss, depth=depth, init=init).features(times)
        assert single.dtype == np.float32
        with jax.enable_x64(True):
            flow = feature_flow([[1, 0], [1, 1]], p.astype(float), loss, depth=depth, init=init.astype(float))
            double = np.asarray(flow.features(times.astype(float)))
        assert np.all(np.abs(single - double) <= 2e-5 * double.max(-1, keepdims=True))


@pytest.mark.usefixtures("x64")
def test_features_that_share_nothing_are_modes_of_their_own():
    alone = feature_flow(np.eye(3), P, "cross-entropy", depth=1, scales=SCALES)
    expected = one_layer_logit(P, SCALES, np.zeros(3), "cross-entropy", TIMES[:, None])
    np.testing.assert_allclose(alone.features(TIMES), expected, rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(alone.index(TIMES), 0, atol=1e-10)
    # The same, found as what a feature does without the others (10.6).
    together = feature_flow(TYPES, P, "cross-entropy", depth=1, scales=SCALES)
    expected = one_layer_logit(P @ TYPES, SCALES, np.zeros(3), "cross-entropy", TIMES[:, None])
    np.testing.assert_allclose(together.alone(TIMES), expected, rtol=1e-14)
    index = np.asarray(together.index(TIMES))
    later = TIMES > 0
    np.testing.assert_allclose(index[later], (1 - together.features(TIMES) / expected)[later], atol=1e-9)
    assert (index[~later] == 0).all()


@pytest.mark.usefixtures("x64")
def test_types_that_are_equal_or_share_nothing_are_read_outs():
    """One type of two features, shown twice, beside a type of one: the closed form (3.9) against SciPy."""
    types, start = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 1]]), np.array([0.3, -0.2, 0.1])
    late = np.append(TIMES, 1e300)

    def slope(t, v):
        return SCALES**2 * ((P * RESIDUALS["cross-entropy"](types @ v)) @ types)

    flow = feature_flow(types, P, "cross-entropy", depth=1, scales=SCALES, init=start)
    found = np.asarray(flow.features(late))
    np.testing.assert_allclose(found[:-1], integrated(slope, start, TIMES), atol=1e-12, rtol=1e-12)
    # Twins share what their margin gains as the squares of their norms; it is log t in the end.
    gains = found[-1] - start
    assert gains[0] / gains[1] == pytest.approx((SCALES[0] / SCALES[1]) ** 2, rel=1e-12)
    assert flow.margins(1e300)[0] == pytest.approx(np.log(1e300 * 0.8 * (SCALES[:2] ** 2).sum()), rel=1e-2)


@pytest.mark.usefixtures("x64")
def test_batches_broadcast_and_each_member_is_itself():
    p = np.array([P, P[::-1]])
    flow = feature_flow(TYPES, p, "hinge", depth=2, scales=SCALES, init=np.array([0.02, 0.1, 0.05]))
    found = np.asarray(flow.features(TIMES.reshape(2, 3)))
    assert found.shape == (2, 2, 3, 3)
    for k in range(2):
        one = feature_flow(TYPES, p[k], "hinge", depth=2, scales=SCALES, init=np.array([0.02, 0.1, 0.05]))
        np.testing.assert_allclose(found[k].reshape(6, 3), one.features(TIMES), rtol=1e-14)
    for loss in ("hinge", "exponential"):
        assert feature_flow(TYPES, p, loss).features(np.zeros((0,))).shape == (2, 0, 3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("loss", ["squared", "hinge"])
def test_slopes_in_the_problem(loss):
    @jax.jit
    def read(types, p, r, start, t):
        return feature_flow(types, p, loss, depth=1, scales=r, init=start).features(t)[1]

    # The second problem has equal eigenvalues, whose vectors have no derivative; the features do.
    rng = np.random.default_rng(1)
    slopes = jax.jit(jax.grad(read, argnums=(1, 2, 3, 4)))
    for types, p, r in ((TYPES, P, SCALES), (np.eye(3), np.full(3, 1 / 3), np.ones(3))):
        point = (p, r, np.array([0.01, 0.02, 0.03]), np.array(0.4))
        ours = slopes(types, *point)
        for _ in range(4):
            way = [rng.normal(size=value.shape) for value in point]
            ends = [float(read(types, *(x + s * d for x, d in zip(point, way, strict=True)))) for s in (1e-6, -1e-6)]
            along = sum(float(np.sum(part * d)) for part, d in zip(ours, way, strict=True))
            assert along == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-6, abs=1e-9)


@pytest.mark.usefixtures("x64")
def test_slopes_of_what_is_integrated():
    def read(both, t):
        return feature_flow([[1, 0], [1, 1]], jax.numpy.stack([0.3, both]), "cross-entropy").features(t)[1]

    ours = jax.grad(read, argnums=(0, 1))(0.7, 30.0)
    step = 1e-4
    for k in range(2):
        shift = np.eye(2)[k] * step
        ends = [float(read(0.7 + s * shift[0], 30.0 + s * shift[1])) for s in (1, -1)]
        assert float(ours[k]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6)


@pytest.mark.usefixtures("x64")
def test_shared_neurons_follow_one_boost():
    rng = np.random.default_rng(0)
    w, z = 0.3 * np.abs(rng.normal(size=(2, 3, 2))), 0.3 * np.abs(rng.normal(size=(2, 3)))
    w[0, 0, 1] = -0.3 * w[0, 0, 0]  # active all the same
    w[1, 2], z[1, 2] = 0, 0  # no neuron at all
    types, p, scales = np.array([[1.0, 0], [1, 1]]), np.array([0.7, 0.3]), np.array([1.0, 0.8])
    law = shared_features(types, p, w, z, "cross-entropy", scales=scales)
    times = np.array([0.0, 1.0, 50.0])

    def slope(t, state):
        state = state.reshape(2, 3, 3)
        margins = np.einsum("bhk,bh->bk", state[..., :2], state[..., 2]) * scales @ types.T
        push = scales * ((p / (1 + np.exp(margins))) @ types)
        moved = [state[..., 2:] * push[:, None], np.einsum("bhk,bk->bh", state[..., :2], push)[..., None]]
        return np.concatenate(moved, axis=-1).reshape(-1)

    expected = integrated(slope, np.concatenate([w, z[..., None]], axis=-1).reshape(-1), times)
    expected = np.moveaxis(expected.reshape(3, 2, 3, 3), 0, 1)
    found_w, found_z = law.weights(times)
    np.testing.assert_allclose(found_w, expected[..., :2], atol=1e-11)
    np.testing.assert_allclose(found_z, expected[..., 2], atol=1e-11)
    v = scales * np.einsum("bthk,bth->btk", expected[..., :2], expected[..., 2])
    np.testing.assert_allclose(law.features(times), v, atol=1e-10)
    # A jump of the residual is not stepped over: with hinge the margins stop where they are reached.
    hinge = shared_features(types, p, w, z, "hinge", scales=scales)
    np.testing.assert_allclose(np.asarray(hinge.features(1e5 * times))[:, 1:, 0], 1, rtol=1e-9)
    # Every beta_j has a limit, so that v_2/v_1 falls to 0 (like 1/sqrt(v_1)).
    late = np.array([1e60, 1e150, 1e300])
    rare = np.asarray(law.weights(late)[0])[..., 1]
    np.testing.assert_allclose(rare[:, 1:], rare[:, :-1], rtol=1e-2)
    v = np.asarray(law.features(late))
    assert (np.diff(v[..., 1] / v[..., 0], axis=-1) < 0).all()
    assert (v[:, -1, 1] / v[:, -1, 0] < 0.05).all()


@pytest.mark.usefixtures("x64")
def test_the_slope_of_shared_neurons():
    for loss in RESIDUALS:
        for v1, v2 in ((0.2, 0.4), (0.3, -0.5)):
            expected = 0.3 * RESIDUALS[loss](v1 + v2) / (0.7 * RESIDUALS[loss](v1) + 0.3 * RESIDUALS[loss](v1 + v2))
            assert float(shared_slope(0.7, 0.3, loss, frequent=v1, rare=v2)) == pytest.approx(expected, rel=1e-13)
    assert float(shared_slope(0.7, 0.3, "hinge")) == pytest.approx(0.3, rel=1e-15)


def test_bad_arguments():
    good = ([[1, 0], [1, 1]], [0.5, 0.5], "hinge")
    for change, message in (
        ({0: [1, 0]}, r"types must be \[S, K\]"),
        ({0: [[1, 0.5], [1, 1]]}, r"types must hold -1, 0 and 1, got 0\.5"),
        ({0: [[1, 0], [1, 0]]}, "feature 1 is empty: its column"),
        ({0: [[0, 0], [1, 1]]}, "sample type 0 is empty: its row"),
        ({1: [0.5, 0.0]}, r"probabilities must be > 0, got 0\.0"),
        ({1: [0.5, 0.3, 0.2]}, "probabilities must have 2 entries"),
        ({2: "mse"}, "unknown loss 'mse'"),
        ({3: 0}, "depth must be an integer >= 1, got 0"),
        ({3: 2}, "depth = 2 needs init"),
        ({3: 2, 5: [0.1, 0.0]}, r"init must be > 0, got 0\.0"),
        ({4: [1.0, -1.0]}, r"scales must be > 0, got -1\.0"),
    ):
        arguments = dict(enumerate((*good, 1, None, None))) | change
        types, probabilities, loss, depth, scales, init = arguments.values()
        with pytest.raises(ValueError, match=message):
            feature_flow(types, probabilities, loss, depth=depth, scales=scales, init=init)
    with pytest.raises(ValueError, match=r"times must be finite and >= 0, got t = -1\.0"):
        feature_flow(*good).features(-1.0)
    with pytest.raises(gs.HypothesisError, match="squared"):
        shared_features(*good[:2], [[0.1, 0.1]], [0.1], "squared")
    with pytest.raises(gs.HypothesisError, match=r"neuron \[0\]: z = -0\.1"):
        shared_features(*good[:2], [[0.1, 0.1]], [-0.1], good[2])
    with pytest.raises(gs.HypothesisError, match="active on all samples"):
        shared_features(*good[:2], [[0.1, -0.2]], [0.1], good[2])
    with pytest.raises(ValueError, match="w must be"):
        shared_features(*good[:2], [0.1, 0.2], [0.1], good[2])


@pytest.mark.usefixtures("x64")
def test_a_time_out_of_reach_is_an_error():
    with pytest.raises(gs.ConvergenceError, match="ask for earlier times"):
        feature_flow(TYPES, P, "squared", depth=2, scales=SCALES, init=[0.02, 0.1, 0.05]).features(1e6)


def test_shares_of_a_pair_are_shares_of_all_samples():
    for frequent, both in ((0.8, 0.3), ([0.1, 0.8], [0.2, 0.3])):
        with pytest.raises(ValueError, match=r"p_both must be at most 1, all samples, got 0\.8 \+ 0\.3; divide both"):
            shared_slope(frequent, both, "hinge")
    assert float(shared_slope(0.3, 0.1, "hinge")) == pytest.approx(0.25)  # other samples have neither feature


def test_a_common_factor_of_the_probabilities_is_one_of_time():
    once, twice = (feature_flow([[1, 0], [1, 1]], p, "hinge").features for p in ([0.25, 0.25], [0.5, 0.5]))
    np.testing.assert_allclose(once(0.8), twice(0.4), rtol=1e-6)


TRIPLE, SHARES = [[1, 1], [1, 0], [0, 1]], [0.5, 0.3, 0.2]


class Jump(Loss):
    """g = sigmoid(2 - m), a quarter of it below 0.3; no kink is announced."""

    def value(self, margin):
        fallen = jax.nn.softplus(2 - margin) - jax.nn.softplus(1.7)
        return jnp.where(margin < 0.3, fallen / 4, fallen)

    def residual(self, margin):
        return jnp.where(margin < 0.3, 0.25, 1.0) * jax.nn.sigmoid(2 - margin)


class Valley(Loss):
    """l = |m - 1/2|: margins come to 1/2 and slide along the jump of g from 1 to -1."""

    def value(self, margin):
        return jnp.abs(margin - 0.5)

    def residual(self, margin):
        return jnp.where(margin < 0.5, 1.0, -1.0)


def through_a_jump(depth, init, times):
    """(10.1) for `Jump` by SciPy, from event to event."""
    types, shares = np.array(TRIPLE), np.array(SHARES)
    v, begin, found = np.array(init), 0.0, []
    while begin < times[-1]:
        high = types @ v > 0.3 - 1e-12

        def field(_, v, high=high):
            pull = shares * np.where(high, 1, 0.25) / (1 + np.exp(types @ v - 2))
            return (pull @ types) * depth * v ** (2 - 2 / depth)

        events = [lambda _, v, i=i: types[i] @ v - 0.3 for i in np.flatnonzero(~high)]
        for event in events:
            event.terminal = True
        run = solve_ivp(
            field, (begin, times[-1]), v, method="DOP853", rtol=1e-12, atol=1e-14, events=events or None, dense_output=True
        )
        found += [run.sol(t) for t in times if begin <= t <= run.t[-1]]
        begin, v = run.t[-1], run.y[:, -1]
    return np.array(found)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("depth", [1, 2])
def test_a_jump_that_is_not_announced_costs_no_digits(depth):
    init, times = [0.09, 0.05], np.array([0.5, 1.0, 4.0, 8.0])
    flow = feature_flow(TRIPLE, SHARES, Jump(), depth=depth, init=init)
    np.testing.assert_allclose(flow.features(times), through_a_jump(depth, init, times), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_margin_that_slides_along_a_jump_is_an_error():
    with pytest.raises(gs.ConvergenceError, match="slide along a margin at which the residual jumps"):
        feature_flow([[1]], [1.0], Valley(), depth=2, init=[0.09]).features([0.5, 1.0, 2.0, 4.0])
